"""Which examples of a labelled data set to take: balanced over its classes, or in pairs of opposite classes.

In: the class of every example, or how many there are of each. Out: numbers of examples, or their indices. Every choice is
made by a seed, and the same seed makes the same choice.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

import networkx as nx

from ...errors import RecordError, did_you_mean
from .labels import LabelGraph


def balanced_sample(counts: Mapping[str, int], n: int, seed: int = 0,
                    weights: Mapping[str, float] | None = None) -> dict[str, int]:
    """How many examples to take of each class, n in all, in proportion to weights, and no more than a class has.

    What a small class cannot give is shared among the others. Shares are rounded down; what is left goes to the largest
    remainders, and the seed decides between equal ones.

    Args:
        counts: Class -> how many examples it has.
        n: How many to take in all.
        seed: Decides between equal remainders.
        weights: Class -> its weight, for all classes of `counts`; all equal by default.

    Returns:
        Class -> how many to take, in the order of `counts`. They sum to n.

    Raises:
        RecordError: the classes have fewer than n examples, or counts or weights do not fit.

    >>> balanced_sample({"dog": 10, "cat": 2, "bird": 10}, 12)
    {'dog': 5, 'cat': 2, 'bird': 5}
    >>> balanced_sample({"dog": 10, "cat": 10}, 8, weights={"dog": 3, "cat": 1})
    {'dog': 6, 'cat': 2}
    """
    shares = _weighed(counts, weights)
    if not isinstance(n, Integral):
        raise RecordError(f"n={_short(n)}: it is a whole number of examples")
    room = sum(counts[one] for one in shares)
    if not 0 <= n <= room:
        raise RecordError(f"{n} examples were asked for; the {len(shares)} classes that have a weight have {room}")
    taken = dict.fromkeys(counts, 0)
    left = n
    while full := _full(shares, counts, left):
        for one in full:
            taken[one] = counts[one]
            left -= counts[one]
            del shares[one]
    return taken | _rounded(shares, left, seed)


def depth_weights(graph: LabelGraph, root: str, classes: Iterable[str] | None = None) -> dict[str, int]:
    """A weight for each class beneath one that favours the near and the broad: (max_depth − depth + 1) · subtree_size.

    Depth is the least number of steps from `root`, max_depth the largest of them; a subtree counts its own root.

    Args:
        graph: The classes.
        root: The high-level class.
        classes: Which classes to weigh, as far as they lie beneath `root` or are it; its leaves by default.

    Returns:
        Id -> weight.

    >>> depth_weights(LabelGraph([("animal", "fish"), ("animal", "dog"), ("dog", "puppy")]), "animal")
    {'fish': 2, 'puppy': 1}
    """
    steps = nx.single_source_shortest_path_length(graph.graph, graph.node(root))
    wanted = set(graph.leaves) if classes is None else {graph.node(one) for one in classes}
    found = {one: depth for one, depth in steps.items() if one in wanted}
    deepest = max(found.values(), default=0)
    return {one: (deepest - depth + 1) * (len(nx.descendants(graph.graph, one)) + 1) for one, depth in found.items()}


def sample_beneath(graph: LabelGraph, root: str, counts: Mapping[str, int], n: int, seed: int = 0, *,
                   by_depth: bool = False) -> dict[str, int]:
    """How many examples to take of each class beneath a high-level one, n in all: evenly, or by `depth_weights`.

    Args:
        graph: The classes.
        root: The high-level class.
        counts: Class -> how many examples it has, of any classes of the graph; those elsewhere are left alone.
        n: How many to take in all.
        seed: Decides between equal remainders.
        by_depth: Weigh classes by `depth_weights`.

    Raises:
        RecordError: a class is not in the graph, none lies beneath `root`, or they have fewer than n examples.
    """
    nodes = {graph.node(one): one for one in counts}
    if len(nodes) < len(counts):
        raise RecordError(f"counted twice, by id and by name: {', '.join(sorted(set(counts) - set(nodes.values())))}")
    weights = depth_weights(graph, root, nodes)
    if not weights:
        raise RecordError(f"none of the {len(counts)} classes lies beneath {root!r}")
    own = {nodes[node]: counts[nodes[node]] for node in weights}
    return balanced_sample(own, n, seed, {nodes[node]: weights[node] for node in weights} if by_depth else None)


def draw(labels: Sequence[str], take: Mapping[str, int], seed: int = 0) -> list[int]:
    """Which examples to take so that there are so many of each class: their indices, in order.

    Args:
        labels: The class of every example.
        take: Class -> how many, as `balanced_sample` says.
        seed: Decides which.

    Raises:
        RecordError: a class has fewer examples than asked for.

    >>> draw(["dog", "cat", "dog", "cat"], {"dog": 2, "cat": 1})
    [0, 2, 3]
    """
    at = _indices(labels)
    chosen: list[int] = []
    for one, n in take.items():
        if not 0 <= n <= len(at[one]):
            hint = did_you_mean(one, set(labels))
            raise RecordError(f"{n} examples of {one!r} were asked for; it has {len(at[one])}.{hint}")
        chosen += random.Random(f"{seed} {one}").sample(at[one], n)
    return sorted(chosen)


@dataclass(frozen=True)
class Pairs:
    """Examples in pairs whose classes differ: the i-th of `base` with the i-th of `other`.

    Attributes:
        base, other: Indices of examples, as many of one as of the other; no class is in both.
        classes: The pairs of classes.
        left_out: Indices of examples that found no partner, since their class has more examples than the other.
    """

    base: tuple[int, ...]
    other: tuple[int, ...]
    classes: tuple[tuple[str, str], ...]
    left_out: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.base)


def counterfactual_pairs(labels: Sequence[str], pairs: Iterable[tuple[str, str]] | None = None, seed: int = 0) -> Pairs:
    """Every example of a class with one of another class, to patch what one was into what the other is.

    Classes are paired in sorted order, the first with the second, the third with the fourth; or as `pairs` says. Within a
    pair of classes the seed decides which example meets which.

    Args:
        labels: The class of every example.
        pairs: The pairs of classes (base, other); every class once at most. Classes without a pair are left out.
        seed: Decides who meets whom.

    Raises:
        RecordError: the number of classes is odd, a class is in two pairs or has no examples.

    >>> pairs = counterfactual_pairs(["cat", "dog", "dog", "cat", "dog"])
    >>> pairs.classes, len(pairs), pairs.base, len(pairs.left_out)
    ((('cat', 'dog'),), 2, (0, 3), 1)
    """
    at = _indices(labels)
    matched = tuple((a, b) for a, b in pairs) if pairs is not None else _consecutive(sorted(at))
    for one, times in Counter(one for pair in matched for one in pair).items():
        if times > 1:
            raise RecordError(f"the class {one!r} is in {times} pairs; base and other are to have no class in common")
        if one not in at:
            raise RecordError(f"there is no example of {one!r}.{did_you_mean(str(one), at)}")
    base: list[int] = []
    other: list[int] = []
    for a, b in matched:
        n = min(len(at[a]), len(at[b]))
        base += sorted(random.Random(f"{seed} {a}").sample(at[a], n)) if len(at[a]) > n else at[a]
        other += random.Random(f"{seed} {b}").sample(at[b], n)
    rest = set(range(len(labels))) - set(base) - set(other)
    return Pairs(tuple(base), tuple(other), matched, tuple(sorted(rest)))


def _consecutive(classes: list[str]) -> tuple[tuple[str, str], ...]:
    if len(classes) % 2:
        raise RecordError(f"{len(classes)} classes cannot all be paired, since their number is odd: {classes[-1]!r} would "
                          "stay alone. Leave one out, or say pairs=[(base, other), …]")
    return tuple(zip(classes[::2], classes[1::2], strict=True))


def _indices(labels: Sequence[str]) -> defaultdict[str, list[int]]:
    at: defaultdict[str, list[int]] = defaultdict(list)
    for i, one in enumerate(labels):
        at[one].append(i)
    return at


def _weighed(counts: Mapping[str, int], weights: Mapping[str, float] | None) -> dict[str, Fraction]:
    """Class -> weight, exactly, of the classes that have one."""
    if not isinstance(counts, Mapping):
        raise RecordError("counts are to say of each class how many examples it has, as collections.Counter(labels) does; "
                          f"not {_short(counts)}")
    for one, count in counts.items():
        if not isinstance(count, Real):
            raise RecordError(f"the class {one!r} has {_short(count)} for a count; it is the number of its examples, "
                              "such as len() of their list")
        if not math.isfinite(count) or count < 0 or count != int(count):
            raise RecordError(f"the class {one!r} has {count} examples; a count is a whole number, 0 or more")
    if weights is None:
        return dict.fromkeys(counts, Fraction(1))
    if odd := set(weights) ^ set(counts):
        raise RecordError(f"weights and counts are to have the same classes; only one of them has {sorted(odd)[:5]}")
    for one, weight in weights.items():
        if not (isinstance(weight, Real) and math.isfinite(weight) and weight >= 0):
            raise RecordError(f"the weight of {one!r} is {weight!r}; a weight is a finite number, 0 or more")
    return {one: Fraction(weights[one]) for one in counts if weights[one] > 0}


def _full(shares: Mapping[str, Fraction], counts: Mapping[str, int], left: int) -> list[str]:
    """The classes that are to give all they have, since their share is as much or more."""
    total = sum(shares.values())
    return [one for one, weight in shares.items() if weight * left >= counts[one] * total]


def _rounded(shares: Mapping[str, Fraction], n: int, seed: int) -> dict[str, int]:
    total = sum(shares.values())
    exact = {one: n * weight / total for one, weight in shares.items()}
    taken = {one: math.floor(share) for one, share in exact.items()}
    order = sorted(shares)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda one: taken[one] - exact[one])
    more = set(order[:n - sum(taken.values())])
    return {one: count + (one in more) for one, count in taken.items()}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
