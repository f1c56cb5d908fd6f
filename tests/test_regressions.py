"""Mistakes that older tools made without anybody noticing, one test each, by name."""

from __future__ import annotations

import nnsight
import torch
from tiny_models import build

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


def test_trap_14_token_ids_are_ids_and_not_hidden_states():
    model = Model(build("gpt2"))
    acts = model.capture([[3, 4, 5], [6, 7]], "L0.resid_pre")
    assert acts.tokens.ids == ((3, 4, 5), (6, 7))
