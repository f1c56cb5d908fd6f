"""Functions of the user's, called for a question: what they raise goes on as it is, with a note that names the question."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import HooklabError
from ..tasks.tasks import Question


@contextmanager
def asking(what: str, question: Question) -> Iterator[None]:
    """Name the question in what is raised inside.

    >>> try:
    ...     with asking("grade=", Question("fact 7", "2 + 2 =")):
    ...         float("four")
    ... except ValueError as error:
    ...     print(*error.__notes__)
    This was grade= for question 'fact 7'.
    """
    try:
        yield
    except HooklabError:
        raise
    except Exception as error:
        error.add_note(f"This was {what} for question {question.id!r}.")
        raise
