"""Runs the recorded cases of the service that this one replaces, in `conformance`, against a server of the tests."""
import importlib.util
import io
import json
from concurrent.futures import ThreadPoolExecutor

from helpers.settings import SECRET_KEY, TESTS

FOLDER = TESTS / "conformance"


def check(base, visibility, clients):
    """Runs every case once, as many at a time as there are clients; how many passed, and what the failed ones print."""
    spec = importlib.util.spec_from_file_location("check", FOLDER / "check.py")
    checker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(checker)
    cases = json.loads((FOLDER / "cases.json").read_text())

    def run(place):
        told = io.StringIO()
        passed, failed, skipped = checker.check(checker.Service(base, SECRET_KEY), cases[place::clients], visibility, out=told)
        return passed, told.getvalue(), skipped

    with ThreadPoolExecutor(clients) as threads:
        done = list(threads.map(run, range(clients)))
    assert sum(skipped for _, _, skipped in done) == 0
    return sum(passed for passed, _, _ in done), "".join(told for _, told, _ in done)
