"""The tables that ship with hooklab, one row per `model_type`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .table import POST_NORM, Family

LLAMA = Family("llama")
"""The commonest shape; most other tables are this one with a few paths replaced."""

GPT_MLP: dict[str, Any] = dict(gate="mlp.dense_h_to_4h", up=None, down="mlp.dense_4h_to_h")
SANDWICH: dict[str, Any] = dict(ln2="pre_feedforward_layernorm", post_attn="post_attention_layernorm",
                post_mlp="post_feedforward_layernorm", norm="rms1p")
NO_DENSE: dict[str, Any] = dict(gate=None, up=None, down=None)
IN_PARALLEL: dict[str, Any] = dict(residual="parallel")
SCALED: dict[str, Any] = dict(factors=dict(embed="embedding_multiplier", attn_out="residual_multiplier",
                                           mlp_out="residual_multiplier", logits="/logits_scaling"))
AFTER: dict[str, Any] = dict(ln1=None, ln2=None, mid="mlp", post_attn="post_attention_layernorm",
             post_mlp="post_feedforward_layernorm")
ONE_BRANCH: dict[str, Any] = dict(gate="mlp.up_proj", up=None)
FUSED_GATE: dict[str, Any] = dict(gate=None, up=None, gate_up="mlp.gate_up_proj")
FUSED: dict[str, Any] = dict(q=None, k=None, v=None)
GPT: dict[str, Any] = dict(blocks="h", embed="wte", pos_embed="wpe", ln_final="ln_f", ln1="ln_1", ln2="ln_2", attn="attn",
           o="attn.c_proj", gate="mlp.c_fc", up=None, down="mlp.c_proj", norm="layer", rotary=False)

BERT = Family("bert", blocks="encoder.layer", embed="embeddings.word_embeddings",
              pos_embed="embeddings.position_embeddings", ln_final=None, ln1=None, ln2="attention.output.LayerNorm",
              attn="attention.self", q="attention.self.query", k="attention.self.key", v="attention.self.value",
              o="attention.output.dense", gate="intermediate.dense", up=None, down="output.dense", residual="post",
              norm="layer", rotary=False, summed=False, head_layers=True, why=dict(ln1=POST_NORM, ln1_scale=POST_NORM))
"""The commonest encoder."""

TABLES: tuple[Family, ...] = (
    LLAMA,
    *(replace(LLAMA, name=name) for name in ("mistral", "ministral", "ministral3", "qwen2", "qwen3", "smollm3", "seed_oss",
                                             "ernie4_5", "internlm3", "helium", "cwm", "hunyuan_v1_dense")),
    *(replace(LLAMA, name=name, **NO_DENSE) for name in (
        "mixtral", "gpt_oss", "qwen2_moe", "qwen3_moe", "ernie4_5_moe", "hunyuan_v1_moe", "glm4_moe", "minimax_m2",
        "mellum", "exaone_moe", "solar_open")),
    # OLMoE clips queries and keys too, but behind a norm that stands between them and their projection.
    replace(LLAMA, name="olmoe", clips=dict(v="clip_qkv"), **NO_DENSE),
    replace(LLAMA, name="granite", **SCALED),
    replace(LLAMA, name="granitemoe", mlp="block_sparse_moe", **NO_DENSE, **SCALED),
    *(replace(LLAMA, name=name, ln2=None, norm="layer", factors=dict(logits="logit_scale"), **IN_PARALLEL)
      for name in ("cohere", "cohere2")),
    replace(LLAMA, name="phimoe", norm="layer", **NO_DENSE),
    replace(LLAMA, name="arcee", **ONE_BRANCH),
    replace(LLAMA, name="apertus", ln1="attention_layernorm", ln2="feedforward_layernorm", **ONE_BRANCH),
    replace(LLAMA, name="jais2", norm="layer", **ONE_BRANCH),
    replace(LLAMA, name="nemotron", norm="layer1p", **ONE_BRANCH),
    replace(LLAMA, name="starcoder2", norm="layer", gate="mlp.c_fc", up=None, down="mlp.c_proj"),
    replace(LLAMA, name="glm", **FUSED_GATE),
    replace(LLAMA, name="glm4", post_attn="post_self_attn_layernorm", post_mlp="post_mlp_layernorm", **FUSED_GATE),
    replace(LLAMA, name="gemma", norm="rms1p"),
    replace(LLAMA, name="gemma2", **SANDWICH),
    replace(LLAMA, name="gemma3_text", **SANDWICH),
    replace(LLAMA, name="vaultgemma", ln2="pre_feedforward_layernorm", norm="rms1p"),
    replace(LLAMA, name="olmo", norm="layer", clips=dict.fromkeys("qkv", "clip_qkv")),
    *(replace(LLAMA, name=name, **AFTER) for name in ("olmo2", "olmo3", "exaone4")),
    replace(LLAMA, name="flex_olmo", **AFTER, **NO_DENSE),
    replace(LLAMA, name="persimmon", ln_final="final_layernorm", qkv="self_attn.query_key_value", packing="per_head",
            o="self_attn.dense", norm="layer", **FUSED, **GPT_MLP),
    replace(LLAMA, name="stablelm", norm="layer",
            variants=((lambda c: c.use_parallel_residual, dict(ln2=None, **IN_PARALLEL)),)),
    replace(LLAMA, name="phi3", qkv="self_attn.qkv_proj", **FUSED, **FUSED_GATE),
    replace(LLAMA, name="phi", ln2=None, ln_final="final_layernorm", o="self_attn.dense", gate="mlp.fc1", up=None,
            down="mlp.fc2", norm="layer", residual="parallel"),
    replace(LLAMA, name="chameleon", never="vocabulary_mapping.image_tokens",
            variants=((lambda c: getattr(c, "swin_norm", False),
                       dict(ln1=None, ln2=None, mid="mlp", post_attn="input_layernorm",
                            post_mlp="post_attention_layernorm")),)),
    Family("gpt2", qkv="attn.c_attn", **FUSED, **GPT),
    Family("gpt_bigcode", qkv="attn.c_attn", **FUSED, **GPT,
           variants=((lambda c: c.multi_query, dict(packing="multi_query")),
                     (lambda c: not c.multi_query, dict(packing="per_head")))),
    Family("mpt", blocks="blocks", embed="wte", ln_final="norm_f", ln1="norm_1", ln2="norm_2", attn="attn", qkv="attn.Wqkv",
           o="attn.out_proj", mlp="ffn", gate="ffn.up_proj", up=None, down="ffn.down_proj", norm="layer",
           attention="inline", rotary=False, clips=dict.fromkeys("qkv", "attn_config.clip_qkv"), **FUSED),
    Family("gpt_neo", blocks="h", embed="wte", pos_embed="wpe", ln_final="ln_f", ln1="ln_1", ln2="ln_2",
           attn="attn.attention", q="attn.attention.q_proj", k="attn.attention.k_proj", v="attn.attention.v_proj",
           o="attn.attention.out_proj", gate="mlp.c_fc", up=None, down="mlp.c_proj", norm="layer",
           attention="inline", rotary=False),
    Family("gptj", blocks="h", embed="wte", ln_final="ln_f", ln1="ln_1", ln2=None, attn="attn", q="attn.q_proj",
           k="attn.k_proj", v="attn.v_proj", o="attn.out_proj", gate="mlp.fc_in", up=None, down="mlp.fc_out",
           norm="layer", residual="parallel", attention="inline"),
    Family("gpt_neox", embed="embed_in", ln_final="final_layer_norm", attn="attention",
           qkv="attention.query_key_value", packing="per_head", o="attention.dense", norm="layer", **FUSED, **GPT_MLP,
           variants=((lambda c: c.use_parallel_residual, IN_PARALLEL),)),
    Family("opt", blocks="decoder.layers", embed="decoder.embed_tokens", pos_embed="decoder.embed_positions",
           ln_final="decoder.final_layer_norm", ln1="self_attn_layer_norm", ln2="final_layer_norm",
           o="self_attn.out_proj", gate="fc1", up=None, down="fc2", norm="layer", rotary=False, scaled_q=True, folds=True,
           variants=(
               (lambda c: c.word_embed_proj_dim != c.hidden_size, dict(embed="decoder.project_in")),
               (lambda c: not c.do_layer_norm_before,
                dict(residual="post", ln1=None, ln2="self_attn_layer_norm", ln_final=None,
                     why=dict(ln1=POST_NORM, ln1_scale=POST_NORM))))),
    Family("biogpt", embed="embed_tokens", pos_embed="embed_positions", ln_final="layer_norm", ln1="self_attn_layer_norm",
           ln2="final_layer_norm", o="self_attn.out_proj", gate="fc1", up=None, down="fc2", norm="layer", rotary=False),
    Family("bloom", blocks="h", embed="word_embeddings_layernorm", ln_final="ln_f", attn="self_attention",
           qkv="self_attention.query_key_value", packing="per_head",
           o="self_attention.dense", norm="layer", attention="inline", rotary=False, **FUSED, **GPT_MLP,
           variants=((lambda c: c.apply_residual_connection_post_layernorm,
                      dict(restarts=True, why=dict(resid_mid="this config adds attention to the normalised stream"))),)),
    Family("falcon", blocks="h", embed="word_embeddings", ln_final="ln_f", attn="self_attention",
           qkv="self_attention.query_key_value", packing="per_head",
           o="self_attention.dense", norm="layer", attention="inline", **FUSED, **GPT_MLP,
           variants=(
               (lambda c: c.multi_query and not c.new_decoder_architecture, dict(packing="multi_query")),
               (lambda c: c.new_decoder_architecture, dict(packing="grouped")),
               (lambda c: c.parallel_attn or c.new_decoder_architecture, dict(ln2=None, **IN_PARALLEL)),
               (lambda c: c.new_decoder_architecture and c.num_ln_in_parallel_attn != 1,
                dict(ln1="ln_attn", ln2="ln_mlp")))),
    BERT,
    *(replace(BERT, name=name) for name in ("roberta", "xlm-roberta", "camembert", "data2vec-text", "ernie")),
    replace(BERT, name="electra", variants=(
        (lambda c: c.embedding_size != c.hidden_size,
         dict(embed="embeddings_project", pos_embed=None, why=dict(pos_embed="it is added before the projection"))),)),
    replace(BERT, name="distilbert", blocks="transformer.layer", ln2="sa_layer_norm", attn="attention", q="attention.q_lin",
            k="attention.k_lin", v="attention.v_lin", o="attention.out_lin", gate="ffn.lin1", down="ffn.lin2"),
)

WRAPPERS: dict[str, str] = {"llava": "language_model", "gemma3": "language_model"}
"""Models that hold a language model inside: `model_type` -> its path in the base model."""
