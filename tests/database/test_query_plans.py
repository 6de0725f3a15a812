"""Query plans on large tables, exactness of the stored counts of movies, and vacuum settings."""
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.client import MOVIES, wait_until
from helpers.cluster import Cluster
from helpers.settings import BINARY, ROOT

SQL = ROOT / "sql"
USERS, LONG_LIST, OTHERS = 3000, 4000, 20
# Movies of a long list are counted in ranges of about this size.
MOVIES_PER_RANGE = 1000
MATCH_ALL = "'%','%','%',-2147483648,2147483647"

# Statement, arguments, and the largest number of rows of movies that it may read.
STATEMENTS = [
    ("users/find_active", "1", 0),
    ("users/find_credentials", "'user 7'", 0),
    ("users/find_existing", "'user 7','unknown'", 0),
    ("users/find_deleted", None, 0),
    ("users/delete_account", "1,null,1000", 0),
    ("users/delete_account", "3,null,1000", OTHERS),
    ("users/delete_some_movies", "1,0,10", 20),
    ("users/delete_emptied", "1,10", 0),
    ("movies/read", "array[1,2,3],array[10,20,5000]", 3),
    ("movies/list_first", "array[1,2],array[10,10]", 20),
    ("movies/list_own", "1,1,10", 10),
    ("movies/list_own", "1,2,10", 20),
    ("movies/list_own", "1,null,10", MOVIES_PER_RANGE + 10),
    ("movies/list_own", "1,200,10", MOVIES_PER_RANGE + 10),
    ("movies/list_own", "2,2,10", 20),
    ("movies/list_own", "1,1000,10", 0),
    ("movies/list_all", "1,1,10", 10),
    ("movies/list_all", "1,null,10", 10),
    ("movies/search_own", "1,1,10,'%needle%','%','%',-2147483648,2147483647", 30),
    ("movies/search_own", f"2,1,10,{MATCH_ALL}", 3 * OTHERS),
    ("movies/search_all", "1,1,10,'%needle%','%','%',-2147483648,2147483647", 100),
    ("movies/create", "array[1,2],array[0,0],array['a','b'],array['g','g'],array[1,2]", 0),
    ("movies/update", "array[1,1],array[0,0],array[10,11],array['a',null],array[null,'g'],array[1,2]", 8),
    ("movies/delete", "array[1,1],array[0,0],array[10,11]", 8),
]


@pytest.fixture(scope="module")
def large_database(make_server):
    """A database in which one user has a long list of movies and 3,000 users have short ones."""
    database = make_server().database
    database.run(
        "insert into users (username, email, password_hash)"
        f" select 'user ' || n, n || '@example.com', '!' from generate_series(1, {USERS}) as n"
    )
    database.run(
        "insert into movies (title, genre, year, creator_id)"
        f" select case when mod(n, 1000) = 0 then 'a needle' else 'hay ' || md5(n::text) end, 'Drama', 1900 + mod(n, 100),"
        f" case when n <= {LONG_LIST} then 1 else 2 + mod(n, {USERS - 1}) end"
        f" from generate_series(1, {LONG_LIST + OTHERS * (USERS - 1)}) as n"
    )
    with database.connect(database.url, autocommit=True) as connection:
        connection.execute("vacuum analyze")
    return database


def nodes_of(plan):
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes_of(child)


def explain(database, name, arguments):
    """Runs the statement with a generic plan; returns the nodes of its plan and of the plans inside functions."""
    text = re.sub(r"^--.*\n", "", (SQL / f"{name}.sql").read_text(), flags=re.MULTILINE)
    notices = []
    with database.connect(database.url) as connection:
        connection.execute("load 'auto_explain'")
        connection.execute("set plan_cache_mode = force_generic_plan")
        connection.execute(f"prepare statement as {text}")
        for setting in ("log_min_duration = 0", "log_analyze = on", "log_nested_statements = on", "log_format = json"):
            connection.execute(f"set auto_explain.{setting}")
        connection.execute("set client_min_messages = log")
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        # Rolled back, because some statements write.
        connection.execute(f"execute statement({arguments})" if arguments else "execute statement")
        connection.rollback()
    plans = [json.loads(text[text.index("{") :])["Plan"] for text in notices if "plan:" in text]
    assert plans
    return [node for plan in plans for node in nodes_of(plan)]


@pytest.mark.parametrize("name, arguments, rows", STATEMENTS)
def test_statement_uses_indexes_and_reads_few_movies(large_database, name, arguments, rows):
    nodes = explain(large_database, name, arguments)
    scanned = [node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"]
    assert [table for table in scanned if table in ("users", "movies")] == []
    read = sum(
        # A plan that was only explained, as by estimate_matching_titles, has no actual rows.
        (node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)) * node.get("Actual Loops", 0)
        for node in nodes
        if node.get("Relation Name") == "movies" and node["Node Type"] != "ModifyTable"
    )
    assert read <= rows
    sorted_rows = [node["Plans"][0]["Actual Rows"] for node in nodes if node["Node Type"] == "Sort"]
    assert max(sorted_rows, default=0) <= max(rows, 40)


def test_stored_counts_stay_exact_after_every_kind_of_change(make_server):
    database = make_server().database
    database.run("insert into users (username, email, password_hash) values ('a', 'a', '!'), ('b', 'b', '!')")
    for statement in [
        "insert into movies (title, genre, year, creator_id) select 't', 'g', n, 1 + mod(n, 2) from generate_series(1, 101) as n",
        "delete from movies where year <= 10",
        "update movies set creator_id = 3 - creator_id where year > 60",
        "insert into movies (title, genre, year, creator_id) values ('t', 'g', 0, 1) on conflict do nothing",
        "delete from movies where false",
        # Long lists, which are counted in ranges: inserted at once, extended one by one and in the middle, thinned, moved to another user.
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
        exact = database.run(
            "select (select coalesce(sum(movies), 0) from movie_counts) = (select count(*) from movies),"
            " coalesce(bool_and(movie_count = (select count(*) from movies where creator_id = users.id)), true),"
            " coalesce(bool_and(movie_count <= 2000 or exists (select from movie_count_ranges where creator_id = users.id)), true)"
            " from users"
        )
        assert exact == [(True, True, True)], statement
        ranges = database.run(
            "select count_range.movies, (select count(*) from movies where creator_id = count_range.creator_id and id >= first_id"
            "  and (next_id is null or id < next_id))"
            " from (select *, lead(first_id) over (partition by creator_id order by first_id) as next_id from movie_count_ranges) as count_range"
        )
        assert [stored for stored, _ in ranges] == [exact for _, exact in ranges], statement
        assert max([stored for stored, _ in ranges], default=0) <= 2 * MOVIES_PER_RANGE, statement


def test_concurrent_writers_of_a_long_list_keep_its_ranges_exact(make_server):
    database = make_server().database
    database.run("insert into users (username, email, password_hash) values ('a', 'a', '!')")
    database.run("insert into movies (title, genre, year, creator_id) select 't', 'g', n, 1 from generate_series(1, 1990) as n")

    def write(number):
        for step in range(20):
            database.run(f"insert into movies (title, genre, year, creator_id) values ('t', 'g', {number}, 1)")
            database.run(f"delete from movies where id = {1 + number * 20 + step}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    database.run("insert into movies (title, genre, year, creator_id) select 't', 'g', n, 1 from generate_series(1, 20) as n")
    assert database.run("select sum(movies), count(*) from movie_count_ranges") == [(2010, 3)]


def test_pages_of_a_long_list_contain_its_movies(make_server):
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


# Existing movies, and inserted or changed ones: more than the table's thresholds, but far from a fifth of it (autovacuum's default).
EXISTING_MOVIES, CHANGED_MOVIES = 30_000, 2500


@pytest.fixture(scope="module")
def vacuumed_cluster():
    """A cluster with a migrated database, whose autovacuum looks for tables to vacuum each second."""
    cluster = Cluster("autovacuum_naptime = 1s", "fsync = off")
    try:
        cluster.start()
        migrate(cluster.url)
        cluster.run("create extension pg_visibility")
        cluster.run("insert into users (username, email, password_hash) values ('a', 'a', '!')")
        cluster.run(f"insert into movies (title, genre, year, creator_id) select md5(n::text), 'g', n, 1 from generate_series(1, {EXISTING_MOVIES}) as n")
        yield cluster
    finally:
        cluster.dispose()


@pytest.mark.parametrize(
    "write",
    [
        f"insert into movies (title, genre, year, creator_id) select md5(n::text), 'g', n, 1 from generate_series(1, {CHANGED_MOVIES}) as n",
        f"update movies set year = 0 where id <= {CHANGED_MOVIES}",
        f"delete from movies where id <= {CHANGED_MOVIES}",
    ],
    ids=["insert", "update", "delete"],
)
@pytest.mark.own_servers
def test_autovacuum_runs_after_few_writes_so_that_lists_use_index_only_scans(vacuumed_cluster, write):
    pages_not_all_visible = "select count(*) from pg_visibility_map('movies') where not all_visible"
    vacuumed_cluster.run("vacuum analyze movies")
    assert vacuumed_cluster.run(pages_not_all_visible) == [(0,)]
    vacuumed_cluster.run(write)
    wait_until(lambda: vacuumed_cluster.run(pages_not_all_visible) == [(0,)], 20)


def test_search_index_has_no_pending_entries(database):
    migrate(database.url)
    database.run("create extension pgstattuple")
    database.run("insert into users (username, email, password_hash) values ('a', 'a', '!')")
    database.run("insert into movies (title, genre, year, creator_id) select md5(n::text), 'g', n, 1 from generate_series(1, 20) as n")
    assert database.run("select pending_tuples from pgstatginindex('movies_by_title')") == [(0,)]
