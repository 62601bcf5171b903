"""Print which engine `keras-matting benchmark` chooses on a quiet machine and on a busy one, as Markdown.

usage: python benchmarks/busy_verdict.py MODEL_DIR [--engines A,B] [--runs 10] [--busy 2] [--rounds 9] [--max-rounds 72]

Quiet and busy runs alternate; during a busy one, `--busy` other processes compute without a pause. The benchmark runs
on a copy of the model folder, whose own verdict stays, and on a few photos of the gate half: what is tried is speed.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from keras_matting.photos.samples import FOLDER

PHOTOS = 3
CONDITIONS = ("quiet", "busy")
SPIN = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"  # until this script ends, however it does


@contextmanager
def busy(processes):
    """Keep the machine busy with so many processes while the block runs."""
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def verdict_of(arguments, model_dir, photos):
    """Run the benchmark once and return its report."""
    report = model_dir.parent / "report.json"
    command = [sys.executable, "-m", "keras_matting.cli", "benchmark", model_dir, "--photos", photos, "--batches", "1"]
    command += ["--no-baselines", "--json", report]
    command += ["--rounds", str(arguments.rounds), "--max-rounds", str(arguments.max_rounds)]
    command += ["--engines", arguments.engines] if arguments.engines else []
    subprocess.run(command, check=True, capture_output=True)
    return json.loads(report.read_text(encoding="utf-8"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--engines", help="as benchmark takes them (default: all that run here)")
    parser.add_argument("--runs", type=int, default=10, help="of each kind (default: 10)")
    parser.add_argument("--busy", type=int, default=2, help="processes that keep the machine busy (default: 2)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--max-rounds", type=int, default=72)
    arguments = parser.parse_args()
    chosen = {condition: [] for condition in CONDITIONS}
    print("| run | machine | cores used by others | rounds | seconds | engine | certain |")
    print("|---:|---|---:|---:|---:|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        model_dir, photos = Path(scratch) / "model", Path(scratch) / "photos"
        shutil.copytree(arguments.model_dir, model_dir)
        photos.mkdir()
        for path in sorted((FOLDER / "gate").iterdir())[:PHOTOS]:
            shutil.copy(path, photos)
        for run in range(arguments.runs):
            for condition in CONDITIONS:
                start = time.monotonic()
                with busy(arguments.busy if condition == "busy" else 0):
                    report = verdict_of(arguments, model_dir, photos)
                verdict, load = report["verdict"], report["load"]
                chosen[condition].append(verdict["engine"])
                seconds = f"{time.monotonic() - start:.0f}"
                cells = (run + 1, condition, load["cores_taken"], len(load["rounds"]), seconds)
                print("|", " | ".join(map(str, (*cells, verdict["engine"], verdict["certain"]))), "|", flush=True)
    usual, _ = Counter(chosen["quiet"]).most_common(1)[0]
    for condition in CONDITIONS:
        print(f"\n{condition}: {usual} in {chosen[condition].count(usual)} of {arguments.runs}", end="")
    print()


if __name__ == "__main__":
    main()
