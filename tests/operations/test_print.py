"""`movies-api print`: each file contains this installation's settings and no secret, and the program that reads it accepts it."""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from helpers.client import MOVIES, TOKEN, Client, wait_until
from helpers.cluster import free_port
from helpers.programs import PATH, find_program
from helpers.settings import BINARY, OPERATIONS, SECRET_KEY

FILES = ["systemd", "systemd-backup", "systemd-backup-timer", "container", "compose", "caddy", "nginx", "haproxy", "grafana"]
SERIES = re.compile(r"\b(?:movies|process)_[a-z_]+")

pytestmark = pytest.mark.own_servers


def run_print(*arguments, **settings):
    return subprocess.run([BINARY, "print", *arguments], env=settings, capture_output=True, text=True, timeout=10)


def print_file(*arguments, **settings):
    completed = run_print(*arguments, **settings)
    assert (completed.returncode, completed.stderr) == (0, "")
    return completed.stdout


@pytest.mark.parametrize("file", FILES)
def test_printed_file_contains_no_secret_and_no_placeholder(file):
    secrets = {"SECRET_KEY": "opensesame" * 4, "SECRET_KEY_FALLBACKS": "mellon" * 6, "DATABASE_URL": "postgresql://me:hunter2@there/movies"}
    text = print_file(file, **secrets)
    assert text == print_file(file)
    assert not re.search(r"@\w+@", text)


def test_printed_files_contain_the_current_settings():
    settings = {"BIND": "10.1.2.3:8123", "WORKERS": "48", "MAX_CONNECTIONS": "1000", "DB_POOL_SIZE": "20", "TRUSTED_PROXIES": "10.0.0.0/8"}
    unit = print_file("systemd", **settings).splitlines()
    assert {'Environment="BIND=10.1.2.3:8123"', 'Environment="WORKERS=48"', "LimitNOFILE=1144", f'ExecStart="{BINARY}" serve'} <= set(unit)
    compose = print_file("compose", **settings)
    assert all(f"\n      {line}\n" in compose for line in ('WORKERS: "48"', 'TRUSTED_PROXIES: "10.0.0.0/8"', "nofile: 1144"))
    assert 'ports: ["10.1.2.3:8123:8123"]' in compose and "BIND" not in compose
    assert "\nENV BIND=0.0.0.0:8123\nEXPOSE 8123\n" in print_file("container", **settings)
    lines = {"haproxy": ["    server one 10.1.2.3:8123", "    bind :443 ssl crt /etc/ssl/films.example.org/haproxy.pem alpn h2,http/1.1"], "nginx": ["    server 10.1.2.3:8123;", "    server_name films.example.org;"], "caddy": ["\t\treverse_proxy 10.1.2.3:8123 {", "films.example.org {"]}
    for proxy, wanted in lines.items():
        text = print_file(proxy, "--host", "films.example.org", **settings)
        assert set(wanted) <= set(text.splitlines()) and "names this proxy: 10.0.0.0/8\n" in text
    assert "    server 127.0.0.1:8000;\n" in print_file("nginx")
    assert "pool-purge-delay 60s\n" in print_file("haproxy") and "pool-purge-delay 480s\n" in print_file("haproxy", IDLE_TIMEOUT="600")
    for proxy in ("nginx", "caddy"):
        assert re.search(r"Shorter than the 75 s .*\n\s*keepalive(_timeout)? 60s", print_file(proxy))
        assert re.search(r"Shorter than the 600 s .*\n\s*keepalive(_timeout)? 480s", print_file(proxy, IDLE_TIMEOUT="600"))
    assert "    server [::1]:81;\n" in print_file("nginx", BIND="[::]:81")
    for proxy in ("nginx", "caddy", "haproxy"):
        assert " 800ms" in print_file(proxy, IDLE_TIMEOUT="1"), "shorter than IDLE_TIMEOUT"


def test_interface_of_a_link_local_address_is_kept_or_refused():
    assert "\t\treverse_proxy [fe80::1%2]:18660 {\n" in print_file("caddy", BIND="[fe80::1%2]:18660")
    for proxy in ("nginx", "haproxy"):
        completed = run_print(proxy, BIND="[fe80::1%2]:18660")
        assert (completed.returncode, completed.stdout) == (1, "")
        assert completed.stderr.startswith("movies-api: BIND=[fe80::1%2]:18660 is valid on one network interface only")


def test_invalid_setting_is_refused_as_by_serve():
    completed = run_print("systemd", WORKERS="none")
    assert (completed.returncode, completed.stdout, completed.stderr) == (2, "", "movies-api: WORKERS=none is not allowed: must be a whole number from 2 to 1024\n")
    assert run_print("kubernetes").returncode == 2


@pytest.mark.parametrize("host", ["", " ", "a; evil", "a b", "a\nb", '"', "a'b", "a{b", "-a.example", "a..b", "a/b", "ä.example", "a.example:80", "x" * 64])
@pytest.mark.parametrize("file", ["nginx", "caddy", "haproxy"])
def test_invalid_host_is_refused(file, host):
    completed = run_print(file, f"--host={host}")
    assert (completed.returncode, completed.stdout) == (2, "")
    assert completed.stderr.startswith("movies-api: --host=") and completed.stderr.endswith("of letters, digits, hyphens and dots\n")


@pytest.mark.parametrize("folder", ['a"b', "a'b", "a\\b", "a\nb"])
def test_unit_is_refused_if_systemd_would_not_accept_the_program_path(tmp_path, folder):
    program = tmp_path / folder / "movies-api"
    program.parent.mkdir()
    shutil.copy(BINARY, program)
    completed = subprocess.run([program, "print", "systemd"], env={}, capture_output=True, text=True, timeout=10)
    assert (completed.returncode, completed.stdout) == (1, "") and "contains a character that a systemd unit cannot" in completed.stderr


@pytest.mark.parametrize("folder", ["a b", "a%n", "a$HOME", "a@port@", "é"])
def test_unit_escapes_the_program_path(tmp_path, folder):
    analyze = find_program("systemd-analyze", "systemd")
    program, unit = tmp_path / folder / "movies-api", tmp_path / "movies-api.service"
    program.parent.mkdir()
    shutil.copy(BINARY, program)
    unit.write_bytes(subprocess.run([program, "print", "systemd"], env={}, capture_output=True, timeout=10, check=True).stdout)
    # systemd-analyze verify fails if the program does not exist.
    verify_result = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    assert (verify_result.returncode, verify_result.stderr) == (0, "")


def test_documented_haproxy_sends_the_same_errors_as_the_printed_one():
    block = OPERATIONS.read_text().split("```haproxy\n")[1].split("```")[0]
    errors = [line for line in block.splitlines() if "http-error" in line]
    assert len(errors) == 3 and set(errors) <= set(print_file("haproxy").splitlines())


def test_unit_and_proxy_files_name_the_same_trusted_proxies():
    for settings, proxies in [({}, "127.0.0.1,::1"), ({"TRUSTED_PROXIES": " 10.0.0.0/8 , ::1"}, "10.0.0.0/8,::1")]:
        unit = print_file("systemd", **settings)
        assert re.findall('^Environment="TRUSTED_PROXIES=(.*)"$', unit, re.MULTILINE) == [proxies]
        for proxy in ("nginx", "caddy", "haproxy"):
            assert f"if TRUSTED_PROXIES names this proxy: {proxies}\n" in print_file(proxy, **settings)


def test_documented_role_and_database_suffice_and_backup_unit_works(cluster, tmp_path):
    analyze = find_program("systemd-analyze", "systemd")
    recipe = re.findall(r"^#   runuser -u postgres -- (create.*)$", print_file("systemd"), re.MULTILINE)
    assert [line.split()[0] for line in recipe] == ["createuser", "createdb"]
    assert all(f"sudo -u postgres {line}\n" in OPERATIONS.read_text() for line in recipe)
    for line in recipe:
        program, *arguments = line.split()
        cluster.call(program, "--host", cluster.folder, "--username=movies", *arguments)
    url = f"host={cluster.folder} user=movies-api dbname=movies"
    operate = lambda *command: subprocess.run([BINARY, *command], env={"DATABASE_URL": url, "SECRET_KEY": SECRET_KEY}, capture_output=True, text=True, timeout=60)
    assert (operate("migrate").returncode, "problem" in operate("check").stdout) == (0, False)
    units = {kind: tmp_path / f"movies-api-backup.{kind}" for kind in ("service", "timer")}
    units["service"].write_text(print_file("systemd-backup"))
    units["timer"].write_text(print_file("systemd-backup-timer"))
    verify_result = subprocess.run([analyze, "verify", *units.values()], capture_output=True, text=True)
    assert (verify_result.returncode, verify_result.stderr) == (0, "")
    script = re.search("^ExecStart=/bin/sh -euc '(.*)'$", units["service"].read_text(), re.MULTILINE)[1].replace("$$", "$").replace("%%", "%")
    environment = {"DATABASE_URL": url, "STATE_DIRECTORY": str(tmp_path), "PATH": f"{cluster.programs}:{os.environ['PATH']}"}
    for _ in range(2):
        subprocess.run(["/bin/sh", "-euc", script], env=environment, check=True, timeout=60)
    backup, = tmp_path.glob("movies-[1-7].backup")
    assert not list(tmp_path.glob("*.new"))
    cluster.run('create database restored owner "movies-api"')
    restore = re.search("^#   (pg_restore .*) --dbname=", units["service"].read_text(), re.MULTILINE)[1].split()
    restored = url.replace("dbname=movies", "dbname=restored")
    # Run as the current user: PostgreSQL's user may not enter the folder of the backup.
    subprocess.run([cluster.programs / restore[0], *restore[1:], "--dbname", restored, backup], check=True, timeout=60)
    url = restored
    assert operate("check").returncode == 0 and operate("recount", "--check").returncode == 0


def test_systemd_accepts_the_unit_and_rates_it_as_hardened(tmp_path):
    analyze = find_program("systemd-analyze", "systemd")
    unit = tmp_path / "movies-api.service"
    unit.write_text(print_file("systemd", CORS_ORIGINS="https://a.example,https://b.example"))
    verify_result = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    assert (verify_result.returncode, verify_result.stderr) == (0, "")
    security_report = subprocess.run([analyze, "security", "--offline=true", unit], capture_output=True, text=True).stdout
    assert float(re.search(r"Overall exposure level for movies-api.service: (\S+)", security_report)[1]) <= 1.5


def test_hadolint_accepts_the_container_file_and_its_health_check_works(own_server, tmp_path):
    file = tmp_path / "Containerfile"
    file.write_text(print_file("container"))
    lint_result = subprocess.run(["hadolint", file], env={"PATH": str(Path(sys.executable).parent)}, capture_output=True, text=True)
    assert (lint_result.returncode, lint_result.stdout) == (0, "")
    check = json.loads(re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", file.read_text(), re.MULTILINE)[1])

    def status_at(port):
        return subprocess.run([part.replace("8000", str(port)) for part in check], capture_output=True, timeout=5).returncode

    assert status_at(own_server.base.rsplit(":", 1)[1]) == 0
    assert status_at(free_port()) != 0


def test_compose_file_is_valid_and_its_service_gets_key_and_signals(database, tmp_path):
    from compose_spec import PyCompose

    compose = PyCompose.from_yaml(print_file("compose", WORKERS="48"))
    compose.validate()
    service = json.loads(compose.to_json())["services"]["movies-api"]
    (tmp_path / "secret_key").write_text(f"{SECRET_KEY}\n")
    replacements = {"$$": "$", "/run/secrets": str(tmp_path), "movies-api serve": f"{BINARY} serve"}
    *shell, command = service["entrypoint"]
    for word, replacement in replacements.items():
        command = command.replace(word, replacement)
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen([*shell, command], env={"DATABASE_URL": database.url, "BIND": "127.0.0.1:0", "PATH": PATH}, stderr=output)
    try:
        wait_until(lambda: "listening on" in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()


def make_certificate(folder):
    """Creates a certificate for `localhost` in fullchain.pem, with its key in privkey.pem; returns its path."""
    certificate = folder / "fullchain.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost", "-keyout", folder / "privkey.pem", "-out", certificate], check=True, capture_output=True)
    return certificate


class Nginx:
    """nginx with the printed configuration, on other ports and with a certificate of the test."""

    def __init__(self, folder, server, ports):
        program = find_program("nginx", "nginx-light")
        self.certificate = make_certificate(folder)
        text = print_file("nginx", "--host", "localhost", BIND=server)
        for port in (80, 443):
            text = text.replace(f"listen {port}", f"listen 127.0.0.1:{ports[port]}").replace(f"listen [::]:{port}", f"listen [::1]:{ports[port]}")
        (folder / "printed.conf").write_text(text.replace("/etc/ssl/localhost", str(folder)).replace("listen [::1]", "# listen [::1]"))
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        (folder / "nginx.conf").write_text("\n".join([
            "user root;" if os.geteuid() == 0 else "", f"daemon off; pid {folder}/pid; error_log stderr; events {{}}",
            "http { access_log off;", *(f"{kind}_temp_path {folder}/{kind};" for kind in kinds), f"include {folder}/printed.conf; }}"]))
        command = [program, "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]
        config_test = subprocess.run([*command, "-t"], capture_output=True, text=True)
        assert config_test.returncode == 0 and "[warn]" not in config_test.stderr, config_test.stderr
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)


class Caddy:
    """Caddy with the printed configuration, on other ports and with the certificate that it creates for `localhost`."""

    def __init__(self, folder, server, ports):
        program = find_program("caddy", "caddy")
        self.certificate = folder / "data/caddy/pki/authorities/local/root.crt"
        options = f"{{\n\tadmin off\n\tskip_install_trust\n\thttp_port {ports[80]}\n\thttps_port {ports[443]}\n\tdefault_bind 127.0.0.1\n}}\n"
        (folder / "Caddyfile").write_text(options + print_file("caddy", "--host", "localhost", BIND=server))
        environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": str(folder)}
        arguments = ["--config", folder / "Caddyfile", "--adapter", "caddyfile"]
        config_test = subprocess.run([program, "validate", *arguments], env=environment, capture_output=True, text=True)
        assert config_test.returncode == 0, config_test.stderr
        self.process = subprocess.Popen([program, "run", *arguments], env=environment, stderr=subprocess.DEVNULL)


class Haproxy:
    """HAProxy with the printed configuration, on other ports and with a certificate of the test."""

    def __init__(self, folder, server, ports):
        program = find_program("haproxy", "haproxy")
        self.certificate = make_certificate(folder)
        (folder / "haproxy.pem").write_text(self.certificate.read_text() + (folder / "privkey.pem").read_text())
        text = print_file("haproxy", "--host", "localhost", BIND=server)
        for port in (80, 443):
            text = text.replace(f"bind :{port}", f"bind 127.0.0.1:{ports[port]}").replace(f"    bind :::{port}", "    # ")
        text = text.replace("/etc/ssl/localhost", str(folder)).replace("    user haproxy\n    group haproxy\n", "")
        (folder / "haproxy.cfg").write_text(text)
        config_test = subprocess.run([program, "-c", "-f", folder / "haproxy.cfg"], capture_output=True, text=True)
        assert config_test.returncode == 0 and "WARNING" not in config_test.stderr, config_test.stderr
        self.process = subprocess.Popen([program, "-db", "-f", folder / "haproxy.cfg"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(params=[Nginx, Caddy, Haproxy], ids=["nginx", "caddy", "haproxy"])
def proxy(request, start_server, tmp_path):
    server = start_server(TRUSTED_PROXIES="127.0.0.1", LOGIN_FAILURES="2")
    ports = {80: free_port(), 443: free_port()}
    proxy = request.param(tmp_path, server.base.removeprefix("http://"), ports)
    proxy.server, proxy.base, proxy.plain = server, f"https://localhost:{ports[443]}", f"http://localhost:{ports[80]}"
    try:
        wait_until(proxy.certificate.exists, 30)
        yield proxy
    finally:
        proxy.process.terminate()
        proxy.process.wait(10)


def client_of(proxy):
    client = Client(proxy.base)
    client.session.verify = str(proxy.certificate)

    def is_answering():
        try:
            return client.get("/api/v1/movies/").status_code == 401
        except requests.ConnectionError:
            return False

    wait_until(is_answering, 30)
    return client


def test_printed_proxy_terminates_tls_and_sets_forwarded_headers(proxy):
    client = client_of(proxy)
    direct = proxy.server.client()
    ann = direct.new_user()
    client.token = ann.token
    for _ in range(2):
        assert client.post(MOVIES, {"title": "Heat", "genre": "Crime", "year": 1995}).status_code == 201
    forged = {"X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example", "X-Forwarded-For": "10.9.9.9", "X-Request-Id": "forged"}
    page = client.get(f"{MOVIES}?page_size=1", headers=forged)
    assert page.json()["next"] == f"{proxy.base}{MOVIES}?page=2&page_size=1"
    assert page.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert re.fullmatch("[0-9a-f-]{32,36}", page.headers["X-Request-Id"])
    assert client.post_json(MOVIES, "1" * 1_100_000).json() == direct.with_token(ann.token).post_json(MOVIES, "1" * 1_100_000).json()
    for path in ("/healthz", "/readyz", "/metrics", "/"):
        response = client.get(path)
        assert (response.status_code, response.json()) == (404, {"detail": "Not found."}), path
        assert response.headers["Content-Type"].startswith("application/json")
    redirect = requests.get(f"{proxy.plain}{MOVIES}?page=2", allow_redirects=False)
    assert redirect.status_code == 308 and re.fullmatch(rf"https://localhost(:\d+)?{MOVIES}\?page=2", redirect.headers["Location"])


MALFORMED = {
    "null in the path": (b"GET /api/v1/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "path above the root": (b"GET /api/v1/../../../x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "no host": (b"GET /api/v1/movies/ HTTP/1.1\r\n\r\n", 400),
    "space in a name": (b"GET /api/v1/movies/ HTTP/1.1\r\nHost: localhost\r\nA : b\r\n\r\n", 400),
    "target of 9 KB": (b"GET /api/v1/movies/?" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    "target of 30 KB": (b"GET /api/v1/movies/?" + b"a" * 30000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    "header of 17 KB": (b"GET /api/v1/movies/ HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 17000 + b"\r\n\r\n", 431),
    "header of 30 KB": (b"GET /api/v1/movies/ HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 30000 + b"\r\n\r\n", 431),
    "TRACE": (b"TRACE /api/v1/movies/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    "transfer coding": (b"POST /api/v1/movies/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: foo\r\n\r\n", 501),
    "version": (b"GET /api/v1/movies/ HTTP/3.0\r\nHost: localhost\r\n\r\n", 505),
}


def exchange(url, request, certificate=None):
    """Sends bytes, over TLS if the server's certificate is given; returns the status, the headers in lower case and the body."""
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), 10) as connection:
        if certificate:
            connection = ssl.create_default_context(cafile=certificate).wrap_socket(connection, server_hostname="localhost")
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


@pytest.mark.parametrize("proxy", [Nginx], ids=["nginx"], indirect=True)
def test_printed_nginx_answers_malformed_requests_in_json(proxy):
    """Caddy and HAProxy have texts of their own for these, which no configuration changes."""
    client = client_of(proxy)
    for url, certificate, security in [(proxy.base, proxy.certificate, "max-age=31536000"), (proxy.plain, None, None)]:
        for name, (request, expected) in MALFORMED.items():
            status, headers, body = exchange(url, request, certificate)
            assert (status, headers["content-type"], list(json.loads(body))) == (expected, "application/json", ["detail"]), (name, url)
            assert headers.get("strict-transport-security") == security
    status, _, body = exchange(proxy.base, b"GET /api/v1/movies/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (status, body) == (400, b'{"detail":"Bad request."}'), "HTTP without TLS"
    unknown = client.get("/movies-api-error")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not found."})


def test_printed_proxy_returns_json_503_while_the_service_is_down(proxy):
    client = client_of(proxy)
    proxy.server.process.kill()
    proxy.server.wait_for_exit()
    response = client.get(MOVIES)
    assert (response.status_code, response.json()) == (503, {"detail": "Service temporarily unavailable, try again later."})
    assert response.headers["Retry-After"] == "1" and response.headers["Content-Type"].startswith("application/json")
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_clients_behind_printed_proxy_cannot_choose_the_throttled_address(proxy):
    client = client_of(proxy)
    ann = proxy.server.client().new_user()
    wrong = {"username": ann.username, "password": "wrong"}
    responses = [client.post(TOKEN, wrong, headers={"X-Forwarded-For": f"10.9.9.{number}"}).status_code for number in range(3)]
    assert responses == [401, 401, 429]


def test_printed_proxy_reuses_connections_to_the_service(proxy):
    client, direct = client_of(proxy), proxy.server.client()

    def connections_accepted():
        return int(re.search(r"^movies_connections_accepted_total (\d+)$", direct.get("/metrics").text, re.MULTILINE)[1])

    before = connections_accepted()
    for _ in range(30):
        assert client.get(MOVIES).status_code == 401
    assert connections_accepted() - before <= 2


def test_dashboard_queries_are_valid_promql_for_existing_series(start_server, tmp_path):
    promtool = find_program("promtool", "prometheus")
    dashboard = json.loads(print_file("grafana"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 20
    client = start_server().client()
    client.new_user().add_movie()
    existing_series = set(SERIES.findall(client.get("/metrics").text))
    for expression in [*expressions, *(variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query")]:
        assert set(SERIES.findall(expression)) <= existing_series, expression
    rules = [{"record": f"expressions:{number}", "expr": expression.replace("$__rate_interval", "5m")} for number, expression in enumerate(expressions)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "expressions", "rules": rules}]}))
    completed = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True)
    assert completed.returncode == 0 and f"{len(rules)} rules found" in completed.stdout, completed.stdout + completed.stderr
