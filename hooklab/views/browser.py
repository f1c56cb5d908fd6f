"""Runs: a list of stored runs and those in memory, to search, sort, look into and compare.

    folder | Runs | history ──shelf──▶ entries ──▶ table; what is chosen is read when it is asked for
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import html
from ..errors import HooklabError, ViewError, did_you_mean
from ..records import Run, Scores, compare
from ..records.drawing import where
from ..records.views import following, is_top
from . import pictures, shelf
from .axes import Axis
from .base import Answer, View
from .shelf import Entry, moment
from .text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_STATIC = 60
MOST_METRICS = 40
MOST_PICTURES = 6
MOST_TEXTS = 50
MOST_NEXT = 5
MOST_PAIRS = 12
"""Runs of which a page without a kernel holds every comparison."""
EAGER = 32 * 2**20
"""Bytes of a run up to which choosing it also reads it, to show its pictures."""


class Runs(View):
    """A list of runs; `selection` has a `run`, and `against` to compare it with.

    Attributes:
        entries: What is listed, newest first.
    """

    KIND = "runs"
    SHARED = ()

    def __init__(self, source: Any, *, title: str = "") -> None:
        self._source = source
        self._loaded: tuple[str, Run | None] = ("", None)
        self.entries: list[Entry] = []
        self._note = ""
        self._read()
        super().__init__(self._listed(), title=title)
        self.draw()

    def refresh(self) -> Runs:
        """Look again at what there is. Returns the view."""
        self._check_open()
        self._read()
        self._axes = {axis.name: axis for axis in self._listed()}
        self.draw()
        return self

    @property
    def run(self) -> Run | None:
        """The chosen Run, read from its folder; None when none is chosen. Raises RecordError when it cannot be read."""
        return self.load(self.selection["run"]) if "run" in self.selection else None

    @property
    def against(self) -> Run | None:
        """The Run that the chosen one is compared with; None when there is none."""
        return self.load(self.selection["against"]) if "against" in self.selection else None

    def load(self, key: str) -> Run:
        """A listed run by its name. Raises ViewError, RecordError."""
        entry = self._entry(key)
        if self._loaded[0] != key or self._loaded[1] is None:
            self._loaded = (key, entry.load())
        run = self._loaded[1]
        assert run is not None
        return run

    def _read(self) -> None:
        entries, self._note = shelf.found(self._source)
        counts: dict[str, int] = {}
        for entry in entries:
            counts[entry.key] = counts.get(entry.key, 0) + 1
        if again := [key for key, count in counts.items() if count > 1]:
            raise ViewError(f"several runs are called {again[0]!r}: give them different names")
        self.entries, self._loaded = entries, ("", None)

    def _listed(self) -> list[Axis]:
        keys = tuple(entry.key for entry in self.entries)
        labels = tuple(shown(key) for key in keys)
        return [Axis("run", keys, labels), Axis("against", keys, labels)]

    def _entry(self, key: str) -> Entry:
        for entry in self.entries:
            if entry.key == key:
                return entry
        raise ViewError(f"there is no run {key!r} in this list.{did_you_mean(str(key), [one.key for one in self.entries])}")

    # What is drawn -----------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        names = list(dict.fromkeys(name for entry in self.entries for name in entry.flat))
        cut = len(names) - MOST_METRICS
        note = [self._note, f"{cut} more metrics are not listed; a run shows all of its own." if cut > 0 else ""]
        return {"rows": [_row(entry, names[:MOST_METRICS]) for entry in self.entries], "metrics": [
            shown(name) for name in names[:MOST_METRICS]], "note": " ".join(filter(None, note))}

    def asks(self) -> Mapping[str, Any]:
        return {"detail": self._detail, "pictures": self._pictures, "compare": self._compare, "refresh": self._refresh}

    def answers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for entry in self.entries:
            yield "detail", {"run": entry.key}
        chosen = [self.selection[name] for name in ("run", "against") if name in self.selection]
        several = [entry.key for entry in self.entries if not entry.error][:MOST_PAIRS]
        for one in dict.fromkeys([*chosen, *several]):
            for other in dict.fromkeys([*chosen, *several]):
                if one != other:
                    yield "compare", {"run": one, "against": other}
        eager = [entry.key for entry in self.entries if entry.size <= EAGER and not entry.error]
        yield from (("pictures", {"run": key}) for key in eager)
        yield from (("pictures", {"run": key, "dark": True}) for key in eager)

    def _detail(self, run: str) -> Answer:
        """Spec, provenance and metrics of a run, from what the list knows already."""
        entry = self._entry(run)
        about = [["folder", str(entry.path.absolute())]] if entry.path is not None else []
        about += [[name, str(value)] for name, value in _leaves(entry.provenance)]
        return {"spec": _lines(entry.spec), "about": [[shown(a), shown(b, 400)] for a, b in about],
                "metrics": [[shown(name), value] for name, value in entry.flat.items()], "error": shown(entry.error, 600),
                "eager": entry.size <= EAGER and not entry.error, "size": entry.size}, []

    def _pictures(self, run: str, dark: bool = False) -> Answer:
        """What a run holds: its texts and claims as tables, its scores as pictures, for a dark page if that is said."""
        found = self.load(run)
        texts = [[shown(where(name, one)), shown(one.prompt, 300), shown(one.new, 600)]
                 for name, several in found.texts.items() for one in several]
        kept = [[shown(key), " · ".join(found.axes[key]), "×".join(map(str, tensor.shape))] for key, tensor in
                found.data.items()]
        claims = [[shown(one.text, 300), "holds" if one.holds else "FAILS", one.left, one.right] for one in
                  found.expectations]
        likely = [[shown(name), *(f"{shown(token)} {html.number(chance)}" for token, chance in
                                  zip(_tokens(one), one.values.tolist()[:MOST_NEXT], strict=False))]
                  for name, one in following(found)[:MOST_TEXTS]]
        images, left_out = _images(found, dark)
        more = f"{len(left_out)} more: {', '.join(map(shown, left_out[:6]))}" if left_out else ""
        if len(texts) > MOST_TEXTS:
            more = f"{more} · {len(texts) - MOST_TEXTS} more texts".strip(" ·")
        return {"texts": texts[:MOST_TEXTS], "next": likely, "kept": kept, "claims": claims,
                "images": [shown(key) for key in images], "more": more}, [*images.values()]

    def _compare(self, run: str, against: str) -> Answer:
        """Metrics of two runs and their difference; the lines of one spec against the other's; what else is different."""
        one, other = self._entry(run), self._entry(against)
        a, b = one.flat, other.flat
        names = list(dict.fromkeys((*b, *a)))
        metrics = [[shown(name), b.get(name), a.get(name), a[name] - b[name] if name in a and name in b else None]
                   for name in names]
        lines = [[line[0], shown(line[2:], 400)] for line in difflib.ndiff(other.spec.strip("\n").split("\n"),
                                                                                  one.spec.strip("\n").split("\n"))
                 if line[0] in " +-"]
        around = compare(Run(provenance=dict(other.provenance)), Run(provenance=dict(one.provenance))).circumstances
        return {"metrics": metrics, "lines": lines, "around": [shown(what, 300) for what in around]}, []

    def _refresh(self) -> Answer:
        self.refresh()
        return {"count": len(self.entries)}, []

    def spell(self, selection: Mapping[str, Any]) -> str:
        return self._entry(selection["run"]).spec if "run" in selection else ""

    def static(self) -> str:
        described = self.describe()
        head = ["run", "stored (UTC)", "model", "spec", "size", *described["metrics"][:8]]
        rows = [[row["name"], row["stored"], row["model"], row["error"] or row["line"], size(row["size"]),
                 *row["metrics"][:8]] for row in described["rows"][:MOST_STATIC]]
        more = html.note(f"{len(self.entries) - MOST_STATIC} more runs") if len(self.entries) > MOST_STATIC else ""
        return html.table(head, rows) + more + (html.note(described["note"]) if described["note"] else "")

    def plot(self, ax: Any = None, *, dark: bool = False) -> Figure:
        """The list as a table, with the runs that are chosen marked; `dark` for a page with light letters."""
        from . import night, table_figure

        self._check_open()
        described = self.describe()
        rows, keys = described["rows"][:MOST_STATIC], [entry.key for entry in self.entries]
        names = described["metrics"][:8]
        cut = len(self.entries) - len(rows)
        notes = [f"{cut} more runs" if cut > 0 else "", "" if rows else "There are no runs.", described["note"]]
        marks = {keys.index(self.selection[name]): mark for name, mark in (("run", "● "), ("against", "○ "))
                 if name in self.selection}
        marked = [(row, marks.get(i, "")) for i, row in enumerate(rows)]
        return table_figure.figure(
            ["run", "stored (UTC)", "model", "spec", "size", *names],
            [[mark + row["name"], row["stored"], row["model"], row["error"] or row["line"], size(row["size"]),
              *("" if value is None else html.number(value) for value in row["metrics"][:8])] for row, mark in marked],
            night.DARK if dark else night.LIGHT, right=[False] * 4 + [True] * (1 + len(names)),
            chosen=[i for i in marks if i < len(rows)], title=self._title, notes=[one for one in notes if one], ax=ax)

    def to_png(self, path: str | Path | None = None, *, dpi: int = 144, dark: bool = False) -> bytes:
        """The list as a picture, without a browser; also written to `path` when one is given: `.png`, `.svg` or `.pdf`.

        Raises:
            ViewError: the view was closed; another suffix.
            RecordError: the file exists, or cannot be written.
        """
        pictures.suffix(path)
        return pictures.written(self.plot(dark=dark), path, dpi)

    def release(self) -> None:
        self.entries, self._loaded, self._source = [], ("", None), None


def _images(run: Run, dark: bool) -> tuple[dict[str, bytes], list[str]]:
    """Pictures of the scores of a run, the first few, and the names of those that are left out."""
    from .night import darkened

    images: dict[str, bytes] = {}
    left_out: list[str] = []
    for key, scores in run.scores.items():
        if is_top(key, scores):
            continue
        if len(images) == MOST_PICTURES:
            left_out.append(key)
            continue
        try:
            figure = scores.plot()
        except HooklabError:
            left_out.append(key)
            continue
        images[key] = (darkened(figure) if dark else figure)._repr_png_()  # type: ignore[attr-defined]
    return images, left_out


def _tokens(scores: Scores) -> list[Any]:
    return [] if scores.labels is None else scores.labels.tolist()


def size(count: int) -> str:
    """Bytes in words.

    >>> size(512), size(20480), size(5 * 2**30)
    ('512 B', '20.0 KB', '5.0 GB')
    """
    value, unit = float(count), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1024 or unit == "TB":
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def _row(entry: Entry, names: list[str]) -> dict[str, Any]:
    model, fingerprint = entry.model
    return {"key": entry.key, "name": shown(entry.key), "stored": moment(entry.stored), "time": entry.stored,
            "model": shown(model), "fingerprint": shown(fingerprint), "line": shown(entry.first_line), "size": entry.size,
            "error": shown(entry.error, 300), "metrics": [entry.flat.get(name) for name in names],
            "memory": entry.held is not None}


def _lines(spec: str) -> str:
    return "\n".join(shown(line, 600) if not line.startswith(" ") else " " * (len(line) - len(line.lstrip(" ")))
                     + shown(line.lstrip(" "), 600) for line in spec.split("\n"))


def _leaves(nested: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in nested.items():
        found += _leaves(value, f"{prefix}{key} ") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found


def runs(source: Any = None, *, title: str = "") -> Runs:
    """A list of runs to search, sort, look into and compare.

    Only `run.json` of a stored run is read for the list; the rest when the run is chosen. A run that cannot be read (cut
    short, changed, of a newer version) is listed with the reason.

    Args:
        source: A folder of stored runs (`run.save("runs/first")`), Runs or a dict of them by name, or nothing for the cells
            that this notebook has run.
        title: A heading.

    Raises:
        ViewError: there is no such folder, or something else than runs was given.

    Example:
        >>> import hooklab as hl
        >>> view = hl.view.runs({"first": hl.Run("metric prob", metrics={"main": {"prob": 0.5}})})
        >>> view.select(run="first").run.metrics["main"]["prob"]
        0.5
    """
    return Runs(source, title=title)
