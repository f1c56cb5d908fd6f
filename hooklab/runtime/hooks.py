"""Hooks: a function of your own on a site, in every run of the model until it is removed.

    with model.hook("L*.mlp_post", lambda x, ctx: print(ctx.layer, x.norm())):
        model.run("prompt …")

It acts in traces, captures, runs of specs and generation alike, because all of them pass the one interleaver, and it acts
before their own edits and reads. A hook is given a copy of the site's tensor: to observe, return None; to replace, return
the new value (or change the copy in place).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..address import Place
from ..errors import TraceError, WriteError
from .trace import _writer, places

if TYPE_CHECKING:
    from ..model.model import Model
    from ..tokens import Tokens

Hook = Callable[..., "Tensor | None"]


@dataclass(frozen=True)
class Context:
    """Where a hook was called.

    Attributes:
        site: The site's name, such as `"resid_post"`.
        layer: Its layer; None for sites of the whole model.
        step: Which forward pass of a generation; 0 elsewhere.
        positions: For every row, the unpadded positions that the tensor holds, or those of them that `at=` chose; None
            where the model was given embeddings.
        columns: For every row, where those lie on the tensor's position axis.
        tokens: What the run was given; None for embeddings.
    """

    site: str
    layer: int | None
    step: int
    positions: tuple[tuple[int, ...], ...] | None
    columns: tuple[tuple[int, ...], ...] | None
    tokens: Tokens | None

    @property
    def address(self) -> str:
        """The site with its layer, such as `L5.z`."""
        return self.site if self.layer is None else f"L{self.layer}.{self.site}"


class Handle:
    """A hook that stands: remove it, or use it in a `with`.

    Attributes:
        address: Where it stands, as it was written.
        calls: How often it was called.
    """

    def __init__(self, model: Model, address: str, hook: Hook, grad: bool, at: Any) -> None:
        self.address, self.calls = address, 0
        self._model, self._hook, self._grad, self._at = model, hook, grad, at
        self._placed: list[tuple[str, Any]] = []
        self._bare = _takes_no_context(hook)
        with model.interleaver.lock:
            for place in places(model, [address]):
                location = model.layout.port(place.site, place.layer).location
                served = self._server(place)
                model.interleaver.standing.setdefault(location, []).append(served)
                self._placed.append((location, served))
            model.hooks.append(self)

    def remove(self) -> None:
        """Take the hook away; doing so twice does nothing."""
        standing = self._model.interleaver.standing
        with self._model.interleaver.lock:
            for location, served in self._placed:
                standing[location].remove(served)
                if not standing[location]:
                    del standing[location]
            if self._placed:
                self._model.hooks.remove(self)
            self._placed = []

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()

    def __repr__(self) -> str:
        name = getattr(self._hook, "__qualname__", None) or type(self._hook).__name__
        what = "gradient of " if self._grad else ""
        return f"Hook({what}{self.address}: {name}, called {self.calls} times{'' if self._placed else ', removed'})"

    def _server(self, place: Place) -> Callable[[Tensor, int], Tensor | None]:
        """What happens at a site when the model runs: the hook on its value, or later on its gradient."""

        def act(value: Tensor, step: int) -> Tensor | None:
            # A site that is a slice (a head, some neurons) is cut out and put back by the writer.
            return _writer(place, lambda part: self._called(part, place, step))(value, step)

        def act_back(value: Tensor, step: int) -> None:
            if not value.requires_grad:
                return

            def back(gradient: Tensor) -> Tensor | None:
                with torch.no_grad():
                    return _writer(place, lambda part: self._called(part, place, step))(gradient.clone(), step)

            value.register_hook(back)

        return act_back if self._grad else act

    def _called(self, value: Tensor, place: Place, step: int) -> Tensor | None:
        self.calls += 1
        changed = self._hook(value) if self._bare else self._hook(value, self._context(value, place, step))
        if changed is not None and not isinstance(changed, Tensor):
            raise WriteError(f"The hook on {self.address} returned {type(changed).__name__}: return None to observe, or the "
                             "tensor that is to stand there instead.")
        return changed if changed is not None or not self._grad else value

    def _context(self, value: Tensor, place: Place, step: int) -> Context:
        tokens = self._model.reader.current
        if tokens is None:
            return Context(place.site, place.layer, step, None, None, None)
        from ..positions import resolve

        axis = 2 if place.site in ("scores", "pattern") else 1
        times = max(1, value.shape[0] // len(tokens))  # samples and beams repeat their prompt
        chosen = resolve(self._at, tokens) if self._at is not None else [tuple(range(n)) for n in tokens.lengths]
        side = self._model.reader.side
        positions, columns = [], []
        for example, picked in enumerate(chosen):
            if step:  # one new token a step; its position goes on from the prompt's
                here: tuple[int, ...] = (tokens.lengths[example] + step - 1,) if self._at is None else ()
                at: tuple[int, ...] = (value.shape[axis] - 1,) if here else ()
            else:
                here, at = tuple(picked), tuple(tokens.column(example, one, side) for one in picked)
            positions += [here] * times
            columns += [at] * times
        return Context(place.site, place.layer, step, tuple(positions), tuple(columns), tokens)


def hook(model: Model, address: str, function: Hook, *, grad: bool = False, at: Any = None) -> Handle:
    """Put a function on every place that an address names, until the handle is removed or its `with` ends.

    Args:
        model: An open model.
        address: Such as `"L3.mlp_post"`, `"L*.resid_post"`, `"L9H6.z"`, `"logits"`.
        function: `f(value)` or `f(value, ctx)`; the value is a copy, with the site's axes. What it returns replaces the
            value; None leaves it, with whatever was changed in the copy.
        grad: Give it the gradient of the site instead, in runs that have gradients; what it returns goes on upstream.
        at: Position selector; what it picks in each example is in `ctx.positions` and `ctx.columns`.

    Raises:
        SiteError: the model has no such site.
        LayerError: a layer or head is out of range.
        TraceError: this is no function of one or two arguments.

    >>> import hooklab as hl
    >>> model = hl.load("lab")
    >>> with hook(model, "L3.mlp_post", lambda x, ctx: x * 0) as handle:
    ...     found = model.capture("The Eiffel Tower is in", "L3.mlp_out")["L3.mlp_out"]
    >>> handle.calls, bool((found == model.W.b_out[3]).all())
    (1, True)
    """
    if not callable(function):
        raise TraceError(f"a hook is a function of a tensor, not {type(function).__name__}")
    return Handle(model, address, function, grad, at)


def _takes_no_context(function: Hook) -> bool:
    """Whether a hook wants the value alone."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return True  # built in, such as torch.relu
    given = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return False
    needed = [p for p in given if p.default is p.empty]
    if not given or len(needed) > 2 or any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        raise TraceError("a hook takes the value, or the value and a context: f(x) or f(x, ctx)")
    return len(given) == 1 or (len(needed) == 1 and given[1].name not in ("ctx", "context"))
