"""The forward passes of `model.verify()`: on which tokens, through which part of the model, and what they give.

What the laws are checked on has a number for every position: the logits of a language model. A model with another head
may give one row of classes for a whole prompt, and some heads take one prompt at a time; there the passes run the
model's body, whose output is its last hidden state, and `head` checks what stands on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...records import Activations
from ...runtime.trace import capture, places, run

if TYPE_CHECKING:
    from ..model import Model

Ids = tuple[int, ...]
N_TOKENS = 12


def body(model: Model) -> Any:
    """What the passes run: the model itself, or what is under its head where that is no language-model head."""
    if model.layout.has_head:
        return model.hf
    return getattr(model.hf, getattr(model.hf, "base_model_prefix", "") or "", model.hf)


def look(model: Model, rows: Sequence[Sequence[int]], addresses: Sequence[str],
         edits: Mapping[str, Callable[[Tensor], Tensor]] | None = None) -> Activations:
    """One whole pass: the sites at `addresses`, with `edits`; its output is that of the body."""
    inner = body(model)
    if inner is model.hf:
        return capture(model, list(rows), addresses, full=True, edits=edits)
    values: dict[str, Tensor] = {}
    callbacks: dict[str, list[Any]] = {}
    for address, edit in (edits or {}).items():
        callbacks.setdefault(_location(model, address), []).append(_writer(edit))
    for address in addresses:
        callbacks.setdefault(_location(model, address), []).append(_saver(address, values))
    prompt = model.reader.read(list(rows))
    output = run(model, lambda **inputs: inner(**inputs), callbacks, prompt)
    return Activations(values, prompt.tokens, output, {})


def _location(model: Model, address: str) -> str:
    (place,) = places(model, [address])
    return model.layout.port(place.site, place.layer).location


def _writer(edit: Callable[[Tensor], Tensor]) -> Callable[[Tensor, int], Tensor]:
    return lambda value, step: edit(value)


def _saver(address: str, values: dict[str, Tensor]) -> Callable[[Tensor, int], None]:
    def save(value: Tensor, step: int) -> None:
        values[address] = value.detach().clone()

    return save


def bare(model: Model, module: Any, ids: Ids) -> Any:
    """What a module gives without hooklab."""
    with torch.no_grad():
        inputs = model.reader.batch([model.reader.read([list(ids)])], generating=False)
        return module(**{name: value.to(model.device) for name, value in inputs.items()})


def answer(output: Any) -> Tensor:
    """The part of an output that has a row for every position: logits, or the last hidden state."""
    output = output.output if isinstance(output, Activations) else output
    return output.logits if getattr(output, "logits", None) is not None else output[0]


def random_ids(model: Model, *, seed: int, length: int = 0) -> Ids:
    """Seeded random tokens that are no special ones; the caller's random state is left alone."""
    special = set(getattr(model.tokenizer, "all_special_ids", ()) or ()) | set(model.reader.image_ids) | padding(model)
    size = min(model.hf.get_input_embeddings().weight.shape[0], model.facts.d_vocab)
    allowed = [i for i in range(size) if i not in special] if size < 100_000 else list(range(1000, 50_000))
    generator = torch.Generator().manual_seed(seed)
    length = length or min(N_TOKENS, model.facts.n_ctx or N_TOKENS)
    return tuple(allowed[i] for i in torch.randint(len(allowed), (length,), generator=generator).tolist())


def padding(model: Model) -> set[int]:
    """The token that some models look for themselves: a classifier's head to find where a prompt ends, RoBERTa to count."""
    pad = getattr(model.layout.config, "pad_token_id", None)
    return set() if pad is None else {pad}
