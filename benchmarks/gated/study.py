"""The study: one spec for knock-outs, patches and vectors, and three questions about attention and geometry beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import hooklab as hl
from hooklab.analysis.mass import attention_shares
from hooklab.analysis.modality import modality_geometry, modality_similarity
from hooklab.analysis.outcomes import patching_metrics
from hooklab.model import gate as planted
from hooklab.records import Scores

SPEC = Path(__file__).with_name("gate.hook")
QUESTIONS = ("<image> these stripes run", "<image> which way do the stripes run", "see how these stripes run <image>",
             "look at this picture <image> which way is it")
"""The image before the text, after it, and between two parts of it."""
PARTS = {"begin": "boi", "inside": "image - image.last", "last of it": "image.last", "end": "eoi"}
KNOCKED = {"clean": "nothing", "no_end": "end → text", "no_image": "image → text", "no_text": "text → image"}
PATCHED = {"end": "end of image", "inside": "all of the image", "corner": "its last token", "begin": "begin of image"}


@dataclass(frozen=True)
class Study:
    """What one model showed.

    Attributes:
        right: Name of a run -> share of right answers with its cut.
        logits: Name of a run -> mean logit difference.
        flips: Part of the image -> share of answers that change sign, [layer].
        shares: How the text's attention to the image falls on its parts, [group layer].
        outcome: All measures of patching the end of the image, [metric layer].
        similarity: Cosines within and between modalities, [layer group other].
        homogeneity: Whether clusters are of one modality, [layer].
    """

    right: dict[str, float]
    logits: dict[str, float]
    flips: dict[str, np.ndarray]
    shares: Scores
    outcome: Scores
    similarity: Scores
    homogeneity: Scores


def inputs(count: int, seed: int = 0) -> dict[str, Any]:
    """Questions, pictures, pictures of the other kind, and answers."""
    kinds, images = planted.pictures(count, seed)
    _, more = planted.pictures(count + 1, seed + 1)
    wrong = [planted.KINDS[1 - planted.KINDS.index(kind)] for kind in kinds]
    questions = [QUESTIONS[i // 2 % len(QUESTIONS)] for i in range(count)]
    return {"questions": questions, "images": images, "others": more[1:], "answers": kinds, "wrong": wrong}


def study(*, gate: bool, count: int = 32, seed: int = 0) -> Study:
    """Everything, on the model with a gate or on the one without."""
    given = inputs(count, seed)
    with hl.load("gate" if gate else "gate-null") as model:
        run = model.run(SPEC.read_text(encoding="utf-8"), values=given)
        clean, other = (model.reader.read(given["questions"], images=given[name]) for name in ("images", "others"))
        shares = attention_shares(model, clean, "text | last", PARTS)
        outcome = patching_metrics(model, other, clean, "L*.resid_post", "eoi", answer=given["answers"],
                                   wrong=given["wrong"])
        layers = model.facts.n_layers
    each = {name: np.asarray(run.examples[name]["logit_diff"]) for name in KNOCKED}
    vectors = {name: {f"L{layer}.resid_post": run[f"seen.{name}"][layer].reshape(-1, planted.WIDTH)
                      for layer in range(layers)} for name in ("image", "text")}
    return Study({name: float((diff > 0).mean()) for name, diff in each.items()},
                 {name: float(diff.mean()) for name, diff in each.items()},
                 {name: _flipped(run.scores[f"{name}.logit_diff"], each["clean"]) for name in PATCHED},
                 shares, outcome, modality_similarity(vectors), modality_geometry(vectors))


def _flipped(patched: Scores, clean: np.ndarray) -> np.ndarray:
    """The share of examples whose logit difference has another sign than before, [layer]."""
    assert patched.examples is not None
    return np.asarray((np.sign(patched.examples) != np.sign(clean)[:, None]).mean(0))
