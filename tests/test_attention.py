"""The attention function: fused where nobody looks, exact where somebody does, gone afterwards."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_models import TEXT_ONLY, build
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import repeat_kv

from hooklab.errors import RecordError
from hooklab.model.model import Model

IDS = [[3, 4, 5, 6, 7, 8, 9, 10]]
CAUSAL = [name for name in TEXT_ONLY if "bert" not in name]


@pytest.mark.parametrize("family", TEXT_ONLY)
def test_pattern_equals_what_transformers_returns(family):
    eager = build(family)
    eager.config._attn_implementation = "eager"  # asked of a fused Falcon, transformers returns a wrong pattern
    expected = eager(torch.tensor(IDS), output_attentions=True).attentions
    ours = build(family)
    if family.startswith("falcon"):  # whose fused and open attention disagree with each other in transformers
        ours.config._attn_implementation = "eager"
    acts = Model(ours).capture(IDS, "L*.pattern", full=True)
    for layer, pattern in enumerate(expected):
        assert torch.allclose(acts[f"L{layer}.pattern"], pattern, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gemma3", "bert", "llava"])
def test_only_layers_that_are_looked_at_leave_the_fused_kernel(family, monkeypatch):
    model = Model(build(family))
    calls = []
    fused = F.scaled_dot_product_attention

    def counting(*args, **kwargs):
        calls.append(1)
        return fused(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counting)
    counts = []
    for sites in (["L0.resid_pre"], ["L0.pattern"], ["L0.pattern", "L1.scores"]):
        calls.clear()
        model.capture(IDS, sites, full=True)
        counts.append(len(calls))
    assert counts == [2, 1, 0]


def test_a_block_that_reads_q_first_can_still_read_the_pattern():
    model = Model(build("llama"))
    with model.trace(IDS):
        model.layers[0].q.save()
        model.layers[0].rot_k.save()
        pattern = model.layers[0].pattern.save()
        model.layers[1].z.save()
    assert torch.equal(pattern, model.capture(IDS, "L0.pattern")["L0.pattern"])


def test_the_implementation_is_the_models_own_outside_and_inside_it_is_ours():
    model = Model(build("llama"))
    seen = []
    handle = model.hf.model.norm.register_forward_hook(lambda *_: seen.append(model.hf.config._attn_implementation))
    model.capture(IDS, "logits")
    model.capture(IDS, "L0.pattern", full=True)
    handle.remove()
    assert seen == ["sdpa", "hooklab_sdpa"]  # a run that looks at no attention leaves it alone altogether
    assert model.hf.config._attn_implementation == "sdpa"
    assert Model(build("llama", attn_implementation="eager")).hf.config._attn_implementation == "eager"


@pytest.mark.parametrize("family", CAUSAL)
def test_generation_with_a_cache_shows_what_recomputation_shows(family):
    if family in ("gpt2_base", "llama_base"):
        pytest.skip("a model without a head cannot generate")
    import nnsight

    model = Model(build(family))
    options = dict(max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=0)
    with model.generate(IDS, **options) as t:
        patterns, streams = nnsight.save([]), nnsight.save([])
        for _step in t.iter[:8]:
            patterns.append(model.layers[1].pattern)
            streams.append(model.layers[1].resid_post)
        ids = t.result.save()
    assert torch.equal(ids, model.hf.generate(torch.tensor(IDS), **options))
    whole = model.capture(ids[:, :-1], ["L1.pattern", "L1.resid_post"])
    assert torch.allclose(torch.cat(streams, 1), whole["L1.resid_post"], atol=2e-5)
    for step, pattern in enumerate(patterns[1:], start=len(IDS[0])):
        row = whole["L1.pattern"][0, :, step, : step + 1]
        kept = pattern.shape[-1]  # a sliding cache drops keys that the window has left behind
        assert torch.allclose(pattern[0, :, -1], row[:, -kept:], atol=2e-5)
        assert row[:, :-kept].abs().sum() == 0 or kept >= row.shape[-1]


def test_knocking_out_an_edge_equals_masking_it_by_hand():
    hf = build("llama_mha", attn_implementation="eager")
    model = Model(hf)
    low = torch.finfo(torch.float32).min

    def cut(scores):
        scores[:, :, 5, 2] = low
        return scores

    acts = model.capture(IDS, "L0.pattern", edits={"L*.scores": cut}, full=True)
    n = len(IDS[0])
    mask = torch.full((1, 1, n, n), low).triu(1)
    mask[..., 5, 2] = low
    expected = hf(torch.tensor(IDS), attention_mask=mask).logits
    assert torch.allclose(acts.output.logits, expected, atol=1e-6)
    assert acts["L0.pattern"][0, :, 5, 2].abs().max() == 0
    assert torch.allclose(acts["L0.pattern"].sum(-1), torch.ones(1, 4, n))


# Keys and values for each query head ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (8, 2), (4, 1), (4, 4)])
def test_values_for_each_query_head_are_those_that_transformers_repeats(heads, kv_heads):
    config = LlamaConfig(vocab_size=40, hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=heads,
                         num_key_value_heads=kv_heads)
    torch.manual_seed(0)
    model = Model(LlamaForCausalLM(config).eval())
    acts = model.capture(torch.tensor([[3, 4, 5, 6, 7], [9, 8, 7, 6, 5]]), ["L1.v", "L1.rot_k", "L1.pattern", "L1.z"])
    for site in ("L1.v", "L1.rot_k"):
        wide = model.per_head(acts[site])
        assert wide.shape == (2, 5, heads, 32 // heads)
        assert torch.equal(wide, repeat_kv(acts[site].transpose(1, 2), heads // kv_heads).transpose(1, 2))
        for head in range(heads):
            assert torch.equal(wide[:, :, head], acts[site][:, :, head // (heads // kv_heads)])
    z = torch.einsum("bhqk,bkhd->bqhd", acts["L1.pattern"], model.per_head(acts["L1.v"]))
    assert torch.allclose(z, acts["L1.z"], atol=1e-6)
    some = model.capture([[3, 4, 5], [6, 7]], "L1.v", at="last")["L1.v"]
    assert model.per_head(some).shape == (2, heads, 32 // heads)


def test_values_of_another_shape_are_refused():
    model = Model(build("llama"))
    acts = model.capture([[3, 4, 5]], ["L0.v", "L0.q", "L0.resid_post"])
    right = acts["L0.v"]
    for wrong in (acts["L0.q"], acts["L0.resid_post"], right.transpose(1, 2), right[..., :-1], right[0, 0], right[:, :, :1],
                  model.per_head(right)):
        with pytest.raises(RecordError, match="kv_head 2 · d_head 8"):
            model.per_head(wrong)


def test_values_are_read_for_each_query_head_inside_a_trace_and_carry_gradients():
    model = Model(build("llama"))
    with model.trace([[3, 4, 5]]):
        wide = model.per_head(model.layers[0].v).save()
    assert torch.equal(wide, model.per_head(model.capture([[3, 4, 5]], "L0.v")["L0.v"]))
    value = torch.randn(1, 3, 2, 8, requires_grad=True)
    model.per_head(value).sum().backward()
    assert torch.equal(value.grad, torch.full_like(value, 2.0))
