"""A feature with a name: an autoencoder is trained, a feature chosen by its label, and tested on unseen texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

import hooklab as hl
from hooklab.metrics import AtLast
from hooklab.model.lab import corpus, words

from .pictures import bars, figure, lines

SITE, BATCH, SHUFFLES = "L1.resid_post", 512, 20
STRENGTHS = (0, 1, 2, 4)
"""What the feature is set to, in units of its mean where it is active."""
CODE = '''
trained = hl.sae.train_sae(batches, 256, steps=300, variant="topk", k=8, seed=0)
feature = int((trained.sae.encode(places) > 0).float().mean(0).argmax())   # most often active before a place
run = model.run(f"""
prompt "Mary lost the"
sae enc = {{sae}} at L1.resid_post
run switched on main:
    set enc.F{feature} @last to 12
show top 3
""", sae=trained.sae)
print(feature, run)
'''
GIVEN = '''
import torch
from hooklab.model.lab import corpus
texts = corpus.documents(0, 300)
acts = model.capture(texts, "L1.resid_post")
rows = [(tokens, acts["L1.resid_post"][i, -len(tokens.pieces[0]):]) for i, tokens in enumerate(acts.tokens)]
stream = torch.cat([row[1:] for _, row in rows])
from hooklab.model.lab.words import PLACES
places = torch.stack([row[j] for tokens, row in rows for j, piece in enumerate(tokens.pieces[0][1:]) if piece[1:] in PLACES])
batches = lambda start: (stream[torch.randint(len(stream), (256,), generator=torch.Generator().manual_seed(i))]
                         for i in range(start, 10**6))
'''


@dataclass(frozen=True)
class Texts:
    """Tokens of texts without the first, in a row: activations [token d_model], pieces, and the piece after each."""

    x: Tensor
    pieces: np.ndarray
    follows: np.ndarray
    prompts: list[list[int]]

    @property
    def places(self) -> np.ndarray:
        """Whether a place follows, which the text says, [token]."""
        return np.isin(self.follows, [f" {place}" for place in words.PLACES])


@dataclass(frozen=True)
class Feature:
    """What was found.

    Attributes:
        number: Which feature.
        trained: The autoencoder and its history.
        explained: Share of the variance of unseen texts that it reconstructs.
        tokens: How many tokens the test has, and how many of them have the label.
        precision: Of the feature as a detector of the label, on the test.
        recall: The same.
        f1: The same.
        shuffled: The largest F1 that any feature reaches with shuffled labels.
        word: The best single word as detector: (word, F1).
        off: What was done -> log-odds of a place, at tokens before places.
        on: The same after a "the" that no place follows, with the feature set to `STRENGTHS`, [1 strength]; and with others,
            [draw strength].
        raises: How many of the ten tokens that it raises most are places.
        contexts: The strongest tokens of the test with what stands around them.
        board: The dashboard, as a view.
    """

    number: int
    trained: Any
    explained: float
    tokens: tuple[int, int]
    precision: float
    recall: float
    f1: float
    shuffled: float
    word: tuple[str, float]
    off: dict[str, float]
    on: dict[str, np.ndarray]
    raises: int
    contexts: list[str]
    board: Any


def measure(model: Any, count: int = 1500, features: int = 256, steps: int = 800, prompts: int = 64,
            seed: int = 0) -> Feature:
    """Train on texts of the generator, choose on them, test on others."""
    told = corpus.documents(seed + 1, count)
    fresh = [one for one in corpus.documents(seed + 2, count) if one not in set(told)]
    known, test = _read(model, told), _read(model, fresh)
    trained = hl.sae.train_sae(_batches(known.x, seed), features, steps=steps, variant="topk", k=8, lr=2e-3, seed=seed)
    sae = trained.sae
    number = int(_scores(sae.encode(known.x) > 0, known.places)[2].argmax())
    encoded = sae.encode(test.x)
    active, labels = encoded > 0, test.places
    precision, recall, f1 = (float(score[number]) for score in _scores(active, labels))
    shuffle = np.random.default_rng(seed)
    shuffled = max(float(_scores(active, shuffle.permutation(labels))[2].max()) for _ in range(SHUFFLES))
    error = (test.x - sae.decode(encoded)).square().sum() / (test.x - test.x.mean(0)).square().sum()
    off, on = _changed(model, sae, number, known, test, prompts, seed)
    dashboard = hl.analysis.feature_dashboard(model, sae, fresh[:min(400, count // 2)], at=SITE, features=[number], top=6)
    contexts = ["".join(one.pieces[:one.pos - one.start + 1]).replace("<|endoftext|>", "").strip()
                for one in dashboard.top(number)]
    return Feature(number, trained, 1 - float(error), (len(labels), int(labels.sum())), precision, recall, f1, shuffled,
                   _word(known, test), off, on, _raises(dashboard), contexts, hl.view.features(dashboard))


def _read(model: Any, texts: list[str]) -> Texts:
    """Activations of all tokens but the first."""
    texts = sorted(texts, key=len)  # less padding
    acts = [model.capture(texts[i:i + 250], SITE) for i in range(0, len(texts), 250)]
    rows, pieces, follows, prompts = [], [], [], []
    for several in acts:
        for i, tokens in enumerate(several.tokens):
            size = len(tokens.pieces[0])
            rows.append(several[SITE][i, -size + 1:])  # rows are padded on the left
            pieces += tokens.pieces[0][1:]
            follows += (*tokens.pieces[0][2:], "")
            prompts += [list(tokens.ids[0][:end]) for end in range(2, size + 1)]
    return Texts(torch.cat(rows), np.array(pieces), np.array(follows), prompts)


def _batches(x: Tensor, seed: int) -> Any:
    def start(batch: int) -> Iterator[Tensor]:
        while True:
            draw = torch.Generator().manual_seed(seed * 1_000_003 + batch)
            yield x[torch.randint(len(x), (BATCH,), generator=draw)]
            batch += 1
    return start


def _scores(active: Tensor, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of every feature [token feature] as a detector."""
    fires, target = active.double().numpy(), labels.astype(float)
    hits = target @ fires
    precision, recall = hits / np.maximum(fires.sum(0), 1), hits / max(target.sum(), 1)
    return precision, recall, 2 * hits / np.maximum(fires.sum(0) + target.sum(), 1)


def _raises(dashboard: Any) -> int:
    """How many of the tokens that the feature's write raises most are places."""
    return sum(dashboard.vocabulary[int(token)].strip() in words.PLACES for token in dashboard.logits["normed"].up[0])


def _word(known: Texts, test: Texts) -> tuple[str, float]:
    """The word that tells best, on the training texts, that a place follows, and its F1 on the others."""
    vocabulary = sorted(set(known.pieces))
    best = max(vocabulary, key=lambda word: _scores(torch.tensor(known.pieces == word)[:, None], known.places)[2][0])
    return str(best), float(_scores(torch.tensor(test.pieces == best)[:, None], test.places)[2][0])


def _changed(model: Any, sae: Any, number: int, known: Texts, test: Texts, count: int,
             seed: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Log-odds of a place with the feature off where one follows, and on where none does; and with other features."""
    features = sae.encode(known.x)
    strength = float(features[features[:, number] > 0, number].mean())
    here = np.flatnonzero(test.places & (sae.encode(test.x)[:, number] > 0).numpy())
    the = np.flatnonzero(~test.places & (test.pieces == " the"))
    draw = Random(seed)
    before, elsewhere = ([test.prompts[i] for i in draw.sample(sorted(rows), min(count, len(rows)))] for rows in (here, the))
    together = (features[torch.tensor(known.places)] > 0).float().mean(0)
    together[number] = 0
    beside = together.topk(5).indices.tolist()  # features that are active at the same tokens
    alive = [i for i in (features > 0).any(0).nonzero()[:, 0].tolist() if i != number]
    chosen = [number, *draw.sample(alive, 5)]
    off = _odds(model, sae, before, {str(one): f"zero enc.F{one} @last" for one in (number, *beside)})
    on = _odds(model, sae, elsewhere, {f"{one}_{by}": f"set enc.F{one} @last to {by * strength}"
                                       for one in chosen for by in STRENGTHS[1:]})
    table = np.array([[on["main"], *(on[f"{one}_{by}"] for by in STRENGTHS[1:])] for one in chosen])
    return ({"untouched": off["main"], "zero": off[str(number)], "null": float(np.mean([off[str(one)] for one in beside]))},
            {"this feature": table[:1], "other features": table[1:]})


def _odds(model: Any, sae: Any, prompts: list[list[int]], changes: dict[str, str]) -> dict[str, float]:
    """Log-odds of a place at the last token: untouched (`main`), and with each of the changes."""
    ids = [model.tokenizer(f" {place}", add_special_tokens=False)["input_ids"][0] for place in words.PLACES]
    rest = [i for i in range(model.facts.d_vocab) if i not in ids]
    place = AtLast(lambda logits: logits[:, ids].logsumexp(-1) - logits[:, rest].logsumexp(-1))
    text = ["prompt {prompts}", f"sae enc = {{sae}} at {SITE}", "metric odds = {place}"]
    for name, line in changes.items():
        text += [f"run f{name} on main:", f"    {line}"]
    found = model.run("\n".join(text), prompts=prompts, sae=sae, place=place).metrics
    return {"main": found["main"]["odds"]} | {name: found[f"f{name}"]["odds"] for name in changes}


def draw(found: Feature) -> Any:
    """The feature as a detector beside its nulls; the log-odds of a place with it off, and on."""
    made, (left, middle, right) = figure(3, (1.25, 1, 1))
    bars(left, {"precision": found.precision, "recall": found.recall, "F1": found.f1, "shuffled\nlabels": found.shuffled},
         ["shuffled\nlabels"], '"a place comes next", unseen texts', "share")
    names = {"untouched": "untouched", "zero": "feature\noff", "null": "others off"}
    bars(middle, {names[name]: value for name, value in found.off.items()}, ["others off"], "before a place",
         "log-odds of a place")
    lines(right, STRENGTHS, found.on, 'after a "the" without a place', "strength set, in its mean", "log-odds of a place")
    left.set_ylim(0, 1.1)
    return made


def text(found: Feature) -> str:
    """The section."""
    sae, history = found.trained.sae, found.trained.history
    listed = "\n".join(f"- {context} …" for context in found.contexts)
    off = found.off
    own, other = ((rows - rows[:, :1]) for rows in found.on.values())
    own = own[0]
    return f"""An autoencoder of {sae.n_features} features, 8 at a time, is trained on `{SITE}` over texts of the model's \
own generator ({len(history.values):,} steps of {BATCH} tokens); of other texts it reconstructs {found.explained:.0%} of \
the variance. Feature {found.number} is active here:

{listed}

Its name: *a place comes next*. The label is not the model's, it is the next word of the text. On \
{found.tokens[0]:,} tokens of texts that training did not see, {found.tokens[1]:,} of them before a place: precision \
{found.precision:.2f}, recall {found.recall:.2f}, F1 {found.f1:.2f}. With shuffled labels the best of all features reaches \
F1 {found.shuffled:.2f} ({SHUFFLES} shuffles); the best single word ("{found.word[0].strip()}") {found.word[1]:.2f}, since \
after it come objects and nouns too. Of the ten tokens that its write raises most, {found.raises} are places.

It pushes, and is not needed: set to its usual strength after a "the" that no place follows, all that the autoencoder does \
not explain kept, it raises the log-odds of a place by {own[1]:.1f}, at {STRENGTHS[-1]} times that by {own[-1]:.1f} \
({len(other)} other features, to the same: {other.mean(0)[1]:+.1f} and {other.mean(0)[-1]:+.1f}, at most \
{other.max(0)[-1]:+.1f}). Where a place is due, they fall only from {off['untouched']:.2f} to {off['zero']:.2f} without it \
(without others that are active there: {off['null']:.2f}): the model knows it from elsewhere too."""
