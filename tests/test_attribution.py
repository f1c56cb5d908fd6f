"""Attribution: held gradients, targets inside the model, checks against exact effects, sums that must come out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from oracle import BATCH, CLEAN, DIRTY, OTHERS, RAGGED, RIGHT, WRONG, Oracle, draws
from reference import Run, reference
from tiny_models import TEXT_ONLY, build
from torch import Tensor

import hooklab as hl
from hooklab.analysis.attribute import AttributionError, attribute, checked
from hooklab.analysis.rank_agreement import agreement
from hooklab.errors import HooklabError
from hooklab.problems import SpecError
from hooklab.records import Scores
from hooklab.sae import Dictionary

ANSWERED: dict[str, Any] = dict(answer=RIGHT, wrong=WRONG)
HEADED = tuple(name for name in TEXT_ONLY if not name.endswith("_base"))
ADDITIVE = tuple(name for name in HEADED if name not in ("gemma2", "opt_postnorm", "bert"))
"""Families whose writes reach the logits through one norm and nothing else."""


class Leafed(Run):
    """A pass with sites as leaves, and with divisors or patterns taken out of the graph."""

    def __init__(self, model: Any, leaves: tuple[str, ...] = (), hold: tuple[str, ...] = (),
                 put: dict[str, Tensor] | None = None) -> None:
        super().__init__(model, {})
        self.leaves, self.hold, self.inside, self.put = leaves, hold, False, put or {}

    def site(self, name: str, value: Tensor) -> Tensor:
        value = self.put.get(name, value)
        if "patterns" in self.hold and name.endswith(".pattern"):
            value = value.detach()
        if name in self.leaves:
            value = value.detach().clone().requires_grad_()
        return super().site(name, value)

    def normed_heads(self, attn: Any, name: str, x: Tensor) -> Tensor:
        self.inside = True
        x = super().normed_heads(attn, name, x)
        self.inside = False
        return x

    def norm(self, module: Any, x: Tensor, kind: str, name: str | None = None) -> Tensor:
        if "norms" not in self.hold or self.inside:
            return super().norm(module, x, kind, name)
        eps = getattr(module, "eps", None) or getattr(module, "variance_epsilon", 0.0)
        centred = x - x.mean(-1, keepdim=True) if kind == "layer" else x
        divisor = ((centred**2).mean(-1, keepdim=True) + eps).sqrt().detach()
        out = centred / divisor * (1 + module.weight if kind == "rms1" else module.weight)
        out = out if getattr(module, "bias", None) is None else out + module.bias
        return out if name is None else self.site(name, out)

    def unembed(self, x: Tensor) -> None:
        self.inside = self.config.model_type == "bert"  # the norm of its head is behind the stream
        super().unembed(x)


def passed(hf: Any, ids: Any, leaves: tuple[str, ...] = (), hold: tuple[str, ...] = (),
           put: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Every site of a pass."""
    run = Leafed(hf, leaves, hold, put)
    x = run.embed(torch.tensor(ids if isinstance(ids[0], list) else [ids]))
    for layer, block in enumerate(run.get(run.arch.blocks)):
        x = run.block(block, x, layer)
    run.unembed(x)
    return run.values


def diff(values: dict[str, Tensor]) -> Tensor:
    return values["logits"][:, -1, RIGHT] - values["logits"][:, -1, WRONG]


def products(hf: Any, sites: tuple[str, ...], hold: tuple[str, ...] = (), target: Any = diff,
             ids: Any = CLEAN) -> list[Tensor]:
    """Value times gradient of sites, with one site a leaf at a time."""
    found = []
    for site in sites:
        values = passed(hf, ids, (site,), hold)
        grad = torch.autograd.grad(target(values).sum(), values[site], allow_unused=True)[0]
        found.append(values[site].detach() * (0.0 if grad is None else grad))
    return found


# What is held ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hold", [("norms",), ("patterns",), ("norms", "patterns")], ids=" and ".join)
@pytest.mark.parametrize("family", HEADED)
def test_held_gradients_are_those_of_a_pass_with_constants(family, hold):
    hf = build(family)
    sites = ("embed", "L0.attn_out", "L0.mlp_out", "L1.attn_out")
    found = attribute(hl.load(hf), CLEAN, sites, positions="each", hold=hold, **ANSWERED)
    expected = torch.stack([product.sum((0, 2)) for product in products(hf, sites, hold)])
    np.testing.assert_allclose(found.values, expected.numpy(), atol=1e-4, rtol=1e-3)
    plain = torch.stack([product.sum((0, 2)) for product in products(hf, sites)])
    assert not np.allclose(expected.numpy(), plain.numpy(), atol=1e-4)


def test_what_is_behind_held_patterns_gets_nothing():
    model = hl.load(build("qwen3"))
    found = attribute(model, CLEAN, ["L1.q", "L1.k", "L1.rot_q", "L1.scores", "L1.v"], hold="patterns", **ANSWERED)
    assert found.values[:4].tolist() == [0, 0, 0, 0]
    assert abs(found.values[4]) > 1e-4


def test_a_held_site_can_be_attributed_itself():
    hf = build("gpt2")
    found = attribute(hl.load(hf), CLEAN, ["L1.pattern", "L1.ln2_scale"], hold="all", **ANSWERED)
    expected = [float(product.sum()) for product in products(hf, ("L1.pattern",), ("norms", "patterns"))]
    assert found.values[0] == pytest.approx(expected[0], abs=1e-5)
    assert abs(found.values[1]) > 1e-5


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "phi3", "qwen3"])
def test_without_mlps_the_held_gradient_is_the_exact_effect_of_ablation(family):
    hf = build(family)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if any(part in name for part in ("mlp.c_proj", "mlp.down_proj", "mlp.dense_4h_to_h")):
                parameter.zero_()
    found = attribute(hl.load(hf), CLEAN, "L*H*", hold=("norms", "patterns"), **ANSWERED)
    values = reference(hf, torch.tensor([CLEAN]))
    fixed = {name: (lambda x, value=value: value) for name, value in values.items() if name.endswith(("_scale", "pattern"))}
    for layer in range(2):
        for head in range(4):
            keep = torch.ones(4).index_fill(0, torch.tensor([head]), 0.0)[:, None]
            without = reference(hf, torch.tensor([CLEAN]),
                                edits={**fixed, f"L{layer}.result": lambda x, keep=keep: x * keep})
            assert float(diff(values) - diff(without)) == pytest.approx(found.values[layer, head], abs=2e-5)


def test_values_keep_their_bits_and_norms_their_code():
    hf = build("gemma2")
    model = hl.load(hf)
    before = [dict(vars(module)) for module in hf.modules()]
    text = "prompt {clean}\nanswer {right} vs {wrong}\nmetric logprob\nattribute L*.mlp with grad%s\nsave logits\n"
    given = dict(clean=CLEAN, right=RIGHT, wrong=WRONG)
    plain, held = (model.run(text % option, **given) for option in ("", " hold=all"))
    assert torch.equal(plain["main.logits"], held["main.logits"])
    assert not np.allclose(plain.scores["main.attribute"].values, held.scores["main.attribute"].values, atol=1e-5)
    after = [dict(vars(module)) for module in hf.modules()]
    assert [{k: v for k, v in one.items() if k == "forward"} for one in before] == [
        {k: v for k, v in one.items() if k == "forward"} for one in after]


# Targets ---------------------------------------------------------------------------------------------------------------

SAE = Dictionary(draws(32, 40, seed=31), draws(40, seed=32).abs() + 6, draws(40, 32, seed=33), draws(32, seed=34))
DIRECTION = draws(32, seed=35)
TARGETS: dict[str, tuple[Any, Any]] = {
    "a cell of attention": ("L1H2.pattern[4,2]", lambda v: v["L1.pattern"][:, 2, 4, 2]),
    "a cell of attention counted from the end": ("L1H2.scores[-1,0]", lambda v: v["L1.scores"][:, 2, 5, 0]),
    "a neuron": ("L1N17 @3", lambda v: v["L1.mlp_post"][:, 3, 17]),
    "a neuron at the last token": ("L1N17", lambda v: v["L1.mlp_post"][:, 5, 17]),
    "a neuron before its nonlinearity": ("L1N17.mlp_pre @last", lambda v: v["L1.mlp_pre"][:, 5, 17]),
    "a dimension of the stream": ("L1.resid_post[5] @2", lambda v: v["L1.resid_post"][:, 2, 5]),
    "a dimension of a head's query": ("L1H3.q[2] @4", lambda v: v["L1.q"][:, 4, 3, 2]),
    "a direction": (("L1.resid_pre @4", DIRECTION), lambda v: v["L1.resid_pre"][:, 4] @ DIRECTION),
    "a direction of an array": (("L1.resid_pre", DIRECTION.numpy()), lambda v: v["L1.resid_pre"][:, 5] @ DIRECTION),
    "a function of all positions": (("L1H1.z", lambda x: x.square().sum((1, 2, 3))),
                                    lambda v: v["L1.z"][:, :, 1].square().sum((1, 2))),
    "a function of some positions": (("L1.mlp_post @[1,4]", lambda x: x[:, 0, 3] * x[:, 1, 3]),
                                     lambda v: v["L1.mlp_post"][:, 1, 3] * v["L1.mlp_post"][:, 4, 3]),
    "a function of a pattern": (("L1H2.pattern", lambda x: x[:, 3, 0, :2].sum(-1)),
                                lambda v: v["L1.pattern"][:, 2, 3, :2].sum(-1)),
    "a feature of a dictionary": (("L1.resid_mid @3", SAE, 7), lambda v: SAE.encode(v["L1.resid_mid"])[:, 3, 7]),
}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", TARGETS)
def test_an_activation_is_a_target(family, name):
    hf = build(family)
    target, read = TARGETS[name]
    sites = ("embed", "L0.attn_out", "L0.mlp_out")
    found = attribute(hl.load(hf), CLEAN, sites, positions="each", target=target)
    expected = torch.stack([product.sum((0, 2)) for product in products(hf, sites, target=read)])
    assert float(expected.abs().max()) > 1e-4
    np.testing.assert_allclose(found.values, expected.numpy(), atol=2e-5, rtol=1e-3)


def test_a_feature_of_an_attached_dictionary_is_a_target_in_a_cell():
    hf = build("gpt2")
    found = hl.load(hf).run("prompt {clean}\nanswer {right}\nsae enc = {sae} at L1.resid_mid\n"
                            'attribute L0H* with grad target="enc.F7 @3"\n', clean=CLEAN, right=RIGHT, sae=SAE)
    product = products(hf, ("L0.result",), target=lambda v: SAE.encode(v["L1.resid_mid"])[:, 3, 7])[0]
    np.testing.assert_allclose(found.scores["main.attribute"].values, product.sum((0, 1, 3)).numpy(), atol=1e-5)


def test_a_dictionary_of_the_user_s_has_gradients_too():
    class Mine:
        n_features = 40

        def encode(self, x: Tensor) -> Tensor:
            return SAE.encode(x)

        def decode(self, f: Tensor) -> Tensor:
            return SAE.decode(f)

    model = hl.load(build("gpt2"))
    text = 'prompt {clean}\nanswer {right}\nsae enc = {sae} at L1.resid_mid\nattribute L0H* target="enc.F7 @3"\n'
    mine, ours = (model.run(text, clean=CLEAN, right=RIGHT, sae=sae).scores["main.attribute"] for sae in (Mine(), SAE))
    np.testing.assert_array_equal(mine.values, ours.values)


def test_targets_take_other_methods_and_models_without_a_head():
    hf = build("gpt2_base")
    found = attribute(hl.load(hf), CLEAN, "embed", target="L1N17 @3", method="ig", source=DIRTY, steps=200)
    clean, dirty = (reference(hf, torch.tensor([ids])) for ids in (CLEAN, DIRTY))
    other = passed(hf, CLEAN, put={"embed": dirty["embed"]})
    assert float(found) == pytest.approx(float((clean["L1.mlp_post"] - other["L1.mlp_post"])[0, 3, 17].detach()), abs=1e-3)


@pytest.mark.parametrize(("family", "sites", "target", "word"), [
    ("gpt2", "L1.mlp", "L1H2.pattern[4,2]", "no influence"), ("gpt2", "L1H2.v", "L1H2.pattern[4,2]", "no influence"),
    ("gpt2", "L1.q", "L1H2.k[3] @2", "no influence"), ("gpt2", "logits", "L1N3 @2", "no influence"),
    ("gptj", "L0H*", "L0N3 @2", "no influence"), ("gpt_neox", "L0.ln1", "L0N3 @2", "no influence"),
    ("gpt2", "L0H1", "L1H2.pattern[2,4]", "key comes after its query"), ("gpt2", "L0H1", "L1H2.pattern", "0 positions"),
    ("gpt2", "L0H1", "L1.pattern[3,2]", "one head"), ("gpt2", "L0H1", "L1.resid_post", "no single number"),
    ("gpt2", "L0H1", "L*N3", "names 2"), ("gpt2", "L0H1", "L1N[3,4]", "no single number"),
    ("gpt2", "L0H1", "L1N3 @each", "one number"), ("gpt2", "L0H1", "L1N3 @0:2", "names 2"),
    ("gpt2", "L0H1", "L1N999", "999"), ("gpt2", "L0H1", "L1H2.pattern[4,9]", "9"),
    ("gpt2", "L0H1", "foo(", "no place"), ("gpt2", "L0H1", "L1.nonsense", "nonsense"), ("gpt2", "L0H1", 3, "no target"),
    ("gpt2", "L0H1", ("L1.resid_pre", "text"), "direction or a function"),
    ("gpt2", "L0H1", ("L1.resid_pre", draws(7)), "shape"), ("gpt2", "L0H1", ("L1.resid_pre", SAE, "7"), "feature number"),
    ("gpt2", "L0H1", ("L1.resid_pre", lambda x: x), "numbers for 1"),
    ("gpt2", "L0H1", ("L1.resid_pre", lambda x: 1 / 0), "failed"),
    ("gpt2", "L0H1", ("L1.resid_pre", lambda x: 1.0), "no gradient"),
], ids=lambda value: str(value)[:40])
def test_targets_that_cannot_be(family, sites, target, word):
    with pytest.raises(SpecError, match=word):
        attribute(hl.load(build(family)), CLEAN, sites, target=target)


def test_tokens_after_the_target_are_refused_and_count_nothing():
    model = hl.load(build("gpt2"))
    with pytest.raises(SpecError, match="earlier token"):
        attribute(model, CLEAN, "L0.mlp", positions="last", target="L1N3 @2")
    found = attribute(model, CLEAN, "L0.mlp", positions="each", target="L1N3 @2")
    assert found.values[3:].tolist() == [0, 0, 0]
    assert abs(found.values[:3]).min() > 0


@pytest.mark.parametrize("family", ["gptj", "falcon", "bloom"])
def test_what_does_matter_in_one_layer_is_not_refused(family):
    hf = build(family)
    site = "ln1" if family != "bloom" else "attn_out"
    found = attribute(hl.load(hf), CLEAN, f"L0.{site}", target="L0N3.mlp_pre @4")
    expected = products(hf, (f"L0.{site}",), target=lambda v: v["L0.mlp_pre"][:, 4, 3])[0]
    assert float(found) == pytest.approx(float(expected.sum()), abs=1e-4)


# How wrong it is -------------------------------------------------------------------------------------------------------


def zeroed(o: Oracle, layer: int, head: int, at: Any = None) -> float:
    """The exact effect of a head."""
    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, slice(None) if at is None else at, head] = 0.0
        return x

    whole, without = (o.logits("clean", edits)[0, -1] for edits in ({}, {f"L{layer}.result": edit}))
    return float((whole - without)[RIGHT] - (whole - without)[WRONG])


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neo"])
def test_the_check_has_the_exact_effect_of_every_cell(family):
    o = Oracle(family)
    approx, exact = checked(hl.load(o.hf), CLEAN, "L*H*", positions="each", check=True, **ANSWERED)
    assert exact is not None
    expected = [[[zeroed(o, layer, head, at) for at in range(6)] for head in range(4)] for layer in range(2)]
    np.testing.assert_allclose(exact.values, expected, atol=2e-5)
    found = agreement(approx, exact)
    assert found.cells == 48
    assert found.correlation == pytest.approx(np.corrcoef(approx.values.ravel(), exact.values.ravel())[0, 1])
    assert f"correlation {found.correlation:.2f}" in approx.note
    assert "zeroing" in approx.note
    assert approx.axes == exact.axes


@pytest.mark.parametrize("method", ["patch", "ig"])
def test_with_a_source_the_check_patches(method):
    o = Oracle("llama")
    _, exact = checked(hl.load(o.hf), CLEAN, ["L*.attn", "L*.mlp"], method=method, source=DIRTY, check=True, **ANSWERED)
    expected = []
    for site in ("L0.attn_out", "L1.attn_out", "L0.mlp_out", "L1.mlp_out"):
        value = o("dirty")[site]
        patched = o.logits("clean", {site: lambda x, value=value: value})
        change = (patched - o.logits("clean"))[0, -1]
        expected.append(float(change[RIGHT] - change[WRONG]) * (1 if method == "patch" else -1))
    np.testing.assert_allclose(exact.values, expected, atol=2e-5)


def test_the_check_of_a_target_zeroes_too():
    o = Oracle("gpt2")
    _, exact = checked(hl.load(o.hf), CLEAN, "L0H*", target="L1H2.pattern[4,2]", check=True)
    for head in range(4):
        keep = torch.ones(4).index_fill(0, torch.tensor([head]), 0.0)[:, None]
        change = (o()["L1.pattern"] - o("clean", {"L0.result": lambda x, keep=keep: x * keep})["L1.pattern"])[0, 2, 4, 2]
        assert exact.values[head] == pytest.approx(float(change), abs=1e-5)


def test_the_check_keeps_the_edits_of_its_run():
    o = Oracle("gpt2")
    run = hl.load(o.hf).run("prompt {clean}\nanswer {right} vs {wrong}\nmetric logit_diff\nzero L0.mlp\n"
                            "attribute L1H* check=all\n", clean=CLEAN, right=RIGHT, wrong=WRONG)
    for head in range(4):
        keep = torch.ones(4).index_fill(0, torch.tensor([head]), 0.0)[:, None]
        edits = {"L0.mlp_out": torch.zeros_like}
        change = (o.logits("clean", edits) - o.logits("clean", {**edits, "L1.result": lambda x, keep=keep: x * keep}))[0, -1]
        found = run.scores["hooked.attribute_exact"].values[head]
        assert found == pytest.approx(float(change[RIGHT] - change[WRONG]), abs=2e-5)


def test_a_part_of_the_cells_is_drawn_by_the_seed():
    model = hl.load(build("gpt2"))
    found = [checked(model, BATCH, "L*H*", positions="each", check=10, seed=seed, **ANSWERED)[1] for seed in (0, 0, 1)]
    whole = checked(model, BATCH, "L*H*", positions="each", check=True, **ANSWERED)[1]
    there = [np.isfinite(scores.values) for scores in found]
    assert [int(one.sum()) for one in there] == [10, 10, 10]
    assert (there[0] == there[1]).all()
    assert (there[0] != there[2]).any()
    np.testing.assert_allclose(found[0].values[there[0]], whole.values[there[0]], atol=1e-5)


@pytest.mark.parametrize("method", ["grad", "ig"])
def test_the_estimate_and_the_exact_effect_agree_where_the_model_is_linear_in_the_place(method):
    approx, exact = checked(hl.load(build("opt")), CLEAN, "L1.resid_post", metric=lambda x: x.sum(-1) * 0 + x[:, RIGHT],
                            method=method, check=True)
    assert exact.values.shape == ()
    assert np.isfinite(float(exact))
    assert "nan" in approx.note  # one cell has no correlation


def test_agreement_is_that_of_the_cells_that_both_have():
    x = np.array([[1.0, -2.0, 3.0], [0.5, 0.5, np.nan]])
    y = np.array([[10.0, -5.0, 2.0], [-1.0, np.nan, 4.0]])
    found = agreement(Scores(x, ("layer", "head")), Scores(y, ("layer", "head")))
    assert found.cells == 4
    assert found.correlation == pytest.approx(np.corrcoef([1, -2, 3, 0.5], [10, -5, 2, -1])[0, 1])
    assert found.rank_correlation == pytest.approx(np.corrcoef([3, 1, 4, 2], [4, 1, 3, 2])[0, 1])
    assert found.signs == 0.75
    assert found.error == pytest.approx((9 + 3 + 1 + 1.5) / 18)


def test_equal_numbers_share_their_rank_and_rounding_has_no_sign():
    x, y = np.array([1.0, 1.0, 2.0, 1e-9, 0.0]), np.array([1.0, 2.0, 3.0, -1e-9, 0.0])
    found = agreement(Scores(x, ("head",)), Scores(y, ("head",)))
    assert found.rank_correlation == pytest.approx(np.corrcoef([3.5, 3.5, 5, 2, 1], [3, 4, 5, 1, 2])[0, 1])
    assert found.signs == 1.0


def test_an_estimate_of_the_wrong_size_has_an_error_where_correlations_see_none():
    """The final norm forgets how long the last stream is, so its gradient says nothing of taking it away."""
    approx, exact = checked(hl.load(build("gpt2")), CLEAN, "L1.resid_post", positions="each", check=True, **ANSWERED)
    found = agreement(approx, exact)
    assert np.abs(approx.values).max() < 1e-4 < np.abs(exact.values).max()
    assert found.error == pytest.approx(1, abs=1e-3)
    assert "error 100 %" in approx.note


def test_scores_of_other_cells_are_not_compared():
    with pytest.raises(HooklabError, match="not over the same cells"):
        agreement(Scores(np.zeros((2, 3)), ("layer", "head")), Scores(np.zeros((2, 3)), ("layer", "pos")))


# Sums ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ADDITIVE)
def test_direct_effects_embeddings_and_biases_are_the_logit_difference(family):
    hf = build(family)
    model = hl.load(hf)
    positions = ["pos_embed"] if model.sites.missing("pos_embed") is None else []
    found = attribute(model, CLEAN, ["L*.attn", "L*.mlp", "embed", *positions], method="dla", **ANSWERED)
    values = reference(hf, torch.tensor([CLEAN]))
    nothing = {"ln_final_scale": lambda x: values["ln_final_scale"], "L1.resid_post": torch.zeros_like}
    biases = diff(reference(hf, torch.tensor([CLEAN]), edits=nothing))  # what the final norm and the unembedding add
    assert float(found.values.sum()) + float(biases) == pytest.approx(float(diff(values)), abs=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "falcon_new", "mixtral", "opt"])
def test_heads_and_the_bias_of_their_projection_are_attention(family):
    model = hl.load(build(family))
    heads = attribute(model, CLEAN, "L*H*", method="dla", **ANSWERED).values.sum(1)
    whole = attribute(model, CLEAN, "L*.attn", method="dla", **ANSWERED).values
    bias = model.W.b_O[:]
    unembedding = (model.W.U[:, RIGHT] - model.W.U[:, WRONG]) * model.W.ln_final
    if model.layout.family.norm == "layer":
        bias = bias - bias.mean(-1, keepdim=True)
    scale = reference(model.hf, torch.tensor([CLEAN]))["ln_final_scale"][0, -1]
    np.testing.assert_allclose(heads + (bias @ unembedding / scale).detach().numpy(), whole, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2", "bert"])
def test_tokens_on_the_line_from_another_prompt_add_up_to_the_difference(family):
    o = Oracle(family)
    found = attribute(hl.load(o.hf), CLEAN, "embed", positions="each", method="ig", source=DIRTY, steps=200, **ANSWERED)
    other = o.logits("clean", {"embed": lambda x: o("dirty")["embed"]})[0, -1]
    whole = o.logits("clean")[0, -1]
    assert float(found.values.sum()) == pytest.approx(float((whole - other)[RIGHT] - (whole - other)[WRONG]), abs=1e-3)
    same = [position for position in range(6) if CLEAN[position] == DIRTY[position]]
    assert np.abs(found.values[same]).max() == 0


def test_tokens_on_the_line_from_zero_add_up_too():
    o = Oracle("gpt2")
    found = attribute(hl.load(o.hf), CLEAN, "embed", positions="each", method="ig", steps=400, **ANSWERED)
    change = (o.logits("clean") - o.logits("clean", {"embed": torch.zeros_like}))[0, -1]
    assert float(found.values.sum()) == pytest.approx(float(change[RIGHT] - change[WRONG]), abs=1e-3)


def test_the_error_of_the_line_falls_with_the_square_of_its_steps():
    o = Oracle("llama")
    whole = o.logits("clean")[0, -1] - o.logits("clean", {"embed": lambda x: o("dirty")["embed"]})[0, -1]
    errors = [abs(float(attribute(hl.load(o.hf), CLEAN, "embed", method="ig", source=DIRTY, steps=steps, **ANSWERED))
                  - float(whole[RIGHT] - whole[WRONG])) for steps in (10, 40)]
    assert errors[1] < errors[0] / 8


@pytest.mark.parametrize("hold", [(), ("norms",)], ids=["plain", "norms held"])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "opt"])
def test_gradients_are_finite_differences(family, hold):
    hf = build(family, dtype=torch.float64)
    found = attribute(hl.load(hf), CLEAN, ["embed", "L0.mlp_out", "L1.attn_out"], positions="each", hold=hold, **ANSWERED)
    values, small = passed(hf, CLEAN), 1e-5
    fixed = {name: value for name, value in values.items() if hold and name.endswith("_scale")}
    with torch.no_grad():
        for i, site in enumerate(("embed", "L0.mlp_out", "L1.attn_out")):
            for position in (0, 3, 5):
                ends = []
                for sign in (1, -1):
                    scaled = values[site].clone()
                    scaled[:, position] *= 1 + sign * small
                    edits = {name: (lambda x, value=value: value) for name, value in {**fixed, site: scaled}.items()}
                    out = reference(hf, torch.tensor([CLEAN]), edits=edits)
                    ends.append(float(diff(out)))
                slope = (ends[0] - ends[1]) / (2 * small)
                assert found.values[i, position] == pytest.approx(slope, abs=1e-7, rel=1e-6)


# As a function and as text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    dict(answer=RIGHT), dict(metric="logprob", answer=RIGHT), dict(metric=lambda x: x[:, 3] * x[:, 4]),
    dict(method="patch", source=DIRTY, **ANSWERED), dict(method="ig", steps=3, **ANSWERED), dict(method="dla", **ANSWERED),
    dict(metric="kl", source=DIRTY, method="ig", steps=3), dict(target="L1N3 @2", hold="all", check=2),
    dict(target=("L1.resid_pre", DIRECTION)), dict(metric="logit_diff - 2 * entropy", **ANSWERED)],
    ids=["logit", "logprob", "a function", "patch", "ig", "dla", "kl", "a target", "a direction", "an expression"])
def test_the_spec_of_the_scores_gives_the_scores(options):
    model = hl.load(build("gpt2"))
    scores = attribute(model, CLEAN, ["L0H*", "embed"], **options)
    from hooklab.analysis.attribute import written

    asked = written(CLEAN, ["L0H*", "embed"], options.pop("metric", None), **options)
    assert asked.text == scores.spec
    again = model.run(scores.spec, values=asked.values).scores["attributed.attribute"]
    np.testing.assert_array_equal(again.values, scores.values)
    assert str(hl.parse(scores.spec)) == scores.spec


def test_several_prompts_are_averaged_whatever_their_lengths():
    model = hl.load(build("llama"))
    for prompts in (BATCH, RAGGED, OTHERS):
        found = attribute(model, prompts, ["L*.mlp", "embed"], **ANSWERED)
        alone = [attribute(model, prompt, ["L*.mlp", "embed"], **ANSWERED).values for prompt in prompts]
        np.testing.assert_allclose(found.values, np.mean(alone, 0), atol=1e-5)


def test_a_function_is_given_the_logits_of_the_last_token():
    model = hl.load(build("llama"))
    by_hand = attribute(model, RAGGED, "L*H*", lambda x: x[:, RIGHT] - x[:, WRONG], check=True)
    by_name = attribute(model, RAGGED, "L*H*", check=True, **ANSWERED)
    np.testing.assert_allclose(by_hand.values, by_name.values, atol=1e-6)
    assert by_hand.note.partition(";")[2] == by_name.note.partition(";")[2]


@pytest.mark.parametrize(("options", "word"), [
    (dict(method="gradient"), "grad"), (dict(method="patch"), "source="), (dict(hold="pattern"), "patterns"),
    (dict(answer=None), "answer="), (dict(answer=None, wrong=None), "target="), (dict(sites=[]), "empty")],
    ids=lambda value: str(value)[:30])
def test_what_is_not_asked_well_is_refused(options, word):
    given = {"sites": "L*H*", **ANSWERED, **options}
    with pytest.raises(AttributionError, match=word):
        attribute(hl.load(build("gpt2")), CLEAN, given.pop("sites"), **given)


@pytest.mark.parametrize(("line", "word"), [
    ("attribute L0H1 with dla hold=norms", "final norm anyway"), ("attribute L0H1 with grad from dirty", "no other run"),
    ("attribute L0H1 check=0", "1 or more"), ("attribute L0H1 check=some", "all"), ("attribute L0H1 seed=3", "check="),
    ("attribute L0H1 hold=scores", "norms"), ("attribute L0H1 to logit_diff target=\"L1N3\"", "at once"),
    ("attribute L0.resid_pre with dla target=\"L1N3\"", "to logits"),
    ("zero each L*.mlp\n    attribute L0H1 check=2", "swept")])
def test_lines_that_cannot_be(line, word):
    text = "prompt clean = {clean}\nprompt dirty = {dirty}\nanswer {right} vs {wrong}\nmetric logit_diff\n"
    text += "run on clean:\n    "
    with pytest.raises(SpecError, match=word):
        hl.load(build("gpt2")).run(text + line + "\n", clean=CLEAN, dirty=DIRTY, right=RIGHT, wrong=WRONG)
