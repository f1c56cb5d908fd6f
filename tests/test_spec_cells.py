"""The 59 valid cells in all their forms, through the schema as it is published; what the front end needs to be loaded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from hooklab.magics.session import evaluate
from hooklab.spec import ast, reference, schema
from hooklab.spec.manual import SECTIONS
from hooklab.spec.parser import parse, read
from hooklab.spec.verbs import VERBS

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
PUBLISHED = json.loads((DOCS / "hookspec-1.schema.json").read_text(encoding="utf-8"))
VALID = dict(cell.split("\n", 1) for cell in re.split(
    r"^=== ", (HERE / "cells" / "valid.txt").read_text(encoding="utf-8"), flags=re.M)[1:])


def test_there_are_59():
    assert len(VALID) == 59


@pytest.mark.parametrize("name", VALID)
def test_a_cell_survives_text(name):
    spec = parse(VALID[name])
    assert parse(str(spec)) == spec
    assert str(parse(str(spec))) == str(spec)


@pytest.mark.parametrize("name", VALID)
def test_a_cell_survives_json_that_the_published_schema_allows(name):
    spec = parse(VALID[name])
    data = json.loads(json.dumps(spec.to_json()))
    jsonschema.Draft202012Validator(PUBLISHED).validate(data)
    assert ast.Spec.from_json(data) == ast.Spec.from_json(json.dumps(data)) == spec


@pytest.mark.parametrize("name", VALID)
def test_what_a_cell_says_is_in_its_json(name):
    """What stands between double quotes is a text of the JSON, or a part of one; so is what stands between braces."""
    found = list(_texts(parse(VALID[name]).to_json()))
    quoted = [json.loads(piece) for piece in re.findall(r'"(?:[^"\\\n]|\\.)*"', VALID[name])]
    assert quoted or not re.search('"', VALID[name])
    for said in [*quoted, *re.findall(r"\{(\w+)\}", VALID[name])]:
        assert any(said in text for text in found), said


def _texts(data: object) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    for item in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from _texts(item)


def test_the_cells_use_every_verb():
    used = {statement.verb for text in VALID.values() for top in parse(text).body
            for statement in (top, *getattr(top, "body", ()))}
    assert used == set(VERBS)


def test_the_schema_refuses_a_cell_with_a_field_too_many():
    data = parse("prompt \"x\"\nzero L0H0").to_json()
    data["body"][1]["target"]["sites"][0]["layers"] = 1
    assert not jsonschema.Draft202012Validator(PUBLISHED).is_valid(data)


def _printed(module: str) -> str:
    return subprocess.run([sys.executable, "-m", module], capture_output=True, encoding="utf-8", check=True,
                          cwd=HERE.parent, env={"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(HERE.parent)}).stdout


@pytest.mark.parametrize(("module", "page"), [("hooklab.spec.reference", "language.md"),
                                              ("hooklab.spec.schema", "hookspec-1.schema.json")])
def test_a_page_of_docs_is_what_its_module_prints(module, page):
    assert _printed(module) == (DOCS / page).read_text(encoding="utf-8")


def test_the_reference_has_every_verb_with_its_options():
    page = reference.markdown()
    for verb in VERBS.values():
        assert f"### {verb.name}\n" in page and verb.example in page
        assert all(f"`{option.name}=" in page for option in verb.options)


def test_every_example_of_the_reference_can_be_read():
    for block in re.findall(r"^```\n(.*?)^```", reference.markdown(), flags=re.M | re.S):
        text = block + ("    lens\n" if block.strip().endswith(":") else "")
        assert read(text)[1] == [], block


GIVEN = [(section.name, *pair) for section in SECTIONS.values() for pair in section.given]


@pytest.mark.parametrize(("python", "text"), [row[1:] for row in GIVEN], ids=[row[0] for row in GIVEN])
def test_an_example_with_braces_runs_with_the_python_that_stands_above_it(python, text):
    import hooklab as hl

    names: dict[str, object] = {}
    exec(python, names)
    spec = parse(text)
    with hl.load("lab") as model:
        run = model.run(spec, values=evaluate(spec, names))
    assert run.metrics["hooked"]["kl"] > 0
    assert tuple(run["features"].shape) == (1, 2, 64)


def test_the_page_says_how_lines_are_indented_and_what_braces_stand_for():
    page = reference.markdown()
    assert "an indent that every line has is passed over" in page and "a tab counts eight" in page
    assert "sae enc = {mine} at {place}" in page and "zero {chosen}" in page


def test_an_indented_spec_is_the_same_spec():
    text, tabbed = SECTIONS["lines"].examples
    assert all(line.startswith("    ") for line in text.split("\n") if line)
    assert parse(text) == parse("\n".join(line[4:] for line in text.split("\n")))
    assert "\t" in tabbed and parse(tabbed) == parse(tabbed.replace("\t", " " * 8)) == parse(tabbed.replace("\t", " "))


def test_the_schema_has_every_kind_of_line():
    assert set(VERBS) <= set(schema.schema()["$defs"])


LOADED = """
import sys
{0}
heavy = {{"torch", "transformers", "nnsight", "numpy", "IPython"}} & set(sys.modules)
assert not heavy, heavy
"""
FRONT_END = {
    "reading and checking": "from hooklab.spec.parser import parse; parse('prompt \"a\"\\nzero L0H0')",
    "mistakes": "from hooklab.spec.parser import read; assert read('zeroo L0')[1]",
    "JSON": "from hooklab.spec.ast import Spec; Spec.from_json('{\"hookspec\": 1, \"body\": []}')",
    "completion": "from hooklab.spec.completer import complete; assert complete('zer', 3).items",
    "the builder": "from hooklab.spec.builder import spec; spec().prompt('a').zero('L0H0').build()",
    "the reference": "from hooklab.spec.reference import help_text; help_text('zero')",
}


@pytest.mark.parametrize("what", FRONT_END)
def test_the_front_end_needs_no_model(what):
    done = subprocess.run([sys.executable, "-c", LOADED.format(FRONT_END[what])], capture_output=True, encoding="utf-8",
                          cwd=HERE.parent, check=False)
    assert done.returncode == 0, done.stderr
