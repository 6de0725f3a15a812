"""What every file shares: servers with databases of their own, and the fixtures that hand out clients of them.

Without MOVIES_API_BINARY and TEST_DATABASE_URL, which `./run.sh test` sets, the tests run against the service at
MOVIES_API_URL (default http://127.0.0.1:8000), and those that need a server or a database of their own are deselected."""
import contextlib
import json
import os
import secrets
import time

import pytest

from helpers.client import MISSING, Client
from helpers.database import Database, Link
from helpers.place import Place
from helpers.programs import find_program
from helpers.server import Server
from helpers.settings import HAS_OWN_SERVERS, SECRET_KEY

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


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver

    chromium, driver = find_program("chromium", "chromium"), find_program("chromedriver", "chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync"
    for flag in [*flags.split(), f"user-data-dir={tmp_path}", "window-size=1100,1300"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


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
