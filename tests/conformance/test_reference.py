"""The stack that the service replaces, beside it: the same random requests, and to each the same answer.

Left out is where CONTRACT.md has the service answer better: numbers past a float, fractions of a year, lone surrogates,
odd hosts, Accept, methods in small letters.
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
    """The service or the stack: its own ids of the same users and movies."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.users, self.movies = [], []

    def ask(self, method, path, headers, body):
        """Status, headers and body, movies by their place among all."""
        self.connection.putrequest(method, path.format(*self.movies), skip_host=True, skip_accept_encoding=True)
        for name, value in [("Host", "example.com"), *headers, *([] if body is None else [("Content-Length", len(body))])]:
            self.connection.putheader(name, value)
        self.connection.endheaders(body)
        response = self.connection.getresponse()
        text = response.read().decode()
        kept = [response.headers.get("WWW-Authenticate"), (response.headers.get("Content-Type") or "").partition(";")[0]]
        if response.status == 405:
            kept.append(sorted(response.headers["Allow"].split(", ")))
        if path == REGISTER:
            text = re.sub(r'"id":\d+', '"id":0', text)
        elif path.startswith(MOVIES):
            places = {str(id): place for place, id in enumerate(self.movies)}
            text = re.sub(r'"id":(\d+)', lambda found: f'"id":#{places.get(found[1], "new")}', text)
        # What is free to differ: where JSON breaks, and a token's own bytes.
        text = re.sub(r'JSON parse error - .*"', "JSON parse error", text)
        return response.status, kept, re.sub(r'"ey[\w.-]+"', "a token", text)

    def token(self, user, kind="access", header=None, changes=()):
        now = int(time.time())
        claims = {"token_type": kind, "exp": now + 600, "iat": now, "jti": "x" * 32, "user_id": str(self.users[user])}
        for name, value in changes:
            claims[name] = value.format(self.users[user]) if isinstance(value, str) else value
        claims = {name: value for name, value in claims.items() if value is not MISSING}
        return jwt.api_jws.encode(json.dumps(claims).encode(), SECRET_KEY, algorithm="HS256", headers=header)


class Maker:
    """Makes requests: a method, a path in which {n} is the n-th movie's id, headers and a body for a side."""

    def __init__(self, seed, sides):
        self.random = random.Random(seed)
        self.sides = sides
        self.mark = unique_word()

    def text(self):
        return "".join(self.random.choices(TEXTS, k=self.random.choice([1, 1, 1, 2])))

    def value(self, good):
        chance = self.random.random()
        if chance < 0.5:
            return json.dumps(good)
        return self.random.choice(LITERALS) if chance < 0.7 else json.dumps(self.text(), ensure_ascii=self.random.random() < 0.5)

    def as_json(self, fields):
        members = [f'"{name}":{self.value(good)}' for name, good in fields.items() if self.random.random() < 0.9]
        members += [f'"{name}":{self.value(1)}' for name in self.random.choices(["id", "creator", "x", *fields], k=self.random.choice([0, 0, 1]))]
        text = self.random.choice(["{%s}", " {%s}\n"]) % self.random.choice([",", " ,\n"]).join(members)
        broken = [text[: len(text) // 2], text + "x", "\ufeff" + text, "\x0b" + text, "[]", "null", '"x"', "1.0", " ", ""]
        return (self.random.choice(broken) if self.random.random() < 0.1 else text).encode()

    def as_form(self, fields):
        pairs = []
        for name, good in fields.items():
            text = str(good) if self.random.random() < 0.5 else self.text()
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

    def signed(self, user):
        return {side: [("Authorization", f"Bearer {side.token(user)}")] for side in self.sides}

    def same(self, headers):
        return {side: headers for side in self.sides}

    def register(self):
        name = f"{self.mark}{self.random.getrandbits(40):x}"
        fields = {"username": name, "password": PASSWORD, "password2": PASSWORD, "email": f"{name}@example.com", "first_name": "A", "last_name": "B"}
        headers, body = self.body(fields)
        return "POST", REGISTER, self.same(headers), self.same(body)

    def sign_in(self):
        # Names of their own: wrong passwords of one user are slowed down.
        headers, body = self.body({"username": f"{self.mark}{self.random.getrandbits(40):x}", "password": PASSWORD})
        return "POST", TOKEN, self.same(headers), self.same(body)

    def odd_tokens(self, kind):
        changes = [(name, self.random.choice(CLAIMS[name])) for name in self.random.choices(list(CLAIMS), k=self.random.choice([0, 1, 1, 2]))]
        header = self.random.choice(HEADERS)
        ruin = self.random.choice([lambda token: token] * 8 + [lambda token: token[:-1], lambda token: token + ".", lambda _: "x", lambda _: ""])
        return {side: ruin(side.token(0, kind, header, changes)) for side in self.sides}

    def refresh(self):
        space = self.random.choice(["", "", " "])
        bodies = {side: json.dumps({"refresh": space + token}).encode() for side, token in self.odd_tokens("refresh").items()}
        return "POST", REFRESH, self.same([("Content-Type", "application/json")]), bodies

    def authorize(self):
        scheme, end = self.random.choice(["Bearer "] * 8 + ["bearer ", "Bearer  ", "Bearer", "Token ", ""]), self.random.choice([""] * 8 + [" ", " x"])
        headers = {side: [("Authorization", scheme + token + end)] for side, token in self.odd_tokens("access").items()}
        if self.random.random() < 0.1:
            other, place = ("Authorization", self.random.choice(["", "x", "Basic dTpw", "Bearer", "Bearer x", "Bearer x y"])), self.random.choice([0, 1])
            [lines.insert(place, other) for lines in headers.values()]
        return self.random.choice(["GET", "GET", "PATCH"]), f"{MOVIES}?title=nothing", headers, self.same(None)

    def write(self):
        headers, body = self.body({"title": "Heat", "genre": "Drama", "year": 1995})
        one = f"{MOVIES}{{{self.random.randrange(len(self.sides[0].movies))}}}/"
        method, path = self.random.choice([("POST", MOVIES), ("PUT", one), ("PATCH", one), ("PATCH", one)])
        if self.random.random() < 0.03:
            method, path = "DELETE", one
        signed = self.signed(self.random.choice([0, 0, 0, 1]))
        return method, path, {side: signed[side] + headers for side in self.sides}, self.same(body)

    def list(self):
        pairs = []
        for name in self.random.choices(["page", "page_size", "title", "genre", "creator__username", "year", "year__gt", "year__lt", "x", "é"], k=3):
            values = PAGES if name.startswith("page") else YEARS if name.startswith("year") else [*TEXTS, "hea", "DRAMA", self.mark]
            pairs.append(f"{quote(name)}={quote_plus(self.random.choice(values))}{self.random.choice([''] * 12 + ['%', '%ff', ';', '+'])}")
        query = "&".join(pairs[: self.random.randrange(4)]).replace("{", "%7B").replace("}", "%7D")
        return self.random.choice(["GET"] * 9 + ["HEAD"]), f"{MOVIES}?{query}", self.signed(self.random.choice([0, 0, 1])), self.same(None)

    def other(self):
        path = self.random.choice([MOVIES, TOKEN, REGISTER, REFRESH, f"{MOVIES}{{0}}/", f"{MOVIES}00{{0}}/", f"{MOVIES}0/", f"{MOVIES}{'9' * 40}/"])
        method = self.random.choice(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE", "BREW"])
        if method == "DELETE" and "{" in path:
            method = "GET"
        return method, path, self.random.choice([self.same([]), self.signed(0), self.signed(1)]), self.same(None)

    def make(self):
        return self.random.choice([self.register, self.sign_in, self.refresh, self.authorize, self.write, self.write, self.list, self.list, self.other])()


@pytest.fixture(scope="module", params=["own", "shared"])
def sides(request, make_server):
    """The service and the stack, each with two users and a dozen movies of the first."""
    import psycopg

    server, database = make_server(MOVIES_VISIBILITY=request.param), Database()
    parameters = json.dumps(psycopg.conninfo.conninfo_to_dict(database.url))
    environment = {**os.environ, "DATABASE": parameters, "SECRET_KEY": SECRET_KEY, "MOVIES_VISIBILITY": request.param}
    script = Path(__file__).with_name("reference.py")
    process = subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        both = [Side(int(server.base.rpartition(":")[2])), Side(int(process.stdout.readline()))]
        mark = unique_word()
        for side in both:
            for name in (f"{mark}a", f"{mark}b"):
                account = {"username": name, "password": PASSWORD, "password2": PASSWORD, "email": f"{name}@example.com"}
                side.users.append(add(side, REGISTER, [], account))
            for number, title in enumerate(["Heat", "Éa", "heat 2", "100%", "a_b", "back\\", "Straße", "ЖИЗНЬ", "ıi", "İ", "ſs", "\u212a"]):
                headers = [("Authorization", f"Bearer {side.token(0)}")]
                side.movies.append(add(side, MOVIES, headers, {"title": title, "genre": "Drama", "year": 1990 + number}))
        yield both
        for side in both:
            side.connection.close()
    finally:
        process.terminate()
        process.wait()
        database.drop()


def add(side, path, headers, fields):
    """The id of what was made."""
    side.connection.request("POST", path, json.dumps(fields), {"Content-Type": "application/json", **dict(headers)})
    response = side.connection.getresponse()
    made = json.loads(response.read())
    assert response.status == 201, made
    return made["id"]


def test_the_service_answers_as_the_stack_that_it_replaces(sides):
    print(f"seed {SEED}: MOVIES_API_SEED sets another")
    maker, differences = Maker(SEED, sides), []
    for _ in range(REQUESTS):
        method, path, headers, body = maker.make()
        ours, theirs = [side.ask(method, path, headers[side], body[side]) for side in sides]
        # Where the stack itself fails, the service has to refuse.
        if ours != theirs and not (theirs[0] == 500 and ours[0] in (400, 401)):
            differences.append(f"{method} {path} {headers[sides[0]]} {body[sides[0]]}\n  service {ours}\n  stack   {theirs}")
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize(
    "method, query, body",
    [
        *(("GET", f"?{name}={'0' * (digits - 1)}1", None) for name in ("page", "page_size") for digits in (4300, 4301, 4400)),
        *(("GET", "?" + "&".join([field] * count), None) for field in ("a=1", "a", "") for count in (1000, 1001)),
        *(("POST", "", b"title=Many&genre=g&year=1&" + b"&".join([b"a"] * (count - 3))) for count in (1000, 1001)),
    ],
)
def test_numbers_and_forms_are_read_up_to_the_stack_s_limits(sides, method, query, body):
    headers = [] if body is None else [("Content-Type", FORM[0])]
    ours, theirs = [side.ask(method, MOVIES + query, [*headers, ("Authorization", f"Bearer {side.token(0)}")], body) for side in sides]
    # What the stack refuses on its own it refuses in HTML.
    assert ours == theirs if theirs[0] != 400 else (ours[0], ours[2]) == (400, '{"detail":"There are more than 1000 fields."}')


def test_repeated_authorization_headers_are_answered_as_by_the_stack(sides):
    values = ["Bearer {}", "Bearer", "Bearer x", "Basic dTpw", "", "x"]
    for first in values:
        for second in values:
            responses = []
            for side in sides:
                headers = [("Authorization", value.format(side.token(0))) for value in (first, second)]
                responses.append([side.ask("GET", path, headers, None) for path in (MOVIES, REGISTER)])
            assert responses[0] == responses[1], (first, second)
