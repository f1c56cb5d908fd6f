"""What the compiler may know of a model: its sizes, its sites and its tokenizer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..errors import HooklabWarning, PromptError
from ..model.inputs import Prompt
from ..sites import SITES

if TYPE_CHECKING:
    from ..model.model import Model


class ModelWorld:
    """The compiler's view of an opened model."""

    def __init__(self, model: Model, saes: dict[str, Any] | None = None) -> None:
        self.model = model
        self.facts = model.facts
        self.itemsize = model.dtype.itemsize
        _warn_of_dropout(model)
        self._saes = saes or {}

    def missing(self, site: str) -> str | None:
        """Why the model lacks a site, or None."""
        return self.model.sites.missing(site)

    def prompt(self, value: Any, *, image: Any = None, chat: bool = False) -> Prompt:
        """An input made ready for the model."""
        if chat and isinstance(value, str):
            value = [{"role": "user", "content": value}]
        elif chat and not (isinstance(value, (list, tuple)) and value and all(isinstance(one, dict) for one in value)):
            raise PromptError("chat=true takes one text or one conversation (a list of messages with role and content); "
                              "give several as prompts of their own")
        given = {} if image is None else {"images": image if isinstance(image, list) else [image]}
        made = self.model.reader.read(value, **given)
        if made.tokens is None:
            raise PromptError("a spec needs tokens to count positions on; embeddings have none")
        return made

    def token_ids(self, text: str) -> list[int]:
        """The tokens of a text that stands alone, without special ones."""
        tokenizer = self.model.tokenizer
        if tokenizer is None:
            raise PromptError("this model has no tokenizer: give answers as token ids, in braces: {17}")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        unknown = getattr(tokenizer, "unk_token_id", None)
        if unknown is not None and unknown in ids and text.strip() != tokenizer.unk_token:
            raise PromptError(f"{text!r} is not in the vocabulary of this model's tokenizer")
        return [int(i) for i in ids]

    def piece(self, token: int) -> str:
        """The text of a token."""
        tokenizer = self.model.tokenizer
        return f"#{token}" if tokenizer is None else str(tokenizer.decode([token]))

    def vocabulary(self) -> Sequence[int]:
        """Tokens that random prompts are drawn from: all but special ones."""
        tokenizer = self.model.tokenizer
        special = set(getattr(tokenizer, "all_special_ids", ()) or ()) | set(self.model.reader.image_ids)
        size = min(self.facts.d_vocab, len(tokenizer) if tokenizer is not None else self.facts.d_vocab)
        return [i for i in range(size) if i not in special]

    def opening(self) -> tuple[int, ...]:
        """What the tokenizer puts before every prompt."""
        tokenizer = self.model.tokenizer
        if tokenizer is None:
            return ()
        plain = tokenizer("a", add_special_tokens=False)["input_ids"]
        full = tokenizer("a")["input_ids"]
        extra = len(full) - len(plain)
        return tuple(int(i) for i in full[:extra]) if extra > 0 and full[extra:] == plain else ()

    def unpackable(self) -> str | None:
        """Why passes of this model cannot be continued block by block; None when they can."""
        family = self.model.layout.family
        if not self.facts.causal:
            return "its tokens see what comes after them"
        if family.attention == "inline":
            return f"{family.name} computes attention inside its own module"
        if family.residual == "post":
            return f"{family.name} has its norms after each addition"
        if not self.model.layout.has_head:
            return "it was loaded without a language-model head"
        if self.model.hooks:
            return "hooks stand on its sites"
        if any(module._forward_hooks or module._forward_pre_hooks for module in self.model.hf.modules()):
            return "its modules have hooks of their own"  # what they do to a recorded value would be done twice
        return "it is in training mode" if self.model.layout.dropping() or self.model.hf.training else None

    def sae_size(self, name: str) -> int:
        """How many features a dictionary has."""
        return int(self._saes[name].n_features)

    def sae_itemsize(self, name: str) -> int:
        """Bytes of one feature."""
        weights = getattr(self._saes[name], "w_enc", None)
        return torch.float32.itemsize if weights is None else torch.promote_types(weights.dtype, self.model.dtype).itemsize

    def sae_misfit(self, name: str, read: str, write: str) -> str | None:
        """Why a dictionary does not fit the sites that it reads and writes to; None where it does, or does not say."""
        sae = self._saes.get(name)
        for word, site, attribute in (("reads", read, "d_in"), ("writes", write, "d_out")):
            size, width = getattr(sae, attribute, None), getattr(self.facts, SITES[site].axes[-1], None)
            if size is not None and width is not None and size != width:
                return f"{name} {word} vectors of {size}, and {site} has {width}"
        return None


def _warn_of_dropout(model: Model) -> None:
    """Numbers of a model that drops out units are those of one draw, and no two passes agree."""
    if model.layout.dropping():
        warnings.warn("This model is in training mode: dropout changes the numbers of every pass. Call model.hf.eval() "
                      "first.", HooklabWarning, stacklevel=2)
