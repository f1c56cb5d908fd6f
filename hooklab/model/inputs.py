"""Whatever a user calls a prompt, made into what one forward pass takes.

Text, several texts, token ids, encodings, chat messages and text with images all become a `Prompt`: `Tokens` (the
unpadded sequences that selectors count on) and the extra tensors that go with them. Prompts of several invokes are
merged into one padded batch; padding is on the left for models that predict the next token, with positions counted
from each sequence's first real token, so that a ragged batch computes what its rows compute alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from typing import Any

import torch

from ..errors import FamilyError, PromptError, TraceError, did_you_mean
from ..tokens import Tokens
from .images import image_length, image_roles, in_order
from .layout import Layout
from .unknown import warn_of_unknown, warn_user

PER_EXAMPLE = ("pixel_values", "image_sizes", "pixel_attention_mask")
PER_TOKEN = ("token_type_ids", "mm_token_type_ids")
LOOSE = frozenset({"output_attentions", "output_hidden_states", "return_dict", "use_cache", "logits_to_keep", "labels",
                   "position_ids", "past_key_values", "cache_position", "output_router_logits"})
"""Options that many forwards take without naming them."""
OURS = ("grad", "at", "edits", "full", "metric", "images")
BESIDE = frozenset({"labels", "length", "special_tokens_mask", "offset_mapping", "overflow_to_sample_mapping"})
"""What tokenizers return beside inputs."""
INPUT_NAMES = frozenset({"input_ids", "attention_mask", "inputs_embeds", "images", *PER_EXAMPLE, *PER_TOKEN})


@dataclass(frozen=True)
class Prompt:
    """One or several examples, ready to be batched.

    Attributes:
        tokens: The unpadded sequences; None when the input is embeddings.
        extras: Further inputs of the forward pass: tensors with the batch on their first axis, or for what comes one
            per token, a list per example without padding.
        size: Number of examples.
    """

    tokens: Tokens | None
    extras: dict[str, Any] = field(default_factory=dict)
    size: int = 1


class Reader:
    """Turns user input into prompts for one model."""

    def __init__(self, layout: Layout, tokenizer: Any = None, processor: Any = None) -> None:
        self.layout = layout
        self.tokenizer = tokenizer
        self.processor = processor
        parameters = inspect.signature(type(layout.hf).forward).parameters
        self.options = frozenset(parameters) - {"self", "kwargs"} | LOOSE
        self.takes_positions = "position_ids" in parameters
        self.takes_mask = "attention_mask" in parameters
        self.first_position = _first_position(layout)
        self.side = "left" if layout.facts.causal else "right"
        self.current: Tokens | None = None
        self.image_roles = image_roles(layout, tokenizer, processor)
        self.image_ids = self.image_roles["image_token_ids"]

    def read(self, prompt: Any = None, **kwargs: Any) -> Prompt:
        """Make a prompt of user input; see the module docstring for what is accepted.

        Raises:
            PromptError: an empty prompt, unknown token ids, more tokens than the model has positions, text without a
                tokenizer, images without a processor.
        """
        if isinstance(prompt, Prompt):
            return prompt
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if prompt is not None and "input_ids" in kwargs:
            raise PromptError("Pass the prompt or input_ids=, not both.")
        prompt = kwargs.pop("input_ids", None) if prompt is None else prompt
        if "images" in kwargs:
            return self._checked(self._with_images(prompt, kwargs.pop("images"), kwargs))
        if prompt is None and "inputs_embeds" in kwargs:
            return Prompt(None, kwargs, kwargs["inputs_embeds"].shape[0])
        if isinstance(prompt, Mapping) or hasattr(prompt, "input_ids"):
            return self._checked(self._from_encoding({**dict(prompt), **kwargs}))
        if kwargs.keys() & {"attention_mask", *PER_TOKEN}:
            if not _is_ids(prompt):
                raise PromptError(f"{', '.join(kwargs)} goes with token ids, not with text: pass the encoding instead.")
            return self._checked(self._from_encoding({"input_ids": prompt, **kwargs}))
        tokens = prompt if isinstance(prompt, Tokens) else self._tokens(prompt)
        return self._checked(Prompt(tokens, kwargs, len(tokens)))

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse keyword arguments that the model's forward would swallow without a word.

        Raises:
            TraceError: an unknown name; the message has the nearest one.
        """
        for name in options:
            if name not in self.options:
                raise TraceError(f"There is no option {name!r}." + did_you_mean(name, (*OURS, *self.options)))

    def tokens(self, prompt: Any, **kwargs: Any) -> Tokens:
        """The tokens of a prompt."""
        tokens = self.read(prompt, **kwargs).tokens
        if tokens is None:
            raise PromptError("Embeddings have no tokens.")
        return tokens

    def batch(self, prompts: Sequence[Prompt], *, generating: bool) -> dict[str, Any]:
        """The keyword arguments of one forward pass over all prompts."""
        if any(p.tokens is None for p in prompts):
            if len(prompts) > 1:
                raise PromptError("Embeddings cannot be batched with other prompts; run them in a trace of their own.")
            self.current = None
            return dict(prompts[0].extras)
        self.current = tokens = merge(prompts)
        pad_id = self._pad_id()
        ids, mask = tokens.pad(self.side, pad_id)
        inputs: dict[str, Any] = {"input_ids": ids}
        ragged = len(set(tokens.lengths)) > 1
        # A mask of ones costs as much as one that says something; but transformers takes pad tokens without one amiss.
        padded = getattr(self.layout.config, "pad_token_id", None)
        if self.takes_mask and (ragged or generating or any(padded in row for row in tokens.ids)):
            inputs["attention_mask"] = mask
        if ragged and self.side == "left" and self.takes_positions and not generating:
            inputs["position_ids"] = torch.as_tensor(tokens.position_ids(self.side)) + self.first_position
        inputs.update(self._merge_extras(prompts, ids.shape[1]))
        return inputs

    # Kinds of input ---------------------------------------------------------------------------------------------

    def _tokens(self, prompt: Any) -> Tokens:
        if prompt is None:
            raise PromptError("There is no prompt: pass text, token ids, an encoding or chat messages.")
        if isinstance(prompt, str):
            return self._encode([prompt])
        if _is_ids(prompt):
            return Tokens.from_ids(_id_rows(prompt), self.tokenizer, **self.image_roles)
        if not isinstance(prompt, Iterable):
            raise PromptError(f"A prompt cannot be made of {type(prompt).__name__}; pass text, token ids, an encoding or "
                              f"chat messages.")
        items = list(prompt)
        if not items:
            raise PromptError("The prompt is empty.")
        if all(isinstance(item, str) for item in items):
            return self._encode(items)
        if all(isinstance(item, Mapping) for item in items):
            return self._chat(items)
        kinds = ", ".join(sorted({type(item).__name__ for item in items}))
        raise PromptError(f"A prompt cannot be made of {kinds}; pass text, lists of text, token ids, an encoding, or "
                          f"chat messages ({{'role': …, 'content': …}}).")

    def _encode(self, texts: list[str], *, special: bool = True) -> Tokens:
        if self.tokenizer is None:
            raise PromptError("This model was opened without a tokenizer, so it takes token ids, not text. Pass ids, or "
                              "open it with hl.load(module, tokenizer=...).")
        tokens = Tokens.encode(self.tokenizer, texts, add_special_tokens=special, **self.image_roles)
        warn_of_unknown(self.tokenizer, tokens)
        return tokens

    def _chat(self, messages: list[Mapping[str, Any]]) -> Tokens:
        if self.tokenizer is None or not getattr(self.tokenizer, "chat_template", None):
            raise PromptError("Chat messages need a tokenizer with a chat template, which this model's has not. Pass "
                              "the conversation as text.")
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return self._encode([text], special=False)

    def _from_encoding(self, encoding: dict[str, Any]) -> Prompt:
        encoding = {name: value for name, value in encoding.items() if value is not None and name not in BESIDE}
        if "input_ids" not in encoding:
            raise PromptError(f"This encoding has no input_ids, only {', '.join(encoding)}.")
        for name in encoding:
            if name not in INPUT_NAMES:
                raise PromptError(f"hooklab does not know what to do with {name!r} in an encoding."
                                  + did_you_mean(name, INPUT_NAMES))
        try:
            tokens = Tokens.from_encoding(encoding, self.tokenizer, image_length=image_length(encoding, self.image_roles),
                                          **self.image_roles)
        except (TypeError, ValueError) as error:
            raise PromptError(f"This encoding cannot be read: {error}") from error
        found = {name: encoding[name] for name in PER_EXAMPLE if name in encoding}
        ids = torch.as_tensor(encoding["input_ids"])
        ids = ids if ids.ndim == 2 else ids[None]
        mask = torch.as_tensor(encoding.get("attention_mask", torch.ones_like(ids))).reshape(ids.shape).bool()
        for name in PER_TOKEN:
            if name in encoding:
                rows = torch.as_tensor(encoding[name]).reshape(ids.shape)
                found[name] = [row[kept].tolist() for row, kept in zip(rows, mask, strict=True)]
        return Prompt(tokens, found, len(tokens))

    def _with_images(self, prompt: Any, images: Any, given: dict[str, Any]) -> Prompt:
        if self.processor is None:
            raise PromptError("Images need the model's processor: open it with hl.load(module, processor=...) or from "
                              "a folder that holds one.")
        text = [prompt] if isinstance(prompt, str) else list(prompt)
        pictures = in_order(images, text, self.processor)
        encoding = self.processor(text=text, images=pictures or None, return_tensors="pt", padding=True,
                                  padding_side=self.side)
        return self._from_encoding({**dict(encoding), **given})

    # Checks and merging -----------------------------------------------------------------------------------------

    def _checked(self, prompt: Prompt) -> Prompt:
        tokens, facts = prompt.tokens, self.layout.facts
        if tokens is None:
            return prompt
        for example, ids in enumerate(tokens.ids):
            where = f" (prompt {example})" if len(tokens.ids) > 1 else ""
            if not ids:
                raise PromptError(f"The prompt is empty{where}: there is no token to run.")
            if self.layout.family.pos_embed and facts.n_ctx and len(ids) > facts.n_ctx:
                raise PromptError(f"The prompt has {len(ids)} tokens{where}, but this model has {facts.n_ctx} "
                                  f"positions.")
            if facts.n_ctx and len(ids) > facts.n_ctx:
                warn_user(f"The prompt has {len(ids)} tokens{where}; this model was made for {facts.n_ctx}.")
            size = self.layout.hf.get_input_embeddings().weight.shape[0]
            if max(ids) >= size or min(ids) < 0:
                raise PromptError(f"Token id {max(ids) if max(ids) >= size else min(ids)}{where} is outside the "
                                  f"vocabulary of {size}.")
        return replace(prompt, tokens=replace(tokens, padding_side=self.side))

    def _pad_id(self) -> int:
        size = self.layout.hf.get_input_embeddings().weight.shape[0]
        for source in (self.tokenizer, self.layout.config):
            for name in ("pad_token_id", "eos_token_id"):
                found = getattr(source, name, None)
                if isinstance(found, int) and 0 <= found < size:
                    return found
        return 0

    def _merge_extras(self, prompts: Sequence[Prompt], width: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for name in dict.fromkeys(name for p in prompts for name in p.extras):
            parts = [p.extras[name] for p in prompts if name in p.extras]
            if name in PER_TOKEN:
                if len(parts) != len(prompts):
                    raise PromptError(f"Some prompts of the batch have {name} and some have not.")
                merged[name] = torch.tensor([self._padded(row, width) for part in parts for row in part])
            else:
                merged[name] = torch.cat([torch.as_tensor(part) for part in parts])
        return merged

    def _padded(self, row: list[int], width: int) -> list[int]:
        pad = [0] * (width - len(row))
        return pad + row if self.side == "left" else row + pad


def _first_position(layout: Layout) -> int:
    """The number under which the model looks up the position of a first token: RoBERTa keeps those up to its padding's free.

    OPT leaves rows free too, and passes them itself.
    """
    path = layout.family.pos_embed
    try:
        module = layout.module(layout.base, path) if path else None
    except FamilyError:  # the site is refused then, and the rest of the model is not
        module = None
    padding = getattr(module, "padding_idx", None)
    return 0 if padding is None or hasattr(module, "offset") else int(padding) + 1


def _is_ids(prompt: Any) -> bool:
    """Whether a prompt is token ids: an array, a tensor, a list of numbers, or a list of those."""
    if hasattr(prompt, "tolist"):
        return True
    if isinstance(prompt, str) or not isinstance(prompt, Sequence) or not prompt:
        return False
    return all(isinstance(item, Integral) or hasattr(item, "tolist") or
               (isinstance(item, Sequence) and not isinstance(item, str) and all(isinstance(i, Integral) for i in item))
               for item in prompt)


def _id_rows(prompt: Any) -> list[Any]:
    """Token ids as rows of plain numbers.

    Raises:
        PromptError: more than two axes, or numbers and rows mixed.
    """
    rows = prompt.tolist() if hasattr(prompt, "tolist") else [i.tolist() if hasattr(i, "tolist") else i for i in prompt]
    if isinstance(rows, Integral):
        rows = [rows]
    if all(isinstance(row, Integral) for row in rows):
        return [[int(i) for i in rows]]
    rows = [row[0] if len(row) == 1 and isinstance(row[0], list) else row for row in rows if not isinstance(row, Integral)]
    if any(not isinstance(i, Integral) for row in rows for i in row):
        raise PromptError("Token ids come as [pos] or [batch pos], whole numbers only.")
    return [[int(i) for i in row] for row in rows]


def merge(prompts: Sequence[Prompt]) -> Tokens:
    """The tokens of several prompts as one batch."""
    parts = [p.tokens for p in prompts if p.tokens is not None]
    first = parts[0]
    if len(parts) == 1:
        return first
    rows: dict[str, Any] = {}
    for part in fields(Tokens):
        values = [getattr(tokens, part.name) for tokens in parts]
        if part.name != "padding_side":
            rows[part.name] = None if any(v is None for v in values) else tuple(row for v in values for row in v)
    return replace(first, **rows)
