"""Google Colab shows widgets other than its own where the output says with what: `about` is that part of an output.

anywidget says so for every view by itself. Boxes around views are ipywidgets', which do not.
"""

from __future__ import annotations

import sys
from typing import Any

WIDGET = "application/vnd.jupyter.widget-view+json"


def about() -> dict[str, Any]:
    """Metadata of an output that holds views, for `_repr_mimebundle_`; empty everywhere but on Colab.

    Example:
        >>> about()
        {}
    """
    output = sys.modules.get("google.colab.output")
    widgets = getattr(output, "_widgets", None)
    if output is None or widgets is None:
        return {}
    if widgets._installed_url is None:
        output.enable_custom_widget_manager()
    return {WIDGET: {"colab": {"custom_widget_manager": {"url": widgets._installed_url}}}}
