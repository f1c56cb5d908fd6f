"""A spec with the values of its Python: what `Spec.freeze` gives, and how it is stored so that nothing needs a notebook.

    Spec + values by source ──literals where the language has one──▶ Frozen(spec, values) ──▶ one .npz with its sha256

Numbers, texts, lists of them and positions become part of the text. Arrays, tensors and the rest stay beside it, under
the Python that they were made by; `model.run(frozen.spec, values=frozen.values)` runs both. Nothing is pickled, and
nothing that is stored can be a function.

>>> from hooklab.spec.parser import parse
>>> frozen = freeze(parse('prompt {texts}\\nsteer L2.resid @{where} by {k} * {v}'),
...                 {"texts": ["a", "b"], "where": [0, -1], "k": -1.5, "v": [0.5, 2.0]})
>>> print(frozen.spec)
prompt ["a", "b"]
steer L2.resid_post @[0, -1] by -1.5 * {v}
>>> frozen.values
{'v': [0.5, 2.0]}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..errors import HooklabError, nearest
from ..positions import fill, holes_in
from ..positions.select import Selector
from ..problems import Problem, SpecError
from . import ast
from .holes import at_hole, holes
from .jsonform import LARGEST
from .parser import parse, read

LONGEST_LIST = 1000  # longer ones are kept beside the text


@dataclass(frozen=True, eq=False)
class Frozen:
    """A spec and the values of the Python that is left in it.

    Attributes:
        spec: The spec; values that the language can write are part of it.
        values: The others, by the source of their braces.
    """

    spec: ast.Spec
    values: dict[str, Any]

    def __repr__(self) -> str:
        beside = f"; beside it {', '.join(f'{{{source}}}' for source in self.values)}" if self.values else ""
        return f"<Frozen spec of {len(self.spec.body)} lines{beside}>\n{self.spec}"

    @property
    def digest(self) -> str:
        """The sha256 of text and values: equal for what is equal, on every machine."""
        from .frozen_file import packed

        return packed(self)[0]["sha256"]

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Store as one .npz, whole or not at all. Returns its path.

        Raises:
            SpecError: the path is taken or cannot be written to.
        """
        from .frozen_file import save

        return save(self, Path(path), overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Frozen:
        """Read what `save` stored. Nothing in the file is executed.

        Raises:
            SpecError: there is none, it was changed or cut short, or it is of a newer version.
        """
        from .frozen_file import load

        return load(Path(path))


def freeze(spec: ast.Spec, values: Mapping[str, Any]) -> Frozen:
    """A spec with a value for each of its Python holes, by their source.

    Raises:
        SpecError: a hole has no value, a value has no hole, or a value cannot be stored.
    """
    sources = {source.strip(): value for source, value in values.items()}
    _fit(spec, sources)
    body = tuple(_filled(statement, sources) for statement in spec.body)
    written = parse(str(ast.Spec(body)))
    left = {source: sources[source] for source in holes(written)}
    frozen = Frozen(written, left)
    _storable(spec, frozen)
    return frozen


def _fit(spec: ast.Spec, values: Mapping[str, Any]) -> None:
    """Refuse values for no hole, and holes without a value."""
    needed = holes(spec)
    problems = [at_hole(spec, source, f"{{{source}}} has no value", f'give it one: spec.freeze({{"{source}": …}})')
                for source in needed if source not in values]
    for source in values:
        if source not in needed:
            close = nearest(source[:40], needed)
            there = f"it has {', '.join(f'{{{s}}}' for s in needed)}" if needed else "it has none"
            problems.append(Problem("name", f"no hole of this spec is {{{source[:60]}}}",
                                    hint=f"did you mean {close}?" if close else there))
    if problems:
        raise SpecError(problems, spec.text or "")


def _storable(spec: ast.Spec, frozen: Frozen) -> None:
    """Refuse a value that no file can hold."""
    from .frozen_file import Packer

    problems = []
    for source, value in frozen.values.items():
        try:
            Packer().pack(value)
        except (TypeError, RecursionError) as error:
            problems.append(at_hole(spec, source, f"this value cannot be stored: {error}",
                                    "numbers, texts, arrays, tensors, and lists and dictionaries of them can be"))
    if problems:
        raise SpecError(problems, spec.text or "")


# Literals ----------------------------------------------------------------------------------------------------------------


def number(value: Any) -> ast.Num | ast.Neg | None:
    """A number as a literal; None where the language has none for it.

    >>> number(-2), number(float("nan"))
    (Neg(of=Num(value=2)), None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or abs(value) >= LARGEST:
        return None
    plain = int(value) if isinstance(value, int) else float(value)
    return ast.Neg(ast.Num(-plain)) if math.copysign(1, plain) < 0 else ast.Num(plain)


def quoted(value: Any) -> ast.Str | None:
    """A text as a literal."""
    return ast.Str(str(value)) if isinstance(value, str) else None


def listed(value: Any, item: Callable[[Any], Any]) -> ast.List | None:
    """A list of literals, where all of it can be written."""
    if not isinstance(value, (list, tuple, range)) or not 0 < len(value) <= LONGEST_LIST:
        return None
    items = tuple(map(item, value))
    return None if None in items else ast.List(items)


def texts(value: Any) -> ast.Str | ast.List | None:
    """One text or several."""
    return quoted(value) or listed(value, quoted)


def option(value: Any) -> Any:
    """The value of an option, where a number below zero is one number and truth is a word."""
    if isinstance(value, bool):
        return ast.Word("true" if value else "false")
    found = number(value) or quoted(value)
    return ast.Num(-found.of.value) if isinstance(found, ast.Neg) and isinstance(found.of, ast.Num) else found


# Where Python stands, and the literals that may stand there in its place. Anything else keeps its braces: a function, an
# array, a list as an amount, a text as a source of `patch` (which would be a file), places (`each` of several is one axis).
_LITERALS: dict[tuple[type, str], Callable[[Any], Any]] = {
    (ast.Prompt, "value"): texts, (ast.Answer, "value"): texts, (ast.Answer, "against"): texts, (ast.Sae, "source"): quoted,
    (ast.Sweep, "values"): lambda value: listed(value, lambda item: number(item) or quoted(item)),
    (ast.EachValue, "values"): lambda value: listed(value, number), (ast.List, "items"): lambda v: number(v) or quoted(v),
    **{key: number for key in (
        (ast.Let, "value"), (ast.Metric, "value"), (ast.Expect, "left"), (ast.Expect, "right"), (ast.Steer, "amount"),
        (ast.Scale, "amount"), (ast.Set, "amount"), (ast.Noise, "amount"), (ast.Binary, "left"), (ast.Binary, "right"),
        (ast.Neg, "of"), (ast.Call, "args"))},
}


def _filled(node: Any, values: Mapping[str, Any], place: tuple[type, str] = (object, "")) -> Any:
    """A part of a spec with literals for the Python in it."""
    if isinstance(node, tuple):
        return tuple(_filled(item, values, place) for item in node)
    if isinstance(node, Selector):
        return _positions(node, values)
    if isinstance(node, ast.Py):
        make = _LITERALS.get(place)
        made = make(values[node.source]) if make is not None else None
        return node if made is None else made
    if not isinstance(node, ast.Node):
        return node
    if isinstance(node, ast.Opt) and isinstance(node.value, ast.Py):
        make = option if place[1] == "opts" else number
        return replace(node, value=make(values[node.value.source]) or node.value)
    return replace(node, **{f.name: _filled(getattr(node, f.name), values, (type(node), f.name)) for f in fields(node)
                            if f.name != "span"})


def _positions(pos: Selector, values: Mapping[str, Any]) -> Selector:
    """Positions with those of their holes filled that the language can write."""
    for source in sorted(holes_in(pos)):
        try:
            new = fill(pos, {source: values[source]})
        except (HooklabError, TypeError, ValueError):
            continue
        found, problems = read(f"mark x = ({new})")
        if not problems and len(found) == 1 and found[0] == ast.Mark("x", new):
            pos = new
    return pos
