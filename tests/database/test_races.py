"""Simultaneous requests: unique usernames, and many clients that change and delete one movie."""
import time
from collections import Counter

import pytest

from helpers.client import MOVIES, PASSWORD, REGISTER, TOKEN, account_fields, movie_fields, outcome, unique_word
from helpers.concurrency import post, run_simultaneously, send

TAKEN_USERNAME = {"username": ["A user with that username already exists."]}
TAKEN_EMAIL = {"email": ["This field must be unique."]}


@pytest.mark.parametrize(
    "equal_fields, errors",
    [(["username"], TAKEN_USERNAME), (["email"], TAKEN_EMAIL), (["username", "email"], TAKEN_USERNAME | TAKEN_EMAIL)],
)
def test_one_of_fifty_equal_registrations_succeeds_and_the_others_report_what_is_taken(api, equal_fields, errors):
    common = {field: value for field, value in account_fields().items() if field in equal_fields}
    responses = run_simultaneously(50, lambda _: outcome(post(api, REGISTER, account_fields(**common))))
    assert Counter(status for status, _ in responses) == {201: 1, 400: 49}
    assert [body for status, body in responses if status == 400] == [errors] * 49


def test_only_the_password_of_the_successful_registration_signs_in(api):
    name = unique_word()
    passwords = [f"{PASSWORD}{index}" for index in range(50)]
    responses = run_simultaneously(50, lambda index: post(api, REGISTER, account_fields(username=name, password=passwords[index], password2=passwords[index])))
    winners = [index for index, response in enumerate(responses) if response.status_code == 201]
    attempts = {index: post(api, TOKEN, {"username": name, "password": passwords[index]}).status_code for index in {winners[0], 0, 49}}
    assert len(winners) == 1
    assert attempts == {index: 200 if index == winners[0] else 401 for index in attempts}


def test_fifty_different_registrations_succeed_with_unique_ids_beside_reads(api, ann):
    movie = ann.add_movie()
    read = lambda: send(ann, "GET", f"{MOVIES}{movie['id']}/")  # noqa: E731
    responses = run_simultaneously(60, lambda index: post(api, REGISTER, account_fields()) if index < 50 else read())
    assert Counter(response.status_code for response in responses[:50]) == {201: 50}
    assert len({response.json()["id"] for response in responses[:50]}) == 50
    assert [outcome(response) for response in responses[50:]] == [(200, movie)] * 10


def test_one_of_twenty_simultaneous_deletes_returns_204_and_the_others_404(ann):
    path = f"{MOVIES}{ann.add_movie()['id']}/"
    responses = run_simultaneously(20, lambda _: send(ann, "DELETE", path).status_code)
    assert Counter(responses) == {204: 1, 404: 19}


def test_simultaneous_patches_of_different_fields_are_all_applied(ann):
    path = f"{MOVIES}{ann.add_movie()['id']}/"
    values = [("title", "t{}"), ("genre", "g{}"), ("year", "{}")]

    def write(index):
        field, form = values[index]
        return [send(ann, "PATCH", path, {field: form.format(step)}).status_code for step in range(20)]

    assert run_simultaneously(3, write) == [[200] * 20] * 3
    movie = ann.get(path).json()
    assert (movie["title"], movie["genre"], movie["year"]) == ("t19", "g19", 19)


def test_simultaneous_puts_store_one_of_them_completely(ann):
    path = f"{MOVIES}{ann.add_movie()['id']}/"
    responses = run_simultaneously(20, lambda index: send(ann, "PUT", path, {"title": f"t{index}", "genre": f"g{index}", "year": index}).status_code)
    movie = ann.get(path).json()
    assert responses == [200] * 20
    assert (movie["title"], movie["genre"]) == (f"t{movie['year']}", f"g{movie['year']}")


def test_patches_beside_a_delete_return_200_or_404_and_do_not_restore_the_movie(ann):
    path = f"{MOVIES}{ann.add_movie()['id']}/"
    requests = [("DELETE", None) if index == 10 else ("PATCH", {"year": index}) for index in range(20)]
    responses = run_simultaneously(20, lambda index: send(ann, requests[index][0], path, requests[index][1]).status_code)
    assert responses.pop(10) == 204
    assert set(responses) <= {200, 404}
    assert ann.get(path).status_code == 404


def test_simultaneous_posts_are_each_stored_once(ann):
    mark = unique_word()
    responses = run_simultaneously(40, lambda index: post(ann, MOVIES, movie_fields(title=f"{mark} {index}")))
    listed = ann.get(f"{MOVIES}?title={mark}&page_size=100").json()["results"]
    assert Counter(response.status_code for response in responses) == {201: 40}
    assert sorted(movie["title"] for movie in listed) == sorted(f"{mark} {index}" for index in range(40))
    assert [movie["id"] for movie in listed] == sorted((response.json()["id"] for response in responses), reverse=True)


def test_simultaneous_sign_ins_succeed_or_get_retry_after(api, ann):
    started = time.monotonic()
    responses = run_simultaneously(50, lambda _: post(api, TOKEN, {"username": ann.username, "password": PASSWORD}))
    statuses = Counter(response.status_code for response in responses)
    # A sign-in that waits for its turn to hash is refused after four seconds at the earliest.
    assert set(statuses) <= ({200, 503} if time.monotonic() - started >= 4 else {200})
    assert statuses[200] > 0
    assert all("Retry-After" in response.headers for response in responses if response.status_code != 200)
