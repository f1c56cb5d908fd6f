"""The residual stream in numbers: lengths, writes and projections, counted again by hand on models of many shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import TEXT_ONLY, build

import hooklab as hl
from hooklab.analysis.asking import SweepError
from hooklab.analysis.stream import measured, of_run, stream, streams
from hooklab.errors import PromptError, TokenError

IDS = [3, 14, 15, 9, 26, 5]
CLEAN = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module")
def lab():
    with hl.load("lab") as model:
        yield model


@pytest.mark.parametrize("name", TEXT_ONLY)
def test_projections_of_all_writes_add_up_to_that_of_the_last_stream(name):
    with hl.load(build(name)) as model:
        direction = torch.linspace(-1, 1, model.facts.d_model)
        found = stream(model, [IDS], direction=direction)
        last = {}
        hook = model.layout.blocks[-1].register_forward_hook(
            lambda _, __, out: last.update(end=(out[0] if isinstance(out, tuple) else out).detach()))
        model.hf(torch.tensor([IDS]))
        hook.remove()
        wanted = last["end"].reshape(len(IDS), -1).double() @ direction.double()
        assert np.allclose(found.values.sum(0), wanted.numpy(), rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def test_the_norm_is_the_length_of_every_place_and_each_place_stands_there_once(lab):
    found = stream(lab, CLEAN)
    acts = lab.capture(CLEAN, ["L0.resid_pre", "L2.resid_mid", "L4.resid_post"])
    assert found.coords["site"][:4] == ("L0.resid_pre", "L0.resid_mid", "L0.resid_post", "L1.resid_mid")
    assert len(found.coords["site"]) == 2 * lab.facts.n_layers + 1
    for site, value in acts.items():
        by_hand = (value[0].numpy().astype(float) ** 2).sum(-1) ** 0.5
        assert np.allclose(found.sel(site=site).values, by_hand)
    assert found.coords["pos"][1:3] == ("1: When", "2:  Mary")


def test_writes_are_what_components_add(lab):
    found = stream(lab, CLEAN, "writes")
    acts = lab.capture(CLEAN, ["L1.resid_pre", "L1.resid_mid", "L1.resid_post"])
    attention = (acts["L1.resid_mid"] - acts["L1.resid_pre"])[0].norm(dim=-1).numpy()
    mlp = (acts["L1.resid_post"] - acts["L1.resid_mid"])[0].norm(dim=-1).numpy()
    assert np.allclose(found.sel(site="L1.attn_out").values, attention, rtol=1e-4)
    assert np.allclose(found.sel(site="L1.mlp_out").values, mlp, rtol=1e-4)
    assert not any("rest" in site for site in found.coords["site"])


def test_norms_inside_the_stream_have_a_row_that_says_so():
    with hl.load(build("opt_postnorm")) as model:
        found = stream(model, [IDS], "writes")
        assert [site for site in found.coords["site"] if site.endswith("rest")] == ["L0.rest", "L1.rest"]
        assert "norms in the stream" in found.note


def test_a_token_stands_for_the_direction_that_the_unembedding_reads(lab):
    mary, john = (lab.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (" Mary", " John"))
    head = lab.hf.get_output_embeddings().weight.detach().double().numpy()
    one = stream(lab, CLEAN, direction=" Mary")
    two = stream(lab, CLEAN, direction=(" Mary", " John"))
    write = lab.capture(CLEAN, ["L3.mlp_out"])["L3.mlp_out"][0].double().numpy()
    assert np.allclose(one.sel(site="L3.mlp_out").values, write @ head[mary], rtol=1e-5, atol=1e-6)
    assert np.allclose(two.sel(site="L3.mlp_out").values, write @ (head[mary] - head[john]), rtol=1e-5, atol=1e-6)
    assert "' Mary' − ' John'" in two.name


def test_a_normalised_direction_has_length_one(lab):
    direction = torch.full((lab.facts.d_model,), 3.0)
    plain = stream(lab, CLEAN, direction=direction)
    unit = stream(lab, CLEAN, direction=direction, normalised=True)
    assert np.allclose(plain.values, unit.values * 3.0 * lab.facts.d_model**0.5)


def test_a_run_that_saved_the_stream_gives_the_same_numbers(lab):
    run = lab.run(f'prompt "{CLEAN}"\nsave L*.resid_pre, L*.resid_post\nsave L*.attn_out, L*.mlp_out, embed, pos_embed')
    direction = torch.linspace(0, 1, lab.facts.d_model)
    ours, theirs = of_run(run, direction=direction), streams(lab, CLEAN, direction=direction)
    assert np.allclose(ours["writes"].values, theirs["writes"].values)
    assert np.allclose(ours["projection"].values, theirs["projection"].values)
    assert ours["writes"].coords == theirs["writes"].coords
    assert ours["norm"].coords["site"][:2] == ("L0.resid_pre", "L0.resid_post")


def test_what_was_not_given_is_left_out():
    found = measured({"L0.resid_post": np.ones((2, 4))}, ["0: a", "1: b"])
    assert list(found) == ["norm"]
    assert found["norm"].values.tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize(("ask", "error", "says"), [
    ({"of": "lengths"}, SweepError, "there is no kind 'lengths'"),
    ({"of": "projection"}, SweepError, "needs a direction"),
    ({"direction": torch.ones(3)}, SweepError, r"144 finite numbers.*shape \(3,\)"),
    ({"direction": torch.zeros(144)}, SweepError, "not all of them zero"),
    ({"direction": " Mary and John"}, TokenError, "is 3"),
    ({"direction": object()}, SweepError, "a direction is a vector"),
])
def test_a_wrong_question_says_what_fits(lab, ask, error, says):
    with pytest.raises(error, match=says):
        stream(lab, CLEAN, **ask)


def test_several_prompts_are_refused(lab):
    with pytest.raises(PromptError, match="one prompt at a time"):
        stream(lab, [CLEAN, "When Mary"])


def test_a_run_without_the_stream_says_what_to_save(lab):
    with pytest.raises(SweepError, match=r"save L\*\.resid_post"):
        of_run(lab.run(f'prompt "{CLEAN}"\nsave L0.pattern'))
