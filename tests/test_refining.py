"""pymatting compiles itself when it is first imported on a machine: what the service does until then."""

import asyncio
import importlib
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from keras_matting_api import refining
from keras_matting_api.problems import ProblemError
from server import post, start_server
from waiting import wait_until

from keras_matting.photos import refine

STAND_IN = """
import time
from pathlib import Path

def estimate_foreground_ml(image, alpha, return_background):
    return image, image

while Path({hold!r}).exists():
    Path({begun!r}).touch()
    time.sleep(0.01)
"""


@pytest.fixture
def compiling(tmp_path, monkeypatch):
    """A pymatting that takes until `hold` is gone to be imported; what it touches when that begins."""
    folder, hold, begun = (tmp_path / name for name in ("pymatting", "hold", "begun"))
    folder.mkdir()
    hold.touch()
    (folder / "__init__.py").write_text(STAND_IN.format(hold=str(hold), begun=str(begun)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pymatting", raising=False)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    importlib.invalidate_caches()
    yield hold, begun
    hold.unlink(missing_ok=True)
    sys.modules.pop("pymatting", None)


def test_what_is_to_be_refined_waits_for_the_compiler_and_plain_photos_do_not(compiling, one_layer_dir, jpeg):
    hold, begun = compiling
    with start_server(one_layer_dir) as server, ThreadPoolExecutor(1) as pool:
        wait_until(begun.exists)  # before anybody has asked
        refined = pool.submit(post, server, jpeg, params={"foreground": "1"})
        assert post(server, jpeg)[0] == 200
        assert not refined.done()
        hold.unlink()
        assert refined.result()[0] == 200


def test_who_waits_too_long_for_the_compiler_is_told_to_come_back_and_then_served(compiling):
    hold, _ = compiling

    async def ask():
        refiner = refining.Refiner()
        with pytest.raises(ProblemError, match="refine") as told:
            await refiner.ready(0)
        hold.unlink()
        await refiner.ready(120)
        await refiner.close()
        return told.value

    problem = asyncio.run(ask())
    assert (problem.code, problem.status) == ("not_ready", 503)
    assert problem.retry_after_s > 0
    assert "Ask again" in problem.remedy


def test_the_compiler_ends_with_the_service(compiling, monkeypatch):
    _, begun = compiling
    monkeypatch.setattr(refining, "_BEGINS_S", 0)

    async def end():
        refiner, others = refining.Refiner(), set(psutil.Process().children())
        refiner.start()
        async with asyncio.timeout(120):
            while not begun.exists():
                await asyncio.sleep(0.01)
        (child,) = set(psutil.Process().children()) - others
        await refiner.close()
        return child

    assert not asyncio.run(end()).is_running()


def test_a_service_that_ends_at_once_compiles_nothing(compiling, monkeypatch):
    begun = []

    async def end():
        refiner = refining.Refiner()
        monkeypatch.setattr(refiner, "_compile", lambda: begun.append(True))
        monkeypatch.setattr(refining, "_BEGINS_S", 0.01)
        refiner.start()
        await refiner.close()
        await asyncio.sleep(0.05)

    asyncio.run(end())
    assert not begun


def test_a_compiler_that_fails_is_logged_and_waited_for_no_longer(compiling, tmp_path, caplog):
    (tmp_path / "pymatting" / "__init__.py").write_text("raise RuntimeError('no locator available')")
    caplog.set_level(logging.WARNING, "keras_matting_api")

    async def ask():
        refiner = refining.Refiner()
        await refiner.ready(120)
        await refiner.close()

    asyncio.run(ask())
    assert "RuntimeError: no locator available" in caplog.text


@pytest.mark.parametrize("place", ["pymatting/util/__pycache__", "elsewhere/util_1"])
def test_pymatting_was_compiled_where_numba_keeps_something_of_it(compiling, tmp_path, monkeypatch, place):
    assert refine._was_compiled() is False
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "boxfilter.nbi").touch()
    if place.startswith("elsewhere"):
        assert refine._was_compiled() is False
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert refine._was_compiled() is True


def test_whoever_waits_for_the_compiler_is_told_of_it(compiling, caplog):
    hold, _ = compiling
    hold.unlink()
    caplog.set_level(logging.INFO, "keras_matting")
    matte = np.full((4, 4), 0.5, np.float32)
    for _ in range(2):
        refine.estimate_foreground(np.zeros((4, 4, 3), np.uint8), matte)
    assert [record.getMessage() for record in caplog.records] == [
        "pymatting may have to compile itself now: about a minute, once on a machine."
    ]
