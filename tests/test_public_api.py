"""What `import keras_matting` offers, and that it costs nothing until it is used."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import keras_matting
from keras_matting import matting
from keras_matting.session_cache import SessionCache

NAMES = [
    "EngineError",
    "ImageError",
    "MattingError",
    "OutputOptions",
    "Photo",
    "Session",
    "UsageError",
    "VideoResult",
    "WeightsError",
    "__version__",
    "confidence",
    "matte",
    "matte_video",
    "open_session",
]


def test_the_public_names_are_these():
    assert keras_matting.__all__ == NAMES
    assert set(NAMES) <= set(dir(keras_matting))
    for name in NAMES:
        assert getattr(keras_matting, name) is not None
    assert not hasattr(keras_matting, "matte_everything")


def test_importing_the_package_imports_nothing_else():
    script = (
        "import sys\n"
        "import keras_matting\n"
        "loaded = {'numpy', 'cv2', 'keras', 'keras_matting.matting'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "from keras_matting import Session, UsageError\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_session_closes_itself_and_says_so_afterwards(one_layer_dir):
    with keras_matting.open_session(one_layer_dir, "onnx-cpu") as session:
        blank = np.zeros((1, 64, 64, 3), np.float32)
        assert session.predict(blank).shape == (1, 64, 64, 1)
    with pytest.raises(keras_matting.UsageError, match="an open session; this one of one_layer is closed"):
        session.predict(blank)
    session.close()


class Recorded:
    """A session that notes whether it is closed."""

    def __init__(self, name):
        self.name, self.closed = name, 0

    def close(self):
        self.closed += 1


def test_an_evicted_session_is_closed():
    opened = []
    cache = SessionCache(lambda name: opened.append(Recorded(name)) or opened[-1], size=2)
    for name in "abac":
        with cache.lend(name) as session:
            assert (session.name, session.closed) == (name, 0)
    assert [(session.name, session.closed) for session in opened] == [("a", 0), ("b", 1), ("c", 0)]


def test_a_session_in_use_is_closed_when_its_last_user_gives_it_back():
    cache = SessionCache(Recorded, size=1)
    with cache.lend("a") as session:
        with cache.lend("a") as same:
            assert same is session
            with cache.lend("b"):
                assert not session.closed
        assert not session.closed
    assert session.closed == 1
    with cache.lend("a") as another:
        assert another is not session


def test_a_session_that_cannot_be_opened_costs_no_other_its_place():
    def open_session(name):
        if name == "broken":
            raise keras_matting.EngineError("broken")
        return Recorded(name)

    cache = SessionCache(open_session, size=1)
    with cache.lend("a") as session:
        pass
    with pytest.raises(keras_matting.EngineError), cache.lend("broken"):
        pass
    with cache.lend("a") as again:
        assert again is session and not session.closed


def test_a_model_is_opened_once_however_many_threads_ask_and_open_ones_need_not_wait():
    opened, may_go_on = [], threading.Event()

    def open_session(name):
        opened.append(name)
        if name == "slow":
            assert may_go_on.wait(60)
        return Recorded(name)

    cache = SessionCache(open_session, size=2)
    with cache.lend("ready"):
        pass

    def use(name):
        with cache.lend(name):
            pass

    waiting = [threading.Thread(target=use, args=("slow",)) for _ in range(4)]
    for thread in waiting:
        thread.start()
    use("ready")  # while "slow" is being opened
    may_go_on.set()
    for thread in waiting:
        thread.join(60)
    assert opened == ["ready", "slow"]


def test_a_fifth_model_closes_the_engine_of_the_first(one_layer_dir, photo, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(matting.Session, "close", lambda self: closed.append(self.model_dir.name))
    monkeypatch.setattr(matting, "_sessions", SessionCache(matting.open_session, size=4))
    for number in range(5):
        (tmp_path / f"m{number}").symlink_to(one_layer_dir)
        keras_matting.matte(photo, tmp_path / f"m{number}", "onnx-cpu")
    assert closed == ["m0"]
