"""Every site of every family against a transformer written by hand: what is read, and what a write does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from reference import reference
from tiny_models import FAMILIES, build

from hooklab.model.model import Model
from hooklab.sites import LAYER_SITES, MODEL_SITES, ORDER, SITES

IDS = torch.tensor([[13, 14, 15, 32, 25, 11, 29, 19], [31, 21, 9, 26, 23, 18, 17, 8]])  # words of every vocabulary
AT = 4
LIMIT = 1e-5


@pytest.fixture(scope="module", params=list(FAMILIES))
def model(request):
    return Model(build(request.param, seed=3))


@pytest.fixture(scope="module")
def expected(model):
    return reference(model.hf, IDS)


@pytest.fixture(scope="module")
def found(model):
    return model.capture(IDS, [port.address for port in model.layout.all_ports], full=True)


def error(value, expected):
    """Largest difference relative to the largest value where that exceeds one; masked scores left out."""
    visible = (expected > -1e30) & (value > -1e30)
    largest = float(expected[visible].abs().max().detach())
    return float((value - expected).detach()[visible].abs().max()) / max(1.0, largest)


def output(model, acts):
    return acts.output.logits if model.layout.has_head else acts.output[0]


def reference_output(model, values):
    """Logits; of a model without a head, its last hidden state."""
    if "logits" in values:
        return values["logits"]
    return values["ln_final"] if "ln_final" in values else values[f"L{model.facts.n_layers - 1}.resid_post"]


def change(address):
    """A hand-made edit at one position."""
    site = address.split(".")[-1]

    def edit(value):
        value = value.clone()
        if site in ("scores", "pattern"):
            value[:, 1, AT, : AT + 1] += torch.linspace(0.1, 0.5, AT + 1)
        elif site.endswith("_scale"):
            value[:, AT] *= 1.5
        else:
            value[:, AT] = value[:, AT] * 1.2 + 0.25 * torch.cos(torch.arange(value.shape[-1]))
        return value

    return edit


def test_the_same_sites_exist(model, expected):
    assert {port.address for port in model.layout.all_ports} == set(expected)


def test_every_site_reads_what_the_reference_computes(expected, found):
    errors = {address: error(found[address], expected[address]) for address in expected}
    assert {a: e for a, e in errors.items() if not e <= LIMIT} == {}
    assert {a: found[a].shape for a in expected} == {a: expected[a].shape for a in expected}


def test_writing_every_site_does_what_a_hand_made_edit_does(model, expected, found):
    base = reference_output(model, expected)
    errors = {}
    for address in expected:
        edit = change(address)
        acts = model.capture(IDS, [address], full=True, edits={address: edit})
        wanted = reference_output(model, reference(model.hf, IDS, edits={address: edit}))
        errors[address] = error(output(model, acts), wanted)
        assert (wanted - base).abs().max() > 1e-4, address  # the edit is one that matters
    assert {a: e for a, e in errors.items() if not e <= LIMIT} == {}


def test_writing_back_what_was_read_is_bit_identical(model, expected):
    for address in expected:
        read = model.capture(IDS, [address], full=True)
        for write in (lambda v: v.clone(), lambda v: v.add_(0), lambda v: v):
            wrote = model.capture(IDS, [address], full=True, edits={address: write})
            assert torch.equal(output(model, wrote), output(model, read)), address


def test_reading_changes_nothing(model, expected):
    bare = model.hf(IDS)[0]
    for address in expected:
        acts = model.capture(IDS, [address], full=True)
        shown = address.split(".")[-1] in ("scores", "pattern")  # these take the open path instead of the fused kernel
        assert torch.equal(output(model, acts), bare) or (shown and error(output(model, acts), bare) < 1e-6), address


def test_clean_values_at_all_positions_give_the_clean_output(model, found):
    other = IDS.flip(1)
    for address in found:
        if address.split(".")[-1] in ("embed", "resid_pre", "resid_mid", "resid_post", "ln_final", "logits"):
            clean = found[address]
            acts = model.capture(other, [address], full=True, edits={address: lambda v, c=clean: c.clone()})
            assert error(output(model, acts), output(model, found)) <= 5e-6, address


def test_a_change_leaves_earlier_positions_alone(model, found):
    if not model.facts.causal:
        pytest.skip("an encoder's positions all see each other")
    for address in found:
        acts = model.capture(IDS, [address], full=True, edits={address: change(address)})
        before = (output(model, acts) - output(model, found))[:, :AT].abs().max()
        assert before <= 5e-6, address
        assert (output(model, acts) - output(model, found))[:, AT:].abs().max() > 1e-4, address


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_ragged_batch_equals_its_rows_alone(model, side):
    rows = [[13, 14, 15], [31, 21, 9, 26, 23, 18, 17, 8], [9]]
    if side == "right" and model.facts.causal is False and model.layout.family.name != "bert":
        pytest.skip("no such model")
    model.reader.side, before = side, model.reader.side
    try:
        addresses = [port.address for port in model.layout.all_ports]
        batch = model.capture(rows, addresses, full=True)
        for row, ids in enumerate(rows):
            alone = model.capture([ids], addresses, full=True)
            columns = slice(-len(ids), None) if side == "left" else slice(0, len(ids))
            for address in addresses:
                value = batch[address][row]
                if address.endswith("pattern"):  # what a token looks at is in its own example, all of it
                    outside = value[:, columns].clone()
                    outside[..., columns] = 0
                    assert not outside.any(), (address, row)
                value = value[:, columns, columns] if value.ndim == 3 and address.endswith(("scores", "pattern")) \
                    else value[columns]
                assert error(value, alone[address][0]) <= LIMIT, (address, row)
    finally:
        model.reader.side = before


def test_scores_and_pattern_give_pads_nothing(model):
    rows = [[13, 14, 15], [31, 21, 9, 26, 23, 18, 17, 8]]
    pattern = model.capture(rows, ["L0.pattern"], full=True)["L0.pattern"]
    real, pad = (slice(0, 3), slice(3, 8)) if model.reader.side == "right" else (slice(5, 8), slice(0, 5))
    assert pattern[0, :, real, pad].abs().max() == 0


def test_names_axes_and_order_of_sites_are_those_of_files_and_specs_that_exist():
    """What was saved names sites and axes. A new site gets a line in `names.json`; a line that is there is not changed."""
    golden = json.loads((Path(__file__).parent / "names.json").read_text())
    assert [{"name": site.name, "scope": site.scope, "axes": list(site.axes)} for site in SITES.values()] == golden
    assert list(SITES) == [row["name"] for row in golden] == sorted(ORDER, key=ORDER.__getitem__)
    assert LAYER_SITES == tuple(row["name"] for row in golden if row["scope"] == "layer")
    assert MODEL_SITES == tuple(row["name"] for row in golden if row["scope"] == "model")
