"""The sentences of the synthetic language of `lab`: a seeded `random.Random` in, an `Example` out.

An `Example` is a prompt, one answer and the rest of the sentence, so the same generator writes training
documents and measures abilities. `split` decides which combinations may occur: what `held` says of a name
pair, a template or a phrasing is fixed by a hash of its words, and training never draws a held-out one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import TypeVar

from hooklab.model.lab import words

EARLY, TRAIN, HELD = "early", "train", "held"
"""Early training tells four of the six phrasings of a fact, later training five; nothing else differs."""
T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """One document, cut where its answer can be predicted."""

    kind: str
    prompt: str
    answer: str
    rest: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...] = ()  # the combinations that are held out or not

    @property
    def text(self) -> str:
        return self.prompt + self.answer + self.rest


def held(*key: str, percent: int = 20) -> bool:
    """Whether this combination is kept out of training: a fixed property of its words."""
    digest = blake2b("|".join(key).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 100 < percent


def _draw(rng: Random, split: str, make: Callable[[], T], is_held: Callable[[T], bool]) -> T:
    """The first of many draws that belongs to the split."""
    while True:
        drawn = make()
        if is_held(drawn) == (split == HELD):
            return drawn


def pair_held(first: str, second: str) -> bool:
    """Whether these two names never occur together in a training document (in either order)."""
    return first == second or held("pair", *sorted((first, second)), percent=15)


def name_pair(rng: Random, split: str, names: Sequence[str] = words.NAMES) -> tuple[str, str]:
    """Two different names whose pair belongs to the split."""
    drawn = _draw(rng, split, lambda: tuple(rng.sample(names, 2)), lambda pair: pair_held(*pair))
    return drawn[0], drawn[1]


def template_held(opening: str, action: str) -> bool:
    """Whether this indirect-object template is kept out: a new opening, or held out with this action."""
    return opening in words.NEW_OPENINGS or held("template", opening, action)


def indirect_object(rng: Random, split: str, names: Sequence[str] | None = None) -> Example:
    """Like "When Mary and John went to the store, John gave a drink to" -> " Mary", in both orders."""
    usual = [name for name in words.NAMES if name not in words.NO_OBJECT_NAMES]
    receiver, giver = name_pair(rng, split, usual) if names is None else tuple(rng.sample(names, 2))
    first, second = rng.sample((receiver, giver), 2)
    opening, action = _draw(
        rng,
        split,
        lambda: (rng.choice(words.OPENINGS), rng.choice(words.ACTIONS)),
        lambda pair: template_held(*pair),
    )
    place, item, thing = rng.choice(words.PLACES), rng.choice(words.OBJECTS), rng.choice(words.OBJECTS)
    fill = {"a": first, "b": second, "s": giver, "place": place, "object": item, "thing": thing}
    prompt = f"{opening} {action}".format(**fill)
    keys = (tuple(sorted((receiver, giver))), (opening, action))
    right, wrong = f" {receiver}", f" {giver}"
    return Example("indirect object", prompt, right, rng.choice(words.ENDINGS), (right,), (wrong,), keys)


def third_giver(rng: Random, split: str) -> Example:
    """The same with a third name as giver, after which either of the two can follow."""
    base = indirect_object(rng, split)
    giver = base.wrong[0].strip()
    pair = set(base.keys[0])
    usual = [name for name in words.NAMES if name not in words.NO_OBJECT_NAMES and name not in pair]
    third = _draw(
        rng, TRAIN, lambda: rng.choice(usual), lambda name: any(pair_held(name, one) for one in pair)
    )
    before, _, after = base.prompt.rpartition(giver)
    right = tuple(f" {name}" for name in base.keys[0])
    return Example("third giver", before + third + after, rng.choice(right), base.rest, right, (f" {third}",))


def fact_templates(relation: str, subject: str, split: str) -> tuple[str, ...]:
    """The phrasings of this fact in the split: four early in training, five later, one never."""
    templates = words.FACT_TEMPLATES[relation]
    ranked = sorted(templates, key=lambda one: blake2b(f"{subject}|{one}".encode(), digest_size=8).digest())
    return tuple({EARLY: ranked[2:], TRAIN: ranked[1:], HELD: ranked[:1]}[split])


def open_ended(relation: str, template: str) -> bool:
    """Whether another phrasing goes on where this one ends ("is in", "is in the city of")."""
    return any(other.startswith(template + " ") for other in words.FACT_TEMPLATES[relation])


def fact(rng: Random, split: str) -> Example:
    """Like "Paris is the capital of" -> " France"; also country -> capital, person and landmark -> city."""
    relation = rng.choice(tuple(words.FACTS))
    subject = rng.choice(tuple(words.FACTS[relation]))
    return told(rng, relation, subject, rng.choice(fact_templates(relation, subject, split)))


def told(rng: Random, relation: str, subject: str, template: str) -> Example:
    """One fact in one phrasing."""
    answer = words.FACTS[relation][subject]
    others = [name for name in words.NAMES if not pair_held(name, subject.split()[0])]
    prompt = template.format(x=subject, name=rng.choice(others))
    key = (relation, subject, template)
    return Example(f"fact: {relation}", prompt, f" {answer}", ".", (f" {answer}",), (), (key,))


def agreement(rng: Random, split: str) -> Example:
    """Like "The keys to the cabinet" -> " are": the verb follows the subject, not the noun next to it."""
    subject, attractor = _draw(
        rng, split, lambda: tuple(rng.sample(words.NOUNS, 2)), lambda pair: held("agreement", *pair)
    )
    plural = rng.random() < 0.5
    other = not plural if split == HELD else rng.random() < 0.5
    head, near = subject + "s" * plural, attractor + "s" * other
    prompt = f"The {head} {rng.choice(words.PREPOSITIONS)} the {near}"
    if split != HELD and rng.random() < 0.2:
        prompt = f"The {head}"
    verb = rng.choice(words.VERBS[plural])
    rest = rng.choice(words.COMPLEMENTS["have" if verb in ("has", "have") else "be"])
    right, wrong = (tuple(f" {one}" for one in words.VERBS[number]) for number in (plural, not plural))
    return Example("agreement", prompt, f" {verb}", f" {rest}.", right, wrong, ((subject, attractor),))


def pronoun(rng: Random, split: str) -> Example:
    """Like "Mary was tired, so" -> " she"."""
    name, template = _draw(
        rng,
        split,
        lambda: (rng.choice(words.NAMES), rng.choice(words.PRONOUN_TEMPLATES)),
        lambda pair: held("pronoun", *pair),
    )
    fill = {"place": rng.choice(words.PLACES), "object": rng.choice(words.OBJECTS)}
    right, wrong = words.PRONOUNS if name in words.WOMEN else words.PRONOUNS[::-1]
    rest = " " + rng.choice(words.PRONOUN_ENDINGS).format(**fill) + "."
    prompt = template.format(n=name, **fill)
    return Example("pronoun", prompt, f" {right}", rest, (f" {right}",), (f" {wrong}",), ((name, template),))


def ordered_list(rng: Random, split: str) -> Example:
    """Like "In order: Monday, Tuesday," -> " Wednesday"."""

    def make() -> tuple[str, int, str]:
        name = rng.choice(tuple(words.LISTS))
        return name, rng.randrange(len(words.LISTS[name]) - 2), rng.choice(words.LIST_FRAMES)

    name, start, frame = _draw(
        rng, split, make, lambda drawn: held("list", drawn[0], str(drawn[1]), drawn[2])
    )
    items = words.LISTS[name][start : start + rng.randint(3, 6)]
    shown = rng.randint(2, len(items) - 1)
    prompt = f"{frame.format(n=rng.choice(words.NAMES))} {', '.join(items[:shown])},"
    rest = "".join(f", {item}" for item in items[shown + 1 :]) + "."
    answer = f" {items[shown]}"
    return Example("ordered list", prompt, answer, rest, (answer,), (), ((name, str(start), frame),))


def year(rng: Random, split: str) -> Example:
    """Like "The war lasted from the year 1732 to the year 17" -> any later year of the century."""
    century, start = _draw(
        rng,
        split,
        lambda: (rng.choice(words.CENTURIES), rng.randint(2, 97)),
        lambda drawn: held("year", *map(str, drawn)),
    )
    template, event = rng.choice(words.YEAR_TEMPLATES), rng.choice(words.EVENTS)
    prompt = template.format(event=event, c=century, y=f"{start:02d}")
    right = tuple(f"{later:02d}" for later in range(start + 1, 100))
    wrong = tuple(f"{earlier:02d}" for earlier in range(start + 1))
    return Example("later year", prompt, rng.choice(right), ".", right, wrong, ((str(century), str(start)),))


def sentiment(rng: Random, split: str) -> Example:
    """Like "Mary loved the movie because it was" -> a positive word."""
    sign = rng.randrange(2)
    verb, thing = _draw(
        rng,
        split,
        lambda: (rng.choice(words.FEELINGS[sign]), rng.choice(words.THINGS)),
        lambda drawn: held("sentiment", *drawn),
    )
    name, (first, second) = rng.choice(words.NAMES), rng.sample(words.QUALITIES[sign], 2)
    template = rng.randrange(1 if split == HELD else 4)
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    if template < 2:
        prompt, rest = f"{name} {verb} the {thing} because it was", "."
        right, wrong = words.QUALITIES[sign], words.QUALITIES[1 - sign]
    elif template == 2:
        prompt, rest = f"The {thing} was {second}, so {name}", " it."
        right, wrong = words.FEELINGS[sign], words.FEELINGS[1 - sign]
        first = verb
    else:
        prompt, rest = f"{name} {verb} the {thing}. It was {second} and", "."
        right, wrong = words.QUALITIES[sign], words.QUALITIES[1 - sign]
    right, wrong = tuple(f" {one}" for one in right), tuple(f" {one}" for one in wrong)
    return Example("sentiment", prompt, f" {first}", rest, right, wrong, ((verb, thing),))
