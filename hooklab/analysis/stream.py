"""`stream`: how large the residual stream is, what each component writes into it, and how far along a direction.

In: a model and a prompt, or what a run saved. Out: Scores [site pos], which `hl.view.residual` draws. Everything is measured
on the stream as it is, before the final norm, so the projections of all writes add up to that of the last stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import HooklabError, PromptError, TokenError
from ..records import Run, Scores
from ..spec.printer import quote
from .asking import SweepError, check_word
from .lens_table import token_id

if TYPE_CHECKING:
    from ..model.model import Model

KINDS = ("norm", "writes", "projection")
STREAM = ("resid_pre", "resid_mid", "resid_post")
WRITES = ("attn_out", "mlp_out")
EMBEDDINGS = ("embed", "pos_embed")
ROUNDING = 1e-3
"""What the parts of a block may miss of the stream, relative to its length, before a row of its own says so."""


def stream(model: Model, prompt: Any, of: str | None = None, *, direction: Any = None, normalised: bool = False) -> Scores:
    """The residual stream of one prompt in numbers, one for every place and position.

    Args:
        model: An opened model.
        prompt: One text, or the ids of one.
        of: `"norm"`, the length of the stream at every place; `"writes"`, the length of what each component adds;
            `"projection"`, how far each of these writes goes along `direction`. By default the projection where a direction
            is given, else the norm.
        direction: A vector [d_model]; a token such as `" Mary"`, which stands for the direction that the unembedding reads;
            or two tokens `(" Mary", " John")`, which stand for the difference of theirs.
        normalised: Divide the direction by its length, so that numbers are lengths in the stream.

    Returns:
        Scores [site pos]; a site is an address such as `L3.attn_out`. Projections of all rows add up to the projection of
        the last `resid_post`. Where norms stand in the stream itself (BERT), rows `L0.rest` hold what they change.

    Raises:
        SweepError: there is no such kind, no direction, or one of the wrong length.
        TokenError: the text of a direction is not one token.
        PromptError: there are several prompts.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> writes = stream(model, "When Mary and John went to the store", "projection", direction=(" Mary", " John"))
        >>> writes.axes, writes.coords["site"][:3]
        (('site', 'pos'), ('embed', 'pos_embed', 'L0.attn_out'))
    """
    check_word("kind", of, (None, *KINDS))
    of = of or ("norm" if direction is None else "projection")
    if of == "projection" and direction is None:
        raise SweepError('a projection needs a direction: direction=" Mary", (" Mary", " John"), or a vector [d_model]')
    return streams(model, prompt, direction=direction if of == "projection" else None, normalised=normalised)[of]


def streams(model: Model, prompt: Any, *, direction: Any = None, normalised: bool = False) -> dict[str, Scores]:
    """All kinds of `stream` from one forward pass; the projection only where a direction is given.

    Raises:
        SweepError, TokenError, PromptError: as `stream` does.
    """
    along = None if direction is None else direction_of(model, direction, normalised=normalised)
    sites = [name for name in (*EMBEDDINGS, *STREAM, *WRITES) if model.sites.missing(name) is None]
    acts = model.capture(prompt, [name if name in EMBEDDINGS else f"L*.{name}" for name in sites], full=True)
    if acts.tokens is None or len(acts.tokens) != 1:
        raise PromptError("the stream is shown for one prompt at a time: give one text, or the ids of one")
    values = {site: np.asarray(value[0].double().cpu().numpy()) for site, value in acts.items()}
    spec = f"prompt {quote(prompt)}\n" if isinstance(prompt, str) else ""
    labels = tuple(f"{i}: {piece}" for i, piece in enumerate(acts.tokens.pieces[0]))
    return measured(values, labels, along, named=direction_name(direction, normalised=normalised), spec=spec)


def of_run(run: Run, *, direction: Any = None, normalised: bool = False) -> dict[str, Scores]:
    """The same from what a run saved of the stream (`save L*.resid_post`), first example; a direction is a vector here.

    Raises:
        SweepError: it saved nothing of the stream, or the direction is no vector of the right length.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, tensor in run.data.items():
        name, _, address = key.partition(".")
        if run.axes[key][-2:] == ("pos", "d_model") and address.rpartition(".")[2] in (*STREAM, *WRITES, *EMBEDDINGS):
            whole = tensor.detach().double().cpu().numpy()
            found.setdefault(name, {})[address] = whole.reshape(-1, *whole.shape[-2:])[0]
    if not found:
        raise SweepError("this run saved nothing of the stream: add `save L*.resid_post`, or give the model and a prompt")
    name, values = next(iter(found.items()))
    width = {len(value) for value in values.values()}
    if len(width) > 1:
        raise SweepError(f"{name} saved different positions of different sites: save them all, or the same ones")
    tokens, size = run.tokens_of.get(name), width.pop()
    pieces = tokens.pieces[0] if tokens is not None and len(tokens.pieces[0]) == size else None
    labels = tuple(f"{i}: {pieces[i]}" if pieces else str(i) for i in range(size))
    along = None if direction is None else vector_of(direction, next(iter(values.values())).shape[-1], normalised=normalised)
    return measured(values, labels, along, named=direction_name(direction, normalised=normalised), spec=run.spec)


def measured(values: Mapping[str, np.ndarray], positions: Sequence[str], along: np.ndarray | None = None, *,
             named: str = "", spec: str = "") -> dict[str, Scores]:
    """Norms, writes and projections of a stream that is given.

    Args:
        values: Address -> [pos d_model]; what is missing is left out.
        positions: A label for each position.
        along: The direction [d_model].
        named: What to call it.
        spec: Text that the numbers come from.
    """
    order = list(dict.fromkeys(_ordered(values)))
    places = [site for site in order if _kind(site) in STREAM and not _again(site, values)]
    writes = {site: values[site] for site in order if _kind(site) not in STREAM}
    writes = _with_rest(writes, values)
    coords = {"pos": tuple(positions)}

    def scores(name: str, unit: str, rows: Mapping[str, np.ndarray], note: str) -> Scores:
        return Scores(np.stack(list(rows.values())), ("site", "pos"), {"site": tuple(rows), **coords}, unit, name, spec,
                      note=note)

    found = {}
    if places:
        found["norm"] = scores("norm of the stream", "length", {site: _length(values[site]) for site in places}, "")
    rest = "rest: what no component wrote, such as norms in the stream" if any(_kind(s) == "rest" for s in writes) else ""
    if writes:
        found["writes"] = scores("norm of the write", "length", {site: _length(x) for site, x in writes.items()}, rest)
    if along is not None:
        rows = {site: x @ along for site, x in (writes or {site: values[site] for site in places}).items()}
        note = f"dot product with {named}" + (f" · {rest}" if rest else "")
        found["projection"] = scores(f"projection on {named}", "dot product", rows, note)
    return found


def _with_rest(writes: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Writes in order, and after those of each layer what they miss of the stream, where that is more than rounding."""
    found: dict[str, np.ndarray] = {}
    for site, value in writes.items():
        found[site] = value
        layer = site.rpartition(".")[0]
        parts = [f"{layer}.{name}" for name in WRITES] if layer else [name for name in EMBEDDINGS if name in values]
        before, after = (f"{layer}.resid_pre", f"{layer}.resid_post") if layer else ("", "L0.resid_pre")
        known = after in values and all(part in values for part in parts) and (not before or before in values)
        if site != parts[-1] or not known:
            continue
        rest = values[after] - sum((values[part] for part in parts), values[before] if before else 0.0)
        if _length(rest).max() > ROUNDING * _length(values[after]).max():
            found[f"{layer}.rest" if layer else "rest"] = rest
    return found


def _ordered(sites: Iterable[str]) -> list[str]:
    """Addresses in the order of a forward pass, attention before MLP."""
    kinds = (*EMBEDDINGS, "resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
    return sorted(sites, key=lambda site: (-1 if "." not in site else int(site.partition(".")[0][1:]),
                                           kinds.index(_kind(site))))


def _kind(site: str) -> str:
    return site.rpartition(".")[2]


def _again(site: str, values: Mapping[str, np.ndarray]) -> bool:
    """Whether a place is the end of the layer before, which has a row already."""
    layer, _, kind = site.partition(".")
    return kind == "resid_pre" and f"L{int(layer[1:]) - 1}.resid_post" in values


def _length(value: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(value, axis=-1))


def direction_of(model: Model, given: Any, *, normalised: bool = False) -> np.ndarray:
    """A vector [d_model] from a vector, a token, or two for the difference of theirs.

    Raises:
        SweepError: none of these, or a vector of another length, with what is no finite number, or zero.
        TokenError: a text that is not one token.
    """
    if isinstance(given, str):
        return vector_of(_column(model, given), model.facts.d_model, normalised=normalised)
    if isinstance(given, (tuple, list)) and len(given) == 2 and all(isinstance(text, str) for text in given):
        return vector_of(_column(model, given[0]) - _column(model, given[1]), model.facts.d_model, normalised=normalised)
    return vector_of(given, model.facts.d_model, normalised=normalised)


def _column(model: Model, text: str) -> Tensor:
    """The column of the unembedding that reads a token."""
    if model.tokenizer is None:
        raise TokenError(f"this model has no tokenizer, so {text!r} names no token: give a vector, such as model.W.U[:, 17]")
    return model.W.U[:, token_id(model, text, TokenError)]


def vector_of(given: Any, width: int, *, normalised: bool = False, error: type[HooklabError] = SweepError) -> np.ndarray:
    """A vector [width] in double precision; the one check of every direction that is given as numbers.

    Raises:
        SweepError: another shape, what is no finite number, or zero everywhere.
    """
    try:
        found = np.asarray(torch.as_tensor(given).detach().double().cpu().numpy())
    except (TypeError, ValueError, RuntimeError):
        known = ', a token such as " Mary", or two tokens (" Mary", " John")' if error is SweepError else ""
        raise error(f"a direction is a vector of {width} numbers{known}, not {type(given).__name__}") from None
    if found.shape != (width,):
        raise error(f"a direction has {width} finite numbers here, not all of them zero; this one has shape {found.shape}")
    if not np.isfinite(found).all() or not found.any():
        raise error("a direction has finite numbers, not all of them zero")
    return found / np.linalg.norm(found) if normalised else found


def direction_name(given: Any, *, normalised: bool = False) -> str:
    """What a direction is called in titles and notes."""
    name = repr(given) if isinstance(given, str) else "the direction"
    if isinstance(given, (tuple, list)) and given and all(isinstance(text, str) for text in given):
        name = " − ".join(map(repr, given))
    return name + (" (unit length)" if normalised else "")
