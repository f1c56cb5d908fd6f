"""A model whose site goes through an autoencoder: what stays the same with the error kept, and what an edit of it does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracle import RAGGED, draws
from tiny_models import build

import hooklab as hl
from hooklab.errors import ModelError
from hooklab.sae import SAE, BatchTopK, Dictionary, Gated, JumpReLU, ReLU, TopK, attach, save_sae, splice

FAMILIES = ("gpt2", "llama", "gpt_neox", "gemma2", "phi3")
D, N, AT = 32, 60, "L0.resid_post"
KINDS = {"relu": ReLU(), "topk": TopK(8), "batchtopk": BatchTopK(8, 0.5), "jumprelu": JumpReLU(draws(N, seed=5).abs()),
         "gated": Gated(draws(N, seed=6) / 3, draws(N, seed=7))}


def made(kind="relu", **options):
    return SAE(draws(D, N, seed=1) / 5, draws(N, seed=2) / 3, draws(N, D, seed=3) / 5, draws(D, seed=4), KINDS[kind],
               **options)


@pytest.fixture(scope="module")
def models():
    opened = {name: hl.load(build(name)) for name in FAMILIES}
    yield opened
    for model in opened.values():
        model.close()


def last(output):
    """A number of every row's last token; rows are padded on the left."""
    return (output.logits[:, -1] * torch.linspace(-1, 1, output.logits.shape[-1])).sum()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_with_the_error_kept_and_no_edit_logits_and_gradients_are_those_of_the_model(models, family, kind):
    model = models[family]
    sites = ["L0.resid_pre", AT, "logits"]
    plain = model.capture(RAGGED, sites, metric=last)
    for norm in ("none", "layer"):
        through = model.capture(RAGGED, sites, metric=last, edits={AT: splice(made(kind, norm=norm))})
        scale = float(plain["logits"].detach().abs().max())
        for site in sites:
            assert torch.allclose(through[site], plain[site], atol=1e-4 * max(scale, 1), rtol=1e-4)
        for site in sites[:2]:
            top = float(plain.grads[site].abs().max())
            assert top > 0 and torch.allclose(through.grads[site], plain.grads[site], atol=1e-4 * top, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_the_error_dropped_the_model_goes_on_with_the_reconstruction(models, family):
    model, sae = models[family], made("topk")
    plain = model.capture(RAGGED, [AT, "logits"])

    def by_hand(x):
        pre = torch.einsum("bpd,df->bpf", x - sae.b_dec, sae.w_enc) + sae.b_enc
        kept = torch.where(pre >= pre.sort(-1).values[..., -8, None], torch.relu(pre), 0)
        return torch.einsum("bpf,fd->bpd", kept, sae.w_dec) + sae.b_dec

    wanted = model.capture(RAGGED, "logits", edits={AT: by_hand})["logits"]
    found = model.capture(RAGGED, "logits", edits={AT: splice(sae, error="drop")})["logits"]
    assert torch.allclose(found, wanted, atol=1e-4) and float((found - plain["logits"]).abs().max()) > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_ablating_a_latent_takes_its_write_away_and_nothing_else(models, kind):
    model, sae = models["gpt2"], made(kind, pre_bias=kind != "relu")
    stream = model.capture(RAGGED, AT)[AT]
    features = sae.encode(stream)
    live = int(features.sum((0, 1)).argmax())
    by_hand = stream - features[..., live, None] * sae.w_dec[live]
    wanted = model.capture(RAGGED, "logits", edits={AT: lambda x: by_hand})["logits"]

    def ablate(f):
        f[..., live] = 0

    found = model.capture(RAGGED, [AT, "logits"], edits={AT: splice(sae, ablate)})
    assert torch.allclose(found[AT], by_hand, atol=1e-5) and torch.allclose(found["logits"], wanted, atol=1e-5)
    run = model.run(f"prompt {{ids}}\nsae enc = {{sae}} at {AT}\nzero enc.F{live} @all\nsave {AT}, logits", ids=RAGGED,
                    sae=sae)
    for row, ids in enumerate(RAGGED):
        assert torch.allclose(run[AT][row, -len(ids):], by_hand[row, -len(ids):], atol=1e-4)
        assert torch.allclose(run["logits"][row, -len(ids):], wanted[row, -len(ids):], atol=1e-4)


def test_a_planted_latent_pushes_the_logit_it_was_made_for_and_ablating_it_takes_that_back(models):
    model = models["gpt2"]
    token, ids = 17, [[3, 14, 15, 9, 26, 5]]
    head = model.hf.lm_head.weight[token].detach()
    apart = head - head.mean()
    sae = replace(made(), w_dec=torch.cat([5 * apart[None] / apart.norm(), made().w_dec[1:]]),
                  b_enc=made().b_enc.index_fill(0, torch.tensor([0]), 6.0))
    site = "L1.resid_post"
    plain = float(model.capture(ids, "logits")["logits"][0, -1].log_softmax(-1)[token])

    def off(f):
        return f.index_fill(-1, torch.tensor([0]), 0.0)

    def at(edit, error):
        logits = model.capture(ids, "logits", edits={site: splice(sae, edit, error=error)})["logits"]
        return float(logits[0, -1].log_softmax(-1)[token])

    assert at(None, "keep") == pytest.approx(plain, abs=1e-4)
    assert at(off, "keep") < plain - 1
    assert at(None, "drop") > at(off, "drop") + 1


@pytest.mark.parametrize("error", ["keep", "drop"])
@pytest.mark.parametrize("norm", ["none", "layer", "length"])
def test_latents_receive_the_gradient_of_what_is_decoded_from_them(models, error, norm):
    model, sae, seen = models["llama"], made("relu", norm=norm, scale=1.5), {}
    sae = sae if norm != "none" else replace(sae, scale=2.0)

    def watch(f):
        seen["features"] = f

    found = model.capture(RAGGED, [AT], edits={AT: splice(sae, watch, error=error)}, grad=True)
    at_site, = torch.autograd.grad(last(found.output), seen["features"])
    downstream = model.capture(RAGGED, [AT], metric=last, edits={AT: splice(sae, error=error)})
    x = model.capture(RAGGED, AT)[AT]
    factor = {"none": torch.ones(()), "layer": x.std(-1, keepdim=True),
              "length": x.norm(dim=-1, keepdim=True) / D ** 0.5}[norm] / sae.scale
    wanted = downstream.grads[AT] * factor @ sae.w_dec.T
    assert float(wanted.abs().max()) > 0
    torch.testing.assert_close(at_site, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=1e-3)


def test_objects_and_plain_dictionaries_are_spliced_too_with_gradients(models):
    model, sae, seen = models["gpt2"], made(), {}

    class Mine:
        n_features = N
        encode = staticmethod(sae.encode)
        decode = staticmethod(sae.decode)

    for source in (Mine(), Dictionary(sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec)):
        for error in ("keep", "drop"):
            wanted = model.capture(RAGGED, "logits", edits={AT: splice(sae, lambda f: f * 0.5, error=error)})["logits"]
            found = model.capture(RAGGED, "logits", edits={AT: splice(source, lambda f: f * 0.5, error=error)})["logits"]
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
        acts = model.capture(RAGGED, [AT], edits={AT: splice(source, lambda f: seen.update(f=f))}, grad=True)
        assert float(torch.autograd.grad(last(acts.output), seen["f"])[0].abs().max()) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_features_of_every_kind_are_saved_and_changed_in_the_language_from_a_file(models, kind, tmp_path):
    model, sae = models["gpt2"], made(kind)
    path = save_sae(sae, tmp_path / "enc.safetensors")
    ids = RAGGED[:1]
    text = f'prompt {{ids}}\nsae enc = "{path}" at {AT}\nsave enc.F*\nsave logits\n'
    stream = model.capture(ids, AT)[AT]
    run = model.run(text, ids=ids)
    torch.testing.assert_close(run["enc.F*"], sae.encode(stream), atol=1e-4, rtol=1e-4)
    after = sae.encode(stream)
    after[..., [3, 9]] *= 4
    wanted = model.capture(ids, "logits", edits={AT: lambda x: sae.changed(x, sae.encode(x), after)})["logits"]
    changed = model.run(text + "scale enc.F[3,9] by 4", ids=ids)
    torch.testing.assert_close(changed["logits"], wanted, atol=1e-4, rtol=1e-4)


def test_a_splice_says_what_it_does_not_know():
    with pytest.raises(ModelError, match="keep"):
        splice(made(), error="scale")
    with pytest.raises(ModelError, match="no dictionary"):
        splice(object())
    with pytest.raises(ModelError, match="reads vectors of 32"):
        splice(made())(draws(2, 33))
    assert attach(made()).n_features == N
