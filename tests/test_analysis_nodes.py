"""Nodes of a pass: their formulas by einsum over the hand-written transformer, sums that must come out, exact effects."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from oracle import CLEAN, DIRTY, RIGHT, WRONG, draws
from reference import Run, reference
from test_attribution import passed, products
from test_edges import passed as split_passed
from tiny_models import build
from torch import Tensor

import hooklab as hl
from hooklab.analysis.attribute import AttributionError, attribute
from hooklab.analysis.directions import token_direction
from hooklab.analysis.node_effects import downstream, total_effects
from hooklab.analysis.node_scores import nodes
from hooklab.analysis.node_table import Kind, Nodes, average
from hooklab.analysis.node_tokens import node_write, token_inputs
from hooklab.errors import RecordError, SiteError
from hooklab.problems import SpecError
from hooklab.sae import SAE, Dictionary, TopK

FAMILIES = ("gpt2", "llama", "gpt_neox", "gemma2", "phi3")
ANSWERED: dict[str, Any] = dict(answer=RIGHT, wrong=WRONG)
EVERYTHING = ("tokens", "heads", "neurons", "mlps", "attention", "pairs", "stream")
LONG = len(CLEAN)


@cache
def opened(family: str) -> Any:
    return hl.load(build(family), verify=False)


def diff(values: dict[str, Tensor]) -> Tensor:
    return values["logits"][:, -1, RIGHT] - values["logits"][:, -1, WRONG]


def value_of(table: Nodes, by: str, kind: str, layer: int, *shape: int) -> np.ndarray:
    """A column of one kind and layer, shaped [unit pos …]."""
    return table.filter(kind=kind, layer=layer)[by].reshape(shape)


# Formulas --------------------------------------------------------------------------------------------------------------


class Writes(Run):
    """The hand-written pass, with what is behind each write kept: W_O and W_out as rows, and the norms behind them."""

    def __init__(self, hf: Any) -> None:
        super().__init__(hf, {})
        x = self.embed(torch.tensor([CLEAN]))
        self.out: list[Tensor] = []
        self.down: list[Tensor] = []
        self.after: list[tuple[Tensor, Tensor]] = []
        for layer, block in enumerate(self.get(self.arch.blocks)):
            x = self.block(block, x, layer)
            self._keep(block, layer)
        self.unembed(x)

    def _keep(self, block: Any, layer: int) -> None:
        out = self.get(self.arch.attn, block).get_submodule(self.arch.out)
        weight = out.weight if type(out).__name__ == "Conv1D" else out.weight.T
        self.out.append(weight.reshape(self.heads, self.d_head, -1))
        down = self.get(self.arch.mlp[2], block)
        rows = torch.eye(self.values[f"L{layer}.mlp_post"].shape[-1])
        self.down.append(self.linear(down, rows) - self.linear(down, torch.zeros_like(rows)))
        whole = (self.values[f"L{layer}.result"].sum(2) + (0 if out.bias is None else out.bias),
                 self.linear(down, self.values[f"L{layer}.mlp_post"]))
        self.after.append(tuple(self.factor(path, block, x) for path, x in zip(
            (self.arch.post_attn, self.arch.post_mlp), whole, strict=True)))

    def factor(self, path: str | None, block: Any, x: Tensor) -> Tensor:
        """What an RMS norm behind a write multiplies it by, [pos d_model]."""
        if path is None:
            return torch.ones(LONG, x.shape[-1])
        module = self.get(path, block)
        return ((1 + module.weight) / (x.square().mean(-1, keepdim=True) + module.eps).sqrt())[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_write_norms_direct_effects_and_activation_times_gradient_are_their_formulas(family):
    model = opened(family)
    table, run = nodes(model, CLEAN, kinds=EVERYTHING, **ANSWERED), Writes(model.hf)
    goal = goal_of(model.hf, "L1.resid_post")
    v = run.values
    assert table.value == pytest.approx(float(diff(v).detach()), abs=1e-5)
    for layer in range(2):
        result = v[f"L{layer}.result"][0] * run.after[layer][0][:, None]  # [pos head d_model]
        check(table, "heads", layer, result.norm(dim=-1).T, torch.einsum("phm,pm->hp", result, goal),
              product(model.hf, f"L{layer}.result").sum(-1).T)
        post = v[f"L{layer}.mlp_post"][0]
        writes = torch.einsum("pn,nm,pm->pnm", post, run.down[layer], run.after[layer][1])
        check(table, "neurons", layer, writes.norm(dim=-1).T, torch.einsum("pnm,pm->np", writes, goal),
              product(model.hf, f"L{layer}.mlp_post").T, post.T)
        for kind, site in (("mlps", "mlp_out"), ("attention", "attn_out")):
            write = v[f"L{layer}.{site}"][0]
            check(table, kind, layer, write.norm(dim=-1), (write * goal).sum(-1),
                  product(model.hf, f"L{layer}.{site}").sum(-1))
        pattern, values = v[f"L{layer}.pattern"][0], v[f"L{layer}.v"][0]
        values = values.repeat_interleave(4 // values.shape[1], 1)
        each = torch.einsum("hqk,khd,hdm,qm->hqkm", pattern, values, run.out[layer], run.after[layer][0])
        low = torch.ones(LONG, LONG).tril().bool().expand(4, -1, -1)
        check(table, "pairs", layer, each.norm(dim=-1)[low], torch.einsum("hqkm,qm->hqk", each, goal)[low],
              product(model.hf, f"L{layer}.pattern")[low], pattern[low])


def check(table: Nodes, kind: str, layer: int, norm: Tensor, direct: Tensor, gradient: Tensor,
          activation: Tensor | None = None) -> None:
    """Compare the columns of one kind and layer."""
    part = table.filter(kind=kind, layer=layer)
    for by, expected in (("write_norm", norm), ("direct_effect", direct), ("act_grad", gradient)):
        assert float(expected.detach().abs().max()) > 1e-3
        np.testing.assert_allclose(part[by], expected.detach().flatten().numpy(), atol=1e-4, rtol=5e-4)
    if activation is None:
        assert np.isnan(part["activation"]).all()
    else:
        np.testing.assert_allclose(part["activation"], activation.detach().flatten().numpy(), atol=1e-5, rtol=1e-4)


def goal_of(hf: Any, site: str, target: Any = diff, hold: tuple[str, ...] = ("norms",)) -> Tensor:
    """The gradient at a site, [pos d_model]."""
    values = passed(hf, CLEAN, (site,), hold)
    return torch.autograd.grad(target(values).sum(), values[site])[0][0]


def product(hf: Any, site: str, target: Any = diff, hold: tuple[str, ...] = ("norms",)) -> Tensor:
    """Value times gradient of a site, without the batch."""
    return products(hf, (site,), hold, target)[0][0]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_token_attribution_is_embedding_times_gradient_summed_over_dimensions(family):
    model = opened(family)
    found = nodes(model, CLEAN, kinds="tokens", hold=(), **ANSWERED)
    expected = product(model.hf, "embed", hold=()).sum(-1)
    np.testing.assert_allclose(found["act_grad"][:LONG], expected.numpy(), atol=1e-5)
    assert found.ids[:2] == ("embed @0", "embed @1")


def test_the_stream_s_direct_effect_is_its_projection_on_the_gradient():
    model = opened("llama")
    table, v = nodes(model, CLEAN, kinds="stream", **ANSWERED), reference(model.hf, torch.tensor([CLEAN]))
    goal = goal_of(model.hf, "L1.resid_post")
    for site in ("L0.resid_pre", "L0.resid_mid", "L1.resid_pre", "L1.resid_post"):
        part = table.filter(np.array([name.startswith(site) for name in table.ids]))
        np.testing.assert_allclose(part["direct_effect"], (v[site][0] * goal).sum(-1).detach().numpy(), atol=1e-4)
        np.testing.assert_allclose(part["act_grad"], product(model.hf, site).sum(-1).detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("metric", ["logprob", "logit_centred", f"(logit({RIGHT}) + logit(3)) / 2 - logit({WRONG})",
                                    f"prob({RIGHT}) + prob(3)"])
def test_losses_with_several_targets_are_attributed_as_autograd_has_it(metric):
    model = opened("gpt2")
    formulas = {"logprob": lambda x: x.log_softmax(-1)[:, RIGHT], "logit_centred": lambda x: x[:, RIGHT] - x.mean(-1)}
    last = formulas.get(metric) or ((lambda x: x[:, [RIGHT, 3]].mean(-1) - x[:, WRONG]) if "/ 2" in metric
                                    else (lambda x: x.softmax(-1)[:, [RIGHT, 3]].sum(-1)))
    found = nodes(model, CLEAN, metric, kinds="heads", by="act_grad", answer=RIGHT)
    expected = product(model.hf, "L0.result", lambda v: last(v["logits"][:, -1])).sum(-1).T
    np.testing.assert_allclose(value_of(found, "act_grad", "heads", 0, 4, LONG), expected.detach().numpy(), atol=2e-5)
    assert found.value == pytest.approx(float(last(reference(model.hf, torch.tensor([CLEAN]))["logits"][:, -1])), abs=1e-5)


# Sums ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*FAMILIES, "falcon_sequential", "olmo2", "opt"])
def test_direct_effects_of_tokens_heads_neurons_and_biases_are_the_metric(family):
    model = opened(family)
    table = nodes(model, CLEAN, kinds=("tokens", "heads", "neurons", "biases"), by="direct_effect", **ANSWERED)
    assert table.value == pytest.approx(float(diff(reference(model.hf, torch.tensor([CLEAN]))).detach()), abs=1e-5)
    assert table.sum() == pytest.approx(table.value, abs=1e-4)
    for kinds in (("tokens", "attention", "mlps", "biases"), ("tokens", "pairs", "mlps", "biases")):
        whole = nodes(model, CLEAN, kinds=kinds, by="direct_effect", **ANSWERED)
        assert whole.sum() == pytest.approx(table.value, abs=1e-4)
    pairs = nodes(model, CLEAN, kinds="pairs", by="direct_effect", **ANSWERED)
    np.testing.assert_allclose(pairs.over("key")["direct_effect"], table.filter(kind="heads")["direct_effect"], atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_the_rest_is_what_the_last_biases_say(family):
    model = opened(family)
    values = reference(model.hf, torch.tensor([CLEAN]))
    nothing = {"ln_final_scale": lambda x: values["ln_final_scale"], "L1.resid_post": torch.zeros_like}
    expected = float(diff(reference(model.hf, torch.tensor([CLEAN]), edits=nothing)).detach())
    table = nodes(model, CLEAN, kinds="biases", by="direct_effect", **ANSWERED)
    assert table.ids[-1] == "rest"
    assert table["direct_effect"][-1] == pytest.approx(expected, abs=1e-5)


def test_direct_effects_are_those_of_direct_logit_attribution():
    model = opened("llama")
    by_layer = attribute(model, CLEAN, "L*H*", method="dla", positions="each", **ANSWERED).values
    found = nodes(model, CLEAN, kinds="heads", by="direct_effect", **ANSWERED)["direct_effect"].reshape(2, 4, LONG)
    np.testing.assert_allclose(found, by_layer, atol=1e-5)


# Exact effects -----------------------------------------------------------------------------------------------------------


def edit_of(kind: str, unit: int, pos: int, key: int, factor: float) -> Any:
    """A node multiplied, everything else as it is."""
    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        index = {"heads": (0, pos, unit), "neurons": (0, pos, unit), "pairs": (0, unit, pos, key)}.get(kind, (0, pos))
        x[index] = x[index] * factor
        return x

    return edit


SITE = {"heads": "result", "neurons": "mlp_post", "pairs": "pattern", "mlps": "mlp_out", "attention": "attn_out"}


def changed(hf: Any, row: list[int], kind: str, factor: float, fixed: dict[str, Any] | None = None) -> Tensor:
    """The metric with a node multiplied."""
    _, layer, unit, pos, key = row
    site = "embed" if kind == "tokens" else f"L{layer}.{SITE[kind]}"
    held = {name: value for name, value in (fixed or {}).items() if name != site}
    return diff(reference(hf, torch.tensor([CLEAN]), edits={**held, site: edit_of(kind, unit, pos, key, factor)})).detach()


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_activation_times_gradient_is_the_slope_of_scaling_a_node(family):
    hf = build(family, dtype=torch.float64)
    table = nodes(hl.load(hf, verify=False), CLEAN, kinds=("heads", "neurons", "pairs", "mlps", "attention"), by="act_grad",
                  hold=(), **ANSWERED)
    with torch.no_grad():
        for kind in ("heads", "neurons", "pairs", "mlps", "attention"):
            part = table.filter(kind=kind)
            for i in np.linspace(0, len(part) - 1, 6).astype(int):
                row = part.index[i].tolist()
                up, down = (float(changed(hf, row, kind, 1 + sign * 1e-5)) for sign in (1, -1))
                assert part["act_grad"][i] == pytest.approx((up - down) / 2e-5, abs=1e-7, rel=1e-5)


@pytest.mark.parametrize(("silent", "exact"), [((0, 1), ("heads", "pairs", "tokens")), ((1,), ("neurons",))])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_where_the_model_is_linear_activation_times_gradient_is_the_exact_effect_of_ablation(family, silent, exact):
    """MLPs that write nothing, norms and patterns held: what is left after the nodes is linear."""
    hf = build(family)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if any(f".{layer}.mlp.{part}" in name for layer in silent for part in ("c_proj", "down_proj")):
                parameter.zero_()
    table = nodes(hl.load(hf, verify=False), CLEAN, kinds=exact, by="act_grad", hold="all", **ANSWERED)
    values = reference(hf, torch.tensor([CLEAN]))
    fixed = {name: (lambda x, value=value: value) for name, value in values.items() if name.endswith(("_scale", "pattern"))}
    for kind in exact:
        part = table.filter(kind=kind, layer=[-1, 0]).nlargest(4, absolute=True)
        for row, found in zip(part.index.tolist(), part["act_grad"], strict=True):
            if "pos_embed" not in table.kinds[row[0]].form:
                alone = float(diff(values) - changed(hf, row, kind, 0.0, fixed))
                assert abs(alone) > 1e-3
                assert alone == pytest.approx(found, abs=2e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_total_effects_are_the_metric_less_that_without_the_node(family):
    model = opened(family)
    table = nodes(model, CLEAN, kinds=EVERYTHING[:-1], **ANSWERED)
    for kind in ("tokens", "heads", "neurons", "pairs", "mlps"):
        part = total_effects(model, CLEAN, table.filter(kind=kind, layer=[0, -1]).nlargest(3, absolute=True), **ANSWERED)
        for row, name, found in zip(part.index.tolist(), part.ids, part["total_effect"], strict=True):
            if not name.startswith("pos_embed"):
                expected = float(diff(reference(model.hf, torch.tensor([CLEAN]))) - changed(model.hf, row, kind, 0.0))
                assert found == pytest.approx(expected, abs=2e-5)


# Traces ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "read", "stream"), [
    ("L1H2.pattern[4,2]", lambda v: v["L1.pattern"][:, 2, 4, 2], "resid_pre"),
    ("L1H2.scores[4,2]", lambda v: v["L1.scores"][:, 2, 4, 2], "resid_pre"),
    ("L1N17 @3", lambda v: v["L1.mlp_post"][:, 3, 17], "resid_mid"),
    ("L1N17.mlp_pre @3", lambda v: v["L1.mlp_pre"][:, 3, 17], "resid_mid"),
    ("L1.resid_pre[5] @2", lambda v: v["L1.resid_pre"][:, 2, 5], "resid_pre")])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_trace_from_a_node_has_the_gradients_of_that_node(family, target, read, stream):
    model = opened(family)
    table = nodes(model, CLEAN, kinds=("tokens", "heads", "neurons", "attention"), target=target, hold=())
    v = reference(model.hf, torch.tensor([CLEAN]))
    assert table.value == pytest.approx(float(read(v)), abs=1e-5)
    np.testing.assert_allclose(value_of(table, "act_grad", "heads", 0, 4, LONG),
                               product(model.hf, "L0.result", read, ()).sum(-1).T.detach().numpy(), atol=2e-5)
    np.testing.assert_allclose(table.filter(kind="neurons", layer=0)["act_grad"],
                               product(model.hf, "L0.mlp_post", read, ()).T.flatten().detach().numpy(), atol=2e-5)
    goal = goal_of(model.hf, f"L1.{stream}", read, ())
    direct = torch.einsum("phm,pm->hp", v["L0.result"][0], goal).detach()
    assert float(direct.abs().max()) > 1e-4
    np.testing.assert_allclose(value_of(table, "direct_effect", "heads", 0, 4, LONG), direct.numpy(), atol=2e-5)
    assert set(table.filter(kind="attention", layer=1)._under("layer")) == ({1} if stream == "resid_mid" else set())


@pytest.mark.parametrize("inlet", ["q", "k"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_a_trace_of_attention_through_its_query_or_key_holds_the_other(family, inlet):
    model, hf = opened(family), opened(family).hf
    head = 2 if inlet == "q" else 2 // (4 // model.facts.n_kv_heads)
    table = nodes(model, CLEAN, kinds="neurons", by="act_grad", target="L1H2.scores[4,2]", through=f"L1H{head}.{inlet} @all",
                  hold=())
    leaf = passed(hf, CLEAN, (f"L1.{inlet}",))
    way = torch.autograd.grad(leaf["L1.scores"][0, 2, 4, 2], leaf[f"L1.{inlet}"])[0]
    assert not way[:, [0, 1, 3, 5]].any()
    expected = product(hf, "L0.mlp_post", lambda v: (v[f"L1.{inlet}"] * way).sum()[None], ()).T
    assert float(expected.detach().abs().max()) > 1e-4
    np.testing.assert_allclose(table["act_grad"], expected.flatten().detach().numpy(), atol=2e-5)


@pytest.mark.parametrize("inlet", ["L1H2.q", "L1H1.k", "L1H0.v"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_direct_effects_through_an_inlet_are_the_attributions_of_the_edges_into_it(family, inlet):
    model, hf = opened(family), opened(family).hf
    table = nodes(model, CLEAN, kinds=("tokens", "heads", "mlps"), through=f"{inlet} @all", hold=(), **ANSWERED)
    extra = torch.zeros(1, LONG, 32, requires_grad=True)
    grad = torch.autograd.grad(split_passed(hf, CLEAN, {inlet: extra}), extra)[0][0]
    v = reference(hf, torch.tensor([CLEAN]))
    np.testing.assert_allclose(value_of(table, "direct_effect", "heads", 0, 4, LONG),
                               torch.einsum("phm,pm->hp", v["L0.result"][0], grad).detach().numpy(), atol=2e-5)
    np.testing.assert_allclose(table.filter(kind="mlps", layer=0)["direct_effect"],
                               (v["L0.mlp_out"][0] * grad).sum(-1).detach().numpy(), atol=2e-5)


@pytest.mark.parametrize(("node", "site", "row"), [
    ("L0H1 @2", "L0.result", ("heads", 1, 2, -1)), ("L0N17 @3", "L0.mlp_post", ("neurons", 17, 3, -1)),
    ("embed @1", "embed", ("tokens", -1, 1, -1)), ("L0H1.pattern[4,2]", "L0.pattern", ("pairs", 1, 4, 2))])
def test_what_later_nodes_get_from_a_node_is_their_slope_by_its_size(node, site, row):
    hf = build("gpt_neox_sequential", dtype=torch.float64)
    later = downstream(hl.load(hf, verify=False), CLEAN, node, kinds=("heads", "neurons", "pairs", "mlps"))
    with torch.no_grad():
        up, down = (reference(hf, torch.tensor([CLEAN]), edits={site: edit_of(*row, 1 + sign * 1e-5)}) for sign in (1, -1))
    slope = {name: (up[name] - down[name])[0] / 2e-5 for name in up}
    for kind, name, order in (("neurons", "L1.mlp_post", (1, 0)), ("pairs", "L1.pattern", (0, 1, 2))):
        expected = slope[name].permute(order)
        expected = expected[torch.ones(LONG, LONG).tril().bool().expand(4, -1, -1)] if kind == "pairs" else expected
        assert float(expected.abs().max()) > 1e-5
        np.testing.assert_allclose(later.filter(kind=kind, layer=1)["change"], expected.flatten().numpy(), atol=1e-8)
    np.testing.assert_allclose(later.filter(kind="heads", layer=1)["write_change"],
                               slope["L1.result"].norm(dim=-1).T.flatten().numpy(), atol=1e-7)
    np.testing.assert_allclose(later.filter(kind="mlps", layer=1)["write_change"],
                               slope["L1.mlp_out"].norm(dim=-1).numpy(), atol=1e-7)
    assert (len(later.filter(kind="neurons", layer=0)) == 0) == ("N" in node)


def test_with_norms_held_an_edge_has_the_divisor_of_the_pass():
    model, hf = opened("gpt2"), opened("gpt2").hf
    extra, v = torch.zeros(1, LONG, 32, requires_grad=True), reference(hf, torch.tensor([CLEAN]))
    grad = torch.autograd.grad(split_passed(hf, CLEAN, {"L1H0.v": extra}, v), extra)[0][0]
    for hold, same in (("all", True), ((), False)):
        table = nodes(model, CLEAN, kinds="heads", by="direct_effect", through="L1H0.v @all", hold=hold, **ANSWERED)
        found = value_of(table, "direct_effect", "heads", 0, 4, LONG)
        expected = torch.einsum("phm,pm->hp", v["L0.result"][0], grad).detach().numpy()
        assert np.allclose(found, expected, atol=2e-5) == same


# Features ----------------------------------------------------------------------------------------------------------------

PLAIN = Dictionary(draws(32, 40, seed=31), draws(40, seed=32), draws(40, 32, seed=33), draws(32, seed=34))
NORMED = SAE(draws(32, 40, seed=31), draws(40, seed=32), draws(40, 32, seed=33), draws(32, seed=34), TopK(5), norm="layer",
             scale=0.5)


@pytest.mark.parametrize("sae", [PLAIN, NORMED], ids=["plain", "top k of normed inputs"])
def test_active_features_have_their_activation_their_write_and_what_it_does(sae):
    model, hf = opened("llama"), opened("llama").hf
    table = nodes(model, CLEAN, kinds="latents", saes={"enc": (sae, "L0.resid_post")}, **ANSWERED)
    x = reference(hf, torch.tensor([CLEAN]))["L0.resid_post"][0].detach()
    z = sae.encode(x)
    assert len(table) == int((z != 0).sum())
    goal, grad = goal_of(hf, "L1.resid_post"), goal_of(hf, "L0.resid_post")
    for row, name, found in zip(table.index.tolist(), table.ids, range(len(table)), strict=True):
        _, layer, feature, pos, _ = row
        assert (layer, name) == (0, f"enc.F{feature} @{pos}")
        write = x[pos] - sae.changed(x[pos:pos + 1], z[pos:pos + 1], z[pos:pos + 1].index_fill(
            -1, torch.tensor([feature]), 0.0))[0]
        assert table["activation"][found] == pytest.approx(float(z[pos, feature]), abs=1e-5)
        assert table["write_norm"][found] == pytest.approx(float(write.norm()), rel=5e-4)
        assert table["direct_effect"][found] == pytest.approx(float(write @ goal[pos]), abs=5e-4)
        assert table["act_grad"][found] == pytest.approx(float(write @ grad[pos]), abs=5e-4)


def test_ablating_a_feature_is_its_exact_effect():
    model, hf, saes = opened("llama"), opened("llama").hf, {"enc": (PLAIN, "L0.resid_post")}
    best = nodes(model, CLEAN, kinds="latents", saes=saes, **ANSWERED).nlargest(2)
    found = total_effects(model, CLEAN, best, saes=saes, **ANSWERED)
    for row, effect in zip(best.index.tolist(), found["total_effect"], strict=True):
        _, _, feature, pos, _ = row

        def without(x: Tensor, feature: int = feature, pos: int = pos) -> Tensor:
            x = x.clone()
            x[0, pos] -= PLAIN.encode(x[0, pos])[feature] * PLAIN.w_dec[feature]
            return x

        less = reference(hf, torch.tensor([CLEAN]), edits={"L0.resid_post": without})
        assert effect == pytest.approx(float((diff(reference(hf, torch.tensor([CLEAN]))) - diff(less)).detach()), abs=5e-5)


def test_a_feature_is_attributed_to_pairs_of_tokens_by_attention_times_its_gradient():
    model, hf = opened("gpt2"), opened("gpt2").hf
    table = nodes(model, CLEAN, kinds="pairs", by="act_grad", target=("L0.resid_post @3", PLAIN, 7), hold=())
    expected = product(hf, "L0.pattern", lambda v: PLAIN.encode(v["L0.resid_post"])[:, 3, 7], ())
    low = torch.ones(LONG, LONG).tril().bool().expand(4, -1, -1)
    assert float(expected.abs().max()) > 1e-4
    np.testing.assert_allclose(table["act_grad"], expected[low].detach().numpy(), atol=1e-5)


# The table ---------------------------------------------------------------------------------------------------------------


def test_the_largest_the_sum_and_the_filter_are_those_of_brute_force():
    table = nodes(opened("llama"), CLEAN, kinds=("tokens", "heads", "neurons"), **ANSWERED)
    rows = list(zip(table.ids, table["direct_effect"].tolist(), strict=True))
    assert table.nlargest(7).ids == tuple(name for name, _ in sorted(rows, key=lambda row: -row[1])[:7])
    assert table.nsmallest(7).ids == tuple(name for name, _ in sorted(rows, key=lambda row: row[1])[:7])
    assert table.nlargest(9, absolute=True).ids == tuple(name for name, _ in sorted(rows, key=lambda row: -abs(row[1]))[:9])
    assert table.sum() == pytest.approx(sum(number for _, number in rows))
    assert table.sum(absolute=True) == pytest.approx(sum(abs(number) for _, number in rows))
    chosen = table.filter(kind="heads", layer=1, pos=[2, 3])
    assert list(chosen.ids) == [f"L1H{head} @{pos}" for head in range(4) for pos in (2, 3)]
    last = table.filter(table["activation"] > 0.5)
    assert set(last._under("kind")) == {"neurons"} and last["activation"].min() > 0.5
    by_token = table.filter(kind="heads").over("pos")
    assert by_token.ids[:2] == ("L0H0", "L0H1")
    assert by_token["act_grad"][0] == pytest.approx(sum(table.filter(kind="heads", layer=0, unit=0)["act_grad"]))


def test_two_prompts_are_compared_node_by_node():
    model = opened("gpt2")
    clean, dirty = (nodes(model, ids, kinds=("tokens", "heads", "neurons"), **ANSWERED) for ids in (CLEAN, DIRTY))
    less = clean - dirty
    assert less.ids == clean.ids and less.value == pytest.approx(clean.value - dirty.value)
    np.testing.assert_array_equal(less["act_grad"], clean["act_grad"] - dirty["act_grad"])
    np.testing.assert_array_equal((clean + dirty)["act_grad"], clean["act_grad"] + dirty["act_grad"])
    np.testing.assert_allclose(average([clean, dirty, clean])["act_grad"], (2 * clean["act_grad"] + dirty["act_grad"]) / 3)
    assert less.pieces[1] == f"{clean.pieces[1]} | {dirty.pieces[1]}" and less.pieces[0] == clean.pieces[0]
    with pytest.raises(RecordError, match="in one of these tables only"):
        clean - dirty.nlargest(3)
    short = nodes(model, CLEAN[:4], kinds="heads", **ANSWERED)
    both = (clean.filter(kind="heads").over("pos") - short.over("pos"))["act_grad"]
    np.testing.assert_allclose(both, clean.filter(kind="heads")["act_grad"].reshape(8, LONG).sum(1)
                               - short["act_grad"].reshape(8, 4).sum(1))


def test_a_feature_that_is_active_on_one_prompt_only_is_zero_on_the_other():
    model, saes = opened("llama"), {"enc": (PLAIN, "L0.resid_post")}
    clean, dirty = (nodes(model, ids, kinds="latents", saes=saes, **ANSWERED) for ids in (CLEAN, DIRTY))
    less = dict(zip((clean - dirty).ids, (clean - dirty)["activation"], strict=True))
    one, two = (dict(zip(table.ids, table["activation"], strict=True)) for table in (clean, dirty))
    assert set(one) != set(two)
    assert less == {name: one.get(name, 0.0) - two.get(name, 0.0) for name in {**one, **two}}


def test_addresses_of_nodes_are_those_of_the_language():
    model = opened("gpt2")
    table = nodes(model, CLEAN, kinds=EVERYTHING, **ANSWERED)
    for kind in ("tokens", "heads", "neurons", "mlps", "attention"):
        name = table.filter(kind=kind).ids[3]
        target = attribute(model, CLEAN, name.partition("@")[0], positions=name.partition("@")[2], **ANSWERED)
        plain = nodes(model, CLEAN, kinds=kind, by="act_grad", hold=(), **ANSWERED)
        assert float(target) == pytest.approx(dict(zip(plain.ids, plain["act_grad"], strict=True))[name], abs=1e-5)
    pair = table.filter(kind="pairs", layer=1, unit=2, pos=4, key=2).ids
    assert pair == ("L1H2.pattern[4,2]",)
    assert nodes(model, CLEAN, kinds="tokens", target=pair[0]).metric == pair[0]


def test_a_table_is_shown_as_a_view_as_pandas_and_as_html_that_shows_and_never_interprets():
    pandas = pytest.importorskip("pandas")
    table = nodes(opened("gpt2"), CLEAN, kinds=("heads", "neurons"), **ANSWERED)
    frame = table.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == len(table)
    best = frame.nlargest(5, "direct_effect")
    assert tuple(best["node"]) == table.nlargest(5).ids
    assert list(best["token"]) == [table.pieces[pos] for pos in best["pos"]]
    view = table.show(most=5)
    assert all(name in view.static() for name in table.nlargest(5, absolute=True).ids)
    assert set(view.names) == set(table.nlargest(5, absolute=True).ids)
    odd = Nodes((Kind("heads", "L{layer}H{unit}"),), np.array([[0, 0, 1, 0, -1]]), {"act_grad": np.array([1.0])},
                ("<script>",), "m", 1.0)
    assert "<script>" not in odd._repr_html_() and "L0H1 @0" in odd._repr_html_()
    assert repr(odd) == "Nodes(1 heads; act_grad)"
    assert "No nodes" in odd.filter(layer=5)._repr_html_()


# Tokens ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_the_write_of_a_node_and_the_tokens_that_it_speaks_for(family):
    model = opened(family)
    run = Writes(model.hf)
    v, group = run.values, 4 // model.facts.n_kv_heads
    expected = {"L1H2 @3": v["L1.result"][0, 3, 2], "L0N5 @2": v["L0.mlp_post"][0, 2, 5] * run.down[0][5],
                "L1.mlp_out @4": v["L1.mlp_out"][0, 4], "embed @1": v["embed"][0, 1], "L1H3.z": None,
                "L1H3.pattern[4,1]": v["L1.pattern"][0, 3, 4, 1] * v["L1.v"][0, 1, 3 // group] @ run.out[1][3]}
    for name, write in expected.items():
        if write is None:
            with pytest.raises(SiteError, match="no single node"):
                node_write(model, CLEAN, name)
            continue
        np.testing.assert_allclose(node_write(model, CLEAN, name).detach().numpy(), write.detach().numpy(), atol=1e-5)
    final, write = run.get(run.arch.final), expected["L1H2 @3"]
    write = write if family == "llama" else write - write.mean()  # which a layer norm takes away
    logits = model.hf.get_output_embeddings().weight @ (final.weight * write)
    found = token_direction(model, node_write(model, CLEAN, "L1H2 @3"), 3)
    np.testing.assert_allclose(found.values, logits.topk(3).values.detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("family", ["gemma2", "olmo2"])
def test_what_a_node_writes_has_come_through_the_norm_behind_attention_and_mlp(family):
    model, at = opened(family), 3
    block, kept = model.hf.model.layers[1], {}
    norms = {"attn": block.post_attention_layernorm, "mlp": block.post_feedforward_layernorm}
    heard = [norm.register_forward_hook(lambda m, args, out, name=name: kept.update({name: (args[0][0], out[0])}))
             for name, norm in norms.items()]
    with torch.no_grad():
        values = reference(model.hf, torch.tensor([model.tokens(CLEAN).ids[0]]))
        model.hf(torch.tensor([model.tokens(CLEAN).ids[0]]))
    for hook in heard:
        hook.remove()
    carried = {name: after[at] / before[at] for name, (before, after) in kept.items()}  # these norms take no mean away
    down = block.mlp.down_proj.weight.detach()
    o_proj = block.self_attn.o_proj.weight.detach().T.unflatten(0, (4, -1))
    head = values["L1.z"][0, at, 2] @ o_proj[2] * carried["attn"]
    pair = values["L1.pattern"][0, 2, at, 1] * values["L1.v"][0, 1, 2 // (4 // model.facts.n_kv_heads)] @ o_proj[2]
    neuron = values["L1.mlp_post"][0, at, 5] * down[:, 5] * carried["mlp"]
    for name, write in {f"L1H2 @{at}": head, f"L1N5 @{at}": neuron, f"L1H2.pattern[{at},1]": pair * carried["attn"]}.items():
        np.testing.assert_allclose(node_write(model, CLEAN, name).detach().numpy(), write.numpy(), atol=1e-5, rtol=1e-4)
    heads = sum(node_write(model, CLEAN, f"L1H{n} @{at}") for n in range(4))
    np.testing.assert_allclose(heads.detach().numpy(), values["L1.attn_out"][0, at].numpy(), atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_the_tokens_that_drive_a_neuron_are_those_of_every_embedding_through_norm_and_mlp(family):
    model = opened(family)
    run = Run(model.hf, {})
    block = run.get(run.arch.blocks)[1]
    run.embed(torch.arange(100)[:, None])
    embeddings = run.values["embed"][:, 0]
    normed = run.norm(run.get(run.arch.ln2, block), embeddings, run.arch.norm)
    drive = run.linear(run.get(run.arch.mlp[0], block), normed)[:, 7].detach()
    found = token_inputs(model, "L1N7", 4)
    np.testing.assert_allclose(found.values, drive.topk(4).values.numpy(), atol=1e-4)
    lowest = token_inputs(model, "L1N7", 4, lowest=True)
    np.testing.assert_allclose(lowest.values, (-drive).topk(4).values.neg().numpy(), atol=1e-4)


# What cannot be ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "error", "word"), [
    (dict(kinds="head"), AttributionError, "heads"), (dict(by="grad"), AttributionError, "act_grad"),
    (dict(kinds=()), AttributionError, "at least one"), (dict(kinds="latents"), AttributionError, "saes="),
    (dict(prompt=[CLEAN, DIRTY]), AttributionError, "average"), (dict(answer=None, wrong=None), AttributionError, "metric="),
    (dict(answer=None, wrong=None, target="L1N999 @2"), SpecError, "999"),
    (dict(kinds="latents", saes={"enc": (PLAIN, "L*.resid_pre")}), AttributionError, "one site"),
    (dict(family="opt_postnorm"), AttributionError, "norm"), (dict(hold="mlps"), AttributionError, "patterns")],
    ids=lambda value: str(value)[:30])
def test_what_is_not_asked_well_is_refused(given, error, word):
    options = {"prompt": CLEAN, **ANSWERED, **given}
    with pytest.raises(error, match=word):
        nodes(opened(options.pop("family", "gpt2")), options.pop("prompt"), **options)


def test_what_a_table_does_not_have_is_named():
    table = nodes(opened("gpt2"), CLEAN, kinds=("heads", "biases"), **ANSWERED)
    for ask, word in ((lambda: table["direct"], "direct_effect"), (lambda: table.filter(head=1), "unit"),
                      (lambda: table.nlargest(-1), "0 or more"), (lambda: table.over("layer"), "pos or key"),
                      (lambda: table.filter(np.ones(3)), "mask"), (lambda: average([]), "at least one")):
        with pytest.raises(RecordError, match=word):
            ask()
    with pytest.raises(AttributionError, match="biases"):
        total_effects(opened("gpt2"), CLEAN, table.filter(kind="biases"), **ANSWERED)
    with pytest.raises(AttributionError, match="later node"):
        downstream(opened("gpt2"), CLEAN, "L0H1 @2", kinds="tokens")
