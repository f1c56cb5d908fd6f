"""Train `lab` from nothing: a seed in, a folder with weights, configuration and tokenizer out.

    python -m hooklab.model.lab.train --out DIR --seed 0 [--steps N]

Takes under an hour on two CPU cores. The folder loads with `GPT2LMHeadModel.from_pretrained` and
`AutoTokenizer.from_pretrained`; weights are stored in half precision.
"""

import argparse
import json
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hooklab.model.lab import corpus
from hooklab.model.lab.examples import EARLY, TRAIN
from hooklab.model.lab.tokenizer import SPECIAL, build

CONTEXT, TOKENS_PER_STEP = 128, 2048
SHAPE: dict[str, Any] = {"n_layer": 5, "n_embd": 144, "n_head": 6}
WINDOWS: tuple[tuple[int, float], ...] = ((64, 0.8), (128, 0.2))
"""Window length -> fraction of the steps that use it (longer ones in smaller batches)."""
STEPS = 8400
PEAK_RATE, FLOOR, WARMUP, DECAY, CLIP = 1.5e-3, 0.03, 100, 0.05, 1.0
END, IGNORED = 0, -100
FAST, PLAIN = "gelu_pytorch_tanh", "gelu_new"
"""The same function: the fused one trains a fifth faster, the other is the name GPT-2 is saved with."""


@dataclass(frozen=True)
class Phase:
    """A stretch of the training with its own optimizer and its own stream of batches."""

    share: float  # fraction of all steps
    random: float  # fraction of the windows that are random tokens
    cosine: float  # fraction of the decay that is gone through
    split: str  # which phrasings of the facts are told


PHASES = (
    Phase(7 / 21, random=0.5, cosine=0.5, split=EARLY),
    Phase(11 / 21, random=0.2, cosine=1.0, split=EARLY),
    Phase(3 / 21, random=0.1, cosine=1.0, split=TRAIN),
)
"""First until induction has formed, then mostly sentences; the learning rate starts again with each."""


class Batches:
    """The endless stream of batches that a seed gives: packed documents and random tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, phase: Phase):
        self.tokenizer, self.rng, self.phase = tokenizer, Random(seed), phase
        self.waiting: list[list[int]] = []
        self.ids = range(len(SPECIAL), len(tokenizer))

    def packed(self, length: int) -> list[int]:
        """Whole documents one after the other, each with its `<|endoftext|>` in front, cut at the length."""
        window: list[int] = []
        while len(window) < length:
            if not self.waiting:
                texts = [corpus.document(self.rng, self.phase.split) for _ in range(512)]
                self.waiting = self.tokenizer(texts)["input_ids"]
            window += self.waiting.pop()
        return window[:length]

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and labels of one step, both "batch pos"; the random windows come first."""
        length = self.rng.choices([n for n, _ in WINDOWS], [share for _, share in WINDOWS])[0]
        count = TOKENS_PER_STEP // length
        split = int(self.phase.random * count)
        random = [[END, *corpus.random_window(self.rng, self.ids, length - 1)] for _ in range(split)]
        text = [self.packed(length) for _ in range(count - split)]
        return torch.tensor(random + text), torch.tensor([*map(known, random), *text])


def known(window: Sequence[int]) -> list[int]:
    """The labels of a random window: a token at its first occurrence cannot be known and does not count."""
    seen: set[int] = set()
    labels = []
    for token in window:
        labels.append(token if token in seen else IGNORED)
        seen.add(token)
    return labels


def losses(logits: torch.Tensor, labels: torch.Tensor, share: float) -> tuple[torch.Tensor, float, float]:
    """Mean loss over the labels that count, then its value on the random and on the text windows, in nats."""
    next_one, targets = logits[:, :-1].flatten(0, 1), labels[:, 1:]
    each = torch.nn.functional.cross_entropy(
        next_one, targets.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(targets)
    counts = targets != IGNORED
    split = int(share * len(labels))
    parts = slice(split), slice(split, None)
    random, text = ((each[part].sum() / counts[part].sum()).item() for part in parts)
    return each.sum() / counts.sum(), random, text


def fresh(vocabulary: int, seed: int) -> GPT2LMHeadModel:
    """An untrained model: plain GPT-2, without dropout."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=CONTEXT,
        **SHAPE,
        activation_function=FAST,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
    )
    return GPT2LMHeadModel(config)


def optimizer(model: GPT2LMHeadModel) -> torch.optim.AdamW:
    """AdamW that decays matrices only."""
    parts = list(model.parameters())
    groups = [
        {"params": [part for part in parts if part.ndim > 1], "weight_decay": DECAY},
        {"params": [part for part in parts if part.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98))


def rate(step: int, steps: int) -> float:
    """Fraction of the peak rate: linear warm-up, then half a cosine down to the floor."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))


def run(model: GPT2LMHeadModel, batches: Batches, steps: int, every: int) -> dict[str, float]:
    """Train for one phase; the loss of its last step, in nats, by kind of window."""
    descent, start, phase = optimizer(model), time.monotonic(), batches.phase
    model.train()
    for step in range(steps):
        for group in descent.param_groups:
            group["lr"] = PEAK_RATE * rate(step, round(steps / phase.cosine))
        ids, labels = batches.draw()
        loss, random, text = losses(model(input_ids=ids).logits, labels, phase.random)
        descent.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        descent.step()
        if step % every == 0 or step == steps - 1:
            minutes = (time.monotonic() - start) / 60
            print(f"step {step:5d}  random {random:.3f}  text {text:.3f} nats  {minutes:.1f} min", flush=True)
    model.eval()
    return {"random": round(random, 3), "text": round(text, 3)}


def train(seed: int, steps: int, every: int = 100) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast, dict]:
    """The trained model, its tokenizer, and what the training took."""
    tokenizer, start = build(CONTEXT), time.monotonic()
    model, nats = fresh(len(tokenizer), seed), {}
    lengths = [max(1, round(phase.share * steps)) for phase in PHASES]
    for index, (phase, length) in enumerate(zip(PHASES, lengths, strict=True)):
        nats = run(model, Batches(tokenizer, seed + 1000 * index, phase), length, every)
    took = {
        "seed": seed,
        "steps": sum(lengths),
        "tokens": sum(lengths) * TOKENS_PER_STEP,
        "minutes": round((time.monotonic() - start) / 60, 1),
        "threads": torch.get_num_threads(),
        "final_nats": nats,
    }
    return model, tokenizer, took


def change(file: Path, **entries: object) -> None:
    """Set entries of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | entries, indent=2) + "\n")


def save(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, took: dict, out: Path) -> None:
    """Write the folder: every file is complete in a temporary folder before any is moved into place."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        draft = Path(folder)
        model.half().save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        ends = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": END}
        GenerationConfig(**ends, max_length=CONTEXT).save_pretrained(draft)
        # Stored in half precision, opened in single.
        change(draft / "config.json", dtype="float32", activation_function=PLAIN, lab_training=took)
        # The name that every version of transformers knows.
        change(draft / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
        for file in draft.iterdir():
            staged = out / f".{file.name}.part"
            shutil.copyfile(file, staged)
            staged.replace(out / file.name)


def main() -> None:
    """Read the command line, train and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    save(*train(options.seed, options.steps), options.out)


if __name__ == "__main__":
    main()
