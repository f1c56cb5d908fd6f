"""The words that may fill each place of the language: from the table of verbs, the glossary, the cell and the model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lark import Tree

from ..positions.parse import EDGES
from ..sites import LAYER_SITES, MODEL_SITES, SITES
from .tree import ALIASES, unquote
from .verbs import ABLATIONS, ATTRIBUTIONS, CLAIM_FUNCTIONS, FUNCTIONS, GENERATORS, METRICS, SCORES, TRUTH, VERBS, VIEWS

SHIPPED = ("lab", "gate")
"""Models that come with hooklab, to be offered by name."""


@dataclass(frozen=True)
class Item:
    """One thing that may come next: the text, what kind it is, and a line about it."""

    text: str
    kind: str
    does: str = ""


@dataclass(frozen=True)
class Context:
    """What is known of the model, as far as one is open: its sizes, the sites it lacks, tokens, names of models."""

    n_layers: int | None = None
    n_heads: int | None = None
    missing: frozenset[str] = frozenset()
    tokens: tuple[str, ...] = ()
    models: tuple[str, ...] = SHIPPED


@dataclass(frozen=True)
class Names:
    """What the lines of a cell declare, in their order; `texts` are the prompts' own words."""

    declared: dict[str, tuple[str, ...]] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    loose: bool = False

    def of(self, verb: str) -> tuple[str, ...]:
        """Names that lines of a verb gave."""
        return self.declared.get(verb, ())

    @property
    def saes(self) -> tuple[str, ...]:
        """Names of dictionaries."""
        return self.of("sae")


_DECLARES = re.compile(r"^[ \t]*(prompt|mark|let|group|sweep|sae|metric|run)[ \t]+([^\W\d]\w*)[ \t]*(=|\bin\b|\bon\b)", re.M)
_ON = re.compile(r"^[ \t]*run[ \t]+on[ \t]", re.M)
_UNNAMED = re.compile(r"^[ \t]*prompt[ \t]*[\"'\[{]|^[ \t]*prompt[ \t]+(?:repeat_random|random)\(", re.M)
_LOOSE = re.compile(rf"^(?:{'|'.join(name for name, verb in VERBS.items() if verb.kind == 'edit')})[ \t]", re.M)
_METRIC = re.compile(r"^[ \t]*metric[ \t]+([^\W\d]\w*)[ \t]*(?:$|[(@#])", re.M)
_PROMPT_TEXT = re.compile(r"^[ \t]*prompt\b.*?(\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')", re.M)


def names(text: str) -> Names:
    """What the lines of a cell declare; lines that cannot be read are read as far as they go.

    >>> names('prompt clean = "A b"\\nmark end = last\\nzero L1').declared["prompt"]
    ('clean',)
    """
    found: dict[str, list[str]] = {}
    for verb, name, _ in _DECLARES.findall(text):
        found.setdefault(verb, []).append(name)
    if _UNNAMED.search(text):
        found.setdefault("prompt", []).append("main")
    found.setdefault("metric", []).extend(_METRIC.findall(text))
    words = [word for prompt in prompt_texts(text) for word in re.findall(r"\s?[^\s\\]+", prompt)]
    return Names({verb: tuple(dict.fromkeys(listed)) for verb, listed in found.items()}, tuple(dict.fromkeys(words)),
                 bool(_LOOSE.search(text) or _ON.search(text)))


def prompt_texts(text: str) -> list[str]:
    """The text of each line's prompt, as far as it stands between one pair of quotes.

    >>> prompt_texts('prompt "a b"\\nprompt x = {y}')
    ['a b']
    """
    return [unquote(match[1]) for match in _PROMPT_TEXT.finditer(text)]


def _items(words: Iterable[str], kind: str, does: str = "") -> Iterator[Item]:
    return (Item(word, kind, does) for word in words)


def verbs(in_run: bool = False) -> Iterator[Item]:
    """Words that a line starts with; in a run, those that do something."""
    for verb in VERBS.values():
        if not in_run or verb.kind not in ("declare", "run"):
            yield Item(verb.name, "verb", verb.does)


EACH = Item("each", "keyword", "one at a time: an axis of the result")
_PREPOSITIONS = ("from", "to", "by", "with", "over", "along", "as", "on", "in", "vs", "at", "except")


def keywords(accepts: frozenset[str], verb: str) -> Iterator[Item]:
    """Prepositions that the grammar accepts next."""
    yield from _items((word for word in _PREPOSITIONS if f"_{word.upper()}" in accepts), "keyword")
    if "__ANON_0" in accepts and verb in ("cut", "patch"):
        yield Item("->", "keyword", "from here to there")


def runs(known: Names) -> Iterator[Item]:
    """Runs and prompts; every prompt is a run too."""
    yield from prompts(known)
    yield from _items(known.of("run"), "run")
    yield Item("baseline", "run", "the untouched run of the same prompt")


def prompts(known: Names) -> Iterator[Item]:
    """Prompts."""
    yield from _items(known.of("prompt"), "prompt")


def of_run(known: Names, context: Context, word: str, numbers: bool) -> Iterator[Item]:
    """What may follow the name of a run and a dot: its metrics, or sites."""
    if numbers:
        yield from named_metrics(known)
    yield from layers(context, word)
    yield from _items((site for site in MODEL_SITES if site not in context.missing), "site")


def layers(context: Context, word: str) -> Iterator[Item]:
    """Layers, and the heads of the layer that is being typed."""
    yield Item("L*", "site", "every layer")
    yield from _items((f"L{n}" for n in range(context.n_layers or 1)), "site")
    yield Item("L*H*", "site", "every head")
    if re.fullmatch(r"L\d+H?\d*", word):
        layer = word.partition("H")[0]
        yield Item(f"{layer}H*", "site", "every head of the layer")
        yield from _items((f"{layer}H{n}" for n in range(context.n_heads or 1)), "site")


def sites(known: Names, context: Context, word: str) -> Iterator[Item]:
    """Places: layers, sites of the model, groups, dictionaries."""
    yield from layers(context, word)
    yield from (Item(name, "site", SITES[name].meaning) for name in MODEL_SITES if name not in context.missing)
    yield from _items(known.of("group"), "group")
    yield from _items((f"{name}.F" for name in known.saes), "site", "a feature of the dictionary")


def units(accepts: frozenset[str], context: Context) -> Iterator[Item]:
    """Right after a layer: its heads and neurons."""
    if "_HEAD" in accepts:
        yield from _items((f"H{n}" for n in ("*", *range(context.n_heads or 1))), "site")
        yield Item("N", "site", "a neuron")


def parts(owner: Tree[Any], context: Context) -> Iterator[Item]:
    """Sites of a layer, of a head or of a neuron."""
    unit = str(owner.data)
    if unit == "layer":
        inner = [child for child in owner.children if isinstance(child, Tree)]
        unit = next((str(child.data) for child in inner if child.data in ("head", "neuron")), "layer")
    axes = {"head": {"head", "kv_head"}, "neuron": {"d_mlp"}}.get(unit)
    if axes is None:
        yield from (Item(alias, "part", SITES[name].meaning) for alias, name in ALIASES.items()
                    if name not in context.missing)
    for name in LAYER_SITES:
        if name not in context.missing and (axes is None or axes & set(SITES[name].axes)):
            yield Item(name, "part", SITES[name].meaning)


_POSITIONS = {
    "last": "the last token", "first": "the first token", "all": "every token", "each": "one token at a time",
    "prompt": "tokens of the prompt", "new": "tokens that were generated", "image": "tokens of the image",
    "text": "tokens of text", "special": "special tokens", "bos": "the token that begins the text",
    "boi": "the token before the image", "eoi": "the token after the image"}
_POSITION_CALLS = {
    "span(": "tokens that a regular expression matches", "turn(": "a speaker's turns", "random(": "some tokens, drawn",
    "split(": "parts of the sequence", "first(": "the first tokens", "last(": "the last tokens", "mask(": "a mask",
    "row(": "a row of an image", "column(": "a column of an image"}


def positions(known: Names, context: Context) -> Iterator[Item]:
    """Positions: marks, roles, texts of the prompt, functions."""
    yield from _items(known.of("mark"), "mark")
    yield from (Item(name, "position", does) for name, does in _POSITIONS.items())
    yield from _items((json.dumps(text, ensure_ascii=False) for text in (context.tokens or known.texts)), "token")
    yield from (Item(name, "function", does) for name, does in _POSITION_CALLS.items())


def at_positions(accepts: frozenset[str], known: Names) -> Iterator[Item]:
    """The commonest positions with their sign, after a place."""
    if "AT" in accepts:
        yield from _items((f"@{word}" for word in ("last", "each", "all", *known.of("mark"))), "position")


def edges() -> Iterator[Item]:
    """What may follow a position and a dot."""
    yield from _items((*EDGES, "offset("), "position")


def token_texts(known: Names, context: Context, quote: str, close: str) -> Iterator[Item]:
    """Texts of tokens, as they stand inside quotes."""
    for text in context.tokens or known.texts:
        inside = json.dumps(text, ensure_ascii=False)[1:-1]
        if quote == "'":
            inside = inside.replace('\\"', '"').replace("'", "\\'")
        yield Item(inside + close, "token")


def variables(known: Names) -> Iterator[Item]:
    """Variables of sweeps, in an index."""
    yield from _items(known.of("sweep"), "variable")


def values(known: Names, verb: str, word: str = "") -> Iterator[Item]:
    """What arithmetic takes: names of values, activations of runs, functions."""
    yield from _items(known.of("let"), "value")
    yield from variables(known)
    if verb == "noise":
        yield Item("sigma", "value", "standard deviation of the site in the untouched run")
    yield from _items((f"{name}." for name in (*known.of("prompt"), *known.of("run"), "baseline")), "run",
                      "an activation of the run")
    yield from _items((f"{name}(" for name in FUNCTIONS), "function")


def metrics(known: Names) -> Iterator[Item]:
    """What is measured of every run."""
    for name in METRICS:
        yield Item(name if name != "kl" else "kl(baseline)", "metric")
    yield from _items(known.of("let"), "value")


def named_metrics(known: Names) -> Iterator[Item]:
    """Metrics of the cell, or all there are where it has none."""
    yield from _items(known.of("metric") or METRICS, "metric")


def measures(known: Names) -> Iterator[Item]:
    """Metrics of runs, as claims compare them."""
    hooked = ("hooked",) if known.loose else ()
    for run in (*known.of("run"), *hooked, "baseline", *known.of("prompt")):
        yield from _items((f"{run}.{metric}" for metric in known.of("metric") or ("logit_diff",)), "metric")
    yield from _items((f"{name}(" for name in CLAIM_FUNCTIONS), "function", "over all points of a sweep")


def methods(verb: str) -> Iterator[Item]:
    """What may follow `with`."""
    table = {"ablate": ABLATIONS, "attribute": ATTRIBUTIONS, "score": SCORES}
    yield from _items(table.get(verb, ()), "method")


def views() -> Iterator[Item]:
    """What `show` draws."""
    yield from _items(VIEWS, "view")


def shown(known: Names) -> Iterator[Item]:
    """Runs that a view may be of."""
    yield from _items((*known.of("run"), *(("hooked",) if known.loose else ())), "run")


def generators() -> Iterator[Item]:
    """Prompts that are made up."""
    yield from _items((f"{name}(" for name in GENERATORS), "function")


def ranges(context: Context) -> Iterator[Item]:
    """What a sweep may run over."""
    yield Item(f"0:{context.n_layers or 12}", "value", "whole numbers, stop excluded")
    yield Item("[0, 1, 2]", "value")


def options(verb: str, used: set[str]) -> Iterator[Item]:
    """Options of a verb that the line does not have yet."""
    for option in VERBS[verb].options if verb in VERBS else ():
        if option.name not in used:
            yield Item(f"{option.name}=", "option", option.does)


def option_words(verb: str, name: str) -> Iterator[Item]:
    """Words that an option may be."""
    for option in VERBS[verb].options if verb in VERBS else ():
        if option.name == name:
            yield from _items(("true", "false") if option.kind == TRUTH else option.words, "word")
