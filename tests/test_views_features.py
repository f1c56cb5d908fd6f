"""The dashboard of features as a view: what travels, what is asked for, and what stands there without script."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

import hooklab as hl
from hooklab.analysis.dashboard import feature_dashboard
from hooklab.errors import ViewError
from hooklab.sae import Dictionary

TEXTS = ["Mary went to the store", "The capital of France is Paris", "John gave a drink to Mary",
         "When Mary and John went to the store, John"]
DTYPES = {"f32": np.float32, "i32": np.int32, "u8": np.uint8}


@pytest.fixture(scope="module")
def lab():
    return hl.load("lab")


@pytest.fixture(scope="module")
def numbers(lab):
    return feature_dashboard(lab, "L2.mlp_post", TEXTS, top=5, window=4)


@pytest.fixture
def view(numbers):
    made = hl.view.features(numbers)
    yield made
    made.close()


def decoded(data, table):
    return {name: np.frombuffer(data, DTYPES[one["kind"]], int(np.prod(one["shape"])), one["at"]).reshape(one["shape"])
            for name, one in table.items()}


def test_the_list_travels_when_the_view_opens(view, numbers):
    sent = decoded(view.blob, view.facts["arrays"])
    np.testing.assert_array_equal(sent["high"], numbers.high)
    np.testing.assert_allclose(sent["density"], numbers.density, rtol=1e-6)
    np.testing.assert_allclose(sent["norms"], numbers.norms, rtol=1e-6)
    assert view.facts["axes"][0]["keys"] == list(range(576)) and view.facts["word"] == "neuron"
    assert len(view.blob) < 16_000


def test_a_feature_is_answered_with_its_contexts_histogram_and_logits(view, numbers):
    reply, (data,) = view.answer("feature", {"key": 95})
    sent = decoded(data, reply["arrays"])
    i = numbers.index(95)
    assert sent["counts"].tolist() == numbers.counts[i].tolist()
    np.testing.assert_allclose(sent["edges"], numbers.edges[i], rtol=1e-6)
    wanted = [*numbers.top(95), *(one for _, _, part in numbers.ranges(95) for one in part)]
    np.testing.assert_array_equal(sent["values"], np.concatenate([one.values for one in wanted]))
    told = [*reply["contexts"], *(one for part in reply["ranges"] for one in part["contexts"])]
    assert [(one["text"], one["pos"], len(one["pieces"])) for one in told] == [
        (one.text, one.pos, len(one.pieces)) for one in wanted]
    up = reply["logits"]["plain"]["up"]
    assert [value for _, value in up] == numbers.logits["plain"].up_values[i].tolist()
    assert up[0][0].replace("·", " ") == numbers.vocabulary[int(numbers.logits["plain"].up[i, 0])]


def test_the_answer_is_plain_json(view):
    from hooklab.views import wire

    assert json.loads(json.dumps(wire.plain(view.answer("feature", {"key": 3})[0]), allow_nan=False))["key"] == 3


def test_a_feature_that_was_not_looked_at_is_an_error(view):
    with pytest.raises(ValueError, match="neuron 9999"):
        view.answer("feature", {"key": 9999})
    with pytest.raises(Exception, match="no neuron"):
        view.select(neuron=9999)


def test_a_chosen_neuron_brings_its_layer(view):
    assert view.select(neuron=17).selection == {"neuron": 17, "layer": 2}


def test_views_that_are_linked_choose_a_neuron_of_this_layer_only(lab, view):
    other = hl.view.features(lab, "L1.mlp_post", TEXTS, features=range(20))
    same = hl.view.features(lab, "L2.mlp_post", TEXTS, features=range(20))
    hl.view.link(view, other, same)
    view.select(neuron=17)
    assert same.selection == {"neuron": 17, "layer": 2} and other.selection == {}


@pytest.mark.parametrize(("site", "key"), [("L2.mlp_post", {"neuron": 5}), ("L1.mlp_pre", {"neuron": 5}),
                                           ("L3.resid_post", {"dims": 7}), ("embed", {"dims": 7})])
def test_the_selection_as_spec_text_runs_and_takes_the_unit_out(lab, site, key):
    view = hl.view.features(lab, site, TEXTS, features=[5, 7])
    run = lab.run(view.select(**key).spec)
    assert run.metrics["hooked"]["loss"] != run.metrics["main"]["loss"]


def test_a_feature_of_a_dictionary_is_spelled_with_the_dictionary(lab):
    draw = torch.Generator().manual_seed(0)
    d = lab.facts.d_model
    sae = Dictionary(torch.randn(d, 12, generator=draw), torch.zeros(12), torch.randn(12, d, generator=draw), torch.zeros(d))
    view = hl.view.features(lab, sae, TEXTS, at="L2.resid_post")
    view.select(feature=3)
    assert "zero dictionary.F3" in view.spec
    run = lab.run(view.spec, sae=sae)
    assert run.metrics["hooked"]["loss"] != run.metrics["main"]["loss"]


def test_a_dictionary_in_a_file_is_spelled_by_its_path(lab, tmp_path):
    from safetensors.torch import save_file

    draw, d, path = torch.Generator().manual_seed(0), lab.facts.d_model, tmp_path / "my sae.safetensors"
    save_file({"W_enc": torch.randn(d, 12, generator=draw), "b_enc": torch.zeros(12),
               "W_dec": torch.randn(12, d, generator=draw), "b_dec": torch.zeros(d)}, path)
    view = hl.view.features(lab, path, TEXTS, at="L2.resid_post").select(feature=3)
    run = lab.run(view.spec)
    assert run.metrics["hooked"]["loss"] != run.metrics["main"]["loss"]


def test_the_form_without_script_has_the_chosen_feature(view, numbers):
    text = view.select(neuron=95).static()
    assert "neuron 95" in text and "<script" not in text and len(text) < 100_000
    shown = re.findall(r'title="text (\d+), position (\d+): ', text)
    assert str(numbers.top(95)[0].text) == shown[0][0]
    bars = [int(count) for count in re.findall(r"<title>[^<]*: (\d+)</title>", text)]
    assert bars == [n for n in numbers.counts[numbers.index(95)].tolist() if n]


def test_hostile_text_is_shown_and_does_nothing(lab):
    hostile = '</script><img src=x onerror="alert(1)"> \u202e [31m'
    with pytest.warns(match="does not know"):
        view = hl.view.features(lab, "L2N5", [hostile, "Mary went"])
    page = view.to_html()
    assert "<img" not in page and "<img" not in view.static() and page.count("</script>") == 2
    reply, _ = view.answer("feature", {"key": 5})
    assert all(piece.isprintable() for one in reply["contexts"] for piece in one["pieces"])


def test_a_page_without_a_kernel_carries_the_strongest_features(view, numbers):
    carried = [given["key"] for _, given in view.answers()]
    strongest = np.argsort(-numbers.high)[:300]
    assert set(numbers.keys[i] for i in strongest) == set(carried)
    assert len(view.to_html()) > 10_000


def test_the_figure_has_the_counts_of_the_chosen_feature(view, numbers):
    figure = view.select(neuron=95).plot()
    (steps,) = figure.axes[0].patches
    assert steps.get_data().values.tolist() == numbers.counts[numbers.index(95)].tolist()
    widths = [bar.get_width() for bar in figure.axes[1].patches]
    assert max(widths) == pytest.approx(numbers.logits["normed"].up_values[numbers.index(95), 0])
    assert view.to_png()[:4] == b"\x89PNG"


def test_options_choose_the_logits(numbers):
    view = hl.view.features(numbers, show="plain")
    widths = [bar.get_width() for bar in view.plot().axes[1].patches]
    assert max(widths) == pytest.approx(numbers.logits["plain"].up_values[numbers.index(view._chosen()), 0])
    with pytest.raises(Exception, match="logits"):
        hl.view.features(numbers, show="softmax")


def test_a_closed_view_holds_nothing_and_says_so(numbers):
    view = hl.view.features(numbers)
    view.close()
    assert view.dashboard is None and view.blob == b""
    with pytest.raises(ViewError, match="closed"):
        view.answer("feature", {"key": 3})
    assert "neurons of L2.mlp_post" in repr(view)


def test_what_is_missing_is_said(lab, numbers):
    with pytest.raises(ViewError, match="which texts"):
        hl.view.features(lab, "L2.mlp_post")
    with pytest.raises(ViewError, match="already"):
        hl.view.features(numbers, top=3)


def test_thousands_of_features_open_with_little(lab):
    draw = torch.Generator().manual_seed(0)
    d, n = lab.facts.d_model, 5000
    sae = Dictionary(torch.randn(d, n, generator=draw) / 12, -2 * torch.ones(n), torch.randn(n, d, generator=draw),
                     torch.zeros(d))
    view = hl.view.features(lab, sae, TEXTS, at="L2.resid_post", logits=2, top=3)
    assert len(view.facts["axes"][0]["keys"]) == n and 3 * 4 * n <= len(view.blob) < 3 * 4 * n + 4_000
    assert len(view.static()) < 100_000


def test_the_feature_that_the_view_opens_with_travels_with_it(view):
    reply, (data,) = view.answer("feature", {"key": view.facts["first"]["key"]})
    sent = decoded(view.blob, view.facts["arrays"])
    assert sent["first"].tobytes() == data
    assert view.facts["first"]["contexts"] == reply["contexts"]
    assert view.facts["first"]["key"] == view.facts["axes"][0]["keys"][int(np.nanargmax(sent["high"]))]
