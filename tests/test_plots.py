"""Ready-made plots: the numbers that stand in the figures, read back from them, against transformers' own and by hand."""

from __future__ import annotations

import inspect
import io
import sys
import warnings
from functools import cache
from typing import Any

import matplotlib
import numpy as np
import planted
import pytest
import torch
from test_analysis_heads import FAMILIES, RAGGED, attentions
from tiny_models import build, tokenizer

import hooklab as hl
from hooklab.bench.plots import PLOTS, attention_distance
from hooklab.errors import LayerError, SiteError, ViewError

IDS = RAGGED[0]


@cache
def opened(family: str) -> Any:
    return hl.load(build(family), verify=False)


@cache
def deep() -> Any:
    """A model of twelve layers."""
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.GPT2Config(vocab_size=100, n_embd=16, n_layer=12, n_head=2, n_positions=32)
        words = tokenizer()
        words.add_tokens(["$w1$", "$w2$"])
        return hl.load(transformers.GPT2LMHeadModel(config).eval(), tokenizer=words, verify=False)


def drawn(figure: Any) -> list[np.ndarray]:
    """The maps of a figure, in order; what is see-through is nan."""
    return [np.where(np.asarray(1.0 if image.get_alpha() is None else image.get_alpha()) > 0,
                     np.ma.filled(image.get_array().astype(float), np.nan), np.nan)
            for ax in figure.axes for image in ax.images]


def names(side: Any) -> list[str]:
    return [label.get_text() for label in side.get_ticklabels()]


@cache
def hidden(family: str) -> dict[str, np.ndarray]:
    """What modules of a family read and wrote on the first prompt alone, by torch's own hooks."""
    hf, found, handles = build(family, attn_implementation="eager"), {}, []
    for path, module in hf.named_modules():
        def keep(module, args, output, path=path):
            take = output[0] if isinstance(output, tuple) else output
            found[f"{path}.out"] = take
            if args and torch.is_tensor(args[0]):
                found[f"{path}.in"] = args[0]
        handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        hf(torch.tensor([IDS]))
    for handle in handles:
        handle.remove()
    return {path: value[0].double().numpy() for path, value in found.items() if torch.is_tensor(value) and value.ndim == 3}


@pytest.mark.parametrize("name", sorted(PLOTS))
def test_every_plot_draws_without_a_warning_and_leaves_settings_alone(name):
    before, pyplot = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
    options = {"induction_heads": {"period": 4}, "attention": {"heads": ["L0H0", "L11H1"]}}.get(name, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = PLOTS[name](deep(), None if "period" in options else "Mary w1 $w2$ John the store w1", **options)
        figure.savefig(target := io.BytesIO(), format="png", dpi=25)
    assert target.getvalue().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before and ("matplotlib.pyplot" in sys.modules) == pyplot
    assert list(inspect.signature(PLOTS[name]).parameters)[:1] == ["model"]


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_shows_the_pattern_of_each_head(family):
    for found, head in zip(drawn(PLOTS["attention"](opened(family), IDS, layer=1)), attentions(family)[0][1], strict=True):
        below = np.tri(len(IDS), dtype=bool)
        assert np.allclose(found[below], head[below], atol=1e-5) and np.isnan(found[~below]).all()


def test_attention_names_its_tokens_and_its_heads():
    figure = PLOTS["attention"](deep(), "Mary $w1$ the store", heads=["L11H1", (2, 0)])
    assert [ax.get_title() for ax in figure.axes[:2]] == ["L11H1", "L2H0"]
    assert len(names(figure.axes[0].xaxis)) == 4 and "Mary" in names(figure.axes[0].yaxis)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_of_attention_are_those_of_the_patterns_padding_apart(family):
    entropy, distance, first = drawn(PLOTS["attention_stats"](opened(family), RAGGED))
    wanted = []
    for pattern in attentions(family):
        at = np.arange(pattern.shape[-1])
        logs = np.log(np.where(pattern > 0, pattern, 1))
        far = np.abs(at[:, None] - at)
        wanted.append([-(pattern * logs).sum(-1).mean(-1), (pattern * far).sum(-1).mean(-1), pattern[..., 0].mean(-1)])
    for found, number in zip((entropy, distance, first), np.mean(wanted, axis=0), strict=True):
        assert np.allclose(found, number, atol=1e-5)


def test_the_distance_of_planted_heads_is_known():
    back = planted.looking({position: position - 1 for position in range(1, 8)})
    with hl.load(planted.model({(0, 0): planted.Head(*back, "token", "carried"),
                                (1, 2): planted.Head(*planted.looking({}), "token", "out")}), verify=False) as model:
        found = attention_distance(model, [[1, 2, 3, 4, 5], [6, 7, 1]])
    assert found.examples is not None
    assert np.allclose(found.examples[:, 0, 0], [4 / 5, 2 / 3], atol=1e-4)  # all but the first look one back
    assert np.allclose(found.examples[:, 1, 2], [2, 1], atol=1e-4)  # all look at the first


def test_induction_is_one_on_the_planted_head_and_near_none_elsewhere():
    with hl.load(planted.induction(), verify=False) as model:
        (found,) = drawn(PLOTS["induction_heads"](model, [[0, 2, 3, 5, 2, 3, 5]]))
    assert found[1, 0] == pytest.approx(1, abs=1e-3) and np.delete(found.reshape(-1), 4).max() < 0.3
    (found,) = drawn(PLOTS["induction_heads"](opened("gpt2"), period=12))
    assert found.max() < 0.35
    figure = PLOTS["induction_heads"](deep(), period=5)
    (found,) = drawn(figure)
    assert names(figure.axes[0].yaxis) == [str(i) for i in range(12)]
    assert np.allclose(found, hl.induction_scores(deep(), period=5).values)


@pytest.mark.parametrize("family", FAMILIES)
def test_dot_products_are_those_of_queries_and_the_keys_they_share(family):
    model = opened(family)
    raw, scaled = (drawn(PLOTS["qk_dot_products"](model, IDS, layer=1, scaled=one)) for one in (False, True))
    below = np.tri(len(IDS), dtype=bool)
    rows = attentions(family)[0][1]
    scale = getattr(model.hf.model.layers[1].self_attn, "scaling", None) if family in ("llama", "gemma2", "phi3") else None
    cap = getattr(model.hf.config, "attn_logit_softcapping", None)
    for head, (product, seen) in enumerate(zip(raw, scaled, strict=True)):
        assert np.isnan(product[~below]).all() and np.isnan(seen[~below]).all()
        wanted = product * (model.facts.d_head**-0.5 if scale is None else scale)
        wanted = cap * np.tanh(wanted / cap) if cap else wanted
        kept = below & np.isfinite(seen)
        assert np.allclose(seen[kept], wanted[kept], atol=1e-4)
        weights = np.exp(np.where(kept, wanted, -np.inf))
        assert np.allclose(weights / weights.sum(-1, keepdims=True), rows[head], atol=1e-4)  # of transformers itself


def test_twenty_heads_are_cut_to_sixteen_and_the_title_says_so():
    import transformers

    config = transformers.GPT2Config(vocab_size=50, n_embd=40, n_layer=1, n_head=20, n_positions=16)
    with hl.load(transformers.GPT2LMHeadModel(config).eval(), verify=False) as model:
        figure = PLOTS["qk_dot_products"](model, [1, 2, 3])
        assert len(drawn(figure)) == 16 and "first 16 of 20 heads" in figure._suptitle.get_text()
        assert len(drawn(PLOTS["qk_dot_products"](model, [1, 2, 3], heads=[19]))) == 1


WRITES = {"gpt2": "transformer.h.{}", "llama": "model.layers.{}", "gpt_neox": "gpt_neox.layers.{}",
          "gemma2": "model.layers.{}", "phi3": "model.layers.{}"}
DOWN = {"gpt2": ".mlp.c_proj", "gpt_neox": ".mlp.dense_4h_to_h"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stream_is_as_long_as_what_the_blocks_return(family):
    figure = PLOTS["residual_stream"](opened(family), IDS)
    (found,) = drawn(figure)
    rows = names(figure.axes[0].yaxis)
    for layer in range(2):
        wanted = np.linalg.norm(hidden(family)[WRITES[family].format(layer) + ".out"], axis=-1)
        assert np.allclose(found[rows.index(f"L{layer}.resid_post")], wanted, rtol=1e-4)


def test_layers_are_drawn_in_their_own_order():
    figure = PLOTS["residual_stream"](deep(), "Mary w1 John")
    layers = [int(name.partition(".")[0][1:]) for name in names(figure.axes[0].yaxis)]
    assert layers == sorted(layers) and layers[-1] == 11
    assert [name.strip() for name in names(figure.axes[0].xaxis)] == ["Mary", "w1", "John"]
    for name in ("neuron_activations", "layer_norms"):
        figure = PLOTS[name](deep(), "Mary w1 John")
        assert names(figure.axes[0].xaxis)[:12] == [str(i) for i in range(12)]


@pytest.mark.parametrize("family", FAMILIES)
def test_violins_have_the_ends_and_the_median_of_all_activations(family):
    figure = PLOTS["neuron_activations"](opened(family), IDS)
    medians, *_ = [one for one in figure.axes[0].collections if one.get_linewidth()[0] == pytest.approx(1.6)]
    bars = [one for one in figure.axes[0].collections if hasattr(one, "get_segments") and one is not medians]
    ends = [np.ptp([y for _, y in segment]) for one in bars for segment in one.get_segments()]
    for layer in range(2):
        wanted = hidden(family)[WRITES[family].format(layer) + DOWN.get(family, ".mlp.down_proj") + ".in"]
        assert medians.get_segments()[layer][0][1] == pytest.approx(np.median(wanted), abs=1e-5)
        assert any(end == pytest.approx(np.ptp(wanted), rel=1e-4) for end in ends)


def test_padding_is_in_no_violin():
    one, both = (PLOTS["neuron_activations"](opened("gpt2"), prompts, layers=[1]) for prompts in (RAGGED[:1], RAGGED))
    count = [int(figure.axes[0].get_title(loc="left").split()[2].replace(",", "")) for figure in (one, both)]
    neurons = opened("gpt2").facts.d_mlp
    assert count == [len(IDS) * neurons, sum(map(len, RAGGED)) * neurons]


@pytest.mark.parametrize("family", FAMILIES)
def test_trajectories_are_those_of_the_neurons_furthest_from_zero(family):
    figure = PLOTS["neuron_trajectories"](opened(family), IDS, k=3)
    path = WRITES[family] + DOWN.get(family, ".mlp.down_proj") + ".in"
    values = {(layer, n): column for layer in range(2) for n, column in enumerate(hidden(family)[path.format(layer)].T)}
    best = sorted(values, key=lambda cell: -np.abs(values[cell]).max())[:3]
    lines = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_label() for line in lines] == [f"L{layer}N{n}" for layer, n in best]
    for line, cell in zip(lines, best, strict=True):
        assert np.allclose(line.get_ydata(), values[cell], atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_norms_divide_by_what_their_input_says(family):
    figure = PLOTS["layer_norms"](opened(family), IDS)
    line = next(one for one in figure.axes[0].lines if one.get_label() == "ln1")
    for layer in range(2):
        x = hidden(family)[WRITES[family].format(layer) + (".ln_1.in" if family == "gpt2" else ".input_layernorm.in")]
        centred = x - x.mean(-1, keepdims=True) if family == "gpt2" else x
        eps = 1e-6 if family != "gpt2" else 1e-5
        assert line.get_ydata()[layer] == pytest.approx(np.median(np.sqrt((centred**2).mean(-1) + eps)), rel=1e-3)
    assert names(figure.axes[0].xaxis) == ["0", "1", "final"]


@pytest.mark.parametrize(("name", "prompt", "options", "error", "says"), [
    ("attention", IDS, {"layer": 1, "heads": ["L0H0"]}, ViewError, "one of them"),
    ("attention", IDS, {"layer": 7}, LayerError, "no layer 7"),
    ("qk_dot_products", IDS, {"layer": True}, LayerError, "no layer"),
    ("qk_dot_products", IDS, {"heads": [4]}, ViewError, "0 to 3"),
    ("qk_dot_products", IDS, {"heads": []}, ViewError, "1 to 16"), ("qk_dot_products", RAGGED, {}, ViewError, "one prompt"),
    ("neuron_trajectories", RAGGED, {}, ViewError, "one prompt"), ("neuron_trajectories", IDS, {"k": 0}, ViewError, "k=0"),
    ("neuron_activations", IDS, {"site": "mlp_pots"}, SiteError, "mlp_post"),
    ("neuron_activations", IDS, {"layers": []}, ViewError, "no layer"),
    ("neuron_activations", IDS, {"layers": [2]}, LayerError, "no layer 2"),
])
def test_what_cannot_be_drawn_is_an_error(name, prompt, options, error, says):
    with pytest.raises(error, match=says):
        PLOTS[name](opened("gpt2"), prompt, **options)


def test_numbers_that_are_not_finite_are_an_error():
    hf = build("gpt2", seed=5)
    with torch.no_grad():
        hf.transformer.h[1].mlp.c_fc.bias[3] = float("nan")
    with hl.load(hf, verify=False) as model, pytest.raises(ViewError, match="not finite"):
        PLOTS["neuron_activations"](model, IDS)


def test_one_token_is_enough_for_every_plot():
    for name in PLOTS:
        if name != "induction_heads":
            assert PLOTS[name](opened("gpt2"), [7]).axes
