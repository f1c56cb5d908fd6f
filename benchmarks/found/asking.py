"""What all findings ask with: prompts of the model's own language, and places whose work is taken away.

In: a seed and a count, or prompts and groups of places. Out: prompts with their answers, and the `Run` of one spec.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from hooklab.model.lab import corpus, examples, words

USUAL = [name for name in words.NAMES if name not in words.NO_OBJECT_NAMES]
FACTUAL = ("country", "person", "landmark")
"""The relations whose answer is a city."""


@dataclass(frozen=True)
class Asked:
    """Prompts, each with its right next token and, where there is one, the wrong one."""

    prompts: list[Any]
    right: list[Any]
    wrong: list[Any] | None = None


def repetitions(count: int, vocabulary: int, seed: int = 0, segment: int = 16) -> Asked:
    """A random segment twice, cut somewhere in its second half: the next token can be known."""
    draw, prompts, right = Random(seed), [], []
    for _ in range(count):
        row = corpus.repeated(draw, range(2, vocabulary), 2 * segment, segment)
        cut = draw.randint(segment + 1, 2 * segment - 1)
        prompts.append([0, *row[:cut]])
        right.append(row[cut])
    return Asked(prompts, right)


def objects(count: int, seed: int = 0) -> list[examples.Example]:
    """Indirect-object prompts of name pairs and templates that training never had, each also with the other one giving."""
    draw, found = Random(seed), []
    for _ in range(count // 2):
        case = examples.indirect_object(draw, examples.HELD)
        before, _, after = case.prompt.rpartition(case.wrong[0].strip())
        turned = replace(case, prompt=before + case.answer.strip() + after, answer=case.wrong[0], right=case.wrong,
                         wrong=case.right)
        found += [case, turned]
    return found


def asked_for_city(relation: str, split: str, cities: Sequence[str], seed: int = 0) -> list[tuple[str, str]]:
    """(prompt, city) of every fact about these cities, in the phrasings of a split after which nothing else can follow."""
    draw = Random(seed)
    return [(examples.told(draw, relation, subject, template).prompt, city)
            for subject, city in words.FACTS[relation].items() if city in cities
            for template in examples.fact_templates(relation, subject, split)
            if not examples.open_ended(relation, template)]


def removed(model: Any, asked: Asked, groups: Mapping[str, Sequence[str]]) -> Any:
    """The run `main`, and one run for each group in which its places have their mean over all tokens of all prompts."""
    pair = asked.wrong is not None
    lines = ["prompt {prompts}", "answer {right}" + " vs {wrong}" * pair, "metric rank", *["metric logit_diff"] * pair]
    for name, places in groups.items():
        lines += [f"run {name} on main:", f"    ablate {', '.join(places)} with mean per=all"]
    values = {"prompts": asked.prompts, "right": asked.right} | ({"wrong": asked.wrong} if pair else {})
    return model.run("\n".join(lines), values=values)


def correct(run: Any, name: str) -> float:
    """Share of the prompts after which the right token is the likeliest."""
    return float((run.examples[name]["rank"] == 0).mean())


def drawn(pool: Sequence[str], size: int, draws: int, seed: int = 0) -> dict[str, list[str]]:
    """Groups of so many places drawn from a pool, named for a spec."""
    draw = Random(seed)
    return {f"drawn{size}_{i}": draw.sample(list(pool), size) for i in range(draws)}


def heads(scores: np.ndarray, least: float) -> list[str]:
    """Addresses of the heads whose score [layer head] is at least so much, best first."""
    found = sorted(np.argwhere(scores >= least).tolist(), key=lambda at: -scores[tuple(at)])
    return [f"L{layer}H{head}" for layer, head in found]
