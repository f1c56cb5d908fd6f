"""Runs that `Run.save` wrote into a folder: listed, chosen by what is known of them, loaded when they are asked for.

    runs(folder) ──where(…)──▶ entries ──load()──▶ Run
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, overload

from .. import html
from ..errors import RecordError, did_you_mean
from ..records.finding import Listed, chosen, moment
from ..records.lines import text_table
from ..records.scores import _optional
from ..records.shelf import Entry, places

MOST_SHOWN = 60
MOST_METRICS = 12
MOST_TEXT = 60


@dataclass(frozen=True, repr=False)
class StoredRuns(Listed[Entry]):
    """Stored runs in the order in which they were made.

    Attributes:
        items: An entry for each: `path`, `spec`, `metrics`, `provenance`, `model`, `made`, `error`, and `load()`.
        whole: The list that they were chosen from: a name that stands there is no unknown one.
    """

    @overload
    def __getitem__(self, at: int | str) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> Self: ...
    def __getitem__(self, at: int | str | slice) -> Entry | Self:
        return self._called(at) if isinstance(at, str) else super().__getitem__(at)

    def _called(self, name: str) -> Entry:
        for one in self.items:
            if one.key == name:
                return one
        raise RecordError(f"there is no run {name!r} in this list.{did_you_mean(name, [one.key for one in self.items])}")

    @property
    def broken(self) -> StoredRuns:
        """Those that cannot be read; each says why in `error`."""
        return StoredRuns(tuple(one for one in self.items if one.error), self.whole)

    def where(self, test: Callable[[Entry], bool] | None = None, *, model: Any = None, after: Any = None, before: Any = None,
              spec: Any = None, prompt: Any = None, **metrics: Any) -> StoredRuns:
        """The runs that satisfy every condition. For each name several may be given; one is enough then.

        Of a run that cannot be read nothing is known, so it satisfies no condition but `test`.

        Args:
            test: A function of an entry that says whether it is wanted: `lambda run: run.error`.
            model: Its name, the beginning of its fingerprint, or the opened model.
            after: Runs made then or later: `"2025-06-30"`, `"2025-06-30 14:00"` (UTC), a datetime, seconds since 1970.
            before: Runs made earlier than that.
            spec: A text that stands in the spec.
            prompt: A text that stands in a prompt: in the spec, in a value of its braces, or as it was tokenized.
            metrics: A number: `prob=(0.5, None)` for a range with both ends, `rank=0` for one number, or a function of it.
                A name alone means that of any run of the spec; `**{"broken.prob": (0, 0.1)}` means one of them.

        Raises:
            RecordError: no run of the list has such a name, or a value says no condition.
        """
        if model is not None and not isinstance(model, str) and (hasattr(model, "hf") or hasattr(model, "named_parameters")):
            model = _mark(model)
        wanted = {"model": model, "after": after, "before": before, "spec": spec, "prompt": prompt}
        known = [one.traits() for one in self.whole if not one.error]
        some = [one for one in self.items if not one.error] if metrics or any(
            given is not None for given in wanted.values()) else list(self.items)
        found = chosen([one.traits() for one in some], known, wanted, metrics)
        return StoredRuns(tuple(one for one in map(some.__getitem__, found) if test is None or test(one)), self.whole)

    def metric_names(self) -> list[str]:
        """The names of all metrics, `run.metric`, in the order in which they came."""
        return list(dict.fromkeys(name for one in self.items for name in one.flat))

    def to_pandas(self) -> Any:
        """A table with a row for each run and a column for each metric. Raises RecordError when pandas is missing."""
        pandas = _optional("pandas", "to_pandas")
        head = ["run", "path", "made", "model", "fingerprint", "bytes", "spec", "error"]
        rows = [{"run": one.key, "path": str(one.path), "made": None if one.made is None else pandas.Timestamp(
            one.made, unit="s", tz="UTC"), "model": one.model[0], "fingerprint": one.model[1], "bytes": one.size,
            "spec": one.spec, "error": one.error, **one.flat} for one in self.items]
        return pandas.DataFrame(rows, columns=None if rows else head)

    def table(self) -> tuple[list[str], list[list[Any]], str]:
        """Headings, rows and a word about what is left out: what is printed of the list."""
        names, shown = self.metric_names(), self.items[-MOST_SHOWN:]
        rows: list[list[Any]] = [[one.key, moment(one.made), one.model[0], _cut(one.error or one.first_line),
                                  *(one.flat.get(name) for name in names[:MOST_METRICS])] for one in shown]
        left = [f"{len(self) - len(shown)} earlier runs are not shown"] if len(self) > len(shown) else []
        left += [f"{len(names) - MOST_METRICS} more metrics"] if len(names) > MOST_METRICS else []
        left += [f"{len(self.broken)} cannot be read"] if self.broken else []
        return ["run", "made (UTC)", "model", "spec", *names[:MOST_METRICS]], rows, "; ".join(left)

    def __repr__(self) -> str:
        return text_table(*self.table()) if self.items else "no runs"

    def _repr_html_(self) -> str:
        head, rows, left = self.table()
        return html.block(html.table(head, rows), html.note(left) if left else "")


def runs(folder: str | Path) -> StoredRuns:
    """The runs that were saved in a folder, in the order in which they were made; or the one that the folder is.

    Text and numbers come from each `run.json`; of the arrays nothing is read but how long they should be. A run that is
    damaged stands in the list with its `error`.

    Args:
        folder: Where `run.save(folder / name)` wrote them.

    Raises:
        RecordError: there is no such folder.

    Example:
        >>> import tempfile
        >>> import hooklab as hl
        >>> folder = tempfile.mkdtemp()
        >>> path = hl.Run('prompt "Mary"', metrics={"main": {"prob": 0.25}}).save(folder + "/first")
        >>> [run.key for run in runs(folder).where(prob=(0.2, None), prompt="Mary")]
        ['first']
        >>> runs(folder)["first"].load().metrics
        {'main': {'prob': 0.25}}
    """
    if not isinstance(folder, (str, Path)) or not str(folder):
        raise RecordError(f"runs are in a folder, as in runs('results'), not in {folder!r}")
    found = sorted(places(Path(folder)).entries(), key=lambda one: (one.made or 0.0, one.stored or 0.0, one.key))
    return StoredRuns(tuple(found))


def _mark(model: Any) -> str:
    """The fingerprint of an opened model, of hooklab or of torch."""
    from ..runtime.provenance import fingerprint

    return fingerprint(model if hasattr(model, "hf") else _Held(model))  # type: ignore[arg-type]


@dataclass(eq=False)
class _Held:
    """A module of torch where the fingerprint expects a model."""

    hf: Any


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT - 1]}…"
