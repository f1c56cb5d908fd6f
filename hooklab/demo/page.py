"""The demo's page: one HTML file with its styles and pictures inside, and its writing to disk."""

from __future__ import annotations

import os
import tempfile
from html import escape
from pathlib import Path

from ..errors import HooklabError
from .experiments import Induction, NextTokens, Patching
from .svg import bars, heatmap

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fdfdfc; --quiet: #5d5d5d; --line: #ddd; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e6; --paper: #17181a; --quiet: #a5a5a5; --line: #3a3a3a; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
       max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
code, .prompt { font-family: ui-monospace, monospace; font-size: .92em; }
.prompt { border-left: 3px solid var(--line); padding: .3rem .8rem; white-space: pre-wrap; }
.quiet { color: var(--quiet); } figure { margin: 1rem 0; overflow-x: auto; }
figcaption { color: var(--quiet); font-size: .9rem; max-width: 46rem; }
svg.map text { font: 12px ui-monospace, monospace; fill: var(--ink); }
svg.map text.num { font-size: 10px; text-anchor: middle; } svg.map text.num[fill="#fff"] { fill: #fff; }
svg.map text.num[fill="#222"] { fill: #222; }
table { border-collapse: collapse; font-size: .9rem; } td, th { padding: .2rem .7rem; text-align: left;
border-bottom: 1px solid var(--line); } caption { text-align: left; color: var(--quiet); }
"""


def figure(picture: str, caption: str) -> str:
    """A picture with its explanation."""
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def page(title: str, facts: str, report_html: str, told: NextTokens, patched: Patching, heads: Induction) -> str:
    """The whole page as HTML; all text from the model or the user is escaped."""
    layers = [f"L{i}" for i in range(len(patched.effect))]
    names = [f"H{i}" for i in range(len(heads.induction[0]))]
    pieces = [f"{i} {piece}" for i, piece in enumerate(patched.pieces)]
    told_picture = bars([repr(t) for t in told.tokens], told.probabilities, title="Next-token probabilities",
                        unit="probability")
    patch_picture = heatmap(patched.effect, layers, pieces, title="Effect of restoring the stream",
                            row_axis="layer", column_axis="position")
    score_picture = heatmap(heads.induction, layers, names, title="Induction scores", row_axis="layer",
                            column_axis="head", centred=False)
    before_picture = heatmap(heads.previous, layers, names, title="Previous-token scores", row_axis="layer",
                             column_axis="head", centred=False)
    labels = [f"{i} {piece}" for i, piece in enumerate(heads.pieces)]
    layer, head = heads.best
    pattern_picture = heatmap(heads.pattern, labels, labels, title=f"Attention of L{layer}H{head}",
                              row_axis="query", column_axis="key", centred=False, cell=22)
    return "".join([
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><p class=quiet>{escape(facts)}</p>",
        "<h2>What it says next</h2>", f"<p class=prompt>{escape(told.prompt)}</p>",
        figure(told_picture, "The five likeliest next tokens."),
        "<h2>Where the answer is decided</h2>",
        f"<p class=prompt>clean    {escape(patched.clean)}\ncorrupt  {escape(patched.corrupt)}</p>",
        f"<p>Logit of <code>{escape(repr(patched.answer))}</code> minus logit of "
        f"<code>{escape(repr(patched.other))}</code>: {patched.clean_logit_diff:+.2f} on the clean prompt, "
        f"{patched.corrupt_logit_diff:+.2f} on the corrupted one.</p>",
        figure(patch_picture, "Each cell is one run on the corrupted prompt with the residual stream before one layer "
               "restored from the clean run at one position. 0: the corrupted answer stays; 1: the clean answer is "
               "back. Hover over a cell for its exact value."),
        "<h2>Heads that continue what was seen before</h2>",
        figure(score_picture, "Induction score: on a random sequence that is repeated, the mean attention from a token "
               "to the one that followed it the first time."),
        figure(before_picture, "Previous-token score: the mean attention to the token right before."),
        figure(pattern_picture, f"Attention of L{layer}H{head}, the strongest induction head. Rows look, columns are "
               f"looked at."),
        "<h2>Proof</h2><p>Every site of this model was checked by arithmetic before it was read:</p>",
        f"<figure>{report_html}</figure></body></html>"])


def write_new(text: str, wanted: Path, *, replace: bool = False) -> Path:
    """Write a file atomically; an existing one is kept, and a number added to the name, unless `replace`.

    Raises:
        HooklabError: the folder does not exist or cannot be written to.
    """
    path = wanted.expanduser()
    if not path.parent.is_dir():
        raise HooklabError(f"There is no folder {path.parent}.")
    number = 1
    while not replace and path.exists():
        number += 1
        path = wanted.expanduser().with_name(f"{wanted.stem}-{number}{wanted.suffix}")
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)
    except OSError as error:
        raise HooklabError(f"{path} could not be written: {error.strerror}.") from error
    return path
