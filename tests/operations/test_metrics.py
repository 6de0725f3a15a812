"""GET /metrics: values that agree with a counted load, in a format that promtool accepts."""
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

from helpers.client import MOVIES, REGISTER, account_fields, movie_fields, wait_until
from helpers.metrics import read_metrics
from helpers.programs import find_program
from helpers.settings import OPERATIONS, ROOT


def requests_in(metrics, route):
    """Returns the number of requests that a route answered, by (method, status)."""
    pattern = re.compile(rf'route="{route}",method="(\w+)",status="(\w+)"')
    counted = ((pattern.fullmatch(labels), value) for (name, labels), value in metrics.items() if name == "movies_http_requests_total")
    return {match.groups(): value for match, value in counted if match}


def test_requests_are_counted_by_route_method_and_status(start_server):
    client = start_server().client()
    ann = client.new_user()
    movie = ann.add_movie()["id"]
    for _ in range(7):
        assert ann.get(f"{MOVIES}{movie}/").status_code == 200
    for _ in range(3):
        assert ann.get(f"{MOVIES}0/").status_code == 404
    assert ann.send("HEAD", MOVIES).status_code == 200
    assert client.get(MOVIES).status_code == 401
    assert ann.send("BREW", MOVIES).status_code == 405
    for path in ("/secret-1", "/secret-2", MOVIES[:-1]):
        client.get(path)
    metrics = read_metrics(client)
    assert requests_in(metrics, "register") == {("POST", "201"): 1}
    assert requests_in(metrics, "read_movie") == {("GET", "200"): 7, ("GET", "404"): 3}
    assert requests_in(metrics, "create_movie") == {("POST", "201"): 1}
    assert requests_in(metrics, "list_movies") == {("HEAD", "200"): 1, ("GET", "401"): 1}
    assert requests_in(metrics, "unknown") == {("other", "405"): 1, ("GET", "404"): 2, ("GET", "308"): 1}
    assert metrics["movies_http_request_duration_seconds_count", 'route="read_movie"'] == 10
    assert metrics["movies_http_request_duration_seconds_bucket", 'route="read_movie",le="+Inf"'] == 10
    assert metrics["movies_http_request_duration_seconds_sum", 'route="read_movie"'] > 0
    assert metrics["movies_database_batch_requests_sum", 'statement="movies/read"'] == 10
    assert metrics["movies_password_hash_wait_seconds_count", ""] == 2  # registration and sign-in
    assert metrics["movies_database_checkout_duration_seconds_count", ""] >= 13
    answered = sum(value for (name, _), value in metrics.items() if name == "movies_http_requests_total")
    assert metrics["movies_server_requests_total", ""] == answered + 1  # and the request for /metrics, which is counted here but not yet above


def test_metrics_agree_with_a_counted_load(start_server):
    server = start_server()
    ann, clients, rounds = server.client().new_user(), 8, 5
    requests_per_round = {"create_movie": 1, "read_movie": 3, "update_movie": 1, "replace_movie": 1, "list_movies": 2, "delete_movie": 1}

    def work(client):
        for _ in range(rounds):
            path = f"{MOVIES}{client.add_to(MOVIES, movie_fields())['id']}/"
            responses = [client.get(path) for _ in range(3)] + [client.patch(path, {"year": 2001}), client.put(path, movie_fields())]
            responses += [client.get(MOVIES), client.get(f"{MOVIES}?page_size=1")]
            assert [response.status_code for response in responses] == [200] * 7
            assert client.delete(path).status_code == 204

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, [ann.with_token(ann.token) for _ in range(clients)]))
    metrics = read_metrics(server.client())
    sent = {route: times * clients * rounds for route, times in requests_per_round.items()}
    assert {route: sum(requests_in(metrics, route).values()) for route in sent} == sent
    durations = {route: metrics["movies_http_request_duration_seconds_count", f'route="{route}"'] for route in sent}
    assert durations == sent
    batched = {name: metrics["movies_database_batch_requests_sum", f'statement="movies/{name}"'] for name in ("create", "read", "update", "delete", "list_first")}
    assert batched == {"create": sent["create_movie"], "read": sent["read_movie"], "update": sent["update_movie"] + sent["replace_movie"],
                       "delete": sent["delete_movie"], "list_first": sent["list_movies"]}
    # A handler ends just after its response is sent. The request for /metrics itself is not counted.
    wait_until(lambda: read_metrics(server.client())["movies_requests_in_flight", ""] == 0)


def test_client_input_creates_no_series(start_server):
    client = start_server().client()

    def series_after(words):
        for sent in words:
            client.send(sent, f"/{sent}")
            client.get(f"{MOVIES}?{sent}={sent}", headers={"User-Agent": sent, "Host": f"{sent}.example"})
        read_metrics(client)
        return len(read_metrics(client))

    # Waits for the series of the background check.
    wait_until(lambda: ("movies_database_statement_duration_seconds_count", 'statement="probes/ready"') in read_metrics(client))
    assert series_after(["BREW"]) == series_after(f"WORD{number}" for number in range(20))


def test_gauges_show_current_values(start_server):
    server = start_server(DB_POOL_SIZE="3")
    metrics = read_metrics(server.client())
    version = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert metrics["movies_build_info", f'version="{version}"'] == 1
    assert (metrics["movies_connections", ""], metrics["movies_requests_in_flight", ""]) == (1, 0)
    assert metrics["movies_database_pool_size", ""] == 3
    assert metrics["movies_password_hashes_waiting", ""] == 0
    assert metrics["process_resident_memory_bytes", ""] > 1_000_000
    assert metrics["process_open_fds", ""] > 5


def test_labels_contain_no_path_or_username(start_server):
    client = start_server().client()
    fields = account_fields()
    client.post(REGISTER, fields)
    client.get("/api/v1/secret/?token=hidden")
    text = client.get("/metrics").text
    assert not [word for word in ("secret", "hidden", fields["username"]) if word in text]


def test_pool_timeouts_are_counted(start_server, database):
    client = start_server().client()
    ann = client.new_user()
    database.disallow_connections()
    assert ann.post(MOVIES, movie_fields()).status_code == 503
    database.allow_connections()
    assert read_metrics(client)["movies_database_checkout_timeouts_total", ""] >= 1


def test_promtool_finds_no_problem(start_server):
    client = start_server().client()
    client.new_user().add_movie()
    text = client.get("/metrics").content
    completed = subprocess.run([find_program("promtool", "prometheus"), "check", "metrics"], input=text, capture_output=True, timeout=20)
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, b"", b"")


def test_promtool_accepts_the_alert_rules_and_their_series_exist(own_server, tmp_path):
    rules = re.search(r"^```yaml\n(groups:.*?)^```$", OPERATIONS.read_text(), re.MULTILINE | re.DOTALL)[1]
    (tmp_path / "rules.yml").write_text(rules)
    completed = subprocess.run([find_program("promtool", "prometheus"), "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True, timeout=20)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    own_server.client().new_user().get(MOVIES)
    existing_series = {name for name, _ in read_metrics(own_server.client())}
    assert set(re.findall(r"movies_\w+", rules)) <= existing_series
