"""Opening models: in memory, from folders, by name; and one clear line for everything that can go wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from tiny_models import FAMILIES, TEXT_ONLY, build, chameleon_processor, image, tokenizer

import hooklab as hl
from hooklab.errors import FamilyError, HooklabWarning, ModelError, PromptError
from hooklab.families import FAMILIES as TABLES
from hooklab.families import WRAPPERS
from hooklab.model import load as loading
from hooklab.model.model import Model

IDS = [[3, 4, 5, 6, 7, 8]]
ASKED = ("gpt2 gpt_neo gpt_neox gptj opt phi phi3 bloom falcon llama mistral mixtral qwen2 qwen3 gemma gemma2 "
         "gemma3_text stablelm olmo2 gpt_oss bert chameleon").split()


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path):
    build("llama").save_pretrained(tmp_path / "llama")
    tokenizer().save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def test_every_promised_family_has_a_table():
    assert set(ASKED) <= set(TABLES)
    assert {"llava", "gemma3"} == set(WRAPPERS)


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_family_opens_and_verifies_without_a_word(family, dtype):
    loading._VERIFIED.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error", HooklabWarning)
        model = hl.load(build(family, dtype=dtype))
    report = model.verify()
    assert report.ok, report
    assert not model.interleaver.refused
    assert model.dtype == dtype


def test_a_folder_with_its_tokenizer(folder):
    model = hl.load(folder)
    assert model.tokenizer is not None
    acts = model.capture("Mary w1 the store", "logits")
    assert torch.equal(acts["logits"], model.hf(torch.tensor([model.tokens("Mary w1 the store").ids[0]])).logits)
    assert torch.equal(acts["logits"], hl.load(build("llama")).capture(acts.tokens, "logits")["logits"])


def test_options_reach_the_loader(folder):
    assert hl.load(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert hl.load(folder, attn_implementation="eager").hf.config._attn_implementation == "eager"
    assert hl.load(folder, device="cpu").device.type == "cpu"
    assert hl.load(folder, device_map="cpu").capture(IDS, "logits")["logits"].shape == (1, 6, 100)


def test_options_that_cannot_apply_are_refused(folder):
    with pytest.raises(ModelError, match="either device= "):
        hl.load(folder, device="cpu", device_map="auto")
    with pytest.raises(ModelError, match="already in memory"):
        hl.load(build("gpt2"), dtype=torch.bfloat16)


def test_images_through_a_folder(tmp_path):
    build("chameleon").save_pretrained(tmp_path)
    processor = chameleon_processor()
    processor.save_pretrained(tmp_path)
    model = hl.load(tmp_path, processor=processor, tokenizer=processor.tokenizer)
    with model.trace("<image> this is a cat", images=image()) as t:
        stream = model.layers[1].resid_post.save()
        logits = model.logits.save()
    inputs = processor(text="<image> this is a cat", images=image(), return_tensors="pt")
    assert torch.equal(logits, model.hf(**inputs).logits)
    assert stream[t.at("image")].shape == (16, 32)
    assert t.tokens.roles[0].count("image") == 16


def test_a_batch_of_text_with_and_without_images():
    processor = chameleon_processor()
    model = hl.load(build("chameleon"), processor=processor, tokenizer=processor.tokenizer)
    with model.trace() as t:
        with t.invoke("this is <image>", images=image(1)):
            with_image = model.logits[:, -1].save()
        with t.invoke("this is"):
            without = model.logits[:, -1].save()
    alone = model.capture("this is", "logits")["logits"][:, -1]
    inputs = processor(text="this is <image>", images=image(1), return_tensors="pt")
    assert torch.allclose(with_image, model.hf(**inputs).logits[:, -1], atol=1e-5)
    assert torch.allclose(without, alone, atol=1e-5)


def test_llava_sees_its_image():
    model = hl.load(build("llava"))
    ids, pixels = [[3, *[99] * 4, 5, 6]], torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with model.trace(ids, pixel_values=pixels):
        logits = model.logits.save()
    assert torch.equal(logits, model.hf(input_ids=torch.tensor(ids), pixel_values=pixels).logits)
    with model.trace(ids, pixel_values=pixels + 1):
        other = model.logits.save()
    assert not torch.equal(logits, other)


def test_base_models_serve_the_sites_they_have():
    for family in ("gpt2_base", "llama_base", "bert_base"):
        model = hl.load(build(family))
        assert "logits" not in model.sites
        assert "resid_post" in model.sites
        with pytest.raises(LookupError, match="without a language-model head"):
            model.capture(IDS, "logits")


def test_chat_messages_use_the_template():
    model = hl.load(build("llama"), tokenizer=tokenizer())
    chat = [{"role": "user", "content": "Mary w1"}]
    text = model.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert model.tokens(chat).ids == model.tokens(text).ids
    with pytest.raises(PromptError, match="chat template"):
        hl.load(build("llama")).tokens(chat)


@pytest.mark.parametrize(("name", "words"), [
    ("/no/such/folder", "There is no folder"),
    ("./nowhere", "There is no folder"),
    ("gpt2", "could not be reached"),
    ("someone/some-model", "could not be reached"),
    ("labb", 'Did you mean "lab"'),
])
def test_wrong_names(name, words):
    with pytest.raises(ModelError) as caught:
        hl.load(name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("given", "options", "words"), [
    (None, {}, "takes a name, a folder"), (5, {}, "not 5"), ("", {}, "not ''"),
    (torch.nn.Linear(2, 2), {}, "no config"),
    (build("gpt2"), {"device": "cudaa"}, "could not be put on 'cudaa'"),
    (Model(build("gpt2")), {}, "open already"),
])
def test_things_that_are_no_model(given, options, words):
    with pytest.raises(ModelError, match=words):
        hl.load(given, **options)


def test_broken_folders(tmp_path, folder):
    with pytest.raises(ModelError, match=r"no config\.json"):
        hl.load(tmp_path)
    with pytest.raises(ModelError, match="is a file"):
        hl.load(folder / "config.json")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError) as caught:
        hl.load(folder)
    assert "JSON" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        hl.load(folder)
    assert "could not be loaded" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_from_a_checkpoint_is_not_run_unasked(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mystery", "auto_map": {"AutoConfig": "m.C", "AutoModelForCausalLM": "m.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "m.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').write('')\n")
    with pytest.raises(ModelError, match="trust_remote_code=True"):
        hl.load(folder)
    assert not (tmp_path / "ran").exists()


def test_an_architecture_without_a_table():
    hf = build("gpt2")
    hf.config.model_type = "unheard_of"
    with pytest.raises(FamilyError, match="no table for \"unheard_of\".*register"):
        hl.load(hf)


def test_no_tokenizer_in_the_folder(tmp_path):
    build("gpt2").save_pretrained(tmp_path)
    with pytest.warns(HooklabWarning, match="No tokenizer"):
        model = hl.load(tmp_path)
    assert model.tokenizer is None
    with pytest.raises(PromptError, match="token ids, not text"):
        model.trace("text")


def test_nan_weights_are_reported():
    hf = build("gpt2")
    with torch.no_grad():
        hf.transformer.h[1].mlp.c_fc.weight[0, 0] = float("nan")
    loading._VERIFIED.clear()
    with pytest.warns(HooklabWarning, match=r"not finite \(first in transformer\.h\.1\.mlp\.c_fc\.weight\)"):
        model = hl.load(hf)
    report = model.verify()
    assert not report.ok


def test_suspect_config_attributes_are_named():
    hf = build("llama")
    hf.config.residual_multiplier = 0.22
    with pytest.warns(HooklabWarning, match="residual_multiplier"):
        hl.load(hf)


def test_a_wrong_table_is_found_out_and_only_its_site_refused():
    from dataclasses import replace

    from hooklab.families import LLAMA, register, unregister

    hf = build("llama")
    hf.config.model_type = "mock"
    register(replace(LLAMA, name="mock", ln2="input_layernorm"))  # a copied table, copied wrong
    try:
        with pytest.warns(HooklabWarning, match="refused"):
            model = hl.load(hf)
        assert not model.verify().ok
        with pytest.raises(LookupError, match="fails by"):
            model.capture(IDS, "L0.ln2")
        assert model.capture(IDS, "L0.z")["L0.z"].shape == (1, 6, 4, 8)
    finally:
        unregister("mock")


def test_importing_is_light():
    code = "import sys, hooklab; print([m for m in ('torch', 'transformers', 'IPython', 'nnsight') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parent.parent)
    assert done.stdout.strip() == "[]"


def test_text_only_list_is_complete():
    assert len(TEXT_ONLY) >= 22


def test_a_table_that_was_changed_is_checked_afresh(monkeypatch):
    from dataclasses import replace

    assert not hl.load(build("llama")).interleaver.refused
    monkeypatch.setitem(TABLES, "llama", replace(TABLES["llama"], norm="layer"))
    with pytest.warns(HooklabWarning, match="refused"):
        assert hl.load(build("llama")).interleaver.refused


class Adapted(torch.nn.Module):
    """A projection with a low-rank term of its own, as an adapter that is not merged adds it."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.weight, self.bias = inner, inner.weight, inner.bias
        self.down, self.up = torch.randn(2, inner.in_features), torch.randn(inner.out_features, 2)

    def forward(self, x):
        return self.inner(x) + x @ self.down.T @ self.up.T


def test_a_module_that_was_wrapped_is_checked_although_its_architecture_was():
    assert not hl.load(build("llama")).interleaver.refused
    hf = build("llama")
    for block in hf.model.layers:
        block.self_attn.o_proj = Adapted(block.self_attn.o_proj)
    with pytest.warns(hl.errors.HooklabWarning, match="result is refused"):
        model = hl.load(hf)
    with pytest.raises(hl.errors.HooklabError, match="sum"):
        model.run("prompt {ids}\nzero L0H1\n", ids=[3, 4, 5])


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("downloads", [True, False])
def test_the_shipped_model_opens_without_a_bar_and_leaves_the_settings_of_bars(shown, downloads, capfd):
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    def set_to(shown, downloads):
        (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
        (enable_progress_bars if downloads else disable_progress_bars)()

    before = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    try:
        set_to(shown, downloads)
        hl.load("lab")
        assert (logging.is_progress_bar_enabled(), not are_progress_bars_disabled()) == (shown, downloads)
        assert "Loading weights" not in capfd.readouterr().err
    finally:
        set_to(*before)


def places(hf):
    """The kinds of devices that a module has weights and buffers on."""
    return {tensor.device.type for tensor in (*hf.parameters(), *hf.buffers())}


def test_a_model_is_put_on_the_device_that_is_said(folder):
    said = ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])]
    for source in (lambda: build("llama"), lambda: folder):
        for device in (*said, *(torch.device(name) for name in said)):
            model = hl.load(source(), device=device)
            assert places(model.hf) == {torch.device(device).type}
            assert model.device.type == torch.device(device).type
            if model.device.type == "meta":
                with pytest.raises(ModelError, match="meta device"):
                    model.capture(IDS, "logits")
            else:
                assert model.capture(IDS, "logits")["logits"].device.type == model.device.type


def test_without_a_device_a_module_stays_where_it_is_and_weights_that_are_loaded_go_to_the_cpu(folder):
    for device in ("cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])):
        hf = build("llama").to(device)
        assert hl.load(hf).hf is hf
        assert places(hf) == {device}
    assert places(hl.load(folder).hf) == {"cpu"}
    assert places(hl.load("lab").hf) == {"cpu"}
