"""Profiles: arithmetic and memory by hand, slow modules that were planted, and that nothing is left behind."""

from __future__ import annotations

import json
import random
import threading
import time
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from test_analysis_heads import FAMILIES
from tiny_models import build
from torch import nn
from torch.nn.modules import module as modules

import hooklab as hl
from hooklab.bench.profiler import ProfileError, profile
from hooklab.bench.profiling import measuring
from hooklab.bench.profiling.measuring import Node
from hooklab.errors import PromptError

IDS = [5, 6, 7, 8, 9, 10, 11]


class Slow(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: Any) -> Any:
        time.sleep(self.seconds)
        return x


class Clock:
    """Time that passes as it is told, however busy the machine is: a microsecond at every look, and what is slept."""

    now = 0.0

    def perf_counter(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(measuring, "time", made)
    monkeypatch.setitem(globals(), "time", made)


@cache
def opened(family: str) -> Any:
    return hl.load(build(family), verify=False)


def hooks() -> tuple[int, int]:
    return len(modules._global_forward_hooks), len(modules._global_forward_pre_hooks)


def holds(node: Node) -> None:
    """Children take no more than their parent, and shares add up, at every level and for every quantity."""
    for one in node.walk():
        for what in ("time", "memory", "flops"):
            whole = getattr(one, what)
            assert sum(getattr(child, what) for child in one.children.values()) <= whole * (1 + 1e-12)
            assert one.own(what) >= -1e-12 * whole
            assert not whole or abs(sum(one.shares(what).values()) - 1) < 1e-6


@pytest.mark.parametrize("by", ["layer", "component", "module"])
@pytest.mark.parametrize("family", FAMILIES)
def test_parts_add_up_to_the_whole_on_every_family(family, by):
    found = profile(opened(family), IDS, by=by, repeats=2, warmup=0)
    holds(found.tree)
    assert abs(sum(row.share for row in found.rows) - 1) < 1e-6
    for of in ("time", "memory", "flops"):
        shares = found.to_scores(of, share=True)
        assert abs(shares.values.sum() - 1) < 1e-6 and shares.unit == "share" and (shares.values >= -1e-12).all()
    assert abs(found.to_scores().values.sum() - found.time * 1e3) < 1e-6
    assert sum(row.own for row in found.rows) == pytest.approx(found.time, rel=1e-9)
    assert sorted(found.times)[0] == found.time and len(found.times) == 2  # of two, the faster is in the middle


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_has_its_attention_its_mlp_and_its_norms(family):
    found = profile(opened(family), IDS, by="component", repeats=1, warmup=0)
    names = [row.name for row in found.rows]
    for layer in range(2):
        assert {f"L{layer} attn", f"L{layer} mlp", f"L{layer} norm"} <= set(names)
    assert {"embed", "ln_final", "unembed"} <= set(names)
    scores = found.to_scores("flops")
    assert scores.axes == ("layer", "component") and scores.coords["layer"] == (0, 1, "outside")
    assert float(scores.sel(layer=0, component="norm")) == 0 < float(scores.sel(layer=0, component="mlp"))


def test_the_arithmetic_of_a_model_is_that_of_its_matrices():
    facts, n = opened("llama").facts, len(IDS)
    found = profile(opened("llama"), IDS, by="component", repeats=1, warmup=0)
    d, kv = facts.d_model, facts.n_kv_heads * facts.d_head
    attention = 2 * n * (2 * d * d + 2 * d * kv) + 2 * facts.n_heads * n * n * 2 * facts.d_head
    wanted = {"attn": attention, "mlp": 2 * n * 3 * d * facts.d_mlp, "norm": 0}
    for row in found.rows:
        if row.component in wanted and row.layer in (0, 1):
            assert row.flops == wanted[row.component], row
    assert next(row.flops for row in found.rows if row.name == "unembed") == 2 * n * d * facts.d_vocab


def test_a_linear_layer_makes_two_m_n_k_operations_and_one_result():
    found = profile(nn.Linear(8, 16), torch.ones(5, 8), by="module", repeats=1)
    (row,) = [row for row in found.rows if row.name == "Linear"]
    assert row.flops == found.tree.flops == 2 * 5 * 8 * 16
    assert row.memory == found.tree.memory == 4 * 5 * 16


def test_fused_attention_is_counted_on_this_device():
    q, k = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4)
    call = nn.functional.scaled_dot_product_attention
    with torch.no_grad():
        found = profile(lambda: call(q, k, torch.randn(2, 3, 7, 4)), repeats=1)
    assert found.tree.flops == 2 * 2 * 3 * 5 * 7 * (4 + 4)
    with torch.inference_mode():
        assert profile(nn.Linear(8, 16), torch.ones(5, 8), repeats=1).tree.flops == 2 * 5 * 8 * 16


def test_views_and_results_in_place_make_no_memory():
    def call(x):
        return x.view(-1).add_(1).reshape(2, 50).t(), torch.empty(10), x.expand(3, 100)

    assert profile(call, torch.zeros(100), repeats=1, warmup=0).tree.memory == 40


@pytest.mark.parametrize("by", ["layer", "component", "module"])
def test_a_planted_slow_module_ranks_first(by, clock):
    net = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), Slow(0.02 if i == 2 else 0.0)) for i in range(4)))
    found = profile(net, torch.ones(1, 4), by=by, repeats=1, warmup=0, count=False)
    first = found.top(1)[0]
    assert first.name == {"layer": "layer 2", "component": "L2 1", "module": "2.1"}[by]
    assert 0.02 <= first.own < 0.0201 and first.share > 0.99
    assert found.to_scores().top(1)[0][0]["module" if by == "module" else "layer"] == ("2.1" if by == "module" else 2)


def test_a_slow_attention_inside_a_model_ranks_first(clock):
    with hl.load(build("gpt2", seed=1), verify=False) as model:
        handle = model.hf.transformer.h[1].mlp.register_forward_hook(lambda *_: None)
        model.hf.transformer.h[1].attn.resid_dropout = Slow(0.02)
        assert profile(model, IDS, by="component", repeats=1, count=False).top(1)[0].name == "L1 attn"
        by_hand = profile(lambda one: one.hf(torch.tensor([IDS])), model, by="layer", repeats=1, count=False)
        assert by_hand.top()[0].layer == 1
        handle.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_output_is_unchanged_bit_for_bit(family):
    hf = build(family)
    with torch.no_grad():
        bare = hf(torch.tensor([IDS])).logits
    inside = profile(hf, torch.tensor([IDS]), repeats=2).output.logits
    assert torch.equal(bare, inside.detach())
    model = opened(family)
    plain = model.capture(IDS, "logits")["logits"]
    assert torch.equal(profile(model, IDS, repeats=1).output.logits, plain)
    assert torch.equal(model.capture(IDS, "logits")["logits"], plain)


def test_dropout_is_the_same_with_and_without_and_random_state_is_put_back():
    net = nn.Dropout(0.5).train()
    x = torch.ones(64)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    found = profile(net, x, repeats=3)
    assert torch.equal(torch.get_rng_state(), state[0]) and random.getstate() == state[1]
    assert (np.random.get_state()[1] == state[2]).all()
    assert torch.equal(found.output, net(x))


@pytest.mark.parametrize("count", [False, True])
def test_everything_is_put_back_after_an_error(count):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(3, 3))
    calls = []

    def call(x):
        calls.append(1)
        torch.manual_seed(1)
        torch.set_grad_enabled(False)
        return net(x) if len(calls) == (3 if count else 1) else x

    state, before = torch.get_rng_state(), hooks()
    with pytest.raises(RuntimeError, match="shapes"):
        profile(call, torch.ones(1, 4), repeats=1)
    assert torch.is_grad_enabled() and hooks() == before and torch.equal(torch.get_rng_state(), state)
    with torch.inference_mode(), pytest.raises(RuntimeError):
        profile(net, torch.ones(1, 4))
    assert hooks() == before and all(not one._forward_hooks and not one._forward_pre_hooks for one in net.modules())
    assert profile(nn.Linear(4, 4), torch.ones(1, 4), repeats=1).tree.flops == 32  # and the next one works


def test_an_error_that_the_call_catches_leaves_the_tree_whole():
    net, good = nn.Sequential(nn.Linear(4, 4), nn.Linear(3, 3)), nn.Linear(4, 4)

    def call(x):
        try:
            net(x)
        except RuntimeError:
            return good(x)

    found = profile(call, torch.ones(1, 4), by="module", repeats=1)
    holds(found.tree)
    assert list(found.tree.children) == ["Sequential", "Linear"]


@pytest.mark.parametrize("value", [None, 3, "text", {"a": 1}, [1, (2,)], np.arange(3)])
def test_whatever_a_function_returns_is_at_hand(value):
    found = profile(lambda: value, repeats=1)
    assert found.output is value
    assert [row.name for row in found.rows] == ["outside"] and found.rows[0].share == 1


def test_the_first_argument_and_named_ones_reach_the_function():
    assert profile(lambda a, b, *, c: (a, b, c), 1, 2, c=3, repeats=1, warmup=0, count=False).output == (1, 2, 3)


def test_calls_are_as_many_as_asked_for():
    calls = []
    profile(lambda: calls.append(1), repeats=4, warmup=2)
    assert len(calls) == 7
    calls.clear()
    profile(lambda: calls.append(1), repeats=1, warmup=0, count=False)
    assert len(calls) == 1


def test_modules_called_twice_shared_or_within_themselves_add_up():
    class Again(nn.Module):
        def forward(self, x, times=2):
            return self(x, times - 1) if times else x * 2

    shared = nn.Linear(4, 4)
    net = nn.Sequential(shared, shared, Again(), nn.Sequential(shared))
    found = profile(net, torch.ones(1, 4), by="module", repeats=1)
    holds(found.tree)
    rows = {row.name: row for row in found.rows}
    assert rows["0"].calls == 3 and rows["0"].flops == 3 * 32 and rows["2"].calls == 3
    assert abs(sum(row.share for row in found.rows) - 1) < 1e-6


def test_other_threads_are_left_out():
    other, stop = nn.Linear(2, 2), threading.Event()

    def run():
        while not stop.is_set():
            other(torch.ones(1, 2))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        found = profile(nn.Sequential(nn.ReLU(), Slow(0.01)), torch.ones(1), by="module", repeats=1)
    finally:
        stop.set()
        thread.join()
    assert {row.name for row in found.rows} == {"(call)", "Sequential", "0", "1"}


def test_many_layers_stay_in_their_own_order():
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(12)))
    found = profile(net, torch.ones(1, 2), repeats=1)
    assert [row.layer for row in found.rows] == [*range(12), "outside"]
    assert found.to_scores().coords["layer"] == (*range(12), "outside")


def test_a_profile_is_a_table_a_frame_a_dictionary_and_a_view():
    found = profile(opened("gpt2"), IDS, by="component", repeats=1)
    text, page = repr(found), found._repr_html_()
    assert all(row.name in text and row.name in page for row in found.rows) and text.startswith("GPT2LMHeadModel: ")
    from io import StringIO

    from rich.console import Console

    target = StringIO()
    Console(file=target, width=200).print(found)
    assert "L1 attn" in target.getvalue()
    frame = found.to_pandas()
    assert frame["share"].sum() == pytest.approx(1) and list(frame["name"]) == [row.name for row in found.rows]
    assert json.loads(json.dumps(found.as_dict()))["flops"] == found.tree.flops
    for by in ("layer", "component", "module"):
        assert hl.view.of(profile(opened("gpt2"), IDS, by=by, repeats=1, count=False).to_scores()) is not None


def test_the_picture_has_a_box_for_every_module_as_wide_as_its_time():
    import matplotlib

    before = dict(matplotlib.rcParams)
    evil = type("$a$<b>", (nn.Module,), {"forward": lambda self, x: time.sleep(0.004) or x})
    found = profile(nn.Sequential(evil(), Slow(0.002)), torch.ones(1), by="module", repeats=1, count=False)
    figure = found.plot()
    boxes = {box.get_gid(): box for box in figure.axes[0].patches}
    for node in found.tree.walk():
        assert boxes[node.name].get_width() == pytest.approx(node.time * 1e3)
    assert boxes["1"].get_x() == pytest.approx(boxes["0"].get_x() + boxes["0"].get_width())
    assert {round(boxes[name].get_y()) for name in ("0", "1")} == {2} and round(boxes["Sequential"].get_y()) == 1
    figure.savefig(__import__("io").BytesIO())
    assert dict(matplotlib.rcParams) == before
    assert "<b>" not in profile(evil(), torch.ones(1), by="module", repeats=1)._repr_html_()


@pytest.mark.parametrize(("args", "options", "error", "says"), [
    ((3,), {}, ProfileError, "profile\\(lambda"), ((lambda: 1,), {"by": "layers"}, ProfileError, 'Did you mean "layer"'),
    ((lambda: 1,), {"repeats": 0}, ProfileError, "repeats"), ((lambda: 1,), {"warmup": -1}, ProfileError, "warmup"),
    ((lambda: 1,), {"repeats": True}, ProfileError, "repeats"), ((lambda a: 1,), {}, TypeError, "missing"),
])
def test_what_cannot_be_profiled_is_an_error(args, options, error, says):
    with pytest.raises(error, match=says):
        profile(*args, **options)


def test_a_model_needs_a_prompt_and_what_was_not_counted_cannot_be_read():
    with pytest.raises(ProfileError, match="say what the model runs on"):
        profile(opened("gpt2"))
    with pytest.raises(PromptError):
        profile(opened("gpt2"), [])
    found = profile(lambda: 1, repeats=1, count=False)
    for of, says in (("flops", "not counted"), ("flop", 'Did you mean "flops"')):
        with pytest.raises(ProfileError, match=says):
            found.to_scores(of)
    with pytest.raises(ProfileError, match="depth"):
        found.plot(depth=0)
