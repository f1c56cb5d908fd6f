"""Neurons of facts: those that write a city, found with one relation and taken away under two others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import hooklab as hl
from hooklab.model.lab import examples, words

from .asking import FACTUAL, asked_for_city
from .pictures import bars, figure, lines

NEXT, OTHER, CONTEXTS = 1, 7, 5
"""How far down the list of cities the wrong answer and the other city of the null are."""
STEPS = (0, 1, 5, 10, 20, 40, 80)
CODE = '''
weights = model.W.folded(centre=True)
towards = weights.U[:, london] - weights.U[:, cities].mean(1)
acts = model.capture("The capital of England is", ["L*.mlp_post", "ln_final_scale"], at="last")
for layer in range(5):                                       # activation × what the neuron writes towards " London"
    effect = acts[f"L{layer}.mlp_post"] * (weights.Out[layer] @ towards) / acts["ln_final_scale"]
    best = int(effect.argmax())
    print(f"L{layer}N{best}", float(effect.max()), *hl.analysis.token_direction(model, f"L{layer}N{best}", 3).labels)
'''
GIVEN = '''
from hooklab.model.lab.words import CAPITALS
cities = [model.tokenizer(f" {city}", add_special_tokens=False)["input_ids"][0] for city in CAPITALS]
london = cities[list(CAPITALS).index("London")]
'''


@dataclass(frozen=True)
class Neuron:
    """One neuron: its city, its address, the city's direct effect, tokens it writes, and its strongest contexts."""

    city: str
    address: str
    effect: float
    writes: list[str]
    contexts: list[str]


@dataclass(frozen=True)
class Neurons:
    """What was found.

    Attributes:
        steps: How many neurons are taken away.
        correct: Null or not -> share right, [step].
        margin: The same as logit difference to another city, [step].
        prompts: How many prompts about people and landmarks.
        cities: How many cities.
        follows: Share of the strongest contexts of each city's first neuron that the city follows.
        chance: The same of neurons drawn from the same layers.
        base: Share of all tokens that a given one of the cities follows.
        first: Rank 1 among the cities written, share of the first neurons; and of drawn ones.
        shown: Some of the neurons.
    """

    steps: tuple[int, ...]
    correct: dict[str, np.ndarray]
    margin: dict[str, np.ndarray]
    prompts: int
    cities: int
    follows: float
    chance: float
    base: float
    first: tuple[float, float]
    shown: list[Neuron]


def measure(model: Any, cities: int = 24, steps: tuple[int, ...] = STEPS, seed: int = 0) -> Neurons:
    """Direct effects under "country"; ablation under "person" and "landmark"; contexts in the training language."""
    names = list(words.CAPITALS)[:cities]
    effects, towards, mean = _effects(model, names, seed)
    order = effects.flatten(1).argsort(dim=1, descending=True)  # [city rank]
    draw = torch.Generator().manual_seed(seed)
    width = model.facts.d_mlp
    others = order // width * width + torch.randint(width, order.shape, generator=draw)
    sets = {"the city's neurons": order, "another city's": order.roll(-OTHER % cities, 0), "drawn, same layers": others}
    asked = [pair for relation in FACTUAL[1:] for pair in asked_for_city(relation, examples.HELD, names, seed)]
    correct, margin = {}, {}
    for name, neurons in sets.items():
        found = [_without(model, asked, names, neurons[:, :k], mean) for k in steps]
        correct[name], margin[name] = (np.array([one[i] for one in found]) for i in (0, 1))
    firsts = order[:, 0].tolist(), others[:, 0].tolist()
    texts = [f"{prompt} {city}." for relation in FACTUAL for prompt, city in
             asked_for_city(relation, examples.TRAIN, names, seed)]
    told = [_contexts(model, numbers, texts) for numbers in firsts]
    follows, chance = (_share(contexts, names) for contexts in told)
    first = [float(np.mean([int(towards[:, one].argmax()) == i for i, one in enumerate(numbers)])) for numbers in firsts]
    tokens = sum(model.tokens(texts).lengths) - len(texts)
    shown = [_neuron(model, names[i], firsts[0][i], float(effects[i].max()), told[0][i]) for i in _strongest(effects, 6)]
    return Neurons(steps, correct, margin, len(asked), cities, follows, chance, len(texts) / cities / tokens,
                   (first[0], first[1]), shown)


def _ids(model: Any, names: Sequence[str]) -> list[int]:
    return [model.tokenizer(f" {name}", add_special_tokens=False)["input_ids"][0] for name in names]


def _effects(model: Any, names: Sequence[str], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Direct effects [city layer neuron] on the city's logit over the mean of all cities; the same for an activation of 1,
    [city neuron] over all layers, without the norm's divisor; and mean activations [layer neuron]."""
    asked = asked_for_city("country", examples.TRAIN, names, seed)
    acts = model.capture([prompt for prompt, _ in asked], ["L*.mlp_post", "ln_final_scale"], at="last")
    layers = range(model.facts.n_layers)
    active = torch.stack([acts[f"L{layer}.mlp_post"].reshape(len(asked), -1) for layer in layers], 1)
    weights = model.W.folded(centre=True)
    unembedded = weights.U[:, _ids(model, names)].T
    out = torch.stack([weights.Out[layer] for layer in layers])
    towards = torch.einsum("lnd,cd->cln", out, unembedded - unembedded.mean(0))
    scaled = active / acts["ln_final_scale"].reshape(-1, 1, 1)
    of = torch.tensor([names.index(city) for _, city in asked])
    effects = torch.stack([scaled[of == i].mean(0) * towards[i] for i in range(len(names))])
    return effects, towards.flatten(1), active.mean(0)


def _without(model: Any, asked: Sequence[tuple[str, str]], names: Sequence[str], neurons: Tensor,
             mean: Tensor) -> tuple[float, float]:
    """Share right and margin over the next city, each prompt with the neurons [city rank] of its city at their mean."""
    of = [names.index(city) for _, city in asked]
    away = torch.zeros(len(asked), mean.numel(), dtype=torch.bool).scatter_(1, neurons[of], True).view(-1, *mean.shape)

    def edit(layer: int) -> Any:
        def at_their_mean(x: Tensor) -> Tensor:  # rows are padded on the left
            return torch.cat([x[:, :-1], torch.where(away[:, layer], mean[layer], x[:, -1])[:, None]], 1)
        return at_their_mean

    edits = {f"L{layer}.mlp_post": edit(layer) for layer in range(model.facts.n_layers)}
    logits = model.capture([prompt for prompt, _ in asked], "logits", at="last", edits=edits)["logits"]
    logits = logits.reshape(len(asked), -1)
    ids, rows = torch.tensor(_ids(model, names)), torch.arange(len(asked))
    right, wrong = ids[of], ids[[(i + NEXT) % len(names) for i in of]]
    return float((logits.argmax(1) == right).float().mean()), float((logits[rows, right] - logits[rows, wrong]).mean())


def _contexts(model: Any, numbers: Sequence[int], texts: list[str]) -> list[list[tuple[str, str]]]:
    """Of each neuron, counted over all layers: (context, next token) of the strongest tokens, one of each text."""
    width, found = model.facts.d_mlp, {}
    for layer in sorted({number // width for number in numbers}):
        here = sorted({number % width for number in numbers if number // width == layer})
        board = hl.analysis.feature_dashboard(model, f"L{layer}.mlp_post", texts, features=here, top=CONTEXTS, logits=0,
                                              window=8)
        for neuron in here:
            pieces = [(board.tokens.pieces[one.text], one.pos) for one in board.top(neuron)]
            found[layer * width + neuron] = [("".join(row[1:pos + 1]), row[pos + 1] if pos + 1 < len(row) else "")
                                             for row, pos in pieces]
    return [found[number] for number in numbers]


def _share(contexts: Sequence[list[tuple[str, str]]], names: Sequence[str]) -> float:
    return float(np.mean([follows == f" {name}" for name, several in zip(names, contexts, strict=True)
                          for _, follows in several]))


def _strongest(effects: Tensor, count: int) -> list[int]:
    return effects.flatten(1).amax(1).argsort(descending=True)[:count].tolist()


def _neuron(model: Any, city: str, number: int, effect: float, contexts: list[tuple[str, str]]) -> Neuron:
    width = model.facts.d_mlp
    address = f"L{number // width}N{number % width}"
    writes = [str(token).strip() for token in hl.analysis.token_direction(model, address, 3).labels]
    return Neuron(city, address, effect, writes,
                  [f"{text.strip()} → {follows.strip() or '(end)'}" for text, follows in contexts[:2]])


def draw(found: Neurons) -> Any:
    """Two curves over how many neurons are away, and what follows the strongest contexts."""
    made, places = figure(3, (1.2, 1.2, 0.9))
    place, other, last = places
    lines(place, found.steps, found.correct, "people and landmarks", "neurons at their mean", "share right")
    place.set_ylim(-0.03, 1.05)
    lines(other, found.steps, found.margin, "people and landmarks", "neurons at their mean", "logits over another city")
    other.get_legend().remove()
    bars(last, {"first neuron": found.follows, "drawn": found.chance, "any token": found.base}, ["drawn", "any token"],
         "strongest contexts", "share that the city follows")
    return made


def text(found: Neurons) -> str:
    """The section."""
    own, other, drawn = found.correct.values()
    margins = list(found.margin.values())
    rows = "\n".join(f"| {one.city} | {one.address} | {one.effect:.2f} | {', '.join(map(_code, one.writes))} | "
                     f"{'; '.join(one.contexts)} |" for one in found.shown)
    steps = ", ".join(f"{share:.0%} without {k}" for k, share in zip(found.steps[1:], own[1:], strict=True))
    return f"""Neurons are ranked by their direct effect on a city's logit, over the mean of {found.cities} cities, where \
its country is asked for ("The capital of England is"). Then they are held at their mean where the same city is the answer \
for another reason: where a person lives, where a landmark stands, {found.prompts} prompts in phrasings that training never \
had. Right are {steps} of {576 * 5:,} neurons. Without as many of another city's it stays {other[-1]:.0%}, and without as \
many drawn from the same layers {drawn[-1]:.0%}; the logit difference to another city falls from {margins[0][0]:.1f} to \
{margins[0][-1]:.1f}, under the nulls to {margins[1][-1]:.1f} and {margins[2][-1]:.1f}. So cities have neurons that all \
relations use, many of them, and no single one decides.

The first neuron of a city writes it more than any other city for {found.first[0]:.0%} of the cities (drawn neurons: \
{found.first[1]:.0%}; this is how they were chosen). Not how they were chosen: of the {CONTEXTS} texts that excite it most, \
{found.follows:.0%} go on with that very city (drawn neurons: {found.chance:.0%}; any token: {found.base:.1%}).

| city | neuron | effect, logits | writes | strongest contexts → next token |
|---|---|---|---|---|
{rows}"""


def _code(token: str) -> str:
    return f"`{token}`"
