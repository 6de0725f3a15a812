"""X-Forwarded-Proto and X-Forwarded-Host: used if the peer's address is in TRUSTED_PROXIES, otherwise ignored."""
import pytest

from helpers.client import MOVIES, movie_fields, outcome, unique_word

EVIL = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}


class LinkReader:
    """A user with two movies, who reads the link from the page of the first to that of the second."""

    def __init__(self, server):
        self.user = server.client().new_user()
        self.mark = unique_word()
        for _ in range(2):
            self.user.add_movie(title=self.mark)
        self.link_path = f"{MOVIES}?page=2&page_size=1&title={self.mark}"

    def get(self, headers):
        return self.user.get(f"{MOVIES}?title={self.mark}&page_size=1", headers=headers)

    def origin(self, headers):
        """Returns scheme and host of the link."""
        response = self.get(headers)
        assert response.status_code == 200, response.text
        assert response.json()["next"].endswith(self.link_path)
        return response.json()["next"].removesuffix(self.link_path)


@pytest.fixture(scope="module")
def trusted_proxy(make_server):
    """A reader whose server trusts this machine as a proxy."""
    return LinkReader(make_server(TRUSTED_PROXIES="10.0.0.0/8,127.0.0.0/8"))


@pytest.fixture(scope="module")
def untrusted_proxy(make_server):
    """A reader whose server trusts only other networks."""
    return LinkReader(make_server(TRUSTED_PROXIES="10.0.0.0/8,192.0.2.1/32,::1/128"))


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
def test_trusted_proxy_sets_scheme_and_host(trusted_proxy, headers, origin):
    assert trusted_proxy.origin(headers) == origin


@pytest.mark.parametrize("proto", ["javascript", "https:", "HTTPS evil", "ftp", "//evil", "https://evil.example", ""])
def test_forwarded_scheme_other_than_http_or_https_is_ignored(trusted_proxy, proto):
    response = trusted_proxy.get({"X-Forwarded-Proto": proto, "Host": "api.example"})
    assert (response.status_code, response.json()["next"]) == (200, f"http://api.example{trusted_proxy.link_path}")


@pytest.mark.parametrize("host", ["evil.example/path", "a b", "user@evil.example", "evil.example:port", "<evil>", "evil.example?x", 'ev"il',
                                  "[::1", "evil\\example"])
def test_invalid_forwarded_host_returns_400_and_is_not_echoed(trusted_proxy, host):
    response = trusted_proxy.get({"X-Forwarded-Host": host})
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
def test_last_of_several_forwarded_values_is_used(trusted_proxy, headers):
    assert trusted_proxy.origin(headers) == "https://movies.example"


def test_forwarded_headers_of_untrusted_peer_are_ignored(untrusted_proxy):
    assert untrusted_proxy.origin(EVIL) == untrusted_proxy.user.base
    assert untrusted_proxy.origin({**EVIL, "X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1",
                                   "X-Real-IP": "10.0.0.1"}) == untrusted_proxy.user.base
    assert untrusted_proxy.origin({**EVIL, "X-Forwarded-Host": "not a host", "Host": "api.example"}) == "http://api.example"


def test_forwarded_headers_are_ignored_by_default(ann):
    mark = unique_word()
    [ann.add_to(MOVIES, movie_fields(title=mark)) for _ in range(2)]
    response = ann.get(f"{MOVIES}?title={mark}&page_size=1", headers=EVIL)
    assert response.json()["next"] == f"{ann.base}{MOVIES}?page=2&page_size=1&title={mark}"


def test_forwarded_headers_do_not_change_redirects_and_errors(trusted_proxy):
    response = trusted_proxy.user.post(MOVIES[:-1], movie_fields(), headers=EVIL)
    assert (response.status_code, response.headers["Location"]) == (308, MOVIES)
    assert outcome(trusted_proxy.user.get("/nothing", headers=EVIL)) == (404, {"detail": "Not found."})
