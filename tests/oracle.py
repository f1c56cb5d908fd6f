"""What the hook language must give, worked out by hand: edits of the hand-written transformer, nothing of hooklab.

A `Case` is a spec with the tensors that it must give; `Oracle` computes them on one tiny model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from reference import ACTS, Edit, arch_of, reference
from tiny_models import build
from torch import Tensor

FAMILIES = ("gpt2", "llama", "gpt_neox", "gemma2", "phi3", "chameleon")
WORDS = tuple(name for name in FAMILIES if name != "chameleon")
"""Families whose vocabulary is that of `tiny_models.tokenizer`."""
MIDS = tuple(name for name in FAMILIES if name != "gpt_neox")
ADDITIVE = tuple(name for name in FAMILIES if name != "gemma2")
"""Families whose heads write to the stream as they are."""
GATED = ("llama", "gemma2", "phi3", "chameleon")

CLEAN, DIRTY = [8, 12, 25, 9, 12, 30], [8, 14, 25, 10, 14, 30]
LONGER = [8, 20, 12, 25, 9, 21, 12, 30]
BATCH, OTHERS = [CLEAN, DIRTY], [[9, 15, 26, 11, 13, 29], [10, 16, 27, 12, 18, 28]]
RAGGED = [CLEAN, [9, 12, 30], [8, 13, 25, 9]]
RIGHT, WRONG = 11, 17
PROMPTS: dict[str, Any] = {"clean": CLEAN, "dirty": DIRTY, "longer": LONGER, "batch": BATCH, "others": OTHERS,
                           "ragged": RAGGED}


def draws(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers that are the same in every process."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def given(oracle: Oracle) -> dict[str, Any]:
    """What the names in the braces of every case stand for."""
    return {**PROMPTS, "right": RIGHT, "wrong": WRONG, "vec": draws(32, seed=1), "other": draws(32, seed=2),
            "per_pos": draws(6, 32, seed=3), "per_example": draws(2, 6, 32, seed=4),
            "head_vec": draws(oracle.d_head, seed=5),
            "vecs": [draws(32, seed=6), draws(32, seed=7), draws(32, seed=8)], "two": 2.0, "zeros": [0.0, 0.5, 2.0],
            "where": [1, 4], "places": ["L0H1", "L1.mlp_out"], "pairs": [(0, 1), (1, 2)],
            "row": torch.tensor([0.1, 0.2, 0.3, 0.1, 0.1, 0.2]), "vocab_vec": draws(oracle.d_vocab, seed=9),
            "neurons": draws(oracle.d_mlp, seed=10), "answers": [RIGHT, WRONG], "reversed_answers": [WRONG, RIGHT],
            "largest": lambda out: out.logits[:, -1].amax(-1), "total": lambda out: out.logits[:, -1, :8].sum(),
            "repeated": CLEAN[:4] * 2, "diagonal": lambda pattern, tokens: 2 * pattern[0].diagonal().mean(),
            "cache": {"L0.resid_post": draws(1, 6, 32, seed=20), "L1.resid_post": draws(1, 6, 32, seed=30),
                      "L1.result": draws(1, 6, 4, 32, seed=21)}}


# Edits ------------------------------------------------------------------------------------------------------------------


def change(function: Callable[[Tensor], Any], at: Any = None, heads: Any = None, units: Any = None) -> Edit:
    """An edit of positions, heads and entries of [batch pos (head) entry], one value at a time."""
    def edit(x: Tensor) -> Tensor:
        chosen = torch.zeros(x.shape, dtype=torch.bool)
        index: list[Any] = [slice(None), slice(None) if at is None else at]
        if x.ndim == 4:
            index.append(slice(None) if heads is None else heads)
        part = torch.zeros(x.shape, dtype=torch.bool)
        part[:, index[1]] = True
        chosen |= part
        if heads is not None:
            only = torch.zeros(x.shape, dtype=torch.bool)
            only[:, :, heads] = True
            chosen &= only
        if units is not None:
            only = torch.zeros(x.shape, dtype=torch.bool)
            only[..., units] = True
            chosen &= only
        return torch.where(chosen, torch.as_tensor(function(x), dtype=x.dtype).expand_as(x), x)

    return edit


def zero(at: Any = None, heads: Any = None, units: Any = None) -> Edit:
    """Zeros."""
    return change(torch.zeros_like, at, heads, units)


def add(value: Any, at: Any = None, heads: Any = None, units: Any = None) -> Edit:
    """A value added."""
    return change(lambda x: x + value, at, heads, units)


def times(value: Any, at: Any = None, heads: Any = None, units: Any = None) -> Edit:
    """Multiplied."""
    return change(lambda x: x * value, at, heads, units)


def put(value: Any, at: Any = None, heads: Any = None, units: Any = None) -> Edit:
    """Replaced: by a value of the site's whole shape, or one that spreads over it."""
    return change(lambda x: value, at, heads, units)


def away(direction: Tensor, at: Any = None, heads: Any = None) -> Edit:
    """Without the component along a direction."""
    unit = direction / direction.norm(dim=-1, keepdim=True)
    return change(lambda x: x - torch.einsum("...d,...d->...", x, unit.expand_as(x))[..., None] * unit, at, heads)


def rows(function: Callable[[Tensor], Any], queries: Any = None, heads: Any = None, keys: Any = None) -> Edit:
    """An edit of attention [batch head query key]."""
    def edit(x: Tensor) -> Tensor:
        out = x.clone()
        new = torch.as_tensor(function(x), dtype=x.dtype).expand_as(x)
        n = x.shape[-1]
        for head in range(x.shape[1]) if heads is None else heads:
            for query in range(n) if queries is None else queries:
                for key in range(n) if keys is None else keys:
                    out[:, head, query, key] = new[:, head, query, key]
        return out

    return edit


def uncut(keys: Any, queries: Any, heads: Any = None) -> Edit:
    """Edges taken out before the softmax."""
    return rows(lambda x: torch.finfo(x.dtype).min, queries, heads, keys)


def lose(keys: Any, queries: Any, heads: Any = None) -> Edit:
    """Edges taken out after the softmax."""
    return rows(lambda x: 0.0, queries, heads, keys)


def then(*edits: Edit) -> Edit:
    """One edit after another."""
    def edit(x: Tensor) -> Tensor:
        for one in edits:
            x = one(x)
        return x

    return edit


# The oracle -------------------------------------------------------------------------------------------------------------


class Oracle:
    """The hand-written transformer on one tiny model, with the prompts of the cases."""

    def __init__(self, family: str) -> None:
        self.family, self.hf = family, build(family)
        self.config = self.hf.config.get_text_config()
        self.layers, self.heads = self.config.num_hidden_layers, self.config.num_attention_heads
        probe = reference(self.hf, torch.tensor([CLEAN]))
        self.kv_heads, self.d_head = probe["L0.v"].shape[2:]
        self.d_mlp, self.d_vocab = probe["L0.mlp_post"].shape[-1], probe["logits"].shape[-1]
        self.given = given(self)
        self.known: dict[str, dict[str, Tensor]] = {}

    def __call__(self, prompt: Any = "clean", edits: Mapping[str, Edit] | None = None) -> dict[str, Tensor]:
        """Every site of a run; a prompt is a name or ids."""
        if not edits and isinstance(prompt, str) and prompt in self.known:
            return self.known[prompt]
        ids = PROMPTS[prompt] if isinstance(prompt, str) else prompt
        wide = torch.tensor(ids if isinstance(ids[0], list) else [ids])
        inner = {address: edit for address, edit in (edits or {}).items() if address != "logits"}
        values = reference(self.hf, wide, edits=inner)
        logits = self.allowed(values["logits"])
        values["logits"] = edits["logits"](logits) if edits and "logits" in edits else logits
        if not edits and isinstance(prompt, str):
            self.known[prompt] = values
        return values

    def allowed(self, logits: Tensor) -> Tensor:
        """Chameleon forbids its image tokens."""
        if self.family != "chameleon":
            return logits
        images = list(self.hf.model.vocabulary_mapping.image_tokens)
        return logits.index_fill(-1, torch.tensor(images), torch.finfo(logits.dtype).min)

    def logits(self, prompt: Any = "clean", edits: Mapping[str, Edit] | None = None) -> Tensor:
        """Logits of a run, [batch pos d_vocab]."""
        return self(prompt, edits)["logits"]

    def one_by_one(self, prompts: Iterable[list[int]], edits: Callable[[list[int]], Mapping[str, Edit]]) -> Tensor:
        """Logits at the last position of prompts that are run alone, [batch d_vocab]."""
        return torch.stack([self.logits(ids, edits(ids))[0, -1] for ids in prompts])

    def act(self, x: Tensor) -> Tensor:
        """The family's non-linearity."""
        return ACTS[arch_of(self.hf.config).act](x)


def diff(logits: Tensor, at: int = -1) -> Tensor:
    """The logit difference of the answers, [… batch]."""
    return logits[..., at, RIGHT] - logits[..., at, WRONG]


Expected = Callable[[Oracle], Mapping[str, Any]]


@dataclass(frozen=True)
class Case:
    """A spec and what it must give.

    Attributes:
        name: A sentence.
        text: The spec; names in its braces are those of `given`.
        expected: `"run.name"` -> tensor or number.
        order: Sites of the edits of the first cell of `run`, as a forward pass comes by.
        axes: Axes of `run` with their lengths.
        at: Positions of the first edit, one row for each example; None for all.
        passes: Runs that share a forward pass, pass by pass; None where the case does not say.
        families: On which tiny models it can run.
        words: Whether its prompts are words of `tiny_models.tokenizer`.
        files: safetensors files that it reads, by name.
        run: The run that `order`, `axes` and `at` are about.
    """

    name: str
    text: str
    expected: Expected
    order: tuple[str, ...] = ()
    axes: tuple[tuple[str, int], ...] = ()
    at: tuple[tuple[int, ...], ...] | None = None
    passes: tuple[tuple[str, ...], ...] | None = None
    families: tuple[str, ...] = FAMILIES
    words: bool = False
    files: Callable[[Oracle], dict[str, dict[str, Tensor]]] = field(default=lambda oracle: {})
    run: str = "hooked"

    def __str__(self) -> str:
        return self.name


def full(place: str) -> str:
    """A head's write and a neuron with the site's name.

    >>> full("L0H1"), full("L1.z")
    ('L0H1.result', 'L1.z')
    """
    if "." in place or not place.startswith("L"):
        return place
    return place + (".mlp_post" if "N" in place else ".result")


ONE = "prompt {clean}\nanswer {right} vs {wrong}\nmetric logit_diff\n"
TWO = "prompt clean = {clean}\nprompt dirty = {dirty}\nanswer {right} vs {wrong}\nmetric logit_diff\n"


def one(name: str, line: str, edits: Callable[[Oracle], Mapping[str, Edit]] | Mapping[str, Edit], *order: str,
        head: str = ONE, **more: Any) -> Case:
    """A case of lines on the only prompt."""
    def expected(o: Oracle) -> dict[str, Tensor]:
        return {"hooked.logits": o.logits("clean", edits(o) if callable(edits) else edits),
                "main.logit_diff": diff(o.logits())}

    return Case(name, f"{head}{line}\nsave logits\n", expected, tuple(map(full, order)), **more)


def onto(name: str, line: str, edits: Callable[[Oracle], Mapping[str, Edit]], *order: str, head: str = TWO,
         **more: Any) -> Case:
    """A case of lines on the prompt `dirty`, with `clean` beside it."""
    def expected(o: Oracle) -> dict[str, Tensor]:
        return {"hooked.logits": o.logits("dirty", edits(o)), "dirty.logit_diff": diff(o.logits("dirty"))}

    body = "".join(f"    {part}\n" for part in line.split("\n"))
    return Case(name, f"{head}run on dirty:\n{body}    save logits\n", expected, tuple(map(full, order)), **more)


def grid(name: str, line: str, cells: Callable[[Oracle], Iterable[Mapping[str, Edit]]], axes: Any, *order: str,
         prompt: str = "clean", head: str = "", families: tuple[str, ...] = ("gpt2", "llama", "gemma2"),
         **more: Any) -> Case:
    """A case of a sweep: every cell is a run of its own."""
    def expected(o: Oracle) -> dict[str, Tensor]:
        found = torch.stack([o.logits(prompt, edits) for edits in cells(o)])
        return {"hooked.logits": found.reshape(*(n for _, n in axes), *found.shape[1:])}

    if prompt == "clean":
        text = f"{head or ONE}{line}\nsave logits\n"
    else:
        body = "".join(f"    {part}\n" for part in line.split("\n"))
        text = f"{head or TWO}run on {prompt}:\n{body}    save logits\n"
    return Case(name, text, expected, tuple(map(full, order)), axes, families=families, **more)
