"""VQA accuracy: an answer counts as far as people gave the same one, after both were brought to one form.

The measure of Antol et al., VQA: Visual Question Answering (ICCV 2015), and the normal form of its published evaluation:
small letters, no full stops but decimal points, digits for number words, no articles, apostrophes in contractions, and other
punctuation removed or turned into blanks. Here both sides are always brought to that form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ...errors import RecordError

ENOUGH = 3
"""So many people make an answer right."""
PUNCTUATION = ";/[]\"{}()=+\\_-><@`,?!"
ARTICLES = {"a", "an", "the"}
NUMBERS = {"none": "0", **{word: str(i) for i, word in enumerate(
    "zero one two three four five six seven eight nine ten".split())}}
NEGATED = "ai are ca could did does do had has have is might must need ought sha should was were wo would".split()
SHORTENED = {"he": "d s", "how": "d ll s", "i": "m ve", "it": "d ll", "let": "s", "not": "ve", "she": "s", "that": "s",
             "somebody": "d ll s", "someone": "d ll s", "something": "d ll", "there": "d re s", "they": "d ll re ve",
             "we": "ve", "what": "ll re s ve", "when": "s", "where": "d s ve", "who": "d ll s ve", "why": "ll re s",
             "you": "d ll re ve", "could": "ve", "might": "ve", "must": "ve", "should": "ve", "would": "ve", "y'all": "ll"}
"""Word -> endings after its apostrophe; without what would be another word (ill, well, shell, were, id, wed, shed, its)."""
DOUBLED = [*(f"{one}'d've" for one in "he i it she somebody someone something there they we who y'all you".split()),
           *(f"{one}n't've" for one in "could had might should would".split())]
OTHERS = {"maam": "ma'am", "oclock": "o'clock", "twas": "'twas", "yall": "y'all"}


def _contractions() -> Iterator[tuple[str, str]]:
    yield from OTHERS.items()
    for one in NEGATED:
        yield f"{one}nt", f"{one}n't"
    for one, endings in SHORTENED.items():
        for ending in endings.split():
            yield f"{one.replace(chr(39), '')}{ending}", f"{one}'{ending}"
    for whole in DOUBLED:
        yield from _missing(whole)


def _missing(whole: str) -> Iterator[tuple[str, str]]:
    """A word with each of its apostrophes missing, and with all."""
    at = [i for i, character in enumerate(whole) if character == "'"]
    for i in at:
        yield whole[:i] + whole[i + 1:], whole
    yield whole.replace("'", ""), whole


CONTRACTIONS = dict(_contractions())


def normalised(answer: str) -> str:
    """An answer in the form in which answers are compared.

    >>> normalised("The two dogs, I dont know."), normalised("black/white"), normalised("1,000"), normalised("3.5")
    ("2 dogs i don't know", 'black white', '1000', '3.5')
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    thousands = re.search(r"\d,\d", text) is not None
    source = text
    for mark in PUNCTUATION:  # a mark beside a blank goes; one that joins two words becomes a blank
        loose = thousands or f"{mark} " in source or f" {mark}" in source
        text = text.replace(mark, "" if loose else " ")
    text = re.sub(r"\.(?!\d)", "", text)
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """min(1, matches / 3), averaged over the ways to leave one of the people out.

    Args:
        answer: What the model answered.
        references: What people answered, ten as a rule.

    Raises:
        RecordError: there are fewer than four references: no answer could be right.

    >>> round(vqa_accuracy("two", ["2", "two.", "2", *["three"] * 7]), 2)
    0.9
    """
    if len(references) <= ENOUGH:
        raise RecordError(f"VQA accuracy needs the answers of {ENOUGH + 1} people or more; here are {len(references)}. The "
                          'grader "exact" takes any one of several')
    same = [normalised(one) == normalised(answer) for one in references]
    return sum(min(1.0, (sum(same) - one) / ENOUGH) for one in same) / len(same)
