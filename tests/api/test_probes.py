"""/healthz and /readyz, and responses while the database is unavailable or locked, and recovery."""
import threading
import time

from helpers.client import MOVIES, REFRESH, REGISTER, TOKEN, account_fields, movie_fields, outcome, wait_until


def test_probes_return_200_without_valid_token(api):
    assert [api.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    assert [api.with_token("garbage").get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_probes_answer_head_without_body(api):
    responses = [api.send("HEAD", path) for path in ("/healthz", "/readyz")]
    assert [(response.status_code, response.content) for response in responses] == [(200, b"")] * 2


def requests_of_every_kind(client, user):
    """Returns one function for each kind of request that uses the database; calling it sends the request."""
    return [
        lambda: client.post(REGISTER, account_fields()),
        lambda: client.post(TOKEN, {"username": user.username, "password": user.password}),
        lambda: client.post(REFRESH, {"refresh": user.refresh}),
        lambda: user.get(MOVIES),
        lambda: user.post(MOVIES, movie_fields()),
        lambda: user.get(f"{MOVIES}1/"),
        lambda: user.put(f"{MOVIES}1/", movie_fields()),
        lambda: user.patch(f"{MOVIES}1/", {}),
        lambda: user.delete(f"{MOVIES}1/"),
    ]


def is_unavailable(response, seconds):
    """Returns whether this is a complete 503 response that arrived within `seconds`."""
    return (
        response.status_code == 503
        and list(response.json()) == ["detail"]
        and response.headers["Content-Type"].split(";")[0] == "application/json"
        and int(response.headers["Retry-After"]) > 0
        and response.elapsed.total_seconds() < seconds
    )


def check_outage_and_recovery(client, user, end_outage):
    """Checks the responses during a database outage that has begun, ends it, and checks that the service recovers."""
    assert [is_unavailable(request(), 5) for request in requests_of_every_kind(client, user)] == [True] * 9
    wait_until(lambda: client.get("/readyz").status_code == 503)
    assert client.get("/healthz").status_code == 200
    end_outage()
    wait_until(lambda: client.get("/readyz").status_code == 200, deadline=5)
    wait_until(lambda: user.post(MOVIES, movie_fields()).status_code == 201, deadline=5)


def test_requests_return_503_while_database_refuses_connections_and_recover(start_server, database):
    server = start_server()
    client = server.client()
    ann = client.new_user()
    database.disallow_connections()
    check_outage_and_recovery(client, ann, end_outage=database.allow_connections)


def test_requests_return_503_while_database_is_unreachable_and_recover(start_server, database_link):
    client = start_server(DATABASE_URL=database_link.url, DB_POOL_SIZE="4").client()
    ann = client.new_user()
    # A connection that is only being opened now would survive the cut.
    wait_until(lambda: database_link.database.count_connections() == 5)  # those of the pool, and that of the background check
    database_link.cut()
    check_outage_and_recovery(client, ann, end_outage=database_link.restore)


def test_requests_without_database_access_are_answered_during_outage(start_server, database):
    client = start_server().client()
    database.disallow_connections()
    assert outcome(client.get(MOVIES)) == (401, {"detail": "Authentication credentials were not provided."})
    assert outcome(client.get("/nothing")) == (404, {"detail": "Not found."})
    assert outcome(client.post(TOKEN, {"username": "x"})) == (400, {"password": ["This field is required."]})


def test_reads_succeed_after_database_terminated_connections(start_server, database):
    client = start_server().client()
    ann = client.new_user()
    database.terminate_connections()
    assert [ann.get(MOVIES).status_code for _ in range(30)] == [200] * 30


def test_locked_table_returns_503_within_ten_seconds_while_probes_are_answered(start_server, database):
    server = start_server()
    ann = server.client().new_user()
    movie = ann.add_movie()
    responses = []
    with database.connect(database.url) as lock:
        lock.execute("lock table movies in access exclusive mode")
        reader = threading.Thread(target=lambda: responses.append(ann.get(f"{MOVIES}{movie['id']}/")))
        reader.start()
        started = time.monotonic()
        assert server.client().get("/healthz").status_code == 200
        assert time.monotonic() - started < 1
        reader.join(15)
    assert [is_unavailable(response, 10) for response in responses] == [True]
    assert outcome(ann.get(f"{MOVIES}{movie['id']}/")) == (200, movie)
