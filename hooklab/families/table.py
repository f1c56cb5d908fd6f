"""What a table of an architecture says, and why a site may be missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

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
        norm: `"layer"`, `"rms"`, or `"layer1p"` and `"rms1p"` (the gain is 1 + what is stored).
        attention: `"registry"` where the attention function is looked up in transformers' registry, `"inline"`
            where the module computes it itself.
        rotary: Whether queries and keys are rotated (or normalised) between projection and dot product.
        scaled_q: Whether queries are scaled before the dot product (rot_q is given without that factor).
        folds: Whether the block folds batch and pos into one axis on its way through the MLP.
        summed: Whether the stream begins as the sum of embeddings and positions; BERT adds more, and normalises.
        restarts: Whether a block that is no `"post"` one yet adds to a normalised stream, so that writes do not add up.
        head_layers: Whether the language-model head has layers of its own before its last matrix, as BERT's.
        factors: Site -> the config's number by which the block, or the model, multiplies what the site's module gives on its
            way into the stream, or into the logits; with `/` in front, by which it is divided. Sites `embed`, `attn_out`,
            `mlp_out`, `logits`.
        clips: Site -> where the config says between what number and its negative the model keeps queries, keys or values,
            right behind their projection: `"clip_qkv"`. Sites `q`, `k`, `v`.
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
    summed: bool = True
    restarts: bool = False
    head_layers: bool = False
    factors: dict[str, str] = field(default_factory=dict)
    clips: dict[str, str] = field(default_factory=dict)
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

    @property
    def adds_up(self) -> bool:
        """Whether the stream at the end is the sum of what was written to it: no norm stands in the stream itself."""
        return self.residual != "post" and not self.restarts

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
