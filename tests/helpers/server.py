"""The service as a process of a test's own."""
import re
import signal
import subprocess
import threading

from helpers.client import MISSING, Client
from helpers.settings import BINARY, SECRET_KEY


class Server:
    """The binary as a process of its own, its log, and the clients that have to hang up before it stops."""

    def __init__(self, settings, under=()):
        self.under = under
        self.settings = {"BIND": "127.0.0.1:0", "SECRET_KEY": SECRET_KEY, "BCRYPT_COST": "4", "DB_POOL_SIZE": "8", **settings}
        self.clients = []
        self.launch()

    def launch(self):
        """Starts the process, and does not wait for it to listen."""
        environment = {name: value for name, value in self.settings.items() if value is not None}
        self.log = []
        self.changed = threading.Condition()
        self.process = subprocess.Popen(
            [*self.under, BINARY], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
        )
        self.reader = threading.Thread(target=self.read_log, daemon=True)
        self.reader.start()

    def read_log(self):
        for line in self.process.stdout:
            with self.changed:
                self.log.append(line.decode(errors="replace").rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.log_ended = True
            self.changed.notify_all()

    log_ended = False

    def wait_until_listening(self, deadline=20):
        """Reads the log until it says where the server listens."""
        def found():
            lines = [re.search(r"listening on (http://127\.0\.0\.1:\d+)", line) for line in self.log]
            return next((match for match in lines if match), None)

        with self.changed:
            self.changed.wait_for(lambda: found() or self.log_ended, deadline)
            match = found()
        assert match, "the server does not listen; its log:\n" + "\n".join(self.log)
        self.base = match[1]
        return self

    def client(self):
        self.clients.append(Client(self.base))
        return self.clients[-1]

    def hang_up(self):
        for client in self.clients:
            client.close()

    def end(self, deadline=20):
        """The exit status, once the process has ended by itself and its whole log is read."""
        status = self.process.wait(deadline)
        self.reader.join(deadline)
        return status

    def stop(self, with_signal=signal.SIGTERM, deadline=20):
        """Ends the process by this signal; its exit status."""
        self.hang_up()
        self.process.send_signal(with_signal)
        return self.end(deadline)

    def start_again(self):
        """The same settings and data in a new process."""
        self.log_ended = False
        self.launch()
        return self.wait_until_listening()

    def dispose(self):
        self.hang_up()
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        assert not [line for line in self.log if "panicked" in line]


def run_to_its_end(deadline, **settings):
    """Exit status and output of a start that is expected to fail by itself within the deadline."""
    environment = {"BIND": "127.0.0.1:0", "SECRET_KEY": SECRET_KEY, "DATABASE_URL": "host=/nowhere user=nobody dbname=none", **settings}
    given = {name: value for name, value in environment.items() if value is not MISSING}
    ended = subprocess.run([BINARY], env=given, capture_output=True, text=True, timeout=deadline)
    return ended.returncode, ended.stdout + ended.stderr
