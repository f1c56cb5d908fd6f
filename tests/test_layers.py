"""The map of the house: who may import whom. Imports point to rows above; a row's members leave each other alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "hooklab"
ROWS = [
    {"errors", "sites", "braces", "files", "jsontext", "progress"},
    {"address", "families", "tokens", "records", "positions", "problems", "html", "lazy", "tutorials"},
    {"model", "spec", "edits", "metrics", "sae", "statistics"},
    {"compiler"},
    {"runtime"},
    {"code", "demo", "analysis"},
    {"data"},
    {"views"},
    {"bench", "check"},
    {"cli", "magics"},
    {"__init__", "__main__"},
]
# Addresses and selectors are the words that records and tokens are read with; a model runs itself through the runtime;
# the command line tells the package's version, the bench hands out its public names; a record shows itself through a view.
ALLOWED = {("records", "address"), ("records", "tokens"), ("records", "html"), ("records", "problems"),
           ("positions", "tokens"), ("tokens", "positions"),
           ("model", "runtime"), ("records", "views"), ("model", "compiler"), ("cli", "__init__"),
           ("magics", "__init__"), ("bench", "__init__")}
ONLY = {"nnsight": {"model", "runtime"}, "IPython": {"magics", "__init__"}, "anywidget": {"views"}}


def imports(path: Path) -> set[str]:
    """Absolute names of the modules that a file imports, wherever in it."""
    found = set()
    package = ("hooklab", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, node.module) if node.module else base)
            found.update([stem] if node.module else [f"{stem}.{alias.name}" for alias in node.names])
    return found


def part(name: str) -> str:
    """The top-level member of hooklab that a module belongs to."""
    pieces = name.split(".")
    return "__init__" if len(pieces) == 1 or pieces[1].startswith("__") else pieces[1]


def row(member: str) -> int:
    return next(i for i, members in enumerate(ROWS) if member in members)


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_up(path):
    member = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imports(path):
        if name.split(".")[0] == "hooklab" and part(name) != member:
            above = row(part(name)) < row(member)
            assert above or (member, part(name)) in ALLOWED, f"{member} imports {name}"
        owners = ONLY.get(name.split(".")[0])
        assert owners is None or member in owners, f"{member} imports {name}"


def test_the_map_is_complete():
    assert {p.relative_to(ROOT).parts[0].removesuffix(".py") for p in FILES} <= set().union(*ROWS)
