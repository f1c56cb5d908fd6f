"""The prose of the reference on how a spec is laid out: lines, blocks and their indents, and the Python between braces."""

from __future__ import annotations

from .section import Section

LINES = Section(
    "lines", "Lines, blocks and indents",
    text=(
        "A line is one statement. What stands between brackets may go on over several lines. Empty lines mean nothing, nor "
        "does what follows a `#`.",
        "Only `run …:` has lines below it that belong to it. They are indented, all by the same: any number of spaces or "
        "tabs, where a tab counts eight. The block ends at the first line that is not indented; blocks do not stand in "
        "each other, so a run on top of a run is `run b on a:` below it. A single line may stand right after the colon.",
        "The whole spec may be indented, as in a text between triple quotes inside a function: an indent that every line "
        "has is passed over, and a block is indented further.",
    ),
    rows=(
        ("run x on clean:", "a block follows, indented"),
        ("run x on clean: zero L2H0", "a block of one line"),
        ("# note", "a comment, on a line of its own or behind a statement"),
    ),
    examples=(
        '    prompt clean = [\n'
        '        "When Mary and John went to the store, John gave a drink to",\n'
        '        "When John and Mary went to the store, Mary gave a drink to",\n'
        "    ]  # two examples\n"
        '    answer [" Mary", " John"] vs [" John", " Mary"]\n'
        "    metric logit_diff\n"
        "\n"
        "    run quiet on clean:\n"
        "        # the heads of the third layer\n"
        "        zero L2H*\n"
        "    run quieter on quiet: zero L3H*\n"
        "    show table",
        'prompt "When Mary and John went to the store, John gave a drink to"\n'
        "metric kl(baseline)\n"
        "run quiet on main:\n"
        "\tzero L2H*\n"
        "\tzero L3H*",
    ),
)

BRACES = Section(
    "braces", "Python between braces",
    text=(
        "Braces stand for what a line needs at their place: a value, positions, places, texts. They hold one expression, so "
        "an f-string and a variable stand between them too.",
        "After `at` and `to`, braces are the address of one whole site, as text. As places they are an address or a list of "
        "them, also of features: numbers are put into addresses in Python, since braces are no index. After `@` they are "
        "whole numbers or a selector of `hl.positions`.",
    ),
    rows=(
        ("prompt {texts}", "a text, a list of texts, or token ids"),
        ("steer L6.resid by {vec}", "a number, or a vector as wide as the site"),
        ("save L6.resid @{where}", "positions: 3, [0, 3], a selector"),
        ("zero {heads}", 'places: "L9H6", a list of addresses, pairs (9, 6)'),
        ("sae enc = {mine} at {place}", 'the site that a dictionary reads: "L8.resid_pre"'),
        ("sae tc = {mine} at {place} to {other}", "and the one that a transcoder writes to"),
        ("zero {chosen}", 'features: "enc.F12", or a list of such addresses'),
        ("sweep c in {values}", "the values of a sweep"),
        ('prompt {f"{name} went to"}', "any expression"),
    ),
    given=((
        "import torch\n"
        "\n"
        "import hooklab as hl\n"
        "\n"
        "d = 144  # the width of the stream of the model that is shipped\n"
        "mine = hl.sae.SAE(torch.randn(d, 64), torch.zeros(64), torch.randn(64, d), torch.zeros(d))\n"
        'place = "L2.resid_post"\n'
        'chosen = [f"enc.F{number}" for number in (3, 7, 12)]\n'
        'name = "Mary"',
        'prompt {f"When {name} and John went to the store, John gave a drink to"}\n'
        "sae enc = {mine} at {place}\n"
        "metric kl(baseline)\n"
        "zero {chosen} @last\n"
        "save enc.F* @{[-1, -2]} as features",
    ),),
)
