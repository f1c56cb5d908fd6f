"""Interact: sliders and their like for the names in a spec's braces; the run follows them.

    spec {names} + what each may be ──controls──▶ values ──model.run, the latest wins──▶ Run ──▶ its views
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ipywidgets
import traitlets

from .. import html
from ..errors import HooklabError, ViewError, did_you_mean
from ..records import Run
from ..spec import ast
from ..spec.freeze import freeze
from ..spec.holes import holes, model_line
from ..spec.parser import parse
from . import colab, registry

if TYPE_CHECKING:
    from ..model.model import Model

WIDE = {"description_width": "initial"}


class Interact(ipywidgets.VBox):
    """Controls over the last Run that they made.

    Attributes:
        run: The last Run; None before the first. It can be observed.
        error: Why there is no Run of the present values, in words; empty when there is. It can be observed.
        controls: Name -> ipywidgets control; names with a fixed value have none.
    """

    run = traitlets.Any(None, allow_none=True)
    error = traitlets.Unicode("")

    def __init__(self, spec: ast.Spec, model: Model, names: Mapping[str, Any], *, auto: bool) -> None:
        self._parsed, self._target, self._auto = spec, model, auto
        self.controls = {name: made for name, value in names.items() if (made := control(name, value)) is not None}
        self._fixed = {name: value for name, value in names.items() if name not in self.controls}
        self._choices = {name: _choices(names[name]) for name in self.controls if isinstance(names[name], (list, dict))}
        self._wanted, self._done, self._closed = 0, 0, False
        self._turn, self._state = threading.Lock(), threading.Lock()
        self._shown: list[Any] = []
        self._said = ipywidgets.HTML("")
        self._place = ipywidgets.VBox([])
        self._button = ipywidgets.Button(description="Run", tooltip="Run the spec with these values")
        self._button.on_click(lambda _: self.update())
        row = ipywidgets.HBox([*self.controls.values(), *([] if auto else [self._button])],
                              layout=ipywidgets.Layout(flex_flow="row wrap", grid_gap="4px 16px"))
        super().__init__([row, self._said, self._place])
        for made in self.controls.values():
            made.observe(self._moved, "value")
        registry.opened(self)

    def _repr_mimebundle_(self, **given: Any) -> Any:
        data = super()._repr_mimebundle_(**given)
        return data if data is None or isinstance(data, tuple) else (data, colab.about())

    @property
    def values(self) -> dict[str, Any]:
        """What the braces stand for now, by name."""
        found = {name: made.value for name, made in self.controls.items()}
        for name, choices in self._choices.items():
            found[name] = choices[self.controls[name].index][1]
        return {**self._fixed, **found}

    @property
    def spec(self) -> str:
        """The spec with the present values in place of its braces, as far as the language can write them."""
        return str(freeze(self._parsed, self.values).spec)

    def update(self) -> Run | None:
        """Run with the present values, now. While a run is under way, values that change are run once it is done, and
        only the latest of them. Returns the last Run, or None where `error` says why there is none.
        """
        if self._closed:
            raise ViewError("these controls were closed: make them anew")
        with self._state:
            self._wanted += 1
        while self._turn.acquire(blocking=False):
            try:
                while self._done != (now := self._wanted):
                    self._once(now)
            finally:
                self._turn.release()
            if self._done == self._wanted:
                break
        return None if self.error else self.run

    def close(self) -> None:
        """Take it off the page, with the views that it shows."""
        if not self._closed:
            self._closed = True
            registry.forgotten(self)
            self._replace([])
            super().close()

    def _moved(self, change: Any) -> None:
        if self._auto:
            self.update()
        else:
            self._said.value = html.note("Values changed: press Run.")

    def _once(self, now: int) -> None:
        """One run with the values of this moment; what is overtaken meanwhile is not shown."""
        values = self.values
        run: Run | None
        try:
            with self._target.interleaver.lock:
                if now != self._wanted:
                    self._done = now
                    return
                run, error = self._target.run(self._parsed, values=values), ""
        except HooklabError as wrong:  # in their own words, in the place of the run
            run, error = getattr(wrong, "run", None), str(wrong)
        except Exception as wrong:
            run, error = None, f"{type(wrong).__name__}: {wrong}"
        self._done = now
        if now == self._wanted:
            self._show(run, error)

    def _show(self, run: Run | None, error: str) -> None:
        said = f'<pre class="hl-problem" style="white-space:pre-wrap">{html.safe(error)}</pre>' if error else ""
        self._replace([] if run is None else drawn(run))
        self._said.value = html.block(said) if said else ""
        self.error = error
        self.run = run or self.run

    def _replace(self, shown: list[Any]) -> None:
        """Show these, and close what was shown before."""
        old, self._shown = self._shown, shown
        self._place.children = tuple(shown)
        for one in old:
            one.close()

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={_short(value)}" for name, value in self.values.items())
        below = html.safe(self.error) if self.error else repr(self.run) if self.run else ""
        return f"Interact({said})\n{below}".rstrip()


def drawn(run: Run) -> list[Any]:
    """The widgets that show a run: its views, or its plain form where there are none for it."""
    try:
        found = importlib.import_module(".choosing", __package__).of(run)
    except (ImportError, ViewError):
        return [ipywidgets.HTML(run._repr_html_())]
    return [found] if isinstance(found, ipywidgets.DOMWidget) else list(found)


# Controls -------------------------------------------------------------------------------------------------------------


def control(name: str, value: Any) -> Any:
    """The control for what a name may be; None for a fixed value.

    >>> type(control("c", (0, 8))).__name__, type(control("c", (0.0, 8.0, 0.5))).__name__, control("c", 3)
    ('IntSlider', 'FloatSlider', None)
    """
    if isinstance(value, ipywidgets.Widget):
        if not hasattr(value, "value"):
            raise ViewError(f"{name} is a {type(value).__name__}, which has no value")
        return value
    return next((make(name, value) for kind, make in _CONTROLS if isinstance(value, kind)), None)


def _slider(name: str, value: tuple[Any, ...]) -> Any:
    """A slider from a tuple (low, high) or (low, high, step)."""
    numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in value)
    if len(value) not in (2, 3) or not numbers:
        raise ViewError(f"{name} is (low, high) or (low, high, step), as in {name}=(0, 8) or {name}=(0.0, 8.0, 0.5), not "
                        f"{value!r}; for one of several things give a list")
    low, high, step = (*value, None)[:3]
    if not low < high or (step is not None and step <= 0):
        raise ViewError(f"{name}={value!r} has no range: low comes before high, and a step is above 0")
    whole = all(isinstance(one, int) for one in value)
    make = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
    step = step if step is not None else 1 if whole else (high - low) / 100
    start = low + (high - low) // 2 if whole else low + round((high - low) / 2 / step) * step
    return make(value=start, min=low, max=high, step=step, description=name, style=WIDE)


def _dropdown(name: str, value: Any) -> Any:
    if not value:
        raise ViewError(f"{name} has nothing to choose from")
    options = _choices(value)
    if not all(isinstance(one, (int, float, str)) or one is None for _, one in options):
        options = [(label, i) for i, (label, _) in enumerate(options)]  # drop-downs compare values; tensors cannot be
    return ipywidgets.Dropdown(options=options, index=0, description=name, style=WIDE)


def _choices(value: Any) -> list[tuple[str, Any]]:
    return [(_short(label), one) for label, one in (value.items() if isinstance(value, Mapping) else zip(value, value,
                                                                                                        strict=True))]


def _checkbox(name: str, value: bool) -> Any:
    return ipywidgets.Checkbox(value=value, description=name, indent=False)


def _text(name: str, value: str) -> Any:
    return ipywidgets.Text(value=value, description=name, style=WIDE, continuous_update=False)


_CONTROLS: tuple[tuple[type, Callable[[str, Any], Any]], ...] = (
    (bool, _checkbox), (str, _text), (tuple, _slider), (list, _dropdown), (dict, _dropdown))


def _short(value: Any) -> str:
    text = html.printable(value)
    return text if len(text) <= 60 else text[:60] + "…"


# The function ----------------------------------------------------------------------------------------------------------


def _checked(spec: ast.Spec, names: Mapping[str, Any]) -> None:
    """Refuse names that the spec does not have, and braces without a name. Raises ViewError."""
    needed = holes(spec)
    there = ", ".join(f"{{{name}}}" for name in needed) or "none"
    for name in names:
        if name not in needed:
            more = " What is more than a name is given by its text: values={…}." if needed else ""
            raise ViewError(f"the spec has no {{{name}}}.{did_you_mean(name, needed)} Its braces: {there}.{more}")
    for name in needed:
        if name not in names:
            given = did_you_mean(name, names)
            how = f"give it a range or a value: {name}=(0, 8)" if name.isidentifier() else (
                f"give it by its text: values={{{name!r}: …}}")
            raise ViewError(f"{{{name}}} has no value.{given} {how[0].upper()}{how[1:]}.")


def interact(spec: ast.Spec | str, model: Model | None = None, *, auto: bool = True,
             values: Mapping[str, Any] | None = None, **names: Any) -> Interact:
    """Controls for the names in a spec's braces; the spec runs again when they move.

    A slider that is dragged does not queue runs: while one is under way, only the latest values wait.

    Args:
        spec: A spec or its text.
        model: The model to run it on; by default the one that its `model` line names.
        auto: Run at every change; otherwise a button runs it.
        values: The same as `names`, for braces that hold more than a name.
        names: What each name may be: `(low, high)` or `(low, high, step)` is a slider (of whole numbers where all of them
            are), a list or a dict of labels a drop-down, True or False a checkbox, text a field, an ipywidgets control
            itself; anything else (a number, a tensor) is a fixed value.

    Raises:
        ViewError: a name is missing, or the spec does not have it; no model is named.
        SpecError: the spec cannot be read.

    Example:
        >>> import hooklab as hl
        >>> text = 'prompt "Mary went to the store"\\nmetric entropy\\nscale L2.mlp by {c}'
        >>> box = hl.interact(text, hl.load("lab"), c=(0, 8))
        >>> box.controls["c"].value = 2
        >>> box.values, sorted(box.run.metrics)
        ({'c': 2}, ['hooked', 'main'])
        >>> print(box.spec.splitlines()[-1])
        scale L2.mlp_out by 2
    """
    parsed = parse(spec) if isinstance(spec, str) else spec
    known = {**names, **(values or {})}
    _checked(parsed, known)
    if model is None:
        named = model_line(parsed)
        if named is None:
            raise ViewError('give the model: hl.interact(spec, model, …), or name it in the spec: model "lab"')
        from ..model.load import load

        model = load(named[0], **named[1])
    box = Interact(parsed, model, known, auto=auto)
    if auto:
        box.update()
    return box
