"""`hl.evaluate`: how many questions of a task a model answers rightly, as it is and under edits.

    questions ──template or chat──▶ prompts ──batches × cells──▶ replies ──extract, grade──▶ rows ──▶ Evaluation

A reply is written by the model, is the choice that it finds likeliest, or comes from any function of the prompt. Rows go to
a folder batch by batch; a run that was killed goes on after the last of them, with the same table in the end.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import RecordError, did_you_mean
from ...model.unknown import told_once
from ..extraction.functions import text_of
from ..inputs.batching import MAX_TOKENS
from ..inputs.transforms import checked as checked_transforms
from ..inputs.transforms import name_of
from ..tasks.answers import extractor
from ..tasks.graders import GRADERS, grader
from ..tasks.tasks import TASKS, Question, Source, load_task
from . import checks
from .folder import digest
from .grid import gridded
from .identity import identity
from .job import Job, Progress, filled
from .pictures import picture_sums
from .prompts import ChoiceTexts, Template
from .record import Evaluation
from .running import Runner, kept_places

if TYPE_CHECKING:
    from ...model.model import Model


def evaluate(model: Model | None, questions: str | Iterable[Question], path: Source = None, *, prompt: Template = None,
             chat: bool = False, how: str = "generate", edits: str | Sequence[str] = (),
             grid: Mapping[str, Any] | None = None, values: Mapping[str, Any] | None = None, max_new_tokens: int = 32,
             temperature: float = 0.0, top_k: int | None = None, top_p: float | None = None, seed: int = 0,
             stop: str | Sequence[str] = (), choices_as: ChoiceTexts = None, normalise: str | None = None,
             extract: Any = None, grade: Any = None, reply: Callable[[Any], str] | None = None,
             capture: str | Sequence[str] | None = None, capture_at: str = "all", out: str | Path | None = None,
             resume: bool = True, limit: int | None = None, transforms: Any = None,
             batch_size: int | None = None, max_tokens: int = MAX_TOKENS, progress: Progress | None = None,
             **unknown: Any) -> Evaluation:
    """Ask a model questions, and grade what it replies, as it is and in every cell of a grid of edits.

    A reply does not depend on the questions beside it: prompts are padded on the left, and at a temperature above 0 each
    question draws from a seed of its own. Where edits draw (`noise`) or pool over examples, and where tokens are drawn in
    half precision, which rounds otherwise in another batch, questions run one by one.

    Pictures are read once each by the model's processor, whatever the grid, and held until their batches have run: 512
    questions at a time, fewer where their pixels fill 256 MB.

    Args:
        model: An opened model; None where `reply` answers.
        questions: Questions, or the name of a task: `load_task` says which there are.
        path: Where the task's data is.
        prompt: A text with `{prompt}`, `{choices}`, `{image}` (where the question's images stand; otherwise before it) and
            names of metadata in braces, or a function of the question that gives a text or messages; None for the
            question's own prompt. `FINAL_ANSWER` asks for a last line with a tag.
        chat: Put the prompt into the user's turn of the tokenizer's template.
        how: `"generate"` has the model write, `"choices"` compares how likely it finds each choice.
        edits: Lines of the language that act on the model, such as `"zero {heads}"`, and what they declare. With choices of
            several tokens, positions in them are those of prompt and choice together.
        grid: A name in braces of `edits` -> its values (or label -> value): every combination is a cell.
        values: What other names in braces stand for.
        max_new_tokens: Most tokens to write.
        temperature: 0 takes the likeliest token; above 0 draws.
        top_k: Draw among the likeliest k; needs a temperature above 0.
        top_p: Draw among the fewest likeliest tokens that together have this probability; needs a temperature above 0.
        seed: Of draws.
        stop: Text, or texts, at which a reply ends.
        choices_as: What stands for the choices: `"letters"`, `"texts"`, or a function of the question.
        normalise: Divide the log-probability of a choice by its `"tokens"` or its `"characters"`; None compares sums.
        extract: How the answer is found in a reply: a tag such as "FINAL ANSWER:", a compiled pattern, a function; None for
            all of it.
        grade: A name of GRADERS, or a function (answer, question); None for the task's own, or what fits the answer: the
            letter of a choice, or a text.
        reply: Answers in the place of the model: a function from the prompt (text, or messages) to text.
        capture: Sites to keep for every row: `"L*.resid_post"`, `["embed", "L3.z"]`; needs `out`.
        capture_at: Their positions: `"all"`, `"prompt"`, or `"last"`, the last token of the prompt. The last token of a
            reply is read by nobody and has none; of choices the prompt alone is kept.
        out: A folder for rows, and for activations; nothing there is ever written over.
        resume: Go on where a run into this folder ended, if it asked the same. Otherwise a folder that is there is an error.
        limit: How many questions at most.
        transforms: Functions of a picture, in the order in which they act, before the processor sees it; see `extract`.
        batch_size: Most questions of a batch.
        max_tokens: Most tokens of a batch.
        progress: Called with (done, total, what).
        unknown: There are no further options.

    Raises:
        RecordError: there is no such option, one is wrong, questions do not fit how they are asked, or the folder holds
            something else.
        PromptError: a prompt that this model cannot take, by its question.
        SpecError: with what is wrong about the edits.

    Example:
        >>> import hooklab as hl
        >>> rows = [{"prompt": "When Mary and John went to the store, John gave a drink to", "right": " Mary",
        ...          "wrong": " John"}]
        >>> found = evaluate(hl.load("lab"), "pairs", rows, how="choices", edits="zero L0H*")
        >>> [(row.cell, row.answer, row.score) for row in found]
        [(0, ' Mary', 1.0), (1, ' John', 0.0)]
    """
    if unknown:
        name = next(iter(unknown))
        raise RecordError(f"evaluate has no option {name!r}.{did_you_mean(name, inspect.signature(evaluate).parameters)}")
    checks.shapes(model, edits, grid, values, capture, out)
    cells = gridded(edits, grid, values)
    some, own = _questions(questions, path, limit)
    checks.words(how=how, normalise=normalise, capture_at=capture_at)
    checks.numbers(temperature, seed, max_new_tokens=max_new_tokens, limit=limit, batch_size=batch_size,
                   max_tokens=max_tokens)
    checks.together(model, reply, how, cells, extract, capture, out)
    among = checks.among(how, reply, temperature, top_k=top_k, top_p=top_p)
    places = kept_places(model, capture) if model is not None and capture else ()
    stops = checks.stops(stop)
    if how != "choices" or grade is not None:
        checks.answers(some, grade or own)
    same = {"task": questions if isinstance(questions, str) else None,
            "questions": {"count": len(some), "digest": digest([_told(one) for one in some])},
            "prompt": identity(prompt), "chat": chat, "how": "reply" if reply else how,
            "edits": [*cells.declared, *cells.acting], "grid": {name: list(axis) for name, axis in cells.axes.items()},
            "values": digest(identity(cells.values)), "max_new_tokens": max_new_tokens, "temperature": temperature,
            "seed": seed, "stop": list(stops), "choices_as": identity(choices_as), "normalise": normalise,
            "extract": identity(extract), "grade": identity(grade or own), "reply": identity(reply),
            "capture": list(places) or None, "capture_at": capture_at, "model": _fingerprint(model), **among}
    sums = picture_sums(some) if any(one.images for one in some) else []
    if sums:
        same["pictures"] = digest(sums)
    done = checked_transforms(transforms)
    if done:
        same["transforms"] = [f"{name_of(one)} {text_of(one)}" for one in done]
    job = Job(some, cells, extractor(extract), None if how == "choices" and grade is None else grader(grade or own), prompt,
              chat, choices_as, progress, sums, done)
    if reply is not None:
        batches = job.called(reply)
    else:
        assert model is not None
        runner = Runner(model, cells, how, max_new_tokens, temperature, among, seed, stops, normalise, places, capture_at)
        batches = job.run(runner, max_tokens, batch_size)
    with told_once():
        return filled(job, batches, same, _about(model, job), places, out, resume=resume)


# What was asked ------------------------------------------------------------------------------------------------------


def _questions(given: str | Iterable[Question], path: Source, limit: int | None) -> tuple[list[Question], Any]:
    """The questions, and the grader that their task names."""
    if isinstance(given, str):
        some = load_task(given, path, limit=limit)
        checks.questions(some)
        return some, TASKS[given].grader
    if path is not None:
        raise RecordError("a path goes with the name of a task: evaluate(model, \"mmlu\", \"data/mmlu\")")
    if not isinstance(given, Iterable):
        raise RecordError(f"questions are {given!r}; they are a list of hooklab.data.Question: load_task makes them")
    some = list(given)
    if not some:
        raise RecordError("there are no questions")
    checks.questions(some)
    return some[:limit], GRADERS["auto"]


def _told(question: Question) -> dict[str, Any]:
    """A question but for its pictures, which are told apart by what they show."""
    return {one.name: getattr(question, one.name) for one in fields(question) if one.name != "images"}


def _fingerprint(model: Any) -> Any:
    if model is None:
        return None
    from ...runtime.provenance import fingerprint

    return {"family": model.facts.family, "fingerprint": fingerprint(model),
            "dtype": str(model.dtype).removeprefix("torch.")}


def _about(model: Any, job: Job) -> dict[str, Any]:
    from ...runtime.provenance import versions

    name = None if model is None else getattr(model.hf.config, "_name_or_path", "") or type(model.hf).__name__
    return {"rows": len(job.some) * len(job.cells.cells), "model": name, "versions": versions()}
