"""Reading a learner's answer: many ways to write a head or a number, one way to think of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from ..address import Place, check_index, expand
from ..model.model import Model
from ..spec.tree_places import ALIASES
from .exercise import Wrong

Head = tuple[int, int]


def head_of(answer: Any, model: Model) -> Head:
    """A head as (layer, head), from "L1H3", "l1h3", "L1H3.z", (1, 3), {"layer": 1, "head": 3}, or a list of one of these.

    Raises:
        Wrong: it names no head, or several.
    """
    if isinstance(answer, str):
        facts = model.facts
        places = expand(_written(answer), n_layers=facts.n_layers, n_heads=facts.n_heads, n_kv_heads=facts.n_kv_heads,
                        d_mlp=facts.d_mlp)
        found = [(place.layer, head) for place in places for head in place.heads or ()]
        if len(found) != 1 or found[0][0] is None:
            raise Wrong(f'One head is asked for; "{answer}" names {len(found) or "none"}. Write it as in "L2H5".')
        return found[0][0], found[0][1]
    if isinstance(answer, Mapping):
        answer = [answer.get("layer"), answer.get("head")]
    parts = parts_of(answer)
    if parts and not _is_number(parts[0]) and (len(parts) == 1 or (isinstance(parts[0], Mapping) and _is_number(parts[-1]))):
        return head_of(parts[0], model)  # a list of one, or a row of `scores.top()`
    if parts and len(parts) == 2 and all(_is_number(part) for part in parts):
        layer, head = parts
        return check_index(layer, model.facts.n_layers, "layer"), check_index(head, model.facts.n_heads, "head")
    if parts and len(parts) > 1 and all(isinstance(part, str) for part in parts):
        raise Wrong(f"One head is asked for, and the answer lists {len(parts)}.")
    raise Wrong(f'A head is written "L2H5" or (2, 5), and the answer is {_what(answer)}.')


def heads_of(answer: Any, model: Model) -> list[Head]:
    """Several heads, each as `head_of` reads it, each once, in the order given.

    Raises:
        Wrong: the answer is no list of heads, or an empty one.
    """
    if isinstance(answer, str):
        answer = [part.strip() for part in answer.split(",")]
    rows = [answer] if isinstance(answer, Mapping) else parts_of(answer)
    if rows is None:
        raise Wrong(f'A list of heads is asked for, such as ["L2H5", "L3H0"], and the answer is {_what(answer)}.')
    if len(rows) == 2 and all(_is_number(part) for part in rows):
        rows = [tuple(rows)]
    if not rows:
        raise Wrong("The list is empty. At least one head is asked for.")
    return list(dict.fromkeys(head_of(row, model) for row in rows))


def place_of(answer: Any, model: Model) -> Place:
    """One place, from an address such as "L3.mlp_out"; `attn`, `mlp` and `resid` are short forms.

    Raises:
        Wrong: it is no text, or names several places.
    """
    if not isinstance(answer, str):
        raise Wrong(f'An address is asked for, such as "L3.mlp_out", and the answer is {_what(answer)}.')
    stem, dot, site = _written(answer).rpartition(".")
    facts = model.facts
    places = expand(f"{stem}{dot}{ALIASES.get(site, site)}", n_layers=facts.n_layers, n_heads=facts.n_heads,
                    n_kv_heads=facts.n_kv_heads, d_mlp=facts.d_mlp)
    if len(places) != 1:
        raise Wrong(f'One place is asked for; "{answer}" names {len(places) or "none"}.')
    return places[0]


def number_of(answer: Any) -> float:
    """One number, from a float, an int, or a tensor or array with one element.

    Raises:
        Wrong: it is none, or not finite.
    """
    try:
        value = float(answer)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Wrong(f"One number is asked for, and the answer is {_what(answer)}.") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise Wrong(f"The answer is {value}: somewhere a number was divided by zero, or a logarithm taken of it.")
    return value


def whole_of(answer: Any, least: int, most: int) -> int:
    """One whole number between two others, both of them allowed.

    Raises:
        Wrong: it is none, or lies outside.
    """
    value = number_of(answer)
    if isinstance(answer, bool) or value != int(value) or not least <= value <= most:
        raise Wrong(f"A whole number from {least} to {most} is asked for, and the answer is {_what(answer)}.")
    return int(value)


def tensor_of(answer: Any, shape: tuple[int, ...], axes: str) -> torch.Tensor:
    """A tensor of this shape, from a tensor, an array or nested lists.

    Raises:
        Wrong: it is no array of numbers, has another shape, or something in it is not a number.
    """
    try:
        given = answer if isinstance(answer, torch.Tensor) else np.array(answer)
        value = torch.as_tensor(given).detach().cpu().float()
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"A tensor of shape {shape} [{axes}] is asked for, and the answer is {_what(answer)}.") from None
    if tuple(value.shape) != shape:
        hint = ""
        if value.dim() == len(shape) + 1 and value.shape[0] == 1:
            hint = " There is a batch axis of one example in front: take [0]."
        elif sorted(value.shape) == sorted(shape):
            hint = " The sizes are right, in another order."
        raise Wrong(f"The shape should be {shape} [{axes}], and is {tuple(value.shape)}.{hint}")
    if not torch.isfinite(value).all():
        raise Wrong("Some of the numbers are not finite.")
    return value


def words_of(answer: Any) -> list[str]:
    """Texts, from one or from a list of them, without the space in front.

    Raises:
        Wrong: it holds something else.
    """
    found = [answer] if isinstance(answer, str) else parts_of(answer) or []
    if not found or not all(isinstance(word, str) for word in found):
        raise Wrong(f'Text is asked for, such as " Mary", and the answer is {_what(answer)}.')
    return [word.strip() for word in found]


def parts_of(answer: Any) -> list[Any] | None:
    """What a list, a tuple, a set, an array or a tensor holds, as Python's own numbers; None for what holds nothing."""
    if isinstance(answer, (torch.Tensor, np.ndarray)):
        return answer.tolist() if answer.ndim else None
    if isinstance(answer, (str, Mapping)) or not isinstance(answer, Iterable):
        return None
    parts = sorted(answer, key=str) if isinstance(answer, (set, frozenset)) else list(answer)
    return [part.item() if isinstance(part, (torch.Tensor, np.generic)) and part.ndim == 0 else part for part in parts]


def _is_number(part: Any) -> bool:
    return isinstance(part, (int, float)) and not isinstance(part, bool)


def _written(answer: str) -> str:
    """An address as hooklab writes it: no spaces, and capitals for layers and heads ("l1 h2" is "L1H2")."""
    return re.sub(r"^l(?=[\d*[-])|(?<=[\d*\]])h(?=[\d*[-])", lambda found: found[0].upper(), re.sub(r"\s", "", answer))


def _what(answer: Any) -> str:
    """How to speak of an answer of the wrong kind, in a few words."""
    try:
        text = " ".join(repr(answer).split())
    except Exception:  # whatever a class of the learner's own does
        return f"a {type(answer).__name__}"
    return f"{type(answer).__name__} {text}" if len(text) <= 40 else f"a {type(answer).__name__}"
