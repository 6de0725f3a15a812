"""run.sh as people use it: serving with a database of its own, signals, exit statuses, what it says when it cannot."""
import contextlib
import os
import signal
import socket
import stat

import pytest
from client import PASSWORD, REGISTER, TOKEN, account
from place import children_of, is_running, wait_for

pytestmark = pytest.mark.own_servers


def sign_up(client):
    body = account()
    assert client.post(REGISTER, body).status_code == 201
    return body["username"]


def can_sign_in(client, username):
    answer = client.post(TOKEN, {"username": username, "password": PASSWORD})
    return answer.status_code == 200


def test_a_signal_ends_it_with_0_and_the_next_run_finds_the_data(place):
    run, client = place.serve()
    username = sign_up(client)
    client.close()
    run.terminate()
    assert run.wait(10) == 0
    assert not place.database_runs()
    assert stat.S_IMODE((place.folder / "secret_key").stat().st_mode) == 0o600
    _, client = place.serve()
    assert can_sign_in(client, username)
    client.close()


def test_after_a_sigkill_of_everything_the_data_is_there(place):
    run, client = place.serve()
    username = sign_up(client)
    client.close()
    postmaster = place.number_in("database/cluster/postmaster.pid")
    everything = [run.pid, place.number_in("server.pid"), postmaster, *children_of(postmaster)]
    for process_id in everything:
        with contextlib.suppress(ProcessLookupError):  # PostgreSQL's own short-lived workers come and go
            os.kill(process_id, signal.SIGKILL)
    run.wait()
    wait_for(lambda: not any(map(is_running, everything)), "the end of everything")
    _, client = place.serve()
    assert can_sign_in(client, username)
    client.close()


def test_what_a_killed_run_leaves_behind_is_stopped_by_stop(place):
    run, client = place.serve()
    client.close()
    server = place.number_in("server.pid")
    run.kill()
    run.wait()
    assert is_running(server)
    status, said = place.run()
    assert status != 0 and "./run.sh stop" in said.splitlines()[-1]
    status, said = place.run("stop")
    assert (status, said) == (0, "run.sh: stopped its server, its database\n")
    assert not is_running(server) and not place.database_runs()


def test_stop_ends_the_service_and_its_run(place):
    run, client = place.serve()
    client.close()
    assert place.run("stop") == (0, "run.sh: stopped the service\n")
    assert run.wait(10) == 0
    assert not place.database_runs()
    status, said = place.run("stop")
    assert status == 1 and said.startswith("run.sh: nothing runs for ")


def test_a_second_run_on_the_same_data_says_so_and_harms_nothing(place):
    _, client = place.serve()
    status, said = place.run()
    assert status == 1 and "another run.sh is using" in said.splitlines()[-1]
    sign_up(client)
    client.close()


def test_a_taken_port_is_one_line_and_the_database_is_stopped(place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = place.run(BIND=f"127.0.0.1:{port}")
    assert status == 1
    assert f"listening on 127.0.0.1:{port}: Address already in use" in said.splitlines()[-1]
    assert not place.database_runs()


@pytest.mark.parametrize(
    "settings, status, told",
    [
        ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, 1, "movies-api: "),
        ({"BCRYPT_COST": "99"}, 2, "movies-api: BCRYPT_COST=99 is not allowed"),
        ({"DATA_DIR": "/dev/null/data"}, 1, "run.sh: cannot make /dev/null/data"),
    ],
)
def test_what_cannot_be_is_one_clear_line_and_a_status(place, settings, status, told):
    got, said = place.run(**settings)
    assert (got, said.splitlines()[-1][: len(told)]) == (status, told), said
    assert "panicked" not in said


def test_an_unknown_command_is_told_how_to_use_it(place):
    status, said = place.run("sevre")
    assert status == 2 and said.startswith("usage: ./run.sh")
