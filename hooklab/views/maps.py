"""Heads and neurons: numbers by layer and head, or by layer and neuron, with a list of the strongest beside the map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RecordError, ViewError
from ..records import Run, Scores
from . import cells, wire
from .grids import Grid, Picked

LISTED = 12


class Heads(Grid):
    """A map of heads; choosing one chooses it in linked views of attention too."""

    KIND = "heads"
    SIGNED = True
    STRONGEST = LISTED

    def spell(self, selection: Mapping[str, Any]) -> str:
        return _spelled(self, selection, "show attention L{layer}H{head}", super().spell)


class Neurons(Grid):
    """A map of neurons."""

    KIND = "neurons"
    SHARED = ("layer", "pos", "neuron")
    SIGNED = True
    STRONGEST = LISTED

    def spell(self, selection: Mapping[str, Any]) -> str:
        return _spelled(self, selection, "save L{layer}N{neuron}.mlp_post", super().spell)


def _spelled(view: Grid, selection: Mapping[str, Any], line: str, swept: Any) -> str:
    """The cell of a sweep where the scores are from one, else a line that looks at the component."""
    text = ""
    try:
        text = swept(selection)
    except RecordError:
        pass  # scores whose text sweeps over something else: the component can still be named
    words = [word for word in ("layer", "head", "neuron") if "{" + word + "}" in line]
    named = all(isinstance(selection.get(word), int) for word in words)
    return text or (line.format(**{word: selection[word] for word in words}) if named else "")


def heads(given: Any, model: Any = None, *, score: str | None = None, title: str = "", limit: float = 0.0,
          strongest: int = LISTED, on_pick: Picked | None = None, source: Any = None) -> Heads:
    """Numbers of attention heads, layer by head, with a table of the strongest; a click chooses a head in linked views.

    Args:
        given: Scores with axes `layer` and `head` (further ones are chosen above the map), a Run that has such scores, or an
            array or tensor [layer head].
        model: The model to run a chosen cell of a sweep on.
        score: Which scores of a run: `"patched.prob"`, or `"prob"`; the first by heads unless given.
        title: What stands above.
        limit: The number at the end of the colours; the largest unless given.
        strongest: How many heads the table lists.
        on_pick: Called with the labels of a head when it is chosen.
        source: The run that the scores are from: views of one run share their selection.

    >>> import numpy as np
    >>> view = heads(np.eye(3), title="copying")
    >>> view.select(layer=1, head=2).spec
    'show attention L1H2'

    Raises:
        ViewError: there are no numbers by layer and head, none at all, or too many.
    """
    return _made(Heads, "head", given, model, score, source, title=title, limit=limit, strongest=strongest, on_pick=on_pick)


def neurons(given: Any, model: Any = None, *, score: str | None = None, title: str = "", limit: float = 0.0,
            strongest: int = LISTED, on_pick: Picked | None = None, source: Any = None) -> Neurons:
    """Numbers of MLP neurons, layer by neuron, with a table of the strongest; small cells are drawn as their strongest.

    Args:
        given: Scores with axes `layer` and `neuron`, a Run that has such scores, or an array or tensor [layer neuron].
        model: The model to run a chosen cell of a sweep on.
        score: Which scores of a run; the first by neurons unless given.
        title: What stands above.
        limit: The number at the end of the colours; the largest unless given.
        strongest: How many neurons the table lists.
        on_pick: Called with the labels of a neuron when it is chosen.
        source: The run that the scores are from.

    >>> import numpy as np
    >>> neurons(np.eye(2, 300)).select(layer=1, neuron=7).spec
    'save L1N7.mlp_post'

    Raises:
        ViewError: there are no numbers by layer and neuron, none at all, or too many.
    """
    return _made(Neurons, "neuron", given, model, score, source, title=title, limit=limit, strongest=strongest,
                 on_pick=on_pick)


def _made(kind: Any, axis: str, given: Any, model: Any, score: str | None, source: Any, **options: Any) -> Any:
    """A map of what was given, [layer axis]."""
    of = None
    if isinstance(given, Run):
        key = _key(given, axis, score)
        source, of, given = given if source is None else source, cells.of_run(given, key, model), given.scores[key]
    elif isinstance(given, Scores):
        of = cells.of_scores(given, model)
    else:
        array = wire.held(given, f"numbers of {axis}s")
        if array.ndim != 2:
            raise ViewError(f"numbers of {axis}s have the axes layer and {axis}, and these have shape {array.shape}: name "
                            f"them with hl.Scores(array, (…, 'layer', '{axis}'))")
        given = Scores(array, ("layer", axis))
    for word in ("layer", axis):
        if word not in given.axes:
            raise ViewError(f"a map of {axis}s needs the axes layer and {axis}; these scores have "
                            f"{', '.join(given.axes) or 'none'}")
    if options["strongest"] < 0:
        raise ViewError(f"strongest is how many {axis}s to list, not {options['strongest']}")
    return kind(given, rows="layer", columns=axis, source=source, of=of, **options)


def _key(run: Run, axis: str, score: str | None) -> str:
    """The key of a run's scores by layer and axis. Raises ViewError."""
    if score is not None:
        return cells.pick(run, score)
    found = [key for key, scores in run.scores.items() if {"layer", axis} <= set(scores.axes)]
    if not found:
        raise ViewError(f"no scores of this run have the axes layer and {axis}: sweep over them, as in `zero each L*H*`"
                        if axis == "head" else f"no scores of this run have the axes layer and {axis}")
    return found[0]
