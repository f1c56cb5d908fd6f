"""The pass that packed cells continue: streams, keys, values and masks, recorded while it runs as any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from einops import rearrange
from torch import Tensor, nn

if TYPE_CHECKING:
    from ...model.model import Model
    from .probe import Arguments

SITES = ("resid_pre", "z", "mlp_out", "resid_post")
"""Where cells can join: a block's input, its heads' output, and its output with what the MLP adds to it."""


@dataclass
class Base:
    """What a recorded pass left, rows of one run only.

    Attributes:
        run: Its name.
        tokens: Tokens of its prompt.
        sites: (site, layer) -> the value before any edit of that site, [row pos …].
        keys, values: Per layer, as the dot product saw them: [row pos kv_head d_head].
        masks: Per layer, the mask that attention was given: None, or [row or 1, 1, query_pos, key_pos].
        logits: Of the last position, [row d_vocab].
        tuples: How many things a block ("block") and its attention ("attn") return; 0 for a bare tensor.
        arguments: What blocks are given beside the stream, once that is known.
        causal: Which keys come before which query, once somebody asked: [query_pos, key_pos].
    """

    run: str
    tokens: Any
    sites: dict[tuple[str, int], Tensor]
    keys: list[Tensor]
    values: list[Tensor]
    masks: list[Tensor | None]
    logits: Tensor
    tuples: dict[str, int]
    arguments: Arguments | None = None
    causal: Tensor | None = None


@dataclass
class Recorder:
    """Records one pass over several runs; `base` then cuts out the rows of one of them."""

    model: Model
    sites: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    inner: dict[int, tuple[Tensor, Tensor, Tensor | None]] = field(default_factory=dict)
    tuples: dict[str, int] = field(default_factory=dict)

    def callbacks(self, needed: set[tuple[str, int]]) -> dict[str, Callable[[Tensor, int], None]]:
        """Location -> what notes the value there, before anybody changes it."""
        layout = self.model.layout
        return {layout.port(*place).location: self._note(place) for place in needed}

    def _note(self, place: tuple[str, int]) -> Callable[[Tensor, int], None]:
        """Notes the value of one site."""

        def note(value: Tensor, step: int) -> None:
            self.sites[place] = value.clone()

        return note

    @contextmanager
    def shapes(self) -> Iterator[None]:
        """Note what the first block and its attention return."""
        layout = self.model.layout
        parts = {"block": layout.blocks[0], "attn": layout.role(0, "attn")}
        handles = [module.register_forward_hook(self._shape(name)) for name, module in parts.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _shape(self, name: str) -> Callable[..., None]:
        """Notes how many things a module returns; 0 for a tensor by itself."""

        def note(module: nn.Module, args: Any, output: Any) -> None:
            self.tuples[name] = len(output) if isinstance(output, tuple) else 0

        return note

    def watch(self, module: nn.Module, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
        """Note keys, values and mask of one attention."""
        layer = self.model.layout.attention_ports[id(module)]["pattern"].layer
        assert layer is not None
        self.inner[layer] = rearrange(key, "b h p d -> b p h d"), rearrange(value, "b h p d -> b p h d"), mask

    def base(self, run: str, rows: range, tokens: Any, logits: Tensor) -> Base:
        """The rows of one run."""
        cut = slice(rows.start, rows.stop)
        layers = range(len(self.inner))
        return Base(run, tokens, {place: value[cut].detach() for place, value in self.sites.items()},
                    [self.inner[n][0][cut].detach().contiguous() for n in layers],
                    [self.inner[n][1][cut].detach().contiguous() for n in layers],
                    [_rows(self.inner[n][2], cut) for n in layers], logits.detach(),
                    self.tuples)


def _rows(mask: Tensor | None, cut: slice) -> Tensor | None:
    return mask if mask is None or mask.shape[0] == 1 else mask[cut]
