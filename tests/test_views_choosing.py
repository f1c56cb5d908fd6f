"""Which view fits: by axes, by the `show` lines of a run, in a cell; and boards, which hold several."""

from __future__ import annotations

import gc
import json
import re
import sys
import types
import warnings
import weakref
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
import torch
from sample_run import sample

import hooklab as hl
from hooklab.errors import HooklabWarning, RecordError, ViewError
from hooklab.magics.show import enliven
from hooklab.records import Activations, Run, Scores, ViewRequest
from hooklab.views import registry
from hooklab.views.base import View
from hooklab.views.boards import Board
from hooklab.views.requests import MOST_VIEWS

PROMPT = "When Mary and John went to the store, John gave a drink to"
SPEC = f'''prompt clean = "{PROMPT}"
answer " Mary" vs " John"
metric logit_diff
lens L*.resid_post @each
save L2.resid_post, L3.mlp_post
run zeroed on clean:
    zero each L*H*
show heads 3 title="Heads"
show attention L1H2
show lens
show tokens
show top 5
show graph
show text
expect clean.logit_diff > 0
'''


@pytest.fixture(scope="module")
def run():
    return hl.load("lab").run(SPEC)


@pytest.fixture(autouse=True)
def nothing_is_left_open():
    yield
    registry.close_all()
    registry.prefer_static(False)


def named(view):
    return type(view).__name__


def scores(*axes, size=2, **more):
    shape = tuple(range(size, size + len(axes)))
    return Scores(np.arange(float(np.prod(shape))).reshape(shape), axes, name="effect", **more)


# By axes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axes", "kind"), [
    (("layer", "head"), "Heads"), (("c", "layer", "head"), "Heads"), (("layer", "neuron"), "Neurons"),
    (("head", "layer"), "Heads"), (("layer", "pos"), "Grid"), (("site", "pos"), "Grid"), (("feature", "pos"), "Grid"),
    (("layer",), "Bars"), (("head",), "Bars"), (("feature",), "Bars"), (("rank",), "Bars"), (("pos",), "Bars"),
    (("a", "b", "c"), "Grid"), (("layer_2", "head"), "Grid")])
def test_the_axes_of_scores_choose_the_view(axes, kind):
    view = hl.view.of(scores(*axes))
    assert named(view) == kind
    assert set(view._axes) == set(axes)


def test_square_patterns_are_attention():
    view = hl.view.of(Scores(np.tri(3)[None, None] / 3, ("layer", "head", "query_pos", "key_pos")), mode="pattern")
    assert named(view) == "Attention"


KEYS = ("0: When", "1:  Mary", "2:  and")


def held(view):
    """The numbers that a view holds, read from what it sends."""
    entry = view.facts["arrays"]["values"]
    return np.frombuffer(view.blob, "<f4", np.prod(entry["shape"]), entry["at"]).reshape(entry["shape"])


@pytest.mark.parametrize(("axes", "shape", "kind", "known"), [
    (("query_pos", "key_pos"), (1, 3), "Strip", ["pos"]),
    (("query_pos", "key_pos"), (2, 3), "Grid", ["query_pos", "key_pos"]),
    (("layer", "query_pos", "key_pos"), (2, 1, 3), "Grid", ["layer", "key_pos"]),
    (("layer", "head", "query_pos", "key_pos"), (2, 2, 1, 3), "Heads", ["layer", "head", "key_pos"]),
    (("key_pos", "c", "query_pos"), (3, 2, 2), "Grid", ["key_pos", "c", "query_pos"]),
    (("c", "query_pos", "key_pos"), (2, 3, 3), "Grid", ["c", "query_pos", "key_pos"])])
def test_what_is_no_whole_pattern_is_no_attention(axes, shape, kind, known):
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)
    coords = {"key_pos": KEYS, "query_pos": KEYS[-shape[axes.index("query_pos")]:]}
    view = hl.view.of(Scores(values, axes, coords, name="flow"))
    assert named(view) == kind and list(view._axes) == known
    assert sorted(held(view).reshape(-1)) == sorted(values.reshape(-1))
    assert ("query_pos 2:  and" in view._title) == (1 in shape)


def test_one_query_without_tokens_is_bars_and_its_control_goes_along():
    one = Scores([[0.5, 2.0]], ("query_pos", "key_pos"), control=Scores([[0.0, 1.0]], ("query_pos", "key_pos")))
    view = hl.view.of(one)
    assert named(view) == "Bars" and list(view._axes) == ["pos"] and held(view).tolist() == [0.5, 2.0]
    assert named(hl.view.of(Scores([[1.0]], ("query_pos", "key_pos")))) == "Attention"


def test_queries_other_than_the_keys_are_no_attention_even_when_there_are_as_many():
    assert named(hl.view.of(Scores(np.eye(2), ("query_pos", "key_pos"), {"query_pos": (4, 5)}))) == "Grid"


def test_flow_to_the_last_token_is_drawn_on_the_text():
    model = hl.load("lab")
    flow = hl.analysis.attention_flow(model, PROMPT)
    view = flow.show()
    assert named(view) == "Strip" and np.allclose(held(view), flow.values)
    assert view.select(pos=2).selection == {"pos": 2} and view.plot().axes
    assert named(hl.analysis.attention_flow(model, PROMPT, "each").show()) == "Attention"


def test_patterns_of_some_queries_are_maps():
    model = hl.load("lab")
    run = model.run(f'prompt "{PROMPT}"\nsave L1.pattern @last')
    view = hl.view.of(run, "L1.pattern")
    assert named(view) == "Grid" and np.allclose(held(view), run["L1.pattern"][0, :, 0].numpy())
    captured = model.capture(PROMPT, "L1.pattern", at="last")
    assert np.allclose(held(hl.view.of(captured)), captured["L1.pattern"][0].numpy())
    assert named(hl.view.of(model.capture(PROMPT, "L1.resid_post", at="last"))) == "Bars"


def test_numbers_on_tokens_are_drawn_on_the_text():
    view = hl.view.of(Scores([0.5, -1.0], ("pos",), {"pos": ("0: When", "1:  Mary")}))
    assert named(view) == "Strip"
    assert "·Mary" in json.dumps(view.facts, ensure_ascii=False)


def test_edges_are_a_graph():
    edges = Scores(np.array([[0.5, 2.0], [np.nan, 1.0]]), ("sender", "receiver"),
                   {"sender": ("embed", "L0H1"), "receiver": ("L0H1", "logits")})
    assert named(hl.view.of(edges)) == "Graph"


def test_one_number_is_a_board_without_views():
    board = hl.view.of(Scores(2.5, (), name="loss"))
    assert isinstance(board, Board) and len(board) == 0 and "2.5" in board.static()


def test_options_go_to_the_view_and_wrong_ones_are_errors():
    view = hl.view.of(scores("layer", "head"), title="copying", strongest=1)
    assert view._title == "copying"
    assert hl.view.of(scores("layer"), order="strongest").options["order"] == "strongest"
    with pytest.raises(TypeError, match="sterngest"):
        hl.view.of(scores("layer", "head"), sterngest=1)


def test_scores_show_themselves():
    assert named(scores("layer", "head").show()) == "Heads"
    with pytest.raises(ViewError, match="empty"):
        Scores(np.zeros((0, 2)), ("layer", "head")).show()


def test_a_view_or_a_board_is_its_own_view():
    view = hl.view.of(scores("layer"))
    assert hl.view.of(view) is view
    board = Board([view])
    assert hl.view.of(board) is board


def test_an_array_needs_the_words_for_its_axes():
    array = torch.arange(6.0).reshape(2, 3)
    assert named(hl.view.of(array, axes="layer head")) == "Heads"
    view = hl.view.of(array, axes=("pos", "neuron"), tokens=["When", " Mary"])
    assert view._axes["pos"].labels == ("When", "·Mary")
    with pytest.raises(ViewError, match="its axes"):
        hl.view.of(array)
    with pytest.raises(ViewError, match=r"shape \(2, 3\) and 1 axis words"):
        hl.view.of(array, axes="layer")


def test_what_has_no_view_says_what_to_give():
    for odd in (None, 5, object(), {"a": 1}, "text"):
        with pytest.raises(ViewError, match="no view is known"):
            hl.view.of(odd)
    with pytest.raises(ViewError, match="on a prompt"):
        hl.view.of(hl.load("lab"))
    with pytest.raises(ViewError, match="a name chooses an entry"):
        hl.view.of(scores("layer"), "x")


# Entries of runs and activations -------------------------------------------------------------------------------------


def test_an_entry_of_a_run_is_drawn_by_what_it_is(run):
    assert named(hl.view.of(run, "zeroed.logit_diff")) == "Heads"
    assert named(hl.view.of(run, "clean.L1.pattern")) == "Attention"
    stream = hl.view.of(run, "clean.L2.resid_post")
    assert stream._axes["pos"].labels[1] == "When" and len(stream._axes["pos"]) == 15
    assert named(hl.view.of(run, "lens")) == "LensView"
    with pytest.raises(ViewError, match=r"several runs have x: write a\.x or b\.x"):
        hl.view.of(Run(scores={"a.x": scores("layer"), "b.x": scores("layer")}), "x")
    with pytest.raises(RecordError, match="was not saved"):
        hl.view.of(run, "clean.L9.z")
    with pytest.raises(ViewError, match="arrays"):
        hl.view.of(run, "clean.L2.resid_post", axes="pos d_model")


def test_the_numbers_of_an_entry_are_those_that_were_saved(run):
    view = hl.view.of(run, "clean.L2.resid_post")
    entry = view.facts["arrays"]["values"]
    found = np.frombuffer(view.blob, "<f4", np.prod(entry["shape"]), entry["at"]).reshape(entry["shape"])
    np.testing.assert_array_equal(found, run["clean.L2.resid_post"][0].numpy())


def test_activations_are_drawn_by_their_site():
    model = hl.load("lab")
    patterns = model.capture("When Mary and John went", "L*.pattern")
    assert named(hl.view.of(patterns)) == "Attention"
    both = model.capture("When Mary and John went", ["L1.pattern", "L2.resid_post"])
    assert named(hl.view.of(both, "L1.pattern")) == "Attention"
    assert named(hl.view.of(both, "L2.resid_post")) == "Grid"
    with pytest.raises(ViewError, match="which of them"):
        hl.view.of(both)
    assert isinstance(both, Activations)


# By the lines of a run -----------------------------------------------------------------------------------------------


def test_the_show_lines_of_a_run_are_drawn_in_order(run):
    board = run.show()
    assert isinstance(board, Board)
    assert list(board)[:3] == ["zeroed.logit_diff", "attention", "clean.lens"]
    assert [named(view) for view in board.views.values()][:2] == ["Heads", "Attention"]
    assert "tokens" in board.views
    assert board["zeroed.logit_diff"]._title == "Heads"
    html = board.static()
    order = [html.index(text) for text in ("metrics", "next token: clean", "show graph", "clean.logit_diff &gt; 0")]
    assert order == sorted(order)
    assert "nothing was generated" in html
    assert repr(board) == repr(run)


def test_a_line_that_cannot_be_drawn_says_what_is_lacking_as_the_static_form_does():
    empty = Run(views=tuple(ViewRequest(word) for word in ("attention", "heads", "resid", "lens", "top", "grid", "diff",
                                                           "features", "table", "text")))
    board = empty.show()
    assert len(board) == 0
    for line in ("show heads: no score has a head axis", "show lens: add a line such as", "show grid: nothing was swept",
                 "show text: nothing was generated", "show attention:"):
        assert line in board.static()
    assert Run(views=(ViewRequest("hologram"),)).show().static().count("no picture for") == 1


def test_a_run_without_lines_shows_what_it_has(run):
    from dataclasses import replace

    board = replace(run, views=()).show()
    assert {"zeroed.logit_diff", "clean.lens"} <= set(board)
    assert "next token" in board.static() and "L2.resid_post" in board.static()


def test_a_run_with_odd_things_in_it_is_shown():
    board = sample().show()
    assert "patched.logit_diff" in board.views
    assert "<b>" not in re.sub(r"<[^>]*>", "", board.static())
    board.to_html().encode("utf-8")


def test_many_scores_are_not_all_drawn_live_and_the_board_says_so():
    run = Run(scores={f"main.s{i}": scores("layer") for i in range(MOST_VIEWS + 3)})
    board = run.show()
    assert len(board) == MOST_VIEWS
    assert f"3 more scores: main.s{MOST_VIEWS}" in board.static()


def test_an_empty_run_is_an_error():
    with pytest.raises(ViewError, match="at least one view"):
        Run().show()


def test_views_of_one_run_choose_together(run):
    board = run.show()
    again = hl.view.of(run, "zeroed.logit_diff")
    board["zeroed.logit_diff"].select(layer=1, head=2)
    assert again.selection == {"layer": 1, "head": 2}


# Boards --------------------------------------------------------------------------------------------------------------


def test_a_board_finds_its_views_by_name_and_number():
    a, b, c = hl.view.of(scores("layer", "head")), hl.view.of(scores("layer", "head")), hl.view.of(scores("layer"))
    board = Board([a, b, ("bars", c)])
    assert list(board) == ["effect", "effect 2", "bars"]
    assert board["effect"] is a and board[1] is b and board[-1] is c
    for wrong in ("efect", 3, -4, None):
        with pytest.raises(ViewError, match="no view"):
            board[wrong]
    with pytest.raises(ViewError, match="effect"):
        board["efect"]


def test_a_board_chooses_in_every_view_that_has_the_entry():
    board = Board([hl.view.of(scores("layer", "head")), hl.view.of(scores("layer", size=5))])
    board.select(layer=1, head=2)
    assert [view.selection for view in board.views.values()] == [{"layer": 1, "head": 2}, {"layer": 1}]
    board.select(layer=4)
    assert board[1].selection == {"layer": 4}
    with pytest.raises(ViewError, match="no view of this board has layer 9"):
        board.select(layer=9)


def test_a_board_takes_views_only():
    for wrong in ([], [None], [("name", 5)]):
        with pytest.raises(ViewError):
            Board(wrong)


def test_a_board_is_shown_as_a_box_as_html_and_as_text():
    board = Board([hl.view.of(scores("layer", "head")), "<p>note</p>"], text="line one")
    bundle, _ = board._repr_mimebundle_()
    assert bundle["text/plain"] == "line one"
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == board.model_id
    assert "<p>note</p>" in bundle["text/html"] and "<script" not in bundle["text/html"]
    assert isinstance(ipywidgets.HBox([board]), ipywidgets.Widget)


def test_the_plain_form_of_a_board_leaves_out_what_is_too_large():
    board = Board([("small", "<p>small</p>"), ("large", "<p>" + "x" * 200_000 + "</p>"), ("last", "<p>last</p>")])
    text = board._repr_mimebundle_()[0]["text/html"]
    assert len(text) < 20_000
    assert "<p>small</p>" in text and "<p>last</p>" in text and "large is too large" in text


def test_a_board_is_one_page_with_everything_linked(tmp_path):
    board = Board([hl.view.of(scores("layer", "head")), "<p>between</p>", hl.view.of(scores("layer"))])
    html = board.to_html(tmp_path / "board.html")
    assert (tmp_path / "board.html").read_text(encoding="utf-8") == html
    places = [html.index('data-place="0"'), html.index("<p>between</p>"), html.index('data-place="1"')]
    assert places == sorted(places)
    (state,) = re.findall(r'id="hooklab-state">(.*?)</script>', html)
    assert [view["group"] for view in json.loads(state)["views"]] == [0, 0]
    with pytest.raises(RecordError, match="exists"):
        board.to_html(tmp_path / "board.html")


def test_closing_a_board_closes_its_views_and_leaves_no_widget_behind():
    instances = sys.modules["ipywidgets.widgets.widget"]._instances
    before = set(instances)
    board = Board([hl.view.of(scores("layer", "head")), "<p>x</p>"])
    views = list(board.views.values())
    board.close()
    board.close()
    assert all(view._closed for view in views) and board.closed
    assert set(instances) == before
    assert "closed" in board._repr_mimebundle_()[0]["text/plain"]
    with pytest.raises(ViewError, match="closed"):
        board.to_html()
    seen = weakref.ref(board)
    del board
    gc.collect()
    assert seen() is None


def test_static_is_what_is_shown_when_it_is_preferred():
    view = hl.view.of(scores("layer"))
    board = Board([view])
    hl.view.prefer_static(True)
    for one in (view, board):
        assert one._repr_mimebundle_()[0].keys() == {"text/plain", "text/html"}
    hl.view.prefer_static(False)
    assert len(board._repr_mimebundle_()[0]) == len(view._repr_mimebundle_()[0]) == 3


# In a notebook -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cell(monkeypatch):
    """Say which cell runs: `cell("one", 1)`."""
    shell = types.SimpleNamespace(execution_count=1, get_parent=lambda: shell.parent, parent={})

    def runs(name, number):
        shell.parent = {"header": {"msg_id": f"{name}-{number}"}, "metadata": {"cellId": name}}

    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    return runs


def test_a_cell_that_asks_for_views_shows_them_live_and_static_at_once(run, cell):
    from dataclasses import replace

    cell("one", 1)
    shown = replace(run)
    assert shown._repr_mimebundle_() is None
    enliven(shown)
    bundle, _ = shown._repr_mimebundle_(include=None, exclude=None)
    assert set(bundle) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert bundle["text/plain"] == repr(run)
    cell("one", 2)
    again = replace(run)
    enliven(again)
    assert shown._repr_mimebundle_() is None, "the views of the cell's former run are closed"
    assert again._repr_mimebundle_() is not None


def test_a_run_without_lines_or_with_static_preferred_is_shown_as_before(run):
    from dataclasses import replace

    plain = replace(run, views=())
    enliven(plain)
    assert plain._repr_mimebundle_() is None
    enliven("no run")
    hl.view.prefer_static()
    still = replace(run)
    enliven(still)
    assert still._repr_mimebundle_() is None


def test_views_that_cannot_be_made_do_not_take_the_results_away(run, monkeypatch):
    from dataclasses import replace

    def broken(*given, **options):
        raise RuntimeError("broken")

    monkeypatch.setattr("hooklab.views.of", broken, raising=False)
    one = replace(run)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        enliven(one)
    assert [str(w.message) for w in caught if issubclass(w.category, HooklabWarning)] == [
        "the live views could not be made, so the run is shown without them: RuntimeError: broken"]
    assert one._repr_mimebundle_() is None and "<table" in one._repr_html_()


def test_a_live_run_is_still_equal_to_itself_and_can_be_saved(run, tmp_path):
    from dataclasses import replace

    live = replace(run)
    enliven(live)
    assert live == run
    assert Run.load(live.save(tmp_path / "run")) == run


CELL = f'prompt "{PROMPT}"\nanswer " Mary" vs " John"\nmetric logit_diff\nzero each L*H*\nshow heads 3'
WIDGET = "application/vnd.jupyter.widget-view+json"


def test_a_hook_cell_is_live_in_a_notebook_and_text_in_a_terminal(shell, capsys):
    in_terminal = shell.run_cell(f"%%hook lab\n{CELL}").result
    assert isinstance(in_terminal, Run) and in_terminal._repr_mimebundle_() is None
    assert "hooked.logit_diff" in capsys.readouterr().out
    shell.kernel = object()
    in_notebook = shell.run_cell(f"%%hook lab -o kept\n{CELL}").result
    data, _ = shell.display_formatter.format(in_notebook)
    assert set(data) == {"text/plain", "text/html", WIDGET}
    assert shell.user_ns["kept"] is in_notebook


def test_a_quiet_cell_and_one_without_show_lines_make_no_views(shell, capsys):
    shell.kernel = object()
    assert shell.run_cell(f"%%hook lab -q -o kept\n{CELL}").result is None
    assert registry.close_all() == 0 and shell.user_ns["kept"]._repr_mimebundle_() is None
    shown = shell.run_cell("%%hook lab\n" + CELL.replace("\nshow heads 3", "")).result
    data, _ = shell.display_formatter.format(shown)
    assert set(data) == {"text/plain", "text/html"}
    assert registry.close_all() == 0


def test_a_hook_cell_is_plain_where_that_is_preferred(shell, capsys):
    shell.kernel = object()
    hl.view.prefer_static()
    data, _ = shell.display_formatter.format(shell.run_cell(f"%%hook lab\n{CELL}").result)
    assert set(data) == {"text/plain", "text/html"}


def test_every_view_is_a_view():
    assert issubclass(type(hl.view.of(scores("layer"))), View)


# The page about views ------------------------------------------------------------------------------------------------


def test_every_line_of_code_on_the_page_about_views_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the page keeps a picture
    names: dict = {}
    page = (Path(__file__).parent.parent / "docs/views.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for block in blocks:
        exec(compile(block, "docs/views.md", "exec"), names)
    assert len(blocks) > 15 and isinstance(names["board"], Board)
    assert names["sweep"].spec.splitlines()[-1].startswith("zero L1H2")


def test_the_page_about_views_names_every_one_of_them():
    page = (Path(__file__).parent.parent / "docs/views.md").read_text("utf-8")
    assert not [name for name in hl.view.__all__ if name != "View" and f"{name}" not in page]
