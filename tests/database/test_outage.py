"""Database outages under load: restart, kill, freeze, no free connections. 503 in time, automatic recovery, no acknowledged write lost."""
import signal
import time
from pathlib import Path

import pytest

from helpers.client import MOVIES, movie_fields, wait_until
from helpers.cluster import running_cluster, send_signal
from helpers.load import Load
from helpers.server import running_server

pytestmark = pytest.mark.own_servers


@pytest.fixture
def cluster():
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def server(cluster):
    with running_server({"DATABASE_URL": cluster.url, "WORKERS": "24"}) as server:
        yield server


def check_load(load, client):
    """Checks that every request was answered in time, with success or 503, and that no acknowledged write was lost."""
    assert load.failures == []
    assert load.statuses() <= {200, 201, 503}
    assert load.slowest() < 10
    assert load.titles and load.lost_writes(client) == {}


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_restart_under_load_returns_503_and_loses_no_acknowledged_write(cluster, server, mode):
    ann = server.client().new_user()
    with Load(ann) as load:
        cluster.restart(mode)
        load.wait_for_recovery(5)
    check_load(load, ann)


def test_frozen_database_returns_503_within_ten_seconds_and_holds_few_threads(cluster, server):
    ann, probe = server.client().new_user(), server.client()
    task_folder = Path(f"/proc/{server.process.pid}/task")
    threads = len(list(task_folder.iterdir()))
    with Load(ann) as load:
        frozen = [cluster.postmaster, *cluster.client_backends()]
        send_signal(frozen, signal.SIGSTOP)
        end_of_freeze = time.monotonic() + 20
        try:
            while time.monotonic() < end_of_freeze:
                start = time.monotonic()
                assert probe.get("/healthz").status_code == 200
                assert time.monotonic() - start < 1
                time.sleep(0.2)
            assert probe.get("/readyz").status_code == 503
            # Each of the 8 sessions and that of the background check may be given up once, and 8 attempts to connect may hang.
            assert len(list(task_folder.iterdir())) <= threads + 9 + 8
        finally:
            send_signal(frozen, signal.SIGCONT)
        load.wait_for_recovery(5)
    assert 503 in load.statuses()
    check_load(load, ann)


def test_frozen_sessions_are_replaced_by_new_connections(cluster, server):
    ann = server.client().new_user()
    # The sessions are idle, so none holds a lock that others need.
    frozen = cluster.client_backends()
    send_signal(frozen, signal.SIGSTOP)
    try:
        wait_until(lambda: ann.get(MOVIES).status_code == 200, deadline=10)
        wait_until(lambda: ann.post(MOVIES, movie_fields()).status_code == 201, deadline=10)
        wait_until(lambda: ann.get("/readyz").status_code == 200, deadline=5)
    finally:
        send_signal(frozen, signal.SIGCONT)


def test_acknowledged_writes_survive_kill_of_database_and_service(cluster, server):
    ann = server.client().new_user()
    with Load(ann) as load:
        cluster.kill()
        server.process.kill()
    server.wait_for_exit()
    cluster.start()
    start = time.monotonic()
    client = server.restart().client().with_token(ann.token)
    assert time.monotonic() - start < 5
    assert len(load.titles) > 20 and load.lost_writes(client) == {}


def test_exhausted_database_connections_return_503_until_some_are_free(cluster, server):
    ann, probe = server.client().new_user(), server.client()
    # Another role for the test's own connections: the service's role loses superuser, to which connection limits do not apply.
    owner = cluster.url.replace("user=movies", "user=tester")
    cluster.run("create role tester login superuser")
    cluster.url = owner
    cluster.run("alter role movies nosuperuser connection limit 0")
    cluster.run("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'movies'")
    response = ann.post(MOVIES, movie_fields())
    assert (response.status_code, int(response.headers["Retry-After"]) > 0, response.elapsed.total_seconds() < 5) == (503, True, True)
    wait_until(lambda: probe.get("/readyz").status_code == 503, deadline=5)
    assert probe.get("/healthz").status_code == 200
    cluster.run("alter role movies connection limit -1")
    wait_until(lambda: ann.post(MOVIES, movie_fields()).status_code == 201, deadline=5)
