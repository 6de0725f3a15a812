"""The number of statements that PostgreSQL runs for each request, as pg_stat_statements counts them, and missing privileges."""
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.client import MOVIES, movie_fields, unique_word, wait_until
from helpers.cluster import running_cluster
from helpers.server import Server, running_server

pytestmark = pytest.mark.own_servers
REQUESTS = 20


@pytest.fixture(scope="module")
def cluster():
    with running_cluster("shared_preload_libraries = 'pg_stat_statements'") as cluster:
        cluster.run("create extension pg_stat_statements")
        yield cluster


@pytest.fixture(scope="module")
def server(cluster):
    with running_server({"DATABASE_URL": cluster.url, "DB_POOL_SIZE": "4"}) as server:
        # Opening a connection runs a statement, which does not belong to a request.
        wait_until(lambda: len(cluster.client_backends()) == 5)  # those of the pool, and that of the background check
        yield server


@pytest.fixture(scope="module")
def ann(server):
    user = server.client().new_user()
    user.movies = [user.add_movie()["id"] for _ in range(3 * REQUESTS)]
    return user


def count_statements(cluster, send_requests):
    """Returns the number of statements that `send_requests` caused, without those of the background check."""
    cluster.run("select pg_stat_statements_reset()")
    send_requests()
    own = "query not like '%pg_stat_statements%' and query not like '%as ready%'"
    return cluster.run(f"select coalesce(sum(calls), 0) from pg_stat_statements where {own}")[0][0]


@pytest.mark.parametrize(
    "method, path, fields, status",
    [
        ("GET", "{movie}/", None, 200),
        ("PUT", "{movie}/", movie_fields(), 200),
        ("PATCH", "{movie}/", {"year": 2000}, 200),
        ("POST", "", movie_fields(), 201),
        ("GET", "", None, 200),
        ("GET", "?page=2", None, 200),
        ("GET", "?page=last", None, 200),
        ("GET", "?title=film&year__gt=1900", None, 200),
        ("DELETE", "{movie}/", None, 204),
        ("GET", "0/", None, 404),
    ],
)
def test_each_movie_request_runs_one_statement(cluster, ann, method, path, fields, status):
    def send_requests():
        for movie in ann.movies[:REQUESTS]:
            body = {"json_body": fields} if fields else {}
            assert ann.send(method, MOVIES + path.format(movie=movie), **body).status_code == status

    assert count_statements(cluster, send_requests) == REQUESTS


@pytest.mark.parametrize(
    "method, path, fields",
    [
        ("POST", "refresh/", {"refresh": "{refresh}"}),
        ("POST", "token/verify/", {"token": "{refresh}"}),
        ("POST", "token/verify/", {"token": "{token}"}),
        ("GET", "user/", None),
        ("PATCH", "user/", {"first_name": "Zoë"}),
    ],
)
def test_each_request_about_tokens_and_the_account_runs_one_statement(cluster, ann, method, path, fields):
    fields = fields and {name: value.format(refresh=ann.refresh, token=ann.token) for name, value in fields.items()}

    def send_requests():
        for _ in range(REQUESTS):
            body = {"json_body": fields} if fields else {}
            assert ann.send(method, f"/api/v1/auth/{path}", **body).status_code == 200

    assert count_statements(cluster, send_requests) == REQUESTS


@pytest.mark.parametrize(
    "path, fields, status, statements",
    [
        ("token/blacklist/", {"refresh": "{refresh}"}, 200, 1),
        ("password/", {"current_password": "{password}", "password": "An0ther-Passw0rd!y", "password2": "An0ther-Passw0rd!y"}, 200, 2),
        ("user/", {"current_password": "{password}"}, 204, 2),
    ],
)
def test_password_is_read_and_the_change_is_written_by_one_statement_each(cluster, server, path, fields, status, statements):
    user = server.client().new_user()
    fields = {name: value.format(refresh=user.refresh, password=user.password) for name, value in fields.items()}
    method = "DELETE" if status == 204 else "POST"

    def send_request():
        assert user.send(method, f"/api/v1/auth/{path}", json_body=fields).status_code == status

    # The constraint's cascade is a statement of PostgreSQL's own.
    assert count_statements(cluster, send_request) == statements


def test_simultaneous_reads_share_statements(cluster, ann):
    """All 32 requests arrive while the statement of the first one waits for a lock."""
    import psycopg

    clients = [ann.with_token(ann.token) for _ in range(32)]
    path = f"{MOVIES}{ann.movies[-1]}/"
    assert {client.get(path).status_code for client in clients} == {200}

    def send_requests():
        with ThreadPoolExecutor(len(clients)) as threads:
            with psycopg.connect(cluster.url) as lock:
                lock.execute("lock table movies in access exclusive mode")
                responses = [threads.submit(client.get, path) for client in clients]
                wait_until(lambda: cluster.run("select count(*) from pg_locks where not granted")[0][0] > 0)
            assert {response.result().status_code for response in responses} == {200}

    statements = count_statements(cluster, send_requests) - cluster.run("select sum(calls) from pg_stat_statements where query like '%pg_locks%'")[0][0]
    assert statements < len(clients) / 2


def test_searches_work_without_the_privilege_to_create_the_index(cluster):
    import psycopg

    role, database = f"role_{unique_word()}", f"movies_{unique_word()}"
    cluster.run(f"create role {role} login")
    cluster.run(f"create database {database}")
    url = psycopg.conninfo.make_conninfo(cluster.url, dbname=database)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"grant create on schema public to {role}")
    server = Server({"DATABASE_URL": psycopg.conninfo.make_conninfo(url, user=role)})
    try:
        ann = server.wait_until_listening().client().new_user()
        ann.add_movie(title="Éclair")
        assert ann.get(f"{MOVIES}?title=%C3%89CL").json()["count"] == 1
        warnings = [line for line in server.log if "searches run without an index" in line]
        assert (len(warnings), "permission denied" in warnings[0]) == (1, True)
    finally:
        server.dispose()
