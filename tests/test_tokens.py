"""`Tokens` against hand-made sequences and tokenizers built in memory."""

from __future__ import annotations

import html
import io
import random
import re
import subprocess
import sys

import pytest

from hooklab.errors import PositionError, PromptError, TokenError
from hooklab.model.vocabulary import single_token
from hooklab.positions import pieces
from hooklab.tokens import Tokens, Turn

SENTENCES = [
    "When Mary and John went to the store, John gave a drink to Mary.",
    "The Eiffel Tower is in Paris.",
    "Mary and John",
    "naïve café 😀 你好世界",
    "Hello\nworld  two  spaces",
]
# Unseen emoji and characters split into bytes; `<eoss>` is ordinary text.
HARD = [
    *SENTENCES,
    "😎 unseen 🦊🦊 世x",
    "literal <eoss> here",
    " leading and trailing ",
    "a\tb\r\n",
    "é",
    "x<b>&amp;",
]


def byte_level(trim_offsets: bool = False):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    t.train_from_iterator(SENTENCES * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=t, bos_token="<eos>", eos_token="<eos>", unk_token="<eos>"
    )


def word_level():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [
        "[UNK]",
        "<s>",
        "<img>",
        "<boi>",
        "<eoi>",
        "When",
        "Mary",
        "and",
        "John",
        "went",
        "<",
        "eoss",
        ">",
        ",",
    ]
    t = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    t.add_special_tokens(["<img>", "<boi>", "<eoi>"])
    return PreTrainedTokenizerFast(tokenizer_object=t, unk_token="[UNK]", bos_token="<s>")


@pytest.fixture(scope="module")
def lab():
    import hooklab as hl

    return hl.load("lab")


def byte_fallback():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = [("<unk>", 0.0), ("<s>", 0.0), ("▁", -2.0), ("▁Mary", -1.0), ("▁When", -1.0)]
    vocab += [(f"<0x{i:02X}>", -9.0) for i in range(256)]
    t = Tokenizer(models.Unigram(vocab, 0, byte_fallback=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    t.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=t, unk_token="<unk>", bos_token="<s>")


NAMES = ["<s>", "<unk>", "a", "Mary", "b", "▁", "▁▁", "▁Mary", "▁a▁b", "▁.", " x", "Ġ", "Ġa", "Ċ", "ðŁ", "ĺ", "İ", "é", "😎",
         "<0x0A>", "<0x20>", "<0x41>", "<0xE2>", "<0x82>", "<0xAC>", "<0x00>"]


def decoding(kind):
    """A tokenizer with a decoder of a kind, and awkward names."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    marks = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    t = Tokenizer(models.WordLevel({name: i for i, name in enumerate(NAMES)}, unk_token="<unk>"))
    t.decoder = {"fuse": decoders.Fuse, "bytes": decoders.ByteLevel, "gemma": lambda: decoders.Sequence(marks),
                 "llama": lambda: decoders.Sequence([*marks, decoders.Strip(" ", 1, 0)]),
                 "metaspace": decoders.Metaspace, "wordpiece": decoders.WordPiece}[kind]()
    return PreTrainedTokenizerFast(tokenizer_object=t, unk_token="<unk>", bos_token="<s>")


@pytest.mark.parametrize("kind", ["fuse", "bytes", "gemma", "llama"])
def test_tokens_that_are_put_together_are_those_that_are_decoded_one_by_one(kind, monkeypatch):
    tokenizer, draw = decoding(kind), random.Random(0)
    whole = [i for i, name in enumerate(NAMES) if not re.search("<0x[8-F]|[ðŁĺİ]", name)]
    drawn = [[draw.choice(whole if n % 4 else range(len(NAMES))) for _ in range(draw.randint(1, 9))] for n in range(2000)]
    joined = [pieces._joined(tokenizer, ids, tokenizer.convert_ids_to_tokens(ids)) for ids in drawn]
    assert sum(one is not None for one in joined) > 1400
    monkeypatch.setattr(pieces, "_joining", lambda tokenizer: None)
    for ids, one in zip(drawn, joined, strict=True):
        if one is not None:
            assert one.text == tokenizer.decode(ids, clean_up_tokenization_spaces=False)
            assert one == pieces.decode(tokenizer, ids), [NAMES[i] for i in ids]


@pytest.mark.parametrize("kind", ["metaspace", "wordpiece"])
def test_a_decoder_that_looks_at_neighbours_is_asked(kind):
    assert pieces._joined(decoding(kind), [2, 3], ["a", "Mary"]) is None


def undo_bytes(pieces: list[str]) -> str:
    """The text that pieces spell, half characters as `<0xF0>` included."""
    raw = b"".join(
        bytes([int(part[3:5], 16)]) if re.fullmatch("<0x[0-9A-F]{2}>", part) else part.encode()
        for piece in pieces
        for part in re.split("(<0x[0-9A-F]{2}>)", piece)
    )
    return raw.decode()


@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize("text", HARD)
def test_pieces_of_byte_level_bpe_spell_the_text(text, trim):
    tokenizer = byte_level(trim)
    for tokens in (Tokens.encode(tokenizer, text), Tokens.from_ids(tokenizer(text)["input_ids"], tokenizer)):
        assert tokens.text == (text,)
        if not trim or text == text.strip():  # a tokenizer that trims hides a last space from its offsets
            assert undo_bytes(list(tokens.pieces[0])) == text
        assert "\ufffd" not in "".join(tokens.pieces[0])


@pytest.mark.parametrize("text", HARD)
def test_offsets_are_the_characters_whose_bytes_a_token_holds(text):
    tokenizer = byte_level()
    ids = tokenizer(text)["input_ids"]
    # A byte-level token's name has one letter per byte.
    owner = [i for i, c in enumerate(text) for _ in c.encode()]
    at, want = 0, []
    for name in tokenizer.convert_ids_to_tokens(ids):
        want.append((owner[at], owner[at + len(name) - 1] + 1))
        at += len(name)
    assert list(Tokens.encode(tokenizer, text).offsets[0]) == want
    assert list(Tokens.from_ids(ids, tokenizer).offsets[0]) == want


def test_byte_fallback_shows_bytes_and_keeps_offsets():
    tokens = Tokens.encode(byte_fallback(), "When Mary 😎 a\nb", add_special_tokens=False)
    assert tokens.pieces[0] == (
        *("When", " Mary", " ", "<0xF0>", "<0x9F>", "<0x98>", "<0x8E>", " ", "a", "\n", "b"),
    )
    assert undo_bytes(list(tokens.pieces[0])) == tokens.text[0]
    assert tokens.offsets[0][3:7] == ((10, 11),) * 4


def test_word_level_pieces_take_the_space_before_them():
    tokens = Tokens.encode(word_level(), "When  Mary and\nJohn")
    assert tokens.pieces[0] == ("<s>", "When", "  Mary", " and", "\nJohn")
    assert tokens.offsets[0] == ((0, 0), (0, 4), (6, 10), (11, 14), (15, 19))
    assert tokens.bos == ((0,),)
    assert tokens.special == ((True, False, False, False, False),)


def test_roles_go_by_id():
    tokenizer = word_level()
    ids = {"image_token_ids": {2}, "image_start_ids": {3}, "image_end_ids": {4}}
    tokens = Tokens.encode(tokenizer, "When <boi><img><img><eoi> Mary <eoss> unknown", **ids)
    s, t, i = "special", "text", "image"
    # `<eoss>` is three ordinary words here, and an unknown word is text, though [UNK] is in all_special_ids.
    assert tokens.roles[0] == (s, t, s, i, i, s, t, t, t, t, t)
    assert (tokens.boi, tokens.eoi) == (((2,),), ((5,),))
    assert Tokens.from_ids(tokens.ids, tokenizer, **ids).roles == tokens.roles


def test_gpt2_style_end_of_text_is_special_inside_a_prompt_and_bos_only_in_front():
    tokens = Tokens.encode(byte_level(), ["<eos>Mary<eos>", "Mary"])
    assert [[p for p, s in enumerate(row) if s] for row in tokens.special] == [[0, tokens.lengths[0] - 1], []]
    assert tokens.bos == ((0,), ())


def test_padding_vectors():
    tokens = Tokens.from_ids([[1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [9]])
    assert tokens.position_ids("left") == [[0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0]]
    assert tokens.position_ids("right") == [[0, 1, 2, 3, 3, 3], [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0]]
    assert (tokens.lengths, tokens.width, len(tokens)) == ((4, 6, 1), 6, 3)


@pytest.mark.parametrize("side", ["left", "right"])
def test_pad_column_and_unpad_agree(side):
    rng = random.Random(3)
    for _ in range(50):
        rows = [
            [rng.randrange(1, 99) for _ in range(rng.randrange(1, 9))] for _ in range(rng.randrange(1, 5))
        ]
        tokens = Tokens.from_ids(rows, padding_side=side)
        ids, mask = tokens.pad(pad_id=0)
        assert ids.shape == mask.shape == (len(rows), max(map(len, rows)))
        for i, row in enumerate(rows):
            assert ids[i][mask[i].bool()].tolist() == row
            assert [ids[i, tokens.column(i, p)].item() for p in range(-len(row), len(row))] == row + row
            # position ids as transformers makes them: cumsum(mask) - 1
            assert tokens.position_ids()[i] == (mask[i].cumsum(0) - 1).clip(min=0).tolist()
        back = Tokens.from_ids(ids, attention_mask=mask)
        assert back.ids == tokens.ids
        if len({len(row) for row in rows}) > 1:
            assert back.padding_side == side


def test_from_encoding_of_a_padded_batch():
    tokenizer = byte_level()
    tokenizer.pad_token = "<eos>"
    prompts = ["The Eiffel Tower", "Mary"]
    for side in ("left", "right"):
        tokenizer.padding_side = side
        for kind in ("pt", "np", None):
            encoding = tokenizer(prompts, padding=True, return_tensors=kind)
            tokens = Tokens.from_encoding(encoding, tokenizer)
            assert tokens == Tokens.encode(tokenizer, prompts)
            assert tokens.padding_side == side
        assert tokenizer.padding_side == side


def test_one_token_stays_one_token():
    import torch

    for ids in ([7], [[7]], torch.tensor([7]), torch.tensor([[7]]), (7,), [torch.tensor([7])]):
        assert Tokens.from_ids(ids).ids == ((7,),)
    assert Tokens.encode(byte_level(), "e").pieces == (("e",),)


def test_examples_iterate_as_tokens():
    tokens = Tokens.encode(byte_level(), ["Mary", "The Eiffel Tower"], turns=[[("user", 0, 1)], []])
    assert [one.text for one in tokens] == [("Mary",), ("The Eiffel Tower",)]
    assert tokens[-1].ids == (tokens.ids[1],)
    assert tokens[0].turns == ((Turn("user", 0, 1),),)
    with pytest.raises(PositionError, match="no example 2"):
        tokens[2]
    assert hash(tokens) == hash(Tokens.encode(byte_level(), ["Mary", "The Eiffel Tower"], turns=tokens.turns))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: Tokens.encode(t, []), "no prompt"),
        (lambda t: Tokens.encode(t, ""), "the prompt has no tokens"),
        (lambda t: Tokens.encode(t, ["a", ""]), "example 1 has no tokens"),
        (lambda t: Tokens.encode(t, ["a", 3]), "must be a string, not int"),
        (lambda t: Tokens.from_ids("abc"), "must be a list"),
        (lambda t: Tokens.from_ids([1.5]), "non-negative integers"),
        (lambda t: Tokens.from_ids([True]), "non-negative integers"),
        (lambda t: Tokens.from_ids([-1]), "non-negative integers"),
        (lambda t: Tokens.from_ids([[1], 2]), "non-negative integers"),
        (lambda t: Tokens.from_ids([[[1]]]), "non-negative integers"),
        (lambda t: Tokens.from_ids([]), "no tokens"),
        (lambda t: Tokens.from_ids([[1, 2]], attention_mask=[[1]]), "rows of"),
        (lambda t: Tokens.from_ids([1, 2, 3], attention_mask=[1, 0, 1]), "hole"),
        (lambda t: Tokens.from_ids([1, 2], attention_mask=[0, 0]), "leaves no token of example 0"),
        (lambda t: Tokens.from_ids([[1, 2], [1, 2]], attention_mask=[[0, 1], [1, 0]]), "both sides"),
        (lambda t: Tokens.from_ids([1, 2], n_prompt=[3]), "not in 0..2"),
        (lambda t: Tokens.from_ids([1, 2], n_prompt=[1, 1]), "2 entries for 1"),
        (lambda t: Tokens.from_ids([1, 2], turns=[[("user", 0, 3)]]), "0:3"),
        (lambda t: Tokens.from_ids([1], padding_side="center"), "left"),
        (lambda t: Tokens.from_ids([1]).pad("top"), "left"),
        (lambda t: Tokens.from_encoding({"pixel_values": 1}), "needs input_ids; this one has pixel_values"),
    ],
)
def test_wrong_inputs_get_one_clear_message(make, message):
    with pytest.raises(PromptError, match=message):
        make(byte_level())


def test_column_out_of_range():
    with pytest.raises(PositionError, match="example 1 has 1 tokens, no position 1"):
        Tokens.from_ids([[1, 2], [3]]).column(1, 1)


def test_html_is_escaped_and_complete():
    text = "<script>alert('x')</script> & \"q\""
    tokens = Tokens.encode(byte_level(), text)
    shown = tokens._repr_html_()
    assert "<script" not in shown
    cells = [html.unescape(cell) for cell in re.findall(r"<code[^>]*>(.*?)</code>", shown)]
    assert cells == [piece.replace(" ", "·") for piece in tokens.pieces[0]]


def test_repr_and_rich_list_index_and_piece():
    from rich.console import Console

    tokens = Tokens.encode(word_level(), ["When Mary", "[red]x"])
    assert "2 examples · pos 3–5" in repr(tokens)
    assert "2:' Mary'" in repr(tokens)
    out = io.StringIO()
    Console(file=out, width=100).print(tokens)
    assert "0 <s>  1 When  2 ·Mary" in out.getvalue()
    assert "1 [  2 red  3 ]" in out.getvalue()  # pieces are not markup
    out = io.StringIO()
    Console(file=out, width=100, force_terminal=True).print(Tokens.encode(byte_level(), "\x1b[2J"))
    assert "\x1b[2J" not in out.getvalue()  # nor terminal commands


def test_long_examples_say_what_is_left_out():
    assert "… 4 more" in repr(Tokens.from_ids([list(range(20))]))
    assert "… 2 more examples" in repr(Tokens.from_ids([[1]] * 6))


def test_import_is_light():
    heavy = "{'torch', 'transformers', 'numpy'}"
    code = f"import sys, hooklab.tokens, hooklab.positions; print({heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


@pytest.mark.parametrize(("text", "words"), [
    (" Mary John", "' Mary John' is 2 tokens, not one: ' Mary', ' John'. Spaces count"),
    ("store", "Did you mean ' store'?"),
    (" zebrafish", "' zebrafish' is not in the vocabulary of this model's tokenizer, which reads it as "),
    ("", "'' is 0 tokens, not one."), (17, "by its text, not by int"),
])
def test_a_text_that_is_not_one_token_is_an_error_that_shows_its_tokens(lab, text, words):
    with pytest.raises(TokenError) as caught:
        lab.single_token(text)
    assert words in str(caught.value)


def test_a_text_that_is_one_token_is_its_id(lab):
    known = {lab.tokenizer.decode([i]): i for i in range(len(lab.tokenizer))}
    for text in (" Mary", " Paris", "When", "."):
        assert lab.single_token(text) == known[text]
    with pytest.raises(TokenError, match="no tokenizer"):
        single_token(None, " Mary")


def test_the_word_without_its_space_is_told():
    tokenizer = byte_fallback()
    assert tokenizer.convert_ids_to_tokens(single_token(tokenizer, " Mary")) == "▁Mary"
    spelled = byte_level()
    assert all(single_token(spelled, text) == i for text in ("a", " ") for i in spelled(text)["input_ids"])
    with pytest.raises(TokenError, match="is 3 tokens, not one: '<0xF0><0x9F>', '<0xA6>', '<0x8A>'"):
        single_token(spelled, "🦊")
