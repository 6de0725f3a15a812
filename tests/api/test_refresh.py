"""POST /api/v1/auth/refresh/ and its alias: a new access token for a good refresh token, and every way to be none."""
import re
import time
from email.utils import parsedate_to_datetime

import jwt
import pytest

from helpers.client import MISSING, MOVIES, REFRESH, REFRESH_ALIAS, outcome, with_literal

INVALID = "Token is invalid"
GONE = {"detail": "No active account found for the given token."}


def refused(response):
    """Status, body and challenge of a refusal."""
    return (*outcome(response), response.headers.get("WWW-Authenticate"))


def refusal(message):
    return 401, {"detail": message, "code": "token_not_valid"}, 'Bearer realm="api"'


@pytest.mark.parametrize("path", [REFRESH, REFRESH_ALIAS])
def test_both_paths_answer_an_access_token_that_works(api, ann, path):
    response = api.post(path, {"refresh": ann.refresh})
    assert response.status_code == 200
    assert re.fullmatch(r'\{"access":"[\w-]+\.[\w-]+\.[\w-]+"\}', response.text)
    assert ann.with_token(response.json()["access"]).get(MOVIES).status_code == 200


def test_the_new_token_is_an_access_token_of_the_same_user_with_an_id_of_its_own(api, ann):
    responses = [api.post(REFRESH, {"refresh": ann.refresh}) for _ in range(2)]
    tokens = [ann.refresh, *(response.json()["access"] for response in responses)]
    refresh, first, second = (jwt.decode(token, options={"verify_signature": False}) for token in tokens)
    assert set(first) == {"token_type", "exp", "iat", "jti", "user_id"}
    assert (first["token_type"], first["user_id"]) == ("access", str(ann.id))
    assert len({claims["jti"] for claims in (refresh, first, second)}) == 3
    # By the service's clock, which need not be this machine's.
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
def test_a_bad_field_is_named_with_its_message(api, value, message):
    body = {} if value is MISSING else {"refresh": value}
    assert outcome(api.post(REFRESH, body)) == (400, {"refresh": [message]})


@pytest.mark.parametrize("token", ["garbage", "..", "a.b", "a.b.c", "a.b.c.d", 5, 1.5, "é.ж.日", "x" * 10_000, "eyJhbGciOiJIUzI1NiJ9.e30."])
def test_what_is_no_token_is_invalid(api, token):
    assert refused(api.post(REFRESH, {"refresh": token})) == refusal(INVALID)


def test_a_changed_token_is_invalid(api, ann):
    head, claims, signature = ann.refresh.split(".")
    changed = [f"{ann.refresh}x", f"{head}.{claims}.", f"{head}.{claims}", f"{head}.{claims}x.{signature}", f"{head}.{claims}.{signature[::-1]}"]
    assert [refused(api.post(REFRESH, {"refresh": token})) for token in changed] == [refusal(INVALID)] * 5


def test_white_space_around_the_token_is_trimmed(api, ann):
    assert api.post(REFRESH, {"refresh": f"\n {ann.refresh}\u2003"}).status_code == 200


def test_an_access_token_has_the_wrong_type(api, ann):
    assert refused(api.post(REFRESH, {"refresh": ann.token})) == refusal("Token has wrong type")


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
def test_a_signed_token_with_odd_claims_is_refused(api, ann, sign_token, changes, message):
    assert refused(api.post(REFRESH, {"refresh": sign_token(ann, "refresh", **changes)})) == refusal(message)


@pytest.mark.parametrize("seconds, message", [(-1, "Token is expired"), (-3600, "Token is expired")])
def test_an_expired_token_has_no_leeway(api, ann, sign_token, seconds, message):
    assert refused(api.post(REFRESH, {"refresh": sign_token(ann, "refresh", exp=int(time.time()) + seconds)})) == refusal(message)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_token_of_the_future_is_invalid(api, ann, sign_token, claim):
    assert refused(api.post(REFRESH, {"refresh": sign_token(ann, "refresh", **{claim: int(time.time()) + 300})})) == refusal(INVALID)


@pytest.mark.parametrize("signing", [{"algorithm": "none", "key": ""}, {"algorithm": "HS384"}, {"algorithm": "HS512"}, {"key": "another-key-" * 4}])
@pytest.mark.parametrize("changes", [{}, {"exp": 1}, {"exp": MISSING, "jti": MISSING}])
def test_another_algorithm_or_key_is_invalid_whatever_the_claims(api, ann, sign_token, signing, changes):
    assert refused(api.post(REFRESH, {"refresh": sign_token(ann, "refresh", **signing, **changes)})) == refusal(INVALID)


@pytest.mark.parametrize(
    "changes",
    [{"header": {"kid": "../../etc/passwd"}}, {"header": {"cty": "x"}}, {"admin": True, "aud": "someone", "iss": "x", "sub": "y"},
     {"iat": MISSING}],
)
def test_unknown_claims_and_kid_are_ignored(api, ann, sign_token, changes):
    assert api.post(REFRESH, {"refresh": sign_token(ann, "refresh", **changes)}).status_code == 200


def test_a_user_id_may_be_an_integer(api, ann, sign_token):
    response = api.post(REFRESH, {"refresh": sign_token(ann, "refresh", user_id=ann.id)})
    assert response.status_code == 200
    assert ann.with_token(response.json()["access"]).get(MOVIES).status_code == 200


def test_a_token_without_a_user_yields_one_without(api, ann, sign_token):
    response = api.post(REFRESH, {"refresh": sign_token(ann, "refresh", user_id=MISSING)})
    assert response.status_code == 200
    assert "user_id" not in jwt.decode(response.json()["access"], options={"verify_signature": False})


@pytest.mark.parametrize("nobody", [None, "", 0, False, [], {}])
def test_a_token_for_nobody_yields_one_that_opens_nothing(api, ann, sign_token, nobody):
    response = api.post(REFRESH, {"refresh": sign_token(ann, "refresh", user_id=nobody)})
    assert response.status_code == 200
    access = response.json()["access"]
    assert jwt.decode(access, options={"verify_signature": False})["user_id"] == nobody
    assert ann.with_token(access).get(MOVIES).status_code == 401


def test_a_user_who_does_not_exist_is_refused(api, ann, sign_token):
    assert refused(api.post(REFRESH, {"refresh": sign_token(ann, "refresh", user_id="999999999")})) == (401, GONE, 'Bearer realm="api"')


@pytest.mark.parametrize("user_id", ["abc", "1.5", "-1", "99999999999999999999", 1.5, [1], {"id": 1}, True])
def test_a_user_id_that_is_no_id_of_a_user_is_401(api, ann, sign_token, user_id):
    assert api.post(REFRESH, {"refresh": sign_token(ann, "refresh", user_id=user_id)}).status_code == 401


def test_a_refresh_token_can_be_used_again(api, ann):
    assert [api.post(REFRESH, {"refresh": ann.refresh}).status_code for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("header", ["Bearer garbage", "Bearer", "Basic x"])
def test_the_authorization_header_is_not_looked_at(api, ann, header):
    assert api.post(REFRESH, {"refresh": ann.refresh}, headers={"Authorization": header}).status_code == 200


def test_the_token_is_read_from_the_body_alone(api, ann):
    assert outcome(api.post(f"{REFRESH}?refresh={ann.refresh}", {})) == (400, {"refresh": ["This field is required."]})
    assert api.post(REFRESH, form=f"refresh={ann.refresh}").status_code == 200


def test_of_repeated_tokens_the_last_counts(api, ann):
    assert api.post_json(REFRESH, with_literal({"x": 1}, "refresh", f'"garbage", "refresh": "{ann.refresh}"')).status_code == 200
