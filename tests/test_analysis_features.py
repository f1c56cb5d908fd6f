"""Strongest features of every token, strongest contexts of every unit, and the way from one concept to another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import draws
from tiny_models import build

import hooklab as hl
from hooklab.analysis.contexts import max_activating
from hooklab.analysis.feature_rows import feature_writes, features
from hooklab.analysis.moments import interpolate
from hooklab.analysis.units import DashboardError
from hooklab.errors import LayerError, SiteError
from hooklab.sae import SAE

TEXTS = ["Mary went to the store", "The capital of France is Paris", "John", "When Mary and John went to the store, John"]
AT, N = "L2.resid_post", 40
DIRECTION = draws(144, seed=7)


@pytest.fixture(scope="module")
def lab():
    return hl.load("lab")


@pytest.fixture(scope="module")
def sae(lab):
    d = lab.facts.d_model
    return SAE(draws(d, N, seed=1) / d ** 0.5, draws(N, seed=2) / 3, draws(N, d, seed=3), draws(d, seed=4))


def each(model, site):
    """Values of each text, run alone: [text][pos …], and which tokens are special."""
    alone = [model.capture(text, site) for text in TEXTS]
    return [one[site][0].float() for one in alone], [torch.tensor(one.tokens.special[0]) for one in alone]


# Features of tokens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3])
def test_strongest_features_of_each_token_are_those_of_captured_activations(lab, sae, rows):
    found = features(lab, sae, TEXTS, k=4, at=AT, rows=rows, special=True)
    for text, x in enumerate(each(lab, AT)[0]):
        f = torch.relu((x - sae.b_dec) @ sae.w_enc + sae.b_enc).numpy()
        order = np.argsort(-f, axis=1, kind="stable")[:, :4]
        np.testing.assert_allclose(found.values[text], np.take_along_axis(f, order, 1), atol=1e-4)
        for pos, (ids, wanted) in enumerate(zip(found.ids[text], order, strict=True)):
            np.testing.assert_allclose(f[pos, ids[ids >= 0]], f[pos, wanted][ids >= 0], atol=1e-4)
        assert set(found.active[text]) == set(found.ids[text].reshape(-1)) - {-1}
        scores = found.scores(text=text)
        np.testing.assert_allclose(scores.values, f[:, list(found.active[text])].T, atol=1e-4)
        assert scores.axes == ("feature", "pos") and scores.coords["pos"][1].endswith(found.tokens.pieces[text][1])
        top = found.top(text)
        assert top.axes == ("pos", "rank") and top.labels[0, 0] == f"F{found.ids[text][0, 0]}"


def test_special_tokens_are_left_out_unless_asked_for(lab, sae):
    found, every = features(lab, sae, TEXTS, k=4, at=AT), features(lab, sae, TEXTS, k=4, at=AT, special=True)
    for text, (x, special) in enumerate(zip(*each(lab, AT), strict=True)):
        f = torch.relu((x - sae.b_dec) @ sae.w_enc + sae.b_enc).numpy()
        special = special.numpy()
        assert special.tolist() == [True] + [False] * (len(special) - 1)
        assert (found.ids[text][special] == -1).all() and np.isnan(found.values[text][special]).all()
        np.testing.assert_array_equal(found.ids[text][~special], every.ids[text][~special])
        scores = found.scores(text=text)
        assert np.isnan(scores.values[:, special]).all()
        np.testing.assert_allclose(scores.values[:, ~special], f[~special][:, list(found.active[text])].T, atol=1e-4)
        largest = [f[~special, i].max() for i in found.active[text]]
        assert largest == sorted(largest, reverse=True)
    with pytest.raises(DashboardError, match="special=True"):
        features(lab, sae, [[lab.tokens(TEXTS[0]).ids[0][0]]], at=AT)


def test_where_fewer_features_are_active_the_rest_is_empty(lab, sae):
    few = SAE(sae.w_enc, sae.b_enc - 1.5, sae.w_dec, sae.b_dec)
    found = features(lab, few, TEXTS[1], k=12, at=AT, special=True)
    f = torch.relu((lab.capture(TEXTS[1], AT)[AT][0] - few.b_dec) @ few.w_enc + few.b_enc)
    counts = (f > 0).sum(-1).tolist()
    assert min(counts) < 12 and len(set(counts)) > 1
    for row, values, count, wanted in zip(found.ids[0], found.values[0], counts, f, strict=True):
        there = min(count, 12)
        assert (row[there:] == -1).all() and (values[there:] == 0).all() and (values[:there] > 0).all()
        if count <= 12:
            assert set(row[:there].tolist()) == set(wanted.nonzero()[:, 0].tolist())
    assert "" in found.top().labels


def test_features_of_tokens_are_drawn_as_coloured_text(lab, sae):
    found = features(lab, sae, TEXTS[0], k=3, at=AT)
    chosen = found.active[0][:2]
    view = hl.view.tokens(found.scores(chosen))
    values = view.arrays()["values"]
    np.testing.assert_allclose(values, found.table[0][:, :2].T, atol=1e-6)
    assert [row["pieces"] for row in view.describe()["rows"]][0][-1].strip() == "store"
    assert view.describe()["which"] == "feature"
    view.close()


def test_what_a_feature_writes_is_its_row_or_what_the_mlp_makes_of_it(lab, sae):
    torch.testing.assert_close(feature_writes(lab, sae, AT), sae.w_dec)
    wide = lab.facts.d_mlp
    inner = SAE(draws(wide, N, seed=5), draws(N), draws(N, wide, seed=6), draws(wide))
    acts = lab.capture(TEXTS[0], ["L1.mlp_post", "L1.mlp_out"])
    moved = lab.capture(TEXTS[0], "L1.mlp_out", edits={"L1.mlp_post": lambda x: x + 2 * inner.w_dec[7]})["L1.mlp_out"]
    np.testing.assert_allclose((moved - acts["L1.mlp_out"])[0, 0] / 2, feature_writes(lab, inner, "L1.mlp_post")[7],
                               atol=1e-4)
    with pytest.raises(DashboardError, match="does not write"):
        feature_writes(lab, sae, "L1.ln2")


# Contexts ----------------------------------------------------------------------------------------------------------------


UNITS = {
    "a neuron": (("L2N5",), {}, "L2.mlp_post", lambda x: x[:, 5]),
    "a dimension of the stream": (("L1.resid_post",), {"feature": 3}, "L1.resid_post", lambda x: x[:, 3]),
    "a dimension of a head": (("L1H2.z",), {"feature": 4}, "L1.z", lambda x: x[:, 2, 4]),
    "a direction": ((DIRECTION,), {"at": "L1.resid_mid"}, "L1.resid_mid", lambda x: x @ DIRECTION),
    "the length of a head's write": ((lambda z: z[:, :, 1].norm(dim=-1),), {"at": "L1.result"}, "L1.result",
                                     lambda x: x[:, 1].norm(dim=-1)),
    "a head's attention to itself": ((lambda p: p[:, 2].diagonal(dim1=-2, dim2=-1),), {"at": "L1.pattern"}, "L1.pattern",
                                     lambda x: x[2].diagonal()),
}


def strongest(values, special, k, per):
    """(text, pos, value), in plain Python."""
    found = [(t, p, float(v[p])) for t, (v, s) in enumerate(zip(values, special, strict=True)) for p in range(len(v))
             if not s[p] and float(v[p]) != 0]
    if per == "text":
        texts = sorted({text for text, _, _ in found})
        found = [max((one for one in found if one[0] == text), key=lambda one: one[2]) for text in texts]
    return sorted(found, key=lambda one: -one[2])[:k]


@pytest.mark.parametrize("name", UNITS)
def test_strongest_contexts_of_a_unit_are_those_of_a_search_through_everything(lab, name):
    unit, options, site, read = UNITS[name]
    values, special = each(lab, site)
    numbers = [read(x) for x in values]
    for per in ("token", "text"):
        found = max_activating(lab, *unit, TEXTS, 5, 2, per=per, rows=3, **options)
        wanted = strongest(numbers, special, 5, per)
        np.testing.assert_allclose([one.value for one in found], [value for _, _, value in wanted], atol=1e-4, rtol=1e-4)
        assert len({(one.text, one.pos) for one in found}) == len(wanted)
        for one in found:
            assert float(numbers[one.text][one.pos]) == pytest.approx(one.value, abs=1e-4, rel=1e-4)
            around = slice(max(0, one.pos - 2), one.pos + 3)
            assert one.start == around.start and one.pieces == lab.tokens(TEXTS).pieces[one.text][around]
            np.testing.assert_allclose(one.values, numbers[one.text][around], atol=1e-4, rtol=1e-4)


def test_contexts_of_features_are_the_same_from_a_model_and_from_what_was_captured(lab, sae):
    class Mine:
        n_features = N
        encode = staticmethod(sae.encode)
        decode = staticmethod(sae.decode)

    values, special = each(lab, AT)
    wanted = strongest([torch.relu((x - sae.b_dec) @ sae.w_enc + sae.b_enc)[:, 6] for x in values], special, 4, "token")
    acts = lab.capture(TEXTS, [AT])
    for source, texts in ((lab, TEXTS), (acts, None)):
        for dictionary in (sae, Mine()):
            found = max_activating(source, dictionary, texts, k=4, at=AT, feature=6)
            assert [(one.text, one.pos) for one in found] == [(t, p) for t, p, _ in wanted]
            np.testing.assert_allclose([one.value for one in found], [v for _, _, v in wanted], atol=1e-4)


@pytest.mark.parametrize("name", UNITS)
def test_contexts_of_a_store_are_those_of_running_the_model(lab, name, stored):
    unit, options, _, _ = UNITS[name]
    for per in ("token", "text"):
        found = max_activating(stored, *unit, k=6, window=2, per=per, model=lab, **options)
        wanted = max_activating(lab, *unit, TEXTS, 6, 2, per=per, rows=1, **options)
        assert [(one.text, one.pos, one.start, one.pieces) for one in found] == [
            (one.text, one.pos, one.start, one.pieces) for one in wanted] and len(found) > 2
        for one, other in zip(found, wanted, strict=True):
            assert one.value == pytest.approx(other.value, abs=1e-4, rel=1e-4)
            np.testing.assert_allclose(one.values, other.values, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def stored(lab, tmp_path_factory):
    sites = sorted({site for _, _, site, _ in UNITS.values()} | {AT})
    return hl.extract(lab, TEXTS, sites, tmp_path_factory.mktemp("stored") / "acts").store


def test_a_selection_of_a_store_is_searched_alone_and_what_does_not_fit_is_said(lab, sae, stored, tmp_path):
    some = stored.where(id={stored.ids[1], stored.ids[3]})
    found = max_activating(some, sae, k=4, at=AT, feature=6, model=lab)
    wanted = max_activating(lab, sae, [TEXTS[1], TEXTS[3]], k=4, at=AT, feature=6)
    assert [(one.text, one.pos) for one in found] == [(one.text, one.pos) for one in wanted] and found
    last = hl.extract(lab, TEXTS, AT, tmp_path / "last", at="last").store
    other = hl.load(build("gpt2"))
    first = "made with weights|no layer|has"
    wrong = [((stored, "L2N5"), {}, DashboardError, "model=model"),
             ((lab, "L2N5", TEXTS), {"model": lab}, DashboardError, "model="),
             ((stored, "L2N5", TEXTS), {"model": lab}, DashboardError, "own texts"),
             ((stored, "L1N5"), {"model": lab}, SiteError, "L1.mlp_post is not in"),
             ((last, AT), {"feature": 1, "model": lab}, DashboardError, "some positions"),
             ((stored, AT), {"feature": 1, "model": other}, (DashboardError, SiteError, LayerError), first)]
    for args, options, kind, words in wrong:
        with pytest.raises(kind, match=words):
            max_activating(*args, **options)
    before = [value.clone() for value in stored[AT]]
    max_activating(stored, lambda x: x.zero_()[..., 0] + 1, at=AT, model=lab)
    assert all(torch.equal(a, b) for a, b in zip(before, stored[AT], strict=True))


def test_special_tokens_count_only_where_they_are_asked_for(lab):
    everything, special = each(lab, "L2.mlp_post")
    numbers = [x[:, 5] for x in everything]
    found = max_activating(lab, "L2N5", TEXTS, k=50, special=True)
    wanted = strongest(numbers, [torch.zeros_like(s) for s in special], 50, "token")
    assert len(found) == len(wanted) > len(max_activating(lab, "L2N5", TEXTS, k=50)) - 1


def test_what_is_no_single_unit_is_an_error_that_says_so(lab, sae):
    acts = lab.capture(TEXTS, ["L2.mlp_post"], at=-1)
    wrong = [((lab, "L2.mlp_post", TEXTS), {}, DashboardError, "which number"),
             ((lab, "L2N[3,4]", TEXTS), {}, DashboardError, "one neuron"),
             ((lab, "L1.z", TEXTS), {"feature": 3}, DashboardError, "one head"),
             ((lab, "L*.mlp_post", TEXTS), {"feature": 3}, DashboardError, "sites"),
             ((lab, sae, TEXTS), {"feature": 3}, DashboardError, "at="),
             ((lab, sae, TEXTS), {"at": AT}, DashboardError, "feature="),
             ((lab, draws(3), TEXTS), {"at": AT}, DashboardError, "3 numbers"),
             ((lab, draws(2, 3), TEXTS), {"at": AT}, DashboardError, "one vector"),
             ((lab, lambda x: x, TEXTS), {"at": AT}, DashboardError, "one number per token"),
             ((lab, "L2N3"), {}, DashboardError, "texts"),
             ((lab, "L2N3", TEXTS, 0), {}, DashboardError, "k=0"),
             ((lab, "L2N3", TEXTS), {"per": "word"}, DashboardError, "per="),
             ((lab, "L2N99999", TEXTS), {}, LayerError, "neuron"),
             ((lab, sae, TEXTS), {"at": AT, "feature": N}, LayerError, "feature"),
             ((acts, "L2N3", TEXTS), {}, DashboardError, "own texts"),
             ((acts, "L2N3"), {}, DashboardError, "some positions"),
             ((acts, "L1N3"), {}, SiteError, "not captured"),
             ((acts, "L*N3"), {}, SiteError, "one layer")]
    for args, options, kind, words in wrong:
        with pytest.raises(kind, match=words):
            max_activating(*args, **options)
    with pytest.raises(DashboardError, match="k="):
        features(lab, sae, TEXTS, k=0, at=AT)
    with pytest.raises(DashboardError, match="directions"):
        features(lab, draws(N, 3), TEXTS, at=AT)
    with pytest.raises(DashboardError, match="no text 1"):
        features(lab, sae, TEXTS[0], at=AT).top(1)
    with pytest.raises(DashboardError, match="not among"):
        features(lab, sae, TEXTS[0], k=1, at=AT).scores([-5])


# From one concept to another ---------------------------------------------------------------------------------------------


def test_an_activation_goes_from_one_concept_to_another_in_a_sweep(lab):
    d, shares = lab.facts.d_model, (0.0, 0.25, 0.5, 1.0)
    start, end = draws(d, seed=11) * 3, draws(d, seed=12) * 3
    line = f"prompt \"{TEXTS[0]}\"\nmetric logit(17)\n"
    swept = lab.run(line + f"sweep a in [0, 0.25, 0.5, 1]\nset {AT} @last to (1 - a) * {{start}} + a * {{end}}",
                    start=start, end=end).scores["hooked.logit"]
    arc = [interpolate(start.numpy(), end.numpy(), share, along="arc") for share in shares]
    round_ = lab.run(line + f"set {AT} @last to each {{points}}", points=arc).scores["hooked.logit"]
    for found, points in ((swept, [(1 - a) * start + a * end for a in shares]), (round_, map(torch.as_tensor, arc))):
        wanted = []
        for point in points:
            def put(x, point=point):
                return torch.cat([x[:, :-1], point.to(x).expand(len(x), 1, -1)], 1)

            wanted.append(float(lab.capture(TEXTS[0], "logits", edits={AT: put})["logits"][0, -1, 17]))
        np.testing.assert_allclose(found.values, wanted, atol=1e-4, rtol=1e-4)
    assert swept.axes == ("a",) and swept.coords["a"] == shares and np.ptp(swept.values) > 1e-3
