"""Print, from one run, how our best gated engine compares with peers on this machine, as Markdown.

usage: python benchmarks/speed.py MODEL_DIR [--peer-onnx FILE] [--rounds N]

Peers: ONNX Runtime in float32 on FILE (rembg's own u2netp.onnx or u2net.onnx), and, for MODNet where PyTorch is
installed, PyTorch in eager mode on the module of tests/torch_modnet.py, which reproduces the official outputs. Ours and
the peers take turns, in rounds; ratios are medians of the rounds' ratios.
"""

import argparse
import logging
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np

from keras_matting import telemetry
from keras_matting.engines import open_engine
from keras_matting.model_folder import Preset


def onnx_peer(path):
    with telemetry.switched_off():
        import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image.transpose(0, 3, 1, 2)})


def pytorch_modnet():
    import goldens
    import torch
    import torch_modnet

    model = torch_modnet.from_state_dict(goldens.formula_state_dict("modnet"))

    def call(image):
        with torch.no_grad():
            return model(torch.from_numpy(image.transpose(0, 3, 1, 2)), inference=True)

    return call


def milliseconds(call, image, calls=3):
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call(image)
        times.append((time.perf_counter() - start) * 1000)
    return float(np.median(times))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--engine", default="auto", help="ours (default: the verdict of the model folder's benchmark)")
    parser.add_argument("--peer-onnx", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    preset = Preset.load(arguments.model_dir)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    engine = open_engine(arguments.engine, arguments.model_dir)
    calls = {f"ours: {engine.name}": engine.predict}
    if arguments.peer_onnx:
        calls[f"ONNX Runtime float32 on {arguments.peer_onnx.name}"] = onnx_peer(arguments.peer_onnx)
    if preset.architecture == "modnet":
        calls["PyTorch eager float32"] = pytorch_modnet()
    image = np.random.default_rng(0).uniform(-1, 1, (1, *preset.input_size, 3)).astype("float32")
    for call in calls.values():
        milliseconds(call, image)
    rounds = [{name: milliseconds(call, image) for name, call in calls.items()} for _ in range(arguments.rounds)]
    ours = next(iter(calls))
    print(f"| {preset.name} at {preset.input_size} | median ms | ours is faster by |\n|---|---:|---:|")
    for name in calls:
        ratio = np.median([timed[name] / timed[ours] for timed in rounds])
        print(f"| {name} | {np.median([timed[name] for timed in rounds]):.1f} | {ratio:.2f} x |")


if __name__ == "__main__":
    main()
