"""What the magic shows itself: text, tables, how far a run is, and errors without a traceback."""

from __future__ import annotations

import contextlib
import re
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html import escape
from typing import Any
from uuid import uuid4

from IPython.core.display_functions import publish_display_data

from ..errors import HooklabError, HooklabWarning, Stopped
from ..problems import SpecError
from ..records import Run


class Shown(str):
    """Text that a notebook shows as it stands, without quotes."""

    def __repr__(self) -> str:
        return str(self)


class Table:
    """Rows under headings, as text and as HTML."""

    def __init__(self, head: Sequence[str], rows: Sequence[Sequence[Any]], empty: str = "") -> None:
        self.head, self.rows, self.empty = tuple(head), [tuple(map(str, row)) for row in rows], empty

    def __repr__(self) -> str:
        if not self.rows:
            return self.empty
        lines = [self.head, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
                         for line in lines)

    def _repr_html_(self) -> str:
        if not self.rows:
            return f"<p>{escape(self.empty)}</p>"
        head = "".join(f"<th style='text-align:left'>{escape(cell)}</th>" for cell in self.head)
        rows = "".join("<tr>" + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) + "</tr>"
                       for row in self.rows)
        return f"<table><tr>{head}</tr>{rows}</table>"


class Interrupted(Stopped):
    """A run that was stopped from outside; shown in one line, and the cells after it do not run."""

    def _render_traceback_(self) -> list[str]:
        kept = "nothing was kept from this cell" if self.run is None else (
            f"{self}. They are kept, in %hook history and under -o NAME; what is missing is nan")
        return [f"Interrupted: {kept}. The model is as it was."]


@contextlib.contextmanager
def plainly(offset: int = 0) -> Iterator[None]:
    """Show every error that hooklab raises on purpose in its own words, lines counted from the `%%hook` line.

    Raises:
        SpecError: the one that was raised, with its lines moved down.
        HooklabError: any other, without its traceback.
        Interrupted: the work was stopped.
    """
    try:
        with _plain_warnings():
            yield
    except SpecError as error:
        if not offset:
            raise
        moved = SpecError([replace(problem, message=_counted(problem.message, offset)) for problem in error.problems],
                          error.text, offset)
        vars(moved).update({name: value for name, value in vars(error).items() if name not in vars(moved)})
        raise moved from error.__cause__
    except HooklabError as error:
        lines = f"{type(error).__name__}: {error}".split("\n")
        error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
        raise
    except KeyboardInterrupt as stopped:
        raise Interrupted(str(stopped), getattr(stopped, "run", None)) from None


def _counted(message: str, offset: int) -> str:
    """A message whose mention of another line counts as the cell does.

    >>> _counted('"x" is saved twice in one run, on line 2', 1)
    '"x" is saved twice in one run, on line 3'
    """
    return re.sub(r"(, on line )(\d+)\b", lambda match: f"{match[1]}{int(match[2]) + offset}", message)


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show hooklab's warnings in one line each, without the place in hooklab that gave them, and anew in every cell."""
    before = warnings.formatwarning

    def written(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        if issubclass(category, HooklabWarning):
            return f"{category.__name__}: {message}\n"
        return before(message, category, filename, lineno, line)

    with warnings.catch_warnings():  # what was warned of in an earlier cell is forgotten
        warnings.formatwarning = written
        try:
            yield
        finally:
            warnings.formatwarning = before


def enliven(run: Any) -> None:
    """Let a run that asks for views show them live, where it stands in a notebook; else it is shown as it is.

    A run keeps a weak hold on its views: they are closed when the cell is run again.
    """
    if not isinstance(run, Run) or not run.views:
        return
    from ..views import of, registry

    if registry.is_static():
        return
    try:
        run.__dict__["_board"] = weakref.ref(of(run))
    except Exception as error:  # the results are there, and are shown without the views
        reason = str(error) if isinstance(error, HooklabError) else f"{type(error).__name__}: {error}"
        warnings.warn(f"the live views could not be made, so the run is shown without them: {reason}", HooklabWarning,
                      stacklevel=2)


def in_notebook() -> Callable[[str, int, int], None]:
    """Shows a line in one output that is updated; the empty line empties the output."""
    ident, started = uuid4().hex, False

    def show(line: str, done: int, total: int) -> None:
        nonlocal started
        bar = f"<progress value='{done}' max='{total}'></progress> {escape(line)}" if line else ""
        publish_display_data({"text/plain": line, "text/html": bar}, {}, transient={"display_id": ident}, update=started)
        started = True

    return show
