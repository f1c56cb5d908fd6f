"""Answers to the exercises of the tutorial on one's own analyses, views and architectures."""

from __future__ import annotations

from lessons import Lesson

FUNCTIONS = '''
def distance(pattern):
    pos = torch.arange(pattern.shape[-1])
    return (pattern * (pos[:, None] - pos)).sum(-1)[:, 1:].mean(-1)
def each(patterns, lengths):
    return torch.stack([distance(one[:, -n:, -n:]) for one, n in zip(patterns, lengths)])
def right(patterns, lengths):
    return each(patterns, lengths).mean(0)
def whole(patterns, lengths):
    return torch.stack([distance(one) for one in patterns]).mean(0)
def masked(patterns, lengths):
    real = torch.stack([(torch.arange(patterns.shape[-1]) >= patterns.shape[-1] - n).float() for n in lengths])
    return whole(patterns * real[:, None, None] * real[:, None, :, None], lengths)
def from_the_right(patterns, lengths):
    return torch.stack([distance(one[:, :n, :n]) for one, n in zip(patterns, lengths)]).mean(0)
def by_token(patterns, lengths):
    weight = torch.tensor(lengths).float()[:, None] - 1
    return (each(patterns, lengths) * weight).sum(0) / weight.sum()
def with_first(patterns, lengths):
    return torch.stack([(one[:, -n:, -n:] * (torch.arange(n)[:, None] - torch.arange(n))).sum(-1).mean(-1)
                        for one, n in zip(patterns, lengths)]).mean(0)
'''

STRANGER = '''
from dataclasses import replace
from transformers import LlamaConfig, LlamaForCausalLM
from hooklab.families import LLAMA
class Config(LlamaConfig):
    model_type = "lesson_stranger"
class Gated(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.both, self.back = torch.nn.Linear(32, 96), torch.nn.Linear(48, 32)
    def forward(self, x):
        gate, linear = self.both(x).chunk(2, dim=-1)
        return self.back(torch.nn.functional.silu(gate) * linear)
class Net(LlamaForCausalLM):
    config_class = Config
torch.manual_seed(0)
net = Net(Config(vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)).eval()
for block in net.model.layers:
    block.mlp = Gated()
table = lambda **rows: replace(LLAMA, name="lesson_stranger", **rows)
fused = dict(gate=None, up=None, gate_up="mlp.both", down="mlp.back")
'''

LESSONS = [
    Lesson("even_distance", "2.25", {"2.0": "first token too", "4.5": "first token only", "4.0": "last token",
                                     "2.75": "0 back", "-2.25": "another number",
                                     "'2 and a bit'": "One number"}, secrets=("2.25",), args="9"),
    Lesson("padded_distance", "right",
           {"whole": "nan|padding", "masked": "padding", "from_the_right": "left|nan", "by_token": "Long examples",
            "with_first": "first token",
            "each": "row for every example", "lambda patterns, lengths: -right(patterns, lengths)": "less the key's",
            "lambda patterns, lengths: each(patterns, lengths).sum(0)": "sum over", "lambda patterns: 0": "TypeError",
            "3.0": "function"},
           setup=FUNCTIONS, args=""),
    Lesson("family_table", "table(**fused)",
           {"table()": "down_proj", "LLAMA": "says of itself", "'lesson_stranger'": "table is asked for",
            "table(gate='mlp.both', up=None, down='mlp.back')": "mlp_pre needs d_mlp",
            "table(gate='mlp.both', up='mlp.both', down='mlp.back')": "verify|job",
            "table(gate=None, up=None, down=None)": "gives up",
            "table(**fused, norm='layer')": "ln1", "table(**{**fused, 'down': 'mlp.both'})": "mlp_pre needs 2",
            "table(**fused, ln_final=None)": "gives up ln_final",
            "table(**fused, q='self_attn.k_proj', k='self_attn.q_proj')": "first of"},
           secrets=("gate_up=", "has one projection"), setup=STRANGER, args="net"),
]
