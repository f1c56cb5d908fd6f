"""Editing verbs to edits: each statement becomes axes and, for every point of them, one `Edit`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..positions import select as s
from ..spec import ast
from .align import alignment, all_positions, check_counts, check_keys
from .context import BASELINE, Context, Env
from .lower import value
from .options import in_turn, options
from .places import Choice, Sites
from .plan.cells import Axis
from .plan.edits import Edit
from .plan.reaches import Reach, Spread
from .plan.spots import Spot
from .plan.values import FromFile, Given, Same
from .positions import place_of, reach, spread, spread_groups
from .spot_sets import together

STREAMLESS = ("scores", "pattern")


@dataclass(frozen=True)
class Where:
    """Where a run happens: its prompt, the sweep variables in force, whether it writes on."""

    ctx: Context
    prompt: str
    env: Env
    writing: bool


@dataclass(frozen=True)
class Variants:
    """A statement's axes and its edit at each point, in row-major order."""

    axes: tuple[Axis, ...]
    edits: tuple[Edit, ...]


def variants(at: Where, statement: Any) -> Variants:
    """What a statement does, at every point of its own axes."""
    opts = options(at.ctx, statement.opts, statement.verb, at.env)
    _check_effect(at.ctx, statement, opts)
    draw = (opts["seed"], 0) if isinstance(opts.get("seed"), int) else at.ctx.draw(statement)
    default = "pattern" if statement.verb == "cut" else None
    sites = Sites(at.ctx, at.env, default)
    choice = sites.choice(statement.target, opts.get("window"))
    choice = replace(choice, cells=tuple(together(cell) for cell in choice.cells))
    if statement.verb == "cut":
        made = _cut(at, statement, choice, opts)
    else:
        made = _edit(at, statement, choice, opts)
    return Variants(made.axes, tuple(replace(edit, draw=draw, span=statement.span,
                                             reach=stepped(at, edit.reach, opts, statement)) for edit in made.edits))


def _check_effect(ctx: Context, statement: Any, opts: Mapping[str, Any]) -> None:
    """Refuse options that would change nothing on this line."""
    source = getattr(statement, "source", None)
    taken = isinstance(source, ast.Name) and source.id not in ctx.lets
    method = getattr(statement, "method", None) or ("mean" if getattr(statement, "over", None) is not None else "zero")
    idle = {
        "mlps": (True, "mlps= is for paths", "write patch L0H1 -> L2H1.q from clean"),
        "align": (not taken, "align= matches the positions of two runs, and this patches a value", "leave it out"),
        "per": (method != "mean", f"per= says how a mean is taken, and this is {method}", "write … with mean"),
        "seed": (statement.verb == "ablate" and method != "resample", f"seed= is for draws, and {method} draws nothing",
                 "write … with resample"),
    }
    for name, (wrong, message, hint) in idle.items():
        if name in opts and wrong:
            raise ctx.fail("value", message, next(opt for opt in statement.opts if opt.name == name), hint)


def stepped(at: Where, reach_: Reach, opts: Mapping[str, Any], statement: Any) -> Reach:
    """The step policy that an option states."""
    steps = opts.get("steps")
    if steps is None:
        return reach_
    if not at.writing:
        raise at.ctx.fail("value", "steps= chooses among the steps of a generation, and this run writes nothing",
                          statement, "add a line: generate 20")
    words: dict[Any, Callable[[int], bool]] = {"prompt": lambda n: n == 0, "new": lambda n: n > 0, "all": lambda n: True}
    if isinstance(steps, str):
        steps = words.get(steps)
    if isinstance(steps, int):
        steps = (steps,)
    if steps is None or not (callable(steps) or hasattr(steps, "__contains__")):
        raise at.ctx.fail("value", "steps= is prompt, new, all, a list of steps or a function of the step", statement)
    if reach_.at is not None:
        raise at.ctx.fail("value", "steps= chooses among whole steps, and the @ names tokens of the prompt", statement,
                          "leave one of them out")
    return replace(reach_, steps=steps if callable(steps) or isinstance(steps, range) else tuple(steps))


# Places and positions of a target ----------------------------------------------------------------------------------


def _reaches(at: Where, statement: Any) -> tuple[tuple[Axis, ...], list[tuple[Reach, int | None]]]:
    """The positions that a target names, one at a time if it says so."""
    place = place_of(at.ctx, statement.target)
    if isinstance(place, ast.AtEach):
        found, labels = spread_groups(at.ctx, place, at.prompt, at.env)
        return (Axis("pos", labels),), [(Reach(one), i) for i, one in enumerate(found)]
    return (), [(reach(at.ctx, place, at.prompt, at.env, writing=at.writing), None)]


def _edit(at: Where, statement: Any, choice: Choice, opts: dict[str, Any]) -> Variants:
    amounts = _amounts(at, statement)
    pos_axes, reaches = _reaches(at, statement)
    edits = []
    for spots, (where, group), (_, amount) in itertools.product(choice.cells, reaches, amounts[1]):
        edits.append(_one(at, statement, spots, where, group, amount, opts))
    return Variants((*choice.axes, *pos_axes, *amounts[0]), tuple(edits))


def _amounts(at: Where, statement: Any) -> tuple[tuple[Axis, ...], list[tuple[int, Any]]]:
    """The amounts of `by each [0, 1, 2]`, or the one amount."""
    amount = getattr(statement, "amount", None)
    if not isinstance(amount, ast.EachValue):
        return (), [(0, amount)]
    ctx = at.ctx
    if isinstance(amount.values, ast.Py):
        source = amount.values.source
        labels: Sequence[Any] = in_turn(ctx, amount.values, amount.values)[1]
        found: list[Any] = [Given(source, i) for i in range(len(labels))]
    else:
        found = list(amount.values.items)
        labels = [getattr(item, "value", -item.of.value if isinstance(item, ast.Neg) and isinstance(item.of, ast.Num)
                          else i) for i, item in enumerate(found)]
    if not found:
        raise ctx.fail("value", "there is no value to take in turn", amount)
    return (Axis("value", tuple(labels)),), list(enumerate(found))


def _one(at: Where, statement: Any, spots: tuple[Spot, ...], where: Reach, group: int | None, amount: Any,
         opts: dict[str, Any]) -> Edit:
    verb = statement.verb
    settings = {name: opts[name] for name in ("min", "max", "method") if name in opts}
    if verb == "zero":
        return Edit("zero", spots, where)
    if verb == "clamp":
        low, high = opts.get("min"), opts.get("max")
        if low is not None and high is not None and low > high:
            raise at.ctx.fail("value", f"min={low} is above max={high}", statement, "swap them")
        return Edit("clamp", spots, where, options=tuple(settings.items()))
    if verb == "patch":
        return _patch(at, statement, spots, where, group, opts)
    if verb == "freeze":
        run = at.ctx.untouched(statement.to or BASELINE, at.prompt, statement)
        return Edit("patch", spots, where, _same(at, run, statement, spots, where, None, group))
    if verb == "ablate":
        return _ablate(at, statement, spots, where, group, opts)
    node = statement.along if verb == "project_out" else amount
    if node is None:  # noise by its own spread
        node = ast.Name("sigma")
    lowered = node if isinstance(node, Given) else value(at.ctx, node, at.prompt, at.env, spots[0])
    return Edit(verb, spots, where, lowered)


def _patch(at: Where, statement: ast.Patch, spots: tuple[Spot, ...], where: Reach, group: int | None,
           opts: dict[str, Any]) -> Edit:
    """Another run's value of the same place, or any other value."""
    ctx, source = at.ctx, statement.source
    if isinstance(source, ast.Name) and source.id not in ctx.lets and source.id not in at.env:
        run = ctx.untouched(source.id, at.prompt, source)
        return Edit("patch", spots, where, _same(at, run, statement, spots, where, opts.get("align", "name"), group))
    lowered = value(ctx, source, at.prompt, at.env, spots[0])
    return Edit("patch" if isinstance(lowered, FromFile | Given) else "set", spots, where, lowered)


def _same(at: Where, run: str, statement: Any, spots: tuple[Spot, ...], where: Reach, align: str | None,
          group: int | None) -> Same:
    """The same place in another run, with its positions found there."""
    ctx = at.ctx
    source = ctx.runs[run].prompt
    sizes = ctx.inputs[source].size, ctx.inputs[at.prompt].size
    if sizes[0] not in (1, sizes[1]):
        raise ctx.fail("value", f"{run} has {sizes[0]} prompts and {at.prompt} has {sizes[1]}", statement,
                       "patch one to all, or one to one")
    if source == at.prompt:
        return Same(run, where.at)
    place = place_of(ctx, statement.target)
    if {spot.site for spot in spots} & set(STREAMLESS):
        check_keys(ctx, source, at.prompt, align, statement)
    if align in ("index", "token") or place is None or place == ast.AtEach() or (
            isinstance(place, ast.At) and place.pos == s.All()):
        target = where.at if where.at is not None else all_positions(ctx, at.prompt)
        return Same(run, alignment(ctx, align or "name", source, at.prompt, target, statement))
    if isinstance(place, ast.AtEach):
        found, ours = (spread_groups(ctx, place, prompt, at.env)[0] for prompt in (source, at.prompt))
        if len(found) != len(ours):
            raise ctx.fail("value", f"@each makes {len(found)} positions in {source} and {len(ours)} in {at.prompt}",
                           statement, "name what both have: @each[subject, last]")
        chosen: Spread = found[group] if group is not None else ()
    else:
        chosen = spread(ctx, place.pos, source, at.env, place)
    check_counts(ctx, source, chosen, at.prompt, where.at or (), statement)
    return Same(run, chosen)


def _ablate(at: Where, statement: ast.Ablate, spots: tuple[Spot, ...], where: Reach, group: int | None,
            opts: dict[str, Any]) -> Edit:
    """Zero, a mean, or another example's value."""
    ctx = at.ctx
    method = statement.method or ("mean" if statement.over is not None else "zero")
    if method == "zero":
        return Edit("zero", spots, where)
    run = BASELINE if statement.over is None else corpus(ctx, statement.over)
    run = ctx.untouched(run, at.prompt, statement)
    source = ctx.runs[run].prompt
    sites = {spot.site for spot in spots}
    attention = bool(sites & set(STREAMLESS))
    per = opts.get("per") or ("pos" if attention else "all")
    if method == "mean" and per == "all" and attention:
        raise ctx.fail("value", "attention is averaged at each position: its keys are positions too", statement,
                       "leave per=all out")
    if method == "resample" or per == "pos":
        lengths = set(ctx.tokens(source).lengths) | set(ctx.tokens(at.prompt).lengths)
        if where.at is None or attention or isinstance(place_of(ctx, statement.target), ast.AtEach):
            if len(lengths) > 1:
                raise ctx.fail("value", f"{method} at each position needs prompts of one length; there are "
                               f"{', '.join(map(str, sorted(lengths)))} tokens", statement,
                               "" if attention else "name a position that all have (@last), or take per=all")
        if where.at is None or isinstance(place_of(ctx, statement.target), ast.AtEach):
            chosen = None if where.at is None else (where.at[0],) * ctx.inputs[source].size
        else:
            place = place_of(ctx, statement.target)
            assert isinstance(place, ast.At)
            chosen = spread(ctx, place.pos, source, at.env, place)
            if len({len(row) for row in (*chosen, *where.at)}) > 1:
                raise ctx.fail("value", "the position means different numbers of tokens in the prompts", statement,
                               "name one token, such as @last")
        return Edit(method, spots, where, Same(run, chosen), (("per", "pos"),))
    return Edit("mean", spots, where, Same(run), (("per", "all"),))


def corpus(ctx: Context, over: ast.Name | ast.Py) -> str:
    """The prompt whose examples are averaged or drawn from; Python gives one without a name."""
    return over.id if isinstance(over, ast.Name) else "{" + over.source + "}"


# Attention edges ---------------------------------------------------------------------------------------------------


def _cut(at: Where, statement: ast.Cut, choice: Choice, opts: dict[str, Any]) -> Variants:
    """Edges from key positions to query positions, of whole layers or single heads."""
    ctx, target = at.ctx, statement.target
    key_place = place_of(ctx, target)
    if not isinstance(target.to, ast.At | ast.AtEach):
        raise ctx.fail("value", "cut needs the edges to cut", statement, "write cut L5H1 @subject -> @last")
    for spot in choice.cells[0]:
        if spot.site not in STREAMLESS:
            raise ctx.fail("value", f"attention is cut, and {spot} is no attention", statement, "write cut L5H1 @1 -> @last")
    renorm = opts.get("renorm", True)
    key_axes, keys = _edge_ends(at, key_place, "key_pos")
    query_axes, queries = _edge_ends(at, target.to, "query_pos")
    if any(not key.prompt for key in keys):
        raise ctx.fail("value", "edges are cut from tokens of the prompt, and @new are none", statement,
                       "write cut L5H1 @1 -> @new")
    if key_axes and not query_axes:
        key_axes = (Axis("pos", key_axes[0].labels),)
    edits = []
    for spots, key, query in itertools.product(choice.cells, keys, queries):
        _check_edge(at, key, query, statement)
        placed = tuple(replace(spot, site="scores" if renorm else "pattern") for spot in spots)
        edits.append(Edit("cut", placed, query, None, (("renorm", bool(renorm)),), key.at if key.at is not None
                          else all_positions(ctx, at.prompt)))
    return Variants((*choice.axes, *key_axes, *query_axes), tuple(edits))


def _edge_ends(at: Where, place: ast.Place | None, axis: str) -> tuple[tuple[Axis, ...], list[Reach]]:
    if isinstance(place, ast.AtEach):
        found, labels = spread_groups(at.ctx, place, at.prompt, at.env)
        return (Axis(axis, labels),), [Reach(one) for one in found]
    return (), [reach(at.ctx, place, at.prompt, at.env, writing=at.writing)]


def _check_edge(at: Where, key: Reach, query: Reach, statement: Any) -> None:
    """Refuse edges that causality has cut already."""
    if query.new or not at.ctx.world.facts.causal or key.at is None or query.at is None:
        return
    if all(min(k, default=0) > max(q, default=0) for k, q in zip(key.at, query.at, strict=True)):
        raise at.ctx.fail("value", "there is no such edge: every key comes after its query", statement,
                          "an edge goes from the token looked at to the token that looks: @subject -> @last")


EDITS = ("zero", "ablate", "patch", "freeze", "steer", "scale", "set", "clamp", "project_out", "noise", "cut")

__all__ = ["EDITS", "Variants", "Where", "corpus", "stepped", "variants"]
