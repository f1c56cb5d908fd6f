"""The forms of a spec: canonical text, JSON, its schema and the builder say the same as the text that was parsed."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hooklab.positions import select as s
from hooklab.problems import SpecError
from hooklab.spec import ast, jsonform, printer
from hooklab.spec.parser import read
from hooklab.spec.schema import schema
from hooklab.spec.tree import ALIASES, MODEL_SITES

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
VALIDATOR = jsonschema.Draft202012Validator(schema())
FILE = Path(__file__).parent.parent / "docs" / f"hookspec-{ast.VERSION}.schema.json"


# Random specs: only what the parser can produce, with names that are keywords wherever a name may be one --------------

PLAIN_NAMES = ["a", "clean", "x1", "_", "naïve", "L", "H", "F", "Lx", "main"]
NAMES = PLAIN_NAMES + ["from", "to", "with", "over", "in", "as", "at", "vs", "by", "prompt", "zero", "top", "except", "run"]
PYTHON = ["x", "f(\n    2)", 'd["}"]', "{k: {v} for k, v in z}", "lambda o: o[0, -1]", "x  # why }\n+ y", "'#'", "f'{x}'",
          '"""a}\n"""', "-é"]
names = st.sampled_from(NAMES)
plain_names = st.sampled_from(PLAIN_NAMES)
sources = st.sampled_from(PYTHON)
strings = st.text(max_size=8) | st.sampled_from(["", '"', "'", "\\", "\\n", "a\nb", "\x00\x01\x1f\x7f\x85\u2028", "é😀#"])
some_text = strings.filter(bool)
whole = st.integers(0, 10**18 - 1)
signed = st.integers(-(10**17) + 1, 10**18 - 1) | st.integers(-9, 9)
reals = st.floats(0, allow_nan=False, allow_infinity=False) | st.sampled_from([1e-07, 1e16, 5e-324, 0.1])


def nodes(make, *args, **fields):
    return st.builds(make, *args, **fields)


def maybe(strategy):
    return st.none() | strategy


@st.composite
def slices(draw):
    parts = draw(st.lists(st.sampled_from(["", "0", "5", "-1", "40"]), min_size=2, max_size=3))
    return ":".join(parts)


indices = signed | st.just("*") | slices()
index = indices | st.lists(indices | names.map("${}".format), min_size=1, max_size=3).map(tuple)
dims = st.lists(indices | names.map("${}".format), min_size=1, max_size=3).map(tuple)


@st.composite
def slice_selectors(draw):
    bounds = [draw(maybe(st.integers(-9, 9))) for _ in range(3)]
    assume(bounds[2] != 0)
    return s.Slice(*bounds)


which = maybe(st.integers(-3, 3)) | st.just("*")
simple_selectors = st.one_of(
    nodes(s.Index, signed), st.just(s.All()), slice_selectors(), st.just(s.Each()), nodes(s.Hole, sources),
    nodes(s.Ends, st.sampled_from(["first", "last"]), st.integers(1, 20)), nodes(s.Role, st.sampled_from(s.ROLE_NAMES)),
    nodes(s.Mark, names.filter(lambda n: n not in s.RESERVED)), nodes(s.TokenText, some_text, which),
    nodes(s.Span, some_text.map(re.escape) | st.sampled_from([r"\d+", '"', "[ab]"]), which.filter(lambda w: w is not None)),
    nodes(s.TurnOf, some_text, which.filter(lambda w: w is not None)),
    nodes(s.Mask, st.lists(st.lists(st.booleans(), min_size=1, max_size=3).map(tuple), min_size=1, max_size=2).map(tuple)),
)


def wider_selectors(inner):
    split = nodes(s.Split, inner, st.sampled_from(["left", "right", "drop"]))
    return st.one_of(
        nodes(s.Several, st.lists(inner, min_size=1, max_size=3).map(tuple)), nodes(s.Each, inner), split,
        nodes(s.SetOp, st.sampled_from("|&-"), inner, inner), nodes(s.Shift, inner, st.integers(-9, 9)),
        nodes(s.Edge, inner, st.sampled_from(["first", "last", "next", "prev"])),
        nodes(s.Sample, st.integers(1, 9), inner, st.integers(-9, 9)), nodes(s.Part, split, st.integers(-3, 3)))


selectors = st.recursive(simple_selectors, wider_selectors, max_leaves=5)
places = (nodes(ast.At, selectors.filter(lambda x: not isinstance(x, s.Each)))
          | nodes(ast.AtEach, maybe(selectors.filter(lambda x: x != s.All()))))
parts_of_layers = st.sampled_from(["resid_post", "z", "mlp_out", "own", "F", "embed"])


@st.composite
def sites(draw, names=names, value=False):
    """A site; as a value, not one that reads as a metric of a run."""
    fields = {"run": draw(maybe(names)), "at": draw(maybe(places)), "dims": draw(maybe(dims))}
    unit = draw(st.sampled_from([None, "head", "neuron"]))
    if unit:
        fields[unit] = draw(index)
    shape = draw(st.sampled_from(["layer", "model", "run"]))
    comp = draw(maybe(parts_of_layers))
    if shape == "layer":
        return ast.Site(comp, draw(index), **fields)
    if shape == "model" or (unit is None and value):
        fields.pop(unit, None)
        comp = draw(st.sampled_from(sorted(MODEL_SITES))) if fields["dims"] is None else draw(names)
        return ast.Site(ALIASES.get(comp, comp), **fields)
    assume(unit or comp)
    return ast.Site(comp, **fields | {"run": fields["run"] or draw(names)})


def wheres(names=names):
    return st.one_of(sites(names), nodes(ast.Feature, names, index, maybe(names), maybe(places)),
                     nodes(ast.Ref, names, maybe(places)), nodes(ast.PySite, sources, maybe(places)))


pythons = nodes(ast.Py, sources)
quoted = nodes(ast.Str, strings)
bare = st.one_of(nodes(ast.Num, whole | reals), nodes(ast.Name, names), nodes(ast.Attr, names, names), sites(value=True),
                 nodes(ast.Feature, names, index, maybe(names), maybe(places)), pythons)


def wider_values(inner):
    given = st.lists(nodes(ast.Opt, names, inner | quoted), max_size=2, unique_by=lambda o: o.name).map(tuple)
    return st.one_of(nodes(ast.Binary, st.sampled_from("+-*/"), inner, inner), nodes(ast.Neg, inner),
                     nodes(ast.Call, names, st.lists(inner | quoted, max_size=2).map(tuple), given, maybe(places)))


values = st.recursive(bare, wider_values, max_leaves=6)
calls = nodes(ast.Call, names, st.lists(values | quoted, max_size=2).map(tuple), st.just(()), maybe(places))
lists = nodes(ast.List, st.lists(values | quoted, max_size=3).map(tuple))
ranges = nodes(ast.Range, slices())
amounts = values | nodes(ast.EachValue, lists | pythons)
plain_values = st.one_of(nodes(ast.Num, signed | reals | reals.map(lambda x: -x)), quoted, nodes(ast.Word, names), pythons,
                         lists, ranges)
opts = st.lists(nodes(ast.Opt, st.sampled_from(["window", "steps", "top", "seed", "prompt", "x", "L"]), plain_values),
                max_size=2, unique_by=lambda o: o.name).map(tuple)
targets = nodes(ast.Target, st.lists(wheres(), min_size=1, max_size=3).map(tuple), st.booleans(),
                st.lists(wheres(), max_size=2).map(tuple), maybe(sites() | nodes(ast.Feature, names, index) | places))
inputs = st.one_of(quoted, lists, pythons, calls)
STATEMENTS = {
    "hookspec": nodes(ast.Header, whole), "model": nodes(ast.ModelName, strings, opts),
    "prompt": nodes(ast.Prompt, maybe(names), inputs, opts), "mark": nodes(ast.Mark, names, selectors, maybe(names)),
    "answer": nodes(ast.Answer, inputs, maybe(inputs)), "sae": nodes(ast.Sae, names, pythons | quoted, sites()),
    "let": nodes(ast.Let, names, values), "group": nodes(ast.Group, names, targets),
    "sweep": nodes(ast.Sweep, names, st.one_of(lists, ranges, pythons)), "seed": nodes(ast.Seed, whole),
    "metric": nodes(ast.Metric, maybe(names), values, opts),
    "expect": nodes(ast.Expect, values, st.sampled_from(["<", "<=", ">", ">=", "==", "!=", "~="]), values),
    "save": nodes(ast.Save, targets, maybe(names), opts), "zero": nodes(ast.Zero, targets, opts),
    "ablate": nodes(ast.Ablate, targets, maybe(names), maybe(nodes(ast.Name, names) | pythons), opts),
    "patch": nodes(ast.Patch, targets, values | quoted, opts), "freeze": nodes(ast.Freeze, targets, maybe(names), opts),
    "steer": nodes(ast.Steer, targets, amounts, opts), "scale": nodes(ast.Scale, targets, amounts, opts),
    "set": nodes(ast.Set, targets, amounts, opts), "clamp": nodes(ast.Clamp, targets, opts),
    "project_out": nodes(ast.ProjectOut, targets, values, opts), "noise": nodes(ast.Noise, targets, maybe(amounts), opts),
    "cut": nodes(ast.Cut, targets, opts),
    "attribute": nodes(ast.Attribute, targets, maybe(names), maybe(names), maybe(names), opts),
    "score": nodes(ast.Score, targets, nodes(ast.Word, names) | pythons, opts),
    "lens": nodes(ast.Lens, maybe(targets | places), opts), "generate": nodes(ast.Generate, whole, opts),
    "show": nodes(ast.Show, names, maybe(whole), st.lists(wheres(plain_names), max_size=3).map(tuple), opts),
}
lines = st.one_of(*STATEMENTS.values())
STATEMENTS["run"] = nodes(ast.Run, maybe(names), names, st.lists(lines, min_size=1, max_size=3).map(tuple))


def specs_of(statements, size=4):
    return st.lists(statements, max_size=size).map(lambda body: ast.Spec(tuple(body)))


specs = specs_of(lines | STATEMENTS["run"])
many = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
few = settings(many, max_examples=12)


def from_json_unchecked(data):
    """`from_json` without the check of names, which a random spec does not pass."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jsonform, "check", lambda spec: [])
        return jsonform.from_json(data)


def test_random_specs_cover_every_verb():
    assert STATEMENTS.keys() == ast.STATEMENTS.keys() == printer.FORMS.keys()


@pytest.mark.parametrize("verb", STATEMENTS)
def test_every_statement_survives_text_and_json(verb):
    @few
    @given(specs_of(STATEMENTS[verb], 1))
    def check(spec):
        written = printer.to_text(spec)
        assert read(written) == (spec.body, [])
        data = jsonform.to_json(spec)
        VALIDATOR.validate(data)
        assert from_json_unchecked(json.dumps(data)) == spec

    check()


@many
@given(specs)
def test_text_is_a_fixed_point(spec):
    written = printer.to_text(spec)
    found, problems = read(written)
    assert (found, problems) == (spec.body, [])
    assert printer.to_text(ast.Spec(found)) == written


@settings(many, max_examples=200)
@given(selectors)
def test_every_selector_survives(selector):
    for written in (f"mark m = {printer.position(selector, after_at=False)}", f"mark m = ({selector})"):
        assert read(written) == ((ast.Mark("m", selector),), [])


@settings(many, max_examples=200)
@given(values)
def test_every_value_survives(value):
    assert read(f"let v = {printer.text(value)}") == ((ast.Let("v", value),), [])


A, B, C = ast.Name("a"), ast.Name("b"), ast.Name("c")


@pytest.mark.parametrize(("node", "written"), [
    (ast.Binary("-", ast.Binary("-", A, B), C), "a - b - c"),
    (ast.Binary("-", A, ast.Binary("-", B, C)), "a - (b - c)"),
    (ast.Binary("+", A, ast.Binary("+", B, C)), "a + (b + c)"),
    (ast.Binary("+", A, ast.Binary("*", B, C)), "a + b * c"),
    (ast.Binary("*", ast.Binary("+", A, B), C), "(a + b) * c"),
    (ast.Binary("/", A, ast.Binary("*", B, C)), "a / (b * c)"),
    (ast.Binary("*", ast.Neg(A), ast.Neg(B)), "-a * -b"),
    (ast.Neg(ast.Binary("*", A, B)), "-(a * b)"),
    (ast.Neg(ast.Neg(ast.Num(1e-07))), "--1e-07"),
    (ast.Binary("-", A, ast.Num(-2)), "a - -2"),
    (ast.Binary("*", ast.Site(None, "*", at=ast.At(s.Slice(1))), ast.Num(2)), "L* @1: * 2"),
    (ast.Str('a"b\\c\n\x01é\x7f\ud800'), r'"a\"b\\c\n\u0001é\u007f\ud800"'),
    (ast.Site("z", "0:6", (0, "2:", "$l"), dims=(3, -7), run="r", at=ast.AtEach()), "r.L0:6H[0,2:,l].z[3,-7] @each"),
    (ast.Site("F", run="x", dims=(3,)), "x.F [3]"),
    (ast.Feature("enc", "*", "r", ast.AtEach(s.Several((s.Index(0), s.Ends("last"))))), "r.enc.F* @each [0, last]"),
    (ast.At(s.All() - s.Role("image")), "@(all - image)"),
    (ast.At(s.Each().first), "@(each.first)"),
    (ast.AtEach(s.Slice(0, 2)), "@each(0:2)"),
    (ast.Target((ast.Ref("movers"), ast.PySite("h")), True, (ast.Site(None, 3),), ast.At(s.Ends("last"))),
     "each movers, {h} except L3 -> @last"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_nodes_print_as(node, written):
    assert printer.text(node) == written


def test_a_run_is_a_block_and_python_keeps_its_lines():
    body = (ast.Set(ast.Target((ast.Site(None, 1),)), ast.Py("f(\n  2)")), ast.Zero(ast.Target((ast.Ref("x"),))))
    written = printer.to_text(ast.Spec((ast.Run("b", "a", body), ast.Seed(1))))
    assert written == "run b on a:\n    set L1 to {f(\n  2)}\n    zero x\nseed 1"
    assert read(written) == ((ast.Run("b", "a", body), ast.Seed(1)), [])


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_number_that_has_no_text_is_refused(value):
    with pytest.raises(SpecError, match="cannot be written"):
        printer.to_text(ast.Spec((ast.Let("x", ast.Num(value)),)))


@pytest.mark.parametrize(("written", "canonical"), [
    ("save L5 @{x  # why\n}", "save L5 @{x}"),
    ("save L5 @each(*)", "save L5 @each"),
    ("save L5 @(each [0, 1])", "save L5 @each [0, 1]"),
    ("save L5 @[ each [0,1] , 3.next ]", "save L5 @[each [0, 1], 3.next]"),
    ("save L5.resid, L5.attn, L5.mlp, L5.neurons", "save L5.resid_post, L5.attn_out, L5.mlp_out, L5.mlp_post"),
    (r'prompt "\ud83d\ude00" "b"', 'prompt "😀b"'),
    ("let v = f(a=1, 2)", "let v = f(2, a=1)"),
    ("let v = ((a) + (b * c))", "let v = a + b * c"),
    ("let v = 007 + 1E3", "let v = 7 + 1000.0"),
    ("run on b: zero L3.H4.q # one", "run on b:\n    zero L3H4.q"),
    ("\n\n# nothing", ""),
])
def test_other_spellings_become_canonical(written, canonical):
    found, problems = read(written)
    assert not problems
    assert printer.to_text(ast.Spec(found)) == canonical
    assert read(canonical) == (found, [])


@pytest.mark.parametrize("written", ["let v = a @last", "save L5.F3", "save L5.enc.F3", "save enc.F3[2]",
                                     "sae e = {x} at enc", 'save L5 @"a"[1:2]', 'save L5 @span("a{99999999999}")'])
def test_what_has_no_meaning_is_refused_by_the_parser(written):
    assert read(written)[1]


# JSON ---------------------------------------------------------------------------------------------------------------


def test_json_has_the_published_form():
    written = "patch each L*.mlp @each from baseline window=10"
    (patch,), _ = read(written)
    assert jsonform.to_json(ast.Spec((patch,))) == {"hookspec": 1, "body": [{
        "kind": "patch",
        "target": {"kind": "target", "sites": [{"kind": "site", "comp": "mlp_out", "layer": "*", "at": {"kind": "at_each"}}],
                   "each": True},
        "source": {"kind": "name", "id": "baseline"},
        "opts": {"window": {"kind": "num", "value": 10}}}]}


def body(**fields):
    return {"hookspec": 1, "body": [fields]}


def zero(**site):
    return body(kind="zero", target={"kind": "target", "sites": [{"kind": "site", **site}]})


BAD = {
    "a number of many digits": (body(kind="seed", value=10**5000), "body[0].value"),
    "an index of many digits": (zero(layer=10**5000), "body[0].target.sites[0].layer"),
    "a field that is no text": ({"hookspec": 1, "body": [{"kind": "seed", 10**5000: 1}]}, "many digits"),
    "a list": ([], "object"),
    "no version": ({"body": []}, "hookspec"),
    "a version that is text": ({"hookspec": "1", "body": []}, "hookspec"),
    "a version that is true": ({"hookspec": True, "body": []}, "hookspec"),
    "a version of zero": ({"hookspec": 0, "body": []}, "hookspec"),
    "no body": ({"hookspec": 1}, "body"),
    "something besides": ({"hookspec": 1, "body": [], "x": 1}, "'x'"),
    "no JSON": ("{", "no JSON"),
    "a key twice": ('{"hookspec": 1, "hookspec": 1, "body": []}', "twice"),
    "infinity": ('{"hookspec": 1, "body": [{"kind": "let", "name": "a", "value": {"kind": "num", "value": Infinity}}]}',
                 "body[0].value.value"),
    "a statement that is text": ({"hookspec": 1, "body": ["zero L1"]}, "body[0]"),
    "an unknown verb": (body(kind="zeroo"), 'body[0].kind: \'zeroo\''),
    "a kind that is a list": (body(kind=[]), "body[0].kind"),
    "a node that is no statement": (body(kind="num", value=1), "body[0].kind"),
    "an unknown field": (zero(comp="z", layers=1), "body[0].target.sites[0].layers"),
    "a missing field": (body(kind="zero"), "body[0].target"),
    "a null": (zero(comp=None, layer=1), "body[0].target.sites[0].comp"),
    "a layer that is a fraction": (zero(layer=1.5), "body[0].target.sites[0].layer"),
    "a layer that is true": (zero(layer=True), "body[0].target.sites[0].layer"),
    "a layer that is no slice": (zero(layer="1-3"), "body[0].target.sites[0].layer"),
    "an index within a list": (zero(layer=[1, "x"]), "body[0].target.sites[0].layer[1]"),
    "a part that is no name": (zero(comp="z\nzero L1", layer=1), "body[0].target.sites[0].comp"),
    "a name with a newline": (body(kind="seed", value=1, name="x\n"), "body[0].name"),
    "a position that cannot be read": (zero(layer=1, at={"kind": "at", "pos": "a)\nzero (b"}),
                                       "body[0].target.sites[0].at.pos"),
    "each that is a number": (body(kind="zero", target={"kind": "target", "sites": [], "each": 1}), "body[0].target.each"),
    "no sites": (body(kind="zero", target={"kind": "target", "sites": []}), "body[0]"),
    "options in a list": (body(kind="generate", count=1, opts=[]), "body[0].opts"),
    "an option that is bare": (body(kind="generate", count=1, opts={"seed": 1}), "body[0].opts.seed"),
    "an option with a wrong name": (body(kind="generate", count=1, opts={"a b": {"kind": "num", "value": 1}}), "'a b'"),
    "a range that is none": (body(kind="sweep", name="l", values={"kind": "range", "text": "a"}), "body[0].values.text"),
    "an operator that is none": (body(kind="expect", left={"kind": "name", "id": "a"}, op="=", right={
        "kind": "name", "id": "a"}), "body[0].op"),
    "a run within a run": (body(kind="run", on="a", body=[{"kind": "run", "on": "a", "body": []}]), "body[0].body[0].kind"),
    "an empty run": (body(kind="run", on="a", body=[]), "body[0]"),
    "Python that closes its brace": (body(kind="let", name="v", value={"kind": "py", "source": "x}\nzero a #{"}), "body[0]"),
    "Python that is none": (body(kind="let", name="v", value={"kind": "py", "source": "x +"}), "body[0]"),
    "a name that reads as a layer": (body(kind="let", name="v", value={"kind": "name", "id": "L9"}), "body[0].value"),
    "a list within arithmetic": (body(kind="let", name="v", value={"kind": "neg", "of": {"kind": "list", "items": []}}),
                                 "body[0]"),
    "an error in a run": (body(kind="run", on="a", body=[{"kind": "let", "name": "v", "value": {
        "kind": "name", "id": "L9"}}]), "body[0].body[0].value"),
}


@pytest.mark.parametrize(("data", "said"), BAD.values(), ids=BAD)
def test_json_that_is_no_spec_is_refused_with_its_path(data, said):
    with pytest.raises(SpecError) as caught:
        from_json_unchecked(data)
    assert said in str(caught.value)
    assert {problem.kind for problem in caught.value.problems} == {"value"}


@pytest.mark.parametrize("data", [{"hookspec": 2, "body": []}, '{"hookspec": 2, "news": []}', {
    "hookspec": 1, "body": [{"kind": "hookspec", "version": 2}, {"kind": "zero", "target": {
        "kind": "target", "sites": [{"kind": "ref", "group": "unknown"}]}}]}], ids=["data", "text", "as a line"])
def test_a_newer_version_is_refused(data):
    with pytest.raises(SpecError, match="version 2") as caught:
        ast.Spec.from_json(data)
    assert [problem.kind for problem in caught.value.problems] == ["version"]


def test_a_spec_longer_than_any_text_is_refused(monkeypatch):
    monkeypatch.setattr("hooklab.spec.parser.LONGEST", 100)
    data = body(kind="answer", value={"kind": "str", "value": "x" * 50})
    with pytest.raises(SpecError, match="body: .*longest"):
        ast.Spec.from_json(data | {"body": data["body"] * 3})


def test_every_bad_statement_is_named():
    with pytest.raises(SpecError) as caught:
        ast.Spec.from_json({"hookspec": 1, "body": [{"kind": "a"}, {"kind": "seed", "value": 1}, {"kind": "b"}]})
    assert [problem.message.split(":")[0] for problem in caught.value.problems] == ["body[0].kind", "body[2].kind"]


@pytest.mark.parametrize(("data", "written"), [
    (zero(comp="resid", layer=5, dims=3), "zero L5.resid_post[3]"),
    (zero(layer=5, at={"kind": "at", "pos": "@ 3 . first"}), "zero L5 @3.first"),
    (zero(layer=5, at={"kind": "at_each", "pos": "all"}), "zero L5 @each"),
    (body(kind="let", name="v", value={"kind": "num", "value": -2}), "let v = -2"),
    (body(kind="let", name="v", value={"kind": "py", "source": " x "}), "let v = {x}"),
])
def test_json_by_hand_is_read_as_its_canonical_form(data, written):
    assert from_json_unchecked(data).body == read(written)[0]


def test_json_that_can_be_read_is_checked_like_text():
    with pytest.raises(SpecError) as caught:
        ast.Spec.from_json(body(kind="steer", target={"kind": "target", "sites": [
            {"kind": "site", "comp": "resid_post", "layer": 6}]}, amount={"kind": "name", "id": "love"}))
    assert 'body[0]: "love" is no value' in str(caught.value) and "^" not in str(caught.value)


def test_a_mistake_in_what_json_means_is_named_with_its_path():
    run = {"kind": "run", "on": "main", "body": [{"kind": "lens"}, {"kind": "show", "view": "gird"}]}
    prompt = {"kind": "prompt", "value": {"kind": "py", "source": "f(\n  1)"}}
    with pytest.raises(SpecError) as caught:
        ast.Spec.from_json({"hookspec": 1, "body": [prompt, run, {"kind": "generate", "count": 0}]})
    assert [(problem.message, problem.line) for problem in caught.value.problems] == [
        ('body[1].body[1]: there is no view "gird"', 0), ("body[2]: generate writes at least 1 token", 0)]


def test_depth_is_refused_and_not_fatal():
    value = {"kind": "name", "id": "a"}
    for _ in range(5000):
        value = {"kind": "neg", "of": value}
    nested = body(kind="let", name="v", value=value)
    for data in (nested, "[" * 100_000, '{"hookspec": 1, "body": ' + "[" * 100_000):
        with pytest.raises(SpecError):
            ast.Spec.from_json(data)
    circle: dict = {"kind": "neg"}
    circle["of"] = circle
    with pytest.raises(SpecError, match="deeply"):
        ast.Spec.from_json(body(kind="let", name="v", value=circle))


def test_an_option_given_twice_has_no_json():
    twice = (ast.Opt("top", ast.Num(1)), ast.Opt("top", ast.Num(2)))
    with pytest.raises(SpecError, match="twice"):
        jsonform.to_json(ast.Spec((ast.Lens(opts=twice),)))


junk = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
                    | st.sampled_from(["num", "site", "at", "*", "0:1", "each", "x", "L9", "@", "neg"]),
                    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(
                        ["kind", "value", "of", "layer", "pos", "id", "at"]), inner, max_size=3), max_leaves=4)


def paths(data, prefix=()):
    yield prefix
    for key, value in (data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()):
        yield from paths(value, (*prefix, key))


@settings(many, max_examples=200)
@given(specs_of(lines, 2), st.data())
def test_broken_json_raises_nothing_but_its_error(spec, data):
    broken = jsonform.to_json(spec)
    for _ in range(data.draw(st.integers(1, 2))):
        *way, last = data.draw(st.sampled_from(list(paths(broken))[1:]))
        parent = broken
        for key in way:
            parent = parent[key]
        if data.draw(st.booleans()):
            parent[last] = data.draw(junk)
        else:
            del parent[last]
        if not broken:
            break
    try:
        found = from_json_unchecked(broken)
    except SpecError as error:
        assert error.problems
    else:
        assert read(printer.to_text(found)) == (found.body, [])
        VALIDATOR.validate(broken)


@few
@given(junk | st.dictionaries(st.sampled_from(["hookspec", "body"]), junk | st.just(1)) | st.binary())
def test_junk_raises_nothing_but_its_error(data):
    assume(data != {"hookspec": 1, "body": []})
    with pytest.raises(SpecError):
        ast.Spec.from_json(data)


# The schema ---------------------------------------------------------------------------------------------------------


def test_the_published_schema_is_current():
    assert json.loads(FILE.read_text(encoding="utf-8")) == schema(), "python -m hooklab.spec.schema > docs/…"
    jsonschema.Draft202012Validator.check_schema(schema())


# What no schema of this kind can say: that a line reads as something else, or repeats a key.
BEYOND = {"a list within arithmetic", "a name that reads as a layer", "no JSON", "a key twice", "infinity", "an empty run",
          "no sites", "Python that is none", "Python that closes its brace", "a position that cannot be read",
          "an error in a run", "a number of many digits", "an index of many digits", "a field that is no text"}


@pytest.mark.parametrize("name", sorted(BAD.keys() - BEYOND))
def test_json_that_is_no_spec_does_not_validate(name):
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(BAD[name][0])
