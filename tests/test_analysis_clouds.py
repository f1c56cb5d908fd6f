"""How clouds of activations lie, and the bases that they are sums of, against brute force and planted parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hooklab.analysis.factors import nonnegative
from hooklab.analysis.geometry import (
    intrinsic_dimension,
    label_overlap,
    neighbour_overlap,
    neighbours,
    similarity,
    similarity_density,
)
from hooklab.analysis.moments import Moments, independent, interpolate, principal
from hooklab.analysis.overlaps import cluster_overlap
from hooklab.errors import RecordError

# Clouds --------------------------------------------------------------------------------------------------------------------


def nearest(cloud: np.ndarray, targets: np.ndarray, k: int, own: bool) -> np.ndarray:
    apart = ((targets[:, None] - cloud[None]) ** 2).sum(-1)
    if own:
        np.fill_diagonal(apart, np.inf)
    return np.argsort(apart, axis=1, kind="stable")[:, :k]


def test_neighbours_are_those_of_brute_force_also_far_from_the_origin_and_ties_go_to_those_that_come_first():
    drawn = np.random.default_rng(5)
    cloud = drawn.normal(size=(300, 5))
    for far in (0.0, 1e7):
        np.testing.assert_array_equal(neighbours(cloud + far, 9), np.sort(nearest(cloud, cloud, 9, True)))
    copies = np.repeat(drawn.normal(size=(6, 3)), 5, axis=0)[drawn.permutation(30)]
    np.testing.assert_array_equal(neighbours(copies, 7), np.sort(nearest(copies, copies, 7, True)))
    assert neighbours(np.zeros((4, 2)), 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]
    labels = drawn.integers(0, 3, 30)
    expected = np.mean([labels[j] == labels[i] for i in range(30) for j in nearest(copies, copies, 7, True)[i]])
    assert float(label_overlap(copies, labels, k=7)) == pytest.approx(expected)
    np.testing.assert_array_equal(neighbours(cloud, 9, cloud[:4] + 0.1), np.sort(nearest(cloud, cloud[:4] + 0.1, 9, False)))


def test_shared_neighbours_are_compared_layer_by_layer_or_with_one_cloud():
    drawn = np.random.default_rng(6)
    one = {f"L{i}.resid_post": drawn.normal(size=(40, 4)) for i in range(3)}
    two = {**one, "L1.resid_post": drawn.normal(size=(40, 4))}
    found = neighbour_overlap(one, two, k=6)
    assert found.axes == ("layer",) and found.values[[0, 2]].tolist() == [1.0, 1.0] and found.values[1] < 0.5
    with_last = neighbour_overlap(one, one["L2.resid_post"], k=6)
    for i in range(3):
        a, b = (nearest(x, x, 6, True) for x in (one[f"L{i}.resid_post"], one["L2.resid_post"]))
        assert with_last.values[i] == pytest.approx(np.mean([len(set(a[j]) & set(b[j])) / 6 for j in range(40)]))
    with pytest.raises(RecordError, match="differ"):
        neighbour_overlap(one, {"L5.resid_post": one["L0.resid_post"]}, k=6)


def test_the_share_of_each_cluster_among_the_neighbours_of_targets_is_counted_layer_by_layer():
    drawn = np.random.default_rng(7)
    clusters = np.array(list("aaabbbbccc") * 6)
    clouds = {f"L{i}.resid_post": drawn.normal(size=(60, 4)) + i * (clusters == "b")[:, None] for i in (0, 3)}
    targets = {key: drawn.normal(size=(8, 4)) for key in clouds}
    found = cluster_overlap(clouds, clusters, targets, k=10)
    assert found.axes == ("layer", "cluster") and found.coords["cluster"] == ("a", "b", "c")
    for row, key in enumerate(clouds):
        near = clusters[nearest(clouds[key], targets[key], 10, False)]
        np.testing.assert_allclose(found.values[row], [(near == name).mean() for name in "abc"])
    assert (found.low <= found.values + 1e-12).all() and (found.values <= found.high + 1e-12).all()
    table = cluster_overlap(clouds, clusters, k=10)
    near = clusters[nearest(clouds["L3.resid_post"], clouds["L3.resid_post"], 10, True)]
    for name in "abc":
        expected = [(near[clusters == name] == other).mean() for other in "abc"]
        np.testing.assert_allclose(table.sel(layer=3, own=name).values, expected)
    np.testing.assert_allclose(table.values.sum(-1), 1)
    for wrong in ({"targets": targets["L0.resid_post"]}, {"k": 60}, {"targets": {k: v[:, :2] for k, v in targets.items()}}):
        with pytest.raises(RecordError):
            cluster_overlap(clouds, clusters, **wrong)
    with pytest.raises(RecordError, match="3 clusters"):
        cluster_overlap(clouds, clusters[:3], k=2)


def test_the_mean_and_the_spread_of_cosines_are_those_of_all_pairs():
    drawn = np.random.default_rng(8)
    groups = {"text": drawn.normal(size=(13, 4)) + 1, "image": drawn.normal(size=(9, 4))}
    mean, density = similarity(groups, middle="mean"), similarity_density(groups, bins=8)
    for i, one in enumerate(groups.values()):
        for j, other in enumerate(groups.values()):
            pairs = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for a, x in enumerate(one) for b, y in enumerate(other)
                     if i != j or a > b]
            assert mean.values[i, j] == pytest.approx(np.mean(pairs))
            np.testing.assert_allclose(density.values[i, j], np.histogram(pairs, 8, (-1, 1), density=True)[0], atol=1e-12)
    np.testing.assert_allclose(density.values.sum(-1) * 2 / 8, 1)
    alone = similarity_density({"a": np.eye(2)[:1], "b": np.eye(2)})
    assert np.isnan(alone.values[0, 0]).all() and alone.shape == (2, 2, 50)
    for act in (lambda: similarity(groups, middle="mode"), lambda: similarity_density({}),
                lambda: similarity_density(groups, bins=0)):
        with pytest.raises(RecordError):
            act()


@pytest.mark.parametrize("dimensions", [2, 5, 10])
def test_the_two_nearest_neighbours_tell_the_dimensions_of_a_plane_in_sixty_four(dimensions):
    pytest.importorskip("skdim", reason="scikit-dimension is not installed")
    drawn = np.random.default_rng(1)
    plane = drawn.normal(size=(1200, dimensions)) @ np.linalg.qr(drawn.normal(size=(64, dimensions)))[0].T
    apart = np.zeros((1200, 1200))
    for row in range(len(plane)):
        apart[row] = ((plane - plane[row]) ** 2).sum(-1)
        apart[row, row] = np.inf
    nearest_two = np.sqrt(np.sort(np.partition(apart, 1, axis=1)[:, :2], axis=1))
    ratios = np.sort(nearest_two[:, 1] / nearest_two[:, 0])[:1080]  # without the tenth that is farthest out
    left = -np.log(1 - np.arange(1, 1081) / 1200)
    found = float(intrinsic_dimension(plane))
    assert found == pytest.approx((np.log(ratios) @ left) / (np.log(ratios) @ np.log(ratios)), rel=1e-6)
    assert found == pytest.approx(dimensions, rel=0.1)


# Bases ---------------------------------------------------------------------------------------------------------------------


def test_planted_parts_are_found_again_and_amounts_are_never_below_zero():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    drawn = np.random.default_rng(9)
    planted_parts = np.zeros((3, 12))
    for part in range(3):
        planted_parts[part, 4 * part:4 * part + 4] = 1 + drawn.random(4)
    amounts = drawn.exponential(size=(80, 3)) * (drawn.random((80, 3)) < 0.6)
    found = nonnegative(torch.tensor(amounts @ planted_parts), 3)
    unit = planted_parts / np.linalg.norm(planted_parts, axis=1, keepdims=True)
    assert (found.components >= 0).all() and (found.amounts >= 0).all() and found.explained > 0.9999
    np.testing.assert_allclose(np.sort((found.components @ unit.T).max(1)), 1, atol=1e-3)
    rows = (amounts @ planted_parts)[:5]
    projected = found.project(torch.tensor(rows))
    assert (projected >= 0).all()
    np.testing.assert_allclose(found.reconstruct(projected), rows, atol=0.02)
    assert found.project(rows.reshape(1, 5, 12)).shape == (1, 5, 3)
    for bad, k in ((-np.ones((4, 4)), 2), (np.full((4, 4), np.nan), 2), (np.ones((4, 4)), 5), (np.ones(4), 1)):
        with pytest.raises(RecordError):
            nonnegative(bad, k)


def test_bases_and_arcs_take_tensors_of_half_precision_and_of_a_graph():
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    basis = principal(Moments().add(x), 4)
    half = x.to(torch.bfloat16).requires_grad_()
    np.testing.assert_allclose(basis.reconstruct(torch.tensor(basis.project(half))), half.detach().double(), atol=1e-12)
    turned = interpolate(half[0], half[1], 0.0, along="arc")
    np.testing.assert_allclose(turned, half[0].detach().double(), atol=1e-12)
    with pytest.raises(RecordError, match="finite"):
        independent(torch.full((5, 3), float("nan")), 2)
