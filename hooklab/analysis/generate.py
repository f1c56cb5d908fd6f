"""`hl.generate`: text written on from a prompt, with activations of every token on the way, and edits in force.

    prompt + places + edits + how to draw ──▶ text of a spec ──model.run──▶ Run: texts, tokens, activations by position

A position is captured in the step that reads it: those of the prompt in the first, each new token in one of its own, and
the last new token in none, since nothing comes after it. So 9 tokens and 5 new ones have 13 positions, each the same as
in one pass over the 13 tokens.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RecordError
from ..model.opened import needs_opened
from ..problems import SpecError
from ..spec import ast
from ..spec.names import EDITS, READS
from ..spec.parser import read
from ..spec.printer import line as printed
from ..spec.printer import quote
from .asking import Asking, SweepError
from .continuing import saved
from .sweep import Progress

if TYPE_CHECKING:
    from ..model.model import Model
    from ..records import Run

CAPTURE = "embed, L*.resid_post"
STEPS = ("all", "prompt", "new")
IN_A_RUN = (*EDITS, *READS)


def generate(model: Model, prompt: Any, capture: str | Sequence[str] | None = CAPTURE, *,
             steps: str | int | Sequence[int] = "all", max_new_tokens: int = 20, temperature: float | None = None,
             top_k: int | None = None, top_p: float | None = None, seed: int | None = None, samples: int | None = None,
             stop: str | Sequence[str] | None = None, edits: str | Sequence[str] = (),
             values: Mapping[str, Any] | None = None, chat: bool = False, stream: bool = False,
             progress: Progress | None = None) -> Run:
    """Write on from a prompt, and keep activations of all its tokens and of those that are written.

    Tokens are the same whether anything is captured or not; the random numbers of the process stay as they are.

    Args:
        model: An opened model.
        prompt: Text, ids, a list of either (they may differ in length), or chat messages, which go through the
            tokenizer's template.
        capture: Places to keep, as in the language: `"L*.resid_post"`, `"L-1.resid_post"`, `["embed", "L2:4.z"]`; None
            for none. With `"logits"` among them, `log_probs` tells how likely each token was.
        steps: Which steps to keep: `"all"`, `"prompt"`, `"new"`, or numbers; 0 reads the prompt, 1 the first new token.
        max_new_tokens: Most tokens to write.
        temperature: 0 takes the likeliest token; above 0 draws. Without it, `top_k`, `top_p` or several samples draw.
        top_k: Draw among the likeliest k.
        top_p: Draw among the fewest likeliest tokens that together have this probability.
        seed: Of the draws, and of edits that draw.
        samples: Continuations of each prompt.
        stop: Text, or texts, to end at.
        edits: Lines of the language that act while the model writes: `"zero L2H0 @new"`, `"steer L1.resid by {v}"`; with
            what they need, such as marks and prompts to patch from.
        values: What names between braces in `edits` stand for.
        chat: Put a text into the user's turn of the tokenizer's template.
        stream: Show the text as it is written.
        progress: Called with (done, total, what).

    Returns:
        The run of that spec: `.text` and `.texts`, `.tokens_of`, and activations by address, [batch pos …] or, of several
        samples, [sample batch pos …]. Rows of different lengths end together, with NaN before the shorter ones.
        `.as_dict()` is one row as a plain dictionary. What it wrote is the run `main`, or `hooked` under edits.

    Raises:
        SweepError: steps that this generation cannot have, places and edits that are none, several texts with `chat`.
        SpecError: with everything wrong about places, edits and settings, before anything runs.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> run = generate(model, "The capital of France is", "L*.resid_post", max_new_tokens=2)
        >>> run.texts["main"][0].new
        ' Paris.'
        >>> run.tokens.ids[0].__len__(), tuple(run["L0.resid_post"].shape)
        (8, (1, 7, 144))
    """
    needs_opened(model)
    asking = Asking()
    if seed is not None:
        asking.line(f"seed {_whole('seed', seed)}")
    asking.prompt("main", prompt)
    if chat:
        if isinstance(prompt, (list, tuple)) and any(isinstance(text, str) for text in prompt):
            raise SweepError("chat=True puts one text into the template; write several one after another")
        asking.lines[-1] += " chat=true"
    count = _whole("max_new_tokens", max_new_tokens)
    kept = _steps(steps, count)
    places = [capture] if isinstance(capture, str) else list(_texts("capture", capture))
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "samples": samples, "stop": stop,
                "stream": stream or None}
    inside = [f"save {place}{kept}" for place in places]
    inside.append(f"generate {count}" + "".join(f" {name}={_written(name, value, asking)}"
                                                for name, value in settings.items() if value is not None))
    declared, acting = _lines(edits)
    asking.line(*declared, *(["run hooked on main:", *acting, *(f"    {line}" for line in inside)] if acting else inside))
    if taken := sorted(asking.values.keys() & (values or {}).keys()):
        raise SweepError(f"{{{taken[0]}}} is this function's own name for what it was given: rename yours in edits= and "
                         "values=")
    run: Run = model.run(asking.text, values={**(values or {}), **asking.values}, progress=progress)
    return run


def log_probs(run: Run, name: str | None = None) -> tuple[np.ndarray, ...]:
    """How likely the model found each token that it wrote, before any temperature: for each text natural logs [step].

    Args:
        run: One that wrote, and kept its logits: `generate(model, prompt, "logits")`.
        name: Which of its runs; by default the one that wrote.

    Raises:
        RecordError: nothing was written, or the logits were not kept.

    Example:
        >>> import hooklab as hl
        >>> run = generate(hl.load("lab"), "The capital of France is", "logits", max_new_tokens=2)
        >>> bool(log_probs(run)[0][0] > -0.1)
        True
    """
    written = [one for one in run.texts if name in (None, one)]
    if len(written) != 1:
        raise RecordError(f"Say which of the runs is meant: {', '.join(run.texts)}." if written else
                          f"{name or 'This run'} wrote nothing: add a line such as `generate 20`.")
    found = saved(run, written[0], top=1)
    if found is None:
        raise RecordError("The logits of all steps were not kept: capture \"logits\", or add the line `save logits`.")
    return tuple(np.log([choice.chance for choice in row]) for row in found)


def _lines(edits: str | Sequence[str]) -> tuple[list[str], list[str]]:
    """What edits declare, and the lines that act."""
    text = textwrap.dedent(edits) if isinstance(edits, str) else "\n".join(_texts("edits", edits))
    lines, problems = read(text)
    if problems:
        raise SpecError(problems, text)
    if odd := next((x for x in lines if isinstance(x, (ast.Run, ast.Generate))), None):
        raise SweepError(f"`{printed(odd).splitlines()[0]}` is no edit: give the prompt and the number of tokens as "
                         "arguments, or write all of it as a spec: model.run(text)")
    return ([printed(x) for x in lines if not isinstance(x, IN_A_RUN)],
            [f"    {printed(x)}" for x in lines if isinstance(x, IN_A_RUN)])


def _texts(name: str, given: Any) -> Sequence[str]:
    """Several texts, none for None. Raises SweepError for anything else."""
    found = () if given is None else tuple(given) if isinstance(given, Iterable) and not isinstance(given, Mapping) else (0,)
    if not all(isinstance(one, str) for one in found):
        raise SweepError(f"{name}= is a text, or a list of texts, not {given!r}")
    return found


def _whole(name: str, value: Any) -> int:
    try:
        return index(value)
    except TypeError:
        raise SweepError(f"{name}= is a whole number, not {value!r}") from None


def _steps(steps: Any, count: int) -> str:
    """The option of a `save` line for the steps to keep."""
    if isinstance(steps, str):
        if steps not in STEPS:
            raise SweepError(f"steps= is {', '.join(STEPS)}, or a list of steps, not {steps!r}")
        return "" if steps == "all" else f" steps={steps}"
    try:
        numbers = [index(steps)] if hasattr(steps, "__index__") else [index(step) for step in steps]
    except TypeError:
        raise SweepError(f"steps= is {', '.join(STEPS)}, or a list of steps, not {steps!r}") from None
    if not numbers:
        raise SweepError("steps= is empty; capture=None captures nothing")
    if wrong := [step for step in numbers if not 0 <= step < count]:
        raise SweepError(f"there is no step {wrong[0]}: {count} new token{'s' * (count != 1)} take steps 0 to {count - 1}, "
                         "where 0 reads the prompt and the last token is not read")
    return f" steps=[{', '.join(map(str, numbers))}]"


def _written(name: str, value: Any, asking: Asking) -> str:
    """A setting as the language writes it; what it has no form for goes between braces."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value):
        return f"[{', '.join(map(quote, value))}]"
    return repr(value) if type(value) in (int, float) else asking.value(name, value)
