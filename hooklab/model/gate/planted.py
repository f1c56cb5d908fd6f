"""The weights of the model, set by hand: an image's way into the text is through the end-of-image token, or past it.

The codes that the model's own encoder gives striped pictures carry the kind of stripes. In the gated model one head of
layer 1 lets the end-of-image token gather the kind, and the heads of layer 3 let the text look at that token, and one of
them reads what it gathered. In the other model (the null) the text looks at the image's tokens in layer 3, and reads the
kind there. All else is small and random, and never carries a kind from one token to another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .drawing import KINDS, picture
from .words import CODES, SIDE, SPECIAL, processor, vocabulary

NAMES = {"gate": True, "gate-null": False}
"""What `hl.load` opens -> whether the end of the image is the way."""
LAYERS, HEADS, WIDTH = 4, 4, 64
HEAD = WIDTH // HEADS
GATHER, READ = 1, 3
FLAGS = {"image": 0, "eoi": 1, "text": 2, "bos": 3}
KIND, GATHERED, OUT = slice(4, 6), slice(8, 10), slice(12, 14)
IMAGE_NOISE, TEXT_NOISE = slice(16, 40), slice(40, 64)
SHARP = 3.0
VQ = dict(embed_dim=8, num_embeddings=CODES, double_latent=False, latent_channels=8, resolution=SIDE, in_channels=3,
          base_channels=32, channel_multiplier=[1, 1, 1, 1], num_res_blocks=1, attn_resolutions=None, dropout=0.0,
          attn_type="vanilla")


def build(*, gate: bool, seed: int = 0, **options: Any) -> tuple[Any, Any]:
    """The model and its processor; the caller's random state is left alone.

    Args:
        gate: Whether the text reads the end of the image, or the image itself.
        seed: Of all that is random in it: the encoder of images, the codes, the noise.
        options: Of the config, such as `attn_implementation`.
    """
    from transformers import ChameleonConfig, ChameleonForConditionalGeneration

    made, words = processor(), vocabulary()
    if not seed:
        options["name_or_path"] = next(name for name, has in NAMES.items() if has == gate)
    config = ChameleonConfig(vocab_size=len(words), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=LAYERS,
                             num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=128,
                             bos_token_id=0, eos_token_id=1, pad_token_id=2, vocabulary_map=words, vq_config=VQ,
                             **options)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = ChameleonForConditionalGeneration(config).eval()
        codes = _codebook(model, made, seed)
        _embed(model, words, codes)
        for layer in model.model.layers:
            _idle(layer)
        gather, read = (model.model.layers[i].self_attn for i in (GATHER, READ))
        if gate:
            _look(gather, {0: [("eoi", "image", 7), ("text", "bos", 6), ("image", "bos", 6), ("bos", "bos", 6)]})
            _carry(gather, KIND, GATHERED)
        seen, source = ("eoi", GATHERED) if gate else ("image", KIND)
        others = [one for one in FLAGS if one not in ("text", "bos")]
        _look(read, {head: [("text", seen, 7), *((one, "bos", 6) for one in others)] for head in range(HEADS)})
        _carry(read, source, OUT)
    return model, made


def _codebook(model: Any, made: Any, seed: int) -> Tensor:
    """Codes drawn from the encoder's own features of pictures; returns how much each speaks for a kind [code kind]."""
    vq = model.model.vqmodel
    size = len(vq.quantize.embedding.weight)
    count = 4 * size
    shown = made.image_processor([picture(KINDS[i % 2], seed * 97 + i) for i in range(count)], return_tensors="pt")
    features = vq.quant_conv(vq.encoder(shown["pixel_values"])).flatten(2)  # [batch d pos]
    drawn = torch.randperm(count)[:size]
    vq.quantize.embedding.weight.copy_(features[drawn, :, torch.randint(features.shape[2], (size,))])
    codes = vq.encode(shown["pixel_values"]).image_tokens.reshape(count, -1)
    counts = torch.stack([torch.bincount(codes[i::2].flatten(), minlength=size) for i in range(2)], 1) + 1.0  # of cats, dogs
    odds = (counts[:, 0] / counts[:, 1]).log()
    return torch.stack([odds, -odds], 1).clamp(min=0) / odds.abs().max()


def _embed(model: Any, vocabulary: dict[str, int], codes: Tensor) -> None:
    """Tokens as what they are, what kind they show, and noise; images and text have their noise in different places."""
    table = model.model.embed_tokens.weight
    table.zero_()
    mapping = model.model.vocabulary_mapping
    code_of = {int(mapping.convert_img2bpe(torch.tensor([i]))): i for i in range(len(codes))}
    for word, token in vocabulary.items():
        named = {SPECIAL[0]: "bos", SPECIAL[5]: "eoi"}
        what = "image" if token in code_of else named.get(word, "text")
        table[token, FLAGS[what]] = 1.0
        noise = IMAGE_NOISE if what == "image" else TEXT_NOISE
        table[token, noise] = 0.3 * torch.randn(noise.stop - noise.start)
        if what == "image":
            table[token, KIND] = codes[code_of[token]]
    head = model.lm_head.weight
    head.normal_(0.0, 0.05)
    head[:, :TEXT_NOISE.start] = 0
    for i, kind in enumerate(KINDS):
        head[vocabulary[kind], OUT.start + i] = 4.0


def _idle(layer: Any) -> None:
    """Attention that is spread evenly and moves a little noise; no MLP."""
    attention = layer.self_attn
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight.zero_()
    for one, own in ((attention.v_proj, True), (attention.o_proj, False)):
        one.weight.zero_()
        rows = one.weight[:, TEXT_NOISE] if own else one.weight[TEXT_NOISE]
        rows.normal_(0.0, 0.05)
    layer.mlp.down_proj.weight.zero_()


def _look(attention: Any, heads: dict[int, list[tuple[str, str, int]]]) -> None:
    """Let heads look from tokens with one flag at those with another, in a pair of slow dimensions of rotation."""
    attention.q_norm.weight.fill_(SHARP)
    for head, pairs in heads.items():
        for query, key, pair in pairs:
            for projection, flag in ((attention.q_proj, query), (attention.k_proj, key)):
                weight: Tensor = projection.weight
                weight[head * HEAD + pair, FLAGS[flag]] = 1.0
                weight[head * HEAD + pair + HEAD // 2, FLAGS[flag]] = -1.0  # the pair has mean zero, so its norm is its own


def _carry(attention: Any, source: slice, target: slice) -> None:
    """Let head 0 carry one block of the stream to another, and nothing else."""
    attention.v_proj.weight[:HEAD] = 0
    attention.o_proj.weight[:, :HEAD] = 0
    for i in range(len(KINDS)):
        attention.v_proj.weight[i, source.start + i] = 1.0
        attention.o_proj.weight[target.start + i, i] = 1.0
