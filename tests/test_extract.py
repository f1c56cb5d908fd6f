"""From a data set to activations: what is stored is what each prompt alone gives, whatever batches, kills and sources."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import build, tokenizer

import hooklab as hl
from hooklab.data import Writer, open_store
from hooklab.data.extraction import reading as extract_reading
from hooklab.data.extraction.extract import extract, reduced
from hooklab.data.reducers.reducers import Mean
from hooklab.errors import PositionError, PromptError, RecordError
from hooklab.problems import SpecError

WORDS = ["Mary", "John", "the", "store", *(f"w{i}" for i in range(40))]


@pytest.fixture(scope="module")
def model():
    return hl.load(build("llama"), tokenizer=tokenizer())


def texts(n, longest=12, seed=0):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))) for _ in range(n)]


def bare(model, text):
    """All hidden states of one prompt, by transformers alone."""
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        return model.hf(ids, output_hidden_states=True, output_attentions=False)


def files(folder):
    found = [p for p in sorted(Path(folder).rglob("*")) if p.is_file() and p.name != ".lock"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def test_every_position_of_every_ragged_example_is_what_the_prompt_alone_gives(model, tmp_path):
    prompts = texts(1000)
    found = extract(model, (p for p in prompts), "L0.resid_post", tmp_path / "s", batch_tokens=200)
    assert found.store.ids == tuple(map(str, range(1000))) and found.report.passes < 100
    ids = [model.tokenizer(prompt)["input_ids"] for prompt in prompts]
    alone = {}
    for length in set(map(len, ids)):  # prompts of one length need no padding: each is what it is alone
        some = [i for i, row in enumerate(ids) if len(row) == length]
        with torch.no_grad():
            hidden = model.hf(torch.tensor([ids[i] for i in some]), output_hidden_states=True).hidden_states[1]
        alone |= dict(zip(some, hidden, strict=True))
    for i, prompt in enumerate(prompts):
        kept = found.store["L0.resid_post"][i]
        assert kept.shape == alone[i].shape and torch.allclose(kept, alone[i], atol=1e-4, rtol=1e-4)
        if i < 50:
            assert torch.allclose(kept, bare(model, prompt).hidden_states[1][0], atol=1e-4, rtol=1e-4)


def test_selected_positions_heads_patterns_and_logits_are_those_of_the_example(model, tmp_path):
    prompts = texts(20, seed=1)
    sites = ["L1.pattern", "L1H2.z", "logits"]
    found = extract(model, prompts, sites, tmp_path / "s", at=[-1, 0], batch_tokens=64).store
    for i, prompt in enumerate(prompts):
        alone = model.capture(prompt, sites)
        picked = [len(alone.tokens.ids[0]) - 1, 0] if len(alone.tokens.ids[0]) > 1 else [0]
        torch.testing.assert_close(found["logits"][i], bare(model, prompt).logits[0, picked], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found["L1.pattern"][i], alone["L1.pattern"][0][:, picked], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found["L1H2.z"][i], alone["L1H2.z"][0][picked], atol=1e-4, rtol=1e-4)
        assert found["L1H2.z"].positions(i) == picked


def test_a_generator_a_list_and_a_file_give_the_same_bytes_but_for_the_files_own_name(model, tmp_path):
    prompts = texts(40, seed=2)
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"text": p}) + "\n" for p in prompts))
    extract(model, (p for p in prompts), "L0.z", tmp_path / "a", shard_bytes=9000)
    extract(model, prompts, "L0.z", tmp_path / "b", shard_bytes=9000)
    extract(model, tmp_path / "p.jsonl", "L0.z", tmp_path / "c", shard_bytes=9000)
    a, b, c = (files(tmp_path / name) for name in "abc")
    assert a == b
    assert {n: v for n, v in a.items() if n != "manifest.json"} == {n: v for n, v in c.items() if n != "manifest.json"}


def test_memory_stays_bounded_while_the_data_set_grows_tenfold(model, monkeypatch):
    alive = [0]

    class Counted(extract_reading.Item):
        def __init__(self, *args):
            super().__init__(*args)
            alive[0] += 1
            weakref.finalize(self, lambda: alive.__setitem__(0, alive[0] - 1))

    def held(n):
        most = []
        source = ({"input_ids": [3 + i % 90] * (1 + i % 9)} for i in range(n))
        extract(model, source, at="last", reduce={"mean": "L0.resid_post"}, metrics=["entropy"], batch_tokens=128,
                max_ram=150_000, progress=lambda *_: most.append(alive[0]))
        return max(most)

    monkeypatch.setattr(extract_reading, "Item", Counted)
    few = held(40)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert held(400) <= few < 40
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


def test_sums_and_metrics_without_a_store_are_those_of_the_prompts(model):
    prompts = texts(30, seed=3)
    found = extract(model, prompts, "L1.resid_post", at="last", metrics={"top": "top", "gap": lambda x: x[:, 3] - x[:, 4]},
                    reduce=["mean", "variance", Mean("L0.resid_post", per="example")], batch_tokens=64)
    alone = [bare(model, p) for p in prompts]
    last = [model.capture(p, "L1.resid_post")["L1.resid_post"][0, -1].double().numpy() for p in prompts]
    assert found.store is None
    np.testing.assert_allclose(found.reduced["mean L1.resid_post"].result().values, np.mean(last, 0), atol=1e-5)
    np.testing.assert_allclose(found.reduced["variance L1.resid_post"].result().values, np.var(last, 0, ddof=1), atol=1e-5)
    logits = [one.logits[0, -1].double() for one in alone]
    np.testing.assert_allclose(found.metrics["gap"], [float(x[3] - x[4]) for x in logits], atol=1e-4)
    np.testing.assert_allclose(found.metrics["top"], [float(x.softmax(-1).max()) for x in logits], atol=1e-5)


def test_metadata_and_answers_stay_with_their_example(model, tmp_path):
    rows = [{"text": p, "right": WORDS[i % 4], "label": i} for i, p in enumerate(texts(20, seed=4))]
    found = extract(model, rows, "L0.resid_post", tmp_path / "s", at="last", metadata=["label"], answer="right",
                    metrics=["prob"], batch_tokens=64)
    assert found.store.metadata["label"] == list(range(20)) and found.store.metadata["right"][5] == WORDS[1]
    ids = model.tokenizer.vocab
    wanted = [float(bare(model, row["text"]).logits[0, -1].softmax(-1)[ids[row["right"]]]) for row in rows]
    np.testing.assert_allclose(found.metrics["prob"], wanted, atol=1e-5)
    np.testing.assert_allclose(found.store["prob"][3], wanted[3], atol=1e-5)


def test_lines_of_the_language_and_functions_act_during_the_pass(model, tmp_path):
    prompts = texts(12, seed=5)
    lines = extract(model, prompts, "L1.resid_post", tmp_path / "a", spec="zero L0.attn_out @last", at="last",
                    metrics={"moved": "kl(batch)"})

    def zero(value):
        value = value.clone()
        value[:, -1] = 0
        return value

    functions = extract(model, prompts, "L1.resid_post", tmp_path / "b", edits={"L0.attn_out": zero}, at="last")
    for i, prompt in enumerate(prompts):
        edited = model.capture(prompt, "L1.resid_post", edits={"L0.attn_out": zero}, full=True)
        for found in (lines, functions):
            torch.testing.assert_close(found.store["L1.resid_post"][i], edited["L1.resid_post"][0, -1:], atol=1e-4,
                                       rtol=1e-4)
        p, q = bare(model, prompt).logits[0, -1].log_softmax(-1), edited.output.logits[0, -1].log_softmax(-1)
        assert lines.metrics["moved"][i] == pytest.approx(float((p.exp() * (p - q)).sum()), abs=1e-4)


def test_a_killed_extraction_goes_on_to_the_same_bytes():
    script = Path(__file__).with_name("extract_kills.py")
    told = subprocess.run([sys.executable, "-W", "ignore", str(script), "5"], capture_output=True, text=True, check=False,
                          timeout=300, cwd=script.parent.parent,
                          env={**os.environ, "PYTHONPATH": ".:tests", "OMP_NUM_THREADS": "1"})
    assert told.returncode == 0, told.stderr[-2000:]
    seen = json.loads(told.stdout)
    assert seen["kills"] == 5 and seen["lost"] == 0 and seen["shards"] > 3


def stopped(prompts, at):
    for i, prompt in enumerate(prompts):
        if i == at:
            raise ZeroDivisionError
        yield prompt


def test_sums_of_an_interrupted_run_go_on_where_its_store_does(model, tmp_path):
    prompts, options = texts(80, seed=6), dict(sites="L0.resid_post", reduce=["covariance"], metrics=["entropy"], at="last",
                                               shard_bytes=2000, max_ram=20_000)
    whole = extract(model, prompts, out=tmp_path / "a", **options)
    with pytest.raises(ZeroDivisionError):
        extract(model, stopped(prompts, 60), out=tmp_path / "b", **options)
    assert 0 < len(open_store(tmp_path / "b")) < 60
    rest = extract(model, iter(prompts), out=tmp_path / "b", **options)
    assert rest.report.resumed > 0 and rest.report.passes < whole.report.passes
    assert files(tmp_path / "a") == files(tmp_path / "b")
    name = "covariance L0.resid_post"
    again = reduced(tmp_path / "b")[name]
    assert (whole.reduced[name].result().values == again.result().values).all() and again.count == 80
    assert (whole.metrics["entropy"] == rest.metrics["entropy"]).all()
    done = extract(model, prompts, out=tmp_path / "b", **options)
    assert done.report.passes == 0 and files(tmp_path / "a") == files(tmp_path / "b")


def test_resuming_otherwise_is_refused_and_says_what_differs(model, tmp_path):
    prompts = texts(12, seed=7)
    extract(model, prompts, "L0.z", tmp_path / "s", at="last", spec="zero L0.mlp_out")
    before = files(tmp_path / "s")
    other = hl.load(build("llama", seed=1), tokenizer=tokenizer())
    for change, words in [(dict(at="first"), "at was 'last' and is 'first'"), (dict(limit=3), "limit was None and is 3"),
                          (dict(spec="zero L1.mlp_out"), "spec was 'zero L0.mlp_out' and is"),
                          (dict(model=other), "model.fingerprint was"), (dict(sites="L1.z"), "sites"),
                          (dict(source=prompts[:9]), "has 9 examples"), (dict(resume=False), "resume=True continues it"),
                          (dict(source=["w1 w1 w1", *prompts[1:]]), "its example '0' has other tokens")]:
        given = {"model": model, "source": prompts, "sites": "L0.z", "out": tmp_path / "s", "at": "last",
                 "spec": "zero L0.mlp_out"} | change
        with pytest.raises(RecordError, match=words):
            extract(**given)
    assert files(tmp_path / "s") == before


def test_an_example_that_fails_is_named_or_left_out_and_listed(model, tmp_path):
    rows = [{"text": "Mary w1"}, {"text": "w2 " * 80}, {"txt": "w3"}, {"text": "John"}, {"text": "Mary w4 w5"}]
    for some, words in ((rows[:2], "Example '1': it has 80 tokens"), (rows[2:], "row 0: there is no column 'text'")):
        with pytest.raises(PromptError, match=words):
            extract(model, some, "L0.z", tmp_path / "s")
    with pytest.raises(PositionError, match=r"example '0'.*"):
        extract(model, ["w1", "w1 w2 w3"], "L0.z", tmp_path / "s", at=2)
    assert not (tmp_path / "s").exists()
    found = extract(model, rows, "L0.z", tmp_path / "s", at=1, on_error="skip")
    assert found.store.ids == ("0", "4")
    assert [one.example for one in found.report.skipped] == ["row 2", "1", "3"]
    assert "no column 'text'" in repr(found.report)


@pytest.mark.parametrize(("row", "options"), [
    ({"text": "Mary \ud800"}, {}), ({"messages": [{"role": "user", "content": "w1 \udfff"}]}, {}),
    ({"text": "Mary", "n": "\ud800"}, {"id": "n"}), ({"text": "Mary", "n": "\ud800"}, {"answer": "n", "metrics": ["prob"]})])
def test_half_a_character_is_an_error_or_left_out_wherever_it_stands(row, options, model, tmp_path):
    with pytest.raises(PromptError, match="half a character"):
        extract(model, [row], "L0.z", tmp_path / "s", **options)
    whole = {"text": "Mary w1", "n": "John"}
    found = extract(model, [whole, row, whole | {"n": "Mary"}], "L0.z", tmp_path / "s", on_error="skip", **options)
    assert len(found.store.ids) == 2 and "half a character" in found.report.skipped[0].why
    with pytest.raises(PromptError, match=r"half a character, '\\ud800', at 2"):
        model.tokens("a \ud800")
    with pytest.raises(PromptError, match="the prompt 1 is no valid text"):
        model.tokens(["a", "b\udc80"])


def test_a_dry_run_counts_what_the_run_then_takes(model, tmp_path):
    prompts = texts(300, seed=8)
    given = dict(sites=["L0.resid_post", "L1.pattern"], out=tmp_path / "s", metrics=["entropy"], reduce={"mean": "L0.z"},
                 batch_tokens=256, shard_bytes=100_000, metadata=["n"])
    source = [{"text": p, "n": i} for i, p in enumerate(prompts)]
    told = extract(model, source, dry_run="timed", **given)
    assert not (tmp_path / "s").exists() and told.seconds > 0
    found = extract(model, source, **given)
    size = sum(len(data) for data in files(tmp_path / "s").values())
    assert abs(told.bytes - size) < 0.02 * size
    assert (told.passes, told.tokens, told.padded) == (found.report.passes, found.report.tokens, found.report.padded)
    assert told.shards == len(found.store.manifest.shards)


def test_less_memory_makes_smaller_windows_and_the_same_values(model, tmp_path):
    prompts = texts(60, seed=9)
    wide = extract(model, prompts, "L*.resid_post", tmp_path / "a").store
    narrow = extract(model, prompts, "L*.resid_post", tmp_path / "b", max_ram="100kB")
    assert narrow.report.passes > 10 and len(narrow.store.manifest.shards) > 1 and narrow.store.ids == wide.ids
    for i in range(60):
        torch.testing.assert_close(narrow.store["L1.resid_post"][i], wide["L1.resid_post"][i], atol=1e-4, rtol=1e-4)


def test_progress_tells_how_many_and_how_fast(model):
    heard = []
    extract(model, texts(20), metrics=["entropy"], batch_tokens=40, progress=lambda *one: heard.append(one))
    assert heard[-1][:2] == (20, 20) and heard[0][0] < 20 and "/s" in heard[0][2]
    extract(model, iter(texts(20)), metrics=["entropy"], progress=lambda *one: heard.append(one))
    assert heard[-1][:2] == (20, 0)


def test_values_that_are_handed_over_are_stored_as_those_that_are_copied(tmp_path):
    drawn = torch.Generator().manual_seed(0)
    whole = torch.randn(3000, 6, generator=drawn)
    some = [whole[0:7], whole[7:9], whole[9:9], whole[20:90, ::2].repeat(1, 2), whole.T[:6, 5:12].T, whole[30:31].double(),
            whole[100:3000].requires_grad_()]
    for name, copy, dtype in (("a", True, "float32"), ("b", False, "float32"), ("c", True, None), ("d", False, None)):
        with Writer(tmp_path / name, {"x": ("pos", "d"), "y": ()}, dtype=dtype, shard_bytes=4000) as writer:
            for i, one in enumerate(some):
                if dtype or one.dtype == torch.float32:
                    given = one.detach().clone() if copy else one
                    writer.add(i, {"x": given, "y": one.detach().sum().to(torch.float32)}, copy=copy)
                    if copy:
                        given.zero_()
    assert files(tmp_path / "a") == files(tmp_path / "b") and files(tmp_path / "c") == files(tmp_path / "d")
    store = open_store(tmp_path / "b")
    assert not store.verify() and all(torch.equal(store["x"][i], one.detach().float()) for i, one in enumerate(some))


def test_nothing_global_changes(model):
    before = torch.is_grad_enabled(), torch.get_rng_state(), Path.cwd(), len(model.interleaver.callbacks)
    extract(model, texts(5), metrics=["entropy"])
    after = torch.is_grad_enabled(), torch.get_rng_state(), Path.cwd(), len(model.interleaver.callbacks)
    assert before[0] == after[0] and torch.equal(before[1], after[1]) and before[2:] == after[2:]


@pytest.mark.parametrize(("options", "error", "words"), [
    (dict(metrcs=["entropy"]), TypeError, "metrcs"), (dict(on_error="ignore", metrics=["top"]), RecordError, "on_error"),
    (dict(), RecordError, "nothing would be kept"), (dict(sites="L0.z", keep=True), RecordError, "say where"),
    (dict(sites="L0.z", reduce="maen"), RecordError, "mean"), (dict(metrics=["entropie"]), SpecError, "entropy"),
    (dict(metrics=["top"], spec="zero L9.z"), SpecError, "line 1"),
    (dict(metrics=["top"], spec="lens"), RecordError, "'lens' line"),
    (dict(metrics=["top"], spec="generate 3"), RecordError, "'generate' line"),
    (dict(metrics=["top"], max_ram="much"), RecordError, "max_ram"),
    (dict(metrics=["top"], max_ram="0"), RecordError, "max_ram"),
    (dict(metrics=["top"], dry_run="yes"), RecordError, "dry"),
    (dict(metrics=["top"], batch_tokens=0), RecordError, "batch_tokens=0"),
    (dict(metrics=["prob"], answer="no"), PromptError, "no column 'no'")])
def test_mistakes_are_errors_before_anything_is_written(options, error, words, model, tmp_path):
    out = {"out": tmp_path / "s"} if options and "keep" not in options else {}
    with pytest.raises(error, match=words):
        extract(model, ["Mary w1"], **out, **options)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("spec", ["noise L0.resid_post by 2", "seed 3\nnoise L0.resid_post by 2",
                                  "ablate L0.attn_out with mean"])
def test_an_example_does_not_depend_on_those_beside_it_where_lines_draw_or_pool(spec, model):
    some = ["Mary w1 w2", "John w3 w4", "the w5 store", "Mary w1 w2"]
    alone, together = (extract(model, some, metrics=["entropy"], spec=spec, batch_size=n).metrics["entropy"] for n in (1, 4))
    first = extract(model, some[:2], metrics=["entropy"], spec=spec).metrics["entropy"]
    assert np.array_equal(alone, together) and np.array_equal(first, together[:2])
    assert (together[0] == together[3]) == ("noise" not in spec), "each example has draws of its own"
    untouched = extract(model, some, metrics=["entropy"]).metrics["entropy"]
    assert (np.abs(together - untouched) > 1e-6).all()


@pytest.mark.parametrize("metric", [lambda logits: logits.sum(), lambda logits: 1.0, lambda logits: logits,
                                    lambda logits: logits[:1, 0]])
def test_a_function_that_gives_no_number_per_example_is_an_error(metric, model):
    with pytest.raises(SpecError, match="one number for each example"):
        extract(model, ["Mary w1", "John w2"], metrics={"own": metric})
    given = extract(model, ["Mary w1", "John w2"], metrics={"own": lambda logits: logits[:, :1]}).metrics["own"]
    assert given == pytest.approx([bare(model, text).logits[0, -1, 0].item() for text in ("Mary w1", "John w2")], abs=1e-4)


def test_every_reducer_is_known_by_its_state_in_a_process_that_imported_nothing_else():
    lines = ["import torch", "from hooklab.data.reducers.reducers import KINDS, from_state",
             "from hooklab.data.reducers.reducing import packed",
             "about = packed({'kind': 'extent', 'site': 'L0.resid_post', 'options': {}})",
             "found = from_state({'about': about, 'extent': torch.tensor([1., 2.]), 'count': torch.tensor(3)})",
             "assert found.result() == (1.0, 2.0)",
             "from hooklab.data.extraction.asked import WORDS", "assert {*WORDS} <= {*KINDS}, {*WORDS} - {*KINDS}"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_lines_that_cannot_be_read_are_left_out_by_their_place_or_end_it(model, tmp_path):
    rows = ['{"text": "Mary w1"}', '{"text": "Jo', '{"text": 1' + "0" * 5000 + "}", "[" * 100_000, '{"text": "a\\ud800"}',
            '{"text": "w2"}', '{"text": "w3", "n": 1, "text": "w4"}']
    (tmp_path / "p.jsonl").write_text("\n".join(rows))
    with pytest.raises(PromptError, match="p.jsonl, line 2: is no JSON"):
        extract(model, tmp_path / "p.jsonl", metrics=["entropy"])
    found = extract(model, tmp_path / "p.jsonl", "L0.resid_post", tmp_path / "s", on_error="skip")
    assert found.store.ids == ("0", "5")
    assert [one.why.split(":")[0] for one in found.report.skipped] == [f"p.jsonl, line {n}" for n in (2, 3, 4, 5, 7)]
    assert '"text" is there twice in one object' in found.report.skipped[-1].why
    assert torch.allclose(found.store["L0.resid_post"]["5"], bare(model, "w2").hidden_states[1][0], atol=1e-5)
