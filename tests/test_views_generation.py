"""The view of generated text: its numbers against transformers and plain torch, its marks against the spec, its manners."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tiny_models
import torch

import hooklab as hl
from hooklab.analysis import continuing
from hooklab.errors import RecordError, ViewError
from hooklab.problems import SpecError
from hooklab.spec.acting import acting

PROMPT = "Mary went to the store because"


@pytest.fixture(scope="module")
def model():
    return hl.load("lab")


@pytest.fixture
def made():
    views = []
    yield lambda *given, **options: views.append(hl.view.generation(*given, **options)) or views[-1]
    for view in views:
        view.close()


def array(view, name):
    """An array of a view, read out of its bytes by hand."""
    entry = view.facts["arrays"][name]
    dtype = {"u8": "u1", "i32": "<i4", "f32": "<f4"}[entry["kind"]]
    count = int(np.prod(entry["shape"]))
    return np.frombuffer(view.blob, dtype, count, entry["at"]).reshape(entry["shape"])


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def transformers_logits(hf, ids, count, **options):
    """New ids and the logits of each step, by a module that hooklab has not touched."""
    out = hf.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), pad_token_id=0,
                      max_new_tokens=count, output_logits=True, return_dict_in_generate=True, **options)
    return out.sequences[0, len(ids):].tolist(), torch.stack(out.logits, 1)[0].double().numpy()


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "gpt_neo"])
def test_what_each_step_chose_among_is_what_transformers_scores(name, made):
    hf = tiny_models.build(name)
    hf.generation_config.eos_token_id = None
    ids, logits = transformers_logits(tiny_with_no_end(name), [11, 7, 23, 42], 6, do_sample=False)
    view = made(hl.load(hf), [[11, 7, 23, 42]], max_new_tokens=6, top=4)
    chances = softmax(logits)
    assert array(view, "id").tolist() == ids
    np.testing.assert_allclose(array(view, "chance"), chances[np.arange(6), ids], rtol=1e-4)
    np.testing.assert_allclose(array(view, "chances"), -np.sort(-chances, axis=1)[:, :4], rtol=1e-4)
    assert array(view, "ids").tolist() == np.argsort(-chances, axis=1, kind="stable")[:, :4].tolist()
    assert array(view, "rank").tolist() == [0] * 6
    np.testing.assert_allclose(array(view, "entropy"), -(chances * np.log(chances)).sum(1), rtol=1e-4)


def tiny_with_no_end(name):
    hf = tiny_models.build(name)
    hf.generation_config.eos_token_id = None
    return hf


def test_drawn_tokens_have_the_ranks_that_sorting_gives(model, made):
    view = made(model, PROMPT, max_new_tokens=8, temperature=3.0, seed=5, top=3)
    (text,) = view.run.texts["plain"]
    logits = model.run('prompt {p}\nrun r on main:\n    save logits', p=[list(view.run.tokens_of["plain"].ids[0][:-1])])
    rows = logits["r.logits"][0].double().numpy()[-len(text.ids):]
    order = np.argsort(-rows, axis=1, kind="stable")
    places = [int(np.flatnonzero(row == i)[0]) for row, i in zip(order, text.ids, strict=True)]
    assert array(view, "rank").tolist() == places
    assert max(places) > 0
    own = softmax(rows)[np.arange(len(text.ids)), text.ids]
    np.testing.assert_allclose(array(view, "chance"), own, rtol=1e-3, atol=1e-6)


def test_an_edit_at_one_step_changes_that_step_as_a_pass_over_that_prefix_does(model, made):
    v = torch.randn(model.facts.d_model, generator=torch.Generator().manual_seed(1)) * 4
    view = made(model, PROMPT, "steer L3.resid by {v} steps=[0]", v=v, max_new_tokens=4, compare=False)
    prompt = list(view.run.tokens_of["edited"].ids[0][:-len(array(view, "id"))])
    whole = model.capture([prompt], ["logits"], edits={"L3.resid_post": lambda x: x + v})["logits"][0, -1].double().numpy()
    np.testing.assert_allclose(array(view, "chances")[0], -np.sort(-softmax(whole))[:5], rtol=1e-4)


def test_the_run_of_a_view_is_the_run_of_its_spec(model, made):
    v = torch.ones(model.facts.d_model)
    view = made(model, PROMPT, "steer L2.resid @new by 2 * {v}", v=v, max_new_tokens=5, samples=2, temperature=0.9, seed=3)
    again = model.run(view.run.spec, v=v)
    assert view.run.texts == again.texts
    assert [column["pieces"][0] for column in view.facts["columns"]] == [
        view.run.tokens_of[run].pieces[sample][-len(view.run.texts[run][sample].ids)] for sample in (0, 1)
        for run in ("plain", "edited")]


def test_a_whole_spec_with_a_sweep_and_a_score_runs_as_ever(model, made):
    spec = hl.parse('prompt "Mary went to the store"\nanswer " because"\nmetric prob\nsweep c in [0, 3]\n'
                    'run r on main:\n    scale L2.mlp by c\n    save L0.resid_post\n    generate 3')
    view, run = made(model, spec), model.run(spec)
    assert view.run.texts == run.texts
    assert torch.equal(view.run["r.L0.resid_post"], run["r.L0.resid_post"])
    assert view.run.scores["r.prob"] == run.scores["r.prob"]
    assert [axis["labels"] for axis in view.facts["axes"]][0] == ["r · c 0", "r · c 3"]


def test_saved_logits_give_the_same_numbers_without_a_model(model, made, tmp_path):
    text = ('prompt ["Mary went to", "John went to the store"]\nzero L1H2 @new\nsave logits\n'
            "generate 4 samples=2 temperature=2 seed=4")
    run = model.run(text)
    live = made(model, hl.parse(text), top=4)
    stored = made(hl.Run.load(run.save(tmp_path / "a")), top=4)
    assert stored.facts["playable"] is False
    assert live.facts["playable"] is True
    for name in ("id", "rank", "ids"):
        np.testing.assert_array_equal(array(live, name), array(stored, name))
    np.testing.assert_allclose(array(live, "chances"), array(stored, "chances"), rtol=1e-5)


def test_a_run_without_logits_says_so_and_shows_its_text(model, made, tmp_path):
    run = model.run(f'prompt "{PROMPT}"\ngenerate 4')
    view = made(hl.Run.load(run.save(tmp_path / "a")))
    assert "save logits" in view.facts["note"]
    assert "".join(view.facts["columns"][0]["pieces"]).startswith(run.texts["main"][0].new)
    assert np.isnan(array(view, "chance")).all()
    assert (array(view, "rank") == -1).all()
    with pytest.raises(ViewError, match="nothing to plot"):
        view.plot()


def test_a_run_is_written_again_to_see_what_it_chose_among(model, made):
    run = model.run(f'prompt "{PROMPT}"\ngenerate 4')
    view = made(run)
    assert np.isnan(array(view, "chance")).all()
    view.play()
    assert array(view, "id").tolist() == list(run.texts["main"][0].ids)
    assert (array(view, "chance") > 0).all()
    assert view.facts["note"] == ""
    assert made(run, model=model).facts["columns"][0]["known"]


@pytest.mark.parametrize(("line", "steps"), [
    ("zero L0H1", {0, 1, 2, 3}), ("zero L0H1 @all", {0, 1, 2, 3}), ("zero L0H1 @prompt", {0}), ("zero L0H1 @new", {1, 2, 3}),
    ("zero L0H1 @last", {0}), ("zero L0H1 @[0, 2]", {0}), ("zero L0H1 steps=[1, 3]", {1, 3}), ("zero L0H1 steps=2", {2}),
    ("zero L0H1 steps=new", {1, 2, 3}), ("zero L0H1 steps=all", {0, 1, 2, 3}), ("zero L0H1 steps={odd}", {1, 3}),
    ("zero L0H1 steps={late}", {2, 3}), ("zero L0H1 @new steps={early}", {1})])
def test_the_marked_steps_are_those_that_the_compiled_edit_holds_for(line, steps, model):
    values = {"odd": lambda n: n % 2 == 1, "late": range(2, 9), "early": [0, 1]}
    text = f'prompt "{PROMPT}"\n{line}\ngenerate 4'
    used = {name: value for name, value in values.items() if f"{{{name}}}" in text}
    (found,) = acting(text, "hooked", 4, used)
    (edit,) = model.plan(text, values=used).run("hooked").cells[0].edits
    assert found.steps == steps
    assert {n for n in range(4) if edit.reach.holds(n)} == steps


def test_a_run_on_a_run_has_the_marks_of_both(model, made):
    text = (f'prompt "{PROMPT}"\nrun a on main:\n    zero L0H1 @prompt\n'
            "run b on a:\n    zero L1H1 @new\n    generate 3")
    view = made(model, hl.parse(text))
    assert [(edit["line"], edit["steps"]) for edit in view.facts["columns"][0]["edits"]] == [
        ("zero L0H1 @prompt", [0]), ("zero L1H1 @new", [1, 2])]


def test_the_first_difference_is_where_the_ids_part(model, made):
    v = torch.randn(model.facts.d_model, generator=torch.Generator().manual_seed(0)) * 9
    view = made(model, PROMPT, "steer L2.resid @new by {v}", v=v, max_new_tokens=6)
    plain, edited = (view.run.texts[name][0].ids for name in ("plain", "edited"))
    parted = next(i for i, (a, b) in enumerate(zip(plain, edited, strict=False)) if a != b)
    assert [column["apart"] for column in view.facts["columns"]] == [None, parted]
    assert parted > 0  # nothing acts on the prompt


def test_several_runs_stand_side_by_side(model, made):
    runs = {"short": model.run(f'prompt "{PROMPT}"\ngenerate 1'), "long": model.run(f'prompt "{PROMPT}"\ngenerate 3')}
    view = made(runs)
    assert [axis["labels"] for axis in view.facts["axes"]][0] == ["short · main", "long · main"]
    assert [column["apart"] for column in view.facts["columns"]] == [None, 1]
    assert view.facts["playable"] is False
    with pytest.raises(ViewError, match="no model"):
        view.play()


# Choosing ----------------------------------------------------------------------------------------------------------


def test_a_chosen_step_is_spec_text_that_writes_up_to_it(model, made):
    v = torch.ones(model.facts.d_model)
    view = made(model, PROMPT, "let w = 2\nsteer L2.resid @new by w * {v}", v=v, max_new_tokens=5)
    view.select(sample="edited", step=2)
    run = model.run(view.spec, v=v)
    assert list(run.texts) == ["edited"]
    assert run.texts["edited"][0].ids == view.run.texts["edited"][0].ids[:3]
    view.select(step=None)
    assert model.run(view.spec, v=v).texts["edited"] == view.run.texts["edited"]


def test_a_chosen_cell_of_a_sweep_is_that_cell_alone(model, made):
    view = made(model, hl.parse(f'prompt "{PROMPT}"\nsweep c in [0, 4]\nscale L2.mlp by c\ngenerate 3'))
    view.select(sample="hooked · c 4")
    assert model.run(view.spec).texts["hooked"][0].ids == view.run.texts["hooked"][1].ids


def test_a_step_that_is_not_there_is_refused(model, made):
    view = made(model, PROMPT, max_new_tokens=2)
    with pytest.raises(ViewError, match="no step 9"):
        view.select(step=9)
    with pytest.raises(ViewError, match="plain"):
        view.select(sample="plane")


# Writing while somebody looks -----------------------------------------------------------------------------------------


def test_nothing_is_written_before_play(model, made):
    view = made(model, PROMPT, max_new_tokens=3, play=False)
    assert view.run is None
    assert view.facts["columns"][0]["pieces"] == []
    assert view.facts["note"] == "Nothing is written yet."
    assert len(view.play().facts["columns"][0]["pieces"]) == 3


def test_the_view_is_drawn_as_tokens_come(model, made, monkeypatch):
    from hooklab.views import continuations

    monkeypatch.setattr(continuations, "PAUSE", 0.0)
    view = made(model, PROMPT, max_new_tokens=4, play=False)
    seen = []
    view.observe(lambda change: seen.append((change["new"]["writing"], len(change["new"]["columns"][0]["pieces"]))), "facts")
    view.play()
    assert [count for _, count in seen] == [0, 1, 2, 3, 4, 4][:len(seen)]
    assert seen[-1] == (False, 4)
    assert all(writing for writing, _ in seen[:-1])


def test_stop_ends_after_the_step_and_keeps_what_is_there(model, made, monkeypatch):
    from hooklab.views import continuations

    monkeypatch.setattr(continuations, "PAUSE", 0.0)
    view = made(model, PROMPT, max_new_tokens=30, temperature=5.0, play=False)
    view.observe(lambda change: len(change["new"]["columns"][0]["pieces"]) == 2 and view.stop(), "facts")
    view.play()
    assert len(view.run.texts["plain"][0].ids) == 2
    assert view.run.texts["plain"][0].stopped == "stop"
    assert view.facts["note"] == "Stopped before its end."


def test_the_page_can_ask_to_write_and_is_told_when_it_went_wrong(model, made):
    view = made(model, PROMPT, max_new_tokens=2, play=False)
    done = threading.Event()
    view.observe(lambda change: not change["new"]["writing"] and view.run is not None and done.set(), "facts")
    assert view.answer("play", {})[0] == {"writing": True}
    assert done.wait(60)
    assert len(view.run.texts["plain"][0].ids) == 2


def test_what_the_page_says_is_not_held_back_by_the_cell_that_writes(model, made):
    view = made(model, PROMPT, max_new_tokens=2, play=False)
    view.comm._reply_subshell_id = None  # as ipykernel notes when a cell on the main shell has sent something
    view.play()
    assert not hasattr(view.comm, "_reply_subshell_id")


def test_an_edit_that_fails_while_it_runs_is_an_error_and_the_view_still_stands(model, made):
    view = made(model, PROMPT, "steer L2.resid by {v}", v=torch.ones(3), play=False)
    with pytest.raises(SpecError, match="shape"):
        view.play()
    assert view.facts["writing"] is False


def test_one_view_does_not_write_twice_at_once(model, made):
    view = made(model, PROMPT, max_new_tokens=2, play=False)
    tried = []

    def again(change):
        if change["new"]["writing"] and not tried:
            with pytest.raises(ViewError, match="already"):
                view.play()
            tried.append(True)

    view.observe(again, "facts")
    view.play()
    assert tried == [True]


def test_random_numbers_of_the_notebook_are_left_alone(model, made):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    made(model, PROMPT, max_new_tokens=3, temperature=1.0)
    assert torch.equal(torch.rand(3), expected)


# Errors and manners ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "options", "says"), [
    ((), {}, "needs a prompt"), ((PROMPT,), {"top": 0}, "from 1 to 50"), ((PROMPT, 'prompt "b"'), {}, "is no edit"),
    ((PROMPT, "generate 4"), {}, "is no edit")])
def test_arguments_that_do_not_go_together_are_refused(given, options, says, model):
    with pytest.raises(ViewError, match=says):
        hl.view.generation(model, *given, **options)


def test_a_misspelt_edit_is_shown_under_its_place(model):
    with pytest.raises(SpecError, match="stear"):
        hl.view.generation(model, PROMPT, "stear L2.resid by 3")


def test_what_is_neither_model_nor_run_is_refused(model):
    with pytest.raises(ViewError, match="of type int"):
        hl.view.generation(3)
    with pytest.raises(ViewError, match="wrote nothing"):
        hl.view.generation(model.run(f'prompt "{PROMPT}"'))
    with pytest.raises(ViewError, match="go with a model"):
        hl.view.generation(model.run(f'prompt "{PROMPT}"\ngenerate 1'), "another prompt")
    with pytest.raises(RecordError, match="wrote nothing"):
        continuing.saved(hl.Run(), "main")


def test_hostile_text_stays_text(made):
    from hooklab.records import Text

    bad = '<script>alert(1)</script>\u202e\x1b'
    run = hl.Run("", texts={"main": (Text(bad, bad, bad, (1,)),)})
    view = made(run)
    for shown in (view.static(), repr(view)):
        assert "<script" not in shown
        assert "\u202e" not in shown
    page = view.to_html()
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert view.facts["columns"][0]["pieces"][0].startswith("<script>")


def test_numbers_that_are_none_are_shown_as_such(made):
    from hooklab.records import Text
    from hooklab.tokens import Tokens

    logits = torch.tensor([[[0.0, float("nan"), 1.0], [1.0, 0.0, 0.0]]])
    run = hl.Run('prompt "a"\ngenerate 2', {"main.logits": logits}, {"main.logits": ("batch", "pos", "d_vocab")},
                 tokens_of={"main": Tokens.from_ids([[0, 1, 2]], n_prompt=[1])},
                 texts={"main": (Text("abc", "a", "bc", (1, 2)),)})
    view = made(run)
    assert np.isnan(array(view, "chance")[0])
    assert array(view, "chance")[1] == pytest.approx(1 / (2 + np.e))


def test_a_closed_view_holds_nothing_and_says_so(model):
    view = hl.view.generation(model, PROMPT, max_new_tokens=2)
    view.close()
    assert view._columns == []
    assert view._maker is None
    with pytest.raises(ViewError, match="closed"):
        view.play()


def test_the_figure_has_the_probabilities(model, made):
    view = made(model, PROMPT, "zero L2.mlp", max_new_tokens=3)
    lines = view.plot().axes[0].lines
    drawn = np.concatenate([line.get_ydata() for line in lines])
    np.testing.assert_allclose(drawn, array(view, "chance"), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_the_steps_of_the_figure_are_whole_numbers(model, made, count):
    ax = made(model, PROMPT, max_new_tokens=count).plot().axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == [str(step) for step in range(count)]


def test_a_long_text_is_shortened_without_script_and_says_so(made):
    from hooklab.records import Text

    run = hl.Run("", texts={"main": (Text("", "", " x" * 500, tuple(range(500))),)})
    view = made(run)
    assert "100 more tokens" in view.static()
    assert len(view.static()) < 100_000
