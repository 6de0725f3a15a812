"""Database sessions that change while the service uses them: columns altered, prepared statements lost, idle sessions ended by the server.
Every kind of request succeeds the first time and is applied once."""
import itertools
import time
from collections import Counter

import pytest

from helpers.cluster import Cluster
from helpers.request_kinds import EXPECTED, WRITES, RequestKinds
from helpers.server import Server

pytestmark = pytest.mark.own_servers

POOL_SIZE = 6

ALTERATIONS = [
    "alter table movies alter column title type varchar(120)",
    "alter table movies alter column genre type varchar(110)",
    "alter table users alter column username type varchar(180)",
    "alter table users alter column password_hash type text",
    "alter table users add column note text not null default ''",
    "alter table movies add column note text",
    "alter table movies drop column note",
]

# A session that inserts a row loses its prepared statements, as if a pooler ran DISCARD ALL.
LOSE_STATEMENTS = """
create function lose_statements() returns trigger language plpgsql as $$
begin
    execute 'deallocate all';
    return null;
end
$$;
create trigger lose_statements after insert on movies for each statement execute function lose_statements();
create trigger lose_statements after insert on users for each statement execute function lose_statements();
"""


@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster()
    cluster.listen("host all all 127.0.0.1/32 trust")
    yield cluster.start()
    cluster.dispose()


@pytest.fixture
def database(cluster):
    return cluster.create_database()


@pytest.fixture
def start_server():
    """Returns a function that starts the service on a database and uses all its connections once; it returns a RequestKinds."""
    servers = []

    def start(database, url=None):
        servers.append(Server({"DATABASE_URL": url or database.url, "DB_POOL_SIZE": str(POOL_SIZE)}))
        sender = RequestKinds(servers[-1].wait_until_listening(), database.run)
        for _ in range(2):
            assert sender.send_and_count_failures(each=2) == {}
        return sender

    yield start
    for server in servers:
        server.dispose()


def tcp_url(cluster, database):
    return database.url.replace(f"host={cluster.folder}", "host=127.0.0.1")


def test_requests_succeed_at_once_after_columns_were_altered(database, start_server):
    sender = start_server(database)
    failures = {}
    for statement in ALTERATIONS:
        database.run(statement)
        failures[statement] = dict(sum((sender.send_and_count_failures(each=2) for _ in range(3)), Counter()))
    assert failures == {statement: {} for statement in ALTERATIONS}
    assert sender.misapplied() == {}


def test_lost_prepared_statements_fail_no_request(database, start_server):
    sender = start_server(database)
    database.run(LOSE_STATEMENTS)
    # First single requests, each in the session that just inserted a row; then many at once, in all sessions.
    single_failures = Counter()
    for kind in EXPECTED:
        single_failures += sender.send_and_count_failures(["create"])
        single_failures += sender.send_and_count_failures([kind])
    assert single_failures == {}
    assert sum((sender.send_and_count_failures(each=2) for _ in range(10)), Counter()) == {}
    assert sender.misapplied() == {}


@pytest.mark.parametrize("transport", ["unix socket", "TCP"])
def test_requests_succeed_at_once_after_idle_session_timeout(cluster, database, start_server, transport):
    cluster.run(f"alter database {database.name} set idle_session_timeout = '250ms'")
    sender = start_server(database, tcp_url(cluster, database) if transport == "TCP" else None)
    failures = Counter()
    # Pauses around the moment at which the sessions end, and long after it.
    pauses = itertools.cycle([0.245, 0.25, 0.252, 0.255, 0.26, 0.3, 0.5, 1.05])
    # A single write uses one session; many simultaneous requests use all of them.
    for pause, kinds in zip(pauses, [kinds for write in WRITES * 2 for kinds in ([write], tuple(EXPECTED))]):
        time.sleep(pause)
        failures += sender.send_and_count_failures(kinds)
        # Afterwards each session has prepared every statement again.
        failures += sender.send_and_count_failures(each=2)
    assert failures == {}
    assert sender.misapplied() == {}


@pytest.mark.parametrize("transport", ["unix socket", "TCP"])
def test_writes_succeed_at_once_after_sessions_were_terminated(cluster, database, start_server, transport):
    sender = start_server(database, tcp_url(cluster, database) if transport == "TCP" else None)
    failures = Counter()
    for kinds in [kinds for write in WRITES * 2 for kinds in ([write], WRITES)]:
        database.end_sessions()
        failures += sender.send_and_count_failures(kinds)
        # Afterwards each session has prepared every statement again.
        failures += sender.send_and_count_failures(each=2)
    assert failures == {}
    assert sender.misapplied() == {}


def test_write_is_not_repeated_if_its_row_cannot_be_decoded(database, start_server):
    sender = start_server(database)
    database.run("alter table movies alter column year type bigint")
    statuses = {status for _, status in sum((sender.send_and_count_failures(["create", "patch", "put"], each=8) for _ in range(4)), Counter())}
    assert statuses == {500}
    assert sender.misapplied() == {}
