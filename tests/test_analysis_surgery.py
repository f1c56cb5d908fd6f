"""Surgery and pruning: against models built by hand, and the first model bit for bit as it was."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tiny_models
import torch

import hooklab as hl
from hooklab.analysis import surgery
from hooklab.analysis.pruning import prune, pruning_curve
from hooklab.errors import LayerError, ModelError, RecordError, SiteError

IDS = torch.tensor([[1, 5, 9, 20, 33, 7, 8], [4, 4, 60, 2, 71, 3, 12]])
FAMILIES = ["gpt2", "gpt_neo", "gpt_neox", "llama", "gemma2", "gemma3", "phi3", "bloom", "falcon", "qwen3", "mixtral",
            "olmo2", "gpt_oss"]
SILENCED = [name for name in FAMILIES if name not in ("mixtral", "gpt_oss")]


@pytest.fixture(params=FAMILIES)
def opened(request):
    hf = tiny_models.build(request.param)
    with hl.load(hf, verify=False) as model, torch.no_grad():
        yield model


def by_hand(model, order):
    """A model of that many layers made from its config, its weights copied layer by layer."""
    config = copy.deepcopy(model.hf.config)
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == model.facts.n_layers and name in ("layer_types", "attention_layers"):
            vars(config)[name] = [value[layer] for layer in order]
    vars(config)[type(config).attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(order)
    made = type(model.hf)(config).eval()
    prefix = model.layout.names[id(model.layout.blocks[0])].removesuffix("0")
    state = {}
    for name, tensor in model.hf.state_dict().items():
        if not name.startswith(prefix):
            state[name] = tensor
            continue
        number, _, rest = name.removeprefix(prefix).partition(".")
        state.update({f"{prefix}{place}.{rest}": tensor for place, layer in enumerate(order) if layer == int(number)})
    made.load_state_dict(state)
    return made


@pytest.mark.parametrize("order", [[1], [0], [1, 0], [0, 0, 1], [1, 0, 1]], ids=str)
def test_layers_in_another_order_give_what_a_model_built_by_hand_gives(opened, order):
    before = opened.hf(IDS).logits
    with surgery.rearrange(opened, order) as other:
        torch.testing.assert_close(other.hf(IDS).logits, by_hand(opened, order)(IDS).logits, rtol=0, atol=1e-6)
        assert other.facts.n_layers == len(order)
        assert torch.equal(opened.hf(IDS).logits, before), "the first model runs on as it is while the second is open"
    assert torch.equal(opened.hf(IDS).logits, before)


def test_the_first_model_keeps_its_weights_its_config_and_its_instrumentation(opened):
    state = {name: tensor.clone() for name, tensor in opened.hf.state_dict().items()}
    config = opened.hf.config.to_dict()
    with surgery.delete(opened, 0), surgery.repeat(opened, 1, 3), surgery.swap(opened, 0, 1), prune(opened, heads=[(0, 1)]):
        pass
    assert all(torch.equal(tensor, state[name]) for name, tensor in opened.hf.state_dict().items())
    assert opened.hf.config.to_dict() == config
    assert len(opened.capture(IDS, "L*.resid_post")) == opened.facts.n_layers


def test_the_weights_are_shared_and_not_copied(opened):
    with surgery.repeat(opened, 0, 4) as longer:
        assert {p.data_ptr() for p in longer.hf.parameters()} == {p.data_ptr() for p in opened.hf.parameters()}


def test_sites_of_the_rearranged_model_are_those_of_its_own_layers(opened):
    with surgery.swap(opened, 0, 1) as other:
        found = other.capture(IDS, ["L0.resid_pre", "L0.resid_post", "L1.resid_post"])
        first = opened.capture(IDS, ["L0.resid_pre"])["L0.resid_pre"]
    torch.testing.assert_close(found["L0.resid_pre"], first, rtol=0, atol=0)
    assert not torch.equal(found["L0.resid_post"], found["L1.resid_post"])


def test_generation_with_a_cache_goes_on_as_without_one(opened):
    with surgery.rearrange(opened, [1, 0, 1]) as other:
        cached = other.hf.generate(IDS[:1], max_new_tokens=4, do_sample=False, use_cache=True)
        plain = other.hf.generate(IDS[:1], max_new_tokens=4, do_sample=False, use_cache=False)
    assert torch.equal(cached, plain)


def test_replacing_a_layer_is_the_order_with_the_other_in_its_place(opened):
    with surgery.replace(opened, 0, by=1) as other:
        torch.testing.assert_close(other.hf(IDS).logits, by_hand(opened, [1, 1])(IDS).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SILENCED)
def test_a_skipped_layer_adds_nothing_and_keeps_its_sites(name):
    with hl.load(tiny_models.build(name), verify=False) as model, torch.no_grad(), surgery.skip(model, 0) as other:
        found = other.capture(IDS, ["L0.resid_pre", "L0.resid_post", "logits"])
        torch.testing.assert_close(found["L0.resid_post"], found["L0.resid_pre"], rtol=0, atol=0)
        torch.testing.assert_close(found["logits"], by_hand(model, [1])(IDS).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["bert", "opt_postnorm", "mixtral"])
def test_a_layer_that_cannot_be_silenced_is_refused_with_what_to_do(name):
    with hl.load(tiny_models.build(name), verify=False) as model, pytest.raises(ModelError, match="use delete"):
        surgery.skip(model, 0)


@pytest.mark.parametrize("act", [lambda m: surgery.delete(m, 2), lambda m: surgery.delete(m, [0, 1]),
                                 lambda m: surgery.swap(m, 0, -3), lambda m: surgery.repeat(m, 0, 0),
                                 lambda m: surgery.rearrange(m, [])],
                         ids=["beyond the last", "all of them", "before the first", "no times", "an empty order"])
def test_layers_that_are_not_there_are_refused(act):
    with hl.load(tiny_models.build("llama"), verify=False) as model, pytest.raises(LayerError):
        act(model)


def test_pruned_heads_are_heads_whose_z_is_zero(opened):
    with prune(opened, heads=["L0H1", (1, -1)]) as pruned:
        found = pruned.hf(IDS).logits
    zero = {"L0.z": _zeroed(2, 1), "L1.z": _zeroed(2, opened.facts.n_heads - 1)}
    expected = opened.capture(IDS, "logits", edits=zero)["logits"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SILENCED)
def test_pruned_neurons_are_neurons_that_are_zero(name):
    with hl.load(tiny_models.build(name), verify=False) as model, torch.no_grad():
        with prune(model, neurons=["L1N[3,5]"]) as pruned:
            found = pruned.hf(IDS).logits
        expected = model.capture(IDS, "logits", edits={"L1.mlp_post": _zeroed(2, [3, 5])})["logits"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def _zeroed(axis, index):
    def edit(value):
        value = value.clone()
        value[(slice(None),) * axis + (index,)] = 0
        return value
    return edit


def test_the_curve_starts_at_the_whole_model_and_takes_the_weakest_first():
    with hl.load(tiny_models.build("llama"), verify=False) as model, torch.no_grad():
        values = np.arange(8.0).reshape(2, 4)[::-1].copy()
        seen = []

        def measure(pruned):
            seen.append({(layer, head) for layer in range(2) for head in range(4) if not pruned.W.O[layer, head].any()})
            return float(pruned.hf(IDS).logits.sum())

        curve = pruning_curve(model, hl.Scores(values, ("layer", "head")), measure, shares=(0, 0.25, 1))
        assert seen == [set(), {(1, 0), (1, 1)}, {(layer, head) for layer in range(2) for head in range(4)}]
        assert curve.values[0] == float(model.hf(IDS).logits.sum())
        assert curve.labels.tolist() == ["0 of 8 heads", "2 of 8 heads", "8 of 8 heads"]


def test_the_weakest_neurons_go_first_and_the_measure_is_that_of_the_model_without_them():
    hf = tiny_models.build("gpt2")
    width = hf.transformer.h[0].mlp.c_proj.weight.shape[0]
    values = torch.randn(2, width, generator=torch.Generator().manual_seed(5))
    order = [divmod(int(cell), width) for cell in values.abs().flatten().argsort()]
    expected = []
    for gone in (0, width // 2, 2 * width):
        without = copy.deepcopy(hf)
        with torch.no_grad():
            for layer, neuron in order[:gone]:
                without.transformer.h[layer].mlp.c_proj.weight[neuron] = 0
            expected.append(float(without(IDS).logits.square().mean()))
    with hl.load(hf, verify=False) as model:
        curve = pruning_curve(model, hl.Scores(values.numpy(), ("layer", "neuron")),
                              lambda pruned: float(pruned.hf(IDS).logits.detach().square().mean()), shares=(0, 0.25, 1))
    np.testing.assert_allclose(curve.values, expected, rtol=1e-6)
    assert len(set(expected)) == 3
    assert curve.labels.tolist() == [f"{n} of {2 * width} neurons" for n in (0, width // 2, 2 * width)]


@pytest.mark.parametrize("scores, shares", [
    (hl.Scores(np.zeros(3), ("layer",)), (0,)), (hl.Scores(np.full((2, 4), np.nan), ("layer", "head")), (0,)),
    (hl.Scores(np.zeros((2, 4)), ("layer", "head")), (1.5,))], ids=["other axes", "not numbers", "more than all"])
def test_scores_that_cannot_rank_units_are_refused(scores, shares):
    with hl.load(tiny_models.build("llama"), verify=False) as model, pytest.raises(RecordError):
        pruning_curve(model, scores, lambda pruned: 0.0, shares=shares)


def test_units_that_are_not_there_are_refused():
    with hl.load(tiny_models.build("mixtral"), verify=False) as model:
        with pytest.raises(LayerError):
            prune(model, heads=["L0H4"])
        with pytest.raises(SiteError):
            prune(model, heads=["L0.resid_post"])
        with pytest.raises((SiteError, LayerError)):
            prune(model, neurons=[(0, 0)])
