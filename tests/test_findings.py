"""The page of findings: each claim holds beside its null, in the quick form of what the page is made from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import hooklab as hl
from benchmarks import findings
from benchmarks.found import asking, features, induction, movers, neurons


@pytest.fixture(scope="module")
def model():
    opened = hl.load("lab")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def found(model):
    return findings.measured(model, quick=True)


def test_induction_heads_look_where_a_token_came_before_and_only_if_it_did(found):
    one = found["induction"]
    assert {name[:2] for name in one.found} == {"L1"} and len(one.found) == 6
    assert induction.min_of(one) > 0.7 > 0.1 > one.null.max() and induction.rest_of(one) < 0.1


def test_repetition_ends_without_induction_heads_and_not_without_others(found):
    one = found["induction"]
    assert one.left[0] > 0.9 and one.left[-1] < 0.2 < 0.7 < one.others[:, -1].mean()


def test_the_induction_score_is_the_attention_at_one_offset(model):
    rows = asking.repetitions(4, model.facts.d_vocab, segment=20)
    whole = [[*prompt[:21], *prompt[1:21]] for prompt in rows.prompts]
    pattern = model.capture(whole, "L1.pattern")["L1.pattern"].numpy()
    by_hand = np.mean([pattern[:, :, i, i - 19] for i in range(21, 41)], axis=(0, 1))
    np.testing.assert_allclose(hl.analysis.head_scores(model, whole).values[1], by_hand, atol=1e-5)


def test_heads_write_both_names_and_the_mlps_choose(found):
    one = found["movers"]
    receiver, other = one.direct[1].sum(), one.direct[2].sum()
    assert min(receiver, other) > 3 * abs(one.direct[0].sum()) and min(receiver, other) > 2 * abs(one.direct[3].sum())
    assert one.mlps[0].sum() > 0.8 * one.whole and one.mlps[0].sum() > 4 * abs(one.mlps[3].sum())


def test_name_heads_look_at_both_names_alike_and_copy_what_they_see(found):
    one = found["movers"]
    for name in one.names:
        layer, head = map(int, name[1:].split("H"))
        to_receiver, to_giver, second = one.looks[:, layer, head]
        assert to_receiver + to_giver > 0.6 and abs(to_receiver - to_giver) < 0.2 and second < 0.1
        assert one.copies[layer, head] > 0.9 > 0.3 > one.chance


def test_without_the_giver_heads_the_choice_is_lost_and_without_the_name_heads_the_names(found):
    one = found["movers"]
    (right, beats, diff), (no_names, still, _), _, (_, toss, lost), (_, others, kept) = one.left.values()
    assert right > 0.9 and beats > 0.9 and no_names < 0.5 and still > 0.8
    assert 0.3 < toss < 0.7 < others and abs(lost) < 0.2 * diff < 0.7 * diff < kept


def test_every_object_prompt_comes_with_its_turned_twin():
    cases = asking.objects(8)
    for one, twin in zip(cases[::2], cases[1::2], strict=True):
        assert (one.answer,) == twin.wrong and (twin.answer,) == one.wrong
        assert sum(one.prompt.count(name.strip()) for name in (one.answer, twin.answer)) == 3
        assert twin.prompt.replace(one.answer.strip(), "_").count("_") == 2


def test_neurons_of_a_city_serve_other_relations_and_no_other_city(found):
    own, other, drawn = (found["neurons"].margin[name] for name in found["neurons"].margin)
    assert own[0] == other[0] == drawn[0] > 8
    assert own[-1] < other[-1] - 1 and own[-1] < drawn[-1] - 2 and drawn[0] - drawn[-1] < 1


def test_a_city_follows_what_excites_its_neuron(found):
    one = found["neurons"]
    assert one.follows > 2 * one.chance and one.follows > 5 * one.base
    assert one.first[0] > 2 * one.first[1]


def test_a_direct_effect_is_the_change_of_the_logit_under_a_frozen_norm(model):
    """The largest effect on Paris over the cities' mean, from activations by hand."""
    names = ["Paris", "Rome", "Madrid"]
    effects, _, _ = neurons._effects(model, names, 0)
    asked = [prompt for prompt, city in asking.asked_for_city("country", "train", names) if city == "Paris"]
    ids = [model.tokenizer(f" {name}", add_special_tokens=False)["input_ids"][0] for name in names]
    head, final = model._module.lm_head.weight, model._module.transformer.ln_f
    total = 0.0
    for prompt in asked:
        acts = model.capture(prompt, ["L4.mlp_post", "L4.resid_post"], at="last")
        row = model._module.transformer.h[4].mlp.c_proj.weight[:] * acts["L4.mlp_post"].reshape(-1, 1)
        scale = (acts["L4.resid_post"].var(unbiased=False) + final.eps).sqrt()
        write = (row - row.mean(1, keepdim=True)) / scale * final.weight
        total = total + (write @ head[ids].T)
    by_hand = (total / len(asked)).detach()
    np.testing.assert_allclose(effects[0, 4], by_hand[:, 0] - by_hand.mean(1), atol=1e-4)


def test_the_named_feature_finds_its_label_on_unseen_texts_and_no_feature_a_shuffled_one(found):
    one = found["features"]
    assert one.f1 > 0.6 > 0.2 > one.shuffled and one.f1 > one.word[1] and min(one.precision, one.recall) > 0.5


def test_switching_the_feature_on_raises_places_more_than_other_features(found):
    own, others = found["features"].on.values()
    assert own[0, 2] - own[0, 0] > 2 and (own[0, 2:] > others[:, 2:].mean(0) + 1).all()


def test_precision_and_recall_are_those_of_counts():
    active = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0]]) > 0
    precision, recall, f1 = features._scores(active, np.array([True, True, True, False]))
    np.testing.assert_allclose(precision, [1, 1])
    np.testing.assert_allclose(recall, [2 / 3, 2 / 3])
    np.testing.assert_allclose(f1, [0.8, 0.8])


@pytest.mark.parametrize("name", ["induction", "movers", "neurons"])
def test_the_lines_on_the_page_run(model, name, capsys):
    module = findings.SECTIONS[name][0]
    exec(module.GIVEN + module.CODE, {"hl": hl, "model": model})
    assert len(capsys.readouterr().out) > 20


def test_the_page_is_written_whole_with_every_picture_it_names(found, tmp_path):
    findings.write(found, tmp_path)
    text = (tmp_path / "findings.md").read_text()
    named = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(named) == 5 and all((tmp_path / one).read_bytes().startswith(b"\x89PNG") for one in named)
    assert not list(tmp_path.rglob("*.part")) and "nan" not in text.split()
    assert {one.name for one in (tmp_path / "findings").iterdir()} == {f"{n}.png" for n in (*findings.SECTIONS, "dashboard")}


def test_every_number_of_a_section_comes_from_what_was_measured(found):
    one = found["movers"]
    text = movers.text(one)
    assert f"{one.mlps[0].sum():+.1f}" in text and all(f"| {diff:.2f} |" in text for *_, diff in one.left.values())
