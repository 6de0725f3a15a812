"""The command line for operators: output, effects and exit codes of each command."""
import json
import os
import pty
import re
import subprocess
import termios

import pytest

from helpers.client import MOVIES, PASSWORD, REFRESH, TOKEN, outcome, wait_until
from helpers.settings import BINARY, SECRET_KEY

pytestmark = pytest.mark.own_servers

LATEST = "V1__initial_schema"


def run(*arguments, typed="", **environment):
    """Runs a command with exactly this environment; returns the completed process."""
    return subprocess.run(
        [BINARY, *arguments], input=typed, env=environment, capture_output=True, text=True, timeout=60, cwd="/"
    )


@pytest.fixture
def operate(database):
    """Returns a function that runs a command on the test's database, checks its exit code, and returns its output, or its error output if it
    fails."""

    def operate(*arguments, exit_code=0, typed="", **environment):
        completed = run(*arguments, typed=typed, **{"DATABASE_URL": database.url, "BCRYPT_COST": "4", **environment})
        assert completed.returncode == exit_code, completed.stderr
        return completed.stdout if exit_code == 0 else completed.stderr

    return operate


def test_migrate_applies_pending_migrations_once(operate, database):
    assert LATEST in json.loads(operate("migrate", "--json"))["applied"]
    assert database.run("select count(*) from users") == [(0,)]
    assert operate("migrate") == "nothing to apply\n"


@pytest.mark.parametrize("command", [["users", "list"], ["token", "ann"], ["users", "create", "ann", "--email", "ann@example.com"]], ids=" ".join)
def test_command_on_database_without_schema_says_to_migrate(operate, database, command):
    message = operate(*command, SECRET_KEY=SECRET_KEY, typed=PASSWORD, exit_code=1)
    assert re.fullmatch("movies-api: the schema lacks V1__.*: run `movies-api migrate`, or start the service\n", message)
    assert database.run("select to_regclass('users')") == [(None,)]


def test_check_reports_pending_migrations_and_changes_nothing(operate, database):
    before = json.loads(operate("check", "--json", SECRET_KEY=SECRET_KEY))
    assert (before["is_ready"], before["database"]["applied"]) == (True, [])
    assert LATEST in before["database"]["pending"]
    assert database.run("select to_regclass('users')") == [(None,)]
    operate("migrate")
    after = json.loads(operate("check", "--json", SECRET_KEY=SECRET_KEY))
    assert (after["problems"], after["notes"], after["database"]["pending"]) == ([], [], [])
    assert after["database"]["extensions"] == {"btree_gin": True, "pg_trgm": True}


def test_check_fails_for_unknown_migration_and_missing_database(operate, database):
    operate("migrate")
    database.run("update refinery_schema_history set version = 99, name = 'of_later' where version = 1")
    completed = run("check", "--json", DATABASE_URL=database.url, SECRET_KEY=SECRET_KEY)
    assert (completed.returncode, json.loads(completed.stdout)["is_ready"]) == (1, False)
    assert "V99__of_later is not known here" in completed.stderr
    missing = database.url.replace(database.name, "nobody_made_this")
    completed = run("check", DATABASE_URL=missing, SECRET_KEY=SECRET_KEY)
    assert (completed.returncode, completed.stderr.count("\n")) == (1, 1)
    assert 'database "nobody_made_this" does not exist' in completed.stderr


@pytest.mark.parametrize(
    "arguments, environment, message",
    [
        (["check"], {"DATABASE_URL": "host=/x"}, "SECRET_KEY is not set and has no default (see --help)"),
        (["migrate"], {"DATABASE_URL": ""}, "DATABASE_URL is not set and has no default (see --help)"),
        (["check"], {"DATABASE_URL": "host=/x", "SECRET_KEY": SECRET_KEY, "WORKERS": "1"}, "WORKERS=1 is not allowed: must be a whole number from 2 to 1024"),
        (["completions"], {}, "the argument <SHELL> is missing (see --help)"),
        (["nonsense"], {}, "unrecognized subcommand 'nonsense' (see --help)"),
    ],
)
def test_invalid_command_line_exits_with_2_and_one_line(arguments, environment, message):
    completed = run(*arguments, **environment)
    assert (completed.returncode, completed.stderr, completed.stdout) == (2, f"movies-api: {message}\n", "")


def test_empty_variable_counts_as_unset_for_every_command(operate):
    assert LATEST in operate("migrate", BCRYPT_COST="", WORKERS="")
    assert "settings    good" in operate("check", SECRET_KEY=SECRET_KEY, BCRYPT_COST="", MAX_CONNECTIONS="")


@pytest.mark.parametrize(
    "line, completions",
    [
        ("movies-api m", "migrate"),
        ("movies-api u", "users"),
        ("movies-api --bcr", "--bcrypt-cost"),
        ("movies-api serve --bin", "--bind"),
        ("movies-api users cr", "create"),
        ("movies-api users d", "deactivate delete"),
        ("movies-api users create ann --em", "--email"),
        ("movies-api users delete ann --y", "--yes"),
        ("movies-api users set-password --bc", "--bcrypt-cost"),
        ("movies-api token --sec", "--secret-key --secret-key-fallbacks"),
        ("movies-api import-django --da", "--database-url"),
        ("movies-api print ng", "nginx"),
        ("movies-api print nginx --ho", "--host"),
        ("movies-api serve --movies-visibility s", "shared"),
        ("movies-api completions ba", "bash"),
        ("movies-api help us", "users"),
        ("/usr/local/bin/movies-api users cr", "create"),
    ],
)
def test_bash_completes_commands_and_their_flags(line, completions):
    script = run("completions", "bash").stdout
    *before, word = line.split(" ")
    request_completions = f"COMP_WORDS=({line}); COMP_CWORD={len(before)}; _movies__api {before[0]} {word!r} {before[-1]}; echo ${{COMPREPLY[@]}}"
    completed = subprocess.run(["bash", "-c", f"{script}\n{request_completions}"], capture_output=True, text=True, timeout=60, check=True)
    assert completed.stdout.strip() == completions


def test_help_command_prints_what_the_help_flag_prints():
    assert run("help").stdout == run("--help").stdout
    assert run("help", "users").stdout == run("users", "--help").stdout != ""
    assert run("help", "users", "create").stdout == run("users", "create", "--help").stdout
    assert run("users", "help", "create").stdout == run("users", "create", "--help").stdout
    assert (run("help").returncode, run("help", "nonsense").returncode) == (0, 2)


def test_misspelt_setting_variable_causes_warning(launch_server, operate):
    server = launch_server(CORS_ORIGNS="https://hunter2.example", PORT="9000", HOST="h", HOME="/", BINDIR="/usr/bin").wait_until_listening()
    warnings = [line.split("[WARN] ")[1] for line in server.log if "[WARN]" in line]
    assert warnings == [
        "the environment variable CORS_ORIGNS is ignored: did you mean CORS_ORIGINS?",
        "the environment variable PORT is ignored: set address and port in BIND, for example BIND=0.0.0.0:8000",
    ]
    notes = json.loads(operate("check", "--json", SECRET_KEY=SECRET_KEY, WORKER="12", PATH="/bin"))["notes"]
    assert notes == ["the environment variable WORKER is ignored: did you mean WORKERS?"]


def test_white_space_around_setting_values_is_ignored(launch_server, database):
    settings = {
        "BIND": " 127.0.0.1:0\n", "SECRET_KEY": f" {SECRET_KEY}\n", "DATABASE_URL": f" {database.url}\n", "WORKERS": "12 ", "BCRYPT_COST": " 4",
        "MOVIES_VISIBILITY": " shared ", "LOG_FORMAT": "text\r\n", "LOG_LEVEL": " info ", "SERVER_TIMING": " true ", "IDLE_TIMEOUT": " 70 ",
        "LOGIN_COOLDOWN": " 61 ", "CORS_ORIGINS": " https://a.example ", "TRUSTED_PROXIES": " 10.0.0.0/8 ", "MAX_CONNECTIONS": " ",
    }
    log = "\n".join(launch_server(**settings).wait_until_listening().log)
    for line in ("WORKERS=12 (env", "MOVIES_VISIBILITY=shared (env", "LOG_FORMAT=text (env", "SERVER_TIMING=true (env", "TRUSTED_PROXIES=10.0.0.0/8 (env"):
        assert line in log
    assert "MAX_CONNECTIONS=" not in log


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--bind"], "--bind <BIND> has no value (see --help)"),
        (["users", "create", "ann"], "the flag --email is missing (see --help)"),
    ],
)
def test_missing_argument_is_named_as_on_the_command_line(arguments, message):
    completed = run(*arguments, EMAIL="ann@example.com")
    assert (completed.returncode, completed.stderr) == (2, f"movies-api: {message}\n")


def test_users_delete_deletes_user_and_movies_at_once(operate, start_server, database):
    client = start_server().client()
    ann, bob = client.new_user(), client.new_user()
    for user in (ann, ann, bob):
        user.add_movie()
    message = operate("users", "delete", ann.username, exit_code=1)
    assert message == "movies-api: nothing was deleted: standard input is not a terminal, so the flag --yes is required\n"
    assert database.run("select count(*) from users") == [(2,)]
    deleted = json.loads(operate("users", "delete", ann.username, "--yes", "--json"))
    assert deleted == {"id": ann.id, "username": ann.username, "movie_count": 2}
    assert outcome(ann.get(MOVIES))[1]["code"] == "user_not_found"
    assert (bob.get(MOVIES).json()["count"], database.run("select count(*) from movies")) == (1, [(1,)])
    assert operate("recount", "--check") == "1 users and 1 movies counted\nall counts are correct\n"
    assert operate("users", "delete", ann.username, "--yes", exit_code=1) == f'movies-api: no user has the name "{ann.username}"\n'


@pytest.mark.parametrize("typed, users_left", [(b"n\n", 1), (b"\n", 1), (b"y\n", 0)])
def test_users_delete_asks_for_confirmation_on_a_terminal(operate, database, typed, users_left):
    operate("migrate")
    operate("users", "create", "ann", "--email", "ann@example.com", typed=PASSWORD)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(BINARY, [BINARY, "users", "delete", "ann"], {"DATABASE_URL": database.url})
    screen = b""
    while not screen.endswith(b'Delete the user "ann" and all their movies? [y/N] '):
        screen += os.read(terminal, 1)
    os.write(terminal, typed)
    status = os.waitpid(pid, 0)[1]
    os.close(terminal)
    assert (os.waitstatus_to_exitcode(status), database.run("select count(*) from users")) == (int(users_left > 0), [(users_left,)])


def test_closed_output_pipe_is_not_an_error():
    completed = subprocess.run(["bash", "-c", f"set -o pipefail; {BINARY} completions bash | true"], capture_output=True, text=True, timeout=60)
    assert (completed.returncode, completed.stderr) == (0, "")


def test_serve_is_the_default_command(database):
    process = subprocess.Popen(
        [BINARY, "serve", "--bind", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/",
        env={"DATABASE_URL": database.url, "SECRET_KEY": SECRET_KEY},
    )
    try:
        assert any("listening on http://127.0.0.1" in line for line in process.stdout)
    finally:
        process.terminate()
        process.stdout.close()
        assert process.wait(20) == 0


def test_user_created_on_the_command_line_can_sign_in(operate, start_server):
    api = start_server().client()
    user = json.loads(operate("users", "create", "ann", "--email", "ann@example.com", "--json", typed=f"{PASSWORD}\n"))
    assert user == {"id": 1, "username": "ann", "email": "ann@example.com", "first_name": "", "last_name": ""}
    assert api.post(TOKEN, {"username": "ann", "password": PASSWORD}).status_code == 200


def test_users_create_applies_the_rules_of_registration(operate):
    operate("migrate")
    message = operate("users", "create", "a b", "--email", "nowhere", typed="123", exit_code=1)
    for error in ["username: Enter a valid username.", "password: This password is too short.", "email: Enter a valid email address."]:
        assert error in message
    operate("users", "create", "ann", "--email", "ann@example.com", typed=PASSWORD)
    message = operate("users", "create", "ann", "--email", "ann@example.com", typed=PASSWORD, exit_code=1)
    assert message == "movies-api: username: A user with that username already exists.; email: This field must be unique.\n"
    assert "password: This field may not be blank." in operate("users", "create", "bob", "--email", "b@example.com", exit_code=1)


def test_users_list_is_aligned_and_contains_no_hash(operate, database):
    operate("migrate")
    for name in ["ann", "bartholomew"]:
        operate("users", "create", name, "--email", f"{name}@example.com", typed=PASSWORD)
    database.run("update users set date_joined = '2020-02-03 04:05:06+00'")
    database.run("insert into movies (title, genre, year, creator_id) values ('Heat', 'Crime', 1995, 2)")
    operate("users", "deactivate", "ann")
    assert operate("users", "list").splitlines() == [
        "ID  USERNAME     EMAIL                    ACTIVE  JOINED                MOVIES",
        "1   ann          ann@example.com          no      2020-02-03T04:05:06Z  0",
        "2   bartholomew  bartholomew@example.com  yes     2020-02-03T04:05:06Z  1",
    ]
    listed = operate("users", "list", "--json")
    assert "bcrypt" not in listed
    assert json.loads(listed)[0] == {
        "id": 1, "username": "ann", "email": "ann@example.com", "first_name": "", "last_name": "",
        "is_active": False, "date_joined": "2020-02-03T04:05:06Z", "movie_count": 0,
    }


def test_users_list_contains_users_of_an_infinite_date(operate, database):
    operate("migrate")
    for name, date in [("ann", "infinity"), ("bob", "-infinity")]:
        database.run(f"insert into users (username, password_hash, email, date_joined) values ('{name}', '!', '{name}@example.com', '{date}')")
    listed = json.loads(operate("users", "list", "--json"))
    assert [user["date_joined"] for user in listed] == ["infinity", "-infinity"]


def test_deactivated_user_is_refused_at_once_until_activated(operate, start_server):
    ann = start_server().client().new_user()
    operate("users", "deactivate", ann.username)
    assert outcome(ann.get(MOVIES))[1]["code"] == "user_inactive"
    assert ann.post(TOKEN, {"username": ann.username, "password": PASSWORD}).status_code == 401
    assert "is deactivated" in operate("token", ann.username, SECRET_KEY=SECRET_KEY, exit_code=1)
    operate("users", "activate", ann.username)
    assert ann.get(MOVIES).status_code == 200


def test_set_password_replaces_the_old_password_at_once(operate, start_server):
    ann = start_server().client().new_user()
    assert "This password is entirely numeric." in operate("users", "set-password", ann.username, typed="8462519730\n", exit_code=1)
    operate("users", "set-password", ann.username, typed="An0ther-Passw0rd!\n")
    assert ann.post(TOKEN, {"username": ann.username, "password": PASSWORD}).status_code == 401
    assert ann.post(TOKEN, {"username": ann.username, "password": "An0ther-Passw0rd!"}).status_code == 200


def test_password_is_read_twice_from_a_terminal_without_echo(operate, database):
    operate("migrate")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(BINARY, [BINARY, "users", "create", "ann", "--email", "ann@example.com"], {"DATABASE_URL": database.url, "BCRYPT_COST": "4"})
    screen = b""
    for prompt in [b"Password: ", b"Password again: "]:
        while not screen.endswith(prompt):
            screen += os.read(terminal, 1)
        # Input typed before the program turns the echo off would be shown.
        wait_until(lambda: not termios.tcgetattr(terminal)[3] & termios.ECHO)
        os.write(terminal, PASSWORD.encode() + b"\n")
    while not screen.endswith(b"user 1 created: ann\r\n"):
        screen += os.read(terminal, 1)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(terminal)
    assert PASSWORD.encode() not in screen


def test_token_command_prints_a_valid_token(operate, start_server):
    ann = start_server().client().new_user()
    access = operate("token", ann.username, SECRET_KEY=SECRET_KEY).strip()
    assert ann.with_token(access).get(MOVIES).status_code == 200
    pair = json.loads(operate("token", ann.username, "--json", SECRET_KEY=SECRET_KEY))
    assert ann.post(REFRESH, {"refresh": pair["refresh"]}).status_code == 200
    assert operate("token", "unknown", SECRET_KEY=SECRET_KEY, exit_code=1) == 'movies-api: no user has the name "unknown"\n'


def test_users_commands_need_no_secret_key_and_token_ignores_bcrypt_cost(operate):
    operate("migrate")
    assert operate("users", "list", SECRET_KEY="").startswith("ID")
    assert "SECRET_KEY is not set" in operate("token", "ann", exit_code=2)
    assert "no user" in operate("token", "ann", SECRET_KEY=SECRET_KEY, BCRYPT_COST="99", exit_code=1)
