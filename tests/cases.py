"""Every case of the hook language with the numbers that it must give; see `oracle.Case`."""

from __future__ import annotations

import cases_edits
import cases_reads
import cases_runs
from oracle import Case

CASES: tuple[Case, ...] = (*cases_edits.CASES, *cases_runs.CASES, *cases_reads.CASES)
