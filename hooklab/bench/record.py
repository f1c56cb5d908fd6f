"""A run as it is read back: one `Record` for each call.

    database rows ──▶ Record; its result and inputs are read from their files when they are asked for
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import html
from ..errors import RecordError
from ..records.finding import Traits, moment
from . import artefacts


@dataclass(frozen=True, repr=False, eq=False)
class Record:
    """One run: a call of an experiment, and everything about it.

    Attributes:
        id: Its name; later runs sort behind earlier ones.
        name: Of the experiment.
        version: Of the code.
        status: `finished`, `failed` (it raised), `interrupted`, `running`, `killed` (its process is gone), or `unknown` (it
            may be running on a machine that cannot be seen from here).
        started: Seconds since 1970.
        seconds: How long it took; None where it did not end.
        metrics: The last value of each number that it logged or returned.
        series: Every value of each: name -> [(step or None, value)].
        parent: The run that called it; "" when none did.
        about: Everything else, as plain data: arguments, models, environment, seed, random, tools, error, output, lost.
        folder: Where its files are.
        source: The function's text.
        text: The same with its imports, constants and helpers before it.
        tags: Words that it was given with `bench.tag`.
    """

    id: str
    name: str
    version: str
    status: str
    started: float
    seconds: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    series: dict[str, list[tuple[int | None, float]]] = field(default_factory=dict)
    parent: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    source: str = ""
    text: str = ""
    tags: tuple[str, ...] = ()

    @property
    def arguments(self) -> dict[str, str]:
        """What it was called with, as text; tensors by shape and hash, models by fingerprint."""
        return {name: one["text"] for name, one in self.about.get("arguments", {}).items()}

    @property
    def models(self) -> dict[str, str]:
        """Where it was given models -> their fingerprints."""
        return dict(self.about.get("models", {}))

    @property
    def environment(self) -> dict[str, Any]:
        """Python, platform, versions, the repository's commit."""
        return dict(self.about.get("environment", {}))

    @property
    def seed(self) -> int | None:
        """The seed that it drew from, if it was given one."""
        return self.about.get("seed")

    @property
    def output(self) -> str:
        """What it wrote to the standard output."""
        return str(self.about.get("output", ""))

    @property
    def error(self) -> str:
        """The traceback of what it raised; empty when it raised nothing."""
        return str(self.about.get("error", {}).get("traceback", ""))

    def _error(self) -> str:
        found = self.about.get("error", {})
        return f"{found['type']}: {found['message']}".rstrip(": ") if found else ""

    @property
    def lost(self) -> list[str]:
        """What was not kept as data, and what was told by its kind only."""
        return [*self.about.get("lost", []), *self.about.get("by_kind", [])]

    @cached_property
    def result(self) -> Any:
        """What it returned, read from its file; tensors bit for bit.

        Raises:
            RecordError: it did not finish, or the file is gone or changed.
        """
        if self.status != "finished":
            raise RecordError(f"{self.id} is {self.status}: it has no result")
        return artefacts.fetch(self.folder / "result")

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What it was called with, by parameter. A model is a `Needed` with its fingerprint. Raises RecordError."""
        found = artefacts.fetch(self.folder / "inputs")
        return dict(found)

    @property
    def figures(self) -> dict[str, Path]:
        """The pictures that it drew, by name: PNG files, each with an SVG beside it; of views, pages."""
        return {name: self.folder / file for name, file in self.about.get("figures", {}).items()}

    @property
    def logged(self) -> dict[str, Any]:
        """What it logged besides numbers and figures, by name. Raises RecordError."""
        return {name: artefacts.fetch(self.folder / file) for name, file in self.about.get("logged", {}).items()}

    def traits(self) -> Traits:
        """What it is found by; nothing of it is read from a file."""
        told = self.about.get("arguments", {})
        names = self.about.get("model_names", {})
        return Traits({"status": (self.status,), "experiment": (self.name,), "tag": self.tags},
                      [(str(names.get(mark, "")), mark) for mark in self.models.values()],
                      {"inputs": {name: f"{one['text']}\n{one.get('words', '')}" for name, one in told.items()}},
                      self.started, {name: (value,) for name, value in self.metrics.items()})

    def rows(self) -> list[tuple[str, str]]:
        """What there is to say, as names and texts."""
        git = self.environment.get("git") or {}
        commit = f"{(git.get('commit') or '')[:12]}{' (changed since)' if git.get('dirty') else ''}"
        lines = [("run", self.id), ("experiment", self.name), ("version", self.version), ("status", self.status),
                 ("tags", ", ".join(self.tags)),
                 ("started (UTC)", moment(self.started)),
                 ("seconds", "" if self.seconds is None else f"{self.seconds:.3f}"), ("called by", self.parent),
                 ("seed", "" if self.seed is None else str(self.seed)),
                 *((f"argument {name}", text) for name, text in self.arguments.items()),
                 *((f"model {name}", text) for name, text in self.models.items()),
                 *((f"tool {name}", text) for name, text in self.about.get("tools", {}).items()),
                 *((name, html.number(value)) for name, value in self.metrics.items()),
                 ("error", self._error()), ("result", str(self.about.get("result", ""))),
                 ("figures", ", ".join(self.figures)),
                 ("not kept as data", "; ".join(self.lost)), ("commit", commit),
                 ("versions", ", ".join(f"{a} {b}" for a, b in self.environment.get("versions", {}).items())),
                 ("troubles", "; ".join(self.about.get("troubles", [])))]
        return [(name, text) for name, text in lines if text]

    def __repr__(self) -> str:
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        last = [self.error.rstrip()] if self.error else []
        return "\n".join([*(f"{name:<{width}}  {html.printable(text)}" for name, text in rows), *last])

    def _repr_html_(self) -> str:
        import base64

        (head, ident), *rows = self.rows()
        parts = [html.table([head, ident], rows), html.folded("source", self.text)]
        parts += [html.folded(name, text) for name, text in (("output", self.output), ("error", self.error)) if text]
        for name, path in self.figures.items():
            if path.suffix == ".png" and path.is_file():
                data = base64.b64encode(path.read_bytes()).decode()
                parts.append(f'{html.heading(name)}<img style="max-width: 100%" alt="{html.safe(name)}" '
                             f'src="data:image/png;base64,{data}">')
            else:
                parts.append(html.heading(name) + html.note(f"a page of its own: {path}"))
        return html.block(*parts)


def record_of(row: tuple[Any, ...], numbers: Sequence[tuple[Any, ...]], folder: Path, status: str,
              tags: Sequence[str] = ()) -> Record:
    """A row of the table of runs as a record, with its folder."""
    ident, name, version, _, _, parent, started, seconds, document, code, text = row
    series: dict[str, list[tuple[int | None, float]]] = {}
    for key, step, value in numbers:
        series.setdefault(key, []).append((step, float("nan") if value is None else value))
    return Record(ident, name, version, status, started, seconds, {key: values[-1][1] for key, values in series.items()},
                  series, parent, json.loads(document), folder, json.loads(code)["source"], text, tuple(tags))
