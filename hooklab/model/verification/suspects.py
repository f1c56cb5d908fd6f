"""Which sites a failed check refuses: the report's `broken`."""

from __future__ import annotations

from .names import BOTTLENECK, BREAKS, LAWS, SIZE
from .report import Check


def broken_sites(checks: list[Check]) -> dict[str, str]:
    """Sites to refuse, each with a reason.

    A site that breaks a write law of its own is wrong. An identity that fails does not say which of its sites is
    wrong, so all are suspected but those that keep all write laws and carry the whole stream, and those that a
    passing identity ties to cleared ones; a failure that an already refused site explains adds no suspects.
    """
    failed = [check for check in checks if check.status == "FAILED" and check.sites]
    broken = {c.sites[0]: c.note for c in failed if c.name in (SIZE, BREAKS)}
    for c in (c for c in failed if c.name in LAWS and c.sites[0] not in broken):
        broken[c.sites[0]] = f"{c.name} fails by {c.error:.1e}"
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
