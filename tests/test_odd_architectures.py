"""Numbers on configurations that few models have: against the modules of transformers, or refused by name."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tiny_models
import torch
from tiny_models import MHA, MULTIPLIED, ROBERTA, SIZES, build
from transformers import (
    CLIPVisionConfig,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

import hooklab as hl
from hooklab.analysis import surgery
from hooklab.errors import HooklabError, ModelError, SiteError

IDS = [[13, 14, 15, 32, 25, 11, 29, 19, 44]]
IDS_TENSOR = torch.tensor(IDS)


def made(model: str, config: str, **options):
    """A model of random weights, norms and biases included."""
    return tiny_models.randomised(tiny_models._make(model, config, **options), seed=3)


# A layer passed through twice --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "granite", "gpt_neo"])
def test_attention_of_a_repeated_layer_is_seen_and_edited(family):
    with hl.load(build(family, seed=3), verify=False) as model, surgery.repeat(model, 0) as twice:
        hf, n = twice.hf, twice.facts.n_layers
        with torch.no_grad():
            plain = hf(IDS_TENSOR).logits
            hook = twice.layout.role(1, "o").register_forward_pre_hook(
                lambda m, args: (torch.zeros_like(args[0]), *args[1:]))
            silent = hf(IDS_TENSOR).logits
            hook.remove()
        found = twice.capture(IDS, "logits", full=True, edits={"L1.pattern": torch.zeros_like})["logits"]
        torch.testing.assert_close(found, silent, rtol=1e-4, atol=1e-5)
        assert float((silent - plain).abs().max()) > 0.01
        assert list(twice.capture(IDS, "L*.pattern")) == [f"L{layer}.pattern" for layer in range(n)]
        assert np.isfinite(hl.analysis.attention_entropy(twice, IDS).values).all()
        swept = hl.sweep(twice, IDS, sites="L*H*", method="zero", answer=17, wrong=23)
        assert swept.shape == (n, twice.facts.n_heads) and np.isfinite(swept.values).all()
        assert model.facts.n_layers == n - 1  # and the first model is as it was
        torch.testing.assert_close(model.capture(IDS, "logits")["logits"], model.hf(IDS_TENSOR).logits.detach())


# What the mean of a write is worth ---------------------------------------------------------------------------------------


def test_two_models_with_the_same_logits_have_the_same_composition():
    """A layer norm takes the mean of the stream away, so taking it out of what heads write changes nothing at all."""
    hf = build("gpt2", seed=3)
    with torch.no_grad():
        for block in hf.transformer.h:
            block.attn.c_proj.weight += torch.randn(32, 1)  # every row has a mean of its own
    without = copy.deepcopy(hf)
    with torch.no_grad():
        for block in without.transformer.h:
            block.attn.c_proj.weight -= block.attn.c_proj.weight.mean(1, keepdim=True)
        torch.testing.assert_close(without(IDS_TENSOR).logits, hf(IDS_TENSOR).logits, rtol=1e-3, atol=1e-4)
    scores = []
    for one in (hf, without):
        with hl.load(one, verify=False) as model:
            scores.append([hl.analysis.composition(model).values, hl.analysis.top_tokens(model, "L0H1", 5).values])
    np.testing.assert_allclose(scores[0][0], scores[1][0], rtol=1e-4)
    np.testing.assert_allclose(np.abs(scores[0][1]), np.abs(scores[1][1]), rtol=1e-3)


# Norms behind attention and MLP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "olmo2", "glm4"])
def test_features_of_neurons_do_what_the_neurons_do(family):
    """A dictionary that is the neurons, with both signs: its features together are the MLP, through the norm behind it."""
    with hl.load(build(family, seed=3), verify=False) as model:
        width, ids = model.facts.d_mlp, IDS[0]
        eye = torch.eye(width)
        both = torch.cat([eye, -eye])
        sae = hl.sae.SAE(both.T.contiguous(), torch.zeros(2 * width), both, torch.zeros(width))
        asked = dict(answer=17, wrong=23)
        found = hl.analysis.nodes(model, ids, kinds="latents", saes={"enc": (sae, "L1.mlp_post")},
                                  by=("direct_effect", "write_norm"), **asked)
        neurons = hl.analysis.nodes(model, ids, kinds="neurons", by=("direct_effect", "write_norm"), **asked).filter(layer=1)
        assert found.sum() == pytest.approx(neurons.sum(), rel=1e-3)
        assert found.sum("write_norm") == pytest.approx(neurons.sum("write_norm"), rel=1e-3)
        whole = hl.analysis.nodes(model, ids, kinds=("mlps", "biases"), **asked).filter(layer=1)
        norm = model.hf.get_submodule("model.layers.1." + ("post_mlp_layernorm" if family == "glm4" else
                                                           "post_feedforward_layernorm"))
        assert norm is model.layout.role(1, "post_mlp")
        assert found.sum() == pytest.approx(float(whole.filter(kind="mlps").sum()), rel=1e-3, abs=1e-4)


# Heads with layers of their own --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "config", "options"), [
    ("BertLMHeadModel", "BertConfig", MHA), ("RobertaForCausalLM", "RobertaConfig", ROBERTA),
    ("ElectraForCausalLM", "ElectraConfig", {**MHA, "embedding_size": 32})])
def test_a_lens_does_not_skip_the_layers_of_a_head(kind, config, options):
    hf = made(kind, config, is_decoder=True, **options)
    with hl.load(hf) as model:
        answered = dict(answer=17, wrong=23)
        for ask in (lambda: hl.lens(model, IDS, "L1.resid_post", answer=17, value="logit"),
                    lambda: hl.analysis.early_exit(model, IDS, value="logit", answer=17),
                    lambda: hl.analysis.predictions.predictions(model, IDS),
                    lambda: hl.attribute(model, IDS, "L1.resid_post", method="dla", **answered),
                    lambda: model.run('prompt {ids}\nlens L1.resid_post', ids=IDS[0]),
                    lambda: hl.analysis.token_direction(model, torch.randn(model.facts.d_model)),
                    lambda: hl.view.lens(model, IDS)):
            with pytest.raises(HooklabError, match="head of .* has layers of its own|has no ln_final"):
                ask()
        with torch.no_grad():
            torch.testing.assert_close(model.capture(IDS, "logits")["logits"], hf(IDS_TENSOR).logits)


@pytest.mark.parametrize(("kind", "config"), [
    ("RobertaForCausalLM", "RobertaConfig"), ("XLMRobertaForCausalLM", "XLMRobertaConfig"),
    ("CamembertForCausalLM", "CamembertConfig")])
def test_positions_of_a_ragged_batch_begin_where_the_model_begins(kind, config):
    hf = made(kind, config, is_decoder=True, **ROBERTA)
    rows = [[13, 14, 15, 32], IDS[0]]
    with hl.load(hf, verify=False) as model:
        batch = model.capture(rows, ["logits", "pos_embed"], at="last")
        for number, row in enumerate(rows):
            with torch.no_grad():
                alone = hf(torch.tensor([row])).logits[0, -1]
            torch.testing.assert_close(batch["logits"][number].reshape(-1), alone, rtol=1e-4, atol=1e-5)


# Clipped projections ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "config", "options"), [
    ("OlmoForCausalLM", "OlmoConfig", {**SIZES, "clip_qkv": 0.3}),
    ("MptForCausalLM", "MptConfig", dict(d_model=32, n_heads=4, n_layers=2, vocab_size=100, max_seq_len=64,
                                         attn_config={"clip_qkv": 0.3}))])
def test_clipped_values_are_those_that_attention_goes_on_with(kind, config, options):
    hf = made(kind, config, **options)
    with hl.load(hf) as model:
        assert not {"q", "k", "v"} & set(model.interleaver.refused)
        acts = model.capture(IDS, ["L1.q", "L1.v", "L1.pattern", "L1.z"], full=True)
        v = acts["L1.v"].repeat_interleave(model.facts.n_heads // model.facts.n_kv_heads, 2)
        assert float(acts["L1.v"].abs().max()) == pytest.approx(0.3) and float(acts["L1.q"].abs().max()) <= 0.3 + 1e-6
        z = torch.einsum("bhqk,bkhd->bqhd", acts["L1.pattern"], v)
        torch.testing.assert_close(z, acts["L1.z"], rtol=1e-4, atol=1e-5)
        asked = dict(answer=17, wrong=23)
        table = hl.analysis.nodes(model, IDS[0], kinds=("tokens", "pairs", "mlps", "biases"), **asked)
        with torch.no_grad():
            logits = hf(IDS_TENSOR).logits[0, -1]
        assert table.sum("direct_effect") == pytest.approx(float(logits[17] - logits[23]), abs=2e-3)


def test_where_a_norm_stands_before_the_clip_values_alone_are_clipped_behind_their_projection():
    hf = made("OlmoeForCausalLM", "OlmoeConfig", num_experts=4, num_experts_per_tok=2, clip_qkv=0.3, **SIZES)
    with hl.load(hf) as model:
        assert not {"q", "k", "v"} & set(model.interleaver.refused)
        acts = model.capture(IDS, ["L1.q", "L1.rot_q", "L1.v", "L1.pattern", "L1.z"], full=True)
        assert float(acts["L1.v"].abs().max()) == pytest.approx(0.3) and float(acts["L1.q"].abs().max()) > 0.3
        assert float(acts["L1.rot_q"].norm(dim=-1).max()) <= 0.3 * model.facts.d_head ** 0.5 + 1e-5
        v = acts["L1.v"].repeat_interleave(model.facts.n_heads // model.facts.n_kv_heads, 2)
        z = torch.einsum("bhqk,bkhd->bqhd", acts["L1.pattern"], v)
        torch.testing.assert_close(z, acts["L1.z"], rtol=1e-4, atol=1e-5)


# Rotations that lengthen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "config", "options"), [
    ("LlamaForCausalLM", "LlamaConfig", {**SIZES, "rope_parameters": dict(
        rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=16)}),
    ("GptOssForCausalLM", "GptOssConfig", {**SIZES, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2})])
def test_queries_of_models_with_yarn_are_served(kind, config, options):
    hf = made(kind, config, **options)
    assert hf.model.rotary_emb.attention_scaling > 1
    with hl.load(hf) as model:
        assert not model.interleaver.refused
        acts = model.capture(IDS, ["L1.rot_q", "L1.rot_k", "L1.scores"])
        k = acts["L1.rot_k"].repeat_interleave(2, 2)
        dots = torch.einsum("bqhd,bkhd->bhqk", acts["L1.rot_q"], k) * hf.model.layers[1].self_attn.scaling
        seen = torch.ones(9, 9, dtype=torch.bool).tril()
        torch.testing.assert_close(acts["L1.scores"][..., seen], dots[..., seen], rtol=1e-4, atol=1e-4)


# Streams that do not add up ------------------------------------------------------------------------------------------------


def test_a_stream_that_starts_anew_from_a_norm_is_not_taken_for_a_sum():
    hf = made("BloomForCausalLM", "BloomConfig", hidden_size=32, n_head=4, n_layer=2, vocab_size=100,
              apply_residual_connection_post_layernorm=True)
    with hl.load(hf) as model:
        asked = dict(answer=17, wrong=23)
        with pytest.raises(ModelError, match="delete"):
            surgery.skip(model, 0)
        with pytest.raises(HooklabError, match="norm"):
            hl.analysis.nodes(model, IDS[0], kinds=("tokens", "heads", "mlps", "biases"), **asked)
        with pytest.raises(HooklabError, match="norm"):
            hl.attribute(model, IDS, "L*.attn_out", method="dla", **asked)
        with pytest.raises(HooklabError, match="norm"):
            hl.lens(model, IDS, "L*.attn_out", norm="frozen", answer=17)
        hook = hf.transformer.h[0].register_forward_hook(lambda m, args, out: (args[0], *out[1:]))
        with torch.no_grad():
            without = hf(IDS_TENSOR, use_cache=False).logits
        hook.remove()
        with surgery.delete(model, 0) as shorter:
            torch.testing.assert_close(shorter.capture(IDS, "logits")["logits"], without, rtol=1e-4, atol=1e-5)


def test_nodes_refuse_a_site_that_the_check_refused():
    with hl.load(build("llama", seed=3), verify=False) as model:
        model.interleaver.refused["z"] = "z is wired wrong here"
        with pytest.raises(SiteError, match="wired wrong"):
            hl.analysis.nodes(model, IDS[0], kinds="heads", answer=17, wrong=23)


# A language model inside another -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["granite", "cohere", "gemma2"])
def test_the_head_of_a_wrapper_neither_scales_nor_caps(inner):
    text = {"granite": lambda: GraniteConfig(**MULTIPLIED, **SIZES),
            "cohere": lambda: CohereConfig(logit_scale=0.3, **SIZES),
            "gemma2": lambda: Gemma2Config(final_logit_softcapping=2.0, query_pre_attn_scalar=16, head_dim=8, **SIZES)}
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8,
                              patch_size=4)
    hf = tiny_models.randomised(lambda: LlavaForConditionalGeneration(LlavaConfig(
        vision_config=vision, text_config=text[inner](), image_token_index=99, vision_feature_layer=-1)), seed=3)
    with hl.load(hf) as model:
        assert not model.interleaver.refused
        with torch.no_grad():
            logits = hf(IDS_TENSOR).logits[0, -1]
        last = hl.analysis.early_exit(model, IDS, value="logit", answer=17).values[-1]
        assert float(last) == pytest.approx(float(logits[17]), abs=1e-4)
