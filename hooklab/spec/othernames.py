"""What other libraries call the places that the language names: modules of models, hook points, words of papers.

>>> translated(["attn", "hook_z"]), translated(["self_attn", "q_proj"]), translated(["mlp", "output"])
('z', 'q', 'mlp_out')
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..sites import LAYER_SITES

OTHER_WORDS = {"attention": "attn_out", "residual": "resid_post", "hidden": "resid_post", "stream": "resid_post",
               "query": "q",
               "queries": "q", "key": "k", "keys": "k", "value": "v", "values": "v", "attn_scores": "scores",
               "probs": "pattern", "weights": "pattern", "attn_pattern": "pattern", "output": "resid_post",
               "input": "resid_pre",
               "norm1": "ln1", "norm2": "ln2", "mlp_in": "ln2", "out": "resid_post", "act": "mlp_post",
               "resid_in": "resid_pre"}
MODULES = {"attn": "attn_out", "self_attn": "attn_out", "attention": "attn_out", "mlp": "mlp_out", "feed_forward": "mlp_out",
           "resid": "resid_post", "neurons": "mlp_post", "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "attn_out",
           "out_proj": "attn_out", "gate_proj": "mlp_pre", "up_proj": "mlp_pre_linear", "down_proj": "mlp_out",
           "c_fc": "mlp_pre", "fc_in": "mlp_pre", "fc_out": "mlp_out", "act_fn": "mlp_post", "ln_1": "ln1", "ln_2": "ln2",
           "input_layernorm": "ln1", "post_attention_layernorm": "ln2"}
INSIDE = {("mlp", "pre"): "mlp_pre", ("mlp", "post"): "mlp_post", ("mlp", "in"): "ln2", ("mlp", "input"): "ln2",
          ("mlp", "out"): "mlp_out", ("mlp", "output"): "mlp_out", ("mlp", "c_proj"): "mlp_out", ("mlp", "act"): "mlp_post",
          ("mlp", "neuron"): "mlp_post", ("mlp", "neurons"): "mlp_post", ("attn", "out"): "attn_out",
          ("attn", "output"): "attn_out", ("attn", "input"): "ln1", ("attn", "c_proj"): "attn_out"}
OF_MODEL = {"wte": "embed", "embed_tokens": "embed", "embed_in": "embed", "hook_embed": "embed", "wpe": "pos_embed",
            "hook_pos_embed": "pos_embed", "ln_f": "ln_final", "final_layer_norm": "ln_final", "norm": "ln_final",
            "lm_head": "logits", "embed_out": "logits", "unembed": "logits"}
SHORT = {"attn_out": "attn", "self_attn": "attn", "attention": "attn", "mlp_out": "mlp"}
_BLOCK = r"(?:(?:[^\W\d]\w*\.)*(?:blocks|layers?)|(?:[^\W\d]\w*\.)+h)"
PATH = re.compile(rf"\b{_BLOCK}(?:\.(\d+)|\[(-?\d+)\])((?:\.[^\W\d]\w*)*)(?:\[\d+\])?")
LAYER = re.compile(r"(?:[lL]|[lL]ayer_?|[bB]lock_?|h)(\d+)")


def translated(words: Sequence[str]) -> str | None:
    """The site of a layer that the words behind its number mean elsewhere; of none, what the layer gives."""
    if not words:
        return "resid_post"
    plain = [word.lower().removeprefix("hook_") for word in words]
    last, owner = plain[-1], SHORT.get(plain[-2], plain[-2]) if len(plain) > 1 else ""
    found = INSIDE.get((owner, last)) or (last if last in LAYER_SITES else MODULES.get(last) or OTHER_WORDS.get(last))
    return found if found or len(plain) == 1 else translated(words[:-1])


def place(path: str) -> str | None:
    """The address of a path such as `model.layers[3].self_attn`; None for what is no such path.

    >>> place("blocks.3.attn.hook_z"), place("model.layers[0]"), place("L3.z")
    ('L3.z', 'L0.resid_post', None)
    """
    match = PATH.fullmatch(path)
    if match is None:
        return None
    site = translated([word for word in match[3].split(".") if word])
    return f"L{match[1] or match[2]}.{site}" if site else None
