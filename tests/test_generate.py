"""Generation in the hook language: tokens, texts and activations against transformers and against passes without a cache."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import logging
import random

import numpy as np
import pytest
import tiny_models
import torch
import transformers

import hooklab as hl
from hooklab.errors import HooklabWarning
from hooklab.problems import SpecError
from hooklab.runtime.drawing import Sound

FAMILIES = [name for name in tiny_models.FAMILIES
            if name not in (*tiny_models.HEADLESS, "bert", "llava")]
COUNT = 9
PROMPT = [11, 7, 23, 42, 5, 17, 31]
RAGGED = [PROMPT, [9, 13, 40], [8, 19, 33, 6, 12]]


def endless(name, **options):
    """A tiny model that no token ends."""
    hf = tiny_models.build(name, **options)
    hf.generation_config.eos_token_id = None
    return hf


@functools.cache
def opened(name):
    return hl.load(endless(name))


def greedy(name, ids, count=COUNT):
    """New tokens that a module without hooklab writes."""
    hf = endless(name)
    out = hf.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=count,
                      do_sample=False, pad_token_id=0)
    return tuple(out[0, len(ids):].tolist())


def close(a, b):
    """Equal up to the rounding of float32."""
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * max(1.0, float(b.abs().max())))


def tail(value, axis, count):
    """The last entries of an axis: a row without what was padded before it."""
    return value.narrow(axis, value.shape[axis] - count, count)


def agrees(model, run, name, rows, edits_of=None, layers=(0, 1), attention=True):
    """What `save` lines kept, and the tokens, equal one pass over each finished sequence without a cache."""
    texts = run.texts[name]
    assert len(texts) == len(rows)
    for i, (prompt, text) in enumerate(zip(rows, texts, strict=True)):
        ids = [*prompt, *text.ids]
        total = len(ids) - 1
        edits = edits_of(len(prompt), total, i) if edits_of else None
        sites = ["L*.resid_post", "logits", *(["L*.z", "L*.pattern"] if attention else [])]
        whole = model.capture([ids[:-1]], sites, edits=edits)
        assert whole["logits"][0, len(prompt) - 1:].argmax(-1).tolist() == list(text.ids)
        close(tail(run[f"{name}.logits"][i], 0, total), whole["logits"][0])
        for layer in layers:
            close(tail(run[f"{name}.L{layer}.resid_post"][i], 0, total), whole[f"L{layer}.resid_post"][0])
            if attention:
                close(tail(run[f"{name}.L{layer}.z"][i], 0, total), whole[f"L{layer}.z"][0])
                kept = tail(tail(run[f"{name}.L{layer}.pattern"][i], 1, total), 2, total)
                close(kept, whole[f"L{layer}.pattern"][0])


SAVED = "save L*.resid_post\nsave L*.z\nsave L*.pattern\nsave logits"


# Every family ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_tokens_are_those_of_transformers_and_the_steps_those_of_one_pass(name):
    model = opened(name)
    run = model.run(f"prompt {{ids}}\ngenerate {COUNT}\n{SAVED}", ids=[PROMPT])
    (text,) = run.texts["main"]
    assert text.ids == greedy(name, PROMPT)
    assert tuple(run["L0.pattern"].shape[-2:]) == (len(PROMPT) + COUNT - 1,) * 2
    agrees(model, run, "main", [PROMPT])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_ragged_batch_writes_what_its_rows_write_alone(name):
    model = opened(name)
    run = model.run(f"prompt {{ids}}\ngenerate {COUNT}\n{SAVED}", ids=RAGGED)
    for ids, text in zip(RAGGED, run.texts["main"], strict=True):
        assert text.ids == greedy(name, ids)
    agrees(model, run, "main", RAGGED)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "gpt_neo", "gemma2"])
def test_tokens_that_are_not_there_are_nan_in_a_ragged_batch(name):
    run = opened(name).run("prompt {ids}\ngenerate 3\nsave L0.resid_post\nsave L0.pattern", ids=RAGGED)
    stream, pattern = run["L0.resid_post"], run["L0.pattern"]
    lengths = torch.tensor([len(ids) + 2 for ids in RAGGED])
    missing = torch.arange(9)[None] < 9 - lengths[:, None]
    assert torch.equal(stream.isnan().all(-1), missing)
    assert torch.equal(stream.isnan().any(-1), missing)
    assert torch.equal(pattern.isnan().any(1), missing[:, :, None] | missing[:, None, :])
    column = run.tokens_of["main"].column
    assert [column(row, 0) for row in range(3)] == (9 - lengths).tolist()


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt_neo", "bloom", "falcon_new", "gemma3"])
def test_scores_rotated_keys_and_their_like_are_stitched_over_steps(name):
    model = opened(name)
    run = model.run("prompt {ids}\ngenerate 8\nsave L*.rot_k\nsave L*.rot_q\nsave L*.k\nsave L*.v\nsave L*.scores\n"
                    "save L*.mlp_post\nsave embed\nsave ln_final", ids=[PROMPT])
    ids = [*PROMPT, *run.texts["main"][0].ids][:-1]
    whole = model.capture([ids], [key.removeprefix("main.") for key in run])
    for key, value in run.items():
        expected = whole[key.removeprefix("main.")]
        if key.endswith("scores"):
            value, expected = value.softmax(-1), expected.softmax(-1)
        close(value, expected)


# Edits -------------------------------------------------------------------------------------------------------------

V = torch.randn(32, generator=torch.Generator().manual_seed(5))
EVERY = lambda n, total: range(total)  # noqa: E731
GIVEN = lambda n, total: range(n)  # noqa: E731
NEW = lambda n, total: range(n, total)  # noqa: E731
LOW = torch.finfo(torch.float32).min


def steps(*chosen):
    """Positions of generation steps; step 0 is the whole prompt, step s the s-th new token."""
    return lambda n, total: [p for s in chosen for p in (range(n) if s == 0 else [n + s - 1]) if p < total]


def heads(*chosen, by=0.0):
    def change(x):
        x[:, :, list(chosen)] *= by
    return change


def units(*chosen, to):
    def change(x):
        x[..., list(chosen)] = to
    return change


def plus(v):
    return lambda x: x.add_(v)


def times(factor):
    return lambda x: x.mul_(factor)


def project(x):
    along = V / V.norm()
    x.sub_((x @ along)[..., None] * along)


# line of the language; address, positions and change of the same edit by hand
LINES = {
    "steer everywhere": ("steer L1.resid by 0.5 * {v}", "L1.resid_post", EVERY, plus(0.5 * V)),
    "steer @all": ("steer L0.resid @all by 0.5 * {v}", "L0.resid_post", EVERY, plus(0.5 * V)),
    "steer @prompt": ("steer L0.resid @prompt by {v}", "L0.resid_post", GIVEN, plus(V)),
    "steer @new": ("steer L0.resid @new by {v}", "L0.resid_post", NEW, plus(V)),
    "steer @3": ("steer L0.resid @3 by 4 * {v}", "L0.resid_post", lambda n, t: [3], plus(4 * V)),
    "steer @last is the last of the prompt": ("steer L0.attn @last by {v}", "L0.attn_out", lambda n, t: [n - 1], plus(V)),
    "steer at a mark": ("mark here = 1:3\nsteer L0.mlp @here by 4 * {v}", "L0.mlp_out", lambda n, t: [1, 2], plus(4 * V)),
    "steps=prompt": ("steer L0.resid by {v} steps=prompt", "L0.resid_post", GIVEN, plus(V)),
    "steps=new": ("steer L0.resid by {v} steps=new", "L0.resid_post", NEW, plus(V)),
    "steps=all": ("steer L0.resid by 0.5 * {v} steps=all", "L0.resid_post", EVERY, plus(0.5 * V)),
    "a list of steps": ("steer L0.resid by {v} steps=[1,3]", "L0.resid_post", steps(1, 3), plus(V)),
    "a range of steps": ("steer L0.resid by {v} steps=2:5", "L0.resid_post", steps(2, 3, 4), plus(V)),
    "a function of the step": ("steer L0.resid by {v} steps={lambda s: s % 2 == 0}", "L0.resid_post",
                               steps(0, 2, 4, 6, 8), plus(V)),
    "zero a head": ("zero L0H1.z", "L0.z", EVERY, heads(1)),
    "zero two heads @new": ("zero L1H[0,2].z @new", "L1.z", NEW, heads(0, 2)),
    "scale heads @prompt": ("scale L0H[1,3].z @prompt by 3", "L0.z", GIVEN, heads(1, 3, by=3)),
    "set a layer @new": ("set L0.mlp_out @new to 0.25", "L0.mlp_out", NEW, lambda x: x.fill_(0.25)),
    "set neurons": ("set L0N[3,5] to 1.5", "L0.mlp_post", EVERY, units(3, 5, to=1.5)),
    "clamp": ("clamp L0.resid @new min=-0.5 max=0.5", "L0.resid_post", NEW, lambda x: x.clamp_(-0.5, 0.5)),
    "project out": ("project_out L0.resid along {v} steps=new", "L0.resid_post", NEW, project),
    "keys before the cache": ("scale L0.k @1 by 3", "L0.k", lambda n, t: [1], times(3)),
    "values of new tokens": ("zero L1.v @new", "L1.v", NEW, times(0)),
    "cached keys at a position": ("scale L0.rot_k @2 by 3", "L0.rot_k", lambda n, t: [2], times(3)),
    "cached keys of new tokens": ("scale L0.rot_k @new by 3", "L0.rot_k", NEW, times(3)),
    "cached keys at some steps": ("scale L1.rot_k by 0.2 steps=[1,3]", "L1.rot_k", steps(1, 3), times(0.2)),
    "queries": ("scale L0.rot_q by 2 steps=[0,2]", "L0.rot_q", steps(0, 2), times(2)),
    "logits": ("zero logits[40:99] steps=[1,2]", "logits", steps(1, 2), units(*range(40, 99), to=0.0)),
    "logits of a prompt position": ("set logits[3] @2 to 9", "logits", lambda n, t: [2], units(3, to=9.0)),
}


def by_hand(address, positions, change):
    """The edit of a row of the table, for a sequence of `total` tokens of which `n` were given."""
    def of_row(n, total, row):
        def edit(value):
            part = value[:, list(positions(n, total))]
            change(part)
            value[:, list(positions(n, total))] = part
        return {address: edit}
    return of_row


@pytest.mark.parametrize("name", ["gpt2", "mistral"])
@pytest.mark.parametrize("row", LINES, ids=str)
def test_an_edit_acts_at_the_positions_that_it_names(row, name):
    line, address, positions, change = LINES[row]
    model = opened(name)
    run = model.run(f"prompt {{ids}}\n{line}\ngenerate {COUNT}\n{SAVED}", ids=[PROMPT],
                    values={"v": V, "lambda s: s % 2 == 0": lambda s: s % 2 == 0})
    agrees(model, run, "hooked", [PROMPT], by_hand(address, positions, change))
    plain = model.capture([[*PROMPT, *run.texts["hooked"][0].ids][:-1]], "logits")["logits"]
    assert not torch.allclose(plain, run["logits"], atol=1e-3), "the edit changes something"


@pytest.mark.parametrize("name", ["llama", "bloom", "gpt_neo", "gemma3", "chameleon"])
@pytest.mark.parametrize("row", ["steer @new", "zero a head", "cached keys at a position", "a list of steps",
                                 "steer @last is the last of the prompt"], ids=str)
def test_an_edit_acts_on_each_row_of_a_ragged_batch(row, name):
    line, address, positions, change = LINES[row]
    model = opened(name)
    run = model.run(f"prompt {{ids}}\n{line}\ngenerate {COUNT}\n{SAVED}", ids=RAGGED, v=V)
    agrees(model, run, "hooked", RAGGED, by_hand(address, positions, change))


def test_the_write_of_a_head_is_taken_out_of_the_stream():
    model = opened("llama")
    run = model.run(f"prompt {{ids}}\nzero L0H1 @new, L1H[0,2] @new\ngenerate {COUNT}\n{SAVED}", ids=RAGGED)

    def of_row(n, total, _):
        def without(*chosen):
            def edit(z):
                z[:, n:, list(chosen)] = 0
            return edit
        return {"L0.z": without(1), "L1.z": without(0, 2)}

    agrees(model, run, "hooked", RAGGED, of_row, attention=False)


CUTS = {
    "from the prompt to new tokens": ("cut L*.pattern @1:3 -> @new", (0, 1), (0, 1, 2, 3), range(1, 3), NEW, True),
    "one head": ("cut L1H2 @0 -> @new", (1,), (2,), [0], NEW, True),
    "after the softmax": ("cut L0 @1:3 -> @new renorm=false", (0,), (0, 1, 2, 3), range(1, 3), NEW, False),
    "to every token": ("cut L1 @1 -> @all", (1,), (0, 1, 2, 3), [1], EVERY, True),
    "within the prompt": ("cut L0 @1 -> @last", (0,), (0, 1, 2, 3), [1], lambda n, t: [n - 1], True),
    "at some steps": ("cut L0 @1 -> @new steps=[2,3]", (0,), (0, 1, 2, 3), [1], steps(2, 3), True),
}


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neo", "falcon_new", "mistral"])
@pytest.mark.parametrize("row", CUTS, ids=str)
def test_attention_edges_are_cut_at_every_step_that_is_meant(row, name):
    line, layers, chosen, keys, queries, before = CUTS[row]

    def of_row(n, total, _):
        def cut(value):
            for q in queries(n, total):
                for head in chosen:
                    value[:, head, q, list(keys)] = LOW if before else 0.0
        return {f"L{layer}.{'scores' if before else 'pattern'}": cut for layer in layers}

    model = opened(name)
    for rows in ([PROMPT], RAGGED):
        run = model.run(f"prompt {{ids}}\n{line}\ngenerate {COUNT}\n{SAVED}", ids=rows)
        agrees(model, run, "hooked", rows, of_row)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "bloom"])
def test_a_frozen_pattern_of_the_prompt(name):
    model = opened(name)
    base = model.capture([PROMPT], "L*.pattern")

    def of_row(n, total, _):
        def frozen(layer):
            def freeze(value):
                value[:, :, :n, :n] = base[f"L{layer}.pattern"]
            return freeze
        return {"embed": lambda x: x + V, "L0.pattern": frozen(0), "L1.pattern": frozen(1)}

    run = model.run(f"prompt {{ids}}\nsteer embed by {{v}}\nfreeze L*.pattern @prompt\ngenerate {COUNT}\n{SAVED}",
                    ids=[PROMPT], v=V)
    agrees(model, run, "hooked", [PROMPT], of_row)


def test_a_patch_from_another_prompt_and_a_run_stacked_on_another():
    model = opened("llama")
    other = [30, 21, 23, 4, 55, 60, 31]
    source = model.capture([other], "L0.resid_post")["L0.resid_post"][0, 2]
    spec = (f"prompt clean = {{other}}\nprompt corrupt = {{ids}}\n"
            f"run patched on corrupt:\n  patch L0.resid @2 from clean\n  scale L1H0.z by 2\n  generate {COUNT}\n"
            + "".join(f"  {line}\n" for line in SAVED.split("\n"))
            + f"run stacked on patched:\n  steer L1.mlp @new by {{v}}\n  generate {COUNT}\n"
            + "".join(f"  {line}\n" for line in SAVED.split("\n")))
    run = model.run(spec, other=[other], ids=[PROMPT], v=V)

    def patch(x):
        x[:, 2] = source

    def both(n, total, _):
        return {"L0.resid_post": patch, "L1.z": lambda x: heads(0, by=2)(x)}

    def stacked(n, total, _):
        def add(x):
            x[:, n:] += V
        return {**both(n, total, _), "L1.mlp_out": add}

    agrees(model, run, "patched", [PROMPT], both)
    agrees(model, run, "stacked", [PROMPT], stacked)


def test_features_of_a_dictionary_are_changed_and_kept_at_every_step():
    made = torch.Generator().manual_seed(3)
    table = {"W_enc": torch.randn(32, 12, generator=made), "b_enc": torch.randn(12, generator=made),
             "W_dec": torch.randn(12, 32, generator=made), "b_dec": torch.randn(32, generator=made)}

    class Autoencoder:
        W_dec = table["W_dec"]
        n_features = d_sae = 12

        def encode(self, x):
            return torch.relu((x - table["b_dec"]) @ table["W_enc"] + table["b_enc"])

        def decode(self, f):
            return f @ table["W_dec"] + table["b_dec"]

    sae, model = Autoencoder(), opened("mistral")

    def of_row(n, total, _):
        def more(x):
            features = sae.encode(x)
            x[:, n:] += (features[..., [3, 5]] @ table["W_dec"][[3, 5]])[:, n:]
        return {"L0.resid_post": more}

    run = model.run(f"prompt {{ids}}\nsae enc = {{sae}} at L0.resid_post\nscale enc.F[3,5] @new by 2\n"
                    f"generate {COUNT}\n{SAVED}\nsave enc.F[1,3] as found", ids=RAGGED, sae=sae)
    agrees(model, run, "hooked", RAGGED, of_row)
    for row, (ids, text) in enumerate(zip(RAGGED, run.texts["hooked"], strict=True)):
        total = len(ids) + len(text.ids) - 1
        stream = tail(run["L0.resid_post"][row], 0, total)
        close(tail(run["found"][row], 0, total), sae.encode(stream)[..., [1, 3]])
    assert run.axes["hooked.found"] == ("batch", "pos", "feature")


def test_an_edit_at_positions_acts_on_every_sample_of_every_example():
    model = opened("gemma2")
    run = model.run("prompt {ids}\nsteer L0.resid @last by 3 * {v}\nzero L1H2.z @new\n"
                    "generate 6 samples=2 temperature=1\nsave logits", ids=RAGGED, v=V)
    for text in run.texts["hooked"]:
        prompt = RAGGED[text.example]
        n, ids = len(prompt), [*prompt, *text.ids][:-1]

        def steer(x, at=n - 1):
            x[:, at] += 3 * V

        def zero(z, start=n):
            z[:, start:, 2] = 0

        whole = model.capture([ids], "logits", edits={"L0.resid_post": steer, "L1.z": zero})["logits"]
        close(tail(run["logits"][text.sample, text.example], 0, len(ids)), whole[0])


def test_a_prompt_with_an_image():
    hf = endless("chameleon")
    processor = tiny_models.chameleon_processor()
    model = hl.load(hf, tokenizer=processor.tokenizer, processor=processor)
    encoding = processor(text=["<image> this is a cat"], images=[tiny_models.image()], return_tensors="pt")
    n = encoding["input_ids"].shape[1]
    expected = endless("chameleon").generate(**encoding, max_new_tokens=6, do_sample=False)[0, n:].tolist()
    run = model.run('prompt "<image> this is a cat" image={im}\ngenerate 6\nsave L1.resid_post\nsave L0.z @image as seen',
                    im=tiny_models.image())
    (text,) = run.texts["main"]
    assert list(text.ids) == expected
    ids = torch.cat([encoding["input_ids"], torch.tensor([expected[:-1]])], 1)
    whole = model.capture({"input_ids": ids, "pixel_values": encoding["pixel_values"]}, ["L1.resid_post", "L0.z"])
    close(run["L1.resid_post"], whole["L1.resid_post"])
    assert run["seen"].shape[1] == 16
    places = (encoding["input_ids"][0] == model.hf.config.image_token_id).nonzero()[:, 0]
    close(run["seen"], whole["L0.z"][:, places])


def test_saving_at_positions_and_under_a_name():
    model = opened("gpt2")
    run = model.run("prompt {ids}\nmark here = 1:3\nsteer L0.resid by {v}\ngenerate 6\n"
                    "save L*.resid_post @new as stream\nsave L1.z @here as early\nsave L0H[1,2].pattern @last as look\n"
                    "save L0.mlp_out @prompt as given", ids=[PROMPT], v=V)
    ids = [*PROMPT, *run.texts["hooked"][0].ids][:-1]
    whole = model.capture([ids], ["L*.resid_post", "L1.z", "L0.pattern", "L0.mlp_out"],
                          edits={"L0.resid_post": lambda x: x + V})
    n = len(PROMPT)
    close(run["stream"], torch.stack([whole[f"L{i}.resid_post"][:, n:] for i in (0, 1)]))
    close(run["early"], whole["L1.z"][:, 1:3])
    close(run["look"], whole["L0.pattern"][:, 1:3, n - 1:n])
    close(run["given"], whole["L0.mlp_out"][:, :n])
    assert run.axes["hooked.stream"] == ("layer", "batch", "pos", "d_model")


# Draws -------------------------------------------------------------------------------------------------------------


def drawn(name, ids, seed, count=COUNT, **settings):
    """New tokens of each row of `ids`, drawn by transformers."""
    hf = endless(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        out = hf.generate(torch.tensor(ids), attention_mask=torch.ones(len(ids), len(ids[0]), dtype=torch.long),
                          max_new_tokens=count, do_sample=True, pad_token_id=0, **{"top_k": 0, **settings})
    return [tuple(row) for row in out[:, len(ids[0]):].tolist()]


def written(model, line, rows=None, **names):
    """New tokens under one line `generate …`."""
    run = model.run(f"prompt {{ids}}\n{line}", ids=rows or [PROMPT], **names)
    return [text.ids for text in run.texts["main"]]


@pytest.mark.parametrize("options", [dict(temperature=0.7), dict(top_k=5), dict(top_p=0.6),
                                     dict(temperature=1.5, top_k=20, top_p=0.9)], ids=str)
def test_draws_are_those_of_transformers_from_the_same_seed(options):
    line = " ".join(f"{name}={value}" for name, value in options.items())
    for name in ("gpt2", "llama"):
        assert written(opened(name), f"generate {COUNT} {line} seed=3") == drawn(name, [PROMPT], 3, **options)


def test_samples_are_rows_of_one_batch_drawn_independently():
    found = written(opened("llama"), f"generate {COUNT} temperature=1.3 samples=3 seed=8")
    assert found == drawn("llama", [PROMPT] * 3, 8, temperature=1.3)
    assert len(set(found)) == 3


def test_options_may_come_from_python():
    found = written(opened("gpt2"), f"generate {COUNT} temperature={{t}} samples={{n}} seed={{s}} stop={{end}}",
                    t=torch.tensor(0.7), n=np.int64(2), s=np.int64(4), end=("never", "1234"))
    assert found == drawn("gpt2", [PROMPT] * 2, 4, temperature=0.7)


def test_samples_alone_ask_for_draws_and_temperature_zero_for_none():
    model = opened("gpt2")
    assert len(set(written(model, "generate 6 samples=4"))) == 4
    assert set(written(model, "generate 6 samples=4 temperature=0")) == {greedy("gpt2", PROMPT, 6)}


def test_samples_are_numbered_and_each_equals_a_pass_of_its_own():
    model = opened("mistral")
    run = model.run("prompt {ids}\ngenerate 8 samples=2 temperature=1\nsave L1.resid_post", ids=RAGGED)
    texts = run.texts["main"]
    assert [(t.sample, t.example) for t in texts] == [(s, e) for s in range(2) for e in range(3)]
    assert run.axes["main.L1.resid_post"] == ("sample", "batch", "pos", "d_model")
    for text in texts:
        ids = [*RAGGED[text.example], *text.ids][:-1]
        kept = tail(run["L1.resid_post"][text.sample, text.example], 0, len(ids))
        close(kept, model.capture([ids], "L1.resid_post")["L1.resid_post"][0])


def test_a_seed_decides_the_draws_on_its_line_or_for_the_whole_spec():
    model = opened("gpt2")
    first = written(model, "generate 9 temperature=1 seed=1")
    assert written(model, "generate 9 temperature=1 seed=1") == first
    assert written(model, "seed 1\ngenerate 9 temperature=1") == first
    assert written(model, "generate 9 temperature=1 seed=2") != first


def test_the_process_keeps_its_own_random_numbers():
    torch.manual_seed(77)
    random.seed(77)
    np.random.seed(77)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    written(opened("gpt2"), "generate 4 temperature=1 samples=2")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_looking_does_not_change_what_is_drawn(attention):
    hf = endless("llama", attn_implementation=attention)
    model = hl.load(hf)
    alone = written(model, "generate 9 temperature=1.2 seed=4 samples=2")
    assert written(model, f"generate 9 temperature=1.2 seed=4 samples=2\n{SAVED}\nsave L*.scores\nsave L*.rot_k") == alone
    assert hf.config._attn_implementation == attention


def test_other_runs_do_not_change_what_is_drawn():
    model = opened("gpt2")
    body = "run b on main:\n  steer L0.resid by {v}\n  generate 9 temperature=1\n"
    alone = model.run(f"prompt main = {{ids}}\n{body}", ids=[PROMPT], v=V)
    among = model.run(f"prompt main = {{ids}}\nrun a on main:\n  zero L1H0\n  generate 5 temperature=1\n{body}"
                      f"run c on main:\n  noise L0.resid by 1\n  save L0.z", ids=[PROMPT], v=V)
    assert alone.texts["b"] == among.texts["b"]


def test_cells_of_a_sweep_are_written_from_the_same_random_numbers():
    model = opened("llama")
    run = model.run("prompt {ids}\nsweep c in [0, 0.0, 1, 2]\nsteer L0.resid by c * {v}\ngenerate 9 temperature=1 seed=6\n"
                    "save L1.resid_post @new as stream\nmetric entropy\nshow text", ids=[PROMPT], v=V)
    texts = run.texts["hooked"]
    assert [t.cell for t in texts] == [{"c": 0}, {"c": 0.0}, {"c": 1}, {"c": 2}]
    assert texts[0].ids == texts[1].ids == drawn("llama", [PROMPT], 6)[0]
    assert texts[3].ids != texts[0].ids
    assert run["stream"].shape == (4, 1, 8, 32)
    assert run.axes["hooked.stream"] == ("c", "batch", "pos", "d_model")
    for i, c in enumerate([0, 0, 1, 2]):
        whole = model.capture([[*PROMPT, *texts[i].ids][:-1]], ["L1.resid_post", "logits"],
                              edits={"L0.resid_post": lambda x, c=c: x + c * V})
        close(run["stream"][i], whole["L1.resid_post"][:, len(PROMPT):])
        p = whole["logits"][0, len(PROMPT) - 1].softmax(-1)
        assert run.scores["hooked.entropy"].values[i] == pytest.approx(float(-(p * p.log()).sum()), rel=1e-4)
    assert run.scores["hooked.entropy"].axes == ("c",)
    assert [v.view for v in run.views] == ["text"]
    assert all(t.new in repr(run) for t in texts)


def test_each_value_and_each_layer_write_a_text_of_their_own():
    model = opened("gpt2")
    run = model.run("prompt {ids}\nzero each L*H[0,1]\ngenerate 5\nsave logits @new", ids=[PROMPT])
    texts = run.texts["hooked"]
    assert [t.cell for t in texts] == [{"layer": i, "head": h} for i in range(2) for h in range(2)]
    assert run["logits"].shape == (2, 2, 1, 4, 100)
    assert run.axes["hooked.logits"] == ("layer", "head", "batch", "pos", "d_vocab")
    for text in texts:
        whole = model.capture([[*PROMPT, *text.ids][:-1]], "logits",
                              edits={f"L{text.cell['layer']}.z": heads(text.cell["head"])})["logits"]
        assert whole[0, len(PROMPT) - 1:].argmax(-1).tolist() == list(text.ids)


# Ends, texts and streams -------------------------------------------------------------------------------------------


@functools.cache
def lab():
    return hl.load("lab")


EIFFEL, STORE = "The Eiffel Tower is in the city of", "When Mary and John went to the store, John gave a drink to"


def plain_text(prompt, count=12):
    """Ids of a continuation by transformers, with the token that ends it."""
    model = lab()
    ids = torch.tensor([model.tokenizer(prompt)["input_ids"]])
    out = model.hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
    return out[0, ids.shape[1]:].tolist()


def test_a_row_ends_by_itself_while_others_go_on():
    run = lab().run('prompt ["The Eiffel Tower is in the city of", "John"]\ngenerate 12\nsave L0.resid_post')
    first, second = run.texts["main"]
    ids = plain_text(EIFFEL)
    assert list(first.ids) == ids and ids[-1] == lab().tokenizer.eos_token_id
    assert first.stopped == "eos" and first.new == " Paris."
    assert list(second.ids) == plain_text("John") and len(second.ids) > len(first.ids)
    for row, text in enumerate((first, second)):
        ids = [*lab().tokenizer(text.prompt)["input_ids"], *text.ids][:-1]
        close(tail(run["L0.resid_post"][row], 0, len(ids)), lab().capture([ids], "L0.resid_post")["L0.resid_post"][0])
    tokens = run.tokens_of["main"]
    assert tokens.lengths == tuple(len(lab().tokenizer(t.prompt)["input_ids"]) + len(t.ids) for t in (first, second))


@pytest.mark.parametrize("stop, new", [(" Paris", " Paris"), (" Pa", " Paris"), ("ris.", " Paris."), ("s", " Paris")])
def test_a_stop_text_ends_a_row_wherever_it_falls_in_its_tokens(stop, new):
    (text,) = lab().run(f'prompt "{EIFFEL}"\ngenerate 12 stop="{stop}"').texts["main"]
    assert (text.new, text.stopped) == (new, "stop")
    assert list(text.ids) == plain_text(EIFFEL)[:len(text.ids)]


def test_any_of_several_stop_texts_ends_a_row_and_a_row_without_one_goes_on():
    run = lab().run(f'prompt ["{EIFFEL}", "{STORE}"]\ngenerate 12 stop=[" London", " Paris"]')
    assert [(t.new, t.stopped) for t in run.texts["main"]] == [(" Paris", "stop"), (" Mary.", "eos")]


def test_a_special_token_can_be_a_stop_text():
    (text,) = lab().run(f'prompt "{EIFFEL}"\ngenerate 12 stop="<|endoftext|>"').texts["main"]
    assert text.new == " Paris." and list(text.ids) == plain_text(EIFFEL)


def test_a_text_says_what_was_given_and_what_was_written():
    run = lab().run(f'prompt "{EIFFEL}"\ngenerate 2')
    (text,) = run.texts["main"]
    assert text == hl.records.Text(EIFFEL + " Paris.", EIFFEL, " Paris.", tuple(plain_text(EIFFEL, 2)), {}, 0, 0, "length")
    assert run.text == EIFFEL + " Paris."
    assert run.tokens.ids[0] == (*lab().tokenizer(EIFFEL)["input_ids"], *text.ids)
    assert run.tokens.n_prompt == (len(lab().tokenizer(EIFFEL)["input_ids"]),)


class Pieces(io.StringIO):
    """Standard output that remembers what came at a time."""

    def __init__(self):
        super().__init__()
        self.pieces = []

    def write(self, text):
        self.pieces.append(text)
        return super().write(text)


def streamed(model, spec, **given):
    """A run and what it printed, piece by piece."""
    out = Pieces()
    with contextlib.redirect_stdout(out):
        run = model.run(spec, **given)
    return run, out


def test_a_stream_shows_each_piece_as_it_is_written():
    run, output = streamed(lab(), f'prompt "{STORE}"\ngenerate 12 temperature=1 seed=5 stream=true')
    (text,) = run.texts["main"]
    assert len(text.ids) > 2
    assert output.pieces == [*(lab().tokenizer.decode([i]) for i in text.ids[:-1]), "\n"]
    assert output.getvalue() == text.new + "\n"


def test_nothing_is_shown_without_stream():
    _, output = streamed(lab(), f'prompt "{EIFFEL}"\ngenerate 3')
    assert output.getvalue() == ""


def test_a_stream_ends_where_its_row_does_though_others_go_on():
    run, output = streamed(lab(), f'prompt ["{EIFFEL}", "{STORE}"]\ngenerate 12 stop=" Paris" stream=true')
    assert output.getvalue() == " Paris\n"
    assert run.texts["main"][1].new == " Mary."


@functools.cache
def byte_model():
    """A model whose tokens are single bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {piece: i for i, piece in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    config = transformers.GPT2Config(**{**tiny_models.GPT, "vocab_size": 256})
    config.eos_token_id = config.bos_token_id = None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = transformers.GPT2LMHeadModel(config).eval()
    return hl.load(hf, tokenizer=transformers.PreTrainedTokenizerFast(tokenizer_object=inner))


def test_a_stream_waits_for_whole_characters():
    """The logits of each step are steered to the bytes of a text."""
    model = byte_model()
    ids = model.tokenizer("é😀x", add_special_tokens=False)["input_ids"]
    values = {f"b{k}": 1000.0 * torch.nn.functional.one_hot(torch.tensor(i), 256) for k, i in enumerate(ids)}
    lines = "\n".join(f"steer logits by {{b{k}}} steps=[{k}]" for k in range(len(ids)))
    run, output = streamed(model, f'prompt "ab"\n{lines}\ngenerate {len(ids)} stream=true', values=values)
    (text,) = run.texts["hooked"]
    assert (text.new, text.ids) == ("é😀x", tuple(ids))
    assert [piece for piece in output.pieces if piece] == ["é", "😀", "x", "\n"]


def test_a_stop_text_of_several_bytes():
    model = byte_model()
    ids = model.tokenizer("aé!", add_special_tokens=False)["input_ids"]
    values = {f"b{k}": 1000.0 * torch.nn.functional.one_hot(torch.tensor(i), 256) for k, i in enumerate(ids)}
    lines = "\n".join(f"steer logits by {{b{k}}} steps=[{k}]" for k in range(len(ids)))
    (text,) = model.run(f'prompt "ab"\n{lines}\ngenerate {len(ids)} stop="é"', values=values).texts["hooked"]
    assert (text.new, text.stopped) == ("aé", "stop")


@functools.cache
def chatting():
    """A model with a chat template, whose vocabulary is its tokenizer's."""
    tokenizer = tiny_models.tokenizer()
    config = transformers.LlamaConfig(**{**tiny_models.SIZES, "vocab_size": len(tokenizer), "eos_token_id": 1,
                                         "bos_token_id": 0, "pad_token_id": 2})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        hf = transformers.LlamaForCausalLM(config).eval()
        with torch.no_grad():
            for parameter in hf.parameters():
                parameter.normal_(0.0, 0.15)
    return hl.load(hf, tokenizer=tokenizer)


@pytest.mark.parametrize("line, values", [
    ('prompt "the store" chat=true', {}),
    ("prompt {m} chat=true", {"m": [{"role": "user", "content": "the store"}]}),
    ("prompt {m}", {"m": [{"role": "user", "content": "the store"}]}),
], ids=["text", "messages", "messages without chat=true"])
def test_a_chat_prompt_is_put_into_the_template(line, values):
    model = chatting()
    ids = model.tokenizer.apply_chat_template([{"role": "user", "content": "the store"}], add_generation_prompt=True,
                                              return_dict=False)
    out = model.hf.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                            max_new_tokens=8, do_sample=False)
    (text,) = model.run(f"{line}\ngenerate 8", values=values).texts["main"]
    assert list(text.ids) == out[0, len(ids):].tolist()
    assert text.prompt == "user : the store assistant :"
    assert text.new == model.tokenizer.decode(out[0])[len(model.tokenizer.decode(ids)):]


@pytest.mark.parametrize("line, values", [
    ('prompt ["the store", "Mary"] chat=true', {}), ("prompt {m} chat=true", {"m": [5, 6]})])
def test_several_texts_are_no_chat_and_do_not_pass_for_one(line, values):
    with pytest.raises(SpecError, match="one conversation"):
        chatting().run(f"{line}\ngenerate 2", values=values)


def test_a_model_without_a_tokenizer_writes_ids():
    (text,) = opened("gpt2").run("prompt {ids}\ngenerate 3", ids=[PROMPT]).texts["main"]
    assert text.ids == greedy("gpt2", PROMPT, 3)
    assert text.new == "".join(f" #{i}" for i in text.ids)


# What cannot be done -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, spec, says", [
    ("gpt2", "prompt {ids}\ngenerate 59", "64 positions"),
    ("llama", "prompt {ids}\ngenerate 59", "64 positions"),
    ("bert", "prompt {ids}\ngenerate 3", "cannot write on"),
    ("gpt2_base", "prompt {ids}\ngenerate 3", "cannot write on"),
    ("gpt2", "prompt {ids}\nsteer L0.resid @new by 1", "@new"),
    ("gpt2", "prompt {ids}\nsteer L0.resid by 1 steps=new", "steps="),
    ("gpt2", "prompt {ids}\nsteer L0.resid by 1 steps=later\ngenerate 3", "steps="),
])
def test_what_cannot_be_written_is_refused_before_anything_runs(name, spec, says):
    model = hl.load(tiny_models.build(name))
    with pytest.raises(SpecError) as caught:
        model.plan(spec, ids=[PROMPT])
    assert says in str(caught.value)


def test_as_many_tokens_as_there_are_positions():
    (text,) = opened("gpt2").run("prompt {ids}\ngenerate 58", ids=[PROMPT]).texts["main"]
    assert text.ids == greedy("gpt2", PROMPT, 58)


def test_a_continuation_of_one_token_has_no_new_position():
    run = opened("gpt2").run("prompt {ids}\ngenerate 1\nsave L0.resid_post @new as new\nsave L0.resid_post as both",
                             ids=[PROMPT])
    assert run["new"].shape == (1, 0, 32)
    close(run["both"], opened("gpt2").capture([PROMPT], "L0.resid_post")["L0.resid_post"])


def test_what_was_not_written_cannot_be_patched_from():
    with pytest.raises(SpecError, match="written on") as caught:
        opened("gpt2").run("prompt {ids}\nsteer embed by 1\nfreeze L0.pattern\ngenerate 3", ids=[PROMPT])
    assert caught.value.problems[0].line == 3


# What is left behind -----------------------------------------------------------------------------------------------


@pytest.fixture
def log():
    """Every line that transformers logs at the level of warnings, none held back as said before."""
    lines = []

    class Keep(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("transformers"), Keep()
    level = logger.level
    transformers.logging.set_verbosity_warning()
    transformers.utils.logging.warning_once.cache_clear()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)
    transformers.utils.logging.warning_once.cache_clear()


OWN = dict(max_new_tokens=2, repetition_penalty=9.0, temperature=0.1, top_p=0.2, suppress_tokens=[93, 56],
           no_repeat_ngram_size=1, do_sample=True, bad_words_ids=[[87]], min_new_tokens=1)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "bloom", "lab"])
@pytest.mark.parametrize("line", ["generate 5", "generate 5 temperature=0.7 samples=2 seed=1"])
@pytest.mark.filterwarnings("error")
def test_transformers_has_nothing_to_say(log, recwarn, name, line):
    model = lab() if name == "lab" else opened(name)
    values = {"ids": [EIFFEL, STORE] if name == "lab" else RAGGED}
    model.run(f"prompt {{ids}}\nsteer L0.resid by 0\n{line}\nsave logits", values=values)
    model.run(f"prompt {{ids}}\n{line}", values={"ids": values["ids"][:1]})
    assert log == []
    assert [str(w.message) for w in recwarn] == []


@pytest.mark.filterwarnings("error")
def test_settings_in_a_models_own_file_are_neither_followed_nor_changed(log):
    hf = endless("gpt2")
    for name, value in OWN.items():
        setattr(hf.generation_config, name, value)
    own, said = hf.generation_config, copy.deepcopy(hf.generation_config.to_dict())
    config = copy.deepcopy(hf.config.to_dict())
    model = hl.load(hf)
    assert written(model, "generate 9") == [greedy("gpt2", PROMPT)]
    assert written(model, "generate 9 temperature=1 seed=2") == drawn("gpt2", [PROMPT], 2)
    assert hf.generation_config is own and own.to_dict() == said
    assert hf.config.to_dict() == config
    assert log == []


def state(hf):
    """What a run must leave alone."""
    return (hf.config._attn_implementation, [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in hf.modules()],
            hf.generation_config, copy.deepcopy(hf.generation_config.to_dict()), torch.is_grad_enabled(),
            [p.requires_grad for p in hf.parameters()], hf.training, torch.get_rng_state().tolist(),
            [f for f in logging.getLogger("transformers.modeling_utils").filters])


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo", "mistral"])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_a_model_is_as_before_also_after_an_interrupt(name, error):
    hf = endless(name)
    model = hl.load(hf)
    before = state(hf)
    seen = []

    def interrupt(step):
        seen.append(step)
        if step == 2 and error is not None:
            raise error("stop")
        return False

    spec = f"prompt {{ids}}\nzero L0.pattern steps={{f}}\ngenerate 6 temperature=1\n{SAVED}"
    if error is None:
        model.run(spec, ids=[PROMPT], f=interrupt)
    else:
        with pytest.raises(error):
            model.run(spec, ids=[PROMPT], f=interrupt)
    assert 2 in seen and state(hf) == before
    assert written(model, "generate 9") == [greedy(name, PROMPT)]


def test_noise_is_drawn_anew_for_each_new_token():
    model = opened("gpt2")
    run = model.run("prompt {ids}\nnoise L0.resid @new by 1 seed=3\ngenerate 6\nsave L0.resid_post @new as noisy",
                    ids=[PROMPT])
    ids = [*PROMPT, *run.texts["hooked"][0].ids][:-1]
    noise = (run["noisy"] - model.capture([ids], "L0.resid_post")["L0.resid_post"][:, len(PROMPT):])[0]
    assert float(noise.std()) == pytest.approx(1, abs=0.2)
    assert torch.corrcoef(noise).fill_diagonal_(0).abs().max() < 0.7


def test_a_mean_over_all_tokens_is_put_in_at_every_step():
    model, corpus = opened("llama"), [[30, 21, 23, 4], [55, 60, 31, 8]]
    mean = model.capture(corpus, "L0.mlp_out")["L0.mlp_out"].mean((0, 1))
    run = model.run(f"prompt main = {{ids}}\nprompt abc = {{corpus}}\nrun hooked on main:\n"
                    f"  ablate L0.mlp with mean over abc\n  generate {COUNT}\n  " + SAVED.replace("\n", "\n  "),
                    ids=[PROMPT], corpus=corpus)
    agrees(model, run, "hooked", [PROMPT], lambda n, total, _: {"L0.mlp_out": lambda x: mean.expand_as(x).clone()})


def test_edits_of_a_run_act_on_what_a_run_stacked_on_it_writes():
    run = opened("gpt2").run("prompt main = {ids}\nrun a on main:\n  steer L0.resid by {v}\nrun b on a:\n  zero L1H0\n"
                             "  generate 9\nrun c on main:\n  steer L0.resid by {v}\n  zero L1H0\n  generate 9",
                             ids=[PROMPT], v=V)
    assert run.texts["b"][0].ids == run.texts["c"][0].ids != greedy("gpt2", PROMPT)


@pytest.mark.parametrize("line", ["steer L0.resid @3 by 1 steps=new", "cut L0 @new -> @new", "cut L0 @new -> @last"])
def test_positions_of_the_prompt_are_not_confused_with_new_ones(line):
    with pytest.raises(SpecError, match="of the prompt"):
        opened("gpt2").plan(f"prompt {{ids}}\n{line}\ngenerate 4", ids=[PROMPT])


def test_steps_narrow_what_the_position_means():
    spec = "prompt {{ids}}\nsteer L0.resid {} by {{v}} steps={}\ngenerate 9"
    texts = {args: opened("gpt2").run(spec.format(*args), ids=[PROMPT], v=V).texts["hooked"][0].ids
             for args in (("@prompt", "[0,2]"), ("@prompt", "prompt"), ("@new", "[0,2]"), ("", "[2]"))}
    assert texts["@prompt", "[0,2]"] == texts["@prompt", "prompt"]
    assert texts["@new", "[0,2]"] == texts["", "[2]"]


@pytest.mark.parametrize("line", ["generate 3", "generate 3 temperature=1.0 seed=1"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_text_of_logits_that_are_no_numbers_is_written_and_warned_of(line, bad):
    model = opened("gpt2")
    vector = torch.full((model.hf.config.n_embd,), bad)
    cell = f"prompt p = {{p}}\nrun wild on p:\n    steer L1.resid_post by {{v}}\n    {line}"
    with pytest.warns(HooklabWarning, match="run wild: from step 0 on, .* not numbers"):
        run = model.run(cell, values={"p": [PROMPT], "v": vector})
    assert [len(text.ids) for text in run.texts["wild"]] == [3]


def test_a_row_of_no_numbers_leaves_the_others_as_they_are():
    sound, scores = Sound(), torch.randn(3, 5)
    assert sound(None, scores) is scores
    scores[1, 2] = float("nan")
    scores[2] = -torch.inf
    assert torch.equal(sound(None, scores), torch.stack([scores[0], torch.zeros(5), torch.zeros(5)]))
    assert sound.wrong == 1
