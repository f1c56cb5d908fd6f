"""Dictionaries by site: opened when asked for, cut down to what is alive, and taken over from another package's objects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracle import draws
from safetensors.torch import save_file

from hooklab.errors import ModelError, SiteError
from hooklab.sae import SAE, FeatureStats, Gated, JumpReLU, ReLU, SAEs, TopK, from_saelens, omit_dead, save_sae

D, N = 6, 20
X = draws(3, 5, D, seed=9)
KINDS = {"relu": ReLU(), "topk": TopK(4), "jumprelu": JumpReLU(draws(N, seed=5).abs() / 4),
         "gated": Gated(draws(N, seed=6) / 3, draws(N, seed=7))}
DEAD = [2, 7, 11, 19]


def made(kind="relu", seed=1):
    bias = draws(N, seed=seed + 1).index_fill(0, torch.tensor(DEAD), -1e4)
    activation = KINDS[kind]
    if kind == "gated":
        activation = replace(activation, b_mag=activation.b_mag.index_fill(0, torch.tensor(DEAD), -1e4))
    return SAE(draws(D, N, seed=seed), bias, draws(N, D, seed=seed + 2), draws(D, seed=seed + 3), activation)


# Dead features ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_without_dead_features_reconstructions_the_activation_and_biases_are_the_same(kind):
    sae = made(kind)
    stats = FeatureStats(N).add(sae.encode(X))
    left = omit_dead(sae, stats)
    never = (sae.encode(X) != 0).flatten(0, 1).sum(0) == 0
    assert set(DEAD) <= set(never.nonzero()[:, 0].tolist()) and left.n_features == N - int(never.sum())
    torch.testing.assert_close(left(X).reconstruction, sae(X).reconstruction)
    assert type(left.activation) is type(sae.activation) and left.activation.numbers == sae.activation.numbers
    assert torch.equal(left.b_dec, sae.b_dec) and torch.equal(left.b_enc, sae.b_enc[~never])


def test_features_are_left_out_by_activity_and_not_by_number():
    sae = made()
    features = torch.zeros(100, N)
    features[:, [0, 5, 13]] = 1
    features[3, 8] = 1
    stats = FeatureStats(N).add(features)
    kept = omit_dead(sae, stats)
    assert torch.equal(kept.w_dec, sae.w_dec[[0, 5, 8, 13]])
    assert torch.equal(omit_dead(sae, stats, frequency=0.5).w_dec, sae.w_dec[[0, 5, 13]])
    assert torch.equal(omit_dead(sae, stats, after=50).w_dec, sae.w_dec[[0, 5, 13]])
    known = replace(sae, statistics=stats.tensors())
    assert torch.equal(omit_dead(known).w_dec, kept.w_dec)
    assert torch.equal(omit_dead(known).statistics["frequency"], stats.frequency[[0, 5, 8, 13]])


def test_what_cannot_be_told_dead_is_an_error():
    sae = made()
    with pytest.raises(ModelError, match="nothing is known"):
        omit_dead(sae)
    with pytest.raises(ModelError, match="statistics of a stream"):
        omit_dead(sae, after=5)
    with pytest.raises(ModelError, match="of 3 features"):
        omit_dead(sae, FeatureStats(3).add(torch.ones(1, 3)))
    with pytest.raises(ModelError, match="no feature would be left"):
        omit_dead(sae, FeatureStats(N).add(torch.zeros(4, N)))


# The registry ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    save_sae(made("topk"), tmp_path / "L3.mlp_post.safetensors")
    save_sae(made("gated", seed=30), tmp_path / "blocks.1.hook_resid_post.safetensors")
    save_file({"W_enc": draws(D, N), "b_enc": draws(N), "W_dec": draws(N, D), "b_dec": draws(D)},
              tmp_path / "L0.attn_out.safetensors")
    torch.save({"encoder.weight": draws(N, D), "decoder.weight": draws(D, N), "latent_bias": draws(N),
                "pre_bias": draws(D)}, tmp_path / "L2.mlp_out.pt")
    (tmp_path / "notes.txt").write_text("not one of them")
    save_sae(made(), tmp_path / "other.safetensors")
    return tmp_path


def test_a_folder_gives_a_dictionary_for_each_site_in_the_order_of_the_model_and_opens_each_once(folder):
    saes = SAEs.from_folder(folder)
    assert list(saes) == ["L0.attn_out", "L1.resid_post", "L2.mlp_out", "L3.mlp_post"] and saes.opened == ()
    first = saes["L3.mlp_post"]
    assert saes.opened == ("L3.mlp_post",) and saes["blocks.3.mlp.hook_post"] is first
    assert torch.equal(first.w_dec, made("topk").w_dec) and first.activation.k == 4
    (folder / "L3.mlp_post.safetensors").unlink()
    assert saes["L3.mlp_post"] is first and saes.n_features("L1.resid_post") == N
    assert "L2.mlp_out" in saes and "L9.mlp_out" not in saes and "nonsense" not in saes
    assert saes.open().opened == tuple(saes)


def test_files_named_by_their_layer_are_of_the_site_that_is_said(tmp_path):
    for layer in (0, 3, 10):
        state = {"encoder.weight": draws(N, D, seed=layer), "decoder.weight": draws(D, N), "latent_bias": draws(N),
                 "pre_bias": draws(D)}
        torch.save(state, tmp_path / f"{layer}.pt")
    saes = SAEs.from_folder(tmp_path, site="mlp_post")
    assert list(saes) == ["L0.mlp_post", "L3.mlp_post", "L10.mlp_post"]
    assert torch.equal(saes["L10.mlp_post"].w_enc, draws(N, D, seed=10).T)
    with pytest.raises(ModelError, match="named by its site"):
        SAEs.from_folder(tmp_path)
    with pytest.raises(SiteError):
        SAEs.from_folder(tmp_path, site="mlp_pots")


def test_a_registry_without_dead_features_is_opened_as_lazily(folder):
    sae = made("topk")
    stats = FeatureStats(N).add(sae.encode(X))
    saes = SAEs.from_folder(folder)
    alive = saes.omit_dead({"L3.mlp_post": stats})
    assert alive.opened == () and saes.opened == ()
    assert torch.equal(alive["L3.mlp_post"].w_dec, omit_dead(sae, stats).w_dec)
    assert saes.n_features("L3.mlp_post") == N > alive.n_features("L3.mlp_post")
    with pytest.raises(ModelError, match="nothing is known"):
        alive["L1.resid_post"]
    with pytest.raises(ModelError, match="only an SAE"):
        alive["L0.attn_out"]


def test_what_a_registry_lacks_or_cannot_tell_apart_is_said(folder):
    saes = SAEs.from_folder(folder)
    with pytest.raises(KeyError, match=r"L4\.mlp_out"):
        saes["L4.mlp_out"]
    for wrong in ("L*.mlp_out", "L3H1.z", "L-1.mlp_out"):
        with pytest.raises(SiteError):
            saes[wrong]
    with pytest.raises(SiteError, match="one for each"):
        SAEs({"L3.mlp_out": made(), "blocks.3.hook_mlp_out": made()})
    save_sae(made(), folder / "L1.resid_post.safetensors")
    with pytest.raises(ModelError, match="both of L1"):
        SAEs.from_folder(folder)
    with pytest.raises(ModelError, match="no folder"):
        SAEs.from_folder(folder / "there")
    (folder / "empty").mkdir()
    with pytest.raises(ModelError, match="named by its site"):
        SAEs.from_folder(folder / "empty")


# Objects of SAELens ------------------------------------------------------------------------------------------------------


@dataclass
class Config:
    """Settings as a dataclass, as older versions have them."""

    d_in: int = D
    d_sae: int = N
    architecture: str = "standard"
    dtype: object = torch.float32
    device: object = torch.device("cpu")
    apply_b_dec_to_input: bool = False
    normalize_activations: str = "none"
    hook_name: str = "blocks.1.hook_resid_post"


class Opened(torch.nn.Module):
    """What SAELens hands out: a module with `cfg`, and parameters by its names."""

    def __init__(self, cfg, **tensors):
        super().__init__()
        self.cfg = cfg
        for name, value in tensors.items():
            setattr(self, name, torch.nn.Parameter(value.clone()))


T = {"W_enc": draws(D, N, seed=1), "b_enc": draws(N, seed=2), "W_dec": draws(N, D, seed=3), "b_dec": draws(D, seed=4)}


def test_an_object_of_saelens_is_taken_over_by_its_cfg_and_weights():
    obj = Opened(Config(), **T)
    sae = from_saelens(obj)
    features = np.maximum(X.numpy() @ T["W_enc"].numpy() + T["b_enc"].numpy(), 0)
    np.testing.assert_allclose(sae.encode(X), features, atol=1e-5)
    np.testing.assert_allclose(sae(X).reconstruction, features @ T["W_dec"].numpy() + T["b_dec"].numpy(), atol=1e-4)
    assert sae.about["hook_name"] == "blocks.1.hook_resid_post" and not sae.w_enc.requires_grad
    with torch.no_grad():
        obj.W_dec.zero_()
    np.testing.assert_array_equal(sae.w_dec, T["W_dec"])


def test_settings_that_tell_themselves_and_thresholds_are_read_too():
    told = {"architecture": "jumprelu", "d_in": D, "d_sae": N, "apply_b_dec_to_input": True, "dtype": "float32",
            "device": "cpu", "normalize_activations": "none", "reshape_activations": "none",
            "metadata": {"hook_name": "blocks.0.hook_mlp_out", "model_name": "gpt2"}}
    sae = from_saelens(Opened(SimpleNamespace(to_dict=lambda: told), threshold=draws(N, seed=8).abs(), **T))
    pre = (X.numpy() - T["b_dec"].numpy()) @ T["W_enc"].numpy() + T["b_enc"].numpy()
    np.testing.assert_allclose(sae.encode(X), pre * (pre > draws(N, seed=8).abs().numpy()), atol=1e-5)
    assert sae.about["hook_name"] == "blocks.0.hook_mlp_out"


def test_what_is_no_such_object_or_says_what_is_unknown_is_refused():
    with pytest.raises(ModelError, match="state_dict"):
        from_saelens(object())
    with pytest.raises(ModelError, match="do not know|does not know"):
        from_saelens(Opened(SimpleNamespace(architecture="standard", secret=1), **T))
    with pytest.raises(ModelError, match="scale="):
        from_saelens(Opened(Config(normalize_activations="expected_average_only_in"), **T))
    assert from_saelens(Opened(Config(normalize_activations="expected_average_only_in"), **T), scale=2.0).scale == 2
