"""verify() on models whose weights make nothing of a write: that is no failure; a write that is ignored still is one."""

from __future__ import annotations

import copy
import types

import pytest
import torch
from tiny_models import build
from torch.nn import functional as F

import hooklab as hl
from hooklab.cli import main
from hooklab.model.model import Model
from hooklab.model.verification.names import EFFECT, INERT

MLP = {"ln2", "ln2_scale", "mlp_pre", "mlp_pre_linear", "mlp_post"}
LOOKS = {"ln1", "ln1_scale", "q", "k", "rot_q", "rot_k", "scores", "pattern"}
HEADS = LOOKS | {"v", "z"}


def silenced(family, *roles, layers=(0, 1)):
    """A random model, some of whose projections are zero in some layers."""
    hf = build(family)
    model = Model(hf)
    with torch.no_grad():
        for layer in layers:
            for role in roles:
                for parameter in model.layout.role(layer, role).parameters():
                    parameter.zero_()
    return model


def untested(report):
    return {check.sites[0]: check.note for check in report if check.name == EFFECT and INERT in check.note}


@pytest.mark.parametrize("name", ["gate", "gate-null"])
def test_the_shipped_models_that_are_set_by_hand_pass(name):
    report = hl.load(name).verify()
    assert report.ok and not report.broken, report
    found = untested(report)
    assert {site for site, note in found.items() if note == INERT} == MLP
    assert {"q", "k", "rot_q", "rot_k"} <= set(found) <= MLP | HEADS
    assert f"effect {INERT}" in repr(report) and "all checks pass" in repr(report)
    assert {check.status for check in report if check.note == INERT} == {"absent"}


def test_the_command_says_that_the_gate_passes(capsys):
    assert main(["verify", "gate"]) == 0 and "all checks pass" in capsys.readouterr().out


@pytest.mark.parametrize(("family", "roles", "sites"), [
    ("llama", ["down"], MLP), ("gpt2", ["down"], MLP - {"mlp_pre_linear"}), ("gemma2", ["down"], MLP),
    ("llama", ["o"], HEADS), ("gpt2", ["o"], HEADS), ("gptj", ["o", "down"], HEADS | {"mlp_pre", "mlp_post"}),
    ("phi3", ["down"], MLP), ("llama", ["q"], {"k", "rot_k"}), ("llama", ["v"], LOOKS)])
def test_weights_that_are_zero_make_sites_inert_and_no_failure(family, roles, sites):
    model = silenced(family, *roles)
    report = model.verify()
    assert report.ok, report
    found = untested(report)
    assert {site for site, note in found.items() if note == INERT} == sites
    assert not {site for site, note in found.items() if note != INERT}


def test_layers_that_are_inert_are_named_and_the_others_tested():
    report = silenced("llama", "down", layers=[1]).verify()
    assert report.ok and untested(report) == dict.fromkeys(MLP, f"L1 {INERT}")
    assert {check.status for check in report if check.name == EFFECT} == {"exact"}
    assert not untested(Model(build("llama")).verify())


def twice(mlp, silent):
    """An MLP that computes something a second time, and goes on with that: what is written is ignored."""
    def gate(self, x):
        self.gate_proj(x)
        return self.down_proj(self.act_fn(F.linear(x, self.gate_proj.weight)) * self.up_proj(x))

    def post(self, x):
        made = self.act_fn(self.gate_proj(x)) * self.up_proj(x)
        self.down_proj(made)
        return F.linear(made, self.down_proj.weight)

    mlp.forward = types.MethodType({"mlp_pre": gate, "mlp_post": post}[silent], mlp)


def aside(attention, projection):
    """Let attention go on with a projection of its own; the one that the table names runs, and nobody reads it."""
    named, forward = getattr(attention, projection), attention.forward
    used = copy.deepcopy(named)

    def around(*args, **kwargs):
        named(kwargs.get("hidden_states", args[0] if args else None))
        setattr(attention, projection, used)
        try:
            return forward(*args, **kwargs)
        finally:
            setattr(attention, projection, named)

    attention.forward = around


@pytest.mark.parametrize("roles", [[], ["down"], ["o"]])
def test_a_write_that_is_ignored_fails_whatever_weights_are_zero(roles):
    model = silenced("llama", *roles)
    for block in model.hf.model.layers:
        twice(block.mlp, "mlp_pre")
    report = model.verify()
    assert "mlp_pre" in report.broken and not report.ok


def test_a_write_that_is_ignored_in_one_layer_fails_though_another_is_inert():
    model = silenced("llama", "down", layers=[0])
    twice(model.hf.model.layers[1].mlp, "mlp_post")
    report = model.verify()
    assert "mlp_post" in report.broken and not report.ok
    assert next(check.note for check in report if check.name == EFFECT and check.sites == ("mlp_post",)) == (
        "writing has no effect")


@pytest.mark.parametrize(("projection", "site"), [("v_proj", "v"), ("q_proj", "q")])
def test_a_projection_that_is_computed_aside_fails(projection, site):
    model = silenced("llama", "down")
    for block in model.hf.model.layers:
        aside(block.self_attn, projection)
    report = model.verify()
    assert not report.ok and site in report.broken, report.broken
