"""Intervals and p-values against brute force in plain Python, against SciPy's numbers, and on data whose truth is known.

The numbers called golden were computed once with SciPy 1.17 (`stats.bootstrap`, `stats.permutation_test`, 200 000 draws).
"""

from __future__ import annotations

import itertools
import math
import random
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hooklab import statistics
from hooklab.statistics import interval, max_p_value, p_value, ratio_interval

TEN = np.array([0.8, -0.3, 1.9, 0.4, 2.2, -1.1, 0.7, 1.3, 0.2, 0.9])
SEVEN = np.array([3.1, 0.2, -0.5, 4.4, 1.0, 2.0, 1.7])
FORTY = np.round(np.sin(np.arange(40) * 1.7) + 0.3, 2)
TOP = np.array([1.0, 2.5, 0.3, 1.8, 2.9, 0.9, 1.4, 2.0])
BOTTOM = np.array([2.0, 3.9, 1.1, 3.0, 4.2, 2.2, 2.1, 3.5])


def flipped(examples):
    """Every sign flip of exact fractions, and the share whose sum is at least as far from zero."""
    exact = [Fraction(str(x)) for x in examples]
    sums = [abs(sum(s * x for s, x in zip(signs, exact, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(exact))]
    return sum(one >= abs(sum(exact)) for one in sums) / len(sums)


def strongest(cells):
    """The same corrected by brute force: t statistics of every cell under every flip, the largest of each flip kept."""
    n = len(cells[0])

    def t(xs):
        mean = sum(xs) / n
        spread = math.sqrt(sum((x - mean) ** 2 for x in xs) / (n - 1))
        return abs(mean) / (spread / math.sqrt(n)) if spread else math.inf

    seen = [max(t([s * x for s, x in zip(signs, xs, strict=True)]) for xs in cells)
            for signs in itertools.product((1, -1), repeat=n)]
    return [sum(one >= t(xs) * (1 - 1e-9) for one in seen) / len(seen) for xs in cells]


@pytest.mark.parametrize("examples, level, low, high", [
    pytest.param(TEN, 0.95, 0.11, 1.27, id="ten examples"),
    pytest.param(TEN, 0.80, 0.32, 1.08, id="ten examples at 80 percent"),
    pytest.param(SEVEN, 0.95, 0.585714, 2.871429, id="seven examples"),
    pytest.param(SEVEN, 0.80, 0.957143, 2.471429, id="seven examples at 80 percent"),
])
def test_intervals_are_the_golden_ones(examples, level, low, high):
    found = interval(examples, level=level, draws=200_000)
    assert np.allclose(found, (low, high), atol=0.02)


def test_the_interval_of_three_examples_is_that_of_all_27_draws():
    examples = [1.0, 2.0, 6.0]
    means = sorted(sum(drawn) / 3 for drawn in itertools.product(examples, repeat=3))
    low, high = interval(np.array(examples), level=0.8, draws=50_000)
    assert (float(low), float(high)) == pytest.approx((means[2], means[-3]))  # 2.7 draws of 27 lie outside, either side


def test_ratios_are_the_golden_ones_and_narrower_than_drawn_apart():
    low, high = ratio_interval(TOP, BOTTOM, draws=200_000)
    assert np.allclose((low, high), (0.497076, 0.639456), atol=0.003)
    rng = random.Random(0)
    apart = sorted(sum(rng.choices(list(TOP), k=8)) / sum(rng.choices(list(BOTTOM), k=8)) for _ in range(4000))
    assert high - low < (apart[3900] - apart[100]) / 2


@pytest.mark.parametrize("factor", [-4.0, 0.5, 3.0])
def test_a_ratio_to_a_fixed_span_is_the_interval_of_the_share(factor):
    low, high = interval(TEN / factor)
    assert np.allclose(ratio_interval(TEN, np.full(10, factor)), (low, high))


def test_a_ratio_whose_bottom_may_be_zero_is_anything():
    low, high = ratio_interval(np.ones((6, 2)) * [1, 5], np.array([1.0, -1.0, 0.5, -0.2, 0.3, 0.4]))
    assert (low.tolist(), high.tolist()) == ([-math.inf] * 2, [math.inf] * 2)
    assert [float(bound) for bound in ratio_interval(np.zeros(4), np.zeros(4))] == [-math.inf, math.inf]
    with pytest.raises(ValueError, match="one number for each of 3 examples"):
        ratio_interval(np.ones((3, 2)), np.ones((3, 2)))


def test_nine_in_ten_intervals_hold_the_truth_whatever_the_distribution():
    rng = np.random.default_rng(3)
    for drawn, truth in ((rng.normal(2, 3, (64, 200)), 2), (rng.uniform(-1, 1, (64, 200)), 0),
                         (rng.exponential(1, (64, 200)), 1)):
        low, high = interval(drawn)
        held = ((low <= truth) & (truth <= high)).mean()
        assert 0.88 <= held <= 0.99  # 0.95 of 200, give or take three standard errors and the bootstrap's own shortfall


def test_coverage_is_what_the_description_says():
    rng = np.random.default_rng(4)
    for n, promised in ((32, 0.94), (10, 0.90), (5, 0.84), (2, 0.50)):
        low, high = interval(rng.normal(size=(n, 4000)), draws=999)
        assert ((low <= 0) & (high >= 0)).mean() == pytest.approx(promised, abs=0.025)


@pytest.mark.parametrize("examples, value", [
    pytest.param(TEN, 60 / 1024, id="ten examples"), pytest.param(SEVEN, 6 / 128, id="seven examples"),
])
def test_exact_p_values_are_the_golden_ones(examples, value):
    assert float(p_value(examples)) == value == flipped(examples)


def test_drawn_p_values_come_close_to_the_golden_one():
    assert float(p_value(FORTY, draws=100_000)) == pytest.approx(0.008145, abs=0.001)


@given(st.lists(st.integers(-30, 30), min_size=2, max_size=8))
@settings(max_examples=60, deadline=None)
def test_exact_p_values_agree_with_every_flip_of_exact_fractions(tenths):
    examples = np.array(tenths) / 10
    assert float(p_value(examples)) == flipped(examples)


def test_drawn_p_values_are_never_zero_and_agree_with_the_exact_ones():
    rng = np.random.default_rng(0)
    examples = rng.normal(0.5, 1, (12, 30))
    exact, drawn = p_value(examples, draws=4096), p_value(examples, draws=4095)
    assert not np.array_equal(exact, drawn)
    assert np.allclose(exact, drawn, atol=4 * math.sqrt(0.25 / 4095))
    assert float(p_value(np.ones(40), draws=999)) == 1 / 1000


def test_p_values_are_uniform_when_there_is_no_effect():
    rng = np.random.default_rng(7)
    values = np.sort(p_value(rng.standard_t(4, (20, 500)), draws=1999))
    apart = np.abs(values - (np.arange(500) + 0.5) / 500).max()
    assert apart < 1.63 / math.sqrt(500)  # Kolmogorov and Smirnov, at 1 percent
    assert (values <= 0.05).mean() == pytest.approx(0.05, abs=0.03)


def test_a_planted_effect_is_found():
    rng = np.random.default_rng(8)
    examples = rng.normal(0.8, 1, (32, 300))  # a t test has a power of 0.99 here
    assert (p_value(examples, draws=999) < 0.05).mean() > 0.95
    low, high = interval(examples)
    assert (low > 0).mean() > 0.95


def test_the_smallest_of_many_p_values_is_kept_honest():
    rng = np.random.default_rng(9)
    sets = rng.normal(size=(300, 10, 40))
    sets[:, :, 1] = sets[:, :, 0]  # cells may hang together
    alone = np.mean([p_value(one, draws=1024).min() <= 0.05 for one in sets])
    together = np.mean([max_p_value(one, draws=1024).min() <= 0.05 for one in sets])
    assert alone > 0.7
    assert together == pytest.approx(0.05, abs=0.04)


def test_the_corrected_p_value_is_that_of_the_largest_t_of_every_flip():
    cells = [[0.5, 1.5, 2.0, 0.7, 1.1], [10.0, -4.0, 3.0, 8.0, 1.0], [0.1, -0.2, 0.3, 0.1, -0.4]]
    assert max_p_value(np.array(cells).T).tolist() == pytest.approx(strongest(cells))


def test_a_quiet_cell_is_not_drowned_by_a_noisy_one():
    rng = np.random.default_rng(2)
    noisy, quiet = rng.normal(0, 100, 12), rng.normal(0.1, 0.02, 12)
    noisy -= noisy.mean()
    corrected = max_p_value(np.stack([noisy, quiet], 1))
    assert corrected[1] < 0.01 < corrected[0]


@pytest.mark.parametrize("examples", [np.random.default_rng(1).normal(0.3, 1, (9, 4, 5)),
                                      np.random.default_rng(1).normal(0.3, 1, (30, 4, 5))], ids=["exact", "drawn"])
def test_correction_only_raises_and_does_nothing_to_a_single_cell(examples):
    assert (max_p_value(examples) >= p_value(examples)).all()
    assert np.array_equal(max_p_value(examples[:, 0, 0]), p_value(examples[:, 0, 0]))


@pytest.mark.parametrize("function", [interval, p_value, max_p_value,
                                      lambda e, **more: ratio_interval(e, np.ones(len(e)), **more)],
                         ids=["interval", "p_value", "max_p_value", "ratio_interval"])
@pytest.mark.parametrize("examples", [np.full((1, 3), 2.0), np.zeros((0, 3))], ids=["one example", "no examples"])
def test_one_example_is_never_a_certainty(function, examples):
    assert np.isnan(function(examples)).all()
    assert np.shape(function(examples))[-1] == 3


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_cell_that_is_no_number_leaves_the_others_alone(odd):
    clean = np.stack([TEN, TEN + 1, TEN - 2], 1)
    broken = clean.copy()
    broken[4, 1] = odd
    for function in (interval, p_value, lambda e: ratio_interval(e, TEN + 5)):
        found, expected = np.atleast_2d(function(broken)), np.atleast_2d(function(clean))
        assert np.isnan(found[:, 1]).all()
        assert np.allclose(found[:, [0, 2]], expected[:, [0, 2]])
    corrected = max_p_value(broken)
    assert np.isnan(corrected[1])
    assert np.array_equal(corrected[[0, 2]], max_p_value(clean[:, [0, 2]]))
    assert np.isnan(ratio_interval(clean, np.where(TEN > 2, odd, TEN))).all()


def test_examples_that_are_all_the_same_have_no_width_and_zeros_no_effect():
    low, high = interval(np.array([[0.1, 0.0]] * 7))
    assert low.tolist() == high.tolist() == [0.1, 0.0]
    assert p_value(np.array([[0.1, 0.0]] * 7)).tolist() == [2 / 128, 1.0]
    assert max_p_value(np.array([[0.1, 0.0]] * 7)).tolist() == [2 / 128, 1.0]
    assert max_p_value(np.zeros((30, 2)), draws=99).tolist() == [1.0, 1.0]


def test_six_examples_are_the_fewest_for_a_p_value_below_a_twentieth():
    assert [float(p_value(np.ones(n))) for n in (2, 5, 6)] == [0.5, 0.0625, 0.03125]


def test_the_shape_of_the_cells_is_kept():
    examples = np.random.default_rng(0).normal(size=(8, 2, 3, 4))
    assert [bound.shape for bound in interval(examples)] == [(2, 3, 4)] * 2
    assert [bound.shape for bound in ratio_interval(examples, np.ones(8))] == [(2, 3, 4)] * 2
    assert p_value(examples).shape == max_p_value(examples).shape == (2, 3, 4)
    assert p_value(examples[:, 0, 0, 0]).shape == ()
    assert interval(np.zeros((4, 0)))[0].shape == p_value(np.zeros((4, 0))).shape == max_p_value(np.zeros((4, 0))).shape
    low, high = interval(examples)
    assert np.allclose(low[1, 2, 3], interval(examples[:, 1, 2, 3])[0])


def test_the_seed_decides_and_nothing_else_does():
    examples = np.random.default_rng(5).normal(size=(20, 6))
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    first = [interval(examples), p_value(examples, draws=500), max_p_value(examples, draws=500)]
    np.random.default_rng().normal()
    again = [interval(examples), p_value(examples, draws=500), max_p_value(examples, draws=500)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(p_value(examples, draws=500, seed=1), first[1])
    assert not np.array_equal(interval(examples, seed=1), first[0])
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize("n", [9, 30], ids=["exact", "drawn"])
def test_results_do_not_depend_on_how_the_work_is_cut(n, monkeypatch):
    examples = np.random.default_rng(6).normal(size=(n, 7))
    functions = (interval, lambda e: ratio_interval(e, e[:, 0] + 9), p_value, max_p_value)
    whole = [function(examples) for function in functions]
    monkeypatch.setattr(statistics, "ROOM", 500)
    assert all(np.allclose(function(examples), one, rtol=1e-12) for function, one in zip(functions, whole, strict=True))


def test_a_large_sweep_stays_within_memory():
    examples = np.random.default_rng(0).normal(size=(64, 2304))
    tracemalloc.start()
    interval(examples)
    p_value(examples)
    max_p_value(examples)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 8 * statistics.ROOM


@pytest.mark.parametrize("call, word", [
    pytest.param(lambda: interval(np.array(1.0)), "batch axis", id="a single number"),
    pytest.param(lambda: interval(TEN, level=1.0), "between 0 and 1", id="full certainty"),
    pytest.param(lambda: interval(TEN, level=95), "between 0 and 1", id="percent for a share"),
    pytest.param(lambda: ratio_interval(TEN, TEN, level=0.0), "between 0 and 1", id="no certainty"),
    pytest.param(lambda: p_value(TEN, draws=0), "at least one", id="no draws"),
    pytest.param(lambda: max_p_value(TEN, draws=-1), "at least one", id="fewer than no draws"),
])
def test_what_makes_no_sense_is_refused(call, word):
    with pytest.raises(ValueError, match=word):
        call()
