"""Open a dictionary of features, whatever it is in, and splice it into a site."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from ..errors import ModelError
from .autoencoder import SAE
from .dictionary import Attached, Dictionary, size_of
from .files import KEY, header, read
from .layouts import CFG, WEIGHTS, read_openai, read_saelens

Features = SAE | Dictionary | Attached
_PLAIN = ("W_enc", "b_enc", "W_dec", "b_dec")


def attach(source: Any) -> Features:
    """Open a dictionary: a path that `load_sae` reads, or an object that encodes and decodes.

    Raises:
        ModelError: it is neither.
    """
    if isinstance(source, Features):
        return source
    if isinstance(source, str | Path):
        return _open(Path(source).expanduser())
    if not callable(getattr(source, "encode", None)) or not callable(getattr(source, "decode", None)):
        raise ModelError(f"A {type(source).__name__} is no dictionary of features: it needs encode(x) and decode(f).")
    return Attached(source, size_of(source))


def load_sae(path: str | Path, **options: Any) -> SAE:
    """An autoencoder from local files; nothing is downloaded, and no code in them is run.

    Args:
        path: What `save_sae` stored; a safetensors file with `W_enc`, `b_enc`, `W_dec`, `b_dec`; a folder of SAELens
            (`cfg.json`, `sae_weights.safetensors`); a `.pt` file of OpenAI's release.
        options: `scale` for SAELens, `norm` for OpenAI: what their files leave open.

    Raises:
        ModelError: there is none, it cannot be read, or it says what hooklab does not know.
    """
    found = _open(Path(path).expanduser(), **options)
    return found if isinstance(found, SAE) else SAE(found.w_enc, found.b_enc, found.w_dec, found.b_dec)


def _open(path: Path, **options: Any) -> SAE | Dictionary:
    folder = path if path.is_dir() else path.parent
    if (path.is_dir() or path.name == WEIGHTS) and (folder / CFG).is_file():
        return read_saelens(folder, **_known(options, "scale", folder))
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise ModelError(f"There is no dictionary of features at {path}: give a safetensors file with W_enc, b_enc, "
                         f"W_dec and b_dec, a folder of SAELens, or an object in braces.")
    if file.suffix in (".pt", ".pth"):
        return read_openai(file, **_known(options, "norm", file))
    _known(options, "", file)
    return read(file)[0] if KEY in header(file) else _plain(file)


def _known(options: dict[str, Any], word: str, path: Path) -> dict[str, Any]:
    if unknown := sorted(set(options) - {word}):
        raise ModelError(f"{path} leaves nothing open that {', '.join(unknown)} could say")
    return options


def _plain(file: Path) -> Dictionary:
    from safetensors.torch import load_file

    found = load_file(file)
    missing = [name for name in _PLAIN if name not in found]
    if missing:
        raise ModelError(f"{file} has no {', '.join(missing)}.")
    if unknown := sorted(set(found) - set(_PLAIN)):
        raise ModelError(f"{file} has tensors that hooklab does not know, and no {CFG} beside it says what they are: "
                         f"{', '.join(unknown)}")
    return Dictionary(found["W_enc"], found["b_enc"], found["W_dec"], found["b_dec"])


def encoded(sae: Any, x: Tensor) -> Tensor:
    """Features [… feature] of activations [… d], with gradients: an object of the user's is wrapped for use without."""
    found: Tensor = getattr(sae, "inner", sae).encode(x)
    return found


def decoded(sae: Any, features: Tensor, like: Tensor) -> Tensor:
    """What features [… feature] of inputs `like` [… d] stand for, with gradients."""
    if isinstance(sae, SAE):
        return sae.decode(features, like=like)
    if isinstance(sae, Dictionary):
        return sae.decode(features)
    inner = getattr(sae, "inner", sae)
    inner.encode(like)  # some remember the scale of what they encoded last
    found: Tensor = inner.decode(features)
    return found


def pull_back(sae: Any, features: Tensor, like: Tensor, gradient: Tensor) -> Tensor:
    """The gradient [… feature] at features of inputs `like`, from that at what they stand for, [… d]; the error is kept."""
    with torch.enable_grad():
        root = features.detach().clone().requires_grad_()
        out = decoded(sae, root, like.detach())
        return torch.autograd.grad(out, root, gradient.to(out))[0]


ERRORS = ("keep", "drop")


Through = Callable[[Tensor], Tensor]


@overload
def splice(source: Any, edit: Callable[[Tensor], Tensor | None] | None = None, *, error: str = "keep") -> Through: ...


@overload
def splice(source: Any, edit: Callable[[Tensor], Tensor | None] | None = None, *, error: str = "keep", at: str,
           to: str) -> dict[str, Through]: ...


def splice(source: Any, edit: Callable[[Tensor], Tensor | None] | None = None, *, error: str = "keep",
           at: str | None = None, to: str | None = None) -> Through | dict[str, Through]:
    """A function for a site that sends it through a dictionary: for `edits=` of `model.capture`, or a hook.

        model.capture(prompt, "logits", edits={"L4.resid_post": splice(sae, lambda f: f.index_fill(-1, i, 0))})
        model.capture(prompt, "logits", edits=splice(transcoder, zero, at="L4.ln2", to="L4.mlp_out"))

    With `error="keep"`, what the dictionary does not explain is added back: without an edit nothing changes, neither values
    nor gradients. With `"drop"` the model goes on with the reconstruction. Either way the features that `edit` is given
    receive the gradient of what is decoded from them.

    Args:
        source: A dictionary, or what `attach` opens.
        edit: From features [… feature] to others, or None after changing them in place.
        error: `"keep"` or `"drop"`.
        at: The site that a transcoder reads, and `to` the one that it writes to: the result is then a table of both
            functions by site, for `edits=` as it stands.
        to: See `at`.

    Raises:
        ModelError: another word for `error`, one of `at` and `to` without the other, or no dictionary.
    """
    if error not in ERRORS:
        raise ModelError(f'error={error!r} is neither "keep" nor "drop"')
    if (at is None) != (to is None) or (at is not None and at == to):
        raise ModelError(f"at={at!r} and to={to!r}: a transcoder reads one site and writes to another; at its own site, an "
                         "autoencoder needs neither")
    sae = attach(source)
    held: dict[str, Tensor] = {}

    def read(x: Tensor) -> Tensor:
        held["x"] = x
        before = held["before"] = encoded(sae, x)
        after = before.clone()
        found = None if edit is None else edit(after)
        held["after"] = after if found is None else found
        return x

    def write(y: Tensor) -> Tensor:
        if len(held) < 3:
            raise ModelError(f"{to} came by before {at}: a transcoder reads first and writes later")
        x, before, after = (held.pop(name) for name in ("x", "before", "after"))
        if error == "keep":
            return sae.changed(y, before, after, like=x)
        return decoded(sae, after, x).to(y.dtype)

    if at is not None and to is not None:
        return {at: read, to: write}
    return lambda x: write(read(x))
