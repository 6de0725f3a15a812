"""run.sh as people use it: serving with a database of its own, signals, exit statuses, what it says when it cannot."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from helpers.client import MOVIES, PASSWORD, REGISTER, TOKEN, account
from helpers.cluster import find_programs, free_port, unprivileged
from helpers.place import children_of, is_running, wait_for
from helpers.settings import BINARY

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
    assert status == 1 and said.startswith("run.sh: nothing is running for ")


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
    assert said == (
        f"run.sh: 127.0.0.1:{port} is in use by another program: stop it, or choose another address with --bind,"
        " such as --bind 127.0.0.1:8001\n"
    )
    assert not (place.folder / "database").exists()


@pytest.mark.parametrize(
    "settings, status, told",
    [
        ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, 1, "movies-api: "),
        ({"BCRYPT_COST": "99"}, 2, "movies-api: BCRYPT_COST=99 is not allowed"),
        ({"DATA_DIR": "/dev/null/data"}, 1, "run.sh: cannot create /dev/null/data"),
    ],
)
def test_what_cannot_be_is_one_clear_line_and_a_status(place, settings, status, told):
    got, said = place.run(**settings)
    assert (got, said.splitlines()[-1][: len(told)]) == (status, told), said
    assert "panicked" not in said


def test_an_unknown_command_is_told_how_to_use_it(place):
    status, said = place.run("sevre")
    assert status == 2 and said.startswith("usage: ./run.sh")


def identity_of(process_id):
    """A process's effective user id and capabilities."""
    fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{process_id}/status").read_text().splitlines())
    return int(fields["Uid"].split()[1]), int(fields["CapEff"], 16)


def ask_psql(place, statement):
    status, said = place.run("psql", "-X", "-A", "-t", "-c", statement)
    assert status == 0, said
    return said.strip()


OWNERSHIP = """
    select current_user = (select pg_get_userbyid(datdba) from pg_database where datname = current_database()),
        (select rolsuper or rolcreaterole or rolcreatedb from pg_roles where rolname = current_user),
        (select count(*) from pg_class where relnamespace = 'public'::regnamespace and relowner <> current_user::regrole),
        (select count(*) from pg_class where relnamespace = 'public'::regnamespace and relowner = current_user::regrole) > 10,
        (select count(*) from pg_extension where extname in ('pg_trgm', 'btree_gin'))"""


def test_service_role_owns_its_database_and_is_no_superuser(place):
    _, client = place.serve()
    client.close()
    assert ask_psql(place, OWNERSHIP) == "t|f|0|t|2"


@pytest.mark.root
def test_root_starts_service_and_postgresql_as_unprivileged_users(place):
    _, client = place.serve()
    sign_up(client)
    client.close()
    server, postmaster = place.number_in("server.pid"), place.number_in("database/cluster/postmaster.pid")
    identities = [identity_of(process_id) for process_id in [server, postmaster, *children_of(postmaster)]]
    assert all(user != 0 and capabilities == 0 for user, capabilities in identities)
    assert identities[0][0] != identities[1][0]
    # The service's user is let in as the service's role alone, another user not at all.
    programs, socket_folder = find_programs(), place.folder / "sockets"

    def connect(user, role):
        done = subprocess.run(
            [programs / "psql", "-X", "-A", "-t", "-d", f"host='{str(socket_folder).replace(chr(39), chr(92) + chr(39))}' user={role} dbname=movies", "-c", "select 1"],
            user=user, group=user, extra_groups=[], capture_output=True, text=True, timeout=60, cwd="/",
        )
        return done.stdout or re.sub(r"(?s).*FATAL: +", "", done.stderr)

    service = identities[0][0]
    assert connect(service, "movies_api") == "1\n"
    assert connect(service, "postgres").startswith("Peer authentication failed")
    assert connect(1, "movies_api").startswith("Peer authentication failed")


@pytest.mark.root
def test_data_dir_that_postgresql_cannot_enter_is_refused(place):
    place.parent.chmod(0o700)
    status, said = place.run()
    assert status == 1 and said.count("\n") == 1
    assert re.match(r"run\.sh: the users \w+ and nobody, .* cannot enter .*: move it to .*, and set DATA_DIR", said), said


def make_cluster_of_earlier_version(place):
    """A cluster whose service was its superuser, with a user and three movies of theirs."""
    programs, owner = find_programs(), unprivileged()
    folder = place.folder / "database"
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    if owner:
        os.chown(folder, owner["user"], owner["group"])

    def call(program, *arguments):
        subprocess.run([programs / program, *arguments], check=True, capture_output=True, timeout=60, cwd="/", **owner)

    cluster = folder / "cluster"
    call("initdb", "-D", cluster, "--username=movies", "--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--locale=C.UTF-8")
    sockets = Path(subprocess.run(["mktemp", "-d", "/tmp/movies-earlier.XXXXXX"], check=True, capture_output=True, text=True).stdout.strip())
    sockets.chmod(0o777)
    with (cluster / "postgresql.conf").open("a") as settings:
        settings.write("include 'movies-api.conf'\n")
    (cluster / "movies-api.conf").write_text(f"listen_addresses = ''\nunix_socket_directories = '{sockets}'\n")
    call("pg_ctl", "-D", cluster, "-w", "-l", cluster / "server.log", "start")
    try:
        url = f"host={sockets} user=movies dbname=movies"
        call("psql", "-X", "-d", f"host={sockets} user=movies dbname=postgres", "-c", "create database movies")
        subprocess.run([BINARY, "migrate"], env={"DATABASE_URL": url}, check=True, capture_output=True, timeout=60)
        subprocess.run(
            [BINARY, "users", "create", "ann", "--email", "ann@example.com"], env={"DATABASE_URL": url, "BCRYPT_COST": "4"},
            input=PASSWORD.encode(), check=True, capture_output=True, timeout=60,
        )
        call("psql", "-X", "-d", url, "-c", "insert into movies (title, genre, year, creator_id) select 't', 'g', n, 1 from generate_series(1, 3) as n")
    finally:
        call("pg_ctl", "-D", cluster, "-w", "-m", "fast", "stop")
        shutil.rmtree(sockets)


def test_cluster_of_earlier_version_is_given_to_a_role_without_superuser(place):
    make_cluster_of_earlier_version(place)
    for _ in range(2):
        run, client = place.serve()
        answer = client.post(TOKEN, {"username": "ann", "password": PASSWORD})
        ann = client.with_token(answer.json()["access"])
        count = ann.get(MOVIES).json()["count"]
        ann.post(MOVIES, {"title": "Heat", "genre": "Crime", "year": 1995})
        assert ann.get(MOVIES).json()["count"] == count + 1
        client.close()
        ann.close()
        assert ask_psql(place, OWNERSHIP).startswith("t|f|0|t|")
        run.terminate()
        assert run.wait(20) == 0
    assert count == 4
    backup = place.parent / "backup"
    assert place.run("backup", backup)[0] == 0
    assert place.run("restore", "--replace", backup) == (0, "run.sh: restored 1 users, 5 movies\n")


def test_flags_of_serve_reach_the_program(place):
    port = free_port()
    for flags in (["serve", "--bind", f"127.0.0.1:{port}"], [f"--bind=127.0.0.1:{port}", "--log-level", "info"]):
        run = place.start(*flags, BIND="127.0.0.1:1")
        wait_for(lambda: run.poll() is not None or "run.sh: ready" in run.log.read_text(), "the server")
        assert f"listening on http://127.0.0.1:{port}" in run.log.read_text()
        run.terminate()
        assert run.wait(20) == 0


def test_last_line_names_a_page_to_open(place):
    run, client = place.serve()
    line = wait_for(lambda: re.search(r"run\.sh: ready; open (http://.*)\n\Z", run.log.read_text()), "the last line")
    assert line[1] == f"{client.base}/api/v1/docs/"
    assert client.get("/api/v1/docs/").status_code == 200
    client.close()


@pytest.mark.parametrize("is_served", [True, False])
def test_commands_of_the_program_need_no_environment(place, is_served):
    run, client = place.serve()
    if not is_served:
        client.close()
        run.terminate()
        assert run.wait(20) == 0
    status, said = place.run("users", "create", "bob", "--email", "bob@example.com", typed="An0ther-Passw0rd!\n")
    assert (status, said.endswith(": bob\n")) == (0, True), said
    status, said = place.run("users", "list", "--json")
    assert [user["username"] for user in json.loads(said)] == ["bob"]
    assert place.run("recount", "--check")[0] == 0
    assert place.run("migrate") == (0, "nothing to apply\n")
    assert "problem" not in place.run("check")[1]
    assert place.run("psql", "-X", "-A", "-t", "-c", "select username from users") == (0, "bob\n")
    status, token = place.run("token", "bob")
    assert status == 0
    status, said = place.run("users", "deactivate", "nobody")
    assert status == 1 and said.startswith("movies-api: "), said
    assert place.database_runs() == is_served
    if not is_served:
        _, client = place.serve()
    with_token = client.with_token(token.strip())
    assert with_token.get(MOVIES).status_code == 200
    with_token.close()
    client.close()


def test_migrate_makes_the_database_and_other_commands_say_that_there_is_none(place):
    status, said = place.run("users", "list")
    assert status == 1 and said.startswith(f"run.sh: there is no database in {place.folder}"), said
    status, said = place.run("migrate")
    assert status == 0 and "V1__initial_schema applied" in said
    assert json.loads(place.run("users", "list", "--json")[1]) == []


BASIC_TOOLS = "bash env id dirname cut sort head tail tr cat stat mkdir awk df flock seq sed grep setpriv test python3 rm sh".split()


def test_everything_that_is_missing_is_told_at_once(place):
    tools = place.parent / "tools"
    tools.mkdir()
    for tool in BASIC_TOOLS:
        (tools / tool).symlink_to(shutil.which(tool))
    (tools / "cargo").write_text("#!/bin/sh\necho 'cargo 1.63.0 (fd9c4297c 2022-07-01)'\n")
    (tools / "cargo").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        status, said = place.run(PATH=str(tools), HOME="/nonexistent", CARGO_HOME="/nonexistent", BIND=bind)
    lines = said.splitlines()
    assert (status, len(lines)) == (1, 2), said
    assert lines[0].startswith(f"run.sh: {bind} is in use")
    assert re.fullmatch(
        rf"run\.sh: missing: Rust 1\.88 or later \({tools}/cargo is 1\.63\.0\), a C compiler, OpenSSL's headers\. Install with: .*"
        r"apt-get install -y --no-install-recommends curl ca-certificates gcc libc6-dev pkg-config libssl-dev && curl .*rustup\.rs.*",
        lines[1],
    ), lines[1]


def test_database_of_a_postgresql_that_is_not_installed_says_how_to_bring_it_over(place):
    cluster = place.folder / "database" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("9\n")
    status, said = place.run("backup", place.parent / "backup", PATH=os.environ["PATH"] if os.geteuid() else "/usr/bin:/bin")
    assert status == 1
    assert "needs the programs of PostgreSQL 9" in said and "run.sh backup" in said and "run.sh restore" in said
    assert "missing: PostgreSQL 9, which made the database in" in said.splitlines()[-1]


def test_database_is_run_by_the_programs_that_made_it(place):
    """Beside newer ones, here some that only say so."""
    run, client = place.serve()
    client.close()
    run.terminate()
    assert run.wait(20) == 0
    newer = place.parent / "newer"
    newer.mkdir()
    for program in ("initdb", "postgres", "pg_ctl", "psql"):
        (newer / program).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 99.1'\n")
        (newer / program).chmod(0o755)
    _, client = place.serve(PATH=f"{newer}:{os.environ['PATH']}")
    client.close()


def test_postmaster_that_is_killed_is_started_again(place):
    run, client = place.serve()
    username = sign_up(client)
    wait_for(lambda: "run.sh: ready" in run.log.read_text(), "the end of the start")
    killed = time.monotonic()
    os.kill(place.number_in("database/cluster/postmaster.pid"), signal.SIGKILL)
    # Sessions that are open answer for a moment still.
    wait_for(lambda: "run.sh: PostgreSQL has ended" in run.log.read_text(), "the restart")

    def answers():
        assert run.poll() is None, run.log.read_text()
        return can_sign_in(client, username)

    wait_for(answers, "an answer")
    print(f"answered {time.monotonic() - killed:.2f} s after the postmaster was killed")
    client.close()
    run.terminate()
    assert run.wait(20) == 0
    assert not place.database_runs()


def test_postgresql_that_cannot_be_started_again_ends_the_run_with_its_cause(place):
    run, client = place.serve()
    client.close()
    wait_for(lambda: "run.sh: ready" in run.log.read_text(), "the end of the start")
    cluster = place.folder / "database/cluster"
    (cluster / "global/pg_control").rename(cluster / "global/pg_control.away")
    os.kill(place.number_in("database/cluster/postmaster.pid"), signal.SIGKILL)
    assert run.wait(60) == 1
    said = run.log.read_text()
    assert said.count("Restarting it") == 5
    last = [line for line in said.splitlines() if line.startswith("run.sh: ")][-1]
    assert last.startswith("run.sh: PostgreSQL does not stay up: ") and f"(log: {cluster}/server.log)" in last
    assert "pg_control" in last
    assert not (place.folder / "server.pid").exists()


def test_failure_of_initdb_names_its_cause_and_the_log(place):
    status, said = place.run(largest_file=100_000)
    assert status == 1
    assert re.fullmatch(
        rf"run\.sh: the database cannot be created: .*File too large.* \(log: {place.folder}/initdb\.log\)", said.splitlines()[-1]
    ), said


def test_failure_of_postgresql_names_its_cause_and_the_log(place):
    run, client = place.serve()
    client.close()
    run.terminate()
    assert run.wait(20) == 0
    cluster = place.folder / "database/cluster"
    # PostgreSQL takes any process of its own user for a postmaster, and adds a HINT.
    other = subprocess.Popen(["sleep", "600"], cwd="/", **unprivileged())
    try:
        (cluster / "postmaster.pid").write_text(f"{other.pid}\n{cluster}\n0\n5432\n\n\n")
        (cluster / "postmaster.pid").chmod(0o644)
        status, said = place.run()
    finally:
        other.kill()
        other.wait()
    assert status == 1
    assert said.splitlines()[-1] == (
        f'run.sh: the database does not start: FATAL: lock file "postmaster.pid" already exists (log: {cluster}/server.log)'
    )


def test_sockets_outside_a_long_data_dir_are_removed(place):
    place.folder = place.parent / ("long" * 25)
    run, client = place.serve()
    sockets = Path((place.folder / "sockets.path").read_text().strip())
    assert sockets.parent == Path("/tmp") and sockets.is_dir()
    wait_for(lambda: "run.sh: ready" in run.log.read_text(), "the end of the start")
    client.close()
    for process_id in [run.pid, place.number_in("server.pid"), place.number_in("database/cluster/postmaster.pid")]:
        os.kill(process_id, signal.SIGKILL)
    run.wait()
    run, client = place.serve()
    client.close()
    assert not sockets.exists()
    newer = Path((place.folder / "sockets.path").read_text().strip())
    run.terminate()
    assert run.wait(20) == 0
    assert not newer.exists()


def write_script(folder, name, *lines):
    """Writes an executable shell script that replaces the program `name` wherever `folder` comes first on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(["#!/bin/sh", *lines, ""]))
    (folder / name).chmod(0o755)


def test_too_little_disk_space_is_reported_before_anything_is_built(place):
    tools, target = place.parent / "tools", place.parent / "target"
    write_script(tools, "df", "echo header", "echo /dev/disk 100 93 7 93% /")
    status, said = place.run(PATH=f"{tools}:{os.environ['PATH']}", CARGO_TARGET_DIR=str(target))
    assert status == 1
    assert said.splitlines() == [
        f"run.sh: the build needs 1500 MB of disk space in {target}/release, where 7 MB are free",
        f"run.sh: a new database needs 200 MB of disk space in {place.folder}, where 7 MB are free",
    ]
    assert not target.exists() and not (place.folder / "database").exists()


@pytest.mark.root
def test_program_in_a_folder_closed_to_the_service_user_is_copied_to_data_dir(place):
    tools, target = place.parent / "tools", place.parent / "target"
    write_script(tools, "cargo", "echo cargo 1.99.0")
    (target / "release").mkdir(parents=True)
    shutil.copy(BINARY, target / "release")
    target.chmod(0o700)
    _, client = place.serve(PATH=f"{tools}:{os.environ['PATH']}", CARGO_HOME="/nonexistent", CARGO_TARGET_DIR=str(target))
    client.close()
    server = place.number_in("server.pid")
    assert os.readlink(f"/proc/{server}/exe") == str(place.folder / "movies-api")
    assert identity_of(server)[0] != 0


def test_installing_packages_creates_no_postgresql_cluster(place):
    """The package's script finds, instead of Debian's pg_createcluster, a program of that name that does nothing."""
    tools, record = place.parent / "tools", place.parent / "record"
    tools.mkdir()
    for tool in [*BASIC_TOOLS, "mktemp", "ln", "chmod", "readlink"]:
        (tools / tool).symlink_to(shutil.which(tool))
    write_script(tools, "cargo", "echo cargo 1.99.0")
    write_script(tools, "sudo", "shift", '[ "$1" = true ] || exec "$@"')
    write_script(
        tools, "apt-get",
        'for argument; do case $argument in DPkg::Path=*) path=${argument#*=} ;; esac; done',
        '[ "$1" = update ] || (PATH=$path; program=$(command -v pg_createcluster); /usr/bin/readlink "$program"; echo "$*") >'
        + str(record),
    )
    status, said = place.run(PATH=str(tools), HOME="/nonexistent", CARGO_HOME="/nonexistent")
    assert status == 1 and said.startswith("run.sh: installing gcc libc6-dev"), said
    program, arguments = record.read_text().splitlines()
    assert program == "/bin/true"
    assert arguments.endswith(":/bin gcc libc6-dev pkg-config libssl-dev")
