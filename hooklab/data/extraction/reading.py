"""The examples of an extraction on their way to the forward passes: tokenized, their positions found, put into batches.

In: a source, as `sources` reads it, and a model. Out: `Item`s in the order of the source, those that fail named or left out;
windows of them that fit into memory; and `Chunk`s, one forward pass each. The same source gives the same chunks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from ...errors import HooklabError, HooklabWarning, PromptError, RecordError, TokenError
from ...model.inputs import Prompt
from ...model.vocabulary import single_token, starts_a_text
from ...positions.pieces import half
from ...tokens import Tokens
from ..inputs.batching import HELD, TOGETHER, _Read, _Reading, _together, plan
from ..inputs.rows import Row, base, is_folder, rows
from ..inputs.sources import Example, _Maker, _names, _parsed, examples
from ..inputs.transforms import Transform
from ..reducers.reducing import positions_of

if TYPE_CHECKING:
    from ...model.model import Model

TOKENS, TOKEN = 2048, 128
"""About how many bytes the tokens of an example take, and each of them: text, offsets, roles."""


@dataclass(frozen=True)
class Skipped:
    """An example that failed and was left out.

    Attributes:
        example: Its id, or where it stands in the source when it has none.
        why: What is wrong with it.
    """

    example: str
    why: str

    def __str__(self) -> str:
        return self.why if self.example in self.why else f"{self.example}: {self.why}"


@dataclass(frozen=True, eq=False)
class Item(_Read):
    """A tokenized example with what is asked of it.

    Attributes:
        positions: The tokens whose values are kept; None for all.
        answers: Token ids of its answers.
    """

    positions: tuple[int, ...] | None = None
    answers: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """How many positions are kept."""
        return self.length if self.positions is None else len(self.positions)


@dataclass(frozen=True, eq=False)
class Chunk:
    """Items of one forward pass, and their inputs together."""

    items: tuple[Item, ...]
    prompt: Prompt

    @property
    def tokens(self) -> Tokens:
        """Their tokens, without padding."""
        assert self.prompt.tokens is not None
        return self.prompt.tokens

    @property
    def padded(self) -> int:
        """Tokens of the padded batch."""
        return len(self.items) * self.tokens.width


@dataclass(frozen=True)
class Source:
    """Where examples come from, as `examples` takes it."""

    given: Any
    options: Mapping[str, Any]

    def maker(self) -> tuple[Iterator[Row], _Maker]:
        """Its rows, and what makes an example of each. Raises PromptError where an option is wrong."""
        options = dict(self.options)
        examples([], **options)  # which checks them
        limit, template, metadata, images = (options.pop(name) for name in ("limit", "template", "metadata", "images"))
        if metadata is None and is_folder(self.given):
            metadata = ("label",)
        made = _Maker(None if template is None else _parsed(template), options["text"], options["id"],
                      metadata if metadata is None or metadata == "all" else _names(metadata),
                      None if images is None else _names(images), options["chat"], base(self.given))
        return islice(rows(self.given), limit), made


class Items:
    """The items of a source, one by one and once.

    Args:
        model: Its tokenizer, its processor and its number of positions count.
        source: The examples.
        at: Positions that are kept.
        answer: Columns of the right answer, and of a wrong one.
        batch_tokens: The longest example.
        truncate: The side on which what is too long is cut.
        skip: Leave out examples that fail; otherwise the first one is an error.
        transforms: What is done to pictures.
    """

    def __init__(self, model: Model, source: Source, *, at: Any, answer: Sequence[str], batch_tokens: int,
                 truncate: str | None, skip: bool, transforms: tuple[Transform, ...] = ()) -> None:
        self.model, self.at, self.answer, self.skip = model, at, tuple(answer), skip
        self.skipped: list[Skipped] = []
        self.bare = set[str]()  # columns of answers that were warned of
        self.read = _Reading(model, batch_tokens, truncate, transforms)
        self.rows, self.maker = source.maker()

    def __iter__(self) -> Iterator[Item]:
        number = 0
        for group in self._groups():
            known = self.read.several([example for example, _ in group])
            for (example, where), prompt in zip(group, known, strict=True):
                item = self._tried(example.id or where, self._item, number, example, prompt)
                if item is not None:
                    yield item
                    number += 1

    def _groups(self) -> Iterator[list[tuple[Example, str]]]:
        found: list[tuple[Example, str]] = []
        seen: dict[str, str] = {}
        for number, row in enumerate(self.rows):
            example = self._tried(row.where, self._example, row, number, seen)
            if example is None:
                continue
            found.append((example, row.where))
            if len(found) == TOGETHER:
                yield found
                found = []
        if found:
            yield found

    def _example(self, row: Row, number: int, seen: dict[str, str]) -> Example:
        example = self.maker.example(row, number)
        if example.id in seen:
            raise PromptError(f"{row.where}: the id {example.id!r} was there before, in {seen[example.id]}: an id names one "
                              "example")
        if self.maker.id is not None or row.id is not None or isinstance(row.value, Example) or hasattr(row.value, "prompt"):
            seen[example.id] = row.where  # rows that are merely counted need not be remembered
        return example

    def _tried(self, name: str, make: Callable[..., Any], *given: Any) -> Any:
        """What is made, or None where that fails and failures are left out."""
        try:
            return make(*given)
        except HooklabError as error:
            if not self.skip:
                raise
            self.skipped.append(Skipped(name, str(error)))
            return None

    def _item(self, number: int, example: Example, prompt: Prompt | None) -> Item:
        read = self.read(number, example, prompt)
        found = read.prompt.tokens
        assert found is not None
        positions = None if self.at is None else tuple(positions_of(self.at, found, example.id))
        answers = tuple(self._answer(example, column) for column in self.answer)
        return Item(number, example, read.prompt, read.cut, positions, answers)

    def _answer(self, example: Example, column: str) -> int:
        """The token id of an answer. Raises PromptError for what is none."""
        value, tokenizer = example.metadata.get(column), self.model.tokenizer
        where = f"Example {example.id!r}: its {column!r}"
        if tokenizer is None and isinstance(value, int) and not isinstance(value, bool):
            if not 0 <= value < self.model.facts.d_vocab:
                raise PromptError(f"{where} is {value}, and there are {self.model.facts.d_vocab} tokens, counted from 0")
            return value
        if not isinstance(value, str) or tokenizer is None:
            raise PromptError(f"{where} is {value!r}; an answer is text that is one token"
                              + (", or the id of a token, as this model has no tokenizer" if tokenizer is None else ""))
        if bad := half(value):
            raise PromptError(f"{where} is no valid text: it holds half a character, {bad!r}")
        try:
            token = single_token(tokenizer, value)
        except TokenError as error:
            raise PromptError(f"{where}: {error}") from None
        if column not in self.bare and starts_a_text(tokenizer, value, token):
            self.bare.add(column)
            warnings.warn(f"{where} is {value!r}, the token that starts a text; inside a text the word is {' ' + value!r}, "
                          "with a space before it. Others in this column may be so too.", HooklabWarning, stacklevel=2)
        return token


def windows(items: Iterable[Item], *, window: int, hold: int, cost: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Items that are looked at together: at most `window` of them, whose values take at most `hold` bytes.

    Whatever their size, a new window begins at every multiple of `window`: parts of a source that begin there have the same.
    """
    found: list[Item] = []
    values = pixels = 0
    for item in items:
        more = cost(item)
        if found and (item.number % window == 0 or values + more > hold or pixels >= HELD):
            yield found
            found, values, pixels = [], 0, 0
        found.append(item)
        values += more
        pixels += item.held
    if found:
        yield found


def chunks(window: Sequence[Item], *, batch_tokens: int, batch_size: int | None) -> Iterator[Chunk]:
    """A window in batches, longest first, which is where little is padded."""
    shapes: dict[tuple[Any, ...], list[Item]] = {}
    for item in window:
        shapes.setdefault(item.shape, []).append(item)
    for like in shapes.values():
        longest = max(item.length for item in like)
        for chosen in plan([item.length for item in like], max_tokens=max(batch_tokens, longest), size=batch_size):
            some = tuple(like[i] for i in chosen)
            yield Chunk(some, _together([item.prompt for item in some]))


def checked(name: str, value: Any, *, none: bool = False) -> Any:
    """A whole number from 1. Raises RecordError."""
    if (value is None and none) or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise RecordError(f"{name}={value!r}: it is a whole number from 1" + (", or None" if none else ""))
