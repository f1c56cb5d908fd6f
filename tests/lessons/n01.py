"""The forward pass."""

from . import Lesson

PROMPT = 'prompt = "The capital of France is Paris. The capital of Italy is"\n'
WRITES = PROMPT + 'acts = model.capture(prompt, ["L*.attn_out", "L*.mlp_out"])'
HEAD = PROMPT + """
W = model.W
acts = {site: model.capture(prompt, f"L0.{site}")[f"L0.{site}"][0] for site in ("resid_pre", "ln1", "q", "k", "v", "z")}
"""
CODE = """
def attention(q, k, v, scale=None, mask=1, over=-1, late=False, soft=True):
    scores = torch.einsum("qhd,khd->hqk", q, k) / (q.shape[-1] ** 0.5 if scale is None else scale(q.shape[-1]))
    future = torch.ones_like(scores[0]).triu(mask).bool() if mask is not None else torch.zeros_like(scores[0]).bool()
    pattern = scores if late else scores.masked_fill(future, -torch.inf if soft else 0.0)
    pattern = pattern.softmax(over) if soft else pattern
    return torch.einsum("hqk,khd->qhd", pattern.masked_fill(future, 0.0) if late else pattern, v)
"""

LESSONS = [
    Lesson("longest_write", right="max(acts, key=lambda site: acts[site][0, -1].norm())", setup=WRITES, args="prompt, model",
           secrets=("L0.mlp_out", "layer 0"),
           wrong={'"L4.attn_out"': "longer", '"L4.mlp"': "1 other write is longer",
                  '"L1.attn_out"': "attentions as|MLPs as|longer",
                  'max((n for n in acts if "attn" in n), key=lambda n: acts[n][0, -1].norm())': "compare it|Compare it",
                  '"embed"': "not one of the writes", '"L*.mlp_out"': "One place", '"L0H2"': "not one of the writes",
                  '"L9.mlp_out"': "5 layers", "3": "address"}),
    Lesson("head_values", right='acts["ln1"] @ W.V[0, 5] + W.b_V[0, 5]', setup=HEAD, args='prompt, "L0H5", model',
           wrong={'acts["ln1"] @ W.V[0, 5]': "bias is missing", 'acts["resid_pre"] @ W.V[0, 5] + W.b_V[0, 5]': "resid_pre",
                  'acts["resid_pre"] @ W.V[0, 5]': "left the bias", 'acts["ln1"] @ W.V[0, 4] + W.b_V[0, 4]': "another head",
                  'acts["q"][:, 5]': "queries", 'acts["k"][:, 5]': "keys", 'acts["z"][:, 5]': "mixed",
                  '(acts["ln1"] @ W.V[0, 5] + W.b_V[0, 5])[None]': r"take \[0\]",
                  '(acts["ln1"] @ W.V[0, 5] + W.b_V[0, 5]).T': "another order", 'acts["v"]': "shape",
                  'acts["ln1"] @ W.V[1, 5] + W.b_V[1, 5]': "of this layer", "7": "shape"}),
    Lesson("attention_function", right="attention", setup=CODE,
           wrong={"attention(*[torch.ones(2, 2, 2)] * 3)": "without calling",
                  "lambda q, k, v: attention(q, k, v, mask=None)": "ahead",
                  "lambda q, k, v: attention(q, k, v, scale=lambda d: 1)": "not scaled",
                  "lambda q, k, v: attention(q, k, v, scale=lambda d: d)": "d_head itself",
                  "lambda q, k, v: attention(q, k, v, over=-2)": "wrong axis",
                  "lambda q, k, v: attention(q, k, v, over=0)": "over keys",
                  "lambda q, k, v: attention(q, k, v, late=True)": "after the softmax",
                  "lambda q, k, v: attention(q, k, v, soft=False)": "softmax is missing",
                  "lambda q, k, v: attention(q, k, v, mask=0)": "not a number",
                  "lambda q, k, v: attention(k, q, v)": "changed places",
                  "lambda q, k, v: attention(q, k, v).transpose(0, 1)": "another order", "lambda q, k: q": "TypeError",
                  "lambda q, k, v: attention(q, k, v) * 2": "In order", "lambda q, k, v: None": "shape",
                  "lambda q, k, v: attention(q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)).transpose(0, 1)":
                      "In order"}),
]
