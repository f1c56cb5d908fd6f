"""Specs that once gave a wrong number in silence, or a bare Python error; a hand-written transformer says what is right."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
import torch
from cases_reads import unembed
from oracle import CLEAN, RAGGED, RIGHT, WRONG, Oracle, add, change, diff, draws, put, rows, then, times, zero
from tiny_models import build, tokenizer

import hooklab as hl
from hooklab.errors import HooklabWarning
from hooklab.problems import SpecError
from hooklab.sae import Dictionary

ONE = "prompt {clean}\nanswer {right} vs {wrong}\nmetric logit_diff\n"
TWO = "prompt clean = {clean}\nprompt dirty = {dirty}\nanswer {right} vs {wrong}\nmetric logit_diff\n"
LAST = [-1]
VEC = draws(32, seed=1)
FAMILIES = ("gpt2", "llama")


@cache
def oracle(family="gpt2"):
    return Oracle(family)


@cache
def model(family="gpt2"):
    return hl.load(oracle(family).hf, tokenizer=tokenizer())


@pytest.fixture(scope="module", autouse=True)
def closed():
    yield
    for family in FAMILIES:
        model(family).close()


def run(text, family="gpt2", rows=None, **values):
    return model(family).run(text, values={**oracle(family).given, **values}, rows=rows)


def close(found, expected):
    found, expected = (torch.as_tensor(x).double() for x in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


def alone(prompts, edits, family="gpt2"):
    """Last logits of prompts, each run by itself."""
    return oracle(family).one_by_one(prompts, edits)


# Cells that share a pass ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", [None, 1])
@pytest.mark.parametrize("save", ["", "save L1.resid\n"], ids=["metrics only", "with activations"])
def test_lines_on_one_site_keep_their_order_when_only_the_first_is_swept(family, rows, save):
    found = run(ONE + "scale L0.mlp by each [1, 2, -1, 0.5]\nsteer L0.mlp by {vec}\n" + save, family, rows)
    o = oracle(family)
    close(found.scores["hooked.logit_diff"].values,
          [diff(o.logits(edits={"L0.mlp_out": then(times(c), add(VEC))})).item() for c in (1, 2, -1, 0.5)])


@pytest.mark.parametrize("rows", [None, 1])
@pytest.mark.parametrize("save", ["", "    save logits\n"], ids=["metrics only", "with activations"])
@pytest.mark.parametrize("line", ["patch L1.attn from a", "set L1.attn to a.L1.attn"])
def test_each_cell_takes_from_the_cell_that_answers_to_it(rows, save, line):
    found = run(f"{ONE}run a on main:\n    zero each L*.mlp\nrun b on main:\n    {line}\n    scale each L*.mlp by 1\n{save}",
                rows=rows)
    o = oracle()
    close(found.scores["b.logit_diff"].values, [
        diff(o.logits(edits={"L1.attn_out": put(o("clean", {f"L{n}.mlp_out": zero()})["L1.attn_out"])})).item()
        for n in range(2)])


def test_a_source_that_is_swept_over_fewer_axes_is_matched_by_axis():
    found = run(ONE + "run a on main:\n    zero each L*.mlp\nrun b on a:\n    patch L1.attn from a\n"
                "    scale L0.attn by each [0, 1, 2]\n    save logits\n").data["b.logits"]
    o = oracle()
    for n in range(2):
        hurt = {f"L{n}.mlp_out": zero()}
        kept = put(o("clean", hurt)["L1.attn_out"])
        for i, c in enumerate((0, 1, 2)):
            close(found[n, i], o.logits(edits={**hurt, "L0.attn_out": times(c), "L1.attn_out": kept}))


@pytest.mark.parametrize("line", ["patch L1.attn from a", "steer L1.attn by a.L0.resid @last"])
def test_a_source_that_is_swept_over_something_else_is_refused(line):
    text = f"{ONE}run a on main:\n    zero each L*.mlp\nrun b on main:\n    {line}\n    scale L0.mlp by each [1, 2]\n"
    with pytest.raises(SpecError, match="a is swept over layer") as caught:
        run(text)
    assert caught.value.problems[0].line == 7


def test_kl_to_a_sweep_is_taken_cell_by_cell_or_refused():
    text = ONE + "metric kl(a)\nrun a on main:\n    zero each L*.mlp\nrun b on {on}:\n    scale L0.attn by each [0, 1, 2]\n"
    with pytest.raises(SpecError, match="swept over axes that b lacks"):
        run(text.replace("{on}", "main"))
    found = run(text.replace("{on}", "a")).scores["b.kl"].values
    o = oracle()
    for n in range(2):
        plain = o.logits(edits={f"L{n}.mlp_out": zero()})[0, -1].double().log_softmax(-1)
        for i, c in enumerate((0, 1, 2)):
            other = o.logits(edits={f"L{n}.mlp_out": zero(), "L0.attn_out": times(c)})[0, -1].double().log_softmax(-1)
            assert found[n, i] == pytest.approx(float((plain.exp() * (plain - other)).sum()), abs=1e-5)


def test_runs_with_different_numbers_of_samples_do_not_disturb_each_others_draws():
    text = (ONE + "run a on main:\n    noise L0.resid by 1 samples=2\n    save L0.resid as x\n"
            "run b on a:\n    noise L1.resid by 1 samples=4\n    save L0.resid as x\n")
    together, apart = run(text), run(text, rows=1)
    for key in ("a.x", "b.x"):
        close(together.data[key], apart.data[key])
    drawn = together.data["b.x"].flatten(1)
    assert (torch.cdist(drawn, drawn) + torch.eye(4) * 100).min() > 1  # four draws, no two alike


def test_a_variable_has_one_value_in_a_stack_of_runs():
    found = run(ONE + "sweep c in [1, 3]\nrun a on main:\n    scale L0.mlp by c\nrun b on a:\n    scale L1.mlp by c\n")
    assert found.scores["b.logit_diff"].axes == ("c",)
    close(found.scores["b.logit_diff"].values, [
        diff(oracle().logits(edits={"L0.mlp_out": times(c), "L1.mlp_out": times(c)})).item() for c in (1, 3)])


def test_three_axes_of_one_kind_have_three_names():
    text = ONE + "run a on main:\n    zero each L*.mlp\n    zero each L*.attn\nrun b on a:\n    scale each L*.resid by 1\n"
    assert run(text).scores["b.logit_diff"].axes == ("layer", "layer_2", "layer_3")


def test_a_sweep_over_a_tensor_is_labelled_by_its_numbers():
    found = run(ONE + "sweep c in {cs}\nscale L0.mlp by c\n", cs=torch.tensor([0.0, 0.5, 2.0])).scores["hooked.logit_diff"]
    assert found.coords["c"] == (0.0, 0.5, 2.0)
    close(found.values, [diff(oracle().logits(edits={"L0.mlp_out": times(c)})).item() for c in (0, 0.5, 2)])
    found = run(ONE + "scale L0.mlp by each {cs}\n", cs=np.array([0.0, 0.5], dtype=np.float32)).scores["hooked.logit_diff"]
    assert found.coords["value"] == (0.0, 0.5)


def test_places_that_change_along_a_sweep_are_refused_rather_than_mislabelled():
    with pytest.raises(SpecError, match="change with a sweep variable"):
        run(ONE + "sweep l in [0, 1]\nzero each L[l,-1].mlp, L[l].attn\n")


# Values -----------------------------------------------------------------------------------------------------------------


def test_sigma_is_the_spread_of_each_place_for_itself():
    o = oracle()
    edits = {f"L{n}.mlp_out": times(o()[f"L{n}.mlp_out"].std(unbiased=False)) for n in range(2)}
    close(run(ONE + "scale L*.mlp by sigma\nsave logits\n").data["hooked.logits"], o.logits(edits=edits))


def test_sigma_of_attention_is_that_of_the_edges_that_are_not_masked():
    seen = torch.ones(6, 6, dtype=torch.bool).tril().expand(1, 4, 6, 6)
    for site in ("pattern", "scores"):
        spread = oracle()()[f"L0.{site}"]
        found = run(ONE + f"steer L0.{site} by 0 * sigma + sigma / sigma\nsave L0.{site}\n").data[f"hooked.L0.{site}"]
        close(found[seen], spread[seen] + 1)
        found = run(ONE + f"steer L0.{site} by sigma\nsave L0.{site}\n").data[f"hooked.L0.{site}"]
        close((found - spread)[seen], spread[seen].std(unbiased=False).expand(int(seen.sum())))


@pytest.mark.parametrize("line", ["zero L0.scores", "set L0.scores to 0", "scale L0.scores by 0"])
def test_scores_that_are_masked_stay_masked(line):
    uniform = torch.ones(6, 6).tril() / torch.arange(1, 7)[:, None]
    close(run(ONE + line + "\nsave L0.pattern\n").data["hooked.L0.pattern"], uniform.expand(1, 4, 6, 6))


def test_places_that_overlap_are_changed_once():
    o = oracle()
    found = run(ONE + "scale L0H1, L0H*, L1.resid, L1.resid[3] by 2\nsave logits\n").data["hooked.logits"]
    close(found, o.logits(edits={"L0.result": times(2.0), "L1.resid_post": times(2.0)}))


def test_a_saved_part_of_a_site_is_patched_into_its_own_heads():
    tab = {"L0H[1,3].result": draws(1, 6, 2, 32), "L1N[2,5].mlp_post": draws(1, 6, 2)}
    found = run(ONE + "patch L0H[1,3] from {tab}\npatch L1N[2,5] @last from {tab}\nsave L0.result, L1.mlp_post\n", tab=tab)
    close(found.data["hooked.L0.result"][:, :, [1, 3]], tab["L0H[1,3].result"])
    close(found.data["hooked.L0.result"][:, :, [0, 2]], oracle()()["L0.result"][:, :, [0, 2]])
    close(found.data["hooked.L1.mlp_post"][:, -1, [2, 5]], tab["L1N[2,5].mlp_post"][:, -1])


def test_means_of_features_are_of_features_and_not_of_the_stream():
    o = oracle()
    sae = Dictionary(draws(32, 8, seed=1), draws(8), draws(8, 32, seed=2), draws(32, seed=3))
    head = TWO + "prompt batch = {batch}\nsae enc = {sae} at L0.resid_post\nrun on clean:\n    save logits\n"
    features = sae.encode(o("batch")["L0.resid_post"])
    for line, mean, at in (
            ("ablate enc.F* with mean over batch", features.mean((0, 1)), slice(None)),
            ("ablate enc.F* @last with mean over batch per=pos", features[:, -1].mean(0), slice(-1, None))):
        def edit(x, mean=mean, at=at):
            before = sae.encode(x)
            after = before.clone()
            after[:, at] = mean
            return x + sae.decode(after) - sae.decode(before)
        close(run(head + f"    {line}\n", sae=sae).data["hooked.logits"], o.logits(edits={"L0.resid_post": edit}))


def test_heads_are_not_taken_for_positions():
    with pytest.raises(SpecError, match="takes a value of shape"):
        run(ONE + "steer L0.resid @0:4 by mean(main.L0.result)\n")


def test_a_flat_row_of_ragged_examples_is_no_value():
    with pytest.raises(SpecError, match="different numbers of tokens"):
        run("prompt few = {few}\nprompt clean = {clean}\nrun on clean:\n    steer L0.resid by few.L0.resid\n",
            few=[CLEAN[:4], CLEAN[:2]])


# Ragged batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_one_prompt_patched_into_ragged_ones_is_aligned_with_each(family):
    o = oracle(family)
    head = "prompt clean = {clean}\nprompt ragged = {few}\nrun on ragged:\n    patch L0.resid @last from clean align="
    few = [CLEAN, [8, 12], [9, 12, 30]]
    for how, at in (("index", (5, 1, 2)), ("token", (5, 1, 5))):
        places = dict(zip(map(tuple, few), at, strict=True))
        found = run(head + how + "\n    save logits @last\n", family, few=few).data["hooked.logits"][:, 0]
        close(found, alone(few, lambda ids, places=places: {"L0.resid_post": put(
            o()["L0.resid_post"][:, [places[tuple(ids)]]], LAST)}, family))


def test_a_mean_at_a_position_is_taken_at_that_position_of_every_ragged_example():
    o = oracle()
    mean = torch.stack([o(ids)["L0.mlp_out"][0, 0] for ids in RAGGED]).mean(0)
    found = run(ONE + "ablate L0.mlp @first with mean over {ragged} per=pos\nsave logits\n").data["hooked.logits"]
    close(found, o.logits(edits={"L0.mlp_out": put(mean, [0])}))


@pytest.mark.parametrize("line", ["patch L0.pattern @last from clean", "freeze L0.pattern @last to clean",
                                  "ablate L0.pattern @last with mean over clean"])
def test_attention_is_not_carried_between_prompts_of_other_lengths(line):
    with pytest.raises(SpecError, match="keys in clean|one length"):
        run(f"prompt clean = {{clean}}\nprompt ragged = {{ragged}}\nrun on ragged:\n    {line}\n")


def test_kl_to_another_prompt_reads_the_position_in_both():
    o = oracle()
    found = run("prompt clean = {clean}\nprompt longer = {longer}\nmetric kl(clean) @[1, last]\nrun a on longer:\n"
                "    zero L0.mlp\n").metrics["a"]["kl"]
    p = o()["logits"][0, [1, -1]].double().log_softmax(-1)
    q = o("longer", {"L0.mlp_out": zero()})["logits"][0, [1, -1]].double().log_softmax(-1)
    assert found == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), abs=1e-5)


# Readings ---------------------------------------------------------------------------------------------------------------


def test_the_lens_averages_positions_before_it_names_the_likeliest_token():
    o = oracle()
    found = run(ONE + "lens L*.resid @[1, 2] top=2\n").scores["main.lens"]
    probs = torch.stack([unembed(o, o()[f"L{n}.resid_post"]).softmax(-1)[0, 1:3].mean(0) for n in range(2)])
    close(found.values, probs.topk(2).values)
    names = [[tokenizer().decode([i]) for i in row] for row in probs.topk(2).indices.tolist()]
    assert found.labels.tolist() == names


@pytest.mark.parametrize("site", ["q", "v", "pattern"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_path_may_start_inside_a_head(family, site):
    """Its own weighted values must not be held, or nothing of it gets out."""
    o = oracle(family)
    group = o.heads // o.kv_heads if site == "v" else 1
    others = [h for h in range(o.heads) if h // group != 1]
    held = {"L0.z": put(o()["L0.z"], heads=others), "L1.z": put(o()["L1.z"])}
    theirs = o("dirty")[f"L0.{site}"]
    edit = rows(lambda x: theirs, heads=[1]) if site == "pattern" else put(theirs, heads=[1])
    first = o("clean", {**held, f"L0.{site}": edit})["L1.q"]
    found = run(TWO + f"run on clean:\n    patch L0H1.{site} -> L1H2.q from dirty\n    save logits\n", family)
    close(found.data["hooked.logits"], o.logits(edits={"L1.q": put(first, heads=[2])}))
    assert (found.data["hooked.logits"] - o.logits()).abs().max() > 1e-3


def test_gradients_are_taken_in_inference_mode_too():
    text = ONE + "zero L0H1\nattribute L*.mlp with grad\nattribute embed with ig steps=2\n"
    plain = run(text).scores
    with torch.inference_mode():
        inside = run(text).scores
    for key in ("hooked.attribute", "hooked.attribute_2"):
        close(inside[key].values, plain[key].values)
    up, down = (run(ONE + f"zero L0H1\nscale L*.mlp by {c}\n").metrics["hooked"]["logit_diff"] for c in (1.003, 0.997))
    assert (up - down) / 0.006 == pytest.approx(float(np.sum(plain["hooked.attribute"].values)), rel=0.02, abs=0.005)


def test_direct_shares_are_refused_where_every_addition_is_normed():
    opened = hl.load(build("opt_postnorm"), tokenizer=tokenizer())
    try:
        with pytest.raises(SpecError, match="norm after every addition"):
            opened.run(ONE + "attribute L*.mlp with dla\n", values=oracle().given)
    finally:
        opened.close()


def test_a_model_in_training_mode_is_said_to_drop_out():
    hf = build("gpt2").train()
    opened = hl.load(hf, tokenizer=tokenizer())
    try:
        with pytest.warns(HooklabWarning, match="training mode"):
            opened.run(ONE, values=oracle().given)
        hf.eval()
        with warnings.catch_warnings():
            warnings.simplefilter("error", HooklabWarning)
            opened.run(ONE, values=oracle().given)
    finally:
        opened.close()


# Claims, metrics and prompts --------------------------------------------------------------------------------------------


def test_the_largest_of_several_numbers_is_looked_for_among_all_of_them():
    run(ONE + "zero L0.mlp\nexpect max(main.logit_diff, 1000) > 999\n")
    with pytest.raises(SpecError, match="does not hold"):
        run(ONE + "zero L0.mlp\nexpect max(main.logit_diff, 1000) < 999\n")


def test_a_metric_in_python_may_give_numpy_in_arithmetic():
    found = run(ONE + "metric m = {last} - logit\nzero L0.mlp\n", last=lambda out: out.logits[:, -1, WRONG].numpy())
    assert found.metrics["main"]["m"] == pytest.approx(-float(diff(oracle().logits())), abs=1e-5)


def test_two_random_prompts_are_not_the_same():
    text = "prompt a = random(12)\nprompt b = random(12)\nprompt c = random(12, seed=3)\nprompt d = random(12, seed=3)\n"
    plan = model().plan(text)
    ids = {name: plan.prompts[name].tokens.ids for name in "abcd"}
    assert ids["a"] != ids["b"] and ids["c"] == ids["d"]
    again = model().plan("prompt z = random(12)\n" + text)
    assert again.prompts["a"].tokens.ids == ids["a"]


# Options ----------------------------------------------------------------------------------------------------------------


def test_a_window_reaches_beyond_the_layers_that_are_named():
    o = oracle()
    both = o.logits(edits={f"L{n}.mlp_out": times(0.5) for n in range(2)})
    close(run(ONE + "scale each L[1].mlp by 0.5 window=2\nsave logits\n").data["hooked.logits"], both)
    close(run(ONE + "scale L1.mlp by 0.5 window=2\nsave logits\n").data["hooked.logits"], both)
    found = run(ONE + "sweep l in 0:2\nscale L[l].mlp by 0.5 window=2\nsave logits\n").data["hooked.logits"]
    close(found, torch.stack([o.logits(edits={"L0.mlp_out": times(0.5)}), both]))


def test_an_option_may_be_a_sweep_variable():
    found = run(ONE + "sweep c in [0, -0.5]\nclamp L0.mlp min=c\nsave logits\n").data["hooked.logits"]
    close(found, torch.stack([oracle().logits(edits={"L0.mlp_out": change(lambda x, c=c: x.clamp(min=c))})
                              for c in (0, -0.5)]))


REFUSED = {
    "a window over a list": (ONE + "zero each L0.mlp, L1.attn window=2", "window="),
    "a window over layers at once": (ONE + "zero L*.mlp window=2", "window="),
    "mlps without a path": (TWO + "run on dirty:\n    patch L0.mlp from clean mlps=freeze", "mlps="),
    "align with a value": (ONE + "patch L0.mlp from {vec} align=token", "align="),
    "per without a mean": (ONE + "ablate L0.mlp with resample over {batch} per=all", "per="),
    "a seed without draws": (ONE + "ablate L0.mlp with zero seed=1", "seed="),
    "steps without a path": (ONE + "attribute L0.mlp with grad steps=5", "steps="),
    "a mean of attention over all tokens": (ONE + "ablate L0.pattern with mean per=all", "keys"),
    "a position of a score": (ONE + "score L*H* @last with previous", "position"),
    "a position of the loss": (ONE + "metric l = loss() @2", "position"),
    "one place saved at two positions": (ONE + "save L0.mlp @1\nsave L0.mlp @2", "twice"),
    "one place saved at two positions of a sweep": (ONE + "zero each L*.attn\nsave L0.mlp @1\nsave L0.mlp @2", "twice"),
    "a part shown whole": (ONE + "save L0.pattern @last\nshow attention L0", "twice"),
    "the first token of a vector": (ONE + "steer L0.resid by first({vec})", "first"),
    "bounds the wrong way round": (ONE + "clamp L0.mlp min={high} max={two}", "above"),
    "a metric under another's name": (ONE + "metric logit = prob", "another name"),
    "a set in turn": (ONE + "steer L0.mlp by each {bag}", "list"),
    "a mapping in turn": (ONE + "sweep c in {bags}\nscale L0.mlp by c", "list"),
}


@pytest.mark.parametrize(("text", "word"), REFUSED.values(), ids=REFUSED)
def test_what_would_have_no_effect_or_no_meaning_is_refused(text, word):
    sae = Dictionary(draws(32, 8, seed=1), draws(8), draws(8, 32, seed=2), draws(32, seed=3))
    with pytest.raises(SpecError) as caught:
        run(text + "\n", sae=sae, high=5.0, bag={1, 2}, bags={1: 2})
    problem = caught.value.problems[0]
    assert word in problem.message + problem.hint and problem.line


def test_the_answer_tokens_of_this_file_are_those_of_the_oracle():
    logits = oracle().hf(torch.tensor([CLEAN])).logits[0, -1].detach()
    assert float(diff(oracle().logits())) == pytest.approx(float(logits[RIGHT] - logits[WRONG]), abs=1e-5)
