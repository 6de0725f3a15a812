"""The service compared with the reference service, the Django stack that it replaces (reference.py): the same random requests have to get
the same responses.

Not compared is where CONTRACT.md documents a better response of the service: numbers beyond a float, fractional years, unpaired
surrogates, unusual hosts, Accept, methods in lower case.
"""
import http.client
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, quote_plus

import jwt
import pytest

from helpers.client import MOVIES, PASSWORD, REFRESH, REGISTER, TOKEN, unique_word
from helpers.database import Database
from helpers.settings import SECRET_KEY

pytestmark = pytest.mark.own_servers

SEED = int(os.environ.get("MOVIES_API_SEED", "20261126"))
REQUESTS = 1500
MISSING = object()

TEXTS = [
    "", "a", "Heat", " a ", "\t x\n", "a" * 100, "a" * 101, "é" * 101, "🎬" * 100, "🎬" * 101, "x" * 150, "x" * 151, "\xa0x\xa0", "\u2003", "\x1c",
    "\x1cx\x1f", "\x85y\x85", "\u200bz", "\ufeffq", "a\0b", "\0", "a\nb", "\ue000", "\uffff", "\u3000a", "ß", "İ", "ı", "ſ", "a%", "a_", "\\", "[]",
    "0", "-1", "+1", "1999", "1_9", "1__9", "_1", "1_", "01999", "1999.0", "1999.", ".0", "1e3", "0x10", "１２３", "٣", "²", "½", "1.0 ", "\xa01",
    "\x1c1", "2147483647", "2147483648", "-2147483649", "9" * 1000, "9" * 1001, " 12 ", "12\0", "1 2", "--1", "+-1", "1.0.0", "1,0", "NaN", "inf",
    "true", "null", "user@x.yz", "a@b", "a@localhost", '"ab"@x.com', '"a b"@x.com', "a@[127.0.0.1]", "a@[::1]", "a..b@x.com", ".a@x.com", "a@-x.com",
    "a@x-.com", "a@x.c", "a@x.com.", "a@bücher.de", "é@x.com", "a@x_y.com", "a'b@x.com", f"a@{'x' * 63}.com", f"a@{'x' * 64}.com", "a@x.123",
    f"{'a' * 242}@example.com", f"{'a' * 243}@example.com", "a@x.com\n", "a b", "name!", "a+b", "a\u0301", "Ⅷ", "𝒜", "password", "PASSWORD",
    "12345678", "١٢٣٤٥٦٧٨", "1234567", PASSWORD,
]
LITERALS = [
    "null", "true", "false", "0", "-0", "-0.0", "1", "1.5", "1e3", "1e-7", "0.0001", "1e15", "1e16", "123456789012345678901234567890", "2147483648",
    "-2147483649", "2010.0", "1.5e1", "1.10", "5e-324", "1e22", "4.35", "0.30000000000000004", "[]", "{}", "[1]", '{"a":1}', '""', '"\\ud83d\\ude00"',
    '"\\u0000"', '"\\/"', "NaN", "Infinity", "01", "+1", ".5", "1.", "tru", '"\t"', '"\\x"', "[1,]",
]
JSON = ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/json ; q=1"]
FORM = ["application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded; a=b"]
OTHERS = ["text/plain", "", "application", "application/jsonx", "application/json, text/plain", "multipart/mixed", "/", "a/b;", ";"]
PAGES = ["", "1", "2", "0", "-1", "+1", "01", "1.0", "last", "LAST", " 1 ", "１", "99", "9" * 30, "1_0", "1e1", "1,5", "\0" "1", "last ", "\x1c1", "5",
         "100", "101", "\x85" "3"]
YEARS = ["", " ", "1999", " 1999 ", "1999.0", "1e3", "1E+3", "+1999", "-0", "--1", "abc", "NaN", "Infinity", "sNaN", "1_999", "0x7", "١٩٩٩", "\0", "1,999",
         "1 999", ".", "1e", "e1", "1e 3", "1e+3 ", "1999\n", "2147483648", "-2147483649", "0e5", "_1"]
CLAIMS = {
    "token_type": [MISSING, None, "", 1, ["access"], "ACCESS", "access", "refresh"],
    "exp": [MISSING, None, -1, 0, 1.5, "soon", [], 10**11],
    "iat": [MISSING, None, 1, 1.5, 10**11, "x", []],
    "nbf": [None, 1, 10**11, "x", []],
    "jti": [MISSING, None, "", 1, "x"],
    "user_id": [MISSING, None, 0, False, "0", "999999999", " {} ", "+{}", "0{}"],
    "sub": ["x", 1, None],
    "aud": ["x", ["x"]],
}
HEADERS = [{}] * 8 + [{"kid": "x"}, {"typ": "at+jwt"}, {"x": [1]}, {"crit": ["x"]}]


class Side:
    """The service or the reference service: a connection to it, and its ids of the users and movies that both have."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.users, self.movies = [], []

    def send(self, method, path, headers, body):
        """Sends a request; returns status, compared headers and body, in which a movie's id is replaced by its index in `movies`."""
        self.connection.putrequest(method, path.format(*self.movies), skip_host=True, skip_accept_encoding=True)
        for name, value in [("Host", "example.com"), *headers, *([] if body is None else [("Content-Length", len(body))])]:
            self.connection.putheader(name, value)
        self.connection.endheaders(body)
        response = self.connection.getresponse()
        text = response.read().decode()
        compared_headers = [response.headers.get("WWW-Authenticate"), (response.headers.get("Content-Type") or "").partition(";")[0]]
        if response.status == 405:
            compared_headers.append(sorted(response.headers["Allow"].split(", ")))
        if path == REGISTER:
            text = re.sub(r'"id":\d+', '"id":0', text)
        elif path.startswith(MOVIES):
            positions = {str(id): position for position, id in enumerate(self.movies)}
            text = re.sub(r'"id":(\d+)', lambda found: f'"id":#{positions.get(found[1], "new")}', text)
        # These may differ: the position of a JSON error, and the bytes of a token.
        text = re.sub(r'JSON parse error - .*"', "JSON parse error", text)
        return response.status, compared_headers, re.sub(r'"ey[\w.-]+"', "a token", text)

    def token(self, user, kind="access", header=None, changes=()):
        now = int(time.time())
        claims = {"token_type": kind, "exp": now + 600, "iat": now, "jti": "x" * 32, "user_id": str(self.users[user])}
        for name, value in changes:
            claims[name] = value.format(self.users[user]) if isinstance(value, str) else value
        claims = {name: value for name, value in claims.items() if value is not MISSING}
        return jwt.api_jws.encode(json.dumps(claims).encode(), SECRET_KEY, algorithm="HS256", headers=header)


class RequestGenerator:
    """Generates requests: method, path (in which {n} stands for the id of movie n), and headers and body for each side."""

    def __init__(self, seed, sides):
        self.random = random.Random(seed)
        self.sides = sides
        self.mark = unique_word()

    def text(self):
        return "".join(self.random.choices(TEXTS, k=self.random.choice([1, 1, 1, 2])))

    def value(self, valid):
        chance = self.random.random()
        if chance < 0.5:
            return json.dumps(valid)
        return self.random.choice(LITERALS) if chance < 0.7 else json.dumps(self.text(), ensure_ascii=self.random.random() < 0.5)

    def as_json(self, fields):
        members = [f'"{name}":{self.value(valid)}' for name, valid in fields.items() if self.random.random() < 0.9]
        members += [f'"{name}":{self.value(1)}' for name in self.random.choices(["id", "creator", "x", *fields], k=self.random.choice([0, 0, 1]))]
        text = self.random.choice(["{%s}", " {%s}\n"]) % self.random.choice([",", " ,\n"]).join(members)
        broken = [text[: len(text) // 2], text + "x", "\ufeff" + text, "\x0b" + text, "[]", "null", '"x"', "1.0", " ", ""]
        return (self.random.choice(broken) if self.random.random() < 0.1 else text).encode()

    def as_form(self, fields):
        pairs = []
        for name, valid in fields.items():
            text = str(valid) if self.random.random() < 0.5 else self.text()
            pairs.append(f"{name}={self.random.choice([quote, quote_plus])(text)}{self.random.choice([''] * 9 + ['%', '%zz', '%ff', '+'])}")
        pairs = [pair for pair in pairs if self.random.random() < 0.9]
        pairs += self.random.choices(["", "=", "x", "title", "%74itle=q", "title%20=q", "year=1;genre=2"], k=self.random.choice([0, 0, 1]))
        return "&".join(pairs).encode()

    def body(self, fields):
        chance = self.random.random()
        if chance < 0.6:
            return [("Content-Type", self.random.choice(JSON))], self.as_json(fields)
        if chance < 0.9:
            return [("Content-Type", self.random.choice(FORM))], self.as_form(fields)
        if chance < 0.96:
            return [("Content-Type", self.random.choice(OTHERS))], self.random.choice([b"x", b"{}", b""])
        return [], self.random.choice([None, b"x", b""])

    def headers_by_side(self, user):
        return {side: [("Authorization", f"Bearer {side.token(user)}")] for side in self.sides}

    def same_for_both(self, headers):
        return {side: headers for side in self.sides}

    def register(self):
        name = f"{self.mark}{self.random.getrandbits(40):x}"
        fields = {"username": name, "password": PASSWORD, "password2": PASSWORD, "email": f"{name}@example.com", "first_name": "A", "last_name": "B"}
        headers, body = self.body(fields)
        return "POST", REGISTER, self.same_for_both(headers), self.same_for_both(body)

    def sign_in(self):
        # A new username for each request, because failed sign-ins of one user are throttled.
        headers, body = self.body({"username": f"{self.mark}{self.random.getrandbits(40):x}", "password": PASSWORD})
        return "POST", TOKEN, self.same_for_both(headers), self.same_for_both(body)

    def unusual_tokens(self, kind):
        changes = [(name, self.random.choice(CLAIMS[name])) for name in self.random.choices(list(CLAIMS), k=self.random.choice([0, 1, 1, 2]))]
        header = self.random.choice(HEADERS)
        damage = self.random.choice([lambda token: token] * 8 + [lambda token: token[:-1], lambda token: token + ".", lambda _: "x", lambda _: ""])
        return {side: damage(side.token(0, kind, header, changes)) for side in self.sides}

    def refresh(self):
        space = self.random.choice(["", "", " "])
        bodies = {side: json.dumps({"refresh": space + token}).encode() for side, token in self.unusual_tokens("refresh").items()}
        return "POST", REFRESH, self.same_for_both([("Content-Type", "application/json")]), bodies

    def authorize(self):
        scheme, end = self.random.choice(["Bearer "] * 8 + ["bearer ", "Bearer  ", "Bearer", "Token ", ""]), self.random.choice([""] * 8 + [" ", " x"])
        headers = {side: [("Authorization", scheme + token + end)] for side, token in self.unusual_tokens("access").items()}
        if self.random.random() < 0.1:
            other, position = ("Authorization", self.random.choice(["", "x", "Basic dTpw", "Bearer", "Bearer x", "Bearer x y"])), self.random.choice([0, 1])
            [lines.insert(position, other) for lines in headers.values()]
        return self.random.choice(["GET", "GET", "PATCH"]), f"{MOVIES}?title=nothing", headers, self.same_for_both(None)

    def write(self):
        headers, body = self.body({"title": "Heat", "genre": "Drama", "year": 1995})
        movie_path = f"{MOVIES}{{{self.random.randrange(len(self.sides[0].movies))}}}/"
        method, path = self.random.choice([("POST", MOVIES), ("PUT", movie_path), ("PATCH", movie_path), ("PATCH", movie_path)])
        if self.random.random() < 0.03:
            method, path = "DELETE", movie_path
        headers_by_side = self.headers_by_side(self.random.choice([0, 0, 0, 1]))
        return method, path, {side: headers_by_side[side] + headers for side in self.sides}, self.same_for_both(body)

    def list(self):
        pairs = []
        for name in self.random.choices(["page", "page_size", "title", "genre", "creator__username", "year", "year__gt", "year__lt", "x", "é"], k=3):
            values = PAGES if name.startswith("page") else YEARS if name.startswith("year") else [*TEXTS, "hea", "DRAMA", self.mark]
            pairs.append(f"{quote(name)}={quote_plus(self.random.choice(values))}{self.random.choice([''] * 12 + ['%', '%ff', ';', '+'])}")
        query = "&".join(pairs[: self.random.randrange(4)]).replace("{", "%7B").replace("}", "%7D")
        return self.random.choice(["GET"] * 9 + ["HEAD"]), f"{MOVIES}?{query}", self.headers_by_side(self.random.choice([0, 0, 1])), self.same_for_both(None)

    def other(self):
        path = self.random.choice([MOVIES, TOKEN, REGISTER, REFRESH, f"{MOVIES}{{0}}/", f"{MOVIES}00{{0}}/", f"{MOVIES}0/", f"{MOVIES}{'9' * 40}/"])
        method = self.random.choice(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE", "BREW"])
        if method == "DELETE" and "{" in path:
            method = "GET"
        return method, path, self.random.choice([self.same_for_both([]), self.headers_by_side(0), self.headers_by_side(1)]), self.same_for_both(None)

    def next_request(self):
        return self.random.choice([self.register, self.sign_in, self.refresh, self.authorize, self.write, self.write, self.list, self.list, self.other])()


@pytest.fixture(scope="module", params=["own", "shared"])
def sides(request, make_server):
    """The service and the reference service, each with two users and twelve movies of the first."""
    import psycopg

    server, database = make_server(MOVIES_VISIBILITY=request.param), Database()
    parameters = json.dumps(psycopg.conninfo.conninfo_to_dict(database.url))
    environment = {**os.environ, "DATABASE": parameters, "SECRET_KEY": SECRET_KEY, "MOVIES_VISIBILITY": request.param}
    script = Path(__file__).with_name("reference.py")
    process = subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        two_sides = [Side(int(server.base.rpartition(":")[2])), Side(int(process.stdout.readline()))]
        mark = unique_word()
        for side in two_sides:
            for name in (f"{mark}a", f"{mark}b"):
                account = {"username": name, "password": PASSWORD, "password2": PASSWORD, "email": f"{name}@example.com"}
                side.users.append(add(side, REGISTER, [], account))
            for number, title in enumerate(["Heat", "Éa", "heat 2", "100%", "a_b", "back\\", "Straße", "ЖИЗНЬ", "ıi", "İ", "ſs", "\u212a"]):
                headers = [("Authorization", f"Bearer {side.token(0)}")]
                side.movies.append(add(side, MOVIES, headers, {"title": title, "genre": "Drama", "year": 1990 + number}))
        yield two_sides
        for side in two_sides:
            side.connection.close()
    finally:
        process.terminate()
        process.wait()
        database.drop()


def add(side, path, headers, fields):
    """Sends a POST request that has to succeed; returns the new id."""
    side.connection.request("POST", path, json.dumps(fields), {"Content-Type": "application/json", **dict(headers)})
    response = side.connection.getresponse()
    created = json.loads(response.read())
    assert response.status == 201, created
    return created["id"]


def test_service_and_reference_give_the_same_responses_to_random_requests(sides):
    print(f"seed {SEED}: MOVIES_API_SEED sets another")
    generator, differences = RequestGenerator(SEED, sides), []
    for _ in range(REQUESTS):
        method, path, headers, body = generator.next_request()
        ours, theirs = [side.send(method, path, headers[side], body[side]) for side in sides]
        # Where the reference service fails with 500, the service has to return 400 or 401.
        if ours != theirs and not (theirs[0] == 500 and ours[0] in (400, 401)):
            differences.append(f"{method} {path} {headers[sides[0]]} {body[sides[0]]}\n  service   {ours}\n  reference {theirs}")
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize(
    "method, query, body",
    [
        *(("GET", f"?{name}={'0' * (digits - 1)}1", None) for name in ("page", "page_size") for digits in (4300, 4301, 4400)),
        *(("GET", "?" + "&".join([field] * count), None) for field in ("a=1", "a", "") for count in (1000, 1001)),
        *(("POST", "", b"title=Many&genre=g&year=1&" + b"&".join([b"a"] * (count - 3))) for count in (1000, 1001)),
    ],
)
def test_digit_and_form_field_limits_are_those_of_the_reference(sides, method, query, body):
    headers = [] if body is None else [("Content-Type", FORM[0])]
    ours, theirs = [side.send(method, MOVIES + query, [*headers, ("Authorization", f"Bearer {side.token(0)}")], body) for side in sides]
    # Django's own 400 responses are HTML.
    assert ours == theirs if theirs[0] != 400 else (ours[0], ours[2]) == (400, '{"detail":"There are more than 1000 fields."}')


def test_repeated_authorization_headers_give_the_responses_of_the_reference(sides):
    values = ["Bearer {}", "Bearer", "Bearer x", "Basic dTpw", "", "x"]
    for first in values:
        for second in values:
            responses = []
            for side in sides:
                headers = [("Authorization", value.format(side.token(0))) for value in (first, second)]
                responses.append([side.send("GET", path, headers, None) for path in (MOVIES, REGISTER)])
            assert responses[0] == responses[1], (first, second)
