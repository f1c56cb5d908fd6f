"""Sweeps, path patching, causal tracing and circuits from Python: planted circuits, nulls, and the shipped model."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import planted
import pytest
import torch
from tiny_models import build

import hooklab as hl
from hooklab.analysis.asking import SweepError
from hooklab.problems import SpecError

CLEAN, CORRUPT = [2, 3, 5, 1, 3], [2, 4, 5, 1, 3]  # "… 3 5 … 3" asks for 5; after a 4 nothing answers
STORE = "When {a} and {b} went to the store, {c} gave a drink to"


@cache
def lab() -> Any:
    return hl.load("lab")


@cache
def induction() -> Any:
    return hl.load(planted.induction(), verify=False)


def five(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 5]


def ioi(names: list[tuple[str, str]]) -> dict[str, Any]:
    return {"clean": [STORE.format(a=a, b=b, c=b) for a, b in names],
            "corrupt": [STORE.format(a=a, b=b, c=a) for a, b in names],
            "answer": [f" {a}" for a, _ in names], "wrong": [f" {b}" for _, b in names]}


PAIRS = [("Mary", "John"), ("Anna", "Tom"), ("John", "Anna"), ("Tom", "Mary")]


# Planted circuits -----------------------------------------------------------------------------------------------------


def test_the_planted_model_does_induction() -> None:
    logits = induction().hf(torch.tensor([CLEAN, CORRUPT])).logits[:, -1]
    assert logits[0].argmax() == 5 and logits[0, 5] > logits[0].sort().values[-2] + 1
    assert logits[1, 5] < 0.25 * logits[0, 5]


def test_heads_of_the_planted_circuit_and_no_others_matter() -> None:
    scores = hl.sweep(induction(), CLEAN, CORRUPT, "L*H*", metric=five)
    expected = np.zeros((2, 4))
    expected[0, 0] = expected[1, 0] = 1
    np.testing.assert_allclose(scores.values, expected, atol=1e-3)
    assert (scores.axes, scores.unit) == (("layer", "head"), "fraction")


@pytest.mark.parametrize("receiver,effect", [("L1H0.k", 1), ("L1H0.q", 0), ("L1H0.v", 0), ("L1H1.k", 0), ("L1H2.q", 0),
                                             ("L1H3.v", 0)])
@pytest.mark.parametrize("mode", ["noise", "denoise"])
def test_only_the_path_to_the_keys_has_an_effect(receiver: str, effect: int, mode: str) -> None:
    scores = hl.path_patch(induction(), CLEAN, CORRUPT, receiver, "L0H*", metric=five, mode=mode)
    start = 1 if mode == "noise" else 0
    expected = np.full(4, float(start))
    expected[0] = 1 - start if effect else start
    np.testing.assert_allclose(scores.values, expected, atol=5e-3)


def test_an_induction_head_alone_writes_to_the_logits() -> None:
    scores = hl.path_patch(induction(), CLEAN, CORRUPT, "logits", metric=five, mode="denoise")
    expected = np.zeros((2, 4))
    expected[1, 0] = 1
    np.testing.assert_allclose(scores.values, expected, atol=1e-3)


def test_only_the_gate_matters_between_the_layers() -> None:
    model = hl.load(planted.gate(source=1, at=3, last=5), verify=False)
    clean, corrupt = [0, 5, 1, 2, 3, 4], [0, 6, 1, 2, 3, 4]
    for site, where in (("L0.resid_pre", 1), ("L1.resid_pre", 3), ("L1.resid_post", 5)):
        scores = hl.sweep(model, clean, corrupt, site, "each", metric=five)
        expected = np.zeros(6)
        expected[where] = 1
        np.testing.assert_allclose(scores.values.reshape(-1), expected, atol=1e-3, err_msg=site)


def test_where_nothing_is_planted_nothing_is_found() -> None:
    model = hl.load(planted.nothing(), verify=False)
    found = hl.sweep(model, CLEAN, CORRUPT, "L*H*", metric=five, normalise=False)
    assert (found.values == 0).all()
    with pytest.raises(SweepError, match="no effect to normalise by"):
        hl.sweep(model, CLEAN, CORRUPT, "L*H*", metric=five)


def test_the_planted_circuit_is_found() -> None:
    for method in ("greedy", "threshold"):
        found = hl.analysis.circuit(induction(), CLEAN, CORRUPT, five, nodes=["L*H*", "L*.mlp_out"], method=method)
        assert found.nodes == ("L0H0", "L1H0")
        assert found.faithfulness == pytest.approx(1, abs=1e-3)
        assert len(found.removed) == 8 and found.steps.shape == (8,)


def test_a_fact_is_traced_to_where_it_was_planted() -> None:
    model = hl.load(planted.gate(source=1, at=3, last=5), verify=False)
    scores = hl.causal_trace(model, [0, 5, 1, 2, 3, 4], "@1", "L*.resid_pre", metric=five, noise=10, samples=4)
    expected = np.zeros((2, 6))
    expected[0, 1] = expected[1, 3] = 1
    assert np.abs(scores.values - expected)[:, :5].max() < 0.05
    assert scores.ends is not None and scores.ends[0] < scores.ends[1]


# Identities -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "gptj"])
def test_what_a_sweep_must_give(family: str) -> None:
    model = hl.load(build(family))
    ids = {"clean": [5, 6, 7, 8, 9], "corrupt": [5, 6, 17, 8, 19]}
    kwargs: dict[str, Any] = {"metric": "logit_diff", "answer": 3, "wrong": 4}
    itself = hl.sweep(model, ids["clean"], ids["clean"], "L*H*", normalise=False, **kwargs)
    assert np.abs(itself.values).max() < 1e-5
    whole = hl.sweep(model, **ids, sites="L0.resid_pre", **kwargs)
    assert whole.values == pytest.approx(1, abs=1e-4)
    last = hl.sweep(model, **ids, sites="L1.resid_post", positions="last", **kwargs)
    assert last.values == pytest.approx(1, abs=1e-4)
    grid = hl.sweep(model, **ids, sites="L*.resid_pre", positions="each", **kwargs)
    noised = hl.sweep(model, **ids, sites="L*.resid_pre", positions="each", mode="noise", **kwargs)
    assert grid.axes == noised.axes == ("layer", "pos")
    assert np.abs(grid.values[:, :2]).max() < 1e-4 and np.abs(noised.values[:, :2] - 1).max() < 1e-4
    swapped = hl.sweep(model, ids["corrupt"], ids["clean"], "L*.resid_pre", "each", **kwargs)
    np.testing.assert_allclose(noised.values, 1 - swapped.values, atol=1e-4)


def test_raw_numbers_are_the_metric_itself() -> None:
    scores = hl.sweep(lab(), **ioi(PAIRS[:1]), sites="L*H*")
    run = lab().run(scores.spec, answer=[" Mary"], wrong=[" John"])
    np.testing.assert_allclose(scores.raw.values, run.scores["swept.logit_diff"].values, rtol=1e-6)
    assert scores.ends == pytest.approx((run.metrics["corrupt"]["logit_diff"], run.metrics["clean"]["logit_diff"]))


def test_a_callable_metric_is_the_metric_by_name() -> None:
    right, wrong = (lab().tokenizer(word)["input_ids"][-1] for word in (" Mary", " John"))
    named = hl.sweep(lab(), **ioi(PAIRS[:1]), sites="L*H*")
    called = hl.sweep(lab(), **ioi(PAIRS[:1]), sites="L*H*", metric=lambda logits: logits[:, right] - logits[:, wrong])
    np.testing.assert_allclose(called.values, named.values, atol=1e-6)


def test_windows_and_lists_of_places_are_the_lines_of_the_language() -> None:
    names = ioi(PAIRS[:1])
    window = hl.sweep(lab(), **names, sites="L*.mlp_out", positions="each", window=3, normalise=False)
    run = lab().run("prompt clean = {a}\nprompt corrupt = {b}\nanswer \" Mary\" vs \" John\"\nmetric logit_diff\n"
                    "run three on corrupt:\n    patch L1:4.mlp_out @last from clean\n", a=names["clean"], b=names["corrupt"])
    change = run.metrics["three"]["logit_diff"] - run.metrics["corrupt"]["logit_diff"]
    assert window.values[2, -1] == pytest.approx(change, abs=1e-4)
    several = hl.sweep(lab(), **names, sites=["L0H1", "L0.mlp_out", "L2N5"], normalise=False)
    alone = [hl.sweep(lab(), **names, sites=site, normalise=False).values.sum() for site in ("L0H1", "L0.mlp_out", "L2N5")]
    np.testing.assert_allclose(several.values, alone, atol=1e-4)


# Several pairs --------------------------------------------------------------------------------------------------------


def test_pairs_together_are_the_mean_of_pairs_alone() -> None:
    together = hl.sweep(lab(), **ioi(PAIRS), sites="L*H*", normalise=False)
    alone = [hl.sweep(lab(), **ioi([pair]), sites="L*H*", normalise=False).values for pair in PAIRS]
    np.testing.assert_allclose(together.examples, alone, atol=1e-4)
    np.testing.assert_allclose(together.values, np.mean(alone, 0), atol=1e-4)
    assert together.low is not None and together.high is not None and together.p is not None
    assert (together.low <= together.values + 1e-9).all() and (together.values <= together.high + 1e-9).all()


def test_normalised_effects_are_ratios_of_means() -> None:
    scores = hl.sweep(lab(), **ioi(PAIRS), sites="L*H*")
    raw = lab().run(scores.spec, answer=[f" {a}" for a, _ in PAIRS], wrong=[f" {b}" for _, b in PAIRS])
    zero, one = (raw.examples[name]["logit_diff"].mean() for name in ("corrupt", "clean"))
    np.testing.assert_allclose(scores.values, (raw.scores["swept.logit_diff"].values - zero) / (one - zero), atol=1e-6)


def test_controls_find_nothing_of_the_kind_and_leave_the_model_alone() -> None:
    before = {name: parameter.clone() for name, parameter in lab().hf.named_parameters()}
    scores = hl.sweep(lab(), **ioi(PAIRS), sites="L*H*", control="weights", normalise=False)
    assert scores.control is not None
    assert np.abs(scores.control.values).max() < 0.2 * np.abs(scores.values).max()
    assert all(torch.equal(parameter, before[name]) for name, parameter in lab().hf.named_parameters())
    scaled = hl.sweep(lab(), **ioi(PAIRS), sites="L*H*", control="weights")
    assert scaled.control is not None and np.abs(scaled.control.values).max() < 0.1
    dealt = hl.sweep(lab(), **ioi(PAIRS), sites="L*H*", control="labels", normalise=False).control
    assert dealt is not None and np.abs(dealt.values).max() < np.abs(scores.values).max()


def test_weights_come_back_after_an_error() -> None:
    from hooklab.analysis.controls import shuffled_weights

    before = {name: parameter.clone() for name, parameter in lab().hf.named_parameters()}
    with pytest.raises(KeyboardInterrupt), shuffled_weights(lab()):
        assert not torch.equal(lab().hf.transformer.wte.weight, before["transformer.wte.weight"])
        raise KeyboardInterrupt
    assert all(torch.equal(parameter, before[name]) for name, parameter in lab().hf.named_parameters())


# The shipped model ----------------------------------------------------------------------------------------------------


def test_the_heads_for_indirect_objects_are_found_again_on_other_names() -> None:
    first = hl.sweep(lab(), **ioi(PAIRS[:2]), sites="L*H*").values
    second = hl.sweep(lab(), **ioi(PAIRS[2:]), sites="L*H*").values
    assert np.corrcoef(first.reshape(-1), second.reshape(-1))[0, 1] > 0.8
    assert first.max() > 0.2


def test_a_fact_is_restored_at_its_subject_early_and_at_the_end_late() -> None:
    scores = hl.causal_trace(lab(), "The capital of France is", " France", "L*.resid_pre", answer=" Paris", samples=5)
    subject = next(i for i, label in enumerate(scores.coords["pos"]) if "France" in str(label))
    assert scores.values[0].argmax() == subject and scores.values[0, -1] < 0.5
    assert scores.values[-1].argmax() == len(scores.coords["pos"]) - 1
    assert scores.values.max() > 0.8


def test_ablation_sweeps_agree_with_the_language() -> None:
    names = ioi(PAIRS)
    for method in ("zero", "mean", "resample"):
        over = {} if method == "zero" else {"over": names["corrupt"]}
        scores = hl.sweep(lab(), names["clean"], sites="L*H*", method=method, answer=names["answer"],
                          wrong=names["wrong"], **over)
        run = lab().run(scores.spec, answer=names["answer"], wrong=names["wrong"], over=names["corrupt"])
        change = run.scores["swept.logit_diff"].values - run.metrics["clean"]["logit_diff"]
        np.testing.assert_allclose(scores.values, change, atol=1e-5)


def test_a_circuit_is_a_cell_that_holds() -> None:
    names = ioi(PAIRS[:1])
    found = hl.analysis.circuit(lab(), **names)
    assert found.faithfulness >= 0.9 and len(found.nodes) < 20
    assert "Circuit of" in str(found) and "without" in found._repr_html_() and "<script" not in found._repr_html_()
    run = lab().run(found.spec, answer=names["answer"], wrong=names["wrong"])
    low, high = run.metrics["corrupt"]["logit_diff"], run.metrics["clean"]["logit_diff"]
    assert (run.metrics["circuit"]["logit_diff"] - low) / (high - low) == pytest.approx(found.faithfulness, abs=1e-3)


# Words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kwargs,error,match", [
    ({"mode": "denoising"}, SweepError, "did you mean|denoise"),
    ({"method": "mean"}, SweepError, "leave corrupt="),
    ({"metric": "logit_dif"}, SweepError, "logit_diff"),
    ({"control": "label"}, SweepError, "labels"),
    ({"control": "labels"}, hl.errors.HooklabError, "answers that differ"),
    ({"sites": []}, SweepError, "no place"),
    ({"sites": "L9.resid_pre"}, SpecError, "layers"),
    ({"positions": "Marty"}, SpecError, "Marty"),
    ({"answer": None, "wrong": " John"}, SweepError, "right next token"),
    ({"answer": None, "wrong": None}, SpecError, "answer"),
], ids=str)
def test_what_cannot_be_done_is_said(kwargs: dict[str, Any], error: type[Exception], match: str) -> None:
    given: dict[str, Any] = {"clean": STORE.format(a="Mary", b="John", c="John"),
                             "corrupt": STORE.format(a="Mary", b="John", c="Mary"), "answer": " Mary", "wrong": " John",
                             "sites": "L*H*", **kwargs}
    with pytest.raises(error, match=match):
        hl.sweep(lab(), **given)


def test_an_ablation_needs_its_corpus() -> None:
    with pytest.raises(SweepError, match="over="):
        hl.sweep(lab(), "Hello there", sites="L*H*", method="mean", metric="entropy")
    with pytest.raises(SweepError, match="clean and a corrupted"):
        hl.sweep(lab(), "The capital of France is", sites="L*H*", metric="entropy")
