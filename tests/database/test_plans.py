"""How PostgreSQL runs each statement on a table of some size: by index, without reading or sorting a whole shelf."""
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.client import MOVIES, wait_until
from helpers.cluster import Cluster
from helpers.settings import BINARY, ROOT

SQL = ROOT / "sql"
USERS, SHELF, OTHERS = 3000, 4000, 20
# So many movies does a part of a long shelf have, as a rule.
PART = 1000
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
    ("movies/list_shelf", "1,null,10", PART + 10),
    ("movies/list_shelf", "1,200,10", PART + 10),
    ("movies/list_shelf", "2,2,10", 20),
    ("movies/list_shelf", "1,1000,10", 0),
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
        # A plan that was only explained, as expect_titles asks for one, has no rows.
        (node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)) * node.get("Actual Loops", 0)
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
        # Long shelves, which are counted in parts: made at once, grown one by one and in the middle, thinned, given.
        "insert into movies (id, title, genre, year, creator_id) select 3 * n, 't', 'g', n, 1 + mod(n, 2) from generate_series(1000, 11000) as n",
        "do $$ begin for n in 1..1100 loop"
        " insert into movies (id, title, genre, year, creator_id) values (100000 + n, 't', 'g', n, 1); end loop; end $$",
        "insert into movies (id, title, genre, year, creator_id) select 3 * n + 1, 't', 'g', n, 1 from generate_series(3000, 5500) as n",
        "update movies set id = 200000 - id where id between 6001 and 9000",
        "delete from movies where mod(id, 7) = 1",
        "update movies set creator_id = 3 - creator_id where mod(id, 5) = 1",
        "delete from movies where creator_id = 1 and id > 9000",
        "delete from users where username = 'b'",
        "truncate movies",
    ]:
        database.run(statement)
        counted = database.run(
            "select (select coalesce(sum(movies), 0) from movie_counts) = (select count(*) from movies),"
            " coalesce(bool_and(movie_count = (select count(*) from movies where creator_id = users.id)), true),"
            " coalesce(bool_and(movie_count <= 2000 or exists (select from shelf_parts where creator_id = users.id)), true)"
            " from users"
        )
        assert counted == [(True, True, True)], statement
        parts = database.run(
            "select part.movies, (select count(*) from movies where creator_id = part.creator_id and id >= first_id"
            "  and (next_id is null or id < next_id))"
            " from (select *, lead(first_id) over (partition by creator_id order by first_id) as next_id from shelf_parts) as part"
        )
        assert [kept for kept, _ in parts] == [counted for _, counted in parts], statement
        assert max([kept for kept, _ in parts], default=0) <= 2 * PART, statement


def test_writers_of_one_long_shelf_at_once_leave_its_parts_exact(make_server):
    database = make_server().database
    database.run("insert into users (username, email, password_hash) values ('a', 'a', '!')")
    database.run("insert into movies (title, genre, year, creator_id) select 't', 'g', n, 1 from generate_series(1, 1990) as n")

    def write(number):
        for turn in range(20):
            database.run(f"insert into movies (title, genre, year, creator_id) values ('t', 'g', {number}, 1)")
            database.run(f"delete from movies where id = {1 + number * 20 + turn}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    database.run("insert into movies (title, genre, year, creator_id) select 't', 'g', n, 1 from generate_series(1, 20) as n")
    assert database.run("select sum(movies), count(*) from shelf_parts") == [(2010, 3)]


def test_the_pages_of_a_long_shelf_are_those_of_its_movies(make_server):
    server = make_server(MOVIES_VISIBILITY="own")
    user = server.client().new_user()
    (requester,) = server.database.run(f"select id from users where username = '{user.username}'")[0]
    server.database.run(
        "insert into users (username, email, password_hash) values ('other', 'other', '!');"
        "insert into movies (title, genre, year, creator_id)"
        f" select 't', 'g', n, case when mod(n, 3) = 0 then {requester + 1} else {requester} end from generate_series(1, 9000) as n;"
        "delete from movies where mod(id, 11) = 0 or id between 2000 and 2600"
    )
    ids = [id for (id,) in server.database.run(f"select id from movies where creator_id = {requester} order by id desc")]
    pages = (len(ids) + 6) // 7
    for page in [*range(1, pages, 23), pages - 1, pages]:
        response = user.get(f"{MOVIES}?page_size=7&page={page}").json()
        assert response["count"] == len(ids)
        assert [movie["id"] for movie in response["results"]] == ids[7 * (page - 1) : 7 * page], page
    assert user.get(f"{MOVIES}?page_size=7&page=last").json()["results"] == response["results"]
    assert user.get(f"{MOVIES}?page_size=7&page={pages + 1}").status_code == 404


def migrate(url):
    subprocess.run([BINARY, "migrate"], env={"DATABASE_URL": url}, check=True, timeout=60)


# Movies of one user, and insertions or changes beyond the thresholds of the table and far from a fifth of it.
MANY, SOME = 30_000, 2500


@pytest.fixture(scope="module")
def vacuumed():
    """A cluster that looks for tables to vacuum each second, which are due as a migrated database says."""
    made = Cluster("autovacuum_naptime = 1s", "fsync = off")
    try:
        made.start()
        migrate(made.url)
        made.run("create extension pg_visibility")
        made.run("insert into users (username, email, password_hash) values ('a', 'a', '!')")
        made.run(f"insert into movies (title, genre, year, creator_id) select md5(n::text), 'g', n, 1 from generate_series(1, {MANY}) as n")
        yield made
    finally:
        made.dispose()


@pytest.mark.parametrize(
    "write",
    [
        f"insert into movies (title, genre, year, creator_id) select md5(n::text), 'g', n, 1 from generate_series(1, {SOME}) as n",
        f"update movies set year = 0 where id <= {SOME}",
        f"delete from movies where id <= {SOME}",
    ],
    ids=["insert", "update", "delete"],
)
@pytest.mark.own_servers
def test_autovacuum_follows_few_writes_so_that_lists_are_read_from_the_index_alone(vacuumed, write):
    unmarked = "select count(*) from pg_visibility_map('movies') where not all_visible"
    vacuumed.run("vacuum analyze movies")
    assert vacuumed.run(unmarked) == [(0,)]
    vacuumed.run(write)
    wait_until(lambda: vacuumed.run(unmarked) == [(0,)], 20)


@pytest.mark.parametrize("is_upgraded", [False, True], ids=["new", "upgraded"])
def test_new_titles_do_not_pile_up_until_one_statement_merges_them_into_the_search_index(database, is_upgraded):
    def add_movies():
        database.run("insert into movies (title, genre, year, creator_id) select md5(n::text), 'g', n, 1 from generate_series(1, 20) as n")

    migrate(database.url)
    database.run("create extension pgstattuple")
    database.run("insert into users (username, email, password_hash) values ('a', 'a', '!')")
    if is_upgraded:
        # As an older version left it.
        database.run("alter index movies_by_title reset (fastupdate)")
        add_movies()
        database.run("delete from refinery_schema_history where version = 8")
        migrate(database.url)
    add_movies()
    assert database.run("select pending_tuples from pgstatginindex('movies_by_title')") == [(0,)]
