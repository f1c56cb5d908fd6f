"""`hooklab generate PROMPT`: text written on from a prompt; `--out` keeps activations of every token on the way."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HooklabError
from ..problems import SpecError
from ..progress import Progress, in_terminal, quiet_libraries
from .opening import add_model, opened
from .run import as_data

if TYPE_CHECKING:
    from ..records import Run

NAME = "generate"
HELP = "write on from a prompt, and keep activations of every token"
EXAMPLES = ('generate "The capital of France is" --max-new-tokens 5',
            'generate "The capital of France is" --out paris --capture "L*.resid_post" --steps new',
            'generate "Mary went to the" --temperature 0.8 --seed 1 --samples 3 --json',
            'generate "The Eiffel Tower is in the city of" --edit "zero L2H0 @new"')
SETTINGS = ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "samples", "stop")


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("prompt", help="text to write on from; - reads standard input")
    parser.add_argument("--model", default="lab", metavar="NAME", help="model to write with (default: lab)")
    parser.add_argument("--capture", action="append", metavar="PLACES",
                        help='places whose activations to keep, such as "L*.resid_post"; may be repeated (default with '
                             "--out: the embeddings and the stream after every layer)")
    parser.add_argument("--steps", default="all", help="which steps to keep: all, prompt, new, or numbers such as 0,2 where "
                                                       "0 reads the prompt")
    parser.add_argument("--max-new-tokens", type=int, default=20, metavar="N", help="most tokens to write (default: 20)")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 takes the likeliest token; above 0 draws")
    parser.add_argument("--top-k", type=int, metavar="K", help="draw among the likeliest K")
    parser.add_argument("--top-p", type=float, metavar="P", help="draw among the likeliest that together have probability P")
    parser.add_argument("--seed", type=int, help="seed of the draws")
    parser.add_argument("--samples", type=int, metavar="N", help="continuations to write")
    parser.add_argument("--stop", action="append", metavar="TEXT", help="text to end at; may be repeated")
    parser.add_argument("--edit", action="append", default=[], metavar="LINE", dest="edits",
                        help='a line of the hook language that acts meanwhile, such as "zero L2H0 @new"; may be repeated')
    parser.add_argument("--chat", action="store_true", help="put the prompt into the user's turn of the chat template")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the whole result in a new folder")
    add_model(parser)


def run(options: argparse.Namespace) -> int:
    """Write, print, and keep what was asked for; 0 done, 1 a claim of the edits does not hold, 2 a mistake in the input.

    Raises:
        HooklabError: the mistake.
    """
    out = None if options.out is None else free(options.out)
    prompt = _prompt(options.prompt)
    with quiet_libraries():
        from ..analysis.generate import CAPTURE

        model = opened(options, options.model)
        places = options.capture or ([CAPTURE] if out is not None else None)
        found = _written(model, prompt, places, options)
    if found is None:
        return 2
    saved = None if out is None else _kept(found, out)
    if options.json:
        data = as_data(found) | ({"saved": str(saved)} if saved else {})
        print(json.dumps(data, ensure_ascii=False, allow_nan=False))
    else:
        for texts in found.texts.values():
            print("\n\n".join(one.text for one in texts))
        if found.data:
            print("\n" + "\n".join(_listed(found)))
        if saved:
            print(f"\nsaved in {saved}")
    return 0 if all(claim.holds for claim in found.expectations) else 1


def free(path: Path) -> Path:
    """A name for a new folder, as an absolute path, before anything runs.

    Raises:
        HooklabError: it is taken, or nothing can be written there.
    """
    path = path.expanduser().absolute()
    if os.path.lexists(path):
        raise HooklabError(f"There is {path} already; choose another folder.")
    parent = next(one for one in path.parents if os.path.lexists(one))
    if not parent.is_dir():
        raise HooklabError(f"{parent} is no folder, so {path} cannot be made in it.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise HooklabError(f"{path} cannot be made: {parent} may not be written to.")
    return path


def _prompt(given: str) -> str:
    try:
        text = sys.stdin.read() if given == "-" else given
    except UnicodeDecodeError:
        raise HooklabError("Standard input is no text.") from None
    try:
        text.encode()
    except UnicodeEncodeError:
        raise HooklabError("The prompt is no valid text: it holds bytes that are no UTF-8.") from None
    if not text.strip():
        raise HooklabError("The prompt is empty: hooklab generate \"The capital of France is\"")
    return text.rstrip("\n") if given == "-" else text


def _written(model: Any, prompt: str, places: list[str] | None, options: argparse.Namespace) -> Run | None:
    """The run, also when a claim of the edits does not hold; None when the spec is at fault, which is then printed."""
    from ..analysis.generate import generate

    progress = Progress(in_terminal)
    try:
        return generate(model, prompt, places, steps=_steps(options.steps), edits=options.edits, chat=options.chat,
                        progress=progress, **{name: getattr(options, name) for name in SETTINGS})
    except SpecError as error:
        kept: Run | None = getattr(error, "run", None)
        if kept is None or any(problem.kind != "expect" for problem in error.problems):
            print("\n".join(["hooklab: this cannot be written:", *error.lines()]), file=sys.stderr)
            return None
        print("\n".join(error.lines()), file=sys.stderr)
        return kept
    finally:
        progress.close()


def _steps(text: str) -> Any:
    """`new`, or the numbers of `0,2`."""
    numbers = [part.strip() for part in text.split(",")]
    return [int(part) for part in numbers] if all(part.isdecimal() for part in numbers) else text


def _kept(found: Run, path: Path) -> Path:
    """Save in a new folder, whose parents are made. Raises HooklabError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HooklabError(f"{path.parent} could not be made: {error.strerror or error}.") from error
    return found.save(path)


def _listed(found: Run) -> list[str]:
    """Every tensor that was kept, with its axes."""
    wide = max(map(len, found.data))
    sizes = {name: zip(found.axes[name], value.shape, strict=True) for name, value in found.data.items()}
    return [f"{name:<{wide}}  " + " · ".join(f"{axis} {n}" for axis, n in each) for name, each in sizes.items()]
