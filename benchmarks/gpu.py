"""The GPU benchmark, one phase a call, each within nine minutes; gpu.md has the order and the commands.

usage: python benchmarks/gpu.py PHASE MODEL_DIR... [--out FOLDER]

prepare   on a CPU, with Keras: export and lower the models, compute their outputs in float32
probe     what the machine is, and its ceilings (through PyTorch, where it is)
torch     PyTorch eager, in half precision and compiled
jax       Keras on JAX, where both are
smoke     TensorFlow's first matte, which tells whether TF-TRT can be measured in time
build     every engine that can be built here
measure   the engines side by side, at batches of 1, 8 and 32
report    all records as Markdown

All but `prepare` and `jax` stand on keras_matting.engines and prepared arrays, without Keras or OpenCV. Figures are
JSON files, one for each engine and batch; what is there is not measured again, so a phase that was cut is called again.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))

from gpu_phases.engines import FLOAT32, GPU_ENGINES, be_strict, strict_folder
from gpu_phases.records import Budget, Records

BUDGET_S = 500  # of the nine minutes; the last build or sweep may end later
PHASES = ("prepare", "probe", "torch", "jax", "smoke", "build", "measure", "report")


def main(words=None):
    arguments = _parser().parse_intermixed_args(words)
    records, budget = Records(arguments.out), Budget(arguments.budget_s)
    environment = f"py{sys.version_info[0]}{sys.version_info[1]}"
    if arguments.strict:
        be_strict()
        environment += "-strict"
        arguments.models = [strict_folder(model_dir) for model_dir in arguments.models]
        arguments.engines = tuple(name for name in arguments.engines if name in FLOAT32)
    left = _run(arguments, records, environment, budget)
    if left:
        say(f"left for another call: {', '.join(' '.join(map(str, one)) for one in left)}")
    return 1 if left else 0


def _run(arguments, records, environment, budget):
    phase, models = arguments.phase, arguments.models
    common = {"rounds": arguments.rounds, "budget": budget, "log": say}
    if phase == "prepare":
        from gpu_phases.prepare import prepare

        for model_dir in models:
            prepare(model_dir, say)
    elif phase == "probe":
        from gpu_phases.probe import probe

        probe(records, environment, arguments.device, say)
    elif phase == "smoke":
        from gpu_phases.probe import smoke

        smoke(records, environment, models[0], say)
    elif phase in ("torch", "jax"):
        return _measure_framework(phase, records, environment, models, arguments, common)
    elif phase == "build":
        from gpu_phases.build import build_engines

        return build_engines(records, environment, models, arguments.engines, max(arguments.batches), budget, say)
    elif phase == "measure":
        from gpu_phases.measure import measure

        return measure(records, environment, models, arguments.engines, arguments.batches, **common)
    else:
        from gpu_phases.report import report

        print(report(records, models))
    return []


def _measure_framework(name, records, environment, models, arguments, common):
    from gpu_phases.variants import measure_variants

    if name == "torch":
        from gpu_phases import torch_baselines as framework
    else:
        os.environ["KERAS_BACKEND"] = "jax"  # before anything imports Keras
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from gpu_phases import jax_baselines as framework
    batches, device = arguments.batches, arguments.device
    return measure_variants(framework, records, environment, models, batches, device=device, **common)


def _parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("phase", choices=PHASES)
    parser.add_argument("models", type=Path, nargs="*", help="model folders")
    parser.add_argument("--out", type=Path, default=Path("gpu_results"), help="folder of the records")
    parser.add_argument("--engines", type=_names, default=GPU_ENGINES, metavar="A,B", help="default: all for GPUs")
    parser.add_argument("--strict", action="store_true", help="build, measure: float32 without TensorFloat-32")
    parser.add_argument("--batches", type=_numbers, default=(1, 8, 32), metavar="1,8,32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="of PyTorch and JAX; cpu to rehearse")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help=f"start nothing after (default: {BUDGET_S})")
    return parser


def _names(text):
    return tuple(text.split(","))


def _numbers(text):
    return tuple(int(number) for number in text.split(","))


def say(message):
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
