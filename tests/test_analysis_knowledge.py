"""What can be read off activations and weights: statements told apart, areas with their intervals, what heads relate."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from reference import reference
from tiny_models import build

import hooklab as hl
from hooklab.analysis.knowledge import knowledge_probe
from hooklab.analysis.probing import probe, single_units
from hooklab.analysis.ranking import area_interval, areas
from hooklab.analysis.relation_spaces import related, relation_graph, relation_json, relations, token_projections
from hooklab.analysis.sparseness import polysemanticity, sparsity
from hooklab.errors import RecordError
from hooklab.records import Scores

FAMILIES = ("gpt2", "llama", "gpt_neox", "gemma2", "phi3")


@cache
def opened(family: str) -> Any:
    return hl.load(build(family), verify=False)


@cache
def source(family: str) -> Any:
    return build(family)


def by_hand(family: str, ids: list[int], edits: dict[str, Any] | None = None) -> dict[str, torch.Tensor]:
    return reference(source(family), torch.tensor([ids]), edits=edits or {})


# Knowledge -----------------------------------------------------------------------------------------------------------------


def counted(values: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean([(x > y) + 0.5 * (x == y) for x in values[labels == 1] for y in values[labels == 0]]))


@cache
def truthful() -> tuple[Any, list[list[int]], list[list[int]]]:
    """Neuron 7 of the first layer reads the direction that sets tokens 10–19 apart from 20–29; neuron 8 reads nothing."""
    hf = build("gpt2")
    with torch.no_grad():
        hf.transformer.wte.weight[10:20, 0], hf.transformer.wte.weight[20:30, 0] = 5.0, -5.0
        mlp = hf.transformer.h[0].mlp.c_fc
        mlp.weight[:, 7:9], mlp.bias[7:9] = 0, 1.0
        mlp.weight[0, 7] = 1.0
    drawn = np.random.default_rng(0)
    true, false = ([[*drawn.integers(40, 90, 1 + i % 4).tolist(), int(drawn.integers(low, low + 10))] for i in range(24)]
                   for low in (10, 20))
    return hl.load(hf, verify=False), true, false


def test_a_planted_truth_neuron_tells_every_statement_and_a_silent_one_none():
    model, true, false = truthful()
    found, silent = (knowledge_probe(model, true, false, name) for name in ("L0N7", "L0N8"))
    assert (float(found), float(found.low), float(found.high)) == (1.0, 1.0, 1.0)
    assert (float(silent), float(silent.low), float(silent.high)) == (0.5, 0.5, 0.5)
    assert abs(float(found.control) - 0.5) < 0.1 and found.axes == ()


def test_an_ordinary_neuron_is_judged_by_counting_pairs_at_the_position_that_is_asked_for():
    model, true, false = truthful()
    labels = np.repeat([1, 0], 24)
    for at, column in (("last", -1), (0, 0)):
        read = [model.capture([ids], "L1.mlp_post")["L1.mlp_post"][0, column, 11].item() for ids in true + false]
        found = knowledge_probe(model, true, false, "L*N11", at)
        assert found.axes == ("layer",)
        assert found.values[1] == pytest.approx(counted(np.array(read), labels), abs=2 / 24**2)
        assert (found.low <= found.values).all() and (found.values <= found.high).all()
    assert 0.2 < float(knowledge_probe(model, true, false, "L0N7", 0)) < 0.8, "the first token says nothing about truth"


def test_a_direction_orders_statements_by_projection_and_a_linear_probe_finds_it():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    model, true, false = truthful()
    labels, direction = np.repeat([1, 0], 24), torch.randn(32, generator=torch.Generator().manual_seed(1))
    stream = np.array([model.capture([ids], "L1.resid_post")["L1.resid_post"][0, -1].numpy() for ids in true + false])
    found = knowledge_probe(model, true, false, "L*.resid_post", direction=direction)
    assert found.values[1] == pytest.approx(counted(stream @ direction.numpy(), labels), abs=2 / 24**2)
    assert float(knowledge_probe(model, true, false, "L0.resid_pre", direction=torch.eye(32)[0])) == 1.0
    fitted = knowledge_probe(model, true, false, "L*.resid_pre", folds=4)
    assert (fitted.values > 0.98).all() and (fitted.high <= 1).all() and (np.abs(fitted.control.values - 0.5) < 0.2).all()
    acts = model.capture(true + false, "L1.resid_pre", at="last")["L1.resid_pre"]
    again = probe(acts, labels, folds=4).auroc
    assert fitted.values[1] == pytest.approx(float(again), abs=1e-6)


def test_knowledge_that_cannot_be_asked_for_is_refused_with_what_can():
    model, true, false = truthful()
    for arguments, options, words in (((true, false, "L0N[1,2]"), {}, "several neurons"), (([], false, "L0N1"), {}, "true="),
                                      ((true, false, "L0N7", "all"), {}, "one of each"),
                                      ((true, false, "L0.pattern"), {}, "no positions"),
                                      ((true, false, "L0.resid_post"), {"direction": torch.ones(3)}, "32 finite numbers")):
        with pytest.raises(RecordError, match=words):
            knowledge_probe(model, *arguments, **options)


def test_the_interval_of_an_area_is_that_of_examples_drawn_again_within_their_class():
    drawn = np.random.default_rng(3)
    labels = np.repeat([0, 1], [20, 30])
    values = drawn.normal(size=50) + labels
    again = []
    for _ in range(1500):
        zero, one = drawn.choice(values[:20], 20), drawn.choice(values[20:], 30)
        again.append((one[:, None] > zero).mean() + 0.5 * (one[:, None] == zero).mean())
    low, high = area_interval(values[:, None], labels)
    np.testing.assert_allclose([low[0], high[0]], np.quantile(again, [0.025, 0.975]), atol=0.02)
    assert areas(values[:, None], labels)[0] == pytest.approx(counted(values, labels))
    parts = [np.r_[0:10, 20:35], np.r_[10:20, 35:50]]
    expected = np.mean([counted(values[part], labels[part]) for part in parts])
    assert areas(values[:, None], labels, parts)[0] == pytest.approx(expected)
    assert np.isnan(areas(values[:, None], labels, [np.arange(5)])).all()
    assert np.isnan(area_interval(values[:, None], labels, [np.arange(5)])).all()


def test_single_units_of_several_layers_have_an_area_each():
    drawn, labels = np.random.default_rng(4), np.array([0, 1] * 12)
    acts = {f"L{i}.mlp_post": drawn.normal(size=(24, 3)) for i in (0, 2)}
    found = single_units(acts, labels)
    assert found.axes == ("layer", "neuron") and found.coords["layer"] == (0, 2)
    expected = [[counted(acts[f"L{i}.mlp_post"][:, unit], labels) for unit in range(3)] for i in (0, 2)]
    np.testing.assert_allclose(found.values, expected)
    np.testing.assert_allclose(single_units(acts["L2.mlp_post"], labels).values, expected[1])


def test_labels_and_thresholds_that_are_no_numbers_are_refused():
    with pytest.raises(RecordError, match="finite"):
        probe(np.eye(4), [0.0, float("nan"), 0.0, float("nan")], folds=2)
    for act in (lambda: sparsity(np.ones((3, 2)), threshold=float("nan")), lambda: sparsity(np.ones((3, 0))),
                lambda: polysemanticity(np.ones((3, 2)), [0, 1, 1], threshold=float("nan"))):
        with pytest.raises(RecordError):
            act()


# Relations -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("matrix", ["QK", "OV"])
def test_projections_on_relations_are_dot_products_with_the_singular_vectors_of_the_dense_matrix(family, matrix):
    model, ids = opened(family), [5, 9, 20]
    dense = getattr(model.W, matrix)(1, 2).full().double()
    u, s, vh = torch.linalg.svd(dense)
    for side, vectors in (("query", u[:, :3].T), ("key", vh[:3])):
        found = token_projections(model, 1, 2, ids, side=side, matrix=matrix, fold=False)
        expected = model.W.E[ids].double() @ vectors.T
        np.testing.assert_allclose(np.abs(found.values), expected.abs().numpy(), rtol=2e-3, atol=2e-3)
    assert found.coords["token"] == ("#5", "#9", "#20")
    if model.sites.missing("ln1") is None:
        stream = by_hand(family, [5])["embed"][0] if family == "llama" else model.W.E[[5, 9]]
        centred = stream - (stream.mean(-1, keepdim=True) if family in ("gpt2", "gpt_neox") else 0)
        unit = centred / centred.pow(2).mean(-1, keepdim=True).add(1e-6).sqrt()
        asked = token_projections(model, 0, 0, [5, 9], normed=True).values
        np.testing.assert_allclose(asked[0], (unit[0] @ relations(model, 0, 0)[0].T).numpy(), rtol=5e-3, atol=5e-3)


def test_relations_one_by_one_are_products_of_projections_in_standard_deviations():
    model, ids = opened("llama"), list(range(20, 40))
    u, _, v = relations(model, 1, 1, top=3)
    embedded = model.W.E[ids] - model.W.E[ids].mean(0)
    for number in range(3):
        scores = related(model, 1, 1, ids, number=number)
        pairs = torch.outer(embedded @ u[number], embedded @ v[number]).double().numpy()
        np.testing.assert_allclose(scores.values, (pairs - pairs.mean()) / pairs.std(), atol=1e-3)
        assert scores.name == f"L1H1 QK relation {number}"
    with pytest.raises(RecordError, match="no number 8"):
        related(model, 1, 1, ids, number=8)


def test_a_graph_of_planted_relations_holds_them_alone_names_them_and_is_the_same_as_json():
    hf = build("gpt2")
    drawn = torch.Generator().manual_seed(0)
    embedding = torch.linalg.qr(torch.randn(32, 32, generator=drawn))[0]
    with torch.no_grad():
        hf.transformer.wte.weight[:20] = embedding[:20]
        weight = hf.transformer.h[0].attn.c_attn.weight
        weight[:, :8] = weight[:, 32:40] = 0
        for column, (query, key) in enumerate([(3, 7), (5, 9)]):
            weight[:, column], weight[:, 32 + column] = embedding[query], embedding[key]
    with hl.load(hf, verify=False) as model:
        scores = related(model, 0, 0, range(20), top=2, fold=False)
        graph, text = relation_graph(scores, 6), json.loads(relation_json(scores, 6))
        assert {(a, b): data["relation"] for a, b, data in graph.edges(data=True)} == {
            ("#3", "#7"): "L0H0 QK", ("#5", "#9"): "L0H0 QK"}
        assert {(link["source"], link["target"]): link["weight"] for link in text["links"]} == {
            (a, b): data["weight"] for a, b, data in graph.edges(data=True)}
        assert {node["id"] for node in text["nodes"]} == set(graph.nodes) and text["directed"] is True
        with torch.no_grad():
            order = torch.randperm(256, generator=drawn)
            weight[:, 32:40] = weight[:, 32:40].flatten()[order].view(32, 8)
        assert not relation_graph(related(model, 0, 0, range(20), top=2, fold=False), 6).edges
    with pytest.raises(RecordError, match="query key"):
        relation_json(Scores(np.ones(2), ("layer",)))
    with pytest.raises(RecordError, match="did you mean|query"):
        token_projections(opened("gpt2"), 0, 0, [1, 2], side="querry")
    with pytest.raises(RecordError, match="no norm before attention"):
        token_projections(opened("olmo2"), 0, 0, [1, 2], normed=True)
