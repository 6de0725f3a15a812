"""The command line of operators: what each command prints, changes and exits with."""
import json
import subprocess

import pytest
from conftest import BINARY, HAS_OWN_SERVERS, SECRET_KEY

pytestmark = pytest.mark.skipif(not HAS_OWN_SERVERS, reason="needs a database of its own: ./run.sh test")

LATEST = "V2__kept_counts"


def run(*arguments, typed="", **environment):
    """The finished process of one command; its environment is nothing but this."""
    return subprocess.run(
        [BINARY, *arguments], input=typed, env=environment, capture_output=True, text=True, timeout=60, cwd="/"
    )


@pytest.fixture
def operate(database):
    """Runs commands on the test's database; what they print, once they ended well."""

    def operate(*arguments, exit_code=0, typed="", **environment):
        done = run(*arguments, typed=typed, **{"DATABASE_URL": database.url, "BCRYPT_COST": "4", **environment})
        assert done.returncode == exit_code, done.stderr
        return done.stdout if exit_code == 0 else done.stderr

    return operate


def test_migrate_applies_what_is_missing_and_then_nothing(operate, database):
    assert LATEST in json.loads(operate("migrate", "--json"))["applied"]
    assert database.run("select count(*) from users") == [(0,)]
    assert operate("migrate") == "nothing to apply\n"


def test_check_says_what_a_start_would_meet_and_changes_nothing(operate, database):
    before = json.loads(operate("check", "--json", SECRET_KEY=SECRET_KEY))
    assert (before["is_ready"], before["database"]["applied"]) == (True, [])
    assert LATEST in before["database"]["pending"]
    assert database.run("select to_regclass('users')") == [(None,)]
    operate("migrate")
    after = json.loads(operate("check", "--json", SECRET_KEY=SECRET_KEY))
    assert (after["problems"], after["notes"], after["database"]["pending"]) == ([], [], [])
    assert after["database"]["extensions"] == {"btree_gin": True, "pg_trgm": True}


def test_check_fails_where_a_start_would(operate, database):
    operate("migrate")
    database.run("update refinery_schema_history set version = 99, name = 'of_later' where version = 2")
    told = run("check", "--json", DATABASE_URL=database.url, SECRET_KEY=SECRET_KEY)
    assert (told.returncode, json.loads(told.stdout)["is_ready"]) == (1, False)
    assert "V99__of_later is not known here" in told.stderr
    missing = database.url.replace(database.name, "nobody_made_this")
    told = run("check", DATABASE_URL=missing, SECRET_KEY=SECRET_KEY)
    assert (told.returncode, told.stderr.count("\n")) == (1, 1)
    assert 'database "nobody_made_this" does not exist' in told.stderr


@pytest.mark.parametrize(
    "arguments, environment, told",
    [
        (["check"], {"DATABASE_URL": "host=/x"}, "SECRET_KEY is not set, without a default (see --help)"),
        (["migrate"], {"DATABASE_URL": ""}, "DATABASE_URL is not set, without a default (see --help)"),
        (["check"], {"DATABASE_URL": "host=/x", "SECRET_KEY": "x", "WORKERS": "1"}, "WORKERS=1 is not allowed: it is a whole number, 2 to 1024"),
        (["completions"], {}, "the argument <SHELL> is missing (see --help)"),
        (["nonsense"], {}, "unrecognized subcommand 'nonsense'"),
    ],
)
def test_a_command_that_cannot_be_is_told_in_one_line_with_exit_code_two(arguments, environment, told):
    done = run(*arguments, **environment)
    assert (done.returncode, done.stderr, done.stdout) == (2, f"movies-api: {told}\n", "")


def test_an_empty_variable_counts_as_unset_whatever_the_command(operate):
    assert LATEST in operate("migrate", BCRYPT_COST="", WORKERS="")
    assert "settings    good" in operate("check", SECRET_KEY=SECRET_KEY, BCRYPT_COST="", MAX_CONNECTIONS="")


def test_the_completions_know_commands_and_flags():
    script = run("completions", "bash").stdout
    shell = f"{script}\nCOMP_WORDS=(movies-api m); COMP_CWORD=1; _movies__api movies-api m movies-api; echo ${{COMPREPLY[@]}}"
    assert subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=True).stdout == "migrate\n"
    assert "--bcrypt-cost" in script


def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {BINARY} completions bash | true"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_serve_by_its_name_is_what_runs_without_a_command(database):
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
