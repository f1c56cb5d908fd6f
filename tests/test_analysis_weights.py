"""What the weights alone say: composition, virtual heads, relations, directions; against dense matrices and planted ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny_models
import torch

import hooklab as hl
from hooklab.analysis.applied import apply_head
from hooklab.analysis.composing import baseline, composition, shared, virtual_head
from hooklab.analysis.directions import neuron_direction, token_direction
from hooklab.analysis.relation_spaces import related, relation_graph, relations
from hooklab.errors import LayerError, RecordError, SiteError
from hooklab.model.factored import Factored

IDS = torch.tensor([[3, 5, 9, 20, 33, 7, 8], [4, 4, 60, 5, 71, 3, 12]])
FAMILIES = ["gpt2", "llama", "gpt_neox", "gemma2", "phi3"]
AND_OLMO2 = pytest.mark.parametrize("model", [*FAMILIES, "olmo2"], indirect=True)


def behind(model, layer):
    """By what a norm behind attention multiplies each axis of a write, its divisor aside; read from the module."""
    block = model.hf.model.layers[layer] if model.facts.family in ("gemma2", "olmo2") else None
    return 1.0 if block is None else block.post_attention_layernorm.weight.detach() + (model.facts.family == "gemma2")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    with hl.load(tiny_models.build(request.param), verify=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def lab():
    return hl.load("lab")


def unread(model, matrix):
    """Writes [… d_model] without their mean, where norms take it from whoever reads them."""
    return matrix - matrix.mean(-1, keepdim=True) if model.facts.family in ("gpt2", "gpt_neox") else matrix


def norm(matrix):
    return torch.linalg.matrix_norm(matrix)


@AND_OLMO2
@pytest.mark.parametrize("fold", [True, False], ids=["folded", "as stored"])
def test_composition_is_the_norm_of_the_product_over_the_product_of_the_norms(model, fold):
    weights = model.W.folded(centre=True) if fold else model.W
    scores = composition(model, fold=fold)

    def written(layer, head):
        full = weights.OV(layer, head).full()
        return unread(model, full * behind(model, layer)) if fold else full

    assert scores.axes == ("sender", "receiver")
    for head in range(model.facts.n_heads):
        for other in range(model.facts.n_heads):
            wrote = written(0, head)
            for kind, read in (("q", weights.QK(1, other).full()), ("k", weights.QK(1, other).full().T),
                               ("v", written(1, other))):
                expected = norm(wrote @ read) / norm(wrote) / norm(read)
                found = scores.sel(sender=f"L0H{head}", receiver=f"L1H{other}.{kind}")
                assert float(found) == pytest.approx(float(expected), abs=1e-5)
    assert np.isnan(scores.sel(sender="L1H0").values).all() and np.isnan(scores.sel(receiver="L0H0.q").values).all()


def test_a_planted_pair_composes_fully_and_an_orthogonal_one_not_at_all():
    basis = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(1)))[0]
    a, b, c, d = basis[0:4], basis[4:8], basis[8:12], basis[12:16]  # rows: [4 d_model]
    writer, reader, stranger = Factored(a.T[None], b[None]), Factored(b.T[None], c[None]), Factored(d.T[None], c[None])
    one_direction = shared(Factored(a.T[None, :, :1], b[None, :1]), Factored(b.T[None, :, :1], c[None, :1]))
    assert float(one_direction) == pytest.approx(1.0, abs=1e-5)
    assert float(shared(writer, stranger)) == pytest.approx(0.0, abs=1e-5)
    assert float(shared(writer, reader)) == pytest.approx(norm(writer.full()[0] @ reader.full()[0]).item() / 4, abs=1e-5)


def test_random_pairs_score_the_baseline():
    drawn = torch.Generator().manual_seed(3)
    dense = [torch.randn(48, 6, generator=drawn) @ torch.randn(6, 48, generator=drawn) for _ in range(40)]
    by_hand = np.mean([float(norm(x @ y) / norm(x) / norm(y)) for x in dense[:20] for y in dense[20:]])
    assert baseline(48, 6) == pytest.approx(by_hand, rel=0.05)
    assert baseline(48, 6) == pytest.approx(1 / math.sqrt(48), rel=0.2)


def test_the_control_is_the_baseline_where_there_is_a_score(model):
    scores = composition(model, "v", seed=4)
    there = ~np.isnan(scores.values)
    assert (np.isnan(scores.control.values) == ~there).all()
    assert np.ptp(scores.control.values[there]) == 0
    assert scores.control.values[there][0] == baseline(model.facts.d_model, model.facts.d_head, seed=4)


@AND_OLMO2
def test_a_virtual_head_is_the_product_of_the_two_matrices(model):
    found = virtual_head(model, (0, 1), (1, 2))
    torch.testing.assert_close(found.full(), model.W.OV(0, 1).full() @ model.W.OV(1, 2).full(), rtol=1e-4, atol=1e-5)
    weights, folded = model.W.folded(centre=True), virtual_head(model, (0, 1), (1, 2), fold=True)
    first, second = (unread(model, weights.OV(layer, head).full() * behind(model, layer))
                     for layer, head in ((0, 1), (1, 2)))
    by_hand = first @ second
    torch.testing.assert_close(folded.full(), by_hand, rtol=1e-4, atol=1e-4)
    for first, second, error in (((1, 0), (0, 0), "later"), ((0, 0), (0, 1), "later"), ((0, 9), (1, 0), "head 9")):
        with pytest.raises(LayerError, match=error):
            virtual_head(model, first, second)


def test_a_head_of_its_own_weights_does_what_the_model_s_head_does():
    """GPT-2 without biases: a head is then nothing but its four matrices."""
    hf = tiny_models.build("gpt2")
    for block in hf.transformer.h:
        for module in (block.attn.c_attn, block.attn.c_proj):
            module.bias.data.zero_()
    with hl.load(hf, verify=False) as model:
        acts = model.capture(IDS, ["L1.ln1", "L1.pattern", "L1.result"])
        W = model.W
        write, pattern = apply_head(acts["L1.ln1"], W.Q[1, 2], W.K[1, 2], W.V[1, 2], W.O[1, 2])
    torch.testing.assert_close(pattern, acts["L1.pattern"][:, 2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(write, acts["L1.result"][:, :, 2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("matrix", ["QK", "OV"])
def test_all_relations_together_are_the_matrix(model, matrix):
    u, strengths, v = relations(model, 1, 0, matrix=matrix, top=model.facts.d_head, fold=False)
    whole = getattr(model.W, matrix)(1, 0).full()
    torch.testing.assert_close((u * strengths[:, None]).T @ v, whole, rtol=1e-3, atol=1e-4)
    assert bool((strengths[:-1] >= strengths[1:]).all())
    first = relations(model, 1, 0, matrix=matrix, top=1, fold=False)
    assert float(first[1]) == pytest.approx(float(torch.linalg.matrix_norm(whole, 2)), rel=1e-4)


@pytest.fixture
def planted():
    """A head that relates token 3 to token 7 and 5 to 9, and nothing else."""
    hf = tiny_models.build("gpt2")
    drawn = torch.Generator().manual_seed(0)
    embedding = torch.linalg.qr(torch.randn(32, 32, generator=drawn))[0]
    with torch.no_grad():
        hf.transformer.wte.weight[:20] = embedding[:20]
        attn = hf.transformer.h[0].attn.c_attn
        attn.weight[:, :8] = 0
        attn.weight[:, 32:40] = 0
        for column, (query, key) in enumerate([(3, 7), (5, 9)]):
            attn.weight[:, column] = embedding[query]
            attn.weight[:, 32 + column] = embedding[key]
    return hf


def test_planted_pairs_are_the_ones_found_and_a_shuffled_head_finds_none_of_them(planted):
    with hl.load(planted, verify=False) as model:
        scores = related(model, 0, 0, list(range(20)), top=2, fold=False)
        graph = relation_graph(scores, 6)
        assert set(graph.edges) == {("#3", "#7"), ("#5", "#9")}
        assert all(graph.edges[edge]["weight"] > 6 for edge in graph.edges)
        with torch.no_grad():
            attn = model.hf.transformer.h[0].attn.c_attn
            attn.weight[:, 32:40] = torch.randn(32, 8, generator=torch.Generator().manual_seed(5))
        assert not set(relation_graph(related(model, 0, 0, list(range(20)), top=2, fold=False), 6).edges) & set(graph.edges)


def test_a_planted_relation_has_the_planted_directions(planted):
    with hl.load(planted, verify=False) as model:
        u, strengths, v = relations(model, 0, 0, top=3, fold=False)
        asked = model.W.E[[3, 5]]
        inside = torch.linalg.svdvals(u[:2] @ asked.T)  # the same plane: both cosines 1
    assert float(inside.min()) > 0.999
    assert strengths[:2].tolist() == pytest.approx([1.0, 1.0], abs=1e-4) and float(strengths[2]) < 1e-4


def test_scores_of_pairs_are_bilinear_forms_in_standard_deviations(lab):
    words = [" Mary", " John", " Paris", " store", " drink"]
    scores = related(lab, 1, 2, words, matrix="OV", top=None, fold=False)
    ids = [lab.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    embedded = lab.W.E[ids] - lab.W.E[ids].mean(0)
    dense = embedded @ lab.W.OV(1, 2).full() @ embedded.T
    np.testing.assert_allclose(scores.values, ((dense - dense.mean()) / dense.std(correction=0)).numpy(), atol=1e-4)
    assert scores.coords["query"] == tuple(words)


def test_directions_are_read_through_the_folded_embeddings(model):
    weights = model.W.folded()
    vector = torch.randn(model.facts.d_model, generator=torch.Generator().manual_seed(2))
    for side, matrix in (("write", weights.U), ("read", weights.E.T)):
        order = torch.argsort(vector @ matrix, descending=True)
        assert token_direction(model, vector, 4, side=side).labels.tolist() == [f"#{i}" for i in order[:4].tolist()]
        assert token_direction(model, vector, 2, side=side, lowest=True).labels.tolist() == [
            f"#{i}" for i in order.flip(0)[:2].tolist()]


def test_a_neuron_s_write_is_what_the_mlp_adds_when_it_is_one_more(model):
    address = "L1N5.mlp_post"
    plain = model.capture(IDS, "L1.mlp_out")["L1.mlp_out"]
    more = model.capture(IDS, "L1.mlp_out", edits={address: lambda x: x + 1})["L1.mlp_out"]
    if model.layout.family.post_mlp is None:
        torch.testing.assert_close((more - plain)[0, 0], neuron_direction(model, "L1N5"), rtol=1e-3, atol=1e-4)
    else:
        assert not torch.equal(more, plain), "a norm stands between the neuron and the stream"


def test_a_neuron_reads_what_its_input_weight_says(model):
    normalised = model.capture(IDS, ["L1.ln2" if model.sites.missing("ln2") is None else "L1.ln1", "L1.mlp_pre"])
    unfolded = model.W
    weight = (unfolded.Gate if unfolded.missing("Gate") is None else unfolded.In)[1][:, 5]
    gain = (unfolded.ln2 if unfolded.missing("ln2") is None else unfolded.ln1)[1]
    torch.testing.assert_close(neuron_direction(model, "L1N5", "read"), unread(model, weight * gain), rtol=1e-4, atol=1e-5)
    assert normalised["L1.mlp_pre"].shape[-1] == model.facts.d_mlp


@pytest.mark.parametrize("act", [
    lambda m: composition(m, "z"), lambda m: relations(m, 0, 0, matrix="VO"), lambda m: relations(m, 0, 0, top=99),
    lambda m: related(m, 0, 0, [3]), lambda m: token_direction(m, torch.zeros(3)),
    lambda m: token_direction(m, torch.zeros(32), 1000), lambda m: token_direction(m, torch.zeros(32), side="wrote"),
    lambda m: relation_graph(composition(m, "q"))],
    ids=["kind", "matrix", "count", "one token", "length", "more than all", "side", "no pairs"])
def test_what_cannot_be_asked_is_refused(act):
    with hl.load(tiny_models.build("gpt2"), verify=False) as model, pytest.raises(RecordError):
        act(model)


@pytest.mark.parametrize("address", ["L0.mlp_post", "L0N[1,2]", "L*N3", "L0H1", "L0N3.mlp_pre_linearr"])
def test_an_address_that_is_no_single_neuron_is_refused(address):
    with hl.load(tiny_models.build("llama"), verify=False) as model, pytest.raises(SiteError):
        token_direction(model, address)


@pytest.fixture(scope="module", params=["q", "k", "v"])
def composing(request):
    """A GPT-2 in which L1H3 reads, with its queries, keys or values, exactly the direction that L0H1 writes."""
    hf = tiny_models.build("gpt2")
    drawn = torch.Generator().manual_seed(7)
    between = torch.randn(32, generator=drawn)
    between -= between.mean()  # what a LayerNorm takes away cannot be read
    first, second = (hf.transformer.h[layer].attn for layer in (0, 1))
    sender, receiver = slice(8, 16), slice(24, 32)
    with torch.no_grad():
        for block in hf.transformer.h:
            block.ln_1.weight.fill_(1.0)
        for attn in (first, second):
            attn.c_attn.weight.normal_(generator=drawn)
            attn.c_proj.weight.normal_(generator=drawn)
        first.c_attn.weight[:, 64:][:, sender][:, 1:] = 0  # of its values one is left, and of what it writes one direction
        first.c_proj.weight[sender] = between * torch.eye(8)[0][:, None]
        column = {"q": 0, "k": 32, "v": 64}[request.param]
        other = {"q": 32, "k": 0}.get(request.param)
        second.c_attn.weight[:, column:column + 32][:, receiver] = between[:, None] * torch.eye(8)[0]
        if other is not None:
            second.c_attn.weight[:, other:other + 32][:, receiver][:, 1:] = 0
        else:
            second.c_proj.weight[receiver][1:] = 0
    with hl.load(hf, verify=False) as model:
        yield request.param, composition(model)


def test_a_planted_pair_of_heads_composes_fully_and_through_the_planted_kind_alone(composing):
    kind, scores = composing
    assert float(scores.sel(sender="L0H1", receiver=f"L1H3.{kind}")) == pytest.approx(1.0, abs=1e-5)
    (cell, _), (_, next_) = scores.top(2)
    assert cell == {"sender": "L0H1", "receiver": f"L1H3.{kind}"} and next_ < 0.75
    for another in {"q", "k", "v"} - {kind}:
        assert float(scores.sel(sender="L0H1", receiver=f"L1H3.{another}")) < 0.5


def test_random_pairs_of_heads_compose_as_much_as_the_control_says(composing):
    kind, scores = composing
    apart = [f"L1H{head}.{one}" for head in range(3) for one in "qkv"]
    others = scores.sel(sender=["L0H0", "L0H2", "L0H3"], receiver=apart)
    control = scores.control.sel(sender=["L0H0", "L0H2", "L0H3"], receiver=apart)
    assert others.values.size == 27 and np.ptp(control.values) == 0
    assert others.values.mean() == pytest.approx(control.values[0, 0], rel=0.1)
    np.testing.assert_allclose(others.values, control.values, rtol=0.4)
