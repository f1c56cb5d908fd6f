"""`hooklab runs FOLDER`: the runs that were saved in a folder, all or those that are looked for."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HooklabError

if TYPE_CHECKING:
    from ..data.stored_runs import StoredRuns
    from ..records.shelf import Entry

NAME = "runs"
HELP = "list the runs that were saved in a folder"
EXAMPLES = ("runs results", "runs results --model lab --prompt capital --json",
            "runs results --metric prob=0: --after 2020-01-01")


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="where to look (default: here)")
    parser.add_argument("--model", action="append", metavar="NAME",
                        help="of this model: its name, or the beginning of its fingerprint; may be repeated")
    parser.add_argument("--after", metavar="TIME", help='made then or later, such as 2025-06-30 or "2025-06-30 14:00" (UTC)')
    parser.add_argument("--before", metavar="TIME", help="made earlier than that")
    parser.add_argument("--spec", metavar="TEXT", help="with this text in the spec")
    parser.add_argument("--prompt", metavar="TEXT", help="with this text in a prompt")
    parser.add_argument("--metric", action="append", default=[], metavar="NAME=LOW:HIGH",
                        help="with a metric in this range, an end of which may be left out; may be repeated")


def run(options: argparse.Namespace) -> int:
    """Print the list; 1 where a run of the folder cannot be read. Raises HooklabError: there is no such folder or name."""
    from ..data.stored_runs import runs

    every = runs(options.folder)
    metrics: dict[str, Any] = dict(_range(text) for text in options.metric)
    found = every.where(model=options.model, after=options.after, before=options.before, spec=options.spec,
                        prompt=options.prompt, **metrics)
    if options.json:
        print(json.dumps([as_data(one) for one in found], ensure_ascii=False, allow_nan=False))
    elif found:
        print(found)
    else:
        print(f"no runs{' like that' if every else ''} in {options.folder.expanduser().absolute()}")
    _warn(every, found)
    return 1 if every.broken else 0


def _warn(every: StoredRuns, found: StoredRuns) -> None:
    """Say which runs cannot be read, so that what was looked for may be among them."""
    listed = {one.key for one in found}
    for one in every.broken:
        if one.key not in listed:
            print(f"hooklab: {' '.join(one.error.split())}", file=sys.stderr)


def as_data(entry: Entry) -> dict[str, Any]:
    """An entry as plain data; numbers that JSON cannot say are null."""
    from ..records.finding import moment

    told: dict[str, Any] = {"run": entry.key, "path": str(entry.path)}
    if entry.error:
        return told | {"error": " ".join(entry.error.split())}
    name, mark = entry.model
    return told | {"made": moment(entry.made), "model": name, "fingerprint": mark, "bytes": entry.size, "spec": entry.spec,
                   "metrics": {run: {metric: value if math.isfinite(value) else None for metric, value in row.items()}
                               for run, row in entry.metrics.items()}}


def _range(text: str) -> tuple[str, tuple[float | None, float | None]]:
    """`prob=0.5:` as a name and its range. Raises HooklabError."""
    name, equals, ends = text.partition("=")
    low, colon, high = ends.partition(":")
    try:
        found = tuple(float(end) if end.strip() else None for end in (low, high if colon else low))
    except ValueError:
        found = (None, None)
    if not name.strip() or not equals or found == (None, None):
        raise HooklabError(f"--metric takes NAME=LOW:HIGH, such as prob=0.5: or rank=0:3, not {text!r}.")
    return name.strip(), (found[0], found[1])
