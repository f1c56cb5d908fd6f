"""Spec text of one reading: the prompt and the edits that a number comes from, and a line that reads it again."""

from __future__ import annotations

from ..errors import HooklabError
from ..spec import ast
from ..spec.names import MAIN
from ..spec.narrow import Book, narrow
from ..spec.parser import parse


def with_line(spec: str, run: str, line: str) -> str:
    """What a run of a spec needs, its readings and sweeps left out, and one more line in that run.

    >>> with_line('prompt "Hi"\\nzero L0H1\\nlens L*.resid_post', "hooked", "lens L1.resid_post @0")
    'prompt "Hi"\\nzero L0H1\\nlens L1.resid_post @0'

    Raises:
        RecordError, SpecError: the text has no such run, or sweeps over something.
    """
    text = _alone(spec, run)
    body = parse(text).body
    prompts = [one for one in body if isinstance(one, ast.Prompt)]
    blocks = [one for one in body if isinstance(one, ast.Run)]
    if blocks and (blocks[-1].name or "hooked") == run:
        return f"{text}\n    {line}"
    if len(prompts) > 1 and run in {one.name for one in prompts}:
        return f"{text}\nrun on {run}: {line}"
    return f"{text}\n{line}"


def _alone(spec: str, run: str) -> str:
    """What a run needs; of one that nothing acts on, its prompt."""
    body = parse(spec).body
    if run in Book(parse(spec)).runs:
        return narrow(spec, run, {})
    kept = [one for one in body if isinstance(one, ast.Prompt) and (one.name or MAIN) == run]
    return str(ast.Spec((*[one for one in body if isinstance(one, ast.Let)], *kept))) if kept else narrow(spec, run, {})


def line_for(spec: str) -> str:
    """The first prompt of a spec as text of its own; empty where there is none that can be read."""
    try:
        return next((str(ast.Spec((one,))) for one in parse(spec).body if isinstance(one, ast.Prompt)), "") if spec else ""
    except HooklabError:
        return ""
