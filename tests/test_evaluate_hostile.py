"""What goes wrong with questions, answers, functions and folders of an evaluation: said, and never a silent number."""

from __future__ import annotations

import copy
import json
import math
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from test_evaluate import facts, lab

import hooklab as hl
from hooklab.data.evaluation.evaluate import evaluate
from hooklab.data.evaluation.record import Evaluation
from hooklab.data.tasks.graders import GRADERS, Grade
from hooklab.data.tasks.tasks import Question, load_task
from hooklab.errors import HooklabError, RecordError

LISTED = Question("vitamins", "Which one?\nA. B\nB. A\nC. D\nD. C", ("B", "A", "D", "C"), "A")
PLAIN = Question("q", "Which one?", answer="x")


def echo(prompt):
    """A reply."""
    return "x"


# Letters and texts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reply", "score"), [("A", 1), ("(A)", 1), ("Answer: A", 1), ("B", 0), ("(B)", 0)])
def test_a_letter_that_is_also_the_text_of_another_choice_is_the_letter(reply, score):
    (row,) = evaluate(None, [LISTED], reply=lambda prompt: reply)
    assert row.score == score


@pytest.mark.filterwarnings("ignore:This model's tokenizer does not know")
def test_the_letter_is_compared_and_not_the_text_that_reads_the_same():
    words = {"A": " Mary", "B": " John", "C": " Paris", "D": " Rome"}
    (row,) = evaluate(lab(), [LISTED], how="choices", choices_as=lambda question: list(words.values()))
    ids = lab().tokenizer(LISTED.prompt)["input_ids"]
    ends = [lab().tokenizer(LISTED.prompt + word)["input_ids"][-1] for word in words.values()]
    with torch.no_grad():
        best = int(lab().hf(torch.tensor([ids])).logits[0, -1, ends].argmax())
    assert row.answer == "ABCD"[best]
    assert row.score == float(best == 0)


def test_texts_without_letters_stay_texts():
    pair = Question("q", "Which one?", ("B", "A"), "A")
    assert not pair.lettered
    assert GRADERS["auto"]("A", pair).score == 1
    dashed = Question("q", "Which one?\n(A) B\n(B) A", ("B", "A"), "A")
    assert dashed.lettered
    assert not Question("q", "Which one?", ("x", "y"), "E").lettered
    assert Question("q", "A. E\nB. F\nA. B\nB. y\nz", ("B", "y\nz"), "B").lettered


def test_more_choices_than_letters_are_an_error_and_none_is_left_out():
    some = Question("q", "Which one?", tuple(f"text {i}" for i in range(30)), "A")
    with pytest.raises(RecordError, match="question 'q' has 30 choices, and there are 26 letters"):
        evaluate(lab(), [some], how="choices")


# Data ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "found"), [
    (b"\xef\xbb\xbfQ?,a,b,c,d,A\r\n\r\n", ("Q?", ("a", "b", "c", "d"), "A")),
    (b'"Q, ""so""?","a, b","c\nd",,"e", B \r\n', ('Q, "so"?', ("a, b", "c\nd", "", "e"), "B")),
    ("Zoë 漢字 🎉?,é,ß,ı,Ω,D\n".encode(), ("Zoë 漢字 🎉?", ("é", "ß", "ı", "Ω"), "D"))])
def test_csv_is_read_with_marks_line_ends_quotes_and_any_letters(tmp_path, text, found):
    (tmp_path / "x_test.csv").write_bytes(text)
    (question,) = load_task("mmlu", tmp_path)
    assert (question.prompt.split("\nA. ")[0], question.choices, question.answer) == found


@pytest.mark.parametrize(("row", "said"), [
    ("question,A,B,C,D,answer", "the answer is 'answer'"), ("Q,a,b,c,d,a", "the answer is 'a'"),
    ("Q,a,b,c,d,e,A", "7 fields"), ("Q;a;b;c;d;A", "1 fields"), ("Q,a,b,c,d,2", "the answer is '2'"), ("  ", "1 fields"),
    ("Q,,, ,,A", "all of its choices are empty")])
def test_a_wrong_row_of_csv_is_an_error_with_its_line(tmp_path, row, said):
    (tmp_path / "x_test.csv").write_text(f"Q,a,b,c,d,A\n{row}\n")
    with pytest.raises(RecordError, match=rf"x_test\.csv:2: {said}"):
        load_task("mmlu", tmp_path)


OPTIONS = "Pick.\nOptions:\n(A) Monsters, Inc\n(B) blue"


@pytest.mark.parametrize(("prompt", "target", "answer"), [
    (OPTIONS, "Monsters, Inc", "A"), (OPTIONS.replace("\n(", "\n  ("), "(B)", "B"), (OPTIONS, "B", "B"),
    (OPTIONS, "both", "both"), ("Name a letter.", "B", "B")])
def test_a_target_of_bbh_is_a_letter_wherever_its_text_or_its_line_can_be_found(prompt, target, answer):
    (question,) = load_task("bbh", [{"input": prompt, "target": target}])
    assert question.answer == answer
    assert bool(question.choices) == (answer in ("A", "B") and "Options" in prompt)
    assert GRADERS["auto"](f"({answer})" if question.choices else answer, question).score == 1


@pytest.mark.parametrize(("prompt", "target", "said"), [
    (OPTIONS, "(b)", "the answer is 'b'; it is to be a letter from A to B"),
    ("Pick.\n- red", "(B)", r"the target is '\(B\)', and the input has no lines"),
    (OPTIONS.replace("blue", "Monsters, Inc"), "(C)", "the answer is 'C'")])
def test_a_letter_of_bbh_that_names_no_choice_is_an_error(prompt, target, said):
    with pytest.raises(RecordError, match=said):
        load_task("bbh", [{"input": prompt, "target": target}])


@pytest.mark.parametrize(("row", "said"), [
    ({"question": "Q", "answer": math.nan}, "answer is nan: there is no answer"),
    ({"question": "Q", "answer": " "}, "answer is empty"), ({"question": "Q", "answer": ["", " "]}, "answer is empty"),
    ({"question": None, "answer": "x"}, "question is None: there is nothing to put"),
    ({"question": math.nan, "answer": "x"}, "question is nan: there is nothing to put"),
    ({"question": "Q", "choices": ["x", "y"], "answer": "b"}, "the answer is 'b'"),
    ({"question": "Q", "choices": ["x", "y"], "answer": True}, "the answer is True")])
def test_a_row_without_what_it_needs_is_an_error_and_not_the_word_none(row, said):
    with pytest.raises(RecordError, match=f"row 1: {said}"):
        load_task("jsonl", [row])


def test_numbers_of_numpy_are_indices_too():
    rows = [{"question": "Q", "choices": list("vwxyz"), "answer": answer} for answer in (np.int64(4), 4, "E", "z")]
    assert {one.answer for one in load_task("jsonl", rows)} == {"E"}


@pytest.mark.parametrize(("options", "said"), [
    ({"path": 5}, "the data is int"), ({"path": {"question": "Q"}}, "the data is dict"),
    ({"anwser": "a"}, "'jsonl' has no option 'anwser'.*Did you mean \"answer\""), ({"limit": "3"}, "limit='3'"),
    ({"limit": 1.5}, "limit=1.5"), ({"seed": [1]}, r"seed=\[1\]")])
def test_options_of_a_task_are_checked(options, said):
    with pytest.raises(RecordError, match=said):
        load_task("jsonl", **{"path": [{"question": "Q", "answer": "x"}], **options})


# Questions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "said"), [
    ({"answer": None}, "its answer is None"), ({"answer": 3}, "its answer is 3"), ({"answer": ()}, r"its answer is \(\)"),
    ({"answer": ""}, "it has no answer to compare with"), ({"choices": "AB", "answer": "A"}, "its choices are 'AB'"),
    ({"choices": ("p", "q"), "answer": "b"}, "'b' is no letter of its 2 choices"),
    ({"choices": ("p", "q"), "answer": "C"}, "'C' is no letter of its 2 choices"), ({"id": 1}, "a text, not 1"),
    ({"metadata": {"x": 1, 2: 3}}, "its metadata cannot be kept"), ({"metadata": {(1, 2): 3}}, "cannot be kept")])
def test_a_question_that_cannot_be_graded_or_kept_is_said_before_one_is_asked(wrong, said):
    asked: list[str] = []
    bad = Question(**{"id": "bad", "prompt": "?", "answer": "x", **wrong})
    with pytest.raises(RecordError, match=said):
        evaluate(None, [PLAIN, bad], reply=lambda prompt: asked.append(prompt) or "x")
    assert asked == []


def test_a_question_without_an_answer_is_graded_by_a_function(tmp_path):
    found = evaluate(None, [Question("q", "?")], reply=echo, grade=lambda answer, question: answer == "x")
    assert found.rows[0].score == 1


def test_what_is_not_a_number_is_one_group_of_the_metadata(tmp_path):
    some = [Question(f"q{i}", "?", answer="x", metadata={"year": value}) for i, value in enumerate(
        [math.nan, 1990, float("nan"), 1990])]
    evaluate(None, some, reply=echo, out=tmp_path / "e")
    by = Evaluation.load(tmp_path / "e").accuracy(by="year")
    assert by.coords["year"] == ("nan", 1990)


# Options -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "said"), [
    ({"temperature": "1"}, "temperature='1': it is a number"), ({"temperature": None}, "temperature=None"),
    ({"seed": "1"}, "seed='1': it is a whole number"), ({"seed": -1}, "seed=-1"), ({"max_tokens": 0}, "max_tokens=0"),
    ({"max_tokens": "5"}, "max_tokens='5'"), ({"stop": 3}, "stop=3"), ({"stop": ["a", 3]}, "a list of texts"),
    ({"edits": None}, "edits=None"), ({"edits": 3}, "edits=3"), ({"grid": [1]}, r"grid=\[1\]"),
    ({"capture": 3, "out": "x"}, "capture=3"), ({"out": 3}, "out=3"), ({"out": "a\0b"}, "the name of a folder"),
    ({"grade": 3}, "not 3. Graders"), ({"extract": 3}, "a function, not 3")])
def test_an_option_of_the_wrong_kind_is_said(options, said):
    with pytest.raises(RecordError, match=said):
        evaluate(lab(), facts(), **options)


@pytest.mark.parametrize(("model", "some", "said"), [
    ("gpt2", [PLAIN], "model is 'gpt2'"), (None, None, "questions are None"), (None, [{"question": "x"}], "not dict"),
    (None, [], "there are no questions")])
def test_a_model_and_questions_are_what_they_are_called(model, some, said):
    with pytest.raises(RecordError, match=said):
        evaluate(model, some, **({} if model else {"reply": echo}))


# Functions -----------------------------------------------------------------------------------------------------------


def fails(*_):
    """Raises for the second question."""
    raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize("option", ["grade", "extract", "reply", "prompt"])
def test_what_a_function_raises_names_the_question_and_the_rows_before_it_are_kept(tmp_path, option):
    how = {"reply": echo, "out": tmp_path / "e"}
    calls: list[int] = []

    def second(*given):
        calls.append(1)
        return fails() if len(calls) == 2 else "x"

    with pytest.raises(ZeroDivisionError) as found:
        evaluate(None, [PLAIN, Question("other", "?", answer="x")], **{**how, option: second if option != "grade" else (
            lambda answer, question: second() == "x")})
    assert found.value.__notes__ == [f"This was {option}= for question 'other'."]
    assert [row.id for row in Evaluation.load(tmp_path / "e")] == ["q"]


@pytest.mark.parametrize("verdict", [math.nan, 2, -0.1, None, "yes", float("inf")])
def test_a_score_that_is_none_is_an_error(verdict):
    with pytest.raises(RecordError, match="question q: the grader .* returned"):
        evaluate(None, [PLAIN], reply=echo, grade=lambda answer, question: verdict)


def test_a_grade_is_a_number():
    with pytest.raises(RecordError, match="a score is a number from 0 to 1, not '1'"):
        Grade("1", "as text")
    with pytest.raises(RecordError, match="extract= gave 3"):
        evaluate(None, [PLAIN], reply=echo, extract=lambda text: 3)


# Numbers that are none -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_text_from_logits_that_are_no_numbers_is_an_error_and_not_a_wrong_answer(temperature, value):
    with pytest.raises(RecordError, match=rf"question 'fact \d' where much={value}: the model's logits are not numbers"):
        evaluate(lab(), facts(), max_new_tokens=2, temperature=temperature, edits="scale L0.mlp_out by {much}",
                 grid={"much": [1.0, value]})


@pytest.mark.filterwarnings("ignore:metric choice_")
def test_a_model_whose_weights_are_not_numbers_is_an_error_and_not_a_score_of_nought():
    hf = copy.deepcopy(lab().hf)
    broken = hl.load(hf, tokenizer=lab().tokenizer, verify=False)
    with torch.no_grad():
        hf.transformer.h[0].mlp.c_fc.bias.fill_(math.nan)
    for how in ({"max_new_tokens": 2}, {"max_new_tokens": 2, "temperature": 1.0}):
        with pytest.raises(RecordError, match="logits are not numbers"):
            evaluate(broken, facts(), **how)
    pair = load_task("pairs", [{"prompt": "The capital of France is", "right": " Paris", "wrong": " Rome"}])
    with pytest.raises(RecordError, match="the probability of a choice is not a number"):
        evaluate(broken, pair, how="choices")


# Folders -------------------------------------------------------------------------------------------------------------


def test_an_interrupt_keeps_the_rows_before_it_and_lets_go_of_the_folder(tmp_path):
    def stops(done, total, what):
        if done == 2:
            raise KeyboardInterrupt

    how = dict(max_new_tokens=2, batch_size=1, capture="L0.z", out=tmp_path / "e")
    with pytest.raises(KeyboardInterrupt):
        evaluate(lab(), facts(), **how, progress=stops)
    assert len(Evaluation.load(tmp_path / "e")) == 2
    whole = evaluate(lab(), facts(), **{**how, "out": tmp_path / "whole"})
    assert evaluate(lab(), facts(), **how).rows == whole.rows


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_do_not_write_into_one_folder(tmp_path):
    fork = multiprocessing.get_context("fork")
    told, done = fork.Queue(), fork.Event()

    def waits(prompt):
        told.put("in")
        done.wait(60)
        return "x"

    other = fork.Process(target=evaluate, args=(None, [PLAIN]), kwargs={"reply": waits, "out": tmp_path / "e"})
    other.start()
    try:
        assert told.get(timeout=60) == "in"
        with pytest.raises(RecordError, match=f"is being written by process {other.pid}"):
            evaluate(None, [PLAIN], reply=waits, out=tmp_path / "e")
    finally:
        done.set()
        other.join(60)
    assert other.exitcode == 0
    assert Evaluation.load(tmp_path / "e").complete


@pytest.mark.parametrize("place", ["file", "file/below", "x" * 300])
def test_a_place_that_cannot_be_written_is_said_before_a_question_is_asked(tmp_path, place):
    (tmp_path / "file").write_text("keep")
    with pytest.raises(RecordError, match="is a file|could not be written"):
        evaluate(None, [PLAIN], reply=fails, out=tmp_path / place)
    assert (tmp_path / "file").read_text() == "keep"


def test_a_place_that_can_only_be_read_is_said(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(RecordError, match="could not be written: Permission denied"):
        evaluate(None, [PLAIN], reply=fails, out=tmp_path / "e")


def test_any_text_comes_back_from_the_folder(tmp_path):
    text = "Zoë 漢字 🎉\u2028\x85\x00\r\n\ud83c"
    some = [Question("ü/é\n", "?", answer="x", metadata={"n": math.nan, "e": [1, 2], "t": text})]
    first = evaluate(None, some, reply=lambda prompt: text, out=tmp_path / "e")
    (row,) = Evaluation.load(tmp_path / "e")
    assert (row.reply, row.id, row.metadata["t"]) == (text, "ü/é\n", text)
    assert len((tmp_path / "e" / "rows.jsonl").read_bytes().splitlines()) == 1
    assert json.dumps(evaluate(None, some, reply=lambda prompt: text, out=tmp_path / "e").rows[0].metadata) == json.dumps(
        first.rows[0].metadata)


@pytest.mark.filterwarnings("ignore:This model's tokenizer does not know")
def test_a_prompt_that_is_longer_than_the_model_is_named():
    long = Question("few shot", "The capital of France is Paris. " * 60, answer="x")
    with pytest.raises(HooklabError, match="'few shot'.*128 positions"):
        evaluate(lab(), [*facts(), long])
    with pytest.raises(HooklabError, match="'few shot'.*128 positions"):
        evaluate(lab(), [Question("few shot", long.prompt, (" a", " the"), " a")], how="choices")
