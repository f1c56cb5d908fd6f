"""Which views are open, where, and which belong together.

Views of one run share a selection. A view made by an earlier execution of a cell is closed when the cell is run again,
because its place on the page is gone; ipywidgets itself would keep it for ever.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from ..errors import ViewError

if TYPE_CHECKING:
    from .base import View


@dataclass
class _Cell:
    """A cell of the notebook, its last execution, and the views and boards made by it."""

    run: str
    views: list[Any] = field(default_factory=list)


_lock = threading.RLock()
_cells: dict[str, _Cell] = {}
_groups: list[tuple[Callable[[], Any], WeakSet[View]]] = []
"""What the views were made from, and the views; the source itself is not kept alive where that can be helped."""
_open: WeakSet[View] = WeakSet()
_telling = threading.local()
_static = False


def opened(view: View, source: Any = None) -> None:
    """Note a new view, and join it with the others of its source."""
    with _lock:
        _open.add(view)
        if source is not None:
            join([view], source)
    kept(view)


def kept(shown: Any) -> None:
    """Note what the running cell shows, so that it is closed when the cell is run again; what it showed before is now."""
    gone: list[Any] = []
    with _lock:
        if (here := _cell_now()) is not None:
            ident, run = here
            if ident in _cells and _cells[ident].run != run:
                gone = _cells.pop(ident).views
            _cells.setdefault(ident, _Cell(run)).views.append(shown)
    for old in gone:  # outside the lock: what closing a view calls may be the user's
        old.close()


def prefer_static(yes: bool = True) -> None:
    """Let views, boards and `%%hook` cells show their form without script and kernel only, for notebooks to be published.

    A notebook that was saved without the state of its widgets shows an error in place of a live view when it is opened
    again; the form without script is always there. Views that are shown already stay as they are.
    """
    global _static
    _static = bool(yes)


def is_static() -> bool:
    """Whether only the form without script is shown."""
    return _static


def forgotten(view: Any) -> None:
    """Note that a view or a board was closed."""
    with _lock:
        _open.discard(view)
        for _, views in _groups:
            views.discard(view)
        _groups[:] = [group for group in _groups if group[1]]
        for ident, cell in list(_cells.items()):
            cell.views = [one for one in cell.views if one is not view]
            if not cell.views:
                del _cells[ident]


def join(views: Iterable[View], source: Any) -> None:
    """Let views share their selection with all other views of a source (the run that they were made from)."""
    with _lock:
        group = next((members for made, members in _groups if made() is source), None)
        if group is None:
            group = WeakSet()
            _groups.append((_weakly(source), group))
        group.update(views)


def link(*views: View) -> None:
    """Let views share layer, head and token: a choice in one is a choice in all. Links make chains.

    >>> import numpy as np, hooklab as hl
    >>> a, b = (hl.view.grid(hl.Scores(np.eye(3), ("layer", "head"))) for _ in range(2))
    >>> link(a, b)
    >>> a.select(layer=1, head=2) and b.selection
    {'layer': 1, 'head': 2}

    Raises:
        ViewError: these are not two views, or one of them has no axis in common with another.
    """
    from .base import View

    if len(views) < 2 or not all(isinstance(view, View) for view in views):
        raise ViewError("link takes two views or more, as in hl.view.link(heads, attention)")
    for view in views:
        if not any(set(view.shared) & set(other.shared) for other in views if other is not view):
            raise ViewError(f"{view!r} shares no axis with the other views: it can tell them of "
                            f"{', '.join(view.shared) or 'nothing'}")
    with _lock:
        _groups.append((lambda: None, WeakSet(views)))


def linked(view: View) -> set[View]:
    """The views that are told what is chosen in this one, over any number of links."""
    with _lock:
        found, new = {view}, {view}
        while new:
            new = {other for _, views in _groups if not new.isdisjoint(views) for other in views} - found
            found |= new
    return found - {view}


def chosen(view: View, selection: Mapping[str, Any]) -> None:
    """Tell the views that belong to this one what was chosen; what they choose because of it is told to nobody.

    Raises:
        Exception: the first that an observer of one of them raised, after all were told.
    """
    if getattr(_telling, "now", False):
        return
    wrong: list[Exception] = []
    _telling.now = True
    try:
        for other in linked(view):
            try:
                other.follow(view, selection)
            except Exception as error:  # an observer's: the other views are told all the same
                wrong.append(error)
    finally:
        _telling.now = False
    if wrong:
        raise wrong[0]


def close_all() -> int:
    """Close every open view and free what they hold. Returns how many there were."""
    with _lock:
        views = list(_open)
    for view in views:
        view.close()
    return len(views)


def _weakly(source: Any) -> Callable[[], Any]:
    try:
        return ref(source)
    except TypeError:
        return lambda: source


def _cell_now() -> tuple[str, str] | None:
    """The notebook's name for the running cell, and what tells its executions apart; None where there is no notebook."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    if shell is None or not hasattr(shell, "get_parent"):
        return None
    parent = shell.get_parent() or {}
    ident = parent.get("metadata", {}).get("cellId")
    return None if ident is None else (str(ident), str(parent.get("header", {}).get("msg_id", shell.execution_count)))
