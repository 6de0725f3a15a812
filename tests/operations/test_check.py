"""`check` and the start agree on each database: what one calls a problem, the other ends with, and names its cause."""
import json
import subprocess

import pytest

from helpers.client import MOVIES, unique_word
from helpers.cluster import Cluster
from helpers.server import Server
from helpers.settings import BINARY, SECRET_KEY

pytestmark = pytest.mark.own_servers


@pytest.fixture(scope="module")
def cluster():
    made = Cluster().start()
    yield made
    made.dispose()


@pytest.fixture
def database(cluster):
    return cluster.create_database()


def run(command, url):
    environment = {"DATABASE_URL": url, "SECRET_KEY": SECRET_KEY, "BIND": "127.0.0.1:0", "BCRYPT_COST": "4"}
    return subprocess.run([BINARY, *command], env=environment, capture_output=True, text=True, timeout=60, cwd="/")


def migrate(database):
    done = run(["migrate"], database.url)
    assert done.returncode == 0, done.stderr


def refusal_of_all(url):
    """The one problem that `check` finds, once `serve` and `migrate` have ended with it too."""
    checked = run(["check", "--json"], url)
    found = json.loads(checked.stdout)
    assert (checked.returncode, found["is_ready"], len(found["problems"])) == (1, False, 1), found["problems"]
    problem = found["problems"][0]
    assert checked.stderr == f"movies-api: not ready: {problem}\n"
    for command in ("serve", "migrate"):
        done = run([command], url)
        assert (done.returncode, problem in done.stderr.splitlines()[-1]) == (1, True), done.stderr
    return problem


def check_that_it_starts(url):
    """`check` finds no problem, and the service serves; its notes and the running server's log."""
    checked = run(["check", "--json"], url)
    assert (checked.returncode, json.loads(checked.stdout)["problems"]) == (0, []), checked.stderr
    server = Server({"DATABASE_URL": url})
    try:
        ann = server.wait_until_listening().client().new_user()
        movie = ann.add_movie(title="日本 Éclair")
        assert ann.get(f"{MOVIES}?title=%C3%A9clair").json()["results"] == [movie]
        assert ann.delete(f"{MOVIES}{movie['id']}/").status_code == 204
    finally:
        server.dispose()
    return json.loads(run(["check", "--json"], url).stdout)["notes"], server.log


def make_role(cluster, database, *grants):
    """The URL of the database as a new role that was granted this and nothing else."""
    role = f"role_{unique_word()}"
    cluster.run(f"create role {role} login")
    for grant in grants:
        database.run(f"grant {grant} to {role}")
    return database.url.replace("user=movies", f"user={role}")


def test_a_role_that_is_no_superuser_migrates_its_own_database(cluster):
    role = f"role_{unique_word()}"
    cluster.run(f"create role {role} login")
    cluster.run(f"create database {role} owner {role}")
    notes, log = check_that_it_starts(f"host={cluster.folder} user={role} dbname={role}")
    assert notes == [] and not [line for line in log if "[WARN]" in line]


def test_a_role_that_may_not_create_tables_is_refused(cluster, database):
    problem = refusal_of_all(make_role(cluster, database))
    assert "may not create tables in the schema public" in problem and "grant create on schema public" in problem


def test_a_role_that_owns_no_table_is_refused_while_migrations_are_pending(cluster, database):
    migrate(database)
    database.run("delete from refinery_schema_history where version = (select max(version) from refinery_schema_history)")
    everything = ["create on schema public", "all on all tables in schema public", "all on all sequences in schema public"]
    problem = refusal_of_all(make_role(cluster, database, *everything))
    assert "does not own movie_counts, movies," in problem and "run `movies-api migrate` as the owner" in problem


def test_a_role_that_owns_no_table_serves_a_schema_that_is_complete(cluster, database):
    migrate(database)
    everything = ["all on all tables in schema public", "all on all sequences in schema public"]
    notes, log = check_that_it_starts(make_role(cluster, database, *everything))
    assert notes == [] and not [line for line in log if "[WARN]" in line or "[ERROR]" in line]


def test_a_role_without_privileges_on_the_tables_is_refused(cluster, database):
    migrate(database)
    problem = refusal_of_all(make_role(cluster, database, "select on all tables in schema public"))
    assert "lacks privileges: delete on movie_counts, delete on movies," in problem and "usage on movies_id_seq" in problem
    assert "select" not in problem


def test_a_server_s_own_refusal_is_told_with_its_sqlstate(cluster, database):
    migrate(database)
    problem = refusal_of_all(make_role(cluster, database))
    assert "permission denied for table refinery_schema_history (42501)" in problem


def test_a_migration_that_fails_is_named_with_the_server_s_message_and_sqlstate(database):
    database.run("create domain movies as integer")
    for command in ("migrate", "serve"):
        done = run([command], database.url)
        last = done.stderr.splitlines()[-1]
        assert (done.returncode, 'migration V1__users_and_movies failed: ERROR: type "movies" already exists (42710)' in last) == (1, True), last


@pytest.mark.parametrize(
    "change, told",
    [
        ("update refinery_schema_history set checksum = '1' where version = 2", "another text of V2__kept_counts"),
        ("update refinery_schema_history set version = 99, name = 'of_later' where version = 2", "V99__of_later is not known here; the schema lacks V2__kept_counts, though"),
        ("delete from refinery_schema_history where version = 2", "lacks V2__kept_counts, though a later migration was applied"),
        ("drop table refinery_schema_history", "no migration made the table movie_counts, movies, shelf_parts, users that is there"),
    ],
    ids=["checksum", "later", "skipped", "history"],
)
def test_a_schema_that_this_version_did_not_make_is_refused(database, change, told):
    migrate(database)
    database.run(change)
    if ";" in told:
        checked, served = run(["check"], database.url), run(["serve"], database.url)
        assert (checked.returncode, served.returncode, told in served.stderr) == (1, 1, True), served.stderr
        assert all(part in checked.stdout for part in told.split("; "))
    else:
        assert told in refusal_of_all(database.url)


@pytest.mark.parametrize("encoding", ["LATIN1", "KOI8R", "SQL_ASCII"])
def test_a_database_that_does_not_keep_text_as_utf_8_is_refused(cluster, encoding):
    name = f"movies_{unique_word()}"
    cluster.run(f"create database {name} template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'")
    url = cluster.url.replace("dbname=postgres", f"dbname={name}")
    problem = refusal_of_all(url)
    assert problem.startswith(f"the database keeps text as {encoding}, not UTF8")
    for command in (["users", "list"], ["token", "ann"], ["recount"]):
        done = run(command, url)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr


def test_a_database_that_is_read_only_is_refused(cluster, database):
    migrate(database)
    cluster.run(f"alter database {database.name} set default_transaction_read_only = on")
    assert refusal_of_all(database.url) == "the server takes no writes"


def test_a_search_path_without_a_schema_is_refused(cluster, database):
    cluster.run(f"alter database {database.name} set search_path = nowhere")
    assert refusal_of_all(database.url) == "no schema of the search_path is there"


def test_extensions_outside_the_search_path_serve_the_search_index_all_the_same(database):
    database.run("create schema tools")
    database.run("create extension pg_trgm schema tools")
    database.run("create extension btree_gin schema tools")
    notes, log = check_that_it_starts(database.url)
    assert notes == [] and not [line for line in log if "without an index" in line]
    assert database.run("select indexdef like '%%tools.gin_trgm_ops%%' from pg_indexes where indexname = 'movies_by_title'") == [(True,)]


def test_a_search_index_that_is_missing_is_a_note_until_the_next_start_makes_it(database):
    migrate(database)
    database.run("drop index movies_by_title")
    assert json.loads(run(["check", "--json"], database.url).stdout)["notes"] == ["searches go without an index: the next start makes it"]
    notes, _ = check_that_it_starts(database.url)
    assert notes == []
