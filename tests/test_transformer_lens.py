"""The same names mean the same tensors as in TransformerLens 4.3, where TransformerLens is right.

Left out, because TransformerLens itself is wrong or silent there: scores and pattern of gpt_neo, gptj and opt (both
are the pattern), rot_q and rot_k where its hooks do not fire, per-head results behind a norm after attention.
"""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import build

from hooklab.model.model import Model
from hooklab.sites import SITES

bridge_builder = pytest.importorskip(
    "transformer_lens.model_bridge.sources._bridge_builder", reason="transformer-lens is not installed (extra: test)")

IDS = torch.tensor([[3, 14, 15, 92, 65, 35]])
FAMILIES = ["gpt2", "gpt_neo", "gpt_neox", "gptj", "opt", "phi", "phi3", "bloom", "falcon", "llama", "mistral",
            "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "stablelm", "olmo2", "gpt_oss"]
SAME = ["embed", "resid_pre", "resid_mid", "resid_post", "q", "k", "v", "z", "pattern", "scores", "attn_out",
        "mlp_out", "mlp_pre", "mlp_post"]
WRONG = {family: {"scores", "pattern"} for family in ("gpt_neo", "gptj", "opt")}


@pytest.mark.parametrize("family", FAMILIES)
def test_values_agree(family):
    hf = build(family)
    model = Model(copy.deepcopy(hf))
    bridge = bridge_builder.build_bridge_from_module(copy.deepcopy(hf), type(hf).__name__, hf_config=hf.config,
                                                     model_name="tiny")
    bridge.eval()
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(IDS)
    acts = model.capture(IDS, [p.address for p in model.layout.all_ports], full=True)
    assert torch.allclose(acts["logits"], logits, atol=1e-5)
    compared = set()
    for port in model.layout.all_ports:
        name = SITES[port.site].tl.format(port.layer)
        if port.site not in SAME or port.site in WRONG.get(family, ()) or name not in cache:
            continue
        theirs, ours = cache[name], acts[port.address]
        if theirs.shape != ours.shape:
            theirs = theirs.reshape(ours.shape)
        seen = ours > -1e30
        error = float((ours - theirs)[seen].abs().max()) / max(1.0, float(ours[seen].abs().max()))
        assert error <= 1e-5, (port.address, error)
        compared.add(port.site)
    assert {"resid_pre", "resid_post", "mlp_out", "z"} <= compared


def test_hook_names_are_addresses():
    model = Model(build("llama"))
    acts = model.capture(IDS, ["blocks.1.attn.hook_z", "hook_embed", "blocks.0.hook_resid_mid"])
    assert sorted(acts) == ["L0.resid_mid", "L1.z", "embed"]
    assert torch.equal(acts["blocks.1.attn.hook_z"], acts["L1.z"])


def test_where_it_is_wrong_we_are_not():
    """Clean resid_mid at every position of a corrupted run must give the clean logits."""
    hf = build("llama")
    model = Model(copy.deepcopy(hf))
    clean = model.capture(IDS, "L0.resid_mid", full=True)
    ours = model.capture(IDS.flip(1), "logits", edits={"L0.resid_mid": lambda v: clean["L0.resid_mid"].clone()})
    assert torch.allclose(ours["logits"], clean.output.logits, atol=1e-6)
