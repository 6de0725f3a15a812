"""The import of the Django application that this service replaces, from a database that Django itself creates."""
import base64
import hashlib
import json
import os
import re
import subprocess
import sys

import pytest

from helpers.client import MOVIES, PASSWORD, TOKEN, Client, outcome
from helpers.database import Database
from helpers.metrics import read_metrics
from helpers.recorded_contract import run_recorded_cases
from helpers.settings import BINARY, ROOT

pytestmark = pytest.mark.own_servers


def make_source(database, statements, **environment):
    """Runs statements of Python in the Django application, on this database."""
    from psycopg.conninfo import conninfo_to_dict

    environment |= {"DATABASE": json.dumps(conninfo_to_dict(database.url)), "PASSWORD_OF_USERS": PASSWORD}
    command = [sys.executable, "-c", f"from helpers.django_application import *\n{statements}"]
    completed = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, cwd=ROOT / "tests")
    assert completed.returncode == 0, completed.stderr


@pytest.fixture(scope="module")
def django():
    """A database created by Django with 1,000 users and 9,990 movies."""
    source = Database()
    make_source(source, "create_thousands()")
    yield source
    source.drop()


@pytest.fixture
def database(database):
    """The test's database after `migrate`: an import needs the schema."""
    subprocess.run([BINARY, "migrate"], env={"DATABASE_URL": database.url}, check=True, timeout=60, capture_output=True)
    return database


@pytest.fixture
def source():
    """An empty database for a source that the test creates."""
    created = Database()
    yield created
    created.drop()


def run_import(source, target, *arguments):
    return subprocess.run(
        [BINARY, "import-django", source.url, *arguments], env={"DATABASE_URL": target.url},
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, cwd="/",
    )


def encode_as_django(password):
    """Returns a hash in the format of Django's default hasher, with few iterations."""
    key = hashlib.pbkdf2_hmac("sha256", password.encode(), b"saltsaltsalt", 1000)
    return f"pbkdf2_sha256$1000$saltsaltsalt${base64.b64encode(key).decode()}"


def sign_in(api, username, password=PASSWORD):
    return api.post(TOKEN, {"username": username, "password": password})


def test_all_rows_of_django_are_imported_unchanged(django, database):
    completed = run_import(django, database)
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.splitlines() == [
        "1000 users and 9990 movies imported",
        "2 users have no e-mail address, as before",
        "1 users cannot sign in until `users set-password` (argon2)",
        "1 users cannot sign in until `users set-password` (no password)",
        "1 users cannot sign in until `users set-password` (pbkdf2_sha256)",
        "not imported: auth_user.last_login, auth_user.is_superuser, auth_user.is_staff",
    ]
    assert completed.stderr.splitlines() == ["users: 1000 copied", "movies: 9990 copied"]
    columns = "id, username, {}, email, first_name, last_name, is_active, date_joined"
    django_rows = django.run(f"select {columns.format('password')} from auth_user order by id")
    assert len(django_rows) == 1000
    assert database.run(f"select {columns.format('password_hash')} from users order by id") == django_rows
    django_rows = django.run("select id, title, genre, year, creator_id from movies_movie order by id")
    assert database.run("select id, title, genre, year, creator_id from movies order by id") == django_rows
    counts = "select creator_id, count(*) from movies group by creator_id order by creator_id"
    assert database.run("select id, movie_count from users where movie_count > 0 order by id") == database.run(counts)


def test_new_ids_continue_after_the_last_id_that_django_assigned(django, database, start_server):
    assert run_import(django, database).returncode == 0
    api = start_server().client()
    new = api.new_user()
    assert (new.id, new.add_movie()["id"]) == (1002, 10001)


def test_imported_user_signs_in_with_old_password_and_gets_a_new_hash(django, database, start_server):
    assert run_import(django, database).returncode == 0
    api = start_server().client()
    stored = lambda: database.run("select password_hash from users where username = 'user7'")[0][0]
    assert sign_in(api, "user7", "wrong").status_code == 401
    assert stored().startswith("pbkdf2_sha256$1000$")
    signed_in = sign_in(api, "user7")
    assert signed_in.status_code == 200
    assert stored().startswith("bcrypt_sha256$$2b$04$")
    assert sign_in(api, "user7").status_code == 200
    assert sign_in(api, "user7", "wrong").status_code == 401
    movies = api.with_token(signed_in.json()["access"]).get(MOVIES).json()
    assert (movies["count"], movies["results"][0]["title"]) == (10, "Film 9006")
    for username in ["user995", "user996", "user997", "user998"]:
        assert sign_in(api, username).status_code == 401, username
    assert sign_in(api, "Жанна").status_code == 200


def test_first_sign_in_of_imported_user_waits_for_a_core_only_once(start_server, database):
    server = start_server()
    ann = server.client().new_user()
    encoded = encode_as_django(PASSWORD)
    database.run("update users set password_hash = %s where id = %s", encoded, ann.id)
    count_hash_waits = lambda: read_metrics(server.client())["movies_password_hash_wait_seconds_count", ""]
    before = count_hash_waits()
    assert sign_in(ann, ann.username).status_code == 200
    assert count_hash_waits() - before == 1
    assert database.run("select password_hash from users where id = %s", ann.id)[0][0].startswith("bcrypt_sha256$$2b$04$")


def test_imported_user_signs_in_even_if_the_new_hash_cannot_be_stored(start_server, database):
    server = start_server()
    ann = server.client().new_user()
    encoded = encode_as_django(PASSWORD)
    database.run("update users set password_hash = %s where id = %s", encoded, ann.id)
    with database.connect(database.url) as blocker:
        blocker.execute("select from users where id = %s for update", [ann.id])
        assert sign_in(ann, ann.username).status_code == 200
    stored = lambda: database.run("select password_hash from users where id = %s", ann.id)[0][0]
    assert stored() == encoded
    assert sign_in(ann, ann.username).status_code == 200
    assert stored().startswith("bcrypt_sha256$$2b$04$")


def test_users_without_email_are_imported_and_registration_still_needs_one(django, database, start_server):
    assert run_import(django, database).returncode == 0
    api = start_server().client()
    assert database.run("select count(*) from users where email = ''") == [(2,)]
    register = lambda **fields: outcome(api.post("/api/v1/auth/register/", {"username": "new", "password": PASSWORD, "password2": PASSWORD, **fields}))
    assert register(email="") == (400, {"email": ["This field may not be blank."]})
    assert register(email="user7@example.com") == (400, {"email": ["This field must be unique."]})


def test_second_import_is_refused_and_changes_nothing(django, database):
    assert run_import(django, database).returncode == 0
    second_import = run_import(django, database, "--json")
    assert second_import.returncode == 1
    assert json.loads(second_import.stdout)["problems"] == [
        "there are 1000 users and 9990 movies already: an import goes into an empty database, once"
    ]
    assert database.run("select count(*) from movies") == [(9990,)]


def test_rows_that_cannot_be_imported_are_listed_and_nothing_is_imported(source, database):
    statements = '''
User.objects.bulk_create([user(1), user(2, email="user1@example.com"), user(3, email="user1@example.com"), user(4)])
Movie.objects.bulk_create([Movie(title="x" * length, genre="g", year=1, creator_id=1) for length in (100, 101)])
'''
    make_source(source, statements, TITLE_LENGTH="300")
    completed = run_import(source, database)
    assert completed.returncode == 1
    assert completed.stdout.splitlines() == [
        "user 2: its e-mail address user1@example.com is another user's too",
        "user 3: its e-mail address user1@example.com is another user's too",
        "movie 2: its title is longer than 100 characters",
    ]
    assert completed.stderr == "movies-api: nothing was imported: 3 problems have to be fixed first\n"
    assert database.run("select count(*) from users") == [(0,)]
    source.run("delete from movies_movie where id = 2")
    source.run("update auth_user set email = '' where id in (2, 3)")
    assert run_import(source, database).returncode == 0


def test_times_and_ids_that_the_service_could_not_use_are_refused(source, database):
    statements = '''
User.objects.bulk_create([user(number) for number in (1, 2, 3)])
Movie.objects.bulk_create([Movie(title="t", genre="g", year=1, creator_id=1) for _ in range(3)])
'''
    make_source(source, statements)
    source.run("alter table movies_movie add created_at timestamptz, add updated_at timestamptz")
    source.run("update auth_user set date_joined = case id when 1 then 'infinity' else '0044-03-15 BC' end::timestamptz where id < 3")
    source.run("update movies_movie set created_at = 'infinity' where id = 1")
    source.run("update movies_movie set updated_at = '-infinity' where id = 2")
    source.run("select setval(pg_get_serial_sequence('auth_user', 'id'), 2147483647)")
    source.run("select setval(pg_get_serial_sequence('movies_movie', 'id'), 9223372036854775807)")
    completed = run_import(source, database)
    assert (completed.returncode, completed.stdout.splitlines()) == (1, [
        "user 1: its date_joined is not in the years 1 to 9999",
        "user 2: its date_joined is not in the years 1 to 9999",
        "sequence of movies_movie 9223372036854775807: it is larger than 4611686018427387903: too few ids would be left",
        "movie 1: its created_at is not in the years 1 to 9999",
        "movie 2: its updated_at is not in the years 1 to 9999",
    ])
    source.run("update auth_user set date_joined = '9999-12-31 23:59:59.999999Z'")
    source.run("update movies_movie set created_at = null, updated_at = null")
    source.run("select setval(pg_get_serial_sequence('movies_movie', 'id'), 3)")
    assert run_import(source, database).returncode == 0
    listed = subprocess.run([BINARY, "users", "list"], env={"DATABASE_URL": database.url}, capture_output=True, text=True, timeout=60)
    assert (listed.returncode, listed.stdout.count("9999-12-31T23:59:59Z")) == (0, 3), listed.stderr


def test_stored_passwords_of_a_database_are_not_printed(source, database):
    make_source(source, 'User.objects.bulk_create([user(number) for number in (1, 2)]); Movie(title="t", genre="g", year=1, creator_id=1).save()')
    source.run("update auth_user set password = 'hunter2-plain' where id = 1")
    for arguments in [(), ("--json",)]:
        database.run("truncate users cascade")
        completed = run_import(source, database, *arguments)
        assert completed.returncode == 0 and "hunter2" not in completed.stdout + completed.stderr
    assert json.loads(completed.stdout)["users_locked_out"] == {"unknown": 1}


def test_source_without_the_django_tables_is_refused(source, database):
    completed = run_import(source, database)
    assert (completed.returncode, completed.stdout.splitlines()) == (1, ["the source has no table auth_user", "the source has no table movies_movie"])
    source.run("create table auth_user (id integer)")
    assert "auth_user has no column username" in run_import(source, database).stdout
    assert database.run("select count(*) from users") == [(0,)]


def test_import_into_database_without_schema_says_to_migrate(source):
    target = Database()
    try:
        completed = run_import(source, target)
        assert (completed.returncode, completed.stdout) == (1, "")
        assert re.fullmatch("movies-api: the schema lacks V1__.*: run `movies-api migrate`, or start the service\n", completed.stderr)
        assert target.run("select to_regclass('users')") == [(None,)]
    finally:
        target.drop()


def test_failed_import_changes_nothing(django, database):
    database.run("alter table movies add constraint no_late_film check (id < 9000)")
    completed = run_import(django, database)
    assert (completed.returncode, completed.stderr.splitlines()[-1]) == (1, "movies-api: constraint no_late_film")
    assert database.run("select count(*) from users") == [(0,)]


def test_times_are_imported_independently_of_the_source_s_date_style(source, database):
    make_source(source, 'user(1).save(); Movie(title="t", genre="g", year=1, creator_id=1).save()')
    source.run("alter table movies_movie add created_at timestamptz default '2001-02-03 04:05:06.789+02'")
    source.manage(f"alter database {source.name} set datestyle = 'SQL, DMY'")
    source.manage(f"alter database {source.name} set timezone = 'Asia/Kolkata'")
    assert run_import(source, database).returncode == 0
    assert database.run("select created_at = '2001-02-03 02:05:06.789Z' from movies") == [(True,)]
    assert database.run("select date_joined = '2019-03-04 06:06:07.891011Z' from users") == [(True,)]


def test_password_of_the_source_is_not_printed(database):
    url = "postgresql://me:hunter2@127.0.0.1:1/django?nonsense=1"
    completed = subprocess.run([BINARY, "import-django", url], env={"DATABASE_URL": database.url}, capture_output=True, text=True, timeout=60)
    assert completed.returncode == 2
    assert "SOURCE=(hidden) is not allowed" in completed.stderr and "hunter2" not in completed.stderr


def test_recorded_cases_pass_on_an_imported_database(django, database, start_server):
    assert run_import(django, database).returncode == 0
    server = start_server()
    passed, failed = run_recorded_cases(server.base, "own", clients=16)
    assert failed == ""
    assert passed > 400
    Client(server.base).close()
