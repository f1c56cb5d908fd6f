"""Packed sweeps give what one whole pass per cell gives: against Hugging Face modules with plain torch hooks."""

from __future__ import annotations

import itertools
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import build

import hooklab as hl
from hooklab.compiler.packing import choosing

PACKED = ["gpt2", "llama", "gpt_neox", "gpt_neox_sequential", "opt", "phi", "phi3", "mistral", "mixtral", "qwen2", "qwen3",
          "gemma", "gemma2", "gemma3", "stablelm", "stablelm_parallel", "olmo2", "gpt_oss", "chameleon"]
WHOLE = ["gptj", "bloom", "gpt_neo", "falcon", "opt_postnorm"]
CLEAN = [[5, 6, 7, 8, 9, 10, 11], [15, 16, 17, 18]]
CORRUPT = [[5, 6, 27, 8, 9, 30, 11], [15, 26, 17, 18]]
RIGHT, WRONG = 3, 4
HEAD = ("prompt clean = {a}\nprompt corrupt = {b}\nanswer {right} vs {wrong}\nmetric logit_diff\nmetric kl(clean)\n"
        "run hooked on corrupt:\n    ")


@cache
def opened(family: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hl.load(build(family))


def values(*, ragged: bool) -> dict[str, Any]:
    return {"a": CLEAN if ragged else CLEAN[0], "b": CORRUPT if ragged else CORRUPT[0], "right": RIGHT, "wrong": WRONG}


def planned(family: str, lines: str, *, ragged: bool = False) -> Any:
    return opened(family).plan(HEAD + lines, values=values(ragged=ragged))


# One Hugging Face pass per cell -------------------------------------------------------------------------------------


def captured(hf: Any, module: Any, ids: list[int], side: str) -> torch.Tensor:
    kept = []

    def before(_: Any, args: Any, kwargs: Any) -> None:
        kept.append((args[0] if args else kwargs["hidden_states"]).clone())

    def after(_: Any, args: Any, output: Any) -> None:
        kept.append((output if isinstance(output, torch.Tensor) else output[0]).clone())

    handle = (module.register_forward_pre_hook(before, with_kwargs=True) if side == "input"
              else module.register_forward_hook(after))
    with torch.no_grad():
        hf(torch.tensor([ids]), use_cache=False)
    handle.remove()
    return kept[0]


def patched(hf: Any, module: Any, ids: list[int], side: str, column: int | slice, part: slice, new: torch.Tensor) -> float:
    def put(x: torch.Tensor) -> torch.Tensor:
        changed = x.clone()
        changed.view(1, -1, x.shape[-1])[:, column, part] = new.view(1, -1, x.shape[-1])[:, column, part]
        return changed  # some modules take batch and positions as one axis

    def before(_: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (put(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": put(kwargs["hidden_states"])}

    def after(_: Any, args: Any, output: Any) -> Any:
        return put(output) if isinstance(output, torch.Tensor) else (put(output[0]), *output[1:])

    handle = (module.register_forward_pre_hook(before, with_kwargs=True) if side == "input"
              else module.register_forward_hook(after))
    with torch.no_grad():
        logits = hf(torch.tensor([ids]), use_cache=False).logits[0, -1]
    handle.remove()
    return float(logits[RIGHT] - logits[WRONG])


def modules(model: Any, what: str) -> list[tuple[Any, str]]:
    layout = model.layout
    layers = range(model.facts.n_layers)
    if what == "resid_pre":
        return [(layout.blocks[n], "input") for n in layers]
    if what == "z":
        return [(layout.role(n, "o"), "input") for n in layers]
    port = [layout.port(what, n).source for n in layers]
    named = dict(model.hf.named_modules())
    return [(named[str(source).removeprefix("model.").rpartition(".")[0]], "output") for source in port]


def by_hand(model: Any, what: str, *, each_head: bool, each_pos: bool) -> np.ndarray:
    """Every cell in a pass of its own, [layer (head) (pos)]."""
    hf, width = model.hf, model.facts.d_head
    ids, other = CORRUPT[0], CLEAN[0]
    heads = [slice(h * width, (h + 1) * width) for h in range(model.facts.n_heads)] if each_head else [slice(None)]
    columns: list[Any] = list(range(len(ids))) if each_pos else [slice(None)]
    found = [[[patched(hf, module, ids, side, column, part, new) for column in columns] for part in heads]
             for module, side in modules(model, what) for new in [captured(hf, module, other, side)]]
    return np.array(found).squeeze(2 if not each_pos else ()).squeeze(1 if not each_head else ())


@pytest.mark.parametrize("line,what,each_head,each_pos", [
    ("patch each L*.resid_pre @each from clean", "resid_pre", False, True),
    ("patch each L*.mlp_out @each from clean", "mlp_out", False, True),
    ("patch each L*.attn_out @each from clean", "attn_out", False, True),
    ("patch each L*.resid_post @each from clean", "resid_post", False, True),
    ("patch each L*H*.z @each from clean", "z", True, True),
    ("patch each L*H* from clean", "z", True, False),
], ids=lambda x: x if isinstance(x, str) and " " in x else "")
@pytest.mark.parametrize("family", PACKED)
def test_cells_are_those_of_one_pass_each(family: str, line: str, what: str, each_head: bool, each_pos: bool) -> None:
    model, plan = opened(family), planned(family, line)
    assert set(choosing.packed(plan)[1]) == {"hooked"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", hl.errors.HooklabWarning)  # a fallback would say so
        scores = model.run(plan).scores["hooked.logit_diff"]
    expected = by_hand(model, what, each_head=each_head, each_pos=each_pos)
    np.testing.assert_allclose(scores.values, expected, atol=2e-5, rtol=1e-5)
    assert np.ptp(expected) > 1e-3  # there is something to get wrong


# Other lines, ragged prompts: against whole passes, which the cases compare with a hand-written transformer ------------

LINES = {
    "queries": "patch each L*H*.q @each[0,1,last] from clean",
    "keys": "patch each L*.k @each[0,1,last] from clean",
    "values": "patch each L*.v @each[1,last] from clean",
    "patterns": "patch each L*H*.pattern @last from corrupt",
    "rotated queries": "patch each L*H*.rot_q @each[1,last] from clean",
    "zeroed heads": "zero each L*H*",
    "zeroed heads at one token": "zero each L*H* @1",
    "scaled streams": "scale each L*.resid_pre @1 by 0.5",
    "a dimension of the stream": "zero each L*.resid_pre[3,7] @last",
    "clamped norms": "clamp each L*.ln1 @1 min=0",
    "set": "set each L*.attn_out @last to 0.5",
    "cut edges": "cut each L*H* @1 -> @last",
    "cut edges after the softmax": "cut each L*H* @1 -> @last renorm=false",
    "cuts by query": "cut each L*H* @0 -> @each[1,last]",
    "mean ablation": "ablate each L*H* with mean over clean",
    "resampling": "ablate each L*H* @last with resample over clean",
    "a shared line before": "zero L0H1\n    patch each L*.resid_pre @each[0,1,last] from clean",
    "a shared line after": "patch each L*.resid_post @each[1,last] from clean\n    scale L1.mlp_out by 2",
    "shared lines at the same place": "scale L*.attn_out by 2\n    patch each L*.attn_out @each[1,last] from clean",
    "a shared line on the stream": "scale L1.resid_pre @1 by 2\n    patch each L*H* from clean",
    "noise on the embedding, restored": "noise embed @1 by 0.5\n    patch each L*.resid_pre @each[1,last] from corrupt",
    "noise in several draws": "noise embed @1 by 0.5 samples=3 seed=1\n    patch each L*.mlp_out @each[1,last] from corrupt",
    "windows of layers": "patch each L*.resid_pre @each[1,last] from clean window=2",
    "a stream before and heads": "zero L1H0 @last\n    zero each L0.attn_out @1, L0.mlp_out @1, L1.attn_out @1",
    "direct paths to the logits": "patch each L*H* -> logits from clean",
    "paths to queries": "patch each L*H* -> L1H2.q from clean",
    "paths to values": "patch each L*H* -> L1.v from clean",
    "paths to keys at one position, MLPs held": "patch each L*H* -> L1H1.k @last from clean mlps=freeze",
    "paths from MLPs": "patch each L*.mlp_out @each[1,last] -> L1.q from clean",
    "paths to the stream": "patch each L*H* -> L1.resid_pre from clean",
    "paths to a write": "patch each L*H* -> L1.mlp_out from clean",
    "paths beside another line": "patch each L*H* -> L1H1.q from clean\n    zero L1H0",
    "from elsewhere": "steer each L*.resid_pre @last by clean.L0.resid_post @last",
    "the last norm": "scale each L*.resid_post @last by 2\n    scale ln_final by 0.5",
}


@pytest.mark.parametrize("ragged", [False, True], ids=["one pair", "two pairs of different lengths"])
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2", "mistral", "gpt_oss"])
def test_packed_and_whole_passes_agree(family: str, line: str, ragged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "FEWEST", 2)
    model, plan = opened(family), planned(family, line, ragged=ragged)
    found, reasons = choosing.packed(plan)[1:]
    assert found or "little in common" in reasons["hooked"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", hl.errors.HooklabWarning)
        together = model.run(plan)
    monkeypatch.setattr(choosing, "FEWEST", 10**9)
    apart = model.run(plan)
    for metric in ("logit_diff", "kl"):
        a, b = (run.scores[f"hooked.{metric}"] for run in (together, apart))
        assert (a.axes, a.coords) == (b.axes, b.coords)
        np.testing.assert_allclose(a.values, b.values, atol=2e-5, rtol=1e-5)
        if ragged:
            np.testing.assert_allclose(a.examples, b.examples, atol=2e-5, rtol=1e-5)


def test_small_passes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plan = opened("llama"), planned("llama", "patch each L*H*.z @each[0,1,last] from clean", ragged=True)
    whole = model.run(plan).scores["hooked.logit_diff"]
    small = model.run(plan, rows=1).scores["hooked.logit_diff"]
    np.testing.assert_allclose(small.values, whole.values, atol=1e-5)


@pytest.mark.parametrize("family", WHOLE)
def test_others_say_why_they_take_whole_passes(family: str) -> None:
    plan = planned(family, "patch each L*.resid_pre @each from clean")
    _, found, reasons = choosing.packed(plan)
    assert not found
    assert "attention inside its own module" in reasons["hooked"] or "norms after" in reasons["hooked"]
    assert np.isfinite(opened(family).run(plan).scores["hooked.logit_diff"].values).all()


@pytest.mark.parametrize("line,reason", [
    ("patch each L*.resid_pre @each from clean\n    save L1.z", "activations are read"),
    ("scale each embed, L0.resid_pre, L1.resid_pre by 2", "embed is edited"),
    ("scale each L0.resid_pre, L1.resid_pre, L1.attn_out by 2\n    generate 2", "writes on"),
])
def test_lines_that_take_whole_passes(line: str, reason: str) -> None:
    assert reason in choosing.packed(planned("gpt2", line))[2]["hooked"]


# What must be exact ---------------------------------------------------------------------------------------------------


def test_what_cannot_change_is_known_without_running() -> None:
    plan = planned("gpt2", "patch each L*.resid_pre @each from clean")
    found = choosing.packed(plan)[1]["hooked"]
    assert found.idle == 2 * 2  # two layers, two tokens before the first that differs
    run = opened("gpt2").run(plan)
    values = run.scores["hooked.logit_diff"].values
    assert (values[:, :2] == values[0, 0]).all()
    assert values[0, 0] == pytest.approx(run.metrics["corrupt"]["logit_diff"], abs=1e-6)


def test_patching_with_itself_changes_nothing() -> None:
    model = opened("llama")
    plan = planned("llama", "patch each L*H*.z @each from corrupt")
    assert choosing.packed(plan)[1]["hooked"].idle == plan.run("hooked").cells.__len__()
    scores = model.run(plan).scores["hooked.logit_diff"].values
    assert np.ptp(scores) == 0


def test_a_whole_patch_gives_the_source() -> None:
    for family in ("gpt2", "gemma2", "gpt_neox"):
        run = opened(family).run(planned(family, "patch each L0.resid_pre, L1.resid_pre, L1.resid_post from clean"))
        np.testing.assert_allclose(run.scores["hooked.logit_diff"].values, run.metrics["clean"]["logit_diff"], atol=1e-5)
        np.testing.assert_allclose(run.scores["hooked.kl"].values, 0, atol=1e-6)


def test_a_wrong_continuation_is_noticed_and_done_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from hooklab.runtime.packed import walk

    model, plan = opened("gpt2"), planned("gpt2", "patch each L*.resid_pre @each from clean")
    right = model.run(plan).scores["hooked.logit_diff"].values
    original = walk.Walk._based
    monkeypatch.setattr(walk.Walk, "_based", lambda self, *args: original(self, *args) * 1.1)
    with pytest.warns(hl.errors.HooklabWarning, match="whole passes"):
        over = model.run(plan).scores["hooked.logit_diff"].values
    np.testing.assert_allclose(over, right, atol=1e-5)


def test_nothing_is_left_behind() -> None:
    model = opened("gpt2")
    before = {name: (len(m._forward_hooks), len(m._forward_pre_hooks), m.__dict__.get("forward"))
              for name, m in model.hf.named_modules()}
    attention, grad = model.hf.config._attn_implementation, torch.is_grad_enabled()
    state = torch.random.get_rng_state()
    model.run(planned("gpt2", "patch each L*.resid_pre @each from clean"))
    with pytest.raises(hl.errors.HooklabError):
        model.run(planned("gpt2", "steer each L*.resid_pre @each by {v}".replace("{v}", "clean.L0.resid_post @[0,1]")))
    after = {name: (len(m._forward_hooks), len(m._forward_pre_hooks), m.__dict__.get("forward"))
             for name, m in model.hf.named_modules()}
    assert after == before
    assert (model.hf.config._attn_implementation, torch.is_grad_enabled()) == (attention, grad)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_of_weights(dtype: torch.dtype) -> None:
    model = hl.load(build("llama").to(dtype))
    plan = model.plan(HEAD + "patch each L*.resid_pre @each from clean", values=values(ragged=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error", hl.errors.HooklabWarning)
        found = model.run(plan).scores["hooked.logit_diff"].values
    exact = opened("llama").run(planned("llama", "patch each L*.resid_pre @each from clean")).scores["hooked.logit_diff"]
    np.testing.assert_allclose(found, exact.values, atol=1e-5 if dtype is torch.float64 else 0.1)


# Stopping -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "gptj"])
def test_an_interrupt_keeps_what_is_done(family: str) -> None:
    model, plan = opened(family), planned(family, "patch each L*H*.z @each from clean")
    full = model.run(plan).scores["hooked.logit_diff"].values
    seen = []

    def stop(done: int, total: int, what: str) -> None:
        seen.append((done, total))
        if what == "hooked" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(hl.errors.Stopped, match=r"\d+ of 56 cells of hooked") as stopped:
        model.run(plan, rows=2, progress=stop)
    part = stopped.value.run.scores["hooked.logit_diff"].values
    done = ~np.isnan(part)
    assert 0 < done.sum() < done.size
    np.testing.assert_allclose(part[done], full[done], atol=1e-5)
    assert stopped.value.run.metrics["clean"]["logit_diff"] == pytest.approx(
        model.run(plan).metrics["clean"]["logit_diff"], abs=1e-5)
    assert all(a <= b for (a, _), (b, _) in itertools.pairwise(seen))
