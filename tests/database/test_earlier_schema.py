"""Databases of the version before V1__initial_schema: they are migrated with all their rows, or refused unchanged."""
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.client import MOVIES
from helpers.cluster import find_postgresql_programs
from helpers.database import Database, load_earlier_schema
from helpers.server import Server
from helpers.settings import BINARY, ROOT, SECRET_KEY

pytestmark = pytest.mark.own_servers

MIGRATIONS = sorted(path.stem for path in (ROOT / "sql/migrations").glob("V*.sql"))
ALL_APPLIED = "".join(f"{name} applied\n" for name in MIGRATIONS)

# The rows and columns that have to stay. The table of ranges has another name before the migration.
ROWS = {
    "users": "select id, username, password_hash, email, first_name, last_name, is_active, date_joined, movie_count from users order by id",
    "movies": "select id, title, genre, year, creator_id, created_at, updated_at from movies order by id",
    "total": "select slot, movies from movie_counts order by slot",
    "sequences": "select sequencename, last_value from pg_sequences order by sequencename",
}
RANGES = "select creator_id, first_id, movies from {} order by creator_id, first_id"


@pytest.fixture
def earlier_database(database):
    load_earlier_schema(database)
    return database


@pytest.fixture(scope="module")
def new_schema():
    """The schema of a new database of this version, as dumped by pg_dump, and its migration history."""
    created = Database()
    try:
        assert run(created, "migrate").returncode == 0
        yield dump_schema(created), read_history(created)
    finally:
        created.drop()


def run(database, *command):
    environment = {"DATABASE_URL": database.url, "SECRET_KEY": SECRET_KEY, "BIND": "127.0.0.1:0"}
    return subprocess.run([BINARY, *command], env=environment, capture_output=True, text=True, timeout=60, cwd="/")


def dump_schema(database):
    completed = subprocess.run([find_postgresql_programs() / "pg_dump", "--schema-only", database.url], capture_output=True, text=True, timeout=60, check=True)
    # pg_dump writes a new random key each time.
    return re.sub(r"^\\(un)?restrict .*\n", "", completed.stdout, flags=re.MULTILINE)


def read_history(database):
    return database.run("select version, name, checksum from refinery_schema_history order by version")


def read_rows(database, ranges):
    return {name: database.run(query) for name, query in {**ROWS, "ranges": RANGES.format(ranges)}.items()}


def has_correct_counts(database):
    return run(database, "recount", "--check").returncode == 0


def test_migrate_makes_an_earlier_schema_equal_to_a_new_one_and_keeps_all_rows(earlier_database, new_schema):
    before = read_rows(earlier_database, "shelf_parts")
    assert (len(before["users"]), len(before["movies"]), len(before["ranges"])) == (3, 4799, 5)
    completed = run(earlier_database, "migrate")
    assert (completed.returncode, completed.stdout) == (0, ALL_APPLIED), completed.stderr
    assert (dump_schema(earlier_database), read_history(earlier_database)) == new_schema
    assert read_rows(earlier_database, "movie_count_ranges") == before
    assert has_correct_counts(earlier_database)
    assert run(earlier_database, "migrate").stdout == "nothing to apply\n"


def test_counts_continue_after_the_migration_of_an_earlier_schema(earlier_database):
    assert run(earlier_database, "migrate").returncode == 0
    earlier_database.run("insert into movies (title, genre, year, creator_id) select 't', 'g', n, 1 + n % 3 from generate_series(1, 9000) as n".replace("%", "%%"))
    earlier_database.run("delete from movies where id between 1200 and 2500")
    earlier_database.run("update movies set creator_id = 1 where id between 3000 and 3300")
    assert has_correct_counts(earlier_database)
    assert len(earlier_database.run(RANGES.format("movie_count_ranges"))) > 5


def test_serve_migrates_an_earlier_schema(earlier_database, new_schema):
    check_result = run(earlier_database, "check", "--json")
    report = json.loads(check_result.stdout)
    assert (report["is_ready"], report["problems"], report["database"]["pending"]) == (True, [], MIGRATIONS)
    assert report["notes"] == ["the schema is an earlier version's: the next start brings it up to date"]
    server = Server({"DATABASE_URL": earlier_database.url, "MOVIES_VISIBILITY": "shared"})
    try:
        ann = server.wait_until_listening().client().new_user()
        movie = ann.add_movie()
        page = ann.get(f"{MOVIES}?page_size=1").json()
        assert (page["count"], page["results"]) == (4800, [movie])
    finally:
        server.dispose()
    assert (dump_schema(earlier_database), read_history(earlier_database)) == new_schema


def test_simultaneous_migrations_of_an_earlier_schema_apply_it_once(earlier_database, new_schema):
    with ThreadPoolExecutor(4) as pool:
        completed = list(pool.map(lambda _: run(earlier_database, "migrate"), range(4)))
    assert [result.returncode for result in completed] == [0] * 4, [result.stderr for result in completed]
    assert sorted(result.stdout for result in completed) == [ALL_APPLIED, *["nothing to apply\n"] * 3]
    assert (dump_schema(earlier_database), read_history(earlier_database)) == new_schema


@pytest.mark.parametrize("command", ["check", "migrate", "serve", "recount"])
def test_earlier_schema_that_is_incomplete_is_refused_in_one_line(earlier_database, command):
    earlier_database.run("delete from refinery_schema_history where version > 6")
    before = dump_schema(earlier_database)
    completed = run(earlier_database, command)
    assert completed.returncode == 1
    if command == "recount":
        assert completed.stderr.startswith("movies-api: the schema is not this version's"), completed.stderr
    else:
        assert re.search(
            "the schema is an earlier version's, made by V1__users_and_movies, .*, V6__pages_of_searches only: "
            "run `movies-api migrate` as built from commit [0-9a-f]{7,} first, then this one's$",
            completed.stderr.splitlines()[-1],
        ), completed.stderr
    assert dump_schema(earlier_database) == before


def test_failed_migration_leaves_an_earlier_schema_unchanged(earlier_database, new_schema):
    earlier_database.run("create view found as select * from find_matching_movies(1, '%%', '%%', '%%', 0, 3000)")
    before = dump_schema(earlier_database), read_history(earlier_database), read_rows(earlier_database, "shelf_parts")
    completed = run(earlier_database, "migrate")
    assert (completed.returncode, "cannot drop" in completed.stderr, completed.stderr.count("\n")) == (1, True, 1), completed.stderr
    assert (dump_schema(earlier_database), read_history(earlier_database), read_rows(earlier_database, "shelf_parts")) == before
    earlier_database.run("drop view found")
    assert run(earlier_database, "migrate").returncode == 0
    assert (dump_schema(earlier_database), read_history(earlier_database)) == new_schema


def test_earlier_schema_outside_public_is_migrated_there(database):
    load_earlier_schema(database)
    database.run("create schema apart")
    for table in ("users", "movies", "movie_counts", "shelf_parts", "refinery_schema_history"):
        database.run(f"alter table {table} set schema apart")
    database.run(
        "do $$ declare routine regprocedure; begin for routine in select oid from pg_proc where pronamespace = 'public'::regnamespace"
        " and not exists (select from pg_depend where objid = pg_proc.oid and deptype = 'e') loop"
        " execute format('alter function %%s set search_path = apart, pg_temp', routine);"
        " execute format('alter function %%s set schema apart', routine); end loop; end $$"
    )
    database.manage(f"alter database {database.name} set search_path = apart")
    completed = run(database, "migrate")
    assert (completed.returncode, completed.stdout) == (0, ALL_APPLIED), completed.stderr
    assert has_correct_counts(database)
    settings = database.run("select distinct pronamespace::regnamespace::text, 'search_path=apart, pg_temp' = any (proconfig) from pg_proc where proname like '%%movie%%'")
    assert settings == [("apart", True)]


def test_migration_and_its_row_in_the_history_are_committed_together(database):
    database.run("create table refinery_schema_history (version int4 primary key, name varchar(255), applied_on varchar(255), checksum varchar(255))")
    database.run("create function refuse() returns trigger language plpgsql as 'begin raise ''not now''; end'")
    database.run("create trigger refuses before insert on refinery_schema_history for each row execute function refuse()")
    completed = run(database, "migrate")
    assert (completed.returncode, "migration V1__initial_schema failed: ERROR: not now" in completed.stderr) == (1, True), completed.stderr
    assert database.run("select to_regclass('users')") == [(None,)]
    database.run("drop function refuse cascade")
    assert run(database, "migrate").stdout == ALL_APPLIED
