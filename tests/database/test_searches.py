"""Searches in short and long lists, compared with PostgreSQL's own upper(title) like upper(text)."""
import random
from urllib.parse import quote

import pytest

from helpers.client import MOVIES

# Letters whose capitals need as many or more bytes, or are ASCII (ſ, ı, the Kelvin sign), and the special characters of LIKE.
LETTERS = "aAiIkKsSıİſ\u212aéÉßẞσςΣжЖ日%_\\ "
# A list of more than 1,000 movies counts as long.
LONG_LIST = 1001

LOCALES = {"C.UTF-8": "", "Turkish": "locale_provider icu icu_locale 'tr' locale 'C.UTF-8'"}


def random_text(chooser, max_length):
    return "".join(chooser.choice(LETTERS) for _ in range(chooser.randint(1, max_length)))


def contains(text):
    for special in "\\%_":
        text = text.replace(special, "\\" + special)
    return f"%{text}%"


@pytest.fixture(scope="module", params=LOCALES)
def users(request, make_server):
    """Returns a server's database and two users: one with a short list of movies, one with a long one."""
    server = make_server(database_options=LOCALES[request.param], MOVIES_VISIBILITY="own")
    database, chooser = server.database, random.Random(16)
    users = []
    for movies in (60, LONG_LIST):
        user = server.client().new_user()
        ((user.id,),) = database.run("select id from users where username = %s", user.username)
        rows = [(random_text(chooser, 12), random_text(chooser, 3), chooser.randint(1990, 1994)) for _ in range(movies)]
        with database.connect(database.url) as connection:
            connection.cursor().executemany(
                f"insert into movies (title, genre, year, creator_id) values (%s, %s, %s, {user.id})", rows
            )
        users.append(user)
    return database, users


def expected(database, user, title, genre, years):
    rows = database.run(
        "select id from movies where creator_id = %s and upper(title) like upper(%s) and upper(genre) like upper(%s)"
        " and year between %s and %s order by id desc",
        user.id, contains(title), contains(genre), *years,
    )
    return [id for (id,) in rows]


@pytest.mark.parametrize("list_index", [0, 1], ids=["short", "long"])
def test_search_finds_the_movies_that_upper_like_upper_finds(users, list_index):
    database, chooser = users[0], random.Random(61)
    user = users[1][list_index]
    found_movies = 0
    for _ in range(150):
        title = random_text(chooser, 2).strip() or "i"
        genre = chooser.choice(["", "", random_text(chooser, 1).strip()])
        first, last = sorted(chooser.choices(range(1989, 1996), k=2))
        size = chooser.randint(1, 9)
        expected_ids = expected(database, user, title, genre, (first + 1, last - 1))
        pages = max(1, -(-len(expected_ids) // size))
        query = f"{MOVIES}?title={quote(title)}&genre={quote(genre)}&year__gt={first}&year__lt={last}&page_size={size}"
        for page in {1, chooser.randint(1, pages), pages, "last"}:
            number = pages if page == "last" else page
            response = user.get(f"{query}&page={page}").json()
            assert response["count"] == len(expected_ids), query
            assert [movie["id"] for movie in response["results"]] == expected_ids[size * (number - 1) : size * number], query
        assert user.get(f"{query}&page={pages + 1}").status_code == 404
        found_movies += len(expected_ids)
    assert found_movies > 100


@pytest.mark.parametrize("text, titles", [("film", ["FİLM", "film"]), ("FILM", ["fılm", "FILM"]), ("f\u0131LM", ["fılm", "FILM"])])
def test_turkish_locale_uses_its_own_capital_letters(make_server, text, titles):
    server = make_server(database_options=LOCALES["Turkish"])
    user = server.client().new_user()
    for title in ("film", "FILM", "FİLM", "fılm"):
        user.add_movie(title=title)
    assert [movie["title"] for movie in user.get(f"{MOVIES}?title={quote(text)}").json()["results"]] == titles
