"""What looking costs: capture against the bare forward pass, nnsight and TransformerLens, in one process.

    python benchmarks/capture.py [--quick]

Every number is a median of ratios of CPU time, the contestants taking turns, one thread. Memory is measured in a fresh
process each. Targets stand beside the measurements; nothing fails here. Results go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks" / "results"
SMALL = dict(n_layer=12, n_head=12, n_embd=768, vocab_size=50257, n_positions=1024)
TINY = dict(n_layer=12, n_head=4, n_embd=48, vocab_size=1000, n_positions=64)


def gpt2(sizes: dict[str, int]) -> Any:
    """A random GPT-2 of the given sizes."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).eval()


def bridge(hf: Any) -> Any:
    """TransformerLens' bridge around a copy of a model."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    made = build_bridge_from_module(copy.deepcopy(hf), type(hf).__name__, hf_config=hf.config, model_name="bench")
    return made.eval()


def ratios(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median ratio of each contestant's CPU time to the first one's, taking turns."""
    for run in contestants.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    base = times[next(iter(contestants))]
    return {name: statistics.median(t / b for t, b in zip(found, base, strict=True)) for name, found in times.items()}


def traced(model: Any, ids: Any) -> Callable[[], Any]:
    """A trace whose block reads every layer's resid_post."""

    def run() -> Any:
        with model.trace(ids):
            streams = [layer.resid_post for layer in model.layers]
            streams[-1].save()

    return run


def nnsight_trace(hf: Any, ids: Any) -> Callable[[], Any]:
    """The same with nnsight alone."""
    import nnsight
    import torch

    model = nnsight.NNsight(hf)

    def run() -> Any:
        with torch.no_grad(), model.trace(ids):
            streams = [block.output for block in model.transformer.h]
            streams[-1].save()

    return run


def contest(sizes: dict[str, int], batch: int, pos: int, repeats: int) -> dict[str, float]:
    """All residual streams, and stopping half-way, against everyone."""
    import torch

    from hooklab.model.model import Model

    bare, hf = gpt2(sizes), gpt2(sizes)
    ids = torch.randint(2, 900, (batch, pos), generator=torch.Generator().manual_seed(0))
    model, tl, other = Model(hf), bridge(bare), nnsight_trace(gpt2(sizes), ids)
    hooks = [f"blocks.{i}.hook_out" for i in range(sizes["n_layer"])]
    wanted = set(hooks) | {name.replace("hook_out", "hook_resid_post") for name in hooks}

    @torch.no_grad()
    def plain() -> Any:
        return bare(ids)

    @torch.no_grad()
    def lens() -> Any:
        _, cache = tl.run_with_cache(ids, names_filter=lambda name: name in wanted)
        assert len(cache) >= sizes["n_layer"]

    @torch.no_grad()
    def lens_half() -> Any:
        tl.run_with_cache(ids, names_filter=lambda name: name in wanted, stop_at_layer=6)

    return ratios({
        "bare": plain,
        "capture, 12 streams": lambda: model.capture(ids, "L*.resid_post", full=True),
        "trace, 12 streams": traced(model, ids),
        "nnsight trace, 12 outputs": other,
        "TransformerLens run_with_cache, 12 streams": lens,
        "capture, stopped after layer 6 of 12": lambda: model.capture(ids, "L5.resid_post"),
        "TransformerLens, stopped after layer 6 of 12": lens_half,
    }, repeats)


def patterns(repeats: int) -> dict[str, float]:
    """Patterns at 256 tokens, of one layer and of all, against the fused kernel everywhere."""
    import torch

    from hooklab.model.model import Model

    bare, model = gpt2(SMALL), Model(gpt2(SMALL))
    ids = torch.randint(2, 900, (2, 256), generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def plain() -> Any:
        return bare(ids)

    return ratios({"bare": plain, "pattern of one layer": lambda: model.capture(ids, "L5.pattern", full=True),
                   "patterns of all layers": lambda: model.capture(ids, "L*.pattern", full=True)}, repeats)


def memory(who: str) -> float:
    """Megabytes of peak memory that capturing one site adds over the loaded model (run in a process of its own)."""
    import torch

    torch.set_num_threads(1)
    hf = gpt2(SMALL)
    ids = torch.randint(2, 900, (8, 128), generator=torch.Generator().manual_seed(0))
    if who == "hooklab":
        from hooklab.model.model import Model

        model = Model(hf)
        run = lambda: model.capture(ids, "L11.resid_post", full=True)  # noqa: E731
    else:
        tl = bridge(hf)
        run = lambda: tl.run_with_cache(ids, names_filter=lambda n: n.startswith("blocks.11") and "resid_post" in n)  # noqa: E731
    large, ids = ids, ids[:1, :4]
    with torch.no_grad():
        run()  # what a first run sets up is not what a capture costs
        ids = large
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak that building the model left
        before = status("VmRSS")
        run()
    return status("VmHWM") - before


def status(field: str) -> float:
    """A memory figure of this process in megabytes: `VmRSS` now, `VmHWM` at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def in_process(code: str) -> float:
    """A number printed by a fresh process."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    return float(done.stdout.split()[-1])


def timed(statement: str, repeats: int) -> float:
    """Median CPU seconds of a statement in fresh processes."""
    code = f"import time; s = time.process_time()\n{statement}\nprint(time.process_time() - s)"
    return statistics.median(in_process(code) for _ in range(repeats))


FIRST_TRACE = ("import hooklab as hl; m = hl.load('lab'); "
               "a = m.capture('The capital of France is', 'L0.resid_post')")


def startup(repeats: int) -> dict[str, float]:
    """Seconds of imports and of the first look at the shipped model."""
    return {"import torch": timed("import torch", repeats), "import hooklab": timed("import hooklab", repeats),
            "import transformer_lens": timed("import transformer_lens", max(1, repeats // 2)),
            "first capture on lab, from import to value": timed(FIRST_TRACE, max(1, repeats // 2))}


def rows(small: dict[str, float], tiny: dict[str, float], heat: dict[str, float], mega: dict[str, float],
         start: dict[str, float]) -> list[tuple[str, float, str, bool | None]]:
    """(what, measured, target, met) for every figure."""
    mine, lens = small["capture, 12 streams"], small["TransformerLens run_with_cache, 12 streams"]
    half, fixed = small["capture, stopped after layer 6 of 12"], tiny["capture, 12 streams"]
    made: list[tuple[str, float, str, bool | None]] = [
        ("GPT-2-small size: all 12 residual streams, capture", mine, "≤ 1.10 × bare", mine <= 1.10),
        ("GPT-2-small size: the same in a trace", small["trace, 12 streams"], "", None),
        ("GPT-2-small size: nnsight alone", small["nnsight trace, 12 outputs"], "", None),
        ("GPT-2-small size: TransformerLens run_with_cache", lens, "slower than capture", mine < lens),
        ("GPT-2-small size: stopped after layer 6 of 12", half, "about 0.5 × bare or less", half <= 0.55),
        ("GPT-2-small size: TransformerLens, stopped there", small["TransformerLens, stopped after layer 6 of 12"], "",
         None),
        ("256 tokens: pattern of one layer", heat["pattern of one layer"], "≤ 1.02 × bare",
         heat["pattern of one layer"] <= 1.02),
        ("256 tokens: patterns of all layers", heat["patterns of all layers"], "≤ 1.10 × bare",
         heat["patterns of all layers"] <= 1.10),
        ("tiny model: 12 streams, capture", fixed, "≤ 1.30 × bare", fixed <= 1.30),
        ("tiny model: the same in a trace", tiny["trace, 12 streams"], "", None),
        ("tiny model: nnsight alone", tiny["nnsight trace, 12 outputs"], "", None),
        ("tiny model: TransformerLens", tiny["TransformerLens run_with_cache, 12 streams"], "", None),
        ("peak memory of a one-site capture, MB", mega["hooklab"], "below TransformerLens",
         mega["hooklab"] < mega["TransformerLens"]),
        ("peak memory of TransformerLens' one-site capture, MB", mega["TransformerLens"], "", None),
        ("import hooklab, as a share of import torch", start["import hooklab"] / start["import torch"], "≤ 0.10",
         start["import hooklab"] <= 0.1 * start["import torch"]),
        ("import transformer_lens, s", start["import transformer_lens"], "", None),
        ("first capture on lab, from import to value, s", start["first capture on lab, from import to value"], "", None),
    ]
    return made


def write(name: str, text: str) -> None:
    """Write a result file atomically."""
    RESULTS.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=RESULTS, delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(0o644)
    Path(file.name).replace(RESULTS / name)


def main() -> None:
    """Measure everything and write benchmarks/results/capture.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    quick = parser.parse_args().quick
    import nnsight
    import torch
    import transformers

    torch.set_num_threads(1)
    small, tiny = contest(SMALL, 2, 128, 5 if quick else 15), contest(TINY, 1, 8, 40 if quick else 200)
    heat = patterns(5 if quick else 15)
    mega = {who: in_process(f"import sys; sys.path.insert(0, 'benchmarks'); import capture; print(capture.memory({who!r}))")
            for who in ("hooklab", "TransformerLens")}
    found = rows(small, tiny, heat, mega, startup(2 if quick else 5))
    where = (f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, torch "
             f"{torch.__version__.split('+')[0]}, transformers {transformers.__version__}, nnsight {nnsight.__version__}, "
             f"TransformerLens 4.3.0; one thread, CPU time, medians of ratios taken in turns")
    marks = {True: "met", False: "**missed**", None: ""}
    lines = ["# The cost of looking", "", f"Generated by `python benchmarks/capture.py`; do not edit. {where}.", "",
             "Figures are ratios to the bare forward pass unless they name a unit.", "",
             "| what | measured | target | |", "|---|---|---|---|",
             *(f"| {what} | {value:.3g} | {target} | {marks[met]} |" for what, value, target, met in found), ""]
    write("capture.md", "\n".join(lines))
    write("capture.json", json.dumps({"where": where, "rows": [dict(zip(("what", "measured", "target", "met"), row,
                                                                        strict=True)) for row in found]}, indent=1) + "\n")
    print("\n".join(lines[6:]))


if __name__ == "__main__":
    main()
