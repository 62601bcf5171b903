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


def test_the_compiler_ends_with_the_service(compiling):
    _, begun = compiling

    async def end():
        refiner, others = refining.Refiner(), set(psutil.Process().children())
        refiner.start()
        while not begun.exists():
            await asyncio.sleep(0.01)
        (child,) = set(psutil.Process().children()) - others
        await refiner.close()
        return child

    assert not asyncio.run(end()).is_running()


@pytest.mark.parametrize("place", ["pymatting/util/__pycache__", "elsewhere/util_1"])
def test_nothing_is_compiled_at_the_start_where_that_was_done(compiling, tmp_path, monkeypatch, place):
    assert refine.is_compiled() is False
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "boxfilter.nbi").touch()
    if place.startswith("elsewhere"):
        assert refine.is_compiled() is False
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert refine.is_compiled() is True
    refiner = refining.Refiner()
    refiner.start()  # outside of a loop, where no task can be created
    asyncio.run(refiner.close())


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
