"""Ready-made plots that an experiment receives: the figures, what they are drawn from, and that they are kept."""

from __future__ import annotations

import json
import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from tiny_models import build, tokenizer

import hooklab as hl
from hooklab.bench import Bench, Plot
from hooklab.bench.plots import PLOTS
from hooklab.errors import RecordError

IDS = [3, 14, 15]


@pytest.fixture(scope="module")
def model():
    return hl.load(build("gpt2"), tokenizer=tokenizer(), verify=False)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "bench")


def lengths(model, prompt):
    """The lengths of the residual stream after each layer: [layer pos]."""
    acts = model.capture(prompt, ["L*.resid_post"], at="all")
    layers = range(model.facts.n_layers)
    return np.array([acts[f"L{i}.resid_post"].reshape(len(prompt), -1).norm(dim=-1).numpy() for i in layers])


def shown(figure):
    return np.asarray(figure.axes[0].images[0].get_array(), float)


def test_a_function_receives_the_figures_that_it_names_and_they_are_kept(bench, model):
    before, windows, seen = dict(matplotlib.rcParams), plt.get_fignums(), {}

    @bench.experiment
    @bench.plots("residual_stream", "layer_norms", losses="axes")
    def looked(model, prompt, residual_stream, layer_norms, losses):
        rows = [label.get_text() for label in residual_stream.axes[0].get_yticklabels()]
        seen["stream"] = shown(residual_stream)[[rows.index(f"L{i}.resid_post") for i in range(model.facts.n_layers)]]
        layer_norms.axes[0].set_title("mine")
        losses.plot([1, 2])
        return 3

    assert looked(model, IDS) == 3
    record = looked.record()
    assert np.allclose(seen["stream"], lengths(model, IDS), rtol=1e-4)
    assert set(record.figures) == {"residual_stream", "layer_norms", "losses"}
    assert [*record.arguments] == ["model", "prompt"] and record.about["troubles"] == []
    for path in record.figures.values():
        assert plt.imread(path).std() > 0 and path.with_suffix(".svg").read_text().rstrip().endswith("</svg>")
    assert "mine" in re.sub(r"<!--|-->", "", record.figures["layer_norms"].with_suffix(".svg").read_text())
    assert dict(matplotlib.rcParams) == before and plt.get_fignums() == windows
    assert record._repr_html_().count("<img") == 3


def test_options_and_arguments_of_a_plot_are_given_by_name_and_kept(bench, model):
    @bench.plots(left=Plot("residual_stream", data={"prompt": "a"}), right=Plot("residual_stream", data={"prompt": "b"}),
                 dots=Plot("qk_dot_products", {"layer": 1, "heads": [0]}, {"prompt": "a"}))
    @bench.experiment
    def compared(lm, a, b, left, right, dots):
        return [shown(left).shape[1], shown(right).shape[1], len([ax for ax in dots.axes if ax.images])]

    assert compared(model, [3, 14, 15, 9], [7]) == [4, 1, 1]
    kept = compared.record().about["needs"]["plots"]
    assert kept["dots"] == {"kind": "qk_dot_products", "options": {"layer": 1, "heads": [0]}, "data": {"prompt": "a"}}
    again = bench.rerun(compared.last)
    assert again.same and set(again.new.figures) == {"left", "right", "dots"}
    assert bench.restore(compared.last)(model, [3, 1], [7]) == [2, 1, 1]


def test_a_plot_uses_the_model_of_the_bench_where_the_call_has_none(tmp_path, model):
    bench = Bench(tmp_path / "b", model=model)
    kept = bench.experiment(bench.plots("residual_stream")(lambda prompt, residual_stream: shown(residual_stream).shape[1]))
    assert kept([3, 1]) == 2
    bare = Bench(tmp_path / "c")
    other = bare.experiment(bare.plots("residual_stream")(lambda prompt, residual_stream: 0))
    with pytest.raises(RecordError, match="drawn from a model, and the call has none"):
        other(IDS)
    with pytest.raises(RecordError, match="the call has 2 models"):
        bare.plots("residual_stream")(lambda a, b, prompt, residual_stream: 0)(model, build("llama"), IDS)
    assert len(bare.runs()) == 0


def test_what_the_caller_gives_is_not_drawn(bench):
    kept = bench.experiment(bench.plots("attention")(lambda x, attention=None: attention))
    assert kept(1, attention="mine") == "mine" and kept.record().figures == {}


@pytest.mark.parametrize("ask, said", [
    (lambda b: b.plots("atention")(lambda x: 0), 'no parameter atention.*Did you mean "attention"'),
    (lambda b: b.plots("attention")(lambda x: 0), "no parameter attention, by which it would get the plot"),
    (lambda b: b.plots(mine="residual_streem")(lambda mine: 0), 'no plot .residual_streem..*"residual_stream"'),
    (lambda b: b.plots(mine=Plot("attention", {"layr": 1}))(lambda mine: 0), 'no option .layr.*"layer"'),
    (lambda b: b.plots(mine=Plot("attention", {"layer": object()}))(lambda mine: 0), "is a number, text, or a list"),
    (lambda b: b.plots(mine=Plot("attention", data={"prompts": "x"}))(lambda mine: 0), 'not from .prompts.*"prompt"'),
    (lambda b: b.plots(mine=Plot("residual_stream", data={"prompt": "qestion"}))(lambda m, question, mine: 0)(
        build("gpt2"), IDS), 'the argument .qestion.*"question"'),
    (lambda b: b.plots(Plot("attention"))(lambda mine: 0), "with options it is mine=Plot"),
    (lambda b: b.plots()(lambda mine: 0), "or a ready-made plot: attention"),
])
def test_a_wrong_plot_is_an_error_that_names_the_nearest(bench, ask, said):
    with pytest.raises(RecordError, match=said):
        ask(bench)


def test_every_ready_made_plot_can_be_asked_for(bench):
    assert all(Plot(name).kind == name for name in PLOTS) and json.dumps(Plot("attention").plain())


def test_a_view_that_is_logged_or_returned_is_kept_as_a_page_of_its_own(bench):
    view = hl.view.of(hl.Scores(np.eye(2), ("layer", "head")))

    @bench.experiment
    def viewed():
        bench.log("heads", view)
        return {"view": view, "x": 1}

    viewed()
    record = viewed.record()
    view.close()
    assert set(record.figures) == {"heads", "result/view"} and record.result["x"] == 1
    for path in record.figures.values():
        page = path.read_text("utf-8")
        assert path.suffix == ".html" and page.lstrip().lower().startswith("<!doctype html")
    assert record.about["lost"] == [] and str(record.figures["heads"]) in record._repr_html_()
