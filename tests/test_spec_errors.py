"""What is wrong with a text, where, and what to write instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hooklab.problems import SpecError
from hooklab.spec import ast
from hooklab.spec.check import check
from hooklab.spec.parser import parse
from hooklab.spec.verbs import VERBS

CELLS = Path(__file__).parent / "cells"


def cells(name: str) -> list[tuple[str, str]]:
    text = (CELLS / name).read_text(encoding="utf-8")
    return [tuple(cell.split("\n", 1)) for cell in re.split(r"^=== ", text, flags=re.M)[1:]]


INVALID = [(*map(str.strip, head.split("|")), text) for head, text in cells("invalid.txt")]


def problems(text: str):
    with pytest.raises(SpecError) as error:
        parse(text)
    return error.value.problems


def said(text: str) -> list[str]:
    return [f"{p.line}:{p.column} {p.message}" for p in problems(text)]


def test_there_are_75_invalid_cells():
    assert len(INVALID) == 75


@pytest.mark.parametrize(("where", "word", "text"), [row[1:] for row in INVALID], ids=[row[0] for row in INVALID])
def test_invalid_cell(where, word, text):
    first = problems(text)[0]
    assert f"{first.line}:{first.column}" == where
    assert word in f"{first.message} {first.hint}"


# One line below `prompt "a"`: where the caret is, what must be said, what must be offered.
LINES = [
    # the first word
    ("Zero L9H9", "1:4", "no verb", "small letters: zero"),
    ("capture L5.resid", "1:7", "no verb", "write save L5.resid"),
    ("ablateL9H9", "1:10", "no verb", "ablate L9H9"),
    ("L9H6 = 0", "1:4", "starts with a verb", "zero L9H6"),
    ("L6.resid += {v}", "1:8", "starts with a verb", "steer L6.resid by {v}"),
    ("L9H6 zero", "1:4", "starts with a verb", "write zero L9H6"),
    ("zeroo L9H6 @last", "1:5", "no verb", "write zero L9H6 @last"),
    ("zeroo L9H6 @@", "1:5", "no verb", "zero L9H9, L9H6"),
    ("vec = model.run()", "1:3", "starts with a verb", "let vec = {model.run()}"),
    ('"The Eiffel Tower"', "1:1", "starts with a verb", "prompt"),
    ("%%hook gpt2", "1:1", "magic", "out"),
    ("// note", "1:1", "verb", "#"),
    ("for l in layers: zero L0", "1:3", "Python", "sweep"),
    # places
    ("zero L9H9 L9H6", "11:4", "commas", "L9H9, L9H6"),
    ("zero L9H9 and L9H6", "11:3", "commas", "zero L9H9, L9H6"),
    ("zero L9H9,", "11:1", "follows a comma", "leave the comma out"),
    ("zero L9H9)", "10:1", "closes nothing", "leave"),
    ("zero (L9H9)", "6:1", "without brackets", "write zero L9H9"),
    ("zero (L9H9", "6:1", "without brackets", "zero L9H9"),
    ("zero l9h6", "6:4", "no place", "L9H6"),
    ("zero L5N3H2", "10:2", "one head or one neuron", "L5H[1,2]"),
    ("zero L0 - 5.mlp", "9:1", "slice", "L0:6"),
    ("zero L2H0..3", "10:2", "slice", "H0:4"),
    ("save blocks.5.attn.hook_z", "6:20", "short names", "L5.z"),
    ("save hook_resid_pre", "6:14", "every layer", "L*.resid_pre"),
    ("zero L5", "6:2", "whole layer", "L5.resid"),
    ("score L5 with induction", "7:2", "whole layer", "L5H*"),
    ("zero L9H6.resid_post", "11:10", "no heads", "pattern"),
    ("zero L9H6.attn", "11:4", "no heads", "result"),
    ("save L2N3.z", "11:1", "no neurons", "mlp_post"),
    ("save L5.logits", "9:6", "whole model", "logits"),
    ("save main.resid_post", "11:10", "every layer", "main.L5.resid_post"),
    ("zero L5.attention", "9:9", "no part", "attn_out"),
    ("zero enc", "6:3", "no place", "group"),
    ("zero L[l].mlp", "8:1", "sweep variable", "sweep l in"),
    ("zero L6:2.resid", "7:3", "names no layer", "0:6"),
    ("zero L::0.resid", "7:3", "steps of 1", "START:STOP:STEP"),
    ("zero L5H::-1", "9:4", "steps of 1", "START:STOP:STEP"),
    ("zero L5N9:3", "9:3", "names no neuron", "0:6"),
    ("zero main.L5.resid", "6:13", "its own", "run on main"),
    ("zero L8.mlp.q", "13:1", "one part", "L8.q"),
    ("zero L5.mlpH3", "9:5", "no part", ""),
    # positions
    ("save L5.resid at last", "15:2", "@", "save L5.resid @last"),
    ("save L5.resid last", "15:4", "end of line", "@last"),
    ("save L5.resid @2-5", "17:1", "slice", "2:6"),
    ("save L5.resid @last @first", "21:1", "one position", "@[last, first]"),
    ("save L5.resid @subject", "16:7", "no position", 'mark subject = "'),
    ("save L5.resid @tail.rst", "16:8", 'no ".rst"', "did you mean first?"),
    ("save L5.resid @zzz(3)", "16:6", "no function", "positions are written"),
    ("save L5.resid @5:5", "15:4", "names no position", "0:6"),
    ("mark a = a.last", "10:1", "not yet", "above"),
    ("mark a = 3 in nope", "15:4", "no prompt", "main"),
    # values
    ("steer L6.resid", "15:1", "`by`", "steer PLACES by VALUE"),
    ("steer L6.resid by", "18:1", "a value", "steer PLACES by VALUE"),
    ('steer L6.resid by "vec.pt"', "19:8", "not text", "{vec}"),
    ('project_out L6.resid along "v"', "28:3", "not text", "{vec}"),
    ("project_out L6.resid along 3", "28:1", "a vector", "{refusal_dir}"),
    ("project_out L6.resid {v}", "22:1", "`along`", "project_out L6.resid along {v}"),
    ("steer L6.resid by [1, 2]", "19:1", "no amount", "by each [1, 2]"),
    ("steer L6.resid by each []", "19:7", "no value", "each [0, 1, 2]"),
    ("steer L6.resid by torch.randn(5)", "19:14", "Python", "{torch.randn(5)}"),
    ("steer L6.resid by vec[0]", "19:3", "vec", "{vec[0]}"),
    ("steer L6.resid by torch.pi", "19:5", "no value", "{torch.pi}"),
    ("steer L6.resid by main", "19:4", "not a value", "main.L6.resid"),
    ("steer L6.resid += {v}", "16:2", "`by`", "steer L6.resid by {v}"),
    ("steer L6.resid by 4 ** 2", "21:2", "no sign", "*"),
    ("steer L6.resid by (4 + 1", "19:1", "not closed", ")"),
    ("steer by {v}", "7:2", "needs a place", "steer PLACES"),
    ("steer L6.resid by cos({a})", "19:8", "2 values", "cos({a}, {b})"),
    ("steer L6.resid by prob(\" a\")", "19:10", "metric", "{vec}"),
    ("scale L6.resid with 2", "16:4", "`by`", "scale L6.resid by 2"),
    ("set L8N12 = 3.5", "11:1", "`to`", "set L8N12 to 3.5"),
    ("patch L5.resid using main", "16:5", "`from`", "patch L5.resid from main"),
    ("patch L5.resid from vec", "21:3", "no prompt or run", "{vec}"),
    ("clamp L8N1", "1:5", "bound", "min=0"),
    ("clamp L8N1 min=3 max=1", "12:3", "above", "min=0 max=5"),
    ("cut L5H1", "1:3", "edges", "->"),
    ("cut L5H1 @0 -> L6.resid", "16:8", "positions", "->"),
    ("cut L5H1 @0 => @last", "13:2", "no sign", "->"),
    ("cut L5.mlp @0 -> @last", "8:3", "no attention", "L5:9"),
    ("zero L5.resid -> @last", "18:5", "no attention edges", "cut"),
    ("save L5H1 -> L6H1.q", "14:6", "no path", "patch"),
    ("noise embed by 3 * sigme", "20:5", "no value", "{sigme}"),
    ("steer L6.resid by {}", "19:2", "nothing between", "{vec}"),
    ("steer L6.resid by {x = 3}", "20:1", "Python expression", "braces"),
    # declarations
    ("prompt clean \"b\"", "13:1", "=", 'prompt clean = "b"'),
    ("prompt b = The cat's hat", "12:13", "quotes", "prompt b = \"The cat's hat\""),
    ("prompt “b”", "8:1", "straight", 'prompt "b"'),
    ("prompt b = [\"x\", y]", "18:1", "no text", "{y}"),
    ("prompt b = []", "12:2", "no prompt", "one text"),
    ("prompt b = repeat(5)", "12:9", "no prompt", "repeat_random"),
    ("prompt b = repeat_random(0)", "26:1", "1 or more", "batch=10"),
    ("prompt b = repeat_random(5, batc=3)", "29:6", "batc", "batch"),
    ('prompt "b"', "1:6", "two prompts without a name", "prompt clean"),
    ("answer Mary vs John", "8:4", "quotes", 'answer " Mary"'),
    ('answer " Mary", " John"', "15:1", "`vs`", 'answer " Mary" vs " John"'),
    ('answer [" a", " b"] vs [" c", " d", " e"]', "1:6", "2 right answers and 3 wrong", "prompt"),
    ('answer last(" New York")', "8:17", "no answer", "first("),
    ("model gpt2", "7:4", "quotes", 'model "gpt2"'),
    ("seed -1", "6:2", "whole number", "seed 7"),
    ("hookspec 1", "1:8", "first line", "hookspec 1"),
    ("sweep c = [1]", "9:1", "`in`", "sweep c in [1]"),
    ("sweep c in []", "12:2", "nothing", "[0, 2, 4]"),
    ("sweep c in 5:5", "12:3", "names no", "0:12"),
    ("sweep c in 0:1000000000000", "12:15", "more than the 100000", "0:12"),
    ("sweep c in 5:", "12:2", "no end", "0:12"),
    ("sweep c in 0:4:0", "12:5", "steps of 1", "0:12"),
    ("sweep c in 0-11", "13:1", "slice", "0:12"),
    ("sweep c in range(5)", "12:8", "Python", "sweep c in 0:5"),
    ("sweep c in coefs", "12:5", "Python", "{coefs}"),
    ("let x 3", "6:1", "=", "let x = 3"),
    ("let x = x", "9:1", "not yet", "above"),
    ("let L9 = 3", "5:2", "layer", "another name"),
    ("let H3 = 3", "5:2", "head", "another name"),
    ("let baseline = 3", "5:8", "untouched run", "another name"),
    ("let each = 3", "5:4", "cannot be a name", "another name"),
    ("let logits = 3", "5:6", "a site", "another name"),
    ("let sigma = 3", "5:5", "cannot be a name", "another name"),
    ("mark last = 3", "6:4", "last position", "another name"),
    ("mark image = 3", "6:5", "a position", "another name"),
    ("group movers L9H9", "13:1", "=", "group movers = L9H9"),
    ("group g = g", "11:1", "not yet", "above"),
    ("sae enc = {e} at L5H3.z", "18:6", "heads", "L8.resid_pre"),
    ("sae enc = {e} at L5.z", "18:4", "heads", "L8.resid_pre"),
    ("sae enc = {e} at L*.resid", "18:8", "one layer", "L8.resid_pre"),
    # metrics and claims
    ("metric logit", "8:5", "needs an answer", 'logit(" Mary")'),
    ("metric logit_diff", "8:10", "needs an answer", 'answer " Mary" vs " John"'),
    ('metric logit_diff(" a")', "8:16", "2 values", 'logit_diff(" Mary", " John")'),
    ("metric kl", "8:2", "1 value", "kl(baseline)"),
    ("metric kl(nope)", "11:4", "no prompt or run", "baseline"),
    ("metric prob(Mary)", "13:4", "no answer", 'prob(" Mary")'),
    ("metric loss(3)", "8:7", "no value", "loss"),
    ("metric los", "8:3", "no metric", "loss"),
    ("metric a = b\nmetric b = loss", "12:1", "not yet", "above"),
    ("expect main.loss < 3", "13:4", "no metric", "metric loss"),
    ("expect 3 = 4", "10:1", "compares", "=="),
    ("expect loss < 3", "8:4", "which run", "baseline.loss"),
    ("metric logit diff", "8:10", "one word", "write metric logit_diff"),
    ('metric prob of " a"', "16:4", "between brackets", 'write metric prob(" a")'),
    ("metric logits", "8:6", "a place", "kept by save"),
    ("metric a = max(loss)", "12:9", "arithmetic", "expect max("),
    ("expect median(main.loss) > 1", "8:17", "no function", "max, min, mean, sum, abs, std"),
    ("expect min() > 1", "8:5", "1 or more", "expect min("),
    ("expect abs(1, 2) > 1", "8:9", "1 value", "write expect abs("),
    ("expect 2 > 1 and 3 > 2", "14:3", "one claim", "line of its own"),
    ("steer L6.resid by min({a}, {b})", "19:13", "1 value", "min({a})"),
    ("steer L6.resid by sum({a}, {b})", "19:13", "1 value", "{a} + {b}"),
    ("steer L6.resid by minn({a})", "19:9", "no function", "did you mean min?"),
    # reads
    ("attribute L*H* by ig", "16:5", "after `with`", "write attribute L*H* with ig"),
    ("score L*H* on induction", "12:12", "after `with`", "write score L*H* with induction"),
    ("freeze L*.pattern at main", "19:2", "`to`", "write freeze L*.pattern to main"),
    ("show", "5:1", "a view", "show VIEW"),
    ("show 5", "6:1", "a view", "show VIEW"),
    ("show top 0", "10:1", "at least 1", "show top 10"),
    ("show attention L5, L6", "18:1", "no comma", "show attention L5 L6"),
    ("show diff nope", "11:4", "no place", ""),
    ("generate", "9:1", "whole number", "generate 20"),
    ("generate 0", "10:1", "at least 1", "generate 20"),
    ("generate 2.5", "10:3", "whole number", "generate 20"),
    ("generate -3", "10:2", "whole number", "generate 20"),
    ("attribute L*H* with grad", "1:9", "needs a metric", "metric logit_diff"),
    ('metric logit(" a")\nattribute L*H* to accuracy', "19:8", "no metric", "logit"),
    ('metric logit(" a")\nattribute L*H* with patch', "21:5", "another prompt", "from clean"),
    ("attribute L*H* to logit_diff", "1:9", "needs an answer", 'answer " Mary"'),
    ("attribute L*H* to kl", "19:2", "one run", "kl(baseline)"),
    ("score L*H* with inducton", "17:8", "score", "induction"),
    ("score L5.mlp with induction", "10:3", "no heads", "L*H*"),
    ("lens L5.z", "9:1", "cannot read", "resid_post"),
    ("ablate L5H1 with zero over main", "28:4", "over nothing", "mean"),
    ("ablate L5H1 over nope", "18:4", "no prompt or run", "main"),
    ("freeze L*.pattern to nope", "22:4", "no prompt or run", "main"),
    # options
    ("score L5H1 with induction top=5", "27:5", "no option", "no options"),
    ("save L5.resid top=5", "15:5", "no option", "steps"),
    ("generate 20 temperature=-1", "13:14", "negative", "temperature"),
    ("generate 20 temperature=hot", "13:15", "a number", "0.5"),
    ("generate 20 temperature 0.7", "13:11", "end of line", "temperature=0.7"),
    ("generate 20 temperature=", "25:1", "needs a value", "number"),
    ("generate 20 top_p=1.5", "13:9", "at most 1", "top_p"),
    ("generate 20 top_p=0", "13:7", "above 0", "top_p"),
    ("generate 20 samples=0", "13:9", "at least 1", "samples"),
    ("generate 20 samples=1.5", "13:11", "whole number", "samples"),
    ("generate 20 stop=end", "13:8", "bare word", "{end}"),
    ("generate 20 stream=yes", "13:10", "true or false", "stream=true"),
    ("patch L5.resid from main align=nme", "26:9", "name or index", "name"),
    ("zero L5.resid steps=prmpt", "15:11", "prompt or new", "prompt"),
    ("zero L5.resid; zero L6.resid", "14:1", "one line", "new line"),
    # runs
    ("run x on main:", "15:1", "at least one line", "below"),
    ("run x on main", "14:1", "`:`", "run x on main:"),
    ("run x on main: zeroo L0H0", "16:5", "no verb", "zero"),
    ("run main on main:\n    zero L0H0", "5:4", "twice", "another name"),
    ("run x on x:\n    zero L0H0", "5:1", "from itself", "baseline"),
    ("zero L9H9:\n    zero L1H1", "10:1", "only run", "write zero L9H9, and no line indented"),
]


@pytest.mark.parametrize(("line", "where", "message", "hint"), LINES, ids=[row[0] for row in LINES])
def test_line_is_explained(line, where, message, hint):
    column, width = map(int, where.split(":"))
    first = problems(f'prompt "a"\n{line}')[0]
    last = line.count("\n") + 2 if "metric" in line.split("\n")[0] and "\nattribute" in line else 2
    assert (first.line, first.column, first.width) == (last, column, width)
    assert message in first.message
    assert hint in first.hint and first.hint


BAD_LINES = ["run b:", "run on:", "run", "let x", "prompt", "show top ten", "zero L5.resid[", "zero L5.resid[]", "mark",
             "zero L5H",
             "sae enc at L5.resid", "expect a.b", "metric", "metric (", "answer vs \" b\"", "zero except L5H1",
             "zero L*H* except",
             "patch L5.resid from", "seed", "zero @last", "zero ->", "save L5.resid as", "zero ∞", "zero $x", "\\",
             "zero L5.resid @",
             "zero L5.resid @{", "zero L5.resid @\"", "generate 5 5", "show grid {", "zero each", "noise", "cut", "a", "=",
             ":", "@", "-"]


@pytest.mark.parametrize("line", BAD_LINES)
def test_every_problem_has_a_place_a_sentence_and_a_remedy(line):
    for problem in problems(f'prompt "a"\n{line}'):
        assert problem.line == 2 and 1 <= problem.column <= len(line) + 1
        assert problem.message and problem.hint and "Token" not in problem.message and "_NL" not in problem.message


@pytest.mark.parametrize("line", [
    'zero L-1.resid', "zero L5H-1", "zero L::2H*", "zero L-3:.mlp", "zero embed, logits @last", "zero L5.attn",
    "zero L5N[1,3:9]",
    "save main.L5.resid", "save L5.rot_q, L5.ln1_scale, L5.mlp_pre_linear", "cut L5 -> @last", "cut L5.pattern @0 -> @last",
    "show attention L5 L6", "show diff hooked", "show diff baseline", "zero L5H1 -> L9H9.q",
    "steer L5.resid by baseline.L5.resid",
    "patch L5.resid from baseline", 'patch L5.resid from "cache.safetensors"', "patch L5.resid from {cache}",
    "noise L5.resid by 3 * sigma", "noise L5.resid", "set L5.resid to each {values}", "steer L5.resid by L3.resid @last",
    "generate 20 temperature=0 top_p=1 samples=2 stop=[\"a\", \"b\"]", "generate 20 temperature={t}",
    "zero L5.resid steps=0:3",
    "save L5.resid steps=[0, 2]",
    "zero L5.resid steps=[0, 2]", "zero L5.resid steps=new", "zero L5.resid steps={lambda n: n > 2}", "clamp L5.resid max=3",
    "clamp L5.resid min={low} max=1", "ablate L5H1", "ablate L5H1 with mean", "ablate L5H1 over main", "freeze L*.pattern",
    "freeze L*.pattern to main", "lens @each", "lens embed, L5.resid top=3", "score L5H1 with {f}", "metric loss",
    "metric kl(main)",
    'metric a = prob(" b")\nmetric c = a * 2', "metric loss\nexpect main.loss < baseline.loss + 1",
    'metric logit(" a")\nmetric logit(" b")',
    "zero L0H0\nmetric loss\nexpect hooked.loss > baseline.loss", "sweep c in [0, 1]\nscale L0H0 by c",
    "sweep p in [0, 1]\nzero L0H0 @p",
    "sweep w in 1:3\nsteer L0.resid by 1 window=w",
    'prompt b = "b"\nmark s = 1 in main\nmark s = 2 in b\nrun on b: zero L0H0 @s',
    "mark a = \"a\"\nmark b = a.next\nzero L0H0 @b", "let a = {x}\nlet b = 2 * a\nsteer L0.resid by b",
    "group g = L1H1\ngroup h = g, L2H2\nzero h",
    "group g = L5\ncut g @0 -> @last", "sae enc = {e} at L5.resid\nzero enc.F3\nsave enc.F* as f\nshow features enc.F3",
    "answer first(\" New York\") vs {wrong}\nmetric logit_diff", "answer {a}\nmetric prob",
    "metric {f}\nattribute L*H* with grad",
    "prompt main2 = \"b\"\nrun hooked on main2: zero L0H0", "run on main:\n    zero L0H0\nshow top 3",
    "model \"gpt2\" dtype=bfloat16",
    "seed 7", "save L0.resid as x\nrun r on main:\n    save L0.resid as x",
])
def test_line_is_allowed(line):
    assert parse(f'prompt "a"\n{line}').body


# Several lines -------------------------------------------------------------------------------------------------------


def test_all_mistakes_of_a_text_are_said_at_once():
    assert said('prompt clean = "a"\nprompt corrupt = "b\nzeroo L9H9\nrun x on corrupt:\n    patch L5.resid from clen\n'
                "    patch L5.residmid from clean\nshow gird\n") == [
        "2:18 this quote is not closed", '3:1 no verb "zeroo"', '5:25 there is no prompt or run "clen"',
        '6:14 no part "residmid" of a layer', '7:6 there is no view "gird"']


def test_a_failed_header_says_nothing_about_its_block_but_its_own_mistakes():
    assert said('prompt a = "x"\nrun b on a\n    zeroo L5\n    zero L5.qq\nrun c on b:\n    zero L1H1\nmetric loss\n'
                "expect b.loss < 3") == ["2:11 a run's first line ends with `:`", '3:5 no verb "zeroo"']


def test_names_of_an_unreadable_line_are_not_held_unknown():
    assert said('let v = mean(pos.L6.resid @@last)\nprompt "x"\nsteer L6.resid by v') == ["1:28 a place has one position"]


@pytest.mark.parametrize(("broken", "after"), [("prompt The cat", "zero L9H9"), ('answer " a', "metric prob"),
                                               ("promt \"x\"", "zero L9H9"),
                                               ("metric loss loss", "expect main.loss < 3\nprompt \"x\"")])
def test_what_an_unreadable_line_may_have_said_is_not_missed(broken, after):
    prompt = "" if broken.startswith("prom") or "prompt" in after else 'prompt "x"\n'
    found = problems(f"{prompt}{broken}\n{after}")
    assert len(found) == 1


def test_an_open_bracket_ends_where_the_next_line_starts():
    assert said('prompt x = [\n  "a",\n  "b"\nanswer " a"\nshow gird') == ["1:12 the bracket [ is not closed",
                                                                            '5:6 there is no view "gird"']


def test_an_open_brace_does_not_swallow_the_rest():
    assert said('prompt "x"\nsteer L6.resid by {v\nshow gird') == ["2:19 this brace has no closing brace",
                                                                   '3:6 there is no view "gird"']


@pytest.mark.parametrize(("text", "expected"), [
    ('prompt "x"\nrun a on main:\n    zero L1H1\n  lens\n        lens', ["4:1 the indent of this line matches no line above",
                                                                    "5:1 this line is indented deeper than the one above"]),
    ('prompt "x"\n    zero L0H0\n    show top', ["2:1 this line is indented, and no block is open"]),
    ('prompt "x"\nrun a on main:\n  run b on main:\n    lens\n  lens',
     ["3:3 a run cannot stand inside another: blocks do not nest"]),
    ('prompt "x"\nrun a on main:\n  prompt "b"', ["3:3 a prompt line stands outside of runs"]),
    ('prompt "x"\nrun a on main:\nzero L0H0', ["2:15 a run has at least one line"]),
], ids=["a crooked block", "all indented", "nested runs", "a declaration in a run", "an empty run"])
def test_indentation(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ('prompt a = "x"\nprompt b = "y"\nsave L5.resid', "3:1 there are 2 prompts: on which does save act?"),
    ("zero L9H9", "1:1 there is no prompt to run"),
    ("show top", "1:1 there is no prompt to run"),
    ('prompt a = "x"\nrun c on a:\n  patch L5.resid from d\nrun d on a:\n  lens', '3:23 the run "d" comes later, on line 4'),
    ('prompt a = "x"\nrun c on d:\n  lens\nrun d on a:\n  lens', '2:10 the run "d" comes later, on line 4'),
    ('prompt a = "x"\nlet v = d.L5.resid\nrun c on a:\n  steer L5.resid by v\nrun d on a:\n  lens',
     '4:21 "v" is taken from the run "d", which is not over here'),
    ('prompt a = "x"\nprompt a = "y"', '2:8 "a" is defined twice: it is a prompt already, on line 1'),
    ('prompt "x"\nlet v = 1\nsweep v in [1]', '3:7 "v" is defined twice: it is a value already, on line 2'),
    ('prompt "x"\nmark m = 1\nmark m = 2', '3:6 "m" is defined twice: it is a mark already, on line 2'),
    ('prompt "x"\nsave embed as e\nsave logits as e', '3:16 "e" is saved twice in one run, on line 2'),
    ('prompt "x"\nrun hooked on main: lens\nzero L0H0', '2:5 "hooked" is the run made of the lines outside of runs'),
    ('prompt "x"\nanswer " a"\nanswer " b"', "3:1 there is a second answer line"),
    ('prompt "x"\nanswer " a"\nmetric logit_diff', "3:8 logit_diff needs a wrong answer too"),
    ('prompt "x"\nmetric loss\nexpect hooked.loss < 3', '3:8 there is no run "hooked"'),
    ('prompt "x"\nmetric loss\nexpect nope.loss < 3', '3:8 there is no prompt or run "nope"'),
    ('prompt a = "x"\nzero L0H0\nmetric kl(main)', "3:11 every prompt has a name here, so there is no main"),
    ('prompt "x"\ngroup g = L5\nzero g', '3:6 "g" names a whole layer: say which part'),
    ('prompt "x"\nsae enc = {e} at L5.resid\nzero enc', '3:6 "enc" is a dictionary of features, not a place'),
    ('prompt "x"\nsae enc = {e} at L5.resid\nzero enk.F3', '3:6 there is no dictionary of features "enk"'),
], ids=lambda value: value.split("\n")[-1] if "\n" in value else "")
def test_lines_that_do_not_fit_together(text, expected):
    assert said(text) == [expected]


def test_a_newer_version_is_said_before_anything_else():
    found = problems("hookspec 2\nfrobnicate L5\nzero L5.qq")
    assert [(p.kind, p.line) for p in found] == [("version", 1)]
    assert "upgrade" in found[0].hint


@pytest.mark.parametrize(("text", "kind"), [("zeroo L5", "name"), ("zero", "syntax"), ("generate 0", "value"), ("zero L5.qq",
                                                                                                                "name"),
                                            ("zero L5.resid; lens", "syntax")])
def test_kind_of_problem(text, kind):
    assert problems(f'prompt "a"\n{text}')[0].kind == kind


def test_the_report_shows_the_line_a_caret_and_the_remedy():
    with pytest.raises(SpecError) as error:
        parse('prompt "a"\nablat L9H6')
    assert str(error.value).split("\n") == [
        'HookNameError: no verb "ablat"  (line 2, column 1)', '  1 | prompt "a"', "  2 | ablat L9H6", "    | ^^^^^",
        "hint: did you mean ablate? write ablate L9H6"]


def test_a_built_spec_is_checked_without_text():
    zero = ast.Zero(ast.Target((ast.Site("qq", 5),)))
    found = check(ast.Spec((ast.Prompt(None, ast.Str("a")), zero)))
    assert [(p.kind, p.line, p.message) for p in found] == [("name", 0, 'no part "qq" of a layer')]


@pytest.mark.parametrize("statement", [
    ast.Prompt("my prompt", ast.Str("a")), ast.Steer(ast.Target((ast.Site("resid_post", 5),)), ast.Str("v")),
    ast.Generate(-1), ast.Zero(ast.Target((ast.Site("resid_post", "x:y"),))), ast.Zero(ast.Target((ast.Site(None),))),
], ids=["a name of two words", "text as an amount", "fewer than one token", "no index", "no site"])
def test_what_only_a_built_spec_can_say_is_refused(statement):
    assert len(check(ast.Spec((ast.Prompt(None, ast.Str("a")), statement)))) == 1


# what a verb's example needs around it: lines above, and lines below
PROMPTS = 'prompt clean = "a"\n'
AROUND = {
    "hookspec": ("", ""), "prompt": ("", ""), "run": ('prompt corrupt = "a"\n', "\n    lens"),
    "metric": (f'{PROMPTS}answer " a" vs " b"\n', ""), "attribute": (f'{PROMPTS}answer " a" vs " b"\nmetric logit_diff\n',
                                                                     ""),
    "expect": (f'{PROMPTS}answer " a" vs " b"\nmetric logit_diff\nzero L0H0\n', ""),
    "noise": (f"{PROMPTS}mark subject = 1\n", ""), "cut": (f"{PROMPTS}mark subject = 1\n", ""),
    "let": ('prompt pos = "a"\n', ""), "ablate": ('prompt abc = "a"\n', ""),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_the_example_of_every_verb_is_allowed(verb):
    above, below = AROUND.get(verb.name, (PROMPTS, ""))
    assert parse(above + verb.example + below).body


# Every remedy of the invalid cells, done: in the cell, what the caret's problem says to write instead of what stands there.
# A cell whose remedy uncovers the next mistake has a step for each.
REMEDIES: dict[str, list[tuple[str, str]]] = {
    "e01": [("ablat L9H6", "ablate L9H6")],
    "e02": [("knockout L9H6", "zero L9H6")],
    "e03": [("qq", "q")],
    "e04": [("residmid", "resid_mid")],
    "e05": [("L0-5", "L0:6"), ("L0:6", "L0:6.resid")],
    "e06": [("L0..5", "L0:6"), ("L0:6", "L0:6.mlp")],
    "e07": [("L9.6", "L9H6")],
    "e08": [("zero", "zero L9H9, L9H6")],
    "e09": [('"a', '"a"')],
    "e10": [("steer L6.resid with {v}", "steer L6.resid by {v}")],
    "e11": [("{v +}", "{4 * vec}")],
    "e12": [("{v", "{vec}")],
    "e13": [("lst", "last")],
    "e14": [("corrupted", "corrupt")],
    "e15": [("clen", "clean")],
    "e16": [("zero L9H6", "run on b: zero L9H6")],
    "e17": [("atention", "attention")],
    "e18": [("logitdiff", "logit_diff"), ("logit_diff", 'logit_diff(" Mary", " John")')],
    "e19": [("temprature", "temperature")],
    "e20": [(" seed=2", "")],
    "e21": [("prompt The cat sat", 'prompt "The cat sat"')],
    "e22": [('clean = "a b c"', 'prompt clean = "a b c"')],
    "e23": [("    zero", "zero")],
    "e24": [("    zero L9H7", "        zero L9H7")],
    "e26": [(" vec", " {vec}")],
    "e27": [("L5.resid.mlp", "L5.mlp")],
    "e28": [("resampled", "resample")],
    "e29": [("run on x", "run on x:")],
    "e30": [("resid_post", "L*.resid_post")],
    "e31": [("units", "unit")],
    "e32": [("run on x:\n    run on x:", "run on x:")],
    "e33": [("zeroo", "zero")],
    "e34": [("zeroL9H9", "zero L9H9")],
    "e35": [("L5resid", "L5.resid")],
    "e36": [("patern", "pattern")],
    "e37": [('prompt "a"\n', 'prompt "a"\nsae enc = {my_sae} at L8.resid_pre\n')],
    "e38": [(" L5H1", ""), (" L6H2", "")],
    "e39": [("mover\n", "movers\n")],
    "e40": [("zero clean", "run on clean:\n    zero L5.resid")],
    "e41": [("layers[3].mlp", "L3.mlp_out")],
    "e42": [("model.layers[0]", "L0.resid_post")],
    "e43": [("model.layers[0].self_attn", "L0.attn_out")],
    "e44": [("blocks.3.hook_z", "L3.z")],
    "e45": [("blocks[3].hook_resid_pre", "L3.resid_pre")],
    "e46": [("transformer.wte", "embed")],
    "e47": [("L3.attn.hook_pattern", "L3.pattern")],
    "e48": [("l1.mlp", "L1.mlp")],
    "e49": [("L3 resid_pre", "L3.resid_pre")],
    "e50": [("layer 3 resid", "L3.resid_post")],
    "e51": [("head 3 in layer 2", "L2H3")],
    "e52": [("L2[3]", "L2H3")],
    "e53": [("(2, 3)", "L2H3")],
    "e54": [("L2H3,4", "L2H[3,4]")],
    "e55": [("prompt:", "prompt")],
    "e56": [("seed = 3", "seed 3")],
    "e57": [("mark subject:", "mark subject =")],
    "e58": [('f"a {name}"', '{f"a {name}"}')],
    "e59": [("L*.resid each", "each L*.resid")],
    "e60": [("zero", "with zero")],
    "e61": [("@last-1", "@-2")],
    "e62": [("@first and last", "@[first, last]")],
    "e63": [("L3.resid[:, -1]", "L3.resid @-1")],
    "e64": [("pos=-1", "@-1")],
    "e65": [("to", "->")],
    "e66": [("between 0 and 5", "min=0 max=5")],
    "e67": [("3 sigma", "3 * sigma")],
    "e68": [("//", "#")],
    "e69": [('"L1.mlp"', "L1.mlp")],
    "e70": [("x = L1.mlp", "L1.mlp as x")],
    "e71": [("heatmap", "grid")],
    "e72": [("temp", "temperature")],
    "e73": [("(20, temperature=0)", " 20 temperature=0")],
    "e74": [("median", "min")],
    "e75": [("    zero L0H1", "\tzero L0H1")],
}


@pytest.mark.parametrize(("name", "text"), [(row[0], row[-1]) for row in INVALID if row[0][:3] != "e25"],
                         ids=[row[0] for row in INVALID if row[0][:3] != "e25"])
def test_the_remedy_of_an_invalid_cell_makes_it_valid(name, text):
    for old, new in REMEDIES[name[:3]]:
        first = problems(text)[0]
        added = new.replace('prompt "a"\n', "").strip().split("\n")[0]
        if new and old.strip() != added and name[:3] not in ("e09", "e24", "e32"):
            assert added in first.hint
        text = text.replace(old, new, 1)
    assert parse(text).body


def test_a_caret_counts_a_tab_as_one_character():
    (problem,) = [p for p in problems('prompt "a"\nrun x on main:\n\t    run y on main:\n\t        zero L0H0')]
    assert (problem.line, problem.column, problem.width) == (3, 6, 3)


@pytest.mark.parametrize(("line", "carets"), [
    ('prompt "a" x', "           ^"), ('prompt "你好" x', "              ^"), ('prompt "e\u0301" x', "           ^"),
    ('prompt\t"a" x', "      \t    ^"), ("prompt 你好", "       ^^^^"),
])
def test_the_caret_stands_under_what_it_means(line, carets):
    with pytest.raises(SpecError) as error:
        parse(line)
    assert str(error.value).split("\n")[2] == "    | " + carets


INVISIBLE = {"\u00a0": "put a plain space", "\u3000": "put a plain space", "\u200b": "delete", "\u2028": "delete",
             "\u202e": "delete", "\x0c": "delete", "\x0b": "delete", "\x85": "delete", "\x00": "delete", "\x1b": "delete",
             "\ufeff": "delete", "\r": "delete"}


@pytest.mark.parametrize("character", INVISIBLE, ids=lambda c: f"U+{ord(c):04X}")
def test_a_character_that_cannot_be_seen_is_named(character):
    (problem,) = problems(f'prompt "a"\nzero{character}L9H9')
    assert (problem.line, problem.column, problem.width) == (2, 5, 1)
    assert f"U+{ord(character):04X}" in problem.message and problem.hint.startswith(INVISIBLE[character])


@pytest.mark.parametrize("character", [*INVISIBLE, "\ud800"], ids=lambda c: f"U+{ord(c):04X}")
def test_a_report_can_be_printed(character):
    with pytest.raises(SpecError) as error:
        parse(f'prompt "a{character}b"\nprompt "c{character}d" {character}e')
    report = str(error.value)
    assert report.encode("utf-8")
    assert {c for c in report if not c.isprintable()} <= {"\n", "\u00a0", "\u3000"}


def test_python_and_comments_and_quotes_may_hold_any_blank():
    spec = parse('\ufeffprompt "a\u00a0b"  # c\u00a0d\nsteer L0.resid by {f("\u00a0")}\n')
    assert (spec.body[0].value.value, spec.body[1].amount.source) == ("a\u00a0b", 'f("\u00a0")')
