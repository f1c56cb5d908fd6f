"""What went wrong with extractions, evaluations and stores that were asked for in odd ways, each once."""

from __future__ import annotations

import csv
import functools
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import hooklab as hl
from hooklab.analysis.asking import SweepError
from hooklab.cli import main
from hooklab.data.extraction.functions import text_of, unseen
from hooklab.data.inputs.rows import rows
from hooklab.data.store.sitename import site_name
from hooklab.errors import HooklabWarning, ModelError, PositionError, PromptError, RecordError, SiteError
from hooklab.model.gate import KINDS, picture
from hooklab.problems import SpecError

S = "L3.resid_post"
TEXTS = ["When Mary and John went to the store, John gave a drink to", "Mary and John"]
ROW = {"text": TEXTS[0], "right": " Mary", "wrong": " John"}


@pytest.fixture(scope="module")
def model():
    return hl.load("lab")


@pytest.fixture(scope="module")
def gate():
    return hl.load("gate")


@pytest.fixture(scope="module")
def store(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("stores") / "acts"
    return hl.extract(model, TEXTS, ["L*.resid_post", "L0.pattern"], out, strongest={"L0.pattern": 2},
                      metrics=["entropy"]).store


# Folders and tables


@pytest.mark.parametrize("source", ["pics", "./pics", "pics/", Path("pics"), Path("..") / "here" / "pics"], ids=str)
def test_a_folder_of_images_may_be_given_by_a_relative_path(gate, tmp_path, monkeypatch, source):
    (tmp_path / "here" / "pics").mkdir(parents=True)
    for i in range(2):
        picture(KINDS[i], i).save(tmp_path / "here" / "pics" / f"{i}.png")
    monkeypatch.chdir(tmp_path / "here")
    asked = dict(reduce="mean", at="last", template="{image} these stripes run")
    found = hl.extract(gate, source, S, **asked)
    whole = hl.extract(gate, tmp_path / "here" / "pics", S, **asked)
    assert found.report.examples == 2
    (one,), (other,) = (list(some.reduced.values()) for some in (found, whole))
    assert np.array_equal(one.result().values, other.result().values)


def test_a_folder_of_images_may_be_where_one_is(gate, tmp_path, monkeypatch):
    picture(KINDS[0], 0).save(tmp_path / "0.png")
    monkeypatch.chdir(tmp_path)
    asked = dict(sites=S, out=tmp_path / "acts", at="last", template="{image} these stripes run")
    assert hl.extract(gate, ".", **asked).report.examples == 1
    assert hl.extract(gate, tmp_path, **asked).report.resumed == 1  # the same folder by another name


def test_fields_of_a_table_may_be_long_and_python_keeps_its_limit(tmp_path):
    long, before = "word " * 40_000, csv.field_size_limit()
    (tmp_path / "long.csv").write_text(f"text\n{long}\nshort\n")
    assert [row.value["text"] for row in rows(tmp_path / "long.csv")] == [long, "short"]
    found = rows(tmp_path / "long.csv")
    next(found)
    assert csv.field_size_limit() == before  # between two rows too
    (tmp_path / "x_test.csv").write_text(f"{long},a,b,c,d,A\n")
    assert hl.data.load_task("mmlu", tmp_path / "x_test.csv")[0].metadata is not None
    assert csv.field_size_limit() == before


# Going on


def again(model, out, rows=TEXTS, **asked):
    return hl.extract(model, rows, S, out, **asked)


def halved():
    def scaled(value):
        return value * 0.5

    return scaled


def doubled():
    def scaled(value):
        return value * 2

    return scaled


def by(factor):
    return lambda value: value * factor


@pytest.mark.parametrize("begun, then", [
    (lambda v: v * 0, lambda v: v * 2),
    (halved(), doubled()),
    (by(2), by(3)),
    (by(torch.zeros(1)), by(torch.ones(1))),
    (functools.partial(torch.mul, other=2), functools.partial(torch.mul, other=3)),
    (torch.relu, torch.sigmoid),
    (lambda v, n=2: v * n, lambda v, n=3: v * n)])
def test_an_extraction_with_another_function_does_not_go_on(model, tmp_path, begun, then):
    again(model, tmp_path / "edits", edits={"L0.mlp_out": begun})
    with pytest.raises(RecordError, match=r"begun otherwise: edits.L0.mlp_out was '\S+ [0-9a-f]{12}' and is"):
        again(model, tmp_path / "edits", TEXTS + ["Mary"], edits={"L0.mlp_out": then})


def test_metrics_are_compared_by_what_they_do(model, tmp_path):
    again(model, tmp_path / "acts", metrics={"gap": lambda logits: logits[:, 0]})
    with pytest.raises(RecordError, match=r"metrics.gap was '<lambda> \w+' and is '<lambda> \w+'"):
        again(model, tmp_path / "acts", metrics={"gap": lambda logits: logits[:, 1]})


def test_the_same_function_goes_on_wherever_it_was_defined(model, tmp_path):
    again(model, tmp_path / "acts", edits={"L0.mlp_out": halved()})

    def scaled(value):
        # a comment, and another line
        return value * 0.5

    assert again(model, tmp_path / "acts", edits={"L0.mlp_out": scaled}).report.resumed == 2


FACTOR = 2


def helper(value):
    return value * FACTOR


def test_functions_are_told_by_all_that_they_read(monkeypatch):
    texts = [text_of(lambda value: helper(value))]
    monkeypatch.setitem(globals(), "FACTOR", 3)
    texts.append(text_of(lambda value: helper(value)))
    monkeypatch.setitem(globals(), "FACTOR", 2)
    texts.append(text_of(lambda value: helper(value)))
    assert texts[0] == texts[2] != texts[1] and not unseen({"it": texts[0]})


def test_sets_functions_that_call_themselves_and_counters_are_told_alike():
    def deep(n):
        return deep(n - 1) if n in {"a", "b", "c"} else n

    def counting():
        count = 0

        def one(value):
            nonlocal count
            count += 1
            return value

        return one

    used = counting()
    used(1)
    assert text_of(deep) == text_of(deep) and text_of(used) == text_of(counting())
    assert text_of(by(frozenset("abc"))) == text_of(by(frozenset("cba"))) != text_of(by(frozenset("abd")))


def test_what_a_function_reads_that_cannot_be_told_is_a_warning(model, tmp_path):
    class Thing:
        factor = 2

    thing = Thing()
    again(model, tmp_path / "acts", edits={"L0.mlp_out": lambda v: v * thing.factor})
    with pytest.warns(HooklabWarning, match="goes on with L0.mlp_out: not all that these functions read"):
        again(model, tmp_path / "acts", edits={"L0.mlp_out": lambda v: v * thing.factor})
    with pytest.raises(RecordError, match="begun otherwise"):
        again(model, tmp_path / "acts", edits={"L0.mlp_out": lambda v: v + thing.factor})


@pytest.mark.parametrize("begun, then", [(2, 3), (torch.zeros(1), torch.ones(1)), (float("inf"), 1.0)])
def test_values_of_lines_are_compared(model, tmp_path, begun, then):
    spec = "scale L0H1 by {x}" if not isinstance(begun, torch.Tensor) else "steer L0.resid_post by {x}"
    whole = begun.expand(model.facts.d_model) if isinstance(begun, torch.Tensor) else begun
    other = then.expand(model.facts.d_model) if isinstance(then, torch.Tensor) else then
    again(model, tmp_path / "acts", spec=spec, values={"x": whole})
    assert again(model, tmp_path / "acts", spec=spec, values={"x": whole}).report.resumed == 2
    with pytest.raises(RecordError, match=r"begun otherwise: values.x was"):
        again(model, tmp_path / "acts", spec=spec, values={"x": other})


def failing(value):
    raise ZeroDivisionError("an edit that fails")


def test_a_folder_in_which_nothing_is_yet_is_begun_anew(model, tmp_path):
    out = tmp_path / "acts"
    with pytest.raises(ZeroDivisionError):
        again(model, out, edits={"L0.mlp_out": failing})
    assert not hl.open_store(out).ids
    hl.open_store(out).tag("kept")
    (out / "notes.txt").write_text("mine")
    found = hl.extract(model, TEXTS, ["L1.z", "L2.z"], out, at="last", edits={"L0.mlp_out": lambda v: v * 0})
    assert found.report.resumed == 0 and list(found.store.sites) == ["L1.z", "L2.z"]
    assert found.store.manifest.tags == ("kept",) and (out / "notes.txt").read_text() == "mine"
    plain = hl.extract(model, TEXTS, ["L1.z", "L2.z"], tmp_path / "plain", at="last", edits={"L0.mlp_out": lambda v: v * 0})
    assert torch.equal(found.store["L1.z"][0], plain.store["L1.z"][0]) and not found.store.verify()


def test_an_empty_folder_that_another_fills_is_left_alone(model, tmp_path):
    with hl.data.Writer(tmp_path / "acts", ["L0.z"]):
        before = (tmp_path / "acts" / "manifest.json").read_bytes()
        with pytest.raises(RecordError, match="is being written"):
            again(model, tmp_path / "acts")
        assert (tmp_path / "acts" / "manifest.json").read_bytes() == before


# Answers


def measured(model, row, answer=("right", "wrong"), **asked):
    return hl.extract(model, [ROW | row], metrics=["logit_diff"], answer=list(answer), **asked).metrics["logit_diff"]


def test_an_answer_that_the_tokenizer_does_not_know_is_an_error(model):
    with pytest.raises(PromptError, match=r"'right'.* ' Zorb' is not in the vocabulary of this model's tokenizer"):
        measured(model, {"right": " Zorb"})
    with pytest.raises(PromptError, match=r"'wrong'.* is 3 tokens, not one"):
        measured(model, {"wrong": " Mary and John"})


def test_an_answer_without_the_space_before_it_is_a_warning_once_a_column(model):
    bare = [{**ROW, "right": "Mary"}, {**ROW, "right": "John"}, {**ROW, "right": "Anna"}]
    with pytest.warns(HooklabWarning) as seen:
        hl.extract(model, bare, metrics=["prob"], answer="right")
    assert len(seen) == 1 and "inside a text the word is ' Mary', with a space before it" in str(seen[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured(model, {})


def test_a_number_is_no_answer_where_the_model_has_a_tokenizer(model):
    with pytest.raises(PromptError, match=r"its 'right' is 1; an answer is text that is one token$"):
        measured(model, {"right": 1})


def test_a_model_without_a_tokenizer_takes_ids_for_answers(model):
    bare = hl.load(model.hf, tokenizer=None)
    ids = {word: int(model.tokenizer(ROW[word], add_special_tokens=False)["input_ids"][0]) for word in ("right", "wrong")}
    row = {**ids, "input_ids": list(model.tokens(TEXTS[0]).ids[0])}
    assert bare.tokenizer is None
    found = hl.extract(bare, [row], metrics=["logit_diff"], answer=["right", "wrong"]).metrics["logit_diff"]
    assert np.allclose(found, measured(model, {}), atol=1e-4)
    with pytest.raises(PromptError, match=r"is -1, and there are \d+ tokens"):
        hl.extract(bare, [{**row, "right": -1}], metrics=["prob"], answer="right")


# Options


@pytest.mark.parametrize("name, value", [("workers", 2), ("device", "cpu"), ("part", 512), ("timeout", 3.0)])
def test_options_of_several_processes_go_with_an_engine(model, name, value):
    with pytest.raises(RecordError, match=rf'{name}= goes with engine="local", "ray" or "rank"'):
        hl.extract(model, TEXTS, S, reduce="mean", **{name: value})


def test_a_value_that_no_line_asks_for_is_an_error(model):
    with pytest.raises(RecordError, match=r"values= has 'mucj', which no line has in braces\. Did you mean \"much\"\?"):
        hl.extract(model, TEXTS, S, reduce="mean", spec="scale L0H1 by {much}", values={"much": 2, "mucj": 3})
    with pytest.raises(RecordError, match="values= has 'much', which no line has"):
        hl.extract(model, TEXTS, S, reduce="mean", values={"much": 2})


@pytest.mark.parametrize("edits", ["zero L0H1", ["zero L0H1"]])
def test_lines_are_no_edits(model, edits):
    with pytest.raises(RecordError, match=r"edits= maps an address to a function .*; lines .* go in spec="):
        hl.extract(model, TEXTS, S, reduce="mean", edits=edits)


@pytest.mark.parametrize("asked, kind, said", [
    (dict(sites=3), SiteError, "sites=3"), (dict(limit="3"), PromptError, "limit='3': it is a whole number"),
    (dict(template=5), PromptError, "template=5: it is text"), (dict(metadata=5), PromptError, "metadata=5: it is the name"),
    (dict(images=5), PromptError, "images=5"), (dict(text=5), PromptError, "text=5"), (dict(id=5), PromptError, "id=5"),
    (dict(answer=5), PromptError, "answer=5"), (dict(reduce=5), RecordError, 'reduce=5: it is a word, such as "mean"'),
    (dict(reduce={"mean": 5}), RecordError, "reduce={'mean': 5}"), (dict(metrics=5), RecordError, "metrics=5: they are"),
    (dict(metrics=len), RecordError, 'metrics={"gap": function}'), (dict(edits=5), RecordError, "edits=5: edits= maps"),
    (dict(spec=5), RecordError, "spec=5: it is lines"), (dict(values=5), RecordError, "values=5"),
    (dict(out=5), RecordError, "out=5: it is the name of a folder"), (dict(out=""), RecordError, "out=''"),
    (dict(progress=5), RecordError, "progress=5: it is True, or a function")])
def test_an_option_of_another_kind_is_said_to_be_one_before_anything_runs(model, monkeypatch, asked, kind, said):
    monkeypatch.setattr("hooklab.data.extraction.passes.run", lambda *_, **__: pytest.fail("a pass ran"))
    with pytest.raises(kind, match=re.escape(said)):
        hl.extract(model, TEXTS, **{"sites": S, "reduce": "mean", **asked})


def test_an_extraction_needs_an_opened_model(model):
    with pytest.raises(ModelError, match=r"this is 'lab': give hl\.load\('lab'\)"):
        hl.extract("lab", TEXTS, S, reduce="mean")
    with pytest.raises(ModelError, match=r"this is GPT2LMHeadModel: give hl\.load\(…\)"):
        hl.extract(model.hf, TEXTS, S, reduce="mean")


def test_one_value_is_no_axis_of_a_grid(model):
    asked = [hl.data.Question("a", TEXTS[0], choices=(" Mary", " John"), answer=" Mary")]
    with pytest.raises(RecordError, match=r"grid=\{'x': 1\}: it takes a list of values, of one too, \[1\]"):
        hl.evaluate(model, asked, how="choices", edits="scale L0H1 by {x}", grid={"x": 1})


@pytest.mark.parametrize("name", ["capture", "edits"])
@pytest.mark.parametrize("given", [3, [3], {"L0.z": 1}], ids=str)
def test_what_is_no_text_is_nothing_that_a_generation_takes(model, name, given):
    with pytest.raises(SweepError, match=rf"{name}= is a text, or a list of texts, not "):
        hl.generate(model, "Mary", max_new_tokens=1, **{name: given})


# Remedies


def test_a_name_without_a_value_is_given_one_where_it_is_asked_for(model):
    for ask in (lambda: hl.extract(model, TEXTS, S, reduce="mean", spec="scale L0H1 by {x}"),
                lambda: hl.generate(model, "Mary", edits="scale L0H1 by {x}"),
                lambda: model.run('prompt "Mary"\nscale L0H1 by {x}')):
        with pytest.raises(SpecError, match=r'values=\{"x": …\}'):
            ask()


def test_answers_of_an_extraction_are_columns(model):
    for answer in (None, "right"):
        with pytest.raises(SpecError, match=r'name the columns of answers: answer=\["right", "wrong"\]'):
            hl.extract(model, [ROW], metrics=["logit_diff"], answer=answer)


def test_columns_of_answers_may_stand_behind_a_comma_on_the_command_line(tmp_path, capsys):
    (tmp_path / "p.jsonl").write_text(json.dumps(ROW) + "\n")
    asked = ["extract", "--data", str(tmp_path / "p.jsonl"), "--metric", "logit_diff", "--json"]
    found = []
    for given in (["--answer", "right,wrong"], ["--answer", "right", "--answer", "wrong"]):
        assert main([*asked, *given]) == 0
        found.append(json.loads(capsys.readouterr().out)["metrics"])
    assert found[0] == found[1] and len(found[0]["logit_diff"]) == 1
    assert main([*asked, "--answer", "right"]) != 0
    said = capsys.readouterr().err
    assert "logit_diff needs a wrong answer too: name the columns" in said and "^" not in said and "{answers}" not in said


def test_the_help_of_the_command_names_every_reducer(capsys):
    from hooklab.data.extraction.asked import WORDS

    with pytest.raises(SystemExit):
        main(["extract", "--help"])
    said = "".join(capsys.readouterr().out.split())
    assert all(word in said for word in WORDS)


# Stores


def test_what_is_no_store_example_or_position_is_said_to_be_none(store):
    for path in (None, 5):
        with pytest.raises(RecordError, match="a store is opened by the name of its folder"):
            hl.open_store(path)
    for ask in (lambda: store[S][1.5], lambda: store.site(S, 1.5)):
        with pytest.raises(RecordError, match=r"has no example 1\.5: it has 2, counted from 0"):
            ask()
    for positions in (slice(0, 3), 1.5, [1.5], [None], True):
        with pytest.raises(PositionError, match='is no position: write "first", "last", a number, or a list'):
            store.site(S, positions=positions)
    assert store.site(S, positions=np.int64(1)).shape == store.site(S, positions=1).shape
    with pytest.raises(RecordError, match="a site is named by text, not by 3"):
        store[3]


@pytest.mark.parametrize("sites, said", [
    (None, "sites=None: they are addresses"), (5, "sites=5"), ({"x": 5}, "the axes of 'x' are a list of words, .*not 5"),
    ({"x": "pos"}, "the axes of 'x' are a list of words, .*not 'pos'")])
def test_a_writer_needs_sites_and_axes(tmp_path, sites, said):
    with pytest.raises(RecordError, match=said):
        hl.data.Writer(tmp_path / "acts", sites)
    assert not (tmp_path / "acts").exists()


@pytest.mark.parametrize("name, site", [
    ("blocks.2.hook_resid_post", "L2.resid_post"), ("L-1.resid_post", "L4.resid_post"), ("L-5.resid_post", "L0.resid_post"),
    (" L2.resid_post ", "L2.resid_post"), ("entropy", "entropy")])
def test_a_store_reads_addresses_as_they_are_read_elsewhere(store, name, site):
    assert store[name].site == site and torch.equal(store[name][0], store[site][0])
    assert torch.equal(torch.stack(store.site(name, [0])), torch.stack(store.site(site, [0])))
    assert np.array_equal(store.to_numpy(name)["values"], store.to_numpy(site)["values"])


def test_other_doors_of_a_store_read_addresses_too(store, model):
    assert torch.equal(store.dense("blocks.0.attn.hook_pattern", 0), store.dense("L0.pattern", 0))
    some, other = (next(iter(store.batches(name, 4))) for name in ("L-1.resid_post", "L4.resid_post"))
    assert torch.equal(some, other)
    pairs = next(iter(store.batches(("L-1.resid_post", "blocks.0.hook_resid_post"), 4)))
    assert torch.equal(pairs[0], other)
    assert store.tokens_with("L-1.resid_post", model).ids == store.tokens_with(S, model).ids


def test_a_site_that_is_not_stored_is_no_misspelling_of_another_layer(store):
    with pytest.raises(RecordError, match=r"has no L4\.resid_mid\. It has"):
        store["L-1.resid_mid"]
    with pytest.raises(RecordError, match=r'has no L3\.resid_pots\. Did you mean "L3\.resid_post"'):
        store["L3.resid_pots"]
    with pytest.raises(RecordError, match=r"L\*\.resid_post names 5 sites, and values are read of one at a time"):
        store["L*.resid_post"]


def test_layers_are_counted_from_the_end_only_where_their_number_is_known():
    told = {"model": {"layers": 12}}
    assert site_name("L-1.z", ["L3.z"], told) == "L11.z" and site_name("blocks.3.attn.hook_z", ["L3.z"], {}) == "L3.z"
    assert site_name("L-1.z", ["L0.z", "L1.z"], {"model": "a fingerprint"}) == "L1.z"
    assert site_name("L-1H2.z", ["L0H2.z"], {}) == "L0H2.z"
    assert site_name("L-1H[0, 3].pattern", [], told) == "L11H[0,3].pattern"
    assert site_name("L1N5", [], told) == "L1N5.mlp_post"
    assert site_name("L1H*.z", ["L1.z"], told) == "L1H*.z"  # how many heads there are is not known
    with pytest.raises(RecordError, match=r"how many layers the model has is not known here: give .*one of 2, 3"):
        site_name("L-1.z", ["L2.z", "L3.z"], {})


# Pictures of questions


def mirrored(image):
    from PIL import Image

    return image.transpose(Image.Transpose.ROTATE_90)


@pytest.mark.parametrize("how", [dict(max_new_tokens=1), dict(how="choices", choices_as=lambda one: list(one.choices))])
def test_pictures_of_questions_go_through_transforms(gate, tmp_path, how):
    images = [picture(KINDS[i % 2], i) for i in range(4)]
    asked = [hl.data.Question(f"q{i}", "these stripes run", tuple(f" {kind}" for kind in KINDS), f" {KINDS[i % 2]}",
                              images=(image,)) for i, image in enumerate(images)]
    seen = []
    grade = {} if "how" in how else {"grade": lambda answer, one: seen.append(one) or float(one.answer.strip() in answer)}
    plain = hl.evaluate(gate, asked, **how, **grade)
    turned = hl.evaluate(gate, asked, transforms=[mirrored], out=tmp_path / "rows", **how, **grade)
    byhand = hl.evaluate(gate, [hl.data.Question(one.id, one.prompt, one.choices, one.answer, images=(mirrored(image),))
                                for one, image in zip(asked, images, strict=True)], **how, **grade)
    assert [row.reply for row in turned] == [row.reply for row in byhand]
    assert [row.reply for row in turned] != [row.reply for row in plain]
    assert all(one.images[0] in images for one in seen[:8])  # graders see what was given
    with pytest.raises(RecordError):
        hl.evaluate(gate, asked, out=tmp_path / "rows", **how, **grade)


def test_a_transform_that_fails_names_the_question(gate):
    one = hl.data.Question("stripes 3", "these stripes run", answer="a", images=(picture(KINDS[0], 0),))
    with pytest.raises(PromptError, match=r"question 'stripes 3': the transform failing fails on its image: ZeroDivision"):
        hl.evaluate(gate, [one], max_new_tokens=1, transforms=failing)
