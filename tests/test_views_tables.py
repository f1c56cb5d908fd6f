"""Tables of nodes and of stores: what they hold is what they were made of, choices spell and link, hostile text is text."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch
from tiny_models import build

import hooklab as hl
from hooklab.analysis.node_table import Kind, Nodes
from hooklab.data.store.writer import Writer
from hooklab.errors import RecordError, ViewError
from hooklab.views import wire

TEXT = "When Mary and John went to the store, John gave a drink to"
HOSTILE = ["<script>alert(1)</script>", "</script>", "\x1b[31mred", "x" * 10_000, "\ud800", "\x00", "javascript:alert(1)"]


@cache
def lab():
    return hl.load("lab")


@cache
def table():
    kinds = ("tokens", "heads", "mlps", "pairs", "biases")
    return hl.analysis.nodes(lab(), TEXT, answer=" Mary", wrong=" John", kinds=kinds)


@pytest.fixture
def made():
    views = []
    yield lambda view: views.append(view) or view
    for view in views:
        view.close()


def numbers(view, name):
    """A column as it travels, [row]."""
    facts = view.facts
    column = next(one for one in facts["columns"] if one["name"] == name)
    entry = facts["arrays"]["numbers"]
    every = np.frombuffer(view.blob, np.float32, int(np.prod(entry["shape"])), entry["at"]).reshape(entry["shape"])
    return every[column["at"]]


# Nodes -----------------------------------------------------------------------------------------------------------------


def test_the_view_holds_the_numbers_of_the_table_node_by_node(made):
    nodes = table().filter(kind=("tokens", "heads", "mlps"))
    view = made(hl.view.nodes(nodes))
    assert view.names == nodes.ids and len(nodes) > 300
    for name in nodes.by:
        np.testing.assert_array_equal(numbers(view, name.replace("_", " ")), nodes[name].astype(np.float32))
    kinds = view.facts["picks"][0]
    at = view.facts["arrays"]["picks"]
    picks = np.frombuffer(view.blob, np.int32, int(np.prod(at["shape"])), at["at"]).reshape(at["shape"])
    assert [kinds["labels"][i] for i in picks[0]] == nodes.to_pandas()["kind"].tolist()
    assert view.facts["texts"][1] == [hl.views.text.shown(one) for one in nodes.to_pandas()["token"]]
    assert view.facts["title"] == f"logit_diff = {nodes.value:.4g}"
    first = nodes.nlargest(3, absolute=True).ids
    assert [line[0] for line in view._lines(3)] == list(first) and all(name in view.static() for name in first)


def test_of_many_nodes_those_furthest_from_zero_are_kept_in_their_order(made):
    nodes = table()
    view = made(hl.view.nodes(nodes, by="act_grad", most=50))
    best = set(nodes.nlargest(50, "act_grad", absolute=True).ids)
    assert set(view.names) == best and view.names == tuple(name for name in nodes.ids if name in best)
    assert "the 50 furthest from zero by act grad" in view.facts["note"] and view.facts["total"] == len(nodes)
    assert len(made(hl.view.nodes(nodes)).names) == min(len(nodes), 5000)


@pytest.mark.parametrize(("kind", "line"), [
    ("heads", "zero {}"), ("mlps", "zero {}"), ("tokens", "zero {}"), ("pairs", "cut L{}H{} @{} -> @{}")])
def test_a_chosen_node_is_a_line_that_takes_it_away(kind, line, made):
    """The line runs, and what it changes is what the node was: its write becomes zero, or the edge carries nothing."""
    nodes = table().filter(kind=kind)
    view = made(hl.view.nodes(nodes))
    name = nodes.nlargest(1, absolute=True).ids[0]
    view.select(node=name)
    layer, unit, pos, key = nodes.nlargest(1, absolute=True).index[0, 1:].tolist()
    assert view.spec == (line.format(layer, unit, key, pos) if kind == "pairs" else line.format(name))
    site = f"L{layer}.pattern" if kind == "pairs" else {"heads": f"L{layer}.result", "mlps": f"L{layer}.mlp_out",
                                                         "tokens": name.split(" ")[0]}[kind]
    run = lab().run(f'prompt "{TEXT}"\n{view.spec}\nsave {site}')
    value = run[site][0]
    cut = {"pairs": lambda: value[unit, pos, key], "heads": lambda: value[pos, unit]}.get(kind, lambda: value[pos])()
    plain = lab().capture(TEXT, site)[site][0]
    before = {"pairs": lambda: plain[unit, pos, key], "heads": lambda: plain[pos, unit]}.get(kind, lambda: plain[pos])()
    assert not cut.any() and before.any()


def test_biases_have_no_line_and_a_node_brings_its_layer_head_and_position(made):
    view = made(hl.view.nodes(table()))
    view.select(node="rest")
    assert view.selection == {"node": "rest"} and view.spec == ""
    view.selection = {"node": "L2H1 @9"}
    assert view.selection == {"node": "L2H1 @9", "layer": 2, "head": 1, "pos": 9}
    view.selection = {"layer": 3, "head": 2, "pos": 4}
    assert view.selection["node"] == "L3H2 @4"
    view.selection = {"layer": 3}
    assert view.selection == {"layer": 3}
    with pytest.raises(ViewError, match="no node 'L9H9 @2'"):
        view.select(node="L9H9 @2")


def test_a_node_that_the_page_chooses_brings_the_rest_along_too(made):
    view = made(hl.view.nodes(table().filter(kind="heads")))
    for chosen in ("L2H1 @9", "L3H0 @4", "L3H0 @4"):
        view.set_state({"selection": {"node": chosen}})
        assert view.selection["node"] == chosen and view.spec == f"zero {chosen}"
        assert view.selection["pos"] == int(chosen.split("@")[1])


def test_a_choice_in_a_table_is_a_choice_in_the_attention_view_beside_it(made):
    nodes = made(hl.view.nodes(table().filter(kind="heads")))
    attention = made(hl.view.attention(lab(), TEXT))
    hl.view.link(nodes, attention)
    nodes.select(node="L3H2 @4")
    assert {"layer": 3, "head": 2, "pos": 4}.items() <= attention.selection.items()
    attention.selection = {"layer": 1, "head": 0, "pos": 5}
    assert nodes.selection["node"] == "L1H0 @5"


def test_a_node_tells_its_numbers_and_with_the_model_what_it_speaks_for(made):
    nodes = table().filter(kind="heads")
    name = nodes.nlargest(1).ids[0]
    reply, _ = made(hl.view.nodes(nodes)).answer("detail", {"key": name})
    row = nodes.ids.index(name)
    about = dict(reply["about"])
    assert float(about["direct effect"].replace("−", "-")) == pytest.approx(nodes["direct_effect"][row], rel=1e-4)
    assert about["kind"] == "heads" and reply["tables"] == []
    reply, _ = made(hl.view.nodes(nodes, model=lab(), prompt=TEXT)).answer("detail", {"key": name})
    (told,) = reply["tables"]
    layer, unit, pos = nodes.index[row, 1:4].tolist()
    with torch.no_grad():
        write = lab().capture(TEXT, f"L{layer}.z")[f"L{layer}.z"][0, pos, unit] @ lab().W.O[layer, unit]
        scores = ((write - write.mean()) * lab().W.ln_final) @ lab().W.U  # a layer norm takes the mean away
    up, down = scores.topk(8), scores.neg().topk(8)
    np.testing.assert_allclose([line[1] for line in told["rows"]], up.values, rtol=1e-4)
    np.testing.assert_allclose([line[3] for line in told["rows"]], -down.values, rtol=1e-4)
    json.dumps(wire.plain(reply))
    with pytest.raises(ViewError, match="no node 'L0H99'"):
        made(hl.view.nodes(nodes)).answer("detail", {"key": "L0H99"})


def test_a_table_of_odd_numbers_and_hostile_tokens_is_shown_and_never_acts(made):
    index = np.array([[0, 0, n, n, -1] for n in range(len(HOSTILE))])
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -1.5, 1e30, 1e-30])
    nodes = Nodes((Kind("heads", "L{layer}H{unit}"),), index, {"direct_effect": odd}, tuple(HOSTILE), HOSTILE[0], 1.0,
                  HOSTILE[1])
    view = made(hl.view.nodes(nodes))
    page = view.to_html()
    for text in (view.static(), view._repr_mimebundle_()[0]["text/html"]):
        assert "<script" not in text and "</script" not in text and "\x1b" not in text and "\x00" not in text
    assert "<script>alert" not in page and "x" * 1000 not in page
    assert [line[0] for line in view._lines(9)][-1] == "L0H0 @0"  # what is no number stands last
    assert view.to_png()[:4] == b"\x89PNG"


def test_an_empty_table_and_a_closed_one(made):
    view = made(hl.view.nodes(table().filter(layer=99)))
    assert view.names == () and any("There are no nodes" in one.get_text() for one in view.plot().axes[0].texts)
    view = made(hl.view.nodes(table().filter(kind="heads")))
    view.close()
    assert view.blob == b"" and len(view.nodes) == 0
    with pytest.raises(ViewError, match="was closed"):
        view.to_html()


@pytest.mark.parametrize(("options", "error", "says"), [
    ({"by": "direct_efect"}, RecordError, 'Did you mean "direct_effect"'), ({"most": 0}, ViewError, "at least 1"),
    ({"most": True}, ViewError, "at least 1"), ({"model": "lab"}, ViewError, "say what the pass was on")])
def test_what_makes_no_table_is_refused(options, error, says):
    with pytest.raises(error, match=says):
        hl.view.nodes(table(), **options)


def test_other_things_are_no_tables():
    with pytest.raises(ViewError, match=r"hl\.analysis\.nodes"):
        hl.view.nodes([1, 2])
    with pytest.raises(ViewError, match=r"hl\.open_store"):
        hl.view.store({"a": 1})


def test_views_of_nodes_and_stores_are_found(made, tmp_path):
    assert type(made(hl.view.of(table()))).__name__ == type(made(table().show())).__name__ == "NodeTable"
    assert type(made(hl.view.of(filled(tmp_path / "s")))).__name__ == "StoreTable"


def test_nodes_of_a_model_with_norms_behind_its_writes_tell_their_tokens(made):
    model = hl.load(build("gemma2"), verify=False)
    nodes = hl.analysis.nodes(model, [3, 5, 9, 20], answer=7, wrong=8, kinds=("heads", "neurons"))
    reply, _ = made(hl.view.nodes(nodes, model=model, prompt=[3, 5, 9, 20])).answer("detail", {"key": "L1N5 @2"})
    assert len(reply["tables"][0]["rows"]) == 8


# Stores ----------------------------------------------------------------------------------------------------------------

ROWS = [("one", [1, 2, 3], {"text": "a b", "split": "train", "length": 3, "big": 2**40, "score": 0.5}),
        ("two", [4, 5], {"text": HOSTILE[0], "split": "test", "length": 2, "big": 2**40 + 1, "score": float("nan")}),
        ("three", [6], {"split": "test", "length": None, "odd": HOSTILE[2]})]


def filled(path, rows=ROWS):
    with Writer(path, {"L0.resid_post": ("pos", "d_model"), "L0.single": ("d_model",)}, model="m") as writer:
        for name, ids, metadata in rows:
            values = torch.arange(len(ids) * 4.0).reshape(len(ids), 4)
            values[0, 0] = float("nan") if name == "two" else 7.0
            writer.add(name, {"L0.resid_post": values, "L0.single": values[0]}, ids, metadata)
    return hl.open_store(path)


def test_the_view_lists_the_examples_of_a_store_with_their_metadata(made, tmp_path):
    store = filled(tmp_path / "s")
    view = made(hl.view.store(tmp_path / "s"))
    assert view.names == store.ids == ("one", "two", "three")
    np.testing.assert_array_equal(numbers(view, "tokens"), [3, 2, 1])
    np.testing.assert_array_equal(numbers(view, "length"), [3, 2, np.nan])
    columns = {one["name"]: one for one in view.facts["columns"]}
    assert not columns["big"]["numeric"]  # single precision would lose what tells them apart
    assert view.facts["texts"][columns["big"]["at"]] == [str(2**40), str(2**40 + 1), ""]
    assert [one["labels"] for one in view.facts["picks"] if one["name"] == "split"] == [["test", "train"]]
    assert view.facts["title"].startswith("s · 3 examples · 6 tokens")
    part = made(hl.view.store(store.where(split="test")))
    assert part.names == ("two", "three") and part.select(example="three").selection == {"example": "three"}


def test_a_chosen_example_tells_what_is_stored_of_it_and_spells_its_prompt(made, tmp_path):
    view = made(hl.view.store(filled(tmp_path / "s")))
    assert view.select(example="one").spec == 'prompt "a b"' and view.select(example="three").spec == ""
    reply, _ = view.answer("detail", {"key": "two"})
    about, (told,) = dict(reply["about"]), reply["tables"]
    assert about["tokens"] == "4 5" and about["split"] == "test"
    stream = dict(zip(told["head"], next(line for line in told["rows"] if line[0] == "L0.resid_post"), strict=True))
    held = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert (stream["shape"], stream["type"], stream["not finite"]) == ("2 × 4", "float32", 1)
    assert (stream["mean"], stream["smallest"], stream["largest"]) == (np.mean(held), 1.0, 7.0)
    text = json.dumps(wire.plain(reply)) + view.static() + view.to_html()
    assert "<script>alert" not in view.static() and "\\u001b" not in text


def test_with_the_model_tokens_are_spelled(made, tmp_path):
    found = hl.extract(lab(), ["Mary and John"], "L1.resid_post", tmp_path / "acts", at="last")
    ids = lab().tokens("Mary and John").ids[0]
    for model, told in ((None, " ".join(map(str, ids))), (lab(), "|".join(lab().tokens("Mary and John").pieces[0]))):
        view = made(hl.view.store(found.store, model=model))
        assert dict(view.answer("detail", {"key": found.store.ids[0]})[0]["about"])["tokens"] == told


def test_a_store_of_more_examples_than_a_view_holds_says_so(made, tmp_path):
    view = made(hl.view.store(filled(tmp_path / "s"), most=2))
    assert view.names == ("one", "two") and view.facts["total"] == 3 and "the first 2" in view.facts["note"]
    assert "1 more examples" in view.static()


def test_a_damaged_example_is_said_and_the_others_are_shown(made, tmp_path):
    store = filled(tmp_path / "s")
    view = made(hl.view.store(store))
    for path in (tmp_path / "s").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-40])
    view.store = hl.open_store(tmp_path / "s")
    reply, _ = view.answer("detail", {"key": "one"})
    assert reply["tables"] == [] and "bytes" in reply["note"]
    assert view.names == ("one", "two", "three")


def test_a_page_without_a_kernel_can_look_into_rows(made, tmp_path):
    view = made(hl.view.store(filled(tmp_path / "s")))
    asked = [given["key"] for name, given in view.answers() if name == "detail"]
    assert sorted(asked) == ["one", "three", "two"]
    assert "not finite" in view.to_html()
