"""The page about the analyses: its code runs, its functions exist, and no public analysis is missing from it."""

from __future__ import annotations

import operator
import re
from pathlib import Path
from types import ModuleType

import pytest

import hooklab as hl

PAGE = (Path(__file__).parent.parent / "docs" / "analysis.md").read_text("utf-8")
PROMPTS = ("""prompt clean = "a"
prompt corrupt = "b"
prompt others = ["c", "d"]
mark subject = "a"
answer "a" vs "b"
metric logit_diff
""")
SHELF = re.findall(r"`([A-Za-z_.]+)`", " ".join(line.split("|")[2] for line in PAGE.splitlines() if line.startswith("| ")))
NAMED = {name.removeprefix("hl.") for name in [*SHELF, *re.findall(r"(hl\.[A-Za-z_.]+)", PAGE)]}
"""Every function that is named, without the `hl.`; in tables the names of `hl.analysis` stand alone."""


def test_the_code_of_the_page_runs():
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/analysis.md", "exec"), names)
    assert names["induction"].axes == ("layer", "head")


@pytest.mark.parametrize("name", sorted([*hl.analysis.__all__, *(name for name, home in hl._HOME.items()
                                                                if home.startswith("analysis."))]))
def test_every_public_analysis_is_on_the_page(name):
    assert name in {one.removeprefix("analysis.").split(".")[0] for one in NAMED}


@pytest.mark.parametrize("name", sorted(NAMED))
def test_every_function_on_the_page_is_there(name):
    room = hl.analysis if name.split(".")[0] in hl.analysis.__all__ else hl
    found = operator.attrgetter(name)(room)
    assert callable(found) or isinstance(found, ModuleType)


def test_every_line_in_a_cell_is_one_that_the_language_reads():
    rows = [line.split("|")[-2] for line in PAGE.splitlines() if line.startswith("|") and line.count("|") == 4]
    lines = [line for row in rows for line in re.findall(r"`([a-z]+ [^`]*)`", row)]
    assert len(lines) > 15
    for line in lines:
        needs = PROMPTS
        needs += "" if line.startswith("sae ") else "sae enc = {mine} at L2.resid_post\n"
        body = line if line.startswith("sae ") else f"run main2 on corrupt:\n    {line}"
        assert hl.parse(needs + body).body
