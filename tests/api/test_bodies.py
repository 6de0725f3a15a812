"""Request bodies on every route that takes one: media types, JSON syntax, forms, and conversion of values to text."""
import pytest

from helpers.client import MOVIES, REFRESH, REGISTER, TOKEN, movie_fields, outcome, unique_word, with_literal

REQUIRED = ["This field is required."]
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ROUTES = {
    REGISTER: dict.fromkeys(("username", "password", "password2", "email"), REQUIRED),
    TOKEN: dict.fromkeys(("username", "password"), REQUIRED),
    REFRESH: {"refresh": REQUIRED},
    MOVIES: dict.fromkeys(("title", "genre", "year"), REQUIRED),
}
every_route = pytest.mark.parametrize("path", ROUTES)


@every_route
@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/xml; charset=utf-8", "multipart/form-data; boundary=b", "text/json", "application/jsonp",
                   "application/json-seq",
                   "application/vnd.api+json", "json", "*/*", "x\\y", 'a"b"', "application/x-www-form-urlencodedx"]
)
def test_unsupported_media_type_returns_415_and_quotes_it(ann, path, media_type):
    response = ann.send("POST", path, raw="{}", headers={"Content-Type": media_type})
    assert outcome(response) == (415, {"detail": f'Unsupported media type "{media_type}" in request.'})


@every_route
def test_body_without_content_type_returns_415(ann, path):
    assert outcome(ann.send_raw("POST", path, body=b"{}")) == (415, {"detail": 'Unsupported media type "" in request.'})


@every_route
@pytest.mark.parametrize("media_type", ["application/json", "APPLICATION/json", "application/json; charset=utf-8",
                                        "application/json;charset=latin-1", "application/json ;x=y"])
def test_json_media_type_matches_in_any_case_and_with_parameters(ann, path, media_type):
    assert outcome(ann.send("POST", path, raw="{}", headers={"Content-Type": media_type})) == (400, ROUTES[path])


@pytest.mark.parametrize(
    "types", [["application/json", "text/plain"], ["text/plain", "application/json"], ["application/json; charset=utf-8", "application/json"], ["", "application/json"]]
)
def test_two_different_content_types_return_415(ann, types):
    response = ann.send_raw("POST", "/api/v1/movies/", [("Content-Type", media_type) for media_type in types], b"{}")
    assert outcome(response) == (415, {"detail": f'Unsupported media type "{",".join(types)}" in request.'})


def test_repeated_equal_content_type_is_accepted(ann):
    response = ann.send_raw("POST", "/api/v1/movies/", [("Content-Type", "application/json"), ("content-type", "application/json")], b"{}")
    assert (response.status_code, "title" in response.json()) == (400, True)


@every_route
@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded; charset=UTF-8"])
def test_form_media_type_matches_in_any_case_and_with_parameters(ann, path, media_type):
    assert outcome(ann.send("POST", path, raw="a=b", headers={"Content-Type": media_type})) == (400, ROUTES[path])


@every_route
@pytest.mark.parametrize("headers", [[], [("Content-Length", "0")], [("Content-Type", "text/plain"), ("Content-Length", "0")],
                                     [("Content-Type", "application/json")]])
def test_missing_body_counts_as_empty_body(ann, path, headers):
    assert outcome(ann.send_raw("POST", path, headers)) == (400, ROUTES[path])


@every_route
@pytest.mark.parametrize(
    "text, message",
    [
        ("[]", "Invalid data. Expected a dictionary, but got list."),
        ('[{"a": 1}]', "Invalid data. Expected a dictionary, but got list."),
        ('"text"', "Invalid data. Expected a dictionary, but got str."),
        ('""', "Invalid data. Expected a dictionary, but got str."),
        ("7", "Invalid data. Expected a dictionary, but got int."),
        ("-0", "Invalid data. Expected a dictionary, but got int."),
        ("123456789012345678901234567890", "Invalid data. Expected a dictionary, but got int."),
        ("7.0", "Invalid data. Expected a dictionary, but got float."),
        ("1e3", "Invalid data. Expected a dictionary, but got float."),
        ("true", "Invalid data. Expected a dictionary, but got bool."),
        ("false", "Invalid data. Expected a dictionary, but got bool."),
        (" null\n", "No data provided"),
    ],
)
def test_json_body_that_is_not_an_object_returns_400_with_its_type(ann, path, text, message):
    assert outcome(ann.post_json(path, text)) == (400, {"non_field_errors": [message]})


@every_route
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("text, message", [("[]", "Invalid data. Expected a dictionary, but got list."), ("null", "No data provided")])
def test_put_and_patch_with_body_that_is_not_an_object_return_400(ann, path, method, text, message):
    movie = ann.add_movie()
    response = ann.send(method, f"{MOVIES}{movie['id']}/", raw=text, headers=JSON)
    assert outcome(response) == (400, {"non_field_errors": [message]})


BROKEN = [
    b"{", b"}", b"[", b"   ", b"hello", b"{'a': 1}", b'{"a": 1,}', b'{"a" 1}', b'{"a": }', b'{a: 1}', b'{"a": 1 "b": 2}', b"{} {}", b"{}x",
    b"{} // hi",
    b"/* */ {}", b'{"a": 01}', b'{"a": +1}', b'{"a": .5}', b'{"a": 1.}', b'{"a": 1e}', b'{"a": 0x1}', b'{"a": NaN}', b'{"a": Infinity}',
    b'{"a": -Infinity}',
    b'{"a": True}', b'{"a": nul}', b'{"a": "b', b'{"a": "\n"}', b'{"a": "\t"}', b'{"a": "\0"}', b'{"a": "\\x41"}', b'{"a": "\\u12"}',
    b'{"a": "\\"}',
    b'{"a": "\xff"}', b'{"\xc3": 1}', b'{"a": "\xed\xa0\x80"}', b'{"a": "\xc0\xaf"}', b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b"\0",
    b"{}\0", b"\x1f{}", b"\xc2\xa0{}",
]


@every_route
@pytest.mark.parametrize("body", BROKEN)
def test_malformed_json_returns_400_with_parse_error(ann, path, body):
    response = ann.send("POST", path, raw=body, headers=JSON)
    assert response.status_code == 400
    assert list(response.json()) == ["detail"]
    assert response.json()["detail"].startswith("JSON parse error - ")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_put_and_patch_with_malformed_json_change_nothing(ann, method):
    movie = ann.add_movie()
    response = ann.send(method, f"{MOVIES}{movie['id']}/", raw='{"title": "x", "genre": "x", "year": 1', headers=JSON)
    assert (response.status_code, list(response.json())) == (400, ["detail"])
    assert outcome(ann.get(f"{MOVIES}{movie['id']}/")) == (200, movie)


@every_route
@pytest.mark.parametrize("piece, tail", [("[", ""), ('{"a":', ""), ("[", "]" * 100_000), ('{"title":[', "")])
def test_json_nested_100_000_levels_deep_returns_400(ann, path, piece, tail):
    response = ann.post_json(path, piece * 100_000 + tail)
    assert (response.status_code, list(response.json())) == (400, ["detail"])


@pytest.mark.parametrize("depth", [1, 10, 60, 100])
def test_nested_unknown_field_is_ignored(ann, depth):
    assert ann.post_json(MOVIES, with_literal(movie_fields(), "x", "[" * depth + "]" * depth)).status_code == 201


@pytest.mark.parametrize("literal", ['"\\ud800"', '"\\udfff"', '"a\\ud83cb"', '"\\udfac\\ud83c"', '"\\ud83c\\u0041"', '"\\uD83C\\uD83C\\uDFAC"'])
@pytest.mark.parametrize("field", ["title", "year", "unknown"])
def test_unpaired_surrogate_returns_400(ann, field, literal):
    assert ann.post_json(MOVIES, with_literal(movie_fields(), field, literal)).status_code == 400


@pytest.mark.parametrize(
    "literal, title",
    [('"\\u00e9\\ud83c\\udfac\\/\\b\\f\\t\\"\\\\."', "é🎬/\b\f\t\"\\."), ('"\\u0041\\uFFFF"', "A\uffff"), ('"é日\u2028x"', "é日\u2028x"),
     ('"a\x7fb"', "a\x7fb"), ('"\\\\u0041"', "\\u0041")],
)
def test_json_escapes_are_decoded_like_plain_utf_8(ann, literal, title):
    response = ann.send("POST", MOVIES, raw=with_literal(movie_fields(), "title", literal), headers=JSON)
    assert (response.status_code, response.json().get("title")) == (201, title)


def test_last_of_repeated_json_keys_is_used(ann):
    response = ann.post_json(MOVIES, '{"title": null, "title": "a", "genre": [], "genre": "b", "year": "x", "year": 1, "\\u0079ear": 2}')
    assert (response.json()["title"], response.json()["genre"], response.json()["year"]) == ("a", "b", 2)
    assert outcome(ann.post_json(MOVIES, '{"title": "a", "title": "", "genre": "b", "year": 1}')) == (400,
            {"title": ["This field may not be blank."]})


@pytest.mark.parametrize("text", [' \r\n\t{} \r\n\t', "{ }", "{}"])
def test_white_space_around_json_is_ignored(ann, text):
    assert outcome(ann.post_json(MOVIES, text)) == (400, ROUTES[MOVIES])


@pytest.mark.parametrize(
    "literal, text",
    [("12", "12"), ("-0", "0"), ("-7", "-7"), ("1.5", "1.5"), ("1.50", "1.5"), ("1.0", "1.0"), ("-0.0", "-0.0"), ("0.1", "0.1"),
     ("1e2", "100.0"), ("1E-2", "0.01"),
     ("0.0001", "0.0001"), ("0.00001", "1e-05"), ("1.25e-7", "1.25e-07"), ("1e15", "1000000000000000.0"), ("1e16", "1e+16"),
     ("123456789012345678.0", "1.2345678901234568e+17"),
     ("9007199254740993", "9007199254740993"), ("9007199254740993.0", "9007199254740992.0"), ("1e22", "1e+22"),
     ("1.7976931348623157e308", "1.7976931348623157e+308"),
     ("5e-324", "5e-324"), ("1e-400", "0.0"), ("2.50e3", "2500.0"), ("18446744073709551616", "18446744073709551616"),
     ("-170141183460469231731687303715884105729", "-170141183460469231731687303715884105729"),
     ("0.30000000000000004", "0.30000000000000004"), ("100000000000000000000.5", "1e+20"), ("9" * 100, "9" * 100)],
)
def test_number_in_text_field_is_converted_as_python_prints_it(ann, literal, text):
    response = ann.post_json(MOVIES, with_literal(movie_fields(), "title", literal))
    assert (response.status_code, response.json().get("title")) == (201, text)


@pytest.mark.parametrize(
    "space", ["\t", "\n", "\x0b", "\x0c", "\r", "\x1c", "\x1d", "\x1e", "\x1f", " ", "\x85", "\xa0", "\u1680", "\u2000", "\u2007", "\u200a",
              "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"]
)
def test_leading_and_trailing_white_space_is_trimmed(ann, space):
    assert ann.add_movie(title=f"{space}a{space}b{space}{space}")["title"] == f"a{space}b"


@pytest.mark.parametrize("mark", ["\u200b", "\u200e", "\u2060", "\ufeff", "\u180e", "\x1b", "\u00ad"])
def test_other_invisible_characters_are_not_trimmed(ann, mark):
    assert ann.add_movie(title=f"{mark}a{mark}")["title"] == f"{mark}a{mark}"


@pytest.mark.parametrize(
    "form, movie",
    [
        ("title=a+b%20c&genre=%2B%26%3D%25&year=7", {"title": "a b c", "genre": "+&=%", "year": 7}),
        ("title=%C3%A9%E6%97%A5&genre=%F0%9F%8E%AC&year=%2D7", {"title": "é日", "genre": "🎬", "year": -7}),
        ("title=%ff&genre=a%c3&year=1", {"title": "\ufffd", "genre": "a\ufffd", "year": 1}),
        ("title=%zz%4&genre=100%&year=1", {"title": "%zz%4", "genre": "100%", "year": 1}),
        ("title=a;genre=b&genre=c=d&year=1", {"title": "a;genre=b", "genre": "c=d", "year": 1}),
        ("&&title=a&&genre=b&year=1&", {"title": "a", "genre": "b", "year": 1}),
        ("title=x&title=y&genre=&genre=b&year=x&year=1", {"title": "y", "genre": "b", "year": 1}),
        ("t%69tle=a&genre=b&year=+1.0+", {"title": "a", "genre": "b", "year": 1}),
        ("title=true&genre=null&year=1", {"title": "true", "genre": "null", "year": 1}),
        ("title=%5B1%5D&genre=\"g\"&year=1", {"title": "[1]", "genre": '"g"', "year": 1}),
        ("year=1&genre=b&title=%09a%0A", {"title": "a", "genre": "b", "year": 1}),
    ],
)
def test_form_fields_are_url_decoded(ann, form, movie):
    response = ann.post(MOVIES, form=form)
    assert outcome(response) == (201, {"id": response.json().get("id"), **movie, "creator": ann.username})


@pytest.mark.parametrize(
    "form, errors",
    [
        ("title&genre=b&year=1", {"title": ["This field may not be blank."]}),
        ("title=a&genre=b&year", {"year": ["A valid integer is required."]}),
        ("title=a%00b&genre=b&year=1", {"title": ["Null characters are not allowed."]}),
        ("title[]=a&genre=b&year=1", {"title": REQUIRED}),
        ("Title=a&genre=b&year=1", {"title": REQUIRED}),
        ("title=a;genre=b;year=1", {"genre": REQUIRED, "year": REQUIRED}),
        ('{"title": "a"}', ROUTES[MOVIES]),
        ("=a", ROUTES[MOVIES]),
        ("&", ROUTES[MOVIES]),
    ],
)
def test_form_fields_are_validated_like_json_fields(ann, form, errors):
    assert outcome(ann.post(MOVIES, form=form)) == (400, errors)


def test_non_utf_8_bytes_in_a_form_become_replacement_characters(ann):
    response = ann.send("POST", MOVIES, raw=b"title=\xff\xfea&genre=\xc3\xa9&year=1", headers=FORM)
    assert (response.status_code, response.json().get("title"), response.json().get("genre")) == (201, "\ufffd\ufffda", "é")


def test_chunked_body_is_accepted(ann):
    mark = unique_word()
    text = '{"title": "%s", "genre": "g", "year": 1}' % mark
    response = ann.send("POST", MOVIES, raw=iter([text[:9].encode(), text[9:].encode()]), headers=JSON)
    assert response.request.headers["Transfer-Encoding"] == "chunked"
    assert (response.status_code, response.json().get("title")) == (201, mark)
