"""The Authorization header on protected routes: accepted and refused tokens, and what is checked before and after the token."""
import time

import pytest

from helpers.client import MISSING, MOVIES, outcome

ABSENT = {"detail": "Authentication credentials were not provided."}
NOT_TWO = {"detail": "Authorization header must contain two space-delimited values", "code": "bad_authorization_header"}
NO_USER_ID = {"detail": "Token contained no recognizable user identification", "code": "token_not_valid"}
NO_SUCH_USER = {"detail": "User not found", "code": "user_not_found"}
CHALLENGE = 'Bearer realm="api"'

PROTECTED = [
    ("GET", MOVIES),
    ("HEAD", MOVIES),
    ("POST", MOVIES),
    ("PUT", MOVIES),
    ("PATCH", MOVIES),
    ("DELETE", MOVIES),
    ("BREW", MOVIES),
    *[(method, f"{MOVIES}1/") for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "POST", "BREW")],
    ("GET", f"{MOVIES}999999999/"),
    ("GET", f"{MOVIES}99999999999999999999/"),
]


def not_valid(message):
    messages = [{"token_class": "AccessToken", "token_type": "access", "message": message}]
    return {"detail": "Given token not valid for any token type", "code": "token_not_valid", "messages": messages}


def list_with_authorization(client, header):
    """Lists movies with this Authorization header; returns status, body and WWW-Authenticate."""
    response = client.get(MOVIES, headers={"Authorization": header})
    return (*outcome(response), response.headers.get("WWW-Authenticate"))


@pytest.mark.parametrize("method, path", PROTECTED)
def test_protected_route_without_token_returns_401_for_every_method(api, method, path):
    response = api.send(method, path, raw="{", headers={"Content-Type": "text/plain"})
    body = b"" if method == "HEAD" else ABSENT
    assert (*outcome(response), response.headers["WWW-Authenticate"]) == (401, body, CHALLENGE)


@pytest.mark.parametrize("method, path", PROTECTED)
def test_protected_route_with_token_of_unknown_user_returns_401_for_every_method(api, ann, sign_token, method, path):
    response = api.with_token(sign_token(ann, "access", user_id="999999999")).send(method, path)
    body = b"" if method == "HEAD" else NO_SUCH_USER
    assert (*outcome(response), response.headers["WWW-Authenticate"]) == (401, body, CHALLENGE)


@pytest.mark.parametrize("header", ["", "{token}", "bearer {token}", "BEARER {token}", "Token {token}", "Basic dTpw", "JWT {token}",
                                    "Bearer:{token}", "Bearer,{token}"])
def test_header_with_another_scheme_counts_as_missing(ann, header):
    assert list_with_authorization(ann, header.format(token=ann.token)) == (401, ABSENT, CHALLENGE)


@pytest.mark.parametrize("header", ["Bearer", "Bearer {token} x", "Bearer a b c", "Bearer {token} {token}", "Bearer Bearer {token}",
                                    "Bearer {token} ,"])
def test_bearer_header_without_exactly_one_token_returns_401(ann, header):
    assert list_with_authorization(ann, header.format(token=ann.token)) == (401, NOT_TWO, CHALLENGE)


@pytest.mark.parametrize("separator", [b" ", b"   ", b"\t", b" \t \t"])
@pytest.mark.parametrize("end", [b"", b"  ", b"\t"])
def test_any_white_space_separates_scheme_and_token(ann, separator, end):
    header = b"Bearer" + separator + ann.token.encode() + end
    assert ann.send_raw("GET", MOVIES, [("Authorization", header)]).status_code == 200


@pytest.mark.parametrize("form", ["garbage", "a.b.c", "{token}x", "{token}.x", "x{token}", '"{token}"', "<{token}>", "{token},", "..",
                                  "null", "{token}=", "%20"])
def test_malformed_token_returns_401(ann, form):
    assert list_with_authorization(ann, f"Bearer {form}".format(token=ann.token)) == (401, not_valid("Token is invalid"), CHALLENGE)


def test_token_with_non_utf_8_bytes_returns_401(ann):
    response = ann.send_raw("GET", MOVIES, [("Authorization", b"Bearer t\xf6k\xff\xfen")])
    assert outcome(response) == (401, not_valid("Token is invalid"))


def test_refresh_token_is_refused_as_access_token(ann):
    assert list_with_authorization(ann, f"Bearer {ann.refresh}") == (401, not_valid("Token has wrong type"), CHALLENGE)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"exp": MISSING}, "Token has no 'exp' claim"),
        ({"exp": "soon"}, "Token is invalid"),
        ({"exp": {}}, "Token is invalid"),
        ({"jti": MISSING}, "Token has no id"),
        ({"token_type": MISSING}, "Token has no type"),
        ({"token_type": "sliding"}, "Token has wrong type"),
        ({"token_type": "ACCESS"}, "Token has wrong type"),
        ({"token_type": 1}, "Token has wrong type"),
        ({"exp": 0}, "Token is expired"),
        ({"exp": -1}, "Token is expired"),
        ({"exp": 1, "token_type": "refresh"}, "Token is expired"),
        ({"exp": 1, "user_id": MISSING}, "Token is expired"),
    ],
)
def test_signed_token_with_invalid_claims_returns_401(ann, sign_token, changes, message):
    response = ann.with_token(sign_token(ann, "access", **changes)).get(MOVIES)
    assert outcome(response) == (401, not_valid(message))


def test_token_expired_one_second_ago_returns_401(ann, sign_token):
    assert list_with_authorization(ann, f"Bearer {sign_token(ann, 'access', exp=int(time.time()) - 1)}") == (401, not_valid("Token is expired"), CHALLENGE)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_token_not_valid_yet_returns_401(ann, sign_token, claim):
    token = sign_token(ann, "access", **{claim: int(time.time()) + 300})
    assert list_with_authorization(ann, f"Bearer {token}") == (401, not_valid("Token is invalid"), CHALLENGE)


@pytest.mark.parametrize("changes", [{"nbf": 1}, {"iat": 1}, {"iat": MISSING}, {"exp": 2**40}, {"admin": True, "aud": "x", "iss": "y", "sub": "z"}])
def test_unknown_claims_and_past_dates_are_accepted(ann, sign_token, changes):
    assert ann.with_token(sign_token(ann, "access", **changes)).get(MOVIES).status_code == 200


@pytest.mark.parametrize("header", [{"kid": "../../dev/null"}, {"kid": ""}, {"jku": "http://127.0.0.1/"}, {"typ": "x"}])
def test_token_header_cannot_choose_the_key(ann, sign_token, header):
    assert ann.with_token(sign_token(ann, "access", header=header)).get(MOVIES).status_code == 200
    forged = sign_token(ann, "access", header=header, key="another-key-another-key-another-key")
    assert list_with_authorization(ann, f"Bearer {forged}") == (401, not_valid("Token is invalid"), CHALLENGE)


@pytest.mark.parametrize("critical", [["exp"], ["x"], []])
def test_token_with_critical_extensions_returns_401(ann, sign_token, critical):
    token = sign_token(ann, "access", header={"crit": critical})
    assert list_with_authorization(ann, f"Bearer {token}") == (401, not_valid("Token is invalid"), CHALLENGE)


@pytest.mark.parametrize("signing", [{"algorithm": "none", "key": ""}, {"algorithm": "HS384"}, {"algorithm": "HS512"}, {"key": "another-key-" * 4}])
@pytest.mark.parametrize("changes", [{}, {"exp": 1}, {"token_type": "refresh"}])
def test_signature_is_checked_before_claims(ann, sign_token, signing, changes):
    forged = sign_token(ann, "access", **signing, **changes)
    assert list_with_authorization(ann, f"Bearer {forged}") == (401, not_valid("Token is invalid"), CHALLENGE)


def test_token_with_truncated_or_missing_signature_returns_401(ann):
    invalid_tokens = [ann.token[:-1], ann.token.rsplit(".", 1)[0], ann.token.rsplit(".", 1)[0] + "."]
    assert [list_with_authorization(ann, f"Bearer {token}") for token in invalid_tokens] == [(401, not_valid("Token is invalid"), CHALLENGE)] * 3


def test_token_without_user_id_returns_401_with_its_own_message(ann, sign_token):
    assert list_with_authorization(ann, f"Bearer {sign_token(ann, 'access', user_id=MISSING)}") == (401, NO_USER_ID, CHALLENGE)


def test_user_id_claim_may_be_an_integer(ann, sign_token):
    ann.add_movie(title="mine")
    results = ann.with_token(sign_token(ann, "access", user_id=ann.id)).get(f"{MOVIES}?creator__username={ann.username}").json()["results"]
    assert [movie["title"] for movie in results] == ["mine"]


@pytest.mark.parametrize("user_id", ["999999999", 999999999, "0", 0, "9223372036854775807", None, False])
def test_token_of_user_who_does_not_exist_returns_401(ann, sign_token, user_id):
    assert list_with_authorization(ann, f"Bearer {sign_token(ann, 'access', user_id=user_id)}") == (401, NO_SUCH_USER, CHALLENGE)


@pytest.mark.parametrize("user_id", ["abc", "", "1.5", "1e3", "99999999999999999999", "-9223372036854775809", None, 2.5, [1], {"id": 1},
                                     True, "1\0"])
def test_user_id_claim_that_is_not_an_integer_returns_401(ann, sign_token, user_id):
    assert ann.with_token(sign_token(ann, "access", user_id=user_id)).get(MOVIES).status_code == 401


@pytest.mark.parametrize("path", ["?year=x", "?page=99", "?title=%00", "?page_size=x"])
def test_token_is_checked_before_query_parameters(api, path):
    assert outcome(api.get(MOVIES + path)) == (401, ABSENT)


@pytest.mark.parametrize("path", [f"{MOVIES}abc/", f"{MOVIES}1/x/", "/api/v1/nothing/"])
def test_unknown_path_returns_404_even_with_invalid_token(api, path):
    assert outcome(api.with_token("garbage").get(path)) == (404, {"detail": "Not found."})


def test_token_in_query_or_cookie_is_ignored(ann):
    assert outcome(ann.get(f"{MOVIES}?access={ann.token}&token={ann.token}",
                           headers={"Authorization": "", "Cookie": f"access={ann.token}"})) == (401, ABSENT)


@pytest.mark.parametrize(
    "headers, expected",
    [
        (["Bearer {token}", "Bearer {token}"], NOT_TWO),
        (["Bearer {token}", "Bearer x"], NOT_TWO),
        (["Bearer x", "Bearer {token}"], NOT_TWO),
        (["Bearer {token}", "Basic dTpw"], NOT_TWO),
        (["Bearer", "Bearer {token}"], ABSENT),
        (["Basic dTpw", "Bearer {token}"], ABSENT),
        (["", "Bearer {token}"], ABSENT),
        (["Bearer {token}", ""], not_valid("Token is invalid")),
        (["Bearer {token}", "x"], not_valid("Token is invalid")),
        (["", ""], ABSENT),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_two_authorization_headers_count_as_one_joined_by_a_comma(ann, headers, expected, method):
    sent = [("Authorization", header.format(token=ann.token)) for header in headers]
    response = ann.send_raw(method, MOVIES, sent)
    assert (*outcome(response), response.headers["WWW-Authenticate"]) == (401, expected, CHALLENGE)


def test_two_authorization_headers_are_refused_where_the_header_is_optional(ann):
    body = b"username="
    sent = [("Authorization", f"Bearer {ann.token}")] * 2 + [("Content-Type", "application/x-www-form-urlencoded")]
    assert outcome(ann.send_raw("POST", "/api/v1/auth/register/", sent, body)) == (401, NOT_TWO)
    sent[0] = ("Authorization", "Basic dTpw")
    assert ann.send_raw("POST", "/api/v1/auth/register/", sent, body).status_code == 400
