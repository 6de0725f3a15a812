"""A primary that is lost under load while its synchronous standby takes over: writes go on there, and none is missing."""
import socket

import pytest

from helpers.client import MOVIES, movie_fields, wait_until
from helpers.cluster import Cluster, failover_url
from helpers.load import Load
from helpers.server import Server

pytestmark = pytest.mark.own_servers

BY_TCP = "host all all 127.0.0.1/32 trust"


@pytest.fixture
def primary():
    made = Cluster("synchronous_standby_names = '*'")
    made.listen(BY_TCP)
    yield made.start()
    made.dispose()


@pytest.fixture
def standby(primary):
    """A copy that acknowledges each commit of the primary; alone, it waits for nobody."""
    made = Cluster("synchronous_standby_names = ''", copy_of=primary)
    made.listen(BY_TCP)
    made.start()
    wait_until(lambda: primary.run("select sync_state from pg_stat_replication") == [("sync",)])
    yield made
    made.dispose()


@pytest.fixture
def server(primary, standby):
    made = Server({"DATABASE_URL": failover_url(primary, standby)})
    yield made.wait_until_listening()
    made.dispose()


def test_writes_go_on_at_the_promoted_standby_within_ten_seconds_and_none_is_missing(primary, standby, server):
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


def test_a_server_that_takes_connections_and_says_nothing_is_passed_by(primary):
    primary.configure("synchronous_standby_names = ''")
    primary.pg_ctl("reload")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        given = f"host=127.0.0.1,{primary.folder} port={port},{primary.port} user=movies dbname=postgres connect_timeout=1"
        server = Server({"DATABASE_URL": given})
        try:
            ann = server.wait_until_listening().client().new_user()
            primary.restart("immediate")
            wait_until(lambda: ann.post(MOVIES, movie_fields()).status_code == 201)
        finally:
            server.dispose()


def test_of_two_servers_the_one_that_takes_writes_is_found_whatever_their_order(primary, standby):
    server = Server({"DATABASE_URL": failover_url(standby, primary)})
    try:
        assert server.wait_until_listening().client().new_user().post(MOVIES, movie_fields()).status_code == 201
    finally:
        server.dispose()
