"""What both programs share: prompts, holes, metrics, one section for each run, and how they are put together.

    Plan ──▶ Program: header · imports · helpers · prompts · metrics · run after run ──▶ text
"""

from __future__ import annotations

import ast as python
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..compiler.plan.edits import sources
from ..compiler.plan.plan import Plan
from ..compiler.plan.runs import RunPlan
from ..compiler.plan.values import Const, Sigma, acts
from ..spec import ast
from ..spec.parser import parse
from .steps import Step
from .text import CodeError, Names, Text, cat, comment, indented, quoted
from .tools import TOOLS

if TYPE_CHECKING:
    from ..model.model import Model

FIXED = ("model", "hf", "tokenizer", "torch", "results", "saved", "product", "F", "SimpleNamespace", "range", "enumerate",
         "zip", "len", "list", "tuple", "i", "t", "x", "step", "ids", "logits", "rows", "handles", "now", "numbers", "kept",
         "keep", "run", "write", "padded", "attention", "inside", "served", "layer_of_module", "count_step", "before", "at",
         "reference", "other", "whole", "edit", "hook", "load_file", *TOOLS)


def refuse(plan: Plan) -> None:
    """Refuse what short code would get wrong.

    Raises:
        CodeError: `sigma` of several places at once; scores that would bring back what is masked; a source whose sweep
            runs over other axes than that of the run that takes from it.
    """
    edits = [(run, edit) for run in plan.runs for cell in run.cells for edit in cell.edits]
    seen: set[int] = set()
    for run, edit in edits:
        if id(edit) in seen:
            continue
        seen.add(id(edit))
        if len({spot.whole for spot in edit.spots}) > 1 and any(isinstance(act, Sigma) for act in acts(edit.value)):
            raise CodeError("sigma of several places is another number for each: write a line for each of them")
        if edit.verb not in ("cut", "patch", "scale") and any(spot.site == "scores" for spot in edit.spots):
            raise CodeError(f"{edit.verb} of scores would unmask later tokens in short code: act on pattern")
        if edit.verb == "scale" and edit.value == Const(0.0) and any(spot.site == "scores" for spot in edit.spots):
            raise CodeError("scores scaled by 0 would unmask later tokens in short code: act on pattern")
        for name in sources(edit):
            source = plan.run(name)
            if len(source.cells) > 1 and not source.hidden and source.axes != run.axes:
                raise CodeError(f"{name} is swept over other axes than {run.name}, which takes from it")


class Base(ABC):
    """One plan on its way to one text."""

    title: str
    needs: str

    def __init__(self, plan: Plan, model: Model) -> None:
        refuse(plan)
        self.plan, self.model = plan, model
        self.source = plan.text.rstrip().split("\n")
        self.statements = _statements(plan.text)
        self.names = Names((*FIXED, *(source for source in plan.values if source.isidentifier())))
        self.imports: set[str] = {"import torch"}
        self.tools: dict[str, list[str]] = {}
        self.holes: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.masks: dict[str, str] = {}
        self.functions: dict[tuple[str, ...], str] = {}
        self.needed = {need for run in plan.runs for need in run.needs}
        self.variables = {run.name: self.names.pick(run.name.replace(">", "_")) for run in plan.runs}
        self.prompts = {name: self.names.pick("prompt" if name == "main" else f"{name}_prompt") for name in plan.prompts}
        facts = model.facts
        self.sizes: dict[str, int] = {"head": facts.n_heads, "kv_head": facts.n_kv_heads, "d_model": facts.d_model,
                                      "d_head": facts.d_head, "d_mlp": facts.d_mlp or 0, "d_vocab": facts.d_vocab}

    # What the parts ask for ------------------------------------------------------------------------------------------

    def hole(self, source: str) -> str:
        """The name under which Python between braces is known."""
        if source not in self.holes:
            own = source.isidentifier() and source not in FIXED[3:]
            if not own and not _is_expression(source):
                raise CodeError(f"{{{source}}} is no Python expression")
            self.holes[source] = source if own else self.names.pick(f"value_{len(self.holes) + 1}")
        return self.holes[source]

    def file(self, path: str) -> str:
        """The name of a file's tensors."""
        if path not in self.files:
            self.imports.add("from safetensors.torch import load_file")
            self.files[path] = self.names.pick("tensors")
        return self.files[path]

    def tool(self, name: str) -> str:
        """The name of a helper, which is then written out above."""
        text = TOOLS[name]
        for inner in ("unit", "dot"):
            if f"{inner}(" in text and inner != name and inner not in self.tools:
                self.tool(inner)
        self.tools.setdefault(name, text.splitlines())
        return name

    def acts(self, run: str, cell: int, cells: int) -> Text:
        """The dictionary of what a run left, at the point that answers to `cell`."""
        from .text import Leaf

        source = self.plan.run(run)
        if len(source.cells) == 1:
            return cat(self.variables[run])
        if len(source.cells) != cells:
            raise CodeError(f"{run} is swept over other points than what takes from it")
        return cat(f"{self.variables[run]}_all[", Leaf("point", str(cell), str(cell)), "]")

    def real(self, run: RunPlan) -> str:
        """The brackets that leave padding out; none where there is no padding."""
        tokens = self.plan.prompts[run.prompt].tokens
        if len(set(tokens.lengths)) == 1:
            return ""
        if run.samples > 1:
            raise CodeError("several samples of prompts of different lengths cannot be averaged in short code")
        if run.prompt not in self.masks:
            self.masks[run.prompt] = self.names.pick(f"{run.prompt}_real")
        return f"[{self.masks[run.prompt]}]"

    def piece(self, token: int) -> str:
        """The text of a token."""
        return str(self.plan.about.piece(token))

    def note(self, found: Any) -> str:
        """The line of the spec that something comes from."""
        span = getattr(found, "span", None)
        if span is None or span.line > len(self.source):
            return ""
        return comment(f"line {span.line}: {self.source[span.line - 1].strip()}")

    @contextmanager
    def about(self, found: Any) -> Iterator[None]:
        """Errors inside name the line that they are about."""
        try:
            yield
        except CodeError as error:
            note = self.note(found)
            if not note or str(error).startswith("line "):
                raise
            raise CodeError(f"{note}\n{error}") from None

    # The text ----------------------------------------------------------------------------------------------------------

    def text(self, spec: bool = True) -> str:
        """The whole program; with the spec at its head, numbered, unless said otherwise."""
        for statement in self.statements:
            if statement.verb in REFUSED:
                raise CodeError(f"{self.note(statement)}\n{statement.verb} is not written as code")
        body: list[str] = []
        for run in self.plan.runs:
            if self.wanted(run):
                body += ["", *self.section(run)]
        prompts = self.prompt_lines()
        masks = [line for prompt, name in self.masks.items() for line in self.mask_lines(prompt, name)]
        files = [f"{name} = load_file({quoted(path)})" for path, name in self.files.items()]
        values = [line for source, name in self.holes.items() if name != source for line in _hole(name, source)]
        tools = [line for lines in (*self.tools.values(), *self.helpers()) for line in ("", "", *lines)]
        functions = [line for lines, name in self.functions.items()
                     for line in ("", "", lines[0].format(name), *indented(lines[1:]))]
        return "\n".join([*self.header(spec), "", *sorted(self.imports, key=_import_order), *tools, *functions, "", "",
                          *values, *files, *prompts, *masks, "results = {}",
                          *(["saved = {}"] if any(run.keeps for run in self.plan.runs) else []), *body, ""])

    def header(self, spec: bool) -> list[str]:
        """Title, the spec, and what must be there."""
        given = [name for source, name in self.holes.items() if name == source]
        lines = [self.title, *(["", "The spec:"] if spec else [])]
        for n, line in enumerate(self.source if spec else (), 1):
            margin = line[:len(line) - len(line.lstrip())]
            lines.append(f"  {n:>3}  {margin}{comment(line, 110)}" if line.strip() else f"  {n:>3}")
        lines += ["", f"Given: {', '.join([self.needs, *given])}. Results: results[run][metric]."]
        return [f"# {line}".rstrip() for line in lines]

    @abstractmethod
    def wanted(self, run: RunPlan) -> bool:
        """Whether anybody will look at a run."""

    @abstractmethod
    def section(self, run: RunPlan) -> list[str]:
        """A run: its passes, its metrics."""

    @abstractmethod
    def prompt_lines(self) -> list[str]:
        """The prompts as variables."""

    def helpers(self) -> list[list[str]]:
        """Further functions that go before everything else, now that it is known what is used."""
        return []

    @abstractmethod
    def forward(self, run: RunPlan, found: list[Step]) -> list[str]:
        """One forward pass with these steps."""

    @abstractmethod
    def generation(self, run: RunPlan, found: list[Step], options: dict[str, Any]) -> list[str]:
        """Writing on with these steps; leaves the ids in the run's dictionary."""

    @abstractmethod
    def row_ids(self, run: RunPlan) -> str:
        """An expression for the token ids of every row."""

    def mask_lines(self, prompt: str, name: str) -> list[str]:
        """Which columns of a padded batch are tokens."""
        tokens = self.plan.prompts[prompt].tokens
        lengths = f"torch.tensor({list(tokens.lengths)})[:, None]"
        if tokens.padding_side == "left":
            return [f"{name} = torch.arange({tokens.width}) >= {tokens.width} - {lengths}  # not padding"]
        return [f"{name} = torch.arange({tokens.width}) < {lengths}  # not padding"]


REFUSED = ("attribute", "lens", "score")


def _statements(text: str) -> list[Any]:
    spec = parse(text)
    return [inner for s in spec.body for inner in (s.body if isinstance(s, ast.Run) else (s,))]


def _hole(name: str, source: str) -> list[str]:
    """An expression of the user's as a value; a comment at its end must not swallow the bracket."""
    return [f"{name} = ({source}\n)" if "#" in source else f"{name} = ({source})"]


def _import_order(line: str) -> tuple[int, str]:
    return line.startswith("from"), line


def _is_expression(source: str) -> bool:
    """Whether a text is one Python expression."""
    try:
        python.parse(source.strip(), mode="eval")
    except SyntaxError:
        return False
    return True
