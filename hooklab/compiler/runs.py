"""Run blocks to `RunPlan`s: sweeps laid out as cells, reads and generation attached, sources noted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from math import prod
from typing import Any

from ..positions import marks_in
from ..positions.select import Selector
from ..spec import ast
from .context import IMPLICIT, Context
from .keeps import kept_once
from .options import in_turn, options
from .paths import path_patch
from .places import Env, Sites, place_of, reach
from .plan import Axis, Cell, Edit, Given, Keep, RunPlan, Same, Spot, acts, answering, at_spot, named_apart, sources
from .reads import reading
from .statements import EDITS, Where, variants
from .writing import writing as write_on

READS = ("attribute", "score", "lens")
MAX_CELLS = 200_000


def add_runs(ctx: Context, spec: ast.Spec) -> None:
    """Compile every run of a spec into `ctx.runs`."""
    blocks = [s for s in spec.body if isinstance(s, ast.Run)]
    loose = [s for s in spec.body if s.verb in (*EDITS, *READS, "save", "generate")]
    shared = [s for s in loose if isinstance(s, ast.Generate)] if blocks else []
    rest = [s for s in loose if s not in shared]
    for i, block in enumerate(blocks):
        with ctx.going_on():
            name = block.name or _free(ctx, IMPLICIT if i == 0 else f"{IMPLICIT}_{i + 1}")
            body = list(block.body)
            if not any(isinstance(s, ast.Generate) for s in body):
                body += shared
            _add(ctx, name, block.on, body, block)
    if rest or (loose and not blocks):
        with ctx.going_on():
            on = _only_prompt(ctx, rest or loose)
            edited = any(s.verb in EDITS for s in rest)
            _add(ctx, _free(ctx, IMPLICIT) if edited else on, on, rest or loose, (rest or loose)[0])


def _free(ctx: Context, name: str) -> str:
    count, base = 2, name
    while name in ctx.runs:
        name, count = f"{base}_{count}", count + 1
    return name


def _only_prompt(ctx: Context, statements: list[Any]) -> str:
    """The prompt that verbs outside a block act on: the only one, or the one that is not their source."""
    sources = {getattr(s, "source", None) for s in statements if isinstance(s, ast.Attribute)}
    left = [name for name in ctx.prompts if name not in sources]
    if len(left) == 1:
        return left[0]
    raise ctx.fail("value", f"which of the prompts {', '.join(ctx.prompts)} is this for?", statements[0],
                   f"write it in a block: run on {left[-1] if left else 'NAME'}:")


def _add(ctx: Context, name: str, on: str, body: list[Any], where: Any) -> None:
    base = ctx.runs.get(on)
    if base is None:
        raise ctx.fail("name", f"there is no prompt or run {on!r}", where, f"there are {', '.join(ctx.runs)}")
    writing = [s for s in body if isinstance(s, ast.Generate)]
    edits = [s for s in body if s.verb in EDITS]
    untouched = name == on
    axes, cells = _cells(ctx, name, base, edits, body, bool(writing))
    if ctx.problems:  # what else is wrong in this run is worth knowing too
        axes, cells = base.axes, base.cells
    run = RunPlan(name, base.prompt, axes, cells, max([base.samples, *(_samples(ctx, s) for s in edits)]),
                  captures=base.captures if untouched else frozenset())
    ctx.runs[name] = run
    needs = note_needs(ctx, name, (edit for cell in cells for edit in cell.edits))
    lines = {name: edit.span for cell in cells[:1] for edit in cell.edits for name in sources(edit)}
    _check_sources(ctx, run, lines)
    saves = [s for s in body if isinstance(s, ast.Save)]
    keeps = kept_once(ctx, _each(ctx, lambda s: _keep(ctx, run, s, bool(writing)), saves))
    written = _each(ctx, lambda lines: write_on(ctx, lines, base.prompt), [writing])
    readings = _each(ctx, lambda s: reading(ctx, run, s), [s for s in body if s.verb in READS])
    needs |= {str(r.option("source")) for r in readings if r.option("source")}
    captured = {Spot(spot.site, spot.layer) for keep in keeps for spot in keep.spots}
    ctx.runs[name] = replace(ctx.runs[name], needs=frozenset(needs - {name}), keeps=keeps, readings=readings,
                             captures=ctx.runs[name].captures | (frozenset() if writing else frozenset(captured)),
                             writing=written[0] if written else None)
    _check_sources(ctx, run, {str(r.option("source")): r.span for r in readings if r.option("source")})
    for r in readings:
        _note_reading(ctx, r)


def _check_sources(ctx: Context, run: RunPlan, lines: dict[str, Any]) -> None:
    """A run that takes from a swept one, at the line that says so, must vary over the same things."""
    for name, where in lines.items():
        source = ctx.runs[name]
        if not source.hidden and answering(source, run, 0) is None:
            axes = ", ".join(axis.name for axis in source.axes)
            ctx.problem("value", f"{name} is swept over {axes}, and {run.name}, which takes from it, is not", where,
                        f"sweep both over the same, or write run {run.name} on {name}:")


def _each(ctx: Context, make: Callable[[Any], Any], statements: Sequence[Any]) -> tuple[Any, ...]:
    """What every statement makes; one that is wrong is left out, its problem noted."""
    made = []
    for statement in statements:
        with ctx.going_on():
            made.append(make(statement))
    return tuple(made)


def _samples(ctx: Context, statement: Any) -> int:
    given = tuple(opt for opt in statement.opts if opt.name == "samples")  # which no sweep can change
    count = options(ctx, given, statement.verb).get("samples", 1)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ctx.fail("value", f"samples= takes a whole number from 1 up, not {count!r}", statement)
    return count


def _keep(ctx: Context, run: RunPlan, statement: ast.Save, writing: bool) -> Keep:
    """What a `save` line keeps; one that follows a sweep variable keeps something else in each cell."""
    swept = {axis.variable for axis in run.axes if axis.variable} & _variables(ctx, [statement])
    if not swept:
        return _keep_at(ctx, run, statement, {}, writing)
    values = {name: _sweep_values(ctx, ctx.sweeps[name])[1] for name in sorted(swept)}
    cells = []
    for cell in run.cells:
        env = {axis.variable: values[axis.variable][i] for axis, i in zip(run.axes, cell.index, strict=True)
               if axis.variable in swept}
        cells.append(_keep_at(ctx, run, statement, env, writing))
    places = {len(keep.spots) for keep in cells}
    if len(places) > 1:
        raise ctx.fail("value", "this saves different numbers of places along the sweep", statement)
    name = statement.name or str(ast.Spec((replace(statement, opts=()),))).removeprefix("save ").partition(" @")[0]
    spots = tuple(dict.fromkeys(spot for keep in cells for spot in keep.spots))
    return Keep(name, spots, cells[0].reach, statement.span, tuple(replace(keep, name=name) for keep in cells))


def _keep_at(ctx: Context, run: RunPlan, statement: ast.Save, env: Env, writing: bool) -> Keep:
    spots = Sites(ctx, env).choice(replace(statement.target, each=False)).cells[0]
    at = place_of(ctx, statement.target)
    if isinstance(at, ast.AtEach):
        at = None if at.pos is None else ast.At(at.pos, span=at.span)
    return Keep(statement.name, spots, reach(ctx, at, run.prompt, env, writing=writing), statement.span)


# Cells -------------------------------------------------------------------------------------------------------------


def _cells(ctx: Context, name: str, base: RunPlan, edits: list[Any], body: list[Any],
           writing: bool) -> tuple[tuple[Axis, ...], tuple[Cell, ...]]:
    """The cells of a run: those of the run it stacks on, times its sweep variables, times its own `each`.

    A variable that the run below is swept over has the same value in this one.
    """
    used = _variables(ctx, body)
    swept = {v: _sweep_values(ctx, s) for v, s in ctx.sweeps.items() if v in used}
    below = {axis.variable: place for place, axis in enumerate(base.axes) if axis.variable in swept}
    free = [v for v in swept if v not in below]
    outer = tuple(Axis(v, swept[v][0], variable=v) for v in free)
    points = prod(len(values) for _, values in swept.values())
    own: tuple[Axis, ...] | None = None
    cells: list[Cell] = []
    cached: dict[Any, list[Any]] = {}
    for base_cell in base.cells:
        held = {str(v): base_cell.index[place] for v, place in below.items()}
        for index, picked in _product([swept[v][1] for v in free]):
            env: Env = {v: swept[v][1][i] for v, i in held.items()} | dict(zip(free, picked, strict=True))
            key = (*held.values(), *index)
            parts = cached.get(key)
            if parts is None:
                drawn = dict(ctx.drawn)
                at = Where(ctx, base.prompt, env, writing)
                parts = cached[key] = list(_each(ctx, lambda s, at=at: _statement(ctx, name, at, s), edits))  # type: ignore[misc]
                if len(parts) < len(edits):
                    return (), ()
                if len(cached) < points:
                    ctx.drawn = drawn  # a line draws the same numbers at every value of a sweep variable
            axes = tuple(axis for part in parts for axis in part.axes)
            if own is not None and axes != own:
                raise ctx.fail("value", "the places swept over change with a sweep variable", edits[0],
                               "sweep over one of the two")
            own = axes if own is None else own
            for place, chosen in _product([part.edits for part in parts]):
                inner = tuple(n for i, part in zip(place, parts, strict=True) for n in _unravel(i, part.axes))
                cells.append(Cell((*base_cell.index, *index, *inner), (*base_cell.edits, *chosen)))
                if len(cells) > MAX_CELLS:
                    raise ctx.fail("value", f"this sweep has more than {MAX_CELLS} points", edits[0], "sweep over less")
    return named_apart((*base.axes, *outer, *(own or ()))), tuple(cells)


def _statement(ctx: Context, name: str, at: Where, statement: Any) -> Any:
    if isinstance(statement, ast.Patch) and isinstance(statement.target.to, ast.Site | ast.Feature):
        return path_patch(ctx, name, at, statement)
    if statement.target.to is not None and statement.verb != "cut":
        raise ctx.fail("value", f"{statement.verb} acts on places; only cut and patch act on edges", statement.target.to)
    return variants(at, statement)


def _product(groups: list[Any]) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...]]]:
    """Every combination, with its indices."""
    for combined in itertools.product(*(list(enumerate(group)) for group in groups)):
        yield tuple(i for i, _ in combined), tuple(item for _, item in combined)


def _unravel(flat: int, axes: tuple[Axis, ...]) -> tuple[int, ...]:
    index: list[int] = []
    for axis in reversed(axes):
        flat, rest = divmod(flat, len(axis.labels))
        index.append(rest)
    return tuple(reversed(index))


def _sweep_values(ctx: Context, statement: ast.Sweep) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Labels and values of a sweep variable."""
    values = statement.values
    if isinstance(values, ast.Py):
        plain, labels = in_turn(ctx, values, statement)
        if not plain:
            raise ctx.fail("value", f"{{{values.source}}} is nothing to sweep over", statement, "give a list of values")
        return labels, tuple(item if isinstance(item, (int, float, str)) else Given(values.source, i)
                             for i, item in enumerate(plain))
    found: list[Any] = []
    if isinstance(values, ast.Range):
        start, stop, *step = (int(part) if part else None for part in values.text.split(":"))
        if stop is None:
            raise ctx.fail("value", "this range has no end", statement, f"write sweep {statement.name} in 0:12")
        found = list(range(start or 0, stop, *(n for n in step if n)))
    else:
        for item in values.items:
            if isinstance(item, ast.Neg) and isinstance(item.of, ast.Num):
                found.append(-item.of.value)
            elif isinstance(item, ast.Num | ast.Str):
                found.append(item.value)
            else:
                raise ctx.fail("value", "a sweep takes numbers and texts", item, "compute others in Python: {values}")
    if not found:
        raise ctx.fail("value", "there is nothing to sweep over", statement, "give at least one value")
    return tuple(found), tuple(found)


def _variables(ctx: Context, nodes: Iterable[Any]) -> set[str]:
    """Names that statements use: in values, in indices, in positions, and through lets."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Name | ast.Word):
            if node.id in ctx.lets and node.id not in found:
                found |= _variables(ctx, [ctx.lets[node.id].value])
            found.add(node.id)
        elif isinstance(node, str) and node.startswith("$"):
            found.add(node[1:])
        elif isinstance(node, Selector):
            found |= marks_in(node)
        elif isinstance(node, tuple):
            found |= _variables(ctx, node)
        elif isinstance(node, ast.Ref) and node.group in ctx.groups:
            found |= _variables(ctx, [ctx.groups[node.group].target])
        if isinstance(node, ast.Node):
            found |= _variables(ctx, [getattr(node, f.name) for f in fields(node) if f.name != "span"])
    return found


# What runs need of each other --------------------------------------------------------------------------------------


def note_needs(ctx: Context, name: str, edits: Iterable[Edit]) -> set[str]:
    """Ask earlier runs to keep what edits take from them; returns the names of those runs."""
    wanted: dict[str, set[Spot]] = {}
    seen: set[int] = set()
    for edit in edits:
        if id(edit) in seen:
            continue
        seen.add(id(edit))
        if isinstance(edit.value, Same):
            wanted.setdefault(edit.value.run, set()).update(Spot(s.site, s.layer) for s in edit.spots)
        for act in (act for spot in edit.spots for act in acts(at_spot(edit.value, spot))):
            wanted.setdefault(act.run, set()).add(Spot(act.spot.site, act.spot.layer))
    for run, spots in wanted.items():
        ctx.runs[run] = replace(ctx.runs[run], captures=ctx.runs[run].captures | spots)
    return set(wanted)


def _note_reading(ctx: Context, found: Any) -> None:
    source = found.option("source")
    if source:
        spots = frozenset(Spot(s.site, s.layer) for s in found.spots)
        ctx.runs[source] = replace(ctx.runs[source], captures=ctx.runs[source].captures | spots)
