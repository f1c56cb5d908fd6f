"""Specs from Python: every verb is a method, and sites, positions and arithmetic stay the text that they are in a cell.

A method fills the form of its verb (`printer.FORMS`) and the line is read by the language's own parser, so whatever
can be written in a cell can be built, and nothing else. What a cell says with a preposition is a keyword here:

    by, to, along, over          as in the language
    method=                      with        source=     from
    name=                        as, or the name before =
    vs=                          vs          at=, prompt=    at, in

A builder never changes: each method returns a new one.

>>> ioi = (spec().prompt(clean="When John and Mary …", corrupt="When Mary and John …").answer(" Mary", vs=" John")
...        .metric("logit_diff").run("corrupt", spec().patch("each L*.resid @each", source="clean")).show("grid"))
>>> print(spec().steer("L6.resid", by=4 * 2.5, steps="new").steer("L6.resid", by="4 * {vec}"))
steer L6.resid_post by 10.0 steps=new
steer L6.resid_post by 4 * {vec}
>>> ioi.build().body[-1]
Show(view='grid', count=None, sites=(), opts=())
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..problems import SpecError
from . import ast, printer
from .parser import parse, read
from .verbs import VERBS
from .wording import amount, fail, listed, number, option, places, position, quoted, ranged, whole


def spec() -> Builder:
    """A builder with no line yet."""
    return Builder()


def py(source: str) -> ast.Py:
    """Python, evaluated in the notebook when the spec runs: `{source}` in a cell."""
    return ast.Py(source.strip())


def text(value: str) -> ast.Str:
    """Quoted text where a plain string would be read as arithmetic: `patch(…, source=text("file.safetensors"))`."""
    return ast.Str(value)


def expr(source: str) -> Any:
    """A value as written in a cell, where a plain string would be quoted: `prompt(rep=expr("repeat_random(20)"))`.

    Raises:
        SpecError: it cannot be read.

    >>> expr("repeat_random(20)")
    Call(name='repeat_random', args=(Num(value=20),), named=(), at=None)
    """
    whole("expr", source)
    line = printer.fill("patch", {"target": "embed", "source": source}, {})
    found, problems = read(line)
    if problems or len(found) != 1 or not isinstance(found[0], ast.Patch) or found[0].opts:
        fail("expr", problems[0].message if problems else f"{source!r} is no value")
    return found[0].source


def each(values: list[Any] | ast.Py) -> ast.EachValue:
    """One value at a time, an axis of the result: `scale("L9H6", by=each([0, 0.5, 1]))`."""
    return ast.EachValue(values if isinstance(values, ast.Py) else listed("each", values))


@dataclass(frozen=True, repr=False)
class Builder:
    """Lines of a spec; `str` is their text and `build()` the spec.

    Attributes:
        statements: The lines so far.
    """

    statements: tuple[ast.Statement, ...] = ()

    def __str__(self) -> str:
        return printer.to_text(ast.Spec(self.statements))

    def __repr__(self) -> str:
        return f"<Builder of {len(self.statements)} lines>\n{self}"

    def build(self) -> ast.Spec:
        """The spec, checked.

        Raises:
            SpecError: with every problem, shown in the text of the spec.
        """
        return parse(str(self))

    # Declarations

    def hookspec(self, version: int = ast.VERSION) -> Builder:
        """Say which version of the language this is."""
        return self._line("hookspec", {"version": number("hookspec", version)})

    def model(self, name: str, **opts: Any) -> Builder:
        """Name the model that the spec is for."""
        return self._line("model", {"name": quoted("model", name)}, opts)

    def prompt(self, value: Any = None, /, **given: Any) -> Builder:
        """Declare an input: `prompt("x", name="a", image=py("img"))`, or several by name: `prompt(a="x", b="y")`."""
        return self._named("prompt", value, given, quoted)

    def mark(self, name: str, pos: Any, prompt: str | None = None) -> Builder:
        """Name positions, in every prompt or in one: `mark("subject", '"The Space Needle"')`."""
        return self._line("mark", {"name": name, "pos": position("mark", pos), "prompt": prompt})

    def answer(self, value: Any, vs: Any = None) -> Builder:
        """Say which next token is right, and which wrong."""
        return self._line("answer", {"value": quoted("answer", value), "against": quoted("answer", vs)})

    def sae(self, name: str, source: Any, at: str, to: str | None = None, **opts: Any) -> Builder:
        """Attach a dictionary of features to a site: `sae("enc", py("my_sae"), at="L8.resid_pre")`."""
        return self._line("sae", {"name": name, "source": quoted("sae", source), "site": at, "to": to}, opts)

    def let(self, name: str, value: Any) -> Builder:
        """Name a value."""
        return self._line("let", {"name": name, "value": amount("let", value)})

    def group(self, name: str, sites: Any) -> Builder:
        """Name places."""
        return self._line("group", {"name": name, "target": places("group", sites)})

    def sweep(self, name: str, values: Any) -> Builder:
        """A variable with several values: a list, `range(0, 12)`, `"0:12"` or Python."""
        return self._line("sweep", {"name": name, "values": ranged("sweep", values)})

    def seed(self, value: int) -> Builder:
        """Set the seed that all randomness derives from."""
        return self._line("seed", {"value": number("seed", value)})

    def metric(self, value: Any = None, /, **given: Any) -> Builder:
        """Measure every run: `metric("logit_diff")`, or by name: `metric(ld="logit(' b') - logit(' c')")`."""
        return self._named("metric", value, given, amount)

    def expect(self, claim: str) -> Builder:
        """Check a claim about the results: `expect("hooked.logit_diff < baseline.logit_diff")`."""
        return self._line("expect", {"left": claim})

    # Verbs

    def save(self, sites: Any, name: str | None = None, **opts: Any) -> Builder:
        """Keep activations."""
        return self._verb("save", sites, {"name": name}, opts)

    def zero(self, sites: Any, **opts: Any) -> Builder:
        """Set to zero."""
        return self._verb("zero", sites, {}, opts)

    def ablate(self, sites: Any, method: str | None = None, over: Any = None, **opts: Any) -> Builder:
        """Replace by `zero`, a `mean`, or an example drawn (`resample`) from a prompt's."""
        return self._verb("ablate", sites, {"method": method, "over": amount("ablate", over)}, opts)

    def patch(self, sites: Any, source: Any, **opts: Any) -> Builder:
        """Replace by another run's value, another place's, or a given one."""
        return self._verb("patch", sites, {"source": amount("patch", source)}, opts)

    def freeze(self, sites: Any, to: str | None = None, **opts: Any) -> Builder:
        """Hold at the value of the untouched run, or of another."""
        return self._verb("freeze", sites, {"to": to}, opts)

    def steer(self, sites: Any, by: Any, **opts: Any) -> Builder:
        """Add a value."""
        return self._verb("steer", sites, {"amount": amount("steer", by)}, opts)

    def scale(self, sites: Any, by: Any, **opts: Any) -> Builder:
        """Multiply by a value."""
        return self._verb("scale", sites, {"amount": amount("scale", by)}, opts)

    def set(self, sites: Any, to: Any, **opts: Any) -> Builder:
        """Replace by a value."""
        return self._verb("set", sites, {"amount": amount("set", to)}, opts)

    def clamp(self, sites: Any, **opts: Any) -> Builder:
        """Keep between two bounds: `clamp("L8N[12,13]", min=0, max=5)`."""
        return self._verb("clamp", sites, {}, opts)

    def project_out(self, sites: Any, along: Any, **opts: Any) -> Builder:
        """Remove the component along a direction."""
        return self._verb("project_out", sites, {"along": amount("project_out", along)}, opts)

    def noise(self, sites: Any, by: Any = None, **opts: Any) -> Builder:
        """Add Gaussian noise of a standard deviation."""
        return self._verb("noise", sites, {"amount": amount("noise", by)}, opts)

    def cut(self, sites: Any, **opts: Any) -> Builder:
        """Remove attention edges: `cut("L5:9 @subject -> @last", renorm=False)`."""
        return self._verb("cut", sites, {}, opts)

    def attribute(self, sites: Any, to: str | None = None, method: str | None = None, source: str | None = None,
                  **opts: Any) -> Builder:
        """Say how much each place contributes to a metric."""
        return self._verb("attribute", sites, {"metric": to, "method": method, "source": source}, opts)

    def score(self, sites: Any, method: Any, **opts: Any) -> Builder:
        """Rate attention heads by where they look."""
        return self._verb("score", sites, {"method": amount("score", method)}, opts)

    def lens(self, sites: Any = None, **opts: Any) -> Builder:
        """Read the stream through the unembedding."""
        return self._verb("lens", sites, {}, opts)

    def generate(self, count: int, **opts: Any) -> Builder:
        """Write on, token by token."""
        return self._line("generate", {"count": number("generate", count)}, opts)

    def show(self, view: str, *what: Any, **opts: Any) -> Builder:
        """Draw a view: `show("top", 5)`, `show("attention", "L5H1", "L5H2")`."""
        count = " ".join(str(item) for item in what if type(item) is int)
        sites = " ".join(str(places("show", item)) for item in what if type(item) is not int)
        return self._line("show", {"view": view, "count": count or None, "sites": sites or None}, opts)

    def run(self, on: str, body: Builder, name: str | None = None) -> Builder:
        """Run the lines of another builder on a prompt, or on top of another run."""
        if not isinstance(body, Builder) or not body.statements:
            fail("run", "the lines of a run are a builder: run(\"corrupt\", spec().zero(\"L9H9\"))")
        lines = "".join(f"\n{printer.INDENT}{printer.line(statement)}" for statement in body.statements)
        return self._line("run", {"name": name, "on": on, "body": lines})

    # How a line is made

    def _named(self, verb: str, value: Any, given: dict[str, Any], convert: Any) -> Builder:
        if value is not None:
            name = given.pop("name", None)
            return self._line(verb, {"name": name, "value": convert(verb, value)}, given)
        made = self
        for name, item in given.items():
            made = made._line(verb, {"name": name, "value": convert(verb, item)})
        return made if given else fail(verb, "there is nothing to declare")

    def _verb(self, verb: str, sites: Any, pieces: dict[str, str | None], opts: dict[str, Any]) -> Builder:
        return self._line(verb, {"target": places(verb, sites), **pieces}, opts)

    def _line(self, verb: str, pieces: dict[str, Any], opts: dict[str, Any] | None = None) -> Builder:
        """The builder with one more line, read from its text."""
        given = {name: piece for name, piece in pieces.items() if piece is not None}
        for name, piece in given.items():
            whole(verb, piece, name)
        known = {option.name: option for option in VERBS[verb].options}
        written = {name: option(verb, value, known.get(name)) for name, value in (opts or {}).items() if value is not None}
        line = printer.fill(verb, given, written)
        found, problems = read(line)
        if problems:
            first = problems[0]
            raise SpecError([replace(first, message=f"{verb}(): {first.message}")], line)
        if len(found) != 1 or found[0].verb != verb or written.keys() - {opt.name for opt in getattr(found[0], "opts", ())}:
            fail(verb, f"its pieces do not make one line: {line!r}")
        return Builder((*self.statements, found[0]))
