"""Feature dashboards against brute force over all activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import build

import hooklab as hl
from hooklab.analysis import counting, dashboard
from hooklab.analysis.dashboard import DashboardError, feature_dashboard
from hooklab.errors import LayerError, SiteError
from hooklab.sae import SAE, Dictionary, JumpReLU, TopK

TEXTS = ["Mary went to the store", "The capital of France is Paris", "John", "When Mary and John went to the store, John",
         "The Eiffel Tower is in the city of", "Mary gave a drink to John"]


@pytest.fixture(scope="module")
def lab():
    return hl.load("lab")


@pytest.fixture(scope="module")
def sae(lab):
    draw = torch.Generator().manual_seed(0)
    d = lab.facts.d_model
    enc, dec = torch.randn(d, 30, generator=draw), torch.randn(30, d, generator=draw)
    bias = -6.0 * torch.ones(30)
    bias[7] = -1e6  # never active
    return Dictionary(enc, bias, dec, torch.randn(d, generator=draw))


def everything(model, site, texts):
    """Activations of each text alone, [text][pos d], and which tokens are special."""
    alone = [model.capture(text, site) for text in texts]
    return [one[site][0].float().numpy() for one in alone], [np.array(one.tokens.special[0]) for one in alone]


def flat(values, special):
    return np.concatenate([v[~s] for v, s in zip(values, special, strict=True)])


def by_hand(values, special, feature, per, top):
    """(text, pos, value) of the strongest places, in plain Python."""
    found = [(t, p, float(v[p, feature])) for t, (v, s) in enumerate(zip(values, special, strict=True))
             for p in range(len(v)) if not s[p] and v[p, feature] != 0]
    if per == "text":
        best = {}
        for t, p, value in found:
            if t not in best or value > best[t][2]:
                best[t] = (t, p, value)
        found = list(best.values())
    return sorted(found, key=lambda one: (-one[2], one[0], one[1]))[:top]


def agree(contexts, wanted, values, feature):
    """Whether contexts are the wanted ones; those that differ by rounding alone may change places."""
    np.testing.assert_allclose([one.value for one in contexts], [one[2] for one in wanted], rtol=1e-4, atol=1e-4)
    for one in contexts:
        assert values[one.text][one.pos, feature] == pytest.approx(one.value, rel=1e-4, abs=1e-4)
    assert len({(one.text, one.pos) for one in contexts}) == len(wanted)


@pytest.mark.parametrize("per", ["text", "token"])
@pytest.mark.parametrize("rows", [1, 4])
def test_strongest_contexts_of_neurons_are_those_of_a_search_through_everything(lab, per, rows):
    values, special = everything(lab, "L2.mlp_post", TEXTS)
    found = feature_dashboard(lab, "L2.mlp_post", TEXTS, top=4, per=per, rows=rows, logits=0)
    for feature in range(0, 576, 37):
        agree(found.top(feature), by_hand(values, special, feature, per, 4), values, feature)


def test_counts_shares_and_ends_are_those_of_numpy(lab):
    values, special = everything(lab, "L2.mlp_post", TEXTS)
    together = flat(values, special)
    found = feature_dashboard(lab, "L2.mlp_post", TEXTS, bins=13, rows=1, logits=0)
    assert found.count == len(together)
    for i, key in enumerate(found.keys):
        column = together[:, key].astype(float)
        counts, edges = np.histogram(column[column != 0], bins=13, range=(min(column.min(), 0), column.max()))
        np.testing.assert_allclose(found.edges[i], edges, rtol=1e-6, atol=1e-9)
        assert found.counts[i].tolist() == counts.tolist()
        assert found.zero[i] == pytest.approx((column == 0).mean())
        assert found.density[i] == pytest.approx((column > 0).mean())
        assert (found.low[i], found.high[i]) == (column.min(), column.max())


def test_features_of_a_dictionary_are_its_encoding_of_the_site(lab, sae):
    values, special = everything(lab, "L2.resid_post", TEXTS)
    encoded = [sae.encode(torch.tensor(v)).numpy() for v in values]
    together = flat(encoded, special)
    found = feature_dashboard(lab, sae, TEXTS, at="L2.resid_post", top=3)
    assert (found.word, found.name, found.keys) == ("feature", "dictionary at L2.resid_post", tuple(range(30)))
    np.testing.assert_allclose(found.high, together.max(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.density, (together > 0).mean(0))
    np.testing.assert_allclose(found.norms, sae.w_dec.norm(dim=1).numpy(), rtol=1e-5)
    for feature in range(30):
        agree(found.top(feature), by_hand(encoded, special, feature, "text", 3), encoded, feature)


def test_a_dashboard_of_a_store_is_that_of_its_texts_and_runs_nothing(lab, sae, tmp_path, monkeypatch):
    store = hl.extract(lab, TEXTS, "L2.resid_post", tmp_path / "acts").store
    made = feature_dashboard(lab, sae, TEXTS, at="L2.resid_post", top=3)
    monkeypatch.setattr(type(lab), "capture", None)
    monkeypatch.setattr(lab.hf, "forward", None)
    for kept in (dashboard.KEPT, 0):  # with room for the second look, and without
        monkeypatch.setattr(dashboard, "KEPT", kept)
        found = feature_dashboard(lab, sae, store, at="L2.resid_post", top=3)
        assert found.count == made.count and found.tokens.ids == made.tokens.ids
        for name in ("zero", "density", "low", "high", "edges"):
            np.testing.assert_allclose(getattr(found, name), getattr(made, name), rtol=1e-4, atol=1e-4)
        assert np.abs(found.counts - made.counts).sum() <= 2 and found.counts.sum() == made.counts.sum()
        for key in range(30):
            best, wanted = ([one.value for one in these.top(key)] for these in (found, made))
            np.testing.assert_allclose(best, wanted, rtol=1e-4, atol=1e-4)
    view = hl.view.features(lab, sae, store, at="L2.resid_post", features=[3])
    assert view.facts["kind"] == "features"
    view.close()


def test_a_store_that_does_not_hold_what_a_dashboard_needs_is_refused(lab, sae, tmp_path):
    some = hl.extract(lab, TEXTS, ["L2.resid_post", "L1.resid_post"], tmp_path / "acts", at="last").store
    with pytest.raises(DashboardError, match="some positions only"):
        feature_dashboard(lab, sae, some, at="L2.resid_post")
    with pytest.raises(SiteError, match=r"L3\.resid_post is not in"):
        feature_dashboard(lab, sae, some, at="L3.resid_post")
    with hl.load(build("gpt2"), verify=False) as other, pytest.raises(DashboardError, match="does not have"):
        feature_dashboard(other, "L1.mlp_post", some)


def test_a_feature_that_is_never_active_has_no_contexts_and_counts_as_zero_everywhere(lab, sae):
    found = feature_dashboard(lab, sae, TEXTS, at="L2.resid_post", features=[7, 3])
    assert found.top(7) == [] and found.zero[0] == 1 and found.density[0] == 0 and found.counts[0].sum() == 0
    assert [contexts for _, _, contexts in found.ranges(7)] == [[]] * 4


class Mine:
    """Somebody else's dictionary."""

    n_features = 30

    def __init__(self, inner):
        self.inner = inner

    def encode(self, x):
        return self.inner.encode(x)

    def decode(self, x):
        return self.inner.decode(x)


def test_any_object_that_encodes_gives_the_same_dashboard(lab, sae):
    one, other = (feature_dashboard(lab, source, TEXTS, at="L2.resid_post", features=[3, 11, 20])
                  for source in (sae, Mine(sae)))
    assert one.counts.tolist() == other.counts.tolist()
    np.testing.assert_allclose(one.norms, other.norms, rtol=1e-4)
    np.testing.assert_allclose(one.logits["plain"].up_values, other.logits["plain"].up_values, rtol=1e-3, atol=1e-4)
    assert [c.pos for c in one.top(3)] == [c.pos for c in other.top(3)]


@pytest.mark.parametrize("activation", [TopK(4), JumpReLU(torch.linspace(0.5, 4, 30))])
def test_features_of_other_kinds_of_autoencoders_are_their_encoding(lab, sae, activation):
    values, special = everything(lab, "L2.resid_post", TEXTS)
    mine = SAE(sae.w_enc, torch.zeros(30), sae.w_dec, sae.b_dec, activation, scale=2.0)
    together = flat([mine.encode(torch.tensor(v)).numpy() for v in values], special)
    found = feature_dashboard(lab, mine, TEXTS, at="L2.resid_post", features=[3, 11, 20])
    np.testing.assert_allclose(found.density, (together > 0).mean(0)[[3, 11, 20]])
    np.testing.assert_allclose(found.high, together.max(0)[[3, 11, 20]], rtol=1e-3, atol=1e-3)
    before = torch.zeros(1, 30)
    moved = mine.changed(torch.zeros(1, lab.facts.d_model), before, before.index_fill(1, torch.tensor([11]), 1.0))
    assert found.norms[1] == pytest.approx(float(moved.norm()), rel=1e-4)


def test_a_direction_is_read_by_its_dot_product(lab):
    values, special = everything(lab, "L3.resid_pre", TEXTS)
    way = torch.randn(lab.facts.d_model, generator=torch.Generator().manual_seed(1))
    found = feature_dashboard(lab, way, TEXTS, at="L3.resid_pre")
    column = flat(values, special) @ way.numpy()
    np.testing.assert_allclose([found.low[0], found.high[0]], [column.min(), column.max()], rtol=1e-4, atol=1e-4)
    assert found.density[0] == pytest.approx((column > 0).mean())


def test_windows_hold_the_activations_and_tokens_around_the_place(lab):
    values, _ = everything(lab, "L1.mlp_post", TEXTS)
    found = feature_dashboard(lab, "L1N[5,100]", TEXTS, window=2)
    pieces = lab.tokens(TEXTS).pieces
    assert found.keys == (5, 100)
    for one in found.top(100):
        stop = min(len(pieces[one.text]), one.pos + 3)
        assert one.start == max(0, one.pos - 2)
        assert one.pieces == pieces[one.text][one.start:stop]
        np.testing.assert_allclose(one.values, values[one.text][one.start:stop, 100], rtol=1e-3, atol=1e-5)
        assert one.values[one.pos - one.start] == pytest.approx(one.value)


def test_examples_come_from_their_part_of_the_range_and_do_not_depend_on_batches(lab):
    told = []
    for rows in (1, 3, 16):
        found = feature_dashboard(lab, "L2N[8,95,198]", TEXTS, ranges=3, examples=2, rows=rows)
        for key in found.keys:
            parts = found.ranges(key)
            assert [high for _, high, _ in parts] == sorted((high for _, high, _ in parts), reverse=True)
            assert all(low < one.value <= high + 1e-6 for low, high, contexts in parts for one in contexts)
            told.append((key, [[(one.text, one.pos) for one in contexts] for _, _, contexts in parts]))
    assert told[:3] == told[3:6] == told[6:]
    assert any(contexts for _, parts in told for contexts in parts)


def test_equal_activations_stand_in_the_order_of_the_texts(lab):
    same = ["Mary went to the store"] * 5
    for per in ("text", "token"):
        found = feature_dashboard(lab, "L2N8", same, top=3, per=per, rows=2)
        first = found.top(8)
        assert [one.text for one in first][:3] == [0, 1, 2], per
        assert len({one.pos for one in first[:3]}) == 1


def test_special_tokens_count_only_when_asked_for(lab):
    without, with_ = (feature_dashboard(lab, "L0N3", TEXTS, special=special) for special in (False, True))
    assert with_.count - without.count == len(TEXTS)
    assert "special tokens left out" in without.note and "special" not in with_.note


def test_logits_are_the_write_times_the_unembedding(lab):
    found = feature_dashboard(lab, "L2N[3,17]", TEXTS, logits=5)
    out = lab.W.Out[2][[3, 17]].float()
    plain = out @ lab.W.U.float()
    folded = (out - out.mean(1, keepdim=True)) * lab.W.ln_final.float() @ lab.W.U.float()
    for name, wanted in (("plain", plain), ("normed", folded)):
        table = found.logits[name]
        for i in range(2):
            best = wanted[i].sort(descending=True)
            np.testing.assert_allclose(table.up_values[i], best.values[:5].numpy(), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(table.down_values[i], best.values.flip(0)[:5].numpy(), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(wanted[i][table.up[i]].numpy(), table.up_values[i], rtol=1e-3, atol=1e-4)
    piece = lab.tokenizer.decode([int(found.logits["plain"].up[0, 0])])
    assert found.vocabulary[int(found.logits["plain"].up[0, 0])].strip() == piece.strip()


def test_sites_that_do_not_write_to_the_stream_have_no_logits_and_say_so(lab):
    found = feature_dashboard(lab, "L2.mlp_pre", TEXTS, features=[1])
    assert found.logits == {} and "no logits" in found.note and np.isnan(found.norms).all()


def test_a_second_run_of_the_model_gives_what_kept_activations_give(lab, monkeypatch):
    kept = feature_dashboard(lab, "L2.mlp_post", TEXTS, features=range(40))
    monkeypatch.setattr(dashboard, "KEPT", 0)
    monkeypatch.setattr(counting, "CHUNK", 2000)
    again = feature_dashboard(lab, "L2.mlp_post", TEXTS, features=range(40))
    np.testing.assert_allclose(again.edges, kept.edges, rtol=1e-4, atol=1e-6)
    assert np.abs(again.counts - kept.counts).sum() <= 4  # one batch or several: the last digit of an activation may move
    assert [[c.pos for c in again.top(k)] for k in again.keys] == [[c.pos for c in kept.top(k)] for k in kept.keys]


def test_activations_that_are_not_finite_are_left_out_and_counted(lab):
    class Odd:
        n_features = 2

        def encode(self, x):
            found = torch.stack([x[..., 0].abs() + 1, x[..., 1].abs() + 1], -1)
            found[:, 2, 1] = torch.nan
            return found

        def decode(self, x):
            return torch.zeros(*x.shape[:-1], 144)

    found = feature_dashboard(lab, Odd(), TEXTS[:2], at="L1.resid_post", rows=1)
    assert found.odd.tolist() == [0, 2]
    assert np.isfinite(found.high).all() and found.counts[1].sum() == found.count - 2
    assert all(one.pos != 2 for one in found.top(1))


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_other_architectures_are_counted_as_well(family):
    model = hl.load(build(family))
    ids = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
    values = [model.capture([row], "L1.mlp_post")["L1.mlp_post"][0].float().numpy() for row in ids]
    found = feature_dashboard(model, "L1.mlp_post", ids, special=True, top=2, rows=3)
    together = np.concatenate(values)
    np.testing.assert_allclose(found.high, together.max(0), rtol=1e-3, atol=1e-5)
    assert found.count == 9


def test_what_cannot_be_looked_at_is_an_error_that_says_what_to_do(lab, sae):
    wrong = [(lambda: feature_dashboard(lab, sae, TEXTS), DashboardError, "at="),
             (lambda: feature_dashboard(lab, "L*.mlp_post", TEXTS), DashboardError, "one"),
             (lambda: feature_dashboard(lab, "L1.z", TEXTS), DashboardError, "axes"),
             (lambda: feature_dashboard(lab, "L1.mlp_pots", TEXTS), SiteError, "mlp_post"),
             (lambda: feature_dashboard(lab, "L1.mlp_post", TEXTS, features=[576]), LayerError, "576"),
             (lambda: feature_dashboard(lab, "L1.mlp_post", TEXTS, features=[1, 1]), DashboardError, "once"),
             (lambda: feature_dashboard(lab, "L1.mlp_post", TEXTS, features=[1.5]), DashboardError, "whole"),
             (lambda: feature_dashboard(lab, "L1.mlp_post", TEXTS, features=[]), DashboardError, "at least one"),
             (lambda: feature_dashboard(lab, "L1.mlp_post", TEXTS, top=0), DashboardError, "top=0"),
             (lambda: feature_dashboard(lab, "L1.mlp_post", TEXTS, per="word"), DashboardError, "text"),
             (lambda: feature_dashboard(lab, torch.ones(7), TEXTS, at="L1.resid_post"), DashboardError, "144"),
             (lambda: feature_dashboard(lab, sae, TEXTS, at="L1.mlp_post"), DashboardError, "trained")]
    for act, kind, word in wrong:
        with pytest.raises(kind, match=word.replace("*", r"\*")):
            act()
    with pytest.raises(DashboardError, match="not looked at"):
        feature_dashboard(lab, "L1N3", TEXTS).top(4)


def test_progress_is_told_and_ends(lab):
    heard = []
    feature_dashboard(lab, "L1N3", TEXTS, rows=2, progress=lambda done, total, what: heard.append((done, total)))
    assert heard[0] == (0, 6) and heard[-1] == (6, 6)
