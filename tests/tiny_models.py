"""Random tiny models of every family, built from configs in memory: no downloads, and no default initialisation.

Hugging Face initialises norm gains to one and biases to zero, which hides every mistake about them; here they are
random, and weights are large enough for attention to be far from uniform.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

SIZES = dict(vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)
MHA = {name: value for name, value in SIZES.items() if name != "num_key_value_heads"}
GPT = dict(vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)
OPT = dict(vocab_size=100, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
           max_position_embeddings=64, pad_token_id=0)
FALCON = dict(vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, bos_token_id=1,
              eos_token_id=2, max_position_embeddings=64)
EXPERTS = dict(num_local_experts=4, num_experts_per_tok=2)
GEMMA = dict(SIZES, head_dim=16)
WINDOW = dict(sliding_window=4)


def _make(model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(**options))

    return make


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "gpt2": _make("GPT2LMHeadModel", "GPT2Config", **GPT),
    "gpt_neo": _make("GPTNeoForCausalLM", "GPTNeoConfig", vocab_size=100, hidden_size=32, num_layers=2, num_heads=4,
                     attention_types=[[["global", "local"], 1]], window_size=4, max_position_embeddings=64,
                     bos_token_id=1, eos_token_id=2),
    "gpt_neox": _make("GPTNeoXForCausalLM", "GPTNeoXConfig", **MHA),
    "gpt_neox_sequential": _make("GPTNeoXForCausalLM", "GPTNeoXConfig", use_parallel_residual=False, **MHA),
    "gptj": _make("GPTJForCausalLM", "GPTJConfig", rotary_dim=4, **GPT),
    "opt": _make("OPTForCausalLM", "OPTConfig", word_embed_proj_dim=32, **OPT),
    "opt_postnorm": _make("OPTForCausalLM", "OPTConfig", word_embed_proj_dim=16, do_layer_norm_before=False, **OPT),
    "phi": _make("PhiForCausalLM", "PhiConfig", **SIZES),
    "phi3": _make("Phi3ForCausalLM", "Phi3Config", **SIZES),
    "bloom": _make("BloomForCausalLM", "BloomConfig", vocab_size=100, hidden_size=32, n_layer=2, n_head=4),
    "falcon": _make("FalconForCausalLM", "FalconConfig", **FALCON),
    "falcon_new": _make("FalconForCausalLM", "FalconConfig", new_decoder_architecture=True, num_kv_heads=2, **FALCON),
    "falcon_sequential": _make("FalconForCausalLM", "FalconConfig", multi_query=False, parallel_attn=False,
                               alibi=True, bias=True, **FALCON),
    "llama": _make("LlamaForCausalLM", "LlamaConfig", **SIZES),
    "llama_mha": _make("LlamaForCausalLM", "LlamaConfig", **MHA),
    "mistral": _make("MistralForCausalLM", "MistralConfig", **WINDOW, **SIZES),
    "mixtral": _make("MixtralForCausalLM", "MixtralConfig", **EXPERTS, **SIZES),
    "qwen2": _make("Qwen2ForCausalLM", "Qwen2Config", **SIZES),
    "qwen3": _make("Qwen3ForCausalLM", "Qwen3Config", **GEMMA),
    "gemma": _make("GemmaForCausalLM", "GemmaConfig", **GEMMA),
    "gemma2": _make("Gemma2ForCausalLM", "Gemma2Config", query_pre_attn_scalar=16, **WINDOW, **GEMMA),
    "gemma3": _make("Gemma3ForCausalLM", "Gemma3TextConfig", layer_types=["sliding_attention", "full_attention"],
                    **WINDOW, **GEMMA),
    "stablelm": _make("StableLmForCausalLM", "StableLmConfig", **SIZES),
    "stablelm_parallel": _make("StableLmForCausalLM", "StableLmConfig", use_parallel_residual=True, **SIZES),
    "olmo2": _make("Olmo2ForCausalLM", "Olmo2Config", **SIZES),
    "gpt_oss": _make("GptOssForCausalLM", "GptOssConfig", rope_parameters=dict(rope_type="default", rope_theta=1e4),
                     **EXPERTS, **WINDOW, **GEMMA),
    "bert": _make("BertForMaskedLM", "BertConfig", **MHA),
    "gpt2_base": _make("GPT2Model", "GPT2Config", **GPT),
    "llama_base": _make("LlamaModel", "LlamaConfig", **SIZES),
    "bert_base": _make("BertModel", "BertConfig", **MHA),
}


def _chameleon() -> nn.Module:
    from transformers import ChameleonConfig, ChameleonForConditionalGeneration

    vq = dict(embed_dim=8, num_embeddings=16, double_latent=False, latent_channels=8, resolution=32, in_channels=3,
              base_channels=32, channel_multiplier=[1, 1, 1, 1], num_res_blocks=1, attn_resolutions=None, dropout=0.0,
              attn_type="vanilla")
    vocabulary = _chameleon_vocabulary()
    config = ChameleonConfig(**{**SIZES, "vocab_size": len(vocabulary), "bos_token_id": 0, "eos_token_id": 1,
                                "pad_token_id": 2}, vocabulary_map=vocabulary, vq_config=vq)
    return ChameleonForConditionalGeneration(config)


def _llava() -> nn.Module:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                              image_size=8, patch_size=4)
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=LlamaConfig(**SIZES),
                                                     image_token_index=99, vision_feature_layer=-1))


FAMILIES["chameleon"] = _chameleon
FAMILIES["llava"] = _llava
HEADLESS = ("gpt2_base", "llama_base", "bert_base")
TEXT_ONLY = tuple(name for name in FAMILIES if name not in ("chameleon", "llava"))


SLIDING = dict(WINDOW, layer_types=["sliding_attention", "full_attention"])
NARROW = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
ROBERTA = {**MHA, "pad_token_id": 1, "bos_token_id": 0}
ROPE = dict(rope_parameters=dict(rope_type="default", rope_theta=1e4))
MULTIPLIED = dict(embedding_multiplier=3.0, residual_multiplier=0.6, attention_multiplier=0.5, logits_scaling=4.0)

RELATIVES: dict[str, Callable[[], nn.Module]] = {
    "apertus": _make("ApertusForCausalLM", "ApertusConfig", **SIZES),
    "arcee": _make("ArceeForCausalLM", "ArceeConfig", **SIZES),
    "biogpt": _make("BioGptForCausalLM", "BioGptConfig", **MHA),
    "camembert": _make("CamembertForMaskedLM", "CamembertConfig", **ROBERTA),
    "cohere": _make("CohereForCausalLM", "CohereConfig", logit_scale=0.3, use_qk_norm=True, **SIZES),
    "cohere2": _make("Cohere2ForCausalLM", "Cohere2Config", logit_scale=0.3, **SLIDING, **SIZES),
    "cwm": _make("CwmForCausalLM", "CwmConfig", **SLIDING, **GEMMA),
    "data2vec-text": _make("Data2VecTextForMaskedLM", "Data2VecTextConfig", **ROBERTA),
    "distilbert": _make("DistilBertForMaskedLM", "DistilBertConfig", vocab_size=100, dim=32, n_layers=2, n_heads=4,
                        hidden_dim=48, max_position_embeddings=64, pad_token_id=0),
    "electra": _make("ElectraForMaskedLM", "ElectraConfig", embedding_size=32, **MHA),
    "electra_narrow": _make("ElectraForMaskedLM", "ElectraConfig", embedding_size=16, **MHA),
    "ernie": _make("ErnieForMaskedLM", "ErnieConfig", **MHA),
    "ernie4_5": _make("Ernie4_5ForCausalLM", "Ernie4_5Config", **GEMMA),
    "ernie4_5_moe": _make("Ernie4_5_MoeForCausalLM", "Ernie4_5_MoeConfig", moe_num_experts=4, moe_k=2,
                          moe_intermediate_size=16, **SIZES),
    "exaone4": _make("Exaone4ForCausalLM", "Exaone4Config", **SLIDING, **SIZES),
    "exaone_moe": _make("ExaoneMoeForCausalLM", "ExaoneMoeConfig", **NARROW, **SIZES),
    "flex_olmo": _make("FlexOlmoForCausalLM", "FlexOlmoConfig", num_experts=4, num_experts_per_tok=2, **SIZES),
    "glm": _make("GlmForCausalLM", "GlmConfig", **GEMMA),
    "glm4": _make("Glm4ForCausalLM", "Glm4Config", **GEMMA),
    "glm4_moe": _make("Glm4MoeForCausalLM", "Glm4MoeConfig", n_routed_experts=4, num_experts_per_tok=2,
                      moe_intermediate_size=16, first_k_dense_replace=1, **GEMMA),
    "gpt_bigcode": _make("GPTBigCodeForCausalLM", "GPTBigCodeConfig", **GPT),
    "gpt_bigcode_mha": _make("GPTBigCodeForCausalLM", "GPTBigCodeConfig", multi_query=False, **GPT),
    "granite": _make("GraniteForCausalLM", "GraniteConfig", attention_bias=True, **MULTIPLIED, **SIZES),
    "granitemoe": _make("GraniteMoeForCausalLM", "GraniteMoeConfig", **EXPERTS, **MULTIPLIED, **SIZES),
    "helium": _make("HeliumForCausalLM", "HeliumConfig", **{**SIZES, "head_dim": 8}),
    "hunyuan_v1_dense": _make("HunYuanDenseV1ForCausalLM", "HunYuanDenseV1Config", **ROPE, **GEMMA),
    "hunyuan_v1_moe": _make("HunYuanMoEV1ForCausalLM", "HunYuanMoEV1Config", num_experts=4, moe_topk=2, **ROPE, **GEMMA),
    "internlm3": _make("LlamaForCausalLM", "InternLM3Config", **GEMMA),
    "jais2": _make("Jais2ForCausalLM", "Jais2Config", **SIZES),
    "mellum": _make("MellumForCausalLM", "MellumConfig", **NARROW, **GEMMA),
    "minimax_m2": _make("MiniMaxM2ForCausalLM", "MiniMaxM2Config", **EXPERTS, **GEMMA),
    "ministral": _make("MinistralForCausalLM", "MinistralConfig", **SLIDING, **ROPE, **GEMMA),
    "ministral3": _make("Ministral3ForCausalLM", "Ministral3Config", **GEMMA),
    "mpt": _make("MptForCausalLM", "MptConfig", vocab_size=100, d_model=32, n_layers=2, n_heads=4, max_seq_len=64),
    "nemotron": _make("NemotronForCausalLM", "NemotronConfig", **SIZES),
    "olmo": _make("OlmoForCausalLM", "OlmoConfig", **SIZES),
    "olmo3": _make("Olmo3ForCausalLM", "Olmo3Config", **SLIDING, **SIZES),
    "olmoe": _make("OlmoeForCausalLM", "OlmoeConfig", num_experts=4, num_experts_per_tok=2, **SIZES),
    "persimmon": _make("PersimmonForCausalLM", "PersimmonConfig", **MHA),
    "phimoe": _make("PhimoeForCausalLM", "PhimoeConfig", **EXPERTS, **SIZES),
    "qwen2_moe": _make("Qwen2MoeForCausalLM", "Qwen2MoeConfig", shared_expert_intermediate_size=16, **NARROW, **SIZES),
    "qwen3_moe": _make("Qwen3MoeForCausalLM", "Qwen3MoeConfig", **NARROW, **GEMMA),
    "roberta": _make("RobertaForMaskedLM", "RobertaConfig", **ROBERTA),
    "seed_oss": _make("SeedOssForCausalLM", "SeedOssConfig", **GEMMA),
    "smollm3": _make("SmolLM3ForCausalLM", "SmolLM3Config", no_rope_layers=[1, 0], **SIZES),
    "solar_open": _make("SolarOpenForCausalLM", "SolarOpenConfig", n_routed_experts=4, num_experts_per_tok=2,
                        moe_intermediate_size=16, **GEMMA),
    "starcoder2": _make("Starcoder2ForCausalLM", "Starcoder2Config", **WINDOW, **SIZES),
    "vaultgemma": _make("VaultGemmaForCausalLM", "VaultGemmaConfig", query_pre_attn_scalar=16, **SLIDING, **GEMMA),
    "xlm-roberta": _make("XLMRobertaForMaskedLM", "XLMRobertaConfig", **ROBERTA),
}
"""Families whose tables differ little from those above: not in every test, but in those of `test_relatives.py`."""


def build(name: str, seed: int = 0, dtype: torch.dtype = torch.float32,
          attn_implementation: str | None = None) -> nn.Module:
    """A random tiny model of a family; the caller's random state is left alone."""
    model = randomised(FAMILIES.get(name) or RELATIVES[name], seed)
    if attn_implementation is not None:
        model.set_attn_implementation(attn_implementation)
    return model.to(dtype)


def randomised(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A model with random weights, gains and biases; the caller's random state is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make().eval()
        with torch.no_grad():
            for path, parameter in model.named_parameters():
                _randomise(path, parameter)
    return model


def _randomise(path: str, parameter: torch.Tensor) -> None:
    if parameter.ndim == 1 or path.endswith(("q_norm.weight", "k_norm.weight")):
        parameter.add_(0.3 * torch.randn_like(parameter))  # gains, biases, sinks
    elif "vision" not in path and "vqmodel" not in path:
        parameter.normal_(0.0, 0.15)


def tokenizer() -> Any:
    """A word-level tokenizer with a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<pad>", "<unk>", "<image>", "Mary", "John", "the", "store", "user", "assistant", ":"]
    vocabulary = {word: i for i, word in enumerate([*words, *(f"w{i}" for i in range(80))])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                   unk_token="<unk>", additional_special_tokens=["<image>"])
    made.chat_template = ("{% for m in messages %}{{ m['role'] + ' : ' + m['content'] + ' ' }}{% endfor %}"
                          "{% if add_generation_prompt %}assistant :{% endif %}")
    return made


def _chameleon_vocabulary() -> dict[str, int]:
    special = ["<s>", "</s>", "<pad>", "<unk>", "<racm3:break>", "<eoss>", "<reserved08706>", "<image>"]
    words = [*(f"w{i}" for i in range(20)), "a", "cat", "dog", "this", "is"]
    # The model decodes digits written as the letters A to J from the names of its image tokens.
    codes = ["IMGIMG" + "".join(chr(65 + int(digit)) for digit in str(i)) + "Z" for i in range(16)]
    return {text: i for i, text in enumerate([*special, *words, *codes])}


def chameleon_processor() -> Any:
    """The real processor of Chameleon around a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import ChameleonProcessor, PreTrainedTokenizerFast
    from transformers.models.chameleon.image_processing_pil_chameleon import ChameleonImageProcessorPil

    vocabulary = _chameleon_vocabulary()
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                   unk_token="<unk>", additional_special_tokens=list(vocabulary)[4:8])
    made.image_token, made.boi_token, made.eoi_token = "<image>", "<racm3:break>", "<eoss>"
    made.sep_token = "<reserved08706>"
    images = ChameleonImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return ChameleonProcessor(images, made, image_seq_length=16)


def image(seed: int = 0) -> Any:
    """A small random picture."""
    from PIL import Image

    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8))
