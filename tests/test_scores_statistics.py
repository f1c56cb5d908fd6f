"""How sure Scores are: intervals, p-values, ends of the scale and controls, carried through everything Scores can do."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from test_scores import Page

from hooklab.errors import RecordError
from hooklab.records import Run, Scores, compare
from hooklab.records.saving import load, save

VALUES = np.array([[0.5, -0.25, 0.0], [1.0, 0.125, np.nan]])
LOW = np.array([[0.25, -0.5, -0.1], [0.75, -0.125, np.nan]])
HIGH = np.array([[0.75, -0.125, 0.1], [1.25, 0.25, np.nan]])
P = np.array([[0.01, 0.02, 1.0], [0.001, 0.5, np.nan]])
CELLS = ("layer", "pos")
WORDS = {"layer": (3, 4), "pos": ("0: a", "1: b", "2: c")}


def sure(**parts):
    return Scores(**{"values": VALUES, "axes": CELLS, "coords": WORDS, "unit": "fraction", "name": "patched", "low": LOW,
                     "high": HIGH, "p": P, "ends": (-1.0, 3.0), "raw_unit": "logits",
                     "examples": np.stack([VALUES - 0.5, VALUES + 0.5] * 4),
                     "control": Scores(VALUES / 10, CELLS, WORDS, name="random weights", ends=(0.0, 2.0)), **parts})


@pytest.mark.parametrize("parts, word", [
    pytest.param({"high": None}, "both or neither", id="an interval with one bound"),
    pytest.param({"low": LOW[0]}, "low of shape", id="bounds of another shape"),
    pytest.param({"p": P.T}, "p of shape", id="p-values of another shape"),
    pytest.param({"low": HIGH, "high": LOW}, "must not be above", id="bounds the wrong way round"),
    pytest.param({"low": LOW.astype(str)}, "real numbers", id="bounds of text"),
    pytest.param({"p": P + 0.5}, "between 0 and 1", id="a p-value above one"),
    pytest.param({"p": -P}, "between 0 and 1", id="a p-value below zero"),
    pytest.param({"level": 95}, "such as 0.95", id="a level in percent"),
    pytest.param({"ends": 3.0}, "two numbers", id="one end"),
    pytest.param({"ends": ("a", "b")}, "two numbers", id="ends of text"),
    pytest.param({"ends": (1, 2, 3)}, "two numbers", id="three ends"),
    pytest.param({"control": Scores(VALUES[0], ("pos",))}, "the same axes", id="a control of other axes"),
    pytest.param({"control": Scores(VALUES, CELLS)}, "labels", id="a control of other labels"),
])
def test_parts_that_do_not_fit_are_refused(parts, word):
    with pytest.raises(RecordError, match=word):
        sure(**parts)


def test_bounds_and_p_values_cannot_be_written_to():
    for array in (sure().low, sure().high, sure().p):
        with pytest.raises(ValueError):
            array[0, 0] = 1


def test_a_selection_takes_everything_along():
    row = sure().sel(layer=4)
    assert row.low.tolist()[:2] == [0.75, -0.125]
    assert row.high.tolist()[:2] == [1.25, 0.25]
    assert row.p.tolist()[:2] == [0.001, 0.5]
    assert row.control.values.tolist()[:2] == pytest.approx([0.1, 0.0125])
    assert (row.control.axes, row.control.name, row.control.ends) == (("pos",), "random weights", (0.0, 2.0))
    assert (row.ends, row.raw_unit, row.level, row.examples.shape) == ((-1.0, 3.0), "logits", 0.95, (8, 3))
    cell = sure(level=0.8).sel(layer=3, pos=1)
    assert (float(cell.low), float(cell.high), float(cell.p), cell.level) == (-0.5, -0.125, 0.02, 0.8)
    turned = sure().sel(pos=[2, 0])
    assert turned.high.tolist()[0] == [0.1, 0.75]
    assert turned.control.coords == turned.coords


@pytest.mark.parametrize("part", [
    {"low": LOW - 0.1}, {"high": HIGH + 0.1}, {"p": P / 2}, {"ends": (-1.0, 3.5)}, {"ends": None}, {"raw_unit": "nats"},
    {"level": 0.9}, {"control": None}, {"control": Scores(VALUES / 9, CELLS, WORDS)}, {"low": None, "high": None},
    {"p": None},
], ids=lambda part: " and ".join(part))
def test_equality_looks_at_every_part(part):
    assert sure() == sure()
    assert sure() != sure(**part)


def test_raw_is_on_the_scale_of_the_metric():
    raw = sure().raw
    assert raw.values[:, :2].tolist() == [[1.0, -2.0], [3.0, -0.5]]
    assert raw.low[:, :2].tolist() == [[0.0, -3.0], [2.0, -1.5]]
    assert raw.high[:, :2].tolist() == [[2.0, -1.5], [4.0, 0.0]]
    assert np.allclose(raw.examples.mean(0), raw.values, equal_nan=True)
    assert np.isnan(raw.values[1, 2])
    assert (raw.unit, raw.raw_unit, raw.ends, raw.p) == ("logits", "", None, None)
    assert np.allclose(raw.control.values, VALUES / 5, equal_nan=True)
    assert (raw.axes, raw.coords, raw.name) == (CELLS, WORDS, "patched")


def test_raw_of_a_scale_that_runs_down_keeps_low_below_high():
    raw = sure(ends=(2.0, -2.0), control=None).raw
    assert (raw.low[0, 0], raw.values[0, 0], raw.high[0, 0]) == (-1.0, 0.0, 1.0)


@pytest.mark.parametrize("ends", [(1.0, 1.0), (math.nan, 1.0)], ids=["equal ends", "an end that is no number"])
def test_raw_of_a_scale_that_is_none_is_not_a_number(ends):
    raw = sure(ends=ends).raw
    assert np.isnan(raw.values).all()
    assert np.isnan(raw.low).all()


def test_raw_keeps_bounds_that_are_endless():
    raw = Scores([0.5], ("head",), low=[-np.inf], high=[np.inf], ends=(1.0, 3.0)).raw
    assert (raw.values.tolist(), raw.low.tolist(), raw.high.tolist()) == ([2.0], [-np.inf], [np.inf])


def test_raw_of_labelled_cells_and_of_one_cell():
    labelled = sure(labels=np.array([["a", "b", "c"], ["d", "e", "f"]]), low=None, high=None, examples=None)
    assert labelled.raw.labels[1, 0] == "d"
    assert float(labelled.sel(layer=4, pos=0).raw) == 3.0


def test_raw_leaves_out_a_control_that_cannot_be_brought_back():
    assert sure(control=Scores(VALUES, CELLS, WORDS)).raw.control is None


def test_raw_without_ends_says_what_to_do_and_that_works():
    scores = Scores(VALUES, CELLS, unit="logits")
    with pytest.raises(RecordError, match=r"already \(logits\), so use them as they are.*ends=\(corrupted, clean\)"):
        scores.raw
    assert replace(scores, ends=(0.0, 2.0), raw_unit="logits").raw.values[0, 0] == 1.0
    with pytest.raises(RecordError, match="no ends"):
        sure().raw.raw


def test_pandas_gets_a_column_for_each_part():
    pytest.importorskip("pandas")
    frame = sure().to_pandas()
    assert list(frame.columns) == ["layer", "pos", "score", "low", "high", "p", "control"]
    row = frame[(frame.layer == 4) & (frame.pos == "1: b")].iloc[0]
    assert row[["score", "low", "high", "p", "control"]].tolist() == [0.125, -0.125, 0.25, 0.5, 0.0125]
    assert {key: frame.attrs[key] for key in ("unit", "level", "examples", "ends", "raw_unit")} == {
        "unit": "fraction", "level": 0.95, "examples": 8, "ends": (-1.0, 3.0), "raw_unit": "logits"}
    assert list(Scores([1.0], ("p",), p=[0.5]).to_pandas().columns) == ["p", "score", "p_"]
    plain = Scores([1.0], ("head",)).to_pandas()
    assert (list(plain.columns), plain.attrs) == (["head", "score"], {"name": "", "unit": "", "spec": ""})


def test_xarray_gets_a_coordinate_for_each_part():
    pytest.importorskip("xarray")
    array = sure().to_xarray().sel(layer=4, pos="1: b")
    assert [array.coords[word].item() for word in ("low", "high", "p", "control")] == [-0.125, 0.25, 0.5, 0.0125]
    assert array.attrs["ends"] == (-1.0, 3.0)
    assert array.attrs["level"] == 0.95


@pytest.fixture
def run():
    return Run(scores={"a.patched": sure(), "a.plain": Scores([1.0], ("head",)),
                       "a.float32": Scores(np.float32([1, 2]), ("head",), low=np.float32([0, 1]), high=np.float32([2, 3]))})


def test_a_saved_run_comes_back_with_every_part(run, tmp_path):
    save(run, tmp_path / "run")
    back = load(tmp_path / "run").scores
    assert back == run.scores
    assert type(back["a.patched"].ends) is tuple
    assert back["a.patched"].control.name == "random weights"
    assert back["a.float32"].low.dtype == np.float32


def test_a_run_saved_before_there_were_statistics_can_be_read(run, tmp_path):
    import hashlib

    save(Run(scores={"a.plain": run.scores["a.plain"]}), tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    document = json.loads(file.read_text())
    for word in ("low", "high", "level", "p", "ends", "raw_unit", "control"):
        del document["record"]["scores"]["a.plain"][word]
    text = json.dumps(document["record"], sort_keys=True, allow_nan=False)
    document["sha256"]["record"] = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps(document))
    assert load(tmp_path / "run").scores == {"a.plain": run.scores["a.plain"]}


@pytest.mark.parametrize("part, what, by", [
    pytest.param({"high": HIGH + 0.5}, "upper bounds of scores s", 0.5, id="bounds"),
    pytest.param({"p": P / 2}, "p-values of scores s", 0.5, id="p-values"),
    pytest.param({"ends": (-1.0, 3.25)}, "ends of scores s", 0.25, id="ends"),
    pytest.param({"examples": np.stack([VALUES - 0.5, VALUES + 0.25] * 4)}, "examples of scores s", 0.25, id="examples"),
    pytest.param({"control": None}, "control of scores s", math.inf, id="a control that is missing"),
    pytest.param({"control": Scores(VALUES, CELLS, WORDS, name="random weights", ends=(0.0, 2.0))}, "control of scores s",
                 0.9, id="another control"),
    pytest.param({"p": None}, "p-values of scores s", math.inf, id="p-values that are missing"),
    pytest.param({"ends": None}, "ends of scores s", math.inf, id="ends that are missing"),
])
def test_a_comparison_names_the_part_that_differs_and_by_how_much(part, what, by):
    found = compare(Run(scores={"s": sure()}), Run(scores={"s": sure(**part)}))
    assert [row.what for row in found.different] == [what]
    assert found.largest == pytest.approx(by)
    assert what in repr(found)
    assert not Page(found._repr_html_()).open


def test_a_comparison_of_the_same_is_the_same():
    assert compare(Run(scores={"s": sure()}), Run(scores={"s": sure()})).same
    gone = compare(Run(scores={"s": sure()}), Run(scores={"s": sure(low=None, high=None)}))
    assert [row.what for row in gone.different] == ["lower bounds of scores s", "upper bounds of scores s"]


def test_the_text_has_intervals_beside_the_strongest_cells():
    assert repr(sure()).splitlines() == [
        "Scores patched", "  layer 2 · pos 3", "  fraction, -0.25 to 1, 1 not finite",
        "  top          1  [0.75, 1.25]  p 0.001   layer 4 · pos 0: a",
        "             0.5  [0.25, 0.75]  p 0.01    layer 3 · pos 0: a",
        "           -0.25  [-0.5, -0.125]  p 0.02  layer 3 · pos 1: b",
        "  95 % intervals over 8 examples; 3 of 5 leave out 0",
        "  0 stands for -1 logits, 1 for 3 logits",
        "  control (random weights): -0.025 to 0.1"]


@pytest.mark.parametrize("scores, said", [
    pytest.param(Scores([0.5], ("head",), examples=[[0.5]], low=[np.nan], high=[np.nan], p=[np.nan]),
                 "one example: nothing can be said of others", id="one example"),
    pytest.param(Scores([0.5, 1], ("head",), examples=np.ones((4, 2)), low=[0, 0.5], high=[1, 2]),
                 "95 % intervals over 4 examples; 1 of 2 leave out 0; 4 are few, so they are too narrow", id="few examples"),
    pytest.param(Scores(0.5, (), low=0.25, high=0.75, level=0.9), "90 % interval", id="one number"),
    pytest.param(Scores([0.5], ("head",), p=[0.03], examples=np.ones((9, 1))), "p-values over 9 examples",
                 id="p-values alone"),
    pytest.param(Scores(np.ones(40), ("head",), low=np.zeros(40), high=np.full(40, np.inf)),
                 "95 % intervals; 0 of 40 leave out 0 (about 2 would by chance)", id="many cells"),
    pytest.param(Scores([0.5], ("head",), control=Scores([np.nan], ("head",))), "control: no finite number",
                 id="a control without numbers"),
    pytest.param(Scores([0.5], ("head",), ends=(0, 2)), "0 stands for 0, 1 for 2", id="ends without a unit"),
])
def test_what_a_reader_should_know_is_said_in_text_and_page(scores, said):
    assert said in repr(scores).split("\n  ")
    page = Page(scores._repr_html_())
    assert said in [part for text in page.texts for part in text.split(" · ")]
    assert not page.open


def test_no_word_about_statistics_where_there_are_none():
    plain = Scores(VALUES, CELLS, examples=np.stack([VALUES] * 8))
    assert not {"interval", "examples", "control"} & set((repr(plain) + "".join(Page(plain._repr_html_()).texts)).split())


def test_the_page_has_the_strongest_cells_with_their_intervals_and_marks_what_leaves_out_zero():
    page = Page(sure()._repr_html_())
    texts = page.texts
    assert [texts[texts.index(f"{name}") + 1] for name in ("0.50*", "-0.25*", "1.00*")]
    assert {"0", "0.12", "nan"} <= set(texts)
    assert texts[-1] == ("* the interval leaves out 0 · 95 % intervals over 8 examples; 3 of 5 leave out 0 · "
                         "0 stands for -1 logits, 1 for 3 logits · control (random weights): -0.025 to 0.1")
    at = texts.index("strongest")
    assert texts[at:at + 10] == ["strongest", "fraction", "95 % interval", "p", "control", "layer 4 · pos 0: a", "1",
                                 "[0.75, 1.25]", "0.001", "0.100"]
    cells = [attrs for attrs in page.named("td") if attrs.get("title", "").startswith("layer ")]
    assert [cell.get("class") for cell in cells] == ["hl-pos", "hl-neg", None, "hl-pos", "hl-pos", "hl-nan"]
    assert cells[1]["title"] == "layer 3 · pos 1: b: -0.25 fraction"


def test_bars_are_marked_and_a_single_number_has_its_interval_in_its_row():
    row = Page(sure().sel(layer=3)._repr_html_())
    assert {"0: a*", "1: b*", "2: c"} <= set(row.texts)
    one = Page(sure().sel(layer=3, pos=0)._repr_html_())
    assert "[0.25, 0.75]" in one.texts
    assert "strongest" not in one.texts


def test_marks_that_would_tell_nothing_are_left_out():
    for low in (VALUES * 0 + 0.01, VALUES * 0 - 9):
        texts = Page(sure(values=np.abs(VALUES), low=low, high=VALUES * 0 + 9)._repr_html_()).texts
        assert "0.12" in texts
        assert not [text for text in texts if text.endswith("*") or text.startswith("* ")]


def test_cells_with_text_keep_their_text():
    labelled = sure(labels=np.array([["a", "b", "c"], ["d", "e", "f"]]))
    texts = Page(labelled._repr_html_()).texts
    assert {"a", "b", "c", "d", "e", "f"} <= set(texts)
    assert not [text for text in texts if text.endswith("*")]


def test_names_of_controls_are_escaped():
    evil = '<img src=x onerror="alert(1)">'
    page = Page(sure(control=Scores(VALUES, CELLS, WORDS, name=evil), raw_unit=evil)._repr_html_())
    assert "img" not in {tag for tag, _ in page.tags}
    assert "\x1b" not in repr(sure(raw_unit="\x1b[31m"))


def lines(place):
    return [segment.tolist() for collection in place.collections for segment in collection.get_segments()]


def test_plots_have_whiskers_and_dots_at_the_bounds():
    pytest.importorskip("matplotlib")
    bars = sure().sel(layer=3).plot().axes[0]
    assert lines(bars) == [[[i, low], [i, high]] for i, (low, high) in enumerate(zip(LOW[0], HIGH[0], strict=True))]
    grid = sure().plot().axes[0]
    assert sorted(map(tuple, grid.collections[0].get_offsets().tolist())) == [(0, 0), (0, 1), (1, 0)]
    assert not Scores(VALUES, CELLS).plot().axes[0].collections


def test_a_long_line_has_a_band_and_an_endless_bound_goes_past_the_others():
    pytest.importorskip("matplotlib")
    values = np.linspace(-1, 1, 60)
    band = Scores(values, ("layer",), low=values - 0.5, high=values + 0.25).plot().axes[0].collections[0]
    path = band.get_paths()[0].vertices
    assert (path[:, 1].min(), path[:, 1].max()) == (-1.5, 1.25)
    endless = Scores([1.0, 2.0], ("head",), low=[-np.inf, 1.0], high=[np.inf, 3.0]).plot().axes[0]
    assert lines(endless)[0][0][1] < -3.0 < 3.0 < lines(endless)[0][1][1]
