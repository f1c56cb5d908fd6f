"""The views of a spec as static pictures: one function per word of `show`, each drawing what the run already holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .. import html
from ..address import indices, parse
from ..errors import HooklabError
from .run import READOUTS, kind
from .sketch import fragment, named

if TYPE_CHECKING:
    import numpy as np

    from .run import Run, ViewRequest
    from .scores import Scores

MOST_MAPS, MOST_STRIPS, MOST_TEXTS = 12, 16, 100
MOST_NEXT = 5
MOST_PROMPTS = 4
"""Prompts of each run whose next tokens are listed where no `show` line asks for them."""
FAINT, LIKELY = 0.005, 0.0005
"""Attention and probabilities below these are not written out in a picture; the tooltip has the number."""
_PATTERN = re.compile(r"^(?P<run>\w+)\.L(?P<layer>\d+)(?:H(?P<heads>\d+|\[[\d,]+\]))?\.pattern$")


def grid(run: Run, request: ViewRequest | None) -> str:
    """Everything that was swept over."""
    drawn = [fragment(s, key) for key, s in run.scores.items() if _swept(key, s)]
    return "".join(drawn) or _lacking("grid", "nothing was swept; write `each` before a place")


def heads(run: Run, request: ViewRequest | None) -> str:
    """Scores of heads, with a list of the strongest when a count is given."""
    found = [(key, s) for key, s in run.scores.items() if "head" in s.axes]
    parts = [fragment(s, key) + (strongest(key, s, count) if (count := counted(request)) else "") for key, s in found]
    return "".join(parts) or _lacking("heads", "no score has a head axis; `score` or `attribute` heads first")


def resid(run: Run, request: ViewRequest | None) -> str:
    """Scores of the residual stream."""
    found = [fragment(s, key) for key, s in run.scores.items() if kind(key) == "resid"]
    return "".join(found) or _lacking("resid", "there are no numbers of the residual stream")


def lens(run: Run, request: ViewRequest | None) -> str:
    """What each layer's stream reads as."""
    found = [fragment(s, key) for key, s in run.scores.items() if kind(key) == "lens"]
    return "".join(found) or _lacking("lens", "add a line such as `lens L*.resid_post @each`")


def top(run: Run, request: ViewRequest | None) -> str:
    """The likeliest next tokens of each run."""
    parts: list[str] = []
    for key, scores in run.scores.items():
        if is_top(key, scores):
            parts += _tops(key.rpartition(".")[0], scores, counted(request))
    return "".join(parts) or _lacking("top", "the run kept no next-token probabilities")


def following(run: Run) -> list[tuple[str, Scores]]:
    """Names of the runs (and examples) that kept their next tokens, with the Scores [rank] of each."""
    return [(name + (f" · {label}" if label else ""), one) for key, scores in run.scores.items() if is_top(key, scores)
            for name in [key.rpartition(".")[0]] for label, one in _examples(scores)]


def first_following(run: Run) -> tuple[list[tuple[str, Scores]], str]:
    """`following` for the first prompts of each run only, and a line that says how many there are beside; "" for none."""
    shown, every = [], 0
    for key, scores in run.scores.items():
        if is_top(key, scores):
            name, examples = key.rpartition(".")[0], _examples(scores)
            every += len(examples)
            shown += [(name + (f" · {label}" if label else ""), one) for label, one in examples[:MOST_PROMPTS]]
    shown = shown[:MOST_STRIPS]
    left = every - len(shown)
    return shown, f"… and {left} more prompt{'s' if left > 1 else ''}: show top 5" if left else ""


def summary(run: Run) -> str:
    """The likeliest next tokens of the first prompts of each run in one table; empty where none kept them."""
    rows, more = first_following(run)
    if not rows:
        return ""
    width = min(MOST_NEXT, min(len(one.values) for _, one in rows))
    chances = [one.values.tolist()[:width] for _, one in rows]
    labels = [[f"{_shown(text)} {html.steady(chance, 3) if chance >= LIKELY else ''}".rstrip()
               for text, chance in zip(_texts(one), row, strict=False)]
              for (_, one), row in zip(rows, chances, strict=False)]
    return html.heat(chances, [name for name, _ in rows], [str(i + 1) for i in range(width)],
                     caption="next token", axes=("run", "rank"), labels=labels, unit=rows[0][1].unit,
                     limit=1.0) + (html.note(more) if more else "")


def table(run: Run, request: ViewRequest | None) -> str:
    """The strongest cells of every score, or the metrics when there are no scores."""
    found = [(key, s) for key, s in run.scores.items() if key.rpartition(".")[2] != "top"]
    parts = [strongest(key, s, counted(request) or 10) for key, s in found]
    return "".join(parts) or (html.note("The metrics above are the whole table.") if run.metrics else
                              _lacking("table", "there are no scores"))


def diff(run: Run, request: ViewRequest | None) -> str:
    """Metrics of every run against the first, and Scores of differences where the run has some."""
    parts = [fragment(s, key) for key, s in run.scores.items() if key.rpartition(".")[2] == "diff"]
    runs = [name for name in run.metrics if run.metrics[name]]
    if len(runs) > 1:
        base, rows = run.metrics[runs[0]], []
        asked = [name for name in runs[1:] if request and name in request.sites]
        for name in asked or runs[1:]:
            rows += [[f"{name}.{metric}", base[metric], value, value - base[metric]]
                     for metric, value in run.metrics[name].items() if metric in base]
        parts.append(html.table(["", runs[0], "run", "difference"], rows, f"against {runs[0]}"))
    return "".join(parts) or _lacking("diff", "there are no two runs with a metric in common")


def features(run: Run, request: ViewRequest | None) -> str:
    """The strongest features."""
    found = [strongest(key, s, counted(request) or 10) for key, s in run.scores.items() if "feature" in s.axes]
    return "".join(found) or _lacking("features", "no score has a feature axis")


def graph(run: Run, request: ViewRequest | None) -> str:
    """Where edges would be drawn; this page has none."""
    return _lacking("graph", "a page without script draws none")


def tokens(run: Run, request: ViewRequest | None) -> str:
    """The prompts as tokens, coloured by a score per position where there is one."""
    parts = []
    for name, prompt in run.tokens_of.items():
        coloured = next((s for key, s in run.scores.items() if key.startswith(f"{name}.") and s.axes == ("pos",)), None)
        parts.append(html.heading(name))
        for pieces in prompt.pieces[:MOST_STRIPS]:
            fits = coloured is not None and len(coloured.values) == len(pieces)
            parts.append(html.strip([_shown(p) for p in pieces], coloured.values.tolist() if coloured and fits else None,
                                    unit=coloured.unit if coloured else ""))
        if len(prompt.pieces) > MOST_STRIPS:
            parts.append(html.note(f"{len(prompt.pieces) - MOST_STRIPS} more examples"))
    return "".join(parts) or _lacking("tokens", "nothing was tokenized")


def texts(run: Run, request: ViewRequest | None) -> str:
    """The continuations."""
    from .drawing import where

    found = [(name, one) for name, several in run.texts.items() for one in several]
    rows = [[where(name, one), one.prompt, one.new, one.stopped] for name, one in found[:MOST_TEXTS]]
    more = html.note(f"{len(found) - MOST_TEXTS} more: see `.texts`") if len(found) > MOST_TEXTS else ""
    return html.table(["text", "prompt", "written on", "stopped by"], rows) + more if rows else _lacking(
        "text", "nothing was generated; add a line such as `generate 20`")


def attention(run: Run, request: ViewRequest | None) -> str:
    """Saved attention patterns of the heads asked for, first example."""
    try:
        wanted = list(_patterns(run, request.sites if request else ()))
    except HooklabError as error:
        return _lacking("attention", str(error))
    parts = [_pattern(run, key, head) for key, head in wanted[:MOST_MAPS]]
    if len(wanted) > MOST_MAPS:
        parts.append(html.note(f"{len(wanted) - MOST_MAPS} more heads: name those to be shown, as in `show attention L5H1`"))
    return "".join(parts) or _lacking("attention", "no pattern was saved; add a line such as `save L5.pattern`")


VIEWS: dict[str, Callable[[Run, ViewRequest | None], str]] = {
    "attention": attention, "heads": heads, "resid": resid, "lens": lens, "tokens": tokens, "top": top, "grid": grid,
    "diff": diff, "graph": graph, "features": features, "table": table, "text": texts,
}


def counted(request: ViewRequest | None) -> int | None:
    """How many a view should show: its number, or `top=`."""
    return None if request is None else request.count if request.count is not None else request.opts.get("top")


def strongest(key: str, scores: Scores, count: int) -> str:
    """A table of the cells furthest from zero."""
    rows = [[named(cell) or key, value] for cell, value in scores.top(max(count, 0))]
    return html.table(["cell", scores.unit or "score"], rows, f"{key}: strongest {len(rows)}")


def _lacking(view: str, why: str) -> str:
    return html.note(f"show {view}: {why}.")


def _swept(key: str, scores: Scores) -> bool:
    return bool(set(scores.axes) - {"batch", "rank"}) and kind(key) not in READOUTS


def _shown(piece: str) -> str:
    """A token's text with its outer spaces visible."""
    core = piece.strip(" ")
    left = len(piece) - len(piece.lstrip(" "))
    return "·" * left + html.printable(core) + "·" * (len(piece) - left - len(core))


def is_top(key: str, scores: Scores) -> bool:
    """Whether Scores say which tokens come next after a run's prompts."""
    return key.rpartition(".")[2] == "top" and scores.labels is not None and {"batch", "rank"} >= set(scores.axes)


def _examples(scores: Scores) -> list[tuple[str, Scores]]:
    """The parts of next-token Scores, one per example; without a name where there is one example only."""
    labels = scores.coords.get("batch", ())
    named = [(str(label), scores.sel(batch=label)) for label in labels] if "batch" in scores.axes else [("", scores)]
    return [("" if len(named) == 1 else label, one) for label, one in named if one.axes == ("rank",)]


def _texts(scores: Scores) -> list[str]:
    return [] if scores.labels is None else [str(text) for text in scores.labels.tolist()]


def _tops(run: str, scores: Scores, count: int | None) -> Iterator[str]:
    """One table of next tokens per example."""
    examples = _examples(scores)
    for label, one in examples[:MOST_STRIPS]:
        title = run + (f" · {label}" if label else "")
        yield html.bars([repr(text) for text in _texts(one)][:count], one.values.tolist()[:count],
                        caption=f"next token: {title}", unit=one.unit, axis="token", limit=1.0)
    if len(examples) > MOST_STRIPS:
        yield html.note(f"{len(examples) - MOST_STRIPS} more examples")


def _patterns(run: Run, sites: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Key and head of every saved pattern that the sites name; all of them when no site is named."""
    found = [(key, int(match["layer"]), _heads(run, key, match["heads"]))
             for key in run.data if (match := _PATTERN.match(key))]
    layers = max((layer for _, layer, _ in found), default=-1) + 1
    for site in sites if found and sites else ("L*",) if found else ():
        address = parse(site if "." in site else f"{site}.pattern")
        chosen = indices(address.layers or "*", layers, "saved layer")
        for key, layer, kept in found:
            if layer in chosen and kept:
                wanted = indices(address.heads, max(kept) + 1, "saved head") if address.heads else kept
                yield from ((key, head) for head in wanted if head in kept)


def _heads(run: Run, key: str, named: str | None) -> list[int]:
    """The heads that an entry holds, in its order."""
    axes = run.axes[key]
    size = run.data[key].shape[axes.index("head")] if "head" in axes else 1
    return [int(head) for head in re.findall(r"\d+", named)] if named else list(range(size))


def _pattern(run: Run, key: str, head: int) -> str:
    axes, tensor = run.axes[key], run.data[key]
    match = _PATTERN.match(key)
    at = _heads(run, key, match["heads"] if match else None).index(head)
    pick = tuple(0 if axis in ("batch", "sample") else at if axis == "head" else slice(None) for axis in axes)
    left = tuple(axis for axis in axes if axis not in ("batch", "sample", "head"))
    if left != ("query_pos", "key_pos"):
        return _lacking("attention", f"{key} has the axes {' '.join(axes)}")
    values: np.ndarray = tensor[pick].detach().float().cpu().numpy()
    start, names = 0, [str(i) for i in range(len(values))]
    prompt = run.tokens_of.get(key.partition(".")[0])
    if prompt is not None and values.shape == (prompt.width, prompt.width):
        start = prompt.column(0, 0)
        names = [f"{i}: {html.printable(piece.strip(' ')) or _shown(piece)}" for i, piece in enumerate(prompt.pieces[0])]
        values = values[start:start + len(names), start:start + len(names)]
    elif values.shape[0] != values.shape[1]:
        return html.note(f"{key} is not square; see run[{key!r}]")
    numbers = [["" if abs(value) < FAINT else f"{value:.2f}" for value in row] for row in values.tolist()]
    return html.heat(values.tolist(), names, names, caption=f"{key} · head {head}", axes=("query", "key"), labels=numbers,
                     limit=1.0)
