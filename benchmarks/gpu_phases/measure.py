"""Time the engines that were built, side by side, and compare their outputs with float32's."""

import numpy as np

from gpu_phases.engines import open_engine
from gpu_phases.prepare import arrays, error_from_float32, inputs_of
from gpu_phases.records import card, versions
from gpu_phases.sweep import sweep, told_times
from gpu_phases.timing import filled, runner


def measure(records, environment, model_dirs, names, batches, rounds, budget, log):
    """Sweep `names` over `batches` for each model until the budget is used up; return what was left.

    The engines of one model are open together and take turns. A record holds one engine at one batch.
    """
    left = []
    for model_dir in model_dirs:
        missing = {
            batch: [name for name in names if not records.has("measure", environment, model_dir.name, name, batch)]
            for batch in batches
        }
        wanted = [name for name in names if any(name in of_batch for of_batch in missing.values())]
        if not budget.is_left():
            left += [(model_dir.name, name) for name in wanted]
            continue
        engines, prepared = _opened(wanted, model_dir, log), arrays(model_dir)
        told = {name: _told(engine, prepared) for name, engine in engines.items()}
        for batch, of_batch in missing.items():
            taking_part = {name: engines[name] for name in of_batch if name in engines}
            if not budget.is_left():
                left += [(model_dir.name, name, batch) for name in taking_part]
                continue
            for name, figure in _swept(taking_part, prepared, batch, rounds, budget).items():
                records.write("measure", environment, model_dir.name, name, batch, **told[name], **figure)
                log(f"{model_dir.name} {name} batch {batch}: {told_times(figure)}")
        for engine in engines.values():
            engine.close()
    return left


def _opened(names, model_dir, log):
    engines = {}
    for name in names:
        try:
            engines[name] = open_engine(name, model_dir)
        except Exception as error:  # the others are measured all the same
            log(f"{model_dir.name} {name}: {error}")
    return engines


def _told(engine, prepared):
    """Return what a record says beside the times: how the engine computes, how exactly, on what."""
    told = engine.describe() | {"card": card(), "versions": versions()}
    try:
        outputs = np.concatenate([engine.predict(image[None]) for image in inputs_of(engine, prepared)])
    except Exception as error:
        return told | {"error_from_float32": {"error": str(error)[:300]}}
    return told | {"error_from_float32": error_from_float32(outputs, prepared)}


def _swept(engines, prepared, batch, rounds, budget):
    runners, failed = {}, {}
    for name, engine in engines.items():
        try:
            runners[name] = runner(engine, filled(inputs_of(engine, prepared), batch))
        except Exception as error:
            failed[name] = {"error": f"{type(error).__name__}: {error}"[:500]}
    try:
        return sweep(runners, rounds, budget) | failed
    finally:
        for held in runners.values():
            held.close()
