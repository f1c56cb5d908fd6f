"""The demo's page: one HTML file with its styles and pictures inside, and its writing to disk."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import count
from pathlib import Path

from ..errors import HooklabError
from ..files import write_whole
from . import svg
from .experiments import Induction, NextTokens, Patching

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fdfdfc; --quiet: #5d5d5d; --line: #ddd; }
@media (prefers-color-scheme: dark) { :root { --ink: #f2f2f0; --paper: #17181a; --quiet: #a5a5a5; --line: #3a3a3a; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
       max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
code, .prompt { font-family: ui-monospace, monospace; font-size: .92em; }
.prompt { border-left: 3px solid var(--line); padding: .3rem .8rem; white-space: pre-wrap; }
.quiet { color: var(--quiet); } figure { margin: 1rem 0; overflow-x: auto; }
figcaption { color: var(--quiet); font-size: .9rem; max-width: 46rem; }
summary { cursor: pointer; font-size: .9rem; color: var(--quiet); margin-top: .3rem; }
table { border-collapse: collapse; font-size: .85rem; } td, th { padding: .15rem .6rem; text-align: left;
border-bottom: 1px solid var(--line); } table.numbers td { text-align: right; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--quiet); }
"""


def page(title: str, facts: str, proof: tuple[str, str], told: NextTokens, patched: Patching, heads: Induction) -> str:
    """The whole page as HTML; all text from the model or the user is escaped.

    Args:
        title: The page's heading.
        facts: One line about the model.
        proof: One line about the checks of its sites, and their table as HTML.
        told: Next tokens.
        patched: The patching experiment.
        heads: The scores of heads.
    """
    return "".join([
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{STYLE}{svg.STYLE}</style></head><body>",
        f'<h1>{escape(title)}</h1><p class="quiet">{escape(facts)}</p>',
        "<h2>What it says next</h2>", _told(told),
        "<h2>Where the answer is decided</h2>", _patched(patched),
        "<h2>Heads that continue what was seen before</h2>", _heads(heads),
        f"<h2>Proof</h2><p>{escape(proof[0])}</p>",
        f"<details><summary>Every check</summary><figure>{proof[1]}</figure></details></body></html>"])


def _told(told: NextTokens) -> str:
    picture = svg.bars([repr(t) for t in told.tokens], told.probabilities, title="Next-token probabilities",
                       unit="probability")
    return f'<p class="prompt">{escape(told.prompt)}</p>' + _figure(picture, "The likeliest next tokens, by probability.")


def _patched(patched: Patching) -> str:
    layers = [f"L{i}" for i in range(len(patched.effect))]
    pieces = [f"{i} {piece}" for i, piece in enumerate(patched.pieces)]
    return "".join([
        f'<p class="prompt">clean    {escape(patched.clean)}\ncorrupt  {escape(patched.corrupt)}</p>',
        f"<p>Logit of <code>{escape(repr(patched.answer))}</code> minus logit of "
        f"<code>{escape(repr(patched.other))}</code>: {patched.clean_logit_diff:+.2f} on the clean prompt, "
        f"{patched.corrupt_logit_diff:+.2f} on the corrupted one.</p>",
        _map(patched.effect, layers, pieces, "Effect of restoring the stream", ("layer", "position"),
             "Each cell is one run on the corrupted prompt with the residual stream before one layer restored from the "
             "clean run at one position. 0: the corrupted answer stays; 1: the clean answer is back.", limit=1.0)])


def _heads(heads: Induction) -> str:
    layers = [f"L{i}" for i in range(len(heads.induction))]
    names = [f"H{i}" for i in range(len(heads.induction[0]))]
    tokens = [f"{i} {piece}" for i, piece in enumerate(heads.pieces)]
    best = "L{}H{}".format(*heads.best)
    return "".join([
        _map(heads.induction, layers, names, "Induction scores", ("layer", "head"),
             "Induction score: on a random sequence that is repeated, the mean attention from a token to the one that "
             "followed it the first time.", limit=1.0, centred=False),
        _map(heads.previous, layers, names, "Previous-token scores", ("layer", "head"),
             "Previous-token score: the mean attention to the token right before.", limit=1.0, centred=False),
        _map(heads.pattern, tokens, tokens, f"Attention of {best}", ("query", "key"),
             f"Attention of {best}, the strongest induction head. Rows look, columns are looked at.", limit=1.0,
             centred=False, cell=22)])


def _map(values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], title: str,
         axes: tuple[str, str], caption: str, *, limit: float, centred: bool = True, cell: int = svg.CELL) -> str:
    """A heat map with its explanation, and its numbers as a table for those who cannot hover or see."""
    picture = svg.heatmap(values, rows, columns, title=title, row_axis=axes[0], column_axis=axes[1], limit=limit,
                          centred=centred, cell=cell)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join(f'<tr><th scope="row">{escape(name)}</th>' + "".join(f"<td>{svg.decimal(v, 4)}</td>" for v in row)
                   + "</tr>" for name, row in zip(rows, values, strict=True))
    numbers = (f'<details><summary>Numbers</summary><table class="numbers"><caption>{escape(title)}</caption>'
               f"<tr><td></td>{head}</tr>{body}</table></details>")
    return _figure(picture, f"{caption} Hover over a cell for its exact value.", numbers)


def _figure(picture: str, caption: str, numbers: str = "") -> str:
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption>{numbers}</figure>"


def write_new(text: str, wanted: Path, *, replace: bool = False) -> Path:
    """Write a file atomically; an existing one is kept, and a number added to the name, unless `replace`.

    Raises:
        HooklabError: the folder does not exist or cannot be written to.
    """
    wanted = wanted.expanduser()
    if not wanted.parent.is_dir():
        raise HooklabError(f"There is no folder {wanted.parent}.")
    for n in count(1):
        path = wanted if n == 1 else wanted.with_name(f"{wanted.stem}-{n}{wanted.suffix}")
        try:
            return write_whole(path, text.encode(), replace=replace)
        except FileExistsError:
            continue
        except OSError as error:
            raise HooklabError(f"{wanted} could not be written: {error.strerror}.") from error
    raise AssertionError("unreachable")
