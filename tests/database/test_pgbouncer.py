"""The service behind PgBouncer in transaction mode, where each transaction may use another connection and no session state is kept."""
import signal
import subprocess

import pytest

from helpers.client import wait_until
from helpers.cluster import postgresql_user
from helpers.load import Load
from helpers.programs import find_program
from helpers.server import Server

pytestmark = pytest.mark.own_servers
POOLER_LINE = "behind a pooler"


class Bouncer:
    """A PgBouncer process with three connections to a cluster, on a socket in the cluster's folder."""

    def __init__(self, cluster, ignored_parameters):
        self.file, self.log = cluster.folder / "pgbouncer.ini", cluster.folder / "pgbouncer.log"
        self.file.write_text(
            f"[databases]\n* = host={cluster.folder} user=movies\n[pgbouncer]\nauth_type = any\npool_mode = transaction\n"
            f"listen_addr =\nunix_socket_dir = {cluster.folder}\nlisten_port = 6432\nmax_client_conn = 200\ndefault_pool_size = 3\n"
            f"logfile = {self.log}\nignore_startup_parameters = {ignored_parameters}\n"
        )
        self.url = f"host={cluster.folder} port=6432 user=movies dbname=postgres"
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [find_program("pgbouncer", "pgbouncer"), "-q", self.file], cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            **postgresql_user(),
        )
        wait_until(lambda: self.file.with_name(".s.PGSQL.6432").exists())

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


@pytest.fixture(params=["", "options"], ids=["refuses settings", "swallows settings"])
def bouncer(cluster, request):
    cluster.run("drop schema public cascade")
    cluster.run("create schema public")
    bouncer = Bouncer(cluster, request.param)
    yield bouncer
    bouncer.stop()


@pytest.fixture
def start_server():
    servers = []

    def start(url):
        servers.append(Server({"DATABASE_URL": url}))
        return servers[-1].wait_until_listening()

    yield start
    for server in servers:
        server.dispose()


def test_two_instances_recover_after_pgbouncer_restart(cluster, bouncer, start_server):
    servers = [start_server(bouncer.url) for _ in range(2)]
    for server in servers:
        wait_until(lambda: any(POOLER_LINE in line for line in server.log))
    users = [server.client().new_user() for server in servers]
    with Load(users[0], clients=8) as first_load, Load(users[1], clients=8) as second_load:
        wait_until(lambda: len(first_load.requests) > 500 and len(second_load.requests) > 500, deadline=30)
        assert first_load.statuses() | second_load.statuses() == {200, 201}
        # A new instance gets connections on which earlier instances prepared statements.
        servers.append(start_server(bouncer.url))
        assert servers[-1].client().new_user().get("/api/v1/movies/").json()["count"] == 0
        bouncer.stop()
        bouncer.start()
        first_load.wait_for_recovery(5)
        second_load.wait_for_recovery(5)
    for load, user in ((first_load, users[0]), (second_load, users[1])):
        assert (load.failures, load.statuses() <= {200, 201, 503}, load.lost_writes(user)) == ([], True, {})
    assert cluster.run("select count(*) from pg_locks where locktype = 'advisory'") == [(0,)]


def test_log_does_not_mention_a_pooler_without_one(cluster, start_server):
    server = start_server(cluster.url)
    assert server.client().get("/readyz").status_code == 200
    assert [line for line in server.log if POOLER_LINE in line] == []
