"""Every analysis on every kind of architecture, each against something that it has to be whatever the model is.

`ROWS` is the table: a name, and a check that calls the analysis and compares it with values of the hand-written transformer,
with `transformers`' own, or with an identity. A new analysis is a new row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from reference import reference
from tiny_models import build

import hooklab as hl

FAMILIES = ("gpt2", "llama", "gpt_neox", "gemma2", "phi3")
IDS = [8, 12, 25, 9, 12, 30, 8, 41]
OTHER = [8, 12, 77, 9, 12, 30, 8, 41]
RAGGED = [IDS, [9, 9, 30], [8, 13, 25, 9, 13]]
RIGHT, WRONG = 17, 23
FINAL = {"gpt2": "transformer.ln_f", "llama": "model.norm", "gpt_neox": "gpt_neox.final_layer_norm", "gemma2": "model.norm",
         "phi3": "model.norm"}

ROWS: dict[str, Callable[[str], None]] = {}


def row(check: Callable[[str], None]) -> Callable[[str], None]:
    """A row of the matrix."""
    ROWS[check.__name__] = check
    return check


@cache
def opened(family: str) -> Any:
    return hl.load(build(family), verify=False)


@cache
def sites(family: str, ids: tuple[int, ...] = tuple(IDS)) -> Any:
    """Every site of a prompt, by the hand-written transformer."""
    return reference(build(family), torch.tensor([ids]))


def logits(family: str, ids: Any = IDS) -> torch.Tensor:
    """The last token's logits, by `transformers`."""
    with torch.no_grad():
        found: torch.Tensor = build(family)(torch.tensor([ids])).logits[0, -1].double()
    return found


def difference(family: str, ids: Any = IDS) -> float:
    found = logits(family, ids)
    return float(found[RIGHT] - found[WRONG])


def said(family: str, stream: torch.Tensor) -> float:
    """The difference that a last stream [batch pos d_model] would give, by the modules of `transformers`."""
    hf = build(family)
    with torch.no_grad():
        found = hf.get_output_embeddings()(hf.get_submodule(FINAL[family])(stream))[0, -1].double()
    cap = getattr(hf.config, "final_logit_softcapping", None)
    found = torch.tanh(found / cap) * cap if cap else found
    return float(found[RIGHT] - found[WRONG])


def near(found: Any, expected: Any, tolerance: float = 2e-5) -> None:
    found = np.asarray(found.detach() if isinstance(found, torch.Tensor) else found, np.float64)
    expected = np.asarray(expected.detach() if isinstance(expected, torch.Tensor) else expected, np.float64)
    assert found.size
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * max(1.0, float(abs(expected).max())))


def writes(family: str, name: str) -> torch.Tensor:
    return torch.stack([sites(family)[f"L{layer}.{name}"][0] for layer in range(2)]).double()


# Attention ---------------------------------------------------------------------------------------------------------------


@row
def scores_of_heads(family):
    found = hl.analysis.head_scores(opened(family), [IDS], "previous")
    near(found.values, writes(family, "pattern").diagonal(-1, -2, -1).mean(-1))


@row
def entropy_of_attention(family):
    pattern = writes(family, "pattern")
    near(hl.analysis.attention_entropy(opened(family), [IDS]).values, -torch.xlogy(pattern, pattern).sum(-1).mean(-1))


@row
def most_attended_tokens(family):
    found = hl.analysis.top_attended(opened(family), IDS, "L1H2", k=2)
    expected = writes(family, "pattern")[1, 2].topk(2).values
    near(np.nan_to_num(found.values), expected)


@row
def masses_of_attention(family):
    pattern = writes(family, "pattern")
    near(hl.analysis.attention_mass(opened(family), [IDS], "@4:8", "@0:3").values, pattern[:, :, 4:8, 0:3].sum(-1).mean(-1))


@row
def shares_of_attention(family):
    near(hl.analysis.attention_shares(opened(family), RAGGED, "last", {"first": "0", "rest": "1:"}).values.sum(0), 1)


@row
def rollout_of_attention(family):
    mixed = 0.5 * writes(family, "pattern").mean(1) + 0.5 * torch.eye(len(IDS))
    near(hl.analysis.attention_rollout(opened(family), IDS).values[-1], mixed[1] @ mixed[0])


@row
def flow_of_attention(family):
    rolled = hl.analysis.attention_rollout(opened(family), IDS).values[-1, -1]
    assert (hl.analysis.attention_flow(opened(family), IDS).values >= rolled - 1e-6).all()


@row
def heads_that_write(family):
    heads = writes(family, "result")
    if family == "gemma2":  # a norm stands behind attention
        heads = heads * (writes(family, "attn_out") / heads.sum(2))[:, :, None]
    near(hl.analysis.write_heads(opened(family), [IDS]).values, heads.norm(dim=-1).mean(1))


@row
def heads_that_read(family):
    model, along = opened(family), torch.randn(32, generator=torch.Generator().manual_seed(1))
    near(hl.analysis.read_heads(model, along).values, hl.analysis.read_heads(model, 3 * along).values)
    assert (hl.analysis.read_heads(model, along).values > 0).all()


@row
def heads_that_are_alike(family):
    z = torch.stack([sites(family)[f"L{layer}.pattern"][0] for layer in range(2)]).double()
    found = hl.analysis.head_redundancy(opened(family), [IDS], "pattern").values
    near(found[1, 0, 3], 1 - 0.5 * (z[1, 0] - z[1, 3]).abs().sum(-1).mean())


# Weights -----------------------------------------------------------------------------------------------------------------


@row
def composition_of_heads(family):
    model = opened(family)
    found = hl.analysis.composition(model, "v", fold=False)
    first, second = model.W.OV(0, 1), model.W.OV(1, 2)
    dense = [(one.left @ one.right).double() for one in (first, second)]
    expected = (dense[0] @ dense[1]).norm() / dense[0].norm() / dense[1].norm()
    at = found.coords["sender"].index("L0H1"), found.coords["receiver"].index("L1H2.v")
    near(found.values[at], expected, 1e-4)


@row
def relations_of_tokens(family):
    u, strengths, v = hl.analysis.relations(opened(family), 1, 2, top=opened(family).facts.d_head, fold=False)
    product = opened(family).W.QK(1, 2)
    near((u * strengths[:, None]).T @ v, product.left @ product.right, 1e-4)


@row
def neurons_read_and_write(family):
    found, values = hl.analysis.mlp_basis(opened(family), 1), sites(family)
    name = "L1.mlp_pre_linear" if "L1.mlp_pre_linear" in values else "L1.mlp_pre"
    near(values["L1.ln2"][0] @ found.reads.T + found.b_reads, values[name][0], 1e-4)
    if family != "gemma2":  # there a norm stands behind the MLP
        near(values["L1.mlp_post"][0] @ found.writes + found.b_writes, values["L1.mlp_out"][0], 1e-4)


@row
def tokens_of_a_direction(family):
    model, along = opened(family), torch.randn(32, generator=torch.Generator().manual_seed(1))
    found = hl.analysis.token_direction(model, along, k=3)
    assert len(found.values) == 3 and (np.diff(found.values) <= 0).all()


# The stream --------------------------------------------------------------------------------------------------------------


@row
def projections_of_the_stream(family):
    from hooklab.analysis.stream import stream

    along = torch.randn(32, generator=torch.Generator().manual_seed(1))
    found = stream(opened(family), IDS, direction=along)
    near(found.values.sum(0), sites(family)["L1.resid_post"][0].double() @ along.double(), 1e-4)


@row
def parts_of_the_stream(family):
    found = hl.analysis.decompose(opened(family), IDS, "L1.resid_post", positions="last", by="heads")
    near(found.vectors.sum(0)[0], sites(family)["L1.resid_post"][0, -1], 1e-4)


@row
def what_a_block_writes(family):
    found = hl.analysis.block_parts(opened(family), IDS, 1, positions="last")
    near(found["from_prev"][0], sites(family)["L1.resid_pre"][0, -1])
    near(found["from_attn"][0] + found["from_mlp"][0], (sites(family)["L1.attn_out"] + sites(family)["L1.mlp_out"])[0, -1])


@row
def movement_of_the_stream(family):
    start, end = (sites(family)[f"L1.resid_{word}"][0].double() for word in ("pre", "post"))
    found = hl.analysis.movement(opened(family), IDS, "L1.resid_pre", "L1.resid_post")
    near(found.cosine.values, torch.nn.functional.cosine_similarity(start, end, dim=-1))


@row
def circulation_of_the_stream(family):
    found = hl.analysis.circulation(opened(family), IDS)
    near(found.attn.values[1], sites(family)["L1.attn_out"][0].norm(dim=-1))


@row
def moments_of_the_stream(family):
    moments = hl.analysis.Moments()
    for ids in RAGGED:
        moments.add(opened(family).capture([ids], "L1.resid_pre")["L1.resid_pre"][0])
    whole = torch.cat([sites(family, tuple(ids))["L1.resid_pre"][0] for ids in RAGGED]).double().numpy()
    near(moments.covariance, np.cov(whole.T), 1e-4)


@row
def sparsity_of_neurons(family):
    values = opened(family).capture([IDS], "L1.mlp_post")["L1.mlp_post"]
    found = hl.analysis.sparsity(values, threshold=0.05)
    near(found.silent.values, (sites(family)["L1.mlp_post"][0].abs() <= 0.05).double().mean(0))


@row
def neurons_of_many_kinds(family):
    assert hl.analysis.weight_polysemanticity(opened(family), 1).values.shape == (opened(family).facts.d_mlp,)


@row
def probes(family):
    prompts = [[a, 12, b] for a in range(20, 44) for b in (30, 31)]
    acts = opened(family).capture(prompts, "L1.resid_post", at="last")
    found = hl.analysis.probe(acts, [prompt[-1] for prompt in prompts])
    assert found.accuracy.values.min() > 0.9, "the last token itself is in the stream"


@row
def geometry_of_classes(family):
    vectors = {str(b): torch.stack([sites(family, (a, 12, b))["L1.resid_post"][0, -1] for a in range(20, 26)])
               for b in (30, 31)}
    units = {name: (one / one.norm(dim=-1, keepdim=True)).double() for name, one in vectors.items()}
    found = hl.analysis.geometry.similarity({name: opened(family).capture([[a, 12, int(name)] for a in range(20, 26)],
                                                                          "L1.resid_post", at="last")["L1.resid_post"]
                                             for name in vectors})
    near(found.values[0, 1], np.median((units["30"] @ units["31"].T).numpy()), 1e-4)


# Causes ------------------------------------------------------------------------------------------------------------------

PAIR: dict[str, Any] = dict(clean=IDS, corrupt=OTHER, answer=RIGHT, wrong=WRONG)


@row
def sweeps(family):
    found = hl.sweep(opened(family), sites="L*.resid_pre", positions="each", normalise=False, **PAIR)
    near(found.values[0, 2], difference(family) - difference(family, OTHER), 1e-4)
    near(found.values[:, 0], 0, 1e-4)


@row
def patching_of_paths(family):
    model = opened(family)
    found = hl.path_patch(model, receiver="logits", senders="L1.attn_out", mlps="freeze", normalise=False, **PAIR)
    clean, corrupt = sites(family), sites(family, tuple(OTHER))
    change = corrupt["L1.attn_out"] - clean["L1.attn_out"]
    near(found.values, said(family, clean["L1.resid_post"] + change) - difference(family), 1e-4)


@row
def tracing_of_causes(family):
    found = hl.causal_trace(opened(family), IDS, subject="@2", answer=RIGHT, samples=2, seed=0)
    assert np.isfinite(found.values).all() and found.values.shape[0] == 2


@row
def attribution(family):
    found = hl.attribute(opened(family), IDS, "L1.resid_post", answer=RIGHT, wrong=WRONG, method="grad", positions="each")
    leaf = build(family)
    kept: list[torch.Tensor] = []
    blocks = next(m for m in leaf.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 2)

    def keep(_: Any, __: Any, out: Any) -> None:
        kept.append(out[0] if isinstance(out, tuple) else out)
        kept[-1].retain_grad()

    blocks[1].register_forward_hook(keep)
    said = leaf(torch.tensor([IDS])).logits[0, -1]
    (said[RIGHT] - said[WRONG]).backward()
    assert kept[0].grad is not None
    near(found.values.reshape(-1), (kept[0] * kept[0].grad)[0].sum(-1), 1e-4)


@row
def edges_between_components(family):
    found = hl.analysis.edges(opened(family), **PAIR)
    assert found.values.size and np.isfinite(found.values[~np.isnan(found.values)]).any()


@row
def nodes_of_a_pass(family):
    table = hl.analysis.nodes(opened(family), IDS, kinds=("tokens", "heads", "mlps", "biases"), answer=RIGHT, wrong=WRONG)
    assert len(table) > 8 and float(table.value) == pytest.approx(difference(family), abs=1e-4)


@row
def neurons_that_are_scaled(family):
    near(hl.analysis.scale_neuron(opened(family), IDS, "L1N3", by=1.0, answer=RIGHT, wrong=WRONG).values, 0)


@row
def lens_of_places(family):
    found = hl.lens(opened(family), IDS, "L1.resid_post", positions="last", answer=RIGHT, wrong=WRONG, value="logit_diff")
    near(found.values.reshape(-1), difference(family), 1e-4)


@row
def early_exits(family):
    found = hl.analysis.early_exit(opened(family), IDS, answer=RIGHT, wrong=WRONG, value="logit_diff")
    near(found.values.reshape(-1)[-1], difference(family), 1e-4)


@row
def lens_of_the_last_layer(family):
    run = opened(family).run("prompt p = {ids}\nrun l on p:\n    lens L1.resid_post @last top=100", ids=IDS)
    near(np.sort(run.scores["l.lens"].values.reshape(-1)), logits(family).softmax(0).sort().values, 1e-4)


# Surgery -----------------------------------------------------------------------------------------------------------------


@row
def surgery_of_layers(family):
    with hl.analysis.surgery.skip(opened(family), 1) as shorter:
        stream = shorter.capture([IDS], "L1.resid_post")["L1.resid_post"][0]
    near(stream, sites(family)["L1.resid_pre"][0])


@row
def pruning_of_heads(family):
    with hl.analysis.prune(opened(family), heads=[(1, 2)]) as pruned:
        found = pruned.capture([IDS], "L1.result")["L1.result"][0]
    assert (found[:, 2] == 0).all()
    near(found[:, [0, 1, 3]], sites(family)["L1.result"][0][:, [0, 1, 3]])


@row
def merging_of_heads(family):
    with hl.analysis.merged_heads(opened(family), 1, (0, 3)) as merged:
        found = merged.capture([IDS], "L1.z")["L1.z"][0]
    near(found[:, 0], sites(family)["L1.z"][0][:, [0, 3]].mean(1))


@row
def functions_on_sites(family):
    model, seen = opened(family), []
    with model.hook("L*.z", lambda value, _: seen.append(value.detach().clone())):
        model.capture([IDS], "logits")
    near(torch.stack([one[0] for one in seen]), writes(family, "z"))


# Dictionaries ------------------------------------------------------------------------------------------------------------


@cache
def autoencoder(family: str) -> Any:
    draw = torch.Generator().manual_seed(3)
    encoder = torch.randn(32, 64, generator=draw) / 6
    return hl.sae.SAE(encoder, torch.zeros(64), encoder.T.contiguous(), torch.zeros(32))


@row
def splicing_of_dictionaries(family):
    edits = {"L1.resid_pre": hl.sae.splice(autoencoder(family))}
    near(opened(family).capture([IDS], "logits", edits=edits)["logits"][0, -1], logits(family), 1e-4)


@row
def contexts_of_features(family):
    board = hl.analysis.feature_dashboard(opened(family), "L1.mlp_post", [IDS], features=[3])
    near(board.high[0], sites(family)["L1.mlp_post"][0, :, 3].max())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ROWS)
def test_every_analysis_holds_on_every_kind_of_architecture(name, family):
    ROWS[name](family)
