"""Attention between groups of tokens: against sums counted by hand, cell by cell, and against planted heads."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import planted
import pytest
import torch
from reference import reference
from tiny_models import build, chameleon_processor, image

import hooklab as hl
from hooklab.analysis import watching
from hooklab.analysis.mass import attention_mass, attention_shares, mass_between
from hooklab.analysis.watching import AttentionError
from hooklab.errors import PositionError, TokenError
from hooklab.statistics import interval

FAMILIES = ["gpt2", "llama", "gpt_neox", "gemma2", "phi3"]
RAGGED = [[8, 12, 25, 9, 12, 30, 8], [9, 9, 30], [8, 13, 25, 9, 13]]
GROUPS = {"start": ":2", "last": "last", "between": "all - (:2 | last)"}
"""Of RAGGED, the second has nothing between."""
PLACES = {"start": lambda n: [0, 1], "last": lambda n: [n - 1], "between": lambda n: list(range(2, n - 1))}


@cache
def opened(family: str) -> Any:
    return hl.load(build(family), verify=False)


@cache
def by_itself(family: str) -> Any:
    """Pattern [head query key], values by query head [key head d_head] and their writes [key head d_model], per example and
    layer, by the hand-written transformer."""
    hf = build(family)
    found = []
    for ids in RAGGED:
        values = reference(hf, torch.tensor([ids]))
        layers = []
        for layer in range(2):
            v = values[f"L{layer}.v"][0]
            pattern = values[f"L{layer}.pattern"][0].double().numpy()
            v = v.repeat_interleave(len(pattern) // v.shape[1], 1)
            moved = reference(hf, torch.tensor([ids]), edits={f"L{layer}.z": lambda z, v=v: v[None]})
            layers.append((pattern, v.double().numpy(), moved[f"L{layer}.result"][0].double().numpy()))
        found.append(layers)
    return found


def brute(pattern: Any, rows: Any, columns: Any, *, diagonal: bool = True, reduce: str = "mean", values: Any = None,
          writes: Any = None) -> float:
    """One head's mass, cell by cell: pattern [query key], values [key d_head], writes [key d_model]."""
    if not rows or not columns:
        return np.nan
    total: Any = 0.0
    for row in rows:
        for column in columns:
            if row == column and not diagonal:
                continue
            what = values[column] if values is not None else 1.0 if writes is None else np.linalg.norm(writes[column])
            total = total + pattern[row, column] * what
    if values is not None:
        total = np.linalg.norm(total)
    return total / len(rows) if reduce == "mean" else total


def stochastic(n: int, heads_: int = 3, seed: int = 0) -> np.ndarray:
    """Random patterns [head query key] whose rows look back and add up to 1."""
    found = np.tril(np.random.default_rng(seed).gamma(0.3, size=(heads_, n, n)) + 1e-9)
    return found / found.sum(-1, keepdims=True)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_every_mass_of_random_patterns_is_the_sum_over_its_cells(seed, diagonal, reduce):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    pattern, options = stochastic(n, seed=seed), dict(diagonal=diagonal, reduce=reduce)
    rows, columns = (rng.permutation(n)[:rng.integers(1, n + 1)].tolist() for _ in range(2))
    values, writes = rng.normal(size=(n, 3, 5)), rng.normal(size=(n, 3, 7))
    norms = np.linalg.norm(writes, axis=-1).T
    for head in range(3):
        one = pattern[head]
        assert mass_between(pattern, rows, columns, **options)[head] == pytest.approx(brute(one, rows, columns, **options))
        assert mass_between(pattern, rows, columns, values=values, **options)[head] == pytest.approx(
            brute(one, rows, columns, values=values[:, head], **options))
        assert mass_between(pattern, rows, columns, norms=norms, **options)[head] == pytest.approx(
            brute(one, rows, columns, writes=writes[:, head], **options))


@pytest.mark.parametrize("seed", range(5))
def test_densities_over_disjoint_groups_that_are_all_columns_add_up_to_one_for_every_set_of_rows(seed):
    rng = np.random.default_rng(seed)
    pattern = stochastic(7, seed=seed)
    groups = np.split(rng.permutation(7), sorted(rng.choice(np.arange(1, 7), 3, replace=False)))
    for size in range(1, 8):
        rows = rng.permutation(7)[:size]
        np.testing.assert_allclose(sum(mass_between(pattern, rows, group) for group in groups), 1, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("weighting", "reduce", "diagonal"), [
    ("attention", "mean", True), ("attention", "sum", False), ("value", "sum", True), ("value", "mean", False),
    ("write", "mean", True), ("write", "sum", False)])
def test_groups_of_a_ragged_batch_have_the_mass_that_is_counted_cell_by_cell(family, weighting, reduce, diagonal):
    expected = np.full((len(RAGGED), 3, 3, 2, 4), np.nan)
    for example, ids in enumerate(RAGGED):
        for layer, (pattern, values, writes) in enumerate(by_itself(family)[example]):
            for a, rows in enumerate(PLACES.values()):
                for b, columns in enumerate(PLACES.values()):
                    for head in range(4):
                        extra = {"value": dict(values=values[:, head]), "write": dict(writes=writes[:, head])}
                        expected[example, a, b, layer, head] = brute(
                            pattern[head], rows(len(ids)), columns(len(ids)), diagonal=diagonal, reduce=reduce,
                            **extra.get(weighting, {}))
    mass = attention_mass(opened(family), RAGGED, GROUPS, GROUPS, weighting=weighting, reduce=reduce, diagonal=diagonal)
    assert mass.axes == ("query_group", "group", "layer", "head") and mass.coords["group"] == tuple(GROUPS)
    np.testing.assert_allclose(mass.examples, expected, atol=2e-5, rtol=2e-5)
    np.testing.assert_allclose(mass.values, np.nanmean(expected, 0), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_densities_of_a_model_add_up_to_one_over_groups_that_are_all_tokens(family):
    mass = attention_mass(opened(family), RAGGED[0], {"a": "last", "b": "1:4"}, GROUPS)
    np.testing.assert_allclose(mass.values.sum(1), 1, atol=1e-6)


def test_one_pair_of_groups_has_no_axis_for_groups():
    mass = attention_mass(opened("gpt2"), RAGGED[0], "last", 0)
    pattern = by_itself("gpt2")[0]
    np.testing.assert_allclose(mass.values, [[pattern[layer][0][head, -1, 0] for head in range(4)] for layer in range(2)],
                               atol=1e-6)
    assert mass.axes == ("layer", "head") and mass.examples is None


def test_a_group_that_an_example_lacks_is_not_a_number_there_and_others_count_alone():
    mass = attention_mass(opened("gpt2"), RAGGED, "last", GROUPS)
    between = mass.sel(group="between")
    assert np.isnan(between.examples[1]).all() and np.isfinite(between.values).all()
    np.testing.assert_allclose(between.values, between.examples[[0, 2]].mean(0), atol=1e-12)
    np.testing.assert_array_equal(between.low, interval(between.examples[[0, 2]])[0])
    np.testing.assert_array_equal(mass.sel(group="last").low, interval(mass.sel(group="last").examples)[0])
    nowhere = attention_mass(opened("gpt2"), RAGGED, "last", "image")
    assert np.isnan(nowhere.values).all(), "there are no image tokens at all"


def test_a_text_that_some_examples_lack_is_no_number_there_and_one_that_all_lack_is_an_error():
    model = hl.load("lab")
    prompts = ["When Mary and John went to the store", "When Anna and John went to the store"]
    mass = attention_mass(model, prompts, "last", {"Mary": '"Mary"', "John": '"John"'})
    assert np.isnan(mass.sel(group="Mary").examples[1]).all() and np.isfinite(mass.sel(group="John").examples).all()
    alone = attention_mass(model, prompts[0], "last", '"Mary"')
    np.testing.assert_allclose(mass.sel(group="Mary").values, alone.values, atol=1e-6)
    with pytest.raises(TokenError, match="Susan"):
        attention_mass(model, prompts, "last", '"Susan"')
    with pytest.raises(TokenError, match="occurs 2 times"):
        attention_mass(model, "When Mary and John went to the store, John gave", "last", '"John"')


def test_excluded_columns_are_in_no_group():
    model = opened("llama")
    whole = attention_mass(model, RAGGED, "all", {"all": "all", "first": 0})
    less = attention_mass(model, RAGGED, "all", {"all": "all", "first": 0}, exclude=":1")
    np.testing.assert_allclose(less.examples[:, 0], whole.examples[:, 0] - whole.examples[:, 1], atol=1e-7)
    assert np.isnan(less.values[1]).all(), "nothing is left of it"


def test_marks_name_groups():
    model = opened("gpt2")
    named = attention_mass(model, RAGGED[0], "subject.last", "subject", marks={"subject": "2:4"})
    np.testing.assert_array_equal(named.values, attention_mass(model, RAGGED[0], 3, "2:4").values)


def test_examples_that_run_some_at_a_time_give_the_same(monkeypatch):
    model = opened("llama")
    whole = attention_mass(model, RAGGED, "all", GROUPS, weighting="write")
    monkeypatch.setattr(watching, "ROOM", 1)
    np.testing.assert_allclose(attention_mass(model, RAGGED, "all", GROUPS, weighting="write").examples, whole.examples,
                               atol=1e-5)


# Groups across modalities -----------------------------------------------------------------------------------------------


def test_text_that_reads_through_one_token_alone_gives_it_the_whole_share():
    hf = planted.gate(source=2, at=4, last=7)  # L1H2 looks from the last position at 4; empty heads look everywhere alike
    groups = {"image": "1:4", "eoi": 4, "text": "5:7"}
    with hl.load(hf, verify=False) as model:
        shares = attention_shares(model, [0, 1, 2, 3, 4, 5, 6, 7], 7, groups, per="head")
    np.testing.assert_allclose(shares.values[:, 1, 2], [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(shares.values[:, 1, 0], [3 / 6, 1 / 6, 2 / 6], atol=1e-6)


def test_even_attention_is_shared_by_the_sizes_of_the_groups():
    with hl.load(planted.nothing(), verify=False) as model:
        rows = [[0, 1, 2, 3, 4, 5, 6, 7], [1, 1, 2, 3, 4, 5, 6]]
        shares = attention_shares(model, rows, "5:", {"image": "1:4", "eoi": 4}, exclude=":2")
    np.testing.assert_allclose(shares.values, [[2 / 3] * 2, [1 / 3] * 2], atol=1e-6)
    np.testing.assert_allclose(shares.low, shares.values, atol=1e-6)


def chameleon_by_hand(hf: Any, encoding: Any, groups: dict[str, list[int]], rows: list[int]) -> np.ndarray:
    """Shares [group layer], from what transformers returns, of one example."""
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        seen = hf(**encoding, output_attentions=True).attentions
    masses = np.array([[np.mean([sum(float(layer[0, head, row, j]) for j in columns) for head in range(4) for row in rows])
                        for layer in seen] for columns in groups.values()])
    return masses / masses.sum(0)


def test_cross_modal_shares_of_chameleon_need_no_constants():
    processor = chameleon_processor()
    encoding = processor(images=[image()], text=["<image> a cat w1 w2"], return_tensors="pt")
    ids = encoding["input_ids"][0].tolist()
    start = ids.index(4)  # <racm3:break>, then 16 image tokens, then <eoss>
    places = {"start": [start], "inside": [*range(start + 2, start + 17)], "end": [start + 17], "first": [start + 1]}
    text = list(range(start + 18, len(ids)))
    groups = {"start": "image.prev", "inside": "image - image.first", "end": "image.next", "first": "image.first"}
    expected = chameleon_by_hand(build("chameleon"), encoding, places, text)
    with hl.load(build("chameleon"), processor=processor, verify=False) as model:
        shares = attention_shares(model, dict(encoding), f"{start + 18}:", groups)
        mass = attention_mass(model, ["<image> a cat w1 w2"], "last", "image", images=[image()])
    np.testing.assert_allclose(shares.values, expected, atol=1e-6)
    np.testing.assert_allclose(shares.values.sum(0), 1, atol=1e-12)
    assert np.isfinite(mass.values).all() and (mass.values > 0).all()


def test_image_and_text_of_llava_are_groups_by_their_role():
    hf = build("llava")
    n_image = 4
    ids = torch.tensor([[1, *[99] * n_image, 8, 9, 10]])
    pixels = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        seen = hf(input_ids=ids, pixel_values=pixels, output_attentions=True).attentions
    expected = np.array([[float(layer[0, head, 5:8, 1:5].sum(-1).mean()) for head in range(4)] for layer in seen])
    with hl.load(build("llava"), verify=False) as model:
        mass = attention_mass(model, {"input_ids": ids, "pixel_values": pixels}, "5:", {"image": "image",
                                                                                        "rest": "all - image"})
    np.testing.assert_allclose(mass.sel(group="image").values, expected, atol=1e-6)
    np.testing.assert_allclose(mass.values.sum(0), 1, atol=1e-6)


def test_shares_of_several_examples_are_shares_of_their_means():
    model = opened("gpt2")
    shares = attention_shares(model, RAGGED, "last", GROUPS)
    each = attention_mass(model, RAGGED, "last", GROUPS).examples
    each = np.where(np.isnan(each), 0, each).mean(-1)  # [batch group layer]
    np.testing.assert_allclose(shares.values, each.mean(0) / each.mean(0).sum(0), atol=1e-12)
    np.testing.assert_allclose(shares.examples, each / each.sum(1, keepdims=True), atol=1e-12)
    assert (shares.low <= shares.values).all() and (shares.values <= shares.high).all()
    without = attention_shares(model, RAGGED, "last", {**GROUPS, "image": "image"})
    assert np.isnan(without.sel(group="image").values).all()
    np.testing.assert_allclose(without.values[:3], shares.values, atol=1e-12)


@pytest.mark.parametrize(("ask", "error", "words"), [
    (lambda m: attention_mass(m, RAGGED, weighting="values"), AttentionError, 'Did you mean "value"'),
    (lambda m: attention_mass(m, RAGGED, reduce="max"), AttentionError, "mean, sum"),
    (lambda m: attention_mass(m, RAGGED, columns={}), AttentionError, "one group"),
    (lambda m: attention_mass(m, RAGGED, columns=5), PositionError, "out of range"),
    (lambda m: attention_shares(m, RAGGED, "last", {"a": ":2", "b": 1}), AttentionError, "in common"),
    (lambda m: attention_shares(m, RAGGED, "last", {"a": ":2"}, per="neuron"), AttentionError, "layer, head"),
    (lambda m: attention_shares(m, RAGGED, {"a": "last"}, {"a": ":2"}), AttentionError, "one group of rows"),
    (lambda m: mass_between(np.eye(3), [0], [0], values=np.ones((3, 1, 2)), norms=np.ones(3)), AttentionError, "not both"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_what_cannot_be_asked_is_refused_with_what_can(ask, error, words):
    with pytest.raises(error, match=words):
        ask(opened("gpt2"))


def test_no_row_or_no_column_is_not_a_number():
    assert np.isnan(mass_between(stochastic(4), [], [0])).all() and np.isnan(mass_between(stochastic(4), [0], [])).all()


# Relative to uniform attention -------------------------------------------------------------------------------------------


def even(n: int) -> np.ndarray:
    """Uniform causal attention, cell by cell."""
    return np.array([[1 / (row + 1) if column <= row else 0.0 for column in range(n)] for row in range(n)])


def partitions(n: int) -> list[tuple[list[int], list[int]]]:
    """Every pair of groups of neighbours, and of single tokens among them the last."""
    groups = [list(range(a, b)) for a in range(n) for b in range(a + 1, n + 1)]
    return [(rows, columns) for rows in groups for columns in groups]


@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize("diagonal", [True, False])
def test_uniform_attention_is_exactly_one_for_every_pair_of_groups_and_nan_where_nothing_could_be(diagonal, reduce):
    n = 6
    seen = {False: 0, True: 0}
    for rows, columns in partitions(n):
        possible = any(c < r or (diagonal and c == r) for r in rows for c in columns)
        found = float(mass_between(even(n), rows, columns, relative=True, diagonal=diagonal, reduce=reduce))
        assert found == 1.0 if possible else np.isnan(found), (rows, columns)
        seen[possible] += 1
    assert min(seen.values()) > 20


@pytest.mark.parametrize("seed", range(3))
def test_relative_mass_of_random_patterns_is_the_ratio_of_two_sums_over_cells(seed):
    pattern, rng, n = stochastic(7, seed=seed), np.random.default_rng(seed), 7
    values = rng.normal(size=(n, 3, 5))
    for rows, columns in [([6], [0, 1]), ([2, 5], [3]), ([4, 6], [6, 4, 0]), ([6], [6])]:
        for head in range(3):
            wanted = brute(pattern[head], rows, columns) / brute(even(n), rows, columns)
            assert mass_between(pattern, rows, columns, relative=True)[head] == pytest.approx(wanted)
            wanted = brute(pattern[head], rows, columns, values=values[:, head]) / brute(
                even(n), rows, columns, values=values[:, head])
            assert mass_between(pattern, rows, columns, values=values, relative=True)[head] == pytest.approx(wanted)
    assert mass_between(pattern, [6], [0, 1, 2], relative=True)[0] == pytest.approx(pattern[0, 6, :3].sum() / (3 / 7)), \
        "three columns of seven, and not the mean of a cell"
    with pytest.raises(AttentionError, match="other tokens"):
        mass_between(pattern[:, 2:], [0], [0], relative=True)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_a_model_whose_scores_are_all_alike_has_relative_mass_one_everywhere(family):
    hf = build(family)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if "c_attn" in name:  # queries, keys, values side by side
                parameter[..., :32] = 0
            elif "query_key_value" in name:  # query, key, value of a head, head by head
                parameter.unflatten(0, (4, 3, 8))[:, 0] = 0
            elif "q_proj" in name:
                parameter.zero_()
    groups = {"first": 0, "middle": "1:-1", "last": "last"}
    with hl.load(hf, verify=False) as model:
        mass = attention_mass(model, RAGGED, groups, groups, relative=True)
        apart = attention_mass(model, RAGGED, "last", "last", relative=True, diagonal=False)
    for a, rows in enumerate(groups):
        for b, columns in enumerate(groups):
            one = mass.sel(query_group=rows, group=columns)
            if b > a:  # it lies ahead
                assert np.isnan(one.values).all() and np.isnan(one.examples).all()
            else:
                np.testing.assert_allclose(one.examples, 1, atol=1e-6)
    assert np.isnan(apart.values).all() and mass.unit == "times uniform" and "1 is uniform" in mass.note


def test_relative_mass_of_a_model_is_that_of_its_pattern_by_hand_and_the_mean_over_examples():
    mass = attention_mass(opened("llama"), RAGGED, "last", GROUPS, relative=True)
    for example, ids in enumerate(RAGGED):
        n = len(ids)
        for b, columns in enumerate(PLACES.values()):
            for layer in range(2):
                pattern = by_itself("llama")[example][layer][0]
                for head in range(4):
                    wanted = np.nan if not columns(n) else pattern[head, -1, columns(n)].sum() / (len(columns(n)) / n)
                    np.testing.assert_allclose(mass.examples[example, b, layer, head], wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(mass.values, np.nanmean(mass.examples, 0), atol=1e-12)


def test_a_model_that_sees_all_tokens_is_held_against_uniform_attention_to_all():
    with hl.load(build("bert"), verify=False) as model:
        ids = RAGGED[0]
        mass = attention_mass(model, ids, "last", {"first": 0, "rest": "1:"}, relative=True)
        pattern = model.capture([ids], "L0.pattern", full=True)["L0.pattern"][0].double().numpy()
    n = pattern.shape[-1]
    np.testing.assert_allclose(mass.sel(group="first", layer=0).values, pattern[:, -1, 0] * n, rtol=1e-5)
    first = attention_mass(opened("gpt2"), RAGGED[0], 0, "last", relative=True)
    assert np.isnan(first.values).all(), "and one that does not is not"
