"""A server or database that becomes read-only while the service runs: reads succeed, writes are 503 until some server takes them, and then
succeed without a restart."""
import time

import pytest

from helpers.client import MOVIES, movie_fields, wait_until
from helpers.cluster import Cluster, failover_url, primary_with_standby
from helpers.request_kinds import WRITES, RequestKinds
from helpers.server import Server

pytestmark = pytest.mark.own_servers

RECOVERY_SECONDS = 5


@pytest.fixture(scope="module")
def cluster():
    made = Cluster().start()
    yield made
    made.dispose()


def set_read_only(cluster, value, database=None):
    """Changes the sessions that are open, too."""
    cluster.configure(f"default_transaction_read_only = {value}")
    cluster.pg_ctl("reload")
    wait_until(lambda: cluster.run("show default_transaction_read_only") == [(value,)])


def set_database_read_only(cluster, value, database):
    """Changes the sessions that begin from now on; the service's are ended as it begins, as for maintenance."""
    cluster.run(f"alter database {database.name} set default_transaction_read_only = {value}")
    if value == "on":
        database.end_sessions()


def check_that_all_succeed_within(sender, seconds):
    """Until then, requests of every kind may be refused."""
    ends = time.monotonic() + seconds
    while refused := sender.send_and_count_failures():
        assert time.monotonic() < ends, f"after {seconds} s still refused: {refused}"
        time.sleep(0.2)


@pytest.mark.parametrize("change", [set_read_only, set_database_read_only], ids=["server", "database"])
def test_what_is_read_only_for_a_while_serves_reads_and_then_takes_writes_again(cluster, change):
    database = cluster.create_database()
    server = Server({"DATABASE_URL": database.url})
    try:
        sender = RequestKinds(server.wait_until_listening(), database.run)
        assert sender.send_and_count_failures(each=2) == {}
        change(cluster, "on", database)
        refused = sender.send_and_count_failures(each=2)
        assert {kind for kind, _ in refused} == set(WRITES)
        assert {status for _, status in refused} == {503}
        change(cluster, "off", database)
        check_that_all_succeed_within(sender, RECOVERY_SECONDS)
        assert sender.send_and_count_failures(each=4) == {}
        assert sender.misapplied() == {}
    finally:
        server.dispose()


def test_of_two_servers_the_one_that_still_takes_writes_gets_them():
    with primary_with_standby() as (primary, standby):
        server = Server({"DATABASE_URL": failover_url(primary, standby)})
        try:
            sender = RequestKinds(server.wait_until_listening(), primary.run)
            assert sender.send_and_count_failures(each=2) == {}
            set_read_only(primary, "on")
            standby.promote()
            check_that_all_succeed_within(sender, RECOVERY_SECONDS)
            title = movie_fields()["title"]
            assert sender.user.post(MOVIES, movie_fields(title=title)).status_code == 201
            assert standby.run("select count(*) from movies where title = %s", title) == [(1,)]
        finally:
            server.dispose()
