"""`%%hook` and `%hook`: the cell is read, its braces are evaluated, the model runs it, the result is the cell's value.

    line 1 ──line──▶ options ─┐
    body ──parse──▶ Spec ─────┼─ session (model, values) ──model.run──▶ Run ──▶ Out[n]
"""

from __future__ import annotations

import json
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from ..errors import Stopped
from ..problems import SpecError
from ..progress import Progress, in_terminal
from ..spec.parser import parse
from . import bench, commands
from .line import Flag, Form, Given, checked_name, read
from .matcher import Matcher
from .session import Session, evaluate
from .show import Shown, enliven, in_notebook, plainly

CELL = Form("%%hook", ("MODEL",), (
    Flag(("--output", "-o"), "keep the result under this name", "NAME"),
    Flag(("--plan", "-n"), "show what would run, and run nothing"),
    Flag(("--code",), "show the same experiment as plain code"),
    Flag(("--json",), "show the spec as data"),
    Flag(("--quiet", "-q"), "show nothing; the result is kept under the name of -o"),
    Flag(("--help", "-h"), "show this"),
))
INSTEAD = ("plan", "code", "json", "help")

DOC = f"""Run an experiment written in the hook language, one line per step.

{CELL.help()}

  MODEL          a variable that holds a model, or a name or folder for hl.load; without it the model that the cell
                 names, else the one used last (what its variable holds by now), else the only one in the notebook,
                 else "lab"

For example:

    %%hook lab -o patched
    prompt clean = "When Mary and John went to the store, John gave a drink to"
    prompt corrupt = "When Mary and John went to the store, Mary gave a drink to"
    answer " Mary" vs " John"
    metric logit_diff
    run on corrupt:
        patch each L*.resid @each from clean
    show grid

Python between braces is evaluated among the notebook's names. The result is the cell's value.

{commands.usage()}
"""


@magics_class
class HookMagics(Magics):
    """The magic and what it remembers."""

    shell: InteractiveShell

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.session = Session()
        self.matcher = Matcher(shell, self.session, CELL)
        self.before: dict[str, Any] = {}  # magics of the same name that were there already

    @no_var_expand
    @line_cell_magic
    def hook(self, line: str, cell: str | None = None) -> Any:
        """Run a cell, or one of the line magic's commands."""
        if cell is None:
            with plainly():
                return commands.run(self, line)
        with plainly():
            given = read(line, CELL)
            chosen = [name for name in INSTEAD if given.on(name)]
            if len(chosen) > 1:
                raise given.error(f"--{chosen[0]} and --{chosen[1]} are two different things", "choose one",
                                  option=chosen[1])
            name = checked_name(given, "output")
        if given.on("help"):
            return Shown(DOC)
        return self.finish(given, name, self.result(given, cell, name))

    hook.__doc__ = DOC

    def finish(self, given: Given, name: str | None, result: Any) -> Any:
        """Keep a result under its name; what is returned is what the notebook shows."""
        if name is not None:
            self.shell.push({name: result})
        if given.on("quiet"):
            return None
        if self.live():
            with plainly():
                enliven(result)
        return result

    def result(self, given: Given, cell: str, name: str | None = None) -> Any:
        """What a cell gives: a run, or what was asked for instead."""
        with plainly():
            if not cell.strip():
                raise given.error("this cell is empty", 'start with a prompt: prompt "The capital of France is"')
        with plainly(offset=1):
            cell = cell.rstrip("\n")
            spec = parse(cell)
            if given.on("json"):
                return Shown(json.dumps(spec.to_json(), indent=1, ensure_ascii=False))
            values = {} if given.on("code") else evaluate(spec, self.shell.user_ns)
        with plainly():
            model = self.session.model(given, 0, spec, self.shell.user_ns)
        with plainly(offset=1):
            if given.on("code"):
                from ..code import to_code

                return Shown(to_code(spec, model))
            if given.on("plan"):
                return model.plan(spec, values=values)
            return self.run(model, spec, values, name)

    def run(self, model: Any, spec: Any, values: dict[str, Any], name: str | None = None) -> Any:
        """Run a spec, with its progress shown, and remember it.

        Raises:
            SpecError: a claim of the spec does not hold; the results are remembered, and kept under `name`, all the same.
            Stopped: the run was interrupted; so is what was done.
        """
        try:
            run = self.again(model, spec, values)
        except (SpecError, Stopped) as error:
            run = getattr(error, "run", None)
            if run is not None:
                self.session.remember(spec, values, run)
                if name is not None:
                    self.shell.push({name: run})
            raise
        self.session.remember(spec, values, run)
        return run

    def again(self, model: Any, spec: Any, values: dict[str, Any]) -> Any:
        """Run a spec, with its progress shown. Raises SpecError when a claim of the spec does not hold."""
        progress = Progress(in_notebook() if self.live() else in_terminal)
        try:
            return model.run(spec, progress=progress, values=values)
        finally:
            progress.close()

    def live(self) -> bool:
        """Whether outputs can be updated after they were shown, as in a notebook."""
        return hasattr(self.shell, "kernel")


def load(shell: InteractiveShell) -> None:
    """Add the magic and its completions to a shell; a second time changes nothing."""
    if loaded(shell) is not None:
        unload(shell)
    magic = HookMagics(shell)
    magic.before = {kind: table.get("hook") for kind, table in shell.magics_manager.magics.items()}
    shell.register_magics(magic)
    bench.load(shell)
    shell.Completer.custom_matchers.append(magic.matcher.match)


def unload(shell: InteractiveShell) -> None:
    """Take everything out again that `load` put in."""
    magic = loaded(shell)
    if magic is None:
        return
    for kind, table in shell.magics_manager.magics.items():
        table.pop("hook", None)
        if magic.before.get(kind) is not None:
            table["hook"] = magic.before[kind]
    shell.magics_manager.registry.pop(HookMagics.__name__, None)
    bench.unload(shell)
    shell.configurables[:] = [one for one in shell.configurables if one is not magic]
    matchers = shell.Completer.custom_matchers
    matchers[:] = [one for one in matchers if one is not magic.matcher.match]


def loaded(shell: InteractiveShell) -> HookMagics | None:
    """The magic of a shell, if it has one."""
    return shell.magics_manager.registry.get(HookMagics.__name__)
