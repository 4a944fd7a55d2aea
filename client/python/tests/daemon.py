"""A real daemon for each test class, and what stands between it and a client."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import ipcd

# How long anything may take that must happen. Nothing waits for it to pass unless it fails.
PATIENCE = 60


def eventually(condition, what):
    """Waits until something holds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"{what}: not within {PATIENCE} seconds")


class Daemon:
    """A process of ipcd with a directory of its own. IPCD_BIN names where the program is."""

    def __init__(self, *arguments):
        self.directory = tempfile.mkdtemp(prefix="ipcd-py")  # short: a socket's path has at most 107 bytes
        self.address = os.path.join(self.directory, "s")
        self._arguments = arguments
        self._process = None

    def use(self, *arguments):
        """Adds arguments for the next start."""
        self._arguments += arguments

    def start(self):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("IPCD_", "XDG_"))}
        program = os.path.join(os.environ["IPCD_BIN"], "ipcd")
        state = os.path.join(self.directory, "state")
        with open(self._log(), "ab") as log:
            self._process = subprocess.Popen(
                [program, "--socket", self.address, "--state-dir", state, *self._arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        eventually(self._serves, "the daemon serves")
        return self

    def _serves(self):
        if self._process.poll() is not None:
            raise AssertionError(f"the daemon ended ({self._process.returncode}):\n{self.log()}")
        try:
            with ipcd.connect(self.address) as client:
                return client.info()["pid"] == self._process.pid
        except ipcd.Unreachable:
            return False

    def _log(self):
        return os.path.join(self.directory, "log")

    def log(self):
        with open(self._log()) as file:
            return file.read()

    def stop(self, number=signal.SIGTERM):
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
            self._process = None

    def remove(self):
        self.stop(signal.SIGKILL)
        log = self.log()
        shutil.rmtree(self.directory)
        for bad in ("DATA RACE", "panic:", "internal error", "fatal error"):
            assert bad not in log, log


class DaemonTest(unittest.TestCase):
    """Tests that share a daemon. Each has a client and a queue of its own."""

    arguments = ()

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(*cls.arguments)
        cls.addClassCleanup(cls.daemon.remove)
        cls.daemon.start()

    def setUp(self):
        self.client = ipcd.connect(self.daemon.address)
        self.addCleanup(self.client.close)

    def meanwhile(self, function, *arguments):
        """Calls a function in another thread, which the test waits for at its end."""
        thread = threading.Thread(target=function, args=arguments)
        thread.start()
        self.addCleanup(thread.join)

    def create(self, name="", **settings):
        name = name or self.id().rpartition(".")[2]
        settings.setdefault("mqueue", "none")
        return self.client.create_queue(name, **settings)


class Proxy:
    """Stands between a client and the daemon. It can lose the daemon's answers: it lets a request through, and then breaks
    the connection before anything comes back."""

    def __init__(self, daemon):
        self.address = os.path.join(daemon.directory, "proxy")
        self._daemon = daemon
        self._lock = threading.Lock()
        self._losing = 0  # connections that are to lose their answers
        self._when = None
        self.lost = 0
        self._pairs = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.address)
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def lose_answer(self, when):
        """Breaks the connection, and the next ones, once the condition holds after a request went through; returns at
        once."""
        with self._lock:
            self._when = when
            self._losing += 1

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)  # which ends accept
        self._thread.join()
        self._listener.close()
        self.cut()
        os.unlink(self.address)

    def cut(self):
        """Breaks all connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(self._daemon.address)
            except OSError:
                near.close()
                far.close()
                continue
            with self._lock:
                self._pairs.append((near, far))
            threading.Thread(target=self._copy, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._copy, args=(far, near, True), daemon=True).start()

    def _copy(self, source, destination, answers):
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                if answers and self._lose():
                    break
                destination.sendall(data)
        except OSError:
            pass
        for end in (source, destination):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        source.close()

    def _lose(self):
        """Whether these bytes are to be lost, and the connection with them."""
        with self._lock:
            if not self._losing or not self._when():
                return False
            self._losing -= 1
            self.lost += 1
            return True
