"""An architecture of one's own: the recipe of CONTRIBUTING.md, run as it stands, and what `verify` sees in a wrong one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hooklab as hl
from hooklab.errors import FamilyError
from hooklab.families import FAMILIES, LLAMA, register, unregister

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
RIGHT = dict(gate="mlp.w1", up="mlp.w3", down="mlp.w2")


@pytest.fixture
def recipe():
    """The names that the recipe defines; its table is forgotten afterwards."""
    code = re.search(r"<!-- recipe -->\n```python\n(.*?)```", TEXT, re.DOTALL)[1]
    names = {"__name__": "recipe"}
    try:
        exec(compile(code, "CONTRIBUTING.md", "exec"), names)
        yield names
    finally:
        FAMILIES.pop("toy", None)


def wrong(recipe, **roles):
    """The recipe's model, opened with a table that errs."""
    register(replace(LLAMA, name="toy", **{**RIGHT, **roles}))
    return hl.load(recipe["model"].hf, verify=False)


def test_the_recipe_serves_what_the_modules_compute(recipe):
    model, ids = recipe["model"], [[3, 4, 5, 6]]
    seen = {}
    mlp = model.hf.model.layers[1].mlp
    handles = [getattr(mlp, name).register_forward_hook(lambda m, args, out, name=name: seen.update({name: (args[0], out)}))
               for name in ("w1", "w2", "w3")]
    with torch.no_grad():
        logits = model.hf(torch.tensor(ids)).logits
    for handle in handles:
        handle.remove()
    acts = model.capture(ids, ["L1.mlp_pre", "L1.mlp_pre_linear", "L1.mlp_post", "L1.mlp_out", "logits"])
    for site, expected in [("L1.mlp_pre", seen["w1"][1]), ("L1.mlp_pre_linear", seen["w3"][1]),
                           ("L1.mlp_post", seen["w2"][0]), ("L1.mlp_out", seen["w2"][1]), ("logits", logits)]:
        torch.testing.assert_close(acts[site], expected)


def test_the_table_was_needed(recipe):
    register(replace(LLAMA, name="toy"))
    with pytest.raises(FamilyError, match="down_proj"):
        hl.load(recipe["model"].hf)


@pytest.mark.parametrize("roles", [
    dict(norm="layer"), dict(ln2="input_layernorm"), dict(k="self_attn.v_proj", v="self_attn.k_proj"),
    dict(q="self_attn.v_proj", v="self_attn.q_proj"), dict(embed="norm"), dict(gate="mlp.w3", up="mlp.w1"),
    dict(q="self_attn.k_proj", k="self_attn.q_proj"),
], ids=["kind of norm", "norm of the MLP", "k and v", "q and v", "embedding", "gate and up", "q and k under rotation"])
def test_verify_sees_a_table_that_errs(recipe, roles):
    assert not wrong(recipe, **roles).verify().ok


def test_tables_of_hooklab_cannot_be_replaced_or_forgotten():
    with pytest.raises(FamilyError, match="a table of hooklab itself"):
        register(LLAMA)
    with pytest.raises(FamilyError, match="was not registered"):
        unregister("llama")
    mine = register(replace(LLAMA, name="mine"))
    assert unregister("mine") is mine
