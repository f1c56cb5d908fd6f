"""Training: planted dictionaries are found, a run that was killed goes on as if it had not been, nothing else is touched."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import draws
from safetensors.torch import save_file
from scipy.optimize import linear_sum_assignment

from hooklab.errors import ModelError
from hooklab.sae import METRICS, FeatureStats, Recipe, train_sae
from hooklab.sae.losses import VARIANTS, loss
from hooklab.sae.starting import geometric_median, parameters
from hooklab.sae.stream import Stream
from hooklab.sae.trainer import advance, begin, finished

PENALTY = {"relu": {"l1": 0.6}, "topk": {"k": 2}, "batchtopk": {"k": 2}, "jumprelu": {"l0": 0.3, "bandwidth": 0.3},
           "gated": {"l1": 1.0}}
STEPS = {"relu": 700, "topk": 700, "batchtopk": 1000, "jumprelu": 1200, "gated": 1500}
ATOMS = torch.nn.functional.normalize(draws(32, 16, seed=40), dim=1)


def planted(seed=1, size=256, active=2):
    """Sums of two of 32 directions in 16 dimensions, away from 0."""
    made = torch.Generator().manual_seed(seed)
    while True:
        chosen = torch.rand(size, 32, generator=made).topk(active, dim=1).indices
        codes = torch.zeros(size, 32).scatter_(1, chosen, 0.5 + torch.rand(size, active, generator=made))
        yield codes @ ATOMS + 0.3


def listed(count=8, d=6, size=32):
    return [draws(size, d, seed=50 + i) + 1 for i in range(count)]


def same(a, b):
    """Whether two trainings agree to the bit."""
    for name in ("w_enc", "b_enc", "w_dec", "b_dec"):
        x, y = getattr(a.sae, name), getattr(b.sae, name)
        assert (x is None and y is None) or torch.equal(x, y), name
    assert all(torch.equal(t, b.sae.activation.tensors[name]) for name, t in a.sae.activation.tensors.items())
    assert a.sae.activation.numbers == b.sae.activation.numbers and a.sae.scale == b.sae.scale
    assert torch.equal(a.sae.statistics["last_active"], b.sae.statistics["last_active"])
    assert np.array_equal(a.history.values, b.history.values)


@pytest.mark.parametrize("variant", PENALTY)
def test_a_planted_dictionary_is_found(variant):
    made = train_sae(planted(), 32, variant=variant, steps=STEPS[variant], lr=1e-2, **PENALTY[variant])
    rows = torch.nn.functional.normalize(made.sae.decoder, dim=1)
    cosine = (ATOMS @ rows.T).numpy()
    assert cosine[linear_sum_assignment(-cosine)].mean() > 0.9  # each atom has a row of its own
    fresh = next(planted(seed=99))
    out = made.sae(fresh).reconstruction
    explained = 1 - float((fresh - out).square().sum() / (fresh - fresh.mean(0)).square().sum())
    assert explained > 0.75
    last = dict(zip(METRICS, made.history.values[-1], strict=True))
    assert last["l0"] < 8 and last["explained_variance"] == pytest.approx(explained, abs=0.06)


@pytest.mark.parametrize("options", [
    {"variant": "relu", "l1": 0.6, "tied": True}, {"variant": "topk", "k": 2, "norm": "layer"},
    {"variant": "topk", "k": 2, "norm": "length", "start": "mean"}])
def test_other_forms_learn_too(options):
    made = train_sae(planted(), 48, steps=400, lr=5e-3, **options)
    assert made.sae.tied == options.get("tied", False) and made.sae.norm == options.get("norm", "none")
    first, last = made.history.values[10], made.history.values[-1]
    assert last[METRICS.index("explained_variance")] > max(0.7, first[METRICS.index("explained_variance")])


@pytest.mark.parametrize("variant", ["relu", "topk"])
def test_decoder_rows_keep_length_one(variant):
    made = train_sae(listed(), 12, variant=variant, steps=20, **PENALTY[variant])
    torch.testing.assert_close(made.sae.decoder.norm(dim=1), torch.ones(12))
    free = train_sae(listed(), 12, variant=variant, steps=20, unit_norm=False, **PENALTY[variant])
    assert float((free.sae.decoder.norm(dim=1) - 1).abs().max()) > 1e-3


def test_a_transcoder_learns_the_map_between_two_sites():
    mix = draws(16, 10, seed=60)
    pairs = ((x, torch.relu(x @ ATOMS.T - 0.3)[:, :16] @ mix) for x in planted())
    made = train_sae(pairs, 64, variant="topk", k=6, steps=600, lr=5e-3, pre_bias=False)
    x = next(planted(seed=77))
    y = torch.relu(x @ ATOMS.T - 0.3)[:, :16] @ mix
    left = (y - made.sae(x).reconstruction).square().sum() / (y - y.mean(0)).square().sum()
    assert made.sae.d_out == 10 and float(left) < 0.4
    with pytest.raises(ModelError, match="pre_bias=False"):
        train_sae(((x, y) for _ in range(3)), 8, variant="topk", k=2, steps=2)


@pytest.mark.parametrize("variant", PENALTY)
def test_the_same_seed_gives_the_same_bits_and_global_generators_are_left_alone(variant):
    torch.manual_seed(3)
    np.random.seed(3)
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    options = dict(variant=variant, steps=30, dead="resample", dead_after=20, resample_every=5, **PENALTY[variant])
    one = train_sae(listed(), 24, seed=7, **options)
    torch.manual_seed(99)
    two = train_sae(iter(listed() * 4), 24, seed=7, **options)
    same(one, two)
    torch.manual_seed(3)
    assert torch.equal(torch.get_rng_state(), before) and np.array_equal(np.random.get_state()[1], numbers)
    assert not torch.equal(train_sae(listed(), 24, seed=8, **options).sae.w_enc, one.sae.w_enc)


@pytest.mark.parametrize("options", [
    *({"variant": v, **p} for v, p in PENALTY.items()),
    {"variant": "relu", "l1": 0.1, "tied": True}, {"variant": "topk", "k": 2, "norm": "layer"},
    {"variant": "relu", "l1": 3.0, "dead": "resample", "dead_after": 30, "resample_every": 4}])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(options, tmp_path):
    whole = train_sae(listed(), 24, steps=23, **options)

    class Halt(Exception):
        pass

    def stop(step, metrics):
        if step == 13:
            raise Halt

    path = tmp_path / "run.safetensors"
    with pytest.raises(Halt):
        train_sae(listed(), 24, steps=23, checkpoint=path, checkpoint_every=5, progress=stop, **options)
    seen = []
    resumed = train_sae(listed(), 24, steps=23, resume=path, checkpoint_every=5, progress=lambda n, m: seen.append(n),
                        **options)
    assert seen == list(range(11, 24))
    same(resumed, whole)
    same(train_sae(listed(), 24, steps=23, resume=path, **options), whole)
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_source_that_can_begin_anywhere_is_asked_to(tmp_path):
    asked = []

    def source(start):
        asked.append(start)
        return itertools.islice(itertools.cycle(listed()), start, None)

    path = tmp_path / "run.safetensors"
    whole = train_sae(source, 12, steps=20, variant="topk", k=3)
    with pytest.raises(ZeroDivisionError):
        train_sae(source, 12, steps=20, variant="topk", k=3, checkpoint=path, checkpoint_every=4,
                  progress=lambda n, m: 1 / (10 - n))
    same(train_sae(source, 12, steps=20, variant="topk", k=3, resume=path), whole)
    assert asked == [0, 0, 8]


def test_a_run_that_is_killed_goes_on_from_its_checkpoint(tmp_path):
    """The process is ended with SIGKILL in the middle; what it left is continued here."""
    script = textwrap.dedent("""
        import sys, torch
        torch.set_num_threads(1)
        from test_sae_training import listed
        from hooklab.sae import train_sae
        train_sae(listed(), 24, steps=100_000, variant="relu", l1=0.5, checkpoint=sys.argv[1], checkpoint_every=1,
                  warmup=0.0, decay=0.0, progress=lambda n, m: print(n, flush=True))
    """)
    path = tmp_path / "run.safetensors"
    root = Path(__file__).parent.parent
    env = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}", "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True, env=env)
    for line in child.stdout:
        if int(line) >= 25:
            child.send_signal(signal.SIGKILL)
            break
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    parts = [file.suffix for file in tmp_path.iterdir() if file != path]
    assert parts in ([], [".part"])

    class Halt(Exception):
        pass

    def run(until, **more):
        found = []

        def stop(step, metrics):
            found.append((step, metrics))
            if step >= until:
                raise Halt

        with pytest.raises(Halt):
            train_sae(listed(), 24, steps=100_000, variant="relu", l1=0.5, warmup=0.0, decay=0.0, progress=stop,
                      checkpoint_every=1, **more)
        return found

    resumed = run(200, resume=path)
    begun = resumed[0][0]
    whole = run(200, checkpoint=tmp_path / "whole.safetensors")
    assert 25 <= begun and resumed == whole[begun - 1:]
    assert path.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_checkpoints_are_never_taken_for_others_or_overwritten(tmp_path):
    path = tmp_path / "run.safetensors"
    options = dict(variant="topk", k=3, steps=6)
    train_sae(listed(), 12, checkpoint=path, **options)
    before = path.read_bytes()
    for wrong, words in (
            (dict(checkpoint=path), "resume="), (dict(resume=tmp_path / "none.safetensors"), "no checkpoint"),
            (dict(resume=path, lr=0.1), r"lr=0.001, not 0.1"), (dict(resume=path, k=2), "k=3, not 2"),
            (dict(checkpoint=tmp_path / "run.pt"), "safetensors"),
            (dict(checkpoint_every=0, checkpoint=path), "whole number")):
        with pytest.raises(ModelError, match=words):
            train_sae(listed(), 12, **{**options, **wrong})
    assert path.read_bytes() == before
    save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(before[:-40])
    for name, words in (("other", "no checkpoint"), ("cut", "cannot be read")):
        with pytest.raises(ModelError, match=words):
            train_sae(listed(), 12, resume=tmp_path / f"{name}.safetensors", **options)


@pytest.mark.parametrize("variant", list(PENALTY))
@pytest.mark.parametrize("tied", [False, True])
def test_dead_features_are_started_anew_at_what_is_reconstructed_worst(variant, tied):
    """A fifth of the features begins where no input reaches: only resampling brings them back."""
    dead = torch.arange(4)
    share = {}
    for what in ("none", "resample"):
        asked = Recipe(20, 80, variant, tied=tied, dead=what, dead_after=200, resample_every=10, lr=1e-4, warmup=0.0,
                       **PENALTY[variant])
        stream = Stream(planted(size=64))
        state = begin(asked, stream)
        name = "b_mag" if variant == "gated" else "b_enc"
        with torch.no_grad():
            state.params["b_enc"][dead] = state.params[name][dead] = -100.0
        start = state.params["b_dec"].detach().clone()
        for _ in range(30):
            state.history.append(advance(state, stream.next()))
        share[what] = [row[METRICS.index("dead")] for row in state.history]
        alive = bool((state.silent[dead] < 200).all())
        assert alive == (what == "resample")
        assert float((state.params["b_dec"].detach() - start).abs().max()) < 0.1
        torch.testing.assert_close(finished(state).decoder.norm(dim=1), torch.ones(20))
    assert share["none"][-1] == pytest.approx(0.2) and share["none"][:4] == share["resample"][:4] == [0.0] * 4
    assert share["resample"][9] == pytest.approx(0.2) and share["resample"][-1] == 0


def test_dead_features_of_a_transcoder_read_the_input_and_write_the_residual():
    mix = draws(16, 10, seed=60)
    stream = Stream((x, x @ mix) for x in planted(size=64))
    state = begin(Recipe(20, 80, l1=0.1, pre_bias=False, dead_after=64, resample_every=3, lr=1e-4), stream)
    with torch.no_grad():
        state.params["b_enc"][:4] = -100.0
    kept = state.params["w_enc"].detach()[:, 4:].clone()
    for _ in range(3):
        x, y = stream.next()
        state.history.append(advance(state, (x, y)))
    apart = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    read = torch.nn.functional.normalize(state.params["w_enc"].detach()[:, :4].T, dim=1)
    rows = (read @ apart.T).argmax(1)
    torch.testing.assert_close(read, apart[rows], atol=1e-5, rtol=1e-4)
    out = finished(state).pruned(slice(4, None))(x).reconstruction
    left = torch.nn.functional.normalize(y - out, dim=1)[rows]
    assert float((state.params["w_dec"].detach()[:4] * left).sum(1).min()) > 0.999
    torch.testing.assert_close(state.params["w_enc"].detach()[:, 4:], kept, atol=1e-3, rtol=1e-3)
    assert state.params["b_enc"].detach()[:4].tolist() == [0.0] * 4


def test_the_auxiliary_loss_is_what_dead_features_leave_of_the_error():
    recipe = Recipe(10, 5, "topk", k=2, dead="auxiliary", auxiliary=0.5)
    params = parameters(recipe, 6, draws(20, 6, seed=3), torch.Generator().manual_seed(0))
    x = draws(20, 6, seed=4)
    dead = torch.tensor([i in (1, 4, 6, 7, 9) for i in range(10)])
    found = loss(params, recipe, x, x, dead, 1.0)
    p = {name: t.detach().double().numpy() for name, t in params.items()}
    pre = (x.double().numpy() - p["b_dec"]) @ p["w_enc"] + p["b_enc"]
    kept = np.where(pre >= np.sort(pre, 1)[:, -2:-1], np.maximum(pre, 0), 0)
    residual = x.double().numpy() - kept @ p["w_dec"] - p["b_dec"]
    own = pre[:, dead.numpy()]
    own = np.where(own >= np.sort(own, 1)[:, -3:-2], np.maximum(own, 0), 0)
    wanted = 0.5 * ((residual - own @ p["w_dec"][dead.numpy()]) ** 2).sum(1).mean()
    assert float(found.auxiliary.detach()) == pytest.approx(wanted, rel=1e-5)
    assert float(found.error.detach()) == pytest.approx((residual ** 2).sum(1).mean(), rel=1e-5)
    assert float(found.whole.detach()) == pytest.approx(float(found.error.detach()) + wanted, rel=1e-6)
    assert float(loss(params, recipe, x, x, torch.zeros(10, dtype=torch.bool), 1.0).auxiliary.detach()) == 0


def test_thresholds_of_a_jumprelu_learn_from_a_box_around_them():
    recipe = Recipe(3, 5, "jumprelu", l0=2.0, bandwidth=0.4)
    threshold = torch.tensor([0.5, 1.0, 2.0])
    params = {"b_enc": torch.zeros(3, requires_grad=True), "log_threshold": threshold.log().requires_grad_()}
    pre = torch.tensor([[0.6, 0.7, 2.1], [0.1, 1.15, 5.0]], requires_grad=True)
    found = VARIANTS["jumprelu"](params, recipe, pre, pre)
    weights = torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]])
    assert found.features.tolist() == [[pytest.approx(0.6), 0, pytest.approx(2.1)], [0, pytest.approx(1.15), 5]]
    assert float(found.penalty.detach()) == pytest.approx(2.0 * 2.0)
    ((found.features * weights).sum() + found.penalty).backward()
    near = np.array([[1, 0, 1], [0, 1, 0]]) / 0.4
    to_threshold = -(near * (weights.numpy() * threshold.numpy() + 2.0 / 2)).sum(0)
    np.testing.assert_allclose(params["log_threshold"].grad, to_threshold * threshold.numpy(), rtol=1e-5)
    np.testing.assert_allclose(pre.grad, weights.numpy() * (pre.detach() > threshold).numpy(), rtol=1e-6)


def test_a_step_of_the_optimiser_is_that_of_adam():
    options = dict(variant="relu", l1=0.3, steps=12, lr=0.01, warmup=0.0, decay=0.0, dead="none", unit_norm=False, scale=1.0)
    made = train_sae(listed(), 9, **options)
    recipe = Recipe(9, **options)
    batches = listed()
    params = parameters(recipe, 6, torch.cat(batches * 4), torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(params.values(), lr=0.01)
    for step in range(12):
        x = batches[step % 8]
        f = torch.relu((x - params["b_dec"]) @ params["w_enc"] + params["b_enc"])
        left = x - f @ params["w_dec"] - params["b_dec"]
        value = left.square().sum(1).mean() + 0.3 * (f * params["w_dec"].norm(dim=1)).sum(1).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        assert made.history.values[step, 0] == pytest.approx(float(value.detach()), rel=1e-4)
    for name in ("w_enc", "b_enc", "w_dec", "b_dec"):
        torch.testing.assert_close(getattr(made.sae, name), params[name].detach(), atol=1e-4, rtol=1e-3)


def test_metrics_are_of_the_batch_they_belong_to():
    made = train_sae(listed(), 12, variant="topk", k=3, steps=8, lr=1e-12, warmup=0.0, decay=0.0, dead_after=100)
    stats = FeatureStats(12)
    for step, x in enumerate(listed()):
        features, out = made.sae.encode(x), made.sae(x).reconstruction
        row = dict(zip(METRICS, made.history.values[step], strict=True))
        assert row["l0"] == pytest.approx(float((features != 0).sum(1).double().mean()))
        assert row["explained_variance"] == pytest.approx(
            1 - float((x - out).square().sum() / (x - x.mean(0)).square().sum()), abs=1e-4)
        dead = stats.since >= 100 if stats.count >= 100 else torch.zeros(12)
        assert row["dead"] == pytest.approx(float(dead.double().mean()))
        stats.add(features)
    assert torch.equal(made.sae.statistics["last_active"], stats.since)


def test_the_centre_starts_at_the_geometric_median():
    x = torch.cat([draws(60, 4, seed=1), draws(5, 4, seed=2) + 500])
    at = geometric_median(x).double()

    def total(point):
        return float((x.double() - point).norm(dim=1).sum())

    steps = 1e-3 * torch.eye(4).double()
    assert all(total(at) <= total(at + sign * step) for step in steps for sign in (1, -1))
    assert total(at) < total(x.mean(0).double())
    many = torch.ones(5, 3)
    assert torch.equal(geometric_median(many), torch.ones(3))


def test_batches_are_handed_out_once_each_and_the_first_are_looked_at_before():
    stream = Stream(listed(3))
    ahead = stream.ahead(70)
    assert torch.equal(ahead, torch.cat(listed(3)))
    for wanted in listed(3) + listed(3)[:1]:
        x, y = stream.next()
        assert torch.equal(x, wanted) and y is x
    assert torch.equal(Stream(listed(3), 4).next()[0], listed(3)[1])
    with torch.inference_mode():
        made = [t.clone() for t in listed(2)]
    train_sae(made, 6, variant="topk", k=2, steps=3)
    with torch.no_grad():
        train_sae([t.double()[None] for t in listed(2)], 6, variant="topk", k=2, steps=3)


@pytest.mark.parametrize(("options", "batches", "words"), [
    (dict(variant="relu"), listed(), "l1="), (dict(variant="topk", k=2, l1=0.1), listed(), "not by l1"),
    (dict(variant="softmax", l1=1), listed(), "softmax"), (dict(variant="topk", k=99), listed(), "k=99"),
    (dict(variant="topk", k=2, learning_rate=1), listed(), "learning_rate"),
    (dict(variant="topk", k=2, wormup=0.1), listed(), "warmup"),
    (dict(variant="topk", k=2, warmup=0.9, decay=0.9), listed(), "shares"),
    (dict(variant="relu", l1=-1.0), listed(), "l1=-1.0"),
    (dict(variant="topk", k=2), iter(listed(3)), "come to an end"), (dict(variant="topk", k=2), [], "come to an end"),
    (dict(variant="topk", k=2), [torch.full((3, 4), float("nan"))], "finite"),
    (dict(variant="topk", k=2), ["text"], "tensor"), (dict(variant="topk", k=2), [(draws(3, 4),) * 3], "pair"),
    (dict(variant="topk", k=2), [draws(3, 4), draws(3, 5)], "several"),
    (dict(variant="topk", k=2), [draws(3000, 4), draws(3000, 4), draws(3, 5)], "now are of 5"),
    (dict(variant="topk", k=2), [draws(3, 4), draws(3, 4) / 0], "batch 1 holds"),
    (dict(variant="topk", k=2, dead="revive"), listed(), "revive"), (dict(variant="topk", k=2, norm="rms"), listed(), "rms"),
])
def test_what_cannot_be_trained_is_an_error_that_says_why(options, batches, words):
    with pytest.raises(ModelError, match=words):
        train_sae(batches, 12, steps=10, **options)
