"""What analyses say to inputs that make no sense, and what is left behind when one of them is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import build, tokenizer

import hooklab as hl
from hooklab.analysis.asking import SweepError, listed, whole
from hooklab.analysis.attribute import AttributionError
from hooklab.analysis.lens_values import LensError
from hooklab.analysis.predictions import PredictionError
from hooklab.analysis.units import DashboardError
from hooklab.analysis.watching import AttentionError
from hooklab.errors import (
    HooklabError,
    LayerError,
    ModelError,
    PromptError,
    RecordError,
    SiteError,
    TokenError,
    TraceError,
    WriteError,
)

IDS, TEXT = [8, 12, 25, 9, 12, 30], "Mary the store"
NAN = float("nan")
ODD = np.full(32, NAN)
SAID = dict(answer=11, wrong=17)


@cache
def model() -> Any:
    return hl.load(build("llama"), tokenizer=tokenizer(), verify=False)


@cache
def experts() -> Any:
    return hl.load(build("mixtral"), verify=False)


@cache
def sae() -> Any:
    drawn = torch.Generator().manual_seed(0)
    return hl.sae.SAE(torch.randn(32, 40, generator=drawn), torch.zeros(40), torch.randn(40, 32, generator=drawn),
                      torch.zeros(32))


def head(**other: Any) -> Any:
    """A bare head, with some of its inputs replaced."""
    given = {"stream": torch.ones(1, 3, 4), "q": torch.ones(4, 2), "k": torch.ones(4, 2), "v": torch.ones(4, 2),
             "o": torch.ones(2, 4)}
    return hl.analysis.apply_head(**{**given, **other})


Ask = Callable[[Any], Any]
REFUSED: list[tuple[type[HooklabError], str, Ask]] = [
    # lenses
    (LensError, "an address such as", lambda m: hl.lens(m, IDS, 3, answer=5)),
    (LensError, "not None", lambda m: hl.lens(m, IDS, None, answer=5)),
    (LensError, "sites= is empty", lambda m: hl.lens(m, IDS, [], answer=5)),
    (LensError, "leave out value=, answer= and wrong=", lambda m: hl.lens(m, IDS, direction=np.ones(32), wrong=5)),
    (LensError, "tuned= is a TunedLens", lambda m: hl.lens(m, IDS, answer=5, tuned=3)),
    (LensError, "list of choices", lambda m: hl.analysis.skip_layers(m, IDS, 1)),
    (LensError, "start= is a TunedLens", lambda m: hl.analysis.train_tuned_lens(m, [IDS], steps=1, start=3)),
    (LensError, "lr is a number above 0", lambda m: hl.analysis.train_tuned_lens(m, [IDS], steps=1, weight_decay=NAN)),
    (LensError, "of width 32", lambda m: hl.analysis.TunedLens.identity(m)(torch.zeros(2, 3), "L0.resid_pre")),
    (ModelError, "translators are tensors", lambda m: hl.analysis.TunedLens(np.zeros((2, 3, 3)), np.zeros((2, 3)))),
    (PredictionError, "not in the vocabulary", lambda m: hl.lens(m, TEXT, answer="zzz")),
    (PredictionError, "whole numbers from 0 to 99", lambda m: hl.lens(m, IDS, answer=5.5)),
    (PredictionError, "whole numbers from 0 to 99", lambda m: hl.lens(m, IDS, answer=NAN)),
    (PredictionError, "whole numbers from 0 to 99", lambda m: hl.lens(m, IDS, answer=[[5]])),
    (TokenError, "not in the vocabulary", lambda m: hl.lens(m, TEXT, direction="zzz")),
    (SweepError, "32 finite numbers", lambda m: hl.lens(m, IDS, direction=np.ones(3))),
    (AttentionError, "seed='x'", lambda m: hl.lens(m, [IDS, IDS[:2]], answer=5, seed="x")),
    # layers and places
    (LayerError, "whole number, 0 to 1", lambda m: hl.analysis.skip_layers(m, IDS, ["a"])),
    (LayerError, "whole number, 0 to 1", lambda m: hl.analysis.skip_layers(m, IDS, [True])),
    (LayerError, "whole number, 0 to 1", lambda m: hl.analysis.mlp_basis(m, 1.5)),
    (LayerError, "whole number, 0 to 1", lambda m: hl.analysis.block_parts(m, IDS, None)),
    (SiteError, "An address is text", lambda m: hl.analysis.decompose(m, IDS, 3)),
    (SiteError, "An address is text", lambda m: hl.analysis.movement(m, IDS, None, "L0.resid_post")),
    (SweepError, "top=1.5", lambda m: hl.analysis.decompose(m, IDS, top=1.5)),
    (PromptError, 'Did you mean "positions"', lambda m: hl.analysis.decompose(m, IDS, position="last")),
    (PromptError, "no option 'dirction'", lambda m: hl.analysis.decompose(m, IDS, dirction=" Mary")),
    # heads
    (WriteError, r"k has shape \(4, 3\), and \(4, 2\)", lambda m: head(k=torch.ones(4, 3))),
    (WriteError, r"o has shape \(3, 4\)", lambda m: head(o=torch.ones(3, 4))),
    (WriteError, r"b_q has shape \(3,\)", lambda m: head(b_q=torch.ones(3))),
    (WriteError, "batch pos d_model", lambda m: head(stream=torch.ones(3, 4))),
    (WriteError, "v is a tensor, not ndarray", lambda m: head(v=np.ones((4, 2)))),
    (WriteError, "no finite number", lambda m: hl.analysis.run_head(m, IDS, 0, 0, Q=torch.full((32, 8), NAN))),
    (WriteError, "Q is a tensor, not str", lambda m: hl.analysis.run_head(m, IDS, 0, 0, Q="a")),
    (AttentionError, "a vector of 32 numbers", lambda m: hl.analysis.read_heads(m, "a")),
    (SiteError, "names no head", lambda m: hl.analysis.ablated_heads(m, (0,)).__enter__()),
    (SiteError, "names no head", lambda m: hl.analysis.ablated_heads(m, 3).__enter__()),
    # nodes
    (AttributionError, "no kind of node 3", lambda m: hl.analysis.nodes(m, IDS, kinds=3, **SAID)),
    (AttributionError, "under each name", lambda m: hl.analysis.nodes(m, IDS, kinds="latents", saes={"enc": sae()}, **SAID)),
    (AttributionError, "leave saes= out", lambda m: hl.analysis.nodes(m, IDS, saes={"e": (sae(), "L0.resid_post")}, **SAID)),
    (AttributionError, "in place of", lambda m: hl.analysis.nodes(m, IDS, target="L1N3 @last", **SAID)),
    (AttributionError, "in place of", lambda m: hl.attribute(m, IDS, target="L1N3 @last", answer=5)),
    (AttributionError, "what nodes", lambda m: hl.analysis.total_effects(m, IDS, 3, **SAID)),
    (AttributionError, "an address such as", lambda m: hl.analysis.downstream(m, IDS, 3)),
    (RecordError, 'Did you mean "heads"', lambda m: hl.analysis.nodes(m, IDS, **SAID).filter(kind="head")),
    (RecordError, "k=1.5", lambda m: hl.analysis.nodes(m, IDS, kinds="heads", **SAID).nlargest(1.5)),
    (SiteError, "each of 2 prompts", lambda m: hl.analysis.node_write(m, [IDS, IDS], "L0H1.pattern[2,1]")),
    # tokens of directions
    (RecordError, "k=2.5", lambda m: hl.analysis.token_direction(m, "L0N3", 2.5)),
    (RecordError, "not all of them zero", lambda m: hl.analysis.token_direction(m, ODD)),
    (RecordError, "writes or reads", lambda m: hl.analysis.top_tokens(m, "L0N3", side="wrote")),
    (RecordError, "give prompt= too", lambda m: hl.analysis.top_tokens(m, "L0N3", positions=99)),
    (LayerError, "no feature 40: the dictionary has 40", lambda m: hl.analysis.top_tokens(m, (sae(), 40))),
    (LayerError, "A feature is named by a whole number", lambda m: hl.analysis.top_tokens(m, (sae(), 1.7))),
    # units
    (DashboardError, "no finite number at 6 of 6", lambda m: hl.analysis.max_activating(m, ODD, [IDS], at="L0.resid_post")),
    (DashboardError, "gives str", lambda m: hl.analysis.max_activating(m, lambda x: "a", [IDS], at="L0.resid_post")),
    (DashboardError, "one number per token",
     lambda m: hl.analysis.max_activating(m, lambda x: x[:, :2, 0], [IDS], at="L0.resid_post")),
    (SweepError, "names no neuron", lambda m: hl.analysis.scale_neuron(m, IDS, "L0H1", **SAID)),
    (SweepError, "finite numbers", lambda m: hl.analysis.scale_neuron(m, IDS, "L0N1", "twice", **SAID)),
    (SweepError, "seed=-1", lambda m: hl.analysis.patching_metrics(m, IDS, IDS, seed=-1)),
    (RecordError, "penalty is a number above 0",
     lambda m: hl.analysis.knowledge_probe(m, [IDS] * 4, [IDS] * 4, "L0.resid_post", strength=-1)),
    (RecordError, "leave direction= out",
     lambda m: hl.analysis.knowledge_probe(m, [IDS], [IDS], "L0N3", direction=np.ones(32))),
    # bases and clouds
    (RecordError, "k=1.5", lambda m: hl.analysis.nonnegative(np.eye(3), 1.5)),
    (RecordError, "numbers", lambda m: hl.analysis.nonnegative("abc", 2)),
    (RecordError, "k=1.5", lambda m: hl.analysis.cluster_overlap(np.eye(4), list("aabb"), k=1.5)),
    (RecordError, "one for each example", lambda m: hl.analysis.cluster_overlap(np.eye(4), [1, "a", None, 2], k=1)),
    (RecordError, "no targets", lambda m: hl.analysis.cluster_overlap(np.eye(4), list("aabb"), np.zeros((0, 4)), k=1)),
    (SiteError, "mixture of experts", lambda m: hl.analysis.token_inputs(experts(), "L1N3")),
    (SiteError, "mixture of experts", lambda m: hl.analysis.top_tokens(experts(), "L1N3")),
    (SiteError, "dictionaries by site", lambda m: hl.sae.SAEs([sae()])),
]


@pytest.mark.parametrize(("error", "words", "ask"), REFUSED, ids=range(len(REFUSED)))
def test_what_makes_no_sense_is_refused_with_what_does(error, words, ask):
    standing = len(model().hooks)
    with pytest.raises(error, match=words):
        ask(model())
    assert len(model().hooks) == standing


def test_a_dictionary_that_a_registry_lacks_is_missing_in_words_and_as_a_key():
    with pytest.raises(KeyError, match='Did you mean "L0.resid_post"') as caught:
        hl.sae.SAEs({"L0.resid_post": sae()})["L1.resid_post"]
    assert isinstance(caught.value, HooklabError)


def test_whole_numbers_of_any_library_count_and_nothing_else_does():
    assert [whole("k", one) for one in (3, np.int64(3), torch.tensor(3))] == [3, 3, 3]
    for bad in (True, 3.0, "3", None, 0, torch.tensor(3.0), np.ones(2)):
        with pytest.raises(SweepError, match="1 or more"):
            whole("k", bad)
    with pytest.raises(SweepError, match="from 0 to 4"):
        whole("k", 5, 0, 4)
    assert listed("L0.z") == ["L0.z"] and listed(("L0.z", "L1.z")) == ["L0.z", "L1.z"]


def test_one_answer_may_be_a_number_of_any_library():
    wanted = hl.lens(model(), IDS, answer=5).values
    for one in (np.int64(5), torch.tensor(5), np.array([5]), [5]):
        np.testing.assert_array_equal(hl.lens(model(), IDS, answer=one).values, wanted)


def test_one_base_prompt_is_patched_into_each_of_several_clean_ones():
    others = [IDS[::-1], IDS[1:] + [7]]
    found = hl.analysis.patching_metrics(model(), IDS, others, positions="last", **SAID)
    for row, other in enumerate(others):
        alone = hl.analysis.patching_metrics(model(), IDS, other, positions="last", **SAID)
        np.testing.assert_allclose(found.examples[row], alone.values, atol=1e-5)


def test_a_closed_model_runs_no_analysis():
    with hl.load(build("gpt2"), verify=False) as gone:
        pass
    for ask in (lambda: hl.lens(gone, IDS, answer=5), lambda: hl.analysis.decompose(gone, IDS),
                lambda: hl.analysis.write_heads(gone, IDS), lambda: hl.analysis.nodes(gone, IDS, **SAID),
                lambda: hl.analysis.run_head(gone, IDS, 0, 1)):
        with pytest.raises(TraceError, match="closed"):
            ask()


# Interruptions ------------------------------------------------------------------------------------------------------------


def interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


INTERRUPTED: list[Ask] = [
    lambda m: hl.analysis.nodes(m, IDS, interrupt), lambda m: hl.analysis.scale_neuron(m, IDS, "L0N3", metric=interrupt),
    lambda m: hl.analysis.train_tuned_lens(m, [IDS, IDS[:3]], steps=3, progress=interrupt),
    lambda m: hl.analysis.max_activating(m, interrupt, [IDS], at="L0.resid_post"),
    lambda m: hl.analysis.patching_metrics(m, IDS, IDS[::-1], progress=interrupt, **SAID),
    lambda m: m.run("prompt {ids}\nsae enc = {sae} at L0.resid_post error=drop\nmetric m = {m}\nattribute enc.F* with ig",
                    ids=IDS, sae=sae(), m=interrupt)]


@pytest.mark.parametrize("ask", INTERRUPTED, ids=range(len(INTERRUPTED)))
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_an_interruption_in_a_callback_leaves_the_model_and_the_modes_of_torch_as_they_were(ask, mode):
    hf, before = model().hf, model().capture(IDS, "logits")["logits"]

    def state() -> list[Any]:
        hooks = sum(len(one._forward_hooks) + len(one._forward_pre_hooks) + len(one._backward_hooks) for one in hf.modules())
        return [hooks, len(model().hooks), torch.is_grad_enabled(), torch.is_inference_mode_enabled(), hf.training,
                hf.config._attn_implementation, torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(),
                [(one.requires_grad, one.grad is None) for one in hf.parameters()]]

    with mode():
        known = state()
        with pytest.raises(KeyboardInterrupt):
            ask(model())
        assert state() == known
    assert torch.equal(model().capture(IDS, "logits")["logits"], before)
