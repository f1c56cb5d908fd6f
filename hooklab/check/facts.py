"""The exercises of tutorial 06: causal tracing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..analysis.tracing import causal_trace
from ..errors import HooklabError
from ..model.model import Model
from .answers import number_of, tensor_of
from .exercise import Wrong, exercise

CLOSE = 0.08
"""How far another draw of the noise may be."""
SAME = 1e-3
"""How far the same draw may be."""
NOISED = """
prompt clean = {prompts}
mark subject = %s
answer {answers}
metric prob
run noised on clean:
    noise embed @subject by 3 * sigma samples=10
"""
RUNS = """
run restored on noised:
    patch L%d.resid_pre @last from clean
run severed on restored:
    freeze L%d:%d.%s @last to noised
"""


@exercise("06.1", "How much there is to restore")
def total_effect(answer: Any, model: Model, prompts: Sequence[str], answers: Sequence[str], subject: str) -> str:
    """How much of the answer's probability the noise on the subject takes away, over all facts.

    Args:
        answer: A number.
        model: The model.
        prompts: The facts.
        answers: What they go on with.
        subject: The position of the subject, such as "@-2".

    Right is the mean probability of the answers after the clean prompts less that under noise of three standard deviations,
    within 0.08 for another draw.
    """
    given = number_of(answer)
    clean, noised = _ends(model, prompts, answers, subject)
    if abs(given - (clean - noised)) <= CLOSE:
        return "This is the room that a map has: a restored state can give back that much and, on the scale of the maps, 1."
    if abs(given + clean - noised) <= CLOSE:
        raise Wrong("The size is right. What is taken away is asked for: the clean probability less the noised one.")
    if abs(given - noised) <= CLOSE:
        raise Wrong("This is what is left under noise. How much of it went?")
    if abs(given - clean) <= 0.01:
        raise Wrong("This is the clean probability: nothing has been taken away yet.")
    if abs(given) > 1:
        raise Wrong("A probability cannot fall by more than 1. Are these logits, or a sum over facts instead of the mean?")
    raise Wrong("It is another number. Noise of 3 sigma on the embedding of the subject only, ten draws or more, and the "
                "mean over all facts.")


@exercise("06.2", "One half of a name")
def name_halves(answer: Any, model: Model, prompts: Sequence[str], answers: Sequence[str], first: str, second: str) -> str:
    """What each token of a subject restores alone, and both together, in the stream before the first layer.

    Args:
        answer: Three shares: the first token, the second, both; 0 is the noised prompt, 1 the clean one.
        model: The model.
        prompts: The facts.
        answers: What they go on with.
        first: The position of the subject's first token, such as "-7".
        second: That of its second one.

    Right is what `hl.causal_trace` gives there, within 0.08 for another draw of the noise.
    """
    given = tensor_of(answer, (3,), "first, second, both").numpy()
    truth = np.array([float(causal_trace(model, list(prompts), f"@[{first}, {second}]", "L0.resid_pre", at,
                                         answer=list(answers)).values.reshape(-1)[0])
                      for at in (first, second, f"[{first}, {second}]")])
    if abs(given[2] - given[:2].sum()) < 1e-3 and abs(given[2] - truth[2]) > CLOSE:
        raise Wrong("The third number is the sum of the first two. Restore both tokens in one run, and look.")
    if np.abs(given - truth).max() <= CLOSE:
        more = "more" if truth[2] > truth[:2].sum() else "less"
        return (f"Together they restore {more} than the sum of what each does alone. A map restores one state at a time, "
                "and a state that is only half of what is needed looks as if it did nothing.")
    if given[2] < 0.9 <= truth[2]:
        raise Wrong("With the whole subject clean before the first layer no noise is left. What must the third share be?")
    if np.abs(given[[1, 0, 2]] - truth).max() <= CLOSE / 2:
        raise Wrong("The first two are the wrong way round: the first token of the subject comes first.")
    raise Wrong("The first two are other numbers. Noise stays on both tokens, one of them gets its clean embedding back, "
                "and the result is on the scale from the noised prompt (0) to the clean one (1).")


@exercise("06.3", "Cut the MLPs")
def severed(answer: Any, model: Model, prompts: Sequence[str], answers: Sequence[str], subject: str, layer: int) -> str:
    """A spec: noise on the subject, one state restored, and the MLPs that could read it held at their noised values.

    Args:
        answer: The text. `{prompts}` and `{answers}` in it are the facts; its runs are `noised`, `restored` and `severed`,
            its metric is prob.
        model: The model.
        prompts: The facts.
        answers: What they go on with.
        subject: The position of the subject, such as "@-2".
        layer: The state that is restored is `resid_pre` of this layer, at the last token.

    Right is a text whose three runs give the probabilities that the noise, the restored state, and the restored state with
    the MLPs of this layer and all later ones at the last token held at the noised run's values give.
    """
    if not isinstance(answer, str):
        raise Wrong("The text of a spec is asked for.")
    given = _measured(model, answer, prompts, answers)
    truth = {site: _measured(model, NOISED % subject.removeprefix("@") + RUNS % (layer, layer, model.facts.n_layers, site),
                             prompts, answers) for site in ("mlp_out", "attn_out")}
    right, other = truth["mlp_out"], truth["attn_out"]
    if given["clean"] - given["noised"] < 0.5 * (right["clean"] - right["noised"]):
        raise Wrong("The run noised still gives most of the answer: 3 * sigma on the subject's embedding, in ten samples.")
    if abs(given["noised"] - right["noised"]) > CLOSE:
        raise Wrong("The run noised breaks the answer, but not as noise of 3 * sigma on the subject alone does.")
    if abs(given["restored"] - right["restored"]) > CLOSE:
        raise Wrong(f"The run restored should give back L{layer}.resid_pre at the last token, with the noise still on.")
    drawn_alike = abs(given["noised"] - right["noised"]) < SAME
    if abs(given["severed"] - right["severed"]) <= (SAME if drawn_alike else CLOSE):
        return "The state alone is not the answer: without the MLPs that read it, most of what it restored is gone."
    if abs(given["severed"] - given["restored"]) < 1e-6:
        raise Wrong("In severed nothing is cut: it is the same as restored, to the last digit.")
    if abs(given["severed"] - other["severed"]) <= CLOSE / 4:
        raise Wrong("Nearly nothing is lost in severed. That is what comes out when attention is held in place of the MLPs, "
                    "or when they are held to the wrong run.")
    raise Wrong(f"The runs noised and restored are right. In severed, hold mlp_out at the last token, from layer {layer} to "
                "the end, to the noised run, and keep the state restored.")


def _ends(model: Model, prompts: Sequence[str], answers: Sequence[str], subject: str) -> tuple[float, float]:
    """The mean probability of the answers, clean and noised."""
    found = model.run(NOISED % subject.removeprefix("@"), prompts=list(prompts), answers=list(answers)).metrics
    return found["clean"]["prob"], found["noised"]["prob"]


def _measured(model: Model, text: str, prompts: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """The probability of each run. Raises Wrong where one is missing."""
    names = {"prompts": list(prompts), "answers": list(answers)}
    try:
        values = {name: value for name, value in names.items() if f"{{{name}}}" in text}
        metrics = model.run(text, values=values).metrics
    except HooklabError as error:
        raise Wrong(f"The text does not run: {error}") from None
    missing = [name for name in ("clean", "noised", "restored", "severed") if name not in metrics]
    if missing or not all("prob" in numbers for numbers in metrics.values()):
        raise Wrong("The text should have the prompt clean, the runs noised, restored and severed, and metric prob; "
                    f"missing: {', '.join(missing) or 'prob'}.")
    return {name: numbers["prob"] for name, numbers in metrics.items()}
