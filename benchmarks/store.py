"""What a store of activations costs: writing and random reading, beside a plain file and other formats, in one process.

    pip install isal h5py zarr datasets     # what is not there is left out
    python benchmarks/store.py [--quick]

The same float16 activations (128 tokens × 1024 per example) go to everyone, who brings them to the disk. Every number is a
median of ratios to the plain file (writing: one file and one fsync; reading: a numpy memmap), the contestants taking turns,
one thread of torch. Reading draws batches of 1024 tokens from all examples; files are in the memory of the system by then.
What SAELens keeps activations in, a Hugging Face Dataset with an Array2D column, is one of them; SAELens itself runs in an
environment of its own: benchmarks/saelens.py. Nothing fails here. Results go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks" / "results"
TOKENS, D, CHUNK, BATCH = 128, 1024, 64, 1024
SITE = "L0.resid_post"
Write = Callable[[Path, list[torch.Tensor]], None]
Read = Callable[[Path], Callable[[np.ndarray], Any]]


def synced(path: Path) -> None:
    """Wait until every file beneath is on the disk."""
    for one in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        with one.open("rb") as file:
            os.fsync(file.fileno())


def chunks(data: list[torch.Tensor]) -> list[np.ndarray]:
    """[token, d_model] of several examples at a time."""
    return [torch.cat(data[i : i + CHUNK]).numpy() for i in range(0, len(data), CHUNK)]


def write_plain(path: Path, data: list[torch.Tensor]) -> None:
    """One file, one fsync."""
    with path.open("wb", buffering=0) as file:
        for one in data:
            view = memoryview(one.numpy().reshape(-1).view(np.uint8))
            while view:
                view = view[file.write(view):]
        os.fsync(file.fileno())


def read_plain(path: Path) -> Callable[[np.ndarray], Any]:
    """A numpy memmap."""
    mapped = np.memmap(path, np.float16, "r").reshape(-1, D)
    return lambda rows: torch.from_numpy(mapped[rows])


def write_store(path: Path, data: list[torch.Tensor]) -> None:
    """A store, example by example, with tokens and metadata; values are written from where they are, as by the others."""
    from hooklab.data import Writer

    tokens = list(range(TOKENS))
    with Writer(path, [SITE]) as writer:
        for i, one in enumerate(data):
            writer.add(i, {SITE: one}, tokens=tokens, metadata={"n": i}, copy=False)


def read_store(path: Path) -> Callable[[np.ndarray], Any]:
    """Batches in an order of their own."""
    from hooklab.data import open_store

    batches = open_store(path).batches(SITE, BATCH)(0)
    return lambda rows: next(batches)


def write_torch(path: Path, data: list[torch.Tensor]) -> None:
    """torch.save, a file per chunk."""
    path.mkdir()
    for i, one in enumerate(chunks(data)):
        torch.save(torch.from_numpy(one), path / f"{i:05d}.pt")
    synced(path)


def read_torch(path: Path) -> Callable[[np.ndarray], Any]:
    """torch.load of mapped files, opened once."""
    files = [torch.load(one, mmap=True) for one in sorted(path.iterdir())]
    size = len(files[0])
    return lambda rows: torch.cat([one[torch.from_numpy(rows[rows // size == i] % size)] for i, one in enumerate(files)])


def write_h5(path: Path, data: list[torch.Tensor]) -> None:
    """h5py, a data set that grows."""
    import h5py

    with h5py.File(path, "w") as file:
        made = file.create_dataset("x", (0, D), "f2", maxshape=(None, D), chunks=(256, D))
        for one in chunks(data):
            made.resize(len(made) + len(one), 0)
            made[-len(one):] = one
    synced(path)


def read_h5(path: Path) -> Callable[[np.ndarray], Any]:
    """Rows in order, each once, as h5py asks."""
    import h5py

    made = h5py.File(path)["x"]
    return lambda rows: torch.from_numpy(made[np.unique(rows)])


def write_zarr(path: Path, data: list[torch.Tensor]) -> None:
    """zarr, not compressed."""
    import zarr

    n = len(data) * TOKENS
    made = zarr.create_array(str(path), shape=(n, D), chunks=(256, D), dtype="f2", compressors=None)
    at = 0
    for one in chunks(data):
        made[at : at + len(one)] = one
        at += len(one)
    synced(path)


def read_zarr(path: Path) -> Callable[[np.ndarray], Any]:
    """Orthogonal selection."""
    import zarr

    made = zarr.open_array(str(path), mode="r")
    return lambda rows: torch.from_numpy(made.oindex[rows])


def write_parquet(path: Path, data: list[torch.Tensor]) -> None:
    """A row per token, plain, as bytes are no numbers: fixed-size lists of halves."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.float16(), D)
    with pq.ParquetWriter(path, pa.schema([("x", kind)]), compression="none", use_dictionary=False) as file:
        for one in chunks(data):
            file.write_table(pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(one.reshape(-1)), type=kind)}))
    synced(path)


def read_parquet(path: Path) -> Callable[[np.ndarray], Any]:
    """The row groups that have a row of the batch."""
    import pyarrow.parquet as pq

    file, size = pq.ParquetFile(path, memory_map=True), CHUNK * TOKENS

    def read(rows: np.ndarray) -> Any:
        found = []
        for group in np.unique(rows // size):
            column = file.read_row_group(int(group)).column("x").combine_chunks()
            found.append(column.flatten().to_numpy().reshape(-1, D)[rows[rows // size == group] % size])
        return torch.from_numpy(np.concatenate(found))

    return read


def write_datasets(path: Path, data: list[torch.Tensor]) -> None:
    """A Hugging Face Dataset with an Array2D column, a row per example."""
    import datasets

    features = datasets.Features({"x": datasets.Array2D((TOKENS, D), "float16")})
    path.mkdir()
    with datasets.arrow_writer.ArrowWriter(path=str(path / "data.arrow"), features=features) as file:
        for i in range(0, len(data), CHUNK):
            file.write_batch({"x": torch.stack(data[i : i + CHUNK]).numpy()})
        file.finalize()
    synced(path)


def read_datasets(path: Path) -> Callable[[np.ndarray], Any]:
    """The examples that have a token of the batch."""
    import datasets

    made = datasets.Dataset.from_file(str(path / "data.arrow")).with_format("numpy")

    def read(rows: np.ndarray) -> Any:
        found = [made[int(example)]["x"][rows[rows // TOKENS == example] % TOKENS] for example in np.unique(rows // TOKENS)]
        return torch.from_numpy(np.concatenate(found))

    return read


FORMATS: dict[str, tuple[str, Write, Read]] = {
    "plain file, numpy memmap": ("numpy", write_plain, read_plain), "hooklab store": ("pyarrow", write_store, read_store),
    "torch.save shards": ("torch", write_torch, read_torch), "HDF5 (h5py)": ("h5py", write_h5, read_h5),
    "zarr, no compression": ("zarr", write_zarr, read_zarr),
    "Parquet, no compression": ("pyarrow", write_parquet, read_parquet),
    "Dataset with Array2D (as SAELens caches)": ("datasets", write_datasets, read_datasets)}


def took(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the clock, seconds of processors."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def turns(contestants: dict[str, Callable[[], tuple[float, float]]], repeats: int) -> dict[str, list[float]]:
    """Median ratio of (clock, processor) time to the first contestant's, taking turns after one unmeasured round."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, run in contestants.items():
            found = run()
            if turn:
                times[name].append(found)
    base = times[next(iter(contestants))]
    return {name: [statistics.median(one[i] / other[i] for one, other in zip(found, base, strict=True)) for i in (0, 1)]
            for name, found in times.items()}


def writing(folder: Path, names: list[str], megabytes: int, repeats: int) -> dict[str, list[float]]:
    """Ratios of writing so many megabytes."""
    drawn = torch.Generator().manual_seed(0)
    some = [torch.randn(TOKENS, D, generator=drawn).half() for _ in range(256)]
    data = [some[i % len(some)] for i in range(megabytes * (1 << 20) // (TOKENS * D * 2))]

    def once(name: str) -> tuple[float, float]:
        path = folder / "out"
        found = took(lambda: FORMATS[name][1](path, data))
        path.unlink() if path.is_file() else shutil.rmtree(path)
        return found

    return turns({name: lambda name=name: once(name) for name in names}, repeats)  # type: ignore[misc]


def reading(folder: Path, names: list[str], megabytes: int, repeats: int) -> dict[str, list[float]]:
    """Ratios of reading one batch of random tokens."""
    data = [torch.randn(TOKENS, D).half() for _ in range(megabytes * (1 << 20) // (TOKENS * D * 2))]
    drawn = np.random.default_rng(0)
    readers = {}
    for number, name in enumerate(names):
        FORMATS[name][1](folder / str(number), data)
        readers[name] = FORMATS[name][2](folder / str(number))

    def once(name: str) -> tuple[float, float]:
        rows = drawn.integers(0, len(data) * TOKENS, BATCH)
        return took(lambda: readers[name](rows))

    return turns({name: lambda name=name: once(name) for name in names}, repeats)  # type: ignore[misc]


def times(ratio: float) -> str:
    """A ratio with two digits."""
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"


def report(found: dict[str, Any]) -> str:
    """The tables."""
    best = 1 / found["long"]["hooklab store"][0]
    lines = ["# Stores", "", f"Generated by `python benchmarks/store.py`; do not edit. {found['where']}.", "",
             "Ratios to a plain file: below, one sequential write with one fsync, and a numpy memmap.", "",
             "| format | writing, clock | writing, processor | a batch of random tokens, processor |", "|---|---|---|---|"]
    lines += [f"| {name} | {times(found['write'][name][0])} | {times(found['write'][name][1])} | "
              f"{times(found['read'][name][1])} |" for name in found["write"]]
    return "\n".join([*lines, "", f"Speed of writing {found['megabytes']} MB by the clock, store against plain file: "
                      f"{best:.2f} of it (target ≥ 0.8: {'met' if best >= 0.8 else '**missed**'}); processor time "
                      f"{found['long']['hooklab store'][1]:.2f} times.", ""])


def write(name: str, text: str) -> None:
    """Write a result file atomically."""
    RESULTS.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=RESULTS, delete=False) as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(RESULTS / name)


def machine() -> str:
    """Where it was measured, and with what."""
    told = []
    for name in ("torch", "pyarrow", "isal", "h5py", "zarr", "datasets"):
        try:
            told.append(f"{name} {version(name).split('+')[0]}")
        except PackageNotFoundError:
            told.append(f"without {name}")
    return (f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {', '.join(told)}; load of "
            f"the machine at the start {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Measure, and write benchmarks/results/store.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer turns; nothing is written")
    parser.add_argument("--megabytes", type=int, default=512, help="of the long write (default: 512)")
    parser.add_argument("--folder", help="where to write, on the disk that is meant (default: that of the system)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name, (needs, *_) in FORMATS.items() if importlib.util.find_spec(needs)]
    found: dict[str, Any] = {"where": machine(), "megabytes": args.megabytes}
    for what, run, some, size, repeats in (
            ("long", writing, names[:2], args.megabytes, 3 if args.quick else 9),
            ("write", writing, names, 64, 1 if args.quick else 5), ("read", reading, names, 64, 3 if args.quick else 15)):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            found[what] = run(Path(folder), some, size, repeats)
        print(what, found[what], file=sys.stderr, flush=True)
    if not args.quick:
        write("store.json", json.dumps(found, indent=1) + "\n")
        write("store.md", report(found))
    print(report(found))


if __name__ == "__main__":
    main()
