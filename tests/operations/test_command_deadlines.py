"""Commands that the database keeps waiting: each ends by itself and says what may have been stored, and a signal ends it at once."""
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.client import PASSWORD
from helpers.cluster import Cluster, primary_with_standby
from helpers.settings import BINARY, ROOT, SECRET_KEY

pytestmark = pytest.mark.own_servers

DEADLINE = 40
LOCK_MIGRATIONS = ROOT / "sql/schema/lock_migrations.sql"


def start(url, *arguments, typed=""):
    """The command's process; what is typed is its standard input."""
    environment = {"DATABASE_URL": url, "SECRET_KEY": SECRET_KEY, "BCRYPT_COST": "4", "BIND": "127.0.0.1:0"}
    process = subprocess.Popen(
        [BINARY, *arguments], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    )
    process.stdin.write(typed)
    process.stdin.close()
    process.stdin = None
    return process


def run(url, *arguments, typed="", deadline=20):
    """Exit code, output and error output of the command; no exit code if it was killed at the deadline."""
    process = start(url, *arguments, typed=typed)
    try:
        output, errors = process.communicate(timeout=deadline)
        return process.returncode, output, errors
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        return None, output, errors


def test_commands_beside_a_hanging_commit_end_and_say_that_the_change_may_have_been_stored():
    with primary_with_standby() as (primary, standby):
        assert run(primary.url, "migrate")[0] == 0
        for name in ("ann", "bob", "cid"):
            assert run(primary.url, "users", "create", name, "--email", f"{name}@example.com", typed=f"{PASSWORD}\n")[0] == 0
        assert run(primary.url, "users", "deactivate", "cid")[0] == 0
        standby.kill()
        commands = [
            ["users", "deactivate", "ann"], ["users", "set-password", "bob"], ["users", "activate", "cid"],
            ["users", "create", "dan", "--email", "dan@example.com"],
        ]
        with ThreadPoolExecutor(len(commands)) as pool:
            ending = [pool.submit(run, primary.url, *command, typed=f"{PASSWORD}\n", deadline=DEADLINE) for command in commands]
            # Meanwhile, what only reads is answered.
            listed = run(primary.url, "users", "list")
            ended = [one.result() for one in ending]
        print(*zip(commands, ended), sep="\n")
        assert listed[0] == 0 and "ann@example.com" in listed[1]
        assert [code for code, _, _ in ended] == [1] * len(commands)
        assert [bool(re.search("may have been stored", errors)) for _, _, errors in ended] == [True] * len(commands)


@pytest.fixture(scope="module")
def cluster():
    made = Cluster().start()
    yield made
    made.dispose()


@pytest.fixture
def database(cluster):
    return cluster.create_database()


def wait_until_it_waits(database):
    """Returns once a session waits for the migrations' lock."""
    waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
    ends = time.monotonic() + 10
    while database.run(waiting) == [(0,)]:
        assert time.monotonic() < ends, "no session waits for the lock"
        time.sleep(0.05)


@pytest.mark.parametrize("command", ["migrate", "serve"])
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=lambda sent: sent.name)
def test_a_signal_ends_what_waits_for_the_lock_of_the_migrations(database, command, sent):
    with database.connect() as holder:
        holder.execute(LOCK_MIGRATIONS.read_text())
        process = start(database.url, command)
        try:
            wait_until_it_waits(database)
            process.send_signal(sent)
            process.wait(5)
        finally:
            process.kill()
            process.communicate()


def test_commands_that_do_not_migrate_pass_by_the_lock_of_the_migrations(database):
    assert run(database.url, "migrate")[0] == 0
    with database.connect() as holder:
        holder.execute(LOCK_MIGRATIONS.read_text())
        create = ["users", "create", "ann", "--email", "ann@example.com"]
        commands = [create, ["users", "list"], ["token", "ann"], ["users", "deactivate", "ann"]]
        ended = [run(database.url, *command, typed=f"{PASSWORD}\n", deadline=10)[0] for command in commands]
    assert ended == [0, 0, 0, 0]
