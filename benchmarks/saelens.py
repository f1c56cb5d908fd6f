"""What keeping activations costs, beside SAELens: the same tokens through the same model, one site, on the disk.

    python -m venv saelens && saelens/bin/pip install torch sae-lens
    python benchmarks/saelens.py --peer-python saelens/bin/python [--quick]

SAELens asks for another TransformerLens than the other benchmarks use, so it lives in an environment of its own. Nothing is
downloaded: a GPT-2 with drawn weights, its kind of tokenizer, and a data set of drawn ids are made in a folder. There
SAELens's `CacheActivationsRunner` runs the model as Hugging Face has it (`model_class_name="AutoModelForCausalLM"`, one
block's output), and `hl.extract` keeps `resid_post` of the same layer; both stop behind it, in float32, in batches of the
same size, on one thread, each in a process of its own, in turn. Importing and opening the model are not counted. Both sides'
values are compared before anything is written. Results go to benchmarks/results/saelens.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "saelens.md"
BATCH = 16
SHAPES = {  # layers, d_model, heads, vocabulary, examples, tokens of each
    "4 layers of 256, 512 × 128 tokens": (4, 256, 4, 1000, 512, 128),
    "the shape of GPT-2 small, 64 × 128 tokens": (12, 768, 12, 50257, 64, 128)}
SIDES = {"wall": "time by the clock", "cpu": "time of processors", "bytes": "bytes on the disk",
         "peak": "peak memory of the process", "grown": "memory it took beyond what was there before"}
WHY = {"wall": "s", "cpu": "s", "bytes": "MB", "peak": "MB", "grown": "MB"}


def made(folder: Path, shape: tuple[int, ...]) -> None:
    """A model with its tokenizer, and the tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    layers, d, heads, vocabulary, examples, tokens = shape
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(n_layer=layers, n_embd=d, n_head=heads, vocab_size=vocabulary, bos_token_id=0,
                                           eos_token_id=0))
    model.save_pretrained(folder / "model")
    words = Tokenizer(models.WordLevel({"<s>": 0, **{f"Ġw{i}": i for i in range(1, vocabulary)}}, unk_token="<s>"))
    words.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="<s>").save_pretrained(folder / "model")
    np.save(folder / "tokens.npy", np.random.default_rng(0).integers(1, vocabulary, (examples, tokens)))


# The two sides: each is called with the folder and the layer, and returns what runs and what reads a few values --------


def hooklab(folder: Path, layer: int, out: Path) -> tuple[Any, Any]:
    """A store."""
    import pandas  # noqa: F401  # pyarrow does when it first makes an array

    import hooklab as hl
    import hooklab.data.extraction.extract  # what is imported when it is asked for

    model, tokens = hl.load(folder / "model", verify=False), np.load(folder / "tokens.npy")
    site = f"L{layer}.resid_post"
    return (lambda: hl.extract(model, tokens.tolist(), site, out, batch_size=BATCH),
            lambda found: np.stack([found.store[site][i].numpy() for i in (0, len(tokens) // 2, len(tokens) - 1)]))


def saelens(folder: Path, layer: int, out: Path) -> tuple[Any, Any]:
    """A Hugging Face data set."""
    from datasets import Dataset
    from sae_lens import CacheActivationsRunner, CacheActivationsRunnerConfig

    tokens = np.load(folder / "tokens.npy")
    n, length = tokens.shape
    width = json.loads((folder / "model" / "config.json").read_text())["n_embd"]
    hook = f"transformer.h.{layer}"
    runner = CacheActivationsRunner(CacheActivationsRunnerConfig(
        dataset_path="drawn", model_name=str(folder / "model"), model_class_name="AutoModelForCausalLM", hook_name=hook,
        d_in=width, model_batch_size=BATCH, context_size=length, training_tokens=n * length, shuffle=False,
        dtype="float32", device="cpu", prepend_bos=False, new_cached_activations_path=str(out),
        buffer_size_gb=(n // 4) * length * width * 4 / 1e9),  # four parts: the last one is not kept unless it is full
        override_dataset=Dataset.from_dict({"input_ids": tokens.tolist()}))
    return runner.run, lambda found: found.with_format("numpy")[[0, n // 2, n - 1]][hook]


def child(side: str, folder: Path, layer: int, out: Path) -> None:
    """One run, told as JSON; the values beside it."""
    import torch

    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()):
        run, read = {"hooklab": hooklab, "saelens": saelens}[side](folder, layer, out)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.perf_counter(), time.process_time()
        found = run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        np.save(folder / f"{side}.npy", read(found))
    size = sum(one.stat().st_size for one in out.rglob("*") if one.is_file())
    print(json.dumps({"wall": wall, "cpu": cpu, "bytes": size / 1e6, "peak": peak * 1024 / 1e6,
                      "grown": (peak - before) * 1024 / 1e6, "versions": versions(side)}))


def versions(side: str) -> str:
    """What runs."""
    from importlib.metadata import version

    own = ("sae-lens", "transformer-lens", "datasets") if side == "saelens" else ()
    return ", ".join(f"{name} {version(name)}" for name in (*own, "torch", "transformers"))


def once(python: str, side: str, folder: Path, layer: int) -> dict[str, Any]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
               "WANDB_MODE": "disabled", "TOKENIZERS_PARALLELISM": "false", "HF_HOME": str(folder / "home"),
               **({"PYTHONPATH": str(ROOT)} if side == "hooklab" else {})}
        told = subprocess.run([python, str(Path(__file__).resolve()), "--child", side, str(folder), str(layer),
                               f"{out}/acts"], capture_output=True, text=True, check=False, env=env, cwd=folder)
    if told.returncode:
        raise SystemExit(f"{side} failed:\n{told.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return found


def compared(peer: str, shape: tuple[int, ...], turns: int) -> tuple[dict[str, list[dict[str, Any]]], float]:
    """Runs of both sides, and the largest difference of their values."""
    with tempfile.TemporaryDirectory() as base:
        folder, layer = Path(base), shape[0] // 2
        made(folder, shape)
        runs: dict[str, list[dict[str, Any]]] = {"saelens": [], "hooklab": []}
        for _ in range(turns):
            for side, found in runs.items():
                found.append(once(peer if side == "saelens" else sys.executable, side, folder, layer))
        mine, theirs = (np.load(folder / f"{side}.npy").astype(np.float64) for side in ("hooklab", "saelens"))
    if mine.shape != theirs.shape or not np.allclose(mine, theirs, rtol=1e-4, atol=1e-4 * float(np.abs(mine).max())):
        raise SystemExit("the two sides kept other values: nothing can be compared")
    return runs, float(np.abs(mine - theirs).max() / np.abs(mine).max())


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="the Python of the environment that has sae-lens")
    parser.add_argument("--quick", action="store_true", help="the small shape, once; nothing is written")
    asked = parser.parse_args()
    lines, told, load = [], "", os.getloadavg()[0]
    for name, shape in list(SHAPES.items())[: 1 if asked.quick else None]:
        runs, apart = compared(asked.peer_python, shape, 1 if asked.quick else 3)
        told = runs["saelens"][0]["versions"]
        lines += [f"## {name}", "", "| | SAELens | hooklab | hooklab over SAELens |", "|---|---|---|---|"]
        for key, word in SIDES.items():
            theirs, mine = (statistics.median(one[key] for one in runs[side]) for side in ("saelens", "hooklab"))
            ratio = statistics.median(a[key] / b[key] for a, b in zip(runs["hooklab"], runs["saelens"], strict=True))
            lines.append(f"| {word} | {theirs:.3g} {WHY[key]} | {mine:.3g} {WHY[key]} | {ratio:.2f} |")
        lines += ["", f"Largest difference of the values, relative to the largest value: {apart:.1e}.", ""]
    text = "\n".join(["# Beside SAELens", "", "Generated by `python benchmarks/saelens.py`; do not edit. "
                      f"{told}; medians, one thread; {os.cpu_count()} cores, load of the machine at the start "
                      f"{load:.1f}.", "",
                      "The output of the middle block of all tokens, in float32. hooklab's store has checksums, the tokens, "
                      "and is brought to the disk shard by shard while it is written, which is counted; SAELens leaves that "
                      "to the system. Both stop behind the block.", "", *lines])
    print(text)
    if not asked.quick:
        sys.path.insert(0, str(ROOT))
        from hooklab.files import write_whole

        write_whole(RESULT, (text.rstrip() + "\n").encode(), replace=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
    else:
        main()
