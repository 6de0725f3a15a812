"""POST /api/v1/auth/register/: the rules and messages of each field, and the new account."""
import pytest

from helpers.client import MISSING, PASSWORD, REGISTER, TOKEN, account_fields, outcome, unique_word, with_literal

REQUIRED = "This field is required."
NULL = "This field may not be null."
BLANK = "This field may not be blank."
NOT_TEXT = "Not a valid string."
NO_NUL = "Null characters are not allowed."
BAD_USERNAME = "Enter a valid username. This value may contain only letters, numbers, and @/./+/-/_ characters."
BAD_EMAIL = "Enter a valid email address."
SHORT = "This password is too short. It must contain at least 8 characters."
COMMON = "This password is too common."
NUMERIC = "This password is entirely numeric."


def longer_than(limit):
    return f"Ensure this field has no more than {limit} characters."


def test_registration_returns_compact_json_in_fixed_order_without_password(api):
    fields = account_fields(first_name="Zoë", last_name="O'Neill \"日本\"")
    response = api.post(REGISTER, fields)
    assert response.status_code == 201
    assert response.headers["Content-Type"].split(";")[0] == "application/json"
    expected = '{"id":%d,"username":"%s","email":"%s","first_name":"Zoë","last_name":"O\'Neill \\"日本\\""}'
    assert response.content.decode() == expected % (response.json()["id"], fields["username"], fields["email"])


def test_ids_are_positive_and_unique(api):
    first, second = (api.post(REGISTER, account_fields()).json()["id"] for _ in range(2))
    assert 0 < first < second


@pytest.mark.parametrize("first_name", [MISSING, ""])
def test_first_and_last_name_may_be_missing_or_blank(api, first_name):
    fields = account_fields(first_name=first_name, last_name=MISSING)
    response = api.post(REGISTER, fields)
    assert response.status_code == 201
    assert (response.json()["first_name"], response.json()["last_name"]) == ("", "")


@pytest.mark.parametrize(
    "field, value, message",
    [
        *[(field, MISSING, REQUIRED) for field in ("username", "password", "password2", "email")],
        *[(field, None, NULL) for field in ("username", "password", "password2", "email", "first_name", "last_name")],
        *[(field, "", BLANK) for field in ("username", "password", "password2", "email")],
        *[(field, "\t\u2003\n", BLANK) for field in ("username", "password", "password2", "email")],
        *[(field, True, NOT_TEXT) for field in ("username", "password", "password2", "first_name", "last_name")],
        *[(field, ["x"], NOT_TEXT) for field in ("username", "password", "password2", "first_name", "last_name")],
        *[(field, {}, NOT_TEXT) for field in ("username", "password", "password2", "first_name", "last_name")],
        *[("email", value, BAD_EMAIL) for value in (False, [], {"a": "b"}, 7, 1.5)],
        *[(field, "Long\0 enough-9", NO_NUL) for field in ("password", "password2", "first_name", "last_name")],
        *[(field, "é" * 151, longer_than(150)) for field in ("username", "first_name", "last_name")],
    ],
)
def test_invalid_field_returns_400_with_its_message(api, field, value, message):
    assert outcome(api.post(REGISTER, account_fields(**{field: value}))) == (400, {field: [message]})


def test_empty_object_reports_all_required_fields_in_order(api):
    expected = '{"username":["%s"],"password":["%s"],"password2":["%s"],"email":["%s"]}' % ((REQUIRED,) * 4)
    response = api.post(REGISTER, {})
    assert (response.status_code, response.text) == (400, expected)


def test_all_invalid_fields_are_reported_in_order(api):
    wrong = dict(username="a b", password="1234567", password2=None, email="x@", first_name=[], last_name="x" * 151)
    response = api.post(REGISTER, wrong)
    assert response.status_code == 400
    assert list(response.json().items()) == [
        ("username", [BAD_USERNAME]),
        ("password", [SHORT, COMMON, NUMERIC]),
        ("password2", [NULL]),
        ("email", [BAD_EMAIL]),
        ("first_name", [NOT_TEXT]),
        ("last_name", [longer_than(150)]),
    ]


@pytest.mark.parametrize(
    "username",
    ["zoë", "Ärger.Öl", "日本語", "жизнь", "ελληνικά", "٣٤٥", "a@b.c+d-e_f", "½", "²", "Ⅷ", "ª", "__", "-", "Ａ１", "ﬁ", "𝒜", "ǅ", "هند"],
)
def test_username_may_have_letters_and_digits_of_any_script(api, username):
    unique = username + unique_word()
    response = api.post(REGISTER, account_fields(username=unique))
    assert (response.status_code, response.json()["username"]) == (201, unique)


@pytest.mark.parametrize(
    "username",
    ["a b", "a\tb", "a\u00a0b", "a!", "a#b", "a/b", "a\\b", "a'b", "<a>", "a,b", "a:b", "a*", "a%", "a&b", "a=b", "a~", "a\u0301",
     "🎬", "a\u200bb", "a\u200db", "a\u00adb", "a\ufeffb", "€", "©", "“a”", "a\u2028b", "a\x7f", "a\x01b", "क\u094d"],
)
def test_username_with_other_characters_returns_400(api, username):
    assert outcome(api.post(REGISTER, account_fields(username=unique_word() + username))) == (400, {"username": [BAD_USERNAME]})


@pytest.mark.parametrize(
    "username, messages",
    [
        ("a b" * 60, [BAD_USERNAME, longer_than(150)]),
        ("a\0b", [BAD_USERNAME, NO_NUL]),
        ("a\0b" * 60, [BAD_USERNAME, longer_than(150), NO_NUL]),
    ],
)
def test_username_gets_every_message_that_applies_format_first(api, username, messages):
    assert outcome(api.post(REGISTER, account_fields(username=username))) == (400, {"username": messages})


def test_username_of_150_code_points_is_accepted(api):
    username = unique_word() + "𝒜" * 138
    assert api.post(REGISTER, account_fields(username=username)).json()["username"] == username


def test_username_is_trimmed_before_storing_and_comparing(api, ann):
    username = unique_word()
    assert api.post(REGISTER, account_fields(username=f" \u3000{username}\x1f\n")).json()["username"] == username
    taken = api.post(REGISTER, account_fields(username=f"\t{ann.username} "))
    assert outcome(taken) == (400, {"username": ["A user with that username already exists."]})


def test_usernames_that_differ_in_case_or_normal_form_are_different(api):
    name = unique_word()
    spellings = [f"q{name}", f"Q{name}", f"ｑ{name}"]
    assert [api.post(REGISTER, account_fields(username=spelling)).status_code for spelling in spellings] == [201, 201, 201]


def test_taken_username_and_email_are_reported_with_other_errors(api, ann):
    again = account_fields(username=ann.username, email=ann.email, password="password", password2="x", first_name=None)
    assert outcome(api.post(REGISTER, again)) == (
        400,
        {
            "username": ["A user with that username already exists."],
            "password": [COMMON],
            "email": ["This field must be unique."],
            "first_name": [NULL],
        },
    )


@pytest.mark.parametrize(
    "password, messages",
    [
        ("aB3$xyz", [SHORT]),
        ("🎬é日ßж1-", [SHORT]),
        ("password123", [COMMON]),
        ("PassWord123", [COMMON]),
        ("  password123\n", [COMMON]),
        ("ILOVEYOU", [COMMON]),
        ("9283746501928", [NUMERIC]),
        ("٩٢٨٣٧٤٦٥٠١", [NUMERIC]),
        ("12345678", [COMMON, NUMERIC]),
        ("dragon", [SHORT, COMMON]),
        ("8401", [SHORT, NUMERIC]),
        ("123456", [SHORT, COMMON, NUMERIC]),
    ],
)
def test_weak_password_gets_every_message_that_applies(api, password, messages):
    assert outcome(api.post(REGISTER, account_fields(password=password, password2=password))) == (400, {"password": messages})


def test_null_character_in_password_is_reported_after_weakness(api):
    expected = {"password": [SHORT, NO_NUL], "password2": [NO_NUL]}
    assert outcome(api.post(REGISTER, account_fields(password="aB3\0", password2="aB3\0"))) == (400, expected)


@pytest.mark.parametrize(
    "password",
    ["aB3$xyzq", "🎬é日ßж1-q", "correct horse", "password1234567x", "1234567.8901", "-29384756102", "½½½½½½½½", "Aa1-" * 2500],
)
def test_accepted_password_signs_in(api, password):
    fields = account_fields(password=password, password2=password)
    assert api.post(REGISTER, fields).status_code == 201
    assert api.post(TOKEN, {"username": fields["username"], "password": password}).status_code == 200


def test_password_is_not_compared_with_other_fields(api):
    name = f"parkbench{unique_word()}"
    fields = account_fields(username=name, email=f"{name}@example.com", password=name, password2=name, first_name=name)
    assert api.post(REGISTER, fields).status_code == 201


@pytest.mark.parametrize("password2", [PASSWORD.lower(), PASSWORD + "y", "x", "\u00e9" + PASSWORD])
def test_different_passwords_are_reported_if_all_fields_are_valid(api, password2):
    assert outcome(api.post(REGISTER, account_fields(password2=password2))) == (400, {"password": ["Password fields didn't match."]})


def test_different_passwords_are_not_reported_if_a_field_is_invalid(api):
    assert outcome(api.post(REGISTER, account_fields(password2="x", email="nope"))) == (400, {"email": [BAD_EMAIL]})


def test_passwords_are_compared_as_trimmed_text(api):
    assert api.post(REGISTER, account_fields(password=f" {PASSWORD}", password2=f"{PASSWORD}\u2003")).status_code == 201
    assert api.post(REGISTER, account_fields(password=12345.625, password2="12345.625")).status_code == 201


@pytest.mark.parametrize(
    "email",
    ["{}@example.com", "{}@EXAMPLE.Com", "{}+tag@a.b.example.org", "A.b-c_{}@example.co", "!#$%&'*+/=?^_`{{}}|~-{}@example.com",
     "{}@xn--bcher-kva.example", "{}@bücher.example", "{}@例え.テスト", "{}@localhost", "{}@[192.0.2.7]", "{}@[2001:db8::1]",
     "{}@1.example", "{}@" + "b" * 63 + ".com", '"{}"@example.com', '"a\\@{}"@example.com', '"..{}"@example.com'],
)
def test_valid_email_is_stored_unchanged(api, email):
    sent = email.format(unique_word())
    response = api.post(REGISTER, account_fields(email=sent))
    assert (response.status_code, response.json()["email"]) == (201, sent)


@pytest.mark.parametrize(
    "email",
    ["plain", "@example.com", "a@", "a@b", "a@b.c", "a@b.1", "a@b@example.com", "a b@example.com", "a@exa mple.com", "a@.com",
     "a@example..com", "a@example.com.", "a@-example.com", "a@example-.com", "a@exa_mple.com", ".a@example.com", "a.@example.com",
     "a..b@example.com", "é@example.com", "a,b@example.com", "a(b)@example.com", '"a b"@example.com', '"a@example.com',
     "a@[256.1.1.1]", "a@[1.2.3]", "a@[::g]", "a@[127.0.0.1", "a@127.0.0.1", "a@example.c", "a@" + "b" * 64 + ".com",
     "a\n@example.com", "<a@example.com>", "mailto:a@example.com", "a@example.com,b@example.com"],
)
def test_invalid_email_returns_400(api, email):
    assert outcome(api.post(REGISTER, account_fields(email=email))) == (400, {"email": [BAD_EMAIL]})


@pytest.mark.parametrize(
    "email, messages",
    [
        ("a@" + "b" * 300, [longer_than(254), BAD_EMAIL]),
        ("a\0b@example.com", [NO_NUL, BAD_EMAIL]),
        ("\0" + "a" * 300, [longer_than(254), NO_NUL, BAD_EMAIL]),
        ("a@" + "b." * 130 + "example.com", [longer_than(254)]),
    ],
)
def test_email_gets_every_message_that_applies_format_last(api, email, messages):
    assert outcome(api.post(REGISTER, account_fields(email=email))) == (400, {"email": messages})


def test_email_is_trimmed_before_storing_and_comparing(api, ann):
    email = f"{unique_word()}@example.com"
    assert api.post(REGISTER, account_fields(email=f"\t {email} \n")).json()["email"] == email
    assert outcome(api.post(REGISTER, account_fields(email=f" {ann.email}"))) == (400, {"email": ["This field must be unique."]})


def test_emails_that_differ_in_case_are_different(api):
    name = unique_word()
    spellings = [f"q{name}@example.com", f"Q{name}@example.com", f"q{name}@Example.com"]
    assert [api.post(REGISTER, account_fields(email=spelling)).status_code for spelling in spellings] == [201, 201, 201]


def test_name_of_150_code_points_is_accepted(api):
    assert api.post(REGISTER, account_fields(first_name="🎬" * 150)).json()["first_name"] == "🎬" * 150


def test_unknown_fields_are_ignored(api):
    fields = account_fields()
    response = api.post(REGISTER, {**fields, "id": 1, "is_active": False, "is_staff": True, "date_joined": "x", "Username": "y"})
    assert response.status_code == 201
    assert set(response.json()) == {"id", "username", "email", "first_name", "last_name"}
    assert api.post(TOKEN, {"username": fields["username"], "password": PASSWORD}).status_code == 200


def test_number_as_username_keeps_all_digits(api):
    digits = "9" + str(int(unique_word(), 16)) + "00000000000000000001"
    response = api.post_json(REGISTER, with_literal(account_fields(), "username", digits))
    assert (response.status_code, response.json()["username"]) == (201, digits)


@pytest.mark.parametrize("path", [REGISTER, REGISTER + "?username=query"])
def test_form_is_accepted_and_query_is_ignored(api, path):
    name = unique_word()
    form = f"username={name}&email={name}%40example.com&password=Two+w%C3%B6rds%21&password2=Two+w%C3%B6rds%21&first_name=%20Ann+Lee"
    response = api.post(path, form=form)
    expected = {"username": name, "email": f"{name}@example.com", "first_name": "Ann Lee", "last_name": ""}
    assert outcome(response) == (201, {"id": response.json()["id"], **expected})
    assert api.post(TOKEN, {"username": name, "password": "Two wörds!"}).status_code == 200


NOT_TWO = {"detail": "Authorization header must contain two space-delimited values", "code": "bad_authorization_header"}
NOT_GOOD = {
    "detail": "Given token not valid for any token type",
    "code": "token_not_valid",
    "messages": [{"token_class": "AccessToken", "token_type": "access", "message": "Token is invalid"}],
}


@pytest.mark.parametrize("header, body", [("Bearer", NOT_TWO), ("Bearer a b", NOT_TWO), ("Bearer garbage", NOT_GOOD), ("Bearer a.b.c", NOT_GOOD)])
def test_invalid_bearer_token_is_refused_before_the_body_is_validated(api, header, body):
    response = api.post(REGISTER, {}, headers={"Authorization": header})
    assert (*outcome(response), response.headers["WWW-Authenticate"]) == (401, body, 'Bearer realm="api"')


@pytest.mark.parametrize("header", ["", "Basic dTpw", "bearer garbage", "Token x", "Bearer, x"])
def test_other_authorization_schemes_are_ignored(api, header):
    assert api.post(REGISTER, account_fields(), headers={"Authorization": header}).status_code == 201


def test_signed_in_user_may_register_another_user(api, ann):
    assert ann.post(REGISTER, account_fields()).status_code == 201
    assert ann.with_token(ann.refresh).post(REGISTER, account_fields()).status_code == 401
