"""What heads write and read, and merging them: against the hand-written transformer, and against heads that were planted."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from reference import reference
from tiny_models import build

import hooklab as hl
from hooklab import Scores
from hooklab.analysis.merging import head_redundancy, merge_effect, merged_heads
from hooklab.analysis.readwrite import heads_for_share, read_heads, write_heads
from hooklab.analysis.watching import AttentionError
from hooklab.errors import LayerError, PositionError
from hooklab.statistics import interval

FAMILIES = ["gpt2", "llama", "gpt_neox", "gemma2", "phi3"]
RAGGED = [[8, 12, 25, 9, 12, 30, 8], [9, 9, 30], [8, 13, 25, 9, 13]]


@cache
def opened(family: str) -> Any:
    return hl.load(build(family), verify=False)


@cache
def values(family: str) -> Any:
    """Every site of each example alone, by the hand-written transformer."""
    return [reference(build(family), torch.tensor([ids])) for ids in RAGGED]


def gpt2_heads(hf: Any, layer: int) -> dict[str, torch.Tensor]:
    """Views of a GPT-2's weights by head: q, k, v [head d_model d_head], their biases, o [head d_head d_model]."""
    attn, n, d = hf.transformer.h[layer].attn, 4, 8
    parts = dict(zip("qkv", attn.c_attn.weight.detach().chunk(3, 1), strict=True))
    biases = dict(zip("qkv", attn.c_attn.bias.detach().chunk(3), strict=True))
    return {**{name: part.unflatten(1, (n, d)).transpose(0, 1) for name, part in parts.items()},
            **{f"b_{name}": part.unflatten(0, (n, d)) for name, part in biases.items()},
            "o": attn.c_proj.weight.detach().unflatten(0, (n, d))}


# Writing ----------------------------------------------------------------------------------------------------------------


def entered(family: str, layer: int, one: Any) -> torch.Tensor:
    """What each head adds to the stream [pos head d_model]; the norm behind attention is the module of `transformers`."""
    result = one[f"L{layer}.result"][0].double()
    if family not in ("gemma2", "olmo2"):
        return result
    norm, whole = build(family).double().model.layers[layer].post_attention_layernorm, result.sum(1)
    with torch.no_grad():
        share = norm(whole) / whole  # these norms multiply each number of a write, whatever else the write holds
    torch.testing.assert_close((result * share[:, None]).sum(1), one[f"L{layer}.attn_out"][0].double(), rtol=1e-4, atol=1e-4)
    return result * share[:, None]


@pytest.mark.parametrize("family", [*FAMILIES, "olmo2"])
def test_write_strength_is_the_mean_length_of_what_each_head_adds(family):
    expected = [[entered(family, layer, one).norm(dim=-1).mean(0).tolist() for layer in range(2)] for one in values(family)]
    scores = write_heads(opened(family), RAGGED)
    np.testing.assert_allclose(scores.examples, expected, rtol=2e-5)
    np.testing.assert_allclose(scores.values, np.mean(expected, 0), rtol=2e-5)
    np.testing.assert_array_equal(scores.low, interval(scores.examples)[0])
    last = write_heads(opened(family), RAGGED, positions="last")
    np.testing.assert_allclose(last.examples[1, 1], entered(family, 1, values(family)[1])[-1].norm(dim=-1), rtol=2e-5)


def test_write_strength_of_weights_alone_is_the_norm_of_the_whole_matrix():
    hf = build("gpt2")
    own = [gpt2_heads(hf, layer) for layer in range(2)]
    expected = [[float(torch.linalg.norm(w["v"][head] @ w["o"][head])) for head in range(4)] for w in own]
    np.testing.assert_allclose(write_heads(opened("gpt2")).values, expected, rtol=1e-5)
    hf = build("llama")  # two query heads share each value
    expected = []
    for block in hf.model.layers:
        v = block.self_attn.v_proj.weight.detach().T.unflatten(1, (2, 8))
        o = block.self_attn.o_proj.weight.detach().T.unflatten(0, (4, 8))
        expected.append([float(torch.linalg.norm(v[:, head // 2] @ o[head])) for head in range(4)])
    np.testing.assert_allclose(write_heads(opened("llama")).values, expected, rtol=1e-5)


def test_write_strength_has_the_number_that_a_model_multiplies_its_writes_by_once():
    hf, kept = build("granite").double(), {}
    for layer, block in enumerate(hf.model.layers):
        block.self_attn.o_proj.register_forward_hook(lambda m, args, out, layer=layer: kept.update({layer: args[0]}))
    with torch.no_grad():
        hf(torch.tensor(RAGGED[:1]))
    expected = []
    for layer, block in enumerate(hf.model.layers):
        w_o = block.self_attn.o_proj.weight.detach().T.unflatten(0, (4, -1))
        writes = torch.einsum("phd,hdm->phm", kept[layer][0].unflatten(-1, (4, -1)), w_o)
        expected.append((writes * hf.config.residual_multiplier).norm(dim=-1).mean(0).tolist())
    assert hf.config.residual_multiplier not in (0, 1)
    np.testing.assert_allclose(write_heads(opened("granite"), RAGGED[:1]).values, expected, rtol=2e-5)


@pytest.mark.parametrize("planted", [(0, 3), (1, 0)])
def test_a_planted_big_head_writes_most(planted):
    hf = build("gpt2")
    with torch.no_grad():
        gpt2_heads(hf, planted[0])["o"][planted[1]].mul_(50)
    with hl.load(hf, verify=False) as model:
        for scores in (write_heads(model, RAGGED), write_heads(model)):
            (best, _), = scores.top(1)
            assert (best["layer"], best["head"]) == planted
            assert heads_for_share(scores, 0.5) == [planted]
            assert all(layer < 2 and head < 4 for layer, head in heads_for_share(scores, 1.0))


def test_heads_for_a_share_are_the_fewest_that_reach_it():
    sizes = np.array([[3.0, 0.5, 2.0], [1.0, 4.0, 0.25]])
    scores = Scores(sizes, ("layer", "head"))
    places = [(layer, head) for layer in range(2) for head in range(3)]
    for share in (0.01, 0.3, 0.38, 0.65, 0.9, 0.999, 1.0):
        found = heads_for_share(scores, share)
        assert sum(sizes[place] for place in found) >= share * sizes.sum() - 1e-9
        assert sum(sizes[place] for place in found[:-1]) < share * sizes.sum()
        assert found == sorted(places, key=lambda place: -sizes[place])[:len(found)]


# Reading ----------------------------------------------------------------------------------------------------------------


def read_by_hand(weights: np.ndarray, gain: np.ndarray, vector: np.ndarray, *, centred: bool) -> np.ndarray:
    """‖W_hᵀ (gain ∘ v)‖ of each head, for weights [head d_model d_head]."""
    seen = vector / np.linalg.norm(vector)
    seen = gain * (seen - seen.mean()) if centred else gain * seen
    return np.array([np.linalg.norm(seen @ head) for head in weights])


@pytest.mark.parametrize("by", ["q", "k", "v"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_heads_read_a_direction_as_their_weights_and_the_norm_before_them_say(family, by):
    hf, vector = build(family), np.random.default_rng(3).normal(size=32)
    draws = torch.randn((300, 32), generator=torch.Generator().manual_seed(9), dtype=torch.float64).numpy()
    scores = read_heads(opened(family), vector, by, draws=300, seed=9)
    for layer in range(2):
        if family == "gpt2":
            weights, norm = gpt2_heads(hf, layer)[by].double().numpy(), hf.transformer.h[layer].ln_1
        else:
            block = hf.model.layers[layer]
            weights = getattr(block.self_attn, f"{by}_proj").weight.detach().double().T.unflatten(1, (-1, 8))
            weights = weights.transpose(0, 1).repeat_interleave(4 // weights.shape[1], 0).numpy()
            norm = block.input_layernorm
        gain = norm.weight.detach().double().numpy()
        own = read_by_hand(weights, gain, vector, centred=family == "gpt2")
        others = np.array([read_by_hand(weights, gain, draw, centred=family == "gpt2") for draw in draws])
        np.testing.assert_allclose(scores.values[layer], own / others.mean(0), rtol=1e-5)
        np.testing.assert_allclose(scores.low[layer], own / np.quantile(others, 0.975, axis=0), rtol=1e-5)
        np.testing.assert_allclose(scores.high[layer], own / np.quantile(others, 0.025, axis=0), rtol=1e-5)
        np.testing.assert_allclose(scores.p[layer], (1 + (others >= own).sum(0)) / 301, atol=1e-12)


def test_a_planted_reader_is_found_and_no_other_head_is():
    hf, vector = build("gpt2"), torch.randn(32, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        own = gpt2_heads(hf, 1)["k"]
        own[2] += 3 * torch.outer(vector / hf.transformer.h[1].ln_1.weight, torch.eye(8)[5])
    with hl.load(hf, verify=False) as model:
        scores = read_heads(model, vector, "k")
        assert scores.top(1)[0][0] == {"layer": 1, "head": 2}
        assert scores.low[1, 2] > 1 and scores.p[1, 2] == pytest.approx(1 / 201)
        others = np.delete(scores.values.ravel(), 6)
        assert others.max() < 2 < scores.values[1, 2]
        assert read_heads(model, vector, "q").values.max() < 2, "it reads with its keys alone"


def test_a_dimension_is_read_as_its_unit_vector_and_length_does_not_count():
    model = opened("llama")
    np.testing.assert_array_equal(read_heads(model, 5).values, read_heads(model, 7 * torch.eye(32)[5]).values)
    np.testing.assert_array_equal(read_heads(model, -27).values, read_heads(model, 5).values)
    assert read_heads(model, 5) == read_heads(model, 5) and read_heads(model, 5, seed=1) != read_heads(model, 5)


def test_what_no_head_can_see_is_read_by_none():
    scores = read_heads(opened("gpt2"), torch.ones(32), "q")  # LayerNorm takes the mean away
    np.testing.assert_allclose(scores.values, 0, atol=1e-6)


# Redundancy -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["pattern", "write", "merge"])
def test_redundancy_is_what_pairs_of_heads_have_in_common(family, kind):
    scores = head_redundancy(opened(family), RAGGED, kind)
    hf = build(family)
    for example, one in enumerate(values(family)):
        for layer in range(2):
            result = one[f"L{layer}.result"][0].double()
            pattern, writes = one[f"L{layer}.pattern"][0].double().numpy(), entered(family, layer, one).numpy()
            share = torch.nan_to_num(entered(family, layer, one)[:, 0] / result[:, 0], nan=1.0).numpy()  # of each number
            for a in range(4):
                for b in range(4):
                    if kind == "pattern":
                        expected = 1 - np.mean(np.abs(pattern[a] - pattern[b]).sum(-1)) / 2
                    elif kind == "write":
                        expected = np.mean([x @ y / np.linalg.norm(x) / np.linalg.norm(y)
                                            for x, y in zip(writes[:, a], writes[:, b], strict=True)])
                    else:
                        pair = [a, b]

                        def blend(z, pair=pair):
                            z = z.clone()
                            z[:, :, pair] = z[:, :, pair].mean(2, keepdim=True)
                            return z

                        moved = reference(hf, torch.tensor([RAGGED[example]]), edits={f"L{layer}.z": blend})
                        change = (moved[f"L{layer}.result"].sum(2) - one[f"L{layer}.result"].sum(2))[0].double().numpy()
                        change = change * share
                        whole = np.linalg.norm(writes[:, a] + writes[:, b], axis=-1).mean()
                        expected = 1 - np.linalg.norm(change, axis=-1).mean() / whole
                    assert scores.examples[example, layer, a, b] == pytest.approx(expected, abs=2e-5)
    np.testing.assert_allclose(np.diagonal(scores.values, axis1=1, axis2=2), 1, atol=1e-6)


# Merging ----------------------------------------------------------------------------------------------------------------


def twins(family: str) -> Any:
    """A model whose heads 0 and 1 of layer 1 gather the same."""
    hf = build(family)
    with torch.no_grad():
        if family == "gpt2":
            own = gpt2_heads(hf, 1)
            for name in ("q", "k", "v", "b_q", "b_k", "b_v"):
                own[name][1] = own[name][0]
        else:
            attn = hf.model.layers[1].self_attn
            for name in ("q_proj", "k_proj", "v_proj"):
                weight = getattr(attn, name).weight
                if family == "llama_mha" or name == "q_proj":
                    weight[8:16] = weight[:8]
    return hf


def logits_of(model: Any, prompt: Any = RAGGED) -> torch.Tensor:
    return model.capture(prompt, "logits")["logits"]


@pytest.mark.parametrize("by", ["z", "weights"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "llama_mha"])
def test_merging_two_heads_that_gather_the_same_leaves_the_logits_unchanged(family, by):
    with hl.load(twins(family), verify=False) as model:
        before = logits_of(model)
        for share in (0.5, 0.3):
            with merged_heads(model, 1, (0, 1), share, by):
                torch.testing.assert_close(logits_of(model), before, rtol=0, atol=1e-5)
        with merged_heads(model, 1, (0, 2), by="z"):
            assert (logits_of(model) - before).abs().max() > 1e-2


def test_two_identical_heads_are_one_whose_w_o_is_doubled():
    hf = twins("gpt2")
    with torch.no_grad():
        gpt2_heads(hf, 1)["o"][1] = gpt2_heads(hf, 1)["o"][0]
    doubled = copy.deepcopy(hf)
    with torch.no_grad():
        gpt2_heads(doubled, 1)["o"][0] *= 2
        gpt2_heads(doubled, 1)["o"][1] = 0
    ids = torch.tensor([RAGGED[0]])
    with torch.no_grad():
        expected = doubled(ids).logits
    with hl.load(hf, verify=False) as model, merged_heads(model, 1, (0, 1)):
        torch.testing.assert_close(logits_of(model, RAGGED[0]), expected, rtol=0, atol=1e-5)
        assert heads_same(model)


def heads_same(model: Any) -> bool:
    z = model.capture(RAGGED[0], "L1.z")["L1.z"]
    return torch.equal(z[:, :, 0], z[:, :, 1])


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_merged_by_z_give_what_the_blend_gives_by_hand(family):
    def blend(z):
        out = z.clone()
        out[:, :, 1] = out[:, :, 3] = 0.7 * z[:, :, 1] + 0.3 * z[:, :, 3]
        return out

    model = opened(family)
    with merged_heads(model, 0, (1, 3), 0.7):
        found = logits_of(model)
    for row, ids in enumerate(RAGGED):
        expected = reference(build(family), torch.tensor([ids]), edits={"L0.z": blend})["logits"][0]
        torch.testing.assert_close(found[row, -len(ids):], expected, rtol=0, atol=2e-5)


def test_heads_merged_by_weights_give_what_a_model_with_those_weights_gives():
    hf = build("gpt2")
    with torch.no_grad():
        own = gpt2_heads(hf, 0)
        for name in ("q", "k", "v", "b_q", "b_k", "b_v"):
            own[name][[1, 3]] = 0.25 * own[name][1] + 0.75 * own[name][3]
    model = opened("gpt2")
    with merged_heads(model, 0, (1, 3), 0.25, by="weights"), torch.no_grad():
        torch.testing.assert_close(logits_of(model, [RAGGED[0]]), hf(torch.tensor([RAGGED[0]])).logits, rtol=0, atol=1e-5)
    hf = build("llama")
    with torch.no_grad():
        weight = hf.model.layers[1].self_attn.q_proj.weight.unflatten(0, (4, 8))
        weight[2:] = weight[2:].mean(0)
    model = opened("llama")
    with merged_heads(model, 1, (2, 3), by="weights"), torch.no_grad():
        torch.testing.assert_close(logits_of(model, [RAGGED[0]]), hf(torch.tensor([RAGGED[0]])).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_after_merging_the_model_is_what_it_was_bit_for_bit_also_after_an_error(family):
    model = opened(family)
    before, state = logits_of(model), {name: p.clone() for name, p in model.hf.state_dict().items()}
    with pytest.raises(ZeroDivisionError), merged_heads(model, 1, (0, 1)):
        assert not torch.equal(logits_of(model), before)
        assert all(torch.equal(p, state[name]) for name, p in model.hf.state_dict().items()), "weights are not touched"
        raise ZeroDivisionError
    assert torch.equal(logits_of(model), before) and not model.hooks
    assert all(torch.equal(p, state[name]) for name, p in model.hf.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_effect_of_a_merge_is_the_change_of_what_comes_out(family):
    def blend(z):
        out = z.clone()
        out[:, :, [0, 1]] = z[:, :, [0, 1]].mean(2, keepdim=True)
        return out

    effect = merge_effect(opened(family), RAGGED, 0, (0, 1), positions="[0, -1]")
    for row, (ids, old) in enumerate(zip(RAGGED, values(family), strict=True)):
        new = reference(build(family), torch.tensor([ids]), edits={"L0.z": blend})
        a, b = (x["L0.attn_out"][0, [0, -1]].double() for x in (old, new))
        moved = float(((b - a).norm(dim=-1) / a.norm(dim=-1)).mean())
        assert effect.attn_out.examples[row] == pytest.approx(moved, abs=1e-5)
        a, b = (x["logits"][0, [0, -1]].double() for x in (old, new))
        assert effect.logits.examples[row] == pytest.approx(float((b - a).abs().amax(-1).mean()), abs=2e-5)
        p, q = a.softmax(-1), b.softmax(-1)
        assert effect.kl.examples[row] == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), abs=1e-5)
    assert effect.kl.unit == "nats" and float(effect.kl) == pytest.approx(effect.kl.examples.mean())


def test_a_model_without_logits_has_the_change_of_attention_alone():
    effect = merge_effect(opened("gpt2_base"), RAGGED, 1, (0, 2))
    assert effect.logits is None and effect.kl is None and float(effect.attn_out) > 0


# One head at a time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_ablating_each_head_alone_takes_out_that_head_and_no_other_and_leaves_the_model_as_it_was(family):
    model, ids = opened(family), RAGGED[0]
    state = {name: p.clone() for name, p in model.hf.state_dict().items()}
    before = logits_of(model, [ids])
    others = [[9, 15, 26, 11, 13, 29, 4], [10, 16, 27, 12, 18, 28, 6]]
    lines = "prompt {ids}\nanswer {right} vs {wrong}\nmetric logit_diff\n"
    given: dict[str, Any] = dict(ids=ids, right=11, wrong=17, others=others)
    zeroed = model.run(lines + "ablate each L*H*.z with zero", **given).scores["hooked.logit_diff"]
    meaned = model.run(lines + "ablate each L*H*.z with mean over {others}", **given).scores["hooked.logit_diff"]
    assert zeroed.axes == ("layer", "head") and zeroed.shape == (2, 4)
    hf, wide = build(family), torch.tensor([ids])
    elsewhere = reference(hf, torch.tensor(others))
    for layer in range(2):
        for head in range(4):
            mean = elsewhere[f"L{layer}.z"][:, :, head].mean((0, 1))
            for scores, value in ((zeroed, torch.zeros(())), (meaned, mean)):
                def ablate(z, head=head, value=value):
                    z = z.clone()
                    z[:, :, head] = value
                    return z

                logits = reference(hf, wide, edits={f"L{layer}.z": ablate})["logits"][0, -1]
                assert scores.values[layer, head] == pytest.approx(float(logits[11] - logits[17]), abs=2e-5)
    assert torch.equal(logits_of(model, [ids]), before)
    assert all(torch.equal(p, state[name]) for name, p in model.hf.state_dict().items())


@pytest.mark.parametrize(("ask", "error", "words"), [
    (lambda m: read_heads(m, 0, "o"), AttentionError, "q, k, v"),
    (lambda m: read_heads(m, 32), LayerError, "no dimension 32"),
    (lambda m: read_heads(m, torch.ones(31)), AttentionError, r"\(31,\)"),
    (lambda m: read_heads(m, torch.zeros(32)), AttentionError, "not all of them zero"),
    (lambda m: read_heads(m, 0, draws=3), AttentionError, "20 or more"),
    (lambda m: heads_for_share(Scores(np.ones(3), ("layer",))), AttentionError, "layer head"),
    (lambda m: heads_for_share(Scores(-np.ones((2, 2)), ("layer", "head"))), AttentionError, "from 0 on"),
    (lambda m: heads_for_share(Scores(np.ones((2, 2)), ("layer", "head")), 80), AttentionError, "from 0 to 1"),
    (lambda m: write_heads(m, RAGGED, positions=5), PositionError, "example 1"),
    (lambda m: head_redundancy(m, RAGGED, "logits"), AttentionError, "merge, pattern, write"),
    (lambda m: merged_heads(m, 2, (0, 1)).__enter__(), LayerError, "no layer 2"),
    (lambda m: merged_heads(m, 0, (0, 4)).__enter__(), LayerError, "no head 4"),
    (lambda m: merged_heads(m, 0, (1, -3)).__enter__(), AttentionError, "itself"),
    (lambda m: merged_heads(m, 0, (1, 2, 3)).__enter__(), AttentionError, "two heads"),
    (lambda m: merged_heads(m, 0, (1, 2), by="weights").__enter__(), AttentionError, "group of 2"),
    (lambda m: merged_heads(m, 0, (0, 1), by="w").__enter__(), AttentionError, "z, weights"),
    (lambda m: merged_heads(m, 0, (0, 1), float("nan")).__enter__(), AttentionError, "finite"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_what_cannot_be_asked_is_refused_with_what_can(ask, error, words):
    with pytest.raises(error, match=words):
        ask(opened("llama"))
