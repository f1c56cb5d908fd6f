"""How a Run looks: a block of text, and a page of HTML with the views that its spec asks for.

Nothing is computed here: a view whose numbers the run lacks is a line that says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import html
from .sketch import fragment, spread
from .views import VIEWS, first_following, following, is_top, summary

if TYPE_CHECKING:
    from .parts import Expectation, Text, ViewRequest
    from .run import Run
    from .scores import Scores

MOST_LINES = 12
MOST_TEXT = 200
MOST_TOKENS = 3


def text(run: Run) -> str:
    """Metrics, scores, saved activations, texts and claims, one line each."""
    lines = [f"Run · {', '.join(map(html.printable, run.runs)) or 'empty'}"]
    lines += _aligned([["metrics", *metric_names(run)], *metric_rows(run)]) if run.metrics else []
    lines += _section("scores", [[key, _sizes(s.axes, s.shape), spread(s)] for key, s in _others(run)])
    shown, more = first_following(run)
    lines += _section("next token", [[name, _likeliest(one)] for name, one in shown], more)
    lines += _section("saved", [[key, _sizes(run.axes[key], tensor.shape), str(tensor.dtype).removeprefix("torch.")]
                                for key, tensor in run.data.items()])
    lines += _section("texts", [[where(name, one), repr(_cut(one.prompt)), "→", repr(_cut(one.new))]
                                for name, several in run.texts.items() for one in several])
    lines += _section("claims", [[verdict(one), one.text, _numbers(one)] for one in run.expectations])
    return "\n".join(lines)


def page(run: Run) -> str:
    """The metrics, then the views asked for (or, when none were, all there is), then the claims and the spec."""
    parts = [metrics_table(run)] if run.metrics else []
    if run.views:
        parts += [view(run, request) for request in run.views]
    else:
        parts += [fragment(scores, key) for key, scores in _others(run)]
        parts += [summary(run)] if following(run) else []
        parts += [saved(run)] if run.data else []
        parts += [VIEWS["text"](run, None)] if run.texts else []
        parts += [VIEWS["tokens"](run, None)] if run.tokens_of and not parts else []
    if run.expectations:
        parts.append(html.table(["claims", "", "left", "right"], [
            [one.text, verdict(one), html.number(one.left, 6), html.number(one.right, 6)] for one in run.expectations]))
    parts += [html.folded("spec", run.spec)] if run.spec else []
    return html.block(*parts) if parts else html.block(html.note("This run is empty."))


def view(run: Run, request: ViewRequest) -> str:
    """One view under its title, or a line that says what it lacks."""
    draw = VIEWS.get(request.view)
    drawn = draw(run, request) if draw else html.note(f"There is no picture for `show {request.view}` here.")
    title = request.opts.get("title")
    return (html.heading(str(title)) if title else "") + drawn


def saved(run: Run) -> str:
    """A table of the saved activations."""
    rows = [[key, _sizes(run.axes[key], tensor.shape), str(tensor.dtype).removeprefix("torch.")]
            for key, tensor in run.data.items()]
    return html.table(["saved", "axes", "dtype"], rows)


def metrics_table(run: Run) -> str:
    """Runs down, metrics across."""
    return html.table(["metrics", *metric_names(run)], metric_rows(run))


def metric_names(run: Run) -> list[str]:
    """Every metric of any run, in the order of first appearance."""
    return list(dict.fromkeys(name for row in run.metrics.values() for name in row))


def metric_rows(run: Run) -> list[list[Any]]:
    """One row per run: its name and its number for each metric, None where it has none."""
    names = metric_names(run)
    return [[key, *(row.get(name) for name in names)] for key, row in run.metrics.items()]


def where(run: str, one: Text) -> str:
    """Which continuation: `hooked · c 4 · sample 1`."""
    extra = [f"{axis} {html.printable(value)}" for axis, value in one.cell.items()]
    extra += [f"example {one.example}"] if one.example else []
    extra += [f"sample {one.sample}"] if one.sample else []
    return " · ".join([run, *extra])


def verdict(claim: Expectation) -> str:
    """Whether a claim holds, in a word."""
    return "holds" if claim.holds else "FAILS"


def _numbers(claim: Expectation) -> str:
    return f"({html.number(claim.left, 6)} and {html.number(claim.right, 6)})"


def _sizes(axes: tuple[str, ...], shape: Any) -> str:
    return " · ".join(f"{axis} {size}" for axis, size in zip(axes, shape, strict=True)) or "one number"


def _others(run: Run) -> list[tuple[str, Scores]]:
    """All scores but those that say which token comes next."""
    return [(key, scores) for key, scores in run.scores.items() if not is_top(key, scores)]


def _likeliest(scores: Scores) -> str:
    """The first tokens with their probabilities."""
    texts = [] if scores.labels is None else scores.labels.tolist()
    return ", ".join(f"{str(text)!r} {html.number(chance)}"
                     for text, chance in list(zip(texts, scores.values.tolist(), strict=True))[:MOST_TOKENS])


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + "…"


def _section(title: str, rows: list[list[str]], rest: str = "") -> list[str]:
    if not rows:
        return []
    more = [f"    {rest}"] if rest else [f"    … {len(rows) - MOST_LINES} more"] if len(rows) > MOST_LINES else []
    return [f"  {title}", *("  " + line for line in _aligned(rows[:None if rest else MOST_LINES])), *more]


def _aligned(rows: list[list[Any]]) -> list[str]:
    cells = [[html.printable("" if cell is None else html.number(cell, 4)) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
