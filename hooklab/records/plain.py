"""What a run wrote as one plain dictionary: `Run.as_dict`.

For code that reads such dictionaries: text in and out, ids, and the stream after every layer under `layer_0`, `layer_1` ….
A Run itself says more: steps, samples, edits, versions, seeds.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from ..errors import RecordError

if TYPE_CHECKING:
    from torch import Tensor

    from .parts import Text
    from .run import Run

NAMES = {"embed": "embeddings"}
_STREAM = re.compile(r"L(\d+)\.resid_post$")


def as_dict(run: Run, row: int | None = None) -> dict[str, Any]:
    """One row of what a run wrote.

    Args:
        run: One with a `generate` line.
        row: Which of its texts: sample after sample, example after example. Not needed when there is one.

    Returns:
        `prompt`, `response`, `model`, `timestamp` (ISO 8601), `input_ids` [1 pos], the tokens that were read: prompt and
        new, without the last new one; and `activations`: `embeddings` and `layer_0` … for what was kept of `embed` and
        `L0.resid_post` …, other places under their address, all [1 pos …] at the positions that were kept.

    Raises:
        RecordError: nothing was written, several runs or the cells of a sweep wrote, or there is no such row.
    """
    name, text, row = _chosen(run, row)
    tokens = run.tokens_of[name].ids[row]
    read = torch.tensor([list(tokens[:len(tokens) - 1] if text.ids else tokens)])
    activations = {}
    for key, value in run.data.items():
        of, _, address = key.partition(".")
        if of == name:
            activations[_name(address)] = _row(value, run.axes[key], text)
    made = run.provenance
    return {"prompt": text.prompt, "response": text.new, "model": made.get("model", {}).get("name", ""),
            "timestamp": made.get("made", ""), "input_ids": read, "activations": activations}


def _chosen(run: Run, row: int | None) -> tuple[str, Text, int]:
    """The run that wrote, the text of the row, and its number."""
    if len(run.texts) != 1:
        raise RecordError("There is no text: nothing was generated. Add a line such as `generate 20`." if not run.texts else
                          f"Several runs wrote: {', '.join(run.texts)}; as_dict() is of a spec in which one does.")
    ((name, texts),) = run.texts.items()
    if name not in run.tokens_of or any(text.cell for text in texts):
        raise RecordError(f"{name} was swept and wrote a text for each cell; as_dict() is of a run without a sweep.")
    if row is None and len(texts) > 1:
        raise RecordError(f"{name} wrote {len(texts)} texts: say which, as_dict(0) to as_dict({len(texts) - 1}).")
    row = 0 if row is None else row
    if not 0 <= row < len(texts):
        raise RecordError(f"There is no row {row}: {name} wrote {len(texts)} text{'s' * (len(texts) != 1)}, counted from 0.")
    return name, texts[row], row


def _name(address: str) -> str:
    stream = _STREAM.match(address)
    return f"layer_{stream[1]}" if stream else NAMES.get(address, address)


def _row(value: Tensor, axes: tuple[str, ...], text: Text) -> Tensor:
    """A row's entry, its batch axis kept, without the positions that other rows have before it."""
    words = list(axes)
    if "sample" in words:
        value = value.select(words.index("sample"), text.sample)
        words.remove("sample")
    if "batch" in words:
        value = value.narrow(words.index("batch"), text.example, 1)
    for axis in [i for i, word in enumerate(words) if word in ("pos", "query_pos", "key_pos")]:
        there = ~value.isnan().movedim(axis, 0).flatten(1).all(1)
        first = int(there.nonzero()[0]) if there.any() else 0
        value = value.narrow(axis, first, value.shape[axis] - first)
    return value
