"""PostgreSQL clusters for single tests, which tests start, stop, kill, freeze, replicate and promote."""
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from helpers.client import unique_word, wait_until
from helpers.settings import MAINTENANCE_DATABASE

DEADLINE = 60


def find_postgresql_programs():
    """Returns the folder of PostgreSQL's programs, as reported by the cluster of TEST_DATABASE_URL."""
    import psycopg

    with psycopg.connect(MAINTENANCE_DATABASE) as connection:
        return Path(connection.execute("select setting from pg_config where name = 'BINDIR'").fetchone()[0])


def postgresql_user():
    """Returns arguments for subprocess that run PostgreSQL's programs as an unprivileged user if this is root, as whom they refuse to run."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    owner = names.get("postgres") or names["nobody"]
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


class Cluster:
    """A cluster in a new folder, with a socket in that folder; `copy_of` makes it a standby of another one."""

    def __init__(self, *settings, copy_of=None):
        self.programs, self.owner = find_postgresql_programs(), postgresql_user()
        self.folder = Path(tempfile.mkdtemp(prefix="movies-cluster-", dir="/tmp"))
        self.folder.chmod(0o755)
        if self.owner:
            os.chown(self.folder, self.owner["user"], self.owner["group"])
        self.data = self.folder / "data"
        if copy_of:
            copy_of.back_up_to(self.data)
        else:
            self.call("initdb", "-D", self.data, "--username=movies", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        self.configure(f"listen_addresses = ''\nunix_socket_directories = '{self.folder}'\nmax_connections = 60", *settings)
        self.url = f"host={self.folder} user=movies dbname=postgres"

    def listen(self, *rules):
        """Makes the cluster listen on TCP too, on `port`, from the next start on; `rules` are lines of pg_hba.conf."""
        self.port = free_port()
        self.configure("listen_addresses = '127.0.0.1'", f"port = {self.port}")
        self.url += f" port={self.port}"
        (self.data / "pg_hba.conf").write_text("\n".join(["local all all trust", "local replication all trust", *rules, ""]))

    def call(self, program, *arguments, check=True):
        """Runs one of PostgreSQL's programs and waits for it."""
        return subprocess.run(
            [self.programs / program, *arguments], cwd="/", check=check, timeout=DEADLINE, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self.owner,
        )

    def configure(self, *settings):
        """Appends lines to postgresql.conf; the last line for a setting counts."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("\n".join(["", *settings, ""]))

    def pg_ctl(self, *arguments, check=True):
        return self.call("pg_ctl", "-D", self.data, "-w", "-t", str(DEADLINE), "-l", self.folder / "log", *arguments, check=check)

    def start(self):
        self.pg_ctl("start")
        return self

    def restart(self, mode):
        self.pg_ctl("-m", mode, "restart")

    def promote(self):
        self.pg_ctl("promote")

    def run(self, statement, *values):
        """Runs a statement; returns its rows, or None if it returns none."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else None

    def create_database(self):
        """Creates a database for one test."""
        database = ClusterDatabase(self)
        self.run(f"create database {database.name}")
        return database

    @property
    def postmaster(self):
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def client_backends(self):
        """Returns the ids of the processes that serve clients."""
        rows = self.run("select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()")
        return [process_id for process_id, in rows]

    def kill(self):
        """Kills the postmaster and all its children, as a power cut would."""
        postmaster = self.postmaster
        send_signal(self.processes(), signal.SIGKILL)
        # PostgreSQL does not start again while /proc still lists the old postmaster.
        wait_until(lambda: not Path(f"/proc/{postmaster}").exists(), DEADLINE)

    def processes(self):
        """Returns the ids of the postmaster and its children."""
        postmaster = self.postmaster
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]

    def freeze(self):
        """Stops every process with SIGSTOP; the kernel still accepts connections and acknowledges what is sent to them."""
        send_signal([self.postmaster], signal.SIGSTOP)  # first, so that it starts no further children
        send_signal(self.processes(), signal.SIGSTOP)

    def thaw(self):
        send_signal(self.processes(), signal.SIGCONT)

    def back_up_to(self, folder):
        """Copies the cluster into `folder`, configured as a standby of this one."""
        self.call("pg_basebackup", "-d", self.url, "-D", folder, "-R", "-X", "stream", "-c", "fast", "--no-sync")

    def dispose(self):
        with contextlib.suppress(OSError, ValueError, IndexError):
            self.thaw()
        self.pg_ctl("-m", "immediate", "stop", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


class ClusterDatabase:
    """A database in a Cluster; it is removed with the cluster."""

    def __init__(self, cluster):
        self.name = f"movies_{unique_word()}"
        self.url = cluster.url.replace("dbname=postgres", f"dbname={self.name}")

    def connect(self):
        import psycopg

        return psycopg.connect(self.url)

    def run(self, statement, *values):
        """Runs a statement; returns its rows, or None if it returns none."""
        with self.connect() as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else None

    def end_sessions(self):
        """Terminates all other sessions of this database; returns when they are gone."""
        others = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        ended = self.run(f"select pid, pg_terminate_backend(pid) {others}")
        process_ids = [process_id for process_id, _ in ended]
        wait_until(lambda: self.run(f"select count(*) {others} and pid = any (%s)", process_ids) == [(0,)])


@contextlib.contextmanager
def running_cluster(*settings):
    """Yields a started cluster with these lines in its postgresql.conf; removes it at the end."""
    cluster = Cluster(*settings)
    try:
        yield cluster.start()
    finally:
        cluster.dispose()


@contextlib.contextmanager
def primary_with_standby():
    """Yields a primary and its synchronous standby, both listening on TCP. After its promotion the standby commits without
    waiting for another server."""
    with contextlib.ExitStack() as cleanup:
        clusters = []
        for copy_of, names in ((None, "*"), (0, "")):
            cluster = Cluster(
                f"synchronous_standby_names = '{names}'", "max_connections = 100", copy_of=None if copy_of is None else clusters[copy_of]
            )
            cleanup.callback(cluster.dispose)
            cluster.listen("host all all 127.0.0.1/32 trust")
            clusters.append(cluster.start())
        wait_until(lambda: is_synchronous(clusters[0]), DEADLINE)
        yield clusters


def failover_url(*clusters):
    """Returns a connection string with these servers in order, of which the service is to use the one that accepts writes."""
    servers = ",".join(f"127.0.0.1:{cluster.port}" for cluster in clusters)
    return f"postgresql://movies@{servers}/postgres?target_session_attrs=read-write"


def is_synchronous(primary):
    """Returns whether a synchronous standby is connected to this cluster."""
    return primary.run("select sync_state from pg_stat_replication") == [("sync",)]


def free_port():
    """Returns a port on which no process listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def send_signal(process_ids, signal_number):
    """Sends the signal to those of the processes that still exist."""
    for process_id in process_ids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, signal_number)
