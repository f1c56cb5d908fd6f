"""Addresses: what they mean, and what is said of the ones that mean nothing."""

from __future__ import annotations

import pytest

from hooklab.address import expand, parse
from hooklab.errors import LayerError, SiteError
from hooklab.sites import LAYER_SITES, MODEL_SITES, SITES

SIZES = dict(n_layers=6, n_heads=4, n_kv_heads=2, d_mlp=8)


@pytest.mark.parametrize(("text", "places"), [
    ("L5.resid_post", ["L5.resid_post"]),
    ("L-1.mlp_post", ["L5.mlp_post"]),
    ("L*.z", [f"L{i}.z" for i in range(6)]),
    ("L0:4.pattern", [f"L{i}.pattern" for i in range(4)]),
    ("L-2:.z", ["L4.z", "L5.z"]),
    ("L[0,3].q", ["L0.q", "L3.q"]),
    ("L[0,2:4,-1].q", ["L0.q", "L2.q", "L3.q", "L5.q"]),
    ("L2H3.z", ["L2H3.z"]),
    ("L2H-1.z", ["L2H3.z"]),
    ("L2H[0,2].pattern", ["L2H[0,2].pattern"]),
    ("L2H1.k", ["L2H1.k"]),
    ("L2H3", ["L2H3.result"]),
    ("L2N7", ["L2N7.mlp_post"]),
    ("logits", ["logits"]),
    ("embed", ["embed"]),
    ("blocks.5.attn.hook_z", ["L5.z"]),
    ("blocks.0.hook_resid_mid", ["L0.resid_mid"]),
    ("hook_pos_embed", ["pos_embed"]),
    ("ln_final.hook_scale", ["ln_final_scale"]),
])
def test_meaning(text, places):
    assert [str(place) for place in expand(text, **SIZES)] == places


@pytest.mark.parametrize(("text", "error", "words"), [
    ("L9.z", LayerError, "There is no layer 9: this model has 6 layers, 0 to 5"),
    ("L-7.z", LayerError, "-6 to -1 from the end"),
    ("L6:9.z", LayerError, "names none of the 6 layers"),
    ("L0H4.z", LayerError, "There is no head 4"),
    ("L0H2.k", LayerError, "There is no kv_head 2: this model has 2"),
    ("L0N8.mlp_post", LayerError, "There is no neuron 8"),
    ("L0.zz", SiteError, 'There is no site "zz"'),
    ("L0.resid_pst", SiteError, 'Did you mean "resid_post"?'),
    ("resid_post", SiteError, '"L0.resid_post" for one'),
    ("L0", SiteError, 'write "L0.resid_post"'),
    ("L0H1.resid_post", SiteError, "resid_post has no heads"),
    ("L0N1.z", SiteError, "z has no neurons"),
    ("blocks.0.hook_resid_mdi", SiteError, 'Did you mean "hook_resid_mid"?'),
    ("layer 3", SiteError, "is not an address"),
    ("", SiteError, "is not an address"),
])
def test_errors_say_what_there_is(text, error, words):
    with pytest.raises(error) as caught:
        expand(text, **SIZES)
    assert words in str(caught.value)


def test_every_site_has_an_address_and_an_alias():
    for name in LAYER_SITES:
        assert parse(f"L0.{name}").site == name
        assert parse(SITES[name].tl.format(0)).site == name
    for name in MODEL_SITES:
        assert parse(name).site == name


def test_places_sort_in_the_order_of_a_forward_pass():
    places = [p for a in ("logits", "L1.q", "L0.resid_post", "embed", "L0.q") for p in expand(a, **SIZES)]
    assert [str(p) for p in sorted(places, key=lambda p: p.order)] == ["embed", "L0.q", "L0.resid_post", "L1.q", "logits"]
