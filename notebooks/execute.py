"""Execute notebooks from a clean state and keep their outputs: `python notebooks/execute.py [NOTEBOOK ...]`."""

import asyncio
import hashlib
import json
import os
import re
import sys
from pathlib import Path

import nbformat
import zmq
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
REPOSITORY = "keras-matting/keras_matting"
MAX_BYTES = 1_500_000
CELL_SECONDS = 1800
LOOK_SECONDS = 1.0
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# The second cell of each notebook.
SETUP = f"""\
import os
import sys
from pathlib import Path

if "google.colab" in sys.modules:
    %pip install --quiet "keras-matting[cpu,demo,notebooks,refine,serve,train] @ git+https://github.com/{REPOSITORY}"

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow reports errors only
here = Path.cwd()
os.chdir(next((folder for folder in (here, *here.parents) if (folder / "saved_models").is_dir()), here))
%config InlineBackend.figure_formats = ["jpeg"]
%config InlineBackend.print_figure_kwargs = {{"bbox_inches": "tight", "pil_kwargs": {{"quality": 90}}}}"""
# Of TensorFlow: what it says when it is imported, before it reads TF_CPP_MIN_LOG_LEVEL, and what it tells in a notebook
# though there is no cause ("Assets written to ...").
_NOTICE = re.compile(
    r"^(?:WARNING: All log messages before absl::InitializeLog\(\)|I\d{4} [\d:.]+ +\d+ \w+\.cc:|INFO:tensorflow:).*\n?",
    re.MULTILINE,
)
# What has to be asked of a running kernel: a reader would see an error, or how Python writes it.
_WIDGET = "application/vnd.jupyter.widget-view+json"
# Where Linux, macOS and Colab keep what is one machine's own.
_ABSOLUTE = re.compile(r"(?<![\w.:/~-])/(?:Users|content|home|mnt|opt|private|root|tmp|usr|var|work)/[\w.-]+")


def notebooks():
    """Return the paths of all notebooks, in order."""
    return sorted(path for path in FOLDER.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def read(path):
    """Return the notebook in a file; raises `nbformat.ValidationError` if it is none."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def badge(path):
    """Return the Markdown of the link that opens a notebook in Colab."""
    colab = "https://colab.research.google.com"
    page = f"{colab}/github/{REPOSITORY}/blob/main/notebooks/{path.relative_to(FOLDER).as_posix()}"
    return f"[![Open in Colab]({colab}/assets/colab-badge.svg)]({page})"


def digest(notebook):
    """Return the SHA-256 of the code cells' sources; the text around them may be mended without a new run."""
    sources = [cell.source for cell in code_cells(notebook)]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def code_cells(notebook):
    """Return the cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def execute(notebook, folder):
    """Run all cells in a new kernel whose working directory is `folder`; the notebook gets their outputs.

    Raises `nbclient.exceptions.CellExecutionError` at the first cell that fails.
    """
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count, cell.metadata = [], None, nbformat.NotebookNode()
    # Under pytest, ipykernel would not show what libraries of C++ log.
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name=METADATA["kernelspec"]["name"],
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=True,  # or an output within a widget is not found; it is not kept in the file
        resources={"metadata": {"path": str(folder)}},
    )
    asyncio.run(_run(client, environment))
    for cell in code_cells(notebook):
        cell.outputs = [output for output in map(_without_notices, cell.outputs) if _is_shown(output)]
    notebook.metadata = nbformat.from_dict(METADATA | {"executed": {"cells": digest(notebook)}})


async def _run(client, environment):
    looking = asyncio.create_task(_look_for_replies(client))
    try:
        await client.async_execute(env=environment)
    finally:
        looking.cancel()


async def _look_for_replies(client):
    """Ask the sockets now and then whether something came.

    pyzmq 27 is not always told, and would wait for ever for a reply that is there; to ask makes it look.
    """
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if client.kc is not None and client.kc.channels_running:
            for channel in (client.kc.shell_channel, client.kc.iopub_channel):
                channel.socket.get(zmq.EVENTS)


def _without_notices(output):
    if output.output_type == "stream":
        output.text = _NOTICE.sub("", output.text)
    return output


def _is_shown(output):
    """Whether there is anything to see in a file."""
    return output.get("text") != "" and _WIDGET not in output.get("data", {})


def problems(notebook):
    """Return what is wrong with a notebook's outputs, a line for each fault: they must be those of one clean run."""
    executed = notebook.metadata.get("executed", {}).get("cells")
    found = [] if executed == digest(notebook) else ["its outputs are not those of its code: execute it again"]
    cells = code_cells(notebook)
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("its cells were not executed once, in order")
    for cell in cells:
        place = f"cell {cell.execution_count} ({cell.source[:40]!r})"
        for output in cell.outputs:
            found += [f"{place}: {problem}" for problem in _problems_of_output(output)]
    if (size := len(nbformat.writes(notebook).encode())) > MAX_BYTES:
        found.append(f"{size} bytes, more than {MAX_BYTES}: fewer or smaller pictures")
    return found


def _problems_of_output(output):
    if output.output_type == "error":
        yield f"an error, {output.ename}"
    if output.get("name") == "stderr":
        yield f"warnings or logs: {output.text[:300]!r}"
    data = output.get("data", {})
    texts = [output.get("text", ""), *(str(data[kind]) for kind in data if not kind.startswith("image/"))]
    for text in texts:
        if path := _ABSOLUTE.search(text):
            yield f"a path of one machine, {path[0]}"


def main(arguments):
    """Execute the named notebooks, or all, in place; return an exit status. One with a problem is left as it was."""
    status = 0
    for path in [Path(argument).resolve() for argument in arguments] or notebooks():
        notebook = read(path)
        print(f"{path.name}: executing", flush=True)
        execute(notebook, path.parent)
        found = problems(notebook)
        if found:
            status = 1
            print(*(f"{path.name}: {problem}" for problem in found), sep="\n", file=sys.stderr)
        else:
            nbformat.write(notebook, path)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
