"""The hook language against the hand-written transformer: text, plan and numbers of every case."""

from __future__ import annotations

from functools import cache
from math import prod

import pytest
import torch
from cases import CASES
from oracle import FAMILIES, ONE, WORDS, Oracle, diff
from safetensors.torch import save_file
from tiny_models import tokenizer

import hooklab as hl
from hooklab.compiler.schedule import schedule
from hooklab.spec.parser import parse

ROWS = [pytest.param(case, family, id=f"{family}: {case.name}") for family in FAMILIES for case in CASES
        if family in case.families]
BY_CASE = [pytest.param(case, id=case.name) for case in CASES]


@cache
def oracle(family):
    return Oracle(family)


@cache
def model(family):
    return hl.load(oracle(family).hf, tokenizer=tokenizer() if family in WORDS else None)


@cache
def read(text):
    return parse(text)


@pytest.fixture(scope="module", autouse=True)
def closed():
    yield
    if model.cache_info().currsize:
        for family in FAMILIES:
            model(family).close()


def number(run, key):
    """What a run has under a key: a tensor, the numbers of each example, or those of a sweep."""
    name, _, rest = key.partition(".")
    if key in run.data:
        return run.data[key]
    if rest in run.examples.get(name, {}):
        return torch.as_tensor(run.examples[name][rest])
    return torch.tensor(run.scores[key].values)


def wanted(case, found):
    """What a case expects, and the metric that follows from expected logits."""
    expected = dict(found)
    if "hooked.logits" in expected and ONE.split("\n")[1] in case.text and expected["hooked.logits"].shape[-2] > 1:
        values = diff(torch.as_tensor(expected["hooked.logits"]))
        expected["hooked.logit_diff"] = values.mean(-1) if case.axes or values.ndim > 1 else values
    return expected


def test_there_are_enough_cases_and_their_names_differ():
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", BY_CASE)
def test_the_printed_text_reads_as_the_same_spec(case):
    spec = read(case.text)
    assert parse(str(spec)) == spec
    assert str(parse(str(spec))) == str(spec)


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in CASES if c.order or c.axes or c.at or c.passes])
def test_the_plan_has_the_places_the_axes_and_the_passes(case):
    plan = model(case.families[0]).plan(read(case.text), values=oracle(case.families[0]).given)
    run = plan.run(case.run)
    spots = sorted((spot for edit in run.cells[0].edits for spot in edit.spots), key=lambda spot: spot.order)
    if case.order:
        assert tuple(map(str, spots)) == case.order
    if case.axes:
        assert tuple((axis.name, len(axis.labels)) for axis in run.axes) == case.axes
        assert len(run.cells) == prod(size for _, size in case.axes)
        assert [cell.index for cell in run.cells] == sorted(cell.index for cell in run.cells)
    if case.at is not None:
        assert run.cells[0].edits[0].reach.at == case.at
    if case.passes is not None:
        assert tuple(tuple(one.name for one in group) for group in schedule(plan)) == case.passes


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in CASES 
                                  if "save logits" in c.text and "run a" not in c.text and c.order and not c.axes])
def test_what_is_expected_differs_from_the_untouched_run(case):
    o = oracle(case.families[0])
    logits = torch.as_tensor(case.expected(o)["hooked.logits"])
    plain = [o.logits(name) for name in ("clean", "dirty", "batch", "others")]
    assert all(logits.shape != one.shape or float((logits - one)[..., :33].abs().max()) > 1e-3 for one in plain)


@pytest.mark.parametrize(("case", "family"), ROWS)
def test_the_numbers_are_those_of_the_hand_written_transformer(case, family, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, tensors in case.files(oracle(family)).items():
        save_file(tensors, tmp_path / name)
    run = model(family).run(read(case.text), values=oracle(family).given)
    for key, expected in wanted(case, case.expected(oracle(family))).items():
        got, want = torch.as_tensor(number(run, key)).double(), torch.as_tensor(expected).double()
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
