"""Writes that hang in the database, under an open load: reads and probes are served as usual, each write is answered in time and
applied once, and writes work again soon after. HANG_SECONDS sets how long each failure lasts."""
import os
import re
import time
from contextlib import contextmanager

import pytest

from helpers.client import wait_until
from helpers.cluster import is_synchronous, primary_with_standby
from helpers.open_load import PROBES, READS, WRITES, OpenLoad
from helpers.server import Server

pytestmark = pytest.mark.own_servers

HANG_SECONDS = float(os.environ.get("HANG_SECONDS", "12"))
USUAL_SECONDS = 4
RECOVERY_SECONDS = 5

OUTAGE_BEGINS = re.compile("unavailable", re.IGNORECASE)
OUTAGE_ENDS = re.compile(r"\bagain\b", re.IGNORECASE)
# What is logged of a single request is no line about the outage.
ONE_REQUEST = re.compile("/api/|/readyz|/metrics|imported hash")


@pytest.fixture(scope="module")
def clusters():
    with primary_with_standby() as made:
        yield made


@pytest.fixture
def database(clusters):
    """A database of the test's own on the primary."""
    return clusters[0].create_database()


@pytest.fixture
def server(database):
    """The service with its default settings, but for the cost of a password."""
    made = Server({"DATABASE_URL": database.url, "DB_POOL_SIZE": None})
    yield made.wait_until_listening()
    made.dispose()


@contextmanager
def dead_standby(primary, standby, database):
    standby.kill()
    try:
        yield
    finally:
        standby.start()
        wait_until(lambda: is_synchronous(primary), 30)


@contextmanager
def frozen_standby(primary, standby, database):
    standby.freeze()
    try:
        yield
    finally:
        standby.thaw()


@contextmanager
def locked_movies(primary, standby, database):
    with database.connect() as holder:
        holder.execute("lock table movies in share row exclusive mode")
        yield


@contextmanager
def locked_users(primary, standby, database):
    with database.connect() as holder:
        holder.execute("lock table users in share row exclusive mode")
        yield


def outage_lines(server, pattern):
    return [line for line in server.log if pattern.search(line) and not ONE_REQUEST.search(line)]


def holds_within(condition, seconds):
    """Whether the condition holds at some moment of these seconds."""
    try:
        return bool(wait_until(condition, seconds))
    except AssertionError:
        return False


@pytest.mark.parametrize(
    "failure", [dead_standby, frozen_standby, locked_movies, locked_users], ids=lambda failure: failure.__name__.replace("_", " ")
)
def test_hanging_writes_leave_reads_and_probes_as_usual_and_are_applied_once(clusters, database, server, failure):
    with OpenLoad(server, database.run) as load:
        time.sleep(USUAL_SECONDS)
        failed = time.monotonic()
        with failure(*clusters, database):
            time.sleep(HANG_SECONDS)
        ended = time.monotonic()
        time.sleep(RECOVERY_SECONDS + 2)
        # Logged only after some seconds in which no write was refused.
        is_end_logged = holds_within(lambda: outage_lines(server, OUTAGE_ENDS), 10)
    begins, ends = outage_lines(server, OUTAGE_BEGINS), outage_lines(server, OUTAGE_ENDS)
    usual, during = load.p99(READS, until=failed), load.p99(READS, since=failed)
    misapplied = load.misapplied(database.run)
    # Shown if one of the assertions fails.
    print(load.summary(failed, ended))
    print(f"reads' p99 {usual:.4f} s before, {during:.4f} s since; slowest answer {load.slowest()}; misapplied {len(misapplied)}")
    print(f"{len(begins)} lines say that an outage began, {len(ends)} that it ended:", *begins[:5], *ends[:5], sep="\n")
    assert load.failures == []
    assert load.failed_counts(READS + PROBES + ("sign in",)) == {}
    assert during <= max(3 * usual, 0.05)
    assert load.slowest() < (9.5,)
    assert {status for _, status in load.failed_counts(WRITES)} == {503}
    # Such a sign-in only keeps the new hash if it can.
    refused = load.failed_counts(["first sign in"])
    assert refused.keys() <= {("first sign in", 503)}
    assert sum(refused.values()) <= len(load.requests(["first sign in"])) / 4
    assert load.recovery(ended) < RECOVERY_SECONDS
    assert misapplied == {}
    assert is_end_logged
    assert len(begins) in (1, 2) and len(ends) in (1, 2)
