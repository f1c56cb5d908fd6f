"""Residual: the stream's length, what components write into it, and how far along a direction, by site and position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis.stream import KINDS, of_run, streams
from ..errors import ViewError
from ..records import Run, Scores
from . import axes, colours, heat, wire
from .base import View
from .text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


VALUES = {"norm": "length of the stream", "writes": "length of the write", "projection": "projection"}


class Residual(View):
    """Maps of the residual stream. `options["show"]` says which: norm, writes or projection."""

    KIND = "residual"
    OPTIONS = {"show": KINDS}
    SHARED = ("layer", "pos")

    def __init__(self, found: Mapping[str, Scores], *, show: str | None = None, title: str = "", source: Any = None) -> None:
        self._found = dict(found)
        first = next(iter(found.values()))
        sites = list(dict.fromkeys(site for scores in found.values() for site in scores.coords["site"]))
        layers = list(dict.fromkeys(layer for site in sites if (layer := _layer(site)) is not None))
        self._spec_text = first.spec
        super().__init__([axes.axis("site", sites), axes.axis("layer", layers), axes.axis("pos", first.coords["pos"])],
                         title=title or "residual stream", source=source, show=show or next(iter(found)))
        self.draw()

    def describe(self) -> dict[str, Any]:
        return {"maps": [{"name": name, "value": VALUES[name], "unit": "", "note": shown(scores.note, 400),
                          "scale": self._scale(name).facts, "rows": axes.axis("site", scores.coords["site"]).facts,
                          "layers": [_layer(site) for site in scores.coords["site"]]}
                         for name, scores in self._found.items()]}

    def arrays(self) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for name, scores in self._found.items():
            found[name] = wire.held(scores.values, name)
            found[f"{name}.colours"] = colours.for_codes(self._scale(name).kind)
        return found

    def _scale(self, name: str) -> wire.Scale:
        return heat.scale_for(self._found[name], signed=name == "projection")

    @property
    def _shown(self) -> str:
        """The map that is shown: the one asked for, else the first that there is."""
        name = str(self.options["show"])
        return name if name in self._found else next(iter(self._found))

    def follow(self, other: View, selection: Mapping[str, Any]) -> None:
        super().follow(other, selection)
        site = self.selection.get("site")
        if site is not None and not self._closed and _layer(site) != self.selection.get("layer"):
            self.selection = {name: key for name, key in self.selection.items() if name != "site"}

    def spell(self, selection: Mapping[str, Any]) -> str:
        site, pos = selection.get("site"), selection.get("pos")
        if site is None or pos is None or str(site).endswith("rest"):
            return ""
        prompts = [line.strip() for line in self._spec_text.splitlines() if line.strip().startswith("prompt ")]
        return "\n".join([*prompts[:1], f"save {site} @{pos}"])

    def static(self) -> str:
        name = self._shown
        scores = self._found[name]
        rows, columns = axes.axis("site", scores.coords["site"]), self._axes["pos"]
        others = [one for one in self._found if one != name]
        from ..html import note

        return heat.picture(np.asarray(scores.values), self._scale(name), caption=f"{self._title}: {scores.name}",
                            rows=rows.labels, columns=columns.labels, axes=("site", "pos"), unit=scores.unit) + (
            note(f"also there: {', '.join(others)}") if others else "")

    def plot(self, ax: Any = None) -> Figure:
        self._check_open()
        name = self._shown
        scores = self._found[name]
        return heat.figure(np.asarray(scores.values), self._scale(name), title=f"{self._title}: {scores.name}",
                           rows=axes.axis("site", scores.coords["site"]).labels, columns=self._axes["pos"].labels,
                           axes=("site", "pos"), unit=scores.unit, ax=ax)

    def release(self) -> None:
        self._found = {}


def _layer(site: Any) -> int | None:
    head, dot, _ = str(site).partition(".")
    return int(head[1:]) if dot and head[:1] == "L" and head[1:].isdigit() else None


def residual(given: Any, prompt: Any = None, *, direction: Any = None, normalised: bool = False, show: str | None = None,
             title: str = "", source: Any = None) -> Residual:
    """The residual stream by site and position: its length, what every component writes, the way along a direction.

    Args:
        given: A model; a Run that saved something of the stream; Scores [site pos]; or several of them by kind
            (`"norm"`, `"writes"`, `"projection"`), as `hooklab.analysis.stream.streams` gives them.
        prompt: What a model runs on.
        direction: A vector [d_model], a token (`" Mary"`), or two (`(" Mary", " John")`); see `hooklab.analysis.stream`.
        normalised: Divide the direction by its length.
        show: Which map to begin with; the projection where there is one.
        title: What stands above.
        source: The run that the numbers are from: views of one run share their selection.

    Raises:
        ViewError: nothing of the stream was given, or there is no such map.
        SweepError, TokenError, PromptError: as `stream` does.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> view = residual(model, "When Mary and John went to the store", direction=" Mary")
        >>> print(view.select(site="L3.attn_out", pos=2).spec)
        prompt "When Mary and John went to the store"
        save L3.attn_out @2
    """
    found, source = _found(given, prompt, direction, normalised, source)
    for name, scores in found.items():
        if name not in KINDS or not isinstance(scores, Scores) or scores.axes != ("site", "pos"):
            raise ViewError(f"a map of the stream is Scores [site pos] named {', '.join(KINDS)}; {name!r} is not")
        if scores.coords["pos"] != next(iter(found.values())).coords["pos"]:
            raise ViewError("the maps of the stream have different positions: make them from one prompt")
    if not found or not all(scores.values.size for scores in found.values()):
        raise ViewError("there is nothing to draw: no numbers of the stream")
    if show is not None and show not in found:
        hint = '. A projection needs direction=" Mary"' if show == "projection" and direction is None else ""
        raise ViewError(f"there is no map {show!r} here; there is {', '.join(found)}{hint}")
    start = show or ("projection" if "projection" in found else next(iter(found)))
    return Residual(found, show=start, title=title, source=source)


def _found(given: Any, prompt: Any, direction: Any, normalised: bool, source: Any) -> tuple[Mapping[str, Scores], Any]:
    if isinstance(given, Run):
        return of_run(given, direction=direction, normalised=normalised), given if source is None else source
    if isinstance(given, Scores):
        return {next((name for name in ("projection", "writes") if name.rstrip("s") in given.name), "norm"): given}, source
    if isinstance(given, Mapping):
        return given, source
    if not hasattr(given, "capture"):
        raise ViewError(f"a view of the stream takes a model and a prompt, a Run, or Scores [site pos], not "
                        f"{type(given).__name__}")
    if prompt is None:
        raise ViewError('say what the model runs on: hl.view.residual(model, "When Mary and John …")')
    return streams(given, prompt, direction=direction, normalised=normalised), source
