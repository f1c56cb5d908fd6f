"""Bench: a folder of experiments, and everything that is done with them.

    FOLDER/bench.sqlite      codes, runs, numbers, tags
    FOLDER/codes/VERSION.*   what a version of the code reads: constants, defaults, closures
    FOLDER/runs/ID/          inputs, result, figures, and what was logged
    FOLDER/.trash/ID/        the same, of runs in the trash
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import html
from ..errors import RecordError, did_you_mean
from . import marking, needs, running, toolbox
from .database import Database
from .experiment import Experiment
from .keeping import Keeping
from .listing import Records, Version, Versions
from .marking import VISIBLE
from .record import Record, record_of
from .running import Running

if TYPE_CHECKING:
    from ..views.browser import Runs
    from .differences import Difference
    from .restoring import Rerun, Restored

COLUMNS = ("r.id, r.name, r.version, r.status, r.owner, r.parent, r.started, r.seconds, r.document, "
           "c.document, c.text")
RUNS = f"SELECT {COLUMNS} FROM runs r JOIN codes c ON c.name = r.name AND c.version = r.version"
NUMBERS = "SELECT run, name, step, value FROM metrics"
TAGS = "SELECT run, tag FROM tags"


class Bench(Keeping):
    """A bench in a folder; the folder is made when it is not there. Several processes may use it at once.

    Args:
        folder: Where everything is kept.
        model: For tools that are made with a model, and to run again what was run with it.

    Raises:
        RecordError: the folder cannot be used, is something else, or a newer hooklab made it.

    Example:
        >>> import tempfile
        >>> bench = Bench(tempfile.mkdtemp())
        >>> @bench.experiment
        ... def double(x):
        ...     return {"twice": 2 * x}
        >>> double(4)
        {'twice': 8}
        >>> [run.metrics for run in bench.runs("double")]
        [{'twice': 8.0}]
    """

    def __init__(self, folder: str | Path, model: Any = None) -> None:
        if not isinstance(folder, (str, Path)) or not str(folder).strip() or "\0" in str(folder):
            raise RecordError(f"a bench is in a folder, as in Bench('experiments'), not in {folder!r}")
        self.folder = Path(folder).expanduser().absolute()
        if self.folder.exists() and not self.folder.is_dir():
            raise RecordError(f"{self.folder} is a file; a bench is a folder")
        self.own_tools: dict[str, Any] = {}
        super().__init__(self.folder, Database(self.folder), model)

    # Decorators --------------------------------------------------------------------------------------------------------

    def experiment(self, function: Any = None, *, name: str | None = None, seed: int | None = None) -> Any:
        """Keep every call of a function: a decorator, with or without options.

        Args:
            function: The function.
            name: Under which its runs are kept; its own name unless given.
            seed: Python's, numpy's and torch's random numbers start from it in every call, and are as before after it.

        Raises:
            RecordError: it is no function, or an async one or a generator.
        """
        if function is None:
            return lambda given: Experiment(given, self, name, seed)
        return Experiment(function, self, name, seed)

    def uses(self, *names: Any) -> Any:
        """Hand tools to a function by the names of its parameters: `@bench.uses("lens", "sweep")`.

        Without names, every parameter that is named like a tool and has no default, or has a tool's class as its type, gets
        it. What the caller gives is left as it is.

        Raises:
            RecordError: there is no such tool, or no parameter for it.
        """
        if len(names) == 1 and callable(names[0]):
            return self._again(names[0], lambda given: needs.with_tools(given, self, ()))
        return lambda function: self._again(function, lambda given: needs.with_tools(given, self, names))

    def plots(self, *names: str, **more: Any) -> Any:
        """Hand matplotlib axes or ready-made plots to a function, and keep the figures with its runs, as PNG and SVG.

        `@bench.plots("losses", heads=(2, 3), whole="figure")` gives the parameter `losses` one empty Axes, `heads` an array
        [2 3] of them, and `whole` a Figure. They are outside pyplot, and no setting is changed.

        `@bench.plots("attention", "residual_stream")` names plots of `hooklab.bench.plots.PLOTS`: the parameters `attention`
        and `residual_stream` get their figures, drawn from the call's model and prompt before the function runs.
        `late=Plot("attention", {"layer": 5}, {"prompt": "question"})` gives options, and says which argument is drawn.

        Raises:
            RecordError: there is no such parameter or plot, or something else is asked for.
        """
        return lambda function: self._again(function, lambda given: needs.with_plots(given, self, names, more))

    def _again(self, function: Any, more: Any) -> Any:
        if not isinstance(function, Experiment):
            return more(function)
        made = more(needs.Prepared(function.function, function.needs, self))
        return Experiment(made, self, function.name, function.seed)

    def tool(self, value: Any = None, *, name: str | None = None) -> Any:
        """Add a tool to this bench: a decorator for a function, or for a class of which each run gets its own instance."""
        return toolbox.add(self.own_tools, value, name)

    def tools(self) -> dict[str, str]:
        """The names of all tools, and where each comes from."""
        return toolbox.tools(self.own_tools)

    # Inside a run ------------------------------------------------------------------------------------------------------

    def log(self, name: str, value: Any, step: int | None = None) -> None:
        """Note a number, a figure or any other value with the run that goes on.

        Raises:
            RecordError: no run goes on, or it cannot be told which of several.
        """
        self.current().log(name, value, step)

    def current(self) -> Running:
        """The run that goes on, to log from threads. Raises RecordError when there is none."""
        run = running.current(folder=self.folder)
        assert run is not None
        return run

    # What is kept ------------------------------------------------------------------------------------------------------

    def runs(self, name: str | None = None, *, version: str | None = None, status: str | None = None) -> Records:
        """The runs, in the order in which they began: all, or those of an experiment, a version, a status.

        `bench.runs().where(…)` chooses by model, tag, time, inputs and numbers too; see `Records.where`.

        Raises:
            RecordError: there is no such experiment.
        """
        if name is not None:
            self._check_name(name)
        rows = self._database.read(f"{RUNS} WHERE {VISIBLE} AND (?1 IS NULL OR r.name = ?1) AND "
                                   "(?2 IS NULL OR r.version = ?2) ORDER BY r.id", name, version)
        found = self._records(rows)
        return Records(tuple(one for one in found if status is None or one.status == status))

    def get(self, ident: str) -> Record:
        """A run by its name, or by the beginning of it where that is one run's only.

        Raises:
            RecordError: there is none, or there are several.
        """
        if not isinstance(ident, str) or not ident:
            raise RecordError(f"a run is asked for by its name, not {ident!r}")
        (found,) = marking.resolved(self._database, ident)
        return self._records(self._database.read(f"{RUNS} WHERE r.id = ?", found))[0]

    def versions(self, name: str | None = None) -> Versions:
        """The versions of an experiment's code, or of all, in the order in which they were first used.

        Raises:
            RecordError: there is no such experiment.
        """
        if name is not None:
            self._check_name(name)
        rows = self._database.read(
            "SELECT c.name, c.version, MIN(r.started), MAX(r.started), COUNT(*), SUM(r.status = 'finished'), c.python, "
            "c.document, c.text FROM codes c JOIN runs r ON r.name = c.name AND r.version = c.version "
            f"WHERE {VISIBLE} AND (?1 IS NULL OR c.name = ?1) GROUP BY c.name, c.version ORDER BY MIN(r.id)", name)
        words = ("name", "version", "first", "last", "runs", "finished", "python")
        return Versions(tuple(Version(**dict(zip(words, row, strict=False)), source=json.loads(row[7])["source"],
                                      text=row[8]) for row in rows))

    def names(self) -> list[str]:
        """The experiments that have runs."""
        return [row[0] for row in self._database.read(f"SELECT DISTINCT r.name FROM runs r WHERE {VISIBLE} ORDER BY r.name")]

    # Tags and the trash ------------------------------------------------------------------------------------------------

    def tag(self, runs: Any, *words: str) -> Records:
        """Give a run, or several, words to be found by: `bench.tag(run, "baseline")`. The runs as they are then.

        Raises:
            RecordError: there is no such run, or a tag is no word.
        """
        found, tags = marking.resolved(self._database, runs), marking.words(words)
        marking.tag(self._database, found, tags)
        return self._chosen(found)

    def untag(self, runs: Any, *words: str) -> Records:
        """Take words from a run, or several. Raises RecordError: there is no such run, or none of them has the word."""
        found, tags = marking.resolved(self._database, runs), marking.words(words)
        marking.untag(self._database, found, tags)
        return self._chosen(found)

    def trash(self, runs: Any) -> Records:
        """Put a run, or several, out of sight, and their files into `.trash`; `restore_run` undoes it. Nothing is deleted.

        Runs that they called stay. Raises RecordError: there is no such run, it goes on still, or its files cannot be moved.
        """
        found = marking.resolved(self._database, runs)
        marking.trash(self._database, self.folder, found, self.status_of)
        return self._chosen(found, hidden=True)

    def restore_run(self, runs: Any) -> Records:
        """Bring a run, or several, back from the trash. Raises RecordError: it is not there, or cannot be moved."""
        found = marking.resolved(self._database, runs, hidden=True)
        marking.restore(self._database, self.folder, found)
        return self._chosen(found)

    def trashed(self) -> Records:
        """The runs in the trash, in the order in which they began; their results can be read there."""
        rows = self._database.read(f"{RUNS} WHERE NOT ({VISIBLE}) ORDER BY r.id")
        return Records(tuple(self._records(rows, hidden=True)))

    def _chosen(self, idents: list[str], hidden: bool = False) -> Records:
        wanted = set(idents)
        return Records(tuple(one for one in (self.trashed() if hidden else self.runs()) if one.id in wanted))

    # What is done with runs --------------------------------------------------------------------------------------------

    def diff(self, one: str | Record, other: str | Record, tolerance: float = 0.0) -> Difference:
        """What differs between two runs: source, arguments, environment, numbers, results. Raises RecordError."""
        from .differences import difference

        return difference(self._record(one), self._record(other), tolerance)

    def restore(self, ident: str | Record, *, given: dict[str, Any] | None = None, model: Any = None,
                force: bool = False) -> Restored:
        """The function of a run, built from its stored source in a namespace of its own. This executes stored code.

        Args:
            ident: The run.
            given: Values for what the function reads and could not be kept, by name.
            model: The model to use where the code reads one; its weights must be those of the run.
            force: Also with other weights, and with source that is not known to be the code that ran.

        Raises:
            RecordError: something is missing, or differs.
        """
        from .restoring import restore

        return restore(self, self._record(ident), given or {}, model, force)

    def rerun(self, ident: str | Record, *, tolerance: float = 0.0, given: dict[str, Any] | None = None, model: Any = None,
              force: bool = False) -> Rerun:
        """Run a run again, from its stored source with its stored arguments, and say whether it came out the same.

        Args:
            ident: The run.
            tolerance: The largest difference of a number that counts as the same.
            given: As in `restore`, and arguments that could not be kept.
            model: As in `restore`.
            force: As in `restore`.

        Raises:
            RecordError: it cannot be run again.
        """
        from .restoring import rerun

        return rerun(self, self._record(ident), tolerance, given or {}, model, force)

    def show(self, name: str | None = None) -> Runs:
        """A browser of the runs: to search, sort, look into and compare. Raises RecordError, ViewError."""
        from .browsing import browser

        return browser(self.runs(name), str(self.folder))

    def export_mlflow(self, tracking_uri: str, experiment: str = "hooklab", name: str | None = None) -> list[str]:
        """Copy runs to an MLflow server, file folder or database; see `hooklab.bench.mlflow.export`. Raises RecordError."""
        from .mlflow import export

        return export(self.runs(name), tracking_uri, experiment)

    def __repr__(self) -> str:
        return f"Bench {self.folder}\n{self.runs()!r}"

    def _repr_html_(self) -> str:
        return f"{html.block(html.heading(f'Bench {self.folder}'))}{self.runs()._repr_html_()}"

    def _record(self, one: str | Record) -> Record:
        return one if isinstance(one, Record) else self.get(one)

    def _check_name(self, name: str) -> None:
        known = self.names()
        if name not in known:
            raise RecordError(f"there is no run of {name!r}.{did_you_mean(name, known)}")

    def _records(self, rows: list[tuple[Any, ...]], hidden: bool = False) -> list[Record]:
        one = rows[0][0] if len(rows) == 1 else None
        numbers, tags = (self._of_runs(question, one) for question in (NUMBERS, TAGS))
        return [record_of(row, numbers.get(row[0], []), marking.place(self.folder, row[0]) if hidden else
                          self.folder / marking.RUNS / row[0], self.status_of(row), [tag for (tag,) in tags.get(row[0], [])])
                for row in rows]

    def _of_runs(self, question: str, run: str | None) -> dict[str, list[tuple[Any, ...]]]:
        """Rows of a table by run: those of one, or of all in one go."""
        found: dict[str, list[tuple[Any, ...]]] = {}
        rows = self._database.read(f"{question} ORDER BY rowid") if run is None else self._database.read(
            f"{question} WHERE run = ? ORDER BY rowid", run)
        for name, *rest in rows:
            found.setdefault(name, []).append(tuple(rest))
        return found
