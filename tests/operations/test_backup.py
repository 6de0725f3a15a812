"""run.sh backup and restore: a backup is restored completely, and failures change nothing. Data loaded by PostgreSQL's own programs, and
`movies-api recount`, which corrects the stored counts afterwards."""
import json
import os
import stat
import subprocess
import threading

import pytest

from helpers.client import MOVIES, PASSWORD, TOKEN, Client, movie_fields
from helpers.cluster import find_postgresql_programs
from helpers.database import Database
from helpers.installation import Installation
from helpers.settings import BINARY

pytestmark = pytest.mark.own_servers


@pytest.fixture
def other_installation(tmp_path):
    created = Installation(tmp_path, "elsewhere")
    yield created
    created.clean_up()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "movies' backup"


def sign_in(base, username):
    """Signs in a user whom the tests registered; returns a client with the token."""
    client = Client(base)
    response = client.post(TOKEN, {"username": username, "password": PASSWORD})
    assert response.status_code == 200, response.text
    return client.with_token(response.json()["access"])


def movies_of(client):
    """Returns the user's movies, and the count in the response."""
    page = client.get(f"{MOVIES}?page_size=100").json()
    return page["results"], page["count"]


def has_user(base, username):
    client = Client(base)
    response = client.post(TOKEN, {"username": username, "password": PASSWORD})
    client.close()
    return response.status_code == 200


def has_movies(base, user, movies):
    return movies_of(sign_in(base, user.username)) == (movies, len(movies))


def test_backup_of_running_service_is_restored_into_an_empty_data_dir(installation, other_installation, file):
    _, client = installation.serve()
    ann, bob = client.new_user(), client.new_user()
    for _ in range(12):
        ann.add_movie(title="Éclair ☂", genre="Drama'; --", year=-5)
    bob.add_movie()
    ann.delete(f"{MOVIES}3/")
    movies_in_backup = movies_of(ann)[0]
    assert installation.run("backup", file) == (0, f"run.sh: wrote {file}\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    movie_after_backup = ann.add_movie()

    assert other_installation.run("restore", file) == (0, "run.sh: restored 2 users, 12 movies\n")
    assert not other_installation.is_database_running()
    run, restored = other_installation.serve()
    assert has_movies(restored.base, ann, movies_in_backup) and len(movies_in_backup) == 11
    restored_ann = sign_in(restored.base, ann.username)
    assert restored_ann.add_to(MOVIES, movie_fields())["id"] == movie_after_backup["id"]
    assert restored.new_user().id == bob.id + 1
    restored_ann.delete(f"{MOVIES}{movie_after_backup['id']}/")
    assert movies_of(restored_ann) == (movies_in_backup, 11)
    run.terminate()
    assert run.wait(10) == 0
    _, shared = other_installation.serve(MOVIES_VISIBILITY="shared")
    assert movies_of(sign_in(shared.base, bob.username))[1] == 12


def test_backup_of_stopped_service_stops_the_database_again(installation, other_installation, file):
    run, client = installation.serve()
    ann = client.new_user()
    movies = [ann.add_movie()]
    run.terminate()
    assert run.wait(10) == 0
    assert installation.run("backup", file)[0] == 0
    assert not installation.is_database_running()
    assert other_installation.run("restore", file)[0] == 0
    assert has_movies(other_installation.serve()[1].base, ann, movies)


def test_failed_backup_leaves_the_older_file_unchanged(installation, file):
    file.write_text("an older one")
    status, output = installation.run("backup", file)
    assert status == 1 and output.startswith("run.sh: there is no database in ")
    status, output = installation.run("backup", file, DATABASE_URL="host=127.0.0.1 port=1 connect_timeout=1")
    assert status == 1 and output.endswith("run.sh: no backup was made\n")
    assert file.read_text() == "an older one"
    assert [entry.name for entry in file.parent.iterdir() if entry.name.startswith(file.name)] == [file.name]


def test_restore_over_existing_users_needs_replace(installation, file):
    run, client = installation.serve()
    ann = client.new_user()
    movies = [ann.add_movie(), ann.add_movie()][::-1]
    assert installation.run("backup", file)[0] == 0
    bob = client.new_user()
    status, output = installation.run("restore", "--replace", file)
    assert status == 1 and "another run.sh is using" in output
    run.terminate()
    assert run.wait(10) == 0
    status, output = installation.run("restore", file)
    assert status == 1 and output.startswith("run.sh: the database has 2 users: './run.sh restore --replace FILE'")
    run, client = installation.serve()
    assert has_user(client.base, bob.username)
    run.terminate()
    assert run.wait(10) == 0
    assert installation.run("restore", "--replace", file) == (0, "run.sh: restored 1 users, 2 movies\n")
    _, client = installation.serve()
    assert has_movies(client.base, ann, movies) and not has_user(client.base, bob.username)


@pytest.mark.parametrize("kept_bytes", [0, 1000, 0.5, -1], ids=["nothing", "its head", "half", "all but a byte"])
def test_incomplete_backup_is_refused_and_nothing_is_changed(database, start_server, installation, file, kept_bytes):
    server = start_server()
    ann = Client(server.base).new_user()
    movies = [ann.add_movie() for _ in range(40)][::-1]
    server.stop()
    assert installation.run("backup", file, DATABASE_URL=database.url)[0] == 0
    complete_backup = file.read_bytes()
    file.write_bytes(complete_backup[: int(len(complete_backup) * kept_bytes) if isinstance(kept_bytes, float) else kept_bytes])
    status, output = installation.run("restore", file)
    assert status == 1 and output.endswith(f"run.sh: {file} is not a complete backup of this service: nothing was changed\n")
    assert not installation.folder.exists()
    assert installation.run("restore", "--replace", file, DATABASE_URL=database.url)[0] == 1
    assert has_movies(start_server().base, ann, movies)


def test_restore_into_database_url_needs_no_other_sessions(database, start_server, installation, file):
    server = start_server()
    ann = Client(server.base).new_user()
    movies = [ann.add_movie()]
    assert installation.run("backup", file, DATABASE_URL=database.url)[0] == 0
    status, output = installation.run("restore", "--replace", file, DATABASE_URL=database.url)
    assert status == 1 and output.startswith("run.sh: the database is in use (")
    server.stop()
    assert installation.run("restore", "--replace", file, DATABASE_URL=database.url)[0] == 0
    assert has_movies(start_server().base, ann, movies)


@pytest.fixture
def backup_of_two_users(target, installation, file):
    migrate(target)
    fill(target)
    assert installation.run("backup", file, DATABASE_URL=target.url)[0] == 0
    return file


@pytest.mark.parametrize("arguments", [[], ["--replace"]])
def test_restore_keeps_tables_of_other_applications(database, installation, backup_of_two_users, arguments):
    migrate(database)
    if arguments:
        fill(database)
    database.run("create table auth_user as select n from generate_series(1, 500) as n")
    database.run("create function double(n int) returns int language sql as 'select 2 * n'")
    database.run("create view even as select double(n) as n from auth_user")
    restored = f"run.sh: restored 2 users, {SHORT_LIST + LONG_LIST} movies\n"
    assert installation.run("restore", *arguments, backup_of_two_users, DATABASE_URL=database.url) == (0, restored)
    assert database.run("select count(*), max(n) from even") == [(500, 1000)]
    assert check_counts(database)["are_right"] and run_command(database, "migrate") == (0, "nothing to apply\n")


@pytest.mark.parametrize(
    "change, message",
    [
        ("create schema apart; create table apart.newer (id bigint references users (id))", "newer_id_fkey"),
        ("create view old as select * from movies where year < 1950", "view old depends on table movies"),
        ("insert into refinery_schema_history (version, name, applied_on, checksum) values (99, 'newer', '', '1')", "newer version"),
    ],
    ids=["reference", "view", "newer schema"],
)
def test_restore_into_a_database_with_objects_that_depend_on_its_tables_changes_nothing(database, installation, backup_of_two_users, change, message):
    migrate(database)
    database.run(change)
    for arguments in ([], ["--replace"]):
        status, output = installation.run("restore", *arguments, backup_of_two_users, DATABASE_URL=database.url)
        assert status == 1 and message in output, output
    assert database.run("select count(*) from users") == [(0,)]


def test_restore_does_not_touch_tables_named_users_of_another_application(database, installation, backup_of_two_users):
    database.run("create table users (name text)")
    status, output = installation.run("restore", "--replace", backup_of_two_users, DATABASE_URL=database.url)
    assert status == 1 and 'relation "users" already exists' in output and output.endswith("run.sh: nothing was changed\n")
    assert database.run("select to_regclass('movies'), count(*) from users") == [(None, 0)]


def test_backup_replaces_only_a_regular_file(database, installation, file):
    migrate(database)
    os.mkfifo(file.parent / "fifo")
    (file.parent / "link").symlink_to(file)
    (file.parent / "dangling").symlink_to(file.parent / "none")
    for name in ("fifo", "link", "dangling"):
        status, output = installation.run("backup", file.parent / name, DATABASE_URL=database.url)
        assert status == 1 and "exists and is not a regular file" in output and output.count("\n") == 1
    assert (file.parent / "fifo").is_fifo() and (file.parent / "link").is_symlink() and (file.parent / "dangling").is_symlink()
    status, output = installation.run("backup", "", DATABASE_URL=database.url)
    assert (status, output.splitlines()[-1]) == (2, "run.sh: backup needs the name of one file")


def test_restore_says_that_it_needs_a_regular_file(installation, file):
    assert installation.run("restore", file) == (1, f"run.sh: there is no file {file}\n")
    os.mkfifo(file)
    status, output = installation.run("restore", file)
    assert status == 1 and output.startswith(f"run.sh: {file} is not a regular file: a restore reads the backup twice")


def test_failed_restore_changes_nothing(database, start_server, installation, file):
    server = start_server()
    ann = Client(server.base).new_user()
    movies = [ann.add_movie()]
    assert installation.run("backup", file, DATABASE_URL=database.url)[0] == 0
    server.stop()
    # A restore creates triggers after copying the rows; this event trigger makes that fail.
    database.run("create schema apart")
    database.run("create function apart.refuse() returns event_trigger language plpgsql as 'begin raise ''no''; end'")
    database.run("create event trigger refuses on ddl_command_end when tag in ('CREATE TRIGGER') execute function apart.refuse()")
    status, output = installation.run("restore", "--replace", file, DATABASE_URL=database.url)
    assert status == 1 and output.endswith("run.sh: nothing was changed\n")
    database.run("drop event trigger refuses")
    assert has_movies(start_server().base, ann, movies)


@pytest.mark.parametrize("arguments", [["backup"], ["backup", "a", "b"], ["restore"], ["restore", "--replace"]])
def test_backup_and_restore_without_one_file_print_usage(installation, arguments):
    status, output = installation.run(*arguments)
    assert status == 2 and output.startswith("usage: ./run.sh")


# Numbers of movies: a short list, and a list that is long enough to be counted in ranges.
SHORT_LIST, LONG_LIST = 3, 4500


@pytest.fixture
def target():
    """A second, empty database."""
    created = Database()
    yield created
    created.drop()


def run_command(database, *arguments):
    """Runs a command of the program on this database; returns its exit code and output."""
    completed = subprocess.run(
        [BINARY, *arguments], env={"DATABASE_URL": database.url}, capture_output=True, text=True, timeout=60, cwd="/"
    )
    return completed.returncode, completed.stdout + completed.stderr


def migrate(*databases):
    for database in databases:
        assert run_command(database, "migrate")[0] == 0


def fill(database):
    """Adds movies of two users. Deletes some of the long list, so that its ranges differ from those of a list inserted at once."""
    database.run("insert into users (username, email, password_hash) values ('ann', 'ann@example.com', '!'), ('bob', '', '!')")
    database.run(f"insert into movies (title, genre, year, creator_id) select 't', 'g', n, 1 from generate_series(1, {SHORT_LIST}) as n")
    database.run(f"insert into movies (title, genre, year, creator_id) select 't', 'g', n, 2 from generate_series(1, {LONG_LIST + 1500}) as n")
    database.run(f"delete from movies where creator_id = 2 and mod(id, 4) = 0 and id <= {4 * 1500 + SHORT_LIST}")


def transfer(source, target, dump, load):
    """Dumps one database with `dump` and loads it into the other with `load`; returns the error output, or the exit code if there is none."""
    programs = find_postgresql_programs()
    dump_result = subprocess.run([programs / dump[0], *dump[1:], f"--dbname={source.url}"], capture_output=True, timeout=60, check=True)
    load_result = subprocess.run([programs / load[0], *load[1:], f"--dbname={target.url}"], input=dump_result.stdout, capture_output=True, timeout=60)
    return load_result.stderr.decode() or load_result.returncode


PSQL = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "--single-transaction", "--output=/dev/null"]
CORRECT = {"wrong_users": 0, "wrong_lists": 0, "sequences_behind": 0, "are_right": True, "is_corrected": False}


def check_counts(database):
    """Returns the JSON of `recount --check`, after checking that the exit code agrees with it."""
    status, message = run_command(database, "recount", "--check", "--json")
    report = json.loads(message.splitlines()[0])
    assert (status == 0) == report["are_right"]
    return report


@pytest.mark.parametrize(
    "dump, load",
    [
        (["pg_dump", "--data-only"], PSQL),
        (["pg_dump", "--data-only", "--rows-per-insert=100"], PSQL),
        (["pg_dump", "--data-only", "--table=users", "--table=movies"], PSQL),
        (["pg_dump", "--data-only", "--format=custom"], ["pg_restore", "--data-only", "--exit-on-error"]),
    ],
    ids=["copy", "inserts", "two tables", "pg_restore"],
)
@pytest.mark.parametrize("schema", ["public", "apart"])
def test_data_only_dump_loads_into_another_migrated_database_with_correct_counts(database, target, dump, load, schema):
    for prepared in (database, target):
        if schema != "public":
            prepared.run(f"create schema {schema}")
            prepared.manage(f"alter database {prepared.name} set search_path = {schema}")
    migrate(database, target)
    fill(database)
    assert transfer(database, target, dump, load) == 0
    count = SHORT_LIST + database.run("select count(*) from movies where creator_id = 2")[0][0]
    assert target.run("select movie_count from users order by id") == [(SHORT_LIST,), (count - SHORT_LIST,)]
    assert target.run("select sum(movies) from movie_counts") == [(count,)]
    assert target.run("select count(*) > 1 and sum(movies) = %s from movie_count_ranges where creator_id = 2", count - SHORT_LIST) == [(True,)]
    assert check_counts(target) == {"users": 2, "movies": count, "kept_total": count, **CORRECT}
    # New rows get new ids and are counted.
    last = "select max(id) from movies"
    assert target.run("insert into movies (title, genre, year, creator_id) values ('t', 'g', 1, 1) returning id > (" + last + ")") == [(True,)]
    target.run("insert into users (username, email, password_hash, movie_count) values ('eve', '', '!', 7)")
    target.run("delete from movies where creator_id = 2 and mod(id, 2) = 0")
    assert check_counts(target)["are_right"]


def test_data_only_dump_loads_into_a_schema_created_by_pg_dump(database, target):
    migrate(database)
    fill(database)
    assert transfer(database, target, ["pg_dump", "--schema-only"], PSQL) == 0
    assert transfer(database, target, ["pg_dump", "--data-only"], PSQL) == 0
    assert check_counts(target)["are_right"]
    assert run_command(target, "migrate") == (0, "nothing to apply\n")


def test_dump_of_another_schema_version_does_not_load(database, target):
    migrate(database, target)
    target.run("update refinery_schema_history set checksum = '1' where version = 1")
    assert "refinery_schema_history" in transfer(database, target, ["pg_dump", "--data-only"], PSQL)


def test_recount_corrects_a_load_without_triggers(database, target):
    migrate(database, target)
    fill(database)
    tables = ["--table=users", "--table=movies"]
    assert transfer(database, target, ["pg_dump", "--data-only", "--disable-triggers", *tables], PSQL) == 0
    report = check_counts(target)
    assert (report["kept_total"], report["wrong_lists"]) == (0, 1)
    assert json.loads(run_command(target, "recount", "--json")[1]) == {**report, "is_corrected": True}
    assert check_counts(target)["are_right"]


def test_recount_finds_and_corrects_every_kind_of_wrong_count(database):
    migrate(database)
    fill(database)
    total = database.run("select count(*) from movies")[0][0]
    expected_report = {"users": 2, "movies": total, "kept_total": total, **CORRECT, "are_right": False}
    for change, difference, message in [
        ("update users set movie_count = movie_count + 1", {"wrong_users": 2}, "2 users with a wrong number of movies"),
        ("update movie_counts set movies = movies + 1 where slot = 3", {"kept_total": total + 1}, f"the number of all movies, which was {total + 1}"),
        ("delete from movie_counts", {"kept_total": 0}, "the number of all movies, which was 0"),
        ("update movie_count_ranges set movies = movies - 1 where first_id = 0", {"wrong_lists": 1}, "1 long lists with wrong counts of ranges"),
        ("delete from movie_count_ranges where first_id = 0", {"wrong_lists": 1}, "1 long lists with wrong counts of ranges"),
        ("delete from movie_count_ranges", {"wrong_lists": 1}, "1 long lists with wrong counts of ranges"),
        ("select setval('movies_id_seq', 1), setval('users_id_seq', 1, false)", {"sequences_behind": 2}, "2 sequences behind existing ids"),
    ]:
        database.run(change)
        assert check_counts(database) == {**expected_report, **difference}, change
        counted_line = f"2 users and {total} movies counted\n"
        status, output = run_command(database, "recount", "--check")
        assert (status, output) == (1, f"{counted_line}found: {message}\nmovies-api: counts are wrong: `recount` corrects them\n")
        assert run_command(database, "recount") == (0, f"{counted_line}corrected: {message}\n")
        assert run_command(database, "recount") == (0, f"{counted_line}all counts are correct\n")
        database.run("insert into movies (title, genre, year, creator_id) values ('t', 'g', 1, 1)")
        assert check_counts(database)["are_right"], change
        database.run("delete from movies where id = (select max(id) from movies)")


def test_recount_during_writes_leaves_counts_correct(database):
    migrate(database)
    fill(database)
    stopping = threading.Event()

    def write():
        with database.connect(database.url, autocommit=True) as connection:
            while not stopping.is_set():
                connection.execute("insert into movies (title, genre, year, creator_id) select 't', 'g', n, n from generate_series(1, 2) as n")
                connection.execute("delete from movies where id = (select min(id) from movies where creator_id = 2)")

    writers = [threading.Thread(target=write) for _ in range(3)]
    [writer.start() for writer in writers]
    for _ in range(3):
        database.run("update users set movie_count = movie_count + 1 where id = 1")
        assert json.loads(run_command(database, "recount", "--json")[1])["wrong_users"] == 1
        assert check_counts(database)["are_right"]
    stopping.set()
    [writer.join(30) for writer in writers]
    assert check_counts(database)["are_right"]


def test_recount_refuses_a_database_without_schema(database):
    status, message = run_command(database, "recount")
    assert status == 1 and message.startswith("movies-api: the schema is not this version's") and message.count("\n") == 1
    assert database.run("select to_regclass('users')") == [(None,)]


def test_copied_and_truncated_rows_are_counted(database):
    migrate(database)
    fill(database)
    with database.connect(database.url) as connection, connection.cursor().copy("copy movies (id, title, genre, year, creator_id) from stdin") as rows:
        for number in range(3000):
            rows.write_row((10_000 + number, "t", "g", 1990, 1))
    report = check_counts(database)
    assert (report["wrong_users"], report["wrong_lists"], report["sequences_behind"]) == (0, 0, 1)
    assert run_command(database, "recount")[0] == 0
    assert check_counts(database)["are_right"]
    database.run("truncate users cascade")
    assert check_counts(database) == {"users": 0, "movies": 0, "kept_total": 0, **CORRECT}


def test_every_sql_function_sets_its_search_path(database):
    migrate(database)
    functions = database.run(
        "select proname, coalesce(array_to_string(proconfig, ' '), '') from pg_proc where pronamespace = 'public'::regnamespace"
        " and not exists (select from pg_depend where objid = pg_proc.oid and deptype = 'e')"
    )
    assert len(functions) > 10
    assert [name for name, settings in functions if "search_path=public, pg_temp" not in settings] == []
