"""The tables of the model card: what `evaluate` measured in, Markdown out.

The card keeps its prose; what stands between the two markers is replaced as a whole, so no figure is typed.
"""

import json
import platform
from pathlib import Path
from statistics import mean

import tokenizers
import torch
import transformers
from torch import Tensor

from hooklab.model.lab import corpus, evaluate, examples, words
from hooklab.model.lab.evaluate import Head, Lab, Rate

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
STATISTICS_SAMPLE = 20_000


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def percent(rate: Rate) -> str:
    """The share with its 95 % interval, as text."""
    low, high = rate.interval
    return f"{100 * rate.share:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def named(heads: list[Head]) -> str:
    """Heads as L2H3, in the order given."""
    return ", ".join(f"L{layer}H{head}" for layer, head in heads) or "none"


def abilities(rates: list[Rate]) -> str:
    """Held-out abilities with their number, interval and the figure to reach."""
    rows = [
        [rate.name, str(rate.n), percent(rate), f"{100 * rate.target:.0f} %" if rate.target else ""]
        for rate in rates
    ]
    return table(["held-out ability", "n", "correct (95 % interval)", "to reach"], rows)


def scores(values: Tensor, threshold: float) -> str:
    """One score per head; those from the threshold on are bold."""

    def cell(value: float) -> str:
        return f"**{value:.2f}**" if value >= threshold else f"{value:.2f}"

    rows = [[f"layer {layer}", *map(cell, row)] for layer, row in enumerate(values.tolist())]
    return table(["", *(f"head {head}" for head in range(values.shape[1]))], rows)


def ablations(results: dict[str, tuple[list[Head], Rate, Rate, Rate]]) -> str:
    """What is left of three abilities when the output of some heads is zero."""
    rows = [[name, named(heads), *map(percent, rates)] for name, (heads, *rates) in results.items()]
    return table(["zeroed", "heads", "repeated tokens", "facts", "indirect object"], rows)


def statistics(lab: Lab) -> str:
    """Counts of the language, and of a sample of its documents."""
    sample = corpus.documents(0, STATISTICS_SAMPLE)
    lengths = [len(ids) for ids in lab.tokenizer(sample)["input_ids"]]
    pairs = [(a, b) for a in words.NAMES for b in words.NAMES if a < b]
    templates = [(opening, action) for opening in words.OPENINGS for action in words.ACTIONS]
    rows = {
        "tokens in the vocabulary": len(lab.tokenizer),
        f"different documents among {STATISTICS_SAMPLE:,}": len(set(sample)),
        "mean tokens per document": f"{mean(lengths):.1f}",
        "name pairs, of them held out": f"{len(pairs)}, {sum(examples.pair_held(*pair) for pair in pairs)}",
        "names that never give or receive": len(words.NO_OBJECT_NAMES),
        "indirect-object templates, of them held out": (
            f"{len(templates)}, {sum(examples.template_held(*one) for one in templates)}"
        ),
        "facts": sum(map(len, words.FACTS.values())),
        "phrasings of each fact, of them held out": "6, 1",
    }
    return table(["corpus", ""], [[name, str(value)] for name, value in rows.items()])


def recipe(path: Path) -> str:
    """Shape, training and versions, from the configuration and this machine."""
    settings = json.loads((path / "config.json").read_text())
    took = settings["lab_training"]
    size = sum(file.stat().st_size for file in path.iterdir() if file.name != "README.md")
    rows = {
        "layers, heads, d_model, context": ", ".join(
            str(settings[key]) for key in ("n_layer", "n_head", "n_embd", "n_positions")
        ),
        "size on disk": f"{size / 1e6:.2f} MB",
        "seed, steps, tokens": f"{took['seed']}, {took['steps']:,}, {took['tokens']:,}",
        "minutes, CPU threads": f"{took['minutes']}, {took['threads']}",
        "last batch, nats": ", ".join(f"{name} {value}" for name, value in took["final_nats"].items()),
        "measured with": (
            f"Python {platform.python_version()}, torch {torch.__version__}, transformers "
            f"{transformers.__version__}, tokenizers {tokenizers.__version__}"
        ),
    }
    return table(["model and training", ""], [[name, value] for name, value in rows.items()])


def render(lab: Lab, path: Path) -> str:
    """All tables of the card."""
    previous, induction = evaluate.head_scores(lab, evaluate.repeated_ids(lab))
    parts = {
        "Abilities": abilities(evaluate.abilities(lab)),
        "Previous-token score": scores(previous, evaluate.PREVIOUS),
        "Induction score": scores(induction, evaluate.INDUCTION),
        "Ablation": ablations(evaluate.ablations(lab)),
        "Training": recipe(path),
        "Corpus": statistics(lab),
    }
    return "\n\n".join(f"### {title}\n\n{body}" for title, body in parts.items())


def write(tables: str, path: Path) -> None:
    """Put the tables between the markers of `README.md`; the file is replaced whole."""
    card = path / "README.md"
    before, begin, rest = card.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{card} has no place for the tables: it needs the lines {BEGIN!r} and {END!r}")
    staged = card.with_name(".README.md.part")
    staged.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}")
    staged.replace(card)
