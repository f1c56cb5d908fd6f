"""The page: what the study found on both models, in words and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .study import KNOCKED, PATCHED, SPEC, Study

Pair = tuple[Study, Study]
CODE = '''And what it leaves to Python, with `clean = model.reader.read(questions, images=images)`, and `other` likewise:

```python
parts = {"begin": "boi", "inside": "image - image.last", "last of it": "image.last", "end": "eoi"}
attention_shares(model, clean, "text | last", parts)
patching_metrics(model, other, clean, "L*.resid_post", "eoi", answer=answers, wrong=wrong)
vectors = modality_vectors(model, clean, {"image": "image", "text": "text"})
modality_similarity(vectors), modality_geometry(vectors)
```'''


def page(found: Pair, count: int) -> str:
    """The page."""
    parts = ["# The way from image to text", "Made by `python benchmarks/gate.py`; do not edit.", _opening(found, count),
             "![Shares of attention, knock-outs and patches for the model with a gate and the one without](gate/ways.png)",
             _attention(found), _knocked(found), _patched(found),
             "![Cosines within and between modalities, and homogeneity, over layers](gate/places.png)", _places(found),
             f"The spec:\n\n```\n{SPEC.read_text(encoding='utf-8').strip()}\n```", CODE]
    return "\n\n".join(parts) + "\n"


def _reading(found: Pair) -> int:
    """The layer in which the text looks at the end of the image most."""
    return int(found[0].shares.sel(group="end").values.argmax())


def _opening(found: Pair, count: int) -> str:
    right = " and ".join(f"{one.right['clean']:.0%}" for one in found)
    return (
        "In some models that write images as well as text, what an image shows enters the text through one token, the one "
        "that ends the image (Serra et al. 2024, \"The Narrow Gate\", arXiv:2412.06646). Here is that study as [one spec]"
        "(../benchmarks/gated/gate.hook) and [one script](../benchmarks/gate.py). It says nothing of large models: it runs "
        "on two small ones whose weights are set by hand, so that the answer is known: those that `hl.load(\"gate\")` and "
        "`hl.load(\"gate-null\")` make. In one, the end of the image gathers "
        f"in layer 1 what the picture shows, and the text reads it there in layer {_reading(found)}. In the other (the "
        f"null) the text reads the image's own tokens. Both are asked {count} times which way a picture is striped, with "
        f"the image before the text, after it, and inside it; {right} of their answers are right.")


def _attention(found: Pair) -> str:
    layer = _reading(found)
    ends = [one.shares.sel(group="end").values for one in found]
    return (
        f"**Attention.** Of what the text spends on the image and its markers in layer {layer}, the end of the image gets "
        f"{ends[0][layer]:.2f}; in the null {ends[1][layer]:.2f}. In the other layers attention is even, and a marker gets "
        f"what one of 18 tokens gets, {ends[0][0]:.2f}.")


def _knocked(found: Pair) -> str:
    caption = "**Knock-outs.** Right answers (and mean logit difference) when attention is cut in all layers. Chance is 50%."

    def cell(one: Study, name: str) -> str:
        return f"{one.right[name]:.0%} ({round(one.logits[name], 1) + 0.0:+.1f})"

    return _table(caption, "cut", KNOCKED, found, cell)


def _patched(found: Pair) -> str:
    similar = found[0].outcome.sel(metric="similarity").values
    table = _table("**Patches.** Answers that turn when a part of the image has its vectors from a picture of the other "
                   "kind, in layers 0, 1, 2 and 3.", "patched", PATCHED, found, lambda one, name: _percent(one.flips[name]))
    turned = f"{found[0].flips['end'][1]:.0%}"
    return (
        f"{table}\n\nBefore it has gathered (layer 0) and after it has been read (layer {_reading(found)}), the end of the "
        f"image turns nothing; between them it turns {turned} of the answers, and the next token is that of the other "
        f"picture (Σ min(p, p′) = {similar[1]:.2f}; where it turns nothing, {similar[0]:.2f}). The image's own tokens turn "
        "answers as long as they have not been read: by the end of the image, or in the null by the text.")


def _places(found: Pair) -> str:
    cosine = found[0].similarity

    def span(*pair: int) -> str:
        values = cosine.values[:, *pair]
        return " to ".join(f"{end.round(2) + 0.0:.2f}" for end in (values.min(), values.max()))

    return (
        f"**Where the modalities lie.** The median cosine of an image vector and a text vector is {span(0, 1)} over layers; "
        f"within images {span(0, 0)}, within text {span(1, 1)}. Clusters are of one modality: homogeneity is at least "
        f"{found[0].homogeneity.values.min():.2f} in every layer (null {found[1].homogeneity.values.min():.2f}). In the "
        "null they lie as far apart: distance alone shows no gate.")


def _table(caption: str, what: str, rows: dict[str, str], found: Pair, cell: Callable[[Study, str], str]) -> str:
    body = [f"| {shown} | {' | '.join(cell(one, name) for one in found)} |" for name, shown in rows.items()]
    return "\n".join([caption, "", f"| {what} | through the gate | past it (null) |", "|---|---|---|", *body])


def _percent(shares: Iterable[Any]) -> str:
    return ", ".join(f"{share:.0%}" for share in shares)
