"""The notebooks: each runs from a clean state, and what is committed is what such a run left."""

import re
import sys

import nbformat
import pytest
import zmq.asyncio
from conftest import ROOT

sys.path.insert(0, str(ROOT / "notebooks"))

import execute

NOTEBOOKS = execute.notebooks()
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def notebook_of(*sources):
    """Return an executed notebook of these code cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    execute.execute(notebook, ROOT / "notebooks")
    return notebook


@each_notebook
def test_committed_outputs_are_those_of_a_clean_run_of_the_committed_code(path):
    assert not execute.problems(execute.read(path))


@each_notebook
def test_a_notebook_opens_with_its_title_its_badge_and_the_shared_setup(path):
    first, second = execute.read(path).cells[:2]
    title, badge = [line for line in first.source.splitlines() if line][:2]
    assert title.startswith("# ")
    assert badge == execute.badge(path)
    assert second.source == execute.SETUP


@each_notebook
def test_a_notebook_has_the_metadata_of_any_machine_and_no_more(path):
    assert execute.read(path).metadata.keys() == {*execute.METADATA, "executed"}
    assert execute.METADATA.items() <= execute.read(path).metadata.items()


@each_notebook
def test_the_folder_s_page_leads_to_every_notebook(path):
    page = (ROOT / "notebooks/README.md").read_text(encoding="utf-8")
    assert f"]({path.relative_to(execute.FOLDER).as_posix()})" in page


@each_notebook
def test_files_that_a_notebook_links_to_exist(path):
    for cell in execute.read(path).cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)\s#]+)", cell.source):
                assert ":" in link or (path.parent / link).exists(), link


@each_notebook
@pytest.mark.long
def test_a_notebook_runs_from_a_clean_state(path):
    notebook = execute.read(path)
    execute.execute(notebook, path.parent)
    assert not execute.problems(notebook)


@pytest.mark.parametrize(
    "code, problem",
    [
        ("import warnings\nwarnings.warn('old')", "warnings or logs"),
        ("import os\nos.write(2, b'a log of C++\\n')\nprint('')", "warnings or logs"),
        ("print('saved /home/me/model.onnx')", "a path of one machine, /home/me"),
        ("from IPython.display import HTML\nHTML('<img src=\"/tmp/x.png\">')", "a path of one machine, /tmp/x.png"),
        ("print('0123456789\\n' * 200_000)", "more than"),
    ],
    ids=["warning", "native log", "path", "path in HTML", "size"],
)
def test_outputs_that_do_not_belong_in_the_repository_are_named(code, problem):
    assert any(problem in line for line in execute.problems(notebook_of(code)))


def test_a_reply_of_whose_arrival_nothing_is_told_is_found(monkeypatch):
    monkeypatch.setattr(zmq.asyncio.Socket, "_init_io_state", lambda socket, loop=None: None)  # pyzmq hears of none
    monkeypatch.setattr(execute, "LOOK_SECONDS", 0.01)
    assert notebook_of("6 * 7").cells[0].outputs[0].data["text/plain"] == "42"


def test_clean_outputs_have_no_problems():
    assert not execute.problems(notebook_of("print('runs/notebooks/x, and/or, https://host/tmp/x')", "1 + 1"))


def test_what_tensorflow_tells_without_a_cause_is_left_out_and_its_warnings_are_not():
    notice = "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n"
    notice += "INFO:tensorflow:Assets written to: runs/x\\n"
    lines = ["I0000 00:00:1795690510.4 27305 port.cc:153] on.\\n", "W0000 00:00:1795690510.4 27305 x.cc:1] old.\\n"]
    code = "import sys\nsys.stderr.write('{}')\nprint('done')"
    assert not execute.problems(notebook_of(code.format(notice + lines[0])))
    assert "warnings or logs: 'W0000" in execute.problems(notebook_of(code.format("".join(lines))))[0]


def test_a_widget_that_needs_a_kernel_is_not_kept():
    notebook = notebook_of("from ipywidgets import IntSlider\nprint('a slider')\nIntSlider()")
    assert [output.output_type for output in notebook.cells[0].outputs] == ["stream"]


def test_a_changed_cell_makes_the_outputs_stale_and_a_changed_text_does_not():
    notebook = notebook_of("1 + 1")
    notebook.cells.append(nbformat.v4.new_markdown_cell("Two."))
    assert not execute.problems(notebook)
    notebook.cells[0].source = "1 + 2"
    assert execute.problems(notebook) == ["its outputs are not those of its code: execute it again"]


def test_a_notebook_with_a_problem_is_left_as_it_was(tmp_path, capsys):
    path = tmp_path / "bad.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('/tmp/x')")]), path)
    before = path.read_bytes()
    assert execute.main([str(path)]) == 1
    assert path.read_bytes() == before
    assert "a path of one machine" in capsys.readouterr().err
