"""Reducers against numpy over everything at once: batches, workers, checkpoints, padding, weights and half precision."""

import itertools

import numpy as np
import pytest
import tiny_models
import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors

import hooklab as hl
from hooklab.data.inputs.batching import batches
from hooklab.data.reducers.aligned import MeanPattern
from hooklab.data.reducers.counts import Extent, Histogram
from hooklab.data.reducers.peaks import MaxK
from hooklab.data.reducers.reducers import Covariance, Mean, Variance, from_state, merged
from hooklab.errors import PositionError, RecordError, TokenError
from hooklab.tokens import Tokens

SITE = "L0.resid_post"
LENGTHS = (5, 2, 7, 1, 4, 6, 3)
VALUES = [np.random.default_rng(n).normal(3.0, 2.0, (length, 4)) for n, length in enumerate(LENGTHS)]
WEIGHTS = (1.0, 0.5, 2.0, 0.0, 3.0, 1.5, 0.25)
IDS = tuple(str(n) for n in range(len(LENGTHS)))
TOKENS = [tuple(range(10 * n, 10 * n + length)) for n, length in enumerate(LENGTHS)]

MADE = {
    "mean": lambda: Mean(SITE), "mean per example": lambda: Mean(SITE, per="example"), "last": lambda: Mean(SITE, at="last"),
    "variance": lambda: Variance(SITE), "covariance": lambda: Covariance(SITE),
    "histogram": lambda: Histogram(SITE, np.linspace(-2, 8, 11), pooled=False), "max k": lambda: MaxK(SITE, 3, 2),
    "pattern": lambda: MeanPattern(SITE, {"first": 0, "end": "last"}),
}


def padded(chosen, side="left", fill=float("nan"), dtype=torch.float64):
    """A batch as a model would give it, with what must not be seen in the padding."""
    tokens = Tokens.from_ids([TOKENS[n] for n in chosen], padding_side=side)
    values = torch.full((len(chosen), tokens.width, 4), fill, dtype=dtype)
    for row, n in enumerate(chosen):
        start = tokens.column(row, 0)
        values[row, start:start + LENGTHS[n]] = torch.from_numpy(VALUES[n]).to(dtype)
    return values, tokens


def streamed(make, cuts, weights=None, side="left", dtype=torch.float64):
    """A reducer that has seen the examples in batches."""
    reducer = make()
    for chosen in cuts:
        options = {} if weights is None else {"weights": [weights[n] for n in chosen]}
        reducer.update(*padded(chosen, side, dtype=dtype), [IDS[n] for n in chosen], **options)
    return reducer


def numbers(reducer):
    return np.nan_to_num(np.asarray(reducer.result().values))


ONCE = [tuple(range(7))]
CUTS = [(0, 1, 2), (3, 4), (5,), (6,)]


# Against numpy


def offline(weights=None):
    rows = np.concatenate(VALUES)
    return rows, np.repeat(np.ones(7) if weights is None else weights, LENGTHS)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_streamed_moments_equal_the_offline_ones_with_a_last_partial_batch(weights, side):
    rows, shares = offline(weights)
    covariance = np.cov(rows.T, aweights=shares)
    for make, expected in ((MADE["mean"], np.average(rows, axis=0, weights=shares)),
                           (MADE["variance"], np.diag(covariance)), (MADE["covariance"], covariance)):
        assert np.allclose(numbers(streamed(make, CUTS, weights, side)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_per_example_long_examples_weigh_no_more(weights):
    means = np.stack([value.mean(0) for value in VALUES])
    found = streamed(MADE["mean per example"], CUTS, weights)
    assert np.allclose(numbers(found), np.average(means, axis=0, weights=weights), atol=1e-12)
    spread = streamed(lambda: Variance(SITE, per="example"), CUTS, weights)
    assert np.allclose(numbers(spread), np.diag(np.cov(means.T, aweights=weights)), atol=1e-12)


@pytest.mark.parametrize("at, pick", [("last", lambda x: x[-1:]), ("0", lambda x: x[:1]), ("all", lambda x: x)])
def test_means_over_selected_positions_equal_manual_means(at, pick):
    expected = np.concatenate([pick(value) for value in VALUES]).mean(0)
    assert np.allclose(numbers(streamed(lambda: Mean(SITE, at=at), CUTS)), expected, atol=1e-12)


def test_group_means_over_image_and_text_equal_manual_means():
    tokens = Tokens.from_ids([[9, 9, 1, 2], [3, 9]], image_token_ids={9})
    values = torch.arange(2 * 4 * 1, dtype=torch.float64).reshape(2, 4, 1)  # left padding: example 1 is in columns 2 and 3
    for at, expected in (("image", (0 + 1 + 7) / 3), ("text", (2 + 3 + 6) / 3), ("all", (0 + 1 + 2 + 3 + 6 + 7) / 6)):
        assert float(Mean(SITE, at=at).update(values, tokens).result()) == pytest.approx(expected)


def test_half_precision_is_added_up_in_float64():
    low = [np.asarray(torch.from_numpy(value).bfloat16().double()) for value in VALUES]
    found = streamed(MADE["mean"], CUTS * 50, dtype=torch.bfloat16)
    assert found.result().values.dtype == np.float64
    assert np.allclose(numbers(found), np.concatenate(low).mean(0), rtol=0, atol=1e-12)


def test_lists_of_unpadded_values_count_as_the_batch_does():
    some = [torch.from_numpy(value) for value in VALUES]
    assert np.allclose(numbers(Mean(SITE).update(some)), offline()[0].mean(0), atol=1e-12)


def test_numbers_without_positions_are_reduced_over_examples():
    given = torch.tensor([1.0, 2.0, 6.0])
    assert float(Mean("loss", axes=()).update(given).result()) == 3.0
    assert float(Variance("loss", axes=()).update(given).result()) == pytest.approx(np.var([1, 2, 6], ddof=1))


def test_a_covariance_goes_on_to_principal_components():
    found = streamed(MADE["covariance"], CUTS, [2.0] * 7).moments()
    once = hl.analysis.Moments().add(offline()[0])
    assert found.count == once.count and np.allclose(found.covariance, once.covariance, atol=1e-12)
    assert np.allclose(hl.analysis.principal(found, 2).components, hl.analysis.principal(once, 2).components)
    with pytest.raises(RecordError, match="different weights"):
        streamed(MADE["covariance"], CUTS, WEIGHTS).moments()


# What all have in common


@pytest.mark.parametrize("name", MADE)
def test_neither_batches_nor_the_order_of_workers_matter(name):
    once = numbers(streamed(MADE[name], ONCE))
    for order in list(itertools.permutations(CUTS))[::5]:
        assert np.allclose(numbers(streamed(MADE[name], order)), once, rtol=0, atol=1e-12)
        workers = [streamed(MADE[name], [chosen]) for chosen in order]
        assert np.allclose(numbers(merged([MADE[name](), *workers])), once, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MADE)
def test_a_state_is_plain_tensors_and_goes_on_where_it_was(name):
    first = streamed(MADE[name], CUTS[:2])
    again = from_state(read_tensors(write_tensors(first.state())))
    assert type(again) is type(first) and again.options() == first.options()
    for chosen in CUTS[2:]:
        for reducer in (first, again):
            reducer.update(*padded(chosen), [IDS[n] for n in chosen])
    assert np.array_equal(numbers(again), numbers(first))
    empty = from_state(MADE[name]().state())
    with pytest.raises(RecordError, match="nothing"):
        empty.result()
    assert np.array_equal(numbers(empty.merge(first)), numbers(first))


@pytest.mark.parametrize("name", MADE)
def test_padding_never_enters(name):
    assert all(np.isfinite(streamed(MADE[name], CUTS, side=side).result().values).all() for side in ("left", "right"))


@pytest.mark.parametrize("name", MADE)
def test_what_is_refused_is_not_counted(name):
    reducer = streamed(MADE[name], CUTS)
    before = numbers(reducer)
    broken, tokens = padded((0, 1))
    broken[0, -1, 2] = float("inf")
    with pytest.raises(RecordError, match="example 'x' holds what is no finite number"):
        reducer.update(broken, tokens, ["x", "y"])
    with pytest.raises(RecordError, match="example_ids are 1"):
        reducer.update(*padded((0, 1)), ["x"])
    with pytest.raises(RecordError, match="does not fit|not the shape"):
        reducer.update(broken[:, 1:], tokens, ["x", "y"])
    with pytest.raises(RecordError, match="cannot be merged"):
        reducer.merge(Extent(SITE))
    assert np.array_equal(numbers(reducer), before)


def test_reducers_that_were_made_otherwise_are_not_merged():
    with pytest.raises(RecordError, match="at='last'"):
        Mean(SITE).merge(Mean(SITE, at="last"))
    with pytest.raises(RecordError, match="no state"):
        from_state({"mean": torch.zeros(3)})


def test_attention_is_not_averaged_without_alignment():
    with pytest.raises(RecordError, match="MeanPattern"):
        Mean("L0.pattern")


def test_a_position_that_an_example_lacks_is_named():
    with pytest.raises(PositionError, match="example '3'"):
        streamed(lambda: Mean(SITE, at="1"), ONCE)


# Counts


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_histograms_equal_numpys(weights):
    rows, shares = offline(weights)
    extent = streamed(lambda: Extent(SITE), CUTS)
    assert extent.result() == (rows.min(), rows.max())
    edges = extent.edges(12)
    pooled = streamed(lambda: Histogram(SITE, edges), CUTS, weights)
    expected, _ = np.histogram(rows, edges, weights=np.repeat(shares[:, None], 4, 1))
    assert np.allclose(numbers(pooled), expected) and pooled.below == pooled.above == 0
    each = streamed(lambda: Histogram(SITE, edges, pooled=False), CUTS, weights)
    assert np.allclose(numbers(each), [np.histogram(rows[:, k], edges, weights=shares)[0] for k in range(4)])
    assert each.result().axes == ("d_model", "bin")


def test_what_falls_outside_of_the_edges_is_counted_and_said():
    rows, _ = offline()
    found = streamed(lambda: Histogram(SITE, (1, 2, 4)), CUTS)
    assert (found.below, found.above) == ((rows < 1).sum(), (rows > 4).sum())
    assert numbers(found).tolist() == np.histogram(rows, (1, 2, 4))[0].tolist()
    assert f"{found.above:g} above" in found.result().note
    with pytest.raises(RecordError, match="larger than the one before"):
        Histogram(SITE, (1, 1))


# The strongest tokens


@pytest.mark.parametrize("per", ["token", "example"])
def test_the_strongest_tokens_are_found_with_their_context(per):
    found = streamed(lambda: MaxK(SITE, 4, 2, per=per), CUTS)
    for feature in range(4):
        places = [(-value[p, feature], n, p) for n, value in enumerate(VALUES) for p in range(len(value))
                  if per == "token" or p == value[:, feature].argmax()]
        best = sorted(places)[:4]
        assert numbers(found)[feature].tolist() == [-score for score, _, _ in best]
        for peak, (score, n, p) in zip(found.peaks(feature), best, strict=True):
            start, stop = max(0, p - 2), min(LENGTHS[n], p + 3)
            assert (peak.example, peak.pos, peak.value, peak.start) == (IDS[n], p, -score, start)
            assert peak.pieces == tuple(f"#{id}" for id in TOKENS[n][start:stop])
            assert peak.values.tolist() == VALUES[n][start:stop, feature].tolist()


def test_many_features_are_ranked_some_at_a_time(monkeypatch):
    once = streamed(MADE["max k"], CUTS).result()
    monkeypatch.setattr("hooklab.data.reducers.peaks.CHUNK", 1)
    assert streamed(MADE["max k"], CUTS).result() == once


def test_of_equal_tokens_the_first_id_is_taken_whatever_the_order():
    def seen(order):
        found = MaxK("acts", 3, 0, axes=("pos", "feature"))
        for name in order:
            found.update([torch.tensor([[2.0], [0.0], [2.0]])], Tokens.from_ids([[1, 2, 3]]), [name])
        return [(peak.example, peak.pos) for peak in found.peaks(0)]

    for order in itertools.permutations(["10", "9", "b"]):
        assert seen(order) == [("9", 0), ("9", 2), ("10", 0)]


def test_only_selected_tokens_are_ranked_but_all_stand_around_them():
    found = streamed(lambda: MaxK(SITE, 1, 1, at="0"), CUTS)
    n = int(np.argmax([value[0, 1] for value in VALUES]))
    assert found.peaks(1)[0].pos == 0 and found.peaks(1)[0].example == IDS[n]
    assert len(found.peaks(1)[0].pieces) == min(2, LENGTHS[n])


def test_the_strongest_tokens_take_no_weights_and_need_tokens():
    with pytest.raises(RecordError, match="no weights"):
        MaxK(SITE).update(*padded((0,)), ["0"], weights=[1.0])
    with pytest.raises(RecordError, match="all are needed"):
        MaxK(SITE).update([torch.ones(2, 4)], Tokens.from_ids([[1, 2, 3]]), ["0"])


# Patterns


def pattern(prompt):
    """[head query_pos key_pos] that says where it is from."""
    n = len(prompt)
    return torch.stack([torch.tensor([[100.0 * q + k + head for k in prompt] for q in prompt], dtype=torch.float64)
                        for head in range(2)]).reshape(2, n, n)


RAGGED = [[5, 6, 7, 8], [6, 1, 2, 3, 4, 7], [9, 6, 9]]


def test_mean_patterns_lie_on_spans_that_all_examples_have():
    tokens = Tokens.from_ids(RAGGED)
    spans = {"pair": "[0, 1]", "end": "last"}
    found = MeanPattern("L0.pattern", spans).update([pattern(prompt) for prompt in RAGGED], tokens, "abc", weights=[1, 2, 1])
    picked = [pattern([prompt[0], prompt[1], prompt[-1]]).numpy() for prompt in RAGGED]
    assert np.allclose(found.result().values, np.average(picked, axis=0, weights=[1, 2, 1]))
    assert found.result().coords["key_pos"] == ("pair 0", "pair 1", "end") and found.result().axes[0] == "head"


def test_pooled_spans_are_the_attention_that_a_span_gets():
    tokens = Tokens.from_ids(RAGGED)
    found = MeanPattern("L0.pattern", {"rest": "1:", "first": 0}, pooled=True)
    found.update([pattern(prompt) for prompt in RAGGED], tokens)
    expected = np.zeros((2, 2, 2))
    for prompt in RAGGED:
        value = pattern(prompt).numpy()
        keys = np.stack([value[:, :, 1:].sum(2), value[:, :, 0]], 2)
        expected += np.stack([keys[:, 1:].mean(1), keys[:, 0]], 1) / 3
    assert np.allclose(found.result().values, expected)


def test_ragged_examples_without_alignment_are_an_error_and_never_a_broadcast():
    tokens = Tokens.from_ids(RAGGED)
    with pytest.raises(RecordError, match=r"example 'b' has 6 tokens, and 4 .*Name spans"):
        MeanPattern("L0.pattern").update([pattern(prompt) for prompt in RAGGED], tokens, "abc")
    spanned = MeanPattern("L0.pattern", {"rest": "1:"})
    spanned.update([pattern(RAGGED[0])], tokens[0], "a")
    with pytest.raises(RecordError, match="'rest' of example 'c' has 2 tokens"):
        spanned.update([pattern(RAGGED[2])], tokens[2], "c")
    with pytest.raises(RecordError, match="do not line up"):
        spanned.merge(MeanPattern("L0.pattern", {"rest": "1:"}).update([pattern(RAGGED[2])], tokens[2]))
    assert np.array_equal(spanned.result().values, pattern(RAGGED[0])[:, 1:, 1:])
    with pytest.raises(RecordError, match="all are needed"):
        MeanPattern("L0.pattern", {"end": "last"}).update([torch.ones(2, 1, 4)], tokens[0])
    with pytest.raises(RecordError, match="no positions"):
        MeanPattern("loss", axes=())


# On models


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_streams_of_a_model_give_what_its_prompts_give_alone(family):
    model = hl.load(tiny_models.build(family), tokenizer=tiny_models.tokenizer())
    prompts = ["Mary w1 w2 the store", "the Mary store", "w9 Mary", "Mary w3 w4 w5 w6 w7 store w8"]
    means = {site: Variance(site) for site in ("L1.resid_post", "L0.z", "L1.mlp_post")}
    found = MeanPattern("L1.pattern", {"Mary": '"Mary"', "end": "last"})
    for batch in batches(prompts, model, max_tokens=16):
        acts = model.capture(batch.prompt, [*means, "L1.pattern"])
        for site, reducer in means.items():
            reducer.update(acts[site], batch.tokens, batch.ids)
        found.update(acts["L1.pattern"], batch.tokens, batch.ids)
    alone = [model.capture(prompt, [*means, "L1.pattern"]) for prompt in prompts]
    for site, reducer in means.items():
        rows = np.concatenate([acts[site][0].double().numpy() for acts in alone])
        assert np.allclose(reducer.mean().values, rows.mean(0), atol=1e-6)
        assert np.allclose(reducer.result().values, rows.var(0, ddof=1), atol=1e-5)
    picked = []
    for prompt, acts in zip(prompts, alone, strict=True):
        places = [prompt.split().index("Mary"), len(prompt.split()) - 1]
        picked.append(acts["L1.pattern"][0].double().numpy()[:, places][:, :, places])
    assert np.allclose(found.result().values, np.mean(picked, 0), atol=1e-6)


def test_a_span_that_an_example_lacks_is_named():
    model = hl.load(tiny_models.build("gpt2"), tokenizer=tiny_models.tokenizer())
    acts = model.capture(["Mary w1", "John w1"], "L0.pattern")
    with pytest.raises(TokenError, match="example 'second'"):
        MeanPattern("L0.pattern", {"who": '"Mary"'}).update(acts["L0.pattern"], acts.tokens, ["first", "second"])


def test_a_reducer_says_what_it_is():
    assert repr(Mean("L3.resid_post", at="last")) == "Mean('L3.resid_post', at='last')"
    assert repr(Variance("L0.mlp_post", per="example")) == "Variance('L0.mlp_post', per='example')"
