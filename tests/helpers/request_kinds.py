"""Requests of every kind that uses the database. What they need is prepared by SQL, so that a test sees the first request of a kind."""
from collections import Counter, deque

from helpers.client import MOVIES, PASSWORD, REFRESH, REGISTER, TOKEN, account_fields, movie_fields
from helpers.concurrency import run_simultaneously
from helpers.open_load import RECORD_CHANGES, django_hash, send

EXPECTED = {
    "read": 200, "list": 200, "second page": 200, "search": 200, "sign in": 200, "refresh": 200,
    "create": 201, "patch": 200, "put": 200, "delete": 204, "register": 201, "first sign in": 200,
}
WRITES = ("create", "patch", "put", "delete", "register")


class RequestKinds:
    """Sends requests of one user; any number of threads may use it. `run` runs a statement on the service's database."""

    def __init__(self, server, run, movies=2000, imported=300):
        self.client, self.run = server.client(), run
        self.user = self.client.new_user()
        run(RECORD_CHANGES)
        rows = run(
            "insert into movies (title, genre, year, creator_id) select 'film ' || number, 'Drama', 1999, %s "
            "from generate_series(1, %s) as number returning id",
            self.user.id, movies,
        )
        self.movies = deque(movie for movie, in rows)
        self.readable = self.movies.popleft()
        self.imported = deque(f"imported{number}" for number in range(imported))
        run(
            "insert into users (username, email, password_hash) select name, name || '@example.com', %s from unnest(%s::text[]) as name",
            django_hash(PASSWORD), list(self.imported),
        )
        run("delete from applied")
        self.titles = {}

    def send(self, kind):
        """Sends a request of this kind and returns the status of the response."""
        if kind in ("create", "patch", "put"):
            fields = movie_fields()
            movie = f"{MOVIES}{self.movies.popleft()}/"
            method, path = {"create": ("POST", MOVIES), "patch": ("PATCH", movie), "put": ("PUT", movie)}[kind]
            status = send(self.user, method, path, fields).status_code
            self.titles[fields["title"]] = status
            return status
        method, path, fields = {
            "read": lambda: ("GET", f"{MOVIES}{self.readable}/", None),
            "list": lambda: ("GET", MOVIES, None),
            "second page": lambda: ("GET", f"{MOVIES}?page=2", None),
            "search": lambda: ("GET", f"{MOVIES}?title=film%201", None),
            "sign in": lambda: ("POST", TOKEN, {"username": self.user.username, "password": PASSWORD}),
            "first sign in": lambda: ("POST", TOKEN, {"username": self.imported.popleft(), "password": PASSWORD}),
            "refresh": lambda: ("POST", REFRESH, {"refresh": self.user.refresh}),
            "delete": lambda: ("DELETE", f"{MOVIES}{self.movies.popleft()}/", None),
            "register": lambda: ("POST", REGISTER, account_fields()),
        }[kind]()
        return send(self.user, method, path, fields).status_code

    def send_and_count_failures(self, kinds=tuple(EXPECTED), each=1):
        """Sends `each` requests of each of these kinds, all at once; returns the number of unsuccessful ones by (kind, status)."""
        kinds = [kind for kind in kinds for _ in range(each)]
        statuses = run_simultaneously(len(kinds), lambda index: (kinds[index], self.send(kinds[index])))
        return Counter((kind, status) for kind, status in statuses if status != EXPECTED[kind])

    def misapplied(self):
        """Returns the creates and changes, by title, that were not applied as often as their responses say: (status, times applied)."""
        applied = Counter(title for title, in self.run("select title from applied where operation <> 'DELETE'"))
        successful = (200, 201)
        return {
            title: (status, applied[title])
            for title, status in self.titles.items()
            if applied[title] != 1 and (status in successful or applied[title] > 1)
        }
