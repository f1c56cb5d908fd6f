"""Parse tree to places: indices, sites, positions, and dotted paths that may turn out to be values."""

from __future__ import annotations

import tokenize
from io import StringIO
from typing import Any

from lark import Token, Transformer, v_args

from ..errors import HooklabError
from ..positions import build
from ..positions import parse as written
from ..positions import select as s
from ..sites import SITES
from . import ast
from .othernames import translated
from .verbs import METRICS

ALIASES = {"resid": "resid_post", "attn": "attn_out", "mlp": "mlp_out", "neurons": "mlp_post"}
POSITIONS = 'positions are written @last, @2:5, @[0, last], @" Mary" or @{python}'
MODEL_SITES = {site.name for site in SITES.values() if site.scope == "model"}


class TreeError(Exception):
    """A tree that the grammar allows and the language does not."""

    def __init__(self, message: str, hint: str, meta: Any) -> None:
        super().__init__(message)
        self.message, self.hint, self.meta = message, hint, meta


def span(meta: Any) -> ast.Span | None:
    """The span of a node of the tree, or of a token."""
    if getattr(meta, "line", None) is None:
        return None
    return ast.Span(meta.line, meta.column, meta.end_line, meta.end_column)


def unquote(token: str) -> str:
    """The text between quotes; two escapes that make one character are one."""
    return written.unquote(str(token))


def integer(token: Token) -> int:
    """A whole number of at most 18 digits."""
    if len(token) > 18:
        raise TreeError("this number is too large", "a whole number has at most 18 digits", token)
    return int(token)


def _uncommented(source: str) -> str:
    """Python without a comment at its end, which would reach over the brace after it."""
    if "#" not in source:
        return source
    lines = f"({source}".split("\n")
    try:
        comments = [t for t in tokenize.generate_tokens(StringIO("\n".join([*lines, ")"])).readline)
                    if t.type == tokenize.COMMENT]
    except (tokenize.TokenError, SyntaxError):
        return source
    for comment in reversed(comments):
        row, column = comment.start
        if any(line.strip() for line in lines[row:]):
            break
        lines[row - 1:] = [lines[row - 1][:column].rstrip()]
    return "\n".join(lines)[1:].rstrip()


class Path:
    """A dotted path that may turn out to be a site, a group, a variable or a metric of a run."""

    def __init__(self, parts: list[Any], dims: Any, at: Any, where: ast.Span | None, meta: Any) -> None:
        self.parts, self.dims, self.at, self.span, self.meta = parts, dims, at, where, meta

    @property
    def words(self) -> list[str]:
        return [str(part) for part in self.parts if isinstance(part, Token)]

    def as_value(self) -> Any:
        """What the path means in a value."""
        only_words = len(self.words) == len(self.parts) and self.dims is None and self.at is None
        if only_words and len(self.parts) == 1 and self.words[0] not in MODEL_SITES:
            return ast.Name(self.words[0], span=self.span)
        if len(self.parts) == 1 and self.words and self.words[0] in METRICS and self.at is not None and self.dims is None:
            return ast.Call(self.words[0], at=self.at, span=self.span)
        if only_words and len(self.parts) == 2 and self.words[1] not in MODEL_SITES:
            return ast.Attr(*self.words, span=self.span)
        place = self.as_place()
        if isinstance(place, ast.Ref):
            raise TreeError(f"{place.group} is no site, so it has no value at positions",
                            f"name a site, as in {place.group}.L5.resid_post @last, where {place.group} is a run",
                            self.meta)
        return place

    def as_place(self) -> Any:
        """What the path means where a place is expected."""
        if len(self.parts) == 1 and len(self.words) == 1 and self.words[0] not in MODEL_SITES and self.dims is None:
            return ast.Ref(self.words[0], self.at, span=self.span)
        fields: dict[str, Any] = {"comp": None}
        parts = list(self.parts)
        if isinstance(parts[0], Token) and len(parts) > 1 and not (
                len(parts) == 2 and isinstance(parts[1], tuple) and parts[1][0] == "feature"):
            fields["run"] = str(parts.pop(0))
        for i, part in enumerate(parts):
            self._take(part, i, parts, fields)
        if "feature" in fields:
            if fields["comp"] is None or self.dims is not None or fields.keys() & {"layer", "head", "neuron"}:
                raise TreeError("a feature is one of an attached dictionary",
                                "write enc.F12, after a line such as `sae enc = {my_sae} at L8.resid_pre`", self.meta)
            return ast.Feature(fields["comp"], fields["feature"], fields.get("run"), self.at, span=self.span)
        return ast.Site(**fields, dims=self.dims, at=self.at, span=self.span)

    def _take(self, part: Any, i: int, parts: list[Any], fields: dict[str, Any]) -> None:
        if isinstance(part, Token):
            if fields["comp"] is not None:
                at = fields.get("layer")
                meant = translated([fields["comp"], str(part)]) or part
                raise TreeError(f"a site has one part, and {fields['comp']} is one already",
                                f"one part after the layer: write L{at if isinstance(at, int | str) else 5}.{meant}", part)
            fields["comp"] = ALIASES.get(str(part), str(part))
            return
        kind, index, meta = part
        if kind == "layer":
            if i:
                raise TreeError("a layer comes first", "write L5.resid_post", meta)
            fields["layer"], unit = index
            if unit is not None:
                self._take(unit, i, parts, fields)
            return
        if kind in fields or {kind, *fields} >= {"head", "neuron"}:
            raise TreeError(f"there is a {kind} too many here", "write L9H6.q for one head, L9H[1,6].q for two", meta)
        if kind != "feature" and fields["comp"] is not None:
            raise TreeError(f"the {kind} goes before the part", f"write L5H1.{fields['comp']}", meta)
        fields[kind] = index


def where_of(node: Any) -> Any:
    return node.as_place() if isinstance(node, Path) else node


@v_args(meta=True)
class Places(Transformer[Any, Any]):
    """The rules of places; `ToSpec` has those of values and lines.

    Attributes:
        holes: The Python expressions by the offset of their brace in a text.
        offset: Where in that text the tree starts.
    """

    def __init__(self, holes: dict[int, str], offset: int = 0) -> None:
        super().__init__()
        self.holes, self.offset = holes, offset

    def _hole(self, token: Token) -> str:
        return _uncommented(self.holes[self.offset + (token.start_pos or 0)].strip())

    # Indices

    def whole(self, meta: Any, children: list[Token]) -> int:
        return integer(children[0])

    def star(self, meta: Any, children: list[Token]) -> str:
        return "*"

    def variable(self, meta: Any, children: list[Token]) -> str:
        return "$" + children[0]

    def sliced(self, meta: Any, children: list[Any]) -> str:
        whole, colons = [""], 0
        for child in children:
            if isinstance(child, Token):
                colons += 1
                whole.append("")
            elif child is not None:
                whole[-1] = str(child)
        return ":".join(whole)

    def indices(self, meta: Any, children: list[Any]) -> tuple[int | str, ...]:
        return tuple(children)

    def dims(self, meta: Any, children: list[Any]) -> tuple[int | str, ...]:
        return tuple(children)

    # Sites

    def head(self, meta: Any, children: list[Any]) -> tuple[str, Any, Any]:
        return "head", children[0], meta

    def neuron(self, meta: Any, children: list[Any]) -> tuple[str, Any, Any]:
        return "neuron", children[0], meta

    def feature(self, meta: Any, children: list[Any]) -> tuple[str, Any, Any]:
        return "feature", children[0], meta

    def layer(self, meta: Any, children: list[Any]) -> tuple[str, Any, Any]:
        return "layer", (children[0], children[1] if len(children) > 1 else None), meta

    def path(self, meta: Any, children: list[Any]) -> list[Any]:
        return children

    def site(self, meta: Any, children: list[Any]) -> Path:
        parts, dims, at = children
        return Path(parts, dims, at, span(meta), meta)

    def py_site(self, meta: Any, children: list[Any]) -> ast.PySite:
        return ast.PySite(self._hole(children[0]), children[1], span=span(meta))

    def excluding(self, meta: Any, children: list[Any]) -> tuple[Any, ...]:
        return tuple(where_of(child) for child in children)

    def target(self, meta: Any, children: list[Any]) -> ast.Target:
        each, *middle, excluding, end = children
        to = where_of(end) if isinstance(end, Path) else end
        if isinstance(to, ast.Ref):
            raise TreeError(f"a path ends at a site or at positions, not at {to.group}",
                            "write -> L9H9.q, or -> @last for attention edges", to.span)
        return ast.Target(tuple(where_of(child) for child in middle), each is not None, excluding or (), to,
                          span=span(meta))

    # Positions

    def at(self, meta: Any, children: list[s.Selector]) -> ast.At | ast.AtEach:
        pos = children[0]
        if isinstance(pos, s.Each):
            return ast.AtEach(None if pos.of == s.All() else pos.of, span=span(meta))
        return ast.At(pos, span=span(meta))

    def at_each(self, meta: Any, children: list[Any]) -> ast.AtEach:
        rest = [child for child in children if isinstance(child, s.Selector) and child != s.All()]
        return ast.AtEach(rest[0] if rest else None, span=span(meta))

    def _built(self, meta: Any, make: Any) -> s.Selector:
        try:
            return make()
        except (HooklabError, OverflowError) as error:
            message, _, meant = str(error).split("\n")[0].partition(". Did you mean ")
            hint = f"did you mean {meant}".replace('"', "") if meant else POSITIONS
            raise TreeError(message, hint, meta) from None

    def pos_index(self, meta: Any, children: list[int]) -> s.Selector:
        return s.Index(children[0])

    def pos_all(self, meta: Any, children: list[Any]) -> s.Selector:
        return s.All()

    def pos_slice(self, meta: Any, children: list[str]) -> s.Selector:
        parts = [int(part) if part else None for part in children[0].split(":")]
        return self._built(meta, lambda: s.Slice(*parts))

    def pos_name(self, meta: Any, children: list[Token]) -> s.Selector:
        return self._built(meta, lambda: written.named(str(children[0])))

    def pos_text(self, meta: Any, children: list[Token]) -> s.Selector:
        return self._built(meta, lambda: s.TokenText(unquote(children[0])))

    def pos_list(self, meta: Any, children: list[s.Selector]) -> s.Selector:
        return s.Several(tuple(children))

    def pos_py(self, meta: Any, children: list[Token]) -> s.Selector:
        return s.Hole(self._hole(children[0]))

    def pos_or(self, meta: Any, children: list[s.Selector]) -> s.Selector:
        return s.SetOp("|", *children)

    def pos_and(self, meta: Any, children: list[s.Selector]) -> s.Selector:
        return s.SetOp("&", *children)

    def pos_less(self, meta: Any, children: list[s.Selector]) -> s.Selector:
        return s.SetOp("-", *children)

    def pos_named(self, meta: Any, children: list[Any]) -> tuple[str, s.Selector]:
        return str(children[0]), children[1]

    def pos_call(self, meta: Any, children: list[Any]) -> s.Selector:
        name, *given = [child for child in children if child is not None]
        args = [child for child in given if isinstance(child, s.Selector)]
        named = dict(child for child in given if not isinstance(child, s.Selector))
        return self._built(meta, lambda: written.called(str(name), args, named))

    def pos_edge(self, meta: Any, children: list[Any]) -> s.Selector:
        return self._built(meta, lambda: written.edge(children[0], str(children[1])))

    def pos_offset(self, meta: Any, children: list[Any]) -> s.Selector:
        if children[1] != "offset":
            raise TreeError(f'no ".{children[1]}(…)" on positions', "there is .offset(2)", meta)
        return self._built(meta, lambda: build.positions(children[0]).offset(children[2]))

    def pos_pick(self, meta: Any, children: list[Any]) -> s.Selector:
        of, listed = children
        if of == s.Each():  # `each [0, 1]` within other positions, where `each` reads as a word
            return s.Each(listed)
        which = listed.items[0] if len(listed.items) == 1 else listed
        if which != s.All() and not isinstance(which, s.Index):
            raise TreeError(f"{listed} does not choose an occurrence", 'write "Mary"[1], or "Mary"[*] for all', meta)
        return self._built(meta, lambda: of[which.n if isinstance(which, s.Index) else "*"])
