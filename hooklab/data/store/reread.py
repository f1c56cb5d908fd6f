"""The tokens of a store as a model reads them, for what counts or shows them beside their values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import RecordError, SiteError

if TYPE_CHECKING:
    from ...model.model import Model
    from ...tokens import Tokens
    from .store import Store


def tokens_with(store: Store, site: str, model: Model) -> Tokens:
    """The tokens of every example, one for each stored position of a site.

    Raises:
        RecordError: the store was made with other weights or another tokenizer; it has no tokens or no examples; or the site
            was stored at some positions only.
        SiteError: the store lacks the site.
    """
    _check_same(store, model)
    if site not in store.sites:
        raise SiteError(f"{site} is not in {store.path}: it has {', '.join(store.sites)}")
    ids = [store.tokens(i) for i in range(len(store))]
    for i, some in enumerate(ids):
        if some is None:
            raise RecordError(f"example {store.ids[i]!r} of {store.path} has no tokens: what stands around its strongest "
                              "place is not known")
        if store[site].layout.pos_axis is not None and store[site].positions(i) != list(range(len(some))):
            raise RecordError(f"{site} of example {store.ids[i]!r} was stored at some positions only: extract it without "
                              "at=")
    if not ids:
        raise RecordError(f"{store.path} has no examples")
    return model.tokens(ids)


def _check_same(store: Store, model: Model) -> None:
    """That a store's values came from this model and this tokenizer, as far as it says."""
    from ..extraction.about import about

    told, mine = store.manifest.about, about(model, "", {})
    made = {"weights": ((told.get("model") or {}).get("fingerprint"), mine["model"]["fingerprint"]),
            "a tokenizer": (told.get("tokenizer"), mine["tokenizer"])}
    for name, (theirs, own) in made.items():
        if theirs is not None and theirs != own:
            raise RecordError(f"{store.path} was made with {name} that this model does not have: open the model it was made "
                              "with")
