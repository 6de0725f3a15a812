"""The OpenAPI description in other tools: schemathesis tests the service with it, and openapi-python-client generates a client."""
import importlib
import os
import subprocess
import sys
from pathlib import Path

from helpers.client import PASSWORD, unique_word
from helpers.settings import TESTS

SCHEMA = "/api/v1/schema/"

# openapi-python-client 0.29 forgets an import if an operation takes both JSON and forms.
SETTINGS = r"""
post_hooks:
  - sed -i 's/import Response, UNSET$/import Response, UNSET, Unset/' api/accounts/*.py api/movies/*.py
"""


def run(folder, *command, deadline=300, **environment):
    """Runs a program of this Python environment in `folder` and returns its output; fails if it fails."""
    program = Path(sys.executable).with_name(command[0])
    completed = subprocess.run(
        [program, *command[1:]], env={**os.environ, **environment}, cwd=folder, capture_output=True, text=True, timeout=deadline
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def test_schemathesis_finds_no_problem(start_server, tmp_path):
    server = start_server()
    token = server.client().new_user().token
    output = run(
        tmp_path, "schemathesis", "run", server.base + SCHEMA, "--header", f"Authorization: Bearer {token}",
        # Their valid requests need the current password, which a generated one is not.
        "--exclude-operation-id", "delete_account", "--exclude-operation-id", "change_password",
        "--checks", "all", "--seed", "1", "--max-examples", "10", "--no-color", "--output-sanitize", "false",
        SCHEMATHESIS_HOOKS="helpers.schemathesis_hooks", PYTHONPATH=str(TESTS),
    )
    assert "Tested: 15" in output


def test_generated_client_creates_lists_changes_and_deletes_a_movie(own_server, tmp_path, monkeypatch):
    name = f"made_{unique_word()}"
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    run(
        tmp_path, "openapi-python-client", "generate", "--url", own_server.base + SCHEMA, "--output-path", str(tmp_path / name),
        "--meta", "none", "--config", str(tmp_path / "settings.yaml"), "--fail-on-warning",
    )
    monkeypatch.syspath_prepend(tmp_path)
    load = lambda module: importlib.import_module(f"{name}.{module}")  # noqa: E731
    generated, models = load("client"), load("models")
    accounts = {operation: load(f"api.accounts.{operation}") for operation in ("register", "obtain_token")}
    movies = {operation: load(f"api.movies.{operation}") for operation in ("create_movie", "list_movies", "update_movie", "delete_movie", "read_movie")}

    anonymous = generated.Client(own_server.base)
    user = f"user{unique_word()}"
    account = models.Registration(username=user, password=PASSWORD, password2=PASSWORD, email=f"{user}@example.com")
    assert accounts["register"].sync(client=anonymous, body=account).username == user
    errors = accounts["register"].sync(client=anonymous, body=account)
    assert errors["username"] == ["A user with that username already exists."]
    tokens = accounts["obtain_token"].sync(client=anonymous, body=models.Credentials(username=user, password=PASSWORD))

    client = generated.AuthenticatedClient(own_server.base, tokens.access)
    movie = movies["create_movie"].sync(client=client, body=models.MovieFields(title="Heat", genre="Crime", year=1995))
    assert (movie.title, movie.year, movie.creator) == ("Heat", 1995, user)
    assert movies["update_movie"].sync(movie.id, client=client, body=models.MovieChanges(year=1996)).year == 1996
    page = movies["list_movies"].sync(client=client, title="heat", year_gt=1995)
    assert (page.count, page.next_, [listed.id for listed in page.results]) == (1, None, [movie.id])
    assert movies["delete_movie"].sync_detailed(movie.id, client=client).status_code == 204
    error = movies["read_movie"].sync(movie.id, client=client)
    assert error.detail == "No Movie matches the given query."
