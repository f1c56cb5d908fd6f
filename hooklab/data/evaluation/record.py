"""What an evaluation gives: a row per question and cell, and how many were right, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import statistics
from ...errors import RecordError, did_you_mean
from ...records import Scores
from ..tasks.graders import Rate, potemkin_rate
from .folder import STORE, Row, read

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

    from ..store.store import Store

LISTED = 12


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation:
    """Answers of a model to questions, as it is and under edits.

    Attributes:
        rows: One per question and cell, in the order of the questions; the model as it is comes first.
        axes: Name of the grid -> labels; empty where there was none.
        total: How many rows there are when it is complete.
        asked: Everything that the answers depend on, as the manifest has it.
        about: Versions, and the model's name.
        path: Its folder, where it was kept.
    """

    rows: tuple[Row, ...]
    axes: Mapping[str, tuple[Any, ...]]
    total: int
    asked: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """An evaluation that was kept in a folder, complete or not.

        Raises:
            RecordError: there is none, it was changed, or a newer version of hooklab wrote it.
        """
        found, rows, _ = read(path)
        return loaded(found, rows, Path(path).expanduser().absolute())

    @property
    def complete(self) -> bool:
        """Whether every question was answered in every cell."""
        return len(self.rows) == self.total

    @property
    def edited(self) -> bool:
        """Whether there are cells with edits."""
        return bool(self.asked.get("edits"))

    @cached_property
    def table(self) -> np.ndarray:
        """Scores [question cell] of the questions that were answered in every cell."""
        cells = 1 + max((row.cell for row in self.rows), default=0)
        found = np.full((1 + max((row.number for row in self.rows), default=-1), cells), np.nan)
        for row in self.rows:
            found[row.number, row.cell] = row.score
        return found

    def accuracy(self, by: str | None = None, *, level: float = 0.95, seed: int = 0) -> Scores:
        """The mean score over questions: over the grid where there are edits, else one number.

        Args:
            by: A key of the questions' metadata, such as `"subject"`: an axis of its own, before those of the grid.
            level: Of the bootstrap interval in `low` and `high`.
            seed: Of its draws.

        Raises:
            RecordError: no question was answered in every cell, or questions lack the key.
        """
        found = self._cells(self._whole()[0])
        if by is None:
            return self._scored("accuracy", found, level, seed)
        groups = self._groups(by)
        each = [self._scored("accuracy", found[where], level, seed) for where in groups.values()]
        return Scores(np.stack([one.values for one in each]), (by, *each[0].axes), {by: tuple(groups), **each[0].coords},
                      "fraction", "accuracy", self.spec, low=np.stack([np.asarray(one.low) for one in each]),
                      high=np.stack([np.asarray(one.high) for one in each]), level=level)

    def baseline(self, *, level: float = 0.95, seed: int = 0) -> Scores:
        """The mean score of the model as it is: one number with its interval."""
        return self._scored("baseline accuracy", self._whole()[0][:, 0], level, seed, axes={})

    def difference(self, *, level: float = 0.95, seed: int = 0) -> Scores:
        """What edits change: the mean over questions of the score under them less that of the model as it is.

        Questions are compared with themselves: `examples` has every question's difference, `low` and `high` are a bootstrap
        interval of the mean, and `p` comes from flipping signs.

        Raises:
            RecordError: there were no edits, or no question was answered in every cell.
        """
        if not self.edited:
            raise RecordError("there are no edits to compare with the model as it is: evaluate(…, edits=…)")
        whole = self._whole()[0]
        found = self._cells(whole) - whole[:, 0].reshape(-1, *[1] * len(self.axes))
        return self._scored("change of accuracy", found, level, seed, p=statistics.p_value(found, seed=seed))

    def potemkin_rate(self, by: str, cell: int = 0) -> Rate:
        """2 · (1 − mean score), a concept counting once; see `graders.potemkin_rate`.

        The rows are to be items about which the model grades itself: its score is whether it agrees with what it was asked
        to write.

        Args:
            by: The key of the questions' metadata that names the concept.
            cell: Which cell; 0 is the model as it is.
        """
        whole, _ = self._whole()
        if not 0 <= cell < whole.shape[1]:
            raise RecordError(f"there is no cell {cell}: they are 0 to {whole.shape[1] - 1}")
        return potemkin_rate({str(name): whole[where, cell].tolist() for name, where in self._groups(by).items()})

    def store(self) -> Store:
        """The activations, by the ids in `row.activations`. Raises RecordError where nothing was captured."""
        from ..store.store import open_store

        if self.path is None or self.asked.get("capture") is None:
            raise RecordError("nothing was captured: evaluate(…, capture=\"L*.resid_post\", out=\"folder\")")
        return open_store(self.path / STORE)

    def activations(self, row: Row) -> dict[str, Tensor]:
        """Site -> value of one row. Raises RecordError where nothing was captured."""
        store = self.store()
        if row.activations is None:
            raise RecordError(f"nothing was captured for question {row.id!r}")
        return store.example(store.number_of[row.activations])[0]

    def to_pandas(self) -> DataFrame:
        """A row per question and cell: a column for each name of the grid, and for each key of the metadata."""
        from ...records.scores import _optional

        pandas = _optional("pandas", "to_pandas")
        rows = [{"id": row.id, **{name: row.grid.get(name) for name in self.axes}, "edited": row.cell > 0,
                 "prompt": row.prompt, "reply": row.reply, "answer": row.answer, "right": row.right, "score": row.score,
                 "reason": row.reason, "stopped": row.stopped, "log_probs": list(row.log_probs),
                 "activations": row.activations} for row in self.rows]
        frame = pandas.DataFrame(rows)
        for key in dict.fromkeys(key for row in self.rows for key in row.metadata):
            frame[key if key not in frame else f"metadata_{key}"] = [row.metadata.get(key) for row in self.rows]
        return frame

    def show(self) -> Any:
        """The accuracy of every cell, live; the model as it is among them where there is no grid to draw."""
        if self.axes:
            return self.accuracy().show()
        whole = self._whole()[0]
        names = ("as it is", "edited")[:whole.shape[1]]
        return self._scored("accuracy", whole, 0.95, 0, axes={"cell": names}).show()

    @property
    def spec(self) -> str:
        """The edits as text."""
        return "\n".join(self.asked.get("edits", ()))

    def _whole(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores [question cell] of the complete questions, and their numbers."""
        numbers = np.flatnonzero(~np.isnan(self.table).any(1)) if len(self.table) else np.zeros(0, int)
        if not len(numbers):
            raise RecordError("no question has been answered in every cell yet")
        return self.table[numbers], numbers

    def _cells(self, whole: np.ndarray) -> np.ndarray:
        """[question, *grid]: of the edited cells, or of the only one."""
        if not self.edited:
            return whole[:, 0]
        return whole[:, 1:].reshape(len(whole), *map(len, self.axes.values()))

    def _groups(self, by: str) -> dict[Any, np.ndarray]:
        """Value of a key -> which of the complete questions have it."""
        first = {row.number: row for row in self.rows}
        found: dict[Any, list[int]] = {}
        for at, number in enumerate(self._whole()[1]):
            row = first[int(number)]
            if by not in row.metadata:
                raise RecordError(f"question {row.id!r} has no {by!r}, only {', '.join(row.metadata) or 'nothing'}."
                                  f"{did_you_mean(by, row.metadata)}")
            name = row.metadata[by]
            plain = isinstance(name, str | int | float) and name == name  # what is not a number is not the same as itself
            found.setdefault(name if plain else str(name), []).append(at)
        return {name: np.array(where) for name, where in found.items()}

    def _scored(self, name: str, examples: np.ndarray, level: float, seed: int, p: np.ndarray | None = None,
                axes: Mapping[str, tuple[Any, ...]] | None = None) -> Scores:
        axes = (self.axes if self.edited else {}) if axes is None else axes
        low, high = statistics.interval(examples, level, seed=seed)
        note = "" if self.complete else f"{len(self.rows)} of {self.total} rows are done"
        return Scores(examples.mean(0), tuple(axes), dict(axes), "fraction", name, self.spec, examples=examples, note=note,
                      low=low, high=high, level=level, p=p)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __repr__(self) -> str:
        questions = len({row.number for row in self.rows})
        state = "" if self.complete else f" · {len(self.rows)} of {self.total} rows done"
        head = f"Evaluation: {questions} question{'s' * (questions != 1)} · {self.asked.get('how', '')}{state}"
        try:
            whole = self._whole()[0]
        except RecordError:
            return head
        low, high = statistics.interval(whole)
        points = product(*self.axes.values()) if self.edited else ()
        labels = ["as it is", *(" ".join(f"{name}={label}" for name, label in zip(self.axes, point, strict=True)) or "edited"
                                for point in points)]
        wide = max(map(len, labels[:LISTED + 1]))
        lines = [f"  {label:<{wide}}  {100 * mean:5.1f} % right" + (f" ({100 * a:.0f}–{100 * b:.0f})" if a < b else "")
                 for label, mean, a, b in zip(labels, whole.mean(0), low, high, strict=True)]
        more = [f"  … {len(lines) - LISTED - 1} more: .accuracy()"] if len(lines) > LISTED + 1 else []
        return "\n".join([head, *lines[:LISTED + 1], *more])


def loaded(manifest: Mapping[str, Any], rows: Any, path: Path | None) -> Evaluation:
    """The record of what a manifest says and of rows."""
    asked = manifest["asked"]
    axes = {name: tuple(labels) for name, labels in asked["grid"].items()}
    return Evaluation(tuple(rows), axes, manifest["about"]["rows"], asked, manifest["about"], path)
