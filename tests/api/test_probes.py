"""/healthz and /readyz, and what clients see while the database is away, comes back, or keeps them waiting."""
import threading
import time

from helpers.client import MOVIES, REFRESH, REGISTER, TOKEN, account_fields, movie_fields, outcome, wait_until


def test_both_probes_answer_200_to_anybody(api):
    assert [api.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    assert [api.with_token("garbage").get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_probes_answer_head_without_a_body(api):
    responses = [api.send("HEAD", path) for path in ("/healthz", "/readyz")]
    assert [(response.status_code, response.content) for response in responses] == [(200, b"")] * 2


def every_request(client, user):
    """One request of each kind that needs the database."""
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


def unavailable(response, seconds):
    """Whether it is the refusal of a service whose database is away, in time."""
    return (
        response.status_code == 503
        and list(response.json()) == ["detail"]
        and response.headers["Content-Type"].split(";")[0] == "application/json"
        and int(response.headers["Retry-After"]) > 0
        and response.elapsed.total_seconds() < seconds
    )


def test_while_the_database_refuses_connections_all_answers_are_503_and_it_recovers_by_itself(start_server, database):
    server = start_server()
    client = server.client()
    ann = client.new_user()
    database.disallow_connections()
    assert [unavailable(ask(), 5) for ask in every_request(client, ann)] == [True] * 9
    wait_until(lambda: client.get("/readyz").status_code == 503)
    assert client.get("/healthz").status_code == 200
    database.allow_connections()
    wait_until(lambda: client.get("/readyz").status_code == 200, deadline=5)
    wait_until(lambda: ann.post(MOVIES, movie_fields()).status_code == 201, deadline=5)


def test_while_the_database_cannot_be_reached_all_answers_are_503_and_it_recovers_by_itself(start_server, database_link):
    client = start_server(DATABASE_URL=database_link.url, DB_POOL_SIZE="4").client()
    ann = client.new_user()
    # A connection that is still on its way would outlive the cut.
    wait_until(lambda: database_link.database.count_connections() == 5)  # the pool's, and that of the check
    database_link.cut()
    assert [unavailable(ask(), 5) for ask in every_request(client, ann)] == [True] * 9
    wait_until(lambda: client.get("/readyz").status_code == 503)
    assert client.get("/healthz").status_code == 200
    database_link.restore()
    wait_until(lambda: client.get("/readyz").status_code == 200, deadline=5)
    wait_until(lambda: ann.post(MOVIES, movie_fields()).status_code == 201, deadline=5)


def test_what_needs_no_database_is_answered_while_it_is_away(start_server, database):
    client = start_server().client()
    database.disallow_connections()
    assert outcome(client.get(MOVIES)) == (401, {"detail": "Authentication credentials were not provided."})
    assert outcome(client.get("/nothing")) == (404, {"detail": "Not found."})
    assert outcome(client.post(TOKEN, {"username": "x"})) == (400, {"password": ["This field is required."]})


def test_connections_that_the_database_cut_cost_readers_nothing(start_server, database):
    client = start_server().client()
    ann = client.new_user()
    database.terminate_connections()
    assert [ann.get(MOVIES).status_code for _ in range(30)] == [200] * 30


def test_a_lock_that_is_held_makes_503_within_ten_seconds_and_probes_go_on(start_server, database):
    server = start_server()
    ann = server.client().new_user()
    movie = ann.add_movie()
    responses = []
    with database.connect(database.url) as lock:
        lock.execute("lock table movies in access exclusive mode")
        asking = threading.Thread(target=lambda: responses.append(ann.get(f"{MOVIES}{movie['id']}/")))
        asking.start()
        started = time.monotonic()
        assert server.client().get("/healthz").status_code == 200
        assert time.monotonic() - started < 1
        asking.join(15)
    assert [unavailable(response, 10) for response in responses] == [True]
    assert outcome(ann.get(f"{MOVIES}{movie['id']}/")) == (200, movie)
