"""A row that another session has locked delays only the requests about it; their neighbours succeed as if it were free."""
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from helpers.client import MOVIES, movie_fields
from helpers.open_load import RECORD_CHANGES, send, wait_until_settled

OTHERS = 63
ROUNDS = 3
# Seconds. A batch that waits for the locked row ends after 5, when its statement is cancelled.
BOUND = 4


@pytest.fixture
def users(start_server, database):
    """Sixty-four users with movies; the first one's rows are to be blocked."""
    server = start_server(DB_POOL_SIZE=None)
    database.run(RECORD_CHANGES)
    client = server.client()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: server.client().new_user(), range(OTHERS + 1)))
    assert client.get("/healthz").status_code == 200
    return made


def add_movies(database, users):
    """For each user the ids of a movie for each round, and of one more that is locked."""
    rows = database.run(
        "insert into movies (title, genre, year, creator_id) select 'film', 'Drama', 1999, creator_id "
        "from unnest(%s::bigint[]) as creator_id, generate_series(1, %s) returning creator_id, id",
        [user.id for user in users], ROUNDS + 1,
    )
    return {user.id: [movie for creator, movie in rows if creator == user.id] for user in users}


class Answers:
    """What each user's requests were answered, and after how long."""

    def __init__(self):
        self.others, self.blocked = [], []

    def slowest(self):
        return max(seconds for _, _, seconds in self.others)


def send_rounds(users, request):
    """In each round all users send the request for it at the same moment, the blocked one among them. The next round begins when the
    others are answered; a blocked request is left waiting."""
    responses = Answers()

    def perform(user, number, start):
        method, path, fields = request(user, number)
        start.wait(30)
        began = time.monotonic()
        status = send(user, method, path, fields).status_code
        return (path, (fields or {}).get("title")), status, time.monotonic() - began

    with ThreadPoolExecutor(len(users) * 2) as pool:
        blocked = []
        for number in range(ROUNDS):
            start = Barrier(len(users))
            tasks = [pool.submit(perform, user, number, start) for user in users]
            blocked.append(tasks[0])
            responses.others += [task.result() for task in tasks[1:]]
        yield responses
        responses.blocked = [task.result() for task in blocked]


CASES = {
    # What is locked, and the request that meets it.
    "create, user": ("users", lambda movies, user, number: ("POST", MOVIES, movie_fields())),
    "patch, movie": ("movies", lambda movies, user, number: ("PATCH", f"{MOVIES}{movies[user.id][0]}/", {"title": movie_fields()["title"]})),
    "delete, movie": ("movies", lambda movies, user, number: ("DELETE", f"{MOVIES}{movies[user.id][number]}/", None)),
    "delete, user": ("users", lambda movies, user, number: ("DELETE", f"{MOVIES}{movies[user.id][number]}/", None)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_locked_row_delays_only_the_requests_about_it(users, database, case):
    table, make_request = CASES[case]
    movies = add_movies(database, users)
    database.run("delete from applied")
    locked = [users[0].id] if table == "users" else movies[users[0].id]
    with database.connect(database.url) as holder:
        holder.execute(f"select 1 from {table} where id = any (%s) for update", [locked])
        rounds = send_rounds(users, lambda user, number: make_request(movies, user, number))
        responses = next(rounds)
        holder.rollback()
        next(rounds, None)
    wait_until_settled(database.run)
    others, blocked = (Counter(status for _, status, _ in asked) for asked in (responses.others, responses.blocked))
    print(f"others {dict(others)}, the slowest after {responses.slowest():.3f} s; blocked {dict(blocked)}")
    good = {"create": 201, "patch": 200, "delete": 204}[case.split(",")[0]]
    assert others == {good: OTHERS * ROUNDS}
    assert responses.slowest() < BOUND
    assert set(blocked) <= {good, 503}
    assert max(seconds for _, _, seconds in responses.blocked) < 9.5
    assert misapplied(database, responses.others + responses.blocked, good) == {}


def misapplied(database, asked, good):
    """Every request that the database did not apply as often as its answer says."""
    applied = database.run("select operation, movie_id, title from applied")
    key = {
        201: lambda path, title: ("INSERT", title),
        200: lambda path, title: ("UPDATE", title),
        204: lambda path, title: ("DELETE", int(path.split("/")[-2])),
    }[good]
    times = Counter((operation, movie if operation == "DELETE" else title) for operation, movie, title in applied)
    found = {key(*sent): (status, times[key(*sent)]) for sent, status, _ in asked}
    return {sent: seen for sent, seen in found.items() if seen[1] != 1 and (seen[0] == good or seen[1] > 1)}
