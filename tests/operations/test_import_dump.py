"""The import of a dump that `manage.py dumpdata` wrote, from any database and any Django from 3 to 5."""
import gzip
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest

from helpers.client import MOVIES, PASSWORD, TOKEN, Client
from helpers.recorded_contract import run_recorded_cases
from helpers.settings import BINARY, SECRET_KEY

pytestmark = pytest.mark.own_servers

FOLDER = Path(__file__).parent
JOINED = "2019-03-04T05:06:07.891Z"


def make_dump(*flags, **environment):
    """The dump by the Django that the tests have, which is 5.2."""
    command = [sys.executable, FOLDER / "make_django_dump.py", *flags]
    created = subprocess.run(command, env={**os.environ, "PASSWORD_OF_USERS": PASSWORD, **environment}, capture_output=True, timeout=120)
    assert created.returncode == 0, created.stderr
    return created.stdout


@pytest.fixture(scope="module", params=["3.2", "5.2"])
def dump(request):
    return gzip.decompress((FOLDER / "django-3.2.json.gz").read_bytes()) if request.param == "3.2" else make_dump()


@pytest.fixture
def database(database):
    """The test's own database after `migrate`: an import expects the schema."""
    subprocess.run([BINARY, "migrate"], env={"DATABASE_URL": database.url}, check=True, timeout=60, capture_output=True)
    return database


@pytest.fixture
def run_import(database):
    """Imports a dump, bytes or a list of records, from standard input or another source."""

    def run(dump, *arguments, source="-"):
        text = dump if isinstance(dump, bytes) else json.dumps(dump).encode()
        return subprocess.run(
            [BINARY, "import-django", source, *arguments], env={"DATABASE_URL": database.url},
            input=text, capture_output=True, timeout=60, cwd="/",
        )

    return run


def user(pk, **changes):
    fields = {"username": f"user{pk}", "email": f"user{pk}@example.com", "password": "!", "first_name": "", "last_name": "",
              "is_active": True, "date_joined": JOINED, "last_login": None, "groups": []}
    return {"model": "auth.user", "pk": pk, "fields": {**fields, **changes}}


def movie(pk, **changes):
    return {"model": "movies.movie", "pk": pk, "fields": {"title": "t", "genre": "g", "year": 1, "creator": 1, **changes}}


def lines(output):
    return output.decode().splitlines()


def count(database):
    return database.run("select (select count(*) from users), (select count(*) from movies)")[0]


def sign_in(api, username, password=PASSWORD):
    return api.post(TOKEN, {"username": username, "password": password})


def make_token(user_id):
    now = int(time.time())
    claims = {"token_type": "access", "exp": now + 600, "iat": now, "jti": "0" * 32, "user_id": str(user_id)}
    return jwt.encode(claims, SECRET_KEY, algorithm="HS256")


def test_every_record_of_a_dump_is_imported_unchanged(dump, run_import, database, tmp_path):
    path = tmp_path / "dump.json"
    path.write_bytes(dump)
    completed = run_import(b"", source=str(path))
    assert completed.returncode == 0, completed.stderr
    assert lines(completed.stdout) == [
        "1000 users and 9990 movies imported",
        "2 users have no e-mail address, as before",
        "1 users cannot sign in until `users set-password` (argon2)",
        "1 users cannot sign in until `users set-password` (no password)",
        "1 users cannot sign in until `users set-password` (pbkdf2_sha256)",
        "not imported: auth_user.groups, auth_user.is_staff, auth_user.is_superuser, auth_user.last_login, auth_user.user_permissions",
    ]
    assert lines(completed.stderr) == [f"dump: {len(dump)} bytes read", "users: 1000 copied", "movies: 9990 copied"]
    records = json.loads(dump)
    names = ["username", "password", "email", "first_name", "last_name", "is_active", "date_joined"]
    expected = [(record["pk"], *map(record["fields"].get, names)) for record in records if record["model"] == "auth.user"]
    assert len(expected) == 1000
    assert database.run("""
        select id, username, password_hash, email, first_name, last_name, is_active,
               to_char(date_joined at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
        from users order by id""") == expected
    names = ["title", "genre", "year", "creator"]
    expected = [(record["pk"], *map(record["fields"].get, names)) for record in records if record["model"] == "movies.movie"]
    assert database.run("select id, title, genre, year, creator_id from movies order by id") == expected
    counts = "select creator_id, count(*) from movies group by creator_id order by creator_id"
    assert database.run("select id, movie_count from users where movie_count > 0 order by id") == database.run(counts)


def test_users_of_a_dump_sign_in_with_their_old_passwords_and_the_contract_holds(dump, run_import, start_server):
    assert run_import(dump).returncode == 0
    server = start_server()
    api = server.client()
    signed_in = sign_in(api, "user7")
    assert signed_in.status_code == 200
    own = api.with_token(signed_in.json()["access"]).get(MOVIES).json()
    assert (own["count"], own["results"][0]["title"]) == (10, "Film 9006")
    assert sign_in(api, "Жанна").status_code == 200
    assert sign_in(api, "user8", "wrong").status_code == 401
    for locked_out in ["user995", "user996", "user997", "user998"]:
        assert sign_in(api, locked_out).status_code == 401, locked_out
    passed, failed = run_recorded_cases(server.base, "own", clients=16)
    assert failed == ""
    assert passed > 400
    Client(server.base).close()


def test_token_of_a_user_deleted_before_the_dump_never_names_a_new_user(run_import, start_server):
    """The dump does not show that the users 2 and 3 existed. Django's ids of users have 32 bits, so new ones begin past them."""
    assert run_import([user(1), movie(5)]).returncode == 0
    api = start_server().client()
    new = [api.new_user() for _ in range(3)]
    assert [one.id for one in new] == [2**31, 2**31 + 1, 2**31 + 2]
    assert new[0].add_movie()["id"] == 5 + 1_000_000 + 1
    statuses = {user_id: api.with_token(make_token(user_id)).get(MOVIES).status_code for user_id in [1, 2, 3, 2**31 - 1, 2**31]}
    assert statuses == {1: 200, 2: 401, 3: 401, 2**31 - 1: 401, 2**31: 200}


def test_ids_past_32_bits_are_followed_by_as_wide_a_gap(run_import, database):
    assert run_import([user(2**40, username="a"), movie(2**62 - 1, creator=2**40)]).returncode == 0
    assert database.run("select nextval(pg_get_serial_sequence('users', 'id'))") == [(2**40 + 2**31 + 1,)]


@pytest.mark.parametrize("flags", [["--natural-foreign"], ["--natural-foreign", "--natural-primary", "--indent", "2"]])
def test_natural_keys_are_resolved(flags, run_import, database):
    completed = run_import(make_dump(*flags))
    assert completed.returncode == 0, completed.stderr + completed.stdout
    is_new = "--natural-primary" in flags
    message = "the dump has no ids of users, so they have new ones: tokens from before are refused"
    assert (message in lines(completed.stdout)) == is_new
    assert database.run("select username, count(*) from users join movies on creator_id = users.id where title in ('Film 6', 'Film 1006') group by username") == [("user7", 2)]
    first = 2**31 if is_new else 1
    assert database.run("select min(id), max(id) from users") == [(first, first + 999)]
    assert database.run("select nextval(pg_get_serial_sequence('users', 'id'))") == [(2**31 + 1000 if is_new else 2**31,)]


def test_users_without_ids_and_creators_by_id_are_refused(run_import, database):
    completed = run_import(make_dump("--natural-primary"))
    assert (completed.returncode, lines(completed.stdout)) == (1, [
        "the users have no pk, and movies name their creator by it: make the dump without --natural-primary, or with --natural-foreign too"
    ])
    assert count(database) == (0, 0)
    assert lines(run_import([user(1), {**user(None, username="b"), "pk": None}, movie(1, creator=["b"])]).stdout) == [
        "some users of the dump have a pk and others have none"
    ]


def test_times_without_a_zone_are_taken_for_utc_and_counted(run_import, database):
    completed = run_import(make_dump(USE_TZ="False"))
    assert "1000 times had no time zone and were taken for UTC" in lines(completed.stdout)
    assert database.run("select date_joined = '2019-03-04 06:06:07.891Z' from users where id = 1") == [(True,)]


def test_times_are_imported_where_the_models_have_them(run_import, database):
    assert run_import([movie(1, created_at="2001-02-03T04:05:06+02:00", updated_at=None), user(1)]).returncode == 0
    assert database.run("select created_at = '2001-02-03 02:05:06Z', updated_at > now() - interval '1 hour' from movies") == [(True, True)]


def test_other_models_are_passed_over_and_named(run_import):
    others = [{"model": "sessions.session", "pk": "x", "fields": {"title": 7}}] * 2 + [{"model": "blog.post", "pk": [1], "fields": {}}]
    completed = run_import([*others, user(1), movie(1)], "--json")
    assert completed.returncode == 0, completed.stderr
    result = json.loads(completed.stdout)
    assert (result["users"], result["movies"], result["models_passed_over"]) == (1, 1, {"blog.post": 1, "sessions.session": 2})
    assert result["columns_left_behind"] == ["auth_user.groups", "auth_user.last_login"]


def test_what_cannot_be_imported_is_named_with_its_pk_and_nothing_is_imported(run_import, database):
    completed = run_import([
        user(1), user(2, username="user1", email="user1@example.com"), user(3, username="x" * 151), user(4, password="x" * 256),
        user(5, first_name=7), user(6, last_name="\0"), user(7, is_active="yes"), user(8, date_joined="yesterday"),
        user(0), user("9"), user(2**62), user(2**63), user(10), user(10, username="y", email="y@example.com"),
        {"model": "auth.user", "pk": 11, "fields": {}},
        movie(1, title="x" * 101), movie(2, genre="x" * 5000), movie(3, year=2**31), movie(4, year="1999"), movie(5, creator=99),
        movie(6, creator=["nobody"]), movie(7, creator=["user1", "b"]), movie(8, creator=None), movie(-1), movie(2**63 - 1), movie(None),
    ])
    assert completed.returncode == 1
    assert sorted(lines(completed.stdout)) == sorted([
        "user 5: its first_name is not a string",
        "user 6: its last_name contains a null character",
        "user 7: its is_active is not true or false",
        "user 8: its date_joined is no date and time",
        'user "9": its id is no 64-bit integer',
        "user 9223372036854775808: its id is no 64-bit integer",
        "movie 4: its year is no 64-bit integer",
        "movie 7: its creator is no natural key of a user",
        "movie without pk: its id is no 64-bit integer",
        "user 10: its id is another user's too",
        "user 0: its id is not positive",
        "user 4611686018427387904: its id is larger than 4611686018427387903: too few would be left for new users",
        "user 2: its e-mail address user1@example.com is another user's too",
        "user 2: its username user1 is another user's too",
        "user 3: its username is longer than 150 characters",
        "user 4: its password hash is longer than 255 characters",
        "user 11: it lacks a value",
        "movie -1: its id is not positive",
        "movie 9223372036854775807: its id is larger than 4611686018427387903: too few would be left for new movies",
        "movie 1: its title is longer than 100 characters",
        "movie 2: its genre is longer than 100 characters",
        "movie 3: its year is no 32-bit integer",
        "movie 5: its creator does not exist",
        "movie 6: its creator does not exist",
        "movie 8: its creator does not exist",
        "movie 8: it lacks a value",
    ])
    assert lines(completed.stderr)[-1] == "movies-api: nothing was imported: 26 problems have to be fixed first"
    assert count(database) == (0, 0)


@pytest.mark.parametrize(
    "records, problems",
    [
        ([], ["the dump has no record of auth.user", "the dump has no record of movies.movie"]),
        ([user(1)], ["the dump has no record of movies.movie"]),
        ([user(1), {"model": "films.film", "pk": 1, "fields": {}}], ["the dump has no record of movies.movie; it has records of films.film"]),
    ],
)
def test_a_dump_without_one_of_the_models_is_refused(records, problems, run_import, database):
    completed = run_import(records)
    assert (completed.returncode, lines(completed.stdout), count(database)) == (1, problems, (0, 0))


@pytest.mark.parametrize(
    "text, reason",
    [
        (b"", "it is empty"),
        (b"[", "it ends too early: EOF while parsing a list at line 1 column 1"),
        (json.dumps([user(1), movie(1)], indent=1).encode()[:-10], "it ends too early: EOF while parsing a value at line 24 column 14"),
        (b'[\n{"model": "auth.user", "pk" 1}]', "expected `:` at line 2 column 29"),
        (b'[\n{"model": 5}]', "invalid type: integer, expected a string at line 2 column 12"),
        (b'[{"model": "auth.user", "pk": 1, "fields": []}]', "invalid type: sequence, expected the fields of a record at line 1 column 44"),
        (b'[{"model": "auth.user", "pk": 1, "fields": "open, expected sesame"}]', "invalid type: string, expected the fields of a record at line 1 column 66"),
        (b'{"model": "auth.user"}\n', "invalid type: map, expected the array of records that dumpdata writes at line 1 column 1"),
        (b'[\n{"model": "auth.user", "pk": 1, "fields": {"username": "' + b"x" * (17 << 20), "a record is longer than 16 MiB at line 2 column 16777215"),
        ("[]".encode("utf-16"), "it is UTF-16, not UTF-8: write it with `dumpdata --output FILE`"),
        (gzip.compress(b"[]"), "it is compressed: pass its decompressed text to `movies-api import-django -`"),
        (b'[{"model": "auth.user", "pk": 1, "fields": {"username": "\xe4"}}]', "invalid unicode code point at line 1 column 58"),
    ],
)
def test_what_is_no_dump_is_one_error_with_its_position(text, reason, run_import, database):
    completed = run_import(text)
    assert (completed.returncode, lines(completed.stdout)) == (1, [])
    assert lines(completed.stderr) == [f"movies-api: nothing was imported: the dump cannot be read: {reason}"]
    assert count(database) == (0, 0)


def test_a_dump_that_breaks_off_after_thousands_of_records_leaves_nothing_behind(run_import, database):
    dump = make_dump()
    completed = run_import(dump[: len(dump) - 100])
    assert (completed.returncode, b"EOF while parsing" in completed.stderr, count(database)) == (1, True, (0, 0))
    assert run_import(b"\xef\xbb\xbf" + dump).returncode == 0


def test_a_second_import_is_refused(run_import, database):
    assert run_import([user(1), movie(1)]).returncode == 0
    completed = run_import(b"this is not read")
    assert lines(completed.stdout) == ["there are 1 users and 1 movies already: an import goes into an empty database, once"]
    assert (completed.returncode, count(database)) == (1, (1, 1))


def test_the_memory_of_an_import_does_not_grow_with_the_dump(run_import, database, tmp_path):
    """300 MB of records of another model, one of which alone has 100 MB, and 30,000 movies."""
    path = tmp_path / "dump.json"
    with path.open("w") as dump:
        dump.write("[" + json.dumps(user(1)))
        for size in [100_000_000, *[1_000_000] * 200]:
            dump.write(',{"model": "blog.post", "pk": 1, "fields": {"title": "' + "x" * size + '"}}')
        for pk in range(1, 30_001):
            dump.write("," + json.dumps(movie(pk)))
        dump.write("]")
    script = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    completed = subprocess.run([sys.executable, "-c", script, BINARY, "import-django", path], env={"DATABASE_URL": database.url}, capture_output=True, text=True, timeout=300)
    assert completed.returncode == 0, completed.stderr
    assert "other models passed over: blog.post (201)" in completed.stdout
    assert int(completed.stdout.splitlines()[-1]) < 60_000, "KiB"
    assert count(database) == (1, 30_000)


def test_a_source_that_is_no_file_is_refused_without_being_repeated(run_import):
    for source in ["/nowhere/hunter2.json", "hunter2.json"]:
        completed = run_import(b"", source=source)
        assert (completed.returncode, len(lines(completed.stderr)), b"hunter2" in completed.stderr) == (2, 1, False)
        assert b"SOURCE=(hidden) is not allowed: must be postgresql://" in completed.stderr
        assert completed.stderr.endswith(b", an existing file (no file has this name), or - for standard input\n")


BCRYPT = "bcrypt_sha256$$2b$%s$" + "." * 53


def test_users_who_cannot_sign_in_are_counted_without_a_part_of_the_stored_password(run_import, database, start_server):
    """The report and the sign-in agree: a stored password that is not reported could match a password."""
    locked_out = {
        "unknown": ["hunter2-plain", "hunter2$plain", "21232f297a57a5a743894a0e4a801fc3", "\x1b[31mhunter2$x", ""],
        "no password": ["!", "!hunter2"],
        "bcrypt_sha256": [BCRYPT % "20", BCRYPT % "03", "bcrypt_sha256$x", "bcrypt_sha256$$2b$10$hunter2"],
        "pbkdf2_sha256": ["pbkdf2_sha256$0$s$h", "pbkdf2_sha256$600000$s", "pbkdf2_sha256$1000$s$aHVudGVyMg=="],
        "md5": ["md5$hunter2$21232f297a57a5a743894a0e4a801fc3"],
    }
    passwords = [BCRYPT % "16", "pbkdf2_sha256$1000$saltsalt$ZbYrW2qEUunsgVZjnP7LeJwU2YmZnoQGdmHoUPQzodM=", *sum(locked_out.values(), [])]
    dump = [movie(1), *(user(pk, password=password) for pk, password in enumerate(passwords, 1))]
    for arguments in [(), ("--json",)]:
        database.run("truncate users cascade")
        completed = run_import(dump, *arguments)
        assert completed.returncode == 0, completed.stderr
        text = completed.stdout.decode() + completed.stderr.decode()
        assert not re.search("hunter2|aHVudGVy|21232f", text), text
    assert json.loads(completed.stdout)["users_locked_out"] == {kind: len(stored) for kind, stored in locked_out.items()}
    api = start_server().client()
    assert sign_in(api, "user2", "naïve password").status_code == 200
    for pk in range(3, len(passwords) + 1):
        assert sign_in(api, f"user{pk}").status_code == 401, passwords[pk - 1]


def test_cost_that_sign_ins_allow_is_no_reason_to_report_a_user(run_import):
    completed = run_import([user(1, password=BCRYPT % "17"), movie(1)], "--bcrypt-cost=17")
    assert lines(completed.stdout)[:2] == ["1 users and 1 movies imported", "not imported: auth_user.groups, auth_user.last_login"]


def test_control_characters_of_a_dump_are_escaped(run_import):
    others = [{"model": "blog.\x1b[31mpost", "pk": 1, "fields": {}}]
    assert "other models passed over: blog.\\u{1b}[31mpost (1)" in lines(run_import([*others, user(1), movie(1)]).stdout)


def test_the_tables_of_django_in_the_same_database_are_neither_read_nor_changed(run_import, database):
    database.run("create table auth_user (id integer); create table movies_movie (id integer); insert into auth_user values (7)")
    assert run_import([user(1), movie(1)]).returncode == 0
    assert (count(database), database.run("select id from auth_user")) == ((1, 1), [(7,)])
