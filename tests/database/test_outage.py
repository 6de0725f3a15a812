"""The database restarted, killed, frozen and full under load: 503 in time, recovery by itself, no acknowledged write lost."""
import signal
import time
from pathlib import Path

import pytest

from helpers.client import MOVIES, movie_fields, wait_until
from helpers.cluster import Cluster, send_signal
from helpers.load import Load
from helpers.server import Server

pytestmark = pytest.mark.own_servers


@pytest.fixture
def cluster():
    made = Cluster().start()
    yield made
    made.dispose()


@pytest.fixture
def server(cluster):
    made = Server({"DATABASE_URL": cluster.url, "WORKERS": "24"}).wait_until_listening()
    yield made
    made.dispose()


def check(load, client):
    """Nothing but answers and honest refusals, none late, nothing lost."""
    assert load.failures == []
    assert load.statuses() <= {200, 201, 503}
    assert load.slowest() < 10
    assert load.titles and load.lost_writes(client) == {}


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_under_load_costs_503_and_no_acknowledged_write(cluster, server, mode):
    ann = server.client().new_user()
    with Load(ann) as load:
        cluster.restart(mode)
        load.wait_for_recovery(5)
    check(load, ann)


def test_a_frozen_server_is_503_within_ten_seconds_and_holds_a_bounded_number_of_threads(cluster, server):
    ann, probe = server.client().new_user(), server.client()
    tasks = Path(f"/proc/{server.process.pid}/task")
    threads = len(list(tasks.iterdir()))
    with Load(ann) as load:
        frozen = [cluster.postmaster, *cluster.client_backends()]
        send_signal(frozen, signal.SIGSTOP)
        thaws = time.monotonic() + 20
        try:
            while time.monotonic() < thaws:
                begun = time.monotonic()
                assert probe.get("/healthz").status_code == 200
                assert time.monotonic() - begun < 1
                time.sleep(0.2)
            assert probe.get("/readyz").status_code == 503
            # Each of the eight sessions and the check's may be given up once; eight attempts to connect may hang.
            assert len(list(tasks.iterdir())) <= threads + 9 + 8
        finally:
            send_signal(frozen, signal.SIGCONT)
        load.wait_for_recovery(5)
    assert 503 in load.statuses()
    check(load, ann)


def test_frozen_sessions_are_replaced_where_the_server_still_takes_connections(cluster, server):
    ann = server.client().new_user()
    # At rest, so that none holds a lock that others need.
    frozen = cluster.client_backends()
    send_signal(frozen, signal.SIGSTOP)
    try:
        wait_until(lambda: ann.get(MOVIES).status_code == 200, deadline=10)
        wait_until(lambda: ann.post(MOVIES, movie_fields()).status_code == 201, deadline=10)
        wait_until(lambda: ann.get("/readyz").status_code == 200, deadline=5)
    finally:
        send_signal(frozen, signal.SIGCONT)


def test_after_a_power_cut_of_both_every_acknowledged_write_is_there(cluster, server):
    ann = server.client().new_user()
    with Load(ann) as load:
        cluster.kill()
        server.process.kill()
    server.wait_for_exit()
    cluster.start()
    begun = time.monotonic()
    client = server.restart().client().with_token(ann.token)
    assert time.monotonic() - begun < 5
    assert len(load.titles) > 20 and load.lost_writes(client) == {}


def test_out_of_connections_is_503_until_there_are_some(cluster, server):
    ann, probe = server.client().new_user(), server.client()
    # A role of the tests' own, since a superuser's connections have no limit.
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
