"""Neurons in numbers: moments against numpy, planted sparsity, planted meanings."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models
import torch

import hooklab as hl
from hooklab.analysis.moments import Moments, independent, interpolate, principal
from hooklab.analysis.sparseness import polysemanticity, sparsity, weight_polysemanticity
from hooklab.errors import LayerError, RecordError

DRAWN = np.random.default_rng(0)
X = DRAWN.normal(size=(203, 7)) @ DRAWN.normal(size=(7, 7)) + 1000.0


@pytest.mark.parametrize("size", [1, 2, 50, 203])
def test_streamed_moments_are_those_of_the_whole(size):
    moments = Moments()
    for start in range(0, len(X), size):
        moments.add(torch.tensor(X[start:start + size])[None] if size == 50 else X[start:start + size])
    np.testing.assert_allclose(moments.mean, X.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(X.T), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(moments.variance, X.var(0, ddof=1), rtol=1e-7)
    assert moments.count == 203


def test_half_precision_is_summed_in_double():
    x = torch.full((4096, 2), 0.1, dtype=torch.float16)
    x[::2, 1] = 0.3
    np.testing.assert_allclose(Moments().add(x[:1000]).add(x[1000:]).mean, x.double().mean(0).numpy(), rtol=1e-12)


def test_a_batch_that_does_not_fit_leaves_the_moments_as_they_were():
    moments = Moments().add(X)
    before = moments.covariance
    for bad in (X[:, :3], np.full((2, 7), np.nan), X[0]):
        with pytest.raises(RecordError):
            moments.add(bad)
    assert moments.count == 203 and (moments.covariance == before).all()
    assert moments.add(X[:0]).count == 203
    with pytest.raises(RecordError, match="two vectors"):
        _ = Moments().add(X[:1]).covariance
    with pytest.raises(RecordError, match="add vectors"):
        _ = Moments().mean


def test_all_principal_components_give_everything_back_and_the_first_the_most():
    basis = principal(Moments().add(X), 7)
    np.testing.assert_allclose(basis.reconstruct(basis.project(X)), X, atol=1e-8)
    np.testing.assert_allclose(basis.components @ basis.components.T, np.eye(7), atol=1e-12)
    np.testing.assert_allclose(basis.project(X).var(0, ddof=1), basis.variance, rtol=1e-6)
    singular = np.linalg.svd(X - X.mean(0), compute_uv=False) ** 2 / 202
    np.testing.assert_allclose(basis.variance, singular, rtol=1e-6)
    assert basis.total == pytest.approx(singular.sum())
    first = principal(Moments().add(X), 1)
    assert ((first.reconstruct(first.project(X)) - X) ** 2).sum() / 202 == pytest.approx(singular[1:].sum(), rel=1e-6)


def test_independent_components_find_the_sources_that_were_mixed():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    sources = np.random.default_rng(1).laplace(size=(4000, 3))
    mixed = sources @ np.random.default_rng(2).normal(size=(3, 3)) + 5
    basis = independent(mixed, 3)
    found = basis.project(mixed)
    matched = np.abs(np.corrcoef(sources.T, found.T)[:3, 3:])
    assert (matched.max(1) > 0.98).all() and set(matched.argmax(1)) == {0, 1, 2}
    np.testing.assert_allclose(basis.reconstruct(found), mixed, atol=1e-8)


def test_an_arc_keeps_angle_and_length_even_and_a_line_is_straight():
    a, b = np.array([2.0, 0, 0]), np.array([0, 4.0, 0])
    np.testing.assert_allclose(interpolate(a, b, 0.25), [1.5, 1, 0])
    for share in (0.0, 0.25, 0.5, 1.0):
        found = interpolate(a, b, share, along="arc")
        assert np.linalg.norm(found) == pytest.approx(2 + 2 * share)
        assert np.arctan2(found[1], found[0]) == pytest.approx(share * np.pi / 2)
    np.testing.assert_allclose(interpolate(a, 3 * a, 0.5, along="arc"), 2 * a)
    for bad in ((a, -a), (a, 0 * a), (a, b[:2])):
        with pytest.raises(RecordError):
            interpolate(*bad, 0.5, along="arc")
    with pytest.raises(RecordError, match="line"):
        interpolate(a, b, 0.5, along="curve")


def test_planted_sparsity_is_counted_exactly():
    active = np.zeros((100, 10))
    for token in range(100):
        active[token, DRAWN.choice(9, size=1 + token % 3, replace=False)] = 1 + DRAWN.random(1 + token % 3)
    found = sparsity(torch.tensor(active[s:s + 30]) for s in range(0, 100, 30))
    assert found.active == pytest.approx((active > 0).sum(1).mean()) and found.tokens == 100
    np.testing.assert_allclose(found.counts.values[1:4], [0.34, 0.33, 0.33])
    np.testing.assert_allclose(found.silent.values, (active == 0).mean(0))
    assert 9 in found.dead and found.silent.values[9] == 1


@pytest.mark.parametrize("row, expected", [([0.0, 0, 3, 0], 1.0), ([2.0, -2, 2, 2], 0.0)], ids=["one alone", "all alike"])
def test_hoyer_runs_from_all_alike_to_one_alone(row, expected):
    assert sparsity(np.array([row, [0.0] * 4])).hoyer == pytest.approx(expected)


def test_hoyer_of_tokens_and_of_neurons_is_the_formula_between_the_ends():
    x = np.random.default_rng(0).normal(size=(50, 8)) * (np.random.default_rng(1).random((50, 8)) < 0.4)
    x[:, 3] = 0

    def by_hand(rows):
        n = rows.shape[1]
        return (np.sqrt(n) - np.abs(rows).sum(1) / np.sqrt((rows ** 2).sum(1))) / (np.sqrt(n) - 1)

    found = sparsity([x[:20], x[20:]])
    loud = np.abs(x).sum(1) > 0
    assert found.hoyer == pytest.approx(by_hand(x[loud]).mean())
    spoke = [n for n in range(8) if n != 3]
    np.testing.assert_allclose(found.lifetime.values[spoke], by_hand(x.T[spoke]))
    assert np.isnan(found.lifetime.values[3]) and found.dead == (3,)


def test_the_threshold_decides_what_counts_as_silent():
    x = np.array([[0.05, -0.2, 0.0]])
    assert sparsity(x).active == 2 and sparsity(x, threshold=0.1).active == 1
    for bad in (dict(threshold=-1), {}):
        with pytest.raises(RecordError):
            sparsity(x if bad else [], **bad)
    with pytest.raises(RecordError, match="neurons"):
        sparsity([x, x[:, :2]])


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "gemma2", "phi3"])
def test_neurons_that_read_alike_have_company_and_the_axis_is_the_neurons(name):
    hf = tiny_models.build(name)
    with hl.load(hf, verify=False) as model:
        weights = model.W
        read = (weights.Gate if weights.missing("Gate") is None else weights.In)[1].T
        unit = (read / read.norm(dim=1, keepdim=True)).double().numpy()
        cosines = np.sort(unit @ unit.T, axis=1)[:, ::-1]
        found = weight_polysemanticity(model, 1, neighbours=3)
        assert found.shape == (model.facts.d_mlp,)
        np.testing.assert_allclose(found.values, cosines[:, 1:4].mean(1), atol=1e-5)
        with pytest.raises(LayerError):
            weight_polysemanticity(model, 9)
        with pytest.raises(RecordError):
            weight_polysemanticity(model, 0, neighbours=model.facts.d_mlp)


def test_a_neuron_of_one_kind_has_no_bits_and_one_of_four_has_two():
    kinds = np.repeat(["a", "b", "c", "d"], [10, 20, 30, 40])
    active = np.zeros((100, 4))
    active[kinds == "b", 0] = 5.0
    active[:, 1] = 1.0
    active[kinds == "a", 2] = active[kinds == "d", 2] = 0.5
    found = polysemanticity(active, kinds)
    np.testing.assert_allclose(found.values[:3], [0.0, 2.0, 1.0], atol=1e-12)
    assert np.isnan(found.values[3])
    with pytest.raises(RecordError, match="kinds"):
        polysemanticity(active, kinds[:5])
