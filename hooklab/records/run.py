"""Run: everything that one spec gave: activations, metrics, scores, texts, and where they came from.

In: what the runtime measured. Out: a mapping from addresses and saved names to tensors, with the rest as fields; it shows
itself, and it is saved to and loaded from a folder without loss.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..address import Place, parse
from ..errors import RecordError, SiteError, did_you_mean
from ..problems import SpecError
from .exact import same
from .parts import Expectation, Text, ViewRequest
from .scores import Scores

if TYPE_CHECKING:
    from torch import Tensor

    from ..tokens import Tokens
    from ..views.boards import Board
    from .comparison import Comparison

SHORT = {"resid": "resid_post", "attn": "attn_out", "mlp": "mlp_out", "neurons": "mlp_post"}
READOUTS = ("lens", "top", "resid")
"""First words of the names of scores that an unswept run has as well: they are no grid when there is another."""


class MissingError(RecordError, KeyError):
    """There is nothing under that name."""

    def __str__(self) -> str:
        # KeyError prints the repr of its argument; a sentence should read as one.
        return str(self.args[0]) if self.args else ""


@dataclass(frozen=True, repr=False, eq=False)
class Run(Mapping[str, "Tensor"]):
    """The results of one spec, by name: `run["stream"]`, `run["L5.resid_post"]`, `run["patched.L5.resid_post"]`.

    Two are equal when everything in them is, bit for bit.

    >>> run = Run("metric prob", metrics={"main": {"prob": 0.25}})
    >>> print(run)
    Run · main
      metrics  prob
      main     0.25

    Attributes:
        spec: The text of the experiment.
        data: `"{run}.{name}"` -> tensor, where the name is an address or what `as` said.
        axes: The axis words of each entry of `data`.
        metrics: Run -> metric -> number.
        examples: The same for every example: run -> metric -> [batch].
        scores: `"{run}.{metric}"`, `"{run}.lens"`, `"{run}.top"` … -> Scores, in the order made.
        tokens_of: Run -> the tokens that it ran on.
        texts: Run -> continuations.
        views: What the spec asks to show, in order.
        expectations: The spec's claims and whether they hold.
        provenance: Model fingerprint, versions, seeds, device …: nothing but what JSON can say.
        given: Values of the names in the spec's braces.
    """

    spec: str = ""
    data: dict[str, Tensor] = field(default_factory=dict)
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    examples: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    tokens_of: dict[str, Tokens] = field(default_factory=dict)
    texts: dict[str, tuple[Text, ...]] = field(default_factory=dict)
    views: tuple[ViewRequest, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that every tensor has a word for each axis. Raises RecordError."""
        if odd := self.data.keys() ^ self.axes.keys():
            raise RecordError(f"data and axes must name the same entries; only one has {', '.join(sorted(odd))}")
        for key, tensor in self.data.items():
            if "." not in key:
                raise RecordError(f'{key!r} is no key of a run: write "run.name"')
            if len(self.axes[key]) != len(tensor.shape):
                raise RecordError(f"{key} has shape {tuple(tensor.shape)} and {len(self.axes[key])} axes: {self.axes[key]}")

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the runs, in the order in which they appear."""
        keys = [*self.tokens_of, *self.metrics, *self.texts, *(key.partition(".")[0] for key in (*self.data, *self.scores))]
        return tuple(dict.fromkeys(keys))

    def __getitem__(self, key: str) -> Tensor:
        """What was saved under a name, an address, or either with its run before it.

        Raises:
            MissingError: nothing was (a KeyError).
            RecordError: several runs saved it.
        """
        found = self._find(key)
        if len(found) == 1:
            return self.data[found[0]]
        if found:
            choices = " or ".join(f'run["{one}"]' for one in found)
            raise RecordError(f"Several runs saved {key}: write {choices}.")
        raise MissingError(self._missing(str(key)))

    def __contains__(self, key: object) -> bool:
        return bool(self._find(key))

    def get(self, key: str, default: Any = None) -> Any:
        """What was saved under a name, or the default where nothing was. Raises RecordError where several runs saved it."""
        return self[key] if key in self else default

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return True  # a run that saved nothing still has its numbers

    def _find(self, key: object) -> list[str]:
        if not isinstance(key, str):
            return []
        if key in self.data:
            return [key]
        run, _, rest = key.partition(".")
        if run in self.runs:
            if hits := [one for one in self.data if one.startswith(f"{run}.") and one[len(run) + 1:] == _address(rest)]:
                return hits
        address = _address(key)
        return [one for one in self.data if one.partition(".")[2] in (key, address)]

    def _missing(self, key: str) -> str:
        if key in self.scores:
            return f'{key} is not an activation: read it as run.scores["{key}"].'
        run, _, metric = key.partition(".")
        if metric in self.metrics.get(run, {}):
            return f'{key} is a metric: read it as run.metrics["{run}"]["{metric}"].'
        if not self.data:
            return f"{key} was not saved: the spec saved nothing. Add a line such as `save {key or 'L0.resid_post'}`."
        names = [*self.data, *dict.fromkeys(one.partition(".")[2] for one in self.data)]
        listed = list(self.data)[:8]
        more = f" and {len(self.data) - 8} more" if len(self.data) > 8 else ""
        return f"{key} was not saved.{did_you_mean(key, names)} Saved: {', '.join(listed)}{more}."

    @property
    def grid(self) -> Scores:
        """The first of the scores that was swept over.

        Raises:
            RecordError: nothing was swept.
        """
        swept = {key: scores for key, scores in self.scores.items() if set(scores.axes) - {"batch", "rank"}}
        for scores in (*(s for key, s in swept.items() if kind(key) not in READOUTS), *swept.values()):
            return scores
        raise RecordError("There is no grid: nothing was swept. Write `each` before a place, as in "
                          "`patch each L*.resid @each from clean`, or add a `sweep` line.")

    @property
    def text(self) -> str | list[str]:
        """What was written, prompt included: a string when there is one continuation, else a list.

        Raises:
            RecordError: nothing was generated.
        """
        texts = [one.text for several in self.texts.values() for one in several]
        if not texts:
            raise RecordError("There is no text: nothing was generated. Add a line such as `generate 20`.")
        return texts[0] if len(texts) == 1 else texts

    @property
    def tokens(self) -> Tokens:
        """The tokens of the run `main`, or of the first run. Raises RecordError when there are none."""
        if not self.tokens_of:
            raise RecordError("This run has no tokens: it ran on nothing that was tokenized.")
        return self.tokens_of.get("main", next(iter(self.tokens_of.values())))

    @property
    def nbytes(self) -> int:
        """Bytes of all its numbers: tensors in `data`, arrays in `examples`, and every array of its scores."""
        kept = sum(one.numel() * one.element_size() for one in self.data.values())
        return kept + sum(one.nbytes for some in self.examples.values() for one in some.values()) + sum(
            one.nbytes for one in self.scores.values())

    def tree(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Run -> what it saved -> the shape of it.

        >>> import torch
        >>> Run(data={"main.L0.z": torch.zeros(1, 3)}, axes={"main.L0.z": ("batch", "pos")}).tree()
        {'main': {'L0.z': (1, 3)}}
        """
        found: dict[str, dict[str, tuple[int, ...]]] = {}
        for key, value in self.data.items():
            run, _, name = key.partition(".")
            found.setdefault(run, {})[name] = tuple(value.shape)
        return found

    def as_dict(self, row: int | None = None) -> dict[str, Any]:
        """What was written as one plain dictionary, with activations by layer; see `hooklab.records.plain`."""
        from .plain import as_dict

        return as_dict(self, row)

    def show(self) -> Board:
        """The views that the spec's `show` lines ask for, under each other, live; without such lines, all that there is."""
        from ..views.choosing import of

        return of(self)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Store everything in a new folder, whole or not at all; see `hooklab.records.saving`. Returns its path.

        Raises:
            RecordError: the path is taken, cannot be written to, or something in the run cannot be stored.
        """
        from .saving import save

        return save(self, path, overwrite=overwrite)

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or what another process gets, does not know the model that the run was made with."""
        return {name: value for name, value in self.__dict__.items() if name != "_model"}

    def replay(self, model: Any = None) -> Comparison:
        """Run the same text again and say whether the numbers came out the same, and by how much not.

        Args:
            model: The model to run it on; the one that this run was made with, if it is still open.

        Raises:
            RecordError: there is no model, or a value that the text needs was not stored.
        """
        from .comparison import compare
        from .parts import Unstored

        made_with = self.__dict__.get("_model")
        model = model if model is not None else made_with() if made_with is not None else None
        if model is None:
            raise RecordError("The model of this run is not open any more. Open it and pass it: run.replay(hl.load(…)).")
        lost = [name for name, value in self.given.items() if isinstance(value, Unstored)]
        if lost:
            raise RecordError(f"{', '.join('{' + name + '}' for name in lost)} could not be stored with the run, so it "
                              f"cannot be replayed. Run its text anew with the value: model.run(run.spec, …).")
        try:
            again = model.run(self.spec, values=self.given)
        except SpecError as error:  # claims that do not hold now are no reason not to compare
            again = getattr(error, "run", None)
            if again is None:
                raise
        return compare(self, again)

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Read what `save` stored; tensors come back on the CPU.

        Raises:
            RecordError: there is no run, it was changed or cut short, or a newer version of hooklab stored it.
        """
        from .saving import load

        return load(path)

    def __eq__(self, other: object) -> bool:
        return same(self, other) if isinstance(other, Run) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        from .drawing import text

        return text(self)

    def _repr_html_(self) -> str:
        from .drawing import page

        return page(self)

    def _repr_mimebundle_(self, **given: Any) -> Any:
        """The live views that a notebook's cell made of this run, while they are open; else text and HTML as usual."""
        board = self.__dict__["_board"]() if "_board" in self.__dict__ else None
        return None if board is None or board.closed else board._repr_mimebundle_(**given)


def kind(key: str) -> str:
    """What sort of scores a key stands for.

    >>> kind("clean.lens_logit_diff"), kind("patched.prob")
    ('lens', 'prob')
    """
    return key.rpartition(".")[2].partition("_")[0]


def _address(text: str) -> str:
    """The spelling under which a run keeps an address; text that is none as it is.

    >>> _address("L5.resid"), _address("blocks.5.attn.hook_z"), _address("stream")
    ('L5.resid_post', 'L5.z', 'stream')
    """
    head, dot, part = text.rpartition(".")
    if part in SHORT and re.match(r"L\S+$", head):
        text = head + dot + SHORT[part]
    try:
        parsed = parse(text)
    except SiteError:
        return text
    if parsed.layers is None:
        return parsed.site
    if parsed.heads is None and parsed.neurons is None and parsed.layers.isdigit():
        return Place(parsed.site, int(parsed.layers)).key
    return text
