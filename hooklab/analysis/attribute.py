"""`hl.attribute`: how much each place contributes to a metric or to an activation, and how far that estimate can be trusted.

In: a prompt, places, a metric or a target. Out: `Scores`. It writes a spec with an `attribute` line and runs it, so the spec
of the scores is text that does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import HooklabError, did_you_mean
from ..model.opened import needs_opened
from ..records import Scores
from ..spec.verbs import ATTRIBUTIONS, HOLDS
from .asking import Asking, places

if TYPE_CHECKING:
    from ..model.model import Model

RUN = "attributed"


class AttributionError(HooklabError):
    """An attribution that cannot be set up as asked."""


def attribute(model: Model, prompt: Any, sites: str | Sequence[str] = "L*H*",
              metric: str | Callable[[Tensor], Any] | None = None, *, method: str = "grad", source: Any = None,
              answer: Any = None, wrong: Any = None, positions: Any = None, target: Any = None,
              hold: str | Sequence[str] = (), steps: int = 20, check: int | bool = 0, seed: int = 0) -> Scores:
    """How much every place of a list contributes to a metric, or to an activation.

    Methods, by what they give for a place with value a and gradient g = ∂metric/∂a:

    - `"grad"`: a · g, the first-order effect of zeroing the place, with the sign of a contribution;
    - `"patch"`: (a′ − a) · g with a′ from `source`: attribution patching (Nanda 2023), the effect of patching;
    - `"ig"`: integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365) from zero, or from the values of `source`,
      by the midpoint rule; at one place they add up to the metric's difference between the ends;
    - `"dla"`: direct logit attribution, what a write adds to the logits with the final norm's divisor as it is.

    Held norms: the divisors of the norms before attention, before the MLP and after either, and of the final norm, are
    constants for gradients; means, gains and biases are not. Held patterns: attention after the softmax is constant, and
    queries and keys get no gradient. With both held and no other nonlinearity on the way, a · g is exactly the effect of
    zeroing under frozen norms and patterns.

    Args:
        model: An opened model.
        prompt: Text, ids or a list of them; over several the mean is given.
        sites: Places, as in the language: `"L*H*"`, `"L*.resid_pre"`, `["L*.mlp_out", "embed"]`.
        metric: A name or expression of the language, or a function of the answer's logits [example d_vocab] that gives a
            number for each example; by default logit_diff with `wrong`, else logit.
        method: See above.
        source: The other prompt, token for token as long, for `"patch"` and `"ig"`.
        answer: The right next token: text or an id, one for all examples or a list with one for each.
        wrong: The wrong one that it is compared with.
        positions: None for all together, `"each"` for one at a time, or a position (`"last"`, `3`, `'"Mary"'`).
        target: Instead of a metric, an activation: `"L5H2.pattern[7,3]"` (query, key), `"L3N17 @last"`, or a tuple of a
            place with a direction, with a function of its value [example pos …], or with a dictionary and a feature.
        hold: `"norms"`, `"patterns"`, both in a tuple, or `"all"`.
        steps: Of integrated gradients.
        check: Compare so many cells (True: all) with the exact effect of zeroing them (or patching them, where there is a
            source): the note of the scores gives correlation, rank correlation and the share of equal signs.
        seed: Draws the cells that are checked.

    Returns:
        Scores over the places' axes.

    Raises:
        AttributionError: an unknown method or hold, or a method without what it needs.
        SpecError: places, positions or answers that do not exist; a target that the places cannot influence.

    Example:
        >>> import hooklab as hl
        >>> from hooklab.analysis.attribute import attribute
        >>> model = hl.load("lab")
        >>> scores = attribute(model, "When Mary and John went to the store, John gave a drink to", "L*H*",
        ...                    answer=" Mary", wrong=" John", check=True)
        >>> scores.axes, "correlation" in scores.note
        (('layer', 'head'), True)
    """
    needs_opened(model)
    return checked(model, prompt, sites, metric, method=method, source=source, answer=answer, wrong=wrong,
                   positions=positions, target=target, hold=hold, steps=steps, check=check, seed=seed)[0]


def checked(model: Model, prompt: Any, sites: str | Sequence[str] = "L*H*",
            metric: str | Callable[[Tensor], Any] | None = None, **options: Any) -> tuple[Scores, Scores | None]:
    """What `attribute` gives, and the exact effects of the checked cells (NaN elsewhere); None without `check=`.

    Raises:
        AttributionError, SpecError: as `attribute`.
    """
    asked = written(prompt, sites, metric, **options)
    run = model.run(asked.text, values=asked.values)
    return run.scores[f"{RUN}.attribute"], run.scores.get(f"{RUN}.attribute_exact")


# Asking ------------------------------------------------------------------------------------------------------------


def written(prompt: Any, sites: str | Sequence[str], metric: Any, *, method: str = "grad", source: Any = None,
            answer: Any = None, wrong: Any = None, positions: Any = None, target: Any = None,
            hold: str | Sequence[str] = (), steps: int = 20, check: int | bool = 0, seed: int = 0) -> Asking:
    """The spec of an attribution, and the values of its braces.

    Raises:
        AttributionError: an unknown method or hold, or a method without what it needs.
    """
    if method not in ATTRIBUTIONS:
        raise AttributionError(f"there is no method {method!r}.{did_you_mean(method, ATTRIBUTIONS)} "
                               f"There are {', '.join(ATTRIBUTIONS)}.")
    if method == "patch" and source is None:
        raise AttributionError('method="patch" takes source=, the prompt to patch from.')
    if target is not None and answer is not None and metric is None:
        raise AttributionError("a target stands in place of what answers are for: leave out answer= and wrong=, or target=.")
    asking = Asking(AttributionError).prompt("main", prompt)
    if source is not None:
        asking.prompt("source", source)
    asking.answer(answer, wrong)
    if metric is not None:
        asking.metric(metric, "main" if source is None else "source")
    elif target is None:
        asking.metric(asking.suggested())
    options = {"hold": _held(hold), "steps": steps if method == "ig" else None,
               "target": None if target is None else asking.value("target", target)}
    if check:
        options |= {"check": "all" if check is True else int(check), "seed": seed}
    line = f"attribute {places(sites, positions, AttributionError)} with {method}"
    line += "" if source is None else " from source"
    line += "".join(f" {name}={value}" for name, value in options.items() if value is not None)
    return asking.line(f"run {RUN} on main:", f"    {line}")


def held_names(hold: str | Sequence[str]) -> tuple[str, ...]:
    """What is held, by name.

    Raises:
        AttributionError: there is no such thing to hold.
    """
    names = [hold] if isinstance(hold, str) else list(hold)
    for name in names:
        if name not in HOLDS:
            raise AttributionError(f"there is no hold={name!r}.{did_you_mean(str(name), HOLDS)} "
                                   f"There are {', '.join(HOLDS)}.")
    return tuple(name for name in HOLDS[:-1] if name in names or "all" in names)


def _held(hold: str | Sequence[str]) -> str | None:
    """The same as an option of the line."""
    names = held_names(hold)
    return "all" if len(names) == len(HOLDS) - 1 else names[0] if names else None
