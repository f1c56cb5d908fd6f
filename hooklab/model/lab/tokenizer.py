"""The word-level tokenizer of `lab`: tables of words in, a `PreTrainedTokenizerFast` out.

A token is a word with its leading space, as in GPT-2 (" Mary" is one token, "Mary" another), a mark of
punctuation, or one or two digits (" 1732" is " 17" and "32"). Text is encoded with `<|endoftext|>` in front,
because every training document begins with it; decoding joins the tokens as they are.
"""

import re
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hooklab.model.lab import words

PIECE = r" ?[A-Za-z]+| ?[0-9]{1,2}| ?[^\sA-Za-z0-9]"
END, UNKNOWN = "<|endoftext|>", "<unk>"
SPECIAL = (END, UNKNOWN)


def _strings(table: object) -> Iterator[str]:
    """Every string in a nested table of `words`."""
    if isinstance(table, str):
        yield table
    elif isinstance(table, dict):
        for key, value in table.items():
            yield from _strings(key) if " " in key or key[0].isupper() else ()
            yield from _strings(value)
    elif isinstance(table, (list, tuple)):
        for item in table:
            yield from _strings(item)


def vocabulary() -> list[str]:
    """All tokens in a fixed order: special ones, marks, two-digit numbers, then words by the alphabet.

    Words have a leading space; the capitalised ones, which can open a document, also come without it.
    """
    tables = [value for name, value in vars(words).items() if name.isupper()]
    texts = [re.sub(r"\{\w+\}", " ", text) for text in _strings(tables)]
    found = {word for text in texts for word in re.findall(r"[A-Za-z]+", text)}
    found |= {noun + "s" for noun in words.NOUNS} | {"She", "He"}
    found -= {"s"}
    numbers = [f"{number:02d}" for number in range(100)]
    centuries = [f" {century}" for century in words.CENTURIES]
    opening = sorted(word for word in found if word[0].isupper())
    return [*SPECIAL, ".", ",", ":", *numbers, *centuries, *opening, *(f" {word}" for word in sorted(found))]


def build(context: int = 128) -> PreTrainedTokenizerFast:
    """The tokenizer for a context of this many positions."""
    ids = {token: index for index, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A {END} $B", special_tokens=[(END, ids[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        unk_token=UNKNOWN,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
