"""What sweeps find in the shipped model, as a page with pictures: docs/circuits.md and docs/circuits.png.

    python benchmarks/circuits.py

Sixteen pairs of prompts for the heads that carry the indirect object, eight facts for where a capital is looked up. Every
number comes with an interval, and with the same sweep on shuffled weights.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

STORY = "When {} and {} went to the store, {} gave a drink to"
NAMES = ["Mary", "John", "Anna", "Tom", "Kevin"]
CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Japan": "Tokyo", "Egypt": "Cairo",
            "Greece": "Athens", "Austria": "Vienna"}


def pairs(count: int) -> dict[str, Any]:
    """Pairs of prompts that differ in who gives, and so in who is given."""
    both = [(a, b) for a in NAMES for b in NAMES if a != b][:count]
    return {"clean": [STORY.format(a, b, b) for a, b in both], "corrupt": [STORY.format(a, b, a) for a, b in both],
            "answer": [f" {a}" for a, _ in both], "wrong": [f" {b}" for _, b in both]}


def known(model: Any) -> dict[str, str]:
    """The capitals that the model says by itself."""
    found = {}
    for country, capital in CAPITALS.items():
        prompt = f"The capital of {country} is"
        ids = model.tokenizer(f"{country} {capital}")["input_ids"]
        if model.tokenizer.unk_token_id in ids:
            continue
        said = model.capture(prompt, "logits", at="last")["logits"][0].argmax()
        if model.tokenizer.decode(said).strip() == capital:
            found[country] = capital
    return found


def table(scores: Any, count: int = 6) -> list[str]:
    """The strongest cells with their intervals and what the control gives there."""
    lines = ["| place | effect | 95 % interval | shuffled weights |", "|---|---|---|---|"]
    for labels, value in scores.top(count):
        cell = tuple(scores.coords[axis].index(labels[axis]) for axis in scores.axes)
        name = " · ".join(f"{axis} {labels[axis]}" for axis in scores.axes)
        lines.append(f"| {name} | {value:.3f} | {scores.low[cell]:.3f} to {scores.high[cell]:.3f} | "
                     f"{scores.control.values[cell]:.3f} |")
    return lines


def drawn(maps: dict[str, Any]) -> None:
    """The maps side by side, as docs/circuits.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(maps), figsize=(5 * len(maps), 4.2), layout="constrained")
    for ax, (title, scores) in zip(axes, maps.items(), strict=True):
        limit = float(np.abs(scores.values).max())
        image = ax.imshow(scores.values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        ax.set(title=title, ylabel="layer", xlabel=scores.axes[1])
        labels = [str(label) for label in scores.coords[scores.axes[1]]]
        tilted = dict(rotation=60, ha="right") if scores.axes[1] == "pos" else dict(rotation=0, ha="center")
        ax.set_xticks(range(len(labels)), labels, fontsize=8, **tilted)
        ax.set_yticks(range(scores.shape[0]))
        figure.colorbar(image, ax=ax, label="0 corrupted, 1 clean")
    figure.savefig(ROOT / "docs" / "circuits.png", dpi=110)


def page(heads: Any, stream: Any, trace: Any, facts: int, found: Any) -> str:
    """What docs/circuits.md says."""
    early = trace.coords["pos"][int(trace.values[0].argmax())]
    late = int((trace.values.argmax(1) == trace.shape[1] - 1).argmax())
    return f"""# Circuits of the shipped model

Made by `python benchmarks/circuits.py`; do not edit.

![Effects of heads and streams](circuits.png)

## Indirect objects: heads

Over {len(heads.examples)} pairs of prompts; 0 is the corrupted prompt, 1 the clean one.

{chr(10).join(table(heads))}

## Indirect objects: streams

{chr(10).join(table(stream))}

## Capitals

Noise of three standard deviations on the country, {facts} facts, ten draws. At layer 0 the country alone restores the
answer ({trace.values[0].max():.2f}, at position {early}); from layer {late} on it is the last token.

## A circuit

{found}.

```
{found.spec}
```
"""


def main() -> None:
    """Measure, draw and write."""
    import hooklab as hl

    model = hl.load("lab")
    heads, stream = (hl.sweep(model, asked.pop("clean"), asked.pop("corrupt"), *sites, **asked, control="weights")
                     for asked, sites in ((pairs(16), ["L*H*"]), (pairs(16), ["L*.resid_pre", "each"])))
    facts = known(model)
    prompts = [f"The capital of {country} is" for country in facts]
    trace = hl.causal_trace(model, prompts, "@-2", "L*.resid_pre", answer=[f" {capital}" for capital in facts.values()],
                            samples=10)
    found = hl.analysis.circuit(model, STORY.format("Mary", "John", "John"), STORY.format("Mary", "John", "Mary"),
                                answer=" Mary", wrong=" John")
    drawn({"indirect object: heads": heads, "indirect object: streams": stream,
           f"capitals: streams restored under noise ({len(facts)} facts)": trace})
    (ROOT / "docs" / "circuits.md").write_text(page(heads, stream, trace, len(facts), found), encoding="utf-8")


if __name__ == "__main__":
    main()
