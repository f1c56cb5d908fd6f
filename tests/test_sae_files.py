"""Autoencoders in files: what comes back is what was stored, others' layouts are read as data, and the unknown is named."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import draws
from safetensors.torch import save_file
from test_sae import FORMS, KINDS, D, N, X, build

from hooklab.errors import ModelError
from hooklab.sae import (
    SAE,
    BatchTopK,
    Dictionary,
    Gated,
    JumpReLU,
    ReLU,
    TopK,
    attach,
    files,
    load_sae,
    read_openai,
    read_saelens,
    save_sae,
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back_from_its_file(kind, form, tmp_path):
    sae = replace(build(kind, **FORMS[form]), statistics={"frequency": draws(N).double(), "last_active": torch.arange(N)},
                  about={"site": "L3.resid_post", "note": "ünï"})
    back = load_sae(save_sae(sae, tmp_path / "enc.safetensors"))
    assert back.tied == sae.tied and back.about == sae.about and repr(back) == repr(sae)
    assert (back.pre_bias, back.norm, back.scale, back.restore) == (sae.pre_bias, sae.norm, sae.scale, sae.restore)
    assert type(back.activation) is type(sae.activation) and back.activation.numbers == sae.activation.numbers
    assert all(torch.equal(a, b) for a, b in zip(back(X), sae(X), strict=True))
    assert all(torch.equal(back.statistics[name], t) and back.statistics[name].dtype == t.dtype
               for name, t in sae.statistics.items())
    assert torch.equal(attach(tmp_path / "enc.safetensors").encode(X), sae.encode(X))


def test_a_transcoder_and_other_types_of_number_come_back(tmp_path):
    made = SAE(draws(D, N), draws(N), draws(N, 9), draws(9), pre_bias=False, restore=False).to(dtype=torch.bfloat16)
    back = load_sae(save_sae(made, tmp_path / "t.safetensors"))
    assert back.w_enc.dtype == torch.bfloat16 and torch.equal(back(X).reconstruction, made(X).reconstruction)


def test_a_file_that_is_there_stays_unless_it_is_said_to_go(tmp_path):
    path = save_sae(build("relu"), tmp_path / "enc.safetensors")
    before = path.read_bytes()
    with pytest.raises(ModelError, match="exists"):
        save_sae(build("topk"), path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["enc.safetensors"]
    save_sae(build("topk"), path, overwrite=True)
    assert isinstance(load_sae(path).activation, TopK)
    with pytest.raises(ModelError, match="could not be written"):
        save_sae(build(), tmp_path / "nowhere" / "enc.safetensors")
    with pytest.raises(ModelError, match=r"\.safetensors"):
        save_sae(build(), tmp_path / "enc.pt")
    with pytest.raises(ModelError, match="JSON"):
        save_sae(replace(build(), about={"x": {1, 2}}), tmp_path / "other.safetensors")


def _changed(path, change, tensors=None):
    told = json.loads(files.header(path)[files.KEY])
    change(told)
    from safetensors.torch import load_file
    save_file(load_file(path) | (tensors or {}), path, {files.KEY: json.dumps(told)})


@pytest.mark.parametrize(("change", "tensors", "words"), [
    (lambda t: t.update(version=2), {}, "version 2"),
    (lambda t: t.update(dropout=0.1), {}, "dropout"),
    (lambda t: t.pop("norm"), {}, "norm"),
    (lambda t: t["activation"].update(kind="softplus"), {}, "softplus"),
    (lambda t: t["activation"].update(temperature=2), {}, "temperature"),
    (lambda t: t["activation"].update(kind="topk"), {}, "lacks a part"),
    (lambda t: t.update(norm="rms"), {}, "rms"),
    (lambda t: t.update(statistics=["frequency"]), {}, "statistics.frequency"),
    (lambda t: None, {"W_skip": torch.ones(2)}, "W_skip"),
    (lambda t: None, {"activation.slope": torch.ones(N)}, "slope"),
    (lambda t: None, {"b_enc": torch.ones(3)}, "b_enc"),
])
def test_a_file_that_says_what_is_not_known_is_refused(change, tensors, words, tmp_path):
    path = save_sae(build("relu"), tmp_path / "enc.safetensors")
    _changed(path, change, tensors)
    with pytest.raises(ModelError, match=words):
        load_sae(path)


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_file_that_was_cut_short_is_refused(cut, tmp_path):
    path = save_sae(build("relu"), tmp_path / "enc.safetensors")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match="cannot be read"):
        load_sae(path)


# OpenAI ----------------------------------------------------------------------------------------------------------------


def openai(kind="ReLU", tied=False):
    state = OrderedDict(pre_bias=draws(D, seed=4), latent_bias=draws(N, seed=2),
                        stats_last_nonzero=torch.arange(N), latents_activation_frequency=torch.rand(N),
                        latents_mean_square=torch.rand(N))
    state["encoder.weight"] = draws(N, D, seed=1)
    state["decoder.linear.weight" if tied else "decoder.weight"] = state["encoder.weight"] if tied else draws(D, N, seed=3)
    return state | {"activation": kind, "activation_state_dict": OrderedDict() if kind == "ReLU" else
                    OrderedDict(k=4, postact_fn="ReLU")}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["ReLU", "TopK"])
def test_openais_layout_is_read(kind, tied, tmp_path):
    state = openai(kind, tied)
    torch.save(state, tmp_path / "6.pt")
    sae = load_sae(tmp_path / "6.pt")
    x = X.double().numpy()
    mean, std = (x.mean(-1, keepdims=True), x.std(-1, ddof=1, keepdims=True)) if kind == "TopK" else (0.0, 1.0)
    put = (x - mean) / (std + 1e-5) if kind == "TopK" else x
    w, bias = state["encoder.weight"].double().numpy(), state["pre_bias"].double().numpy()
    dec = w.T if tied else state["decoder.weight"].double().numpy()
    pre = np.einsum("bpd,fd->bpf", put - bias, w) + state["latent_bias"].double().numpy()
    features = np.maximum(pre, 0)
    if kind == "TopK":
        features[pre < np.sort(pre, -1)[..., -4, None]] = 0
    found = sae(X)
    np.testing.assert_allclose(found.pre, pre, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.features, features, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.reconstruction, (np.einsum("bpf,df->bpd", features, dec) + bias) * std + mean,
                               rtol=1e-4, atol=1e-4)
    assert sae.tied == tied and torch.equal(sae.statistics["frequency"], state["latents_activation_frequency"])
    assert torch.equal(sae.statistics["last_active"], torch.arange(N))
    assert read_openai(tmp_path / "6.pt", norm="none").norm == "none"
    back = load_sae(save_sae(sae, tmp_path / "own.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(back(X), sae(X), strict=True))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run_it(tmp_path):
    torch.save(openai() | {"extra": Evil(str(tmp_path / "made"))}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Evil(str(tmp_path / "made"))))
    for name in "ab":
        with pytest.raises(ModelError, match="running code"):
            load_sae(tmp_path / f"{name}.pt")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("change", "words"), [
    ({"activation": "GELU"}, "GELU"), ({"slope": torch.ones(2)}, "slope"), ({"pre_bias": None}, "pre_bias"),
    ({"decoder.weight": None}, "decoder.weight"),
    ({"activation": "TopK", "activation_state_dict": {"k": 3, "postact_fn": "Tanh"}}, "Tanh"),
    ({"activation_state_dict": {"alpha": 3}}, "alpha"),
])
def test_what_openais_layout_does_not_have_is_named(change, words, tmp_path):
    state = {name: value for name, value in (openai() | change).items() if value is not None}
    torch.save(state, tmp_path / "6.pt")
    with pytest.raises(ModelError, match=words):
        load_sae(tmp_path / "6.pt")


# SAELens ---------------------------------------------------------------------------------------------------------------

BASE = {"d_in": D, "d_sae": N, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
        "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"hook_name": "blocks.3.hook_resid_pre", "model_name": "gpt2", "sae_lens_version": "6.0.0"}}
OWN = {"standard": {}, "topk": {"k": 5}, "jumprelu": {}, "gated": {}, "batchtopk": {"k": 2.5}}
TENSORS = {"standard": ["b_enc"], "topk": ["b_enc"], "jumprelu": ["b_enc", "threshold"],
           "gated": ["b_gate", "r_mag", "b_mag"], "batchtopk": ["b_enc", "topk_threshold"]}
VALUES = {"W_enc": draws(D, N, seed=1), "W_dec": draws(N, D, seed=3), "b_dec": draws(D, seed=4), "b_enc": draws(N, seed=2),
          "threshold": draws(N, seed=5).abs(), "log_threshold": draws(N, seed=5).abs().log(), "b_gate": draws(N, seed=6),
          "r_mag": draws(N, seed=7) / 3, "b_mag": draws(N, seed=8), "topk_threshold": torch.tensor(0.6).double()}


def saelens(folder, kind="standard", cfg=None, tensors=()):
    names = ["W_enc", "W_dec", "b_dec", *TENSORS[kind]]
    folder.mkdir(exist_ok=True)
    save_file({name: VALUES[name] for name in names} | dict(tensors), folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(BASE | {"architecture": kind} | OWN[kind] | (cfg or {})))
    return folder


def by_hand(kind, x, norm="none", centre=True):
    t = {name: value.double().numpy() for name, value in VALUES.items()}
    x = x.double().numpy()
    mean, factor, put = 0.0, 1.0, x
    if norm == "layer_norm":
        mean, factor = x.mean(-1, keepdims=True), x.std(-1, ddof=1, keepdims=True)
        put = (x - mean) / (factor + 1e-5)
    if norm == "constant_norm_rescale":
        factor = np.linalg.norm(x, axis=-1, keepdims=True) / np.sqrt(D)
        put = x / factor
    put = put - t["b_dec"] if centre else put
    if kind == "gated":
        active = np.einsum("bpd,df->bpf", put, t["W_enc"]) + t["b_gate"] > 0
        size = np.einsum("bpd,df->bpf", put, t["W_enc"] * np.exp(t["r_mag"])) + t["b_mag"]
        features = active * np.maximum(size, 0)
    else:
        pre = np.einsum("bpd,df->bpf", put, t["W_enc"]) + t["b_enc"]
        least = {"standard": 0, "topk": np.maximum(np.sort(pre, -1)[..., -5, None] - 1e-12, 0), "jumprelu": t["threshold"],
                 "batchtopk": t["topk_threshold"]}[kind]
        features = pre * (pre > least)
    return features, (np.einsum("bpf,fd->bpd", features, t["W_dec"]) + t["b_dec"]) * factor + mean


@pytest.mark.parametrize("norm", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("kind", OWN)
def test_saelens_folders_are_read(kind, centre, norm, tmp_path):
    folder = saelens(tmp_path, kind, {"apply_b_dec_to_input": centre, "normalize_activations": norm})
    features, out = by_hand(kind, X, norm, centre)
    for sae in (load_sae(folder), load_sae(folder / "sae_weights.safetensors"), attach(str(folder))):
        np.testing.assert_allclose(sae.encode(X), features, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(sae(X).reconstruction, out, rtol=1e-4, atol=1e-4)
    assert sae.about["hook_name"] == "blocks.3.hook_resid_pre"


def test_older_and_odder_forms_of_saelens_are_read(tmp_path):
    log = saelens(tmp_path / "log", "standard", {"architecture": "jumprelu"}, {"log_threshold": VALUES["log_threshold"]})
    np.testing.assert_allclose(load_sae(log).encode(X), by_hand("jumprelu", X)[0], rtol=1e-4, atol=1e-4)
    old = {"hook_point": "blocks.3.hook_resid_pre", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5},
           "finetuning_scaling_factor": True, "l1_coefficient": 1.0, "normalize_activations": False, "lr": 1e-3}
    factor = draws(N, seed=9)
    sae = load_sae(saelens(tmp_path / "old", "standard", old, {"scaling_factor": factor}))
    features, _ = by_hand("topk", X)
    np.testing.assert_allclose(sae.encode(X), features, rtol=1e-4, atol=1e-4)
    dec = (VALUES["W_dec"] * factor[:, None]).double().numpy()
    np.testing.assert_allclose(sae(X).reconstruction, features @ dec + VALUES["b_dec"].numpy(), rtol=1e-4, atol=1e-4)
    scaled = load_sae(saelens(tmp_path / "scaled", "topk", {"rescale_acts_by_decoder_norm": True}))
    length = VALUES["W_dec"].norm(dim=1)
    pre = ((X - VALUES["b_dec"]) @ VALUES["W_enc"] + VALUES["b_enc"]) * length
    kept = torch.relu(torch.where(pre >= pre.sort(-1).values[..., -5:-4], pre, 0))
    torch.testing.assert_close(scaled.encode(X), kept, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scaled.decode(kept), kept / length @ VALUES["W_dec"] + VALUES["b_dec"], atol=1e-4, rtol=1e-4)
    save_file({"sparsity": torch.full((N,), -3.0)}, tmp_path / "old" / "sparsity.safetensors")
    torch.testing.assert_close(load_sae(tmp_path / "old").statistics["frequency"], torch.full((N,), 1e-3))


def test_an_unsaid_scale_has_to_be_said(tmp_path):
    folder = saelens(tmp_path, "standard", {"normalize_activations": "expected_average_only_in"})
    with pytest.raises(ModelError, match="scale="):
        load_sae(folder)
    features, out = by_hand("standard", X * 0.5)
    sae = load_sae(folder, scale=0.5)
    np.testing.assert_allclose(sae.encode(X), features, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sae(X).reconstruction, out / 0.5, rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match="no scale to give"):
        load_sae(saelens(tmp_path, "standard"), scale=2.0)
    with pytest.raises(ModelError, match="norm"):
        load_sae(folder, norm="layer")


def test_transcoders_of_saelens_are_read(tmp_path):
    wide = {"W_dec": draws(N, 9, seed=3), "b_dec": draws(9, seed=4)}
    cfg = {"architecture": "jumprelu_transcoder", "d_out": 9, "apply_b_dec_to_input": False}
    sae = load_sae(saelens(tmp_path, "jumprelu", cfg, wide))
    pre = X @ VALUES["W_enc"] + VALUES["b_enc"]
    wanted = torch.where(pre > VALUES["threshold"], torch.relu(pre), 0) @ wide["W_dec"] + wide["b_dec"]
    torch.testing.assert_close(sae(X).reconstruction, wanted)


@pytest.mark.parametrize(("cfg", "tensors", "words"), [
    ({"architecture": "matryoshka_batchtopk"}, {}, "matryoshka_batchtopk"),
    ({"architecture": "skip_transcoder"}, {}, "skip_transcoder"),
    ({"activation_fn": "tanh-relu"}, {}, "tanh-relu"), ({"use_gate_bias": True}, {}, "use_gate_bias"),
    ({"normalize_activations": "batch_norm"}, {}, "batch_norm"), ({"normalize_activations": [1]}, {}, r"\[1\]"),
    ({"d_sae": 99}, {}, "d_sae=99"), ({}, {"W_skip": torch.ones(2)}, "W_skip"),
    ({"architecture": "jumprelu"}, {}, "threshold"), ({"architecture": "gated"}, {}, "b_gate"),
    ({"architecture": "topk"}, {}, "'k'"), ({}, {"scaling_factor": torch.full((N,), 2.0)}, "scaling_factor"),
])
def test_what_saelens_says_and_hooklab_does_not_know_is_named(cfg, tensors, words, tmp_path):
    with pytest.raises(ModelError, match=words):
        read_saelens(saelens(tmp_path, "standard", cfg, tensors))


def test_a_plain_file_is_a_relu_and_one_with_more_in_it_is_not_taken_for_one(tmp_path):
    plain = {name: VALUES[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    save_file(plain, tmp_path / "plain.safetensors")
    assert isinstance(attach(tmp_path / "plain.safetensors"), Dictionary)
    sae = load_sae(tmp_path / "plain.safetensors")
    assert isinstance(sae.activation, ReLU)
    np.testing.assert_allclose(sae.encode(X), by_hand("standard", X)[0], rtol=1e-4, atol=1e-4)
    save_file(plain | {"threshold": VALUES["threshold"]}, tmp_path / "more.safetensors")
    with pytest.raises(ModelError, match="threshold"):
        attach(tmp_path / "more.safetensors")
    with pytest.raises(ModelError, match="no dictionary of features at"):
        load_sae(tmp_path / "nothing")
    with pytest.raises(ModelError, match="cannot be read"):
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "cfg.json").write_text("{")
        load_sae(tmp_path / "broken")


def test_the_kinds_of_a_file_are_those_it_names(tmp_path):
    kinds = {"standard": ReLU, "topk": TopK, "jumprelu": JumpReLU, "gated": Gated, "batchtopk": BatchTopK}
    for kind, wanted in kinds.items():
        assert type(load_sae(saelens(tmp_path / kind, kind)).activation) is wanted
