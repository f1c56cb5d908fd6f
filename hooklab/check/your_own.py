"""Checks of the tutorial on one's own analyses and architectures: an oracle, padding, and a table of names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import HooklabError
from ..families import FAMILIES, Family, register
from ..model.load import load
from .answers import number_of, tensor_of
from .exercise import Wrong, exercise

CLOSE = 1e-3
SITES = ("resid_mid", "mlp_pre", "mlp_pre_linear", "mlp_post", "mlp_out", "q", "k", "v", "ln1", "ln2", "ln_final", "logits")
"""What the table must not lose."""


@exercise("10.1", "One more oracle")
def even_distance(answer: Any, n: int) -> str:
    """The mean distance of a head that attends evenly, in a text of `n` tokens.

    Args:
        answer: A number.
        n: How many tokens.

    Right is the mean over all tokens but the first of half their position.
    """
    value = number_of(answer)
    truth = sum(range(1, n)) / 2 / (n - 1)
    if abs(value - truth) < CLOSE:
        return ("Half of what a head gets that always looks at the first token. An answer known beforehand is worth more "
                "than any number of plausible ones.")
    for wrong, words in ((sum(range(n)) / 2 / n, "That counts the first token too, which can look at nothing but itself "
                                                 "and has a distance of 0 by necessity."),
                         (n / 2, "That is the distance of a head that looks at the first token only. This one also looks "
                                 "at all between."),
                         ((n - 1) / 2, "That is what the last token sees. The tokens before it see less far back."),
                         (sum((q + 1) / 2 for q in range(1, n)) / (n - 1), "The token itself is 0 back and not 1: start "
                                                                           "counting there.")):
        if abs(value - wrong) < CLOSE:
            raise Wrong(words)
    raise Wrong("It is another number. From token q, the keys lie 0, 1, …, q back with the same weight; average that, then "
                "average over the tokens.")


@exercise("10.2", "Leave the padding out")
def padded_distance(answer: Any) -> str:
    """A function that averages attention distances over a batch that is padded on the left.

    Args:
        answer: `mean_distance(patterns, lengths)`: patterns [batch head query_pos key_pos], lengths: integers.

    Right is what gives, for drawn patterns, the mean over examples of each one's own distances, [head], whatever the
    padding holds.
    """
    if not callable(answer):
        raise Wrong("A function is asked for: define mean_distance(patterns, lengths), then answer = mean_distance, "
                    "without calling it.")
    _judge(answer, (6, 6, 6), 0.0)
    for fill in (0.0, 0.5, float("nan")):
        _judge(answer, (9, 4, 6), fill)
    return "The padding enters no number, and every example counts once. A planted nan finds what a planted 0 lets pass."


def _judge(answer: Callable[..., Any], lengths: tuple[int, ...], fill: float) -> None:
    """Compare one call with distances taken from each example by itself."""
    patterns, each = _planted(lengths, fill)
    before = patterns.clone()
    try:
        found = answer(patterns, list(lengths))
    except Exception as error:
        raise Wrong(f"Called with lengths {list(lengths)}, the function raises {type(error).__name__}: {error}") from None
    if not torch.equal(patterns.nan_to_num(7), before.nan_to_num(7)):
        raise Wrong("The function changes the patterns that it was given.")
    if torch.is_tensor(found) and tuple(found.shape) == (len(lengths), patterns.shape[1]):
        raise Wrong("There is a row for every example. The mean over the examples is asked for: [head].")
    if torch.is_tensor(found) and found.isnan().any():
        raise Wrong("The nan that stands in the padding comes out again. Cut the padding off before computing: nan times 0 "
                    "is nan.")
    value = tensor_of(found, (patterns.shape[1],), "head")
    if torch.allclose(value, each.mean(0), atol=CLOSE):
        return
    if torch.allclose(value, each.sum(0), atol=CLOSE):
        raise Wrong("That is the sum over the examples, and the mean is asked for.")
    weights = torch.tensor(lengths).float()[:, None]
    for weight in (weights, weights - 1):
        if torch.allclose(value, (each * weight).sum(0) / weight.sum(), atol=CLOSE):
            raise Wrong("Long examples count for more than short ones here. Average within each example first.")
    if len(set(lengths)) == 1:
        raise Wrong("Already for examples of one length, without padding, the numbers are others. Is the first token of "
                    "each left out, and is the query's position taken less the key's?")
    raise Wrong("Where examples are of one length the numbers are right, with padding they are not. The padding stands on "
                "the left: which rows and columns are the real ones? And is the first real token left out?")


def _planted(lengths: tuple[int, ...], fill: float, heads: int = 3) -> tuple[Tensor, Tensor]:
    """Drawn patterns padded on the left with `fill`, and the distances of each example by a loop, [batch head]."""
    draw, width = torch.Generator().manual_seed(len(set(lengths))), max(lengths)
    patterns, each = torch.full((len(lengths), heads, width, width), fill), torch.zeros(len(lengths), heads)
    for b, n in enumerate(lengths):
        own = torch.rand(heads, n, n, generator=draw).tril()
        own = own / own.sum(-1, keepdim=True)
        patterns[b, :, width - n:, width - n:] = own
        for h in range(heads):
            each[b, h] = sum(float(own[h, q, k]) * (q - k) for q in range(1, n) for k in range(q)) / (n - 1)
    return patterns, each


@exercise("10.3", "A table for a stranger")
def family_table(answer: Any, module: Any) -> str:
    """The table of an architecture whose MLP has one fused projection.

    Args:
        answer: A `hl.Family`.
        module: A transformers model of that architecture.

    Right is a table under the model's own `model_type` with which every site is there and `model.verify()` passes.
    """
    if not isinstance(answer, Family):
        raise Wrong("A table is asked for: replace(LLAMA, name=…, and the rows that differ).")
    kind = module.config.model_type
    if answer.name != kind:
        raise Wrong(f'The table is for "{answer.name}", and the model says of itself that it is a "{kind}".')
    before = FAMILIES.get(kind)
    try:
        report, missing = _tried(answer, module)
    finally:
        if before is None:
            FAMILIES.pop(kind, None)
        else:
            FAMILIES[kind] = before
    if not report.ok:
        site, reason = next(iter(report.broken.items()), ("the model", "its numbers are not finite"))
        raise Wrong(f"verify does not pass; the first of {len(report.broken)} sites that fail is {site}: {reason}.")
    if missing:
        raise Wrong(f"verify passes, but the table gives up {', '.join(missing)}, which this architecture has. What a "
                    "table leaves out cannot fail.")
    return "verify passes and no site is missing: from here on every analysis works on the stranger as on a Llama."


def _tried(table: Family, module: Any) -> tuple[Any, list[str]]:
    """The report of `verify` under a table, and the sites that are missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they would say, the report says
            register(table)
            report = load(module).verify()
    except HooklabError:
        raise
    except Exception as error:
        raise Wrong(f"With this table the model does not run ({type(error).__name__}: {error}). A row names a module that "
                    "is there, and does another job.") from None
    return report, [site for site in SITES if table.for_config(module.config).missing(site)]
