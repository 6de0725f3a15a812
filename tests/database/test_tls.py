"""A database that is reached by TLS alone: which certificates are taken under which sslmode, as libpq takes them."""
import os
import re
import subprocess

import pytest

from helpers.client import MOVIES, wait_until
from helpers.cluster import Cluster
from helpers.server import Server, run_until_exit

pytestmark = pytest.mark.own_servers


def make_authority(folder, name):
    """A self-made authority; its key and certificate are NAME.key and NAME.crt."""
    call("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
         "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt")


def call(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, another one, and a server's certificate for `localhost`, made as PostgreSQL's manual says (19.9.5)."""
    folder = tmp_path_factory.mktemp("certificates")
    folder.chmod(0o755)
    make_authority(folder, "authority")
    make_authority(folder, "stranger")
    call("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", folder / "server.key", "-out", folder / "server.csr")
    call("x509", "-req", "-days", "2", "-CA", folder / "authority.crt", "-CAkey", folder / "authority.key", "-CAcreateserial",
         "-in", folder / "server.csr", "-out", folder / "server.crt")
    return folder


@pytest.fixture(scope="module")
def cluster(certificates):
    """It lets nobody in by TCP but over TLS with a password."""
    made = Cluster("ssl = on")
    made.listen("hostssl all all 127.0.0.1/32 scram-sha-256")
    for name in ("server.crt", "server.key"):
        copy = made.data / name
        copy.write_bytes((certificates / name).read_bytes())
        copy.chmod(0o600)
        os.chown(copy, made.data.stat().st_uid, made.data.stat().st_gid)
    made.start()
    made.run("create role ann login password 'it''s : secret'")
    made.run("create database movies owner ann")
    (certificates / "passwords").write_text(f"elsewhere:*:*:*:wrong\n*:{made.port}:movies:ann:it's \\: secret\n")
    yield made
    made.dispose()


def conninfo(cluster, certificates, host, mode, authority):
    given = f"host={host} port={cluster.port} user=ann dbname=movies passfile={certificates}/passwords"
    given += f" sslmode={mode}" if mode else ""
    return given + (f" sslrootcert={certificates}/{authority}.crt" if authority else "")


@pytest.mark.parametrize(
    "host, mode, authority",
    [
        ("localhost", "verify-full", "authority"),
        ("127.0.0.1", "verify-ca", "authority"),
        ("127.0.0.1", "require", "authority"),
        ("127.0.0.1", "require", None),
        ("127.0.0.1", None, None),
    ],
)
def test_a_certificate_that_the_mode_accepts_leads_to_the_database_over_tls(cluster, certificates, host, mode, authority):
    server = Server({"DATABASE_URL": conninfo(cluster, certificates, host, mode, authority)})
    try:
        assert server.wait_until_listening().client().new_user().get(MOVIES).status_code == 200
        sessions = cluster.run(
            "select ssl, usename, application_name from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'ann'"
        )
        assert set(sessions) == {(True, "ann", "movies-api")}
    finally:
        server.dispose()


@pytest.mark.parametrize(
    "host, mode, authority, told",
    [
        ("localhost", "verify-full", "stranger", "certificate verify failed"),
        ("127.0.0.1", "verify-full", "authority", "certificate verify failed"),
        ("localhost", "verify-full", None, "certificate verify failed"),
        ("localhost", "verify-ca", "stranger", "certificate verify failed"),
        ("localhost", "require", "stranger", "certificate verify failed"),
        ("localhost", "disable", None, "no encryption"),
        ("localhost", "verify-full", "nobody", "sslrootcert.*No such file"),
        ("localhost", "sometimes", None, "sslmode is disable, prefer, require, verify-ca or verify-full"),
    ],
)
def test_any_other_certificate_ends_the_start_with_one_line_that_says_why(cluster, certificates, host, mode, authority, told):
    status, output = run_until_exit(20, DATABASE_URL=conninfo(cluster, certificates, host, mode, authority), LOG_LEVEL="error")
    assert (status > 0, output.count("\n"), bool(re.search(told, output)), "secret" in output) == (True, 1, True, False), output


def test_a_url_says_the_same_as_pairs(cluster, certificates):
    url = (f"postgresql://ann:it%27s%20:%20secret@localhost:{cluster.port}/movies"
           f"?sslmode=verify-full&sslrootcert={certificates}/authority.crt&application_name=another")
    server = Server({"DATABASE_URL": url})
    try:
        assert server.wait_until_listening().client().get("/readyz").status_code == 200
        named = "select bool_and(application_name = 'another') from pg_stat_activity where usename = 'ann'"
        wait_until(lambda: cluster.run(named) == [(True,)])
        assert "secret" not in "\n".join(server.log)
    finally:
        server.dispose()
