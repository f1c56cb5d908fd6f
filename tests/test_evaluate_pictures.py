"""Questions about pictures: how often the processor reads one, what is held, and what changed files do to a run."""

from __future__ import annotations

import gc
import os
import weakref
from typing import Any

import numpy as np
import pytest
import tiny_models
from test_evaluate import killed, looked_at
from test_multimodal import seeing

from hooklab.data.evaluation import windows as windowing
from hooklab.data.evaluation.evaluate import evaluate
from hooklab.data.evaluation.record import Evaluation
from hooklab.data.evaluation.running import Runner
from hooklab.data.tasks.tasks import Question
from hooklab.errors import PromptError, RecordError

FREE: dict[str, Any] = dict(max_new_tokens=2, grade=lambda answer, question: 1.0)
PICKED: dict[str, Any] = dict(how="choices", choices_as=lambda question: [f" {one}" for one in question.choices])
GRID: dict[str, Any] = dict(edits="scale {where} by 0", grid={"where": ["L0.attn_out", "L0.mlp_out", "L1.mlp_out"]})


@pytest.fixture(params=["chameleon", "llava"])
def model(request):
    return seeing(request.param)[0]


@pytest.fixture
def shown(model, monkeypatch):
    """How many pictures each call of the processor's image part was given."""
    found: list[int] = []
    kind = type(model.processor.image_processor)
    own = kind.__call__

    def counted(self, images, *args, **kwargs):
        found.append(sum(len(one) if isinstance(one, list | tuple) else 1 for one in images))
        return own(self, images, *args, **kwargs)

    monkeypatch.setattr(kind, "__call__", counted)
    return found


def many(count):
    """Questions about one picture each, some of them longer."""
    return [Question(f"q{i}", "this is a cat" if i % 3 else "a dog", ("dog", "this is", "cat"), "dog",
                     images=(tiny_models.image(i),)) for i in range(count)]


@pytest.mark.parametrize("how", [FREE, {**FREE, "temperature": 1.0}, {**FREE, **GRID}, PICKED,
                                 {**PICKED, **GRID}, {**FREE, "batch_size": 1}],
                         ids=["written", "drawn", "grid", "choices", "choices grid", "one by one"])
def test_a_picture_is_processed_once_whatever_is_asked_about_it(model, shown, how):
    some = looked_at(choices=("dog", "this is", "cat"))
    found = evaluate(model, some, **how)
    assert found.complete
    assert sorted(shown) == sorted(len(one.images) for one in some)


def test_answers_do_not_depend_on_where_windows_begin_and_their_pixels_are_let_go(model, shown, monkeypatch):
    whole = evaluate(model, many(7), **PICKED, **GRID)
    pixels: list[Any] = []
    most: list[int] = []
    own = Runner.__call__

    def watched(self, some):
        pixels.extend(weakref.ref(one.read) for one in some)
        gc.collect()
        most.append(len({id(read) for ref in pixels if (read := ref()) is not None}))
        return own(self, some)

    monkeypatch.setattr(Runner, "__call__", watched)
    shown.clear()
    monkeypatch.setattr(windowing, "HELD", 2 * windowing.held(seen_first(model)))
    shown.pop()
    again = evaluate(model, many(7), **PICKED, **GRID)
    assert len(shown) == 7
    assert len(pixels) == 7
    assert max(most) <= 4  # a window, and what is left of the one before
    for one, other in zip(again, whole, strict=True):
        assert (one.key, one.answer) == (other.key, other.answer)
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)


def seen_first(model):
    """The first question's prompt, as the processor reads it."""
    from hooklab.data.evaluation.pictures import seen

    question = many(1)[0]
    return seen(model, question, question.prompt).read


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_that_was_killed_goes_on_exactly_and_reads_no_chunk_that_is_done(model, shown, tmp_path, monkeypatch):
    import signal

    monkeypatch.setattr(windowing, "WINDOW", 3)
    how = dict(**PICKED, batch_size=2, **GRID)
    whole = evaluate(model, many(8), **how, out=tmp_path / "whole")
    shown.clear()

    def dies(done, total, what):
        if done >= 5 * 4:  # the first chunk of three, and two of the second
            os.kill(os.getpid(), signal.SIGKILL)

    killed(lambda: evaluate(model, many(8), **how, out=tmp_path / "cut", progress=dies))
    before = Evaluation.load(tmp_path / "cut")
    assert len(before) == 5 * 4
    assert not shown
    found = evaluate(model, many(8), **how, out=tmp_path / "cut")
    assert found.rows == whole.rows  # to the last bit
    assert sum(shown) == 8 - 3
    shown.clear()
    assert evaluate(model, many(8), **how, out=tmp_path / "cut").rows == whole.rows
    assert not shown


def test_a_picture_that_is_changed_while_it_waits_is_an_error_and_not_an_answer(model, tmp_path, monkeypatch):
    for i in range(4):
        tiny_models.image(i).save(tmp_path / f"{i}.png")
    some = [Question(f"q{i}", "a cat", answer="dog", images=(str(tmp_path / f"{i}.png"),)) for i in range(4)]
    monkeypatch.setattr(windowing, "WINDOW", 2)

    def changes(done, total, what):
        if done == 2:
            tiny_models.image(9).save(tmp_path / "3.png")

    with pytest.raises(RecordError, match=r"question 'q3': its image '.*3.png' was changed while the evaluation ran"):
        evaluate(model, some, **FREE, progress=changes, out=tmp_path / "e")
    assert [row.id for row in Evaluation.load(tmp_path / "e")] == ["q0", "q1"]
    with pytest.raises(RecordError, match="something else: pictures was"):
        evaluate(model, some, **FREE, out=tmp_path / "e")


@pytest.mark.filterwarnings("ignore:The prompt has")
def test_what_can_be_said_without_looking_is_said_before_a_picture_is_read(model, shown, monkeypatch):
    monkeypatch.setattr(windowing, "WINDOW", 1)
    for wrong, says in ((Question("last", "a cat", ("dog",), "dog", images=(tiny_models.image(0),)), "has 1 choice"),
                        (Question("last", "a cat", ("a", "b"), ("a", "b"), images=(tiny_models.image(0),)),
                         "none of its choices")):
        with pytest.raises(RecordError, match=f"question 'last'.*{says}"):
            evaluate(model, [*many(2), wrong], how="choices")
    with pytest.raises(RecordError, match=r"\{hnit\}"):
        evaluate(model, many(2), prompt="{hnit}", **FREE)
    with pytest.raises(PromptError, match=r"'long' takes"):
        evaluate(model, [*many(2), Question("long", "a " * 99, ("dog", "cat"), "dog")], **PICKED)
    assert not shown
