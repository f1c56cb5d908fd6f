"""The compiler by itself: no torch, a stand-in for the model, every problem at once, passes that share what they can."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from hooklab.compiler import compile_spec
from hooklab.compiler.schedule import schedule
from hooklab.problems import SpecError
from hooklab.spec.parser import parse
from hooklab.tokens import Tokens


@dataclass
class Standin:
    """A model of three layers and four heads that has never seen a tensor; every word is a token."""

    facts = SimpleNamespace(n_layers=3, n_heads=4, n_kv_heads=2, d_model=8, d_head=2, d_mlp=16, d_vocab=50, n_ctx=32,
                            family="standin", causal=True)
    itemsize = 4
    lacks = {"resid_mid": "standin has no resid_mid: attention and MLP read the stream in parallel."}

    def missing(self, site):
        return self.lacks.get(site)

    def prompt(self, value, *, image=None, chat=False):
        rows = [value] if isinstance(value, str) else value
        tokens = Tokens.from_ids([[len(word) for word in text.split()] for text in rows])
        return SimpleNamespace(tokens=tokens, size=len(rows), extras={})

    def token_ids(self, text):
        return [len(word) for word in text.split()]

    def piece(self, token):
        return f"w{token}"

    def vocabulary(self):
        return range(3, 50)

    def opening(self):
        return (0,)


def plan(text, **values):
    return compile_spec(parse(text), Standin(), values)


def test_parser_and_compiler_load_no_torch():
    code = ("import sys; import hooklab.spec.parser, hooklab.spec.builder, hooklab.spec.completer, hooklab.compiler; "
            "from hooklab.spec.parser import parse; str(parse('prompt \"a\"')); "
            "sys.exit([name for name in ('torch', 'transformers', 'nnsight', 'numpy') if name in sys.modules] != [])")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_all_problems_of_a_cell_are_found_at_once():
    with pytest.raises(SpecError) as caught:
        plan('prompt "a bb ccc"\nzero L7.resid_post\nzero L0H9\nsave L0.resid_mid\nsteer L1.mlp @9 by {vec}\n'
             "attribute L0N99 to entropy with grad\nmetric logit_diff(\"a a\", \"b\")")
    found = [(p.line, p.column) for p in caught.value.problems]
    assert found[:5] == [(2, 6), (3, 6), (4, 6), (5, 14), (6, 11)]


def test_a_value_that_is_not_given_is_named():
    with pytest.raises(SpecError, match=r"\{vec\} has no value"):
        plan('prompt "a"\nsteer L0.mlp by {vec}')


def test_runs_that_need_nothing_of_each_other_share_a_pass():
    made = plan('prompt a = "a bb"\nprompt b = "c dd"\nprompt long = "a b c d"\nrun x on a:\n    zero L0H1\n'
                "run y on b:\n    zero L1H1\nrun z on b:\n    patch L0.mlp from a\nrun w on z:\n    scale L2.attn by 2")
    groups = [sorted(run.name for run in group) for group in schedule(made)]
    assert groups == [["a", "b", "x", "y"], ["long"], ["w", "z"]]


@pytest.mark.parametrize("text, axes, cells", [
    ("zero each L*H*", {"layer": 3, "head": 4}, 12),
    ("zero each L*.k", {"layer": 3}, 3),
    ("zero each L1H[0,2]", {"head": 2}, 2),
    ("zero each L*.mlp @each", {"layer": 3, "pos": 3}, 9),
    ("zero each L0H1, L1H2", {"site": 2}, 2),
    ("zero each L*H* except L0H[0,1,2]", {"site": 9}, 9),
    ("scale L0H1 by each [0, 1, 2, 3]", {"value": 4}, 4),
    ("zero each L*.mlp\n    zero each L*.attn", {"layer": 3, "layer_2": 3}, 9),
    ("cut each L* @0 -> @last", {"layer": 3}, 3),
    ("zero each L*N[1,5]", {"layer": 3, "neuron": 2}, 6),
    ("zero each L1.resid[0:3]", {"d_model": 3}, 3),
], ids=lambda value: value if isinstance(value, str) else "")
def test_each_makes_the_axes_it_says(text, axes, cells):
    made = plan(f'prompt p = "a bb ccc"\nrun r on p:\n    {text}').run("r")
    assert {axis.name: len(axis.labels) for axis in made.axes} == axes
    assert len(made.cells) == cells


def test_a_window_takes_the_layers_around_and_no_others():
    made = plan('prompt p = "a"\nrun r on p:\n    zero each L*.mlp window=2').run("r")
    assert [[spot.layer for spot in cell.edits[0].spots] for cell in made.cells] == [[0], [0, 1], [1, 2]]


def test_random_numbers_of_a_line_stay_when_lines_are_added():
    def draw(text):
        return [edit.draw for edit in plan(f'prompt p = "a bb"\nrun r on p:\n{text}').run("r").cells[0].edits]

    alone = draw("    noise L1.mlp by 1")
    assert draw("    noise L0.mlp by 1\n    noise L1.mlp by 1")[1] == alone[0]
    twice = draw("    noise L1.mlp by 1\n    noise L1.mlp by 1")
    assert twice[0] == alone[0] != twice[1]


def test_a_plan_says_what_will_run():
    text = str(plan('prompt p = "a bb ccc"\nrun r on p:\n    zero each L*H*\n    cut L1 @0 -> @last\nrun g on p:\n'
                    "    steer L2.resid by 2\n    save L0.mlp_out\n    generate 4"))
    for part in ("12 rows of 3 tokens", "what all its cells share", "3 layer × 4 head", "zero L0H0.result",
                 "generate: g, 4 tokens", "layers 1"):
        assert part in text


def test_generation_beyond_the_positions_of_the_model_is_refused():
    with pytest.raises(SpecError, match="32 positions"):
        plan('prompt "a bb"\ngenerate 32')
