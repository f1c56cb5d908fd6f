"""Board: several views under each other, with tables and notes between them, as one thing to show, to choose in and to save.

A notebook shows a box of widgets; a page, an untrusted notebook and a printout show the same parts without script.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ipywidgets

from .. import html
from ..errors import ViewError, did_you_mean
from . import colab, registry
from .base import View
from .page import MOST_PLAIN, page, plain_form, write_new

Part = View | str
"""A view, or a piece of HTML without script that hooklab wrote."""


class Board(ipywidgets.VBox):
    """Views under each other; what is chosen in one is chosen in all that have it.

    Args:
        parts: Views, or pairs of a name and a view.
        text: What a terminal shows; the views' own lines unless given.

    >>> import numpy as np, hooklab as hl
    >>> a, b = (hl.view.grid(hl.Scores(np.eye(3), ("layer", "head"), name=name)) for name in ("effect", "size"))
    >>> board = Board([a, b])
    >>> list(board)
    ['effect', 'size']
    >>> board["effect"].select(layer=1, head=2) and board["size"].selection
    {'layer': 1, 'head': 2}

    Raises:
        ViewError: there is nothing to show, or something that is no view.
    """

    def __init__(self, parts: Iterable[Part | tuple[str, Part]], *, text: str = "") -> None:
        self._parts = dict(_named(parts))
        self._text, self._closed = text, False
        if not self._parts:
            raise ViewError("a board needs at least one view: hl.view.Board([hl.view.heads(…), hl.view.attention(…)])")
        super().__init__([ipywidgets.HTML(html.block(part), layout={"width": "100%"}) if isinstance(part, str) else part
                          for part in self._parts.values()], layout={"width": "100%", "overflow": "visible"})
        registry.join(self.views.values(), self)
        registry.kept(self)

    @property
    def views(self) -> dict[str, View]:
        """The views by name, in order."""
        return {name: part for name, part in self._parts.items() if isinstance(part, View)}

    @property
    def closed(self) -> bool:
        """Whether there is nothing to be shown any more."""
        return self._closed

    def __getitem__(self, name: str | int) -> View:
        """A view by its name or its number.

        Raises:
            ViewError: there is none.
        """
        views = self.views
        if isinstance(name, int) and -len(views) <= name < len(views):
            return list(views.values())[name]
        if name not in views:
            raise ViewError(f"this board has no view {name!r}.{did_you_mean(str(name), views)} It has "
                            f"{', '.join(views) or 'none'}.")
        return views[str(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.views)

    def __len__(self) -> int:
        return len(self.views)

    def __bool__(self) -> bool:
        return True

    def select(self, **keys: Any) -> Board:
        """Choose by axis word in every view that has such an entry; None leaves an axis out. Returns the board.

        Raises:
            ViewError: no view has it.
        """
        for name, key in keys.items():
            having = [view for view in self.views.values() if name in view._axes
                      and (key is None or view._axes[name].has(key))]
            if not having:
                raise ViewError(f"no view of this board has {name} {key!r}")
            for view in having:
                view.select(**{name: key})
        return self

    def static(self) -> str:
        """All parts as HTML without script."""
        return "".join(part if isinstance(part, str) else part.static() for part in self._parts.values())

    def to_html(self, path: str | Path | None = None) -> str:
        """A page of its own that works without a kernel and without a network; also written to `path` when one is given.

        Raises:
            ViewError: the board was closed.
            RecordError: the file exists, or cannot be written.
        """
        self._check_open()
        text = page(list(self._parts.values()))
        if path is not None:
            write_new(Path(path), text.encode())
        return text

    def close(self) -> None:
        """Close every view, and free what they hold."""
        if self.__dict__.get("_closed", True):
            return
        self._closed = True
        registry.forgotten(self)
        for child in self.children:
            child.close()
            _close_styles(child)
        super().close()
        _close_styles(self)
        self.__dict__.pop("_repr_mimebundle_", None)

    def __repr__(self) -> str:
        return self._text or f"Board({', '.join(map(repr, self.views.values()))})"

    def _repr_mimebundle_(self, **given: Any) -> Any:
        if self._closed:
            return {"text/plain": f"{self!r}\n(closed; make it anew)"}, {}
        found: dict[str, Any] = {"text/plain": repr(self), "text/html": html.block(self._plainly())}
        if not registry.is_static():
            found["application/vnd.jupyter.widget-view+json"] = {
                "version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return found, ({} if registry.is_static() else colab.about())

    def _display_(self) -> Any:
        """What marimo shows, which has no boxes of ipywidgets."""
        import marimo

        return marimo.vstack([marimo.Html(html.block(part)) if isinstance(part, str) else part
                              for part in self._parts.values()])

    def _plainly(self) -> str:
        """The form without script; parts that would make every saved output too long are named instead."""
        found, room = [], MOST_PLAIN
        for name, part in self._parts.items():
            found.append(plain_form(name, part if isinstance(part, str) else part.static(), room))
            room = max(0, room - len(found[-1]))
        return "".join(found)

    def _check_open(self) -> None:
        if self._closed:
            raise ViewError("this board was closed and holds nothing any more: make it anew")


def _named(parts: Iterable[Any]) -> Iterator[tuple[str, Part]]:
    """Each part with a name of its own. Raises ViewError."""
    taken: dict[str, int] = {}
    for given in parts:
        name, part = given if isinstance(given, tuple) and len(given) == 2 else ("", given)
        if not isinstance(part, (View, str)):
            raise ViewError(f"a board shows views, not {type(part).__name__}")
        name = str(name) or (part._title or part.KIND if isinstance(part, View) else "text")
        taken[name] = taken.get(name, 0) + 1
        yield (f"{name} {taken[name]}" if taken[name] > 1 else name), part


def _close_styles(widget: Any) -> None:
    """Close what ipywidgets made for a widget's looks, which it would keep for ever."""
    for name in ("layout", "style"):
        if isinstance(one := getattr(widget, name, None), ipywidgets.Widget):
            one.close()
