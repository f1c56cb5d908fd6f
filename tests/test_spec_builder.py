"""The builder: every cell as text and as a chain of calls, and what it refuses."""

from __future__ import annotations

import json
import math

import jsonschema
import pytest

from hooklab.problems import SpecError
from hooklab.spec import ast, printer
from hooklab.spec.builder import Builder, each, expr, py, spec, text
from hooklab.spec.parser import parse, read
from hooklab.spec.schema import schema
from hooklab.spec.verbs import VERBS

VALIDATOR = jsonschema.Draft202012Validator(schema())
S = spec()
MARY = "When Mary and John went to the store, John gave a drink to"
NEEDLE = S.prompt("The Space Needle is in downtown").mark("subject", '"Needle"').answer(" Seattle").metric("prob")
AB = S.prompt(clean="A", corrupt="B")
X = S.prompt("x")

CELLS: dict[str, tuple[Builder, str]] = {
    "a prompt and its likeliest tokens": (S.prompt("The Eiffel Tower is in the city of").show("top", 5), """
prompt "The Eiffel Tower is in the city of"
show top 5"""),
    "one head knocked out": (S.prompt(MARY).answer(" Mary", vs=" John").metric("logit_diff").zero("L9H9"), f"""
prompt "{MARY}"
answer " Mary" vs " John"
metric logit_diff
zero L9H9"""),
    "a grid of activation patching": (
        S.prompt(clean="When John and Mary went", corrupt="When Mary and John went").answer(" Mary", vs=" John")
        .metric("logit_diff").run("corrupt", S.patch("each L*.resid @each", source="clean")).show("grid"), """
prompt clean = "When John and Mary went"
prompt corrupt = "When Mary and John went"
answer " Mary" vs " John"
metric logit_diff
run on corrupt:
    patch each L*.resid @each from clean
show grid"""),
    "scores of induction heads": (
        S.prompt(rep=expr("repeat_random(50, batch=10, seed=0)")).score("each L*H*", "induction").show("heads", top=5)
        .show("attention", "L5H1"), """
prompt rep = repeat_random(50, batch=10, seed=0)
score each L*H* with induction
show heads top=5
show attention L5H1"""),
    "the logit lens": (S.prompt("The Eiffel Tower is in").answer(" Paris").lens("L*.resid @each", top=3).show("lens"), """
prompt "The Eiffel Tower is in"
answer " Paris"
lens L*.resid @each top=3
show lens"""),
    "causal tracing": (
        S.prompt("The Space Needle is in downtown").mark("subject", '"The Space Needle"').answer(" Seattle").metric("prob")
        .run("main", S.noise("embed @subject", by="3 * sigma", samples=10, seed=0), name="corrupted")
        .run("corrupted", S.patch("each L*.mlp @each", source="baseline", window=10), name="restored").show("grid"), """
prompt "The Space Needle is in downtown"
mark subject = "The Space Needle"
answer " Seattle"
metric prob
run corrupted on main:
    noise embed @subject by 3 * sigma samples=10 seed=0
run restored on corrupted:
    patch each L*.mlp @each from baseline window=10
show grid"""),
    "steering with a vector": (
        S.prompt("I think dogs are").steer("L6.resid", by="4 * {vec}").generate(20, temperature=0), """
prompt "I think dogs are"
steer L6.resid by 4 * {vec}
generate 20 temperature=0"""),
    "every head knocked out in turn": (
        S.prompt(abc=py("ioi_prompts")).answer(py("correct"), vs=py("wrong")).metric("logit_diff")
        .ablate("each L*H*", method="mean", over="abc").show("heads"), """
prompt abc = {ioi_prompts}
answer {correct} vs {wrong}
metric logit_diff
ablate each L*H* with mean over abc
show heads"""),
    "direct logit attribution": (
        S.prompt(MARY).answer(" Mary", vs=" John").attribute(["L*H*", "L*.mlp", "embed"], method="dla").show("heads")
        .show("table", top=10), f"""
prompt "{MARY}"
answer " Mary" vs " John"
attribute L*H*, L*.mlp, embed with dla
show heads
show table top=10"""),
    "features ablated": (
        S.prompt("The cat sat").sae("enc", py("gpt2_sae"), at="L8.resid_pre").save("enc.F* @last", name="feats")
        .zero("enc.F[1024,2087] @all").metric("kl(baseline)").show("features", top=10), """
prompt "The cat sat"
sae enc = {gpt2_sae} at L8.resid_pre
save enc.F* @last as feats
zero enc.F[1024,2087] @all
metric kl(baseline)
show features top=10"""),
    "attention edges cut": (NEEDLE.cut("each L* @subject -> @last", window=3).show("grid"), """
prompt "The Space Needle is in downtown"
mark subject = "Needle"
answer " Seattle"
metric prob
cut each L* @subject -> @last window=3
show grid"""),
    "generation under a sweep of steering": (
        S.prompt("I hate you because").let("love", '{act("Love", 6)} - {act("Hate", 6)}').sweep("c", [0, 2, 4, 8])
        .steer("L6.resid @prompt", by="c * love").generate(40, temperature=0.7, seed=0, samples=3).show("text"), """
prompt "I hate you because"
let love = {act("Love", 6)} - {act("Hate", 6)}
sweep c in [0, 2, 4, 8]
steer L6.resid @prompt by c * love
generate 40 temperature=0.7 seed=0 samples=3
show text"""),
    "a named metric and several saves": (
        S.prompt("a b c").save(["L0.resid_pre", "L0.resid_mid", "L0.resid_post"], name="stream")
        .save("L*H*.pattern", name="pat").metric(ld='logit(" b") - logit(" c")'), """
prompt "a b c"
save L0.resid_pre, L0.resid_mid, L0.resid_post as stream
save L*H*.pattern as pat
metric ld = logit(" b") - logit(" c")"""),
    "forms of positions": (
        S.prompt("a b c d e f").mark("tail", slice(3, None)).save("L5.resid @0").save("L5.resid @-1", name="x")
        .save("L5.resid @2:5").save("L5.resid @[0, 2, last]").save('L5.resid @" c"').save('L5.resid @" c"[1]')
        .save('L5.resid @" c"[*]').save("L5.resid @first").save("L5.resid @tail.first").save("L5.resid @{pos}"), """
prompt "a b c d e f"
mark tail = 3:
save L5.resid @0
save L5.resid @-1 as x
save L5.resid @2:5
save L5.resid @[0, 2, last]
save L5.resid @" c"
save L5.resid @" c"[1]
save L5.resid @" c"[*]
save L5.resid @first
save L5.resid @tail.first
save L5.resid @{pos}"""),
    "forms of sites": (
        X.save("embed").save("pos_embed").save("logits @last").save("ln_final").save("L-1.resid").save("L[0,3,5:8].mlp_post")
        .save("L0:6H[0,2].z").save("L::2H*").save("L3H4.q").save("L3H4.pattern").save("L2N17").save("L2N[17,30:40] @last")
        .save("L4.resid[0:10]").save("L4.resid[3,7] @last"), """
prompt "x"
save embed
save pos_embed
save logits @last
save ln_final
save L-1.resid
save L[0,3,5:8].mlp_post
save L0:6H[0,2].z
save L::2H*
save L3.H4.q
save L3H4.pattern
save L2N17
save L2N[17,30:40] @last
save L4.resid[0:10]
save L4.resid[3,7] @last"""),
    "a patch from another place of another run": (
        S.prompt(src="Diana, princess of Wales", tgt="Syria: country, x")
        .run("tgt", S.patch("L3.resid @last", source="src.L10.resid @last")).generate(10), """
prompt src = "Diana, princess of Wales"
prompt tgt = "Syria: country, x"
run on tgt:
    patch L3.resid @last from src.L10.resid @last
generate 10"""),
    "path patching": (
        AB.metric('logit_diff(" a", " b")').run("clean", S.patch("each L*H* -> L9H9.q", source="corrupt")).show("heads"), """
prompt clean = "A"
prompt corrupt = "B"
metric logit_diff(" a", " b")
run on clean:
    patch each L*H* -> L9H9.q from corrupt
show heads"""),
    "frozen attention and norms": (
        AB.run("clean", S.freeze("L*.pattern").freeze("L*.ln1, L*.ln2").patch("L5H5", source="corrupt"), name="direct"), """
prompt clean = "A"
prompt corrupt = "B"
run direct on clean:
    freeze L*.pattern
    freeze L*.ln1, L*.ln2
    patch L5H5 from corrupt"""),
    "frozen to another run": (AB.run("clean", S.freeze("L*.pattern", to="corrupt", steps="new")), """
prompt clean = "A"
prompt corrupt = "B"
run on clean: freeze L*.pattern to corrupt steps=new"""),
    "claims about two runs": (
        S.prompt(MARY).answer(" Mary", vs=" John").metric("logit_diff")
        .run("main", S.zero("L9H9, L9H6, L10H0"), name="no_movers").run("main", S.zero("L11H2"), name="no_backup")
        .expect("no_movers.logit_diff < baseline.logit_diff").expect("no_backup.logit_diff ~= baseline.logit_diff"), f"""
prompt "{MARY}"
answer " Mary" vs " John"
metric logit_diff
run no_movers on main:
    zero L9H9, L9H6, L10H0
run no_backup on main:
    zero L11H2
expect no_movers.logit_diff < baseline.logit_diff
expect no_backup.logit_diff ~= baseline.logit_diff"""),
    "scale, set and clamp": (X.scale("L3.mlp", by=0.5).set("L8N12 @last", to=3.5).clamp("L8N[12,13]", min=0, max=5), """
prompt "x"
scale L3.mlp by 0.5
set L8N12 @last to 3.5
clamp L8N[12,13] min=0 max=5"""),
    "one value at a time": (X.scale("L9H6", by=each([0, 0.5, 1, 2])).metric('logit_diff(" a", " b")').show("grid"), """
prompt "x"
scale L9H6 by each [0, 0.5, 1, 2]
metric logit_diff(" a", " b")
show grid"""),
    "one value at a time, from Python": (X.scale("L9H6", by=each(py("factors"))).metric("loss"), """
prompt "x"
scale L9H6 by each {factors}
metric loss"""),
    "a direction projected out": (
        S.prompt(p=py("harmful")).project_out("L*.resid", along="unit({refusal_dir})").generate(64, temperature=0), """
prompt p = {harmful}
project_out L*.resid along unit({refusal_dir})
generate 64 temperature=0"""),
    "arithmetic on activations": (
        S.prompt(happy="I am so happy", sad="I am so sad").let("dir", "unit(happy.L6.resid @last - sad.L6.resid @last)")
        .run("sad", S.steer("L6.resid @last", by="8 * dir")).show("diff"), """
prompt happy = "I am so happy"
prompt sad = "I am so sad"
let dir = unit(happy.L6.resid @last - sad.L6.resid @last)
run on sad:
    steer L6.resid @last by 8 * dir
show diff"""),
    "attribution patching": (
        AB.metric('logit_diff(" a", " b")').attribute("each L*.resid @each", method="patch", source="clean")
        .show("grid"), """
prompt clean = "A"
prompt corrupt = "B"
metric logit_diff(" a", " b")
attribute each L*.resid @each with patch from clean
show grid"""),
    "integrated gradients of a metric": (
        S.prompt("The capital of France is").answer(" Paris").metric("logit")
        .attribute("embed @each", to="logit", method="ig", steps=20).show("tokens"), """
prompt "The capital of France is"
answer " Paris"
metric logit
attribute embed @each to logit with ig steps=20
show tokens"""),
    "a metric in Python": (X.metric(py("lambda out: out.logits[0, -1].logsumexp(-1)")).zero("L0H0"), """
prompt "x"
metric {lambda out: out.logits[0, -1].logsumexp(-1)}
zero L0H0"""),
    "a metric at a position": (X.zero("L0.mlp").metric("kl(baseline) @last"), """
prompt "x"
zero L0.mlp
metric kl(baseline) @last"""),
    "resampling": (
        S.prompt(orig="x", abc=py("abc_prompts"))
        .run("orig", S.ablate("L*H[0,1]", method="resample", over="abc", seed=1)), """
prompt orig = "x"
prompt abc = {abc_prompts}
run on orig:
    ablate L*H[0,1] with resample over abc seed=1"""),
    "a mean over a list of Python's": (X.ablate("L5H1", method="mean", over=py("dataset")), """
prompt "x"
ablate L5H1 with mean over {dataset}"""),
    "an image": (
        S.prompt("What is in this picture?", image=py("img")).cut("L*H* @image -> @last").show("attention", "L8H3"), """
prompt "What is in this picture?" image={img}
cut L*H* @image -> @last
show attention L8H3"""),
    "a variable as an index": (X.sweep("l", range(0, 12)).zero("L[l].mlp").metric("kl(baseline)"), """
prompt "x"
sweep l in 0:12
zero L[l].mlp
metric kl(baseline)"""),
    "quotes, escapes and newlines": (S.prompt(clean='It\'s "quoted"\nand "more"').show("tokens"), r"""
prompt clean = "It's \"quoted\"\n" 'and "more"'
show tokens"""),
    "a header to share": (S.hookspec(1).model("gpt2", revision="main").seed(0).prompt("Hello").show("top", 10), """
hookspec 1
model "gpt2" revision="main"
seed 0
prompt "Hello"
show top 10"""),
    "comments and blank lines": (X.zero("L0H0"), """

# a comment
prompt "x"   # trailing comment with an apostrophe: don't

zero L0H0    # another
"""),
    "comments in a block": (
        S.prompt(a="x", b="y").run("b", S.patch("L9H9", source="a").patch("L9H6", source="a")).show("top", 3), """
prompt a = "x"
prompt b = "y"
run on b:
    # restore the name movers
    patch L9H9 from a

    patch L9H6 from a
show top 3"""),
    "lists of prompts and answers": (
        S.prompt(ioi=["John gave a drink to", "Tom gave a ball to"]).answer([" Mary", " Ann"], vs=[" John", " Tom"])
        .metric("logit_diff"), """
prompt ioi = [
    "John gave a drink to",
    "Tom gave a ball to",
]
answer [" Mary", " Ann"] vs [" John", " Tom"]
metric logit_diff"""),
    "braces within Python": (
        X.steer("L6.resid", by=py('{k: v for k, v in vecs.items()}["love"]'))
        .set("L0.resid", to=py("zeros(model.d_model)")), """
prompt "x"
steer L6.resid by {{k: v for k, v in vecs.items()}["love"]}
set L0.resid to {zeros(model.d_model)}"""),
    "a chat": (S.prompt(py('[{"role": "user", "content": "hi"}]'), name="chat", chat=True).generate(5), """
prompt chat = {[{"role": "user", "content": "hi"}]} chat=true
generate 5"""),
    "features scaled": (
        X.sae("enc", "gpt2-small-res-jb/8", at="L8.resid_pre").scale("enc.F1024", by=3).set("enc.F2087 @last", to=10), """
prompt "x"
sae enc = "gpt2-small-res-jb/8" at L8.resid_pre
scale enc.F1024 by 3
set enc.F2087 @last to 10"""),
    "lenses": (X.lens().lens("@last", top=5).show("lens"), """
prompt "x"
lens
lens @last top=5
show lens"""),
    "scores": (S.prompt(rep=expr("repeat_random(20)")).score("L*H*", "previous").score("L*H*", py("my_score")), """
prompt rep = repeat_random(20)
score L*H* with previous
score L*H* with {my_score}"""),
    "several metrics": (
        X.answer(" a", vs=" b").metric("logit_diff").metric('prob(" a") @last', name="p").metric("loss"), """
prompt "x"
answer " a" vs " b"
metric logit_diff
metric p = prob(" a") @last
metric loss"""),
    "an answer's first token": (X.answer(expr('first(" New York")')), """
prompt "x"
answer first(" New York")"""),
    "a cut after the softmax": (S.prompt("x y z").cut('L5H1 @" y" -> @last', renorm=False), """
prompt "x y z"
cut L5H1 @" y" -> @last renorm=false"""),
    "dimensions of the stream": (X.zero("L*.resid[138,378,447]").metric("loss"), """
prompt "x"
zero L*.resid[138,378,447]
metric loss"""),
    "keywords as names": (
        S.prompt("x", name="from").prompt("y", name="top").run("top", S.patch("L0.resid", source="from"), name="with"), """
prompt from = "x"
prompt top = "y"
run with on top:
    patch L0.resid from from"""),
    "noise of a computed size": (X.noise("each L*H*", by="0.1 * std(L0.resid)", seed=3).metric("kl(baseline)"), """
prompt "x"
noise each L*H* by 0.1 * std(L0.resid) seed=3
metric kl(baseline)"""),
    "noise of the usual size": (X.noise("embed"), """
prompt "x"
noise embed"""),
    "signs and brackets": (X.steer("L6.resid", by="-2 * ({a} + {b}) / 2").steer("L7.resid", by=-1.5), """
prompt "x"
steer L6.resid by -2 * ({a} + {b}) / 2
steer L7.resid by -1.5"""),
    "variants of show": (
        X.show("attention", "L5").show("attention", "L5H1", "L5H2").show("resid", by="norm")
        .show("diff", "hooked", title="before and after").show("tokens"), """
prompt "x"
show attention L5
show attention L5H1 L5H2
show resid by=norm
show diff hooked title="before and after"
show tokens"""),
    "a run on a run": (X.run("main", S.zero("L0H0"), name="a").run("a", S.zero("L1H1"), name="b"), """
prompt "x"
run a on main:
    zero L0H0
run b on a:
    zero L1H1"""),
    "groups, and everything except them": (
        S.prompt(ioi=py("prompts"), abc=py("abc_prompts")).answer(py("io"), vs=py("s")).metric("logit_diff")
        .group("movers", ["L9H9", "L9H6", "L10H0"]).group("inhibit", "L7H[3,9], L8H[6,10]")
        .run("ioi", S.ablate("L*H* except movers, inhibit", method="mean", over="abc"), name="circuit")
        .run("ioi", S.zero("each movers"), name="each_mover").expect("circuit.logit_diff > 0.8 * baseline.logit_diff"), """
prompt ioi = {prompts}
prompt abc = {abc_prompts}
answer {io} vs {s}
metric logit_diff
group movers = L9H9, L9H6, L10H0
group inhibit = L7H[3,9], L8H[6,10]
run circuit on ioi:
    ablate L*H* except movers, inhibit with mean over abc
run each_mover on ioi:
    zero each movers
expect circuit.logit_diff > 0.8 * baseline.logit_diff"""),
    "places from Python": (
        X.zero(py("result.heads.top(3)")).patch("each {sites} @last", source=py("cache"))
        .save("{sites} @{places}", name="h"), """
prompt "x"
zero {result.heads.top(3)}
patch each {sites} @last from {cache}
save {sites} @{places} as h"""),
    "a patch from a file": (X.patch("L3.resid", source=text("acts.safetensors"), align="index"), """
prompt "x"
patch L3.resid from "acts.safetensors" align=index"""),
    "a mark of one prompt, by number": (AB.mark("here", 2, prompt="clean").run("clean", S.zero("L0.mlp @here")), """
prompt clean = "A"
prompt corrupt = "B"
mark here = 2 in clean
run on clean:
    zero L0.mlp @here"""),
    "texts to stop at": (X.generate(9, stop=[".", "\n"], stream=False), r"""
prompt "x"
generate 9 stop=[".", "\n"] stream=false"""),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_survives_every_form(name):
    built, written = CELLS[name]
    parsed = parse(written)
    assert parsed.body
    assert built.build() == parsed
    assert str(built) == str(parsed)
    assert parse(str(parsed)) == parsed and str(parse(str(parsed))) == str(parsed)
    data = parsed.to_json()
    VALIDATOR.validate(data)
    assert ast.Spec.from_json(data) == ast.Spec.from_json(json.dumps(data)) == parsed


def test_the_cells_use_every_verb_and_the_builder_has_each_as_a_method():
    outer = [statement for built, _ in CELLS.values() for statement in built.statements]
    assert {inner.verb for line in outer for inner in (line, *getattr(line, "body", ()))} == set(VERBS)
    assert all(callable(getattr(Builder, verb)) for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_the_example_of_every_verb_survives(verb):
    example = verb.example + ("\n    zero L0" if verb.name == "run" else "")
    (statement,), problems = read(example)
    assert not problems
    assert read(printer.line(statement)) == ((statement,), [])
    assert statement.verb == verb.name


def test_a_builder_never_changes():
    first = spec().prompt("x")
    second = first.zero("L0H0")
    assert (str(first), str(second)) == ('prompt "x"', 'prompt "x"\nzero L0H0')
    assert first == spec().prompt("x") and repr(second).endswith("zero L0H0")


WRONG = {
    "zero": (lambda: S.zero("L9.6"), "zero()"),
    "a second line": (lambda: S.zero("L9\nzero L8"), "zero()"),
    "a comment": (lambda: S.freeze("L9 # all", to="clean"), "freeze(): target: a comment"),
    "an open brace": (lambda: S.steer("L6", by="{x", steps="new"), "steer(): amount"),
    "nothing": (lambda: S.zero(""), "zero(): target"),
    "no value": (lambda: S.patch("L6", source=None), "patch()"),
    "no prompt": (lambda: S.prompt(), "prompt()"),
    "an array": (lambda: S.steer("L6", by=object()), 'py("name")'),
    "infinity": (lambda: S.steer("L6", by=math.inf), "steer(): inf"),
    "a place that is a number": (lambda: S.zero(5), "zero(): places"),
    "an option that is an object": (lambda: S.prompt("x", image=object()), "prompt(): object"),
    "a count that is text": (lambda: S.generate("20"), "generate()"),
    "a run of no lines": (lambda: S.run("a", S), "run()"),
    "a run that is text": (lambda: S.run("a", "zero L9"), "run()"),
    "a run within a run": (lambda: S.run("a", S.run("b", S.zero("L1"))), "run()"),
    "a position that is none": (lambda: S.mark("m", 1.5), "mark()"),
    "a name that is none": (lambda: S.let("a b", 1), "let()"),
    "a value that is none": (lambda: expr("a\nzero L1"), "expr()"),
    "options within a value": (lambda: expr("a window=3"), "expr()"),
    "a claim without a comparison": (lambda: S.expect("a"), "expect()"),
}


@pytest.mark.parametrize(("make", "said"), WRONG.values(), ids=WRONG)
def test_a_bad_piece_names_its_method(make, said):
    with pytest.raises(SpecError) as caught:
        make()
    assert said in str(caught.value)


def test_a_built_spec_is_checked_in_its_text():
    with pytest.raises(SpecError) as caught:
        spec().prompt("x").steer("L6.resid", by="love", windw=3).build()
    assert "love" in str(caught.value) and "line 2" in str(caught.value)
