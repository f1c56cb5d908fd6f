"""The commands of `%hook`: a table of rows, one function each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import nearest
from ..problems import SpecError
from ..sites import LAYER_SITES, SITES
from ..spec.holes import given as given_values
from ..spec.parser import parse
from ..spec.reference import help_text
from ..spec.verbs import SYNONYMS, VERBS
from . import files
from .line import Flag, Form, Given, checked_name, line_error, read, words
from .session import Entry
from .show import Shown, Table

if TYPE_CHECKING:
    from .magic import HookMagics

MOST_NUMBERS, MOST_FORM = 4, 30


@dataclass(frozen=True)
class Command:
    """A command of the line magic: how its line is written, what it does, the function that does it."""

    form: Form
    does: str
    run: Callable[[HookMagics, Given], Any]


def run(magic: HookMagics, line: str) -> Any:
    """Do what a line says.

    Raises:
        SpecError: there is no such command, or it cannot do what it was asked.
    """
    first = words(line)
    if not first or first[0][1] in ("-h", "--help"):
        return Shown(f"{usage()}\n\n{help_text()}")
    at, name = first[0]
    if name in (*VERBS, *SYNONYMS) and name not in COMMANDS:
        return Shown(help_text(name))
    if name not in COMMANDS:
        close = nearest(name, [*COMMANDS, *VERBS])
        raise line_error("%hook", line, f"no command {name!r}", f"did you mean `{close}`?" if close else
                         f"commands: {', '.join(COMMANDS)}", at, len(name), "name")
    command = COMMANDS[name]
    given = read(line, command.form, skip=1)
    if len(given.words) < command.form.needs:
        raise given.error(f"{name} needs a {command.form.words[0].lower()}", f"as in %hook {name} {command.form.words[0]}")
    return command.run(magic, given)


def usage() -> str:
    """A line for each command."""
    rows = [(command.form.usage().replace("%hook", f"%hook {name}", 1), command.does) for name, command in COMMANDS.items()]
    return "Commands of the line magic:\n\n" + "\n".join(
        f"  {form:<{MOST_FORM}}  {does}" if len(form) <= MOST_FORM else f"  {form}\n  {'':<{MOST_FORM}}  {does}"
        for form, does in rows)


def _entry(magic: HookMagics, given: Given, number: int | None = None) -> Entry:
    """A cell of the history, the last one unless a number says which."""
    entries = {entry.number: entry for entry in magic.session.entries}
    if not entries:
        raise given.error("no %%hook cell has run yet", "run one first")
    if number is None:
        return entries[max(entries)]
    if number not in entries:
        raise given.error(f"there is no cell {number}", f"the history has {min(entries)} to {max(entries)}", word=0)
    return entries[number]


def _save(magic: HookMagics, given: Given) -> Any:
    entry = _entry(magic, given)
    path = files.write(str(given.word(0)), entry.text, f"{entry.model_name}, {entry.model!r}", given.on("force"))
    return Shown(f"saved {path}")


def _load(magic: HookMagics, given: Given) -> None:
    text = files.read(str(given.word(0)))[1]
    magic.shell.set_next_input("%%hook\n" + text.rstrip("\n"), replace=False)


def _run(magic: HookMagics, given: Given) -> Any:
    name = checked_name(given, "output")
    path, text = files.read(str(given.word(0)))
    text = text.rstrip("\n")
    try:
        spec = parse(text)
        values = given_values(spec, given.values("set"))
        model = magic.session.model(given, 1, spec, magic.shell.user_ns)
        result = magic.run(model, spec, values, name)
    except SpecError as error:
        if error.text == text:
            lines = [f"in {path}:", *error.lines()]
            error._render_traceback_ = lambda: lines  # type: ignore[method-assign]
        raise
    return magic.finish(given, name, result)


def _json(magic: HookMagics, given: Given) -> Any:
    return Shown(json.dumps(_entry(magic, given).spec.to_json(), indent=1, ensure_ascii=False))


def _history(magic: HookMagics, given: Given) -> Any:
    rows = [(entry.number, entry.first_line, numbers(entry.run), entry.model_name) for entry in magic.session.entries]
    return Table(("cell", "first line", "metrics", "model"), rows, "no %%hook cell has run yet")


def numbers(result: Any) -> str:
    """The first metrics of a run in one line."""
    found = [f"{run}.{name} {value:.4g}" for run, row in (getattr(result, "metrics", None) or {}).items()
             for name, value in row.items()]
    more = f" … {len(found) - MOST_NUMBERS} more" if len(found) > MOST_NUMBERS else ""
    return ", ".join(found[:MOST_NUMBERS]) + more


def _replay(magic: HookMagics, given: Given) -> Any:
    from ..records import compare

    word = given.word(0)
    if word is not None and not word.isdigit():
        raise given.error(f"{word!r} is no number of a cell", "see %hook history", word=0)
    entry = _entry(magic, given, int(word) if word is not None else None)
    try:
        new = magic.again(entry.model, entry.spec, entry.values)
    except SpecError as error:  # a claim that does not hold: the numbers are there all the same
        new = getattr(error, "run", None)
        if new is None:
            raise
    return compare(entry.run, new)


def _help(magic: HookMagics, given: Given) -> Any:
    return Shown(help_text(given.word(0)))


def _verbs(magic: HookMagics, given: Given) -> Any:
    return Table(("verb", "form", "meaning"), [(verb.name, verb.form, verb.does) for verb in VERBS.values()])


def _sites(magic: HookMagics, given: Given) -> Any:
    """The sites of the model used last, or all there are; with a layer, its addresses."""
    model, layer = magic.session.last, given.word(0)
    missing = model.sites.missing if model is not None else lambda name: None
    if layer is None:
        rows = [(name, " ".join(site.axes), missing(name) or site.meaning) for name, site in SITES.items()]
        return Table(("site", "axes", "meaning"), rows)
    found = re.fullmatch(r"L(-?\d+|\*)", layer)
    if found is None:
        raise given.error(f"{layer!r} is no layer", "write L0, L-1 or L*", word=0)
    count = model.facts.n_layers if model is not None else None
    if count is not None and layer != "L*" and not -count <= int(found[1]) < count:
        raise given.error(f"there is no layer {found[1]}", f"this model has {count}: L0 to L{count - 1}", word=0)
    return Table(("place", "axes", "meaning"), [(f"{layer}.{name}", " ".join(SITES[name].axes), SITES[name].meaning)
                                                for name in LAYER_SITES if missing(name) is None])


def _form(*expected: str, flags: tuple[Flag, ...] = ()) -> Form:
    """The form of a command; a file must be named, everything else may be left out."""
    return Form("%hook", expected, flags, needs=int("FILE" in expected))


COMMANDS: dict[str, Command] = {
    "save": Command(_form("FILE", flags=(Flag(("--force",), "replace a file that is there"),)),
                    "write the last cell to a file", _save),
    "load": Command(_form("FILE"), "put a file into a new cell; nothing runs", _load),
    "run": Command(_form("FILE", "MODEL", flags=(
        Flag(("--set",), "a value for a name in braces", "name=value", many=True),
        Flag(("--output", "-o"), "keep the result under this name", "NAME"),
        Flag(("--quiet", "-q"), "show nothing"))), "run a file", _run),
    "json": Command(_form(), "the last cell as data", _json),
    "history": Command(_form(), "the cells that were run", _history),
    "replay": Command(_form("CELL"), "run a cell again and compare", _replay),
    "help": Command(_form("TOPIC"), "help on a verb, an option, positions, sites, metrics …", _help),
    "verbs": Command(_form(), "every verb", _verbs),
    "sites": Command(_form("LAYER"), "every site, or those of a layer", _sites),
}
