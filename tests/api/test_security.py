"""Security: secrets in logs, deactivated and deleted users, password hashes, and timing of sign-ins."""
import re
import statistics
import time

import pytest

from helpers.client import MOVIES, PASSWORD, REFRESH, REGISTER, TOKEN, account_fields, movie_fields, outcome, unique_word
from helpers.settings import SECRET_KEY

INACTIVE = (401, {"detail": "User is inactive", "code": "user_inactive"})
NOT_FOUND = (401, {"detail": "User not found", "code": "user_not_found"})
NO_ACCOUNT = (401, {"detail": "No active account found with the given credentials"})
NO_ACCOUNT_FOR_TOKEN = (401, {"detail": "No active account found for the given token."})
LONG = "Ab3$" * 18  # 72 bytes


def sign_in(client, user, password=None):
    return client.post(TOKEN, {"username": user.username, "password": password or user.password})


@pytest.fixture
def server(own_server):
    return own_server


@pytest.fixture
def ann(server):
    return server.client().new_user()


def stored_hash(server, user):
    return server.database.run("select password_hash from users where id = %s", user.id)[0][0]


def check_password(password, encoded):
    """Calls Django's check_password, as a Django site on the same table would."""
    from django.conf import settings
    from django.contrib.auth import hashers

    if not settings.configured:
        settings.configure()
    return hashers.check_password(password, encoded)


def test_token_of_deactivated_user_is_refused_at_once(server, ann):
    movie = ann.add_movie()
    server.database.run("update users set is_active = false where id = %s", ann.id)
    requests = [("GET", MOVIES), ("POST", MOVIES), ("PUT", MOVIES),
                *[(method, f"{MOVIES}{movie['id']}/") for method in ("GET", "PUT", "PATCH", "DELETE")]]
    assert [outcome(ann.send(method, path, json_body=movie_fields())) for method, path in requests] == [INACTIVE] * 7
    assert outcome(ann.post(REGISTER, account_fields())) == INACTIVE
    assert ann.get(MOVIES).headers["WWW-Authenticate"] == 'Bearer realm="api"'


def test_deactivated_user_cannot_sign_in_or_refresh(server, ann):
    server.database.run("update users set is_active = false where id = %s", ann.id)
    client = server.client()
    assert outcome(sign_in(client, ann)) == NO_ACCOUNT
    assert outcome(client.post(REFRESH, {"refresh": ann.refresh})) == NO_ACCOUNT_FOR_TOKEN


def test_token_is_valid_again_after_reactivation(server, ann):
    movie = ann.add_movie()
    server.database.run("update users set is_active = false where id = %s", ann.id)
    assert outcome(ann.get(MOVIES)) == INACTIVE
    server.database.run("update users set is_active = true where id = %s", ann.id)
    assert ann.get(MOVIES).json()["results"] == [movie]


def test_tokens_of_deleted_user_are_refused_and_movies_are_deleted(server, ann):
    movie = ann.add_movie()
    server.database.run("delete from users where id = %s", ann.id)
    client = server.client()
    assert [outcome(ann.send(method, f"{MOVIES}{movie['id']}/")) for method in ("GET", "PATCH", "DELETE")] == [NOT_FOUND] * 3
    assert [outcome(ann.get(MOVIES)), outcome(ann.post(MOVIES, movie_fields()))] == [NOT_FOUND] * 2
    assert outcome(client.post(REFRESH, {"refresh": ann.refresh})) == NO_ACCOUNT_FOR_TOKEN
    assert outcome(sign_in(client, ann)) == NO_ACCOUNT
    assert server.database.run("select count(*) from movies where id = %s", movie["id"]) == [(0,)]


def test_django_accepts_stored_hash(server, ann):
    encoded = stored_hash(server, ann)
    assert encoded.startswith("bcrypt_sha256$$2b$04$")
    assert (check_password(PASSWORD, encoded), check_password(PASSWORD + "x", encoded)) == (True, False)


@pytest.mark.parametrize("password", ["пароль-Зима-9", "🎬" * 30, LONG + "yyyy", "a'b\"c\\d e%f"])
def test_django_accepts_stored_hashes_of_unusual_passwords(server, password):
    user = server.client().new_user(password=password, password2=password)
    assert check_password(password, stored_hash(server, user))


def test_hash_created_by_django_is_accepted(server, ann):
    import bcrypt
    from django.contrib.auth.hashers import BCryptSHA256PasswordHasher

    encoded = BCryptSHA256PasswordHasher().encode("From-Django-7", bcrypt.gensalt(4))
    server.database.run("update users set password_hash = %s where id = %s", encoded, ann.id)
    assert [sign_in(ann, ann, password).status_code for password in ("From-Django-7", PASSWORD)] == [200, 401]


@pytest.mark.parametrize("encoded", ["", "!", "bcrypt_sha256$", "bcrypt_sha256$$2b$04$short", "pbkdf2_sha256$1$salt$hash",
                                     "bcrypt_sha256$$2b$99$" + "x" * 53, "bcrypt_sha256$$2b$31$" + "." * 53, "é" * 60])
def test_malformed_stored_hash_never_matches(server, ann, encoded):
    server.database.run("update users set password_hash = %s where id = %s", encoded, ann.id)
    assert outcome(sign_in(ann, ann)) == NO_ACCOUNT


def test_equal_passwords_have_different_hashes(server):
    first, second = (stored_hash(server, server.client().new_user()) for _ in range(2))
    assert first != second


def test_password_bytes_after_the_72nd_are_significant(server):
    user = server.client().new_user(password=LONG + "yyyy", password2=LONG + "yyyy")
    statuses = [sign_in(user, user, password).status_code for password in (LONG + "yyyy", LONG + "xxxx", LONG, LONG + "yyyyy")]
    assert statuses == [200, 401, 401, 401]


def test_bcrypt_cost_follows_the_setting(start_server, database):
    start_server(BCRYPT_COST="6").client().new_user()
    assert database.run("select password_hash from users")[0][0].startswith("bcrypt_sha256$$2b$06$")


def test_unknown_user_and_wrong_password_take_the_same_time(start_server, database):
    client = start_server(BCRYPT_COST="10", LOGIN_FAILURES="0").client()
    ann, inactive = client.new_user(), client.new_user()
    database.run("update users set is_active = false where id = %s", inactive.id)
    attempts = {"wrong": (ann.username, "Wrong-Passw0rd!x"), "unknown": (f"ghost{unique_word()}", PASSWORD), "inactive": (inactive.username, PASSWORD)}
    seconds = {kind: [] for kind in attempts}
    for _ in range(15):
        for kind, (username, password) in attempts.items():
            started = time.perf_counter()
            assert outcome(client.post(TOKEN, {"username": username, "password": password})) == NO_ACCOUNT
            seconds[kind].append(time.perf_counter() - started)
    medians = {kind: statistics.median(times) for kind, times in seconds.items()}
    assert max(medians.values()) < 2 * min(medians.values()), medians


in_both_log_formats = pytest.mark.parametrize("log_format", ["text", "json"])


@in_both_log_formats
def test_log_contains_no_secret_at_any_level(start_server, database, log_format):
    secrets = {"database": "pg-Secret-5", "fallback": "former-Secret-key-0123456789abcdef", "key": SECRET_KEY, "password": f"Pass-{unique_word()}",
               "wrong": f"Wrong-{unique_word()}"}
    server = start_server(LOG_LEVEL="trace", LOG_FORMAT=log_format, SECRET_KEY_FALLBACKS=secrets["fallback"],
                          DATABASE_URL=f"{database.url} password={secrets['database']}")
    ann = server.client().new_user(password=secrets["password"], password2=secrets["password"])
    secrets |= {"access": ann.token, "refresh": ann.refresh, "signature": ann.token.rsplit(".", 1)[1],
                "hash": database.run("select password_hash from users")[0][0]}
    ann.add_movie()
    sign_in(ann, ann, secrets["wrong"])
    ann.post(REGISTER, account_fields(username=ann.username, password=secrets["wrong"], password2=secrets["wrong"]))
    ann.post(REGISTER, account_fields(password=secrets["wrong"], password2="other"))
    ann.post(REFRESH, {"refresh": ann.refresh})
    ann.post(REFRESH, {"refresh": ann.token})
    ann.post_json(TOKEN, '{"username": "x", "password": "%s", ' % secrets["wrong"])
    ann.post(TOKEN, raw=secrets["wrong"], headers={"Content-Type": "text/plain"})
    ann.post(f"{TOKEN}?password={secrets['wrong']}", form=f"password={secrets['wrong']}")
    ann.get(f"{MOVIES}?access={ann.token}&title={secrets['wrong']}")
    ann.get(MOVIES, headers={"Authorization": f"Basic {secrets['wrong']}"})
    ann.get(MOVIES, headers={"Authorization": f"Bearer {secrets['wrong']}", "Cookie": secrets["wrong"]})
    database.disallow_connections()
    assert sign_in(ann, ann).status_code == 503
    assert server.stop() == 0
    assert [line for line in server.log if f"POST {TOKEN} 503" in line]
    assert [name for name, secret in secrets.items() if secret in "\n".join(server.log)] == []


@in_both_log_formats
def test_access_log_line_contains_path_but_not_query(start_server, log_format):
    server = start_server(LOG_FORMAT=log_format)
    server.client().get(f"{MOVIES}?title=hidden")
    assert server.stop() == 0
    lines = [line for line in server.log if MOVIES in line]
    assert len(lines) == 1
    assert f"GET {MOVIES} 401" in lines[0]
    assert ("INFO" in lines[0], "hidden" in lines[0], re.search(r"20\d\d-\d\d-\d\dT", lines[0]) is not None) == (True, False, True)


UNKNOWN_PATH = (404, {"detail": "Not found."})
MALFORMED = (400, {"detail": "The request line is malformed."})


@in_both_log_formats
@pytest.mark.parametrize(
    "path, expected",
    [("/a%0d%0a[INFO]%20forged", UNKNOWN_PATH), ("/a%1b[31m", UNKNOWN_PATH), ("/%00", UNKNOWN_PATH), ("/\x1b[31mred", MALFORMED), ("/a\x7fb", MALFORMED)],
)
def test_control_characters_in_path_are_escaped_in_the_log(start_server, path, expected, log_format):
    server = start_server(LOG_FORMAT=log_format)
    assert outcome(server.client().send_raw("GET", path)) == expected
    assert server.stop() == 0
    assert [line for line in server.log if line.startswith("[INFO]")] == []
    assert [line for line in server.log if any(character < " " or character == "\x7f" for character in line)] == []
    assert len([line for line in server.log if f"GET {path} {expected[0]}" in line]) == (1 if expected == UNKNOWN_PATH else 0)
