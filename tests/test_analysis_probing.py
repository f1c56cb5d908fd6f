"""Probes: a planted label is found where it is planted, its shuffle nowhere; numbers against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

import hooklab as hl
from hooklab.analysis.probing import area, probe, single_units
from hooklab.errors import RecordError

pytest.importorskip("sklearn", reason="scikit-learn is not installed")


def planted(n=120, d=20, from_layer=2, layers=4, seed=0, strength=3):
    """Activations of four layers; the label stands in one direction from the third on."""
    drawn = np.random.default_rng(seed)
    labels = drawn.integers(0, 2, n)
    direction = drawn.normal(size=d)
    acts = {f"L{i}.resid_post": drawn.normal(size=(n, d)) for i in range(layers)}
    for i in range(from_layer, layers):
        acts[f"L{i}.resid_post"] += strength * np.outer(2 * labels - 1, direction / np.linalg.norm(direction))
    return acts, labels, direction


@pytest.mark.parametrize("method", ["logistic", "means"])
def test_a_planted_label_is_read_from_the_layer_where_it_is_planted(method):
    acts, labels, direction = planted(strength=4)
    found = probe(acts, labels, method=method)
    assert found.accuracy.axes == ("layer",) and found.accuracy.coords["layer"] == (0, 1, 2, 3)
    assert (found.accuracy.values[:2] < 0.65).all() and (found.accuracy.values[2:] > 0.99).all()
    assert (found.auroc.values[2:] > 0.99).all() and (np.abs(found.auroc.values[:2] - 0.5) < 0.2).all()
    assert (np.abs(found.accuracy.control.values - 0.5) < 0.12).all(), "shuffled labels cannot be read"
    cosine = found.directions[3] @ direction / np.linalg.norm(found.directions[3]) / np.linalg.norm(direction)
    assert cosine > 0.85


def test_accuracy_is_the_share_of_held_out_examples_told_right_and_lies_in_its_interval():
    acts, labels, _ = planted(60)
    found = probe(acts, labels).accuracy
    np.testing.assert_allclose(found.values, found.examples.mean(0))
    assert set(np.unique(found.examples)) <= {0.0, 1.0} and found.examples.shape == (60, 4)
    assert (found.low <= found.values).all() and (found.values <= found.high).all()


def test_a_probe_of_more_directions_than_examples_does_not_learn_them_by_heart():
    drawn = np.random.default_rng(1)
    labels = np.repeat([0, 1], 30)
    found = probe(drawn.normal(size=(60, 300)), labels)
    assert abs(float(found.accuracy) - 0.5) < 0.2 and found.accuracy.axes == ()


def test_examples_of_one_group_are_never_on_both_sides():
    """Each group has a direction of its own that gives its label away; across groups there is nothing to learn."""
    drawn = np.random.default_rng(2)
    groups = np.repeat(np.arange(20), 6)
    labels = np.repeat(drawn.permutation(np.repeat([0, 1], 10)), 6)
    features = drawn.normal(size=(20, 40))[groups] + 0.01 * drawn.normal(size=(120, 40))
    assert float(probe(features, labels).accuracy) > 0.95
    assert float(probe(features, labels, groups=groups).accuracy) < 0.8


def test_several_classes_have_a_direction_each_and_no_auroc():
    drawn = np.random.default_rng(3)
    labels = np.repeat(["a", "b", "c"], 20)
    features = np.eye(3)[np.repeat(np.arange(3), 20)] * 4 + drawn.normal(size=(60, 3))
    found = probe(features, labels)
    assert found.classes == ("a", "b", "c") and found.auroc is None and found.directions.shape == (3, 3)
    assert float(found.accuracy) > 0.9 and (found.directions.argmax(1) == np.arange(3)).all()


def test_the_same_seed_gives_the_same_numbers_and_nothing_global_is_drawn():
    acts, labels, _ = planted(60)
    state = np.random.get_state()[1].copy()
    first, second = probe(acts, labels, seed=5), probe(acts, labels, seed=5)
    assert first.accuracy == second.accuracy and (np.random.get_state()[1] == state).all()


def test_single_units_are_ordered_as_pairs_say():
    drawn = np.random.default_rng(4)
    labels = np.array([0, 1] * 15)
    features = drawn.normal(size=(30, 6))
    features[:, 2] = labels * 2 + 0.1 * drawn.normal(size=30)
    features[:, 4] = 1.0
    found = single_units(features, labels)
    by_hand = [np.mean([(x > y) + 0.5 * (x == y) for x in features[labels == 1, i] for y in features[labels == 0, i]])
               for i in range(6)]
    np.testing.assert_allclose(found.values, by_hand)
    assert found.values[2] == 1.0 and found.p[2] < 1e-4 and found.values[4] == 0.5 and found.p[4] == 1.0


def test_the_area_counts_ties_half():
    assert area(np.array([1.0, 1.0]), np.array([0, 1])) == 0.5


def test_captured_activations_of_the_shipped_model_tell_the_name_at_its_place():
    model = hl.load("lab")
    names = ["Mary", "Alice", "Julia"]
    prompts = [f"When {a} and {b} went to the store" for a in names for b in ("Peter", "Henry", "Robert", "Martin")]
    acts = model.capture(prompts, "L*.resid_post", at=2)
    found = probe(acts, [prompt.split()[1] for prompt in prompts], folds=4, method="means")
    assert found.accuracy.values.shape == (model.facts.n_layers,) and found.accuracy.values[0] == 1.0


@pytest.mark.parametrize("given, labels, options, said", [
    (np.zeros((4, 2)), [0, 1, 0], {}, "3 labels for 4"), (np.zeros((4, 2)), [0] * 4, {}, "two classes"),
    (np.zeros((4, 2)), [0, 0, 0, 1], {"folds": 2}, "2 folds need 2"), (np.zeros((4, 2, 2)), [0] * 4, {}, "must be"),
    (np.full((4, 2), np.nan), [0, 0, 1, 1], {}, "finite"), (np.zeros((4, 2)), [0, 0, 1, 1], {"method": "logistics"}, "mean"),
    ({"L0.z": np.zeros((4, 2)), "L0.q": np.zeros((4, 2))}, [0, 0, 1, 1], {}, "one site"), ({}, [], {}, "no activations"),
    (np.zeros((4, 2)), [0, 0, 1, 1], {"folds": 1}, "two folds")])
def test_what_cannot_be_probed_is_refused_with_the_reason(given, labels, options, said):
    with pytest.raises(RecordError, match=said):
        probe(given, labels, **options)
