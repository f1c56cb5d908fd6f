"""What patching sweeps cost: cells of the hook language against TransformerLens, in one process.

    python benchmarks/sweep.py [--only resid,heads,pairs,path,length,depth] [--rounds N] [--threads N] [--quick]

A factor is TransformerLens' CPU time over ours, the median of ratios of runs that take turns. Ours is everything from the
text of the cell to its scores: reading, compiling, the clean pass and all others. TransformerLens runs under `no_grad`; its
clean cache is made outside its time. One cell costs it one forward pass whichever cell it is, so it is timed on a sample of
cells, evenly spaced, and the time scaled to all of them; the numbers of the sample are compared.

The floor is the multiply-adds of the packed work, counted from where the cells depart, over the rate of one large matrix
product timed in the same turns. Peak memory is that of a first run over the loaded models, a little more than in a fresh
process. Targets stand beside the measurements; nothing fails here. Results are kept case by case, so sections can be
measured one after the other; `--quick` tries all of it on tiny models and writes nothing. A sweep of more than a few
seconds is run once; `--rounds 3` takes longer and knows better.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "benchmarks"))

from capture import RESULTS, SMALL, bridge, gpt2, status, write  # noqa: E402

SAMPLE = 16
"""Cells of a sweep on which TransformerLens is timed."""
A, B = 3, 4
FLOOR = 1.5
"""Our time over the floor, at most."""
LONG = 7.0
"""CPU seconds of both contestants beyond which a case is run once, unless `--rounds` says otherwise."""
Sizes = dict[str, Any]
LLAMA: Sizes = dict(num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=4, hidden_size=768,
                    intermediate_size=2048, vocab_size=32000, max_position_embeddings=1024)
DEPTHS = (4, 12, 24)
WIDE = dict(n_head=8, n_embd=512, vocab_size=32000, n_positions=1024)
NARROW = dict(n_head=4, n_embd=32, vocab_size=500, n_positions=128)


def llama(sizes: Sizes) -> Any:
    """A random Llama of the given sizes."""
    import torch
    import transformers

    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()


def livelier(hf: Any) -> Any:
    """The same with larger weights in its blocks: as it is made, its heads hardly choose, and patches do next to nothing."""
    for name, weight in hf.named_parameters():
        if weight.ndim > 1 and (".h." in name or ".layers." in name):
            weight.data.mul_(100 / hf.config.hidden_size ** 0.5)
    return hf


MODELS: dict[str, tuple[Callable[[Sizes], Any], Sizes, Sizes]] = {
    "GPT-2-small size": (gpt2, SMALL, dict(NARROW, n_layer=6)),
    "Llama style, 12 heads over 4": (llama, LLAMA, dict(LLAMA, num_hidden_layers=6, num_attention_heads=4, vocab_size=500,
                                                        num_key_value_heads=2, hidden_size=32, intermediate_size=48)),
    **{f"{n} layers, d 512": (gpt2, dict(WIDE, n_layer=n), dict(NARROW, n_layer=max(2, n // 4))) for n in DEPTHS},
}
"""Name -> how it is made, its sizes, and those of `--quick`."""
GPT, GQA, *BY_DEPTH = MODELS

SWEEPS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "residual streams": (("resid_pre", "each L*.resid_pre @each", "resid_pre"),),
    "heads": (("z", "each L*H*.z", "attn_head_out_all_pos"),),
    "heads × positions": (("z", "each L*H*.z @each", "attn_head_out_by_pos"),),
    "heads: z, q, k, v, pattern": (("z", "each L*H*.z", "attn_head_out_all_pos"), *(
        (site, f"each L*H*.{site}", f"attn_head_{site}_all_pos") for site in ("q", "k", "v", "pattern"))),
}
"""Sweep -> (name of our run, what it patches, TransformerLens' function less `get_act_patch_`)."""
PATH, PATH_SKIPPING = "paths, plain hooks", "paths, skipping layers"


@dataclass(frozen=True)
class Case:
    """One comparison: a sweep on a model, with so many pairs of prompts that share their first tokens, or do not."""

    model: str
    sweep: str
    tokens: int = 16
    half: bool = False
    pairs: int = 1

    def __str__(self) -> str:
        parts = (self.model, self.sweep, f"{self.tokens} tokens", "half shared" if self.half else "nothing shared")
        return ", ".join((*parts, f"{self.pairs} pairs") if self.pairs > 1 else parts)


def _sections() -> Iterator[tuple[str, Case, float | None]]:
    """(section, case, target factor)."""
    for model in (GPT, GQA):
        for tokens, plain, shared in ((16, 12, 30), (32, 9, 30), (64, 6, 20)):
            yield "resid", Case(model, "residual streams", tokens), plain
            yield "resid", Case(model, "residual streams", tokens, half=True), shared
        yield "heads", Case(model, "heads"), 9
        yield "heads", Case(model, "heads", half=True), 15
        yield "heads", Case(model, "heads × positions", half=True), 40
        yield "heads", Case(model, "heads: z, q, k, v, pattern", half=True), None
        for half, target in ((False, 5), (True, 13)):
            yield "pairs", Case(model, "residual streams", half=half, pairs=8), target
        for sweep in (PATH, PATH_SKIPPING):
            yield "path", Case(model, sweep), None
    for tokens in (16, 32, 64, 128):
        yield "length", Case(GPT, "residual streams", tokens, half=True), None
    for model in BY_DEPTH:
        for half in (False, True):
            yield "depth", Case(model, "residual streams", half=half), None


CASES = tuple(_sections())
SECTIONS = {"resid": "Residual streams × positions", "heads": "Heads", "pairs": "Eight pairs of prompts at once",
            "path": "Path patching", "length": "Growth with length", "depth": "Growth with depth"}


# Both contestants ----------------------------------------------------------------------------------------------------

Found = dict[tuple[str, tuple[int, ...]], Any]
"""(run, labels along the axes of our scores) -> the metric of every example."""


class Contest:
    """A case with everything that it needs: `ours` and `theirs` run, `compared` looks at what they gave."""

    def __init__(self, case: Case, model: Any, lens: Any) -> None:
        import torch

        self.case, self.model, self.lens = case, model, lens
        facts = model.facts
        draw = torch.Generator().manual_seed(1)
        shape = (case.pairs, case.tokens)
        self.clean = torch.randint(facts.d_vocab, shape, generator=draw)
        self.corrupt = (self.clean + torch.randint(1, facts.d_vocab, shape, generator=draw)) % facts.d_vocab
        if case.half:
            self.corrupt[:, :case.tokens // 2] = self.clean[:, :case.tokens // 2]
        self.by_path = case.sweep in (PATH, PATH_SKIPPING)
        self.receiver = (3 * facts.n_layers // 4, facts.n_heads // 2)
        self.values = {"clean": self.clean, "corrupt": self.corrupt, "a": A, "b": B}
        self.lines = self._lines()
        self.text = "\n".join(["prompt clean = {clean}", "prompt corrupt = {corrupt}", "metric d = logit_diff({a}, {b})",
                               *(f"run {name} on corrupt:\n    patch {what} from clean" for name, what in self.lines)])
        self.cells = sum(len(model.plan(self.text, values=self.values).run(name).cells) for name, _ in self.lines)
        self.caches: tuple[Any, Any] = (None, None)

    def _lines(self) -> list[tuple[str, str]]:
        layer, head = self.receiver
        if self.by_path:
            return [("path", f"each L[{','.join(map(str, range(0, layer, 3)))}]H* -> L{layer}H{head}.q")]
        return [(name, what) for name, what, _ in SWEEPS[self.case.sweep]]

    def ours(self) -> Any:
        """From the text of the cell to its scores."""
        return self.model.run(self.text, values=self.values).scores

    def prepare(self) -> None:
        """What TransformerLens has before its time is taken: the clean cache; by hand also the corrupted one."""
        _, clean = self.lens.run_with_cache(self.clean)
        self.caches = (clean, self.lens.run_with_cache(self.corrupt)[1] if self.by_path else None)

    def theirs(self) -> Found:
        """The sample of cells, by TransformerLens."""
        if self.by_path:
            return {("path", sender): self._path(*sender) for sender in self._senders()}
        found: Found = {}
        for name, _, function in SWEEPS[self.case.sweep]:
            found |= self._patched(name, function)
        return found

    def _patched(self, name: str, function: str) -> Found:
        from transformer_lens import patching

        patch = getattr(patching, f"get_act_patch_{function}")
        facts = self.model.facts
        heads = facts.n_kv_heads if name in ("k", "v") else facts.n_heads
        sizes = {"layer": facts.n_layers, "pos": self.case.tokens, "head": heads, "head_index": heads}
        axes = patch.keywords["index_axis_names"]
        table = patching.make_df_from_ranges([sizes[axis] for axis in axes], axes)
        table = table.iloc[spaced(len(table), -(-SAMPLE // len(SWEEPS[self.case.sweep])))]
        result = patch(self.lens, self.corrupt, self.caches[0], difference, index_axis_names=None, index_df=table,
                       reduce="none")
        rows = table.rename(columns={"head_index": "head"})
        ordered = rows[[axis for axis in ("layer", "head", "pos") if axis in rows]].itertuples(index=False)
        return {(name, tuple(map(int, row))): value for row, value in zip(ordered, result.values, strict=True)}

    def _senders(self) -> list[tuple[int, int]]:
        everyone = [(layer, head) for layer in range(0, self.receiver[0], 3) for head in range(self.model.facts.n_heads)]
        return [everyone[i] for i in spaced(len(everyone), SAMPLE // 2)]

    def _path(self, sender: int, head: int) -> Any:
        """A path by hand: the receiver's query with the sender patched and all other heads held, then that query alone."""
        clean, corrupt = self.caches
        layer, receiver = self.receiver
        query = f"blocks.{layer}.attn.hook_q"
        seen: list[Any] = []

        def held(value: Any, hook: Any, at: int) -> Any:
            kept = corrupt[f"blocks.{at}.attn.hook_z"].clone()
            if at == sender:
                kept[:, :, head] = clean[f"blocks.{at}.attn.hook_z"][:, :, head]
            return kept

        def patched(value: Any, hook: Any) -> Any:
            value = value.clone()
            value[:, :, receiver] = seen[0][:, :, receiver]
            return value

        skipping = self.case.sweep == PATH_SKIPPING
        hooks = [(f"blocks.{at}.attn.hook_z", partial(held, at=at)) for at in range(sender if skipping else 0, layer)]
        self._through(sender, skipping, [*hooks, (query, lambda value, hook: seen.append(value.clone()))],
                      stop_at_layer=layer + 1, return_type=None)
        return difference(self._through(layer, skipping, [(query, patched)]))

    def _through(self, first: int, skipping: bool, hooks: list[Any], **options: Any) -> Any:
        """A pass over the corrupted prompt, from block `first` on where layers are skipped."""
        if not skipping:
            return self.lens.run_with_hooks(self.corrupt, fwd_hooks=hooks, **options)
        stream = self.caches[1][f"blocks.{first}.hook_resid_pre"].clone()
        return self.lens.run_with_hooks(stream, fwd_hooks=hooks, start_at_layer=first, **options)

    def compared(self, scores: Any, theirs: Found) -> tuple[float, float]:
        """The largest difference of any compared cell, and the largest effect among them."""
        import numpy as np

        untouched = self.model.run(self.text.split("\nrun ")[0], values=self.values).metrics["corrupt"]["d"]
        off = effect = 0.0
        for (name, labels), value in theirs.items():
            mine = scores[f"{name}.d"]
            where = tuple(label if axis == "pos" else mine.coords[axis].index(label)
                          for axis, label in zip(mine.axes, labels, strict=True))
            examples = mine.values[None] if mine.examples is None else mine.examples
            other = value.double().numpy()
            off = max(off, float(np.abs(examples[(slice(None), *where)] - other).max()))
            effect = max(effect, abs(float(other.mean()) - float(np.mean(untouched))))
        return off, effect


def difference(logits: Any) -> Any:
    """The metric, for every example."""
    return logits[:, -1, A] - logits[:, -1, B]


def spaced(count: int, most: int) -> list[int]:
    """At most so many numbers below `count`, evenly spaced."""
    few = min(count, most)
    return [(2 * i + 1) * count // (2 * few) for i in range(few)]


# The floor -----------------------------------------------------------------------------------------------------------


class Counter:
    """Multiply-adds of a plan as it is packed."""

    def __init__(self, model: Any) -> None:
        facts = self.facts = model.facts
        one = sum(p.numel() for p in model.layout.blocks[0].parameters() if p.ndim > 1)
        self.q = self.o = facts.d_model * facts.n_heads * facts.d_head
        self.kv = 2 * facts.d_model * facts.n_kv_heads * facts.d_head
        self.mlp = one - self.q - self.o - self.kv
        self.key = 2 * facts.n_heads * facts.d_head

    def plan(self, plan: Any) -> float:
        """The whole plan: packed cells, and every other pass over all tokens, with one row of logits each."""
        from hooklab.compiler.packing.choosing import packed
        from hooklab.runtime.measure import wanted_tokens

        whole, packings, _ = packed(plan)
        total = 0
        for run in whole.runs:
            lengths = whole.prompts[run.prompt].tokens.lengths
            wanted = wanted_tokens(run.metrics)
            if run.name not in packings:
                each = sum(self.facts.n_layers * self.block(0, n) + self.facts.d_model * self.facts.d_vocab for n in lengths)
                total += len(run.cells) * run.samples * each
                continue
            answers = self.facts.d_model * (self.facts.d_vocab if wanted is None else len(wanted))
            total += sum(run.samples * (self.strand(entry.layer, entry.stage, start, n) + answers)
                         for entry in packings[run.name].entries
                         for start, n in zip(entry.starts, lengths, strict=True) if start is not None)
        return float(total)

    def strand(self, layer: int, stage: int, start: int, length: int) -> int:
        """Tokens `start` to `length` - 1, from a stage of a block on; in the last block all but keys is for one token."""
        from hooklab.compiler.packing.entries import END, START

        tokens, last = length - start, self.facts.n_layers - 1
        top = tokens * self.kv + self.q + self.o + self.mlp + length * self.key
        if stage == START:
            first = top if layer == last else self.block(start, length)
        else:
            first = 0 if stage == END else (1 if layer == last else tokens) * (self.o + self.mlp)
        if layer == last:
            return first
        return first + (last - layer - 1) * self.block(start, length) + top

    def block(self, start: int, length: int) -> int:
        """A block for these tokens, each looking at those up to itself."""
        keys = (length * (length + 1) - start * (start + 1)) // 2
        return (length - start) * (self.q + self.kv + self.o + self.mlp) + keys * self.key


def product() -> Callable[[], Any]:
    """A large matrix product, [2048 × 768] · [768 × 3072]: how fast this machine can multiply."""
    import torch

    left, right = torch.randn(2048, 768), torch.randn(768, 3072)
    return lambda: left @ right


PRODUCT = 2048 * 768 * 3072


# Measuring -----------------------------------------------------------------------------------------------------------


def cpu(run: Callable[[], Any]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    run()
    return time.process_time() - start


def peak(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Megabytes that a run needs at its peak over what is there before it, its CPU seconds, and what it gives (Linux)."""
    made: list[Any] = []
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the process still holds would hide what the run takes
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    seconds = cpu(lambda: made.append(run()))
    return status("VmHWM") - before, seconds, made[0]


def measured(contest: Contest, rounds: int | None) -> dict[str, Any]:
    """Everything about a case: memory and numbers of a first run of both, and the time of further ones.

    Where the first run is long, what it sets up is nothing beside it: then its time counts, and there is no other.
    """
    multiply = product()
    speed = min(cpu(multiply) for _ in range(4))
    mine, ours, scores = peak(contest.ours)
    kept, _, _ = peak(contest.prepare)
    lens, theirs, sample = peak(contest.theirs)
    off, effect = contest.compared(scores, sample)
    if rounds is None:
        rounds = 5 if ours + theirs < 1.5 else 3 if ours + theirs < LONG else 0
    turns = [(speed, ours, theirs)] if not rounds else [
        (min(cpu(multiply) for _ in range(3)), cpu(contest.ours), cpu(contest.theirs)) for _ in range(rounds)]
    scale = contest.cells / len(sample)
    factors = [scale * theirs / ours for _, ours, theirs in turns]
    floor = Counter(contest.model).plan(contest.model.plan(contest.text, values=contest.values)) / PRODUCT
    distances = [ours / (floor * speed) for speed, ours, _ in turns]
    return {"cells": contest.cells, "timed": len(sample), "factor": statistics.median(factors), "rounds": len(turns),
            "from": min(factors), "to": max(factors), "floor": None if contest.by_path else statistics.median(distances),
            "difference": off, "effect": effect, "memory": mine, "lens_memory": kept + lens}


def measure(cases: list[Case], rounds: int | None, quick: bool) -> Iterator[tuple[Case, dict[str, Any]]]:
    """The cases, model by model: no two are in memory at once."""
    import hooklab as hl

    for name, (make, sizes, tiny) in MODELS.items():
        if mine := [case for case in cases if case.model == name]:
            hf = livelier(make(tiny if quick else sizes))
            lens = bridge(copy.deepcopy(hf))  # the bridge changes the configuration that it is given
            model = hl.load(hf)
            Contest(Case(name, "heads", 4), model, lens).ours()  # what a first run sets up is no sweep's cost
            for case in mine:
                yield case, measured(Contest(case, model, lens), rounds)
            del hf, lens, model


# Results -------------------------------------------------------------------------------------------------------------


def line(case: Case, target: float | None, row: dict[str, Any]) -> str:
    """A row of a table."""
    marks = {True: "met", False: "**missed**"}
    floor = row["floor"]
    spread = f"{row['from']:.1f}–{row['to']:.1f}" if row["rounds"] > 1 else "one run"
    cells = [case.model, case.sweep, case.tokens, "half" if case.half else "", case.pairs, row["cells"],
             f"{row['factor']:.1f}", spread, "" if target is None else f"≥ {target:g}",
             "" if target is None else marks[row["factor"] >= target], "" if floor is None else f"{floor:.2f}",
             "" if floor is None else marks[floor <= FLOOR], f"{row['difference']:.0e} of {row['effect']:.1g}",
             f"{row['memory']:.0f}", f"{row['lens_memory']:.0f}"]
    return f"| {' | '.join(map(str, cells))} |"


def report(rows: dict[str, dict[str, Any]]) -> str:
    """All tables, of the cases that have been measured."""
    heads = ("model", "sweep", "tokens", "shared", "pairs", "cells", "times faster", "range", "target", "", "× floor",
             f"≤ {FLOOR}", "largest difference, of effects up to", "peak MB", "TransformerLens")
    lines = ["# Patching sweeps", "", "Generated by `python benchmarks/sweep.py`; do not edit.", "",
             "Times faster than TransformerLens 4.3's bridge: medians of ratios of CPU time, both taking turns in one "
             "process. Ours is from the text of the cell to its scores; TransformerLens' clean cache is made outside its "
             f"time. It is timed on {SAMPLE} evenly spaced cells or so (paths: {SAMPLE // 2}) and that time scaled to all "
             "cells; the numbers of these cells are compared. × floor: our time over that of the counted multiply-adds of "
             "the packed work at the rate of one large matrix product. Peak MB: memory over the loaded models; "
             "TransformerLens' includes its cache.", "",
             *(f"- {where}" for where in dict.fromkeys(row["where"] for row in rows.values())), ""]
    for section, title in SECTIONS.items():
        found = [line(case, target, rows[str(case)]) for name, case, target in CASES
                 if name == section and str(case) in rows]
        if found:
            lines += [f"## {title}", "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *found, ""]
    return "\n".join(lines)


def surroundings(threads: int) -> str:
    """Where this was measured."""
    import torch
    import transformers

    return (f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, torch "
            f"{torch.__version__.split('+')[0]}, transformers {transformers.__version__}, TransformerLens 4.3.0, "
            f"{threads} thread{'s' * (threads > 1)}")


def main() -> None:
    """Measure the chosen sections and write benchmarks/results/sweep.{json,md} after every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"sections to measure, of {', '.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, help="timed runs of each case; by default 5 or 3, and 1 of long ones")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="tiny models, one round, nothing is written")
    args = parser.parse_args()
    wanted = args.only.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    import torch
    from transformer_lens import patching

    torch.set_num_threads(args.threads)
    patching.tqdm = lambda cells, **options: cells  # no progress bars
    kept = RESULTS / "sweep.json"
    rows = json.loads(kept.read_text()) if kept.exists() and not args.quick else {}
    cases = list(dict.fromkeys(case for section, case, _ in CASES if section in wanted))
    where = surroundings(args.threads)
    begun = time.perf_counter()
    with torch.no_grad():
        for number, (case, row) in enumerate(measure(cases, args.rounds or (1 if args.quick else None), args.quick)):
            rows[str(case)] = {**row, "where": where}
            print(f"{number + 1}/{len(cases)} {case}: {row['factor']:.1f} times, {row['rounds']} rounds; "
                  f"{time.perf_counter() - begun:.0f} s so far", file=sys.stderr, flush=True)
            if not args.quick:
                write("sweep.json", json.dumps(rows, indent=1) + "\n")
                write("sweep.md", report(rows))
    print(report(rows))


if __name__ == "__main__":
    main()
