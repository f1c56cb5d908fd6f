"""`model.sites`: the glossary as it applies to one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from ..errors import SiteError, did_you_mean
from ..sites import SITES, Site
from .layout import Layout


class SiteTable(Mapping[str, Site]):
    """Sites that a model has: a mapping from name to `Site`, printed as a table that also says what is missing."""

    def __init__(self, layout: Layout, refused: Mapping[str, str]) -> None:
        self._layout = layout
        self._refused = refused

    def __getitem__(self, name: str) -> Site:
        self.check(name)
        return SITES[name]

    def __iter__(self) -> Iterator[str]:
        return iter([name for name in SITES if self.missing(name) is None])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.missing(name) is None

    def missing(self, name: str) -> str | None:
        """Why the model lacks a site, or None when it has it."""
        if name not in SITES:
            return f'There is no site "{name}".' + did_you_mean(name, SITES)
        return self._layout.missing(name) or self._refused.get(name)

    def check(self, name: str) -> None:
        """Refuse a site that the model lacks. Raises SiteError, which says why."""
        if (reason := self.missing(name)) is not None:
            raise SiteError(reason)

    def _rows(self) -> list[tuple[str, str, str]]:
        return [(site.name, " ".join(site.axes), self.missing(site.name) or site.meaning) for site in SITES.values()]

    def __rich__(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"Sites of {self._layout.family.name}", title_justify="left")
        for heading in ("site", "axes", "meaning"):
            table.add_column(heading)
        for name, axes, meaning in self._rows():
            table.add_row(*(Text(cell) for cell in (name, axes, meaning)), style="dim" if self.missing(name) else "")
        return table

    def __repr__(self) -> str:
        width = max(len(name) for name in SITES)
        return "\n".join(f"{name:<{width}}  {axes:<30}  {meaning}" for name, axes, meaning in self._rows())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr{' style=opacity:.5' if self.missing(name) else ''}>"
            f"<td><code>{escape(name)}</code></td><td>{escape(axes)}</td><td>{escape(meaning)}</td></tr>"
            for name, axes, meaning in self._rows())
        return f"<table><tr><th>site</th><th>axes</th><th>meaning</th></tr>{rows}</table>"
