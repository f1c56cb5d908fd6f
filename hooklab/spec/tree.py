"""Parse tree to `Spec`: one method for each rule of the grammar."""

from __future__ import annotations

from typing import Any

from lark import Token, Tree, v_args

from . import ast
from .tree_places import ALIASES, MODEL_SITES, Path, Places, TreeError, integer, span, unquote, where_of


def _binary(op: str) -> Any:
    def make(self: ToSpec, meta: Any, children: list[Any]) -> ast.Binary:
        return ast.Binary(op, self.value(children[0]), self.value(children[1]), span=span(meta))

    return make


def _valued(kind: Any) -> Any:
    def make(self: ToSpec, meta: Any, children: list[Any]) -> Any:
        target, amount, opts = children
        return kind(target, self.value(amount), opts, span=span(meta))

    return make


def _plain(kind: Any) -> Any:
    def make(self: ToSpec, meta: Any, children: list[Any]) -> Any:
        return kind(*children, span=span(meta))

    return make


@v_args(meta=True)
class ToSpec(Places):
    """Bottom-up, from words to lines."""

    def start(self, meta: Any, children: list[Any]) -> tuple[ast.Statement, ...]:
        return tuple(children)

    # Values

    def number(self, meta: Any, children: list[Token]) -> ast.Num:
        text = children[0]
        return ast.Num(integer(text) if text.lstrip("-").isdigit() else self._float(text), span=span(meta))

    negative = number

    @staticmethod
    def _float(token: Token) -> float:
        value = float(token)
        if value in (float("inf"), float("-inf")):
            raise TreeError("this number is too large", "the largest is about 1e308", token)
        return value

    def string(self, meta: Any, children: list[Token]) -> ast.Str:
        return ast.Str("".join(unquote(part) for part in children), span=span(meta))

    def py(self, meta: Any, children: list[Token]) -> ast.Py:
        return ast.Py(self._hole(children[0]), span=span(meta))

    def word(self, meta: Any, children: list[Token]) -> ast.Word:
        return ast.Word(str(children[0]), span=span(meta))

    def name(self, meta: Any, children: list[Token]) -> ast.Name:
        return ast.Name(str(children[0]), span=span(meta))

    def values(self, meta: Any, children: list[Any]) -> ast.List:
        return ast.List(tuple(self.value(child) for child in children if child is not None), span=span(meta))

    def ranged(self, meta: Any, children: list[str]) -> ast.Range:
        return ast.Range(str(children[0]), span=span(meta))

    def call(self, meta: Any, children: list[Any]) -> ast.Call:
        name, *rest = children
        at = rest.pop() if rest and (rest[-1] is None or isinstance(rest[-1], (ast.At, ast.AtEach))) else None
        rest = [child for child in rest if child is not None]
        args = tuple(self.value(child) for child in rest if not isinstance(child, ast.Opt))
        named = tuple(child for child in rest if isinstance(child, ast.Opt))
        return ast.Call(str(name), args, named, at, span=span(meta))

    def named(self, meta: Any, children: list[Any]) -> ast.Opt:
        return ast.Opt(str(children[0]), self.value(children[1]), span=span(meta))

    def opt(self, meta: Any, children: list[Any]) -> ast.Opt:
        return ast.Opt(str(children[0]), children[1], span=span(meta))

    def opts(self, meta: Any, children: list[ast.Opt]) -> ast.Opts:
        return tuple(children)

    add, sub, mul, div = map(_binary, "+-*/")

    def neg(self, meta: Any, children: list[Any]) -> ast.Neg:
        return ast.Neg(self.value(children[0]), span=span(meta))

    def each_value(self, meta: Any, children: list[Any]) -> ast.EachValue:
        return ast.EachValue(children[1], span=span(meta))

    def value(self, node: Any) -> Any:
        """A site read as a value: a bare name may be a variable, a dotted one a metric of a run."""
        if not isinstance(node, Path):
            return node
        return node.as_value()

    # Statements

    def hookspec(self, meta: Any, children: list[Any]) -> ast.Header:
        return ast.Header(integer(children[0]), span=span(meta))

    def seed(self, meta: Any, children: list[Any]) -> ast.Seed:
        return ast.Seed(integer(children[0]), span=span(meta))

    def model(self, meta: Any, children: list[Any]) -> ast.ModelName:
        return ast.ModelName(children[0].value, children[1], span=span(meta))

    def prompt(self, meta: Any, children: list[Any]) -> ast.Prompt:
        return ast.Prompt(_text(children[0]), *children[1:], span=span(meta))

    def mark(self, meta: Any, children: list[Any]) -> ast.Mark:
        return ast.Mark(str(children[0]), children[1], _text(children[2]), span=span(meta))

    def answer(self, meta: Any, children: list[Any]) -> ast.Answer:
        return ast.Answer(*children, span=span(meta))

    def sae(self, meta: Any, children: list[Any]) -> ast.Sae:
        name, source, *ends, opts = children
        sites = [None if end is None else where_of(end) for end in ends]
        for site, end in zip(sites, ends, strict=True):
            if isinstance(site, (ast.Ref, ast.Feature)):
                raise TreeError("a dictionary of features is attached to a site", "write at L8.resid_pre", end.meta)
        return ast.Sae(str(name), source, sites[0], sites[1], opts, span=span(meta))  # type: ignore[arg-type]

    def let(self, meta: Any, children: list[Any]) -> ast.Let:
        return ast.Let(str(children[0]), self.value(children[1]), span=span(meta))

    def group(self, meta: Any, children: list[Any]) -> ast.Group:
        return ast.Group(str(children[0]), children[1], span=span(meta))

    def sweep(self, meta: Any, children: list[Any]) -> ast.Sweep:
        return ast.Sweep(str(children[0]), children[1], span=span(meta))

    def metric(self, meta: Any, children: list[Any]) -> ast.Metric:
        return ast.Metric(_text(children[0]), self.value(children[1]), children[2], span=span(meta))

    def expect(self, meta: Any, children: list[Any]) -> ast.Expect:
        left, op, right = children
        return ast.Expect(self.value(left), str(op), self.value(right), span=span(meta))

    def keep(self, meta: Any, children: list[Any]) -> ast.Save:
        return ast.Save(children[0], _text(children[1]), children[2], span=span(meta))

    def ablate(self, meta: Any, children: list[Any]) -> ast.Ablate:
        return ast.Ablate(children[0], _text(children[1]), *children[2:], span=span(meta))

    def freeze(self, meta: Any, children: list[Any]) -> ast.Freeze:
        return ast.Freeze(children[0], _text(children[1]), children[2], span=span(meta))

    patch, steer, scale, put, project_out, noise = map(
        _valued, (ast.Patch, ast.Steer, ast.Scale, ast.Set, ast.ProjectOut, ast.Noise))
    zero, clamp, cut, score, lens = map(_plain, (ast.Zero, ast.Clamp, ast.Cut, ast.Score, ast.Lens))

    def attribute(self, meta: Any, children: list[Any]) -> ast.Attribute:
        target, metric, method, source, opts = children
        return ast.Attribute(target, _text(metric), _text(method), _text(source), opts, span=span(meta))

    def generate(self, meta: Any, children: list[Any]) -> ast.Generate:
        return ast.Generate(integer(children[0]), children[1], span=span(meta))

    def show(self, meta: Any, children: list[Any]) -> ast.Show:
        view, count, *rest = children
        opts = tuple(child for child in rest if isinstance(child, ast.Opt))
        sites = tuple(where_of(child) for child in rest if not isinstance(child, ast.Opt))
        return ast.Show(str(view), None if count is None else integer(count), sites, opts, span=span(meta))

    def run(self, meta: Any, children: list[Any]) -> ast.Run:
        name, on, *body = children
        return ast.Run(_text(name), str(on), tuple(body), span=span(meta))


def _text(token: Token | None) -> str | None:
    return None if token is None else str(token)


__all__ = ["ALIASES", "MODEL_SITES", "ToSpec", "Tree", "TreeError", "unquote"]
