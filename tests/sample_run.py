"""A small run with something in every field, made without a model: what the tests of records look up, draw and save."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hooklab.records import Expectation, Run, Scores, Text, ViewRequest
from hooklab.tokens import Tokens, Turn

STREAM = ("batch", "pos", "d_model")
BASE = torch.arange(24.0).reshape(2, 3, 4)


def text(new: str, **parts: Any) -> Text:
    return Text(text="I think" + new, prompt="I think", new=new, ids=(4, 5), **parts)


def tokens(*rows: Sequence[int]) -> Tokens:
    return replace(Tokens.from_ids([list(row) for row in rows]), turns=tuple((Turn("user", 0, len(row)),) for row in rows))


def sample() -> Run:
    """A run with something in every field, odd things included."""
    return Run(
        spec='prompt "I think"\nsave L0.resid_post, L*.z as heads\ngenerate 2',
        data={"clean.L0.resid_post": BASE, "patched.L0.resid_post": BASE * 2, "patched.heads": BASE[:, 0],
              "patched.logits": BASE.to(torch.bfloat16)},
        axes={"clean.L0.resid_post": STREAM, "patched.L0.resid_post": STREAM, "patched.heads": ("batch", "d_model"),
              "patched.logits": ("batch", "pos", "d_vocab")},
        metrics={"clean": {"logit_diff": 3.25, "prob": 0.5}, "patched": {"logit_diff": math.nan, "loss": math.inf}},
        examples={"clean": {"logit_diff": np.array([3.0, 3.5], dtype=np.float32)}},
        scores={"clean.top": Scores([[0.5, 0.25]], ("batch", "rank"), labels=np.array([[" Mary", " <b>"]]), unit="fraction"),
                "patched.logit_diff": Scores(np.array([[1.0, np.nan], [-np.inf, 0.1]]), ("layer", "pos"),
                                             {"pos": ("0: I", "1:  think")}, "logits", "logit_diff", "patch", None,
                                             np.ones((3, 2, 2)), "a note")},
        tokens_of={"clean": tokens([5, 6, 7], [8]), "patched": tokens([5, 6])},
        texts={"patched": (text(" so", cell={"c": 4}, stopped="eos"), text("\ud800 \x1b[31m", sample=1, example=1))},
        views=(ViewRequest("grid"), ViewRequest("heads", 5, ("L5H1",), {"title": "Heads", "top": 3})),
        expectations=(Expectation("clean.logit_diff > 3", 3.25, 3.0, True), Expectation("1 < nan", 1.0, math.nan, False)),
        provenance={"model": "abc", "seeds": [1, 2**63], "versions": {"torch": "2"}, "time": 1.5, "none": None,
                    "": "ä…\u2028"},
        given={"vec": BASE[0, 0], "names": ["a", ("b", 2)], "odd": {1: np.arange(3, dtype=np.uint16), "$x": True}},
    )
