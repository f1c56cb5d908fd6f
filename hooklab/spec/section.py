"""What one topic of the reference is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """One topic of the reference.

    Attributes:
        name: The word that `%hook help` takes.
        title: Its heading.
        text: Paragraphs.
        rows: A table of what can be written and what it means.
        examples: Specs that show it; each is whole, and needs no Python.
        given: Specs with braces, each after the Python that gives them their values.
    """

    name: str
    title: str
    text: tuple[str, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()
    examples: tuple[str, ...] = ()
    given: tuple[tuple[str, str], ...] = ()
