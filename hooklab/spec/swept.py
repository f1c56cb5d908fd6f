"""What a spec sweeps over: its runs, and the axes of each, told from the text alone.

Axes are named and ordered as the compiler does it: those of the run below, sweep variables, then line by line places,
positions, amounts; a name that is taken gets a number. No model is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from ..positions import marks_in
from ..positions import select as s
from ..sites import SITES
from . import ast
from .names import EDITS, IMPLICIT, MAIN

READINGS = (ast.Attribute, ast.Score, ast.Lens)
ACTING = (*EDITS, *READINGS, ast.Save, ast.Generate)


@dataclass(frozen=True)
class Block:
    """A run: a block, or the lines outside of blocks (`number` is None)."""

    name: str
    on: str
    body: tuple[Any, ...]
    number: int | None


@dataclass(frozen=True)
class Axis:
    """An axis, and what makes it: a sweep variable, or a part of a line of the run.

    Attributes:
        role: `layer`, `head`, `neuron`, `dims`, `feature`, `site`, `pos`, `key`, `query`, `value`; `sweep` for a variable.
        line: Which line of the body.
    """

    name: str
    role: str
    line: int = -1
    variable: str = ""


class Book:
    """The names of a spec, its runs, and the axes of each."""

    def __init__(self, spec: ast.Spec) -> None:
        self.spec = spec
        self.lets = {x.name: x for x in spec.body if isinstance(x, ast.Let)}
        self.groups = {x.name: x for x in spec.body if isinstance(x, ast.Group)}
        self.sweeps = {x.name: x for x in spec.body if isinstance(x, ast.Sweep)}
        self.prompts = [x.name or MAIN for x in spec.body if isinstance(x, ast.Prompt)]
        self.runs = {block.name: block for block in self._blocks()}

    def _blocks(self) -> Iterator[Block]:
        """Every run with the name that its results have."""
        taken = set(self.prompts)
        blocks = [(i, x) for i, x in enumerate(self.spec.body) if isinstance(x, ast.Run)]
        loose = [x for x in self.spec.body if isinstance(x, ACTING)]
        shared = [x for x in loose if isinstance(x, ast.Generate)] if blocks else []
        rest = tuple(x for x in loose if x not in shared)
        for k, (i, block) in enumerate(blocks):
            name = block.name or _free(IMPLICIT if k == 0 else f"{IMPLICIT}_{k + 1}", taken)
            taken.add(name)
            own = any(isinstance(x, ast.Generate) for x in block.body)
            yield Block(name, block.on, (*block.body, *(() if own else shared)), i)
        if rest:
            lenders = {x.source for x in rest if isinstance(x, ast.Attribute)}
            on = next((name for name in self.prompts if name not in lenders), MAIN)
            yield Block(_free(IMPLICIT, taken) if any(isinstance(x, EDITS) for x in rest) else on, on, rest, None)

    def prompt(self, run: str) -> str:
        """The prompt that a run stands on."""
        while run in self.runs and self.runs[run].on != run:
            run = self.runs[run].on
        return run

    def axes(self, run: str) -> list[Axis]:
        """The axes of a run's sweep, readings apart."""
        if run not in self.runs:
            return []
        block = self.runs[run]
        below = [] if block.on == run else self.axes(block.on)
        used = set(names_in(block.body, self))
        inherited = {axis.variable for axis in below}
        outer = [Axis(name, "sweep", variable=name) for name in self.sweeps if name in used - inherited]
        own = [axis for i, x in enumerate(block.body) if isinstance(x, EDITS) for axis in self.line_axes(x, i)]
        return named_apart([*below, *outer, *own])

    def line_axes(self, x: Any, line: int) -> list[Axis]:
        """The axes that a line makes, under the names that they have by themselves."""
        if isinstance(x, READINGS):
            target, place = self.read_at(x)
            roles = self._place_roles(replace(target, each=True), "pattern" if isinstance(x, ast.Score) else None)
        else:
            target, place = x.target, self.place_of(x.target)
            roles = self._place_roles(target, "pattern" if isinstance(x, ast.Cut) else None)
        query = isinstance(x, ast.Cut) and isinstance(target.to, ast.AtEach)
        if isinstance(place, ast.AtEach):
            roles.append(("pos", "pos") if not isinstance(x, ast.Cut) else ("key_pos" if query else "pos", "key"))
        if query:
            roles.append(("query_pos", "query"))
        if isinstance(getattr(x, "amount", None), ast.EachValue):
            roles.append(("value", "value"))
        return [Axis(name, role, line) for name, role in roles]

    def _place_roles(self, target: ast.Target, default: str | None) -> list[tuple[str, str]]:
        where = target.sites[0]
        if not target.each:
            return []
        if len(target.sites) > 1 or target.excluding or not isinstance(where, (ast.Site, ast.Feature)):
            return [("site", "site")]
        if isinstance(where, ast.Feature):
            return [("feature", "feature")]
        words = SITES[where.comp or default or ("result" if where.head is not None else "mlp_post")].axes
        found = [("layer", "layer")] if several(where.layer) else []
        if several(where.head):
            found.append(("kv_head" if "kv_head" in words else "head", "head"))
        if where.neuron is not None:
            return [*found, ("neuron", "neuron")]
        return found if where.dims is None else [*found, (words[-1], "dims")]

    def read_at(self, x: Any) -> tuple[ast.Target, ast.Place | None]:
        """The places and the positions of a reading; a lens reads the stream at each unless told."""
        given = isinstance(x.target, ast.Target)
        target = x.target if given else ast.Target((ast.Site("resid_post", "*"),))
        place = self.place_of(target) if given else x.target
        return target, ast.AtEach() if place is None and isinstance(x, ast.Lens) else place

    def place_of(self, target: ast.Target) -> ast.Place | None:
        """The positions of a target: those of its first place, or of the group that is named bare."""
        where = target.sites[0]
        if isinstance(where, ast.Ref) and where.at is None and where.group in self.groups:
            return self.place_of(self.groups[where.group].target)
        return where.at


def named_apart(axes: list[Axis]) -> list[Axis]:
    """Axes with names of their own: a second `layer` becomes `layer_2`."""
    found: list[Axis] = []
    for axis in axes:
        found.append(replace(axis, name=_free(axis.name, {one.name for one in found})))
    return found


def several(index: Any) -> bool:
    """Whether an index was written as more than one thing."""
    return index is not None and not isinstance(index, int) and not (
        isinstance(index, tuple) and len(index) == 1 and (isinstance(index[0], int) or index[0].startswith("$")))


def _free(name: str, taken: Any) -> str:
    """A name, or with the first number that makes it free."""
    return next(one for one in (name, *[f"{name}_{n}" for n in range(2, len(taken) + 3)]) if one not in taken)


def names_in(node: Any, book: Book, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Names that a node uses: values, indices, positions and runs; through lets and groups too."""
    if isinstance(node, (ast.Name, ast.Word)):
        yield node.id
        if node.id in book.lets and node.id not in seen:
            yield from names_in(book.lets[node.id].value, book, seen | {node.id})
    elif isinstance(node, str) and node.startswith("$"):
        yield node[1:]
    elif isinstance(node, s.Selector):
        yield from marks_in(node)
    elif isinstance(node, tuple):
        for item in node:
            yield from names_in(item, book, seen)
    elif isinstance(node, ast.Ref) and node.group in book.groups:
        yield from names_in(book.groups[node.group].target, book, seen)
    if isinstance(node, ast.Node):
        lent = {ast.Freeze: "to", ast.Attribute: "source"}.get(type(node), "run")
        if isinstance(name := getattr(node, lent, None), str):
            yield name
        for f in fields(node):
            if f.name != "span":
                yield from names_in(getattr(node, f.name), book, seen)


def parts(node: Any) -> Iterator[Any]:
    """A node and all that it is made of; of positions, the whole."""
    yield node
    if isinstance(node, tuple):
        for item in node:
            yield from parts(item)
    elif isinstance(node, ast.Node):
        for f in fields(node):
            if f.name != "span":
                yield from parts(getattr(node, f.name))
