"""What a plan says that `save` lines will take is what they took: positions, samples, steps, cells and types counted."""

from __future__ import annotations

import pytest
import torch
from tiny_models import build

import hooklab as hl
from hooklab.compiler.kept import kept_bytes
from hooklab.sae import SAE

ONE, RAGGED = [[5, 6, 7, 8, 9]], [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14]]
CELLS = [
    "save L1.pattern @last", "save L*.resid_post @last\nzero each L*H*", "save L1.q\nsave logits @last", "save L*.z",
    "save L1H2.z @1:", "save L1N[3,4] @last", "save L0.ln1_scale\nsave embed", "save L1.z @0:3",
    "save L1.pattern\ngenerate 5 samples=3", "save L*.z\ngenerate 7", "save L1.z @last\ngenerate 4",
    "save L1.resid_post @new\ngenerate 5",
]


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def model(request):
    hf = build("llama", dtype=request.param)
    hf.generation_config.eos_token_id = None
    with hl.load(hf, verify=False) as opened:
        yield opened


def taken(run):
    return sum(value.nbytes for acts in run.data.values() for value in
               ([acts] if isinstance(acts, torch.Tensor) else [acts[name] for name in acts]))


@pytest.mark.parametrize("ids", [ONE, RAGGED], ids=["one prompt", "two of different lengths"])
@pytest.mark.parametrize("cell", CELLS)
def test_bytes_that_are_planned_are_bytes_that_are_kept(model, cell, ids):
    text = f"prompt {{ids}}\n{cell}"
    planned, run = model.plan(text, values={"ids": ids}), model.run(text, values={"ids": ids})
    assert kept_bytes(planned) == taken(run) > 0
    assert "keeps: " in str(planned)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("features", ["enc.F3", "enc.F*", "enc.F[1,2] @last"])
def test_features_of_a_dictionary_are_counted_in_their_own_type(model, features, dtype):
    d = model.facts.d_model
    enc = SAE(torch.randn(d, 20), torch.zeros(20), torch.randn(20, d), torch.zeros(d)).to(dtype=dtype)
    text = f"prompt {{ids}}\nsae enc = {{enc}} at L0.resid_post\nsave {features}"
    values = {"ids": RAGGED, "enc": enc}
    assert kept_bytes(model.plan(text, values=values)) == taken(model.run(text, values=values)) > 0


def test_every_cell_of_a_sweep_is_counted(model):
    text = "prompt p = {ids}\nrun r on p:\n    zero each L0H*\n    save L1.resid_post @last"
    planned, run = model.plan(text, values={"ids": ONE}), model.run(text, values={"ids": ONE})
    assert kept_bytes(planned) == taken(run) == model.facts.n_heads * model.facts.d_model * model.dtype.itemsize
    assert "keeps: L1.resid_post" in str(planned)


def test_text_may_end_before_its_last_token(model):
    assert "at most" in str(model.plan("prompt {ids}\nsave L1.z\ngenerate 5", values={"ids": ONE}))
    assert "keeps" not in str(model.plan("prompt {ids}\nmetric entropy\nzero L0H1", values={"ids": ONE}))
