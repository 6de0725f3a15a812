"""While every worker and every connection to the database waits, /healthz, /readyz and /metrics are answered, and all others in time."""
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from helpers.client import MOVIES, wait_until
from helpers.cluster import Cluster
from helpers.open_load import send
from helpers.server import Server

pytestmark = pytest.mark.own_servers

READERS = 300
HANG_SECONDS = 10


@pytest.fixture(scope="module")
def cluster():
    made = Cluster("max_connections = 100").start()
    yield made
    made.dispose()


@contextmanager
def locked_tables(cluster, database):
    with database.connect() as holder:
        holder.execute("lock table movies, users in access exclusive mode")
        yield


@contextmanager
def frozen_database(cluster, database):
    cluster.freeze()
    try:
        yield
    finally:
        cluster.thaw()


@pytest.mark.parametrize("failure", [locked_tables, frozen_database], ids=["locked tables", "frozen database"])
def test_probes_are_answered_within_a_second_and_all_others_in_time_while_nothing_else_moves(cluster, failure):
    database = cluster.create_database()
    server = Server({"DATABASE_URL": database.url, "DB_POOL_SIZE": None})
    try:
        probe = server.wait_until_listening().client()
        ann = probe.new_user()
        path = f"{MOVIES}{ann.add_movie()['id']}/"
        slow, unexpected = [], []

        def look(probed):
            began = time.monotonic()
            response = send(probe, "GET", probed)
            seconds = time.monotonic() - began
            if seconds >= 1:
                slow.append((probed, response.status_code, round(seconds, 2)))
            # Not ready is an answer of the probe; a refusal for want of a worker is none.
            is_unready = probed == "/readyz" and response.status_code == 503 and "not_ready" in json.loads(response.content)
            if response.status_code != 200 and not is_unready:
                unexpected.append((probed, response.status_code))

        def read(_):
            began = time.monotonic()
            return send(ann, "GET", path).status_code, time.monotonic() - began

        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(60) as probes:
            with failure(cluster, database):
                reading = [readers.submit(read, index) for index in range(READERS)]
                ends = time.monotonic() + HANG_SECONDS
                while time.monotonic() < ends:
                    looks = [probes.submit(look, probed) for probed in ("/healthz", "/readyz", "/metrics")]
                    time.sleep(0.5)
            ended = time.monotonic()
            wait_until(lambda: send(ann, "GET", path).status_code == 200, 5)
            recovered = time.monotonic() - ended
            [one.result() for one in looks]
        responses = [one.result() for one in reading]
        slowest = max(seconds for _, seconds in responses)
        print(f"{Counter(status for status, _ in responses)}, slowest {slowest:.2f} s, recovered after {recovered:.2f} s")
        print(f"slow probes {slow}, refused probes {unexpected}")
        assert (slow, unexpected) == ([], [])
        assert {status for status, _ in responses} <= {200, 503}
        assert slowest < 9.5
    finally:
        server.dispose()
