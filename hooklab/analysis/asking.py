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
    named = [sites] if isinstance(sites, str) else list(sites)
    if not named:
        raise error("there is no place: sites= is empty.")
    at = "" if positions is None else " @" + str(positions).removeprefix("@")
    return ", ".join(name.removeprefix("each ") + at for name in named)


def check_word(name: str, given: str | None, known: Sequence[str | None]) -> None:
    """Refuse a word that is none of a few.

    Raises:
        SweepError: with the nearest one.
    """
    if given not in known:
        raise SweepError(f"there is no {name} {given!r}." + did_you_mean(str(given), [word for word in known if word]))
