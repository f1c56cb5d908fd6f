"""Features: what each feature, neuron or direction responds to and writes: a list to choose from, and a page for one.

The list travels when the view opens; histogram, contexts and logits of a feature when it is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets

from .. import html
from ..analysis.dashboard import Context, FeatureDashboard, feature_dashboard
from ..errors import ViewError
from . import wire
from .axes import Axis
from .base import Answer, View
from .text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..model.model import Model

CARRIED = 300
"""Features whose contexts a page without a kernel holds."""
LISTED = 12
STATIC_CONTEXTS, STATIC_WINDOW = 6, 6
LOGITS = ("normed", "plain")
SAID = {"normed": "through the final norm's gain, up to its divisor", "plain": "write × unembedding"}


class Features(View):
    """A dashboard of features; `selection` has the number of one under `feature`, `neuron` or `dims`.

    Attributes:
        dashboard: The numbers, as `hooklab.analysis.dashboard.feature_dashboard` made them.
    """

    KIND = "features"
    _layer: int | None = None
    OPTIONS = {"logits": LOGITS}
    SHARED = ("layer", "neuron")

    def __init__(self, dashboard: FeatureDashboard, *, title: str = "", source: Any = None, **options: Any) -> None:
        self.dashboard: FeatureDashboard | None = dashboard
        axes = [Axis(dashboard.word, dashboard.keys, tuple(map(str, dashboard.keys)))]
        if dashboard.word == "neuron":
            self._layer = int(dashboard.place.split(".")[0].removeprefix("L"))
            axes.append(Axis("layer", (self._layer,), (str(self._layer),)))
        self._order = np.argsort(-np.nan_to_num(dashboard.high), kind="stable")
        super().__init__(axes, title=title or f"{dashboard.word}s of {dashboard.name}".replace("dimss", "dims"),
                         source=source, **options)
        self.draw()

    @property
    def _held(self) -> FeatureDashboard:
        self._check_open()
        assert self.dashboard is not None
        return self.dashboard

    def describe(self) -> dict[str, Any]:
        held = self._held
        return {"word": held.word, "name": held.name, "place": held.place, "note": held.note, "count": held.count,
                "window": held.window, "logits": {name: SAID[name] for name in held.logits}, "first": self._first()[0]}

    def arrays(self) -> dict[str, np.ndarray]:
        held = self._held
        columns = {"density": held.density, "high": held.high, "norms": held.norms}
        return {"first": np.frombuffer(self._first()[1][0], np.uint8),
                **{name: np.asarray(array, np.float32) for name, array in columns.items()}}

    def asks(self) -> Mapping[str, Callable[..., Answer]]:
        return {"feature": self._feature}

    def answers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        chosen = [self._chosen(), *(self._held.keys[i] for i in self._order[:CARRIED])]
        return (("feature", {"key": key}) for key in dict.fromkeys(chosen))

    def _first(self) -> Answer:
        """The feature that the view opens with, which travels with it: a saved notebook has no kernel to ask."""
        return self._feature(self._chosen())

    def _chosen(self) -> int:
        """The feature of the selection; the strongest when there is none."""
        return int(self.selection.get(self._held.word, self._held.keys[self._order[0]]))

    def _feature(self, key: int) -> Answer:
        """Everything about one feature."""
        held = self._held
        i = held.index(key)
        values: list[np.ndarray] = []

        def told(contexts: list[Context]) -> list[dict[str, Any]]:
            values.extend(one.values for one in contexts)
            return [{"text": one.text, "pos": one.pos, "start": one.start, "pieces": [_spaced(p) for p in one.pieces]}
                    for one in contexts]

        reply: dict[str, Any] = {
            "key": key, "zero": held.zero[i], "density": held.density[i], "odd": held.odd[i], "low": held.low[i],
            "high": held.high[i], "norm": held.norms[i], "contexts": told(held.top(key)),
            "ranges": [{"low": low, "high": high, "contexts": told(found)} for low, high, found in held.ranges(key)],
            "logits": {name: self._logits(name, i) for name in held.logits}}
        block = wire.pack({"values": np.concatenate([np.zeros(0, np.float32), *values]).astype(np.float32),
                           "counts": held.counts[i].astype(np.int32), "edges": held.edges[i].astype(np.float32)})
        return {**reply, "arrays": block.table}, [block.data]

    def _logits(self, name: str, i: int) -> dict[str, list[list[Any]]]:
        held = self._held
        table = held.logits[name]
        sides = {"up": (table.up[i], table.up_values[i]), "down": (table.down[i], table.down_values[i])}
        return {side: [[shown(held.vocabulary[int(token)]), float(value)] for token, value in zip(ids, by, strict=True)]
                for side, (ids, by) in sides.items()}

    # Choosing ----------------------------------------------------------------------------------------------------------

    @traitlets.validate("selection")
    def _checked_selection(self, proposal: Any) -> dict[str, Any]:
        """A neuron brings its layer along, which linked views need."""
        chosen = super()._checked_selection(proposal)
        return {"layer": self._layer, **chosen} if "neuron" in chosen else chosen

    def follow(self, other: View, selection: Mapping[str, Any]) -> None:
        """A neuron of another layer is none of this view's."""
        if selection.get("layer", self._layer) == self._layer:
            super().follow(other, selection)

    # Without a front end -----------------------------------------------------------------------------------------------

    def spell(self, selection: Mapping[str, Any]) -> str:
        """The feature set to zero in the text where it is strongest."""
        from ..spec.printer import quote

        held = self._held
        if held.word not in selection:
            return ""
        key = selection[held.word]
        text = held.tokens.text[held.top(key)[0].text] if held.top(key) else ""
        prompt = f"prompt {quote(text) if text else '{text}'}"
        if held.origin:
            return f"{prompt}\nmetric loss\nsae dictionary = {held.origin} at {held.place}\nzero dictionary.F{key}"
        if held.word == "neuron":
            layer, site = held.place.split(".")
            return f"{prompt}\nmetric loss\nzero {layer}N{key}{'' if site == 'mlp_post' else '.' + site}"
        if held.word == "dims":
            return f"{prompt}\nmetric loss\nzero {held.place}[{key}]"
        return f"{prompt}\nmetric loss\nproject_out {held.place} along {{direction}}"

    def static(self) -> str:
        held = self._held
        rows = [[str(held.keys[i]), float(held.high[i]), float(held.density[i]), float(held.norms[i])]
                for i in self._order[:LISTED]]
        more = f" (the {LISTED} strongest of {len(held.keys):,})" if len(held.keys) > LISTED else ""
        listed = html.table([held.word, "maximum", "density", "norm"], rows, f"{self._title}{more}")
        return html.note(held.note) + listed + self._page(self._chosen())

    def _page(self, key: int) -> str:
        """One feature, as far as it can be shown without script."""
        held = self._held
        i = held.index(key)
        said = f"{held.word} {key}: above 0 at {held.density[i]:.2%} of the tokens, exactly 0 at {held.zero[i]:.2%}"
        parts = [html.heading(said), _histogram(held.counts[i], held.edges[i])]
        contexts = held.top(key)[:STATIC_CONTEXTS]
        limit = max((abs(float(v)) for one in contexts for v in one.values if np.isfinite(v)), default=0.0)
        parts += [_strip(one, limit) for one in contexts]
        parts.append(html.scale(limit, "activation") if contexts else html.note("never active in these texts"))
        if held.logits:
            name = str(self.options["logits"]) if self.options["logits"] in held.logits else next(iter(held.logits))
            table = self._logits(name, i)
            pairs = [*table["up"], *table["down"][::-1]]
            parts.append(html.bars([text for text, _ in pairs], [value for _, value in pairs], axis="token",
                                   caption=f"logits per unit of activation ({SAID[name]})", unit="logits"))
        return "".join(parts)

    def plot(self, ax: Any = None) -> Figure:
        """The histogram of the chosen feature, and beside it the logits that it moves; into `ax` the histogram alone."""
        from ..records.plot import Picture, _literal

        held = self._held
        key = self._chosen()
        i = held.index(key)
        figure = Picture(figsize=(9.6, 3.6), layout="constrained") if ax is None else ax.figure
        places = figure.subplots(1, 2 if held.logits else 1, squeeze=False)[0] if ax is None else [ax]
        places[0].stairs(held.counts[i], held.edges[i], fill=True, color="#2c7bb6")
        places[0].set(xlabel="activation", ylabel="tokens", yscale="symlog",
                      title=f"{held.word} {key}: exactly 0 at {held.zero[i]:.1%}, left out")
        places[0].set_ylim(0, max(10, 1.6 * float(np.max(held.counts[i], initial=0))))  # else one token has an odd number
        if len(places) > 1:
            name = str(self.options["logits"])
            table = self._logits(name, i)
            pairs = [*table["down"], *table["up"][::-1]]
            colours = ["#2c7bb6" if value < 0 else "#e66101" for _, value in pairs]
            places[1].barh(range(len(pairs)), [value for _, value in pairs], color=colours)
            places[1].set_yticks(range(len(pairs)), [_literal(text) for text, _ in pairs], fontsize=7)
            places[1].set(xlabel="logits per unit of activation", title=SAID[name])
        return figure

    def release(self) -> None:
        super().release()
        self.dashboard = None

    def __repr__(self) -> str:
        if self.dashboard is None:
            return f"Features({self._title})"
        return f"Features({self.dashboard.name} · {self.dashboard.word} {len(self.dashboard.keys)} · {self.dashboard.note})"


def _spaced(piece: str) -> str:
    """A token as it stands among others: outer spaces as spaces, unless there is nothing else."""
    core = piece.strip(" ")
    left = len(piece) - len(piece.lstrip(" "))
    return " " * left + shown(core) + " " * (len(piece) - left - len(core)) if core else shown(piece)


def _strip(one: Context, limit: float) -> str:
    """A context as coloured tokens."""
    middle = one.pos - one.start
    spans = []
    for i in range(max(0, middle - STATIC_WINDOW), min(len(one.pieces), middle + STATIC_WINDOW + 1)):
        value = float(one.values[i])
        said = html.safe(f"text {one.text}, position {one.start + i}: {value:.6g}")
        spans.append(f'<span {html.shade(value, limit)} title="{said}">{html.safe(_spaced(one.pieces[i]))}</span>')
    return f'<div class="hl-strip">{"".join(spans)}</div>'


def _histogram(counts: np.ndarray, edges: np.ndarray, width: int = 480, height: int = 90) -> str:
    """Bars on a logarithmic scale, so that rare strong activations are seen beside common weak ones."""
    tall = np.log1p(counts) / (np.log1p(counts.max()) or 1)
    step = width / len(counts)
    bars = ""
    for i in np.flatnonzero(counts):
        bars += (f'<rect x="{i * step:.1f}" y="{height * (1 - tall[i]):.1f}" width="{step - 1:.1f}" '
                 f'height="{height * tall[i]:.1f}"><title>{html.number(edges[i])} to {html.number(edges[i + 1])}: '
                 f"{int(counts[i])}</title></rect>")
    said = f"histogram of activations from {html.number(edges[0])} to {html.number(edges[-1])}"
    return (f'<svg viewBox="0 0 {width} {height + 16}" width="{width}" role="img" aria-label="{said}" '
            'style="max-width:100%">'
            f'<g fill="#2c7bb6">{bars}</g><g fill="currentColor" font-size="11" text-anchor="end">'
            f'<text x="0" y="{height + 13}" text-anchor="start">{html.number(edges[0])}</text>'
            f'<text x="{width}" y="{height + 13}">{html.number(edges[-1])}</text></g></svg>'
            + html.note(f"activations other than 0; heights are logarithmic, the highest bar is {int(counts.max()):,} "
                        "tokens"))


def features(source: FeatureDashboard | Model, what: Any = None, texts: Any = None, *, title: str = "",
             show: str = LOGITS[0], linked: Any = None, **options: Any) -> Features:
    """A dashboard of SAE features, neurons or directions: what they respond to, and which tokens they raise and lower.

    Args:
        source: A dashboard that was made, or a model together with what to look at and texts.
        what: With a model: a dictionary, a site such as `"L2.mlp_post"`, or directions.
        texts: With a model: the texts, or a store that `hl.extract` filled.
        title: Heading.
        show: Which logits are shown first: `"normed"` (through the final norm's gain) or `"plain"`.
        linked: Whatever other views were made from, to share their selection.
        options: What `hooklab.analysis.dashboard.feature_dashboard` takes: `at=`, `features=`, `top=`, `window=` …

    Raises:
        ViewError: a model without features or texts, or a dashboard with them.
        DashboardError: what they say cannot be looked at.

    Example:
        >>> import hooklab as hl
        >>> view = hl.view.features(hl.load("lab"), "L2.mlp_post", ["Mary went to the store"], features=[3, 17])
        >>> view.select(neuron=17).selection
        {'layer': 2, 'neuron': 17}
    """
    if isinstance(source, FeatureDashboard):
        if what is not None or texts is not None or options:
            raise ViewError("a dashboard has its features and texts already: give it alone, or a model with them")
        return Features(source, title=title, source=linked, logits=show)
    if what is None or texts is None:
        raise ViewError("say what to look at and in which texts: hl.view.features(model, \"L2.mlp_post\", texts)")
    return Features(feature_dashboard(source, what, texts, **options), title=title, source=linked, logits=show)
