"""Server-Timing: where the time of a request went, for those who turn it on."""
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.client import MOVIES, REGISTER, account_fields, wait_until
from helpers.metrics import read_metrics

TIMING = re.compile(r'pool;dur=(\d+\.\d{3})(?:, statement;desc="([a-z_/]+)";dur=(\d+\.\d{3}))?(?:, batch;desc="(\d+)")?')
SITE = "https://app.example.com"


@pytest.fixture(scope="module")
def server(make_server, own_server):
    return make_server(SERVER_TIMING="true", CORS_ORIGINS=SITE)


def timing_of(response):
    """The statement that the answer names, how many requests it answered together, and the milliseconds of pool and statement."""
    pool, statement, running, batch = TIMING.fullmatch(response.headers["Server-Timing"]).groups()
    return statement, batch and int(batch), float(pool), running and float(running)


def test_by_default_nothing_is_said(own_server):
    assert "Server-Timing" not in own_server.client().new_user().get(MOVIES).headers


def test_each_answer_names_its_statement_and_whether_it_was_of_a_batch(server):
    ann = server.client().new_user()
    movie = f"{MOVIES}{ann.add_movie()['id']}/"
    asked = {
        "movies/read": ("GET", movie, 1), "movies/list_first": ("GET", MOVIES, 1), "movies/update": ("PATCH", movie, 1),
        "movies/list_shelf": ("GET", f"{MOVIES}?page=last", None), "movies/search_shelf": ("GET", f"{MOVIES}?title=x", None),
        "users/find_active": ("POST", movie, None), "movies/delete": ("DELETE", movie, 1),
    }
    for name, (method, path, batch) in asked.items():
        response = ann.send(method, path)
        statement, together, pool, running = timing_of(response)
        assert (statement, together) == (name, batch)
        assert running > 0 and pool + running <= response.elapsed.total_seconds() * 1000
    assert timing_of(server.client().post(REGISTER, account_fields()))[0] in ("users/create", "users/find_taken")  # the longer one


def test_a_request_that_met_no_database_says_nothing(server):
    client = server.client()
    assert [client.get(path).headers.get("Server-Timing") for path in (MOVIES, "/nothing", "/healthz", "/metrics")] == [None] * 4


def test_those_who_waited_for_their_batch_are_told_its_size(start_server, database):
    server = start_server(SERVER_TIMING="true")
    ann = server.client().new_user()
    movie = f"{MOVIES}{ann.add_movie()['id']}/"
    readers = [ann.with_token(ann.token) for _ in range(5)]
    with database.connect(database.url) as holder, ThreadPoolExecutor(5) as pool:
        holder.execute("lock table movies in access exclusive mode")
        responses = [pool.submit(reader.get, movie) for reader in readers]
        wait_until(lambda: read_metrics(server.client())["movies_requests_in_flight", ""] == len(readers))
        holder.rollback()
        told = [timing_of(response.result()) for response in responses]
    assert {statement for statement, *_ in told} == {"movies/read"}
    sizes = Counter(batch for _, batch, *_ in told)
    assert [size for size, answered in sizes.items() if answered % size] == []
    assert max(sizes) > 1
    found = read_metrics(server.client())
    assert found["movies_database_batch_requests_sum", 'statement="movies/read"'] == 5
    batches = sum(answered / size for size, answered in sizes.items())
    assert found["movies_database_batch_requests_count", 'statement="movies/read"'] == batches
    assert found["movies_database_statement_duration_seconds_count", 'statement="movies/read"'] == batches


def test_one_who_waited_for_a_connection_in_vain_is_told_how_long(start_server, database):
    client = start_server(SERVER_TIMING="true", DB_POOL_SIZE="1").client()
    ann = client.new_user()
    with database.connect(database.url) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("lock table movies in access exclusive mode")
        first = pool.submit(ann.with_token(ann.token).get, f"{MOVIES}?page=last")
        wait_until(lambda: read_metrics(client)["movies_requests_in_flight", ""] == 1)
        second = ann.get(MOVIES)
        holder.rollback()
        assert (first.result().status_code, second.status_code) == (200, 503)
    assert timing_of(first.result())[0] == "movies/list_shelf"
    statement, _, waited, _ = timing_of(second)
    assert statement is None and waited > 2990  # the pool's deadline is 3 s, some of which went by before


def test_scripts_of_named_sites_may_read_it_and_no_others(server):
    ann = server.client().new_user()
    named, other = (ann.get(MOVIES, headers={"Origin": origin}) for origin in (SITE, "https://evil.example"))
    assert named.headers["Timing-Allow-Origin"] == SITE
    assert "Server-Timing" in other.headers and "Timing-Allow-Origin" not in other.headers
    assert "Timing-Allow-Origin" not in ann.get("/nothing", headers={"Origin": SITE}).headers
