"""Circuits as graphs: which edges are kept, where nodes stand, what is chosen, and what is written as spec text."""

from __future__ import annotations

import re

import numpy as np
import pytest

import hooklab as hl
from hooklab.analysis.circuits import Circuit
from hooklab.errors import ViewError
from hooklab.records import Scores
from hooklab.views import layered, network

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = "When Mary and John went to the store, Mary gave a drink to"
PROMPTS = f'prompt clean = "{CLEAN}"\nprompt corrupt = "{CORRUPT}"\nanswer " Mary" vs " John"\nmetric logit_diff'
EDGES = [("embed", "L0H1.v", 0.5), ("L0H1", "L0.mlp", -2.0), ("L0.mlp", "L1H2.k", 0.25), ("L0H1", "L1H2.q", 0.1),
         ("L1H2", "logits", 1.5), ("embed", "logits", -0.05)]
DTYPES = {"f32": np.float32, "i32": np.int32, "u8": np.uint8}


@pytest.fixture(scope="module")
def lab():
    return hl.load("lab")


@pytest.fixture
def view():
    made = hl.view.graph(EDGES, threshold=0)
    yield made
    made.close()


def decoded(view):
    return {name: np.frombuffer(view.blob, DTYPES[one["kind"]], int(np.prod(one["shape"])), one["at"])
            for name, one in view.facts["arrays"].items()}


def named(scores, senders, receivers):
    return Scores(np.array(scores), ("sender", "receiver"), {"sender": tuple(senders), "receiver": tuple(receivers)},
                  unit="logits", name="logit_diff")


def test_what_travels_is_every_edge_with_its_weight_the_strongest_first(view):
    sent, names = decoded(view), [one["name"] for one in view.facts["nodes"]]
    told = [(names[a], names[b], view.facts["inlets"][i], float(w)) for a, b, i, w in
            zip(sent["start"], sent["stop"], sent["inlet"], sent["weight"], strict=True)]
    wanted = [(a, b.partition(".")[0] if b[-2:] in (".q", ".k", ".v") else b, b[-1] if b[-2:] in (".q", ".k", ".v") else "",
               np.float32(w)) for a, b, w in sorted(EDGES, key=lambda edge: -abs(edge[2]))]
    assert told == wanted


def test_a_list_a_dict_and_a_dict_of_dicts_are_the_same_graph(view):
    pairs = hl.view.graph({(a, b): w for a, b, w in EDGES}, threshold=0)
    nested: dict = {}
    for a, b, w in EDGES:
        nested.setdefault(a, {})[b] = w
    assert pairs.shown == view.shown == hl.view.graph(nested, threshold=0).shown
    assert len(view.shown) == 6


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.25, 0.26, 2.0, 2.1])
def test_the_threshold_keeps_edges_that_are_at_least_so_strong(view, threshold):
    view.options = {"threshold": threshold}
    assert {(a, b) for a, b, _ in view.shown} == {(a, b) for a, b, w in EDGES if abs(w) >= threshold}


def test_scores_of_edges_become_a_graph_without_the_edges_that_do_not_exist():
    scores = named([[1.0, np.nan, -3.0], [np.nan, np.nan, 0.5]], ["embed", "L0H1"], ["L0H1.q", "L0H1.k", "logits"])
    view = hl.view.graph(scores, threshold=0)
    assert view.shown == [("embed", "logits", -3.0), ("embed", "L0H1.q", 1.0), ("L0H1", "logits", 0.5)]
    assert view.facts["unit"] == "logits"


def test_the_edges_of_a_model_are_all_drawn_and_sixty_are_suggested(lab):
    scores = hl.analysis.edges(lab, CLEAN, CORRUPT, answer=" Mary", wrong=" John")
    view = hl.view.graph(scores)
    there = np.abs(scores.values[~np.isnan(scores.values)])
    assert len(view.edges.weight) == len(there) and len(view.nodes) == 2 + 5 * 7
    assert view.options["threshold"] == np.sort(there)[-60] and len(view.shown) == 60
    strongest = scores.top(1)[0]
    assert view.shown[0] == (strongest[0]["sender"], strongest[0]["receiver"], strongest[1])


def test_keys_of_fewer_heads_are_nodes_of_their_own():
    scores = named([[1.0, 2.0, 3.0]], ["embed"], ["L0H0.q", "L0H1.q", "L0H0.k"])
    view = hl.view.graph(scores)
    assert {(one.name, one.kind) for one in view.nodes} >= {("L0 kv 0", "kv"), ("L0H0", "head"), ("L0H1", "head")}


def test_layers_stand_above_each_other_and_heads_in_order():
    view = hl.view.graph([("embed", "L0H3", 1), ("embed", "L0H1", 1), ("L0H1", "L0.mlp", 1), ("L0.mlp", "L2H3", 1),
                          ("L2H3", "logits", 1), ("L2.mlp", "logits", 1)])
    at = {one.name: one for one in view.nodes}
    heights = [at[name].y for name in ("embed", "L0H1", "L0.mlp", "L2H3", "L2.mlp", "logits")]
    assert heights == sorted(heights) and len(set(heights)) == 6
    assert at["L0H1"].y == at["L0H3"].y and at["L0H1"].x < at["L0H3"].x < at["L0.mlp"].x
    assert at["L0H3"].x == at["L2H3"].x


def test_positions_stand_in_columns():
    view = hl.view.graph([("L0H1 @1", "L2H3.k @4", 1), ("L0H5 @1", "L2H3.k @4", 2), ("L2H3 @4", "logits", 1)])
    at = {one.name: one for one in view.nodes}
    assert max(at["L0H1 @1"].x, at["L0H5 @1"].x) < at["L2H3 @4"].x
    assert view.select(node="L2H3 @4").selection == {"node": "L2H3 @4", "layer": 2, "head": 3, "pos": 4}


def test_no_two_nodes_stand_in_one_place(lab):
    view = hl.view.graph(hl.analysis.edges(lab, CLEAN, CORRUPT, answer=" Mary", wrong=" John"))
    for some in (view.nodes, hl.view.graph([("a", "c", 1), ("b", "c", 1), ("a", "d", 1), ("d", "c", 1)]).nodes):
        assert len({(one.x, one.y) for one in some}) == len(some)


def test_names_that_are_no_addresses_stand_above_what_leads_to_them():
    view = hl.view.graph([("paws", "animals", 1), ("animals", "zoo", 2), ("paws", "zoo", 3)])
    at = {one.name: one.y for one in view.nodes}
    assert at["paws"] < at["animals"] < at["zoo"]


def test_a_circuit_shows_its_paths_and_with_scores_their_weights(lab):
    circuit = Circuit(("L0H1", "L0.mlp_out", "L2H1"), ("L0H0", "L2H0"), Scores(np.zeros(2), ("step",)), 0.9,
                      PROMPTS + "\nrun circuit on clean:\n    patch L0H0, L2H0 from corrupt")
    open_paths = hl.view.graph(circuit)
    assert np.isnan(open_paths.edges.weight).all() and not open_paths.facts["measured"]
    assert ("L0H1", "L0.mlp") in {(a, b) for a, b, _ in open_paths.shown}
    assert {one["name"] for one in open_paths.facts["nodes"] if one["removed"]} == {"L0H0", "L2H0"}
    scores = hl.analysis.edges(lab, CLEAN, CORRUPT, answer=" Mary", wrong=" John")
    measured = hl.view.graph(circuit, edges=scores, threshold=0)
    weights = {(a, b): w for a, b, w in measured.shown}
    assert weights["L0H1", "L0.mlp"] == scores.sel(sender="L0H1", receiver="L0.mlp").values
    assert {end.partition(".")[0] if "H" in end else end for pair in weights for end in pair} <= {
        "embed", "L0H1", "L0.mlp", "L2H1", "logits"}


# Choosing, pinning ------------------------------------------------------------------------------------------------------


def test_a_head_by_its_layer_and_number_is_its_node(view):
    assert view.select(layer=1, head=2).selection == {"layer": 1, "head": 2, "node": "L1H2"}
    assert view.select(node="L0.mlp").selection == {"node": "L0.mlp", "layer": 0}


def test_a_linked_view_of_heads_follows_and_leads(view):
    heads = hl.view.heads(np.zeros((3, 4)))
    hl.view.link(view, heads)
    view.select(node="L1H2")
    assert heads.selection == {"layer": 1, "head": 2}
    heads.select(layer=0, head=1)
    assert view.selection == {"layer": 0, "head": 1, "node": "L0H1"}


def test_pins_come_from_the_page_and_from_python(view):
    assert view.answer("pin", {"nodes": ["L0H1", "L1H2"]})[0] == {"pinned": ["L0H1", "L1H2"]}
    view.options = {"part": "pinned"}
    assert view.shown == [("L0H1", "L1H2.q", 0.1)]
    assert view.pin("L0.mlp").facts["pinned"] == ["L0.mlp"] and view.pinned == ("L0.mlp",)
    with pytest.raises(ViewError, match="L0H1"):
        view.pin("L0H7")


# As spec text ------------------------------------------------------------------------------------------------------------


def test_the_shown_part_as_spec_text_takes_all_others_out(lab):
    view = hl.view.graph(EDGES, threshold=0.2, spec=PROMPTS)
    assert "group shown = L0H1, L0.mlp, L1H2" in view.spec
    by_hand = [f"L{layer}H{head}" for layer in range(5) for head in range(6) if (layer, head) not in ((0, 1), (1, 2))]
    by_hand += [f"L{layer}.mlp" for layer in range(1, 5)]
    wanted = lab.run(f"{PROMPTS}\nrun circuit on clean:\n    patch {', '.join(by_hand)} from corrupt")
    assert lab.run(view.spec).metrics["circuit"] == pytest.approx(wanted.metrics["circuit"], rel=1e-4)


def test_spec_text_follows_the_threshold_and_the_pins(view):
    view.options = {"threshold": 1.0}
    assert view.spec.splitlines()[0] == "group shown = L0H1, L0.mlp, L1H2"
    view.options = {"threshold": 1.9}
    assert view.spec.splitlines()[0] == "group shown = L0H1, L0.mlp"
    view.pin("L1H2")
    assert view.spec.splitlines()[0] == "group shown = L1H2"
    view.pin()
    view.options = {"threshold": 9.0}
    assert view.spec == ""


def test_a_circuit_brings_its_prompts(lab):
    found = hl.analysis.circuit(lab, CLEAN, CORRUPT, answer=" Mary", wrong=" John", nodes=("L*.mlp",), keep=0.5)
    run = lab.run(hl.view.graph(found).spec)
    wanted = lab.run(found.spec).metrics["circuit"]["logit_diff"]
    assert run.metrics["circuit"]["logit_diff"] == pytest.approx(wanted, rel=1e-4)


def test_without_prompts_the_text_goes_under_those_of_a_cell(lab, view):
    run = lab.run(f'prompt "{CLEAN}"\nanswer " Mary" vs " John"\nmetric logit_diff\n{view.spec}')
    assert run.metrics["hooked"]["logit_diff"] != run.metrics["main"]["logit_diff"]


# Limits and errors ---------------------------------------------------------------------------------------------------------


def test_too_many_edges_are_cut_to_the_strongest_and_a_line_says_so(monkeypatch):
    monkeypatch.setattr(network, "MOST_EDGES", 3)
    view = hl.view.graph(EDGES, threshold=0)
    assert [abs(w) for _, _, w in view.shown] == [2.0, 1.5, 0.5]
    assert "Of 6 edges the 3 strongest" in view.facts["left_out"] and "Of 6 edges" in view.static()


def test_too_many_nodes_are_cut_to_those_of_the_strongest_edges(monkeypatch):
    monkeypatch.setattr(network, "MOST_NODES", 4)
    view = hl.view.graph(EDGES, threshold=0)
    assert {one.name for one in view.nodes} == {"L0H1", "L0.mlp", "L1H2", "logits"}
    assert "4 nodes" in view.facts["left_out"]


def test_the_edges_of_a_large_model_are_cut_before_they_are_named():
    senders = [f"L{layer}H{head}" for layer in range(24) for head in range(16)]
    values = np.random.default_rng(0).normal(size=(len(senders), 3 * len(senders)))
    receivers = [f"{name}.{inlet}" for inlet in "qkv" for name in senders]
    layers = np.arange(len(senders)) // 16
    values[layers[:, None] >= np.tile(layers, 3)[None]] = np.nan
    view = hl.view.graph(named(values, senders, receivers))
    assert len(view.edges.weight) <= 20_000 and len(view.nodes) == 24 * 16
    assert np.abs(view.edges.weight).min() >= np.sort(np.abs(values[~np.isnan(values)]))[-20_000]


def test_infinite_weights_are_the_strongest_and_unknown_ones_the_weakest():
    view = hl.view.graph([("a", "b", 1.0), ("a", "c", float("inf")), ("b", "c", float("nan"))], threshold=0)
    assert [str(w) for _, _, w in view.shown] == ["inf", "1.0", "nan"]
    view.options = {"threshold": 0.5}
    assert [str(w) for _, _, w in view.shown] == ["inf", "1.0"]


@pytest.mark.parametrize(("source", "says"), [
    ([], "nothing to draw"), ([("a", "b")], "from, to, weight"), ([("a", "b", "x")], "a number"), (3, "int"),
    ({"a": 3}, "dict"), ([("a", "a", 1)], "itself"), ([("a", "b", 1), ("a", "b", 2)], "twice"),
    ([("a", "b", 1), ("b", "a", 1)], "circle"), ([("L2H1", "L1H0", 1)], "against"), (Scores(np.eye(2), ("layer", "head")),
                                                                                      "sender and receiver")])
def test_what_is_no_graph_is_an_error_that_says_what_is_one(source, says):
    with pytest.raises(ViewError, match=says):
        hl.view.graph(source)


def test_an_unknown_node_is_an_error_that_names_the_nearest(view):
    with pytest.raises(Exception, match="L1H2"):
        view.select(node="L1H3")


# Without a front end -------------------------------------------------------------------------------------------------------


def test_the_form_without_script_draws_the_shown_edges(view):
    view.options = {"threshold": 0.2}
    text = view.static()
    assert len(re.findall("<path ", text)) == 4 and text.count("stroke-dasharray") == 1
    assert "4 of 6 edges, 5 of 5 nodes" in text and "<script" not in text


def test_hostile_names_are_shown_and_do_nothing():
    hostile = '</script><svg onload="alert(1)"> \u202e'
    view = hl.view.graph([(hostile, "b", 1.0)], title=hostile)
    assert "<svg onload" not in view.static() + view.to_html() and "\u202e" not in view.static() + repr(view)
    assert view.select(node=hostile).selection["node"] == hostile


def test_the_figure_has_a_curve_for_each_shown_edge(view):
    view.options = {"threshold": 0.2}
    figure = view.plot()
    assert len(figure.axes[0].patches) == 4
    assert {text.get_text() for text in figure.axes[0].texts} == {"embed", "H1", "MLP", "H2", "logits"}
    assert view.to_png()[:4] == b"\x89PNG"


def test_a_closed_graph_holds_no_edges(view):
    view.close()
    assert len(view.edges.weight) == 0 and view.blob == b""
    with pytest.raises(ViewError, match="closed"):
        view.answer("pin", {"nodes": []})


@pytest.mark.parametrize(("name", "component", "inlet"), [
    ("L9H6.q", "L9H6", "q"), ("L9H6", "L9H6", ""), ("L9H6.result", "L9H6", ""), ("L3.mlp_pre", "L3.mlp", ""),
    ("L3.attn_out", "L3.attn", ""), ("L3N17", "L3N17", ""), ("L2.resid_post", "L2.resid_post", ""), ("embed", "embed", ""),
    ("hats", "hats", ""), ("L1H0.v @3", "L1H0 @3", "v")])
def test_addresses_are_read_as_components_and_inlets(name, component, inlet):
    node, found = layered.node(name)
    assert (node.name, found) == (component, inlet)
