"""Text to `Spec`: what every form means, where it stood, how large a text may be."""

from __future__ import annotations

import inspect
import re
import sys
import threading
from importlib.resources import files
from pathlib import Path

import pytest
from lark import Lark

from hooklab.positions import positions
from hooklab.problems import SpecError
from hooklab.spec import ast
from hooklab.spec.layout import lay_out
from hooklab.spec.parser import Blocks, parse, read
from hooklab.spec.scan import scan

CELLS = Path(__file__).parent / "cells"


def cells(name: str) -> list[tuple[str, str]]:
    text = (CELLS / name).read_text(encoding="utf-8")
    return [tuple(cell.split("\n", 1)) for cell in re.split(r"^=== ", text, flags=re.M)[1:]]


VALID = cells("valid.txt")


def one(line: str) -> ast.Statement:
    statements, problems = read(line)
    assert problems == []
    return statements[0]


def test_there_are_59_valid_cells():
    assert len(VALID) == 59


@pytest.mark.parametrize("text", [text for _, text in VALID], ids=[name for name, _ in VALID])
def test_valid_cell_is_read(text):
    spec = parse(text)
    runs = [s for s in spec.body if isinstance(s, ast.Run)]
    lines = [line for line in re.sub(r"\[\n.*?\n\]", "[]", text, flags=re.S).split("\n") if line.split("#")[0].strip()]
    one_line = sum(":" in line and line.startswith("run") and not line.rstrip().endswith(":") for line in lines)
    assert len(spec.body) + sum(len(run.body) for run in runs) == len(lines) + one_line


def test_the_grammar_has_no_conflict():
    text = files("hooklab.spec").joinpath("grammar.lark").read_text(encoding="utf-8")
    grammar = Lark(text, parser="lalr", strict=True, maybe_placeholders=True, postlex=Blocks())
    assert grammar.parse("zero L9H9\n").data == "start"


@pytest.mark.parametrize(("line", "expected"), [
    ("zero L9H6", ast.Zero(ast.Target((ast.Site(None, 9, 6),)))),
    ("zero L9 H6", ast.Zero(ast.Target((ast.Site(None, 9, 6),)))),
    ("save L*.mlp @last as m", ast.Save(ast.Target((ast.Site("mlp_out", "*", at=ast.At(positions("last"))),)), "m")),
    ("save clean.L0:6.q", ast.Save(ast.Target((ast.Site("q", "0:6", run="clean"),)))),
    ("scale L1.resid by -2 * {a}", ast.Scale(ast.Target((ast.Site("resid_post", 1),)),
                                             ast.Binary("*", ast.Neg(ast.Num(2)), ast.Py("a")))),
    ("scale L1.resid by 1 - 2 - 3", ast.Scale(ast.Target((ast.Site("resid_post", 1),)), ast.Binary(
        "-", ast.Binary("-", ast.Num(1), ast.Num(2)), ast.Num(3)))),
    ("scale L1.resid by 1 + 2 * 3", ast.Scale(ast.Target((ast.Site("resid_post", 1),)), ast.Binary(
        "+", ast.Num(1), ast.Binary("*", ast.Num(2), ast.Num(3))))),
    ("cut L5 @0 -> @last", ast.Cut(ast.Target((ast.Site(None, 5, at=ast.At(positions("0"))),),
                                              to=ast.At(positions("last"))))),
    ("zero enc.F[1,3:5]", ast.Zero(ast.Target((ast.Feature("enc", (1, "3:5")),)))),
    ("zero L[l].mlp", ast.Zero(ast.Target((ast.Site("mlp_out", ("$l",)),)))),
    ("expect a.loss ~= 0.5", ast.Expect(ast.Attr("a", "loss"), "~=", ast.Num(0.5))),
    ("sweep l in 0:12:2", ast.Sweep("l", ast.Range("0:12:2"))),
    ("generate 5 temperature=0 stream=true", ast.Generate(5, (ast.Opt("temperature", ast.Num(0)),
                                                              ast.Opt("stream", ast.Word("true"))))),
    ('prompt "a" \'b\'', ast.Prompt(None, ast.Str("ab"))),
    ('prompt "tab\\t \\u00e9"', ast.Prompt(None, ast.Str("tab\t é"))),
    ("lens", ast.Lens()),
    ("run on main: lens", ast.Run(None, "main", (ast.Lens(),))),
])
def test_line_means(line, expected):
    assert one(line) == expected


def test_keywords_are_names_where_a_name_is_expected():
    spec = parse('prompt from = "x"\nprompt with = "y"\nrun run on with:\n    patch L0.resid from from')
    assert spec.body[2] == ast.Run("run", "with", (ast.Patch(ast.Target((ast.Site("resid_post", 0),)), ast.Name("from")),))


@pytest.mark.parametrize("text", [
    'prompt "x"\r\nzero L0H0\r\n', '\n\nprompt "x"\n\n\nzero L0H0', '# first\nprompt "x" # it\'s {\nzero L0H0 # "',
    "prompt 'x'\nzero L0H0",
    'prompt "x"\n   \nzero L0H0   ', 'prompt\t"x"\nzero \t L0H0',
], ids=["carriage returns", "blank lines", "comments", "single quotes", "trailing blanks", "tabs"])
def test_layout_does_not_matter(text):
    assert parse(text) == parse('prompt "x"\nzero L0H0')


@pytest.mark.parametrize("indent", [" ", "    ", "\t", " \t"])
def test_a_block_may_have_any_indent(indent):
    assert parse(f'prompt "x"\nrun a on main:\n{indent}zero L0H0\n\n# note\n{indent}zero L1H1\nlens').body[1] == ast.Run(
        "a", "main", (ast.Zero(ast.Target((ast.Site(None, 0, 0),))), ast.Zero(ast.Target((ast.Site(None, 1, 1),)))))


def test_a_hole_may_span_lines_and_hold_braces():
    spec = parse('prompt "x"\nsteer L0.resid by {f(\n  {"}": 1}, # }\n  "{")} * 2\nshow top')
    assert spec.body[1].amount.left.source == 'f(\n  {"}": 1}, # }\n  "{")'
    assert spec.body[2].span.line == 5


def test_spans_are_those_of_the_text():
    text = 'prompt "x"\nsteer L0.resid @last by 3 * {vec}'
    steer = parse(text).body[1]
    site = steer.target.sites[0]
    shown = {node: text.split("\n")[node.span.line - 1][node.span.column - 1:node.span.end_column - 1]
             for node in (steer, site, site.at, steer.amount.right)}
    assert list(shown.values()) == ["steer L0.resid @last by 3 * {vec}", "L0.resid @last", "@last", "{vec}"]


def test_spans_are_right_after_a_mistake_too():
    statements, problems = read('zeroo L0\n\nrun a on main:\n    zero L1H1 @last\nlens')
    assert [p.line for p in problems] == [1]
    run, lens = statements
    assert (run.span.line, run.body[0].span.line, run.body[0].target.sites[0].at.span.column, lens.span.line) == (3, 4, 15,
                                                                                                                  5)


@pytest.mark.parametrize("text", [text for _, text in VALID], ids=[name for name, _ in VALID])
def test_a_cell_is_read_the_same_beside_a_mistake(text):
    statements, problems = read(f"{text}\nzeroo L0\n")
    assert statements == parse(text).body
    assert [p.line for p in problems] == [text.count("\n") + 2]


def test_a_spec_is_text():
    with pytest.raises(TypeError, match="not bytes"):
        parse(b"zero L0H0")


def test_nothing_is_a_spec_without_statements():
    assert parse("").body == parse(" \n# only a note\n").body == ()


# Large and deep ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [
    "steer L5.resid by " + "(" * 5000, "steer L5.resid by " + "-" * 5000 + "1", "steer L5.resid by " + "- " * 5000 + "1",
    "steer L5.resid by " + "1+" * 5000 + "1", "steer L5.resid by " + "{" * 5000,
    "steer L5.resid by {" + "(" * 5000 + ")" * 5000 + "}",
    "steer L5.resid by {" + "-" * 9000 + "1}", "steer L5.resid by {a" + ".a" * 9000 + "}",
    "steer L5.resid by " + "norm(" * 3000,
    "save L5.resid @" + "[" * 5000, "save L5.resid @" + "(" * 5000, "save L5.resid @last" + ".first" * 5000,
    "save L5.resid @" + "[" * 200 + "0" + "]" * 200, "save L5" + ".q" * 5000, "answer " + '"\\' * 5000,
    "zero " + "x" * 100_000 + "!",
    "generate " + "1" * 100_000, "zero L" + "1" * 50_000 + "." * 50_000, "{\n" * 100_000, "zero L1H1 " + "with " * 10_000,
    "prompt {" + '"\\' * 9_000, "answer " + "[" * 5000 + "]" * 5000, "sweep c in " + "0:" * 5000,
    "zero L9H9" + " " * 100_000 + "!",
    "\t" * 5000 + "zero L9H9", "zero L[" + "1," * 5000, "expect " + "a." * 20_000, "zero " + "blocks.1." * 5000,
    "@" * 50_000, "\\" * 50_000,
], ids=lambda line: f"{line[:24]}… ({len(line)})")
def test_deep_or_endless_text_is_an_error_with_words(line):
    with pytest.raises(SpecError) as error:
        parse(f'prompt "a"\n{line}')
    assert all(p.message and p.line >= 1 for p in error.value.problems)


def test_brackets_alone_may_be_deep():
    assert parse('prompt "a"\nsteer L5.resid by ' + "(" * 3000 + "1" + ")" * 3000).body[1].amount == ast.Num(1)


def test_a_long_prompt_is_read():
    assert len(parse(f'prompt "{"word " * 200_000}"').body[0].value.value) == 1_000_000


def test_ten_thousand_lines_are_read():
    assert len(parse('prompt "a"\n' + "zero L9H9\n" * 10_000).body) == 10_001


@pytest.mark.parametrize(("text", "said"), [("#" * 2_000_001, "2000001 characters"), ("zero L1H1,\n" * 50_000,
                                                                                      "450000 characters")],
                         ids=["all in all", "apart from quoted text"])
def test_a_text_that_is_too_long_is_refused(text, said):
    with pytest.raises(SpecError, match=said):
        parse(text)


def test_many_mistakes_are_cut_short():
    with pytest.raises(SpecError) as error:
        parse('prompt "a"\n' + "zeroo L9H9\n" * 5_000)
    assert len(error.value.problems) == 200 and str(error.value).endswith("… and 192 more problems")


# The parts before the grammar ----------------------------------------------------------------------------------------


def test_scanning_keeps_every_column():
    text = 'steer L0.resid by {d["}"]} # é\nprompt "# {no}" \'{\'\nset L0.z to {\n 1}'
    scanned = scan(text)
    assert len(scanned.text) == len(text) and scanned.text.count("\n") == text.count("\n")
    assert list(scanned.holes.values()) == ['d["}"]', "\n 1"] and scanned.problems == []
    assert 'prompt "# {no}" \'{\'' in scanned.text and "é" not in scanned.text


def test_an_open_brace_ends_where_the_next_statement_starts():
    scanned = scan("steer L0.resid by {v\nlens\nzero {b}")
    assert scanned.broken == {1} and scanned.text.split("\n")[1:] == ["lens", "zero {\x01}"]


def test_logical_lines_join_what_brackets_hold():
    lines = list(lay_out('prompt x = [\n  "a",\n]\n\nmetric (1\n  + 2)\nanswer ["\nzero L0'))
    assert [(line.number, line.open is None) for line in lines] == [(1, True), (5, True), (7, False), (8, True)]


def test_texts_that_are_read_at_the_same_time_are_each_read_as_alone():
    texts = ["\n".join(['prompt a = "x"', *(f"run r{i} on a:\n    zero L{i}H{n}" for i in range(n + 1))])
             for n in range(6)]
    alone, found, failed = [parse(text) for text in texts], {}, []

    def often(n):
        try:
            found[n] = [parse(texts[n]) for _ in range(20)]
        except SpecError as error:
            failed.append(error)

    before, threads = sys.getswitchinterval(), [threading.Thread(target=often, args=(n,)) for n in range(len(texts))]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not failed and all(found[n] == [alone[n]] * 20 for n in range(len(texts)))


def test_a_remedy_that_cannot_be_read_is_not_looked_into_for_its_own():
    text = 'prompt "x"\nscale L3.mlp by 0.5\n set L8N12L* @last to 3.5\nclamp L8N[12,13] min=0 max=5\n'
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        with pytest.raises(SpecError, match="this line is indented"):
            parse(text)
    finally:
        sys.setrecursionlimit(before)
