"""Scores of heads: against numbers counted by hand in what transformers itself returns, and against planted heads."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import planted
import pytest
import torch
from tiny_models import build, tokenizer

import hooklab as hl
from hooklab.analysis import watching
from hooklab.analysis.heads import (
    KINDS,
    AttentionError,
    attention_entropy,
    head_scores,
    induction_scores,
    repeated_tokens,
    top_attended,
)
from hooklab.errors import LayerError, PositionError
from hooklab.statistics import interval

FAMILIES = ["gpt2", "llama", "gpt_neox", "gemma2", "phi3"]
RAGGED = [[8, 12, 25, 8, 12, 30, 8], [9, 9, 30], [8, 13, 25, 9, 13]]


@cache
def opened(family: str) -> Any:
    return hl.load(build(family), verify=False)


@cache
def attentions(family: str) -> Any:
    """Of each example alone: [layer head query key], by transformers."""
    hf = build(family, attn_implementation="eager")
    with torch.no_grad():
        return [np.stack([layer[0].double().numpy() for layer in hf(torch.tensor([ids]), output_attentions=True).attentions])
                for ids in RAGGED]


def target(kind: str, ids: list[int], query: int) -> int | None:
    """Where a head of a kind looks, counted by hand."""
    before = [key for key in range(query) if ids[key] == ids[query]]
    found = {"previous": query - 1 if query else None, "current": query, "first": 0 if query else None,
             "duplicate": before[-1] if before else None,
             "induction": before[-1] + 1 if before and before[-1] + 1 < query else None}
    return found[kind]


def by_hand(kind: str, ids: list[int], pattern: np.ndarray) -> np.ndarray:
    pairs = [(query, key) for query in range(len(ids)) if (key := target(kind, ids, query)) is not None]
    if not pairs:
        return np.full(pattern.shape[:2], np.nan)
    return np.mean([pattern[:, :, query, key] for query, key in pairs], axis=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_head_scores_of_a_ragged_batch_are_means_of_the_attention_that_transformers_returns(family, kind):
    expected = np.stack([by_hand(kind, ids, pattern) for ids, pattern in zip(RAGGED, attentions(family), strict=True)])
    scores = head_scores(opened(family), RAGGED, kind)
    np.testing.assert_allclose(scores.examples, expected, atol=1e-6)
    np.testing.assert_allclose(scores.values, np.nanmean(expected, 0), atol=1e-6)
    assert scores.axes == ("layer", "head") and scores.name == kind


def test_several_kinds_come_from_one_run_and_have_an_axis():
    model = opened("llama")
    both = head_scores(model, RAGGED, ["induction", "first"])
    for kind in ("induction", "first"):
        np.testing.assert_array_equal(both.sel(kind=kind).values, head_scores(model, RAGGED, kind).values)


@pytest.mark.parametrize("family", FAMILIES)
def test_on_one_prompt_the_function_and_the_verb_of_the_language_agree(family):
    model = opened(family)
    run = model.run("prompt {ids}\nscore each L*H* with induction", ids=RAGGED[0])
    np.testing.assert_allclose(induction_scores(model, RAGGED[0]).values, run.scores["main.induction"].values, atol=1e-7)


def test_the_induction_score_is_one_for_a_planted_induction_head_and_nothing_for_the_others():
    with hl.load(planted.induction(), verify=False) as model:
        scores = induction_scores(model, period=3, repeats=2, batch=4, opening=[0])
        previous = head_scores(model, kind="previous", period=3, batch=4, opening=[0])
    assert scores.values[1, 0] == pytest.approx(1.0, abs=1e-6)
    assert scores.values[0, 0] < 1e-6, "it looks at the token before"
    assert previous.values[0, 0] == pytest.approx(1.0, abs=1e-6) and scores.low[1, 0] > 0.999
    others = np.delete(scores.values.ravel(), [0, planted.HEADS])
    np.testing.assert_allclose(others, np.mean([1 / 5, 1 / 6, 1 / 7]), atol=1e-6)  # empty heads look everywhere alike


def test_a_model_without_heads_has_the_induction_score_of_chance():
    import transformers

    config = transformers.GPT2Config(vocab_size=300, n_embd=8, n_layer=1, n_head=2, n_positions=512, bos_token_id=0,
                                     eos_token_id=0)
    hf = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        hf.transformer.h[0].attn.c_attn.weight.zero_()
    with hl.load(hf, verify=False) as model:
        scores = induction_scores(model, period=250, batch=2)
    expected = np.mean([1 / (query + 1) for query in range(250, 500)])
    np.testing.assert_allclose(scores.values, expected, rtol=1e-5)
    assert scores.values.max() < 0.003


def test_repeated_tokens_are_seeded_different_within_a_period_and_never_special():
    with hl.load(build("llama"), tokenizer=tokenizer(), verify=False) as model:
        rows = repeated_tokens(model, period=12, repeats=3, batch=5, seed=7)
        assert rows == repeated_tokens(model, period=12, repeats=3, batch=5, seed=7)
        assert rows != repeated_tokens(model, period=12, repeats=3, batch=5, seed=8)
        special = set(model.tokenizer.all_special_ids)
    for row in rows:
        assert len(row) == 36 and len(set(row[:12])) == 12 and row[:12] == row[12:24] == row[24:]
        assert not special & set(row)
    bare = opened("llama")  # the config alone knows what is special there
    assert not {0, 1, 2} & {token for row in repeated_tokens(bare, 90, 2, 4) for token in row}


def test_on_random_tokens_an_induction_head_looks_one_less_than_a_period_back():
    model = opened("gpt2")
    rows = repeated_tokens(model, period=6, repeats=3, batch=2, seed=3)
    hf = build("gpt2", attn_implementation="eager")
    with torch.no_grad():
        seen = torch.stack(hf(torch.tensor(rows), output_attentions=True).attentions, 1).double().numpy()
    expected = np.mean([seen[:, :, :, q, q - 6 + 1] for q in range(6, 18)], axis=(0, 1))
    np.testing.assert_allclose(induction_scores(model, period=6, repeats=3, batch=2, seed=3).values, expected, atol=1e-6)


def test_the_interval_is_that_of_the_mean_over_examples():
    scores = head_scores(opened("gpt2"), RAGGED, "previous", seed=5)
    low, high = interval(scores.examples, seed=5)
    np.testing.assert_array_equal(scores.low, low)
    np.testing.assert_array_equal(scores.high, high)
    assert (scores.low <= scores.values).all() and (scores.values <= scores.high).all()


def test_an_example_without_a_place_is_left_out_of_mean_and_interval():
    model = opened("gpt2")
    rows = [[8, 12, 8, 12, 30], [5, 6, 7], [9, 4, 30, 9, 4]]
    scores = induction_scores(model, rows)
    assert np.isnan(scores.examples[1]).all() and np.isfinite(scores.values).all()
    np.testing.assert_allclose(scores.values, scores.examples[[0, 2]].mean(0), atol=1e-12)
    np.testing.assert_array_equal(scores.low, interval(scores.examples[[0, 2]])[0])


def test_examples_that_run_some_at_a_time_give_the_same(monkeypatch):
    model = opened("llama")
    whole = head_scores(model, RAGGED, "previous")
    monkeypatch.setattr(watching, "ROOM", 1)
    one_by_one = head_scores(model, RAGGED, "previous")
    np.testing.assert_allclose(one_by_one.examples, whole.examples, atol=1e-6)


def test_hooks_that_stand_are_seen():
    model = opened("gpt2")
    with model.hook("L1H2.pattern", lambda x: torch.zeros_like(x)):
        scores = head_scores(model, RAGGED, "previous")
    assert (scores.values[1, 2] == 0).all() and scores.values[1, 1] > 0


@pytest.mark.parametrize("family", [*FAMILIES, "gpt_oss"])
def test_entropy_is_that_of_the_rows_of_the_attention_that_transformers_returns(family):
    hf = build(family, attn_implementation="eager")
    expected = []
    for ids in RAGGED:
        with torch.no_grad():
            seen = np.stack([x[0].double().numpy() for x in hf(torch.tensor([ids]), output_attentions=True).attentions])
        seen = seen[..., :len(ids)] / seen[..., :len(ids)].sum(-1, keepdims=True)  # without the sink of gpt_oss
        expected.append([[np.mean([-sum(p * np.log(p) for p in row if p > 0) for row in head]) for head in layer]
                         for layer in seen])
    scores = attention_entropy(opened(family), RAGGED)
    np.testing.assert_allclose(scores.examples, expected, atol=2e-6)
    assert scores.unit == "nats"


def test_entropy_of_even_attention_is_the_logarithm_of_how_many_there_are():
    with hl.load(planted.nothing(), verify=False) as model:
        scores = attention_entropy(model, [[1, 2, 3, 4, 5], [1, 2, 3]], positions="last")
        first = attention_entropy(model, [1, 2, 3], positions=0)
    np.testing.assert_allclose(scores.examples[0], np.log(5), atol=1e-6)
    np.testing.assert_allclose(scores.examples[1], np.log(3), atol=1e-6)
    assert (first.values == 0).all()
    with pytest.raises(PositionError, match="out of range"):
        attention_entropy(opened("gpt2"), RAGGED, positions=6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_most_attended_keys_are_those_of_the_sorted_rows(family):
    model, ids = opened(family), RAGGED[0]
    pattern = attentions(family)[0][1, 2]
    found = top_attended(model, ids, "L1H2", k=3)
    assert found.axes == ("query_pos", "rank") and found.shape == (len(ids), 3)
    for query, row in enumerate(pattern):
        order = sorted((key for key in range(len(ids)) if row[key] > 0), key=lambda key: -row[key])[:3]
        there = ~np.isnan(found.values[query])
        np.testing.assert_allclose(found.values[query][there], row[order], atol=1e-6)
        assert list(found.labels[query]) == [*(f"{key}: #{ids[key]}" for key in order), *[""] * (3 - len(order))]


def test_the_most_attended_tokens_have_their_text_and_come_from_captures_and_patterns_alike():
    model = hl.load("lab")
    prompt = "When Mary and John went"
    found = top_attended(model, prompt, (1, 2), k=2)
    acts = model.capture(prompt, "L1.pattern")
    assert top_attended(acts, head="L1H2", k=2) == found
    alone = top_attended(acts["L1.pattern"][0, 2], acts.tokens, k=2)
    np.testing.assert_array_equal(alone.values, found.values)
    assert (alone.labels == found.labels).all() and found.coords["query_pos"][2] == "2:  Mary"
    bare = top_attended(np.array([[1.0, 0.0], [0.25, 0.75]]), k=5)
    assert bare.labels.tolist() == [["0", "", "", "", ""], ["1", "0", "", "", ""]] and bare.values[1, 0] == 0.75


@pytest.mark.parametrize(("ask", "error", "words"), [
    (lambda m: head_scores(m, RAGGED, "inducton"), AttentionError, "induction"),
    (lambda m: head_scores(m, RAGGED, []), AttentionError, "no kind of head"),
    (lambda m: induction_scores(m, [5, 6, 7]), AttentionError, "come twice"),
    (lambda m: induction_scores(m, period=1), AttentionError, "period"),
    (lambda m: induction_scores(m, period=1000), AttentionError, "not special"),
    (lambda m: top_attended(m, [5, 6], "L0H0", k=0), AttentionError, "count"),
    (lambda m: top_attended(m, [5, 6], "L0"), AttentionError, "one head"),
    (lambda m: top_attended(m, [5, 6], "L0H*"), AttentionError, "one head"),
    (lambda m: top_attended(m, [5, 6], "L0H9"), LayerError, "no head 9"),
    (lambda m: top_attended(m, [[5, 6], [7]], "L0H0"), AttentionError, "one prompt"),
    (lambda m: top_attended(m.capture([5, 6], "L0.pattern"), head="L0H7"), AttentionError, "heads"),
    (lambda m: top_attended(np.eye(3), ["a", "b"]), AttentionError, "2 tokens"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_what_cannot_be_asked_is_refused_with_what_can(ask, error, words):
    with pytest.raises(error, match=words):
        ask(opened("gpt2"))
