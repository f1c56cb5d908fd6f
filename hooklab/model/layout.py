"""A family's table laid over one concrete model: its sizes, its modules and the port of every site.

`Layout(hf)` is built once when a model opens. It answers three questions: which sites exist (and why the others do
not), where each is served, and which modules play which role.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from einops import rearrange
from torch import nn

from ..errors import FamilyError, SiteError, did_you_mean
from ..families import WRAPPERS, Family, family
from ..sites import LAYER_SITES, MODEL_SITES, SITES
from . import linear, ports
from .ports import Part, Port


@dataclass(frozen=True)
class Facts:
    """Sizes of a model, read from its config and its modules. None where the architecture has no such size."""

    family: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int | None
    d_vocab: int
    n_ctx: int | None
    causal: bool


class Layout:
    """Roles, sizes and ports of one model."""

    def __init__(self, hf: Any, table: Family | None = None) -> None:
        self.hf = hf
        self.base, config = _base_model(hf)
        self.config = config
        self.family = (table or family(config.model_type)).for_config(config)
        self.names = {id(module): name for name, module in hf.named_modules()}
        self.dropouts = [module for module in hf.modules() if isinstance(module, nn.Dropout)]
        self.blocks: list[nn.Module] = list(self.module(self.base, self.family.blocks))
        self.has_head = hf.get_output_embeddings() is not None if hasattr(hf, "get_output_embeddings") else False
        self.facts = self._facts()
        self._ports = self._build()
        self.attention_ports = self._attention_ports()

    # Modules ----------------------------------------------------------------------------------------------------

    def module(self, root: nn.Module, path: str) -> Any:
        """The submodule at a role's path; FamilyError says which table is wrong when there is none."""
        found: Any = root
        for name in path.split("."):
            holder, found = found, getattr(found, name, None)
            if found is None:
                raise FamilyError(
                    f'The table of "{self.family.name}" says {path!r}, but {type(holder).__name__} has no {name!r}: '
                    f"it has {', '.join(dict(holder.named_children()))}.")
        return found

    def role(self, layer: int, name: str) -> Any:
        """The module that plays a role (`"o"`, `"ln2"`, …) in a block, or None where the family has none."""
        path = getattr(self.family, name)
        return None if path is None else self.module(self.blocks[layer], path)

    def native(self, module: nn.Module) -> str:
        """The location prefix under which nnsight knows a module."""
        name = self.names[id(module)]
        return f"model.{name}" if name else "model"

    def unembed(self, x: Any, ids: Any = None) -> Any:
        """Logits [… d_vocab] of a normalised stream [… d_model]: projection, head and soft-cap.

        With `ids`, those of these tokens only: [… token].

        Raises:
            SiteError: the model has no language-model head.
        """
        if not self.has_head:
            raise SiteError(self.missing("logits") or "")
        project = getattr(getattr(self.base, "decoder", None), "project_out", None)
        x = x if project is None else project(x)
        head = self.hf.get_output_embeddings()
        if ids is None:
            logits = head(x)
        else:
            ids = ids.to(head.weight.device)
            bias = getattr(head, "bias", None)
            logits = torch.nn.functional.linear(x, head.weight[ids], None if bias is None else bias[ids])
        cap = getattr(self.config, "final_logit_softcapping", None)
        logits = logits if cap is None else (logits / cap).tanh() * cap
        if self.family.never is None:
            return logits
        ruled_out = torch.zeros(head.weight.shape[0], dtype=torch.bool, device=logits.device)
        ruled_out[attrgetter(self.family.never)(self.base)] = True
        ruled_out = ruled_out if ids is None else ruled_out[ids]
        return logits.masked_fill(ruled_out, torch.finfo(logits.dtype).min)

    # Sites ------------------------------------------------------------------------------------------------------

    def missing(self, site: str) -> str | None:
        """Why this model has no such site, as a sentence; None when it has it."""
        if site not in SITES:
            return f'There is no site "{site}".' + did_you_mean(site, SITES)
        reason = self.family.missing(site, head=self.has_head)
        return None if reason is None else f"{self.family.name} has no {site}: {reason}."

    def port(self, site: str, layer: int | None = None) -> Port:
        """The port of a site.

        Raises:
            SiteError: this model has no such site; the message says why.
        """
        reason = self.missing(site)
        if reason is not None:
            raise SiteError(reason)
        return self._ports[site, layer]

    @property
    def all_ports(self) -> list[Port]:
        """Every port, in the order of a forward pass within each block."""
        return list(self._ports.values())

    @property
    def present(self) -> list[str]:
        """Names of the sites that this model has, in execution order."""
        return [name for name in SITES if self.missing(name) is None]

    # Building ---------------------------------------------------------------------------------------------------

    def _facts(self) -> Facts:
        config, blocks = self.config, self.blocks
        n_heads = config.num_attention_heads
        n_kv = getattr(config, "num_key_value_heads", None) or n_heads
        if self.family.packing == "multi_query":
            n_kv = 1
        elif self.family.packing == "grouped":
            n_kv = config.num_kv_heads
        down = self.role(0, "down") if self.family.down else None
        d_in = linear.matrix(self.role(0, "o")).shape[0]
        n_ctx = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        return Facts(
            family=self.family.name, n_layers=len(blocks), n_heads=n_heads, n_kv_heads=n_kv,
            d_model=config.hidden_size, d_head=d_in // n_heads,
            d_mlp=None if down is None else linear.matrix(down).shape[0],
            d_vocab=config.vocab_size, n_ctx=n_ctx, causal=_is_causal(self.config, self.role(0, "attn")))

    def _build(self) -> dict[tuple[str, int | None], Port]:
        made: dict[tuple[str, int | None], Port] = {}
        for site in MODEL_SITES:
            if self.missing(site) is None:
                made[site, None] = self._model_port(site)
        for layer in range(len(self.blocks)):
            for site in LAYER_SITES:
                if self.missing(site) is None:
                    made[site, layer] = self._layer_port(site, layer)
        return made

    def _model_port(self, site: str) -> Port:
        if site == "logits":
            return self._make(site, None, self.hf, "logits", side="output")
        role = "ln_final" if site.startswith("ln_final") else site
        module = self.module(self.base, getattr(self.family, role))
        if site.endswith("_scale"):
            return self._scale_port(site, None, module)
        return self._make(site, None, module, "output")

    def _layer_port(self, site: str, layer: int) -> Port:
        if site in ("q", "k", "v"):
            return self._projection_port(site, layer)
        if site in ("rot_q", "rot_k", "scores", "pattern"):
            return self._inner_port(site, layer)
        if site in ("mlp_pre", "mlp_pre_linear") and self.family.gate_up:
            half = self.facts.d_mlp or 0
            part = ports.span(0, half) if site == "mlp_pre" else ports.span(half, 2 * half)
            return self._make(site, layer, self.role(layer, "gate_up"), "output", part)
        if site.endswith("_scale"):
            return self._scale_port(site, layer, self.role(layer, site.removesuffix("_scale")))
        if site == "result":
            return self._result_port(layer)
        role, grip = self._whole[site]
        module = self.blocks[layer] if role == "block" else self.role(layer, role)
        return self._make(site, layer, module, grip, ports.heads(self.facts.d_head) if site == "z" else None)

    @property
    def _whole(self) -> dict[str, tuple[str, str]]:
        """Sites that one module's input or output carries whole: the role that carries it and which side."""
        table = self.family
        return {
            "resid_pre": ("block", "input"), "resid_post": ("block", "output"),
            "ln1": ("ln1", "output"), "ln2": ("ln2", "output"),
            "z": ("o", "input"),
            "attn_out": ("post_attn" if table.post_attn else "o", "output"),
            "resid_mid": ("mid" if table.mid else "ln2", "stream"),
            "mlp_pre": ("gate", "output"), "mlp_pre_linear": ("up", "output"), "mlp_post": ("down", "input"),
            "mlp_out": ("post_mlp" if table.post_mlp else "down" if table.down else "mlp", "output"),
        }

    def _make(self, site: str, layer: int | None, module: nn.Module, grip: str, part: Part | None = None,
              side: str | None = None) -> Port:
        take, put = ports.through(grip, part)
        side = side or ("input" if grip in ("input", "stream") else "output")
        return Port(site, layer, self._location(site, layer), f"{self.native(module)}.{side}", SITES[site].axes,
                    take, put)

    def _location(self, site: str, layer: int | None) -> str:
        return f"model.{site}" if layer is None else f"{self.native(self.blocks[layer])}.{site}"

    def _projection_port(self, site: str, layer: int) -> Port:
        facts, table = self.facts, self.family
        if table.qkv is None:
            return self._make(site, layer, self.role(layer, site), "output", ports.heads(facts.d_head))
        part = ports.fused_part(site, table.packing, facts.n_heads, facts.n_kv_heads, facts.d_head)
        return self._make(site, layer, self.role(layer, "qkv"), "output", part)

    def _inner_port(self, site: str, layer: int) -> Port:
        if site in ("scores", "pattern"):
            return Port(site, layer, self._location(site, layer), None, SITES[site].axes,
                        lambda x: x, lambda value, new: new)
        take, put = ports.HEADS_FIRST
        if site == "rot_q" and self.family.scaled_q:
            take, put = ports.scaled(take, put, self.facts.d_head**-0.5)
        return Port(site, layer, self._location(site, layer), None, SITES[site].axes, take, put)

    def _scale_port(self, site: str, layer: int | None, norm: nn.Module) -> Port:
        scale = ports.norm_scale(norm, self.family.norm)
        base = self._make(site, layer, norm, "input")
        return replace(base, take=lambda value: scale(ports.first_input(value)), put=lambda value, new: value,
                       later=f"{self.native(norm)}.output", correct=ports.scale_correction(norm, self.family.norm))

    def _result_port(self, layer: int) -> Port:
        out = self.role(layer, "o")
        n_heads, d_head = self.facts.n_heads, self.facts.d_head

        def take(value: Any) -> Any:
            w_o = rearrange(linear.matrix(out), "(h d) m -> h d m", h=n_heads)
            return ports.head_results(ports.first_input(value).unflatten(-1, (n_heads, d_head)), w_o)

        return replace(self._make("result", layer, out, "input"), take=take, put=lambda value, new: value,
                       later=f"{self.native(out)}.output", correct=ports.result_correction(linear.bias(out)))

    def _attention_ports(self) -> dict[int, dict[str, Port]]:
        """id(attention module) -> its inner ports."""
        inner = ("rot_q", "rot_k", "scores", "pattern")
        return {id(self.role(layer, "attn")): {site: self._ports[site, layer] for site in inner}
                for layer in range(len(self.blocks))}


def _base_model(hf: Any) -> tuple[Any, Any]:
    """The module that holds the blocks, and the config that describes it."""
    base = getattr(hf, getattr(hf, "base_model_prefix", "") or "", hf)
    config = hf.config
    inner = WRAPPERS.get(config.model_type)
    if inner is None:
        return base, config
    return getattr(base, inner), config.get_text_config()


def _is_causal(config: Any, attention: nn.Module | None) -> bool:
    if getattr(config, "is_decoder", None) and config.model_type == "bert":
        return True
    return bool(getattr(attention, "is_causal", config.model_type != "bert"))
