"""An extraction at work: windows of examples read, run in batches, and handed on in their order.

In: what was asked for, checked. Out: an `Extraction`, or a `Forecast` of one. `extract` is the door to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...errors import PromptError, RecordError
from ...progress import Progress, in_terminal
from ...sites import SITES
from ..inputs.batching import WINDOW
from ..inputs.transforms import Transform, name_of
from ..reducers.reducing import Reducer
from ..store import manifest as files
from ..store import sparse
from ..store.layout import layouts
from ..store.manifest import Manifest
from ..store.store import Store
from ..store.writer import SHARD_BYTES, Writer
from .about import about, described, known, named, unchanged, valued
from .asked import Wanted
from .forecast import Forecast, forecast, layout_of
from .passes import Lines, Passes, item_cost
from .reading import Chunk, Item, Items, Skipped, Source, chunks, windows
from .state import States, compared, digested
from .taking import GROUP, Fate, Taking, stored
from .touching import touched

if TYPE_CHECKING:
    from ...model.model import Model

HOLD = 512 << 20
"""Bytes of values that are held until the examples before them are done, where no `max_ram` says otherwise."""
COMMIT = 4096
"""Examples after which what is added up is committed, where no activations are stored."""


@dataclass(frozen=True)
class Report:
    """How an extraction went.

    Attributes:
        examples: How many there are in all.
        resumed: How many of them were there before.
        tokens, padded: Tokens that were run, without and with padding.
        cut: How many examples were cut because they are too long, as was asked.
        passes: Forward passes.
        skipped: Examples that failed and were left out.
        seconds: How long it took.
    """

    examples: int
    resumed: int
    tokens: int
    padded: int
    cut: int
    passes: int
    skipped: tuple[Skipped, ...]
    seconds: float

    def __repr__(self) -> str:
        rate = (self.examples - self.resumed) / self.seconds if self.seconds else 0.0
        more = "".join(f" · {n} {word}" for n, word in ((self.resumed, "were there before"), (self.cut, "cut"),
                                                      (len(self.skipped), "left out")) if n)
        lines = [f"{self.examples} examples in {self.passes} passes{more} · {self.tokens} tokens, {self.padded} padded · "
                 f"{rate:.0f} examples/s"]
        return "\n".join([*lines, *(f"  left out: {one}" for one in self.skipped[:10]),
                          *([f"  and {len(self.skipped) - 10} more"] if len(self.skipped) > 10 else [])])

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**self.__dict__, "skipped": [{"example": one.example, "why": one.why} for one in self.skipped]}


@dataclass(frozen=True)
class Extraction:
    """What `extract` gave.

    Attributes:
        store: The store, opened; None where nothing went to the disk.
        reduced: Name -> reducer; `.result()` is what came of it.
        metrics: Name -> a number per example, in the order of the source.
        report: How it went.
    """

    store: Store | None
    reduced: dict[str, Reducer]
    metrics: dict[str, np.ndarray]
    report: Report

    def __repr__(self) -> str:
        parts = [f"Extraction: {self.report!r}"]
        parts += ["  " + line for line in ([] if self.store is None else repr(self.store).splitlines())]
        parts += [f"  {name}: {type(one).__name__} of {one.site}" for name, one in self.reduced.items()]
        parts += [f"  {name}: mean {np.nanmean(some):.4g} over {len(some)} examples" for name, some in self.metrics.items()
                  if len(some) and not np.isnan(some).all()]
        return "\n".join(parts)


class Job:
    """One extraction, its options checked."""

    def __init__(self, model: Model, source: Source, out: Any, values: Wanted, lines_: Lines | None, *, at: Any,
                 edits: dict[str, Any], columns: tuple[str, ...], functions: dict[str, str], truncate: str | None,
                 batch_tokens: int, batch_size: int | None, shard_bytes: int | None, max_ram: int | None,
                 skip: bool, transforms: tuple[Transform, ...] = ()) -> None:
        self.transforms = transforms
        self.model, self.source, self.values, self.at, self.columns, self.skip = model, source, values, at, columns, skip
        self.out = None if out is None else Path(out).expanduser().absolute()
        self.truncate, self.batch_tokens, self.batch_size = truncate, batch_tokens, batch_size
        if truncate not in (None, "left", "right"):
            raise PromptError(f'truncate={truncate!r}: what is too long is cut on the "left" or on the "right", or fails')
        self.whole = values.whole(at)
        self.passes = Passes(model, values.wanted, self.whole, edits, lines_)
        measured = self.passes.metrics
        if not (values.keep or values.reducers or measured):
            raise RecordError("nothing would be kept: give sites and out=, reduce= or metrics=")
        if values.keep and self.out is None:
            raise RecordError("activations are kept in a folder: say where, out=…; or keep=False")
        kept = stored([(str(place), SITES[place.site].axes[1:]) for place in values.sites], measured, values.keep,
                      values.dtype, map(str, values.sparse))
        row = sum(8 for _ in measured) or 4
        self.shard_bytes = shard_bytes or (min(SHARD_BYTES, max(1 << 16, (max_ram or HOLD * 4) // 8)) if values.keep
                                           else COMMIT * row)
        self.hold = HOLD if max_ram is None else max(1, (max_ram - 2 * self.shard_bytes) // 3)
        self.fate = Fate(kept, values.reducers, values.entire, frozenset(map(str, self.whole)) if at is not None
                         else frozenset(), measured, self.shard_bytes, min(GROUP, self.hold),
                         {str(place): k for place, k in values.sparse.items()})
        self.known = known(source.given, source.options["limit"])
        told = {"source": self.known.told, **source.options, "at": None if at is None else str(at), "truncate": truncate,
                "answer": columns, "batch_tokens": batch_tokens, "batch_size": batch_size, "hold": self.hold,
                "edits": named(edits),
                "metrics": functions, "reduce": described(values.reducers), "skip": skip, "keep": values.keep}
        told |= {"strongest": dict(self.fate.strongest)} if values.sparse else {}
        told |= {"values": valued(lines_.given)} if lines_ is not None and lines_.given else {}
        told |= {"transforms": [name_of(one) for one in transforms]} if transforms else {}
        self.about = about(model, "" if lines_ is None else lines_.own, told)

    def items(self) -> Items:
        """The examples, read anew."""
        return Items(self.model, self.source, at=self.at, answer=self.columns, batch_tokens=self.batch_tokens,
                     truncate=self.truncate, skip=self.skip, transforms=self.transforms)

    def windows(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        """Items that are looked at together."""
        cost = item_cost(self.model, self.values.wanted, self.whole, self.values.sizes)
        return windows(items, window=WINDOW, hold=self.hold, cost=cost)

    def chunks(self, window: Sequence[Item]) -> Iterator[Chunk]:
        """A window in batches."""
        apart = self.passes.lines is not None and self.passes.lines.apart
        return chunks(window, batch_tokens=self.batch_tokens, batch_size=1 if apart else self.batch_size)

    # Counting ---------------------------------------------------------------------------------------------------------

    def forecast(self, timed: bool) -> Forecast:
        """What it will take."""
        items = self.items()
        made = (chunk for window in self.windows(items) for chunk in self.chunks(window))
        wanted = {place: layout_of(place, self.values.sizes[place]) for place in self.values.wanted}
        sizes = {str(place): layout.sizes for place, layout in wanted.items()}
        for place, k in self.values.sparse.items():
            sizes |= dict.fromkeys(sparse.names(str(place)), (None, self.values.sizes[place][0], k))
        kept = {site: replace(layout, sizes=sizes.get(site, ())) for site, layout in self.fate.stored.items()}
        return forecast(made, items.skipped, wanted=wanted, whole=self.whole, stored=kept, reducers=self.values.reducers,
                        item=next(self.model.hf.parameters()).dtype, dtype=self.values.dtype, shard_bytes=self.shard_bytes,
                        about=self.about, on_disk=self.out is not None, timed=self.passes if timed else None,
                        touched=lambda chunk: touched(self.model, self.passes, chunk))

    # Running ----------------------------------------------------------------------------------------------------------

    def run(self, resume: bool, told: Told) -> Extraction:
        """Do it."""
        start = time.perf_counter()
        if self.out is not None:
            if files.there(self.out) and not resume:
                raise RecordError(f"{self.out} exists: resume=True continues it, or choose another name")
            unchanged(self.out, Manifest(layouts(self.fate.stored), files.told(self.about), self.shard_bytes))
        items = self.items()
        made = self.windows(items)
        first = next(made, None)
        if first is None:
            raise PromptError("there are no examples" + (f": {items.skipped[0]}" if items.skipped else ""))
        if self.passes.lines is not None:  # what is wrong with the lines is known before a folder is made
            self.passes.compiled(next(self.chunks(first)))
        try:
            with self._writer() as writer:
                taking, count = self._stream(writer, chain([first], made), told)
        finally:
            told.close()
        store = None if self.out is None else Store(self.out)
        report = Report(taking.done, count.resumed, count.tokens, count.padded, count.cut, self.passes.count,
                        tuple(items.skipped), time.perf_counter() - start)
        return Extraction(store, dict(self.values.reducers), self._measured(store, taking), report)

    def _writer(self) -> Any:
        if self.out is None:
            return nullcontext()
        return Writer(self.out, self.fate.stored, model=self.about["model"], tokenizer=self.about["tokenizer"],
                      spec=self.about["spec"], options=self.about["options"], shard_bytes=self.shard_bytes, resume=True)

    def _stream(self, writer: Writer | None, made: Iterable[list[Item]], told: Told) -> tuple[Taking, Count]:
        states = None if writer is None else States(writer.path)
        before = 0 if writer is None else len(writer)
        digest, due = "", 0
        expected = states.read(before, self.values.reducers) if states is not None and before else ""
        earlier = Store(writer.path) if writer is not None and before else None
        taking, count = Taking(self.fate, writer, states, before), Count(before)
        for window in made:
            digests = {}
            for item in window:
                digest = digests[item.number] = digested(digest, item)
                if item.number < before and earlier is not None:
                    compared(earlier, item)
                    due = item.number + 1
                    if due == before and digest != expected:
                        raise RecordError(f"the source is not the one that {self.out} was begun with: images of its first "
                                          f"{before} examples differ")
                elif writer is not None and item.example.id in writer:
                    raise RecordError(f"{self.out} has an example {item.example.id!r} already, elsewhere")
            self._window(window, digests, taking, count, told)
        if due < before:
            raise RecordError(f"the source has {due} examples, and {self.out} was begun with one that has {before} or more")
        taking.finish()
        return taking, count

    def _window(self, window: list[Item], digests: Mapping[int, str], taking: Taking, count: Count, told: Told) -> None:
        """Run a window, and hand its examples on in the order of the source."""
        waiting: dict[int, tuple[Item, dict[str, Tensor], dict[str, float]]] = {}
        for chunk in self.chunks(window):
            if all(item.number < count.resumed for item in chunk.items):
                continue
            count.see(chunk)
            for item, (values, metrics) in zip(chunk.items, self.passes(chunk), strict=True):
                if item.number >= count.resumed:
                    waiting[item.number] = item, values, metrics
            while taking.done in waiting:
                item, values, metrics = waiting.pop(taking.done)
                taking.take(item, values, metrics, digests[item.number])
            told(taking.done + len(waiting), taking.done + len(waiting) - count.resumed)

    def _measured(self, store: Store | None, taking: Taking) -> dict[str, np.ndarray]:
        if store is None:
            return {name: np.array(some) for name, some in taking.metrics.items()}
        return {name: store.to_numpy(name)["values"].reshape(-1) for name in self.fate.metrics}


class Count:
    """What was run."""

    def __init__(self, resumed: int) -> None:
        self.resumed, self.tokens, self.padded, self.cut = resumed, 0, 0, 0

    def see(self, chunk: Chunk) -> None:
        """One more pass."""
        self.tokens += sum(chunk.tokens.lengths)
        self.padded += chunk.padded
        self.cut += sum(item.cut > 0 for item in chunk.items)


class Told:
    """Tells how many examples are done, how fast it goes, and, where the number of all is known, how long it will last."""

    def __init__(self, progress: Any, total: int | None) -> None:
        self.shown = Progress(in_terminal) if progress is True else None
        self.progress = self.shown or progress or None
        self.total, self.start = total or 0, time.monotonic()

    def __call__(self, done: int, new: int) -> None:
        if self.progress is None:
            return
        rate = new / max(time.monotonic() - self.start, 1e-9)
        total = max(self.total, done) if self.total else 0
        what = f"{done} examples · {rate:.0f}/s"
        if self.shown is not None and not total:
            self.shown.show(what, done, 0)
            self.shown.total = done
        else:
            self.progress(done, total, what)

    def close(self) -> None:
        """Take the line away."""
        if self.shown is not None:
            self.shown.close()
