"""What the hook language costs: a compiled cell against the same work written by hand in nnsight, in one process.

    python benchmarks/hook.py [--quick]

The work: run a prompt untouched and with two heads zeroed at the last token, keep a residual stream, take the logit
difference of both. By hand it is one nnsight trace over a batch of two. Milliseconds of CPU time, medians, the
contestants taking turns, one thread. Targets stand beside the measurements; nothing fails here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "benchmarks"))

from capture import SMALL, TINY, gpt2, write  # noqa: E402

A, B = 5, 6
TEXT = """prompt {ids}
metric d = logit_diff({a}, {b})
zero L1H[1,2].z @last
save L2.resid_post @last
"""
TEN_LINES = """prompt clean = "When John and Mary went to the store, John gave a drink to"
prompt corrupt = "When John and Mary went to the store, Mary gave a drink to"
answer " Mary" vs " John"
metric logit_diff
metric p = prob(" Mary")
run patched on corrupt:
    patch each L*.resid_pre @each from clean
    zero L1H[1,2] @last
expect clean.logit_diff > corrupt.logit_diff
show grid
"""


def medians(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each contestant, taking turns."""
    for run in contestants.values():
        for _ in range(3):
            run()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            start = time.process_time()
            run()
            times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def contest(sizes: dict[str, int], tokens: int, repeats: int) -> dict[str, float]:
    """The cell, its plan reused, the work by hand and the bare forward pass, on one model."""
    import nnsight
    import torch

    import hooklab as hl

    hf, untouched = gpt2(sizes), gpt2(sizes)
    ids = torch.randint(2, sizes["vocab_size"] // 2, (1, tokens))
    two = torch.cat([ids, ids])
    model = hl.load(gpt2(sizes))
    traced = nnsight.NNsight(hf)
    blocks = traced.transformer.h
    d_head = sizes["n_embd"] // sizes["n_head"]
    values = {"ids": ids, "a": A, "b": B}
    plan = model.plan(TEXT, values=values)

    def by_hand() -> Any:
        with torch.no_grad(), traced.trace(two):
            z = blocks[1].attn.c_proj.input
            z[1, -1, d_head:3 * d_head] = 0
            stream = blocks[2].output[:, -1].clone().save()
            last = traced.output.logits[:, -1].clone().save()
        return stream, (last[:, A] - last[:, B]).tolist()

    def bare() -> Any:
        with torch.no_grad():
            return untouched(two)

    check(model, plan, by_hand)
    return medians({"bare": bare, "nnsight": by_hand, "cell": lambda: model.run(TEXT, values=values),
                    "plan": lambda: model.run(plan)}, repeats)


def check(model: Any, plan: Any, by_hand: Callable[[], Any]) -> None:
    """The contestants do the same work: two models with the same weights give the same numbers."""
    run = model.run(plan)
    _, both = by_hand()
    ours = [run.metrics["main"]["d"], run.metrics["hooked"]["d"]]
    assert max(abs(a - b) for a, b in zip(ours, both, strict=True)) < 1e-3, (ours, both)
    assert ours[0] != ours[1]


def language(repeats: int) -> dict[str, float]:
    """Reading and compiling a ten-line cell."""
    import hooklab as hl
    from hooklab.spec.parser import parse

    model = hl.load("lab")
    spec = parse(TEN_LINES)
    return medians({"parse": lambda: parse(TEN_LINES), "compile": lambda: model.plan(spec), "print": lambda: str(spec),
                    "json": lambda: hl.Spec.from_json(spec.to_json())}, repeats)


def rows(small: dict[str, float], tiny: dict[str, float],
         text: dict[str, float]) -> list[tuple[str, float, str, bool | None]]:
    """(what, measured in ms, target, met) for every figure."""
    found: list[tuple[str, float, str, bool | None]] = [
        ("ten-line cell: parse and check", text["parse"], "≤ 5", text["parse"] <= 5),
        ("ten-line cell with a sweep of 75: compile", text["compile"], "≤ 5", text["compile"] <= 5),
        ("ten-line cell: print", text["print"], "", None),
        ("ten-line cell: to JSON and back", text["json"], "", None),
    ]
    for name, times in (("tiny model", tiny), ("GPT-2-small size", small)):
        over, fixed = times["cell"] - times["nnsight"], times["nnsight"] - times["bare"]
        reused = times["plan"] - times["nnsight"]
        found += [(f"{name}: bare forward pass of both rows", times["bare"], "", None),
                  (f"{name}: by hand in nnsight", times["nnsight"], "", None),
                  (f"{name}: the cell, text to result", times["cell"], "", None),
                  (f"{name}: the cell, its plan reused", times["plan"], "", None),
                  (f"{name}: the cell over the work by hand", over, "≤ 5", over <= 5),
                  (f"{name}: nnsight's fixed cost (by hand less bare)", fixed, "", None),
                  (f"{name}: a reused plan over the work by hand", reused, "below nnsight's fixed cost", reused < fixed)]
    return found


def main() -> None:
    """Measure everything and write benchmarks/results/hook.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    quick = parser.parse_args().quick
    import nnsight
    import torch
    import transformers

    torch.set_num_threads(1)
    found = rows(contest(SMALL, 16, 10 if quick else 40), contest(TINY, 16, 40 if quick else 200),
                 language(20 if quick else 100))
    where = (f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, torch "
             f"{torch.__version__.split('+')[0]}, transformers {transformers.__version__}, nnsight {nnsight.__version__}; "
             f"one thread, CPU time, medians, in turns")
    marks = {True: "met", False: "**missed**", None: ""}
    lines = ["# The cost of the hook language", "", f"Generated by `python benchmarks/hook.py`; do not edit. {where}.", "",
             "| what | ms | target | |", "|---|---|---|---|",
             *(f"| {what} | {value:.2f} | {target} | {marks[met]} |" for what, value, target, met in found), ""]
    write("hook.md", "\n".join(lines))
    write("hook.json", json.dumps({"where": where, "rows": [dict(zip(("what", "ms", "target", "met"), row, strict=True))
                                                            for row in found]}, indent=1) + "\n")
    print("\n".join(lines[4:]))


if __name__ == "__main__":
    main()
