"""`hl.load`: any model, by name, folder or in memory, opened and checked."""

from __future__ import annotations

import json
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import HooklabWarning, ModelError, did_you_mean
from ..families import FAMILIES, WRAPPERS
from ..progress import quiet_libraries
from .model import Model

_VERIFIED: dict[tuple[str, ...], dict[str, str]] = {}
"""(architecture, versions) that were checked in this process -> sites refused."""

_LOCAL = ("lab", "gate", "gate-null")
"""The names that need no network: one has its weights in the package, the others are made."""


def load(model: str | Path | nn.Module = "lab", *, tokenizer: Any = None, processor: Any = None, dtype: Any = None,
         device: Any = None, device_map: Any = None, revision: str | None = None, trust_remote_code: bool = False,
         quantization_config: Any = None, verify: bool = True, **kwargs: Any) -> Model:
    """Open a model.

    Args:
        model: `"lab"` (the model shipped with hooklab), a name on the Hugging Face hub, a local folder, or a
            `transformers` module in memory. `"gate"` and `"gate-null"` are small models that see images, made on the spot,
            with weights set by hand: see `hooklab.model.gate`.
        tokenizer: Tokenizer object, or a name or folder to load one from; found by itself for names and folders.
        processor: Processor for images and text, likewise.
        dtype: Type of the weights, e.g. `torch.bfloat16` or `"auto"`; the checkpoint's own by default.
        device: Where to put the model, e.g. `"cuda"`. Without it, a module in memory stays where it is, and weights
            that are loaded go to the CPU.
        device_map: How to spread it over devices (needs `accelerate`); not together with `device`.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Allow code that comes with the checkpoint to run.
        quantization_config: Passed on to `from_pretrained`.
        verify: Check the architecture once per process and refuse sites that do not satisfy their definitions; not the
            models that are made, in which most changes change nothing.
        kwargs: Passed on to `from_pretrained`.

    Raises:
        ModelError: the model cannot be found, reached or loaded; the message says which and what to do.
        FamilyError: there is no table for its architecture.

    Example:
        >>> import hooklab as hl
        >>> hl.load("lab").facts.family
        'gpt2'
    """
    if not isinstance(model, (str, Path, nn.Module)) or model == "":
        opened_already = " It is open already." if isinstance(model, Model) else ""
        raise ModelError(f"hl.load takes a name, a folder or a transformers module, not {model!r}.{opened_already}")
    if isinstance(model, nn.Module) and not hasattr(model, "config"):
        raise ModelError(f"{type(model).__name__} has no config, so it is no transformers model.")
    if device is not None and device_map is not None:
        raise ModelError("Pass either device= (one device) or device_map= (several), not both.")
    options = dict(dtype=dtype, device_map=device_map, revision=revision, trust_remote_code=trust_remote_code or None,
                   quantization_config=quantization_config, **kwargs)
    options = {name: value for name, value in options.items() if value is not None}
    if isinstance(model, nn.Module):
        if options:
            raise ModelError(f"{', '.join(options)} only apply when hooklab loads the weights; this model is already "
                             f"in memory.")
        hf, source = model, None
    elif model in _LOCAL[1:]:
        (hf, own), source, verify = _made(str(model), options), None, False
        tokenizer, processor = tokenizer or own.tokenizer, processor or own
    else:
        source = _resolve(str(model))
        with quiet_libraries() if model == "lab" else nullcontext():
            hf = _from_pretrained(source, options)
    if device is not None:
        try:
            hf.to(device)
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"The model could not be put on {device!r}: {str(error).splitlines()[0]}") from error
    opened = Model(hf, _companion("tokenizer", tokenizer, source, options),
                   _companion("processor", processor, source, options, wanted=_sees_images(hf)))
    opened._revision = revision
    _warn_of_unknown(opened)
    if verify and not any(p.device.type == "meta" for p in hf.parameters()):
        _refuse_broken(opened)
    return opened


def _made(name: str, options: dict[str, Any]) -> tuple[nn.Module, Any]:
    """A model whose weights are set by hand, and its processor."""
    from .gate import NAMES, build

    known = ("dtype", "attn_implementation")
    if extra := [option for option in options if option not in known]:
        raise ModelError(f'{", ".join(extra)} cannot apply: "{name}" is made on the spot, not loaded from a checkpoint.')
    hf, own = build(gate=NAMES[name], **{key: value for key, value in options.items() if key == "attn_implementation"})
    dtype = options.get("dtype", "auto")
    return hf if dtype == "auto" else hf.to(_dtype(dtype)), own


def _dtype(dtype: Any) -> Any:
    """A type of weights, by itself or by its name in torch."""
    import torch

    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"dtype={dtype!r} is no type of weights; torch.bfloat16 is one.")
    return found


def _resolve(name: str) -> str:
    """A folder or hub name to load from; the shipped model's folder for `"lab"`."""
    if name == "lab":
        from .lab import PATH

        return str(PATH)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} is a folder, but holds no config.json, so it is no saved model.")
        return str(path)
    if path.exists():
        raise ModelError(f"{path} is a file; pass the folder that model.save_pretrained wrote.")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise ModelError(f"There is no folder {path}.{near}")
    return name


def _from_pretrained(source: str, options: dict[str, Any]) -> nn.Module:
    """Load config and weights with transformers' own loaders; one clear line for each way it can fail."""
    import transformers

    hub = {name: options[name] for name in ("revision", "trust_remote_code") if name in options}
    try:
        config = transformers.AutoConfig.from_pretrained(source, **hub)
        if "auto_map" in config.to_dict() and not options.get("trust_remote_code"):
            _check_code(config, source)
        loader = _loader(config)
        return loader.from_pretrained(source, **options).eval()
    except Exception as error:
        raise ModelError(_why(source, error)) from error


def _loader(config: Any) -> Any:
    """The transformers class that a checkpoint's config asks for."""
    import transformers

    for name in getattr(config, "architectures", None) or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    return transformers.AutoModelForCausalLM


def _check_code(config: Any, source: str) -> None:
    if config.model_type not in FAMILIES and config.model_type not in WRAPPERS:
        raise ModelError(f"{source} brings its own code. If you trust it, pass trust_remote_code=True.")


def _why(source: str, error: BaseException) -> str:
    """One sentence for what went wrong while loading."""
    text = str(error)
    if isinstance(error, ModelError):
        return text
    if "trust_remote_code" in text:
        return f"{source} brings its own code. If you trust it, pass trust_remote_code=True."
    if isinstance(error, ImportError):
        missing = getattr(error, "name", None) or text.strip().split("\n")[0]
        return f"{source} needs a package that is not installed ({missing}). Install it and try again."
    if isinstance(error, json.JSONDecodeError) or "valid JSON" in text:
        return f"The config.json of {source} is not valid JSON."
    if Path(source).is_dir():
        return f"{source} could not be loaded: {text.strip().splitlines()[0] if text.strip() else type(error).__name__}"
    if _unreachable(error):
        return (f'The Hugging Face hub could not be reached for "{source}", and it is not in the local cache. Check the '
                f"network, pass a local folder, or use the shipped model: hl.load('lab').{did_you_mean(source, _LOCAL)}")
    return f'There is no model "{source}" that could be opened: {text.strip().splitlines()[0]}'


def _unreachable(error: BaseException | None) -> bool:
    words = ("couldn't connect", "connection", "offline", "resolve", "timed out", "max retries", "cannot find the",
             "proxy", "network")
    seen = 0
    while error is not None and seen < 8:
        if isinstance(error, (ConnectionError, TimeoutError)) or any(w in str(error).lower() for w in words):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def _companion(kind: str, given: Any, source: str | None, options: dict[str, Any], *, wanted: bool = True) -> Any:
    """The tokenizer or processor: given, named, or found beside the weights."""
    if given is not None and not isinstance(given, (str, Path)):
        return given
    place = given or source
    if place is None or (given is None and not wanted):
        return None
    import transformers

    loader = transformers.AutoTokenizer if kind == "tokenizer" else transformers.AutoProcessor
    if kind == "tokenizer" and not _has_tokenizer(str(place)):
        _warn_no_tokenizer(place)
        return None
    hub = {name: options[name] for name in ("revision", "trust_remote_code") if name in options}
    try:
        return loader.from_pretrained(str(place), **hub)
    except Exception as error:
        if given is not None:
            raise ModelError(f"No {kind} could be loaded from {place}: {str(error).strip().splitlines()[0]}") from error
        if kind == "tokenizer":
            _warn_no_tokenizer(place)
        return None


def _has_tokenizer(place: str) -> bool:
    """Whether a folder holds a tokenizer; without one, transformers may hand out an empty one instead of failing."""
    folder = Path(place)
    return not folder.is_dir() or any((folder / name).exists() for name in (
        "tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt", "tekken.json"))


def _warn_no_tokenizer(place: Any) -> None:
    warnings.warn(f"No tokenizer was found in {place}: the model takes token ids only. Pass tokenizer=... for text.",
                  HooklabWarning, stacklevel=5)


def _sees_images(hf: Any) -> bool:
    return hasattr(hf.config, "vision_config") or hasattr(hf.config, "vq_config")


# Config attributes that scale or bend the computation in some architecture of transformers. A family whose table is
# silent about one of them may be read wrongly.
_SUSPECT = ("residual_multiplier", "attention_multiplier", "embedding_multiplier", "logits_scaling", "query_rescale",
            "logit_scale", "mup_", "scale_depth", "dim_model_base", "altup_num_inputs", "kv_lora_rank",
            "use_cross_layer_attention", "num_memory_tokens", "laurel_rank")


def _warn_of_unknown(opened: Model) -> None:
    config, factors = opened.layout.config.to_dict(), opened.layout.family.factors.values()
    known = {*(name.removeprefix("/") for name in factors), *(("attention_multiplier",) if factors else ())}
    found = [name for name, value in config.items()  # attention's own number arrives with its scores
             if name not in known and name.startswith(_SUSPECT) and value not in (None, False, 0, 1, 1.0, [], {})]
    if found:
        warnings.warn(f"The config of this {opened.facts.family} sets {', '.join(found)}, which hooklab has not learnt "
                      f"about; check model.verify() before you trust its sites.", HooklabWarning, stacklevel=3)


def _refuse_broken(opened: Model) -> None:
    """Verify an architecture that this process has not seen, and refuse the sites that fail."""
    import nnsight
    import torch
    import transformers

    key = (type(opened.hf).__name__, str(opened.dtype), transformers.__version__, nnsight.__version__,
           torch.__version__, repr(opened.layout.family), str(hash(tuple(map(type, opened.hf.modules())))),
           repr(sorted(opened.layout.config.to_diff_dict().items(), key=lambda kv: kv[0])))
    if key not in _VERIFIED:
        report = opened.verify()
        if not report.finite:  # a fault of these weights, not of the architecture
            warnings.warn(f"This model cannot be verified: {report.checks[0].note}.", HooklabWarning, stacklevel=4)
            return
        _VERIFIED[key] = report.broken
        for site, reason in report.broken.items():
            warnings.warn(f"{site} is refused on this model: {reason}. Every other site is served.", HooklabWarning,
                          stacklevel=4)
    opened.interleaver.refused.update(_VERIFIED[key])
