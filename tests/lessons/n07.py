"""Answers to the exercises of the tutorial on steering."""

from __future__ import annotations

from lessons import Lesson

DIRECTION = '''
texts = ["The capital of France is Paris.", "Yesterday Anna and Tom met at the park."]
place = "L1.resid_post"
acts = model.capture(["Mary loved the movie because it was", "Mary hated the movie because it was"], place, at="last")[place]
d = acts[0] - acts[1]
drawn = torch.randn(len(d), generator=torch.Generator().manual_seed(3))
def loss(line):
    return model.run("prompt texts = {texts}\\nmetric loss\\nrun pushed on texts:\\n    " + line,
                     texts=texts, place=place, d=d).metrics
untouched = loss("steer {place} by {d}")["texts"]["loss"]
every = loss("steer {place} by 0.5 * {d}")["pushed"]["loss"]
'''

ERASE = '''
def right(x, d, middle):
    return x + ((middle - x) @ d)[..., None] * d / (d @ d)
def to_zero(x, d, middle):
    return x - (x @ d)[..., None] * d / (d @ d)
def no_unit(x, d, middle):
    return x - ((x - middle) @ d)[..., None] * d
def half_unit(x, d, middle):
    u = d / d.norm()
    return x - (x @ u)[..., None] * u + (middle @ d) * u
def replaced(x, d, middle):
    return middle.expand_as(x)
def minus_middle(x, d, middle):
    u = d / d.norm()
    return x - middle - ((x - middle) @ u)[..., None] * u
def in_place(x, d, middle):
    u = d / d.norm()
    x -= ((x - middle) @ u)[..., None] * u
    return x
def two(x, d):
    return x
'''

LESSONS = [
    Lesson("fair_null", "drawn * d.norm() / drawn.norm()",
           {"drawn": "times that of the direction", "d": "itself", "-d": "turned round",
            "drawn / drawn.norm()": "one length",
            "torch.zeros_like(d)": "zero vector", "(drawn * d.norm() / drawn.norm())[None]": r"take \[0\]",
            "(drawn * d.norm() / drawn.norm() + d) * 0.7": "length|still in it",
            "(v := drawn * d.norm() / drawn.norm() + d) * d.norm() / v.norm()": "still in it",
            "torch.eye(len(d))[5] * d.norm()": "Most of its numbers", "d[:5]": "shape", "3.0": "shape"},
           setup=DIRECTION, args="d"),
    Lesson("bill", "0.0",
           {"untouched": "difference", "every": "too much|difference", "every - untouched": "every token", "5.0": "too much",
            "-0.5": "gain", "float('nan')": "nan", "'nothing'": "One number"},
           setup=DIRECTION, args="model, place, d, texts"),
    Lesson("erasing", "right",
           {"to_zero": "project_out", "no_unit": "length 1", "half_unit": "not that of the middle", "replaced": "replaced",
            "minus_middle": "right angles", "in_place": "new tensor", "two": "TypeError", "torch.ones(2)": "function",
            "lambda x, d, middle: x": "what went in", "lambda x, d, middle: x[0]": "[Ss]hape"},
           setup=ERASE),
]
