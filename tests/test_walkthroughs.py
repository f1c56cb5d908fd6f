"""Walk-throughs: short programs that users of other tools know, written with hooklab, against answers from elsewhere.

The first ones keep activations of what a model writes and asks it questions; then come those of easyroutine, of
transformer-debugger, of Arrakis, and three recipes: a hook, a data set and an architecture of one's own.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import planted
import pytest
import torch
from tiny_models import build, chameleon_processor, image, tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

import hooklab as hl
from hooklab.bench import Bench, profile, test_hypothesis
from hooklab.bench import plots as ready_plots
from hooklab.cli import main
from hooklab.data.evaluation.record import Evaluation
from hooklab.errors import HooklabError, LayerError
from hooklab.families import FAMILIES, LLAMA

IDS = [11, 7, 23, 42, 5, 17, 31, 60, 8]
WORDS = "Mary w1 John the store w2"
FACTS = [("The capital of France is", "Paris"), ("The capital of Italy is", "Rome"), ("Paris is the capital of", "France")]


# What transformers says by itself ---------------------------------------------------------------------------------------


@cache
def untouched(name: str) -> Any:
    """A module that hooklab never sees, with the weights of the one that it opens."""
    hf = build(name, attn_implementation="eager")
    hf.generation_config.eos_token_id = None
    return hf


@cache
def opened(name: str) -> Any:
    hf = build(name)
    hf.generation_config.eos_token_id = None
    return hl.load(hf, tokenizer=tokenizer(), verify=False)


@cache
def shipped() -> tuple[Any, Any]:
    """The shipped model as transformers has it, and its tokenizer."""
    with hl.load("lab", verify=False) as model:
        return model.hf, model.tokenizer


def streams(hf: Any, ids: Any) -> list[torch.Tensor]:
    """Embedding and what each block gives, [batch pos d_model] each, by torch's own hooks."""
    seen: list[torch.Tensor] = []
    blocks = next(module for module in hf.modules() if isinstance(module, torch.nn.ModuleList))
    handles = [module.register_forward_hook(lambda m, args, out: seen.append(out[0] if isinstance(out, tuple) else out))
               for module in blocks]
    with torch.no_grad():
        first = hf(torch.as_tensor(ids).reshape(-1, len(ids)), output_hidden_states=True).hidden_states[0]
    for handle in handles:
        handle.remove()
    return [first, *seen]


def written(hf: Any, ids: list[int], count: int) -> list[int]:
    """The likeliest tokens, one after the other, a whole pass for each."""
    ids = list(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(hf(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[-count:]


def encoded(text: str) -> list[int]:
    return list(tokenizer()(text)["input_ids"])


# Activations of what is written, and of answers -------------------------------------------------------------------------


def test_a_model_writes_and_every_activation_on_the_way_is_kept_in_a_folder(tmp_path):
    model = opened("llama")
    run = hl.generate(model, WORDS, max_new_tokens=5, temperature=0)
    run.save(tmp_path / "my_activations")
    kept = hl.Run.load(tmp_path / "my_activations").as_dict()

    ids = encoded(WORDS)
    new = written(untouched("llama"), ids, 5)
    assert list(kept) == ["prompt", "response", "model", "timestamp", "input_ids", "activations"]
    assert (kept["prompt"], kept["response"].split()) == (WORDS, tokenizer().decode(new).split())
    assert kept["input_ids"].tolist() == [[*ids, *new[:-1]]]  # nothing reads the last one
    each = streams(untouched("llama"), [*ids, *new[:-1]])
    for name, wanted in zip(["embeddings", "layer_0", "layer_1"], each, strict=True):
        assert torch.allclose(kept["activations"][name], wanted, atol=1e-4), name


def test_chosen_layers_are_kept_at_chosen_steps_and_a_layer_that_is_not_there_is_an_error():
    model = opened("gpt2")
    run = hl.generate(model, [IDS], ["L0.resid_post", "L-1.resid_post"], steps="new", max_new_tokens=4, temperature=0)

    new = written(untouched("gpt2"), IDS, 4)
    wanted = streams(untouched("gpt2"), [*IDS, *new[:-1]])
    for layer in (0, 1):
        assert torch.allclose(run[f"L{layer}.resid_post"], wanted[layer + 1][:, len(IDS):], atol=1e-4)
    with pytest.raises(HooklabError, match="2 layers"):
        hl.generate(model, [IDS], "L7.resid_post", max_new_tokens=1)


def test_questions_are_answered_and_graded_and_their_activations_kept(tmp_path):
    keys = [*FACTS[:2], (FACTS[2][0], "Oslo")]  # the last key is wrong
    questions = [hl.data.Question(str(i), text, answer=right) for i, (text, right) in enumerate(keys)]
    asked = hl.evaluate(hl.load("lab"), questions, max_new_tokens=3, stop=".", extract=lambda reply: reply.strip(" ."),
                        grade="exact", capture="L*.resid_post", capture_at="last", out=tmp_path / "results")

    hf, words = shipped()
    for row, (text, _) in zip(asked, FACTS, strict=True):
        ids = words(text)["input_ids"]
        said = words.decode(written(hf, ids, 3)).split(".")[0].strip()
        assert (row.answer, row.score) == (said, float(said == row.right))
        kept = asked.activations(row)
        for layer, wanted in enumerate(streams(hf, ids)[1:]):
            assert torch.allclose(kept[f"L{layer}.resid_post"].reshape(-1), wanted[0, -1], atol=1e-3)
    assert [row.score for row in asked] == [1.0, 1.0, 0.0]


def test_a_benchmark_is_run_from_the_shell_and_its_activations_are_compared_in_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"question": text, "answer": right}) for text, right in FACTS]
    (tmp_path / "capitals.jsonl").write_text("\n".join(lines))
    command = ["bench", "jsonl", "capitals.jsonl", "--max-new-tokens", "3", "--pattern", r"\w+", "--json",
               "--capture", "L*.resid_post", "--capture-at", "prompt", "--out", "results"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)

    store = Evaluation.load(tmp_path / "results").store()
    numbers = store.summary()
    alike = hl.data.compare_stores(store, store, align="mean", examples=(store.ids[0], store.ids[1]))

    hf, words = shipped()
    each = [streams(hf, words(text)["input_ids"])[1:] for text, _ in FACTS]
    for layer in range(5):
        site, values = f"L{layer}.resid_post", torch.cat([one[layer][0] for one in each]).double()
        assert numbers[site].count == values.numel()
        assert np.allclose([numbers[site].mean, numbers[site].std, numbers[site].norm],
                           [values.mean(), values.std(unbiased=False), values.norm(dim=-1).mean()], atol=1e-4)
        wanted = torch.cosine_similarity(*(one[layer][0].mean(0) for one in each[:2]), dim=0)
        assert alike.values[layer, 0] == pytest.approx(float(wanted), abs=1e-5)


# easyroutine -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_streams_and_patterns_are_extracted_at_named_positions(family):
    model = opened(family)
    acts = model.capture(WORDS, ["L*.resid_pre", "L*.resid_post"], at="[first, last]")
    patterns = model.capture(WORDS, "L*.pattern")

    ids = encoded(WORDS)
    wanted = streams(untouched(family), ids)
    with torch.no_grad():
        attention = untouched(family)(torch.tensor([ids]), output_attentions=True).attentions
    for layer in (0, 1):
        assert torch.allclose(acts[f"L{layer}.resid_post"], wanted[layer + 1][0, [0, -1]], atol=1e-4)
        assert torch.allclose(patterns[f"L{layer}.pattern"], attention[layer], atol=1e-5)
    assert torch.equal(acts["L1.resid_pre"], acts["L0.resid_post"])


def test_a_data_set_goes_through_the_model_with_its_labels(tmp_path):
    rows = ({"text": text, "label": label} for text, label in [(WORDS, 1), ("w3 w4", 0), ("the store John", 1)])
    found = hl.extract(opened("llama"), rows, "L*.resid_post", tmp_path / "acts", at="last", metadata=["label"])
    ones = hl.open_store(tmp_path / "acts").where(label=1)

    assert found.report.examples == 3 and ones.metadata["label"] == [1, 1]
    for name, text in zip(ones.ids, (WORDS, "the store John"), strict=True):
        wanted = streams(untouched("llama"), encoded(text))[2][0, -1]
        assert torch.allclose(ones["L1.resid_post"][name].reshape(-1), wanted, atol=1e-4)


def test_patching_flips_the_answer_where_the_planted_gate_is_and_nowhere_else():
    with hl.load(planted.gate(source=1, at=3, last=5), verify=False) as model:
        base, clean = [[0, 2, 5, 6, 7, 1]], [[0, 4, 5, 6, 7, 1]]  # they differ in the token at 1
        found = hl.analysis.patching_metrics(model, base, clean, "L*.resid_pre", "each", answer=4, wrong=2)

    flipped = np.zeros((2, 6))
    flipped[0, 1] = flipped[1, 3] = 1  # where the token is, and where the first head has carried it
    assert np.array_equal(found.sel(metric="flip").values, flipped)
    assert np.allclose(found.sel(metric="kl_patched|base").values[flipped == 1], 0, atol=1e-5)
    assert np.allclose(found.sel(metric="kl_patched|clean").values[flipped == 0], 0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_attention_is_cut_while_the_model_writes_with_its_cache(family):
    run = hl.generate(opened(family), [IDS], None, max_new_tokens=4, temperature=0, edits="cut L*H* @2 -> @new")

    ids = list(IDS)
    for _ in range(4):  # without a cache, the mask written by hand
        mask = torch.full((len(ids), len(ids)), torch.finfo(torch.float32).min).triu(1)
        mask[len(IDS):, 2] = torch.finfo(torch.float32).min
        with torch.no_grad():
            ids.append(int(untouched(family)(torch.tensor([ids]), attention_mask=mask[None, None]).logits[0, -1].argmax()))
    assert list(run.texts["hooked"][0].ids) == ids[len(IDS):]


def test_a_hook_on_a_module_stays_until_it_is_removed():
    model, ids = opened("llama"), torch.tensor([IDS])
    before = model.capture([IDS], "logits")["logits"]
    seen = []
    handle = model.hook("L0.attn_out", lambda x, context: seen.append((context.address, x.shape)) or 3 * x)
    hooked = model.capture([IDS], "logits")["logits"]
    listed = list(model.hooks)
    handle.remove()

    hf = untouched("llama")
    own = hf.model.layers[0].self_attn.register_forward_hook(lambda module, args, out: (3 * out[0], *out[1:]))
    with torch.no_grad():
        wanted = hf(ids).logits
    own.remove()
    assert torch.allclose(hooked, wanted, atol=1e-4) and not torch.allclose(hooked, before, atol=1e-2)
    assert torch.equal(model.capture([IDS], "logits")["logits"], before)
    assert seen == [("L0.attn_out", (1, len(IDS), 32))] and listed == [handle] and model.hooks == []


def test_tokens_are_shown_as_text():
    tokens = hl.load("lab").tokens(["John gave", "Mary"])
    _, words = shipped()
    assert [list(row) for row in tokens.pieces] == [[words.decode([i]) for i in words(text)["input_ids"]]
                                                    for text in ("John gave", "Mary")]


# transformer-debugger ----------------------------------------------------------------------------------------------------


def test_a_neuron_is_silenced_in_a_pass_and_while_sampling():
    model = opened("gpt2")
    logits = model.run("prompt {ids}\nzero L1N30\nsave logits", ids=[IDS])["hooked.logits"]
    run = hl.generate(model, [IDS], None, max_new_tokens=5, temperature=0, edits="zero L1N30")

    hf = untouched("gpt2")

    def silence(module: Any, args: Any) -> Any:
        args[0][..., 30] = 0

    handle = hf.transformer.h[1].mlp.c_proj.register_forward_pre_hook(silence)
    with torch.no_grad():
        wanted = hf(torch.tensor([IDS])).logits
    text = written(hf, IDS, 5)
    handle.remove()
    with torch.no_grad():
        plain = hf(torch.tensor([IDS])).logits
    assert torch.allclose(logits, wanted, atol=1e-4) and not torch.allclose(wanted, plain, atol=1e-4)
    assert list(run.texts["hooked"][0].ids) == text


def test_what_an_mlp_writes_is_encoded_by_a_dictionary_and_one_feature_is_taken_away():
    draw = torch.Generator().manual_seed(0)
    encoder, decoder = (torch.randn(*shape, generator=draw) for shape in ((32, 64), (64, 32)))
    sae = hl.sae.SAE(encoder, torch.randn(64, generator=draw), decoder, torch.randn(32, generator=draw))
    model = opened("gpt2")
    found = model.capture([IDS], "L1.mlp_out")["L1.mlp_out"]
    features = sae.encode(found)
    strongest = hl.analysis.features(model, sae, [IDS], k=3, at="L1.mlp_out").top()
    first = int(features[0, -1].argmax())
    without = model.run(f"prompt {{ids}}\nsae enc = {{sae}} at L1.mlp_out\nzero enc.F{first}\nsave L1.mlp_out", ids=[IDS],
                        sae=sae)["hooked.L1.mlp_out"]

    hf, seen = untouched("gpt2"), []
    handle = hf.transformer.h[1].mlp.register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad():
        hf(torch.tensor([IDS]))
    handle.remove()
    x, b = seen[0].numpy(), sae.b_dec.numpy()
    wanted = np.maximum((x - b) @ encoder.numpy() + sae.b_enc.numpy(), 0)  # [batch pos feature]
    assert np.allclose(features, wanted, atol=1e-3)
    assert np.allclose(strongest.values, -np.sort(-wanted[0], axis=-1)[:, :3], atol=1e-3)
    assert np.allclose(without, x - wanted[..., first, None] * decoder.numpy()[first], atol=1e-3)


# Arrakis -----------------------------------------------------------------------------------------------------------------


def test_an_experiment_takes_tools_is_kept_and_its_versions_are_found_again(tmp_path):
    model = hl.load(planted.gate(source=1, at=3, last=5), verify=False)
    bench = Bench(tmp_path / "experiments", model=model)

    @bench.experiment
    @bench.uses("write_heads", "top_attended")
    def who_writes(model, ids, write_heads, top_attended):
        return {"strength": write_heads(model, ids), "seen": top_attended(model, ids, "L1H2", k=1)}

    found = who_writes(model, [[0, 4, 5, 6, 7, 1]])
    who_writes(model, [[0, 2, 5, 6, 7, 1]])

    (version,) = bench.versions("who_writes")
    assert version.runs == 2 and "top_attended(model, ids" in version.source
    again = bench.restore(bench.runs("who_writes")[0].id)(model, [[0, 4, 5, 6, 7, 1]])
    assert np.array_equal(again["strength"].values, found["strength"].values)
    assert [tuple(cell) for cell in np.argwhere(found["strength"].values > 1e-6)] == [(0, 1), (1, 2)]  # the planted ones
    assert found["seen"].labels[5, 0].startswith("3") and found["seen"].values[5, 0] == pytest.approx(1, abs=1e-4)
    assert Bench(tmp_path / "experiments").runs("who_writes")[0].result["strength"] == found["strength"]
    model.close()


def test_a_profile_leaves_the_output_alone_and_its_parts_make_the_whole(tmp_path):
    bench = Bench(tmp_path / "experiments")

    @bench.experiment
    def where_time_goes(module, ids):
        found = profile(module, ids, by="module", repeats=1)
        bench.log("time", found.time)
        return {"shares": sum(row.share for row in found.rows), "logits": found.output.logits}

    with torch.no_grad():
        found = where_time_goes(untouched("llama"), torch.tensor([IDS]))
        wanted = untouched("llama")(torch.tensor([IDS])).logits
    assert torch.equal(found["logits"], wanted)
    assert found["shares"] == pytest.approx(1, abs=1e-6) and where_time_goes.record().metrics["time"] > 0


def test_a_hypothesis_is_rejected_for_the_planted_head_and_kept_for_an_empty_one():
    prompts = [[0, source, 5, 6, 7, 1] for source in (2, 3, 4, 5, 6, 7)]
    with hl.load(planted.gate(source=1, at=3, last=5), verify=False) as model:
        logits = {head: model.run("prompt {ids}\nsave logits @last\nzero " + head, ids=prompts)["hooked.logits"]
                  for head in ("L0H1", "L0H0")}
        plain = model.capture(prompts, "logits", at="last")["logits"]
    said = {name: [float(row.reshape(-1)[ids[1]]) for row, ids in zip(values, prompts, strict=True)]
            for name, values in {**logits, "plain": plain}.items()}
    planted_head = test_hypothesis(said["plain"], said["L0H1"], test="sign_flip")
    empty = test_hypothesis(said["plain"], said["L0H0"], test="sign_flip")

    assert planted_head.reject and planted_head.exact and planted_head.difference < 0
    assert planted_head.p == pytest.approx(2 / 2 ** 6)  # of all signs, only all plus and all minus are as far from 0
    assert not empty.reject and empty.p == 1 and empty.difference == 0


def test_plots_are_handed_to_a_function_and_kept_with_its_run(tmp_path):
    bench = Bench(tmp_path / "experiments")

    @bench.experiment
    @bench.plots("norms")
    def drawn(model, ids, norms):
        stream = model.capture(ids, "L*.resid_post")
        norms.plot([float(value.norm(dim=-1).mean()) for value in stream.values()])
        return {"attention": ready_plots.attention(model, ids, layer=1), "drawn": norms.lines[0].get_ydata().tolist()}

    found = drawn(opened("llama"), [IDS])
    maps = [picture.get_array() for ax in found["attention"].axes for picture in ax.images]

    with torch.no_grad():
        wanted = untouched("llama")(torch.tensor([IDS]), output_attentions=True).attentions[1][0].numpy()
    below = np.tri(len(IDS), dtype=bool)
    for picture, head in zip(maps, wanted, strict=True):
        assert np.allclose(np.asarray(picture.data, dtype=float)[below], head[below], atol=1e-5)
    lengths = [float(value.norm(dim=-1).mean()) for value in streams(untouched("llama"), IDS)[1:]]
    assert np.allclose(found["drawn"], lengths, atol=1e-4)
    assert len(drawn.record().figures) == 2
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn.record().figures.values())


def test_a_tool_of_ones_own_is_made_with_the_model_and_handed_over(tmp_path):
    bench = Bench(tmp_path / "experiments", model=opened("llama"))

    @bench.tool
    class Lengths:
        def __init__(self, model):
            self.model = model

        def of(self, ids, site):
            return self.model.capture(ids, site)[site].norm(dim=-1)

    @bench.experiment
    @bench.uses("lengths")
    def measured(ids, lengths):
        return lengths.of(ids, "L1.resid_post")

    found = measured([IDS])
    assert torch.allclose(found, streams(untouched("llama"), IDS)[2].norm(dim=-1), atol=1e-4)
    assert "lengths" in measured.record().about["tools"]


# Recipes: a hook, a data set, an architecture -------------------------------------------------------------------------


def test_a_hook_of_ones_own_looks_and_another_one_changes():
    model, seen = opened("gpt2"), {}

    def look(value, context):
        seen[context.layer] = value.norm(dim=-1)

    def halve(value, context):
        value[0, context.columns[0]] /= 2  # a copy, which takes its place

    with model.hook("L*.resid_post", look), model.hook("L1.mlp_out", halve, at="last"):
        logits = model.capture([IDS], "logits")["logits"]
    with pytest.raises(ZeroDivisionError), model.hook("L0.z", lambda value, context: 1 / 0):
        model.capture([IDS], "logits")
    plain = model.capture([IDS], "logits")["logits"]

    hf = untouched("gpt2")
    with torch.no_grad():
        wanted = hf(torch.tensor([IDS])).logits

        def half(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
            return torch.cat([out[:, :-1], out[:, -1:] / 2], 1)

        handle = hf.transformer.h[1].mlp.register_forward_hook(half)
        changed = hf(torch.tensor([IDS])).logits
        lengths = [value.norm(dim=-1) for value in streams(hf, IDS)[1:]]
        handle.remove()
    assert torch.allclose(logits, changed, atol=1e-4) and torch.allclose(plain, wanted, atol=1e-4)
    assert all(torch.allclose(seen[layer], lengths[layer], atol=1e-3) for layer in (0, 1)) and model.hooks == []


def test_a_data_set_of_images_and_captions_is_read_in_either_order(tmp_path):
    rows = [{"picture": image(seed), "caption": caption, "kind": kind}
            for seed, (caption, kind) in enumerate([("this is a cat", "cat"), ("a dog", "dog")])]
    processor = chameleon_processor()
    model = hl.load(build("chameleon"), processor=processor, tokenizer=processor.tokenizer, verify=False)
    found = {order: hl.extract(model, rows, "L1.resid_post", tmp_path / order[1:6], template=order, images="picture",
                               metadata=["kind"], at="last").store
             for order in ("{picture} {caption}", "{caption} {picture}")}

    hf = build("chameleon")
    for order, store in found.items():
        assert store.metadata["kind"] == ["cat", "dog"]
        for row, name in zip(rows, store.ids, strict=True):
            inputs = processor(text=order.format(picture="<image>", caption=row["caption"]), images=[row["picture"]],
                               return_tensors="pt")
            assert store.tokens(name) == inputs["input_ids"][0].tolist()
            seen: list[torch.Tensor] = []
            handle = hf.model.layers[1].register_forward_hook(lambda module, args, out, seen=seen: seen.append(out[0]))
            with torch.no_grad():
                hf(**inputs)
            handle.remove()
            assert torch.allclose(store["L1.resid_post"][name].reshape(-1), seen[0].reshape(-1, 32)[-1], atol=1e-4)


class NewConfig(LlamaConfig):
    model_type = "walkthrough_llama"


class New(LlamaForCausalLM):
    """An architecture that hooklab does not know: a Llama under another name."""

    config_class = NewConfig


def test_an_architecture_of_ones_own_is_registered_with_a_table_and_checked():
    sizes = dict(vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2)
    hf = New(NewConfig(**sizes)).eval()
    with pytest.raises(HooklabError, match="walkthrough_llama"):
        hl.load(hf)
    try:
        hl.register(replace(LLAMA, name="walkthrough_llama"))
        with hl.load(hf) as model:
            report, values = model.verify(), model.capture([IDS], "L*.resid_post")
            with pytest.raises(LayerError):
                model.capture([IDS], "L2.resid_post")
    finally:
        FAMILIES.pop("walkthrough_llama", None)
    assert report.ok
    for layer, wanted in enumerate(streams(hf, IDS)[1:]):
        assert torch.allclose(values[f"L{layer}.resid_post"], wanted, atol=1e-5)
