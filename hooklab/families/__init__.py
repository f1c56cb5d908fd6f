"""Where each architecture keeps its parts: one small table per Hugging Face `model_type`, and nothing else.

A table says where a *role* lives ("the norm before attention", "the output projection of attention") as a module
path inside one block, and the few facts that modules cannot tell (parallel blocks, packing of fused projections).
`hooklab.model` derives every site from it, and `model.verify()` proves the table by arithmetic. To teach hooklab an
architecture, register a table of your own:

>>> from hooklab.families import LLAMA, register
>>> from dataclasses import replace
>>> _ = register(replace(LLAMA, name="my_llama", ln2="mlp_norm"))
>>> family("my_llama").ln2
'mlp_norm'
>>> _ = unregister("my_llama")
"""

from __future__ import annotations

from ..errors import FamilyError, did_you_mean
from .shipped import LLAMA, TABLES, WRAPPERS
from .table import HEADLESS, PARALLEL, Family

__all__ = ["FAMILIES", "HEADLESS", "LLAMA", "PARALLEL", "WRAPPERS", "Family", "family", "register", "unregister"]

FAMILIES: dict[str, Family] = {table.name: table for table in TABLES}

_BUILT_IN = frozenset(FAMILIES)


def register(table: Family) -> Family:
    """Teach hooklab an architecture; the table's name is the config's `model_type`.

    Raises:
        FamilyError: the name belongs to a table that ships with hooklab.
    """
    if table.name in _BUILT_IN:
        raise FamilyError(f'"{table.name}" is a table of hooklab itself; give yours the name of your model_type.')
    FAMILIES[table.name] = table
    return table


def unregister(name: str) -> Family:
    """Forget a registered architecture and return its table.

    Raises:
        FamilyError: no such table was registered.
    """
    if name in _BUILT_IN or name not in FAMILIES:
        raise FamilyError(f'"{name}" was not registered.' + did_you_mean(name, set(FAMILIES) - _BUILT_IN))
    return FAMILIES.pop(name)


def family(model_type: str) -> Family:
    """The table for a `model_type`.

    Raises:
        FamilyError: there is none; the message shows the way to add one.
    """
    if model_type not in FAMILIES:
        raise FamilyError(
            f'hooklab has no table for "{model_type}".{did_you_mean(model_type, FAMILIES)} '
            f"Known: {', '.join(sorted(FAMILIES))}. A table of about ten lines teaches it: see hooklab.families.register.")
    return FAMILIES[model_type]
