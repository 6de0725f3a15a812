"""run.sh: serving with a database of its own, signals, exit statuses, and error messages."""
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

from helpers.client import MOVIES, PASSWORD, REGISTER, TOKEN, account_fields, wait_until
from helpers.cluster import find_postgresql_programs, free_port, postgresql_user
from helpers.installation import RUN, children_of, is_running
from helpers.settings import BINARY

pytestmark = pytest.mark.own_servers


def sign_up(client):
    body = account_fields()
    assert client.post(REGISTER, body).status_code == 201
    return body["username"]


def can_sign_in(client, username):
    response = client.post(TOKEN, {"username": username, "password": PASSWORD})
    return response.status_code == 200


def test_signal_exits_with_0_and_the_data_is_kept(installation):
    run, client = installation.serve()
    username = sign_up(client)
    client.close()
    run.terminate()
    assert run.wait(10) == 0
    assert not installation.is_database_running()
    assert stat.S_IMODE((installation.folder / "secret_key").stat().st_mode) == 0o600
    _, client = installation.serve()
    assert can_sign_in(client, username)
    client.close()


def test_data_survives_sigkill_of_all_processes(installation):
    run, client = installation.serve()
    username = sign_up(client)
    client.close()
    postmaster = installation.process_id_in("database/cluster/postmaster.pid")
    processes = [run.pid, installation.process_id_in("server.pid"), postmaster, *children_of(postmaster)]
    for process_id in processes:
        with contextlib.suppress(ProcessLookupError):  # PostgreSQL's short-lived workers may have ended meanwhile
            os.kill(process_id, signal.SIGKILL)
    run.wait()
    wait_until(lambda: not any(map(is_running, processes)), 60, "end of all processes")
    _, client = installation.serve()
    assert can_sign_in(client, username)
    client.close()


def test_stop_ends_what_a_killed_run_left_running(installation):
    run, client = installation.serve()
    client.close()
    server = installation.process_id_in("server.pid")
    run.kill()
    run.wait()
    assert is_running(server)
    status, output = installation.run()
    assert status != 0 and "./run.sh stop" in output.splitlines()[-1]
    status, output = installation.run("stop")
    assert (status, output) == (0, "run.sh: stopped its server, its database\n")
    assert not is_running(server) and not installation.is_database_running()


def test_stop_ends_the_service_and_its_run_sh(installation):
    run, client = installation.serve()
    client.close()
    assert installation.run("stop") == (0, "run.sh: stopped the service\n")
    assert run.wait(10) == 0
    assert not installation.is_database_running()
    status, output = installation.run("stop")
    assert status == 1 and output.startswith("run.sh: nothing is running for ")


def test_second_run_on_the_same_data_dir_is_refused(installation):
    _, client = installation.serve()
    status, output = installation.run()
    assert status == 1 and "another run.sh is using" in output.splitlines()[-1]
    sign_up(client)
    client.close()


def test_occupied_port_exits_with_one_line_before_the_database_is_created(installation):
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        status, output = installation.run(BIND=f"127.0.0.1:{port}")
    assert status == 1
    assert output == (
        f"run.sh: 127.0.0.1:{port} is in use by another program: stop it, or choose another address with --bind,"
        " such as --bind 127.0.0.1:8001\n"
    )
    assert not (installation.folder / "database").exists()


@pytest.mark.parametrize(
    "settings, status, message",
    [
        ({"DATABASE_URL": "postgresql://unknown@127.0.0.1:1/none"}, 1, "movies-api: "),
        ({"BCRYPT_COST": "99"}, 2, "movies-api: BCRYPT_COST=99 is not allowed"),
        ({"DATA_DIR": "/dev/null/data"}, 1, "run.sh: cannot create /dev/null/data"),
    ],
)
def test_invalid_settings_exit_with_one_line(installation, settings, status, message):
    exit_code, output = installation.run(**settings)
    assert (exit_code, output.splitlines()[-1][: len(message)]) == (status, message), output
    assert "panicked" not in output


def test_unknown_command_prints_usage(installation):
    status, output = installation.run("sevre")
    assert status == 2 and output.startswith("usage: ./run.sh")


def user_and_capabilities(process_id):
    """Returns a process's effective user id and capabilities."""
    fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{process_id}/status").read_text().splitlines())
    return int(fields["Uid"].split()[1]), int(fields["CapEff"], 16)


def run_psql(installation, statement):
    status, output = installation.run("psql", "-X", "-A", "-t", "-c", statement)
    assert status == 0, output
    return output.strip()


OWNERSHIP = """
    select current_user = (select pg_get_userbyid(datdba) from pg_database where datname = current_database()),
        (select rolsuper or rolcreaterole or rolcreatedb from pg_roles where rolname = current_user),
        (select count(*) from pg_class where relnamespace = 'public'::regnamespace and relowner <> current_user::regrole),
        (select count(*) from pg_class where relnamespace = 'public'::regnamespace and relowner = current_user::regrole) > 10,
        (select count(*) from pg_extension where extname in ('pg_trgm', 'btree_gin'))"""


def test_service_role_owns_its_database_and_is_not_superuser(installation):
    _, client = installation.serve()
    client.close()
    assert run_psql(installation, OWNERSHIP) == "t|f|0|t|2"


@pytest.mark.root
def test_root_starts_service_and_postgresql_as_unprivileged_users(installation):
    _, client = installation.serve()
    sign_up(client)
    client.close()
    server, postmaster = installation.process_id_in("server.pid"), installation.process_id_in("database/cluster/postmaster.pid")
    identities = [user_and_capabilities(process_id) for process_id in [server, postmaster, *children_of(postmaster)]]
    assert all(user != 0 and capabilities == 0 for user, capabilities in identities)
    assert identities[0][0] != identities[1][0]
    # The service's user may connect only as the service's role; other users may not connect.
    programs, socket_folder = find_postgresql_programs(), installation.folder / "sockets"

    def connect(user, role):
        completed = subprocess.run(
            [programs / "psql", "-X", "-A", "-t", "-d", f"host='{str(socket_folder).replace(chr(39), chr(92) + chr(39))}' user={role} dbname=movies", "-c", "select 1"],
            user=user, group=user, extra_groups=[], capture_output=True, text=True, timeout=60, cwd="/",
        )
        return completed.stdout or re.sub(r"(?s).*FATAL: +", "", completed.stderr)

    service = identities[0][0]
    assert connect(service, "movies_api") == "1\n"
    assert connect(service, "postgres").startswith("Peer authentication failed")
    assert connect(1, "movies_api").startswith("Peer authentication failed")


@pytest.mark.root
def test_data_dir_that_postgresql_cannot_enter_is_refused(installation):
    installation.parent.chmod(0o700)
    status, output = installation.run()
    assert status == 1 and output.count("\n") == 1
    assert re.match(r"run\.sh: the users \w+ and nobody, .* cannot enter .*: move it to .*, and set DATA_DIR", output), output


def make_cluster_of_earlier_version(installation):
    """Creates a cluster in which the service's role is superuser, with a user and three movies."""
    programs, owner = find_postgresql_programs(), postgresql_user()
    folder = installation.folder / "database"
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


def test_cluster_of_earlier_version_is_given_to_a_role_without_superuser(installation):
    make_cluster_of_earlier_version(installation)
    for _ in range(2):
        run, client = installation.serve()
        response = client.post(TOKEN, {"username": "ann", "password": PASSWORD})
        ann = client.with_token(response.json()["access"])
        count = ann.get(MOVIES).json()["count"]
        ann.post(MOVIES, {"title": "Heat", "genre": "Crime", "year": 1995})
        assert ann.get(MOVIES).json()["count"] == count + 1
        client.close()
        ann.close()
        assert run_psql(installation, OWNERSHIP).startswith("t|f|0|t|")
        run.terminate()
        assert run.wait(20) == 0
    assert count == 4
    backup = installation.parent / "backup"
    assert installation.run("backup", backup)[0] == 0
    assert installation.run("restore", "--replace", backup) == (0, "run.sh: restored 1 users, 5 movies\n")


def test_flags_of_serve_reach_the_program(installation):
    port = free_port()
    for flags in (["serve", "--bind", f"127.0.0.1:{port}"], [f"--bind=127.0.0.1:{port}", "--log-level", "info"]):
        run = installation.start(*flags, BIND="127.0.0.1:1")
        wait_until(lambda: run.poll() is not None or "run.sh: ready" in run.log.read_text(), 60, "end of the start")
        assert f"listening on http://127.0.0.1:{port}" in run.log.read_text()
        run.terminate()
        assert run.wait(20) == 0


def test_last_line_names_the_documentation_page(installation):
    run, client = installation.serve()
    line = wait_until(lambda: re.search(r"run\.sh: ready; open (http://.*)\n\Z", run.log.read_text()), 60, "last line")
    assert line[1] == f"{client.base}/api/v1/docs/"
    assert client.get("/api/v1/docs/").status_code == 200
    client.close()


@pytest.mark.parametrize("is_served", [True, False])
def test_commands_of_the_program_need_no_environment(installation, is_served):
    run, client = installation.serve()
    if not is_served:
        client.close()
        run.terminate()
        assert run.wait(20) == 0
    status, output = installation.run("users", "create", "bob", "--email", "bob@example.com", typed="An0ther-Passw0rd!\n")
    assert (status, output.endswith(": bob\n")) == (0, True), output
    status, output = installation.run("users", "list", "--json")
    assert [user["username"] for user in json.loads(output)] == ["bob"]
    assert installation.run("recount", "--check")[0] == 0
    assert installation.run("migrate") == (0, "nothing to apply\n")
    assert "problem" not in installation.run("check")[1]
    assert installation.run("psql", "-X", "-A", "-t", "-c", "select username from users") == (0, "bob\n")
    status, token = installation.run("token", "bob")
    assert status == 0
    status, output = installation.run("users", "deactivate", "unknown")
    assert status == 1 and output.startswith("movies-api: "), output
    assert installation.is_database_running() == is_served
    if not is_served:
        _, client = installation.serve()
    with_token = client.with_token(token.strip())
    assert with_token.get(MOVIES).status_code == 200
    with_token.close()
    client.close()


def test_migrate_creates_the_database_and_other_commands_report_that_there_is_none(installation):
    status, output = installation.run("users", "list")
    assert status == 1 and output.startswith(f"run.sh: there is no database in {installation.folder}"), output
    status, output = installation.run("migrate")
    assert status == 0 and "V1__initial_schema applied" in output
    assert json.loads(installation.run("users", "list", "--json")[1]) == []


BASIC_TOOLS = "bash env id dirname readlink cut sort head tail tr cat stat mkdir awk df flock seq sed grep setpriv test python3 rm sh".split()


def test_all_missing_requirements_are_reported_at_once(installation):
    tools = installation.parent / "tools"
    tools.mkdir()
    for tool in BASIC_TOOLS:
        (tools / tool).symlink_to(shutil.which(tool))
    (tools / "cargo").write_text("#!/bin/sh\necho 'cargo 1.63.0 (fd9c4297c 2022-07-01)'\n")
    (tools / "cargo").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        bind = f"127.0.0.1:{occupied.getsockname()[1]}"
        status, output = installation.run(PATH=str(tools), HOME="/nonexistent", CARGO_HOME="/nonexistent", BIND=bind)
    lines = output.splitlines()
    assert (status, len(lines)) == (1, 2), output
    assert lines[0].startswith(f"run.sh: {bind} is in use")
    assert re.fullmatch(
        rf"run\.sh: missing: Rust 1\.88 or later \({tools}/cargo is 1\.63\.0\), a C compiler, OpenSSL's headers\. Install with: .*"
        r"apt-get install -y --no-install-recommends curl ca-certificates gcc libc6-dev pkg-config libssl-dev && curl .*rustup\.rs.*",
        lines[1],
    ), lines[1]


def test_database_of_a_postgresql_that_is_not_installed_is_refused_with_instructions(installation):
    cluster = installation.folder / "database" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("9\n")
    status, output = installation.run("backup", installation.parent / "backup", PATH=os.environ["PATH"] if os.geteuid() else "/usr/bin:/bin")
    assert status == 1
    assert "needs the programs of PostgreSQL 9" in output and "run.sh backup" in output and "run.sh restore" in output
    assert "missing: PostgreSQL 9, which made the database in" in output.splitlines()[-1]


def test_database_is_run_by_the_programs_that_created_it(installation):
    """Other programs are installed beside them that report a newer version and do nothing else."""
    run, client = installation.serve()
    client.close()
    run.terminate()
    assert run.wait(20) == 0
    newer = installation.parent / "newer"
    newer.mkdir()
    for program in ("initdb", "postgres", "pg_ctl", "psql"):
        (newer / program).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 99.1'\n")
        (newer / program).chmod(0o755)
    _, client = installation.serve(PATH=f"{newer}:{os.environ['PATH']}")
    client.close()


def test_killed_postmaster_is_started_again(installation):
    run, client = installation.serve()
    username = sign_up(client)
    wait_until(lambda: "run.sh: ready" in run.log.read_text(), 60, "end of the start")
    killed = time.monotonic()
    # A session whose client has ended meanwhile logs a consequence, which is not the cause.
    with (installation.folder / "database/cluster/server.log").open("a") as log:
        log.write("2026-01-01 00:00:00.000 UTC [1] FATAL:  connection to client lost\n")
    os.kill(installation.process_id_in("database/cluster/postmaster.pid"), signal.SIGKILL)
    # Open sessions may still answer for a moment.
    wait_until(lambda: "run.sh: PostgreSQL has ended" in run.log.read_text(), 60, "restart of PostgreSQL")
    assert "PostgreSQL has ended: it was killed, or it logged no error (log: " in run.log.read_text()

    def is_answering():
        assert run.poll() is None, run.log.read_text()
        return can_sign_in(client, username)

    wait_until(is_answering, 60, "response")
    print(f"answered {time.monotonic() - killed:.2f} s after the postmaster was killed")
    client.close()
    run.terminate()
    assert run.wait(20) == 0
    assert not installation.is_database_running()


def test_postgresql_that_cannot_be_started_again_ends_the_run_with_its_cause(installation):
    run, client = installation.serve()
    client.close()
    wait_until(lambda: "run.sh: ready" in run.log.read_text(), 60, "end of the start")
    cluster = installation.folder / "database/cluster"
    (cluster / "global/pg_control").rename(cluster / "global/pg_control.away")
    os.kill(installation.process_id_in("database/cluster/postmaster.pid"), signal.SIGKILL)
    assert run.wait(60) == 1
    output = run.log.read_text()
    assert output.count("Restarting it") == 5
    last = [line for line in output.splitlines() if line.startswith("run.sh: ")][-1]
    assert last.startswith("run.sh: PostgreSQL does not stay up: ") and f"(log: {cluster}/server.log)" in last
    assert "pg_control" in last
    assert not (installation.folder / "server.pid").exists()


def test_failure_of_initdb_names_its_cause_and_the_log(installation):
    status, output = installation.run(largest_file=100_000)
    assert status == 1
    assert re.fullmatch(
        rf"run\.sh: the database cannot be created: .*File too large.* \(log: {installation.folder}/initdb\.log\)", output.splitlines()[-1]
    ), output


def test_failure_of_postgresql_names_its_cause_and_the_log(installation):
    run, client = installation.serve()
    client.close()
    run.terminate()
    assert run.wait(20) == 0
    cluster = installation.folder / "database/cluster"
    # PostgreSQL assumes that any process of its user may be a postmaster, and adds a HINT.
    other = subprocess.Popen(["sleep", "600"], cwd="/", **postgresql_user())
    try:
        (cluster / "postmaster.pid").write_text(f"{other.pid}\n{cluster}\n0\n5432\n\n\n")
        (cluster / "postmaster.pid").chmod(0o644)
        status, output = installation.run()
    finally:
        other.kill()
        other.wait()
    assert status == 1
    assert output.splitlines()[-1] == (
        f'run.sh: the database does not start: FATAL: lock file "postmaster.pid" already exists (log: {cluster}/server.log); the file'
        f" names process {other.pid} (sleep), which is not PostgreSQL: unless a PostgreSQL outside of this machine or container uses"
        f" the folder, delete {cluster}/postmaster.pid"
    )


def test_sockets_outside_a_long_data_dir_are_removed(installation):
    installation.folder = installation.parent / ("long" * 25)
    run, client = installation.serve()
    sockets = Path((installation.folder / "sockets.path").read_text().strip())
    assert sockets.parent == Path("/tmp") and sockets.is_dir()
    wait_until(lambda: "run.sh: ready" in run.log.read_text(), 60, "end of the start")
    client.close()
    for process_id in [run.pid, installation.process_id_in("server.pid"), installation.process_id_in("database/cluster/postmaster.pid")]:
        os.kill(process_id, signal.SIGKILL)
    run.wait()
    run, client = installation.serve()
    client.close()
    assert not sockets.exists()
    newer = Path((installation.folder / "sockets.path").read_text().strip())
    run.terminate()
    assert run.wait(20) == 0
    assert not newer.exists()


def write_script(folder, name, *lines):
    """Writes an executable shell script that replaces the program `name` wherever `folder` comes first on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(["#!/bin/sh", *lines, ""]))
    (folder / name).chmod(0o755)


def test_too_little_disk_space_is_reported_before_anything_is_built(installation):
    tools, target = installation.parent / "tools", installation.parent / "target"
    write_script(tools, "df", "echo header", "echo /dev/disk 100 93 7 93% /")
    status, output = installation.run(PATH=f"{tools}:{os.environ['PATH']}", CARGO_TARGET_DIR=str(target))
    assert status == 1
    assert output.splitlines() == [
        f"run.sh: the build needs 1500 MB of disk space in {target}/release, where 7 MB are free",
        f"run.sh: a new database needs 200 MB of disk space in {installation.folder}, where 7 MB are free",
    ]
    assert not target.exists() and not (installation.folder / "database").exists()


@pytest.mark.root
def test_program_in_a_folder_closed_to_the_service_user_is_copied_to_data_dir(installation):
    tools, target = installation.parent / "tools", installation.parent / "target"
    write_script(tools, "cargo", "echo cargo 1.99.0")
    (target / "release").mkdir(parents=True)
    shutil.copy(BINARY, target / "release")
    target.chmod(0o700)
    _, client = installation.serve(PATH=f"{tools}:{os.environ['PATH']}", CARGO_HOME="/nonexistent", CARGO_TARGET_DIR=str(target))
    client.close()
    server = installation.process_id_in("server.pid")
    assert os.readlink(f"/proc/{server}/exe") == str(installation.folder / "movies-api")
    assert user_and_capabilities(server)[0] != 0


def test_installing_packages_creates_no_postgresql_cluster(installation):
    """The package's script has to find a program named pg_createcluster that does nothing, instead of Debian's."""
    tools, record = installation.parent / "tools", installation.parent / "record"
    tools.mkdir()
    for tool in [*BASIC_TOOLS, "mktemp", "ln", "chmod"]:
        (tools / tool).symlink_to(shutil.which(tool))
    write_script(tools, "cargo", "echo cargo 1.99.0")
    write_script(tools, "sudo", "shift", '[ "$1" = true ] || exec "$@"')
    write_script(
        tools, "apt-get",
        'for argument; do case $argument in DPkg::Path=*) path=${argument#*=} ;; esac; done',
        '[ "$1" = update ] || (PATH=$path; program=$(command -v pg_createcluster); /usr/bin/readlink "$program"; echo "$*") >'
        + str(record),
    )
    status, output = installation.run(PATH=str(tools), HOME="/nonexistent", CARGO_HOME="/nonexistent")
    assert status == 1 and output.startswith("run.sh: installing gcc libc6-dev"), output
    program, arguments = record.read_text().splitlines()
    assert program == "/bin/true"
    assert arguments.endswith(":/bin gcc libc6-dev pkg-config libssl-dev")


def test_stop_ends_a_run_that_is_still_building(installation):
    """The build is a program that waits; its end shows that it was ended too."""
    tools, record = installation.parent / "tools", installation.parent / "record"
    write_script(tools, "cargo", '[ "$1" != --version ] || { echo cargo 1.99.0; exit; }', f'echo $$ >"{record}"', "exec sleep 600")
    settings = {"PATH": f"{tools}:{os.environ['PATH']}", "CARGO_HOME": "/nonexistent"}
    for send_end in (lambda run: installation.run("stop"), lambda run: run.terminate()):
        run = installation.start(**settings)
        wait_until(lambda: record.exists() and record.read_text().strip(), 60, "begin of the build")
        build = int(record.read_text())
        try:
            send_end(run)
            assert run.wait(10) == 143
            wait_until(lambda: not is_running(build), 10, "end of the build")
        finally:
            if is_running(build):
                os.kill(build, signal.SIGKILL)
        record.unlink()
        assert installation.run("stop")[1].startswith("run.sh: nothing is running for ")
    _, client = installation.serve()
    client.close()


def test_stop_ends_a_run_that_is_starting(installation):
    run = installation.start()
    wait_until(lambda: (installation.folder / "database").exists(), 60, "begin of the start")
    assert installation.run("stop")[0] == 0
    assert run.wait(10) in (0, 143)
    assert not installation.is_database_running()


def test_two_stops_at_the_same_time_let_the_service_end_in_order(installation):
    run, client = installation.serve()
    # A request that is incomplete holds up the end of the server.
    address = client.base.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as connection:
        connection.sendall(b"POST /api/v1/auth/token/ HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
        stops = [installation.start("stop") for _ in range(2)]
        assert run.wait(30) == 0, run.log.read_text()
    assert [stop.wait(30) for stop in stops] == [0, 0]
    client.close()


def start_waiting_command(installation, name):
    """Starts a command that uses the database before and after the file `name` exists; returns it once it is connected."""
    wait = f"\\! while [ -d {installation.parent} ] && [ ! -e {installation.parent / name} ]; do sleep 0.05; done"
    command = installation.start("psql", "-X", "-A", "-t", "-c", "select 'before'", "-c", wait, "-c", "select 'after'")
    wait_until(lambda: command.poll() is not None or command.log.read_text(), 60, "connection of the command")
    assert command.log.read_text() == "before\n"
    return command


def test_cluster_runs_until_the_last_command_that_uses_it_ends(installation):
    assert installation.run("migrate")[0] == 0
    first, second = start_waiting_command(installation, "one"), start_waiting_command(installation, "two")
    (installation.parent / "one").touch()
    assert first.wait(60) == 0
    assert second.poll() is None and installation.is_database_running()
    (installation.parent / "two").touch()
    assert (second.wait(60), second.log.read_text()) == (0, "before\nafter\n")
    assert not installation.is_database_running()


def test_commands_without_a_running_service_run_at_the_same_time(installation):
    assert installation.run("migrate")[0] == 0
    for _ in range(3):
        commands = [installation.start("users", "list", "--json") for _ in range(4)]
        assert [(command.wait(60), command.log.read_text()) for command in commands] == [(0, "[]\n")] * 4
    assert not installation.is_database_running()


def test_start_waits_for_commands_and_its_end_leaves_the_cluster_to_them(installation):
    assert installation.run("migrate")[0] == 0
    command = start_waiting_command(installation, "one")
    run = installation.start()
    wait_until(lambda: run.poll() is not None or "run.sh: waiting for the end of other commands" in run.log.read_text(), 60, "message")
    assert run.poll() is None
    (installation.parent / "one").touch()
    assert command.wait(60) == 0
    wait_until(lambda: "run.sh: ready" in run.log.read_text(), 60, "end of the start")
    command = start_waiting_command(installation, "two")
    run.terminate()
    assert run.wait(20) == 0
    (installation.parent / "two").touch()
    assert (command.wait(60), command.log.read_text()) == (0, "before\nafter\n")
    assert not installation.is_database_running()


@pytest.mark.parametrize(
    "arguments", [["stop", "--help"], ["stop", "-h"], ["backup", "--help"], ["restore", "--help"], ["restore", "--replace", "--help"], ["test", "--help"]]
)
def test_help_of_own_commands_does_nothing_else(installation, arguments):
    status, output = installation.run(*arguments, PATH=os.environ["PATH"])
    assert status == 0 and output.startswith("usage: ./run.sh"), output
    assert not installation.folder.exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["stop", "now"], "stop takes no argument"),
        (["backup", "--verbose"], "backup needs the name of a regular file: write ./--verbose if you mean a file named --verbose"),
        (["backup", ""], "backup needs the name of one file"),
        (["restore", "-"], "restore needs the name of a regular file: write ./- if you mean a file named -"),
        (["sevre"], "sevre is no command"),
    ],
)
def test_invalid_arguments_of_own_commands_exit_with_2_and_the_reason(installation, arguments, message):
    status, output = installation.run(*arguments)
    assert (status, output.splitlines()[-1]) == (2, f"run.sh: {message}")
    assert output.startswith("usage: ./run.sh") and not installation.folder.exists()


def test_help_and_version_of_the_program_are_shown_beside_a_running_service(installation):
    _, client = installation.serve()
    client.close()
    for arguments in (["--version"], ["-V"], ["serve", "--version"]):
        status, output = installation.run(*arguments)
        assert status == 0 and re.fullmatch(r"movies-api \d+\.\d+\.\d+\n", output), output
    status, output = installation.run("serve", "--help")
    assert status == 0 and "--bind" in output


@pytest.mark.parametrize("name", ["a,b", "a\\b", 'a"b', "a\nb"])
def test_data_dir_with_a_character_that_postgresql_cannot_express_is_refused(installation, name):
    status, output = installation.run(DATA_DIR=str(installation.parent / name))
    assert status == 1 and output.count("\n") == 1
    assert re.fullmatch(r"run\.sh: DATA_DIR=.* is not allowed: the path must not contain a comma, .*; set DATA_DIR to another folder\n", output)
    assert list(installation.parent.iterdir()) == []


def test_port_is_checked_with_leading_zero_and_white_space(installation):
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        for bind in (f"127.0.0.1:0{port}", f" 127.0.0.1:{port} "):
            status, output = installation.run(BIND=bind)
            assert status == 1 and output.startswith(f"run.sh: {bind.strip()} is in use by another program") and output.count("\n") == 1


def test_blank_settings_count_as_unset_and_the_key_is_read_only_where_it_is_used(installation):
    assert installation.run("migrate", DATABASE_URL="  ")[0] == 0
    assert not (installation.folder / "secret_key").exists()
    (installation.folder / "secret_key").mkdir()
    assert installation.run("users", "list", "--json", DATABASE_URL=" ", SECRET_KEY=" ") == (0, "[]\n")
    assert installation.run("check", DATABASE_URL="")[0] == 1


def test_words_inside_an_argument_are_no_flags(installation):
    assert installation.run("migrate")[0] == 0
    assert installation.run("psql", "-X", "-A", "-t", "-c", "select 1 -- not --version or --help here") == (0, "1\n")


def test_symbolic_link_to_run_sh_works(installation):
    link = installation.parent / "movies"
    link.symlink_to(RUN)
    completed = subprocess.run([link, "completions", "bash"], capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert completed.returncode == 0 and "movies-api" in completed.stdout, completed.stderr
