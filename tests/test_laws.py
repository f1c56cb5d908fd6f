"""What holds for every edit: nothing else changes, causality stays, rows do not touch each other, state comes back."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from oracle import CLEAN, PROMPTS, RIGHT, WRONG, Oracle, add, draws
from tiny_models import build

import hooklab as hl
from hooklab.problems import SpecError

FAMILIES = ("gpt2", "llama", "gpt_neox", "gemma2")
SITES = ("resid_pre", "ln1", "q", "k", "v", "scores", "pattern", "z", "result", "attn_out", "ln2", "mlp_pre", "mlp_post",
         "mlp_out",
         "resid_post")
ALL = ", ".join(["embed", *(f"L{n}.{site}" for n in range(2) for site in SITES), "ln_final", "logits"])
ORDER = ["embed", *(f"L{n}.{site}" for n in range(2) for site in SITES), "ln_final", "logits"]
GIVEN = {**PROMPTS, "right": RIGHT, "wrong": WRONG, "vec": draws(32, seed=1)}
PAIR = "prompt clean = {clean}\nprompt dirty = {dirty}\n"
METRIC = "answer {right} vs {wrong}\nmetric logit_diff\n"


@cache
def model(family):
    return hl.load(build(family))


@cache
def oracle(family):
    return Oracle(family)


def run(family, text, **more):
    rows, progress = more.pop("rows", None), more.pop("progress", None)
    return model(family).run(text, values={**GIVEN, **more}, rows=rows, progress=progress)


def same(a, b):
    return torch.equal(a, b)


# Nothing else changes ---------------------------------------------------------------------------------------------------

VERBS = [
    ("zero", "zero L1.mlp @3", "L1.mlp_out"), ("ablate", "ablate L1.attn @3 with mean", "L1.attn_out"),
    ("steer", "steer L1.resid_pre @3 by {vec}", "L1.resid_pre"), ("scale", "scale L1.z @3 by 2", "L1.z"),
    ("set", "set L1.mlp_post @3 to 0.5", "L1.mlp_post"), ("clamp", "clamp L1.mlp_pre @3 min=-0.01 max=0.01", "L1.mlp_pre"),
    ("project_out", "project_out L1.ln1 @3 along {vec}", "L1.ln1"), ("noise", "noise L1.q @3 by 1", "L1.q"),
    ("cut", "cut L1 @1 -> @3", "L1.scores"), ("patch", "patch L1.v @3 from L0.v @3", "L1.v"),
    ("freeze", "noise L1.attn @3 by 1\nfreeze L1.mlp @3", "L1.attn_out"),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("line", "site"), [pytest.param(*row[1:], id=row[0]) for row in VERBS])
def test_what_comes_before_an_edit_is_bit_for_bit_the_same(family, line, site):
    found = run(family, f"prompt {{clean}}\nrun idle on main:\n    save {ALL}\nrun edited on main:\n    "
                + line.replace("\n", "\n    ") + f"\n    save {ALL}\n")
    for name in ORDER:
        idle, edited = found[f"idle.{name}"], found[f"edited.{name}"]
        axis = 2 if name.endswith(("scores", "pattern")) else 1
        parallel = family == "gpt_neox" and site.startswith("L1.") and name in ("L1.ln2", "L1.mlp_pre", "L1.mlp_post",
            "L1.mlp_out")
        if ORDER.index(name) < ORDER.index(site):
            assert same(idle, edited), f"{name} comes before {site}"
        assert same(idle.narrow(axis, 0, 3), edited.narrow(axis, 0, 3)), f"positions before 3 at {name}"
        if name == site:
            assert not same(idle.narrow(axis, 3, 1), edited.narrow(axis, 3, 1))
            rest = idle.shape[axis] - 4
            assert same(idle.narrow(axis, 4, rest), edited.narrow(axis, 4, rest)), f"positions after 3 at {name}"
        if parallel and site in ("L1.q", "L1.v", "L1.z", "L1.scores"):
            assert same(idle, edited), f"{name} stands beside attention"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", ["q", "z", "result", "pattern", "scores"])
def test_the_other_heads_are_bit_for_bit_the_same(family, site):
    found = run(family, f"prompt {{clean}}\nrun idle on main:\n    save L0.{site}\nrun edited on main:\n"
                f"    scale L0H2.{site} @4 by 0.5\n    save L0.{site}\n")
    idle, edited = found[f"idle.L0.{site}"], found[f"edited.L0.{site}"]
    axis = 1 if site in ("pattern", "scores") else 2
    others = torch.tensor([0, 1, 3])
    assert same(idle.index_select(axis, others), edited.index_select(axis, others))
    assert not same(idle, edited)


# Attention --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("renorm", ["true", "false"])
def test_a_cut_row_sums_to_one_or_loses_exactly_what_was_cut(family, renorm):
    found = run(family, f"prompt {{clean}}\nrun idle on main:\n    save L0.pattern\nrun edited on main:\n"
                f"    cut L0H[1,2] @[2,4] -> @last renorm={renorm}\n    save L0.pattern\n")
    idle, edited = found["idle.L0.pattern"], found["edited.L0.pattern"]
    assert (edited[:, 1:3, -1, [2, 4]] == 0).all()
    lost = idle[:, 1:3, -1, [2, 4]].sum(-1)
    left = edited[:, 1:3, -1].sum(-1)
    torch.testing.assert_close(left, torch.ones_like(lost) if renorm == "true" else idle[:, 1:3, -1].sum(-1) - lost,
                               atol=1e-6, rtol=0)
    if renorm == "false":
        kept = [0, 1, 3, 5]
        assert same(edited[:, 1:3, -1][..., kept], idle[:, 1:3, -1][..., kept])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("line", ["cut L* @1 -> @3: renorm=false", "cut L0H1 @1 -> @3:", "freeze L*.ln1_scale @1"])
def test_a_later_token_does_not_reach_an_earlier_one(family, line):
    text = f"prompt {{p}}\nrun edited on main:\n    {line}\n    save logits, L1.resid_post\n"
    one, other = (run(family, text, p=[*CLEAN[:5], last]) for last in (30, 10))
    for name in ("logits", "L1.resid_post"):
        assert same(one[name][:, :5], other[name][:, :5])
        assert not same(one[name][:, 5:], other[name][:, 5:])


# Patches ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("place", ["embed", "L0.resid", "L1H2", "L*.z", "L*.q @last", "L*.pattern", "L0.scores @3",
                                   "L*.mlp_post", "L0N[1,2]", "L1.resid[3,4] @1", "ln_final_scale", "logits", "L*.ln1",
                                   "L*.k", "L*.attn"])
def test_a_patch_from_itself_changes_nothing(family, place):
    found = run(family, f"prompt {{clean}}\nrun edited on main:\n    patch {place} from baseline\n    save logits\n")
    again = run(family, "prompt {clean}\nsave logits\n")
    if place in ("L*.pattern", "L0.scores @3"):  # attention in the open adds up in another order than the fused kernel
        torch.testing.assert_close(found["logits"], again["logits"], atol=2e-6, rtol=1e-6)
    else:
        assert same(found["logits"], again["logits"])


@pytest.mark.parametrize("family", FAMILIES)
def test_patching_the_first_stream_gives_the_source_run(family):
    found = run(family, f"{PAIR}run on dirty:\n    patch L0.resid_pre from clean\n    save logits\n")
    torch.testing.assert_close(found["logits"], oracle(family).logits("clean"), atol=1e-5, rtol=1e-5)
    source = run(family, "prompt {clean}\nsave logits\n")["logits"]
    assert same(found["logits"], source)


@pytest.mark.parametrize("family", FAMILIES)
def test_patching_the_last_stream_gives_the_sources_logits_there(family):
    found = run(family,
                "prompt clean = {clean}\nprompt dirty = {dirty}\nrun on dirty:\n    patch L-1.resid_post @last from clean\n"
                "    save logits\n")
    torch.testing.assert_close(found["logits"][:, -1], oracle(family).logits("clean")[:, -1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["logits"][:, :-1], oracle(family).logits("dirty")[:, :-1], atol=1e-5, rtol=1e-5)


# Rows, chunks and neighbours --------------------------------------------------------------------------------------------

GRID = f"{PAIR}{METRIC}run on dirty:\n    patch each L*.resid @each from clean\n    save L1.resid as end\n"
NOISY = ("prompt batch = {batch}\n" + METRIC + "run a on batch:\n    noise embed @1 by 0.5 samples=3\n"
         "run b on a:\n    zero each L*H*\n")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", [GRID, NOISY],
                         ids=["a grid", "noise under a grid"])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_chunks_of_a_batch_agree_with_the_whole(family, text, rows):
    whole, parts = run(family, text), run(family, text, rows=rows)
    for key, scores in whole.scores.items():
        np.testing.assert_allclose(parts.scores[key].values, scores.values, atol=2e-6, rtol=1e-5)
    for key, value in whole.data.items():
        torch.testing.assert_close(parts.data[key], value, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "gptj"], ids=["packed", "whole passes"])
def test_progress_goes_up_to_all_there_is(family):
    seen = []
    run(family, GRID, rows=4, progress=lambda done, total, what: seen.append((done, total, what)))
    done, total, what = zip(*seen, strict=True)
    assert len(set(total)) == 1 and done[0] == 0 and done[-1] == total[0]
    assert list(done) == sorted(done) and len(set(done)) >= 4  # the untouched runs, then cells a few at a time
    assert set(what) == {"clean, dirty", "hooked", ""}


NOISE = "noise embed @1 by 0.5"


@pytest.mark.parametrize("more", ["save L0.z", "zero L0H0 @0", "noise L1.mlp @2 by 0.1", "scale L1.attn by 1",
                                  "clamp L1.mlp min=-100"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_another_line_does_not_reshuffle_the_noise(more, place):
    lines = [more, NOISE] if place == "before" else [NOISE, more]
    alone = run("gpt2", f"prompt {{clean}}\nseed 3\n{NOISE}\nsave embed\n")
    both = run("gpt2", "prompt {clean}\nseed 3\n" + "\n".join(lines) + "\nsave embed\n")
    assert same(alone["hooked.embed"], both["hooked.embed"])


@pytest.mark.parametrize("extra", ["prompt other = {longer}\n", "run more on clean:\n    zero L0H1\n", "metric entropy\n",
                                   "run more on clean:\n    noise embed by 1\n"])
def test_other_prompts_runs_and_metrics_leave_the_numbers_alone(extra):
    text = "prompt clean = {clean}\n" + METRIC + "run one on clean:\n    steer L0.resid by {vec}\n    noise L1.mlp by 0.1\n"
    alone = run("llama", text).metrics["one"]["logit_diff"]
    for whole in (text + extra, extra + text if not extra.startswith("run") else text + extra):
        assert run("llama", whole).metrics["one"]["logit_diff"] == pytest.approx(alone, abs=1e-6)


# Noise ------------------------------------------------------------------------------------------------------------------


def drawn(text, name="embed", **more):
    found = run("gpt2", text + f"save {name}\n", **more)
    return found[f"hooked.{name}"] - oracle("gpt2")()[name]


def test_noise_has_the_mean_and_the_spread_it_was_given():
    noise = drawn("prompt {clean}\nnoise embed by 0.5 samples=400\n").double()
    assert noise.shape == (400, 1, 6, 32)
    assert abs(float(noise.mean())) < 4 * 0.5 / noise.numel() ** 0.5
    assert float(noise.std()) == pytest.approx(0.5, rel=0.02)
    flat = noise.reshape(400, -1)
    between = torch.corrcoef(flat[:40]) - torch.eye(40)
    assert float(between.abs().max()) < 0.5  # draws are independent


def test_noise_of_sigma_has_the_spread_of_the_site():
    noise = drawn("prompt {clean}\nnoise embed by 3 * sigma samples=200\n").double()
    assert float(noise.std()) == pytest.approx(3 * float(oracle("gpt2")()["embed"].std(unbiased=False)), rel=0.03)


def test_noise_stays_where_it_was_put():
    noise = drawn("prompt {clean}\nnoise embed @[1,3] by 0.5\n")
    assert (noise[:, [0, 2, 4, 5]] == 0).all() and (noise[:, [1, 3]] != 0).all()


def test_noise_is_the_same_every_time_and_follows_the_seed():
    first, second = (drawn("prompt {clean}\nseed 3\nnoise embed by 0.5\n") for _ in range(2))
    assert same(first, second)
    assert not same(first, drawn("prompt {clean}\nseed 4\nnoise embed by 0.5\n"))
    own = drawn("prompt {clean}\nseed 3\nnoise embed by 0.5 seed=1\n")
    assert same(own, drawn("prompt {clean}\nseed 4\nnoise embed by 0.5 seed=1\n"))


def test_two_lines_of_noise_draw_apart():
    twice = drawn("prompt {clean}\nnoise embed by 1\nnoise embed by 1 samples=200\n").double()
    assert float(twice.std()) == pytest.approx(2**0.5, rel=0.03)
    layers = run("gpt2",
                 "prompt {clean}\nnoise L*.mlp by 1\nset L*.mlp to 0\nnoise L*.mlp by 1\nsave L*.mlp as m\n")["hooked.m"]
    assert abs(float(torch.corrcoef(layers.reshape(2, -1))[0, 1])) < 0.4


def test_all_cells_of_a_sweep_have_the_same_noise():
    found = run("gpt2", "prompt {clean}\nnoise embed by 0.5 samples=3\nzero each L*H*\nsave embed\n")["hooked.embed"]
    assert found.shape == (2, 4, 3, 1, 6, 32)
    assert (found == found[:1, :1]).all()
    swept = run("gpt2",
                "prompt {clean}\nsweep c in [1, 2]\nnoise embed by 0.5\nsteer L0.mlp by c\nsave embed\n")["hooked.embed"]
    assert same(swept[0], swept[1])


def test_a_run_on_a_noisy_run_has_its_noise_and_metrics_are_means_of_samples():
    found = run("gpt2",
                "prompt {clean}\n" + METRIC + "run a on main:\n    noise embed @1 by 0.5 samples=5\n    save embed, logits\n"
                "run b on a:\n    zero L1.mlp\n    save embed\n")
    assert same(found["a.embed"], found["b.embed"])
    values = found["a.logits"][:, 0, -1, RIGHT] - found["a.logits"][:, 0, -1, WRONG]
    assert found.metrics["a"]["logit_diff"] == pytest.approx(float(values.mean()), abs=1e-6)
    for sample in range(5):
        noise = found["a.embed"][sample] - oracle("gpt2")()["embed"]
        expected = oracle("gpt2").logits("clean", {"embed": add(noise)})
        torch.testing.assert_close(found["a.logits"][sample], expected, atol=1e-5, rtol=1e-5)


# Resampling -------------------------------------------------------------------------------------------------------------


def test_resampling_takes_whole_examples_of_the_corpus():
    text = "prompt many = {many}\nprompt corpus = {others}\nrun on many:\n" \
           "    ablate L0.mlp, L1H2 with resample over corpus{seed}\n    save L0.mlp, L1H2, L1H1\n"
    found = run("gpt2", text.replace("{seed}", ""), many=[CLEAN] * 40)
    source = oracle("gpt2")("others")
    chosen = [[i for i in range(2) if torch.allclose(row, source["L0.mlp_out"][i],
                                                     atol=1e-6)] for row in found["L0.mlp_out"]]
    assert all(len(hits) == 1 for hits in chosen)
    assert 5 < sum(hits[0] for hits in chosen) < 35
    for row, (hit,) in zip(found["L1H2.result"], chosen, strict=True):
        torch.testing.assert_close(row[:, 0], source["L1.result"][hit, :, 2], atol=1e-5,
                                   rtol=1e-5)  # one example for all places
    assert same(found["L0.mlp_out"], run("gpt2", text.replace("{seed}", ""), many=[CLEAN] * 40)["L0.mlp_out"])
    other = run("gpt2", text.replace("{seed}", " seed=5"), many=[CLEAN] * 40)["L0.mlp_out"]
    assert not same(found["L0.mlp_out"], other)


# Sums of contributions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "phi3"])
def test_direct_contributions_add_up_to_the_logit_difference(family):
    positions = ", pos_embed" if family == "gpt2" else ""
    found = run(family, "prompt {clean}\n" + METRIC + "attribute L*.attn, L*.mlp, embed" + positions
                + " with dla\n")
    o = oracle(family)
    nothing = o.logits("clean", {"ln_final_scale": lambda x: o()["ln_final_scale"], "L1.resid_post": torch.zeros_like})
    rest = float(nothing[0, -1, RIGHT] - nothing[0, -1, WRONG])  # what the biases of the final norm and the unembedding give
    total = float(found.scores["main.attribute"].values.sum()) + rest
    assert total == pytest.approx(found.metrics["main"]["logit_diff"], abs=1e-4)


def test_heads_and_their_bias_add_up_to_attention():
    found = run("llama", "prompt {clean}\n" + METRIC + "attribute L*H* with dla\nattribute L*.attn with dla\n")
    heads, whole = found.scores["main.attribute"], found.scores["main.attribute_2"]
    np.testing.assert_allclose(heads.values.sum(1), whole.values, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_integrated_gradients_are_complete(family):
    found = run(family, "prompt clean = {clean}\nprompt dirty = {dirty}\n" + METRIC
                + "run on clean:\n    attribute embed @each with ig from dirty steps=200\n")
    o = oracle(family)
    start = o.logits("clean", {"embed": lambda x: o("dirty")["embed"]})
    expected = found.metrics["clean"]["logit_diff"] - float(start[0, -1, RIGHT] - start[0, -1, WRONG])
    assert float(found.scores["hooked.attribute"].values.sum()) == pytest.approx(expected, abs=2e-3)


# State ------------------------------------------------------------------------------------------------------------------


def state(m):
    """Everything about a model that a run could leave behind."""
    hf = m.hf
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in hf.modules())
    flags = tuple(p.requires_grad for p in hf.parameters())
    grads = tuple(p.grad is None for p in hf.parameters())
    return (hooks, flags, grads, hf.training, hf.config._attn_implementation, torch.is_grad_enabled(),
            dict(m.interleaver.callbacks),
            m.interleaver.interleaving, torch.random.get_rng_state().sum().item(), tuple(sorted(vars(hf))))


def _stop(*_):
    raise KeyboardInterrupt


FAILING = [
    ("a shape that does not fit", "prompt {clean}\nsteer L0.resid by {short}\n", {"short": torch.zeros(5)}, SpecError),
    ("a metric that fails", "prompt {clean}\nmetric {f}\nzero L0H1\n", {"f": lambda out: 1 / 0}, SpecError),
    ("a metric that is interrupted", "prompt {clean}\nmetric {f}\nzero L0.pattern\n", {"f": _stop}, KeyboardInterrupt),
    ("a score that is interrupted", "prompt {clean}\nscore L*H* with {f}\n", {"f": _stop}, KeyboardInterrupt),
    ("a query with nothing to see", "prompt {clean}\ncut L0 @all -> @3\n", {}, SpecError),
    ("a claim that does not hold", "prompt {clean}\nmetric entropy\nzero L0H1\nexpect hooked.entropy > 99\n", {}, SpecError),
    ("a gradient that is not there", "prompt {clean}\nanswer {right}\nmetric rank\nattribute L*H*\n", {}, SpecError),
    ("a spec that means nothing", "prompt {clean}\nzero L9H9\n", {}, SpecError),
    ("steps that are interrupted", "prompt {clean}\nzero L0H1 steps={f}\ngenerate 3\n", {"f": _stop}, KeyboardInterrupt),
]


@pytest.mark.parametrize(("text", "given", "error"), [pytest.param(*row[1:], id=row[0]) for row in FAILING])
def test_all_is_as_before_after_an_error(text, given, error):
    m = hl.load(build("gpt2", attn_implementation="sdpa"))
    before = m.run("prompt {clean}\nsave logits\n", values=GIVEN)["logits"]
    held = state(m)
    with pytest.raises(error):
        m.run(text, values={**GIVEN, **given})
    assert state(m) == held
    assert same(m.run("prompt {clean}\nsave logits\n", values=GIVEN)["logits"], before)


@pytest.mark.parametrize("when", [0, 1, 2])
def test_all_is_as_before_after_an_interrupt_between_passes(when):
    m = hl.load(build("llama", attn_implementation="sdpa"))
    before = m.run("prompt {clean}\nsave logits\n", values=GIVEN)["logits"]
    held = state(m)

    calls = []

    def progress(done, total, what):
        calls.append(done)
        if len(calls) > when:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        m.run(GRID, values=GIVEN, rows=4, progress=progress)
    assert state(m) == held
    assert same(m.run("prompt {clean}\nsave logits\n", values=GIVEN)["logits"], before)


@pytest.mark.parametrize("text", [GRID, "prompt {clean}\n" + METRIC + "attribute L*H*\nlens\n",
                                  "prompt {clean}\nnoise embed by 1\n",
                                  "prompt {clean}\nsteer L0.resid by {vec}\ngenerate 3 temperature=1\n"],
                         ids=["a grid", "gradients", "noise", "writing on"])
def test_a_run_leaves_no_trace(text):
    m = hl.load(build("gpt2", attn_implementation="sdpa"))
    m.run("prompt {clean}\nsave logits\n", values=GIVEN)
    held, given = state(m), GIVEN["vec"].clone()
    m.run(text, values=GIVEN)
    assert state(m) == held
    assert same(GIVEN["vec"], given)


def test_what_was_saved_is_nobody_elses_memory():
    m = model("gpt2")
    weights = {name: p.clone() for name, p in m.hf.named_parameters()}
    found = run("gpt2", "prompt {clean}\nsave embed, L0.resid_post, L1.resid_pre, logits\n")
    again = {name: value.clone() for name, value in found.data.items()}
    for value in found.data.values():
        value.zero_()
    assert all(same(p, weights[name]) for name, p in m.hf.named_parameters())
    assert all(same(value, again[name]) for name, value in run("gpt2", found.spec).data.items())


def test_an_exception_means_the_same_head_of_whatever_is_acted_on():
    with hl.load(build("llama")) as model:
        lines = ["prompt {ids}", "group kept = L0H1, L1H[0,2]", "run a on main:", "    zero L*H*.z except L0H1, L1H[0,2]",
                 "    save logits as end", "run b on main:", "    zero L*.z except kept", "    save logits as end",
                 "run c on main:", "    zero L0H[0,2,3].z, L1H[1,3].z", "    save logits as end"]
        run = model.run("\n".join(lines), ids=[[5, 9, 3, 7, 20]])
    assert torch.equal(run["a.end"], run["c.end"]) and torch.equal(run["b.end"], run["c.end"])
