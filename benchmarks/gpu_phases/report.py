"""The records as Markdown: a table for each model, with the share that each engine reaches of what the card allows."""

from gpu_phases.prepare import read_work
from gpu_phases.timing import EVENTS

# precision: (the ceiling of the arithmetic, bytes of an element in units of float16's)
_CEILINGS = {"f32": ("f32_tflops", 2), "tf32": ("tf32_tflops", 2)}
_COLUMNS = (
    "engine",
    "batch",
    "precision",
    "clock",
    "host to host ms",
    "on the device ms",
    "CUDA graph ms",
    "images/s",
    "mean error",
    "worst image",
    "of the roofline",
)


def report(records, model_dirs):
    """Return everything as Markdown."""
    probes, ceilings = records.read("probe"), {}
    for probe in probes:
        ceilings |= probe["ceilings"]
    lines = [f"# {_card(probes)}", ""]
    lines += [f"- {name}: {value:.1f}" for name, value in ceilings.items()]
    for model_dir in model_dirs:
        rows = [*records.read("torch"), *records.read("jax"), *records.read("measure")]
        rows = [row for row in rows if row["names"][1] == model_dir.name]
        lines += ["", f"## {model_dir.name}", "", *_roofline(model_dir, ceilings), ""]
        lines += [f"| {' | '.join(_COLUMNS)} |", "|---|" + "---:|" * (len(_COLUMNS) - 1)]
        rows.sort(key=lambda row: (row["names"][3], _best_ms(row) or float("inf")))
        lines += [_row(row, read_work(model_dir), ceilings) for row in rows]
    failed = [row for row in records.read("build") if "error" in row]
    lines += ["", "## Not built", "", *(f"- {' '.join(row['names'])}: {row['error']}" for row in failed)]
    return "\n".join(lines) + "\n"


def bound_ms(work, precision, ceilings):
    """Return the milliseconds that one image takes at least: its arithmetic or its traffic; None without ceilings."""
    peak, width = _CEILINGS.get(precision, ("fp16_tflops", 1))
    if not {peak, "device_gbs"} <= set(ceilings):
        return None
    return max(work["gflop"] / ceilings[peak], width * work["convolution_mb"] / ceilings["device_gbs"])


def _card(probes):
    card = probes[0]["card"] if probes else {}
    return f"{card.get('name', 'no GPU')}, driver {card.get('driver', '-')}, {card.get('power_limit_w', '-')} W"


def _roofline(model_dir, ceilings):
    work = read_work(model_dir)
    bound = bound_ms(work, "fp16", ceilings)
    told = f"{work['gflop']:.1f} GFLOP and {work['convolution_mb']:.0f} MB of convolutions' traffic an image in float16"
    return [f"{told}{f': at least {bound:.3f} ms' if bound else ''}."]


def _clock(row):
    """Return who timed what ran on the device."""
    return "device" if row.get("clock") == EVENTS else "host"


def _best_ms(row):
    """Return the time of a batch on the device, by CUDA graph where that is faster."""
    times = [row[way]["median"] for way in ("device_ms", "graph_ms") if way in row]
    return min(times) if times else None


def _row(row, work, ceilings):
    environment, _, engine, batch = row["names"]
    ways = [f"{row[way]['median']:.3f}" if way in row else "" for way in ("host_ms", "device_ms", "graph_ms")]
    best, bound = _best_ms(row), bound_ms(work, row.get("precision"), ceilings)
    speed = f"{1000 * batch / best:,.0f}" if best else row.get("error", "")[:60]
    share = f"{batch * bound / best:.0%}" if best and bound else ""
    error = row.get("error_from_float32", {})
    errors = [f"{error[key]:.4f}" if key in error else "" for key in ("mean", "worst")]
    cells = [f"{engine} ({environment})", str(batch), row.get("precision", ""), _clock(row)]
    cells += [*ways, speed, *errors, share]
    return f"| {' | '.join(cells)} |"
