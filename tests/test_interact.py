"""Controls over a spec: which control a value makes, what runs and what is dropped, how errors are shown."""

from __future__ import annotations

import gc
import threading
import weakref

import ipywidgets
import pytest
import torch

import hooklab as hl
from hooklab.errors import ViewError
from hooklab.problems import SpecError
from hooklab.views import controls, registry

TEXT = 'prompt "Mary went to the store"\nanswer " because"\nmetric prob\nscale L2.mlp by {c}'


@pytest.fixture(scope="module")
def model():
    return hl.load("lab")


@pytest.fixture
def box(model):
    made = []
    yield lambda spec=TEXT, *given, **names: made.append(hl.interact(spec, *(given or (model,)), **names)) or made[-1]
    for one in made:
        one.close()


class Counting:
    """A model that counts its runs, and waits at a gate when there is one."""

    def __init__(self, model, gate=None):
        self._inner, self._gate, self.ran = model, gate, []
        self.begun = threading.Event()

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def run(self, spec, **given):
        self.ran.append(dict(given["values"]))
        self.begun.set()
        if self._gate is not None:
            assert self._gate.wait(30)
        return self._inner.run(spec, **given)


@pytest.mark.parametrize(("value", "kind", "traits"), [
    ((0, 8), ipywidgets.IntSlider, {"min": 0, "max": 8, "step": 1, "value": 4}),
    ((0, 9, 3), ipywidgets.IntSlider, {"min": 0, "max": 9, "step": 3}),
    ((0.0, 8.0), ipywidgets.FloatSlider, {"min": 0.0, "max": 8.0, "value": 4.0}),
    ((0, 8, 0.5), ipywidgets.FloatSlider, {"min": 0.0, "max": 8.0, "step": 0.5, "value": 4.0}),
    ((-2, 2), ipywidgets.IntSlider, {"min": -2, "max": 2, "value": 0}),
    ([3, "a"], ipywidgets.Dropdown, {"value": 3}), ({"off": 0, "on": 5}, ipywidgets.Dropdown, {"value": 0, "label": "off"}),
    (True, ipywidgets.Checkbox, {"value": True}), ("Mary", ipywidgets.Text, {"value": "Mary"})])
def test_a_value_makes_its_control(value, kind, traits):
    made = controls.control("c", value)
    assert type(made) is kind
    assert {name: getattr(made, name) for name in traits} == traits
    assert made.description == "c"


def test_a_control_of_ipywidgets_is_taken_as_it_is_and_other_values_are_fixed():
    given = ipywidgets.FloatLogSlider(value=10)
    assert controls.control("c", given) is given
    assert controls.control("c", 3) is None
    assert controls.control("c", torch.ones(2)) is None
    with pytest.raises(ViewError, match="has no value"):
        controls.control("c", ipywidgets.VBox([]))


@pytest.mark.parametrize(("value", "says"), [
    ((8, 0), "low comes before high"), ((0, 8, 0), "above 0"), ((1,), "give a list"), (("a", "b"), "give a list"),
    ([], "nothing to choose"), ((True, 3), "give a list")])
def test_a_range_that_is_none_is_refused(value, says):
    with pytest.raises(ViewError, match=says):
        controls.control("c", value)


def test_the_first_run_is_there_at_once_and_follows_the_slider(model, box):
    made = box(c=(0, 8))
    assert made.run.metrics == model.run(TEXT, c=4).metrics
    made.controls["c"].value = 7
    assert made.run.metrics == model.run(TEXT, c=7).metrics
    assert made.values == {"c": 7}
    assert made.spec.endswith("by 7")


def test_the_present_spec_pasted_is_the_present_run(model, box):
    v = torch.ones(model.facts.d_model)
    made = box('prompt {p}\nanswer " because"\nmetric prob\nsteer L2.resid by {k} * {v}', p=["Mary went to the store"],
               k=(-2.0, 2.0, 0.5), v=v)
    made.controls["k"].value = -1.5
    assert made.spec.splitlines()[-1] == "steer L2.resid_post by -1.5 * {v}"
    assert model.run(made.spec, v=v).metrics == made.run.metrics


@pytest.mark.parametrize(("names", "says"), [
    ({}, r"\{c\} has no value"), ({"c": 1, "d": 2}, r"no \{d\}"), ({"cc": 1}, 'no {cc}. Did you mean "c"')])
def test_names_that_are_missing_or_too_many_are_refused(names, says, model):
    with pytest.raises(ViewError, match=says):
        hl.interact(TEXT, model, **names)


def test_braces_that_hold_more_than_a_name_go_by_their_text(model, box):
    made = box(TEXT.replace("{c}", "{2 * k}"), values={"2 * k": (0, 8)})
    assert made.run.metrics == model.run(TEXT, c=4).metrics
    with pytest.raises(ViewError, match="values="):
        hl.interact(TEXT.replace("{c}", "{2 * k}"), model, k=(0, 8))


def test_the_model_line_names_the_model_and_without_one_it_is_asked_for():
    made = hl.interact('model "lab"\n' + TEXT, c=2)
    assert set(made.run.metrics) == {"main", "hooked"}
    made.close()
    with pytest.raises(ViewError, match='model "lab"'):
        hl.interact(TEXT, c=2)


def test_a_text_that_cannot_be_read_is_refused_at_once(model):
    with pytest.raises(SpecError, match="stear"):
        hl.interact("stear L2", model)


def test_an_error_is_shown_in_its_own_words_and_goes_away(box):
    made = box(c=ipywidgets.Text("2"))
    assert "scale" in made.error or "number" in made.error
    assert made.update() is None
    text = made.children[1].value
    assert "hl-problem" in text
    assert made.error.splitlines()[0].split("(")[0].strip() in text.replace("&quot;", '"').replace("&#x27;", "'")
    assert made.run is None


def test_an_error_keeps_the_run_before_it(model, box):
    made = box(TEXT.replace("{c}", "{v}"), v={"good": 2.0, "bad": torch.ones(7)})
    before = made.run
    made.controls["v"].label = "bad"
    assert "shape" in made.error or "takes a value" in made.error
    assert made.run is before
    assert made.children[2].children == ()
    made.controls["v"].label = "good"
    assert made.error == ""
    assert len(made.children[2].children) > 0


def test_hostile_text_in_an_error_is_inert(box):
    made = box('prompt "Mary went to the store"\nanswer {a}\nmetric prob', a="<img src=x onerror=alert(1)>")
    assert made.error
    assert "<img" not in made.children[1].value


def test_with_a_button_nothing_runs_until_it_is_pressed(model, box):
    counting = Counting(model)
    made = box(TEXT, counting, c=(0, 8), auto=False)
    made.controls["c"].value = 2
    made.controls["c"].value = 3
    assert (counting.ran, made.run) == ([], None)
    assert "press Run" in made.children[1].value
    made._button.click()
    assert counting.ran == [{"c": 3}]
    assert made.run.metrics == model.run(TEXT, c=3).metrics


def test_a_dragged_slider_runs_the_first_and_the_last_value_only(model, box):
    gate = threading.Event()
    counting = Counting(model, gate)
    made = box(TEXT, counting, c=(0, 60), auto=False)
    made._auto = True
    first = threading.Thread(target=lambda: setattr(made.controls["c"], "value", 1))
    first.start()
    assert counting.begun.wait(30)
    shown = []
    made.observe(lambda change: shown.append(change["new"].given["c"]), "run")
    for value in range(2, 52):
        made.controls["c"].value = value  # while the first is under way
    gate.set()
    first.join(60)
    assert [values["c"] for values in counting.ran] == [1, 51]
    assert shown == [51]  # what was overtaken is not shown
    assert made.run.metrics == model.run(TEXT, c=51).metrics


def test_a_run_waits_for_the_model_and_takes_the_values_of_then(model, box):
    counting = Counting(model)
    made = box(TEXT, counting, c=(0, 8), auto=False)
    with model.interleaver.lock:
        waiting = threading.Thread(target=made.update)
        waiting.start()
        made.controls["c"].value = 8
        waiting.join(0.3)
        assert waiting.is_alive()
        assert counting.ran == []
    waiting.join(60)
    assert made.run is not None


def test_views_of_a_former_run_are_closed(box):
    made = box(c=(0, 8))
    before = weakref.ref(made.children[2].children[0])
    made.controls["c"].value = 1
    assert before() not in made.children[2].children
    gc.collect()
    assert before() is None or before().comm is None


def test_closing_takes_everything_off_the_page(model):
    made = hl.interact(TEXT, model, c=(0, 8))
    shown = made.children[2].children
    registry.close_all()
    assert made.comm is None
    assert all(one.comm is None for one in shown)
    with pytest.raises(ViewError, match="closed"):
        made.update()


def test_a_claim_that_does_not_hold_is_said_and_its_run_is_shown(box):
    made = box(TEXT + "\nexpect hooked.prob > 2", c=(0, 8))
    assert "does not hold" in made.error
    assert made.run is not None


def test_the_run_can_be_observed(box):
    made = box(c=(0, 8))
    seen = []
    made.observe(lambda change: seen.append(change["new"].given["c"]), "run")
    made.controls["c"].value = 6
    assert seen == [6]
    assert "c=6" in repr(made)
