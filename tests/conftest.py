"""What every file shares: servers with databases of their own, and the fixtures that hand out clients of them.

Without MOVIES_API_BINARY and TEST_DATABASE_URL, which `./run.sh test` sets, the tests run against the service at
MOVIES_API_URL (default http://127.0.0.1:8000), and those that need a server or a database of their own are deselected."""
import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import threading
import time

import pytest

from client import MISSING, Client, word
from place import Place
from programs import skip_unless_ci

BINARY = os.environ.get("MOVIES_API_BINARY")
MAINTENANCE_DATABASE = os.environ.get("TEST_DATABASE_URL")
HAS_OWN_SERVERS = bool(BINARY and MAINTENANCE_DATABASE)
SECRET_KEY = "a-key-of-the-tests-alone-long-enough-for-hs512-0123456789abcdef-0123"

# A test needs servers of its own if it uses one of these fixtures, directly or not, or is marked `own_servers`.
OWN_SERVER_FIXTURES = {"make_server", "database", "place"}


def needs_own_servers(item):
    fixtures = set(item.fixturenames)
    needs_key = "secret_key" in fixtures and not os.environ.get("SECRET_KEY")
    return bool(item.get_closest_marker("own_servers") or fixtures & OWN_SERVER_FIXTURES or needs_key)


def deselect(config, items, is_deselected):
    """Takes these items out; how many they were."""
    deselected = [item for item in items if is_deselected(item)]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if not is_deselected(item)]
    return len(deselected)


def pytest_configure(config):
    # Also where nothing is collected.
    config.without_own_servers = config.without_root = 0


def pytest_collection_modifyitems(config, items):
    config.without_own_servers = 0 if HAS_OWN_SERVERS else deselect(config, items, needs_own_servers)
    config.without_root = 0 if os.geteuid() == 0 else deselect(config, items, lambda item: item.get_closest_marker("root"))


def pytest_terminal_summary(terminalreporter, config):
    if config.without_own_servers:
        terminalreporter.write_line(
            f"{config.without_own_servers} tests need servers and databases of their own and were deselected; ./run.sh test runs them too"
        )
    if config.without_root:
        terminalreporter.write_line(f"{config.without_root} tests need root and were deselected")


def pytest_make_parametrize_id(config, val, argname):
    """Short ids: tables hold bodies of a thousand characters and odd ones."""
    text = "missing" if val is MISSING else val if isinstance(val, str) else repr(val)
    text = ascii(text)[1:-1]
    return text if len(text) <= 48 else f"{text[:40]}..{len(text)}"


class Database:
    """A database of a test's own, changed directly where no request can."""

    def __init__(self, options=""):
        import psycopg

        self.name = f"movies_{word()}"
        self.connect = psycopg.connect
        self.url = psycopg.conninfo.make_conninfo(MAINTENANCE_DATABASE, dbname=self.name)
        self.manage(f"create database {self.name} template template0 {options}")

    def manage(self, statement):
        """One statement on the maintenance database."""
        with self.connect(MAINTENANCE_DATABASE, autocommit=True) as connection:
            connection.execute(statement)

    def run(self, statement, *values):
        """One statement on this database; its rows, if it has any."""
        with self.connect(self.url) as connection:
            done = connection.execute(statement, values)
            return done.fetchall() if done.description else None

    def take_away(self):
        """From now on it refuses connections, and those that were open are cut."""
        self.manage(f"alter database {self.name} with allow_connections false")
        self.cut_connections()

    def count_connections(self):
        with self.connect(MAINTENANCE_DATABASE) as connection:
            return connection.execute("select count(*) from pg_stat_activity where datname = %s", [self.name]).fetchone()[0]

    def cut_connections(self):
        """Returns once they are gone."""
        self.manage(f"select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = '{self.name}'")

    def give_back(self):
        self.manage(f"alter database {self.name} with allow_connections true")

    def drop(self):
        self.manage(f"drop database if exists {self.name} with (force)")


class Link:
    """A way to a database that can be cut: a folder with a link to the cluster's socket."""

    def __init__(self, database, folder):
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        place = conninfo_to_dict(MAINTENANCE_DATABASE)
        name = f".s.PGSQL.{place.get('port', 5432)}"
        if not str(place.get("host", "")).startswith("/"):
            skip_unless_ci("needs a cluster on a unix socket: ./run.sh test")
        self.database, self.link, self.socket = database, folder / name, os.path.join(place["host"], name)
        self.url = make_conninfo(database.url, host=str(folder))
        self.mend()

    def mend(self):
        self.link.symlink_to(self.socket)

    def cut(self):
        self.link.unlink()
        self.database.cut_connections()


class Server:
    """The binary as a process of its own, its log, and the clients that have to hang up before it stops."""

    def __init__(self, settings, under=()):
        self.under = under
        self.settings = {"BIND": "127.0.0.1:0", "SECRET_KEY": SECRET_KEY, "BCRYPT_COST": "4", "DB_POOL_SIZE": "8", **settings}
        self.clients = []
        self.launch()

    def launch(self):
        """Starts the process, and does not wait for it to listen."""
        environment = {name: value for name, value in self.settings.items() if value is not None}
        self.log = []
        self.changed = threading.Condition()
        self.process = subprocess.Popen(
            [*self.under, BINARY], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
        )
        self.reader = threading.Thread(target=self.read_log, daemon=True)
        self.reader.start()

    def read_log(self):
        for line in self.process.stdout:
            with self.changed:
                self.log.append(line.decode(errors="replace").rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.log_ended = True
            self.changed.notify_all()

    log_ended = False

    def wait_until_listening(self, deadline=20):
        """Reads the log until it says where the server listens."""
        def found():
            lines = [re.search(r"listening on (http://127\.0\.0\.1:\d+)", line) for line in self.log]
            return next((match for match in lines if match), None)

        with self.changed:
            self.changed.wait_for(lambda: found() or self.log_ended, deadline)
            match = found()
        assert match, "the server does not listen; its log:\n" + "\n".join(self.log)
        self.base = match[1]
        return self

    def client(self):
        self.clients.append(Client(self.base))
        return self.clients[-1]

    def hang_up(self):
        for client in self.clients:
            client.close()

    def end(self, deadline=20):
        """The exit status, once the process has ended by itself and its whole log is read."""
        status = self.process.wait(deadline)
        self.reader.join(deadline)
        return status

    def stop(self, with_signal=signal.SIGTERM, deadline=20):
        """Ends the process by this signal; its exit status."""
        self.hang_up()
        self.process.send_signal(with_signal)
        return self.end(deadline)

    def start_again(self):
        """The same settings and data in a new process."""
        self.log_ended = False
        self.launch()
        return self.wait_until_listening()

    def dispose(self):
        self.hang_up()
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        assert not [line for line in self.log if "panicked" in line]


@pytest.fixture(scope="session")
def make_server():
    """Starts servers that live until the session ends."""
    servers, databases = [], []

    def make(database_options="", **settings):
        databases.append(Database(database_options))
        server = Server({"DATABASE_URL": databases[-1].url, **settings})
        server.database = databases[-1]
        servers.append(server)
        return server.wait_until_listening()

    yield make
    for server in servers:
        server.dispose()
    for database in databases:
        database.drop()


@pytest.fixture(scope="session")
def own_server(make_server):
    """The server that most tests share, with its database, its key and its default settings."""
    return make_server(MOVIES_VISIBILITY="own")


@pytest.fixture(scope="session")
def shared_server(make_server):
    """A server with MOVIES_VISIBILITY=shared."""
    return make_server(MOVIES_VISIBILITY="shared")


@pytest.fixture
def database():
    """A database of the test's own, still empty."""
    made = Database()
    yield made
    made.drop()


@pytest.fixture
def cut_link(database, tmp_path):
    """A way to the test's database that can be cut."""
    return Link(database, tmp_path)


@pytest.fixture
def launch_server(database):
    """Launches servers on the test's database, without waiting for them; whatever still runs afterwards is ended."""
    servers = []

    def launch(under=(), **settings):
        servers.append(Server({"DATABASE_URL": database.url, **settings}, under))
        return servers[-1]

    yield launch
    for server in servers:
        server.dispose()


@pytest.fixture
def start_server(launch_server):
    """Starts servers on the test's database, and waits until they listen."""
    return lambda **settings: launch_server(**settings).wait_until_listening()


@pytest.fixture
def place(tmp_path):
    """A folder of the test's own to use run.sh in; whatever it started there is stopped afterwards."""
    made = Place(tmp_path)
    yield made
    made.clear()


if HAS_OWN_SERVERS:

    @pytest.fixture(scope="session")
    def base(own_server):
        """The service's URL."""
        return own_server.base

else:

    @pytest.fixture(scope="session")
    def base():
        """The service's URL."""
        return os.environ.get("MOVIES_API_URL", "http://127.0.0.1:8000").rstrip("/")


@pytest.fixture(scope="session")
def secret_key():
    """The key that the service signs tokens with."""
    return SECRET_KEY if HAS_OWN_SERVERS else os.environ["SECRET_KEY"]


@pytest.fixture
def mint(secret_key):
    """Signs tokens with the service's key: of a user, with claims changed; MISSING leaves a claim out."""
    import jwt

    def mint(user, kind, *, key=secret_key, algorithm="HS256", header=None, **changes):
        now = int(time.time())
        good = {"token_type": kind, "exp": now + 600, "iat": now, "jti": secrets.token_hex(16), "user_id": str(user.id)}
        claims = {claim: value for claim, value in {**good, **changes}.items() if value is not MISSING}
        return jwt.api_jws.encode(json.dumps(claims).encode(), key, algorithm=algorithm, headers=header)

    return mint


class UserPool:
    """Users of a service that outlives the session, used by one test after another: each registration costs the service a
    hash, and a registered user stays."""

    def __init__(self, base):
        self.client = Client(base)
        self.free = []

    @contextlib.contextmanager
    def borrow(self):
        user = self.free.pop() if self.free else self.client.new_user()
        token, refresh = user.token, user.refresh
        yield user
        user.token, user.refresh = token, refresh
        user.delete_movies()
        user.close()
        self.free.append(user)


@pytest.fixture(scope="session")
def user_pool(base):
    pool = UserPool(base)
    yield pool
    pool.client.close()


@pytest.fixture
def api(base):
    """A client without a token."""
    client = Client(base)
    yield client
    if not HAS_OWN_SERVERS:
        client.delete_movies()
    client.close()


@pytest.fixture
def ann(api, user_pool):
    """A signed-in user without movies whom no other test uses at the same time."""
    if HAS_OWN_SERVERS:
        yield api.new_user()
    else:
        with user_pool.borrow() as user:
            yield user


bob = ann
