"""POST /api/v1/auth/register/: each field's rules in their exact words, and what a new account is."""
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


def test_a_new_account_is_answered_compactly_in_the_declared_order_without_the_password(api):
    fields = account_fields(first_name="Zoë", last_name="O'Neill \"日本\"")
    response = api.post(REGISTER, fields)
    assert response.status_code == 201
    assert response.headers["Content-Type"].split(";")[0] == "application/json"
    expected = '{"id":%d,"username":"%s","email":"%s","first_name":"Zoë","last_name":"O\'Neill \\"日本\\""}'
    assert response.content.decode() == expected % (response.json()["id"], fields["username"], fields["email"])


def test_ids_are_positive_and_never_given_twice(api):
    first, second = (api.post(REGISTER, account_fields()).json()["id"] for _ in range(2))
    assert 0 < first < second


@pytest.mark.parametrize("first_name", [MISSING, ""])
def test_names_may_be_left_out_or_blank(api, first_name):
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
def test_a_bad_field_is_named_with_its_message(api, field, value, message):
    assert outcome(api.post(REGISTER, account_fields(**{field: value}))) == (400, {field: [message]})


def test_an_empty_object_names_every_required_field_in_the_declared_order(api):
    expected = '{"username":["%s"],"password":["%s"],"password2":["%s"],"email":["%s"]}' % ((REQUIRED,) * 4)
    response = api.post(REGISTER, {})
    assert (response.status_code, response.text) == (400, expected)


def test_every_field_can_be_wrong_at_once_in_the_declared_order(api):
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
def test_letters_and_digits_of_any_script_make_a_username_kept_as_sent(api, username):
    unique = username + unique_word()
    response = api.post(REGISTER, account_fields(username=unique))
    assert (response.status_code, response.json()["username"]) == (201, unique)


@pytest.mark.parametrize(
    "username",
    ["a b", "a\tb", "a\u00a0b", "a!", "a#b", "a/b", "a\\b", "a'b", "<a>", "a,b", "a:b", "a*", "a%", "a&b", "a=b", "a~", "a\u0301",
     "🎬", "a\u200bb", "a\u200db", "a\u00adb", "a\ufeffb", "€", "©", "“a”", "a\u2028b", "a\x7f", "a\x01b", "क\u094d"],
)
def test_other_characters_in_a_username_are_refused(api, username):
    assert outcome(api.post(REGISTER, account_fields(username=unique_word() + username))) == (400, {"username": [BAD_USERNAME]})


@pytest.mark.parametrize(
    "username, messages",
    [
        ("a b" * 60, [BAD_USERNAME, longer_than(150)]),
        ("a\0b", [BAD_USERNAME, NO_NUL]),
        ("a\0b" * 60, [BAD_USERNAME, longer_than(150), NO_NUL]),
    ],
)
def test_a_username_gets_every_message_that_applies_its_format_first(api, username, messages):
    assert outcome(api.post(REGISTER, account_fields(username=username))) == (400, {"username": messages})


def test_a_username_of_150_code_points_is_kept(api):
    username = unique_word() + "𝒜" * 138
    assert api.post(REGISTER, account_fields(username=username)).json()["username"] == username


def test_a_username_is_trimmed_before_it_is_kept_and_compared(api, ann):
    username = unique_word()
    assert api.post(REGISTER, account_fields(username=f" \u3000{username}\x1f\n")).json()["username"] == username
    taken = api.post(REGISTER, account_fields(username=f"\t{ann.username} "))
    assert outcome(taken) == (400, {"username": ["A user with that username already exists."]})


def test_usernames_differ_by_case_and_by_normal_form(api):
    name = unique_word()
    spellings = [f"q{name}", f"Q{name}", f"ｑ{name}"]
    assert [api.post(REGISTER, account_fields(username=spelling)).status_code for spelling in spellings] == [201, 201, 201]


def test_what_is_taken_is_told_beside_the_other_refusals(api, ann):
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
def test_a_weak_password_gets_every_message_that_applies(api, password, messages):
    assert outcome(api.post(REGISTER, account_fields(password=password, password2=password))) == (400, {"password": messages})


def test_a_null_character_in_a_password_is_told_after_its_weakness(api):
    expected = {"password": [SHORT, NO_NUL], "password2": [NO_NUL]}
    assert outcome(api.post(REGISTER, account_fields(password="aB3\0", password2="aB3\0"))) == (400, expected)


@pytest.mark.parametrize(
    "password",
    ["aB3$xyzq", "🎬é日ßж1-q", "correct horse", "password1234567x", "1234567.8901", "-29384756102", "½½½½½½½½", "Aa1-" * 2500],
)
def test_a_password_that_passes_signs_in(api, password):
    fields = account_fields(password=password, password2=password)
    assert api.post(REGISTER, fields).status_code == 201
    assert api.post(TOKEN, {"username": fields["username"], "password": password}).status_code == 200


def test_a_password_is_not_compared_with_the_other_fields(api):
    name = f"parkbench{unique_word()}"
    fields = account_fields(username=name, email=f"{name}@example.com", password=name, password2=name, first_name=name)
    assert api.post(REGISTER, fields).status_code == 201


@pytest.mark.parametrize("password2", [PASSWORD.lower(), PASSWORD + "y", "x", "\u00e9" + PASSWORD])
def test_passwords_that_differ_are_told_once_all_fields_pass(api, password2):
    assert outcome(api.post(REGISTER, account_fields(password2=password2))) == (400, {"password": ["Password fields didn't match."]})


def test_passwords_that_differ_are_not_told_while_another_field_fails(api):
    assert outcome(api.post(REGISTER, account_fields(password2="x", email="nope"))) == (400, {"email": [BAD_EMAIL]})


def test_passwords_are_compared_trimmed_and_as_text(api):
    assert api.post(REGISTER, account_fields(password=f" {PASSWORD}", password2=f"{PASSWORD}\u2003")).status_code == 201
    assert api.post(REGISTER, account_fields(password=12345.625, password2="12345.625")).status_code == 201


@pytest.mark.parametrize(
    "email",
    ["{}@example.com", "{}@EXAMPLE.Com", "{}+tag@a.b.example.org", "A.b-c_{}@example.co", "!#$%&'*+/=?^_`{{}}|~-{}@example.com",
     "{}@xn--bcher-kva.example", "{}@bücher.example", "{}@例え.テスト", "{}@localhost", "{}@[192.0.2.7]", "{}@[2001:db8::1]",
     "{}@1.example", "{}@" + "b" * 63 + ".com", '"{}"@example.com', '"a\\@{}"@example.com', '"..{}"@example.com'],
)
def test_a_good_email_is_kept_as_sent(api, email):
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
def test_a_bad_email_is_refused(api, email):
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
def test_an_email_gets_every_message_that_applies_its_format_last(api, email, messages):
    assert outcome(api.post(REGISTER, account_fields(email=email))) == (400, {"email": messages})


def test_an_email_is_trimmed_before_it_is_kept_and_compared(api, ann):
    email = f"{unique_word()}@example.com"
    assert api.post(REGISTER, account_fields(email=f"\t {email} \n")).json()["email"] == email
    assert outcome(api.post(REGISTER, account_fields(email=f" {ann.email}"))) == (400, {"email": ["This field must be unique."]})


def test_emails_are_unique_as_sent(api):
    name = unique_word()
    spellings = [f"q{name}@example.com", f"Q{name}@example.com", f"q{name}@Example.com"]
    assert [api.post(REGISTER, account_fields(email=spelling)).status_code for spelling in spellings] == [201, 201, 201]


def test_a_name_of_150_code_points_is_kept_whatever_its_bytes(api):
    assert api.post(REGISTER, account_fields(first_name="🎬" * 150)).json()["first_name"] == "🎬" * 150


def test_unknown_fields_change_nothing(api):
    fields = account_fields()
    response = api.post(REGISTER, {**fields, "id": 1, "is_active": False, "is_staff": True, "date_joined": "x", "Username": "y"})
    assert response.status_code == 201
    assert set(response.json()) == {"id", "username", "email", "first_name", "last_name"}
    assert api.post(TOKEN, {"username": fields["username"], "password": PASSWORD}).status_code == 200


def test_a_number_as_username_keeps_all_its_digits(api):
    digits = "9" + str(int(unique_word(), 16)) + "00000000000000000001"
    response = api.post_json(REGISTER, with_literal(account_fields(), "username", digits))
    assert (response.status_code, response.json()["username"]) == (201, digits)


@pytest.mark.parametrize("path", [REGISTER, REGISTER + "?username=query"])
def test_a_form_registers_and_the_query_does_not(api, path):
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
def test_a_bearer_header_that_is_not_good_is_refused_before_the_body(api, header, body):
    response = api.post(REGISTER, {}, headers={"Authorization": header})
    assert (*outcome(response), response.headers["WWW-Authenticate"]) == (401, body, 'Bearer realm="api"')


@pytest.mark.parametrize("header", ["", "Basic dTpw", "bearer garbage", "Token x", "Bearer, x"])
def test_other_schemes_do_not_matter_to_registration(api, header):
    assert api.post(REGISTER, account_fields(), headers={"Authorization": header}).status_code == 201


def test_somebody_signed_in_may_register_another(api, ann):
    assert ann.post(REGISTER, account_fields()).status_code == 201
    assert ann.with_token(ann.refresh).post(REGISTER, account_fields()).status_code == 401
