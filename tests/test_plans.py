"""How PostgreSQL runs each statement on a table of some size: by index, without reading or sorting a whole shelf."""
import json
import re
from pathlib import Path

import pytest

SQL = Path(__file__).parent.parent / "sql"
USERS, SHELF, OTHERS = 3000, 4000, 20
EVERYTHING = "'%','%','%',-2147483648,2147483647"

# The statement, its arguments, and how many rows of movies it may look at in all.
STATEMENTS = [
    ("users/find_active", "1", 0),
    ("users/find_credentials", "'user 7'", 0),
    ("users/find_taken", "'user 7','nobody'", 0),
    ("movies/read", "array[1,2,3],array[10,20,5000]", 3),
    ("movies/list_first", "array[1,2],array[10,10]", 20),
    ("movies/list_shelf", "1,1,10", 10),
    ("movies/list_shelf", "1,2,10", 20),
    ("movies/list_shelf", "1,null,10", 10),
    ("movies/list_shelf", "1,200,10", SHELF // 2 + 10),
    ("movies/list_all", "1,1,10", 10),
    ("movies/list_all", "1,null,10", 10),
    ("movies/search_shelf", "1,1,10,'%needle%','%','%',-2147483648,2147483647", 30),
    ("movies/search_shelf", f"2,1,10,{EVERYTHING}", 3 * OTHERS),
    ("movies/search_all", "1,1,10,'%needle%','%','%',-2147483648,2147483647", 100),
    ("movies/create", "array[1,2],array['a','b'],array['g','g'],array[1,2]", 0),
    ("movies/update", "array[1,1],array[10,11],array['a',null],array[null,'g'],array[1,2]", 8),
    ("movies/delete", "array[1,1],array[10,11]", 8),
]


@pytest.fixture(scope="module")
def seeded(make_server):
    """A database in which one shelf is long and three thousand are short."""
    database = make_server().database
    database.run(
        "insert into users (username, email, password_hash)"
        f" select 'user ' || n, n || '@example.com', '!' from generate_series(1, {USERS}) as n"
    )
    database.run(
        "insert into movies (title, genre, year, creator_id)"
        f" select case when mod(n, 1000) = 0 then 'a needle' else 'hay ' || md5(n::text) end, 'Drama', 1900 + mod(n, 100),"
        f" case when n <= {SHELF} then 1 else 2 + mod(n, {USERS - 1}) end"
        f" from generate_series(1, {SHELF + OTHERS * (USERS - 1)}) as n"
    )
    with database.connect(database.url, autocommit=True) as connection:
        connection.execute("vacuum analyze")
    return database


def nodes_of(plan):
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes_of(below)


def explain(database, name, arguments):
    """The nodes of the plans with which the statement ran, those inside functions included; prepared once for all values."""
    text = re.sub(r"^--.*\n", "", (SQL / f"{name}.sql").read_text(), flags=re.MULTILINE)
    told = []
    with database.connect(database.url) as connection:
        connection.execute("load 'auto_explain'")
        connection.execute("set plan_cache_mode = force_generic_plan")
        connection.execute(f"prepare statement as {text}")
        for setting in ("log_min_duration = 0", "log_analyze = on", "log_nested_statements = on", "log_format = json"):
            connection.execute(f"set auto_explain.{setting}")
        connection.execute("set client_min_messages = log")
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
        # In a transaction that is rolled back: writes are run too.
        connection.execute(f"execute statement({arguments})")
        connection.rollback()
    plans = [json.loads(text[text.index("{") :])["Plan"] for text in told if "plan:" in text]
    assert plans
    return [node for plan in plans for node in nodes_of(plan)]


@pytest.mark.parametrize("name, arguments, rows", STATEMENTS)
def test_a_statement_reads_no_table_whole_and_no_more_movies_than_it_needs(seeded, name, arguments, rows):
    nodes = explain(seeded, name, arguments)
    scanned = [node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"]
    assert [table for table in scanned if table in ("users", "movies")] == []
    read = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes
        if node.get("Relation Name") == "movies" and node["Node Type"] != "ModifyTable"
    )
    assert read <= rows
    sorted_rows = [node["Plans"][0]["Actual Rows"] for node in nodes if node["Node Type"] == "Sort"]
    assert max(sorted_rows, default=0) <= max(rows, 40)


def test_counts_stay_exact_whatever_is_done_to_the_tables(make_server):
    database = make_server().database
    database.run("insert into users (username, email, password_hash) values ('a', 'a', '!'), ('b', 'b', '!')")
    for statement in [
        "insert into movies (title, genre, year, creator_id) select 't', 'g', n, 1 + mod(n, 2) from generate_series(1, 101) as n",
        "delete from movies where year <= 10",
        "update movies set creator_id = 3 - creator_id where year > 60",
        "insert into movies (title, genre, year, creator_id) values ('t', 'g', 0, 1) on conflict do nothing",
        "delete from movies where false",
        "delete from users where username = 'b'",
        "truncate movies",
    ]:
        database.run(statement)
        counted = database.run(
            "select (select coalesce(sum(movies), 0) from movie_counts) = (select count(*) from movies),"
            " coalesce(bool_and(movie_count = (select count(*) from movies where creator_id = users.id)), true) from users"
        )
        assert counted == [(True, True)], statement
