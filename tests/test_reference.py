"""The hand-written transformer itself, against transformers."""

from __future__ import annotations

import pytest
import torch
from reference import reference
from test_sites import IDS
from tiny_models import FAMILIES, HEADLESS, build


@pytest.mark.parametrize("family", list(FAMILIES))
def test_it_computes_what_transformers_computes(family):
    hf = build(family)
    values = reference(hf, IDS)
    with torch.no_grad():
        out = hf(IDS, output_hidden_states=True)
    if family not in HEADLESS:
        allowed = out.logits > -1e30  # Chameleon forbids its image tokens
        error = float((values["logits"] - out.logits)[allowed].abs().max())
        assert error <= 1e-5 * max(1.0, float(out.logits[allowed].abs().max()))
    for layer in range(1, len(out.hidden_states) - 1):
        expected = out.hidden_states[layer]
        assert float((values[f"L{layer}.resid_pre"] - expected).abs().max()) <= 1e-5 * max(1.0, expected.abs().max())
