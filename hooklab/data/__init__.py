"""Activations of many examples: a store on the disk, how it is filled, and how it is read.

    with Writer("acts", ["L3.resid_post"], dtype="bfloat16", resume=True) as writer:
        writer.add("first", {"L3.resid_post": stream}, tokens=ids)
    store = open_store("acts")
    store["L3.resid_post"]["first"]

A store is a folder: `manifest.json` (version of the format, sites, axes and types, what the values came from, checksums),
`shards/NNNNNN.safetensors` (values, ragged, one example behind the other) and `index/NNNNNN.parquet` (a row per example: id,
tokens, metadata); while it is being written also `journal.jsonl`, with a line for every shard that is committed.

Names are loaded on first use: the tasks, graders and labels that stand beside the store need none of what it needs.
"""

from __future__ import annotations

from ..lazy import lazily

_HOME = {
    "Batch": "inputs.batching",
    "Batches": "store.batches",
    "Covariance": "reducers.reducers",
    "Damage": "store.keeping",
    "DryRun": "inputs.dry_run",
    "Estimate": "store.estimates",
    "Evaluation": "evaluation.record",
    "Example": "inputs.sources",
    "Extent": "reducers.counts",
    "Grade": "tasks.graders",
    "Histogram": "reducers.counts",
    "LabelGraph": "labels.labels",
    "Layout": "store.layout",
    "MaxK": "reducers.peaks",
    "Mean": "reducers.reducers",
    "MeanPattern": "reducers.aligned",
    "Numbers": "store.show",
    "Opening": "engines.opening",
    "Question": "tasks.tasks",
    "Stats": "store.store",
    "Store": "store.store",
    "StoredRuns": "stored_runs",
    "Values": "store.values",
    "Variance": "reducers.reducers",
    "VariancePattern": "reducers.aligned",
    "Writer": "store.writer",
    "balanced_sample": "labels.sampling",
    "batches": "inputs.batching",
    "compare_stores": "store.compare",
    "counterfactual_pairs": "labels.sampling",
    "estimate": "store.estimates",
    "examples": "inputs.sources",
    "fit_image": "inputs.transforms",
    "folder_name": "store.keeping",
    "from_state": "reducers.reducers",
    "grader": "tasks.graders",
    "import_captures": "store.captures",
    "in_order": "inputs.batching",
    "load_labels": "labels.labels",
    "load_task": "tasks.tasks",
    "merge": "store.keeping",
    "merged": "reducers.reducers",
    "open_store": "store.store",
    "opening_of": "engines.opening",
    "potemkin_rate": "tasks.graders",
    "read_capture": "store.captures",
    "restore": "store.keeping",
    "run_parts": "engines.parts",
    "runs": "stored_runs",
    "store_in_parts": "engines.parts",
    "task": "tasks.tasks",
    "trashed": "store.keeping",
    "vqa_accuracy": "tasks.vqa",
    "wordnet_labels": "labels.wordnet",
}

__all__ = [*_HOME]
__getattr__, __dir__ = lazily(__name__, _HOME)
