"""`profile`: where the time, the memory and the arithmetic of a call go, by layer, by component or by module.

In: an opened model and a prompt, or any function or module with its arguments. Out: a `Profile`: a table, Scores, and a
picture. The call is left as it was: nothing of it is changed, and hooks, gradient mode and random state are put back.
"""

from __future__ import annotations

from collections.abc import Callable
from math import fsum
from typing import TYPE_CHECKING, Any

from ..errors import did_you_mean
from .profiling.naming import OUTSIDE, Part
from .profiling.record import BY, Profile, ProfileError, Row

if TYPE_CHECKING:
    from .profiling.measuring import Names, Node

__all__ = ["Profile", "ProfileError", "Row", "profile"]


def profile(target: Any, *args: Any, by: str = "layer", repeats: int = 3, warmup: int = 1, count: bool = True,
            **kwargs: Any) -> Profile:
    """Measure where a call spends its time, its memory and its arithmetic.

    The target is called `warmup` times unmeasured, `repeats` times for the time, and with `count` once more for memory and
    arithmetic, which would slow the others down. Every call starts from the same random state. Times are wall time; with a
    GPU, each module is waited for. A module takes some microseconds more than it would unwatched.

    Args:
        target: An opened model, whose first argument is a prompt; or a module; or any function, whatever modules it calls.
        args: What it is called with.
        by: Rows for each `"layer"`, for each `"component"` of a layer (attention, MLP, norms), or for each `"module"`. Where
            the target is no opened model, the first number in a module's path is taken for its layer, and the name after it
            for the component.
        repeats: How often it is timed.
        warmup: How often it is called before.
        count: Whether memory and arithmetic are counted. Memory is the bytes of all tensors made on the way, kept or not.
            Arithmetic is that of matrix products, convolutions and attention, 2 m n k for a product [m k] by [k n].
        kwargs: Further arguments of the target.

    Raises:
        ProfileError: the target cannot be called, or an option does not exist. Errors of the target itself go through.

    Example:
        >>> import hooklab as hl
        >>> found = profile(hl.load("lab"), "The capital of France is", by="component", repeats=1)
        >>> sorted({row.component for row in found.rows})
        ['attn', 'embed', 'ln_final', 'mlp', 'norm', 'pos_embed', 'rest', 'unembed']
        >>> abs(sum(row.share for row in found.rows) - 1) < 1e-6
        True
    """
    _check(target, by, repeats, warmup)
    from .profiling.measuring import measured
    from .profiling.naming import parts

    call, names, known, title = _called(target, args, kwargs)
    for _ in range(warmup):
        measured(call, names, False)
    runs, output = [], None
    for i in range(repeats):
        root, result = measured(call, names, False)
        runs.append(root)
        output = result if not i else output
    tree = sorted(runs, key=lambda one: one.time)[(repeats - 1) // 2]
    if count:
        tree.add_counts(measured(call, names, True)[0])
    placed = list(parts(tree, known))
    return Profile(by, tuple(_rows(by, tree, placed)), tree, tuple(one.time for one in runs), output, count, title,
                   {id(node): part for node, part in placed})


def _check(target: Any, by: str, repeats: int, warmup: int) -> None:
    if by not in BY:
        raise ProfileError(f"a profile is by {', '.join(BY)}, not {by!r}.{did_you_mean(by, BY)}")
    for what, given, least in (("repeats", repeats, 1), ("warmup", warmup, 0)):
        if isinstance(given, bool) or not isinstance(given, int) or given < least:
            raise ProfileError(f"{what} is a count from {least}, not {given!r}")
    if not callable(target) and not _is_model(target):
        raise ProfileError(f"a profile is of a model and a prompt, or of something that can be called, not of "
                           f"{type(target).__name__}: to profile a line, profile(lambda: line)")


def _is_model(target: Any) -> bool:
    return hasattr(target, "layout") and hasattr(target, "capture") and hasattr(target, "hf")


def _called(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
            ) -> tuple[Callable[[], Any], Names, dict[int, Part], str]:
    """What to call, names for its modules, the parts they belong to, and what to call it."""
    from torch import nn

    from .profiling.measuring import Names
    from .profiling.naming import of_model

    names, title = Names(), getattr(target, "__name__", type(target).__name__)
    owner = getattr(target, "__self__", None)
    top = target if isinstance(target, nn.Module) else owner if isinstance(owner, nn.Module) else None
    if top is not None:
        names.add(top, "")
    model: Any = target if _is_model(target) else owner if _is_model(owner) else None
    if model is None:
        model = next((one for one in (*args, *kwargs.values()) if _is_model(one)), None)
    if model is not None:
        names.add(model.hf, "")
    if not _is_model(target):
        return (lambda: target(*args, **kwargs)), names, of_model(model) if model is not None else {}, title
    from ..model.inputs import INPUT_NAMES
    from ..runtime.trace import plain

    if not args:
        raise ProfileError("say what the model runs on: profile(model, prompt)")
    inputs = {name: value for name, value in kwargs.items() if name in INPUT_NAMES}
    options = {name: value for name, value in kwargs.items() if name not in INPUT_NAMES}
    model.reader.check_options(options)
    prompt = model.reader.read(*args, **inputs)
    return (lambda: plain(model, "__call__", prompt, **options)), names, of_model(model), type(model.hf).__name__


def _rows(by: str, tree: Node, placed: list[tuple[Node, Part]]) -> list[Row]:
    if by == "module":
        return _module_rows(tree, placed)
    groups: dict[Part, list[Node]] = {}
    for node, part in placed:
        groups.setdefault(Part(part.layer, part.component if by == "component" else ""), []).append(node)
    order = {part: i for i, part in enumerate(groups)}
    found = []
    for part in sorted(groups, key=lambda part: (part.layer == OUTSIDE, part.layer if part.layer != OUTSIDE else 0,
                                                 order[part])):
        nodes = groups[part]
        own = fsum(node.own("time") for node in nodes)
        name = OUTSIDE if part.layer == OUTSIDE else f"layer {part.layer}"
        if by == "component":
            name = part.component if part.layer == OUTSIDE else f"L{part.layer} {part.component}"
        found.append(Row(name, part.layer, part.component, sum(node.calls for node in nodes), own, own,
                         own / tree.time if tree.time else 0.0, sum(node.own("memory") for node in nodes),
                         sum(node.own("flops") for node in nodes)))
    return found


def _module_rows(tree: Node, placed: list[tuple[Node, Part]]) -> list[Row]:
    """A row for each module; one that is called from several places has the sum."""
    groups: dict[str, list[tuple[Node, Part]]] = {}
    for node, part in placed:
        groups.setdefault(node.name or "(call)", []).append((node, part))
    found = []
    for name, nodes in groups.items():
        own = fsum(node.own("time") for node, _ in nodes)
        part = nodes[0][1]
        found.append(Row(name, part.layer, part.component, sum(node.calls for node, _ in nodes),
                         fsum(node.time for node, _ in nodes), own, own / tree.time if tree.time else 0.0,
                         sum(node.memory for node, _ in nodes), sum(node.flops for node, _ in nodes)))
    return found
