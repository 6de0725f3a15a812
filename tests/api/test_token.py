"""POST /api/v1/auth/token/: signing in, and the claims of the tokens."""
import re
import time
from email.utils import parsedate_to_datetime

import jwt
import pytest

from helpers.client import MISSING, MOVIES, PASSWORD, REFRESH, REGISTER, TOKEN, account_fields, outcome, unique_word, with_literal

NO_ACCOUNT = {"detail": "No active account found with the given credentials"}


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


def sign_in(api, user, **changes):
    fields = {"username": user.username, "password": user.password, **changes}
    return api.post(TOKEN, {field: value for field, value in fields.items() if value is not MISSING})


def test_sign_in_returns_refresh_and_access_token_in_this_order(api, ann):
    response = sign_in(api, ann)
    assert response.status_code == 200
    assert re.fullmatch(r'\{"refresh":"[\w-]+\.[\w-]+\.[\w-]+","access":"[\w-]+\.[\w-]+\.[\w-]+"\}', response.text)


@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_token_has_the_claims_of_the_contract(api, ann, kind):
    response = sign_in(api, ann)
    token = response.json()[kind]
    claims = claims_of(token)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    assert set(claims) == {"token_type", "exp", "iat", "jti", "user_id"}
    assert (claims["token_type"], claims["user_id"]) == (kind, str(ann.id))
    assert re.fullmatch("[0-9a-f]{32}", claims["jti"])
    # The service's clock may differ from this machine's.
    answered = parsedate_to_datetime(response.headers["Date"]).timestamp()
    assert type(claims["iat"]) is int and answered - response.elapsed.total_seconds() - 1 <= claims["iat"] <= answered + 1


@pytest.mark.parametrize("kind, seconds", [("access", 3600), ("refresh", 86400)])
def test_default_lifetimes_are_an_hour_and_a_day(own_server, kind, seconds):
    claims = claims_of(sign_in(own_server.client(), own_server.client().new_user()).json()[kind])
    assert claims["exp"] - claims["iat"] == seconds


def test_lifetimes_follow_the_settings(start_server):
    ann = start_server(ACCESS_TOKEN_LIFETIME="90", REFRESH_TOKEN_LIFETIME="7200").client().new_user()
    assert [claims_of(token)["exp"] - claims_of(token)["iat"] for token in (ann.token, ann.refresh)] == [90, 7200]


def test_access_token_is_refused_after_its_lifetime(start_server):
    ann = start_server(ACCESS_TOKEN_LIFETIME="1").client().new_user()
    time.sleep(max(0.0, claims_of(ann.token)["exp"] - time.time()) + 0.05)
    response = ann.get(MOVIES)
    assert (response.status_code, response.json()["messages"][0]["message"]) == (401, "Token is expired")


def test_token_ids_are_unique(api, ann):
    tokens = [token for _ in range(5) for token in sign_in(api, ann).json().values()]
    assert len({claims_of(token)["jti"] for token in tokens}) == 10


def test_tokens_are_signed_with_the_secret_key(api, ann, secret_key):
    assert jwt.decode(sign_in(api, ann).json()["access"], secret_key, algorithms=["HS256"])["user_id"] == str(ann.id)


@pytest.mark.parametrize(
    "changes, body",
    [
        ({"username": MISSING}, {"username": ["This field is required."]}),
        ({"username": None}, {"username": ["This field may not be null."]}),
        ({"username": "\u2003"}, {"username": ["This field may not be blank."]}),
        ({"username": False}, {"username": ["Not a valid string."]}),
        ({"username": {"a": 1}}, {"username": ["Not a valid string."]}),
        ({"username": "\0"}, {"username": ["Null characters are not allowed."]}),
        ({"password": MISSING}, {"password": ["This field is required."]}),
        ({"password": None}, {"password": ["This field may not be null."]}),
        ({"password": "  "}, {"password": ["This field may not be blank."]}),
        ({"password": [PASSWORD]}, {"password": ["Not a valid string."]}),
        ({"password": PASSWORD + "\0"}, {"password": ["Null characters are not allowed."]}),
        ({"username": [], "password": ""}, {"username": ["Not a valid string."], "password": ["This field may not be blank."]}),
    ],
)
def test_invalid_field_returns_400_with_its_message(api, ann, changes, body):
    assert outcome(sign_in(api, ann, **changes)) == (400, body)


@pytest.mark.parametrize(
    "changes",
    [
        {"username": "unknown-user"},
        {"username": "x" * 5000},
        {"username": 12},
        {"username": "' or 1=1 --"},
        {"password": PASSWORD[:-1]},
        {"password": PASSWORD + "x"},
        {"password": PASSWORD.swapcase()},
        {"password": 1.5},
        {"password": "x" * 100_000},
    ],
)
def test_unknown_user_and_wrong_password_get_the_same_response(api, ann, changes):
    response = sign_in(api, ann, **changes)
    assert (*outcome(response), response.headers["WWW-Authenticate"]) == (401, NO_ACCOUNT, 'Bearer realm="api"')


def test_password_of_another_user_is_refused(api, ann):
    bob = api.new_user(password="An0ther-Passw0rd", password2="An0ther-Passw0rd")
    assert outcome(sign_in(api, ann, password=bob.password)) == (401, NO_ACCOUNT)


def test_username_is_case_sensitive_and_email_is_refused(api):
    ann = api.new_user(username=f"Ann{unique_word()}")
    assert [sign_in(api, ann, username=name).status_code for name in (ann.username.lower(), ann.username.upper(), ann.email)] == [401] * 3


def test_username_and_password_are_trimmed(api, ann):
    assert sign_in(api, ann, username=f"\u3000{ann.username}\n", password=f" {PASSWORD}\x1c").status_code == 200


def test_numbers_are_accepted_as_text(api):
    digits = str(int(unique_word(), 16))
    assert api.post(REGISTER, account_fields(username=digits, password="12345.625", password2="12345.625")).status_code == 201
    assert api.post_json(TOKEN, with_literal({"password": 12345.625}, "username", digits)).status_code == 200


@pytest.mark.parametrize("header", ["Bearer", "Bearer a b c", "Bearer garbage", "Bearer a.b.c", "Basic x", "", "nonsense"])
def test_authorization_header_is_ignored(api, ann, header):
    fields = {"username": ann.username, "password": ann.password}
    assert api.post(TOKEN, fields, headers={"Authorization": header}).status_code == 200


def test_form_is_accepted_and_query_is_ignored(api, ann):
    assert api.post(TOKEN, form=f"username={ann.username}&password=Str0ng-Passw0rd%21x").status_code == 200
    query = f"{TOKEN}?username={ann.username}&password=Str0ng-Passw0rd%21x"
    assert outcome(api.post(query, {})) == (400, {"username": ["This field is required."], "password": ["This field is required."]})


def test_earlier_tokens_stay_valid_after_another_sign_in(api, ann):
    former, former_refresh = ann.token, ann.refresh
    ann.sign_in()
    assert ann.with_token(former).get(MOVIES).status_code == 200
    assert api.post(REFRESH, {"refresh": former_refresh}).status_code == 200
