"""`hooklab card`: what the shipped model is and can do."""

from __future__ import annotations

import argparse
import json

from ..errors import HooklabError

NAME = "card"
HELP = "describe the shipped model"
EXAMPLES = ("card", "card --json")


def add(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(options: argparse.Namespace) -> int:
    """Print the model's card."""
    from ..model.lab import PATH

    if not (PATH / "config.json").is_file():
        raise HooklabError(f"The shipped model is not in {PATH}. Install hooklab again.")
    card = (PATH / "README.md").read_text(encoding="utf-8")
    size = sum(file.stat().st_size for file in PATH.iterdir())
    if options.json:
        config = json.loads((PATH / "config.json").read_text(encoding="utf-8"))
        print(json.dumps({"path": str(PATH), "bytes": size, "config": config,
                          "abilities": section(card, "Abilities"), "card": card}))
        return 0
    from rich.console import Console
    from rich.markdown import Markdown

    body = card.split("---", 2)[2] if card.startswith("---") else card
    Console().print(Markdown(body))
    print(f"\n{size / 1e6:.2f} MB in {PATH}")
    return 0


def section(card: str, title: str) -> list[dict[str, str]]:
    """The table under a heading of a Markdown text, one dictionary a row; empty where there is none."""
    lines = card.partition(f"### {title}\n")[2].partition("\n#")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("|")]
    return [dict(zip(rows[0], row, strict=False)) for row in rows[2:]]
