"""From a data set to activations on the disk: `extract` streams examples through a model, and keeps what is asked for.

    found = extract(model, "prompts.jsonl", "L*.resid_post", "acts", at="last", metadata=["label"])
    found.store["L3.resid_post"]["12"]

In: a model, a source of examples, sites. Out: an `Extraction`: the store, the reducers, the metrics and a report. The work
is done in `job`: reading in `reading`, passes in `passes`, and what becomes of values in
`taking`.

Examples lie in the store in the order of the source. They run in batches of like length; which ones go together follows from
the source and the options alone, so that a run that was killed and resumed gives the same bytes as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import RecordError
from ...model.opened import needs_opened
from ...positions import positions
from ..inputs.batching import MAX_TOKENS
from ..inputs.transforms import checked as checked_transforms
from . import checks
from .about import named
from .asked import Wanted, metrics_of, ram
from .forecast import Forecast
from .job import Extraction, Job, Report, Told
from .passes import lines
from .reading import Skipped, Source, checked
from .state import reduced

if TYPE_CHECKING:
    from ...model.model import Model

__all__ = ["Extraction", "Forecast", "Report", "Skipped", "extract", "reduced"]


def extract(model: Model, source: Any, sites: str | Iterable[str] | None = None, out: str | Path | None = None, *,
            at: Any = None, edits: Mapping[str, Callable[..., Any]] | None = None, spec: Any = None,
            values: Mapping[str, Any] | None = None, template: str | None = None, text: str = "text", id: str | None = None,
            metadata: str | Iterable[str] | None = None, images: str | Iterable[str] | None = None,
            transforms: Any = None, chat: bool = False, limit: int | None = None, truncate: str | None = None,
            batch_tokens: int = MAX_TOKENS, batch_size: int | None = None, dtype: Any = None,
            strongest: Mapping[str, int] | None = None, reduce: Any = None, metrics: Any = None,
            answer: str | Sequence[str] | None = None, keep: bool | None = None, resume: bool = True,
            max_ram: int | str | None = None, shard_bytes: int | None = None, on_error: str = "stop",
            dry_run: bool | str = False, progress: Any = None, engine: str | None = None, workers: int | None = None,
            device: str | None = None, part: int | None = None, timeout: float | None = None) -> Extraction | Forecast:
    """Run examples through a model, and keep sites, what is added up of them, and metrics.

    >>> import hooklab as hl
    >>> found = extract(hl.load("lab"), ["John gave", "Mary and John"], at="last", reduce={"mean": "L1.resid_post"},
    ...                 metrics=["entropy"])
    >>> found.reduced["mean"].count, len(found.metrics["entropy"])
    (2, 2)

    Args:
        model: An opened model.
        source: Examples, or anything that `examples` reads: an iterable without a length, a table, a file, a folder …
        sites: Addresses. None where metrics are all that is wanted, or reducers name their own.
        out: The folder of the store. None keeps nothing on the disk, only what is added up and measured.
        at: Positions that are kept, found in each example for itself; all where it is None.
        edits: Address -> function from the site's tensor to its replacement. A folder that was begun with other code, or
            with functions that read something else, is refused.
        spec: Lines of the hook language that act during the pass, such as `zero L3.attn @last`; where they name other
            prompts, the examples are the prompt `batch`.
        values: What braces in these lines stand for.
        template: Text with columns in braces; this and the following as for `examples`.
        text: The column of the prompt.
        id: The column of the ids.
        metadata: Columns that are stored along, or "all".
        images: Columns of images.
        transforms: Functions of a picture, in the order in which they act, before the processor sees it: each takes a PIL
            picture, or what the one before it gave, and gives a picture or an array. `hl.data.fit_image(512)` is one.
        chat: Make the text the user's turn of a chat.
        limit: How many examples at most.
        truncate: "left" or "right" cuts what is too long on that side; otherwise it fails.
        batch_tokens: The most tokens of a padded batch.
        batch_size: The most examples of a batch.
        dtype: What activations are stored as; None stores them as they come.
        strongest: Pattern -> k, such as {"L*.pattern": 8}: of each query the k largest numbers and their keys are stored in
            place of all; `store.dense` makes the pattern of them again.
        reduce: Name -> a reducer, or the address of a site to be reduced as the name says (`{"mean": "L3.resid_post"}`);
            or a list of reducers and words, a word for all sites. They see the positions of `at`, unless they have their
            own. They are made anew: what a given one holds already does not count.
        metrics: Names of metrics of the hook language, or name -> such a metric or a function of the logits at the last
            position, [example d_vocab] -> [example].
        answer: The column of the right answer, or columns of the right and a wrong one, for metrics that need them: text of
            one token, or ids where the model has no tokenizer.
        keep: Whether activations are stored; by default where `out` is given.
        resume: Go on where an extraction into the same folder ended, if it was begun in the same way. A folder is never
            overwritten.
        max_ram: Bytes, or text such as "2GB", that values may take in memory beside the model and its passes; longer waits
            are then avoided by smaller windows and shards.
        shard_bytes: Values of a shard.
        on_error: "stop", or "skip": leave out examples that cannot be read, are too long, or lack a position or an answer,
            and list them in the report.
        dry_run: Count, say which modules are touched and how attention is computed, and run nothing; "timed" runs one batch
            to tell how long it would take.
        progress: Called with (done, total, what), total 0 where nobody knows it; True shows a line at a terminal.

        engine: "local", "ray" or "rank": several processes share the work, each with the model for itself; see
            `docs/scale.md`. None is this process alone.
        workers: How many, for "local" and "ray". This and the following go with `engine`.
        device: Where each has its model: "cuda:{worker}" with the number of the worker.
        part: Examples of a part, which one worker does at a time; a multiple of 512 gives the bits of a single process.
        timeout: Seconds without a new part after which it is given up.

    Returns:
        An Extraction; a Forecast for a dry run.

    Raises:
        ModelError: the model is not opened.
        PromptError, PositionError: an example cannot be read; it is named. Or an option that says how to read is wrong.
        RecordError: an option is of another kind, options do not go together, the folder was begun otherwise or is being
            written, or the disk is full.
        SiteError: the model lacks a site.
        SpecError: lines or metrics are wrong.
    """
    needs_opened(model)
    checks.sites(sites)
    checks.source(template=template, text=text, id=id, metadata=metadata, images=images, answer=answer, limit=limit)
    checks.acting(edits, spec, values)
    checks.kept(reduce, metrics, out, progress)
    checks.sharing(engine, workers=workers, device=device, part=part, timeout=timeout)
    if on_error not in ("stop", "skip"):
        raise RecordError(f'on_error={on_error!r}: an example that fails makes it "stop", or it "skip"s it')
    if dry_run not in (False, True, "timed"):
        raise RecordError(f'dry_run={dry_run!r}: it is True, False or "timed"')
    asked = metrics_of(metrics)
    columns = (answer,) if isinstance(answer, str) else tuple(answer or ())
    if len(columns) > 2:
        raise RecordError("answer= is the column of the right answer, or two columns: the right and a wrong one")
    if columns and metadata != "all":
        given = (metadata,) if isinstance(metadata, str) else tuple(metadata or ())
        metadata = tuple(dict.fromkeys((*given, *columns)))
    elif metadata is not None and not isinstance(metadata, str):
        metadata = tuple(metadata)
    options = {"template": template, "text": text, "id": id, "metadata": metadata,
               "images": images if images is None or isinstance(images, str) else tuple(images), "chat": chat,
               "limit": limit}
    done = checked_transforms(transforms)

    def made(model: Model) -> Job:
        return Job(model, Source(source, options), out, Wanted(model, sites, reduce, out if keep is None else keep, dtype,
                                                                strongest),
                   lines(spec, asked, len(columns), values), at=None if at is None else positions(at),
                   edits=dict(edits or {}), columns=columns, functions=named(asked), truncate=truncate,
                   batch_tokens=checked("batch_tokens", batch_tokens),
                   batch_size=checked("batch_size", batch_size, none=True),
                   shard_bytes=checked("shard_bytes", shard_bytes, none=True), max_ram=ram(max_ram), skip=on_error == "skip",
                   transforms=done)

    if engine is not None and not dry_run:
        from ..engines.extracting import in_parts

        source = Path(source).expanduser().absolute() if isinstance(source, str | Path) else source
        return in_parts(made, model, engine=engine, workers=workers, device=device, part=part, resume=resume,
                        timeout=timeout, progress=progress)
    job = made(model)
    if dry_run:
        return job.forecast(timed=dry_run == "timed")
    return job.run(resume, Told(progress, job.known.rows))
