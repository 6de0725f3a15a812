"""Limits on what clients can use: file descriptors, threads, memory, workers and database connections."""
import contextlib
import json
import resource
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.client import MOVIES, PASSWORD, TOKEN, Client, movie_fields, send_bytes, wait_until
from helpers.concurrency import post, run_simultaneously
from helpers.metrics import read_metrics

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def raise_descriptor_limit():
    """The test process needs a descriptor for each connection, too."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def process_status(server, name):
    """Returns a number from /proc/PID/status: VmRSS or VmHWM in KiB, or Threads."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def open_connections(server, number, sent=b""):
    """Opens connections, sends `sent` on each, and reads nothing from them."""
    connections = contextlib.ExitStack()
    for _ in range(number):
        connection = connections.enter_context(socket.socket())
        # A small receive buffer, so that unread responses stay in the server.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", int(server.base.rsplit(":", 1)[1])))
        with contextlib.suppress(OSError):  # the server refused and closed the connection meanwhile
            connection.setblocking(False)
            connection.sendall(sent)
    return connections


def request(user, method, path, body_bytes=None):
    """Returns request line and headers of a request of this user."""
    length = "" if body_bytes is None else f"Content-Type: application/json\r\nContent-Length: {body_bytes}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {user.token}\r\n{length}\r\n".encode()


# The default of MAX_CONNECTIONS leaves descriptors for other purposes; with 5000 the process runs out of descriptors.
@pytest.mark.parametrize("max_connections", [None, "5000"])
def test_thousand_connections_with_256_descriptors_do_not_stop_the_service(start_server, max_connections):
    server = start_server(command_prefix=("prlimit", "--nofile=256"), MAX_CONNECTIONS=max_connections)
    ann = server.client().new_user()
    for _ in range(3):
        with open_connections(server, 1000):
            pass
        closed = time.monotonic()
        wait_until(lambda: ann.with_token(ann.token).get(MOVIES).status_code == 200, deadline=20)
        assert time.monotonic() - closed < 2
    # Accepting connections failed only where MAX_CONNECTIONS was too high.
    metrics = Client(server.base).get("/metrics").text
    assert ("movies_accept_errors_total 0\n" in metrics) == (max_connections is None)
    assert server.stop() == 0


def test_two_hundred_slow_clients_use_no_threads_and_little_memory_and_do_not_slow_others(start_server):
    server = start_server()
    ann = server.client().new_user()
    for _ in range(100):
        ann.add_movie(title="🎬" * 100)
    page = request(ann, "GET", f"{MOVIES}?page_size=100")
    # First, the memory that 50 ordinary clients use is allocated, so that it is not counted below.
    run_simultaneously(50, lambda _: [send_bytes(server.base, page) for _ in range(4)])
    responses_before = [ann.get(f"{MOVIES}?page_size=5") for _ in range(100)]
    memory, threads = process_status(server, "VmRSS"), process_status(server, "Threads")
    slow = [b"", b"GET / HTTP/1.1\r\nHost: ", request(ann, "POST", MOVIES, 900_000) + b"x" * 50_000, page * 10]
    with contextlib.ExitStack() as connections:
        for sent in slow:
            connections.enter_context(open_connections(server, 50, sent))
        responses_during = [ann.get(f"{MOVIES}?page_size=5") for _ in range(200)] + [ann.post(MOVIES, movie_fields()) for _ in range(50)]
        assert process_status(server, "Threads") <= threads + 8
        assert (process_status(server, "VmRSS") - memory) * 1024 < 48 * MIB
    assert {response.status_code for response in responses_during} == {200, 201}
    # A request that waited for a slow client would take seconds.
    seconds_before, seconds_during = (statistics.median(response.elapsed.total_seconds() for response in responses) for responses in (responses_before, responses_during))
    assert seconds_during < 5 * seconds_before + 0.05, (seconds_before, seconds_during)


def test_thousand_idle_connections_use_less_than_4_mib(start_server):
    server = start_server()
    ann = server.client().new_user()
    memory = process_status(server, "VmRSS")
    with open_connections(server, 1000, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"):
        assert ann.get(MOVIES).status_code == 200
        assert (process_status(server, "VmRSS") - memory) * 1024 < 4 * MIB
    assert server.stop() == 0


def json_bodies():
    """Yields bodies of 1 MiB that could take much more memory when parsed."""
    zeros = "[" + "0," * (MIB // 2 - 2) + "0]"
    pieces = (f'"{number:x}":[]' for number in range(80_000))
    yield from (zeros, "[" * MIB, "{" + ",".join(pieces) + "}", '{"a":' * (MIB // 5), "9" * MIB, '"' + "\\u0041" * (MIB // 6 - 1) + '"')
    yield "[" + "{}," * (MIB // 3 - 2) + "{}]"


def endless_requests():
    """Yields beginnings of requests, and bytes to repeat after them until the server closes the connection, or up to 16 MiB."""
    start = b"POST /api/v1/movies/ HTTP/1.1\r\nHost: a\r\n"
    chunked = start + b"Transfer-Encoding: chunked\r\n\r\n"
    yield b"GET /", b"a" * 1000
    yield b"", b"\r\n" * 500
    yield start, b"A: b\r\n" * 100
    yield start + b"A: ", b"b" * 1000
    yield start + b"Content-Length: 1000000\r\n\r\n", b"b" * 1000
    yield chunked, b"1\r\na\r\n" * 100
    yield chunked + b"1;", b"a" * 1000
    yield chunked + b"0\r\n", b"A: b\r\n" * 100
    yield b"", b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" * 20


def send_endlessly(server, beginning, piece):
    """Sends until the server closes the connection, stops reading for 0.5 s, or has received 16 MiB."""
    with socket.create_connection(("127.0.0.1", int(server.base.rsplit(":", 1)[1])), timeout=0.5) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(beginning)
            for _ in range(16 * MIB // len(piece)):
                connection.sendall(piece)


def test_no_single_request_uses_64_mib(start_server):
    server = start_server()
    ann = server.client().new_user()
    memory = process_status(server, "VmRSS")
    for body in json_bodies():
        assert ann.post_json(MOVIES, body).status_code in (400, 413)
    form = "&".join(f"{number:x}=" for number in range(150_000))
    assert ann.post(MOVIES, form=form).status_code == 400
    for beginning, piece in endless_requests():
        send_endlessly(server, beginning, piece)
    assert ann.get(MOVIES).status_code == 200
    # VmHWM is the peak.
    assert (process_status(server, "VmHWM") - memory) * 1024 < 64 * MIB


def test_reads_succeed_beside_64_sign_ins_of_which_the_excess_gets_retry_after(start_server):
    server = start_server(BCRYPT_COST="10")
    ann = server.client().new_user()
    movie = ann.add_movie()
    reading = request(ann, "GET", f"{MOVIES}{movie['id']}/")
    send = lambda index: send_bytes(server.base, reading) if index >= 64 else post(ann, TOKEN, {"username": ann.username, "password": PASSWORD})
    started = time.monotonic()
    responses = run_simultaneously(80, send)
    seconds = time.monotonic() - started
    assert [json.loads(response.content) for response in responses[64:]] == [movie] * 16
    refused = [response for response in responses[:64] if response.status_code != 200]
    assert {response.status_code for response in refused} <= {429, 503}
    assert all("Retry-After" in response.headers for response in refused)
    # Three eighths of the 64 workers may hash passwords at once; a request that waits for its turn is refused after 4 s at the earliest.
    assert len(refused) <= (64 - 24 if seconds >= 4 else 0), f"{len(refused)} refused within {seconds:.1f} s"


def test_hanging_searches_and_deep_pages_leave_database_connections_for_other_requests(start_server, database):
    server = start_server(DB_POOL_SIZE="4")
    probe, ann = server.client(), server.client().new_user()
    movie = f"{MOVIES}{ann.add_movie()['id']}/"
    with database.connect(database.url) as holder, ThreadPoolExecutor(8) as pool:
        # Only counting a long list reads this table.
        holder.execute("lock table movie_count_ranges in access exclusive mode")
        hanging = [pool.submit(ann.with_token(ann.token).get, f"{MOVIES}?page=last") for _ in range(8)]

        def arrived():
            metrics = read_metrics(probe)
            return metrics["movies_requests_in_flight", ""] + metrics["movies_requests_queued", ""] == len(hanging)

        wait_until(arrived)
        others = [ann.get(path).status_code for path in (movie, MOVIES)]
        holder.rollback()
    assert others == [200, 200]
    # They share one connection; a request that waits for it longer than a second is refused.
    seconds = [response.result().elapsed.total_seconds() for response in hanging]
    assert {response.result().status_code for response in hanging} <= ({200, 503} if max(seconds) >= 1 else {200})
    assert hanging[0].result().status_code == 200
