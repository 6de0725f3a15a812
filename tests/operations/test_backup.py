"""Backup and restore by run.sh: what a backup holds comes back whole, and what goes wrong changes nothing. Loads of data by
PostgreSQL's own programs, and `movies-api recount`, which puts the kept counts right after them."""
import json
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
    made = Installation(tmp_path, "elsewhere")
    yield made
    made.clean_up()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "movies' backup"


def sign_in(base, username):
    """Whoever registered under this name in a test's samples, signed in with that password."""
    client = Client(base)
    response = client.post(TOKEN, {"username": username, "password": PASSWORD})
    assert response.status_code == 200, response.text
    return client.with_token(response.json()["access"])


def movies_of(client):
    """All of a user's movies, and how many the service says they are."""
    page = client.get(f"{MOVIES}?page_size=100").json()
    return page["results"], page["count"]


def has_user(base, username):
    client = Client(base)
    response = client.post(TOKEN, {"username": username, "password": PASSWORD})
    client.close()
    return response.status_code == 200


def is_whole(base, user, movies):
    return movies_of(sign_in(base, user.username)) == (movies, len(movies))


def test_what_a_running_service_holds_comes_back_in_an_empty_place(installation, other_installation, file):
    _, client = installation.serve()
    ann, bob = client.new_user(), client.new_user()
    for _ in range(12):
        ann.add_movie(title="Éclair ☂", genre="Drama'; --", year=-5)
    bob.add_movie()
    ann.delete(f"{MOVIES}3/")
    kept = movies_of(ann)[0]
    assert installation.run("backup", file) == (0, f"run.sh: wrote {file}\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    later = ann.add_movie()

    assert other_installation.run("restore", file) == (0, "run.sh: brought back 2 users, 12 movies\n")
    assert not other_installation.is_database_running()
    run, restored = other_installation.serve()
    assert is_whole(restored.base, ann, kept) and len(kept) == 11
    ann_again = sign_in(restored.base, ann.username)
    assert ann_again.add_to(MOVIES, movie_fields())["id"] == later["id"]
    assert restored.new_user().id == bob.id + 1
    ann_again.delete(f"{MOVIES}{later['id']}/")
    assert movies_of(ann_again) == (kept, 11)
    run.terminate()
    assert run.wait(10) == 0
    _, shared = other_installation.serve(MOVIES_VISIBILITY="shared")
    assert movies_of(sign_in(shared.base, bob.username))[1] == 12


def test_a_stopped_service_is_backed_up_too_and_its_database_stops_again(installation, other_installation, file):
    run, client = installation.serve()
    ann = client.new_user()
    movies = [ann.add_movie()]
    run.terminate()
    assert run.wait(10) == 0
    assert installation.run("backup", file)[0] == 0
    assert not installation.is_database_running()
    assert other_installation.run("restore", file)[0] == 0
    assert is_whole(other_installation.serve()[1].base, ann, movies)


def test_a_backup_that_fails_leaves_the_older_one_as_it_was(installation, file):
    file.write_text("an older one")
    status, said = installation.run("backup", file)
    assert status == 1 and said.startswith("run.sh: there is no database in ")
    status, said = installation.run("backup", file, DATABASE_URL="host=127.0.0.1 port=1 connect_timeout=1")
    assert status == 1 and said.endswith("run.sh: no backup was made\n")
    assert file.read_text() == "an older one"
    assert [entry.name for entry in file.parent.iterdir() if entry.name.startswith(file.name)] == [file.name]


def test_users_are_given_up_for_those_of_a_backup_only_if_one_says_so(installation, file):
    run, client = installation.serve()
    ann = client.new_user()
    movies = [ann.add_movie(), ann.add_movie()][::-1]
    assert installation.run("backup", file)[0] == 0
    bob = client.new_user()
    status, said = installation.run("restore", "--replace", file)
    assert status == 1 and "another run.sh is using" in said
    run.terminate()
    assert run.wait(10) == 0
    status, said = installation.run("restore", file)
    assert status == 1 and said.startswith("run.sh: the database has 2 users: './run.sh restore --replace FILE'")
    run, client = installation.serve()
    assert has_user(client.base, bob.username)
    run.terminate()
    assert run.wait(10) == 0
    assert installation.run("restore", "--replace", file) == (0, "run.sh: brought back 1 users, 2 movies\n")
    _, client = installation.serve()
    assert is_whole(client.base, ann, movies) and not has_user(client.base, bob.username)


@pytest.mark.parametrize("kept", [0, 1000, 0.5, -1], ids=["nothing", "its head", "half", "all but a byte"])
def test_a_file_that_is_not_whole_is_refused_and_nothing_is_changed(database, start_server, installation, file, kept):
    server = start_server()
    ann = Client(server.base).new_user()
    movies = [ann.add_movie() for _ in range(40)][::-1]
    server.stop()
    assert installation.run("backup", file, DATABASE_URL=database.url)[0] == 0
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    status, said = installation.run("restore", file)
    assert status == 1 and said.endswith(f"run.sh: {file} is not a whole backup of this service: nothing was changed\n")
    assert not installation.folder.exists()
    assert installation.run("restore", "--replace", file, DATABASE_URL=database.url)[0] == 1
    assert is_whole(start_server().base, ann, movies)


def test_a_database_of_somebody_elses_is_emptied_of_newer_tables_and_only_when_nobody_uses_it(database, start_server, installation, file):
    server = start_server()
    ann = Client(server.base).new_user()
    movies = [ann.add_movie()]
    assert installation.run("backup", file, DATABASE_URL=database.url)[0] == 0
    database.run("create table newer as select id from users")
    database.run("alter table newer add foreign key (id) references users (id)")
    status, said = installation.run("restore", "--replace", file, DATABASE_URL=database.url)
    assert status == 1 and said.startswith("run.sh: the database is in use (")
    server.stop()
    assert installation.run("restore", "--replace", file, DATABASE_URL=database.url)[0] == 0
    assert database.run("select to_regclass('newer')") == [(None,)]
    assert is_whole(start_server().base, ann, movies)


def test_a_restore_that_the_database_stops_midway_changes_nothing(database, start_server, installation, file):
    server = start_server()
    ann = Client(server.base).new_user()
    movies = [ann.add_movie()]
    assert installation.run("backup", file, DATABASE_URL=database.url)[0] == 0
    server.stop()
    # Triggers come after the rows: here none may be made.
    database.run("create schema apart")
    database.run("create function apart.refuse() returns event_trigger language plpgsql as 'begin raise ''no''; end'")
    database.run("create event trigger refuses on ddl_command_end when tag in ('CREATE TRIGGER') execute function apart.refuse()")
    status, said = installation.run("restore", "--replace", file, DATABASE_URL=database.url)
    assert status == 1 and said.endswith("run.sh: nothing was changed\n")
    database.run("drop event trigger refuses")
    assert is_whole(start_server().base, ann, movies)


@pytest.mark.parametrize("command", [["backup"], ["backup", "a", "b"], ["restore"], ["restore", "--replace"]])
def test_a_command_without_its_file_is_told_how_to_use_it(installation, command):
    status, said = installation.run(*command)
    assert status == 2 and said.startswith("usage: ./run.sh")


# Lists: a short one, and one that is long enough to be counted in parts.
SHORT, LONG = 3, 4500


@pytest.fixture
def target():
    """A second database, still empty."""
    made = Database()
    yield made
    made.drop()


def command(database, *arguments):
    """The exit code of the program's command on this database, and what it printed."""
    done = subprocess.run(
        [BINARY, *arguments], env={"DATABASE_URL": database.url}, capture_output=True, text=True, timeout=60, cwd="/"
    )
    return done.returncode, done.stdout + done.stderr


def migrate(*databases):
    for database in databases:
        assert command(database, "migrate")[0] == 0


def fill(database):
    """Two users' movies. The long list is thinned, so that its parts are not those of the same movies added at once."""
    database.run("insert into users (username, email, password_hash) values ('ann', 'ann@example.com', '!'), ('bob', '', '!')")
    database.run(f"insert into movies (title, genre, year, creator_id) select 't', 'g', n, 1 from generate_series(1, {SHORT}) as n")
    database.run(f"insert into movies (title, genre, year, creator_id) select 't', 'g', n, 2 from generate_series(1, {LONG + 1500}) as n")
    database.run(f"delete from movies where creator_id = 2 and mod(id, 4) = 0 and id <= {4 * 1500 + SHORT}")


def transfer(source, target, dump, load):
    """What goes wrong when what `dump` writes of one database is given to `load` on the other; nothing if all is well."""
    programs = find_postgresql_programs()
    dumped = subprocess.run([programs / dump[0], *dump[1:], f"--dbname={source.url}"], capture_output=True, timeout=60, check=True)
    loaded = subprocess.run([programs / load[0], *load[1:], f"--dbname={target.url}"], input=dumped.stdout, capture_output=True, timeout=60)
    return loaded.stderr.decode() or loaded.returncode


PSQL = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "--single-transaction", "--output=/dev/null"]
RIGHT = {"wrong_users": 0, "wrong_lists": 0, "sequences_behind": 0, "are_right": True, "is_corrected": False}


def check_counts(database):
    """What `recount --check` found, in JSON; its exit code has to agree with it."""
    status, told = command(database, "recount", "--check", "--json")
    found = json.loads(told.splitlines()[0])
    assert (status == 0) == found["are_right"]
    return found


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
def test_data_only_dump_loads_into_another_migrated_database_with_right_counts(database, target, dump, load, schema):
    for made in (database, target):
        if schema != "public":
            made.run(f"create schema {schema}")
            made.manage(f"alter database {made.name} set search_path = {schema}")
    migrate(database, target)
    fill(database)
    assert transfer(database, target, dump, load) == 0
    count = SHORT + database.run("select count(*) from movies where creator_id = 2")[0][0]
    assert target.run("select movie_count from users order by id") == [(SHORT,), (count - SHORT,)]
    assert target.run("select sum(movies) from movie_counts") == [(count,)]
    assert target.run("select count(*) > 1 and sum(movies) = %s from shelf_parts where creator_id = 2", count - SHORT) == [(True,)]
    assert check_counts(target) == {"users": 2, "movies": count, "kept_total": count, **RIGHT}
    # Loaded ids are not given out again, and what follows is counted on.
    last = "select max(id) from movies"
    assert target.run("insert into movies (title, genre, year, creator_id) values ('t', 'g', 1, 1) returning id > (" + last + ")") == [(True,)]
    target.run("insert into users (username, email, password_hash, movie_count) values ('eve', '', '!', 7)")
    target.run("delete from movies where creator_id = 2 and mod(id, 2) = 0")
    assert check_counts(target)["are_right"]


def test_data_only_dump_loads_into_a_schema_that_pg_dump_made(database, target):
    migrate(database)
    fill(database)
    assert transfer(database, target, ["pg_dump", "--schema-only"], PSQL) == 0
    assert transfer(database, target, ["pg_dump", "--data-only"], PSQL) == 0
    assert check_counts(target)["are_right"]
    assert command(target, "migrate") == (0, "nothing to apply\n")


def test_dump_of_another_schema_version_does_not_load(database, target):
    migrate(database, target)
    target.run("update refinery_schema_history set checksum = '1' where version = 3")
    assert "refinery_schema_history" in transfer(database, target, ["pg_dump", "--data-only"], PSQL)


def test_recount_corrects_a_load_without_triggers(database, target):
    migrate(database, target)
    fill(database)
    tables = ["--table=users", "--table=movies"]
    assert transfer(database, target, ["pg_dump", "--data-only", "--disable-triggers", *tables], PSQL) == 0
    found = check_counts(target)
    assert (found["kept_total"], found["wrong_lists"]) == (0, 1)
    assert json.loads(command(target, "recount", "--json")[1]) == {**found, "is_corrected": True}
    assert check_counts(target)["are_right"]


def test_recount_finds_and_corrects_every_kind_of_wrong_count(database):
    migrate(database)
    fill(database)
    total = database.run("select count(*) from movies")[0][0]
    wrong = {"users": 2, "movies": total, "kept_total": total, **RIGHT, "are_right": False}
    for damage, found, told in [
        ("update users set movie_count = movie_count + 1", {"wrong_users": 2}, "2 users with a wrong number of movies"),
        ("update movie_counts set movies = movies + 1 where slot = 3", {"kept_total": total + 1}, f"the number of all movies, which was {total + 1}"),
        ("delete from movie_counts", {"kept_total": 0}, "the number of all movies, which was 0"),
        ("update shelf_parts set movies = movies - 1 where first_id = 0", {"wrong_lists": 1}, "1 long lists with wrong parts"),
        ("delete from shelf_parts where first_id = 0", {"wrong_lists": 1}, "1 long lists with wrong parts"),
        ("delete from shelf_parts", {"wrong_lists": 1}, "1 long lists with wrong parts"),
        ("select setval('movies_id_seq', 1), setval('users_id_seq', 1, false)", {"sequences_behind": 2}, "2 sequences behind the ids that are there"),
    ]:
        database.run(damage)
        assert check_counts(database) == {**wrong, **found}, damage
        counted = f"2 users and {total} movies counted\n"
        status, said = command(database, "recount", "--check")
        assert (status, said) == (1, f"{counted}found: {told}\nmovies-api: the kept counts are wrong: `recount` corrects them\n")
        assert command(database, "recount") == (0, f"{counted}corrected: {told}\n")
        assert command(database, "recount") == (0, f"{counted}all counts are right\n")
        database.run("insert into movies (title, genre, year, creator_id) values ('t', 'g', 1, 1)")
        assert check_counts(database)["are_right"], damage
        database.run("delete from movies where id = (select max(id) from movies)")


def test_recount_beside_writers_leaves_counts_right(database):
    migrate(database)
    fill(database)
    done = threading.Event()

    def write():
        with database.connect(database.url, autocommit=True) as connection:
            while not done.is_set():
                connection.execute("insert into movies (title, genre, year, creator_id) select 't', 'g', n, n from generate_series(1, 2) as n")
                connection.execute("delete from movies where id = (select min(id) from movies where creator_id = 2)")

    writers = [threading.Thread(target=write) for _ in range(3)]
    [writer.start() for writer in writers]
    for _ in range(3):
        database.run("update users set movie_count = movie_count + 1 where id = 1")
        assert json.loads(command(database, "recount", "--json")[1])["wrong_users"] == 1
        assert check_counts(database)["are_right"]
    done.set()
    [writer.join(30) for writer in writers]
    assert check_counts(database)["are_right"]


def test_recount_of_a_database_that_is_not_migrated_says_so(database):
    status, told = command(database, "recount")
    assert status == 1 and told.startswith("movies-api: the schema is not this version's") and told.count("\n") == 1
    assert database.run("select to_regclass('users')") == [(None,)]


def test_rows_that_an_operator_copies_and_truncates_are_counted(database):
    migrate(database)
    fill(database)
    with database.connect(database.url) as connection, connection.cursor().copy("copy movies (id, title, genre, year, creator_id) from stdin") as rows:
        for number in range(3000):
            rows.write_row((10_000 + number, "t", "g", 1990, 1))
    found = check_counts(database)
    assert (found["wrong_users"], found["wrong_lists"], found["sequences_behind"]) == (0, 0, 1)
    assert command(database, "recount")[0] == 0
    assert check_counts(database)["are_right"]
    database.run("truncate users cascade")
    assert check_counts(database) == {"users": 0, "movies": 0, "kept_total": 0, **RIGHT}


def test_every_function_has_a_search_path_of_its_own(database):
    migrate(database)
    functions = database.run(
        "select proname, coalesce(array_to_string(proconfig, ' '), '') from pg_proc where pronamespace = 'public'::regnamespace"
        " and not exists (select from pg_depend where objid = pg_proc.oid and deptype = 'e')"
    )
    assert len(functions) > 10
    assert [name for name, settings in functions if "search_path=public, pg_temp" not in settings] == []
