"""A mixed load on a service that is being harmed: what each request was answered, and which writes were acknowledged."""
import random
import threading
import time
from collections import namedtuple

import requests

from helpers.client import MOVIES, film, wait_until

Asked = namedtuple("Asked", "at kind status seconds")


class Load:
    """Clients in threads of their own that create, read, change, list and search until `stop`."""

    def __init__(self, user, clients=16):
        self.user = user
        self.asked, self.titles, self.failures = [], {}, []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(random.Random(seed),)) for seed in range(clients)]

    def __enter__(self):
        [thread.start() for thread in self.threads]
        wait_until(lambda: len(self.titles) > 20)
        return self

    def __exit__(self, *_):
        self.stopping.set()
        [thread.join(30) for thread in self.threads]

    def run(self, chance):
        """One client; its own movies are known to nobody else, so that what was acknowledged last is what has to be there."""
        client, mine = self.user.with_token(self.user.token), []
        while not self.stopping.is_set():
            kind = chance.choice(["create", "read", "change", "list", "search"]) if mine else "create"
            begun = time.monotonic()
            try:
                answer = self.ask(client, kind, chance, mine)
                status = answer.status_code
            except requests.RequestException as failure:
                self.failures.append(failure)
                status = 0
            self.asked.append(Asked(begun, kind, status, time.monotonic() - begun))
            if status != 200 and status != 201:
                time.sleep(0.02)  # as clients do that were told to come back

    def ask(self, client, kind, chance, mine):
        fields = film()
        if kind == "create":
            answer = client.post(MOVIES, fields)
            if answer.status_code == 201:
                mine.append(answer.json()["id"])
                self.titles[mine[-1]] = {fields["title"]}
            return answer
        movie = chance.choice(mine)
        if kind == "change":
            # Until it is acknowledged, either title may be there.
            before = self.titles[movie]
            self.titles[movie] = before | {fields["title"]}
            answer = client.patch(f"{MOVIES}{movie}/", {"title": fields["title"]})
            if answer.status_code == 200:
                self.titles[movie] = {fields["title"]}
            return answer
        paths = {"read": f"{MOVIES}{movie}/", "list": f"{MOVIES}?page_size=5", "search": f"{MOVIES}?page_size=5&title=film"}
        return client.get(paths[kind])

    def statuses(self):
        return {asked.status for asked in self.asked}

    def slowest(self):
        return max(asked.seconds for asked in self.asked)

    def recovers(self, deadline):
        """From now on, within the deadline, every kind of request succeeds; the seconds until then."""
        begun = time.monotonic()

        def works():
            since = [asked for asked in list(self.asked) if asked.at > begun]
            return {asked.kind for asked in since if asked.status in (200, 201)} == {"create", "read", "change", "list", "search"}

        wait_until(works, deadline)
        return time.monotonic() - begun

    def lost(self, client):
        """The acknowledged writes that are not there."""
        found = {movie: client.get(f"{MOVIES}{movie}/").json().get("title") for movie in list(self.titles)}
        return {movie: (title, self.titles[movie]) for movie, title in found.items() if title not in self.titles[movie]}
