"""A name, a folder or a transformers module where an opened model is needed: what is said."""

from __future__ import annotations

import pytest
from tiny_models import build

import hooklab as hl
from hooklab.errors import ModelError

TEXT = "When Mary and John went"
ASKED = {
    "sweep": lambda m: hl.sweep(m, TEXT, sites="L*H*", answer=" Mary"),
    "path_patch": lambda m: hl.path_patch(m, TEXT, TEXT, "L0H*", "L1H0.q", answer=" Mary"),
    "causal_trace": lambda m: hl.causal_trace(m, TEXT, "Mary", answer=" to"),
    "attribute": lambda m: hl.attribute(m, TEXT, "L*H*", answer=" Mary"),
    "lens": lambda m: hl.lens(m, TEXT),
    "induction_scores": hl.induction_scores,
    "generate": lambda m: hl.generate(m, TEXT),
    "attention_entropy": lambda m: hl.analysis.attention_entropy(m, TEXT),
    "write_heads": lambda m: hl.analysis.write_heads(m, TEXT),
    "early_exit": lambda m: hl.analysis.early_exit(m, TEXT),
    "view.attention": lambda m: hl.view.attention(m, TEXT),
    "view.tokens": lambda m: hl.view.tokens(m, prompt=TEXT),
    "view.lens": lambda m: hl.view.lens(m, TEXT),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_name_or_a_module_is_not_a_model_and_it_says_how_it_becomes_one(name):
    with pytest.raises(ModelError, match=r"opened model is needed here, and this is 'lab': give hl\.load\('lab'\)"):
        ASKED[name]("lab")
    with pytest.raises(ModelError, match=r"this is LlamaForCausalLM: give hl\.load\(…\)"):
        ASKED[name](build("llama"))
