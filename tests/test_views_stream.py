"""The view of the residual stream: its maps, what a choice means, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hooklab as hl
from hooklab.analysis.stream import streams
from hooklab.errors import PromptError, TokenError, ViewError
from hooklab.records import Scores
from hooklab.views.maps import heads
from hooklab.views.registry import link
from hooklab.views.stream import residual

CLEAN = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def lab():
    with hl.load("lab") as model:
        yield model


@pytest.fixture
def view(lab):
    return residual(lab, CLEAN, direction=(" Mary", " John"))


def sent(view, name):
    entry = view.facts["arrays"][name]
    return np.frombuffer(view.blob, "<f4", int(np.prod(entry["shape"])), entry["at"]).reshape(entry["shape"])


def test_every_map_sends_the_numbers_of_the_analysis(lab, view):
    found = streams(lab, CLEAN, direction=(" Mary", " John"))
    assert [one["name"] for one in view.facts["maps"]] == ["norm", "writes", "projection"]
    for name, scores in found.items():
        assert np.array_equal(sent(view, name), scores.values.astype("f4"))


def test_rows_name_their_sites_and_layers(view):
    writes = view.facts["maps"][1]
    assert writes["rows"]["keys"][:3] == ["embed", "pos_embed", "L0.attn_out"]
    assert writes["layers"][:5] == [None, None, 0, 0, 1]


def test_lengths_count_from_zero_and_projections_from_the_middle(view):
    scales = {one["name"]: one["scale"] for one in view.facts["maps"]}
    assert scales["norm"]["kind"] == "linear" and scales["norm"]["low"] == 0
    assert scales["projection"]["kind"] == "diverging" and scales["projection"]["low"] == -scales["projection"]["high"]


def test_a_chosen_write_spells_a_spec_that_saves_it(lab, view):
    view.select(site="L3.attn_out", pos=5, layer=3)
    made = lab.run(view.spec)
    found = streams(lab, CLEAN)["writes"].sel(site="L3.attn_out").values[5]
    assert float(made["L3.attn_out"].reshape(-1).norm()) == pytest.approx(float(found), rel=1e-5)


def test_a_layer_chosen_elsewhere_takes_the_site_of_another_layer_away(view):
    other = heads(np.eye(5, 6))
    link(view, other)
    view.select(site="L3.attn_out", pos=5, layer=3)
    assert other.selection == {"layer": 3}
    other.select(layer=1, head=2)
    assert view.selection == {"layer": 1, "pos": 5}


def test_the_projection_is_shown_first_where_there_is_one(lab, view):
    assert view.options["show"] == "projection"
    assert residual(lab, CLEAN).options["show"] == "norm"
    assert residual(lab, CLEAN, show="writes").options["show"] == "writes"


def test_a_run_and_scores_are_drawn_as_well(lab):
    run = lab.run(f'prompt "{CLEAN}"\nsave L*.resid_post')
    drawn = residual(run, direction=torch.ones(lab.facts.d_model))
    by_hand = run["L2.resid_post"][0].double().numpy()
    row = drawn.facts["maps"][0]["rows"]["keys"].index("L2.resid_post")
    assert np.allclose(sent(drawn, "norm")[row], np.sqrt((by_hand**2).sum(-1)), rtol=1e-6)
    assert np.allclose(sent(drawn, "projection")[row], by_hand.sum(-1), rtol=1e-4, atol=1e-4)
    one = streams(lab, CLEAN)["writes"]
    assert np.array_equal(sent(residual(one), "writes"), one.values.astype("f4"))


def test_the_figure_and_the_page_show_the_chosen_map(lab, view):
    view.options = {"show": "writes"}
    image = view.plot().axes[0].images[0]
    assert np.array_equal(np.asarray(image.get_array()), streams(lab, CLEAN)["writes"].values)
    assert "L0.attn_out" in view.static() and len(view.static()) <= 100 * 1024


def test_hostile_tokens_stay_text():
    labels = tuple(f"{i}: {text}" for i, text in enumerate(["<script>x</script>", "\u202e", "</td>"]))
    view = residual({"norm": Scores(np.ones((2, 3)), ("site", "pos"), {"site": ("L0.resid_pre", "L0.resid_post"),
                                                                      "pos": labels})})
    assert "<script>x" not in view.static() and "<script>x" not in view.to_html()
    assert "\u202e" not in view.to_html()


@pytest.mark.parametrize(("make", "error", "says"), [
    (lambda m: residual(m), ViewError, "say what the model runs on"),
    (lambda m: residual(m, CLEAN, show="projection"), ViewError, r"needs? direction="),
    (lambda m: residual(m, CLEAN, direction=" nothing"), TokenError, "not in the vocabulary"),
    (lambda m: residual(m, [CLEAN, CLEAN]), PromptError, "one prompt at a time"),
    (lambda m: residual({"size": Scores(np.ones((2, 3)), ("site", "pos"))}), ViewError, "'size' is not"),
    (lambda m: residual({}), ViewError, "nothing to draw"),
    (lambda m: residual(3), ViewError, "not int"),
])
def test_what_is_no_stream_says_what_fits(lab, make, error, says):
    with pytest.raises(error, match=says):
        make(lab)


def test_a_closed_view_holds_nothing(view):
    view.close()
    assert view._found == {}
    with pytest.raises(ViewError, match="closed"):
        view.plot()
