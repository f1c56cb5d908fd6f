"""Kept runs in the browser of runs: each as a `Run` whose spec is the source and whose model is the first that it was given.

    Record ──as_run──▶ Run ──hl.view.runs──▶ a list to search, sort, look into and compare
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..errors import RecordError
from ..records import Run, Scores
from ..records.exact import is_tensor
from .listing import Records
from .record import Record

if TYPE_CHECKING:
    from ..views.browser import Runs


def as_run(record: Record) -> Run:
    """A kept run in the form that the browser shows. A result that is a Run itself brings its pictures, texts and claims."""
    mark = next(iter(record.models.values()), "")
    about = {"model": {"name": record.name, "fingerprint": mark}, "status": record.status, "version": record.version,
             "seconds": record.seconds, "seed": record.seed, "arguments": record.arguments, **record.environment,
             "made": datetime.fromtimestamp(record.started, UTC).isoformat()}
    if record.error:
        about["error"] = record.error
    run = Run(record.text, metrics={record.name: dict(record.metrics)} if record.metrics else {}, provenance=about)
    if record.status != "finished":
        return run
    try:
        return _with_result(run, record.name, record.result)
    except RecordError as error:
        return replace(run, provenance={**about, "result": str(error)})


def _with_result(run: Run, name: str, value: Any) -> Run:
    if isinstance(value, Run):
        return replace(value, spec=run.spec, metrics={**value.metrics, **run.metrics}, provenance=run.provenance)
    parts = value if isinstance(value, Mapping) else {"result": value}
    scores = {f"{name}.{key}": one for key, one in parts.items() if isinstance(one, Scores)}
    data = {f"{name}.{key}": one for key, one in parts.items() if isinstance(key, str) and is_tensor(one)}
    axes = {key: tuple(f"axis{i}" for i in range(one.ndim)) for key, one in data.items()}
    return replace(run, scores=scores, data=data, axes=axes)


def browser(records: Records, title: str) -> Runs:
    """The browser. Raises ViewError."""
    from ..views.browser import runs

    return runs({f"{one.name} {one.id}": as_run(one) for one in reversed(records)}, title=title)
