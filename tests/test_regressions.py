"""Mistakes that older tools made without anybody noticing, one test each, by name."""

from __future__ import annotations

import pickle
import time
from dataclasses import replace

import nnsight
import numpy as np
import pytest
import torch
from tiny_models import build

import hooklab as hl
from hooklab.analysis.mass import mass_between
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


def test_trap_7_uniform_attention_is_no_preference_whatever_the_group_and_blocks_are_sums_of_the_pattern():
    """A mean per cell was divided by a sum per row: a third for three columns, infinite for the last row."""
    n = len(IDS[0])
    even = torch.ones(n, n).tril().double() / torch.arange(1, n + 1)[:, None]
    for rows in ([n - 1], [2, 5], list(range(n))):
        for columns in ([0], [0, 1, 2], list(range(n))):
            assert float(mass_between(even, rows, columns, relative=True)) == 1.0
    assert torch.tensor(float(mass_between(even, [0], [n - 1], relative=True))).isnan()
    model = Model(build("llama"))
    groups = {"start": ":3", "rest": "3:-1", "last": "last"}
    mass = hl.analysis.attention_mass(model, IDS, groups, groups)
    assert mass.axes == ("query_group", "group", "layer", "head"), "groups were passed over, and the raw pattern came back"
    pattern = model.capture(IDS, "L1.pattern", full=True)["L1.pattern"][0].double()
    for name, rows in {"start": slice(0, 3), "rest": slice(3, n - 1), "last": slice(n - 1, n)}.items():
        by_hand = pattern[:, rows, :3].sum((1, 2)) / pattern[:, rows].shape[1]
        assert torch.allclose(torch.tensor(mass.sel(query_group=name, group="start", layer=1).values), by_hand, atol=1e-6)


def test_trap_8_every_position_of_every_example_is_patched_with_its_own_vector():
    """All positions got the vector of the first one, of the first example."""
    model = Model(build("gpt2"))
    clean, other = [[3, 4, 5, 6], [7, 8, 9, 10]], [[20, 21, 22, 23], [24, 25, 26, 27]]
    source = model.capture(clean, "L1.resid_pre")["L1.resid_pre"]
    before = model.capture(other, "L1.resid_pre")["L1.resid_pre"]
    run = model.run("prompt clean = {clean}\nprompt other = {other}\nrun patched on other:\n"
                    "    patch L1.resid_pre @[1,3] from clean\n    save L1.resid_pre", clean=clean, other=other)
    patched = run["patched.L1.resid_pre"]
    assert torch.allclose(patched[:, [1, 3]], source[:, [1, 3]], atol=1e-6)
    assert torch.allclose(patched[:, [0, 2]], before[:, [0, 2]], atol=1e-6)
    assert len({tuple(row.tolist()) for row in patched[:, [1, 3]].flatten(0, 1)}) == 4


def test_trap_10_similarity_of_two_groups_counts_every_pair_of_them():
    """Of the pairs between two groups only those below a diagonal were counted, which has no meaning there."""
    draw = np.random.default_rng(0)
    image, text = draw.normal(size=(3, 5)), draw.normal(size=(4, 5))

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    every = unit(image) @ unit(text).T  # [3 4]
    groups = {"image": {"L0.resid_post": image}, "text": {"L0.resid_post": text}}
    found = hl.analysis.modality_similarity(groups, middle="mean").sel(layer=0, group="image", other="text")
    assert float(found) == pytest.approx(every.mean()) and float(found) != pytest.approx(
        every[np.tril_indices(3, -1)].mean())
    within = (unit(text) @ unit(text).T)[np.tril_indices(4, -1)]
    found = hl.analysis.modality_similarity(groups).sel(layer=0, group="text", other="text")
    assert float(found) == pytest.approx(np.median(within)), "within a group each pair counts once, and none with itself"


def test_trap_12_logits_are_those_of_the_model_and_not_the_output_of_its_last_module():
    for family in ("gpt2", "gemma2", "opt_postnorm"):  # gemma2 bends them behind its last module
        model = Model(build(family))
        assert torch.allclose(model.capture(IDS, "logits")["logits"], model.hf(torch.tensor(IDS)).logits, atol=1e-5)


def test_trap_12_the_pattern_of_a_head_is_a_matrix_and_there_are_as_many_heads_as_the_model_has():
    model = Model(build("llama"))
    n, facts = len(IDS[0]), model.facts
    pattern = model.capture(IDS, "L0.pattern", full=True)["L0.pattern"]
    assert pattern.shape == (1, 4, n, n) and torch.allclose(pattern.sum(-1), torch.ones(1, 4, n), atol=1e-6)
    written = model.capture(IDS, "L0.result")["L0.result"]
    assert written.shape == (1, n, model.hf.config.num_attention_heads, facts.d_model)
    assert hl.analysis.composition(model, "v").shape == (2 * 4, 2 * 4)


def test_trap_12_a_covariance_is_over_the_width_of_the_stream_and_not_over_tokens():
    rows = [[3, 4, 5], [6, 7, 8, 9, 10, 11]]
    model = Model(build("gpt2"))
    every = torch.cat([model.capture([ids], "L0.resid_post")["L0.resid_post"][0] for ids in rows])  # [9 d_model]
    found = hl.extract(model, rows, reduce={"covariance": "L0.resid_post"}).reduced["covariance"].result().values
    assert found.shape == (32, 32)
    assert np.allclose(found, np.cov(every.double().numpy().T), atol=1e-5) or np.allclose(
        found, np.cov(every.double().numpy().T, bias=True), atol=1e-5)


def test_trap_12_a_version_is_that_of_the_code_and_not_of_the_moment(tmp_path):
    from hooklab.bench import Bench

    bench = Bench(tmp_path / "bench")
    kept = bench.experiment(lambda x: x + 1, name="f")
    kept(1), time.sleep(1.1), kept(2)
    first, second = bench.runs("f")
    assert first.version == second.version and first.id != second.id
    bench.experiment(lambda x: x + 2, name="f")(1)
    assert bench.runs("f")[-1].version != first.version


def test_trap_12_profiles_and_tests_of_hypotheses_have_results():
    """Both raised, whatever they were given."""
    model = Model(build("gpt2"))
    profile = hl.bench.profile(model, IDS, repeats=1)
    assert {0, 1} <= {row.layer for row in profile.rows}
    assert sum(row.share for row in profile.rows) == pytest.approx(1)
    low, high = [0.0, 0.1, 0.2, 0.3, 0.4], [1.0, 1.1, 1.2, 1.3, 1.4]
    found = hl.bench.test_hypothesis(low, high)
    assert found.difference == pytest.approx(1) and found.p == pytest.approx(2 / 252)  # of 10 choose 5, this and its mirror
    assert hl.bench.test_hypothesis(low, low).p == 1.0


def test_trap_12_surgery_leaves_no_holes():
    """A layer that was taken out was left as None, and the next pass failed."""
    whole = Model(build("gpt2"))
    blocks = list(whole.hf.transformer.h)
    with hl.analysis.surgery.delete(whole, 0) as shorter:
        assert shorter.facts.n_layers == 1 and None not in list(shorter.hf.transformer.h)
        found = shorter.capture(IDS, "logits")["logits"]
    by_hand = build("gpt2")
    by_hand.transformer.h = torch.nn.ModuleList([by_hand.transformer.h[1]])
    by_hand.transformer.h[0].attn.layer_idx = 0
    with torch.no_grad():
        assert torch.allclose(found, by_hand(torch.tensor(IDS), use_cache=False).logits, atol=1e-5)
    assert list(whole.hf.transformer.h) == blocks


def a_dictionary(activation, w_dec=True):
    drawn = torch.Generator().manual_seed(0)
    return hl.sae.SAE(torch.randn(6, 9, generator=drawn), torch.randn(9, generator=drawn),
                      torch.randn(9, 6, generator=drawn) if w_dec else None, torch.randn(6, generator=drawn), activation)


def test_trap_15_a_pruned_dictionary_keeps_its_biases_and_its_activation():
    """The pre-bias was dropped, and TopK became a plain ReLU."""
    sae, x = a_dictionary(hl.sae.TopK(2)), torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    dead = torch.tensor([2, 5])
    sae = replace(sae, b_enc=sae.b_enc.index_fill(0, dead, -1e6))
    small = sae.pruned([i for i in range(9) if i not in (2, 5)])
    pre = torch.relu((x - sae.b_dec) @ sae.w_enc + sae.b_enc)
    kept = torch.zeros_like(pre).scatter(1, pre.topk(2).indices, pre.topk(2).values)
    assert torch.allclose(small(x).reconstruction, kept @ sae.w_dec + sae.b_dec, atol=1e-5)
    assert torch.equal(small.b_dec, sae.b_dec) and repr(small.activation) == repr(sae.activation) and small.n_features == 7


def test_trap_15_a_tied_dictionary_is_read_back_and_a_pass_changes_nothing(tmp_path):
    sae, x = a_dictionary(hl.sae.ReLU(), w_dec=False), torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in vars(sae).items() if isinstance(value, torch.Tensor)}
    first, second = sae(x).reconstruction, sae(x).reconstruction
    assert torch.equal(first, second) and sae.statistics == {}
    assert all(torch.equal(getattr(sae, name), value) for name, value in before.items()), "a pass counted activity in it"
    back = hl.sae.load_sae(hl.sae.save_sae(sae, tmp_path / "tied.safetensors"))
    assert back.tied and torch.equal(back(x).reconstruction, first)
    assert torch.allclose(first, torch.relu((x - sae.b_dec) @ sae.w_enc + sae.b_enc) @ sae.w_enc.T + sae.b_dec, atol=1e-5)


def test_trap_16_a_lens_has_the_bias_of_the_norm_once_for_every_place():
    """A bias was spread over the wrong axis of a LayerNorm's output, and one version had names that did not exist."""
    for family in ("gpt2", "phi"):  # LayerNorms with gains and biases; Phi's head has a bias too
        hf = build(family)
        found = hl.lens(Model(hf), IDS, value="logit", answer=11)
        with torch.no_grad():
            streams = hf(torch.tensor(IDS), output_hidden_states=True).hidden_states
            norm = hf.transformer.ln_f if family == "gpt2" else hf.model.final_layernorm
            first = hf.lm_head(norm(streams[1]))[0, :, 11]
        assert torch.allclose(torch.tensor(found.sel(layer=0).values).float().reshape(-1), first, atol=1e-4)


def test_trap_16_a_tuned_lens_adds_its_translation_to_the_stream_before_the_norm():
    """The translation took the place of the stream, behind the norm."""
    hf, drawn = build("gpt2"), torch.Generator().manual_seed(0)
    tuned = hl.analysis.TunedLens(0.1 * torch.randn(2, 32, 32, generator=drawn), torch.randn(2, 32, generator=drawn))
    found = hl.lens(Model(hf), IDS, "L1.resid_pre", value="logit", answer=11, tuned=tuned)
    with torch.no_grad():
        stream = hf(torch.tensor(IDS), output_hidden_states=True).hidden_states[1][0]
        moved = stream + stream @ tuned.weight[1] + tuned.bias[1]
        wanted = hf.lm_head(hf.transformer.ln_f(moved))[:, 11]
    assert torch.allclose(torch.tensor(found.values).float().reshape(-1), wanted, atol=1e-4)


def test_trap_17_patching_runs_as_it_is_documented_and_is_what_a_hook_by_hand_does():
    """The documented call could not run, at any revision, and settings that nobody knew were taken without a word."""
    hf, clean, corrupt = build("gpt2"), [[3, 4, 5, 6, 7]], [[3, 9, 5, 6, 7]]
    model = Model(hf)
    grid = hl.sweep(model, clean, corrupt, "L*.resid_pre", "each", metric="logit", answer=11)
    assert grid.axes == ("layer", "pos") and grid.shape == (2, 5)
    by_hand = torch.empty(2, 5)
    with torch.no_grad():
        plain = build("gpt2")
        streams = plain(torch.tensor(clean), output_hidden_states=True).hidden_states
        ends = [plain(torch.tensor(ids)).logits[0, -1, 11] for ids in (corrupt, clean)]
        for layer in range(2):
            for pos in range(5):
                def patch(module, args, kwargs, layer=layer, pos=pos):
                    args[0][:, pos] = streams[layer][:, pos]

                handle = plain.transformer.h[layer].register_forward_pre_hook(patch, with_kwargs=True)
                by_hand[layer, pos] = plain(torch.tensor(corrupt)).logits[0, -1, 11]
                handle.remove()
    assert torch.allclose(torch.tensor(grid.raw.values).float(), by_hand, atol=1e-4)
    assert grid.ends == pytest.approx([float(end) for end in ends], abs=1e-4)
    with pytest.raises((TypeError, hl.errors.HooklabError), match="patching_elem"):
        hl.sweep(model, clean, corrupt, "L*.resid_pre", "each", metric="logit", answer=11, patching_elem="@end-image")
