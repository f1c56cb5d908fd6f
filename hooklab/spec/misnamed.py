"""Places that can be read and are named as elsewhere: `layers[3]`, `l1.mlp`, `L2[3]`, `L3.resid[:, -1]`."""

from __future__ import annotations

import re

from ..positions.select import RESERVED
from ..sites import LAYER_SITES
from . import ast
from .checker import Checker
from .othernames import LAYER, OF_MODEL, place

EVERYTHING = {"everything": "L*.resid", "layer": "L*.resid", "layers": "L*.resid", "head": "L*H*",
              "heads": "L*H*", "neuron": "L*.neurons", "neurons": "L*.neurons"}
WHOLE: set[int | str] = {":", "::", "*"}
LITTLE = ("of", "for", "the", "in", "with", "on")


def misnamed(c: Checker, found: ast.Site, text: str) -> bool:
    """Whether a site is written as elsewhere; that is said then. `text` is the site as written, without its position."""
    before, _, inside = text.partition("[")
    if found.layer is None and found.dims is not None and (meant := place(text)):
        c.say("name", "layers are written L and a number", f"write {meant}", found)
    elif found.run == "L" and found.layer is None:
        c.say("name", "L stands before the number of a layer", f"write L*{text[1:]} for all, L5{text[1:]} for one", found)
    elif whole := _of_model(c, found):
        c.say("name", "sites have short names here", f"write {whole}", found)
    elif isinstance(found.layer, int) and found.dims is not None and found.comp is found.head is found.neuron is None:
        c.say("value", f"{text} is a whole layer: say which part",
              f"write {before}H{inside.rstrip(']')} for a head, {before}.resid[{inside} for dimensions", found)
    elif isinstance(found.dims, tuple) and len(found.dims) > 1 and set(found.dims) & WHOLE:
        last = next((n for n in reversed(found.dims) if n not in WHOLE), "all")
        c.say("value", "between brackets are dimensions of the site, not positions",
              f"positions stand behind @: {before} @{last}", found)
    elif (layer := LAYER.fullmatch(found.run or "")) and found.layer is None and found.run not in (*c.names.prompts,
                                                                                                   *c.names.runs):
        c.say("name", "layers are written L and a number", f"write L{layer[1]}{text[len(found.run or ''):]}", found)
    else:
        return False
    return True


def _of_model(c: Checker, found: ast.Site) -> str | None:
    """The site of the whole model that a module such as `model.embed_tokens` or `ln_f.output` gives."""
    known = (*c.names.prompts, *c.names.runs, "baseline")
    if found.layer is not None or found.run is None or found.run in known:
        return None
    return OF_MODEL.get(str(found.comp)) or (OF_MODEL.get(found.run) if found.comp in ("out", "output") else None)


def unit(found: ast.Site, text: str) -> str:
    """The head or neuron that the part of a layer means, as in `L2.head3`; empty when it means none."""
    match = re.fullmatch(r"(?:(head|h)|neuron|n)_?(\d+)", str(found.comp).lower())
    if match is None or found.layer is None or not found.head is found.neuron is None:
        return ""
    return f"{text.split('.')[0]}{'H' if match[1] else 'N'}{match[2]}"


def instead(name: str) -> str:
    """What to write for a bare word that is no place; empty when it is any word."""
    if name in LITTLE:
        return "leave it out"
    if name == "all":
        return "write L*.resid"
    if name in RESERVED:
        return f"a place has one position after @; several stand between brackets: @[{name}, 0]"
    if name in OF_MODEL:
        return f"write {OF_MODEL[name]}"
    return f"write {EVERYTHING[name]}" if name in EVERYTHING and name not in LAYER_SITES else ""
