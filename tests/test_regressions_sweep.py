"""Mistakes of sweeps that were once there: packed passes, circuits, metrics and progress."""

from __future__ import annotations

import itertools
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import SIZES, build

import hooklab as hl
from hooklab.analysis.asking import SweepError
from hooklab.analysis.attribute import AttributionError
from hooklab.compiler.packing import choosing

CLEAN, CORRUPT = [5, 6, 7, 8, 9], [5, 16, 7, 8, 9]
HEAD = "prompt clean = {a}\nprompt corrupt = {b}\nanswer {right} vs {wrong}\nmetric logit_diff\n"
VALUES = {"a": CLEAN, "b": CORRUPT, "right": 3, "wrong": 4}


@cache
def opened(family: str) -> Any:
    return hl.load(build(family))


def both_ways(model: Any, lines: str, monkeypatch: pytest.MonkeyPatch, run: str = "hooked", **values: Any) -> None:
    """Packed passes give what whole ones do."""
    plan = model.plan(HEAD + lines, values={**VALUES, **values})
    monkeypatch.setattr(choosing, "FEWEST", 2)
    assert run in choosing.packed(plan)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", hl.errors.HooklabWarning)
        together = model.run(plan).scores[f"{run}.logit_diff"].values
    monkeypatch.setattr(choosing, "FEWEST", 10**9)
    np.testing.assert_allclose(together, model.run(plan).scores[f"{run}.logit_diff"].values, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("lines", [
    "run hooked on corrupt:\n    patch L1H[0,1] from clean\n    patch each L*H*.z @1 from clean",
    "run hooked on corrupt:\n    clamp L0H* min=-0.1 max=0.2\n    ablate each L*H0 @each[1,last] with mean over clean",
    "run hooked on corrupt:\n    ablate L0.result @1 with mean over clean\n    zero each L*.z @each[1,last]",
    "run mid on clean:\n    scale L*H0 by 3\nrun hooked on corrupt:\n    patch each L*H* from mid",
    "run hooked on corrupt:\n    patch each L*H* -> L1H2.z from clean",
], ids=["weighted values after a write", "a write clamped before", "a mean before weighted values",
        "from a run that edits writes", "paths to weighted values"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_lines_on_writes_and_on_weighted_values_keep_their_order(family: str, lines: str,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    both_ways(opened(family), lines, monkeypatch)


def test_no_path_leads_from_a_head_to_the_weighted_values_beside_it() -> None:
    run = opened("llama").run(HEAD + "run hooked on corrupt:\n    patch each L1H* -> L1.z from clean", values=VALUES)
    np.testing.assert_allclose(run.scores["hooked.logit_diff"].values, run.metrics["corrupt"]["logit_diff"], atol=1e-6)


def test_a_run_on_a_swept_run_takes_from_each_of_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("run hooked on corrupt:\n    patch each L*H* @last from clean\n"
             "run second on hooked:\n    patch L1.attn_out @last from hooked")
    monkeypatch.setattr(choosing, "FEWEST", 2)
    run = opened("gpt2").run(HEAD + lines, values=VALUES)  # what a cell takes from its own makes no difference
    np.testing.assert_allclose(run.scores["second.logit_diff"].values, run.scores["hooked.logit_diff"].values, atol=1e-5)


def test_prompts_longer_than_the_context_that_a_config_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = LlamaForCausalLM(LlamaConfig(**{**SIZES, "max_position_embeddings": 8}, rope_parameters={
            "rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})).eval()
    a, b = list(range(5, 20)), [5, 60, *range(7, 20)]
    with pytest.warns(hl.errors.HooklabWarning, match="was made for 8"):
        both_ways(hl.load(hf), "run hooked on corrupt:\n    patch each L*.resid_pre @each from clean", monkeypatch, a=a, b=b)


def test_a_first_chunk_of_short_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = [[5, 6, 7, 8], list(range(5, 25))], [[15, 6, 7, 8], [*range(5, 24), 40]]
    model, lines = opened("llama"), "run hooked on corrupt:\n    patch each L0.resid_pre @each[0,1,2,last] from clean"
    plan = model.plan(HEAD + lines, values={**VALUES, "a": a, "b": b})
    few = model.run(plan, rows=1).scores["hooked.logit_diff"].values
    monkeypatch.setattr(choosing, "FEWEST", 10**9)
    np.testing.assert_allclose(few, model.run(plan).scores["hooked.logit_diff"].values, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_hooks_that_a_model_came_with_act_once(family: str) -> None:
    model = hl.load(build(family))
    plan = model.plan(HEAD + "run hooked on corrupt:\n    patch each L*.resid_pre, L*.mlp_out from corrupt", values=VALUES)

    def scaled(module: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (args[0] * 1.3, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] * 1.3}

    handle = model.layout.blocks[1].register_forward_pre_hook(scaled, with_kwargs=True)
    assert "hooks of their own" in choosing.packed(plan)[2]["hooked"]
    assert np.isfinite(model.run(plan).scores["hooked.logit_diff"].values).all()
    handle.remove()
    assert choosing.packed(plan)[2].get("hooked", "") != "its modules have hooks of their own"


def test_a_metric_that_writes_into_its_logits_leaves_others_alone() -> None:
    def wipe(out: Any) -> torch.Tensor:
        out.logits.zero_()
        return out.logits[:, -1, 3]

    model, lines = opened("gpt2"), "run hooked on corrupt:\n    patch each L*.resid_pre @each from clean"
    text = HEAD.replace("metric", "metric wiped = {wipe}\nmetric") + lines
    wiped = model.run(text, values={**VALUES, "wipe": wipe}).scores["hooked.logit_diff"].values
    np.testing.assert_allclose(wiped, model.run(HEAD + lines, values=VALUES).scores["hooked.logit_diff"].values, atol=1e-6)
    assert np.ptp(wiped) > 1e-3


# Circuits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes,size", [("L1N0:4", 4), ("L0.resid_pre[3,4]", 2), ("L0H1.q[0:2]", 2), ("L*H0:2", 4)])
def test_components_of_a_circuit_are_single_ones(nodes: str, size: int) -> None:
    found = hl.analysis.circuit(opened("gpt2"), CLEAN, CORRUPT, nodes=nodes, answer=3, wrong=4, keep=0.0, method="threshold",
                                threshold=1e9)
    assert (len(found.removed), len(set(found.removed)), found.nodes) == (size, size, ())
    opened("gpt2").run(found.spec, values={"clean": CLEAN, "corrupt": CORRUPT, "answer": 3, "wrong": 4})  # its expect holds


@pytest.mark.parametrize("options,match", [({"nodes": "L0H1 @2"}, "all positions"), ({"keep": 1.5}, "0 to 1"),
                                           ({"keep": float("nan")}, "0 to 1")], ids=str)
def test_circuits_that_cannot_be_searched_for(options: dict[str, Any], match: str) -> None:
    with pytest.raises(SweepError, match=match):
        hl.analysis.circuit(opened("gpt2"), CLEAN, CORRUPT, answer=3, wrong=4, **options)


@pytest.mark.parametrize("rows", [0, -1])
def test_edges_of_no_rows(rows: int) -> None:
    with pytest.raises(AttributionError, match="at least one pair"):
        hl.analysis.edges(opened("gpt2"), [CLEAN, CORRUPT], [CORRUPT, CLEAN], answer=3, rows=rows)


# Progress -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["sweep", "control", "circuit", "threshold"])
def test_progress_goes_on_to_its_end(what: str) -> None:
    seen: list[tuple[int, int]] = []
    given: dict[str, Any] = {"answer": 3, "wrong": 4, "progress": lambda done, total, _: seen.append((done, total))}
    if what in ("sweep", "control"):
        hl.sweep(opened("gpt2"), CLEAN, CORRUPT, "L*H*", control="weights" if what == "control" else None, **given)
    else:
        hl.analysis.circuit(opened("gpt2"), CLEAN, CORRUPT, method=what if what == "threshold" else "greedy", **given)
    assert all(a <= b for (a, _), (b, _) in itertools.pairwise(seen))
    assert len({total for _, total in seen}) == 1 and seen[-1][0] == seen[-1][1]
