"""Clients of the API: sample request bodies, Client and User, and requests sent byte for byte on a socket."""
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
ACCOUNT = "/api/v1/auth/user/"
MISSING = object()  # as the value of a field: the field is omitted


def unique_word():
    """Returns a random word, so that tests do not find each other's users and movies."""
    return uuid.uuid4().hex[:12]


def account_fields(**changes):
    """Returns the fields of a valid registration with some replaced; MISSING omits a field."""
    name = f"user{unique_word()}"
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


def movie_fields(**changes):
    """Returns the fields of a valid movie with some replaced; MISSING omits a field."""
    fields = {"title": f"{unique_word()} film", "genre": "Drama", "year": 1999, **changes}
    return {field: value for field, value in fields.items() if value is not MISSING}


def with_literal(fields, name, literal):
    """Returns JSON text for the fields, in which the value of field `name` is `literal`, unchanged."""
    others = {field: value for field, value in fields.items() if field != name}
    return f'{json.dumps(others)[:-1]}, "{name}": {literal}}}'


def outcome(response):
    """Returns status and body: parsed if its Content-Type is JSON, otherwise as bytes."""
    declared = response.headers.get("Content-Type", "").split(";")[0]
    is_json = declared == "application/json" and response.content
    return response.status_code, response.json() if is_json else response.content


class RawResponse:
    """A response read from a socket, with the attributes of requests.Response that the tests use."""

    def __init__(self, received):
        self.status_code = received.status
        self.headers = requests.structures.CaseInsensitiveDict(received.getheaders())
        self.content = received.read()

    @property
    def text(self):
        return self.content.decode()

    def json(self):
        return json.loads(self.content)


def send_bytes(base, sent, deadline=10):
    """Sends bytes on a new connection and reads one response; each step has to end within `deadline` seconds."""
    address = urllib.parse.urlsplit(base)
    with socket.create_connection((address.hostname, address.port or 80), timeout=deadline) as connection:
        connection.sendall(sent)
        received = http.client.HTTPResponse(connection, method=sent.split(b" ", 1)[0].decode("latin-1"))
        received.begin()
        return RawResponse(received)


def read_until_closed(base, sent, deadline=10):
    """Sends bytes, which have to ask for the connection to be closed, and returns all bytes received."""
    address = urllib.parse.urlsplit(base)
    with socket.create_connection((address.hostname, address.port or 80), timeout=deadline) as connection:
        connection.sendall(sent)
        received = iter(lambda: connection.recv(65536), b"")
        return b"".join(received)


class Client:
    """An HTTP client of the API; sends `token`, if it has one, with each request."""

    def __init__(self, base, token=None):
        self.base = base
        self.token = token
        self.others = []
        self.registered = []
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers.clear()

    def close(self):
        self.session.close()
        for other in self.others:
            other.close()

    def delete_movies(self):
        """Deletes all movies of the users that this client registered."""
        for other in self.others:
            other.delete_movies()

    def delete_accounts(self):
        """Deletes the accounts that this client registered, with their movies. An account stays if its user can no longer sign in."""
        for other in self.others:
            other.delete_accounts()
        for username, password in self.registered:
            signed_in = self.send("POST", TOKEN, json_body={"username": username, "password": password})
            if signed_in.status_code == 200:
                authorization = {"Authorization": f"Bearer {signed_in.json()['access']}"}
                deleted = self.send("DELETE", ACCOUNT, json_body={"current_password": password}, headers=authorization)
                assert deleted.status_code == 204, deleted.text

    def send(self, method, path, *, json_body=MISSING, form=None, raw=None, headers=None):
        """Sends a request and returns the response. The path is sent unchanged; redirects are not followed."""
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
        response = self.session.send(prepared, timeout=20, allow_redirects=False)
        self.note_registration(path, json_body, response)
        return response

    def note_registration(self, path, fields, response):
        """Remembers the account that a response has created."""
        if path == REGISTER and response.status_code == 201 and isinstance(fields, dict):
            self.registered.append((response.json()["username"], fields["password"]))

    def send_raw(self, method, path, headers=(), body=b"", deadline=10):
        """Sends a request byte for byte; adds Host, Authorization and (with a body) Content-Length if not in `headers`."""
        names = {name.lower() for name, _ in headers}
        host = urllib.parse.urlsplit(self.base).netloc.encode()
        lines = [b" ".join([as_bytes(method), as_bytes(path), b"HTTP/1.1"])]
        lines += [b"Host: " + host] if "host" not in names else []
        lines += [b"Authorization: Bearer " + self.token.encode()] if self.token and "authorization" not in names else []
        lines += [b"Content-Length: %d" % len(body)] if body and "content-length" not in names else []
        lines += [as_bytes(name) + b": " + as_bytes(value) for name, value in headers]
        return send_bytes(self.base, b"\r\n".join(lines) + b"\r\n\r\n" + body, deadline)

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
        """Posts `text`, valid JSON or not, as application/json."""
        return self.send("POST", path, raw=text, headers={"Content-Type": "application/json"}, **request)

    def with_token(self, token):
        """Returns another client of the same service, which sends this token."""
        other = Client(self.base, token)
        self.others.append(other)
        return other

    def add_to(self, path, fields):
        """Sends a POST request that has to succeed; returns the parsed response."""
        added = self.post(path, fields)
        assert added.status_code == 201, added.text
        return added.json()

    def new_user(self, **changes):
        """Registers a new user and signs in."""
        fields = account_fields(**changes)
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
        """Deletes all movies of this user and of the users that it registered."""
        super().delete_movies()
        path = f"{MOVIES}?page_size=100&creator__username={urllib.parse.quote(self.username)}"
        while own := [movie for movie in self.get(path).json()["results"] if movie["creator"] == self.username]:
            for movie in own:
                deleted = self.delete(f"{MOVIES}{movie['id']}/")
                assert deleted.status_code == 204, deleted.text

    def add_movie(self, **changes):
        """Creates a movie; returns it as in the response."""
        return self.add_to(MOVIES, movie_fields(**changes))


class MovieCollection:
    """Movies of a new user, which many tests read and none changes; a random word in the titles marks them."""

    def __init__(self, base, movies):
        self.client = Client(base)
        self.user = self.client.new_user()
        self.mark = unique_word()
        self.movies = [self.user.add_movie(title=f"{self.mark} {title}", genre=genre, year=year) for title, genre, year in movies]

    def get(self, query, **request):
        return self.user.get(f"{MOVIES}?title={self.mark}&{query}", **request)

    def close(self):
        self.client.delete_accounts()
        self.client.close()

    def titles(self, query, title=None):
        """Lists movies and returns their titles without the mark. The filter is by mark, or by `title` if given."""
        path = f"{MOVIES}?{query}&title={title if title is not None else self.mark}&creator__username={self.user.username}"
        response = self.user.get(path)
        assert response.status_code == 200, response.text
        return [movie["title"][len(self.mark) + 1 :] for movie in response.json()["results"]]


def as_bytes(text):
    return text.encode() if isinstance(text, str) else text


def wait_until(condition, deadline=10, what="success of the condition"):
    """Calls `condition` until it returns a true value, and returns that value; fails after `deadline` seconds and says that `what` is missing."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        assert time.monotonic() < end, f"no {what} within {deadline} s"
        time.sleep(0.02)
    return value
