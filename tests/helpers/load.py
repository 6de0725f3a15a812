"""A mixed load for tests in which the service or its database fails: records each response and each acknowledged write."""
import random
import threading
import time
from collections import namedtuple

import requests

from helpers.client import MOVIES, movie_fields, wait_until

SentRequest = namedtuple("SentRequest", "start kind status seconds")


class Load:
    """Clients, each on its own thread, that create, read, change, list and search movies until the context is left."""

    def __init__(self, user, clients=16):
        self.user = user
        self.requests, self.titles, self.failures = [], {}, []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(random.Random(seed),)) for seed in range(clients)]

    def __enter__(self):
        [thread.start() for thread in self.threads]
        wait_until(lambda: len(self.titles) > 20)
        return self

    def __exit__(self, *_):
        self.stopping.set()
        [thread.join(30) for thread in self.threads]

    def run(self, chooser):
        """Runs one client. No other client changes its movies, so the last acknowledged change has to be in the database."""
        client, own_movies = self.user.with_token(self.user.token), []
        while not self.stopping.is_set():
            kind = chooser.choice(["create", "read", "change", "list", "search"]) if own_movies else "create"
            start = time.monotonic()
            try:
                response = self.send(client, kind, chooser, own_movies)
                status = response.status_code
            except requests.RequestException as failure:
                self.failures.append(failure)
                status = 0
            self.requests.append(SentRequest(start, kind, status, time.monotonic() - start))
            if status != 200 and status != 201:
                time.sleep(0.02)  # a client would wait too, as Retry-After asks

    def send(self, client, kind, chooser, own_movies):
        fields = movie_fields()
        if kind == "create":
            response = client.post(MOVIES, fields)
            if response.status_code == 201:
                own_movies.append(response.json()["id"])
                self.titles[own_movies[-1]] = {fields["title"]}
            return response
        movie = chooser.choice(own_movies)
        if kind == "change":
            # The database may hold the old or the new title until the change is acknowledged.
            before = self.titles[movie]
            self.titles[movie] = before | {fields["title"]}
            response = client.patch(f"{MOVIES}{movie}/", {"title": fields["title"]})
            if response.status_code == 200:
                self.titles[movie] = {fields["title"]}
            return response
        paths = {"read": f"{MOVIES}{movie}/", "list": f"{MOVIES}?page_size=5", "search": f"{MOVIES}?page_size=5&title=film"}
        return client.get(paths[kind])

    def statuses(self):
        return {request.status for request in self.requests}

    def slowest(self):
        return max(request.seconds for request in self.requests)

    def wait_for_recovery(self, deadline):
        """Waits until requests of every kind, sent after this call, have succeeded; returns the seconds that took."""
        start = time.monotonic()

        def works():
            since = [request for request in list(self.requests) if request.start > start]
            return {request.kind for request in since if request.status in (200, 201)} == {"create", "read", "change", "list", "search"}

        wait_until(works, deadline)
        return time.monotonic() - start

    def lost_writes(self, client):
        """Returns the acknowledged writes that the service does not return: (title found, titles expected) by movie."""
        titles = {movie: client.get(f"{MOVIES}{movie}/").json().get("title") for movie in list(self.titles)}
        return {movie: (title, self.titles[movie]) for movie, title in titles.items() if title not in self.titles[movie]}
