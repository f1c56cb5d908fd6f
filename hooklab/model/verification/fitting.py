"""The sites that can be read and written at all, so that one that cannot does not spoil the checks of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ...errors import HooklabError
from ...records import Activations
from ..ports import Port
from .names import BREAKS
from .passes import Ids, look
from .report import Check
from .sizes import INNER, Seen, misfits, named, row_of

if TYPE_CHECKING:
    from ..model import Model

UNFIT = (RuntimeError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, HooklabError)
"""What goes wrong in a run when a table names another module than it should."""


def fitting(model: Model, ids: Ids, seen: Seen) -> tuple[dict[str, str], Activations]:
    """Sites that do not fit their names, each with what met what; and the values of all the others."""
    ports = model.layout.all_ports
    inside = [port.address for port in ports if port.site in INNER]
    try:
        acts = look(model, [ids], inside)
        shapes = {address: tuple(acts[address].shape) for address in inside}
    except UNFIT as error:
        shapes = no_accident(error, {})
    unfit = misfits(model.layout, seen, len(ids), shapes)
    fit = [port.address for port in ports if port.site not in unfit]
    try:
        return unfit, look(model, [ids], fit)
    except UNFIT as error:
        no_accident(error, None)
    for site in dict.fromkeys(port.site for port in ports if port.site not in unfit):
        try:
            look(model, [ids], [port.address for port in ports if port.site == site])
        except UNFIT as error:
            unfit[site] = f"{_row(model, site)} names a module that cannot be read here: {first_line(error)}"
    fit = [port.address for port in ports if port.site not in unfit]
    return unfit, look(model, [ids], fit)


def writable(model: Model, laws: Callable[[list[Port]], list[Check]], ports: list[Port]) -> list[Check]:
    """The checks of the write laws on ports; sites that cannot be written to fail, and the others go without them.

    Raises:
        Exception: what went wrong, where leaving sites out does not help.
    """
    try:
        return laws(ports)
    except UNFIT as error:
        failure = no_accident(error, error)
    culprits: dict[str, str] = {}
    anchor = [port for port in ports if port.address == "L0.resid_pre"]  # so that a site is not alone in its batch
    for site in dict.fromkeys(port.site for port in ports):
        try:
            laws([*anchor, *(port for port in ports if port.site == site and port not in anchor)])
        except UNFIT as found:
            culprits[site] = first_line(no_accident(found, found))
    rest = [port for port in ports if port.site not in culprits]
    if not culprits or not rest:
        raise failure
    broken = [Check(BREAKS, (site,), float("inf"), 0.0, f"{_row(model, site)} names a module that cannot be written to: "
                    f"{note}") for site, note in culprits.items()]
    return broken + laws(rest)


def no_accident(error: Exception, otherwise: Any) -> Any:
    """`otherwise`, unless the machine is at fault and not the table: then the error goes on."""
    if isinstance(error, torch.OutOfMemoryError) or "memory" in str(error) or "CUDA error" in str(error):
        raise error
    return otherwise


def first_line(error: Exception) -> str:
    """What an error says, on one line."""
    return (str(error) or type(error).__name__).strip().split("\n")[0]


def _row(model: Model, site: str) -> str:
    return named(model.layout, row_of(model.layout, site))
