"""The lenses: every number counted again by the hand-written transformer, or by the modules of transformers themselves."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from reference import reference
from tiny_models import build
from torch import nn

import hooklab as hl
from hooklab.analysis.exits import early_exit, skip_layers
from hooklab.analysis.lens import lens
from hooklab.analysis.lens_values import LensError
from hooklab.analysis.predictions import PredictionError
from hooklab.analysis.tuned import TunedLens
from hooklab.analysis.tuned_training import train_tuned_lens
from hooklab.errors import LayerError, ModelError, PositionError, SiteError
from hooklab.problems import SpecError
from hooklab.runtime.provenance import fingerprint

IDS = [8, 12, 25, 9, 12, 30]
RAGGED = [IDS, [9, 12, 30], [8, 13, 25, 9]]
RIGHT, WRONG = 11, 17
MAIN = ("gpt2", "llama", "gpt_neox", "gemma2", "phi3")
HEADS = {"gpt2": "a tied head behind a LayerNorm", "phi": "a head with a bias behind a LayerNorm",
         "llama": "a head of its own behind an RMSNorm", "gemma2": "a tied head with a soft-cap", "gpt_neox": "LayerNorm",
         "phi3": "RMSNorm", "gptj": "a head with a bias", "opt_postnorm": "no final norm", "olmo2": "norms after components"}


@cache
def opened(family):
    return hl.load(build(family))


@pytest.fixture(scope="module", autouse=True)
def closed():
    yield
    for family in HEADS:
        opened(family).close()


def by_hand(family, ids=IDS, edits=None):
    """Every site of the hand-written transformer, one prompt."""
    return {site: value[0] for site, value in reference(opened(family).hf, torch.tensor([ids]), edits=edits).items()}


def through_the_end(family, stream, held=None):
    """Logits of a stream [pos d_model] put in the place of the last one; with the divisor of another held."""
    edits = {"L1.resid_post": lambda x: stream[None].expand_as(x)}
    if held is not None:
        edits["ln_final_scale"] = lambda x: held[None]
    return by_hand(family, edits=edits)["logits"]


def uncapped(family, logits):
    cap = getattr(opened(family).hf.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.atanh(logits.double() / cap)


def close(found, wanted, tolerance=1e-5):
    found, wanted = np.asarray(found), torch.as_tensor(wanted).detach().double().numpy()
    assert found.shape == wanted.shape
    assert np.allclose(found, wanted, rtol=0, atol=tolerance), np.abs(found - wanted).max()


# The logit lens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", HEADS)
def test_the_lens_at_the_last_layer_gives_the_logits_of_the_model(family):
    with torch.no_grad():
        logits = opened(family).hf(torch.tensor([IDS])).logits[0]
    close(lens(opened(family), [IDS], answer=RIGHT).values[-1], logits[:, RIGHT])
    diff = lens(opened(family), [IDS], "L1.resid_post", answer=RIGHT, wrong=WRONG, positions="last")
    close(diff.values, logits[-1, RIGHT] - logits[-1, WRONG])


@pytest.mark.parametrize("family", MAIN)
def test_every_place_is_read_through_its_own_norm_and_the_real_unembedding(family):
    model, sites = opened(family), by_hand(family)
    for name in ("resid_pre", "resid_post", "attn_out", "mlp_out"):
        wanted = torch.stack([through_the_end(family, sites[f"L{layer}.{name}"])[:, RIGHT] for layer in range(2)])
        found = lens(model, [IDS], f"L*.{name}", answer=RIGHT)
        assert found.axes == ("layer", "pos") and found.unit == "logits"
        close(found.values, wanted)
    if family != "gemma2":  # whose heads write through a norm
        found = lens(model, [IDS], "L*H[0,3]", answer=RIGHT, positions="last")
        wanted = [[through_the_end(family, sites[f"L{layer}.result"][:, head])[-1, RIGHT] for head in (0, 3)]
                  for layer in range(2)]
        assert found.axes == ("layer", "head") and found.coords["head"] == (0, 3)
        close(found.values, torch.tensor(wanted))


@pytest.mark.parametrize("family", MAIN)
@pytest.mark.parametrize("sites", ["heads", "components"])
def test_all_that_is_written_adds_up_to_the_logits_under_the_frozen_norm(family, sites):
    found = lens(opened(family), [IDS], sites, norm="frozen", answer=RIGHT, wrong=None)
    wanted = uncapped(family, by_hand(family)["logits"])[:, RIGHT]
    assert {"embed", "bias", "L1.mlp_out"} < set(found.coords["site"])
    assert ("L0H3" in found.coords["site"]) == (sites == "heads") == ("L1.b_O" in found.coords["site"])
    close(found.values.sum(0), wanted, 1e-4)
    assert "before any soft-cap" in found.note


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_ragged_prompts_add_up_each_by_itself_and_padding_never_enters(family):
    found = lens(opened(family), RAGGED, "heads", norm="frozen", answer=[RIGHT, WRONG, 3], positions="each")
    for example, (ids, answer) in enumerate(zip(RAGGED, (RIGHT, WRONG, 3), strict=True)):
        wanted = uncapped(family, by_hand(family, ids)["logits"])[:, answer]
        close(found.examples[example].sum(0)[:len(ids)], wanted, 1e-4)
        assert np.isnan(found.examples[example][:, len(ids):]).all()
    assert np.allclose(found.values[:, -1], found.examples[0][:, -1])  # the only prompt that is so long
    last = lens(opened(family), RAGGED, "L*.resid_pre", value="entropy", positions="last")
    alone = [lens(opened(family), [ids], "L*.resid_pre", value="entropy", positions="last").values for ids in RAGGED]
    assert np.allclose(last.examples, alone, atol=1e-5) and np.allclose(last.values, np.mean(alone, 0), atol=1e-5)
    assert last.low.shape == (2,)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "phi3"])
def test_a_part_under_the_frozen_norm_is_divided_by_the_divisor_of_the_real_last_stream(family):
    sites, hf = by_hand(family), opened(family).hf
    norm = {"gpt2": "transformer.ln_f", "gpt_neox": "gpt_neox.final_layer_norm", "phi3": "model.norm"}[family]
    x, last = sites["L0.mlp_out"].double(), sites["L1.resid_post"].double()
    if family == "phi3":
        divisor = (last.square().mean(-1, keepdim=True) + hf.config.rms_norm_eps).sqrt()
    else:
        x = x - x.mean(-1, keepdim=True)
        divisor = (last.var(-1, unbiased=False, keepdim=True) + hf.get_submodule(norm).eps).sqrt()
    normed = x / divisor * hf.get_submodule(norm).weight.double()
    matrix = hf.get_output_embeddings().weight.double()
    close(lens(opened(family), [IDS], "L0.mlp_out", norm="frozen", answer=RIGHT).values, normed @ matrix[RIGHT])
    probs = (normed @ matrix.T).softmax(-1)[:, RIGHT]
    close(lens(opened(family), [IDS], "L0.mlp_out", norm="frozen", answer=RIGHT, value="prob").values, probs)
    along = torch.linspace(-1, 1, 32)
    close(lens(opened(family), [IDS], "L0.mlp_out", norm="frozen", direction=along).values, normed @ along.double())


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_the_stream_under_the_frozen_norm_has_the_biases_in_it_and_the_cap_in_its_probabilities(family):
    sites = by_hand(family)
    logits = through_the_end(family, sites["L0.resid_post"], sites["ln_final_scale"])
    read = lambda **more: lens(opened(family), [IDS], "L0.resid_post", norm="frozen", answer=RIGHT, **more).values  # noqa: E731
    close(read(), uncapped(family, logits)[:, RIGHT], 1e-4)
    close(read(value="prob"), logits.softmax(-1)[:, RIGHT])
    assert np.abs(lens(opened(family), [IDS], norm="frozen", value="kl").values[-1]).max() < 1e-5


def test_a_neuron_is_its_activation_times_what_it_writes():
    sites, hf = by_hand("gemma2"), opened("gemma2").hf
    down, norm = hf.model.layers[1].mlp.down_proj, hf.model.layers[1].post_feedforward_layernorm
    whole = sites["L1.mlp_post"] @ down.weight.T
    part = sites["L1.mlp_post"][:, 5, None] * down.weight[:, 5]
    write = part / (whole.square().mean(-1, keepdim=True) + norm.eps).sqrt() * (1 + norm.weight)
    found = lens(opened("gemma2"), [IDS], "L1N[5,7]", answer=RIGHT)
    assert found.axes == ("neuron", "pos") and found.coords["neuron"] == (5, 7)
    close(found.values[0], through_the_end("gemma2", write)[:, RIGHT], 1e-4)


def test_without_a_norm_the_vector_itself_is_unembedded():
    sites, head = by_hand("llama"), opened("llama").hf.lm_head.weight
    close(lens(opened("llama"), [IDS], "L1.attn_out", norm=None, answer=RIGHT).values, sites["L1.attn_out"] @ head[RIGHT])
    close(lens(opened("llama"), [IDS], "L1.attn_out", norm=None, direction=head[RIGHT] - head[WRONG]).values,
          sites["L1.attn_out"] @ (head[RIGHT] - head[WRONG]))


def test_every_value_is_what_its_name_says():
    sites = by_hand("gpt2")
    logs = through_the_end("gpt2", sites["L0.resid_post"]).double().log_softmax(-1)
    last = sites["logits"].double().log_softmax(-1)
    wanted = {"prob": logs[:, RIGHT].exp(), "logprob": logs[:, RIGHT], "rank": (logs > logs[:, RIGHT, None]).sum(-1),
              "entropy": -(logs.exp() * logs).sum(-1), "kl": (last.exp() * (last - logs)).sum(-1),
              "accuracy": logs.argmax(-1) == RIGHT, "agreement": logs.argmax(-1) == last.argmax(-1)}
    for value, numbers in wanted.items():
        answer = RIGHT if value in ("prob", "logprob", "rank", "accuracy") else None
        close(lens(opened("gpt2"), [IDS], "L0.resid_post", value=value, answer=answer).values, numbers)
    likeliest = logs.argmax(-1)
    close(lens(opened("gpt2"), [IDS], "L0.resid_post", value="accuracy", answer=int(likeliest[2])).values,
          likeliest == likeliest[2])


def test_places_are_labelled_and_a_list_has_an_axis_of_its_own():
    found = lens(opened("gpt2"), [IDS], ["embed", "L1H2", "L0.b_O"], norm="frozen", answer=RIGHT, positions=[1, 2])
    assert found.axes == ("site",) and found.coords["site"] == ("embed", "L1H2", "L0.b_O")
    bias = opened("gpt2").hf.transformer.h[0].attn.c_proj.bias
    sites, norm = by_hand("gpt2"), opened("gpt2").hf.transformer.ln_f
    share = (bias - bias.mean()) * norm.weight @ opened("gpt2").hf.lm_head.weight[RIGHT]
    close(found.values[2], (share / sites["ln_final_scale"][[1, 2], 0]).mean())


def test_the_spec_of_a_lens_is_text_that_gives_the_same_numbers():
    said = ["When Mary and John went to the store, John gave a drink to", "When Anna and Paul went to the park, Paul gave a"]
    with hl.load("lab") as lab:
        for prompt, sites, options in ((said[0], "L*.resid_post", {"wrong": " John"}),
                                       (said[0], ["L1H2", "L0.mlp_out"], {"wrong": " John", "norm": "frozen"}),
                                       (said, "L*.attn_out", {"value": "prob", "norm": None, "positions": "last"})):
            found = lens(lab, prompt, sites, answer=" Mary", **options)
            again = lab.run(found.spec).scores[f"main.{found.name}"]
            assert again.axes == found.axes and np.allclose(again.values, found.values, atol=1e-4)
        assert lens(lab, said[0], "heads", norm="frozen", answer=" Mary").spec == ""  # no line of the language gives these
        assert lens(lab, said, answer=" Mary", value="prob").spec == ""  # nor each position of prompts that differ


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"norm": "owm", "answer": 1}, LensError, "norm='owm'"),
    ({"value": "prop", "answer": 1}, LensError, "Did you mean .prob"),
    ({"value": "prob"}, LensError, "give answer="), ({}, LensError, "say what to read"),
    ({"value": "logit_diff", "answer": 1}, LensError, "give wrong="), ({"wrong": 1}, LensError, "goes with answer="),
    ({"answer": 1, "direction": torch.ones(32)}, LensError, "in place of a value"),
    ({"answer": 1, "sites": "L0.z"}, LensError, "cannot read L0.z"), ({"answer": 1, "sites": []}, LensError, "no place"),
    ({"answer": 1, "sites": "L0.result"}, LensError, "L0H* for each"),
    ({"answer": 1, "sites": "bias"}, LensError, "frozen"), ({"answer": 1, "sites": "L0.resid_pots"}, SiteError, "resid_p"),
    ({"answer": 1, "sites": "L2.resid_post"}, LayerError, "no layer 2"),
    ({"answer": 1, "sites": "L0H9"}, LayerError, "head 9"),
    ({"answer": 100}, PredictionError, "no token 100"), ({"answer": [1, 2]}, LensError, "2 answers"),
    ({"answer": "w1"}, PredictionError, "no tokenizer"), ({"answer": 1, "positions": 6}, PositionError, "6"),
])
def test_a_wrong_place_token_or_word_is_an_error_that_says_what_fits(options, error, words):
    with pytest.raises(error, match=re.escape(words) if "*" in words else words):
        lens(opened("gpt2"), [IDS], options.pop("sites", "L*.resid_post"), **options)


def test_models_without_predictions_or_with_norms_in_the_stream_are_refused():
    with hl.load(build("bert")) as bert, pytest.raises(PredictionError, match="both ways"):
        lens(bert, [IDS], value="entropy")
    with pytest.raises(LensError, match="norm after every addition"):
        lens(opened("opt_postnorm"), [IDS], "components", norm="frozen", answer=RIGHT)


# The tuned lens --------------------------------------------------------------------------------------------------------


def drawn(family, seed=0, size=0.1):
    """A lens with random translators of one model."""
    facts, draw = opened(family).facts, torch.Generator().manual_seed(seed)
    weight = size * torch.randn(facts.n_layers, facts.d_model, facts.d_model, generator=draw)
    return TunedLens(weight, size * torch.randn(facts.n_layers, facts.d_model, generator=draw))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_a_tuned_lens_begins_as_the_logit_lens_exactly(family):
    model = opened(family)
    start = TunedLens.identity(model)
    for sites in ("L*.resid_pre", "L*.resid_post"):
        found = lens(model, [IDS], sites, answer=RIGHT, tuned=start)
        assert np.array_equal(found.values, lens(model, [IDS], sites, answer=RIGHT).values)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_translator_adds_to_the_stream_before_the_norm(family):
    made, sites = drawn(family), by_hand(family)
    moved = [h + h @ made.weight[i] + made.bias[i] for i, h in enumerate((sites["L0.resid_pre"], sites["L1.resid_pre"]))]
    wanted = torch.stack([through_the_end(family, x)[:, RIGHT] for x in moved])
    close(lens(opened(family), [IDS], "L*.resid_pre", answer=RIGHT, tuned=made).values, wanted)
    post = lens(opened(family), [IDS], answer=RIGHT, tuned=made).values
    close(post, torch.stack([wanted[1], sites["logits"][:, RIGHT]]))  # behind block 0 is before block 1; the last is real


def kl_by_hand(hf, made, ids):
    """Mean KL of the model's prediction from a tuned lens before each layer of a Llama, [layer]."""
    with torch.no_grad():
        out = hf(torch.tensor([ids]), output_hidden_states=True)
        last = out.logits[0].log_softmax(-1)
        found = []
        for i, h in enumerate(out.hidden_states[:-1]):
            logs = hf.lm_head(hf.model.norm(h[0] + h[0] @ made.weight[i] + made.bias[i])).log_softmax(-1)
            found.append(float((last.exp() * (last - logs)).sum(-1).mean()))
    return np.array(found)


def test_training_lowers_the_kl_on_text_that_was_held_out_and_leaves_the_model_alone():
    model, draw = opened("llama"), torch.Generator().manual_seed(1)
    texts = [torch.randint(3, 100, (int(n),), generator=draw).tolist() for n in torch.randint(6, 20, (40,), generator=draw)]
    before, state, hf = fingerprint(model), torch.get_rng_state(), model.hf
    weights = {name: value.clone() for name, value in hf.state_dict().items()}
    steps = []
    with torch.no_grad():
        made = train_tuned_lens(model, texts[:32], steps=60, lr=1e-2, seed=3, progress=lambda *found: steps.append(found))
        assert not torch.is_grad_enabled()
    assert fingerprint(model) == before == made.lens.fingerprint and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in hf.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in hf.parameters())
    start = TunedLens.identity(model)
    held_out = [np.mean([kl_by_hand(hf, one, ids) for ids in texts[32:]], 0) for one in (start, made.lens)]
    assert (held_out[1] < 0.8 * held_out[0]).all(), held_out
    assert made.history.axes == ("step", "layer") and made.history.shape == (60, 2)
    assert [n for n, _ in steps] == list(range(1, 61)) and steps[-1][1]["kl"] == made.history.values[-1].mean()
    first = lens(model, texts[:32], "L*.resid_pre", value="kl", tuned=made.lens).examples
    alone = np.stack([kl_by_hand(hf, made.lens, ids) for ids in texts[:32]])
    assert np.allclose(np.nanmean(first, -1), alone, atol=1e-4)


def test_the_same_seed_gives_the_same_tuned_lens():
    model, texts = opened("gpt2"), [[*IDS, n] for n in range(40, 52)]
    one, same, other = (train_tuned_lens(model, texts, steps=4, batch=5, seed=seed).lens for seed in (7, 7, 8))
    assert torch.equal(one.weight, same.weight) and torch.equal(one.bias, same.bias)
    assert not torch.equal(one.weight, other.weight)
    on = train_tuned_lens(model, texts, steps=1, lr=1e-6, start=one).lens
    assert torch.allclose(on.weight, one.weight, atol=1e-5)


def test_training_lowers_the_kl_on_the_lab_model_too():
    said = ["When Mary and John went to the store, John gave a drink to", "The Eiffel Tower is in the city of",
            "When Anna and Paul went to the park, Paul gave a book to", "The Tower Bridge is in the city of"]
    with hl.load("lab") as lab:
        made = train_tuned_lens(lab, said[:3], steps=30, lr=5e-3)
        before, after = (lens(lab, said[3], "L*.resid_pre", value="kl", tuned=one).values[:, 1:].mean()
                         for one in (None, made.lens))
        assert after < before
        run = lab.run('prompt p = {text}\nlens L2.resid_pre @last tuned={tuned} top=3', text=said[3], tuned=made.lens)
        stream = lab.capture(said[3], "L2.resid_pre")["L2.resid_pre"][0, -1]
        moved = stream + stream @ made.lens.weight[2] + made.lens.bias[2]
        norm = next(m for m in lab.hf.modules() if m is lab.layout.module(lab.layout.base, lab.layout.family.ln_final))
        with torch.no_grad():
            wanted = lab.hf.get_output_embeddings()(norm(moved)).softmax(-1).topk(3).values
        close(run.scores["p.lens"].values, wanted, 1e-5)
    with pytest.raises(SpecError, match="other weights"), hl.load(build("llama")) as other:
        other.run("prompt p = {ids}\nlens tuned={tuned}", ids=[IDS],
                  tuned=replace(TunedLens.identity(opened("llama")), fingerprint="0"))


LARGE = TunedLens(torch.full((2, 32, 32), 3e38), torch.zeros(2, 32))


@pytest.mark.parametrize(("options", "words"), [({"steps": 0}, "steps"), ({"batch": 0}, "batch"), ({"lr": 0.0}, "lr"),
                                                 ({"weight_decay": -1.0}, "weight_decay"), ({"start": LARGE}, "lower lr")])
def test_settings_of_training_that_make_no_sense_are_refused(options, words):
    with pytest.raises(LensError, match=words):
        train_tuned_lens(opened("llama"), [IDS], **{"steps": 3, **options})


def test_a_tuned_lens_is_stored_and_read_again_and_never_written_over(tmp_path):
    made = replace(drawn("llama"), fingerprint=fingerprint(opened("llama")))
    path = made.save(tmp_path / "lens.safetensors")
    read = TunedLens.load(path)
    assert torch.equal(read.weight, made.weight) and torch.equal(read.bias, made.bias)
    assert read.fingerprint == made.fingerprint
    with pytest.raises(ModelError, match="overwrite"):
        made.save(path)
    other = drawn("llama", 1)
    assert torch.equal(TunedLens.load(other.save(path, overwrite=True)).weight, other.weight)
    with pytest.raises(ModelError, match="safetensors file"):
        made.save(tmp_path / "lens.pt")
    with pytest.raises(ModelError, match="cannot be read"):
        TunedLens.load(tmp_path / "none.safetensors")


def test_a_file_of_another_kind_or_version_is_refused(tmp_path):
    from safetensors.torch import save_file

    tensors = {"weight": torch.zeros(2, 3, 3), "bias": torch.zeros(2, 3)}
    save_file(tensors, tmp_path / "plain.safetensors")
    save_file(tensors, tmp_path / "new.safetensors", {"hooklab_tuned_lens": json.dumps({"version": 2, "fingerprint": ""})})
    with pytest.raises(ModelError, match="not stored by"):
        TunedLens.load(tmp_path / "plain.safetensors")
    with pytest.raises(ModelError, match="version 2"):
        TunedLens.load(tmp_path / "new.safetensors")


def test_a_tuned_lens_of_another_model_place_or_norm_is_refused():
    made = TunedLens.identity(opened("llama"))
    with pytest.raises(ModelError, match="fitted to other weights"), hl.load(build("llama", seed=1)) as other:
        lens(other, [IDS], value="kl", tuned=made)
    with pytest.raises(ModelError, match="of 3 layers"):
        lens(opened("llama"), [IDS], value="kl", tuned=TunedLens(torch.zeros(3, 32, 32), torch.zeros(3, 32)))
    with pytest.raises(LensError, match="between blocks"):
        lens(opened("llama"), [IDS], "L*.mlp_out", value="kl", tuned=made)
    with pytest.raises(LensError, match="its|itself|own"):
        lens(opened("llama"), [IDS], value="kl", norm="frozen", tuned=made)
    with pytest.raises(ModelError, match="translators are"):
        TunedLens(torch.zeros(2, 3, 4), torch.zeros(2, 3))


def published(folder, layers=2, width=32, **config):
    """A lens in the published layout, made of plain modules."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        modules = nn.ModuleList([nn.Linear(width, width) for _ in range(layers)])
    folder.mkdir(exist_ok=True)
    torch.save(modules.state_dict(), folder / "params.pt")
    (folder / "config.json").write_text(json.dumps({
        "base_model_name_or_path": "tiny", "d_model": width, "num_hidden_layers": layers, "bias": True,
        "base_model_revision": None, "unembed_hash": "0", "lens_type": "linear_tuned_lens", **config}))
    return modules


def test_the_published_layout_is_read_in_residual_form_before_the_norm(tmp_path):
    modules = published(tmp_path / "lens")
    made = TunedLens.read_params(tmp_path / "lens")
    hf = opened("llama").hf
    with torch.no_grad():
        hidden = hf(torch.tensor([IDS]), output_hidden_states=True).hidden_states
        wanted = torch.stack([hf.lm_head(hf.model.norm(h + module(h)))[0, :, RIGHT]
                              for h, module in zip(hidden[:-1], modules, strict=True)])
    close(lens(opened("llama"), [IDS], "L*.resid_pre", answer=RIGHT, tuned=made).values, wanted)


def test_published_files_that_do_not_fit_or_bring_code_are_refused(tmp_path):
    published(tmp_path / "short", num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"2\.bias, 2\.weight"):
        TunedLens.read_params(tmp_path / "short")
    published(tmp_path / "wide", d_model=16)
    with pytest.raises(ModelError, match="not of shape"):
        TunedLens.read_params(tmp_path / "wide")
    published(tmp_path / "other", lens_type="mlp")
    with pytest.raises(ModelError, match="type 'mlp'"):
        TunedLens.read_params(tmp_path / "other")
    published(tmp_path / "code")
    torch.save(nn.Linear(2, 2), tmp_path / "code" / "params.pt")
    with pytest.raises(ModelError, match="running code"):
        TunedLens.read_params(tmp_path / "code")
    with pytest.raises(ModelError, match="cannot be read"):
        TunedLens.read_params(tmp_path / "nowhere")


# Early exit and skipped layers -----------------------------------------------------------------------------------------


def without(family, layers):
    """A copy of the module with the blocks of some layers taken out."""
    other = copy.deepcopy(build(family))
    base = other.transformer if family == "gpt2" else other.gpt_neox if family == "gpt_neox" else other.model
    blocks = base.h if family == "gpt2" else base.layers
    kept = nn.ModuleList([block for i, block in enumerate(blocks) if i not in layers])
    setattr(base, "h" if family == "gpt2" else "layers", kept)
    other.config.get_text_config().use_cache = False
    for name in ("num_hidden_layers", "n_layer"):
        if name in vars(other.config):
            setattr(other.config, name, len(kept))
    with torch.no_grad():
        return other(torch.tensor([IDS])).logits[0]


@pytest.mark.parametrize("family", MAIN)
def test_leaving_after_a_layer_is_the_model_without_the_blocks_behind_it(family):
    wanted = [without(family, {1}), without(family, set())]
    found = early_exit(opened(family), [IDS], value="logit", answer=RIGHT, positions="each")
    assert found.axes == ("layer", "pos")
    close(found.values, torch.stack([logits[:, RIGHT] for logits in wanted]))
    logs, last = (one[-1].double().log_softmax(-1) for one in wanted)
    close(early_exit(opened(family), [IDS]).values, torch.tensor([(last.exp() * (last - logs)).sum(), 0.0]))
    close(early_exit(opened(family), [IDS], answer=RIGHT).values, torch.stack([logs, last])[:, RIGHT].exp())
    same = wanted[0].argmax(-1) == wanted[1].argmax(-1)
    close(early_exit(opened(family), [IDS], value="agreement", positions="each").values,
          torch.stack([same, torch.ones_like(same)]))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_skipping_a_layer_is_the_model_without_its_block(family):
    last = without(family, set())[-1].double().log_softmax(-1)
    logs = torch.stack([without(family, {layer})[-1].double().log_softmax(-1) for layer in range(2)])
    found = skip_layers(opened(family), [IDS])
    assert found.axes == ("layer",) and found.unit == "nats"
    close(found.values, (last.exp() * (last - logs)).sum(-1))
    groups = skip_layers(opened(family), [IDS], [0, (0, 1)], answer=RIGHT)
    assert groups.coords["site"] == ("L0", "L[0,1]")
    close(groups.values, torch.stack([logs[0], without(family, {0, 1})[-1].double().log_softmax(-1)])[:, RIGHT].exp())


def test_choices_that_are_none_are_refused():
    for layers, error in (([], LensError), ([()], LensError), ([5], LayerError)):
        with pytest.raises(error, match="layer"):
            skip_layers(opened("gpt2"), [IDS], layers)
    with pytest.raises(LensError, match="last"):
        skip_layers(opened("gpt2"), [IDS], positions="each")


# In the language ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "words"), [
    ("lens norm=frosen", "did you mean frozen"), ("lens tuned=3", "tuned lens in braces"),
    ("lens norm=frozen tuned={f}", "leave norm= out"), ("lens L*.mlp tuned={lens}", "between blocks"),
    ("lens L0N3", "and heads"), ("lens L0.result", "and heads"),
])
def test_a_lens_line_that_cannot_be_read_is_an_error_at_its_place(line, words):
    values = {"ids": [IDS], "f": lambda x, place: x, "lens": TunedLens.identity(opened("gpt2"))}
    with pytest.raises(SpecError, match=words):
        opened("gpt2").run(f"prompt p = {{ids}}\n{line}", values=values)


def test_a_head_behind_a_norm_is_read_as_it_enters_the_stream():
    sites, norm = by_hand("gemma2"), opened("gemma2").hf.model.layers[0].post_attention_layernorm
    whole = sites["L0.result"].sum(1)
    write = sites["L0.result"][:, 2] / (whole.square().mean(-1, keepdim=True) + norm.eps).sqrt() * (1 + norm.weight)
    run = opened("gemma2").run("prompt p = {ids}\nlens L0H2 @last", ids=[IDS])
    close(run.scores["p.lens"].values, through_the_end("gemma2", write)[-1].softmax(-1).amax(), 1e-5)
    moved = opened("gpt2").run("prompt p = {ids}\nlens L0.resid_post @last tuned={f}", ids=[IDS], f=lambda x, place: 2 * x)
    close(moved.scores["p.lens"].values,
          through_the_end("gpt2", 2 * by_hand("gpt2")["L0.resid_post"])[-1].softmax(-1).amax(), 1e-5)
