"""Whether the weights say that a write has no effect: then nothing is wrong with a site whose writes have none.

A write is followed from site to site through its block. Where one changed and what is made of it did not, the weights are
asked, by the block's own modules and plain arithmetic on the changed value: only where they give the very same numbers as
for the value before is the write inert. A write that is ignored although they give others is not, nor one that leaves the
block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import SiteError
from ...records import Activations
from ..ports import Port
from .identities import View, activation, plain

if TYPE_CHECKING:
    from ..model import Model

Made = Callable[[View], Tensor]
"""What the weights make of the sites of one layer of one run."""


def inert(model: Model, acts: Activations, port: Port, row: int) -> bool:
    """Whether the weights make nothing of what was written to a site in one row of a batch; its last row has no write."""
    if port.layer is None:
        return False
    written, clean = (View(model, _row(acts, i), port.layer) for i in (row, -1))
    return port.site in written and _inert(port.site, written, clean)


def _inert(site: str, written: View, clean: View) -> bool:
    if torch.equal(written[site], clean[site]):
        return False  # the write did not even arrive here
    targets = _targets(site, written)
    return bool(targets) and all(
        _inert(target, written, clean) if target in written and not torch.equal(written[target], clean[target])
        else made is not None and _same(made, written, clean) for target, made in targets.items())


def _targets(site: str, view: View) -> dict[str, Made | None]:
    """The sites that are made of a site, and how, as far as weights alone say it; none where it leaves the block."""
    layout = view.model.layout
    if site in ("ln1", "ln2"):
        mlp = site == "ln2" or layout.missing("ln2") is not None
        found = [] if site == "ln2" else ["q", "k", "v"]
        found += ["mlp_pre", *([] if layout.missing("mlp_pre_linear") else ["mlp_pre_linear"])] if mlp else []
        return {target: _projection(site, target) for target in found}
    return _TARGETS.get(site, {})


def _same(made: Made, written: View, clean: View) -> bool:
    try:
        return torch.equal(made(written), made(clean))
    except (RuntimeError, TypeError, AttributeError, LookupError, SiteError):
        return False  # the weights cannot be asked


def _row(acts: Activations, i: int) -> dict[str, Tensor]:
    return {address: acts[address][i][None] for address in acts}


def _projection(site: str, target: str) -> Made:
    def made(view: View) -> Tensor:
        module = view.role(_ROLES[target][0])
        return plain(view.role(_ROLES[target][1]) if module is None else module, view[site])

    return made


def _attended(view: View) -> Tensor:
    group = view["rot_q"].shape[2] // view["rot_k"].shape[2]
    return torch.einsum("bqhd,bkhd->bhqk", view["rot_q"], view["rot_k"].repeat_interleave(group, 2))


def _moved(view: View) -> Tensor:
    group = view["pattern"].shape[1] // view["v"].shape[2]
    values = view["v"].repeat_interleave(group, 2)
    return torch.einsum("bhqk,bkhd->bqhd", view["pattern"].to(values.dtype), values)


def _activated(view: View) -> Tensor:
    made = plain(activation(view.model, view.layer), view["mlp_pre"])
    return made if view.model.layout.missing("mlp_pre_linear") else made * view["mlp_pre_linear"]


_ROLES = {"q": ("qkv", "q"), "k": ("qkv", "k"), "v": ("qkv", "v"), "mlp_pre": ("gate_up", "gate"),
          "mlp_pre_linear": ("gate_up", "up")}
"""Site -> the projection that gives it, fused with others or alone."""
_TARGETS: dict[str, dict[str, Made | None]] = {
    "ln1_scale": {"ln1": None}, "ln2_scale": {"ln2": None}, "q": {"rot_q": None}, "k": {"rot_k": None},
    "rot_q": {"scores": _attended}, "rot_k": {"scores": _attended},
    "scores": {"pattern": lambda view: torch.softmax(view["scores"].float(), -1)},
    "pattern": {"z": _moved}, "v": {"z": _moved},
    "z": {"attn_out": lambda view: plain(view.role("o"), view["z"].flatten(2))},
    "result": {"attn_out": lambda view: view["result"].sum(2)},
    "mlp_pre": {"mlp_post": _activated}, "mlp_pre_linear": {"mlp_post": _activated},
    "mlp_post": {"mlp_out": lambda view: plain(view.role("down"), view["mlp_post"])}}
