"""One edit on the rows of a batch: the selection, the value laid out over it, the operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import edits
from ..compiler.plan.edits import Edit
from ..compiler.plan.reaches import Spread
from ..compiler.plan.spots import Spot
from ..compiler.plan.values import FromFile, Given, Same, at_spot
from ..sites import SITES
from .evaluate import Table, Valued, columns, evaluate, laid_out, part, real
from .spliced import Spliced
from .store import Block, Store, standing_at, trouble

Where = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(rows, columns) of entries -> their row and column in a tensor, and whether they are there at all."""


class Task:
    """An edit of one spot, for all the blocks of a batch that share it."""

    def __init__(self, store: Store, edit: Edit, spot: Spot) -> None:
        self.store, self.edit, self.spot = store, edit, spot
        self.blocks: list[Block] = []
        self.where: Where | None = None
        self.spliced: Spliced | None = None
        self._owners: dict[int, Block] = {}

    @property
    def tokens(self) -> Any:
        """Tokens of the prompt that is run."""
        return self.store.plan.prompts[self.blocks[0].run.prompt].tokens

    def __call__(self, value: Tensor, step: int = 0, offset: int = 0, where: Where | None = None) -> None:
        """Change `value` in place.

        Args:
            value: The site's tensor.
            step: Step of a generation.
            offset: Columns of the prompt that came before the first column of a later step.
            where: Where rows and columns of the blocks lie in `value`, where that is no batch of them.
        """
        self.where = where
        if not self.edit.reach.holds(step):
            return
        with standing_at(self.edit.span, self.store.plan.text):
            try:
                if self.edit.verb == "cut":
                    self._cut(value, step, offset)
                else:
                    self._change(value, step)
            except edits.WriteError as error:
                raise trouble(str(error)) from None

    # Rows and columns

    def _pairs(self, value: Tensor, step: int) -> tuple[Tensor, Tensor, int]:
        """Row and column of every entry, and how many positions each row has (0 when they differ)."""
        tokens, at = self.tokens, self.edit.reach.at
        rows, cols, counts = [], [], set()
        for block in self.blocks:
            for row in block.rows:
                found = [0] if step else columns(tokens, at, (row - block.start) % block.size)
                counts.add(len(found))
                rows += [row] * len(found)
                cols += found
        return torch.tensor(rows, dtype=torch.long), torch.tensor(cols, dtype=torch.long), (
            counts.pop() if len(counts) == 1 else 0)

    def _change(self, value: Tensor, step: int) -> None:
        rows, cols, count = self._pairs(value, step)
        if not len(rows):
            return
        row, column, there = (rows, cols, None) if self.where is None else self.where(rows, cols)
        chosen = self._selection(row, column)
        x = chosen.take(value)
        if self.spliced is not None:
            new = self._held(self.spliced, x, row, column, rows, count, step)
        else:
            change = self._new if self.spot.sae is None else self._features
            new = change(x, rows, count, step)
        if self.spot.site == "scores" and not isinstance(self.edit.value, Same):
            new = torch.where(x <= edits.lowest(x) / 2, x, new.to(x.dtype))  # what no query may see stays unseen
        if there is not None and not bool(there.all()):
            chosen, new = self._selection(row[there], column[there]), new[there.to(new.device)]
        chosen.put(value, new)

    def _selection(self, rows: Tensor, columns: Tensor) -> edits.Selection:
        spot = self.spot
        return edits.Selection(SITES[spot.written.site].axes, rows, columns, spot.heads, None if spot.sae else spot.units)

    def _features(self, x: Tensor, rows: Tensor, count: int, step: int) -> Tensor:
        """The site with some features changed; what the dictionary does not explain stays."""
        sae = self.store.saes[str(self.spot.sae)]
        before = sae.encode(x)
        after = before.clone()
        picked = list(self.spot.features) if self.spot.features is not None else slice(None)
        after[..., picked] = self._new(before[..., picked], rows, count, step).to(after.dtype)
        return sae.changed(x, before, after)

    def _held(self, spliced: Spliced, x: Tensor, at: Tensor, column: Tensor, rows: Tensor, count: int, step: int) -> Tensor:
        """The site that features are written to, with some of those that the pass holds changed."""
        at, column = at.to(x.device), column.to(x.device)
        if self.edit.verb == "splice":
            return spliced.stands_for(x, at, column)
        before = spliced.at(at, column)
        after = before.clone()
        picked = list(self.spot.features) if self.spot.features is not None else slice(None)
        after[..., picked] = self._new(before[..., picked], rows, count, step).to(after.dtype)
        return spliced.moved(x, at, column, after)

    # Values

    def _new(self, x: Tensor, rows: Tensor, count: int, step: int) -> Tensor:
        edit = self.edit
        if edit.verb == "zero":
            return edits.zero(x)
        if edit.verb == "clamp":
            return edits.clamp(x, edit.option("min"), edit.option("max"))
        if edit.verb in ("patch", "mean", "resample"):
            return self._source(x, rows, count, step)
        v = evaluate(self.store, at_spot(edit.value, self.spot), self.blocks[0].run, self.blocks[0].number)
        if isinstance(v, Table):
            raise trouble("a table of tensors can only be patched from", edit.span, text=self.store.plan.text)
        if edit.verb == "noise":
            return x + self._noise(x, step) * self._laid(v, x, rows, count)
        return edits.OPS[edit.verb](x, self._laid(v, x, rows, count))

    def _laid(self, v: Valued, x: Tensor, rows: Tensor, count: int) -> Tensor:
        """A value laid out over the selected entries [entry …]."""
        t = v.tensor.to(device=x.device, dtype=torch.promote_types(x.dtype, v.tensor.dtype))
        rest = x.shape[1:]
        extra = t.ndim - v.lead - len(rest)
        lead = v.lead
        while extra > 0 and lead and t.shape[lead] == 1:  # one head's write, added to a stream that has no heads
            t, extra = t.squeeze(lead), extra - 1
        if not lead and extra == 0 and 1 < count == t.shape[0] and rest[0] == 1 and _from_python(self.edit.value):
            t, extra = t.unsqueeze(1), 1  # for each position of one head, without an axis for that head
        if not lead and extra in (1, 2) and _from_python(self.edit.value):  # for each position, or example and position
            t, lead, extra = (t[None] if extra == 1 else t), 2, 0
        if extra > 0:
            raise self._shape(t, rest)
        if lead:
            t = self._by_row(t, x, rows, count)
            t = t.reshape(t.shape[0], *[1] * (len(rest) - (t.ndim - 1)), *t.shape[1:])
        try:
            return t.expand(x.shape)
        except RuntimeError:
            raise self._shape(t, rest) from None

    def _by_row(self, t: Tensor, x: Tensor, rows: Tensor, count: int) -> Tensor:
        """[row pos …] of a source, chosen for every entry."""
        entries = len(x)
        example = torch.tensor([self.source_row(int(r), t.shape[0]) for r in rows.tolist()], device=t.device)
        if t.shape[1] == 1:
            return t[example, 0]
        if not count or t.shape[1] != count:
            raise trouble(f"the value has {t.shape[1]} positions, and the place {count or 'differing numbers of them'}",
                          self.edit.span, "name as many positions, or average: mean(…)", self.store.plan.text)
        return t[example, torch.arange(entries, device=t.device) % count]

    def source_row(self, row: int, size: int) -> int:
        """The row of a source with `size` rows that answers to a row of the batch."""
        if not self._owners:
            self._owners = {r: block for block in self.blocks for r in block.rows}
        block = self._owners[row]
        inside = row - block.start
        if size == 1:
            return 0
        if size == block.size * block.run.samples:
            return inside
        if size == block.size:
            return inside % block.size
        if size == block.run.samples:
            return inside // block.size
        raise trouble(f"the value has {size} examples, and {block.run.name} has {block.size}", self.edit.span,
                      "give one for all, or one for each", self.store.plan.text)

    def _shape(self, t: Tensor, rest: torch.Size) -> Exception:
        axes = [a for a in self.spot.axes if a not in ("batch", "pos", "query_pos")]
        wanted = ", ".join(f"{axis} {size}" for axis, size in zip(axes, rest, strict=False))
        return trouble(f"{self.spot} takes a value of shape [{wanted}], and this one has {list(t.shape)}", self.edit.span,
                       text=self.store.plan.text)

    def _noise(self, x: Tensor, step: int) -> Tensor:
        """The same draws for every cell, whatever else is in the batch; others at each step of a generation."""
        entries = len(x) // len(self.blocks)  # blocks of one task have equally many rows
        seed, line = self.edit.draw
        order = self.spot.order
        known = (seed, line, order[0] % 4096, order[1], *([step] if step else []))
        made = torch.Generator().manual_seed(hash(known) % (1 << 63))
        drawn = torch.randn((entries, *x.shape[1:]), generator=made)
        return drawn.repeat(len(self.blocks), *[1] * (x.ndim - 1)).to(device=x.device, dtype=x.dtype)

    # Sources

    def _source(self, x: Tensor, rows: Tensor, count: int, step: int) -> Tensor:
        """Another run's value, or a table's."""
        edit, source = self.edit, self.edit.value
        if isinstance(source, Given | FromFile):
            found = evaluate(self.store, source, self.blocks[0].run, 0)
            if isinstance(found, Valued):
                return self._laid(found, x, rows, count)
            return self._from_table(found, x, rows, count)
        assert isinstance(source, Same)
        if step and not (edit.verb == "mean" and edit.option("per") == "all"):
            raise trouble(f"{source.run} has no tokens that were written on, to {edit.verb} from", edit.span,
                          "name positions of the prompt: @prompt", self.store.plan.text)
        block = self.blocks[0]
        cell = edit.option("cell")  # of the hidden run that measured a path
        if cell is None:
            cell = self.store.cell(source.run, block.run, block.number)
        whole = self.store.acts[source.run, cell][self.spot.site, self.spot.layer]
        tokens = self.store.plan.prompts[self.store.plan.run(source.run).prompt].tokens
        if edit.verb == "mean" and edit.option("per") == "all":
            values = part(self.spot, real(whole, tokens)[:, None], self.store)  # features first, then their mean
            return values.mean((0, 1)).to(device=x.device, dtype=x.dtype).expand_as(x)
        if edit.verb == "mean":
            return self._averaged(whole, tokens, source.at, x, rows).to(x.device)
        if edit.verb == "patch":
            whole = laid_out(self.store, source.run, whole, block.run)
        return self._taken(whole, tokens, source.at, x, rows).to(x.device)

    def _taken(self, whole: Tensor, tokens: Any, at: Spread | None, x: Tensor, rows: Tensor) -> Tensor:
        """For every entry, the source's value at the position that answers to it."""
        size = len(tokens)
        draw = self._drawn(len(whole)) if self.edit.verb == "resample" else None
        picked: dict[int, tuple[int, list[int]]] = {}
        for row, block in ((row, b) for b in self.blocks for row in b.rows):
            inside = row - block.start
            chosen = draw[inside] if draw is not None else 0 if len(whole) == 1 else self.source_row(row, len(whole))
            example = chosen % size
            # Positions are those of the example taken; where one is taken into all, each of them may name its own.
            named = example if draw is not None or size > 1 else inside % block.size
            wanted = range(tokens.lengths[example]) if at is None else at[named if len(at) > 1 else 0]
            picked[row] = chosen, [tokens.column(example, p) for p in wanted]
        seen: dict[int, int] = {}
        pairs = []
        for row in rows.tolist():
            chosen, cols = picked[row]
            n = seen[row] = seen.get(row, -1) + 1
            if n >= len(cols):
                raise trouble("the source has fewer positions than the place", self.edit.span, text=self.store.plan.text)
            pairs.append((chosen, cols[n]))
        taken = self._at(whole, pairs)
        if taken.shape != x.shape:
            raise self._shape(taken, x.shape[1:])
        return taken

    def _averaged(self, whole: Tensor, tokens: Any, at: Spread | None, x: Tensor, rows: Tensor) -> Tensor:
        """For every entry, the mean of the source's examples at the position that answers to it."""
        cols = [columns(tokens, at, row % len(tokens)) for row in range(len(whole))]
        taken = self._at(whole, [(row, column) for row, found in enumerate(cols) for column in found])
        mean = taken.reshape(len(whole), len(cols[0]), *taken.shape[1:]).mean(0)
        if len(x) % len(mean) or mean.shape[1:] != x.shape[1:]:
            raise self._shape(mean, x.shape[1:])
        return mean[torch.arange(len(x), device=mean.device) % len(mean)]

    def _at(self, whole: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
        """The part that is meant of a source's site, at (row, column) pairs: [entry …]."""
        index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
        taken = edits.Selection(SITES[self.spot.site].axes, index[:, 0], index[:, 1], self.spot.heads,
                                None if self.spot.sae else self.spot.units).take(whole)
        if self.spot.sae is None:
            return taken
        features = self.store.saes[self.spot.sae].encode(taken)
        return features if self.spot.features is None else features[..., list(self.spot.features)]

    def _drawn(self, size: int) -> list[int]:
        """Which row of the corpus each row takes."""
        block = self.blocks[0]
        made = torch.Generator().manual_seed(hash(self.edit.draw) % (1 << 63))
        return torch.randint(size, (len(block.rows),), generator=made).tolist()

    def _from_table(self, table: Table, x: Tensor, rows: Tensor, count: int) -> Tensor:
        t = table.find(self.spot)
        tokens = self.tokens
        axes = SITES[self.spot.site].axes
        whole = t.ndim == len(axes) and t.shape[2 if self.spot.site in ("scores", "pattern") else 1] == tokens.width
        if whole and len(t) in (1, len(tokens)):
            t = t.to(x.device).expand(len(tokens), *t.shape[1:])
            return self._taken(t, tokens, self.edit.reach.at, x, rows)
        return self._laid(Valued(t), x, rows, count)

    # Attention edges

    def _cut(self, value: Tensor, step: int, offset: int) -> None:
        tokens, edit = self.tokens, self.edit
        rows, queries, keys = [], [], []
        for block in self.blocks:
            for row in block.rows:
                example = (row - block.start) % block.size
                rows.append(row)
                queries.append([0] if step else columns(tokens, edit.reach.at, example))
                if self.where is not None:
                    asked = torch.tensor(queries[-1], dtype=torch.long)
                    at, query, there = self.where(torch.full_like(asked, row), asked)
                    rows[-1] = int(at[there][0]) if bool(there.any()) else 0
                    queries[-1] = query[there].tolist()
                looked = [c - offset for c in columns(tokens, edit.keys, example)]
                keys.append([c for c in looked if 0 <= c < value.shape[-1]])
        cut = edits.cut_scores if edit.option("renorm") else edits.cut_pattern
        cut(value, rows, self.spot.heads, queries, keys)


def _from_python(value: Any) -> bool:
    """Whether Python, or a file, has a part in a value: only then can its axes be positions and examples."""
    return isinstance(value, Given | FromFile) or any(_from_python(arg) for arg in getattr(value, "args", ()))
