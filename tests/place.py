"""A place where run.sh is used: a DATA_DIR of a test's own, and the processes started for it."""
import os
import re
import subprocess
import time
from pathlib import Path

from client import Client

RUN = Path(__file__).parent.parent / "run.sh"


def wait_for(condition, what, deadline=60):
    """What `condition` gives, as soon as it is true."""
    end = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.02)
    return found


def state_and_parent(process_id):
    """A process's state, Z once it ended and is not yet waited for, and its parent; nothing if there is none."""
    try:
        state, parent = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[:2]
        return state, int(parent)
    except OSError:
        return None, None


def is_running(process_id):
    return state_and_parent(process_id)[0] not in (None, "Z")


def children_of(process_id):
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [number for number in numbers if state_and_parent(number)[1] == process_id]


class Place:
    """A DATA_DIR of the test's own, and the run.sh processes that use it."""

    def __init__(self, folder, name="it's a place"):
        self.folder = folder / name
        self.started = []
        self.logs = 0

    def start(self, *command, **settings):
        """run.sh as a process of its own; what it says goes to its `log`."""
        self.logs += 1
        log = self.folder.parent / f"{self.folder.name}.log{self.logs}"
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "CARGO_TARGET_DIR", "CARGO_HOME", "RUSTUP_HOME")}
        environment = {**kept, "DATA_DIR": str(self.folder), "BIND": "127.0.0.1:0", "BCRYPT_COST": "4", **settings}
        with log.open("wb") as output:
            process = subprocess.Popen([RUN, *command], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/")
        process.log = log
        self.started.append(process)
        return process

    def run(self, *command, deadline=60, **settings):
        """What run.sh says, and its exit status."""
        process = self.start(*command, **settings)
        status = process.wait(deadline)
        return status, process.log.read_text()

    def serve(self, **settings):
        """A run.sh that listens, and a client of it."""
        process = self.start(**settings)

        def listening():
            assert process.poll() is None, process.log.read_text()
            return re.search(r"listening on (http://\S+)", process.log.read_text())

        return process, Client(wait_for(listening, "the server")[1])

    def number_in(self, file):
        return int((self.folder / file).read_text().split()[0])

    def database_runs(self):
        file = self.folder / "database/cluster/postmaster.pid"
        return file.exists() and is_running(self.number_in(file))

    def clear(self):
        if self.folder.is_dir():
            subprocess.run([RUN, "stop"], env={**os.environ, "DATA_DIR": str(self.folder)}, capture_output=True, timeout=60)
        for process in self.started:
            process.kill()
            process.wait()
