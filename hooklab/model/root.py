"""The top of nnsight's tree of envoys, where prompts become one batch."""

from __future__ import annotations

from typing import Any

from nnsight.intervention.envoy import Envoy

from .batcher import SiteBatcher
from .inputs import Prompt, Reader


class Root(Envoy):
    """The top of nnsight's tree: what turns prompts into the arguments of one forward pass."""

    reader: Reader
    _batcher_class = SiteBatcher

    def _batch_size(self, *inputs: Any, **kwargs: Any) -> int:
        return sum(item.size for item in inputs if isinstance(item, Prompt))

    def _batch(self, invokes: list[tuple[Any, ...]], fn: Any) -> tuple[tuple[()], dict[str, Any]]:
        merged: dict[str, Any] = {}
        for _, kwargs in invokes:
            merged.update(kwargs)
        prompts = [item for inputs, _ in invokes for item in inputs]
        if not prompts:  # a function that calls the model's modules itself
            return (), merged
        return (), {**self.reader.batch(prompts, generating=fn == "generate"), **merged}
