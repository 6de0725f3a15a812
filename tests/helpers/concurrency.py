"""Requests from many threads at the same moment."""
import json
import threading
from concurrent.futures import ThreadPoolExecutor

JSON = [("Content-Type", "application/json")]


def run_simultaneously(number, action):
    """Calls `action(0)` to `action(number - 1)`, each on its own thread, all starting together; returns their results in order."""
    start = threading.Barrier(number)

    def wait_and_run(index):
        start.wait(30)
        return action(index)

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(wait_and_run, range(number)))


def post(client, path, fields):
    """Sends a request on a new connection: a requests.Session must not be shared between threads."""
    response = client.send_raw("POST", path, JSON, json.dumps(fields).encode(), deadline=60)
    client.note_registration(path, fields, response)
    return response


def send(client, method, path, fields=None):
    return client.send_raw(method, path, JSON if fields else [], json.dumps(fields).encode() if fields else b"", deadline=60)
