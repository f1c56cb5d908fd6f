"""`model.verify()`: proof by arithmetic that every site is what its name says, on this very model.

Two kinds of checks on a dozen tokens, five forward passes in all. *Identities* relate what is read: the stream adds
up, `pattern · v = z`, rows of attention sum to one. *Write laws* concern what is written: writing back what was read
changes nothing, a change changes the output, never anything before its position, and clean values at every position
of the stream give the clean output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import SiteError
from ..records import Activations
from ..runtime.trace import capture
from ..sites import ORDER, SITES
from .identities import identities

if TYPE_CHECKING:
    from .model import Model

N_TOKENS = 12
# A table that swaps two projections satisfies every sum; that a change to one leaves the other alone tells them apart.
APART = {"q": ("k", "v", "rot_k"), "k": ("q", "v", "rot_q"), "v": ("q", "k", "rot_q", "rot_k", "scores", "pattern"),
         "rot_q": ("rot_k",), "rot_k": ("rot_q",), "mlp_pre": ("mlp_pre_linear",), "mlp_pre_linear": ("mlp_pre",),
         "embed": ("pos_embed",), "pos_embed": ("embed",)}
REACH = {"q": "rot_q", "k": "rot_k"}
STREAM_SITES = ("embed", "resid_pre", "resid_mid", "resid_post", "ln_final", "logits")
PAIR_SITES = ("scores", "pattern")
NOT_FINITE = "the output is finite"
EFFECT = "a change changes the output"
CAUSAL = "a change leaves earlier positions alone"
ORDER_LAW = "a change leaves earlier sites alone"
APART_LAW = "a change leaves unrelated sites alone"
REACH_LAW = "a change reaches what is made of it"
BOTTLENECK = "clean values everywhere give the clean output"
STATUSES = ("absent", "exact", "approximate", "FAILED")
LAWS = {EFFECT: "effect", CAUSAL: "earlier positions", ORDER_LAW: "earlier sites",
        APART_LAW: "unrelated sites", REACH_LAW: "reach",
        BOTTLENECK: "bottleneck"}


@dataclass(frozen=True)
class Check:
    """One row of a report.

    Attributes:
        name: The identity or law.
        sites: Sites that it concerns.
        error: Largest absolute error, relative to the size of the values where they exceed one; None when absent.
        limit: What the error may be.
        note: Why the check does not apply, or what went wrong.
    """

    name: str
    sites: tuple[str, ...]
    error: float | None
    limit: float
    note: str = ""

    @property
    def status(self) -> str:
        """`"exact"`, `"approximate"`, `"absent"` or `"FAILED"`."""
        if self.error is None:
            return "absent"
        if not self.error <= self.limit:  # NaN fails too
            return "FAILED"
        return "exact" if self.error <= 1e-5 else "approximate"


@dataclass(frozen=True)
class Report:
    """What `model.verify()` found: `ok`, the rows, and `broken`: site -> reason for sites that fail."""

    title: str
    checks: tuple[Check, ...]
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "FAILED" for check in self.checks)

    @property
    def finite(self) -> bool:
        """Whether the model computes numbers at all; if not, nothing else was checked."""
        return self.checks[0].name != NOT_FINITE

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        rows = [dict(name=c.name, sites=list(c.sites), error=c.error, limit=c.limit, status=c.status, note=c.note)
                for c in self.checks]
        return dict(title=self.title, ok=self.ok, checks=rows, broken=dict(self.broken))

    def _rows(self) -> list[tuple[str, ...]]:
        """Table rows: one an identity, and one a site for all its write laws together."""
        rows: list[tuple[str, ...]] = [
            (c.name, " ".join(c.sites), f"{c.error:.1e}", c.status, c.note)
            for c in self.checks if c.name not in LAWS and c.error is not None]
        for site in dict.fromkeys(c.sites[0] for c in self.checks if c.name in LAWS):
            laws = [c for c in self.checks if c.name in LAWS and c.sites == (site,)]
            worst = max(laws, key=lambda c: (STATUSES.index(c.status), c.error))
            note = " · ".join(f"{LAWS[c.name]} {'ok' if c.name == EFFECT and not c.note else f'{c.error:.0e}'}"
                              for c in laws)
            rows.append(("writes mean what they say", site, f"{worst.error:.1e}", worst.status, note))
        return rows + [(c.name, " ".join(c.sites), "", c.status, c.note) for c in self.checks if c.error is None]

    def __rich__(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        colours = {"exact": "green", "approximate": "yellow", "absent": "dim", "FAILED": "bold red"}
        table = Table(title=self.title, title_justify="left")
        for heading in ("check", "sites", "largest error", "status", "note"):
            table.add_column(heading)
        for row in self._rows():
            table.add_row(*(Text(cell) for cell in row), style=colours[row[3]])
        return table

    def __repr__(self) -> str:
        widths = [max(len(row[i]) for row in self._rows()) for i in range(4)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, (*widths, 0), strict=True)).rstrip()
                 for row in self._rows()]
        return "\n".join([self.title, *lines, "all checks pass" if self.ok else f"failed: {', '.join(self.broken)}"])

    def _repr_html_(self) -> str:
        rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self._rows())
        heads = "".join(f"<th>{name}</th>" for name in ("check", "sites", "largest error", "status", "note"))
        return f"<table><caption>{escape(self.title)}</caption><tr>{heads}</tr>{rows}</table>"


def verify(model: Model, prompt: Any = None) -> Report:
    """Check every site of `model`; see the module docstring.

    Args:
        model: An opened model.
        prompt: What to run on; a dozen seeded random tokens by default.

    Returns:
        A `Report`; print it, or ask `.ok` and `.broken`.

    Example:
        >>> import hooklab as hl
        >>> hl.load("lab").verify().ok
        True
    """
    refused = dict(model.interleaver.refused)
    training = [module for module in model.hf.modules() if module.training]
    model.interleaver.refused.clear()  # a site refused before is looked at afresh
    model.hf.eval()  # dropout would break every identity
    try:
        with torch.no_grad():
            return _verify(model, prompt)
    finally:
        model.interleaver.refused.update(refused)
        for module in training:
            module.training = True


def _verify(model: Model, prompt: Any) -> Report:
    ids = _random_ids(model, seed=0) if prompt is None else model.tokens(prompt).ids[0]
    other = _random_ids(model, seed=1, length=len(ids))
    limit = 1e-4 if model.dtype in (torch.float32, torch.float64) else 6e-2
    bare = _bare(model, ids)
    title = f"{model.facts.family}: {len(ids)} tokens, {str(model.dtype).removeprefix('torch.')}"
    if not bool(torch.isfinite(bare).all()):
        where = next((n for n, p in model.hf.named_parameters() if not bool(torch.isfinite(p).all())), "no weight")
        note = f"the model's own output has numbers that are not finite (first in {where})"
        return Report(title, (Check(NOT_FINITE, ("logits",), float("nan"), 0.0, note),))
    everything = [port.address for port in model.layout.all_ports]
    acts = capture(model, [ids], everything, full=True)
    checks = [Check("traced output = bare output", ("logits",) if model.layout.has_head else (),
                    _error(_output(capture(model, [ids], ["L0.resid_pre"], full=True)), bare), 1e-6)]
    checks += [Check(name, sites, error, limit, note) for name, sites, error, note in identities(model, acts)]
    checks += _write_laws(model, ids, other, acts, limit)
    checks += [Check("site", (name,), None, limit, reason) for name in SITES
               if (reason := model.layout.missing(name)) is not None]
    return Report(title, tuple(checks), _broken(checks))


def _broken(checks: list[Check]) -> dict[str, str]:
    """Sites to refuse, each with a reason.

    A site that breaks a write law of its own is wrong. An identity that fails does not say which of its sites is
    wrong, so all are suspected but those that keep all write laws and carry the whole stream, and those that a
    passing identity ties to cleared ones; a failure that an already refused site explains adds no suspects.
    """
    failed = [check for check in checks if check.status == "FAILED" and check.sites]
    broken = {c.sites[0]: f"{c.name} fails by {c.error:.1e}" for c in failed if c.name in LAWS}
    sound = {c.sites[0] for c in checks if c.name == BOTTLENECK} - set(broken)
    passing = [c for c in checks if c.status != "FAILED" and c.error is not None and c.name not in LAWS]
    for _ in passing:
        for check in passing:
            doubtful = [site for site in check.sites if site not in sound]
            if len(doubtful) == 1 and doubtful[0] not in broken and len(check.sites) > 1:
                sound.add(doubtful[0])
    suspects = {c.name: [s for s in c.sites if s not in sound] or [c.sites[-1]] for c in failed if c.name not in LAWS}
    for check in sorted((c for c in failed if c.name not in LAWS), key=lambda c: len(suspects[c.name])):
        if not broken.keys() & set(check.sites):
            broken.update(dict.fromkeys(suspects[check.name], f"{check.name} fails by {check.error:.1e}"))
    return broken


def _write_laws(model: Model, ids: tuple[int, ...], other: tuple[int, ...], acts: Activations,
                limit: float) -> list[Check]:
    ports = [port for port in model.layout.all_ports if port.layer in _layers(model)]
    written = capture(model, [ids], list(acts), full=True, edits={p.address: lambda v: v.clone() for p in ports})
    same = _error(_output(written), _output(acts))
    checks = [Check("writing back what was read changes nothing", (), same, 0.0)]
    checks += _change_laws(model, ids, ports, limit)
    checks += _bottlenecks(model, ids, other, acts, limit)
    return checks


def _change_laws(model: Model, ids: tuple[int, ...], ports: list[Any], limit: float) -> list[Check]:
    """One forward pass in which row r changes site r at one position; the last row changes nothing."""
    at = len(ids) // 2
    edits = {port.address: _row_edit(port, row, at) for row, port in enumerate(ports)}
    acts = capture(model, [list(ids)] * (len(ports) + 1), list(edits), full=True, edits=edits)
    output = _output(acts)
    checks: dict[str, list[tuple[float, float, float]]] = {}
    apart, gates, unreached = _related(ports, acts, at)
    for row, port in enumerate(ports):
        before = _error(output[row, :at], output[-1, :at])
        effect = float((output[row, at:].float() - output[-1, at:].float()).abs().max())
        earlier = [acts[p.address] for p in ports if p.layer == port.layer and ORDER[p.site] < ORDER[port.site]]
        disturbed = max((_error(value[row], value[-1]) for value in earlier), default=0.0)
        checks.setdefault(port.site, []).append((before, effect, disturbed))
    made = []
    for site, found in checks.items():
        dead = min(effect for _, effect, _ in found) == 0.0
        made.append(Check(EFFECT, (site,), float("inf") if dead else 0.0, 0.0,
                          "writing has no effect" if dead else ""))
        if model.facts.causal:
            made.append(Check(CAUSAL, (site,), max(b for b, _, _ in found), 5e-6 if limit < 1e-3 else limit))
        if site in apart:
            made.append(Check(APART_LAW, (site,), max(apart[site], gates.get(site, 0.0)), 1e-4 if limit < 1e-3 else limit))
        if site in REACH:
            made.append(Check(REACH_LAW, (site,), float("inf") if site in unreached else 0.0, 0.0))
        made.append(Check(ORDER_LAW, (site,), max(d for _, _, d in found), 5e-6 if limit < 1e-3 else limit))
    return made


def _related(ports: list[Any], acts: Activations, at: int) -> tuple[dict[str, float], dict[str, float], set[str]]:
    """What a change to one site did to its siblings: disturbance of unrelated ones, of the gate's part in a gated MLP,
    and sites whose change did not arrive at what is made of them."""
    apart: dict[str, float] = {}
    gates: dict[str, float] = {}
    unreached: set[str] = set()
    for row, port in enumerate(ports):
        same = {p.site: acts[p.address] for p in ports if p.layer == port.layer}
        others = [same[site] for site in APART.get(port.site, ()) if site in same]
        if others:
            apart[port.site] = max([apart.get(port.site, 0.0), *(_error(v[row], v[-1]) for v in others)])
        target = same.get(REACH.get(port.site, ""))
        if target is not None and torch.equal(target[row], target[-1]):
            unreached.add(port.site)
        if port.site == "mlp_pre_linear" and "mlp_post" in same:
            # post = act(pre) · linear, so a change to linear changes post in proportion; a change to pre does not.
            post, linear = same["mlp_post"].float(), same["mlp_pre_linear"].float()
            left = (post[row] - post[-1])[at] * linear[-1, at]
            gates[port.site] = max(gates.get(port.site, 0.0), _error(left, (linear[row] - linear[-1])[at] * post[-1, at]))
    return apart, gates, unreached


def _row_edit(port: Any, row: int, at: int) -> Any:
    def edit(value: Tensor) -> Tensor:
        if port.site in PAIR_SITES:
            value[row, :, at, at] += 0.5
        elif port.site.endswith("_scale"):
            value[row, at] *= 1.5
        else:
            # Not a mere scaling or shift, which a norm after the site would undo.
            value[row, at] += 0.25 * torch.cos(torch.arange(value.shape[-1], device=value.device)).to(value.dtype)
        return value

    return edit


def _bottlenecks(model: Model, ids: tuple[int, ...], other: tuple[int, ...], acts: Activations,
                 limit: float) -> list[Check]:
    """Clean values at all positions of a stream site of a corrupted run give the clean output; a row a site."""
    ports = [p for p in model.layout.all_ports if p.site in STREAM_SITES and p.layer in (*_layers(model), None)]

    def edit(row: int, clean: Tensor) -> Any:
        def write(value: Tensor) -> Tensor:
            value[row] = clean[0]
            return value

        return write

    edits = {port.address: edit(row, acts[port.address]) for row, port in enumerate(ports)}
    # The clean run is a row of the same batch: in half precision a matrix product rounds differently at another batch
    # size, and a mixture of experts may then choose another expert.
    output = _output(capture(model, [*[list(other)] * len(ports), list(ids)], list(edits), full=True, edits=edits))
    errors: dict[str, float] = {}
    for row, port in enumerate(ports):
        errors[port.site] = max(errors.get(port.site, 0.0), _error(output[row], output[-1]))
    return [Check(BOTTLENECK, (site,), error, limit)
            for site, error in errors.items()]


def _layers(model: Model) -> tuple[int | None, ...]:
    """Layers to write to: all of a small model, three of a large one; None stands for the model's own sites."""
    n = model.facts.n_layers
    chosen = range(n) if n <= 4 else (0, n // 2, n - 1)
    return (*chosen, None)


def _output(acts: Activations) -> Tensor:
    out = acts.output
    return out.logits if getattr(out, "logits", None) is not None else out[0]


def _bare(model: Model, ids: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        inputs = model.reader.batch([model.reader.read([list(ids)])], generating=False)
        out = model.hf(**{name: value.to(model.device) for name, value in inputs.items()})
    return out.logits if getattr(out, "logits", None) is not None else out[0]


def _error(value: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value where that exceeds one; masked entries left out."""
    value, expected = value.float(), expected.float()
    visible = expected.abs() < torch.finfo(torch.bfloat16).max / 4
    if not bool(visible.any()):
        raise SiteError("There is nothing to compare.")
    scale = max(1.0, float(expected[visible].abs().max()))
    return float((value - expected)[visible].abs().max()) / scale


def _random_ids(model: Model, *, seed: int, length: int = 0) -> tuple[int, ...]:
    """Seeded random tokens that are no special ones; the caller's random state is left alone."""
    special = set(getattr(model.tokenizer, "all_special_ids", ()) or ()) | set(model.reader.image_ids)
    size = min(model.hf.get_input_embeddings().weight.shape[0], model.facts.d_vocab)
    allowed = [i for i in range(size) if i not in special] if size < 100_000 else list(range(1000, 50_000))
    generator = torch.Generator().manual_seed(seed)
    length = length or min(N_TOKENS, model.facts.n_ctx or N_TOKENS)
    return tuple(allowed[i] for i in torch.randint(len(allowed), (length,), generator=generator).tolist())
