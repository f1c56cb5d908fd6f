"""The one token that a text is; a text that is several, or none, is an error that shows them."""

from __future__ import annotations

from typing import Any

from ..errors import TokenError
from ..tokens import Tokens


def single_token(tokenizer: Any, text: str) -> int:
    """The id of a text that is one token, read without special tokens around it.

    Raises:
        TokenError: it is several tokens, or none, or not in the vocabulary; or there is no tokenizer.
    """
    if not isinstance(text, str):
        raise TokenError(f"a token is named by its text, not by {type(text).__name__}")
    if tokenizer is None:
        raise TokenError(f"this model has no tokenizer, so {text!r} names no token: give its id")
    ids = _ids(tokenizer, text)
    if len(ids) != 1:
        pieces = Tokens.encode(tokenizer, text, add_special_tokens=False).pieces[0] if ids else ()
        shown = ": " + ", ".join(map(repr, pieces)) if pieces else ""
        raise TokenError(f"{text!r} is {len(ids)} tokens, not one{shown}. {_hint(tokenizer, text)}")
    if not _known(tokenizer, ids[0], text):
        raise TokenError(f"{text!r} is not in the vocabulary of this model's tokenizer, which reads it as "
                         f"{tokenizer.unk_token}. {_hint(tokenizer, text)}")
    return ids[0]


def starts_a_text(tokenizer: Any, text: str, token: int) -> bool:
    """Whether the token of a word is the one that starts a text: with a space before it the word is another token."""
    if tokenizer is None or not text[:1].isalpha():
        return False
    ids = _ids(tokenizer, f" {text}")
    return len(ids) == 1 and ids[0] != token and _known(tokenizer, ids[0], text)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]] if text else []


def _known(tokenizer: Any, token: int, text: str) -> bool:
    return token != getattr(tokenizer, "unk_token_id", None) or text.strip() == tokenizer.unk_token


def _hint(tokenizer: Any, text: str) -> str:
    """The same word with or without a space before it, where that is a token."""
    other = text[1:] if text.startswith(" ") else f" {text}"
    ids = _ids(tokenizer, other)
    fits = len(ids) == 1 and _known(tokenizer, ids[0], other)
    return f"Did you mean {other!r}?" if fits else "Spaces count: ' Mary' is not 'Mary'"
