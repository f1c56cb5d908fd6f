"""Edges, against the hand-written transformer with a place of its own in front of every reader of the stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from oracle import CLEAN, DIRTY, RIGHT, WRONG
from reference import Run, reference
from tiny_models import TEXT_ONLY, build
from torch import Tensor

import hooklab as hl
from hooklab.analysis.attribute import AttributionError, attribute
from hooklab.analysis.edge_scores import edges

ANSWERED: dict[str, Any] = dict(answer=RIGHT, wrong=WRONG)
WITHOUT = ("opt_postnorm", "bert", "bert_base", "gpt2_base", "llama_base")
FAMILIES = tuple(name for name in TEXT_ONLY if name not in WITHOUT)
WHOLE = ("gemma2", "gemma3", "olmo2")
"""Families whose heads write through a norm."""


class Split(Run):
    """A pass in which whatever reads the stream may read another one: `extra` is added before its norm.

    With `fixed`, the norms' divisors and the attention patterns are those of another pass.
    """

    def __init__(self, model: Any, extra: dict[str, Tensor], fixed: dict[str, Tensor] | None = None) -> None:
        held = {name: (lambda x, value=value: value) for name, value in (fixed or {}).items()
                if name.endswith(("_scale", "pattern"))}
        super().__init__(model, held)
        self.extra, self.fixed = extra, fixed
        self.raw: Tensor = torch.zeros(0)
        self.holder: Any = None

    def site(self, name: str, value: Tensor) -> Tensor:
        value = super().site(name, value)
        if name.endswith(("resid_pre", "resid_mid")):
            self.raw = value
        return value

    def block(self, block: Any, x: Tensor, layer: int) -> Tensor:
        self.holder, self.layer = block, layer
        return super().block(block, x, layer)

    def read(self, label: str, path: str | None, name: str, otherwise: Tensor) -> Tensor:
        """What a reader gets: the stream and its extra, through its norm."""
        if label not in self.extra:
            return otherwise
        x = self.raw + self.extra[label]
        if path is None:
            return x
        module = self.get(path, self.holder)
        if self.fixed is None:
            return self.norm(module, x, self.arch.norm)
        centred = x - x.mean(-1, keepdim=True) if self.arch.norm == "layer" else x
        gain = 1 + module.weight if self.arch.norm == "rms1" else module.weight
        out = centred / self.fixed[f"L{self.layer}.{name}_scale"] * gain
        return out if getattr(module, "bias", None) is None else out + module.bias

    def project(self, attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        made = []
        for which, site in enumerate("qkv"):
            whole = super().project(attn, x)[which].clone()
            for head in range(whole.shape[2]):
                own = self.read(f"L{self.layer}H{head}.{site}", self.arch.ln1, "ln1", x)
                whole[:, :, head] = super().project(attn, own)[which][:, :, head]
            made.append(whole)
        return made[0], made[1], made[2]

    def feed_forward(self, block: Any, x: Tensor, layer: int) -> Tensor:
        path = self.arch.ln1 if self.arch.plan == "parallel1" else self.arch.ln2
        return super().feed_forward(block, self.read(f"L{layer}.mlp", path, "ln2", x), layer)

    def unembed(self, x: Tensor) -> None:
        super().unembed(x + self.extra.get("logits", 0.0))


def passed(hf: Any, ids: list[int], extra: dict[str, Tensor], fixed: dict[str, Tensor] | None = None) -> Tensor:
    """The logit difference of a pass."""
    run = Split(hf, extra, fixed)
    x = run.embed(torch.tensor([ids]))
    for layer, block in enumerate(run.get(run.arch.blocks)):
        x = run.block(block, x, layer)
    run.unembed(x)
    return run.values["logits"][0, -1, RIGHT] - run.values["logits"][0, -1, WRONG]


def changes(family: str, hf: Any) -> dict[str, Tensor]:
    """What each sender writes on the corrupted prompt less what it writes on the clean one."""
    clean, dirty = (reference(hf, torch.tensor([ids])) for ids in (CLEAN, DIRTY))
    found = {"embed": dirty["L0.resid_pre"] - clean["L0.resid_pre"]}
    for layer in range(2):
        if family in WHOLE:
            found[f"L{layer}.attn"] = dirty[f"L{layer}.attn_out"] - clean[f"L{layer}.attn_out"]
        else:
            for head in range(4):
                found[f"L{layer}H{head}"] = (dirty[f"L{layer}.result"] - clean[f"L{layer}.result"])[:, :, head]
        found[f"L{layer}.mlp"] = dirty[f"L{layer}.mlp_out"] - clean[f"L{layer}.mlp_out"]
    return found


def exists(sender: str, receiver: str, *, parallel: bool) -> bool:
    """Whether the model has an edge, from the names alone."""
    if sender == "embed":
        return True
    if receiver == "logits":
        return True
    low, high = int(sender[1]), int(receiver[1])
    return low < high or (low == high and receiver.endswith("mlp") and not sender.endswith("mlp") and not parallel)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_edge_is_the_write_times_the_gradient_at_its_reader(family):
    hf = build(family)
    model = hl.load(hf)
    scores = edges(model, CLEAN, DIRTY, **ANSWERED)
    parallel = model.layout.family.residual == "parallel"
    writes = changes(family, hf)
    leaves = {label: torch.zeros(1, len(CLEAN), 32, requires_grad=True) for label in scores.coords["receiver"]}
    grads = torch.autograd.grad(passed(hf, CLEAN, leaves), list(leaves.values()))
    assert scores.coords["sender"] == tuple(writes)
    expected = np.array([[float((write * grad).sum()) if exists(sender, label, parallel=parallel) else np.nan
                          for label, grad in zip(leaves, grads, strict=True)] for sender, write in writes.items()])
    np.testing.assert_array_equal(np.isnan(scores.values), np.isnan(expected))
    np.testing.assert_allclose(scores.values, expected, atol=3e-5, rtol=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "phi"])
def test_small_changes_of_single_edges_do_what_the_scores_say(family):
    hf = build(family, dtype=torch.float64)
    model = hl.load(hf)
    scores = edges(model, CLEAN, DIRTY, **ANSWERED)
    writes, small = changes(family, hf), 1e-3
    with torch.no_grad():
        for sender, label in (("embed", "L0H1.q"), ("embed", "L1H0.k"), ("L0H2", "L1H1.v"), ("L0.mlp", "L1H3.q"),
                              ("L0H0", "L1.mlp"), ("L1.mlp", "logits"), ("L0H3", "logits")):
            up, down = (float(passed(hf, CLEAN, {label: sign * small * writes[sender]})) for sign in (1, -1))
            found = float(scores.sel(sender=sender, receiver=label))
            assert (up - down) / (2 * small) == pytest.approx(found, abs=2e-4, rel=2e-3)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_on_a_linear_model_scores_are_the_exact_effects_of_edges(family):
    hf = without_mlps(family)
    scores = edges(hl.load(hf), CLEAN, DIRTY, hold=("norms", "patterns"), **ANSWERED)
    fixed, writes = reference(hf, torch.tensor([CLEAN])), changes(family, hf)
    base = passed(hf, CLEAN, {}, fixed)
    for sender, write in writes.items():
        for label in scores.coords["receiver"]:
            found = float(scores.sel(sender=sender, receiver=label))
            if not np.isnan(found) and not label.endswith(("q", "k", "mlp")):
                assert float((passed(hf, CLEAN, {label: write}, fixed) - base).detach()) == pytest.approx(found, abs=2e-5)
            elif label.endswith(("q", "k")):
                assert np.isnan(found) or found == 0.0  # patterns are held


def without_mlps(family: str) -> Any:
    """A model whose MLPs write nothing: what is left, norms and patterns held, is linear."""
    hf = build(family)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if any(part in name for part in ("mlp.c_proj", "mlp.down_proj", "mlp.dense_4h_to_h")):
                parameter.zero_()
    return hf


def test_an_edge_of_a_linear_model_is_a_product_of_weights():
    hf = without_mlps("gpt2")
    scores = edges(hl.load(hf), CLEAN, DIRTY, hold="all", **ANSWERED)
    clean, write = reference(hf, torch.tensor([CLEAN])), changes("gpt2", hf)["L0H1"]
    block, final = hf.transformer.h[1], hf.transformer.ln_f
    centred = write - write.mean(-1, keepdim=True)
    read = centred / clean["L1.ln1_scale"] * block.ln_1.weight
    value = read @ block.attn.c_attn.weight[:, 64 + 16:64 + 24]  # the values of head 2
    moved = clean["L1.pattern"][:, 2] @ value @ block.attn.c_proj.weight[16:24]
    out = (moved - moved.mean(-1, keepdim=True)) / clean["ln_final_scale"] * final.weight
    expected = out[0, -1] @ (hf.lm_head.weight[RIGHT] - hf.lm_head.weight[WRONG])
    assert float(scores.sel(sender="L0H1", receiver="L1H2.v")) == pytest.approx(float(expected.detach()), abs=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gptj", "gemma2", "mixtral", "olmo2"])
def test_the_edges_of_a_sender_add_up_to_its_attribution_patching(family):
    model = hl.load(build(family))
    scores = edges(model, CLEAN, DIRTY, **ANSWERED)
    heads = "L*.attn_out" if family in WHOLE else "L*H*"
    nodes = {"embed": attribute(model, CLEAN, "L0.resid_pre", method="patch", source=DIRTY, **ANSWERED),
             "mlp": attribute(model, CLEAN, "L*.mlp", method="patch", source=DIRTY, **ANSWERED),
             "heads": attribute(model, CLEAN, heads, method="patch", source=DIRTY, **ANSWERED)}
    total = {sender: float(np.nansum(row)) for sender, row in zip(scores.coords["sender"], scores.values, strict=True)}
    assert total["embed"] == pytest.approx(float(nodes["embed"]), abs=1e-4)
    np.testing.assert_allclose([total["L0.mlp"], total["L1.mlp"]], nodes["mlp"].values, atol=1e-4)
    found = [value for sender, value in total.items() if sender != "embed" and not sender.endswith("mlp")]
    np.testing.assert_allclose(found, nodes["heads"].values.reshape(-1), atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_on_the_whole_line_the_edges_of_the_embedding_add_up_to_the_difference(family):
    hf = build(family)
    scores = edges(hl.load(hf), CLEAN, DIRTY, method="eap-ig", steps=100, **ANSWERED)
    with torch.no_grad():
        expected = float(passed(hf, DIRTY, {}) - passed(hf, CLEAN, {}))
    assert float(np.nansum(scores.sel(sender="embed").values)) == pytest.approx(expected, abs=1e-3)


def test_one_step_on_the_line_is_the_gradient_half_way():
    hf = build("gpt2")
    scores = edges(hl.load(hf), CLEAN, DIRTY, method="eap-ig", steps=1, **ANSWERED)
    streams = [reference(hf, torch.tensor([ids]))["L0.resid_pre"] for ids in (CLEAN, DIRTY)]
    leaf = torch.zeros(1, len(CLEAN), 32, requires_grad=True)
    run = Split(hf, {"L1H2.v": leaf})
    x = (streams[0] + streams[1]) / 2
    for layer, block in enumerate(run.get(run.arch.blocks)):
        x = run.block(block, x, layer)
    run.unembed(x)
    grad = torch.autograd.grad(run.values["logits"][0, -1, RIGHT] - run.values["logits"][0, -1, WRONG], leaf)[0]
    expected = float((changes("gpt2", hf)["L0.mlp"] * grad).sum())
    assert float(scores.sel(sender="L0.mlp", receiver="L1H2.v")) == pytest.approx(expected, abs=1e-5)


def test_pairs_are_averaged_and_kept_whatever_the_passes():
    model = hl.load(build("llama"))
    pairs = [([8, 12, 25, 9], [8, 14, 25, 10]), ([7, 9, 30, 31], [7, 9, 33, 31]), ([5, 6, 7, 8], [5, 9, 7, 8])]
    clean, corrupt = [a for a, _ in pairs], [b for _, b in pairs]
    answers = dict(answer=[11, 12, 13], wrong=[17, 18, 19])
    found = edges(model, clean, corrupt, rows=2, **answers)
    alone = np.stack([edges(model, a, b, answer=11 + i, wrong=17 + i).values for i, (a, b) in enumerate(pairs)])
    np.testing.assert_allclose(found.examples, alone, atol=1e-5)
    np.testing.assert_allclose(found.values, alone.mean(0), atol=1e-5)


def test_a_function_of_the_logits_is_a_metric():
    model = hl.load(build("gpt2"))
    by_name = edges(model, CLEAN, DIRTY, **ANSWERED)
    by_hand = edges(model, CLEAN, DIRTY, lambda logits: logits[:, RIGHT] - logits[:, WRONG])
    np.testing.assert_allclose(by_hand.values, by_name.values, atol=1e-6)


@pytest.mark.parametrize(("family", "given", "word"), [
    ("gpt2", dict(method="exact"), "eap-ig"), ("gpt2", dict(steps=0), "steps=0"), ("gpt2", dict(hold="mlps"), "patterns"),
    ("gpt2", dict(corrupt=CLEAN[:-1]), "one length"), ("opt_postnorm", {}, "norm"), ("bert", {}, "norm"),
    ("gpt2", dict(answer=None, wrong=None), "metric=")], ids=lambda value: str(value))
def test_what_cannot_be_done_is_refused(family, given, word):
    options = {"corrupt": DIRTY, **ANSWERED, **given}
    with pytest.raises(AttributionError, match=word):
        edges(hl.load(build(family)), CLEAN, **options)
