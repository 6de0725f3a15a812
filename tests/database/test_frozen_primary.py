"""A frozen primary: its kernel accepts connections and data, but PostgreSQL does not respond. The service uses the promoted standby without a
restart while the old primary stays frozen."""
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
    with primary_with_standby() as clusters:
        yield clusters


def test_requests_succeed_on_promoted_standby_while_primary_is_frozen(clusters):
    primary, standby = clusters
    server = Server({"DATABASE_URL": failover_url(primary, standby), "DB_POOL_SIZE": None})
    try:
        with OpenLoad(server.wait_until_listening(), primary.run) as load:
            time.sleep(3)
            failed = time.monotonic()
            primary.freeze()
            time.sleep(PROMOTED_AFTER)
            promotion_started = time.monotonic()
            standby.promote()
            promoted = time.monotonic()
            time.sleep(promotion_started + SERVED_WITHIN + 5 - promoted)
        # The frozen sessions continue after the service gave them up; none of their commits was acknowledged.
        primary.thaw()
        time.sleep(1)
        misapplied = load.misapplied(standby.run)
        # pytest shows this if an assertion below fails.
        print(load.summary(failed, promoted))
        print(f"slowest response {load.slowest()}; misapplied {len(misapplied)}")
        assert load.failures == []
        served = load.statuses(READS + WRITES, since=promotion_started + SERVED_WITHIN)
        assert {kind for kind, _ in served} == set(READS + WRITES)
        assert load.failed_counts(READS + WRITES, since=promotion_started + SERVED_WITHIN) == {}
        assert load.slowest() < (9.5,)
        assert load.failed_counts(["/healthz", "/metrics"]) == {}
        assert {status for _, status in load.failed_counts(READS + WRITES)} == {503}
        assert misapplied == {}
    finally:
        server.dispose()
