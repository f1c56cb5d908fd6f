"""Batches: examples of like length put together, a bounded number of tokens at a time, the order in which they came kept.

In: examples (`sources`) and a model. Out: `Batch`es that a forward pass takes as they are, longest first within a window of
examples, so that little is padded; `in_order` puts what was computed back into the order of the examples.

    for batch in batches(examples("captions.jsonl"), model, max_tokens=4096):
        acts = model.capture(batch.prompt, "L3.resid_post")
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ...errors import HooklabError, PromptError
from ...model.inputs import PER_TOKEN, Prompt, merge
from ...tokens import Tokens, Turn
from .pictures import read_with_images, untransformed
from .sources import Example
from .sources import examples as made
from .transforms import Transform
from .transforms import checked as checked_transforms

if TYPE_CHECKING:
    from ...model.model import Model

T = TypeVar("T")
MAX_TOKENS = 8192
WINDOW = 512
EVEN = 0.75
"""A batch that is a quarter full takes no examples that are shorter than this part of its longest."""
TOGETHER = 16
"""Examples that are tokenized in one go."""
HELD = 256 << 20
"""Bytes of pixels that are held while examples are looked at ahead of time."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples for one forward pass.

    Attributes:
        index: Which examples, counted from 0 in the order in which they came.
        examples: The examples.
        prompt: All of them, tokenized: what `model.capture` and `model.trace` take.
        cut: How many tokens were taken from each; 0 for all unless truncation was asked for.
        truncate: The side from which they were taken; None where nothing may be.
    """

    index: tuple[int, ...]
    examples: tuple[Example, ...]
    prompt: Prompt
    cut: tuple[int, ...]
    truncate: str | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        """The examples' ids."""
        return tuple(example.id for example in self.examples)

    @cached_property
    def tokens(self) -> Tokens:
        """Their tokens, without padding."""
        assert self.prompt.tokens is not None
        return self.prompt.tokens

    @property
    def padded(self) -> int:
        """Tokens of the padded batch: examples × the longest."""
        return len(self) * self.tokens.width

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        n = sum(count > 0 for count in self.cut)
        said = f" · {n} cut on the {self.truncate}, by {sum(self.cut)} tokens" if n else ""
        return f"Batch: {len(self)} examples · {sum(self.tokens.lengths)} tokens, {self.padded} padded{said}"


def batches(source: Any, model: Model, *, max_tokens: int = MAX_TOKENS, size: int | None = None, window: int = WINDOW,
            truncate: str | None = None, transforms: Any = None) -> Iterator[Batch]:
    """Batches of examples, the same ones whenever they are made of the same examples.

    To go on after a crash, make all again and pass over those whose examples are all there: the rest runs as it would have.

    >>> import hooklab as hl
    >>> found = list(batches(["Mary gave a", "Mary", "Mary gave"], hl.load("lab"), size=2))
    >>> [batch.index for batch in found], found[0].tokens.lengths
    ([(0, 2), (1,)], (4, 3))

    Args:
        source: Examples, or whatever `examples` makes them of.
        model: Its tokenizer, its processor and its number of positions count.
        max_tokens: The most tokens of a padded batch.
        size: The most examples of a batch.
        window: How many examples are looked at together; fewer where their images fill 256 MB.
        truncate: "left" or "right" cuts what is too long on that side, a token for the beginning of the text excepted.
        transforms: Functions of a picture, in the order in which they act, before the processor sees it; see `transforms`.

    Raises:
        PromptError: an option is wrong. While they are being made: an example that is too long, or cannot be tokenized, by
            its id.
    """
    for name, value, none in (("max_tokens", max_tokens, False), ("size", size, True), ("window", window, False)):
        if not (none and value is None) and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise PromptError(f"{name}={value!r}: it is a whole number from 1")
    if truncate not in (None, "left", "right"):
        raise PromptError(f'truncate={truncate!r}: what is too long is cut on the "left" or on the "right", or is an error')
    reading = _Reading(model, max_tokens, truncate, checked_transforms(transforms))
    return _batches(iter(made(source)), reading, max_tokens, size, window)


def plan(lengths: Sequence[int], *, max_tokens: int = MAX_TOKENS, size: int | None = None) -> list[list[int]]:
    """Which examples go together, longest first; of equal ones the earlier comes first.

    >>> plan([2, 7, 3, 3], max_tokens=8)
    [[1], [2, 3], [0]]
    """
    made: list[list[int]] = []
    longest = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        full = bool(made) and ((len(made[-1]) + 1) * longest > max_tokens or len(made[-1]) == size)
        uneven = bool(made) and lengths[i] < EVEN * longest and len(made[-1]) * longest * 4 >= max_tokens
        if not made or full or uneven:
            made.append([])
            longest = lengths[i]
        made[-1].append(i)
    return made


def in_order(results: Iterable[tuple[int, T]]) -> Iterator[T]:
    """Results by the number of their example, in the order of the examples; held are those that came too early.

    >>> list(in_order([(1, "b"), (0, "a"), (2, "c")]))
    ['a', 'b', 'c']

    Raises:
        PromptError: a number came twice, or is missing at the end.
    """
    waiting: dict[int, T] = {}
    due = 0
    for number, result in results:
        if number < due or number in waiting:
            raise PromptError(f"example {number} came twice")
        waiting[number] = result
        while due in waiting:
            yield waiting.pop(due)
            due += 1
    if waiting:
        raise PromptError(f"example {due} is missing, and {len(waiting)} after it wait for it")


# One example ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Read:
    """A tokenized example, and what may stand in a batch with it."""

    number: int
    example: Example
    prompt: Prompt
    cut: int

    @property
    def length(self) -> int:
        assert self.prompt.tokens is not None
        return self.prompt.tokens.width

    @property
    def shape(self) -> tuple[Any, ...]:
        """Names and shapes of further inputs, which must agree within a batch."""
        return shape_of(self.prompt)

    @property
    def held(self) -> int:
        """Bytes of the further inputs."""
        return held_by(self.prompt)


def shape_of(prompt: Prompt) -> tuple[Any, ...]:
    """Names and shapes of a prompt's further inputs, which must agree within a batch."""
    return tuple(sorted((name, () if name in PER_TOKEN else tuple(torch.as_tensor(value).shape[1:]))
                        for name, value in prompt.extras.items()))


def held_by(prompt: Prompt) -> int:
    """Bytes of a prompt's further inputs."""
    return sum(torch.as_tensor(value).nbytes for name, value in prompt.extras.items() if name not in PER_TOKEN)


@dataclass(frozen=True)
class _Reading:
    """How examples are tokenized."""

    model: Model
    max_tokens: int
    truncate: str | None
    transforms: tuple[Transform, ...] = ()

    def several(self, some: Sequence[Example]) -> list[Prompt | None]:
        """Prompts of the examples that are mere text, or ids, each kind in one go.

        None for others, and where an example of the kind fails or is to be cut: each is then read by itself.
        """
        found: list[Prompt | None] = [None] * len(some)
        reader, (limit, _) = self.model.reader, self._limit()
        for name in ("text", "ids"):
            given = [i for i, example in enumerate(some) if getattr(example, name) is not None and not example.images]
            if not given:
                continue
            try:
                tokens = (reader._tokens([some[i].text for i in given]) if name == "text" else
                          Tokens.from_ids([some[i].ids for i in given], reader.tokenizer, **reader.image_roles))
                read = None if tokens.width > limit else reader.read(tokens).tokens
            except HooklabError:
                continue
            for i, one in zip(given, read or (), strict=read is not None):
                found[i] = Prompt(one)
        return found

    def __call__(self, number: int, example: Example, prompt: Prompt | None = None) -> _Read:
        try:
            return _Read(number, example, *((prompt, 0) if prompt is not None else self._one(example)))
        except HooklabError as error:
            raise type(error)(f"Example {example.id!r}: {error}") from None

    def _one(self, example: Example) -> tuple[Prompt, int]:
        """The prompt of one example, and how many tokens were cut from it."""
        reader, cut = self.model.reader, 0
        if self.transforms:
            untransformed(example)
        prompt = read_with_images(reader, example, self.transforms) if example.images else None
        found = reader._tokens(example.prompt) if prompt is None else prompt.tokens
        assert found is not None
        limit, why = self._limit()
        if len(found.ids[0]) > limit:
            if self.truncate is None or prompt is not None:
                raise PromptError(f"it has {len(found.ids[0])} tokens, and {why}"
                                  + (" A prompt with images cannot be cut." if prompt is not None else
                                     ' To cut it, say truncate="left" or truncate="right".'))
            cut = len(found.ids[0]) - limit
            found = shortened(found, limit, self.truncate)
        return (reader.read(found) if prompt is None else prompt), cut

    def _limit(self) -> tuple[int, str]:
        n_ctx = self.model.facts.n_ctx
        if n_ctx is not None and n_ctx < self.max_tokens:
            return n_ctx, f"this model has {n_ctx} positions."
        return self.max_tokens, f"a batch may have {self.max_tokens}: raise max_tokens."


def shortened(tokens: Tokens, length: int, side: str) -> Tokens:
    """The tokens of one example without those on a side; a token for the beginning of the text stays.

    >>> shortened(Tokens.from_ids([5, 6, 7, 8]), 3, "left").ids
    ((6, 7, 8),)
    """
    n = len(tokens.ids[0])
    bos = 1 if side == "left" and tokens.bos is not None and tokens.bos[0] == (0,) and length > 1 else 0
    kept = list(range(length)) if side == "right" else [*range(bos), *range(n - length + bos, n)]
    place = {old: new for new, old in enumerate(kept)}

    def before(stop: int) -> int:
        return sum(old < stop for old in kept)

    changed: dict[str, Any] = {name: (tuple(row[old] for old in kept),)
                               for name in ("ids", "pieces", "offsets", "roles")
                               if (row := getattr(tokens, name)[0]) is not None}
    for name in ("bos", "boi", "eoi"):
        if (found := getattr(tokens, name)) is not None:
            changed[name] = (tuple(place[old] for old in found[0] if old in place),)
    if tokens.images is not None:
        spans = ((before(start), before(stop)) for start, stop in tokens.images[0])
        changed["images"] = (tuple(span for span in spans if span[0] < span[1]),)
    if tokens.turns is not None:
        changed["turns"] = (tuple(Turn(role, before(start), before(stop)) for role, start, stop in tokens.turns[0]),)
    return replace(tokens, n_prompt=(before(tokens.n_prompt[0]),), **changed)


# Many examples -------------------------------------------------------------------------------------------------------


def _batches(source: Iterator[Example], read: _Reading, max_tokens: int, size: int | None, window: int) -> Iterator[Batch]:
    for found in _windows(source, read, window):
        shapes: dict[tuple[Any, ...], list[_Read]] = {}
        for one in found:
            shapes.setdefault(one.shape, []).append(one)
        for like in shapes.values():
            for chosen in plan([one.length for one in like], max_tokens=max_tokens, size=size):
                some = [like[i] for i in chosen]
                yield Batch(tuple(one.number for one in some), tuple(one.example for one in some),
                            _together([one.prompt for one in some]), tuple(one.cut for one in some), read.truncate)


def _windows(source: Iterator[Example], read: _Reading, window: int) -> Iterator[list[_Read]]:
    found: list[_Read] = []
    held = number = 0
    while some := list(islice(source, min(TOGETHER, window - len(found)))):
        for example, prompt in zip(some, read.several(some), strict=True):
            found.append(read(number, example, prompt))
            number += 1
            held += found[-1].held
        if len(found) == window or held >= HELD:
            yield found
            found, held = [], 0
    if found:
        yield found


def _together(prompts: Sequence[Prompt]) -> Prompt:
    extras: dict[str, Any] = {}
    for name in prompts[0].extras:
        parts = [prompt.extras[name] for prompt in prompts]
        extras[name] = ([row for part in parts for row in part] if name in PER_TOKEN
                        else torch.cat([torch.as_tensor(part) for part in parts]))
    return Prompt(merge(prompts), extras, len(prompts))

