"""A family's table laid over one concrete model: its sizes, its modules and the port of every site.

`Layout(hf)` is built once when a model opens. It answers three questions: which sites exist (and why the others do
not), where each is served, and which modules play which role.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from einops import rearrange
from torch import nn

from ..errors import FamilyError, SiteError, did_you_mean
from ..families import HEADLESS, WRAPPERS, Family, family
from ..sites import LAYER_SITES, MODEL_SITES, SITES
from . import linear, ports
from .dropouts import dropouts, dropping
from .facts import sizes
from .ports import Part, Port
from .tables import table_for

HEAD_LAYERS = ("The head of {} has layers of its own before its last matrix, which a lens on the stream would leave out. "
               "Read logits, which are the model's.")

class Layout:
    """Roles, sizes and ports of one model."""

    def __init__(self, hf: Any, table: Family | None = None) -> None:
        self.hf = hf
        self.base, config = _base_model(hf)
        self.config = config
        self.family = table_for(config, self.base, table or family(config.model_type))
        self.names = {id(module): name for name, module in hf.named_modules()}
        self.dropouts = dropouts(hf)
        self.blocks: list[nn.Module] = self._blocks()
        self.has_head = hf.get_output_embeddings() is not None if hasattr(hf, "get_output_embeddings") else False
        self.facts = sizes(self)
        self.unplaced: dict[str, str] = {}
        self._ports = self._build()
        self.attention_ports = self._attention_ports()

    # Modules ----------------------------------------------------------------------------------------------------

    def _blocks(self) -> list[nn.Module]:
        """The blocks; FamilyError where the table names something else."""
        found = self.module(self.base, self.family.blocks, "blocks")
        if not isinstance(found, (nn.ModuleList, nn.Sequential)) or not len(found):
            raise FamilyError(f'The table of "{self.family.name}" says blocks = {self.family.blocks!r}, but '
                              f"{type(found).__name__} is no list of blocks.")
        return list(found)

    def module(self, root: nn.Module, path: str | None, row: str = "") -> Any:
        """The submodule at the path in a row of the table; FamilyError says which table is wrong when there is none."""
        if path is None:
            raise FamilyError(f'The table of "{self.family.name}" leaves out a row that every model needs: blocks, '
                              f"embed, attn and o name a module each.")
        said = f'The table of "{self.family.name}" says {f"{row} = " if row else ""}{path!r}'
        if not isinstance(path, str):
            raise FamilyError(f'{said}, which is no path: "self_attn.q_proj" is one.')
        found: Any = root
        for name in path.split("."):
            holder, found = found, getattr(found, name, None)
            if found is None:
                children = dict(holder.named_children()) if isinstance(holder, nn.Module) else {}
                raise FamilyError(f"{said}, but {type(holder).__name__} has no {name!r}: "
                                  f"it has {', '.join(children) or 'no modules'}.")
        if not isinstance(found, nn.Module):
            raise FamilyError(f"{said}, but that is {type(found).__name__}, no module.")
        return found

    def role(self, layer: int, name: str) -> Any:
        """The module that plays a role (`"o"`, `"ln2"`, …) in a block, or None where the family has none."""
        path = getattr(self.family, name)
        return None if path is None else self.module(self.blocks[layer], path, name)

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
        if self.family.head_layers:
            raise SiteError(HEAD_LAYERS.format(self.family.name))
        head = self.hf.get_output_embeddings()
        if ids is None:
            logits = head(x)
        else:
            ids = ids.to(head.weight.device)
            bias = getattr(head, "bias", None)
            logits = torch.nn.functional.linear(x, head.weight[ids], None if bias is None else bias[ids])
        logits = logits * self.factor("logits") if "logits" in self.family.factors else logits
        cap = self.logit_cap
        logits = logits if cap is None else (logits / cap).tanh() * cap
        if self.family.never is None:
            return logits
        ruled_out = torch.zeros(head.weight.shape[0], dtype=torch.bool, device=logits.device)
        ruled_out[attrgetter(self.family.never)(self.base)] = True
        ruled_out = ruled_out if ids is None else ruled_out[ids]
        return logits.masked_fill(ruled_out, torch.finfo(logits.dtype).min)

    @property
    def logit_cap(self) -> float | None:
        """What logits are softly kept below; None where nothing caps them."""
        cap = None if self._head_is_wrapper else getattr(self.config, "final_logit_softcapping", None)
        return None if cap is None else float(cap)

    @property
    def _head_is_wrapper(self) -> bool:
        """Whether the head is that of a model around the language model, which neither scales nor caps logits."""
        return self.hf.config.model_type in WRAPPERS

    def factor(self, site: str) -> float:
        """The number by which what a site's module gives is multiplied on its way; see `Family.factors`."""
        name = self.family.factors.get(site)
        if name is None or (site == "logits" and self._head_is_wrapper):
            return 1.0
        number = float(getattr(self.config, name.removeprefix("/")))
        return 1 / number if name.startswith("/") else number

    # Sites ------------------------------------------------------------------------------------------------------

    def missing(self, site: str) -> str | None:
        """Why this model has no such site, as a sentence; None when it has it."""
        if site not in SITES:
            return f'There is no site "{site}".' + did_you_mean(site, SITES)
        if site in self.unplaced:
            return self.unplaced[site]
        reason = self.family.missing(site, head=self.has_head)
        if reason == HEADLESS:
            reason = self._headless()
        return None if reason is None else f"{self.family.name} has no {site}: {reason}."

    def _headless(self) -> str:
        stream = "the last resid_post" + (" or ln_final" if self.missing("ln_final") is None else "")
        if self.base is self.hf:
            return f"it was loaded without a language-model head. Use {stream}"
        return (f"it was loaded as {type(self.hf).__name__}, without a language-model head. What that gives is "
                f"model.output in a trace, and .output of model.capture(prompt, sites, full=True); what its head reads "
                f"is {stream}")

    def dropping(self) -> bool:
        """Whether a pass would drop units at random: some module with a dropout is in training mode."""
        return dropping(self.dropouts)

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

    def _build(self) -> dict[tuple[str, int | None], Port]:
        made: dict[tuple[str, int | None], Port] = {}
        for site in MODEL_SITES:
            self._place(made, site, None, self._model_port, site)
        for layer in range(len(self.blocks)):
            for site in LAYER_SITES:
                self._place(made, site, layer, self._layer_port, site, layer)
        return {key: port for key, port in made.items() if key[0] not in self.unplaced}

    def _place(self, made: dict[tuple[str, int | None], Port], site: str, layer: int | None,
               port: Callable[..., Port], *where: Any) -> None:
        """Make a site's port; a site whose row names no module is left out, unless no model can run without it."""
        if self.missing(site) is not None:
            if site in _NEEDED:
                raise FamilyError(f'The table of "{self.family.name}" leaves out {site}, which every model has.')
            return
        try:
            made[site, layer] = port(*where)
        except FamilyError as error:
            if site in _NEEDED:
                raise
            self.unplaced[site] = str(error)

    def _model_port(self, site: str) -> Port:
        if site == "logits":
            return self._make(site, None, self.hf, "logits", side="output")
        role = "ln_final" if site.startswith("ln_final") else site
        module = self.module(self.base, getattr(self.family, role), role)
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
        role, grip = self.carriers[site]
        module = self.blocks[layer] if role == "block" else self.needed(layer, role, site)
        return self._make(site, layer, module, grip, ports.heads(self.facts.d_head) if site == "z" else None)

    def needed(self, layer: int, role: str, site: str) -> Any:
        """The module of a role that a site cannot do without."""
        module = self.role(layer, role)
        if module is None:
            raise FamilyError(f'The table of "{self.family.name}" leaves out {role}, and {site} is found by it.')
        return module

    @property
    def carriers(self) -> dict[str, tuple[str, str]]:
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
        if site in self.family.factors and site != "logits":  # which the model gives multiplied already
            take, put = ports.scaled(take, put, 1 / self.factor(site))
        side = side or ("input" if grip in ("input", "stream") else "output")
        return Port(site, layer, self._location(site, layer), f"{self.native(module)}.{side}", SITES[site].axes,
                    take, put)

    def _location(self, site: str, layer: int | None) -> str:
        return f"model.{site}" if layer is None else f"{self.native(self.blocks[layer])}.{site}"

    def _projection_port(self, site: str, layer: int) -> Port:
        facts, table = self.facts, self.family
        if table.qkv is None:
            made = self._make(site, layer, self.needed(layer, site, site), "output", ports.heads(facts.d_head))
        else:
            part = ports.fused_part(site, table.packing, facts.n_heads, facts.n_kv_heads, facts.d_head)
            made = self._make(site, layer, self.role(layer, "qkv"), "output", part)
        limit = attrgetter(table.clips[site])(self.config) if site in table.clips else None
        return replace(made, take=ports.clipped(made.take, float(limit))) if limit else made

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
        n_heads, d_head, factor = self.facts.n_heads, self.facts.d_head, self.factor("attn_out")

        def take(value: Any) -> Any:
            w_o = rearrange(linear.matrix(out), "(h d) m -> h d m", h=n_heads)
            w_o = w_o if factor == 1.0 else w_o * factor
            return ports.head_results(ports.first_input(value).unflatten(-1, (n_heads, d_head)), w_o)

        return replace(self._make("result", layer, out, "input"), take=take, put=lambda value, new: value,
                       later=f"{self.native(out)}.output", correct=ports.result_correction(linear.bias(out), factor))

    def _attention_ports(self) -> dict[int, dict[str, Port]]:
        """id(attention module) -> its inner ports."""
        inner = ("rot_q", "rot_k", "scores", "pattern")
        return {id(self.needed(layer, "attn", "pattern")): {
                    site: self._ports.get((site, layer)) or self._inner_port(site, layer) for site in inner}
                for layer in range(len(self.blocks))}


_NEEDED = ("resid_pre", "embed")
"""Sites that a run begins with."""


def _base_model(hf: Any) -> tuple[Any, Any]:
    """The module that holds the blocks, and the config that describes it."""
    base = getattr(hf, getattr(hf, "base_model_prefix", "") or "", hf)
    config = hf.config
    inner = WRAPPERS.get(config.model_type)
    if inner is None:
        return base, config
    return getattr(base, inner), config.get_text_config()
