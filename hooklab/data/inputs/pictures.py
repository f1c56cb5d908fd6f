"""Images of examples on their way into a model: opened when they are needed, and put where the text says.

In: an example with images. Out: a `Prompt`, made by the model's own processor.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import PromptError
from ...positions.images import elsewhere
from .sources import IMAGE, Example
from .transforms import Transform, inline, transformed

if TYPE_CHECKING:
    from ...model.inputs import Prompt, Reader


def read_with_images(reader: Reader, example: Example, transforms: Sequence[Transform] = ()) -> Prompt:
    """An example with images, as the model's processor reads it, after what `transforms` make of each.

    Raises:
        PromptError: the model has no processor, the text does not say where the images stand, one cannot be opened, or a
            transform fails.
    """
    if reader.processor is None:
        raise PromptError("images need the model's processor: open it with hl.load(module, processor=...) or from a folder "
                          "that holds one.")
    images = list(opened_with(example.images, transforms))
    if example.messages is not None:
        return _chat(reader, example, images)
    text = example.text or ""
    token = _token(reader.processor)
    if IMAGE in text:
        if token is None:
            raise PromptError("this model's processor does not say which token stands for an image: write it in the text.")
        if token in text:
            raise PromptError(f"its text holds {token}, which this model reads as an image.")
        if text.count(IMAGE) != len(images):
            raise PromptError(f"its text has room for {text.count(IMAGE)} images, and there are {len(images)}.")
        text = text.replace(IMAGE, token)
    elif token is not None and not any(word in text for word in _words(reader.processor)):
        raise PromptError('its text does not say where the image stands: give a template, such as "{image} {text}".')
    return _tried(lambda: reader.read([text], images=images))


def opened_with(images: Sequence[Any], transforms: Sequence[Transform]) -> tuple[Any, ...]:
    """Pictures after what `transforms` make of each. Raises PromptError where one cannot be opened, or a transform fails."""
    return tuple(transformed(opened(one), transforms, _which(one, n, len(images))) for n, one in enumerate(images))


def untransformed(example: Example) -> None:
    """Raises PromptError for pictures that transforms do not reach: those within turns, which the processor opens."""
    if inline(example.messages):
        raise PromptError("its turns bring pictures of their own, which the processor opens, so that transforms do not "
                          "reach them: keep pictures in a column (images=…), and say {image} where they stand.")


def _which(image: Any, n: int, count: int) -> str:
    """What an error calls a picture."""
    name = f" {str(image)!r}" if isinstance(image, str | Path) else f" {n + 1} of {count}" if count > 1 else ""
    return f"its image{name}"


def opened(image: Any) -> Any:
    """A picture: one that is a file, or the bytes of one, decoded; any other as it is.

    Raises:
        PromptError: it is none.
    """
    if isinstance(image, Mapping):
        found, name = io.BytesIO(image["bytes"]), "the image"
    elif isinstance(image, str | Path):
        found, name = image, str(image)  # type: ignore[assignment]
    else:
        return image
    if isinstance(image, str | Path) and (said := elsewhere(image)):
        raise PromptError(said)
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(found) as file:
            return file.copy()
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise PromptError(f"{name} cannot be opened: {error}") from None


def _chat(reader: Reader, example: Example, images: list[Any]) -> Prompt:
    """A chat with images: the turns' texts cut at the marks, as the processor's chat template takes them."""
    if not getattr(reader.processor, "chat_template", None):
        raise PromptError("a chat with images needs a processor with a chat template, which this model's has not.")
    left, turns = list(images), []
    for turn in example.messages or ():
        content = turn["content"]
        if isinstance(content, str):
            pieces: list[dict[str, Any]] = []
            for n, words in enumerate(content.split(IMAGE)):
                if n:
                    if not left:
                        raise PromptError(f"its turns have room for more images than the {len(images)} there are.")
                    pieces.append({"type": "image", "image": left.pop(0)})
                pieces += [{"type": "text", "text": words}] if words else []
            content = pieces
        for one in content if isinstance(content, list) else ():
            _checked(one)
        turns.append({**turn, "content": content})
    if left and len(left) < len(images):
        raise PromptError(f"its turns leave out {len(left)} of {len(images)} images.")
    if left and not any(isinstance(turn["content"], list) and any(piece.get("type") == "image" for piece in turn["content"])
                        for turn in turns):
        raise PromptError('its turns do not say where the image stands: give a template, such as "{image} {text}".')
    return _tried(lambda: reader.read(reader.processor.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")))


def _checked(piece: Any) -> None:
    """Raises PromptError for a part of a turn whose image is an address, which a processor would fetch."""
    for name in ("image", "url", "image_url", "path") if isinstance(piece, Mapping) else ():
        value = piece.get(name)
        value = value.get("url") if isinstance(value, Mapping) else value
        if isinstance(value, str | Path) and (said := elsewhere(value)):
            raise PromptError(said)


def _tried(read: Any) -> Prompt:
    """What a processor makes, its own complaints in our kind of error."""
    try:
        found: Prompt = read()
        return found
    except PromptError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, RuntimeError) as error:
        raise PromptError(f"the processor refuses it: {error}") from error


def _token(processor: Any) -> str | None:
    found = getattr(processor, "image_token", None)
    return found if isinstance(found, str) else getattr(found, "content", None)


def _words(processor: Any) -> list[str]:
    """The words with which a text may say where an image stands."""
    found = [getattr(processor, name, None) for name in ("image_token", "boi_token")]
    return [word for one in found if isinstance(word := getattr(one, "content", one), str)]
