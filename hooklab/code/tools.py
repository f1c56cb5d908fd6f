"""Helpers that a program may need, as text: each is written out where it is used, so nothing has to be imported."""

from __future__ import annotations

TOOLS = {
    "unit": '''\
def unit(v):
    """The same direction at length 1."""
    return v / v.norm(dim=-1, keepdim=True)''',
    "dot": '''\
def dot(v, w):
    """How much of each other two vectors have."""
    return (v * w).sum(-1, keepdim=True)''',
    "cos": '''\
def cos(v, w):
    """The cosine of the angle between two vectors."""
    return dot(unit(v), unit(w))''',
    "proj": '''\
def proj(v, along):
    """The component of a vector along a direction."""
    return dot(v, unit(along)) * unit(along)''',
    "without": '''\
def without(v, direction):
    """A vector without its component along a direction."""
    u = direction.to(v.dtype).expand_as(v)
    u = u / u.norm(dim=-1, keepdim=True)
    return v - (v * u).sum(-1, keepdim=True) * u''',
    "gaussian": '''\
def gaussian(like, seed):
    """Normal noise in the shape of `like`; the same for the same (seed, line, layer, site)."""
    made = torch.Generator().manual_seed(hash(seed) % (1 << 63))
    return torch.randn(like.shape, generator=made).to(like)''',
}
