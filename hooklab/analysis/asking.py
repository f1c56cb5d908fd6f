"""What an analysis is asked, written as the text of a spec: prompts, answers, metrics and places.

Every function of the shelf that runs passes writes a spec and runs it, so that its result carries text that does the same.
"""

from __future__ import annotations

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

    lines: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The spec so far."""
        return "\n".join(self.lines) + "\n"

    def line(self, *lines: str) -> Asking:
        """Add lines."""
        self.lines += lines
        return self

    def prompt(self, name: str, value: Any) -> Asking:
        """A prompt: text as text, all else by its name in braces."""
        if isinstance(value, str):
            return self.line(f"prompt {name} = {quote(value)}")
        if isinstance(value, (list, tuple)) and value and all(isinstance(text, str) for text in value):
            return self.line(f"prompt {name} = [{', '.join(quote(text) for text in value)}]")
        self.values[name] = value
        return self.line(f"prompt {name} = {{{name}}}")

    def answer(self, answer: Any, wrong: Any = None) -> Asking:
        """The right answer and the wrong one, where they are given."""
        parts = []
        for name, value in (("answer", answer), ("wrong", wrong)):
            if isinstance(value, str):
                parts.append(quote(value))
            elif value is not None:
                self.values[name] = value.tolist() if hasattr(value, "tolist") else value
                parts.append(f"{{{name}}}")
        if wrong is not None and answer is None:
            raise SweepError("a wrong answer needs the right one beside it: answer=")
        return self.line("answer " + " vs ".join(parts)) if parts else self

    def metric(self, metric: str | Callable[[Any], Any], against: str = "clean") -> str:
        """A metric by name, or a function of the last logits; returns the name of its numbers.

        Raises:
            SweepError: there is no such metric.
        """
        if callable(metric):
            self.values["m"] = AtLast(metric)
            self.line("metric m = {m}")
            return "m"
        if metric not in METRICS:
            raise SweepError(f"there is no metric {metric!r}.{did_you_mean(metric, METRICS)} It may also be a function of "
                             "the logits [batch d_vocab]")
        self.line(f"metric kl = kl({against})" if metric == "kl" else f"metric {metric}")
        return metric


def places(sites: str | Iterable[str], positions: Any = None) -> str:
    """`SITE @…, SITE @…`: several sites are one list, and each has the positions.

    Raises:
        SweepError: there is no site.

    >>> places(["L*.attn_out", "L*.mlp_out"], "last")
    'L*.attn_out @last, L*.mlp_out @last'
    """
    named = [sites] if isinstance(sites, str) else list(sites)
    if not named:
        raise SweepError("there is no site to sweep over")
    at = "" if positions is None else " @" + str(positions).removeprefix("@")
    return ", ".join(name.removeprefix("each ") + at for name in named)


def check_word(name: str, given: str | None, known: Sequence[str | None]) -> None:
    """Refuse a word that is none of a few.

    Raises:
        SweepError: with the nearest one.
    """
    if given not in known:
        raise SweepError(f"there is no {name} {given!r}." + did_you_mean(str(given), [word for word in known if word]))
