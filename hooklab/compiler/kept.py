"""How many bytes the saved activations of a plan take, before anything runs.

Text that ends before its last token, and samples that end at different ones, make it less.
"""

from __future__ import annotations

import math

from .plan.plan import Plan
from .plan.reaches import Reach
from .plan.runs import RunPlan
from .plan.spots import Spot

FLOAT32 = 4


def kept_bytes(plan: Plan) -> int:
    """Bytes of every value that `save` lines keep, in the model's type; padding counts, as it is kept too."""
    return sum(_bytes(plan, run, keep.reach, spot) for run in plan.runs for number in range(len(run.cells))
               for keep in (one.cell(number) for one in run.keeps) for spot in keep.spots)


def _bytes(plan: Plan, run: RunPlan, reach: Reach, spot: Spot) -> int:
    facts = plan.about.facts
    rows = {"batch": 1, "pos": 1, "query_pos": 1, "key_pos": _width(plan, run), "one": 1, "head": facts.n_heads,
            "kv_head": facts.n_kv_heads, "d_model": facts.d_model, "d_head": facts.d_head, "d_mlp": facts.d_mlp or 0,
            "d_vocab": facts.d_vocab}
    if spot.heads is not None:
        rows |= {"head": len(spot.heads), "kv_head": len(spot.heads)}
    if spot.sae is not None:
        rows["feature"] = len(spot.features) if spot.features is not None else plan.about.sae_size(spot.sae)
    if spot.units is not None:
        rows[spot.axes[-1]] = len(spot.units)
    samples = run.samples * (int(run.writing.option("samples", 1)) if run.writing is not None else 1)
    each = math.prod(rows[axis] for axis in spot.axes)
    size = plan.about.itemsize if spot.sae is None else plan.about.sae_itemsize(spot.sae)
    if spot.site.endswith("_scale"):  # what norms divide by is kept in full
        size = max(size, FLOAT32)
    return int(size * samples * _positions(plan, run, reach) * each)


def _width(plan: Plan, run: RunPlan) -> int:
    """Columns of the prompts and of what is written on; the last new token is never read."""
    return int(plan.prompts[run.prompt].tokens.width) + (run.writing.count - 1 if run.writing is not None else 0)


def _positions(plan: Plan, run: RunPlan, reach: Reach) -> int:
    """Positions of all examples."""
    tokens = plan.prompts[run.prompt].tokens
    examples = len(tokens)
    if reach.at is not None:
        counts = [len(reach.at[i % len(reach.at)]) for i in range(examples)]
        return examples * max(counts) if run.writing is not None else sum(counts)
    if run.writing is None:
        return examples * int(tokens.width)
    prompt = max(tokens.lengths) if reach.holds(0) else 0
    return examples * (prompt + sum(reach.holds(step) for step in range(1, run.writing.count)))
