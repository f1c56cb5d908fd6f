"""The residual stream taken apart, followed and read: against a transformer written by hand, and plain torch."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tiny_models
import torch
from reference import reference

import hooklab as hl
from hooklab.analysis.applied import apply_head, run_head
from hooklab.analysis.asking import SweepError
from hooklab.analysis.decomposition import block_parts, decompose
from hooklab.analysis.directions import top_tokens
from hooklab.analysis.neuron_basis import mlp_basis
from hooklab.analysis.stream_movement import accumulated, circulation, movement
from hooklab.errors import (
    LayerError,
    PositionError,
    PromptError,
    RecordError,
    SiteError,
    SiteNameError,
    TokenError,
    WriteError,
)
from hooklab.sae import SAE

IDS = [3, 5, 9, 20, 33, 7, 8]
RAGGED = [[3, 5, 9, 20, 33, 7, 8], [4, 60, 5]]
FAMILIES = ["gpt2", "llama", "gpt_neox", "gemma2", "phi3"]


@functools.cache
def opened(name):
    return hl.load(tiny_models.build(name), verify=False)


@functools.cache
def by_hand(name):
    """Every site of a family on IDS, [pos …] in double, from the hand-written transformer."""
    values = reference(opened(name).hf, torch.tensor([IDS]))
    return {site: value[0].double() for site, value in values.items()}


@functools.cache
def lab():
    return hl.load("lab")


def close(found, wanted, tolerance=1e-5):
    wanted = torch.as_tensor(wanted).detach().double()
    assert float((torch.as_tensor(found).double() - wanted).abs().max()) <= tolerance * max(1.0, float(wanted.abs().max()))


# Taking apart -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["layers", "components", "heads", "neurons"])
@pytest.mark.parametrize("name", FAMILIES)
def test_embeddings_heads_mlps_neurons_and_biases_add_up_to_the_stream(name, by):
    found = decompose(opened(name), [IDS], "L1.resid_post", positions="each", by=by)
    close(found.vectors.sum(0), by_hand(name)["L1.resid_post"])
    close(found.total, by_hand(name)["L1.resid_post"])
    assert found.error < 1e-5 and not found.note
    assert not any("rest" in part for part in found.parts)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_part_is_what_the_component_wrote(name):
    model, values = opened(name), by_hand(name)
    components = decompose(model, [IDS], "L1.resid_post", positions="each")
    expected = {part: values[part] for part in components.parts}
    assert set(components.parts) >= {"embed", "L0.attn_out", "L0.mlp_out", "L1.attn_out", "L1.mlp_out"}
    for part, vector in expected.items():
        close(components[part], vector)
    heads = decompose(model, [IDS], "L1.resid_post", positions="each", by="heads")
    per_layer = [part for part in heads.parts if part.startswith("L1H")]
    assert per_layer == [f"L1H{head}" for head in range(model.facts.n_heads)]
    z, out = values["L1.z"], dict(model.hf.named_parameters())
    for head, part in enumerate(per_layer):
        close(heads[part], write_of_head(name, out, z, head))


def write_of_head(name, parameters, z, head):
    """z W_O of a head of layer 1, through the norm behind attention where there is one, by plain torch."""
    path = {"gpt2": "transformer.h.1.attn.c_proj.weight", "gpt_neox": "gpt_neox.layers.1.attention.dense.weight"}.get(
        name, "model.layers.1.self_attn.o_proj.weight")
    weight = parameters[path].detach().double()
    weight = weight if name == "gpt2" else weight.T  # [head·d_head, d_model]
    size = z.shape[-1]
    write = z[:, head] @ weight[head * size:(head + 1) * size]
    if name != "gemma2":
        return write
    whole = z.flatten(1) @ weight
    gain = 1 + parameters["model.layers.1.post_attention_layernorm.weight"].detach().double()
    return write / (whole.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * gain


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "phi3"])
def test_a_neuron_writes_its_activation_times_its_row(name):
    model, values = opened(name), by_hand(name)
    found = decompose(model, [IDS], "L0.resid_post", positions=2, by="neurons")
    path = {"gpt2": "transformer.h.0.mlp.c_proj.weight"}.get(name, "model.layers.0.mlp.down_proj.weight")
    weight = model.hf.get_parameter(path).detach().double()
    rows = weight if name == "gpt2" else weight.T
    writes = values["L0.mlp_post"][2][:, None] * rows
    if name == "gemma2":
        gain = 1 + model.hf.get_parameter("model.layers.0.post_feedforward_layernorm.weight").detach().double()
        writes = writes / (writes.sum(0).pow(2).mean() + 1e-6).sqrt() * gain
    close(torch.stack([found[f"L0N{n}"][0] for n in range(len(rows))]), writes)
    assert ("L0.b_Out" in found.parts) == (name == "gpt2")
    if name == "gpt2":
        close(found["L0.b_Out"][0], model.hf.transformer.h[0].mlp.c_proj.bias.detach())


@pytest.mark.parametrize("at", ["L0.resid_pre", "L1.resid_pre", "L1.resid_mid"])
def test_a_place_in_the_middle_has_only_the_parts_before_it(at):
    found = decompose(opened("gpt2"), [IDS], at, by="heads", positions=[0, 4])
    close(found.vectors.sum(0), by_hand("gpt2")[at][[0, 4]])
    assert [part for part in found.parts if part.startswith("L1")] == (
        [] if at != "L1.resid_mid" else ["L1H0", "L1H1", "L1H2", "L1H3", "L1.b_O"])


def test_norms_that_stand_in_the_stream_have_rows_that_say_so():
    found = decompose(opened("bert"), [IDS], "L1.resid_post", by="heads", positions="each")
    close(found.vectors.sum(0), by_hand("bert")["L1.resid_post"])
    assert [part for part in found.parts if part.endswith("rest")] == ["rest", "L0.rest", "L1.rest"]
    assert "norms in the stream" in found.note
    assert block_parts(opened("bert"), [IDS], 1).parts[-1] == "rest"


def test_experts_are_one_part_and_their_neurons_are_refused():
    found = decompose(opened("mixtral"), [IDS], by="heads")
    close(found.vectors.sum(0)[0], by_hand("mixtral")["L1.resid_post"][-1])
    with pytest.raises(SiteError, match="mixture of experts"):
        decompose(opened("mixtral"), [IDS], by="neurons")


def test_shares_along_a_direction_add_up_to_that_of_the_stream_and_the_largest_come_first():
    model = lab()
    mary, john = (model.tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (" Mary", " John"))
    head = model.hf.get_output_embeddings().weight.detach().double()
    text = "When Mary and John went to the store, John gave a drink to"
    found = decompose(model, text, by="heads", direction=(" Mary", " John"))
    stream = model.capture(text, "L4.resid_post")["L4.resid_post"][0, -1].double()
    shares = found.along()
    assert shares.axes == ("part", "pos") and float(shares.values.sum()) == pytest.approx(
        float(stream @ (head[mary] - head[john])), rel=1e-4)
    order = np.argsort(-np.abs(shares.values[:, 0]), kind="stable")[:5]
    assert [cell["part"] for cell, _ in found.top(5)] == [found.parts[i] for i in order]
    np.testing.assert_allclose(found.along(head[mary]).values, (found.vectors @ head[mary]).numpy())
    plain = decompose(model, text, by="heads")
    lengths = {part: float(plain[part].pow(2).sum().sqrt()) for part in plain.parts}
    assert plain.top(1)[0][0]["part"] == max(lengths, key=lengths.get)
    assert dict(zip(plain.parts, plain.norms().values[:, 0], strict=True)) == pytest.approx(lengths)


@pytest.mark.parametrize("direction", [None, torch.linspace(-1, 1, 32)], ids=["by length", "along a direction"])
def test_only_the_strongest_are_kept_and_the_others_added_up(direction):
    options = dict(by="neurons", positions="each", direction=direction)
    every = decompose(opened("llama"), [IDS], **options)
    some = decompose(opened("llama"), [IDS], top=5, **options)
    sizes = (every.norms() if direction is None else every.along()).values
    strongest = np.argsort(-np.abs(sizes).max(1))[:5]
    assert set(some.parts[:-1]) == {every.parts[i] for i in strongest}
    assert some.parts[-1] == f"others ({len(every.parts) - 5})"
    close(some.vectors.sum(0), every.total)


def test_a_block_is_what_came_in_and_what_attention_and_mlp_wrote():
    for name in FAMILIES:
        found, values = block_parts(opened(name), [IDS], 1, positions="each"), by_hand(name)
        assert found.parts == ("from_prev", "from_attn", "from_mlp")
        for part, site in zip(found.parts, ("resid_pre", "attn_out", "mlp_out"), strict=True):
            close(found[part], values[f"L1.{site}"])
        close(found.vectors.sum(0), values["L1.resid_post"])


def test_a_hook_that_steers_is_a_rest_and_the_parts_still_add_up():
    model = opened("gpt2")
    handle = model.hook("L0.resid_post", lambda x: x + 5)
    try:
        found = decompose(model, [IDS], "L1.resid_post")
    finally:
        handle.remove()
    close(found["L0.rest"], torch.full((1, 32), 5.0))
    assert found.error < 1e-5


def test_a_decomposition_is_drawn_and_printed():
    text = "When Mary and John went to the store"
    one = decompose(lab(), text, "L1.resid_post", direction=" Mary")
    assert "Decomposition of L1.resid_post at 1 position: 6 parts" in repr(one)
    assert type(one.show()).__name__ == "Bars"
    assert type(decompose(lab(), text, "L1.resid_post", positions="each").show()).__name__ == "Grid"


@pytest.mark.parametrize(("options", "error", "says"), [
    (dict(at="L*.resid_post"), SiteError, "not one place"), (dict(at="L0.attn_out"), SiteError, "not one place"),
    (dict(at="L9.resid_post"), LayerError, "9"), (dict(by="head"), SweepError, "heads"), (dict(top=0), SweepError, "top=0"),
    (dict(direction=torch.zeros(3)), SweepError, "32 finite numbers"), (dict(positions=99), PositionError, "99"),
    (dict(direction=" Mary"), TokenError, "tokenizer")])
def test_what_cannot_be_taken_apart_is_refused(options, error, says):
    with pytest.raises(error, match=says):
        decompose(opened("gpt2"), [IDS], **options)


def test_several_prompts_are_refused_everywhere_so_that_no_padding_enters():
    model = opened("gpt2")
    for ask in (decompose, circulation, lambda m, p: block_parts(m, p, 0), lambda m, p: accumulated(m, p, torch.ones(32)),
                lambda m, p: movement(m, p, "L0.resid_pre", "L1.resid_pre")):
        with pytest.raises(PromptError, match="one prompt at a time"):
            ask(model, RAGGED)


def test_parts_and_directions_that_do_not_exist_are_named(monkeypatch):
    found = decompose(opened("gpt2"), [IDS], by="heads")
    with pytest.raises(RecordError, match="L0H3"):
        found["L0H33"]
    with pytest.raises(SweepError, match="direction is needed"):
        found.along()
    monkeypatch.setattr("hooklab.analysis.decomposition.ROOM", 1000)
    with pytest.raises(SweepError, match="top=100"):
        decompose(opened("gpt2"), [IDS])


# Following --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_movement_is_the_relative_change_and_the_cosine_between_any_two_places(name):
    values = by_hand(name)
    for start, end in (("L0.resid_pre", "L1.resid_post"), ("L1.resid_post", "L0.resid_post")):
        found = movement(opened(name), [IDS], start, end)
        before, after = values[start].numpy(), values[end].numpy()
        lengths = [np.sqrt((x**2).sum(-1)) for x in (before, after)]
        np.testing.assert_allclose(found.change.values, np.sqrt(((after - before) ** 2).sum(-1)) / lengths[0], rtol=1e-4)
        np.testing.assert_allclose(found.cosine.values, (before * after).sum(-1) / lengths[0] / lengths[1], rtol=1e-4,
                                   atol=1e-6)
    assert found.change.axes == ("pos",) and found.change.coords["pos"][1] == "1: #5"


def test_between_one_block_and_the_next_nothing_moves():
    found = movement(opened("llama"), [IDS], "L0.resid_post", "L1.resid_pre", positions="last")
    assert found.change.values.tolist() == [0.0] and found.cosine.values[0] == pytest.approx(1)
    with pytest.raises(SiteError, match="no resid_mid"):
        movement(opened("gpt_neox"), [IDS], "L0.resid_mid", "L1.resid_pre")


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_layer_changes_is_what_attention_and_mlp_write(name):
    values = by_hand(name)
    found = circulation(opened(name), [IDS])
    last = values["L1.resid_post"].numpy()
    for layer in range(2):
        attn, mlp = (values[f"L{layer}.{site}"].numpy() for site in ("attn_out", "mlp_out"))
        after = values[f"L{layer}.resid_post"].numpy()
        for scores, vector in ((found.attn, attn), (found.mlp, mlp), (found.change, attn + mlp)):
            np.testing.assert_allclose(scores.sel(layer=layer).values, np.linalg.norm(vector, axis=-1), rtol=1e-4)
        cosine = (after * last).sum(-1) / np.linalg.norm(after, axis=-1) / np.linalg.norm(last, axis=-1)
        np.testing.assert_allclose(found.cosine.sel(layer=layer).values, cosine, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_accumulated_stream_along_a_direction_is_that_of_every_place(name):
    direction = torch.linspace(-1, 2, 32).double()
    found, values = accumulated(opened(name), [IDS], direction), by_hand(name)
    assert found.coords["site"][-1] == "L1.resid_post" and len(found.coords["site"]) == (3 if name == "gpt_neox" else 5)
    for site in found.coords["site"]:
        np.testing.assert_allclose(found.sel(site=site).values, torch.einsum("pm,m->p", values[site], direction).numpy(),
                                   rtol=1e-4, atol=1e-4)


def test_circulation_is_a_table_of_layers_and_positions():
    found = circulation(opened("gpt2"), [IDS], positions=[1, -1])
    table = found.to_pandas()
    assert list(table.columns) == ["layer", "pos", "attn", "mlp", "change", "cosine"] and len(table) == 4
    row = table[(table.layer == 1) & (table.pos == "6: #8")].iloc[0]
    assert row["mlp"] == found.mlp.sel(layer=1, pos="6: #8").values
    total = table[table.pos == "6: #8"]
    assert float(found.share.sel(layer=0, pos=6).values) == pytest.approx(
        (total.attn.iloc[0] + total.mlp.iloc[0]) / total.change.sum())


# Neurons ----------------------------------------------------------------------------------------------------------------


WRITES = {"gpt2": "transformer.h.1.mlp.c_proj", "gpt_neox": "gpt_neox.layers.1.mlp.dense_4h_to_h"}
READS = {"gpt2": "transformer.h.1.mlp.c_fc", "gpt_neox": "gpt_neox.layers.1.mlp.dense_h_to_4h",
         "phi3": "model.layers.1.mlp.gate_up_proj"}


@pytest.mark.parametrize("name", FAMILIES)
def test_neurons_are_rows_whatever_class_stores_the_weights(name):
    model, basis = opened(name), mlp_basis(opened(name), 1)
    size = (model.facts.d_mlp, model.facts.d_model)
    out = model.hf.get_submodule(WRITES.get(name, "model.layers.1.mlp.down_proj")).weight.detach()
    into = model.hf.get_submodule(READS.get(name, "model.layers.1.mlp.up_proj")).weight.detach()
    assert basis.reads.shape == basis.writes.shape == size
    assert torch.equal(basis.writes, out if name == "gpt2" else out.T)
    assert torch.equal(basis.reads, into.T if name == "gpt2" else into[-size[0]:])
    assert (basis.gates is None) == (name in ("gpt2", "gpt_neox"))
    if name == "phi3":
        assert torch.equal(basis.gates, into[: size[0]])


@pytest.mark.parametrize("name", FAMILIES)
def test_singular_directions_of_reading_and_writing_give_the_matrix_back(name):
    basis = mlp_basis(opened(name), 0)
    u, strengths, v = basis.svd()
    dense = torch.einsum("nm,nd->md", basis.reads, basis.writes)
    close(torch.einsum("mr,r,rd->md", u, strengths, v), dense, 1e-4)
    close(strengths, torch.linalg.svdvals(dense), 1e-4)
    assert u.shape == (32, 32) and bool((strengths[:-1] >= strengths[1:]).all())
    if basis.gates is not None:
        close(basis.gated_map.full(), torch.einsum("nm,nd->md", basis.gates, basis.writes), 1e-4)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "gpt_neox"])
def test_the_basis_computes_the_mlp_with_or_without_the_norm_in_it(name):
    model, values = opened(name), by_hand(name)
    for fold in (False, True):
        basis = mlp_basis(model, 1, fold=fold)
        x = values["L1.ln2"].float()
        if fold:  # the normalised stream without gain and bias
            x = (x - model.W.b_ln2[1]) / model.W.ln2[1]
        found = x @ (basis.reads if basis.gates is None else basis.gates).T + (
            basis.b_reads if basis.b_gates is None else basis.b_gates)
        close(found, values["L1.mlp_pre"], 1e-4)


def test_a_basis_that_does_not_exist_is_refused():
    with pytest.raises(SiteNameError, match="mixture of experts"):
        mlp_basis(opened("mixtral"), 0)
    with pytest.raises(LayerError):
        mlp_basis(opened("gpt2"), 7)


# Heads of any weights ---------------------------------------------------------------------------------------------------


def test_a_head_of_its_own_weights_and_biases_does_what_the_model_s_head_does():
    values, W = by_hand("gpt2"), opened("gpt2").W
    write, pattern = apply_head(values["L1.ln1"].float()[None], W.Q[1, 2], W.K[1, 2], W.V[1, 2], W.O[1, 2],
                                b_q=W.b_Q[1, 2], b_k=W.b_K[1, 2], b_v=W.b_V[1, 2])
    close(pattern[0], values["L1.pattern"][2])
    close(write[0], values["L1.z"][:, 2] @ W.O[1, 2].double())


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "gemma2", "phi3", "opt", "bloom", "qwen3", "bert"])
def test_a_head_in_its_own_place_is_the_model_s_own_with_rotation_and_all(name):
    model, values, W = opened(name), by_hand(name), opened(name).W
    group = model.facts.n_heads // model.facts.n_kv_heads
    for head in (1, 3):
        own = dict(Q=W.Q[1, head], b_Q=W.b_Q[1, head], K=W.K[1, head // group], b_K=W.b_K[1, head // group],
                   V=W.V[1, head // group], b_V=W.b_V[1, head // group], O=W.O[1, head])
        for weights in ({}, own):
            found = run_head(model, [IDS], 1, head, **weights)
            close(found.pattern[0], values["L1.pattern"][head], 1e-4)
            close(found.write[0], values["L1.z"][:, head] @ W.O[1, head].double(), 1e-4)


def test_a_head_of_other_weights_reads_and_writes_by_them():
    """Any weights in the place of a head of GPT-2, whose attention is the bare formula."""
    model, values = opened("gpt2"), by_hand("gpt2")
    drawn = torch.Generator().manual_seed(1)
    q, k, v = (0.5 * torch.randn(32, 8, generator=drawn) for _ in range(3))
    o = torch.randn(8, 32, generator=drawn)
    for stream in (None, torch.randn(1, len(IDS), 32, generator=drawn)):
        x = values["L0.ln1"].float() if stream is None else stream[0]
        scores = (x @ q) @ (x @ k + 1).T / 8**0.5
        pattern = scores.masked_fill(torch.ones_like(scores).triu(1) > 0, float("-inf")).softmax(-1)
        found = run_head(model, [IDS], 0, 1, stream=stream, Q=q, K=k, b_K=1.0, V=v, O=o)
        close(found.pattern[0], pattern)
        close(found.write[0], pattern @ x @ v @ o)


def test_one_head_s_queries_with_another_s_keys_are_rotated_as_the_model_rotates():
    """Queries of head 0 in the place of head 1, which shares its keys: the model's own head 0."""
    model, W = opened("llama"), opened("llama").W
    found = run_head(model, [IDS], 0, 1, Q=W.Q[0, 0], b_Q=W.b_Q[0, 0])
    close(found.pattern[0], by_hand("llama")["L0.pattern"][0])


def test_padding_of_a_ragged_batch_enters_no_head():
    model, W = opened("llama"), opened("llama").W
    both = run_head(model, RAGGED, 1, 0, Q=W.Q[0, 1])
    alone = run_head(model, [RAGGED[1]], 1, 0, Q=W.Q[0, 1])
    first = both.tokens.column(1, 0)
    close(both.write[1, first:], alone.write[0])
    close(both.pattern[1, first:, first:], alone.pattern[0])


@pytest.mark.parametrize(("weights", "says"), [
    (dict(Q=torch.zeros(3, 3)), "Q of a head"), (dict(b_Q=torch.zeros(3)), "b_Q of a head"),
    (dict(W=torch.zeros(32, 8)), "no weight 'W'"), (dict(stream=torch.zeros(1, 2, 32)), "the stream")])
def test_weights_that_do_not_fit_a_head_are_refused(weights, says):
    with pytest.raises(WriteError, match=says):
        run_head(opened("gpt2"), [IDS], 0, 0, **weights)


# Tokens that something votes for ----------------------------------------------------------------------------------------


FINAL = {"gpt2": "transformer.ln_f", "gpt_neox": "gpt_neox.final_layer_norm"}


def logits_of(name, vector):
    """What a direction adds to the logits, the final norm's division apart: by the modules of transformers."""
    hf = opened(name).hf
    final, x = hf.get_submodule(FINAL.get(name, "model.norm")), vector.float()
    with torch.no_grad():
        divisor = x.var(unbiased=False) if name in FINAL else x.square().mean()
        bias = getattr(final, "bias", None)
        normed = final(x) if bias is None else final(x) - bias
        return (normed * (divisor + getattr(final, "eps", getattr(final, "variance_epsilon", None))).sqrt()
                ) @ hf.get_output_embeddings().weight.T


def ends(scores, k):
    """Labels of the k tokens with the largest and of those with the smallest scores."""
    order = torch.argsort(scores)
    return [[f"#{i}" for i in order.flip(0)[:k].tolist()], [f"#{i}" for i in order[:k].tolist()]]


def voted(vector, matrix, k):
    """Labels of the k columns of [d_model d_vocab] with the largest and with the smallest dot product."""
    return ends(torch.einsum("m,mv->v", vector.double(), matrix.double()), k)


@pytest.mark.parametrize("name", FAMILIES)
def test_top_and_bottom_tokens_of_what_any_node_writes(name):
    model, values = opened(name), by_hand(name)
    neuron, head = "L0N7", f"L{model.facts.n_layers - 1}H2"
    behind = 1 + model.hf.model.layers[0].post_feedforward_layernorm.weight.detach() if name == "gemma2" else 1.0
    drawn = torch.randn(32, generator=torch.Generator().manual_seed(4))
    sae = SAE(torch.randn(32, 6, generator=torch.Generator().manual_seed(2)), torch.zeros(6),
              torch.randn(6, 32, generator=torch.Generator().manual_seed(3)), torch.zeros(32))
    cases = [(top_tokens(model, drawn, 4), drawn), (top_tokens(model, neuron, 4), model.W.Out[0, 7] * behind),
             (top_tokens(model, (sae, 5), 4), sae.decoder[5]),
             (top_tokens(model, "L1.mlp_out", 4, prompt=[IDS], positions=3), values["L1.mlp_out"][3]),
             (top_tokens(model, head, 4, prompt=[IDS], positions=2),
              write_of_head(name, dict(model.hf.named_parameters()), values["L1.z"], 2)[2])]
    for found, vector in cases:
        assert found.axes == ("vote", "rank") and found.coords["vote"] == ("up", "down")
        assert found.labels.tolist() == ends(logits_of(name, vector), 4)
    scores = logits_of(name, drawn).sort().values
    np.testing.assert_allclose(cases[0][0].values, [scores.flip(0)[:4].numpy(), scores[:4].numpy()], rtol=1e-4)
    if name in FINAL:  # nobody reads the mean of a write
        shifted = top_tokens(model, drawn + 3.0, 4)
        assert shifted.labels.tolist() == cases[0][0].labels.tolist()
        np.testing.assert_allclose(shifted.values, cases[0][0].values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_top_and_bottom_tokens_of_what_any_node_reads(name):
    model = opened(name)
    embedding = model.W.E.T
    gated = model.W.missing("Gate") is None
    column = (model.W.Gate if gated else model.W.In)[0][:, 7] * model.W.ln2[0]
    sae = SAE(torch.randn(32, 6, generator=torch.Generator().manual_seed(2)), torch.zeros(6), None, torch.zeros(32))
    seen = embedding - embedding.mean(0) if name in FINAL else embedding  # the norm before the MLP takes the mean away
    assert top_tokens(model, "L0N7", 4, side="read").labels.tolist() == voted(column, seen, 4)
    assert top_tokens(model, (sae, 5), 4, side="read").labels.tolist() == voted(sae.w_enc[:, 5], embedding, 4)


def test_a_head_without_a_prompt_is_the_strongest_direction_that_it_moves():
    model = opened("llama")
    dense = (model.W.ln1[0][:, None] * model.W.V[0, 1]) @ model.W.O[0, 2]
    u, _, vh = torch.linalg.svd(dense)
    wrote, read = (top_tokens(model, "L0H2", 3, side=side).labels.tolist() for side in ("write", "read"))
    unembedding = model.W.U * model.W.ln_final[:, None]
    expected = [(voted(sign * vh[0], unembedding, 3), voted(sign * u[:, 0], model.W.E.T, 3)) for sign in (1, -1)]
    assert (wrote, read) in expected


def test_a_feature_of_neurons_votes_through_them():
    model = opened("gpt2")
    width = model.facts.d_mlp
    sae = SAE(torch.zeros(width, 2), torch.zeros(2), torch.randn(2, width, generator=torch.Generator().manual_seed(3)),
              torch.zeros(width))
    found = top_tokens(model, (sae, 1), 3, at="L1.mlp_post")
    assert found.labels.tolist() == ends(logits_of("gpt2", sae.decoder[1] @ model.W.Out[1]), 3)


@pytest.mark.parametrize(("of", "options", "error", "says"), [
    ("L0.ln1", {}, SiteError, "not one writer"), ("L*H2", {}, SiteError, "not one writer"),
    ("L0H1.pattern", {}, SiteError, "not one writer"), ("L0.mlp_out", {}, RecordError, "give prompt="),
    ("L0N3", dict(prompt=[IDS]), RecordError, "leave prompt= out"),
    ("L0H1", dict(prompt=[IDS], positions="each"), RecordError, "are 7"),
    ("L0H1", dict(at="L0.mlp_post"), RecordError, "leave it out"), (torch.ones(32), dict(k=0), RecordError, "k=0")])
def test_votes_that_cannot_be_taken_are_refused(of, options, error, says):
    with pytest.raises(error, match=says):
        top_tokens(opened("gpt2"), of, **options)
