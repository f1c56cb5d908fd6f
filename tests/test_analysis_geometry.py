"""Clouds of activations: against all pairs by numpy, planted clusters and planted dimensions."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from hooklab.analysis import geometry
from hooklab.analysis.geometry import homogeneity, intrinsic_dimension, label_overlap, neighbour_overlap, similarity
from hooklab.errors import RecordError

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
DRAWN = np.random.default_rng(0)
START = DRAWN.bit_generator.state


@pytest.fixture(autouse=True)
def drawn_anew():
    """Every test draws the same numbers, in whatever order the tests come."""
    DRAWN.bit_generator.state = START


def blobs(n=60, apart=30.0, d=8):
    labels = np.repeat([0, 1], n)
    centres = np.zeros((2, d))
    centres[0, 0] = centres[1, 1] = apart
    return DRAWN.normal(size=(2 * n, d)) + centres[labels], labels


def by_hand(a, b, same):
    pairs = range(len(a))
    found = [a[i] @ b[j] / np.linalg.norm(a[i]) / np.linalg.norm(b[j]) for i in pairs for j in range(i if same else len(b))]
    return np.quantile(found, [0.25, 0.5, 0.75])


def test_similarity_is_the_median_over_all_pairs_with_its_quartiles():
    groups = {"text": DRAWN.normal(size=(23, 5)) + 1, "image": DRAWN.normal(size=(31, 5))}
    found = similarity(groups)
    for i, one in enumerate(groups):
        for j, other in enumerate(groups):
            expected = by_hand(groups[one], groups[other], i == j)
            np.testing.assert_allclose([found.low[i, j], found.values[i, j], found.high[i, j]], expected, atol=1e-12)


def test_orthogonal_groups_have_similarity_zero_and_identical_ones_one():
    a, b = np.tile(np.eye(6)[0], (9, 1)), np.tile(np.eye(6)[3], (7, 1))
    np.testing.assert_allclose(similarity({"a": a, "b": b}).values, np.eye(2), atol=1e-12)


def test_many_pairs_are_counted_in_bins_and_not_kept(monkeypatch):
    groups = {"a": DRAWN.normal(size=(1500, 4)), "b": DRAWN.normal(size=(300, 4)) + 0.5}
    exact = similarity(groups)
    monkeypatch.setattr(geometry, "PAIRS", 1000)
    binned = similarity(groups)
    for word in ("values", "low", "high"):
        np.testing.assert_allclose(getattr(binned, word), getattr(exact, word), rtol=0, atol=2e-6)


def test_neighbours_in_clusters_share_labels_and_random_labels_are_shared_by_chance():
    features, labels = blobs()
    assert float(label_overlap(features, labels, k=20)) == 1.0
    classes = np.random.default_rng(1).integers(0, 4, 400)
    cloud = DRAWN.normal(size=(400, 6))
    found = float(label_overlap(cloud, classes, k=15))
    assert abs(found - 0.25) < 3 * np.sqrt(0.25 * 0.75 / 400)
    assert abs(float(label_overlap(cloud, classes, k=15, corrected=True))) < 0.05


def test_a_large_class_does_not_raise_the_corrected_overlap_of_a_cloud_without_structure():
    classes = (np.arange(600) >= 540).astype(int)  # 90 to 10
    cloud, apart = DRAWN.normal(size=(600, 6)), DRAWN.normal(size=(600, 6)) + 40.0 * classes[:, None]
    assert float(label_overlap(cloud, classes, k=15)) > 0.75
    assert abs(float(label_overlap(cloud, classes, k=15, corrected=True))) < 0.05
    assert float(label_overlap(apart, classes, k=15, corrected=True)) == 1.0
    chance = np.mean([(classes == c).sum() - 1 for c in classes]) / 599
    plain = float(label_overlap(cloud, classes, k=15))
    assert float(label_overlap(cloud, classes, k=15, corrected=True)) == pytest.approx((plain - chance) / (1 - chance))


def test_similarity_of_twenty_thousand_examples_stays_within_memory():
    cloud = DRAWN.normal(size=(20_000, 4)).astype(np.float32)
    tracemalloc.start()
    try:
        similarity({"a": cloud[:10_000], "b": cloud[10_000:]})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 800e6, f"{peak / 1e6:.0f} MB, where all pairs would take {20_000 ** 2 * 8 / 1e6:.0f}"


def test_overlaps_are_counted_as_by_brute_force():
    a, b, labels = DRAWN.normal(size=(40, 5)), DRAWN.normal(size=(40, 5)), DRAWN.integers(0, 3, 40)

    def near(x):
        distances = ((x[:, None] - x[None]) ** 2).sum(-1)
        np.fill_diagonal(distances, np.inf)
        return np.argsort(distances, axis=1)[:, :7]

    expected = np.mean([labels[j] == labels[i] for i in range(40) for j in near(a)[i]])
    assert float(label_overlap(a, labels, k=7)) == pytest.approx(expected)
    shared = np.mean([len(set(near(a)[i]) & set(near(b)[i])) / 7 for i in range(40)])
    assert float(neighbour_overlap(a, b, k=7)) == pytest.approx(shared)
    assert float(neighbour_overlap(a, 3 * a + 1, k=7)) == 1.0


def test_an_overlap_has_a_number_for_each_layer():
    features, labels = blobs()
    found = label_overlap({"L0.resid_post": DRAWN.normal(size=features.shape), "L3.resid_post": features}, labels, k=10)
    assert found.coords["layer"] == (0, 3) and found.values[0] < 0.7 and found.values[1] == 1.0


def test_two_clusters_are_homogeneous_and_one_cloud_is_not():
    features, labels = blobs()
    assert float(homogeneity(features, labels)) == pytest.approx(1.0)
    assert float(homogeneity(DRAWN.normal(size=features.shape) + 9, labels)) < 0.1


def test_homogeneity_of_given_clusters_is_one_less_the_entropy_that_is_left():
    labels, clusters = DRAWN.integers(0, 4, 200), DRAWN.integers(0, 6, 200)

    def entropy(values):
        share = np.unique(values, return_counts=True)[1] / len(values)
        return -(share * np.log(share)).sum()

    left = sum((clusters == c).mean() * entropy(labels[clusters == c]) for c in range(6))
    found = float(homogeneity(np.zeros((200, 2)) + 1, labels, clusters=clusters))
    assert found == pytest.approx(1 - left / entropy(labels), abs=1e-12)


    other = sum((labels == c).mean() * entropy(clusters[labels == c]) for c in range(4))
    complete = 1 - other / entropy(clusters)
    cloud = np.zeros((200, 2)) + 1
    assert float(homogeneity(cloud, labels, clusters=clusters, measure="completeness")) == pytest.approx(complete, abs=1e-12)
    assert float(homogeneity(cloud, labels, clusters=clusters, measure="v_measure")) == pytest.approx(
        2 * found * complete / (found + complete), abs=1e-12)
    with pytest.raises(RecordError, match='Did you mean "completeness"'):
        homogeneity(cloud, labels, clusters=clusters, measure="completness")


def test_a_plane_of_five_dimensions_in_sixty_four_has_five():
    pytest.importorskip("skdim", reason="scikit-dimension is not installed")
    cloud = DRAWN.normal(size=(1500, 5)) @ DRAWN.normal(size=(5, 64))
    for method in ("TwoNN", "MLE", "PCA"):
        assert float(intrinsic_dimension(cloud, method=method)) == pytest.approx(5, rel=0.12)
    assert float(intrinsic_dimension(np.concatenate([cloud, cloud]))) == pytest.approx(5, rel=0.12)


@pytest.mark.parametrize("act", [
    lambda: similarity({}), lambda: similarity({"a": np.eye(3), "b": np.eye(4)}),
    lambda: similarity({"a": np.zeros((3, 2))}),
    lambda: similarity({"a": np.eye(3)}, quantiles=(0.6, 0.7)), lambda: label_overlap(np.eye(3), [0, 1, 0], k=3),
    lambda: label_overlap(np.eye(3), [0, 1], k=1), lambda: label_overlap(np.eye(3), [1, 1, 1], k=1, corrected=True),
    lambda: neighbour_overlap(np.eye(3), np.eye(4), k=1), lambda: intrinsic_dimension(np.eye(30), method="2NN"),
    lambda: homogeneity(np.eye(3), [0])])
def test_clouds_that_cannot_be_judged_are_refused(act):
    with pytest.raises(RecordError):
        act()
