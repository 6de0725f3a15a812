"""Hanging writes under an open load: reads and probes are served as usual, each write is answered in time and applied once, and writes succeed
again soon after. HANG_SECONDS sets how long each failure lasts."""
import os
import re
import time
from contextlib import contextmanager

import pytest

from helpers.client import wait_until
from helpers.cluster import is_synchronous, primary_with_standby
from helpers.open_load import PROBES, READS, WRITES, OpenLoad
from helpers.server import running_server

pytestmark = pytest.mark.own_servers

HANG_SECONDS = float(os.environ.get("HANG_SECONDS", "12"))
USUAL_SECONDS = 4
RECOVERY_SECONDS = 5

OUTAGE_BEGINS = re.compile("unavailable", re.IGNORECASE)
OUTAGE_ENDS = re.compile(r"\bagain\b", re.IGNORECASE)
# Lines about single requests, which are not counted as lines about the outage.
ONE_REQUEST = re.compile("/api/|/readyz|/metrics|imported password hash")


@pytest.fixture(scope="module")
def clusters():
    with primary_with_standby() as clusters:
        yield clusters


@pytest.fixture
def database(clusters):
    """A new database on the primary."""
    return clusters[0].create_database()


@pytest.fixture
def server(database):
    """A server with the default settings, except for a lower BCRYPT_COST."""
    with running_server({"DATABASE_URL": database.url, "DB_POOL_SIZE": None}) as server:
        yield server


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
    with database.connect() as blocker:
        blocker.execute("lock table movies in share row exclusive mode")
        yield


@contextmanager
def locked_users(primary, standby, database):
    with database.connect() as blocker:
        blocker.execute("lock table users in share row exclusive mode")
        yield


def outage_lines(server, pattern):
    return [line for line in server.log if pattern.search(line) and not ONE_REQUEST.search(line)]


def holds_within(condition, seconds):
    """Returns whether the condition becomes true within these seconds."""
    try:
        return bool(wait_until(condition, seconds))
    except AssertionError:
        return False


@pytest.mark.parametrize(
    "failure", [dead_standby, frozen_standby, locked_movies, locked_users], ids=lambda failure: failure.__name__.replace("_", " ")
)
def test_hanging_writes_do_not_affect_reads_and_are_applied_once(clusters, database, server, failure):
    with OpenLoad(server, database.run) as load:
        time.sleep(USUAL_SECONDS)
        failed = time.monotonic()
        with failure(*clusters, database):
            time.sleep(HANG_SECONDS)
        ended = time.monotonic()
        time.sleep(RECOVERY_SECONDS + 2)
        # The end is logged only after some seconds without a refused write.
        is_end_logged = holds_within(lambda: outage_lines(server, OUTAGE_ENDS), 10)
    begins, ends = outage_lines(server, OUTAGE_BEGINS), outage_lines(server, OUTAGE_ENDS)
    usual, during = load.p99(READS, until=failed), load.p99(READS, since=failed)
    misapplied = load.misapplied(database.run)
    # pytest shows this if an assertion below fails.
    print(load.summary(failed, ended))
    print(f"reads' p99 {usual:.4f} s before, {during:.4f} s since; slowest response {load.slowest()}; misapplied {len(misapplied)}")
    print(f"{len(begins)} log lines for the begin of an outage, {len(ends)} for its end:", *begins[:5], *ends[:5], sep="\n")
    assert load.failures == []
    assert load.failed_counts(READS + PROBES + ("sign in",)) == {}
    assert during <= max(3 * usual, 0.05)
    assert load.slowest() < (9.5,)
    assert {status for _, status in load.failed_counts(WRITES)} == {503}
    # The first sign-in of an imported user succeeds even if the new hash cannot be stored.
    failed_sign_ins = load.failed_counts(["first sign in"])
    assert failed_sign_ins.keys() <= {("first sign in", 503)}
    assert sum(failed_sign_ins.values()) <= len(load.requests(["first sign in"])) / 4
    assert load.recovery(ended) < RECOVERY_SECONDS
    assert misapplied == {}
    # A held lock alone is no outage of the database: the log names one only if more writes stall than may at the same time.
    if begins or ends or failure in (dead_standby, frozen_standby):
        assert is_end_logged
        assert len(begins) in (1, 2) and len(ends) in (1, 2)
