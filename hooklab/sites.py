"""The glossary: every site and axis that hooklab knows, in the order in which a forward pass reaches them.

A *site* is a named point of the forward pass. This table says what the name means on every architecture;
`hooklab.families` says where each architecture keeps it. Axis words are used everywhere: in docstrings, in
`Scores`, in views and in files.

>>> SITES["z"].axes
('batch', 'pos', 'head', 'd_head')
>>> [site.name for site in SITES.values() if site.scope == "model"]
['embed', 'pos_embed', 'ln_final_scale', 'ln_final', 'logits']
"""

from __future__ import annotations

from dataclasses import dataclass

AXES: dict[str, str] = {
    "batch": "examples of one forward pass",
    "pos": "tokens of one example",
    "query_pos": "tokens that look",
    "key_pos": "tokens that are looked at",
    "layer": "blocks, counted from 0",
    "head": "query heads",
    "kv_head": "key and value heads (fewer than heads under grouped-query attention)",
    "d_model": "width of the residual stream",
    "d_head": "width of one head",
    "d_mlp": "neurons of one MLP",
    "d_vocab": "vocabulary entries",
    "feature": "features of a dictionary",
    "step": "tokens generated so far",
    "one": "a single number per position",
}

STREAM = ("batch", "pos", "d_model")
HEADS = ("batch", "pos", "head", "d_head")
KV_HEADS = ("batch", "pos", "kv_head", "d_head")
PAIRS = ("batch", "head", "query_pos", "key_pos")
NEURONS = ("batch", "pos", "d_mlp")
ONE = ("batch", "pos", "one")


@dataclass(frozen=True)
class Site:
    """One row of the glossary.

    Attributes:
        name: The word used in addresses, traces and specs.
        scope: `"layer"` for a site that every block has, `"model"` for one that exists once.
        axes: Axis words of its value, in order.
        meaning: One line.
        derived: Whether the value is computed from others rather than passed along by the model.
        tl: TransformerLens' name for it, with `{}` for the layer; accepted as an alias.
    """

    name: str
    scope: str
    axes: tuple[str, ...]
    meaning: str
    tl: str = ""
    derived: bool = False


_ROWS = (
    Site("embed", "model", STREAM, "token embedding as it enters the stream", "hook_embed"),
    Site("pos_embed", "model", STREAM, "learned position embedding", "hook_pos_embed"),
    Site("resid_pre", "layer", STREAM, "residual stream before the block", "blocks.{}.hook_resid_pre"),
    Site("ln1_scale", "layer", ONE, "divisor of the norm before attention", "blocks.{}.ln1.hook_scale", True),
    Site("ln1", "layer", STREAM, "normalised input of attention", "blocks.{}.ln1.hook_normalized"),
    Site("q", "layer", HEADS, "query projection, before rotation", "blocks.{}.attn.hook_q"),
    Site("k", "layer", KV_HEADS, "key projection, before rotation", "blocks.{}.attn.hook_k"),
    Site("v", "layer", KV_HEADS, "value projection", "blocks.{}.attn.hook_v"),
    Site("rot_q", "layer", HEADS, "queries that the dot product sees", "blocks.{}.attn.hook_rot_q"),
    Site("rot_k", "layer", KV_HEADS, "keys that the dot product sees", "blocks.{}.attn.hook_rot_k"),
    Site("scores", "layer", PAIRS, "attention before softmax, masked", "blocks.{}.attn.hook_attn_scores"),
    Site("pattern", "layer", PAIRS, "attention after softmax", "blocks.{}.attn.hook_pattern"),
    Site("z", "layer", HEADS, "pattern-weighted values of each head", "blocks.{}.attn.hook_z"),
    Site("result", "layer", ("batch", "pos", "head", "d_model"), "each head's own write, z W_O, bias apart",
         "blocks.{}.attn.hook_result", True),
    Site("attn_out", "layer", STREAM, "what attention adds to the stream", "blocks.{}.hook_attn_out"),
    Site("resid_mid", "layer", STREAM, "residual stream between attention and MLP",
         "blocks.{}.hook_resid_mid", True),
    Site("ln2_scale", "layer", ONE, "divisor of the norm before the MLP", "blocks.{}.ln2.hook_scale", True),
    Site("ln2", "layer", STREAM, "normalised input of the MLP", "blocks.{}.ln2.hook_normalized"),
    Site("mlp_pre", "layer", NEURONS, "gate (or only) pre-activation", "blocks.{}.mlp.hook_pre"),
    Site("mlp_pre_linear", "layer", NEURONS, "linear branch of a gated MLP", "blocks.{}.mlp.hook_pre_linear"),
    Site("mlp_post", "layer", NEURONS, "what the MLP's output projection reads", "blocks.{}.mlp.hook_post"),
    Site("mlp_out", "layer", STREAM, "what the MLP adds to the stream", "blocks.{}.hook_mlp_out"),
    Site("resid_post", "layer", STREAM, "residual stream after the block", "blocks.{}.hook_resid_post"),
    Site("ln_final_scale", "model", ONE, "divisor of the final norm", "ln_final.hook_scale", True),
    Site("ln_final", "model", STREAM, "normalised input of the unembedding", "ln_final.hook_normalized"),
    Site("logits", "model", ("batch", "pos", "d_vocab"), "next-token scores, after any soft-cap", ""),
)

SITES: dict[str, Site] = {site.name: site for site in _ROWS}
LAYER_SITES: tuple[str, ...] = tuple(s.name for s in _ROWS if s.scope == "layer")
MODEL_SITES: tuple[str, ...] = tuple(s.name for s in _ROWS if s.scope == "model")
ORDER: dict[str, int] = {name: i for i, name in enumerate(SITES)}
