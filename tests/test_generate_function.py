"""`generate` as a function: text and activations against transformers, with hooks put on its modules by hand."""

from __future__ import annotations

import functools
import random
from datetime import datetime

import numpy as np
import pytest
import tiny_models
import torch

import hooklab as hl
from hooklab.analysis.asking import SweepError
from hooklab.analysis.generate import generate, log_probs
from hooklab.problems import SpecError

BLOCKS = {"gpt2": "transformer.h", "llama": "model.layers", "gpt_neox": "gpt_neox.layers", "gemma2": "model.layers",
          "phi3": "model.layers"}
PROMPT = [11, 7, 23, 42, 5, 17, 31, 60, 8]
RAGGED = [PROMPT, [9, 13, 40], [8, 19, 33, 6, 12]]
V = torch.randn(32, generator=torch.Generator().manual_seed(5))


def endless(name, seed=0):
    """A tiny model that no token ends."""
    hf = tiny_models.build(name, seed=seed)
    hf.generation_config.eos_token_id = None
    return hf


@functools.cache
def opened(name, seed=0):
    return hl.load(endless(name, seed))


@functools.cache
def untouched(name, seed=0):
    """The same module, which hooklab never saw."""
    return endless(name, seed)


def greedy(name, ids, count=5, seed=0):
    out = untouched(name, seed).generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                                         max_new_tokens=count, do_sample=False, pad_token_id=0)
    return tuple(out[0, len(ids):].tolist())


def hidden(name, ids, change=None):
    """Embeddings, what each block gives, and logits, of one pass; `change` may replace what block 0 gives."""
    hf = untouched(name)
    found = {}

    def seeing(key):
        def hook(module, args, out):
            value = out[0] if isinstance(out, tuple) else out
            if key == "layer_0" and change is not None:
                value = change(value)
                out = (value, *out[1:]) if isinstance(out, tuple) else value
            found[key] = value
            return out
        return hook

    modules = {"embeddings": hf.get_input_embeddings()}
    modules |= {f"layer_{i}": block for i, block in enumerate(hf.get_submodule(BLOCKS[name]))}
    handles = [module.register_forward_hook(seeing(key)) for key, module in modules.items()]
    try:
        with torch.no_grad():
            found["logits"] = hf(torch.tensor([ids])).logits
    finally:
        for handle in handles:
            handle.remove()
    return found


def hooks(hf):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in hf.modules())


# Capture -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BLOCKS)
def test_nine_tokens_and_five_new_ones_are_captured_as_in_one_pass_over_thirteen(name):
    run = generate(opened(name), [PROMPT], max_new_tokens=5)
    (text,) = run.texts["main"]
    assert text.ids == greedy(name, PROMPT)
    whole = hidden(name, [*PROMPT, *text.ids][:13])
    found = run.as_dict()["activations"]
    assert found.keys() == whole.keys() - {"logits"}
    for key, value in found.items():
        assert value.shape == (1, 13, 32)
        torch.testing.assert_close(value, whole[key], rtol=1e-5, atol=1e-5 * max(1.0, float(whole[key].abs().max())))


@pytest.mark.parametrize("name", BLOCKS)
def test_prompts_of_three_lengths_are_captured_as_each_alone(name):
    run = generate(opened(name), RAGGED, max_new_tokens=5)
    for row, ids in enumerate(RAGGED):
        view = run.as_dict(row)
        new = run.texts["main"][row].ids
        assert new == greedy(name, ids)
        assert view["input_ids"].tolist() == [[*ids, *new[:-1]]]
        whole = hidden(name, [*ids, *new[:-1]])
        for key, value in view["activations"].items():
            torch.testing.assert_close(value, whole[key], rtol=1e-5, atol=1e-5 * max(1.0, float(whole[key].abs().max())))


@pytest.mark.parametrize("drawing", [{}, {"temperature": 1.1, "seed": 4, "top_k": 30, "samples": 2}], ids=str)
def test_tokens_are_the_same_with_capture_and_without(drawing):
    model = opened("llama")
    without = generate(model, RAGGED, None, max_new_tokens=6, **drawing)
    assert not without.data
    assert generate(model, RAGGED, ["embed", "L*.z", "logits"], max_new_tokens=6, **drawing).texts == without.texts


def test_steps_choose_what_is_kept_and_the_spec_of_the_run_says_so():
    model = opened("gpt2")
    whole = generate(model, [PROMPT], "L1.resid_post", max_new_tokens=5)["L1.resid_post"]
    kept = {"all": [*range(13)], "prompt": [*range(9)], "new": [9, 10, 11, 12], 0: [*range(9)], 2: [10]}
    for steps, positions in kept.items():
        run = generate(model, [PROMPT], "L1.resid_post", steps=steps, max_new_tokens=5)
        assert torch.equal(run["L1.resid_post"], whole[:, positions])
    run = generate(model, [PROMPT], "L1.resid_post", steps=(1, 4), max_new_tokens=5)
    assert torch.equal(run["L1.resid_post"], whole[:, [9, 12]])
    assert run.replay(model).same


def test_a_row_of_a_pattern_is_kept_for_the_steps_that_are_chosen():
    model = opened("llama")
    whole = generate(model, RAGGED, "L0.pattern", max_new_tokens=4)["L0.pattern"]
    some = generate(model, RAGGED, "L0.pattern", steps=[1, 3], max_new_tokens=4)["L0.pattern"]
    assert torch.equal(some.nan_to_num(-1), whole[:, :, [-3, -1]].nan_to_num(-1))


def test_a_row_that_ends_before_others_has_its_own_length():
    model = hl.load("lab")
    prompts = ["The capital of France is", "The capital of Spain is"]
    run = generate(model, prompts, "L2.resid_post", stop=" Paris", max_new_tokens=5)
    assert [text.stopped for text in run.texts["main"]] == ["stop", "eos"]
    for row, prompt in enumerate(prompts):
        ids = run.as_dict(row)["input_ids"]
        assert ids.tolist() == [[*model.tokens(prompt).ids[0], *run.texts["main"][row].ids[:-1]]]
        with torch.no_grad():
            whole = model.hf(ids, output_hidden_states=True).hidden_states[3]
        torch.testing.assert_close(run.as_dict(row)["activations"]["layer_2"], whole, rtol=1e-5, atol=1e-4)


def test_one_layer_of_many_holds_its_share_of_the_bytes():
    model = opened("gpt2")
    size = {places: sum(t.numel() * t.element_size() for t in generate(model, [PROMPT], places, max_new_tokens=3).values())
            for places in ("L0.resid_post", "L-1.resid_post", "L*.resid_post")}
    assert size["L0.resid_post"] * model.facts.n_layers == size["L*.resid_post"]
    assert size["L-1.resid_post"] == 11 * 32 * 4


def test_a_layer_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(SpecError, match=r"no layer 7.*2 layers, 0 to 1"):
        generate(opened("gpt2"), [PROMPT], "L7.resid_post")


# Drawing -------------------------------------------------------------------------------------------------------------


def test_draws_follow_the_seed_and_leave_the_process_its_own_random_numbers():
    model = opened("gpt2")
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first = generate(model, [PROMPT], temperature=1.0, seed=1, max_new_tokens=8).texts
    assert generate(model, [PROMPT], temperature=1.0, seed=1, max_new_tokens=8).texts == first
    assert generate(model, [PROMPT], temperature=1.0, seed=2, max_new_tokens=8).texts != first
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])


@pytest.mark.parametrize(("mass", "nucleus"), [(0.5, [0, 1]), (0.39, [0]), (0.71, [0, 1, 2]), (0.95, [0, 1, 2, 3])])
def test_a_nucleus_is_the_smallest_set_with_at_least_the_mass_asked_for(mass, nucleus):
    chances = [0.4, 0.3, 0.2, 0.1]
    logits = torch.full((100,), -1e4)
    logits[:4] = torch.tensor(chances).log()
    run = generate(opened("gpt2"), [[3, 4]], None, edits="set logits to {wanted}", values={"wanted": logits}, top_p=mass,
                   samples=4000, seed=1, max_new_tokens=1)
    counts = np.bincount([text.ids[0] for text in run.texts["hooked"]], minlength=4)
    assert counts.sum() == 4000
    assert np.flatnonzero(counts).tolist() == nucleus
    expected = np.array([chances[i] for i in nucleus]) / sum(chances[i] for i in nucleus) * 4000
    assert float(((counts[nucleus] - expected) ** 2 / expected).sum()) < 16.3  # beyond it lies 1 in 1000, of 3 degrees


def test_no_row_depends_on_its_place_in_the_batch():
    texts = generate(opened("llama"), RAGGED, None, max_new_tokens=6).texts["main"]
    turned = generate(opened("llama"), RAGGED[::-1], None, max_new_tokens=6).texts["main"]
    assert [text.ids for text in texts] == [text.ids for text in turned][::-1]


def test_how_likely_each_token_was_is_what_one_pass_says():
    run = generate(opened("llama"), RAGGED, "logits", max_new_tokens=5, temperature=1.3, seed=2)
    for ids, text, found in zip(RAGGED, run.texts["main"], log_probs(run), strict=True):
        logs = hidden("llama", [*ids, *text.ids][:-1])["logits"][0, len(ids) - 1:].double().log_softmax(-1)
        np.testing.assert_allclose(found, [float(row[i]) for row, i in zip(logs, text.ids, strict=True)], atol=1e-5)
    with pytest.raises(hl.errors.RecordError, match="logits"):
        log_probs(generate(opened("llama"), RAGGED, None, max_new_tokens=2))
    with pytest.raises(hl.errors.RecordError, match="generate 20"):
        log_probs(hl.Run())


# Edits, models, mishaps ----------------------------------------------------------------------------------------------


def test_edits_act_at_every_step_and_are_captured():
    run = generate(opened("llama"), [PROMPT], edits="steer L0.resid by {v}", values={"v": 2 * V}, max_new_tokens=5)
    ids = list(PROMPT)
    for _ in range(5):
        whole = hidden("llama", ids, lambda x: x + 2 * V)
        ids.append(int(whole["logits"][0, -1].argmax()))
    assert run.texts["hooked"][0].ids == tuple(ids[9:]) != greedy("llama", PROMPT)
    for key, value in run.as_dict()["activations"].items():
        torch.testing.assert_close(value, whole[key], rtol=1e-5, atol=1e-4)


def test_a_value_of_another_prompt_is_patched_in_while_writing():
    model = opened("llama")
    other = [30, 21, 23, 4, 55, 60, 31, 2, 19]
    source = hidden("llama", other)["layer_0"][0, 2]

    def patched(x):
        x = x.clone()
        x[:, 2] = source
        return x

    run = generate(model, [PROMPT], edits="prompt other = {other}\npatch L0.resid @2 from other", values={"other": [other]},
                   max_new_tokens=3)
    whole = hidden("llama", [*PROMPT, *run.texts["hooked"][0].ids][:-1], patched)
    torch.testing.assert_close(run["L1.resid_post"], whole["layer_1"], rtol=1e-5, atol=1e-4)


def test_a_second_model_writes_its_own_text():
    first, second = opened("gpt2"), opened("gpt2", seed=3)
    found = [generate(model, [PROMPT], max_new_tokens=5) for model in (first, second, first)]
    assert [run.texts["main"][0].ids for run in found] == [greedy("gpt2", PROMPT), greedy("gpt2", PROMPT, seed=3),
                                                           greedy("gpt2", PROMPT)]
    assert not torch.equal(found[0]["L0.resid_post"], found[1]["L0.resid_post"])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_generation_that_breaks_off_leaves_no_hook_behind(error):
    model = opened("llama")
    before = hooks(model.hf), model.hf.generation_config, model.hf.config._attn_implementation

    def breaks(step):
        if step == 2:
            raise error("stop")
        return True

    with pytest.raises(error):
        generate(model, [PROMPT], "L*.pattern", edits="scale L0.mlp by 2 steps={breaks}", values={"breaks": breaks})
    assert (hooks(model.hf), model.hf.generation_config, model.hf.config._attn_implementation) == before
    assert not model.interleaver.callbacks
    assert generate(model, [PROMPT], None, max_new_tokens=5).texts["main"][0].ids == greedy("llama", PROMPT)


def test_text_goes_to_the_screen_as_it_is_written_when_asked(capsys):
    model = hl.load("lab")
    generate(model, "The capital of France is", None, max_new_tokens=3)
    assert capsys.readouterr().out == ""
    run = generate(model, "The capital of France is", None, max_new_tokens=3, stream=True)
    assert capsys.readouterr().out == run.texts["main"][0].new + "\n" == " Paris.\n"


def test_a_stop_text_ends_it():
    run = generate(hl.load("lab"), "The capital of France is", None, stop=["nothing", " Par"])
    assert run.text == "The capital of France is Paris"
    assert run.texts["main"][0].stopped == "stop"


@pytest.mark.parametrize(("given", "says"), [
    (dict(steps="old"), "all, prompt, new"), (dict(steps=[5]), "no step 5: 5 new tokens take steps 0 to 4"),
    (dict(steps=-1), "no step -1"), (dict(steps=[]), "capture=None"), (dict(steps=[1.5]), "list of steps"),
    (dict(max_new_tokens=2.5), "whole number"), (dict(max_new_tokens=0), "at least 1"), (dict(seed="x"), "whole number"),
    (dict(top_p=1.5), "at most 1"), (dict(temperature="hot"), "number"), (dict(temperature=-1), "temperature="),
    (dict(edits="zap L0"), 'no verb "zap"'), (dict(edits="generate 4"), "is no edit"),
    (dict(edits="run a on main:\n  zero L0H0"), "is no edit"),
    (dict(edits="steer L0.resid by {main}", values={"main": V}), "rename yours"),
    (dict(chat=True), "chat template")])  # fmt: skip
def test_what_cannot_be_done_is_said_before_anything_runs(given, says, monkeypatch):
    monkeypatch.setattr("hooklab.runtime.execute.execute", lambda *_, **__: pytest.fail("it ran"))
    prompt = "the store" if "chat" in given else [PROMPT]
    with pytest.raises((SweepError, SpecError), match=says):
        generate(opened("gpt2"), prompt, **{"max_new_tokens": 5, **given})


def test_several_texts_are_not_taken_for_a_chat():
    with pytest.raises(SweepError, match="one text"):
        generate(hl.load("lab"), ["a", "b"], chat=True)


# As a dictionary -------------------------------------------------------------------------------------------------------


def test_the_dictionary_has_these_keys_and_shapes_and_no_other(tmp_path):
    model = hl.load("lab")
    run = generate(model, "The capital of France is", max_new_tokens=2)
    found = run.as_dict()
    assert list(found) == ["prompt", "response", "model", "timestamp", "input_ids", "activations"]
    assert list(found["activations"]) == ["embeddings", *(f"layer_{i}" for i in range(model.facts.n_layers))]
    assert (found["prompt"], found["response"]) == ("The capital of France is", " Paris.")
    assert found["model"] == run.provenance["model"]["name"] != ""
    assert datetime.fromisoformat(found["timestamp"]).tzinfo is not None
    ids = [*model.tokens("The capital of France is").ids[0], *run.texts["main"][0].ids]
    assert found["input_ids"].tolist() == [ids[:-1]]
    assert {tuple(value.shape) for value in found["activations"].values()} == {(1, len(ids) - 1, model.facts.d_model)}
    again = hl.Run.load(run.save(tmp_path / "kept")).as_dict()
    assert {key: again[key] for key in list(found)[:4]} == {key: found[key] for key in list(found)[:4]}
    assert all(torch.equal(again["activations"][key], value) for key, value in found["activations"].items())


def test_the_dictionary_of_a_row_is_that_of_its_sample_and_example():
    run = generate(opened("gpt2"), RAGGED, ["L1.resid_post", "L0.pattern"], max_new_tokens=4, samples=2, seed=6)
    for row, text in enumerate(run.texts["main"]):
        assert (text.sample, text.example) == divmod(row, 3)
        ids = [*RAGGED[text.example], *text.ids][:-1]
        found = run.as_dict(row)
        assert found["input_ids"].tolist() == [ids]
        torch.testing.assert_close(found["activations"]["layer_1"], hidden("gpt2", ids)["layer_1"], rtol=1e-5, atol=1e-4)
        assert found["activations"]["L0.pattern"].shape == (1, 4, len(ids), len(ids))
        assert found["activations"]["L0.pattern"].sum(-1).allclose(torch.ones(()))


def test_a_dictionary_of_what_was_not_written_is_refused():
    model = opened("gpt2")
    swept = generate(model, [PROMPT], None, edits="sweep c in [0, 1]\nscale L0.mlp by c", max_new_tokens=2)
    several = generate(model, RAGGED, None, max_new_tokens=2)
    for run, row, says in ((swept, None, "swept"), (several, None, r"as_dict\(0\) to as_dict\(2\)"),
                           (several, 3, "no row 3"), (several, -1, "no row -1"), (hl.Run(), None, "generate 20")):
        with pytest.raises(hl.errors.RecordError, match=says):
            run.as_dict(row)
    assert several.as_dict(1)["input_ids"].shape == (1, len(RAGGED[1]) + 1)
