"""Metrics of a plan as short functions of the logits [row pos d_vocab], one number for each row."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..compiler.plan.measures import Measure, MetricPlan
from ..compiler.plan.reaches import Spread
from ..compiler.plan.runs import RunPlan
from ..compiler.plan.spots import Spot
from ..compiler.plan.values import Const, Given, Op
from .index import Entries, entries, index
from .text import CodeError, comment, listed, plain

if TYPE_CHECKING:
    from .program import Base


@dataclass
class Function:
    """A metric's function while it is written.

    Attributes:
        bound: Lines before the `return`, by the expression that they name.
        refs: Runs whose logits it compares with, in the order of its arguments.
        rows: Whether it needs the token ids of every row.
        tokens: Token ids that occur in it.
    """

    bound: dict[str, str] = field(default_factory=dict)
    refs: list[str] = field(default_factory=list)
    rows: bool = False
    tokens: list[int] = field(default_factory=list)

    @property
    def arguments(self) -> list[str]:
        """Names of its arguments."""
        return ["logits", *("rows" for _ in range(self.rows)), *map(other, range(len(self.refs)))]

    def name(self, text: str, wanted: str = "at") -> str:
        """A name for an expression that is used in the `return`."""
        if text not in self.bound:
            taken = sum(name.startswith(wanted) for name in self.bound.values())
            self.bound[text] = wanted if not taken else f"{wanted}_{taken + 1}"
        return self.bound[text]


def other(n: int) -> str:
    """The argument for the n-th run that is compared with."""
    return "other" if n == 0 else f"other_{n + 1}"


def function(program: Base, run: RunPlan, metric: MetricPlan) -> tuple[Function, list[str]]:
    """A metric on a run: what it needs, and its lines without the `def`."""
    made = Function()
    result = _value(program, run, metric.value, made)
    if not made.bound and not made.rows and "logits" not in result:
        result = f"torch.tensor({result})"  # a number without a model
    lines = [f"{name} = {text}" for text, name in made.bound.items()]
    about = ", ".join(f"{token} is {program.piece(token)!r}" for token in dict.fromkeys(made.tokens[:4]))
    return made, [*([f"# {comment(about, 100)}"] if about else []), *lines, f"return {result}"]


def _value(program: Base, run: RunPlan, value: Any, made: Function) -> str:
    if isinstance(value, Const):
        return repr(value.value)
    if isinstance(value, Op):
        args = [_value(program, run, arg, made) for arg in value.args]
        args = [f"({text})" if isinstance(arg, Op) or " - " in text else text
                for text, arg in zip(args, value.args, strict=True)]
        return f"-{args[0]}" if value.op == "neg" else f"{args[0]} {value.op} {args[1]}"
    if isinstance(value, Given):
        if re.search(r"\.(tokens|run)\b", value.source):
            raise CodeError("a metric in Python that asks for more than logits is not written as code")
        program.imports.add("from types import SimpleNamespace")
        return f"torch.as_tensor({program.hole(value.source)}(SimpleNamespace(logits=logits))).float()"
    return _measure(program, run, value, made)


def _measure(program: Base, run: RunPlan, value: Measure, made: Function) -> str:
    tokens = program.plan.prompts[run.prompt].tokens
    rows = len(tokens) * run.samples
    if value.fn == "loss":
        return _loss(program, tokens, made)
    found, many = _at(tokens, value.at, rows)
    at = made.name(f"logits{found}.float()")
    end = ".mean(-1)" if many else ""
    if value.fn == "kl":
        return _kl(program, run, value, made, at, rows) + end
    if value.fn == "entropy":
        return f"torch.special.entr({at}.softmax(-1)).sum(-1){end}"
    if value.fn == "top":
        return f"{at}.softmax(-1).amax(-1){end}"
    assert value.target is not None
    target, made.tokens = _picked(value.target, rows, many), [*made.tokens, *value.target, *(value.other or ())]
    if value.fn == "logit_diff":
        assert value.other is not None
        found = f"{at}{target} - {at}{_picked(value.other, rows, many)}"
        return f"({found}){end}" if many else found
    if value.fn == "logit_centred":
        found = f"{at}{target} - {at}.mean(-1)"
        return f"({found}){end}" if many else found
    if value.fn == "rank":
        return f"({at} > {at}{target}[..., None]).sum(-1).float(){end}"
    return f"{at}{ {'logit': '', 'prob': '.softmax(-1)', 'logprob': '.log_softmax(-1)'}[value.fn]}{target}{end}"


def _at(tokens: Any, at: Spread | None, rows: int) -> tuple[str, bool]:
    """The index of a metric's positions, and whether a position axis is left."""
    found = entries(tokens, at, rows)
    if at is None:
        found = Entries(tuple((columns[-1],) for columns in found.columns), found.width)
    counts = {len(columns) for columns in found.columns}
    if len(counts) > 1:
        raise CodeError("a metric is read at different numbers of positions in the examples")
    many = counts != {1}
    if found.common is None and many:
        return f"[{listed(range(rows), 1)}, [{', '.join(map(listed, found.columns))}]]", True
    return plain(index(found, Spot("logits"), {})), many


def _picked(ids: tuple[int, ...], rows: int, many: bool) -> str:
    """The brackets that pick one token of every row from [row d_vocab] or [row pos d_vocab]."""
    if len(set(ids)) == 1:
        return f"[..., {ids[0]}]"
    chosen = listed([ids[row % len(ids)] for row in range(rows)])
    return f"[{listed(range(rows))}, {':, ' if many else ''}{chosen}]"


def _kl(program: Base, run: RunPlan, value: Measure, made: Function, at: str, rows: int) -> str:
    ref = program.plan.run(str(value.ref))
    tokens = program.plan.prompts[ref.prompt].tokens
    if ref.name not in made.refs:
        made.refs.append(ref.name)
    name = other(made.refs.index(ref.name))
    height = len(tokens) * ref.samples
    found, _ = _at(tokens, value.at if ref.prompt == run.prompt else None, height)
    text = f"{name}{found}.float()"
    if height not in (1, rows):
        text = f"torch.cat([{text}] * {rows // height})"
    reference = made.name(text, "reference")
    program.imports.add("import torch.nn.functional as F")
    return (f'F.kl_div({at}.log_softmax(-1), {reference}.log_softmax(-1), reduction="none", log_target=True).sum(-1)')


def _loss(program: Base, tokens: Any, made: Function) -> str:
    made.rows = True
    program.imports.add("import torch.nn.functional as F")
    part = "-len(ids):-1" if tokens.padding_side == "left" else ":len(ids) - 1"
    return (f"torch.stack([F.cross_entropy(at[{part}].float(), torch.tensor(ids[1:])) "
            f"for at, ids in zip(logits, rows)])")
