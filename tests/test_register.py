"""An architecture of one's own: the recipe of CONTRIBUTING.md, run as it stands."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hooklab.errors import FamilyError
from hooklab.families import FAMILIES, LLAMA, register, unregister

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()


def test_the_recipe_runs():
    recipe = re.search(r"<!-- recipe -->\n```python\n(.*?)```", TEXT, re.DOTALL)[1]
    try:
        exec(compile(recipe, "CONTRIBUTING.md", "exec"), {"__name__": "recipe"})
    finally:
        FAMILIES.pop("my_llama", None)


def test_tables_of_hooklab_cannot_be_replaced_or_forgotten():
    with pytest.raises(FamilyError, match="a table of hooklab itself"):
        register(LLAMA)
    with pytest.raises(FamilyError, match="was not registered"):
        unregister("llama")
    mine = register(replace(LLAMA, name="mine"))
    assert unregister("mine") is mine
