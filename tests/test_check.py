"""Exercises: right answers pass, wrong ones are told why without the answer, and dots are no answer."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from lessons import Lesson, lessons

import hooklab as hl
from hooklab.check.answers import head_of, heads_of, number_of, tensor_of, words_of
from hooklab.check.exercise import Wrong, exercise, exercises
from hooklab.check.verdict import CheckError, Verdict, expect
from hooklab.errors import LayerError

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
LESSONS = lessons()
EACH = pytest.mark.parametrize("lesson", LESSONS, ids=[f"{exercises()[one.check][:2]}-{one.check}" for one in LESSONS])


@pytest.fixture(scope="module")
def model():
    return hl.load("lab")


def names_of(lesson: Lesson, model) -> dict:
    names = {"hl": hl, "model": model, "np": np, "torch": torch}
    exec(lesson.setup, names)
    return names


def judged(lesson: Lesson, answer: str, names: dict) -> Verdict:
    return eval(f"hl.check.{lesson.check}({', '.join(filter(None, [answer, lesson.args]))})", names)


@EACH
def test_the_right_answer_passes(lesson, model, monkeypatch):
    monkeypatch.setenv("HOOKLAB_CHECK", "strict")
    verdict = judged(lesson, lesson.right, names_of(lesson, model))
    assert verdict.state == "right", verdict
    assert len(verdict.message) > 20


@EACH
def test_a_wrong_answer_is_told_why_and_not_what_is_right(lesson, model):
    names = names_of(lesson, model)
    assert len(lesson.wrong) >= 3
    messages = []
    for answer, pattern in lesson.wrong.items():
        verdict = judged(lesson, answer, names)
        assert verdict.state == "wrong", (answer, verdict)
        assert re.search(pattern, verdict.message), (answer, verdict)
        assert not [secret for secret in lesson.secrets if secret in verdict.message], (answer, verdict)
        messages.append(verdict.message)
    assert len(set(messages)) >= 2, "every wrong answer is told the same"


@EACH
def test_dots_are_no_answer(lesson, model, monkeypatch):
    monkeypatch.setenv("HOOKLAB_CHECK", "strict")
    assert judged(lesson, "...", names_of(lesson, model)).state == "open"


def test_every_exercise_has_a_lesson_and_every_lesson_an_exercise():
    assert {lesson.check for lesson in LESSONS} == set(exercises())


def test_every_exercise_of_a_notebook_is_checked_and_every_check_is_in_its_notebook():
    for file in NOTEBOOKS:
        number = file.name[:2]
        book = nbformat.read(file, as_version=4)
        asked = re.findall(rf"Exercise ({number}\.\d)", "\n".join(c.source for c in book.cells if c.cell_type == "markdown"))
        used = {name for c in book.cells if "check" in c.metadata.get("tags", [])
                for name in re.findall(r"hl\.check\.(\w+)\(", c.source)}
        assert used == {name for name, title in exercises().items() if title.startswith(number)}, file.name
        assert sorted(set(asked)) == sorted(exercises()[name].split()[0] for name in used), file.name


@exercise("99.9", "A test")
def seven(answer):
    if answer != 7:
        raise Wrong("It is one of the seven digits that are odd or <b>even</b>.")
    return "It is."


def test_a_verdict_is_true_only_when_right_and_its_text_is_escaped():
    assert seven(7)
    assert not seven(8)
    assert not seven(...)
    assert "&lt;b&gt;even" in seven(8)._repr_html_()
    assert repr(seven(7)) == "✓ 99.9 A test: It is."


def test_quotes_a_full_stop_and_spaces_at_the_end_are_no_mistake(model):
    said = "When Mary and John went to the store, Mary gave a drink to"
    pair = [f"While Sarah and James were working at the park, {giver} handed the book to" for giver in ("James", "Sarah")]
    for word in (" John", "John.", "' John'", ["John"], np.array(["John"])):
        assert hl.check.next_word(word, said, model), word
    assert hl.check.corrupted_prompt(pair[1] + " ", model, pair[0], " Sarah", " James")


def test_strict_makes_a_wrong_answer_an_error_and_leaves_an_open_one(monkeypatch):
    monkeypatch.setenv("HOOKLAB_CHECK", "strict")
    with pytest.raises(CheckError, match=r"99\.9"):
        seven(8)
    with pytest.raises(CheckError, match="does not hold"):
        expect(1 > 2, "One is more than two")
    assert seven([..., 3]).state == "open"
    assert seven({...}).state == "open"
    assert seven(None).state == "open"


def test_a_claim_that_does_not_hold_is_shown_and_stops_nothing(monkeypatch):
    monkeypatch.delenv("HOOKLAB_CHECK", raising=False)
    assert expect(torch.tensor(2.0) > 1, "Two is more than one").state == "right"
    assert expect(np.float64(1) > 2, "One is more than two").state == "wrong"


@pytest.mark.parametrize("answer", ["L2H5", "L2H5.z", (2, 5), [2, 5], (np.int64(2), torch.tensor(5)), "L-3H-1", "l2h5",
                                    " L2 H5\n", ["L2H5"], [(2, 5)], {"layer": 2, "head": 5}, torch.tensor([2, 5]),
                                    np.array([2, 5]), ({"layer": 2, "head": 5}, 0.9)])
def test_a_head_may_be_written_in_several_ways(answer, model):
    assert head_of(answer, model) == (2, 5)


@pytest.mark.parametrize(("answer", "words"), [
    ("L2H*", "names 6"), ("L2.z", "names none"), (3, "int 3"), ("", "address"), (torch.tensor(3), "is written"),
    (np.array(None), "is written"), ({"layer": 2}, "is written"), (["L2H5", "L3H0"], "lists 2"), ((True, 2), "is written"),
    ([2], "is written"), (object(), "is written")])
def test_what_is_no_head_is_said_to_be_none(answer, words, model):
    with pytest.raises((Wrong, LookupError), match=words):
        head_of(answer, model)


def test_a_head_that_the_model_lacks_is_an_error_with_the_range(model):
    with pytest.raises(LayerError, match="6 heads"):
        head_of((0, 6), model)
    assert [*heads_of("L0H1, L1H2", model), *heads_of((0, 1), model)] == [(0, 1), (1, 2), (0, 1)]
    assert heads_of(["L0H1", (0, 1)], model) == [(0, 1)]
    for several in ({"L0H1", "L1H2"}, np.array([[0, 1], [1, 2]]), torch.tensor([[0, 1], [1, 2]]), "l0h1, l1h2",
                    [({"layer": 0, "head": 1}, 0.9), ({"layer": 1, "head": 2}, 0.8)], [np.array([0, 1]), "L1H2"]):
        assert sorted(heads_of(several, model)) == [(0, 1), (1, 2)], several
    for one in (np.array([0, 1]), torch.tensor([0, 1]), (np.int64(0), np.int64(1)), {"layer": 0, "head": 1}, "L0H1"):
        assert heads_of(one, model) == [(0, 1)], one
    with pytest.raises(Wrong, match="list of heads"):
        heads_of(torch.tensor(3), model)
    with pytest.raises(Wrong, match="empty"):
        heads_of([], model)


def test_numbers_tensors_and_words_are_read_or_refused():
    assert number_of(torch.tensor([[2.5]])) == 2.5
    with pytest.raises(Wrong, match="divided by zero"):
        number_of(float("nan"))
    for none in (torch.ones(2), 10**400, 1j):
        with pytest.raises(Wrong, match="One number"):
            number_of(none)
    assert tensor_of([[1, 2], [3, 4]], (2, 2), "pos head").tolist() == [[1, 2], [3, 4]]
    with pytest.raises(Wrong, match=r"take \[0\]"):
        tensor_of(np.ones((1, 2, 2)), (2, 2), "pos head")
    with pytest.raises(Wrong, match="another order"):
        tensor_of(np.ones((3, 2)), (2, 3), "pos head")
    assert words_of([" Mary", "John"]) == ["Mary", "John"]
    for none in (3, np.array(3), b"Mary", [3]):
        with pytest.raises(Wrong, match="Text"):
            words_of(none)
