"""Which native locations of a model matter to a run, and for what: a layout, turned round."""

from __future__ import annotations

from collections.abc import Iterable

from .layout import Layout
from .ports import Port


class Routes:
    """Tables of locations, made once when a model opens.

    Attributes:
        ports, addresses: Location of a site -> its port, its address.
        by_source: Native location -> the ports that it carries.
        block_inputs: Native locations of what the blocks receive.
        inline: Attention modules that compute attention themselves, by path -> their inner ports.
        first: What the first block receives.
        attention_outputs: Native location -> layer of the attention module that returns it.
        leaves: What the embeddings give: gradients of activations end there.
        carriers: All native locations at which a run may have something to do.
        modules: Path of a module as nnsight knows it -> the module.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.ports = {port.location: port for port in layout.all_ports}
        self.addresses = {port.location: port.address for port in layout.all_ports}
        self.by_source: dict[str, tuple[Port, ...]] = {}
        for port in layout.all_ports:
            if port.source is not None:
                self.by_source[port.source] = (*self.by_source.get(port.source, ()), port)
        self.block_inputs = {str(port.source) for port in layout.all_ports if port.site == "resid_pre"}
        inline = layout.family.attention == "inline"
        self.inline = {layout.native(layout.role(i, "attn")): layout.attention_ports[id(layout.role(i, "attn"))]
                       for i in range(layout.facts.n_layers)} if inline else {}
        self.first = str(layout.port("resid_pre", 0).source)
        self.attention_outputs = {layout.native(layout.role(i, "attn")) + ".output": i
                                  for i in range(layout.facts.n_layers)}
        self.leaves = [str(layout.port(site).source) for site in ("embed", "pos_embed") if layout.missing(site) is None]
        self.carriers = {*self.by_source, *self.block_inputs, *self.leaves,
                         *(port.later for port in layout.all_ports if port.later is not None),
                         *(f"{path}.{side}" for path in self.inline for side in ("input", "output"))}
        self.modules = {layout.native(module): module for module in layout.hf.modules()}

    def watched(self, locations: Iterable[str], *, grad: bool) -> set[str]:
        """The native locations that matter to a run without blocks that serves sites at `locations`."""
        ports = [self.ports[location] for location in locations]
        watched = {location for port in ports for location in (port.source, port.later) if location}
        if any(port.source is None for port in ports):
            watched.update(f"{path}.{side}" for path in self.inline for side in ("input", "output"))
        if self.layout.family.folds:
            watched.update(self.block_inputs)
        if grad or any(port.site == "pos_embed" for port in ports):
            watched.update((*self.leaves, self.first))
        return watched
