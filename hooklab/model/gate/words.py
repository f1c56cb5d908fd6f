"""The words of the model and its processor: Chameleon's own, around a word-level tokenizer."""

from __future__ import annotations

from typing import Any

SPECIAL = ("<s>", "</s>", "<pad>", "<unk>", "<racm3:break>", "<eoss>", "<reserved08706>", "<image>")
"""Begin and end of text, padding, unknown words; begin and end of an image, the end of a turn, room for an image."""
WORDS = ("a", "all", "and", "do", "find", "how", "in", "is", "it", "look", "of", "on", "picture", "run", "see", "stripe",
         "stripes", "that", "the", "these", "this", "way", "we", "which", "across", "down", "at")
SIDE, CODES = 32, 16
"""Pixels along a side of what the model sees, and how many kinds of image token it has."""
PATCHES = (SIDE // 8) ** 2


def vocabulary() -> dict[str, int]:
    """Token -> id; the model reads the number of an image token from its name, in digits written as letters.

    >>> [word for word in vocabulary()][-1]
    'IMGIMGBFZ'
    """
    codes = ["IMGIMG" + "".join(chr(65 + int(digit)) for digit in str(i)) + "Z" for i in range(CODES)]
    return {text: i for i, text in enumerate([*SPECIAL, *WORDS, *codes])}


def processor() -> Any:
    """A processor for images and text; its tokenizer is `.tokenizer`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import ChameleonProcessor, PreTrainedTokenizerFast
    from transformers.models.chameleon.image_processing_pil_chameleon import ChameleonImageProcessorPil

    words = vocabulary()
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                   unk_token="<unk>", additional_special_tokens=list(SPECIAL[4:]))
    made.boi_token, made.eoi_token, made.sep_token, made.image_token = SPECIAL[4:]
    images = ChameleonImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return ChameleonProcessor(images, made, image_seq_length=PATCHES)
