"""run.sh with a DATA_DIR for one test, and helpers for processes."""
import os
import re
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

from helpers.client import Client, wait_until
from helpers.settings import ROOT

RUN = ROOT / "run.sh"


def state_and_parent(process_id):
    """Returns a process's state (Z for a zombie) and its parent's id; (None, None) if there is no such process."""
    try:
        state, parent = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[:2]
        return state, int(parent)
    except OSError:
        return None, None


def is_running(process_id):
    return state_and_parent(process_id)[0] not in (None, "Z")


def children_of(process_id):
    process_ids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [child for child in process_ids if state_and_parent(child)[1] == process_id]


class Installation:
    """A DATA_DIR and the run.sh processes that use it. Their output is kept in `logs_folder`."""

    def __init__(self, logs_folder, name="it's a place"):
        # Not pytest's tmp_path: other users, as whom run.sh started by root runs PostgreSQL and the service, may not enter it.
        self.parent = Path(tempfile.mkdtemp(prefix="movies-installation-", dir="/tmp"))
        self.parent.chmod(0o711)
        self.folder = self.parent / name
        self.logs_folder = logs_folder
        self.started = []
        self.logs = 0

    def start(self, *command, largest_file=None, typed=None, **settings):
        """Starts run.sh with `typed` as its input; it cannot write files of more than `largest_file` bytes. Its output goes to
        the file `log` of the process returned."""
        self.logs += 1
        log = self.logs_folder / f"{self.folder.name}.log{self.logs}"
        inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "RUSTUP_HOME") or name.startswith("CARGO_")}
        environment = {**inherited, "DATA_DIR": str(self.folder), "BIND": "127.0.0.1:0", "BCRYPT_COST": "4", **settings}

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
        """Runs run.sh; returns its exit status and output."""
        process = self.start(*command, **options)
        status = process.wait(deadline)
        return status, process.log.read_text()

    def serve(self, *flags, **settings):
        """Starts run.sh and waits until the service listens; returns the process and a client."""
        process = self.start(*(["serve", *flags] if flags else []), **settings)

        def listening():
            assert process.poll() is None, process.log.read_text()
            return re.search(r"listening on (http://\S+)", process.log.read_text())

        return process, Client(wait_until(listening, 60, "address of the server")[1])

    def process_id_in(self, file):
        return int((self.folder / file).read_text().split()[0])

    def is_database_running(self):
        file = self.folder / "database/cluster/postmaster.pid"
        return file.exists() and is_running(self.process_id_in(file))

    def clean_up(self):
        if self.folder.is_dir():
            subprocess.run([RUN, "stop"], env={**os.environ, "DATA_DIR": str(self.folder)}, capture_output=True, timeout=60)
        for process in self.started:
            process.kill()
            process.wait()
        shutil.rmtree(self.parent)
