"""Examples of every source, the batches they are put into, and what an extraction of them will take."""

import dataclasses
import json
import random
import weakref
from dataclasses import dataclass, field

import numpy as np
import pytest
import tiny_models
import torch

import hooklab as hl
from hooklab.data.inputs import batching
from hooklab.data.inputs.batching import batches, in_order, plan, shortened
from hooklab.data.inputs.dry_run import dry_run
from hooklab.data.inputs.pictures import opened
from hooklab.data.inputs.sources import IMAGE, Example, examples
from hooklab.errors import PositionError, PromptError
from hooklab.tokens import Tokens

ROWS = [{"key": "a", "caption": "Mary w1", "label": 3}, {"key": "b", "caption": "the store", "label": 1}]


def texts(source, **options):
    return [(example.id, example.text) for example in examples(source, **options)]


@pytest.fixture(scope="module")
def model():
    return hl.load(tiny_models.build("llama"), tokenizer=tiny_models.tokenizer())


@pytest.fixture(scope="module")
def chameleon():
    processor = tiny_models.chameleon_processor()
    return hl.load(tiny_models.build("chameleon"), tokenizer=processor.tokenizer, processor=processor)


# Sources


def test_any_iterable_gives_the_same_examples_as_the_list():
    assert texts(["x", "y"]) == texts(iter(["x", "y"])) == texts(s for s in ("x", "y")) == [("0", "x"), ("1", "y")]


def test_a_generator_is_read_no_further_than_asked():
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield f"w{len(read)}"

    assert texts(endless(), limit=2) == [("0", "w1"), ("1", "w2")] and len(read) == 2


def test_ids_arrays_chats_and_images_are_rows():
    chat = [{"role": "user", "content": "the store"}]
    picture = tiny_models.image()
    found = list(examples([[5, 6], np.array([7]), torch.tensor([8, 9]), chat, picture]))
    assert [example.ids for example in found[:3]] == [(5, 6), (7,), (8, 9)]
    assert found[3].prompt == chat
    assert [example.ids for example in examples(Tokens.from_ids([[5, 6], [7]]))] == [(5, 6), (7,)]
    assert found[4].text == IMAGE and found[4].images == (picture,)


FILES = {
    "rows.jsonl": "\n".join(json.dumps(row) for row in ROWS) + "\n\n",
    "rows.json": json.dumps({"note": "shown", "rows": ROWS}),
    "rows.csv": 'key,caption,label\na,"Mary w1",3\nb,the store,1\n',
    "rows.tsv": "key\tcaption\tlabel\na\tMary w1\t3\nb\tthe store\t1\n",
}


@pytest.mark.parametrize("name", [*FILES, "rows.parquet", "frame", "datasets", "streaming"])
def test_every_kind_of_table_gives_the_same_examples(tmp_path, name):
    source = tmp_path / name
    if name in FILES:
        source.write_text(FILES[name])
    elif name == "rows.parquet":
        pytest.importorskip("pyarrow")
        import pandas as pd

        pd.DataFrame(ROWS).to_parquet(source)
    elif name == "frame":
        source = pytest.importorskip("pandas").DataFrame(ROWS)
    else:
        source = pytest.importorskip("datasets").Dataset.from_list(ROWS)
        source = source.to_iterable_dataset() if name == "streaming" else source
    found = list(examples(source, text="caption", id="key", metadata=["label"]))
    assert [(one.id, one.text) for one in found] == [("a", "Mary w1"), ("b", "the store")]
    assert [int(one.metadata["label"]) for one in found] == [3, 1]


def test_a_text_file_has_a_prompt_per_line(tmp_path):
    (tmp_path / "prompts.txt").write_text("Mary\n\nthe store \n")
    assert texts(tmp_path / "prompts.txt") == [("0", "Mary"), ("1", "the store ")]


def test_a_folder_of_images_has_labels_by_folder_name(tmp_path):
    for name in ("dog/2.png", "cat/1.png", "cat/10.png", "loose.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tiny_models.image().save(tmp_path / name)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    found = list(examples(tmp_path))
    assert [(one.id, one.metadata["label"]) for one in found] == [
        ("cat/1.png", "cat"), ("cat/10.png", "cat"), ("dog/2.png", "dog"), ("loose.png", None)]
    assert np.array_equal(np.asarray(opened(found[0].images[0])), np.asarray(tiny_models.image()))


def test_questions_keep_their_ids_and_further_columns():
    @dataclass(frozen=True)
    class Item:
        id: str
        prompt: str
        answer: str
        metadata: dict = field(default_factory=dict)

    found = list(examples([Item("q7", "w1 w2", "A", {"subject": "anatomy"})], metadata=["answer", "subject"]))
    assert (found[0].id, found[0].text, dict(found[0].metadata)) == ("q7", "w1 w2", {"answer": "A", "subject": "anatomy"})


def test_ids_that_are_there_twice_are_an_error_whatever_they_come_from():
    with pytest.raises(PromptError, match="row 1: the id 'a' was there before, in row 0"):
        list(examples([Example("a", "w1"), Example("a", "w2")]))
    with pytest.raises(PromptError, match="'3'.*row 0"):
        list(examples([{"text": "w1", "n": 3}, {"text": "w2", "n": "3"}], id="n"))


def test_examples_of_examples_are_the_same():
    first = list(examples(ROWS, text="caption", id="key"))
    assert list(examples(first)) == first


# Templates and images


@pytest.mark.parametrize("template, said", [("{image} {caption}", f"{IMAGE} Mary"), ("{caption} {image}", f"Mary {IMAGE}"),
                                            ("{caption}: {{{label}}}", "Mary: {3}")])
def test_a_template_keeps_the_order_of_image_and_text(template, said):
    row = {"caption": "Mary", "label": 3, "image": tiny_models.image()}
    found = next(examples([row], template=template))
    assert found.text == said and len(found.images) == ("image" in template)


def test_several_captions_and_images_stand_where_the_template_says():
    row = {"captions": ["w1 w2", "w3"], "images": [tiny_models.image(0), tiny_models.image(1)]}
    found = next(examples([row], template="{images}{captions}"))
    assert found.text == f"{IMAGE}{IMAGE}w1 w2 w3" and found.images == tuple(row["images"])


def test_chat_makes_the_template_the_users_turn(model):
    found = next(examples(ROWS, template="the {caption}", chat=True))
    assert found.prompt == [{"role": "user", "content": "the Mary w1"}]
    batch = next(batches([found], model))
    assert batch.tokens.ids == model.tokens("user : the Mary w1 assistant :").ids


def test_image_names_are_relative_to_the_file(tmp_path):
    (tmp_path / "pictures").mkdir()
    tiny_models.image(3).save(tmp_path / "pictures" / "x.png")
    (tmp_path / "rows.jsonl").write_text('{"image": "pictures/x.png", "caption": "w1"}\n')
    found = next(examples(tmp_path / "rows.jsonl", template="{image} {caption}"))
    assert np.array_equal(np.asarray(opened(found.images[0])), np.asarray(tiny_models.image(3)))


# Errors that say where


@pytest.mark.parametrize("name, content, options, said", [
    ("x.jsonl", '{"text": "a"}\n{"text": \n', {}, ["x.jsonl, line 2", "JSON"]),
    ("x.jsonl", '{"text": "a"}\n\n{"txt": "b"}\n', {}, ["x.jsonl, line 3", "'text'", 'mean "txt"']),
    ("x.csv", 'text,n\n"two\nlines",1\nb,2,3\n', {}, ["x.csv, line 4", "3 fields", "text, n"]),
    ("x.csv", "text,text\na,b\n", {}, ["x.csv, line 1", "more than once"]),
    ("x.csv", 'text\n"a"b\n', {}, ["x.csv, line 2"]),
    ("x.csv", "caption,n\na,1\n", {"template": "{captoin}"}, ["x.csv, line 2", 'mean "caption"']),
    ("x.csv", "text,label\na,1\n", {"metadata": ["labels"]}, ["x.csv, line 2", 'mean "label"']),
    ("x.jsonl", '{"text": null}\n', {}, ["x.jsonl, line 1", "missing"]),
    ("x.jsonl", '{"text": "a", "c": null}\n', {"template": "{text}{c}"}, ["x.jsonl, line 1", "'c' is missing"]),
    ("x.jsonl", '{"text": "a", "k": 1}\n{"text": "b", "k": 1}\n', {"id": "k"}, ["x.jsonl, line 2", "'1'", "line 1"]),
    ("x.jsonl", '{"text": "a", "image": "no.png"}\n', {}, ["x.jsonl, line 1", "no.png", "images=()"]),
    ("x.json", '{"a": [], "b": []}', {}, ["x.json", "2 lists"]),
    ("x.txt", b"fine\n\xff\xfe\n", {}, ["x.txt", "UTF-8"]),
    ("x.pkl", b"\x80\x04", {}, ["x.pkl", ".jsonl"]),
])
def test_a_malformed_row_is_named_with_its_file_and_line(tmp_path, name, content, options, said):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PromptError) as caught:
        list(examples(path, **options))
    assert all(words in str(caught.value) for words in said), caught.value


@pytest.mark.parametrize("source, options, said", [
    ("The capital of France is", {}, "give a list"),
    ({"train": ["a"]}, {}, "one of the"),
    ([{"role": "user", "content": "hello"}], {}, r"\[chat\]"),
    ([5, 6], {}, "row 0"),
    (["a"], {"limit": 0}, "limit"),
    (["a"], {"template": "no columns"}, "names no column"),
    (["a"], {"template": "{text!r}"}, "nothing else"),
    (["a"], {"template": "{text"}, "brace"),
    (["a"], {"metadata": ["tokens"]}, "'tokens'"),
    ([{"text": f"a {IMAGE}", "image": tiny_models.image()}], {"template": "{image}{text}"}, "FFFC"),
])
def test_what_is_no_source_is_refused_with_what_to_do(source, options, said):
    with pytest.raises(PromptError, match=said):
        list(examples(source, **options))


# Batches


def lines(n):
    rng = np.random.default_rng(0)
    return [" ".join(f"w{k}" for k in rng.integers(0, 80, rng.integers(1, 20))) for _ in range(n)]


def test_batches_hold_every_example_once_within_the_budget(model):
    prompts = lines(60)
    found = list(batches(prompts, model, max_tokens=64, size=6, window=25))
    numbers = [number for batch in found for number in batch.index]
    assert sorted(numbers) == list(range(60))
    assert all(batch.padded <= 64 and len(batch) <= 6 for batch in found)
    for batch in found:
        alone = [model.tokens(prompts[number]).ids[0] for number in batch.index]
        assert batch.tokens.ids == tuple(alone) and batch.ids == tuple(map(str, batch.index))
    assert [batch.index for batch in batches(iter(prompts), model, max_tokens=64, size=6, window=25)] == [
        batch.index for batch in found]


def byte_level():
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = ["a", "Ġb", "ðŁ", "ĺĢ", "Ã©", "Ġ", "Ċ", "Ã", "©", "ï¿½", "<|end|>"]
    inner = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>")
    made.add_tokens([AddedToken(" two words"), "日本", "é"])
    return made


def fused():
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["a", " b", "c ", "▁d", "é", "\n", "\ufffd"])}))
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


@pytest.mark.parametrize("made", [byte_level, fused])
def test_the_text_of_ids_is_what_the_tokenizer_decodes_token_by_token(made):
    known, draw = made(), random.Random(0)
    rows = [[draw.randrange(len(known)) for _ in range(draw.randint(1, 6))] for _ in range(400)]
    together = Tokens.from_ids(rows, known)
    for i, row in enumerate(rows):
        assert together.text[i] == known.decode(row, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        alone = Tokens.from_ids([row], known)
        assert alone == together[i]
        if "\ufffd" not in together.text[i]:
            ends = [len(known.decode(row[: n + 1], clean_up_tokenization_spaces=False)) for n in range(len(row))]
            whole = [n for n in range(len(row)) if "\ufffd" not in known.decode(row[: n + 1])]
            assert [together.offsets[i][n][1] for n in whole] == [ends[n] for n in whole]
            assert all(together.text[i][a:b] == together.pieces[i][n] for n, (a, b) in enumerate(together.offsets[i])
                       if known.decode([row[n]]) == together.pieces[i][n])


def test_ids_that_are_read_together_are_what_they_are_alone(model):
    rows = [[4, 5], [6], [7, 8, 9], [5] * 12, [99_999], [4, 4]]
    read = batching._Reading(model, 10, None)
    several = read.several([Example(str(i), ids=tuple(row)) for i, row in enumerate(rows[:3])])
    assert [one.tokens for one in several] == [model.tokens([row]) for row in rows[:3]]
    for wrong, said in ((rows[3], "it has 12 tokens"), (rows[4], "outside the vocabulary")):
        with pytest.raises(PromptError, match=f"Example '1': .*{said}"):
            list(batches([rows[0], wrong, rows[5]], model, max_tokens=10))
    found = list(batches([rows[0], rows[3]], model, max_tokens=10, truncate="right"))
    assert [(batch.tokens.lengths, batch.cut) for batch in found] == [((10,), (2,)), ((2,), (0,))]


def test_the_look_ahead_is_bounded(model):
    read = []

    def watched():
        for prompt in lines(40):
            read.append(prompt)
            yield prompt

    made = batches(watched(), model, window=10)
    next(made)
    assert len(read) == 10


def test_examples_are_let_go_as_they_stream_by(model):
    alive, most = weakref.WeakSet(), 0
    for batch in batches(watch(examples(f"w{n % 80}" for n in range(300)), alive), model, window=20, size=5):
        assert len(batch) == 5
        most = max(most, len(alive))
    assert 20 <= most <= 2 * 20 + 5


def watch(found, alive):
    for example in found:
        alive.add(example)
        yield example
        del example


def test_like_lengths_are_put_together(model):
    found = list(batches(lines(200), model, max_tokens=100))
    padded, tokens = sum(batch.padded for batch in found), sum(sum(batch.tokens.lengths) for batch in found)
    assert padded < 1.2 * tokens


def test_batches_compute_what_the_prompts_compute_alone(model):
    prompts, found = lines(12), {}
    for batch in batches(prompts, model, max_tokens=60):
        acts = model.capture(batch.prompt, "L1.resid_post", at="last")["L1.resid_post"]
        found |= dict(zip(batch.index, acts, strict=True))
    for number, prompt in enumerate(prompts):
        alone = model.capture(prompt, "L1.resid_post", at="last")["L1.resid_post"][0]
        assert torch.allclose(found[number], alone, atol=1e-5)


def test_results_come_back_in_the_order_of_the_examples(model):
    pairs = ((number, batch.tokens.lengths[k]) for batch in batches(lines(30), model, max_tokens=50, window=8)
             for k, number in enumerate(batch.index))
    assert list(in_order(pairs)) == [len(line.split()) for line in lines(30)]
    for wrong, said in (([(0, 1), (2, 1)], "1 is missing"), ([(0, 1), (0, 1)], "twice")):
        with pytest.raises(PromptError, match=said):
            list(in_order(wrong))


def test_a_plan_is_longest_first_and_stable():
    assert plan([3, 9, 3, 9, 1], max_tokens=18) == [[1, 3], [0, 2], [4]]
    assert plan([4, 4, 4], max_tokens=100, size=2) == [[0, 1], [2]]


def test_an_example_that_is_too_long_is_named(model):
    with pytest.raises(PromptError, match=r"Example 'b': it has 70 tokens, and this model has 64 positions.*truncate"):
        list(batches([Example("a", "w1"), Example("b", " ".join(["w1"] * 70))], model))
    with pytest.raises(PromptError, match=r"Example '0': it has 9 tokens, and a batch may have 8: raise max_tokens"):
        list(batches([" ".join(["w1"] * 9)], model, max_tokens=8))
    with pytest.raises(PromptError, match="Example '1'"):
        list(batches(["w1", ""], model))


@pytest.mark.parametrize("side, kept", [("left", slice(6, None)), ("right", slice(0, 64))])
def test_truncation_is_said_aloud(model, side, kept):
    words = [f"w{k}" for k in range(70)]
    short, long = sorted(batches(["w1", " ".join(words)], model, truncate=side, size=1), key=lambda batch: batch.index)
    assert long.cut == (6,) and short.cut == (0,) and "cut on the " + side in repr(long)
    assert long.tokens.ids[0] == model.tokens(" ".join(words[kept])).ids[0]


def test_cut_tokens_keep_their_roles_markers_and_turns():
    whole = Tokens.from_ids([[1, 8, 9, 9, 5, 6, 7]], image_token_ids={9}, image_start_ids={8}, image_end_ids={5},
                            turns=[[("user", 1, 5), ("model", 5, 7)]])
    whole = dataclasses.replace(whole, bos=((0,),), n_prompt=(5,))
    left, right = shortened(whole, 4, "left"), shortened(whole, 4, "right")
    assert left.ids == ((1, 5, 6, 7),) and left.bos == ((0,),) and left.n_prompt == (2,)
    assert (left.boi, left.images, left.eoi) == (((),), ((),), ((1,),))
    assert left.turns == ((("user", 1, 2), ("model", 2, 4)),)
    assert right.ids == ((1, 8, 9, 9),) and right.roles[0][2:] == ("image", "image") and right.n_prompt == (4,)
    assert (right.boi, right.images, right.eoi) == (((1,),), (((2, 4),),), ((),))
    assert right.turns == ((("user", 1, 4), ("model", 4, 4)),)
    known = {"ids", "pieces", "text", "offsets", "roles", "n_prompt", "padding_side", "bos", "boi", "eoi", "images", "turns"}
    assert {one.name for one in dataclasses.fields(Tokens)} == known  # shortened() must know every field


@pytest.mark.parametrize("template", ["{image} {caption}", "{caption} {image}"])
def test_images_go_through_the_processor_in_the_templates_order(chameleon, template):
    rows = [{"caption": f"a cat w{k}" + " w1" * (k % 2), "image": tiny_models.image(k)} for k in range(3)]
    found = list(batches(examples(rows, template=template), chameleon, max_tokens=60))
    assert sorted(number for batch in found for number in batch.index) == [0, 1, 2]
    for batch in found:
        acts = chameleon.capture(batch.prompt, "L1.resid_post", at="last")["L1.resid_post"]
        for row, number in enumerate(batch.index):
            text = template.replace("{image}", "<image>").replace("{caption}", rows[number]["caption"])
            alone = chameleon.capture(text, "L1.resid_post", at="last", images=[rows[number]["image"]])["L1.resid_post"]
            assert torch.allclose(acts[row], alone[0], atol=1e-4)
            roles = batch.tokens.roles[row]
            assert roles.count("image") == 16 and (roles.index("image") < 4) == template.startswith("{image}")


def test_a_chat_with_an_image_goes_through_the_processors_template():
    processor = tiny_models.chameleon_processor()
    processor.chat_template = ("{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
                               "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}")
    model = hl.load(tiny_models.build("chameleon"), tokenizer=processor.tokenizer, processor=processor)
    row = {"caption": "a cat", "image": tiny_models.image()}
    batch = next(batches(examples([row], template="{image}{caption}", chat=True), model))
    assert batch.tokens.ids == model.tokens("<image>a cat", images=[row["image"]]).ids
    assert "image" in batch.tokens.roles[0] and "pixel_values" in batch.prompt.extras
    with pytest.raises(PromptError, match="'x'.*more images than the 1"):
        list(batches([Example("x", messages=({"role": "user", "content": IMAGE * 2},), images=(row["image"],))], model))


def test_text_and_image_examples_are_batched_apart(chameleon):
    rows = [Example("t", "a cat"), Example("i", f"{IMAGE} cat", images=(tiny_models.image(),)), Example("u", "w1 w2")]
    assert sorted(batch.ids for batch in batches(rows, chameleon)) == [("i",), ("t", "u")]


def test_images_that_do_not_fit_their_text_are_named(chameleon, model):
    picture = tiny_models.image()
    for example, said in ((Example("x", "a cat", images=(picture,)), "'x'.*template"),
                          (Example("x", f"{IMAGE} <image>", images=(picture,)), "'x'.*reads as an image"),
                          (Example("x", f"{IMAGE}{IMAGE}", images=(picture,)), "'x'.*room for 2 images"),
                          (Example("x", IMAGE, images=({"bytes": b"nothing"},)), "'x'.*cannot be opened")):
        with pytest.raises(PromptError, match=said):
            list(batches([example], chameleon))
    with pytest.raises(PromptError, match="processor"):
        list(batches([Example("x", IMAGE, images=(picture,))], model))


# Dry run


@pytest.mark.parametrize("family, dtype", [("llama", torch.float32), ("gpt2", torch.bfloat16)])
@pytest.mark.parametrize("at", [None, "last", "-2:"])
def test_a_dry_run_says_the_bytes_that_a_run_has(family, dtype, at):
    model = hl.load(tiny_models.build(family, dtype=dtype))
    prompts = [list(range(5, 5 + n)) for n in (7, 3, 5, 9, 4)]
    sites = ["embed", "L*.resid_post", "L0.z", "L1H2.pattern", "L0.k", "L1.mlp_post", "L0N3", "logits"]
    planned = dry_run(model, [len(prompt) for prompt in prompts], sites, at=at, dtype="float16", max_tokens=20)
    stored, peaks, passes = {}, [], 0
    for batch in batches(prompts, model, max_tokens=20):
        passes += 1
        acts = model.capture(batch.prompt, sites, at=at)
        peaks.append({site: value.nbytes for site, value in acts.items()})
        for prompt in batch.examples:
            for site, value in model.capture(prompt.prompt, sites, at=at).items():
                stored[site] = stored.get(site, 0) + value.half().nbytes
    assert (planned.passes, planned.sites) == (passes, stored)
    assert planned.peak == max(sum(some.values()) for some in peaks)
    assert planned.peaks == {site: max(some[site] for some in peaks) for site in peaks[0]}
    assert dataclasses.replace(dry_run(model, prompts, sites, at=at, dtype="float16", max_tokens=20), bytes=0) == (
        dataclasses.replace(planned, bytes=0))


def test_a_dry_run_says_how_large_the_store_is(model, tmp_path):
    pytest.importorskip("pyarrow")
    from hooklab.data import Writer

    rows = list(examples(ROWS, text="caption", id="key", metadata=["label"]))
    with Writer(tmp_path / "store", ["L0.resid_post"], dtype="float16") as writer:
        for row in rows:
            acts = model.capture(row.prompt, "L0.resid_post")
            writer.add(row.id, {"L0.resid_post": acts["L0.resid_post"][0]}, tokens=acts.tokens, metadata=row.metadata)
    there = sum(path.stat().st_size for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert dry_run(model, rows, "L0.resid_post", dtype="float16").bytes == pytest.approx(there, rel=0.02)


def test_a_dry_run_of_lengths_needs_no_text(model):
    with pytest.raises(PositionError, match="Give the examples"):
        dry_run(model, [4, 5], "L0.resid_post", at='"Mary"')
    with pytest.raises(PromptError, match="9 tokens"):
        dry_run(model, [9], "L0.resid_post", max_tokens=8)
