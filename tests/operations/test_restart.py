"""Start and stop: data and tokens that survive a restart, key rotation, invalid settings, unreachable databases."""
import os
import re
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.client import MISSING, MOVIES, REFRESH, TOKEN, movie_fields, outcome, unique_word, wait_until
from helpers.server import run_until_exit
from helpers.settings import BINARY

OLD_KEY = "an-old-key-of-the-tests-0123456789abcdefgh"
NEW_KEY = "a-new-key-of-the-tests-0123456789abcdefghi"


@pytest.mark.parametrize("stop_signal, status", [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_users_movies_and_tokens_survive_a_restart(start_server, stop_signal, status):
    server = start_server()
    ann = server.client().new_user()
    movie = ann.add_movie()
    assert server.stop(stop_signal) == status
    client = server.restart().client()
    assert outcome(client.with_token(ann.token).get(f"{MOVIES}{movie['id']}/")) == (200, movie)
    assert client.post(REFRESH, {"refresh": ann.refresh}).status_code == 200
    assert client.post(TOKEN, {"username": ann.username, "password": ann.password}).status_code == 200
    assert client.with_token(ann.token).add_to(MOVIES, movie_fields())["id"] > movie["id"]


def test_acknowledged_writes_survive_sigkill(start_server):
    server = start_server()
    ann = server.client().new_user()
    acknowledged = []

    def write_until_it_dies():
        writer = ann.with_token(ann.token)
        try:
            while True:
                acknowledged.append(writer.add_to(MOVIES, movie_fields()))
        except OSError:
            writer.close()

    writers = [threading.Thread(target=write_until_it_dies) for _ in range(4)]
    [writer.start() for writer in writers]
    wait_until(lambda: len(acknowledged) > 100)
    server.process.kill()
    [writer.join(10) for writer in writers]
    assert server.wait_for_exit() == -signal.SIGKILL
    reader = server.restart().client().with_token(ann.token)
    assert [reader.get(f"{MOVIES}{movie['id']}/").json() for movie in acknowledged] == acknowledged


def test_sigterm_answers_received_requests_and_exits_within_ten_seconds(start_server, database):
    server = start_server()
    ann = server.client().new_user()
    responses = []
    sender = threading.Thread(target=lambda: responses.append(ann.send_raw("POST", MOVIES,
            [("Content-Type", "application/x-www-form-urlencoded")], b"title=a&genre=b&year=1")))
    with database.connect(database.url) as lock:
        lock.execute("lock table movies in exclusive mode")
        sender.start()
        database.wait_until_session_waits_for_lock()
        server.process.send_signal(signal.SIGTERM)
    sender.join(10)
    server.close_clients()
    assert [response.status_code for response in responses] == [201]
    assert server.wait_for_exit(deadline=10) == 0


def test_sigterm_exits_within_ten_seconds_with_open_connections(start_server):
    server = start_server()
    ann = server.client().new_user()
    assert ann.get(MOVIES).status_code == 200
    with socket.create_connection(("127.0.0.1", int(server.base.rsplit(":", 1)[1]))) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_for_exit(deadline=10) == 0


def test_old_key_is_accepted_only_while_it_is_a_fallback(start_server):
    old = start_server(SECRET_KEY=OLD_KEY)
    ann = old.client().new_user()
    old.stop()
    rotated = start_server(SECRET_KEY=NEW_KEY, SECRET_KEY_FALLBACKS=f"an-unused-key-of-the-tests-0123456789,{OLD_KEY}")
    assert rotated.client().with_token(ann.token).get(MOVIES).status_code == 200
    renewed = rotated.client().post(REFRESH, {"refresh": ann.refresh}).json()["access"]
    rotated.stop()
    new = start_server(SECRET_KEY=NEW_KEY)
    assert [new.client().with_token(token).get(MOVIES).status_code for token in (renewed, ann.token)] == [200, 401]


def test_hashes_with_another_bcrypt_cost_are_accepted(start_server):
    server = start_server(BCRYPT_COST="5")
    ann = server.client().new_user()
    server.stop()
    again = start_server(BCRYPT_COST="4").client()
    assert again.post(TOKEN, {"username": ann.username, "password": ann.password}).status_code == 200


def test_instances_started_together_on_an_empty_database_all_serve(launch_server):
    servers = [launch_server() for _ in range(4)]
    clients = [server.wait_until_listening().client() for server in servers]
    ann = clients[0].new_user()
    movie = ann.add_movie()
    responses = [outcome(client.with_token(ann.token).get(f"{MOVIES}{movie['id']}/")) for client in clients]
    assert responses == [(200, movie)] * 4


def test_startup_log_shows_address_and_effective_settings_without_secrets(start_server):
    server = start_server(BCRYPT_COST="5", SECRET_KEY=NEW_KEY, SECRET_KEY_FALLBACKS=OLD_KEY)
    log = "\n".join(server.log)
    assert server.base in log
    assert [line for line in server.log if "BCRYPT_COST" in line and "5" in line.split("BCRYPT_COST")[1] and "environment" in line]
    assert [line for line in server.log if "MOVIES_VISIBILITY" in line and "own" in line and "default" in line]
    assert (NEW_KEY in log, OLD_KEY in log) == (False, False)


def test_empty_variables_count_as_unset(start_server):
    empty = dict.fromkeys(("ACCESS_TOKEN_LIFETIME", "MOVIES_VISIBILITY", "WORKERS", "DB_POOL_SIZE", "TRUSTED_PROXIES", "LOG_LEVEL",
                           "LOG_FORMAT", "SERVER_TIMING", "SECRET_KEY_FALLBACKS"), "")
    assert start_server(**empty).client().new_user().get(MOVIES).status_code == 200


@pytest.mark.own_servers
@pytest.mark.parametrize(
    "variable, value, allowed",
    [
        ("BCRYPT_COST", "3", "4.*31"),
        ("BCRYPT_COST", "32", "4.*31"),
        ("BCRYPT_COST", "ten", "4.*31"),
        ("WORKERS", "0", "2.*1024"),
        ("WORKERS", "-4", "2.*1024"),
        ("WORKERS", "many", "2.*1024"),
        ("DB_POOL_SIZE", "0", "1.*1000"),
        ("DB_POOL_SIZE", "99999999999999999999", "1.*1000"),
        ("ACCESS_TOKEN_LIFETIME", "0", "seconds"),
        ("ACCESS_TOKEN_LIFETIME", "-60", "seconds"),
        ("REFRESH_TOKEN_LIFETIME", "a day", "seconds"),
        ("MOVIES_VISIBILITY", "public", "own.*shared"),
        ("LOG_LEVEL", "loud", "off.*error.*warn.*info.*debug.*trace"),
        ("LOG_LEVEL", "info,db=loud", "off.*error.*warn.*info.*debug.*trace"),
        ("LOG_LEVEL", "info,a b=debug", "info,db=debug"),
        ("LOG_FORMAT", "xml", "text.*json"),
        ("SERVER_TIMING", "perhaps", "true.*false"),
        ("TRUSTED_PROXIES", "10.0.0.0/33", "network"),
        ("TRUSTED_PROXIES", "proxy.example", "network"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,10.0.0", "network"),
        ("BIND", "nowhere", "port"),
        ("BIND", "127.0.0.1", "port"),
        ("BIND", "127.0.0.1:99999", "port"),
    ],
)
def test_invalid_setting_exits_with_one_line_that_names_it_and_what_is_allowed(variable, value, allowed):
    status, output = run_until_exit(10, **{variable: value})
    assert (status > 0, output.count("\n")) == (True, 1), output
    assert re.search(f"{variable}.*{re.escape(value.split(',')[-1])}.*{allowed}", output), output


@pytest.mark.own_servers
@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL"])
@pytest.mark.parametrize("value", [MISSING, ""])
def test_missing_key_or_database_exits_with_one_line(name, value):
    status, output = run_until_exit(10, **{name: value})
    assert (status > 0, name in output, output.count("\n"), "panicked" in output) == (True, True, 1, False), output


@pytest.mark.own_servers
def test_invalid_database_url_error_hides_password():
    status, output = run_until_exit(10, DATABASE_URL="postgresql://ann:hunter2-secret@host:port/movies")
    assert (status > 0, "DATABASE_URL" in output, output.count("\n"), "hunter2-secret" in output) == (True, True, 1, False), output


@pytest.mark.own_servers
def test_unreachable_database_exits_with_one_line():
    with socket.socket() as closed, ThreadPoolExecutor(2) as threads:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        urls = ["host=/nowhere user=u password=hunter2-secret dbname=d", f"postgresql://u:hunter2-secret@127.0.0.1:{port}/d"]
        results = list(threads.map(lambda url: run_until_exit(30, DATABASE_URL=url, LOG_LEVEL="error"), urls))
    database_lines = [[line for line in output.splitlines() if "database" in line.lower()] for _, output in results]
    assert [(status > 0, len(lines)) for (status, _), lines in zip(results, database_lines, strict=True)] == [(True, 1)] * 2, results
    assert [text for text in ("panicked", "hunter2-secret") for _, output in results if text in output] == []


def test_occupied_port_exits_with_one_line(database):
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        address = f"127.0.0.1:{occupied.getsockname()[1]}"
        status, output = run_until_exit(20, BIND=address, DATABASE_URL=database.url, LOG_LEVEL="error")
    assert (status > 0, address in output, output.count("\n"), "panicked" in output) == (True, True, 1, False), output


def test_server_started_before_its_database_waits_for_it(launch_server, database_link):
    database_link.cut()
    server = launch_server(DATABASE_URL=database_link.url)
    wait_until(lambda: server.log)
    database_link.restore()
    assert server.wait_until_listening().client().new_user().get(MOVIES).status_code == 200


@pytest.mark.own_servers
def test_help_lists_every_setting_and_shows_no_secret():
    password = unique_word()
    environment = {**os.environ, "SECRET_KEY": OLD_KEY, "SECRET_KEY_FALLBACKS": NEW_KEY, "DATABASE_URL": f"host=/x password={password}"}
    completed = subprocess.run([BINARY, "--help"], env=environment, capture_output=True, text=True, timeout=10)
    names = ["BIND", "DATABASE_URL", "SECRET_KEY", "SECRET_KEY_FALLBACKS", "ACCESS_TOKEN_LIFETIME", "REFRESH_TOKEN_LIFETIME",
             "MOVIES_VISIBILITY", "BCRYPT_COST", "WORKERS", "DB_POOL_SIZE", "TRUSTED_PROXIES", "LOG_LEVEL", "LOG_FORMAT", "SERVER_TIMING"]
    assert completed.returncode == 0
    assert [name for name in names if name not in completed.stdout] == []
    assert [secret for secret in (OLD_KEY, NEW_KEY, password) if secret in completed.stdout] == []
