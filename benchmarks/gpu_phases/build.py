"""Build the engines of the prepared models, one record each; what is recorded is not built again."""

import time

from gpu_phases.engines import build, build_unavailable_reason
from gpu_phases.prepare import arrays
from gpu_phases.records import card, versions
from keras_matting.engines import BuildOptions
from keras_matting.engines.artefacts import MANIFEST, engine_dir, read_manifest, size_mb


def build_engines(records, environment, model_dirs, names, max_batch, budget, log):
    """Build `names` for each model folder until the budget is used up; return what was left to a further call."""
    left = []
    for model_dir in model_dirs:
        calibration = arrays(model_dir)["calibration"]
        options = BuildOptions(tuple(calibration[:, None]), max_batch)
        for name in names:
            if records.has("build", environment, model_dir.name, name):
                continue
            if not budget.is_left():
                left.append((model_dir.name, name))
                continue
            outcome = _build(name, model_dir, options)
            records.write("build", environment, model_dir.name, name, card=card(), versions=versions(), **outcome)
            log(f"{model_dir.name} {name}: {outcome.get('error') or 'built in {:.0f} s'.format(outcome['seconds'])}")
    return left


def _build(name, model_dir, options):
    start = time.perf_counter()
    try:
        if reason := build_unavailable_reason(name):
            return {"error": reason}
        build(name, model_dir, options)
    except Exception as error:  # one engine's failure is its own row
        return {"error": f"{type(error).__name__}: {error}"[:1000]}
    folder = engine_dir(model_dir, name)
    seconds = time.perf_counter() - start
    if not folder.exists():  # an engine that needs no build
        return {"seconds": seconds}
    manifest = {key: value for key, value in read_manifest(folder / MANIFEST).items() if key != "files"}
    return {"seconds": seconds, "mb": size_mb(folder), "manifest": manifest}
