"""Fixtures for all tests: servers, databases and clients of the API.

Without MOVIES_API_BINARY and TEST_DATABASE_URL, which `./run.sh test` sets, the tests run against the service at
MOVIES_API_URL (default http://127.0.0.1:8000), and the tests that need a server or a database of their own are deselected."""
import contextlib
import json
import os
import secrets
import time

import pytest

# Failed assertions in the helpers show their values, as those in test files do.
pytest.register_assert_rewrite("helpers")

from helpers.client import MISSING, Client
from helpers.cluster import running_cluster
from helpers.database import Database, DatabaseLink
from helpers.installation import Installation
from helpers.programs import find_program
from helpers.server import Server
from helpers.settings import HAS_OWN_SERVERS, SECRET_KEY

# A test needs servers of its own if it uses one of these fixtures, directly or not, or is marked `own_servers`.
OWN_SERVER_FIXTURES = {"make_server", "database", "cluster", "installation"}


def needs_own_servers(item):
    fixtures = set(item.fixturenames)
    needs_key = "secret_key" in fixtures and not os.environ.get("SECRET_KEY")
    return bool(item.get_closest_marker("own_servers") or fixtures & OWN_SERVER_FIXTURES or needs_key)


def deselect(config, items, is_deselected):
    """Removes the items for which `is_deselected` is true from `items`, and returns their number."""
    deselected = [item for item in items if is_deselected(item)]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if not is_deselected(item)]
    return len(deselected)


def pytest_configure(config):
    # Set here, because pytest_collection_modifyitems is not called if nothing is collected.
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
    """Keeps test ids short and in ASCII: some parameters are bodies of a thousand characters."""
    text = "missing" if val is MISSING else val if isinstance(val, str) else repr(val)
    text = ascii(text)[1:-1]
    return text if len(text) <= 48 else f"{text[:40]}..{len(text)}"


@pytest.fixture(scope="session")
def make_server():
    """Returns a function that starts a server with a database of its own; both live until the session ends."""
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
    """The server that most tests share: its own database, MOVIES_VISIBILITY=own, default settings otherwise."""
    return make_server(MOVIES_VISIBILITY="own")


@pytest.fixture(scope="session")
def shared_server(make_server):
    """A server with MOVIES_VISIBILITY=shared."""
    return make_server(MOVIES_VISIBILITY="shared")


@pytest.fixture
def database():
    """A new, empty database for this test."""
    created = Database()
    yield created
    created.drop()


@pytest.fixture
def database_link(database, tmp_path):
    """A socket path to the test's database that the test can remove and restore."""
    return DatabaseLink(database, tmp_path)


@pytest.fixture
def launch_server(database):
    """Returns a function that starts a server on the test's database without waiting for it; the servers are killed after the test."""
    servers = []

    def launch(command_prefix=(), **settings):
        servers.append(Server({"DATABASE_URL": database.url, **settings}, command_prefix))
        return servers[-1]

    yield launch
    for server in servers:
        server.dispose()


@pytest.fixture
def start_server(launch_server):
    """Returns a function that starts a server on the test's database and waits until it listens."""
    return lambda **settings: launch_server(**settings).wait_until_listening()


@pytest.fixture(scope="module")
def cluster():
    """A PostgreSQL cluster for one test file, which its tests may stop and change. Some files override it with their own settings."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def installation(tmp_path):
    """A DATA_DIR for run.sh; what run.sh started for it is stopped after the test."""
    created = Installation(tmp_path)
    yield created
    created.clean_up()


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium, driven through Selenium."""
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
        """The URL of the service under test."""
        return own_server.base

else:

    @pytest.fixture(scope="session")
    def base():
        """The URL of the service under test."""
        return os.environ.get("MOVIES_API_URL", "http://127.0.0.1:8000").rstrip("/")


@pytest.fixture(scope="session")
def secret_key():
    """The key with which the service signs tokens."""
    return SECRET_KEY if HAS_OWN_SERVERS else os.environ["SECRET_KEY"]


@pytest.fixture
def sign_token(secret_key):
    """Returns a function that signs a token for a user with the service's key. Keyword arguments replace claims; MISSING omits one."""
    import jwt

    def sign_token(user, kind, *, key=secret_key, algorithm="HS256", header=None, **changes):
        now = int(time.time())
        good = {"token_type": kind, "exp": now + 600, "iat": now, "jti": secrets.token_hex(16), "user_id": str(user.id)}
        claims = {claim: value for claim, value in {**good, **changes}.items() if value is not MISSING}
        return jwt.api_jws.encode(json.dumps(claims).encode(), key, algorithm=algorithm, headers=header)

    return sign_token


class UserPool:
    """Users that the tests reuse, one test at a time, when the service outlives the session: registering a user and deleting
    the account cost a password hash each."""

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
    if not HAS_OWN_SERVERS:
        pool.client.delete_accounts()
    pool.client.close()


@pytest.fixture
def api(base):
    """A client that sends no token."""
    client = Client(base)
    yield client
    if not HAS_OWN_SERVERS:
        client.delete_accounts()
    client.close()


@pytest.fixture
def ann(api, user_pool):
    """A signed-in user without movies, used by no other test at the same time."""
    if HAS_OWN_SERVERS:
        yield api.new_user()
    else:
        with user_pool.borrow() as user:
            yield user


bob = ann
