"""Families that are a row or two away from another: against transformers' outputs, plain hooks, and the laws of sites."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny_models import RELATIVES, build

import hooklab as hl
from hooklab.families import FAMILIES

IDS = torch.tensor([[13, 14, 15, 32, 25, 11, 29, 19, 44], [31, 21, 9, 26, 23, 18, 17, 8, 52]])
OTHER = torch.tensor([[13, 14, 77, 32, 25, 11, 29, 19, 44]])
FACTORS = {(kind, site): 0.6 for kind in ("granite", "granitemoe") for site in ("attn_out", "mlp_out")}
CLOSE = dict(atol=2e-5, rtol=1e-4)


@pytest.fixture(scope="module", params=list(RELATIVES))
def made(request):
    """A model, what transformers says of a batch, and what goes in and out of its modules."""
    hf = build(request.param, seed=3)
    bare, hidden = hf(IDS).logits, hf(IDS, output_hidden_states=True).hidden_states
    usual = hf.config._attn_implementation
    hf.set_attn_implementation("eager")
    attentions = hf(IDS, output_attentions=True).attentions
    hf.set_attn_implementation(usual)
    model = hl.load(hf, verify=False)
    around = watched(model, IDS)
    return SimpleNamespace(model=model, hf=hf, logits=bare, hidden=hidden, attentions=attentions, around=around,
                           found=model.capture(IDS, [port.address for port in model.layout.all_ports], full=True))


def watched(model, ids):
    """(layer, role) -> (first input, output), by plain hooks on the modules that a table names."""
    seen, handles = {}, []
    roles = [role for role in ("q", "k", "v", "o", "gate", "up", "down", "post_attn", "post_mlp", "mlp", "ln1", "ln2")
             if getattr(model.layout.family, role)]
    for layer in range(model.facts.n_layers):
        for role in roles:
            def keep(module, args, kwargs, output, key=(layer, role)):
                given = args[0] if args else kwargs["hidden_states"]
                seen[key] = (given, output if isinstance(output, torch.Tensor) else output[0])
            if role != "mlp" or model.layout.family.down is None:
                handles.append(model.layout.role(layer, role).register_forward_hook(keep, with_kwargs=True))
    model.hf(ids)
    for handle in handles:
        handle.remove()
    return seen


def like(found, wanted):
    torch.testing.assert_close(found.reshape(wanted.shape), wanted, **CLOSE)


def test_the_definitions_of_its_sites_hold(made):
    report = made.model.verify()
    assert report.ok, report


def test_wrapping_changes_no_number(made):
    assert torch.equal(made.model.capture(IDS, "logits", full=True)["logits"], made.logits)


def test_streams_are_the_hidden_states_of_transformers(made):
    for layer in range(made.model.facts.n_layers):
        like(made.found[f"L{layer}.resid_pre"], made.hidden[layer])


def test_patterns_are_the_attentions_of_transformers(made):
    assert len(made.attentions) == made.model.facts.n_layers
    for layer, wanted in enumerate(made.attentions):
        like(made.found[f"L{layer}.pattern"], wanted)


def test_sites_are_what_goes_in_and_out_of_the_modules(made):
    table, counted = made.model.layout.family, 0
    sides = {"q": ("q", 1), "k": ("k", 1), "v": ("v", 1), "z": ("o", 0), "mlp_pre": ("gate", 1), "mlp_pre_linear": ("up", 1),
             "mlp_post": ("down", 0), "ln1": ("ln1", 1), "ln2": ("ln2", 1),
             "attn_out": ("post_attn" if table.post_attn else "o", 1),
             "mlp_out": ("post_mlp" if table.post_mlp else "down" if table.down else "mlp", 1)}
    for layer in range(made.model.facts.n_layers):
        for site, (role, side) in sides.items():
            if (layer, role) in made.around and f"L{layer}.{site}" in made.found:
                like(made.around[layer, role][side] * FACTORS.get((made.hf.config.model_type, site), 1.0),
                     made.found[f"L{layer}.{site}"])
                counted += 1
    assert counted >= 4 * made.model.facts.n_layers


def test_a_stream_put_in_is_one_that_a_plain_hook_puts_in(made):
    block, stream = made.model.layout.blocks[1], made.found["L1.resid_pre"][:1]

    def put(module, args, kwargs):
        given = (args[0] if args else kwargs["hidden_states"]).clone()
        given[:, 5] = stream[:, 5]
        return ((given, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": given})

    handle = block.register_forward_pre_hook(put, with_kwargs=True)
    wanted = made.hf(OTHER).logits
    handle.remove()

    def edit(value):
        value[:, 5] = stream[:, 5]

    like(made.model.capture(OTHER, "logits", full=True, edits={"L1.resid_pre": edit})["logits"], wanted)
    assert (wanted - made.hf(OTHER).logits).abs().max() > 1e-4


def test_a_sweep_is_what_single_passes_give(made):
    if not made.model.facts.causal:
        pytest.skip("an encoder has no last prediction")
    clean = IDS[:1].tolist()
    kept = made.model.capture(clean, "L*.attn_out")
    change = (made.logits[0, -1] - made.hf(OTHER).logits[0, -1]).detach()
    right, wrong = int(change.argmax()), int(change.argmin())
    scores = hl.sweep(made.model, clean, OTHER.tolist(), "L*.attn_out", answer=right, wrong=wrong, metric="logit_diff")

    def told(**options):
        logits = made.model.capture(OTHER.tolist(), "logits", at="last", **options)["logits"][0]
        return float(logits[right] - logits[wrong])

    low, high = told(), float((made.logits[0, -1, right] - made.logits[0, -1, wrong]).detach())
    for layer in range(made.model.facts.n_layers):
        value = told(edits={f"L{layer}.attn_out": lambda old, n=layer: kept[f"L{n}.attn_out"].clone()})
        assert abs(scores.values.reshape(-1)[layer] * (high - low) - (value - low)) < 1e-4


def test_prompts_of_different_length_are_each_as_alone(made):
    rows = [[13, 14, 15], IDS[1].tolist(), [9]]
    batch = made.model.capture(rows, ["L1.resid_post", "logits"], at="last")
    for number, row in enumerate(rows):
        alone = made.model.capture([row], ["L1.resid_post", "logits"], at="last")
        for site in alone:
            like(batch[site][number], alone[site][0])


def test_every_relative_has_a_table_and_every_table_a_model():
    from tiny_models import FAMILIES as MODELS

    kinds = {build(name).config.model_type for name in (*MODELS, *RELATIVES)}
    assert {"gemma3_text" if kind == "gemma3" else kind for kind in FAMILIES} <= kinds | {"gemma3_text"}


def test_the_parts_of_the_stream_add_up_to_the_hidden_state_of_transformers(made):
    if made.model.layout.family.residual == "post":
        pytest.skip("norms stand in the stream itself")
    parts = hl.analysis.decompose(made.model, IDS[:1], "L1.resid_pre", positions="each", by="heads")
    like(parts.vectors.sum(0).float(), made.hidden[1][0])
    assert not [part for part in parts.parts if "rest" in part]


def test_the_lens_on_the_last_stream_gives_the_logits_of_transformers(made):
    if not made.model.facts.causal:
        pytest.skip("an encoder's head is more than a norm and a matrix")
    last = made.model.facts.n_layers - 1
    found = hl.lens(made.model, IDS[:1], f"L{last}.resid_post", answer=19, value="logit")
    like(torch.as_tensor(found.values).float().reshape(-1)[-1:], made.logits[0, -1, 19:20])
