"""How much attention goes from one group of tokens to another: `attention_mass`, `attention_shares`, `mass_between`.

In: a model, prompts, and groups of positions in the language's words (`"image"`, `"last"`, `'"Mary"[*]'`, slices, spans).
Out: Scores [layer head], with an axis for the groups where there are several. Patterns are summed up as they come by, one
layer at a time. No layout of a prompt is built in: what an image or a marker is, the tokens say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import TokenError
from ..positions import positions, resolve
from ..positions.match import occurrences
from ..positions.select import TokenText
from ..records import Scores
from ..statistics import ratio_interval
from ..tokens import Tokens
from .patterns import value_norms
from .watching import AttentionError, Seen, averaged, check, read, tokens_of, watch

if TYPE_CHECKING:
    from ..model.model import Model

WEIGHTINGS = {"attention": "attention", "value": "length of values", "write": "length of writes"}
"""What is summed, and its unit."""
REDUCES = ("mean", "sum")
Places = list[list[int]]


def attention_mass(model: Model, prompts: Any, rows: Any = "all", columns: Any = "all", *, diagonal: bool = True,
                   exclude: Any = None, reduce: str = "mean", weighting: str = "attention", above: float = 0.0,
                   relative: bool = False, marks: Mapping[str, Any] | None = None, seed: int = 0, **inputs: Any) -> Scores:
    """The attention that the tokens of one group pay to those of another, in every head.

    With the defaults it is a density: the share of its attention that a token of `rows` spends on `columns`, on average.
    Over disjoint groups that are all tokens, these add up to 1 (less what an attention sink takes).

    Args:
        model: An opened model.
        prompts: Text, ids, or a list of them.
        rows: The tokens that look: a position selector, or names -> selectors for several groups.
        columns: The tokens that are looked at: the same.
        diagonal: Whether a token's attention to itself counts.
        exclude: Columns that are left out of every group.
        reduce: `"mean"` over the rows, or their `"sum"`.
        weighting: `"attention"` sums the pattern A. `"write"` sums A · ‖v W_O‖, the lengths of what each token would add to
            the stream (Kobayashi et al. 2020, arXiv:2004.10102). `"value"` is the length of the sum, ‖Σ A v‖ over rows and
            columns, in which values may cancel; with the mean it is divided by the number of rows.
        above: Attention of this much or less counts as none: 1e-3 leaves out what is spread thin over many tokens.
        relative: Divide each example's mass by what it would be if every token looked alike at itself and all before it (at
            all tokens, in a model that is not causal): 1 is uniform attention whatever the groups are, 2 is twice as much
            of it. All uniform attention counts, whatever `above` says. nan where it is 0, as for tokens that lie ahead.
        marks: Name -> selector, for selectors that use names.
        seed: Of intervals.
        inputs: Further inputs, such as `images=`.

    Returns:
        Scores [layer head], after `query_group` where rows have names and `group` where columns have. A mean over examples,
        each of them in `.examples`; nan where an example has no token of a group, and only the others count then.

    Raises:
        AttentionError: there is no such weighting or way to reduce, or a dict of no groups.
        PositionError, TokenError: an example has no such position; or no example has such a token.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> groups = {"first": 0, "Mary": '"Mary"', "rest": 'all - (0 | "Mary")'}
        >>> mass = attention_mass(model, "When Mary and John went to the store", "last", groups)
        >>> mass.axes, bool(abs(mass.values.sum(0) - 1).max() < 1e-6)
        (('group', 'layer', 'head'), True)
    """
    check("weighting", weighting, tuple(WEIGHTINGS))
    check("reduce", reduce, REDUCES)
    if not 0 <= above < 1:
        raise AttentionError(f"above={above}: it is a share of attention, from 0 to below 1")
    prompt = read(model, prompts, **inputs)
    tokens = tokens_of(prompt)
    queries, keys = (_places(given, tokens, marks) for given in (rows, columns))
    _leave_out(keys, exclude, tokens, marks)
    facts = model.facts
    found = np.full((prompt.size, len(queries), len(keys), facts.n_layers, facts.n_heads), np.nan)

    def visit(seen: Seen) -> None:
        norms = value_norms(model, {f"L{seen.layer}.v": seen.values["v"]})[seen.layer] if weighting == "write" else None
        for example, pattern in seen.patterns():
            i = example - seen.first
            pattern = torch.where(pattern > above, pattern, 0.0) if above else pattern
            values = seen.of("v", example) if weighting == "value" else None
            lengths = norms[i, :, seen.spans[i]].to(pattern) if norms is not None else None
            for a, row in enumerate(queries.values()):
                looked = _looked(pattern, row[example], diagonal=diagonal, reduce=reduce)
                even = _looked(uniform(pattern, facts.causal), row[example], diagonal=diagonal,
                               reduce=reduce) if relative else None
                for b, column in enumerate(keys.values()):
                    if row[example] and column[example]:
                        mass = _over(looked, column[example], values, lengths)
                        if even is not None:
                            mass = _share(mass, _over(even, column[example], values, lengths))
                        found[example, a, b, seen.layer] = mass.cpu().numpy()

    watch(model, prompt, ("pattern",) if weighting == "attention" else ("v", "pattern"), visit)
    named = [("query_group", rows, queries, 1), ("group", columns, keys, 2)]
    axes = tuple(name for name, given, _, _ in named if isinstance(given, Mapping))
    coords = {name: tuple(groups) for name, given, groups, _ in named if isinstance(given, Mapping)}
    examples = found.squeeze(tuple(axis for _, given, _, axis in named if not isinstance(given, Mapping)))
    notes = ["" if diagonal else "without attention to oneself", "1 is uniform attention" if relative else ""]
    return averaged(examples, (*axes, "layer", "head"), coords, seed, note="; ".join(filter(None, notes)),
                    unit="times uniform" if relative else WEIGHTINGS[weighting],
                    name="attention mass" if reduce == "sum" else "attention density")


def attention_shares(model: Model, prompts: Any, rows: Any, groups: Mapping[str, Any], *, exclude: Any = None,
                     per: str = "layer", marks: Mapping[str, Any] | None = None, seed: int = 0, **inputs: Any) -> Scores:
    """How the attention from some tokens to several groups is divided among the groups, layer by layer.

    Which tokens of an image does the text read it through, say: all that text attends to in the image and its markers is 1,
    and the shares say how it falls on the groups. Masses are averaged over examples, rows and heads before they are divided.

    Args:
        model: An opened model.
        prompts: What the model takes, such as an encoding with images.
        rows: The tokens that look, such as `"text"`.
        groups: Name -> position selector of tokens that are looked at; no token in two groups.
        exclude: Columns that are left out, such as `":2"`.
        per: `"layer"`, or `"head"` for each head alone.
        marks: Name -> selector, for selectors that use names.
        seed: Of intervals.
        inputs: Further inputs, such as `images=`.

    Returns:
        Scores [group layer], or [group layer head]: they add up to 1 over the groups. A group that an example lacks gets
        nothing there; one that all lack is nan.

    Raises:
        AttentionError: groups share a token, there is none, or `per` is something else.
        PositionError, TokenError: as `attention_mass` does.

    Example:
        >>> import hooklab as hl
        >>> shares = attention_shares(hl.load("lab"), "When Mary and John went to the store", "last",
        ...                           {"names": '"Mary" | "John"', "rest": 'all - ("Mary" | "John")'}, exclude=0)
        >>> shares.axes, bool(abs(shares.values.sum(0) - 1).max() < 1e-6)
        (('group', 'layer'), True)
    """
    check("per", per, ("layer", "head"))
    if isinstance(rows, Mapping):
        raise AttentionError("shares are those of one group of rows: call once for each")
    prompt = read(model, prompts, **inputs)
    placed = _places(groups, tokens_of(prompt), marks)
    _leave_out(placed, exclude, tokens_of(prompt), marks)
    for one, other in combinations(placed, 2):
        if any(set(a) & set(b) for a, b in zip(placed[one], placed[other], strict=True)):
            raise AttentionError(f"{one} and {other} have tokens in common, which would count twice")
    mass = attention_mass(model, prompt, rows, groups, exclude=exclude, marks=marks)
    examples = mass.values[None] if mass.examples is None else mass.examples  # [batch group layer head]
    absent = np.isnan(mass.values).all((1, 2))
    examples = examples[~np.isnan(examples).all((1, 2, 3))]  # without rows there is nothing to divide
    examples = np.where(np.isnan(examples), 0.0, examples)
    return _divided(examples.mean(-1) if per == "layer" else examples, absent, tuple(groups), seed)


def _divided(examples: np.ndarray, absent: np.ndarray, groups: tuple[str, ...], seed: int) -> Scores:
    """Masses [batch group layer …] as shares of the groups' sum: means are divided, and each example by its own sum."""
    axes = ("group", "layer", "head")[:examples.ndim - 1]
    about: dict[str, Any] = dict(unit="share", name="attention shares", note=f"of the attention to {', '.join(groups)}")
    each = examples.sum(1)  # [batch layer …]
    shares = _ratio(examples, each[:, None])
    values = _ratio(examples.sum(0), each.sum(0)) if len(examples) else np.full(examples.shape[1:], np.nan)
    values[absent] = np.nan
    coords = {"group": groups}
    if len(examples) < 2:
        return Scores(values, axes, coords, **about)
    low, high = np.full((2, *values.shape), np.nan)
    for cell in np.ndindex(each.shape[1:]):
        low[:, *cell], high[:, *cell] = ratio_interval(examples[:, :, *cell], each[:, *cell], seed=seed)
    low[absent] = high[absent] = shares[:, absent] = np.nan
    return Scores(values, axes, coords, examples=shares, low=low, high=high, **about)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=np.broadcast_to(whole, part.shape) > 0)


def mass_between(pattern: Any, rows: Sequence[int], columns: Sequence[int], *, values: Any = None, norms: Any = None,
                 diagonal: bool = True, relative: bool = False, reduce: str = "mean") -> np.ndarray:
    """The same for patterns that are at hand.

    Args:
        pattern: [… query_pos key_pos]: an array or a tensor.
        rows: Positions that look.
        columns: Positions that are looked at.
        values: [key_pos kv_head d_head], for the length of their weighted sum; the pattern is [head query_pos key_pos] then.
        norms: [… key_pos], for the sum of weighted lengths.
        diagonal: Whether a token's attention to itself counts.
        relative: Divide by what uniform causal attention would have.
        reduce: `"mean"` over the rows, or their `"sum"`.

    Returns:
        […]; nan where there is no row or no column, and where it is divided by 0.

    >>> uniform = np.tril(np.ones((4, 4))) / np.arange(1, 5)[:, None]
    >>> float(mass_between(uniform, [2, 3], [0])), float(mass_between(uniform, [3], [2, 3], diagonal=False))
    (0.29166666666666663, 0.25)
    >>> float(mass_between(uniform, [2, 3], [0], relative=True)), float(mass_between(uniform, [0], [1], relative=True))
    (1.0, nan)

    Raises:
        AttentionError: values and norms are both given, there is no such way to reduce, or the pattern does not go from
            tokens to the same tokens, so that nothing can be said of uniform attention.
    """
    check("reduce", reduce, REDUCES)
    if values is not None and norms is not None:
        raise AttentionError("give values for the length of their sum, or norms for the sum of lengths, not both")
    whole = torch.as_tensor(pattern).detach().double()
    rows, columns = list(dict.fromkeys(rows)), list(dict.fromkeys(columns))
    if not rows or not columns:
        return np.full(whole.shape[:-2], np.nan)
    given = [None if x is None else torch.as_tensor(x).detach().to(whole) for x in (values, norms)]
    mass = _over(_looked(whole, rows, diagonal=diagonal, reduce=reduce), columns, *given)
    if relative:
        if whole.shape[-1] != whole.shape[-2]:
            raise AttentionError(f"a pattern of {whole.shape[-2]} by {whole.shape[-1]} tokens looks at other tokens than "
                                 "those that look: uniform causal attention is not known for it")
        mass = _share(mass, _over(_looked(uniform(whole), rows, diagonal=diagonal, reduce=reduce), columns, *given))
    return np.asarray(mass.cpu())


def uniform(pattern: Tensor, causal: bool = True) -> Tensor:
    """Attention of the shape of a pattern [… pos pos] that looks at all tokens it can see alike.

    >>> uniform(torch.zeros(2, 2)).tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """
    seen = torch.ones_like(pattern)
    seen = seen.tril() if causal else seen
    return seen / seen.sum(-1, keepdim=True)


def _share(mass: Tensor, baseline: Tensor) -> Tensor:
    return torch.where(baseline > 0, mass / baseline, torch.nan)


def _looked(pattern: Tensor, rows: Sequence[int], *, diagonal: bool, reduce: str) -> Tensor:
    """How much all rows together look at each key, [… key_pos]."""
    picked = pattern[..., list(rows), :].clone()
    if not diagonal:
        picked[..., range(len(rows)), list(rows)] = 0
    return picked.sum(-2) / (max(1, len(rows)) if reduce == "mean" else 1)


def _over(looked: Tensor, columns: Sequence[int], values: Tensor | None, lengths: Tensor | None) -> Tensor:
    """What falls on some columns [… head]: attention, the length of the weighted values, or the sum of lengths."""
    part = looked[..., list(columns)]
    if values is not None:
        each = values[list(columns)].repeat_interleave(looked.shape[-2] // values.shape[1], 1)  # [key head d_head]
        return torch.einsum("hk,khd->hd", part, each).norm(dim=-1)
    return (part if lengths is None else part * lengths[..., list(columns)]).sum(-1)


def _places(given: Any, tokens: Tokens, marks: Mapping[str, Any] | None) -> dict[str, Places]:
    """Name -> positions of each example; a selector alone has no name."""
    groups = dict(given) if isinstance(given, Mapping) else {"": given}
    if not groups:
        raise AttentionError("a dict of groups needs one group at least")
    return {str(name): _found(selector, tokens, marks) for name, selector in groups.items()}


def _found(selector: Any, tokens: Tokens, marks: Mapping[str, Any] | None) -> Places:
    """The positions of a group in each example, none where it is absent; a text that no example has is an error."""
    chosen = positions(selector)
    text = chosen.text if isinstance(chosen, TokenText) else None
    if text is not None and any(there := [bool(occurrences(tokens, i, text)) for i in range(len(tokens))]):
        return [resolve(chosen, tokens[i])[0] if there[i] else [] for i in range(len(tokens))]
    try:
        return resolve(chosen, tokens, marks=marks, allow_empty=True)
    except TokenError as error:
        raise TokenError(f"{error} (in a group of positions)") from None


def _leave_out(groups: dict[str, Places], exclude: Any, tokens: Tokens, marks: Mapping[str, Any] | None) -> None:
    if exclude is None:
        return
    gone = _found(exclude, tokens, marks)
    for name, places in groups.items():
        groups[name] = [[p for p in row if p not in out] for row, out in zip(places, gone, strict=True)]
