"""Mistakes that older tools made without anybody noticing, one test each, by name."""

from __future__ import annotations

import pickle
import time

import nnsight
import pytest
import torch
from tiny_models import build

import hooklab as hl
from hooklab.errors import RecordError
from hooklab.model.model import Model

IDS = [[3, 4, 5, 6, 7, 8, 9, 10]]


def test_trap_1_every_kv_head_is_its_own():
    """Keys and values of head h were those of head 0, for every h."""
    for family in ("llama", "llama_mha"):
        model = Model(build(family))
        acts = model.capture(IDS, ["L0.ln1", "L0.k", "L0.v"])
        attn = model.hf.model.layers[0].self_attn
        for head in range(model.facts.n_kv_heads):
            rows = slice(8 * head, 8 * head + 8)
            assert torch.allclose(acts["L0.k"][:, :, head], acts["L0.ln1"] @ attn.k_proj.weight[rows].T, atol=1e-6)
            assert torch.allclose(acts["L0.v"][:, :, head], acts["L0.ln1"] @ attn.v_proj.weight[rows].T, atol=1e-6)
        assert not torch.allclose(acts["L0.k"][:, :, 0], acts["L0.k"][:, :, 1], atol=1e-2)


def test_trap_2_resid_mid_is_the_stream_and_not_its_norm():
    for family in ("gpt2", "llama", "gemma2", "olmo2", "opt"):
        model = Model(build(family))
        acts = model.capture(IDS, ["L0.resid_pre", "L0.attn_out", "L0.resid_mid"])
        assert torch.allclose(acts["L0.resid_mid"], acts["L0.resid_pre"] + acts["L0.attn_out"], atol=1e-5)
        if "ln2" in model.sites:
            normed = model.capture(IDS, "L0.ln2")["L0.ln2"]
            assert not torch.allclose(acts["L0.resid_mid"], normed, atol=1e-1)


def test_trap_4_multiplying_scores_by_zero_does_not_unmask_the_future():
    """Setting scores to zero makes masked ones zero too; masking survives only if they are left out."""
    model = Model(build("llama"))

    def flatten(scores):
        return torch.where(scores < -1e30, scores, torch.zeros_like(scores))

    pattern = model.capture(IDS, "L0.pattern", edits={"L0.scores": flatten}, full=True)["L0.pattern"]
    n = len(IDS[0])
    uniform = torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None]
    assert torch.allclose(pattern[0], uniform.expand(4, n, n), atol=1e-6)
    assert model.capture(IDS, "L0.scores")["L0.scores"][0, 0, 0, 1] < -1e30  # and the site shows what is masked


def test_trap_6_the_output_bias_is_added_once_and_not_per_head():
    for family in ("gpt2", "opt", "gpt_neox", "bert", "phi"):
        model = Model(build(family))
        acts = model.capture(IDS, ["L0.result", "L0.attn_out", "L0.z"])
        bias = model.layout.role(0, "o").bias
        assert bias.abs().max() > 0.1
        assert torch.allclose(acts["L0.result"].sum(2) + bias, acts["L0.attn_out"], atol=1e-5)


def test_trap_3_capture_during_generation_keeps_every_step():
    model = Model(build("gpt2"))
    with model.generate(IDS, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0) as t:
        kept = nnsight.save([])
        for _step in t.iter[:4]:
            kept.append(model.layers[0].resid_post)
    assert [value.shape[1] for value in kept] == [8, 1, 1, 1]
    written = model.generate(IDS, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0)
    whole = model.hf(written[:, :-1], output_hidden_states=True).hidden_states[1]
    assert torch.allclose(torch.cat(list(kept), 1), whole, atol=1e-5)


def test_trap_5_an_edit_of_one_head_leaves_the_others_alone():
    model = Model(build("gpt2"))
    acts = model.capture(IDS, "L0.z", edits={"L0H2.z": torch.zeros_like})
    plain = model.capture(IDS, "L0.z")
    assert acts["L0.z"][:, :, 2].abs().max() == 0
    for head in (0, 1, 3):
        assert torch.equal(acts["L0.z"][:, :, head], plain["L0.z"][:, :, head])


def test_trap_9_ragged_examples_are_neither_cut_nor_lose_the_batch_axis():
    model = Model(build("gpt2"))
    rows = [[3, 4, 5], [6, 7, 8, 9, 10, 11, 12]]
    acts = model.capture(rows, ["L0.resid_post", "L0.v", "L0.attn_out"], at=slice(None))
    assert {tuple(v.shape[:1]) for v in acts.values()} == {(10,)}
    for row, ids in enumerate(rows):
        alone = model.capture([ids], ["L0.resid_post"])["L0.resid_post"][0]
        start = 0 if row == 0 else 3
        assert torch.allclose(acts["L0.resid_post"][start:start + len(ids)], alone, atol=2e-6)
    assert model.capture(rows, "L0.attn_out")["L0.attn_out"].shape == (2, 7, 32)


def test_trap_9_a_mean_over_ragged_examples_counts_every_token_of_each():
    """Sums went over as many tokens as the shortest example has."""
    hf, rows = build("gpt2"), [[3, 4], [6, 7, 8, 9, 10, 11, 12], [20, 21, 22]]
    with torch.no_grad():
        every = [hf(torch.tensor([ids]), output_hidden_states=True).hidden_states[1][0] for ids in rows]
    mean = hl.extract(Model(build("gpt2")), rows, reduce={"mean": "L0.resid_post"}).reduced["mean"]
    assert mean.count == 12
    assert torch.allclose(torch.tensor(mean.result().values).float(), torch.cat(every).mean(0), atol=1e-5)


def test_trap_11_a_nucleus_has_the_token_that_reaches_its_mass():
    """The token with which the mass is reached was left out: of 0.4 and 0.3, half is reached by the second."""
    model = Model(build("gpt2"))
    logits = torch.full((model.facts.d_vocab,), -1e4)
    logits[[7, 3, 9, 5]] = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    run = hl.generate(model, IDS, None, edits="set logits to {wanted}", values={"wanted": logits}, top_p=0.5, samples=64,
                      seed=0, max_new_tokens=1)
    assert {text.ids[0] for text in run.texts["hooked"]} == {7, 3}


def test_trap_13_what_is_saved_is_read_without_unpickling_and_no_save_takes_the_place_of_another(tmp_path, monkeypatch):
    """Records with labels could not be unpickled again, and two saves within one second had one name."""
    def forbidden(*args, **kwargs):
        raise AssertionError("unpickled")

    model = Model(build("gpt2"))
    run = model.run("prompt {p}\nsave L0.resid_post\nmetric entropy", p=IDS)
    found = hl.extract(model, IDS, "L0.resid_post", tmp_path / "acts", metrics=["entropy"])
    monkeypatch.setattr(time, "time", lambda: 1e9)
    run.save(tmp_path / "run")
    for again in (lambda: run.save(tmp_path / "run"),
                  lambda: hl.extract(model, [[3, 4]], "L0.resid_post", tmp_path / "acts")):
        with pytest.raises(RecordError):
            again()
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    back, store = hl.Run.load(tmp_path / "run"), hl.open_store(tmp_path / "acts")
    assert back.axes == run.axes and back.data.keys() == run.data.keys() and len(back.data) == 1
    for key, value in run.data.items():
        assert torch.equal(torch.as_tensor(back.data[key]), torch.as_tensor(value))
    assert back.metrics == run.metrics
    assert torch.equal(store["L0.resid_post"][0], model.capture(IDS, "L0.resid_post")["L0.resid_post"][0])
    assert store["entropy"][0].item() == found.metrics["entropy"][0]


def test_trap_14_token_ids_are_ids_and_not_hidden_states():
    model = Model(build("gpt2"))
    acts = model.capture([[3, 4, 5], [6, 7]], "L0.resid_pre")
    assert acts.tokens.ids == ((3, 4, 5), (6, 7))
