"""Induction."""

from . import Lesson

SCORES = """
scores = hl.induction_scores(model)
found = [f"L{cell['layer']}H{cell['head']}" for cell, score in scores.top(30) if score > 0.4]
"""
PROMPTS = SCORES + """
import random
draw = random.Random(0)
rows = [draw.sample(range(2, 713), 32) for _ in range(32)]
prompts, next_ids = [[0, *row[:16], *row[:8]] for row in rows], [row[8] for row in rows]
"""
COUNT = PROMPTS + """
def share(k):
    run = model.run("prompt {prompts}\\nanswer {next_ids}\\nmetric rank\\nablate {heads} with mean per=all", prompts=prompts,
                    next_ids=next_ids, heads=found[:k])
    return (run.examples["hooked"]["rank"] == 0).mean()
"""
PATTERN = PROMPTS + """
def looking(back, size=25):
    pattern = torch.zeros(size, size)
    for query in range(size):
        pattern[query, max(query - back, 0)] = 1
    return pattern
"""

LESSONS = [
    Lesson("induction_heads", right="found", setup=SCORES, secrets=("L1H2", "layer 1", "(1, 2)"),
           wrong={'["L0H4"]': "one step short", "[\"L0H4\", *found]": "one step short", "found[:1]": "5 heads are missing",
                  "found[:-1]": "1 head is missing", '[*found, "L3H2"]': "not more than",
                  '[(l, h) for l in range(5) for h in range(6)]': "one step short|list all heads", '["L2H2"]': "L2H2 spends",
                  "[]": "empty", '["L1H6"]': "6 heads", "3": "list of heads"}),
    Lesson("heads_to_remove", right="next(k for k in range(1, 7) if share(k) < 0.25)", setup=COUNT,
           args="found, prompts, next_ids, model", secrets=(" 3 ", "first 3", "three"),
           wrong={"1": "still", "2": "still", "6": "fewer heads do that already", "0": "is enough",
                  "7": "from 0 to 6", "2.5": "whole",
                  "-1": "from 0 to 6", "found": "One number"}),
    Lesson("repeating_pattern", right="looking(0)", setup=PATTERN, args='prompts, "L0H4", model',
           secrets=("looking(0)", "itself", "eye("),
           wrong={"looking(1)": "as it always does", "looking(2)": "skips one token", "looking(3)": "skips two",
                  "looking(0).T + looking(1).T": "looks ahead", "torch.ones(25, 25) / 25": "looks ahead",
                  "2 * looking(0)": "adds up to 2", "looking(0, 24)": "shape", "looking(0)[None]": r"take \[0\]",
                  "torch.zeros(25, 25)": "adds up to 0", "2 * looking(0) - looking(1)": "never negative",
                  "torch.ones(25, 25).tril() / torch.arange(1, 26)[:, None]": "Ask for each token", "0": "shape"}),
]
