"""Selectors against brute force: every kind × ragged batches × both paddings × 0, 1 and 2 images."""

from __future__ import annotations

import itertools
import random as rnd

import pytest
import torch

from hooklab import positions as P
from hooklab.errors import HooklabError, PositionError, TokenError
from hooklab.positions import columns, explain, groups, last, marks_in, positions, resolve, role, token
from hooklab.positions import select as s
from hooklab.tokens import Tokens
from tests.test_tokens import byte_level, word_level

BOS, IMG, BOI, EOI = 1, 2, 3, 4
IMAGE_IDS = {"image_token_ids": {IMG}, "image_start_ids": {BOI}, "image_end_ids": {EOI}}

NO_IMAGE = [BOS, 10, 11, 12, 13, 14]
ONE_IMAGE = [BOS, BOI, IMG, IMG, IMG, EOI, 10, 11]
TWO_IMAGES = [BOS, 10, BOI, IMG, IMG, EOI, 11, 12, BOI, IMG, EOI, 13, 14, 15]


class Marked:
    """Just enough of a tokenizer to know a bos token."""

    all_special_ids = (BOS,)
    bos_token_id = BOS

    def convert_ids_to_tokens(self, ids):
        return [f"t{n}" for n in ids]

    def decode(self, ids, **_):
        return "".join(f"t{n}" for n in ids)


def batch(*rows, side="left", **options):
    return Tokens.from_ids(list(rows), Marked(), padding_side=side, **IMAGE_IDS, **options)


def where(keep):
    return lambda ids: [p for p in range(len(ids)) if keep(p, ids)]


ORACLES = {
    "all": where(lambda p, ids: True),
    "*": where(lambda p, ids: True),
    "each": where(lambda p, ids: True),
    "last": where(lambda p, ids: p == len(ids) - 1),
    "first": where(lambda p, ids: p == 0),
    "last(3)": where(lambda p, ids: p >= len(ids) - 3),
    "first(3)": where(lambda p, ids: p < 3),
    "2": where(lambda p, ids: p == 2),
    "-6": where(lambda p, ids: p == len(ids) - 6),
    "1:5": where(lambda p, ids: 1 <= p < 5),
    ":": where(lambda p, ids: True),
    "-2:": where(lambda p, ids: p >= len(ids) - 2),
    "2:-1": where(lambda p, ids: 2 <= p < len(ids) - 1),
    "::2": where(lambda p, ids: p % 2 == 0),
    "text": where(lambda p, ids: ids[p] >= 10),
    "image": where(lambda p, ids: ids[p] == IMG),
    "special": where(lambda p, ids: ids[p] in (BOS, BOI, EOI)),
    "bos": where(lambda p, ids: p == 0),
    "boi": where(lambda p, ids: ids[p] == BOI),
    "eoi": where(lambda p, ids: ids[p] == EOI),
    "prompt": where(lambda p, ids: True),
    "image.first": where(lambda p, ids: ids[p] == IMG and IMG not in ids[:p]),
    "image.last": where(lambda p, ids: ids[p] == IMG and IMG not in ids[p + 1 :]),
    "image.prev": where(lambda p, ids: IMG in ids[p + 1 : p + 2] and IMG not in ids[: p + 1]),
    "image.next": where(lambda p, ids: IMG in ids[:p][-1:] and IMG not in ids[p:]),
    "image.offset(1)": where(lambda p, ids: p > 0 and ids[p - 1] == IMG),
    "bos | text": where(lambda p, ids: p == 0 or ids[p] >= 10),
    "all - special": where(lambda p, ids: ids[p] not in (BOS, BOI, EOI)),
    "all - image": where(lambda p, ids: ids[p] != IMG),
    "text & (2:)": where(lambda p, ids: ids[p] >= 10 and p >= 2),
    '"t11"': where(lambda p, ids: ids[p] == 11),
    "split(3)[0]": where(lambda p, ids: p < 3),
    "split([2, 4])[1]": where(lambda p, ids: 2 <= p < 4),
    "split([2, 4], keep=drop)": where(lambda p, ids: p not in (2, 4)),
    'span("t1[02]")': where(lambda p, ids: ids[p] in (10, 12)),
}
NEEDS_IMAGE = {name for name in ORACLES if name.startswith(("image", "boi", "eoi"))}
BATCHES = [
    rows for size in (1, 2, 3) for rows in itertools.permutations([NO_IMAGE, ONE_IMAGE, TWO_IMAGES], size)
]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ORACLES)
def test_every_selector_against_brute_force(name, side):
    for rows in BATCHES:
        tokens = batch(*rows, side=side)
        if name in NEEDS_IMAGE and NO_IMAGE in rows:
            with pytest.raises(PositionError, match="text only"):
                resolve(name, tokens)
            assert resolve(name, tokens, allow_empty=True)[rows.index(NO_IMAGE)] == []
            continue
        want = [ORACLES[name](row) for row in rows]
        assert resolve(name, tokens) == want
        padded, _ = tokens.pad()
        for i, cols in enumerate(columns(name, tokens)):
            assert padded[i][cols].tolist() == [rows[i][p] for p in want[i]]


def test_batches_do_not_change_positions():
    rows = [NO_IMAGE, ONE_IMAGE, TWO_IMAGES]
    for name in [*ORACLES, "random(3, seed=7)", "random(2, of=text)"]:
        together = resolve(name, batch(*rows), allow_empty=True)
        assert together == [resolve(name, batch(row), allow_empty=True)[0] for row in rows]


def test_roles_partition_the_sequence():
    for rows in BATCHES:
        tokens = batch(*rows)
        parts = [resolve(name, tokens, allow_empty=True) for name in ("text", "image", "special")]
        for i, whole in enumerate(resolve("all", tokens)):
            assert sorted(p for part in parts for p in part[i]) == whole


def test_slices_are_pythons():
    for n in (1, 2, 5):
        tokens = Tokens.from_ids(list(range(n)))
        bounds = [None, *range(-7, 8)]
        for start, stop, step in itertools.product(bounds, bounds, (None, 1, 2, -1, -2)):
            want = list(range(n))[start:stop:step]
            assert resolve(slice(start, stop, step), tokens, allow_empty=True) == [want]
            assert resolve(str(positions(slice(start, stop, step))), tokens, allow_empty=True) == [want]


def test_indices_are_pythons_and_errors_outside():
    for n in (1, 2, 5):
        tokens = Tokens.from_ids(list(range(n)))
        for k in range(-7, 8):
            if -n <= k < n:
                assert resolve(k, tokens) == [[list(range(n))[k]]] == resolve(f"@{k}", tokens)
            else:
                with pytest.raises(PositionError, match=f"position {k} is out of range.*{n} token"):
                    resolve(k, tokens)


def test_operators_bind_and_mean_what_they_do_in_python():
    rng = rnd.Random(0)
    tokens = Tokens.from_ids(list(range(6)))
    for _ in range(300):
        text = (
            "".join(f"{{{rng.randrange(6)}, {rng.randrange(6)}}} {rng.choice('|&-')} " for _ in range(4))
            + "{5, 0}"
        )
        want = sorted(eval(text))
        assert resolve(text.replace("{", "[").replace("}", "]"), tokens, allow_empty=True) == [want]


def random_selector(rng: rnd.Random, depth: int) -> s.Selector:
    n = rng.randrange(-4, 5)
    leaves = [
        lambda: s.All(),
        lambda: s.Index(n),
        lambda: s.Slice(*(rng.choice([None, -2, 1, 3]) for _ in range(2)), rng.choice([None, 1, -2])),
        lambda: s.Ends(rng.choice(["first", "last"]), rng.randrange(1, 4)),
        lambda: s.Role(rng.choice(s.ROLE_NAMES)),
        lambda: s.Mark(rng.choice(["subject", "tail_2", "ünïcode"])),
        lambda: s.TokenText(
            rng.choice([" Mary", 'q"\\', "\n\té😀", "'", "\u2028"]), rng.choice([None, "*", 0, -1])
        ),
        lambda: s.Span(rng.choice([r"\d+", 'a"b', "x|y"]), rng.choice(["*", 2])),
        lambda: s.TurnOf("user", rng.choice(["*", 1])),
        lambda: P.mask([True, False], [False]),
    ]
    if depth == 0:
        return rng.choice(leaves)()

    def inner() -> s.Selector:
        return random_selector(rng, depth - 1)

    nodes = [
        lambda: s.SetOp(rng.choice("|&-"), inner(), inner()),
        lambda: s.Several(tuple(inner() for _ in range(rng.randrange(1, 4)))),
        lambda: s.Shift(inner(), n),
        lambda: s.Edge(inner(), rng.choice(["first", "last", "next", "prev"])),
        lambda: s.Each(inner()),
        lambda: s.Sample(rng.randrange(1, 5), inner(), n),
        lambda: s.Split(inner(), rng.choice(["left", "right", "drop"])),
        lambda: s.Part(s.Split(inner()), n),
    ]
    return rng.choice(nodes + leaves[:2])()


def test_text_reads_back_as_an_equal_selector():
    rng = rnd.Random(1)
    for _ in range(3000):
        selector = random_selector(rng, rng.randrange(4))
        again = positions(str(selector))
        assert again == selector, str(selector)
        assert hash(again) == hash(selector)
        assert str(again) == str(selector)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("@last", last()),
        ("@3", s.Index(3)),
        ("@-2", s.Index(-2)),
        ("@1:5", s.Slice(1, 5)),
        ("3:", s.Slice(3)),
        ("@*", s.All()),
        ('@"Mary"', token("Mary")),
        ("@' c'[1]", token(" c")[1]),
        ('@" c"[*]', token(" c")["*"]),
        ("@subject.last", s.Mark("subject").last),
        ("@image", role("image")),
        ("@each", P.each()),
        ('@each[" y", last]', P.each([token(" y"), last()])),
        ("@[0, -1, 2:4]", positions([0, -1, slice(2, 4)])),
        ("all - bos", positions("all") - "bos"),
        ("(1 | 2).next", (positions(1) | 2).next),
        ('split_on(".", keep=left)[1]', P.split_on(".", keep="left")[1]),
        ('span("\\d+")', P.span(r"\d+")),
        ("random(2, of=text, seed=3)", P.random(2, of="text", seed=3)),
    ],
)
def test_language(text, meaning):
    assert positions(text) == meaning


def test_coercion_of_arrays_and_masks():
    import numpy as np
    import torch

    assert (
        positions(np.array([1, 2]))
        == positions(torch.tensor([1, 2]))
        == positions([1, 2])
        == positions((1, 2))
    )
    assert positions(np.int64(3)) == positions(torch.tensor(3)) == positions(3) == s.Index(3)
    want = P.mask([True, False])
    assert (
        positions([True, False])
        == positions(np.array([True, False]))
        == positions(torch.tensor([True, False]))
        == want
    )
    assert positions(np.array([[True, False], [True, True]])) == P.mask([True, False], [1, 1])
    assert resolve(P.mask([1, 0, 1], [1]), Tokens.from_ids([[5, 6, 7], [8]])) == [[0, 2], [0]]
    with pytest.raises(PositionError, match=r"example 1: the mask has 3 entries.*unpadded tokens: 1"):
        resolve(P.mask([1, 0, 1]), Tokens.from_ids([[5, 6, 7], [8]]))
    with pytest.raises(PositionError, match="3 rows does not fit 1"):
        resolve(P.mask([1], [1], [1]), Tokens.from_ids([8]))


@pytest.mark.parametrize(
    "wrong", [True, 1.5, None, {}, [], object(), [1.5], "", "@", "1 2", "L[", "1.x", "f(1)", '"x']
)
def test_what_is_no_position_says_so(wrong):
    with pytest.raises(PositionError):
        positions(wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda: last(0),
        lambda: P.first(-1),
        lambda: P.random(0),
        lambda: token(""),
        lambda: P.span("("),
        lambda: role("imgae"),
        lambda: positions(slice(0, 1, 0)),
        lambda: positions("last")[0],
        lambda: s.Mark("image"),
        lambda: P.split(1, keep="both"),
        lambda: P.mask(),
        lambda: P.mask([2]),
        lambda: token("a")["x"],
    ],
)
def test_wrong_selectors_fail_when_made(make):
    with pytest.raises(PositionError):
        make()


def test_selectors_do_not_iterate():
    with pytest.raises(TypeError):
        list(token("a"))


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("subject.lst", 8, 'Did you mean "last"?'),
        ("@{pos", 1, "closing brace"),
        ("0, 1", 1, r"write \[a, b\]"),
        ("randm(3)", 0, 'Did you mean "random"?'),
        ("random(3, sed=1)", 0, 'Did you mean "seed"?'),
        ("[1, 2", 5, "expected ]"),
        ("random()", 0, "random needs n"),
    ],
)
def test_reading_errors_point_at_the_place(text, column, words):
    with pytest.raises(PositionError, match=words) as caught:
        positions(text)
    assert str(caught.value).splitlines()[-2:] == [f"  {text}", "  " + " " * column + "^"]


# ---- token texts ----------------------------------------------------------------------------------------

IOI = "When Mary and John went to the store, John gave a drink to Mary"


@pytest.mark.parametrize("make", [byte_level, word_level])
def test_token_texts_select_the_tokens_that_spell_them(make):
    tokens = Tokens.encode(make(), "When Mary and John went, John")
    for text in ("Mary", " Mary", "When", "When Mary and", " and John", "and", " went,"):
        run = resolve(token(text), tokens)[0]
        assert run == list(range(run[0], run[-1] + 1))
        assert "".join(tokens.pieces[0][p] for p in run).strip() == text.strip()


def test_a_leading_space_is_ignored_only_when_needed():
    tokens = Tokens.encode(byte_level(), "Mary and Mary")
    assert resolve('"Mary"', tokens) == [[0]]  # the exact text comes first
    assert resolve('" Mary"', tokens) == [[2]]
    assert resolve('" Mary"', Tokens.encode(byte_level(), "Mary and John")) == [[0]]
    assert resolve('"John"', Tokens.encode(byte_level(), "Mary and John")) == [[2]]
    # Word-level tokens have no space of their own: both are the exact text.
    with pytest.raises(TokenError, match="occurs 2 times"):
        resolve('"Mary"', Tokens.encode(word_level(), "Mary and Mary"))
    # Dropping the space must not find the middle of a word.
    inside = Tokens.encode(byte_level(), "xMaryx")
    assert inside.pieces[0] != ("xMaryx",)
    with pytest.raises(TokenError):
        resolve('" Mary"', inside)


def test_texts_from_ids_match_like_texts_from_strings():
    for tokenizer, text in ((byte_level(), IOI), (word_level(), "When Mary and John went , Mary")):
        coded = Tokens.encode(tokenizer, text)
        decoded = Tokens.from_ids(coded.ids, tokenizer)
        for wanted in ('"Mary"[*]', '" Mary"[1]', '"When"', '"John"[0]', '"Mary and"'):
            assert resolve(wanted, coded) == resolve(wanted, decoded)


def test_ambiguous_texts_show_every_occurrence_and_the_way_out():
    tokens = Tokens.encode(byte_level(), IOI)
    with pytest.raises(TokenError) as caught:
        resolve('"John"', tokens)
    at = [p for p, piece in enumerate(tokens.pieces[0]) if piece == " John"]
    message = str(caught.value)
    assert f"[0] at {at[0]} " in message
    assert f"[1] at {at[1]} " in message
    assert '"John"[0]' in message and '"John"[*]' in message
    assert resolve('"John"[*]', tokens) == [at]
    assert resolve('"John"[0]', tokens) + resolve('"John"[-1]', tokens) == [[at[0]], [at[1]]]
    with pytest.raises(PositionError, match="occurs 2 times"):
        resolve('"John"[2]', tokens)


def test_absent_texts_show_the_tokens_and_the_nearest():
    tokens = Tokens.encode(byte_level(), [IOI, "The Eiffel Tower"])
    with pytest.raises(
        TokenError, match=r'example 0: "Marry" is not in it. Did you mean " Mary"\?.*0:.*When'
    ):
        resolve('"Marry"[*]', tokens)
    with pytest.raises(TokenError, match=r"inside a token.*Mary"):
        resolve('"ary"', Tokens.encode(byte_level(), "When Mary"))
    with pytest.raises(TokenError, match="without a tokenizer"):
        resolve('"Mary"', Tokens.from_ids([1, 2]))


def test_half_characters_are_selected_whole():
    tokens = Tokens.encode(byte_level(), "drink 😎 to 世界")
    face = resolve('" 😎"', tokens)[0]
    assert len(face) > 1
    assert resolve('"😎"', tokens) == [face]
    assert resolve('span("😎")', tokens) == [face]
    assert resolve('"世界"', tokens)[0][-1] == tokens.lengths[0] - 1
    assert resolve('"drink 😎"', tokens)[0][-1] == face[-1]


def test_a_templates_special_token_goes_by_its_name():
    tokens = Tokens.encode(word_level(), "When Mary")
    assert resolve('"<s>"', tokens) == resolve("bos", tokens) == [[0]]


def test_spans_take_every_token_they_touch():
    tokens = Tokens.encode(byte_level(), IOI)
    want = [p for p, piece in enumerate(tokens.pieces[0]) if piece.strip() in ("Mary", "John")]
    assert resolve(P.span("Mary|John"), tokens) == [want]
    assert resolve(P.span("Mary|John")[1], tokens) == [[want[1]]]
    with pytest.raises(PositionError, match="selects nothing"):
        resolve(P.span("Susan"), tokens)


# ---- marks, lists, samples, splits, turns ----------------------------------------------------------------


def test_marks_resolve_in_each_example():
    tokens = Tokens.encode(byte_level(), ["The Eiffel Tower is", "When The Eiffel Tower"])
    marks = {"subject": token("The Eiffel Tower"), "again": s.Mark("subject")}
    rows = resolve("subject", tokens, marks=marks)
    assert rows[0][0] == 0 and rows[1][0] > 0
    assert resolve("again.last", tokens, marks=marks) == [[row[-1]] for row in rows]
    assert resolve("subject.next", tokens[0], marks=marks) == [[rows[0][-1] + 1]]
    with pytest.raises(PositionError, match=r"example 1: .*only 0 to"):
        resolve("subject.next", tokens, marks=marks)
    with pytest.raises(PositionError, match=r'no position or mark "subjct".*Did you mean "subject"'):
        resolve("subjct", tokens, marks=marks)
    with pytest.raises(PositionError, match="a → b → a"):
        resolve("a", tokens, marks={"a": "b", "b": "a"})
    with pytest.raises(PositionError, match='"image" cannot name a mark'):
        resolve("last", tokens, marks={"image": 0})
    assert marks_in("[a.last, b] | random(1, of=split(c)[0])") == {"a", "b", "c"}


def test_lists_keep_their_order_and_drop_repeats():
    tokens = Tokens.from_ids([list(range(6))])
    assert resolve([-1, 0, 5, slice(0, 2)], tokens) == [[5, 0, 1]]
    assert resolve(positions(5) | 0, tokens) == [[0, 5]]


def test_empty_operands_are_fine_but_empty_results_are_not():
    tokens = batch(NO_IMAGE)
    assert (
        resolve("all - image", tokens) == resolve("image | text | special", tokens) == resolve("all", tokens)
    )
    for text in (
        "image",
        "[image, last]",
        "image.last",
        "each(image)",
        "random(1, of=image)",
        "text & image",
    ):
        with pytest.raises(PositionError):
            resolve(text, tokens)
        if "random" not in text:
            resolve(text, tokens, allow_empty=True)
    with pytest.raises(PositionError, match="does not start with a bos"):
        resolve("bos", batch([10, 11]))


def test_prompt_and_new():
    tokens = batch([BOS, 10, 11, 12], [BOS, 10], n_prompt=[2, 1])
    assert resolve("prompt", tokens) == [[0, 1], [0]]
    assert resolve("new", tokens) == [[2, 3], [1]]
    with pytest.raises(PositionError, match="no generated tokens"):
        resolve("new", batch([10]))


def test_samples_repeat_with_their_seed():
    tokens = batch(TWO_IMAGES)
    draws = [resolve(P.random(3, of="text", seed=seed), tokens)[0] for seed in range(30)]
    assert draws == [resolve(f"random(3, of=text, seed={seed})", tokens)[0] for seed in range(30)]
    text = resolve("text", tokens)[0]
    assert all(d == sorted(set(d)) and len(d) == 3 and set(d) <= set(text) for d in draws)
    assert {p for d in draws for p in d} == set(text)
    assert len({tuple(d) for d in draws}) > 10
    with pytest.raises(PositionError, match="only 3 to draw from"):
        resolve("random(4, of=image)", tokens)


@pytest.mark.parametrize("keep", ["left", "right", "drop"])
def test_splits_concatenate_to_the_whole(keep):
    rng = rnd.Random(5)
    for _ in range(100):
        n = rng.randrange(1, 9)
        pivots = sorted(rng.sample(range(n), rng.randrange(1, n + 1)))
        tokens = Tokens.from_ids(list(range(n)))
        whole, part = [], []  # brute force: walk, close a part at each pivot
        for p in range(n):
            if p in pivots and keep != "left":
                whole, part = [*whole, part], []
            if p not in pivots or keep != "drop":
                part = [*part, p]
            if p in pivots and keep == "left":
                whole, part = [*whole, part], []
        want = [part for part in [*whole, part] if part]
        split = P.split(pivots, keep=keep)
        assert groups(split, tokens) == [want]
        assert [resolve(split[i], tokens)[0] for i in range(len(want))] == want
        with pytest.raises(PositionError, match=f"makes {len(want)} part"):
            resolve(split[len(want)], tokens)


def test_split_on_a_text():
    tokens = Tokens.encode(byte_level(), "Mary and John and Mary")
    pieces = [
        ["".join(tokens.pieces[0][p] for p in part) for part in groups(P.split_on(" and", keep=k), tokens)[0]]
        for k in ("right", "left", "drop")
    ]
    assert pieces == [
        ["Mary", " and John", " and Mary"],
        ["Mary and", " John and", " Mary"],
        ["Mary", " John", " Mary"],
    ]


def test_groups_are_what_each_takes_one_at_a_time():
    tokens = batch(TWO_IMAGES)
    assert groups("each", tokens) == [[[p] for p in range(len(TWO_IMAGES))]]
    assert groups("each(image)", tokens) == [[[p] for p in resolve("image", tokens)[0]]]
    assert groups("each [image, last]", tokens) == [[resolve("image", tokens)[0], [len(TWO_IMAGES) - 1]]]
    assert groups("image", tokens) == [resolve("image", tokens)]
    assert groups("here", tokens, marks={"here": "each [0, 1]"}) == [[[0], [1]]]


def test_turns():
    turns = [[("user", 0, 2), ("assistant", 2, 4), ("user", 4, 6)]]
    tokens = Tokens.from_ids(list(range(6)), turns=turns)
    assert resolve('turn("user")', tokens) == [[0, 1, 4, 5]]
    assert resolve(P.turn("user")[-1], tokens) == [[4, 5]]
    with pytest.raises(PositionError, match=r'speakers: user, assistant. Did you mean "user"'):
        resolve('turn("usr")', tokens)
    with pytest.raises(PositionError, match="there are 2"):
        resolve('turn("user")[2]', tokens)
    with pytest.raises(PositionError, match="no chat turns"):
        resolve('turn("user")', Tokens.from_ids([1]))


def test_explain_shows_what_is_chosen():
    tokens = Tokens.encode(byte_level(), ["When Mary", "Mary and John"])
    at = [n - 1 for n in tokens.lengths]
    assert explain("last", tokens).splitlines() == [
        f"@last  example 0: {at[0]}:' Mary'",
        f"@last  example 1: {at[1]}:' John'",
    ]


def test_every_error_is_hooklabs_own():
    rng = rnd.Random(2)
    tokens = batch(NO_IMAGE, TWO_IMAGES)
    for _ in range(2000):
        selector = random_selector(rng, rng.randrange(4))
        try:
            rows = resolve(selector, tokens, marks={"subject": 1})
        except HooklabError as e:
            assert str(e)
        else:
            assert all(
                len(set(r)) == len(r) and all(0 <= p < n for p in r)
                for r, n in zip(rows, tokens.lengths, strict=True)
            )


@pytest.mark.parametrize("given", [[[3], [5]], [(0, 1), (2, 3)], [0, [1, 2]], torch.tensor([[3], [5]])])
def test_a_list_of_lists_is_refused_and_not_taken_for_all_of_them_in_every_example(given):
    with pytest.raises(PositionError, match="one row of booleans per example"):
        positions(given)
