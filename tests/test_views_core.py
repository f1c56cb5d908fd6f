"""The core of the views: what travels, what is chosen, who answers, which views belong together, and what is left behind."""

from __future__ import annotations

import base64
import gc
import json
import math
import re
import struct
import sys
import threading
import types
import weakref
import zlib

import ipywidgets
import numpy as np
import pytest
import traitlets

from hooklab.errors import RecordError, ViewError
from hooklab.views import axes, base, colours, page, registry, text, wire
from hooklab.views.assets import STATIC
from hooklab.views.base import View

HOSTILE = "</script><script>window.bad=1</script><img src=x onerror=window.bad=1>\u202e\ud800\x1b[31m\n"


class Probe(View):
    """A view of numbers that answers, waits and fails on demand."""

    KIND = "grid"
    OPTIONS = {"mode": ("plain", "signed"), "most": (), "sure": (False, True)}

    def __init__(self, given=None, *, values=None, facts=None, plain="<p>plain</p>", **options):
        self._values = np.arange(6, dtype=np.float32).reshape(2, 3) if values is None else values
        self._facts, self._plain = facts or {}, plain
        self.gate, self.inside, self.freed = threading.Event(), threading.Event(), 0
        super().__init__(given or [axes.axis("layer", (0, 1)), axes.axis("head", (0, 1, 2))], **options)
        self.draw()

    def describe(self):
        return self._facts

    def arrays(self):
        return {"values": self._values}

    def asks(self):
        return {"row": self.row, "wait": self.wait, "fail": self.fail, "odd": lambda: ({"x": math.nan}, [])}

    def answers(self):
        for row in range(len(self._values)):
            yield "row", {"row": row}
        yield "fail", {}

    def row(self, row):
        return {"row": row}, [self._values[row].tobytes()]

    def wait(self):
        self.inside.set()
        assert self.gate.wait(60)
        return {"sum": float(self._values.sum())}, []

    def fail(self):
        raise ViewError(f"no <b> {HOSTILE}")

    def spell(self, selection):
        if selection.get("head") == 2:
            raise ViewError("head 2 has\nno spelling")
        return f"zero L{selection['layer']}H{selection['head']}" if {"layer", "head"} <= set(selection) else ""

    def static(self):
        return self._plain

    def release(self):
        self.freed += 1
        super().release()


@pytest.fixture(autouse=True)
def nothing_is_left_open():
    yield
    registry.close_all()


@pytest.fixture
def sent(monkeypatch):
    """Messages that views sent: (view, message, buffers)."""
    found = []
    monkeypatch.setattr(View, "send", lambda self, content, buffers=None: found.append((self, content, buffers)))
    return found


def positions(count, name="pos", start=0):
    return axes.axis(name, [f"{i}: t{i}" for i in range(start, start + count)])


# Codes ---------------------------------------------------------------------------------------------------------------

# kind, low, high, value -> code, counted by hand; widgets/tests/codes.test.ts has the same rows.
CODES = [
    ("linear", 0.0, 1.0, 0.0, 4), ("linear", 0.0, 1.0, 1.0, 255), ("linear", 0.0, 1.0, 0.5, 130),
    ("linear", 0.0, 251.0, 0.5, 4), ("linear", 0.0, 251.0, 1.5, 6), ("linear", 0.0, 251.0, 2.5, 6),
    ("linear", -1.0, 3.0, -9.0, 4), ("linear", -1.0, 3.0, 9.0, 255), ("linear", 0.0, 0.0, 0.0, 4),
    ("probability", 0.0, 1.0, 0.25, 130), ("probability", 0.0, 1.0, 1e-6, 4), ("probability", 0.0, 1.0, 4e-6, 5),
    ("diverging", -2.0, 2.0, 0.0, 130), ("diverging", -2.0, 2.0, 2.0, 255), ("diverging", -2.0, 2.0, -2.0, 5),
    ("diverging", -125.0, 125.0, 0.5, 130), ("diverging", -125.0, 125.0, 1.5, 132), ("diverging", -125.0, 125.0, -0.5, 130),
    ("diverging", -125.0, 125.0, -1.5, 128), ("diverging", 0.0, 0.0, 0.5, 192),
    ("linear", 0.0, 1.0, math.nan, 1), ("diverging", -1.0, 1.0, math.inf, 2), ("probability", 0.0, 1.0, -math.inf, 3),
]


@pytest.mark.parametrize(("kind", "low", "high", "value", "code"), CODES)
def test_a_number_has_the_code_counted_by_hand(kind, low, high, value, code):
    assert wire.Scale(kind, low, high).codes([value]).tolist() == [code]


def single(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


@pytest.mark.parametrize("kind", wire.SCALES)
def test_codes_are_counted_in_double_from_single_numbers_as_the_front_end_does(kind):
    scale = wire.Scale(kind, -0.7 if kind != "probability" else 0.0, 0.7)
    values = np.random.default_rng(0).normal(scale=0.4, size=2000).astype(np.float32)

    def by_hand(value):
        if kind == "diverging":
            return 130 + round(125 * min(1.0, max(-1.0, value / scale.high)))
        share = min(1.0, max(0.0, (value - scale.low) / (scale.high - scale.low)))
        return 4 + round(251 * (math.sqrt(share) if kind == "probability" else share))

    assert scale.codes(values).tolist() == [by_hand(single(value)) for value in values.tolist()]


@pytest.mark.parametrize("kind", wire.SCALES)
def test_every_code_comes_back_from_the_value_that_it_stands_for(kind):
    scale = wire.Scale(kind, 0.0 if kind == "probability" else -3.0, 3.0)
    own = np.arange(5 if kind == "diverging" else 4, 256)
    assert scale.codes(scale.values(own)).tolist() == own.tolist()
    assert np.isnan(scale.values([0, 1])).all()
    assert scale.values([2, 3]).tolist() == [math.inf, -math.inf]


def test_a_scale_that_is_none_is_an_error():
    for kind, low, high in (("log", 0, 1), ("linear", 1.0, 0.0), ("linear", 0.0, math.nan), ("linear", 0.0, math.inf)):
        with pytest.raises(ViewError, match="scale"):
            wire.Scale(kind, low, high)


def test_a_fitting_scale_reaches_from_zero_to_the_largest_finite_number():
    assert wire.fitting([1.0, 3.0, math.inf]) == wire.Scale("linear", 0.0, 3.0)
    assert wire.fitting([-4.0, 3.0, math.nan]) == wire.Scale("diverging", -4.0, 4.0)
    assert wire.fitting([]) == wire.fitting([0.0, math.nan]) == wire.Scale("linear", 0.0, 1.0)
    assert wire.fitting([-5.0, 1.0], kind="linear") == wire.Scale("linear", -5.0, 1.0)
    assert wire.fitting([-5.0, -1.0], kind="linear") == wire.Scale("linear", -5.0, 0.0)
    assert wire.fitting([0.5], kind="probability") == wire.Scale("probability", 0.0, 1.0)


def test_colours_of_odd_codes_differ_from_those_of_numbers():
    for kind in wire.SCALES:
        table = colours.for_codes(kind)
        assert (table.shape, table.dtype) == ((256, 4), np.uint8)
        assert table[wire.MASKED].tolist() == [0, 0, 0, 0]
        assert (table[1:, 3] == 255).all()
        assert table[wire.NAN].tolist()[:3] == [128, 128, 128]


# What travels --------------------------------------------------------------------------------------------------------


def test_arrays_of_every_kind_lie_in_the_block_where_the_table_says():
    given = {"a": np.array([[1, 255]], np.uint8), "b": np.array([1, 65535, 7], np.uint16), "c": np.array([-5], np.int32),
             "d": np.array([1.5, -0.25, np.nan], np.float16), "e": np.array([[1.25], [np.inf]], ">f4"),
             "f": np.zeros((0, 3), np.float32), "g": np.float32(2.5).reshape(())}
    block = wire.pack(given)
    kinds = {"u8": "B", "u16": "H", "i32": "i", "f16": "e", "f32": "f"}
    for name, array in given.items():
        entry = block.table[name]
        assert entry["at"] % 8 == 0 and entry["shape"] == list(array.shape)
        read = struct.unpack_from(f"<{array.size}{kinds[entry['kind']]}", block.data, entry["at"])
        np.testing.assert_array_equal(np.array(read), array.reshape(-1).astype(float))
    assert wire.pack({}).data == b""


def test_an_array_of_another_kind_does_not_travel():
    for array in (np.zeros(1), np.zeros(1, np.int64), np.zeros(1, bool)):
        with pytest.raises(ViewError, match="x is .*; a view takes uint8"):
            wire.pack({"x": array})


def test_a_triangle_is_the_lower_half_row_by_row():
    square = np.arange(2 * 9).reshape(2, 3, 3)
    assert wire.triangle(square).tolist() == [[0, 3, 4, 6, 7, 8], [9, 12, 13, 15, 16, 17]]


def test_plain_values_can_be_read_by_any_json_reader():
    odd = {"n": [math.nan, math.inf, -math.inf], 3: np.float32(0.5), "t": ("a\ud800b", None, True), "a": np.array([[1, 2]]),
           "o": {1: np.bool_(True)}, "\udc00": 1}
    found = json.loads(json.dumps(wire.plain(odd), allow_nan=False).encode("utf-8"))
    assert found == {"n": ["nan", "inf", "-inf"], "3": 0.5, "t": ["a\\ud800b", None, True], "a": [[1, 2]], "o": {"1": True},
                     "\\udc00": 1}


def test_what_a_view_holds_is_a_copy_on_the_cpu():
    import torch

    tensor = torch.arange(4, dtype=torch.bfloat16, requires_grad=True)
    held = wire.held(tensor, "values")
    assert held.tolist() == [0, 1, 2, 3] and held.dtype == np.float32
    array = np.arange(3, dtype=np.float32)
    copy = wire.held(array, "values")
    array[0] = 9
    assert copy.tolist() == [0, 1, 2]


def test_what_is_no_real_number_is_not_held():
    for odd in (np.array([1j]), ["a"], [[1], [1, 2]], None):
        with pytest.raises(ViewError, match="weights"):
            wire.held(odd, "weights")
    with pytest.raises(ViewError, match="weights reach 1e\\+300"):
        wire.held(np.array([1e300]), "weights")
    assert wire.held(np.array([np.inf]), "weights").tolist() == [math.inf]


# Text and axes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "shown"), [
    (" Mary ", "·Mary·"), ("   ", "···"), ("", ""), ("a\tb", "a\\tb"), ("\u202eabc", "\\u202eabc"), ("\ud800", "\\ud800"),
    ("\x1b[31m", "\\x1b[31m"), ("می\u200cروم", "می\u200cروم"), ("👩\u200d💻", "👩\u200d💻"),
    ("\u00a0x", "\\xa0x"), (7, "7")])
def test_text_shows_what_is_there(given, shown):
    assert text.shown(given) == shown


def test_cut_text_says_how_long_it_was():
    assert text.shown("ab" * 100, 10) == "ababababab… (200 characters)"
    assert text.shown("ab" * 60) == "ab" * 60


def test_labels_become_keys_that_can_be_said():
    assert axes.axis("pos", ["3: Mary", "5:  John"]).keys == (3, 5)
    assert axes.axis("pos", ["3: Mary", "5:  John"]).labels == ("Mary", "·John")
    assert axes.axis("site", ["3: Mary"]).keys == ("3: Mary",)
    assert axes.axis("layer", [np.int64(4), 7]).keys == (4, 7)
    assert axes.axis("pair", [(1, 2), None]).keys == ("(1, 2)", "None")
    assert axes.axis("c", [math.nan, 0.5]).keys == ("nan", 0.5)


def test_an_entry_is_found_by_its_key_and_a_position_from_the_end():
    axis = positions(3)
    assert [axis.index(key) for key in (0, 2, -1, -3, np.int64(1), np.int64(-1), 1.0)] == [0, 2, 2, 0, 1, 2, 1]
    layers = axes.axis("layer", (5, 7))
    assert layers.index(7) == 1
    for key in (-1, 0, 1, "5", True, None, 5.5, [5], {}):
        with pytest.raises(ViewError, match="no layer"):
            layers.index(key)


def test_true_and_one_are_two_keys():
    axis = axes.axis("causal", (False, True))
    assert [axis.index(key) for key in (False, True)] == [0, 1]
    with pytest.raises(ViewError, match="no causal 1"):
        axis.index(1)


def test_equal_labels_get_keys_of_their_own():
    axis = axes.axis("batch", ["a", "a", "a (2)", "a"])
    assert axis.keys == ("a", "a (2)", "a (2) (2)", "a (3)")
    assert axis.labels == ("a", "a", "a (2)", "a")
    with pytest.raises(ViewError, match="must differ"):
        axes.Axis("batch", ("a", "a"), ("a", "a"))
    with pytest.raises(ViewError, match="2 keys and 1 labels"):
        axes.Axis("batch", ("a", "b"), ("a",))


# Drawing -------------------------------------------------------------------------------------------------------------


def test_facts_and_data_leave_in_one_message(monkeypatch):
    view, sent = Probe(), []
    monkeypatch.setattr(view, "send_state", lambda key=None: sent.append(set(key) if not isinstance(key, str) else {key}))
    view._values = view._values + 1
    view._facts = {"n": 1}
    view.draw()
    assert sent == [{"facts", "blob"}]
    assert struct.unpack_from("<6f", view.blob, view.facts["arrays"]["values"]["at"]) == (1, 2, 3, 4, 5, 6)


def test_facts_hold_nothing_that_json_lacks():
    view = Probe(facts={"mean": math.nan, "label": "\ud800", "at": np.float32("inf")})
    assert (view.facts["mean"], view.facts["label"], view.facts["at"]) == ("nan", "\\ud800", "inf")
    json.dumps(view.get_state(["facts", "selection", "options", "_spec"]), allow_nan=False).encode("utf-8")


def test_a_view_that_would_send_too_much_is_an_error_and_leaves_nothing(monkeypatch):
    monkeypatch.setattr(base, "MOST_OPEN", 20)
    with pytest.raises(ViewError, match="choose fewer layers"):
        Probe()
    assert registry.close_all() == 0
    monkeypatch.undo()
    view = Probe()
    monkeypatch.setattr(base, "MOST_OPEN", 20)
    before = view.blob
    with pytest.raises(ViewError):
        view.draw()
    assert view.blob == before and not view._closed


def test_two_axes_of_one_name_are_an_error_and_say_nothing_on_the_way_out(capsys, recwarn):
    with pytest.raises(ViewError, match="different axes"):
        Probe([positions(2), positions(3)])
    gc.collect()
    assert "Exception ignored" not in capsys.readouterr().err
    assert not [one for one in recwarn if "unraisable" in str(one.message).lower()]


def test_what_is_chosen_stays_when_the_data_change_as_far_as_it_is_there():
    view = Probe().select(layer=1, head=0)
    view._axes = {"layer": axes.axis("layer", (1, 4)), "head": axes.axis("head", (1, 2))}
    view.draw()
    assert view.selection == {"layer": 1}


# Choosing ------------------------------------------------------------------------------------------------------------


def test_a_choice_is_kept_by_key_and_spelt():
    view = Probe([axes.axis("layer", (5, 7)), axes.axis("head", (1, 3)), positions(4)])
    view.select(layer=7, head=3)
    assert (view.selection, view.spec) == ({"layer": 7, "head": 3}, "zero L7H3")
    view.select(pos=-1)
    assert view.selection == {"layer": 7, "head": 3, "pos": 3}
    assert view.spec == "zero L7H3"
    view.select(head=None, pos=None)
    assert (view.selection, view.spec) == ({"layer": 7}, "")


def test_a_choice_that_cannot_be_spelt_says_so_in_one_comment():
    view = Probe().select(layer=1, head=2)
    assert view.spec == "# head 2 has\\nno spelling"


@pytest.mark.parametrize("junk", [{"layer": 9}, {"layer": True}, {"layer": [1]}, {"layer": {}}, {"laier": 1}, {"": 1},
                                  {"layer": None}, {"layer": "1"}, {"layer": 0, "head": -1}])
def test_a_wrong_choice_is_an_error_and_changes_nothing(junk):
    view = Probe().select(layer=1, head=1)
    with pytest.raises(ViewError):
        view.selection = junk
    assert (view.selection, view.spec) == ({"layer": 1, "head": 1}, "zero L1H1")


@pytest.mark.parametrize("junk", [{"layer": 9}, {"layer": [1]}, {"x": 1}, {"layer": None}, 5, None, "layer", [["layer", 1]]])
def test_junk_from_the_page_changes_nothing_and_is_answered_with_what_holds(junk, sent, monkeypatch):
    view = Probe().select(layer=1, head=1)
    told, heard = [], []
    monkeypatch.setattr(view, "send_state", lambda key=None: told.append(set(key) if not isinstance(key, str) else {key}))
    view.observe(lambda change: heard.append(change["new"]), "selection")
    view.set_state({"selection": junk})
    assert (view.selection, view.spec) == ({"layer": 1, "head": 1}, "zero L1H1")
    assert {"selection"} in told
    assert sent[-1][1].keys() == {"refused"}
    assert {"layer": 1, "head": 1} == (heard[-1] if heard else view.selection)


def test_a_choice_from_the_page_is_taken_in_the_views_own_keys():
    view = Probe([axes.axis("layer", (0, 1)), positions(3)])
    view.set_state({"selection": {"layer": 1.0, "pos": -1}})
    assert view.selection == {"layer": 1, "pos": 2}
    assert isinstance(view.selection["layer"], int)


def test_options_have_defaults_and_take_only_what_is_allowed():
    view = Probe(mode="signed")
    assert view.options == {"mode": "signed", "most": 0, "sure": False}
    view.options = {"most": np.int64(4)}
    assert view.options == {"mode": "signed", "most": 4, "sure": False}
    for wrong in ({"mode": "sined"}, {"most": "4"}, {"most": math.nan}, {"most": True}, {"sure": 1}, {"mod": "plain"},
                  {"mode": []}):
        with pytest.raises(ViewError):
            view.options = wrong
        assert view.options == {"mode": "signed", "most": 4, "sure": False}


def test_an_unknown_option_is_an_error_that_names_the_nearest():
    with pytest.raises(ViewError, match="mode"):
        Probe(moed="plain")
    assert registry.close_all() == 0


# Views together ------------------------------------------------------------------------------------------------------


def test_views_of_one_source_choose_together_without_going_round():
    class Source:
        pass

    source = Source()
    views = [Probe(source=source), Probe([axes.axis("head", (0, 1)), positions(2)], source=source), Probe(source=source)]
    heard = []
    for i, view in enumerate(views):
        view.observe(lambda change, i=i: heard.append(i), "selection")
    views[0].select(layer=1, head=1)
    assert [view.selection for view in views] == [{"layer": 1, "head": 1}, {"head": 1}, {"layer": 1, "head": 1}]
    assert sorted(heard) == [0, 1, 2]
    views[1].select(pos=0)
    assert views[0].selection == {"layer": 1, "head": 1}
    views[0].select(head=2)
    assert views[1].selection == {"pos": 0}, "a head that the other view lacks is no longer chosen there"
    views[2].select(layer=None, head=None)
    assert [view.selection for view in views] == [{}, {"pos": 0}, {}]


def test_links_make_chains():
    a, b, c = Probe(), Probe(), Probe()
    other = Probe()
    registry.link(a, b)
    registry.link(b, c)
    a.select(layer=1)
    assert [view.selection for view in (b, c, other)] == [{"layer": 1}, {"layer": 1}, {}]
    b.close()
    a.select(layer=0)
    assert c.selection == {"layer": 1}


def test_an_observer_that_fails_does_not_keep_the_others_from_hearing():
    a, b, c = Probe(), Probe(), Probe()
    registry.link(a, b, c)

    def fail(change):
        raise RuntimeError("mine")

    for view in (b, c):
        view.observe(fail, "selection")
    with pytest.raises(RuntimeError, match="mine"):
        a.select(layer=1)
    assert b.selection == c.selection == {"layer": 1}
    for view in (b, c):
        view.unobserve(fail, "selection")
    a.select(layer=0)
    assert b.selection == {"layer": 0}


def test_views_without_a_common_axis_cannot_be_linked():
    a, b = Probe(), Probe([axes.axis("feature", (1, 2))])
    with pytest.raises(ViewError, match="shares no axis"):
        registry.link(a, b)
    for few in ((), (a,), (a, None)):
        with pytest.raises(ViewError, match="two views"):
            registry.link(*few)


def test_a_selection_can_be_linked_by_the_means_of_notebooks():
    a, b = Probe(), Probe()
    traitlets.link((a, "selection"), (b, "selection"))
    a.select(layer=1)
    b.select(head=2)
    assert a.selection == b.selection == {"layer": 1, "head": 2}
    assert isinstance(ipywidgets.jslink((a, "selection"), (b, "selection")), ipywidgets.Widget)


def test_a_source_that_is_gone_joins_nothing_to_a_new_one():
    class Source:
        pass

    source = Source()
    first = Probe(source=source)
    seen = weakref.ref(source)
    del source
    gc.collect()
    assert seen() is None, "views keep no run alive"
    second = Probe(source=Source())
    first.select(layer=1)
    assert second.selection == {}


class Shell:
    """A notebook's shell, as far as views ask it."""

    def __init__(self):
        self.execution_count, self.parent = 1, {}

    def get_parent(self):
        return self.parent

    def run(self, cell, message):
        self.execution_count += 1
        self.parent = {"header": {"msg_id": message}, "metadata": {"cellId": cell} if cell else {}}


@pytest.fixture
def shell(monkeypatch):
    made = Shell()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: made))
    return made


def test_views_of_a_cell_that_is_run_again_are_closed(shell):
    shell.run("one", "m1")
    a, b = Probe(), Probe()
    shell.run("two", "m2")
    c = Probe()
    assert not (a._closed or b._closed or c._closed)
    shell.run("one", "m3")
    d = Probe()
    e = Probe()
    assert a._closed and b._closed
    assert not (c._closed or d._closed or e._closed)


def test_views_made_outside_a_cell_are_left_alone(shell, monkeypatch):
    shell.run(None, "m1")
    a = Probe()
    shell.parent = None
    b = Probe()
    shell.run(None, "m2")
    c = Probe()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    d = Probe()
    assert not any(view._closed for view in (a, b, c, d))


def test_closing_an_older_view_waits_for_nobody(shell):
    shell.run("one", "m1")
    old = Probe()
    answered = []
    thread = threading.Thread(target=lambda: answered.append(old.answer("wait", {})))
    thread.start()
    assert old.inside.wait(60)
    shell.run("one", "m2")
    new = Probe()  # closes the old one while it answers
    assert old._closed and old.freed == 0 and not new._closed
    old.gate.set()
    thread.join(60)
    assert answered == [({"sum": 15.0}, [])]
    assert old.freed == 1 and not hasattr(old, "_values")


# Answering -----------------------------------------------------------------------------------------------------------


def ask(view, name, given=None, ident="q1"):
    view._handle_custom_msg({"ask": name, "id": ident, "with": given or {}}, [])


def test_a_question_is_answered_with_its_own_number(sent):
    view = Probe()
    ask(view, "row", {"row": 1}, "a-7")
    assert sent == [(view, {"id": "a-7", "reply": {"row": 1}}, [struct.pack("<3f", 3, 4, 5)])]
    ask(view, "odd")
    assert sent[-1][1] == {"id": "q1", "reply": {"x": "nan"}}


@pytest.mark.parametrize(("name", "given", "says"), [
    ("rwo", {}, "cannot be asked for 'rwo'"), ("row", {"row": 9}, "IndexError"), ("row", {"x": 1}, "TypeError"),
    ("row", [1], "TypeError"), (["row"], {}, "TypeError"), ("fail", {}, "no <b>"), (None, {}, "cannot be asked")])
def test_a_question_that_goes_wrong_is_answered_in_words(sent, name, given, says):
    view = Probe()
    ask(view, name, given)
    assert says in sent[-1][1]["error"]
    assert "\n" not in sent[-1][1]["error"] and "\x1b" not in sent[-1][1]["error"]
    json.dumps(sent[-1][1]).encode("utf-8")


def test_messages_that_are_no_questions_are_let_pass(sent):
    view = Probe()
    for content in ("x", None, 5, {}, {"id": 1}, ["ask"]):
        view._handle_custom_msg(content, [])
    assert sent == []


def test_a_question_from_another_thread_waits_its_turn(sent):
    view = Probe()
    first = threading.Thread(target=ask, args=(view, "wait", {}, "first"))
    first.start()
    assert view.inside.wait(60)
    second = threading.Thread(target=ask, args=(view, "row", {"row": 0}, "second"))
    second.start()
    second.join(0.2)
    assert sent == [] and second.is_alive()
    view.gate.set()
    first.join(60)
    second.join(60)
    assert [content["id"] for _, content, _ in sent] == ["first", "second"]


def test_choosing_does_not_wait_for_an_answer(sent):
    view = Probe()
    thread = threading.Thread(target=ask, args=(view, "wait"))
    thread.start()
    assert view.inside.wait(60)
    view.select(layer=1)
    assert view.selection == {"layer": 1} and sent == []
    view.gate.set()
    thread.join(60)


def test_an_interrupted_answer_is_said_and_passed_on(sent, monkeypatch):
    view = Probe()

    def stop(row):
        raise KeyboardInterrupt

    monkeypatch.setattr(view, "row", stop)
    with pytest.raises(KeyboardInterrupt):
        ask(view, "row", {"row": 0})
    assert "KeyboardInterrupt" in sent[-1][1]["error"]


# Closing -------------------------------------------------------------------------------------------------------------


def test_a_closed_view_frees_its_data_keeps_its_choice_and_says_that_it_is_closed():
    values = np.zeros((2, 3), np.float32)
    seen = weakref.ref(values)
    view = Probe(values=values).select(layer=1, head=1)
    del values
    view.close()
    view.close()
    gc.collect()
    assert seen() is None and view.blob == b"" and view.freed == 1
    assert (view.selection, view.spec) == ({"layer": 1, "head": 1}, "zero L1H1")
    assert view._repr_mimebundle_()[0].keys() == {"text/plain"}
    assert "closed" in view._repr_mimebundle_()[0]["text/plain"]
    for act in (view.draw, view.to_html, view.to_png, lambda: view.answer("row", {"row": 0})):
        with pytest.raises(ViewError, match="was closed"):
            act()


def test_close_all_closes_every_view_and_says_how_many():
    views = [Probe() for _ in range(3)]
    views[0].close()
    assert registry.close_all() == 2
    assert all(view._closed for view in views)
    assert registry.close_all() == 0 and registry._groups == [] and registry._cells == {}


def test_a_closed_view_is_kept_by_nobody():
    view = Probe(source=Shell())
    seen = weakref.ref(view)
    view.close()
    del view
    gc.collect()
    assert seen() is None


# Shown without a kernel ----------------------------------------------------------------------------------------------


def test_a_notebook_gets_a_widget_a_plain_form_and_a_line():
    view = Probe(title="effects")
    bundle, _ = view._repr_mimebundle_()
    assert bundle["text/plain"] == "Probe(effects · layer 2 · head 3)" or bundle["text/plain"].startswith("Probe(effects")
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == view.model_id
    assert "<p>plain</p>" in bundle["text/html"] and "<script" not in bundle["text/html"]


def test_a_plain_form_that_is_too_long_is_a_line_that_says_so():
    bundle, _ = Probe(plain="<p>" + "x" * 200_000 + "</p>")._repr_mimebundle_()
    assert len(bundle["text/html"]) < 10_000
    assert "too large to be shown without script" in bundle["text/html"]


def state_of(text):
    """What a page holds for its script, read as a browser would read it."""
    (raw,) = re.findall(r'<script type="application/json" id="hooklab-state">(.*?)</script>', text, re.DOTALL)
    return json.loads(raw)


def test_a_page_holds_the_data_and_the_answers():
    view = Probe().select(layer=1)
    (state,) = state_of(view.to_html())["views"]
    assert zlib.decompress(base64.b64decode(state["blob"])) == view.blob
    assert state["traits"]["selection"] == {"layer": 1}
    rows = {one["with"]["row"]: one for one in state["answers"] if one["ask"] == "row"}
    assert struct.unpack("<3f", zlib.decompress(base64.b64decode(rows[1]["buffers"][0]))) == (3, 4, 5)
    assert "no <b>" in next(one for one in state["answers"] if one["ask"] == "fail")["error"]


def test_nothing_of_a_users_text_can_end_the_script_or_become_an_element():
    view = Probe([axes.axis("layer", [HOSTILE, "b"])], title=HOSTILE, facts={"word": HOSTILE},
                 values=np.zeros((2,), np.float32))
    for shown in (view.to_html(), view._repr_mimebundle_()[0]["text/html"]):
        shown.encode("utf-8")
        assert "<img" not in shown and "<script>" not in shown
        assert "\u202e" not in shown and "\x1b" not in shown
    html = view.to_html()
    assert html.count("</script>") == 2 and html.count("<script") == 2
    assert state_of(html)["views"][0]["traits"]["facts"]["word"].startswith("</script>")
    assert "\x1b" not in repr(view) and "\u202e" not in repr(view)


def test_a_page_loads_nothing():
    html = Probe().to_html()
    assert not re.findall(r"""(?:src|href)\s*=\s*["']""", re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL))
    assert "https://" not in html and "http://" not in re.sub(r"http://www\.w3\.org/\S+", "", html)


def test_views_that_choose_together_do_so_on_a_page():
    a, b, c = Probe(), Probe(), Probe()
    registry.link(a, c)
    states = state_of(page.page([a, b, c]))["views"]
    assert [state["group"] for state in states] == [0, 1, 0]
    assert states[0]["shared"] == ["layer", "head"]
    assert len(state_of(page.page([a, b, c]))["scripts"]) == 1


def test_a_page_of_no_view_or_of_a_closed_one_is_an_error():
    with pytest.raises(ViewError, match="at least one"):
        page.page([])
    view = Probe()
    view.close()
    with pytest.raises(ViewError, match="closed"):
        page.page([view])


def test_answers_that_do_not_fit_are_counted(monkeypatch):
    monkeypatch.setattr(page, "MOST_ANSWERS", 5)
    (state,) = state_of(Probe().to_html())["views"]
    assert [one["ask"] for one in state["answers"]] == ["row"] and state["left_out"] == 2


def test_a_front_end_that_was_not_built_is_named():
    with pytest.raises(ViewError, match=r"nothing\.js is missing.*npm run build"):
        page.asset("nothing.js")


def test_a_page_is_written_once_and_never_over_a_file(tmp_path):
    target = tmp_path / "page.html"
    written = Probe().to_html(target)
    assert target.read_text(encoding="utf-8") == written
    target.write_text("mine")
    with pytest.raises(RecordError, match="exists"):
        Probe().to_html(str(target))
    assert target.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("name", ["missing/page.html", "folder", "a\0b.html"])
def test_a_page_that_cannot_be_written_leaves_no_file(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError, match="could not be written|exists"):
        Probe().to_html(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_a_disk_that_fails_leaves_no_file(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hooklab.files.os.fsync", full)
    with pytest.raises(RecordError, match="No space left"):
        Probe().to_html(tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


# Names ---------------------------------------------------------------------------------------------------------------


def test_no_module_has_the_name_of_something_public():
    import hooklab.views as views

    assert not {path.stem for path in STATIC.parent.glob("*.py")} & set(views.__all__)
    with pytest.raises(AttributeError, match="grid"):
        views.gird
