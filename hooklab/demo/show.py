"""The demo as a whole: run the experiments, print tables, write the page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .experiments import CLEAN, Induction, NextTokens, Patching, induction, next_tokens, patching
from .page import page, write_new

if TYPE_CHECKING:
    from ..model.model import Model


def demo(model: Model, out: Path, *, replace: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Take a model apart; returns the results as plain data, with the page's path under `"page"`.

    Args:
        model: A model with a tokenizer that knows the names Mary and John, such as the shipped one.
        out: The HTML file to write; an existing one is kept unless `replace`.
        replace: Overwrite an existing file.
        quiet: Print nothing.

    Raises:
        HooklabError: the file cannot be written, or the model cannot take the prompts.
    """
    report = model.verify()
    told, patched, heads = next_tokens(model, CLEAN), patching(model), induction(model)
    html = page("hooklab demo", repr(model), report._repr_html_(), told, patched, heads)
    path = write_new(html, out, replace=replace)
    if not quiet:
        _print(model, report, told, patched, heads)
    return dict(model=repr(model), verified=report.ok, next_tokens=asdict(told), patching=asdict(patched),
                induction=asdict(heads), page=str(path.resolve()))


def _print(model: Model, report: Any, told: NextTokens, patched: Patching, heads: Induction) -> None:
    from rich.console import Console

    console = Console()
    console.print(repr(model), markup=False)
    checks = sum(check.error is not None for check in report)
    console.print(f"verified: {checks} checks, {'all pass' if report.ok else 'NOT all pass'}\n", style="bold")
    console.print(_told(told))
    console.print(_patched(patched))
    console.print(_scores("Induction score, layer × head", heads.induction))
    console.print(_scores("Previous-token score, layer × head", heads.previous))


def _table(title: str, columns: list[str]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for name in columns:
        table.add_column(Text(name), justify="right")
    return table


def _told(told: NextTokens) -> Any:
    table = _table(f"Next token after: {told.prompt}", ["token", "probability"])
    for token, probability in zip(told.tokens, told.probabilities, strict=True):
        table.add_row(repr(token), f"{probability:.3f}")
    return table


def _patched(patched: Patching) -> Any:
    """Positions down, layers across: a prompt is longer than a model is deep."""
    table = _table(f"Restoring the stream of the clean run: 0 = {patched.other!r} as when corrupted, "
                   f"1 = {patched.answer!r} as when clean", ["position", *(f"L{i}" for i in range(len(patched.effect)))])
    for position, piece in enumerate(patched.pieces):
        row = [layer[position] for layer in patched.effect]
        cells = [f"[bold]{value:.2f}[/bold]" if abs(value) >= 0.5 else f"{value:.2f}" for value in row]
        table.add_row(f"{position} {piece}".replace("[", r"\["), *cells)
    return table


def _scores(title: str, scores: tuple[tuple[float, ...], ...]) -> Any:
    table = _table(title, ["", *(f"H{i}" for i in range(len(scores[0])))])
    for layer, row in enumerate(scores):
        table.add_row(f"L{layer}", *(f"[bold]{v:.2f}[/bold]" if v >= 0.4 else f"{v:.2f}" for v in row))
    return table
