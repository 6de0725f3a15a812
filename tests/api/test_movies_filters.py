"""GET /api/v1/movies/ with filters: substrings of texts, comparisons of years, and invalid filters."""
import pytest

from helpers.client import MOVIES, MovieCollection, outcome

NOT_A_NUMBER = ["Enter a number."]
NO_NUL = ["Null characters are not allowed."]


@pytest.fixture(scope="module")
def varied_movies(base):
    """Ten movies with unusual titles, genres and years."""
    movies = [
        ("Heat", "Crime", 1995),
        ("HEATHERS", "Dark Comedy", 1988),
        ("100% Wolf", "Family_Fun", 2020),
        ("snake_eyes", "Crime", 1998),
        ("back\\slash", "Noir 50%", 1947),
        ("Éclair au café", "Drame", 2001),
        ("Straße", "Drama", -5),
        ("ЖИЗНЬ σίσυφος", "日本", 2147483647),
        ("it's \"two\"  spaces", "a+b&c=d", -2147483648),
        ("nil", "O'Brien", 0),
    ]
    collection = MovieCollection(base, movies)
    yield collection
    collection.close()


@pytest.mark.parametrize(
    "title, titles",
    [
        ("heat", ["HEATHERS", "Heat"]),
        ("HEATH", ["HEATHERS"]),
        ("%20heat%20", ["HEATHERS", "Heat"]),
        ("%25", ["100% Wolf"]),
        ("0%25%20w", ["100% Wolf"]),
        ("_", ["snake_eyes"]),
        ("snake%25", []),
        ("h_at", []),
        ("%5C", ["back\\slash"]),
        ("%5C%5C", []),
        ("k%5Cs", ["back\\slash"]),
        ("he.t", []),
        ("%C3%89CLAIR%20AU%20CAF%C3%89", ["Éclair au café"]),
        ("eclair", []),
        ("stra%C3%9Fe", ["Straße"]),
        ("%C5%BFTRA", ["Straße"]),
        ("%C4%B1t's", ["it's \"two\"  spaces"]),
        ("strasse", []),
        ("%D0%B6%D0%B8%D0%B7%D0%BD%D1%8C", ["ЖИЗНЬ σίσυφος"]),
        ("%CE%A3%CE%8A%CE%A3%CE%A5%CE%A6%CE%9F%CE%A3", ["ЖИЗНЬ σίσυφος"]),
        ("it's", ["it's \"two\"  spaces"]),
        ("%22TWO%22", ["it's \"two\"  spaces"]),
        ("%20%20spaces", ["it's \"two\"  spaces"]),
        ("two%22%20spaces", []),
        ("';drop%20table%20movies;--", []),
    ],
)
def test_title_filter_finds_substrings_in_any_case_without_patterns(varied_movies, title, titles):
    assert varied_movies.titles("", title=title) == titles


@pytest.mark.parametrize(
    "query, titles",
    [
        ("genre=crime", ["snake_eyes", "Heat"]),
        ("genre=+CRIME+", ["snake_eyes", "Heat"]),
        ("genre=com", ["HEATHERS"]),
        ("genre=family_f", ["100% Wolf"]),
        ("genre=r_m", []),
        ("genre=50%25", ["back\\slash"]),
        ("genre=o'b", ["nil"]),
        ("genre=%E6%97%A5", ["ЖИЗНЬ σίσυφος"]),
        ("genre=a%2Bb%26c%3Dd", ["it's \"two\"  spaces"]),
        ("genre=dra", ["Straße", "Éclair au café"]),
        ("genre=crime&year=1995", ["Heat"]),
        ("year=1995", ["Heat"]),
        ("year=+1995+", ["Heat"]),
        ("year=%2B1995", ["Heat"]),
        ("year=0001995", ["Heat"]),
        ("year=1995.000", ["Heat"]),
        ("year=1.995e3", ["Heat"]),
        ("year=19950E-1", ["Heat"]),
        ("year=-5", ["Straße"]),
        ("year=0", ["nil"]),
        ("year=-0", ["nil"]),
        ("year=2147483647", ["ЖИЗНЬ σίσυφος"]),
        ("year=-2147483648", ["it's \"two\"  spaces"]),
        ("year=1995.5", []),
        ("year=2147483648", []),
        ("year=99999999999999999999999999", []),
        ("year=1e30", []),
        ("year__gt=2001", ["ЖИЗНЬ σίσυφος", "100% Wolf"]),
        ("year__gt=2000.5", ["ЖИЗНЬ σίσυφος", "Éclair au café", "100% Wolf"]),
        ("year__gt=2147483646.5", ["ЖИЗНЬ σίσυφος"]),
        ("year__gt=2147483647", []),
        ("year__gt=1e30", []),
        ("year__lt=0", ["it's \"two\"  spaces", "Straße"]),
        ("year__lt=-5", ["it's \"two\"  spaces"]),
        ("year__lt=-4.5", ["it's \"two\"  spaces", "Straße"]),
        ("year__lt=-2147483648", []),
        ("year__lt=-1e30", []),
        ("year__gt=1946&year__lt=1996", ["back\\slash", "HEATHERS", "Heat"]),
        ("year__gt=1995&year__lt=1995", []),
        ("year__gt=-1e30&year__lt=1e30&genre=noir", ["back\\slash"]),
    ],
)
def test_genre_filter_finds_substrings_and_year_filters_compare_numbers(varied_movies, query, titles):
    assert varied_movies.titles(query) == titles


@pytest.mark.parametrize("query", ["genre=", "genre=+", "year=", "year__gt=&year__lt=", "year__gte=2000", "id=1", "ordering=year",
                                   "search=x", "Genre=crime", "title[]=x"])
def test_empty_and_unknown_filters_are_ignored(varied_movies, query):
    assert len(varied_movies.titles(query)) == 10


def test_creator_username_filter_finds_substrings_in_any_case(varied_movies):
    path = f"{MOVIES}?title={varied_movies.mark}&creator__username="
    counts = [varied_movies.user.get(path + part).json()["count"] for part in (varied_movies.user.username.upper(), varied_movies.user.username[2:9],
            "unknown-username", "%25", "")]
    assert counts == [10, 10, 0, 0, 10]


@pytest.mark.parametrize(
    "value", ["abc", "+", "%09", "1995x", "NaN", "nan", "-NaN", "sNaN", "Infinity", "-Infinity", "inf", "0x7cb", "1,995", "1 995", "--5", "%2B-5", "1e",
              "e5", "1e+5+", "1e%20%205", "1e+%2B5", ".", "-", "1.2.3", "%00", "1995%00", "%ff", "true", "1995-01-01"]
)
@pytest.mark.parametrize("name", ["year", "year__gt", "year__lt"])
def test_year_filter_that_is_not_a_number_returns_400(ann, name, value):
    assert outcome(ann.get(f"{MOVIES}?{name}={value}")) == (400, {name: NOT_A_NUMBER})


@pytest.mark.parametrize("name", ["title", "genre", "creator__username"])
@pytest.mark.parametrize("value", ["%00", "a%00b"])
def test_null_character_in_text_filter_returns_400(ann, name, value):
    assert outcome(ann.get(f"{MOVIES}?{name}={value}")) == (400, {name: NO_NUL})


def test_all_invalid_filters_are_reported_before_an_invalid_page(ann):
    response = ann.get(f"{MOVIES}?page=99&year__lt=z&genre=%00&year=x&year__gt=y&title=%00")
    expected = {"title": NO_NUL, "genre": NO_NUL, "year": NOT_A_NUMBER, "year__gt": NOT_A_NUMBER, "year__lt": NOT_A_NUMBER}
    assert outcome(response) == (400, expected)
