"""The tracer behind `with model.trace(...):` and `with model.generate(...):`, nnsight's with hooklab's manners."""

from __future__ import annotations

import ast
import linecache
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import torch
from nnsight.intervention.tracer import InterleavingTracer, Invoker
from nnsight.tracing.globals import BLOCKS, SOURCES

from ..errors import PromptError, TraceError
from ..tokens import Tokens
from .inputs import INPUT_NAMES, Reader, merge

if TYPE_CHECKING:
    from torch import Tensor

_MTIMES: dict[str, float] = {}


class HookTracer(InterleavingTracer):
    """A trace: `tokens` are its tokens, `at(selector)` indexes the positions of a value."""

    def __init__(self, envoy: Any, fn: Any, *args: Any, reader: Reader, grad: bool | str = False, backend: Any = None,
                 **kwargs: Any) -> None:
        self.reader = reader
        self.grad = grad
        given = {name: kwargs.pop(name) for name in tuple(kwargs) if name in INPUT_NAMES}
        if len(args) > 1:
            raise PromptError("Pass one prompt; several go into a list, or into t.invoke(...) blocks.")
        prompts = (reader.read(*args, **given),) if args or given else ()
        self._prompts = list(prompts)
        super().__init__(envoy, fn, *prompts, backend=backend, **kwargs)

    @property
    def tokens(self) -> Tokens:
        """The tokens of every prompt of the trace, unpadded."""
        if not self._prompts:
            raise TraceError("This trace has no prompt yet: open it with one, or t.invoke(prompt) first.")
        return merge(self._prompts)

    def at(self, selector: Any) -> tuple[Tensor, Tensor]:
        """Index of the selected positions: `h[t.at("last")]` is [examples × positions, d_model].

        The selector is resolved for each example on its unpadded sequence, so padding never shifts it.
        """
        from ..positions import columns

        found = columns(selector, self.tokens)
        rows = [row for row, picked in enumerate(found) for _ in picked]
        return torch.tensor(rows), torch.tensor([column for picked in found for column in picked])

    def invoke(self, *args: Any, **kwargs: Any) -> Invoker:
        """One more prompt in the same forward pass; the block below sees only its rows."""
        given = {name: kwargs.pop(name) for name in tuple(kwargs) if name in INPUT_NAMES}
        if not args and not given:
            return super().invoke(**kwargs)
        prompt = self.reader.read(*args, **given)
        self._prompts.append(prompt)
        return super().invoke(prompt, **kwargs)

    def execute(self, code: CodeType) -> None:
        """Run the block with the model locked, gradients off unless asked for."""
        interleaver = self.envoy.interleaver
        with interleaver.lock:
            interleaver.grad = self.grad
            try:
                super().execute(code)
            except RuntimeError as error:
                if "does not require grad" in str(error) and not self.grad:
                    error.add_note("This trace keeps no gradients. Open it with model.trace(..., grad=True).")
                raise
            finally:
                interleaver.grad = False


def opens_generate(node: Any) -> bool:
    """Whether a `with` statement's own context is a call of `generate`, not merely one written on its line."""
    calls = [item.context_expr for item in getattr(node, "items", ()) if isinstance(item.context_expr, ast.Call)]
    return any(isinstance(call.func, ast.Attribute) and call.func.attr == "generate" for call in calls)


def make_source_findable(frame: FrameType) -> None:
    """See to it that nnsight reads the block that is about to run, not an older one and not nothing.

    An interactive session keeps its lines in readline's history only, and a file that was edited and reloaded would
    otherwise be traced as it was first seen.
    """
    filename = frame.f_code.co_filename
    if filename == "<stdin>":
        _from_history(frame)
        return
    if filename.startswith("<"):
        timed = filename == "<timed exec>"  # one name for every cell, so what is cached is the last one's
        program = filename == "<string>" and "-c" in sys.orig_argv  # nnsight reads that one itself
        if timed or not (program or linecache.getlines(filename)):
            _from_timed_cell(filename)
        return
    try:
        changed = Path(filename).stat().st_mtime
    except OSError:
        return
    if _MTIMES.setdefault(filename, changed) != changed:
        _MTIMES[filename] = changed
        linecache.checkcache(filename)
        _forget(filename)


def _forget(filename: str) -> None:
    SOURCES.pop(filename, None)
    for key in [key for key in BLOCKS if key[0] == filename]:
        del BLOCKS[key]


def _from_history(frame: FrameType) -> None:
    """Recover the statement being typed at a plain Python prompt."""
    lines = _history()
    needed = frame.f_lineno
    for start in range(len(lines) - 1, -1, -1):
        candidate = lines[start:]
        header = candidate[needed - 1].lstrip() if len(candidate) >= needed else ""
        if header.startswith("with ") and not candidate[0][:1].isspace():
            _forget("<stdin>")
            text = [line + "\n" for line in candidate]
            linecache.cache["<stdin>"] = (sum(map(len, text)), None, text, "<stdin>")
            return
    raise TraceError("Python keeps no source of what is typed here, and a trace needs the source of its block. Use "
                     "IPython or a notebook, put the block into a file, or call model.capture(...).")


def _from_timed_cell(filename: str) -> None:
    """Recover the cell under `%%time`, which IPython compiles without keeping its text."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    raw = shell.history_manager.input_hist_raw[-1] if shell is not None else ""
    if filename != "<timed exec>" or not raw.lstrip().startswith("%%time"):
        raise TraceError(f"There is no source for {filename}, and a trace needs the source of its block. Put the block "
                         f"into a function, a file or a cell of its own, or call model.capture(...).")
    body = shell.transform_cell(raw.lstrip().split("\n", 1)[1])
    _forget(filename)
    linecache.cache[filename] = (len(body), None, body.splitlines(keepends=True), filename)


def _history() -> list[str]:
    if not hasattr(sys, "ps1"):
        return []
    try:
        import readline
    except ImportError:
        return []
    size = readline.get_current_history_length()
    return [readline.get_history_item(i) or "" for i in range(max(1, size - 200), size + 1)]
