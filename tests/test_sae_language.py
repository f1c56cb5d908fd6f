"""Dictionaries in the language: errors kept and dropped, transcoders, attribution to features; beside hooks on the model."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch
from oracle import RAGGED, draws
from tiny_models import build

import hooklab as hl
from hooklab.errors import ModelError
from hooklab.problems import SpecError
from hooklab.sae import SAE, JumpReLU, ReLU, TopK, splice
from hooklab.spec.builder import Builder
from hooklab.spec.jsonform import from_json, to_json
from hooklab.spec.parser import parse

FAMILIES = ("gpt2", "llama", "gpt_neox", "gemma2", "phi3")
D, N, TOKEN = 32, 48, 7
IDS = [[3, 14, 15, 9, 26, 5]]
AT, READ, WRITE = "L0.resid_post", "L1.ln2", "L1.mlp_out"
PARTS = {"gpt2": ("transformer.h", "ln_2"), "llama": ("model.layers", "post_attention_layernorm")}


def made(activation=None, **options):
    return SAE(draws(D, N, seed=1) / 5, draws(N, seed=2) / 3, draws(N, D, seed=3) / 5, draws(D, seed=4),
               activation or ReLU(), **options)


SAE_, TC = made(), made(TopK(12), pre_bias=False, restore=False)


@pytest.fixture(scope="module")
def models():
    opened = {name: hl.load(build(name)) for name in FAMILIES}
    yield opened
    for model in opened.values():
        model.close()


# Beside it: torch hooks on the modules of the model ----------------------------------------------------------------------


def block(hf, layer):
    inner = getattr(hf, hf.base_model_prefix)
    return (inner.h if hasattr(inner, "h") else inner.layers)[layer]


@contextmanager
def hooked(module, change):
    """A module whose output is what `change` makes of it."""
    def call(_, __, output):
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = module.register_forward_hook(call)
    try:
        yield
    finally:
        handle.remove()


def logits_with(hf, ids, *hooks):
    with ExitStack() as stack:
        for module, change in hooks:
            stack.enter_context(hooked(module, change))
        return hf(torch.tensor(ids)).logits


def by_hand(sae, x):
    """Features, written out."""
    x = x - sae.b_dec if sae.pre_bias else x
    pre = torch.einsum("...d,df->...f", x, sae.w_enc) + sae.b_enc
    if isinstance(sae.activation, TopK):
        pre = torch.where(pre >= pre.sort(-1).values[..., -sae.activation.k, None], pre, 0)
    return torch.relu(pre)


def back(sae, f):
    return torch.einsum("...f,fd->...d", f, sae.w_dec) + sae.b_dec


def changed(f):
    """zero F3, then scale F[5,9] by 4."""
    f = f.clone()
    f[..., 3] = 0
    f[..., [5, 9]] *= 4
    return f


LINES = "zero enc.F3\nscale enc.F[5,9] by 4\n"


def real(found, ids):
    return torch.cat([found[row, -len(one):] for row, one in enumerate(ids)])


def alone(hf, ids, *hooks):
    """Logits of prompts that are run one by one, so that nothing is padded."""
    with torch.no_grad():
        return torch.cat([logits_with(hf, [one], *hooks)[0] for one in ids])


# Errors kept and dropped --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lines", ["", LINES])
def test_with_error_drop_a_run_goes_on_with_the_edited_reconstruction_alone(models, family, lines):
    model = models[family]

    def through(x):
        f = by_hand(SAE_, x)
        return back(SAE_, changed(f) if lines else f)

    wanted = alone(model.hf, RAGGED, (block(model.hf, 0), through))
    run = model.run(f"prompt {{ids}}\nsae enc = {{sae}} at {AT} error=drop\n{lines}save logits\n", ids=RAGGED, sae=SAE_)
    torch.testing.assert_close(real(run["logits"], RAGGED), wanted, atol=1e-4, rtol=1e-4)
    spliced = model.capture(RAGGED, "logits", edits={AT: splice(SAE_, changed if lines else None, error="drop")})["logits"]
    torch.testing.assert_close(real(run["logits"], RAGGED), real(spliced, RAGGED), atol=1e-4, rtol=1e-4)


def test_error_keep_is_what_is_done_without_it(models):
    head = f"prompt {{ids}}\nsae enc = {{sae}} at {AT}"
    runs = [models["llama"].run(f"{head}{word}\nzero enc.F[3,5]\nsave logits", ids=IDS, sae=SAE_) for word in
            ("", " error=keep")]
    assert torch.equal(runs[0]["logits"], runs[1]["logits"])


@pytest.mark.parametrize("kind", [JumpReLU(draws(N, seed=5).abs()), TopK(8)], ids=["jumprelu", "topk"])
@pytest.mark.parametrize("norm", ["layer", "length"])
def test_reconstructions_of_other_kinds_and_scales_are_those_of_a_splice(models, kind, norm):
    model, sae = models["gpt2"], made(kind, norm=norm)
    run = model.run(f"prompt {{ids}}\nsae enc = {{sae}} at {AT} error=drop\n{LINES}save logits", ids=IDS, sae=sae)
    wanted = model.capture(IDS, "logits", edits={AT: splice(sae, changed, error="drop")})["logits"]
    torch.testing.assert_close(run["logits"], wanted, atol=1e-4, rtol=1e-4)


def test_objects_of_the_users_are_dropped_to_as_well(models):
    text = f"prompt {{ids}}\nmetric logit({TOKEN})\nsae enc = {{sae}} at {AT} error=drop\n{LINES}"
    text += "attribute L0.attn_out\nsave logits"
    mine, ours = (models["gpt2"].run(text, ids=IDS, sae=sae) for sae in (Mine(SAE_), SAE_))
    torch.testing.assert_close(mine["logits"], ours["logits"], atol=1e-5, rtol=1e-5)
    found = [run.scores["hooked.attribute"].values for run in (mine, ours)]
    assert abs(found[1]) > 1e-3
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_the_run_of_a_prompt_stays_as_it_is_where_errors_are_dropped(models):
    model = models["gpt2"]
    run = model.run(f"prompt {{ids}}\nsae enc = {{sae}} at {AT} error=drop\nmetric logit({TOKEN})", ids=IDS, sae=SAE_)
    plain = alone(model.hf, IDS)[-1, TOKEN]
    through = alone(model.hf, IDS, (block(model.hf, 0), lambda x: back(SAE_, by_hand(SAE_, x))))[-1, TOKEN]
    assert float(run.metrics["main"]["logit"]) == pytest.approx(float(plain), abs=1e-4)
    assert float(run.metrics["hooked"]["logit"]) == pytest.approx(float(through), abs=1e-4)
    assert abs(float(plain - through)) > 1e-2


def test_runs_that_stand_on_others_drop_the_error_once_and_take_features_from_other_prompts(models):
    model, other = models["gpt2"], [[9, 8, 7, 6, 5, 4]]
    text = (f"prompt a = {{ids}}\nprompt b = {{other}}\nsae enc = {{sae}} at {AT} error=drop\n"
            "run one on a:\n    patch enc.F[2,3] from b\nrun two on one:\n    zero enc.F3\n    save logits\n")
    run = model.run(text, ids=IDS, other=other, sae=SAE_)
    theirs = by_hand(SAE_, model.capture(other, AT)[AT])

    def through(x):
        f = by_hand(SAE_, x).clone()
        f[..., 2], f[..., 3] = theirs[..., 2], 0
        return back(SAE_, f)

    torch.testing.assert_close(run["two.logits"][0], alone(model.hf, IDS, (block(model.hf, 0), through)), atol=1e-4,
                               rtol=1e-4)


def test_features_that_are_swept_are_changed_one_at_a_time(models):
    model, numbers = models["llama"], (1, 3, 5, 9)
    text = f"prompt {{ids}}\nmetric logit({TOKEN})\nsae enc = {{sae}} at {AT} error=drop\nzero each enc.F[1,3,5,9] @last"
    found = model.run(text, ids=IDS, sae=SAE_).scores["hooked.logit"]
    for feature, value in zip(numbers, found.values, strict=True):
        def through(x, feature=feature):
            f = by_hand(SAE_, x)
            f[:, -1, feature] = 0
            return back(SAE_, f)

        wanted = alone(model.hf, IDS, (block(model.hf, 0), through))[-1, TOKEN]
        assert value == pytest.approx(float(wanted), abs=1e-4)
    assert found.axes == ("feature",) and found.coords["feature"] == numbers


def test_text_is_written_with_the_error_dropped_at_every_step(models):
    model, ids = models["gpt2"], list(IDS[0])
    text = f"prompt {{ids}}\nsae enc = {{sae}} at {AT} error=drop\nscale enc.F[5,9] by 4\ngenerate 4\n"

    def through(x):
        f = by_hand(SAE_, x)
        f[..., [5, 9]] *= 4
        return back(SAE_, f)

    for _ in range(4):
        ids.append(int(alone(model.hf, [ids], (block(model.hf, 0), through))[-1].argmax()))
    run = model.run(text, ids=IDS, sae=SAE_)
    assert list(run.tokens_of["hooked"].ids[0]) == ids


# Transcoders ---------------------------------------------------------------------------------------------------------------


def around(hf, family, change, layer=1):
    """Hooks: what the norm before the MLP gives is read, and the MLP's output becomes change(output, features)."""
    held = {}

    def read(x):
        held["f"] = by_hand(TC, x)
        return x

    own = block(hf, layer)
    return (getattr(own, PARTS[family][1]), read), (own.mlp, lambda y: change(y, held["f"]))


@pytest.mark.parametrize("family", PARTS)
def test_a_transcoder_whose_error_is_kept_changes_nothing_without_an_edit(models, family):
    model = models[family]
    plain = alone(model.hf, RAGGED)
    run = model.run(f"prompt {{ids}}\nsae tc = {{tc}} at {READ} to {WRITE}\nscale tc.F* by 1\nsave logits\nsave tc.F*",
                    ids=RAGGED, tc=TC)
    spliced = model.capture(RAGGED, "logits", edits=splice(TC, at=READ, to=WRITE))["logits"]
    for found in (run["logits"], spliced):
        torch.testing.assert_close(real(found, RAGGED), plain, atol=1e-4, rtol=1e-4)
    read = model.capture(RAGGED, READ)[READ]
    torch.testing.assert_close(real(run["tc.F*"], RAGGED), real(by_hand(TC, read), RAGGED), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", PARTS)
@pytest.mark.parametrize("error", ["keep", "drop"])
def test_a_feature_of_a_transcoder_that_is_ablated_takes_its_write_off_where_it_writes(models, family, error):
    model = models[family]
    live = int(by_hand(TC, model.capture(RAGGED, READ)[READ]).sum((0, 1)).argmax())

    def change(y, f):
        rest = f.clone()
        rest[..., live] = 0
        return back(TC, rest) if error == "drop" else y - f[..., live, None] * TC.w_dec[live]

    wanted = alone(model.hf, RAGGED, *around(model.hf, family, change))
    text = f"prompt {{ids}}\nsae tc = {{tc}} at {READ} to {WRITE} error={error}\nzero tc.F{live}\nsave logits, {WRITE}\n"
    run = model.run(text, ids=RAGGED, tc=TC)
    off = splice(TC, lambda f: f.index_fill(-1, torch.tensor([live]), 0), error=error, at=READ, to=WRITE)
    spliced = model.capture(RAGGED, ["logits", WRITE], edits=off)
    torch.testing.assert_close(real(run["logits"], RAGGED), wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(real(spliced["logits"], RAGGED), wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(real(run[WRITE], RAGGED), real(spliced[WRITE], RAGGED), atol=1e-5, rtol=1e-4)
    assert float((wanted - alone(model.hf, RAGGED)).abs().max()) > 1e-3


def test_lines_on_a_transcoder_act_in_turn_on_features_that_were_read_once(models):
    model = models["gpt2"]

    def change(y, f):
        return y + back(TC, changed(f)) - back(TC, f)

    wanted = alone(model.hf, IDS, *around(model.hf, "gpt2", change))
    text = f"prompt {{ids}}\nsae enc = {{tc}} at {READ} to {WRITE}\n{LINES}save logits"
    torch.testing.assert_close(models["gpt2"].run(text, ids=IDS, tc=TC)["logits"][0], wanted, atol=1e-4, rtol=1e-4)


def test_a_transcoder_between_sites_of_other_sizes_reads_after_the_lines_on_its_site(models):
    model = models["gpt2"]
    wide = model.facts.d_mlp
    tc = SAE(draws(wide, N, seed=1) / 9, draws(N, seed=2), draws(N, D, seed=3) / 5, draws(D, seed=4), pre_bias=False,
             restore=False)

    def mlp(x):
        return x * 2, (tc.encode(x * 2) * (torch.arange(N) == 4)) @ tc.w_dec

    held = {}

    def read(x):
        doubled, held["write"] = mlp(x)
        return doubled

    own = block(model.hf, 1).mlp
    wanted = alone(model.hf, IDS, (own.act, read), (own, lambda y: y + 2 * held["write"]))
    text = "prompt {ids}\nsae tc = {tc} at L1.mlp_post to L1.mlp_out\nscale tc.F4 by 3\nscale L1.mlp_post by 2\nsave logits"
    torch.testing.assert_close(model.run(text, ids=IDS, tc=tc)["logits"][0], wanted, atol=1e-4, rtol=1e-4)


# Attribution ---------------------------------------------------------------------------------------------------------------


def through_features(hf, family, ids, where):
    """Features as leaves with the error kept, [pos feature], and the metric that they lead to: both of one prompt."""
    held = {}

    def at_site(x):
        f = held["f"] = by_hand(SAE_, x.detach()).requires_grad_()
        return back(SAE_, f) + (x.detach() - back(SAE_, f.detach()))

    def of_transcoder(y, f):
        leaf = held["f"] = f.detach().clone().requires_grad_()
        return back(TC, leaf) + (y - back(TC, f)).detach()

    hooks = [(block(hf, 0), at_site)] if where == "enc" else around(hf, family, of_transcoder)
    logits = logits_with(hf, [ids], *hooks)
    return held["f"], logits[0, -1, TOKEN]


HEAD = (f"prompt {{ids}}\nmetric logit({TOKEN})\nsae enc = {{sae}} at {AT}\nsae tc = {{tc}} at {READ} to {WRITE}\n")


def given(ids=RAGGED):
    return {"ids": ids, "sae": SAE_, "tc": TC}


@pytest.mark.parametrize("family", PARTS)
@pytest.mark.parametrize("where", ["enc", "tc"])
def test_features_are_attributed_by_their_activation_times_the_gradient_through_the_decoder(models, family, where):
    model = models[family]
    each = []
    for ids in RAGGED:
        f, metric = through_features(model.hf, family, ids, where)
        each.append((f * torch.autograd.grad(metric, f)[0])[0].detach())
    found = model.run(HEAD + f"attribute {where}.F* with grad", **given()).scores["main.attribute"]
    wanted = torch.stack([one.sum(0) for one in each])
    top = float(wanted.abs().max())
    assert found.axes == ("feature",) and top > 1e-3
    np.testing.assert_allclose(found.values, wanted.mean(0), atol=1e-4 * top, rtol=1e-3)
    np.testing.assert_allclose(found.examples, wanted, atol=1e-4 * top, rtol=1e-3)
    some = model.run(HEAD + f"attribute {where}.F[3,17] @each[first,last]", **given()).scores["main.attribute"]
    ends = torch.stack([one[[0, -1]][:, [3, 17]].T for one in each]).mean(0)
    assert some.axes == ("feature", "pos") and some.coords["feature"] == (3, 17)
    np.testing.assert_allclose(some.values, ends, atol=1e-4 * top, rtol=1e-3)


class Mine:
    """Somebody else's dictionary."""

    n_features = N

    def __init__(self, sae):
        self.encode, self.decode = sae.encode, sae.decode


@pytest.mark.parametrize("sae", [made(norm="layer", scale=1.5), made(JumpReLU(draws(N, seed=5).abs()), norm="length"),
                                 made(TopK(9), scale=2.0), Mine(SAE_)], ids=["layer", "length", "scale", "object"])
def test_features_of_other_kinds_are_attributed_by_the_gradient_that_a_splice_gives_them(models, sae):
    model, seen = models["gpt2"], {}
    acts = model.capture(IDS, [AT], edits={AT: splice(sae, lambda f: seen.update(f=f))}, grad=True)
    gradient, = torch.autograd.grad(acts.output.logits[0, -1, TOKEN], seen["f"])
    wanted = (seen["f"] * gradient).detach().sum((0, 1))
    head = f"prompt {{ids}}\nmetric logit({TOKEN})\nsae enc = {{sae}} at {AT}\n"
    found = model.run(head + "attribute enc.F*", ids=IDS, sae=sae).scores["main.attribute"].values
    assert float(wanted.abs().max()) > 1e-3
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("where", ["enc", "tc"])
def test_integrated_gradients_of_all_features_add_up_to_what_they_do_together(models, where):
    text = HEAD + f"run whole on main:\n    attribute {where}.F* with ig steps=16\n"
    text += f"run without on main:\n    zero {where}.F*\n"
    run = models["gpt2"].run(text, **given(IDS))
    effect = float(run.metrics["main"]["logit"]) - float(run.metrics["without"]["logit"])
    assert abs(effect) > 1e-2
    assert float(run.scores["whole.attribute"].values.sum()) == pytest.approx(effect, abs=2e-3 * max(1, abs(effect)))


@pytest.mark.parametrize("family", PARTS)
def test_direct_shares_of_features_the_error_and_the_bias_add_up_to_that_of_the_site(models, family):
    model = models[family]
    run = model.run(HEAD + f"attribute enc.F* with dla\nattribute {AT} with dla", **given(IDS))
    shares, whole = run.scores["main.attribute"].values, run.scores["main.attribute_2"].values
    stream = model.capture(IDS, [AT, f"L{model.facts.n_layers - 1}.resid_post"])
    direction = one_direction(model, stream[f"L{model.facts.n_layers - 1}.resid_post"][0, -1])
    x = stream[AT][0, -1]
    f = by_hand(SAE_, x)
    np.testing.assert_allclose(shares, (f * (SAE_.w_dec @ direction)).numpy(), atol=1e-4, rtol=1e-3)
    rest = float((x - f @ SAE_.w_dec) @ direction)
    assert float(shares.sum()) + rest == pytest.approx(float(whole), abs=1e-3)


def one_direction(model, last):
    """The token's unembedding through the final norm with its divisor held."""
    hf = model.hf
    norm = hf.transformer.ln_f if hasattr(hf, "transformer") else hf.model.norm
    centre = isinstance(norm, torch.nn.LayerNorm)
    x = last - last.mean() if centre else last
    eps = getattr(norm, "eps", None) or norm.variance_epsilon
    row = hf.lm_head.weight[TOKEN].detach() * norm.weight.detach() / (x.square().mean() + eps).sqrt()
    return row - row.mean() if centre else row


def test_attribution_patching_of_features_takes_them_from_the_other_prompt(models):
    model, other = models["gpt2"], [[9, 8, 7, 6, 5, 4]]
    text = ("prompt main = {ids}\nprompt other = {other}\n" + HEAD.split("\n", 1)[1]
            + "run on main:\n    attribute enc.F* with patch from other\n")
    found = model.run(text, **given(IDS), other=other).scores["hooked.attribute"].values
    f, metric = through_features(model.hf, "gpt2", IDS[0], "enc")
    theirs = by_hand(SAE_, model.capture(other, AT)[AT])
    wanted = ((theirs - f) * torch.autograd.grad(metric, f)[0]).sum((0, 1)).detach()
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-3)


def test_estimates_for_features_are_compared_with_zeroing_them(models):
    found = models["gpt2"].run(HEAD + "attribute tc.F* with grad check=all", **given(IDS)).scores
    exact = found["main.attribute_exact"].values
    plain = alone(models["gpt2"].hf, IDS)[-1, TOKEN]
    for feature in np.abs(exact).argsort()[-3:]:
        def change(y, f, feature=feature):
            return y - f[..., feature, None] * TC.w_dec[feature]

        without = alone(models["gpt2"].hf, IDS, *around(models["gpt2"].hf, "gpt2", change))[-1, TOKEN]
        assert exact[feature] == pytest.approx(float(plain - without), abs=1e-4)
    assert "correlation" in found["main.attribute"].note


def test_features_of_a_run_whose_error_is_dropped_are_those_that_it_goes_on_with(models):
    model, held = models["gpt2"], {}

    def through(x):
        f = held["f"] = changed(by_hand(SAE_, x.detach())).requires_grad_()
        return back(SAE_, f)

    metric = logits_with(model.hf, IDS, (block(model.hf, 0), through))[0, -1, TOKEN]
    wanted = (held["f"] * torch.autograd.grad(metric, held["f"])[0]).sum((0, 1)).detach()
    text = f"prompt {{ids}}\nmetric logit({TOKEN})\nsae enc = {{sae}} at {AT} error=drop\n{LINES}attribute enc.F* with grad"
    found = model.run(text, ids=IDS, sae=SAE_).scores["hooked.attribute"].values
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-3)
    assert found[3] == 0 and abs(found).max() > 1e-3


# The language ---------------------------------------------------------------------------------------------------------


def test_a_sae_line_is_the_same_as_text_as_json_and_from_a_builder():
    line = f'sae tc = {{tc}} at {READ} to {WRITE} error=drop'
    spec = parse(f"prompt {{ids}}\n{line}\n")
    assert str(spec).splitlines()[1] == line
    assert from_json(to_json(spec)).body == spec.body
    built = Builder().sae("tc", hl.py("tc") if hasattr(hl, "py") else parse(line).body[0].source, at=READ, to=WRITE,
                          error="drop")
    assert str(built).strip() == line


WRONG = {
    "sae enc = {sae} at L0.resid_post error=lose": "keep or drop",
    "sae enc = {sae} at L0.resid_post loss=drop": "no option",
    "sae enc = {sae} at L1.resid_post to L0.mlp_out": "not after",
    "sae enc = {sae} at L1.resid_post to L1.resid_post": "leave `to` out",
    "sae enc = {sae} at L0.resid_post to L1H2.z": "heads",
    "sae enc = {sae} at L0.mlp_post": "reads vectors of 32",
    "sae enc = {sae} at L0.ln2 to L0.mlp_post": "writes vectors of 32",
    "sae enc = {sae} at L0.resid_post to L*.mlp_out": "one layer",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_dictionary_that_cannot_stand_there_is_refused_with_its_line(models, line):
    with pytest.raises(SpecError) as caught:
        models["gpt2"].run(f"prompt {{ids}}\n{line}\nzero enc.F1\n", ids=IDS, sae=SAE_)
    problem = caught.value.problems[0]
    assert WRONG[line] in problem.message + problem.hint and problem.line == 2


def test_what_a_dropped_error_would_confuse_is_refused(models):
    head = f"prompt {{ids}}\nsae enc = {{sae}} at {AT} error=drop\n"
    with pytest.raises(SpecError, match="path"):
        models["gpt2"].run(head + "patch L0H1 -> L1H2.q from baseline", ids=IDS, sae=SAE_)
    with pytest.raises(ModelError, match="neither"):
        splice(TC, at=READ)
    with pytest.raises(ModelError, match="reads first"):
        models["gpt2"].capture(IDS, "logits", edits=splice(TC, at=WRITE, to=READ))


def test_braces_that_hold_an_address_stand_where_a_dictionary_is_attached(models):
    named = models["llama"].run(f"prompt {{ids}}\nsae enc = {{sae}} at {AT}\nsave enc.F* as f", ids=IDS, sae=SAE_)
    held = models["llama"].run("prompt {ids}\nsae enc = {sae} at {place}\nsave enc.F* as f", ids=IDS, sae=SAE_, place=AT)
    assert torch.equal(held["f"], named["f"])
    written = models["llama"].run(f"prompt {{ids}}\nsae tc = {{t}} at {READ} to {WRITE} error=drop", ids=IDS, t=TC)
    again = models["llama"].run("prompt {ids}\nsae tc = {t} at {read} to {write} error=drop", ids=IDS, t=TC, read=READ,
                                write=WRITE)
    assert np.array_equal(again.scores["main.top"].values, written.scores["main.top"].values)


@pytest.mark.parametrize(("address", "written"), [
    ("enc.F46", "enc.F46"), ("enc.F[3,46]", "enc.F[3,46]"), ("enc.F*", "enc.F*"), ("enc.F2:47", "enc.F2:47"),
    (["enc.F3", "enc.F46"], "enc.F3 @last, enc.F46")])
def test_braces_that_hold_a_feature_stand_for_it(models, address, written):
    text = f"prompt {{ids}}\nsae enc = {{sae}} at {AT}\nzero PLACE @last\nsave L1.resid_post as out"
    named = models["gpt2"].run(text.replace("PLACE", written), ids=IDS, sae=SAE_)
    held = models["gpt2"].run(text.replace("PLACE", "{place}"), ids=IDS, sae=SAE_, place=address)
    assert torch.equal(held["out"], named["out"])
    plain = models["gpt2"].run("prompt {ids}\nsave L1.resid_post as out", ids=IDS)
    assert not torch.equal(held["out"], plain["out"])


@pytest.mark.parametrize(("line", "place", "words"), [
    ("sae enc = {sae} at {place}", "L0H1", "a whole vector"), ("sae enc = {sae} at {place}", "L*.resid_post", "one layer"),
    ("sae enc = {sae} at {place}", "enc.F3", "not to a feature"), ("sae enc = {sae} at {place}", "L0.nowhere", "nowhere"),
    ("sae enc = {sae} at {place}", [], "names no place"), ("sae enc = {sae} at {place}", ["L0.resid_post"] * 2, "one layer"),
    ("sae enc = {sae} at {place}", "L9.resid_post", "layer"), ("sae enc = {sae} at {place} @last", AT, "whole site"),
    (f"sae enc = {{sae}} at {AT}\nzero {{place}}", "enc.F99", "F99|feature"),
    (f"sae enc = {{sae}} at {AT}\nzero {{place}}", "dec.F3", "no dictionary 'dec'"),
    (f"sae enc = {{sae}} at {AT}\nzero {{place}}", "enc.F", "enc.F"),
    (f"sae enc = {{sae}} at {AT}\nzero {{place}}", "enc.F[]", "F"),
])
def test_braces_that_hold_something_else_are_refused_by_name(models, line, place, words):
    with pytest.raises(SpecError, match=words) as caught:
        models["gpt2"].run(f"prompt {{ids}}\n{line}", ids=IDS, sae=SAE_, place=place)
    assert caught.value.problems[0].line == 1 + len(line.split("\n"))


def test_an_attachment_by_braces_is_printed_and_kept_as_data():
    spec = parse("prompt {ids}\nsae tc = {sae} at {read} to {write} error=drop")
    assert parse(str(spec)) == spec
    assert from_json(to_json(spec)) == spec
    assert str(spec).splitlines()[1] == "sae tc = {sae} at {read} to {write} error=drop"
    from hooklab.spec.holes import holes

    assert list(holes(spec)) == ["ids", "sae", "read", "write"]
