"""What an analysis is asked, written as the text of a spec: prompts, answers, metrics and places.

Every function of the shelf that runs passes writes a spec and runs it, so that its result carries text that does the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import HooklabError, did_you_mean
from ..metrics import AtLast
from ..spec.printer import quote
from ..spec.verbs import METRICS


class SweepError(HooklabError):
    """An analysis that cannot be set up as asked."""


@dataclass
class Asking:
    """A spec being written: its lines, and the values of its braces.

    >>> asking = Asking()
    >>> asking.prompt("clean", "Hello").answer(" a", " b").metric("logit_diff")
    'logit_diff'
    >>> asking.lines
    ['prompt clean = "Hello"', 'answer " a" vs " b"', 'metric logit_diff']
    """

    error: type[HooklabError] = SweepError
    lines: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    suggestion: str = ""

    @property
    def text(self) -> str:
        """The spec so far."""
        return "\n".join(self.lines)

    def line(self, *lines: str) -> Asking:
        """Add lines."""
        self.lines += lines
        return self

    def prompt(self, name: str, value: Any) -> Asking:
        """A prompt: text as text, all else by its name in braces."""
        if isinstance(value, (list, tuple)) and value and all(isinstance(text, str) for text in value):
            return self.line(f"prompt {name} = [{', '.join(quote(text) for text in value)}]")
        return self.line(f"prompt {name} = {self.value(name, value)}")

    def value(self, name: str, value: Any) -> str:
        """A value in a line: text as text, all else by a name in braces."""
        if isinstance(value, str):
            return quote(value)
        self.values[name] = value.tolist() if hasattr(value, "tolist") else value
        return f"{{{name}}}"

    def answer(self, answer: Any, wrong: Any = None) -> Asking:
        """The right answer and the wrong one, where they are given."""
        if wrong is not None and answer is None:
            raise self.error("wrong= goes with answer=, the right next token.")
        if answer is None:
            return self
        against = "" if wrong is None else f" vs {self.value('wrong', wrong)}"
        self.suggestion = "logit" if wrong is None else "logit_diff"
        return self.line(f"answer {self.value('answer', answer)}{against}")

    def suggested(self) -> str:
        """The metric that the answers suggest."""
        if not self.suggestion:
            raise self.error("say what to attribute to: metric=, answer=, or target=.")
        return self.suggestion

    def metric(self, metric: str | Callable[[Any], Any], against: str = "clean") -> str:
        """A metric by name, an expression, or a function of the last logits; returns the name of its numbers.

        Raises:
            SweepError: there is no such metric.
        """
        if callable(metric):
            self.values["m"] = AtLast(metric)
            self.line("metric m = {m}")
            return "m"
        if not metric.isidentifier():
            self.line(f"metric m = {metric}")
            return "m"
        if metric not in METRICS:
            raise self.error(f"there is no metric {metric!r}.{did_you_mean(metric, METRICS)} It may also be a function of "
                             "the logits [batch d_vocab]")
        self.line(f"metric kl = kl({against})" if metric == "kl" else f"metric {metric}")
        return metric


def places(sites: str | Iterable[str], positions: Any = None, error: type[HooklabError] = SweepError) -> str:
    """`SITE @…, SITE @…`: several sites are one list, and each has the positions.

    Raises:
        SweepError: there is no site.

    >>> places(["L*.attn_out", "L*.mlp_out"], "last")
    'L*.attn_out @last, L*.mlp_out @last'
    """
    named = listed(sites, error)
    at = "" if positions is None else " @" + str(positions).removeprefix("@")
    return ", ".join(name.removeprefix("each ") + at for name in named)


def listed(sites: str | Iterable[str], error: type[HooklabError] = SweepError) -> list[str]:
    """One address or several as a list.

    Raises:
        SweepError: there is none, or something else is among them.
    """
    named = [sites] if isinstance(sites, str) or not isinstance(sites, Iterable) else list(sites)
    if not named:
        raise error("there is no place: sites= is empty.")
    if other := [one for one in named if not isinstance(one, str)]:
        raise error(f'a place is an address such as "L5.resid_post", not {other[0]!r}.')
    return named


def whole(name: str, given: Any, least: int = 1, most: int | None = None, *,
          error: type[HooklabError] = SweepError) -> int:
    """A whole number that is large enough, and not too large.

    Raises:
        SweepError: with what it may be.

    >>> whole("k", 3)
    3
    """
    try:
        number = operator.index(None if isinstance(given, bool) else given)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least or (most is not None and number > most):
        says = f"{least} or more" if most is None else f"from {least} to {most}"
        raise error(f"{name}={given!r}: it is a whole number, {says}")
    return number


def check_word(name: str, given: str | None, known: Sequence[str | None]) -> None:
    """Refuse a word that is none of a few.

    Raises:
        SweepError: with the nearest one.
    """
    if given not in known:
        words = [word for word in known if word]
        raise SweepError(f"there is no {name} {given!r}.{did_you_mean(given, words)} There are {', '.join(words)}.")
