"""The view of attention: what it reads, sends and answers, what a selection spells, and that text stays text."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_models import build

import hooklab as hl
from hooklab.analysis.patterns import value_norms
from hooklab.errors import ViewError
from hooklab.views import pattern_maps
from hooklab.views.page import page
from hooklab.views.pattern_maps import Map, Maps, strongest
from hooklab.views.pattern_pictures import shown_alone
from hooklab.views.pattern_sources import read

IOI = "When Mary and John went to the store, John gave a drink to"
SWAPPED = "When Mary and John went to the store, Mary gave a drink to"
WORDS = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def lab():
    with hl.load("lab") as model:
        yield model


def causal(*shape: int) -> np.ndarray:
    """Random causal patterns: rows sum to 1."""
    raw = np.random.default_rng(0).random(shape) ** 4 * np.tri(shape[-1])
    return (raw / raw.sum(-1, keepdims=True)).astype(np.float32)


def sent(view) -> dict[str, np.ndarray]:
    """The arrays of a view, unpacked by hand."""
    kinds = {"u8": np.uint8, "f32": "<f4"}
    return {name: np.frombuffer(view.blob, kinds[one["kind"]], int(np.prod(one["shape"])), one["at"]).reshape(one["shape"])
            for name, one in view.facts["arrays"].items()}


def coded(values: np.ndarray, high: float = 1.0) -> np.ndarray:
    """The codes of probabilities, from the definition: 4 to 255 by the square root."""
    return np.rint(4 + 251 * np.sqrt(np.clip(values / high, 0, 1))).astype(int)


def ask(view, name: str, head: int = 0, prompt: int = 0, mode: str = "pattern", against: int = 0, **more):
    return view.answer(name, {"prompt": prompt, "mode": mode, "against": against, "head": head, **more})


def test_small_pictures_of_a_short_prompt_are_its_patterns_cell_by_cell():
    values = causal(2, 3, 4, 4)
    arrays = sent(hl.view.attention(values, tokens=WORDS))
    expected = np.where(np.tri(4, dtype=bool), coded(values), 0).reshape(6, 4, 4)
    assert np.abs(arrays["thumbs"].astype(int) - expected).max() <= 1
    assert (arrays["thumbs"][:, ~np.tri(4, dtype=bool)] == 0).all()


def test_a_pattern_that_looks_ahead_is_not_masked():
    values = np.full((1, 3, 3), 1 / 3, np.float32)
    view = hl.view.attention(values)
    assert not view.facts["thumbs"]["causal"]
    assert (sent(view)["thumbs"] == coded(np.float32(1 / 3))).all()


def test_a_long_prompt_is_pooled_so_that_a_spike_is_seen():
    values = np.zeros((1, 1, 200, 200), np.float32)
    values[0, 0, 150, 37] = 0.81
    view = hl.view.attention(values)
    side, block = view.facts["thumbs"]["side"], view.facts["thumbs"]["block"]
    thumb = sent(view)["thumbs"][0]
    assert (side, block) == (50, 4)
    assert thumb[150 // 4, 37 // 4] == coded(np.float32(0.81))
    assert (np.delete(thumb.ravel(), 37 * 50 + 9) <= 4).all()


def test_the_first_column_is_also_sent_without_the_first_token():
    values = np.zeros((1, 130, 130), np.float32)
    values[0, :, 0], values[0, 100, 2] = 1.0, 0.25
    view = hl.view.attention(values)
    arrays, block = sent(view), view.facts["thumbs"]["block"]
    assert arrays["thumbs"][0, 100 // block, 0] == 255
    assert arrays["first"][0, 100 // block] == coded(np.float32(0.25))
    assert arrays["first"][0, 0] == 4
    assert arrays["peaks"].tolist() == [[1.0, 0.25]]


def test_a_head_that_is_asked_for_is_its_lower_triangle():
    values = causal(2, 2, 100, 100)
    view = hl.view.attention(values)
    facts, (codes,) = ask(view, "head", 3)
    assert facts["causal"] and len(codes) == 100 * 101 // 2
    square = np.zeros((100, 100), int)
    square[np.tril_indices(100)] = np.frombuffer(codes, np.uint8)
    assert np.abs(square - np.where(np.tri(100), coded(values[1, 1]), 0)).max() <= 1


def test_exact_rows_are_the_numbers_that_were_given():
    values = causal(3, 200, 200)
    view = hl.view.attention(values)
    facts, (raw,) = ask(view, "rows", 2, part=1)
    rows = pattern_maps.rows_in(200)
    assert facts["rows"] == rows == 81
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4").reshape(rows, 200), values[2, 81:162])
    _, (column,) = ask(view, "column", 2, key=7)
    np.testing.assert_array_equal(np.frombuffer(column, "<f4"), values[2, :, 7])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_every_precision_are_copied(dtype):
    tensor = torch.tensor(causal(2, 4, 4)).to(dtype).requires_grad_()
    view = hl.view.attention(tensor)
    with torch.no_grad():
        before = tensor.float().numpy().copy()
        tensor.zero_()
    _, (raw,) = ask(view, "rows", 1, part=0)
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4").reshape(4, 4), before[1])


def test_what_is_no_number_is_sent_as_such():
    values = causal(1, 4, 4)
    values[0, 2, 1], values[0, 3, 0] = np.nan, np.inf
    thumb = sent(hl.view.attention(values))["thumbs"][0]
    assert (thumb[2, 1], thumb[3, 0]) == (1, 2)


def test_scores_below_zero_get_a_scale_with_zero_in_its_middle():
    view = hl.view.attention(np.array([[-2.0, 1.0], [0.0, 0.5]]))
    assert view.facts["thumbs"]["scale"] == {"kind": "diverging", "low": -2.0, "high": 2.0}
    assert sent(view)["thumbs"][0, 0, 0] == 5 and sent(view)["thumbs"][0, 1, 0] == 130


@pytest.mark.parametrize("block", [2, 3, 7])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_pooling_takes_the_number_furthest_from_zero(block, dtype):
    values = np.random.default_rng(1).normal(size=(20, 20)).astype(dtype)
    for sign in (values, np.abs(values)):
        found = strongest(sign, block)
        for i in range(len(found)):
            for j in range(len(found)):
                part = sign[i * block:(i + 1) * block, j * block:(j + 1) * block].astype(np.float32).ravel()
                assert found[i, j] == part[np.abs(part).argmax()]


# Sources -----------------------------------------------------------------------------------------------------------------


def test_a_model_is_captured_on_its_prompt(lab):
    view = hl.view.attention(lab, IOI)
    expected = lab.capture(IOI, "L3.pattern")["L3.pattern"][0, 2].numpy()
    _, (raw,) = ask(view, "rows", 3 * 6 + 2, part=0)
    np.testing.assert_allclose(np.frombuffer(raw, "<f4").reshape(expected.shape), expected, atol=1e-6)
    assert [axis["name"] for axis in view.facts["axes"]] == ["layer", "head", "pos", "key_pos"]


def test_prompts_of_several_lengths_have_their_own_tokens_without_padding(lab):
    view = hl.view.attention(lab, [IOI, "The Eiffel Tower"])
    for i, text in enumerate([IOI, "The Eiffel Tower"]):
        alone = lab.capture(text, "L1.pattern")["L1.pattern"][0, 4].numpy()
        _, (raw,) = ask(view, "rows", 6 + 4, prompt=i, part=0)
        np.testing.assert_allclose(np.frombuffer(raw, "<f4").reshape(alone.shape), alone, atol=1e-5)
        assert len(view.facts["prompts"][i]["pieces"]) == len(alone)
    assert "difference" not in view.facts["modes"]


def test_a_run_shows_what_it_saved_of_each_of_its_runs(lab):
    run = lab.run(f'prompt "{IOI}"\nzero L1H1\nsave L2H[1,3].pattern\nshow attention L3')
    view = hl.view.attention(run)
    assert [one["label"] for one in view.facts["prompts"]] == ["main", "hooked"]
    assert [one["name"] for one in view.facts["heads"]] == [f"L3H{i}" for i in range(6)]
    _, (raw,) = ask(view, "rows", 5, prompt=1, part=0)
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4").reshape(15, 15), run["hooked.L3.pattern"][0, 5].numpy())


def test_the_difference_of_two_prompts_is_one_minus_the_other(lab):
    view = hl.view.attention(lab, [IOI, SWAPPED], compare=1)
    acts = lab.capture([IOI, SWAPPED], "L1.pattern")["L1.pattern"].numpy()
    difference = acts[0, 2] - acts[1, 2]
    _, (raw,) = ask(view, "rows", 6 + 2, mode="difference", against=1, part=0)
    np.testing.assert_allclose(np.frombuffer(raw, "<f4").reshape(15, 15), difference, atol=1e-6)
    assert view.options["mode"] == "difference" and view.facts["map"] == {"prompt": 0, "mode": "difference", "against": 1}
    scale = view.facts["thumbs"]["scale"]
    assert scale["kind"] == "diverging" and scale["high"] >= np.abs(difference).max()


def test_another_source_can_be_taken_away():
    one, other = causal(2, 4, 4), np.full((2, 4, 4), 0.25, np.float32)
    view = hl.view.attention(one, tokens=WORDS, compare=other)
    _, (raw,) = ask(view, "rows", 1, mode="difference", against=1, part=0)
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4").reshape(4, 4), one[1] - other[1])


def test_activations_and_lists_of_layers_are_read(lab):
    acts = lab.capture(IOI, "L1:3.pattern")
    view = hl.view.attention(acts, heads=["L2H4", (1, 0)])
    layers = hl.view.attention([acts["L1.pattern"], acts["L2.pattern"]], tokens=acts.tokens)
    assert [one["name"] for one in view.facts["heads"]] == ["L2H4", "L1H0"]
    assert ask(view, "rows", 0, part=0)[1] == ask(layers, "rows", 6 + 4, part=0)[1]


def test_scores_bring_their_labels():
    values = causal(2, 2, 3, 3)
    labels = ("0: the", "1: cat", "2: sat")
    scores = hl.Scores(values, ("layer", "head", "query_pos", "key_pos"), coords={"layer": (4, 7), "query_pos": labels,
                                                                                 "key_pos": labels})
    view = hl.view.attention(scores)
    assert [one["name"] for one in view.facts["heads"]] == ["L4H0", "L4H1", "L7H0", "L7H1"]
    assert view.facts["prompts"][0]["pieces"] == ["the", "cat", "sat"]
    assert view.select(layer=7, head=1).selection == {"layer": 7, "head": 1}


def test_axes_say_what_an_array_is_where_its_shape_does_not():
    values = causal(2, 3, 4, 4)
    view = hl.view.attention(values, axes="batch head query_pos key_pos")
    assert len(view.facts["prompts"]) == 2 and [one["name"] for one in view.facts["heads"]] == ["H0", "H1", "H2"]
    swapped = hl.view.attention(values.transpose(1, 0, 2, 3), axes="head batch query_pos key_pos")
    assert ask(view, "rows", 2, prompt=1, part=0)[1] == ask(swapped, "rows", 2, prompt=1, part=0)[1]


# Values ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_value_norms_are_lengths_of_what_a_head_writes_for_one_token(family):
    with hl.load(build(family)) as model:
        ids = [[1, 2, 3, 4, 5]]
        acts = model.capture(ids, ["L1.v", "L1.pattern", "L1.result"])
        norms = value_norms(model, acts)[1]
        group = model.facts.n_heads // model.facts.n_kv_heads
        for head in range(model.facts.n_heads):
            written = acts["L1.v"][0, :, head // group].double() @ model.W.O[1, head].double()
            np.testing.assert_allclose(norms[0, head].numpy(), written.norm(dim=-1).numpy(), rtol=1e-4)
        # A head writes its pattern times these vectors: where it can look at one token only, as much as that norm.
        first = acts["L1.result"][0, 0].norm(dim=-1)
        np.testing.assert_allclose(norms[0, :, 0].numpy(), first.numpy(), rtol=1e-3)


def test_the_value_weighted_map_is_the_pattern_times_the_norms(lab):
    view = hl.view.attention(lab, IOI)
    acts = lab.capture(IOI, ["L2.v", "L2.pattern"])
    written = acts["L2.v"][0, :, 1].numpy() @ lab.W.O[2, 1].numpy()
    expected = acts["L2.pattern"][0, 1].numpy() * np.linalg.norm(written, axis=-1)
    _, (raw,) = ask(view, "rows", 2 * 6 + 1, mode="value-weighted", part=0)
    np.testing.assert_allclose(np.frombuffer(raw, "<f4").reshape(expected.shape), expected, rtol=1e-4, atol=1e-6)
    assert view.facts["modes"] == ["pattern", "value-weighted"]


def test_values_of_an_array_can_be_given():
    values = causal(2, 2, 4, 4)
    sizes = np.arange(16, dtype=np.float32).reshape(2, 2, 4)
    view = hl.view.attention(values, values=sizes, mode="value-weighted")
    _, (raw,) = ask(view, "rows", 3, mode="value-weighted", part=0)
    np.testing.assert_allclose(np.frombuffer(raw, "<f4").reshape(4, 4), values[1, 1] * sizes[1, 1])
    assert hl.view.attention(values).facts["modes"] == ["pattern"]


# Choosing ----------------------------------------------------------------------------------------------------------------


def test_a_choice_is_checked_against_what_is_there(lab):
    view = hl.view.attention(lab, [IOI, "The Eiffel Tower"], heads=["L2H1", "L4H0"])
    view.select(layer=4, head=0, pos=-1)
    assert view.selection == {"layer": 4, "head": 0, "pos": 14}
    for wrong, says in (({"layer": 3}, "layer 3"), ({"layer": 2, "head": 0}, "L2H0"), ({"pos": 15}, "pos 15"),
                        ({"prompt": 2}, "prompt 2"), ({"key_pos": "Mary"}, "key_pos 'Mary'"), ({"row": 1}, "no axis 'row'")):
        with pytest.raises(ViewError, match=re.escape(says)):
            view.select(**wrong)
    with pytest.raises(ViewError, match="has 4 tokens"):
        view.select(prompt=1, pos=9)
    assert view.select(prompt=1).selection == {"layer": 4, "head": 0, "prompt": 1}  # its token is not in the shorter one


def test_views_of_one_run_choose_together(lab):
    run = lab.run(f'prompt "{IOI}"\nshow attention L2 L3')
    one, other = hl.view.attention(run), hl.view.attention(run, heads="L3")
    one.select(layer=3, head=4, pos=2, key_pos=1)
    assert other.selection == {"layer": 3, "head": 4, "pos": 2}
    one.select(layer=2)
    assert other.selection == {"head": 4, "pos": 2}  # layer 2 is not in it


@pytest.mark.filterwarnings("ignore:This model's tokenizer does not know")
def test_the_spelled_selection_of_a_model_runs_and_shows_the_same_head(lab):
    view = hl.view.attention(lab, ['She said "so"\n', IOI]).select(layer=2, head=1, prompt=1)
    run = lab.run(view.spec)
    assert run.views[0].sites == ("L2H1.pattern",)
    _, (raw,) = ask(view, "rows", 2 * 6 + 1, prompt=1, part=0)
    np.testing.assert_allclose(np.frombuffer(raw, "<f4").reshape(15, 15), run["L2.pattern"][0, 1].numpy(), atol=1e-5)
    view.select(prompt=0)
    assert view.spec.startswith("prompt ") and "so" in view.spec
    assert lab.run(view.spec).tokens.ids == lab.tokens('She said "so"\n').ids


@pytest.mark.parametrize("text", [
    'prompt "{ioi}"\nanswer " Mary" vs " John"\nmetric logit_diff\nzero L1H1\nsave L2.pattern\n'
    "expect hooked.logit_diff > -99\nshow attention L3H0",
    'prompt clean = "{ioi}"\nprompt corrupt = "{swapped}"\nrun a on corrupt:\n    patch L1H1 from clean\n'
    "    save L[2,3].pattern\nrun b on clean:\n    save L2.pattern\nshow top 3",
])
def test_the_spelled_selection_of_a_run_is_its_own_spec_with_this_head(lab, text):
    text = text.format(ioi=IOI, swapped=SWAPPED)
    run = lab.run(text)
    view = hl.view.attention(run)
    head = view.facts["heads"][2]
    view.select(layer=head["layer"], head=head["head"], prompt=view.facts["prompts"][-1]["key"])
    again = lab.run(view.spec)
    assert again.views[0].sites == (f"{head['name']}.pattern",) and len(again.views) == 1
    name = view.facts["prompts"][0]["key"]
    key = f"{name}.L{head['layer']}.pattern"
    torch.testing.assert_close(again.data[key], run.data[key])


def test_a_spec_keeps_all_that_makes_its_runs():
    text = 'prompt "a"\nzero each L*H1\nsave L2.z\nsave L2H[0,1].pattern as p\nshow top 3\nshow heads'
    assert shown_alone(text, "L5H1") == 'prompt "a"\nzero each L*H1\nsave L2.z\nshow attention L5H1'


def test_patterns_of_unknown_text_spell_nothing():
    assert hl.view.attention(causal(1, 2, 4, 4), tokens=WORDS).select(layer=0, head=1).spec == ""


# Errors ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "options", "says"), [
    (np.zeros(4), {}, "this array has 1"),
    (np.zeros((2, 3, 4)), {}, "head 2 · query_pos 3 · key_pos 4"),
    (np.zeros((0, 3, 3)), {}, "nothing to draw"),
    (np.zeros((1, 0, 0)), {}, "nothing to draw"),
    (np.zeros((2, 4, 4)), {"tokens": WORDS[:3]}, "3 tokens"),
    (np.zeros((2, 4, 4)), {"tokens": "abcd"}, "one string"),
    (np.zeros((2, 1, 4, 4)), {"tokens": [WORDS, WORDS, WORDS]}, "tokens of 3 prompts"),
    (np.zeros((2, 1, 4, 4)), {"tokens": [WORDS, WORDS[:2]]}, "model.tokens"),
    (np.zeros((2, 4, 4)), {"axes": "head key_pos"}, "do not fit an array of shape (2, 4, 4)"),
    (np.zeros((2, 4, 4)), {"axes": "heads query_pos key_pos"}, "give each axis one of"),
    (np.zeros((2, 2, 4, 4)), {"heads": ["L2H1"]}, "L2H1"),
    (np.zeros((2, 2, 4, 4)), {"heads": []}, "heads= is empty"),
    (np.zeros((2, 2, 4, 4)), {"heads": [3]}, "no head 3"),
    (np.zeros((2, 4, 4)), {"values": np.zeros((2, 3))}, "values are (2, 3)"),
    (np.zeros((2, 4, 4)), {"values": -np.ones((2, 4))}, "below zero"),
    (np.zeros((2, 4, 4)), {"mode": "value-weighted"}, "mode is one of"),
    (np.zeros((2, 4, 4)), {"compare": 3}, "no prompt 3"),
    (np.zeros((2, 4, 4)), {"compare": np.zeros((3, 4, 4))}, "compare= has"),
    (np.zeros((5000, 5000), np.float16), {}, "4,096 are the most"),
    ([np.zeros((2, 4, 4)), np.zeros((2, 5, 5))], {}, "layer 1 is (2, 5, 5)"),
    (np.array([["a", "b"], ["c", "d"]]), {}, "real numbers"),
    ("abc", {}, "real numbers"),
])
def test_what_does_not_fit_is_an_error_that_says_so(source, options, says):
    with pytest.raises(ViewError, match=re.escape(says)):
        hl.view.attention(source, **options)


def test_sources_without_patterns_say_what_to_do(lab):
    with pytest.raises(ViewError, match=re.escape("save L*.pattern")):
        hl.view.attention(lab.run(f'prompt "{IOI}"\nsave L1.z'))
    with pytest.raises(ViewError, match=re.escape('model.capture(prompt, "L*.pattern")')):
        hl.view.attention(lab.capture(IOI, "L1.z"))
    with pytest.raises(ViewError, match="which prompt"):
        hl.view.attention(lab)
    with pytest.raises(ViewError, match="query and every key"):
        hl.view.attention(lab.run(f'prompt "{IOI}"\nsave L1.pattern @last'))
    swept = lab.run(f'prompt "{IOI}"\nzero each L1H[1,2]\nsave L2.pattern')
    with pytest.raises(ViewError, match="swept"):
        hl.view.attention(swept)


def test_questions_about_what_is_not_there_are_errors():
    view = hl.view.attention(causal(2, 4, 4))
    for name, given in (("head", {"head": 2}), ("rows", {"part": 1}), ("column", {"key": 4}), ("thumbs", {})):
        with pytest.raises(ViewError):
            view.answer(name, {"prompt": 0, "mode": "difference" if name == "thumbs" else "pattern", "against": 5 * (
                name == "thumbs"), **({} if name == "thumbs" else {"head": 0}), **given})


# Other forms -------------------------------------------------------------------------------------------------------------


def test_a_view_of_many_heads_and_tokens_stays_small():
    values = causal(6, 6, 300, 300)
    view = hl.view.attention(values)
    assert len(view.blob) < 36 * 64 * 64 + 300 * 301 // 2 + 36 * 64 + 4096
    assert len(view.static()) < 100 * 2**10 and "data:image/png" in view.static()
    _, (codes,) = ask(view, "head", 35)
    assert len(codes) == 300 * 301 // 2


def test_a_very_long_prompt_is_sent_as_blocks_with_their_largest():
    values = np.zeros((2100, 2100), np.float16)
    values[2000, 1001] = 0.5
    view = hl.view.attention(values)
    opened = view.facts["opened"]
    side = -(-2100 // opened["block"])
    codes = np.frombuffer(ask(view, "head")[1][0], np.uint8)
    square = np.zeros((side, side), np.uint8)
    square[np.tril_indices(side)] = codes
    assert opened["block"] == 3 and square[2000 // 3, 1001 // 3] == coded(np.float32(0.5))
    assert np.frombuffer(ask(view, "column", key=1001)[1][0], "<f4")[2000] == 0.5


def test_hostile_tokens_are_shown_and_do_nothing():
    nasty = ["<b>bold</b>", "</script><script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "\x1b[31m\u202e"]
    view = hl.view.attention(causal(2, 2, 4, 4), tokens=nasty, title="<i>title</i>")
    whole, plain = page([view]), view.static()
    for text in (whole.partition('id="hooklab-state"')[0], plain):
        assert "<script>alert" not in text and "<img src=x" not in text and "<b>bold" not in text and "<i>title" not in text
    state = re.search(r'id="hooklab-state">(.*?)</script>', whole, re.DOTALL)
    pieces = json.loads(state[1])["views"][0]["traits"]["facts"]["prompts"][0]["pieces"]
    assert pieces[1] == nasty[1] and "\x1b" not in pieces[3] and "\u202e" not in pieces[3]


def test_a_page_carries_the_answers_that_the_view_asks_for(lab):
    view = hl.view.attention(lab, [IOI, SWAPPED])
    questions = list(view.answers())
    asked = {(name, given["mode"]) for name, given in questions}
    assert asked == {(name, mode) for name in ("thumbs", "rows") for mode in ("pattern", "value-weighted", "difference")}
    assert sum(name == "rows" for name, _ in questions) == 30 * 6
    for name, given in questions[:8]:
        view.answer(name, given)


def test_the_figure_has_a_map_per_head_with_the_numbers(lab):
    view = hl.view.attention(lab, IOI, heads=["L2H1", "L4H0"])
    figure = view.plot()
    maps = [axes for axes in figure.axes if axes.images and axes.get_title()]
    assert [axes.get_title() for axes in maps] == ["L2H1", "L4H0"]
    expected = lab.capture(IOI, "L4.pattern")["L4.pattern"][0, 0].numpy()
    drawn = np.ma.filled(maps[1].images[0].get_array(), np.nan)
    np.testing.assert_allclose(drawn[np.tri(15, dtype=bool)], expected[np.tri(15, dtype=bool)], atol=1e-6)
    assert [label.get_text() for label in maps[0].get_xticklabels()][2] == "·Mary"
    assert len(view.select(layer=4, head=0).plot().axes) == 2
    with pytest.raises(ViewError, match="no head"):
        view.plot(heads=["L0H0"])


def test_in_a_figure_what_is_no_number_is_grey_and_what_lies_ahead_is_not_painted():
    values = causal(1, 1, 4, 4)
    values[0, 0, 2, 1] = np.nan
    figure = hl.view.attention(values).plot()
    figure.draw_without_rendering()
    image = figure.axes[0].images[0]
    painted = image.cmap(image.norm(image.get_array()), bytes=True)
    assert painted[2, 1].tolist() == [128, 128, 128, 255]
    assert np.array_equal(image.get_alpha(), np.tri(4))


@pytest.mark.parametrize("heads, n", [(1, 15), (1, 40), (1, 200), (12, 15), (12, 40), (12, 200)])
def test_no_two_tokens_along_the_maps_of_a_figure_touch(heads, n):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = hl.view.attention(causal(1, heads, n, n), tokens=["longer" if i % 3 else "t" for i in range(n)]).plot()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in [one for one in figure.axes if one.images and one.get_title()]:
        for axis in (axes.xaxis, axes.yaxis):
            boxes = [text.get_window_extent(canvas.get_renderer()) for text in axis.get_ticklabels()]
            assert len(boxes) > 9
            assert not any(a.overlaps(b) for a, b in pairwise(boxes))


def test_a_closed_view_lets_go_of_the_patterns():
    view = hl.view.attention(causal(2, 2, 4, 4))
    view.close()
    assert view.blob == b"" and not view._patterns.prompts
    with pytest.raises(ViewError, match="closed"):
        ask(view, "rows", part=0)


def test_maps_are_made_once():
    maps = Maps(read(causal(2, 4, 4)))
    assert maps.thumbs(Map(0)) is maps.thumbs(Map(0))


# CircuitsVis -------------------------------------------------------------------------------------------------------------


def handed(view) -> dict:
    """The numbers and tokens that a page of CircuitsVis gets, read out of its script."""
    text = view._repr_html_()
    start = text.rindex("CircuitsVis.render(")
    return json.loads(text[text.index("{", start):text.rindex("}") + 1])


def test_patterns_are_handed_over_by_head_and_without_a_network(monkeypatch):
    from circuitsvis.utils import render

    monkeypatch.setattr(render, "internet_on", lambda: pytest.fail("it asked whether there is a network"))
    values = causal(3, 4, 4, 4)
    given = handed(hl.view.circuitsvis(values, tokens=WORDS, heads=["L2H1", (0, 3)]))
    np.testing.assert_allclose(given["attention"], [values[2, 1], values[0, 3]], atol=1e-5)
    assert given["attentionHeadNames"] == ["L2H1", "L0H3"] and given["tokens"] == WORDS


def test_hostile_tokens_cannot_leave_the_script_of_circuitsvis():
    nasty = ["</script><script>alert(1)</script>", "<!--", "<b>", "a&amp;b"]
    for view in (hl.view.circuitsvis(causal(1, 4, 4), tokens=nasty), hl.view.circuitsvis(np.arange(4.0), tokens=nasty),
                 hl.view.circuitsvis(causal(1, 4, 4), tokens=nasty, style="patterns")):
        text = view._repr_html_()
        assert text.lower().count("</script") == 1 and "<script>alert" not in text and "<!--" not in text[-2000:]
    assert handed(hl.view.circuitsvis(np.arange(4.0), tokens=nasty))["tokens"][2:] == ["&lt;b&gt;", "a&amp;amp;b"]


@pytest.mark.parametrize(("source", "options", "says"), [
    (np.zeros((12, 200, 200)), {}, 'style="patterns"'),
    (np.zeros((12, 600, 600)), {"style": "patterns"}, "too much for CircuitsVis"),
    (np.zeros((2, 4, 4)), {"style": "maps"}, "style is one of"),
    (np.full((2, 4, 4), np.nan), {}, "finite numbers only"),
    (np.zeros(3), {}, "which tokens"),
    (np.zeros(3), {"tokens": ["a"]}, "3 numbers and 1 tokens"),
    (np.zeros((2, 1, 1, 4, 4)), {}, "shows one prompt"),
])
def test_what_circuitsvis_would_not_bear_is_refused(source, options, says):
    with pytest.raises(ViewError, match=re.escape(says)):
        hl.view.circuitsvis(source, **options)
