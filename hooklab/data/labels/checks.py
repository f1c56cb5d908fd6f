"""What is no taxonomy: edges that are none, and classes that lie beneath themselves."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import networkx as nx

from ...errors import RecordError


def pair(edge: Any) -> tuple[str, str]:
    """An edge, checked: two letters of a text would be one too."""
    if isinstance(edge, str) or not isinstance(edge, Collection) or len(edge) != 2 or not all(
            isinstance(one, str) for one in edge):
        raise RecordError(f"an edge is a pair (parent, child) of ids, not {edge!r}; a class without edges is "
                          "described: labels=[Label(id)]")
    parent, child = edge
    return parent, child


def refuse_cycles(graph: nx.DiGraph) -> None:
    """Raises RecordError that names one."""
    if not nx.is_directed_acyclic_graph(graph):
        around = [parent for parent, _ in nx.find_cycle(graph)]
        raise RecordError(f"a class cannot lie beneath itself: {' > '.join(map(str, [*around, around[0]]))}")
