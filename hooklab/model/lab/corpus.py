"""The training text of `lab`: a seeded `random.Random` in, documents (text) and windows (token ids) out.

Some windows are sentences and stories, packed. The others are random tokens: a segment repeated until the
window is full, or random pairs in random order, where the token just before tells what follows.
"""

from collections.abc import Sequence
from random import Random

from hooklab.model.lab import words
from hooklab.model.lab.examples import (
    TRAIN,
    agreement,
    fact,
    indirect_object,
    name_pair,
    ordered_list,
    pronoun,
    sentiment,
    third_giver,
    year,
)

MIXTURE = {
    indirect_object: 5.0,
    third_giver: 0.5,
    fact: 5.0,
    agreement: 2.0,
    pronoun: 1.0,
    ordered_list: 1.0,
    year: 1.5,
    sentiment: 1.0,
}
"""Kind of sentence -> weight among the documents."""
STORIES = 1.5
"""Weight of the stories in the same mixture."""
PAIRS = 0.15
"""Fraction of the random windows that are shuffled pairs; the rest are repeated segments."""


def story(rng: Random) -> str:
    """Four to seven sentences about one person and, perhaps, a second one."""
    name, other = name_pair(rng, TRAIN)
    pronoun_ = "she" if name in words.WOMEN else "he"
    lines = [
        rng.choice(words.STORY_STARTS),
        *rng.sample(words.STORY_MIDDLES, rng.randint(2, 5)),
        rng.choice(words.STORY_ENDS),
    ]
    fill = {
        "n": name,
        "m": other,
        "p": pronoun_,
        "P": pronoun_.capitalize(),
        "place": rng.choice(words.PLACES),
        "object": rng.choice(words.OBJECTS),
        "day": rng.choice(words.LISTS["days"]),
        "mood": rng.choice(rng.choice(words.MOODS)),
    }
    return " ".join(
        line.format(**fill, thing=rng.choice(words.OBJECTS), noun=rng.choice(words.NOUNS)) for line in lines
    )


def document(rng: Random, split: str = TRAIN) -> str:
    """One training document: a sentence of some kind or a story."""
    kinds = [*MIXTURE, None]
    kind = rng.choices(kinds, [*MIXTURE.values(), STORIES])[0]
    return story(rng) if kind is None else kind(rng, split).text


def documents(seed: int, count: int) -> list[str]:
    """The first documents of the stream that this seed gives."""
    rng = Random(seed)
    return [document(rng) for _ in range(count)]


def repeated(rng: Random, ids: Sequence[int], length: int, segment: int | None = None) -> list[int]:
    """One random segment of these ids (six tokens or more, different ones) repeated to fill the length."""
    size = segment or rng.randint(6, min(length // 2, 63))
    chosen = rng.sample(ids, size)
    return (chosen * (length // size + 1))[:length]


def shuffled_pairs(rng: Random, ids: Sequence[int], length: int) -> list[int]:
    """Random pairs of these ids in random order, to fill the length: each first tells its second."""
    count = rng.randint(3, 3 + length // 12)
    flat = rng.sample(ids, 2 * count)
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    filled = [token for _ in range(length // 2 + 1) for token in rng.choice(pairs)]
    return filled[:length]


def random_window(rng: Random, ids: Sequence[int], length: int) -> list[int]:
    """A window of random tokens: repeated segment or shuffled pairs."""
    make = shuffled_pairs if rng.random() < PAIRS else repeated
    return make(rng, ids, length)
