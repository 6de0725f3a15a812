"""POST /api/v1/auth/refresh/ and its alias: a new access token for a valid refresh token, and refusal of all others."""
import re
import time
from email.utils import parsedate_to_datetime

import jwt
import pytest

from helpers.client import MISSING, MOVIES, REFRESH, REFRESH_ALIAS, outcome, with_literal

INVALID = "Token is invalid"
NO_ACCOUNT = {"detail": "No active account found for the given token."}


def status_body_and_challenge(response):
    """Returns status, body and WWW-Authenticate."""
    return (*outcome(response), response.headers.get("WWW-Authenticate"))


def invalid_token_response(message):
    return 401, {"detail": message, "code": "token_not_valid"}, 'Bearer realm="api"'


@pytest.mark.parametrize("path", [REFRESH, REFRESH_ALIAS])
def test_both_paths_return_a_valid_access_token(api, ann, path):
    response = api.post(path, {"refresh": ann.refresh})
    assert response.status_code == 200
    assert re.fullmatch(r'\{"access":"[\w-]+\.[\w-]+\.[\w-]+"\}', response.text)
    assert ann.with_token(response.json()["access"]).get(MOVIES).status_code == 200


def test_new_token_is_an_access_token_of_the_same_user_with_a_new_id(api, ann):
    responses = [api.post(REFRESH, {"refresh": ann.refresh}) for _ in range(2)]
    tokens = [ann.refresh, *(response.json()["access"] for response in responses)]
    refresh, first, second = (jwt.decode(token, options={"verify_signature": False}) for token in tokens)
    assert set(first) == {"token_type", "exp", "iat", "jti", "user_id"}
    assert (first["token_type"], first["user_id"]) == ("access", str(ann.id))
    assert len({claims["jti"] for claims in (refresh, first, second)}) == 3
    # The service's clock may differ from this machine's.
    answered = parsedate_to_datetime(responses[0].headers["Date"]).timestamp()
    assert answered - responses[0].elapsed.total_seconds() - 1 <= first["iat"] <= answered + 1


@pytest.mark.parametrize(
    "value, message",
    [
        (MISSING, "This field is required."),
        (None, "This field may not be null."),
        (" \n", "This field may not be blank."),
        (True, "Not a valid string."),
        (["x"], "Not a valid string."),
        ({}, "Not a valid string."),
        ("a\0b", "Null characters are not allowed."),
    ],
)
def test_invalid_field_returns_400_with_its_message(api, value, message):
    body = {} if value is MISSING else {"refresh": value}
    assert outcome(api.post(REFRESH, body)) == (400, {"refresh": [message]})


@pytest.mark.parametrize("token", ["garbage", "..", "a.b", "a.b.c", "a.b.c.d", 5, 1.5, "é.ж.日", "x" * 10_000, "eyJhbGciOiJIUzI1NiJ9.e30."])
def test_malformed_token_returns_401(api, token):
    assert status_body_and_challenge(api.post(REFRESH, {"refresh": token})) == invalid_token_response(INVALID)


def test_modified_token_returns_401(api, ann):
    head, claims, signature = ann.refresh.split(".")
    changed = [f"{ann.refresh}x", f"{head}.{claims}.", f"{head}.{claims}", f"{head}.{claims}x.{signature}", f"{head}.{claims}.{signature[::-1]}"]
    assert [status_body_and_challenge(api.post(REFRESH, {"refresh": token})) for token in changed] == [invalid_token_response(INVALID)] * 5


def test_white_space_around_the_token_is_ignored(api, ann):
    assert api.post(REFRESH, {"refresh": f"\n {ann.refresh}\u2003"}).status_code == 200


def test_access_token_is_refused_as_refresh_token(api, ann):
    assert status_body_and_challenge(api.post(REFRESH, {"refresh": ann.token})) == invalid_token_response("Token has wrong type")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"exp": MISSING}, "Token has no 'exp' claim"),
        ({"exp": "soon"}, INVALID),
        ({"exp": None}, INVALID),
        ({"exp": []}, INVALID),
        ({"iat": "now"}, INVALID),
        ({"nbf": "later"}, INVALID),
        ({"jti": MISSING}, "Token has no id"),
        ({"token_type": MISSING}, "Token has no type"),
        ({"token_type": "sliding"}, "Token has wrong type"),
        ({"token_type": "access"}, "Token has wrong type"),
        ({"token_type": "Refresh"}, "Token has wrong type"),
        ({"token_type": None}, "Token has wrong type"),
        ({"exp": 1}, "Token is expired"),
        ({"exp": 1, "token_type": MISSING}, "Token is expired"),
    ],
)
def test_signed_token_with_invalid_claims_returns_401(api, ann, sign_token, changes, message):
    assert status_body_and_challenge(api.post(REFRESH, {"refresh": sign_token(ann, "refresh", **changes)})) == invalid_token_response(message)


@pytest.mark.parametrize("seconds, message", [(-1, "Token is expired"), (-3600, "Token is expired")])
def test_expired_token_is_refused_without_leeway(api, ann, sign_token, seconds, message):
    assert status_body_and_challenge(api.post(REFRESH, {"refresh": sign_token(ann, "refresh", exp=int(time.time()) + seconds)})) == invalid_token_response(message)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_token_not_valid_yet_returns_401(api, ann, sign_token, claim):
    assert status_body_and_challenge(api.post(REFRESH, {"refresh": sign_token(ann, "refresh", **{claim: int(time.time()) + 300})})) == invalid_token_response(INVALID)


@pytest.mark.parametrize("signing", [{"algorithm": "none", "key": ""}, {"algorithm": "HS384"}, {"algorithm": "HS512"}, {"key": "another-key-" * 4}])
@pytest.mark.parametrize("changes", [{}, {"exp": 1}, {"exp": MISSING, "jti": MISSING}])
def test_token_with_another_algorithm_or_key_returns_401(api, ann, sign_token, signing, changes):
    assert status_body_and_challenge(api.post(REFRESH, {"refresh": sign_token(ann, "refresh", **signing, **changes)})) == invalid_token_response(INVALID)


@pytest.mark.parametrize(
    "changes",
    [{"header": {"kid": "../../etc/passwd"}}, {"header": {"cty": "x"}}, {"admin": True, "aud": "someone", "iss": "x", "sub": "y"},
     {"iat": MISSING}],
)
def test_unknown_claims_and_kid_are_ignored(api, ann, sign_token, changes):
    assert api.post(REFRESH, {"refresh": sign_token(ann, "refresh", **changes)}).status_code == 200


def test_user_id_claim_may_be_an_integer(api, ann, sign_token):
    response = api.post(REFRESH, {"refresh": sign_token(ann, "refresh", user_id=ann.id)})
    assert response.status_code == 200
    assert ann.with_token(response.json()["access"]).get(MOVIES).status_code == 200


def test_token_without_user_id_yields_access_token_without_user_id(api, ann, sign_token):
    response = api.post(REFRESH, {"refresh": sign_token(ann, "refresh", user_id=MISSING)})
    assert response.status_code == 200
    assert "user_id" not in jwt.decode(response.json()["access"], options={"verify_signature": False})


@pytest.mark.parametrize("user_id", [None, "", 0, False, [], {}])
def test_token_with_empty_user_id_yields_access_token_that_is_refused(api, ann, sign_token, user_id):
    response = api.post(REFRESH, {"refresh": sign_token(ann, "refresh", user_id=user_id)})
    assert response.status_code == 200
    access = response.json()["access"]
    assert jwt.decode(access, options={"verify_signature": False})["user_id"] == user_id
    assert ann.with_token(access).get(MOVIES).status_code == 401


def test_token_of_user_who_does_not_exist_returns_401(api, ann, sign_token):
    assert status_body_and_challenge(api.post(REFRESH, {"refresh": sign_token(ann, "refresh", user_id="999999999")})) == (401, NO_ACCOUNT, 'Bearer realm="api"')


@pytest.mark.parametrize("user_id", ["abc", "1.5", "-1", "99999999999999999999", 1.5, [1], {"id": 1}, True])
def test_invalid_user_id_claim_returns_401(api, ann, sign_token, user_id):
    assert api.post(REFRESH, {"refresh": sign_token(ann, "refresh", user_id=user_id)}).status_code == 401


def test_refresh_token_can_be_used_several_times(api, ann):
    assert [api.post(REFRESH, {"refresh": ann.refresh}).status_code for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("header", ["Bearer garbage", "Bearer", "Basic x"])
def test_authorization_header_is_ignored(api, ann, header):
    assert api.post(REFRESH, {"refresh": ann.refresh}, headers={"Authorization": header}).status_code == 200


def test_token_in_query_is_ignored_and_form_is_accepted(api, ann):
    assert outcome(api.post(f"{REFRESH}?refresh={ann.refresh}", {})) == (400, {"refresh": ["This field is required."]})
    assert api.post(REFRESH, form=f"refresh={ann.refresh}").status_code == 200


def test_last_of_repeated_tokens_is_used(api, ann):
    assert api.post_json(REFRESH, with_literal({"x": 1}, "refresh", f'"garbage", "refresh": "{ann.refresh}"')).status_code == 200
