"""Commands for which the database does not respond: they exit in time and say what may have been stored, and a signal ends them at once."""
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.client import PASSWORD
from helpers.cluster import primary_with_standby
from helpers.settings import BINARY, ROOT, SECRET_KEY

pytestmark = pytest.mark.own_servers

DEADLINE = 40
LOCK_MIGRATIONS = ROOT / "sql/schema/lock_migrations.sql"


def start(url, *arguments, typed=""):
    """Starts a command with `typed` as its standard input; returns the process. SIGINT ends it also where the tests themselves run in
    the background of a shell, which ignores the signal."""
    environment = {"DATABASE_URL": url, "SECRET_KEY": SECRET_KEY, "BCRYPT_COST": "4", "BIND": "127.0.0.1:0"}
    process = subprocess.Popen(
        [BINARY, *arguments], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    process.stdin.write(typed)
    process.stdin.close()
    process.stdin = None
    return process


def run(url, *arguments, typed="", deadline=20):
    """Runs a command; returns exit code (None if it was killed at the deadline), output and error output."""
    process = start(url, *arguments, typed=typed)
    try:
        output, errors = process.communicate(timeout=deadline)
        return process.returncode, output, errors
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        return None, output, errors


def test_commands_with_hanging_commit_exit_and_say_that_the_change_may_have_been_stored():
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
            tasks = [pool.submit(run, primary.url, *command, typed=f"{PASSWORD}\n", deadline=DEADLINE) for command in commands]
            # Commands that only read succeed meanwhile.
            list_result = run(primary.url, "users", "list")
            results = [task.result() for task in tasks]
        print(*zip(commands, results), sep="\n")
        assert list_result[0] == 0 and "ann@example.com" in list_result[1]
        assert [code for code, _, _ in results] == [1] * len(commands)
        assert [bool(re.search("may have been stored", errors)) for _, _, errors in results] == [True] * len(commands)


@pytest.fixture
def database(cluster):
    return cluster.create_database()


def wait_until_session_waits_for_lock(database):
    """Waits until a session waits for the lock of the migrations."""
    waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
    end = time.monotonic() + 10
    while database.run(waiting) == [(0,)]:
        assert time.monotonic() < end, "no session waits for the lock"
        time.sleep(0.05)


@pytest.mark.parametrize("command", ["migrate", "serve"])
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT], ids=lambda signal_number: signal_number.name)
def test_signal_ends_a_command_that_waits_for_the_migration_lock(database, command, signal_number):
    with database.connect() as blocker:
        blocker.execute(LOCK_MIGRATIONS.read_text())
        process = start(database.url, command)
        try:
            wait_until_session_waits_for_lock(database)
            process.send_signal(signal_number)
            process.wait(5)
        finally:
            process.kill()
            process.communicate()


def test_commands_that_do_not_migrate_ignore_the_migration_lock(database):
    assert run(database.url, "migrate")[0] == 0
    with database.connect() as blocker:
        blocker.execute(LOCK_MIGRATIONS.read_text())
        create = ["users", "create", "ann", "--email", "ann@example.com"]
        commands = [create, ["users", "list"], ["token", "ann"], ["users", "deactivate", "ann"]]
        results = [run(database.url, *command, typed=f"{PASSWORD}\n", deadline=10)[0] for command in commands]
    assert results == [0, 0, 0, 0]
