"""Rollout and flow: against sums over all paths and cuts through all sets of nodes, and against planted heads."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import planted
import pytest
import torch
from reference import reference
from tiny_models import build

import hooklab as hl
from hooklab.analysis.flow import attention_flow, attention_rollout, rollout_by_head
from hooklab.analysis.watching import AttentionError
from hooklab.errors import PositionError, PromptError

FAMILIES = ["gpt2", "llama", "gpt_neox", "gemma2", "phi3"]
SINKS = [*FAMILIES, "gpt_oss"]
"""With one whose rows add up to less than 1: a sink takes a share."""
IDS = [8, 12, 25, 9, 12]


@cache
def opened(family: str) -> Any:
    return hl.load(build(family), verify=False)


@cache
def patterns(family: str) -> np.ndarray:
    """[layer head query key], by transformers."""
    with torch.no_grad():
        seen = build(family, attn_implementation="eager")(torch.tensor([IDS]), output_attentions=True).attentions
    return np.stack([layer[0].double().numpy() for layer in seen])


@cache
def weighted(family: str) -> np.ndarray:
    """Attention times the length of what each key's value writes [layer head query key], by the hand-written transformer."""
    hf = build(family)
    values = reference(hf, torch.tensor([IDS]))
    found = []
    for layer, pattern in enumerate(patterns(family)):
        v = values[f"L{layer}.v"].repeat_interleave(len(pattern) // values[f"L{layer}.v"].shape[2], 2)
        moved = reference(hf, torch.tensor([IDS]), edits={f"L{layer}.z": lambda z, v=v: v})[f"L{layer}.result"][0]
        found.append(pattern * moved.double().norm(dim=-1).numpy().T[:, None])
    return np.stack(found)


def stochastic(layers: int, heads: int, n: int, seed: int, *, causal: bool = True) -> np.ndarray:
    found = np.random.default_rng(seed).gamma(0.4, size=(layers, heads, n, n)) + 1e-3
    found = np.tril(found) if causal else found
    return found / found.sum(-1, keepdims=True)


def table(layer: np.ndarray, residual: float, fuse: Any = np.mean) -> np.ndarray:
    """One layer as Abnar & Zuidema mix it: heads fused, the stream added, rows divided by their sum."""
    mixed = (1 - residual) * fuse(layer, axis=0) + residual * np.eye(layer.shape[-1])
    return mixed / mixed.sum(-1, keepdims=True)


def paths(tables: list[np.ndarray], end: int, start: int) -> float:
    """The sum over all paths from `start` below to `end` above, one by one."""
    total = 0.0
    for between in itertools.product(range(len(tables[0])), repeat=len(tables) - 1):
        places = [start, *between, end]
        total += np.prod([tables[i][places[i + 1], places[i]] for i in range(len(tables))])
    return total


@pytest.mark.parametrize("residual", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("heads", ["mean", "max", "min"])
@pytest.mark.parametrize("family", SINKS)
def test_rollout_is_the_sum_over_all_paths_of_the_attention_that_transformers_returns(family, heads, residual):
    tables = [table(layer, residual, getattr(np, heads)) for layer in patterns(family)]
    rollout = attention_rollout(opened(family), IDS, residual=residual, heads=heads)
    assert rollout.axes == ("layer", "query_pos", "key_pos")
    for layer, end, start in itertools.product(range(2), range(5), range(5)):
        assert rollout.values[layer, end, start] == pytest.approx(paths(tables[:layer + 1], end, start), abs=2e-6)
    np.testing.assert_allclose(rollout.values.sum(-1), 1, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_rollout_of_given_patterns_is_the_product_of_their_tables(seed):
    given = stochastic(3, 2, 4, seed, causal=False)
    tables = [table(layer, 0.3) for layer in given]
    for source in (given, torch.tensor(given)):
        np.testing.assert_allclose(attention_rollout(source, residual=0.3).values[2], tables[2] @ tables[1] @ tables[0],
                                   atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_value_weighted_rollout_weighs_attention_by_what_it_writes(family):
    fused = [layer.sum(0) / layer.sum((0, 2))[:, None] for layer in weighted(family)]
    tables = [0.5 * layer + 0.5 * np.eye(5) for layer in fused]
    rollout = attention_rollout(opened(family), IDS, weighting="write")
    np.testing.assert_allclose(rollout.values[0], tables[0], atol=2e-5)
    np.testing.assert_allclose(rollout.values[1], tables[1] @ tables[0], atol=2e-5)


def least_cut(tables: list[np.ndarray], end: int, start: int) -> float:
    """The smallest capacity of all cuts between a node above and one below: what a maximum flow is (Ford & Fulkerson)."""
    n, layers = len(tables[0]), len(tables)
    nodes = [(layer, pos) for layer in range(layers + 1) for pos in range(n)]
    source, sink = (layers, end), (0, start)
    free = [node for node in nodes if node not in (source, sink)]
    edges = [((layer, row), (layer - 1, key), tables[layer - 1][row, key])
             for layer in range(1, layers + 1) for row in range(n) for key in range(n)]
    return min(sum(weight for a, b, weight in edges if a in side and b not in side)
               for size in range(len(free) + 1) for some in itertools.combinations(free, size)
               for side in [{source, *some}])


@pytest.mark.parametrize(("seed", "causal"), [(0, True), (1, True), (2, False)])
def test_flow_is_the_least_of_all_cuts(seed, causal):
    given = stochastic(2, 2, 3, seed, causal=causal)
    tables = [table(layer, 0.5) for layer in given]
    flow = attention_flow(given, positions="all")
    expected = [[least_cut(tables, end, start) for start in range(3)] for end in range(3)]
    np.testing.assert_allclose(flow.values, expected, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_flow_is_never_less_than_rollout_and_equal_to_it_over_one_layer(family):
    model = opened(family)
    flow, rollout = attention_flow(model, IDS, "all"), attention_rollout(model, IDS)
    assert (flow.values >= rollout.values[-1] - 1e-9).all() and flow.values.max() <= 1 + 1e-9
    assert (flow.values > rollout.values[-1] + 1e-3).any()
    one = attention_flow(patterns(family)[:1], positions="all")
    np.testing.assert_allclose(one.values, table(patterns(family)[0], 0.5), atol=1e-10)


def test_flow_is_asked_for_at_positions_and_labels_them():
    model = hl.load("lab")
    flow = attention_flow(model, "Mary saw John", positions='"saw"')
    assert flow.coords["query_pos"] == ("2:  saw",) and flow.coords["key_pos"][3] == "3:  John"
    assert flow.values[0, 3] == 0, "nothing flows from what comes after"
    np.testing.assert_allclose(flow.values[0], attention_flow(model, "Mary saw John", positions="all").values[2], atol=1e-12)


# Through heads ----------------------------------------------------------------------------------------------------------


def through(layers: Any, each: Any, layer: int, head: int, end: int, start: int) -> float:
    """The sum over all paths that take one head's edge in one layer; `each` has the heads' shares of a layer's table."""
    return paths([each[layer][head] if i == layer else one for i, one in enumerate(layers)], end, start)


@pytest.mark.parametrize("family", SINKS)
@pytest.mark.parametrize("weighting", ["attention", "write"])
def test_what_passes_through_a_head_is_the_sum_over_the_paths_that_take_it(family, weighting):
    if weighting == "attention":
        each = [0.6 * layer / len(layer) for layer in patterns(family)]
    else:
        each = [0.6 * layer / layer.sum((0, 2))[:, None] for layer in weighted(family)]
    wholes = [layer.sum((0, 2))[:, None] + 0.4 for layer in each]
    each = [layer / whole for layer, whole in zip(each, wholes, strict=True)]
    kept = [0.4 * np.eye(5) / whole for whole in wholes]
    tables = [layer.sum(0) + stream for layer, stream in zip(each, kept, strict=True)]
    found = rollout_by_head(opened(family), IDS, 1, "last", residual=0.4, weighting=weighting)
    expected = [[through(tables, each, layer, head, 4, 1) for head in range(4)] for layer in range(2)]
    np.testing.assert_allclose(found.values, expected, atol=2e-5)
    stays = [paths([kept[i] if i == layer else one for i, one in enumerate(tables)], 4, 1) for layer in range(2)]
    whole = attention_rollout(opened(family), IDS, residual=0.4, weighting=weighting).values[-1, 4, 1]
    np.testing.assert_allclose(found.values.sum(1) + stays, whole, atol=2e-5)


def test_several_origins_add_up_and_several_destinations_are_averaged():
    model = opened("llama")
    apart = [[rollout_by_head(model, IDS, start, end).values for start in (0, 2)] for end in (3, 4)]
    together = rollout_by_head(model, IDS, [0, 2], [3, 4])
    np.testing.assert_allclose(together.values, np.mean(np.sum(apart, axis=1), axis=0), atol=1e-12)


def test_a_planted_copy_flows_through_the_two_heads_that_carry_it():
    hf = planted.gate(source=2, at=4, last=7)  # L0H1 carries 2 to 4, L1H2 carries that to the last position
    with hl.load(hf, verify=False) as model:
        ids = list(range(8))
        found = rollout_by_head(model, ids, 2, 7, weighting="write")
        elsewhere = rollout_by_head(model, ids, 3, 7, weighting="write")
        flow = attention_flow(model, ids, weighting="write")
    expected = np.zeros((2, 4))
    expected[0, 1] = expected[1, 2] = 0.25  # half of each layer moves, and half of the other is already on its way
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    np.testing.assert_allclose(elsewhere.values, 0, atol=1e-6)
    np.testing.assert_allclose(flow.values[0], [0, 0, 0.5, 0, 0.5, 0, 0, 0.5], atol=1e-5)


@pytest.mark.parametrize(("ask", "error", "words"), [
    (lambda m: attention_rollout(m, IDS, heads="median"), AttentionError, "mean, max, min"),
    (lambda m: attention_rollout(m, IDS, residual=1.5), AttentionError, "from 0 to 1"),
    (lambda m: attention_rollout(m, IDS, weighting="value"), AttentionError, "attention, write"),
    (lambda m: attention_rollout(m, [IDS, [5, 6]]), PromptError, "one prompt at a time"),
    (lambda m: attention_rollout(np.eye(3)), AttentionError, "layer head query_pos key_pos"),
    (lambda m: attention_rollout(patterns("gpt2"), weighting="write"), AttentionError, "weighted by write"),
    (lambda m: attention_rollout(patterns("gpt2"), m.tokens([5, 6])), AttentionError, "do not fit"),
    (lambda m: attention_flow(m, IDS, positions=9), PositionError, "out of range"),
    (lambda m: rollout_by_head(m, [IDS, [5, 6]], 0), PromptError, "one prompt at a time"),
    (lambda m: rollout_by_head(m, IDS, 9), PositionError, "out of range"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_what_cannot_be_asked_is_refused_with_what_can(ask, error, words):
    with pytest.raises(error, match=words):
        ask(opened("gpt2"))
