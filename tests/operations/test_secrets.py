"""Signing keys that are too weak and invalid connection strings: they are refused at start, and no secret is printed or logged."""
import base64
import hmac
import json
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.client import MOVIES, wait_until
from helpers.settings import BINARY, MAINTENANCE_DATABASE, SECRET_KEY

pytestmark = pytest.mark.own_servers

OTHER_KEY = "another-key-of-the-tests-0123456789abcdefg"
PASSWORD = "hunter2"


def run(*arguments, timeout=20, **environment):
    """Runs the program with exactly this environment; returns its exit code and all its output."""
    completed = subprocess.run([BINARY, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, cwd="/")
    return completed.returncode, completed.stdout + completed.stderr


def forge(user, key):
    """Returns an access token signed with `key`, which may be empty, as libraries do not allow."""
    now = int(time.time())
    claims = {"token_type": "access", "exp": now + 600, "iat": now, "jti": "x", "user_id": str(user.id)}
    encode = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    signed = f"{encode(json.dumps({'alg': 'HS256', 'typ': 'JWT'}).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(hmac.digest(key.encode(), signed.encode(), 'sha256'))}"


@pytest.mark.parametrize("fallbacks", [f"{OTHER_KEY},", ",", f" {OTHER_KEY} ,,{OTHER_KEY}", " ", " , "])
def test_empty_fallback_key_is_not_accepted(start_server, fallbacks):
    ann = start_server(SECRET_KEY_FALLBACKS=fallbacks).client().new_user()
    for key in ("", " "):
        assert ann.with_token(forge(ann, key)).get(MOVIES).status_code == 401
    expected = 200 if OTHER_KEY in fallbacks else 401
    assert ann.with_token(forge(ann, OTHER_KEY)).get(MOVIES).status_code == expected


@pytest.mark.parametrize("command", [[], ["check"], ["token", "ann"]])
@pytest.mark.parametrize(
    "name, value",
    [
        ("SECRET_KEY", PASSWORD),
        ("SECRET_KEY", f" {SECRET_KEY[:31]} "),
        ("SECRET_KEY_FALLBACKS", PASSWORD),
        ("SECRET_KEY_FALLBACKS", f"{OTHER_KEY},{PASSWORD}"),
        ("SECRET_KEY_FALLBACKS", f"{SECRET_KEY[:31]} ,{OTHER_KEY}"),
    ],
)
def test_short_or_blank_signing_key_is_refused_by_every_command_that_uses_it(database, command, name, value):
    settings = {"DATABASE_URL": database.url, "BIND": "127.0.0.1:0", "SECRET_KEY": SECRET_KEY, name: value}
    code, output = run(*command, **settings)
    assert (code, output.count("\n")) == (2, 1), output
    assert output.startswith(f"movies-api: {name}=(hidden) is not allowed: a key is 32 bytes or longer")
    assert [secret for secret in (PASSWORD, OTHER_KEY, SECRET_KEY[:31]) if secret in output] == []
    del settings[name]
    flag = f"--{name.lower().replace('_', '-')}={value}"
    assert run(*command, flag, **settings) == (code, output)


@pytest.mark.parametrize("command", [[], ["check"], ["token", "ann"]])
@pytest.mark.parametrize("value", ["  ", "\t\n" * 20])
def test_blank_signing_key_counts_as_missing(database, command, value):
    settings = {"DATABASE_URL": database.url, "BIND": "127.0.0.1:0", "SECRET_KEY": value}
    expected = (2, "movies-api: SECRET_KEY is not set and has no default (see --help)\n")
    assert run(*command, **settings) == expected
    del settings["SECRET_KEY"]
    assert run(*command, f"--secret-key={value}", **settings) == expected


def test_white_space_around_a_signing_key_is_ignored(start_server):
    ann = start_server(SECRET_KEY=f" {SECRET_KEY}\r\n", SECRET_KEY_FALLBACKS=f"\t{OTHER_KEY} ").client().new_user()
    assert [ann.with_token(forge(ann, key)).get(MOVIES).status_code for key in (SECRET_KEY, OTHER_KEY, f" {SECRET_KEY}\r\n")] == [200, 200, 401]


@pytest.mark.parametrize(
    "flags, missing",
    [
        (["--secret-key="], "SECRET_KEY is not set and has"),
        (["--secret-key", ""], "SECRET_KEY is not set and has"),
        (["--secret-key=", "--database-url="], "DATABASE_URL and SECRET_KEY are not set and have"),
        (["--bcrypt-cost=", "--secret-key="], "SECRET_KEY is not set and has"),
    ],
)
def test_empty_flag_counts_as_unset(database, flags, missing):
    settings = {} if "--database-url=" in flags else {"DATABASE_URL": database.url}
    code, output = run("check", *flags, **settings)
    assert (code, output) == (2, f"movies-api: {missing} no default (see --help)\n")


def test_empty_flag_does_not_override_the_variable(database):
    flags = [f"--{name}=" for name in ("secret-key", "secret-key-fallbacks", "database-url", "workers", "log-format", "trusted-proxies")]
    code, output = run("check", *flags, DATABASE_URL=database.url, SECRET_KEY=SECRET_KEY, SECRET_KEY_FALLBACKS=OTHER_KEY)
    assert (code, "settings    good" in output) == (0, True), output
    code, output = run("check", *flags, DATABASE_URL=database.url, SECRET_KEY=SECRET_KEY, WORKERS="1")
    assert (code, output) == (2, "movies-api: WORKERS=1 is not allowed: must be a whole number from 2 to 1024\n")


# tests/connection_strings.rs has more of them, with their exact error messages.
MISSPELT = {
    '"postgres://u:hunter2@host/db?sslmode=require"': "quotation mark",
    "'host=host password=hunter2'": "quotation mark",
    "hunter2": "has no =value",
    "Postgres://u:hunter2@host/db": "postgresql://",
    "postgresql+psycopg://u:hunter2@host/db?sslmode=require": "is unknown (known: host",
    "postgres://u:a@hunter2@host/db": "write %40 for @",
    "postgres://u:a@hunter2/b@host/db": "write %40 for @",
    "postgres://u:12/hunter2@host/db": "write %40 for @",
    "postgres://u:hunter2%zz@host/db": "write %25 for %",
    "postgres://u:hunter2": "port must be a number",
    "postgres://u@host:hunter2/db": "port must be a number",
    "postgres://u%3Ahunter2@host/db": "user must be a name",
    "postgres://u:a@b#hunter2": "host must be a name",
    "postgres://u@host/db&password=hunter2": "dbname must be the name",
    "postgres://u@host/db?hunter2=1": "is unknown (known: host",
    "postgres://u@host/db?sslmode=hunter2": "sslmode must be",
    "host=host password=my hunter2 dbname=db": "is unknown (known: host",
    "host=host password='hunter2": "quote is not closed",
    "host=host port=hunter2": "port must be a number",
    "host=host user=u:hunter2": "user must be a name",
    "host=host dbname=postgres://u:hunter2@host/db": "dbname must be the name",
    "host=host options='-c a=b password=hunter2'": "options must be",
    "host=host password=hunter2 passfile=/nowhere sslrootcert=/nowhere/at/all": "sslrootcert /nowhere/at/all",
    "host=host user=hunter2:x passfile=/nowhere": "user must be a name",
}


@pytest.mark.parametrize("text", MISSPELT)
def test_invalid_connection_string_is_refused_without_printing_it(text):
    key = {"SECRET_KEY": SECRET_KEY, "LOG_LEVEL": "trace"}
    for arguments, environment, name in [
        ([], {**key, "DATABASE_URL": text}, "DATABASE_URL"),
        (["check"], {**key, "DATABASE_URL": text}, "DATABASE_URL"),
        (["migrate", "--database-url", text], {}, "DATABASE_URL"),
        (["import-django", text], {"DATABASE_URL": "host=/nowhere"}, "DJANGO_DATABASE_URL"),
        (["import-django", "host=/nowhere"], {"DATABASE_URL": text}, "DATABASE_URL"),
    ]:
        code, output = run(*arguments, **environment)
        assert (code, output.count("\n"), PASSWORD in output) == (2, 1, False), output
        assert output.startswith(f"movies-api: {name}=(hidden) is not allowed: must be postgresql://user:password@host:port/database")
        assert MISSPELT[text] in output, output


@pytest.mark.parametrize("arguments", [["postgres://u:hunter2@host/db"], ["serve", "host=/nowhere", "password=hunter2"], ["--secret-key", OTHER_KEY, "hunter2"],
                                       ["migrate", "--json=hunter2"], ["import-django", "host=/nowhere", "password=hunter2"], ["-phunter2"]])
def test_unexpected_argument_is_not_printed(arguments):
    code, output = run(*arguments, DATABASE_URL="host=/nowhere", SECRET_KEY=SECRET_KEY)
    assert (code, output.count("\n"), PASSWORD in output, "--help" in output) == (2, 1, False, True), output


def test_unreachable_database_error_hides_password():
    with socket.socket() as closed, ThreadPoolExecutor(5) as threads:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        parameters = dict(pair.split("=", 1) for pair in MAINTENANCE_DATABASE.split())
        strings = {
            f"postgresql://u:hunter2@127.0.0.1:{port}/db": f"127.0.0.1:{port}",
            f"host=127.0.0.1 port={port} user=u password=hunter2": f"127.0.0.1:{port}",
            "postgresql://u:hunter2@no-such-host.invalid/db": "no-such-host.invalid:5432",
            "host=/nowhere user=u password='hunter2'": "/nowhere",
            f"host={parameters['host']} user={parameters['user']} dbname=nobody_made_this password=hunter2": 'database "nobody_made_this" does not exist',
        }
        runs = threads.map(lambda text: run(DATABASE_URL=text, SECRET_KEY=SECRET_KEY, LOG_LEVEL="trace", BIND="127.0.0.1:0"), strings)
        for (code, output), expected in zip(runs, strings.values(), strict=True):
            assert (code, PASSWORD in output, expected in output) == (1, False, True), output


@pytest.mark.parametrize("url_template", ["postgresql://{user}:hunter2@{folder}/{name}", "host={host} user={user} dbname={name} password=hunter2"])
def test_outage_log_hides_password(launch_server, database_link, database, url_template):
    from psycopg.conninfo import conninfo_to_dict

    parameters = conninfo_to_dict(database_link.url)
    url = url_template.format(folder=parameters["host"].replace("/", "%2F"), name=database.name, **parameters)
    server = launch_server(DATABASE_URL=url, LOG_LEVEL="trace").wait_until_listening()
    ann = server.client().new_user()
    database_link.cut()
    # The pool may have opened connections meanwhile.
    wait_until(lambda: database.terminate_connections() or ann.get(MOVIES).status_code == 503)
    database_link.restore()
    assert server.stop() == 0
    log = "\n".join(server.log)
    assert (PASSWORD in log, "unavailable" in log) == (False, True), log


@pytest.mark.parametrize("command", [[], ["check"], ["users", "create", "ann", "--email", "ann@example.com"]])
def test_excessive_bcrypt_cost_is_refused_by_every_command_that_hashes(database, command):
    code, output = run(*command, DATABASE_URL=database.url, SECRET_KEY=SECRET_KEY, BCRYPT_COST="31", BIND="127.0.0.1:0", LOG_LEVEL="error")
    assert (code, output.count("\n")) == (2, 1), output
    assert output.startswith("movies-api: BCRYPT_COST=31 is not allowed: one hash would take about")
    assert "the largest cost that fits is" in output


def test_commands_that_do_not_hash_accept_any_bcrypt_cost(database):
    assert run("migrate", DATABASE_URL=database.url, BCRYPT_COST="31")[0] == 0
    code, output = run("token", "ann", DATABASE_URL=database.url, SECRET_KEY=SECRET_KEY, BCRYPT_COST="31")
    assert (code, output) == (1, 'movies-api: no user has the name "ann"\n')
