"""One prompt in double precision: what analyses of the residual stream read their numbers from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..address import Place
from ..errors import PromptError, SiteError
from ..positions import resolve
from ..runtime.trace import capture, places
from ..spec.printer import quote
from .watching import read, tokens_of

if TYPE_CHECKING:
    from ..model.model import Model

POINTS = ("resid_pre", "resid_mid", "resid_post")
"""Where the stream can be looked at."""


@dataclass(frozen=True)
class Single:
    """Values of sites at some positions of one prompt.

    Attributes:
        values: Address -> [pos …], float64, on the CPU.
        positions: A label for each position, such as `"3: Mary"`.
        spec: The line that names the prompt, where it is text.
    """

    values: dict[str, Tensor]
    positions: tuple[str, ...]
    spec: str

    def __getitem__(self, address: str) -> Tensor:
        return self.values[address]


def single(model: Model, prompt: Any, sites: Sequence[str], positions: Any = "each", **inputs: Any) -> Single:
    """Run one prompt once and read sites of it.

    Args:
        model: An opened model.
        prompt: One text, or the ids of one.
        sites: Addresses of whole sites whose second axis is `pos`.
        positions: A selector, such as `"last"`, `3` or `"each"`, which is all of them.
        inputs: Further inputs, such as `images=`.

    Raises:
        PromptError: there are several prompts, or embeddings in place of tokens.
        PositionError, TokenError: there is no such position.
        SiteError: the model lacks one of the sites.
    """
    made = read(model, prompt, **inputs)
    tokens = tokens_of(made)
    if len(tokens) != 1:
        raise PromptError(f"the stream is looked at for one prompt at a time, and these are {len(tokens)}: "
                          "give one text, or the ids of one")
    chosen = resolve(positions, tokens)[0]
    acts = capture(model, made, list(sites), at=chosen)
    values = {site: acts[site].double().cpu() for site in sites}
    labels = tuple(f"{i}: {tokens.pieces[0][i]}" for i in chosen)
    return Single(values, labels, f"prompt {quote(prompt)}" if isinstance(prompt, str) else "")


def point(model: Model, address: str) -> Place:
    """The one place of the stream that an address names.

    Raises:
        SiteError: it names another site, several places, or one that the model lacks.
    """
    found = places(model, [address])
    if len(found) != 1 or found[0].site not in POINTS:
        raise SiteError(f"{address} is not one place of the residual stream: write L2.resid_post, say; the places are "
                        f"{', '.join(POINTS)}")
    return found[0]
