"""Scores: what is refused, what is found by label, what is drawn. Oracles are plain Python over nested lists."""

from __future__ import annotations

import builtins
import html.parser
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hooklab import html as pieces
from hooklab.errors import HooklabError, RecordError
from hooklab.records import Scores

TOKENS = ("0: When", "1:  Mary", "2:  and")


@pytest.fixture
def grid():
    return Scores(np.array([[0.5, -2.0, np.nan], [1.5, 0.0, 2.0]]), ("layer", "pos"), {"layer": (3, 4), "pos": TOKENS},
                  unit="logits", name="logit_diff", spec="patch each", examples=np.arange(12.0).reshape(2, 2, 3),
                  labels=np.array([["a", "b", "c"], ["d", "e", "f"]]))


class Page(html.parser.HTMLParser):
    """Every tag of a fragment, whether it is well formed, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.mark.parametrize("parts, word", [
    pytest.param({"axes": ("layer",)}, "2 axis words", id="too few axes"),
    pytest.param({"axes": ("layer", "layer")}, "different", id="an axis twice"),
    pytest.param({"axes": ("layer", "two words")}, "different words", id="an axis that is no word"),
    pytest.param({"coords": {"layer": (1, 2, 3)}}, "3 labels", id="more labels than entries"),
    pytest.param({"coords": {"head": (1, 2)}}, "no axis", id="labels for an axis that is absent"),
    pytest.param({"values": np.array([["a"]])}, "real numbers", id="text for numbers"),
    pytest.param({"values": np.array([[1j]])}, "real numbers", id="complex numbers"),
    pytest.param({"values": [[1, 2], [3]]}, "no array", id="ragged rows"),
    pytest.param({"labels": np.array(["a"])}, "labels of shape", id="labels of another shape"),
    pytest.param({"examples": np.zeros((2, 2))}, "batch axis", id="examples without a batch axis"),
    pytest.param({"examples": np.zeros((5, 2, 3))}, "do not fit", id="examples of another shape"),
])
def test_parts_that_do_not_fit_are_refused(parts, word):
    with pytest.raises(RecordError, match=word):
        Scores(**{"values": np.zeros((2, 2)), "axes": ("layer", "pos"), **parts})
    assert issubclass(RecordError, HooklabError)
    assert issubclass(RecordError, ValueError)


def test_axes_without_labels_are_counted():
    scores = Scores([[1, 2, 3]], ("strength", "head"), {"strength": [np.float64(0.5)]})
    assert scores.coords == {"strength": (0.5,), "head": (0, 1, 2)}
    assert type(scores.coords["strength"][0]) is float


def test_values_cannot_be_written_to_and_the_callers_array_still_can():
    mine = np.zeros(2)
    scores = Scores(mine, ("head",))
    with pytest.raises(ValueError):
        scores.values[0] = 1
    mine[0] = 1
    assert mine.tolist() == [1, 0]


def test_top_goes_by_magnitude_and_leaves_out_what_is_no_number(grid):
    assert grid.top(3) == [({"layer": 3, "pos": "1:  Mary"}, -2.0), ({"layer": 4, "pos": "2:  and"}, 2.0),
                           ({"layer": 4, "pos": "0: When"}, 1.5)]
    assert len(grid.top(99)) == 5
    assert grid.top(0) == []
    assert Scores(np.array(3.0), ()).top() == [({}, 3.0)]
    with pytest.raises(RecordError, match="negative"):
        grid.top(-1)


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=4),
                  elements=st.floats(-3, 3).map(lambda x: round(x)) | st.just(float("nan"))), st.integers(0, 70))
def test_top_agrees_with_sorting_every_cell(values, k):
    scores = Scores(values, tuple("abc"[:values.ndim]))
    cells = [(index, value) for index, value in np.ndenumerate(values) if value == value]
    expected = sorted(cells, key=lambda cell: -abs(cell[1]))[:k]
    assert [(tuple(cell.values()), value) for cell, value in scores.top(k)] == expected


def test_sel_finds_by_label_and_drops_the_axis(grid):
    row = grid.sel(layer=4)
    assert row.axes == ("pos",)
    assert row.values.tolist() == [1.5, 0.0, 2.0]
    assert row.labels.tolist() == ["d", "e", "f"]
    assert row.examples.tolist() == [[3, 4, 5], [9, 10, 11]]
    assert (row.unit, row.name, row.spec) == ("logits", "logit_diff", "patch each")
    assert float(grid.sel(layer=3, pos=1)) == -2.0
    assert float(grid.sel(layer=3, pos="1:  Mary")) == -2.0
    with pytest.raises(TypeError, match="3 scores"):
        float(row)


def test_sel_with_several_labels_keeps_the_axis_in_their_order(grid):
    part = grid.sel(pos=[2, 0], layer=3)
    assert part.coords == {"pos": ("2:  and", "0: When")}
    assert part.values.tolist() == pytest.approx([np.nan, 0.5], nan_ok=True)
    assert grid.sel(layer=[4]).values.shape == (1, 3)


def test_sel_says_what_there_is_when_there_is_no_such_thing(grid):
    with pytest.raises(RecordError, match=r'no axis layr.*Did you mean "layer"'):
        grid.sel(layr=3)
    with pytest.raises(RecordError, match=r"layer has no 9; it has 3, 4"):
        grid.sel(layer=9)
    with pytest.raises(RecordError, match=r'Did you mean "1:  Mary"'):
        grid.sel(pos=" Mary")
    with pytest.raises(RecordError, match="2 entries"):
        Scores([1, 2], ("site",), {"site": ("x", "x")}).sel(site="x")


def test_equality_is_exact_and_knows_nan(grid):
    twin = Scores(grid.values.copy(), grid.axes, dict(grid.coords), grid.unit, grid.name, grid.spec, grid.labels,
                  grid.examples)
    assert grid == twin
    assert grid != replace(twin, values=grid.values + 1e-12)
    assert grid != replace(twin, examples=None)
    assert Scores(np.zeros(2, np.float32), ("a",)) != Scores(np.zeros(2), ("a",))
    assert Scores([1], ("a",), {"a": ("x",)}) != Scores([1], ("a",), {"a": ("y",)})
    assert grid != "text"
    with pytest.raises(TypeError):
        hash(grid)


def test_numpy_takes_them_as_an_array(grid):
    assert np.asarray(grid) is not None
    assert np.nanmax(grid) == 2.0
    assert np.asarray(grid, dtype=np.float32).dtype == np.float32
    copy = np.array(grid)
    copy[0, 0] = 9
    assert grid.values[0, 0] == 0.5


def test_pandas_gets_one_row_per_cell(grid):
    pytest.importorskip("pandas")
    frame = grid.to_pandas()
    assert list(frame.columns) == ["layer", "pos", "score", "label"]
    rows = {(row.layer, row.pos): (row.score, row.label) for row in frame.itertuples()}
    assert len(rows) == 6
    assert rows[3, "1:  Mary"] == (-2.0, "b")
    assert frame.attrs["unit"] == "logits"
    assert list(Scores([1.0], ("score",)).to_pandas().columns) == ["score", "score_"]
    assert Scores(np.array(2.0), ()).to_pandas()["score"].tolist() == [2.0]


def test_xarray_gets_axes_labels_and_unit(grid):
    pytest.importorskip("xarray")
    array = grid.to_xarray()
    assert array.dims == ("layer", "pos")
    assert array.sel(layer=3, pos="1:  Mary").item() == -2.0
    assert array.attrs["unit"] == "logits"
    assert array.coords["label"].values.tolist() == [["a", "b", "c"], ["d", "e", "f"]]


def several(axes=("layer", "pos"), **more):
    """Numbers of four examples with coordinates that are not counted from 0."""
    examples = np.random.default_rng(0).normal(size=(4, 2, 3))
    coords = {axes[0]: (3, 5), axes[1]: ("0: a", "1: b", "2: a")}
    return Scores(examples.mean(0), axes, coords, "logits", "logit_diff", "the spec", examples=examples, **more)


def test_pandas_gets_one_row_per_example_and_cell():
    pytest.importorskip("pandas")
    scores = several(low=np.full((2, 3), -9.0), high=np.full((2, 3), 9.0))
    frame = scores.to_pandas(examples=True)
    assert list(frame.columns) == ["example", "layer", "pos", "score"] and len(frame) == 4 * 2 * 3
    for index, value in np.ndenumerate(scores.examples):
        row = frame.iloc[np.ravel_multi_index(index, scores.examples.shape)]
        assert (row.example, row.layer, row.pos, row.score) == (
            index[0], scores.coords["layer"][index[1]], scores.coords["pos"][index[2]], value)
    means = frame.groupby(["layer", "pos"], sort=False).score.mean()
    np.testing.assert_allclose(means.to_numpy().reshape(2, 3), scores.values, atol=1e-15)
    assert frame.attrs["unit"] == "logits" and frame.attrs["examples"] == 4
    assert len(scores.to_pandas()) == 6, "without it the cells are rows, as before"


def test_xarray_gets_an_axis_for_examples():
    pytest.importorskip("xarray")
    scores = several(low=np.full((2, 3), -9.0), high=np.full((2, 3), 9.0))
    array = scores.to_xarray(examples=True)
    assert array.dims == ("batch", "layer", "pos")
    np.testing.assert_array_equal(array.values, scores.examples)
    np.testing.assert_allclose(array.mean("batch").values, scores.values, atol=1e-15)
    assert array.sel(batch=2, layer=5, pos="1: b").item() == scores.examples[2, 1, 1]
    assert array.coords["low"].dims == ("layer", "pos") and array.attrs["unit"] == "logits"
    assert array.values.flags.writeable and scores.to_xarray().dims == ("layer", "pos")


def test_axes_that_are_called_like_the_columns_of_examples_keep_their_names():
    pytest.importorskip("pandas"), pytest.importorskip("xarray")
    assert list(several(("example", "score")).to_pandas(examples=True).columns) == ["example_", "example", "score", "score_"]
    assert several(("batch", "pos")).to_xarray(examples=True).dims == ("batch_", "batch", "pos")
    single = Scores(np.array(2.0), (), examples=np.array([1.0, 3.0]))
    assert single.to_pandas(examples=True).to_dict("list") == {"example": [0, 1], "score": [1.0, 3.0]}
    none = Scores(np.zeros(3), ("head",), examples=np.zeros((0, 3)))
    assert len(none.to_pandas(examples=True)) == 0 and none.to_xarray(examples=True).shape == (0, 3)


@pytest.mark.parametrize("method", ["to_pandas", "to_xarray"])
def test_scores_without_numbers_of_examples_say_so(method):
    pytest.importorskip("pandas"), pytest.importorskip("xarray")
    with pytest.raises(RecordError, match="no numbers of single examples"):
        getattr(Scores([1.0], ("head",)), method)(examples=True)


@pytest.mark.parametrize("method, package", [("to_pandas", "pandas"), ("to_xarray", "xarray")])
def test_a_missing_package_is_named_with_how_to_get_it(method, package, grid, monkeypatch):
    import importlib

    def absent(name, *rest):
        if name == package:
            raise ImportError(name)
        return builtins.__import__(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(RecordError, match=f"pip install {package}"):
        getattr(grid, method)()


def test_the_text_is_one_readable_block(grid):
    assert repr(grid).splitlines() == [
        "Scores logit_diff", "  layer 2 · pos 3", "  logits, -2 to 2, 1 not finite",
        "  top         -2  layer 3 · pos 1:  Mary", "               2  layer 4 · pos 2:  and",
        "             1.5  layer 4 · pos 0: When"]


@pytest.mark.parametrize("scores, words", [
    pytest.param(Scores(np.zeros((0, 3)), ("layer", "pos")), "empty", id="no cells"),
    pytest.param(Scores([np.nan], ("pos",)), "no finite number", id="nothing but nan"),
    pytest.param(Scores([np.inf, 1], ("pos",)), "1 not finite", id="an infinity"),
    pytest.param(Scores(np.array(2), ()), "one number", id="a single number"),
    pytest.param(Scores(np.array([True, False]), ("pos",)), "top", id="truths"),
])
def test_odd_scores_can_be_shown(scores, words):
    assert words in repr(scores)
    page = Page(scores._repr_html_())
    assert not page.open


def test_terminal_codes_in_labels_do_not_reach_the_terminal():
    scores = Scores([1.0], ("pos",), {"pos": ("0: \x1b[31mred\n",)}, name="a\x07")
    assert not set(repr(scores)) & {"\x1b", "\x07"}
    assert len(repr(scores).splitlines()) == 4


def test_the_picture_of_two_axes_has_every_cell_with_its_exact_value(grid):
    page = Page(grid._repr_html_())
    cells = [attrs for attrs in page.named("td") if "title" in attrs]
    assert len(cells) == 6
    assert cells[1]["title"] == "layer 3 · pos 1:  Mary: -2 logits"
    assert [attrs.get("class") for attrs in cells] == ["hl-pos", "hl-neg", "hl-nan", "hl-pos", None, "hl-pos"]
    assert "script" not in {tag for tag, _ in page.tags}
    assert not page.open


def test_text_from_models_is_escaped():
    evil = '<img src=x onerror="alert(1)">'
    scores = Scores([[1.0]], (("layer"), "pos"), {"pos": (evil,)}, name=evil, unit=evil, note=evil,
                    labels=np.array([[evil]]))
    page = Page(scores._repr_html_())
    assert "img" not in {tag for tag, _ in page.tags}
    assert evil in "".join(page.texts)
    assert not any(attr.startswith("on") for _, attrs in page.tags for attr in attrs)
    assert all("onerror" not in text for text in [Page(Scores([1.0], ("pos",), {"pos": (evil,)})._repr_html_())
                                                  .named("td")[0].get("class") or ""])


def test_characters_that_no_page_can_carry_are_written_out():
    text = pieces.safe("\ud800 \u202e x\x00")
    assert text.encode("utf-8").decode() == r"\ud800 \u202e x\x00"


def test_large_grids_are_shortened_and_say_so():
    scores = Scores(np.arange(200.0 * 100).reshape(200, 100), ("layer", "pos"))
    page = Page(scores._repr_html_())
    text = "".join(page.texts)
    assert "64 of 200 along layer and 40 of 100 along pos" in text
    assert len([1 for attrs in page.named("td") if "title" in attrs]) == 64 * 40
    assert "layer 199 · pos 99" in str(page.named("td"))


def test_more_axes_are_drawn_in_slices_up_to_a_limit():
    scores = Scores(np.zeros((2, 3, 9)), ("layer", "head", "pos"))
    page = Page(scores._repr_html_())
    captions = [text for text in page.texts if text.startswith("pos ")]
    assert captions == [f"pos {i}" for i in range(6)]
    assert "3 more along pos" in "".join(page.texts)


def test_one_axis_is_drawn_as_bars():
    page = Page(Scores([1.0, -2.0], ("head",), unit="nats")._repr_html_())
    bars = [attrs for attrs in page.named("div") if "hl-bar" in attrs.get("class", "")]
    assert [attrs["style"] for attrs in bars] == ["left:50%;width:25%", "left:0%;width:50%"]


@pytest.mark.parametrize("ink, ground", [("000000", "ffffff"), ("ffffff", "111111"), ("d4d4d4", "1e1e1e")],
                         ids=["light page", "dark page", "grey on dark"])
def test_the_strongest_cell_stays_readable_on_every_page(ink, ground):
    """Contrast as WCAG defines it, between the page's ink and a full cell over the page's ground."""
    def channels(text):
        return [int(text[i:i + 2], 16) for i in (0, 2, 4)]

    def luminance(rgb):
        linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in (pieces.POSITIVE, pieces.NEGATIVE):
        over = [pieces.STRONGEST * int(c) + (1 - pieces.STRONGEST) * g
                for c, g in zip(colour.split(), channels(ground), strict=True)]
        light, dark = sorted([luminance(channels(ink)), luminance(over)], reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5


def test_colours_can_be_set_by_the_page_and_have_fallbacks():
    used = re.findall(r"var\((--[\w-]+)(, ?[^)]*)?", pieces.STYLE)
    assert {name for name, _ in used} >= {"--hooklab-positive", "--hooklab-negative", "--jp-content-font-color1"}
    assert all(fallback for _, fallback in used)


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(min_value=0, allow_infinity=False))
def test_every_number_has_a_shade_no_stronger_than_the_strongest(value, limit):
    shade = pieces.shade(value, limit)
    strength = re.search(r"--a:([\d.e+-]+)", shade)
    assert (strength is None) == (value != value or shade == "")
    assert strength is None or 0 <= float(strength[1]) <= pieces.STRONGEST
    if value == value and value != 0 and limit >= abs(value):
        assert ("hl-neg" in shade) == (value < 0) or not shade


@pytest.mark.parametrize("axes, shape, maps", [
    pytest.param(("head",), (3,), 1, id="bars"),
    pytest.param(("value",), (60,), 1, id="a line"),
    pytest.param(("layer", "pos"), (2, 3), 1, id="a heat map"),
    pytest.param(("layer", "head", "pos"), (2, 2, 5), 5, id="a heat map for every position"),
    pytest.param((), (), 1, id="a single number"),
])
def test_plots_have_one_map_per_slice_and_leave_pyplot_alone(axes, shape, maps):
    matplotlib = pytest.importorskip("matplotlib")
    before = dict(matplotlib.rcParams)
    scores = Scores(np.linspace(-1, 2, int(np.prod(shape))).reshape(shape), axes, name="a $ sign", unit="logits")
    figure = scores.plot()
    shown = [place for place in figure.axes if place.get_visible() and place.get_label() != "<colorbar>"]
    assert len(shown) == maps
    assert dict(matplotlib.rcParams) == before
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_heat_maps_are_centred_at_zero(grid):
    pytest.importorskip("matplotlib")
    (image,) = grid.plot().axes[0].images
    assert (image.norm.vmin, image.norm.vmax) == (-2.0, 2.0)
    assert np.array_equal(np.isnan(image.get_array().filled(np.nan)), np.isnan(grid.values))


def test_plots_that_cannot_be_are_refused():
    pytest.importorskip("matplotlib")
    with pytest.raises(RecordError, match="empty"):
        Scores(np.zeros((0,)), ("pos",)).plot()
    with pytest.raises(RecordError, match=r"sel\(pos=…\)"):
        Scores(np.zeros((1, 1, 99)), ("layer", "head", "pos")).plot()
