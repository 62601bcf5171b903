import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from keras_matting.errors import UsageError
from keras_matting.files import put_in_place, replaced_folder, require_writable, write_atomically


def test_threads_may_write_the_same_file(tmp_path):
    path = tmp_path / "same.bin"
    contents = [bytes([index]) * 1000 for index in range(200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: write_atomically(path, data), contents))
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_file_name_can_be_written(tmp_path):
    write_atomically(tmp_path / ("a" * 251 + ".png"), b"x")


def test_a_folder_takes_the_place_of_another_only_when_it_is_whole(tmp_path):
    target = tmp_path / "folder"
    with replaced_folder(target) as folder:
        (folder / "old").touch()
    with pytest.raises(ZeroDivisionError), replaced_folder(target) as folder:
        (folder / "half").touch()
        raise ZeroDivisionError
    assert [path.name for path in target.iterdir()] == ["old"]
    with replaced_folder(target) as folder:
        (folder / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_goes_and_what_others_still_write_stays(tmp_path):
    target = tmp_path / "engine[1]"
    script = f"""
import os, signal
from keras_matting.files import replaced_folder
with replaced_folder({str(target)!r}):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    (abandoned,) = tmp_path.iterdir()
    with replaced_folder(target) as first, replaced_folder(target) as second:
        assert not abandoned.exists()
        assert first.is_dir() and second.is_dir()
    assert list(tmp_path.iterdir()) == [target]


KILLED_WITHIN = """
import os, signal, sys
from pathlib import Path
from keras_matting.files import replaced_folder
rename = Path.rename

def rename_and_die(self, target):
    rename(self, target)
    os.kill(os.getpid(), signal.SIGKILL)

with replaced_folder(sys.argv[1]) as folder:
    (folder / "new").touch()
    Path.rename = rename_and_die
"""


def test_a_folder_whose_replacement_was_killed_half_way_is_put_back(tmp_path):
    target = tmp_path / "folder"
    with replaced_folder(target) as folder:
        (folder / "before").touch()
    killed = subprocess.run([sys.executable, "-c", KILLED_WITHIN, str(target)])
    assert killed.returncode == -signal.SIGKILL and not target.exists()
    with pytest.raises(ZeroDivisionError), replaced_folder(target):
        raise ZeroDivisionError
    assert [path.name for path in target.iterdir()] == ["before"]
    with replaced_folder(target) as folder:
        (folder / "after").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "after"]


def test_a_folder_that_is_filled_by_another_block_stays_held(tmp_path):
    with replaced_folder(tmp_path / "model") as outer:
        with replaced_folder(outer) as inner:
            (inner / "weights").touch()
        _another_process_begins(tmp_path / "model")
        assert (outer / "weights").exists()
    assert (tmp_path / "model" / "weights").exists()


def _another_process_begins(path):
    code = "import sys; from keras_matting.files import replaced_folder; replaced_folder(sys.argv[1]).__enter__()"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_a_file_that_takes_the_place_of_another_is_there_all_the_time(tmp_path):
    target, stop, missing = tmp_path / "model.onnx", Event(), []
    target.touch()

    def look():
        while not stop.is_set():
            if not target.exists():
                missing.append(True)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        for number in range(300):
            source = tmp_path / f"new{number}"
            source.touch()
            put_in_place(source, target)
        stop.set()
        looking.result()
    assert not missing


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="Expected to write into"):
        require_writable(tmp_path / "file" / "folder")
