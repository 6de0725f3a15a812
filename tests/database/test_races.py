"""Many clients at once: unique names, one movie changed and deleted from many sides, and never a 500."""
import time
from collections import Counter

import pytest

from helpers.client import MOVIES, PASSWORD, REGISTER, TOKEN, account, film, outcome, word
from helpers.concurrency import at_once, post, send

TAKEN_USERNAME = {"username": ["A user with that username already exists."]}
TAKEN_EMAIL = {"email": ["This field must be unique."]}


@pytest.mark.parametrize(
    "same, refusal",
    [(["username"], TAKEN_USERNAME), (["email"], TAKEN_EMAIL), (["username", "email"], TAKEN_USERNAME | TAKEN_EMAIL)],
)
def test_of_fifty_equal_registrations_one_is_201_and_the_others_are_told_what_is_taken(api, same, refusal):
    common = {field: value for field, value in account().items() if field in same}
    answers = at_once(50, lambda _: outcome(post(api, REGISTER, account(**common))))
    assert Counter(status for status, _ in answers) == {201: 1, 400: 49}
    assert [body for status, body in answers if status == 400] == [refusal] * 49


def test_after_fifty_equal_registrations_exactly_the_one_that_won_signs_in(api):
    name = word()
    passwords = [f"{PASSWORD}{index}" for index in range(50)]
    answers = at_once(50, lambda index: post(api, REGISTER, account(username=name, password=passwords[index], password2=passwords[index])))
    won = [index for index, answer in enumerate(answers) if answer.status_code == 201]
    attempts = {index: post(api, TOKEN, {"username": name, "password": passwords[index]}).status_code for index in {won[0], 0, 49}}
    assert len(won) == 1
    assert attempts == {index: 200 if index == won[0] else 401 for index in attempts}


def test_fifty_different_registrations_all_succeed_with_ids_of_their_own_and_readers_are_served_beside(api, ann):
    movie = ann.add_movie()
    read = lambda: send(ann, "GET", f"{MOVIES}{movie['id']}/")  # noqa: E731
    answers = at_once(60, lambda index: post(api, REGISTER, account()) if index < 50 else read())
    assert Counter(answer.status_code for answer in answers[:50]) == {201: 50}
    assert len({answer.json()["id"] for answer in answers[:50]}) == 50
    assert [outcome(answer) for answer in answers[50:]] == [(200, movie)] * 10


def test_of_twenty_parallel_deletes_one_is_204_and_the_others_404(ann):
    path = f"{MOVIES}{ann.add_movie()['id']}/"
    answers = at_once(20, lambda _: send(ann, "DELETE", path).status_code)
    assert Counter(answers) == {204: 1, 404: 19}


def test_parallel_patches_of_different_fields_lose_nothing(ann):
    path = f"{MOVIES}{ann.add_movie()['id']}/"
    values = [("title", "t{}"), ("genre", "g{}"), ("year", "{}")]

    def write(index):
        field, form = values[index]
        return [send(ann, "PATCH", path, {field: form.format(step)}).status_code for step in range(20)]

    assert at_once(3, write) == [[200] * 20] * 3
    movie = ann.get(path).json()
    assert (movie["title"], movie["genre"], movie["year"]) == ("t19", "g19", 19)


def test_parallel_puts_leave_one_of_them_whole(ann):
    path = f"{MOVIES}{ann.add_movie()['id']}/"
    answers = at_once(20, lambda index: send(ann, "PUT", path, {"title": f"t{index}", "genre": f"g{index}", "year": index}).status_code)
    movie = ann.get(path).json()
    assert answers == [200] * 20
    assert (movie["title"], movie["genre"]) == (f"t{movie['year']}", f"g{movie['year']}")


def test_patches_beside_a_delete_are_200_or_404_and_bring_nothing_back(ann):
    path = f"{MOVIES}{ann.add_movie()['id']}/"
    requests = [("DELETE", None) if index == 10 else ("PATCH", {"year": index}) for index in range(20)]
    answers = at_once(20, lambda index: send(ann, requests[index][0], path, requests[index][1]).status_code)
    assert answers.pop(10) == 204
    assert set(answers) <= {200, 404}
    assert ann.get(path).status_code == 404


def test_parallel_posts_are_all_kept_each_once(ann):
    mark = word()
    answers = at_once(40, lambda index: post(ann, MOVIES, film(title=f"{mark} {index}")))
    listed = ann.get(f"{MOVIES}?title={mark}&page_size=100").json()["results"]
    assert Counter(answer.status_code for answer in answers) == {201: 40}
    assert sorted(movie["title"] for movie in listed) == sorted(f"{mark} {index}" for index in range(40))
    assert [movie["id"] for movie in listed] == sorted((answer.json()["id"] for answer in answers), reverse=True)


def test_many_sign_ins_at_once_succeed_or_are_asked_to_come_back(api, ann):
    started = time.monotonic()
    answers = at_once(50, lambda _: post(api, TOKEN, {"username": ann.username, "password": PASSWORD}))
    statuses = Counter(answer.status_code for answer in answers)
    # Who waits for a worker is refused after four seconds at the earliest.
    assert set(statuses) <= ({200, 503} if time.monotonic() - started >= 4 else {200})
    assert statuses[200] > 0
    assert all("Retry-After" in answer.headers for answer in answers if answer.status_code != 200)
