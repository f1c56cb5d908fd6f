"""Evaluations: replies, choices, edits, grids, resuming. Oracles: a bare transformers module, and sums by hand."""

from __future__ import annotations

import functools
import json
import math
import os
import random
import re
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_models
import torch
from test_multimodal import seeing

import hooklab as hl
from hooklab.data.evaluation import job as evaluate_job
from hooklab.data.evaluation.evaluate import evaluate
from hooklab.data.evaluation.folder import Folder, Row, read
from hooklab.data.evaluation.pictures import Seen, continued
from hooklab.data.evaluation.prompts import FINAL_ANSWER
from hooklab.data.evaluation.record import Evaluation
from hooklab.data.evaluation.running import Runner
from hooklab.data.tasks.graders import Grade
from hooklab.data.tasks.pictures import IMAGE
from hooklab.data.tasks.tasks import Question, load_task
from hooklab.errors import PromptError, RecordError
from hooklab.problems import SpecError

RECEIVERS = [("When Mary and John went to the store, John gave a drink to", " Mary", " John"),
             ("When Mary and John went to the store, Mary gave a drink to", " John", " Mary"),
             ("Then Simon and Adam went to the office. Simon passed a small drink to", " Adam", " Simon"),
             ("Yesterday Bruno and Julia met at the park. Bruno handed the coin to", " Julia", " Bruno"),
             ("When Daniel and Peter went to the station, Peter showed the ring to", " Daniel", " Peter"),
             ("After Maria and Simon went to the harbor, Maria gave a flower to", " Simon", " Maria")]
FACTS = [("The capital of France is", "Paris"), ("Paris is the capital of", "France"), ("The capital of Italy is", "Rome"),
         ("In order: Monday, Tuesday,", "Wednesday"), ("The Eiffel Tower is in the city of", "Paris")]
RAGGED = [("w1 w2 Mary w7 w9", " w3 w4", " w5"), ("w6", " w8 w9 w10", " w8 w11"), ("the store w20", " John", " w12 w13")]
WORD = re.compile(r"^\s*(\w+)")


def pairs(rows=RECEIVERS):
    """Questions with a right and a wrong continuation."""
    return load_task("pairs", [{"prompt": a, "right": b, "wrong": c, "kind": "first" if i < 2 else "second"}
                               for i, (a, b, c) in enumerate(rows)])


def facts(rows=FACTS):
    """Questions with a free answer."""
    return [Question(f"fact {i}", a, answer=b, metadata={"order": i}) for i, (a, b) in enumerate(rows)]


@functools.cache
def lab():
    return hl.load("lab")


@functools.cache
def tiny(name):
    return hl.load(tiny_models.build(name), tokenizer=tiny_models.tokenizer())


@pytest.fixture
def model():
    return lab()


def choice_by_hand(hf, given, whole):
    """The log-probability of the tokens after the first `given`, without padding."""
    with torch.no_grad():
        logs = hf(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return sum(float(logs[i - 1, whole[i]]) for i in range(given, len(whole)))


# Choices -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "normalise"), [("llama", None), ("gpt2", None), ("llama", "tokens"),
                                                 ("gpt2", "characters")])
def test_the_log_probability_of_a_choice_is_the_sum_over_its_tokens_on_a_ragged_batch(name, normalise):
    model, hf = tiny(name), tiny_models.build(name)
    found = evaluate(model, pairs(RAGGED), how="choices", normalise=normalise)
    words = model.tokenizer.convert_tokens_to_ids
    for row, (prompt, *choices) in zip(found, RAGGED, strict=True):
        given = len(prompt.split())
        sums = [choice_by_hand(hf, given, words((prompt + one).split())) for one in choices]
        sizes = {None: [1, 1], "tokens": [len(one.split()) for one in choices], "characters": [len(one) for one in choices]}
        expected = np.array(sums) / sizes[normalise]
        np.testing.assert_allclose(row.log_probs, expected, rtol=1e-4)
        assert row.answer == choices[int(expected.argmax())]
        assert row.score == float(expected.argmax() == 0)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_letters_stand_for_the_choices_that_the_prompt_lists(name):
    model, hf = tiny(name), tiny_models.build(name)
    rows = [{"question": "w1 w2", "choices": ["w3", "w4", "w5"], "answer": 2},
            {"question": "w6 w7 w8 w9", "choices": ["w4", "w3"], "answer": "A"}]
    letters = {"A": " Mary", "B": " John", "C": " store"}  # words that this tokenizer knows
    some = load_task("jsonl", rows, template="{question}")
    found = evaluate(model, some, how="choices", prompt=lambda question: question.prompt.split("\n")[0],
                     choices_as=lambda question: [letters[one] for one in "ABC"[:len(question.choices)]])
    words = model.tokenizer.convert_tokens_to_ids
    for row, question in zip(found, some, strict=True):
        prompt = words(question.prompt.split("\n")[0].split())
        sums = [choice_by_hand(hf, len(prompt), [*prompt, *words([letters["ABC"[i]].strip()])])
                for i in range(len(question.choices))]
        np.testing.assert_allclose(row.log_probs, sums, rtol=1e-4)
        assert row.answer == "ABC"[int(np.argmax(sums))]
        assert row.score == float(row.answer == question.answer)


def test_whole_texts_are_compared_where_there_is_no_prompt(model):
    found = evaluate(model, pairs([("", "The keys to the cabinet are", "The keys to the cabinet is")]), how="choices")
    whole = [model.tokenizer(text)["input_ids"] for text in ("The keys to the cabinet are", "The keys to the cabinet is")]
    np.testing.assert_allclose(found.rows[0].log_probs, [choice_by_hand(model.hf, len(ids) - 1, ids) for ids in whole],
                               rtol=1e-4)
    assert found.rows[0].score == 1


def test_zeroing_the_early_heads_makes_the_receiver_wrong_and_late_heads_do_not_matter(model):
    found = evaluate(model, pairs(), how="choices", edits="zero {heads}", grid={"heads": ["L0H*", "L4H*"]})
    hf, expected = model.hf, []
    for layer in (None, 0, 4):
        handle = None if layer is None else hf.transformer.h[layer].attn.c_proj.register_forward_pre_hook(
            lambda _, args: (torch.zeros_like(args[0]),))
        for prompt, right, wrong in RECEIVERS:
            ids, ends = model.tokenizer(prompt)["input_ids"], model.tokenizer.convert_tokens_to_ids([right, wrong])
            ends = [model.tokenizer(prompt + one)["input_ids"][-1] for one in (right, wrong)]
            expected.append([choice_by_hand(hf, len(ids), [*ids, end]) for end in ends])
        if handle is not None:
            handle.remove()
    by_hand = np.array(expected).reshape(3, len(RECEIVERS), 2).transpose(1, 0, 2)
    np.testing.assert_allclose(np.array([row.log_probs for row in found]).reshape(by_hand.shape), by_hand, atol=2e-4)
    right = (by_hand[..., 0] > by_hand[..., 1]).astype(float)
    assert right[:, 0].mean() == right[:, 2].mean() == 1
    assert right[:, 1].mean() <= 0.5
    np.testing.assert_allclose(found.accuracy().sel(heads="L0H*").values, right[:, 1].mean())
    assert found.accuracy().coords == {"heads": ("L0H*", "L4H*")}
    change = found.difference()
    np.testing.assert_allclose(change.examples, right[:, 1:] - right[:, :1])
    np.testing.assert_allclose(change.values, (right[:, 1:] - right[:, :1]).mean(0))
    assert change.low[0] <= change.values[0] <= change.high[0] <= 0
    assert change.p[1] == 1
    assert float(found.baseline()) == 1


def test_a_grid_of_two_names_has_a_cell_for_every_combination(model):
    found = evaluate(model, pairs(RECEIVERS[:2]), how="choices", edits="scale {where} by {much}",
                     grid={"where": ["L0.attn_out", "L3.mlp_out"], "much": {"off": 0, "as is": 1}})
    assert found.accuracy().axes == ("where", "much")
    assert found.complete
    assert len(found) == 2 * 5
    as_is = [row for row in found if row.grid.get("much") == "as is"]
    plain = {row.id: row.log_probs for row in found if row.cell == 0}
    assert len(as_is) == 4
    for row in as_is:
        np.testing.assert_allclose(row.log_probs, plain[row.id], rtol=1e-5)
    one = evaluate(model, pairs(RECEIVERS[:2]), how="choices", edits="zero L0.attn_out")
    off = [row.log_probs for row in found if row.grid == {"where": "L0.attn_out", "much": "off"}]
    np.testing.assert_allclose(off, [row.log_probs for row in one if row.cell], rtol=1e-5)


def test_choices_that_are_equally_likely_are_no_answer(model):
    found = evaluate(model, pairs(RECEIVERS[:2]), how="choices", edits="set logits to 0")
    assert [(row.answer, row.score) for row in found if row.cell] == [(None, 0.0)] * 2
    assert found.rows[1].reason == "several choices are equally likely"


# Replies -------------------------------------------------------------------------------------------------------------


def test_replies_are_what_the_bare_model_writes_whatever_stands_beside_them(model):
    found = evaluate(model, facts(), max_new_tokens=4, extract=WORD)
    for row, (prompt, answer) in zip(found, FACTS, strict=True):
        ids = torch.tensor([model.tokenizer(prompt)["input_ids"]])
        written = model.hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
        new = model.tokenizer.decode(written[0, ids.shape[1]:], skip_special_tokens=True)
        assert row.reply == new
        assert (row.answer, row.score) == (new.split()[0].strip(".,"), float(new.split()[0].strip(".,") == answer))
    mixed = random.Random(1).sample(facts(), len(FACTS))
    again = evaluate(model, mixed, max_new_tokens=4, extract=WORD, batch_size=2)
    assert {row.id: row.reply for row in again} == {row.id: row.reply for row in found}
    assert [row.id for row in again] == [question.id for question in mixed]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_replies_are_the_same_with_and_without_capture_in_any_order(model, tmp_path, temperature):
    how = dict(max_new_tokens=6, temperature=temperature, seed=3)
    plain = evaluate(model, facts(), **how)
    captured = evaluate(model, facts()[::-1], **how, capture="embed, L*.resid_post", out=tmp_path / "kept", batch_size=3)
    assert {row.id: row.reply for row in plain} == {row.id: row.reply for row in captured}
    other = evaluate(model, facts(), max_new_tokens=6, temperature=temperature, seed=4)
    assert ([row.reply for row in other] == [row.reply for row in plain]) == (temperature == 0)


@pytest.mark.parametrize("edits", ["noise embed by 1", "ablate L0.mlp_out over main per=all",
                                   "steer L1.resid_post by mean(main.L1.resid_post)"])
def test_draws_and_means_are_the_same_for_a_question_whatever_stands_beside_it(model, edits):
    how = dict(how="choices", edits=edits, seed=5)
    found = evaluate(model, pairs(), **how)
    alone = evaluate(model, pairs()[3:4], **how)
    assert alone.rows[1].log_probs == next(row.log_probs for row in found if row.id == alone.rows[1].id and row.cell)


def test_activations_of_a_reply_are_those_of_one_pass_over_it(model, tmp_path):
    found = evaluate(model, facts()[:3], max_new_tokens=4, edits="zero L1H0", capture=["L2.resid_post", "L0.pattern"],
                     out=tmp_path / "kept")
    store = found.store()
    assert [row.activations for row in found] == ["0:fact 0", "1:fact 0", "0:fact 1", "1:fact 1", "0:fact 2", "1:fact 2"]
    for row in found:
        tokens = store.tokens(row.activations)
        edits = {"L1H0.z": torch.zeros_like} if row.cell else None
        whole = model.capture([tokens], ["L2.resid_post", "L0.pattern"], edits=edits)
        kept = found.activations(row)
        torch.testing.assert_close(kept["L2.resid_post"], whole["L2.resid_post"][0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(kept["L0.pattern"], whole["L0.pattern"][0], rtol=1e-4, atol=1e-4)
        assert model.tokenizer.decode(tokens, skip_special_tokens=True).startswith(row.prompt)
    assert set(store.where(score=0.0, cell=1).ids) == {row.activations for row in found if row.cell and not row.score}


@pytest.mark.parametrize("rows", [RECEIVERS[:3], [("The capital of France is", " Paris.", " Berlin"),
                                                  ("Paris is the capital of", " France", " Spain.")]])
def test_activations_beside_choices_are_those_of_the_prompt(model, tmp_path, rows):
    found = evaluate(model, pairs(rows), how="choices", capture="L3.resid_post", capture_at="last", out=tmp_path / "kept")
    plain = evaluate(model, pairs(rows), how="choices")
    assert [row.answer for row in found] == [row.answer for row in plain]
    np.testing.assert_allclose([row.log_probs for row in found], [row.log_probs for row in plain], rtol=1e-5)
    for row, (prompt, *_) in zip(found, rows, strict=True):
        whole = model.capture(prompt, "L3.resid_post")["L3.resid_post"][0]
        torch.testing.assert_close(found.activations(row)["L3.resid_post"], whole[-1:], rtol=1e-4, atol=1e-4)
        store = found.store()
        assert store.example(store.number_of[row.activations])[3] == {"L3.resid_post": [len(whole) - 1]}


@pytest.mark.parametrize("edits", ["", 'prompt clean = "w1"\nzero L0H0'])
@pytest.mark.parametrize("how", ["generate", "choices"])
def test_a_tokenizer_that_pads_on_the_right_gives_the_same_activations(tmp_path, how, edits):
    model = tiny("llama")
    found = evaluate(model, pairs(RAGGED), how=how, max_new_tokens=3, edits=edits, capture="L1.resid_post, L1.pattern",
                     out=tmp_path / "kept")
    assert model.tokenizer.padding_side == "right"
    for row in found:
        whole = model.capture([found.store().tokens(row.activations)], ["L1.resid_post", "L1.pattern"],
                              edits={"L0H0.z": torch.zeros_like} if row.cell else None)
        for site, value in found.activations(row).items():
            torch.testing.assert_close(value, whole[site][0], rtol=1e-4, atol=1e-4)


def test_a_prompt_goes_through_a_template_or_a_chat():
    some = [Question("q", "w1 w2", ("w3", "w4"), "A", {"hint": "the store"})]
    found = evaluate(tiny("llama"), some, prompt="{hint} w9 {prompt}", chat=True, max_new_tokens=2)
    assert found.rows[0].prompt == "user : the store w9 w1 w2 assistant :"
    assert evaluate(tiny("llama"), some, prompt="{prompt} {hint}", max_new_tokens=2).rows[0].prompt == "w1 w2 the store"
    turns = evaluate(tiny("llama"), some, prompt=lambda q: [{"role": "user", "content": q.choices[1]}], max_new_tokens=2)
    assert turns.rows[0].prompt == "user : w4 assistant :"
    with pytest.raises(RecordError, match=r"\{hnit\}.*Did you mean"):
        evaluate(tiny("llama"), some, prompt="{hnit}")


SCRIPT = {"none": "I do not know.", "one": "Because.\nFINAL ANSWER: (B)", "several": "FINAL ANSWER: A\nNo.\nFinal Answer: B",
          "trailing": "FINAL ANSWER: B\nHope this helps!", "lower": "final answer: b", "empty": ""}


def test_a_row_for_every_scripted_reply_with_the_answer_that_it_states():
    some = [Question(name, name, ("Ulna", "Femur"), "B") for name in SCRIPT]
    prompts = []
    found = evaluate(None, some, prompt=FINAL_ANSWER, extract="FINAL ANSWER:",
                     reply=lambda prompt: prompts.append(prompt) or SCRIPT[prompt.split("\n")[0]])
    table = found.to_pandas().set_index("id")
    assert list(table.index) == list(SCRIPT)
    assert table.answer.astype(object).where(table.answer.notna(), None).to_dict() == {
        "none": None, "one": "(B)", "several": "B", "trailing": "B", "lower": "b", "empty": None}
    assert table.score.to_dict() == {"none": 0, "one": 1, "several": 1, "trailing": 1, "lower": 1, "empty": 0}
    assert table.reason["none"] == "no answer"
    assert all("FINAL ANSWER" in prompt for prompt in prompts)
    np.testing.assert_allclose(found.accuracy().values, 4 / 6)


def test_a_grader_of_ones_own_and_accuracy_by_a_key_of_the_metadata():
    some = [Question(str(i), f"{i}", answer=str(i * i), metadata={"parity": "odd" if i % 2 else "even"}) for i in range(6)]
    found = evaluate(None, some, reply=lambda prompt: str(int(prompt) ** 2 + (prompt == "3")),
                     grade=lambda answer, question: Grade(0.5, "near") if answer != question.answer else 1)
    by = found.accuracy(by="parity")
    assert by.axes == ("parity",)
    np.testing.assert_allclose(by.sel(parity="odd").values, (1 + 0.5 + 1) / 3)
    np.testing.assert_allclose(by.sel(parity="even").values, 1)
    with pytest.raises(RecordError, match=r"no 'party'.*Did you mean"):
        found.accuracy(by="party")


def test_the_potemkin_rate_counts_every_concept_once():
    coherent = {"haiku": [1, 1, 1, 0], "sunk cost": [1, 0]}
    some = [Question(f"{name}/{i}", str(one), answer="1", metadata={"concept": name})
            for name, items in coherent.items() for i, one in enumerate(items)]
    rate = evaluate(None, some, reply=lambda prompt: prompt).potemkin_rate(by="concept")
    means = [3 / 4, 1 / 2]
    assert rate.value == 2 * (1 - sum(means) / 2)
    assert rate.error == pytest.approx(2 * np.std(means, ddof=1) / math.sqrt(2))


# Folders -------------------------------------------------------------------------------------------------------------

KEPT = dict(max_new_tokens=3, extract=WORD, edits="zero {heads}", grid={"heads": ["L0H*", "L2H1"]},
            capture="L1.resid_post", capture_at="prompt", batch_size=1)


def killed(work):
    """Run in a child that ends by SIGKILL."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("moment", ["before the rows", "after the rows"])
def test_a_run_that_was_killed_goes_on_and_computes_nothing_twice(model, tmp_path, monkeypatch, moment):
    whole = evaluate(model, facts(), **KEPT, out=tmp_path / "whole")

    def dies(done, total, what):
        if done >= 6:
            os.kill(os.getpid(), signal.SIGKILL)

    def dies_before(folder, rows):
        if len(folder.rows) >= 6:
            os.kill(os.getpid(), signal.SIGKILL)
        own(folder, rows)

    own = evaluate_job.Folder.add
    with monkeypatch.context() as patched:
        if moment == "before the rows":
            patched.setattr(evaluate_job.Folder, "add", dies_before)
        killed(lambda: evaluate(model, facts(), **KEPT, out=tmp_path / "cut",
                                progress=dies if moment == "after the rows" else None))
    rows = (tmp_path / "cut" / "rows.jsonl").read_text()
    before = {json.loads(line)["id"] for line in rows.splitlines()}
    assert len(rows.splitlines()) == 6
    assert not Evaluation.load(tmp_path / "cut").complete
    (tmp_path / "cut" / "rows.jsonl").open("a").write(rows[:40])  # a line that was being written
    asked = []
    monkeypatch.setattr(Runner, "_written", lambda self, some, own=Runner._written: asked.extend(
        one.question.id for one in some) or own(self, some))
    found = evaluate(model, facts(), **KEPT, out=tmp_path / "cut")
    assert len(asked) == 3
    assert not set(asked) & before
    assert found.rows == whole.rows == Evaluation.load(tmp_path / "cut").rows
    assert sorted((tmp_path / "cut" / "rows.jsonl").read_text().splitlines()) == sorted(
        (tmp_path / "whole" / "rows.jsonl").read_text().splitlines())
    for row in found:
        torch.testing.assert_close(found.activations(row), whole.activations(row), rtol=0, atol=0)
    assert found.store().complete
    assert found.store().verify() == ()
    asked.clear()
    assert evaluate(model, facts(), **KEPT, out=tmp_path / "cut").rows == whole.rows
    assert asked == []


def test_a_folder_is_never_written_over_and_something_else_is_not_continued(model, tmp_path):
    how = dict(how="choices", edits="scale {where} by {v}", grid={"where": ["L0.attn_out"]}, out=tmp_path / "kept")
    evaluate(model, pairs(), values={"v": torch.zeros(1)}, **how)
    before = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    changed = [("values", pairs(), {"v": torch.ones(1)}, {}), ("questions", pairs()[1:], {"v": torch.zeros(1)}, {}),
               ("grid", pairs(), {"v": torch.zeros(1)}, {"grid": {"where": ["L1.attn_out"]}}),
               ("edits", pairs(), {"v": torch.zeros(1)}, {"edits": "scale {where} by 2 * {v}"}),
               ("normalise", pairs(), {"v": torch.zeros(1)}, {"normalise": "tokens"}),
               ("seed", pairs(), {"v": torch.zeros(1)}, {"seed": 1})]
    for what, questions, values, more in changed:
        with pytest.raises(RecordError, match=f"something else: {what} was"):
            evaluate(model, questions, values=values, **{**how, **more})
    weight = model.hf.transformer.h[0].mlp.c_fc.bias
    with torch.no_grad():
        weight += 1
        try:
            with pytest.raises(RecordError, match="something else: model was"):
                evaluate(model, pairs(), values={"v": torch.zeros(1)}, **how)
        finally:
            weight -= 1
    with pytest.raises(RecordError, match="holds an evaluation already"):
        evaluate(model, pairs(), values={"v": torch.zeros(1)}, resume=False, **how)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(RecordError, match=r"holds no evaluation, but notes\.txt"):
        evaluate(model, pairs(), how="choices", out=tmp_path / "mine")


def test_a_function_that_changed_is_something_else(tmp_path):
    how = dict(reply=lambda prompt: "x", out=tmp_path / "kept")
    evaluate(None, facts(), grade=lambda answer, question: answer == "x", **how)
    with pytest.raises(RecordError, match="something else: grade was"):
        evaluate(None, facts(), grade=lambda answer, question: answer == "y", **how)


def test_damage_is_named(tmp_path):
    evaluate(None, facts(), reply=lambda prompt: "x", out=tmp_path / "kept")
    rows, manifest = tmp_path / "kept" / "rows.jsonl", tmp_path / "kept" / "manifest.json"
    lines = rows.read_bytes().splitlines(keepends=True)
    rows.write_bytes(b"".join([lines[0], b'{"id":\n', *lines[2:]]))
    with pytest.raises(RecordError, match="line 2 was changed"):
        Evaluation.load(tmp_path / "kept")
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(RecordError, match="was changed"):
        Evaluation.load(tmp_path / "kept")
    manifest.write_text(whole.replace('"evaluation": 1', '"evaluation": 9'))
    with pytest.raises(RecordError, match="version 9 of the format.*newer"):
        Evaluation.load(tmp_path / "kept")


# Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "says"), [
    ({"edits": "zero {a}"}, r"no value for \{a\}"),
    ({"edits": "zero L0H0 @{a}"}, r"no value for \{a\}"),
    ({"edits": "let v = {a}\nsteer L0.mlp_out by v", "grid": {"a": [1]}}, "which all cells share"),
    ({"edits": "zero L0H0", "values": {"a": 1}}, "values= has 'a'"),
    ({"edits": "zero L0H0", "grid": {"a": [1]}}, r"\{a\}, which no edit has"),
    ({"edits": "zero {a}", "grid": {"a": []}}, "takes a list of values"),
    ({"edits": "zero {score}", "grid": {"score": ["L0H0"]}}, "cannot name an axis"),
    ({"edits": "zero {a}", "grid": {"a": ["L0H0", "L0H0"]}}, "a value twice"),
    ({"edits": "zero each L0H*"}, "a sweep of its own"),
    ({"edits": "generate 5"}, "is no edit"),
    ({"edits": "mark here = 0"}, "only declare"),
    ({"how": "choose"}, "Did you mean \"choices\""),
    ({"how": "choices", "extract": "A:"}, "a choice is an answer already"),
    ({"how": "choices", "choices_as": "words"}, "choices_as='words'"),
    ({"how": "choices", "edits": "zero L0H0 @last"}, "choices of several tokens"),
    ({"capture": "L0.z"}, "activations go to a folder"),
    ({"capture": "L0.z @last", "out": "x"}, "capture_at="),
    ({"capture": "L0H1.z", "out": "x"}, "part of a site"),
    ({"max_new_tokens": 0}, "a whole number from 1"),
    ({"temperature": -1}, "0 or more"),
    ({"temperature": math.nan}, "0 or more"),
    ({"top_k": 0, "temperature": 1.0}, "top_k=0: it is a whole number from 1"),
    ({"top_p": 1.5, "temperature": 1.0}, "top_p=1.5: it is a number above 0, up to 1"),
    ({"top_k": 5}, "a temperature above 0"),
    ({"top_p": 0.5, "temperature": 1.0, "how": "choices"}, 'goes with how="generate"'),
    ({"temprature": 1.0}, 'no option \'temprature\'. Did you mean "temperature"'),
    ({"reply": str}, "give one of them"),
    ({"path": "x"}, "the name of a task"),
])  # fmt: skip
def test_mistakes_are_said_before_anything_runs(model, options, says):
    with pytest.raises(RecordError, match=says):
        evaluate(model, pairs([("The capital of France is", " Paris.", " Berlin")]), **options)


@pytest.mark.parametrize("how", ["generate", "choices"])
@pytest.mark.parametrize(("edits", "grid", "place"), [
    ("# why\n\nzero L0H0\nzero  L0.z, L9H0  # here\n", None, (4, 13)),
    ("zero L9H0\nprompt other = \"Paris\"\npatch L0.z @last from other", None, (1, 6)),
    ("let v = 1\n\nprompt other = \"Paris\"\n\nscale L0.z by v\nscale {w} by 2\nzero L8.mlp_out", {"w": ["L0.z", "L1.z"]},
     (7, 6))])
def test_lines_of_wrong_edits_count_as_in_the_text_that_was_given(model, edits, grid, place, how):
    with pytest.raises(SpecError, match="no layer [89]") as found:
        evaluate(model, pairs(), edits=edits, grid=grid, how=how)
    (problem,) = found.value.problems
    assert (problem.line, problem.column) == place and found.value.text == edits
    assert f"(line {place[0]}, column {place[1]})" in str(found.value) and "main" not in str(found.value)
    assert edits.split("\n")[place[0] - 1] in str(found.value)


def test_draws_are_among_the_likeliest_and_the_same_for_the_same_seed(model, tmp_path):
    greedy = [row.reply for row in evaluate(model, facts(), max_new_tokens=4)]
    options = dict(max_new_tokens=4, temperature=5.0)
    for among in ({"top_k": 1}, {"top_p": 1e-6}):
        assert [row.reply for row in evaluate(model, facts(), **options, **among)] == greedy
    found = [[row.reply for row in evaluate(model, facts(), **options, top_k=50, seed=seed)] for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2] and greedy not in found
    evaluate(model, facts(), **options, top_k=50, out=tmp_path / "e", seed=1)
    with pytest.raises(RecordError, match="top_k was 50 and is 40"):
        evaluate(model, facts(), **options, top_k=40, out=tmp_path / "e", seed=1)


def test_mistakes_of_a_question_name_it(model):
    with pytest.raises(RecordError, match=r"'row/1'.*same to this model's tokenizer"), pytest.warns(UserWarning):
        evaluate(model, pairs([("The capital of", " Xanadu", " Utopia")]), how="choices")
    with pytest.raises(RecordError, match=r"'fact 0' has no choices"):
        evaluate(model, facts(), how="choices")
    with pytest.raises(PromptError, match="'fact 0' takes .* positions"):
        evaluate(model, facts(), max_new_tokens=10_000)
    with pytest.raises(RecordError, match="id 'fact 0'"):
        evaluate(model, [*facts(), facts()[0]])
    with pytest.raises(SpecError, match="no layer 9"):
        evaluate(model, facts(), edits="zero L9H0")
    with pytest.raises(RecordError, match=r"'fact 0': reply= gave 3"):
        evaluate(None, facts(), reply=lambda prompt: 3)


def test_it_shows_itself_as_text_and_as_a_view(model):
    found = evaluate(model, pairs(), how="choices", edits="zero {heads}", grid={"heads": ["L0H*", "L4H*"]})
    lines = repr(found).splitlines()
    assert lines[0] == "Evaluation: 6 questions · choices"
    assert lines[1] == "  as it is    100.0 % right"
    assert [line.split()[0] for line in lines[2:]] == ["heads=L0H*", "heads=L4H*"]
    assert found.show() is not None
    assert evaluate(model, pairs(), how="choices").show() is not None


def test_rows_that_could_not_be_written_leave_those_before_and_the_folder_free(tmp_path):
    class Full:
        """Takes ten bytes, and no more."""

        def __init__(self, file):
            self.file, self.left = file, 10

        def write(self, data):
            if not self.left:
                raise OSError(28, "No space left on device")
            n, self.left = self.file.write(data[:self.left]), 0
            return n

        def __getattr__(self, name):
            return getattr(self.file, name)

    def row(n):
        return Row(n, f"q{n}", 0, {}, "p", "half \ud800", None, "a", 1.0, "")

    with Folder(tmp_path / "e", {}, {"rows": 2}, resume=True) as folder:
        folder.add([row(0)])
        whole = (tmp_path / "e" / "rows.jsonl").read_bytes()
        folder._file = Full(folder._file)
        with pytest.raises(RecordError, match="No space left"):
            folder.add([row(1)])
        assert (tmp_path / "e" / "rows.jsonl").read_bytes() == whole
    with Folder(tmp_path / "e", {}, {"rows": 2}, resume=True) as folder:
        folder.add([row(1)])
        assert [one.reply for one in read(tmp_path / "e")[1]] == ["half \ud800"] * 2


def test_a_prompt_that_is_no_text_is_named_by_its_question(model):
    with pytest.raises(PromptError, match="question 'q': its prompt is no valid text"):
        evaluate(model, [Question("q", "half \ud800", answer="a")])


# Pictures ------------------------------------------------------------------------------------------------------------


LOOKED_AT = [("a cat", (0,)), ("this <> is a dog", (1,)), ("<> a <> cat", (2, 3)), ("this is this is a cat <>", (4,))]


def looked_at(**more):
    """Questions about pictures, a ragged batch; where a text does not say so, the picture is before it."""
    return [Question(f"q{i}", text.replace("<>", IMAGE), answer="dog", images=tuple(map(tiny_models.image, seeds)), **more)
            for i, (text, seeds) in enumerate(LOOKED_AT)]


def bare(model, question):
    """What the processor makes of a question, without hooklab."""
    text = question.prompt if IMAGE in question.prompt else f"{IMAGE}\n{question.prompt}"
    found = model.processor(text=[text.replace(IMAGE, "<image>")], images=list(question.images), return_tensors="pt")
    return {key: value for key, value in found.items() if key in ("input_ids", "pixel_values")}


@pytest.mark.parametrize("name", ["chameleon", "llava"])
def test_a_question_with_pictures_is_answered_as_transformers_generates(name, tmp_path):
    model, _, _ = seeing(name)
    found = evaluate(model, looked_at(), max_new_tokens=4, capture="L0.resid_post", out=tmp_path / "e",
                     grade=lambda answer, question: 1.0)
    replies = set()
    for row, question in zip(found, looked_at(), strict=True):
        given = bare(model, question)
        with torch.no_grad():
            whole = model.hf.generate(**given, attention_mask=torch.ones_like(given["input_ids"]), max_new_tokens=4,
                                      do_sample=False, eos_token_id=None)[0].tolist()
        assert found.store().tokens(row.activations) == whole[:-1]
        new = whole[given["input_ids"].shape[1]:]
        assert row.reply.split() == model.tokenizer.decode(new, skip_special_tokens=True).split()
        replies.add(tuple(new))
        with torch.no_grad():
            states = model.hf(**{**given, "input_ids": torch.tensor([whole[:-1]])}, output_hidden_states=True).hidden_states
        torch.testing.assert_close(found.activations(row)["L0.resid_post"], states[1][0], atol=1e-4, rtol=0)
    assert len(replies) > 1


@pytest.mark.parametrize("choices", [("dog", "this is", "cat"), ("dog", "cat")])
@pytest.mark.parametrize("name", ["chameleon", "llava"])
def test_choices_about_pictures_are_as_likely_as_logits_say_with_and_without_an_edit(name, choices):
    model, _, _ = seeing(name)
    some = looked_at(choices=choices)
    found = evaluate(model, some, how="choices", choices_as=lambda question: [f" {one}" for one in question.choices],
                     edits="zero L0.mlp_out @image", batch_size=3)
    layer = blocks(model.hf)[0].mlp
    rows = iter(found)
    for question in some:
        given = bare(model, question)
        n, expected = given["input_ids"].shape[1], []
        at = given["input_ids"][0] == {"chameleon": 7, "llava": 99}[name]

        def off(_, args, out, at=at):
            out[:, :len(at)][:, at] = 0

        for edited in (False, True):
            handle = layer.register_forward_hook(off) if edited else None
            for choice in choices:
                ids = model.tokenizer(choice, add_special_tokens=False)["input_ids"]
                whole = torch.cat([given["input_ids"], torch.tensor([ids])], 1)
                with torch.no_grad():
                    logs = model.hf(input_ids=whole, pixel_values=given["pixel_values"]).logits[0].double().log_softmax(-1)
                expected.append(sum(float(logs[n - 1 + i, one]) for i, one in enumerate(ids)))
            if handle is not None:
                handle.remove()
        two = [next(rows), next(rows)]
        np.testing.assert_allclose([one for row in two for one in row.log_probs], expected, atol=1e-4)
        assert [row.answer for row in two] == [choices[int(np.argmax(part))] for part in np.split(np.array(expected), 2)]
        assert abs(np.diff(np.split(np.array(expected), 2), axis=0)).max() > 1e-3


def blocks(hf):
    """The blocks of the language model."""
    return (hf.model.language_model if hasattr(hf.model, "language_model") else hf.model).layers


@pytest.mark.parametrize(("text", "choice", "joined"), [
    ("When Mary ", "went", ["When", " Mary", " went"]), ("When Mary", " went", ["When", " Mary", " went"]),
    ("When Mary", "land", ["When", " Maryland"])])
def test_a_choice_after_a_picture_is_tokenized_with_the_text_before_it(text, choice, joined):
    pieces: list[str] = []

    def coded(one):
        found = re.findall(r" ?\w+| ", one)  # a blank belongs to the word after it
        pieces.extend(piece for piece in found if piece not in pieces)
        return tuple(10 + pieces.index(piece) for piece in found)

    reader = SimpleNamespace(_encode=lambda texts, special=True: SimpleNamespace(ids=[coded(texts[0])]))
    model, picture = SimpleNamespace(reader=reader), (1, 2, 3)
    before = Seen(text, (*picture, *coded(text)), (), open=True)
    assert [pieces[n - 10] for n in continued(model, before, choice)[3:]] == joined
    closed = Seen(text, (*picture, *coded(text), 4), (), open=False)
    assert continued(model, closed, choice) == (*closed.ids, *coded(choice))


def test_texts_and_pictures_are_asked_in_one_evaluation_and_each_answers_as_alone():
    model, _, _ = seeing("chameleon")
    some = [*looked_at(), Question("text", "w1 w2 a cat", answer="dog")]
    together = evaluate(model, some, max_new_tokens=3)
    for row, question in zip(together, some, strict=True):
        (alone,) = evaluate(model, [question], max_new_tokens=3)
        assert (alone.reply, alone.prompt) == (row.reply, row.prompt)


def test_a_picture_that_was_changed_is_noticed_when_an_evaluation_goes_on(tmp_path):
    model, _, _ = seeing("chameleon")
    lines = [{"id": i, "image": f"pictures/{i}.png", "question": "a cat", "answer": ["dog"] * 4} for i in range(3)]
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        tiny_models.image(i).save(tmp_path / "pictures" / f"{i}.png")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    ask = functools.partial(evaluate, model, "jsonl", tmp_path / "rows.jsonl", max_new_tokens=2, grade="vqa",
                            out=tmp_path / "e")
    first = ask()
    assert len(first) == 3 and [row.reply for row in ask()] == [row.reply for row in first]
    inside = [{**one, "image": tiny_models.image(i)} for i, one in enumerate(lines)]
    assert [row.reply for row in evaluate(model, "jsonl", inside, max_new_tokens=2, grade="vqa")] == [
        row.reply for row in first]
    tiny_models.image(9).save(tmp_path / "pictures" / "1.png")
    with pytest.raises(RecordError, match="evaluation of something else: pictures was"):
        ask()


def test_a_template_says_where_the_picture_stands_and_a_chat_has_it_among_its_turns(monkeypatch):
    model, _, _ = seeing("chameleon")
    question = Question("q", "a cat", answer="dog", metadata={"image": "a name"}, images=(tiny_models.image(0),))
    (row,) = evaluate(model, [question], prompt="{prompt} {image} is", max_new_tokens=2)
    assert row.prompt == "a cat <image> is"
    before = [Question(**{**vars(question), "prompt": f"{IMAGE}\na cat"}), Question("text", "a cat", answer="dog")]
    assert [one.prompt for one in evaluate(model, before, prompt="{prompt} {image} is", max_new_tokens=1)] == [
        "a cat <image> is", "a cat  is"]
    template = "{% for m in messages %}{% for p in m.content %}{% if p.type == 'image' %}<image> {% else %}{{ p.text }} " \
               "{% endif %}{% endfor %}{% endfor %}"
    monkeypatch.setattr(model.processor, "chat_template", template, raising=False)
    (chat,) = evaluate(model, [question], chat=True, max_new_tokens=2)
    plain = bare(model, question)["input_ids"][0].tolist()
    assert model.tokenizer.decode(plain).split()[-3:-1] == chat.prompt.split()[-3:-1] == ["a", "cat"]
    assert chat.reply == evaluate(model, [question], max_new_tokens=2).rows[0].reply


@pytest.mark.parametrize(("question", "said"), [
    ({"images": ("nowhere.png",)}, "question 'q': the image 'nowhere.png' could not be read"),
    ({"prompt": "a \ufffc \ufffc cat"}, "question 'q': its text has room for 2 images, and there are 1"),
    ({"prompt": "a \ufffc <image> cat"}, "question 'q': its text holds <image>"),
    ({"images": tiny_models.image()}, r"question 'q': images are a tuple, of one too"),
    ({"images": ({"path": "x.png"},)}, "question 'q': an encoded image is {'bytes': …}; this one has path"),
    ({"images": (3,)}, "question 'q': the processor refuses it"),
    ({"images": ("https://example.org/cat.png",)}, "nothing is fetched over HTTP|could not be read")])
def test_pictures_that_cannot_be_read_are_errors_that_name_the_question(question, said):
    made = Question(**{"id": "q", "prompt": "a cat", "answer": "dog", "images": (tiny_models.image(),), **question})
    with pytest.raises((PromptError, RecordError), match=said):
        evaluate(seeing("chameleon")[0], [made])


def test_pictures_need_a_processor_and_a_function_in_the_place_of_a_model_sees_none():
    with pytest.raises(PromptError, match=r"question 'q0': images need the model's processor"):
        evaluate(tiny("llama"), looked_at())
    with pytest.raises(RecordError, match="has images, and reply= is given the prompt alone"):
        evaluate(None, looked_at(), reply=lambda prompt: "dog")
