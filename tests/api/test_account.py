"""The signed-in user's own account (auth/user/, auth/password/), and tokens that a client checks or gives up (auth/token/verify/, auth/token/blacklist/)."""
from collections import Counter

import pytest

from helpers.client import ACCOUNT, MOVIES, REFRESH, REGISTER, TOKEN, account_fields, outcome, unique_word
from helpers.concurrency import run_simultaneously, send

CHANGE_PASSWORD = "/api/v1/auth/password/"
VERIFY = "/api/v1/auth/token/verify/"
BLACKLIST = "/api/v1/auth/token/blacklist/"
NEW_PASSWORD = "An0ther-Passw0rd!y"
WRONG_PASSWORD = {"current_password": ["Invalid password."]}
BLACKLISTED = 401, {"detail": "Token is blacklisted", "code": "token_not_valid"}
PASSWORD_CHANGED = 401, {"detail": "The user's password has been changed.", "code": "password_changed"}
USER_NOT_FOUND = 401, {"detail": "User not found", "code": "user_not_found"}
NO_ACCOUNT = 401, {"detail": "No active account found for the given token."}


@pytest.fixture
def user(api):
    """A new user, whose account the test may change. A test that changes the password sets `password` to the new one."""
    user = api.new_user()
    yield user
    signed_in = api.post(TOKEN, {"username": user.username, "password": user.password})
    if signed_in.status_code == 200:
        deleted = user.with_token(signed_in.json()["access"]).delete(ACCOUNT, json_body={"current_password": user.password})
        assert deleted.status_code == 204


def account_of(user, **changes):
    return {"id": user.id, "username": user.username, "email": user.email, "first_name": "Ann", "last_name": "Lee", **changes}


def change_password(user, **changes):
    fields = {"current_password": user.password, "password": NEW_PASSWORD, "password2": NEW_PASSWORD, **changes}
    return user.post(CHANGE_PASSWORD, fields)


def test_account_is_read_and_changed_without_its_username(user):
    assert outcome(user.get(ACCOUNT)) == (200, account_of(user))
    changed = account_of(user, first_name="Zoë", last_name="")
    assert outcome(user.patch(ACCOUNT, {"first_name": " Zoë ", "last_name": "", "username": "other", "id": 1})) == (200, changed)
    new = f"{unique_word()}@example.com"
    assert outcome(user.put(ACCOUNT, {"email": new})) == (200, {**changed, "email": new})
    assert outcome(user.get(ACCOUNT)) == (200, {**changed, "email": new})


@pytest.mark.parametrize(
    "method, fields, errors",
    [
        ("PUT", {"first_name": "A"}, {"email": ["This field is required."]}),
        ("PATCH", {"email": None, "last_name": None}, {"email": ["This field may not be null."], "last_name": ["This field may not be null."]}),
        ("PATCH", {"email": "x", "first_name": "y" * 151}, {"email": ["Enter a valid email address."], "first_name": ["Ensure this field has no more than 150 characters."]}),
    ],
)
def test_invalid_account_fields_return_400_and_change_nothing(user, method, fields, errors):
    assert outcome(user.send(method, ACCOUNT, json_body=fields)) == (400, errors)
    assert outcome(user.get(ACCOUNT)) == (200, account_of(user))


def test_address_of_another_user_is_taken_beside_other_errors_and_ones_own_is_not(api, user):
    other = api.new_user()
    taken = {"email": ["This field must be unique."]}
    assert outcome(user.patch(ACCOUNT, {"email": other.email})) == (400, taken)
    blank = {"first_name": ["Not a valid string."]}
    assert outcome(user.patch(ACCOUNT, {"first_name": [], "email": other.email})) == (400, taken | blank)
    assert outcome(user.patch(ACCOUNT, {"first_name": [], "email": user.email})) == (400, blank)
    assert outcome(user.patch(ACCOUNT, {"email": user.email})) == (200, account_of(user))


def test_one_of_many_users_gets_an_address_that_all_take_at_the_same_time(api):
    users = [api.new_user() for _ in range(8)]
    email = f"{unique_word()}@example.com"
    responses = run_simultaneously(8, lambda index: outcome(send(users[index], "PATCH", ACCOUNT, {"email": email})))
    assert Counter(status for status, _ in responses) == {200: 1, 400: 7}
    assert [body for status, body in responses if status == 400] == [{"email": ["This field must be unique."]}] * 7


@pytest.mark.parametrize("fields, message", [({}, "This field is required."), ({"current_password": " "}, "This field may not be blank."), ({"current_password": "x"}, "Invalid password.")])
def test_account_is_not_deleted_without_its_password(user, fields, message):
    assert outcome(user.delete(ACCOUNT, json_body=fields)) == (400, {"current_password": [message]})
    assert outcome(user.get(ACCOUNT)) == (200, account_of(user))


def test_deleted_account_loses_its_movies_and_tokens_and_frees_its_name_and_address(api, user):
    other = api.new_user()
    kept = other.add_movie()
    user.add_movie()
    deleted = user.delete(ACCOUNT, json_body={"current_password": user.password})
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert outcome(user.get(MOVIES)) == outcome(user.delete(ACCOUNT, json_body={})) == USER_NOT_FOUND
    assert outcome(user.with_token(None).post(REFRESH, {"refresh": user.refresh})) == NO_ACCOUNT
    assert outcome(api.post(VERIFY, {"token": user.refresh})) == USER_NOT_FOUND
    assert outcome(api.post(BLACKLIST, {"refresh": user.refresh})) == NO_ACCOUNT
    assert api.post(TOKEN, {"username": user.username, "password": user.password}).status_code == 401
    assert api.post(REGISTER, account_fields(username=user.username, email=user.email)).status_code == 201
    assert outcome(other.get(f"{MOVIES}{kept['id']}/")) == (200, kept)


def test_changed_password_returns_the_only_tokens_that_are_valid_from_then_on(api, user):
    movie = user.add_movie()
    response = change_password(user)
    assert response.status_code == 200 and list(response.json()) == ["refresh", "access"]
    path = f"{MOVIES}{movie['id']}/"
    for method, target in [("GET", MOVIES), ("GET", f"{MOVIES}?title=x"), ("GET", f"{MOVIES}?page=last"), ("POST", MOVIES), ("GET", path), ("PATCH", path), ("DELETE", path), ("PATCH", ACCOUNT), ("POST", CHANGE_PASSWORD), ("DELETE", ACCOUNT), ("BREW", MOVIES), ("POST", REGISTER)]:
        fields = {"title": "t", "genre": "g", "year": 1} if method in ("POST", "PATCH") else {}
        assert outcome(user.send(method, target, json_body=fields)) == PASSWORD_CHANGED, (method, target)
    assert outcome(api.post(REFRESH, {"refresh": user.refresh})) == PASSWORD_CHANGED
    assert outcome(api.post(BLACKLIST, {"refresh": user.refresh})) == PASSWORD_CHANGED
    assert outcome(api.post(VERIFY, {"token": user.token})) == PASSWORD_CHANGED
    signed_in = user.with_token(response.json()["access"])
    assert outcome(signed_in.get(path)) == (200, movie)
    refreshed = api.post(REFRESH, {"refresh": response.json()["refresh"]})
    assert user.with_token(refreshed.json()["access"]).get(MOVIES).json()["count"] == 1
    user.password = NEW_PASSWORD
    user.sign_in()
    assert user.get(MOVIES).status_code == 200


def test_only_tokens_from_after_a_change_carry_a_generation(user):
    import jwt

    def claims(token):
        return set(jwt.decode(token, options={"verify_signature": False}))

    plain = {"token_type", "exp", "iat", "jti", "user_id"}
    assert claims(user.token) == claims(user.refresh) == plain
    tokens = change_password(user).json()
    user.password = NEW_PASSWORD
    assert claims(tokens["access"]) == claims(tokens["refresh"]) == plain | {"token_generation"}


@pytest.mark.parametrize("generation, status", [(0, 200), (1, 401), (-1, 401), ("0", 401), (None, 401), (0.5, 401), (2**63, 401)])
def test_token_of_a_generation_that_is_not_the_users_is_refused(user, sign_token, generation, status):
    token = sign_token(user, "access", token_generation=generation)
    response = outcome(user.with_token(token).get(MOVIES))
    assert response[0] == status
    assert status == 200 or response == PASSWORD_CHANGED


@pytest.mark.parametrize(
    "changes, errors",
    [
        ({"current_password": "x"}, WRONG_PASSWORD),
        ({"current_password": "x", "password": "short", "password2": ""}, WRONG_PASSWORD | {"password": ["This password is too short. It must contain at least 8 characters."], "password2": ["This field may not be blank."]}),
        ({"current_password": "x", "password2": "other"}, WRONG_PASSWORD),
        ({"password2": "other"}, {"password": ["Password fields didn't match."]}),
        ({"password": None}, {"password": ["This field may not be null."]}),
    ],
)
def test_refused_change_names_all_errors_and_keeps_password_and_tokens(user, changes, errors):
    response = change_password(user, **changes)
    assert outcome(response) == (400, errors)
    assert list(response.json()) == list(errors)
    assert user.get(MOVIES).status_code == 200
    user.sign_in()


def test_one_of_fifty_simultaneous_changes_succeeds(user):
    def change(index):
        password = f"{NEW_PASSWORD}{index}"
        return outcome(send(user, "POST", CHANGE_PASSWORD, {"current_password": user.password, "password": password, "password2": password}))

    responses = run_simultaneously(50, change)
    winners = [index for index, (status, _) in enumerate(responses) if status == 200]
    others = [response for response in responses if response[0] != 200]
    assert len(winners) == 1
    assert all(response in (PASSWORD_CHANGED, (400, WRONG_PASSWORD)) or response[0] == 429 for response in others), others
    user.password = f"{NEW_PASSWORD}{winners[0]}"
    user.sign_in()


@pytest.mark.parametrize("method, path", [("DELETE", ACCOUNT), ("POST", CHANGE_PASSWORD)])
@pytest.mark.own_servers
def test_wrong_current_passwords_count_as_failed_sign_ins(start_server, method, path):
    api = start_server(LOGIN_FAILURES="3", BCRYPT_COST="4").client()
    user = api.new_user()
    fields = {"current_password": "wrong", "password": NEW_PASSWORD, "password2": NEW_PASSWORD}
    assert [user.send(method, path, json_body=fields).status_code for _ in range(5)] == [400, 400, 400, 429, 429]
    right = {**fields, "current_password": user.password}
    assert user.send(method, path, json_body=right).status_code == 429
    assert api.post(TOKEN, {"username": user.username, "password": user.password}).status_code == 429
    assert user.get(ACCOUNT).status_code == 200


@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_valid_token_of_any_type_verifies(api, ann, kind):
    token = ann.token if kind == "access" else ann.refresh
    assert outcome(api.post(VERIFY, {"token": token})) == (200, {})


def test_blacklisted_token_is_refused_everywhere_and_other_tokens_stay_valid(api, user):
    first = user.refresh
    user.sign_in()
    assert outcome(api.post(BLACKLIST, {"refresh": first})) == (200, {})
    assert outcome(api.post(BLACKLIST, {"refresh": first})) == outcome(api.post(REFRESH, {"refresh": first})) == outcome(api.post(VERIFY, {"token": first})) == BLACKLISTED
    assert api.post(REFRESH, {"refresh": user.refresh}).status_code == user.get(MOVIES).status_code == 200


@pytest.mark.parametrize("changes", [{"exp": 2**62}, {"jti": "x" * 5000}, {"jti": ""}, {"jti": "é\0"}, {"user_id": None}])
def test_unusual_refresh_tokens_are_blacklisted(api, user, sign_token, changes):
    token = sign_token(user, "refresh", **changes)
    assert outcome(api.post(BLACKLIST, {"refresh": token})) == (200, {})
    assert outcome(api.post(BLACKLIST, {"refresh": token})) == BLACKLISTED


def test_one_of_many_simultaneous_blacklistings_succeeds_beside_refreshes(api, user):
    def use(index):
        path = REFRESH if index % 2 else BLACKLIST
        return path, outcome(send(api, "POST", path, {"refresh": user.refresh}))

    responses = run_simultaneously(20, use)
    blacklistings = [response for path, response in responses if path == BLACKLIST]
    assert Counter(status for status, _ in blacklistings) == {200: 1, 401: 9}
    assert all(response == BLACKLISTED or response[0] == 200 for _, response in responses)
    assert outcome(api.post(REFRESH, {"refresh": user.refresh})) == BLACKLISTED
