"""A framework's variants of a model (precisions, compiled or not) side by side, a record for each batch."""

from gpu_phases.prepare import arrays
from gpu_phases.records import card, versions
from gpu_phases.sweep import sweep, told_times
from gpu_phases.timing import filled


def measure_variants(framework, records, environment, model_dirs, batches, rounds, budget, log, device):
    """Sweep a framework's variants over `batches` for each model that it has; return what was left.

    `framework` is a module: `PHASE`, under which records are filed; `NAME`; `VARIANTS`, {name: its options, "precision"
    among them}; `has(model_dir)`; `Variant(model_dir, device, **options)`, with `error(prepared)` and `runner(batch)`.
    """
    left = []
    for model_dir in filter(framework.has, model_dirs):
        prepared, opened, failed = arrays(model_dir), {}, {}
        for batch in batches:
            phase, of = framework.PHASE, (environment, model_dir.name)
            missing = [name for name in framework.VARIANTS if not records.has(phase, *of, name, batch)]
            if missing and not budget.is_left():
                left.append((model_dir.name, batch))
                continue
            for name in missing:
                if name not in opened and name not in failed:
                    _open(framework, model_dir, device, name, prepared, opened, failed)
            runners = _runners({n: opened[n] for n in missing if n in opened}, prepared, batch, failed)
            figures = sweep(runners, rounds, budget)
            for name in missing:
                told = {"precision": framework.VARIANTS[name]["precision"], "coverage": framework.NAME, "card": card()}
                figure = figures.get(name) or {"error": failed[name]}
                if name in opened:
                    told["error_from_float32"] = opened[name][1]
                records.write(phase, *of, name, batch, **told, versions=versions(), **figure)
                log(f"{model_dir.name} {name} batch {batch}: {told_times(figure)}")
    return left


def _open(framework, model_dir, device, name, prepared, opened, failed):
    try:
        variant = framework.Variant(model_dir, device, **framework.VARIANTS[name])
        opened[name] = variant, variant.error(prepared)
    except Exception as error:  # one variant's failure is its own row
        failed[name] = _told(error)


def _runners(opened, prepared, batch, failed):
    runners = {}
    for name, (variant, _) in opened.items():
        try:
            runners[name] = variant.runner(filled(prepared["images"], batch))
        except Exception as error:
            failed[name] = _told(error)
    return runners


def _told(error):
    return f"{type(error).__name__}: {error}"[:500]
