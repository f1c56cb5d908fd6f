"""Maps of heads and neurons: what they take, what they list, and what choosing one means to other views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hooklab as hl
from hooklab.errors import ViewError
from hooklab.records import Scores
from hooklab.views.grids import grid
from hooklab.views.maps import heads, neurons
from hooklab.views.registry import link

CLEAN = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def lab():
    with hl.load("lab") as model:
        yield model


@pytest.fixture(scope="module")
def zeroed(lab):
    return lab.run(f'prompt "{CLEAN}"\nanswer " Mary" vs " John"\nmetric logit_diff\nzero each L*H* @last')


def sent(view):
    entry = view.facts["arrays"]["values"]
    return np.frombuffer(view.blob, "<f4", int(np.prod(entry["shape"])), entry["at"]).reshape(entry["shape"])


@pytest.mark.parametrize("make", [
    np.asarray, lambda x: torch.tensor(x), lambda x: torch.tensor(x, requires_grad=True), lambda x: x.tolist(),
    lambda x: torch.tensor(x).bfloat16(), lambda x: Scores(x, ("layer", "head")),
    lambda x: Scores(x.T, ("head", "layer")),
])
def test_numbers_of_heads_may_come_as_arrays_tensors_lists_or_scores(make):
    values = np.arange(6, dtype=np.float32).reshape(3, 2) - 2
    view = heads(make(values))
    assert (view.facts["rows"], view.facts["columns"]) == ("layer", "head")
    assert np.array_equal(sent(view), values)
    assert view.facts["scale"] == {"kind": "diverging", "low": -3.0, "high": 3.0}


def test_a_run_shows_the_scores_that_it_has_of_heads(lab, zeroed):
    view = heads(zeroed, title="zeroed")
    assert np.array_equal(sent(view), zeroed.grid.values.astype("f4"))
    view.select(layer=3, head=1)
    again = lab.run(view.spec)
    assert again.metrics["hooked"]["logit_diff"] == pytest.approx(float(zeroed.grid.sel(layer=3, head=1).values), abs=1e-4)
    assert view.run()["metrics"][0][1] == pytest.approx(float(zeroed.grid.sel(layer=3, head=1).values), abs=1e-4)


def test_a_head_without_a_sweep_spells_lines_that_look_at_it(lab):
    view = heads(np.eye(5, 6)).select(layer=2, head=4)
    made = lab.run(f'prompt "{CLEAN}"\n{view.spec}')
    assert "main.L2.pattern" in made.data
    assert made.views[0].view == "attention" and "L2H4" in made.views[0].sites[0]


def test_a_neuron_spells_a_line_that_saves_it(lab):
    view = neurons(np.eye(5, lab.facts.d_mlp)).select(layer=1, neuron=77)
    made = lab.run(f'prompt "{CLEAN}"\n{view.spec}')
    assert list(made.data)[0].endswith("L1N77.mlp_post")


def test_choosing_a_head_chooses_it_in_views_of_the_same_run(zeroed):
    first, second = heads(zeroed), heads(zeroed)
    first.select(layer=4, head=2)
    assert second.selection == {"layer": 4, "head": 2}


def test_linked_views_keep_to_the_axes_that_they_share():
    a, b = heads(np.eye(3)), neurons(np.eye(3, 9))
    link(a, b)
    a.select(layer=2, head=1)
    assert b.selection == {"layer": 2}


def test_further_axes_are_chosen_above_the_map():
    values = np.arange(24.0).reshape(4, 3, 2)
    view = heads(Scores(values, ("pos", "layer", "head"), {"pos": tuple(f"{i}: t" for i in range(4))}))
    assert view.facts["others"] == ["pos"]
    view.select(pos=2)
    assert np.array_equal(view.plot().axes[0].images[0].get_array(), values[2])


def test_a_hundred_thousand_neurons_are_drawn():
    view = neurons(np.zeros((32, 11008), np.float32))
    assert sent(view).shape == (32, 11008)


def test_how_many_are_listed_can_be_said():
    assert heads(np.eye(3), strongest=5).facts["strongest"] == 5
    assert heads(np.eye(3)).facts["strongest"] == 12
    assert grid(Scores(np.eye(3), ("layer", "head"))).facts["strongest"] == 0


@pytest.mark.parametrize(("make", "says"), [
    (lambda: heads(np.zeros(3)), r"shape \(3,\)"),
    (lambda: heads(np.zeros((2, 3, 4))), r"shape \(2, 3, 4\).*hl\.Scores"),
    (lambda: heads(np.array([["a"]])), "real numbers"),
    (lambda: heads(np.zeros((0, 3))), "empty"),
    (lambda: heads(Scores(np.zeros((2, 3)), ("layer", "pos"))), "needs the axes layer and head.*layer, pos"),
    (lambda: neurons(np.zeros((400, 4000))), "1,600,000 cells"),
    (lambda: heads(np.eye(2), strongest=-1), "not -1"),
])
def test_what_is_no_map_says_what_fits(make, says):
    with pytest.raises(ViewError, match=says):
        make()


def test_a_run_without_heads_says_what_to_sweep(lab):
    with pytest.raises(ViewError, match=r"zero each L\*H\*"):
        heads(lab.run(f'prompt "{CLEAN}"\nmetric loss'))
