"""Induction heads: where they are, what is left of repetition without them, and what without as many others."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

import hooklab as hl

from .asking import correct, drawn, heads, removed, repetitions
from .pictures import figure, heat, lines

LEAST, PERIOD = 0.4, 20
CODE = '''
scores = hl.analysis.head_scores(model, kind="induction")          # random tokens, twice
print(scores.top(6))
run = model.run("""
prompt {ids}
answer {next_ids}
metric rank
run without on main:
    ablate L1H* with mean per=all
""", ids=ids, next_ids=next_ids)
print((run.examples["main"]["rank"] == 0).mean(), (run.examples["without"]["rank"] == 0).mean())
'''
GIVEN = '''
import random
rng = random.Random(0)
rows = [rng.sample(range(2, 713), 16) for _ in range(32)]
ids, next_ids = [[0, *row, *row[:8]] for row in rows], [row[8] for row in rows]
'''


@dataclass(frozen=True)
class Induction:
    """What was found.

    Attributes:
        scores: Attention to the token after the earlier occurrence, [layer head].
        null: The same offset where no token comes twice.
        found: The induction heads, best first.
        left: Share right with the first 0, 1, 2 … of them away.
        others: The same with as many other heads away, [draw k].
        prompts: How many prompts.
    """

    scores: np.ndarray
    null: np.ndarray
    found: list[str]
    left: np.ndarray
    others: np.ndarray
    prompts: int


def measure(model: Any, count: int = 64, draws: int = 8, seed: int = 0) -> Induction:
    """Scores and their null; then the best heads are taken away one after the other, and as many others."""
    scores = hl.analysis.head_scores(model, period=PERIOD, batch=16, seed=seed).values
    null = unrepeated(model, 16, seed)
    found = heads(scores, LEAST)
    before = heads(hl.analysis.head_scores(model, kind="previous", period=PERIOD, batch=8, seed=seed).values, LEAST)
    pool = [name for name in heads(scores, 0) if name not in (*found, *before)]
    asked = repetitions(count, model.facts.d_vocab, seed)
    groups = {f"best{k}": found[:k] for k in range(1, len(found) + 1)}
    for k in range(1, len(found) + 1):
        groups |= drawn(pool, k, draws, seed + k)
    run = removed(model, asked, groups)
    whole, steps = correct(run, "main"), range(1, len(found) + 1)
    left = np.array([whole, *(correct(run, f"best{k}") for k in steps)])
    others = np.array([[whole, *(correct(run, f"drawn{k}_{i}") for k in steps)] for i in range(draws)])
    return Induction(scores, null, found, left, others, count)


def unrepeated(model: Any, count: int, seed: int) -> np.ndarray:
    """Attention as far back as an induction head would look, [layer head], in random tokens of which none comes twice."""
    draw, words = Random(seed), range(2, model.facts.d_vocab)
    acts = model.capture([[0, *draw.sample(words, 2 * PERIOD)] for _ in range(count)], "L*.pattern")
    far = [acts[f"L{layer}.pattern"].diagonal(-(PERIOD - 1), -2, -1)[..., 2:] for layer in range(model.facts.n_layers)]
    return np.array([one.mean((0, -1)).tolist() for one in far])


def draw(found: Induction) -> Any:
    """Scores, their null, and the curve."""
    made, (left, middle, right) = figure(3, (1, 1, 1.25))
    heat(left, found.scores, "tokens repeated", 1.0)
    heat(middle, found.null, "no token twice (null)", 1.0)
    steps = range(len(found.left))
    lines(right, steps, {"induction heads, best first": found.left, "other heads, drawn": found.others},
          "next token of a repetition", "heads taken away", "share right")
    right.set_ylim(-0.03, 1.03)
    return made


def text(found: Induction) -> str:
    """The section."""
    away = len(found.found)
    return f"""All six heads of layer 1 look from a token to what followed it before: {min_of(found):.2f} to \
{found.scores.max():.2f} of their attention, where no other head gives more than {rest_of(found):.2f}. As far back, in \
random tokens of which none comes twice, no head gives more than {found.null.max():.2f}.

They share the work. Of {found.prompts} repetitions, {found.left[0]:.0%} go on right; without the best of these heads \
{found.left[1]:.0%}, without two {found.left[2]:.0%}, without three {found.left[3]:.0%}, without all {away} \
{found.left[-1]:.0%}. Without {away} other heads it is {found.others[:, -1].mean():.0%} (of {len(found.others)} draws the \
worst: {found.others[:, -1].min():.0%}). "Without" is: set to the mean over all tokens."""


def min_of(found: Induction) -> float:
    """The least score of an induction head."""
    return float(found.scores[found.scores >= LEAST].min())


def rest_of(found: Induction) -> float:
    """The largest score of any other head."""
    return float(found.scores[found.scores < LEAST].max())
