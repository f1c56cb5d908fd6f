"""Autoencoders of SAELens itself, where it is installed: their features and outputs are those that it computes."""

from __future__ import annotations

import pytest
import torch

from hooklab.errors import ModelError
from hooklab.sae import from_saelens, load_sae

sae_lens = pytest.importorskip("sae_lens", reason="sae_lens is optional")

D, N = 12, 40
ACROSS = {"d_out": D, "apply_b_dec_to_input": False}
NORMS = ("none", "layer_norm", "constant_norm_rescale")
KINDS = {
    "standard": (sae_lens.StandardSAE, sae_lens.StandardSAEConfig, {}),
    "topk": (sae_lens.TopKSAE, sae_lens.TopKSAEConfig, {"k": 5}),
    "topk by the decoder's norm": (sae_lens.TopKSAE, sae_lens.TopKSAEConfig,
                                   {"k": 5, "rescale_acts_by_decoder_norm": True}),
    "jumprelu": (sae_lens.JumpReLUSAE, sae_lens.JumpReLUSAEConfig, {}),
    "gated": (sae_lens.GatedSAE, sae_lens.GatedSAEConfig, {}),
    "transcoder": (sae_lens.Transcoder, sae_lens.TranscoderConfig, ACROSS),
    "jumprelu_transcoder": (sae_lens.JumpReLUTranscoder, sae_lens.JumpReLUTranscoderConfig, ACROSS),
}
TRAINED = {
    "batchtopk": (sae_lens.BatchTopKTrainingSAE, sae_lens.BatchTopKTrainingSAEConfig, {"k": 5.0}),
    "matryoshka": (sae_lens.MatryoshkaBatchTopKTrainingSAE, sae_lens.MatryoshkaBatchTopKTrainingSAEConfig,
                   {"k": 5.0, "matryoshka_widths": [10, 40]}),
}
UNKNOWN = {
    "abstopk": (sae_lens.AbsTopKSAE, sae_lens.AbsTopKSAEConfig, {"k": 5}),
    "skip_transcoder": (sae_lens.SkipTranscoder, sae_lens.SkipTranscoderConfig, ACROSS),
    "matching_pursuit": (sae_lens.MatchingPursuitSAE, sae_lens.MatchingPursuitSAEConfig, {}),
}
WAYS = [(kind, norm, centre) for kind, made in KINDS.items() for norm in NORMS for centre in (True, False)
        if made[2] is not ACROSS or not centre]


def drawn(made, **options):
    """One of theirs with drawn weights: what is initialised to zeros or to its own transpose hides mistakes."""
    kind, config, own = made
    sae = kind(config(**{"d_in": D, "d_sae": N, **own, **options}))
    with torch.no_grad():
        for name, one in sae.named_parameters():
            one.copy_(torch.randn(one.shape).abs() if "threshold" in name else torch.randn(one.shape) / 3)
    return sae


def agrees(ours, theirs, x):
    with torch.no_grad():
        features, output = theirs.encode(x), theirs(x)
    assert 0 < int((features != 0).sum()) < features.numel()
    torch.testing.assert_close(ours.encode(x), features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(x).reconstruction, output, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "norm", "centre"), WAYS)
def test_features_and_outputs_are_theirs_from_the_object_and_from_its_files(kind, norm, centre, tmp_path):
    theirs, x = drawn(KINDS[kind], normalize_activations=norm, apply_b_dec_to_input=centre), torch.randn(3, 7, D)
    theirs.save_model(tmp_path)
    agrees(from_saelens(theirs), theirs, x)
    agrees(load_sae(tmp_path), theirs, x)


@pytest.mark.parametrize("kind", TRAINED)
def test_what_was_trained_is_read_as_it_is_stored_for_use(kind, tmp_path):
    theirs = drawn(TRAINED[kind])
    theirs.topk_threshold = torch.tensor(0.7, dtype=torch.double)
    theirs.save_inference_model(tmp_path)
    agrees(load_sae(tmp_path), sae_lens.SAE.load_from_disk(tmp_path), torch.randn(3, 7, D))


@pytest.mark.parametrize("kind", UNKNOWN)
def test_kinds_that_hooklab_does_not_know_are_named(kind):
    with pytest.raises(ModelError, match="does not know|has the architecture"):
        from_saelens(drawn(UNKNOWN[kind]))
