"""GET /api/v1/movies/: order, pages, their links, and whose movies are listed."""
import pytest

from helpers.client import MOVIES, MovieCollection, outcome, unique_word

INVALID_PAGE = (404, {"detail": "Invalid page."})


@pytest.fixture(scope="module")
def dozen(base):
    """Twelve movies, titled 0 to 11."""
    shelf = MovieCollection(base, [(str(number), "Drama", 2000 + number) for number in range(12)])
    yield shelf
    shelf.close()


def test_a_movie_is_listed_compactly_in_the_declared_order(ann):
    movie = ann.add_movie(title=f"{unique_word()} Zoë \"日本\"", genre="Drame", year=-7)
    response = ann.get(f"{MOVIES}?creator__username={ann.username}")
    listed = '{"id":%d,"title":"%s","genre":"Drame","year":-7,"creator":"%s"}'
    listed %= (movie["id"], movie["title"].replace('"', '\\"'), ann.username)
    assert (response.status_code, response.headers["Content-Type"].split(";")[0]) == (200, "application/json")
    assert response.content.decode() == '{"count":1,"next":null,"previous":null,"results":[%s]}' % listed


def test_newest_come_first_and_a_change_moves_nothing(ann):
    first, second, third = (ann.add_movie() for _ in range(3))
    changed = ann.patch(f"{MOVIES}{first['id']}/", {"year": 1}).json()
    assert ann.get(f"{MOVIES}?creator__username={ann.username}").json()["results"] == [third, second, changed]


def test_one_s_own_shelf_holds_no_other_s_movies(own_server):
    ann, bob = (own_server.client().new_user() for _ in range(2))
    bob.add_movie(title="bob's")
    assert outcome(ann.get(MOVIES)) == (200, {"count": 0, "next": None, "previous": None, "results": []})
    assert ann.get(f"{MOVIES}?title=bob").json()["count"] == 0
    assert ann.get(f"{MOVIES}?creator__username={bob.username}").json()["count"] == 0


def test_with_shared_everybody_s_movies_are_listed_and_filtered(shared_server):
    ann, bob = (shared_server.client().new_user() for _ in range(2))
    mark = unique_word()
    mine, yours = ann.add_movie(title=f"{mark} a"), bob.add_movie(title=f"{mark} b")
    assert ann.get(f"{MOVIES}?title={mark}").json()["results"] == [yours, mine]
    assert ann.get(f"{MOVIES}?title={mark}&creator__username={bob.username.upper()}").json()["results"] == [yours]
    assert ann.get(MOVIES).json()["results"][:2] == [yours, mine]


def test_shared_pages_go_through_everybody_s_movies_once(shared_server):
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
def test_a_page_is_asked_for_by_number_or_as_last(dozen, page, titles, next_page, previous):
    body = dozen.get(f"page={page}").json()
    assert [movie["title"] for movie in body["results"]] == [f"{dozen.mark} {number}" for number in titles]
    link = f"{dozen.user.base}{MOVIES}?{{}}title={dozen.mark}"
    assert body["next"] == (next_page and link.format(next_page))
    assert body["previous"] == (None if previous is None else link.format(previous))
    assert body["count"] == 12


@pytest.mark.parametrize(
    "page",
    ["0", "00", "3", "+", "%1C1", "1%1F", "-1", "1.0", "1.5", "1e0", "abc", "first", "LAST", "Last", "lastx", "0x1", "null", "1,2", "1 2", "%00", "1%00",
     "NaN", "inf", "true", "99999999999999999999", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "%ff", "'"],
)
def test_any_other_page_is_not_found(dozen, page):
    assert outcome(dozen.get(f"page={page}")) == INVALID_PAGE


@pytest.mark.parametrize("page, expected", [("1", 200), ("last", 200), ("2", 404), ("0", 404)])
def test_page_1_of_nothing_is_an_empty_page(ann, page, expected):
    response = ann.get(f"{MOVIES}?title={unique_word()}&page={page}")
    empty = (200, {"count": 0, "next": None, "previous": None, "results": []})
    assert outcome(response) == (empty if expected == 200 else INVALID_PAGE)


@pytest.mark.parametrize(
    "page_size, number",
    [("1", 1), ("5", 5), ("11", 11), ("12", 12), ("100", 12), ("007", 7), ("%205%20", 5), ("+3+", 3), ("101", 12), ("99999999999999999999", 12),
     ("0", 10), ("-1", 10), ("-5", 10), ("abc", 10), ("1.5", 10), ("2.0", 10), ("1e1", 10), ("", 10), ("0x5", 10), ("null", 10),
     ("5,6", 10), ("%00", 10)],
)
def test_a_page_holds_page_size_movies_and_ten_if_that_is_no_size(dozen, page_size, number):
    assert len(dozen.get(f"page_size={page_size}").json()["results"]) == number


def test_ten_movies_fill_one_page_and_eleven_make_two(ann):
    mark = unique_word()
    for _ in range(10):
        ann.add_movie(title=mark)
    full = ann.get(f"{MOVIES}?title={mark}").json()
    ann.add_movie(title=mark)
    over = ann.get(f"{MOVIES}?title={mark}").json()
    assert (len(full["results"]), full["next"]) == (10, None)
    assert (len(over["results"]), over["next"]) == (10, f"{ann.base}{MOVIES}?page=2&title={mark}")


def test_a_page_size_over_100_means_100(ann):
    mark = unique_word()
    for _ in range(101):
        ann.add_movie(title=mark)
    first = ann.get(f"{MOVIES}?title={mark}&page_size=1000").json()
    assert (first["count"], len(first["results"])) == (101, 100)
    assert first["next"] == f"{ann.base}{MOVIES}?page=2&page_size=1000&title={mark}"
    assert len(ann.get(first["next"].removeprefix(ann.base)).json()["results"]) == 1


def test_following_next_visits_every_movie_once_and_previous_goes_back(dozen):
    forth, back = [], []
    path = f"{MOVIES}?title={dozen.mark}&page_size=5"
    while path:
        page = dozen.user.get(path).json()
        forth.append([movie["id"] for movie in page["results"]])
        path, last = page["next"] and page["next"].removeprefix(dozen.user.base), path
    while last:
        page = dozen.user.get(last).json()
        back.append([movie["id"] for movie in page["results"]])
        last = page["previous"] and page["previous"].removeprefix(dozen.user.base)
    assert sum(forth, []) == [movie["id"] for movie in dozen.movies[::-1]]
    assert back == forth[::-1]


def test_the_link_to_page_1_has_no_page_and_may_have_no_query(own_server):
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
def test_links_keep_the_parameters_sorted_by_name_and_encoded_as_a_form(dozen, query, kept):
    response = dozen.user.send_raw("GET", f"{MOVIES}?page_size=5&{query}&title={dozen.mark}")
    assert response.json()["next"] == f"{dozen.user.base}{MOVIES}?{kept.format(mark=dozen.mark)}"


def test_bytes_past_ascii_in_the_query_are_kept(dozen):
    response = dozen.user.send_raw("GET", f"{MOVIES}?q=é日&page_size=5&title={dozen.mark}")
    assert response.json()["next"] == f"{dozen.user.base}{MOVIES}?page=2&page_size=5&q=%C3%A9%E6%97%A5&title={dozen.mark}"


@pytest.mark.parametrize(
    "host", ["movies.example", "Movies.EXAMPLE:8443", "localhost:80", "192.0.2.7", "192.0.2.7:8000", "[::1]", "[2001:db8::7]:8080",
             "a-b.c-d.example", "x"]
)
def test_links_follow_the_host_as_sent(dozen, host):
    body = dozen.get("page_size=6&page=2", headers={"Host": host}).json()
    assert body["previous"] == f"http://{host}{MOVIES}?page_size=6&title={dozen.mark}"


@pytest.mark.parametrize("header", ["X-Forwarded-Host", "X-Forwarded-Server", "X-Host", "X-Original-Host", "X-HTTP-Host-Override"])
def test_no_other_header_changes_the_links(dozen, header):
    headers = {header: "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "444", "Forwarded": "host=evil.example;proto=https"}
    assert dozen.get("page_size=6", headers=headers).json()["next"] == f"{dozen.user.base}{MOVIES}?page=2&page_size=6&title={dozen.mark}"


@pytest.mark.parametrize(
    "query",
    ["page=1&page=2", "title=x&title={mark}&page=2", "page_size=1&page_size=10&page=2", "year=x&year=&page=2", "page=2&title={mark}"],
)
def test_of_a_repeated_parameter_the_last_counts(dozen, query):
    assert dozen.titles(query.format(mark=dozen.mark)) == ["1", "0"]


def test_filters_count_and_page_together(dozen):
    body = dozen.get("year__gt=2001&year__lt=2010&page_size=3&page=2").json()
    assert (body["count"], [movie["year"] for movie in body["results"]]) == (8, [2006, 2005, 2004])
    assert body["next"].endswith(f"?page=3&page_size=3&title={dozen.mark}&year__gt=2001&year__lt=2010")
