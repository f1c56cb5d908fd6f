"""The page of recipes: its code runs in order, and what comes out is what transformers and plain arithmetic say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pages import blocks, run
from transformers import LlamaConfig, LlamaForCausalLM

import hooklab as hl
from hooklab.errors import HooklabWarning, SiteError
from hooklab.families import FAMILIES, LLAMA

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "howto.md").read_text("utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: Any) -> Any:
    """The folder in which the page ran, and the names that it made."""
    folder, names = tmp_path_factory.mktemp("howto"), {"__name__": "howto"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for i, block in enumerate(blocks(PAGE)):
            run(block, f"<docs/howto.md {i}>", names)
    return folder, names


@pytest.fixture(scope="module")
def names(page: Any) -> dict[str, Any]:
    return page[1]


def hidden(names: dict[str, Any], prompt: str, layer: int) -> torch.Tensor:
    """What block `layer` of the shipped model gives for one prompt, [pos d_model], by torch's own hook."""
    with hl.load("lab", verify=False) as model:
        hf, tokenizer, seen = model.hf, model.tokenizer, []
    handle = hf.transformer.h[layer].register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad():
        hf(**tokenizer(prompt, return_tensors="pt"))
    handle.remove()
    return (seen[0] if torch.is_tensor(seen[0]) else seen[0][0])[0]


def said(model: Any, prompt: str, silent: tuple[int, int] | None = None, mlp: int | None = None) -> torch.Tensor:
    """The last logits of transformers' own pass, a head or an MLP silent."""
    hf, handles = model.hf, []
    if silent is not None:
        layer, head = silent
        size = hf.config.n_embd // hf.config.n_head

        def cut(module: Any, args: Any) -> Any:
            z = args[0].clone()
            z[..., head * size:(head + 1) * size] = 0
            return (z, *args[1:])

        handles.append(hf.transformer.h[layer].attn.c_proj.register_forward_pre_hook(cut))
    if mlp is not None:
        handles.append(hf.transformer.h[mlp].mlp.register_forward_hook(lambda module, args, out: out * 0))
    try:
        with torch.no_grad():
            return hf(**model.tokenizer(prompt, return_tensors="pt")).logits[0, -1].float()
    finally:
        for handle in handles:
            handle.remove()


def preference(names: dict[str, Any], logits: torch.Tensor) -> float:
    mary, john = (names["model"].tokenizer(word)["input_ids"][-1] for word in (" Mary", " John"))
    return float(logits[mary] - logits[john])


def test_a_folder_and_a_module_in_memory_are_the_same_model_in_half_the_bytes(names):
    assert names["from_folder"].dtype == names["from_memory"].dtype == torch.bfloat16
    assert names["from_memory"].hf is names["from_folder"].hf and names["model"].dtype == torch.float32
    text = names["text"]
    assert torch.allclose(said(names["from_folder"], text), said(names["model"], text), atol=0.5)


def test_a_word_is_where_the_tokenizer_puts_it(names):
    words = [names["model"].tokenizer.decode([token]) for token in names["model"].tokenizer(names["text"])["input_ids"]]
    at = [i for i, word in enumerate(words) if word == " John"]
    assert names["second"] == [[at[1]]] and len(at) == 2
    assert torch.allclose(names["two"], hidden(names, names["text"], 2)[[at[1], -1]], atol=1e-4)


def test_prompts_of_different_length_are_each_as_alone(names):
    for i, prompt in enumerate(names["prompts"]):
        wanted = hidden(names, prompt, 3)
        assert names["alone"][i].shape == wanted.shape
        assert torch.allclose(names["alone"][i], wanted, atol=1e-4)
        assert torch.allclose(names["ends"][i], wanted[-1], atol=1e-4)


def test_the_mean_is_over_the_last_token_of_each_and_can_be_set(names):
    wanted = torch.stack([hidden(names, prompt, 3)[-1] for prompt in names["prompts"]]).double().mean(0)
    assert np.allclose(names["mean"], wanted, atol=1e-5)
    model = names["model"]
    handle = model.hf.transformer.h[3].register_forward_hook(
        lambda module, args, out: torch.cat([out[:, :-1], wanted.float()[None, None]], 1))
    logits = said(model, names["text"])
    handle.remove()
    assert torch.allclose(names["steered"]["hooked.logits"][0, -1], logits, atol=1e-3)


def test_what_is_written_without_the_heads_is_what_transformers_writes_without_them(names):
    assert names["plain"].texts["main"][0].new == " Mary." and names["without"].texts["hooked"][0].new == " John."
    model = names["model"]
    size = model.facts.d_head

    def cut(module: Any, args: Any) -> Any:
        z = args[0].clone()
        for head in (0, 1, 5):
            z[..., head * size:(head + 1) * size] = 0
        return (z, *args[1:])

    handle = model.hf.transformer.h[0].attn.c_proj.register_forward_pre_hook(cut)
    ids = model.tokenizer(names["text"], return_tensors="pt")
    out = model.hf.generate(**ids, max_new_tokens=2, do_sample=False, pad_token_id=0)
    handle.remove()
    assert model.tokenizer.decode(out[0, ids["input_ids"].shape[1]:]) == " John."


def test_the_same_weights_in_fewer_bits_are_alike_and_not_the_same(names):
    assert len(names["alike"]) == 5 and all(0.999 < value.mean() < 0.999999 for value in names["alike"].values())


def test_training_lowers_the_loss_that_plain_torch_finds(names):
    (before, length), (after, _) = names["norms"]
    ids = torch.tensor([names["model"].tokenizer(names["text"])["input_ids"]])
    with torch.no_grad():
        wanted = float(names["model"].hf(ids, labels=ids).loss)
    assert before == pytest.approx(wanted, rel=1e-4) and after < before
    assert length == pytest.approx(float(hidden(names, names["text"], 2).norm(dim=-1).mean()), rel=1e-4)


def test_a_run_is_the_same_when_it_is_opened_again(names):
    assert names["reopened"] == names["run"] and names["reopened"] is not names["run"]
    assert names["run"].metrics["hooked"]["logit_diff"] == pytest.approx(
        preference(names, said(names["model"], names["text"], (0, 4))), abs=1e-3)


def test_the_table_has_a_row_for_each_head_with_its_number(names):
    table, scores = names["table"], names["scores"]
    assert len(table) == 30 and list(table["layer"]) == [i // 6 for i in range(30)]
    assert np.array_equal(table[table.columns[-1]], scores.values.ravel())


def test_pictures_are_written(page):
    folder, _ = page
    assert (folder / "heads.pdf").read_bytes().startswith(b"%PDF")
    assert (folder / "heads.png").read_bytes().startswith(b"\x89PNG")
    assert b"<script" in (folder / "circuitsvis.html").read_bytes()


def test_one_spec_gives_each_model_its_own_numbers(names):
    model = names["model"]
    each = [preference(names, said(model, names["text"], (layer, head))) for layer in range(5) for head in range(6)]
    assert names["lowest"]["lab"] == pytest.approx(min(each), abs=1e-3)
    assert names["lowest"]["in bfloat16"] == pytest.approx(min(each), abs=0.2)
    assert names["lowest"]["in bfloat16"] != names["lowest"]["lab"]


def test_a_metric_of_ones_own_is_the_same_in_a_sweep_and_in_a_spec(names):
    def surprise(logits: torch.Tensor) -> float:
        return float(-logits.log_softmax(-1).max())

    start = surprise(said(names["model"], names["text"]))
    each = np.array([surprise(said(names["model"], names["text"], mlp=layer)) for layer in range(5)])
    assert np.allclose(names["own"].values, each - start, atol=1e-4)
    assert np.allclose(names["same"].scores["hooked.mine"].values, each, atol=1e-4)


def test_only_what_is_named_is_kept_and_rows_change_no_number(names):
    assert {site: tuple(value.shape) for site, value in names["few"].items()} == {
        "L0.resid_post": (1, 144), "L3.resid_post": (1, 144)}
    entropies = names["slow"].scores["hooked.entropy"].values
    logits = said(names["model"], names["text"], (2, 1)).log_softmax(-1)
    assert entropies[2, 1] == pytest.approx(float(-(logits.exp() * logits).sum()), abs=1e-4)


def test_a_dry_run_keeps_nothing(page):
    folder, names = page
    assert not (folder / "small").exists() and type(names["ahead"]).__name__ == "Forecast"


def test_names_of_transformer_lens_are_read(names):
    assert list(names["named"]) == ["L1.attn_out", "L2.resid_post"]
    assert torch.allclose(names["named"]["blocks.2.hook_resid_post"][0], hidden(names, names["text"], 2), atol=1e-4)


def test_a_site_that_errs_is_refused_with_the_reason_and_the_others_are_served():
    hf = LlamaForCausalLM(LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                                      num_attention_heads=4)).eval()
    hf.config.model_type = "howto_llama"
    try:
        hl.register(replace(LLAMA, name="howto_llama", ln2="input_layernorm"))
        with pytest.warns(HooklabWarning, match="is refused on this model"):
            model = hl.load(hf)
    finally:
        FAMILIES.pop("howto_llama", None)
    with pytest.raises(SiteError, match="earlier sites"):
        model.capture([[1, 2, 3]], "L0.resid_mid")
    assert model.capture([[1, 2, 3]], "L0.resid_post")["L0.resid_post"].shape == (1, 3, 16)


def test_a_bare_call_of_the_module_sees_no_hook(names):
    calls = []
    with names["model"].hook("L0.mlp_out", lambda x: calls.append(1)):
        said(names["model"], names["text"])
        assert not calls
        names["model"].capture(names["text"], "logits")
    assert calls == [1]


def test_titles_are_questions_with_code_and_a_reason():
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    assert len(parts[1::2]) >= 12
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        assert title.endswith("?") and text.count("```python") == 1, title
        assert len(text.split("```")[2].split()) > 6, title


def test_links_lead_somewhere():
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", PAGE):
        text = (DOCS / target).read_text("utf-8")
        slugs = {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.+)$", text, re.M)}
        assert not anchor or anchor in slugs, (target, anchor)
