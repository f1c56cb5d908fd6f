"""Tokens: what a tokenizer made of one or several prompts, and the thing every position selector counts on.

In: strings and a tokenizer, or ids. Out: one frozen record of *unpadded* sequences, against which `positions`
resolves selectors, and which the runtime pads. Padding exists only in `pad` and `column`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from html import escape
from typing import Any, NamedTuple

from .errors import PositionError, PromptError
from .positions.images import image_markers, image_spans
from .positions.pieces import Example, Span, align, decode, drop_masked, half, rows, special_ids, visible

ROLES = ("text", "image", "special")


class Turn(NamedTuple):
    """One turn of a chat: who speaks, and the unpadded positions `start:stop`."""

    role: str
    start: int
    stop: int


@dataclass(frozen=True, repr=False)
class Tokens:
    """One or several tokenized prompts. Every field has one entry per example, without padding.

    >>> tokens = Tokens.from_ids([[5, 6, 7], [8]])
    >>> tokens.lengths, tokens.width, tokens.column(1, 0)
    ((3, 1), 3, 2)
    """

    ids: tuple[tuple[int, ...], ...]
    pieces: tuple[
        tuple[str, ...], ...
    ]  # display text per token; half a character shows as its bytes, `<0xF0>`
    text: tuple[str, ...]
    offsets: tuple[tuple[Span, ...] | None, ...]  # characters of `text` per token; None where unknown
    roles: tuple[tuple[str, ...], ...]  # "text", "image" or "special"
    n_prompt: tuple[int, ...]  # the first n tokens were given, the rest is generated
    padding_side: str = "left"
    bos: tuple[tuple[int, ...], ...] | None = None  # positions; None where no such token is known
    boi: tuple[tuple[int, ...], ...] | None = None  # begin of image
    eoi: tuple[tuple[int, ...], ...] | None = None  # end of image
    images: tuple[tuple[Span, ...], ...] | None = None  # start:stop of each image, without its markers
    turns: tuple[tuple[Turn, ...], ...] | None = None

    def __post_init__(self) -> None:
        if not self.ids:
            raise PromptError("no prompt: give at least one string or one list of ids")
        for name in ("n_prompt", "turns"):
            entries = getattr(self, name)
            if entries is not None and len(entries) != len(self):
                raise PromptError(f"{name} has {len(entries)} entries for {len(self)} examples")
        for i, n in enumerate(self.lengths):
            named = _named(i, self.ids)
            if not n:
                raise PromptError(f"{named} has no tokens: an empty prompt cannot be run")
            if not 0 <= self.n_prompt[i] <= n:
                raise PromptError(f"n_prompt of {named} is {self.n_prompt[i]}, not in 0..{n}")
            for turn in self.turns[i] if self.turns else ():
                if not 0 <= turn.start <= turn.stop <= n:
                    raise PromptError(f"a turn of {named} is {turn.start}:{turn.stop}; it has {n} tokens")
        _side(self.padding_side)

    @classmethod
    def encode(
        cls,
        tokenizer: Any,
        prompts: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        turns: Iterable[Iterable[Turn]] | None = None,
        **roles: Any,
    ) -> Tokens:
        """Tokenize one string or a list of strings; the tokenizer is left as it was.

        `roles` may give `image_token_ids`, `image_start_ids`, `image_end_ids`, `image_break_ids` (sets of ids; a break
        stands between two rows of an image), `image_length` (tokens of an image, to tell apart images that have nothing
        between them), and `padding_side`.
        Raises PromptError for anything but non-empty strings.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        for text in texts:
            if not isinstance(text, str):
                raise PromptError(
                    f"a prompt must be a string, not {type(text).__name__}; for ids use from_ids"
                )
        if not texts:
            raise PromptError("no prompt: give at least one string")
        for i, text in enumerate(texts):
            if bad := half(text):
                where = f" {i}" if len(texts) > 1 else ""
                raise PromptError(f"the prompt{where} is no valid text: it holds half a character, {bad!r}, at "
                                  f"{text.index(bad)}. Read files as UTF-8, or replace it: "
                                  'text.encode(errors="replace").decode()')
        fast = bool(getattr(tokenizer, "is_fast", False))
        extra = {"return_offsets_mapping": True} if fast else {}
        coded = tokenizer(
            texts, add_special_tokens=add_special_tokens, padding=False, truncation=False, **extra
        )
        examples = []
        for i, text in enumerate(texts):
            ids = [int(n) for n in coded["input_ids"][i]]
            if fast:
                examples.append(
                    align(tokenizer, ids, text, [(int(a), int(b)) for a, b in coded["offset_mapping"][i]])
                )
            else:
                decoded = decode(tokenizer, ids)
                same = decoded.text == text
                examples.append(Example(ids, text, decoded.offsets if same else None, decoded.pieces))
        return cls._build(examples, tokenizer, turns=turns, **roles)

    @classmethod
    def from_ids(
        cls,
        ids: Any,
        tokenizer: Any = None,
        attention_mask: Any = None,
        *,
        n_prompt: Sequence[int] | None = None,
        turns: Iterable[Iterable[Turn]] | None = None,
        **roles: Any,
    ) -> Tokens:
        """Tokens of ids: a list, ragged lists or a tensor [pos] or [batch pos]; masked positions are dropped.

        The text is what the tokenizer decodes; without one the pieces are `#id`. `n_prompt` counts the given
        tokens of each example, the rest being generated. `roles` as in `encode`. Raises PromptError.
        """
        unpadded = rows(ids, "ids")
        if attention_mask is not None:
            unpadded, side = drop_masked(unpadded, rows(attention_mask, "attention_mask"))
            roles.setdefault("padding_side", side)
        examples = [
            decode(tokenizer, row)
            if tokenizer is not None
            else Example(row, "", None, [f"#{n}" for n in row])
            for row in unpadded
        ]
        return cls._build(examples, tokenizer, n_prompt=n_prompt, turns=turns, **roles)

    @classmethod
    def from_encoding(cls, encoding: Any, tokenizer: Any = None, **options: Any) -> Tokens:
        """Tokens of what a tokenizer or processor returned: `input_ids` and, if padded, `attention_mask`."""
        if "input_ids" not in encoding:
            raise PromptError(
                f"an encoding needs input_ids; this one has {', '.join(map(str, encoding)) or 'nothing'}"
            )
        return cls.from_ids(encoding["input_ids"], tokenizer, encoding.get("attention_mask"), **options)

    @classmethod
    def _build(
        cls,
        examples: list[Example],
        tokenizer: Any,
        *,
        n_prompt: Sequence[int] | None = None,
        turns: Iterable[Iterable[Turn]] | None = None,
        padding_side: str | None = None,
        image_token_ids: Iterable[int] = frozenset(),
        image_start_ids: Iterable[int] = frozenset(),
        image_end_ids: Iterable[int] = frozenset(),
        image_break_ids: Iterable[int] = frozenset(),
        image_length: int | None = None,
    ) -> Tokens:
        image, starts, ends = frozenset(image_token_ids), frozenset(image_start_ids), frozenset(image_end_ids)
        breaks = frozenset(image_break_ids) - image
        special = special_ids(tokenizer) | starts | ends | breaks
        given = [e.ids for e in examples]
        pictures = [image_spans(ids, image, breaks, image_length) for ids in given]
        bos = {getattr(tokenizer, name, None) for name in ("bos_token_id", "cls_token_id")} - {None}

        def role(n: int) -> str:
            return "image" if n in image else "special" if n in special else "text"

        n_prompt = [len(e.ids) for e in examples] if n_prompt is None else n_prompt
        chat = None if turns is None else tuple(tuple(Turn(*t) for t in row) for row in turns)
        return cls(
            ids=tuple(tuple(e.ids) for e in examples),
            pieces=tuple(tuple(e.pieces) for e in examples),
            text=tuple(e.text for e in examples),
            offsets=tuple(None if e.offsets is None else tuple(e.offsets) for e in examples),
            roles=tuple(tuple(role(n) for n in e.ids) for e in examples),
            n_prompt=tuple(int(n) for n in n_prompt),
            padding_side=_side(padding_side or getattr(tokenizer, "padding_side", None) or "left"),
            # The same id may end documents inside the prompt (GPT-2), so only the first position counts.
            bos=tuple((0,) if e.ids and e.ids[0] in bos else () for e in examples) if bos else None,
            boi=image_markers(given, pictures, starts, before=True),
            eoi=image_markers(given, pictures, ends, before=False),
            images=tuple(pictures),
            turns=chat,
        )

    @property
    def special(self) -> tuple[tuple[bool, ...], ...]:
        """Per token, whether it is a special token (image tokens are not: they have a role of their own)."""
        return tuple(tuple(role == "special" for role in roles) for roles in self.roles)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens per example; also the position id that the next token of each gets."""
        return tuple(len(ids) for ids in self.ids)

    @cached_property
    def width(self) -> int:
        """Columns of the padded batch: the length of the longest example."""
        return max(self.lengths)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, example: int) -> Tokens:
        """One example as Tokens of its own. Raises PositionError when there is no such example."""
        if not -len(self) <= example < len(self):
            raise PositionError(f"no example {example}: there are {len(self)}")
        picked: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            picked[field.name] = (value[example],) if isinstance(value, tuple) else value
        return Tokens(**picked)

    def __iter__(self) -> Iterator[Tokens]:
        return (self[i] for i in range(len(self)))

    def column(self, example: int, position: int, side: str | None = None) -> int:
        """The column of the padded batch that holds an unpadded position (negative counts from the end).

        Raises PositionError when the example has no such position.
        """
        n = self.lengths[example]
        if not -n <= position < n:
            raise PositionError(f"{_named(example, self.ids)} has {n} tokens, no position {position}")
        return position % n + (self.width - n if _side(side or self.padding_side) == "left" else 0)

    def pad(self, side: str | None = None, pad_id: int = 0) -> tuple[Any, Any]:
        """`(input_ids, attention_mask)`, int64 tensors [batch pos]; mask 0 marks padding."""
        import torch

        ids = torch.full((len(self), self.width), pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(self.ids):
            start = self.column(i, 0, side)
            ids[i, start : start + len(row)] = torch.tensor(row)
            mask[i, start : start + len(row)] = 1
        return ids, mask

    def position_ids(self, side: str | None = None) -> list[list[int]]:
        """Position ids [batch pos] that count real tokens only; padding repeats its neighbour, or is 0.

        >>> Tokens.from_ids([[7, 7], [7]]).position_ids("left")
        [[0, 1], [0, 0]]
        """
        start = [self.column(i, 0, side) for i in range(len(self))]
        return [
            [min(max(c - start[i], 0), n - 1) for c in range(self.width)] for i, n in enumerate(self.lengths)
        ]

    def __repr__(self) -> str:
        low, high = min(self.lengths), max(self.lengths)
        count = f"{len(self)} example{'s' * (len(self) > 1)}"
        lines = [
            f"Tokens: {count} · pos {low if low == high else f'{low}–{high}'} · {self.padding_side} padding"
        ]
        for i, pieces in enumerate(self.pieces[:4]):
            shown = " ".join(f"{p}:{piece!r}" for p, piece in enumerate(pieces[:16]))
            lines.append(f"  [{i}] {shown}" + (f" … {len(pieces) - 16} more" if len(pieces) > 16 else ""))
        return "\n".join(lines + ([f"  … {len(self) - 4} more examples"] if len(self) > 4 else []))

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text

        styles = {"text": "", "image": "cyan", "special": "magenta"}
        for i, pieces in enumerate(self.pieces):
            line = Text(f"[{i}] " if len(self) > 1 else "")
            for p, piece in enumerate(pieces):
                line.append(f"{p} ", style="dim").append(
                    visible(piece), style=styles[self.roles[i][p]]
                ).append("  ")
            yield line

    def _repr_html_(self) -> str:
        """Every example as a row of numbered pieces, escaped: they come from users and models."""
        style = "display:inline-block;margin:1px;padding:0 3px;border:1px solid #8886;border-radius:3px"
        lines = []
        for i, pieces in enumerate(self.pieces):
            cells = "".join(
                f'<span title="id {self.ids[i][p]} · {self.roles[i][p]}" style="{style}"><sub>{p}</sub> '
                f'<code style="white-space:pre">{escape(visible(piece))}</code></span>'
                for p, piece in enumerate(pieces)
            )
            lines.append(
                f'<div class="hooklab-tokens">{f"<b>{i}</b> " if len(self) > 1 else ""}{cells}</div>'
            )
        return "".join(lines)


def _named(example: int, examples: Sequence[Any]) -> str:
    return f"example {example}" if len(examples) > 1 else "the prompt"


def _side(side: str) -> str:
    if side not in ("left", "right"):
        raise PromptError(f'padding side must be "left" or "right", not {side!r}')
    return side
