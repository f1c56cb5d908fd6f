"""Models built by hand, whose circuits are known: attention that looks where it is told and carries what it is told.

A stream is blocks of one-hot vectors (token, position, and what heads have carried), each entry beside its negative, so
that LayerNorm only scales. Weights of heads are large enough for attention to be all or nothing. MLPs do nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

VOCAB, LENGTH, HEADS = 8, 8, 4
BLOCKS = {"token": VOCAB, "pos": LENGTH, "carried": VOCAB, "out": VOCAB}
WIDTH = 2 * sum(BLOCKS.values())
SHARP = 200.0


@dataclass(frozen=True)
class Head:
    """A head by what it does.

    Attributes:
        query, key: Block -> matrix from the block to the head's own space; a query looks where the two agree.
        reads, writes: It carries one block's content to another block.
    """

    query: tuple[str, torch.Tensor]
    key: tuple[str, torch.Tensor]
    reads: str
    writes: str


def start(block: str) -> int:
    """The first column of a block."""
    names = list(BLOCKS)
    return sum(BLOCKS[name] for name in names[:names.index(block)])


def _into(weight: torch.Tensor, block: str, matrix: torch.Tensor, column: int) -> None:
    """Let columns of a [d_model, …] weight read a block (and its negative)."""
    at, half = start(block), WIDTH // 2
    weight[at:at + matrix.shape[0], column:column + matrix.shape[1]] = matrix / 2
    weight[half + at:half + at + matrix.shape[0], column:column + matrix.shape[1]] = -matrix / 2


def model(heads: dict[tuple[int, int], Head], seed: int | None = None) -> Any:
    """A GPT-2 of two layers with these heads; all other heads are empty, or small and random with a seed."""
    import transformers

    config = transformers.GPT2Config(vocab_size=VOCAB, n_embd=WIDTH, n_layer=2, n_head=HEADS, n_positions=LENGTH,
                                     tie_word_embeddings=False, bos_token_id=0, eos_token_id=0)
    hf = transformers.GPT2LMHeadModel(config).eval()
    d_head, half = WIDTH // HEADS, WIDTH // 2
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            parameter.fill_(1.0 if "ln" in name and name.endswith("weight") else 0.0)
        for block, table in (("token", hf.transformer.wte.weight), ("pos", hf.transformer.wpe.weight)):
            table[:, start(block):start(block) + BLOCKS[block]] = torch.eye(BLOCKS[block])
            table[:, half + start(block):half + start(block) + BLOCKS[block]] = -torch.eye(BLOCKS[block])
        hf.lm_head.weight[:, start("out"):start("out") + VOCAB] = torch.eye(VOCAB)
        for (layer, number), head in heads.items():
            attn = hf.transformer.h[layer].attn
            _into(attn.c_attn.weight, head.query[0], SHARP * head.query[1], number * d_head)
            _into(attn.c_attn.weight, head.key[0], head.key[1], WIDTH + number * d_head)
            carry = torch.eye(BLOCKS[head.reads])
            carry[0, 0] = 0  # the first token says nothing: it is what heads without a target look at
            _into(attn.c_attn.weight, head.reads, carry, 2 * WIDTH + number * d_head)
            out = attn.c_proj.weight[number * d_head:number * d_head + BLOCKS[head.writes]]
            out[:, start(head.writes):start(head.writes) + BLOCKS[head.writes]] = torch.eye(BLOCKS[head.writes])
            out[:, half + start(head.writes):half + start(head.writes) + BLOCKS[head.writes]] = -torch.eye(
                BLOCKS[head.writes])
    return hf


def looking(targets: dict[int, int]) -> tuple[tuple[str, torch.Tensor], tuple[str, torch.Tensor]]:
    """Query and key of a head whose positions look at given ones, and at the first otherwise."""
    query = torch.zeros(LENGTH, LENGTH)
    for position in range(LENGTH):
        query[position, targets.get(position, 0)] = 1
    return ("pos", query), ("pos", torch.eye(LENGTH))


def induction() -> Any:
    """L0H0 carries each token to the next position; L1H0 looks for positions that carry its own token."""
    back = looking({position: position - 1 for position in range(1, LENGTH)})
    return model({(0, 0): Head(*back, "token", "carried"),
                  (1, 0): Head(("token", torch.eye(VOCAB)), ("carried", torch.eye(VOCAB)), "token", "out")})


def gate(source: int, at: int, last: int) -> Any:
    """What the token at `source` is reaches `last` through the position `at` alone."""
    return model({(0, 1): Head(*looking({at: source}), "token", "carried"),
                  (1, 2): Head(*looking({last: at}), "carried", "out")})


def nothing() -> Any:
    """A model without any head."""
    return model({})
