"""The models that are made on the spot: what opens them, what they answer, and that the way is where it was put."""

from __future__ import annotations

import subprocess
import sys
import warnings
from functools import cache

import numpy as np
import pytest
import torch

import hooklab as hl
from hooklab.data.engines.opening import opening_of
from hooklab.errors import ModelError, PromptError
from hooklab.model.gate import GATHER, KINDS, NAMES, READ, build, picture, pictures
from hooklab.model.gate.words import CODES, SPECIAL, WORDS, vocabulary
from hooklab.runtime.provenance import fingerprint

EACH = pytest.mark.parametrize("name", NAMES)


@cache
def opened(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return hl.load(name)


@EACH
@pytest.mark.parametrize("question", ["<image> these stripes run", "which way is it <image>"])
def test_pictures_that_it_was_not_made_with_are_told_apart(name, question):
    kinds, images = pictures(20, seed=7)
    hf, processor = opened(name).hf, opened(name).processor
    encoding = processor(text=[question] * 20, images=images, return_tensors="pt")
    with torch.no_grad():
        said = hf(**encoding).logits[:, -1].argmax(-1)
    assert processor.tokenizer.convert_ids_to_tokens(said.tolist()) == kinds


@EACH
def test_its_text_comes_back_from_its_tokens_and_no_word_is_unknown(name):
    tokens = opened(name).tokens(" ".join(WORDS))
    assert opened(name).tokenizer.unk_token_id not in tokens.ids[0]
    assert opened(name).tokenizer.decode(tokens.ids[0], skip_special_tokens=True) == " ".join(WORDS)
    assert sorted(vocabulary().values()) == list(range(len(SPECIAL) + len(WORDS) + CODES))


def test_a_picture_stands_between_its_markers():
    tokens = opened("gate").tokens("find <image> these stripes", images=picture("down", 3))
    ids, roles = tokens.ids[0], tokens.roles[0]
    start = roles.index("image")
    assert roles.count("image") == 16 == roles[start:start + 16].count("image")
    assert [ids[start - 1], ids[start + 16], ids[-1]] == [SPECIAL.index(word) for word in SPECIAL[4:7]]
    assert hl.load("gate").tokens("find it").roles[0].count("image") == 0


def test_the_two_differ_in_the_layers_of_the_way_alone():
    gate, null = (dict(opened(name).hf.named_parameters()) for name in NAMES)
    different = {name for name in gate if not torch.equal(gate[name], null[name])}
    layers = {int(name.split(".layers.")[1].split(".")[0]) for name in different if ".layers." in name}
    assert layers == {GATHER, READ}
    assert all(".self_attn." in name for name in different)


def test_it_is_the_same_every_time_and_leaves_the_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = hl.load("gate")
    assert torch.equal(torch.get_rng_state(), before)
    assert fingerprint(model) == fingerprint(opened("gate")) != fingerprint(opened("gate-null"))
    other, _ = build(gate=True, seed=1)
    assert fingerprint(hl.load(other, verify=False)) != fingerprint(model)
    assert not other.config.name_or_path


@EACH
def test_another_process_opens_it_by_its_name(name):
    opening = opening_of(opened(name))
    assert opening.name == name
    assert fingerprint(opening.open()) == fingerprint(opened(name))


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test_its_type_and_its_attention_may_be_chosen(dtype):
    model = hl.load("gate", dtype=dtype, attn_implementation="eager", device="cpu")
    assert model.dtype == torch.bfloat16
    assert model.hf.config._attn_implementation == "eager"
    assert hl.load("gate", dtype="auto").dtype == torch.float32


@pytest.mark.parametrize(("options", "words"), [
    ({"revision": "main"}, 'revision cannot apply: "gate" is made on the spot'),
    ({"quantization_config": {}, "device_map": "auto"}, "device_map, quantization_config cannot apply"),
    ({"dtype": "float33"}, "no type of weights"), ({"dtype": torch.int8}, "no type of weights"),
    ({"dtype": "device"}, "no type of weights"),
])
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ModelError, match=words):
        hl.load("gate", **options)


def test_a_name_near_it_is_told(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match='Did you mean "gate"'):
        hl.load("gat")


def test_pictures_of_one_seed_are_the_same_and_of_another_are_others():
    assert (np.asarray(picture("down", 4)) == np.asarray(picture("down", 4))).all()
    assert (np.asarray(picture("down", 4)) != np.asarray(picture("down", 5))).any()
    rows, columns = (np.asarray(picture(kind, 0), float).mean(2) for kind in KINDS)
    assert rows.std(0).mean() > 10 * rows.std(1).mean()
    assert columns.std(1).mean() > 10 * columns.std(0).mean()
    assert pictures(0) == ([], [])
    with pytest.raises(PromptError, match='not .Down.. Did you mean "down"'):
        picture("Down", 0)


def test_its_package_is_light():
    code = "import sys, hooklab.model.gate as g; g.KINDS; print({'torch', 'transformers', 'PIL'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
