"""GET /api/v1/movies/: order, pages, links between pages, and visibility."""
import pytest

from helpers.client import MOVIES, MovieCollection, outcome, unique_word

INVALID_PAGE = (404, {"detail": "Invalid page."})


@pytest.fixture(scope="module")
def twelve_movies(base):
    """Twelve movies with the titles 0 to 11."""
    collection = MovieCollection(base, [(str(number), "Drama", 2000 + number) for number in range(12)])
    yield collection
    collection.close()


def test_list_is_compact_json_in_fixed_order(ann):
    movie = ann.add_movie(title=f"{unique_word()} Zoë \"日本\"", genre="Drame", year=-7)
    response = ann.get(f"{MOVIES}?creator__username={ann.username}")
    listed = '{"id":%d,"title":"%s","genre":"Drame","year":-7,"creator":"%s"}'
    listed %= (movie["id"], movie["title"].replace('"', '\\"'), ann.username)
    assert (response.status_code, response.headers["Content-Type"].split(";")[0]) == (200, "application/json")
    assert response.content.decode() == '{"count":1,"next":null,"previous":null,"results":[%s]}' % listed


def test_newest_movies_come_first_and_changes_keep_the_order(ann):
    first, second, third = (ann.add_movie() for _ in range(3))
    changed = ann.patch(f"{MOVIES}{first['id']}/", {"year": 1}).json()
    assert ann.get(f"{MOVIES}?creator__username={ann.username}").json()["results"] == [third, second, changed]


def test_list_contains_only_own_movies_with_visibility_own(own_server):
    ann, bob = (own_server.client().new_user() for _ in range(2))
    bob.add_movie(title="bob's")
    assert outcome(ann.get(MOVIES)) == (200, {"count": 0, "next": None, "previous": None, "results": []})
    assert ann.get(f"{MOVIES}?title=bob").json()["count"] == 0
    assert ann.get(f"{MOVIES}?creator__username={bob.username}").json()["count"] == 0


def test_list_contains_all_movies_with_visibility_shared(shared_server):
    ann, bob = (shared_server.client().new_user() for _ in range(2))
    mark = unique_word()
    own, other = ann.add_movie(title=f"{mark} a"), bob.add_movie(title=f"{mark} b")
    assert ann.get(f"{MOVIES}?title={mark}").json()["results"] == [other, own]
    assert ann.get(f"{MOVIES}?title={mark}&creator__username={bob.username.upper()}").json()["results"] == [other]
    assert ann.get(MOVIES).json()["results"][:2] == [other, own]


def test_pages_contain_each_movie_once_with_visibility_shared(shared_server):
    ann, bob = (shared_server.client().new_user() for _ in range(2))
    mark = unique_word()
    added = [user.add_movie(title=f"{mark} {number}")["id"] for number in range(4) for user in (ann, bob)]
    pages = [ann.get(f"{MOVIES}?title={mark}&page_size=3&page={page}").json()["results"] for page in (1, 2, 3)]
    assert [movie["id"] for page in pages for movie in page] == added[::-1]


@pytest.mark.parametrize(
    "page, titles, next_page, previous",
    [
        ("1", range(11, 1, -1), "page=2&", None),
        ("2", range(1, -1, -1), None, ""),
        ("last", range(1, -1, -1), None, ""),
        ("01", range(11, 1, -1), "page=2&", None),
        ("0002", range(1, -1, -1), None, ""),
        ("%201%20", range(11, 1, -1), "page=2&", None),
        ("+2+", range(1, -1, -1), None, ""),
        ("", range(11, 1, -1), "page=2&", None),
        ("2&page=", range(11, 1, -1), "page=2&", None),
    ],
)
def test_page_parameter_takes_a_number_or_last(twelve_movies, page, titles, next_page, previous):
    body = twelve_movies.get(f"page={page}").json()
    assert [movie["title"] for movie in body["results"]] == [f"{twelve_movies.mark} {number}" for number in titles]
    link = f"{twelve_movies.user.base}{MOVIES}?{{}}title={twelve_movies.mark}"
    assert body["next"] == (next_page and link.format(next_page))
    assert body["previous"] == (None if previous is None else link.format(previous))
    assert body["count"] == 12


@pytest.mark.parametrize(
    "page",
    ["0", "00", "3", "+", "%1C1", "1%1F", "-1", "1.0", "1.5", "1e0", "abc", "first", "LAST", "Last", "lastx", "0x1", "null", "1,2", "1 2", "%00", "1%00",
     "NaN", "inf", "true", "99999999999999999999", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "%ff", "'"],
)
def test_invalid_page_returns_404(twelve_movies, page):
    assert outcome(twelve_movies.get(f"page={page}")) == INVALID_PAGE


@pytest.mark.parametrize("page, expected", [("1", 200), ("last", 200), ("2", 404), ("0", 404)])
def test_first_page_of_an_empty_list_is_empty_and_others_return_404(ann, page, expected):
    response = ann.get(f"{MOVIES}?title={unique_word()}&page={page}")
    empty = (200, {"count": 0, "next": None, "previous": None, "results": []})
    assert outcome(response) == (empty if expected == 200 else INVALID_PAGE)


@pytest.mark.parametrize(
    "page_size, number",
    [("1", 1), ("5", 5), ("11", 11), ("12", 12), ("100", 12), ("007", 7), ("%205%20", 5), ("+3+", 3), ("101", 12), ("99999999999999999999", 12),
     ("0", 10), ("-1", 10), ("-5", 10), ("abc", 10), ("1.5", 10), ("2.0", 10), ("1e1", 10), ("", 10), ("0x5", 10), ("null", 10),
     ("5,6", 10), ("%00", 10)],
)
def test_page_has_page_size_movies_or_ten_if_page_size_is_invalid(twelve_movies, page_size, number):
    assert len(twelve_movies.get(f"page_size={page_size}").json()["results"]) == number


def test_ten_movies_fit_one_page_and_eleven_need_two(ann):
    mark = unique_word()
    for _ in range(10):
        ann.add_movie(title=mark)
    one_page = ann.get(f"{MOVIES}?title={mark}").json()
    ann.add_movie(title=mark)
    two_pages = ann.get(f"{MOVIES}?title={mark}").json()
    assert (len(one_page["results"]), one_page["next"]) == (10, None)
    assert (len(two_pages["results"]), two_pages["next"]) == (10, f"{ann.base}{MOVIES}?page=2&title={mark}")


def test_page_size_is_at_most_100(ann):
    mark = unique_word()
    for _ in range(101):
        ann.add_movie(title=mark)
    first = ann.get(f"{MOVIES}?title={mark}&page_size=1000").json()
    assert (first["count"], len(first["results"])) == (101, 100)
    assert first["next"] == f"{ann.base}{MOVIES}?page=2&page_size=1000&title={mark}"
    assert len(ann.get(first["next"].removeprefix(ann.base)).json()["results"]) == 1


def test_next_and_previous_links_visit_every_movie_once(twelve_movies):
    forward_pages, backward_pages = [], []
    path = f"{MOVIES}?title={twelve_movies.mark}&page_size=5"
    while path:
        page = twelve_movies.user.get(path).json()
        forward_pages.append([movie["id"] for movie in page["results"]])
        path, last = page["next"] and page["next"].removeprefix(twelve_movies.user.base), path
    while last:
        page = twelve_movies.user.get(last).json()
        backward_pages.append([movie["id"] for movie in page["results"]])
        last = page["previous"] and page["previous"].removeprefix(twelve_movies.user.base)
    assert sum(forward_pages, []) == [movie["id"] for movie in twelve_movies.movies[::-1]]
    assert backward_pages == forward_pages[::-1]


def test_link_to_first_page_has_no_page_parameter(own_server):
    ann = own_server.client().new_user()
    for _ in range(11):
        ann.add_movie()
    assert ann.get(f"{MOVIES}?page=2").json()["previous"] == f"{ann.base}{MOVIES}"
    assert ann.get(MOVIES).json()["next"] == f"{ann.base}{MOVIES}?page=2"


@pytest.mark.parametrize(
    "query, kept",
    [
        ("zeta=1&alpha=2", "alpha=2&page=2&page_size=5&title={mark}&zeta=1"),
        ("Z=1&a=2&_=3&0=4", "0=4&Z=1&_=3&a=2&page=2&page_size=5&title={mark}"),
        ("tag=b&tag=a&tag=c", "page=2&page_size=5&tag=b&tag=a&tag=c&title={mark}"),
        ("x", "page=2&page_size=5&title={mark}&x="),
        ("x=&x", "page=2&page_size=5&title={mark}&x=&x="),
        ("&&x=1&&", "page=2&page_size=5&title={mark}&x=1"),
        ("x=a%20b+c", "page=2&page_size=5&title={mark}&x=a+b+c"),
        ("x=%2B%26%3D%25%23%3F%2F", "page=2&page_size=5&title={mark}&x=%2B%26%3D%25%23%3F%2F"),
        ("x=a=b==c", "page=2&page_size=5&title={mark}&x=a%3Db%3D%3Dc"),
        ("x=~*-._!()';:@$,[]", "page=2&page_size=5&title={mark}&x=~%2A-._%21%28%29%27%3B%3A%40%24%2C%5B%5D"),
        ("x=%c3%a9%E6%97%A5", "page=2&page_size=5&title={mark}&x=%C3%A9%E6%97%A5"),
        ("x=%F0%9F%8E%AC", "page=2&page_size=5&title={mark}&x=%F0%9F%8E%AC"),
        ("x=%ff%fe", "page=2&page_size=5&title={mark}&x=%EF%BF%BD%EF%BF%BD"),
        ("x=%zz%4", "page=2&page_size=5&title={mark}&x=%25zz%254"),
        ("x=%00%0A%0D", "page=2&page_size=5&title={mark}&x=%00%0A%0D"),
        ("x=%3Cscript%3E%22", "page=2&page_size=5&title={mark}&x=%3Cscript%3E%22"),
        ("a%20%5B%5D=1", "a+%5B%5D=1&page=2&page_size=5&title={mark}"),
        ("=v", "=v&page=2&page_size=5&title={mark}"),
        ("page=1", "page=2&page_size=5&title={mark}"),
        ("page=last&page=1", "page=2&page_size=5&title={mark}"),
        ("p%61ge=1", "page=2&page_size=5&title={mark}"),
        ("year__gt=", "page=2&page_size=5&title={mark}&year__gt="),
    ],
)
def test_links_keep_query_parameters_sorted_and_form_encoded(twelve_movies, query, kept):
    response = twelve_movies.user.send_raw("GET", f"{MOVIES}?page_size=5&{query}&title={twelve_movies.mark}")
    assert response.json()["next"] == f"{twelve_movies.user.base}{MOVIES}?{kept.format(mark=twelve_movies.mark)}"


def test_links_keep_non_ascii_query_parameters(twelve_movies):
    response = twelve_movies.user.send_raw("GET", f"{MOVIES}?q=é日&page_size=5&title={twelve_movies.mark}")
    assert response.json()["next"] == f"{twelve_movies.user.base}{MOVIES}?page=2&page_size=5&q=%C3%A9%E6%97%A5&title={twelve_movies.mark}"


@pytest.mark.parametrize(
    "host", ["movies.example", "Movies.EXAMPLE:8443", "localhost:80", "192.0.2.7", "192.0.2.7:8000", "[::1]", "[2001:db8::7]:8080",
             "a-b.c-d.example", "x"]
)
def test_links_use_the_host_header(twelve_movies, host):
    body = twelve_movies.get("page_size=6&page=2", headers={"Host": host}).json()
    assert body["previous"] == f"http://{host}{MOVIES}?page_size=6&title={twelve_movies.mark}"


@pytest.mark.parametrize("header", ["X-Forwarded-Host", "X-Forwarded-Server", "X-Host", "X-Original-Host", "X-HTTP-Host-Override"])
def test_links_ignore_other_headers(twelve_movies, header):
    headers = {header: "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "444", "Forwarded": "host=evil.example;proto=https"}
    assert twelve_movies.get("page_size=6", headers=headers).json()["next"] == f"{twelve_movies.user.base}{MOVIES}?page=2&page_size=6&title={twelve_movies.mark}"


@pytest.mark.parametrize(
    "query",
    ["page=1&page=2", "title=x&title={mark}&page=2", "page_size=1&page_size=10&page=2", "year=x&year=&page=2", "page=2&title={mark}"],
)
def test_last_of_repeated_query_parameters_is_used(twelve_movies, query):
    assert twelve_movies.titles(query.format(mark=twelve_movies.mark)) == ["1", "0"]


def test_count_and_links_respect_filters(twelve_movies):
    body = twelve_movies.get("year__gt=2001&year__lt=2010&page_size=3&page=2").json()
    assert (body["count"], [movie["year"] for movie in body["results"]]) == (8, [2006, 2005, 2004])
    assert body["next"].endswith(f"?page=3&page_size=3&title={twelve_movies.mark}&year__gt=2001&year__lt=2010")
