"""Tracing with a block: what a user types, checked against plain forward hooks."""

from __future__ import annotations

import linecache

import nnsight
import pytest
import torch
from tiny_models import build

from hooklab.errors import HooklabWarning, LayerError, PromptError, SiteError, SiteNameError, TraceError, WriteError
from hooklab.model.lateness import OrderError
from hooklab.model.model import Model

IDS = [[3, 4, 5, 6, 7, 8]]
OTHER = [[9, 10, 11, 12, 13, 14]]


@pytest.fixture(scope="module")
def model():
    return Model(build("gpt2"))


def hooked(model, path, replace=None, ids=IDS):
    """Logits of a plain forward pass with a forward hook on a module; the hook's output replaces it."""
    handle = model.hf.get_submodule(path).register_forward_hook(lambda m, a, out: replace)
    try:
        return model.hf(torch.tensor(ids)).logits
    finally:
        handle.remove()


def plain(model, ids=IDS):
    with torch.no_grad():
        return model.hf(torch.tensor(ids)).logits


def test_reads_and_saves(model):
    with model.trace(IDS) as t:
        stream = model.layers[0].resid_post.save()
        logits = model.logits.save()
    assert t.tokens.lengths == (6,)
    hidden = model.hf(torch.tensor(IDS), output_hidden_states=True).hidden_states
    assert torch.equal(stream, hidden[1])
    assert torch.equal(logits, plain(model))
    assert not logits.requires_grad


def test_writes_in_place_and_by_assignment_agree_with_a_hook(model):
    zeroed = torch.zeros(1, 6, model.facts.d_model)
    with torch.no_grad():
        expected = hooked(model, "transformer.h.1.mlp", zeroed)
    with model.trace(IDS):
        model.layers[1].mlp_out[:] = 0
        in_place = model.logits.save()
    with model.trace(IDS):
        model.layers[1].mlp_out = zeroed
        assigned = model.logits.save()
    assert torch.equal(in_place, assigned)
    assert torch.allclose(in_place, expected, atol=1e-6)
    assert not torch.allclose(in_place, plain(model), atol=1e-3)


def test_augmented_assignment(model):
    with model.trace(IDS):
        model.layers[0].resid_post += 1.0
        added = model.logits.save()
    with model.trace(IDS):
        model.layers[0].resid_post = model.layers[0].resid_post + 1.0
        summed = model.logits.save()
    assert torch.equal(added, summed)
    assert not torch.equal(added, plain(model))


def test_saved_value_is_not_changed_by_a_later_write(model):
    with model.trace(IDS):
        before = model.layers[1].resid_mid.save()
        model.layers[1].resid_mid = before * 2
        logits = model.logits.save()
    assert torch.equal(before, model.capture(IDS, "L1.resid_mid")["L1.resid_mid"])
    assert not torch.equal(logits, plain(model))


def test_gradient_equals_leaf_injection(model):
    with model.trace(IDS, grad=True):
        stream = model.layers[0].resid_post.save()
        loss = model.logits[0, -1, 5].save()
    (found,) = torch.autograd.grad(loss, [stream])
    leaf = stream.detach().requires_grad_()
    (expected,) = torch.autograd.grad(hooked(model, "transformer.h.0", leaf)[0, -1, 5], [leaf])
    assert torch.allclose(found, expected, atol=1e-6)
    assert all(p.grad is None and p.requires_grad for p in model.hf.parameters())


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "bloom", "falcon_new", "opt", "bert"])
def test_every_site_has_a_gradient_that_finite_differences_confirm(family):
    model = Model(build(family).double())
    # Wide enough for what transformers computes in float32 whatever the model's type; OPT has kinks instead (relu).
    h = 1e-6 if family == "opt" else 2e-4
    direction = torch.Generator().manual_seed(0)
    metric = lambda out: out.logits[0, -1, :5].sum()  # noqa: E731
    addresses = [p.address for p in model.layout.all_ports if p.layer in (0, None)]
    acts = model.capture(IDS, addresses, metric=metric)
    for address in addresses:
        value = acts[address]
        step = torch.randn(value.shape, generator=direction, dtype=torch.float64)
        if address.split(".")[-1] == "scores":
            step[value < -1e30] = 0.0
        slope = sum(sign * float(metric(model.capture(IDS, "L0.resid_pre", full=True, edits={
            address: lambda v, s=sign, d=step: v + s * h * d}).output)) for sign in (1, -1)) / (2 * h)
        expected = float((acts.grads[address] * step).sum())
        assert slope == pytest.approx(expected, rel=1e-2, abs=3e-3), address


def test_backward_inside_the_block(model):
    with model.trace(IDS, grad=True):
        stream = model.layers[0].resid_post
        loss = model.logits[0, -1, 5]
        with loss.backward():
            inside = stream.grad.save()
    with model.trace(IDS, grad=True):
        stream = model.layers[0].resid_post.save()
        loss = model.logits[0, -1, 5].save()
    assert torch.equal(inside, torch.autograd.grad(loss, [stream])[0])


def test_parameter_gradients_when_asked_for(model):
    with model.trace(IDS, grad="weights"):
        loss = model.logits[0, -1, 5].save()
    weight = model.hf.transformer.h[0].mlp.c_fc.weight
    (grad,) = torch.autograd.grad(loss, [weight])
    assert grad.abs().max() > 0


def test_backward_without_grad_says_what_to_do(model):
    with pytest.raises(RuntimeError) as caught:
        with model.trace(IDS):
            loss = model.logits.sum()
            loss.backward()
    assert any("grad=True" in note for note in caught.value.__notes__)


def test_activation_crosses_between_invokes(model):
    with model.trace() as t:
        barrier = t.barrier(2)
        with t.invoke(IDS):
            donor = model.layers[1].resid_post
            barrier()
            clean = model.logits.save()
        with t.invoke(OTHER):
            barrier()
            model.layers[1].resid_post = donor
            patched = model.logits.save()
    assert torch.equal(patched, clean)
    assert torch.allclose(clean, plain(model), atol=1e-6)


def test_ragged_invokes_equal_solo_runs(model):
    with model.trace() as t:
        with t.invoke([3, 4, 5]):
            short = model.logits[:, -1].save()
        with t.invoke([3, 4, 5, 6, 7, 8, 9]):
            long = model.logits[:, -1].save()
    assert torch.allclose(short, plain(model, [[3, 4, 5]])[:, -1], atol=2e-6)
    assert torch.allclose(long, plain(model, [[3, 4, 5, 6, 7, 8, 9]])[:, -1], atol=2e-6)
    assert t.tokens.lengths == (3, 7)


def test_at_selects_by_unpadded_position(model):
    batch = [[3, 4, 5], [6, 7, 8, 9, 10, 11, 12]]
    with model.trace(batch) as t:
        first = model.layers[0].resid_post[t.at(0)].save()
        last = model.layers[1].resid_post[t.at("last")].save()
    for row, ids in enumerate(batch):
        alone = model.capture([ids], "L*.resid_post")
        assert torch.allclose(first[row], alone["L0.resid_post"][0, 0], atol=2e-6)
        assert torch.allclose(last[row], alone["L1.resid_post"][0, -1], atol=2e-6)


def test_stop_ends_the_run(model):
    ran = []
    handle = model.hf.transformer.h[-1].register_forward_hook(lambda *_: ran.append(1))
    with model.trace(IDS) as t:
        stream = model.layers[0].resid_post.save()
        t.stop()
    handle.remove()
    assert not ran
    assert torch.equal(stream, model.capture(IDS, "L0.resid_post")["L0.resid_post"])


def test_capture_stops_after_the_last_site(model):
    ran = []
    handle = model.hf.transformer.h[-1].register_forward_hook(lambda *_: ran.append(1))
    model.capture(IDS, "L0.resid_post")
    assert not ran
    model.capture(IDS, "L0.resid_post", full=True)
    handle.remove()
    assert ran


def test_generation_steps(model):
    with model.generate(IDS, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0) as t:
        streams = nnsight.save([])
        for _step in t.iter[:4]:
            streams.append(model.layers[1].resid_post)
        ids = t.result.save()
    expected = model.hf.generate(torch.tensor(IDS), max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0)
    assert torch.equal(ids, expected)
    assert [s.shape[1] for s in streams] == [6, 1, 1, 1]
    whole = model.capture(ids[:, :-1], "L1.resid_post")["L1.resid_post"]
    assert torch.allclose(torch.cat(streams, 1), whole, atol=3e-6)
    assert torch.equal(model.generate(IDS, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0), ids)


def test_edit_at_every_generation_step(model):
    with model.generate(IDS, max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0) as t:
        for _step in t.iter[:3]:
            model.layers[1].mlp_out[:] = 0
        ids = t.result.save()
    handle = model.hf.transformer.h[1].mlp.register_forward_hook(lambda m, a, out: torch.zeros_like(out))
    expected = model.hf.generate(torch.tensor(IDS), max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0)
    handle.remove()
    assert torch.equal(ids, expected)


def test_nnsight_stays_at_hand(model):
    with model.trace(IDS):
        native = model.transformer.h[0].output.save()
        lens = model.lm_head(model.transformer.ln_f(native)).save()
        model.output.logits[:] = 0
        logits = model.logits.save()
    assert torch.equal(native, model.capture(IDS, "L0.resid_post")["L0.resid_post"])
    assert torch.allclose(lens, model.layout.unembed(model.hf.transformer.ln_f(native)), atol=1e-6)
    assert logits.abs().max() == 0


def test_in_a_loop_a_function_and_a_method(model):
    def inside(i):
        with model.trace([[3, 4, 5 + i]]):
            z = model.layers[0].z.save()
        return z

    class Holder:
        def run(self):
            with model.trace(IDS):
                self.z = model.layers[0].z.save()
                kept = model.layers[1].z.save()
            return kept

    values = [inside(i) for i in range(3)]
    assert not torch.equal(values[0], values[1])
    assert torch.equal(Holder().run(), model.capture(IDS, "L1.z")["L1.z"])


def test_code_run_by_exec_with_a_linecache_entry_and_a_closed_over_name(model):
    source = "with model.trace(ids):\n    z = model.layers[0].z.save()\n"
    linecache.cache["<cell>"] = (len(source), None, source.splitlines(keepends=True), "<cell>")
    scope = {"model": model, "ids": IDS}
    exec(compile(source, "<cell>", "exec"), scope)
    assert scope["z"].shape == (1, 6, 4, 8)


@pytest.mark.parametrize(("code", "error", "words"), [
    ("m.layers[0].resid_pst", SiteNameError, 'Did you mean "resid_post"'),
    ("m.layers[7].z", LayerError, "0 to"),
    ("m.layers[-9].z", LayerError, "from the end"),
    ("m.layers[0].mlp_pre_linear", SiteError, "one branch only"),
    ("m.resid_post", SiteNameError, "model.layers[0].resid_post"),
    ("m.layers[0].logits", SiteNameError, "model.logits"),
    ("m.logit", SiteNameError, 'Did you mean "logits"'),
    ("m.layers[0].z", TraceError, "while the model runs"),
    ("m.trace('text')", PromptError, "without a tokenizer"),
    ("m.trace('')", PromptError, "tokenizer"),
    ("m.trace([])", PromptError, "empty"),
    ("m.trace([[]])", PromptError, "empty"),
    ("m.trace([[1] * 99])", PromptError, "64 positions"),
    ("m.trace([[500]])", PromptError, "vocabulary of 100"),
    ("m.trace([[-1]])", PromptError, "non-negative"),
    ("m.trace([1.5])", PromptError, "float"),
    ("m.capture([[3]], 'L0H9.z')", LayerError, "head 9"),
    ("m.capture([[3]], 'L9.z')", LayerError, "layer 9"),
    ("m.capture([[3]], 'L0.patern')", SiteError, '"pattern"'),
    ("m.capture([[3]], 'resid_post')", SiteError, '"L0.resid_post"'),
])
def test_bad_input_gets_one_clear_line(model, code, error, words, monkeypatch):
    monkeypatch.setitem(linecache.cache, "<cell>", (len(code), None, [code], "<cell>"))  # where a trace looks
    with pytest.raises(error) as caught:
        eval(compile(code, "<cell>", "eval"), {"m": model})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_order_names_the_site_and_the_remedy(model):
    with pytest.raises(OrderError, match=r"L0\.resid_pre was asked for after L1\.resid_post.*put L0\.resid_pre before"):
        with model.trace(IDS):
            model.layers[1].resid_post.save()
            model.layers[0].resid_pre.save()


@pytest.mark.parametrize("value", [0, torch.zeros(3), torch.zeros(1, 6, 32)])
def test_a_write_of_the_wrong_kind_is_refused_at_its_line(model, value):
    with pytest.raises(WriteError, match="L1.z"):
        with model.trace(IDS):
            model.layers[1].z = value
            model.logits.save()


def test_a_write_that_comes_too_late_is_noticed(model):
    with pytest.warns(HooklabWarning, match=r"L0\.z was changed in place after"):
        with model.trace(IDS):
            z = model.layers[0].z
            model.layers[1].z.save()
            z[:] = 0


def test_a_write_to_returned_attention_weights_is_refused(model):
    with pytest.raises(WriteError, match="pattern"):
        with model.trace(IDS):
            out = model.transformer.h[0].attn.output
            model.transformer.h[0].attn.output = (out[0], torch.ones(1, 4, 6, 6))
            model.logits.save()


def test_trace_inside_a_trace_is_refused(model):
    with pytest.raises(TraceError, match="already running"):
        with model.trace(IDS):
            with model.trace(IDS):
                model.logits.save()


def test_meta_device_is_refused():
    model = Model(build("gpt2").to("meta"))
    with pytest.raises(Exception, match="meta device"):
        model.trace(IDS)


def test_a_write_of_another_precision_is_converted_and_of_another_kind_refused(model):
    with model.trace(IDS):
        model.layers[1].z = model.layers[1].z.double() * 2
        doubled = model.logits.save()
    with model.trace(IDS):
        model.layers[1].z *= 2
        same = model.logits.save()
    assert torch.equal(doubled, same)
    with pytest.raises(WriteError, match="float32 numbers; the value written holds int64"):
        with model.trace(IDS):
            model.layers[1].z = torch.ones(1, 6, 4, 8, dtype=torch.int64)
            model.logits.save()


def test_gradients_of_heads_and_positions_are_slices_of_the_whole(model):
    def metric(out):
        return out.logits[0, -1, 5]

    whole = model.capture(IDS, ["L0.z", "L0.pattern"], metric=metric).grads
    heads = model.capture(IDS, ["L0H[1,3].z", "L0H2.pattern"], metric=metric)
    last = model.capture(IDS, ["L0.z"], metric=metric, at="last").grads["L0.z"]
    assert torch.equal(heads.grads["L0H[1,3].z"], whole["L0.z"][:, :, [1, 3]])
    assert torch.equal(heads.grads["L0H2.pattern"], whole["L0.pattern"][:, [2]])
    assert torch.allclose(last, whole["L0.z"][:, -1], atol=1e-6)  # this run took the fused kernel
    assert whole["L0.z"].abs().max() > 0
    assert heads["L0H[1,3].z"].shape == (1, 6, 2, 8)
