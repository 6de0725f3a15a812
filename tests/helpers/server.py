"""The service as a child process of the tests."""
import contextlib
import re
import signal
import subprocess
import threading

from helpers.client import MISSING, Client
from helpers.settings import BINARY, SECRET_KEY


class Server:
    """A running server: its process, its log lines, and the clients to close before it stops.

    A thread reads the log; `log_changed` guards `log` and `log_ended`."""

    def __init__(self, settings, command_prefix=()):
        self.command_prefix = command_prefix
        self.settings = {"BIND": "127.0.0.1:0", "SECRET_KEY": SECRET_KEY, "BCRYPT_COST": "4", "DB_POOL_SIZE": "8", **settings}
        self.clients = []
        self.launch()

    def launch(self):
        """Starts the process without waiting for it to listen."""
        environment = {name: value for name, value in self.settings.items() if value is not None}
        self.log = []
        self.log_changed = threading.Condition()
        self.process = subprocess.Popen(
            [*self.command_prefix, BINARY], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
        )
        self.reader = threading.Thread(target=self.read_log, daemon=True)
        self.reader.start()

    def read_log(self):
        for line in self.process.stdout:
            with self.log_changed:
                self.log.append(line.decode(errors="replace").rstrip("\n"))
                self.log_changed.notify_all()
        with self.log_changed:
            self.log_ended = True
            self.log_changed.notify_all()

    log_ended = False

    def wait_until_listening(self, deadline=20):
        """Waits until the log contains the address on which the server listens."""
        def found():
            lines = [re.search(r"listening on (http://127\.0\.0\.1:\d+)", line) for line in self.log]
            return next((match for match in lines if match), None)

        with self.log_changed:
            self.log_changed.wait_for(lambda: found() or self.log_ended, deadline)
            match = found()
        assert match, "the server does not listen; its log:\n" + "\n".join(self.log)
        self.base = match[1]
        return self

    def client(self):
        self.clients.append(Client(self.base))
        return self.clients[-1]

    def close_clients(self):
        for client in self.clients:
            client.close()

    def wait_for_exit(self, deadline=20):
        """Waits for the process to exit and for the end of its log; returns the exit status."""
        status = self.process.wait(deadline)
        self.reader.join(deadline)
        return status

    def stop(self, with_signal=signal.SIGTERM, deadline=20):
        """Sends the signal, waits for the process to exit, and returns the exit status."""
        self.close_clients()
        self.process.send_signal(with_signal)
        return self.wait_for_exit(deadline)

    def restart(self):
        """Starts a new process with the same settings and waits until it listens."""
        self.log_ended = False
        self.launch()
        return self.wait_until_listening()

    def dispose(self):
        self.close_clients()
        if self.process.poll() is None:
            self.process.kill()
        self.wait_for_exit()
        assert not [line for line in self.log if "panicked" in line]


@contextlib.contextmanager
def running_server(settings):
    """Yields a server that listens; kills it at the end."""
    server = Server(settings)
    try:
        yield server.wait_until_listening()
    finally:
        server.dispose()


def run_until_exit(deadline, **settings):
    """Starts the service, expecting it to exit within the deadline; returns its exit status and output."""
    environment = {"BIND": "127.0.0.1:0", "SECRET_KEY": SECRET_KEY, "DATABASE_URL": "host=/nowhere user=none dbname=none", **settings}
    variables = {name: value for name, value in environment.items() if value is not MISSING}
    completed = subprocess.run([BINARY], env=variables, capture_output=True, text=True, timeout=deadline)
    return completed.returncode, completed.stdout + completed.stderr
