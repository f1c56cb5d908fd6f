"""The hand-written transformer itself, against transformers."""

from __future__ import annotations

import pytest
import torch
from reference import reference
from tiny_models import HEADLESS, TEXT_ONLY, build

IDS = torch.tensor([[3, 14, 15, 92, 65, 35, 89, 79], [31, 41, 59, 26, 53, 58, 97, 93]])


@pytest.mark.parametrize("family", TEXT_ONLY)
def test_it_computes_what_transformers_computes(family):
    hf = build(family)
    values = reference(hf, IDS)
    with torch.no_grad():
        out = hf(IDS, output_hidden_states=True)
    scale = float(out[0].abs().max())
    if family not in HEADLESS:
        assert float((values["logits"] - out.logits).abs().max()) <= 1e-5 * max(1.0, scale)
    for layer in range(1, len(out.hidden_states) - 1):
        expected = out.hidden_states[layer]
        assert float((values[f"L{layer}.resid_pre"] - expected).abs().max()) <= 1e-5 * max(1.0, expected.abs().max())
