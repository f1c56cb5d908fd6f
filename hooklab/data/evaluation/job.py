"""An evaluation under way: which questions are still to be asked, how replies become rows, and where rows are kept.

    Job: questions × cells ──run or called──▶ replies, batch by batch ──graded──▶ rows, in a folder or in memory

A batch counts once its rows are on the disk. Activations get there before the rows that name them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import RecordError
from ..inputs.transforms import Transform
from ..tasks.answers import Extractor
from ..tasks.graders import Grade, Grader
from ..tasks.tasks import Question
from .asking import asking
from .folder import STORE, Folder, Row, digest, row_of, told
from .grid import Cell, Grid
from .pictures import transformed, unchanged
from .prompts import Asked, ChoiceTexts, Template, asked, checked, said, with_choices
from .record import Evaluation, loaded
from .running import Replied, Runner
from .windows import windows

if TYPE_CHECKING:
    from ..store.writer import Writer

Progress = Callable[[int, int, str], None]
Batches = Iterator[tuple[list[Asked], list[list[Replied]]]]


@dataclass
class Job:
    """Questions, and how replies to them become rows.

    Attributes:
        some: The questions.
        cells: The cells in which each is asked.
        extract: Finds the answer in a reply.
        grade: How right it is; None where the likeliest choice is compared with the right one.
        prompt, chat, choices_as: How a question is put.
        progress: Told of every batch.
        sums: For each question what its pictures show; empty where there are none.
        transforms: What is done to pictures before the processor sees them.
        done: (question, cell) of the rows that are there.
    """

    some: Sequence[Question]
    cells: Grid
    extract: Extractor
    grade: Grader | None
    prompt: Template
    chat: bool
    choices_as: ChoiceTexts
    progress: Progress | None
    sums: Sequence[Sequence[str]] = ()
    transforms: tuple[Transform, ...] = ()
    done: set[tuple[int, int]] = field(default_factory=set)

    def told(self) -> None:
        """Tell how far it is."""
        if self.progress is not None:
            self.progress(len(self.done), len(self.some) * len(self.cells.cells), "answered")

    def ready(self, numbers: Iterable[int]) -> bool:
        """Whether all cells of some questions are done."""
        return all((number, cell.number) in self.done for number in numbers for cell in self.cells.cells)

    def called(self, reply: Callable[[Any], str]) -> Batches:
        """One question after the other, answered by a function."""
        for number, question in enumerate(self.some):
            if self.ready([number]):
                continue
            if question.images:
                raise RecordError(f"question {question.id!r} has images, and reply= is given the prompt alone")
            what = said(question, self.prompt, chat=self.chat)
            with asking("reply=", question):
                text = reply(what)
            if not isinstance(text, str):
                raise RecordError(f"question {question.id!r}: reply= gave {text!r}; it is to give a text")
            shown = what if isinstance(what, str) else json.dumps(what, ensure_ascii=False)
            yield [Asked(number, question, shown)], [[Replied(text)]]

    def run(self, runner: Runner, max_tokens: int, size: int | None) -> Batches:
        """Batches of questions, answered by a model; a batch with a row missing runs as a whole.

        What can be said against a question without looking at its pictures is said before anything runs. Pictures are then
        read a window at a time.
        """
        if self.ready(range(len(self.some))):
            return
        said_ = [said(question, self.prompt, chat=self.chat) for question in self.some]
        pictured = [number for number, question in enumerate(self.some) if question.images]
        if runner.how == "choices":
            for number in pictured:
                checked(self.some[number], said_[number], self.choices_as)
        plain = [self._asked(runner, number, what) for number, what in enumerate(said_) if not self.some[number].images]
        for some in itertools.chain(windows(pictured, self.ready, lambda n: self._asked(runner, n, said_[n])), [plain]):
            for batch in runner.batches(some, max_tokens, size):
                if not self.ready(one.number for one in batch):
                    yield batch, runner(batch)

    def _asked(self, runner: Runner, number: int, what: Any) -> Asked:
        question = self.some[number]
        shown = transformed(question, what, self.transforms) if question.images else question
        if runner.how == "choices":
            found = with_choices(runner.model, number, shown, what, self.choices_as)
        else:
            found = asked(runner.model, number, shown, what, runner.count)
        if question.images:
            unchanged(question, self.sums[number])
            found = replace(found, question=question)  # graders get the pictures that were given
        if self.cells.from_end and not found.single:
            raise RecordError(f"@{self.cells.from_end} would be counted from the end of each choice: question "
                              f"{question.id!r} has choices of several tokens. Name positions of the prompt: @prompt, "
                              '@"a word", or numbers from 0')
        return found

    def row(self, one: Asked, cell: Cell, found: Replied) -> Row:
        """A reply, graded; where it has activations, with the id that they get."""
        example = one.question.id if len(self.cells.cells) == 1 else f"{cell.number}:{one.question.id}"
        answer = found.answer if found.log_probs else self._extracted(one, found.text)
        with asking("grade=", one.question):
            verdict = _chose(one, found) if self.grade is None else self.grade(answer, one.question)
        right = one.question.answer
        row = Row(one.number, one.question.id, cell.number, dict(cell.labels), one.text, found.text, answer, right,
                  float(verdict.score), verdict.reason, found.stopped, found.log_probs, example if found.values else None,
                  dict(one.question.metadata))
        return row_of(json.loads(told(row)))  # as it comes back from the folder


    def _extracted(self, one: Asked, text: str) -> str | None:
        with asking("extract=", one.question):
            answer = self.extract(text)
        if answer is not None and not isinstance(answer, str):
            raise RecordError(f"question {one.question.id!r}: extract= gave {answer!r}; it is to give a text, or None")
        return answer


def _chose(one: Asked, found: Replied) -> Grade:
    """Whether the likeliest choice is the right one."""
    right = one.names[one.right]
    if found.answer is None:
        return Grade(0.0, "several choices are equally likely")
    return Grade(float(found.answer == right),
                 f"chose {found.answer!r}" if found.answer == right else f"chose {found.answer!r}, not {right!r}")


# Keeping -------------------------------------------------------------------------------------------------------------


def filled(job: Job, batches: Batches, same: dict[str, Any], about: dict[str, Any], places: Sequence[str],
            out: str | Path | None, *, resume: bool) -> Evaluation:
    """Run the batches that are not done, and keep what they give."""
    rows: dict[tuple[int, int], Row] = {}
    with ExitStack() as stack:
        folder = None if out is None else stack.enter_context(Folder(out, same, about, resume=resume))
        if folder is not None:
            rows = folder.rows
            job.done |= rows.keys()
        job.told()
        writer = None
        if folder is not None and places and not (job.ready(range(len(job.some))) and _sealed(folder.path / STORE)):
            writer = stack.enter_context(_writer(folder, places, same))
        for batch, found in batches:
            both = [(job.row(one, cell, reply), reply) for cell, replies in zip(job.cells.cells, found, strict=True)
                    for one, reply in zip(batch, replies, strict=True)]
            new = [row for row, _ in both]
            if writer is not None:
                for row, reply in both:
                    _store(writer, row, reply)
                writer.flush()  # a row never names activations that are not on the disk
            if folder is not None:
                folder.add(new)
            else:
                rows |= {row.key: row for row in new}
            job.done |= {row.key for row in new}
            job.told()
        ordered = [(folder.rows if folder is not None else rows)[key] for key in sorted(job.done)]
    if writer is not None and folder is not None:
        _compacted(folder.path / STORE)
    if folder is not None:
        return loaded(folder.manifest, ordered, folder.path)
    return loaded({"asked": json.loads(json.dumps(same, default=str)), "about": about}, ordered, None)


def _writer(folder: Folder, places: Sequence[str], same: Mapping[str, Any]) -> Writer:
    from ..store.writer import Writer

    return Writer(folder.path / STORE, list(places), model=same["model"], spec="\n".join(same["edits"]),
                  options={"evaluation": digest(same)}, resume=True)


def _store(writer: Writer, row: Row, found: Replied) -> None:
    """Put the activations of a reply into the store."""
    if row.activations is not None and row.activations not in writer:
        about = {"question": row.id, "cell": row.cell, **row.grid, "score": row.score, "answer": row.answer}
        writer.add(row.activations, found.values, list(found.ids), about, found.positions)


def _sealed(path: Path) -> bool:
    """Whether the store is there and was closed."""
    from ..store.store import open_store

    return path.exists() and open_store(path).complete


def _compacted(path: Path) -> None:
    """Shards of single batches made into ones of full size."""
    from ..store.store import open_store

    store = open_store(path)
    if len(store.manifest.shards) > 1:
        store.compact()
