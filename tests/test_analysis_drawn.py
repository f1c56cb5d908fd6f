"""Whatever an analysis hands back draws itself: `.show()` in a notebook, `.plot()` without a browser, one line of text.

The rows of `test_analysis_matrix`, and `MORE` for what these do not ask, are run with every public function replaced by one
that also keeps what it returns. That is drawn, and the numbers are read back from what was drawn.
"""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_analysis_matrix as matrix
import torch

import hooklab as hl
from hooklab.errors import RecordError
from hooklab.records import Scores
from hooklab.records.drawn import Drawn
from hooklab.views import registry
from hooklab.views.boards import Board

matplotlib = pytest.importorskip("matplotlib")

FAMILY = "gpt2"
ASKED = ("sweep", "path_patch", "causal_trace", "attribute", "lens", "induction_scores", "generate")
"""What stands in `hooklab` itself."""
PAIR = matrix.PAIR
PLAIN = {
    "apply_head": "a head's numbers", "merged_heads": "a with block", "ablated_heads": "a with block",
    "heads_for_share": "a list of heads", "virtual_head": "a matrix in factors", "relations": "tensors",
    "relation_graph": "a graph of networkx", "relation_json": "text", "node_write": "a vector", "feature_writes": "vectors",
    "max_activating": "a list of contexts", "interpolate": "vectors", "modality_vectors": "vectors by group and layer",
    "prune": "a model", "log_probs": "numbers per token", "neighbours": "numbers of examples"}
"""Public functions that give something else than Scores or a record of them."""
CLASSES = ("TunedLens", "Moments")
"""What is no result, but something to work with."""


@cache
def model() -> Any:
    return matrix.opened(FAMILY)


@cache
def lab() -> Any:
    return hl.load("lab")


def cloud(n: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 5))


def groups() -> dict[str, Any]:
    return {name: {f"L{i}.resid_post": cloud(24, seed + i) + 3 * seed for i in range(2)} for seed, name in enumerate("ab")}


def dictionary() -> Any:
    return matrix.autoencoder(FAMILY)


TEXT = "When Mary and John went to the store, John gave a drink to"
SAID = {"answer": " Mary", "wrong": " John"}
NAMES = ("Mary", "John", "Tom", "Anna")
LABELS = [i % 2 for i in range(24)]
IDS = matrix.IDS
H = hl.analysis
MORE: dict[str, Callable[[], Any]] = {
    "rollout_by_head": lambda: H.rollout_by_head(model(), IDS, 2),
    "merge_effect": lambda: H.merge_effect(model(), [IDS, matrix.OTHER], 1, (0, 3)),
    "run_head": lambda: H.run_head(model(), matrix.RAGGED, 1, 2),
    "run_head once": lambda: H.run_head(lab(), TEXT, 1, 2),
    "token_projections": lambda: H.token_projections(lab(), 1, 2, [" Mary", " John"]),
    "related": lambda: H.related(lab(), 1, 2, [" Mary", " John"]),
    "top_tokens": lambda: H.top_tokens(lab(), "L2N7"),
    "accumulated": lambda: H.accumulated(model(), IDS, torch.ones(32)),
    "skip_layers": lambda: H.skip_layers(lab(), TEXT, **SAID),
    "train_tuned_lens": lambda: H.train_tuned_lens(lab(), [TEXT], steps=3),
    "total_effects": lambda: H.total_effects(lab(), TEXT, H.nodes(lab(), TEXT, kinds="mlps", **SAID), **SAID),
    "downstream": lambda: H.downstream(lab(), TEXT, "L1H2"),
    "token_inputs": lambda: H.token_inputs(lab(), "L0N7"),
    "circuit": lambda: H.circuit(model(), **matrix.PAIR, nodes="L*.mlp_out", keep=0.1),
    "circuit of all": lambda: H.circuit(model(), **matrix.PAIR, nodes="L*.mlp_out", keep=1.0),
    "agreement": lambda: H.agreement(Scores(cloud()[0], ("layer",)), Scores(cloud()[1], ("layer",))),
    "patching_metrics": lambda: H.patching_metrics(model(), IDS, matrix.OTHER, answer=17, wrong=23),
    "polysemanticity": lambda: H.polysemanticity(abs(cloud()), [i % 3 for i in range(24)]),
    "features": lambda: H.features(model(), dictionary(), [IDS, matrix.OTHER], k=3, at="L1.resid_post"),
    "feature_dashboard": lambda: H.feature_dashboard(model(), "L1.mlp_post", [IDS], features=[3, 5]),
    "single_units": lambda: H.single_units(cloud(), LABELS),
    "knowledge_probe": lambda: H.knowledge_probe(lab(), [f"{a} and" for a in NAMES], [f"{a} to" for a in NAMES],
                                                 "L*.resid_post", folds=2),
    "principal": lambda: H.principal(H.Moments().add(cloud()), 3),
    "independent": lambda: H.independent(cloud(), 2),
    "nonnegative": lambda: H.nonnegative(abs(cloud()), 2),
    "cluster_overlap": lambda: H.cluster_overlap(cloud(), LABELS, k=3),
    "modality_similarity": lambda: H.modality_similarity(groups()),
    "modality_geometry": lambda: H.modality_geometry(groups(), "overlap", k=3),
    "pruning_curve": lambda: H.pruning_curve(model(), Scores(np.eye(2, 4), ("layer", "head")), lambda _: 1.0,
                                             shares=[0, 1]),
    "similarity_density": lambda: H.geometry.similarity_density({"a": cloud(), "b": cloud(9, 1)}),
    "label_overlap": lambda: H.geometry.label_overlap(cloud(), LABELS, k=3),
    "neighbour_overlap": lambda: H.geometry.neighbour_overlap(cloud(), cloud(24, 1), k=3),
    "homogeneity": lambda: H.geometry.homogeneity(cloud(), LABELS, clusters=LABELS),
    "intrinsic_dimension": lambda: H.geometry.intrinsic_dimension({"L0.z": cloud(60), "L1.z": cloud(60, 1)}, method="PCA"),
    "generate": lambda: hl.generate(lab(), TEXT, max_new_tokens=2),
    "induction_scores": lambda: hl.induction_scores(lab()),
    "train_sae": lambda: hl.sae.train_sae(iter([torch.randn(32, 8) for _ in range(4)]), 16, steps=4, l1=0.1),
}


@pytest.fixture(autouse=True)
def nothing_is_left_open():
    yield
    registry.close_all()


@pytest.fixture()
def kept(monkeypatch):
    """(name, result) of every public analysis that is called."""
    found: list[tuple[str, Any]] = []

    def keeping(name: str, function: Any) -> Any:
        def call(*given, **options):
            result = function(*given, **options)
            found.append((name, result))
            return result
        return call

    for home, names in ((hl, ASKED), (H, H.__all__), (H.geometry, dir(H.geometry))):
        for name in names:
            if inspect.isfunction(function := getattr(home, name)) and not name.startswith("_"):
                monkeypatch.setattr(home, name, keeping(name, function))
    return found


def numbers(ax: Any) -> np.ndarray:
    """All finite numbers that one picture was made of."""
    found = [np.ma.filled(one.get_array().astype(float), np.nan).reshape(-1) for one in ax.images]
    found += [np.array([bar.get_height() for bar in ax.patches], float)]
    curves = ax.lines if ax.images else ax.lines[:-1]  # the last is the line at 0
    found += [np.asarray(line.get_ydata(), float) for line in curves]
    whole = np.concatenate(found)
    return np.sort(whole[np.isfinite(whole)])


def held(view: Any) -> np.ndarray:
    """The numbers that a view sends to its front end."""
    entry = view.facts["arrays"]["values"]
    values = np.frombuffer(view.blob, "<f4", int(np.prod(entry["shape"])), entry["at"])
    return np.sort(values[np.isfinite(values)])


def drawn(result: Any) -> None:
    """Show and plot a result, which must work at its defaults, and print it."""
    before = dict(matplotlib.rcParams)
    view = result.show()
    assert view.static() and "<script" not in result._repr_html_() and 0 < len(repr(result)) < 1500
    figure = result.plot() if not isinstance(result, hl.Run) else None
    for suffix in ("png", "svg", "pdf") if figure is not None else ():
        figure.savefig(target := io.BytesIO(), format=suffix)
        assert target.getvalue()
    assert dict(matplotlib.rcParams) == before
    if isinstance(result, Drawn):
        parts_are_drawn(result, view, figure)


def parts_are_drawn(result: Drawn, view: Any, figure: Any) -> None:
    """Every part of a record stands in its figure and on its board, with its numbers."""
    scores = {name: one for name, one in result.pictures().items() if isinstance(one, Scores)}
    places = {ax.get_title(): ax for ax in figure.axes if ax.get_title()}
    assert list(places) == list(scores) and scores
    for name, one in scores.items():
        finite = np.sort(one.values[np.isfinite(one.values)].astype(float).reshape(-1))
        assert np.allclose(numbers(places[name]), finite)
        if isinstance(view, Board) and name in view.views and "values" in view[name].facts["arrays"]:
            assert np.allclose(held(view[name]), finite, rtol=1e-5)
    assert repr(result).startswith(type(result).__name__) and type(result).__name__ in result._repr_html_()
    assert type(hl.view.of(result)).__name__ == type(view).__name__


@pytest.mark.parametrize("name", matrix.ROWS)
def test_every_result_of_the_matrix_draws_itself(name, kept):
    matrix.ROWS[name](FAMILY)
    for function, result in kept:
        if function not in PLAIN:
            drawn(result)


@pytest.mark.parametrize("name", MORE)
def test_every_other_result_draws_itself(name):
    drawn(MORE[name]())


def test_no_public_function_is_forgotten():
    text = (Path(__file__).parent / "test_analysis_matrix.py").read_text("utf-8")
    asked = {one.rpartition(".")[2] for one in re.findall(r"hl\.(?:analysis\.)?((?:geometry\.)?\w+)\(", text)} | set(MORE)
    public = {name for name in H.__all__ if inspect.isfunction(getattr(H, name))}
    public |= {name for name, one in vars(H.geometry).items() if inspect.isfunction(one)
               and one.__module__ == H.geometry.__name__ and not name.startswith("_")}
    assert public | set(ASKED) <= asked | set(PLAIN)
    assert not set(PLAIN) & set(MORE) and not set(PLAIN) - public


# What a record says of itself --------------------------------------------------------------------------------------------


class Found(Drawn):
    def __init__(self, **parts: Any) -> None:
        self.parts = parts

    def pictures(self) -> Any:
        return self.parts


def test_a_record_is_one_line_and_a_page_of_its_parts():
    found = Found(effect=Scores([0.5, -1.0], ("layer",), unit="logits"), none=None, tokens=1200, what="a < b",
                  nothing=Scores(np.zeros(0), ("layer",)), single=Scores(0.25, (), unit="nats"))
    assert repr(found) == ("Found(effect: layer 2, logits, -1 to 0.5; tokens: 1200; what: a < b; nothing: layer 0, empty; "
                           "single: nats, 0.25)")
    assert "a &lt; b" in found._repr_html_() and "<h4>Found" in found._repr_html_()
    board = found.show(title="mine")
    assert list(board) == ["effect"] and "mine" in board.static() and "0.25" in board.static()
    figure = found.plot()
    assert [ax.get_title() for ax in figure.axes] == ["effect", "single"]
    assert figure.get_suptitle().startswith("Found · tokens 1")


def test_long_curves_are_pictures_and_nothing_to_draw_is_said():
    board = Found(loss=Scores(np.arange(300.0), ("step",))).show()
    assert not board.views and "data:image/png;base64," in board.static() and "step 300" in board.static()
    large = Found(axes=Scores(np.zeros((1001, 1000)), ("component", "dims"))).show()
    assert not large.views and "data:image/png;base64," in large.static()
    with pytest.raises(RecordError, match="nothing to plot in Found"):
        Found(tokens=3).plot()


def test_lines_are_drawn_where_a_record_says_so():
    trained = MORE["train_tuned_lens"]()
    ax = trained.plot().axes[0]
    assert np.allclose([line.get_ydata() for line in ax.lines[:-1]], trained.history.values.T)
    assert ax.get_xlabel() == "step"


def test_a_dashboard_is_drawn_for_the_feature_that_is_chosen():
    board = MORE["feature_dashboard"]()
    assert "neuron 5" in board.plot(neuron=5).axes[0].get_title()
    assert type(board.show()).__name__ == "Features" and not registry.close_all() > 1


def test_a_head_that_ran_on_several_prompts_is_drawn_without_padding():
    run = MORE["run_head"]()
    parts = run.pictures()
    shapes = [parts[f"pattern {i}"].shape for i in range(3)]
    assert shapes == [(len(ids), len(ids)) for ids in matrix.RAGGED]
    assert all(np.allclose(parts[f"pattern {i}"].values.sum(-1), 1, atol=1e-5) for i in range(3))
