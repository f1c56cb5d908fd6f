"""What `Scores.plot` draws, read back from the figure's own parts and held against the numbers and against numpy."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from hooklab.analysis import geometry, modality_similarity
from hooklab.errors import RecordError
from hooklab.records import Scores

matplotlib = pytest.importorskip("matplotlib")

LAYERS = np.array([0.5, 2.0, 1.0, 4.0, 3.0])
SHARES = np.array([[0.2, 0.3, 0.5, 0.1], [0.3, 0.3, 0.1, 0.6], [0.5, 0.4, 0.4, 0.3]])


def layers(**more: Any) -> Scores:
    return Scores(LAYERS, ("layer",), name="effect", unit="logits", **more)


def shares() -> Scores:
    return Scores(SHARES, ("group", "layer"), {"group": ("image", "end $", "text")}, name="shares")


def lines(figure: Any) -> list[np.ndarray]:
    """The curves of a figure's first axes, without the line at 0."""
    return [np.asarray(one.get_ydata(), float) for one in figure.axes[0].lines if len(one.get_xdata()) > 2]


def bands(figure: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Lower and upper edge of every filled band, at the places where there are numbers."""
    found = []
    for one in figure.axes[0].collections:
        (path,) = one.get_paths()
        at = sorted(set(path.vertices[:, 0]))
        pairs = [(y.min(), y.max()) for y in (path.vertices[path.vertices[:, 0] == x, 1] for x in at)]
        found.append(tuple(map(np.array, zip(*pairs, strict=True))))
    return found


def legend(figure: Any) -> list[str]:
    return [text.get_text() for one in figure.legends for text in one.get_texts()]


# Kinds -------------------------------------------------------------------------------------------------------------------


def test_without_options_it_is_drawn_as_before():
    assert [bar.get_height() for bar in layers().plot().axes[0].patches] == LAYERS.tolist()
    many = Scores(np.arange(30.0), ("layer",)).plot()
    assert not many.axes[0].patches and lines(many)[0].tolist() == list(range(30))
    (image,) = Scores(SHARES, ("layer", "head")).plot().axes[0].images
    assert np.allclose(image.get_array(), SHARES) and (image.norm.vmin, image.norm.vmax) == (-0.6, 0.6)
    assert not layers().plot().legends and not many.legends


def test_one_axis_as_each_kind():
    assert lines(layers().plot(kind="line"))[0].tolist() == LAYERS.tolist()
    ((low, high),) = bands(layers().plot(kind="area"))
    assert low.tolist() == [0] * 5 and high.tolist() == LAYERS.tolist()
    assert len(Scores(np.arange(30.0), ("layer",)).plot(kind="bars").axes[0].patches) == 30


@pytest.mark.parametrize("turned", [False, True])
def test_two_axes_as_lines_have_one_for_each_entry_of_the_shorter_axis(turned):
    scores = shares() if not turned else Scores(SHARES.T, ("layer", "group"), {"group": shares().coords["group"]})
    figure = scores.plot(kind="line")
    assert np.allclose(lines(figure), SHARES)
    assert figure.axes[0].get_xlabel() == "layer"
    assert legend(figure) == ["image", r"end \$", "text"] and figure.legends[0].get_title().get_text() == "group"


def test_bands_of_an_area_lie_on_each_other():
    figure = shares().plot(kind="area")
    floors = np.vstack([np.zeros(4), SHARES.cumsum(0)])
    for (low, high), floor, top in zip(bands(figure), floors, floors[1:], strict=False):
        assert np.allclose(low, floor) and np.allclose(high, top)
    assert legend(figure) == ["text", r"end \$", "image"]  # from above, as they lie


def test_of_two_ordered_axes_the_longer_is_run_over_and_heads_are_never():
    both = Scores(np.arange(12.0).reshape(3, 4), ("layer", "pos"))
    assert np.allclose(lines(both.plot(kind="line")), np.arange(12.0).reshape(3, 4))
    heads = Scores(np.arange(24.0).reshape(3, 8), ("layer", "head")).plot(kind="line")
    assert heads.axes[0].get_xlabel() == "layer" and np.allclose(lines(heads), np.arange(24.0).reshape(3, 8).T)


def test_lines_lie_at_the_numbers_of_their_axis_and_over_names_in_their_order():
    steps = Scores(LAYERS, ("c",), {"c": (0.0, 0.5, 1.0, 4.0, 16.0)}).plot(kind="line")
    assert steps.axes[0].lines[0].get_xdata().tolist() == [0.0, 0.5, 1.0, 4.0, 16.0]
    named = Scores(LAYERS, ("pos",), {"pos": ("0: When", "1: Mary", "2: and", "3: $5", "4: x")}).plot(kind="line")
    assert named.axes[0].lines[0].get_xdata().tolist() == [0, 1, 2, 3, 4]
    assert named.axes[0].get_xticklabels()[3].get_text() == r"3: \$5"


def test_intervals_are_a_band_for_every_line():
    figure = Scores(SHARES, ("group", "layer"), low=SHARES - 0.1, high=SHARES + 0.2).plot(kind="line")
    for (low, high), row in zip(bands(figure), SHARES, strict=True):
        assert np.allclose(low, row - 0.1) and np.allclose(high, row + 0.2)


def test_further_axes_are_pictures_of_their_own():
    values = np.arange(24.0).reshape(2, 3, 4)
    figure = Scores(values, ("c", "head", "layer"), {"c": ("a", "b")}).plot(kind="line")
    drawn = [[line.get_ydata().tolist() for line in ax.lines[:3]] for ax in figure.axes]
    assert np.allclose(drawn, values) and [ax.get_title() for ax in figure.axes] == ["c a", "c b"]


def test_groups_are_bands_over_layers_also_where_there_are_heads():
    values = np.arange(24.0).reshape(2, 3, 4)
    figure = Scores(values, ("group", "layer", "head"), {"group": ("image", "text")}).plot(kind="area")
    assert [ax.get_title() for ax in figure.axes] == ["head 0", "head 1", "head 2", "head 3"]
    assert np.allclose(bands(figure)[1][1], values[:, :, 0].sum(0)) and figure.axes[0].get_xlabel() == "layer"


def test_one_entry_is_a_point_that_can_be_seen():
    (line,) = (one for one in Scores([2.0], ("layer",)).plot(kind="line").axes[0].lines if list(one.get_ydata()) == [2.0])
    assert line.get_marker() == "o"


# Scales ------------------------------------------------------------------------------------------------------------------


def test_limits_are_the_ends_of_colours_and_of_the_axis():
    figure = Scores(SHARES - 0.3, ("layer", "head")).plot(limits=(-0.1, 0.2))
    (image,) = figure.axes[0].images
    assert (image.norm.vmin, image.norm.vmax) == (-0.1, 0.2)
    red, green, blue, _ = image.cmap(image.norm(0.0))
    assert min(red, green, blue) > 0.95  # zero is pale, wherever it lies
    assert image.colorbar.extend == "both"
    assert layers().plot(kind="line", limits=(1, 3)).axes[0].get_ylim() == (1, 3)
    (inside,) = Scores(SHARES, ("layer", "head")).plot(limits=(0.1, 0.6)).axes[0].images
    assert inside.colorbar.extend == "neither"
    assert max(inside.cmap(inside.norm(0.1))[:3]) - min(inside.cmap(inside.norm(0.1))[:3]) < 0.01


def test_log_is_a_scale_of_colours_or_of_the_axis():
    from matplotlib.colors import LogNorm

    (image,) = Scores(SHARES, ("layer", "head")).plot(log=True).axes[0].images
    assert isinstance(image.norm, LogNorm) and (image.norm.vmin, image.norm.vmax) == (0.1, 0.6)
    assert np.allclose(image.get_array(), SHARES)
    for kind in ("bars", "line"):
        assert layers().plot(kind=kind, log=True).axes[0].get_yscale() == "log"


def test_a_log_scale_with_limits_puts_zeros_below_it_and_nan_stays_grey():
    values = np.array([[0.0, 0.5], [np.nan, 1.0]])
    (image,) = Scores(values, ("query_pos", "key_pos")).plot(log=True, limits=(0.01, 1)).axes[0].images
    rgb = image.cmap(image.norm(image.get_array()))
    assert np.allclose(rgb[0, 0], image.cmap(0.0)) and np.allclose(rgb[1, 0], image.cmap.get_bad())
    assert image.colorbar.extend == "min"


# Averages and bases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3, 5, 9])
def test_smooth_draws_the_centred_average_beside_the_raw_line(n):
    raw, smooth = lines(layers().plot(kind="line", smooth=n))
    expected = [LAYERS[max(0, i - n // 2):i + n // 2 + 1].mean() for i in range(5)]
    assert raw.tolist() == LAYERS.tolist() and np.allclose(smooth, expected)
    (over_bars,) = lines(layers().plot(smooth=n))
    assert np.allclose(over_bars, expected)


def test_an_average_leaves_out_what_is_no_number_and_is_drawn_for_every_curve():
    values = np.array([[1.0, np.nan, 5.0, 7.0], [0.0, 3.0, 0.0, 3.0]])
    figure = Scores(values, ("head", "layer")).plot(kind="line", smooth=3)
    drawn = lines(figure)
    assert np.allclose(drawn[1], [1, 3, 6, 6]) and np.allclose(drawn[3], [1.5, 1, 2, 1.5])
    assert legend(figure) == ["0", "1"]


@pytest.mark.parametrize("kind", ["bars", "line", "area"])
def test_a_base_is_a_line_or_a_second_curve(kind):
    figure = layers().plot(kind=kind, base=1.5)
    assert any(list(one.get_ydata()) == [1.5, 1.5] for one in figure.axes[0].lines)
    other = Scores(LAYERS[::-1], ("layer",), name="control")
    figure = layers().plot(kind=kind, base=other)
    assert any(np.array_equal(one, LAYERS[::-1]) for one in lines(figure)) and "control" in legend(figure)


def test_a_base_of_both_axes_is_a_curve_beside_each():
    figure = shares().plot(kind="line", base=Scores(SHARES / 2, ("group", "layer"), shares().coords))
    assert np.allclose(sorted(map(tuple, lines(figure))), sorted(map(tuple, np.vstack([SHARES, SHARES / 2]))))
    pictures = Scores(np.stack([SHARES, SHARES]), ("c", "head", "layer"))
    base = Scores(np.array([[1.0] * 4, [2.0] * 4]), ("c", "layer"))
    dashed = [[one.get_ydata().tolist() for one in ax.lines if one.get_linestyle() == "--"]
              for ax in pictures.plot(kind="line", base=base).axes]
    assert dashed == [[[1.0] * 4], [[2.0] * 4]]


# Analyses whose Scores are curves by themselves --------------------------------------------------------------------------


def test_the_density_of_similarities_is_a_curve_for_every_pair():
    rng = np.random.default_rng(0)
    found = geometry.similarity_density({"image": rng.normal(size=(9, 4)) + 1, "text": rng.normal(size=(7, 4))})
    figure = found.plot()
    expected = [found.sel(group=a, other=b).values for a, b in (("image", "image"), ("image", "text"), ("text", "text"))]
    assert np.allclose(lines(figure), expected) and figure.axes[0].get_xlabel() == "cosine"
    assert legend(figure) == ["image · image", "image · text", "text · text"]
    assert figure.axes[0].lines[0].get_xdata().tolist() == list(found.coords["cosine"])


def test_the_similarity_of_modalities_is_lines_over_layers_with_their_interval():
    rng = np.random.default_rng(1)
    groups = {name: {f"L{i}.resid_post": rng.normal(size=(6, 4)) + i for i in range(3)} for name in ("image", "text")}
    found = modality_similarity(groups)
    figure = found.plot()
    cells = [("image", "image"), ("image", "text"), ("text", "text")]
    assert np.allclose(lines(figure), [found.sel(group=a, other=b).values for a, b in cells])
    for (low, high), (a, b) in zip(bands(figure), cells, strict=True):
        part = found.sel(group=a, other=b)
        assert np.allclose(low, part.low) and np.allclose(high, part.high)
    assert len(found.plot(kind="map").axes) > 2


def test_pairs_whose_order_matters_are_all_drawn():
    values = np.arange(8.0).reshape(2, 2, 2)
    assert len(lines(Scores(np.concatenate([values, values]), ("layer", "group", "other")).plot())) == 4


# What does not fit -------------------------------------------------------------------------------------------------------

GRID = Scores(SHARES - 0.4, ("layer", "head"))


@pytest.mark.parametrize(("scores", "options", "says"), [
    (layers(), {"kind": "lines"}, "mean.*line"), (layers(), {"kind": "map"}, "two axes.*kind='bars'"),
    (GRID, {"kind": "bars"}, "kind='line'"), (Scores(1.0, ()), {"kind": "line"}, "kind='bars'"),
    (GRID, {"kind": "area"}, "below 0: use kind='line'"), (shares(), {"kind": "area", "log": True}, "kind='line'"),
    (shares(), {"kind": "area", "smooth": 3}, "kind='line'"),
    (Scores([1.0, np.nan], ("layer",)), {"kind": "area"}, "finite"),
    (GRID, {"log": True}, r"limits=\("), (Scores([0.0, 1.0], ("layer",)), {"log": True}, r"1 of 2.*limits=\("),
    (layers(), {"log": True, "limits": (0, 1)}, r"above 0, as in limits=\(0.001, 1\)"),
    (layers(), {"limits": (2, 1)}, "first must be below"), (layers(), {"limits": 3}, "two numbers"),
    (layers(), {"limits": (0, np.inf)}, "finite"), (layers(), {"smooth": 4}, "3 and 5"), (layers(), {"smooth": 0}, "odd"),
    (layers(), {"smooth": True}, "odd"), (GRID, {"smooth": 3}, "kind='line'"), (GRID, {"base": 1.0}, "kind='line'"),
    (layers(), {"base": "x"}, "number, or Scores"), (layers(), {"base": np.nan}, "finite"),
    (layers(), {"base": Scores(LAYERS, ("head",))}, "same layer"),
    (layers(), {"base": Scores(LAYERS[:3], ("layer",))}, "layer 3"),
    (Scores(np.zeros((30, 40)), ("neuron", "layer")), {"kind": "line"}, r"30 curves.*sel\(neuron"),
    (Scores(np.zeros(0), ("layer",)), {"kind": "line"}, "empty")])
def test_what_does_not_fit_names_another_way(scores, options, says):
    with pytest.raises(RecordError, match=says):
        scores.plot(**options)


OPTIONS: list[dict[str, Any]] = [
    {}, {"kind": "line"}, {"kind": "area", "base": 0.5}, {"kind": "line", "smooth": 3, "base": 1, "log": True},
    {"kind": "map", "log": True}, {"kind": "line", "limits": (0.1, 2)}]


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_kind_is_saved_without_a_display_and_leaves_settings_alone(options, suffix, recwarn):
    before = dict(matplotlib.rcParams)
    one = layers(low=LAYERS - 0.1, high=LAYERS + 0.1) if options.get("kind") != "map" else shares()
    for scores in (one, shares()):
        scores.plot(**options).savefig(target := io.BytesIO(), format=suffix)
        assert target.getvalue()[:5] in (b"%PDF-", b"\x89PNG\r", b"<?xml")
    assert dict(matplotlib.rcParams) == before and not recwarn.list
