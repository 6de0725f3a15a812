"""Databases reached by TLS: certificates accepted under each sslmode, as libpq does."""
import os
import re
import subprocess

import pytest

from helpers.client import MOVIES, wait_until
from helpers.cluster import Cluster
from helpers.server import Server, run_until_exit

pytestmark = pytest.mark.own_servers


def make_authority(folder, name):
    """Creates a certificate authority: the files NAME.key and NAME.crt."""
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
         "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt")


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with two certificate authorities and a server certificate for `localhost`, created as PostgreSQL's manual shows (19.9.5)."""
    folder = tmp_path_factory.mktemp("certificates")
    folder.chmod(0o755)
    make_authority(folder, "authority")
    make_authority(folder, "stranger")
    openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", folder / "server.key", "-out", folder / "server.csr")
    openssl("x509", "-req", "-days", "2", "-CA", folder / "authority.crt", "-CAkey", folder / "authority.key", "-CAcreateserial",
         "-in", folder / "server.csr", "-out", folder / "server.crt")
    return folder


@pytest.fixture(scope="module")
def cluster(certificates):
    """A cluster that accepts TCP connections only over TLS and with a password."""
    cluster = Cluster("ssl = on")
    cluster.listen("hostssl all all 127.0.0.1/32 scram-sha-256")
    for name in ("server.crt", "server.key"):
        installed_file = cluster.data / name
        installed_file.write_bytes((certificates / name).read_bytes())
        installed_file.chmod(0o600)
        os.chown(installed_file, cluster.data.stat().st_uid, cluster.data.stat().st_gid)
    cluster.start()
    cluster.run("create role ann login password 'it''s : secret'")
    cluster.run("create database movies owner ann")
    (certificates / "passwords").write_text(f"elsewhere:*:*:*:wrong\n*:{cluster.port}:movies:ann:it's \\: secret\n")
    yield cluster
    cluster.dispose()


def connection_string(cluster, certificates, host, mode, authority):
    parameters = f"host={host} port={cluster.port} user=ann dbname=movies passfile={certificates}/passwords"
    parameters += f" sslmode={mode}" if mode else ""
    return parameters + (f" sslrootcert={certificates}/{authority}.crt" if authority else "")


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
def test_service_connects_by_tls_with_a_certificate_that_sslmode_accepts(cluster, certificates, host, mode, authority):
    server = Server({"DATABASE_URL": connection_string(cluster, certificates, host, mode, authority)})
    try:
        assert server.wait_until_listening().client().new_user().get(MOVIES).status_code == 200
        sessions = cluster.run(
            "select ssl, usename, application_name from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'ann'"
        )
        assert set(sessions) == {(True, "ann", "movies-api")}
    finally:
        server.dispose()


@pytest.mark.parametrize(
    "host, mode, authority, message",
    [
        ("localhost", "verify-full", "stranger", "certificate verify failed"),
        ("127.0.0.1", "verify-full", "authority", "certificate verify failed"),
        ("localhost", "verify-full", None, "certificate verify failed"),
        ("localhost", "verify-ca", "stranger", "certificate verify failed"),
        ("localhost", "require", "stranger", "certificate verify failed"),
        ("localhost", "disable", None, "no encryption"),
        ("localhost", "verify-full", "missing", "sslrootcert.*No such file"),
        ("localhost", "sometimes", None, "sslmode must be disable, prefer, require, verify-ca or verify-full"),
    ],
)
def test_service_exits_with_one_line_for_other_certificates(cluster, certificates, host, mode, authority, message):
    status, output = run_until_exit(20, DATABASE_URL=connection_string(cluster, certificates, host, mode, authority), LOG_LEVEL="error")
    assert (status > 0, output.count("\n"), bool(re.search(message, output)), "secret" in output) == (True, 1, True, False), output


def test_url_is_equivalent_to_key_value_pairs(cluster, certificates):
    url = (f"postgresql://ann:it%27s%20:%20secret@localhost:{cluster.port}/movies"
           f"?sslmode=verify-full&sslrootcert={certificates}/authority.crt&application_name=another")
    server = Server({"DATABASE_URL": url})
    try:
        assert server.wait_until_listening().client().get("/readyz").status_code == 200
        application_names_match = "select bool_and(application_name = 'another') from pg_stat_activity where usename = 'ann'"
        wait_until(lambda: cluster.run(application_names_match) == [(True,)])
        assert "secret" not in "\n".join(server.log)
    finally:
        server.dispose()
