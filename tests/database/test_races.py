"""Many clients at once: unique names, one movie changed and deleted from many sides, and never a 500."""
import time
from collections import Counter

import pytest

from helpers.client import MOVIES, PASSWORD, REGISTER, TOKEN, account_fields, movie_fields, outcome, unique_word
from helpers.concurrency import post, run_simultaneously, send

TAKEN_USERNAME = {"username": ["A user with that username already exists."]}
TAKEN_EMAIL = {"email": ["This field must be unique."]}


@pytest.mark.parametrize(
    "same, refusal",
    [(["username"], TAKEN_USERNAME), (["email"], TAKEN_EMAIL), (["username", "email"], TAKEN_USERNAME | TAKEN_EMAIL)],
)
def test_of_fifty_equal_registrations_one_is_201_and_the_others_are_told_what_is_taken(api, same, refusal):
    common = {field: value for field, value in account_fields().items() if field in same}
    responses = run_simultaneously(50, lambda _: outcome(post(api, REGISTER, account_fields(**common))))
    assert Counter(status for status, _ in responses) == {201: 1, 400: 49}
    assert [body for status, body in responses if status == 400] == [refusal] * 49


def test_after_fifty_equal_registrations_exactly_the_one_that_won_signs_in(api):
    name = unique_word()
    passwords = [f"{PASSWORD}{index}" for index in range(50)]
    responses = run_simultaneously(50, lambda index: post(api, REGISTER, account_fields(username=name, password=passwords[index], password2=passwords[index])))
    won = [index for index, response in enumerate(responses) if response.status_code == 201]
    attempts = {index: post(api, TOKEN, {"username": name, "password": passwords[index]}).status_code for index in {won[0], 0, 49}}
    assert len(won) == 1
    assert attempts == {index: 200 if index == won[0] else 401 for index in attempts}


def test_fifty_different_registrations_all_succeed_with_ids_of_their_own_and_readers_are_served_beside(api, ann):
    movie = ann.add_movie()
    read = lambda: send(ann, "GET", f"{MOVIES}{movie['id']}/")  # noqa: E731
    responses = run_simultaneously(60, lambda index: post(api, REGISTER, account_fields()) if index < 50 else read())
    assert Counter(response.status_code for response in responses[:50]) == {201: 50}
    assert len({response.json()["id"] for response in responses[:50]}) == 50
    assert [outcome(response) for response in responses[50:]] == [(200, movie)] * 10


def test_of_twenty_parallel_deletes_one_is_204_and_the_others_404(ann):
    path = f"{MOVIES}{ann.add_movie()['id']}/"
    responses = run_simultaneously(20, lambda _: send(ann, "DELETE", path).status_code)
    assert Counter(responses) == {204: 1, 404: 19}


def test_parallel_patches_of_different_fields_lose_nothing(ann):
    path = f"{MOVIES}{ann.add_movie()['id']}/"
    values = [("title", "t{}"), ("genre", "g{}"), ("year", "{}")]

    def write(index):
        field, form = values[index]
        return [send(ann, "PATCH", path, {field: form.format(step)}).status_code for step in range(20)]

    assert run_simultaneously(3, write) == [[200] * 20] * 3
    movie = ann.get(path).json()
    assert (movie["title"], movie["genre"], movie["year"]) == ("t19", "g19", 19)


def test_parallel_puts_leave_one_of_them_whole(ann):
    path = f"{MOVIES}{ann.add_movie()['id']}/"
    responses = run_simultaneously(20, lambda index: send(ann, "PUT", path, {"title": f"t{index}", "genre": f"g{index}", "year": index}).status_code)
    movie = ann.get(path).json()
    assert responses == [200] * 20
    assert (movie["title"], movie["genre"]) == (f"t{movie['year']}", f"g{movie['year']}")


def test_patches_beside_a_delete_are_200_or_404_and_bring_nothing_back(ann):
    path = f"{MOVIES}{ann.add_movie()['id']}/"
    requests = [("DELETE", None) if index == 10 else ("PATCH", {"year": index}) for index in range(20)]
    responses = run_simultaneously(20, lambda index: send(ann, requests[index][0], path, requests[index][1]).status_code)
    assert responses.pop(10) == 204
    assert set(responses) <= {200, 404}
    assert ann.get(path).status_code == 404


def test_parallel_posts_are_all_kept_each_once(ann):
    mark = unique_word()
    responses = run_simultaneously(40, lambda index: post(ann, MOVIES, movie_fields(title=f"{mark} {index}")))
    listed = ann.get(f"{MOVIES}?title={mark}&page_size=100").json()["results"]
    assert Counter(response.status_code for response in responses) == {201: 40}
    assert sorted(movie["title"] for movie in listed) == sorted(f"{mark} {index}" for index in range(40))
    assert [movie["id"] for movie in listed] == sorted((response.json()["id"] for response in responses), reverse=True)


def test_many_sign_ins_at_once_succeed_or_are_asked_to_come_back(api, ann):
    started = time.monotonic()
    responses = run_simultaneously(50, lambda _: post(api, TOKEN, {"username": ann.username, "password": PASSWORD}))
    statuses = Counter(response.status_code for response in responses)
    # Who waits for a worker is refused after four seconds at the earliest.
    assert set(statuses) <= ({200, 503} if time.monotonic() - started >= 4 else {200})
    assert statuses[200] > 0
    assert all("Retry-After" in response.headers for response in responses if response.status_code != 200)
