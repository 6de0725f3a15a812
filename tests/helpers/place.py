"""A place where run.sh is used: a DATA_DIR of a test's own, and the processes started for it."""
import os
import re
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from helpers.client import Client
from helpers.settings import ROOT

RUN = ROOT / "run.sh"


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
    """A DATA_DIR of the test's own, and the run.sh processes that use it, whose logs are kept in `logs_folder`."""

    def __init__(self, logs_folder, name="it's a place"):
        # Started by root, run.sh has PostgreSQL and the service run as other users: pytest's own folders are closed to them.
        self.parent = Path(tempfile.mkdtemp(prefix="movies-place-", dir="/tmp"))
        self.parent.chmod(0o711)
        self.folder = self.parent / name
        self.logs_folder = logs_folder
        self.started = []
        self.logs = 0

    def start(self, *command, largest_file=None, typed=None, **settings):
        """run.sh as a process of its own, given `typed` and kept from writing files of more than `largest_file` bytes. What
        it says goes to its `log`."""
        self.logs += 1
        log = self.logs_folder / f"{self.folder.name}.log{self.logs}"
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "RUSTUP_HOME") or name.startswith("CARGO_")}
        environment = {**kept, "DATA_DIR": str(self.folder), "BIND": "127.0.0.1:0", "BCRYPT_COST": "4", **settings}

        def limit_files():
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        with log.open("wb") as output:
            process = subprocess.Popen(
                [RUN, *command], env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output, cwd="/",
                preexec_fn=limit_files if largest_file else None, restore_signals=not largest_file,
            )
        process.stdin.write((typed or "").encode())
        process.stdin.close()
        process.log = log
        self.started.append(process)
        return process

    def run(self, *command, deadline=60, **options):
        """What run.sh says, and its exit status."""
        process = self.start(*command, **options)
        status = process.wait(deadline)
        return status, process.log.read_text()

    def serve(self, *flags, **settings):
        """A run.sh that listens, and a client of it."""
        process = self.start(*(["serve", *flags] if flags else []), **settings)

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
        shutil.rmtree(self.parent)
