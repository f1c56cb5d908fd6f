"""Whether what `extract` is given is of the kind that it takes, said before anything is read or made.

In: its options. Out: nothing, or an error that says what was given and what is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...errors import PromptError, RecordError, SiteError
from ...spec.ast import Spec
from ..reducers.reducing import Reducer


def sites(given: Any) -> None:
    """Raises SiteError for what is neither an address nor several."""
    if not _listed(given):
        raise SiteError(f'sites={given!r}: they are an address such as "L5.resid_post", or a list of addresses')


def source(**given: Any) -> None:
    """Raises PromptError for a template or a name of a column that is no text, and for columns that are none."""
    for name in ("template", "text", "id"):
        if not isinstance(given[name], str | None) or (name == "text" and given[name] is None):
            wanted = "text with columns in braces" if name == "template" else "the name of a column"
            raise PromptError(f"{name}={given[name]!r}: it is {wanted}")
    for name in ("metadata", "images", "answer"):
        if not _listed(given[name]) or isinstance(given[name], Mapping):
            raise PromptError(f"{name}={given[name]!r}: it is the name of a column, or a list of names")
    limit = given["limit"]
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise PromptError(f"limit={limit!r}: it is a whole number from 1, or None")


def acting(edits: Any, spec: Any, values: Any) -> None:
    """Raises RecordError for edits that are lines or no functions, and for lines and values that are none."""
    if edits is not None and not isinstance(edits, Mapping):
        lines = isinstance(edits, str) or (_listed(edits) and all(isinstance(one, str) for one in edits))
        raise RecordError(f"edits={edits!r}: edits= maps an address to a function of the site's tensor, "
                          '{"L0.z": lambda value: value * 0}' + "; lines of the hook language go in spec=" * lines)
    if not isinstance(spec, str | Spec | None):
        raise RecordError(f'spec={spec!r}: it is lines of the hook language, such as "zero L0H1", or a Spec')
    if values is not None and not (isinstance(values, Mapping) and all(isinstance(name, str) for name in values)):
        raise RecordError(f"values={values!r}: it has a value for every name in braces: values={{'much': 2}}")


def kept(reduce: Any, metrics: Any, out: Any, progress: Any) -> None:
    """Raises RecordError for reducers, metrics, a folder or a way of telling how far it is that are none."""
    if not isinstance(reduce, Reducer) and not _listed(reduce):
        raise RecordError(f'reduce={reduce!r}: it is a word, such as "mean", a reducer, a list of them, or name -> one')
    if not _listed(metrics):
        how = 'metrics={"gap": function}' if callable(metrics) else 'metrics=["entropy"]'
        raise RecordError(f"metrics={metrics!r}: they are a list of metrics, or name -> metric: {how}")
    if out is not None and (not isinstance(out, str | Path) or "\0" in str(out) or not str(out)):
        raise RecordError(f"out={out!r}: it is the name of a folder")
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise RecordError(f"progress={progress!r}: it is True, or a function that is called with (done, total, what)")


def sharing(engine: Any, **given: Any) -> None:
    """Raises RecordError for options of several processes where one does all the work."""
    if engine is None and (set_ := [f"{name}=" for name, value in given.items() if value is not None]):
        raise RecordError(f'{", ".join(set_)} go{"es" * (len(set_) == 1)} with engine="local", "ray" or "rank": without it, '
                          "this process does all the work")


def _listed(given: Any) -> bool:
    """None, text, or several of something."""
    return given is None or isinstance(given, str | Iterable)
