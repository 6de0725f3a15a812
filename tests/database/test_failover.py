"""Failover under load to a synchronous standby: writes succeed there after its promotion, and no acknowledged write is lost."""
import socket

import pytest

from helpers.client import MOVIES, movie_fields, wait_until
from helpers.cluster import Cluster, failover_url
from helpers.load import Load
from helpers.server import Server, running_server

pytestmark = pytest.mark.own_servers

ALLOW_TCP = "host all all 127.0.0.1/32 trust"


@pytest.fixture
def primary():
    cluster = Cluster("synchronous_standby_names = '*'")
    cluster.listen(ALLOW_TCP)
    yield cluster.start()
    cluster.dispose()


@pytest.fixture
def standby(primary):
    """A synchronous standby of the primary. After its promotion it commits without waiting for another server."""
    cluster = Cluster("synchronous_standby_names = ''", copy_of=primary)
    cluster.listen(ALLOW_TCP)
    cluster.start()
    wait_until(lambda: primary.run("select sync_state from pg_stat_replication") == [("sync",)])
    yield cluster
    cluster.dispose()


@pytest.fixture
def server(primary, standby):
    with running_server({"DATABASE_URL": failover_url(primary, standby)}) as server:
        yield server


def test_writes_succeed_on_promoted_standby_within_ten_seconds_and_none_is_lost(primary, standby, server):
    ann = server.client().new_user()
    with Load(ann) as load:
        primary.kill()
        standby.promote()
        load.wait_for_recovery(10)
    assert load.failures == []
    assert load.statuses() <= {200, 201, 503}
    assert load.slowest() < 10
    assert load.lost_writes(ann) == {}
    assert standby.run("select count(*) >= %s from movies", len(load.titles)) == [(True,)]
    assert server.process.poll() is None


def test_server_that_accepts_connections_but_never_responds_is_skipped(primary):
    primary.configure("synchronous_standby_names = ''")
    primary.pg_ctl("reload")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        connection_string = f"host=127.0.0.1,{primary.folder} port={port},{primary.port} user=movies dbname=postgres connect_timeout=1"
        server = Server({"DATABASE_URL": connection_string})
        try:
            ann = server.wait_until_listening().client().new_user()
            primary.restart("immediate")
            wait_until(lambda: ann.post(MOVIES, movie_fields()).status_code == 201)
        finally:
            server.dispose()


def test_writable_server_is_found_in_any_order(primary, standby):
    server = Server({"DATABASE_URL": failover_url(standby, primary)})
    try:
        assert server.wait_until_listening().client().new_user().post(MOVIES, movie_fields()).status_code == 201
    finally:
        server.dispose()
