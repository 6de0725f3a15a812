"""The description in the hands of others' tools: one looks for answers that break it, one makes a client from it."""
import importlib
import os
import subprocess
import sys
from pathlib import Path

from helpers.client import PASSWORD, unique_word
from helpers.settings import TESTS

SCHEMA = "/api/v1/schema/"

# Version 0.29 forgets to import a name where an operation takes its body in two forms, as JSON and as a form.
SETTINGS = r"""
post_hooks:
  - sed -i 's/import Response, UNSET$/import Response, UNSET, Unset/' api/accounts/*.py api/movies/*.py
"""


def run(folder, *command, deadline=300, **environment):
    """Runs a program of this Python's own in this folder, where it may leave things; its output stands in the failure."""
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run(
        [program, *command[1:]], env={**os.environ, **environment}, cwd=folder, capture_output=True, text=True, timeout=deadline
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_schemathesis_finds_nothing_with_all_its_checks(start_server, tmp_path):
    server = start_server()
    token = server.client().new_user().token
    found = run(
        tmp_path, "schemathesis", "run", server.base + SCHEMA, "--header", f"Authorization: Bearer {token}",
        "--checks", "all", "--seed", "1", "--max-examples", "10", "--no-color", "--output-sanitize", "false",
        SCHEMATHESIS_HOOKS="helpers.schemathesis_hooks", PYTHONPATH=str(TESTS),
    )
    assert "Tested: 10" in found


def test_a_client_that_is_made_from_the_description_keeps_a_movie(own_server, tmp_path, monkeypatch):
    name = f"made_{unique_word()}"
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    run(
        tmp_path, "openapi-python-client", "generate", "--url", own_server.base + SCHEMA, "--output-path", str(tmp_path / name),
        "--meta", "none", "--config", str(tmp_path / "settings.yaml"), "--fail-on-warning",
    )
    monkeypatch.syspath_prepend(tmp_path)
    load = lambda module: importlib.import_module(f"{name}.{module}")  # noqa: E731
    made, models = load("client"), load("models")
    accounts = {operation: load(f"api.accounts.{operation}") for operation in ("register", "obtain_token")}
    movies = {operation: load(f"api.movies.{operation}") for operation in ("create_movie", "list_movies", "update_movie", "delete_movie", "read_movie")}

    anybody = made.Client(own_server.base)
    user = f"user{unique_word()}"
    account = models.Registration(username=user, password=PASSWORD, password2=PASSWORD, email=f"{user}@example.com")
    assert accounts["register"].sync(client=anybody, body=account).username == user
    refused = accounts["register"].sync(client=anybody, body=account)
    assert refused["username"] == ["A user with that username already exists."]
    tokens = accounts["obtain_token"].sync(client=anybody, body=models.Credentials(username=user, password=PASSWORD))

    client = made.AuthenticatedClient(own_server.base, tokens.access)
    movie = movies["create_movie"].sync(client=client, body=models.MovieFields(title="Heat", genre="Crime", year=1995))
    assert (movie.title, movie.year, movie.creator) == ("Heat", 1995, user)
    assert movies["update_movie"].sync(movie.id, client=client, body=models.MovieChanges(year=1996)).year == 1996
    page = movies["list_movies"].sync(client=client, title="heat", year_gt=1995)
    assert (page.count, page.next_, [found.id for found in page.results]) == (1, None, [movie.id])
    assert movies["delete_movie"].sync_detailed(movie.id, client=client).status_code == 204
    gone = movies["read_movie"].sync(movie.id, client=client)
    assert gone.detail == "No Movie matches the given query."
