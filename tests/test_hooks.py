"""Hooks of the user's own: against captures, edits and autograd, in every kind of run; and nothing stays behind."""

from __future__ import annotations

import pytest
import tiny_models
import torch

import hooklab as hl
from hooklab.errors import HooklabError, LayerError, SiteError, TraceError, WriteError

IDS = torch.tensor([[3, 5, 9, 20, 33, 7, 8], [4, 4, 60, 5, 71, 3, 12]])
RAGGED = [[3, 5, 9, 20, 33], [4, 60, 5], [7, 8, 9, 10]]
FAMILIES = ["gpt2", "llama", "gpt_neox", "gemma2", "phi3"]
PROMPT = "When Mary and John went to the store, John gave a drink to"


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    with hl.load(tiny_models.build(request.param), verify=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def lab():
    return hl.load("lab")


def logits(model, ids=IDS):
    with torch.no_grad():
        return model.capture(ids, "logits")["logits"]


def test_a_hook_sees_what_a_capture_reads_at_every_site(model):
    addresses = [f"{'L*.' if site.name in _layer_sites(model) else ''}{site.name}" for site in _sites(model)]
    expected = model.capture(IDS, addresses)
    seen = {}
    handles = [model.hook(address, lambda x, ctx: seen.update({ctx.address: x.clone()})) for address in addresses]
    with model.trace(IDS):
        pass
    for handle in handles:
        handle.remove()
    assert seen.keys() == expected.keys()
    for address, value in expected.items():
        torch.testing.assert_close(seen[address], value, rtol=0, atol=1e-6)


def _sites(model):
    from hooklab.sites import SITES

    return [site for site in SITES.values() if model.sites.missing(site.name) is None]


def _layer_sites(model):
    from hooklab.sites import LAYER_SITES

    return set(LAYER_SITES)


def test_a_glob_stands_on_every_layer_and_the_handle_counts(model):
    with model.hook("L*.mlp_post", lambda x: None) as handle:
        logits(model)
        assert handle.calls == model.facts.n_layers
        assert model.hooks == [handle]
    assert model.hooks == [] and model.interleaver.standing == {}


@pytest.mark.parametrize("change", ["returned", "in place"])
@pytest.mark.parametrize("address", ["L1.resid_pre", "L0.z", "L1.mlp_post", "L0H2.z", "L1N3.mlp_post"])
def test_what_a_hook_makes_is_what_an_edit_makes(model, address, change):
    def halved(x, ctx=None):
        return x * 0.5

    expected = model.capture(IDS, "logits", edits={address: halved})["logits"]
    with model.hook(address, halved if change == "returned" else halve):
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=0)
        with model.trace(IDS):
            traced = model.logits.save()
        torch.testing.assert_close(traced, expected, rtol=0, atol=1e-6)
    assert not torch.equal(logits(model), expected)


def halve(x, ctx):
    x.mul_(0.5)


def test_hooks_act_in_the_order_in_which_they_were_put(model):
    with model.hook("L0.resid_post", lambda x: x + 1), model.hook("L0.resid_post", lambda x: x * 3):
        found = model.capture(IDS, "L0.resid_post")["L0.resid_post"]
    plain = model.capture(IDS, "L0.resid_post")["L0.resid_post"]
    torch.testing.assert_close(found, (plain + 1) * 3, rtol=0, atol=1e-5)


def test_a_hook_acts_before_the_edits_of_a_run(model):
    with model.hook("L0.resid_post", lambda x: x * 0):
        found = model.capture(IDS, "L0.resid_post", edits={"L0.resid_post": lambda x: x + 2})["L0.resid_post"]
    assert bool((found == 2).all())


def test_after_an_error_in_a_hook_nothing_remains_and_the_model_is_as_it_was(model):
    before = logits(model)

    def fails(x, ctx):
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError), model.hook("L1.resid_mid" if model.sites.missing("resid_mid") is None
                                                      else "L1.resid_pre", fails):
        logits(model)
    assert model.hooks == [] and model.interleaver.standing == {}
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.hf.modules())
    assert torch.equal(logits(model), before)


def test_the_context_names_the_unpadded_positions_of_ragged_examples(model):
    seen = []
    with model.hook("L0.resid_pre", lambda x, ctx: seen.append((x, ctx))), model.hook(
            "L0.resid_pre", lambda x, ctx: seen.append((x, ctx)), at="last"):
        model.capture(RAGGED, "logits")
    (value, every), (_, last) = seen
    assert every.positions == ((0, 1, 2, 3, 4), (0, 1, 2), (0, 1, 2, 3))
    assert last.positions == ((4,), (2,), (3,))
    alone = model.capture([RAGGED[1]], "L0.resid_pre")["L0.resid_pre"][0]
    torch.testing.assert_close(value[1, list(every.columns[1])], alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(value[1, list(last.columns[1])], alone[-1:], rtol=0, atol=1e-5)
    assert (every.site, every.layer, every.step) == ("resid_pre", 0, 0)


def test_generation_calls_a_hook_once_a_step_and_says_which(model):
    steps = []
    with model.hook("L1.resid_post", lambda x, ctx: steps.append((ctx.step, x.shape[1], ctx.positions[0]))):
        model.generate(IDS[:1], max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert [step for step, _, _ in steps] == [0, 1, 2, 3]
    assert [width for _, width, _ in steps] == [7, 1, 1, 1]
    assert [positions for _, _, positions in steps] == [tuple(range(7)), (7,), (8,), (9,)]


def test_a_neuron_taken_out_while_sampling_changes_what_is_written_only_if_it_matters(lab):
    plain = lab.generate(PROMPT, max_new_tokens=6, do_sample=False)
    with lab.hook("L4.resid_post", lambda x: x.neg()):
        turned = lab.generate(PROMPT, max_new_tokens=6, do_sample=False)
    lab.hf.transformer.h[0]  # the module itself carries no hook
    with lab.hook("L3N5.mlp_post", lambda x: x):
        same = lab.generate(PROMPT, max_new_tokens=6, do_sample=False)
    assert torch.equal(plain, same) and not torch.equal(plain[:, :turned.shape[1]], turned[:, :plain.shape[1]])


def test_a_gradient_hook_sees_what_autograd_gives(model):
    seen = {}
    with model.hook("L*.resid_post", lambda g, ctx: seen.update({ctx.address: g.clone()}), grad=True) as handle:
        found = model.capture(IDS, "L*.resid_post", metric=lambda out: out.logits[:, -1, 5].sum())
    assert handle.calls == model.facts.n_layers
    for address, gradient in found.grads.items():
        torch.testing.assert_close(seen[address], gradient, rtol=1e-5, atol=1e-6)
    # by hand: the last stream through the final norm and the unembedding
    last = found["L1.resid_post"].detach().clone().requires_grad_()
    with torch.enable_grad():
        out = model.layout.unembed(model.layout.base.get_submodule(model.layout.family.ln_final)(last))[:, -1, 5].sum()
        (by_hand,) = torch.autograd.grad(out, last)
    torch.testing.assert_close(seen["L1.resid_post"], by_hand, rtol=1e-4, atol=1e-6)


def test_a_gradient_set_to_zero_stops_only_what_goes_through_its_site(lab):
    metric = dict(metric=lambda out: out.logits[:, -1, 5].sum())
    free = lab.capture(PROMPT, ["L1.resid_pre", "L1.attn_out"], **metric).grads
    with lab.hook("L1.attn_out", lambda g: torch.zeros_like(g), grad=True):
        cut = lab.capture(PROMPT, ["L1.resid_pre", "L0.attn_out"], **metric).grads
    with lab.hook("L1.resid_post", lambda g: torch.zeros_like(g), grad=True):
        none = lab.capture(PROMPT, ["L1.resid_pre"], **metric).grads
    assert none["L1.resid_pre"].abs().max() == 0, "everything upstream goes through the stream"
    assert cut["L1.resid_pre"].abs().max() > 0, "the stream itself goes past attention"
    assert not torch.allclose(cut["L1.resid_pre"], free["L1.resid_pre"])


SWEEP = f"""prompt clean = "{PROMPT}"
prompt corrupt = "When Mary and John went to the store, Mary gave a drink to"
answer " Mary" vs " John"
metric logit_diff
run patched on corrupt:
    patch each L*.resid_pre @each from clean
"""


def test_a_sweep_under_a_hook_gives_what_single_runs_under_it_give(lab):
    def lessened(x, ctx):
        return x * 0.9

    plain = lab.run(SWEEP).grid
    with lab.hook("L2.attn_out", lessened):
        swept = lab.run(SWEEP).grid
        one = lab.run(SWEEP.replace("each L*.resid_pre @each", "L1.resid_pre @last")).metrics["patched"]["logit_diff"]
    assert swept.values[1, -1] == pytest.approx(one, abs=1e-4)
    assert abs(swept.values - plain.values).max() > 1e-2


def test_wrong_hooks_are_refused_and_nothing_stands(lab):
    for address, error in (("L9.z", LayerError), ("L1.resid_mod", SiteError), ("L1.logits", SiteError)):
        with pytest.raises(error):
            lab.hook(address, lambda x: x)
    with pytest.raises(HooklabError, match="a hook"):
        lab.hook("L1.z", 3)
    with pytest.raises(HooklabError, match="a hook takes"):
        lab.hook("L1.z", lambda a, b, c: a)
    with pytest.raises(WriteError), lab.hook("L1.z", lambda x: "text"):
        lab.capture(PROMPT, "logits")
    with pytest.raises(WriteError), lab.hook("L1.z", lambda x: x[..., :1]):
        lab.capture(PROMPT, "logits")
    assert lab.hooks == [] and lab.interleaver.standing == {}


def test_a_hook_cannot_travel(lab):
    with lab.hook("L1.z", lambda x: x), pytest.raises(TraceError, match="remote"):
        lab.run('prompt "The Eiffel Tower is in"\nsave L1.z', remote="local")


def test_removing_twice_does_nothing_and_the_handle_says_so(lab):
    def mine(x):
        return None

    handle = lab.hook("L1.z", mine)
    handle.remove()
    handle.remove()
    assert "removed" in repr(handle) and "mine" in repr(handle) and lab.hooks == []
