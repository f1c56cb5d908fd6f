"""Cases of what is read: metrics, saved activations, the lens, attributions, scores of heads, claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from oracle import (
    ADDITIVE,
    BATCH,
    CLEAN,
    MIDS,
    ONE,
    PROMPTS,
    RAGGED,
    RIGHT,
    TWO,
    WRONG,
    Case,
    Oracle,
    add,
    diff,
    draws,
    put,
    zero,
)
from reference import reference
from torch import Tensor

LAST = [-1]
HURT = {"L0.mlp_out": zero(), "L1.result": zero(heads=[2])}
HURTS = "zero L0.mlp, L1H2\n"


def _loss(logits: Tensor, ids: list[int]) -> Tensor:
    return torch.nn.functional.cross_entropy(logits[:-1].double(), torch.tensor(ids[1:]))


def _kl(other: Tensor, this: Tensor) -> Tensor:
    p = other.double().softmax(-1)
    return torch.where(p > 0, p * (p.clamp(min=1e-300).log() - this.double().log_softmax(-1)), 0.0).sum(-1)


def _entropy(x: Tensor) -> Tensor:
    p = x.double().softmax(-1)
    return -torch.where(p > 0, p * p.clamp(min=1e-300).log(), 0.0).sum(-1)


METRICS: list[tuple[str, str, Any]] = [
    ("logit", "metric logit", lambda x: x[:, -1, RIGHT]),
    ("logit", "metric logit({wrong}) @2", lambda x: x[:, 2, WRONG]),
    ("logit_diff", "metric logit_diff() @[1, last]", lambda x: (x[:, [1, -1], RIGHT] - x[:, [1, -1], WRONG]).mean(-1)),
    ("swapped", "metric swapped = logit_diff({wrong}, {right})", lambda x: -diff(x)),
    ("logit_centred", "metric logit_centred", lambda x: x[:, -1, RIGHT] - x[:, -1].mean(-1)),
    ("logit_centred", "metric logit_centred({wrong}) @[1, last]",
     lambda x: (x[:, [1, -1], WRONG] - x[:, [1, -1]].mean(-1)).mean(-1)),
    ("several", "metric several = (logit({right}) + logit(3)) / 2 - (logit({wrong}) + logit(5) + logit(7)) / 3",
     lambda x: x[:, -1, [RIGHT, 3]].mean(-1) - x[:, -1, [WRONG, 5, 7]].mean(-1)),
    ("together", "metric together = prob({right}) + prob(3) + prob(5)",
     lambda x: x[:, -1].softmax(-1)[:, [RIGHT, 3, 5]].sum(-1)),
    ("prob", "metric prob", lambda x: x[:, -1].softmax(-1)[:, RIGHT]),
    ("p", "metric p = prob({wrong}) @first", lambda x: x[:, 0].softmax(-1)[:, WRONG]),
    ("logprob", "metric logprob", lambda x: x[:, -1].log_softmax(-1)[:, RIGHT]),
    ("rank", "metric rank", lambda x: (x[:, -1] > x[:, -1, RIGHT, None]).sum(-1)),
    ("entropy", "metric entropy", lambda x: _entropy(x[:, -1])),
    ("entropy", "metric entropy() @all", lambda x: _entropy(x).mean(-1)),
    ("top", "metric top", lambda x: x[:, -1].softmax(-1).amax(-1)),
    ("loss", "metric loss", lambda x: torch.stack([_loss(row, ids) for row, ids in zip(x, BATCH, strict=True)])),
    ("m", "metric m = 2 * logit - 3 * prob({wrong}) / 4 + 1",
     lambda x: 2 * x[:, -1, RIGHT] - 0.75 * x[:, -1].softmax(-1)[:, WRONG] + 1),
    ("b", "metric a = logit_diff\nmetric b = -a", lambda x: -diff(x)),
    ("metric", "metric {largest}", lambda x: x[:, -1].amax(-1)),
    ("m", "metric m = {largest} - logit", lambda x: x[:, -1].amax(-1) - x[:, -1, RIGHT]),
    ("m", "metric m = {total}", lambda x: x[:, -1, :8].sum() + 0 * x[:, -1, 0]),
]
"""Name, line, and the number of each example by formula from logits [batch pos d_vocab]."""

HEAD = "prompt {batch}\nanswer {right} vs {wrong}\n"


def _metric(name: str, line: str, formula: Any) -> Case:
    def expected(o: Oracle) -> Mapping[str, Any]:
        return {f"main.{name}": formula(o.logits("batch")), f"hooked.{name}": formula(o.logits("batch", HURT))}

    return Case("metric: " + line.replace("\n", ", "), f"{HEAD}{line}\n{HURTS}", expected)


def _against(o: Oracle) -> Mapping[str, Any]:
    plain, hurt = o.logits("batch"), o.logits("batch", HURT)
    other = o.logits("others")
    return {"a.base": _kl(plain[:, -1], hurt[:, -1]), "a.every": _kl(plain, hurt).mean(-1), "batch.base": torch.zeros(2),
            "a.other": _kl(other[:, -1], hurt[:, -1]), "b.from_a": _kl(hurt[:, -1], plain[:, -1])}


NUMBERS: list[Case] = [
    *(_metric(*row) for row in METRICS),
    Case("kl against the untouched run, another prompt and another run", "prompt batch = {batch}\nprompt others = {others}\n"
         "metric base = kl(baseline)\nmetric every = kl(baseline) @all\nmetric other = kl(others)\nrun a on batch:\n"
         "    zero L0.mlp, L1H2\nrun b on batch:\n    scale L0.mlp by 1\nmetric from_a = kl(a)\n", _against, run="a"),
    Case("metrics of ragged prompts",
         "prompt {ragged}\nanswer {right} vs {wrong}\nmetric loss\nmetric prob\nmetric start = logit() @first\n"
         "zero L0.mlp, L1H2\n", lambda o: {
             "hooked.loss": torch.stack([_loss(o.logits(ids, HURT)[0], ids) for ids in RAGGED]),
             "hooked.prob": torch.stack([o.logits(ids, HURT)[0, -1].softmax(-1)[RIGHT] for ids in RAGGED]),
             "hooked.start": torch.stack([o.logits(ids, HURT)[0, 0, RIGHT] for ids in RAGGED])}),
    Case("a metric over a grid is averaged over examples", "prompt {batch}\nmetric entropy\nzero each L*.mlp\n",
         lambda o: {"hooked.entropy": torch.stack([_entropy(o.logits("batch", {f"L{n}.mlp_out": zero()})[:, -1]).mean()
                                                   for n in range(2)])}, axes=(("layer", 2),)),
    Case("claims that hold",
         TWO + "run a on dirty:\n    patch L*.resid from clean\nexpect a.logit_diff ~= clean.logit_diff\n"
         "expect abs(a.logit_diff - 2 * clean.logit_diff + clean.logit_diff) < 0.001\n"
         "expect a.logit_diff != baseline.logit_diff + 1000\nexpect 2 > 1\nexpect baseline.logit_diff == dirty.logit_diff\n",
         lambda o: {"a.logit_diff": diff(o.logits())}, run="a"),
]


def _sites(o: Oracle) -> Mapping[str, Any]:
    names = ["embed", "ln_final", "ln_final_scale", "logits", *(f"L1.{site}" for site in SITES)]
    values = o("batch")
    return {f"batch.{name}": values[name] for name in names}


SITES = ("resid_pre", "ln1_scale", "ln1", "q", "k", "v", "rot_q", "rot_k", "scores", "pattern", "z", "result", "attn_out",
         "ln2_scale", "ln2", "mlp_pre", "mlp_post", "mlp_out", "resid_post")
SAVED = ", ".join(["embed", "ln_final", "ln_final_scale", "logits", *(f"L1.{site}" for site in SITES)])

SAVES: list[Case] = [
    Case("every site of a layer is saved", f"prompt batch = {{batch}}\nsave {SAVED}\n", _sites),
    Case("the stream between attention and MLP is saved", "prompt {clean}\nsave L*.resid_mid\n",
         lambda o: {f"main.L{n}.resid_mid": o()[f"L{n}.resid_mid"] for n in range(2)}, families=MIDS),
    Case("layers under one name", "prompt {clean}\nsave L*.resid @last as stream\n",
         lambda o: {"main.stream": torch.stack([o()[f"L{n}.resid_post"][:, -1:] for n in range(2)])}),
    Case("sites under one name", "prompt {clean}\nsave embed, L0.mlp, L1.attn as parts\n",
         lambda o: {"main.parts": torch.stack([o()[k] for k in ("embed", "L0.mlp_out", "L1.attn_out")])}),
    Case("heads, neurons and dimensions",
         "prompt {clean}\nsave L1H2.z as z\nsave L0H[1,3] as two\nsave L0N[3,5] @last as n\n"
         "save L1.resid[2,4] @[0,last] as d\nsave L1H1.k as k\n",
         lambda o: {"main.z": o()["L1.z"][:, :, 2:3], "main.two": o()["L0.result"][:, :, [1, 3]],
                    "main.n": o()["L0.mlp_post"][:, -1:, [3, 5]], "main.d": o()["L1.resid_post"][:, [0, -1]][..., [2, 4]],
                    "main.k": o()["L1.k"][:, :, 1:2]}),
    Case("attention of heads and queries", "prompt {clean}\nsave L*H*.pattern as pat\nsave L0H[0,2].scores @last as s\n"
         "save L1.pattern @[1,3] as rows\n",
         lambda o: {"main.pat": torch.stack([o()[f"L{n}.pattern"] for n in range(2)]),
                    "main.s": o()["L0.scores"][:, [0, 2], -1:], "main.rows": o()["L1.pattern"][:, :, [1, 3]]}),
    Case("saved after the run's edits, wherever the line stands",
         "prompt {clean}\nsave L0.mlp, L1.resid_post\nsteer L0.mlp by {vec}\n",
         lambda o: {f"hooked.{k}": o("clean", {"L0.mlp_out": add(draws(32, seed=1))})[k] for k in ("L0.mlp_out",
             "L1.resid_post")}),
    Case("saved in every cell of a grid", "prompt {clean}\nzero each L*H[0,2]\nsave L1.resid @last as end\n",
         lambda o: {"hooked.end": torch.stack([o("clean", {f"L{n}.result": zero(heads=[h])})["L1.resid_post"][:, -1:]
                                               for n in range(2) for h in (0, 2)]).reshape(2, 2, 1, 1, 32)}),
    Case("saved at a position in every cell of a grid over positions",
         "prompt {clean}\nzero L0.mlp @each\nsave L1.resid @last as end\n",
         lambda o: {"hooked.end": torch.stack([o("clean", {"L0.mlp_out": zero([p])})["L1.resid_post"][:,
             -1:] for p in range(6)])}),
    Case("a saved place follows the sweep", "prompt {clean}\nsweep l in 0:2\nzero L[l].attn\nsave L[l].mlp @last as x\n",
         lambda o: {"hooked.x": torch.stack([o("clean", {f"L{n}.attn_out": zero()})[f"L{n}.mlp_out"][:,
             -1:] for n in range(2)])}),
    Case("saved at positions of ragged prompts", "prompt {ragged}\nsave L1.mlp @last as end\nsave L0.pattern @last as pat\n",
         lambda o: {"main.end": torch.stack([o(ids)["L1.mlp_out"][0, -1:] for ids in RAGGED])}),
]


def unembed(o: Oracle, stream: Tensor, prompt: Any = "clean") -> Tensor:
    """A stream vector as if it were the last one."""
    return o.logits(prompt, {"L1.resid_post": put(stream)})


def _lens(o: Oracle, names: list[str], edits: Any = None) -> Tensor:
    values = o("clean", edits)
    return torch.stack([unembed(o, values[name]).softmax(-1)[0] for name in names])


def _frozen(o: Oracle, stream: Tensor) -> Tensor:
    """Logits of a stream vector where the final norm divides as it does in the untouched run."""
    return o.logits("clean", {"ln_final_scale": put(o()["ln_final_scale"]), "L1.resid_post": put(stream)})[0]


LENSES: list[Case] = [
    Case("the lens reads every layer and position", "prompt {clean}\nlens\n",
         lambda o: {"main.lens": _lens(o, ["L0.resid_post", "L1.resid_post"]).amax(-1)}),
    Case("the likeliest tokens of the lens", "prompt {clean}\nlens L*.resid_pre @last top=3\n",
         lambda o: {"main.lens": _lens(o, ["L0.resid_pre", "L1.resid_pre"])[:, -1].topk(3).values}),
    Case("the lens on what a block adds", "prompt {clean}\nlens L*.mlp @each[1, last], L1.attn @each[1, last]\n",
         lambda o: {"main.lens": _lens(o, ["L0.mlp_out", "L1.mlp_out", "L1.attn_out"])[:, [1, -1]].amax(-1)}),
    Case("the lens on heads", "prompt {clean}\nlens L*H* @last\n",
         lambda o: {"main.lens": torch.stack([torch.stack([
             unembed(o, o()[f"L{n}.result"][:, :, h])[0, -1].softmax(-1).amax() for h in range(4)]) for n in range(2)])},
         families=ADDITIVE),
    Case("the lens with the divisor of the last stream", "prompt {clean}\nlens L*.resid_pre norm=frozen\n",
         lambda o: {"main.lens": torch.stack([_frozen(o, o()[f"L{n}.resid_pre"]).softmax(-1).amax(-1) for n in range(2)])}),
    Case("parts under a held divisor have the share that direct attribution gives them",
         ONE + "lens L*H* @last, L*.mlp @last, embed @last norm=frozen\n",
         lambda o: {"main.lens_logit_diff": torch.cat([
             *(_direct(o, o()[f"L{n}.result"][:, :, h]) for n in range(2) for h in range(4)),
             *(_direct(o, o()[f"L{n}.mlp_out"]) for n in range(2)), _direct(o, o()["embed"])])}, families=ADDITIVE),
    Case("the lens without a norm", "prompt {clean}\nlens L*.mlp @last norm=none\n",
         lambda o: {"main.lens": torch.stack([o.hf.get_output_embeddings()(o()[f"L{n}.mlp_out"])[0, -1].softmax(-1).amax()
                                              for n in range(2)])}, families=("gpt2", "llama", "gpt_neox", "phi3")),
    Case("the lens follows the answer", ONE + "zero L0H1\nlens L*.resid @each\n",
         lambda o: {"hooked.lens_logit_diff": torch.stack([
             (lambda x: x[:, RIGHT] - x[:, WRONG])(unembed(o,
                                                           o("clean",
                                                             {"L0.result": zero(heads=[1])})[f"L{n}.resid_post"])[0])
             for n in range(2)])}),
]


# Attribution --------------------------------------------------------------------------------------------------------


def gradient(o: Oracle, site: str, prompt: Any = "clean", edits: Mapping[str, Any] | None = None,
             value: Tensor | None = None,
             metric: Any = diff) -> tuple[Tensor, Tensor]:
    """A site's value and the gradient of a metric with respect to it, by autograd through the hand-written pass."""
    ids = PROMPTS[prompt]
    found: list[Tensor] = []

    def leaf(x: Tensor) -> Tensor:
        x = (edits or {}).get(site, lambda y: y)(x) if value is None else value
        found.append(x.detach().clone().requires_grad_())
        return found[0]

    wide = torch.tensor(ids if isinstance(ids[0], list) else [ids])
    with torch.enable_grad():
        out = reference.__wrapped__(o.hf, wide, edits={**(edits or {}), site: leaf})  # type: ignore[attr-defined]
        total = metric(o.allowed(out["logits"])).sum()
        return found[0].detach(), torch.autograd.grad(total, found[0])[0]


def _grad(o: Oracle, site: str, **more: Any) -> Tensor:
    value, grad = gradient(o, site, **more)
    return value * grad


def _ig(o: Oracle, site: str, start: Tensor | None = None, steps: int = 20) -> Tensor:
    """Midpoints of equal steps on the straight line."""
    end = o()[site]
    start = torch.zeros_like(end) if start is None else start
    total = sum(gradient(o, site, value=start + (i + 0.5) / steps * (end - start))[1] for i in range(steps))
    return (end - start) * total / steps


def _patched(o: Oracle, site: str) -> Tensor:
    value, grad = gradient(o, site, prompt="dirty")
    return (o()[site] - value) * grad


def _direct(o: Oracle, write: Tensor) -> Tensor:
    """A write's share of the logit difference at the last position, the final norm's divisor held."""
    last = o()["L1.resid_post"]
    held = {"ln_final_scale": put(o()["ln_final_scale"])}
    base = diff(o.logits("clean", {**held, "L1.resid_post": put(torch.zeros_like(last))}))
    return diff(o.logits("clean", {**held, "L1.resid_post": put(write)})) - base


ATTRIBUTIONS: list[Case] = [
    Case("gradients times values of heads", ONE + "attribute L*H* with grad\n",
         lambda o: {"main.attribute": torch.stack([_grad(o, f"L{n}.result").sum((0, 1, 3)) for n in range(2)])}),
    Case("gradients at every position", ONE + "attribute L*.resid @each to logit_diff with grad\n",
         lambda o: {"main.attribute": torch.stack([_grad(o, f"L{n}.resid_post").sum((0, 2)) for n in range(2)])}),
    Case("gradients of a list of places", ONE + "attribute L0.mlp, L1H2, embed\n",
         lambda o: {"main.attribute": torch.stack([_grad(o, "L0.mlp_out").sum(), _grad(o, "L1.result")[:, :, 2].sum(),
                                                   _grad(o, "embed").sum()])}),
    Case("gradients of queries, values, neurons and attention", ONE + "attribute L1H2.q, L1H1.v, L0N3, L1H2.pattern\n",
         lambda o: {"main.attribute": torch.stack([_grad(o, "L1.q")[:, :, 2].sum(), _grad(o, "L1.v")[:, :, 1].sum(),
                                                   _grad(o, "L0.mlp_post")[..., 3].sum(),
                                                   _grad(o, "L1.pattern")[:, 2].sum()])}),
    Case("one place is one number", ONE + "attribute L0H1\nscore L1H2 with current\nlens L1.resid @last\n",
         lambda o: {"main.attribute": _grad(o, "L0.result")[:, :, 1].sum(),
                    "main.current": o()["L1.pattern"][0, 2].diagonal().mean(),
                    "main.lens": o.logits()[0, -1].softmax(-1).amax()}),
    Case("gradients in a run with edits", ONE + "zero L0H1\nattribute L*.attn\n",
         lambda o: {"hooked.attribute": torch.stack([_grad(o, f"L{n}.attn_out", edits={"L0.result": zero(heads=[1])}).sum()
                                                     for n in range(2)])}),
    Case("gradients over several prompts are averaged",
         "prompt {batch}\nanswer {right} vs {wrong}\nmetric logprob\nattribute L*.mlp @last\n",
         lambda o: {"main.attribute": torch.stack([_grad(
             o, f"L{n}.mlp_out", prompt="batch", metric=lambda x: x[:, -1].log_softmax(-1)[:, RIGHT])[:, -1].sum(-1).mean()
             for n in range(2)])}, ),
    Case("attribution patching", TWO + "run on dirty:\n    attribute each L*.resid @each with patch from clean\n",
         lambda o: {"hooked.attribute": torch.stack([_patched(o, f"L{n}.resid_post").sum((0, 2)) for n in range(2)])}),
    Case("attribution patching of heads", TWO + "attribute L*H* with patch from clean\n",
         lambda o: {"dirty.attribute": torch.stack([_patched(o, f"L{n}.result").sum((0, 1, 3)) for n in range(2)])}),
    Case("integrated gradients from zero", ONE + "attribute embed @each with ig steps=7\n",
         lambda o: {"main.attribute": _ig(o, "embed", steps=7).sum((0, 2))}),
    Case("integrated gradients from another run",
         TWO + "run on clean:\n    attribute L1.resid_pre with ig from dirty steps=5\n",
         lambda o: {"hooked.attribute": _ig(o, "L1.resid_pre", o("dirty")["L1.resid_pre"], 5).sum()}),
    Case("direct logits of every write", ONE + "attribute L*H*, L*.mlp, embed with dla\n",
         lambda o: {"main.attribute": torch.cat([*(_direct(o,
                                                           o()[f"L{n}.result"][:, :,
                                                               h]) for n in range(2) for h in range(4)),
                                                 *(_direct(o, o()[f"L{n}.mlp_out"]) for n in range(2)),
                                                 _direct(o, o()["embed"])])},
         families=ADDITIVE),
]

REPEATED = [*CLEAN[:4], *CLEAN[:4]]


def _looked(o: Oracle, pairs: list[tuple[int, int]]) -> Tensor:
    """Mean attention on pairs of query and key, as transformers itself gives it."""
    o.hf.set_attn_implementation("eager")
    with torch.no_grad():
        found = o.hf(torch.tensor([REPEATED]), output_attentions=True).attentions
    return torch.stack([torch.stack([x[0, :, q, k] for q, k in pairs]).mean(0) for x in found])


def _score(method: str, pairs: list[tuple[int, int]]) -> Case:
    return Case(f"heads are scored by {method}", f"prompt {{repeated}}\nscore each L*H* with {method}\n",
                lambda o: {f"main.{method}": _looked(o, pairs)})


SCORED: list[Case] = [
    _score("previous", [(p, p - 1) for p in range(1, 8)]),
    _score("current", [(p, p) for p in range(8)]),
    _score("first", [(p, 0) for p in range(1, 8)]),
    _score("duplicate", [(p, p - 4) for p in range(4, 8)]),
    _score("induction", [(p, p - 3) for p in range(4, 8)]),
    Case("heads are scored by Python", "prompt {repeated}\nscore L*H[1,2] with {diagonal}\n",
         lambda o: {"main.score": 2 * _looked(o, [(p, p) for p in range(8)])[:, [1, 2]]}),
]

CASES = (*NUMBERS, *SAVES, *LENSES, *ATTRIBUTIONS, *SCORED)
