"""Programs written from specs: what they compute, against what hooklab computes when it runs the spec itself."""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import tiny_models
import torch

import hooklab as hl
from hooklab.code import CodeError, to_code, to_hooks, to_nnsight
from hooklab.problems import SpecError

FAMILIES = ("gpt2", "llama", "gpt_neox", "gemma2", "phi3")
EVEN = '''prompt clean = "Mary John the store w1 w2"
prompt corrupt = "John Mary the store w3 w4"
answer "Mary" vs "John"
metric logit_diff
metric p = prob
run hooked on corrupt:
'''
UNEVEN = '''prompt clean = ["Mary John the store w1 w2", "w1 Mary John"]
prompt corrupt = ["John Mary the store w3 w4", "Mary John w7 w8"]
answer ["Mary", "w1"] vs ["John", "w2"]
metric logit_diff
run hooked on corrupt:
'''
VALUES: dict[str, Any] = {
    "vec": torch.linspace(-1, 2, 32).sin(),
    "vecs": [torch.linspace(-1, n, 32).sin() for n in (1, 3)],
    "x": torch.linspace(0, 4, 32).cos(),  # a name that programs use themselves
    "per_pos": torch.linspace(-3, 3, 6 * 32).sin().reshape(6, 32),
    "cache": {"L0.resid_post": torch.linspace(-3, 3, 6 * 32).sin().reshape(1, 6, 32), "L1.resid_post": torch.ones(32)},
    "texts": ["w1 w2 w3 w4 w5 w6", "w6 w5 w4 w3 w2 w1"],
    "ids": [[5, 6, 7, 8], [9, 8, 7, 6]],
    "vecs[0] + 1": torch.linspace(-1, 1, 32).sin() + 1,
    "lambda out: out.logits[:, -1].logsumexp(-1)": lambda out: out.logits[:, -1].logsumexp(-1),
}

EDITS = {
    "zero heads at one token": "zero L0H[0,2].z @last",
    "zero every MLP": "zero L*.mlp_out",
    "zero one head at a time": "zero each L*H*",
    "zero an embedding": "zero embed @1",
    "zero dimensions of the stream, twice": "zero L*.resid_post[3,7,9]\n    zero L0.resid_post[4:9] @[1,3]",
    "zero heads at scattered tokens": "zero L0H[0,2].z @[1,3]",
    "scale a site": "scale L0.mlp_out by 0.5",
    "scale by one factor after another": "scale L1.attn_out @last by each [0, 0.5, 2]",
    "set to a number": "set L0.attn_out @last to 3.5",
    "clamp from both sides": "clamp L1.resid_post min=-1 max=0.5",
    "clamp from one side": "clamp L1.resid_post @2: max=0.25",
    "steer by a vector": "steer L0.resid_post by 4 * {vec}",
    "steer by a vector whose name the program needs": "steer L0.resid_post @2:4 by {x}",
    "steer by a longer expression": "steer L0.resid_post by 2 * {vecs[0] + 1}",
    "steer layers by vectors, one at a time": "steer each L*.resid_pre @last by each {vecs}",
    "steer by a vector for each position": "steer L0.resid_post by {per_pos}",
    "steer by a difference of runs": "steer L1.resid_post @last by 2 * (clean.L0.resid @last - corrupt.L0.resid @last)",
    "steer by smallest and largest entries": "steer L1.resid_post by min(clean.L0.resid_post) + max({vec}) - min({x})",
    "steer by a mean": "steer L1.resid_post by mean(clean.L0.resid_post) / 2",
    "steer by functions": "steer L0.resid_post by -2 * proj({vec}, {x}) + abs({vec}) * cos({vec}, {x}) - norm({x})",
    "project out a direction everywhere": "project_out L*.resid_post along unit({vec})",
    "project out another run's activation": "project_out L0.resid_post @last along clean.L1.resid_post @last",
    "noise with samples": "noise embed @1:3 by 3 * sigma samples=3 seed=0",
    "noise layer by layer": "noise each L*.resid_post @last by 0.1 * std(L0.resid_pre) seed=3",
    "noise on every head": "noise L*H* by 0.1",
    "patch one token": "patch L0.resid_post @last from clean",
    "patch every head": "patch each L*H* from clean",
    "patch layers by positions": "patch each L*.resid_post @each from clean",
    "patch named positions in a window": "patch each L*.mlp_out @each[1:3, last] from clean window=2",
    "patch from another place": "patch L1.resid_post @last from clean.L0.resid_post @2",
    "patch from a table": "patch L*.resid_post from {cache}",
    "patch a pattern": "patch L*.pattern from clean",
    "patch a path": "patch each L*H* -> L1H1.q from clean",
    "freeze and patch": "freeze L*.pattern\n    freeze L*.ln1\n    patch each L*H* from clean",
    "ablate by the mean": "ablate each L*H* with mean over clean",
    "ablate by the mean at each position": "ablate L0.mlp_out with mean over clean per=pos",
    "ablate by the mean of a list from Python": "ablate L1H1 with mean over {texts}",
    "ablate by another example": "ablate L1.z with resample over clean seed=1",
    "cut an edge": "cut L0H1 @1 -> @last",
    "cut edges layer by layer": "cut each L* @1:3 -> @last",
    "cut after the softmax": "cut L1H[0,2] @[0,3] -> @[4,5] renorm=false",
    "cut every edge from a key": "cut each L*H* @1 -> @each[1, 3, last]",
    "a sweep variable in two lines": "zero L0H1\n    patch each L*.resid_post @each from clean\n    scale L1.mlp_out by 2",
    "places of several kinds": "zero each L0.mlp_out, L1H1.z, embed\n    scale L0.resid_post by 0.5",
}
SITES = {
    "residual stream": "scale L1.resid_pre by 2\n    zero L0.resid_post @1",
    "queries, keys and values": "zero L*.q @last\n    scale L1.k by 2\n    zero L0.v @1",
    "rotated queries and keys": "scale L1.rot_q by 0.5\n    scale L0.rot_k @1 by 2",
    "scores and pattern": "scale L1.scores by 0.5\n    zero L0H1.pattern @last",
    "heads": "scale L0.z by 2\n    zero L1H3",
    "neurons": "zero L1.mlp_pre @1\n    set L0.mlp_post[3,7] @last to 3.5\n    clamp L1N[1:4] min=0",
    "what is added to the stream": "scale L0.attn_out by 2\n    scale L1.mlp_out by 0.5",
    "norms and their divisors": "scale L0.ln1_scale by 1.5\n    scale L1.ln1 by 2\n    scale ln_final_scale by 2\n"
                                "    scale ln_final by 0.7",
    "logits": "steer logits by 1\n    scale logits @last by 2",
}
ONLY_SOME = {
    "the stream between attention and MLP": ("steer L0.resid_mid @last by {vec}\n    scale L1.ln2_scale by 2\n"
                                             "    scale L0.ln2 by 2", ("gpt2", "llama", "gemma2", "phi3")),
    "the linear branch of a gate": ("scale L0.mlp_pre_linear by 2\n    zero L1.mlp_pre", ("llama", "gemma2", "phi3")),
    "position embeddings": ("scale pos_embed by 2", ("gpt2",)),
}
WHOLE = {
    "metrics of every kind": '''prompt "Mary John the store"
zero L0.mlp
metric kl(baseline)
metric entropy
metric top
metric loss
metric r = rank("Mary")
metric lp = logprob("Mary") @[1, last]
metric c = logit_centred("Mary")
metric d = 2 * logit_centred("John") @[1, last]
metric z = 2 * logit("Mary") - (logit("John") - 1)
metric m = {lambda out: out.logits[:, -1].logsumexp(-1)}''',
    "metrics of uneven prompts": '''prompt ["Mary John the store", "w1 w2"]
zero each L*.mlp
metric kl(baseline)
metric loss
metric q = prob("Mary") @[0, last]''',
    "a swept run compared with a swept run": '''prompt a = "Mary John the store"
prompt b = "John John the store"
run one on a:
    zero each L*.mlp
run two on one:
    scale L1.resid_pre by 0.5
metric kl(one)''',
    "causal tracing": '''prompt "Mary John the store w1"
mark subject = "John the"
metric p = prob("Mary")
run corrupted on main:
    noise embed @subject by 3 * sigma samples=4 seed=0
run restored on corrupted:
    patch each L*.mlp @each[subject, last] from baseline window=2''',
    "groups and exceptions": '''prompt "Mary John the store"
prompt abc = ["w1 w2 w3 w4", "w5 w6 w7 w8"]
metric p = prob("Mary")
group movers = L0H1, L1H[0,2]
run circuit on main:
    ablate L*H* except movers with mean over abc
run each_mover on main:
    zero each movers''',
    "sweep variables": '''prompt "Mary John the store"
metric p = prob("Mary")
sweep c in [0, 2, 4.5]
sweep l in 0:2
steer L[l].resid_post @last by c * {vec}''',
    "prompts from Python": '''prompt a = {texts}
prompt b = {ids}
answer "Mary" vs "John"
metric logit_diff
run h on b:
    steer L0.resid_post by {vec}''',
    "marks that stand elsewhere in each prompt": '''prompt a = ["Mary John the store", "w1 John store"]
prompt b = ["w1 w2 John store", "w1 John w3 w4"]
mark s = "John"
metric p = prob("Mary")
run r on b:
    patch L0.resid_post @s from a
    steer L1.resid_post @s by a.L0.resid_post @last
run heads on b:
    patch each L*H* @s from a
run more on b:
    zero L*.resid_post[3,7] @s
    cut each L* @s -> @last''',
    "prompts of different lengths": '''prompt a = "Mary John the store"
prompt b = "w1 w9 w8 John the store"
metric p = prob("Mary")
mark s = "John"
run r on b:
    patch each L*.resid_post @each[s, last] from a''',
    "named values": '''prompt pos = ["Mary w1", "John w2"]
prompt neg = ["w3 w4", "w5 w6"]
metric p = prob("Mary")
let v = mean(pos.L0.resid @last) - mean(neg.L0.resid @last)
let dir = unit(pos.L0.resid @last - neg.L0.resid @last)
run s on pos:
    steer L0.resid by v * 2
    steer L1.resid @last by 3 * dir''',
    "random prompts": "prompt rep = repeat_random(6, batch=3, seed=1)\nmetric loss\nzero L0H1",
    "saved activations": '''prompt "Mary John the store"
metric p = prob("Mary")
zero L0H1
save L*.resid_post @last as stream
save L0H[0,2].z @[0,2]
save L*.pattern as pat
save embed''',
    "saved activations of a sweep": '''prompt ["Mary John the store", "w1 w2 w3 w4"]
zero each L*H*
noise embed by 0.1 samples=3
save L*.resid_post @last as stream''',
    "writing on": "prompt \"Mary John the store\"\nsteer L0.resid by 4 * {vec}\nmetric p = prob(\"Mary\")\ngenerate 6",
    "writing on, with edits that come and go": '''prompt "Mary John the store"
sweep c in [0, 2, 4]
steer L0.resid @prompt by c * {vec}
zero L1H1 @new
steer L0.mlp_out @last by {vec}
clamp L1.mlp_out max=1 steps=[0, 2]
generate 5''',
    "writing on by drawing": '''prompt ["Mary John the store", "w1 w2"]
steer L1.resid by {vec}
cut L0H1 @1 -> @last
generate 5 temperature=0.7 seed=3 samples=2''',
}


@cache
def opened(family: str) -> Any:
    return hl.load("lab") if family == "lab" else hl.load(tiny_models.build(family), tokenizer=tiny_models.tokenizer())


@cache
def bare(family: str) -> Any:
    """The module as transformers has it, never touched by hooklab."""
    return opened("lab").hf if family == "lab" else tiny_models.build(family)


def used(text: str) -> dict[str, Any]:
    return {source: value for source, value in VALUES.items() if "{" + source + "}" in text}


def compare(tmp_path: Any, family: str, text: str) -> None:
    """Run a spec, and both programs written from it; all numbers must agree."""
    model, values = opened(family), used(text)
    plan, run = model.plan(text, values=values), model.run(text, values=values)
    named = {**{name: value for name, value in values.items() if name.isidentifier()}, "vecs": VALUES["vecs"]}
    for write, given in ((to_nnsight, {"model": model}), (to_hooks, {"hf": bare(family), "tokenizer": model.tokenizer})):
        path = tmp_path / f"{write.__name__}.py"
        path.write_text(write(plan, model), encoding="utf-8")
        got = runpy.run_path(str(path), {**given, **named})
        checked = same_numbers(plan, run, got["results"]) + same_saves(run, got.get("saved", {}))
        assert checked > 0


def same_numbers(plan: Any, run: Any, results: Any) -> int:
    count = 0
    for name in (r.name for r in plan.runs if r.metrics):
        for metric in (m.name for m in plan.run(name).metrics):
            swept = plan.run(name).axes
            wanted = torch.tensor(run.scores[f"{name}.{metric}"].values.tolist() if swept else run.metrics[name][metric])
            found = torch.tensor(results[name][metric], dtype=torch.float64)
            torch.testing.assert_close(found, wanted.double(), atol=1e-5, rtol=1e-5)
            count += 1
    for name, texts in run.texts.items():
        rows = results[name]["ids"]
        rows = [row for point in rows for row in point] if plan.run(name).axes else rows
        start = plan.prompts[plan.run(name).prompt].tokens.width
        assert [tuple(row[start:start + len(t.ids)]) for row, t in zip(rows, texts, strict=True)] == [t.ids for t in texts]
        count += 1
    return count


def same_saves(run: Any, saved: Any) -> int:
    assert set(saved) == set(run.data)
    for key, value in run.data.items():
        torch.testing.assert_close(saved[key], value, atol=1e-5, rtol=1e-5)
    return len(saved)


# What programs compute ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "name"), list(enumerate(EDITS)), ids=list(EDITS))
def test_an_edit_gives_the_same_numbers_in_both_programs(tmp_path: Any, number: int, name: str) -> None:
    compare(tmp_path, FAMILIES[number % len(FAMILIES)], EVEN + "    " + EDITS[name])


@pytest.mark.parametrize("name", [name for name in EDITS if name not in (
    "steer by a vector for each position", "ablate by the mean at each position", "ablate by another example",
    "patch every head", "freeze and patch", "patch a path", "patch layers by positions", "patch a pattern",
    "a sweep variable in two lines", "cut after the softmax", "patch from a table",
    "patch named positions in a window", "ablate by the mean of a list from Python")])
def test_an_edit_of_uneven_prompts_gives_the_same_numbers(tmp_path: Any, name: str) -> None:
    compare(tmp_path, "llama" if len(name) % 2 else "gpt2", UNEVEN + "    " + EDITS[name])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SITES)
def test_a_site_is_found_in_every_family(tmp_path: Any, family: str, name: str) -> None:
    compare(tmp_path, family, EVEN + "    " + SITES[name])


@pytest.mark.parametrize(("name", "family"), [(name, family) for name, (_, some) in ONLY_SOME.items() for family in some])
def test_a_site_is_found_in_families_that_have_it(tmp_path: Any, family: str, name: str) -> None:
    compare(tmp_path, family, EVEN + "    " + ONLY_SOME[name][0])


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_spec_gives_the_same_numbers_in_both_programs(tmp_path: Any, name: str) -> None:
    compare(tmp_path, "gpt2" if len(name) % 2 else "gemma2", WHOLE[name])


@pytest.mark.parametrize("verb", [
    "patch each L*.resid @each from clean", "zero each L*H*", "cut each L* @1 -> @last",
    "ablate L*H* with mean over clean", "project_out L*.resid along clean.L2.resid @last",
])
def test_the_shipped_model_gives_the_same_numbers(tmp_path: Any, verb: str) -> None:
    compare(tmp_path, "lab", f'''prompt clean = "When Mary and John went to the store, John gave a drink to"
prompt corrupt = "When Mary and John went to the store, Mary gave a drink to"
answer " Mary" vs " John"
metric logit_diff
run hooked on corrupt:
    {verb}''')


def test_a_continuation_of_the_shipped_model_may_end_early(tmp_path: Any) -> None:
    text = ('prompt "When Mary and John went to the store, John gave a drink to"\n'
            "scale L0.resid by 1.01\ngenerate 12")
    assert opened("lab").run(text).texts["hooked"][0].stopped == "eos"
    with pytest.warns(UserWarning, match="never reached"):
        compare(tmp_path, "lab", text)


def test_a_file_of_tensors_is_read_by_both_programs(tmp_path: Any) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "acts.safetensors"
    save_file({"L0.resid_post": torch.linspace(-1, 1, 32)}, str(path))
    compare(tmp_path, "llama", f'{EVEN}    patch L0.resid_post @last from "{path}"')


# What programs look like --------------------------------------------------------------------------------------------


def test_an_edit_is_one_short_line_that_says_where_it_comes_from() -> None:
    model = opened("gpt2")
    text = EVEN + "    zero L1H[0,2].z @last"
    assert ("    model.layers[1].z[:, -1, [0, 2]] = 0                # line 7: zero L1H[0,2].z @last"
            in to_nnsight(model.plan(text), model).splitlines())
    assert ("    x[:, -1, [0, 2]] = 0                                # line 7: zero L1H[0,2].z @last"
            in to_hooks(model.plan(text), model).splitlines())


def test_a_sweep_is_one_loop_over_its_axes() -> None:
    model = opened("gpt2")
    text = to_nnsight(model.plan(EVEN + "    patch each L*.resid_post @each from clean"), model)
    assert "for layer, pos in product(range(2), range(6)):" in text
    assert 'model.layers[layer].resid_post[:, pos] = clean["resid_post", layer][:, pos]' in text


def test_hooks_need_neither_hooklab_nor_nnsight() -> None:
    model = opened("llama")
    tree = ast.parse(to_hooks(model.plan(EVEN + "    patch L*.pattern from clean\n    zero L0H1"), model))
    imported = [getattr(node, "module", None) or node.names[0].name for node in ast.walk(tree)
                if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imported
    assert {name.split(".")[0] for name in imported} <= {"torch", "transformers", "itertools", "collections"}


@pytest.mark.parametrize("fails", [False, True], ids=["after a pass", "after a pass that failed"])
def test_hooks_are_taken_out(tmp_path: Any, fails: bool) -> None:
    model, hf = opened("llama"), tiny_models.build("llama")
    implementation = hf.config._attn_implementation
    path = tmp_path / "program.py"
    path.write_text(to_hooks(model.plan(EVEN + "    zero L*.pattern\n    steer L0H1 by {vec}", vec=VALUES["vec"]), model))
    given = {"hf": hf, "tokenizer": model.tokenizer, "vec": torch.ones(3) if fails else VALUES["vec"]}
    if fails:
        with pytest.raises(RuntimeError):
            runpy.run_path(str(path), given)
    else:
        runpy.run_path(str(path), given)
    assert not [m for m in hf.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hf.config._attn_implementation == implementation


def test_both_programs_come_as_one_text_that_compiles() -> None:
    text = to_code(EVEN + "    zero L0H1", opened("gpt2"))
    compile(text, "program", "exec")
    assert "with model.trace(corrupt_prompt):" in text
    assert "register_forward_hook(hook)" in text


@pytest.mark.parametrize("ends", ["\r", "\x0c", "\u2028", "\x85", "\x00"], ids=ascii)
@pytest.mark.filterwarnings("ignore::hooklab.errors.HooklabWarning")
def test_a_text_of_a_spec_never_becomes_code(ends: str) -> None:
    evil = f"{ends}open('x', 'w'){ends}"
    text = f'prompt "Mary \\"{evil}\\" {evil}"  # {evil}\nmetric m = logit("Mary")\nsweep c in ["a"]'
    try:
        code = to_code(text, opened("gpt2"))
    except SpecError:
        return  # nothing is written at all
    calls = {getattr(node.func, "id", None) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)}
    assert "logit_diff" not in calls and {"m", "run"} <= calls
    assert "open" not in calls


def test_a_hole_with_a_hash_in_a_string_stays_one_expression(tmp_path: Any) -> None:
    source = 'vec + len("#")'
    model = opened("gpt2")
    plan = model.plan(EVEN + "    steer L0.resid_post by {" + source + "}", values={source: VALUES["vec"] + 1})
    path = tmp_path / "program.py"
    path.write_text(to_nnsight(plan, model))
    got = runpy.run_path(str(path), {"model": model, "vec": VALUES["vec"]})
    wanted = model.run(plan).metrics["hooked"]["p"]
    assert got["results"]["hooked"]["p"] == pytest.approx(wanted, abs=1e-6)


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "word"), [
    ("attribute L*H* with dla", "attribute"), ("lens", "lens"), ("score L*H* with previous", "score"),
    ("noise L0.pattern by 1", "noise"), ("set L0.pattern to clean.L1.pattern", "attention"),
    ("generate 3 stop=\".\"", "stop"), ("save L0.z\n    generate 3", "save"),
])
def test_what_is_not_written_as_code_is_refused_by_name(line: str, word: str) -> None:
    with pytest.raises(CodeError, match=word):
        to_code(EVEN + "    " + line, opened("gpt2"))


def test_a_refusal_names_the_line() -> None:
    with pytest.raises(CodeError, match="^line 7: noise L0.pattern by 1\n"):
        to_code(EVEN + "    noise L0.pattern by 1", opened("gpt2"))


def test_what_hooks_do_not_reach_leaves_the_first_program_and_the_reason() -> None:
    model = opened("gpt_neo")
    text = to_code(EVEN + "    zero L0.pattern @last", model)
    compile(text, "program", "exec")
    assert "model.layers[0].pattern[:, :, -1] = 0" in text
    assert "# pattern is inside the attention of gpt_neo" in text
    with pytest.raises(CodeError, match="line 7"):
        to_hooks(model.plan(EVEN + "    zero L0.pattern @last"), model)


def test_a_spec_with_mistakes_is_refused_as_ever() -> None:
    with pytest.raises(SpecError, match="zeroo"):
        to_code(EVEN + "    zeroo L0.z", opened("gpt2"))


def test_hooks_run_in_a_process_that_never_saw_hooklab(tmp_path: Any) -> None:
    model = opened("gpt2")
    text = EVEN + "    patch each L*H* from clean\n    zero L0.pattern @last"
    (tmp_path / "program.py").write_text(to_hooks(model.plan(text), model))
    (tmp_path / "start.py").write_text(
        "import runpy, sys, tiny_models\n"
        "got = runpy.run_path(sys.argv[1], {'hf': tiny_models.build('gpt2'), 'tokenizer': tiny_models.tokenizer()})\n"
        "assert not {'hooklab', 'nnsight'} & set(sys.modules)\n"
        "print(got['results']['hooked']['logit_diff'])\n")
    here = str(tiny_models.__file__).rpartition("/")[0]
    out = subprocess.run([sys.executable, str(tmp_path / "start.py"), str(tmp_path / "program.py")], check=True, text=True,
                         capture_output=True, env={"PYTHONPATH": here, "PATH": "", "OMP_NUM_THREADS": "1"}).stdout
    wanted = torch.as_tensor(model.run(text).scores["hooked.logit_diff"].values)
    torch.testing.assert_close(torch.tensor(ast.literal_eval(out)).double(), wanted.double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("line", "word"), [("scale L*.mlp_out by sigma", "sigma"), ("zero L0.scores", "unmask"),
                                            ("set L0.scores to 1", "unmask"), ("scale L0.scores by 0", "unmask")])
def test_what_short_code_would_get_wrong_is_refused(line: str, word: str) -> None:
    with pytest.raises(CodeError, match=word):
        to_code(EVEN + "    " + line, opened("gpt2"))


@pytest.mark.parametrize("family", ["gpt2_base", "bert_base"])
def test_a_model_without_a_head_gives_the_same_activations(tmp_path: Any, family: str) -> None:
    compare(tmp_path, family, 'prompt p = "Mary John the store"\nrun a on p:\n    zero L0H1 @-2\n    save L*.resid_post')


@pytest.mark.parametrize("line", ["scale each L*.ln1_scale by 1.5", "scale each L*.ln2 @last by 2", "zero each L*H1 @last",
                                  "scale each L*.q by 0.5", "scale each L*.mlp_out by 0.5",
                                  "scale L*.mlp_pre_linear by 0.5"])
@pytest.mark.parametrize("family", ["nemotron", "olmo", "glm4", "gpt_bigcode", "cohere", "persimmon", "mpt"])
def test_a_relative_gives_the_same_numbers_in_both_programs(tmp_path: Any, family: str, line: str) -> None:
    site = line.split("L*")[1].split()[0].removeprefix(".")
    if site != "H1" and opened(family).layout.missing(site):
        pytest.skip("the family has no such site")
    compare(tmp_path, family, EVEN + "    " + line)


def test_a_number_of_the_config_that_hooks_do_not_see_is_said() -> None:
    model = opened("granite")
    with pytest.raises(CodeError, match="granite multiplies mlp_out by a number"):
        to_hooks(model.plan(EVEN + "    scale L0.mlp_out by 0.5"), model)
