"""An open load: sends requests at fixed times, whether or not earlier ones were answered. Records the response to each, and
compares the acknowledged writes with the rows of the database."""
import base64
import hashlib
import heapq
import json
import random
import threading
import time
from collections import Counter, deque, namedtuple
from concurrent.futures import ThreadPoolExecutor

from helpers.client import MOVIES, PASSWORD, REGISTER, TOKEN, account_fields, movie_fields, wait_until

# Requests per second of each kind: 24 writes of movies, 50 reads, 2 registrations, 2 sign-ins, and one of each probe.
RATES = {
    "create": 10, "patch": 8, "delete": 6, "read": 20, "list": 15, "search": 15, "register": 2,
    "sign in": 1, "first sign in": 1, "/readyz": 1, "/metrics": 1, "/healthz": 1,
}
WRITES = ("create", "patch", "delete", "register")
READS = ("read", "list", "search")
PROBES = ("/readyz", "/metrics", "/healthz")
GOOD = {"create": 201, "patch": 200, "delete": 204, "register": 201}  # all other kinds: 200

# Enough threads for 20 s of unanswered requests, more than the service may ever leave unanswered.
MAX_THREADS = 1600
USERS = 8
MOVIES_PER_USER = 250
IMPORTED_USERS = 120

SentRequest = namedtuple("SentRequest", "kind start status seconds")

# A trigger that records each changed row in the same transaction: a change that is applied twice is recorded twice.
RECORD_CHANGES = """
create table applied (operation text not null, movie_id bigint not null, title text not null);
create function record_change() returns trigger language plpgsql as $$
begin
    insert into applied values (tg_op, coalesce(new.id, old.id), coalesce(new.title, old.title));
    return null;
end
$$;
create trigger record_change after insert or update or delete on movies for each row execute function record_change();
"""


def send(client, method, path, fields=None, deadline=30):
    """Sends a request on a new connection; many threads may call it with the same client."""
    headers = [("Connection", "close"), *([("Content-Type", "application/json")] if fields is not None else [])]
    body = json.dumps(fields).encode() if fields is not None else b""
    return client.send_raw(method, path, headers, body, deadline)


def django_hash(password):
    """Returns a password hash in the format of the Django application, with few rounds."""
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), b"saltsalt", 1000)
    return f"pbkdf2_sha256$1000$saltsalt${base64.b64encode(digest).decode()}"


def wait_until_settled(run):
    """Waits until no other session of this database runs a statement."""
    active = (
        "select count(*) from pg_stat_activity where backend_type = 'client backend' and state <> 'idle' "
        "and datname = current_database() and pid <> pg_backend_pid()"
    )
    wait_until(lambda: run(active) == [(0,)], 30)


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class OpenLoad:
    """Sends requests at the given rates (default RATES) while the context is entered. `run` runs a statement on the service's
    database and returns its rows. At most one request at a time changes a movie, and none does after a change whose outcome
    is unknown. So if a delete or a patch finds no movie, a change was applied twice or a movie was lost."""

    def __init__(self, server, run, rates=None):
        self.rates = RATES if rates is None else rates
        self.client = server.client()
        self.users = [self.client.new_user() for _ in range(USERS)]
        run(RECORD_CHANGES)
        self.add_rows(run)
        self.sent, self.failures, self.lateness = [], [], 0.0
        self.created, self.patched, self.deleted, self.registered = {}, {}, {}, {}
        self.stopping = threading.Event()
        self.pool = ThreadPoolExecutor(MAX_THREADS)
        self.scheduler = threading.Thread(target=self.schedule)

    def add_rows(self, run):
        """Inserts the movies to read and write, and the imported users; by SQL, which is faster than requests."""
        by_id = {user.id: user for user in self.users}
        rows = run(
            "insert into movies (title, genre, year, creator_id) select 'film ' || number, 'Drama', 1999, creator_id "
            "from unnest(%s::bigint[]) as creator_id, generate_series(1, %s) as number returning id, creator_id",
            list(by_id), MOVIES_PER_USER,
        )
        self.imported = deque(f"imported{number}" for number in range(IMPORTED_USERS))
        run(
            "insert into users (username, email, password_hash) select name, name || '@example.com', %s from unnest(%s::text[]) as name",
            django_hash(PASSWORD), list(self.imported),
        )
        run("delete from applied")
        movies = [(movie_id, by_id[creator_id]) for movie_id, creator_id in rows]
        random.Random(1).shuffle(movies)
        self.readable, self.writable = movies[:100], deque(movies[100:])

    def __enter__(self):
        self.scheduler.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.scheduler.join()
        self.pool.shutdown()

    def schedule(self):
        """Passes each request to a thread when it is due. Kinds with the same rate are due at different moments."""
        begin = time.monotonic()
        due = [(begin + position / len(self.rates) / rate, kind) for position, (kind, rate) in enumerate(self.rates.items())]
        heapq.heapify(due)
        while not self.stopping.is_set():
            at, kind = due[0]
            if self.stopping.wait(max(0.0, at - time.monotonic())):
                break
            heapq.heapreplace(due, (at + 1 / self.rates[kind], kind))
            self.pool.submit(self.record, kind, at)

    def record(self, kind, due):
        start = time.monotonic()
        self.lateness = max(self.lateness, start - due)
        try:
            status = self.perform(kind)
        except Exception as failure:  # any exception counts as a failure of the service
            self.failures.append(f"{kind}: {failure!r}")
            status = 0
        self.sent.append(SentRequest(kind, start, status, time.monotonic() - start))

    def perform(self, kind):
        """Sends one request and returns the status of the response."""
        if kind in PROBES:
            return send(self.client, "GET", kind).status_code
        if kind in ("create", "patch", "delete"):
            return self.write(kind)
        if kind == "register":
            fields = account_fields()
            status = self.registered[fields["username"]] = send(self.client, "POST", REGISTER, fields).status_code
            return status
        if kind in ("sign in", "first sign in"):
            name = random.choice(self.users).username if kind == "sign in" else self.imported.popleft()
            return send(self.client, "POST", TOKEN, {"username": name, "password": PASSWORD}).status_code
        movie, user = random.choice(self.readable)
        return send(user, "GET", {"read": f"{MOVIES}{movie}/", "list": MOVIES, "search": f"{MOVIES}?title=film%201"}[kind]).status_code

    def write(self, kind):
        title = movie_fields()["title"]
        if kind == "create":
            user = random.choice(self.users)
            response = send(user, "POST", MOVIES, movie_fields(title=title))
            self.created[title] = response.status_code
            if response.status_code == 201:
                self.writable.append((response.json()["id"], user))
            return response.status_code
        movie, user = self.writable.popleft()
        path = f"{MOVIES}{movie}/"
        if kind == "delete":
            status = self.deleted[movie] = send(user, "DELETE", path).status_code
            return status
        status = self.patched[movie, title] = send(user, "PATCH", path, {"title": title}).status_code
        if status == 200:
            self.writable.append((movie, user))
        return status

    def requests(self, kinds=tuple(RATES), since=0.0, until=float("inf")):
        return [request for request in list(self.sent) if request.kind in kinds and since <= request.start < until]

    def statuses(self, kinds=tuple(RATES), since=0.0, until=float("inf")):
        """Returns the number of responses by (kind, status)."""
        return dict(Counter((request.kind, request.status) for request in self.requests(kinds, since, until)))

    def failed_counts(self, kinds, since=0.0, until=float("inf")):
        """Returns the number of unsuccessful responses to these kinds, by (kind, status)."""
        counts = self.statuses(kinds, since, until)
        return {key: number for key, number in counts.items() if key[1] != GOOD.get(key[0], 200)}

    def p99(self, kinds, since=0.0, until=float("inf")):
        return percentile([request.seconds for request in self.requests(kinds, since, until)], 0.99)

    def slowest(self):
        """Returns seconds, kind and status of the slowest response."""
        return max((request.seconds, request.kind, request.status) for request in self.sent)

    def recovery(self, since):
        """Returns the seconds from `since` until the last unsuccessful request was sent; 0 if there was none."""
        return max([request.start - since for request in self.requests(since=since) if request.status != GOOD.get(request.kind, 200)], default=0.0)

    def misapplied(self, run):
        """Returns the writes that were not applied as their responses say: acknowledged ones exactly once, others at most once."""
        wait_until_settled(run)
        applied = run("select operation, movie_id, title from applied")
        inserts = Counter(title for operation, _, title in applied if operation == "INSERT")
        updates = Counter((movie, title) for operation, movie, title in applied if operation == "UPDATE")
        deletes = Counter(movie for operation, movie, _ in applied if operation == "DELETE")
        users = Counter(name for name, in run("select username from users"))
        rows = {movie for movie, in run("select id from movies")}
        wrong = {}
        for kind, statuses, counts in (
            ("create", self.created, inserts), ("patch", self.patched, updates),
            ("delete", self.deleted, deletes), ("register", self.registered, users),
        ):
            for key, status in statuses.items():
                if counts[key] != 1 and (status == GOOD[kind] or counts[key] > 1):
                    wrong[kind, key] = f"response {status}, applied {counts[key]} times"
        wrong |= {("row", movie): "lost" for movie, _ in self.writable if movie not in rows}
        return wrong

    def summary(self, failed, ended):
        """Returns counts and latencies before `failed`, from then until `ended`, and afterwards; printed for failed tests."""
        lines = [f"sent at most {self.lateness * 1000:.0f} ms late; refused writes until {self.recovery(ended):.1f} s after the end"]
        for name, since, until in (("before", 0.0, failed), ("during", failed, ended), ("after", ended, float("inf"))):
            for kind in self.rates:
                requests = self.requests([kind], since, until)
                if requests:
                    seconds = [request.seconds for request in requests]
                    counts = dict(Counter(request.status for request in requests))
                    p50, p99 = (percentile(seconds, share) for share in (0.5, 0.99))
                    lines.append(f"{name} {kind}: {counts} p50 {p50:.4f} p99 {p99:.4f} max {max(seconds):.3f}")
        return "\n".join([*lines, *self.failures[:5]])
