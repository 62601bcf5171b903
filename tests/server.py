"""The real service in a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import cache
from urllib.parse import urlsplit

import httpx

_ENVIRONMENT = dict(os.environ)  # as it was before any test changed it
# The real server, with an engine that takes its time, waits while a file is there, or fails while another is.
_SCRIPT = """
import os, time
from pathlib import Path
from keras_matting import matting
from keras_matting_api.server import run
from keras_matting_api.settings import read_settings

predict = matting.Session.predict

def slowed(self, batch):
    time.sleep({pause_s})
    while Path({hold!r}).exists():
        time.sleep(0.01)
    if Path({switch!r}).exists():
        raise RuntimeError("the device is gone")
    return predict(self, batch)

matting.Session.predict = slowed
run(read_settings())
"""


def script(pause_s=0.0, switch="/nowhere", hold="/nowhere"):
    """Return a server whose engine takes `pause_s` more, waits while `hold` exists, and fails while `switch` does."""
    return _SCRIPT.format(pause_s=pause_s, switch=str(switch), hold=str(hold))


def post(server, jpeg, **options):
    """Return (status, seconds to wait before another try, code of the problem)."""
    with httpx.Client(timeout=60) as client:
        response = client.post(f"{server.url}/v1/matte", content=jpeg, **options)
    code = None if response.status_code == 200 else response.json()["code"]
    return response.status_code, response.headers.get("retry-after"), code


class Server:
    """A running service: `url`, `process`, and the JSON lines it has logged so far."""

    def __init__(self, process):
        self.process, self.url, self.lines = process, None, []
        self._listening = threading.Event()
        self._collector = threading.Thread(target=self._collect)
        self._collector.start()

    def _collect(self):
        for text in self.process.stderr:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"message": text}
            self.lines.append(line)
            if "url" in line:
                self.url = line["url"]
                self._listening.set()
        self._listening.set()

    def wait_until_ready(self, timeout_s=60):
        """Return itself when `/readyz` answers 200."""
        assert self._listening.wait(timeout_s) and self.url, self.lines
        until = time.monotonic() + timeout_s
        while time.monotonic() < until and self.process.poll() is None:
            if httpx.get(f"{self.url}/readyz").status_code == 200:
                return self
            time.sleep(0.05)
        raise AssertionError(self.lines)

    def connect(self, request=b"", buffer_bytes=None):
        """Return a bare connection on which some bytes were sent; `buffer_bytes` bounds what it takes unread."""
        address = urlsplit(self.url)
        connection = socket.socket()
        if buffer_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        connection.settimeout(30)
        connection.connect((address.hostname, address.port))
        connection.sendall(request)
        return connection

    def terminate(self):
        """Send SIGTERM, wait, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def end(self):
        """Kill it, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        self._collector.join()
        self.process.stderr.close()

    def logged(self, message):
        """Return the log lines with this message."""
        return [line for line in self.lines if line["message"] == message]


@cache
def have_pymatting_compiled():
    """Import pymatting once in a process, where it is installed: servers refuse to wait for its compiler for long."""
    subprocess.run([sys.executable, "-c", "import pymatting"], env=_ENVIRONMENT, stderr=subprocess.DEVNULL)


@contextmanager
def start_server(model_dir, *, engine="onnx-cpu", script=None, wait=True, **settings):
    """Run `keras-matting serve` on a free port, or a script in its place; `settings` go into its environment."""
    have_pymatting_compiled()
    command = [sys.executable, "-m", "keras_matting.cli", "serve"] if script is None else [sys.executable, "-c", script]
    given = {"models": model_dir, "engine": engine, "port": 0, "drain_s": 0, **settings}
    environment = {f"KERAS_MATTING_{name.upper()}": str(value) for name, value in given.items()}
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    server = Server(process)
    try:
        yield server.wait_until_ready() if wait else server
    finally:
        server.end()
