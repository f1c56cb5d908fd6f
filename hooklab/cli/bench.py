"""`hooklab bench TASK PATH`: how many questions of a task a model answers rightly, as it is and under edits."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HooklabError
from ..problems import SpecError
from ..progress import Progress, in_terminal, quiet_libraries
from ..spec.holes import value_of
from .opening import add_model, opened

if TYPE_CHECKING:
    from ..data.evaluation.record import Evaluation
    from ..records import Scores

NAME = "bench"
HELP = "ask a model the questions of a task and grade its answers"
EXAMPLES = ("bench pairs receivers.jsonl --how choices --limit 20",
            r"bench jsonl capitals.jsonl --max-new-tokens 3 --pattern '\w+' --json",
            "bench pairs receivers.jsonl --how choices --edits heads.hook --grid 'heads=[\"L0H*\", \"L4H*\"]'",
            "bench jsonl capitals.jsonl --stop . --pattern '\\w+' --capture 'L*.resid_post' --capture-at last --out results")


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("task", help="mmlu (csv), bbh (json), jsonl (a question and an answer in each line), or pairs (a "
                                     "prompt, a right and a wrong continuation)")
    parser.add_argument("path", help="file or folder with the questions, or hub:owner/name")
    parser.add_argument("--model", default="lab", metavar="NAME", help="model to ask (default: lab)")
    parser.add_argument("--subject", help="which subject of the task")
    parser.add_argument("--split", help="which split of the task")
    parser.add_argument("--limit", type=int, metavar="N", help="how many questions at most")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="shuffle the questions before the limit is taken")
    _add_asking(parser)
    _add_edits(parser)
    parser.add_argument("--at-least", type=float, metavar="SHARE",
                        help="exit with status 1 where the model as it is answers a smaller share rightly, such as 0.9")
    add_model(parser)


def _add_asking(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("asking and grading")
    how.add_argument("--how", default="generate", choices=("generate", "choices"),
                     help="let the model write (default), or compare how likely it finds the choices")
    how.add_argument("--prompt", metavar="TEMPLATE", help="text with {prompt}, {choices} and columns in braces")
    how.add_argument("--chat", action="store_true", help="put the prompt into the user's turn of the chat template")
    how.add_argument("--max-new-tokens", type=int, default=32, metavar="N", help="most tokens to write (default: 32)")
    how.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 takes the likeliest token (default)")
    how.add_argument("--seed", type=int, default=0, help="of draws (default: 0)")
    how.add_argument("--stop", action="append", default=[], metavar="TEXT", help="text to end at; may be repeated")
    how.add_argument("--normalise", choices=("tokens", "characters"), help="compare choices by their mean log-probability")
    found = how.add_mutually_exclusive_group()
    found.add_argument("--extract", metavar="TAG", help='text before the answer, such as "FINAL ANSWER:"')
    found.add_argument("--pattern", metavar="REGEX", help="the last match is the answer, or its first group")
    how.add_argument("--grade", metavar="NAME", help="auto, multiple_choice, exact, regex or vqa (default: the task's own)")
    how.add_argument("--batch-size", type=int, metavar="N", help="most questions of a batch")


def _add_edits(parser: argparse.ArgumentParser) -> None:
    edits = parser.add_argument_group("edits and activations")
    edits.add_argument("--edits", metavar="FILE", help="lines of the hook language that act on the model; every question is "
                                                       "also asked without them")
    edits.add_argument("--grid", action="append", default=[], metavar="NAME=LIST",
                       help="values, as JSON, that {NAME} in the edits takes one after the other; may be repeated")
    edits.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="settings",
                       help="value for {NAME} in the edits: JSON, or plain text; may be repeated")
    edits.add_argument("--capture", action="append", metavar="PLACES",
                       help='sites to keep for every question, such as "L*.resid_post"; needs --out; may be repeated')
    edits.add_argument("--capture-at", default="all", choices=("all", "prompt", "last"),
                       help="their positions; last is the last token of the prompt (default: all)")
    edits.add_argument("--out", type=Path, metavar="DIR",
                       help="keep rows and activations; the same command goes on with what is there")


def run(options: argparse.Namespace) -> int:
    """Ask, print, keep; 0 done, 1 fewer right answers than `--at-least`, 2 a mistake in the input.

    Raises:
        HooklabError: the mistake.
    """
    if options.at_least is not None and not 0 <= options.at_least <= 1:
        raise HooklabError(f"--at-least takes a share from 0 to 1, such as 0.9, not {options.at_least:g}.")
    edits = _lines(options.edits)
    grid, values = _named(options.grid, "--grid"), _named(options.settings, "--set")
    with quiet_libraries():
        from ..data.tasks.tasks import TASKS, load_task

        questions = load_task(options.task, options.path, split=options.split, subject=options.subject, seed=options.shuffle,
                              limit=options.limit)
        try:
            found = _evaluated(options, questions, options.grade or TASKS[options.task].grader, edits, grid, values)
        except SpecError as error:
            where = f"in {options.edits}" if options.edits else "this cannot be asked"
            print("\n".join([f"hooklab: {where}:", *error.lines()]), file=sys.stderr)
            return 2
    _report(found, options)
    return 1 if options.at_least is not None and float(found.baseline()) < options.at_least else 0


def _evaluated(options: argparse.Namespace, questions: Any, grade: Any, edits: str, grid: Any, values: Any) -> Evaluation:
    from ..data.evaluation.evaluate import evaluate

    try:
        extract = re.compile(options.pattern) if options.pattern is not None else options.extract
    except re.error as error:
        raise HooklabError(f"--pattern {options.pattern!r} is no regular expression: {error}") from None
    progress = Progress(in_terminal)
    try:
        return evaluate(
            opened(options, options.model), questions, prompt=options.prompt, chat=options.chat, how=options.how,
            edits=edits, grid=grid, values=values, max_new_tokens=options.max_new_tokens, temperature=options.temperature,
            seed=options.seed, stop=options.stop, normalise=options.normalise, extract=extract,
            grade=None if options.how == "choices" and options.grade is None else grade, capture=options.capture,
            capture_at=options.capture_at, out=options.out, batch_size=options.batch_size, progress=progress)
    finally:
        progress.close()


def _report(found: Evaluation, options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(as_data(found), ensure_ascii=False, allow_nan=False))
        return
    print(found)
    if found.edited:
        print("\nchange under the edits, question by question")
        print("\n".join(repr(found.difference()).splitlines()[1:]))
    if found.path is not None:
        print(f"\nsaved in {found.path}")


def as_data(found: Evaluation) -> dict[str, Any]:
    """An evaluation as plain data; its rows are in the folder where there is one."""
    data: dict[str, Any] = {"questions": len({row.number for row in found}), "asked": dict(found.asked),
                            "baseline": _numbers(found.baseline()), "accuracy": _numbers(found.accuracy())}
    if found.edited:
        data["difference"] = _numbers(found.difference())
    if found.path is not None:
        return data | {"saved": str(found.path)}
    return data | {"rows": [{"id": row.id, "grid": dict(row.grid), "edited": row.cell > 0, "prompt": row.prompt,
                             "reply": row.reply, "answer": row.answer, "right": row.right, "score": row.score,
                             "reason": row.reason, "log_probs": _finite(list(row.log_probs))} for row in found]}


def _numbers(scores: Scores) -> dict[str, Any]:
    arrays = {"value": scores.values, "low": scores.low, "high": scores.high, "p": scores.p}
    return {"axes": list(scores.axes), "coords": {name: list(labels) for name, labels in scores.coords.items()},
            **{name: _finite(array.tolist()) for name, array in arrays.items() if array is not None}}


def _finite(value: Any) -> Any:
    """Numbers that are not finite as null."""
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _lines(file: str | None) -> str:
    """The edits of a file. Raises HooklabError when it cannot be read."""
    if file is None:
        return ""
    from .run import _text

    return _text(file).replace("\r\n", "\n")


def _named(settings: list[str], option: str) -> dict[str, Any]:
    """`name=value` texts; several values for `--grid`. Raises HooklabError."""
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip():
            raise HooklabError(f"{option} takes NAME=VALUE, not {setting!r}.")
        try:
            value = value_of(text)
        except ValueError as error:
            raise HooklabError(f"{option} {name}: {error}.") from None
        if name.strip() in found:
            raise HooklabError(f"{option} {name.strip()} is given twice: give one of them.")
        if option == "--grid" and not isinstance(value, list):
            raise HooklabError(f"{option} {name} takes a list, such as '{name}=[0, 1, 2]', not {text!r}.")
        found[name.strip()] = value
    return found
