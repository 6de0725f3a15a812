"""Paths, methods and headers of every route: 404, 405, redirects to the trailing slash, OPTIONS, HEAD, Accept, Host."""
import http.client
import urllib.parse

import pytest

from helpers.client import MOVIES, REFRESH, REFRESH_ALIAS, REGISTER, TOKEN, movie_fields, outcome, read_until_closed

NOT_FOUND = (404, {"detail": "Not found."})
ALLOWED = {
    REGISTER: "POST, OPTIONS",
    TOKEN: "POST, OPTIONS",
    REFRESH: "POST, OPTIONS",
    REFRESH_ALIAS: "POST, OPTIONS",
    MOVIES: "GET, POST, HEAD, OPTIONS",
    f"{MOVIES}1/": "GET, PUT, PATCH, DELETE, HEAD, OPTIONS",
}
UNKNOWN = [
    "/", "/api", "/api/", "/api/v1", "/api/v1/", "/api/v1/auth", "/api/v1/auth/", "/api/v2/movies/", "/v1/movies/", "/api/v1/auth/login/",
    "/api/v1/auth/token/check/", "/api/v1/auth/refresh/x/", "/api/v1/nothing", "/api/v1/movie/", "/api/v1/movies/x/", "/api/v1/movies/abc",
    "/api/v1/movies/-1/", "/api/v1/movies/+1/", "/api/v1/movies/1.0/", "/api/v1/movies/1e3/", "/api/v1/movies/0x1/", "/api/v1/movies/1x/",
    "/api/v1/movies/1_0/", "/api/v1/movies/1,2/", "/api/v1/movies/%201/", "/api/v1/movies/1%20/", "/api/v1/movies/%D9%A1/",
    "/api/v1/movies/%EF%BC%91/",
    "/api/v1/movies/1/edit/", "/api/v1/movies/1/1/", "/api/v1/movies/1//", "/api/v1/movies//", "/api/v1/movies//1/", "//api/v1/movies/",
    "/api//v1/movies/",
    "/api/v1/./movies/", "/api/v1/x/../movies/", "/api/v1/movies/..", "/api/v1/movies/%2e%2e/movies/", "/API/V1/MOVIES/", "/api/v1/Movies/",
    "/api/v1/movies;x/",
    "/api/v1/movies/1;x=y/", "/api/v1/movies/%00/", "/api/v1/movies/1%00/", "/api/v1/movies%00/", "/%ff", "/%", "/api/v1/auth/register//",
    "/index.html",
    "/favicon.ico", "/static/../../etc/passwd", "/api/v1/movies/%2e%2e%2f%2e%2e%2fetc/passwd",
]


@pytest.mark.parametrize("path", UNKNOWN)
def test_unknown_path_returns_404_with_and_without_token(api, ann, path):
    assert [outcome(client.send_raw("GET", path)) for client in (api, ann, api.with_token("garbage"))] == [NOT_FOUND] * 3


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
@pytest.mark.parametrize("path", ["/", "/api/v1/nothing/", f"{MOVIES}abc/"])
def test_unknown_path_returns_404_for_any_method_and_body(api, method, path):
    assert outcome(api.send(method, path, raw="{", headers={"Content-Type": "text/html"})) == NOT_FOUND


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "BREW", "M-SEARCH"])
@pytest.mark.parametrize("path", [REGISTER, TOKEN, REFRESH, REFRESH_ALIAS])
def test_account_routes_allow_only_post(api, method, path):
    response = api.send_raw(method, path, body=b"{")
    body = b"" if method == "HEAD" else {"detail": f'Method "{method}" not allowed.'}
    assert (*outcome(response), response.headers["Allow"]) == (405, body, "POST, OPTIONS")


@pytest.mark.parametrize(
    "method, path",
    [*[(method, MOVIES) for method in ("PUT", "PATCH", "DELETE", "TRACE", "BREW")],
     *[(method, f"{MOVIES}1/") for method in ("POST", "TRACE", "BREW")], ("POST", f"{MOVIES}999999999/")],
)
def test_protected_route_returns_405_for_unsupported_method_with_token(ann, method, path):
    response = ann.send_raw(method, path, [("Content-Type", "text/plain")], b"{")
    allowed = ALLOWED[MOVIES if path == MOVIES else f"{MOVIES}1/"]
    assert (*outcome(response), response.headers["Allow"]) == (405, {"detail": f'Method "{method}" not allowed.'}, allowed)


def test_registration_checks_token_before_method(api, ann):
    assert api.get(REGISTER, headers={"Authorization": "Bearer garbage"}).status_code == 401
    assert ann.get(REGISTER).status_code == 405


@pytest.mark.parametrize("path", ALLOWED)
def test_options_lists_methods_with_and_without_token(api, ann, path):
    for client in (api, ann):
        response = client.send("OPTIONS", path)
        assert response.status_code in (200, 204)
        assert response.headers["Allow"] == ALLOWED[path]


@pytest.mark.parametrize("target", ["*", "http://{host}", "HTTP://{host}"])
def test_options_for_the_whole_server_lists_methods_of_all_paths(api, ann, target):
    host = urllib.parse.urlsplit(api.base).netloc
    for client in (api, ann, api.with_token("garbage")):
        response = client.send_raw("OPTIONS", target.replace("{host}", host))
        assert (response.status_code, response.content) == (204, b"")
        assert set(response.headers["Allow"].split(", ")) == {method for allowed in ALLOWED.values() for method in allowed.split(", ")}


def test_options_for_the_root_path_returns_404(api):
    host = urllib.parse.urlsplit(api.base).netloc
    for target in ("/", f"http://{host}/", f"http://{host}?", "/*", "/%2A"):
        assert outcome(api.send_raw("OPTIONS", target)) == NOT_FOUND


@pytest.mark.parametrize("target", [b"/api/v1/movies/\xc3\xa9", b"/\xff", MOVIES.encode() + b"?title=\xff", MOVIES.encode() + b"?title=\xc3\xa9&x=\xc3"])
def test_invalid_bytes_in_request_target_return_400(ann, target):
    response = ann.send_raw("GET", target)
    assert (response.status_code, list(response.json())) == (400, ["detail"])


def test_unencoded_utf_8_in_query_is_accepted(ann):
    movie = ann.add_movie(title="Éclair 映画")
    response = ann.send_raw("GET", f"{MOVIES}?title=éclair 映".replace(" ", "%20"))
    assert outcome(response)[1]["results"] == [movie]


@pytest.mark.parametrize("query", ["", "?", "?title=a%20b&page=2", "?next=//evil.example", "?a=%0d%0aX-Evil:%201"])
@pytest.mark.parametrize("path", [*ALLOWED, f"{MOVIES}0012/"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
def test_path_without_trailing_slash_is_redirected_with_query(api, method, path, query):
    response = api.send_raw(method, path[:-1] + query)
    assert response.status_code in ((301, 308) if method in ("GET", "HEAD") else (308,))
    assert response.headers["Location"] == path + query
    assert "X-Evil" not in response.headers


def test_client_that_follows_the_redirect_repeats_method_and_body(ann):
    fields = movie_fields()
    request = {"json": fields, "headers": {"Authorization": f"Bearer {ann.token}"}, "timeout": 20}
    response = ann.session.post(ann.base + MOVIES.rstrip("/"), allow_redirects=True, **request)
    assert (len(response.history), response.status_code, response.json()["title"]) == (1, 201, fields["title"])


def responses_with_each_status(ann, bob):
    movie = ann.add_movie()
    one = f"{MOVIES}{movie['id']}/"
    yield 200, ann.get(MOVIES)
    yield 201, ann.post(MOVIES, movie_fields())
    yield 400, ann.post(MOVIES, {})
    yield 400, ann.get(MOVIES, headers={"Host": "a b"})
    yield 401, ann.get(MOVIES, headers={"Authorization": ""})
    yield 403, bob.delete(one)
    yield 204, ann.delete(one)
    yield 404, ann.get(one)
    yield 404, ann.get("/nothing")
    yield 405, ann.put(MOVIES)
    yield 415, ann.post(MOVIES, raw="x")
    yield 308, ann.post(MOVIES[:-1])
    yield 200, ann.get("/healthz")


def other_responses(client):
    for path in ("/readyz", "/metrics", "/api/v1/schema/", "/api/v1/docs/", "/api/v1/docs/swagger-ui-bundle.js", "/api/v1/docs/swagger-ui.css"):
        yield 200, client.get(path)
    yield 204, client.send("OPTIONS", MOVIES)


def test_security_headers_are_on_every_response(ann, bob):
    headers = ("X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy")
    for status, response in (*responses_with_each_status(ann, bob), *other_responses(ann)):
        seen = (response.status_code, *(response.headers.get(name) for name in headers))
        assert seen == (status, "nosniff", "same-origin", "same-origin")


def test_every_body_is_json_and_no_response_sets_a_cookie(ann, bob):
    for status, response in responses_with_each_status(ann, bob):
        kind = response.headers.get("Content-Type", "").split(";")[0] if response.content else "application/json"
        assert (response.status_code, kind, response.headers.get("Set-Cookie")) == (status, "application/json", None)


@pytest.mark.parametrize("path", [MOVIES, f"{MOVIES}?page=2", f"{MOVIES}?year=x", "{one}", f"{MOVIES}999999999/", "/api/v1/nothing/", "/healthz"])
def test_head_returns_headers_of_get_without_body(ann, path):
    path = path.replace("{one}", f"{MOVIES}{ann.add_movie()['id']}/")
    get, head = ann.get(path), ann.send("HEAD", path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers.get("Content-Type") == get.headers.get("Content-Type")
    assert head.headers.get("Content-Length") in (None, get.headers["Content-Length"])


@pytest.mark.parametrize("method, path, status", [("HEAD", MOVIES, 200), ("HEAD", "/api/v1/nothing", 404), ("HEAD", TOKEN, 405), ("DELETE",
        "{one}", 204)])
def test_no_byte_follows_the_headers_of_a_response_without_body(ann, method, path, status):
    path = path.replace("{one}", f"{MOVIES}{ann.add_movie()['id']}/")
    sent = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ann.token}\r\nConnection: close\r\n\r\n"
    received = read_until_closed(ann.base, sent.encode())
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert received.partition(b"\r\n\r\n")[2] == b""


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "application/vnd.api+json", "*/*", "image/*;q=0", "garbage", "",
                                    "application/json;q=0", "x" * 2000])
def test_accept_header_is_ignored(ann, accept):
    response = ann.get(f"{MOVIES}?creator__username={ann.username}", headers={"Accept": accept})
    assert outcome(response) == (200, {"count": 0, "next": None, "previous": None, "results": []})


@pytest.mark.parametrize(
    "host", ["a b", "evil.example/path", "evil.example?x", "evil.example#x", "user@host", "host:port", "host:80:80", "host:", "host:-1",
             "[::1", "::1", "[::1]x",
             "[::g]", "[host]", "ex<ample>", "a,b", "a;b", 'a"b', "a'b", "host\\name", "ex%61mple", "a&b", "(a)", "a=b", "{a}", "http://host"]
)
@pytest.mark.parametrize("path", [f"{MOVIES}?page_size=1", REGISTER, "/api/v1/nothing/"])
def test_invalid_host_header_returns_400_and_is_not_echoed(ann, host, path):
    response = ann.get(path, headers={"Host": host})
    assert (response.status_code, list(response.json())) == (400, ["detail"])
    assert host not in response.text


@pytest.mark.parametrize("path", ["/api/v1/mov%69es/", "/%61pi/v1/movies/", "/api/v1/%6Dovie%73/?"])
def test_percent_encoded_letters_in_path_are_decoded(ann, path):
    assert ann.send_raw("GET", path).status_code == 200


def test_percent_encoded_digits_of_an_id_are_decoded(ann):
    movie = ann.add_movie()
    encoded = "".join(f"%{ord(digit):02X}" for digit in str(movie["id"]))
    assert outcome(ann.send_raw("GET", f"{MOVIES}{encoded}/")) == (200, movie)


def test_request_target_of_7_900_bytes_and_60_headers_are_accepted(ann):
    assert ann.get(f"{MOVIES}?title={'x' * 7850}").status_code == 200
    assert ann.get(MOVIES, headers={f"X-Field-{number}": "y" * 40 for number in range(55)}).status_code == 200


def test_connection_is_reused_after_ignored_bodies(ann):
    address = urllib.parse.urlsplit(ann.base)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    connection.connect()
    first_socket, statuses = connection.sock, []
    unread = b"GET /api/v1/nothing/ HTTP/1.1\r\nHost: x\r\n\r\n" * 20
    for method, path, body in [("DELETE", f"{MOVIES}999999999/", unread), ("GET", MOVIES, None), ("POST", "/api/v1/nothing/", unread),
                               ("GET", MOVIES, None)]:
        connection.request(method, path, body, {"Authorization": f"Bearer {ann.token}"})
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    assert (statuses, connection.sock is first_socket) == ([404, 200, 404, 200], True)
    connection.close()
