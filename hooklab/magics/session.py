"""What one notebook remembers: the models that were opened, and the cells that were run.

No IPython here: cells come as text, names as a mapping.
"""

from __future__ import annotations

import ast as python
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import HooklabError, HooklabWarning, nearest
from ..problems import SpecError
from ..spec.ast import Spec
from ..spec.holes import at_hole, holes, model_line
from .line import Given

LONGEST_HISTORY = 200


@dataclass(frozen=True)
class Entry:
    """A cell that was run, with everything that it takes to run it again."""

    number: int
    text: str
    spec: Spec
    values: dict[str, Any]
    model: Any
    model_name: str
    run: Any

    @property
    def first_line(self) -> str:
        """The first line that says something."""
        lines = (line.strip() for line in self.text.split("\n"))
        return next((line for line in lines if line and not line.startswith("#")), "")


@dataclass
class Session:
    """Models by what they were asked for, the one last used with the variable that held it, and the history."""

    models: dict[Any, Any] = field(default_factory=dict)
    last: Any = None
    last_name: str = ""
    variable: str = ""
    entries: list[Entry] = field(default_factory=list)
    counted: int = 0

    def model(self, given: Given, i: int, spec: Spec, namespace: Mapping[str, Any]) -> Any:
        """The model to use: the line's, the spec's, the last one, the notebook's only one, or the shipped one.

        Raises:
            SpecError: the word on the line is neither a model nor a name of one.
        """
        word = given.word(i)
        line = model_line(spec)
        if word is not None:
            found = self._named(given, i, word, namespace)
            self.variable = word if found is namespace.get(word) else ""
        elif line is not None:
            found, self.variable = self.load(line[0], **line[1]), ""
        else:
            found = self._last(given, namespace)
        self.last = found
        self.last_name = word or (line[0] if line else self.last_name) or "lab"
        return found

    def _last(self, given: Given, namespace: Mapping[str, Any]) -> Any:
        """The model used last; where its variable holds another by now, that one."""
        now = namespace.get(self.variable)
        if is_model(now) and is_open(now):
            return now
        if is_open(self.last):
            return self.last
        closed = f"{self.last_name}, the model used last, was closed" if self.last is not None else ""
        found = self._only(given, namespace, closed)
        if closed:
            warnings.warn(f"{closed}, so this runs on {self.last_name}", HooklabWarning, stacklevel=2)
        return found

    def _named(self, given: Given, i: int, word: str, namespace: Mapping[str, Any]) -> Any:
        if word in namespace and not given.quoted(i):
            found = namespace[word]
            if not is_model(found):
                raise given.error(f"{word} is no model but of type {type(found).__name__}",
                                  f'name a variable that holds a model; in quotes, "{word}" is what hl.load opens', word=i)
            if not is_open(found):
                raise given.error(f"{word} was closed", f'open it again: {word} = hl.load("lab")', word=i)
            return found
        try:
            return self.load(word)
        except HooklabError as error:
            close = nearest(word, [name for name, value in namespace.items() if is_model(value)])
            if close is None:
                raise
            raise given.error(f"no model {word!r}", f"did you mean `{close}`?", word=i) from error

    def _only(self, given: Given, namespace: Mapping[str, Any], closed: str = "") -> Any:
        """The notebook's only open model, or the shipped one; not the shipped one in place of one that was closed."""
        found = {id(value): name for name, value in namespace.items() if not name.startswith("_") and is_model(value)
                 and is_open(value)}
        if len(found) > 1:
            raise given.error(f"which model: {' or '.join(found.values())}?", f"name it: {given.form.prefix} "
                              f"{next(reversed(found.values()))}")
        if found:
            self.last_name = self.variable = next(iter(found.values()))
            return namespace[self.last_name]
        if closed:
            raise given.error(closed, f"open it again, or name another: {given.form.prefix} lab")
        return self.load("lab")

    def load(self, name: str, **options: Any) -> Any:
        """A model by name or folder, opened once; one that was closed is opened again."""
        key = (name, *sorted(options.items()))
        if not is_open(self.models.get(key)):
            from ..model.load import load

            self.models[key] = load(name, **options)
        return self.models[key]

    def remember(self, spec: Spec, values: dict[str, Any], run: Any) -> None:
        """Add a cell that was run."""
        self.counted += 1
        text = str(spec) if spec.text is None else spec.text
        self.entries.append(Entry(self.counted, text, spec, values, self.last, self.last_name, run))
        del self.entries[:-LONGEST_HISTORY]


def is_model(value: Any) -> bool:
    """Whether a value is an opened model, told without loading torch for values that are none."""
    return any(base.__name__ == "Model" and base.__module__ == "hooklab.model.model" for base in type(value).__mro__)


def is_open(model: Any) -> bool:
    """Whether a model can still run."""
    return model is not None and not vars(model).get("_closed", False)


def evaluate(spec: Spec, namespace: dict[str, Any]) -> dict[str, Any]:
    """What the Python between a spec's braces is worth, each source once, among the notebook's names.

    Raises:
        SpecError: some of it failed; each failure stands under its braces.

    >>> from hooklab.spec.parser import parse
    >>> evaluate(parse('prompt "a"\\nsteer L1.resid by {2 * k}'), {"k": 3})
    {'2 * k': 6}
    """
    values, problems, first = {}, [], None
    for source in holes(spec):
        try:
            values[source] = eval(_compiled(source), namespace)
        except Exception as error:
            first = first or error
            problems.append(at_hole(spec, source, _says(error), _hint(error, source, namespace)))
    if problems:
        raise SpecError(problems, spec.text or "") from first
    return values


def _compiled(source: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        return compile(f"({source}\n)", "<hook braces>", "eval", dont_inherit=True)


def _says(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _hint(error: Exception, source: str, namespace: Mapping[str, Any]) -> str:
    """What to do about a failure: a name that is close, or where to look."""
    if isinstance(error, NameError) and error.name in _names(source):
        close = nearest(error.name, [name for name in namespace if not name.startswith("_")])
        return f"did you mean `{close}`?" if close else f"give it a value in a cell above: {error.name} = …"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    inner = trace.tb_frame.f_code.co_name if trace is not None else ""
    where = f"it happened in {inner}(), line {trace.tb_lineno}; " if trace and inner not in ("<module>", "evaluate") else ""
    return f"{where}run the expression in a cell of its own to see more"


def _names(source: str) -> set[str]:
    return {node.id for node in python.walk(python.parse(f"({source}\n)", mode="eval")) if isinstance(node, python.Name)}
