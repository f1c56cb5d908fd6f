"""An extraction in parts: part p is the examples from p·n on, n of them, and each worker has the model for itself.

In: what makes an `Job` of a model. Out: the `Extraction` that one process would have made. Batches do not reach
from one window of the source into the next, and a part is made of whole windows, so that each example runs beside the same
others: on the same kind of device, with the same number of threads, its values have the same bits.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import HooklabWarning, ModelError, PromptError, RecordError
from ...progress import Progress, in_terminal
from ..extraction.about import _differences as differences
from ..extraction.job import Extraction, Job, Report, Told
from ..extraction.reading import Skipped, Source, checked
from ..extraction.state import States, digested, reduced
from ..inputs import loaders
from ..inputs.batching import WINDOW
from ..inputs.rows import Row, rows
from ..store.manifest import told
from ..store.store import Store
from .claims import Shared
from .opening import Opening, opening_of
from .owner import this_process
from .parts import folder_of, store_in_parts

if TYPE_CHECKING:
    from ...model.model import Model

Made = Callable[[Any], Job]
PER_WORKER = 8
"""Parts for each worker, where the number of examples is known: one that dies takes an eighth of its work along."""
MOST = 16 * WINDOW


def in_parts(made: Made, model: Model, *, engine: str, workers: int | None = None, device: str | None = None,
             part: int | None = None, resume: bool = True, timeout: float | None = None, progress: Any = None) -> Extraction:
    """Extract in parts.

    Args:
        made: Makes the job, given a model; travels to the workers.
        model: The caller's, which says what it is to be; only ranks run it.
        engine: "local", "ray" or "rank".
        workers: How many.
        device: Where each has its model, such as "cuda:{worker}".
        part: Examples of a part; a multiple of 512, unless bits do not matter.
        resume: Whether an earlier call of this kind may be continued.
        timeout: Seconds without a new part.
        progress: As of `extract`; what is counted are parts.

    Raises:
        RecordError: the extraction does not fit into parts; and as `store_in_parts`.
        ModelError: workers could not open the same model.
    """
    begun, job = time.perf_counter(), made(model)
    out, n = _out(job, model, resume), checked("part", part, none=True) or _size(job.known.rows, workers or 2)
    settings = {**told(job.about), "part": n}
    do = Part(made, None, n, model) if engine == "rank" else Part(
        made, opening_of(model, device), n, about={key: settings[key] for key in ("model", "tokenizer")})
    shown = Progress(in_terminal) if progress is True else progress
    try:
        store = store_in_parts(do, None, out, engine=engine, workers=workers, settings=settings, timeout=timeout,
                               gpus=0.0 if do.opening is None else do.opening.gpus, progress=shown,
                               finish=lambda parts, merged: _finish(job, parts, merged))
    finally:
        if isinstance(shown, Progress):
            shown.close()
    lines = Shared(folder_of(out), this_process(), settings).journal()
    run, padded, cut, passes = (sum(line.get(name, 0) for line in lines) for name in ("run", "padded", "cut", "passes"))
    skipped = tuple(Skipped(*one) for line in lines for one in line.get("skipped", ()))
    report = Report(len(store), 0, run, padded, cut, passes, skipped, time.perf_counter() - begun)
    return Extraction(store, reduced(store), {name: store.to_numpy(name)["values"].reshape(-1)
                                             for name in job.fate.metrics}, report)


def _out(job: Job, model: Model, resume: bool) -> Path:
    if job.out is None:
        raise RecordError("workers put their parts together on the disk: say where, out=…")
    if model.hooks:
        raise RecordError("hooks that hang on the model do not travel to workers: give edits= or spec= instead")
    if hasattr(job.source.given, "__next__"):
        raise RecordError("what can be read only once cannot be shared among workers: give a list, a data set or a file")
    if loaders.is_loader(job.source.given) and loaders.shuffled(job.source.given):
        raise RecordError("a loader that shuffles gives each worker other examples: give one with shuffle=False, or the "
                          "data set itself")
    if not resume and (job.out.exists() or folder_of(job.out).exists()):
        raise RecordError(f"{job.out} was begun: resume=True continues it, or choose another name")
    return job.out


def _size(count: int | None, workers: int) -> int:
    """Examples of a part, in whole windows.

    >>> _size(None, 2), _size(100, 2), _size(100_000, 4)
    (8192, 512, 3584)
    """
    if count is None:
        return MOST
    return min(MOST, max(1, -(-count // (PER_WORKER * workers * WINDOW))) * WINDOW)


def _finish(job: Job, parts: tuple[Path, ...], merged: Path) -> None:
    """Put together what has been added up, beside the values."""
    digest, count, items = "", 0, job.items()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HooklabWarning)  # the workers said it
        for item in items:
            digest, count = digested(digest, item), count + 1
    if count != (there := len(Store(merged))):
        raise RecordError(f"the source has {count} examples now, and had {there} for the workers: it is not the same each "
                          "time it is read")
    if not count:
        raise PromptError("there are no examples" + (f": {items.skipped[0]}" if items.skipped else ""))
    found = [reduced(path) for path in parts]
    for name, reducer in job.values.reducers.items():
        for one in found:
            reducer.merge(one[name])
    States(merged).write(count, digest, job.values.reducers)


@dataclass
class Part:
    """Makes a part; what `store_in_parts` calls.

    Attributes:
        made: Makes the job of a model.
        opening: How to open the model.
        n: Examples of a part.
        model: The model where it is open already, and nothing travels.
        about: `model` and `tokenizer` as the caller's manifest tells them; device apart, a worker's are the same.
    """

    made: Made
    opening: Opening | None
    n: int
    model: Any = None
    about: dict[str, Any] = field(default_factory=dict)

    def start(self, worker: int) -> None:
        """Open the model."""
        if self.opening is not None:
            self.model = self.opening.open(worker)
        self.job = self.made(self.model)
        mine = told({"model": {**self.job.about["model"], "device": self.about.get("model", {}).get("device")},
                     "tokenizer": self.job.about["tokenizer"]})
        if self.about and (odd := differences(self.about, mine)):
            raise ModelError(f"A worker opened the model otherwise than you did: {'; '.join(odd)}. Open it by its name "
                             "alone, or share the work by rank")
        self.whole, self.at, self.rows = self.job.source, 0, rows(self.job.source.given)
        self.empty = {name: {key: value.clone() for key, value in one._tensors().items()}
                      for name, one in self.job.values.reducers.items()}

    def __call__(self, p: int, folder: Path) -> Any:
        some = self._rows(p * self.n)
        if not some:
            return False
        job, before = self.job, self.job.passes.count
        job.out, job.source = folder, Some(self.whole.given, self.whole.options, tuple(some), p * self.n)
        for name, one in job.values.reducers.items():
            one._restore({key: torch.clone(value) for key, value in self.empty[name].items()})
        try:
            report = job.run(True, Told(None, None)).report
        except PromptError as error:
            if job.skip and next(iter(items := job.items()), None) is None:
                return self._nothing(folder, items.skipped)
            error.add_note(f"Examples {p * self.n} to {p * self.n + len(some) - 1} of the source.")
            raise
        return {"run": report.tokens, "padded": report.padded, "cut": report.cut, "passes": report.passes - before,
                "skipped": [(one.example, one.why) for one in report.skipped]}

    def _nothing(self, folder: Path, skipped: Sequence[Skipped]) -> dict[str, Any]:
        """A part whose examples were all left out: a store in which there are none."""
        with self.job._writer():
            pass
        States(folder).write(0, "", self.job.values.reducers)
        return {"run": 0, "padded": 0, "cut": 0, "passes": 0, "skipped": [(one.example, one.why) for one in skipped]}

    def _rows(self, start: int) -> list[Row]:
        """Rows of the source; read on from where the part before ended, where that lies before."""
        if start < self.at:
            self.at, self.rows = 0, rows(self.whole.given)
        limit = self.whole.options["limit"]
        deque(islice(self.rows, start - self.at), maxlen=0)
        found = list(islice(self.rows, self.n if limit is None else max(0, min(self.n, limit - start))))
        self.at = start + len(found)
        return found


@dataclass(frozen=True)
class Some(Source):
    """Rows of a source, counted as there."""

    some: tuple[Row, ...] = ()
    start: int = 0

    def maker(self) -> tuple[Iterator[Row], Any]:
        """These rows, and what makes an example of each."""
        return iter(self.some), Shifted(Source(self.given, self.options).maker()[1], self.start)


class Shifted:
    """Makes examples of rows that do not begin with the first."""

    def __init__(self, made: Any, start: int) -> None:
        self.made, self.id, self.start = made, made.id, start

    def example(self, row: Row, number: int) -> Any:
        """The example."""
        return self.made.example(row, number + self.start)
