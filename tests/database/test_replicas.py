"""Two instances on one database behind HAProxy: they behave as one service, and each can be restarted under load."""
import subprocess

import pytest
import requests

from helpers.client import Client, wait_until
from helpers.cluster import free_port
from helpers.load import Load
from helpers.programs import find_program
from helpers.recorded_contract import run_recorded_cases
from helpers.settings import OPERATIONS

pytestmark = pytest.mark.own_servers


class Proxy:
    """A HAProxy process in front of two ports, configured as OPERATIONS.md shows."""

    def __init__(self, folder, one, two):
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        file = folder / "haproxy.cfg"
        configuration = OPERATIONS.read_text().split("```haproxy\n")[1].split("```")[0]
        for documented_port, port in ((8000, self.port), (8001, one), (8002, two)):
            configuration = configuration.replace(f"127.0.0.1:{documented_port}\n", f"127.0.0.1:{port}\n")
        file.write_text(configuration)
        self.process = subprocess.Popen([find_program("haproxy", "haproxy"), "-db", "-f", file], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def replicas(launch_server):
    """Two instances, each on a fixed port, which it keeps after a restart."""
    ports = [free_port(), free_port()]
    servers = [launch_server(BIND=f"127.0.0.1:{port}") for port in ports]
    return [server.wait_until_listening() for server in servers]


@pytest.fixture
def proxy(replicas, tmp_path):
    proxy = Proxy(tmp_path, *(replica.base.rsplit(":", 1)[1] for replica in replicas))
    client = Client(proxy.base)
    wait_until(lambda: is_ready(client))
    client.close()
    yield proxy
    proxy.stop()


def is_ready(client):
    try:
        return client.get("/readyz").status_code == 200
    except requests.ConnectionError:
        return False


def test_two_instances_behind_a_proxy_pass_the_recorded_cases(replicas, proxy):
    passed, failed = run_recorded_cases(proxy.base, "own", clients=8)
    assert failed == ""
    assert passed > 400
    for replica in replicas:
        assert sum("/api/v1/movies/" in line for line in replica.log) > 100


def test_restarting_instances_under_load_fails_no_request(replicas, proxy):
    client = Client(proxy.base)
    ann = client.new_user()
    with Load(ann, clients=16) as load:
        for replica in replicas:
            sent_before = len(load.requests)
            assert replica.stop() == 0
            wait_until(lambda: len(load.requests) > sent_before + 200)
            replica.restart()
            wait_until(lambda: sum("/api/v1/movies/" in line for line in replica.log) > 100)
    assert (load.failures, load.statuses(), load.lost_writes(ann)) == ([], {200, 201}, {})
    client.close()
