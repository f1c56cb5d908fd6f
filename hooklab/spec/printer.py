"""`Spec` to text: the canonical form, which `parse` reads back to an equal spec and which prints as itself.

`FORMS` says how each verb's line is put together; `builder` fills the same forms. What prints alike is one thing to
the reader: a number below zero within a value is read back as `Neg`, which is the canonical node for it.

>>> from hooklab.spec.parser import parse
>>> print(parse("prompt 'Hi'   # a greeting\\nzero  L9H[ 1,6 ]"))
prompt "Hi"
zero L9H[1,6]
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from ..positions import select as s
from ..problems import Problem, SpecError
from . import ast

INDENT = "    "
FORMS: dict[str, str] = {
    "hookspec": "hookspec {version}",
    "model": "model {name:text}",
    "prompt": "prompt [{name} = ]{value}",
    "mark": "mark {name} = {pos}[ in {prompt}]",
    "answer": "answer {value}[ vs {against}]",
    "sae": "sae {name} = {source} at {site}[ to {to}]",
    "let": "let {name} = {value}",
    "group": "group {name} = {target}",
    "sweep": "sweep {name} in {values}",
    "seed": "seed {value}",
    "metric": "metric [{name} = ]{value}",
    "expect": "expect {left} {op} {right}",
    "save": "save {target}[ as {name}]",
    "zero": "zero {target}",
    "ablate": "ablate {target}[ with {method}][ over {over}]",
    "patch": "patch {target} from {source}",
    "freeze": "freeze {target}[ to {to}]",
    "steer": "steer {target} by {amount}",
    "scale": "scale {target} by {amount}",
    "set": "set {target} to {amount}",
    "clamp": "clamp {target}",
    "project_out": "project_out {target} along {along}",
    "noise": "noise {target}[ by {amount}]",
    "cut": "cut {target}",
    "attribute": "attribute {target}[ to {metric}][ with {method}][ from {source}]",
    "score": "score {target} with {method}",
    "lens": "lens[ {target}]",
    "generate": "generate {count}",
    "show": "show {view}[ {count}][ {sites:words}]",
    "run": "run [{name} ]on {on}:{body:block}",
}
_LEVEL = {"+": 1, "-": 1, "*": 2, "/": 2}
_TIGHT = 3  # numbers, calls, sites, unary minus
# Beyond what JSON escapes: what some readers take for the end of a line, and what UTF-8 cannot hold.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PART = re.compile(r"\[([^\]]*)\]|([^\[]+)")
_SLOT = re.compile(r"\{(\w+)(?::(\w+))?\}")


class Part(NamedTuple):
    """A stretch of a form: `before` and `after` around one slot, or plain words."""

    slot: str
    style: str
    before: str
    after: str


def to_text(spec: ast.Spec) -> str:
    """A spec as canonical text, without a newline at its end.

    Raises:
        SpecError: it holds a number that cannot be written: infinity, or none at all.

    >>> to_text(ast.Spec((ast.Seed(7), ast.Run(None, "b", (ast.Zero(ast.Target((ast.Site(None, 9, 6),))),)))))
    'seed 7\\nrun on b:\\n    zero L9H6'
    """
    return "\n".join(map(line, spec.body))


def line(statement: ast.Statement) -> str:
    """One statement; a run takes several lines.

    >>> line(ast.Save(ast.Target((ast.Site("z", "*"),)), "zs"))
    'save L*.z as zs'
    """
    slots = {part.slot: part.style for part in form(statement.verb) if part.slot}
    return fill(statement.verb, {name: _STYLES[style](getattr(statement, name)) for name, style in slots.items()},
                {opt.name: text(opt.value) for opt in getattr(statement, "opts", ())})


@cache
def form(verb: str) -> tuple[Part, ...]:
    """The form of a verb, taken apart at its slots."""
    parts = []
    for found in _PART.finditer(FORMS[verb]):
        at, end = 0, len(found[0])
        inside = found[1] or found[2]
        slots = list(_SLOT.finditer(inside))
        for i, slot in enumerate(slots):
            end = slots[i + 1].start() if i + 1 < len(slots) else len(inside)
            before = inside[at:slot.start()] if i == 0 else ""
            parts.append(Part(slot[1], slot[2] or "node", before, inside[slot.end():end]))
            at = end
        if not slots:
            parts.append(Part("", "", inside, ""))
    return tuple(parts)


def fill(verb: str, pieces: Mapping[str, str], opts: Mapping[str, str]) -> str:
    """A line from the text of its slots; what stands around an empty slot is left out with it.

    >>> fill("ablate", {"target": "L9H6", "method": "mean", "over": ""}, {"steps": "new"})
    'ablate L9H6 with mean steps=new'
    """
    filled = "".join(part.before + pieces.get(part.slot, "") + part.after
                     for part in form(verb) if not part.slot or pieces.get(part.slot))
    return filled + "".join(f" {name}={value}" for name, value in opts.items())


def text(node: Any) -> str:
    """Any node but a statement; nothing for None.

    >>> text(ast.Binary("*", ast.Num(2), ast.Binary("+", ast.Py("a"), ast.Neg(ast.Name("b")))))
    '2 * ({a} + -b)'
    """
    return _TEXTS[type(node)](node)


def quote(value: str) -> str:
    """Text between quotes, on one line.

    >>> print(quote('say "hé"'))
    "say \\"hé\\""
    """
    return _ESCAPED.sub(lambda m: f"\\u{ord(m[0]):04x}", json.dumps(value, ensure_ascii=False))


def position(selector: s.Selector, *, after_at: bool = True) -> str:
    """A selector as it stands in a line: in brackets where it would not hold together there.

    >>> position(s.SetOp("-", s.All(), s.Role("image")))
    '(all - image)'
    """
    written = str(selector)
    apart = isinstance(selector, s.SetOp) or (after_at and re.match(r"each\b", written))
    return f"({written})" if apart else written


def index(value: ast.Index) -> str:
    """What stands behind L, H, N or F.

    >>> index((7, "0:3", "$l"))
    '[7,0:3,l]'
    """
    if isinstance(value, tuple):
        return f"[{','.join(str(item).removeprefix('$') for item in value)}]"
    return str(value)


def _number(node: ast.Num) -> str:
    if not math.isfinite(node.value):
        raise SpecError([Problem("value", f"{node.value} cannot be written as a number of a spec")])
    return repr(node.value)


def _list(node: ast.List) -> str:
    return f"[{', '.join(map(text, node.items))}]"


def _call(node: ast.Call) -> str:
    return f"{node.name}({', '.join([*map(text, node.args), *map(text, node.named)])}){_at(node)}"


def _binary(node: ast.Binary) -> str:
    level = _LEVEL[node.op]
    left, right = _TEXTS[type(node.left)](node.left), _TEXTS[type(node.right)](node.right)
    left = f"({left})" if _level(node.left) < level else left
    right = f"({right})" if _level(node.right) <= level else right
    return f"{left} {node.op} {right}"


def _neg(node: ast.Neg) -> str:
    inside = _TEXTS[type(node.of)](node.of)
    return f"-({inside})" if _level(node.of) < _TIGHT else f"-{inside}"


def _level(node: Any) -> int:
    return _LEVEL[node.op] if type(node) is ast.Binary else _TIGHT


def _at(node: Any) -> str:
    return "" if node.at is None else f" {text(node.at)}"


def _at_each(node: ast.AtEach) -> str:
    if node.pos is None:
        return "@each"
    return f"@each {node.pos}" if isinstance(node.pos, s.Several) else f"@each({node.pos})"


def _site(node: ast.Site) -> str:
    units = (("L", node.layer), ("H", node.head), ("N", node.neuron))
    where = "".join(letter + index(value) for letter, value in units if value is not None)
    path = ".".join(filter(None, (node.run, where, node.comp)))
    apart = " " if node.comp in ("L", "H", "N", "F") else ""  # L[3] would be a layer
    return path + ("" if node.dims is None else f"{apart}[{index(node.dims).strip('[]')}]") + _at(node)


def _feature(node: ast.Feature) -> str:
    return ".".join(filter(None, (node.run, node.sae, f"F{index(node.feature)}"))) + _at(node)


def _target(node: ast.Target) -> str:
    excluding = f" except {', '.join(map(text, node.excluding))}" if node.excluding else ""
    to = "" if node.to is None else f" -> {text(node.to)}"
    return f"{'each ' if node.each else ''}{', '.join(map(text, node.sites))}{excluding}{to}"


_TEXTS: dict[type, Callable[[Any], str]] = {
    type(None): lambda x: "",
    str: lambda x: x,
    int: str,
    ast.Num: _number,
    ast.Str: lambda x: quote(x.value),
    ast.Word: lambda x: x.id,
    ast.Py: lambda x: f"{{{x.source}}}",
    ast.Name: lambda x: x.id,
    ast.Attr: lambda x: f"{x.run}.{x.name}",
    ast.List: _list,
    ast.Call: _call,
    ast.Binary: _binary,
    ast.Neg: _neg,
    ast.EachValue: lambda x: f"each {text(x.values)}",
    ast.Range: lambda x: x.text,
    ast.Opt: lambda x: f"{x.name}={text(x.value)}",
    ast.At: lambda x: f"@{position(x.pos)}",
    ast.AtEach: _at_each,
    ast.Site: _site,
    ast.Feature: _feature,
    ast.Ref: lambda x: x.group + _at(x),
    ast.PySite: lambda x: f"{{{x.source}}}{_at(x)}",
    ast.Target: _target,
}
_STYLES: dict[str, Callable[[Any], str]] = {
    "node": lambda x: position(x, after_at=False) if isinstance(x, s.Selector) else text(x),
    "text": quote,
    "words": lambda x: " ".join(map(text, x)),
    "block": lambda x: "".join(f"\n{INDENT}{line(inner)}" for inner in x),
}
