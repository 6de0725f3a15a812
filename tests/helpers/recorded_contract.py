"""Runs the cases recorded from the Django service, in tests/conformance, against a server of the tests."""
import importlib.util
import io
import json
from concurrent.futures import ThreadPoolExecutor

from helpers.settings import SECRET_KEY, TESTS

FOLDER = TESTS / "conformance"


def run_recorded_cases(base, visibility, clients):
    """Runs every case once, `clients` at a time. Returns the number of cases that passed, and the output about those that failed."""
    spec = importlib.util.spec_from_file_location("check", FOLDER / "check.py")
    checker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(checker)
    cases = [case for name in ("cases", "accounts") for case in json.loads((FOLDER / f"{name}.json").read_text())]

    def run(first):
        output = io.StringIO()
        passed, failed, skipped = checker.check(checker.Service(base, SECRET_KEY), cases[first::clients], visibility, out=output)
        return passed, output.getvalue(), skipped

    with ThreadPoolExecutor(clients) as threads:
        results = list(threads.map(run, range(clients)))
    assert sum(skipped for _, _, skipped in results) == 0
    return sum(passed for passed, _, _ in results), "".join(output for _, output, _ in results)
