"""What the completer offers, against cells that people write and against texts that nobody would."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hooklab.problems import SpecError
from hooklab.sites import LAYER_SITES, SITES
from hooklab.spec.candidates import Context
from hooklab.spec.completer import complete
from hooklab.spec.parser import parse
from hooklab.spec.reference import help_text, markdown, topics
from hooklab.spec.verbs import VERBS

MODEL = Context(n_layers=3, n_heads=2, missing=frozenset({"pos_embed", "mlp_pre_linear"}), models=("lab", "gpt2"))
ABOVE = '''prompt clean = "When Mary and John went"
prompt corrupt = "When John and Mary went"
mark subject = "Mary"
let way = clean.L1.resid @last
sweep c in [0, 1]
group movers = L1H0, L2H1
sae enc = {my_sae} at L1.resid_pre
answer " Mary" vs " John"
metric logit_diff
metric p = prob(" Mary")
run fixed on corrupt: zero L1
'''


def offered(line, context=MODEL, above=ABOVE):
    """Texts offered where `|` stands in a line that follows other lines."""
    text = above + line
    cursor = text.index("|", len(above))
    found = complete(text[:cursor] + text[cursor + 1:], cursor, context)
    return [item.text for item in found.items]


@pytest.mark.parametrize(("line", "there", "absent"), [
    ("|", ["prompt", "zero", "run", "show"], ["L0", "from"]),
    ("no|", ["noise"], ["zero"]),
    ("zero |", ["each", "L*", "L0", "L2", "embed", "movers", "enc.F"], ["L3", "pos_embed", "clean", "from"]),
    ("zero L|", ["L*", "L0", "L*H*", "ln_final"], ["embed"]),
    ("zero L1H|", ["L1H0", "L1H1", "L1H*"], ["L1H2"]),
    ("zero L*|", ["H*", "H0"], []),
    ("zero L1.|", ["resid", "mlp", "resid_mid", "q"], ["mlp_pre_linear", "embed"]),
    ("zero L1.res|", ["resid", "resid_pre", "resid_mid", "resid_post", "result"], ["z"]),
    ("zero L1H0.|", ["q", "z", "pattern", "result"], ["resid", "mlp_out", "ln1"]),
    ("zero L1N5.|", ["mlp_pre", "mlp_post"], ["q", "resid"]),
    ("zero enc.|", ["F"], ["L0"]),
    ("zero L1 |", ["@last", "@each", "@subject", "except", "steps="], ["from", "->"]),
    ("zero L1 @|", ["last", "each", "subject", '" Mary"', "all", "image", "span("], ["clean", "L0"]),
    ("zero L1 @su|", ["subject"], ["last"]),
    ("zero L1 @subject.|", ["first", "last", "next", "prev", "offset("], ["resid"]),
    ("zero L1 @[0, |", ["last", "subject"], ["movers"]),
    ("zero L1 @(all - |", ["first", "subject"], ["way"]),
    ("patch L1 @each |", ["from", "->", "except"], ["by"]),
    ("patch L1 from |", ["clean", "corrupt", "fixed", "baseline", "way"], ["subject"]),
    ("patch L1 from clean align=|", ["name", "index", "token"], []),
    ("patch L1 from clean |", ["window=", "align="], ["renorm="]),
    ("patch L1 from clean window=2 |", ["align="], ["window="]),
    ("patch each L1 -> |", ["L2", "@last"], []),
    ("steer L1 by |", ["way", "c", "each", "mean(", "min(", "clean."], ["last", "sigma"]),
    ("steer L1 by 4 * |", ["way", "unit("], []),
    ("noise L1 by |", ["sigma"], []),
    ("steer L1 by clean.|", ["L*", "L0", "embed"], ["logit_diff"]),
    ("steer L1 by clean.L1.|", ["resid", "q"], []),
    ("zero L[|", ["c"], ["way"]),
    ("ablate L1 with |", ["mean", "resample", "zero"], ["grad"]),
    ("ablate L1 with mean over |", ["clean", "corrupt"], ["fixed"]),
    ("attribute L1 with |", ["grad", "ig", "dla"], ["mean"]),
    ("attribute L1 to |", ["logit_diff", "p"], ["clean"]),
    ("score L1 with |", ["induction", "previous"], ["mean"]),
    ("freeze L1 to |", ["clean", "fixed"], ["logit_diff"]),
    ("metric |", ["logit_diff", "prob", "kl(baseline)"], ["zero"]),
    ("metric kl(|", ["baseline", "fixed"], ["prob"]),
    ('metric logit("|', [' Mary"', ' John"'], []),
    ('answer "|"', [" Mary", "When"], [' Mary"']),
    ('answer " Mary" |', ["vs"], ["by"]),
    ("expect |", ["fixed.logit_diff", "fixed.p", "baseline.p"], ["hooked.p"]),
    ("expect |", ["max(", "min(", "mean("], ["unit(", "way"]),
    ("expect min(|", ["fixed.logit_diff", "abs("], ["unit("]),
    ("expect fixed.|", ["logit_diff", "p"], []),
    ("run again on |", ["clean", "fixed"], ["again", "subject"]),
    ("run again |", ["on"], ["by"]),
    ("run again on clean: |", ["zero", "patch"], ["prompt", "run"]),
    ("run again on clean:\n    pa|", ["patch"], ["prompt"]),
    ("mark tail = |", ["last", "subject", '"When"'], ["tail", "clean"]),
    ("mark tail = 3: in |", ["clean", "corrupt"], []),
    ("sweep l in |", ["0:3"], []),
    ('model "|', ['lab"', 'gpt2"'], []),
    ("show |", ["grid", "attention", "lens"], ["zero"]),
    ("show attention |", ["L0", "top=", "by="], []),
    ("generate 5 |", ["temperature=", "stop="], ["window="]),
    ("generate 5 stream=|", ["true", "false"], []),
    ("cut L1 @subject -> @|", ["last"], []),
    ("zero L1  # a comment |", [], ["each"]),
    ('prompt "some text |', [], ["zero"]),
    ("seed |", [], ["zero"]),
])  # fmt: skip
def test_what_may_come_next(line, there, absent):
    found = offered(line)
    assert set(there) <= set(found)
    assert not set(absent) & set(found)


def test_a_loose_verb_makes_the_run_hooked():
    assert "hooked.logit_diff" in offered("expect |", above='prompt "x"\nmetric logit_diff\nzero L1\n')


def test_a_prompt_without_a_name_is_main():
    assert "main" in offered("run on |", above='prompt "x"\n')


def test_a_list_over_several_lines_is_one_statement():
    assert offered("|", above='answer [\n  " Mary",\n') == []
    assert offered('"|', above='answer [\n  " Mary",\n  ', context=Context(tokens=(" Ann",))) == [' Ann"']


def test_a_mistake_above_does_no_harm():
    assert "grid" in offered("show |", above='prompt "unfinished\nzero L9..6 {oh\n  no(\nablat x\n')


@pytest.mark.parametrize(("line", "inner"), [
    ("steer L1 by {vec.no|", "vec.no"),
    ('steer L1 by {d["a}"]|', 'd["a}"]'),
    ("steer L1 by {{k: v for k in |", "{k: v for k in "),
    ("zero L1 @{po|", "po"),
    ("steer L1 by {torch.|}", "torch."),
])  # fmt: skip
def test_inside_braces_it_is_python(line, inner):
    cursor = line.index("|")
    found = complete(line.replace("|", "", 1), cursor)
    assert found.python == inner
    assert found.items == ()


CELLS = [
    'prompt clean = "When John and Mary went to the store"\nprompt corrupt = "x"\nanswer " Mary" vs " John"\n'
    "metric logit_diff\nrun on corrupt:\n    patch each L*.resid @each from clean\nshow grid",
    'prompt main = "The Space Needle is"\nmark subject = "Space"\nrun corrupted on main:\n'
    "    noise embed @subject by 3 * sigma samples=10 seed=0\nrun restored on corrupted:\n"
    "    patch each L*.mlp @each from baseline window=10",
    'prompt abc = "x"\nmetric logit_diff\nablate each L*H* with mean over abc\nshow heads',
    'prompt "x"\nmark subject = "x"\ncut each L* @subject -> @last window=3',
    'prompt "x"\nlet love = {a}\nsweep c in [0, 2]\nsteer L1.resid @prompt by c * love\n'
    "generate 40 temperature=0 seed=0 samples=3\nshow text",
    'prompt clean = "A"\nrun direct on clean:\n    freeze L*.pattern\n    clamp L2N[1,2] min=0 max=5\n'
    "    project_out L*.resid along {d}",
    'prompt "x"\nmetric loss\nzero L*.mlp except L1.mlp\nexpect hooked.loss > baseline.loss',
    'prompt "x"\nattribute each L*.resid @each to loss with ig steps=20\nscore L*H* with previous\n'
    "lens L*.resid @each top=3",
]
WORD = re.compile(r"(?<![\w\"])[a-z_]\w*=?")


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.split("\n")[-1].strip())
def test_every_word_of_a_cell_is_offered_where_it_stands(cell):
    declares = re.compile(r"\s*(=|in\b|on\b)")
    verbs = ("prompt", "mark", "let", "sweep", "run")
    own = {line.split()[1] for line in cell.split("\n") if line.strip().startswith(verbs)}
    outside = re.sub(r'"[^"]*"|\{[^}]*\}', lambda m: " " * len(m[0]), cell)
    missing = []
    for match in WORD.finditer(outside):
        word = match[0]
        if word in own and declares.match(cell, match.end()):
            continue
        found = [item.text.lstrip("@") for item in complete(cell, match.start(), Context(n_layers=3)).items]
        if not any(text.startswith(word) for text in found):
            missing.append((word, found[:8]))
    assert not missing


def test_parts_of_a_layer_are_the_glossary():
    found = offered("zero L1.|", context=Context())
    assert [name for name in found if name in SITES] == list(LAYER_SITES)


def test_what_is_offered_starts_with_what_is_typed_and_is_longer():
    text = ABOVE + "zero L1.resid_p"
    found = complete(text, len(text), MODEL)
    assert text[found.start:] == "resid_p"
    assert {item.text for item in found.items} == {"resid_pre", "resid_post"}


PIECES = st.sampled_from([*VERBS, "L1", "L*H", ".", "@", "each ", "{", "}", '"', "'", "[", "(", ")", "]", "\n", "\n    ",
                          ":", "->", "=", "#", "from", "by", "4 * ", "\\", "\x01", "é", "\t", "  ", "clean", ",", "-"])


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=25).map(" ".join), st.integers(-5, 200))
def test_any_text_and_any_cursor_have_an_answer(text, cursor):
    found = complete(text, cursor)
    end = max(0, min(cursor, len(text)))
    typed = text[found.start:end]
    assert 0 <= found.start <= end
    assert all(item.text.lower().startswith(typed.lower()) for item in found.items)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_plain_noise_has_an_answer(text):
    assert complete(text, len(text)).start <= len(text)


def test_deep_nesting_has_an_answer():
    assert complete("let x = " + "(" * 3000, 3008).items is not None
    assert complete("zero " + "{" * 3000, 3005).python == "{" * 2999


# The reference -----------------------------------------------------------------------------------------------------------


def test_the_page_is_the_one_that_the_tables_give():
    from pathlib import Path

    page = Path(__file__).parent.parent / "docs" / "language.md"
    assert page.read_text(encoding="utf-8") == markdown(), "python -m hooklab.spec.reference > docs/language.md"


def test_every_whole_example_of_the_page_parses():
    blocks = re.findall(r"```\n(.*?)\n```", markdown(), re.S)
    wholes = [block for block in blocks if block.startswith(("prompt", "hookspec")) and "\n" in block]
    assert len(wholes) >= 7
    for block in wholes:
        assert parse(block).body


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_the_example_of_a_verb_can_be_read(verb):
    from hooklab.spec.parser import grammar
    from hooklab.spec.scan import scan
    from hooklab.spec.tree import ToSpec

    scanned = scan(verb.example + (" zero L1" if verb.name == "run" else ""))
    statements = ToSpec(scanned.holes).transform(grammar().parse(scanned.text + "\n"))
    assert [statement.verb for statement in statements] == [verb.name]


@pytest.mark.parametrize(("topic", "words"), [
    (None, ["each", "%hook help", "patch PLACES from", "generate TOKENS"]),
    ("patch", ["patch each L*.resid @each from clean", "window=", "align=name|index|token"]),
    ("knockout", ["`zero`", "zero PLACES"]),
    ("window", ["patch …", "cut …"]),
    ("seed", ["seed NUMBER", "generate … seed="]),
    ("positions", ["@subject.last", "@each", 'mark subject = " Mary"']),
    ("sites", ["L*H* except movers", "resid_mid"]),
    ("metrics", ["kl(baseline)"]),
    ("resid_mid", ["axes: batch pos d_model"]),
    ("attention", ["show VIEW"]),
    ("zero?", ["zero PLACES"]),
])  # fmt: skip
def test_help_on(topic, words):
    text = help_text(topic)
    assert [word for word in words if word not in text] == []


def test_help_on_nothing_known_says_what_is_near():
    with pytest.raises(SpecError, match="no help on 'positons'") as caught:
        help_text("positons")
    assert "did you mean `positions`?" in "\n".join(caught.value.lines())


def test_there_is_help_on_every_topic():
    assert [topic for topic in topics() if not help_text(topic).strip()] == []


def test_no_line_of_the_help_is_too_long_to_show():
    assert [line for topic in topics() for line in help_text(topic).split("\n") if len(line) > 125] == []


def test_completion_needs_no_torch():
    import subprocess

    code = "import sys, hooklab.spec.completer, hooklab.spec.reference; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
