"""Ids ↔ characters: which characters of the text each token stands for, and how a token is shown.

In: what users hand in (ids, masks, strings) and a Hugging Face tokenizer. Out: unpadded rows of ids, and an
`Example` with the text, character spans and display pieces that `Tokens` stores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from ..errors import PromptError

Span = tuple[int, int]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE_MARKS = (" ", "▁", "Ġ")
_UNFINISHED = "\ufffd"


class Example(NamedTuple):
    """One tokenized text: `text[a:b]` is what the token with offset `(a, b)` stands for."""

    ids: list[int]
    text: str
    offsets: list[Span] | None
    pieces: list[str]


def half(text: str) -> str | None:
    """The first half of a character in a text that is none therefore; tokenizers and files refuse it.

    >>> half("café"), half("a\\udc80")
    (None, '\\udc80')
    """
    return None if text.isascii() else next((c for c in text if "\ud800" <= c <= "\udfff"), None)


def rows(ids: Any, what: str) -> list[list[int]]:
    """Integers as ragged rows, from a flat or nested list, array or tensor. Raises PromptError.

    >>> rows([1, 2], "ids"), rows([[1], [2, 3]], "ids")
    ([[1, 2]], [[1], [2, 3]])
    """
    plain = _plain(ids)
    if not isinstance(plain, list):
        raise PromptError(f"{what} must be a list, array or tensor of integers, not {type(ids).__name__}")
    nested = [_plain(row) for row in plain]
    if not any(isinstance(row, list) for row in nested):
        nested = [nested]
    for row in nested:
        for n in row if isinstance(row, list) else [row]:
            if (
                not isinstance(row, list)
                or not isinstance(n, int)
                or (isinstance(n, bool) and what == "ids")
                or n < 0
            ):
                raise PromptError(f"{what} must be non-negative integers [pos] or [batch pos]; found {n!r}")
    return [[int(n) for n in row] for row in nested]


def _plain(x: Any) -> Any:
    x = x.tolist() if hasattr(x, "tolist") else x
    return list(x) if isinstance(x, tuple) else x


def drop_masked(ids: list[list[int]], mask: list[list[int]]) -> tuple[list[list[int]], str | None]:
    """The ids whose mask is not 0, and the padding side if the mask tells it.

    Raises PromptError when shapes differ, or when a mask has a hole or pads on both sides: positions of such
    an example would not map to columns.

    >>> drop_masked([[0, 0, 7], [5, 6, 7]], [[0, 0, 1], [1, 1, 1]])
    ([[7], [5, 6, 7]], 'left')
    """
    if [len(r) for r in ids] != [len(r) for r in mask]:
        raise PromptError(
            f"attention_mask has rows of {[len(r) for r in mask]}, ids of {[len(r) for r in ids]}"
        )
    kept, sides = [], set()
    for i, (row, bits) in enumerate(zip(ids, mask, strict=True)):
        real = [p for p, bit in enumerate(bits) if bit]
        if not real:
            raise PromptError(f"attention_mask leaves no token of example {i}")
        start, stop = real[0], real[-1] + 1
        if stop - start != len(real):
            raise PromptError(
                f"attention_mask of example {i} has a hole; only padding at one end can be dropped"
            )
        sides |= ({"left"} if start else set()) | ({"right"} if stop < len(row) else set())
        kept.append(row[start:stop])
    if len(sides) == 2:
        raise PromptError("attention_mask pads on both sides; pad on one")
    return kept, next(iter(sides), None)


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of the tokenizer's special tokens.

    The unknown token is none, unless it has another job as in GPT-2: it stands for ordinary text.
    """
    ids = set(getattr(tokenizer, "all_special_ids", None) or ())
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    ids |= {i for i, token in added.items() if getattr(token, "special", False)}
    unk = getattr(tokenizer, "unk_token_id", None)
    jobs = ("bos", "eos", "pad", "cls", "sep", "mask")
    if unk not in {getattr(tokenizer, f"{job}_token_id", None) for job in jobs}:
        ids.discard(unk)
    return frozenset(ids)


def visible(piece: str) -> str:
    """A piece with its outer spaces as `·` and control characters escaped, safe to print.

    >>> visible(" Mary"), visible("a\\n")
    ('·Mary', 'a\\\\n')
    """
    left, right = len(piece) - len(piece.lstrip(" ")), len(piece.rstrip(" "))
    core = "".join(c if c.isprintable() else repr(c)[1:-1] for c in piece[left:right])
    return "·" * left + core + "·" * (len(piece) - max(left, right))


def align(tokenizer: Any, ids: list[int], text: str, spans: list[Span]) -> Example:
    """An example from a text and the spans that a fast tokenizer gave for it."""
    offsets, cursor = [], 0
    for a, b in spans:
        if a == b:
            # A template's token stands for no text; a lone space that the tokenizer trimmed gets it back.
            trimmed = a > cursor and text[cursor:a].isspace()
            a, b = cursor, (a if trimmed else cursor)
        offsets.append((a, b))
        cursor = max(cursor, b)
    return _example(tokenizer, ids, text, offsets)


def decode(tokenizer: Any, ids: list[int]) -> Example:
    """An example whose text is what the ids decode to, token after token.

    A window of two chunks is decoded at each step, since decoders join, strip and merge depending on the
    neighbour. Tokens that are only whole together (parts of one character) share a span.
    """
    names = tokenizer.convert_ids_to_tokens(ids)
    joined = _joined(tokenizer, ids, names)
    if joined is not None:
        return joined
    text, offsets = "", []
    prefix = read = 0
    for i in range(len(ids)):
        before, now = _decoded(tokenizer, ids[prefix:read]), _decoded(tokenizer, ids[prefix : i + 1])
        if now.endswith(_UNFINISHED) and i + 1 < len(ids):
            continue
        new = now[len(before) :]
        # A space that the decoder put between words is not the token's own.
        own = str(names[read]).startswith(_SPACE_MARKS)
        gap = 0 if own or new.isspace() else len(new) - len(new.lstrip(" "))
        offsets += [(len(text) + gap, len(text) + len(new))] * (i + 1 - read)
        text += new
        prefix, read = (read if new else prefix), i + 1
    return _example(tokenizer, ids, text, offsets)


def _joined(tokenizer: Any, ids: list[int], names: list[Any]) -> Example | None:
    """The same for a tokenizer whose decoder does little but put its tokens together; None for any other.

    Nothing has to be decoded then: each token's text follows from its name alone. None as well where some token is no text
    by itself, such as a part of a character.
    """
    kind = _joining(tokenizer)
    if kind is None:
        return None
    texts = [_alone(name, kind) for name in names]
    if None in texts:
        return None
    if kind == "Strip" and texts and texts[0].startswith(" "):  # type: ignore[union-attr]
        texts[0] = texts[0][1:]  # type: ignore[index]
    stops = [*accumulate(map(len, texts), initial=0)]  # type: ignore[arg-type]
    pieces = [text or name for text, name in zip(texts, names, strict=True)]
    return Example(ids, "".join(texts), [*pairwise(stops)], pieces)  # type: ignore[arg-type]


def _joining(tokenizer: Any) -> str | None:
    """What a tokenizer's decoder does, where it is known and nobody has put another in its place: see `_alone`."""
    own = (getattr(getattr(type(tokenizer), name, None), "__module__", "") for name in ("decode", "_decode"))
    if not all(module.startswith("transformers.tokenization_utils") for module in own):
        return None
    return _joiners().get(str(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)).partition("(add_")[0])


@lru_cache
def _joiners() -> dict[str, str]:
    """How a decoder is printed -> what it does to a token: those of GPT-2's kind, of Gemma's, and of Llama's."""
    from tokenizers import decoders

    marks = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    kinds = {"Fuse": decoders.Fuse(), "ByteLevel": decoders.ByteLevel(), "Replace": decoders.Sequence(marks),
             "Strip": decoders.Sequence([*marks, decoders.Strip(" ", 1, 0)])}
    return {str(decoder).partition("(add_")[0]: kind for kind, decoder in kinds.items()}


@lru_cache(1 << 16)
def _alone(name: str | None, kind: str) -> str | None:
    """What a token is decoded to whatever stands beside it; None where that depends on its neighbours, or there is none.

    Args:
        name: Of the token.
        kind: `Fuse`: names are the text. `ByteLevel`: each character stands for a byte. `Replace`: `▁` stands for a space,
            `<0x0A>` for a byte. `Strip`: the same, and the text loses a first space.
    """
    if name is None or _UNFINISHED in name:
        return None
    if kind == "Fuse":
        return name
    if kind in ("Replace", "Strip"):
        byte = _BYTE_TOKEN.fullmatch(name)
        code = int(byte[1], 16) if byte else 0
        return None if code > 127 else chr(code) if byte else name.replace("▁", " ")
    table = _byte_alphabet()
    raw = bytes(table[c] for c in name) if all(c in table for c in name) else name.encode("utf-8", "surrogatepass")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return None if _UNFINISHED in text else text


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) if ids else ""


def _example(tokenizer: Any, ids: list[int], text: str, offsets: list[Span]) -> Example:
    """The example, with its display pieces; joined, they give the text wherever no character is split."""
    names = tokenizer.convert_ids_to_tokens(ids)
    byte_level = _is_byte_level(tokenizer)
    spelled = [_bytes(str(name), byte_level) for name in names]
    pieces: list[str] = []
    cursor = 0
    for start, stop in _shared(offsets):
        offsets[start:stop] = _spread(text, offsets[start:stop], spelled[start:stop])
        for i in range(start, stop):
            a, b = offsets[i]
            raw = spelled[i]
            if a == b:
                pieces.append(str(names[i]) if names[i] is not None else f"#{ids[i]}")
            elif stop > start + 1 and raw is not None:
                pieces.append(_readable(raw))
            else:
                gap = cursor if a <= cursor or text[cursor:a].isspace() else a
                pieces.append(text[gap:b])
            cursor = max(cursor, b)
    return Example(ids, text, offsets, pieces)


def _shared(offsets: list[Span]) -> Iterator[Span]:
    """Runs of tokens whose spans overlap, as `start, stop`; most runs are one token."""
    start = end = 0
    for i, (a, b) in enumerate(offsets):
        if i > start and (a >= end or a == b):
            yield start, i
            start = i
        end = max(end, b) if i > start else b
    if offsets:
        yield start, len(offsets)


def _spread(text: str, offsets: list[Span], spelled: list[bytes | None]) -> list[Span]:
    """Spans narrowed to the characters that each token's bytes belong to, where the bytes spell the text.

    Tokenizers give a whole run of byte tokens one span, even if only one character in it is split.
    """
    first, last = offsets[0][0], max(b for _, b in offsets)
    whole = b"".join(raw or b"" for raw in spelled)
    if len(offsets) == 1 or None in spelled or whole != text[first:last].encode("utf-8", "surrogatepass"):
        return offsets
    # owner[i]: the character that byte i of the run is part of
    owner = [first + i for i, c in enumerate(text[first:last]) for _ in c.encode("utf-8", "surrogatepass")]
    spans, at = [], 0
    for raw in spelled:
        size = len(raw or b"")
        spans.append((owner[at], owner[at + size - 1] + 1) if size else (owner[at], owner[at]))
        at += size
    return spans


def _readable(raw: bytes) -> str:
    """Bytes as text; what is no whole character as `<0xF0>`."""
    text = raw.decode("utf-8", "surrogateescape")
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if "\udc80" <= c <= "\udcff" else c for c in text)


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return "ByteLevel" in str(getattr(backend, "decoder", "")) or hasattr(tokenizer, "byte_decoder")


def _bytes(name: str, byte_level: bool) -> bytes | None:
    """The bytes that a token's name spells, or None when it is not spelled in bytes."""
    if match := _BYTE_TOKEN.fullmatch(name):
        return bytes([int(match[1], 16)])
    table = _byte_alphabet()
    return bytes(table[c] for c in name) if byte_level and all(c in table for c in name) else None


@lru_cache
def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE's alphabet: printable Latin-1 bytes are themselves, the others follow from U+0100 on."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in own]
    return {chr(b): b for b in own} | {chr(256 + i): b for i, b in enumerate(rest)}
