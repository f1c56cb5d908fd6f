"""A model taken apart: the object that `hl.load` returns.

It wraps a Hugging Face module without changing it: the module's weights, tokenizer, attention implementation and
gradient flags are the user's, and `close()` (or the end of a `with`) takes hooklab's instrumentation out again.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, SiteNameError, TraceError, did_you_mean
from ..sites import LAYER_SITES, MODEL_SITES
from ..tokens import Tokens
from .checks import self_test
from .dropouts import warn_of_dropout
from .envoys import Block, Layers, SiteProperty
from .facts import Facts
from .grouping import per_head
from .inputs import INPUT_NAMES, Reader
from .instrumentation import instrumented, released
from .interleaver import SiteInterleaver
from .layout import Layout
from .root import Root
from .sitetable import SiteTable
from .tracer import HookTracer, make_source_findable, opens_generate
from .vocabulary import single_token

if TYPE_CHECKING:
    from ..compiler import Plan
    from ..records import Activations, Run
    from ..runtime.hooks import Handle
    from .verification.report import Report
    from .weights import Weights


class Model:
    """A Hugging Face model whose every activation has a name.

    Attributes:
        hf: The Hugging Face module.
        tokenizer: Its tokenizer, or None.
        processor: Its processor for images and text, or None.
        facts: Sizes: n_layers, n_heads, n_kv_heads, d_model, d_head, d_mlp, d_vocab, n_ctx, family, causal.
        hooks: The hooks that stand, in the order in which they act.
        layers: The blocks; each has the sites of a layer as attributes.
        sites: Table of sites, which of them this model has, and why it lacks the others.

    Example:
        >>> import hooklab as hl
        >>> model = hl.load("lab")
        >>> with model.trace("When Mary and John went to the store, John gave a drink to") as t:
        ...     stream = model.layers[1].resid_post.save()
        ...     logits = model.logits.save()
        >>> tuple(stream.shape) == (1, t.tokens.width, model.facts.d_model)
        True
    """

    path = "model"

    def __init__(self, hf: Any, tokenizer: Any = None, processor: Any = None) -> None:
        self_test()
        self.hf = hf
        self.layout: Layout = Layout(hf)
        self.interleaver = SiteInterleaver(self.layout)
        self.reader = Reader(self.layout, tokenizer or getattr(processor, "tokenizer", None), processor)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*submodule named.*")
            self._root = Root(hf, interleaver=self.interleaver,
                              envoys={type(block): Block for block in self.layout.blocks})
        self._root.reader = self.reader
        self.layers = Layers([self._envoy(block) for block in self.layout.blocks])
        self.hooks: list[Handle] = []
        self._weights: Weights | None = None
        self._revision: str | None = None
        self._closed = False
        instrumented(hf)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that text goes through, or None; assign another to use it from now on."""
        return self.reader.tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self.reader.tokenizer = tokenizer

    @property
    def processor(self) -> Any:
        """The processor for images and text, or None."""
        return self.reader.processor

    # What it is -------------------------------------------------------------------------------------------------

    @property
    def facts(self) -> Facts:
        """Sizes of the model."""
        return self.layout.facts

    @property
    def sites(self) -> SiteTable:
        """Every site: its axes, its meaning, whether this model has it."""
        return SiteTable(self.layout, self.interleaver.refused)

    @property
    def device(self) -> torch.device:
        """Where the first parameter lives."""
        return next(self.hf.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the embedding matrix."""
        return self.hf.get_input_embeddings().weight.dtype

    @property
    def W(self) -> Weights:
        """Standardised weights: `model.W.Q[3, 2]`, `model.W.OV(3, 2)`."""
        from .weights import Weights

        if self._weights is None:
            self._weights = Weights(self.layout)
        return self._weights

    def tokens(self, prompt: Any, **kwargs: Any) -> Tokens:
        """The tokens of a prompt (text, texts, ids, encoding, chat): what every position selector counts on.

        Raises:
            PromptError: the prompt is empty, too long or of a kind that this model cannot take.
        """
        return self.reader.tokens(prompt, **kwargs)

    def single_token(self, text: str) -> int:
        """The id of a text that is one token, such as `" Mary"`: for answers, and for columns of `W.U`.

        Raises:
            TokenError: it is several tokens, which the message shows, or none of this model's; or there is no tokenizer.

        Example:
            >>> import hooklab as hl
            >>> model = hl.load("lab")
            >>> model.tokenizer.decode(model.single_token(" Mary"))
            ' Mary'
        """
        return single_token(self.tokenizer, text)

    # Running it -------------------------------------------------------------------------------------------------

    def trace(self, *prompt: Any, grad: bool | str = False, **kwargs: Any) -> HookTracer:
        """Run the model with a block of code looking in: `with model.trace(prompt) as t:`.

        Args:
            prompt: Text, list of texts, token ids, encoding, chat messages; nothing when the block holds
                `with t.invoke(prompt):` blocks, which share one forward pass.
            grad: Keep gradients of activations (`True`), or of parameters too (`"weights"`). Off by default. Gradient
                checkpointing is off for the length of the run, which then needs the memory that it saves.
            kwargs: Further inputs (`images=`, `attention_mask=`) and arguments of the model's forward.

        Raises:
            PromptError: for a prompt that the model cannot take.
            TraceError: when called inside a running trace of the same model.
        """
        self._ready(sys._getframe(1))
        self.reader.check_options({name: None for name in kwargs if name not in INPUT_NAMES})
        return HookTracer(self._root, "__call__", *prompt, reader=self.reader, grad=grad, **kwargs)

    def generate(self, *prompt: Any, **kwargs: Any) -> Any:
        """Generate token by token, with or without a block looking in.

        As a context (`with model.generate(prompt, max_new_tokens=3) as t:`) values are read step by step under
        `for step in t.iter[:3]:` and `t.result` is the ids, [batch pos]. Called plainly it returns the ids.
        Keyword arguments are those of transformers' `generate`.
        """
        from nnsight.tracing.tracer import WithBlockNotFoundError

        if kwargs.get("grad"):
            raise TraceError("transformers generates without gradients. Trace the finished sequence with grad=True.")
        if not hasattr(self.hf, "generate"):
            raise ModelError(f"{type(self.hf).__name__} does not generate: load the model with its causal language-model "
                             f"head (transformers.AutoModelForCausalLM).")
        self._ready(sys._getframe(1))
        tracer = HookTracer(self._root, "generate", *prompt, reader=self.reader, **kwargs)
        with contextlib.suppress(WithBlockNotFoundError):
            tracer.capture()
            if opens_generate(tracer.node):
                return tracer
        from ..runtime.trace import plain

        return plain(self, "generate", *tracer.args, **tracer.kwargs)

    def capture(self, prompt: Any, sites: str | Iterable[str], *,
                edits: Mapping[str, Callable[..., Any]] | None = None, at: Any = None, grad: bool = False,
                **kwargs: Any) -> Activations:
        """Run once and return the values of sites, in any order, without a block; see `hooklab.runtime.trace`."""
        from ..runtime.trace import capture

        warn_of_dropout(self.layout.dropouts, stacklevel=2)
        return capture(self, prompt, sites, edits=edits, at=at, grad=grad, **kwargs)

    def per_head(self, value: Tensor) -> Tensor:
        """Keys or values as each query head reads them: [… kv_head d_head] -> [… head d_head].

        Under grouped-query attention several query heads share one head of keys and values; head h reads number
        `h // (n_heads / n_kv_heads)`. Without it the numbers are the same as before.

        Args:
            value: What `k`, `rot_k` or `v` gave: [batch pos kv_head d_head], or [n kv_head d_head] of some positions.

        Raises:
            RecordError: it is of another shape.

        Example:
            >>> import hooklab as hl
            >>> model = hl.load("lab")
            >>> acts = model.capture("When Mary went", ["L0.v", "L0.pattern", "L0.z"])
            >>> z = torch.einsum("bhqk,bkhd->bqhd", acts["L0.pattern"], model.per_head(acts["L0.v"]))
            >>> torch.allclose(z, acts["L0.z"], atol=1e-5)
            True
        """
        return per_head(value, self.facts)

    def hook(self, address: str, function: Callable[..., Any], *, grad: bool = False, at: Any = None) -> Handle:
        """Put a function on a site in every run, until its handle is removed; see `hooklab.runtime.hooks`."""
        from ..runtime.hooks import hook

        return hook(self, address, function, grad=grad, at=at)

    def plan(self, spec: Any, *, values: Mapping[str, Any] | None = None, **names: Any) -> Plan:
        """What a spec will do on this model, without doing it: passes, sites, bytes; see `run` for the arguments.

        Raises:
            SpecError: with every problem of the spec.
        """
        from ..runtime.execute import compile_for

        return compile_for(self, spec, {**names, **(values or {})})

    def run(self, spec: Any, *, values: Mapping[str, Any] | None = None, rows: int | None = None,
            progress: Callable[[int, int, str], None] | None = None, remote: bool | str = False, **names: Any) -> Run:
        """Run a spec of the hook language.

        Args:
            spec: A `Spec`, its text, or a `Plan` made by `plan`.
            values: What Python between braces stands for, by its source text.
            rows: Most rows of one forward pass; by default what fits into a gigabyte.
            progress: Called with (done, total, what) as the work goes on.
            remote: Run on NDIF through nnsight (`True`), or `"local"` to simulate that.
            names: The same as `values`, for braces that hold a plain name.

        Returns:
            Everything that the spec asked for.

        Raises:
            SpecError: with every problem of the spec, or what went wrong, or the claims that do not hold.

        Example:
            >>> import hooklab as hl
            >>> model = hl.load("lab")
            >>> run = model.run('''
            ... prompt "The Eiffel Tower is in the city of"
            ... answer " Paris"
            ... metric prob
            ... zero L*.attn @last
            ... ''')
            >>> run.metrics["hooked"]["prob"] < run.metrics["main"]["prob"]
            True
        """
        from ..compiler import Plan
        from ..runtime.execute import execute

        plan = spec if isinstance(spec, Plan) else self.plan(spec, values=values, **names)
        if remote:
            from ..runtime.remote import execute_remote

            if self.hooks:
                raise TraceError("Hooks cannot travel with a remote run: remove them first, or run it here.")

            return execute_remote(self, plan, remote, rows=rows, progress=progress)
        return execute(self, plan, rows=rows, progress=progress)

    def verify(self, prompt: Any = None) -> Report:
        """Check every site's identities and write laws on a dozen tokens; see `hooklab.model.verification`."""
        from .verification.verify import verify

        return verify(self, prompt)

    def _ready(self, frame: Any) -> None:
        """Refuse what cannot run, before anything starts; `frame` is the caller's, whose block will be read."""
        self._ready_to_run()
        warn_of_dropout(self.layout.dropouts, stacklevel=3)
        make_source_findable(frame)

    def _ready_to_run(self) -> None:
        if self._closed:
            raise TraceError("This model was closed. Open its module again: hl.load(model.hf).")
        if self.interleaver.interleaving and self.interleaver.thread == threading.get_ident():
            raise TraceError("This model is already running a trace; a trace of the same model cannot be opened inside "
                             "it. Use t.invoke(...) for more prompts, or end the outer block first.")
        if self.device.type == "meta":
            raise ModelError("This model's weights are on the meta device: it has sizes but no numbers. Load it with "
                             "weights (hl.load without device='meta') to run it.")

    # Ends -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take hooklab's and nnsight's instrumentation out of the module, which is then as it was before."""
        if self._closed:
            return
        self._closed = True
        released(self.hf)

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    # Names that are not ours are nnsight's ---------------------------------------------------------------------

    def _envoy(self, module: nn.Module) -> Any:
        return self.interleaver.envoys[id(module)]

    def __getattr__(self, name: str) -> Any:
        root = self.__dict__.get("_root")
        if root is None or name.startswith("__"):
            raise AttributeError(name)
        try:
            return getattr(root, name)
        except AttributeError:
            pass
        if name in LAYER_SITES:
            raise SiteNameError(f"{name} is a site of a layer: model.layers[0].{name}.")
        raise SiteNameError(f"A model has no {name!r}." + did_you_mean(name, (*MODEL_SITES, *LAYER_SITES, *dir(type(self)))))

    def __setattr__(self, name: str, value: Any) -> None:
        root, opened = self.__dict__.get("_root"), "_closed" in self.__dict__
        if not opened or hasattr(type(self), name) or name.startswith("_") or name in self.__dict__:
            object.__setattr__(self, name, value)
        elif hasattr(type(root), name):
            setattr(root, name, value)  # model.output = …, nnsight's own
        else:
            self.__getattr__(name)  # raises for a name that does not exist
            raise SiteNameError(f"{name!r} cannot be assigned." + did_you_mean(name, MODEL_SITES))

    def __repr__(self) -> str:
        facts = self.facts
        return (f"Model({facts.family}: {facts.n_layers} layers × {facts.n_heads} heads, d_model {facts.d_model}, "
                f"vocabulary {facts.d_vocab}, {str(self.dtype).removeprefix('torch.')} on {self.device})")


for _site in MODEL_SITES:
    setattr(Model, _site, SiteProperty(_site))
