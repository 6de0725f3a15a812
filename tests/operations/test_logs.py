"""The log: text and JSON formats, levels, request ids, slow and failed requests, and logs that cannot be written."""
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from helpers.client import MOVIES, REGISTER, account_fields, wait_until
from helpers.server import run_until_exit
from helpers.settings import BINARY, SECRET_KEY

FIELDS = ["time", "level", "target", "message"]
REQUEST_FIELDS = ["request_id", "user_id", "method", "path", "route", "status", "duration_ms", "bytes"]


def request_lines(server, path):
    """Returns the parsed JSON log lines about requests for this path."""
    return [line for line in map(json.loads, server.log) if line.get("path") == path]


def test_every_json_log_line_is_an_object_with_the_documented_fields(start_server):
    server = start_server(LOG_FORMAT="json")
    ann = server.client().new_user()
    response = ann.get(f"{MOVIES}?title=hidden")
    ann.get("/nothing")
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log]
    assert all(list(line)[:4] == FIELDS for line in lines)
    assert [line["message"] for line in lines if "starts" in line["message"] or line["message"] == "stopped"][-1] == "stopped"
    assert {line["target"] for line in lines} >= {"movies_api::cli::serve", "movies_api::db::migrations", "movies_api::request"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line["time"]) for line in lines)
    [listed], [unknown], [registered] = (request_lines(server, path) for path in (MOVIES, "/nothing", REGISTER))
    assert list(listed) == FIELDS + REQUEST_FIELDS
    expected = {"user_id": ann.id, "request_id": response.headers["X-Request-Id"], "method": "GET", "status": 200, "bytes": len(response.content)}
    assert {**listed, **expected, "route": "list_movies", "level": "INFO", "message": f"GET {MOVIES} 200"} == listed
    assert 0 < listed["duration_ms"] <= response.elapsed.total_seconds() * 1000
    assert (unknown["route"], unknown["user_id"], registered["user_id"]) == ("unknown", None, None)


def test_text_log_line_contains_request_id_and_user_id_or_dash(start_server):
    server = start_server()
    ann = server.client().new_user()
    own_response, anonymous_response = ann.get(MOVIES), server.client().get(MOVIES)
    refused = ann.send("BREW", MOVIES)
    assert server.stop() == 0
    log = "\n".join(server.log)
    for response, line in ((own_response, f"{ann.id} GET {MOVIES} 200"), (refused, f"{ann.id} BREW {MOVIES} 405"), (anonymous_response, f"- GET {MOVIES} 401")):
        assert re.search(rf"Z \[INFO\] {response.headers['X-Request-Id']} {line} \d+\.\dms {len(response.content)}B$", log, re.MULTILINE)


def call_while_reads_wait(database, during):
    """Calls `during` while reads of movies have to wait for more than a second."""
    with database.connect(database.url) as blocker, ThreadPoolExecutor(1) as other:
        blocker.execute("lock table movies in access exclusive mode")
        task = other.submit(during)
        waiting = f"select 1 from pg_stat_activity where datname = '{database.name}' and wait_event_type = 'Lock' and now() - query_start > '1.1 s'"
        with database.connect(database.url, autocommit=True) as observer:
            wait_until(lambda: observer.execute(waiting).fetchall())
        blocker.rollback()
        return task.result()


def test_slow_request_is_logged_as_warning_with_its_statement(start_server, database):
    server = start_server(LOG_LEVEL="info,request=warn")
    ann = server.client().new_user()
    movie = ann.add_movie()["id"]
    assert call_while_reads_wait(database, lambda: ann.get(f"{MOVIES}{movie}/")).status_code == 200
    assert server.stop() == 0
    lines = [line for line in server.log if "/api/v1/" in line]
    assert len(lines) == 1
    pattern = rf'\[WARN\] \w+ {ann.id} GET {MOVIES}{movie}/ 200 \d+\.\dms \d+B slow: pool;dur=\d+\.\d+, statement;desc="movies/read";dur=1\d+\.\d+, batch;desc="1"$'
    assert re.search(pattern, lines[0])


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_internal_error_is_logged_once_with_request_id_and_without_row_values(start_server, database, log_format):
    server = start_server(LOG_FORMAT=log_format)
    database.run("alter table users add column shoe_size integer not null")
    fields = account_fields()
    response = server.client().post(REGISTER, fields)
    assert response.status_code == 500
    assert server.stop() == 0
    errors = [line for line in server.log if "ERROR" in line]
    assert len(errors) == 1
    assert (response.headers["X-Request-Id"] in errors[0], "users/create" in errors[0], "shoe_size" in errors[0]) == (True, True, True)
    assert [word for word in (fields["email"], "bcrypt_sha256", "row contains") if word in "\n".join(server.log)] == []


@pytest.mark.parametrize(
    "levels, expected, unexpected",
    [
        ("info", ["listening on", "migration", f" GET {MOVIES} "], [" is answered 400: "]),
        ("info,request=off", ["listening on", "migration"], [f" GET {MOVIES} "]),
        ("info,db=warn", ["listening on", f" GET {MOVIES} "], ["migration"]),
        ("info, movies_api::db::migrations = error", ["listening on", f" GET {MOVIES} "], ["migration"]),
        ("info,http=debug", ["listening on", "migration", " is answered 400: "], []),
    ],
)
def test_log_levels_can_be_set_for_parts_of_the_program(start_server, levels, expected, unexpected):
    server = start_server(LOG_LEVEL=levels)
    client = server.client()
    client.get(MOVIES)
    client.send_raw("GET", "/\x7f")
    assert server.stop() == 0
    log = "\n".join(line for line in server.log if "LOG_LEVEL" not in line)
    assert ([words for words in expected if words not in log], [words for words in unexpected if words in log]) == ([], [])


def test_failed_start_is_logged_as_json(database):
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        address = f"127.0.0.1:{occupied.getsockname()[1]}"
        status, output = run_until_exit(20, BIND=address, DATABASE_URL=database.url, LOG_LEVEL="error", LOG_FORMAT="json")
    line = json.loads(output)
    assert (status, line["level"], address in line["message"]) == (1, "ERROR", True)


def test_client_input_is_escaped_in_json_log_lines(start_server):
    server = start_server(LOG_FORMAT="json", TRUSTED_PROXIES="127.0.0.0/8")
    path = '/a"}{"level":"ERROR%0d%0a\\'
    assert server.client().send_raw("GET", path, headers=[("X-Request-Id", "of-the-proxy")]).status_code == 404
    assert server.stop() == 0
    [line] = request_lines(server, path)
    assert (line["level"], line["request_id"], line["message"]) == ("INFO", "of-the-proxy", f"GET {path} 404")


class PipedServer:
    """A server whose standard error is a pipe, which is read only when the test asks for it."""

    def __init__(self, writing, **settings):
        environment = {"SECRET_KEY": SECRET_KEY, "BCRYPT_COST": "4", "DB_POOL_SIZE": "8", "BIND": "127.0.0.1:0", **settings}
        self.process = subprocess.Popen([BINARY], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writing)
        self.received = b""
        self.base = f"http://{environment['BIND']}"

    def read_until_listening(self, reading):
        while not (match := re.search(rb"listening on (http://127\.0\.0\.1:\d+)", self.received)):
            self.received += os.read(reading, 4096)
        self.base = match[1].decode()

    def read_in_background(self, reading):
        def read():
            while part := os.read(reading, 1 << 16):
                self.received += part

        self.reader = threading.Thread(target=read, daemon=True)
        self.reader.start()

    def lines(self):
        """Returns all lines of the log, after the server has exited."""
        self.reader.join(20)
        *lines, incomplete_line = self.received.decode().split("\n")
        assert (self.reader.is_alive(), incomplete_line) == (False, ""), "the last line is incomplete"
        return lines

    def send(self, count, path, connections=4):
        """Sends requests for PATH0, PATH1, ..., each of which has to return 404."""
        def send_some(first):
            with requests.Session() as session:
                session.trust_env = False
                for number in range(first, count, connections):
                    assert session.get(f"{self.base}/{path}{number}", timeout=20).status_code == 404, number

        with ThreadPoolExecutor(connections) as pool:
            list(pool.map(send_some, range(connections)))

    def dropped(self):
        """Returns the counter of dropped log lines."""
        text = requests.get(f"{self.base}/metrics", timeout=10).text
        return int(re.search(r"^movies_log_lines_dropped_total (\d+)", text, re.MULTILINE)[1])

    def stop(self, deadline):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(deadline)


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    descriptors = [reading, writing]

    def close(descriptor):
        descriptors.remove(descriptor)
        os.close(descriptor)

    yield reading, writing, close
    for descriptor in list(descriptors):
        close(descriptor)


@pytest.fixture
def start_piped(database):
    """Returns a function that starts a server whose standard error is the given file descriptor."""
    started = []

    def start(writing, **settings):
        started.append(PipedServer(writing, DATABASE_URL=database.url, **settings))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()


def test_unread_log_delays_neither_requests_nor_shutdown(start_piped, pipe):
    reading, writing, _ = pipe
    server = start_piped(writing)
    server.read_until_listening(reading)

    def milliseconds_each(count):
        started = time.monotonic()
        server.send(count, "nothing/")
        return (time.monotonic() - started) * 1000 / count

    # The log lines of the first requests fit into the pipe.
    first, later = milliseconds_each(300), milliseconds_each(3700)
    assert later < 3 * first + 1, (first, later)
    assert server.dropped() == 0
    assert server.stop(deadline=6) == 0


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_dropped_log_lines_are_counted_and_reported_in_one_line(start_piped, pipe, log_format):
    reading, writing, close = pipe
    server = start_piped(writing, LOG_FORMAT=log_format)
    close(writing)
    server.read_until_listening(reading)
    count = 2600
    server.send(count, f"nothing/{'x' * 8000}/")
    dropped = server.dropped()
    assert 0 < dropped < count
    server.read_in_background(reading)
    wait_until(lambda: b"log lines were dropped" in server.received, deadline=30)
    server.send(1, "afterwards/")
    assert server.stop(deadline=20) == 0
    lines = server.lines()
    if log_format == "json":
        lines = [json.loads(line) for line in lines]
        assert {line["level"] for line in lines if "were dropped" in line["message"]} == {"WARN"}
        lines = [line["message"] for line in lines]
    [report] = [number for number, line in enumerate(lines) if "log lines were dropped before this one" in line]
    written = [number for number, line in enumerate(lines) if re.search(r"GET /nothing/x{8000}/\d+ 404", line)]
    [after] = [number for number, line in enumerate(lines) if "GET /afterwards/0 404" in line]
    assert max(written) < report < after
    reported = int(re.search(r"(\d+) log lines were dropped", lines[report])[1])
    # The log line of the request that read the counter was dropped, too.
    assert (reported, len(written) + reported) == (dropped + 1, count + 1)


@pytest.mark.parametrize("problem", ["full disk", "no reader"])
def test_unwritable_log_loses_lines_but_no_requests(start_piped, pipe, problem):
    reading, writing, close = pipe
    if problem == "full disk":
        with socket.socket() as free, open("/dev/full", "w") as full:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            free.close()
            server = start_piped(full, BIND=f"127.0.0.1:{port}")

        def is_answering():
            try:
                return requests.get(f"{server.base}/healthz", timeout=5).status_code == 200
            except requests.ConnectionError:
                return False

        wait_until(is_answering, deadline=20)
    else:
        server = start_piped(writing)
        server.read_until_listening(reading)
        close(writing)
        close(reading)
    server.send(200, "nothing/")
    wait_until(lambda: server.dropped() >= 200)
    assert server.stop(deadline=6) == 0


def test_non_blocking_log_pipe_loses_no_line(start_piped, pipe):
    reading, writing, close = pipe
    os.set_blocking(writing, False)
    server = start_piped(writing)
    close(writing)
    server.read_until_listening(reading)
    server.send(2000, "nothing/")
    server.read_in_background(reading)
    assert server.stop(deadline=20) == 0
    numbers = re.findall(r"GET /nothing/(\d+) 404", "\n".join(server.lines()))
    assert sorted(map(int, numbers)) == list(range(2000))


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_failed_start_exits_even_if_its_log_is_not_read(start_piped, pipe, log_format):
    _, writing, _ = pipe
    os.set_blocking(writing, False)
    while True:
        try:
            os.write(writing, b"x" * 512)
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        server = start_piped(writing, LOG_FORMAT=log_format, BIND="127.0.0.1:%d" % occupied.getsockname()[1])
        assert server.process.wait(15) == 1
