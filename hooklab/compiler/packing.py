"""Which sweeps can be run packed: every cell continues a shared pass from where it departs, suffix by suffix.

A cell of a sweep is the pass that all cells share (the run's prompt with the edits that are in every cell) up to its own
first change: a layer, a stage of that layer, and a first position. Blocks before it, and positions before it, need not be
computed again. This module says where each cell departs; `runtime.packed` does the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .plan import Cell, Edit, Plan, RunPlan, Same, Spot, acts, looks_back, sources

START, MIDDLE, END = 0, 1, 2
"""Stages of a block at which a cell may depart: its input, the output of attention's heads, its output."""

STAGE = {"resid_pre": START, "ln1": START, "ln1_scale": START, "q": START, "k": START, "v": START, "rot_q": START,
         "rot_k": START, "scores": START, "pattern": START, "z": MIDDLE, "result": MIDDLE, "attn_out": MIDDLE,
         "resid_mid": MIDDLE, "ln2": MIDDLE, "ln2_scale": MIDDLE, "mlp_pre": MIDDLE, "mlp_pre_linear": MIDDLE,
         "mlp_post": MIDDLE, "mlp_out": END, "resid_post": END, "ln_final": END, "ln_final_scale": END}
FEWEST = 3
"""Cells below which a sweep is not worth a recorded pass."""


@dataclass(frozen=True)
class Entry:
    """Where a cell departs from the shared pass.

    Attributes:
        layer: The block.
        stage: START, MIDDLE or END of it.
        starts: Per example, the first unpadded position that can change; None where nothing can.
    """

    layer: int
    stage: int
    starts: tuple[int | None, ...]


@dataclass(frozen=True)
class Packing:
    """How a swept run is packed.

    Attributes:
        base: The run whose pass the cells continue.
        shared: Edits that are in every cell, and in the base.
        entries: One for each cell.
        work: Tokens times blocks to compute.
        plain: The same for one whole pass per cell.
        idle: Cells and examples in which nothing can change.
    """

    base: str
    shared: tuple[Edit, ...]
    entries: tuple[Entry, ...]
    work: int
    plain: int
    idle: int


def packed(plan: Plan) -> tuple[Plan, dict[str, Packing], dict[str, str]]:
    """The plan with the passes that packed runs continue; how each is packed; and why other sweeps are not."""
    packings: dict[str, Packing] = {}
    reasons: dict[str, str] = {}
    runs: list[RunPlan] = []
    plan = straight(plan)
    for run in plan.runs:
        if len(run.cells) < FEWEST:
            runs.append(run)
            continue
        reason = unfit(plan, run)
        if reason is None:
            run = by_values(plan, run)
            found = _packing(plan, run, packings)
            if found.work * 10 < found.plain * 9:
                if found.base != run.prompt:
                    runs.append(RunPlan(found.base, run.prompt, (), (Cell((), found.shared),), run.samples, run.needs,
                                        hidden=True))
                packings[run.name] = found
                runs.append(replace(run, needs=run.needs | {found.base}))
                continue
            reason = "its cells have little in common"
        reasons[run.name] = reason
        runs.append(run)
    return replace(plan, runs=_captured(tuple(runs))), packings, reasons


LINEAR = ("patch", "zero", "mean", "resample")
"""Verbs that do to a head's write what they do to its weighted values, the write being linear in them."""


def by_values(plan: Plan, run: RunPlan) -> RunPlan:
    """The same run with edits of whole `result`s as edits of `z`: twelve times less to move in a model with twelve heads.

    Nobody sees the difference: nothing is read in the cells of a packed run but the logits. A run whose lines could tell
    the two apart stays as it is.
    """
    if not _turns(plan, run):
        return run
    made: dict[int, Edit] = {}

    def turned(edit: Edit) -> Edit:
        if id(edit) not in made:
            at_result = any(spot.site == "result" for spot in edit.spots)
            made[id(edit)] = replace(edit, spots=tuple(replace(s, site="z") for s in edit.spots)) if at_result else edit
        return made[id(edit)]

    return replace(run, cells=tuple(replace(cell, edits=tuple(turned(edit) for edit in cell.edits)) for cell in run.cells))


def _turns(plan: Plan, run: RunPlan) -> bool:
    """Whether edits of `result` do the same at `z`: all are linear, come after the lines on `z`, take from runs that leave
    `result` alone, and no later run takes `z`, which they would not have changed."""
    if any(spot.site == "z" for spot in run.captures):
        return False
    seen: set[int] = set()
    for cell in run.cells:
        done: set[int | None] = set()  # layers whose writes are edited by a line above
        for edit in cell.edits:
            if any(spot.site == "z" and spot.layer in done for spot in edit.spots):
                return False
            writes = {spot.layer for spot in edit.spots if spot.site == "result"}
            if writes and id(edit) not in seen and not _linear(plan, edit):
                return False
            seen.add(id(edit))
            done |= writes
    return True


def _linear(plan: Plan, edit: Edit) -> bool:
    """Whether an edit of `result` does the same at `z`."""
    if edit.verb not in LINEAR or not (edit.value is None or isinstance(edit.value, Same)):
        return False
    if any(spot.site != "result" or spot.units is not None or spot.sae is not None for spot in edit.spots):
        return False
    written = {id(e): e for name in sources(edit) for cell in plan.run(name).cells for e in cell.edits}
    return all(spot.site != "result" for e in written.values() for spot in e.spots)


def _captured(runs: tuple[RunPlan, ...]) -> tuple[RunPlan, ...]:
    """The runs, each keeping of `z` and `result` what the edits and reads of all of them now ask for."""
    wanted: dict[str, set[Spot]] = {run.name: set() for run in runs}
    for run in runs:
        wanted[run.name] |= {Spot(s.site, s.layer) for keep in run.keeps for s in keep.spots}
        wanted[run.name] |= {Spot(s.site, s.layer) for reading in run.readings for s in reading.spots}
        for reading in run.readings:
            if reading.option("source"):
                wanted[str(reading.option("source"))] |= {Spot(s.site, s.layer) for s in reading.spots}
        seen: set[int] = set()
        for cell in run.cells:
            for edit in cell.edits:
                if id(edit) in seen:
                    continue
                seen.add(id(edit))
                if isinstance(edit.value, Same):
                    wanted[edit.value.run] |= {Spot(s.site, s.layer) for s in edit.spots}
                for act in acts(edit.value):
                    wanted[act.run].add(Spot(act.spot.site, act.spot.layer))
    return tuple(replace(run, captures=frozenset(
        {spot for spot in run.captures if spot.site != "result"} | {
            spot for spot in wanted[run.name] if spot.site in ("z", "result")})) if not run.writing else run for run in runs)


def unfit(plan: Plan, run: RunPlan) -> str | None:
    """Why a sweep takes whole passes; None when it can be packed."""
    about = plan.about
    reason = getattr(about, "unpackable", lambda: None)()
    if reason is not None:
        return str(reason)
    if run.writing is not None:
        return "it writes on"
    if run.readings or run.keeps or (run.captures and not (run.hidden and _serves_paths(run))):
        return "activations are read in every cell"
    if any(looks_back(metric.value, plan.values) for metric in run.metrics):
        return "a metric looks at more than the last position"
    shared = shared_edits(plan, run)
    for cell in run.cells:
        for edit in cell.edits:
            for spot in edit.spots:
                if spot.site in STAGE or (spot.site in ("embed", "pos_embed") and among(edit, shared)):
                    continue
                return f"{spot.site} is edited in some cells only"
    return None


OPEN = ("scores", "pattern", "result", "ln_final", "ln_final_scale", "logits")
"""Sites that are not kept of a packed cell."""


def _serves_paths(run: RunPlan) -> bool:
    """Whether a hidden run only lends the values of a few sites, which a packed cell can keep."""
    return all(spot.layer is not None and spot.site not in OPEN for spot in run.captures)


def straight(plan: Plan) -> Plan:
    """The plan with paths that end at the logits as what they are: their first pass, whose logits are the result."""
    runs = {run.name: run for run in plan.runs}
    for run in plan.runs:
        hidden = _path_to_logits(plan, run)
        if hidden is None or any(hidden in other.needs for other in plan.runs if other.name != run.name):
            continue
        first = runs.pop(hidden)
        cells = tuple(replace(cell, edits=first.cells[cell.edits[0].option("cell")].edits) for cell in run.cells)
        runs[run.name] = replace(run, cells=cells, needs=(run.needs - {hidden}) | first.needs)
    return replace(plan, runs=tuple(runs.values()))


def _path_to_logits(plan: Plan, run: RunPlan) -> str | None:
    """The hidden run that every cell takes all its logits from, and nothing else."""
    found: set[str] = set()
    for cell in run.cells:
        if len(cell.edits) != 1:
            return None
        edit = cell.edits[0]
        whole = [spot.site == "logits" and spot.units is None for spot in edit.spots]
        if edit.verb != "patch" or not isinstance(edit.value, Same) or edit.reach.at is not None or not all(whole):
            return None
        found.add(edit.value.run)
    if len(found) != 1 or run.writing or run.keeps or run.readings or run.captures or run.samples > 1:
        return None
    name = found.pop()
    return name if plan.run(name).hidden else None


def shared_edits(plan: Plan, run: RunPlan) -> tuple[Edit, ...]:
    """Edits that every cell has and that do the same in each, in the order of their lines."""
    found = tuple(edit for edit in run.cells[0].edits if all(len(plan.run(name).cells) == 1 for name in sources(edit)))
    for cell in run.cells[1:]:
        found = tuple(edit for edit in found if among(edit, cell.edits))
    return found


def among(edit: Edit, edits: tuple[Edit, ...]) -> bool:
    """Whether an edit is one of several; most are the very same object."""
    return any(edit is other for other in edits) or edit in edits


def _packing(plan: Plan, run: RunPlan, known: dict[str, Packing]) -> Packing:
    shared = shared_edits(plan, run)
    tokens = plan.prompts[run.prompt].tokens
    lengths = tokens.lengths
    layers = int(plan.about.facts.n_layers)
    starts: dict[int, tuple[int | None, ...]] = {}
    entries = []
    work = idle = 0
    for cell in run.cells:
        own = [edit for edit in cell.edits if not among(edit, shared)]
        for edit in own:
            if id(edit) not in starts:
                starts[id(edit)] = tuple(_start(plan, run, shared, edit, e, known) for e in range(len(lengths)))
        entry = _entry(own, [starts[id(edit)] for edit in own], shared, layers, len(lengths))
        entries.append(entry)
        for start, length in zip(entry.starts, lengths, strict=True):
            if start is None:
                idle += 1
            else:
                work += run.samples * (length - start) * (layers - entry.layer)
    idle_lines = all(_start(plan, run, (), edit, e, {}) is None for edit in shared for e in range(len(lengths)))
    recorded = 0 if idle_lines else run.samples * sum(lengths) * layers
    plain = len(run.cells) * run.samples * sum(lengths) * layers
    base = run.prompt if idle_lines and run.samples == 1 else f"{run.name}~"
    return Packing(base, shared, tuple(entries), work + recorded, plain, idle * run.samples)


def _entry(own: list[Edit], starts: list[tuple[int | None, ...]], shared: tuple[Edit, ...], layers: int,
           size: int) -> Entry:
    """The first place and the first position of a cell's own edits."""
    doing = [edit for edit, start in zip(own, starts, strict=True) if any(p is not None for p in start)]
    first = tuple(min((start[e] for start in starts if start[e] is not None), default=None)  # type: ignore[type-var]
                  for e in range(size))
    if not doing:
        return Entry(layers - 1, END, (None,) * size)
    layer, stage = min(_depth(spot, layers) for edit in doing for spot in edit.spots)
    if stage == END and any(_depth(spot, layers) == (layer, END) for edit in shared for spot in edit.spots):
        stage = MIDDLE  # what the shared edits did to the block's output has to be done again
    return Entry(layer, stage, first)


def _depth(spot: Spot, layers: int) -> tuple[int, int]:
    if spot.layer is None:
        return (0, START) if spot.site in ("embed", "pos_embed") else (layers - 1, END)
    return spot.layer, STAGE[spot.site]


# Positions ---------------------------------------------------------------------------------------------------------


def _start(plan: Plan, run: RunPlan, shared: tuple[Edit, ...], edit: Edit, example: int,
           known: dict[str, Packing]) -> int | None:
    """The first position that an edit can change in an example; None when it can change none."""
    n = plan.prompts[run.prompt].tokens.lengths[example]
    at = range(n) if edit.reach.at is None else edit.reach.at[example]
    if not isinstance(edit.value, Same) or edit.verb != "patch":
        return min(at, default=None)
    source = edit.value
    cell = edit.option("cell")
    same_until = _alike(plan, run, shared, source.run, example) if cell is None else _departs(
        plan, run, shared, source.run, cell, example, known)
    theirs = at if source.at is None else source.at[example if len(source.at) > 1 else 0]
    return min((p for p, q in zip(at, theirs, strict=False) if p != q or p >= same_until), default=None)


def _alike(plan: Plan, run: RunPlan, shared: tuple[Edit, ...], source: str, example: int) -> int:
    """How many positions from the start are the same in the shared pass and in another run, whatever the layer."""
    other = plan.run(source)
    if len(other.cells) > 1 or other.samples > 1:
        return 0
    mine, theirs = plan.prompts[run.prompt], plan.prompts[other.prompt]
    if run.prompt != other.prompt and (mine.extras or theirs.extras):
        return 0  # pictures and the like: what the tokens show of them is not compared
    if len(theirs.tokens) not in (1, len(mine.tokens)):
        return 0
    elsewhere = example if len(theirs.tokens) > 1 else 0
    ours, others = mine.tokens.ids[example], theirs.tokens.ids[elsewhere]
    until = next((i for i, (a, b) in enumerate(zip(ours, others, strict=False)) if a != b), min(len(ours), len(others)))
    for edits, where in ((shared, example), (other.cells[0].edits, elsewhere)):
        for edit in edits:
            until = min(until, _first(edit, where))
    return until


def _departs(plan: Plan, run: RunPlan, shared: tuple[Edit, ...], source: str, cell: int, example: int,
             known: dict[str, Packing]) -> int:
    """How many positions from the start a cell of a packed run has in common with the pass that both continue."""
    if source not in known or known[source].base != run.prompt or plan.run(source).prompt != run.prompt:
        return 0
    start = known[source].entries[cell].starts[example]
    length = plan.prompts[run.prompt].tokens.lengths[example]
    return min([length if start is None else start, *(_first(edit, example) for edit in shared)])


def _first(edit: Edit, example: int) -> int:
    return 0 if edit.reach.at is None else min(edit.reach.at[example], default=1 << 30)


def in_words(packing: Packing) -> Iterator[str]:
    """A packing in words."""
    share = packing.work / max(1, packing.plain)
    yield f"packed: continues {packing.base.rstrip('~')}, {share:.0%} of the work of whole passes"
    if packing.idle:
        yield f"{packing.idle} of the results are known without running: nothing changes there"
