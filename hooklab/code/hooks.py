"""The second program: plain PyTorch hooks on the Hugging Face module, and nothing else to import.

Each site becomes a function that registers one hook (see `native`); each edit a function of the site's tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..compiler.plan.plan import Plan
from ..compiler.plan.runs import RunPlan
from ..sites import ORDER
from ..spec import ast
from .native import ATTENTION_IMPORTS, INSIDE, attention_lines, hook_lines
from .sections import Program
from .steps import Step
from .text import CodeError, I, X, assigned, indented, noted, quoted

if TYPE_CHECKING:
    from ..model.model import Model

NOW = 'now["step"]'

PASS = '''\
def run(rows, handles):
    """{given} of one forward pass with hooks in place; whatever happens, they are taken out again."""
    {before}try:
        with torch.no_grad():
            return hf({inputs}){end}
    finally:{after}
        for handle in handles:
            handle.remove()'''

COUNT = '''\
now = {"step": -1}  # 0 is the pass over the prompt; each later one is a single token


def count_step(module, args):
    now["step"] += 1'''

WRITE = '''\
def write(rows, handles, **options):
    """Token ids of prompts and what is written on, with hooks in place at every step."""
    {before}try:
        with torch.no_grad():
            ids = torch.tensor(rows, device=hf.device)
            return hf.generate({inputs}, **options)
    finally:{after}
        for handle in handles:
            handle.remove()'''

AROUND = ('before = hf.config._attn_implementation\n    hf.set_attn_implementation("written_out")\n    ',
          "\n        hf.set_attn_implementation(before)")

PAD = '''\
def padded(rows):
    """Rows of different lengths as one batch, padded on the {side}."""
    width = max(map(len, rows))
    {ids}
    {mask}
    return {{"input_ids": ids.to(hf.device), "attention_mask": mask.to(hf.device)}}'''

KEEP = '''\
def keep(acts, site):
    """An edit that changes nothing and remembers what it saw."""
    def look(x, i):
        acts[site if i is None else (site, i)] = x.clone()
    return look'''


class Hooks(Program):
    """The plan as plain hooks."""

    title = "Plain PyTorch: the same with hooks on the Hugging Face module, without hooklab or nnsight"
    needs = "hf (the module), tokenizer"

    def __init__(self, plan: Plan, model: Model) -> None:
        super().__init__(plan, model)
        self.hooked: dict[str, list[str]] = {}
        self.used: set[str] = set()
        self.counting = False
        self.ragged = any(len(set(prompt.tokens.lengths)) > 1 for prompt in plan.prompts.values())

    def helpers(self) -> list[list[str]]:
        """The functions that hook sites, and those that run the model."""
        layout = self.model.layout
        opened = any(site in INSIDE for site in self.hooked)
        if opened:
            self.imports.update(ATTENTION_IMPORTS)
        words = dict.fromkeys(("before", "after"), "")
        if opened:
            words = {"before": AROUND[0], "after": AROUND[1]}
        out = [attention_lines(layout)] if opened else []
        out += [self.hooked[site] for site in sorted(self.hooked, key=ORDER.__getitem__)]
        plain = "torch.tensor(rows, device=hf.device)"
        if "keep" in self.used:
            out.append(KEEP.splitlines())
        if self.ragged:
            out.append(self._padded())
        if "run" in self.used:
            given, end = ("Logits", ".logits") if self.model.layout.has_head else ("The output", "")
            inputs = "**padded(rows)" if self.ragged else plain
            out.append(PASS.format(inputs=inputs, given=given, end=end, **words).splitlines())
        if "write" in self.used:
            if self.counting:
                out.append(COUNT.splitlines())
            out.append(self._write(words))
        return out

    def _write(self, words: dict[str, str]) -> list[str]:
        inputs = "**inputs" if self.ragged else "ids, attention_mask=torch.ones_like(ids)"
        lines = WRITE.format(inputs=inputs, **words).splitlines()
        if self.ragged:
            inputs = 'inputs = {name: value for name, value in padded(rows).items() if name != "position_ids"}'
            lines = [line.replace("ids = torch.tensor(rows, device=hf.device)", inputs) for line in lines]
        if self.counting:
            lines[2:2] = ['    now["step"] = -1', "    handles = [hf.register_forward_pre_hook(count_step), *handles]"]
        return lines

    def _padded(self) -> list[str]:
        side = self.model.reader.side
        pad = self.model.reader._pad_id()
        fill, ones, gap = f"[{pad}] * (width - len(row))", "[1] * len(row)", "[0] * (width - len(row))"
        orders = (f"{fill} + list(row)", f"{gap} + {ones}") if side == "left" else (f"list(row) + {fill}", f"{ones} + {gap}")
        lines = PAD.format(side=side, ids=f"ids = torch.tensor([{orders[0]} for row in rows])",
                           mask=f"mask = torch.tensor([{orders[1]} for row in rows])").splitlines()
        if side == "left" and self.model.reader.takes_positions:
            lines[-1:] = ["    positions = (mask.cumsum(-1) - 1).clamp(min=0)  # counted from each row's first token",
                          "    inputs = {\"input_ids\": ids, \"attention_mask\": mask, \"position_ids\": positions}",
                          "    return {name: value.to(hf.device) for name, value in inputs.items()}"]
        return lines

    # Prompts

    def prompt_lines(self) -> list[str]:
        """Token ids: made by the tokenizer where it makes just these, written out otherwise."""
        given = {s.name or "main": s for s in self.statements if isinstance(s, ast.Prompt)}
        return [line for prompt, name in self.prompts.items() for line in self._prompt(name, prompt, given.get(prompt))]

    def _prompt(self, name: str, prompt: str, statement: Any) -> list[str]:
        found = self.plan.prompts[prompt]
        if found.extras:
            raise CodeError(f"{self.note(statement)}\na prompt with more than tokens is not written as code")
        ids = [list(row) for row in found.tokens.ids]
        texts, source = self._texts(prompt, statement)
        if texts is not None and self.model.tokenizer is not None:
            if [list(row) for row in self.model.tokenizer(texts)["input_ids"]] == ids:
                return assigned(name, source, "tokenizer(", ')["input_ids"]')
        return assigned(name, [repr(row) for row in ids])

    def _texts(self, prompt: str, statement: Any) -> tuple[list[str] | None, str | list[str]]:
        """A prompt as a list of texts, and how to write it; None where it is no text."""
        if statement is not None and statement.opts:
            return None, ""
        value = statement.value if statement is not None else None
        if isinstance(value, ast.Str):
            return [value.value], [quoted(value.value)]
        if isinstance(value, ast.List):
            texts = [str(getattr(item, "value", "")) for item in value.items]
            return texts, list(map(quoted, texts))
        hole = prompt[1:-1] if prompt.startswith("{") else value.source if isinstance(value, ast.Py) else None
        if hole is not None:
            found = self.plan.values[hole]
            if isinstance(found, str):
                return [found], [self.hole(hole)]
            if isinstance(found, list | tuple) and all(isinstance(item, str) for item in found):
                return list(found), f"list({self.hole(hole)})"
        return None, ""

    def row_ids(self, run: RunPlan) -> str:
        """Token ids of every row."""
        name = self.prompts[run.prompt]
        return name if run.samples == 1 else f"{name} * {run.samples}"

    # Passes

    def forward(self, run: RunPlan, found: list[Step]) -> list[str]:
        """Edits as functions, hooks, and the pass."""
        self.used.add("run")
        lines, handles = self._hooked(run, found)
        acts = self.variables[run.name]
        result = f"run({self.row_ids(run)}, {handles})"
        hidden = run.hidden or self.plan.about.missing("logits") is not None
        return [*lines, result if hidden else f'{acts}["logits"] = {result}']

    def generation(self, run: RunPlan, found: list[Step], options: dict[str, Any]) -> list[str]:
        """Hooks that stay in place for every pass."""
        self.used.add("write")
        self.counting = self.counting or any(step.when for step in found)
        lines, handles = self._hooked(run, found)
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return [*lines, f'{self.variables[run.name]}["ids"] = write({self.row_ids(run)}, {handles}, {given})']

    def _hooked(self, run: RunPlan, found: list[Step]) -> tuple[list[str], str]:
        """Lines that define edits and register them, and the list of handles."""
        found = sorted((step for step in found if not self._result(step)), key=lambda step: step.rank)
        if not found:
            return [], "[]"
        defined: list[str] = []
        listed: list[str] = []
        added: list[str] = []
        names: set[str] = set()
        for step in found:
            self._check(run, step)
            edit, lines = self._edit(run, step, names)
            defined += lines
            handle = f"hook_{step.site}({'i' if step.many else step.layers}, {edit})"
            handle = f"*[{handle} for i in {step.layers}]" if step.many else handle
            if step.only or added:  # the order of hooks on one module is the order of its edits
                added += [f"if {step.only}:", f"    handles += [{handle}]"] if step.only else [f"handles += [{handle}]"]
            else:
                listed.append(handle)
        one = f"handles = {listed[0][1:]}" if len(listed) == 1 and found[0].many else f"handles = [{', '.join(listed)}]"
        many = [one] if len(listed) < 2 else ["handles = [", *indented(f"{handle}," for handle in listed), "]"]
        defined = [line for n, line in enumerate(defined) if line or defined[n - 1:n] != [""]]
        return [*defined, *many, *added], "handles"

    def _result(self, step: Step) -> bool:
        """Whether a step only reads logits, which the pass returns anyway."""
        return step.site == "logits" and step.verb == "keep"

    def _check(self, run: RunPlan, step: Step) -> None:
        if step.site not in self.hooked:
            try:
                self.hooked[step.site] = hook_lines(self.model.layout, step.site)
            except CodeError as error:
                raise CodeError(f"{step.note}\n{error}" if step.note else str(error)) from None
        rows = len(self.plan.prompts[run.prompt].tokens) * run.samples
        if step.site == "pos_embed" and rows > 1:
            raise CodeError(f"{step.note}\npos_embed is computed once for all examples, which a hook sees as one row")

    def _edit(self, run: RunPlan, step: Step, names: set[str]) -> tuple[str, list[str]]:
        """The edit's name, and its definition; reading needs none."""
        if step.verb == "keep":
            self.used.add("keep")
            return f'keep({self.variables[run.name]}, "{step.site}")', []
        base = name = f"{step.verb}_{step.site}"
        count = 2
        while name in names or name in self.names.taken:
            name, count = f"{base}_{count}", count + 1
        names.add(name)
        lines = [line.replace(X, "x").replace(I, "i") for line in step.lines]
        lines = noted(lines, step.note)
        if step.when:
            lines = [f"if {step.when.format(NOW)}:", *indented(lines)]
        return name, ["", f"def {name}(x, i):", *indented(lines), ""]
