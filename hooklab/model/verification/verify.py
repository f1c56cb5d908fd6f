"""The run of `model.verify()`, from the first look to the report.

First every site is measured (`sizes`): one that is not there, or has another size than its name says, fails and is left
out of what follows. Then two kinds of checks on a dozen tokens, six forward passes in all. *Identities* relate what is
read: the stream adds up, `pattern · v = z`, rows of attention sum to one. *Write laws* (`laws`) concern what is written:
writing back what was read changes nothing, a change changes the output, never anything before its position, and clean
values at every position of the stream give the clean output. Where the weights themselves make nothing of a change, that it
has no effect is no failure and no test (`inert`). A head that is not a language model's is checked by itself (`head`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ...sites import SITES
from .difference import difference
from .fitting import fitting, writable
from .head import head_checks
from .identities import identities
from .laws import write_laws
from .names import NOT_FINITE, SIZE
from .passes import Ids, answer, bare, body, look, padding, random_ids
from .report import Check, Report
from .sizes import measured
from .suspects import broken_sites

if TYPE_CHECKING:
    from ..model import Model


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
    ids, other = _prompts(model, prompt)
    limit = 1e-4 if model.dtype in (torch.float32, torch.float64) else 6e-2
    with measured(model.layout) as seen:
        given = answer(bare(model, body(model), ids))
    title = f"{model.facts.family}: {len(ids)} tokens, {str(model.dtype).removeprefix('torch.')}"
    if not bool(torch.isfinite(given).all()):
        return Report(title, (_not_finite(model),))
    unfit, acts = fitting(model, ids, seen)
    unfit = {**model.layout.unplaced, **unfit}
    checks = [Check(SIZE, (site,), float("inf"), 0.0, note) for site, note in unfit.items()]
    checks += [Check("traced output = bare output", ("logits",) if model.layout.has_head else (),
                     difference(answer(look(model, [ids], ["L0.resid_pre"])), given), 1e-6)]
    checks += [Check(name, sites, error, limit, note) for name, sites, error, note in identities(model, acts)]
    ports = [port for port in model.layout.all_ports if port.layer in written_layers(model) and port.address in acts]
    checks += writable(model, lambda some: write_laws(model, ids, other, acts, some, limit), ports)
    checks += head_checks(model, ids, other, acts, limit)
    checks += [Check("site", (name,), None, limit, reason) for name in SITES
               if name not in unfit and (reason := model.layout.missing(name)) is not None]
    return Report(title, tuple(checks), broken_sites(checks))


def _prompts(model: Model, prompt: Any) -> tuple[Ids, Ids]:
    """The tokens to run on, and others that are as many, with padding at the same places."""
    ids = random_ids(model, seed=0) if prompt is None else model.tokens(prompt).ids[0]
    other = random_ids(model, seed=1, length=len(ids))
    pads = padding(model)
    return ids, tuple(own if own in pads else new for own, new in zip(ids, other, strict=True))


def _not_finite(model: Model) -> Check:
    where = next((n for n, p in model.hf.named_parameters() if not bool(torch.isfinite(p).all())), "no weight")
    note = f"the model's own output has numbers that are not finite (first in {where})"
    return Check(NOT_FINITE, ("logits",), float("nan"), 0.0, note)


def written_layers(model: Model) -> tuple[int | None, ...]:
    """Layers to write to: all of a small model, three of a large one; None stands for the model's own sites."""
    n = model.facts.n_layers
    chosen = range(n) if n <= 4 else (0, n // 2, n - 1)
    return (*chosen, None)
