"""Every error that hooklab raises on purpose, and the words that help.

    HooklabError
    ├── ModelError              a model cannot be opened or taken apart
    │   └── FamilyError         no table for this architecture
    ├── SiteError (LookupError) a site that does not exist, here or anywhere
    │   └── SiteNameError (AttributeError)
    ├── LayerError (IndexError) a layer, head or neuron out of range
    ├── PositionError (IndexError), TokenError (LookupError)
    ├── PromptError (ValueError) an input that no forward pass can take
    ├── WriteError (ValueError) a value that cannot replace the one it is written over
    ├── RecordError (ValueError) a result that does not fit together, or cannot be found, stored or read
    ├── ViewError (ValueError)   what a view cannot draw, choose or answer
    ├── TraceError (RuntimeError) a trace used where or how it cannot work
    │   └── OrderError          a site asked for after the model has gone past it
    └── VerifyError             a site that does not satisfy its own definition
HooklabWarning is for what runs but is probably not what was meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class HooklabError(Exception):
    """Base of every error that hooklab raises on purpose."""


class ModelError(HooklabError):
    """A model that cannot be opened or taken apart."""


class FamilyError(ModelError):
    """An architecture for which there is no table."""


class SiteError(HooklabError, LookupError):
    """A site that this model, or every model, lacks."""

    def __str__(self) -> str:
        # LookupError's subclasses print the repr of their argument; a sentence should read as one.
        return str(self.args[0]) if self.args else ""


class SiteNameError(SiteError, AttributeError):
    """A name that is neither a site nor anything else of the layer."""


class LayerError(HooklabError, IndexError):
    """A layer, head or neuron out of range."""


class PositionError(HooklabError, IndexError):
    """A position that an example does not have."""


class TokenError(HooklabError, LookupError):
    """A token text that is absent or ambiguous."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class PromptError(HooklabError, ValueError):
    """An input that no forward pass can take."""


class WriteError(HooklabError, ValueError):
    """A value that cannot replace the one it is written over."""


class RecordError(HooklabError, ValueError):
    """A result whose parts do not fit together, or that cannot be found, stored or read."""


class ViewError(HooklabError, ValueError):
    """What a view cannot draw, choose or answer."""


class TraceError(HooklabError, RuntimeError):
    """A trace used where or how it cannot work."""


class VerifyError(HooklabError):
    """A site that does not satisfy its own definition on this model."""


class Stopped(KeyboardInterrupt):
    """A run that was interrupted.

    Attributes:
        run: What was done before: runs that are complete, and sweeps whose missing cells are not a number; None when there
            is nothing.
    """

    def __init__(self, message: str = "", run: Any = None) -> None:
        super().__init__(message)
        self.run = run


class HooklabWarning(UserWarning):
    """Something that runs but is probably not what was meant."""


def nearest(word: str, options: Iterable[str]) -> str | None:
    """The option closest to `word`, or None when nothing is close.

    >>> nearest("resid_pst", ["resid_pre", "resid_post", "z"])
    'resid_post'
    """
    found = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return found[0] if found else None


def did_you_mean(word: object, options: Iterable[str]) -> str:
    """The hint to append to an error about an unknown `word`; empty when nothing is close.

    >>> did_you_mean("patern", ["pattern", "scores"])
    ' Did you mean "pattern"?'
    """
    close = nearest(str(word), options)
    return f' Did you mean "{close}"?' if close else ""
