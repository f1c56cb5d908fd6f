"""Claims about sweeps: what makes one number of many, beside numpy; and what is said where none does."""

from __future__ import annotations

import numpy as np
import pytest

import hooklab as hl
from hooklab.problems import SpecError

SWEPT = """prompt "When Mary and John went to the store, John gave a drink to"
answer " Mary" vs " John"
metric logit_diff
zero each L1:3H0:2
"""
OVER = {"max": np.max, "min": np.min, "mean": np.mean, "sum": np.sum, "std": np.std}


@pytest.fixture(scope="module")
def lab():
    with hl.load("lab") as model:
        yield model


@pytest.fixture(scope="module")
def points(lab):
    """The four numbers, each from a run of its own."""
    return np.array([lab.run(SWEPT.replace("each L1:3H0:2", f"L{layer}H{head}")).metrics["hooked"]["logit_diff"]
                     for layer in (1, 2) for head in (0, 1)])


@pytest.mark.parametrize("name", OVER)
def test_a_function_makes_one_number_of_a_sweep(lab, points, name):
    (claim,) = lab.run(f"{SWEPT}expect {name}(hooked.logit_diff) > -1000").expectations
    assert claim.left == pytest.approx(float(OVER[name](points)), abs=1e-4)


def test_several_values_are_taken_together(lab, points):
    run = lab.run(f"{SWEPT}expect min(hooked.logit_diff, -7, 3) == -7\nexpect min(abs(hooked.logit_diff - 2)) >= 0")
    assert [claim.left for claim in run.expectations] == [-7, pytest.approx(np.min(np.abs(points - 2)), abs=1e-4)]


def test_a_claim_about_the_smallest_that_does_not_hold_shows_both_numbers(lab, points):
    with pytest.raises(SpecError, match="does not hold") as error:
        lab.run(f"{SWEPT}expect min(hooked.logit_diff) > 900")
    (problem,) = error.value.problems
    found, limit = problem.message.removeprefix("does not hold: ").split(" > ")
    assert (float(found), float(limit)) == (pytest.approx(points.min(), abs=1e-3), 900)


@pytest.mark.parametrize("claim", ["hooked.logit_diff > 0", "abs(hooked.logit_diff) > 0", "1 < hooked.logit_diff - 2"])
def test_a_claim_about_a_whole_sweep_says_what_makes_one_number_of_it(lab, claim):
    with pytest.raises(SpecError) as error:
        lab.run(f"{SWEPT}expect {claim}")
    (problem,) = error.value.problems
    assert problem.hint == "make one number of the sweep with max, min, mean, sum or std: max(hooked.logit_diff)"
    lab.run(f"{SWEPT}expect {problem.hint.rpartition(': ')[2]} < 1000")
