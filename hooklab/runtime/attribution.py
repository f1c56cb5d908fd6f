"""How much each place contributes to a metric: gradients, integrated gradients, attribution patching, direct logits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..compiler.plan.readings import Reading
from ..compiler.plan.spots import Spot
from ..model import unembedding
from .agreement import agree
from .evaluate import part
from .exact import chosen, exact, what
from .feature_attribution import METHODS as BY_FEATURE
from .feature_attribution import along, features_of, summed
from .gradients import gradients
from .measure import measure
from .readings import Found, captured, position_columns
from .store import Block, Store, trouble

if TYPE_CHECKING:
    from ..model.model import Model


def attribute(model: Model, store: Store, block: Block, reading: Reading) -> list[Found]:
    """Contributions of places to a metric.

    `grad`: activation times gradient, summed over a place. `patch`: (source − value) times gradient, the first-order effect
    of patching (Nanda 2023). `ig`: integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365) from zero, or from
    the source, along a straight line. `dla`: the place's write times the answer's direction, through the final norm with its
    scale held (direct logit attribution; Elhage et al. 2021).

    Features of a dictionary are attributed with its error kept, see `runtime.feature_attribution`.
    What gradients may hold is said in `runtime.gradients`. With `check` a second reading has the exact effect of some
    cells, and the note of the first says how well the two agree.
    """
    method = str(reading.option("method"))
    # In inference mode nothing has a gradient, whatever enable_grad says.
    with torch.inference_mode(False), torch.enable_grad() if method != "dla" else torch.no_grad():
        rows = _rows(model, store, block, reading, method)
    each = np.stack(rows, 1).reshape(-1, *(len(axis.labels) for axis in reading.axes))  # [example, axes]
    values, each_ = each.mean(0), each if len(each) > 1 else None
    unit = "" if reading.value is None else reading.value.unit
    note = f"{method} attribution of {reading.option('metric')}" + _said(reading)
    count = int(reading.option("check", 0))
    if not count:
        return [Found("attribute", values, unit, note=note, examples=each_)]
    cells = chosen(count, values.size, int(reading.option("draw", 0)))
    truth = np.full(values.size, np.nan)
    truth[cells] = exact(model, store, block, reading, cells)
    left = "" if len(cells) == values.size else f" in {len(cells)} of {values.size} cells; the rest was not run"
    said = f"{note}; against exact {what(reading)}: {agree(values, truth)}"
    return [Found("attribute", values, unit, note=said, examples=each_),
            Found("attribute_exact", truth.reshape(values.shape), unit,
                  note=f"exact effect of {what(reading)}" + left)]


def _rows(model: Model, store: Store, block: Block, reading: Reading, method: str) -> list[np.ndarray]:
    """Contributions of every place, in order, each [example (pos)]."""
    plain = replace(reading, spots=tuple(spot for spot in reading.spots if spot.sae is None))
    parts = iter(METHODS[method](model, store, block, plain)) if plain.spots else iter(())
    tables = {spot.sae: _features(model, store, block, reading, method, spot) for spot in
              {spot.sae: spot for spot in reading.spots if spot.sae is not None}.values()}
    rows = []
    for spot in reading.spots:
        if spot.sae is None:
            rows.append(_summed(store, block, reading, *next(parts)))
            continue
        table = tables[spot.sae]
        rows.append((table if spot.features is None else table[..., list(spot.features)]).sum(-1))
    return rows


def _features(model: Model, store: Store, block: Block, reading: Reading, method: str, spot: Spot) -> np.ndarray:
    """Contributions of all features of a dictionary, [example (pos) feature]."""
    found = features_of(model, store, block, spot)
    if method == "dla":
        _check_direct(model, store, reading, found.written)
        stream = captured(model, store, block, last_stream(model))[last_stream(model)[0]]
        product = along(found, _direction(model, store, block, reading, stream))
    else:
        product = BY_FEATURE[method](model, store, block, reading, found, _source)
    columns = position_columns(store, block, reading.at) if reading.at is not None else None
    return np.asarray(summed(product, columns, block.size, each=reading.each).numpy())


def _said(reading: Reading) -> str:
    """What was held, for the note."""
    held = reading.option("hold", ())
    return f", {' and '.join(held)} held" if held else ""


def _summed(store: Store, block: Block, reading: Reading, spot: Spot, value: Tensor) -> np.ndarray:
    """[row pos …] contributions summed over a place, by position if positions are read one by one: [example (pos)]."""
    attention = spot.site in ("scores", "pattern")
    turned = value.transpose(1, 2) if attention else value
    turned = part(Spot(spot.site, spot.layer, spot.heads, spot.units), turned)
    each = turned.reshape(*turned.shape[:2], -1).sum(-1)  # [row pos]
    cols = position_columns(store, block, reading.at) if reading.at is not None else None
    if cols is not None:
        each = each[torch.arange(len(each))[:, None], cols.to(each.device)]
    summed = (each if reading.each else each.sum(-1)).detach().double().cpu().numpy()
    return np.asarray(summed.reshape(-1, block.size, *summed.shape[1:]).mean(0))  # samples averaged, [example …]


# Gradients ---------------------------------------------------------------------------------------------------------


def _keys(spots: tuple[Spot, ...]) -> list[Spot]:
    return list(dict.fromkeys(Spot(spot.site, spot.layer) for spot in spots))


def _by_gradient(model: Model, store: Store, block: Block, reading: Reading) -> list[tuple[Spot, Tensor]]:
    wanted = _keys(reading.spots)
    values, grads = gradients(model, store, block, reading, wanted)
    product = {spot: v * g for spot, v, g in zip(wanted, values, grads, strict=True)}
    return [(spot, product[Spot(spot.site, spot.layer)]) for spot in reading.spots]


def _by_patching(model: Model, store: Store, block: Block, reading: Reading) -> list[tuple[Spot, Tensor]]:
    wanted = _keys(reading.spots)
    values, grads = gradients(model, store, block, reading, wanted)
    product = {spot: (_source(store, block, reading, spot).to(v.device) - v) * g
               for spot, v, g in zip(wanted, values, grads, strict=True)}
    return [(spot, product[Spot(spot.site, spot.layer)]) for spot in reading.spots]


def _source(store: Store, block: Block, reading: Reading, spot: Spot) -> Tensor:
    whole = store.act(str(reading.option("source")), spot, block.run, block.number)
    rows = block.size * block.run.samples
    return whole if len(whole) == rows else whole.repeat(rows // len(whole), *[1] * (whole.ndim - 1))


def _by_path(model: Model, store: Store, block: Block, reading: Reading) -> list[tuple[Spot, Tensor]]:
    """Integrated gradients, place by place: midpoints of equal steps."""
    steps = int(reading.option("steps", 20))
    product: dict[Spot, Tensor] = {}
    whole = captured(model, store, block, tuple(_keys(reading.spots)))
    for spot in _keys(reading.spots):
        end = whole[spot].detach()
        start = _source(store, block, reading, spot).to(end.device) if reading.option("source") else torch.zeros_like(end)
        total = torch.zeros_like(end)
        for step in range(steps):
            between = start + (step + 0.5) / steps * (end - start)
            _, grads = gradients(model, store, block, reading, [spot], {(spot.site, spot.layer): between})
            total += grads[0]
        product[spot] = (end - start) * total / steps
    return [(spot, product[Spot(spot.site, spot.layer)]) for spot in reading.spots]


# Direct logit attribution --------------------------------------------------------------------------------------------

WRITES = ("embed", "pos_embed", "attn_out", "mlp_out", "result", "resid_pre", "resid_mid", "resid_post")


def _direct(model: Model, store: Store, block: Block, reading: Reading) -> list[tuple[Spot, Tensor]]:
    """A write's share of the answer's logit, by the metric's own gradient with the final norm's scale held."""
    for spot in reading.spots:
        _check_direct(model, store, reading, spot)
    whole = captured(model, store, block, (*_keys(reading.spots), *last_stream(model)))
    direction = _direction(model, store, block, reading, whole[last_stream(model)[0]])
    return [(spot, _dot(whole[Spot(spot.site, spot.layer)], direction)) for spot in reading.spots]


def _check_direct(model: Model, store: Store, reading: Reading, spot: Spot) -> None:
    """Refuse a place whose write does not reach the logits as it is."""
    if spot.site not in WRITES:
        raise trouble(f"{spot} does not write to the stream", reading.span,
                      f"direct attribution is of {', '.join(WRITES)}", store.plan.text)
    if not model.layout.family.adds_up and spot != last_stream(model)[0]:
        raise trouble(f"{model.facts.family} puts the stream through a norm after every addition, so shares do not add "
                      "up", reading.span, "take attribute … with grad", store.plan.text)
    if spot.site == "result" and model.layout.family.post_attn:
        raise trouble(f"heads of {model.facts.family} write through a norm, so their shares do not add up",
                      reading.span, "attribute L*.attn_out instead", store.plan.text)
    if model.layout.logit_cap is not None:
        note_softcap(store, reading)


def note_softcap(store: Store, reading: Reading) -> None:
    """Direct shares add up before a soft-cap only."""
    raise trouble("this model caps its logits, so direct shares do not add up to a difference of logits", reading.span,
                  "take attribute … with grad", store.plan.text)


def last_stream(model: Model) -> tuple[Spot, ...]:
    """The stream that the final norm reads."""
    return (Spot("resid_post", model.facts.n_layers - 1),)


def _dot(value: Tensor, direction: Tensor) -> Tensor:
    """[row pos (head) d_model] with the direction of each row and position: same shape, to be summed."""
    return value * (direction[:, :, None] if value.ndim == 4 else direction)


def _direction(model: Model, store: Store, block: Block, reading: Reading, stream: Tensor) -> Tensor:
    """d metric / d stream with the final norm's scale held, [row pos d_model]."""
    with torch.enable_grad():
        x = torch.zeros_like(stream).requires_grad_()
        normed = unembedding.held(model, x, unembedding.final_divisor(model, stream.detach())).to(x.dtype)
        total = measure(store, block, reading.value, model.layout.unembed(normed)).sum()
        if not total.requires_grad:
            raise trouble(f"{reading.option('metric')} has no direction", reading.span, "take logit or logit_diff",
                          store.plan.text)
        return torch.autograd.grad(total, x)[0]


METHODS = {"grad": _by_gradient, "patch": _by_patching, "ig": _by_path, "dla": _direct}
