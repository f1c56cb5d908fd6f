"""A run is one forward pass: whatever else the model is called for meanwhile is no part of it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from tiny_models import build, tokenizer

from hooklab.errors import PromptError, SiteError, SiteNameError, TraceError, WriteError
from hooklab.model.model import Model

IDS = [[3, 4, 5, 6, 7, 8]]
OTHER = torch.tensor([[9, 9, 9]])


@pytest.fixture(params=["gpt2", "llama", "gpt_neo", "falcon"])
def model(request):
    return Model(build(request.param))


def test_a_callback_may_call_the_model(model):
    plain = model.capture(IDS, ["L0.pattern", "logits"])

    def meddle(value):
        with torch.no_grad():
            model.hf(OTHER)
            torch.softmax(value, -1)
        return value

    acts = model.capture(IDS, ["L0.pattern", "logits"], edits={"L0.q": meddle, "L0.z": meddle, "L0.scores": meddle})
    assert torch.equal(acts["L0.pattern"], plain["L0.pattern"])
    assert torch.equal(acts["logits"], plain["logits"])


def test_a_block_may_call_the_model(model):
    with torch.no_grad():
        expected, alone = model.hf(torch.tensor(IDS)).logits, model.hf(OTHER).logits
    with model.trace(IDS):
        first = model.hf(OTHER).logits.save()
        a = model.layers[0].resid_post.save()
        second = model.hf(OTHER).logits.save()
        model.layers[1].z.save()
        b = model.layers[1].resid_post.save()
        logits = model.logits.save()
    assert torch.equal(first, alone)
    assert torch.equal(second, alone)
    assert torch.equal(logits, expected)
    assert torch.equal(a, model.capture(IDS, "L0.resid_post")["L0.resid_post"])
    assert b.shape == a.shape


def test_a_bare_forward_in_another_thread_is_left_alone():
    model = Model(build("llama"))
    expected = model.capture(IDS, "L0.pattern")["L0.pattern"]
    with torch.no_grad():
        alone = model.hf(OTHER).logits
    stop, wrong = threading.Event(), []

    def loop():
        with torch.no_grad():
            while not stop.is_set():
                if not torch.allclose(model.hf(OTHER).logits, alone, atol=1e-5):
                    wrong.append(1)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        for _ in range(40):
            acts = model.capture(IDS, "L0.pattern", edits={"L0.pattern": lambda v: v})
            assert torch.equal(acts["L0.pattern"], expected)
    finally:
        stop.set()
        thread.join()
    assert not wrong


@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom", "opt", "gemma2", "falcon_new"])
def test_gradients_reach_what_invokes_hold(family):
    model = Model(build(family))
    with model.trace(grad=True) as t:
        with t.invoke([3, 4, 5]):
            held = model.layers[0].attn_out.save()
            loss = model.logits[0, -1, 3].save()
        with t.invoke([6, 7, 8, 9, 10]):
            model.logits.save()
    (found,) = torch.autograd.grad(loss, [held])
    alone = model.capture([[3, 4, 5]], "L0.attn_out", metric=lambda out: out.logits[0, -1, 3]).grads["L0.attn_out"]
    assert torch.allclose(found[:, -3:], alone, atol=1e-6)


def test_gradients_of_given_embeddings():
    model = Model(build("llama"))
    embeds = model.hf.get_input_embeddings()(torch.tensor(IDS)).detach()
    found = model.capture(None, ["L0.z"], inputs_embeds=embeds, metric=lambda out: out.logits[0, -1, 3]).grads["L0.z"]
    expected = model.capture(IDS, ["L0.z"], metric=lambda out: out.logits[0, -1, 3]).grads["L0.z"]
    assert torch.allclose(found, expected, atol=1e-6)


def test_two_models_on_one_module_and_a_closed_one():
    hf = build("gpt2")
    first, second = Model(hf), Model(hf)
    second.close()
    with first.trace(IDS):
        z = first.layers[0].z.save()
    assert z.shape == (1, 6, 4, 8)
    with pytest.raises(TraceError, match="was closed"):
        second.trace(IDS)
    first.close()
    assert "forward" not in hf.transformer.h[0].__dict__


MASK = torch.tensor([[0, 0, 1, 1]])


@pytest.mark.parametrize("prompt", [[[0, 0, 3, 4]], torch.tensor([[0, 0, 3, 4]]), np.array([[0, 0, 3, 4]]),
                                    {"input_ids": torch.tensor([[0, 0, 3, 4]])}])
def test_a_mask_is_honoured_however_ids_are_given(prompt):
    model = Model(build("gpt2"))
    for mask in (MASK, MASK.tolist(), MASK.numpy()):
        acts = model.capture(prompt, "logits", attention_mask=mask)
        assert acts.tokens.ids == ((3, 4),)
        assert torch.equal(acts["logits"], model.capture([[3, 4]], "logits")["logits"])


@pytest.mark.parametrize("prompt", [np.array([3, 4]), [np.int64(3), np.int64(4)], torch.tensor([3, 4]), [3, 4],
                                    [torch.tensor([[3, 4]])], [torch.tensor([3, 4])], (3, 4)])
def test_kinds_of_ids(prompt):
    assert Model(build("gpt2")).tokens(prompt).ids == ((3, 4),)


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda m: m.capture("w1", "logits", attention_mask=[[1]]), PromptError, "goes with token ids, not with text"),
    (lambda m: m.trace([[3]], input_ids=[[4]]), PromptError, "not both"),
    (lambda m: m.capture({"input_ids": [[3]], "atention_mask": [[1]]}, "logits"), PromptError, '"attention_mask"'),
    (lambda m: m.trace(IDS, gard=True), TraceError, 'Did you mean "grad"'),
    (lambda m: m.capture(IDS, "logits", ful=True), TraceError, 'Did you mean "full"'),
    (lambda m: m.trace([[3]], [[4]]), PromptError, "one prompt"),
    (lambda m: m.trace(3), PromptError, "int"),
    (lambda m: m.trace(torch.zeros(2, 2, 2, dtype=torch.long)), PromptError, "[batch pos]"),
    (lambda m: m.trace().tokens, TraceError, "no prompt yet"),
    (lambda m: m.generate(IDS, grad=True), TraceError, "without gradients"),
    (lambda m: m.capture(IDS, "L0.z", edits={"L0.z": 0}), WriteError, "must be a function"),
    (lambda m: m.capture(IDS, "L0.z", edits={"L0.z": lambda v: 0}), WriteError, "only be replaced by a tensor"),
    (lambda m: m.capture(IDS, "L0.z", edits={"L0H1.z": lambda v: 0}), WriteError, "L0H1.z can only be replaced"),
    (lambda m: m.capture(IDS, "L0.z", edits={"L0H1.z": lambda v: v.long()}), WriteError, "int64"),
    (lambda m: setattr(m.layers[0], "resid_pst", 1), SiteNameError, '"resid_post"'),
    (lambda m: setattr(m.layers[0], "logits", 1), SiteNameError, "model.logits"),
    (lambda m: setattr(m, "logit", 1), SiteNameError, '"logits"'),
    (lambda m: setattr(m, "resid_post", 1), SiteNameError, "site of a layer"),
])
def test_what_would_be_swallowed_is_refused(call, error, words):
    with pytest.raises(error) as caught:
        call(Model(build("gpt2"), tokenizer=tokenizer()))
    assert words in str(caught.value)


def test_plain_generate_on_the_line_of_another_with():
    model = Model(build("gpt2"))
    with torch.no_grad(): ids = model.generate(IDS, max_new_tokens=2, pad_token_id=0)  # noqa: E701
    assert isinstance(ids, torch.Tensor)


def test_every_edit_of_a_site_applies():
    model = Model(build("gpt2"))
    acts = model.capture(IDS, "L0.z", edits={"L*.z": lambda v: v + 1, "L0.z": lambda v: v * 2})
    assert torch.allclose(acts["L0.z"], (model.capture(IDS, "L0.z")["L0.z"] + 1) * 2)


def test_activations_are_looked_up_as_they_were_asked_for():
    acts = Model(build("gpt2")).capture(IDS, ["L0.z", "L1H2.z"])
    assert acts["blocks.0.attn.hook_z"] is acts["L0.z"]
    assert acts["L1H2.z"].shape == (1, 6, 1, 8)
    assert "L0.q" not in acts
    assert acts.get("L0.q") is None
    for absent in ("L0H1.z", "L1.z", "L*.z", "nonsense"):
        with pytest.raises(SiteError):
            acts[absent]


def test_what_was_saved_stays_as_it_was_when_the_site_is_written_later():
    model = Model(build("gpt2"))
    clean = model.capture(IDS, ["L0.z", "logits"])
    with model.trace(IDS):
        z = model.layers[0].z.save()
        model.layers[0].z[:, :, 1] = 0
        after = model.layers[0].z.save()
        logits = model.logits.save()
    assert torch.equal(z, clean["L0.z"])
    assert after[:, :, 1].abs().max() == 0
    assert torch.equal(logits, model.capture(IDS, "logits", edits={"L0H1.z": torch.zeros_like})["logits"])


def test_traces_and_captures_see_the_same_of_a_user_who_hooks_too():
    model = Model(build("llama"))
    handle = model.hf.model.layers[0].register_forward_hook(lambda module, args, out: out + 1)
    with model.trace(IDS):
        traced = model.layers[0].resid_post.save()
    assert torch.equal(traced, model.capture(IDS, "L0.resid_post")["L0.resid_post"])
    handle.remove()
