"""verify(): passes on what is right, and finds out what is wrong, by the right name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from tiny_models import build

from hooklab.errors import FamilyError
from hooklab.families import FAMILIES
from hooklab.model.layout import Layout
from hooklab.model.model import Model

NORMS = {"ln1", "ln2", "ln1_scale", "ln2_scale", "ln_final", "ln_final_scale"}
HEADS = {"q", "k", "v", "rot_q", "rot_k", "z", "pattern", "scores"}
WRONG = [  # family, what its table gets wrong, sites that may be refused for it, one that must be
    ("llama", dict(ln2="input_layernorm"), {"resid_mid", "ln2", "ln2_scale"}, "resid_mid"),
    ("gemma2", dict(post_attn=None), {"attn_out", "result"}, "attn_out"),
    ("gemma2", dict(post_mlp=None), {"mlp_out", "mlp_post"}, "mlp_out"),
    ("gemma", dict(norm="rms"), NORMS, "ln1_scale"),
    ("gpt2", dict(norm="rms"), NORMS, "ln1_scale"),
    ("llama", dict(norm="layer"), NORMS, "ln1_scale"),
    ("gpt_neox", dict(packing="concat"), HEADS, "v"),
    ("gpt2", dict(packing="per_head"), HEADS, "q"),
    ("gpt_neox", dict(variants=()), {"resid_mid", "ln2", "ln2_scale", "attn_out"}, "resid_mid"),
    ("qwen2", dict(v="self_attn.k_proj"), HEADS, "v"),
    ("llama_mha", dict(q="self_attn.k_proj", k="self_attn.q_proj"), HEADS, "q"),
    ("gptj", dict(q="attn.k_proj", k="attn.q_proj"), HEADS, "q"),
    ("llama", dict(k="self_attn.v_proj"), HEADS, "k"),
    ("llama", dict(gate="mlp.up_proj", up="mlp.gate_proj"), {"mlp_pre", "mlp_pre_linear"}, "mlp_pre_linear"),
    ("llama", dict(scaled_q=True), HEADS, "rot_q"),
    ("opt", dict(scaled_q=False), HEADS, "rot_q"),
    ("bloom", dict(embed="word_embeddings"), {"embed"}, "embed"),
]


def with_table(monkeypatch, family, changes):
    """A model opened with a wrong table of its family."""
    hf = build(family)
    wrong = replace(FAMILIES[hf.config.model_type], **changes)
    monkeypatch.setitem(FAMILIES, hf.config.model_type, wrong)
    return Model(hf)


@pytest.mark.parametrize(("family", "changes", "sites", "surely"), WRONG)
def test_a_wrong_table_does_not_pass(monkeypatch, family, changes, sites, surely):
    report = with_table(monkeypatch, family, changes).verify()
    assert not report.ok
    assert surely in report.broken, report.broken
    assert set(report.broken) <= sites, report.broken


def test_a_table_that_names_no_projection_is_refused_at_the_door(monkeypatch):
    with pytest.raises(FamilyError, match="BloomMLP is no linear map"):
        with_table(monkeypatch, "bloom", dict(down="mlp"))


def test_the_report_reads_as_a_table_as_html_and_as_data():
    report = Model(build("gemma2")).verify()
    assert report.ok
    console = Console(width=200, record=True, file=open("/dev/null", "w"))
    console.print(report)
    text = console.export_text()
    assert "pattern · v = z" in text
    assert "resid_mid" in text
    assert "<table>" in report._repr_html_()
    assert "all checks pass" in repr(report)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["ok"] is True
    assert {row["status"] for row in data["checks"]} <= {"exact", "approximate", "absent"}
    assert all(row["error"] is None or row["error"] <= row["limit"] for row in data["checks"])


def test_every_site_is_mentioned():
    model = Model(build("olmo2"))
    mentioned = {site for check in model.verify() for site in check.sites}
    assert mentioned == set(model.layout.present) | {s for s in ("ln1", "ln1_scale", "ln2", "ln2_scale", "pos_embed")}


def test_a_prompt_of_ones_own():
    model = Model(build("gpt2"))
    assert "5 tokens" in repr(model.verify([[3, 4, 5, 6, 7]]))


def test_verify_leaves_refusals_as_they_were():
    model = Model(build("gpt2"))
    model.interleaver.refused["ln1"] = "because"
    assert model.verify().ok
    assert model.interleaver.refused == {"ln1": "because"}


def test_large_models_are_sampled():
    model = Model(build("gpt2"))
    assert model.facts.n_layers <= 4
    from hooklab.model.verification.verify import written_layers

    deep = Model(build("gpt2"))
    deep.layout.facts = replace(deep.facts, n_layers=12)
    assert written_layers(deep) == (0, 6, 11, None)


def test_layout_names_the_module_that_a_table_gets_wrong(monkeypatch):
    hf = build("llama")
    monkeypatch.setitem(FAMILIES, "llama", replace(FAMILIES["llama"], o="self_attn.output"))
    with pytest.raises(Exception, match="says 'self_attn.output', but LlamaAttention has no 'output'|has no 'output'"):
        Layout(hf)


def test_float16_verifies_where_the_machine_can():
    model = Model(build("llama", dtype=torch.float16))
    assert model.verify().ok


def test_a_model_in_training_mode_verifies_and_stays_in_it():
    hf = build("gpt2").train()
    hf.transformer.h[0].eval()
    modes = [m.training for m in hf.modules()]
    assert Model(hf).verify().ok
    assert [m.training for m in hf.modules()] == modes


ROWS = {  # model -> row -> modules that exist and are the wrong ones, one of another size first
    "llama": {
        "embed": ("rotary_emb", "norm", "layers"), "ln_final": ("rotary_emb", "embed_tokens"),
        "ln1": ("self_attn.k_proj", "self_attn"), "ln2": ("mlp.up_proj", "self_attn"),
        "post_attn": ("self_attn.v_proj", "mlp.down_proj"), "post_mlp": ("mlp.gate_proj", "self_attn.o_proj"),
        "attn": ("mlp", "self_attn.o_proj"), "q": ("self_attn.k_proj", "self_attn.o_proj"),
        "k": ("self_attn.q_proj", "self_attn.v_proj"), "v": ("mlp.gate_proj", "self_attn.k_proj"),
        "qkv": ("self_attn.q_proj", "mlp.up_proj"), "o": ("mlp.down_proj", "self_attn.q_proj"),
        "gate": ("self_attn.k_proj", "mlp.act_fn"), "up": ("self_attn.o_proj", "mlp.act_fn"),
        "gate_up": ("mlp.gate_proj", "self_attn.q_proj"), "down": ("self_attn.k_proj", "self_attn.o_proj"),
        "mid": ("mlp.down_proj", "input_layernorm")},
    "gpt2": {
        "embed": ("h", "wpe"), "pos_embed": ("h", "wte"), "ln_final": ("wpe", "wte"),
        "ln1": ("mlp.c_fc", "attn.attn_dropout"), "ln2": ("attn.c_attn", "attn"), "post_attn": ("mlp.c_fc", "mlp.c_proj"),
        "post_mlp": ("attn.c_attn", "attn.c_proj"), "attn": ("mlp", "mlp.act"), "qkv": ("ln_1", "mlp.c_fc"),
        "o": ("attn.c_attn", "mlp.c_proj"), "gate": ("attn.c_attn", "mlp.act"), "up": ("ln_1", "mlp.c_fc"),
        "gate_up": ("mlp.c_fc", "attn.c_attn"), "down": ("mlp.c_fc", "attn.c_proj"), "mid": ("attn.c_attn", "ln_1")},
}


def one_layer(family):
    """A model of one block: a table is wrong in the first as in the last."""
    hf = build(family)
    blocks = hf.transformer.h if family == "gpt2" else hf.model.layers
    del blocks[1:]
    hf.config.num_hidden_layers = 1
    return hf


@pytest.mark.parametrize(("family", "row"), [(family, row) for family, rows in ROWS.items() for row in rows])
def test_every_row_that_names_an_existing_module_of_the_wrong_kind_is_found_out_and_nothing_crashes(
        monkeypatch, family, row):
    right = FAMILIES[family]
    for wrong in ROWS[family][row]:
        monkeypatch.setitem(FAMILIES, family, replace(right, **{row: wrong}))
        try:
            report = Model(one_layer(family)).verify()
        except FamilyError as error:  # refused at the door
            assert repr(wrong) in str(error) or "no linear map" in str(error)
            continue
        assert not report.ok
        assert report.broken, (row, wrong)
        for check in report:
            if check.name == "the site is there and has its size":
                assert check.sites[0] in report.broken
                assert " names " in report.broken[check.sites[0]]
        json.loads(json.dumps(report.to_dict()), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        assert "FAILED" in repr(report)


@pytest.mark.parametrize(("family", "changes", "site", "words"), [
    ("llama", dict(gate="self_attn.k_proj"), "mlp_pre",
     "gate = 'self_attn.k_proj' names Linear, whose output has 16 numbers per token; mlp_pre needs d_mlp 48 "
     "(what down = 'mlp.down_proj' takes)"),
    ("llama", dict(q="self_attn.k_proj"), "q",
     "q = 'self_attn.k_proj' names Linear, whose output has 16 numbers per token; q needs head 4 · d_head 8 = 32 "
     "(o = 'self_attn.o_proj' makes d_head 8)"),
    ("gpt2", dict(qkv="mlp.c_fc"), "v",
     "qkv = 'mlp.c_fc' names Conv1D, whose output has 128 numbers per token; v needs (head + 2 · kv_head) · d_head = 96 "
     "(o = 'attn.c_proj' makes d_head 8)"),
    ("llama", dict(attn="mlp"), "pattern", "attn = 'mlp' names LlamaMLP, which computes no attention that can be read"),
    ("llama", dict(embed="rotary_emb"), "embed", "embed = 'rotary_emb' names LlamaRotaryEmbedding, whose output has 8"),
])
def test_a_refused_site_says_which_row_names_what_and_which_sizes_met(monkeypatch, family, changes, site, words):
    report = with_table(monkeypatch, family, changes).verify()
    assert report.broken[site].startswith(words), report.broken[site]
    assert "resid_pre" not in report.broken
    assert "resid_post" not in report.broken


@pytest.mark.parametrize(("family", "changes"), [
    ("phi3", dict(gate="mlp.gate_up_proj", gate_up=None, up=None)),  # twice as wide as mlp_post
    ("llama", dict(gate="mlp.up_proj", up=None)),  # as wide, and the other branch
    ("llama", dict(up=None)),  # act(mlp_pre) lacks a factor
    ("gpt2", dict(gate="mlp.act")),  # act applied already
    ("llama", dict(gate="mlp.act_fn")),
])
def test_an_mlp_pre_whose_activation_is_not_mlp_post_is_found_out(monkeypatch, family, changes):
    report = with_table(monkeypatch, family, changes).verify()
    assert "mlp_pre" in report.broken
    assert not set(report.broken) - {"mlp_pre", "mlp_pre_linear"}


def test_a_machine_out_of_memory_is_no_fault_of_the_table(monkeypatch):
    from hooklab.model.verification import passes

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = Model(build("gpt2"))
    monkeypatch.setattr(passes, "capture", full)
    with pytest.raises(torch.OutOfMemoryError):
        model.verify()
