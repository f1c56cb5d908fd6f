"""Attention with your eyes."""

from . import Lesson

PROMPT = 'prompt = "When Mary and John went to the store, John gave a drink to"\n'
PREVIOUS = 'tuple(hl.analysis.head_scores(model, prompt, kind="previous").top(1)[0][0].values())'
ROW = PROMPT + """
acts = model.capture(prompt, ["L2.scores", "L2.pattern"])
scores, pattern = (act[0, 0, -1] for act in acts.values())
key = int(pattern.argmax())
raised, lowered = scores.clone(), scores.clone()
raised[key] += 2
lowered[key] -= 2
"""
ALONE = PROMPT + """
row = torch.zeros(15)
row[2] = 1
run = model.run('prompt {prompt}\\nanswer " Mary" vs " John"\\nmetric logit_diff\\nset each L*H*.pattern @last to {row}',
                prompt=prompt, row=row)
left = run.scores["hooked.logit_diff"].values
turning = [f"L{l}H{h}" for l, h in np.argwhere(left < 0)]
"""

LESSONS = [
    Lesson("previous_token_head", right=PREVIOUS, setup=PROMPT, args="prompt, model", secrets=("L0H4", "(0, 4)"),
           wrong={'"L1H0"': "rests", '(1, 5)': "rests", '"L0H1"': "another head spends more",
                  '"L3H5"': "just below the diagonal",
                  '"L*H*"': "One head", '"L0H6"': "6 heads",
                  '["L1H2", "L1H0", "L1H1"]': "lists 3", "4": "head is written"}),
    Lesson("raised_score", right="raised.softmax(-1)[key]", setup=ROW, args='prompt, "L2H0", key, 2, model',
           wrong={"pattern[key] * torch.e ** 2": "no longer adds up", "pattern[key]": "as it is now",
                  "raised[key]": "new score",
                  "lowered.softmax(-1)[key]": "lower score", "pattern[key] + 2": "between 0 and 1", "0.5": "one entry",
                  "raised.softmax(-1)": "One number", "float('nan')": "not finite|is nan"}),
    Lesson("turning_heads", right="turning", setup=ALONE, args='prompt, " Mary", " John", \'" Mary"\', model',
           secrets=("L0H1", "L0H4", "L0H5"),
           wrong={"turning[:1]": "2 more heads", "turning[1:]": "1 more head does", '[*turning, "L2H0"]': "L2H0 alone",
                  '[f"L{l}H{h}" for l in range(5) for h in range(6)]': "27 of your list", "[]": "There are such heads",
                  '["L0H0"]': "L0H0 alone", '["L0H9"]': "6 heads"}),
]
