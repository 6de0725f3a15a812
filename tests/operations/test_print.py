"""`movies-api print`: each file holds this installation's settings and no secret, and is judged and run by what reads it."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from helpers.client import MOVIES, TOKEN, Client, wait_until
from helpers.cluster import Cluster, free_port
from helpers.programs import PATH, find_program
from helpers.settings import BINARY, README, SECRET_KEY

FILES = ["systemd", "systemd-backup", "systemd-backup-timer", "container", "compose", "caddy", "nginx", "haproxy", "grafana"]
SERIES = re.compile(r"\b(?:movies|process)_[a-z_]+")

pytestmark = pytest.mark.own_servers


def run_print(*arguments, **settings):
    return subprocess.run([BINARY, "print", *arguments], env=settings, capture_output=True, text=True, timeout=10)


def printed(*arguments, **settings):
    done = run_print(*arguments, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("file", FILES)
def test_no_secret_is_printed_and_no_gap_is_left(file):
    secrets = {"SECRET_KEY": "opensesame" * 4, "SECRET_KEY_FALLBACKS": "mellon" * 6, "DATABASE_URL": "postgresql://me:hunter2@there/movies"}
    text = printed(file, **secrets)
    assert text == printed(file)
    assert not re.search(r"@\w+@", text)


def test_each_file_holds_the_settings_of_this_installation():
    settings = {"BIND": "10.1.2.3:8123", "WORKERS": "48", "MAX_CONNECTIONS": "1000", "DB_POOL_SIZE": "20", "TRUSTED_PROXIES": "10.0.0.0/8"}
    unit = printed("systemd", **settings).splitlines()
    assert {'Environment="BIND=10.1.2.3:8123"', 'Environment="WORKERS=48"', "LimitNOFILE=1144", f'ExecStart="{BINARY}" serve'} <= set(unit)
    compose = printed("compose", **settings)
    assert all(f"\n      {line}\n" in compose for line in ('WORKERS: "48"', 'TRUSTED_PROXIES: "10.0.0.0/8"', "nofile: 1144"))
    assert 'ports: ["10.1.2.3:8123:8123"]' in compose and "BIND" not in compose
    assert "\nENV BIND=0.0.0.0:8123\nEXPOSE 8123\n" in printed("container", **settings)
    lines = {"haproxy": ["    server one 10.1.2.3:8123", "    bind :443 ssl crt /etc/ssl/films.example.org/haproxy.pem alpn h2,http/1.1"], "nginx": ["    server 10.1.2.3:8123;", "    server_name films.example.org;"], "caddy": ["\t\treverse_proxy 10.1.2.3:8123 {", "films.example.org {"]}
    for proxy, wanted in lines.items():
        text = printed(proxy, "--host", "films.example.org", **settings)
        assert set(wanted) <= set(text.splitlines()) and "names this proxy: 10.0.0.0/8\n" in text
    assert "    server 127.0.0.1:8000;\n" in printed("nginx")
    assert "pool-purge-delay 60s\n" in printed("haproxy") and "pool-purge-delay 480s\n" in printed("haproxy", IDLE_TIMEOUT="600")
    for proxy in ("nginx", "caddy"):
        assert re.search(r"Below the 75 s .*\n\s*keepalive(_timeout)? 60s", printed(proxy))
        assert re.search(r"Below the 600 s .*\n\s*keepalive(_timeout)? 480s", printed(proxy, IDLE_TIMEOUT="600"))
    assert "    server [::1]:81;\n" in printed("nginx", BIND="[::]:81")


def test_a_setting_that_cannot_be_is_refused_as_at_a_start():
    done = run_print("systemd", WORKERS="none")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "movies-api: WORKERS=none is not allowed: it is a whole number, 2 to 1024\n")
    assert run_print("kubernetes").returncode == 2


@pytest.mark.parametrize("host", ["", " ", "a; evil", "a b", "a\nb", '"', "a'b", "a{b", "-a.example", "a..b", "a/b", "ä.example", "a.example:80", "x" * 64])
@pytest.mark.parametrize("file", ["nginx", "caddy", "haproxy"])
def test_a_host_that_is_no_name_is_refused(file, host):
    done = run_print(file, f"--host={host}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("movies-api: --host=") and done.stderr.endswith("of letters, digits, hyphens and dots\n")


@pytest.mark.parametrize("folder", ['a"b', "a'b", "a\\b", "a\nb"])
def test_a_unit_is_refused_where_systemd_would_not_take_the_path_of_the_program(tmp_path, folder):
    program = tmp_path / folder / "movies-api"
    program.parent.mkdir()
    shutil.copy(BINARY, program)
    done = subprocess.run([program, "print", "systemd"], env={}, capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stdout) == (1, "") and "holds what a unit cannot" in done.stderr


@pytest.mark.parametrize("folder", ["a b", "a%n", "a$HOME", "a@port@", "é"])
def test_a_unit_names_a_program_in_a_folder_with_an_odd_name(tmp_path, folder):
    analyze = find_program("systemd-analyze", "systemd")
    program, unit = tmp_path / folder / "movies-api", tmp_path / "movies-api.service"
    program.parent.mkdir()
    shutil.copy(BINARY, program)
    unit.write_bytes(subprocess.run([program, "print", "systemd"], env={}, capture_output=True, timeout=10, check=True).stdout)
    # Verification fails unless the program is there.
    verified = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_readme_s_haproxy_refuses_as_the_printed_one():
    block = README.read_text().split("```haproxy\n")[1].split("```")[0]
    errors = [line for line in block.splitlines() if "http-error" in line]
    assert len(errors) == 3 and set(errors) <= set(printed("haproxy").splitlines())


def test_unit_and_proxies_agree_on_the_proxies_that_are_trusted():
    for settings, proxies in [({}, "127.0.0.1,::1"), ({"TRUSTED_PROXIES": " 10.0.0.0/8 , ::1"}, "10.0.0.0/8,::1")]:
        unit = printed("systemd", **settings)
        assert re.findall('^Environment="TRUSTED_PROXIES=(.*)"$', unit, re.MULTILINE) == [proxies]
        for proxy in ("nginx", "caddy", "haproxy"):
            assert f"if TRUSTED_PROXIES names this proxy: {proxies}\n" in printed(proxy, **settings)


@pytest.fixture(scope="module")
def cluster():
    made = Cluster().start()
    yield made
    made.dispose()


def test_the_role_and_database_of_the_recipe_are_all_that_the_service_needs_and_a_backup_keeps_them(cluster, tmp_path):
    analyze = find_program("systemd-analyze", "systemd")
    recipe = re.findall(r"^#   runuser -u postgres -- (create.*)$", printed("systemd"), re.MULTILINE)
    assert [line.split()[0] for line in recipe] == ["createuser", "createdb"]
    assert all(f"sudo -u postgres {line}\n" in README.read_text() for line in recipe)
    for line in recipe:
        program, *arguments = line.split()
        cluster.call(program, "--host", cluster.folder, "--username=movies", *arguments)
    url = f"host={cluster.folder} user=movies-api dbname=movies"
    operate = lambda *command: subprocess.run([BINARY, *command], env={"DATABASE_URL": url, "SECRET_KEY": SECRET_KEY}, capture_output=True, text=True, timeout=60)
    assert (operate("migrate").returncode, "problem" in operate("check").stdout) == (0, False)
    units = {kind: tmp_path / f"movies-api-backup.{kind}" for kind in ("service", "timer")}
    units["service"].write_text(printed("systemd-backup"))
    units["timer"].write_text(printed("systemd-backup-timer"))
    verified = subprocess.run([analyze, "verify", *units.values()], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    script = re.search("^ExecStart=/bin/sh -euc '(.*)'$", units["service"].read_text(), re.MULTILINE)[1].replace("$$", "$").replace("%%", "%")
    environment = {"DATABASE_URL": url, "STATE_DIRECTORY": str(tmp_path), "PATH": f"{cluster.programs}:{os.environ['PATH']}"}
    for _ in range(2):
        subprocess.run(["/bin/sh", "-euc", script], env=environment, check=True, timeout=60)
    backup, = tmp_path.glob("movies-[1-7].backup")
    assert not list(tmp_path.glob("*.new"))
    cluster.run('create database restored owner "movies-api"')
    restore = re.search("^#   (pg_restore .*) --dbname=", units["service"].read_text(), re.MULTILINE)[1].split()
    restored = url.replace("dbname=movies", "dbname=restored")
    # The path of a socket that only its owner may enter would stop PostgreSQL's user, so this runs as who runs the tests.
    subprocess.run([cluster.programs / restore[0], *restore[1:], "--dbname", restored, backup], check=True, timeout=60)
    url = restored
    assert operate("check").returncode == 0 and operate("recount", "--check").returncode == 0


def test_the_unit_is_one_that_systemd_takes_and_finds_shut_off(tmp_path):
    analyze = find_program("systemd-analyze", "systemd")
    unit = tmp_path / "movies-api.service"
    unit.write_text(printed("systemd", CORS_ORIGINS="https://a.example,https://b.example"))
    verified = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = subprocess.run([analyze, "security", "--offline=true", unit], capture_output=True, text=True).stdout
    assert float(re.search(r"Overall exposure level for movies-api.service: (\S+)", judged)[1]) <= 1.5


def test_the_container_file_is_clean_and_its_health_check_tells_who_answers(own_server, tmp_path):
    file = tmp_path / "Containerfile"
    file.write_text(printed("container"))
    linted = subprocess.run(["hadolint", file], env={"PATH": str(Path(sys.executable).parent)}, capture_output=True, text=True)
    assert (linted.returncode, linted.stdout) == (0, "")
    check = json.loads(re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", file.read_text(), re.MULTILINE)[1])

    def status_at(port):
        return subprocess.run([part.replace("8000", str(port)) for part in check], capture_output=True, timeout=5).returncode

    assert status_at(own_server.base.rsplit(":", 1)[1]) == 0
    assert status_at(free_port()) != 0


def test_the_compose_file_is_valid_and_its_service_gets_key_and_signals(database, tmp_path):
    from compose_spec import PyCompose

    compose = PyCompose.from_yaml(printed("compose", WORKERS="48"))
    compose.validate()
    service = json.loads(compose.to_json())["services"]["movies-api"]
    (tmp_path / "secret_key").write_text(f"{SECRET_KEY}\n")
    replaced = {"$$": "$", "/run/secrets": str(tmp_path), "movies-api serve": f"{BINARY} serve"}
    *shell, command = service["entrypoint"]
    for word, meant in replaced.items():
        command = command.replace(word, meant)
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen([*shell, command], env={"DATABASE_URL": database.url, "BIND": "127.0.0.1:0", "PATH": PATH}, stderr=output)
    try:
        wait_until(lambda: "listening on" in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()


class Nginx:
    """nginx with the printed file, on ports and with a certificate of the test's own."""

    def __init__(self, folder, server, ports):
        program = find_program("nginx", "nginx-light")
        self.trusted = folder / "fullchain.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                        "subjectAltName=DNS:localhost", "-keyout", folder / "privkey.pem", "-out", self.trusted], check=True, capture_output=True)
        text = printed("nginx", "--host", "localhost", BIND=server)
        for port in (80, 443):
            text = text.replace(f"listen {port}", f"listen 127.0.0.1:{ports[port]}").replace(f"listen [::]:{port}", f"listen [::1]:{ports[port]}")
        (folder / "printed.conf").write_text(text.replace("/etc/ssl/localhost", str(folder)).replace("listen [::1]", "# listen [::1]"))
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        (folder / "nginx.conf").write_text("\n".join([
            "user root;" if os.geteuid() == 0 else "", f"daemon off; pid {folder}/pid; error_log stderr; events {{}}",
            "http { access_log off;", *(f"{kind}_temp_path {folder}/{kind};" for kind in kinds), f"include {folder}/printed.conf; }}"]))
        command = [program, "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True)
        assert tested.returncode == 0 and "[warn]" not in tested.stderr, tested.stderr
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)


class Caddy:
    """Caddy with the printed file, on ports of the test's own and with the certificate that it makes for `localhost`."""

    def __init__(self, folder, server, ports):
        program = find_program("caddy", "caddy")
        self.trusted = folder / "data/caddy/pki/authorities/local/root.crt"
        options = f"{{\n\tadmin off\n\tskip_install_trust\n\thttp_port {ports[80]}\n\thttps_port {ports[443]}\n\tdefault_bind 127.0.0.1\n}}\n"
        (folder / "Caddyfile").write_text(options + printed("caddy", "--host", "localhost", BIND=server))
        environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": str(folder)}
        arguments = ["--config", folder / "Caddyfile", "--adapter", "caddyfile"]
        validated = subprocess.run([program, "validate", *arguments], env=environment, capture_output=True, text=True)
        assert validated.returncode == 0, validated.stderr
        self.process = subprocess.Popen([program, "run", *arguments], env=environment, stderr=subprocess.DEVNULL)


class Haproxy:
    """HAProxy with the printed file, on ports and with a certificate of the test's own."""

    def __init__(self, folder, server, ports):
        program = find_program("haproxy", "haproxy")
        self.trusted = folder / "fullchain.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                        "subjectAltName=DNS:localhost", "-keyout", folder / "privkey.pem", "-out", self.trusted], check=True, capture_output=True)
        (folder / "haproxy.pem").write_text(self.trusted.read_text() + (folder / "privkey.pem").read_text())
        text = printed("haproxy", "--host", "localhost", BIND=server)
        for port in (80, 443):
            text = text.replace(f"bind :{port}", f"bind 127.0.0.1:{ports[port]}").replace(f"    bind :::{port}", "    # ")
        text = text.replace("/etc/ssl/localhost", str(folder)).replace("    user haproxy\n    group haproxy\n", "")
        (folder / "haproxy.cfg").write_text(text)
        tested = subprocess.run([program, "-c", "-f", folder / "haproxy.cfg"], capture_output=True, text=True)
        assert tested.returncode == 0 and "WARNING" not in tested.stderr, tested.stderr
        self.process = subprocess.Popen([program, "-db", "-f", folder / "haproxy.cfg"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(params=[Nginx, Caddy, Haproxy], ids=["nginx", "caddy", "haproxy"])
def proxy(request, start_server, tmp_path):
    server = start_server(TRUSTED_PROXIES="127.0.0.1", LOGIN_FAILURES="2")
    ports = {80: free_port(), 443: free_port()}
    made = request.param(tmp_path, server.base.removeprefix("http://"), ports)
    made.server, made.base, made.plain = server, f"https://localhost:{ports[443]}", f"http://localhost:{ports[80]}"
    try:
        wait_until(made.trusted.exists, 30)
        yield made
    finally:
        made.process.terminate()
        made.process.wait(10)


def client_of(proxy):
    client = Client(proxy.base)
    client.session.verify = str(proxy.trusted)

    def responses():
        try:
            return client.get("/api/v1/movies/").status_code == 401
        except requests.ConnectionError:
            return False

    wait_until(responses, 30)
    return client


def test_a_proxy_as_printed_speaks_tls_and_says_what_the_service_believes(proxy):
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
        refused = client.get(path)
        assert (refused.status_code, refused.json()) == (404, {"detail": "Not found."}), path
        assert refused.headers["Content-Type"].startswith("application/json")
    moved = requests.get(f"{proxy.plain}{MOVIES}?page=2", allow_redirects=False)
    assert moved.status_code == 308 and re.fullmatch(rf"https://localhost(:\d+)?{MOVIES}\?page=2", moved.headers["Location"])


def test_a_proxy_as_printed_refuses_in_json_while_the_service_is_away(proxy):
    client = client_of(proxy)
    proxy.server.process.kill()
    proxy.server.wait_for_exit()
    refused = client.get(MOVIES)
    assert (refused.status_code, refused.json()) == (503, {"detail": "Service temporarily unavailable, try again later."})
    assert refused.headers["Retry-After"] == "1" and refused.headers["Content-Type"].startswith("application/json")
    assert refused.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_behind_a_proxy_as_printed_nobody_chooses_the_address_that_is_throttled(proxy):
    client = client_of(proxy)
    ann = proxy.server.client().new_user()
    wrong = {"username": ann.username, "password": "wrong"}
    responses = [client.post(TOKEN, wrong, headers={"X-Forwarded-For": f"10.9.9.{number}"}).status_code for number in range(3)]
    assert responses == [401, 401, 429]


def test_a_proxy_as_printed_keeps_its_connections_to_the_service(proxy):
    client, direct = client_of(proxy), proxy.server.client()

    def accepted():
        return int(re.search(r"^movies_connections_accepted_total (\d+)$", direct.get("/metrics").text, re.MULTILINE)[1])

    before = accepted()
    for _ in range(30):
        assert client.get(MOVIES).status_code == 401
    assert accepted() - before <= 2


def test_the_dashboard_asks_for_series_that_are_there_in_promql(start_server, tmp_path):
    promtool = find_program("promtool", "prometheus")
    board = json.loads(printed("grafana"))
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(asked) > 20
    client = start_server().client()
    client.new_user().add_movie()
    shown = set(SERIES.findall(client.get("/metrics").text))
    for question in [*asked, *(variable["query"] for variable in board["templating"]["list"] if variable["type"] == "query")]:
        assert set(SERIES.findall(question)) <= shown, question
    rules = [{"record": f"asked:{number}", "expr": question.replace("$__rate_interval", "5m")} for number, question in enumerate(asked)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "asked", "rules": rules}]}))
    checked = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True)
    assert checked.returncode == 0 and f"{len(rules)} rules found" in checked.stdout, checked.stdout + checked.stderr
