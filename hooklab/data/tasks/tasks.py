"""Tasks: benchmarks as lists of questions, from files of yours, the hub, or rows in memory. Nothing here runs a model.

    questions = load_task("mmlu", "data/mmlu", subject="anatomy", seed=0, limit=50)
    questions[0].prompt, questions[0].answer
    grader(TASKS["mmlu"].grader)("(B)", questions[0])          # graders.py; answers.py finds the answer in a reply

In: a name of TASKS and where its data is. Out: `Question`s, in the order of the data, or shuffled by a seed. A task of yours
is a function with `@task("name")` above it.
"""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from ...errors import RecordError, did_you_mean
from . import values as value
from .pictures import IMAGE, images_of, placed
from .rows import HUB, Row, converted, csv_rows, example_rows, files, given_rows, hub_rows, jsonl_rows

Source = str | Path | Iterable[Mapping[str, Any]] | None
"""A file or folder, `hub:owner/name`, or rows: dictionaries in a list, generator, data set. None where a task needs none."""


@dataclass(frozen=True)
class Question:
    """One item of a task.

    Attributes:
        id: Unique in its task, and the same whichever seed and limit it was loaded with.
        prompt: What the model is asked; choices that have letters are part of it, a line each.
        choices: Texts of the choices; empty where the answer is free.
        answer: What a right reply comes down to: the letter of a choice that has one, else a text; several texts where
            people gave several.
        metadata: Where it comes from, and further columns.
        images: Pictures, names of files, or encoded ones (`{"bytes": …}`), in the order in which the prompt has the
            character U+FFFC for them; before a prompt without it.
    """

    id: str
    prompt: str
    choices: tuple[str, ...] = ()
    answer: str | tuple[str, ...] = ""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    images: tuple[Any, ...] = field(default=(), hash=False)

    @property
    def references(self) -> tuple[str, ...]:
        """The answer as a tuple, whether there is one or several."""
        return (self.answer,) if isinstance(self.answer, str) else self.answer

    @property
    def lettered(self) -> bool:
        """Whether the answer is the letter of a choice.

        Where it is the text of a choice too (the choices of "Which vitamin …?" are A, B, C, D), the prompt decides: it has a
        line for every choice that has a letter.

        >>> [Question("q", prompt, ("B", "A"), "A").lettered for prompt in ("Which one?\\nA. B\\nB. A", "Which one?")]
        [True, False]
        """
        letters = ascii_uppercase[:len(self.choices)]
        if not isinstance(self.answer, str) or len(self.answer) != 1 or self.answer not in letters:
            return False
        if self.answer not in self.choices or value.lines(self.choices) in self.prompt:
            return True
        lines = {line.strip() for line in self.prompt.splitlines()}
        return all(f"({one}) {text}".strip() in lines for one, text in zip(letters, self.choices, strict=True))


Load = Callable[..., Iterable[Question]]


@dataclass(frozen=True)
class Task:
    """A row of TASKS.

    Attributes:
        name: What it is loaded by.
        load: (source, split=, subject=, and options of its own) -> Questions.
        grader: The name of the grader that fits, or a function.
        about: What its data looks like, in a line.
    """

    name: str
    load: Load
    grader: str | Callable[..., Any]
    about: str


TASKS: dict[str, Task] = {}


def task(name: str, *, grader: str | Callable[..., Any] = "auto") -> Callable[[Load], Load]:
    """Put a function into TASKS: it takes a source, `split=`, `subject=` and options, and gives Questions.

    Raises:
        RecordError: the name is taken by another function.

    >>> @task("sums", grader="exact")
    ... def sums(source, *, split=None, subject=None, up_to=3):
    ...     "Sums of two numbers; the source is not used."
    ...     return [Question(f"{a}+{b}", f"{a} + {b} =", answer=str(a + b)) for a in range(up_to) for b in range(up_to)]
    >>> [q.prompt for q in load_task("sums", up_to=9, seed=1, limit=2)], TASKS.pop("sums").grader
    (['7 + 4 =', '0 + 4 ='], 'exact')
    """
    def register(load: Load) -> Load:
        taken = TASKS.get(name)
        if taken and (taken.load.__module__, taken.load.__qualname__) != (load.__module__, load.__qualname__):
            raise RecordError(f"there is a task {name!r} already")
        TASKS[name] = Task(name, load, grader, (load.__doc__ or "").strip().split("\n")[0])
        return load
    return register


def load_task(name: str, path: Source = None, *, split: str | None = None, subject: str | None = None,
              seed: int | None = None, limit: int | None = None, **options: Any) -> list[Question]:
    """The questions of a task.

    Args:
        name: A name of TASKS: `mmlu`, `bbh`, `jsonl`, `pairs`, or one of yours.
        path: A file or folder; `hub:owner/name`; or rows in memory.
        split: Which part of the data; tasks whose files have none pass over it.
        subject: Which subject of it; all by default.
        seed: Shuffles; None keeps the order of the data. The same seed gives the same order.
        limit: How many questions at most, after shuffling.
        **options: What the task itself takes.

    Raises:
        RecordError: there is no such task or data, or rows are malformed; the error names file and line.
    """
    if name not in TASKS:
        raise RecordError(f"there is no task {name!r}.{did_you_mean(name, TASKS)} Tasks: {', '.join(TASKS)}")
    if limit is not None and (isinstance(limit, bool) or not hasattr(limit, "__index__") or limit < 0):
        raise RecordError(f"a limit is a whole number from 0: limit={limit!r}")
    if seed is not None and (isinstance(seed, bool) or not hasattr(seed, "__index__")):
        raise RecordError(f"a seed is a whole number: seed={seed!r}")
    _check_options(name, options)
    questions = list(TASKS[name].load(path, split=split, subject=subject, **options))
    seen: set[str] = set()
    for one in questions:
        if one.id in seen:
            raise RecordError(f"two questions of {name!r} have the id {one.id!r}; an id names one question")
        seen.add(one.id)
    if not questions:
        raise RecordError(f"the data of {name!r} holds no questions")
    if seed is not None:
        random.Random(int(seed)).shuffle(questions)
    return questions[:limit]


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises RecordError for an option that a task does not take."""
    taken = inspect.signature(TASKS[name].load).parameters
    if any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        return
    own = [one for one in taken if one not in ("source", "split", "subject")]
    for option in options:
        if option not in own:
            raise RecordError(f"the task {name!r} has no option {option!r}, only {', '.join(own) or 'none of its own'}."
                              f"{did_you_mean(option, own)}")


@task("mmlu", grader="multiple_choice")
def mmlu(source: Source, *, split: str | None = None, subject: str | None = None) -> list[Question]:
    """CSV without a head: question, four choices, letter; `anatomy_test.csv`, in a folder or in its folder `test`."""
    path = _local(source)
    rows = _elsewhere(source, split or "test", subject) if path is None else _mmlu_rows(path, split, subject)

    def question(row: Row) -> Question:
        if isinstance(row.values.get(""), list):
            raise RecordError(f"{len(row.values[''])} fields; a row is question, four choices, letter: 6 fields")
        listed = row.values["choices"] if "choices" in row.values else [value.column(row, one) for one in "ABCD"]
        choices = value.texts(listed, "choices")
        if not any(map(str.strip, choices)):
            raise RecordError("all of its choices are empty")
        answer = value.letter(value.column(row, "answer"), choices)
        prompt = f"{value.filled(row, 'question')}\n{value.lines(choices)}"
        return Question(row.name, prompt, choices, answer, dict(row.source))

    return converted(rows, question)


def _mmlu_rows(path: Path, split: str | None, subject: str | None) -> Iterator[Row]:
    """The rows of `anatomy_test.csv` and its like; a single file says by its name which split it is."""
    named = re.fullmatch(r".*_(dev|val|test|train|auxiliary_train)", path.stem) if path.is_file() else None
    if named and split not in (None, named[1]):
        raise RecordError(f"{path} is the split {named[1]!r} by its name, not {split!r}")
    part = named[1] if named else split or "test"
    folder = path / part if (path / part).is_dir() else path
    for file in files(folder, "{}_" + part + ".csv", subject):
        source = {"split": part, "subject": file.stem.removesuffix(f"_{part}")}
        yield from csv_rows(file, ("question", *"ABCD", "answer"), file.stem, **source)


@task("bbh")
def bbh(source: Source, *, split: str | None = None, subject: str | None = None) -> list[Question]:
    """JSON: {"examples": [{"input": …, "target": …}]}, a file for each subject; lines such as "(A) …" are its choices."""
    path = _local(source)
    rows = _elsewhere(source, split, subject) if path is None else (
        row for file in files(path, "{}.json", subject) for row in example_rows(file, file.stem, subject=file.stem))

    def question(row: Row) -> Question:
        prompt, target = value.filled(row, "input"), value.filled(row, "target").strip()
        options = re.findall(r"^[ \t]*\(([A-Z])\) ?(.*)$", prompt, re.MULTILINE)
        lettered = re.fullmatch(r"\(([A-Za-z])\)|([A-Z])", target)
        if lettered and lettered[1] and not options:
            raise RecordError(f"the target is {target!r}, and the input has no lines such as \"(A) …\"")
        if not options or not (lettered or [text.strip() for _, text in options].count(target) == 1):
            return Question(row.name, prompt, (), target, dict(row.source))
        if [one for one, _ in options] != list(ascii_uppercase[:len(options)]):
            raise RecordError(f"the choices are not lettered in order: {', '.join(one for one, _ in options)}")
        texts = tuple(text.strip() for _, text in options)
        answer = value.letter(lettered[1] or lettered[2], texts) if lettered else value.letter(target, texts, by_text=True)
        return Question(row.name, prompt, texts, answer, dict(row.source))

    return converted(rows, question)


@task("jsonl")
def jsonl(source: Source, *, split: str | None = None, subject: str | None = None, template: str = "{question}",
          answer: str = "answer", choices: str = "choices", id: str = "id",
          images: str | Sequence[str] | None = None) -> list[Question]:
    """One JSON object in a line; `template` makes the prompt of its columns, {choices} stands for lettered lines.

    Args:
        source: The file, or rows.
        split: Of a data set of the hub.
        subject: Of a data set of the hub.
        template: The prompt; column names in braces. Where a row has choices and no {choices} is in it, they are appended.
        answer: The column of the answer: text, a list of texts, or of choices the letter, the text or the index from 0.
        choices: The column of the choices, if there is one.
        id: The column of ids, if there is one.
        images: Columns of images: names of files (relative to the file of the row), pictures, encoded ones, or lists of
            these; without it, `image` and `images`, where a row has them; `()` for none. In the template their names in
            braces say where they stand; otherwise they stand before the prompt.
    """
    rows = _jsonl_rows(source, split, subject)
    named = value.columns(template)

    def question(row: Row) -> Question:
        texts = value.texts(row.values[choices], "choices") if row.values.get(choices) is not None else ()
        lines = value.lines(texts)
        shown = images_of(row, images)
        filling = {one: lines if one == "choices" else IMAGE * len(shown[one]) if one in shown
                   else value.shown(row, one) for one in named}
        prompt, pictures = placed(template.format_map(filling), shown, named)
        right = value.column(row, answer)
        about = {**row.source, **{key: one for key, one in row.values.items() if key not in (answer, choices, id, *shown)}}
        name = value.name(row, id)
        if not texts:
            return Question(name, prompt, (), value.references(right, answer), about, pictures)
        full = prompt if "choices" in named else f"{prompt}\n{lines}"
        return Question(name, full, texts, value.letter(right, texts, by_text=True), about, pictures)

    return converted(rows, question)


@task("pairs", grader="exact")
def pairs(source: Source, *, split: str | None = None, subject: str | None = None, prompt: str = "prompt",
          right: str = "right", wrong: str = "wrong", id: str = "id") -> list[Question]:
    """JSON lines with a prompt, how it goes on rightly and how wrongly; choices are (right, wrong), without letters.

    Args:
        source: The file, or rows.
        split: Of a data set of the hub.
        subject: Of a data set of the hub.
        prompt: The column of the prompt; where rows lack it, whole texts are compared, and it is empty.
        right: The column of the right one.
        wrong: The column of the wrong one.
        id: The column of ids, if there is one.
    """
    rows = _jsonl_rows(source, split, subject)

    def question(row: Row) -> Question:
        both = value.filled(row, right), value.filled(row, wrong)
        if both[0] == both[1]:
            raise RecordError(f"{right} and {wrong} are the same text: {both[0]!r}")
        about = {**row.source, **{key: one for key, one in row.values.items() if key not in (prompt, right, wrong, id)}}
        name = value.name(row, id)
        return Question(name, value.text(row.values.get(prompt, ""), prompt), both, both[0], about)

    return converted(rows, question)


def _local(source: Source) -> Path | None:
    return Path(source) if isinstance(source, str | Path) and not str(source).startswith(HUB) else None


def _jsonl_rows(source: Source, split: str | None, subject: str | None) -> Iterable[Row]:
    path = _local(source)
    if path is None:
        return _elsewhere(source, split, subject)
    return (row for file in files(path, "{}.jsonl", subject) for row in jsonl_rows(file, file.stem))


def _elsewhere(source: Source, split: str | None, subject: str | None) -> Iterable[Row]:
    if source is None:
        raise RecordError(f"say where the data is: a file or folder, {HUB}owner/name, or rows")
    if isinstance(source, str | Path):
        return hub_rows(str(source).removeprefix(HUB), split, subject)
    return given_rows(source, "row")
