"""Two thousand random and mutated requests, the same for the same seed: no 5xx, only JSON, each within 5 s."""
import json
import os
import random
import time

from helpers.client import MOVIES, PASSWORD, REFRESH, REFRESH_ALIAS, REGISTER, TOKEN, account_fields, movie_fields, outcome

SEED = int(os.environ.get("MOVIES_API_SEED", "20260917"))
REQUESTS = 2000
DEADLINE = 5

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "get", "Post", "M-SEARCH", "X" * 300,
           "!#$%&'*+-.^_`|~"]
TYPES = ["application/json", "application/x-www-form-urlencoded", "text/html", "multipart/form-data; boundary=x",
         "application/json; charset=utf-16", "", "/", "x" * 4000, '"', "a/b;c=\"\\\""]
NUMBERS = ["0", "-0", "1e400", "-1e400", "1e-400", "1e308", "18446744073709551616", "-9223372036854775809", "9" * 5000, "0." + "9" * 5000,
           "1e99999999999999999999",
           "NaN", "Infinity", "-Infinity", "01", "1.", ".5", "0x10", "1_000", "2147483648", "-2147483649", "1.5",
           "99999999999999999999999999999999.9"]
TEXTS = ["", " ", "\0", "a\0b", "\ud800", "\udfff\ud800", "\ufffe", "\U0010ffff", "é" * 5000, "🎬" * 101, "x" * 70_000,
         "'; drop table users; --", "%s%n{0}${jndi:x}",
         "\u202e", "\x1b[31m", "\r\nX: y", "../../etc/passwd", "<script>", "null", "İ", "ß" * 100, "\u0130" * 60,
         "a" * 255 + "@example.com", "\\", "%", "_", "%00", "\u1e9e"]
VALUES = [None, True, False, [], {}, [[]], [1, "a", None], {"a": {"b": []}}, 0, -1, 1.5, 10**30, *TEXTS]
PIECES = [b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xf4\x90\x80\x80", b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u",
          b"\\ud83c", b",", b":", b"&", b"=", b"%", b"%zz", b"+", b"\r\n", b"//", b"NaN", b"1e999"]
DEEP = [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"title":' + b"[" * 100_000, b'[{"a":' * 50_000]
SEGMENTS = ["", ".", "..", "...", "%2e%2e", "%2f", "%00", "%ff", "%", "%zz", "movies", "auth", "token", "api", "1", "-1", "+1", "01",
            "9" * 30, "1e3", "\u0661", "é", "~", ";x=y", "a" * 3000, "*", "@", ":80", "%C0%AF", "\\", "|", "{}", '"', "'", "<>"]
NAMES = ["page", "page_size", "title", "genre", "creator__username", "year", "year__gt", "year__lt", "x", "", "title[]", "%ff", "page%00",
         "a" * 500]
QUERIES = ["", "0", "-1", "last", "abc", "%00", "%ff%fe", "%", "%zz", "+", "%2B1", "1.5", "1e400", "-1e400", "NaN", "Infinity", "1e-99999",
           "1e99999999", "9" * 300, "." * 50, "%25", "_", "%5C", "'", '"', "%F0%9F%8E%AC", "%ED%A0%80", "a" * 2000, "1_000", "%D9%A1",
           "%C4%B0", "=", "a=b", ";"]
HEADERS = ["Accept", "Accept-Encoding", "Accept-Charset", "Cookie", "Origin", "Referer", "User-Agent", "X-Forwarded-For",
           "X-Forwarded-Host", "X-Forwarded-Proto", "X-HTTP-Method-Override",
           "If-None-Match", "If-Modified-Since", "Range", "Host", "Content-Encoding", "Content-Language", "Authorization", "Authorization",
           "Content-Type", "Content-Type", "Date", "Via", "TE", "X-" + "y" * 200]
LINES = ["", "*", "gzip", "bytes=0-1", "a b", "a,b", "evil.example", "x" * 6000, '"', "\\", "Bearer", "Bearer ", "Bearer a", "Bearer a b",
         "Bearer a.b.c", "Bearer eyJhbGciOiJub25lIn0.e30.", "Basic Og==", "bearer x",
         "Bearer " + "a" * 6000, "Bearer ..", "application/json", "text/plain", "DELETE", "Wed, 21 Oct 2015 07:28:00 GMT", "0", "-1", "{}",
         "%00", "\t", ";", "=", "q=0", "user@host", "[::1", "1:2:3"]


class RequestGenerator:
    """Generates requests: a valid one for any route, then changed up to four times. The framing stays valid; the Rust tests cover it."""

    def __init__(self, seed, user, movie):
        self.random = random.Random(seed)
        self.user = user
        self.movie = movie

    def valid_request(self):
        """Returns method, path and fields of a request that succeeds."""
        movie = f"{MOVIES}{self.movie['id']}/"
        return self.random.choice(
            [
                ("POST", REGISTER, account_fields()),
                ("POST", TOKEN, {"username": self.user.username, "password": PASSWORD}),
                ("POST", REFRESH, {"refresh": self.user.refresh}),
                ("POST", REFRESH_ALIAS, {"refresh": self.user.refresh}),
                ("GET", MOVIES, None),
                ("GET", f"{MOVIES}?title=film&year__gt=1900&page=1&page_size=5", None),
                ("POST", MOVIES, movie_fields()),
                ("POST", MOVIES, movie_fields()),
                ("GET", movie, None),
                ("PUT", movie, movie_fields()),
                ("PATCH", movie, {"year": 2001}),
                ("PATCH", movie, movie_fields()),
                ("DELETE", f"{MOVIES}999999999/", None),
                ("GET", "/healthz", None),
                ("GET", "/readyz", None),
            ]
        )

    def next_request(self):
        """Returns method, path, headers and body of the next request."""
        method, path, fields = self.valid_request()
        headers = []
        if fields is not None and self.random.random() < 0.5:
            fields = self.change_fields(dict(fields))
        body = b"" if fields is None else self.write_body(fields)
        if fields is not None:
            headers.append(("Content-Type", TYPES[1] if self.random.random() < 0.03 else TYPES[0]))
        for _ in range(self.random.choice([0, 1, 1, 1, 2, 2, 3])):
            change = self.random.choice(["method", "path", "query", "query", "header", "header", "body", "body", "body"])
            if change == "method":
                method = self.random.choice(METHODS)
            elif change == "path":
                path = self.change_path(path)
            elif change == "query":
                pairs = (f"{self.random.choice(NAMES)}={self.random.choice(QUERIES)}" for _ in range(self.random.randint(1, 4)))
                path += ("&" if "?" in path else "?") + "&".join(pairs)
            elif change == "header":
                name = self.random.choice(HEADERS)
                value = self.random.choice(TYPES if name == "Content-Type" else LINES)
                headers = [header for header in headers if header[0] != name or self.random.random() < 0.2] + [(name, value)]
            else:
                body = self.change_body(body)
        if self.random.random() < 0.1:
            headers.append(("Authorization", self.random.choice(LINES)))
        return method, path.encode("ascii", "replace"), headers, body

    def write_body(self, fields):
        """Returns the body: JSON, sometimes with unescaped characters or unusual literals, or a form."""
        if self.random.random() < 0.1:
            pairs = (f"{name}={self.random.choice(QUERIES)}" for name in fields)
            return "&".join(pairs).encode()
        text = json.dumps(fields, ensure_ascii=self.random.random() < 0.6)
        if self.random.random() < 0.3:
            text = text.replace("1999", self.random.choice(NUMBERS)).replace("2001", self.random.choice(NUMBERS))
        return text.encode("utf-8", "surrogatepass")

    def change_fields(self, fields):
        name = self.random.choice([*fields, "unknown"])
        fields[name] = self.random.choice(VALUES)
        if self.random.random() < 0.2:
            fields.pop(self.random.choice(list(fields)))
        return fields

    def change_path(self, path):
        segments = path.split("/")
        segments[self.random.randrange(len(segments) - 1) + 1 if len(segments) > 1 else 0] = self.random.choice(SEGMENTS)
        return "/" + "/".join(segments).lstrip("/") if self.random.random() < 0.9 else path.rstrip("/")

    def change_body(self, body):
        kind = self.random.choice(["cut", "flip", "insert", "insert", "repeat", "bytes", "deep", "text"])
        at = self.random.randint(0, len(body))
        if kind == "cut":
            return body[:at]
        if kind == "flip" and body:
            changed = bytearray(body)
            changed[at - 1] ^= 1 << self.random.randrange(8)
            return bytes(changed)
        if kind == "repeat":
            return body[:at] + body[at:] * self.random.choice([2, 3, 50])
        if kind == "bytes":
            return self.random.randbytes(self.random.choice([1, 10, 1000, 100_000]))
        if kind == "deep" and self.random.random() < 0.3:
            return self.random.choice(DEEP)
        if kind == "text":
            return self.random.choice(TEXTS).encode("utf-8", "surrogatepass")
        return body[:at] + self.random.choice(PIECES) + body[at:]


def find_fault(user, request):
    """Sends the request; returns what is wrong with the response, or None."""
    method, path, headers, body = request
    started = time.monotonic()
    try:
        response = user.send_raw(method, path, headers, body, deadline=DEADLINE)
    except (OSError, EOFError) as error:
        return f"no response: {error!r}"
    if time.monotonic() - started > DEADLINE:
        return "too late"
    if response.status_code >= 500:
        return f"{response.status_code} {response.content[:200]}"
    try:
        _, response_body = outcome(response)
    except ValueError:
        return f"{response.status_code} with broken JSON {response.content[:200]}"
    if isinstance(response_body, bytes) and response_body:
        return f"{response.status_code} {response.headers.get('Content-Type')} {response_body[:200]}"
    return None


def test_random_requests_get_json_with_status_below_500_within_5_seconds(api, ann):
    print(f"seed {SEED}: MOVIES_API_SEED sets another")
    generator = RequestGenerator(SEED, ann, ann.add_movie())
    methods, faults = {}, []
    for number in range(REQUESTS):
        request = generator.next_request()
        fault = find_fault(ann, request)
        methods[request[0]] = methods.get(request[0], 0) + 1
        if fault:
            faults.append((number, fault, [str(part)[:300] for part in request]))
        if len(faults) > 10:
            break
    assert not faults, f"seed {SEED}: " + "\n".join(map(str, faults))
    assert sum(methods.values()) == REQUESTS and len(methods) >= 10
    bob = api.new_user()
    movie = bob.add_movie()
    assert outcome(bob.get(f"{MOVIES}{movie['id']}/")) == (200, movie)
    assert api.get("/readyz").status_code == 200
