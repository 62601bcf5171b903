"""What tests of the service wait for, instead of sleeping: a condition, most often of the service's own metrics."""

import time

import httpx


def wait_until(condition, timeout_s=30):
    """Return as soon as `condition()` is true; fails if that takes longer."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "what was waited for did not come"
        time.sleep(0.05)


def metric(server, start):
    """Return the sum of the service's metrics whose lines begin so."""
    lines = httpx.get(f"{server.url}/metrics", timeout=30).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(start))
