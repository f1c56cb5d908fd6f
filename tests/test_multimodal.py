"""Images and text in one prompt: where each stands, who sees whom, what is patched, and a study with a known answer."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import build, chameleon_processor, image

import hooklab as hl
from hooklab.analysis.mass import attention_shares
from hooklab.analysis.modality import modality_geometry, modality_similarity, modality_vectors
from hooklab.analysis.outcomes import patching_metrics
from hooklab.data.inputs.batching import batches, shortened
from hooklab.data.inputs.sources import examples
from hooklab.errors import PositionError, PromptError, RecordError
from hooklab.positions import positions, resolve
from hooklab.tokens import Tokens

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
BOI, EOI, IMAGE, SEP, BREAK = 4, 5, 7, 6, 8
IDS = dict(image_token_ids={IMAGE}, image_start_ids={BOI}, image_end_ids={EOI}, image_break_ids={BREAK})
PICTURE = [BOI, *[IMAGE] * 16, EOI]
ASKING = "(text | last)"


@cache
def chameleon() -> Any:
    processor = chameleon_processor()
    return hl.load(build("chameleon"), processor=processor, tokenizer=processor.tokenizer, verify=False)


@cache
def llava() -> Any:
    return hl.load(build("llava"), verify=False)


@cache
def llava_processor() -> Any:
    """The real processor of LLaVA, CLIP's for images, around a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = {word: i for i, word in enumerate(["<s>", "</s>", "<pad>", "<unk>", "a", "cat", "dog", "this", "is"])}
    inner = Tokenizer(models.WordLevel({**words, "<image>": 99}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                   unk_token="<unk>", additional_special_tokens=["<image>"])
    images = CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    return LlavaProcessor(images, made, patch_size=4, vision_feature_select_strategy="default", image_token="<image>",
                          num_additional_image_tokens=1)


@cache
def seeing(name: str) -> tuple[Any, int, int]:
    """A model with its processor, the id of an image's tokens, and how many there are."""
    if name == "chameleon":
        return chameleon(), IMAGE, 16
    processor = llava_processor()
    return hl.load(build("llava"), processor=processor, tokenizer=processor.tokenizer, verify=False), 99, 4


def encoded(texts, *seeds):
    return dict(chameleon().processor(text=texts, images=[image(seed) for seed in seeds], return_tensors="pt", padding=True,
                                      padding_side="left"))


# Where images stand


@pytest.mark.parametrize(("template", "before", "after"), [("{image} {text}", 0, 2), ("{text} {image}", 2, 0)])
def test_a_template_puts_the_image_before_the_text_or_after_it(template, before, after):
    rows = [{"image": image(i), "text": "a cat"} for i in range(2)]
    (batch,) = batches(examples(rows, template=template), chameleon())
    for ids in batch.tokens.ids:
        assert list(ids) == [0, *[28, 29][:before], *PICTURE, *[28, 29][:after], SEP]
    assert batch.prompt.extras["pixel_values"].shape[0] == 2
    (without,) = batches(["a cat"], chameleon())
    assert without.prompt.extras == {} and list(without.tokens.ids[0]) == [0, 28, 29]


@pytest.mark.parametrize(("text", "count"), [
    ("a cat", 0), ("<image> a cat", 1), ("a cat <image>", 1), ("a <image> cat", 1), ("<image> a <image> cat", 2),
    ("a <image> cat <image> dog", 2), ("<image> <image>", 2)])
def test_spans_of_no_one_and_two_images_with_text_around_them(text, count):
    tokens = chameleon().tokens(text, **({"images": [image(i) for i in range(count)]} if count else {}))
    ids, starts = tokens.ids[0], [p for p, n in enumerate(tokens.ids[0]) if n == BOI]
    assert len(starts) == count
    for name, offsets in {"boi": [0], "image": range(1, 17), "eoi": [17]}.items():
        expected = [[start + offset for offset in offsets] for start in starts]
        assert resolve(name, tokens, allow_empty=True) == [[p for one in expected for p in one]]
        for i in range(count):
            assert resolve(f"{name}[{i}]", tokens) == resolve(f"{name}[{i - count}]", tokens) == [expected[i]]
        with pytest.raises(PositionError, match="counted from 0" if count else "text only"):
            resolve(f"{name}[{count}]", tokens)
        assert resolve(f"{name}[{count}]", tokens, allow_empty=True) == [[]]
    assert resolve("text", tokens, allow_empty=True) == [[p for p, n in enumerate(ids) if n > IMAGE]]
    if count:
        assert resolve("image[0].last", tokens) == [[starts[0] + 16]]


def test_prompts_of_a_batch_have_images_of_their_own():
    texts = ["a cat", "<image> a", "<image> <image> dog"]
    tokens = chameleon().tokens(texts, images=[None, image(0), [image(1), image(2)]])
    flat = chameleon().tokens(texts, images=[image(i) for i in range(3)])
    assert tokens == flat and [len(spans) for spans in tokens.images] == [0, 1, 2]
    assert resolve("eoi[1]", tokens, allow_empty=True)[:2] == [[], []]


def test_more_images_than_the_text_has_room_for_are_refused():
    with pytest.raises(PromptError, match=r"room for 1 image \(<image>\), and 2 are given"):
        chameleon().tokens("<image> a", images=[image(0), image(1)])
    with pytest.raises(PromptError, match=r"room for \[1, 1\] images"):
        chameleon().tokens(["<image> a", "<image> a"], images=[[image(0), image(1)], None])


def test_words_that_read_like_a_marker_are_text():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate([*"abcd", "<racm3:break>", "<eoss>", "e", "<image>", "f", "<", "eoss", ">"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="d"))
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokens = Tokens.encode(PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="c"), "a <eoss> a", **IDS)
    assert "<eoss>" in tokens.text[0] and EOI not in tokens.ids[0]
    assert tokens.roles[0] == ("text",) * 5 and tokens.eoi == ((),) and tokens.images == ((),)


def test_the_marker_itself_marks_no_image_where_there_is_none_beside_it():
    tokens = chameleon().tokens("a <eoss> <image> cat <racm3:break> dog", images=image())
    assert tokens.ids[0].count(EOI) == tokens.ids[0].count(BOI) == 2
    (start, stop), = tokens.images[0]
    assert (tokens.boi, tokens.eoi) == (((start - 1,),), ((stop,),))


def test_a_size_may_stand_between_an_image_and_its_marker():
    tokens = Tokens.from_ids([[BOI, 9, BOI, 20, 21, IMAGE, IMAGE, EOI, 9, EOI, BOI, 22, IMAGE, 23, EOI]], **IDS)
    assert (tokens.boi, tokens.eoi) == (((2, 10),), ((7, 14),))
    assert tokens.images == (((5, 7), (12, 13)),)


def test_rows_and_columns_of_a_square_of_every_image():
    tokens = chameleon().tokens("<image> a <image>", images=[image(0), image(1)])
    grids = [np.arange(start, start + 16).reshape(4, 4) for start, _ in tokens.images[0]]
    for n in (0, 2, -1):
        assert resolve(f"row({n})", tokens) == [[*grids[0][n], *grids[1][n]]]
        assert resolve(f"column({n}, of=image[1])", tokens) == [[*grids[1][:, n]]]
    with pytest.raises(PositionError, match="has 4 rows"):
        resolve("row(4)", tokens)
    with pytest.raises(PositionError, match="text only"):
        resolve("row(0)", chameleon().tokens("a cat"))


def test_rows_that_a_token_ends_are_not_mistaken_for_images():
    i = IMAGE
    tokens = Tokens.from_ids([[0, i, i, i, BREAK, i, i, i, EOI, 9, i, i, BREAK, i, i, BREAK, i, i, EOI]], **IDS)
    assert tokens.images == (((1, 8), (10, 18)),) and tokens.eoi == ((8, 18),)
    assert resolve("image[0]", tokens) == [[1, 2, 3, 5, 6, 7]]
    assert resolve("row(1)", tokens) == [[5, 6, 7, 13, 14]]
    assert resolve("column(-1)", tokens) == [[3, 7, 11, 14, 17]]
    assert resolve("row(2, of=image[1])", tokens) == [[16, 17]]


def test_an_image_that_is_no_square_has_no_rows_to_guess():
    tokens = Tokens.from_ids([[0, *[IMAGE] * 6, 9]], **IDS)
    with pytest.raises(PositionError, match="6 tokens make no square"):
        resolve("row(0)", tokens)


def test_images_side_by_side_are_told_apart_by_how_many_there_are():
    ids, pixels = torch.tensor([[1, *[99] * 8, 5, 99, 99, 99, 99]]), torch.randn(3, 3, 8, 8)
    tokens = llava().tokens({"input_ids": ids, "pixel_values": pixels})
    assert tokens.images == (((1, 5), (5, 9), (10, 14)),) and tokens.eoi is None
    assert resolve("[image[1], image[2].last]", tokens) == [[5, 6, 7, 8, 13]]
    apart = llava().tokens({"input_ids": torch.tensor([[99, 99, 5, 99, 99, 5, *[99] * 8]]), "pixel_values": pixels})
    assert apart.images == (((0, 2), (3, 5), (6, 14)),)


@pytest.mark.parametrize("text", ["image[1]", "eoi[-1]", "boi[0].next", "row(0)", "column(-1, of=image[0])",
                                  "all - image[0]"])
def test_image_positions_are_read_back_from_their_text(text):
    assert str(positions(text)) == text and positions(str(positions(text))) == positions(text)


@pytest.mark.parametrize("text", ["text[0]", "row(0, of=text)", "prompt[1]"])
def test_only_images_are_numbered_and_have_rows(text):
    with pytest.raises(PositionError, match="numbered|of an image"):
        positions(text)


def test_images_that_a_cut_leaves_are_where_they_were():
    tokens = Tokens.from_ids([[1, 2, *PICTURE, 9, 9]], **IDS)
    cut = shortened(tokens, 10, "left")
    (start, stop), = cut.images[0]
    assert cut.ids[0][start:stop] == (IMAGE,) * (stop - start) and cut.ids[0][stop] == EOI and start == 0


def test_the_end_of_an_image_is_found_while_writing_on():
    model = chameleon()
    run = model.run('prompt "<image> a cat" image={im}\ngenerate 3\nsave L1.resid_post @eoi as end', im=image())
    encoding = encoded(["<image> a cat"], 0)
    end = encoding["input_ids"][0].tolist().index(EOI)
    with torch.no_grad():
        hidden = model.hf(**encoding, output_hidden_states=True).hidden_states
    stream = model.capture(encoding, "L1.resid_post")["L1.resid_post"]
    torch.testing.assert_close(run["end"].flatten(), stream[0, end], atol=1e-5, rtol=0)
    before = model.capture(encoding, "L1.resid_pre", at="eoi")["L1.resid_pre"].flatten()
    torch.testing.assert_close(before, hidden[1][0, end])


def test_images_in_a_ragged_batch_are_what_they_are_alone():
    texts = ["<image> a", "a cat w1 <image> dog", "w2 <image> this is a cat"]
    places = ("eoi", "image.last", "row(1)", "last")
    together = {at: modality_vectors(chameleon(), texts, {at: at}, images=[image(i) for i in range(3)])[at] for at in places}
    for at in places:
        alone = [modality_vectors(chameleon(), text, {at: at}, images=image(i))[at] for i, text in enumerate(texts)]
        for address, found in together[at].items():
            np.testing.assert_allclose(found, np.concatenate([one[address] for one in alone]), atol=1e-5)


ROWS = [{"text": "a cat", "images": [image(0)]}, {"text": "this is a dog", "images": [image(1), image(2)]},
        {"text": "dog", "images": [image(3)]}, {"text": "a dog", "images": [image(4), image(5)]}]


def per_example(model, text, images):
    """Ids and the first layer's output of one prompt, by the processor and transformers alone."""
    encoding = model.processor(text=[text], images=images, return_tensors="pt")
    with torch.no_grad():
        return encoding["input_ids"][0].tolist(), model.hf(**encoding, output_hidden_states=True).hidden_states[1][0]


@pytest.mark.parametrize("template", ["{images} {text}", "{text} {images}"])
@pytest.mark.parametrize("name", ["llava", "chameleon"])
def test_images_and_text_are_extracted_as_the_processor_and_the_bare_model_give_them(name, template, tmp_path):
    model, image_id, size = seeing(name)
    given = dict(template=template, images="images", batch_tokens=120)
    found = hl.extract(model, ROWS, "L0.resid_post", tmp_path / "all", **given)
    images = hl.extract(model, ROWS, "L0.resid_post", tmp_path / "images", at="image", **given)
    second = hl.extract(model, ROWS, "L0.resid_post", tmp_path / "second", at="image[1]", on_error="skip", **given)
    assert found.report.passes < len(ROWS) and second.store.ids == ("1", "3")
    assert [one.example for one in second.report.skipped] == ["0", "2"]
    for i, row in enumerate(ROWS):
        text = template.format(text=row["text"], images="<image>" * len(row["images"]))
        ids, hidden = per_example(model, text, row["images"])
        assert list(found.store.tokens(i)) == ids
        torch.testing.assert_close(found.store["L0.resid_post"][i], hidden, atol=1e-5, rtol=1e-4)
        places = [p for p, n in enumerate(ids) if n == image_id]
        assert len(places) == size * len(row["images"])
        torch.testing.assert_close(images.store["L0.resid_post"][i], hidden[places], atol=1e-5, rtol=1e-4)
        tokens = model.tokens(text, images=row["images"])
        assert list(tokens.ids[0]) == ids and resolve("image", tokens) == [places]
        for k in range(len(row["images"])):
            assert resolve(f"image[{k}]", tokens) == [places[size * k : size * (k + 1)]]
        if len(row["images"]) > 1:
            torch.testing.assert_close(second.store["L0.resid_post"][str(i)], hidden[places[size:]], atol=1e-5, rtol=1e-4)


def test_images_at_an_address_are_not_fetched(monkeypatch):
    import socket

    def no(*_):
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr(socket.socket, "connect", no)
    monkeypatch.setattr(socket, "getaddrinfo", no)
    model, address = chameleon(), "https://example.org/cat.png"
    for act in (lambda: model.tokens("<image> a", images=address),
                lambda: model.capture("<image> a", "L0.z", images=[address]),
                lambda: list(batches(examples([{"image": address, "text": "a"}], template="{image} {text}"), model)),
                lambda: list(batches([hl.data.Example("x", text="<image> a", images=(address,))], model))):
        with pytest.raises(PromptError, match="nothing is fetched over HTTP.*Download them"):
            act()


# Who sees whom


def masked(hf, encoding, cuts):
    """Logits with attention cut in all layers, from transformers alone: a mask [batch 1 query_pos key_pos]."""
    n = encoding["input_ids"].shape[1]
    mask = torch.full((n, n), torch.finfo(torch.float32).min).triu(1)
    for keys, queries in cuts:
        for query in queries:
            mask[query, [key for key in keys if key != query]] = torch.finfo(torch.float32).min
    with torch.no_grad():
        return hf(**{**encoding, "attention_mask": mask[None, None]}).logits


CUTS = {
    "the text from the image": ("image", "text"), "the image from the text": ("text", "image"),
    "the text from the image but not its end": ("(image | boi)", ASKING), "the text from the end alone": ("eoi", ASKING),
    "one image from the other": ("image[0]", "image[1]"), "a row": ("row(0)", "last")}


@pytest.mark.parametrize("keys, queries", CUTS.values(), ids=CUTS)
def test_a_cut_between_modalities_of_chameleon_is_a_mask(keys, queries):
    encoding = encoded(["w1 a <image> cat <image> dog w2"], 0, 1)
    ids = encoding["input_ids"][0].tolist()
    first, second = (p for p, n in enumerate(ids) if n == BOI)
    one, two = list(range(first + 1, first + 17)), list(range(second + 1, second + 17))
    text = [p for p, n in enumerate(ids) if n > IMAGE]
    by_hand = {"image": one + two, "text": text, ASKING: [*text, len(ids) - 1], "eoi": [first + 17, second + 17],
               "(image | boi)": [first, *one, second, *two], "image[0]": one, "image[1]": two, "last": [len(ids) - 1],
               "row(0)": one[:4] + two[:4]}
    expected = masked(build("chameleon"), encoding, [(by_hand[keys], by_hand[queries])])
    run = chameleon().run(f"prompt {{x}}\nrun cut on main:\n    cut L* @{keys} -> @{queries}\n    save logits", x=encoding)
    torch.testing.assert_close(run["cut.logits"].reshape(expected.shape), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(expected, build("chameleon")(**encoding).logits, atol=1e-3)


@pytest.mark.parametrize(("keys", "queries"), [("image", "text"), ("text", "image"), ("image[1]", "text")])
def test_a_cut_between_modalities_of_llava_is_a_mask(keys, queries):
    ids = [1, 7, 8, *[99] * 8, 9, 10, 11]
    encoding = {"input_ids": torch.tensor([ids]), "pixel_values": torch.randn(2, 3, 8, 8)}
    by_hand = {"image": range(3, 11), "text": [0, 1, 2, 11, 12, 13], "image[1]": range(7, 11)}
    expected = masked(build("llava"), encoding, [(by_hand[keys], by_hand[queries])])
    run = llava().run(f"prompt {{x}}\nrun cut on main:\n    cut L* @{keys} -> @{queries}\n    save logits", x=encoding)
    torch.testing.assert_close(run["cut.logits"].reshape(expected.shape), expected, atol=1e-5, rtol=0)


def test_shares_of_cross_modal_attention_with_two_images_between_texts():
    encoding = encoded(["w1 a <image> cat <image> dog w2"], 0, 1)
    ids = encoding["input_ids"][0].tolist()
    text = [p for p, n in enumerate(ids) if n > IMAGE]
    places = {name: [p for p, n in enumerate(ids) if n == token] for name, token in
              {"begin": BOI, "image": IMAGE, "end": EOI}.items()}
    hf = build("chameleon", attn_implementation="eager")
    with torch.no_grad():
        seen = hf(**encoding, output_attentions=True).attentions
    mass = np.array([[float(layer[0][:, text][:, :, columns].sum()) for layer in seen] for columns in places.values()])
    shares = attention_shares(chameleon(), encoding, "text", {"begin": "boi", "image": "image", "end": "eoi"})
    np.testing.assert_allclose(shares.values, mass / mass.sum(0), atol=1e-5)


# Patching between pairs


def test_patching_the_end_of_an_image_between_pairs_is_a_replaced_vector():
    model, texts = chameleon(), ["<image> a cat", "w1 <image> this is a dog"]
    base, clean = encoded(texts, 0, 1), encoded(texts, 2, 3)
    ends = [row.index(EOI) for row in clean["input_ids"].tolist()]
    hf, expected = build("chameleon"), []
    answer, wrong = (model.tokenizer.convert_tokens_to_ids(word) for word in ("w3", "w4"))
    position_ids = (clean["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    for block in hf.model.layers:
        kept: list[torch.Tensor] = []

        def put(module, inputs, output, kept=kept):
            whole = output[0] if isinstance(output, tuple) else output
            if not kept:
                kept.append(whole.clone())
            else:
                whole[[0, 1], ends] = kept[0][[0, 1], ends]

        handle = block.register_forward_hook(put)
        with torch.no_grad():
            hf(**base, position_ids=position_ids)
            logits = hf(**clean, position_ids=position_ids).logits[:, -1]
        handle.remove()
        expected.append((logits[:, answer] - logits[:, wrong]).tolist())
    swept = hl.sweep(model, clean, base, "L*.resid_post", "eoi", answer="w3", wrong="w4", mode="noise", normalise=False)
    found = patching_metrics(model, base, clean, "L*.resid_post", "eoi", answer="w3", wrong="w4")
    values = dict(texts=texts, one=[image(2), image(3)], two=[image(0), image(1)])
    run = model.run('prompt clean = {texts} image={one}\nprompt base = {texts} image={two}\nanswer "w3" vs "w4"\n'
                    "metric logit_diff\nrun p on clean:\n    patch each L*.resid_post @eoi from base", values=values)
    whole = model.run('prompt {x}\nanswer "w3" vs "w4"\nmetric logit_diff', x=clean).examples["main"]["logit_diff"]
    np.testing.assert_allclose(run.scores["p.logit_diff"].examples.T, expected, atol=1e-4)
    np.testing.assert_allclose(found.sel(metric="logit_diff_patched").examples.T, expected, atol=1e-4)
    np.testing.assert_allclose(swept.examples.T, np.array(expected) - np.array(whole), atol=1e-4)


def test_patching_an_image_with_itself_changes_nothing():
    clean = encoded(["<image> a cat", "<image> this is a dog"], 0, 1)
    found = patching_metrics(chameleon(), clean, clean, "L*.resid_post", "eoi", answer="w3", wrong="w4")
    np.testing.assert_allclose(found.sel(metric="similarity").values, 1, atol=1e-5)
    for name in ("kl_patched|base", "kl_patched|clean", "flip"):
        np.testing.assert_allclose(found.sel(metric=name).values, 0, atol=1e-5)


# Where modalities lie


def test_vectors_of_modalities_are_hidden_states_at_their_tokens():
    texts = ["<image> a cat", "w1 <image> this is a dog"]
    found = modality_vectors(chameleon(), texts, site="resid_pre", images=[image(0), image(1)])
    alone = [encoded([text], i) for i, text in enumerate(texts)]
    with torch.no_grad():
        hidden = [build("chameleon")(**one, output_hidden_states=True).hidden_states for one in alone]
    for name, wanted in {"image": lambda n: n == IMAGE, "text": lambda n: n > IMAGE}.items():
        for layer in range(2):
            expected = torch.cat([states[layer][0, [p for p, n in enumerate(one["input_ids"][0].tolist()) if wanted(n)]]
                                  for states, one in zip(hidden, alone, strict=True)])
            np.testing.assert_allclose(found[name][f"L{layer}.resid_pre"], expected.numpy(), atol=1e-5)
    with pytest.raises(RecordError, match="no prompt has a position of image"):
        modality_vectors(chameleon(), "a cat")


def test_similarity_of_modalities_is_over_all_pairs_in_every_layer():
    rng = np.random.default_rng(0)
    groups = {name: {f"L{layer}.resid_post": rng.normal(size=(n, 5)) + layer for layer in (1, 3)}
              for name, n in (("image", 7), ("text", 4))}
    found = modality_similarity(groups)
    assert found.coords["layer"] == (1, 3)
    for layer in (1, 3):
        units = {name: (rows := one[f"L{layer}.resid_post"]) / np.linalg.norm(rows, axis=1, keepdims=True)
                 for name, one in groups.items()}
        across = (units["image"] @ units["text"].T).ravel()  # every pair, not the half below a diagonal
        cell = found.sel(layer=layer, group="image", other="text")
        np.testing.assert_allclose([cell.low, cell.values, cell.high], np.quantile(across, [0.25, 0.5, 0.75]), atol=1e-12)
        within = (units["text"] @ units["text"].T)[np.tril_indices(4, -1)]
        np.testing.assert_allclose(found.sel(layer=layer, group="text", other="text").values, np.median(within), atol=1e-12)


def test_geometry_of_modalities_tells_clusters_from_a_mixture():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    apart = rng.normal(size=(2, 60, 6)) * 0.1 + np.eye(6)[:2, None] * 3
    mixed = rng.normal(size=(2, 60, 6))
    groups = {name: {"L0.resid_post": apart[i], "L1.resid_post": mixed[i]} for i, name in enumerate(("image", "text"))}
    np.testing.assert_allclose(modality_geometry(groups).values[0], 1)
    overlap = modality_geometry(groups, "overlap", k=10).values
    assert overlap[0] == 1 and abs(overlap[1] - 59 / 119) < 0.15
    with pytest.raises(RecordError, match='no measure .overlaps.. Did you mean "overlap"'):
        modality_geometry(groups, "overlaps")
    with pytest.raises(RecordError, match="same layers"):
        modality_geometry({"image": {"L0.resid_post": apart[0]}, "text": {"L1.resid_post": apart[1]}})


# The study


def test_the_study_finds_the_planted_gate_and_none_where_there_is_none(tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from benchmarks import gate

    gated, null = found = gate.measured(16)
    for one, gone in ((gated, "no_end"), (null, "no_image")):
        assert one.right.keys() == {"clean", "no_end", "no_image", "no_text"}
        assert all(0.25 <= share <= 0.75 if name == gone else share > 0.9 for name, share in one.right.items())
        assert abs(one.logits[gone]) < 0.1 < 3 < min(diff for name, diff in one.logits.items() if name != gone)
    assert gated.shares.sel(group="end", layer=3).values > 0.99 > 0.01 > null.shares.sel(group="end", layer=3).values
    np.testing.assert_allclose(gated.shares.sel(layer=0).values, [1 / 18, 15 / 18, 1 / 18, 1 / 18], atol=1e-3)
    for one, name, turned in ((gated, "end", [0, 1, 1, 0]), (gated, "inside", [1, 0, 0, 0]), (null, "end", [0, 0, 0, 0]),
                              (null, "inside", [1, 1, 1, 0])):
        np.testing.assert_allclose(one.flips[name], turned, atol=0.1)
    np.testing.assert_allclose(gated.outcome.sel(metric="flip").values, gated.flips["end"])
    assert gated.outcome.sel(metric="similarity").values[1:3].min() > 0.99 > 0.1 > null.outcome.sel(
        metric="similarity").values.max()
    assert abs(gated.similarity.sel(group="image", other="text").values).max() < 0.1 < gated.homogeneity.values.min()
    gate.write(found, 16, tmp_path)
    assert {path.name for path in (tmp_path / "gate").iterdir()} == {"ways.png", "places.png"}
    assert "| end → text | 50% " in (tmp_path / "gate.md").read_text(encoding="utf-8")
