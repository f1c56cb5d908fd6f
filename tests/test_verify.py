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
    from hooklab.model.verify import _layers

    deep = Model(build("gpt2"))
    deep.layout.facts = replace(deep.facts, n_layers=12)
    assert _layers(deep) == (0, 6, 11, None)


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
