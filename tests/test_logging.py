"""What the library has to tell goes through `logging`: silent by itself, shown by the command line."""

import logging
import sys
import warnings

import pytest

import keras_matting
from keras_matting.cli import main
from keras_matting.cli.status import saying_what_is_logged

LOGGER = logging.getLogger("keras_matting")


@pytest.fixture
def words(one_layer_dir, tmp_path, write_photo):
    return ["predict", str(write_photo(tmp_path / "a.png")), str(tmp_path / "b.png"), "--model", str(one_layer_dir)]


def test_the_library_prints_nothing_and_tells_whoever_listens(one_layer_dir, capfd, caplog):
    with caplog.at_level(logging.INFO, "keras_matting"):
        keras_matting.open_session(one_layer_dir).close()
    assert [record.name for record in caplog.records] == ["keras_matting.engines"]
    assert "Chosen by a quick probe" in caplog.text
    logging.getLogger("keras_matting.photos").warning("left out")
    assert capfd.readouterr() == ("", "")


def test_the_command_line_says_it_once_on_standard_error(words, capsys, monkeypatch):
    monkeypatch.setattr(LOGGER, "handlers", [logging.StreamHandler(sys.stderr)])  # of a service that ran before, say
    before = (LOGGER.handlers[:], LOGGER.level, LOGGER.propagate)
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("Chosen by a quick probe: ") == 1
    assert (LOGGER.handlers, LOGGER.level, LOGGER.propagate) == before


def test_a_command_that_fails_leaves_logging_as_it_was():
    before = LOGGER.handlers[:]
    with pytest.raises(ZeroDivisionError), saying_what_is_logged():
        1 / 0  # noqa: B018
    assert LOGGER.handlers == before


def test_a_service_that_cannot_start_leaves_logging_as_it_was(one_layer_dir, monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    before = (LOGGER.handlers[:], LOGGER.level, LOGGER.propagate, logging.getLogger().handlers, warnings.showwarning)
    assert main(["serve", "--model", str(one_layer_dir), "--engine", "quantum"]) != 0
    assert "quantum" in capsys.readouterr().err
    after = (LOGGER.handlers[:], LOGGER.level, LOGGER.propagate, logging.getLogger().handlers, warnings.showwarning)
    assert after == before
