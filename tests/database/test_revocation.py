"""Revocation of tokens by commands and by another instance on the same database, and users who are deleted meanwhile."""
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.client import ACCOUNT, MOVIES, REFRESH, outcome
from helpers.concurrency import send
from helpers.settings import BINARY

pytestmark = pytest.mark.own_servers
CHANGE_PASSWORD = "/api/v1/auth/password/"
BLACKLIST = "/api/v1/auth/token/blacklist/"
NEW_PASSWORD = "An0ther-Passw0rd!y"
PASSWORD_CHANGED = 401, {"detail": "The user's password has been changed.", "code": "password_changed"}


@pytest.fixture
def instances(start_server):
    """Clients of two services on one database."""
    return [start_server(BCRYPT_COST="4").client() for _ in range(2)]


def run_command(database, *arguments, stdin=""):
    done = subprocess.run([BINARY, *arguments], env={"DATABASE_URL": database.url}, input=stdin, text=True, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def at(client, token):
    """Sends requests with the token to the client's service."""
    return client.with_token(token)


def test_password_changed_on_one_instance_ends_the_old_tokens_on_the_other(instances):
    first, second = instances
    user = first.new_user()
    other = first.new_user()
    # Both instances have the tokens in their caches.
    for client in instances:
        assert at(client, user.token).get(MOVIES).status_code == at(client, other.token).get(MOVIES).status_code == 200
    fields = {"current_password": user.password, "password": NEW_PASSWORD, "password2": NEW_PASSWORD}
    assert user.post(CHANGE_PASSWORD, fields).status_code == 200
    assert outcome(at(second, user.token).get(MOVIES)) == PASSWORD_CHANGED
    assert outcome(second.post(REFRESH, {"refresh": user.refresh})) == PASSWORD_CHANGED
    assert at(second, other.token).get(MOVIES).status_code == 200


def test_token_blacklisted_on_one_instance_is_refused_on_the_other(instances):
    first, second = instances
    user = first.new_user()
    assert first.post(BLACKLIST, {"refresh": user.refresh}).status_code == 200
    assert second.post(REFRESH, {"refresh": user.refresh}).json()["detail"] == "Token is blacklisted"


@pytest.mark.parametrize("arguments, stdin", [(["sign-out", "{user}"], ""), (["set-password", "{user}"], f"{NEW_PASSWORD}\n"), (["sign-out", "--all"], "")])
def test_commands_end_the_tokens_of_a_user(instances, database, arguments, stdin):
    import jwt

    api = instances[0]
    user, other = api.new_user(), api.new_user()
    run_command(database, "users", *(argument.format(user=user.username) for argument in arguments), stdin=stdin)
    assert outcome(user.get(MOVIES)) == outcome(user.get(ACCOUNT)) == PASSWORD_CHANGED
    assert outcome(api.post(REFRESH, {"refresh": user.refresh})) == PASSWORD_CHANGED
    assert other.get(MOVIES).status_code == (401 if "--all" in arguments else 200)
    user.password = NEW_PASSWORD if stdin else user.password
    user.sign_in()
    token = run_command(database, "token", user.username, "--secret-key", "k" * 32)
    assert "token_generation" in jwt.decode(token.strip(), options={"verify_signature": False})
    assert user.get(MOVIES).status_code == 200


def test_blacklisting_deletes_rows_of_expired_tokens(instances, database):
    database.run("insert into blacklisted_tokens select sha256(n::text::bytea), now() - interval '1 day' from generate_series(1, 150) as n")
    api = instances[0]
    for left in (51, 2, 3):
        assert api.post(BLACKLIST, {"refresh": api.new_user().refresh}).status_code == 200
        assert database.run("select count(*) from blacklisted_tokens") == [(left,)]


# What another session does to the user's row while a request waits for it.
MEANWHILE = {
    "deactivate": ("update users set is_active = false where id = %s", (401, {"detail": "User is inactive", "code": "user_inactive"})),
    "delete": ("delete from users where id = %s", (401, {"detail": "User not found", "code": "user_not_found"})),
    "revoke": ("update users set token_generation = token_generation + 1 where id = %s", PASSWORD_CHANGED),
}


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("request_name", ["PATCH", "PUT", "DELETE", "password"])
def test_change_of_an_account_that_ends_meanwhile_changes_nothing(start_server, database, request_name, meanwhile):
    user = start_server(BCRYPT_COST="4").client().new_user()
    requests = {
        "PATCH": ("PATCH", ACCOUNT, {"first_name": "Ann"}),
        "PUT": ("PUT", ACCOUNT, {"email": f"{user.username}@other.example"}),
        "DELETE": ("DELETE", ACCOUNT, {"current_password": user.password}),
        "password": ("POST", CHANGE_PASSWORD, {"current_password": user.password, "password": NEW_PASSWORD, "password2": NEW_PASSWORD}),
    }
    statement, expected = MEANWHILE[meanwhile]
    row = "select email, first_name, password_hash from users where id = %s"
    before = database.run(row, user.id)
    with ThreadPoolExecutor(1) as threads, database.connect(database.url) as connection:
        connection.execute(statement, [user.id])
        response = threads.submit(send, user, *requests[request_name])
        database.wait_until_session_waits_for_lock()
        connection.commit()
        assert outcome(response.result()) == expected
    assert database.run(row, user.id) == ([] if meanwhile == "delete" else before)


@pytest.mark.parametrize("arguments", [["set-password", "{user}"], ["deactivate", "{user}"], ["sign-out", "{user}"], ["delete", "{user}", "--yes"]])
def test_command_fails_if_its_user_is_deleted_meanwhile(instances, database, arguments):
    user = instances[0].new_user()
    command = [BINARY, "users", *(argument.format(user=user.username) for argument in arguments)]
    with database.connect(database.url) as connection:
        connection.execute("delete from users where id = %s", [user.id])
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running = subprocess.Popen(command, env={"DATABASE_URL": database.url, "BCRYPT_COST": "4"}, **pipes)
        running.stdin.write(f"{NEW_PASSWORD}\n")
        running.stdin.close()
        database.wait_until_session_waits_for_lock()
        connection.commit()
    assert (running.wait(30), running.stdout.read(), running.stderr.read()) == (1, "", "movies-api: the user was deleted in the meantime\n")


def test_user_whose_name_looks_like_a_flag_is_named_after_two_hyphens(instances, database):
    api = instances[0]
    user, other = api.new_user(username="--all"), api.new_user()
    assert run_command(database, "users", "sign-out", "--", "--all") == "--all is signed out\n"
    assert outcome(user.get(MOVIES)) == PASSWORD_CHANGED
    assert other.get(MOVIES).status_code == 200
