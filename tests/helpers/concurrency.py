"""Requests from many threads at the same moment."""
import json
import threading
from concurrent.futures import ThreadPoolExecutor

JSON = [("Content-Type", "application/json")]


def at_once(number, act):
    """What `act` returns for 0 to number - 1, all of them started at the same moment on threads of their own."""
    start = threading.Barrier(number)

    def wait_and_act(index):
        start.wait(30)
        return act(index)

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(wait_and_act, range(number)))


def post(client, path, fields):
    """A request on a connection of its own, since a session is not for many threads."""
    return client.send_raw("POST", path, JSON, json.dumps(fields).encode(), deadline=60)


def send(client, method, path, fields=None):
    return client.send_raw(method, path, JSON if fields else [], json.dumps(fields).encode() if fields else b"", deadline=60)
