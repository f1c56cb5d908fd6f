"""Which layer, and which part of a layer, a module belongs to: by the model's table, or else by its path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .measuring import Node

OUTSIDE = "outside"
REST = "rest"
ROLES = {"attn": "attn", "mlp": "mlp", "gate": "mlp", "up": "mlp", "gate_up": "mlp", "down": "mlp",
         "ln1": "norm", "ln2": "norm", "post_attn": "norm", "post_mlp": "norm"}
"""Role in a block -> the component that it is part of."""


class Part(NamedTuple):
    """A layer's number or `outside`, and a component."""

    layer: int | str
    component: str


def of_model(model: Any) -> dict[int, Part]:
    """`id` of a module -> its part, for an opened model; modules inside belong to the same."""
    layout, found = model.layout, {}
    tops = {"embed": layout.family.embed, "pos_embed": layout.family.pos_embed, "ln_final": layout.family.ln_final}
    for component, path in tops.items():
        module = _at(layout.base, path)
        if module is not None:
            found[id(module)] = Part(OUTSIDE, component)
    head = layout.hf.get_output_embeddings() if layout.has_head else None
    if head is not None:
        found[id(head)] = Part(OUTSIDE, "unembed")
    for layer, block in enumerate(layout.blocks):
        found[id(block)] = Part(layer, REST)
        for role, component in ROLES.items():
            module = _at(block, getattr(layout.family, role))
            if module is not None:
                found.setdefault(id(module), Part(layer, component))
    return found


def _at(root: Any, path: str | None) -> Any:
    """A module inside another, None where there is no such one."""
    for name in path.split(".") if path else ():
        root = getattr(root, name, None)
    return root if path else None


def of_path(name: str, top: bool) -> Part:
    """The part that a path says: its first number is the layer, what comes after it the component.

    >>> of_path("h.3.attn.c_attn", False), of_path("h.3", False), of_path("lm_head", False)
    (Part(layer=3, component='attn'), Part(layer=3, component='rest'), Part(layer='outside', component='lm_head'))
    """
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if at is None:
        return Part(OUTSIDE, REST if top else parts[-1])
    return Part(int(parts[at]), parts[at + 1] if at + 1 < len(parts) else REST)


def parts(root: Node, known: dict[int, Part]) -> Iterator[tuple[Node, Part]]:
    """Every node with its part; one that says nothing of its own belongs to that of its caller."""
    yield from _parts(root, Part(OUTSIDE, REST), known)


def _parts(node: Node, inherited: Part, known: dict[int, Part]) -> Iterator[tuple[Node, Part]]:
    yield node, inherited
    for child in node.children.values():
        part = known.get(child.module, inherited) if known else of_path(child.name, not node.name)
        if not known and part.layer == OUTSIDE and inherited.layer != OUTSIDE:
            part = inherited
        yield from _parts(child, part, known)
