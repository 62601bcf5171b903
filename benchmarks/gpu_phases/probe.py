"""What the machine is and can: the GPU, the versions, which engines run here, and the ceilings of a roofline."""

import time
from importlib.util import find_spec

from gpu_phases.engines import GPU_ENGINES, unavailable_reason
from gpu_phases.prepare import arrays
from gpu_phases.records import card, state, versions
from keras_matting.engines.tftrt import TfTrtProcess
from keras_matting.model_folder import TFTRT_SAVED_MODEL

REPEATS = 10
SIZES = {"cuda": (1024, 8192), "cpu": (1, 64)}  # megabytes to copy, the side of a matrix; on a CPU for a rehearsal


def probe(records, environment, device, log):
    """Record the machine, and through PyTorch, where it is, how fast it copies and multiplies."""
    reasons = {name: unavailable_reason(name) for name in GPU_ENGINES}
    found = ceilings(device) if find_spec("torch") else {}
    records.write(
        "probe", environment, card=card(), state=state(), versions=versions(), unavailable=reasons, ceilings=found
    )
    for name, reason in reasons.items():
        log(f"{name:16} {reason or 'available'}")
    for name, value in found.items():
        log(f"{name:16} {value:.1f}")


def smoke(records, environment, model_dir, log):
    """Let TensorFlow compute once: it compiles its kernels for cards newer than itself, which takes minutes."""
    start = time.perf_counter()
    with TfTrtProcess("tftrt-fp16") as worker:
        probed = worker.ask("probe")
        worker.ask("open", path=str(model_dir / TFTRT_SAVED_MODEL))
        worker.predict(arrays(model_dir)["images"][:1])
    seconds = time.perf_counter() - start
    records.write("smoke", environment, seconds=seconds, tensorflow=probed, card=card())
    log(f"TensorFlow {probed['tensorflow']} on {probed['gpus']} GPU: first matte after {seconds:.0f} s")


def ceilings(device):
    """Return the fastest of a few: copies in GB/s (pinned host to device and back, within the device), TFLOP/s."""
    import torch

    megabytes, side = SIZES[device]
    count = megabytes * 1_000_000 // 4
    host = torch.zeros(count, pin_memory=device == "cuda")
    one, other = (torch.zeros(count, device=device) for _ in range(2))
    gigabytes = 4 * count / 1e9
    found = {
        "upload_gbs": gigabytes / _fastest(lambda: one.copy_(host, non_blocking=True), device),
        "download_gbs": gigabytes / _fastest(lambda: host.copy_(one, non_blocking=True), device),
        "device_gbs": 2 * gigabytes / _fastest(lambda: one.copy_(other), device),
    }
    for name, dtype, tf32 in (
        ("f32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("fp16", torch.float16, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        matrix = torch.ones(side, side, dtype=dtype, device=device)
        found[f"{name}_tflops"] = 2 * side**3 / 1e12 / _fastest(lambda matrix=matrix: matrix @ matrix, device)
    return found


def _fastest(call, device):
    """Return the seconds of the fastest call after one that warms up."""
    import torch

    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
