"""Sparse autoencoders of every kind, counted again with einsum; what they do not change, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import draws

from hooklab.errors import ModelError
from hooklab.sae import SAE, BatchTopK, Dictionary, FeatureStats, Gated, JumpReLU, ReLU, TopK, attach

D, N = 6, 20
THRESHOLD, R_MAG, B_MAG = draws(N, seed=11).abs() / 2, draws(N, seed=12) / 3, draws(N, seed=13) / 3
KINDS = {"relu": ReLU(), "topk": TopK(5), "topk_identity": TopK(5, "identity"), "batchtopk": BatchTopK(3, 0.4),
         "jumprelu": JumpReLU(THRESHOLD), "gated": Gated(R_MAG, B_MAG)}
FORMS = {"untied": {}, "tied": {"tied": True}, "no pre-bias": {"pre_bias": False}, "layer": {"norm": "layer"},
         "length": {"norm": "length"}, "scaled": {"scale": 1.7}, "length, scaled": {"norm": "length", "scale": 0.3}}
X = draws(4, 3, D, seed=21) * 2 + 0.5


def build(kind="relu", tied=False, **options):
    return SAE(draws(D, N, seed=1), draws(N, seed=2) / 3, None if tied else draws(N, D, seed=3), draws(D, seed=4),
               KINDS[kind], **options)


def einsum(sae, x, kind):
    """The equations, in float64 and without the class."""
    x = x.double().numpy()
    w, b = sae.w_enc.double().numpy(), sae.b_enc.double().numpy()
    dec, bias = (w.T if sae.w_dec is None else sae.w_dec.double().numpy()), sae.b_dec.double().numpy()
    mean, factor = 0.0, 1.0
    put = x
    if sae.norm == "layer":
        mean, factor = x.mean(-1, keepdims=True), x.std(-1, ddof=1, keepdims=True)
        put = (x - mean) / (factor + 1e-5)
    if sae.norm == "length":
        factor = np.linalg.norm(x, axis=-1, keepdims=True) / np.sqrt(D)
        put = x / factor
    put, factor = put * sae.scale, factor / sae.scale
    linear = np.einsum("bpd,df->bpf", put - bias if sae.pre_bias else put, w)
    pre = linear + b
    if kind == "gated":
        pre = linear * np.exp(R_MAG.double().numpy()) + B_MAG.double().numpy()
        features = np.maximum(pre, 0) * (linear + b > 0)
    elif kind.startswith("topk"):
        features = np.zeros_like(pre)
        best = np.argsort(-pre, axis=-1, kind="stable")[..., :5]
        np.put_along_axis(features, best, np.take_along_axis(pre, best, -1), -1)
        features = features if kind == "topk_identity" else np.maximum(features, 0)
    else:
        least = {"relu": 0.0, "batchtopk": 0.4, "jumprelu": THRESHOLD.double().numpy()}[kind]
        features = pre * (pre > least)
    return pre, features, (np.einsum("bpf,fd->bpd", features, dec) + bias) * factor + mean


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_its_equations(kind, form):
    sae = build(kind, **FORMS[form])
    for ours, wanted in zip(sae(X), einsum(sae, X, kind), strict=True):
        np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-4, atol=2e-5)
    np.testing.assert_array_equal(sae.encode(X), sae(X).features)
    np.testing.assert_array_equal(sae.encode_pre(X), sae(X).pre)
    np.testing.assert_array_equal(sae.decode(sae.encode(X), like=X), sae(X).reconstruction)


@pytest.mark.parametrize("kind", KINDS)
def test_some_latents_are_encoded_as_all_of_them_are(kind):
    sae = build(kind)
    for latents in (slice(0, 7), slice(3, None, 4), [5, 2, 2], torch.tensor([19, 0])):
        torch.testing.assert_close(sae.encode(X, latents), sae.encode(X)[..., latents])
        torch.testing.assert_close(sae.encode_pre(X, latents), sae.encode_pre(X)[..., latents])


def test_topk_keeps_k_of_each_token_unless_they_are_negative():
    pre = draws(50, N, seed=5)
    kept = TopK(5)(pre)
    positive = (pre > 0).sum(-1).clamp(max=5)
    assert torch.equal((kept != 0).sum(-1), positive)
    assert torch.equal((TopK(5, "identity")(pre) != 0).sum(-1), torch.full((50,), 5))
    assert torch.equal(TopK(3)(-torch.ones(2, 6)), torch.zeros(2, 6))


def test_ties_of_a_topk_go_to_the_first():
    pre = torch.tensor([[2.0, 1.0, 2.0, 2.0, 0.5], [1.0, 1.0, 1.0, 1.0, 1.0], [3.0, 2.0, 1.0, 0.0, -1.0]])
    assert TopK(2)(pre).tolist() == [[2, 0, 2, 0, 0], [1, 1, 0, 0, 0], [3, 2, 0, 0, 0]]
    many = torch.ones(64, 4096)
    assert torch.equal(TopK(7)(many).nonzero()[:, 1], torch.arange(7).repeat(64))


def test_batchtopk_keeps_the_largest_of_the_batch_in_training_and_what_exceeds_its_threshold_after():
    pre = draws(8, N, seed=6)
    kept = BatchTopK(2).batch(pre)
    cut = pre.flatten().sort(descending=True).values[15]
    assert int((kept != 0).sum()) == 16 and torch.equal(kept, torch.where(pre >= cut, pre, 0))
    used = BatchTopK(2, 0.7)
    assert torch.equal(used(pre)[3:4], used(pre[3:4])) and torch.equal(used(pre), torch.where(pre > 0.7, pre, 0))
    with pytest.raises(ModelError, match="no threshold yet"):
        replace(build(), activation=BatchTopK(2)).encode(X)


def test_the_activation_of_a_gated_is_that_of_the_jumprelu_it_is_equal_to():
    gated = build("gated")
    scale = R_MAG.exp()
    jump = replace(gated, w_enc=gated.w_enc * scale, b_enc=B_MAG, activation=JumpReLU(B_MAG - scale * gated.b_enc))
    torch.testing.assert_close(gated.encode(X), jump.encode(X))


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_features_are_the_same_features(kind):
    sae = build(kind)
    found, dense = sae.encode_sparse(X), sae.encode(X)
    assert found.indices.shape[-1] == int((dense != 0).sum(-1).max())
    for b, p in np.ndindex(4, 3):
        wanted = dict(sorted(((i, float(v)) for i, v in enumerate(dense[b, p]) if v), key=lambda item: (-item[1], item[0])))
        pairs = [(int(i), float(v)) for i, v in zip(found.indices[b, p], found.values[b, p], strict=True)]
        assert pairs[:len(wanted)] == list(wanted.items()) and set(pairs[len(wanted):]) <= {(-1, 0.0)}
    torch.testing.assert_close(sae.decode_sparse(found), sae.decode(dense), atol=1e-5, rtol=1e-5)
    two = sae.encode_sparse(X, most=2)
    assert torch.equal(two.indices, found.indices[..., :2]) and torch.equal(two.values, found.values[..., :2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_leaves_nothing_behind(kind):
    sae = replace(build(kind), statistics={"last_active": torch.arange(N)})
    before = {name: t.clone() for name, t in vars(sae).items() if isinstance(t, torch.Tensor)}
    x = X.clone()
    first = sae(x)
    second = sae(x)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)) and torch.equal(x, X)
    assert all(torch.equal(getattr(sae, name), t) for name, t in before.items())
    assert torch.equal(sae.statistics["last_active"], torch.arange(N))


def test_gradients_of_a_tied_autoencoder_flow_to_one_matrix():
    sae = build(tied=True)
    w = sae.w_enc.clone().requires_grad_()
    replace(sae, w_enc=w)(X).reconstruction.square().sum().backward()
    one, two = (sae.w_enc.clone().requires_grad_() for _ in range(2))
    replace(sae, w_enc=one, w_dec=two.T)(X).reconstruction.square().sum().backward()
    torch.testing.assert_close(w.grad, one.grad + two.grad)


@pytest.mark.parametrize("form", ["untied", "tied", "layer"])
@pytest.mark.parametrize("kind", KINDS)
def test_pruning_dead_latents_keeps_every_number_the_activation_and_the_biases(kind, form):
    sae = build(kind, **FORMS[form])
    alive = torch.tensor([i % 3 > 0 for i in range(N)])
    low = sae.b_enc.masked_fill(~alive, -1e3)
    activation = replace(sae.activation, b_mag=B_MAG) if kind == "gated" else sae.activation
    sae = replace(sae, b_enc=low, activation=activation, statistics={"frequency": torch.arange(N)})
    assert float(sae.encode(X)[..., ~alive].abs().max()) == 0
    small = sae.pruned(alive)
    assert small.n_features == int(alive.sum()) and type(small.activation) is type(sae.activation)
    torch.testing.assert_close(small(X).reconstruction, sae(X).reconstruction)
    torch.testing.assert_close(small.encode(X), sae.encode(X)[..., alive])
    assert torch.equal(small.b_dec, sae.b_dec) and torch.equal(small.statistics["frequency"], torch.arange(N)[alive])
    torch.testing.assert_close(sae.pruned(alive.nonzero()[:, 0]).encode(X), small.encode(X))
    assert sae.pruned([1, 2]).n_features == 2


@pytest.mark.parametrize("kind", ["relu", "batchtopk", "jumprelu", "gated"])
def test_a_decoder_of_unit_norm_makes_the_same_reconstruction(kind):
    sae = build(kind)
    unit = sae.unit_norm()
    torch.testing.assert_close(unit.decoder.norm(dim=1), torch.ones(N))
    torch.testing.assert_close(unit(X).reconstruction, sae(X).reconstruction, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(unit.encode(X), sae.encode(X) * sae.decoder.norm(dim=1), atol=1e-4, rtol=1e-4)


def test_a_transcoder_reads_one_site_and_writes_another():
    made = SAE(draws(D, N), draws(N), draws(N, 9), draws(9), JumpReLU(THRESHOLD), pre_bias=False, norm="layer",
               restore=False)
    assert (made.d_in, made.d_out) == (D, 9)
    x = X.double().numpy()
    put = (x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=1, keepdims=True) + 1e-5)
    pre = np.einsum("bpd,df->bpf", put, made.w_enc.double().numpy()) + made.b_enc.double().numpy()
    out = np.einsum("bpf,fo->bpo", pre * (pre > THRESHOLD.double().numpy()), made.w_dec.double().numpy())
    np.testing.assert_allclose(made(X).reconstruction, out + made.b_dec.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_changed_features_move_the_input_by_the_difference_of_their_reconstructions(form):
    sae = build("jumprelu", **FORMS[form])
    before = sae.encode(X)
    after = before * 0.5 + 1
    wanted = X + sae.decode(after, like=X) - sae.decode(before, like=X)
    torch.testing.assert_close(sae.changed(X, before, after), wanted, atol=1e-4, rtol=1e-4)
    half = sae.changed(X.bfloat16(), before, after)
    assert half.dtype == torch.bfloat16


def test_the_scale_of_an_object_that_remembers_it_only_once_is_kept():
    class Stateful:
        n_features = N

        def __init__(self):
            self.sae = build("relu", norm="length")

        def encode(self, x):
            self.seen = x
            return self.sae.encode(x)

        def decode(self, features):
            out = self.sae.decode(features, like=self.seen)
            del self.seen
            return out

    sae = build("relu", norm="length")
    before = sae.encode(X)
    after = before.clone()
    after[..., 3] += 1
    torch.testing.assert_close(attach(Stateful()).changed(X, before, after), sae.changed(X, before, after),
                               atol=1e-5, rtol=1e-5)
    plain = Dictionary(sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec)
    moved = X + plain.decode(after) - plain.decode(before)
    torch.testing.assert_close(plain.changed(X, before, after), moved, atol=1e-5, rtol=1e-5)


def test_weights_are_used_in_full_precision_on_halved_inputs():
    sae = build()
    assert sae.encode(X.bfloat16()).dtype == torch.float32 and sae.encode(X.double()).dtype == torch.float64
    assert sae.to(dtype=torch.float64).encode(X).dtype == torch.float64
    torch.testing.assert_close(sae.encode(X.bfloat16()), sae.encode(X.bfloat16().float()))


def test_statistics_of_a_stream_are_those_of_all_of_it_at_once():
    features = torch.relu(draws(100, N, seed=31) - 0.5)
    features[:, 4] = 0
    features[60:, 5] = 0
    features[[10, 40], 6] = 9.0
    stats = FeatureStats(N, top=3)
    mask = torch.ones(100, dtype=torch.bool)
    for rows in torch.arange(100).split([1, 30, 0, 44, 25]):
        stats.add(features[rows])
    array = features.double().numpy()
    np.testing.assert_allclose(stats.frequency, (array != 0).mean(0))
    np.testing.assert_allclose(stats.mean, array.mean(0))
    np.testing.assert_allclose(stats.mean_square, (array ** 2).mean(0))
    np.testing.assert_allclose(stats.maximum, array.max(0))
    latest = [max((i for i in range(100) if array[i, f]), default=-1) for f in range(N)]
    assert stats.last.tolist() == latest and stats.since.tolist() == [99 - i for i in latest]
    assert stats.dead().nonzero().flatten().tolist() == [4]
    silent = 99 - latest[5]
    assert stats.dead(after=silent).nonzero().flatten().tolist() == [4, 5] and 40 <= silent < 90
    assert stats.dead(after=silent + 1).nonzero().flatten().tolist() == [4]
    order = np.argsort(-array, axis=0, kind="stable")[:3]
    assert np.array_equal(stats.where, order) and stats.where[:2, 6].tolist() == [10, 40]
    mask[50:] = False
    padded = FeatureStats(N).add(features.reshape(4, 25, N), mask.reshape(4, 25))
    half = FeatureStats(N).add(features[:50])
    assert padded.count == 50 and all(torch.equal(a, b) for a, b in zip(padded.tensors().values(), half.tensors().values(),
                                                                        strict=True))


def test_statistics_refuse_what_they_cannot_count_and_count_nothing_of_it():
    stats = FeatureStats(3).add(torch.ones(2, 3))
    for wrong, word in ((torch.ones(2, 4), "3 features"), (torch.tensor([[1.0, float("nan"), 0.0]]), "finite")):
        with pytest.raises(ModelError, match=word):
            stats.add(wrong)
    with pytest.raises(ModelError, match="mask"):
        stats.add(torch.ones(2, 3), torch.ones(3))
    with pytest.raises(ModelError, match="silent"):
        stats.dead(after=5)
    with pytest.raises(ModelError, match="silent"):
        FeatureStats(3).dead()
    assert stats.count == 2 and stats.active.tolist() == [2, 2, 2]


@pytest.mark.parametrize(("wrong", "words"), [
    (lambda: SAE(draws(D, N), draws(N + 1), draws(N, D), draws(D)), r"b_enc has the shape \(21,\)"),
    (lambda: SAE(draws(D, N), draws(N), draws(N, 9), draws(9)), "pre_bias=False"),
    (lambda: SAE(draws(D, N), draws(N), draws(D, N), draws(D)), "w_dec has the shape"),
    (lambda: build(norm="rms"), "norm='rms' is none of none, layer, length"),
    (lambda: build(scale=0.0), "positive"),
    (lambda: build().encode(draws(2, D + 1)), "reads vectors of 6"),
    (lambda: build(norm="layer").decode(draws(2, N)), "like=x"),
    (lambda: replace(build(), activation=TopK(21)), "k=21 of 20"),
    (lambda: replace(build(), activation=TopK(0)), "k=0"),
    (lambda: TopK(3, "gelu"), "gelu"),
    (lambda: replace(build(), activation=JumpReLU(draws(3))), "threshold has the shape"),
    (lambda: build("topk").unit_norm(), "chooses by size"),
    (lambda: build(tied=True).unit_norm(), "transpose"),
    (lambda: build().pruned([]), "no feature would be left"),
    (lambda: build().pruned([25]), "features 0 to 19"),
    (lambda: build().pruned(torch.ones(3, dtype=torch.bool)), "mask of 20"),
    (lambda: replace(build(), statistics={"frequency": draws(3)}), "frequency"),
    (lambda: KINDS["gated"](X), "sae.encode"),
    (lambda: attach(3), "no dictionary"),
])
def test_what_does_not_fit_is_an_error_that_says_so(wrong, words):
    with pytest.raises(ModelError, match=words):
        wrong()


def test_values_that_are_no_numbers_are_not_taken_for_zero():
    x = X.clone()
    x[0, 0, 0] = float("nan")
    for kind in KINDS:
        found = build(kind).encode(x)
        assert found[0, 0].isnan().any() and not found[1:].isnan().any()
