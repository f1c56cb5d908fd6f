"""Activations: what one trace hands to whoever asked, with the tokens that it ran on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..address import Place, parse
from ..errors import SiteError, did_you_mean
from ..sites import SITES

if TYPE_CHECKING:
    from torch import Tensor

    from ..tokens import Tokens


@dataclass(frozen=True, repr=False)
class Activations(Mapping[str, "Tensor"]):
    """Values of sites from one run, by address: `acts["L2.resid_post"]`.

    Attributes:
        data: Address -> tensor, axes in the order of `hooklab.sites`; with `at=`, the selected positions only.
        tokens: The unpadded tokens of the run; None when it was given embeddings.
        output: What the model returned; None when the run stopped early.
        grads: Address -> gradient of the metric, where gradients were asked for.
    """

    data: dict[str, Tensor]
    tokens: Tokens | None = None
    output: Any = None
    grads: dict[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, address: str) -> Tensor:
        """The value captured under an address, or under another spelling of it.

        Raises:
            SiteError: it was not captured, or is no address.
        """
        found = self.data.get(address)
        if found is None:
            found = self.data.get(self._canonical(address))
        if found is None:
            raise SiteError(f"{address} was not captured." + did_you_mean(address, self.data))
        return found

    def __contains__(self, address: object) -> bool:
        return isinstance(address, str) and self.get(address) is not None

    def get(self, address: str, default: Any = None) -> Any:
        """The value captured under an address, or the default."""
        try:
            return self[address]
        except SiteError:
            return default

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def nbytes(self) -> int:
        """Bytes of the values and the gradients: for each, its numbers times the size of one."""
        return sum(one.numel() * one.element_size() for some in (self.data, self.grads) for one in some.values())

    @staticmethod
    def _canonical(address: str) -> str:
        parsed = parse(address)
        if parsed.layers is None:
            return parsed.site
        if parsed.heads is not None or parsed.neurons is not None or not parsed.layers.isdigit():
            return address  # heads, neurons and ranges are looked up as they were asked for
        return Place(parsed.site, int(parsed.layers)).key

    def __repr__(self) -> str:
        lines = []
        for address, value in self.data.items():
            axes = SITES[address.split(".")[-1]].axes
            shape = " · ".join(f"{axis} {size}" for axis, size in zip(axes, value.shape, strict=False))
            stats = value.float()
            lines.append(f"{address:<18} {shape}  {str(value.dtype).removeprefix('torch.')}  "
                         f"μ {stats.mean().item():.3g} σ {stats.std(unbiased=False).item():.3g}")
        return "Activations\n  " + "\n  ".join(lines) if lines else "Activations (empty)"
