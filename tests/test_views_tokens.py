"""Text coloured by a number per token: its numbers against transformers, its text against hostile input, its errors."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_models
import torch

import hooklab as hl
from hooklab.analysis.predictions import PredictionError, predictions, readout
from hooklab.errors import ViewError
from hooklab.model.model import Model
from hooklab.records import Scores
from hooklab.views import strip_plot, tints, wire
from hooklab.views.strips import scale_for, visible

PROMPTS = ["When Mary and John went to the store, John gave a drink to", "John gave Mary a book"]
HOSTILE = ["<img src=x onerror=bad()>", "</script>", "\x1b[31m", "\x00", "\ud800", "a\u202eb", "x" * 10_000, "\\u003c",
           "&amp;", '"', "{{", "\u2028", "\n", "", " "]


@pytest.fixture(scope="module")
def lab():
    with hl.load("lab") as model:
        yield model


@pytest.fixture
def tokens():
    views = []
    yield lambda *given, **options: views.append(hl.view.tokens(*given, **options)) or views[-1]
    for view in views:
        view.close()


def array(view, name):
    """An array of a view, read out of its bytes by hand."""
    entry = view.facts["arrays"][name]
    dtype = {"u8": "u1", "i32": "<i4", "f32": "<f4"}[entry["kind"]]
    return np.frombuffer(view.blob, dtype, int(np.prod(entry["shape"])), entry["at"]).reshape(entry["shape"])


def logs(hf, ids):
    """Log-probabilities [pos d_vocab] of one prompt by a module that hooklab has not touched."""
    with torch.no_grad():
        out = hf(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits[0].double()
    return (out - out.exp().sum(-1, keepdim=True).log()).numpy()


# What a model expects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "bloom", "opt", "opt_postnorm", "falcon", "gpt_oss"])
def test_predictions_of_prompts_of_different_lengths_are_those_of_transformers_alone(family):
    prompts = [[5, 17, 3, 42, 8, 17], [9, 3, 77]]
    found = predictions(Model(tiny_models.build(family)), prompts, k=4)
    for i, ids in enumerate(prompts):
        expected = logs(tiny_models.build(family), ids)
        own = [expected[p - 1, ids[p]] for p in range(1, len(ids))]
        np.testing.assert_allclose(found.log_prob[i][1:], own, atol=2e-4)
        assert np.isnan(found.log_prob[i][0]) and found.rank[i][0] == -1
        likelier = [int((expected[p - 1] > expected[p - 1, ids[p]]).sum()) for p in range(1, len(ids))]
        assert found.rank[i][1:].tolist() == likelier
        order = np.argsort(-expected, axis=-1, kind="stable")[:, :4]
        assert found.ids[i].tolist() == order.tolist()
        np.testing.assert_allclose(found.probs[i], np.exp(np.take_along_axis(expected, order, 1)), atol=1e-5)
        np.testing.assert_allclose(found.entropy[i], -(np.exp(expected) * expected).sum(-1), atol=1e-4)


def test_reading_in_pieces_is_reading_at_once(lab, monkeypatch):
    stream = torch.randn(7, lab.facts.d_model)
    whole = readout(lab, stream, [1, 2, 3, -1, 5, 6, 7], 3)
    monkeypatch.setattr("hooklab.analysis.predictions.ROOM", 2 * lab.facts.d_vocab)
    parts = readout(lab, stream, [1, 2, 3, -1, 5, 6, 7], 3)
    assert (whole.ids == parts.ids).all() and (whole.rank == parts.rank).all() and whole.rank[3] == -1
    np.testing.assert_allclose(whole.log_prob, parts.log_prob, atol=1e-6)


def test_logits_of_a_long_prompt_are_never_held_at_once(lab, monkeypatch):
    seen = []
    unembed = lab.layout.unembed
    monkeypatch.setattr(lab.layout, "unembed", lambda x, ids=None: seen.append(len(x)) or unembed(x, ids))
    monkeypatch.setattr("hooklab.analysis.predictions.ROOM", 10 * lab.facts.d_vocab)
    predictions(lab, " ".join(["Mary went to the store"] * 20), k=2)
    assert max(seen) == 10 and sum(seen) > 80


def test_equal_logits_come_in_the_order_of_ids(lab):
    rows = torch.zeros(1, lab.facts.d_model)
    found = readout(lab, rows, [5], 4, normed=True)
    assert found.ids[0].tolist() == [0, 1, 2, 3] and found.rank[0] == 5
    assert found.entropy[0] == pytest.approx(np.log(lab.facts.d_vocab), rel=1e-5)


@pytest.mark.parametrize(("family", "word"), [("bert", "both ways"), ("gpt2_base", "logits")])
def test_models_without_next_tokens_are_refused(family, word):
    with pytest.raises(PredictionError, match=word):
        predictions(Model(tiny_models.build(family)), [[5, 6, 7]])


def test_a_count_of_tokens_below_one_is_refused(lab):
    with pytest.raises(PredictionError, match="1 or more"):
        predictions(lab, PROMPTS[0], k=0)


def test_a_model_and_a_prompt_show_four_numbers_of_each_token_and_what_was_likely_next(lab, tokens):
    view = tokens(lab, PROMPTS[0], top=3)
    expected = predictions(lab, PROMPTS[0], k=3)
    values = array(view, "values")
    np.testing.assert_allclose(values[0], expected.log_prob[0], rtol=1e-6)
    np.testing.assert_allclose(values[1, 1:], np.exp(expected.log_prob[0][1:]), rtol=1e-5)
    assert values[2, 1:].tolist() == expected.rank[0][1:].tolist() and np.isnan(values[2, 0])
    assert [one["name"] for one in view.facts["sets"]] == ["log-probability", "probability", "rank", "entropy of the next"]
    assert view.facts["sets"][0]["tint"] == "down" and view.facts["sets"][0]["scale"]["high"] == 0
    assert array(view, "ids").shape == (15, 3)
    # At each position stands what came after it: its probability there, its rank there.
    np.testing.assert_allclose(array(view, "prob")[:-1], values[1, 1:], rtol=1e-6)
    assert array(view, "rank").tolist() == [*expected.rank[0][1:].tolist(), -1]
    assert view.facts["tokens"][str(array(view, "ids")[-1, 0])] == "·Mary"


# Numbers that someone gives ----------------------------------------------------------------------------------------------


def test_numbers_travel_as_they_are(tokens):
    view = tokens(["a", " b", "\n"], [0.25, float("nan"), -1e30])
    assert array(view, "values").tolist()[0][0] == 0.25 and np.isnan(array(view, "values")[0, 1])
    assert view.facts["sets"][0]["scale"] == {"kind": "diverging", "low": -1.0000000150474662e+30,
                                             "high": 1.0000000150474662e+30}


def test_padded_arrays_are_read_at_the_places_of_their_tokens(lab, tokens):
    given = lab.tokens(PROMPTS)
    padded = torch.arange(2 * given.width, dtype=torch.float32).reshape(2, -1)
    for side in ("left", "right"):
        record = replace(given, padding_side=side)
        start = [given.width - n if side == "left" else 0 for n in given.lengths]
        expected = [float(padded[i, start[i] + p]) for i in range(2) for p in range(given.lengths[i])]
        assert array(tokens(record, padded), "values")[0].tolist() == expected


def test_ragged_lists_are_one_after_the_other(tokens):
    view = tokens([["a", "b"], ["c"]], [[1.0, 2.0], [3.0]])
    assert array(view, "values").tolist() == [[1.0, 2.0, 3.0]]
    assert [len(row["pieces"]) for row in view.facts["rows"]] == [2, 1]
    assert [axis["name"] for axis in view.facts["axes"]] == ["batch", "pos"]


def test_several_numbers_of_one_prompt_are_chosen_by_name_each_on_its_own_scale(tokens):
    view = tokens(["a", "b"], {"loss": [0.0, 4.0], "effect": torch.tensor([-1.0, 0.5])})
    assert array(view, "values").tolist() == [[0.0, 4.0], [-1.0, 0.5]]
    assert [one["scale"]["kind"] for one in view.facts["sets"]] == ["linear", "diverging"]
    assert view.select(value="effect", pos=1).selection == {"value": "effect", "pos": 1}


def test_rows_of_scores_are_one_scale_and_share_their_axis(tokens):
    scores = Scores(np.array([[0.0, 1.0], [2.0, 8.0]]), ("layer", "pos"), {"layer": (3, 5), "pos": ("0: a", "1: b")})
    view = tokens(scores)
    assert [one["scale"]["high"] for one in view.facts["sets"]] == [8.0, 8.0]
    assert view.select(layer=5, pos=0).selection == {"layer": 5, "pos": 0} and "layer" in view.shared
    assert array(view, "values").tolist() == [[0.0, 1.0], [2.0, 8.0]]


def test_scores_of_some_positions_leave_the_others_of_a_prompt_without_a_number(lab, tokens):
    scores = Scores(np.array([1.0, 2.0]), ("pos",), {"pos": ("2: Mary", "4: John")})
    values = array(tokens(lab.tokens(PROMPTS[0]), scores), "values")[0]
    assert values[[2, 4]].tolist() == [1.0, 2.0] and np.isnan(np.delete(values, [2, 4])).all()


def test_scores_of_a_batch_take_the_text_of_each_cell(tokens):
    labels = np.array([["a", "b"], ["c", "d"]], dtype=object)
    view = tokens(Scores(np.eye(2), ("batch", "pos"), labels=labels))
    assert [row["pieces"] for row in view.facts["rows"]] == [["a", "b"], ["c", "d"]]


def test_likely_tokens_come_out_of_scores_with_ranks(tokens):
    labels = np.array([["x", "b"], ["y", "z"]], dtype=object)
    ranked = Scores(np.array([[0.6, 0.3], [0.5, 0.4]]), ("pos", "rank"), {"pos": ("0: a", "1: b"), "rank": (0, 1)},
                    labels=labels)
    view = tokens(ranked)
    texts = [[view.facts["tokens"][str(i)] for i in row] for row in array(view, "ids")]
    assert texts == labels.tolist()
    assert array(view, "rank").tolist() == [1, -1] and array(view, "prob")[0] == pytest.approx(0.3)


@pytest.mark.parametrize(("values", "kind", "tint"), [
    ([0.0, 2.0], "linear", "up"), ([-3.0, -1.0], "linear", "down"), ([-1.0, 2.0], "diverging", "both"),
])
def test_the_scale_follows_the_signs(values, kind, tint):
    scale = scale_for(np.array(values), ("value", ""))
    assert (scale.kind, tints.tint(scale)) == (kind, tint)


def test_a_limit_ends_the_colours_and_signs_can_be_asked_for(tokens):
    assert tokens(["a", "b"], [0.0, 9.0], limit=3).facts["sets"][0]["scale"]["high"] == 3
    assert tokens(["a", "b"], [0.0, 9.0], signed=True).facts["sets"][0]["scale"]["low"] == -9


def contrast(a, b):
    def light(rgb):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(a), light(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", tints.NAMES)
@pytest.mark.parametrize(("page", "ink"), [((1, 1, 1), (0, 0, 0)), ((0.067, 0.067, 0.067), (1, 1, 1))])
def test_the_ink_of_the_page_reads_on_every_tint(name, page, ink):
    assert min(contrast(tints.over(name, code, page), ink) for code in range(256)) >= 4.5


def test_tints_are_none_at_zero_and_grow_away_from_it():
    alpha = {name: tints.table(name)[:, 3].astype(int) for name in tints.NAMES}
    assert (np.diff(alpha["up"][4:]) >= 0).all() and alpha["up"][4] == 0
    assert (np.diff(alpha["down"][4:]) <= 0).all() and alpha["down"][255] == 0
    assert alpha["both"][130] == 0 and alpha["both"][5] == alpha["both"][255] == alpha["up"][255]
    assert tuple(tints.table("both")[5, :3]) == tints.BELOW and tuple(tints.table("both")[255, :3]) == tints.ABOVE


# Runs, and what a choice spells ------------------------------------------------------------------------------------------


SWEPT = '''
prompt clean = "When Mary and John went to the store, John gave a drink to"
prompt bad = "When Mary and Anna went to the store, Anna gave a drink to"
answer " Mary" vs " John"
metric logit_diff
run patched on bad:
    patch each L*.resid @each from clean
'''


def test_a_swept_run_is_coloured_by_its_numbers_and_a_choice_is_its_cell(lab, tokens):
    run = lab.run(SWEPT)
    view = tokens(run)
    scores = run.scores["patched.logit_diff"]
    np.testing.assert_allclose(array(view, "values"), scores.values, rtol=1e-5)
    assert view.facts["rows"][0]["pieces"][4] == " Anna"
    again = lab.run(view.select(layer=2, pos=4).spec)
    assert again.metrics["patched"]["logit_diff"] == pytest.approx(float(scores.sel(layer=2, pos=4).values), rel=1e-4)


def test_a_run_with_a_lens_spells_its_line_for_one_cell(lab, tokens):
    run = lab.run(f'prompt "{PROMPTS[0]}"\nlens L*.resid_post @each top=2')
    view = tokens(run)
    again = lab.run(view.select(layer=3, pos=14).spec)
    assert float(again.scores["main.lens"].values.flat[0]) == pytest.approx(float(array(view, "values")[3, 14]), rel=1e-5)


def test_a_run_without_numbers_per_position_shows_its_prompts_and_says_so(lab, tokens):
    run = lab.run(f'prompt "{PROMPTS[0]}"')
    view = tokens(run)
    assert view.facts["sets"] == [] and "@each" in view.facts["note"] and len(view.facts["rows"]) == 1


def test_views_of_a_run_choose_together(lab, tokens):
    run = lab.run(SWEPT)
    first, second = tokens(run), hl.view.grid(run.scores["patched.logit_diff"], source=run)
    first.select(layer=1, pos=3)
    assert second.selection == {"layer": 1, "pos": 3}
    second.close()


@pytest.mark.parametrize("row", [0, 1])
def test_the_spec_of_a_token_runs_and_saves_the_stream_there(lab, tokens, row):
    given = lab.tokens(PROMPTS)
    view = tokens(given, [[0.0] * n for n in given.lengths]).select(batch=row, pos=3)
    run = lab.run(view.spec)
    acts = lab.capture(PROMPTS[row], "L2.resid_post", at=3)
    np.testing.assert_allclose(run["L2.resid_post"].flatten().numpy(), acts["L2.resid_post"].flatten().numpy(), atol=1e-5)


def test_a_row_that_has_no_such_position_spells_nothing(lab, tokens):
    given = lab.tokens(PROMPTS)
    assert tokens(given).select(batch=1, pos=12).spec == ""


def test_a_choice_outside_of_the_text_is_refused(tokens):
    view = tokens(["a", "b"], [1.0, 2.0])
    with pytest.raises(ViewError, match="no pos 7"):
        view.select(pos=7)
    assert view.select(pos=-1).selection == {"pos": 1}


# Text --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("piece", "seen"), [
    ("\n", "↵\n"), ("\n\n", "↵\n↵\n"), (".\n", ".↵\n"), ("\t", "⇥"), ("\r\n", "␍↵\n"), (" she", " she"), ("    ", "····"),
    ("  x", "··x"), ("x ", "x·"), ("", "∅"), ("\u00a0", "⍽"), ("e\u0301", "e\u0301"), ("می\u200cشود", "می\u200cشود"),
    ("👩\u200d🚀", "👩\u200d🚀"), ("שלום", "שלום"), ("\u202e", "\\u202e"), ("\ud800", "\\ud800"), ("\x00", "\\x00"),
])
def test_a_token_shows_what_it_is(piece, seen):
    assert visible(piece) == seen


def test_a_very_long_token_is_cut_and_says_so():
    assert visible("x" * 10_000).endswith("… (10000 characters)") and len(visible("x" * 10_000)) < 200


def test_hostile_text_is_inert_in_every_form(tokens, tmp_path):
    view = tokens(HOSTILE, np.arange(len(HOSTILE)), title=HOSTILE[0]).select(pos=3)
    json.dumps(view.facts, allow_nan=False).encode()
    forms = [view.static(), view.to_html(), repr(view), view._repr_mimebundle_()[0]["text/html"]]
    for form in forms[:2] + forms[3:]:
        assert "<img" not in form and "onerror=bad" not in form.replace("&lt;img src=x onerror=bad", "").replace(
            "\\u003cimg src=x onerror=bad", "")
        form.encode()
    for form in forms:
        assert "\x1b" not in form and "\x00" not in form and "\u202e" not in form and "x" * 200 not in form
    assert view.to_html().count("</script>") == 2
    assert view.to_png()[:4] == b"\x89PNG"


def test_rows_with_hostile_names_are_shown_as_text(tokens):
    view = tokens(["a"], {HOSTILE[0]: [1.0], "\x1b[31m": [2.0]})
    assert view.facts["sets"][1]["name"] == "\\x1b[31m" and "<img" not in view.to_html()


# Errors, forms, closing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "says"), [
    ((["a", "b"], [1.0]), r"shape \(1,\).*tokens are 2"),
    (([["a", "b"], ["c"]], [[1.0], [2.0]]), "tokens are 2, 1"),
    ((["a"], []), "empty"),
    (([],), "no tokens"),
    (([[]],), "no tokens"),
    (("a text",), "model divides it"),
    ((["a", 3],), "tokens are strings"),
    ((7,), "not int"),
    ((["a"], {}), "empty dict"),
    ((["a"], ["x"]), "real numbers|no array"),
    ((Scores(np.eye(2), ("layer", "head")),), "over pos"),
    ((Scores(np.zeros((2, 2, 2)), ("layer", "head", "pos")),), "one axis more"),
    ((["a", "b"], Scores(np.zeros(3), ("pos",))), "3 positions"),
])
def test_what_does_not_fit_is_an_error_that_says_both_sizes(given, says):
    with pytest.raises(ViewError, match=says):
        hl.view.tokens(*given)


def test_what_is_missing_of_a_model_or_a_run_is_said(lab):
    with pytest.raises(ViewError, match="which prompt"):
        hl.view.tokens(lab)
    run = lab.run(f'prompt "{PROMPTS[0]}"')
    with pytest.raises(ViewError, match="no scores 'lend'"):
        hl.view.tokens(run, "lend")
    with pytest.raises(ViewError, match="predictions for 15 tokens; there are 1"):
        hl.view.tokens(["a"], [1.0], top=predictions(lab, PROMPTS[0]))
    with pytest.raises(ViewError, match="limit"):
        hl.view.tokens(["a"], [1.0], limit=-1)


def test_too_many_tokens_are_refused(monkeypatch):
    monkeypatch.setattr("hooklab.views.strips.MOST_TOKENS", 3)
    with pytest.raises(ViewError, match="4 tokens are more than the 3"):
        hl.view.tokens(list("abcd"))


def test_the_form_without_script_says_what_it_leaves_out(tokens, monkeypatch):
    monkeypatch.setattr("hooklab.views.strips.MOST_STATIC", 3)
    text = tokens(list("abcdef"), range(6)).static()
    assert "first 3 of 6 tokens" in text and ">c</span>" in text and ">d</span>" not in text


def test_a_long_text_stays_small_without_script(tokens):
    view = tokens(["token"] * 5000, np.random.default_rng(0).normal(size=5000))
    assert len(view.static()) < 100 * 1024


def test_the_figure_colours_each_token_by_its_number(tokens):
    values = [0.0, 5.0, -10.0]
    figure = tokens(["ab", " cd", "e\n"], values, title="t").plot()
    boxes = [patch for patch in figure.axes[0].patches]
    scale = wire.Scale("diverging", -10.0, 10.0)
    expected = [tints.over("both", int(code)) for code in scale.codes(values)]
    np.testing.assert_allclose([box.get_facecolor()[:3] for box in boxes], expected)
    assert [box.get_x() for box in boxes] == [0, 2, 5]


def test_text_is_wrapped_between_tokens_and_wide_letters_take_two_columns():
    laid = list(strip_plot.laid(["abcd", "efgh", "語語", "e\u0301", "\n"], 10))
    assert [(line, column) for _, line, column, _ in laid] == [(0, 0), (0, 4), (1, 0), (1, 4)]


def test_a_closed_view_holds_nothing(lab):
    view = hl.view.tokens(lab, PROMPTS[0])
    view.close()
    assert view.blob == b"" and view._found.rows == () and not view._found.values.size
    with pytest.raises(ViewError, match="closed"):
        view.to_html()
