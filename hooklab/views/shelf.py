"""Runs as entries of a list: stored ones by what their `run.json` says, those in memory as they are.

    folder ──records.shelf──▶ Entry… ◀── Runs in memory, the cells of a notebook

The list itself reads no tensor. What cannot be read stays in the list, with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RecordError, ViewError
from ..records import Run
from ..records import shelf as stored
from ..records.finding import moment
from ..records.shelf import Entry

__all__ = ["Entry", "found", "in_folder", "in_memory", "moment"]
MOST_RUNS = 5000


def found(source: Any) -> tuple[list[Entry], str]:
    """The entries of a source, and a word about it. Raises ViewError."""
    if isinstance(source, (str, Path)):
        return in_folder(Path(source))
    if isinstance(source, Run):
        return in_memory({"run": source}), ""
    if source is None:
        source = _history()
    if isinstance(source, Mapping):
        return in_memory({str(name): run for name, run in source.items()}), ""
    try:
        listed = list(source)
    except TypeError:
        raise ViewError(f"runs takes a folder, Runs, or nothing for the cells of this notebook; this is of type "
                        f"{type(source).__name__}") from None
    return in_memory({str(getattr(one, "number", i)): getattr(one, "run", one) if not isinstance(one, Run) else one
                            for i, one in enumerate(listed, 1)})[::-1], ""


def _history() -> list[Any]:
    """The cells that this notebook has run with the hook magic. Raises ViewError where there are none."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    magics = getattr(getattr(shell, "magics_manager", None), "registry", {}).get("HookMagics")
    if magics is None:
        raise ViewError('there is no notebook with %load_ext hooklab here: name a folder, as in hl.view.runs("runs"), or '
                        "give Runs: hl.view.runs({\"first\": run})")
    return list(magics.session.entries)


def in_folder(folder: Path) -> tuple[list[Entry], str]:
    """The runs in a folder (or the one that it is), newest first, and a word about what else lies there.

    Raises:
        ViewError: there is no such folder, no run in it, or more of them than a list can hold.
    """
    try:
        there = stored.places(folder)
    except RecordError as error:
        raise ViewError(str(error)) from None
    if len(there.runs) > MOST_RUNS:
        raise ViewError(f"{folder} holds {len(there.runs):,} runs; a list holds {MOST_RUNS:,}: name a folder with fewer")
    parts = there.unfinished
    note = f"Unfinished saves, which may be deleted: {parts} (hidden folders that end in .part)." if parts else ""
    return sorted(there.entries(), key=lambda entry: -(entry.stored or 0)), note


def in_memory(runs: Mapping[str, Any]) -> list[Entry]:
    """Runs by name as entries. Raises ViewError for what is no run."""
    found = []
    for name, run in runs.items():
        if not isinstance(run, Run):
            raise ViewError(f"{name} is no Run but of type {type(run).__name__}")
        size = sum(tensor.numel() * tensor.element_size() for tensor in run.data.values())
        found.append(Entry(name, None, run, run.spec, run.metrics, run.provenance, stored.made(run.provenance), size))
    return found
