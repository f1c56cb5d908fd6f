"""Which process of `pytest -n` runs which tests: those of a file belong together, and what takes long begins first.

What a file prepares for its tests is prepared once that way. Two kinds of files are different: those that drive a browser
share a server of notebooks, and so a process; a tutorial is run by the tests that bear its name and by no others.
"""

from __future__ import annotations

import re
from typing import Any

from xdist.scheduler import LoadScopeScheduling

BROWSER = ("tests/test_jupyterlab.py", "tests/test_views_browser.py")
TUTORIALS = "tests/test_notebooks.py"
LONG = ("browser", f"{TUTORIALS}[05_indirect_objects]", "tests/test_site.py", TUTORIALS, "tests/test_engines.py",
        "tests/test_spec_hostile.py", "tests/test_check.py", "tests/test_extract.py", "tests/test_remote.py")
"""What takes long, the longest first; the name of a unit, or how it begins. The others come by their number of tests."""


def unit(nodeid: str) -> str:
    """The name of what a test belongs to; all of it runs in one process."""
    file, _, test = nodeid.partition("::")
    if file in BROWSER:
        return "browser"
    tutorial = re.search(r"\[\w+\]", test) if file == TUTORIALS else None
    return f"{file}{tutorial[0]}" if tutorial else file


class Files(LoadScopeScheduling):
    """Hands out files, the long ones first: a process that got one of them last would run alone at the end."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)

    def _assign_work_unit(self, node: Any) -> None:
        waiting = (name for start in LONG for name in self.workqueue if name.startswith(start))
        if first := next(waiting, None):
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)
