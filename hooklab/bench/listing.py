"""Lists of runs and of versions: read by number or slice, as tables, and by what is known of them.

    Records ──where──▶ Records; no file of a run is opened for it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from .. import html
from ..records.finding import Listed, chosen, moment
from ..records.lines import text_table
from ..records.scores import _optional
from .digest import fingerprint, is_model
from .record import Record

MOST_SHOWN = 60
MOST_METRICS = 12
MOST_TEXT = 80
STATUSES = ("finished", "failed", "interrupted", "running", "killed", "unknown")


@dataclass(frozen=True, repr=False)
class Records(Listed[Record]):
    """Runs in the order in which they began.

    Attributes:
        items: The runs.
        whole: The list that they were chosen from: a name that stands there is no unknown one.
    """

    def where(self, test: Callable[[Record], bool] | None = None, *, status: Any = None, experiment: Any = None,
              model: Any = None, tag: Any = None, after: Any = None, before: Any = None, inputs: Any = None,
              **metrics: Any) -> Records:
        """The runs that satisfy every condition, in their order. For each name several may be given; one is enough then.

        Args:
            test: A function of a record that says whether it is wanted.
            status: `finished`, `failed`, `interrupted`, `running`, `killed`, `unknown`.
            experiment: The name of the function.
            model: A model among the arguments, or that the code reads: its name, the beginning of its fingerprint, or the
                opened model.
            tag: A word that `bench.tag` gave.
            after: Runs that began then or later: `"2025-06-30"`, `"2025-06-30 14:00"` (UTC), a datetime, seconds since 1970.
            before: Runs that began earlier than that.
            inputs: A text that stands in an argument; `{"prompt": "Mary"}` looks in that argument alone.
            metrics: A number that was logged or returned, by its last value: `loss=(None, 0.5)` for a range with both ends,
                `step=3` for one number, `loss=lambda x: x < 0.5` for anything else. A name that is no word of Python, or one
                of the above, is given as `**{"main.loss": (0, 1)}`, or asked for in `test`.

        Raises:
            RecordError: no run of the list has such a name, or a value says no condition.

        Example:
            >>> import tempfile
            >>> from hooklab.bench import Bench
            >>> bench = Bench(tempfile.mkdtemp())
            >>> half = bench.experiment(lambda x: {"half": x / 2}, name="half")
            >>> half(3), half(8)
            ({'half': 1.5}, {'half': 4.0})
            >>> [run.arguments["x"] for run in bench.runs().where(status="finished", half=(2, None))]
            ['8']
        """
        if is_model(model):
            model = fingerprint(model)
        wanted = {"status": status, "experiment": experiment, "model": model, "tag": tag, "after": after, "before": before,
                  "inputs": inputs}
        found = chosen([one.traits() for one in self.items], [one.traits() for one in self.whole], wanted, metrics,
                       {"status": STATUSES})
        kept = [self.items[i] for i in found]
        return Records(tuple(one for one in kept if test is None or test(one)), self.whole)

    def metric_names(self) -> list[str]:
        """The names of all numbers, in the order in which they came."""
        return list(dict.fromkeys(name for one in self.items for name in one.metrics))

    def to_pandas(self) -> Any:
        """A table with a row for each run and a column for each number. Raises RecordError when pandas is missing."""
        pandas = _optional("pandas", "to_pandas")
        names = ["run", "name", "version", "status", "started", "seconds", "tags"]
        rows = [{"run": one.id, "name": one.name, "version": one.version, "status": one.status,
                 "started": pandas.Timestamp(one.started, unit="s", tz="UTC"), "seconds": one.seconds,
                 "tags": " ".join(one.tags), **{
                     name if name not in names else f"metric {name}": value for name, value in one.metrics.items()}}
                for one in self.items]
        return pandas.DataFrame(rows, columns=None if rows else names)

    def _table(self) -> tuple[list[str], list[list[Any]], str]:
        names, shown = self.metric_names(), self.items[-MOST_SHOWN:]
        tagged = any(one.tags for one in shown)
        rows: list[list[Any]] = [[one.id, one.name, one.version, one.status, moment(one.started),
                                  one.seconds, *([_cut(" ".join(one.tags))] if tagged else []),
                                  _cut(", ".join(f"{a}={b}" for a, b in one.arguments.items())),
                                  *(one.metrics.get(name) for name in names[:MOST_METRICS])] for one in shown]
        left = [f"{len(self) - len(shown)} earlier runs are not shown"] if len(self) > len(shown) else []
        left += [f"{len(names) - MOST_METRICS} more numbers"] if len(names) > MOST_METRICS else []
        head = ["run", "experiment", "version", "status", "started (UTC)", "seconds", *(["tags"] if tagged else []),
                "arguments", *names[:MOST_METRICS]]
        return head, rows, "; ".join(left)

    def __repr__(self) -> str:
        return text_table(*self._table()) if self.items else "no runs"

    def _repr_html_(self) -> str:
        head, rows, left = self._table()
        return html.block(html.table(head, rows), html.note(left) if left else "")


@dataclass(frozen=True)
class Version:
    """A version of an experiment's code, and what it was used for."""

    name: str
    version: str
    first: float
    last: float
    runs: int
    finished: int
    python: str
    source: str = field(repr=False)
    text: str = field(repr=False)


@dataclass(frozen=True, repr=False)
class Versions(Sequence[Version]):
    """Versions in the order in which they were first used."""

    items: tuple[Version, ...] = ()

    @overload
    def __getitem__(self, at: int) -> Version: ...
    @overload
    def __getitem__(self, at: slice) -> Versions: ...
    def __getitem__(self, at: int | slice) -> Version | Versions:
        return Versions(self.items[at]) if isinstance(at, slice) else self.items[at]

    def __len__(self) -> int:
        return len(self.items)

    def _table(self) -> tuple[list[str], list[list[Any]]]:
        return ["version", "experiment", "first run (UTC)", "last run (UTC)", "runs", "finished", "Python"], [
            [one.version, one.name, moment(one.first), moment(one.last), one.runs, one.finished, one.python]
            for one in self.items]

    def __repr__(self) -> str:
        return text_table(*self._table()) if self.items else "no versions"

    def _repr_html_(self) -> str:
        head, rows = self._table()
        texts = [html.folded(f"{one.name} {one.version}", one.text) for one in self.items]
        return html.block(html.table(head, rows), *texts)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT - 1]}…"
