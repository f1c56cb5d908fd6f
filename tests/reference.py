"""A transformer written by hand: the oracle for every site of every family.

It reads a model's parameters and config and computes the forward pass with einsum, calling no module of transformers
and nothing of hooklab. `edits` replace a site's value by what a function makes of it, with the full meaning of its
name: everything downstream is computed from the new value. One example length, no padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Edit = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Arch:
    """What distinguishes one family's mathematics; module paths are relative to a block."""

    blocks: str = "model.layers"
    embed: str = "model.embed_tokens"
    final: str | None = "model.norm"
    head: str = "lm_head"
    attn: str = "self_attn"
    proj: tuple[str, str, str] = ("q_proj", "k_proj", "v_proj")
    fused: str | None = None
    out: str = "o_proj"
    ln1: str | None = "input_layernorm"
    ln2: str | None = "post_attention_layernorm"
    post_attn: str | None = None
    post_mlp: str | None = None
    mlp: tuple[str | None, str | None, str | None] = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    act: str = "silu"
    norm: str = "rms"
    plan: str = "sequential"
    rotary: str = "half"
    part: float = 1.0
    alibi: str = ""
    scale: float | None = None
    causal: bool = True


LLAMA = Arch()
SANDWICH = dict(ln2="pre_feedforward_layernorm", post_attn="post_attention_layernorm",
                post_mlp="post_feedforward_layernorm", norm="rms1", act="gelu_tanh")
TRANSFORMER = dict(blocks="transformer.h", embed="transformer.wte", final="transformer.ln_f", ln1="ln_1", ln2="ln_2",
                   norm="layer", act="gelu_tanh", rotary="")
NEOX_MLP = ("mlp.dense_h_to_4h", None, "mlp.dense_4h_to_h")
GPT2 = Arch(**TRANSFORMER, attn="attn", fused="c_attn:thirds", out="c_proj", mlp=("mlp.c_fc", None, "mlp.c_proj"))
NEOX = Arch(blocks="gpt_neox.layers", embed="gpt_neox.embed_in", final="gpt_neox.final_layer_norm", attn="attention",
            fused="query_key_value:by_head", out="dense", mlp=NEOX_MLP, act="gelu", norm="layer", plan="parallel2",
            part=0.25)
OPT = Arch(blocks="model.decoder.layers", embed="model.decoder.embed_tokens", final="model.decoder.final_layer_norm",
           out="out_proj", ln1="self_attn_layer_norm", ln2="final_layer_norm", mlp=("fc1", None, "fc2"), act="relu",
           norm="layer", rotary="")
FALCON = Arch(blocks="transformer.h", embed="transformer.word_embeddings", final="transformer.ln_f",
              attn="self_attention", fused="query_key_value:one_kv", out="dense", mlp=NEOX_MLP, act="gelu",
              norm="layer", plan="parallel1")
BERT = Arch(blocks="bert.encoder.layer", embed="bert.embeddings.word_embeddings", final=None, attn="attention.self",
            proj=("query", "key", "value"), out="../output.dense", ln1="attention.output.LayerNorm",
            ln2="output.LayerNorm", mlp=("intermediate.dense", None, "output.dense"), act="gelu", norm="layer",
            rotary="", plan="post", causal=False)

ARCHES: dict[str, Arch] = {
    "gpt2": GPT2,
    "gpt_neo": Arch(**TRANSFORMER, attn="attn.attention", out="out_proj", mlp=("mlp.c_fc", None, "mlp.c_proj"),
                    scale=1.0),
    "gptj": Arch(**{**TRANSFORMER, "rotary": "pairs", "ln2": None}, attn="attn", out="out_proj", plan="parallel1",
                 mlp=("mlp.fc_in", None, "mlp.fc_out"), part=0.5),
    "gpt_neox": NEOX,
    "opt": OPT,
    "phi": replace(LLAMA, final="model.final_layernorm", out="dense", ln2=None, mlp=("mlp.fc1", None, "mlp.fc2"),
                   act="gelu_tanh", norm="layer", plan="parallel1", part=0.5),
    "phi3": replace(LLAMA, fused="qkv_proj:rows", mlp=("mlp.gate_up_proj", "fused", "mlp.down_proj")),
    "bloom": Arch(blocks="transformer.h", embed="transformer.word_embeddings", final="transformer.ln_f",
                  attn="self_attention", fused="query_key_value:by_head", out="dense", mlp=NEOX_MLP, act="gelu_tanh",
                  norm="layer", rotary="", alibi="added"),
    "falcon": FALCON,
    "llama": LLAMA, "mistral": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA,
    "mixtral": replace(LLAMA, mlp=(None, None, None)),
    "gpt_oss": replace(LLAMA, mlp=(None, None, None)),
    "gemma": replace(LLAMA, norm="rms1", act="gelu_tanh"),
    "gemma2": replace(LLAMA, **SANDWICH), "gemma3_text": replace(LLAMA, **SANDWICH),
    "stablelm": replace(LLAMA, norm="layer", part=0.25),
    "olmo2": replace(LLAMA, ln1=None, ln2=None, post_attn="post_attention_layernorm",
                     post_mlp="post_feedforward_layernorm"),
    "bert": BERT,
    "chameleon": LLAMA,
    "llava": replace(LLAMA, blocks="model.language_model.layers", embed="model.language_model.embed_tokens",
                     final="model.language_model.norm"),
}
ACTS: dict[str, Edit] = {"silu": F.silu, "gelu": F.gelu, "relu": F.relu,
                         "gelu_tanh": lambda x: F.gelu(x, approximate="tanh")}


def arch_of(config: Any) -> Arch:
    """The mathematics of a config."""
    arch = ARCHES[config.model_type]
    if config.model_type == "gpt_neox" and not config.use_parallel_residual:
        return replace(arch, plan="sequential")
    if config.model_type == "stablelm" and config.use_parallel_residual:
        return replace(arch, plan="parallel1", ln2=None)
    if config.model_type == "opt" and not config.do_layer_norm_before:
        return replace(arch, plan="post", final=None)
    if config.model_type == "falcon" and config.new_decoder_architecture:
        return replace(arch, plan="parallel2", fused="query_key_value:by_group", ln1="ln_attn", ln2="ln_mlp")
    if config.model_type == "falcon" and not config.parallel_attn:
        return replace(arch, plan="sequential", fused="query_key_value:by_head", alibi="scaled", rotary="")
    return arch


class Run:
    """One forward pass: the values of every site, with edits applied as they are reached."""

    def __init__(self, model: Any, edits: dict[str, Edit]) -> None:
        self.model, self.config, self.edits = model, model.config.get_text_config(), edits
        self.arch = arch_of(model.config)
        self.values: dict[str, Tensor] = {}
        prefix = model.base_model_prefix
        self.strip = "" if hasattr(model, prefix) and prefix else prefix + "."
        self.d_head = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.heads

    @property
    def heads(self) -> int:
        return self.config.num_attention_heads

    def site(self, name: str, value: Tensor) -> Tensor:
        """Record a site; return what the rest of the pass is to use."""
        if name in self.edits:
            value = self.edits[name](value)
        self.values[name] = value
        return value

    def get(self, path: str, root: Any = None) -> Any:
        """A submodule; base models lack the prefix."""
        return (root or self.model).get_submodule(path.removeprefix(self.strip) if root is None else path)

    # Small pieces ---------------------------------------------------------------------------------------------------

    def linear(self, module: Any, x: Tensor) -> Tensor:
        """x W + b."""
        weight = module.weight if type(module).__name__ == "Conv1D" else module.weight.T
        out = torch.einsum("...i,io->...o", x, weight)
        return out if module.bias is None else out + module.bias

    def norm(self, module: Any, x: Tensor, kind: str, name: str | None = None) -> Tensor:
        """LayerNorm or RMSNorm; with a name, its divisor and its output are sites."""
        eps = getattr(module, "eps", None) or getattr(module, "variance_epsilon", 0.0)
        centred = x - x.mean(-1, keepdim=True) if kind == "layer" else x
        divisor = ((centred**2).mean(-1, keepdim=True) + eps).sqrt()
        if name is not None:
            divisor = self.site(name + "_scale", divisor)
        gain = 1 + module.weight if kind == "rms1" else module.weight
        out = centred / divisor * gain
        if getattr(module, "bias", None) is not None:
            out = out + module.bias
        return out if name is None else self.site(name, out)

    def rotate(self, x: Tensor, layer: int) -> Tensor:
        """Rotary embedding of [batch pos head d_head], of the first part of the dimensions."""
        config, n = self.config, x.shape[1]
        size = 4 if self.arch.rotary == "pairs" else int(self.d_head * self.arch.part)
        rope = getattr(config, "rope_parameters", None) or {}
        if "rope_theta" not in rope and rope:
            rope = rope[config.layer_types[layer]]
        theta = rope.get("rope_theta", 10000.0)
        angle = torch.einsum("p,f->pf", torch.arange(n).float(), theta ** -(torch.arange(0, size, 2) / size))
        turned, rest = x[..., :size], x[..., size:]
        if self.arch.rotary == "pairs":
            cos, sin = (f(angle).repeat_interleave(2, -1)[None, :, None] for f in (torch.cos, torch.sin))
            other = torch.stack((-turned[..., 1::2], turned[..., ::2]), -1).flatten(-2)
        else:
            cos, sin = (torch.cat([f(angle)] * 2, -1)[None, :, None] for f in (torch.cos, torch.sin))
            first, second = turned.chunk(2, -1)
            other = torch.cat((-second, first), -1)
        return torch.cat((turned * cos + other * sin, rest), -1)

    # Attention ------------------------------------------------------------------------------------------------------

    def project(self, attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, [batch pos (kv_)head d_head]."""
        batch, n = x.shape[:2]
        if self.arch.fused is None:
            parts = [self.linear(attn.get_submodule(name), x) for name in self.arch.proj]
            q, k, v = (part.reshape(batch, n, -1, self.d_head) for part in parts)
            return q, k, v
        name, packing = self.arch.fused.split(":")
        both = self.linear(attn.get_submodule(name), x)
        if packing == "thirds":
            q, k, v = (p.reshape(batch, n, -1, self.d_head) for p in both.chunk(3, -1))
            return q, k, v
        rows = both.reshape(batch, n, -1, self.d_head)
        if packing == "by_head":
            return rows[:, :, 0::3], rows[:, :, 1::3], rows[:, :, 2::3]
        if packing == "by_group":
            n_kv = self.config.num_kv_heads
            groups = rows.reshape(batch, n, n_kv, -1, self.d_head)
            return groups[:, :, :, :-2].flatten(2, 3), groups[:, :, :, -2], groups[:, :, :, -1]
        n_kv = 1 if packing == "one_kv" else self.config.num_key_value_heads
        return tuple(rows.split([self.heads, n_kv, n_kv], 2))

    def normed_heads(self, attn: Any, name: str, x: Tensor) -> Tensor:
        """Query or key norm, over a head or over all heads together, where there is one."""
        norm = getattr(attn, name, None)
        if norm is None:
            return x
        kind = "rms1" if self.arch.norm == "rms1" else "rms"
        if self.config.model_type == "chameleon":  # a gain and a bias of each head's own
            return self.norm(norm, x, "layer")
        if norm.weight.shape[0] == x.shape[-1]:
            return self.norm(norm, x, kind)
        return self.norm(norm, x.flatten(2), kind).reshape(x.shape)

    def allowed(self, n: int, layer: int) -> Tensor:
        """Which keys a query may look at, [query key]."""
        gap = torch.arange(n)[:, None] - torch.arange(n)[None]
        if not self.arch.causal:
            return torch.ones_like(gap, dtype=torch.bool)
        kind = (getattr(self.config, "layer_types", None) or [None] * 99)[layer]
        window = getattr(self.config, "sliding_window", None)
        if self.config.model_type == "gpt_neo":
            window = self.config.window_size if self.config.attention_layers[layer] == "local" else None
        elif kind == "full_attention" or self.config.model_type.startswith("qwen"):
            window = None
        return (gap >= 0) & (gap < (window or n + 1))

    def attend(self, attn: Any, x: Tensor, layer: int) -> Tensor:
        """z after the site, [batch pos head d_head]."""
        at = f"L{layer}."
        q, k, v = (self.site(at + name, part) for name, part in zip("qkv", self.project(attn, x), strict=True))
        q, k = self.normed_heads(attn, "q_norm", q), self.normed_heads(attn, "k_norm", k)
        if self.arch.rotary:
            q, k = self.rotate(q, layer), self.rotate(k, layer)
        q, k = self.site(at + "rot_q", q), self.site(at + "rot_k", k)
        group = q.shape[2] // k.shape[2]
        k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
        scale = self.arch.scale or (getattr(self.config, "query_pre_attn_scalar", None) or self.d_head) ** -0.5
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * scale
        cap = getattr(self.config, "attn_logit_softcapping", None)
        if cap:
            scores = cap * torch.tanh(scores / cap)
        if self.arch.alibi:
            slopes = 2.0 ** (-8 / self.heads * torch.arange(1, self.heads + 1))
            bias = torch.einsum("h,k->hk", slopes, torch.arange(x.shape[1]).float())[None, :, None]
            scores = scores + bias * (scale if self.arch.alibi == "scaled" else 1.0)
        scores = scores.masked_fill(~self.allowed(x.shape[1], layer), torch.finfo(scores.dtype).min)
        scores = self.site(at + "scores", scores)
        if hasattr(attn, "sinks"):
            sink = attn.sinks[None, :, None, None].expand(*scores.shape[:3], 1)
            pattern = torch.softmax(torch.cat((scores, sink), -1), -1)[..., :-1]
        else:
            pattern = torch.softmax(scores, -1)
        pattern = self.site(at + "pattern", pattern)
        return self.site(at + "z", torch.einsum("bhqk,bkhd->bqhd", pattern, v))

    def attention(self, block: Any, x: Tensor, layer: int) -> Tensor:
        """What attention adds to the stream."""
        attn = self.get(self.arch.attn, block)
        z = self.attend(attn, x, layer)
        out = block.attention.output.dense if self.arch.out.startswith("..") else attn.get_submodule(self.arch.out)
        weight = out.weight if type(out).__name__ == "Conv1D" else out.weight.T
        result = torch.einsum("bphd,hdm->bphm", z, weight.reshape(self.heads, self.d_head, -1))
        total = self.site(f"L{layer}.result", result).sum(2)
        total = total if out.bias is None else total + out.bias
        if self.arch.post_attn:
            total = self.norm(self.get(self.arch.post_attn, block), total, self.arch.norm)
        return self.site(f"L{layer}.attn_out", total)

    # MLP ------------------------------------------------------------------------------------------------------------

    def feed_forward(self, block: Any, x: Tensor, layer: int) -> Tensor:
        """What the MLP adds to the stream."""
        gate, up, down = self.arch.mlp
        out = self.experts(block.mlp, x) if down is None else self.dense(block, x, layer, gate, up, down)
        if self.arch.post_mlp:
            out = self.norm(self.get(self.arch.post_mlp, block), out, self.arch.norm)
        return self.site(f"L{layer}.mlp_out", out)

    def dense(self, block: Any, x: Tensor, layer: int, gate: str, up: str | None, down: str) -> Tensor:
        at, act = f"L{layer}.", ACTS[self.arch.act]
        pre = self.linear(self.get(gate, block), x)
        linear = None
        if up == "fused":
            pre, linear = pre.chunk(2, -1)
        elif up is not None:
            linear = self.linear(self.get(up, block), x)
        post = act(self.site(at + "mlp_pre", pre))
        if linear is not None:
            post = post * self.site(at + "mlp_pre_linear", linear)
        return self.linear(self.get(down, block), self.site(at + "mlp_post", post))

    def experts(self, mlp: Any, x: Tensor) -> Tensor:
        """Every expert on every token, weighted by the router; the ones not chosen get nothing."""
        oss = hasattr(mlp, "router")
        router, experts = (mlp.router, mlp.experts) if oss else (mlp.gate, mlp.experts)
        logits = torch.einsum("bpm,em->bpe", x, router.weight) + (router.bias if oss else 0.0)
        best = logits.topk(self.config.num_experts_per_tok, -1)
        share = torch.zeros_like(logits).scatter(-1, best.indices, torch.softmax(best.values, -1))
        if not oss:
            gate, up = torch.einsum("bpm,efm->bpef", x, experts.gate_up_proj).chunk(2, -1)
            return torch.einsum("bpef,emf,bpe->bpm", F.silu(gate) * up, experts.down_proj, share)
        both = torch.einsum("bpm,emf->bpef", x, experts.gate_up_proj) + experts.gate_up_proj_bias
        gate, up = both[..., ::2].clamp(max=experts.limit), both[..., 1::2].clamp(-experts.limit, experts.limit)
        hidden = (up + 1) * gate * torch.sigmoid(gate * experts.alpha)
        out = torch.einsum("bpef,efm->bpem", hidden, experts.down_proj) + experts.down_proj_bias
        return torch.einsum("bpem,bpe->bpm", out, share)

    # The whole ------------------------------------------------------------------------------------------------------

    def block(self, block: Any, x: Tensor, layer: int) -> Tensor:
        """One block, by the family's plan of where norms and additions are."""
        at, arch = f"L{layer}.", self.arch
        x = self.site(at + "resid_pre", x)

        def normed(path: str | None, value: Tensor, name: str) -> Tensor:
            return value if path is None else self.norm(self.get(path, block), value, arch.norm, at + name)

        if arch.plan == "post":
            mid = self.site(at + "resid_mid", x + self.attention(block, x, layer))
            y = normed(arch.ln1, mid, "ln2")
            return self.site(at + "resid_post",
                             self.norm(self.get(arch.ln2, block), y + self.feed_forward(block, y, layer), arch.norm))
        first = normed(arch.ln1, x, "ln1")
        if arch.plan.startswith("parallel"):
            second = first if arch.plan == "parallel1" else normed(arch.ln2, x, "ln2")
            both = self.attention(block, first, layer) + self.feed_forward(block, second, layer)
            return self.site(at + "resid_post", x + both)
        mid = self.site(at + "resid_mid", x + self.attention(block, first, layer))
        out = mid + self.feed_forward(block, normed(arch.ln2, mid, "ln2"), layer)
        return self.site(at + "resid_post", out)

    def embed(self, ids: Tensor) -> Tensor:
        """The stream before the first block."""
        kind, config = self.config.model_type, self.config
        x = self.get(self.arch.embed).weight[ids]
        if kind.startswith("gemma"):
            x = x * config.hidden_size**0.5
        if kind == "bloom":
            x = self.norm(self.get("transformer.word_embeddings_layernorm"), x, "layer")
        if kind == "opt" and config.word_embed_proj_dim != config.hidden_size:
            x = self.linear(self.get("model.decoder.project_in"), x)
        x = self.site("embed", x)
        tables = {"gpt2": "transformer.wpe", "gpt_neo": "transformer.wpe", "opt": "model.decoder.embed_positions",
                  "bert": "bert.embeddings.position_embeddings"}
        if kind in tables:
            start = 2 if kind == "opt" else 0
            table = self.get(tables[kind]).weight[start:start + ids.shape[1]]
            x = x + self.site("pos_embed", table.expand(len(ids), -1, -1))
        if kind == "bert":
            x = x + self.get("bert.embeddings.token_type_embeddings").weight[0]
            x = self.norm(self.get("bert.embeddings.LayerNorm"), x, "layer")
        return x

    def unembed(self, x: Tensor) -> None:
        """The final norm and the logits, where there is a head."""
        if self.arch.final is not None:
            x = self.norm(self.get(self.arch.final), x, self.arch.norm, "ln_final")
        if self.strip:
            return
        if self.config.model_type == "opt" and self.config.word_embed_proj_dim != self.config.hidden_size:
            x = self.linear(self.get("model.decoder.project_out"), x)
        if self.config.model_type == "bert":
            transform = self.get("cls.predictions.transform")
            x = self.norm(transform.LayerNorm, F.gelu(self.linear(transform.dense, x)), "layer")
        logits = self.linear(self.model.get_output_embeddings(), x)
        cap = getattr(self.config, "final_logit_softcapping", None)
        self.site("logits", cap * torch.tanh(logits / cap) if cap else logits)


@torch.no_grad()
def reference(model: Any, ids: Tensor, *, edits: dict[str, Edit] | None = None) -> dict[str, Tensor]:
    """Every site's value on `ids` [batch pos], by address, after edits."""
    run = Run(model, edits or {})
    x = run.embed(ids)
    for layer, block in enumerate(run.get(run.arch.blocks)):
        x = run.block(block, x, layer)
    run.unembed(x)
    assert math.isfinite(float(x.sum()))
    return run.values
