"""Answers to the exercises of the tutorial on images and text."""

from __future__ import annotations

from functools import cache

from lessons import Lesson


@cache
def opened(name):
    import hooklab as hl

    return hl.load(name)


PICTURES = '''
from hooklab.model.gate import KINDS, pictures
from lessons.n09 import opened
model, null = opened("gate"), opened("gate-null")
kinds, images = pictures(6)
questions, answers = ["<image> these stripes run"] * 6, [" " + kind for kind in kinds]
wrong = [" " + KINDS[1 - KINDS.index(kind)] for kind in kinds]
given = questions, images, answers, wrong
'''

SHARES = PICTURES + '''
mass = hl.analysis.attention_mass(model, questions, "last", "eoi", images=images).values
n = len(model.tokens(questions[0], images=images[0]).ids[0])
'''

FUNCTIONS = PICTURES + '''
SPEC = """
prompt clean = {questions} image={images}
answer {answers} vs {wrong}
metric logit_diff
mark asking = (text | last)
run no_end on clean: cut L* @eoi -> @asking
run no_image on clean: cut L* @image -> @asking
run neither on clean: cut L* @(image | eoi) -> @asking
"""

def measured(model, questions, images, answers, wrong):
    run = model.run(SPEC, questions=questions, images=images, answers=answers, wrong=wrong)
    return {name: one["logit_diff"] for name, one in run.metrics.items()}

def made(how):
    return lambda *given: how(**measured(*given))
'''

LESSONS = [
    Lesson("times_even", "mass[3].mean() * n",
           {"mass[3].mean()": "share of attention itself", "1 / (mass[3].mean() * n)": "upside down",
            "mass[3].sum() * n": "heads", "mass[3].mean() * (n - 1)": "itself as well",
            "mass[0].mean() * n": "another layer|itself", "7.0": "another number", "mass[3] * n": "One number",
            "100 * mass[3].mean() * n": "per cent"},
           secrets=("22.99", "23.0"), setup=SHARES, args="model, questions, images, 3"),
    Lesson("gathering_layer", "1",
           {"3": "text looks at the end", "0": "still look later", "2": "holds what it needs", "-1": "from 0 to 3",
            "4": "from 0 to 3", "1.5": "whole number", "[1, 2]": "One number", "True": "whole number"},
           secrets=("layer 1", "L1"), setup=PICTURES, args="model, *given"),
    Lesson("narrowness", "made(lambda clean, no_end, no_image, neither: (clean - no_end) / (clean - neither))",
           {"made(lambda clean, no_end, no_image, neither: (clean - no_image) / (clean - neither))": "exchanged",
            "made(lambda clean, no_end, no_image, neither: no_end / clean)": "left instead of what is lost",
            "made(lambda clean, no_end, no_image, neither: (no_end - clean) / (clean - neither))": "sign",
            "made(lambda clean, no_end, no_image, neither: clean - no_end)": "no share",
            "made(lambda clean, no_end, no_image, neither: clean / clean)": "both models",
            "made(lambda clean, no_end, no_image, neither: 0.5 * (clean - no_end) / (clean - neither))": "another number",
            "made(lambda clean, no_end, no_image, neither: None)": "returns nothing",
            "made(lambda clean, no_end: 1)": "It raises TypeError", "0.5": "A function"},
           setup=FUNCTIONS, args="model, null, *given"),
]
