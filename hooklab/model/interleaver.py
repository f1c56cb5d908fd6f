"""The one place where hooklab touches nnsight's engine: every site is served here, to blocks and to plans alike.

nnsight hands every module's input and output to `Interleaver.handle` under a location name. This subclass adds two
things. Sites: at a native location, each port that somebody waits for is cut out, offered under its own location and
put back if it changed. Callbacks: a plan registers functions by location, with no block, no source text and no order
to keep. Everything that a run changes (attention, grad mode, gradient checkpointing, parameters' flags) is set on
entry and comes back on exit, also after an exception or an interrupt.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from nnsight.intervention.interleaver import EarlyStopException, Interleaver, OutOfOrderError, dangling_unwind
from torch import Tensor

from ..errors import WriteError
from .attention import Inline, attending
from .checks import check_write
from .lateness import Handed, OrderError, too_late, warn_of_late_edits
from .layout import Layout
from .ports import Port, first_input, with_first_input
from .recomputing import kept, recomputed
from .routes import Routes

Callback = Callable[[Tensor, int], "Tensor | None"]
EarlyStop = EarlyStopException


class SiteInterleaver(Interleaver):
    """nnsight's interleaver with sites, callbacks and a run's clean-up."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.lock = threading.RLock()
        self.grad: bool | str = False
        self.callbacks: dict[str, list[Callback]] = {}
        self.standing: dict[str, list[Callback]] = {}
        self.routes = Routes(layout)
        self.light = False
        self.watcher: Callable[..., None] | None = None
        self.attends: Callable[..., Any] | None = None
        self.thread = 0
        self.recomputed = recomputed(layout.hf)
        self.refused: dict[str, str] = {}
        self._reset()

    def _reset(self) -> None:
        self.serving = 0
        self.batch = 1
        self.base: dict[str, int] = {}
        self.corrections: dict[str, list[Callable[[Any], Any]]] = {}
        self.handed: list[Handed] = []
        self.last = ""
        self._mode: Inline | None = None

    # A run's life -----------------------------------------------------------------------------------------------

    def __enter__(self) -> SiteInterleaver:
        self._reset()
        self.thread = threading.get_ident()
        self.base = dict(self.counts)
        self._stack = ExitStack()
        try:
            self._stack.callback(torch.set_grad_enabled, torch.is_grad_enabled())
            self._stack.enter_context(kept(self.recomputed))
            torch.set_grad_enabled(bool(self.grad))
            if self.grad and self.grad != "weights":
                self._freeze()
            self._join_standing()
            inner = self.watcher or self.attends or any(self.routes.ports[at].source is None for at in self.callbacks)
            if self.mediators or inner:
                self._stack.enter_context(attending(self.layout, self))
            self.serving += 1  # blocks start now, and what they call before their first site is no part of the run
            super().__enter__()
            self.serving -= 1
        except BaseException:
            self._stack.close()
            raise
        self.light = not self.mediators
        if self.light:
            self._hook_watched()
        return self

    def _join_standing(self) -> None:
        """Let the user's own hooks act in this run, before its callbacks."""
        if self.standing:
            own = self.callbacks
            self._stack.callback(setattr, self, "callbacks", own)
            self.callbacks = {at: [*self.standing.get(at, ()), *own.get(at, ())] for at in {**self.standing, **own}}

    def _hook_watched(self) -> None:
        """Serve a run without blocks by plain forward hooks on the few modules that matter to it.

        nnsight's handoff calls into Python three times for every module of the model; without blocks nothing else
        needs it, and on small models it is most of what capturing costs.
        """
        for location in self.routes.watched(self.callbacks, grad=bool(self.grad)):
            path, side = location.rsplit(".", 1)
            module = self.routes.modules[path]
            if side == "input":
                handle = module.register_forward_pre_hook(self._pre_hook(location), with_kwargs=True)
            else:
                handle = module.register_forward_hook(self._post_hook(location), prepend=True)  # before hooks of the user
            self._stack.callback(handle.remove)

    def _pre_hook(self, location: str) -> Callable[..., Any]:
        return lambda module, args, kwargs: self._unless_serving(location, (args, kwargs))

    def _post_hook(self, location: str) -> Callable[..., Any]:
        return lambda module, args, output: self._unless_serving(location, output)

    def _unless_serving(self, location: str, value: Any) -> Any:
        return value if self.foreign else self._serve_location(location, value)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What the model runs in the block is no part of the run."""
        self.serving += 1
        try:
            yield
        finally:
            self.serving -= 1

    @property
    def foreign(self) -> bool:
        """Whether the module now running is no part of the run: called by a block, a callback or another thread."""
        return self.serving > 0 or threading.get_ident() != self.thread

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> bool:
        try:
            return super().__exit__(exc_type, exc_value, traceback)
        finally:
            self._leave_inline()
            self._stack.close()

    def _freeze(self) -> None:
        """Gradients are wanted for activations: keep parameters out of the graph for the length of the run."""
        for parameter in self.layout.hf.parameters():
            if parameter.requires_grad:
                parameter.requires_grad_(False)
                self._stack.callback(parameter.requires_grad_, True)

    def check_dangling_mediators(self) -> None:
        """Say which site was asked for too late, and what to do; warn of edits that came too late to matter."""
        for mediator in self.mediators:
            if not mediator.alive:
                continue
            error, expected = dangling_unwind(mediator)
            if isinstance(error, OutOfOrderError) and expected is None:
                provider = mediator.pending.provider
                error = OrderError(too_late(self.routes.addresses.get(provider, provider), self.last))
            try:
                mediator.worker.throw(error)
            except BaseException as thrown:
                if expected is None or thrown is not error:
                    raise
                warnings.warn(expected, stacklevel=2)
        warn_of_late_edits(self.handed)


    # Serving ----------------------------------------------------------------------------------------------------

    def handle(self, provider: str, value: Any) -> Any:
        """Serve a native location, then every site that it carries."""
        if self.light:
            return super().handle(provider, value)
        if self.foreign and provider.rpartition(".")[0] in self.routes.modules:
            return value
        if provider in self.routes.carriers:
            return self._serve_location(provider, value)
        return self._serve_native(provider, value)

    def _serve_location(self, provider: str, value: Any) -> Any:
        if provider in self.routes.block_inputs:
            self.batch = first_input(value).shape[0]
        if provider in self.routes.leaves and isinstance(value, Tensor):
            self.batch = max(self.batch, value.shape[0])
            if self.grad and self.grad != "weights":
                value = value.detach().requires_grad_()  # gradients end here: parameters are frozen
        elif provider == self.routes.first and self.grad and not first_input(value).requires_grad:
            value = with_first_input(value, first_input(value).detach().requires_grad_())  # given embeddings
        if self.routes.inline and provider.endswith(".input") and provider[:-6] in self.routes.inline:
            self._enter_inline(provider[:-6])
        if self.corrections:
            for correct in self.corrections.pop(provider, ()):
                value = correct(value)
        if not self.light:
            value = self._serve_native(provider, value)
        for port in self.routes.by_source.get(provider, ()):
            value = self.serve(port, value)
        if self._mode is not None and provider.endswith(".output") and provider[:-7] in self.routes.inline:
            self._leave_inline()
        return value

    def _serve_native(self, provider: str, value: Any) -> Any:
        """What nnsight itself does at a location; most have nobody waiting and are only counted."""
        if provider not in self.parked and provider not in self.observers:
            self.counts[provider] = self.counts.get(provider, 0) + 1
            return value
        served = self._guarded(provider, value)
        if provider in self.routes.attention_outputs and served is not value:
            self._refuse_weights(provider, value, served)
        return served

    def _guarded(self, provider: str, value: Any) -> Any:
        """nnsight's own serving; a name that was waited for is remembered for error messages."""
        if provider in self.parked:
            self.last = self.routes.addresses.get(provider, provider)
        self.serving += 1
        try:
            return super().handle(provider, value)
        finally:
            self.serving -= 1

    def _refuse_weights(self, provider: str, before: Any, after: Any) -> None:
        """Attention modules return their pattern for show; the model never reads it, so writing it does nothing."""
        if isinstance(after, tuple) and isinstance(before, tuple) and any(
                new is not old for new, old in zip(after[1:], before[1:], strict=False)):
            layer = self.routes.attention_outputs[provider]
            raise WriteError(f"The attention weights that a module returns are a copy that nothing reads. To change "
                             f"where layer {layer} looks, write model.layers[{layer}].pattern (or .scores).")

    def wants(self, *ports: Port) -> bool:
        """Whether anybody waits for one of the ports."""
        return any(port.location in self.parked or port.location in self.callbacks for port in ports)

    def pass_by(self, *ports: Port) -> None:
        """Count a visit that nobody waited for, so that later steps are numbered right."""
        for port in ports:
            self.counts[port.location] = self.counts.get(port.location, 0) + 1

    def serve(self, port: Port, value: Any) -> Any:
        """Offer a port's tensor to whoever waits for it; return the native value, changed if they changed it.

        What is handed out is always a copy: it stays the caller's, whatever the model later does in place, and a
        change to it (in place or by assignment) is noticed and put back.
        """
        location = port.location
        if location not in self.parked and location not in self.callbacks:
            self.counts[location] = self.counts.get(location, 0) + 1
            return value
        raw = port.take(value)
        flat = raw.ndim == len(port.axes) - 1  # some blocks fold batch and pos into one axis
        old = raw.unflatten(0, (self.batch, -1)) if flat else raw
        if port.axes[0] == "batch" and old.shape[0] == 1 < self.batch:
            old = old.expand(self.batch, *old.shape[1:])  # positions are embedded once for all examples
        mine = old.clone()
        version = None if mine.is_inference() else mine._version
        new = self._offer(port, mine)
        untouched = new is mine and version is not None and mine._version == version
        if not (torch.is_grad_enabled() and mine.requires_grad and untouched):
            if untouched:
                return value
            check_write(port.address, port.axes, new, old)
            if not torch.is_grad_enabled() and torch.equal(new, old):
                return value
        new = new.to(old.dtype, copy=True)  # the model may go on to change it in place; the caller keeps the original
        if port.later is not None and port.correct is not None:
            self.corrections.setdefault(port.later, []).append(port.correct(value, old, new))
            return value
        return port.put(value, new.flatten(0, 1) if flat else new)

    def _offer(self, port: Port, mine: Tensor) -> Tensor:
        step = self.counts.get(port.location, 0) - self.base.get(port.location, 0)
        new = mine
        self.serving += 1
        try:
            for callback in self.callbacks.get(port.location, ()):
                changed = callback(new, step)
                if changed is not None:
                    check_write(port.address, port.axes, changed, mine)
                    new = changed.to(mine.dtype)
        finally:
            self.serving -= 1
        if port.location in self.parked:
            new = self._serve_blocks(port.location, new)
            if not new.is_inference():
                self.handed.append(Handed(weakref.ref(mine), mine._version, port.address))
        else:
            self.pass_by(port)
        return new

    def _serve_blocks(self, location: str, value: Tensor) -> Tensor:
        """Serve blocks; with gradients, what each was given of a shared batch is put back into the graph."""
        pieces = self.batcher.pieces = {} if torch.is_grad_enabled() and self.batcher is not None else None
        new = self._guarded(location, value)
        if self.batcher is not None:
            self.batcher.pieces = None
        if pieces:
            new = new.clone()
            for (start, size), piece in pieces.items():
                new[start:start + size] = piece
        return new

    # Inline attention -------------------------------------------------------------------------------------------

    def _enter_inline(self, path: str) -> None:
        facts = self.layout.facts
        self._mode = Inline(self, self.routes.inline[path], facts.n_heads, facts.n_kv_heads)
        self._mode.__enter__()

    def _leave_inline(self) -> None:
        if self._mode is not None:
            self._mode.__exit__(None, None, None)
            self._mode = None
