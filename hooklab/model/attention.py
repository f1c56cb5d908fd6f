"""One attention function for every architecture.

transformers routes the attention of nearly every model through a registry. While a model of ours runs, its config
names hooklab's function there; each tensor inside (`rot_q rot_k scores pattern`) is offered to whoever asked for it,
and a layer whose scores and pattern nobody asked for goes to the very kernel that the model used before, so its
numbers are bit-identical. The few architectures that compute attention inline are read by intercepting the one
softmax (or fused kernel call) of their attention module: no per-architecture code, no source text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import TraceError
from .ports import Port

if TYPE_CHECKING:
    from .interleaver import SiteInterleaver
    from .layout import Layout

PREFIX = "hooklab_"
_RUNNING: dict[int, SiteInterleaver] = {}
"""id(attention module) -> the run that it is part of; empty between runs."""

# Arguments that only steer kernels or are for show; `attend` names those that change what it computes.
_HARMLESS = {"sliding_window", "position_ids", "use_cache", "output_attentions", "cache_position", "is_causal",
             "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "position_embeddings",
             "past_key_values", "layer_past", "output_hidden_states", "encoder_hidden_states", "return_dict",
             "deterministic", "num_items_in_batch", "output_router_logits", "logits_to_keep", "token_type_ids"}


def implementation(base: str) -> str:
    """Register hooklab's function over a base implementation and return its name in transformers' registry."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    if base not in ("eager", "sdpa"):
        base = "sdpa"  # kernels that take no dense mask cannot hand over to one that shows the pattern
    name = PREFIX + base
    if name not in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[base])
        AttentionInterface.register(name, _function(base))
    return name


@contextmanager
def attending(layout: Layout, run: SiteInterleaver) -> Iterator[None]:
    """Route a model's attention through hooklab while the block runs; afterwards everything is as before."""
    modules = list(layout.attention_ports)
    inline = layout.family.attention == "inline"
    config = layout.config
    before = config._attn_implementation_internal
    for module in modules:
        _RUNNING[module] = run
    try:
        if not inline and before is not None:
            config._attn_implementation_internal = implementation(before)
        yield
    finally:
        config._attn_implementation_internal = before
        for module in modules:
            _RUNNING.pop(module, None)


def _function(base: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The registered attention function over `base` ("eager" or "sdpa")."""

    def attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                  **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Attention in the open for layers that are looked at, the model's own kernel for all others."""
        run = _RUNNING.get(id(module))
        if run is None or not run.interleaving or run.foreign:
            return _kernel(base, module)(module, query, key, value, attention_mask, **kwargs)
        inner = run.layout.attention_ports[id(module)]
        query = run.serve(inner["rot_q"], query)
        key = run.serve(inner["rot_k"], key)
        if run.attends is not None:
            return run.attends(module, query, key, value, **kwargs)
        if run.watcher is not None:
            run.watcher(module, key, value, attention_mask)
        if not run.wants(inner["scores"], inner["pattern"]):
            run.pass_by(inner["scores"], inner["pattern"])
            return _kernel(base, module)(module, query, key, value, attention_mask, **kwargs)
        return attend(module, query, key, value, attention_mask, run, inner, **kwargs)

    return attention


def _kernel(base: str, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The function that the module would have called without hooklab."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if base == "eager":
        return sys.modules[type(module).__module__].eager_attention_forward
    return ALL_ATTENTION_FUNCTIONS[base]


def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, run: SiteInterleaver,
           inner: dict[str, Port], scaling: float | None = None, dropout: float = 0.0, softcap: float | None = None,
           s_aux: Tensor | None = None, is_causal: bool | None = None, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Attention in the open: scores and pattern are served between the steps.

    Shapes: query [batch head query_pos d_head], key and value [batch kv_head key_pos d_head]; returns
    z [batch query_pos head d_head] and pattern [batch head query_pos key_pos].
    """
    unknown = [name for name, given in kwargs.items() if given is not None and name not in _HARMLESS]
    if unknown:
        raise TraceError(f"{inner['pattern'].address} cannot be shown: {type(module).__name__} passes "
                         f"{', '.join(unknown)} to its attention, which hooklab has not learnt to apply.")
    group = query.shape[1] // key.shape[1]
    if group > 1:
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = torch.matmul(query, key.transpose(2, 3)) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    bias = additive(mask, scores, causal=causal)
    scores = run.serve(inner["scores"], scores if bias is None else scores + bias)
    pattern = run.serve(inner["pattern"], _softmax(scores, s_aux).to(query.dtype))
    weights = F.dropout(pattern, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), pattern


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Rows of attention; a sink takes its share of each row and is left out."""
    if sinks is None:
        # Half precision is summed in float32, as transformers does; float64 keeps its own.
        return F.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    column = sinks.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[-2], -1).to(scores.dtype)
    together = torch.cat([scores, column], dim=-1)
    together = together - together.max(dim=-1, keepdim=True).values
    return F.softmax(together, dim=-1, dtype=together.dtype)[..., :-1]


def additive(mask: Tensor | None, scores: Tensor, *, causal: bool) -> Tensor | None:
    """A mask as a term to add to scores, whatever form the fused kernel would have taken it in."""
    lowest = torch.finfo(scores.dtype).min
    n_query, n_key = scores.shape[-2:]
    if mask is None:
        # Kernels are told "causal" instead of being given a mask; a single query sees everything.
        if not causal or n_query == 1:
            return None
        mask = torch.ones(n_query, n_key, dtype=torch.bool, device=scores.device).tril(n_key - n_query)
    if mask.dtype == torch.bool:
        return torch.zeros((), dtype=scores.dtype, device=scores.device).masked_fill(~mask[..., :n_key], lowest)
    return mask[..., :n_key]


class Inline(TorchFunctionMode):
    """Reads attention that a module computes itself, by what it must call: a dot product, then a softmax.

    Active between the module's input and output. Whatever user code runs meanwhile (a block that was handed a value
    in the middle of attention) is left alone: `run.serving` says so.
    """

    def __init__(self, run: SiteInterleaver, sites: dict[str, Port], n_heads: int, n_kv: int) -> None:
        super().__init__()
        self.run, self.sites, self.n_heads, self.n_kv = run, sites, n_heads, n_kv
        self.dotted = False

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if self.run.serving:
            return func(*args, **kwargs)
        if func in _DOTS and not self.dotted and _pairs_heads(func, args):
            self.dotted = True
            return self._dot(func, args, kwargs)
        if func is F.softmax:
            return self._softmax(args, kwargs)
        if func is F.scaled_dot_product_attention:
            return self._fused(args, kwargs)
        return func(*args, **kwargs)

    def _dot(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """The first product of the module: queries times keys."""
        if func is torch.Tensor.baddbmm:
            query, key = kwargs["batch1"], kwargs["batch2"]
            query, key = self._serve_rows(query, key.transpose(1, 2))
            return func(*args, **{**kwargs, "batch1": query, "batch2": key.transpose(1, 2)})
        query, key = args
        query = self.run.serve(self.sites["rot_q"], query)
        key = self._serve_keys(key.transpose(-1, -2)).transpose(-1, -2)
        return func(query, key, **kwargs)

    def _serve_rows(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Serve queries and keys that arrive as [(batch head) pos d_head]."""
        rows = query.unflatten(0, (-1, self.n_heads))
        query = self.run.serve(self.sites["rot_q"], rows).flatten(0, 1)
        rows = key.unflatten(0, (-1, self.n_heads))
        return query, self.run.serve(self.sites["rot_k"], rows).flatten(0, 1)

    def _serve_keys(self, key: Tensor) -> Tensor:
        """Serve keys, which some modules have already repeated for every query head of their group."""
        copies = key.shape[1] // self.n_kv
        if copies == 1:
            return self.run.serve(self.sites["rot_k"], key)
        once = key[:, ::copies]
        served = self.run.serve(self.sites["rot_k"], once)
        return key if served is once else served.repeat_interleave(copies, 1)

    def _softmax(self, args: Any, kwargs: dict[str, Any]) -> Tensor:
        scores = self.run.serve(self.sites["scores"], args[0])
        return self.run.serve(self.sites["pattern"], F.softmax(scores, *args[1:], **kwargs))

    def _fused(self, args: Any, kwargs: dict[str, Any]) -> Tensor:
        query, key, value = args[:3]
        self.dotted = True
        query = self.run.serve(self.sites["rot_q"], query)
        key = self._serve_keys(key)
        if not self.run.wants(self.sites["scores"], self.sites["pattern"]):
            self.run.pass_by(self.sites["scores"], self.sites["pattern"])
            return F.scaled_dot_product_attention(query, key, value, *args[3:], **kwargs)
        module = _NotTraining()
        z, _ = attend(module, query, key, value, kwargs.get("attn_mask"), self.run, self.sites,
                      is_causal=kwargs.get("is_causal", False))
        return z.transpose(1, 2)


class _NotTraining(nn.Module):
    """Stands in for an attention module where only its mode is read: inline attention drops nothing out."""

    training = False


def _pairs_heads(func: Callable[..., Any], args: Any) -> bool:
    """Whether a product is of [batch head pos d_head] tensors, not a projection written as one."""
    return func is torch.Tensor.baddbmm or (args[0].ndim == 4 and args[1].ndim == 4)


_DOTS = {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.baddbmm}
