"""Locked rows: a lock that another session holds delays only requests for that row; simultaneous requests for others succeed in time."""
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from helpers.client import MOVIES, movie_fields
from helpers.open_load import RECORD_CHANGES, send, wait_until_settled

OTHERS = 63
ROUNDS = 3
# In seconds. A batch that waits for the locked row takes 5 s, until its statement is cancelled.
MAX_SECONDS = 4


@pytest.fixture
def users(start_server, database):
    """Returns 64 users. The tests lock rows of the first one."""
    server = start_server(DB_POOL_SIZE=None)
    database.run(RECORD_CHANGES)
    client = server.client()
    with ThreadPoolExecutor(8) as pool:
        users = list(pool.map(lambda _: server.client().new_user(), range(OTHERS + 1)))
    assert client.get("/healthz").status_code == 200
    return users


def add_movies(database, users):
    """Adds a movie for each round and one more to each user; returns their ids by user id."""
    rows = database.run(
        "insert into movies (title, genre, year, creator_id) select 'film', 'Drama', 1999, creator_id "
        "from unnest(%s::bigint[]) as creator_id, generate_series(1, %s) returning creator_id, id",
        [user.id for user in users], ROUNDS + 1,
    )
    return {user.id: [movie for creator, movie in rows if creator == user.id] for user in users}


class Outcomes:
    """(request, status, seconds) of each request: of the first user (`blocked`) and of the other users."""

    def __init__(self):
        self.others, self.blocked = [], []

    def slowest(self):
        return max(seconds for _, _, seconds in self.others)


def send_rounds(users, make_request):
    """In each round all users send their requests at the same moment. The next round begins when the other users have their responses.
    Yields when all rounds are done, and waits for the blocked requests when resumed."""
    outcomes = Outcomes()

    def perform(user, number, start):
        method, path, fields = make_request(user, number)
        start.wait(30)
        start_time = time.monotonic()
        status = send(user, method, path, fields).status_code
        return (path, (fields or {}).get("title")), status, time.monotonic() - start_time

    with ThreadPoolExecutor(len(users) * 2) as pool:
        blocked = []
        for number in range(ROUNDS):
            start = Barrier(len(users))
            tasks = [pool.submit(perform, user, number, start) for user in users]
            blocked.append(tasks[0])
            outcomes.others += [task.result() for task in tasks[1:]]
        yield outcomes
        outcomes.blocked = [task.result() for task in blocked]


CASES = {
    # The locked table, and the request that needs the locked row.
    "create, user": ("users", lambda movies, user, number: ("POST", MOVIES, movie_fields())),
    "patch, movie": ("movies", lambda movies, user, number: ("PATCH", f"{MOVIES}{movies[user.id][0]}/", {"title": movie_fields()["title"]})),
    "delete, movie": ("movies", lambda movies, user, number: ("DELETE", f"{MOVIES}{movies[user.id][number]}/", None)),
    "delete, user": ("users", lambda movies, user, number: ("DELETE", f"{MOVIES}{movies[user.id][number]}/", None)),
}


@pytest.mark.parametrize("case", CASES)
def test_locked_row_delays_only_requests_for_that_row(users, database, case):
    table, make_request = CASES[case]
    movies = add_movies(database, users)
    database.run("delete from applied")
    locked = [users[0].id] if table == "users" else movies[users[0].id]
    with database.connect(database.url) as blocker:
        blocker.execute(f"select 1 from {table} where id = any (%s) for update", [locked])
        rounds = send_rounds(users, lambda user, number: make_request(movies, user, number))
        outcomes = next(rounds)
        blocker.rollback()
        next(rounds, None)
    wait_until_settled(database.run)
    others, blocked = (Counter(status for _, status, _ in group) for group in (outcomes.others, outcomes.blocked))
    print(f"others {dict(others)}, the slowest after {outcomes.slowest():.3f} s; blocked {dict(blocked)}")
    expected_status = {"create": 201, "patch": 200, "delete": 204}[case.split(",")[0]]
    assert others == {expected_status: OTHERS * ROUNDS}
    assert outcomes.slowest() < MAX_SECONDS
    assert set(blocked) <= {expected_status, 503}
    assert max(seconds for _, _, seconds in outcomes.blocked) < 9.5
    assert misapplied(database, outcomes.others + outcomes.blocked, expected_status) == {}


def misapplied(database, outcomes, expected_status):
    """Returns the requests that were not applied as often as their responses say: (status, times applied) by request."""
    applied = database.run("select operation, movie_id, title from applied")
    key = {
        201: lambda path, title: ("INSERT", title),
        200: lambda path, title: ("UPDATE", title),
        204: lambda path, title: ("DELETE", int(path.split("/")[-2])),
    }[expected_status]
    times = Counter((operation, movie if operation == "DELETE" else title) for operation, movie, title in applied)
    applied_by_request = {key(*sent): (status, times[key(*sent)]) for sent, status, _ in outcomes}
    return {
        sent: (status, times)
        for sent, (status, times) in applied_by_request.items()
        if times != 1 and (status == expected_status or times > 1)
    }
