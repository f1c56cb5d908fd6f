"""From the `show` lines of a spec to the parts of a board: live views where there is one, else what the page without script
shows, which also says what is lacking.

    Run ──its requests, or all that it has──▶ [(name, view or HTML), …] ──boards──▶ Board
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .. import html, views
from ..errors import HooklabError
from ..records import drawing
from ..records import views as static
from ..records.run import READOUTS, kind
from .boards import Part
from .choosing import of_scores

if TYPE_CHECKING:
    from ..records import Run, Scores
    from ..records.parts import ViewRequest

MOST_VIEWS = 12
"""Live views of a board that was asked for nothing in particular; each carries its own script."""
Found = Iterator[tuple[str, Part]]


def parts(run: Run) -> Found:
    """Metrics, then the views asked for (or, when none were, all there is), then the claims and the spec."""
    if run.metrics:
        yield "metrics", drawing.metrics_table(run)
    if run.views:
        for request in run.views:
            yield from _asked(run, request)
    else:
        yield from _everything(run)
    if run.expectations:
        rows = [[one.text, drawing.verdict(one), html.number(one.left, 6), html.number(one.right, 6)]
                for one in run.expectations]
        yield "claims", html.table(["claims", "", "left", "right"], rows)
    if run.spec:
        yield "spec", html.folded("spec", run.spec)


def _asked(run: Run, request: ViewRequest) -> Found:
    """What one line asks for: live, else as the page without script has it."""
    title = str(request.opts.get("title", ""))
    draw = LIVE.get(request.view)
    found: list[tuple[str, Part]] = []
    try:
        found = list(draw(run, request, title)) if draw is not None else []
    except HooklabError as error:
        found = [(request.view, html.note(f"show {request.view}: {error}"))]
    yield from found or [(request.view, drawing.view(run, request))]


def _everything(run: Run) -> Found:
    """What a run has, when its spec asks for nothing."""
    scores = [(key, one) for key, one in run.scores.items() if not static.is_top(key, one)]
    for key, one in scores[:MOST_VIEWS]:
        yield key, _live(run, key, one)
    if len(scores) > MOST_VIEWS:
        left = ", ".join(key for key, _ in scores[MOST_VIEWS:])
        yield "more", html.note(f"{len(scores) - MOST_VIEWS} more scores: {left}. Show one with hl.view.of(run, name).")
    if text := static.summary(run):
        yield "next token", text
    if run.data:
        yield "saved", drawing.saved(run)
    if run.texts:
        yield from _texts(run, None, "") or [("texts", static.texts(run, None))]
    if run.tokens_of and not (scores or text or run.data or run.texts or run.metrics):
        yield from _tokens(run, None, "")


def _live(run: Run, key: str, scores: Scores, title: str = "", **options: Any) -> Part:
    """Scores as a view, or as the page has them when no view can draw them."""
    from ..records.sketch import fragment

    try:
        return of_scores(scores, run=run, key=key, title=title or key, **options)
    except HooklabError as error:
        return fragment(scores, key) + html.note(str(error))


def _by(test: Callable[[str, Scores], bool], *, listed: bool = False) -> Callable[..., Found]:
    """A view of every score that passes a test; `listed`: a count says how many of the strongest to list beside it."""

    def draw(run: Run, request: ViewRequest, title: str) -> Found:
        count = static.counted(request)
        for key, scores in run.scores.items():
            if test(key, scores):
                more = {"strongest": count} if listed and count is not None and len(scores.axes) > 1 else {}
                yield key, _live(run, key, scores, title, **more)

    return draw


def _attention(run: Run, request: ViewRequest, title: str) -> Found:
    yield "attention", views.attention(run, heads=list(request.sites) or None, title=title)


def _tokens(run: Run, request: ViewRequest | None, title: str) -> Found:
    if run.tokens_of:
        yield "tokens", views.tokens(run, title=title)


def _texts(run: Run, request: ViewRequest | None, title: str) -> Found:
    if run.texts:
        yield "text", views.generation(run, title=title)


def _graph(run: Run, request: ViewRequest, title: str) -> Found:
    found = [(key, scores) for key, scores in run.scores.items() if scores.axes == ("sender", "receiver")]
    for key, scores in found:
        yield key, _live(run, key, scores, title)
    if not found:
        yield "graph", html.note("show graph: a run has no numbers of edges; "
                                 "hl.view.graph(hl.analysis.edges(model, clean, corrupt)) draws them.")


LIVE: dict[str, Callable[..., Found]] = {
    "attention": _attention,
    "heads": _by(lambda key, scores: "head" in scores.axes and kind(key) not in READOUTS, listed=True),
    "resid": _by(lambda key, scores: kind(key) == "resid"),
    "lens": _by(lambda key, scores: kind(key) == "lens"),
    "tokens": _tokens,
    "grid": _by(static._swept, listed=True),
    "features": _by(lambda key, scores: "feature" in scores.axes, listed=True),
    "graph": _graph,
    "text": _texts,
}
"""The words that have a live form; the others are tables, which need none."""
