"""What clients may cost the process: descriptors, threads, memory; and what ordinary clients notice of the others."""
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
def many_descriptors():
    """The clients' side needs one for each connection as well."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def status_of(server, name):
    """A number of the process's own status: VmRSS and VmHWM in KiB, Threads."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def open_connections(server, number, sent=b""):
    """So many connections, on each of which this was sent and from none of which anything is read."""
    connections = contextlib.ExitStack()
    for _ in range(number):
        connection = connections.enter_context(socket.socket())
        # Little room on this side, so that what is not read waits on the server's.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", int(server.base.rsplit(":", 1)[1])))
        with contextlib.suppress(OSError):  # refused and closed, while it was sent
            connection.setblocking(False)
            connection.sendall(sent)
    return connections


def request(user, method, path, body_bytes=None):
    """The head of a request of this user, as bytes."""
    length = "" if body_bytes is None else f"Content-Type: application/json\r\nContent-Length: {body_bytes}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {user.token}\r\n{length}\r\n".encode()


# By default MAX_CONNECTIONS leaves descriptors for all else; set too high, they run out.
@pytest.mark.parametrize("most_connections", [None, "5000"])
def test_a_thousand_connections_on_256_descriptors_end_nothing_and_two_seconds_later_it_serves(start_server, most_connections):
    server = start_server(command_prefix=("prlimit", "--nofile=256"), MAX_CONNECTIONS=most_connections)
    ann = server.client().new_user()
    for _ in range(3):
        with open_connections(server, 1000):
            pass
        closed = time.monotonic()
        wait_until(lambda: ann.with_token(ann.token).get(MOVIES).status_code == 200, deadline=20)
        assert time.monotonic() - closed < 2
    # The default leaves enough for all else; else descriptors did run out.
    shown = Client(server.base).get("/metrics").text
    assert ("movies_accept_errors_total 0\n" in shown) == (most_connections is None)
    assert server.stop() == 0


def test_two_hundred_slow_clients_cost_no_threads_little_memory_and_others_nothing(start_server):
    server = start_server()
    ann = server.client().new_user()
    for _ in range(100):
        ann.add_movie(title="🎬" * 100)
    page = request(ann, "GET", f"{MOVIES}?page_size=100")
    # What fifty clients cost that are as many and not slow is no part of it.
    run_simultaneously(50, lambda _: [send_bytes(server.base, page) for _ in range(4)])
    alone = [ann.get(f"{MOVIES}?page_size=5") for _ in range(100)]
    memory, threads = status_of(server, "VmRSS"), status_of(server, "Threads")
    slow = [b"", b"GET / HTTP/1.1\r\nHost: ", request(ann, "POST", MOVIES, 900_000) + b"x" * 50_000, page * 10]
    with contextlib.ExitStack() as connections:
        for sent in slow:
            connections.enter_context(open_connections(server, 50, sent))
        beside = [ann.get(f"{MOVIES}?page_size=5") for _ in range(200)] + [ann.post(MOVIES, movie_fields()) for _ in range(50)]
        assert status_of(server, "Threads") <= threads + 8
        assert (status_of(server, "VmRSS") - memory) * 1024 < 48 * MIB
    assert {response.status_code for response in beside} == {200, 201}
    # Whoever waited for a slow client would wait for seconds.
    usual, slowed = (statistics.median(response.elapsed.total_seconds() for response in responses) for responses in (alone, beside))
    assert slowed < 5 * usual + 0.05, (usual, slowed)


def test_a_thousand_idle_connections_cost_little_memory(start_server):
    server = start_server()
    ann = server.client().new_user()
    memory = status_of(server, "VmRSS")
    with open_connections(server, 1000, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"):
        assert ann.get(MOVIES).status_code == 200
        assert (status_of(server, "VmRSS") - memory) * 1024 < 4 * MIB
    assert server.stop() == 0


def json_bodies():
    """Bodies of a mebibyte that a parser might unfold."""
    nothing = "[" + "0," * (MIB // 2 - 2) + "0]"
    pieces = (f'"{number:x}":[]' for number in range(80_000))
    yield from (nothing, "[" * MIB, "{" + ",".join(pieces) + "}", '{"a":' * (MIB // 5), "9" * MIB, '"' + "\\u0041" * (MIB // 6 - 1) + '"')
    yield "[" + "{}," * (MIB // 3 - 2) + "{}]"


def endless():
    """Beginnings, and what is sent behind them again and again until the server has enough, or for 16 MiB."""
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
    """Sends until the server closes, takes no more for a moment, or has got 16 MiB."""
    with socket.create_connection(("127.0.0.1", int(server.base.rsplit(":", 1)[1])), timeout=0.5) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(beginning)
            for _ in range(16 * MIB // len(piece)):
                connection.sendall(piece)


def test_no_single_input_adds_64_mebibytes(start_server):
    server = start_server()
    ann = server.client().new_user()
    memory = status_of(server, "VmRSS")
    for body in json_bodies():
        assert ann.post_json(MOVIES, body).status_code in (400, 413)
    form = "&".join(f"{number:x}=" for number in range(150_000))
    assert ann.post(MOVIES, form=form).status_code == 400
    for beginning, piece in endless():
        send_endlessly(server, beginning, piece)
    assert ann.get(MOVIES).status_code == 200
    # The most that it ever was.
    assert (status_of(server, "VmHWM") - memory) * 1024 < 64 * MIB


def test_readers_are_served_while_sixty_four_sign_in_and_the_excess_is_told_to_come_back(start_server):
    server = start_server(BCRYPT_COST="10")
    ann = server.client().new_user()
    movie = ann.add_movie()
    reading = request(ann, "GET", f"{MOVIES}{movie['id']}/")
    ask = lambda index: send_bytes(server.base, reading) if index >= 64 else post(ann, TOKEN, {"username": ann.username, "password": PASSWORD})
    started = time.monotonic()
    responses = run_simultaneously(80, ask)
    seconds = time.monotonic() - started
    assert [json.loads(response.content) for response in responses[64:]] == [movie] * 16
    refused = [response for response in responses[:64] if response.status_code != 200]
    assert {response.status_code for response in refused} <= {429, 503}
    assert all("Retry-After" in response.headers for response in refused)
    # Three eighths of the 64 workers verify them at once, and who waits for that is refused after four seconds at the earliest.
    assert len(refused) <= (64 - 24 if seconds >= 4 else 0), f"{len(refused)} refused within {seconds:.1f} s"


def test_searches_and_deep_pages_that_hang_leave_connections_for_all_others(start_server, database):
    server = start_server(DB_POOL_SIZE="4")
    probe, ann = server.client(), server.client().new_user()
    movie = f"{MOVIES}{ann.add_movie()['id']}/"
    with database.connect(database.url) as holder, ThreadPoolExecutor(8) as pool:
        # What only they read.
        holder.execute("lock table shelf_parts in access exclusive mode")
        hanging = [pool.submit(ann.with_token(ann.token).get, f"{MOVIES}?page=last") for _ in range(8)]

        def arrived():
            found = read_metrics(probe)
            return found["movies_requests_in_flight", ""] + found["movies_requests_queued", ""] == len(hanging)

        wait_until(arrived)
        others = [ann.get(path).status_code for path in (movie, MOVIES)]
        holder.rollback()
    assert others == [200, 200]
    # One of them has a connection at a time; the others are refused if they wait for it longer than a second.
    seconds = [response.result().elapsed.total_seconds() for response in hanging]
    assert {response.result().status_code for response in hanging} <= ({200, 503} if max(seconds) >= 1 else {200})
    assert hanging[0].result().status_code == 200
