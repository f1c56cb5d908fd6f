"""What a model's config and processor say of images: which ids stand for them, how long they are, where they belong.

In: a layout and its companions, or an encoding. Out: what `Tokens` and the reader need to know. Only ids are compared, never
what tokens read like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import PromptError
from ..positions.images import elsewhere, image_spans
from .layout import Layout

IMAGE_IDS = {
    "image_token_ids": ("image_token_id", "image_token_index"),
    "image_start_ids": ("boi_token_id", "image_start_token_id", "vision_start_token_id", "image_begin_token_id",
                        "start_image_token_id", "boi_token_index"),
    "image_end_ids": ("eoi_token_id", "image_end_token_id", "vision_end_token_id", "end_image_token_id", "eoi_token_index"),
    "image_break_ids": ("image_break_token_id", "image_newline_token_id", "img_line_break_token_id",
                        "image_row_end_token_id"),
}
"""What images are made of -> the names that configs, processors and tokenizers have for its id; the first one counts."""


def image_roles(layout: Layout, tokenizer: Any = None, processor: Any = None) -> dict[str, Any]:
    """The ids of image tokens, of markers around images and of breaks between their rows, as `Tokens` takes them.

    They come from the model's config, its processor and its tokenizer; a text that reads like a marker is none.
    """
    sources = (layout.hf.config, processor, tokenizer)
    found = {}
    for role, names in IMAGE_IDS.items():
        ids = (getattr(source, name, None) for name in names for source in sources)
        found[role] = frozenset([id for id in ids if isinstance(id, int) and not isinstance(id, bool) and id >= 0][:1])
    return found


def image_length(encoding: Mapping[str, Any], roles: Mapping[str, frozenset[int]]) -> int | None:
    """How many tokens an image has, where some stand side by side and all may have as many; None otherwise."""
    pixels: Any = encoding.get("pixel_values")
    if getattr(pixels, "ndim", 0) != 4 or not len(pixels):
        return None
    ids, image = torch.as_tensor(encoding["input_ids"]), roles["image_token_ids"]
    rows = (ids if ids.ndim == 2 else ids[None]).tolist()
    runs = sum(len(image_spans(row, image, roles["image_break_ids"])) for row in rows)
    count = sum(token in image for row in rows for token in row)
    return count // len(pixels) if runs < len(pixels) and count and count % len(pixels) == 0 else None


def in_order(images: Any, texts: Sequence[Any], processor: Any) -> list[Any]:
    """Images in the order in which the texts have room for them.

    Args:
        images: One, a list of them, or a list that has a list (or one, or None) for each text.
        texts: The texts, with the processor's word for an image in them.
        processor: The model's.

    Raises:
        PromptError: there is room for more or fewer, or one is an address, which a processor would fetch.
    """
    nested = isinstance(images, (list, tuple)) and any(one is None or isinstance(one, (list, tuple)) for one in images)
    each = [one if isinstance(one, (list, tuple)) else [] if one is None else [one] for one in images] if nested else None
    flat = [one for some in each for one in some] if each is not None else (
        list(images) if isinstance(images, (list, tuple)) else [images])
    for one in flat:
        if isinstance(one, str | Path) and (said := elsewhere(one)):
            raise PromptError(said)
    token = getattr(processor, "image_token", None)
    token = getattr(token, "content", token)
    if not isinstance(token, str) or not all(isinstance(text, str) for text in texts):
        return flat
    room = [text.count(token) for text in texts]
    if sum(room) != len(flat):
        raise PromptError(f"The text has room for {sum(room)} image{'s' * (sum(room) != 1)} ({token}), and {len(flat)} "
                          f"{'is' if len(flat) == 1 else 'are'} given.")
    if each is not None and room != [len(some) for some in each]:
        raise PromptError(f"The texts have room for {room} images ({token}), and {[len(some) for some in each]} are given.")
    return flat
