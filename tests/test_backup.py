"""Backup and restore by run.sh: what a backup holds comes back whole, and what goes wrong changes nothing."""
import stat

import pytest
from client import MOVIES, PASSWORD, TOKEN, Client, film
from conftest import HAS_OWN_SERVERS
from place import Place

pytestmark = pytest.mark.skipif(not HAS_OWN_SERVERS, reason="needs the built program: ./run.sh test")


@pytest.fixture
def other_place(tmp_path):
    made = Place(tmp_path, "elsewhere")
    yield made
    made.clear()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "movies' backup"


def sign_in(base, username):
    """Whoever registered under this name in a test's samples, signed in with that password."""
    client = Client(base)
    answer = client.post(TOKEN, {"username": username, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return client.with_token(answer.json()["access"])


def movies_of(client):
    """All of a user's movies, and how many the service says they are."""
    page = client.get(f"{MOVIES}?page_size=100").json()
    return page["results"], page["count"]


def has_user(base, username):
    client = Client(base)
    answer = client.post(TOKEN, {"username": username, "password": PASSWORD})
    client.close()
    return answer.status_code == 200


def is_whole(base, user, movies):
    return movies_of(sign_in(base, user.username)) == (movies, len(movies))


def test_what_a_running_service_holds_comes_back_in_an_empty_place(place, other_place, file):
    _, client = place.serve()
    ann, bob = client.new_user(), client.new_user()
    for _ in range(12):
        ann.add_movie(title="Éclair ☂", genre="Drama'; --", year=-5)
    bob.add_movie()
    ann.delete(f"{MOVIES}3/")
    kept = movies_of(ann)[0]
    assert place.run("backup", file) == (0, f"run.sh: wrote {file}\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    later = ann.add_movie()

    assert other_place.run("restore", file) == (0, "run.sh: brought back 2 users, 12 movies\n")
    assert not other_place.database_runs()
    run, restored = other_place.serve()
    assert is_whole(restored.base, ann, kept) and len(kept) == 11
    ann_again = sign_in(restored.base, ann.username)
    assert ann_again.add_to(MOVIES, film())["id"] == later["id"]
    assert restored.new_user().id == bob.id + 1
    ann_again.delete(f"{MOVIES}{later['id']}/")
    assert movies_of(ann_again) == (kept, 11)
    run.terminate()
    assert run.wait(10) == 0
    _, shared = other_place.serve(MOVIES_VISIBILITY="shared")
    assert movies_of(sign_in(shared.base, bob.username))[1] == 12


def test_a_stopped_service_is_backed_up_too_and_its_database_stops_again(place, other_place, file):
    run, client = place.serve()
    ann = client.new_user()
    movies = [ann.add_movie()]
    run.terminate()
    assert run.wait(10) == 0
    assert place.run("backup", file)[0] == 0
    assert not place.database_runs()
    assert other_place.run("restore", file)[0] == 0
    assert is_whole(other_place.serve()[1].base, ann, movies)


def test_a_backup_that_fails_leaves_the_older_one_as_it_was(place, file):
    file.write_text("an older one")
    status, said = place.run("backup", file)
    assert status == 1 and said.startswith("run.sh: there is no database in ")
    status, said = place.run("backup", file, DATABASE_URL="host=127.0.0.1 port=1 connect_timeout=1")
    assert status == 1 and said.endswith("run.sh: no backup was made\n")
    assert file.read_text() == "an older one"
    assert [entry.name for entry in file.parent.iterdir() if entry.name.startswith(file.name)] == [file.name]


def test_users_are_given_up_for_those_of_a_backup_only_if_one_says_so(place, file):
    run, client = place.serve()
    ann = client.new_user()
    movies = [ann.add_movie(), ann.add_movie()][::-1]
    assert place.run("backup", file)[0] == 0
    bob = client.new_user()
    status, said = place.run("restore", "--replace", file)
    assert status == 1 and "another run.sh is using" in said
    run.terminate()
    assert run.wait(10) == 0
    status, said = place.run("restore", file)
    assert status == 1 and said.startswith("run.sh: the database has 2 users: './run.sh restore --replace FILE'")
    run, client = place.serve()
    assert has_user(client.base, bob.username)
    run.terminate()
    assert run.wait(10) == 0
    assert place.run("restore", "--replace", file) == (0, "run.sh: brought back 1 users, 2 movies\n")
    _, client = place.serve()
    assert is_whole(client.base, ann, movies) and not has_user(client.base, bob.username)


@pytest.mark.parametrize("kept", [0, 1000, 0.5, -1], ids=["nothing", "its head", "half", "all but a byte"])
def test_a_file_that_is_not_whole_is_refused_and_nothing_is_changed(database, start_server, place, file, kept):
    server = start_server()
    ann = Client(server.base).new_user()
    movies = [ann.add_movie() for _ in range(40)][::-1]
    server.stop()
    assert place.run("backup", file, DATABASE_URL=database.url)[0] == 0
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    status, said = place.run("restore", file)
    assert status == 1 and said.endswith(f"run.sh: {file} is not a whole backup of this service: nothing was changed\n")
    assert not place.folder.exists()
    assert place.run("restore", "--replace", file, DATABASE_URL=database.url)[0] == 1
    assert is_whole(start_server().base, ann, movies)


def test_a_database_of_somebody_elses_is_emptied_of_newer_tables_and_only_when_nobody_uses_it(database, start_server, place, file):
    server = start_server()
    ann = Client(server.base).new_user()
    movies = [ann.add_movie()]
    assert place.run("backup", file, DATABASE_URL=database.url)[0] == 0
    database.run("create table newer as select id from users")
    database.run("alter table newer add foreign key (id) references users (id)")
    status, said = place.run("restore", "--replace", file, DATABASE_URL=database.url)
    assert status == 1 and said.startswith("run.sh: the database is in use (")
    server.stop()
    assert place.run("restore", "--replace", file, DATABASE_URL=database.url)[0] == 0
    assert database.run("select to_regclass('newer')") == [(None,)]
    assert is_whole(start_server().base, ann, movies)


def test_a_restore_that_the_database_stops_midway_changes_nothing(database, start_server, place, file):
    server = start_server()
    ann = Client(server.base).new_user()
    movies = [ann.add_movie()]
    assert place.run("backup", file, DATABASE_URL=database.url)[0] == 0
    server.stop()
    # Triggers come after the rows: here none may be made.
    database.run("create schema apart")
    database.run("create function apart.refuse() returns event_trigger language plpgsql as 'begin raise ''no''; end'")
    database.run("create event trigger refuses on ddl_command_end when tag in ('CREATE TRIGGER') execute function apart.refuse()")
    status, said = place.run("restore", "--replace", file, DATABASE_URL=database.url)
    assert status == 1 and said.endswith("run.sh: nothing was changed\n")
    database.run("drop event trigger refuses")
    assert is_whole(start_server().base, ann, movies)


@pytest.mark.parametrize("command", [["backup"], ["backup", "a", "b"], ["restore"], ["restore", "--replace"]])
def test_a_command_without_its_file_is_told_how_to_use_it(place, command):
    status, said = place.run(*command)
    assert status == 2 and said.startswith("usage: ./run.sh")
