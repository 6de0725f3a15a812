"""The Server-Timing header: how a response's time was spent; off by default."""
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
    """Returns from Server-Timing: the statement, its batch size, and the milliseconds in the pool and in the statement."""
    pool, statement, running, batch = TIMING.fullmatch(response.headers["Server-Timing"]).groups()
    return statement, batch and int(batch), float(pool), running and float(running)


def test_server_timing_is_absent_by_default(own_server):
    assert "Server-Timing" not in own_server.client().new_user().get(MOVIES).headers


def test_response_names_its_statement_and_batch_size(server):
    ann = server.client().new_user()
    movie = f"{MOVIES}{ann.add_movie()['id']}/"
    requests = {
        "movies/read": ("GET", movie, 1), "movies/list_first": ("GET", MOVIES, 1), "movies/update": ("PATCH", movie, 1),
        "movies/list_own": ("GET", f"{MOVIES}?page=last", None), "movies/search_own": ("GET", f"{MOVIES}?title=x", None),
        "users/find_active": ("POST", movie, None), "movies/delete": ("DELETE", movie, 1),
    }
    for name, (method, path, batch) in requests.items():
        response = ann.send(method, path)
        statement, batch_size, pool, running = timing_of(response)
        assert (statement, batch_size) == (name, batch)
        assert running > 0 and pool + running <= response.elapsed.total_seconds() * 1000
    assert timing_of(server.client().post(REGISTER, account_fields()))[0] in ("users/create", "users/find_existing")  # whichever took longer


def test_server_timing_is_absent_if_no_statement_ran(server):
    client = server.client()
    assert [client.get(path).headers.get("Server-Timing") for path in (MOVIES, "/nothing", "/healthz", "/metrics")] == [None] * 4


def test_batch_sizes_agree_with_metrics(start_server, database):
    server = start_server(SERVER_TIMING="true")
    ann = server.client().new_user()
    movie = f"{MOVIES}{ann.add_movie()['id']}/"
    readers = [ann.with_token(ann.token) for _ in range(5)]
    with database.connect(database.url) as blocker, ThreadPoolExecutor(5) as pool:
        blocker.execute("lock table movies in access exclusive mode")
        responses = [pool.submit(reader.get, movie) for reader in readers]
        wait_until(lambda: read_metrics(server.client())["movies_requests_in_flight", ""] == len(readers))
        blocker.rollback()
        timings = [timing_of(response.result()) for response in responses]
    assert {statement for statement, *_ in timings} == {"movies/read"}
    sizes = Counter(batch for _, batch, *_ in timings)
    assert [size for size, count in sizes.items() if count % size] == []
    assert max(sizes) > 1
    found = read_metrics(server.client())
    assert found["movies_database_batch_requests_sum", 'statement="movies/read"'] == 5
    batches = sum(count / size for size, count in sizes.items())
    assert found["movies_database_batch_requests_count", 'statement="movies/read"'] == batches
    assert found["movies_database_statement_duration_seconds_count", 'statement="movies/read"'] == batches


def test_pool_timeout_reports_the_time_waited(start_server, database):
    client = start_server(SERVER_TIMING="true", DB_POOL_SIZE="1").client()
    ann = client.new_user()
    with database.connect(database.url) as blocker, ThreadPoolExecutor(1) as pool:
        blocker.execute("lock table movies in access exclusive mode")
        first = pool.submit(ann.with_token(ann.token).get, f"{MOVIES}?page=last")
        wait_until(lambda: read_metrics(client)["movies_requests_in_flight", ""] == 1)
        second = ann.get(MOVIES)
        blocker.rollback()
        assert (first.result().status_code, second.status_code) == (200, 503)
    assert timing_of(first.result())[0] == "movies/list_own"
    statement, _, pool_milliseconds, _ = timing_of(second)
    assert statement is None and pool_milliseconds > 2990  # of the pool's timeout of 3 s, less the time spent before


def test_only_scripts_of_allowed_origins_may_read_server_timing(server):
    ann = server.client().new_user()
    named, other = (ann.get(MOVIES, headers={"Origin": origin}) for origin in (SITE, "https://evil.example"))
    assert named.headers["Timing-Allow-Origin"] == SITE
    assert "Server-Timing" in other.headers and "Timing-Allow-Origin" not in other.headers
    assert "Timing-Allow-Origin" not in ann.get("/nothing", headers={"Origin": SITE}).headers
