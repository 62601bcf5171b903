"""The verb `data`: `data check` finds what is wrong with data before a training does."""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_matting.cli.shared import aligned, positive
from keras_matting.cli.status import OK, SOME_FAILED, say, show

NAMES_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `data`."""
    parser.add_argument("job", choices=("check",), help="check: decode everything, tell what is wrong")
    parser.add_argument("specs", nargs="+", metavar="SPEC", help="[KIND:]PATH[,PATH...], as --data of train takes it")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="write random samples onto a contact sheet")
    parser.add_argument("--count", type=positive, default=24, help="samples on the sheet (default: 24)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts and all problems")


def data(arguments: argparse.Namespace) -> int:
    """Check data; return 1 if there is any problem."""
    from keras_matting.data.check import check, sheet_groups
    from keras_matting.data.sheet import contact_sheet
    from keras_matting.data.sources import read_sources
    from keras_matting.errors import UsageError
    from keras_matting.files import is_json_with, require_replaceable, text_bytes, write_atomically
    from keras_matting.photos.files import encode
    from keras_matting.photos.marks import is_marked, marked

    if arguments.sheet and arguments.sheet.suffix.lower() != ".png":
        raise UsageError(f"Expected a contact sheet as .png; received {arguments.sheet}.")
    require_replaceable(arguments.json, is_json_with("sources"))
    require_replaceable(arguments.sheet, is_marked)
    sources = read_sources(arguments.specs, allow_empty=True)
    report = check(sources)
    for kind, detail in _first_details(report["problems"]).items():
        say(f"{kind}, the first: {detail}")
    show(_sources_table(report["sources"]))
    show(f"\n{_problems_table(report['problems'])}")
    if arguments.json:
        write_atomically(arguments.json, text_bytes(json.dumps(report, indent=2, ensure_ascii=False)))
    if arguments.sheet and (groups := sheet_groups(sources, arguments.count)):
        write_atomically(arguments.sheet, marked(encode(contact_sheet(groups), ".png"), {"kind": "sheet"}))
        say(f"{len(groups)} random samples -> {arguments.sheet}")
    return SOME_FAILED if report["problems"] else OK


def _sources_table(sources: Sequence[Mapping[str, Any]]) -> str:
    rows = [("source", "kind", "samples", "backgrounds", "median size", "foreground", "soft masks")]
    for source in sources:
        share = source["mean_foreground"]
        rows.append(
            (
                source["name"],
                source["kind"],
                str(source["samples"]),
                str(source["backgrounds"] or "-"),
                "x".join(map(str, source["median_size"])) or "-",
                "-" if share is None else f"{share:.0%}",
                "-" if share is None else str(source["soft_masks"]),
            )
        )
    return aligned(rows)


def _first_details(problems: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return {kind: what is wrong with the first file of the kind}."""
    told = {problem["kind"]: problem["detail"] for problem in reversed(problems) if problem["detail"]}
    return {kind: told[kind] for kind in sorted(told) if not kind.endswith("duplicate")}


def _problems_table(problems: Sequence[Mapping[str, str]]) -> str:
    if not problems:
        return "no problems"
    names: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for problem in problems:
        is_pair = problem["kind"].endswith("duplicate")
        names[problem["kind"], problem["source"]].append(
            f"{problem['stem']} = {problem['detail']}" if is_pair else problem["stem"]
        )
    rows = [("problem", "files", "source", "names")]
    for (kind, source), stems in names.items():
        more = f", and {len(stems) - NAMES_SHOWN} more" if len(stems) > NAMES_SHOWN else ""
        rows.append((kind, str(len(stems)), source, ", ".join(stems[:NAMES_SHOWN]) + more))
    return aligned(rows)
