"""A label graph as JSON: the classes with what is known of them, and the edges (parent, child), both in sorted order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx as nx

from ...errors import RecordError

KIND, SCHEMA = "hooklab label graph", 1
TEXTS = ("node", "label", "name", "definition")


def document(graph: nx.DiGraph) -> dict[str, Any]:
    """All of a graph whose nodes have label, name, definition and lemmas; equal for equal graphs."""
    rows = [{"node": node, **row, "lemmas": list(row["lemmas"])} for node, row in graph.nodes(data=True)]
    return {"kind": KIND, "schema": SCHEMA, "nodes": sorted(rows, key=lambda row: row["node"]),
            "edges": sorted(map(list, graph.edges))}


def encoded(graph: nx.DiGraph) -> bytes:
    """The bytes of the file."""
    return json.dumps(document(graph), ensure_ascii=False, indent=1).encode()


def decoded(path: Path) -> tuple[list[tuple[str, str]], list[dict[str, Any]]]:
    """The edges, and a row for each class.

    Raises:
        RecordError: the file cannot be read, is no label graph, is damaged, or was written by a later version.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(f"{path} could not be read: {error.strerror or error}") from error
    except ValueError as error:
        raise RecordError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise RecordError(f"{path} holds no label graph; LabelGraph.save writes one")
    if found.get("schema") != SCHEMA:
        raise RecordError(f"{path} has schema {found.get('schema')!r}; this version of hooklab reads schema {SCHEMA}")
    try:
        rows = [{key: _text(row[key]) for key in TEXTS} | {"lemmas": tuple(map(_text, row["lemmas"]))}
                for row in found["nodes"]]
        return [(_text(parent), _text(child)) for parent, child in found["edges"]], rows
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{path} is damaged: {error!r}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
