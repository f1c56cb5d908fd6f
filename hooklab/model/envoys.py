"""Sites as attributes: `model.layers[2].resid_post` and `model.logits`, readable and writable inside a trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nnsight.intervention.envoy import Envoy
from nnsight.intervention.eproperty import eproperty
from nnsight.intervention.interleaver import Mediator
from nnsight.tracing.tracer import _saves

from ..address import check_index
from ..errors import SiteError, SiteNameError, TraceError, did_you_mean
from ..sites import LAYER_SITES, MODEL_SITES, SITES
from .checks import check_write
from .layout import Layout


class SiteProperty(eproperty):
    """One site of its host: reading waits for the model to get there, assigning replaces the value."""

    def __init__(self, site: str) -> None:
        def identity(host: Any, value: Any) -> Any:
            return value

        identity.__name__ = site
        identity.__doc__ = f"{SITES[site].meaning}: [{' '.join(SITES[site].axes)}]."
        super().__init__(key=site, description=" ".join(SITES[site].axes))
        self(identity)

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is None:
            return self
        location = self._checked(obj)
        try:
            value = super().__get__(obj, owner)
        except ValueError as error:
            if "outside of interleaving" not in str(error):
                raise
        else:
            if id(value) not in _saves():
                return value
            # What was saved stays as it was: a write through this second access goes to a tensor of its own.
            fresh = value.clone()
            Mediator.swap(location, fresh)
            return fresh
        address = obj.interleaver.routes.addresses[location]
        raise TraceError(f"{address} has a value only while the model runs: read it inside "
                         f"`with model.trace(prompt):`, or call model.capture(prompt, ...).")

    def __set__(self, obj: Any, value: Any) -> None:
        location = self._checked(obj)
        old = self.__get__(obj)
        check_write(obj.interleaver.routes.addresses[location], SITES[self.key].axes, value, old)
        Mediator.swap(location, value)

    def _checked(self, obj: Any) -> str:
        layout: Layout = obj.interleaver.layout
        reason = layout.missing(self.key)
        if reason is not None:
            raise SiteError(reason)
        refusal = obj.interleaver.refused.get(self.key)
        if refusal is not None:
            raise SiteError(refusal)
        return self._location(obj)


class Block(Envoy):
    """One block of the model: nnsight's envoy with hooklab's sites as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
        hint = did_you_mean(name, LAYER_SITES)
        if name in MODEL_SITES:
            hint = f" {name} belongs to the whole model: model.{name}."
        raise SiteNameError(f"A layer has no {name!r}.{hint} model.sites lists what there is.")


    def __setattr__(self, name: str, value: Any) -> None:
        known = hasattr(type(self), name) or name in self.__dict__ or name in ("path", "interleaver")
        if not known and not name.startswith("_") and "_aliases" in self.__dict__:
            self.__getattr__(name)  # a misspelt site would be written to nothing
        super().__setattr__(name, value)


for _site in LAYER_SITES:
    setattr(Block, _site, SiteProperty(_site))


class Layers(Sequence[Block]):
    """The model's blocks, in order: `model.layers[-1]`, `model.layers[2:4]`, `for layer in model.layers`."""

    def __init__(self, blocks: list[Block]) -> None:
        self._blocks = blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Layers(self._blocks[index])
        return self._blocks[check_index(int(index), len(self._blocks), "layer")]

    def __repr__(self) -> str:
        return f"Layers({len(self)} × {type(self._blocks[0]._module).__name__})" if self._blocks else "Layers(0)"
