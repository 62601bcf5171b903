"""The service against the bare engine, in one run on this machine: latency, throughput, overload, memory.

keras-matting must be installed with its `serve` and `test` extras. Prints ratios; a minute or more for each part. With
wrk installed (Debian has it), it is what 16 clients ask with, since a client in Python takes a part of the cores that
it asks for; httpx otherwise.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import psutil

from keras_matting.matting import OutputOptions, open_session

MIB = 2**20
CLIENTS = 16
WRK_S = 12
WRK_SCRIPT = """
wrk.method, wrk.body = "POST", io.open(os.getenv("PHOTO"), "rb"):read("*all")
"""


def main():
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--model", default="saved_models/u2netp")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flood-s", type=float, default=60, help="how long 200 clients ask")
    parser.add_argument("--soak", type=int, default=3000, help="requests of the soak")
    arguments = parser.parse_args()
    photo = arguments.photo.read_bytes()
    session = open_session(arguments.model, arguments.engine)
    with Service(arguments.model, session.engine.name) as service:
        print(f"{session.preset.name}, {session.engine.name}, {arguments.photo.name}, {os.cpu_count()} cores\n")
        compare(session, service, arguments.photo, arguments.rounds)
        flood(service, photo, arguments.flood_s)
        soak(service, photo, arguments.soak)


class Service:
    """`keras-matting serve` in a process of its own."""

    def __init__(self, model, engine):
        self._command = [sys.executable, "-m", "keras_matting.cli", "serve", "--model", str(model), "--engine", engine]

    def __enter__(self):
        environment = {**os.environ, "KERAS_MATTING_PORT": "0", "KERAS_MATTING_LOG_LEVEL": "info"}
        start = time.perf_counter()
        self.process = subprocess.Popen(self._command, env=environment, stderr=subprocess.PIPE, text=True)
        self.url = next(line["url"] for line in map(json.loads, self.process.stderr) if "url" in line)
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        with httpx.Client() as client:
            while client.get(f"{self.url}/readyz").status_code != 200:
                time.sleep(0.02)
        print(f"Ready {time.perf_counter() - start:.2f} s after its start.")
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    @property
    def memory_mib(self):
        """Its resident memory."""
        return psutil.Process(self.process.pid).memory_info().rss / MIB


def compare(session, service, path, rounds):
    """Print p50 with one client and images/s with 16, both against the library in this process, in turns."""
    latencies, rates, photo = [], [], path.read_bytes()
    batch = np.zeros((1, *session.engine.size, 3), np.float32)
    for _ in range(rounds):
        bare = statistics.median(timed(lambda: library(session, photo)) for _ in range(15))
        with httpx.Client() as client:
            served = statistics.median(
                timed(lambda: client.post(f"{service.url}/v1/matte", content=photo)) for _ in range(15)
            )
        latencies.append(served / bare)
        # The engine before and after, since a shared machine's pace changes meanwhile.
        alone = [timed(lambda: session.predict(batch)) for _ in range(20)]
        if shutil.which("wrk"):
            served = wrk(service, path)
        else:
            served = asyncio.run(throughput(service, photo, CLIENTS, requests=64))
        alone += [timed(lambda: session.predict(batch)) for _ in range(20)]
        rates.append(served * statistics.mean(alone))
    print(f"p50, one client: {spread(latencies)} x decoding, engine and encoding in this process")
    by = "wrk" if shutil.which("wrk") else "httpx"
    print(f"images/s, {CLIENTS} clients of {by}: {spread(rates)} x the engine alone")


def library(session, photo):
    """Do what the service does with a photo."""
    from keras_matting_api import photos

    decoded = photos.decode(photo, photos.Limits())
    return photos.encode(session.matte(decoded, OutputOptions()), "image/png")


def wrk(service, path):
    """Return images/s of 16 clients that always ask, by wrk."""
    command = ["wrk", "--threads", "1", "--connections", str(CLIENTS), "--duration", f"{WRK_S}s", "--timeout", "60s"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK_SCRIPT)
        script.flush()
        done = subprocess.run(
            [*command, "--script", script.name, f"{service.url}/v1/matte"],
            env={**os.environ, "PHOTO": str(path)},
            capture_output=True,
            text=True,
            check=True,
        )
    assert "Non-2xx" not in done.stdout and "Socket errors" not in done.stdout, done.stdout
    return float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])


async def throughput(service, photo, clients, requests):
    """Return images/s of so many clients that always ask."""
    left = iter(range(requests))

    async def ask(client):
        for _ in left:
            response = await client.post(f"{service.url}/v1/matte", content=photo)
            assert response.status_code == 200, response.text

    async with httpx.AsyncClient(timeout=120) as client:
        start = time.perf_counter()
        await asyncio.gather(*(ask(client) for _ in range(clients)))
        return requests / (time.perf_counter() - start)


def flood(service, photo, seconds, clients=200):
    """Print what 200 clients get who do not wait, what memory that takes, and when one client is served again."""
    before, peak = service.memory_mib, 0.0
    answers = Counter()

    async def ask(client, until):
        nonlocal peak
        while time.perf_counter() < until:
            try:
                response = await client.post(f"{service.url}/v1/matte", content=photo)
                answers[response.status_code] += 1
                if response.status_code == 503:
                    assert int(response.headers["retry-after"]) >= 1
                    await asyncio.sleep(0.25)  # less than it asks for
            except httpx.HTTPError as error:
                answers[type(error).__name__] += 1
            peak = max(peak, service.memory_mib)

    async def main():
        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(timeout=120, limits=limits) as client:
            until = time.perf_counter() + seconds
            await asyncio.gather(*(ask(client, until) for _ in range(clients)))

    asyncio.run(main())
    start = time.perf_counter()
    response = httpx.post(f"{service.url}/v1/matte", content=photo, timeout=60)
    recovery = time.perf_counter() - start
    print(f"{clients} clients, {seconds:g} s: answers {dict(answers)}; memory {before:.0f} -> {peak:.0f} MiB at most;")
    print(f"the next single request: {response.status_code} after {recovery:.2f} s")


def soak(service, photo, requests):
    """Print how memory grows over many requests: the slope of a line through it, after a warm-up."""
    memory = []
    step = max(1, requests // 30)
    for done in range(0, requests, step):
        asyncio.run(throughput(service, photo, clients=4, requests=step))
        memory.append((done + step, service.memory_mib))
    settled = np.array(memory[len(memory) // 5 :])
    slope = np.polyfit(settled[:, 0], settled[:, 1], 1)[0] * 1000
    print(
        f"{requests} requests: memory {memory[0][1]:.0f} -> {memory[-1][1]:.0f} MiB; {slope:+.2f} MiB in 1000 requests"
    )


def timed(function):
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def spread(values):
    """Return the median and the extremes as text."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
