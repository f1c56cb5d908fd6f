"""What both programs share: prompts, holes, metrics, one section for each run, and how they are put together.

    Plan ──▶ Program: header · imports · helpers · prompts · metrics · run after run ──▶ text
"""

from __future__ import annotations

import ast as python
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..compiler.plan import Keep, Plan, RunPlan, Spot
from ..runtime.write import settings
from ..sites import ORDER
from ..spec import ast
from ..spec.parser import parse
from .index import entries, index
from .loop import Loop
from .metrics import function
from .steps import Step, steps
from .text import CodeError, I, Names, Text, X, cat, comment, indented, plain, quoted, ranged
from .tools import TOOLS

if TYPE_CHECKING:
    from ..model.model import Model

FIXED = ("model", "hf", "tokenizer", "torch", "results", "saved", "product", "F", "SimpleNamespace", "range", "enumerate",
         "zip", "len", "list", "tuple", "i", "t", "x", "step", "ids", "logits", "rows", "handles", "now", "numbers", "kept",
         "keep", "run", "write", "padded", "attention", "inside", "served", "layer_of_module", "count_step", "before", "at",
         "reference", "other", "whole", "edit", "hook", "load_file", *TOOLS)


class Program(ABC):
    """One plan on its way to one text."""

    title: str
    needs: str

    def __init__(self, plan: Plan, model: Model) -> None:
        self.plan, self.model = plan, model
        self.source = plan.text.splitlines()
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

    def text(self) -> str:
        """The whole program."""
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
        values = [f"{name} = ({source})" for source, name in self.holes.items() if name != source]
        tools = [line for lines in (*self.tools.values(), *self.helpers()) for line in ("", "", *lines)]
        functions = [line for lines, name in self.functions.items()
                     for line in ("", "", lines[0].format(name), *indented(lines[1:]))]
        return "\n".join([*self.header(), "", *sorted(self.imports, key=_import_order), *tools, *functions, "", "",
                          *values, *files, *prompts, *masks, "results = {}",
                          *(["saved = {}"] if any(run.keeps for run in self.plan.runs) else []), *body, ""])

    def header(self) -> list[str]:
        """Title, the spec, and what must be there."""
        given = [name for source, name in self.holes.items() if name == source]
        lines = [self.title, "", "The spec:"]
        lines += [f"  {n:>3}  {line[:len(line) - len(line.lstrip())]}{comment(line, 110)}" if line.strip() else f"  {n:>3}" for n, line in enumerate(self.source, 1)]
        lines += ["", f"Given: {', '.join([self.needs, *given])}. Results: results[run][metric]."]
        return [f"# {line}".rstrip() for line in lines]

    @abstractmethod
    def prompt_lines(self) -> list[str]:
        """The prompts as variables."""

    def helpers(self) -> list[list[str]]:
        """Further functions that go before everything else, now that it is known what is used."""
        return []

    @abstractmethod
    def forward(self, run: RunPlan, loop: Loop, found: list[Step]) -> list[str]:
        """One forward pass with these steps."""

    @abstractmethod
    def generation(self, run: RunPlan, loop: Loop, phases: list[tuple[str, list[Step]]], options: dict[str, Any]) -> list[str]:
        """Writing on with these steps; leaves `ids`. A phase is a condition on the step, and what is done then."""

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

    # Runs --------------------------------------------------------------------------------------------------------------

    def wanted(self, run: RunPlan) -> bool:
        """Whether anybody will look at a run."""
        asked = any(r.metrics or r.keeps or r.writing for r in self.plan.runs)
        return bool(run.metrics or run.captures or run.keeps or run.writing or run.name in self.needed or not asked)

    def section(self, run: RunPlan) -> list[str]:
        """A run: its passes, its metrics."""
        about = f"the untouched run of {run.name}" if run.name in self.plan.prompts else (
            f"first half of {run.name.split('>')[0]}" if run.hidden else f"run {run.name} on {run.prompt}")
        lines = [f"# {comment(about, 80)} " + "-" * max(0, 95 - len(about))]
        loop = self.loop(run)
        acts, found = self.variables[run.name], []
        metrics, kept = self.metrics(run, loop), self.keeps(run)
        if run.metrics or run.captures or run.keeps or run.name in self.needed or not run.writing:
            found = self.forward(run, loop, [*steps(self, run, loop), *self.captures(run)])
        inside = [f"{acts} = {{}}", *found]
        if run.writing is not None:
            inside += self.written(run, loop)
        if run.metrics or run.writing:
            lines.append(f"results[{quoted(run.name)}] = {{}}")
        if not loop.swept:
            inside += [f"results[{quoted(run.name)}][{quoted(name)}] = {call}.mean().item()" for name, call in metrics]
            inside += [f"saved[{quoted(key)}] = {text}" for key, text in kept]
            if run.writing is not None:
                inside.append(f'results[{quoted(run.name)}]["ids"] = ids.tolist()')
            return [*lines, *inside]
        return [*lines, *self._swept(run, loop, inside, metrics, kept)]

    def _swept(self, run: RunPlan, loop: Loop, inside: list[str], metrics: list[tuple[str, str]],
               kept: list[tuple[str, str]]) -> list[str]:
        """A run's section where it is swept: a loop, and grids of what it gives."""
        acts = self.variables[run.name]
        before, after, shape = [], [], loop.shape
        if run.name in self.needed:
            before.append(f"{acts}_all = []")
            inside.append(f"{acts}_all.append({acts})")
        if metrics:
            before.append("numbers = {" + ", ".join(f"{quoted(name)}: []" for name, _ in metrics) + "}")
            inside += [f"numbers[{quoted(name)}].append({call}.mean().item())" for name, call in metrics]
            after += [f"results[{quoted(run.name)}][{quoted(name)}] = torch.tensor(numbers[{quoted(name)}]).reshape{shape}.tolist()"
                      if len(shape) > 1 else f"results[{quoted(run.name)}][{quoted(name)}] = numbers[{quoted(name)}]" for name, _ in metrics]
        if run.writing is not None:
            before.append(f'results[{quoted(run.name)}]["ids"] = []')
            inside.append(f'results[{quoted(run.name)}]["ids"].append(ids.tolist())')
        if kept:
            before.append("kept = {" + ", ".join(f"{quoted(key)}: []" for key, _ in kept) + "}")
            inside += [f"kept[{quoted(key)}].append({text})" for key, text in kept]
            after += [f"saved[{quoted(key)}] = torch.stack(kept[{quoted(key)}]).unflatten(0, {shape})" for key, _ in kept]
        head = loop.head()
        if len(shape) > 1:
            self.imports.add("from itertools import product")
        return [*before, *head, *indented(inside), *after]

    def loop(self, run: RunPlan) -> Loop:
        """The points of a run; the first half of path patching has those of the run that it serves."""
        number = [cell.index for cell in run.cells]
        if not run.hidden:
            return Loop(run.axes, number, self.names)
        for user in self.plan.runs:
            asked = [[edit.option("cell") for edit in cell.edits if getattr(edit.value, "run", None) == run.name]
                     for cell in user.cells]
            if user.axes and asked == [[n] for n in range(len(run.cells))]:
                return Loop(user.axes, [cell.index for cell in user.cells], self.names)
        return Loop((), number, self.names)

    def captures(self, run: RunPlan) -> list[Step]:
        """What a run leaves: sites that others ask for, and its logits."""
        acts, by_site = self.variables[run.name], {}
        for spot in run.captures:
            by_site.setdefault(spot.site, []).append(spot.layer)
        if not run.hidden and self.plan.about.missing("logits") is None:
            by_site.setdefault("logits", [None])
        out = []
        for site in sorted(by_site, key=ORDER.__getitem__):
            layers = sorted(layer for layer in by_site[site] if layer is not None)
            if not layers:
                out.append(Step(site, None, None, [f'{acts}["{site}"] = {X}']))
                continue
            text = str(layers[0]) if len(layers) == 1 else ranged(layers)
            out.append(Step(site, text, tuple(layers), [f'{acts}["{site}", {I}] = {X}'], many=len(layers) > 1))
        return out

    def metrics(self, run: RunPlan, loop: Loop) -> list[tuple[str, str]]:
        """Every metric of a run, as a call; its function is noted."""
        out = []
        for metric in run.metrics:
            made, lines = function(self, run, metric)
            body = (f"def {{0}}({', '.join(made.arguments)}):", *lines)
            if body not in self.functions:
                self.functions[body] = self.names.pick(metric.name)
            others = [self._reference(run, loop, ref) for ref in made.refs]
            rows = [self.row_ids(run)] if made.rows else []
            own = f'{self.variables[run.name]}["logits"]'
            out.append((metric.name, f"{self.functions[body]}({', '.join([own, *rows, *others])})"))
        return out

    def _reference(self, run: RunPlan, loop: Loop, ref: str) -> str:
        source, name = self.plan.run(ref), self.variables[ref]
        if len(source.cells) == 1 or ref == run.name:
            return f'{name}["logits"]'
        if len(source.cells) != len(run.cells):
            return f'{name}_all[0]["logits"]'
        loop.counted = True
        return f'{name}_all[{loop.cell}]["logits"]'

    # Saves -------------------------------------------------------------------------------------------------------------

    def keeps(self, run: RunPlan) -> list[tuple[str, str]]:
        """What `save` lines keep: key and expression."""
        if run.keeps and run.writing is not None:
            raise CodeError("save under generate is not written as code")
        return [(f"{run.name}.{key}", text) for keep in run.keeps for key, text in self._keep(run, keep)]

    def _keep(self, run: RunPlan, keep: Keep) -> list[tuple[str, str]]:
        cut = [(spot, self._cut(run, spot, keep)) for spot in keep.spots]
        if keep.name is None:
            return [(str(spot), text) for spot, text in cut]
        if len(cut) == 1:
            return [(keep.name, cut[0][1])]
        if len({(spot.axes, spot.heads and len(spot.heads), spot.units and len(spot.units)) for spot, _ in cut}) > 1:
            return [(f"{keep.name}.{spot}", text) for spot, text in cut]
        layers = [spot.layer for spot, _ in cut]
        if len({replace(spot, layer=0) for spot, _ in cut}) == 1 and None not in layers:
            text = self._cut(run, keep.spots[0], keep).replace(f", {layers[0]}]", ", i]", 1)
            return [(keep.name, f"torch.stack([{text} for i in {ranged([n for n in layers if n is not None])}])")]
        return [(keep.name, f"torch.stack([{', '.join(text for _, text in cut)}])")]

    def _cut(self, run: RunPlan, spot: Spot, keep: Keep) -> str:
        if spot.sae is not None:
            raise CodeError("features of a dictionary are not written as code")
        tokens = self.plan.prompts[run.prompt].tokens
        found = entries(tokens, keep.reach.at, len(tokens) * run.samples)
        if found.common is None and not found.every:
            raise CodeError("positions that differ from example to example are not saved in short code")
        key = f'"{spot.site}"' if spot.layer is None else f'"{spot.site}", {spot.layer}'
        narrow = not found.every or spot.heads is not None or spot.units is not None
        brackets = plain(index(found, spot, self.sizes, keep=True)) if narrow else ""
        samples = f".unflatten(0, ({run.samples}, -1))" if run.samples > 1 else ""
        return f"{self.variables[run.name]}[{key}]{brackets}{samples}"

    # Writing on --------------------------------------------------------------------------------------------------------

    def written(self, run: RunPlan, loop: Loop) -> list[str]:
        """Generation: what is done at which step, and the arguments of `generate`."""
        writing = run.writing
        assert writing is not None
        if writing.option("stop"):
            raise CodeError("generate with stop= is not written as code")
        width = int(self.plan.prompts[run.prompt].tokens.width)
        samples = int(writing.option("samples", 1))
        wide = replace(run, samples=run.samples * samples)
        options = settings(self.model, writing, width)
        options = {"max_new_tokens": writing.count, **{k: v for k, v in options.items() if k != "max_length"}}
        seed = self.plan.seed if writing.option("seed") is None else int(writing.option("seed"))
        lines = [f"torch.manual_seed({seed})"] if options["do_sample"] else []
        return [*lines, *self.generation(wide, loop, self._phases(wide, loop, writing.count), options)]

    def _phases(self, run: RunPlan, loop: Loop, count: int) -> list[tuple[str, list[Step]]]:
        """Steps of the generation that do alike, as a condition and what is done."""
        chosen = any(edit.reach.steps is not None for cell in run.cells for edit in cell.edits)
        groups: list[tuple[list[int], list[Step]]] = []
        for number in range(count if chosen else min(count, 2)):
            made = steps(self, run, loop, number)
            same = next((group for group in groups if group[1] == made), None)
            if same is None:
                groups.append(([number], made))
            else:
                same[0].append(number)
        if len(groups) == 1:
            return [("", groups[0][1])]
        last = count if chosen else min(count, 2)
        return [(_steps(numbers, last), made) for numbers, made in groups if made]


def _steps(numbers: list[int], count: int) -> str:
    if numbers == [0]:
        return "{0} == 0"
    if numbers == list(range(1, count)):
        return "{0} > 0"
    return f"{{0}} in {ranged(numbers)}"


REFUSED = ("attribute", "lens", "score")


def _statements(text: str) -> list[Any]:
    spec = parse(text)
    return [inner for s in spec.body for inner in (s.body if isinstance(s, ast.Run) else (s,))]


def _import_order(line: str) -> tuple[int, str]:
    return line.startswith("from"), line


def _is_expression(source: str) -> bool:
    """Whether a text is one Python expression."""
    try:
        python.parse(source.strip(), mode="eval")
    except SyntaxError:
        return False
    return True
