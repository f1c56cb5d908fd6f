"""Exercises of the tour: say what the model says, find an activation, find a head."""

from __future__ import annotations

import re
from typing import Any

from ..model.model import Model
from .answers import head_of, parts_of, words_of
from .exercise import Wrong, exercise


@exercise("00.1", "Predict, then look")
def next_word(answer: Any, prompt: str, model: Model) -> str:
    """The word that the model finds likeliest after a prompt.

    Args:
        answer: The word, with or without the space in front.
        prompt: The prompt that the exercise gives.
        model: The notebook's model.
    """
    words = [word.strip(" .'\"") for word in words_of(answer)]
    if len(words) > 1:
        raise Wrong("One word is asked for: the likeliest.")
    logits = model.capture(prompt, "logits", at="last")["logits"][0]
    ranked = [model.tokenizer.decode(token).strip() for token in logits.topk(10).indices]
    if words[0] == ranked[0]:
        return "The model gives the thing to the one who is not the giver, whichever name comes first."
    if words[0] in re.findall(r"\w+", prompt):
        raise Wrong(f"{words[0]} is in the prompt, but the model finds another word likelier. Who gives, and who is left?")
    raise Wrong("That is not what comes out. Run the prompt with `show top 5` and read the first row.")


@exercise("00.2", "How large is it?")
def stream_shape(answer: Any, prompt: str, model: Model) -> str:
    """The shape of the residual stream of a prompt at one layer, as (batch, pos, d_model).

    Args:
        answer: Three numbers; a `torch.Size` will do.
        prompt: The prompt that the exercise gives.
        model: The notebook's model.
    """
    shape = tuple(parts_of(answer) or ())
    if not shape or not all(isinstance(part, int) and not isinstance(part, bool) for part in shape):
        raise Wrong("Three whole numbers are asked for, such as (2, 7, 64).")
    tokens, width = len(model.tokens(prompt).pieces[0]), model.facts.d_model
    if shape == (1, tokens, width):
        return "One prompt, a vector for each token. Every layer has a stream of this same shape: layers only add to it."
    if len(shape) != 3:
        raise Wrong(f"There are three axes, batch, pos and d_model, and the answer has {len(shape)}.")
    if shape[0] != 1:
        raise Wrong("The first axis is batch, the number of prompts, and there is one.")
    if shape[1] != tokens:
        raise Wrong(f"The second axis is pos. {shape[1]} is not the number of tokens; did you count words? "
                    "`model.tokens(prompt)` lists what the model sees, a beginning included if it adds one.")
    raise Wrong("The third axis is d_model, the width of the stream. `model.facts` says how wide this model is.")


@exercise("00.3", "Break it")
def needed_head(answer: Any, prompt: str, right: str, wrong: str, model: Model) -> str:
    """The head without which the model prefers the right answer least.

    Args:
        answer: One head, as "L2H5" or (2, 5).
        prompt: The prompt that the exercise gives.
        right: The answer that counts.
        wrong: The one it competes with.
        model: The notebook's model.
    """
    from ..analysis.sweep import sweep

    head = head_of(answer, model)
    effects = sweep(model, prompt, sites="L*H*", method="zero", answer=right, wrong=wrong).values
    name = f"L{head[0]}H{head[1]}"
    if effects[head] > 0:
        raise Wrong(f"Without {name} the difference grows: this head holds the answer back. Look for a fall instead.")
    if better := int((effects < effects[head]).sum()):
        raise Wrong(f"Setting {name} to zero changes the difference by {effects[head]:.2f}; "
                    f"{'another head does' if better == 1 else f'{better} other heads do'} more harm.")
    return f"Without {name} the difference falls by {-effects[head]:.1f} logits. Notebook 05 asks what it does there."
