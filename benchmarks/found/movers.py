"""Indirect objects: which heads bring names to the last token, and who chooses between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

import hooklab as hl
from hooklab.model.lab import words

from .asking import USUAL, Asked, correct, drawn, heads, objects, removed
from .pictures import bars, figure, heat

LEAST, LOOKS = 0.25, 0.5
QUESTIONS = ("receiver − giver", "receiver − absent", "giver − absent", "absent − absent")
CODE = '''
asked = dict(positions="last", method="dla", answer=right)
print(hl.attribute(model, prompts, "L*H*", wrong=giver, **asked).values.sum())        # heads: receiver over giver
print(hl.attribute(model, prompts, "L*.mlp_out", wrong=giver, **asked).values.sum())  # MLPs
print(hl.attribute(model, prompts, "L*H*", wrong=absent, **asked).top(8))             # heads: receiver over another name
'''
GIVEN = '''
from random import Random
from hooklab.model.lab import examples, words
rng = Random(0)
cases = [examples.indirect_object(rng, examples.HELD) for _ in range(16)]
prompts, right, giver = ([getattr(case, part) for case in cases] for part in ("prompt", "answer", "wrong"))
giver = [one for one, in giver]
absent = [" " + next(name for name in words.NAMES if name not in case.prompt) for case in cases]
'''


@dataclass(frozen=True)
class Movers:
    """What was found.

    Attributes:
        direct: What each head writes for one name over another at the last token, [question layer head].
        mlps: The same of each MLP, [question layer].
        whole: The logit difference of receiver and giver.
        looks: Attention from the last token, [name layer head]: the receiver, the giver's first mention, the second.
        copies: Share of all names that a head's OV circuit raises above all others, [layer head].
        chance: The largest such share when names are shuffled.
        names: Heads that bring names.
        givers: Heads that look at the giver's second mention.
        left: Group -> (share right, share in which the receiver beats the giver, logit difference).
        prompts: How many prompts.
    """

    direct: np.ndarray
    mlps: np.ndarray
    whole: float
    looks: np.ndarray
    copies: np.ndarray
    chance: float
    names: list[str]
    givers: list[str]
    left: dict[str, tuple[float, float, float]]
    prompts: int


def measure(model: Any, count: int = 96, draws: int = 8, seed: int = 0) -> Movers:
    """Direct effects for four pairs of names, where the last token looks, what is copied, and what is left without."""
    cases, draw = objects(count, seed), Random(seed)
    absent = [[f" {name}" for name in draw.sample([n for n in USUAL if n not in case.prompt], 2)] for case in cases]
    right, wrong = [case.answer for case in cases], [case.wrong[0] for case in cases]
    one, other = ([pair[i] for pair in absent] for i in (0, 1))
    asked = Asked([case.prompt for case in cases], right, wrong)
    pairs = [asked, replace(asked, wrong=one), Asked(asked.prompts, wrong, one), Asked(asked.prompts, one, other)]
    direct = np.stack([_direct(model, pair, "L*H*") for pair in pairs])
    mlps = np.stack([_direct(model, pair, "L*.mlp_out").reshape(-1) for pair in pairs])
    looks = _looks(model, cases)
    copies, chance = _copies(model, seed)
    names = heads(direct[1:3].min(0), LEAST)
    givers = [name for name in heads(looks[2], LOOKS) if name not in names]
    groups = {"names": names, "givers": givers}
    pool = [head for head in heads(np.zeros_like(looks[0]), 0) if head not in (*names, *givers)]
    groups |= drawn(pool, len(names), draws, seed) | drawn(pool, len(givers), draws, seed)
    run = removed(model, asked, groups)
    return Movers(direct, mlps, float(run.metrics["main"]["logit_diff"]), looks, copies, chance, names, givers,
                  _left(run, len(names), len(givers), draws), count)


def _direct(model: Any, asked: Asked, places: str) -> np.ndarray:
    found = hl.attribute(model, asked.prompts, places, method="dla", answer=asked.right, wrong=asked.wrong, positions="last")
    return found.values


def _looks(model: Any, cases: list[Any]) -> np.ndarray:
    """Attention of the last token to the receiver and to both mentions of the giver, [name layer head]."""
    tokens = model.tokens([case.prompt for case in cases])
    places: dict[str, list[list[bool]]] = {"receiver": [], "first": [], "second": []}
    for case, pieces in zip(cases, tokens.pieces, strict=True):
        spoken = [piece.strip() for piece in pieces]
        first = spoken.index(case.wrong[0].strip())
        at = spoken.index(case.answer.strip()), first, spoken.index(case.wrong[0].strip(), first + 1)
        for name, where in zip(places, at, strict=True):
            places[name].append([i == where for i in range(len(pieces))])
    return hl.analysis.attention_mass(model, [case.prompt for case in cases], "last", places).values


def _copies(model: Any, seed: int) -> tuple[np.ndarray, float]:
    """Each name alone through each head's V and O to the logits of names: how often it raises itself most, [layer head]."""
    weights, names = model.W.folded(centre=True), [f" {name}" for name in words.NAMES]
    ids = [model.tokenizer(name, add_special_tokens=False)["input_ids"][0] for name in names]
    alone = model.capture(names, "L*.resid_pre", at="last")
    best = np.zeros((model.facts.n_layers, model.facts.n_heads, len(names)), dtype=int)
    for layer, head in np.ndindex(best.shape[:2]):
        stream = alone[f"L{layer}.resid_pre"].reshape(len(names), -1)
        normed = (stream - stream.mean(1, keepdim=True)) / stream.std(1, unbiased=False, keepdim=True)
        logits = normed @ weights.V[layer, head] @ weights.O[layer, head] @ weights.U[:, ids]
        best[layer, head] = (logits - logits.mean(0)).argmax(1)
    shuffled = [np.random.default_rng(seed + i).permutation(len(names)) for i in range(20)]
    chance = max(float((best == order).mean(-1).max()) for order in shuffled)
    return (best == np.arange(len(names))).mean(-1), chance


def _left(run: Any, names: int, givers: int, draws: int) -> dict[str, tuple[float, float, float]]:
    def of(name: str) -> tuple[float, float, float]:
        diff = run.examples[name]["logit_diff"]
        return correct(run, name), float((diff > 0).mean()), float(diff.mean())

    def mean(size: int) -> tuple[float, float, float]:
        share, beats, diff = np.mean([of(f"drawn{size}_{i}") for i in range(draws)], axis=0)
        return float(share), float(beats), float(diff)

    return {"all heads": of("main"), "without the name heads": of("names"), f"without {names} others": mean(names),
            "without the giver heads": of("givers"), f"without {givers} others": mean(givers)}


def draw(found: Movers) -> Any:
    """Heads for receiver over absent name, heads for receiver over giver, the null, and who makes the difference."""
    made, places = figure(4, (1, 1, 1, 1.05))
    for place, index in zip(places, (1, 0, 3), strict=False):
        heat(place, found.direct[index], QUESTIONS[index] + (" (null)" if index == 3 else ""), 1.0)
    sums = {"heads": found.direct[0].sum(), "MLPs": found.mlps[0].sum(), "heads\n(null)": found.direct[3].sum(),
            "MLPs\n(null)": found.mlps[3].sum()}
    bars(places[3], {name: float(value) for name, value in sums.items()}, list(sums)[2:], QUESTIONS[0], "logits")
    return made


def text(found: Movers) -> str:
    """The section."""
    rows = "\n".join(f"| {name} | {share:.0%} | {beats:.0%} | {diff:.2f} |"
                     for name, (share, beats, diff) in found.left.items())
    chosen = [tuple(map(int, name[1:].split("H"))) for name in found.names]
    both = [float(found.looks[:2, layer, head].sum()) for layer, head in chosen]
    alike = [float(found.looks[0, layer, head] / found.looks[:2, layer, head].sum()) for layer, head in chosen]
    copied = min(float(found.copies[at]) for at in chosen)
    return f"""The name movers of larger models write the receiver and not the giver. Here no head does. \
{len(found.names)} heads ({', '.join(found.names)}) write the receiver {found.direct[1].sum():.1f} logits above a name that \
does not occur, all heads together; but the giver too, by {found.direct[2].sum():.1f}. Between the two they make \
{found.direct[0].sum():+.1f} of the {found.whole:.1f} logits; the MLPs make {found.mlps[0].sum():+.1f}. For two names that \
do not occur (the null) heads make {found.direct[3].sum():+.2f} and MLPs {found.mlps[3].sum():+.2f}.

Where they look: the last token spends {min(both):.2f} to {max(both):.2f} of each of these heads on the two names, and the \
receiver's part of that is {min(alike):.2f} to {max(alike):.2f}: they do not tell the two apart. {', '.join(found.givers)} \
look at the second mention of the giver ({min(_second(found)):.2f} to {max(_second(found)):.2f}; no name head more than \
{max(float(found.looks[2][at]) for at in chosen):.2f}). What they copy, from weights: each name head raises {copied:.0%} or \
more of all {len(words.NAMES)} names above every other name; with shuffled names no head of the model reaches more than \
{found.chance:.0%}.

{found.prompts} prompts of name pairs and templates that training never had; means over draws for "others":

| heads set to their mean | receiver is likeliest | receiver beats giver | logit difference |
|---|---|---|---|
{rows}

Without the giver heads the choice between the two names is a coin toss; without the name heads the names are missing. The \
[sweeps](circuits.md) see the former only, because their two prompts share both names."""


def _second(found: Movers) -> list[float]:
    return [float(found.looks[2][tuple(map(int, name[1:].split("H")))]) for name in found.givers]
