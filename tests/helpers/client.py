"""The client's side: sample bodies, a Client that speaks the API, bytes on a raw socket."""
import http.client
import json
import socket
import time
import urllib.parse
import uuid

import requests

PASSWORD = "Str0ng-Passw0rd!x"
REGISTER = "/api/v1/auth/register/"
TOKEN = "/api/v1/auth/token/"
REFRESH = "/api/v1/auth/refresh/"
REFRESH_ALIAS = "/api/v1/auth/token/refresh/"
MOVIES = "/api/v1/movies/"
MISSING = object()  # in a table: the field is left out


def word():
    """A word that no other test uses."""
    return uuid.uuid4().hex[:12]


def account(**changes):
    """The body of a good registration, changed; MISSING leaves a field out."""
    name = f"user{word()}"
    fields = {
        "username": name,
        "password": PASSWORD,
        "password2": PASSWORD,
        "email": f"{name}@example.com",
        "first_name": "Ann",
        "last_name": "Lee",
        **changes,
    }
    return {field: value for field, value in fields.items() if value is not MISSING}


def film(**changes):
    """The body of a good movie, changed; MISSING leaves a field out."""
    fields = {"title": f"{word()} film", "genre": "Drama", "year": 1999, **changes}
    return {field: value for field, value in fields.items() if value is not MISSING}


def with_literal(fields, name, literal):
    """The JSON text of fields with one more, whose value is written as it stands."""
    others = {field: value for field, value in fields.items() if field != name}
    return f'{json.dumps(others)[:-1]}, "{name}": {literal}}}'


def outcome(response):
    """Status and parsed body, to be compared at once; a body that is not declared as JSON is its raw bytes."""
    declared = response.headers.get("Content-Type", "").split(";")[0]
    is_json = declared == "application/json" and response.content
    return response.status_code, response.json() if is_json else response.content


class Answer:
    """What came back over a raw socket, with the attributes of a requests.Response that the tests read."""

    def __init__(self, received):
        self.status_code = received.status
        self.headers = requests.structures.CaseInsensitiveDict(received.getheaders())
        self.content = received.read()

    @property
    def text(self):
        return self.content.decode()

    def json(self):
        return json.loads(self.content)


def exchange(base, sent, deadline=10):
    """Sends these bytes on a connection of their own and reads one answer, all within the deadline."""
    address = urllib.parse.urlsplit(base)
    with socket.create_connection((address.hostname, address.port or 80), timeout=deadline) as connection:
        connection.sendall(sent)
        received = http.client.HTTPResponse(connection, method=sent.split(b" ", 1)[0].decode("latin-1"))
        received.begin()
        return Answer(received)


def everything(base, sent, deadline=10):
    """Sends these bytes, which ask for the connection to be closed, and returns all bytes that come back."""
    address = urllib.parse.urlsplit(base)
    with socket.create_connection((address.hostname, address.port or 80), timeout=deadline) as connection:
        connection.sendall(sent)
        received = iter(lambda: connection.recv(65536), b"")
        return b"".join(received)


class Client:
    """Somebody at the API; nobody in particular until a token is there."""

    def __init__(self, base, token=None):
        self.base = base
        self.token = token
        self.others = []
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers.clear()

    def close(self):
        self.session.close()
        for other in self.others:
            other.close()

    def delete_movies(self):
        """Deletes all movies of the users that were made by this client."""
        for other in self.others:
            other.delete_movies()

    def send(self, method, path, *, json_body=MISSING, form=None, raw=None, headers=None):
        """One request; the path is sent as it stands, and no redirect is followed."""
        sent = dict(headers or {})
        body = raw.encode() if isinstance(raw, str) else raw
        if json_body is not MISSING:
            body = json.dumps(json_body).encode()
            sent.setdefault("Content-Type", "application/json")
        elif form is not None:
            body = form.encode()
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
        if self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        request = requests.Request(method, self.base, data=body, headers=sent)
        prepared = self.session.prepare_request(request)
        prepared.url = self.base + path
        return self.session.send(prepared, timeout=20, allow_redirects=False)

    def send_raw(self, method, path, headers=(), body=b"", deadline=10):
        """One request byte for byte; Host and, with a body, Content-Length are added unless given."""
        names = {name.lower() for name, _ in headers}
        host = urllib.parse.urlsplit(self.base).netloc.encode()
        lines = [b" ".join([as_bytes(method), as_bytes(path), b"HTTP/1.1"])]
        lines += [b"Host: " + host] if "host" not in names else []
        lines += [b"Authorization: Bearer " + self.token.encode()] if self.token and "authorization" not in names else []
        lines += [b"Content-Length: %d" % len(body)] if body and "content-length" not in names else []
        lines += [as_bytes(name) + b": " + as_bytes(value) for name, value in headers]
        return exchange(self.base, b"\r\n".join(lines) + b"\r\n\r\n" + body, deadline)

    def get(self, path, **request):
        return self.send("GET", path, **request)

    def post(self, path, json_body=MISSING, **request):
        return self.send("POST", path, json_body=json_body, **request)

    def put(self, path, json_body=MISSING, **request):
        return self.send("PUT", path, json_body=json_body, **request)

    def patch(self, path, json_body=MISSING, **request):
        return self.send("PATCH", path, json_body=json_body, **request)

    def delete(self, path, **request):
        return self.send("DELETE", path, **request)

    def post_json(self, path, text, **request):
        """A body of JSON's media type, whatever its text."""
        return self.send("POST", path, raw=text, headers={"Content-Type": "application/json"}, **request)

    def with_token(self, token):
        """Another client of the same service with this token."""
        other = Client(self.base, token)
        self.others.append(other)
        return other

    def add_to(self, path, fields):
        """What is answered to a post that has to succeed."""
        added = self.post(path, fields)
        assert added.status_code == 201, added.text
        return added.json()

    def new_user(self, **changes):
        """Somebody freshly registered and signed in."""
        fields = account(**changes)
        user = User(self.base, self.add_to(REGISTER, fields)["id"], fields)
        self.others.append(user)
        user.sign_in()
        return user


class User(Client):
    """A registered user with tokens."""

    def __init__(self, base, id, fields):
        super().__init__(base)
        self.id = id
        self.username = fields["username"]
        self.email = fields["email"]
        self.password = fields["password"]
        self.refresh = None

    def sign_in(self):
        signed_in = self.post(TOKEN, {"username": self.username, "password": self.password})
        assert signed_in.status_code == 200, signed_in.text
        self.token, self.refresh = signed_in.json()["access"], signed_in.json()["refresh"]

    def delete_movies(self):
        """Deletes all movies of this user and of the users that it made."""
        super().delete_movies()
        path = f"{MOVIES}?page_size=100&creator__username={urllib.parse.quote(self.username)}"
        while own := [movie for movie in self.get(path).json()["results"] if movie["creator"] == self.username]:
            for movie in own:
                deleted = self.delete(f"{MOVIES}{movie['id']}/")
                assert deleted.status_code == 204, deleted.text

    def add_movie(self, **changes):
        """A movie of theirs, as the service answers it."""
        return self.add_to(MOVIES, film(**changes))


class Shelf:
    """A user whose movies are read by many tests and changed by none."""

    def __init__(self, base, films):
        self.user = Client(base).new_user()
        self.mark = word()
        self.movies = [self.user.add_movie(title=f"{self.mark} {title}", genre=genre, year=year) for title, genre, year in films]

    def get(self, query, **request):
        return self.user.get(f"{MOVIES}?title={self.mark}&{query}", **request)

    def close(self):
        self.user.delete_movies()
        self.user.close()

    def titles(self, query, title=None):
        """What follows the mark in the titles found; `title` takes the place of the filter by mark."""
        path = f"{MOVIES}?{query}&title={title if title is not None else self.mark}&creator__username={self.user.username}"
        response = self.user.get(path)
        assert response.status_code == 200, response.text
        return [movie["title"][len(self.mark) + 1 :] for movie in response.json()["results"]]


def as_bytes(text):
    return text.encode() if isinstance(text, str) else text


def wait_until(condition, deadline=10):
    """Polls until the condition holds, and returns what it returned."""
    ends = time.monotonic() + deadline
    while not (held := condition()):
        assert time.monotonic() < ends, f"not within {deadline} s"
        time.sleep(0.02)
    return held
