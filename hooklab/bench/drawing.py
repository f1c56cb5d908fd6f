"""What a function draws on, and ready-made plots that it receives: how they are asked for, made, and kept.

    @bench.plots("attention", losses="axes") ──asked──▶ "axes", "figure", (rows, columns), Plot ──drawn──▶ figure
    figure ──pictures──▶ PNG and SVG; view ──pictures──▶ a page (HTML) that works by itself
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import RecordError, did_you_mean
from .digest import is_a, is_model

MOST = 32
"""Rows or columns of a grid of axes."""
PLAIN = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Plot:
    """A ready-made plot, with its options, and with the arguments of the function that it is drawn from.

    Without `data` a plot takes the argument that is a model, and the argument `prompt` or `prompts`.

    Attributes:
        kind: A name of `hooklab.bench.plots.PLOTS`.
        options: What the plot takes besides: `{"layer": 2, "title": "before"}`.
        data: `"model"`, `"prompt"` or `"prompts"` -> the name of the function's argument: `{"prompt": "question"}`.

    Raises:
        RecordError: there is no such plot or option, or an option is no number, text, or list of them.

    >>> Plot("residual_stream", data={"prompt": "question"}).kind
    'residual_stream'
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from .plots import PLOTS

        if self.kind not in PLOTS:
            raise RecordError(f"there is no plot {self.kind!r}.{did_you_mean(self.kind, PLOTS)}")
        taken = inspect.signature(PLOTS[self.kind]).parameters
        sources = [name for name in taken if name in ("model", "prompt", "prompts")]
        open_ended = any(one.kind is one.VAR_KEYWORD for one in taken.values())
        for name in self.data:
            if name not in sources:
                raise RecordError(f"the plot {self.kind} is drawn from {' and '.join(sources)}, not from {name!r}."
                                  f"{did_you_mean(name, sources)}")
        for name, value in self.options.items():
            if name in sources or (name not in taken and not open_ended):
                known = [one for one in taken if one not in sources]
                raise RecordError(f"the plot {self.kind} has no option {name!r}.{did_you_mean(name, known)}")
            if not _is_plain(value):
                raise RecordError(f"the option {name} of the plot {self.kind} is a number, text, or a list of them, not "
                                  f"{value!r}")

    def plain(self) -> dict[str, Any]:
        """The same as plain data."""
        return {"kind": self.kind, "options": dict(self.options), "data": dict(self.data)}

    def draw(self, arguments: Mapping[str, Any], model: Any) -> Any:
        """The figure for a call with these arguments.

        Raises:
            RecordError: an argument that it is drawn from is missing.
            HooklabError: what the plot raises.
        """
        from .plots import PLOTS

        values = {}
        taken = inspect.signature(PLOTS[self.kind]).parameters
        for name in [one for one in ("model", "prompt", "prompts") if one in taken]:
            found, value = self._source(name, arguments, model)
            if found:
                values[name] = value
            elif taken[name].default is inspect.Parameter.empty:
                raise RecordError(f"the plot {self.kind} is drawn from a {name}, and the call has none: name the argument, "
                                  f"as in Plot({self.kind!r}, data={{{name!r}: 'x'}})")
        return PLOTS[self.kind](**values, **self.options)

    def _source(self, name: str, arguments: Mapping[str, Any], model: Any) -> tuple[bool, Any]:
        if name in self.data:
            wanted = self.data[name]
            if wanted not in arguments:
                raise RecordError(f"the plot {self.kind} is drawn from the argument {wanted!r}, which the call has not."
                                  f"{did_you_mean(wanted, arguments)}")
            return True, arguments[wanted]
        if name == "model":
            models = [value for value in arguments.values() if is_model(value)]
            if len(models) > 1:
                raise RecordError(f"the call has {len(models)} models: say which the plot {self.kind} is drawn from, as in "
                                  f"Plot({self.kind!r}, data={{'model': 'x'}})")
            return (True, models[0]) if models else (model is not None, model)
        same = [one for one in (name, "prompt", "prompts") if one in arguments]
        return (True, arguments[same[0]]) if same else (False, None)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return type(value) in PLAIN


def is_grid(what: Any) -> bool:
    """Whether it says how many rows and columns of axes there are."""
    return isinstance(what, tuple) and len(what) == 2 and all(type(one) is int and 0 < one <= MOST for one in what)


def asked(names: tuple[Any, ...], more: Mapping[str, Any], parameters: Mapping[str, Any], called: str,
          takes_any: bool) -> dict[str, Any]:
    """Parameter -> what is drawn: a name of a ready-made plot means that, any other name means empty axes.

    Raises:
        RecordError: there is no such parameter, or something else is asked for.
    """
    from .plots import PLOTS

    if not names and not more:
        raise RecordError('say what to draw on, as in @bench.plots("losses") or @bench.plots(heads=(2, 3)), or a ready-made '
                          f"plot: {', '.join(PLOTS)}")
    found: dict[str, Any] = {}
    for name in names:
        if not isinstance(name, str):
            raise RecordError(f"a plot without a name of its own is asked for by text, not {name!r}; with options it is "
                              "mine=Plot(…)")
        found[name] = Plot(name) if name in PLOTS else "axes"
    found |= more
    for name, what in found.items():
        if name not in parameters and not takes_any:
            near = did_you_mean(name, parameters if name in PLOTS else [*parameters, *PLOTS])
            raise RecordError(f"{called} has no parameter {name}, by which it would get "
                              f"{'the plot' if isinstance(what, Plot) else 'axes to draw on'}.{near}")
        if isinstance(what, str) and what not in ("axes", "figure"):
            found[name] = Plot(what)
        elif not isinstance(what, (str, Plot)) and not is_grid(what):
            raise RecordError(f'{name} is drawn on "axes", a "figure", or a grid such as (2, 3), or is a ready-made plot, '
                              f"not {what!r}")
    return found


def plain(plots: Mapping[str, Any]) -> dict[str, Any]:
    """What is drawn as plain data, to be kept."""
    return {name: what.plain() if isinstance(what, Plot) else what for name, what in plots.items()}


def from_plain(plots: Mapping[str, Any]) -> dict[str, Any]:
    """What `plain` made this of. Raises RecordError."""
    return {name: Plot(**what) if isinstance(what, dict) else tuple(what) if isinstance(what, list) else what
            for name, what in plots.items()}


def drawn(what: Any, arguments: Mapping[str, Any], model: Any) -> tuple[Any, Any]:
    """The figure that is kept, and what the function receives. Raises RecordError, HooklabError."""
    if not isinstance(what, Plot):
        return canvas(what)
    figure = what.draw(arguments, model)
    return figure, figure


def canvas(what: Any) -> tuple[Any, Any]:
    """A figure of its own, outside pyplot, and what is drawn on.

    >>> figure, axes = canvas((2, 3))
    >>> axes.shape, figure is axes[0, 0].figure
    ((2, 3), True)
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = what if is_grid(what) else (1, 1)
    figure = Figure(figsize=(6.4 if columns == 1 else 3.2 * columns, 4.0 if rows == 1 else 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    if what == "figure":
        return figure, figure
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes if is_grid(what) else axes[0, 0]


def is_view(value: Any) -> bool:
    """Whether a value is a view of hooklab."""
    return is_a(value, "hooklab.views.base", "View")


def is_figure(value: Any) -> bool:
    """Whether a value is a matplotlib figure, or a view of hooklab."""
    return is_a(value, "matplotlib.figure", "Figure") or is_view(value)


def pictures(figure: Any) -> dict[str, Callable[[], bytes]]:
    """Ending -> the bytes of a file: PNG and SVG of a figure, drawn without pyplot; a page of a view."""
    if is_view(figure):
        return {"html": lambda: str(figure.to_html()).encode()}
    return {"png": lambda: _saved(figure, "png"), "svg": lambda: _saved(figure, "svg")}


def _saved(figure: Any, form: str) -> bytes:
    held = io.BytesIO()
    figure.savefig(held, format=form, metadata={"Date": None} if form == "svg" else None)
    return held.getvalue()
