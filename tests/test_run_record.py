"""A run as a record: what it holds is found by name, shown as text and as a page, and compared with another run."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from sample_run import BASE, STREAM, sample, text, tokens
from test_scores import Page

import hooklab as hl
from hooklab.errors import HooklabError, RecordError
from hooklab.records import Activations, Expectation, MissingError, Run, Scores, Text, ViewRequest, compare


@pytest.fixture
def run():
    return sample()


# Looking up


def test_a_run_is_a_mapping_of_what_was_saved(run):
    assert isinstance(run, Mapping)
    assert list(run) == list(run.data)
    assert len(run) == 4
    assert run.runs == ("clean", "patched")
    assert [value is run.data[key] for key, value in run.items()] == [True] * 4
    assert bool(Run())


@pytest.mark.parametrize("key, full", [
    pytest.param("patched.L0.resid_post", "patched.L0.resid_post", id="in full"),
    pytest.param("heads", "patched.heads", id="by the name it was given"),
    pytest.param("logits", "patched.logits", id="by its address"),
    pytest.param("patched.L0.resid", "patched.L0.resid_post", id="by the short word for a site"),
    pytest.param("clean.blocks.0.hook_resid_post", "clean.L0.resid_post", id="by the name TransformerLens has for it"),
])
def test_a_tensor_is_found(run, key, full):
    assert run[key] is run.data[full]
    assert key in run


def test_an_address_without_a_run_is_found_when_one_run_saved_it(run):
    one = Run(data={"clean.L0.resid_post": BASE, "clean.L3.attn_out": BASE}, axes={"clean.L0.resid_post": STREAM,
                                                                                  "clean.L3.attn_out": STREAM})
    for key in ("L0.resid", "L0.resid_post", "blocks.0.hook_resid_post"):
        assert one[key] is one.data["clean.L0.resid_post"]
    assert one["L3.attn"] is one.data["clean.L3.attn_out"]


def test_a_name_that_several_runs_saved_names_both(run):
    with pytest.raises(RecordError, match=r'run\["clean.L0.resid_post"\] or run\["patched.L0.resid_post"\]') as caught:
        run["L0.resid"]
    assert not isinstance(caught.value, KeyError)
    assert "L0.resid" in run
    with pytest.raises(RecordError):
        run.get("L0.resid")


@pytest.mark.parametrize("key, hint", [
    pytest.param("L0.resid_pots", 'Did you mean "L0.resid_post"', id="a slip of the pen"),
    pytest.param("L1.resid_post", "Saved: clean.L0.resid_post, ", id="another layer"),
    pytest.param("clean.logit_diff", r'run.metrics\["clean"\]\["logit_diff"\]', id="a metric"),
    pytest.param("patched.logit_diff", r'run.scores\["patched.logit_diff"\]', id="a score"),
    pytest.param(7, "7 was not saved", id="no text"),
])
def test_what_is_not_there_is_a_key_error_with_a_hint(run, key, hint):
    with pytest.raises(MissingError, match=hint) as caught:
        run[key]
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, HooklabError)
    assert key not in run
    assert run.get(key, "other") == "other"


def test_a_run_that_saved_nothing_says_how_to():
    with pytest.raises(MissingError, match="save L5.z"):
        Run()["L5.z"]


@pytest.mark.parametrize("data, axes", [
    pytest.param({"a.x": BASE}, {}, id="without axes"),
    pytest.param({"a.x": BASE}, {"a.x": ("pos",)}, id="with too few axes"),
    pytest.param({"x": BASE}, {"x": STREAM}, id="without a run"),
])
def test_tensors_that_are_not_described_are_refused(data, axes):
    with pytest.raises(RecordError):
        Run(data=data, axes=axes)


def test_grid_text_and_tokens_are_what_one_asks_for_first(run):
    assert run.grid is run.scores["patched.logit_diff"]
    assert run.text == ["I think so", "I think\ud800 \x1b[31m"]
    assert replace(run, texts={"a": (text("!"),)}).text == "I think!"
    assert run.tokens is run.tokens_of["clean"]
    main = tokens([1])
    assert replace(run, tokens_of={**run.tokens_of, "main": main}).tokens is main


def test_the_grid_is_what_was_swept_rather_than_a_lens():
    lens, heads = Scores([[1.0]], ("layer", "pos")), Scores([[1.0]], ("layer", "head"))
    assert Run(scores={"a.lens": lens, "a.logit_diff": heads}).grid is heads
    assert Run(scores={"a.lens_logit_diff": lens, "a.prob": heads}).grid is heads
    assert Run(scores={"a.lens": lens}).grid is lens


@pytest.mark.parametrize("name, hint", [("grid", "each"), ("text", "generate 20"), ("tokens", "no tokens")])
def test_what_a_run_lacks_comes_with_a_hint(name, hint):
    with pytest.raises(RecordError, match=hint):
        getattr(Run(scores={"a.top": Scores([[1.0]], ("batch", "rank"))}), name)


def test_a_text_stops_for_a_known_reason():
    with pytest.raises(RecordError, match="length, eos, stop"):
        text("x", stopped="tired")


def test_records_do_not_load_torch():
    code = "import sys, hooklab.records, hooklab.html; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]
    assert Activations.__module__ == "hooklab.records.activations"


# Showing


def test_the_text_of_a_run(run):
    lines = repr(run).splitlines()
    assert lines[:4] == ["Run · clean, patched", "  metrics  logit_diff  prob  loss", "  clean    3.25        0.5",
                         "  patched  nan               inf"]
    saved, = (line for line in lines if line.split()[0] == "clean.L0.resid_post")
    assert saved.split("  ")[-2:] == ["batch 2 · pos 3 · d_model 4", "float32"]
    grid, = (line for line in lines if line.split()[0] == "patched.logit_diff")
    assert "layer 2 · pos 2" in grid
    assert "logits, 0.1 to 1, 2 not finite" in grid
    assert any(line.split()[:1] == ["FAILS"] and "1 < nan" in line for line in lines)
    assert "\x1b" not in repr(run)
    assert repr(Run()) == "Run · empty"


def test_a_page_without_requests_shows_everything(run):
    shown = replace(run, views=())._repr_html_()
    page = Page(shown)
    assert not page.open
    for word in ("logit_diff", "clean.L0.resid_post", "I think", "claims", "FAILS", "generate 2"):
        assert word in shown
    assert shown.encode("utf-8")


def test_a_page_shows_the_views_asked_for_in_their_order(run):
    views = (ViewRequest("tokens"), ViewRequest("top", 1, (), {"title": "Next <i>"}), ViewRequest("grid"),
             ViewRequest("text"), ViewRequest("table", 2), ViewRequest("diff"))
    shown = replace(run, views=views)._repr_html_()
    marks = ["hl-strip", "Next &lt;i&gt;", "next token: clean", "layer 1 · pos 1:  think", "written on",
             "patched.logit_diff: strongest 2", "against clean"]
    places = [shown.index(mark) for mark in marks]
    assert places == sorted(places)
    assert "&#x27; &lt;b&gt;&#x27;" not in shown  # the second of the likeliest, when one was asked for
    assert "<i>" not in shown


@pytest.mark.parametrize("view", ["attention", "heads", "resid", "lens", "tokens", "top", "grid", "diff", "graph",
                                  "features", "table", "text", "unheard of"])
def test_a_view_without_its_numbers_says_so_in_a_line(view):
    page = Page(Run(views=(ViewRequest(view),))._repr_html_())
    assert view in "".join(page.texts)
    assert len(page.named("p")) == 1
    assert not page.named("table")


def test_every_view_of_the_language_has_a_picture():
    from hooklab.records.views import VIEWS
    from hooklab.spec.verbs import VIEWS as WORDS

    assert set(VIEWS) == set(WORDS)


def attention_run(*views, layers=(0, 2), heads=2, width=3):
    pattern = torch.eye(width).expand(2, heads, width, width).to(torch.bfloat16)
    keys = [f"clean.L{layer}.pattern" for layer in layers]
    return Run(data=dict.fromkeys(keys, pattern), axes=dict.fromkeys(keys, ("batch", "head", "query_pos", "key_pos")),
               tokens_of={"clean": tokens([8], [5, 6, 7])}, views=views)


@pytest.mark.parametrize("sites, drawn", [
    pytest.param((), ["L0.pattern · head 0", "L0.pattern · head 1", "L2.pattern · head 0", "L2.pattern · head 1"], id="all"),
    pytest.param(("L2H1",), ["L2.pattern · head 1"], id="one head"),
    pytest.param(("L0", "L*H0"), ["L0.pattern · head 0", "L0.pattern · head 1", "L0.pattern · head 0",
                                  "L2.pattern · head 0"], id="a layer and a head of every layer"),
])
def test_attention_draws_the_heads_asked_for(sites, drawn):
    page = Page(attention_run(ViewRequest("attention", None, sites))._repr_html_())
    assert [t for t in page.texts if "pattern" in t] == [f"clean.{name}" for name in drawn]


def test_attention_shows_the_tokens_of_the_first_example_without_its_padding():
    page = Page(attention_run(ViewRequest("attention", None, ("L0H0",)))._repr_html_())
    cells = [attrs["title"] for attrs in page.named("td") if "title" in attrs]
    assert cells == ["query 0: #8 · key 0: #8: 1"]


@pytest.mark.parametrize("name, sites, row", [("L1H3", (), 0), ("L1H[2,3]", ("L1H3",), 1)], ids=["one head", "two heads"])
def test_attention_finds_a_head_that_was_saved_by_itself(name, sites, row):
    patterns = torch.tensor([[[[0.25]], [[0.75]]]])[:, :2 if row else 1]
    key = f"clean.{name}.pattern"
    one = Run(data={key: patterns}, axes={key: ("batch", "head", "query_pos", "key_pos")},
              views=(ViewRequest("attention", None, sites),))
    page = Page(one._repr_html_())
    assert [attrs["title"] for attrs in page.named("td") if "title" in attrs] == [f"query 0 · key 0: {[0.25, 0.75][row]}"]
    assert f"{key} · head 3" in page.texts


def test_attention_of_a_head_that_is_not_there_is_explained():
    shown = attention_run(ViewRequest("attention", None, ("L0H9",)))._repr_html_()
    assert "There is no saved head 9" in shown


def test_texts_from_models_are_escaped(run):
    evil = "<script>alert(1)</script>"
    shown = replace(run, texts={"a": (Text(evil, evil, evil),)}, spec=evil, views=(), provenance={}, expectations=(
        Expectation(evil, 1, 2, True),), metrics={evil: {evil: 1.0}})._repr_html_()
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") >= 5


# Comparing


def test_a_run_is_the_same_as_itself_and_as_its_copy(run, tmp_path):
    found = compare(run, Run.load(run.save(tmp_path / "run")))
    assert found.same
    assert found.largest == 0
    assert found.different == ()
    assert "the same in all" in repr(found)
    assert "the same in all" in found._repr_html_()


@pytest.mark.parametrize("change, what, difference", [
    pytest.param({"metrics": {"clean": {"logit_diff": 3.0, "prob": 0.5},
                              "patched": {"logit_diff": math.nan, "loss": math.inf}}},
                 "metric clean.logit_diff", 0.25, id="a metric"),
    pytest.param({"data": {"clean.L0.resid_post": BASE + 2, "patched.L0.resid_post": BASE * 2, "patched.heads": BASE[:, 0],
                           "patched.logits": BASE.to(torch.bfloat16)}}, "clean.L0.resid_post", 2.0, id="an activation"),
    pytest.param({"data": {"clean.L0.resid_post": BASE, "patched.L0.resid_post": BASE * 2, "patched.heads": BASE[:, 0],
                           "patched.logits": BASE}}, "patched.logits", 0.0, id="a dtype"),
    pytest.param({"examples": {"clean": {"logit_diff": np.array([3.0, 4.0])}}}, "examples of clean.logit_diff", 0.5,
                 id="an example"),
    pytest.param({"texts": {"patched": (text(" no"), text("\ud800 \x1b[31m", sample=1, example=1))}}, "text patched[0]",
                 math.inf, id="a text"),
    pytest.param({"texts": {}}, "text patched[0]", math.inf, id="a text that is missing"),
    pytest.param({"spec": "other"}, "spec", math.inf, id="the spec"),
    pytest.param({"tokens_of": {"clean": tokens([5, 6, 9], [8]), "patched": tokens([5, 6])}}, "tokens of clean", math.inf,
                 id="a token"),
])
def test_a_difference_is_named_with_its_size(run, change, what, difference):
    found = compare(run, replace(run, **change))
    assert not found.same
    assert found.different[0].what == what
    assert found.different[0].difference == difference
    assert found.largest == difference
    assert what in repr(found)
    assert not Page(found._repr_html_()).open


def test_scores_are_compared_by_cell_with_nan_and_infinity_at_rest(run):
    grid = run.scores["patched.logit_diff"]
    nearly = replace(run, scores={**run.scores, "patched.logit_diff": replace(grid, values=np.array(
        [[1.0, np.nan], [-np.inf, 0.1 + 1e-9]]))})
    assert compare(run, nearly).largest == pytest.approx(1e-9, rel=1e-3)
    moved = replace(run, scores={**run.scores, "patched.logit_diff": replace(grid, coords={"layer": (1, 2)})})
    assert compare(run, moved).largest == math.inf
    broken = replace(run, scores={**run.scores, "patched.logit_diff": replace(grid, values=np.zeros((2, 2)))})
    assert compare(run, broken).largest == math.inf


def test_what_only_one_run_has_counts_as_different(run):
    less = replace(run, scores={}, metrics={"clean": {"prob": 0.5}})
    for found, missing in ((compare(run, less), "new"), (compare(less, run), "old")):
        rows = {row.what: row for row in found.different}
        assert set(rows) == {"scores clean.top", "scores patched.logit_diff", "metric clean.logit_diff",
                             "metric patched.logit_diff", "metric patched.loss"}
        assert {getattr(row, missing) for row in rows.values()} == {""}
        assert found.largest == math.inf
        assert "missing" in repr(found)


def test_renamed_axes_count_as_different(run):
    found = compare(run, replace(run, axes={**run.axes, "patched.heads": ("batch", "head")}))
    assert [row.what for row in found.different] == ["axes of patched.heads"]


def test_where_a_run_comes_from_is_left_aside(run):
    assert compare(run, replace(run, provenance={"time": 2.0})).same


def test_equality_looks_at_every_field(run):
    twin = Run(**{f.name: getattr(run, f.name) for f in fields(run)})
    assert twin == run
    for name in ("spec", "metrics", "scores", "texts", "views", "expectations", "provenance", "given", "examples",
                 "tokens_of"):
        assert replace(run, **{name: type(getattr(run, name))()}) != run
    assert run != "text"


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))],
                         ids=["copied", "copied to the bottom", "sent to another process"])
def test_a_run_can_be_sent_and_copied_without_its_model(way):
    with hl.load("lab") as model:
        run = model.run('prompt "When John and Mary went"\nmetric entropy\nsave L1.z\nzero L0H1')
        other = way(run)
        assert other == run
        assert other.metrics == run.metrics
        assert other.replay(model).same
        with pytest.raises(RecordError, match="is not open any more"):
            other.replay()
