"""Tokens with numbers out of records: Scores, a Run, what a model expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..analysis.predictions import Predictions
from ..errors import ViewError, did_you_mean
from ..records import Run, Scores
from ..spec.narrow import narrow
from ..tokens import Tokens
from . import wire
from .axes import axis
from .spelling import line_for
from .strip_rows import Ahead, Coloured, Row, coloured, of_tokens
from .text import shown

_COUNTED = re.compile(r"^-?\d+: (.*)$", re.DOTALL)


def with_numbers(rows: tuple[Row, ...], values: Any, tokens: Tokens | None = None) -> Coloured:
    """Rows with numbers: an array, lists, several of them by name, Scores. Raises ViewError where they do not fit."""
    return _scored(rows, values, tokens) if isinstance(values, Scores) else coloured(rows, values, tokens)


def _scored(rows: tuple[Row, ...], scores: Scores, tokens: Tokens | None) -> Coloured:
    """Rows with the numbers of Scores [pos], [batch pos] or [x pos]; the positions that these have are drawn."""
    if "pos" not in scores.axes or len(scores.axes) > 2:
        raise ViewError(f"tokens are coloured by Scores over pos, with one axis more at most; these have "
                        f"{', '.join(scores.axes) or 'none'}: choose with scores.sel(…)")
    array = np.moveaxis(wire.held(scores.values, "scores"), scores.axes.index("pos"), -1)
    name = (shown(scores.name or "value"), scores.unit)
    if len(scores.axes) == 2 and "batch" in scores.axes:
        return replace(coloured(rows, array, tokens), names=(name,))
    array = array.reshape(-1, array.shape[-1])
    positions = axis("pos", scores.coords["pos"])
    if len(rows) != 1:
        raise ViewError(f"these scores are of one prompt, and there are {len(rows)} rows of tokens: give one, as tokens[0]")
    row = rows[0]
    keys = positions.keys
    if len(keys) == len(row):
        chosen = row
    elif all(isinstance(key, int) and 0 <= key < len(row) for key in keys):
        full = np.full((len(array), len(row)), np.nan, np.float32)
        full[:, list(keys)] = array
        array, chosen = full, row
    else:
        raise ViewError(f"the scores have {len(keys)} positions ({', '.join(map(str, keys[:4]))} …), the prompt {len(row)}")
    others = [one for one in scores.axes if one != "pos"]
    which = axis(others[0], scores.coords[others[0]]) if others else None
    return Coloured((chosen,), array, which, (name,) * len(array))


def of_scores(scores: Scores) -> Coloured:
    """Scores that know their tokens by the labels of their positions, or have a text in each cell."""
    if "pos" not in scores.axes:
        raise ViewError(f"tokens are coloured by Scores over pos; these have {', '.join(scores.axes) or 'none'}: "
                        "hl.view.grid and hl.view.bars draw any axes")
    if not scores.values.size:
        raise ViewError("there is nothing to draw: the scores are empty")
    if set(scores.axes) == {"pos", "rank"}:
        return replace(of_scores(scores.sel(rank=scores.coords["rank"][0])), ahead=_ranked(scores))
    labels = scores.coords["pos"]
    named = tuple(_piece(label) for label in labels)
    apart = not any(piece[:1].isspace() for piece in named)
    spec = line_for(scores.spec)
    if set(scores.axes) == {"batch", "pos"}:
        texts = None if scores.labels is None else np.moveaxis(np.asarray(scores.labels), scores.axes.index("pos"), -1)
        rows = tuple(Row(str(key), named if texts is None else tuple(map(str, texts[i])), apart=apart and texts is None)
                     for i, key in enumerate(scores.coords["batch"]))
        return _scored(rows, scores, None)
    keys = axis("pos", labels)
    return replace(_scored((Row("", named, apart=apart, spec=spec),), scores, None), positions=keys)


def _ranked(scores: Scores) -> Ahead | None:
    """The likeliest tokens out of Scores [pos rank] that have a text in each cell."""
    if scores.labels is None:
        return None
    texts = np.moveaxis(np.asarray(scores.labels), scores.axes.index("pos"), 0).astype(str)
    probs = np.moveaxis(wire.held(scores.values, "scores"), scores.axes.index("pos"), 0)
    came = [_piece(label) for label in scores.coords["pos"]][1:]
    return ranked(texts.tolist(), probs, [*came, None])


def ranked(texts: Sequence[Sequence[str]], probs: np.ndarray, came: Sequence[str | None]) -> Ahead:
    """What was expected, given as texts: `came` is the token that came next, which may be among them."""
    known = {text: i for i, text in enumerate(dict.fromkeys(text for row in texts for text in row))}
    ids = np.array([[known[text] for text in row] for row in texts], np.int32)
    rank = np.array([row.index(one) if one in row else -1 for row, one in zip(texts, came, strict=True)], np.int32)
    prob = np.where(rank >= 0, probs[np.arange(len(rank)), np.maximum(rank, 0)], np.nan)
    return Ahead(ids, probs.astype(np.float32), {i: text for text, i in known.items()}, prob.astype(np.float32), rank)


def of_run(run: Run, key: str | None) -> Coloured:
    """The scores of a run that have a number per position, on its prompt; the prompts alone where there are none.

    Raises:
        ViewError: there are no such scores, or the run has no tokens.
    """
    fitting = {name: one for name, one in run.scores.items() if _fits(one)}
    if key is not None:
        named = [name for name in run.scores if key in (name, name.rpartition(".")[2])]
        if not named:
            raise ViewError(f"this run has no scores {key!r}.{did_you_mean(key, run.scores)} It has "
                            f"{', '.join(run.scores) or 'none'}.")
        return _of_run(run, named[0])
    if fitting:
        return _of_run(run, min(fitting, key=lambda name: _order(name, fitting[name])))
    rows = [row for name, tokens in run.tokens_of.items() for row in of_tokens(tokens, name, run.spec, name)]
    if not rows:
        raise ViewError("this run has no tokens and no scores over positions: add a line such as `lens L*.resid_post @each`")
    plain = coloured(tuple(rows), None)
    return replace(plain, source=run, note="No scores over positions: add a line such as `lens L*.resid_post @each`, "
                                           "or sweep over @each.")


def _of_run(run: Run, key: str) -> Coloured:
    name, scores = key.partition(".")[0], run.scores[key]
    tokens = run.tokens_of.get(name)
    spell = _speller(run, name, scores)
    if set(scores.axes) == {"layer", "pos", "rank"}:  # a lens: each layer's likeliest
        scores = scores.sel(rank=scores.coords["rank"][0])
    if tokens is None or "rank" in scores.axes or (len(tokens) != 1 and "batch" not in scores.axes):
        found = of_scores(scores)
        found = replace(found, rows=tuple(replace(row, spec=run.spec, run=name) for row in found.rows))
    else:
        found = _scored(of_tokens(tokens, name, run.spec, name), scores, tokens)
    return replace(found, source=run, spell=spell if "batch" not in scores.axes else None)


def _speller(run: Run, name: str, scores: Scores) -> Callable[[Mapping[str, Any]], str]:
    """Spec text of one number of a run's scores, from the keys of its axes."""
    known = {one: axis(one, scores.coords[one]) for one in scores.axes if one != "rank"}

    def spell(keys: Mapping[str, Any]) -> str:
        places = {one: known[one].index(keys[one]) if one in keys else 0 for one in known}
        return narrow(run.spec, name, {one: scores.coords[one][i] for one, i in places.items()}, scores.coords)

    return spell


def _fits(scores: Scores) -> bool:
    axes = set(scores.axes)
    return "pos" in axes and bool(scores.values.size) and (
        len(axes) <= 2 or axes == {"layer", "pos", "rank"}) and axes != {"rank"}


def _order(name: str, scores: Scores) -> tuple[bool, bool]:
    """Likeliest tokens per position first, then what was swept, then lenses."""
    return (set(scores.axes) != {"pos", "rank"}, name.rpartition(".")[2].startswith("lens"))


def of_predictions(found: Predictions) -> Coloured:
    """What a model expected, as four sets of numbers, with the likeliest tokens beside them."""
    rows = of_tokens(found.tokens)
    log_prob, rank, entropy = (np.concatenate(one).astype(np.float32) for one in (found.log_prob, found.rank, found.entropy))
    rank = np.where(rank < 0, np.nan, rank)
    values = np.stack([log_prob, np.exp(log_prob), rank, entropy])
    names = (("log-probability", "nats"), ("probability", "probability"), ("rank", "rank"), ("entropy of the next", "nats"))
    return Coloured(rows, values, axis("value", [name for name, _ in names]), names, own=True, ahead=ahead_of(found))


def ahead_of(found: Predictions) -> Ahead:
    """What a model expected after each token."""
    prob = np.concatenate([np.append(np.exp(one[1:]), np.nan) for one in found.log_prob]).astype(np.float32)
    rank = np.concatenate([np.append(one[1:], -1) for one in found.rank]).astype(np.int32)
    return Ahead(np.concatenate(found.ids), np.concatenate(found.probs).astype(np.float32), found.pieces, prob, rank)


def _piece(label: Any) -> str:
    match = _COUNTED.match(str(label))
    return match[1] if match else str(label)
