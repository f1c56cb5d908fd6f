"""What it takes to write on: the spec that a prompt, edits and options make, and a model with the plan of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ViewError
from ..problems import SpecError
from ..records import Run
from ..records.parts import Unstored
from ..spec import ast
from ..spec.freeze import freeze
from ..spec.names import EDITS
from ..spec.parser import parse, read
from ..spec.printer import line as printed
from ..spec.printer import quote

if TYPE_CHECKING:
    from ..model.model import Model

_IN_A_RUN = (*EDITS, ast.Save)


class Maker:
    """What it takes to write: a model, the plan, and its text."""

    def __init__(self, model: Model, spec: ast.Spec | str, values: Mapping[str, Any]) -> None:
        self.model, self.plan, self.spec = model, model.plan(spec, values=values), str(spec)

    def decode(self, ids: list[int]) -> str:
        """Ids as text, special tokens left out."""
        from ..runtime.write import decode

        return decode(self.model, ids)

    def pieces(self, ids: list[int]) -> list[str]:
        """The text of each token."""
        from ..tokens import Tokens

        return list(Tokens.from_ids([ids], self.model.tokenizer).pieces[0])

    def piece(self, token: int) -> str:
        """The text of one token."""
        return self.pieces([token])[0]


def specified(prompt: Any, edits: str | Sequence[str], options: dict[str, Any],
               compare: bool) -> tuple[ast.Spec | str, dict[str, Any]]:
    if prompt is None:
        raise ViewError('a model needs a prompt: hl.view.generation(model, "Mary went to", max_new_tokens=20)')
    if isinstance(prompt, ast.Spec):
        if edits:
            raise ViewError("a whole spec has its edits in it: write them there")
        return prompt, {}
    return text_for(prompt, edits if isinstance(edits, str) else "\n".join(map(str, edits)), options, compare)


def again(run: Run, model: Any) -> Maker | None:
    """What it takes to write a run again; None where that cannot be done."""
    made_with = run.__dict__.get("_model")
    model = model if model is not None else made_with() if made_with is not None else None
    if model is None or not run.spec or any(isinstance(value, Unstored) for value in run.given.values()):
        return None
    return Maker(model, run.spec, run.given)


def named(source: Any) -> list[tuple[str, Run]]:
    found = list(source.items()) if isinstance(source, Mapping) else [
        (str(i + 1), run) for i, run in enumerate(source)] if isinstance(source, (list, tuple)) else []
    if not found or not all(isinstance(run, Run) for _, run in found):
        raise ViewError(f"generation takes a model and a prompt, a Run, or several Runs; this is of type "
                        f"{type(source).__name__}")
    return [(str(name), run) for name, run in found]


def text_for(prompt: Any, edits: str, options: Mapping[str, Any], compare: bool) -> tuple[str, dict[str, Any]]:
    """The spec that writes on from a prompt, plain and under edits, and the values that its braces stand for.

    Raises:
        SpecError: the edits cannot be read.
        ViewError: they hold lines that are neither edits nor declarations.
    """
    frozen = freeze(parse("prompt {prompt}"), {"prompt": prompt})
    lines, problems = read(edits)
    if problems:
        raise SpecError(problems, edits)
    if odd := next((x for x in lines if isinstance(x, (ast.Prompt, ast.Run, ast.Generate))), None):
        raise ViewError(f"`{printed(odd).splitlines()[0]}` is no edit: give the prompt and the number of tokens as "
                        "arguments, or all of it as a spec: generation(model, hl.parse(text))")
    inside = [f"    {printed(x)}" for x in lines if isinstance(x, _IN_A_RUN)]
    outside = [printed(x) for x in lines if not isinstance(x, _IN_A_RUN)]
    writes = "    " + printed(parse(f'prompt "a"\n{_generate(options)}').body[1])
    blocks = [["run plain on main:", writes]] if compare or not inside else []
    blocks += [["run edited on main:", *inside, writes]] if inside else []
    return "\n".join([str(frozen.spec), *outside, *(line for block in blocks for line in block)]), frozen.values


def _generate(options: Mapping[str, Any]) -> str:
    given = {name: value for name, value in options.items() if value is not None}
    count = given.pop("count")
    return " ".join([f"generate {count}", *(f"{name}={_option(value)}" for name, value in given.items())])


def _option(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_option, value))}]"
    return quote(value) if isinstance(value, str) else str(value)
