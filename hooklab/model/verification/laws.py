"""The write laws: what a change to a site does, and what it leaves alone.

Each law is looked at for all sites in one forward pass, a row a site: in the first, row r changes site r at one position
and the last row changes nothing; in the second, row r has the clean run's values at all positions of site r of a
corrupted run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...records import Activations
from ...sites import ORDER
from ..ports import Port
from .difference import difference
from .inert import inert
from .names import APART_LAW, BOTTLENECK, CAUSAL, EFFECT, INERT, ORDER_LAW, REACH_LAW
from .passes import Ids, answer, look
from .report import Check

if TYPE_CHECKING:
    from ..model import Model

# A table that swaps two projections satisfies every sum; that a change to one leaves the other alone tells them apart.
APART = {"q": ("k", "v", "rot_k"), "k": ("q", "v", "rot_q"), "v": ("q", "k", "rot_q", "rot_k", "scores", "pattern"),
         "rot_q": ("rot_k",), "rot_k": ("rot_q",), "mlp_pre": ("mlp_pre_linear",), "mlp_pre_linear": ("mlp_pre",),
         "embed": ("pos_embed",), "pos_embed": ("embed",)}
REACH = {"q": "rot_q", "k": "rot_k"}
STREAM_SITES = ("embed", "resid_pre", "resid_mid", "resid_post", "ln_final", "logits")
PAIR_SITES = ("scores", "pattern")


def write_laws(model: Model, ids: Ids, other: Ids, acts: Activations, ports: list[Port], limit: float) -> list[Check]:
    """Checks of every law on these ports.

    Args:
        model: An open model.
        ids: Tokens of the clean run.
        other: Tokens of the corrupted run, as many.
        acts: What the clean run gave at every site.
        ports: Where to write.
        limit: The largest error of values that are computed again in another order.
    """
    written = look(model, [ids], list(acts), edits={p.address: lambda v: v.clone() for p in ports})
    same = difference(answer(written), answer(acts))
    checks = [Check("writing back what was read changes nothing", (), same, 0.0)]
    checks += _change_laws(model, ids, ports, limit)
    checks += _bottlenecks(model, ids, other, acts, ports, limit)
    return checks


def _change_laws(model: Model, ids: Ids, ports: list[Port], limit: float) -> list[Check]:
    """One forward pass in which row r changes site r at one position; the last row changes nothing."""
    at = len(ids) // 2
    edits = {port.address: _row_edit(port, row, at) for row, port in enumerate(ports)}
    acts = look(model, [list(ids)] * (len(ports) + 1), list(edits), edits=edits)
    output = answer(acts)
    checks: dict[str, list[tuple[float, float, float]]] = {}
    silent: dict[str, list[Port]] = {}
    apart, gates, unreached = _related(ports, acts, at)
    for row, port in enumerate(ports):
        before = difference(output[row, :at], output[-1, :at])
        effect = float((output[row, at:].float() - output[-1, at:].float()).abs().max())
        if effect == 0.0 and inert(model, acts, port, row):
            silent.setdefault(port.site, []).append(port)
            effect = float("nan")  # not tested
        earlier = [acts[p.address] for p in ports if p.layer == port.layer and ORDER[p.site] < ORDER[port.site]]
        disturbed = max((difference(value[row], value[-1]) for value in earlier), default=0.0)
        checks.setdefault(port.site, []).append((before, effect, disturbed))
    made = []
    for site, found in checks.items():
        made.append(_effect(site, [effect for _, effect, _ in found], silent.get(site, [])))
        if model.facts.causal:
            made.append(Check(CAUSAL, (site,), max(b for b, _, _ in found), 5e-6 if limit < 1e-3 else limit))
        if site in apart:
            made.append(Check(APART_LAW, (site,), max(apart[site], gates.get(site, 0.0)), 1e-4 if limit < 1e-3 else limit))
        if site in REACH:
            made.append(Check(REACH_LAW, (site,), float("inf") if site in unreached else 0.0, 0.0))
        made.append(Check(ORDER_LAW, (site,), max(d for _, _, d in found), 5e-6 if limit < 1e-3 else limit))
    return made


def _effect(site: str, effects: list[float], silent: list[Port]) -> Check:
    """Whether every write to a site changed the output, but those that the weights make nothing of."""
    if 0.0 in effects:
        return Check(EFFECT, (site,), float("inf"), 0.0, "writing has no effect")
    if len(silent) == len(effects):
        return Check(EFFECT, (site,), None, 0.0, INERT)
    layers = " ".join(str(port.layer) for port in silent)
    return Check(EFFECT, (site,), 0.0, 0.0, f"L{layers} {INERT}" if silent else "")


def _related(ports: list[Port], acts: Activations, at: int) -> tuple[dict[str, float], dict[str, float], set[str]]:
    """What a change to one site did to its siblings: disturbance of unrelated ones, of the gate's part in a gated MLP,
    and sites whose change did not arrive at what is made of them."""
    apart: dict[str, float] = {}
    gates: dict[str, float] = {}
    unreached: set[str] = set()
    for row, port in enumerate(ports):
        same = {p.site: acts[p.address] for p in ports if p.layer == port.layer}
        others = [same[site] for site in APART.get(port.site, ()) if site in same]
        if others:
            apart[port.site] = max([apart.get(port.site, 0.0), *(difference(v[row], v[-1]) for v in others)])
        target = same.get(REACH.get(port.site, ""))
        if target is not None and torch.equal(target[row], target[-1]):
            unreached.add(port.site)
        if port.site == "mlp_pre_linear" and "mlp_post" in same:
            # post = act(pre) · linear, so a change to linear changes post in proportion; a change to pre does not.
            post, linear = same["mlp_post"].float(), same["mlp_pre_linear"].float()
            left = (post[row] - post[-1])[at] * linear[-1, at]
            right = (linear[row] - linear[-1])[at] * post[-1, at]
            gates[port.site] = max(gates.get(port.site, 0.0), difference(left, right))
    return apart, gates, unreached


def _row_edit(port: Port, row: int, at: int) -> Any:
    def edit(value: Tensor) -> Tensor:
        if port.site in PAIR_SITES:
            value[row, :, at, at] += 0.5
        elif port.site.endswith("_scale"):
            value[row, at] *= 1.5
        else:
            # Not a mere scaling or shift, which a norm after the site would undo.
            value[row, at] += 0.25 * torch.cos(torch.arange(value.shape[-1], device=value.device)).to(value.dtype)
        return value

    return edit


def _bottlenecks(model: Model, ids: Ids, other: Ids, acts: Activations, ports: list[Port], limit: float) -> list[Check]:
    """Clean values at all positions of a stream site of a corrupted run give the clean output; a row a site."""
    ports = [port for port in ports if port.site in STREAM_SITES]
    if not ports:
        return []

    def edit(row: int, clean: Tensor) -> Any:
        def write(value: Tensor) -> Tensor:
            value[row] = clean[0]
            return value

        return write

    edits = {port.address: edit(row, acts[port.address]) for row, port in enumerate(ports)}
    # The clean run is a row of the same batch: in half precision a matrix product rounds differently at another batch
    # size, and a mixture of experts may then choose another expert.
    output = answer(look(model, [*[list(other)] * len(ports), list(ids)], list(edits), edits=edits))
    errors: dict[str, float] = {}
    for row, port in enumerate(ports):
        errors[port.site] = max(errors.get(port.site, 0.0), difference(output[row], output[-1]))
    return [Check(BOTTLENECK, (site,), error, limit) for site, error in errors.items()]
