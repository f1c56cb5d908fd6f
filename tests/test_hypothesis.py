"""Tests of hypotheses: against published numbers, full enumeration, what holds under a null model, and planted effects."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats

from hooklab.bench.hypotheses.effects import detectable
from hooklab.bench.hypothesis import HypothesisError, correct, test_hypothesis
from hooklab.errors import HooklabWarning
from hooklab.statistics import group_p_value, p_value

TESTS = ("permutation", "welch", "bootstrap", "mann_whitney", "paired", "sign_flip", "wilcoxon")
PAIRED = ("paired", "sign_flip", "wilcoxon")

# Student 1908, The probable error of a mean: hours of sleep gained by ten patients with each of two drugs.
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
# Darwin 1876: crossed less self-fertilised maize, in eighths of an inch; Fisher 1935, The Design of Experiments, section 21.
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
# Hollander & Wolfe 1973, Nonparametric Statistical Methods, page 29 (depression) and page 69 (permeability).
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
TERM = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
EARLY = [1.15, 0.88, 0.90, 0.74, 1.21]

PUBLISHED = [
    # null, alternative, options, (statistic, p, low, high, df); digits as printed
    (SLEEP_2, SLEEP_1, {"test": "welch"}, (-1.8608, 0.07939, -3.3654832, 0.2054832, 17.776)),
    (SLEEP_2, SLEEP_1, {"test": "paired"}, (-4.0621, 0.002833, -2.4598858, -0.7001142, 9)),
    (AFTER, BEFORE, {"test": "wilcoxon", "side": "greater"}, (40, 0.01953, None, None, None)),
    (EARLY, TERM, {"test": "mann_whitney", "side": "greater"}, (35, 0.1272, None, None, None)),
    ([0] * 15, MAIZE, {"test": "sign_flip", "draws": 2**15}, (None, 2 * 863 / 2**15, None, None, None)),
]


@pytest.mark.parametrize(("null", "alternative", "options", "numbers"), PUBLISHED)
def test_published_examples_come_out_to_the_printed_digits(null, alternative, options, numbers):
    result = test_hypothesis(null, alternative, **options)
    found = (result.statistic, result.p, result.low, result.high, result.df)
    for mine, printed in zip(found, numbers, strict=True):
        if printed is not None:
            assert mine == pytest.approx(printed, rel=5e-4)


def enumerated(null, alternative, side):
    """The share of all ways to deal exact fractions into two groups whose difference is as far as the one given."""
    pooled = [Fraction(str(x)) for x in (*null, *alternative)]
    n, m = len(null), len(alternative)

    def difference(chosen):
        second = [pooled[i] for i in chosen]
        return sum(second) / m - (sum(pooled) - sum(second)) / n

    far = {"both": abs, "greater": lambda x: x, "less": lambda x: -x}[side]
    given = far(difference(range(n, n + m)))
    ways = [far(difference(chosen)) >= given for chosen in itertools.combinations(range(n + m), m)]
    return sum(ways) / len(ways)


@pytest.mark.parametrize("side", ["both", "greater", "less"])
@pytest.mark.parametrize(("null", "alternative"), [([0.1, 0.2, 0.3], [0.4, 0.2, 0.9, 0.1]), ([1.0, 2.0], [3.0, 4.0, 5.0]),
                                                   ([0.1, 0.1, 0.1], [0.2, 0.2, 0.2]), ([5, 1, 3, 3], [1, 3, 5, 3])])
def test_small_permutation_tests_count_every_deal(null, alternative, side):
    result = test_hypothesis(null, alternative, side=side)
    assert result.exact and result.p == enumerated(null, alternative, side)


@pytest.mark.parametrize("side", ["greater", "less"])
def test_one_sided_sign_flips_are_those_of_a_full_count(side):
    values = [Fraction(str(x)) for x in (0.3, -0.1, 0.2, 0.5, -0.4)]
    sums = [sum(s * v for s, v in zip(signs, values, strict=True)) for signs in itertools.product((1, -1), repeat=5)]
    wanted = sum(one >= sum(values) if side == "greater" else one <= sum(values) for one in sums) / 32
    assert p_value(np.array([0.3, -0.1, 0.2, 0.5, -0.4]), side=side) == wanted
    drawn = p_value(np.array([0.3, -0.1, 0.2, 0.5, -0.4]), draws=31, side=side)
    assert abs(drawn - wanted) < 0.3


def test_drawn_deals_agree_with_the_full_count():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, 7), rng.normal(1, 1, 7)
    exact, counted = group_p_value(first, second)
    drawn, all_counted = group_p_value(first, second, draws=3000, side="both")
    assert counted and not all_counted
    assert abs(drawn - exact) < 4 * np.sqrt(exact * (1 - exact) / 3000) + 1 / 3000


@pytest.mark.parametrize("test", TESTS)
def test_p_values_under_a_null_model_are_uniform_and_five_in_a_hundred_are_false(test):
    rng = np.random.default_rng(8)
    found = []
    for i in range(500):
        null, alternative = rng.normal(size=(2, 20))
        found.append(test_hypothesis(null, alternative, test=test, draws=399, seed=i).p)
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert abs(np.mean(np.array(found) <= 0.05) - 0.05) < 0.0201


@pytest.mark.parametrize("test", TESTS)
def test_a_planted_effect_is_found_with_its_size_and_its_interval_holds_the_truth(test):
    rng = np.random.default_rng(3)
    results = [test_hypothesis(rng.normal(size=40), rng.normal(1.2, 1, 40), test=test, draws=399) for _ in range(60)]
    assert np.mean([one.reject for one in results]) > 0.95
    assert np.mean([one.low <= 1.2 <= one.high for one in results]) > 0.85
    ranks = test in ("mann_whitney", "wilcoxon")
    # Of normal samples: 2 Φ(1.2 / √2) - 1 for pairs of samples; signed ranks have no such short form.
    wanted = 2 * stats.norm.cdf(1.2 / 2**0.5) - 1 if test == "mann_whitney" else 1.2 / 2**0.5 if test in PAIRED else 1.2
    if test != "wilcoxon":
        assert np.mean([one.effect for one in results]) == pytest.approx(wanted, rel=0.08)
    assert all(one.effect_name == ("rank-biserial correlation" if ranks else "Hedges' g") for one in results)


@pytest.mark.parametrize("side", ["both", "greater", "less"])
@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("size", [(6, 6), (20, 20), (9, 21)])
def test_swapping_the_sides_turns_everything_round(test, side, size):
    if test in PAIRED and size[0] != size[1]:
        size = (12, 12)
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=size[0]), rng.normal(0.4, 2, size[1])
    other = {"both": "both", "greater": "less", "less": "greater"}[side]
    one, two = test_hypothesis(a, b, test=test, side=side), test_hypothesis(b, a, test=test, side=other)
    assert one.p == pytest.approx(two.p, rel=1e-9)
    assert (one.difference, one.effect) == pytest.approx((-two.difference, -two.effect))
    assert (one.low, one.high) == pytest.approx((-two.high, -two.low))


@pytest.mark.parametrize("side", ["both", "greater", "less"])
@pytest.mark.parametrize("test", ["welch", "paired", "bootstrap"])
def test_an_interval_leaves_out_zero_when_and_only_when_the_test_rejects(test, side):
    rng = np.random.default_rng(11)
    for shift in np.linspace(-1.5, 1.5, 25):
        result = test_hypothesis(rng.normal(size=14), rng.normal(shift, 1, 14), test=test, side=side, draws=999)
        assert result.reject == (result.low > 0 or result.high < 0)


def test_hedges_g_is_the_formula_by_hand():
    null, alternative = [1.0, 2.0, 3.0, 4.0], [3.0, 5.0, 7.0]
    pooled = ((3 * 5 / 3 + 2 * 4) / 5) ** 0.5  # variances 5/3 and 4, degrees 3 and 2
    factor = 0.8408  # J for 5 degrees of freedom: Hedges 1981, table 1
    assert test_hypothesis(null, alternative, test="welch").effect == pytest.approx(2.5 / pooled * factor, rel=1e-4)


@pytest.mark.parametrize(("sizes", "wanted"), [((64, 64), 0.5), ((26, 26), 0.8), ((34,), 0.5)])
def test_the_smallest_effect_that_would_be_found_is_that_of_the_power_tables(sizes, wanted):
    # Cohen 1988, table 2.4.1: 64 and 26 per group give power 0.80 for d 0.5 and 0.8; 34 pairs for 0.5 of their deviation.
    assert detectable(sizes, 0.05, "both") == pytest.approx(wanted, abs=0.008)
    assert detectable((2,), 0.05, "both") > 5 and detectable((3, 2), 0.001, "greater") > 5


def test_the_first_four_of_benjamini_and_hochberg_are_rejected():
    # Benjamini & Hochberg 1995, section 4.1: four by theirs, three by Bonferroni's.
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    order = np.random.default_rng(0).permutation(15)
    shuffled = [p[i] for i in order]
    assert set(order[correct(shuffled, "benjamini_hochberg").reject]) == {0, 1, 2, 3}
    assert set(order[correct(shuffled, "bonferroni").reject]) == set(order[correct(shuffled, "holm").reject]) == {0, 1, 2}


def test_holm_is_worked_by_hand():
    # Ordered 0.005 0.01 0.03 0.04 times 4 3 2 1 is 0.02 0.03 0.06 0.04; none may fall below the one before.
    named = correct({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert named.names == ("a", "b", "c", "d")
    assert named.adjusted.tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert named.reject.tolist() == [True, False, False, True]
    assert "2 of 4 null hypotheses" in repr(named) and "rejected" in named._repr_html_()
    assert correct([0.9, 0.8], "bonferroni").adjusted.tolist() == [1.0, 1.0]


def test_results_are_corrected_at_their_own_level():
    results = [test_hypothesis([1, 2, 3, 4, 5.0], [x + 1, x + 3, x + 2, x, x + 5], test="welch", alpha=0.01) for x in (1, 9)]
    done = correct(results)
    assert done.alpha == 0.01 and done.reject.tolist() == [False, True]


@pytest.mark.parametrize("test", TESTS)
def test_equal_constants_have_p_one_and_say_that_nothing_varies(test):
    result = test_hypothesis([2.5] * 6, [2.5] * 6, test=test)
    assert result.p == 1 and result.reject is False and result.difference == result.effect == 0
    assert any("no variance" in note for note in result.notes) and "nan" not in repr(result)


@pytest.mark.parametrize("test", TESTS)
def test_different_constants_are_undefined_where_a_variance_is_divided_by_and_counted_elsewhere(test):
    result = test_hypothesis([0.1 + 0.2, 0.3, 0.3, 0.3, 0.3, 0.3], [0.4] * 6, test=test)
    assert result.low is None and "nan" not in repr(result) + result._repr_html_().partition("</style>")[2]
    if test in ("welch", "bootstrap", "paired"):
        assert result.p is None and result.reject is None and "undefined" in result.sentence
        assert result.effect is None
        with pytest.raises(HypothesisError, match="no p-value"):
            correct([result, 0.2])
    else:
        assert result.p == (2 / 2**6 if test in PAIRED else 2 / 924)
        assert any("no variance" in note for note in result.notes)


def test_pairs_whose_differences_are_equal_but_for_rounding_have_no_t():
    null = np.array([0.1, 1.1, 7.3, 2.9])
    assert test_hypothesis(null, null + 0.1, test="paired").p is None


def test_functions_that_return_one_number_only_are_pointed_out():
    with pytest.warns(HooklabWarning, match="copies of one sample"):
        result = test_hypothesis(lambda: 1.0, lambda: 2.0, n_samples=20)
    assert any("copies of one sample" in note for note in result.notes) and "copies" in result._repr_html_()
    with pytest.warns(HooklabWarning, match="The alternative returned"):
        test_hypothesis(lambda rng: rng.normal(), lambda: 2.0, n_samples=20)


def test_functions_are_given_what_they_have_parameters_for():
    def by_seed(*, seed, scale=2.0):
        return np.random.default_rng(seed).normal() * scale

    def by_torch(generator):
        return torch.randn(1, generator=generator)

    def by_global_state():
        return random.random() + np.random.rand() + torch.rand(()).item()

    for function in (by_seed, by_torch, by_global_state, lambda rng: np.float32(rng.normal()), lambda **_: random.random()):
        state = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
        one, two = (test_hypothesis(function, function, n_samples=12, seed=4) for _ in range(2))
        other = test_hypothesis(function, function, n_samples=12, seed=5)
        assert (one.null == two.null).all() and (one.alternative == two.alternative).all() and one.p == two.p
        assert len(set(one.null) | set(one.alternative)) == 24 and not set(one.null) & set(other.null)
        assert random.getstate() == state[0] and (np.random.get_state()[1] == state[1]).all()
        assert torch.equal(torch.get_rng_state(), state[2])


def test_pairs_share_their_seeds_and_take_as_many_samples_as_the_other_side_has():
    def noise(rng):
        return rng.normal()

    result = test_hypothesis(noise, lambda rng: rng.normal() + 0.5, test="sign_flip", n_samples=15)
    assert np.allclose(result.alternative - result.null, 0.5)
    assert len(test_hypothesis(noise, np.arange(7.0), test="paired").null) == 7
    assert len(test_hypothesis(noise, np.arange(7.0), test="welch").null) == 100


def test_random_state_is_put_back_when_a_function_fails():
    def failing(seed):
        np.random.rand()
        raise KeyError("broken")

    before = np.random.get_state()[1].copy()
    with pytest.raises(KeyError):
        test_hypothesis(failing, [1, 2])
    assert (np.random.get_state()[1] == before).all()


GOOD = [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("null", "alternative", "options", "says"), [
    ([1.0, float("nan"), 2.0], GOOD, {}, "sample 1 of the null is nan"),
    (GOOD, [1.0, 2.0, np.inf, np.nan], {}, "sample 2 of the alternative is inf, and 1 more"),
    (GOOD, lambda: float("nan"), {}, "sample 0 of the alternative is nan, and 99 more"),
    (GOOD, [1.0], {}, "the alternative has 1 sample: a test needs two or more"),
    ([], GOOD, {}, "the null has 0 samples"),
    (GOOD, np.ones((2, 3)), {}, r"shape \(2, 3\)"),
    (GOOD, "abc", {}, "must be numbers"), (GOOD, None, {}, "must be numbers"), (GOOD, [1j, 2j], {}, "must be numbers"),
    (GOOD, [[1, 2], [3]], {}, "must be numbers"), (GOOD, torch.tensor([1j, 2]), {}, "must be numbers"),
    (GOOD, lambda: {"accuracy": 1.0}, {}, "call 0 of the alternative returned dict"),
    (GOOD, lambda: None, {}, "returned NoneType"), (GOOD, lambda: [1, 2], {}, "returned list"),
    (GOOD, lambda x: x, {}, "takes 'x'"), (GOOD, lambda seed, /: seed, {}, "takes 'seed'"),
    (GOOD, GOOD, {"test": "perm"}, 'Did you mean "permutation"'), (GOOD, GOOD, {"side": "two"}, "no side 'two'"),
    (GOOD, GOOD, {"alpha": 0}, "alpha"), (GOOD, GOOD, {"alpha": float("nan")}, "alpha"), (GOOD, GOOD, {"seed": -1}, "seed"),
    (GOOD, GOOD, {"seed": True}, "seed"), (GOOD, GOOD, {"draws": 0}, "draws"), (GOOD, GOOD, {"draws": 10}, "at least 20"),
    (GOOD, GOOD, {"n_samples": 10}, "numbers already"), (GOOD, lambda rng: 1, {"n_samples": 1}, "n_samples"),
    (GOOD, [1.0, 2.0], {"test": "paired"}, "3 and 2"), (GOOD, 3.0, {}, r"shape \(\)"),
])
def test_what_cannot_be_tested_is_an_error_that_says_why(null, alternative, options, says):
    with pytest.raises(HypothesisError, match=says):
        test_hypothesis(null, alternative, **options)


@pytest.mark.parametrize(("results", "options", "says"), [
    ([], {}, "no p-value"), ([0.1, 1.2], {}, "test 1"), ([0.1, float("nan")], {}, "test 1"), ({"a": "0.1"}, {}, "test a"),
    (0.1, {}, "several"), ([0.1], {"method": "hom"}, 'Did you mean "holm"'), ([0.1], {"alpha": 2}, "alpha"),
])
def test_what_cannot_be_corrected_is_an_error(results, options, says):
    with pytest.raises(HypothesisError, match=says):
        correct(results, **options)


def test_too_few_samples_are_pointed_out():
    assert any("p is at least 0.1" in note for note in test_hypothesis([1, 2, 3], [7, 8, 9]).notes)
    assert any("p is at least 0.0625" in note for note in test_hypothesis(range(5), range(5), test="sign_flip").notes)
    assert any("few samples" in note for note in test_hypothesis([1, 2, 3], [7, 8, 9.5], test="welch").notes)
    assert not test_hypothesis(np.arange(20.0), np.arange(20.0) ** 2, test="welch").notes


def test_the_result_says_itself_in_words_and_in_plain_numbers():
    import json

    result = test_hypothesis([0.0, 1, 2, 3, 4, 5], [10.0, 12, 14, 11, 13, 16], side="greater")
    assert result.sentence.startswith("The alternative is greater than the null: mean 12.67 against 2.5, p = 0.00108")
    assert result.sentence in repr(result) and "interval" in result._repr_html_()
    plain = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert plain["p"] == 1 / 924 and plain["high"] is None and plain["reject"] is True
    assert not result.null.flags.writeable


def test_importing_the_module_loads_no_scipy():
    import subprocess
    import sys

    code = "import sys, hooklab.bench.hypothesis; print(sorted({'scipy', 'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
