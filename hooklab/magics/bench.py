"""`%hook_bench`: the experiment bench from a notebook: what ran, how two runs differ, and code put back into a cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class, no_var_expand

from ..errors import nearest
from .line import Form, Given, line_error, read, words
from .show import Shown, plainly

if TYPE_CHECKING:
    from ..bench import Bench

NAME = "%hook_bench"


@magics_class
class BenchMagics(Magics):
    """The line magic and the bench that it has open."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.bench: Bench | None = None

    @no_var_expand
    @line_magic
    def hook_bench(self, line: str) -> Any:
        """Do one of the commands; without any, list them."""
        with plainly():
            first = words(line)
            if not first or first[0][1] in ("-h", "--help"):
                return Shown(usage())
            at, name = first[0]
            if name not in COMMANDS:
                close = nearest(name, COMMANDS)
                raise line_error(NAME, line, f"no command {name!r}", f"did you mean `{close}`?" if close else
                                 f"commands: {', '.join(COMMANDS)}", at, len(name), "name")
            command = COMMANDS[name]
            given = read(line, command.form, skip=1)
            if len(given.words) < command.form.needs:
                needs = " and ".join(command.form.words[:command.form.needs])
                raise given.error(f"{name} needs {needs}", command.form.usage())
            return command.run(self, given)

    def opened(self, given: Given) -> Bench:
        """The bench to ask: the one that was opened, else the only one among the notebook's names."""
        if self.bench is not None:
            return self.bench
        from ..bench import Bench

        assert self.shell is not None
        found = {id(value): value for value in self.shell.user_ns.values() if isinstance(value, Bench)}
        if len(found) == 1:
            return next(iter(found.values()))
        raise given.error("no bench is open" if not found else "there are several benches in this notebook",
                          f"open one: {NAME} open FOLDER")


@dataclass(frozen=True)
class Command:
    """A command: how its line is written, what it does, the function that does it."""

    form: Form
    does: str
    run: Callable[[BenchMagics, Given], Any]


def usage() -> str:
    """A line for each command."""
    rows = [(command.form.usage(), command.does) for command in COMMANDS.values()]
    width = max(len(form) for form, _ in rows)
    return "\n".join(f"{form:<{width}}  {does}" for form, does in rows)


def _open(magic: BenchMagics, given: Given) -> Any:
    from ..bench import Bench

    magic.bench = Bench(str(given.word(0)))
    return magic.bench


def _restore(magic: BenchMagics, given: Given) -> None:
    """Put the code of a run into the next cell; nothing runs."""
    assert magic.shell is not None
    bench = magic.opened(given)
    record = bench.get(str(given.word(0)))
    head = f"# {record.name}, version {record.version}, as it was in the run {record.id}\n"
    magic.shell.set_next_input(head + record.text.rstrip("\n"), replace=False)


COMMANDS = {
    "open": Command(Form(f"{NAME} open", ("FOLDER",), needs=1), "use the bench in a folder", _open),
    "runs": Command(Form(f"{NAME} runs", ("NAME",)), "list the runs: all, or those of an experiment",
                    lambda magic, given: magic.opened(given).runs(given.word(0))),
    "versions": Command(Form(f"{NAME} versions", ("NAME",)), "list the versions of the code",
                        lambda magic, given: magic.opened(given).versions(given.word(0))),
    "show": Command(Form(f"{NAME} show", ("RUN",), needs=1), "show everything about a run",
                    lambda magic, given: magic.opened(given).get(str(given.word(0)))),
    "diff": Command(Form(f"{NAME} diff", ("RUN", "OTHER"), needs=2), "show what differs between two runs",
                    lambda magic, given: magic.opened(given).diff(str(given.word(0)), str(given.word(1)))),
    "restore": Command(Form(f"{NAME} restore", ("RUN",), needs=1), "put the code of a run into a new cell", _restore),
    "rerun": Command(Form(f"{NAME} rerun", ("RUN",), needs=1), "run a run again, and say whether it came out the same",
                     lambda magic, given: magic.opened(given).rerun(str(given.word(0)))),
    "browse": Command(Form(f"{NAME} browse", ("NAME",)), "search, sort and compare runs in a view",
                      lambda magic, given: magic.opened(given).show(given.word(0))),
}


def load(shell: InteractiveShell) -> None:
    """Add the magic to a shell."""
    shell.register_magics(BenchMagics(shell))


def unload(shell: InteractiveShell) -> None:
    """Take it out again."""
    magic = shell.magics_manager.registry.pop(BenchMagics.__name__, None)
    if magic is not None:
        shell.magics_manager.magics["line"].pop("hook_bench", None)
        shell.configurables[:] = [one for one in shell.configurables if one is not magic]
