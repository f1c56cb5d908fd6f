"""After a run, whatever happened in it, the model and the process are as they were."""

from __future__ import annotations

import logging
import threading
import warnings

import pytest
import torch
from tiny_models import build

from hooklab.model.attention import _RUNNING
from hooklab.model.model import Model

IDS = [[3, 4, 5, 6, 7, 8]]
FAMILIES = ["gpt2", "llama", "gemma2", "gpt_neo", "falcon", "bloom", "bert"]


def loggers():
    """How every logger is set that is not hooklab's own: level, handlers, filters, whether it is off and passes on."""
    known = {name: logging.getLogger(name) for name in ("", *logging.root.manager.loggerDict) if "hooklab" not in name}
    return {name: (one.level, list(one.handlers), list(one.filters), one.disabled, one.propagate)
            for name, one in known.items()}


class State:
    """Everything that a run might leave behind."""

    def __init__(self, hf):
        self.hf = hf
        with torch.no_grad():
            self.logits = hf(torch.tensor(IDS)).logits
        self.attention = hf.config._attn_implementation
        self.grad = torch.is_grad_enabled()
        self.rng = torch.get_rng_state()
        self.hooks = self.count_hooks()
        self.flags = [p.requires_grad for p in hf.parameters()]
        self.training = hf.training
        self.logging, self.warnings = loggers(), list(warnings.filters)

    def count_hooks(self):
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
                   for m in self.hf.modules())

    def check(self):
        assert self.hf.config._attn_implementation == self.attention
        assert torch.is_grad_enabled() == self.grad
        assert torch.equal(torch.get_rng_state(), self.rng)
        assert self.count_hooks() == self.hooks
        assert [p.requires_grad for p in self.hf.parameters()] == self.flags
        assert self.hf.training == self.training
        assert loggers() == self.logging and warnings.filters == self.warnings
        assert not _RUNNING
        assert not torch.overrides._get_current_function_mode_stack()
        with torch.no_grad():
            assert torch.equal(self.hf(torch.tensor(IDS)).logits, self.logits)


@pytest.fixture(params=FAMILIES)
def opened(request):
    hf = build(request.param)
    state = State(hf)
    return Model(hf), state


def run_normally(model):
    with model.trace(IDS, grad=True):
        model.layers[0].pattern.save()
        model.layers[0].z[:] = 0
        model.logits.save()


def fail_in_the_block(model):
    with pytest.raises(ZeroDivisionError):
        with model.trace(IDS, grad=True):
            scores = model.layers[0].scores
            scores + 1 / 0


def interrupt(model):
    with pytest.raises(KeyboardInterrupt):
        with model.trace(IDS):
            model.layers[0].pattern.save()
            raise KeyboardInterrupt


def interrupt_in_the_model(model):
    def stop(*_):
        raise KeyboardInterrupt

    handle = model.layout.blocks[-1].register_forward_hook(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            with model.trace(IDS):
                model.layers[0].pattern.save()
                model.logits.save()
    finally:
        handle.remove()


def fail_in_a_callback(model):
    def broken(value):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        model.capture(IDS, "L0.z", edits={"L0.scores": broken})


def stop_early(model):
    with model.trace(IDS) as t:
        model.layers[0].scores.save()
        t.stop()


def ask_too_late(model):
    with pytest.raises(Exception, match="asked for"):
        with model.trace(IDS):
            model.layers[1].z.save()
            model.layers[0].z.save()


@pytest.mark.parametrize("happens", [run_normally, fail_in_the_block, interrupt, interrupt_in_the_model,
                                     fail_in_a_callback, stop_early, ask_too_late])
def test_nothing_stays_behind(opened, happens):
    model, state = opened
    happens(model)
    state.check()
    with model.trace(IDS):  # and the next trace works
        again = model.layers[0].resid_post.save()
    assert torch.equal(again, model.capture(IDS, "L0.resid_post")["L0.resid_post"])


def test_wrapping_alone_changes_no_number(opened):
    model, state = opened
    state.check()
    assert torch.equal(model.capture(IDS, "L0.resid_pre", full=True).output[0], state.logits)


def test_close_takes_the_instrumentation_out():
    hf = build("gpt2")
    before = {name: set(vars(module)) for name, module in hf.named_modules()}
    with Model(hf) as model:
        model.capture(IDS, "logits")
    assert {name: set(vars(module)) for name, module in hf.named_modules()} == before


def test_tokenizer_is_left_alone():
    from tiny_models import tokenizer

    tok = tokenizer()
    tok.padding_side, tok.pad_token = "right", None
    model = Model(build("gpt2"), tokenizer=tok)
    model.capture(["w1 w2", "w3 w4 w5"], "logits")
    assert tok.padding_side == "right"
    assert tok.pad_token is None


def test_threads_take_turns():
    model = Model(build("gpt2"))
    expected = {i: model.capture([[i, 4, 5]], "logits")["logits"] for i in range(3, 11)}
    wrong, errors = [], []

    def work(i):
        try:
            for _ in range(5):
                with model.trace([[i, 4, 5]]):
                    model.layers[0].z.save()
                    logits = model.logits.save()
                if not torch.equal(logits, expected[i]):
                    wrong.append(i)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not wrong
