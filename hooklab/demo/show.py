"""The demo as a whole: run the experiments, print tables, write the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .experiments import CLEAN, Induction, NextTokens, Patching, induction, next_tokens, patching
from .page import page, write_new
from .svg import decimal

if TYPE_CHECKING:
    from ..model.model import Model
    from ..model.verification.report import Report

PAGE = "hooklab-demo.html"
"""Name of the page where only a folder is given."""


def demo(model: Model, out: Path, *, replace: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Take a model apart; returns the results as plain data, with the page's path under `"page"`.

    Args:
        model: A model with a tokenizer that knows the names Mary and John, such as the shipped one.
        out: The HTML file to write, or a folder to write it in; an existing file is kept unless `replace`.
        replace: Overwrite an existing file.
        quiet: Print nothing.

    Raises:
        HooklabError: the file cannot be written, or the model cannot take the prompts.
    """
    report = model.verify()
    told, patched, heads = next_tokens(model, CLEAN), patching(model), induction(model)
    html = page("hooklab demo", repr(model), (_verdict(report), report._repr_html_()), told, patched, heads)
    path = write_new(html, out / PAGE if out.expanduser().is_dir() else out, replace=replace)
    if not quiet:
        _print(model, report, told, patched, heads)
    return dict(model=repr(model), verified=report.ok, next_tokens=asdict(told), patching=asdict(patched),
                induction=asdict(heads), page=str(path.resolve()))


def _verdict(report: Report) -> str:
    checks = sum(check.error is not None for check in report)
    result = "all pass" if report.ok else f"NOT all pass: {', '.join(report.broken)}"
    return f"Every site of this model was checked by arithmetic: {checks} checks, {result}."


def _print(model: Model, report: Report, told: NextTokens, patched: Patching, heads: Induction) -> None:
    from rich.console import Console

    console = Console(highlight=False)

    def say(title: str, table: Any) -> None:
        console.print(f"\n{title}", style="bold", markup=False)
        console.print(table)

    console.print(repr(model), markup=False)
    console.print(_verdict(report), markup=False)
    say(f"Next token after: {told.prompt}", _told(told))
    say(f"Restoring the stream of the clean run in: {patched.corrupt}\n"
        f"0: {patched.other!r} as when corrupted · 1: {patched.answer!r} as when clean", _patched(patched))
    say("Induction score: attention to what followed the last time", _scores(heads.induction))
    say("Previous-token score: attention to the token right before", _scores(heads.previous))


def _table(columns: Sequence[str]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in columns:
        table.add_column(Text(name), justify="right")
    return table


def _told(told: NextTokens) -> Any:
    from rich.text import Text

    table = _table(["token", "probability"])
    for token, probability in zip(told.tokens, told.probabilities, strict=True):
        table.add_row(Text(repr(token)), decimal(probability, 4))
    return table


def _patched(patched: Patching) -> Any:
    """Positions down, layers across: a prompt is longer than a model is deep."""
    from rich.text import Text

    table = _table(["position", *(f"L{i}" for i in range(len(patched.effect)))])
    for position, piece in enumerate(patched.pieces):
        cells = [_number(layer[position], abs(layer[position]) >= 0.5) for layer in patched.effect]
        table.add_row(Text(f"{position} {piece}"), *cells)
    return table


def _scores(scores: Sequence[Sequence[float]]) -> Any:
    table = _table(["", *(f"H{i}" for i in range(len(scores[0])))])
    for layer, row in enumerate(scores):
        table.add_row(f"L{layer}", *(_number(value, value >= 0.4) for value in row))
    return table


def _number(value: float, strong: bool) -> Any:
    from rich.text import Text

    return Text(decimal(value), style="bold" if strong else "")
