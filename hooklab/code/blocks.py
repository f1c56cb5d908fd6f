"""The first program: nnsight's `with model.trace(…):` blocks, in the words of hooklab's sites.

Inside a block values are asked for in the order of the forward pass, so steps are sorted by layer and site; where that
order depends on the point of a sweep, one walk over the layers does each thing when the model comes by.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..compiler.plan.runs import RunPlan
from ..spec import ast
from .sections import Program
from .steps import Step
from .text import CodeError, I, X, assigned, indented, noted, quoted, ranged

UNROLLED = 6
"""As many accesses to single layers are written one by one; more become a walk over the layers."""


class Blocks(Program):
    """The plan as nnsight blocks."""

    title = "nnsight: what the spec does, written as trace blocks"
    needs = "model (hooklab.load(...))"

    # Prompts

    def prompt_lines(self) -> list[str]:
        """Text where the spec has text, Python's own value, and token ids for all else."""
        given = {s.name or "main": s for s in self.statements if isinstance(s, ast.Prompt)}
        made = [assigned(name, self._prompt(prompt, given.get(prompt))) for prompt, name in self.prompts.items()]
        return [line for lines in made for line in lines]

    def _prompt(self, prompt: str, statement: Any) -> str | list[str]:
        """A prompt as an expression, or as the items of a list."""
        found = self.plan.prompts[prompt]
        if prompt.startswith("{"):
            return self.hole(prompt[1:-1])
        if found.extras:
            raise CodeError(f"{self.note(statement)}\na prompt with more than tokens is not written as code")
        if not statement.opts:
            if isinstance(statement.value, ast.Str):
                return quoted(statement.value.value)
            if isinstance(statement.value, ast.List):
                return [quoted(str(getattr(item, "value", ""))) for item in statement.value.items]
            if isinstance(statement.value, ast.Py):
                return self.hole(statement.value.source)
        return [repr(list(ids)) for ids in found.tokens.ids]

    def _rows(self, run: RunPlan) -> str:
        """The prompt, once for every sample."""
        name = self.prompts[run.prompt]
        if run.samples == 1:
            return name
        tokens = self.plan.prompts[run.prompt].tokens
        listed = self._prompt_is_list(run.prompt)
        if len(tokens) > 1 and not listed:
            raise CodeError("several samples need a prompt that is text, or a list")
        return f"{name} * {run.samples}" if listed else f"[{name}] * {run.samples}"

    def _prompt_is_list(self, prompt: str) -> bool:
        for statement in self.statements:
            if isinstance(statement, ast.Prompt) and (statement.name or "main") == prompt:
                if isinstance(statement.value, ast.Py):
                    value = self.plan.values[statement.value.source]
                    return isinstance(value, list | tuple) and bool(value) and not isinstance(value[0], int)
                return not isinstance(statement.value, ast.Str)
        return True

    def row_ids(self, run: RunPlan) -> str:
        """Token ids, as the model reads the prompt."""
        return f"model.tokens({self._rows(run)}).ids"

    # Passes

    def forward(self, run: RunPlan, found: list[Step]) -> list[str]:
        """A block."""
        return [f"with model.trace({self._rows(run)}):", *indented(self.arranged(found))]

    def generation(self, run: RunPlan, found: list[Step], options: dict[str, Any]) -> list[str]:
        """A block that writes on. Its ids are read in an invoke of their own, which outlives an early end."""
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        acts = self.variables[run.name]
        result = f'{acts}["ids"] = t.result'
        if all(step.when == "{0} == 0" for step in found):
            body = self.arranged([replace(step, when="") for step in found])
            return [f"with model.generate({self._rows(run)}, {given}) as t:", *indented([*body, result])]
        return [f"with model.generate({given}) as t:",
                f"    with t.invoke({self._rows(run)}):",
                f"        for step in t.iter[:{options['max_new_tokens']}]:",
                *indented(self.arranged(found), 3),
                "    with t.invoke():",
                f"        {result}"]

    # Order

    def arranged(self, found: list[Step]) -> list[str]:
        """Steps in the order of the forward pass."""
        whole = sorted((s for s in found if s.layers is None), key=lambda s: s.rank)
        early = [line for s in whole if s.early for line in self._one(s, f"model.{s.site}", "")]
        late = [line for s in whole if not s.early for line in self._one(s, f"model.{s.site}", "")]
        return _merged([*early, *self._layers([s for s in found if s.layers is not None]), *late])

    def _layers(self, found: list[Step]) -> list[str]:
        if not found:
            return []
        ordered = sorted(found, key=lambda s: s.rank)
        if len({(s.layers, s.many) for s in found}) == 1:
            layers = str(found[0].layers)
            if not found[0].many:
                return [line for s in ordered for line in self._at(s, layers)]
            return [f"for i in {layers}:", *indented(line for s in ordered for line in self._at(s, "i"))]
        known = [s.numbers for s in found if s.numbers is not None]
        if len(known) == len(found) and sum(map(len, known)) <= UNROLLED:
            pairs = sorted(((layer, s.rank, n) for n, s in enumerate(found) for layer in s.numbers or ()))
            return [line for layer, _, n in pairs for line in self._at(found[n], str(layer))]
        return self._walk(ordered, known if len(known) == len(found) else None)

    def _walk(self, ordered: list[Step], known: list[tuple[int, ...]] | None) -> list[str]:
        """One pass over the layers."""
        every = range(self.model.facts.n_layers)
        if known is not None:
            every = range(min(map(min, known)), max(map(max, known)) + 1)
        lines = [f"for i in {ranged(every)}:"]
        for step in ordered:
            if step.numbers is not None and sorted(step.numbers) == list(every):
                when = ""
            elif step.many:
                when = f"i in {step.layers}"
            else:
                when = f"i == {step.layers}"
            lines += indented(_if(when, self._at(step, "i")))
        return lines

    def _at(self, step: Step, layer: str) -> list[str]:
        return self._one(step, f"model.layers[{layer}].{step.site}", layer)

    def _one(self, step: Step, place: str, layer: str) -> list[str]:
        """The lines of one step."""
        lines = []
        name = place
        if sum(line.count(X) for line in step.lines) > 1:
            lines, name = [f"x = {place}"], "x"
        lines += [line.replace(X, name).replace(I, layer) for line in step.lines]
        conditions = [condition for condition in (step.when.format("step"), step.only) if condition]
        return _if(" and ".join(conditions), noted(lines, step.note))


def _if(condition: str, lines: list[str]) -> list[str]:
    return [f"if {condition}:", *indented(lines)] if condition else lines


def _merged(lines: list[str]) -> list[str]:
    """Neighbours under the same `if` share it."""
    out: list[str] = []
    opened: list[str] = []
    for line in lines:
        depth = len(line) - len(line.lstrip())
        while opened and len(opened[-1]) - len(opened[-1].lstrip()) >= depth and opened[-1] != line:
            opened.pop()
        if opened and opened[-1] == line:
            continue
        if line.lstrip().startswith("if "):
            opened.append(line)
        out.append(line)
    return out
