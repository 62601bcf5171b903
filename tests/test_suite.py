"""How the tests themselves are run."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

TESTS = """
import pytest

def test_short():
    pass

@pytest.mark.long
def test_long():
    pass
"""


@pytest.mark.parametrize("until, told", [("1", "1 passed, 1 skipped"), ("4e9", "2 passed")])
def test_long_tests_are_left_out_and_named_when_their_time_is_over(tmp_path, until, told):
    (tmp_path / "test_both.py").write_text(TESTS)
    options = ["-p", "conftest", "-c", ROOT / "setup.cfg", "--rootdir", tmp_path, "-r", "s", "--long-until", until]
    command = [sys.executable, "-m", "pytest", *options, tmp_path / "test_both.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert told in done.stdout
    assert ("test_both.py::test_long not run: the time" in done.stdout) == ("skipped" in told)
