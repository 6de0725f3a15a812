"""A primary that freezes: its kernel takes connections and acknowledges what is sent, and nothing is answered. The service goes on at
the promoted standby, without a restart and while the old primary stays frozen."""
import time

import pytest

from helpers.cluster import failover_url, primary_with_standby
from helpers.open_load import READS, WRITES, OpenLoad
from helpers.server import Server

pytestmark = pytest.mark.own_servers

PROMOTED_AFTER = 5
SERVED_WITHIN = 12


@pytest.fixture
def clusters():
    with primary_with_standby() as made:
        yield made


def test_requests_are_served_by_the_promoted_standby_while_the_primary_stays_frozen(clusters):
    primary, standby = clusters
    server = Server({"DATABASE_URL": failover_url(primary, standby), "DB_POOL_SIZE": None})
    try:
        with OpenLoad(server.wait_until_listening(), primary.run) as load:
            time.sleep(3)
            failed = time.monotonic()
            primary.freeze()
            time.sleep(PROMOTED_AFTER)
            promoting = time.monotonic()
            standby.promote()
            promoted = time.monotonic()
            time.sleep(promoting + SERVED_WITHIN + 5 - promoted)
        # The frozen sessions go on when nobody waits for them any more: none of their commits was acknowledged.
        primary.thaw()
        time.sleep(1)
        misapplied = load.misapplied(standby.run)
        # Shown if one of the assertions fails.
        print(load.summary(failed, promoted))
        print(f"slowest answer {load.slowest()}; misapplied {len(misapplied)}")
        assert load.failures == []
        served = load.statuses(READS + WRITES, since=promoting + SERVED_WITHIN)
        assert {kind for kind, _ in served} == set(READS + WRITES)
        assert load.failed_counts(READS + WRITES, since=promoting + SERVED_WITHIN) == {}
        assert load.slowest() < (9.5,)
        assert load.failed_counts(["/healthz", "/metrics"]) == {}
        assert {status for _, status in load.failed_counts(READS + WRITES)} == {503}
        assert misapplied == {}
    finally:
        server.dispose()
