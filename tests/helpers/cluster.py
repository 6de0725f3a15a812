"""PostgreSQL clusters of a test's own, to be broken: started, stopped, killed, frozen, made a standby, promoted."""
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from helpers.client import wait_until, word
from helpers.settings import MAINTENANCE_DATABASE

DEADLINE = 60


def find_programs():
    """The folder of PostgreSQL's programs, told by the cluster that the tests run on."""
    import psycopg

    with psycopg.connect(MAINTENANCE_DATABASE) as connection:
        return Path(connection.execute("select setting from pg_config where name = 'BINDIR'").fetchone()[0])


def unprivileged():
    """Whom PostgreSQL runs as, as arguments of subprocess: it refuses root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    owner = names.get("postgres") or names["nobody"]
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


class Cluster:
    """One cluster, on a socket in its own folder."""

    def __init__(self, *settings, copy_of=None):
        self.programs, self.owner = find_programs(), unprivileged()
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
        """From the next start on it can also be reached by TCP, on `port`, by whom these lines of pg_hba.conf let in."""
        self.port = free_port()
        self.configure("listen_addresses = '127.0.0.1'", f"port = {self.port}")
        self.url += f" port={self.port}"
        (self.data / "pg_hba.conf").write_text("\n".join(["local all all trust", "local replication all trust", *rules, ""]))

    def call(self, program, *arguments, check=True):
        """One of PostgreSQL's programs, run to its end."""
        return subprocess.run(
            [self.programs / program, *arguments], cwd="/", check=check, timeout=DEADLINE, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self.owner,
        )

    def configure(self, *settings):
        """Lines for postgresql.conf; the last of a name counts."""
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
        """One statement; its rows, if it has any."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            done = connection.execute(statement, values or None)
            return done.fetchall() if done.description else None

    def create_database(self):
        """A database of its own for one test."""
        made = ClusterDatabase(self)
        self.run(f"create database {made.name}")
        return made

    @property
    def postmaster(self):
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def client_backends(self):
        """The processes that serve clients."""
        rows = self.run("select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()")
        return [process_id for process_id, in rows]

    def kill(self):
        """A power cut: the postmaster and all that it started."""
        postmaster = self.postmaster
        send(self.processes(), signal.SIGKILL)
        # Until its parent has taken note of its end, PostgreSQL takes it for one that runs.
        wait_until(lambda: not Path(f"/proc/{postmaster}").exists(), DEADLINE)

    def processes(self):
        """The postmaster and its children."""
        postmaster = self.postmaster
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]

    def freeze(self):
        """Stops every process with SIGSTOP; the kernel still accepts connections and acknowledges what is sent to them."""
        send([self.postmaster], signal.SIGSTOP)  # first, so that it starts no more children
        send(self.processes(), signal.SIGSTOP)

    def thaw(self):
        send(self.processes(), signal.SIGCONT)

    def back_up_to(self, folder):
        """A standby's beginning: a copy that follows this cluster."""
        self.call("pg_basebackup", "-d", self.url, "-D", folder, "-R", "-X", "stream", "-c", "fast", "--no-sync")

    def dispose(self):
        with contextlib.suppress(OSError, ValueError, IndexError):
            self.thaw()
        self.pg_ctl("-m", "immediate", "stop", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


class ClusterDatabase:
    """A database in a cluster of the tests' own; it goes with the cluster."""

    def __init__(self, cluster):
        self.name = f"movies_{word()}"
        self.url = cluster.url.replace("dbname=postgres", f"dbname={self.name}")

    def connect(self):
        import psycopg

        return psycopg.connect(self.url)

    def run(self, statement, *values):
        """One statement; its rows, if it has any."""
        with self.connect() as connection:
            done = connection.execute(statement, values or None)
            return done.fetchall() if done.description else None

    def end_sessions(self):
        """Ends all other sessions of this database; returns once they are gone."""
        others = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        ended = self.run(f"select pid, pg_terminate_backend(pid) {others}")
        process_ids = [process_id for process_id, _ in ended]
        wait_until(lambda: self.run(f"select count(*) {others} and pid = any (%s)", process_ids) == [(0,)])


@contextlib.contextmanager
def primary_with_standby():
    """A cluster, and a copy of it that acknowledges each of its commits; both listen on TCP. Once promoted, the copy waits for
    no other."""
    with contextlib.ExitStack() as made:
        clusters = []
        for copy_of, names in ((None, "*"), (0, "")):
            cluster = Cluster(
                f"synchronous_standby_names = '{names}'", "max_connections = 100", copy_of=None if copy_of is None else clusters[copy_of]
            )
            made.callback(cluster.dispose)
            cluster.listen("host all all 127.0.0.1/32 trust")
            clusters.append(cluster.start())
        wait_until(lambda: is_synchronous(clusters[0]), DEADLINE)
        yield clusters


def url_of(*clusters):
    servers = ",".join(f"127.0.0.1:{cluster.port}" for cluster in clusters)
    return f"postgresql://movies@{servers}/postgres?target_session_attrs=read-write"


def is_synchronous(primary):
    """Whether a standby acknowledges the commits of this cluster."""
    return primary.run("select sync_state from pg_stat_replication") == [("sync",)]


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def send(process_ids, what):
    """The signal to each process that is still there."""
    for process_id in process_ids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, what)
