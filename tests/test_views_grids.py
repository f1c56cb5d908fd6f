"""Grids, sweeps and bars: what they send is what they were given, a cell says its own spec, and a cell can be run."""

from __future__ import annotations

import gc
import json
import threading
from html.parser import HTMLParser

import numpy as np
import pytest

import hooklab as hl
from hooklab.errors import ViewError
from hooklab.records import Scores
from hooklab.views import cells
from hooklab.views.bar_charts import Bars, bars
from hooklab.views.grids import Grid, grid, sweep
from hooklab.views.heat import shrunk

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = "When Mary and John went to the store, Mary gave a drink to"
PATCHING = f"""prompt clean = "{CLEAN}"
prompt corrupt = "{CORRUPT}"
answer " Mary" vs " John"
metric logit_diff
metric prob
run patched on corrupt:
    patch each L[1:3].resid_post @each from clean
"""
HOSTILE = "<img src=x onerror=alert(1)></script>\u202e"
KINDS = {"u8": "<u1", "i32": "<i4", "f32": "<f4"}


@pytest.fixture(scope="module")
def lab():
    with hl.load("lab") as model:
        yield model


@pytest.fixture(scope="module")
def run(lab):
    return lab.run(PATCHING)


@pytest.fixture
def effects():
    values = np.arange(24, dtype=np.float64).reshape(2, 3, 4) - 7.5
    return Scores(values, ("rank", "layer", "head"), {"layer": (4, 5, 9)}, "logits", "effect")


def sent(view, name):
    """An array of a view, read from its bytes by hand."""
    entry = view.facts["arrays"][name]
    count = int(np.prod(entry["shape"]))
    return np.frombuffer(view.blob, KINDS[entry["kind"]], count, entry["at"]).reshape(entry["shape"])


class Elements(HTMLParser):
    """The names of the elements of a page, and of attributes that act."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.acting = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.acting += [name for name, _ in attrs if name.startswith("on")]


# What is sent ----------------------------------------------------------------------------------------------------------


def test_the_numbers_of_a_grid_are_those_of_the_scores_whatever_the_order_of_axes(effects):
    assert np.array_equal(sent(grid(effects), "values"), effects.values.astype("f4"))
    turned = grid(effects, rows="head", columns="rank")
    assert turned.facts["others"] == ["layer"]
    assert np.array_equal(sent(turned, "values"), effects.values.transpose(1, 2, 0).astype("f4"))


def test_bounds_p_values_controls_and_texts_travel_with_the_numbers():
    values = np.array([[1.0, -2.0], [0.5, 3.0]])
    given = Scores(values, ("layer", "pos"), labels=np.array([["a", "b"], ["a", HOSTILE]]), low=values - 1, high=values + 2,
                   p=np.full((2, 2), 0.25), control=Scores(values / 10, ("layer", "pos")))
    view = grid(given)
    assert np.array_equal(sent(view, "low"), values - 1)
    assert np.array_equal(sent(view, "high"), values + 2)
    assert np.array_equal(sent(view, "p"), np.full((2, 2), 0.25))
    assert np.allclose(sent(view, "control"), values / 10)
    texts = [view.facts["texts"][i] for i in sent(view, "label").reshape(-1)]
    assert texts[:3] == ["a", "b", "a"]
    assert "\\u202e" in texts[3]


def test_what_is_too_much_to_send_is_told_cell_by_cell(monkeypatch):
    monkeypatch.setattr("hooklab.views.grids.MOST_MORE", 10)
    values = np.array([[1.0, -2.0], [0.5, 3.0]])
    view = grid(Scores(values, ("layer", "pos"), low=values - 1, high=values + 2, labels=np.array([["a", "b"], ["c", "d"]])))
    assert view.facts["asked"] and "low" not in view.facts["arrays"]
    assert view.answer("cell", {"layer": 1, "pos": 0})[0] == {"low": -0.5, "high": 2.5, "label": "c"}


def test_a_sweep_has_zero_in_the_middle_and_equal_ends(run):
    scale = sweep(run).facts["scale"]
    assert (scale["kind"], scale["low"]) == ("diverging", -scale["high"])
    assert scale["high"] == pytest.approx(np.abs(run.grid.values).max())
    positive = Scores(np.array([[1.0, 2.0]]), ("layer", "head"))
    assert grid(positive).facts["scale"]["kind"] == "linear"
    assert grid(positive, signed=True).facts["scale"] == {"kind": "diverging", "low": -2.0, "high": 2.0}


def test_a_limit_is_the_end_of_the_colours(effects):
    view = grid(effects, limit=3)
    assert (view.scale.low, view.scale.high) == (-3.0, 3.0)
    assert view.options["limit"] == 3.0
    view.options = {"limit": 5}
    assert view.scale.high == 5
    assert view.facts["most"] == 15.5


def test_probabilities_are_drawn_as_such():
    assert grid(Scores(np.eye(2), ("layer", "pos"), unit="probability")).facts["scale"]["kind"] == "probability"


def test_odd_numbers_travel_as_they_are():
    values = np.array([[np.nan, np.inf], [-np.inf, 1.0]])
    view = grid(Scores(values, ("layer", "head")))
    assert np.array_equal(sent(view, "values"), values.astype("f4"), equal_nan=True)
    assert view.facts["scale"]["high"] == 1.0


def test_a_million_cells_are_drawn_and_more_are_refused():
    large = grid(Scores(np.zeros((1000, 1000), "f4"), ("query_pos", "key_pos")))
    assert sent(large, "values").size == 1_000_000
    with pytest.raises(ViewError, match=r"1,001,000 cells.*scores\.sel\(query_pos="):
        grid(Scores(np.zeros((1001, 1000), "f4"), ("query_pos", "key_pos")))


# What it refuses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "says"), [
    (lambda: grid(Scores(np.zeros(3), ("layer",))), r"two axes.*layer.*hl\.view\.bars"),
    (lambda: grid(Scores(np.zeros((0, 3)), ("layer", "head"))), "the scores are empty"),
    (lambda: grid(Scores(np.zeros((2, 3)), ("layer", "head")), rows="pos"), "no axis 'pos'"),
    (lambda: grid(Scores(np.zeros((2, 3)), ("layer", "head")), rows="head", columns="head"), "both head"),
    (lambda: grid(Scores(np.zeros((2, 3)), ("layer", "head")), limit=-1), "cannot be -1"),
    (lambda: grid(Scores(np.zeros((2, 3)), ("layer", "head")), limit=float("nan")), "cannot be nan"),
    (lambda: grid(np.zeros((2, 3))), r"draws Scores, not ndarray"),
    (lambda: grid(Scores(np.full((2, 2), 1e300), ("layer", "head"))), "1e\\+300 is more than a view can draw"),
    (lambda: sweep(np.zeros((2, 3))), "a Run or Scores, not ndarray"),
    (lambda: sweep(Scores(np.zeros((2, 3)), ("layer", "head")), score="prob"), "score= chooses among the scores of a Run"),
    (lambda: bars(Scores(np.zeros((2, 3)), ("layer", "head"))), r"one axis.*hl\.view\.grid"),
    (lambda: bars(Scores(np.zeros(0), ("layer",))), "the scores are empty"),
    (lambda: bars(Scores(np.zeros(3), ("layer",)), most=0), "at least 1, not 0"),
    (lambda: bars(Scores(np.zeros(100_001), ("neuron",))), r"100,001 bars.*scores\.sel\(neuron="),
    (lambda: bars([1.0]), "bars draw Scores, not list"),
])
def test_what_cannot_be_drawn_says_why_and_what_to_do(make, says):
    with pytest.raises(ViewError, match=says):
        make()


def test_scores_that_a_run_lacks_are_named(run):
    with pytest.raises(ViewError, match=r"no scores 'probs'.*patched\.prob"):
        sweep(run, score="probs")


# Choosing --------------------------------------------------------------------------------------------------------------


def test_a_chosen_cell_spells_a_spec_that_gives_its_number(lab, run):
    view = sweep(run)
    view.select(layer=2, pos=10)
    again = lab.run(view.spec)
    assert again.metrics["patched"]["logit_diff"] == pytest.approx(float(run.grid.sel(layer=2, pos=10).values), abs=1e-4)
    assert "L2.resid_post @10" in view.spec and "L1" not in view.spec


def test_a_cell_of_a_normalised_sweep_spells_its_spec_too(lab):
    scores = hl.sweep(lab, CLEAN, CORRUPT, "L*.attn_out", "each", answer=" Mary", wrong=" John")
    view = sweep(scores, lab).select(layer=1, pos=14)
    assert view.spec.splitlines()[-1].strip() == "patch L1.attn_out @14 from clean"
    measured = view.run()
    name, now, swept = measured["metrics"][0]
    zero, one = scores.ends
    by_hand = zero + (one - zero) * float(scores.sel(layer=1, pos=14).values)
    assert (name, swept) == ("logit_diff", pytest.approx(by_hand))
    assert now == pytest.approx(by_hand, abs=1e-4)


def test_labels_are_keys_and_not_places(effects):
    view = grid(effects, spell=lambda cell: f"{cell}")
    assert view.select(layer=9, head=1).selection == {"layer": 9, "head": 1}
    assert view.spec == str({"rank": 0, "layer": 9, "head": 1})  # an axis above the map is at its start until it is chosen
    with pytest.raises(ViewError, match="no layer 0"):
        view.select(layer=0)


def test_on_pick_is_called_with_the_labels_of_a_cell_and_not_before_one_is_chosen(effects):
    picked = []
    view = grid(effects, on_pick=picked.append)
    view.select(layer=5)
    assert picked == []
    view.select(head=3)
    assert picked == [{"rank": 0, "layer": 5, "head": 3}]
    view.selection = {}
    assert len(picked) == 1


def test_a_sweep_over_one_axis_is_bars_that_spell_and_run(lab):
    one = lab.run(f'prompt "{CLEAN}"\nanswer " Mary" vs " John"\nmetric logit_diff\nzero each L*.attn_out @last')
    view = sweep(one)
    assert isinstance(view, Bars)
    view.select(layer=2)
    assert view.spec.splitlines()[-1] == "zero L2.attn_out @last"
    assert view.run()["metrics"][0][1] == pytest.approx(float(one.grid.sel(layer=2).values), abs=1e-4)


def test_the_prompts_of_a_run_stand_above_its_positions(run):
    above = sweep(run).facts["above"]
    assert [row["name"] for row in above] == ["clean", "corrupt"]
    assert above[0]["labels"][10:12] == ["·John", "·gave"]
    assert above[1]["labels"][10:12] == ["·Mary", "·gave"]
    assert [i for i, odd in enumerate(above[1]["odd"]) if odd] == [10]
    assert [i for i, odd in enumerate(above[0]["odd"]) if odd] == [10]


# Running a cell --------------------------------------------------------------------------------------------------------


def test_running_a_cell_gives_its_metrics_and_the_likeliest_tokens(lab, run):
    answer, buffers = sweep(run).answer("run", {"layer": 1, "pos": 10})
    assert buffers == []
    found = {name: now for name, now, _ in answer["metrics"]}
    assert found["logit_diff"] == pytest.approx(float(run.grid.sel(layer=1, pos=10).values), abs=1e-4)
    assert found["prob"] == pytest.approx(float(run.scores["patched.prob"].sel(layer=1, pos=10).values), abs=1e-5)
    assert [text for text, _ in answer["next"]][:2] in (["·Mary", "·John"], ["·John", "·Mary"])
    chances = [chance for _, chance in answer["next"]]
    assert chances == sorted(chances, reverse=True) and sum(chances) <= 1


def test_a_busy_model_is_said_to_be_busy_and_nothing_hangs(lab, run, monkeypatch):
    monkeypatch.setattr(cells.Cells.measure, "__kwdefaults__", {"patience": 0.05})
    view = sweep(run).select(layer=1, pos=3)
    taken, done = threading.Event(), threading.Event()

    def hold():
        with lab.interleaver.lock:
            taken.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(30)
    try:
        with pytest.raises(ViewError, match="The model is busy"):
            view.run()
    finally:
        done.set()
        thread.join()
    assert view.run()["metrics"]


def test_a_run_waits_for_the_model_that_another_thread_holds(lab):
    found, started = [], threading.Event()

    def measure():
        started.set()
        found.append(lab.run(f'prompt "{CLEAN}"\nanswer " Mary"\nmetric prob').metrics["main"]["prob"])

    with lab.interleaver.lock:
        thread = threading.Thread(target=measure)
        thread.start()
        started.wait(30)
        thread.join(0.5)
        assert thread.is_alive() and not found
    thread.join(60)
    assert found == [lab.run(f'prompt "{CLEAN}"\nanswer " Mary"\nmetric prob').metrics["main"]["prob"]]


def test_two_threads_on_one_model_get_the_numbers_of_one(lab, run):
    alone = {pos: sweep(run).run(layer=1, pos=pos) for pos in (2, 10)}
    together = {}
    threads = [threading.Thread(target=lambda pos=pos: together.update({pos: sweep(run).run(layer=1, pos=pos)}))
               for pos in (2, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert together == alone


def test_a_closed_model_and_a_forgotten_one_are_told_apart():
    model = hl.load("lab")
    made = model.run(f'prompt "{CLEAN}"\nmetric loss\nzero each L[0,1].mlp_out @each')
    view = sweep(made).select(layer=1, pos=2)
    assert view.facts["runs"]
    model.close()
    with pytest.raises(hl.errors.HooklabError, match="closed"):
        view.run()
    del model
    gc.collect()
    with pytest.raises(ViewError, match="not open any more"):
        view.run()


def test_numbers_without_a_spec_cannot_be_run(effects):
    view = grid(effects)
    assert not view.facts["runs"]
    with pytest.raises(ViewError, match="do not say which spec"):
        view.run(layer=4, head=0)
    with pytest.raises(ViewError, match="choose a cell first"):
        view.run()


def test_a_view_does_not_keep_the_model_alive():
    import weakref

    model = hl.load("lab")
    view = sweep(model.run(f'prompt "{CLEAN}"\nmetric loss\nzero each L[0,1].mlp_out @each'), model)
    alive = weakref.ref(model)
    model.close()
    del model
    gc.collect()
    assert alive() is None
    assert view.facts["rows"] == "layer"


# Bars ------------------------------------------------------------------------------------------------------------------


def test_bars_send_all_numbers_and_show_the_strongest():
    values = np.array([0.5, -3.0, np.nan, 2.0, -0.1])
    view = bars(Scores(values, ("neuron",), low=values - 1, high=values + 1), most=2, order="largest")
    assert np.array_equal(sent(view, "values"), values.astype("f4"), equal_nan=True)
    assert np.array_equal(sent(view, "low"), (values - 1).astype("f4"), equal_nan=True)
    assert view._order().tolist() == [3, 1]
    view.options = {"order": "smallest", "most": 4}
    assert view._order().tolist() == [1, 4, 0, 3]
    with pytest.raises(ViewError, match="order is one of"):
        view.options = {"order": "random"}


# Without a browser, and the end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [
    lambda labels: grid(Scores(np.eye(3), ("layer", "site"), {"site": labels}, HOSTILE, HOSTILE, note=HOSTILE)),
    lambda labels: grid(Scores(np.random.default_rng(0).random((300, 3)), ("layer", "site"), {"site": labels}, HOSTILE,
                               HOSTILE)),
    lambda labels: bars(Scores(np.arange(3.0), ("site",), {"site": labels}, HOSTILE, HOSTILE)),
])
def test_hostile_text_stays_text(make):
    view = make((HOSTILE, "<b>", "&amp;"))
    for text in (view.static(), view.to_html()):
        read = Elements(text)
        assert "b" not in read.tags and not read.acting
        assert all(not tag.startswith("img") or "data:image/png" in text for tag in read.tags)
        assert "onerror=alert" not in text or "&lt;img src=x onerror" in text or "\\u003cimg" in text
    assert "\u202e" not in view.to_html() and "\u202e" not in json.dumps(
        {name: fact for name, fact in view.facts.items() if name != "axes"}, ensure_ascii=False)
    assert all("\u202e" not in label for axis in view.facts["axes"] for label in axis["labels"])


def test_a_large_grid_is_a_small_picture_without_script():
    rng = np.random.default_rng(0)
    view = grid(Scores(rng.standard_normal((1000, 1000)).astype("f4"), ("query_pos", "key_pos"), name="noise"))
    text = view.static()
    assert len(text) <= 100 * 1024
    assert "data:image/png" in text and "strongest 5 of 1,000,000" in text


def test_pooling_a_picture_keeps_the_spike_and_its_sign():
    codes = np.full((50, 60), 130, np.uint8)
    codes[17, 33], codes[40, 2] = 7, 1
    small = shrunk(codes, 130, 10, 12)
    assert small.shape == (10, 12)
    assert sorted(set(small.reshape(-1).tolist())) == [1, 7, 130]
    assert small[17 * 10 // 50, 33 * 12 // 60] == 7


def test_a_figure_shows_the_chosen_map_in_the_numbers_of_the_scores(effects):
    view = grid(effects).select(rank=1)
    image = view.plot().axes[0].images[0]
    assert np.array_equal(np.asarray(image.get_array()), effects.values[1])
    assert (image.norm.vmin, image.norm.vmax) == (-15.5, 15.5)


def test_a_figure_of_more_cells_than_dots_keeps_the_spike():
    values = np.full((3, 5000), 0.1)
    values[1, 3217] = -7.0
    image = grid(Scores(values, ("layer", "neuron"))).plot().axes[0].images[0]
    shown = np.asarray(image.get_array())
    assert shown.shape[1] < 5000 and (shown == -7.0).sum() == 1
    left, right, _, _ = image.get_extent()
    at = left + (np.argmin(shown[1]) + 0.5) / shown.shape[1] * (right - left)
    assert abs(at - 3217) < 10


def test_bars_of_a_figure_are_those_shown():
    view = bars(Scores(np.array([0.5, -3.0, 2.0]), ("layer",), {"layer": (7, 8, 9)}), order="strongest", most=2)
    ax = view.plot().axes[0]
    assert [patch.get_width() for patch in ax.patches] == [-3.0, 2.0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["8", "9"]


def test_bars_that_are_no_numbers_are_marked_in_a_figure():
    ax = bars(Scores(np.array([np.nan, 2.0, np.nan]), ("layer",))).plot().axes[0]
    assert [(text.get_text(), text.xy[1]) for text in ax.texts] == [("× nan", 0), ("× nan", 2)]


@pytest.mark.parametrize("values", [[-0.02, 10, 4, 3.3], [-10, 0.02, -4], [-12345.6, 100.2, 123456.7], [1e-9, -3e-9], [0.5],
                                    [np.nan, np.nan], [-0.02, *range(39)]], ids=str)
def test_no_two_names_or_numbers_along_the_bars_of_a_figure_touch(values):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    labels = tuple(f"L{i}.mlp_post neuron {i}" for i in range(len(values)))
    figure = bars(Scores(np.array(values), ("node",), {"node": labels}, "logits", "effect")).plot()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        boxes = [text.get_window_extent(canvas.get_renderer()) for text in axis.get_ticklabels() if text.get_text()]
        assert boxes
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1:])


def test_a_closed_grid_holds_nothing_and_says_so(effects):
    view = grid(effects)
    view.close()
    assert view._scores.values.size == 0
    with pytest.raises(ViewError, match="closed"):
        view.plot()
    assert isinstance(view, Grid)
