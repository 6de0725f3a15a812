"""POST /api/v1/movies/ and GET, PUT, PATCH, DELETE /api/v1/movies/{id}/: fields, owners, and what changes."""
import pytest

from helpers.client import MISSING, MOVIES, movie_fields, outcome, unique_word, with_literal

REQUIRED = "This field is required."
NULL = "This field may not be null."
BLANK = "This field may not be blank."
NOT_TEXT = "Not a valid string."
NO_NUL = "Null characters are not allowed."
LONG = "Ensure this field has no more than 100 characters."
NO_INTEGER = "A valid integer is required."
TOO_LARGE = "Ensure this value is less than or equal to 2147483647."
TOO_SMALL = "Ensure this value is greater than or equal to -2147483648."
NO_SUCH_MOVIE = (404, {"detail": "No Movie matches the given query."})
NOT_YOURS = (403, {"detail": "You do not have permission to perform this action."})

BAD_FIELDS = [
    *[(field, None, NULL) for field in ("title", "genre", "year")],
    *[(field, value, BLANK) for field in ("title", "genre") for value in ("", " \t\n", "\u00a0\u3000\x1c")],
    *[(field, value, NOT_TEXT) for field in ("title", "genre") for value in (True, False, [], ["a"], {}, {"a": 1})],
    *[(field, "a\0b", NO_NUL) for field in ("title", "genre")],
    *[(field, value, LONG) for field in ("title", "genre") for value in ("x" * 101, "🎬" * 101, int("9" * 101))],
    *[("year", value, NO_INTEGER) for value in (True, False, [], [1999], {}, 1999.5, 1e-9, "", "  ", "soon", "1999.5", "1e3", "0x7cf")],
    *[("year", value, TOO_LARGE) for value in (2147483648, 10**30, 1e15, "2147483648", "9" * 1000)],
    *[("year", value, TOO_SMALL) for value in (-2147483649, -(10**30), "-2147483649")],
    ("year", "9" * 1001, "String value too large."),
]


def url_of(movie):
    return f"{MOVIES}{movie['id']}/"


def test_post_returns_201_with_compact_json_in_fixed_order_and_the_creator(ann):
    response = ann.post(MOVIES, {"year": 1999, "genre": "Sci-Fi", "title": "Mátrix \"日本\" \\ <b>"})
    assert (response.status_code, response.headers["Content-Type"].split(";")[0]) == (201, "application/json")
    expected = '{"id":%d,"title":"Mátrix \\"日本\\" \\\\ <b>","genre":"Sci-Fi","year":1999,"creator":"%s"}'
    assert response.content.decode() == expected % (response.json()["id"], ann.username)


def test_get_returns_the_movie_as_post_returned_it(ann):
    movie = ann.add_movie(title="a\tb", genre="\u200b", year=-2147483648)
    assert outcome(ann.get(url_of(movie))) == (200, movie)


@pytest.mark.parametrize("field, value, message", [*BAD_FIELDS, *[(field, MISSING, REQUIRED) for field in ("title", "genre", "year")]])
def test_post_with_invalid_field_returns_400_with_its_message(ann, field, value, message):
    assert outcome(ann.post(MOVIES, movie_fields(**{field: value}))) == (400, {field: [message]})


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("field, value, message", BAD_FIELDS)
def test_put_and_patch_with_invalid_field_return_400_and_change_nothing(ann, method, field, value, message):
    movie = ann.add_movie()
    changed = movie_fields(title="other", genre="other", year=1) | {field: value}
    assert outcome(ann.send(method, url_of(movie), json_body=changed)) == (400, {field: [message]})
    assert outcome(ann.get(url_of(movie))) == (200, movie)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_post_and_put_with_missing_fields_return_400(ann, method):
    path = {"POST": MOVIES, "PUT": url_of(ann.add_movie())}[method]
    expected = '{"title":["%s"],"genre":["%s"],"year":["%s"]}' % ((REQUIRED,) * 3)
    response = ann.send(method, path, json_body={"id": 1, "name": "x"})
    assert (response.status_code, response.text) == (400, expected)


def test_text_field_gets_every_message_that_applies(ann):
    wrong = {"title": "\0" + "x" * 100, "genre": [], "year": None}
    assert outcome(ann.post(MOVIES, wrong)) == (400, {"title": [LONG, NO_NUL], "genre": [NOT_TEXT], "year": [NULL]})


@pytest.mark.parametrize("text", ["x" * 100, "🎬" * 100, "  " + "é" * 100 + "\n", "<script>alert(1)</script>", "%s%d{0}", "a\u0001\u007fb",
                                  "\ufeffa", "'; drop table movies; --", "a\\u0000b"])
def test_text_up_to_100_code_points_is_stored_trimmed(ann, text):
    movie = ann.add_movie(title=text, genre=text)
    kept = text.strip()
    assert outcome(ann.get(url_of(movie))) == (200, {**movie, "title": kept, "genre": kept})


@pytest.mark.parametrize(
    "changes",
    [{"title": "only"}, {"genre": "only"}, {"year": -1}, {"title": "a", "genre": "b", "year": 3}, {},
     {"creator": "x", "id": 5, "created_at": "now"}],
)
def test_patch_changes_only_the_fields_sent(ann, changes):
    movie = ann.add_movie()
    expected = {**movie, **{field: value for field, value in changes.items() if field in ("title", "genre", "year")}}
    assert outcome(ann.patch(url_of(movie), changes)) == (200, expected)
    assert outcome(ann.get(url_of(movie))) == (200, expected)


def test_patch_without_body_returns_the_unchanged_movie(ann):
    movie = ann.add_movie()
    assert outcome(ann.patch(url_of(movie))) == (200, movie)


def test_put_replaces_title_genre_and_year_but_not_id_or_creator(ann, bob):
    movie = ann.add_movie()
    sent = {"title": " new ", "genre": 7, "year": "2001", "id": 1, "creator": bob.username, "creator_id": bob.id}
    expected = {"id": movie["id"], "title": "new", "genre": "7", "year": 2001, "creator": ann.username}
    assert outcome(ann.put(url_of(movie), sent)) == (200, expected)
    assert outcome(ann.get(url_of(movie))) == (200, expected)


def test_post_ignores_id_and_creator(ann, bob):
    movie = ann.add_movie(creator=bob.username, creator_id=bob.id, id=1)
    assert (movie["creator"], movie["id"] > 1) == (ann.username, True)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_put_and_patch_accept_forms(ann, method):
    movie = ann.add_movie()
    response = ann.send(method, url_of(movie), form="title=A+%26+B&genre=%C3%A9&year=%2B7")
    assert outcome(response) == (200, {**movie, "title": "A & B", "genre": "é", "year": 7})


def test_delete_returns_204_without_body_and_removes_the_movie(ann):
    movie = ann.add_movie()
    response = ann.delete(url_of(movie))
    assert (response.status_code, response.content, response.headers.get("Content-Type")) == (204, b"", None)
    assert [outcome(ann.send(method, url_of(movie))) for method in ("GET", "PUT", "PATCH", "DELETE")] == [NO_SUCH_MOVIE] * 4
    assert ann.get(f"{MOVIES}?creator__username={ann.username}").json()["count"] == 0


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", None])
def test_delete_ignores_the_body(ann, media_type):
    movie = ann.add_movie()
    headers = {"Content-Type": media_type} if media_type else {}
    assert ann.delete(url_of(movie), raw="{", headers=headers).status_code == 204


def test_get_ignores_the_body(ann):
    movie = ann.add_movie()
    response = ann.get(url_of(movie), raw="{", headers={"Content-Type": "application/xml"})
    assert outcome(response) == (200, movie)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("id", ["0", "000", "999999999", "9223372036854775807", "9223372036854775808", "18446744073709551617", "9" * 300])
def test_unknown_id_returns_404_before_the_body_is_validated(ann, method, id):
    response = ann.send(method, f"{MOVIES}{id}/", raw="{", headers={"Content-Type": "text/plain"})
    assert outcome(response) == NO_SUCH_MOVIE


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
def test_movie_of_another_user_returns_403_for_every_method_with_visibility_own(own_server, method):
    ann, bob = (own_server.client().new_user() for _ in range(2))
    movie = ann.add_movie()
    response = bob.send(method, url_of(movie), json_body=movie_fields())
    assert (response.status_code, response.content) == (403,
                                                        b"" if method == "HEAD" else b'{"detail":"You do not have permission to perform this action."}')
    assert outcome(ann.get(url_of(movie))) == (200, movie)


def test_movie_of_another_user_can_be_read_but_not_changed_with_visibility_shared(shared_server):
    ann, bob = (shared_server.client().new_user() for _ in range(2))
    movie = ann.add_movie()
    assert outcome(bob.get(url_of(movie))) == (200, movie)
    assert bob.send("HEAD", url_of(movie)).status_code == 200
    assert [outcome(bob.send(method, url_of(movie), json_body=movie_fields())) for method in ("PUT", "PATCH", "DELETE")] == [NOT_YOURS] * 3
    assert outcome(ann.get(url_of(movie))) == (200, movie)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "request_body",
    [
        {"raw": "{", "headers": {"Content-Type": "application/json"}},
        {"raw": "x", "headers": {"Content-Type": "text/plain"}},
        {"raw": "null", "headers": {"Content-Type": "application/json"}},
        {"json_body": {"title": None, "year": "x"}},
        {},
    ],
)
def test_permission_is_checked_before_the_body(ann, bob, method, request_body):
    assert outcome(bob.send(method, url_of(ann.add_movie()), **request_body)) == NOT_YOURS


def test_query_parameters_are_not_read_as_fields(ann):
    response = ann.post(f"{MOVIES}?title=a&genre=b&year=1", {"title": "x"})
    assert outcome(response) == (400, {"genre": [REQUIRED], "year": [REQUIRED]})


def test_equal_movies_may_be_created_twice(ann):
    fields = movie_fields()
    first, second = ann.add_movie(**fields), ann.add_movie(**fields)
    assert first["id"] < second["id"]
    assert {**first, "id": 0} == {**second, "id": 0}


@pytest.mark.parametrize("digits", ["{}", "0{}", "000000000000000000000000{}"])
def test_leading_zeros_of_an_id_are_ignored(ann, digits):
    movie = ann.add_movie()
    assert outcome(ann.get(f"{MOVIES}{digits.format(movie['id'])}/")) == (200, movie)


@pytest.mark.parametrize(
    "literal, year",
    [("0", 0), ("-0", 0), ("-0.0", 0), ("1999.0", 1999), ("1999.000", 1999), ("1e3", 1000), ("1E+3", 1000), ("1.5e1", 15), ("19990e-1", 1999),
     ("-2147483648", -2147483648), ("2147483647.0", 2147483647), ("2.147483647e9", 2147483647), ('"1999"', 1999), ('" 1999\\n"', 1999), ('"+7"', 7),
     ('"-7"', -7), ('"-0"', 0), ('"0007"', 7), ('"1_9_9_9"', 1999), ('"1999.0"', 1999), ('"1999."', 1999), ('"1999.000 "', 1999), ('"-5.0"', -5),
     ('"\\u00a01999\\u0085"', 1999), ('"1999.0\\u001c"', 1999)],
)
def test_year_accepts_whole_numbers_in_any_notation(ann, literal, year):
    response = ann.post_json(MOVIES, with_literal(movie_fields(), "year", literal))
    assert (response.status_code, response.json()["year"]) == (201, year)


@pytest.mark.parametrize(
    "literal, message",
    [('"\\u001c1999"', NO_INTEGER), ('"1999\\u001f"', NO_INTEGER), ("1e-1", NO_INTEGER), ("1999.0000001", NO_INTEGER), ("0.5", NO_INTEGER), ('"1__9"', NO_INTEGER), ('"_19"', NO_INTEGER), ('"19_"', NO_INTEGER),
     ('"1 9"', NO_INTEGER), ('"--1"', NO_INTEGER), ('"+-1"', NO_INTEGER), ('".0"', NO_INTEGER), ('"1.0.0"', NO_INTEGER), ('"1.01"', NO_INTEGER),
     ('"1,999"', NO_INTEGER), ('"NaN"', NO_INTEGER), ('"Infinity"', NO_INTEGER), ('"null"', NO_INTEGER), ('"1\\u0000"', NO_INTEGER),
     ('"½"', NO_INTEGER),
     ("18446744073709551616", TOO_LARGE), ("9007199254740993", TOO_LARGE), ("1e10", TOO_LARGE), ("-1e10", TOO_SMALL),
     ("9" * 4000, TOO_LARGE), ("-" + "9" * 4000, TOO_SMALL), (f'"-{"9" * 999}"', TOO_SMALL)],
)
def test_year_refuses_other_numbers_and_texts(ann, literal, message):
    assert outcome(ann.post_json(MOVIES, with_literal(movie_fields(), "year", literal))) == (400, {"year": [message]})


@pytest.mark.parametrize("field", ["title", "genre", "year"])
@pytest.mark.parametrize("literal", ["1e400", "-1E400", "1e99999999999"])
def test_infinite_number_returns_400(ann, field, literal):
    assert ann.post_json(MOVIES, with_literal(movie_fields(), field, literal)).status_code == 400


def test_movie_can_be_changed_with_a_later_token_of_the_same_user(api, ann):
    movie = ann.add_movie(title=unique_word())
    ann.sign_in()
    assert ann.delete(url_of(movie)).status_code == 204
