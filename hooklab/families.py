"""Where each architecture keeps its parts: one small table per Hugging Face `model_type`, and nothing else.

A table says where a *role* lives ("the norm before attention", "the output projection of attention") as a module
path inside one block, and the few facts that modules cannot tell (parallel blocks, packing of fused projections).
`hooklab.model` derives every site from it, and `model.verify()` proves the table by arithmetic. To teach hooklab an
architecture, register a table of your own:

>>> from hooklab.families import LLAMA, register
>>> from dataclasses import replace
>>> _ = register(replace(LLAMA, name="my_llama", ln2="mlp_norm"))
>>> family("my_llama").ln2
'mlp_norm'
>>> _ = unregister("my_llama")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import FamilyError, did_you_mean

PARALLEL = "attention and MLP both read resid_pre in parallel, so the stream has no middle. Use resid_pre or resid_post"
EXPERTS = "its MLP is a mixture of experts: each token passes through a few of many small MLPs. Use mlp_out or ln2"
NO_GATE = "its MLP has one branch only. Use mlp_pre"
SHARED_NORM = "one norm serves attention and MLP. Use ln1"
READS_STREAM = "attention and MLP read the stream as it is; the norms come after them, inside attn_out and mlp_out"
NO_POSITIONS = "positions enter inside attention, not as a learned vector in the stream"
POST_NORM = "norms come after attention and MLP, so what attention reads is resid_pre"
POST_FINAL = "every block already ends in a norm. Use the last resid_post"
HEADLESS = "it was loaded without a language-model head. Use the last resid_post or ln_final"


@dataclass(frozen=True)
class Family:
    """Where one architecture keeps its parts.

    Paths are relative to the base model (`blocks`, `embed`, `pos_embed`, `ln_final`) or to one block (all others).

    Attributes:
        name: The config's `model_type`.
        blocks: The list of blocks.
        embed: The module whose output enters the stream as token embedding.
        pos_embed: Learned positions, or None.
        ln_final: The norm before the unembedding, or None.
        ln1, ln2: Norm before attention and before the MLP, or None where there is none.
        post_attn, post_mlp: Norm between attention (MLP) and the stream, or None.
        attn: The attention module.
        q, k, v: Separate projections; or None when `qkv` is one fused projection.
        qkv, packing: The fused projection, and how it is packed: `"concat"` (all q, all k, all v), `"per_head"`
            (q, k, v of head 0, then of head 1 …), `"grouped"` (per kv head: its queries, its key, its value),
            `"multi_query"` (all q, one k, one v).
        o: Output projection of attention.
        mlp: The MLP module, read only where it is a mixture of experts.
        gate, up, down: Input (or gate) projection, linear branch, output projection of the MLP. `gate` None: experts.
        gate_up: A fused projection that holds gate and up one after the other.
        mid: Module whose input is the stream between attention and MLP, where that is not `ln2`.
        residual: `"sequential"`, `"parallel"` or `"post"` (a norm after each addition, as in BERT).
        norm: `"layer"`, `"rms"` or `"rms1p"` (gain stored as 1 + weight).
        attention: `"registry"` where the attention function is looked up in transformers' registry, `"inline"`
            where the module computes it itself.
        rotary: Whether queries and keys are rotated (or normalised) between projection and dot product.
        scaled_q: Whether queries are scaled before the dot product (rot_q is given without that factor).
        folds: Whether the block folds batch and pos into one axis on its way through the MLP.
        never: Path, from the base model, to the ids of tokens that the model never predicts: their logits are the lowest.
        variants: Pairs (condition on the config, changes): every one that holds is applied.
        why: Reasons for sites that this architecture lacks, where the usual reason does not fit.
    """

    name: str
    blocks: str = "layers"
    embed: str = "embed_tokens"
    pos_embed: str | None = None
    ln_final: str | None = "norm"
    ln1: str | None = "input_layernorm"
    ln2: str | None = "post_attention_layernorm"
    post_attn: str | None = None
    post_mlp: str | None = None
    attn: str = "self_attn"
    q: str | None = "self_attn.q_proj"
    k: str | None = "self_attn.k_proj"
    v: str | None = "self_attn.v_proj"
    qkv: str | None = None
    packing: str = "concat"
    o: str = "self_attn.o_proj"
    mlp: str = "mlp"
    gate: str | None = "mlp.gate_proj"
    up: str | None = "mlp.up_proj"
    gate_up: str | None = None
    down: str | None = "mlp.down_proj"
    mid: str | None = None
    residual: str = "sequential"
    norm: str = "rms"
    attention: str = "registry"
    rotary: bool = True
    scaled_q: bool = False
    folds: bool = False
    never: str | None = None
    variants: tuple[tuple[Callable[[Any], bool], dict[str, Any]], ...] = ()
    why: dict[str, str] = field(default_factory=dict)

    def for_config(self, config: Any) -> Family:
        """This table with the variants that `config` asks for applied."""
        table = self
        for condition, changes in self.variants:
            if condition(config):
                table = replace(table, **{**changes, "why": {**table.why, **changes.get("why", {})}})
        return replace(table, variants=())

    def missing(self, site: str, *, head: bool = True) -> str | None:
        """Why the architecture has no such site, or None when it has it."""
        if site in self.why:
            return self.why[site]
        lacks: dict[str, tuple[bool, str]] = {
            "pos_embed": (self.pos_embed is None, NO_POSITIONS),
            "resid_mid": (self.residual == "parallel", PARALLEL),
            "ln1": (self.ln1 is None, READS_STREAM),
            "ln1_scale": (self.ln1 is None, READS_STREAM),
            "ln2": (self.ln2 is None, SHARED_NORM if self.residual == "parallel" else READS_STREAM),
            "ln2_scale": (self.ln2 is None, SHARED_NORM if self.residual == "parallel" else READS_STREAM),
            "mlp_pre": (self.gate is None and self.gate_up is None, EXPERTS),
            "mlp_pre_linear": (self.up is None and self.gate_up is None, EXPERTS if self.down is None else NO_GATE),
            "mlp_post": (self.down is None, EXPERTS),
            "ln_final": (self.ln_final is None, POST_FINAL),
            "ln_final_scale": (self.ln_final is None, POST_FINAL),
            "logits": (not head, HEADLESS),
        }
        absent, reason = lacks.get(site, (False, ""))
        return reason if absent else None


LLAMA = Family("llama")
"""The commonest shape; most other tables are this one with a few paths replaced."""

GPT_MLP: dict[str, Any] = dict(gate="mlp.dense_h_to_4h", up=None, down="mlp.dense_4h_to_h")
SANDWICH: dict[str, Any] = dict(ln2="pre_feedforward_layernorm", post_attn="post_attention_layernorm",
                post_mlp="post_feedforward_layernorm", norm="rms1p")
NO_DENSE: dict[str, Any] = dict(gate=None, up=None, down=None)
IN_PARALLEL: dict[str, Any] = dict(residual="parallel")

_TABLES = (
    LLAMA,
    *(replace(LLAMA, name=name) for name in ("mistral", "qwen2", "qwen3")),
    replace(LLAMA, name="mixtral", **NO_DENSE),
    replace(LLAMA, name="gpt_oss", **NO_DENSE),
    replace(LLAMA, name="gemma", norm="rms1p"),
    replace(LLAMA, name="gemma2", **SANDWICH),
    replace(LLAMA, name="gemma3_text", **SANDWICH),
    replace(LLAMA, name="olmo2", ln1=None, ln2=None, mid="mlp", post_attn="post_attention_layernorm",
            post_mlp="post_feedforward_layernorm"),
    replace(LLAMA, name="stablelm", norm="layer",
            variants=((lambda c: c.use_parallel_residual, dict(ln2=None, **IN_PARALLEL)),)),
    replace(LLAMA, name="phi3", q=None, k=None, v=None, qkv="self_attn.qkv_proj",
            gate=None, up=None, gate_up="mlp.gate_up_proj"),
    replace(LLAMA, name="phi", ln2=None, ln_final="final_layernorm", o="self_attn.dense", gate="mlp.fc1", up=None,
            down="mlp.fc2", norm="layer", residual="parallel"),
    replace(LLAMA, name="chameleon", never="vocabulary_mapping.image_tokens",
            variants=((lambda c: getattr(c, "swin_norm", False),
                       dict(ln1=None, ln2=None, mid="mlp", post_attn="input_layernorm",
                            post_mlp="post_attention_layernorm")),)),
    Family("gpt2", blocks="h", embed="wte", pos_embed="wpe", ln_final="ln_f", ln1="ln_1", ln2="ln_2", attn="attn",
           q=None, k=None, v=None, qkv="attn.c_attn", o="attn.c_proj", gate="mlp.c_fc", up=None, down="mlp.c_proj",
           norm="layer", rotary=False),
    Family("gpt_neo", blocks="h", embed="wte", pos_embed="wpe", ln_final="ln_f", ln1="ln_1", ln2="ln_2",
           attn="attn.attention", q="attn.attention.q_proj", k="attn.attention.k_proj", v="attn.attention.v_proj",
           o="attn.attention.out_proj", gate="mlp.c_fc", up=None, down="mlp.c_proj", norm="layer",
           attention="inline", rotary=False),
    Family("gptj", blocks="h", embed="wte", ln_final="ln_f", ln1="ln_1", ln2=None, attn="attn", q="attn.q_proj",
           k="attn.k_proj", v="attn.v_proj", o="attn.out_proj", gate="mlp.fc_in", up=None, down="mlp.fc_out",
           norm="layer", residual="parallel", attention="inline"),
    Family("gpt_neox", embed="embed_in", ln_final="final_layer_norm", attn="attention", q=None, k=None, v=None,
           qkv="attention.query_key_value", packing="per_head", o="attention.dense", **GPT_MLP, norm="layer",
           variants=((lambda c: c.use_parallel_residual, IN_PARALLEL),)),
    Family("opt", blocks="decoder.layers", embed="decoder.embed_tokens", pos_embed="decoder.embed_positions",
           ln_final="decoder.final_layer_norm", ln1="self_attn_layer_norm", ln2="final_layer_norm",
           o="self_attn.out_proj", gate="fc1", up=None, down="fc2", norm="layer", rotary=False, scaled_q=True, folds=True,
           variants=(
               (lambda c: c.word_embed_proj_dim != c.hidden_size, dict(embed="decoder.project_in")),
               (lambda c: not c.do_layer_norm_before,
                dict(residual="post", ln1=None, ln2="self_attn_layer_norm", ln_final=None,
                     why=dict(ln1=POST_NORM, ln1_scale=POST_NORM))))),
    Family("bloom", blocks="h", embed="word_embeddings_layernorm", ln_final="ln_f", attn="self_attention",
           q=None, k=None, v=None, qkv="self_attention.query_key_value", packing="per_head",
           o="self_attention.dense", **GPT_MLP, norm="layer", attention="inline", rotary=False,
           variants=((lambda c: c.apply_residual_connection_post_layernorm,
                      dict(why=dict(resid_mid="this config adds attention to the normalised stream"))),)),
    Family("falcon", blocks="h", embed="word_embeddings", ln_final="ln_f", attn="self_attention",
           q=None, k=None, v=None, qkv="self_attention.query_key_value", packing="per_head",
           o="self_attention.dense", **GPT_MLP, norm="layer", attention="inline",
           variants=(
               (lambda c: c.multi_query and not c.new_decoder_architecture, dict(packing="multi_query")),
               (lambda c: c.new_decoder_architecture, dict(packing="grouped")),
               (lambda c: c.parallel_attn or c.new_decoder_architecture, dict(ln2=None, **IN_PARALLEL)),
               (lambda c: c.new_decoder_architecture and c.num_ln_in_parallel_attn != 1,
                dict(ln1="ln_attn", ln2="ln_mlp")))),
    Family("bert", blocks="encoder.layer", embed="embeddings.word_embeddings",
           pos_embed="embeddings.position_embeddings", ln_final=None, ln1=None, ln2="attention.output.LayerNorm",
           attn="attention.self", q="attention.self.query", k="attention.self.key", v="attention.self.value",
           o="attention.output.dense", gate="intermediate.dense", up=None, down="output.dense", residual="post",
           norm="layer", rotary=False, why=dict(ln1=POST_NORM, ln1_scale=POST_NORM)),
)

FAMILIES: dict[str, Family] = {table.name: table for table in _TABLES}

_BUILT_IN = frozenset(FAMILIES)

WRAPPERS: dict[str, str] = {"llava": "language_model", "gemma3": "language_model"}
"""Models that hold a language model inside: `model_type` -> its path in the base model."""


def register(table: Family) -> Family:
    """Teach hooklab an architecture; the table's name is the config's `model_type`.

    Raises:
        FamilyError: the name belongs to a table that ships with hooklab.
    """
    if table.name in _BUILT_IN:
        raise FamilyError(f'"{table.name}" is a table of hooklab itself; give yours the name of your model_type.')
    FAMILIES[table.name] = table
    return table


def unregister(name: str) -> Family:
    """Forget a registered architecture and return its table.

    Raises:
        FamilyError: no such table was registered.
    """
    if name in _BUILT_IN or name not in FAMILIES:
        raise FamilyError(f'"{name}" was not registered.' + did_you_mean(name, set(FAMILIES) - _BUILT_IN))
    return FAMILIES.pop(name)


def family(model_type: str) -> Family:
    """The table for a `model_type`.

    Raises:
        FamilyError: there is none; the message shows the way to add one.
    """
    if model_type not in FAMILIES:
        raise FamilyError(
            f'hooklab has no table for "{model_type}".{did_you_mean(model_type, FAMILIES)} '
            f"Known: {', '.join(sorted(FAMILIES))}. A table of about ten lines teaches it: see hooklab.families.register.")
    return FAMILIES[model_type]
