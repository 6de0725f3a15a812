"""X-Forwarded-Proto and X-Forwarded-Host: believed from a peer inside TRUSTED_PROXIES, and from nobody else."""
import pytest

from helpers.client import MOVIES, movie_fields, outcome, unique_word

EVIL = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}


class Reader:
    """A user with two movies, who reads the link from the first to the second."""

    def __init__(self, server):
        self.user = server.client().new_user()
        self.mark = unique_word()
        for _ in range(2):
            self.user.add_movie(title=self.mark)
        self.tail = f"{MOVIES}?page=2&page_size=1&title={self.mark}"

    def get(self, headers):
        return self.user.get(f"{MOVIES}?title={self.mark}&page_size=1", headers=headers)

    def origin(self, headers):
        """What stands before the path in the link."""
        response = self.get(headers)
        assert response.status_code == 200, response.text
        assert response.json()["next"].endswith(self.tail)
        return response.json()["next"].removesuffix(self.tail)


@pytest.fixture(scope="module")
def behind_proxy(make_server):
    """A reader of a server that trusts this machine as a proxy."""
    return Reader(make_server(TRUSTED_PROXIES="10.0.0.0/8,127.0.0.0/8"))


@pytest.fixture(scope="module")
def behind_stranger(make_server):
    """A reader of a server that trusts other networks."""
    return Reader(make_server(TRUSTED_PROXIES="10.0.0.0/8,192.0.2.1/32,::1/128"))


@pytest.mark.parametrize(
    "headers, origin",
    [
        ({"X-Forwarded-Host": "movies.example", "X-Forwarded-Proto": "https"}, "https://movies.example"),
        ({"X-Forwarded-Host": "movies.example:8443"}, "http://movies.example:8443"),
        ({"X-Forwarded-Host": "[2001:db8::1]:443", "X-Forwarded-Proto": "https"}, "https://[2001:db8::1]:443"),
        ({"X-Forwarded-Proto": "https", "Host": "api.example"}, "https://api.example"),
        ({"X-Forwarded-Proto": "http", "Host": "api.example"}, "http://api.example"),
        ({"X-Forwarded-Host": "movies.example", "Host": "inner.example:8000"}, "http://movies.example"),
        ({"Forwarded": "host=evil.example;proto=https", "Host": "api.example"}, "http://api.example"),
        ({"X-Forwarded-Port": "444", "X-Forwarded-For": "192.0.2.9", "Host": "api.example"}, "http://api.example"),
    ],
)
def test_a_trusted_proxy_tells_scheme_and_host(behind_proxy, headers, origin):
    assert behind_proxy.origin(headers) == origin


@pytest.mark.parametrize("proto", ["javascript", "https:", "HTTPS evil", "ftp", "//evil", "https://evil.example", ""])
def test_a_forwarded_scheme_is_http_or_https_and_nothing_else(behind_proxy, proto):
    response = behind_proxy.get({"X-Forwarded-Proto": proto, "Host": "api.example"})
    assert (response.status_code, response.json()["next"]) == (200, f"http://api.example{behind_proxy.tail}")


@pytest.mark.parametrize("host", ["evil.example/path", "a b", "user@evil.example", "evil.example:port", "<evil>", "evil.example?x", 'ev"il',
                                  "[::1", "evil\\example"])
def test_a_forwarded_host_that_is_no_host_is_never_echoed(behind_proxy, host):
    response = behind_proxy.get({"X-Forwarded-Host": host})
    assert response.status_code == 400
    assert (host in response.text, list(response.json())) == (False, ["detail"])


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Host": "evil.example, movies.example", "X-Forwarded-Proto": "http, https"},
        {"X-Forwarded-Host": "evil.example,movies.example", "X-Forwarded-Proto": "http,https"},
        {"X-Forwarded-Host": "<evil>,\tmovies.example ", "X-Forwarded-Proto": "javascript ,https"},
    ],
)
def test_of_several_forwarded_values_the_trusted_proxy_s_own_counts_which_is_the_last(behind_proxy, headers):
    assert behind_proxy.origin(headers) == "https://movies.example"


def test_a_peer_outside_the_trusted_networks_is_not_believed(behind_stranger):
    assert behind_stranger.origin(EVIL) == behind_stranger.user.base
    assert behind_stranger.origin({**EVIL, "X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1",
                                   "X-Real-IP": "10.0.0.1"}) == behind_stranger.user.base
    assert behind_stranger.origin({**EVIL, "X-Forwarded-Host": "not a host", "Host": "api.example"}) == "http://api.example"


def test_by_default_no_proxy_is_believed(ann):
    mark = unique_word()
    [ann.add_to(MOVIES, movie_fields(title=mark)) for _ in range(2)]
    response = ann.get(f"{MOVIES}?title={mark}&page_size=1", headers=EVIL)
    assert response.json()["next"] == f"{ann.base}{MOVIES}?page=2&page_size=1&title={mark}"


def test_a_proxy_s_headers_change_no_redirect_and_no_refusal(behind_proxy):
    response = behind_proxy.user.post(MOVIES[:-1], movie_fields(), headers=EVIL)
    assert (response.status_code, response.headers["Location"]) == (308, MOVIES)
    assert outcome(behind_proxy.user.get("/nothing", headers=EVIL)) == (404, {"detail": "Not found."})
