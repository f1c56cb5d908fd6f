"""Measure `lab` on held-out data with plain torch and transformers: a folder in, tables out.

    python -m hooklab.model.lab.evaluate [DIR] [--card]

Nothing here uses the rest of the package, so the figures are an independent check of it. `--card` puts the
tables between the markers of the model card, `DIR/README.md`.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerBase

from hooklab.model.lab import PATH, corpus, examples, words
from hooklab.model.lab.examples import HELD, Example

SAMPLE, SEED = 400, 1_000_003
SEGMENT, REPEATS_SAMPLE = 24, 64
INDUCTION, PREVIOUS = 0.4, 0.5
"""Scores from which a head counts as an induction head or a previous-token head."""
Head = tuple[int, int]


@dataclass(frozen=True)
class Rate:
    """How many of how many came out right."""

    name: str
    hits: int
    n: int
    target: float | None = None

    @property
    def share(self) -> float:
        return self.hits / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the share."""
        z, n, p = 1.96, self.n, self.share
        middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        low, high = (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)
        return max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Lab:
    """The model with its tokenizer."""

    model: GPT2LMHeadModel
    tokenizer: PreTrainedTokenizerBase

    def ids(self, word: str) -> int:
        """The id of a text that is one token."""
        (one,) = self.tokenizer(word, add_special_tokens=False)["input_ids"]
        return one


def load(path: Path) -> Lab:
    """Open a folder that `train` wrote, with attention that can be read."""
    model = GPT2LMHeadModel.from_pretrained(path, attn_implementation="eager", dtype=torch.float32)
    return Lab(model.eval(), AutoTokenizer.from_pretrained(path))


@torch.no_grad()
def predictions(lab: Lab, prompts: Sequence[str], batch: int = 200) -> Tensor:
    """Probabilities of the next token after each prompt, "prompt vocabulary"."""
    rows = []
    for start in range(0, len(prompts), batch):
        coded = [lab.tokenizer(prompt)["input_ids"] for prompt in prompts[start : start + batch]]
        width = max(map(len, coded))
        # The padding is on the right, where causal attention does not see it.
        ids = torch.tensor([one + [0] * (width - len(one)) for one in coded])
        logits = lab.model(ids, attention_mask=torch.ones_like(ids)).logits
        rows.append(logits[range(len(coded)), [len(one) - 1 for one in coded]])
    return torch.cat(rows).softmax(-1)


def correct(lab: Lab, cases: Sequence[Example]) -> list[bool]:
    """Per example: the top token is a right answer, and the right answers together beat the wrong ones."""
    verdicts = []
    for case, row in zip(cases, predictions(lab, [case.prompt for case in cases]), strict=True):
        right, wrong = ([lab.ids(word) for word in group] for group in (case.right, case.wrong))
        verdicts.append(int(row.argmax()) in right and bool(row[right].sum() > row[wrong].sum()))
    return verdicts


def held_facts(relation: str) -> list[Example]:
    """Every fact of the relation in every phrasing in which it never occurred in training.

    A phrasing on which another one goes on is left out: its next word need not be the answer.
    """
    rng = Random(SEED)
    return [
        examples.told(rng, relation, subject, template)
        for subject in words.FACTS[relation]
        for template in examples.fact_templates(relation, subject, HELD)
        if not examples.open_ended(relation, template)
    ]


def all_held_facts() -> list[Example]:
    """The held-out facts of all relations."""
    return [case for relation in words.FACTS for case in held_facts(relation)]


def first_name(case: Example) -> str:
    """The name that the prompt of an indirect-object example mentions first, with a leading space."""
    return min((*case.right, *case.wrong), key=lambda name: case.prompt.find(name.strip()))


def samples(seed: int = SEED, count: int = SAMPLE) -> dict[str, tuple[list[Example], float | None]]:
    """What is measured: name -> the held-out examples and the figure to reach."""
    rng = Random(seed)

    def many(make: Callable[..., Example], *more: Any) -> list[Example]:
        return [make(rng, HELD, *more) for _ in range(count)]

    objects = many(examples.indirect_object)
    first = [case for case in objects if first_name(case) == case.answer]
    return {
        "indirect object: new pair, new template": (objects, 0.95),
        "— receiver named first": (first, None),
        "— receiver named second": ([case for case in objects if case not in first], None),
        "— names never in this role": (many(examples.indirect_object, words.NO_OBJECT_NAMES), None),
        "fact: new phrasing": (all_held_facts(), 0.98),
        "— capital → country": (held_facts("capital"), None),
        "— country → capital": (held_facts("country"), None),
        "— person → city": (held_facts("person"), None),
        "— landmark → city": (held_facts("landmark"), None),
        "agreement across an attractor, new noun pair": (many(examples.agreement), 0.95),
        "pronoun, new name and template": (many(examples.pronoun), None),
        "ordered list, new start and frame": (many(examples.ordered_list), None),
        "later year, new start year": (many(examples.year), None),
        "sentiment, new verb and thing": (many(examples.sentiment), None),
    }


def repeated_ids(lab: Lab, seed: int = SEED, count: int = REPEATS_SAMPLE, segment: int = SEGMENT) -> Tensor:
    """`<|endoftext|>` and a random segment, twice: "sequence pos" with 1 + 2 · segment positions."""
    rng, ids = Random(seed), range(len(lab.tokenizer))[2:]
    return torch.tensor([[0, *corpus.repeated(rng, ids, 2 * segment, segment)] for _ in range(count)])


@torch.no_grad()
def repetition(lab: Lab, ids: Tensor) -> Rate:
    """Top-1 on the second occurrence of the segment, from its second token on (the first cannot be known)."""
    half = (ids.shape[1] - 1) // 2
    top = lab.model(ids, attention_mask=torch.ones_like(ids)).logits.argmax(-1)
    hit = top[:, half + 1 : -1] == ids[:, half + 2 :]
    return Rate("second half of repeated random tokens", int(hit.sum()), hit.numel(), 0.90)


@torch.no_grad()
def head_scores(lab: Lab, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Previous-token and induction scores, "layer head", as mean attention on the repeated sequences.

    Previous: from position i to i - 1. Induction: from the second occurrence of a token to what followed its
    first one.
    """
    half = (ids.shape[1] - 1) // 2
    seen = lab.model(ids, attention_mask=torch.ones_like(ids), output_attentions=True).attentions
    pattern = torch.stack(seen).mean(1)  # layer head query key
    previous = pattern.diagonal(-1, -2, -1)[..., 1:].mean(-1)  # from position 2: position 1 has little choice
    induction = pattern.diagonal(-(half - 1), -2, -1)[..., 2:].mean(-1)
    return previous, induction


@contextmanager
def without(lab: Lab, heads: Sequence[Head]) -> Iterator[None]:
    """Zero the output z of these heads, before the output projection, while the block lasts."""
    width = lab.model.config.n_embd // lab.model.config.n_head

    def zeroing(indices: list[int]) -> Callable[[Any, tuple[Tensor]], tuple[Tensor]]:
        def hook(_module: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
            mixed = inputs[0].clone()
            for index in indices:
                mixed[..., index * width : (index + 1) * width] = 0
            return (mixed,)

        return hook

    handles = [
        block.attn.c_proj.register_forward_pre_hook(zeroing([head for at, head in heads if at == layer]))
        for layer, block in enumerate(list[Any](lab.model.transformer.h))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def above(scores: Tensor, threshold: float) -> list[Head]:
    """The (layer, head) whose score reaches the threshold, best first."""
    found = [(layer, head) for layer, head in torch.nonzero(scores >= threshold).tolist()]
    return sorted(found, key=lambda at: -float(scores[at]))


def abilities(lab: Lab) -> list[Rate]:
    """The table of abilities on held-out data."""
    rates = [
        Rate(name, sum(correct(lab, cases)), len(cases), target)
        for name, (cases, target) in samples().items()
    ]
    return [*rates, repetition(lab, repeated_ids(lab))]


def ablations(lab: Lab) -> dict[str, tuple[list[Head], Rate, Rate, Rate]]:
    """What zeroing heads does: name -> heads, then repeated tokens, facts and indirect objects."""
    ids = repeated_ids(lab)
    previous, induction = head_scores(lab, ids)
    found, before = above(induction, INDUCTION), above(previous, PREVIOUS)
    others = [head for head in above(induction, 0.0) if head not in found and head not in before]
    facts = all_held_facts()
    objects = samples()["indirect object: new pair, new template"][0]
    rows = {
        "none": [],
        "induction heads": found,
        "previous-token heads": before,
        "as many others, drawn by chance": Random(SEED).sample(others, min(len(found), len(others))),
    }
    table = {}
    for name, heads in rows.items():
        with without(lab, heads):
            told = Rate("facts", sum(correct(lab, facts)), len(facts))
            given = Rate("indirect objects", sum(correct(lab, objects)), len(objects))
            table[name] = (heads, repetition(lab, ids), told, given)
    return table


def main() -> None:
    """Read the command line, measure, print the tables and, if asked, put them into the card."""
    from hooklab.model.lab import card

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, nargs="?", default=PATH, help="folder that `train` wrote")
    parser.add_argument("--card", action="store_true", help="write the tables into DIR/README.md as well")
    options = parser.parse_args()
    tables = card.render(load(options.path), options.path)
    print(tables)
    if options.card:
        card.write(tables, options.path)


if __name__ == "__main__":
    main()
