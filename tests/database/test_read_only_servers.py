"""Read-only servers and databases: reads succeed, writes return 503, and writes succeed without a restart once a server accepts them."""
import time

import pytest

from helpers.client import MOVIES, movie_fields, wait_until
from helpers.cluster import failover_url, primary_with_standby
from helpers.request_kinds import WRITES, RequestKinds
from helpers.server import Server

pytestmark = pytest.mark.own_servers

RECOVERY_SECONDS = 5


def set_read_only(cluster, value, database=None):
    """Sets default_transaction_read_only for the cluster, open sessions included."""
    cluster.configure(f"default_transaction_read_only = {value}")
    cluster.pg_ctl("reload")
    wait_until(lambda: cluster.run("show default_transaction_read_only") == [(value,)])


def set_database_read_only(cluster, value, database):
    """Sets default_transaction_read_only for new sessions of the database; when it is set, the service's sessions are terminated."""
    cluster.run(f"alter database {database.name} set default_transaction_read_only = {value}")
    if value == "on":
        database.end_sessions()


def wait_until_all_succeed(sender, seconds):
    """Sends requests of every kind until all succeed; fails after these seconds."""
    end = time.monotonic() + seconds
    while failures := sender.send_and_count_failures():
        assert time.monotonic() < end, f"after {seconds} s requests still fail: {failures}"
        time.sleep(0.2)


@pytest.mark.parametrize("change", [set_read_only, set_database_read_only], ids=["server", "database"])
def test_read_only_database_serves_reads_and_later_writes_again(cluster, change):
    database = cluster.create_database()
    server = Server({"DATABASE_URL": database.url})
    try:
        sender = RequestKinds(server.wait_until_listening(), database.run)
        assert sender.send_and_count_failures(each=2) == {}
        change(cluster, "on", database)
        failures = sender.send_and_count_failures(each=2)
        assert {kind for kind, _ in failures} == set(WRITES)
        assert {status for _, status in failures} == {503}
        change(cluster, "off", database)
        wait_until_all_succeed(sender, RECOVERY_SECONDS)
        assert sender.send_and_count_failures(each=4) == {}
        assert sender.misapplied() == {}
    finally:
        server.dispose()


def test_writes_go_to_the_server_that_accepts_them():
    with primary_with_standby() as (primary, standby):
        server = Server({"DATABASE_URL": failover_url(primary, standby)})
        try:
            sender = RequestKinds(server.wait_until_listening(), primary.run)
            assert sender.send_and_count_failures(each=2) == {}
            set_read_only(primary, "on")
            standby.promote()
            wait_until_all_succeed(sender, RECOVERY_SECONDS)
            title = movie_fields()["title"]
            assert sender.user.post(MOVIES, movie_fields(title=title)).status_code == 201
            assert standby.run("select count(*) from movies where title = %s", title) == [(1,)]
        finally:
            server.dispose()
