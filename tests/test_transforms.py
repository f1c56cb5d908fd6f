"""What is done to pictures before a model sees them: sizes, padding, order, names, and errors that name the row."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import build, chameleon_processor, image

import hooklab as hl
from hooklab.data import batches, fit_image
from hooklab.data.inputs.transforms import name_of
from hooklab.errors import PromptError, RecordError


@pytest.fixture(scope="module")
def model():
    processor = chameleon_processor()
    return hl.load(build("chameleon"), tokenizer=processor.tokenizer, processor=processor)


def painted(width, height, colour=(200, 100, 50), mode="RGB"):
    return Image.new(mode, (width, height), colour)


# Fitting


@pytest.mark.parametrize("size, within, box", [
    ((40, 20), (30, 30), (0, 7, 30, 22)),     # wide: 30 × 15 in the middle
    ((20, 40), (30, 30), (7, 0, 22, 30)),
    ((10, 10), (30, 20), (5, 0, 25, 20)),     # enlarged
    ((100, 30), (33, 40), (0, 15, 33, 25)),   # 33 × 9.9, rounded
    ((1000, 1), (10, 10), (0, 4, 10, 5)),     # never thinner than a pixel
    ((30, 30), (30, 30), (0, 0, 30, 30)),
])
def test_a_picture_is_fitted_with_its_proportions_and_padded(size, within, box):
    found = np.asarray(fit_image(painted(*size), within))
    expected = np.zeros((within[1], within[0], 3), np.uint8)
    left, top, right, bottom = box
    expected[top:bottom, left:right] = (200, 100, 50)
    assert np.array_equal(found, expected)
    assert np.array_equal(np.asarray(fit_image(within)(painted(*size))), expected)
    assert np.array_equal(np.asarray(fit_image(np.asarray(painted(*size)), within)), expected)


def test_what_is_smaller_may_stay_as_it_is():
    source = image(3).crop((0, 0, 10, 6))
    found = np.asarray(fit_image(source, 20, enlarge=False, fill=255))
    assert np.array_equal(found[7:13, 5:15], np.asarray(source))
    assert (np.delete(found.reshape(400, 3), [20 * y + x for y in range(7, 13) for x in range(5, 15)], 0) == 255).all()


@pytest.mark.parametrize("mode, colour, fill, padding", [
    ("L", 90, 7, 7), ("RGB", (1, 2, 3), 7, (7, 7, 7)), ("RGBA", (1, 2, 3, 200), 7, (7, 7, 7, 255)),
    ("RGB", (1, 2, 3), "white", (255, 255, 255)), ("RGB", (1, 2, 3), (9, 8, 7), (9, 8, 7)), ("LA", (5, 6), 7, (7, 255)),
])
def test_padding_has_the_colour_that_was_asked_for_in_every_mode(mode, colour, fill, padding):
    found = fit_image(painted(20, 10, colour, mode), 20, fill=fill)
    assert found.mode == mode and found.getpixel((0, 0)) == padding and found.getpixel((10, 10)) == colour


def test_colours_by_number_are_not_mixed_as_numbers():
    indexed = Image.new("P", (2, 1))
    indexed.putpalette([255, 0, 0, 0, 0, 0, 0, 0, 255])
    indexed.putdata([0, 2])
    found = np.asarray(fit_image(indexed, (20, 10)))
    assert found.shape == (10, 20, 3) and (found[..., 1] == 0).all() and (found[:, 0, 0] > 250).all()
    assert fit_image(painted(8, 8, 1, "1"), 4).mode == "L"


@pytest.mark.parametrize("wrong", [0, (3,), (3, 0), (3.5, 2), "224", True])
def test_a_size_that_is_none_is_refused(wrong):
    with pytest.raises(PromptError, match="a size is"):
        fit_image(image(), wrong)
    with pytest.raises(PromptError, match="a size is"):
        fit_image(wrong)
    with pytest.raises(PromptError, match="takes a picture"):
        fit_image("cat.png", 20)


# In a pass


def turned(picture):
    return picture.rotate(90)


def cut(picture):
    return picture.crop((0, 0, 25, 40))


def rows(folder, n=3):
    for i in range(n):
        image(i).save(folder / f"{i}.png")
    return [{"id": f"row-{i}", "text": "a cat w1", "image": str(folder / f"{i}.png")} for i in range(n)]


TEMPLATE = "{image} {text}"


@pytest.mark.parametrize("transforms", [[turned, cut], [cut, turned], [fit_image((20, 60)), np.asarray], [], np.asarray])
def test_transforms_act_in_their_order_before_the_processor(transforms, model, tmp_path):
    source = rows(tmp_path)
    found = hl.extract(model, source, "L1.resid_post", tmp_path / "s", template=TEMPLATE, id="id",
                       transforms=transforms).store
    for i, row in enumerate(source):
        picture = image(i)
        for one in transforms if isinstance(transforms, list) else [transforms]:
            picture = one(picture)
        inputs = model.processor(text="<image> a cat w1", images=[picture], return_tensors="pt")
        with torch.no_grad():
            states = model.hf(**inputs, output_hidden_states=True).hidden_states
        assert torch.allclose(model.hf.model.norm(found["L1.resid_post"][row["id"]]), states[2][0], atol=1e-4)
    pixels = [batch.prompt.extras["pixel_values"] for batch in batches(
        hl.data.examples(source, template=TEMPLATE), model, transforms=transforms)]
    both = [model.processor(text="<image>", images=[one(image(0))], return_tensors="pt")["pixel_values"]
            for one in (lambda one: cut(turned(one)), lambda one: turned(cut(one)))]
    assert not torch.equal(*both) and len(torch.cat(pixels)) == 3  # the order matters


def test_the_store_says_what_was_done_and_goes_on_with_nothing_else(model, tmp_path):
    source, options = rows(tmp_path), {"template": TEMPLATE, "id": "id", "batch_size": 1}
    given = [fit_image(30, fill="white"), turned, partial(cut), lambda picture: picture]
    names = ["fit_image((30, 30), fill='white', enlarge=True)", "turned", "cut()",
             "test_the_store_says_what_was_done_and_goes_on_with_nothing_else.<locals>.<lambda>"]
    begun = hl.extract(model, source[:2], "L0.z", tmp_path / "s", transforms=given, **options).store
    assert begun.manifest.about["options"]["transforms"] == names == [name_of(one) for one in given]
    with pytest.raises(RecordError, match="was begun otherwise: transforms was .* and is None"):
        hl.extract(model, source, "L0.z", tmp_path / "s", **options)
    other = [*given[:3], (lambda: (lambda picture: picture.rotate(180)))()]
    other[3].__qualname__ = names[3]
    with pytest.raises(RecordError, match="images of its first 2 examples differ"):
        hl.extract(model, source, "L0.z", tmp_path / "s", transforms=other, **options)
    assert hl.extract(model, source, "L0.z", tmp_path / "s", transforms=given, **options).report.resumed == 2
    plain = hl.extract(model, source, "L0.z", tmp_path / "p", **options).store
    assert "transforms" not in plain.manifest.about["options"]


def broken(picture):
    if picture.getpixel((0, 0)) == image(1).getpixel((0, 0)):
        raise ZeroDivisionError("no such luck")
    return picture


def test_a_transform_that_fails_names_the_row_and_the_picture(model, tmp_path):
    source = rows(tmp_path)
    options = {"template": TEMPLATE, "id": "id", "metrics": ["entropy"]}
    with pytest.raises(PromptError, match=r"Example 'row-1': the transform broken fails on its image .*1\.png'"
                                          ": ZeroDivisionError: no such luck"):
        hl.extract(model, source, transforms=[broken], **options)
    found = hl.extract(model, source, transforms=[broken], on_error="skip", **options).report
    assert [one.example for one in found.skipped] == ["row-1"] and found.examples == 2
    two = [{"id": "x", "text": "w1", "image": [image(0), image(1)]}]
    with pytest.raises(PromptError, match="Example 'x': the transform broken fails on its image 2 of 2"):
        hl.extract(model, two, transforms=[broken], **options)
    with pytest.raises(PromptError, match="Example 'row-0': the transform .* makes NoneType of its image"):
        hl.extract(model, source, transforms=[lambda picture: None], **options)
    with pytest.raises(PromptError, match="transforms='fit': each is a function"):
        hl.extract(model, source, transforms=["fit"], **options)


def test_pictures_within_turns_are_out_of_reach_and_said_to_be(model):
    chat = [{"role": "user", "content": [{"type": "image", "image": image()}, {"type": "text", "text": "a cat"}]}]
    with pytest.raises(PromptError, match="Example '0': its turns bring pictures of their own"):
        hl.extract(model, [chat], metrics=["entropy"], transforms=[turned])
