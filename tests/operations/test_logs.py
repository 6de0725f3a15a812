"""The log: text or JSON, who asked, what was slow or failed, how much of which room."""
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
OF_REQUESTS = ["request_id", "user_id", "method", "path", "route", "status", "duration_ms", "bytes"]


def request_lines(server, path):
    """Those of the log of JSON lines that tell of this path."""
    return [line for line in map(json.loads, server.log) if line.get("path") == path]


def test_every_line_of_json_is_an_object_from_the_start_to_the_end(start_server):
    server = start_server(LOG_FORMAT="json")
    ann = server.client().new_user()
    response = ann.get(f"{MOVIES}?title=hidden")
    ann.get("/nothing")
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log]
    assert all(list(line)[:4] == FIELDS for line in lines)
    assert [line["message"] for line in lines if "starts" in line["message"] or line["message"] == "stopped"][-1] == "stopped"
    assert {line["target"] for line in lines} >= {"movies_api::commands::serve", "movies_api::store::schema", "movies_api::request"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", line["time"]) for line in lines)
    [listed], [unknown], [registered] = (request_lines(server, path) for path in (MOVIES, "/nothing", REGISTER))
    assert list(listed) == FIELDS + OF_REQUESTS
    told = {"user_id": ann.id, "request_id": response.headers["X-Request-Id"], "method": "GET", "status": 200, "bytes": len(response.content)}
    assert {**listed, **told, "route": "list_movies", "level": "INFO", "message": f"GET {MOVIES} 200"} == listed
    assert 0 < listed["duration_ms"] <= response.elapsed.total_seconds() * 1000
    assert (unknown["route"], unknown["user_id"], registered["user_id"]) == ("unknown", None, None)


def test_a_line_of_text_holds_the_request_s_id_and_the_user_s_or_a_dash(start_server):
    server = start_server()
    ann = server.client().new_user()
    mine, nobody_s = ann.get(MOVIES), server.client().get(MOVIES)
    refused = ann.send("BREW", MOVIES)
    assert server.stop() == 0
    log = "\n".join(server.log)
    for response, line in ((mine, f"{ann.id} GET {MOVIES} 200"), (refused, f"{ann.id} BREW {MOVIES} 405"), (nobody_s, f"- GET {MOVIES} 401")):
        assert re.search(rf"Z \[INFO\] {response.headers['X-Request-Id']} {line} \d+\.\dms {len(response.content)}B$", log, re.MULTILINE)


def hold_back(database, during):
    """Keeps readers of movies waiting for longer than a second while this is done."""
    with database.connect(database.url) as holder, ThreadPoolExecutor(1) as other:
        holder.execute("lock table movies in access exclusive mode")
        done = other.submit(during)
        waiting = f"select 1 from pg_stat_activity where datname = '{database.name}' and wait_event_type = 'Lock' and now() - query_start > '1.1 s'"
        with database.connect(database.url, autocommit=True) as watcher:
            wait_until(lambda: watcher.execute(waiting).fetchall())
        holder.rollback()
        return done.result()


def test_a_slow_request_is_warned_of_with_its_statement_s_name(start_server, database):
    server = start_server(LOG_LEVEL="info,request=warn")
    ann = server.client().new_user()
    movie = ann.add_movie()["id"]
    assert hold_back(database, lambda: ann.get(f"{MOVIES}{movie}/")).status_code == 200
    assert server.stop() == 0
    lines = [line for line in server.log if "/api/v1/" in line]
    assert len(lines) == 1
    said = rf'\[WARN\] \w+ {ann.id} GET {MOVIES}{movie}/ 200 \d+\.\dms \d+B slow: pool;dur=\d+\.\d+, statement;desc="movies/read";dur=1\d+\.\d+, batch;desc="1"$'
    assert re.search(said, lines[0])


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_fault_is_one_error_with_the_request_s_id_and_without_the_row_that_failed(start_server, database, form):
    server = start_server(LOG_FORMAT=form)
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
    "levels, told, untold",
    [
        ("info", ["listening on", "migration", f" GET {MOVIES} "], [" refused: 400 "]),
        ("info,request=off", ["listening on", "migration"], [f" GET {MOVIES} "]),
        ("info,store=warn", ["listening on", f" GET {MOVIES} "], ["migration"]),
        ("info, movies_api::store::schema = error", ["listening on", f" GET {MOVIES} "], ["migration"]),
        ("info,server=debug", ["listening on", "migration", " refused: 400 "], []),
    ],
)
def test_levels_hold_by_room(start_server, levels, told, untold):
    server = start_server(LOG_LEVEL=levels)
    client = server.client()
    client.get(MOVIES)
    client.send_raw("GET", "/\x7f")
    assert server.stop() == 0
    log = "\n".join(line for line in server.log if "LOG_LEVEL" not in line)
    assert ([words for words in told if words not in log], [words for words in untold if words in log]) == ([], [])


def test_a_start_that_fails_says_so_in_json_too(database):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, output = run_until_exit(20, BIND=address, DATABASE_URL=database.url, LOG_LEVEL="error", LOG_FORMAT="json")
    told = json.loads(output)
    assert (status, told["level"], address in told["message"]) == (1, "ERROR", True)


def test_what_a_client_sent_stays_inside_its_string_of_json(start_server):
    server = start_server(LOG_FORMAT="json", TRUSTED_PROXIES="127.0.0.0/8")
    path = '/a"}{"level":"ERROR%0d%0a\\'
    assert server.client().send_raw("GET", path, headers=[("X-Request-Id", "of-the-proxy")]).status_code == 404
    assert server.stop() == 0
    [line] = request_lines(server, path)
    assert (line["level"], line["request_id"], line["message"]) == ("INFO", "of-the-proxy", f"GET {path} 404")


class Piped:
    """A server whose standard error is the writing end of a pipe, which is read only when the test says so."""

    def __init__(self, writing, **settings):
        environment = {"SECRET_KEY": SECRET_KEY, "BCRYPT_COST": "4", "DB_POOL_SIZE": "8", "BIND": "127.0.0.1:0", **settings}
        self.process = subprocess.Popen([BINARY], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writing)
        self.received = b""
        self.base = f"http://{environment['BIND']}"

    def read_until_listening(self, reading):
        while not (match := re.search(rb"listening on (http://127\.0\.0\.1:\d+)", self.received)):
            self.received += os.read(reading, 4096)
        self.base = match[1].decode()

    def read_on(self, reading):
        def read():
            while part := os.read(reading, 1 << 16):
                self.received += part

        self.reader = threading.Thread(target=read, daemon=True)
        self.reader.start()

    def lines(self):
        """Of the whole log, once the server has ended."""
        self.reader.join(20)
        *lines, rest = self.received.decode().split("\n")
        assert (self.reader.is_alive(), rest) == (False, ""), "the last line is whole"
        return lines

    def send(self, count, path, connections=4):
        """Sends this many requests to the path and their number, each of which has to be answered with 404."""
        def send_some(first):
            with requests.Session() as session:
                session.trust_env = False
                for number in range(first, count, connections):
                    assert session.get(f"{self.base}/{path}{number}", timeout=20).status_code == 404, number

        with ThreadPoolExecutor(connections) as pool:
            list(pool.map(send_some, range(connections)))

    def dropped(self):
        """The counter of lost log lines."""
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
    """Starts servers with this standard error."""
    started = []

    def start(writing, **settings):
        started.append(Piped(writing, DATABASE_URL=database.url, **settings))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()


def test_a_log_that_nobody_reads_holds_up_no_request_and_not_the_stop(start_piped, pipe):
    reading, writing, _ = pipe
    server = start_piped(writing)
    server.read_until_listening(reading)

    def milliseconds_each(count):
        started = time.monotonic()
        server.send(count, "nothing/")
        return (time.monotonic() - started) * 1000 / count

    # The lines of the first fit into the pipe.
    first, later = milliseconds_each(300), milliseconds_each(3700)
    assert later < 3 * first + 1, (first, later)
    assert server.dropped() == 0
    assert server.stop(deadline=6) == 0


@pytest.mark.parametrize("form", ["text", "json"])
def test_log_lines_that_do_not_fit_are_counted_and_told_in_one_line_once_it_is_read_again(start_piped, pipe, form):
    reading, writing, close = pipe
    server = start_piped(writing, LOG_FORMAT=form)
    close(writing)
    server.read_until_listening(reading)
    count = 2600
    server.send(count, f"nothing/{'x' * 8000}/")
    dropped = server.dropped()
    assert 0 < dropped < count
    server.read_on(reading)
    wait_until(lambda: b"log lines were dropped" in server.received, deadline=30)
    server.send(1, "afterwards/")
    assert server.stop(deadline=20) == 0
    lines = server.lines()
    if form == "json":
        lines = [json.loads(line) for line in lines]
        assert {line["level"] for line in lines if "were dropped" in line["message"]} == {"WARN"}
        lines = [line["message"] for line in lines]
    [told] = [number for number, line in enumerate(lines) if "log lines were dropped before this one" in line]
    written = [number for number, line in enumerate(lines) if re.search(r"GET /nothing/x{8000}/\d+ 404", line)]
    [after] = [number for number, line in enumerate(lines) if "GET /afterwards/0 404" in line]
    assert max(written) < told < after
    lost = int(re.search(r"(\d+) log lines were dropped", lines[told])[1])
    # The line of the request for the counter came after it, and was lost too.
    assert (lost, len(written) + lost) == (dropped + 1, count + 1)


@pytest.mark.parametrize("fault", ["full disk", "no reader"])
def test_a_log_that_cannot_be_written_loses_lines_and_no_requests(start_piped, pipe, fault):
    reading, writing, close = pipe
    if fault == "full disk":
        with socket.socket() as free, open("/dev/full", "w") as full:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            free.close()
            server = start_piped(full, BIND=f"127.0.0.1:{port}")

        def responses():
            try:
                return requests.get(f"{server.base}/healthz", timeout=5).status_code == 200
            except requests.ConnectionError:
                return False

        wait_until(responses, deadline=20)
    else:
        server = start_piped(writing)
        server.read_until_listening(reading)
        close(writing)
        close(reading)
    server.send(200, "nothing/")
    wait_until(lambda: server.dropped() >= 200)
    assert server.stop(deadline=6) == 0


def test_a_pipe_that_another_process_made_non_blocking_loses_no_line(start_piped, pipe):
    reading, writing, close = pipe
    os.set_blocking(writing, False)
    server = start_piped(writing)
    close(writing)
    server.read_until_listening(reading)
    server.send(2000, "nothing/")
    server.read_on(reading)
    assert server.stop(deadline=20) == 0
    numbers = re.findall(r"GET /nothing/(\d+) 404", "\n".join(server.lines()))
    assert sorted(map(int, numbers)) == list(range(2000))


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_start_that_fails_ends_though_nobody_reads_why(start_piped, pipe, form):
    _, writing, _ = pipe
    os.set_blocking(writing, False)
    while True:
        try:
            os.write(writing, b"x" * 512)
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = start_piped(writing, LOG_FORMAT=form, BIND="127.0.0.1:%d" % taken.getsockname()[1])
        assert server.process.wait(15) == 1
