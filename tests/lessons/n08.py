"""Answers to the exercises of the tutorial on features."""

from __future__ import annotations

from lessons import Lesson

DICTIONARY = '''
from hooklab.check.features import DROPPED
from hooklab.model.lab import corpus, words
texts = corpus.documents(1, 70)
acts = model.capture(texts, "L1.resid_post")
rows = [(row, len(tokens.pieces[0])) for row, tokens in enumerate(acts.tokens)]
x = torch.cat([acts["L1.resid_post"][row, -length:][1:] for row, length in rows])
following = np.array([piece for tokens in acts.tokens for piece in (*tokens.pieces[0][2:], "")])
draw = torch.Generator().manual_seed(0)
batches = [x[torch.randint(len(x), (128,), generator=draw)] for _ in range(60)]
sae = hl.sae.train_sae(batches, 128, steps=60, variant="topk", k=8, lr=4e-3, seed=0).sae
active = (sae.encode(x) > 0).numpy().astype(float)
label = np.isin(following, [f" {word}" for word in words.OBJECTS]).astype(float)
hits = label @ active
f1 = 2 * hits / (active.sum(0) + label.sum())
missing = (x - sae.decode(sae.encode(x))).square().sum()
spread = (x - x.mean(0)).square().sum()
'''

LOSSES = DICTIONARY + '''
found = model.run(DROPPED, texts=texts[:12], sae=sae).metrics
plain, made, silent = (found[name]["loss"] for name in ("texts", "reconstructed", "silent"))
'''

LESSONS = [
    Lesson("explained_share", "1 - missing / spread",
           {"missing / spread": "missing", "1 - missing / x.square().sum()": "from zero",
            "missing / x.numel()": "error itself",
            "100 * (1 - missing / spread)": "per cent", "-3.0": "between 0 and 1", "0.123": "another number",
            "torch.tensor([0.5, 0.6])": "One number"},
           setup=DICTIONARY, args="sae, x"),
    Lesson("object_feature", "int(f1.argmax())",
           {"int(active.mean(0).argmax())": "precision", "int(f1.argmin())": "does better|nowhere|mostly follows",
            "128": "from 0 to 127",
            "-1": "whole number", "3.5": "whole number", "f1": "One number"},
           setup=DICTIONARY, args="sae, x, following"),
    Lesson("loss_recovered", "(silent - made) / (silent - plain)",
           {"1.0": "untouched", "made - plain": "scale|lost", "(made - plain) / (silent - plain)": "was lost",
            "made": "in nats", "plain / made": "ratio",
            "(silent - plain) / (silent - made)": "upside down", "100 * (silent - made) / (silent - plain)": "per cent",
            "0.3": "another number"},
           setup=LOSSES, args="model, sae, texts[:12]"),
]
