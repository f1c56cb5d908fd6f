"""Labels that lie beneath each other: a graph of classes, to roll fine labels up into coarse ones and to choose among them.

In: edges (parent, child) of any taxonomy; `wordnet.py` reads those of ImageNet's classes. Out: classes above and beneath,
and a row of metadata for every example of a data set. A class may have several parents; every path upwards counts.
`sampling.py` chooses examples by their classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import networkx as nx

from ...errors import RecordError, did_you_mean
from ...files import write_whole
from .checks import pair, refuse_cycles
from .file import decoded, document, encoded

Level = int | str | Collection[str]
"""So many steps beneath a root, or the classes to choose from."""


@dataclass(frozen=True)
class Label:
    """What is known of one class.

    Attributes:
        node: Its id, unique in the graph: `n02084071`.
        label: The word to show: `dog`.
        name: Another unique name, where there is one: `dog.n.01`.
        definition: One sentence.
        lemmas: All its words.
    """

    node: str
    label: str = ""
    name: str = ""
    definition: str = ""
    lemmas: tuple[str, ...] = ()


class LabelGraph:
    """Classes and which lies beneath which. Wherever a class is asked for, its id, its name or a label of one class will do.

    >>> graph = LabelGraph([("animal", "dog"), ("animal", "cat"), ("dog", "puppy")])
    >>> graph
    LabelGraph: 4 classes, 1 root (animal), 2 leaves, 3 levels
    >>> graph.rollup("puppy", 1), graph.rollup("puppy", 0)
    ('dog', 'animal')
    >>> graph.children("animal"), graph.children("animal", depth=None)
    (('dog', 'cat'), ('dog', 'cat', 'puppy'))

    Args:
        edges: Pairs (parent, child) of ids.
        labels: What is known of the classes, in any order; a class without is its own label. A class that no edge names is
            added on its own.

    Attributes:
        graph: The edges, parent to child, as a networkx.DiGraph; its nodes have `label`, `name`, `definition`, `lemmas`.

    Raises:
        RecordError: an edge is no pair of ids, a class lies beneath itself, or two have the same id or name.
    """

    def __init__(self, edges: Iterable[tuple[str, str]], labels: Iterable[Label] = ()) -> None:
        self.graph = nx.DiGraph()
        self.graph.add_edges_from(map(pair, edges))
        known: dict[str, Label] = {}
        for one in labels:
            if not isinstance(one, Label):
                raise RecordError(f"what is known of a class is a Label(id, label, …), not {one!r}")
            if one.node in known:
                raise RecordError(f"the class {one.node!r} is described twice")
            known[one.node] = one
        self.graph.add_nodes_from(known)
        for node in self.graph:
            one = known.get(node) or Label(node)
            self.graph.nodes[node].update(label=one.label or node, name=one.name, definition=one.definition,
                                          lemmas=tuple(one.lemmas))
        refuse_cycles(self.graph)
        self._ids = self._named()

    def __repr__(self) -> str:
        roots = self.roots
        named = ", ".join(self.label(one) for one in roots[:3]) + (" …" if len(roots) > 3 else "")
        return (f"LabelGraph: {_count(len(self), 'class', 'classes')}, {_count(len(roots), 'root', 'roots')}"
                f"{f' ({named})' if roots else ''}, {_count(len(self.leaves), 'leaf', 'leaves')}, "
                f"{_count(self.depth + 1 if roots else 0, 'level', 'levels')}")

    def __len__(self) -> int:
        return len(self.graph)

    def __contains__(self, label: object) -> bool:
        return label in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelGraph) and document(self.graph) == document(other.graph)

    __hash__ = None  # type: ignore[assignment]

    @property
    def nodes(self) -> tuple[str, ...]:
        """All ids."""
        return tuple(self.graph)

    @property
    def roots(self) -> tuple[str, ...]:
        """The classes with nothing above them."""
        return tuple(node for node, n in self.graph.in_degree() if n == 0)

    @property
    def leaves(self) -> tuple[str, ...]:
        """The classes with nothing beneath them."""
        return tuple(node for node, n in self.graph.out_degree() if n == 0)

    @property
    def depth(self) -> int:
        """The steps of the longest path from a root."""
        return int(nx.dag_longest_path_length(self.graph, weight=None))

    @property
    def names(self) -> dict[str, str]:
        """Id -> label, of all classes."""
        return {node: self.label(node) for node in self.graph}

    def node(self, label: str) -> str:
        """The id of a class, by its id, its name, or a label that only one class has.

        Raises:
            RecordError: there is none, or several have this label; the error lists them.
        """
        found = self._ids.get(label, ())
        if len(found) == 1:
            return found[0]
        if found:
            raise RecordError(f"{len(found)} classes are called {label!r}: {self._listed(found)}; say which by its id")
        raise RecordError(f"there is no class {label!r} among {len(self)}.{did_you_mean(str(label), self._ids)}")

    def find(self, word: str) -> tuple[str, ...]:
        """The ids of all classes that have a word as label or lemma, in capitals or not."""
        sought = word.casefold()
        return tuple(node for node, row in self.graph.nodes(data=True)
                     if sought in {w.casefold() for w in (row["label"], *row["lemmas"])})

    def entry(self, label: str) -> Label:
        """All that is known of a class."""
        node = self.node(label)
        return Label(node, **self.graph.nodes[node])

    def label(self, label: str) -> str:
        """The word to show for a class."""
        return str(self.graph.nodes[self.node(label)]["label"])

    def definition(self, label: str) -> str:
        """What a class means, in a sentence; empty where unknown."""
        return self.entry(label).definition

    def lemmas(self, label: str) -> tuple[str, ...]:
        """All words of a class."""
        return self.entry(label).lemmas

    def children(self, label: str, depth: int | None = 1) -> tuple[str, ...]:
        """The classes beneath one, at most `depth` steps away (None: all), near ones first."""
        return self._reached(self.graph, label, depth)

    def parents(self, label: str, depth: int | None = 1) -> tuple[str, ...]:
        """The classes above one, at most `depth` steps away on any path (None: all), near ones first."""
        return self._reached(self.graph.reverse(copy=False), label, depth)

    def above(self, label: str, level: Level) -> tuple[str, ...]:
        """The classes of a level that a class belongs to, along all its paths; several where its parents differ.

        Args:
            label: The class.
            level: A number: so many steps beneath a root. A class that lies higher than that on all its paths stands for
                itself. Or classes: those of them that are it or lie above it, without what lies above another one of them.
        """
        node = self.node(label)
        if isinstance(level, int):
            if level < 0:
                raise RecordError(f"levels count down from 0, the roots: level={level}")
            found = tuple(one for one in self.parents(node, None) if level in self._levels[one])
            return found or (node,)
        chosen = {self.node(one) for one in ([level] if isinstance(level, str) else level)}
        up = [one for one in (node, *self.parents(node, None)) if one in chosen]
        covered = {higher for one in up for higher in nx.ancestors(self.graph, one)}
        return tuple(one for one in up if one not in covered)

    def rollup(self, label: str, level: Level) -> str:
        """The one class of a level that a class belongs to; see `above` for levels.

        Raises:
            RecordError: it belongs to none or to several of them; the error lists those.

        >>> LabelGraph([("pet", "dog"), ("hunter", "dog"), ("pet", "fish")]).rollup("dog", ["pet"])
        'pet'
        """
        found = self.above(label, level)
        if len(found) == 1:
            return found[0]
        if found:
            raise RecordError(f"{label!r} belongs to {len(found)} classes of this level: {self._listed(found)}; name the "
                              "classes to choose from, level=[…], or read all of them with above()")
        named = [level] if isinstance(level, str | int) else level
        raise RecordError(f"{label!r} lies beneath none of the classes to choose from: {', '.join(map(str, named))}")

    def mapping(self, level: Level) -> dict[str, str]:
        """Every leaf -> the class that it rolls up to; see `rollup`."""
        return {leaf: self.rollup(leaf, level) for leaf in self.leaves}

    def subgraph(self, root: str) -> LabelGraph:
        """A class and all that lies beneath it, as a graph of its own."""
        node = self.node(root)
        kept = {node, *self.children(node, None)}
        return LabelGraph([(a, b) for a, b in self.graph.edges if a in kept and b in kept],
                          [self.entry(one) for one in self.graph if one in kept])

    def tree(self, root: str) -> LabelGraph:
        """The same with one parent each, the one that a search in breadth meets first."""
        node = self.node(root)
        return LabelGraph(nx.bfs_edges(self.graph, node), [self.entry(one) for one in (node, *self.children(node, None))])

    def metadata(self, labels: Iterable[str], level: Level | None = None) -> list[dict[str, Any]]:
        """A row for each example by its class, to store beside its activations: node, label, name, definition, lemmas.

        Args:
            labels: The class of every example.
            level: Adds `root_label`, the label of what the class rolls up to.
        """
        known: dict[str, dict[str, Any]] = {}
        rows = []
        for label in labels:
            if label not in known:
                one = self.entry(label)
                coarse = {} if level is None else {"root_label": self.label(self.rollup(label, level))}
                known[label] = asdict(one) | {"lemmas": list(one.lemmas)} | coarse
            rows.append(dict(known[label]))
        return rows

    def outline(self, root: str | None = None, depth: int | None = None) -> str:
        """The classes as indented text; one with several parents stands beneath each."""
        lines: list[str] = []
        stack = [(one, 0) for one in reversed([self.node(root)] if root is not None else self.roots)]
        while stack:
            node, level = stack.pop()
            beneath = list(self.graph.successors(node))
            hidden = f"  (+ {len(beneath)} beneath)" if beneath and level == depth else ""
            lines.append("  " * level + self.label(node) + hidden)
            stack += [] if hidden else [(one, level + 1) for one in reversed(beneath)]
        return "\n".join(lines)

    def save(self, path: str | Path, *, replace: bool = False) -> Path:
        """Write the graph as JSON; `load_labels` reads it.

        Raises:
            FileExistsError: the file is there, and `replace` is not set.
        """
        return write_whole(Path(path), encoded(self.graph), replace=replace)

    @cached_property
    def _levels(self) -> dict[str, frozenset[int]]:
        levels: dict[str, frozenset[int]] = {}
        for node in nx.topological_sort(self.graph):
            before = [levels[one] for one in self.graph.predecessors(node)]
            levels[node] = frozenset(n + 1 for ones in before for n in ones) if before else frozenset({0})
        return levels

    def _reached(self, graph: nx.DiGraph, label: str, depth: int | None) -> tuple[str, ...]:
        if depth is not None and depth < 0:
            raise RecordError(f"a depth counts steps: depth={depth}")
        return tuple(nx.single_source_shortest_path_length(graph, self.node(label), cutoff=depth))[1:]

    def _named(self) -> dict[str, tuple[str, ...]]:
        ids: dict[str, tuple[str, ...]] = {}
        for node, row in self.graph.nodes(data=True):
            if row["name"] in ids or (row["name"] in self.graph and row["name"] != node):
                raise RecordError(f"two classes are named {row['name']!r}; a name is unique")
            ids |= {row["name"]: (node,)} if row["name"] else {}
        taken = {*ids, *self.graph}
        for node, row in self.graph.nodes(data=True):
            if row["label"] not in taken:
                ids[row["label"]] = (*ids.get(row["label"], ()), node)
        return ids | {node: (node,) for node in self.graph}

    def _listed(self, nodes: Collection[str]) -> str:
        shown = [node if self.label(node) == node else f"{node} ({self.label(node)})" for node in list(nodes)[:8]]
        return ", ".join(shown) + (f" and {len(nodes) - 8} more" if len(nodes) > 8 else "")


def load_labels(path: str | Path) -> LabelGraph:
    """Read a graph that `LabelGraph.save` wrote.

    Raises:
        RecordError: the file cannot be read, is not one, is damaged, or was written by a later version.
    """
    edges, rows = decoded(Path(path))
    return LabelGraph(edges, [Label(**row) for row in rows])


def _count(n: int, one: str, more: str) -> str:
    return f"{n} {one if n == 1 else more}"
