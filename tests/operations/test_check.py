"""`movies-api check` and `serve` agree: a database that one refuses is refused by the other, with the same reason."""
import json
import subprocess

import pytest

from helpers.client import MOVIES, unique_word
from helpers.database import load_earlier_schema
from helpers.server import Server
from helpers.settings import BINARY, SECRET_KEY

pytestmark = pytest.mark.own_servers


@pytest.fixture
def database(cluster):
    return cluster.create_database()


def run(command, url):
    environment = {"DATABASE_URL": url, "SECRET_KEY": SECRET_KEY, "BIND": "127.0.0.1:0", "BCRYPT_COST": "4"}
    return subprocess.run([BINARY, *command], env=environment, capture_output=True, text=True, timeout=60, cwd="/")


def migrate(database):
    completed = run(["migrate"], database.url)
    assert completed.returncode == 0, completed.stderr


def common_problem(url):
    """Checks that `check`, `serve` and `migrate` all fail with the same single problem; returns it."""
    check_result = run(["check", "--json"], url)
    report = json.loads(check_result.stdout)
    assert (check_result.returncode, report["is_ready"], len(report["problems"])) == (1, False, 1), report["problems"]
    problem = report["problems"][0]
    assert check_result.stderr == f"movies-api: not ready: {problem}\n"
    for command in ("serve", "migrate"):
        completed = run([command], url)
        assert (completed.returncode, problem in completed.stderr.splitlines()[-1]) == (1, True), completed.stderr
    return problem


def check_that_service_starts(url):
    """Checks that `check` finds no problem and that the service works; returns the notes of `check` and the server's log."""
    check_result = run(["check", "--json"], url)
    assert (check_result.returncode, json.loads(check_result.stdout)["problems"]) == (0, []), check_result.stderr
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
    """Creates a role with only these privileges; returns the connection string of the database for it."""
    role = f"role_{unique_word()}"
    cluster.run(f"create role {role} login")
    for grant in grants:
        database.run(f"grant {grant} to {role}")
    return database.url.replace("user=movies", f"user={role}")


def test_role_without_superuser_migrates_its_own_database(cluster):
    role = f"role_{unique_word()}"
    cluster.run(f"create role {role} login")
    cluster.run(f"create database {role} owner {role}")
    notes, log = check_that_service_starts(f"host={cluster.folder} user={role} dbname={role}")
    assert notes == [] and not [line for line in log if "[WARN]" in line]


def test_role_that_may_not_create_tables_is_refused(cluster, database):
    problem = common_problem(make_role(cluster, database))
    assert "may not create tables in the schema public" in problem and "grant create on schema public" in problem


def test_role_that_owns_no_table_is_refused_while_migrations_are_pending(cluster, database):
    load_earlier_schema(database)
    privileges = ["create on schema public", "all on all tables in schema public", "all on all sequences in schema public"]
    problem = common_problem(make_role(cluster, database, *privileges))
    assert "does not own movie_counts, movies," in problem and "run `movies-api migrate` as the owner" in problem


def test_role_that_owns_no_table_serves_a_complete_schema(cluster, database):
    migrate(database)
    privileges = ["all on all tables in schema public", "all on all sequences in schema public"]
    notes, log = check_that_service_starts(make_role(cluster, database, *privileges))
    assert notes == [] and not [line for line in log if "[WARN]" in line or "[ERROR]" in line]


def test_role_without_table_privileges_is_refused(cluster, database):
    migrate(database)
    problem = common_problem(make_role(cluster, database, "select on all tables in schema public"))
    assert "lacks privileges: delete on blacklisted_tokens, delete on movie_count_ranges, delete on movie_counts, delete on movies," in problem and "usage on movies_id_seq" in problem
    assert "select" not in problem


def test_role_without_execute_on_functions_is_refused(cluster, database):
    migrate(database)
    functions = database.run("""
        select oid::regprocedure::text from pg_proc where pronamespace = 'public'::regnamespace and prorettype <> 'trigger'::regtype
        and not exists (select from pg_depend where objid = pg_proc.oid and deptype = 'e') order by proname""")
    database.run("revoke execute on all functions in schema public from public")
    url = make_role(cluster, database, "all on all tables in schema public", "all on all sequences in schema public")
    problem = common_problem(url)
    missing = ", ".join(f"execute on {function.split('(')[0]}" for function, in functions)
    assert len(functions) == 6 and f" lacks privileges: {missing} (grant them" in problem
    notes, _ = check_that_service_starts(make_role(
        cluster, database, "all on all tables in schema public", "all on all sequences in schema public",
        *(f"execute on function {function}" for function, in functions)))
    assert notes == []


@pytest.mark.parametrize("change, missing", [
    ("drop table movies cascade", "table movies"),
    ("alter table users drop column token_generation", "column users.token_generation"),
    ("drop function find_page_of_matches", "function find_page_of_matches"),
], ids=["table", "column", "function"])
def test_schema_that_lacks_what_its_migrations_created_is_refused(database, change, missing):
    migrate(database)
    database.run(change)
    assert common_problem(database.url) == f"the schema lacks what its migrations created: {missing} (restore a backup, or create it again)"
    assert "searches run without an index" not in run(["check"], database.url).stdout


def test_every_table_column_and_function_of_the_schema_is_required(database):
    migrate(database)
    created = [
        (f"column {table}.{column}", f"alter table {table} rename {{}} to {{}}", column) for table, column in database.run("""
            select table_name, column_name from information_schema.columns
            where table_schema = 'public' and table_name <> 'refinery_schema_history'""")
    ] + [
        (f"{kind} {name}", f"alter {kind} {{}} rename to {{}}", name) for kind, name in database.run("""
            select 'table', relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' and relname <> 'refinery_schema_history'
            union all
            select 'function', proname from pg_proc where pronamespace = 'public'::regnamespace and prorettype <> 'trigger'::regtype
            and not exists (select from pg_depend where objid = pg_proc.oid and deptype = 'e')""")
    ]
    assert len(created) == 24 + 5 + 6
    for name, rename, own in created:
        database.run(rename.format(own, "other"))
        assert f" created: {name} (" in run(["check"], database.url).stdout, name
        database.run(rename.format("other", own))
    assert run(["check"], database.url).returncode == 0


def test_postgresql_error_is_reported_with_its_sqlstate(cluster, database):
    migrate(database)
    problem = common_problem(make_role(cluster, database))
    assert "permission denied for table refinery_schema_history (42501)" in problem


def test_failed_migration_is_reported_with_postgresql_message_and_sqlstate(database):
    database.run("create domain movies as integer")
    for command in ("migrate", "serve"):
        completed = run([command], database.url)
        last = completed.stderr.splitlines()[-1]
        assert (completed.returncode, 'migration V1__initial_schema failed: ERROR: type "movies" already exists (42710)' in last) == (1, True), last


@pytest.mark.parametrize(
    "change, message",
    [
        ("update refinery_schema_history set checksum = '1' where version = 1", "another text of V1__initial_schema"),
        ("update refinery_schema_history set version = 99, name = 'of_later' where version = 1", "V99__of_later is not known here; the schema lacks V1__initial_schema, though"),
        ("drop table refinery_schema_history", "and no migration made them: blacklisted_tokens, movie_count_ranges, movie_counts, movies, users"),
    ],
    ids=["checksum", "later", "history"],
)
def test_schema_of_another_version_is_refused(database, change, message):
    migrate(database)
    database.run(change)
    if ";" in message:
        check_result, serve_result = run(["check"], database.url), run(["serve"], database.url)
        assert (check_result.returncode, serve_result.returncode, message in serve_result.stderr) == (1, 1, True), serve_result.stderr
        assert all(part in check_result.stdout for part in message.split("; "))
    else:
        assert message in common_problem(database.url)


@pytest.mark.parametrize("encoding", ["LATIN1", "KOI8R", "SQL_ASCII"])
def test_database_with_another_encoding_than_utf_8_is_refused(cluster, encoding):
    name = f"movies_{unique_word()}"
    cluster.run(f"create database {name} template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'")
    url = cluster.url.replace("dbname=postgres", f"dbname={name}")
    problem = common_problem(url)
    assert problem.startswith(f"the database keeps text as {encoding}, not UTF8")
    for command in (["users", "list"], ["token", "ann"], ["recount"]):
        completed = run(command, url)
        assert (completed.returncode, completed.stderr.count("\n")) == (1, 1), completed.stderr


def test_read_only_database_is_refused(cluster, database):
    migrate(database)
    cluster.run(f"alter database {database.name} set default_transaction_read_only = on")
    assert common_problem(database.url) == "the server does not accept writes"


def test_search_path_without_existing_schema_is_refused(cluster, database):
    cluster.run(f"alter database {database.name} set search_path = nowhere")
    assert common_problem(database.url) == "no schema of the search_path exists"


def test_extensions_outside_the_search_path_are_used_for_the_search_index(database):
    database.run("create schema tools")
    database.run("create extension pg_trgm schema tools")
    database.run("create extension btree_gin schema tools")
    notes, log = check_that_service_starts(database.url)
    assert notes == [] and not [line for line in log if "without an index" in line]
    assert database.run("select indexdef like '%%tools.gin_trgm_ops%%' from pg_indexes where indexname = 'movies_by_title'") == [(True,)]


def test_missing_search_index_is_noted_until_the_next_start_creates_it(database):
    migrate(database)
    database.run("drop index movies_by_title")
    assert json.loads(run(["check", "--json"], database.url).stdout)["notes"] == ["searches run without an index: the next start creates it"]
    notes, _ = check_that_service_starts(database.url)
    assert notes == []
