"""What happens when values are patched, scaled or taken out: outcomes of patching, heads and neurons, by hand."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import planted
import pytest
import torch
from reference import reference
from tiny_models import build

import hooklab as hl
from hooklab.analysis import surgery
from hooklab.analysis.ablating import ablated_heads
from hooklab.analysis.asking import SweepError
from hooklab.analysis.mass import attention_mass
from hooklab.analysis.merging import head_redundancy, merge_effect
from hooklab.analysis.outcomes import patching_metrics
from hooklab.analysis.pruning import prune
from hooklab.analysis.readwrite import heads_for_share
from hooklab.analysis.scaling import scale_neuron
from hooklab.analysis.sparseness import weight_polysemanticity
from hooklab.analysis.watching import AttentionError
from hooklab.errors import LayerError, RecordError, SiteError
from hooklab.records import Scores

FAMILIES = ("gpt2", "llama", "gpt_neox", "gemma2", "phi3")
RAGGED = [[8, 12, 25, 9, 12, 30], [9, 12, 30], [8, 13, 25, 9]]
BASE, CLEAN = [[8, 12, 25, 9], [5, 6]], [[8, 14, 27, 9], [7, 6]]
RIGHT, WRONG = 11, 17


@cache
def opened(family: str) -> Any:
    return hl.load(build(family), verify=False)


@cache
def source(family: str) -> Any:
    return build(family)


def by_hand(family: str, ids: list[int], edits: dict[str, Any] | None = None) -> dict[str, torch.Tensor]:
    return reference(source(family), torch.tensor([ids]), edits=edits or {})


def last(values: dict[str, torch.Tensor]) -> torch.Tensor:
    return values["logits"][0, -1].double()


def five(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 5]


# What patching does ------------------------------------------------------------------------------------------------------


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    a, b = p.softmax(-1), q.softmax(-1)
    return float((a * (a / b).log()).sum())


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_patching_metrics_of_a_ragged_batch_are_those_of_three_runs_by_hand(family):
    found = patching_metrics(opened(family), BASE, CLEAN, positions="last", answer=RIGHT, wrong=WRONG)
    assert found.axes == ("metric", "layer") and found.examples.shape == (2, 8, 2)
    for pair, (base, clean) in enumerate(zip(BASE, CLEAN, strict=True)):
        one, two = by_hand(family, base), by_hand(family, clean)
        for layer in range(2):
            def patch(x, layer=layer, one=one):
                x = x.clone()
                x[:, -1] = one[f"L{layer}.resid_pre"][:, -1]
                return x

            base_, clean_, patched = last(one), last(two), last(by_hand(family, clean, {f"L{layer}.resid_pre": patch}))
            gap = [float(x[RIGHT] - x[WRONG]) for x in (clean_, patched)]
            expected = {"kl_clean|base": divergence(base_, clean_), "kl_patched|base": divergence(base_, patched),
                        "kl_patched|clean": divergence(clean_, patched),
                        "kl_difference": divergence(base_, patched) - divergence(base_, clean_),
                        "similarity": float(torch.minimum(patched.softmax(-1), base_.softmax(-1)).sum()),
                        "logit_diff_clean": gap[0], "logit_diff_patched": gap[1],
                        "flip": float(np.sign(gap[0]) != np.sign(gap[1]))}
            assert found.coords["metric"] == tuple(expected)
            np.testing.assert_allclose(found.examples[pair, :, layer], list(expected.values()), atol=3e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_patching_a_prompt_with_its_own_activations_diverges_nowhere_flips_nothing_and_is_wholly_similar(family):
    found = patching_metrics(opened(family), CLEAN, CLEAN, "L*.resid_pre", answer=RIGHT, wrong=WRONG)
    values = {name: found.sel(metric=name).values for name in found.coords["metric"]}
    for name in ("kl_clean|base", "kl_patched|base", "kl_patched|clean", "kl_difference"):
        np.testing.assert_allclose(values[name], 0, atol=1e-9)
    np.testing.assert_allclose(values["similarity"], 1, atol=1e-6)
    assert (values["flip"] == 0).all() and (values["logit_diff_patched"] == values["logit_diff_clean"]).all()


def test_patching_metrics_are_tidy_columns_with_intervals_and_patching_everything_gives_the_other_prompt():
    found = patching_metrics(opened("llama"), BASE, CLEAN, "L0.resid_pre")
    assert found.axes == ("metric",) and float(found.sel(metric="kl_patched|base")) == pytest.approx(0, abs=1e-9)
    table = patching_metrics(opened("llama"), BASE, CLEAN, "L*H*", answer=RIGHT, wrong=WRONG).to_pandas()
    assert list(table.columns) == ["metric", "layer", "head", "score", "low", "high"] and len(table) == 8 * 8
    assert (table.low <= table.score + 1e-12).all() and (table.score <= table.high + 1e-12).all()
    assert set(table[table.metric == "flip"].score) <= {0.0, 0.5, 1.0}
    with pytest.raises(SweepError, match="two tokens"):
        patching_metrics(opened("llama"), BASE, CLEAN, answer=RIGHT)


def test_a_path_to_shared_keys_is_patched_as_by_hand():
    ids, other = [5, 6, 7, 8, 9], [5, 6, 17, 8, 19]
    found = hl.path_patch(opened("llama"), ids, other, "L1H1.k", "L0H*", answer=3, wrong=4, normalise=False, mode="noise")
    clean, corrupt = by_hand("llama", ids), by_hand("llama", other)
    for head in range(4):
        def sent(z, head=head):
            z = z.clone()
            z[:, :, head] = corrupt["L0.z"][:, :, head]
            return z

        between = by_hand("llama", ids, {"L0.z": sent})

        def received(k, between=between):
            k = k.clone()
            k[:, :, 1] = between["L1.k"][:, :, 1]
            return k

        after = last(by_hand("llama", ids, {"L1.k": received}))
        expected = float((after[3] - after[4]) - (last(clean)[3] - last(clean)[4]))
        assert found.values[head] == pytest.approx(expected, abs=2e-5)


def test_indirect_effects_peak_at_the_planted_place_in_every_layer_and_without_noise_there_are_none():
    gate = hl.load(planted.gate(source=1, at=3, last=5), verify=False)
    ids = [0, 5, 1, 2, 3, 4]
    traced = hl.causal_trace(gate, ids, "@1", "L*.resid_pre", metric=five, noise=10, samples=4)
    expected = np.zeros((2, 6))
    expected[0, 1] = expected[1, 3] = 1
    np.testing.assert_allclose(traced.values, expected, atol=1e-3)
    effect = hl.causal_trace(gate, ids, "@1", "L*.resid_pre", metric=five, noise=10, samples=4, normalise=False)
    np.testing.assert_allclose(effect.values, traced.values * (traced.ends[1] - traced.ends[0]), atol=1e-5)
    silent = hl.causal_trace(gate, ids, "@1", "L*.resid_pre", metric=five, noise=0, normalise=False)
    assert silent.shape == (2, 6) and np.abs(silent.values).max() < 1e-6
    with pytest.raises(SweepError, match="normalise=False"):
        hl.causal_trace(gate, ids, "@1", metric=five, noise=0)
    for bad in ({"noise": -1}, {"noise": float("nan")}, {"samples": 0}):
        with pytest.raises(SweepError, match="standard deviation"):
            hl.causal_trace(gate, ids, "@1", metric=five, **bad)


# Neurons and heads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_scaling_a_neuron_changes_the_metric_as_it_does_by_hand(family):
    ids = RAGGED[0]
    found = scale_neuron(opened(family), ids, "L1N7", [0, 1, -2.5], "2:", answer=RIGHT, wrong=WRONG)
    assert found.axes == ("factor",) and found.coords["factor"] == (0.0, 1.0, -2.5)
    before = last(by_hand(family, ids))
    for factor in (0.0, 1.0, -2.5):
        def scaled(x, factor=factor):
            x = x.clone()
            x[:, 2:, 7] *= factor
            return x

        after = last(by_hand(family, ids, {"L1.mlp_post": scaled}))
        change = float((after[RIGHT] - after[WRONG]) - (before[RIGHT] - before[WRONG]))
        assert float(found.sel(factor=factor)) == pytest.approx(change, abs=2e-5)


def test_scaling_a_neuron_of_several_prompts_is_the_mean_of_each_alone_with_an_interval():
    several = scale_neuron(opened("llama"), RAGGED, "L0N[3,4]", answer=RIGHT, wrong=WRONG)
    alone = [float(scale_neuron(opened("llama"), ids, "L0N[3,4]", answer=RIGHT, wrong=WRONG)) for ids in RAGGED]
    assert several.axes == () and float(several) == pytest.approx(np.mean(alone), abs=1e-5)
    np.testing.assert_allclose(several.examples, alone, atol=1e-5)
    assert several.low <= several.values <= several.high
    for bad in ([], [float("nan")]):
        with pytest.raises(SweepError, match="finite"):
            scale_neuron(opened("llama"), RAGGED, "L0N3", bad, answer=RIGHT, wrong=WRONG)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "olmo2"])
@pytest.mark.parametrize("by", ["zero", "mean"])
def test_ablated_heads_are_heads_whose_z_is_replaced_and_an_interrupted_block_leaves_nothing_behind(family, by):
    model, ids = opened(family), RAGGED[0]
    before, standing = model.capture([ids], "logits")["logits"], len(model.hooks)
    over = {"over": RAGGED} if by == "mean" else {}
    with pytest.raises(KeyboardInterrupt), ablated_heads(model, ["L0H1", (1, 3)], by, **over):
        inside = model.capture([ids], "logits")["logits"][0, -1].double()
        raise KeyboardInterrupt
    values = [by_hand(family, row) for row in RAGGED]
    edits = {}
    for layer, head in ((0, 1), (1, 3)):
        mean = torch.cat([x[f"L{layer}.z"][0, :, head] for x in values]).mean(0)

        def ablate(z, head=head, mean=mean):
            z = z.clone()
            z[:, :, head] = 0 if by == "zero" else mean
            return z

        edits[f"L{layer}.z"] = ablate
    torch.testing.assert_close(inside, last(by_hand(family, ids, edits)), rtol=1e-4, atol=2e-5)
    assert torch.equal(model.capture([ids], "logits")["logits"], before) and len(model.hooks) == standing


def test_heads_and_neurons_that_cannot_be_taken_out_are_refused_with_what_can():
    model = opened("llama")
    for heads, by, over, error, words in (
            ("L0H9", "zero", None, LayerError, "head 9"), ("L0N3", "zero", None, SiteError, "no neurons"),
            ("L0H1", "means", None, RecordError, "zero or mean"), ("L0H1", "mean", None, RecordError, "over="),
            ("L0H1", "zero", RAGGED, RecordError, "takes no prompts")):
        with pytest.raises(error, match=words), ablated_heads(model, heads, by, over=over):
            pass
    with pytest.raises(SiteError, match="experts"):
        prune(opened("mixtral"), neurons=[(0, 3)])
    with prune(model, heads=(0, 1)) as pruned:
        assert not bool(pruned.W.O[0, 1].any()) and bool(pruned.W.O[1, 0].any())


def test_a_model_with_a_layer_left_out_is_closed_after_an_interruption_and_the_first_one_runs_on_unchanged():
    model, wide = opened("gpt2"), torch.tensor([RAGGED[0]])
    before = model.hf(wide).logits
    for change in (lambda: surgery.delete(model, 0), lambda: surgery.swap(model, 0, 1), lambda: surgery.repeat(model, 1, 3),
                   lambda: surgery.skip(model, 1), lambda: surgery.replace(model, 0, 1)):
        with pytest.raises(KeyboardInterrupt), change() as other:
            assert not torch.equal(other.hf(wide).logits, before)
            raise KeyboardInterrupt
    assert torch.equal(model.hf(wide).logits, before)


def test_heads_that_write_nothing_make_up_no_share():
    assert heads_for_share(Scores(np.zeros((2, 2)), ("layer", "head"))) == []


def test_silent_heads_merge_without_a_change_and_have_no_direction_to_compare():
    model, ids = hl.load(planted.induction(), verify=False), [2, 3, 5, 1, 3]  # L0H0 writes, the other heads of L0 do not
    merged, written = (head_redundancy(model, ids, kind).values[0] for kind in ("merge", "write"))
    assert (merged[1:, 1:] == 1).all() and (merged[0, 1:] < 1).all()
    assert written[0, 0] == pytest.approx(1) and np.isnan(written[1:]).all() and np.isnan(written[0, 1:]).all()
    effect = merge_effect(hl.load(planted.nothing(), verify=False), ids, 0, (0, 1))
    assert float(effect.attn_out) == float(effect.kl) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_identical_neurons_have_the_most_company_there_is_in_every_layout_of_weights(family):
    hf = build(family)
    with torch.no_grad():
        weight = {"gpt2": lambda: hf.transformer.h[1].mlp.c_fc.weight.T,
                  "gpt_neox": lambda: hf.gpt_neox.layers[1].mlp.dense_h_to_4h.weight,
                  "phi3": lambda: hf.model.layers[1].mlp.gate_up_proj.weight[:48]}.get(
                      family, lambda: hf.model.layers[1].mlp.gate_proj.weight)()
        weight[3:9] = weight[3].clone()
    with hl.load(hf, verify=False) as model:
        found = weight_polysemanticity(model, 1, neighbours=5)
    assert found.shape == (128 if family == "gpt2" else 48,)
    np.testing.assert_allclose(found.values[3:9], 1, atol=1e-5)
    assert np.delete(found.values, range(3, 9)).max() < 0.8


def test_thin_attention_can_be_left_out_of_masses():
    pattern = by_hand("llama", RAGGED[0])["L1.pattern"][0].double().numpy()
    found = attention_mass(opened("llama"), RAGGED[0], "all", "1:", above=0.2)
    np.testing.assert_allclose(found.values[1], np.where(pattern > 0.2, pattern, 0)[:, :, 1:].sum(-1).mean(-1), atol=1e-5)
    with pytest.raises(AttentionError, match="share of attention"):
        attention_mass(opened("llama"), RAGGED[0], above=1.5)
