"""CORS for the origins in CORS_ORIGINS (the Fetch standard's protocol), off by default; request ids; the body of /readyz."""
import http.server
import json
import threading

import pytest

from helpers.client import MOVIES, movie_fields, outcome, send_bytes, wait_until

SITE = "https://app.example.com"
PREFLIGHT = {"Origin": SITE, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization"}


def cors_headers(response):
    return {name: value for name, value in response.headers.items() if name.lower().startswith("access-control-")}


@pytest.fixture(scope="module")
def client(make_server):
    return make_server(CORS_ORIGINS=f"{SITE},http://localhost:3000").client()


def test_preflight_of_allowed_origin_lists_methods_without_token(client):
    response = client.send("OPTIONS", f"{MOVIES}1/", headers=PREFLIGHT)
    assert response.status_code == 204
    assert cors_headers(response) == {
        "Access-Control-Allow-Origin": SITE,
        "Access-Control-Allow-Methods": "GET, PUT, PATCH, DELETE, HEAD, OPTIONS",
        "Access-Control-Allow-Headers": "Authorization, Content-Type",
        "Access-Control-Max-Age": "600",
    }
    assert response.headers["Vary"] == "Origin"


def test_allowed_origin_may_read_responses_and_errors(client):
    for response in (client.get(MOVIES, headers={"Origin": SITE}), client.get("/nothing", headers={"Origin": SITE})):
        assert response.headers["Access-Control-Allow-Origin"] == SITE
        assert "X-Request-Id" in response.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("origin", ["https://evil.example", f"{SITE}.evil.example", "http://app.example.com", "null", "*", None])
def test_other_origins_get_only_the_vary_header(client, origin):
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"} if origin else {}
    for method, status in (("GET", 401), ("OPTIONS", 204)):
        response = client.send(method, MOVIES, headers=headers)
        assert (response.status_code, cors_headers(response), response.headers["Vary"]) == (status, {}, "Origin")


@pytest.mark.parametrize("origins", [[SITE, SITE], [SITE, "https://evil.example"], ["https://evil.example", SITE]])
def test_two_origin_headers_count_as_none(client, origins):
    response = client.send_raw("GET", MOVIES, [("Origin", origin) for origin in origins])
    assert (response.status_code, cors_headers(response), response.headers["Vary"]) == (401, {}, "Origin")


def test_cors_headers_are_absent_by_default(own_server):
    response = own_server.client().send("OPTIONS", MOVIES, headers=PREFLIGHT)
    assert (response.status_code, cors_headers(response), "Vary" in response.headers) == (204, {}, False)


@pytest.mark.parametrize("request_id", ["4bf92f35-77b3.4da6", "a" * 128])
def test_request_id_of_trusted_proxy_is_returned_and_logged(start_server, request_id):
    server = start_server(TRUSTED_PROXIES="127.0.0.0/8")
    response = server.client().get("/nothing", headers={"X-Request-Id": request_id})
    assert response.headers["X-Request-Id"] == request_id
    server.stop()
    assert [line for line in server.log if f"{request_id} - GET /nothing 404" in line]


def test_last_of_two_request_ids_is_used(start_server):
    client = start_server(TRUSTED_PROXIES="127.0.0.0/8").client()
    response = client.send_raw("GET", "/nothing", [("X-Request-Id", "the-client-s"), ("X-Request-Id", "the-proxy-s")])
    assert response.headers["X-Request-Id"] == "the-proxy-s"


def test_preflight_for_unknown_path_allows_no_method(client):
    response = client.send("OPTIONS", "/nothing", headers=PREFLIGHT)
    assert (response.status_code, "Access-Control-Allow-Methods" in response.headers) == (404, False)


@pytest.mark.parametrize("path", [MOVIES, f"{MOVIES}1/", "/api/v1/auth/token/"])
def test_preflight_without_trailing_slash_is_answered_as_with_it(client, path):
    response = client.send("OPTIONS", f"{path[:-1]}?page=2", headers=PREFLIGHT)
    expected = client.send("OPTIONS", f"{path}?page=2", headers=PREFLIGHT)
    assert (response.status_code, response.headers["Allow"]) == (204, expected.headers["Allow"])
    assert cors_headers(response) == cors_headers(expected) != {}
    redirected = client.send("PATCH", path[:-1], headers={"Origin": SITE})
    assert (redirected.status_code, redirected.headers["Location"]) == (308, path)
    assert redirected.headers["Access-Control-Allow-Origin"] == SITE


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": SITE}, {"Access-Control-Request-Method": "PATCH"}, {**PREFLIGHT, "Origin": "https://evil.example"}]
)
def test_options_without_trailing_slash_is_redirected_unless_it_is_a_preflight(client, headers):
    response = client.send("OPTIONS", MOVIES[:-1], headers=headers)
    assert (response.status_code, response.headers["Location"], "Access-Control-Allow-Methods" in response.headers) == (308, MOVIES, False)


@pytest.fixture
def site():
    """The URL of another site, with an origin of its own and an empty page."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


FETCH = """
const [url, request, done] = arguments;
fetch(url, request).then(async answer => done([answer.status, answer.redirected, await answer.json()]), error => done(String(error)));
"""


def test_browser_script_of_allowed_origin_can_post_without_trailing_slash(start_server, site, browser):
    ann = start_server(CORS_ORIGINS=site).client().new_user()
    browser.set_script_timeout(30)
    browser.get(site)
    fields = movie_fields()
    request = {
        "method": "POST", "body": json.dumps(fields), "headers": {"Authorization": f"Bearer {ann.token}", "Content-Type": "application/json"}
    }
    status, was_redirected, movie = browser.execute_async_script(FETCH, ann.base + MOVIES[:-1], request)
    assert (status, was_redirected, movie["title"]) == (201, True, fields["title"])
    assert [movie["title"] for movie in ann.get(MOVIES).json()["results"]] == [fields["title"]]


REFUSED_BY_HTTP_SERVER = [
    (413, [("Content-Length", "99999999")], b""),
    (413, [("Transfer-Encoding", "chunked")], b"fffffff\r\n"),
    (400, [("Transfer-Encoding", "chunked")], b"2;\r\nab\r\n0\r\n\r\n"),
]


@pytest.mark.parametrize("status, framing, body", REFUSED_BY_HTTP_SERVER)
def test_allowed_origin_may_read_error_responses_of_the_http_server(client, status, framing, body):
    for origin, allowed in ((SITE, SITE), ("http://localhost:3000",) * 2, ("https://evil.example", None), (None, None)):
        sent = [("Origin", origin)] if origin else []
        head = "".join(f"{name}: {value}\r\n" for name, value in [("Host", "a"), *sent, *framing])
        response = send_bytes(client.base, f"POST {MOVIES} HTTP/1.1\r\n{head}\r\n".encode() + body)
        assert (response.status_code, response.headers.get("Access-Control-Allow-Origin")) == (status, allowed)
        assert ("Retry-After" in response.headers.get("Access-Control-Expose-Headers", ""), response.headers["Vary"]) == (bool(allowed), "Origin")


@pytest.mark.parametrize("status, framing, body", REFUSED_BY_HTTP_SERVER)
def test_error_responses_of_the_http_server_have_no_cors_headers_by_default(own_server, status, framing, body):
    head = "".join(f"{name}: {value}\r\n" for name, value in [("Host", "a"), ("Origin", SITE), *framing])
    response = send_bytes(own_server.client().base, f"POST {MOVIES} HTTP/1.1\r\n{head}\r\n".encode() + body)
    assert (response.status_code, cors_headers(response), "Vary" in response.headers) == (status, {}, False)


@pytest.mark.parametrize("headers", [{"Origin": SITE}, {"Access-Control-Request-Method": "PATCH"}, {}])
@pytest.mark.parametrize("token", [None, "garbage"])
def test_options_that_is_not_a_preflight_follows_the_contract(client, token, headers):
    response = client.with_token(token).send("OPTIONS", MOVIES, headers=headers)
    assert (response.status_code, response.headers["Allow"], response.content) == (204, "GET, POST, HEAD, OPTIONS", b"")
    assert not [name for name in cors_headers(response) if name.startswith("Access-Control-Allow-M")]


@pytest.mark.parametrize("trusted, request_id", [("", "from-anybody"), ("127.0.0.0/8", "a b"), ("127.0.0.0/8", "a" * 129), ("127.0.0.0/8", '"')])
def test_untrusted_or_malformed_request_id_is_replaced(start_server, trusted, request_id):
    response = start_server(TRUSTED_PROXIES=trusted).client().get("/nothing", headers={"X-Request-Id": request_id})
    assert response.headers["X-Request-Id"] != request_id
    assert len(response.headers["X-Request-Id"]) == 16


def test_readyz_lists_what_is_not_ready(start_server, database):
    client = start_server().client()
    assert outcome(client.get("/readyz")) == (200, {"status": "ok"})
    database.disallow_connections()
    detail = "Service temporarily unavailable, try again later."
    wait_until(lambda: outcome(client.get("/readyz")) == (503, {"detail": detail, "not_ready": ["database"]}))
    database.allow_connections()
