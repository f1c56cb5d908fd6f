"""`of`: the view that fits what is given, told by its axes.

    Scores ──axes──▶ attention, heads, neurons, tokens, lens, residual, graph, bars or a grid
    Run ──its `show` lines──▶ Board · Run or Activations and a name ──axes of the entry──▶ as Scores
    a result of several Scores ──each of them──▶ Board
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import views
from ..errors import ViewError
from ..records import Activations, Run, Scores
from ..records.drawn import Drawn
from ..records.run import kind
from ..records.select import take
from ..sites import SITES
from . import wire

if TYPE_CHECKING:
    from .base import View
    from .boards import Board

QUERIES = {"query_pos", "key_pos"}
STREAM = ("embed", "pos_embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
OTHERS = {
    "hooklab.analysis.circuits.Circuit": "graph",
    "hooklab.analysis.dashboard.FeatureDashboard": "features",
    "hooklab.analysis.node_table.Nodes": "nodes",
    "hooklab.data.store.store.Store": "store",
}
"""Results that are no Scores: the class, and the view that draws it."""


def of(thing: Any, name: str | None = None, *, axes: str | Sequence[str] | None = None, tokens: Any = None, title: str = "",
       **options: Any) -> View | Board:
    """The view that fits: by the axes of Scores, by the `show` lines of a Run, by the site of an activation.

    Args:
        thing: Scores; a Run; Activations; what an analysis hands back; an array or tensor with `axes`; a view.
        name: Which entry of a Run or of Activations: `"L5.pattern"`, `"patched.logit_diff"`.
        axes: What the axes of an array are: `"layer head"`, `"query_pos key_pos"`, `"pos"` …
        tokens: For an array: the tokens of its positions.
        title: What stands above.
        options: What the view that is chosen takes.

    >>> import numpy as np
    >>> of(Scores(np.eye(3), ("layer", "head"), name="copying"))
    Heads(copying, layer 3 · head 3)
    >>> of(np.ones((2, 3)), axes="pos neuron", tokens=["When", " Mary"]).select(pos=1, neuron=2).selection
    {'pos': 1, 'neuron': 2}

    Raises:
        ViewError: nothing here can be drawn, or it must be said what; what the chosen view raises.
    """
    if title:
        options["title"] = title
    if isinstance(thing, (Run, Activations)):
        if axes is not None or tokens is not None:
            raise ViewError("axes= and tokens= are for arrays: a run and its activations know their own")
        return _of_run(thing, name, options) if isinstance(thing, Run) else _of_activations(thing, name, options)
    if name is not None:
        raise ViewError("a name chooses an entry of a Run or of Activations")
    if isinstance(thing, Scores):
        return of_scores(thing, **options)
    return _of_other(thing, axes, tokens, options)


def of_scores(scores: Scores, *, run: Run | None = None, key: str = "", **options: Any) -> View | Board:
    """The view of Scores, told by their axes; `run` and `key` say where they are from.

    Raises:
        ViewError: there is nothing to draw, or too much.
    """
    options = {"title": key, **options} if key else options
    for test, draw in BY_AXES:
        if test(scores, key):
            return draw(scores, {"source": run, **options} if run is not None else options, run, key)
    raise ViewError(f"no view draws the axes {', '.join(scores.axes)}")


def _has(*axes: str) -> Callable[[Scores, str], bool]:
    return lambda scores, key: set(axes) <= set(scores.axes)


def _only(*axes: str) -> Callable[[Scores, str], bool]:
    return lambda scores, key: scores.axes == axes


def _is_pattern(scores: Scores, key: str) -> bool:
    """Whether every query and every key of the same tokens are here, and no axis that a pattern does not have."""
    return (QUERIES <= set(scores.axes) <= QUERIES | {"batch", "layer", "head"}
            and scores.coords["query_pos"] == scores.coords["key_pos"])


def _one_query(scores: Scores, key: str) -> bool:
    return QUERIES <= set(scores.axes) and len(scores.coords["query_pos"]) == 1


def _swept(scores: Scores, key: str) -> bool:
    return len(scores.axes) > 1 and bool(scores.spec) and "each" in scores.spec


def _named(view: str, source: str = "source") -> Callable[..., Any]:
    """Draw with the function of a name; `source` is what it calls the run that its numbers are from, if it takes it."""

    def draw(scores: Scores, options: Mapping[str, Any], run: Run | None, key: str) -> Any:
        known = {"source": source} if source else {}
        return getattr(views, view)(scores, **{known.get(name, name): value for name, value in options.items()
                                               if name != "source" or source})

    return draw


def _by_run(view: str) -> Callable[..., Any]:
    """Draw with a function that also takes a run and the name of its scores, so that cells know their spec."""

    def draw(scores: Scores, options: Mapping[str, Any], run: Run | None, key: str) -> Any:
        left = {name: value for name, value in options.items() if name != "source"}
        return getattr(views, view)(scores, **left) if run is None else getattr(views, view)(run, score=key, **left)

    return draw


def _reads(scores: Scores, key: str) -> bool:
    """Whether these are readings of a lens."""
    return kind(key or scores.name) == "lens"


def _are_tokens(labels: Sequence[Any]) -> bool:
    """Whether positions are called by their tokens, as in "3: Mary"."""
    return len(labels) > 0 and all(isinstance(label, str) and re.match(r"\d+: ", label) for label in labels)


def _tokens(scores: Scores, options: Mapping[str, Any], run: Run | None, key: str) -> View:
    """Numbers of tokens on their text."""
    left = {name: value for name, value in options.items() if name != "source"}
    return views.tokens(scores, **left) if run is None else views.tokens(run, key, **left)


def _from_one(scores: Scores, options: Mapping[str, Any], run: Run | None, key: str) -> View | Board:
    """Where one query looks: on the text of its keys where there is nothing else, or by the axes that are left."""
    label = scores.coords["query_pos"][0]
    where = f"query_pos {label}" if isinstance(label, str) else ""  # a bare number may only count what was saved
    part = take(scores, "query_pos", 0)
    if part.axes == ("key_pos",):
        part = _renamed(part, "key_pos", "pos")
    return of_scores(part, **{**options, "title": " · ".join(filter(None, [options.get("title") or scores.name, where]))})


def _renamed(scores: Scores, old: str, new: str) -> Scores:
    """The same under another axis word."""
    return replace(scores, axes=tuple(new if axis == old else axis for axis in scores.axes),
                   coords={new if axis == old else axis: labels for axis, labels in scores.coords.items()},
                   control=None if scores.control is None else _renamed(scores.control, old, new))


def _queries_and_keys(scores: Scores, options: Mapping[str, Any], run: Run | None, key: str) -> View:
    """Some queries over their keys as a map; other axes are chosen above it."""
    return views.grid(scores, rows="query_pos", columns="key_pos", **options)


def _last_two(scores: Scores, options: Mapping[str, Any], run: Run | None, key: str) -> View:
    """The last two axes as a map, whatever they are called; the others are chosen above it."""
    return views.grid(scores, rows=scores.axes[-2], columns=scores.axes[-1], **options)


def _number(scores: Scores, options: Mapping[str, Any], run: Run | None, key: str) -> Board:
    """One number, as a line of its own."""
    from ..records.sketch import fragment
    from .boards import Board

    return Board([(key or scores.name or "number", fragment(scores, str(options.get("title", ""))))], text=repr(scores))


BY_AXES: tuple[tuple[Callable[[Scores, str], bool], Callable[..., Any]], ...] = (
    (lambda scores, key: not scores.axes, _number),
    (_is_pattern, _named("attention", source="")),
    (_one_query, _from_one),
    (_has("query_pos", "key_pos"), _queries_and_keys),
    (_only("sender", "receiver"), _named("graph", source="linked")),
    (lambda scores, key: _reads(scores, key) and scores.labels is not None and scores.axes in (
        ("layer", "pos"), ("layer", "pos", "rank")), _by_run("lens")),
    (lambda scores, key: _reads(scores, key) and len(scores.axes) > 2, _last_two),
    (lambda scores, key: scores.axes == ("pos",) and _are_tokens(scores.coords["pos"]), _tokens),
    (lambda scores, key: len(scores.axes) == 1, _named("bars")),
    (_has("layer", "head"), _by_run("heads")),
    (_has("layer", "neuron"), _by_run("neurons")),
    (lambda scores, key: scores.axes == ("site", "pos") and scores.name in ("norm", "writes", "projection"),
     _named("residual")),
    (_swept, _by_run("sweep")),
    (lambda scores, key: True, _named("grid")),
)
"""The first row whose test holds draws."""


def _of_run(run: Run, name: str | None, options: dict[str, Any]) -> View | Board:
    if name is None:
        from .boards import Board
        from .requests import parts

        if options:
            raise ViewError(f"a run is shown as its `show` lines say; {', '.join(options)} belong to one view: name the "
                            "entry, as in hl.view.of(run, 'L5.pattern')")
        return Board(parts(run), text=repr(run))
    keys = [key for key in run.scores if name in (key, key.partition(".")[2])]
    if len(keys) == 1:
        return of_scores(run.scores[keys[0]], run=run, key=keys[0], **options)
    if keys:
        raise ViewError(f"several runs have {name}: write {' or '.join(keys)}")
    found = run._find(name)
    if len(found) != 1:
        run[name]  # says what is there, or that several runs saved it
    run_name, _, address = found[0].partition(".")
    held = run.axes[found[0]]
    square = QUERIES <= set(held) and len({run.data[found[0]].shape[held.index(axis)] for axis in QUERIES}) == 1
    if square and re.fullmatch(r"L\d+(H\S+)?\.pattern", address):
        return views.attention(run, heads=[address], **options)
    prompt = run.tokens_of.get(run_name)
    return of_scores(_scores(run.data[found[0]], held, found[0], prompt), run=run, **options)


def _of_activations(acts: Activations, name: str | None, options: dict[str, Any]) -> View | Board:
    if name is None and all(map(partial(_whole, acts), acts)):
        return views.attention(acts, **options)
    if name is None and len(acts) != 1:
        raise ViewError(f"which of them? hl.view.of(acts, {next(iter(acts), 'L0.z')!r}); there are "
                        f"{', '.join(acts) or 'none'}")
    address = name or next(iter(acts))
    value, axes = acts[address], SITES[address.rpartition(".")[2]].axes
    if _whole(acts, address):
        return views.attention(acts, heads=[address], **options)
    if value.ndim == len(axes) - 1:  # captured with at=, which leaves a row for each place that it named
        axes = tuple(axis for axis in axes if axis not in ("pos", "query_pos"))
    return of_scores(_scores(value, axes, address, acts.tokens), **options)


def _whole(acts: Activations, address: str) -> bool:
    """Whether this is a pattern of every query and every key."""
    shape = tuple(acts[address].shape)
    return address.endswith(".pattern") and len(shape) == 4 and shape[-1] == shape[-2]


def _of_other(thing: Any, axes: str | Sequence[str] | None, tokens: Any, options: dict[str, Any]) -> View | Board:
    from .base import View
    from .boards import Board

    if isinstance(thing, (View, Board)):
        return thing
    for base in type(thing).__mro__:
        if (view := OTHERS.get(f"{base.__module__}.{base.__qualname__}")) is not None:
            return getattr(views, view)(thing, **options)
        if f"{base.__module__}.{base.__qualname__}" == "hooklab.model.model.Model":
            raise ViewError('a model is drawn on a prompt: hl.view.attention(model, "When Mary and John went to the store")')
    if isinstance(thing, Drawn):
        return thing.show(**options)
    if axes is None:
        raise ViewError(f"no view is known for {type(thing).__name__}: give Scores, a Run, Activations, or an array with "
                        "its axes, as in hl.view.of(array, axes='layer head')")
    return of_scores(_scores(thing, tuple(axes.split() if isinstance(axes, str) else axes), "", tokens), **options)


def _scores(values: Any, axes: tuple[str, ...], name: str, tokens: Any) -> Scores:
    """An array as Scores: the first example where there is one only, and tokens as labels of positions.

    Raises:
        ViewError: the axes do not fit.
    """
    array = wire.held(values, name or "values")
    if array.ndim != len(axes):
        raise ViewError(f"{name or 'the array'} has shape {array.shape} and {len(axes)} axis words: {' '.join(axes)}")
    if axes[:1] == ("batch",) and array.shape[0] == 1:
        array, axes = array[0], axes[1:]
    again = [f"{axis}_{axes[:i].count(axis) + 1}" if axis in axes[:i] else axis for i, axis in enumerate(axes)]
    pieces = _pieces(tokens)
    coords: dict[str, Sequence[Any]] = {}
    for axis, size in zip(again, array.shape, strict=True):
        if axis.removesuffix("pos") in ("", "query_", "key_") and len(pieces) == size:
            coords[axis] = tuple(f"{i}: {piece}" for i, piece in enumerate(pieces))
    return Scores(array, tuple(again), {axis: tuple(labels) for axis, labels in coords.items()}, name=name)


def _pieces(tokens: Any) -> Sequence[str]:
    """The tokens of the only example; none where there are several, whose positions are different tokens."""
    if tokens is None:
        return ()
    rows = getattr(tokens, "pieces", None)
    if rows is not None:
        return rows[0] if len(rows) == 1 else ()
    if isinstance(tokens, str) or not all(isinstance(one, str) for one in tokens):
        raise ViewError("tokens= is a list of tokens, or model.tokens(text)")
    return list(tokens)
