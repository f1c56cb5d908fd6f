"""Where heads look: `head_scores`, `induction_scores`, `attention_entropy` and `top_attended`.

In: a model and prompts, or random tokens that are repeated. Out: Scores [layer head], a mean over examples with its
interval. `watch` is what every analysis of attention runs on: it hands over each layer's values as they come by, so that no
more than one layer is held at a time, and without padding.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..address import expand
from ..model.opened import needs_opened
from ..positions import resolve
from ..records import Activations, Scores
from ..runtime.readings import TARGETS
from ..runtime.world import ModelWorld
from ..spec.printer import quote
from ..tokens import Tokens
from .watching import AttentionError, Seen, averaged, check, read, tokens_of, watch

if TYPE_CHECKING:
    from ..model.model import Model

KINDS = tuple(TARGETS)


def head_scores(model: Model, prompts: Any = None, kind: str | Sequence[str] = "induction", *, period: int = 20,
                repeats: int = 2, batch: int = 8, opening: Sequence[int] | None = None, seed: int = 0,
                **inputs: Any) -> Scores:
    """How much each head attends from a token to where a head of a kind would look.

    | kind | a token looks at |
    |---|---|
    | `previous` | the token before it |
    | `current` | itself |
    | `first` | the first token of the prompt, where heads without a target rest |
    | `duplicate` | the last earlier occurrence of the same token |
    | `induction` | the token after that occurrence (Olsson et al. 2022, arXiv:2209.11895) |

    An example's score is the mean over its tokens that have such a place; a model's score the mean over examples.

    Args:
        model: An opened model.
        prompts: Text, ids, or a list of them; None for random tokens that are repeated. There a head of kind `duplicate`
            looks `period` back, and one of kind `induction` looks `period - 1` back.
        kind: One of the table, or several for an axis of them.
        period: After how many random tokens they come again; within a period none comes twice.
        repeats: How often they come.
        batch: How many examples are drawn.
        opening: Ids before the random ones; by default what the tokenizer puts before every prompt.
        seed: Of random tokens and intervals.
        inputs: Further inputs, such as `images=`.

    Returns:
        Scores [layer head], or [kind layer head]; each example in `.examples`, a 95 % bootstrap interval in `.low` and
        `.high` where there are several.

    Raises:
        AttentionError: there is no such kind, or no token has a place of it; or so many random tokens cannot be drawn.
        PromptError: the prompt is one that this model cannot take.

    Example:
        >>> import hooklab as hl
        >>> scores = head_scores(hl.load("lab"), kind=["induction", "previous"])
        >>> scores.axes, float(scores.sel(kind="induction").values.max()) > 0.8
        (('kind', 'layer', 'head'), True)
    """
    needs_opened(model)
    kinds = (kind,) if isinstance(kind, str) else tuple(kind)
    for one in kinds or ("",):
        check("kind of head", one, KINDS)
    drawn = prompts is None
    prompt = read(model, repeated_tokens(model, period, repeats, batch, opening, seed) if drawn else prompts, **inputs)
    pairs = [[_pairs(ids, one) for ids in tokens_of(prompt).ids] for one in kinds]
    for one, found in zip(kinds, pairs, strict=True):
        if not any(len(queries) for queries, _ in found):
            raise AttentionError(f"no token of the prompt has a place that a head of kind {one} would look at; "
                                 "induction and duplicate need tokens that come twice: leave prompts away for random ones")
    scores = np.full((prompt.size, len(kinds), model.facts.n_layers, model.facts.n_heads), np.nan)

    def visit(seen: Seen) -> None:
        for example, pattern in seen.patterns():
            for i, found in enumerate(pairs):
                queries, keys = found[example]
                if len(queries):
                    scores[example, i, seen.layer] = pattern[:, queries, keys].mean(-1).cpu().numpy()

    watch(model, prompt, ("pattern",), visit)
    note = (f"{batch} × {period} random tokens, {repeats} times in a row, seed {seed}" if drawn else "")
    if not isinstance(kind, str):
        return averaged(scores, ("kind", "layer", "head"), {"kind": kinds}, seed, unit="attention", name="head scores",
                        note=note)
    spec = f"prompt {quote(prompts)}\nscore each L*H* with {kind}" if isinstance(prompts, str) and not inputs else ""
    return averaged(scores[:, 0], ("layer", "head"), {}, seed, unit="attention", name=kind, note=note, spec=spec)


def induction_scores(model: Model, prompts: Any = None, **options: Any) -> Scores:
    """How much each head attends to what followed the same token before; `head_scores` of kind `induction`.

    >>> import hooklab as hl
    >>> induction_scores(hl.load("lab")).top(1)[0][0]["layer"]
    1

    Raises:
        AttentionError, PromptError: as `head_scores` does.
    """
    return head_scores(model, prompts, "induction", **options)


def attention_entropy(model: Model, prompts: Any, positions: Any = "all", *, seed: int = 0, **inputs: Any) -> Scores:
    """How spread out each head's attention is: the entropy of the rows of its pattern, in nats.

    0 where a head looks at one token alone, log n where it looks at n tokens alike. A row is divided by its sum first, so
    what an attention sink takes is no part of it.

    Args:
        model: An opened model.
        prompts: Text, ids, or a list of them.
        positions: Those that look, such as `"last"`; their mean is taken. The first token of a causal model has one token
            to look at, so its entropy is 0.
        seed: Of intervals.
        inputs: Further inputs, such as `images=`.

    Returns:
        Scores [layer head].

    Raises:
        PositionError, TokenError: an example has no such position.

    >>> import hooklab as hl
    >>> bool((attention_entropy(hl.load("lab"), "The capital of France is", positions=0).values == 0).all())
    True
    """
    prompt = read(model, prompts, **inputs)
    rows = resolve(positions, tokens_of(prompt))
    scores = np.full((prompt.size, model.facts.n_layers, model.facts.n_heads), np.nan)

    def visit(seen: Seen) -> None:
        for example, pattern in seen.patterns():
            row = pattern[:, rows[example]]
            row = row / row.sum(-1, keepdim=True)
            scores[example, seen.layer] = torch.special.entr(row).sum(-1).mean(-1).cpu().numpy()

    watch(model, prompt, ("pattern",), visit)
    return averaged(scores, ("layer", "head"), {}, seed, unit="nats", name="attention entropy")


def top_attended(source: Any, prompt: Any = None, head: str | tuple[int, int] | None = None, k: int = 3) -> Scores:
    """The tokens that each token attends to most, in one head.

    Args:
        source: An opened model, what it captured (`model.capture(prompt, "L2.pattern")`), or a pattern [query_pos key_pos].
        prompt: For a model the prompt; for a pattern its tokens (`model.tokens(prompt)`) or None.
        head: Such as `"L2H3"` or (2, 3); not for a pattern.
        k: How many.

    Returns:
        Scores [query_pos rank]: weights, largest first (of equal ones the earlier token). `labels` has the tokens, such as
        `"3: Mary"`; nan and no label where fewer than k tokens get any attention.

    Raises:
        AttentionError: the head is missing or there are several, k is no count, or the tokens do not fit the pattern.

    Example:
        >>> import hooklab as hl
        >>> found = top_attended(hl.load("lab"), "Mary saw John", "L0H1", k=2)
        >>> found.shape, found.coords["query_pos"][1:]
        ((4, 2), ('1: Mary', '2:  saw', '3:  John'))
    """
    if not isinstance(k, int) or k < 1:
        raise AttentionError(f"k={k}: how many tokens are wanted is a count from 1")
    pattern, pieces = _one_pattern(source, prompt, head)
    names = np.array([f"{i}: {pieces[i]}" if pieces else str(i) for i in range(pattern.shape[1])])
    best = np.argsort(-pattern, axis=-1, kind="stable")[:, :k]
    weights = np.take_along_axis(pattern, best, -1)
    spare = max(0, k - weights.shape[1])
    weights = np.pad(np.where(weights > 0, weights, np.nan), ((0, 0), (0, spare)), constant_values=np.nan)
    labels = np.pad(names[best], ((0, 0), (0, spare)))
    named = head if isinstance(head, str) or head is None else "L{}H{}".format(*head)
    queries = tuple(names) if pieces else tuple(range(len(pattern)))
    return Scores(weights, ("query_pos", "rank"), {"query_pos": queries}, "attention",
                  "most attended" + (f" by {named}" if named else ""), labels=np.where(np.isnan(weights), "", labels))


def repeated_tokens(model: Model, period: int = 20, repeats: int = 2, batch: int = 1,
                    opening: Sequence[int] | None = None, seed: int = 0) -> list[list[int]]:
    """Ids of random tokens that are repeated: `period` different ones, `repeats` times in a row. Special ones are not drawn.

    Raises:
        AttentionError: the period is shorter than 2 or longer than the vocabulary, or there are fewer than 2 repeats.

    >>> import hooklab as hl
    >>> row = repeated_tokens(hl.load("lab"), 5, 3, opening=[])[0]
    >>> len(row), row[:5] == row[5:10] == row[10:]
    (15, True)
    """
    if period < 2 or repeats < 2 or batch < 1:
        raise AttentionError("repeated tokens need a period of 2 tokens, 2 repeats and 1 example, or more of each; not "
                             f"period={period}, repeats={repeats}, batch={batch}")
    world = ModelWorld(model)
    special: set[Any] = set()
    for name in ("bos", "eos", "pad", "unk"):  # a model without a tokenizer knows its special tokens by its config
        ids = getattr(model.layout.config, f"{name}_token_id", None)
        special.update(ids if isinstance(ids, list) else [ids])
    words = [word for word in world.vocabulary() if word not in special]
    if period > len(words):
        raise AttentionError(f"period={period}: this vocabulary has {len(words)} tokens that are not special")
    draw = random.Random(seed)
    start = list(world.opening() if opening is None else opening)
    return [[*start, *(draw.sample(words, period) * repeats)] for _ in range(batch)]


# What attention is read with -------------------------------------------------------------------------------------------


def numbered(model: Model, head: Any) -> tuple[int, int]:
    """(layer, head) of `"L2H3"` or (2, 3). Raises AttentionError where that is not one head, LayerError where none."""
    if isinstance(head, tuple) and len(head) == 2:
        head = "L{}H{}".format(*head)
    facts = model.facts
    found = expand(f"{head}.pattern", n_layers=facts.n_layers, n_heads=facts.n_heads) if isinstance(head, str) else []
    if len(found) != 1 or found[0].heads is None or len(found[0].heads) != 1 or found[0].layer is None:
        raise AttentionError(f'one head is needed, such as "L2H3" or (2, 3), not {head!r}')
    return found[0].layer, found[0].heads[0]


def _pairs(ids: tuple[int, ...], kind: str) -> tuple[list[int], list[int]]:
    """Queries, and the keys that they would look at."""
    found = TARGETS[kind](ids)
    return [query for query, _ in found], [key for _, key in found]


def _one_pattern(source: Any, prompt: Any, head: Any) -> tuple[np.ndarray, Sequence[str]]:
    """A pattern [query_pos key_pos] without padding and the pieces of its tokens, none where they are not known."""
    if not hasattr(source, "facts") and not isinstance(source, Activations):
        pattern = np.asarray(source.detach().double().cpu() if isinstance(source, Tensor) else source, dtype=np.float64)
        pieces = prompt.pieces[0] if isinstance(prompt, Tokens) else tuple(prompt or ())
        if pattern.ndim != 2 or (pieces and len(pieces) != pattern.shape[1]):
            raise AttentionError("a pattern [query_pos key_pos] is needed, with a token for each key, not "
                                 f"{pattern.shape} and {len(pieces)} tokens")
        return pattern, pieces
    if isinstance(source, Activations):
        layer, _, number = str(head if isinstance(head, str) else "L{}H{}".format(*head or ("", ""))).partition("H")
        tokens, whole = source.tokens, source[f"{layer}.pattern"]
        at = int(number) if number.isdigit() else -1
    else:
        layer_, at = numbered(source, head)
        acts = source.capture(prompt, f"L{layer_}.pattern")
        tokens, whole = acts.tokens, acts[f"L{layer_}.pattern"]
    if tokens is None or len(tokens) != 1 or not 0 <= at < whole.shape[1]:
        raise AttentionError(f"one prompt and one of {whole.shape[1]} heads are needed, not head={head!r} of "
                             f"{whole.shape[0]} prompts")
    return np.asarray(whole[0, at].double().cpu()), tokens.pieces[0]
