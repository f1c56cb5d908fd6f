"""A torch DataLoader as a source: the values of the plain list, however its batches were put together."""

import numpy as np
import pytest
import torch
from tiny_models import build, image, tokenizer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import hooklab as hl
from hooklab.data.inputs.loaders import count
from hooklab.data.inputs.sources import examples
from hooklab.errors import PromptError, RecordError

TEXTS = ["Mary w1 w2", "the store", "John w3 w4 w5 w6", "w7", "w8 Mary the"]
ROWS = [{"text": text, "label": n, "part": {"odd": n % 2, "name": f"n{n}"}, "pair": [f"a{n}", f"b{n}"],
         "size": [n, n + 1, 7]} for n, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def model():
    return hl.load(build("llama"), tokenizer=tokenizer())


def ids_of(text):
    return tokenizer()(text)["input_ids"]


def padded(side, extra=True):
    """A collation as tokenizers do it; what stands in the padding must not be seen."""
    def made(some):
        ids = [ids_of(text) for text in some]
        width = max(map(len, ids)) + extra
        def filled(rows, fill):
            return torch.tensor([([fill] * (width - len(one)) + one) if side == "left" else one + [fill] * (width - len(one))
                                 for one in rows])
        return {"input_ids": filled(ids, 9), "attention_mask": filled([[1] * len(one) for one in ids], 0),
                "labels": filled([[n + 1 for n in one] for one in ids], -100)}
    return made


def columns(some):
    return {"text": [one["text"] for one in some], "label": torch.tensor([one["label"] for one in some])}


class Stream(IterableDataset):
    def __init__(self, some):
        self.some = some

    def __iter__(self):
        return iter(self.some)


def equal_lengths():
    return [{"input_ids": ids_of(text), "n": n} for n, text in enumerate(["w1 w2 w3", "w4 Mary w5", "w6 w7 the"])]


LOADERS = {
    "texts": (lambda: DataLoader(TEXTS, batch_size=2), TEXTS),
    "texts one by one": (lambda: DataLoader(TEXTS, batch_size=None), TEXTS),
    "a stream of texts": (lambda: DataLoader(Stream(TEXTS), batch_size=3), TEXTS),
    "a stream of batches of texts": (lambda: DataLoader(Stream([TEXTS[:2], TEXTS[2:]]), batch_size=None), TEXTS),
    "rows": (lambda: DataLoader(ROWS, batch_size=2), TEXTS),
    "rows as they are": (lambda: DataLoader(ROWS, batch_size=2, collate_fn=list), TEXTS),
    "columns": (lambda: DataLoader(ROWS, batch_size=2, collate_fn=columns), TEXTS),
    "columns of a stream": (lambda: DataLoader(Stream([columns(ROWS[:2]), columns(ROWS[2:])]), batch_size=None), TEXTS),
    "ids padded on the left": (lambda: DataLoader(TEXTS, batch_size=2, collate_fn=padded("left")), TEXTS),
    "ids padded on the right": (lambda: DataLoader(TEXTS, batch_size=3, collate_fn=padded("right")), TEXTS),
    "batches of ids of a stream": (lambda: DataLoader(Stream([padded("left")(TEXTS)]), batch_size=None), TEXTS),
    "lists of ids, turned": (lambda: DataLoader(equal_lengths(), batch_size=2), ["w1 w2 w3", "w4 Mary w5", "w6 w7 the"]),
    "bare ids, turned": (lambda: DataLoader([one["input_ids"] for one in equal_lengths()], batch_size=3),
                         ["w1 w2 w3", "w4 Mary w5", "w6 w7 the"]),
    "tensors": (lambda: DataLoader(TensorDataset(torch.tensor([one["input_ids"] for one in equal_lengths()])), batch_size=2),
                ["w1 w2 w3", "w4 Mary w5", "w6 w7 the"]),
    "a tensor": (lambda: DataLoader(torch.tensor([one["input_ids"] for one in equal_lengths()]), batch_size=2),
                 ["w1 w2 w3", "w4 Mary w5", "w6 w7 the"]),
    "two workers": (lambda: DataLoader(ROWS, batch_size=2, num_workers=2), TEXTS),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_gives_the_values_of_transformers_alone(name, model, tmp_path):
    make, expected = LOADERS[name]
    found = hl.extract(model, make(), "L1.resid_post", tmp_path / "store", batch_size=2).store
    assert found.ids == tuple(map(str, range(len(expected))))
    for i, text in enumerate(expected):
        assert found.tokens(i) == ids_of(text)
        with torch.no_grad():
            alone = model.hf(torch.tensor([ids_of(text)]), output_hidden_states=True).hidden_states
        assert torch.allclose(model.hf.model.norm(found["L1.resid_post"][i]), alone[2][0], atol=1e-5)


@pytest.mark.parametrize("name", ["rows", "rows as they are", "two workers"])
def test_columns_come_back_as_they_were(name):
    found = [dict(one.metadata) for one in examples(LOADERS[name][0](), metadata="all")]
    assert found == ROWS
    said = [one.text for one in examples(LOADERS[name][0](), template="{pair}: {text}")]
    assert said == [f"{row['pair'][0]} {row['pair'][1]}: {row['text']}" for row in ROWS]


def test_per_token_columns_lose_their_padding_too():
    for side in ("left", "right"):
        found = [one.metadata["labels"] for one in examples(LOADERS[f"ids padded on the {side}"][0](), metadata=["labels"])]
        assert found == [[n + 1 for n in ids_of(text)] for text in TEXTS]


def test_chats_and_pictures_are_rows_where_they_are_left_alone():
    chat = [{"role": "user", "content": "Mary"}, {"role": "model", "content": "John"}]
    for chats, options in (([chat, chat], {"batch_size": 2, "collate_fn": list}), ([chat, chat], {"batch_size": None}),
                           ([chat, chat], {"batch_size": 2}), ([chat[:1]], {"batch_size": 1})):
        assert [list(one.messages) for one in examples(DataLoader(chats, **options))] == chats
    pictures = [{"image": image(n), "caption": "a cat"} for n in range(3)]
    found = list(examples(DataLoader(pictures, batch_size=2, collate_fn=list), template="{image} {caption}"))
    assert [one.images[0] for one in found] == [one["image"] for one in pictures]


def masked(ids, mask):
    return [{"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}]


@pytest.mark.parametrize("loader, said", [
    (DataLoader([("a", 1), ("b", 2)], batch_size=2), r"batch 0: .*2 parts without names \(str, int\).*dictionaries"),
    (DataLoader([{"text": "a", "image": image()}], batch_size=1), "batch 0: the loader fails: .*collate_fn=list"),
    (DataLoader([{"input_ids": [1, 2]}, {"input_ids": [1]}], batch_size=2), "batch 0: the loader fails: .*collate_fn=list"),
    (DataLoader([{"input_ids": torch.ones(3, dtype=torch.long), "pixel_values": torch.ones(3, 4, 4)}], batch_size=1),
     "'pixel_values' is made of a prompt already"),
    (DataLoader(ROWS, collate_fn=lambda some: {"text": ["a", "b"], "label": [1]}),
     "different numbers of rows: text 2, label 1"),
    (DataLoader(ROWS, collate_fn=lambda some: {"text": "a"}), "column 'text' is str .*not a list"),
    (DataLoader(ROWS, collate_fn=lambda some: {}), "batch 0: it has no columns"),
    (DataLoader(ROWS, collate_fn=lambda some: 5), "batch 0: a loader's batch is columns .*not int"),
    (DataLoader(masked([5, 6, 7], [1, 0, 1]), batch_size=1), "batch 0, row 0: its attention_mask is 1 for the"),
    (DataLoader(masked([5, 6, 7], [0, 0, 0]), batch_size=1), "row 0: its attention_mask leaves out every token"),
    (DataLoader(masked([5, 6, 7], [1, 1]), batch_size=1), "row 0: it has 3 ids, and an attention_mask for 2"),
    (DataLoader(masked([5.0, 6.0], [1, 1]), batch_size=1), "row 0: input_ids is a list of whole numbers"),
    (DataLoader([1.5, 2.5], batch_size=2), "batch 0, row 0: no example can be made of float"),
    (DataLoader(Stream([TEXTS[:2], 7]), batch_size=None), "batch 1: no example can be made of int"),
])
def test_what_no_rows_can_be_made_of_is_named(loader, said):
    with pytest.raises(PromptError, match=said):
        list(examples(loader))


def test_examples_are_counted_where_the_loader_knows_them(model, tmp_path):
    counted = {count(DataLoader(TEXTS, batch_size=2)): 5, count(DataLoader(TEXTS, batch_size=2, drop_last=True)): 4}
    assert all(found == expected for found, expected in counted.items())
    assert count(DataLoader(Stream(TEXTS), batch_size=2)) is None
    told = []
    hl.extract(model, DataLoader(TEXTS, batch_size=2), metrics=["entropy"], progress=lambda *now: told.append(now[:2]))
    assert told[-1] == (5, 5)
    with pytest.raises(RecordError, match="a loader that shuffles gives each worker other examples"):
        hl.extract(model, DataLoader(TEXTS, shuffle=True), "L0.z", tmp_path / "s", engine="local", workers=2)


def test_a_loader_goes_on_where_it_was_stopped_and_a_shuffled_one_is_noticed(model, tmp_path):
    expected = hl.extract(model, TEXTS, "L1.z", tmp_path / "list", shard_bytes=500).store
    hl.extract(model, DataLoader(TEXTS[:2], batch_size=2), "L1.z", tmp_path / "loader", shard_bytes=500, batch_size=1)
    found = hl.extract(model, DataLoader(TEXTS, batch_size=2), "L1.z", tmp_path / "loader", shard_bytes=500, batch_size=1)
    assert found.report.resumed == 2
    for a, b in zip(found.store["L1.z"], expected["L1.z"], strict=True):
        assert np.allclose(a, b, atol=1e-6)
    with pytest.raises(RecordError, match="the source is not the one"):
        hl.extract(model, DataLoader(TEXTS[::-1], batch_size=2), "L1.z", tmp_path / "loader", shard_bytes=500, batch_size=1)
