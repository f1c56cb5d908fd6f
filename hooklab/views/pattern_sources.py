"""Attention patterns out of whatever holds them: an array, a run, activations, scores or a model.

In: a source and what is known of its tokens. Out: `Patterns`, one square array per head and prompt, without padding, copied
to the CPU, and where there are some, the sizes of what each head writes for each token.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import ViewError
from ..model.opened import unopened
from ..records import Activations, Run, Scores
from ..tokens import Tokens
from . import wire
from .pattern_data import Head, Patterns, Prompt, limited, normed, with_norms
from .pattern_heads import by_layer, only, wanted
from .text import all_shown

BY_SIZE = {2: "query_pos key_pos", 3: "head query_pos key_pos", 4: "layer head query_pos key_pos",
           5: "batch layer head query_pos key_pos"}
"""What the axes of an array are, by their number, when nobody says."""
LAYERED = {2: "layer query_pos key_pos", 3: "layer head query_pos key_pos", 4: "layer batch head query_pos key_pos"}
"""The same for a list with an array per layer, by the axes of each, as Hugging Face models return attentions."""
WORDS = ("batch", "layer", "head", "query_pos", "key_pos")
_ENTRY = re.compile(r"^(?P<run>\w+)\.L(?P<layer>\d+)(?:H(?P<heads>\d+|\[[\d,]+\]))?\.pattern$")


def read(source: Any, prompt: Any = None, *, tokens: Any = None, heads: Any = None, values: Any = None,
         axes: str | Sequence[str] | None = None) -> Patterns:
    """The patterns of a source; the arguments are those of `attention`.

    Raises:
        ViewError: the source holds no patterns, or its axes, tokens or heads do not fit.
    """
    if _is_model(source):
        if prompt is None:
            raise ViewError('which prompt? Write attention(model, "When Mary and John …")')
        found = _of_model(source, prompt, heads, values is not False)
        tokens, values = None, None if values is None or isinstance(values, bool) else values
    elif prompt is not None:
        unopened(source)
        raise ViewError("prompt= belongs to a model; tokens= names the tokens of patterns that there are already")
    elif isinstance(source, Run):
        found = _of_run(source)
    elif isinstance(source, Activations):
        found = _of_activations(source)
    else:
        return limited(with_norms(only(_of_array(source, tokens, axes), heads), values))
    if axes is not None or tokens is not None:
        raise ViewError("axes= and tokens= are for arrays: this source knows its own")
    return limited(with_norms(only(found, heads), values))


def _is_model(source: Any) -> bool:
    """Whether this is a model; there is none before its module was loaded, and loading it takes seconds."""
    module = sys.modules.get("hooklab.model.model")
    return module is not None and isinstance(source, module.Model)


# Arrays ------------------------------------------------------------------------------------------------------------------


def _of_array(source: Any, tokens: Any, axes: str | Sequence[str] | None) -> Patterns:
    keys: Mapping[str, Sequence[Any]] = {}
    if isinstance(source, Scores):
        axes, keys = source.axes, source.coords
        if tokens is None:
            tokens = [str(label).partition(": ")[2] or str(label) for label in keys.get("key_pos", ())]
        array = _kept(source.values)
    else:
        layered = isinstance(source, (list, tuple)) and len(source) > 0 and all(hasattr(one, "ndim") for one in source)
        array = np.stack([_kept(one) for one in source]) if layered and _alike(source) else _kept(source)
        axes = _axes(array, tokens, axes, LAYERED.get(array.ndim - 1) if layered else None)
    order = [word for word in WORDS if word in axes]
    array = array.transpose([list(axes).index(word) for word in order])
    if array.shape[-1] != array.shape[-2]:
        raise ViewError(f"a pattern has as many queries as keys; this is {_shape(array, order)}")
    if not array.size:
        raise ViewError(f"there is nothing to draw: the patterns are {_shape(array, order)}")
    for at, word in enumerate(("batch", "layer", "head")):
        array = array if word in order else np.expand_dims(array, at)
    heads = tuple(Head(layer, head) for layer in _keys("layer", order, keys, array.shape[1])
                  for head in _keys("head", order, keys, array.shape[2]))
    rows = _named(tokens, array.shape[0], array.shape[-1], _shape(array, WORDS))
    prompts = tuple(Prompt(i, tuple(all_shown(pieces)), _flat(array[i][..., span, span]), text=text)
                    for i, (pieces, span, text) in enumerate(rows))
    return Patterns(heads, prompts)


def _axes(array: np.ndarray, tokens: Any, axes: str | Sequence[str] | None, layered: str | None) -> tuple[str, ...]:
    """The axis words of an array. Raises ViewError."""
    several = (isinstance(tokens, Tokens) and len(tokens) > 1) or (
        isinstance(tokens, (list, tuple)) and len(tokens) > 1 and not isinstance(tokens[0], str))
    usual = layered or BY_SIZE.get(array.ndim, "")
    if several and "batch" not in usual:
        usual = {3: "batch query_pos key_pos", 4: "batch head query_pos key_pos"}.get(array.ndim, usual)
    found = tuple(usual.split() if axes is None else axes.split() if isinstance(axes, str) else axes)
    if not found:
        raise ViewError(f"a pattern has two axes (query_pos key_pos) to five ({BY_SIZE[5]}); this array has {array.ndim}: "
                        f"{tuple(array.shape)}")
    known = set(WORDS[3:]) <= set(found) <= set(WORDS)
    if not known or len(found) != array.ndim or len(set(found)) < len(found):
        raise ViewError(f"axes={' '.join(found)!r} do not fit an array of shape {tuple(array.shape)}: give each axis one of "
                        f"{', '.join(WORDS)}; query_pos and key_pos must be among them")
    return found


def _named(tokens: Any, batch: int, width: int, shape: str) -> Iterator[tuple[Sequence[str], slice, str]]:
    """For each example its tokens, where they lie, and the text they are of. Raises ViewError."""
    if tokens is None:
        tokens = [[str(i) for i in range(width)]] * batch
    if isinstance(tokens, Tokens):
        if (len(tokens), tokens.width) != (batch, width):
            raise ViewError(f"the tokens are {len(tokens)} × {tokens.width} (batch × pos), the patterns {shape}")
        for i, pieces in enumerate(tokens.pieces):
            start = tokens.column(i, 0)
            yield pieces, slice(start, start + len(pieces)), _written(tokens, i)
        return
    if isinstance(tokens, str):
        raise ViewError("tokens= is a list of tokens, a list of such lists, or model.tokens(text); this is one string")
    rows = [list(tokens)] if not len(tokens) or not isinstance(tokens[0], (list, tuple)) else [list(row) for row in tokens]
    if len(rows) != batch:
        raise ViewError(f"there are tokens of {len(rows)} prompts, and the patterns are {shape}")
    for row in rows:
        if len(row) != width:
            more = " Padded prompts need a record that knows the side: tokens=model.tokens(texts)." if batch > 1 else ""
            raise ViewError(f"there are {len(row)} tokens, and the patterns are {shape}.{more}")
        yield row, slice(None), ""


def _written(tokens: Tokens, i: int) -> str:
    """The text that these are the tokens of, where it gives the same ones again: special ones add themselves."""
    spans, special = tokens.offsets[i], tokens.special[i]
    plain = spans is not None and all(start == stop for (start, stop), odd in zip(spans, special, strict=True) if odd)
    return tokens.text[i] if plain else ""


def _keys(word: str, axes: Sequence[str], labels: Mapping[str, Sequence[Any]], size: int) -> Sequence[int | None]:
    if word not in axes:
        return [None]
    return [int(label) for label in labels.get(word, range(size))]


def _alike(parts: Sequence[Any]) -> bool:
    """Whether arrays of layers fit together. Raises ViewError where they do not."""
    shapes = [tuple(one.shape) for one in parts]
    for layer, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ViewError(f"layer 0 is {shapes[0]}, layer {layer} is {shape}")
    return True


def _flat(array: np.ndarray) -> tuple[np.ndarray, ...]:
    """[layer head query_pos key_pos] as one array per head."""
    return tuple(np.ascontiguousarray(one) for layer in array for one in layer)


def _kept(values: Any) -> np.ndarray:
    """A copy on the CPU; half and single precision stay as they are, so that a copy takes no more room than needed."""
    if hasattr(values, "detach") and str(values.dtype) in ("torch.float16", "torch.float32"):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray) and values.dtype in (np.float16, np.float32):
        return np.array(values, dtype=values.dtype.newbyteorder("="), order="C")
    return wire.held(values, "attention patterns")


def _shape(array: np.ndarray, axes: Sequence[str]) -> str:
    return " · ".join(f"{axis} {size}" for axis, size in zip(axes, array.shape, strict=True))


# Records and models ------------------------------------------------------------------------------------------------------


def _of_model(model: Any, prompt: Any, heads: Any, weighted: bool) -> Patterns:
    """Run once; read the patterns of the layers that are asked for, and what their heads write."""
    from ..analysis.patterns import value_norms

    facts = model.facts
    every = [Head(layer, head) for layer in range(facts.n_layers) for head in range(facts.n_heads)]
    layers = sorted({head.layer for head in wanted(heads, every) if head.layer is not None})
    weighted = weighted and model.W.missing("O") is None and model.W.missing("V") is None
    sites = [f"L{layer}.{site}" for layer in layers for site in ("v", "pattern")[not weighted:]]
    acts = model.capture(prompt, sites)
    norms = value_norms(model, acts) if weighted else {}
    return _of_activations(acts, norms)


def _of_activations(acts: Activations, norms: Mapping[int, Any] | None = None) -> Patterns:
    entries = {key: value for key, value in acts.items() if key.endswith(".pattern")}
    if not entries:
        raise ViewError(f"no pattern was captured (only {', '.join(acts) or 'nothing'}): write model.capture(prompt, "
                        '"L*.pattern")')
    if acts.tokens is None:
        raise ViewError("these activations have no tokens: pass the array acts[…] with tokens=")
    parts = {key: (("batch", "head", "query_pos", "key_pos"), value) for key, value in entries.items()}
    heads, prompts = _split({f"main.{key}": part for key, part in parts.items()}, {"main": acts.tokens})
    many = len(prompts) > 1
    prompts = [replace(one, key=i if many else "main", run="") for i, one in enumerate(prompts)]
    return normed(Patterns(heads, tuple(prompts)), norms or {}, acts.tokens)


def _of_run(run: Run) -> Patterns:
    entries = {key: (run.axes[key], tensor) for key, tensor in run.data.items() if _ENTRY.match(key)}
    if not entries:
        raise ViewError("the run saved no pattern: add a line such as `save L*.pattern` or `show attention L5H1`")
    usual = {"batch", "sample", "head", "query_pos", "key_pos"}
    plain = {key: part for key, part in entries.items() if set(part[0]) <= usual and len(set(part[0])) == len(part[0])}
    if not plain:
        key, (axes, _) = next(iter(entries.items()))
        raise ViewError(f"{key} has the axes {' '.join(axes)}: a swept pattern has no one map. Take a cell, as in "
                        f'attention(run["{key}"][0], tokens=run.tokens)')
    heads, prompts = _split(plain, run.tokens_of)
    return Patterns(heads, tuple(prompts))


def _split(entries: Mapping[str, tuple[tuple[str, ...], Any]], tokens_of: Mapping[str, Tokens]
           ) -> tuple[tuple[Head, ...], list[Prompt]]:
    """Entries of runs as prompts: each example of each run, with the heads that every one of the runs has."""
    held: dict[str, dict[Head, np.ndarray]] = {}
    for key, (axes, tensor) in entries.items():
        match = _ENTRY.match(key)
        assert match is not None
        array = _kept(tensor)
        rest = tuple(axis for axis in axes if axis != "sample")
        array = array[tuple(0 if axis == "sample" else slice(None) for axis in axes)]
        array = array if "batch" in rest else array[None]
        array = array if "head" in rest else array[:, None]
        named = [int(i) for i in re.findall(r"\d+", match["heads"])] if match["heads"] else range(array.shape[1])
        for at, head in enumerate(named):
            held.setdefault(match["run"], {})[Head(int(match["layer"]), head)] = array[:, at]
    heads = [head for head in next(iter(held.values())) if all(head in one for one in held.values())]
    if not heads:
        raise ViewError("no head was saved in all of the runs " + ", ".join(held))
    heads.sort(key=by_layer)
    return tuple(heads), [prompt for run, kept in held.items() for prompt in _examples(run, kept, heads, tokens_of.get(run))]


def _examples(run: str, kept: Mapping[Head, np.ndarray], heads: Sequence[Head], tokens: Tokens | None) -> Iterator[Prompt]:
    first = kept[heads[0]]
    if any(kept[head].shape != first.shape for head in heads) or first.shape[1] != first.shape[2]:
        odd = next((head for head in heads if kept[head].shape != first.shape), heads[0])
        raise ViewError(f"{run}.{odd}.pattern is {_shape(kept[odd], ('batch', 'query_pos', 'key_pos'))}: a view needs every "
                        "query and every key; save it without @")
    fits = tokens is not None and (len(tokens), tokens.width) == (len(first), first.shape[1])
    rows = _named(tokens if fits else None, len(first), first.shape[1], "")
    for i, (pieces, span, text) in enumerate(rows):
        key = run if len(first) == 1 else f"{run} {i}"
        weights = tuple(np.ascontiguousarray(kept[head][i, span, span]) for head in heads)
        yield Prompt(key, tuple(all_shown(pieces)), weights, text=text, run=run)
