"""How a run ended, on the disk: its result, figures, numbers, and what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..files import write_whole
from ..html import printable
from . import artefacts
from .digest import Digest
from .drawing import is_figure, pictures
from .experiment import in_words
from .running import Running, as_number


def kept(run: Running, folder: Path, status: str, about: dict[str, Any],
         value: Any) -> tuple[dict[str, Any], list[tuple[str, int | None, float]], Exception | None]:
    """Write the files of a run that ended.

    Returns:
        What is to be said of it, the numbers of its result, and what went wrong, if anything did.
    """
    output, cut = run.output
    about |= {"output": output, "troubles": list(run.troubles), "lost": list(about.get("lost", []))}
    if cut:
        about["troubles"].append(f"{cut:,} characters of output were not kept")
    numbers: list[tuple[str, int | None, float]] = []
    trouble: Exception | None = None
    about["logged"], about["figures"] = dict(run.logged), dict(run.pictures)

    def result() -> None:
        numbers.extend(_numbers(value))
        _result(folder, value, about)

    parts: list[Callable[[], None]] = [partial(_finished, folder, name, figure, i, about)
                                       for i, (name, figure) in enumerate(run.figures.items())]
    for part in [*parts, *([result] if status == "finished" else [])]:
        try:  # what goes wrong with one leaves the others
            part()
        except Exception as error:
            trouble = error
            about["troubles"].append(f"{type(error).__name__}: {error}")
    about["lost"] += run.lost
    return about, numbers, trouble


def note(run: Running, folder: Path, name: str, value: Any) -> None:
    """Write a value or figure that a run logs, as it is now; what goes wrong is a trouble of the run."""
    number = len(run.logged) + len(run.pictures)
    try:
        if is_figure(value):
            run.pictures[name] = _drawn(folder, value, f"logged{number}")
            return
        keeper = artefacts.keep(value, folder / f"logged{number}")
        run.logged[name] = f"logged{number}"
        run.lost += [f"{name}: {one}" for one in keeper.lost]
    except Exception as error:
        run.troubles.append(f"{name}: {type(error).__name__}: {error}")


def _finished(folder: Path, name: str, figure: Any, number: int, about: dict[str, Any]) -> None:
    about["figures"][name] = _drawn(folder, figure, f"figure{number}")


def _result(folder: Path, value: Any, about: dict[str, Any]) -> None:
    made = Digest()
    made.add(value, "result")
    about["result"], about["result_digest"] = in_words(value), made.text()
    about["result_by_kind"] = made.by_kind
    keeper = artefacts.keep(value, folder / "result")
    about["lost"] += keeper.lost
    about["figures"] |= {name: f"result.{file}" for name, file in keeper.figures.items()}


def _drawn(folder: Path, figure: Any, name: str) -> str:
    """Write a figure under a name, in all its forms; the file of the first."""
    made = {f"{name}.{ending}": data() for ending, data in pictures(figure).items()}
    for file, data in made.items():
        write_whole(folder / file, data)
    return next(iter(made))


def _numbers(value: Any) -> list[tuple[str, int | None, float]]:
    """The numbers of a result: those of a dictionary, or the one that it is."""
    named = value if isinstance(value, Mapping) else {"result": value}
    found = [(printable(name), as_number(one)) for name, one in named.items() if isinstance(name, str)]
    return [(name, None, one) for name, one in found if one is not None]
