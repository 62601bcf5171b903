"""How fast a training step is: ours, composed as Keras does it by itself, and PyTorch's, in interleaved rounds.

    python benchmarks/training_speed.py --model u2netp --size 320 --batch 4 --rounds 5

Every variant trains in a process of its own on the same random batch; the processes take turns, one step each, so that
a machine that gets slower does so for all. "keras" is Keras's batch norm, Adam, resize and choice of XLA, which is what
`train` used before. "pytorch" is the official training loop's step (cross-entropy of the seven maps, Adam) on the
module of tests/torch_u2net.py, channels last, in bfloat16 by autocast. Prints photos/s (median over the rounds),
processor seconds a step, which other processes disturb less, the first step's seconds (graph and kernels included), and
the peak of the process's memory.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

VARIANTS = (
    "keras float32",
    "keras mixed_bfloat16",
    "ours float32",
    "ours mixed_bfloat16",
    "pytorch float32",
    "pytorch bfloat16",
)
TESTS = Path(__file__).parents[1] / "tests"


def main():
    """Measure what the command line asks for, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="u2netp", choices=("u2netp", "u2net"))
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    workers = {name: start(name, arguments) for name in arguments.variants}
    rows = {name: [step(worker)] for name, worker in workers.items()}
    for _ in range(arguments.rounds):
        for name, worker in workers.items():
            rows[name].append(step(worker))
    print(
        f"{arguments.model}, {arguments.size}x{arguments.size}, batch {arguments.batch}, load {os.getloadavg()[0]:.1f}"
    )
    print("| variant | photos/s | CPU s a step | first step s (CPU s) | peak GB |")
    print("|---|---|---|---|---|")
    for name, (first, *later) in rows.items():
        print(row(name, arguments.batch, first, later))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()


def row(name, batch, first, later):
    """Return a line of the table out of the first step's record and those of the later ones."""
    wall, cpu = (statistics.median(record[key] for record in later) for key in ("wall_s", "cpu_s"))
    peak = later[-1]["peak_gb"]
    return f"| {name} | {batch / wall:.2f} | {cpu:.2f} | {first['wall_s']:.0f} ({first['cpu_s']:.0f}) | {peak:.2f} |"


def start(name, arguments):
    """Start the process of a variant."""
    words = ["--worker", name, "--model", arguments.model, "--size", arguments.size, "--batch", arguments.batch]
    command = [sys.executable, __file__, *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def step(worker):
    """Let a process make a step; return its record."""
    worker.stdin.write("step\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"A variant ended before its step: {worker.args}")
    return json.loads(line)


def work(arguments):
    """Make a step and print its record for every line on standard input."""
    make = prepare_pytorch if arguments.worker.startswith("pytorch") else prepare
    make_step = make(arguments)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        make_step()
        record = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        record["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(record), flush=True)


def prepare(arguments):
    """Return a function that makes a step of a variant on Keras."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    from keras_matting import architectures
    from keras_matting.models import build_model, layers
    from keras_matting.training.optimizers import FusedAdam

    origin, precision = arguments.worker.split()
    keras.config.set_dtype_policy(precision)
    adam, options = FusedAdam, {}
    if origin == "keras":
        layers.BatchNormalization.call = keras.layers.BatchNormalization.call
        layers.ResizeLike.call = resize_as_keras_does
        adam, options = keras.optimizers.Adam, {"jit_compile": "auto"}
    side, count = arguments.size, arguments.batch
    trainer = architectures.find(arguments.model).trainer("supervised", build_model(arguments.model, (side, side)))
    trainer.compile(optimizer=adam(1e-4, epsilon=1e-8), **options)
    trainer.optimizer.build(trainer.trainable_variables)  # as a run does
    image, alpha = batch_of(count, side)
    return lambda: trainer.train_on_batch(image, {"alpha": alpha, "trimap": alpha})


def prepare_pytorch(arguments):
    """Return a function that makes a step on PyTorch."""
    sys.path.insert(0, str(TESTS))
    import torch
    import torch_u2net

    network = torch_u2net.U2Net(torch_u2net.TABLES[arguments.model]).train().to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(network.parameters(), lr=1e-4, eps=1e-8, fused=True)
    image, alpha = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in batch_of(arguments.batch, arguments.size))

    def make_step():
        adam.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.worker.endswith("bfloat16")):
            maps = network.maps(image)
        sum(torch.nn.functional.binary_cross_entropy(one.float(), alpha) for one in maps).backward()
        adam.step()

    return make_step


def batch_of(count, side):
    """Return random photos and alphas, float32 (N, H, W, 3) and (N, H, W, 1)."""
    random = np.random.default_rng(0)
    image = random.normal(size=(count, side, side, 3)).astype("float32")
    return image, (random.random((count, side, side, 1)) > 0.5).astype("float32")


def resize_as_keras_does(layer, inputs):
    """`ResizeLike.call` without a cast of its own."""
    from keras import ops

    x, reference = inputs
    if x.shape[1:3] == reference.shape[1:3]:
        return x
    return ops.image.resize(x, ops.shape(reference)[1:3], interpolation="bilinear")


if __name__ == "__main__":
    main()
