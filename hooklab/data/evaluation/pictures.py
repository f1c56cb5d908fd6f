"""Pictures of questions: read together with the prompt by the model's processor, told apart by what they show.

    Question with images ──processor──▶ text, ids, shape, pixels    (`seen`: what a question is planned by, and run with)
    questions of a batch ──together──▶ one prompt with pixels       (nothing is read again)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import HooklabError, PromptError, RecordError
from ...model.inputs import PER_TOKEN, Prompt
from ...tokens import Tokens
from ..inputs.batching import _together, held_by, shape_of
from ..inputs.pictures import _token, _words, opened_with, read_with_images, untransformed
from ..inputs.sources import IMAGE, Example
from ..inputs.transforms import Transform
from ..tasks.tasks import Question
from .identity import identity

if TYPE_CHECKING:
    from ...model.model import Model
    from .prompts import Asked


@dataclass(frozen=True)
class Seen:
    """A prompt with images, as the processor reads it.

    Attributes:
        text: The text, in which the processor's word stands for an image; of a chat, what its tokens read like.
        ids: The tokens.
        shape: Names and shapes of the further inputs, which agree within a batch.
        open: Whether a choice is tokenized together with the text; otherwise the processor ends a prompt in its own way, and
            what follows stands alone.
        read: The prompt with its pixels.
    """

    text: str
    ids: tuple[int, ...]
    shape: tuple[Any, ...]
    open: bool
    read: Prompt | None = None


def seen(model: Model, question: Question, prompt: Any) -> Seen:
    """A question with images, as the model's processor reads it. Raises PromptError that names the question."""
    read = _prompt(model, question, prompt)
    assert read.tokens is not None
    ids = read.tokens.ids[0]
    shape = shape_of(read)
    if not isinstance(prompt, str):
        return Seen(read.tokens.text[0], ids, shape, open=False, read=read)
    text = _placed(model, question, prompt).replace(IMAGE, _token(model.reader.processor) or IMAGE)
    return Seen(text, ids, shape, open=model.reader._encode([text]).ids[0][-1] == ids[-1], read=read)


def transformed(question: Question, prompt: Any, transforms: Sequence[Transform]) -> Question:
    """The question with what transforms make of its pictures. Raises PromptError that names the question."""
    if not transforms:
        return question
    try:
        if not isinstance(prompt, str):
            untransformed(Example(question.id, messages=tuple(prompt)))
        return replace(question, images=opened_with(question.images, transforms))
    except HooklabError as error:
        raise PromptError(f"question {question.id!r}: {error}") from None


def held(read: Prompt | None) -> int:
    """Bytes of the pixels of a prompt."""
    return 0 if read is None else held_by(read)


def continued(model: Model, before: Seen, choice: str) -> tuple[int, ...]:
    """The tokens of a prompt and a choice after it."""
    if before.open:
        plain, both = (model.reader._encode([text]).ids[0] for text in (before.text, before.text + choice))
        start = next((i for i, (a, b) in enumerate(zip(plain, both, strict=False)) if a != b), min(len(plain), len(both)))
        kept = len(before.ids) - (len(plain) - start)
        if before.ids[kept:] == plain[start:]:
            return (*before.ids[:kept], *both[start:])
    return (*before.ids, *model.reader._encode([choice], special=False).ids[0])


def together(model: Model, some: Sequence[Asked], rows: Sequence[Sequence[int]], given: Sequence[int]) -> Prompt:
    """The prompt of a batch.

    Args:
        model: Its tokenizer says what the tokens are.
        some: The question of each row; a question may have several.
        rows: The tokens of each.
        given: How many of them are the prompt's.
    """
    parts = []
    for one, row, n in zip(some, rows, given, strict=True):
        assert one.read is not None and one.read.tokens is not None
        tokens, extras = one.read.tokens, one.read.extras
        lengths = {stop - start for start, stop in tokens.images[0]} if tokens.images else set()
        length = lengths.pop() if len(lengths) == 1 else None  # of images side by side
        longer = Tokens.from_ids([list(row)], model.tokenizer, n_prompt=[n], image_length=length,
                                 **{"padding_side": tokens.padding_side, **model.reader.image_roles})
        parts.append(Prompt(longer, {name: [_long(value[0], len(row))] if name in PER_TOKEN else value
                                     for name, value in extras.items()}))
    return _together(parts)


def picture_sums(questions: Sequence[Question]) -> list[list[str]]:
    """For each question what its pictures show, as checksums: of files their bytes, of others their pixels.

    Raises:
        RecordError: a file cannot be read, by its question.
    """
    return [[_sum(one, question) for one in question.images] for question in questions]


def unchanged(question: Question, sums: Sequence[str]) -> None:
    """Raises RecordError where a file shows something else than when the sums were taken: asked after it was read."""
    for one, known in zip(question.images, sums, strict=True):
        if isinstance(one, str | Path) and _sum(one, question) != known:
            raise RecordError(f"question {question.id!r}: its image {str(one)!r} was changed while the evaluation ran")


def _prompt(model: Model, question: Question, prompt: Any) -> Prompt:
    said = ({"text": _placed(model, question, prompt)} if isinstance(prompt, str) else
            {"messages": _placed_in_turns(question, prompt)})
    try:
        return model.reader._checked(read_with_images(model.reader, Example(question.id, images=question.images, **said)))
    except HooklabError as error:
        raise PromptError(f"question {question.id!r}: {error}") from None


def _placed(model: Model, question: Question, text: str) -> str:
    """The text with its images: before it, where it does not say where they stand."""
    words = _words(model.reader.processor) if model.reader.processor is not None else []
    if IMAGE in text or any(word in text for word in words):
        return text
    return IMAGE * len(question.images) + (f"\n{text}" if text else "")


def _placed_in_turns(question: Question, turns: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The turns with their images: first in the last turn of the user, where none says where they stand."""
    texts = [turn.get("content") for turn in turns]
    users = [i for i, turn in enumerate(turns) if turn["role"] == "user" and isinstance(texts[i], str)]
    if not users or not all(isinstance(text, str) and IMAGE not in text for text in texts):
        return tuple(turns)
    last = users[-1]
    asked = {**turns[last], "content": IMAGE * len(question.images) + str(texts[last])}
    return (*turns[:last], asked, *turns[last + 1:])


def _long(row: Sequence[int], length: int) -> list[int]:
    """What comes one per token, for the tokens of a choice too, which are text: 0."""
    return [*row[:length], *[0] * (length - len(row))]


def _sum(image: Any, question: Question) -> str:
    if isinstance(image, str | Path):
        try:
            return hashlib.sha256(Path(image).expanduser().read_bytes()).hexdigest()[:16]
        except OSError as error:
            raise RecordError(f"question {question.id!r}: the image {str(image)!r} could not be read: "
                              f"{error.strerror or error}") from None
    if isinstance(image, Mapping):
        if not isinstance(image.get("bytes"), bytes):
            raise RecordError(f"question {question.id!r}: an encoded image is {{'bytes': …}}; this one has "
                              f"{', '.join(map(str, image)) or 'nothing'}")
        return hashlib.sha256(image["bytes"]).hexdigest()[:16]
    if hasattr(image, "tobytes") and hasattr(image, "mode"):
        palette = image.getpalette() or []
        return hashlib.sha256(f"{image.mode} {image.size} {palette}".encode() + image.tobytes()).hexdigest()[:16]
    return str(identity(image))
