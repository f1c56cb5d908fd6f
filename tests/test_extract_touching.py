"""What a dry run says of the model: modules by their names in transformers, and where attention is really opened."""

import json
import re

import pytest
from tiny_models import build, tokenizer

import hooklab as hl
from hooklab.data import MeanPattern
from hooklab.data.extraction.extract import extract
from hooklab.model import attention


@pytest.fixture(scope="module")
def model():
    return hl.load(build("llama"), tokenizer=tokenizer())


def entered(model, monkeypatch, run):
    """Layers whose attention was computed in the open while something ran."""
    layers, plain = set(), attention.attend
    with monkeypatch.context() as patched:
        patched.setattr(attention, "attend", lambda module, *given, **more: (
            layers.add(module.layer_idx), plain(module, *given, **more))[1])
        run()
    return tuple(sorted(layers))


@pytest.mark.parametrize("given, modules, words", [
    ({"sites": ["L*.resid_post", "L1.pattern"]}, ["layers.0", "layers.1", "layers.1.self_attn"],
     "modules: model.layers.{0-1}, model.layers.1.self_attn\n  attention: computed in the open in layer 1"),
    ({"sites": ["L*.z", "embed"]}, ["embed_tokens", "layers.0.self_attn.o_proj", "layers.1.self_attn.o_proj"],
     "modules: model.embed_tokens, model.layers.{0-1}.self_attn.o_proj\n  attention: as the model has it"),
    ({"reduce": {"w": MeanPattern("L0.pattern", {"end": "last"}, weighting="write")}},
     ["layers.0.self_attn", "layers.0.self_attn.v_proj"], "in layer 0"),
    ({"spec": "cut L*H0 @0 -> @last\nzero L0.mlp_out", "metrics": ["entropy"]},
     ["layers.0.self_attn", "layers.0.mlp.down_proj", "layers.1.self_attn", ""], "attention: .* in layers {0-1}"),
    ({"edits": {"L1.ln2_scale": lambda x: x * 2}, "sites": "L0.q", "keep": True},
     ["layers.0.self_attn.q_proj", "layers.1.post_attention_layernorm"], "as the model has it"),
])
def test_a_dry_run_says_which_modules_are_touched_and_where_attention_is_open(given, modules, words, model, tmp_path,
                                                                              monkeypatch):
    prompts = ["Mary w1 w2", "the store John w3"]
    given = given | ({"out": tmp_path / "s"} if "sites" in given else {})
    told = extract(model, prompts, dry_run=True, **given)
    assert told.modules == tuple(f"model.{name}" if name else "" for name in modules)
    assert all(model.hf.get_submodule(name) is not None for name in told.modules)
    assert re.search(words.replace("{", r"\{").replace("}", r"\}"), repr(told))
    assert json.loads(json.dumps(told.to_dict()))["modules"] == list(told.modules)
    assert entered(model, monkeypatch, lambda: extract(model, prompts, **given)) == told.opened
    assert told.to_dict()["opened"] == list(told.opened)


def test_hooks_that_hang_on_the_model_touch_it_too():
    model = hl.load(build("gpt2"), tokenizer=tokenizer())
    with model.hook("L0.scores", lambda scores: None), model.hook("L1.mlp_out", lambda out: None):
        told = extract(model, ["Mary w1"], metrics=["entropy"], dry_run=True)
    assert told.modules == ("transformer.h.0.attn", "transformer.h.1.mlp.c_proj", "") and told.opened == (0,)
    assert "modules: transformer.h.0.attn, transformer.h.1.mlp.c_proj, the model" in repr(told)
