"""Searches of short and of long shelves, beside the rule itself, asked of PostgreSQL plainly: upper(title) like upper(text)."""
import random
from urllib.parse import quote

import pytest

from helpers.client import MOVIES

# Letters with capitals of one, two or no bytes more, capitals that are ASCII (ſ, ı, the Kelvin sign), and LIKE's own.
LETTERS = "aAiIkKsSıİſ\u212aéÉßẞσςΣжЖ日%_\\ "
# From 1,001 movies on a shelf is long.
LONG = 1001

LOCALES = {"C.UTF-8": "", "Turkish": "locale_provider icu icu_locale 'tr' locale 'C.UTF-8'"}


def some_text(chance, longest):
    return "".join(chance.choice(LETTERS) for _ in range(chance.randint(1, longest)))


def contains(text):
    for special in "\\%_":
        text = text.replace(special, "\\" + special)
    return f"%{text}%"


@pytest.fixture(scope="module", params=LOCALES)
def users(request, make_server):
    """Two users of one server, one with a short shelf and one with a long one; each with the id that it has."""
    server = make_server(database_options=LOCALES[request.param], MOVIES_VISIBILITY="own")
    database, chance = server.database, random.Random(16)
    made = []
    for movies in (60, LONG):
        user = server.client().new_user()
        ((user.id,),) = database.run("select id from users where username = %s", user.username)
        films = [(some_text(chance, 12), some_text(chance, 3), chance.randint(1990, 1994)) for _ in range(movies)]
        with database.connect(database.url) as connection:
            connection.cursor().executemany(
                f"insert into movies (title, genre, year, creator_id) values (%s, %s, %s, {user.id})", films
            )
        made.append(user)
    return database, made


def expected(database, user, title, genre, years):
    rows = database.run(
        "select id from movies where creator_id = %s and upper(title) like upper(%s) and upper(genre) like upper(%s)"
        " and year between %s and %s order by id desc",
        user.id, contains(title), contains(genre), *years,
    )
    return [id for (id,) in rows]


@pytest.mark.parametrize("shelf", [0, 1], ids=["short", "long"])
def test_a_search_keeps_what_upper_like_upper_keeps_page_by_page(users, shelf):
    database, chance = users[0], random.Random(61)
    user = users[1][shelf]
    found = 0
    for _ in range(150):
        title = some_text(chance, 2).strip() or "i"
        genre = chance.choice(["", "", some_text(chance, 1).strip()])
        first, last = sorted(chance.choices(range(1989, 1996), k=2))
        size = chance.randint(1, 9)
        wanted = expected(database, user, title, genre, (first + 1, last - 1))
        pages = max(1, -(-len(wanted) // size))
        query = f"{MOVIES}?title={quote(title)}&genre={quote(genre)}&year__gt={first}&year__lt={last}&page_size={size}"
        for page in {1, chance.randint(1, pages), pages, "last"}:
            number = pages if page == "last" else page
            response = user.get(f"{query}&page={page}").json()
            assert response["count"] == len(wanted), query
            assert [movie["id"] for movie in response["results"]] == wanted[size * (number - 1) : size * number], query
        assert user.get(f"{query}&page={pages + 1}").status_code == 404
        found += len(wanted)
    assert found > 100


@pytest.mark.parametrize("text, titles", [("film", ["FİLM", "film"]), ("FILM", ["fılm", "FILM"]), ("f\u0131LM", ["fılm", "FILM"])])
def test_turkish_has_capitals_of_its_own_for_ascii_letters(make_server, text, titles):
    server = make_server(database_options=LOCALES["Turkish"])
    user = server.client().new_user()
    for title in ("film", "FILM", "FİLM", "fılm"):
        user.add_movie(title=title)
    assert [movie["title"] for movie in user.get(f"{MOVIES}?title={quote(text)}").json()["results"]] == titles
