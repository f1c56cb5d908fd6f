"""What `model.verify()` gives back: a row for every check, as a table, as HTML and as data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

from .names import EFFECT, LAWS, NOT_FINITE, SIZE

STATUSES = ("absent", "exact", "approximate", "FAILED")


@dataclass(frozen=True)
class Check:
    """One row of a report.

    Attributes:
        name: The identity or law.
        sites: Sites that it concerns.
        error: Largest absolute error, relative to the size of the values where they exceed one; None when absent.
        limit: What the error may be.
        note: Why the check does not apply, or what went wrong.
    """

    name: str
    sites: tuple[str, ...]
    error: float | None
    limit: float
    note: str = ""

    @property
    def status(self) -> str:
        """`"exact"`, `"approximate"`, `"absent"` or `"FAILED"`."""
        if self.error is None:
            return "absent"
        if not self.error <= self.limit:  # NaN fails too
            return "FAILED"
        return "exact" if self.error <= 1e-5 else "approximate"


@dataclass(frozen=True)
class Report:
    """What `model.verify()` found: `ok`, the rows, and `broken`: site -> reason for sites that fail."""

    title: str
    checks: tuple[Check, ...]
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "FAILED" for check in self.checks)

    @property
    def finite(self) -> bool:
        """Whether the model computes numbers at all; if not, nothing else was checked."""
        return self.checks[0].name != NOT_FINITE

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON; an error that is no finite number is None, and its status says the rest."""
        rows = [dict(name=c.name, sites=list(c.sites), error=_plain(c.error), limit=c.limit, status=c.status, note=c.note)
                for c in self.checks]
        return dict(title=self.title, ok=self.ok, checks=rows, broken=dict(self.broken))

    def _rows(self) -> list[tuple[str, ...]]:
        """Table rows: one an identity, and one a site for all its write laws together."""
        rows: list[tuple[str, ...]] = [
            (c.name, " ".join(c.sites), "" if c.name == SIZE else f"{c.error:.1e}", c.status, c.note)
            for c in self.checks if c.name not in LAWS and c.error is not None]
        for site in dict.fromkeys(c.sites[0] for c in self.checks if c.name in LAWS):
            laws = [c for c in self.checks if c.name in LAWS and c.sites == (site,)]
            worst = max((c for c in laws if c.error is not None), key=lambda c: (STATUSES.index(c.status), c.error))
            rows.append(("writes mean what they say", site, f"{worst.error:.1e}", worst.status, " · ".join(map(_law, laws))))
        return rows + [(c.name, " ".join(c.sites), "", c.status, c.note) for c in self.checks
                       if c.error is None and c.name not in LAWS]

    def __rich__(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        colours = {"exact": "green", "approximate": "yellow", "absent": "dim", "FAILED": "bold red"}
        table = Table(title=self.title, title_justify="left")
        for heading in ("check", "sites", "largest error", "status", "note"):
            table.add_column(heading)
        for row in self._rows():
            table.add_row(*(Text(cell) for cell in row), style=colours[row[3]])
        return table

    def __repr__(self) -> str:
        widths = [max(len(row[i]) for row in self._rows()) for i in range(4)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, (*widths, 0), strict=True)).rstrip()
                 for row in self._rows()]
        return "\n".join([self.title, *lines, "all checks pass" if self.ok else f"failed: {', '.join(self.broken)}"])

    def _repr_html_(self) -> str:
        rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self._rows())
        heads = "".join(f"<th>{name}</th>" for name in ("check", "sites", "largest error", "status", "note"))
        return f"<table><caption>{escape(self.title)}</caption><tr>{heads}</tr>{rows}</table>"


def _law(check: Check) -> str:
    """How a write law holds, in the note of a site's row."""
    failed = check.status == "FAILED"
    how = f"{check.error:.0e}" if failed or check.name != EFFECT else check.note or "ok"
    return f"{LAWS[check.name]} {how}"


def _plain(error: float | None) -> float | None:
    return error if error is not None and math.isfinite(error) else None
