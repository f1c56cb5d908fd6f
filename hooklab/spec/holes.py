"""What a spec leaves to others: the Python between its braces, and the model that it names.

The magic evaluates the holes in the notebook; the command line takes their values from `--set`. Nothing here
evaluates anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from ..errors import nearest
from ..jsontext import json_of
from ..positions import holes_in
from ..positions.select import Selector
from ..problems import Problem, SpecError
from . import ast
from .scan import scan


def holes(spec: ast.Spec) -> dict[str, ast.Span | None]:
    """The source of every Python hole, in the order written, with the place where it first stands.

    The place is that of the braces, or None in a spec that was built and not read.

    >>> from hooklab.spec.parser import parse
    >>> found = holes(parse('prompt "x"\\nsteer L6.resid @{where} by 4 * {vec}\\nsteer L7.resid by {vec}'))
    >>> [(source, span.line, span.column, span.end_column) for source, span in found.items()]
    [('where', 2, 17, 24), ('vec', 2, 32, 37)]
    """
    places = _written(spec.text) if spec.text is not None else {}
    found: dict[str, ast.Span | None] = {}
    for statement in spec.body:
        for source, near in _sources(statement, statement.span):
            if source not in found:
                found[source] = places.get(source, near)
    order = {source: i for i, source in enumerate(found)}
    return dict(sorted(found.items(), key=lambda item: _start(item[1], order[item[0]])))


def _start(span: ast.Span | None, i: int) -> tuple[int, int, int]:
    return (span.line, span.column, i) if span is not None else (0, 0, i)


def _sources(node: Any, near: ast.Span | None) -> Iterator[tuple[str, ast.Span | None]]:
    """The sources in a part of a spec, each with the span of the closest node that has one."""
    if isinstance(node, Selector):
        for source in sorted(holes_in(node)):
            yield source, near
    elif isinstance(node, tuple):
        for item in node:
            yield from _sources(item, near)
    elif isinstance(node, ast.Node):
        near = node.span or near
        if isinstance(node, (ast.Py, ast.PySite)):
            yield node.source, near
        for f in fields(node):
            if f.name not in ("span", "source") or not isinstance(getattr(node, f.name), str):
                yield from _sources(getattr(node, f.name), near)


def _written(text: str) -> dict[str, ast.Span]:
    """Where each source first stands in a text, braces included."""
    places: dict[str, ast.Span] = {}
    for start, inside in scan(text).holes.items():
        end = start + len(inside) + 2
        places.setdefault(inside.strip(), ast.Span(*_at(text, start), *_at(text, end)))
    return places


def _at(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def at_hole(spec: ast.Spec, source: str, message: str, hint: str = "") -> Problem:
    """A problem with the value of a hole, under its braces."""
    span = holes(spec).get(source)
    if span is None:
        return Problem("value", f"{{{source}}}: {message}", hint=hint)
    one_line = span.line == span.end_line
    return Problem("value", message, span.line, span.column, span.end_column - span.column if one_line else 1, hint)


def given(spec: ast.Spec, settings: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Values for every hole from texts `name=value`; a value is JSON, or plain text where it cannot be JSON.

    Raises:
        SpecError: a hole is left without a value, or a setting is for no hole, or is broken JSON.

    >>> from hooklab.spec.parser import parse
    >>> spec = parse('prompt {texts}\\nsteer L2.resid by {k}')
    >>> given(spec, ['k=1.5', 'texts=["a", "b"]'])
    {'texts': ['a', 'b'], 'k': 1.5}
    """
    sources = holes(spec)
    values: dict[str, Any] = {}
    problems = []
    for setting in settings:
        name, equals, text = _split(setting, sources)
        if not equals:
            problems.append(Problem("value", f"{option} takes name=value, not {setting!r}"))
        elif name not in sources:
            close = nearest(name, sources)
            hint = f"did you mean `{close}`?" if close else f"it has {_list(sources)}" if sources else "it has no braces"
            problems.append(Problem("name", f"{option} {name}: no hole of this spec is {{{name}}}", hint=hint))
        else:
            try:
                values[name] = value_of(text)
            except ValueError as error:
                problems.append(Problem("value", f"{option} {name}: {error}", hint="""as in --set 'vec=[0.1, 0.2]'"""))
    problems += [at_hole(spec, source, f"no value for {{{source}}}", f"give it one: {option} '{source}=…'")
                 for source in sources if source not in values and not any(p.message.startswith(f"{option} {source}:")
                                                                           for p in problems)]
    if problems:
        raise SpecError(problems, spec.text or "")
    return {source: values[source] for source in sources}


def _split(setting: str, sources: Mapping[str, Any]) -> tuple[str, str, str]:
    """Name and value; a source may hold `=` itself, so the name that is one wins."""
    for at in [i for i, c in enumerate(setting) if c == "="]:
        if setting[:at].strip() in sources:
            return setting[:at].strip(), "=", setting[at + 1:]
    name, equals, text = setting.partition("=")
    return name.strip(), equals, text


def value_of(text: str) -> Any:
    """JSON, or the text itself. Raises ValueError for what starts as JSON and is none.

    >>> value_of("[1, 2]"), value_of("Mary"), value_of("-2.5")
    ([1, 2], 'Mary', -2.5)
    """
    try:
        return json_of(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith(("[", "{", '"')):
            raise ValueError(f"this is no JSON: {error}") from None
        return text


def _list(sources: Mapping[str, Any]) -> str:
    return ", ".join(f"{{{source}}}" for source in sources)


def model_line(spec: ast.Spec) -> tuple[str, dict[str, Any]] | None:
    """The model that a spec names and the options of its line, as `hooklab.load` takes them; None without one.

    >>> from hooklab.spec.parser import parse
    >>> model_line(parse('model "gpt2" revision="main" dtype=bfloat16'))
    ('gpt2', {'revision': 'main', 'dtype': 'bfloat16'})
    """
    for line in spec.body:
        if isinstance(line, ast.ModelName):
            words = {opt.name: opt.value for opt in line.opts}
            return line.name, {name: value.id if isinstance(value, ast.Word) else getattr(value, "value", None)
                               for name, value in words.items()}
    return None
