"""View: what every view is: a widget of its own that holds copies, answers its front end, and has a form without one.

A view is described by `facts` (JSON) and `blob` (arrays, see `wire`), which travel when it opens; more is sent when the
front end asks. `selection` is the one thing that goes both ways.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import ipywidgets
import numpy as np
import traitlets

from .. import html
from ..errors import HooklabError, ViewError, did_you_mean
from . import allowed, pictures, registry, wire
from .assets import STATIC, asset, carried, watched
from .axes import Axis
from .text import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_OPEN = 16 * 2**20
"""Bytes that a view sends when it opens, at most."""
Answer = tuple[Mapping[str, Any], list[bytes]]


class View(anywidget.AnyWidget):
    """A picture that can be pointed at. Make one with the functions of `hooklab.views`.

    Attributes:
        selection: What is chosen, by axis word: `{"layer": 5, "head": 1}`. It can be set, observed and linked.
        options: How it is drawn, such as `{"mode": "pattern"}`. It can be set and observed.
    """

    KIND: ClassVar[str] = "view"
    """The name of its front end: `static/KIND.js` and `static/KIND.css`."""
    OPTIONS: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """What `options` may say: name -> values, the first being the default; no values stand for any number."""
    SHARED: ClassVar[tuple[str, ...]] = ("layer", "head", "pos")
    """The axis words that linked views tell each other."""

    facts = traitlets.Dict().tag(sync=True)
    blob = traitlets.Bytes(b"").tag(sync=True)
    selection = traitlets.Dict().tag(sync=True)
    options = traitlets.Dict().tag(sync=True)
    _spec = traitlets.Unicode("").tag(sync=True)
    _closed = True  # until the constructor has run: one that fails leaves nothing to be closed

    def __init_subclass__(cls, **given: Any) -> None:
        if watched():
            cls._esm, cls._css = STATIC / f"{cls.KIND}.js", STATIC / f"{cls.KIND}.css"  # type: ignore[assignment]
        super().__init_subclass__(**given)

    def __init__(self, axes: list[Axis], *, title: str = "", source: Any = None, **options: Any) -> None:
        self._axes = {axis.name: axis for axis in axes}
        if len(self._axes) < len(axes):
            raise ViewError(f"a view needs different axes, not {', '.join(axis.name for axis in axes)}")
        self._title, self._closed, self._answering = shown(title), False, 0
        self._guard, self._counting = threading.RLock(), threading.Lock()
        if not watched():  # a file that is watched for changes would keep every widget made of it
            self._esm, self._css = carried(self.KIND), asset(f"{self.KIND}.css")
        super().__init__(options={name: values[0] if values else 0 for name, values in self.OPTIONS.items()} | options)
        self.on_msg(self._heard)
        self.observe(self._respell, "selection")
        registry.opened(self, source)

    # What a kind of view says about itself -----------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """What the front end needs to draw, besides arrays."""
        return {}

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that travel when the view opens."""
        return {}

    def asks(self) -> Mapping[str, Callable[..., Answer]]:
        """What the front end may ask for: name -> method that gives a JSON reply and buffers."""
        return {}

    def answers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The questions whose answers a page without a kernel should hold, the most wanted first."""
        return iter(())

    def spell(self, selection: Mapping[str, Any]) -> str:
        """The selection as spec text; empty when nothing is chosen."""
        return ""

    def static(self) -> str:
        """The view as HTML without script."""
        return html.note(repr(self))

    def plot(self, ax: Any = None) -> Figure:
        """A matplotlib figure of what is shown, made without pyplot. Into `ax` when one is given."""
        raise ViewError(f"{type(self).__name__} has no figure")

    # What all of them can do -------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Send what is to be drawn; again whenever the data change. What is chosen stays, as far as it is still there.

        Raises:
            ViewError: it is too much, or the view was closed. A view that was never drawn is closed then.
        """
        self._check_open()
        try:
            facts, blob = self._drawn()
        except Exception:
            if not self.facts:
                self.close()
            raise
        with self.hold_sync():
            self.facts, self.blob = facts, blob
        kept = {name: key for name, key in self.selection.items() if name in self._axes and self._axes[name].has(key)}
        if kept != self.selection:
            self.selection = kept

    def _drawn(self) -> tuple[dict[str, Any], bytes]:
        block = wire.pack(self.arrays())
        if len(block.data) > MOST_OPEN:
            raise ViewError(f"this view would send {len(block.data) / 2**20:.0f} MiB when it opens; "
                            f"{MOST_OPEN / 2**20:.0f} is the most: choose fewer layers, heads or positions")
        facts = {"kind": self.KIND, "title": self._title, "summary": repr(self), "arrays": block.table,
                 "axes": [axis.facts for axis in self._axes.values()], **self.describe()}
        return wire.plain(facts), block.data

    @property
    def spec(self) -> str:
        """The selection as spec text, to be pasted into a `%%hook` cell; empty when nothing is chosen."""
        return self._spec

    def select(self, **keys: Any) -> View:
        """Choose by axis word: `view.select(layer=5, head=1)`; None leaves an axis out. Returns the view.

        Raises:
            ViewError: there is no such axis or entry.
        """
        self.selection = {name: key for name, key in {**self.selection, **keys}.items() if key is not None}
        return self

    def to_html(self, path: str | Path | None = None) -> str:
        """A page of its own that works without a kernel and without a network; also written to `path` when one is given.

        Raises:
            ViewError: the view was closed.
            RecordError: the file exists, or cannot be written.
        """
        from .page import page, write_new

        self._check_open()
        text = page([self])
        if path is not None:
            write_new(Path(path), text.encode())
        return text

    def to_png(self, path: str | Path | None = None, *, dpi: int = 144) -> bytes:
        """A picture by matplotlib, without a browser; also written to `path` when one is given.

        Args:
            path: A file that is not there yet. Its suffix says what is written and returned: `.png`, `.svg` or `.pdf`; a
                PNG picture where there is no path.
            dpi: Dots per inch of a PNG picture.

        Raises:
            ViewError: the view was closed, or has no figure; another suffix.
            RecordError: the file exists, or cannot be written.
        """
        self._check_open()
        pictures.suffix(path)  # before anything is drawn
        return pictures.written(self.plot(), path, dpi)

    def close(self) -> None:
        """Take the view off the page and free what it holds; its selection can still be read.

        A question that is being answered on another thread is answered first, and the data are freed after it; nobody
        waits for that here.
        """
        if self._closed:
            return
        with self._counting:
            self._closed, idle = True, not self._answering
        registry.forgotten(self)
        super().close()
        if isinstance(self.layout, ipywidgets.Widget):  # made with the view, and kept for ever otherwise
            self.layout.close()
        self.__dict__.pop("_repr_mimebundle_", None)  # ipywidgets hides it, and so the line that says why nothing shows
        if idle:
            self._let_go()

    def _let_go(self) -> None:
        self.blob = b""
        self.release()

    def release(self) -> None:
        """Let go of the data."""
        for name in [name for name, value in vars(self).items() if isinstance(value, np.ndarray)]:
            delattr(self, name)

    def __repr__(self) -> str:
        sizes = " · ".join(f"{axis.name} {len(axis)}" for axis in self._axes.values())
        return f"{type(self).__name__}({', '.join(part for part in (self._title, sizes) if part)})"

    def _repr_mimebundle_(self, **given: Any) -> Any:
        if self._closed:
            return {"text/plain": f"{self!r}: closed; make it anew"}, {}
        from .page import plain_form

        bundle = super()._repr_mimebundle_(**given)
        if bundle is None:
            return None
        data, about = bundle
        if registry.is_static():
            data = {"text/plain": data["text/plain"]}
        return {**data, "text/html": html.block(plain_form(repr(self), self.static()))}, about

    def _check_open(self) -> None:
        if self._closed:
            raise ViewError(f"{self!r} was closed and holds nothing any more: make it anew")

    # Choosing ----------------------------------------------------------------------------------------------------------

    @traitlets.validate("selection")
    def _checked_selection(self, proposal: Any) -> dict[str, Any]:
        return allowed.selection(proposal["value"], self._axes)

    @traitlets.validate("options")
    def _checked_options(self, proposal: Any) -> dict[str, Any]:
        return {**self.options, **allowed.options(proposal["value"], self.OPTIONS)}

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take what the page says; where that is refused, tell it what holds instead."""
        try:
            super().set_state(sync_data)
        except traitlets.TraitError as error:
            self.send_state([name for name in sync_data if name in self.keys])
            self.send({"refused": html.printable(error)})

    def _respell(self, change: Any) -> None:
        try:
            self._spec = self.spell(change["new"])
        except HooklabError as error:
            self._spec = f"# {html.printable(error)}"
        finally:
            registry.chosen(self, change["new"])

    @property
    def shared(self) -> tuple[str, ...]:
        """The axes whose choice linked views hear of."""
        return tuple(name for name in self.SHARED if name in self._axes)

    def follow(self, other: View, selection: Mapping[str, Any]) -> None:
        """Choose what another view chose, as far as both have the axes and this one has the entries."""
        both = [name for name in self.shared if name in other.shared]
        found = {name: key for name, key in self.selection.items() if name not in both}
        for name in both:
            if name in selection and self._axes[name].has(selection[name]):
                found[name] = selection[name]
        if found != self.selection and not self._closed:
            self.selection = found

    def _send(self, msg: Any, buffers: Any = None) -> None:
        super()._send(msg, buffers=buffers)
        # ipykernel hands what a page says to the shell that wrote to it last: while a cell runs and has written, to the busy
        # cell. Without that note it goes where the page sent it, and is answered at once.
        getattr(self.comm, "__dict__", {}).pop("_reply_subshell_id", None)

    # Answering ---------------------------------------------------------------------------------------------------------

    def _heard(self, _: Any, content: Any, buffers: Any) -> None:
        """Answer a question of the front end; it may arrive on another thread while a cell runs."""
        if not isinstance(content, dict) or "ask" not in content:
            return
        try:
            reply, sent = self.answer(content["ask"], content.get("with") or {})
            self.send({"id": content.get("id"), "reply": wire.plain(reply)}, sent)
        except (Exception, KeyboardInterrupt) as error:  # shown in the view: nobody else is listening
            text = str(error) if isinstance(error, HooklabError) else f"{type(error).__name__}: {error}"
            self.send({"id": content.get("id"), "error": html.printable(text)})
            if isinstance(error, KeyboardInterrupt):
                raise

    def answer(self, name: str, given: Mapping[str, Any]) -> Answer:
        """The answer to a question by name, as the front end would get it.

        Raises:
            ViewError: there is no such question, or the view was closed.
        """
        with self._counting:
            self._check_open()
            self._answering += 1
        try:
            with self._guard:
                asks = self.asks()
                if name not in asks:
                    raise ViewError(f"this view cannot be asked for {name!r}.{did_you_mean(str(name), asks)}")
                return asks[name](**given)
        finally:
            with self._counting:
                self._answering -= 1
                last = self._closed and not self._answering
            if last:
                self._let_go()
