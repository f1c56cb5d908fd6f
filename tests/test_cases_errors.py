"""Specs that a model must refuse: where the error stands, and a word that it must hold."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from oracle import PROMPTS, draws
from safetensors.torch import save_file
from tiny_models import build, tokenizer

import hooklab as hl
from hooklab.errors import HooklabWarning
from hooklab.problems import SpecError

IDS = "prompt {clean}\n"
TEXT = 'prompt "Mary w1 the store John w2"\n'
LONG = "prompt a = {longer}\nprompt b = {clean}\nrun on b:\n    "
ANSWERED = IDS + "answer {right} vs {wrong}\n"


def _boom(*_):
    raise ZeroDivisionError("boom")


GIVEN = {**PROMPTS, "right": 11, "wrong": 17, "answers": [11, 17], "vec": draws(32), "short": torch.zeros(5), "empty": [],
         "per_pos": draws(6, 32), "per_example": draws(2, 6, 32), "cache": {"L0.resid_post": draws(32)}, "text": "hello",
         "none": None, "two": 2.0, "huge": 1000, "function": lambda out: out, "raising": _boom, "big": [8, 1000],
         "three": lambda out: torch.zeros(3), "wordy": lambda out: "x", "too_long": [8] * 65}

ROWS = [
    # Answers and prompts
    ("an answer of two tokens", "gpt2", True, TEXT + 'answer "w1 w2"\nmetric logit\nzero L0H0', "2:8", "first("),
    ("an answer of two tokens shows its pieces", "gpt2", True, TEXT + 'answer "w1 w2"\nmetric logit\nzero L0H0', "2:8",
     "'w1'"),
    ("an answer that the tokenizer lacks", "gpt2", True, TEXT + 'answer "Paris"\nmetric logit\nzero L0H0', "2:8",
     "vocabulary"),
    ("two answers for one prompt", "gpt2", False, IDS + "answer {answers}\nmetric prob\nzero L0H0", "2:8", "2 answers"),
    ("an answer beyond the vocabulary", "gpt2", False, IDS + "answer {huge}\nmetric prob\nzero L0H0", "2:8", "100"),
    ("a fraction as an answer", "gpt2", False, IDS + "answer {two}\nmetric prob\nzero L0H0", "2:8", "answer"),
    ("text for a model without tokenizer", "gpt2", False, 'prompt "Mary"\nzero L0H0', "1:1", "tokenizer"),
    ("a text answer without tokenizer", "gpt2", False, IDS + 'answer " Mary"\nmetric prob\nzero L0H0', "2:8", "tokenizer"),
    ("a function as a prompt", "gpt2", False, "prompt {function}\nzero L0H0", "1:1", "function"),
    ("nothing as a prompt", "gpt2", False, "prompt {empty}\nzero L0H0", "1:1", "empty"),
    ("a prompt beyond the vocabulary", "gpt2", False, "prompt {big}\nzero L0H0", "1:1", "1000"),
    ("a prompt that is too long", "gpt2", False, "prompt {too_long}\nzero L0H0", "1:1", "65 tokens"),
    ("two prompts and lines of neither", "gpt2", False, "prompt a = {clean}\nprompt b = {dirty}\nzero L0H0", "3:1",
     "run on b"),
    # Sources
    ("prompts of different length in a patch", "gpt2", False, LONG + "patch L0.resid from a", "4:5", "8 tokens"),
    ("a patch shows the tokens of the source", "gpt2", False, LONG + "patch L0.resid from a", "4:5", "1:'#20'"),
    ("a patch shows the tokens of the target", "gpt2", False, LONG + "patch L0.resid from a", "4:5", "1:'#12'"),
    ("different lengths under @each", "gpt2", False, LONG + "patch L0.resid @each from a", "4:5", "8"),
    ("a range that is longer in the source", "gpt2", False, LONG + "patch L0.resid @3: from a", "4:5", "5 tokens"),
    ("a source run that comes later", "gpt2", False,
     IDS + "run a on main:\n    patch L0.resid from b\nrun b on main:\n    zero L0H0",
     "3:25", "later"),
    ("a run that takes from itself", "gpt2", False, IDS + "run a on main:\n    patch L0.resid from a", "3:25", "itself"),
    ("more examples in the source", "gpt2", False,
     "prompt a = {batch}\nprompt b = {clean}\nrun on b:\n    patch L0.resid from a",
     "4:5", "2 prompts"),
    ("a run that is swept as a source", "gpt2", False,
     IDS + "run a on main:\n    zero each L0H*\nrun b on main:\n    patch L1.mlp from a",
     "5:5", "swept"),
    ("a corpus of different lengths, position by position", "gpt2", False,
     IDS + "ablate L0.mlp with mean over {ragged} per=pos",
     "2:1", "length"),
    ("a number as a corpus", "gpt2", False, IDS + "ablate L0H0 with mean over {two}", "2:28", "float"),
    ("no such file", "gpt2", False, IDS + 'patch L0.mlp from "none.safetensors"', "2:1", "none.safetensors"),
    ("a file of something else", "gpt2", False, IDS + 'patch L0.mlp from "text.safetensors"', "2:1", "safetensors file"),
    ("a file without the place", "gpt2", False, IDS + 'patch L1.mlp from "flat.safetensors"', "2:1", "L1.mlp_out"),
    ("a file with the wrong shape", "gpt2", False, IDS + 'patch L0.mlp from "flat.safetensors"', "2:1", "[3]"),
    ("a table without the place", "gpt2", False, IDS + "patch L0.mlp from {cache}", "2:1", "L0.mlp_out"),
    # Values
    ("circular lets", "gpt2", False, IDS + "let a = b + 1\nlet b = 2 * a\nsteer L0.resid by a", "2:9", "b"),
    ("a tensor of the wrong shape", "gpt2", False, IDS + "steer L0.resid by {short}", "2:1", "d_model 32"),
    ("a stream vector on a head's values", "gpt2", False, IDS + "steer L0H1.z by {vec}", "2:1", "d_head 8"),
    ("six positions on two", "gpt2", False, IDS + "steer L0.resid @[1,2] by {per_pos}", "2:1", "6 positions"),
    ("two examples on one", "gpt2", False, IDS + "steer L0.resid by {per_example}", "2:1", "2 examples"),
    ("eight positions of a run on six", "gpt2", False, LONG + "steer L0.resid by a.L0.resid", "4:5", "8 positions"),
    ("a value of several layers", "gpt2", False, IDS + "steer L0.resid by L*.mlp", "2:19", "names 2"),
    ("a direction that is zero", "gpt2", False, IDS + "project_out L0.resid along 0 * {vec}", "2:1", "zero"),
    ("a unit of nothing", "gpt2", False, IDS + "steer L0.resid by unit(0 * {vec})", "2:1", "zero"),
    ("shapes that do not go together", "gpt2", False, IDS + "steer L0.resid by {vec} + {short}", "2:1", "[5]"),
    ("a function as a value", "gpt2", False, IDS + "steer L0.resid by {function}", "2:1", "function"),
    ("a string as a value", "gpt2", False, IDS + "steer L0.resid by {text}", "2:1", "str"),
    ("None as a value", "gpt2", False, IDS + "set L0.resid to {none}", "2:1", "NoneType"),
    ("a table as an amount", "gpt2", False, IDS + "steer L0.resid by {cache}", "2:1", "table"),
    ("a table in arithmetic", "gpt2", False, IDS + "steer L0.resid by 2 * {cache}", "2:1", "table"),
    ("a hole without a value", "gpt2", False, IDS + "steer L0.resid by 2 * {unknown}", "2:23", "unknown"),
    ("an expression without a notebook", "gpt2", False, IDS + "steer L0.resid by {a.b + 1}", "2:19", "notebook"),
    ("a prompt without a value", "gpt2", False, "prompt {nothing}\nzero L0H0", "1:8", "nothing"),
    ("a position without a value", "gpt2", False, IDS + "zero L0.resid @{nothing}", "2:15", "nothing"),
    ("an option without a value", "gpt2", False, IDS + "clamp L0.resid min={nothing}", "2:20", "nothing"),
    ("a string as a bound", "gpt2", False, IDS + "clamp L0.resid min={text}", "2:16", "number"),
    ("a string as a window", "gpt2", False, IDS + "scale each L*.mlp by 0 window={text}", "2:24", "number"),
    # Sweeps
    ("a sweep over nothing", "gpt2", False, IDS + "sweep c in []\nsteer L0.resid by c", "2:12", "nothing"),
    ("a sweep over nothing of Python", "gpt2", False, IDS + "sweep c in {empty}\nsteer L0.resid by c", "2:1", "nothing"),
    ("a sweep over an empty range", "gpt2", False, IDS + "sweep c in 3:3\nzero L[c].mlp", "2:12", "3:3"),
    ("a sweep over a number", "gpt2", False, IDS + "sweep c in {two}\nsteer L0.resid by c", "2:1", "list"),
    ("each of no values", "gpt2", False, IDS + "steer L0.resid by each {empty}", "2:19", "no value"),
    ("each of a number", "gpt2", False, IDS + "steer L0.resid by each {two}", "2:24", "list"),
    ("a text as a number", "gpt2", False, IDS + 'sweep c in ["a"]\nsteer L0.resid by c', "3:19", "no number"),
    ("a sweep beyond the layers", "gpt2", False, IDS + "sweep c in 0:5\nzero L[c].mlp", "3:6", "layer 2"),
    ("@each of different numbers", "gpt2", False, "prompt {ragged}\nzero L0.resid @each", "2:15", "@each[subject, last]"),
    # Places
    ("a layer that is not there", "gpt2", False, IDS + "zero L2.mlp", "2:6", "2 layers"),
    ("a layer counted from the end", "gpt2", False, IDS + "zero L-3.mlp", "2:6", "layer -3"),
    ("a range of no layers", "gpt2", False, IDS + "zero L2:5.mlp", "2:6", "2:5"),
    ("a head that is not there", "gpt2", False, IDS + "zero L0H4", "2:6", "4 heads"),
    ("a key head that is not there", "llama", False, IDS + "zero L0H2.k", "2:6", "2 kv_heads"),
    ("a neuron that is not there", "llama", False, IDS + "zero L0N48", "2:6", "48 neurons"),
    ("a dimension that is not there", "gpt2", False, IDS + "zero L0.resid[32]", "2:6", "32 dimensions"),
    ("a position that is not there", "gpt2", False, IDS + "zero L0.resid @6", "2:15", "6 tokens"),
    ("a position that one example lacks", "gpt2", False, "prompt {ragged}\nzero L0.resid @4", "2:15", "example 1"),
    ("no middle in a parallel block", "gpt_neox", False, IDS + "zero L0.resid_mid", "2:6", "parallel"),
    ("no middle to save", "gpt_neox", False, IDS + "save L0.resid_mid", "2:6", "parallel"),
    ("no neurons in a mixture", "mixtral", False, IDS + "zero L0N3", "2:6", "experts"),
    ("no position embedding", "llama", False, IDS + "zero pos_embed", "2:6", "pos_embed"),
    ("an unknown mark", "gpt2", False, IDS + "mark subject = 2\nzero L0.resid @subjekt", "3:16", "subject"),
    ("a position's text that is absent", "gpt2", True, TEXT + 'zero L0.resid @"Paris"', "2:15", "Mary"),
    ("a position's text that comes twice", "gpt2", True, 'prompt "Mary w1 Mary"\nzero L0.resid @"Mary"', "2:15",
     '"Mary"[*]'),
    ("a position's text without tokenizer", "gpt2", False, IDS + 'zero L0.resid @"Mary"', "2:15", "tokenizer"),
    ("images in a text", "gpt2", False, IDS + "cut L* @image -> @last", "2:8", "image"),
    ("new tokens without generate", "gpt2", False, IDS + "zero L0.resid @new", "2:15", "generate"),
    ("steps without generate", "gpt2", False, IDS + "zero L0.resid steps=new", "2:1", "generate"),
    ("nothing left after except", "gpt2", False, IDS + "zero L0H* except L0H*", "2:6", "nothing is left"),
    ("except of what is not there", "gpt2", False, IDS + "zero L0H*.z except L1H1", "2:20", "takes nothing away"),
    ("except at a position", "gpt2", False, IDS + "zero L*H* except L0H1 @2", "2:18", "position"),
    ("a string as a place", "gpt2", False, IDS + "zero {text}", "2:6", "hello"),
    ("a function as a place", "gpt2", False, IDS + "zero {function}", "2:6", "no place"),
    ("no place from Python", "gpt2", False, IDS + "zero {empty}", "2:6", "names no place"),
    ("a string as a position", "gpt2", False, IDS + "zero L0.resid @{text}", "2:15", "hello"),
    ("a function as a position", "gpt2", False, IDS + "zero L0.resid @{function}", "2:15", "no position"),
    ("a table as a position", "gpt2", False, IDS + "zero L0.resid @{cache}", "2:15", "no position"),
    # Edges
    ("everything cut that a query sees", "gpt2", False, IDS + "cut L0 @all -> @3", "2:1", "renorm=false"),
    ("the first token cut from itself", "gpt2", False, IDS + "cut L1H2 @0 -> @0", "2:1", "nothing left"),
    ("an edge backwards", "gpt2", False, IDS + "cut L0 @last -> @1", "2:1", "no such edge"),
    ("no edges to cut", "gpt2", False, IDS + "cut L0.mlp @1 -> @last", "2:8", "edges"),
    # Metrics and readings
    ("a metric without answer", "gpt2", False, IDS + "metric prob\nzero L0H0", "2:8", "answer"),
    ("a metric without a wrong answer", "gpt2", False, IDS + "answer {right}\nmetric logit_diff\nzero L0H0", "3:8", "wrong"),
    ("a metric that is a number", "gpt2", False, IDS + "metric {two}\nzero L0H0", "2:8", "function"),
    ("a metric that fails", "gpt2", False, IDS + "metric {raising}\nzero L0H0", "2:8", "boom"),
    ("a metric of three numbers", "gpt2", False, IDS + "metric {three}\nzero L0H0", "2:8", "3 numbers"),
    ("a metric of words", "gpt2", False, IDS + "metric {wordy}\nzero L0H0", "2:8", "number"),
    ("a metric without logits", "gpt2_base", False, IDS + "answer {right}\nmetric prob\nzero L0H1", "3:8", "no logits"),
    ("kl of different numbers of examples", "gpt2", False,
     "prompt a = {ragged}\nprompt b = {batch}\nmetric kl(a)\nrun on b:\n    zero L0.mlp", "3:8", "3 examples"),
    ("a score that fails", "gpt2", False, IDS + "score L0H0 with {raising}", "2:1", "boom"),
    ("a score that is a number", "gpt2", False, IDS + "score L0H0 with {two}", "2:17", "function"),
    ("direct attribution of queries", "gpt2", False, ANSWERED + "attribute L0.q with dla", "3:1", "L0.q"),
    ("direct attribution through a norm", "gemma2", False, ANSWERED + "attribute L0H1 with dla", "3:1", "attn_out"),
    ("a gradient of a rank", "gpt2", False, ANSWERED + "metric rank\nattribute L0H*", "4:1", "gradient"),
    ("attribution between different lengths", "gpt2", False,
     "prompt a = {longer}\nprompt b = {clean}\nanswer {right} vs {wrong}\n"
     "attribute L*.mlp with patch from a", "4:1", "numbers of tokens"),
    ("writing on with a masked model", "bert", False, IDS + "generate 3", "2:1", "next token"),
    ("writing on too far", "gpt2", False, IDS + "generate 100", "2:1", "generate 59"),
    ("a claim that does not hold", "gpt2", False, ANSWERED + "metric logit_diff\nzero L0H0\nexpect hooked.logit_diff > 1000",
     "5:1",
     "> 1000"),
    ("a claim about a sweep", "gpt2", False, ANSWERED + "metric logit_diff\nzero each L0H*\nexpect hooked.logit_diff > 0",
     "5:1", "max("),
]


@cache
def model(family, words=False):
    return hl.load(build(family), tokenizer=tokenizer() if words else None)


@pytest.mark.parametrize(("family", "words", "text", "place", "word"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_it_is_refused_where_it_stands(family, words, text, place, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file({"L0.mlp_out": torch.zeros(3)}, "flat.safetensors")
    (tmp_path / "text.safetensors").write_text("x" * 100)
    with pytest.raises(SpecError) as caught:
        model(family, words).run(text, values=GIVEN)
    problem = caught.value.problems[0]
    assert f"{problem.line}:{problem.column}" == place
    assert word in f"{problem.message}\n{problem.hint}"
    assert "\n" not in problem.message and len(problem.message) < 400
    assert len(caught.value.problems) == 1


def test_every_mistake_is_reported_at_once():
    with pytest.raises(SpecError) as caught:
        model("gpt2").run("prompt {clean}\nzero L7.mlp\nzero L0H9\nsteer L0.resid @9 by {unknown}\n", values=GIVEN)
    assert [problem.line for problem in caught.value.problems][:2] == [2, 3]
    assert 4 in [problem.line for problem in caught.value.problems]


def test_the_first_of_two_tokens_is_an_answer():
    run = model("gpt2", True).run(TEXT + 'answer first("w1 w2") vs "w3"\nmetric logit_diff\nsave logits\n')
    logits = run["logits"][0, -1]
    assert run.metrics["main"]["logit_diff"] == pytest.approx(float(logits[13] - logits[15]), abs=1e-6)


def test_a_metric_that_is_no_number_is_kept_with_a_warning():
    with pytest.warns(HooklabWarning, match="NaN"):
        run = model("gpt2").run(IDS + "metric bad = {f}\nmetric entropy\nzero L0H1\n",
                                values={**GIVEN, "f": lambda out: float("nan")})
    assert run.metrics["hooked"]["bad"] != run.metrics["hooked"]["bad"]
    assert run.metrics["hooked"]["entropy"] > 0
