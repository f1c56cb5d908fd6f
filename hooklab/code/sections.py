"""One section of a program for each run: its passes, its metrics, what it saves and writes; swept runs as loops."""

from __future__ import annotations

from dataclasses import replace

from ..compiler.plan.readings import Keep
from ..compiler.plan.runs import RunPlan
from ..compiler.plan.spots import Spot
from ..runtime.write import settings
from ..sites import ORDER
from .index import entries, index
from .loop import Loop
from .metrics import function
from .program import Base
from .steps import Step, passes, steps
from .text import CodeError, I, X, comment, indented, plain, quoted, ranged


class Program(Base):
    """A program with a section for each run."""

    # Runs --------------------------------------------------------------------------------------------------------------

    def wanted(self, run: RunPlan) -> bool:
        """Whether anybody will look at a run."""
        asked = any(r.metrics or r.keeps or r.writing for r in self.plan.runs)
        return bool(run.metrics or run.captures or run.keeps or run.writing or run.name in self.needed or not asked)

    def section(self, run: RunPlan) -> list[str]:
        """A run: its passes, its metrics."""
        about = f"run {run.name} on {run.prompt}"
        if run.name in self.plan.prompts:
            about = f"the untouched run of {run.name}"
        elif run.hidden:
            about = f"first half of {run.name.split('>')[0]}: the sender has its new value, all other heads are held"
        lines = [f"# {comment(about, 95)} " + "-" * max(0, 95 - len(about))]
        loop = self.loop(run)
        acts, found = self.variables[run.name], []
        metrics, kept = self.metrics(run, loop), self.keeps(run)
        if run.metrics or run.captures or run.keeps or run.name in self.needed or not run.writing:
            found = self.forward(run, [*steps(self, run, loop), *self.captures(run)])
        inside = [f"{acts} = {{}}", *found]
        if run.writing is not None:
            inside += self.written(run, loop)
        if run.metrics or run.writing:
            lines.append(f"results[{quoted(run.name)}] = {{}}")
        if not loop.swept:
            inside += [f"results[{quoted(run.name)}][{quoted(name)}] = {call}.mean().item()" for name, call in metrics]
            inside += [f"saved[{quoted(key)}] = {text}" for key, text in kept]
            if run.writing is not None:
                inside.append(f'results[{quoted(run.name)}]["ids"] = {acts}["ids"].tolist()')
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
            grid = f".reshape{shape}.tolist()"
            for name in (quoted(name) for name, _ in metrics):
                made = f"torch.tensor(numbers[{name}]){grid}" if len(shape) > 1 else f"numbers[{name}]"
                after.append(f"results[{quoted(run.name)}][{name}] = {made}")
        if run.writing is not None:
            before.append(f'results[{quoted(run.name)}]["ids"] = []')
            inside.append(f'results[{quoted(run.name)}]["ids"].append({acts}["ids"].tolist())')
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
        acts = self.variables[run.name]
        by_site: dict[str, list[int | None]] = {}
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
        """Generation: what is done in which pass, and the arguments of `generate`."""
        writing = run.writing
        assert writing is not None
        if writing.option("stop"):
            raise CodeError("generate with stop= is not written as code")
        width = int(self.plan.prompts[run.prompt].tokens.width)
        wide = replace(run, samples=run.samples * int(writing.option("samples", 1)))
        options = settings(self.model, writing, width)
        options = {"max_new_tokens": writing.count, **{k: v for k, v in options.items() if k != "max_length"}}
        seed = self.plan.seed if writing.option("seed") is None else int(writing.option("seed"))
        lines = [f"torch.manual_seed({seed})"] if options["do_sample"] else []
        return [*lines, *self.generation(wide, passes(self, wide, loop, writing.count), options)]
