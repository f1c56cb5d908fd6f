"""One call, measured: what each module takes in time, memory and arithmetic, as a tree of calls.

Modules are seen through torch's hooks for all modules, which are there only while the call runs, and only for its thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ..hypotheses import randomness


@dataclass
class Node:
    """A module as it is called from one place: everything includes the modules that it calls.

    Attributes:
        name: The module's path; "" at the top.
        kind: Its class.
        module: `id` of the module.
        calls: How often it was called.
        time: Seconds.
        flops: Floating-point operations of matrix products, convolutions and attention, an addition and a multiplication
            being two.
        memory: Bytes of the tensors that were made, whether they were kept or not.
        children: What it called, by name, in the order of the first calls.
    """

    name: str = ""
    kind: str = ""
    module: int = 0
    calls: int = 0
    time: float = 0.0
    flops: int = 0
    memory: int = 0
    children: dict[str, Node] = field(default_factory=dict)

    def own(self, what: str) -> Any:
        """What remains of `time`, `flops` or `memory` without the modules that it called."""
        return getattr(self, what) - sum(getattr(child, what) for child in self.children.values())

    def shares(self, what: str = "time") -> dict[str, float]:
        """How a quantity is divided among the modules called and `(own)`; adds up to 1, or nothing where there is none.

        >>> Node(time=4.0, children={"a": Node("a", time=3.0)}).shares()
        {'a': 0.75, '(own)': 0.25}
        """
        whole = getattr(self, what)
        parts = {name: getattr(child, what) for name, child in self.children.items()} | {"(own)": self.own(what)}
        return {name: part / whole for name, part in parts.items()} if whole else {}

    def walk(self) -> Iterator[Node]:
        """This node and all below it, in the order of calls."""
        yield self
        for child in self.children.values():
            yield from child.walk()

    def add_counts(self, other: Node) -> None:
        """Take over memory and arithmetic from another run of the same call."""
        self.flops, self.memory = other.flops, other.memory
        for name, child in self.children.items():
            if name in other.children:
                child.add_counts(other.children[name])


@dataclass
class Names:
    """Paths of modules: those of a known top, and others by their class as they are met."""

    paths: dict[int, str] = field(default_factory=dict)
    tops: dict[str, int] = field(default_factory=dict)
    held: list[Any] = field(default_factory=list)

    def add(self, top: Any, prefix: str) -> None:
        """Name a module and all inside it."""
        self.held.append(top)  # an id is that of one module only as long as that lives
        for path, module in top.named_modules():
            self.paths.setdefault(id(module), ".".join(filter(None, (prefix, path))) or type(top).__name__)

    def __call__(self, module: Any) -> str:
        if id(module) not in self.paths:
            kind = type(module).__name__
            self.tops[kind] = self.tops.get(kind, 0) + 1
            self.add(module, kind if self.tops[kind] == 1 else f"{kind}#{self.tops[kind]}")
        return self.paths[id(module)]


class Allocated(TorchDispatchMode):
    """Adds up the bytes of every tensor that an operation makes; views, and results written in place, are none."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        before = {_storage(one) for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
        made = {_storage(one): one for one in tree_leaves(out) if isinstance(one, torch.Tensor)}
        for storage, one in made.items():
            if storage is not None and storage not in before:
                self.total += one.untyped_storage().nbytes()
        return out


def _storage(tensor: Any) -> int | None:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # a tensor without a storage, such as a sparse one
        return None


def attention_flops(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Of the fused attention of CPUs, which torch does not count: products of queries with keys, and weights with values."""
    rows = query[0] * query[1] * query[2]
    return int(2 * rows * key[2] * (query[3] + value[3]))


def counter() -> Any:
    """Torch's own counter of operations, with what it leaves out."""
    fused = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
    return FlopCounterMode(display=False, custom_mapping={} if fused is None else {fused: attention_flops})


def measured(call: Callable[[], Any], names: Names, counting: bool) -> tuple[Node, Any]:
    """Call once; the tree of what was called, and what was returned. All is put back: hooks, gradients, random state."""
    root = Node(calls=1)
    with randomness.kept(), _gradients(), contextlib.ExitStack() as stack:
        allocated = stack.enter_context(Allocated()) if counting else None
        flops = stack.enter_context(counter()) if counting else None

        def now() -> tuple[float, int, int]:
            _wait()
            return (time.perf_counter(), flops.get_total_flops() if flops is not None else 0,
                    allocated.total if allocated is not None else 0)

        stack.enter_context(_watching(root, names, now))
        start = now()
        result = call()
        _spent(root, start, now())
    return root, result


@contextlib.contextmanager
def _watching(root: Node, names: Names, now: Callable[[], tuple[float, int, int]]) -> Iterator[None]:
    thread = threading.get_ident()
    open_: list[tuple[Node, Any, tuple[float, int, int]]] = [(root, None, (0.0, 0, 0))]

    def before(module: Any, inputs: Any) -> None:
        if threading.get_ident() == thread:
            name, parent = names(module), open_[-1][0]
            node = parent.children.setdefault(name, Node(name, type(module).__name__, id(module)))
            node.calls += 1
            open_.append((node, module, now()))

    def after(module: Any, inputs: Any, output: Any) -> None:
        if threading.get_ident() == thread and any(one is module for _, one, _ in open_):
            end = now()
            while True:  # what an error has left open ends here too
                node, one, start = open_.pop()
                _spent(node, start, end)
                if one is module:
                    break

    handles = [register_module_forward_pre_hook(before), register_module_forward_hook(after, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _spent(node: Node, start: tuple[float, int, int], end: tuple[float, int, int]) -> None:
    node.time += end[0] - start[0]
    node.flops += end[1] - start[1]
    node.memory += end[2] - start[2]


def _wait() -> None:
    """What a GPU has been given to do belongs to the module that gave it."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@contextlib.contextmanager
def _gradients() -> Iterator[None]:
    before = torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_grad_enabled(before)
