"""The logit lens: its numbers against norms and matrices by hand, its columns, its choices, its text, its errors."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import tiny_models
import torch

import hooklab as hl
from hooklab.analysis.lens_table import Lens, lens_table, token_id
from hooklab.analysis.predictions import PredictionError
from hooklab.errors import PositionError, ViewError
from hooklab.model.model import Model
from hooklab.records import Scores
from hooklab.views import tints, wire
from hooklab.views.lenses import ACROSS

PROMPT = "When Mary and John went to the store, John gave a drink to"
LONG = " ".join(["Mary went to the store and John gave a drink to"] * 7)
HOSTILE = ["<img src=x onerror=bad()>", "</script>", "\x1b[31m", "\x00", "\ud800", "x" * 10_000, "\u202e", "$\\frac{1}{0}$"]


@pytest.fixture(scope="module")
def lab():
    with hl.load("lab") as model:
        yield model


@pytest.fixture(scope="module")
def run(lab):
    return lab.run(f'prompt "{PROMPT}"\nlens L*.resid_post @each top=3')


@pytest.fixture
def lens():
    views = []
    yield lambda *given, **options: views.append(hl.view.lens(*given, **options)) or views[-1]
    for view in views:
        view.close()


def arrays(table, block):
    """Arrays out of bytes, by hand."""
    dtypes = {"u8": "u1", "i32": "<i4", "f32": "<f4"}
    return {name: np.frombuffer(block, dtypes[one["kind"]], int(np.prod(one["shape"])), one["at"]).reshape(one["shape"])
            for name, one in table.items()}


def sent(view):
    return arrays(view.facts["arrays"], view.blob)


def answered(view, name, **given):
    reply, buffers = view.answer(name, given)
    return arrays(reply["arrays"], buffers[0])


# The table, by hand ------------------------------------------------------------------------------------------------------


def by_hand(hf, ids, norm, head):
    """Logits [layer pos d_vocab] from Hugging Face's own hidden states, but for the last layer's, which are normed there."""
    streams, hooks = [], []
    blocks = hf.transformer.h if hasattr(hf, "transformer") else hf.model.layers

    def keep(_, __, out):
        streams.append(out[0] if isinstance(out, tuple) else out)

    for block in blocks:
        hooks.append(block.register_forward_hook(keep))
    with torch.no_grad():
        hf(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
        for hook in hooks:
            hook.remove()
        return torch.stack([head(norm(x))[0] for x in streams]).double().numpy()


def layer_norm(module):
    def norm(x):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.pow(2).mean(-1, keepdim=True) + module.eps).sqrt() * module.weight + module.bias

    return norm


def rms_norm(module, one=0.0):
    eps = getattr(module, "variance_epsilon", None) or getattr(module, "eps", None)
    return lambda x: x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * (module.weight + one)


def capped(weight, cap):
    return lambda x: torch.tanh(x @ weight.T / cap) * cap


HANDS = {
    "gpt2": lambda hf: (layer_norm(hf.transformer.ln_f), lambda x: x @ hf.lm_head.weight.T),
    "llama": lambda hf: (rms_norm(hf.model.norm), lambda x: x @ hf.lm_head.weight.T),
    "gemma2": lambda hf: (rms_norm(hf.model.norm, 1.0), capped(hf.lm_head.weight, hf.config.final_logit_softcapping)),
    "phi": lambda hf: (layer_norm(hf.model.final_layernorm), lambda x: x @ hf.lm_head.weight.T + hf.lm_head.bias),
}


@pytest.mark.parametrize("family", list(HANDS))
def test_the_table_is_norm_and_unembedding_of_every_layer(family):
    ids = [5, 17, 3, 42, 8]
    hf = tiny_models.build(family)
    logits = by_hand(hf, ids, *HANDS[family](hf))
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    table = lens_table(Model(tiny_models.build(family)), [ids], k=3)
    order = np.argsort(-logs, axis=-1, kind="stable")[..., :3]
    assert table.ids.tolist() == order.tolist()
    np.testing.assert_allclose(table.probs, np.exp(np.take_along_axis(logs, order, -1)), atol=1e-5)
    np.testing.assert_allclose(table.entropy, -(np.exp(logs) * logs).sum(-1), atol=1e-3)
    assert table.target.tolist() == [17, 3, 42, 8, -1]
    for pos in range(4):
        own = logs[:, pos, ids[pos + 1]]
        np.testing.assert_allclose(table.target_prob[:, pos], np.exp(own), rtol=1e-3)
        assert table.target_rank[:, pos].tolist() == (logs[:, pos] > own[:, None]).sum(-1).tolist()
    assert np.isnan(table.target_prob[:, 4]).all() and (table.target_rank[:, 4] == -1).all()


def test_the_last_layer_is_the_prediction_of_the_model(lab):
    table = lens_table(lab, PROMPT, k=4)
    ids = torch.tensor([lab.tokens(PROMPT).ids[0]])
    with torch.no_grad():
        probs = lab.hf(ids, attention_mask=torch.ones_like(ids)).logits[0].softmax(-1)
    np.testing.assert_allclose(table.probs[-1], probs.topk(4).values.numpy(), atol=1e-5)


def test_the_numbers_are_those_of_the_lens_line_of_a_spec(lab, run):
    table = lens_table(lab, PROMPT, k=3)
    scores = run.scores["main.lens"]
    np.testing.assert_allclose(table.probs, scores.values, atol=1e-6)
    assert [[[table.pieces[i] for i in cell] for cell in row] for row in table.ids.tolist()] == scores.labels.tolist()


def test_one_token_is_followed_at_every_layer_and_position(lab):
    lens = Lens(lab, lab.tokens(PROMPT), k=2)
    mary = token_id(lab, " Mary")
    prob, rank = lens.token(mary, [3, 14])
    whole = lens_table(lab, PROMPT, target=mary)
    np.testing.assert_allclose(prob, whole.target_prob[:, [3, 14]], rtol=1e-4)
    assert rank.tolist() == whole.target_rank[:, [3, 14]].tolist()


def test_streams_that_were_read_are_kept_while_they_are_small(lab, monkeypatch):
    passes = []
    capture = Model.capture
    monkeypatch.setattr(Model, "capture", lambda *given, **more: passes.append(1) or capture(*given, **more))
    lens = Lens(lab, lab.tokens(PROMPT), k=2)
    lens.table(range(15))
    lens.token(7, [14])
    assert len(passes) == 1
    monkeypatch.setattr("hooklab.analysis.lens_table.KEPT", 0)
    small = Lens(lab, lab.tokens(PROMPT), k=2)
    small.table(range(15))
    prob, _ = small.token(7, [14])
    assert len(passes) == 3
    np.testing.assert_allclose(prob, lens.token(7, [14])[0], rtol=1e-5)


@pytest.mark.parametrize(("given", "error", "says"), [
    ({"positions": [15]}, PositionError, "15 tokens, no position 15"), ({"positions": []}, PositionError, "no position"),
    ({"k": 0}, PredictionError, "1 or more"), ({"target": " Mary John"}, PredictionError, "not one"),
    ({"target": 100_000}, PredictionError, "no token"),
])
def test_what_the_table_cannot_read_is_said(lab, given, error, says):
    with pytest.raises(error, match=says):
        lens_table(lab, PROMPT, **given)


def test_several_prompts_and_models_that_look_both_ways_are_refused(lab):
    with pytest.raises(PredictionError, match="one prompt at a time"):
        lens_table(lab, [PROMPT, PROMPT])
    with pytest.raises(PredictionError, match="both ways"):
        lens_table(Model(tiny_models.build("bert")), [[5, 6]])


def test_a_busy_model_is_waited_for_no_longer_than_asked(lab):
    lens, held, free = Lens(lab, lab.tokens(PROMPT), patience=0.05), threading.Event(), threading.Event()

    def hold():
        with lab.interleaver.lock:
            held.set()
            free.wait(20)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(20)
    try:
        with pytest.raises(PredictionError, match="busy"):
            lens.table([0])
    finally:
        free.set()
        other.join()


def test_a_reading_that_takes_too_long_ends_with_a_message(lab, monkeypatch):
    monkeypatch.setattr("hooklab.analysis.lens_table.LIMIT", -1.0)
    with pytest.raises(PredictionError, match="takes too long"):
        lens_table(lab, PROMPT)


# The view of a model -----------------------------------------------------------------------------------------------------


def test_the_view_sends_the_table(lab, lens):
    view, table = lens(lab, PROMPT, k=3), lens_table(lab, PROMPT, k=3)
    found = sent(view)
    assert found["ids"].tolist() == table.ids.tolist() and found["rank"].tolist() == table.target_rank.tolist()
    np.testing.assert_allclose(found["probs"], table.probs, rtol=1e-6)
    np.testing.assert_allclose(found["entropy"], table.entropy, rtol=1e-6)
    assert view.facts["tokens"][str(table.ids[-1, -1, 0])] == "·Mary"
    assert view.facts["scales"]["entropy"]["high"] == pytest.approx(np.log(713))


def test_a_long_prompt_is_read_column_by_column(lab, lens, monkeypatch):
    read = []
    table = Lens.table
    monkeypatch.setattr(Lens, "table", lambda self, at: read.append(len(at)) or table(self, at))
    view = lens(lab, LONG)
    size = len(lab.tokens(LONG).ids[0])
    assert read == [ACROSS] and sent(view)["ids"].shape[1] == ACROSS and size > 2 * ACROSS
    rest = answered(view, "columns", first=2 * ACROSS)
    expected = lens_table(lab, LONG, positions=range(2 * ACROSS, size))
    assert rest["ids"].tolist() == expected.ids.tolist() and rest["target"].tolist() == expected.target.tolist()


def test_a_view_can_begin_in_the_middle(lab, lens):
    view = lens(lab, LONG, first=40)
    assert view.facts["first"] == ACROSS
    expected = lens_table(lab, LONG, positions=range(ACROSS, 2 * ACROSS))
    assert sent(view)["ids"].tolist() == expected.ids.tolist()


@pytest.mark.parametrize("first", [-32, 5, 10_000, "a", True])
def test_columns_that_are_not_there_are_refused(lab, lens, first):
    with pytest.raises(ViewError, match="columns come"):
        lens(lab, LONG).answer("columns", {"first": first})


def test_any_token_can_be_followed(lab, lens):
    view = lens(lab, PROMPT, k=1)
    table = lens_table(lab, PROMPT, target=" store")
    token = token_id(lab, " store")
    reply, _ = view.answer("track", {"token": token, "pos": 7})
    np.testing.assert_allclose(reply["prob"], table.target_prob[:, 7], rtol=1e-4)
    assert reply["rank"] == table.target_rank[:, 7].tolist() and reply["text"] == "·store"
    whole = answered(view, "token", token=token, first=0)
    assert whole["rank"].tolist() == table.target_rank.tolist()
    assert view.pin(" store").options["token"] == token and view.pin(None).options["token"] == -1


def test_a_target_stands_at_every_position(lab, lens):
    found = sent(lens(lab, PROMPT, target=" Mary"))
    assert set(found["target"].tolist()) == {token_id(lab, " Mary")} and (found["rank"] >= 0).all()


def test_a_choice_spells_a_spec_that_reads_the_cell(lab, lens):
    view = lens(lab, PROMPT, k=3).select(layer=2, pos=-1)
    again = lab.run(view.spec).scores["main.lens"]
    np.testing.assert_allclose(again.values.reshape(-1), sent(view)["probs"][2, 14], atol=1e-6)
    assert lens(lab, [lab.tokens(PROMPT).ids[0]]).select(layer=0, pos=0).spec == ""


def test_a_closed_model_is_said_when_it_is_asked(lens):
    model = Model(tiny_models.build("gpt2"))
    view = lens(model, [[5, 6, 7]])
    del model
    import gc

    gc.collect()
    with pytest.raises(PredictionError, match="not open any more"):
        view.answer("track", {"token": 3, "pos": 1})


# The view of a run -------------------------------------------------------------------------------------------------------


EDITED = '''
prompt clean = "When Mary and John went to the store, John gave a drink to"
prompt bad = "When Mary and Anna went to the store, Anna gave a drink to"
answer " Mary" vs " John"
run corrupt on bad:
    zero L1H3
    lens L*.resid_post @each top=2
'''


def test_the_lens_of_a_run_is_its_scores(lens, run):
    view, scores = lens(run), run.scores["main.lens"]
    found = sent(view)
    np.testing.assert_allclose(found["probs"], scores.values, rtol=1e-6)
    texts = view.facts["tokens"]
    assert [[texts[str(i)] for i in row] for row in found["ids"][4].tolist()] == [
        [text.replace(" ", "·") for text in row] for row in scores.labels[4].tolist()]


def test_other_tokens_of_a_run_are_read_under_its_edits(lab, lens):
    run = lab.run(EDITED)
    view = lens(run)
    number = view._found.find(" store")
    reply, _ = view.answer("track", {"token": number, "pos": 14})
    with_edit = lab.run(EDITED.replace("top=2", "top=713")).scores["corrupt.lens"].sel(pos=14)
    for layer in range(5):
        at = with_edit.labels[layer].tolist().index(" store")
        assert reply["rank"][layer] == at
        assert reply["prob"][layer] == pytest.approx(float(with_edit.values[layer, at]), rel=1e-3)


def test_entropy_and_ranks_of_a_run_come_when_they_are_asked_for(lab, lens):
    run = lab.run(f'prompt "{PROMPT}"\nlens L*.resid_post @each top=1')
    view, table = lens(run), lens_table(lab, PROMPT)
    assert np.isnan(sent(view)["entropy"]).all() and view.facts["lazy"]
    more = answered(view, "more", first=0)
    np.testing.assert_allclose(more["entropy"], table.entropy, atol=1e-4)
    assert more["rank"][:, :14].tolist() == table.target_rank[:, :14].tolist()


def test_the_answer_of_a_run_is_its_target_and_its_choice_runs_again(lab, lens):
    run = lab.run(EDITED)
    view = lens(run).select(layer=4, pos=14)
    assert view.facts["target"] == "·Mary"
    assert {view.facts["tokens"][str(i)] for i in sent(view)["target"].tolist()} == {"·Mary"}
    again = lab.run(view.spec).scores["corrupt.lens"]
    np.testing.assert_allclose(again.values.reshape(-1), run.scores["corrupt.lens"].sel(layer=4, pos=14).values, atol=1e-6)


def test_a_run_whose_model_is_gone_shows_what_it_holds(tmp_path, lens, run):
    loaded = hl.Run.load(run.save(tmp_path / "run"))
    view = lens(loaded)
    assert view.facts["modes"] == ["probability", "rank"]
    rank = view.answer("track", {"token": int(sent(view)["ids"][4, 14, 0]), "pos": 14})[0]["rank"]
    texts = loaded.scores["main.lens"].sel(pos=14).labels.tolist()
    assert rank == [row.index(" Mary") if " Mary" in row else -1 for row in texts]
    with pytest.raises(ViewError, match="needs the model"):
        lens(loaded, mode="entropy")
    with pytest.raises(ViewError, match="no model to ask"):
        view.pin(" Zanzibar")


def test_views_of_a_run_choose_together(run, lens):
    first, second = lens(run), hl.view.tokens(run)
    first.select(layer=1, pos=3)
    assert second.selection == {"layer": 1, "pos": 3}
    second.close()


def scores(labels, values=None, layers=None):
    labels = np.array(labels, dtype=object)
    axes = ("layer", "pos", "rank")[:labels.ndim]
    coords = {} if layers is None else {"layer": layers}
    return Scores(np.full(labels.shape, 0.5) if values is None else np.asarray(values), axes, coords, labels=labels)


def test_scores_alone_are_enough_and_layers_keep_their_numbers(lens):
    view = lens(scores([["a", "b"], ["c", "d"]], [[0.1, 0.2], [0.3, 0.4]], layers=(5, 9)))
    assert view.select(layer=9, pos=0).selection == {"layer": 9, "pos": 0} and view.spec == ""
    assert sent(view)["probs"][..., 0].tolist() == np.array([[0.1, 0.2], [0.3, 0.4]], "f4").tolist()


# Text, forms, errors -----------------------------------------------------------------------------------------------------


def test_hostile_text_is_inert_in_every_form(lens):
    view = lens(scores([HOSTILE, HOSTILE[::-1]]), title=HOSTILE[0]).select(layer=1, pos=2)
    json.dumps(view.facts, allow_nan=False).encode()
    for form in (view.static(), view.to_html(), repr(view), view._repr_mimebundle_()[0]["text/html"]):
        form.encode()
        assert "\x1b" not in form and "\x00" not in form and "\u202e" not in form and "x" * 200 not in form
    for form in (view.static(), view.to_html()):
        assert "<img" not in form
    assert view.to_html().count("</script>") == 2
    assert view.to_png()[:4] == b"\x89PNG"


def test_a_page_carries_the_other_columns_and_the_tokens_that_lead(lab, lens):
    view = lens(lab, LONG)
    asked = [(name, given) for name, given in view.answers()]
    assert ("columns", {"first": ACROSS}) in asked
    top = int(sent(view)["ids"][-1, 3, 0])
    assert ("track", {"token": top, "pos": 3}) in asked


def test_the_followed_tokens_of_a_page_are_those_of_the_kernel(lab, lens):
    view = lens(lab, PROMPT)
    asked = [given for name, given in view.answers() if name == "track"][5]
    live = view.answer("track", asked)[0]
    replies = [view.answer(name, given)[0] for name, given in view.answers() if given == asked]
    np.testing.assert_allclose(replies[0]["prob"], live["prob"], rtol=1e-4)
    assert replies[0]["rank"] == live["rank"]


def test_the_form_without_script_says_what_it_leaves_out(lens):
    many = scores([["t"] * 40] * 30)
    text = lens(many).static()
    assert "24 of 30 layers" in text and "positions 0 to 23 of 40" in text


@pytest.mark.parametrize("mode", ["probability", "rank", "entropy"])
def test_the_figure_is_tinted_by_the_numbers(lab, lens, mode):
    view, table = lens(lab, PROMPT, mode=mode), lens_table(lab, PROMPT)
    image = view.plot().axes[0].images[0].get_array()
    if mode == "probability":
        codes = wire.Scale("probability", 0.0, 1.0).codes(table.probs[..., 0])
    elif mode == "entropy":
        codes = wire.Scale("linear", 0.0, float(np.log(713))).codes(table.entropy)
    else:
        rank = np.where(table.target_rank < 0, np.nan, table.target_rank)
        codes = wire.Scale("linear", 0.0, np.log10(713)).codes(np.log10(1 + rank))
    expected = [[tints.over("fall" if mode == "rank" else "up", int(code)) for code in row] for row in codes]
    np.testing.assert_allclose(np.asarray(image), expected, atol=1e-6)


@pytest.mark.parametrize(("given", "says"), [
    ((Scores(np.eye(2), ("layer", "head")),), "over layer and pos"),
    ((Scores(np.eye(2), ("layer", "pos")),), "no token in each cell"),
    ((Scores(np.zeros((0, 2)), ("layer", "pos"), labels=np.zeros((0, 2), dtype=object)),), "empty"),
    ((3,), "not int"),
])
def test_what_is_no_lens_is_refused(given, says):
    with pytest.raises(ViewError, match=says):
        hl.view.lens(*given)


def test_what_is_missing_is_said(lab, run):
    with pytest.raises(ViewError, match="which prompt"):
        hl.view.lens(lab)
    with pytest.raises(ViewError, match="belongs to a model"):
        hl.view.lens(run, PROMPT)
    with pytest.raises(ViewError, match="no lens 'corrupt'"):
        hl.view.lens(run, score="corrupt")
    with pytest.raises(ViewError, match="add a line such as `lens"):
        hl.view.lens(lab.run(f'prompt "{PROMPT}"'))
    with pytest.raises(ViewError, match="mode"):
        hl.view.lens(lab, PROMPT, mode="loss")


def test_a_choice_outside_of_the_table_is_refused(run, lens):
    with pytest.raises(ViewError, match="no layer 7"):
        lens(run).select(layer=7)


def test_a_closed_view_holds_nothing(lab):
    view = hl.view.lens(lab, PROMPT)
    view.close()
    assert view.blob == b"" and not view._found._lens._streams and not hasattr(view, "_here")
