"""Which modules of a model an extraction looks at or changes, and whether attention is computed in the open for it.

In: the passes of an extraction, and the first of its batches, for which lines of the language are compiled. Out: `Touched`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...runtime.trace import places

if TYPE_CHECKING:
    from ...model.model import Model
    from .passes import Passes
    from .reading import Chunk

OPEN = ("scores", "pattern")
"""Sites that no kernel shows: attention is computed step by step in the layers where they are wanted."""


@dataclass(frozen=True)
class Touched:
    """What an extraction touches of a model.

    Attributes:
        modules: Names of modules, as `model.hf.get_submodule` takes them, in the order of a pass; "" is the model itself.
        opened: Layers whose attention is computed in the open.
    """

    modules: tuple[str, ...]
    opened: tuple[int, ...]


def touched(model: Model, passes: Passes, chunk: Chunk) -> Touched:
    """What passes over batches such as this one touch: reading, editing, measuring, and hooks that hang on the model.

    Raises:
        SpecError: lines do not fit the batch.
    """
    found = {(place.site, place.layer) for place in passes.wanted} | {(place.site, place.layer) for place, _ in passes.edits}
    found |= {(place.site, place.layer) for hook in model.hooks for place in places(model, [hook.address])}
    if passes.lines is not None:
        for run in passes.compiled(chunk).plan.runs:
            edited = {spot for cell in run.cells for edit in cell.edits for spot in edit.spots}
            for spot in {*edited, *run.captures, *(spot for one in run.readings for spot in one.spots)}:
                found |= {(spot.site, spot.layer), (spot.written.site, spot.written.layer)}
            found |= {("logits", None)} if run.metrics else set()
    order = [str(name) for name, _ in model.hf.named_modules()]
    names = {name for site, layer in found for name in _modules(model, site, layer)}
    return Touched(tuple(sorted(names, key=lambda name: (name == "", order.index(name)))),
                   tuple(sorted({layer for site, layer in found if site in OPEN and layer is not None})))


def _modules(model: Model, site: str, layer: int | None) -> set[str]:
    """Names of the modules that carry a site, and that a change of it corrects."""
    port = model.layout.port(site, layer)
    if port.source is None and layer is not None:  # within the attention function
        return {model.layout.native(model.layout.needed(layer, "attn", site)).removeprefix("model").removeprefix(".")}
    return {end.rpartition(".")[0].removeprefix("model").removeprefix(".") for end in (port.source, port.later) if end}


def in_words(modules: Iterable[str]) -> str:
    """Names of modules, those of several layers as one.

    >>> in_words(["h.0.attn", "h.0", "h.1.attn", "h.1", "h.3", "ln_f", ""])
    'h.{0-1}.attn, h.{0-1,3}, ln_f, the model'
    """
    found: dict[tuple[str, str], list[int]] = {}
    for name in modules:
        match = re.fullmatch(r"(.*?\.|)(\d+)(\..*|)", name)
        found.setdefault((match[1], match[3]) if match else (name or "the model", ""), []).extend(
            [int(match[2])] if match else [])
    return ", ".join(f"{before}{_numbers(layers) if layers else ''}{after}" for (before, after), layers in found.items())


def _numbers(layers: Iterable[int]) -> str:
    """Numbers as runs: 3, or {0-2,5}."""
    runs: list[list[int]] = []
    for n in sorted({*layers}):
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    said = ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
    return said if said.isdigit() else f"{{{said}}}"


def opened_in_words(opened: Iterable[int]) -> str:
    """How attention is computed.

    >>> opened_in_words([0, 1, 2]), opened_in_words([])
    ('computed in the open in layers {0-2}', 'as the model has it')
    """
    layers = [*opened]
    return f"computed in the open in layer{'s' * (len(layers) > 1)} {_numbers(layers)}" if layers else "as the model has it"
