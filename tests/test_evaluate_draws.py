"""Draws of an evaluation: questions side by side, each from a seed of its own. Oracle: transformers, one at a time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from test_evaluate import FACTS, facts, lab, looked_at, tiny
from test_multimodal import seeing

from hooklab.data.evaluation.evaluate import evaluate
from hooklab.data.evaluation.folder import digest
from hooklab.data.evaluation.grid import gridded
from hooklab.data.evaluation.running import Runner
from hooklab.data.tasks.tasks import Question
from hooklab.errors import PromptError
from hooklab.runtime.drawing import Draws

WORDS = [Question(f"q{i}", " ".join(f"w{(7 * i + k) % 40}" for k in range(1 + (5 * i) % 9)), answer="w1") for i in range(12)]


def by_transformers(model, question, seed, count, **how):
    """What a bare module writes after one prompt."""
    ids = torch.tensor([model.tokenizer(question.prompt)["input_ids"]])
    torch.manual_seed(int(digest([seed, question.id]), 16) % (1 << 31))
    written = model.hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=True,
                                **{"top_k": 0, "pad_token_id": 0, **how})
    return model.tokenizer.decode(written[0, ids.shape[1]:], skip_special_tokens=True)


@pytest.fixture
def sizes(monkeypatch):
    """How many questions each batch had."""
    found: list[int] = []
    own = Runner._written
    monkeypatch.setattr(Runner, "_written", lambda self, some: found.append(len(some)) or own(self, some))
    return found


@pytest.mark.parametrize(("name", "how"), [
    ("llama", {"temperature": 1.3}), ("gpt2", {"temperature": 1.0, "top_k": 7}),
    ("gpt2", {"temperature": 0.9, "top_p": 0.9}), ("gemma2", {"temperature": 2.0, "top_k": 30, "top_p": 0.8})])
def test_questions_that_are_drawn_side_by_side_are_what_transformers_draws_for_each_alone(name, how, sizes):
    model = tiny(name)
    found = evaluate(model, WORDS, max_new_tokens=8, seed=3, **how)
    assert sizes == [len(WORDS)]
    expected = [by_transformers(model, one, 3, 8, **how) for one in WORDS]
    assert [row.reply.split() for row in found] == [one.split() for one in expected]
    assert len(set(expected)) > 6


def test_draws_of_a_batch_are_those_of_its_questions_one_by_one_in_every_cell_and_up_to_every_end(sizes):
    how = dict(max_new_tokens=9, temperature=1.5, seed=1, stop=["a", "i"], edits="scale {where} by 0",
               grid={"where": ["L0.attn_out", "L2.z"]})
    together = evaluate(lab(), facts(), **how)
    assert max(sizes) > 1
    for batch_size in (1, 2):
        other = evaluate(lab(), facts(), batch_size=batch_size, **how)
        assert [(row.id, row.cell, row.reply, row.stopped) for row in other] == [
            (row.id, row.cell, row.reply, row.stopped) for row in together]
    assert len({row.stopped for row in together}) > 1
    assert len({row.reply for row in together}) > len(FACTS)


def test_questions_about_pictures_are_drawn_side_by_side_too(sizes):
    model, _, _ = seeing("chameleon")
    together = evaluate(model, looked_at(), max_new_tokens=4, temperature=1.0, grade=lambda answer, question: 1.0)
    alone = evaluate(model, looked_at(), max_new_tokens=4, temperature=1.0, batch_size=1, grade=lambda answer, question: 1.0)
    assert [row.reply for row in together] == [row.reply for row in alone]
    assert sizes[0] > 1


@pytest.mark.parametrize(("dtype", "edits", "apart"), [
    (torch.float32, "", False), (torch.float64, "", False), (torch.bfloat16, "", True), (torch.float16, "", True),
    (torch.float32, "noise embed by 1", True)])
def test_questions_run_one_by_one_where_what_is_drawn_from_depends_on_the_batch(dtype, edits, apart):
    model = SimpleNamespace(dtype=dtype)
    runner = Runner(model, gridded(edits), "generate", 5, 1.0, {}, 0, (), None, (), "all")
    assert runner.apart is apart


def test_the_callers_random_numbers_stay_as_they_were():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    evaluate(tiny("llama"), WORDS[:2], max_new_tokens=2, temperature=1.0)
    assert torch.equal(before, torch.get_rng_state())


def test_there_is_a_seed_for_every_row():
    draws = Draws((1, 2), {"temperature": 1.0, "top_k": 0, "top_p": 1.0})
    with pytest.raises(PromptError, match="2 seeds for 3 rows"):
        draws(torch.zeros(3, 1, dtype=torch.long), torch.zeros(3, 5))


def test_a_row_draws_as_often_as_its_chances_say():
    chances = torch.tensor([0.5, 0.3, 0.2, 0.0])
    draws = Draws(range(4000), {"temperature": 1.0, "top_k": 0, "top_p": 1.0})
    taken = draws(torch.zeros(4000, 1, dtype=torch.long), chances.log().expand(4000, 4)).argmax(-1)
    torch.testing.assert_close(torch.bincount(taken, minlength=4) / 4000, chances, atol=0.03, rtol=0)
