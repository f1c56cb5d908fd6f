"""Where a site is in the Hugging Face module, as the text of a function that hooks it.

Every function takes the layer and an `edit(x, i)` that changes the site's tensor in place; it registers one plain
PyTorch hook and returns its handle. Paths and sizes are written into the text, taken from the model's layout.
"""

from __future__ import annotations

from typing import Any

from ..model.layout import Layout
from ..model.ports import centres, norm_eps
from ..sites import MODEL_SITES, SITES
from .text import CodeError

INSIDE = ("rot_q", "rot_k", "scores", "pattern")
"""Sites inside the attention function, which no module's hook reaches."""


def hook_lines(layout: Layout, site: str) -> list[str]:
    """The function `hook_SITE(i, edit)`.

    Raises:
        CodeError: plain hooks cannot reach the site in this family.
    """
    about = f'    """{site}, [{" ".join(SITES[site].axes)}]: {{}}."""'
    start = [f"def hook_{site}(i, edit):"]
    if site in INSIDE:
        scaled = site == "rot_q" and layout.family.scaled_q
        if layout.family.attention == "inline" or layout.config.model_type == "gpt_oss" or scaled:
            raise CodeError(f"{site} is inside the attention of {layout.family.name}, where plain hooks do not reach")
        return [*start, about.format(f"{SITES[site].meaning}, inside the attention function"),
                "    handle = RemovableHandle(inside)",
                f'    inside[handle.id] = ("{site}", i, edit)',
                "    return handle"]
    if layout.family.folds and site in ("ln2", "ln2_scale", "mlp_pre", "mlp_post", "mlp_out"):
        raise CodeError(f"{layout.family.name} folds batch and position into one axis around {site}")
    if (site if site != "result" else "attn_out") in layout.family.factors and site != "logits":
        raise CodeError(f"{layout.family.name} multiplies {site} by a number of its config on its way into the stream, "
                        "which plain hooks do not see")
    module, side = module_of(layout, site)
    name = module.removeprefix("hf.").split("[i].")[-1] if "[i]." in module else "the block" if "[i]" in module else module
    name = "the model" if name == "hf" else name
    lines, words = _body(layout, site, side)
    verb = {"pre": "receives", "post": "returns"}["pre" if side == "input" else "post"]
    register = "register_forward_pre_hook" if side == "input" else "register_forward_hook"
    arguments = "module, args" if side == "input" else "module, args, output"
    about = about.format(words.format(name) if words else f"what {name} {verb}")
    return [*start, about, f"    def hook({arguments}):", *("        " + line for line in lines),
            f"    return {module}.{register}(hook)"]


def module_of(layout: Layout, site: str) -> tuple[str, str]:
    """The module that carries a site, as an expression in `i`, and the side that is hooked."""
    port = layout.port(site, None if site in MODEL_SITES else 0)
    place, _, side = str(port.later or port.source).rpartition(".")
    path = place.removeprefix("model").removeprefix(".")
    blocks = layout.names[id(layout.blocks[0])]
    if port.layer is None:
        return ("hf." + path if path else "hf"), side
    rest = path.removeprefix(blocks)
    return f"hf.{blocks.removesuffix('.0')}[i]{rest}", side


def _body(layout: Layout, site: str, side: str) -> tuple[list[str], str]:
    """The lines of the hook, and what the site is in words (empty: what the module receives or returns)."""
    if site.endswith("_scale"):
        return _scale(layout, site)
    if site == "result":
        return _result(layout)
    if site == "resid_mid":
        return ["whole = args[0].clone()", "edit(whole, i)",
                "args[0].copy_(whole)  # in place: the block adds this very tensor to the stream again"], "what {0} receives"
    if site == "logits":
        return ["whole = output.logits.clone()", "edit(whole, i)", "output.logits = whole", "return output"], ""
    view, words = _view(layout, site)
    if side == "input":
        return ["whole = args[0].clone()", *view, "return (whole, *args[1:])"], "what {0} receives" + words
    if site == "resid_post" or (site == "mlp_out" and not layout.family.down):
        return ["first = output[0] if isinstance(output, tuple) else output", "whole = first.clone()", *view,
                "return (whole, *output[1:]) if isinstance(output, tuple) else whole"], ""
    return ["whole = output.clone()", *view, "return whole"], "what {0} returns" + words


def _view(layout: Layout, site: str) -> tuple[list[str], str]:
    """Lines that edit a site's part of `whole`, and how it is cut out in words."""
    facts, table = layout.facts, layout.family
    heads, kv, d_head = facts.n_heads, facts.n_kv_heads, facts.d_head
    if site == "z":
        return [f"edit(whole.unflatten(-1, ({heads}, {d_head})), i)"], ", split into heads"
    if site in ("q", "k", "v"):
        count = heads if site == "q" else kv
        if table.qkv is None:
            return [f"edit(whole.unflatten(-1, ({count}, {d_head})), i)"], ", split into heads"
        return _fused(site, table.packing, heads, kv, d_head), f"; {site} is a part of it"
    if site in ("mlp_pre", "mlp_pre_linear") and table.gate_up:
        half = facts.d_mlp
        part = f":{half}" if site == "mlp_pre" else f"{half}:"
        return [f"edit(whole[..., {part}], i)"], ", one half of it"
    return ["edit(whole, i)"], ""


def _fused(site: str, packing: str, heads: int, kv: int, d_head: int) -> list[str]:
    group = heads // kv
    if packing in ("concat", "multi_query"):
        start, stop = {"q": (0, heads), "k": (heads, heads + kv), "v": (heads + kv, heads + 2 * kv)}[site]
        return [f"edit(whole[..., {start * d_head}:{stop * d_head}].unflatten(-1, ({stop - start}, {d_head})), i)"]
    if packing == "per_head":
        return [f"edit(whole.unflatten(-1, ({heads}, 3, {d_head}))[..., {'qkv'.index(site)}, :], i)"]
    split = f"whole.unflatten(-1, ({kv}, {group + 2}, {d_head}))"
    if site != "q":
        return [f"edit({split}[..., {group + (site == 'v')}, :], i)"]
    return [f"part = {split}[..., :{group}, :]", "q = part.flatten(-3, -2)", "edit(q, i)", "part.copy_(q.view_as(part))"]


def _scale(layout: Layout, site: str) -> tuple[list[str], str]:
    role = site.removesuffix("_scale")
    norm: Any = layout.module(layout.base, str(layout.family.ln_final)) if role == "ln_final" else layout.role(0, role)
    kind = layout.family.norm
    eps = norm_eps(norm, kind)
    if centres(kind):
        old = f"(x.var(-1, unbiased=False, keepdim=True) + {eps!r}).sqrt()"
    else:
        old = f"(x.pow(2).mean(-1, keepdim=True) + {eps!r}).sqrt()"
    gain = "(1 + module.weight)" if kind.endswith("1p") else "module.weight"
    centred = "(x - x.mean(-1, keepdim=True))" if centres(kind) else "x"
    gain = "" if getattr(norm, "weight", None) is None else f" * {gain}"
    return ["x = args[0].float()", f"old = {old}", "new = old.clone()", "edit(new, i)", f"x = {centred}{gain}",
            "return output + (x / new - x / old).to(output.dtype)"], "what {0} divides by"


def _result(layout: Layout) -> tuple[list[str], str]:
    heads, d_head = layout.facts.n_heads, layout.facts.d_head
    weight = "module.weight" if type(layout.role(0, "o")).__name__ == "Conv1D" else "module.weight.T"
    return [f"z = args[0].unflatten(-1, ({heads}, {d_head}))",
            f'old = torch.einsum("bphd,hdm->bphm", z, {weight}.unflatten(0, ({heads}, {d_head})))',
            "new = old.clone()", "edit(new, i)", "return output + (new - old).sum(2)"], (
        "each head's share of what {0} returns")


def attention_lines(layout: Layout) -> list[str]:
    """An attention function that computes what the model's own does, with room for edits on the way."""
    module = layout.names[id(layout.role(0, "attn"))].removeprefix(layout.names[id(layout.blocks[0])])
    blocks = layout.names[id(layout.blocks[0])].removesuffix(".0")
    cap = getattr(layout.config, "attn_logit_softcapping", None) is not None
    capped = ["    if softcap is not None:", "        scores = torch.tanh(scores / softcap) * softcap"] if cap else []
    return ["inside = OrderedDict()  # edits inside attention: number -> (site, layer, edit)",
            f"layer_of_module = {{block{module}: i for i, block in enumerate(hf.{blocks})}}",
            "", "",
            "def attention(module, query, key, value, mask, scaling=None, softcap=None, **kwargs):",
            '    """What every layer computes between q, k, v and z, written out so that edits get inside."""',
            "    def served(site, x):",
            "        for wanted, i, edit in list(inside.values()):",
            "            if (wanted, i) == (site, layer_of_module[module]):",
            "                x = x.clone()",
            "                edit(x, i)",
            "        return x",
            "",
            '    query = served("rot_q", query.transpose(1, 2)).transpose(1, 2)',
            '    key = served("rot_k", key.transpose(1, 2)).transpose(1, 2)',
            "    group = query.shape[1] // key.shape[1]  # query heads that share one key head",
            "    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)",
            "    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)",
            *capped,
            "    if mask is not None:",
            "        scores = scores + mask[..., :key.shape[-2]]",
            '    pattern = served("pattern", served("scores", scores).softmax(-1))',
            "    return (pattern @ value).transpose(1, 2).contiguous(), pattern",
            "", "",
            'AttentionInterface.register("written_out", attention)',
            'AttentionMaskInterface.register("written_out", eager_mask)  # without it attention would see the future']


ATTENTION_IMPORTS = ("from collections import OrderedDict",
                     "from torch.utils.hooks import RemovableHandle",
                     "from transformers import AttentionInterface, AttentionMaskInterface",
                     "from transformers.masking_utils import eager_mask")
