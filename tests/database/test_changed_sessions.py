"""Sessions that change beneath the service: columns altered, prepared statements lost, idle sessions ended by the server. Every kind of
request succeeds the first time, and is applied once."""
import itertools
import time
from collections import Counter

import pytest

from helpers.cluster import Cluster
from helpers.request_kinds import EXPECTED, WRITES, RequestKinds
from helpers.server import Server

pytestmark = pytest.mark.own_servers

POOL = 6

ALTERATIONS = [
    "alter table movies alter column title type varchar(120)",
    "alter table movies alter column genre type varchar(110)",
    "alter table users alter column username type varchar(180)",
    "alter table users alter column password_hash type text",
    "alter table users add column note text not null default ''",
    "alter table movies add column note text",
    "alter table movies drop column note",
]

# A session in which a row is inserted loses its prepared statements, as by a DISCARD ALL of somebody between it and the service.
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
    made = Cluster()
    made.listen("host all all 127.0.0.1/32 trust")
    yield made.start()
    made.dispose()


@pytest.fixture
def database(cluster):
    return cluster.create_database()


@pytest.fixture
def start_server():
    """Starts the service on this database, with few connections, all of which are used before this returns."""
    servers = []

    def start(database, url=None):
        servers.append(Server({"DATABASE_URL": url or database.url, "DB_POOL_SIZE": str(POOL)}))
        sender = RequestKinds(servers[-1].wait_until_listening(), database.run)
        for _ in range(2):
            assert sender.send_and_count_failures(each=2) == {}
        return sender

    yield start
    for server in servers:
        server.dispose()


def by_tcp(cluster, database):
    return database.url.replace(f"host={cluster.folder}", "host=127.0.0.1")


def test_after_columns_are_altered_every_request_succeeds_the_first_time(database, start_server):
    sender = start_server(database)
    refused = {}
    for statement in ALTERATIONS:
        database.run(statement)
        refused[statement] = dict(sum((sender.send_and_count_failures(each=2) for _ in range(3)), Counter()))
    assert refused == {statement: {} for statement in ALTERATIONS}
    assert sender.misapplied() == {}


def test_sessions_that_lose_their_prepared_statements_fail_no_request(database, start_server):
    sender = start_server(database)
    database.run(LOSE_STATEMENTS)
    # Alone, so that the session which the create used is the next one's; and many at once, so that all sessions are used.
    alone = Counter()
    for kind in EXPECTED:
        alone += sender.send_and_count_failures(["create"])
        alone += sender.send_and_count_failures([kind])
    assert alone == {}
    assert sum((sender.send_and_count_failures(each=2) for _ in range(10)), Counter()) == {}
    assert sender.misapplied() == {}


@pytest.mark.parametrize("way", ["unix socket", "TCP"])
def test_after_idle_sessions_time_out_every_request_succeeds_the_first_time(cluster, database, start_server, way):
    cluster.run(f"alter database {database.name} set idle_session_timeout = '250ms'")
    sender = start_server(database, by_tcp(cluster, database) if way == "TCP" else None)
    refused = Counter()
    # Around the moment at which the sessions end, and long after it.
    silences = itertools.cycle([0.245, 0.25, 0.252, 0.255, 0.26, 0.3, 0.5, 1.05])
    # One write alone finds the sessions as they are; many requests at once find all of them.
    for silence, kinds in zip(silences, [kinds for write in WRITES * 2 for kinds in ([write], tuple(EXPECTED))]):
        time.sleep(silence)
        refused += sender.send_and_count_failures(kinds)
        # So that each session has prepared every statement.
        refused += sender.send_and_count_failures(each=2)
    assert refused == {}
    assert sender.misapplied() == {}


@pytest.mark.parametrize("way", ["unix socket", "TCP"])
def test_after_idle_sessions_are_terminated_every_write_succeeds_the_first_time(cluster, database, start_server, way):
    sender = start_server(database, by_tcp(cluster, database) if way == "TCP" else None)
    refused = Counter()
    for kinds in [kinds for write in WRITES * 2 for kinds in ([write], WRITES)]:
        database.end_sessions()
        refused += sender.send_and_count_failures(kinds)
        # So that each session has prepared every statement.
        refused += sender.send_and_count_failures(each=2)
    assert refused == {}
    assert sender.misapplied() == {}


def test_a_row_that_cannot_be_decoded_is_not_written_twice(database, start_server):
    sender = start_server(database)
    database.run("alter table movies alter column year type bigint")
    statuses = {status for _, status in sum((sender.send_and_count_failures(["create", "patch", "put"], each=8) for _ in range(4)), Counter())}
    assert statuses == {500}
    assert sender.misapplied() == {}
