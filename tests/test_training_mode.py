"""Models in training mode, with dropout or with gradient checkpointing: left as they were, and right or said to be not."""

from __future__ import annotations

import warnings

import pytest
import torch
from tiny_models import build

import hooklab as hl
from hooklab.errors import HooklabWarning

IDS = [[3, 4, 5, 6, 7, 8]]
SITES = ["L*.resid_post", "L*.z", "L*.pattern"]
FAMILIES = ("gpt2", "llama", "opt", "gpt_neox", "gptj", "bert")


def without_dropout(family):
    """A model in training mode whose passes all agree."""
    hf = build(family).train()
    for module in hf.modules():
        for name in ("p", "dropout", "attention_dropout", "activation_dropout", "hidden_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return hf


def checkpointed(family, reentrant):
    """The same with gradient checkpointing."""
    hf = without_dropout(family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        hf.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=reentrant))
    return hf


def state(hf):
    return ([module.training for module in hf.modules()],
            [getattr(module, "gradient_checkpointing", None) for module in hf.modules()],
            [parameter.requires_grad for parameter in hf.parameters()])


def logit(output):
    return output.logits[0, -1, 5]


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_values_and_gradients_are_right_under_checkpointing_and_the_model_is_left_as_it_was(family, reentrant):
    reference = hl.load(build(family))
    hf = checkpointed(family, reentrant)
    before = state(hf)
    assert True in before[1]
    model = hl.load(hf)
    expected = reference.capture(IDS, SITES, metric=logit)
    acts = model.capture(IDS, SITES, metric=logit)
    for address in expected:
        torch.testing.assert_close(acts[address], expected[address])
        torch.testing.assert_close(acts.grads[address], expected.grads[address])
    with model.trace(IDS):
        z = model.layers[0].z.save()
    torch.testing.assert_close(z, expected["L0.z"])
    assert state(hf) == before


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_weights_are_those_of_the_edited_pass(family, reentrant):
    grads = []
    for hf in (build(family), checkpointed(family, reentrant)):
        model = hl.load(hf)
        with model.trace(IDS, grad="weights"):
            model.layers[0].z[:, :, 1] = 0
            logits = model.logits.save()
        logits[0, -1, 5].backward()  # when the run is over
        grads.append([parameter.grad for parameter in hf.parameters()])
    for got, expected in zip(*grads, strict=True):
        assert (got is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(got, expected)


def test_an_error_in_a_run_leaves_checkpointing_on():
    hf = checkpointed("llama", False)
    before = state(hf)
    with pytest.raises(ZeroDivisionError):
        hl.load(hf).capture(IDS, "L0.z", edits={"L0.z": lambda value: 1 / 0})
    assert state(hf) == before


def test_the_bare_model_is_checkpointed_again_after_a_run():
    hf = checkpointed("llama", False)
    hl.load(hf).capture(IDS, "L0.z")
    calls = []
    hf.model.layers[1].mlp.register_forward_pre_hook(lambda module, args: calls.append(1))
    hf(torch.tensor(IDS)).logits.sum().backward()
    assert len(calls) == 2  # once on the way back


def test_generation_uses_its_cache_under_checkpointing():
    expected = hl.load(build("gpt2")).generate(IDS, max_new_tokens=4, do_sample=False)
    assert torch.equal(hl.load(checkpointed("gpt2", False)).generate(IDS, max_new_tokens=4, do_sample=False), expected)


@pytest.mark.parametrize("family", ["gpt2", "bert", "opt"])  # opt drops units by a function, not by a module
def test_dropout_is_said_to_change_numbers_and_the_mode_is_kept(family):
    hf = build(family).train()
    modes = state(hf)
    model = hl.load(hf)
    assert model.verify().ok
    with pytest.warns(HooklabWarning, match=r"training mode: dropout changes the numbers.*model\.hf\.eval\(\)"):
        one = model.capture(IDS, "L1.resid_post")["L1.resid_post"]
    with pytest.warns(HooklabWarning, match="training mode"), model.trace(IDS):
        other = model.layers[1].resid_post.save()
    assert not torch.equal(one, other)
    assert state(hf) == modes
    hf.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error", HooklabWarning)
        model.capture(IDS, "L1.resid_post")


def test_a_pass_in_training_mode_gives_what_the_bare_model_gives_from_the_same_seed():
    hf = build("gpt2").train()
    torch.manual_seed(1)
    with torch.no_grad():
        expected = hf(torch.tensor(IDS)).logits
    torch.manual_seed(1)
    with pytest.warns(HooklabWarning, match="training mode"):
        logits = hl.load(hf, verify=False).capture(IDS, "logits")["logits"]
    assert torch.equal(logits, expected)


def test_training_mode_without_dropout_is_nothing_to_speak_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error", HooklabWarning)
        hl.load(without_dropout("llama")).capture(IDS, "logits")
