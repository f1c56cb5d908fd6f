"""What attention writes, and how it varies, over aligned spans: against numpy on what plain transformers gives."""

import numpy as np
import pytest
import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from tiny_models import build, tokenizer

import hooklab as hl
from hooklab.data import MeanPattern, VariancePattern
from hooklab.data.inputs.batching import batches
from hooklab.data.reducers.reducers import from_state, merged
from hooklab.errors import RecordError
from hooklab.tokens import Tokens

LAYER, SITE = 1, "L1.pattern"
SPANS = {"Mary": '"Mary"', "pair": "[0, 1]", "end": "last"}
PROMPTS = ["w1 Mary w2 the store", "w5 w6 Mary", "Mary w1 w2 w3 w4 w5 w6", "w7 Mary w8 w9", "w2 w3 w4 Mary w1 w9"]
FAMILIES = ("gpt2", "llama", "gemma2", "olmo2")


def opened(family):
    return hl.load(build(family, attn_implementation="eager"), tokenizer=tokenizer())


def heard(model, text):
    """Of one prompt by transformers and hooks of torch: pattern [head q k], values [key kv_head d], W_O, and the block."""
    hf, seen, taken = model.hf, {}, []
    block = hf.transformer.h[LAYER] if hasattr(hf, "transformer") else hf.model.layers[LAYER]
    gpt2 = hasattr(block, "attn")
    watched = {"v": block.attn.c_attn} if gpt2 else {"v": block.self_attn.v_proj, "out": block.self_attn.o_proj}
    for name, module in watched.items():
        taken.append(module.register_forward_hook(
            lambda module, given, out, name=name: seen.update({name: out[0].double().numpy()})))
    with torch.no_grad():
        pattern = hf(torch.tensor([tokenizer()(text)["input_ids"]]), output_attentions=True).attentions[LAYER][0]
    for one in taken:
        one.remove()
    values = np.split(seen["v"], 3, -1)[2] if gpt2 else seen["v"]
    heads = len(pattern)
    weight = (block.attn.c_proj.weight if gpt2 else block.self_attn.o_proj.weight.T).detach().double().numpy()
    d_head = weight.shape[0] // heads
    return pattern.double().numpy(), values.reshape(len(values), -1, d_head), weight.reshape(heads, d_head, -1), block, seen


def weighed(model, text):
    """A[q,k] · ‖v_k W_O‖ by loops; behind Gemma 2's and OLMo 2's norm, what it makes of each part."""
    pattern, values, out, block, seen = heard(model, text)
    heads, n, _ = pattern.shape
    group = heads // values.shape[1]
    norm = block.post_attention_layernorm if model.facts.family in ("gemma2", "olmo2") else None
    found = np.zeros_like(pattern)
    for h in range(heads):
        for q in range(n):
            for k in range(n):
                part = pattern[h, q, k] * (values[k, h // group] @ out[h])
                if norm is not None:
                    gain = norm.weight.detach().double().numpy() + (1.0 if model.facts.family == "gemma2" else 0.0)
                    eps = getattr(norm, "eps", None) or norm.variance_epsilon
                    part = part * gain / np.sqrt((seen["out"][q] ** 2).mean() + eps)
                found[h, q, k] = np.linalg.norm(part)
    return found


def places(text):
    words = text.split()
    return [words.index("Mary"), 0, 1, len(words) - 1]


def aligned(full, text):
    return full[:, places(text)][:, :, places(text)]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_averaged_as_numpy_does_it(family):
    model = opened(family)
    every = np.stack([aligned(weighed(model, text), text) for text in PROMPTS])
    patterns = np.stack([aligned(heard(model, text)[0], text) for text in PROMPTS])
    if family in ("llama", "gemma2", "olmo2"):
        assert model.facts.n_kv_heads < model.facts.n_heads
    found = hl.extract(model, PROMPTS, batch_size=3, reduce={  # the second batch is not full, and all are ragged
        "written": MeanPattern(SITE, SPANS, weighting="write"), "spread": VariancePattern(SITE, SPANS, weighting="write"),
        "plain": VariancePattern(SITE, SPANS), "one": MeanPattern("L1H[1,3].pattern", SPANS, weighting="write")})
    assert found.report.passes == 2
    written = found.reduced["written"].result()
    assert np.allclose(written.values, every.mean(0), atol=1e-5)
    assert written.coords["key_pos"] == ("Mary", "pair 0", "pair 1", "end") and "written" in written.name
    assert np.allclose(found.reduced["spread"].result().values, every.var(0, ddof=1), atol=1e-5)
    assert np.allclose(found.reduced["spread"].mean().values, every.mean(0), atol=1e-5)
    assert np.allclose(found.reduced["plain"].result().values, patterns.var(0, ddof=1), atol=1e-6)
    assert np.allclose(found.reduced["one"].result().values, every.mean(0)[[1, 3]], atol=1e-5)
    assert not np.allclose(every.mean(0), patterns.mean(0), atol=1e-2)  # weighing does something


def test_pooled_spans_are_what_is_written_for_all_of_their_tokens():
    model = opened("llama")
    found = hl.extract(model, PROMPTS, batch_size=2, reduce={"w": VariancePattern(
        SITE, {"rest": "1:", "first": 0}, pooled=True, weighting="write")}).reduced["w"]
    every = []
    for text in PROMPTS:
        full = weighed(model, text)
        keys = np.stack([full[:, :, 1:].sum(2), full[:, :, 0]], 2)
        every.append(np.stack([keys[:, 1:].mean(1), keys[:, 0]], 1))
    assert np.allclose(found.mean().values, np.mean(every, 0), atol=1e-5)
    assert np.allclose(found.result().values, np.var(every, 0, ddof=1), atol=1e-5)


@pytest.mark.parametrize("make", [MeanPattern, VariancePattern])
def test_checkpoints_and_workers_give_what_one_pass_gives(make):
    model = opened("gpt2")
    whole = hl.extract(model, PROMPTS, reduce={"w": make(SITE, SPANS, weighting="write")}).reduced["w"].result()
    parts = []
    for some in (PROMPTS[:2], PROMPTS[2:4], PROMPTS[4:]):
        one = make(SITE, SPANS, weighting="write").of(model)
        for batch in batches(some, model):
            acts = model.capture(batch.prompt, [SITE, *one.further])
            one.update(acts[SITE], batch.tokens, batch.ids, further={site: acts[site] for site in one.further})
        parts.append(from_state(read_tensors(write_tensors(one.state()))))
    assert np.allclose(merged(parts).result().values, whole.values, atol=1e-9)
    with pytest.raises(RecordError, match="made alike"):
        parts[0].merge(make(SITE, SPANS))


def test_an_interrupted_extraction_goes_on_with_what_was_written(tmp_path):
    model, reduce = opened("llama"), {"w": VariancePattern(SITE, SPANS, weighting="write"), "v": MeanPattern(SITE, SPANS)}
    options = {"at": "last", "reduce": reduce, "batch_size": 1, "shard_bytes": 100}
    expected = hl.extract(model, PROMPTS, "L0.v", tmp_path / "a", **options)

    hl.extract(model, iter(PROMPTS[:3]), "L0.v", tmp_path / "b", **options)
    found = hl.extract(model, iter(PROMPTS), "L0.v", tmp_path / "b", **options)
    assert found.report.resumed == 3
    for name in reduce:
        assert np.allclose(found.reduced[name].result().values, expected.reduced[name].result().values, atol=1e-12)
        assert np.array_equal(hl.data.from_state(found.reduced[name].state()).result().values,
                              found.reduced[name].result().values)
    with pytest.raises(RecordError, match="was begun otherwise: reduce.w.weighting was 'write' and is None"):
        hl.extract(model, iter(PROMPTS), "L0.v", tmp_path / "b", at="last", batch_size=1, shard_bytes=100,
                   reduce={"w": VariancePattern(SITE, SPANS), "v": MeanPattern(SITE, SPANS)})


def test_variance_needs_two_examples_that_line_up():
    tokens = Tokens.from_ids([[1, 2, 3]])
    one = VariancePattern("L0.pattern", {"end": "last"}).update([torch.rand(2, 3, 3)], tokens)
    with pytest.raises(RecordError, match="two rows or more, and there are 1"):
        one.result()
    with pytest.raises(RecordError, match="do not line up"):
        VariancePattern("L0.pattern").update([torch.rand(2, 3, 3), torch.rand(2, 1, 1)], Tokens.from_ids([[1, 2, 3], [4]]))


def test_what_weighs_nothing_is_refused():
    model, tokens = opened("llama"), Tokens.from_ids([[1, 2, 3]])
    with pytest.raises(RecordError, match="'read': attention is weighed"):
        MeanPattern(SITE, weighting="read")
    for site, options in (("L1.resid_post", {}), ("mine", {"axes": ("query_pos", "key_pos")})):
        with pytest.raises(RecordError, match="weighs a pattern"):
            MeanPattern(site, weighting="write", **options)
    found = MeanPattern(SITE, weighting="write")
    with pytest.raises(RecordError, match="needs the weights of the model"):
        found.update([torch.rand(4, 3, 3)], tokens)
    found.of(model)
    with pytest.raises(RecordError, match=r"needs L1\.v too"):
        found.update([torch.rand(4, 3, 3)], tokens)
    with pytest.raises(RecordError, match=r"L1\.v comes at 2 positions"):
        found.update([torch.rand(4, 3, 3)], tokens, further={"L1.v": [torch.rand(2, 2, 8)]})
    assert found.count == 0
