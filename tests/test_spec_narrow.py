"""One cell of a sweep, run by itself, gives the number of the sweep: every form, on the lab and on tiny models."""

from __future__ import annotations

import re
import warnings
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from cases import CASES
from oracle import WORDS, Oracle, draws
from tiny_models import build, tokenizer

import hooklab as hl
from hooklab.errors import HooklabWarning, RecordError
from hooklab.problems import SpecError
from hooklab.sae import Dictionary
from hooklab.spec.narrow import narrow
from hooklab.spec.parser import parse

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPT = "When Mary and John went to the store, Mary gave a drink to"
HEAD = f'prompt clean = "{CLEAN}"\nprompt corrupt = "{CORRUPT}"\nanswer " Mary" vs " John"\nmetric logit_diff\n'
ON = HEAD + "run swept on corrupt:\n    "
VALUES = {"scales": [0.0, 0.5, 2.0], "layers": [0, 2], "spots": ["L0H1", "L1.mlp_out"]}
FORMS = {
    "layers and positions": ON + "patch each L*.resid @each from clean\nshow grid\n",
    "heads": ON + "patch each L*H* from clean\n",
    "some heads of some layers": ON + "zero each L[0,2]H[1,3] @last\n",
    "ranges": ON + "zero each L1:3H0:2.z\n",
    "neurons": ON + "scale each L0N[1,5,9] by 3\n",
    "dimensions of the stream": ON + "zero each L*.resid[0:2]\n",
    "a list of places": ON + "zero each L1.mlp @last, L0H1 @last, L0.attn @last\n",
    "a list less some": ON + "zero each L*.mlp, L1.attn except L0.mlp\n",
    "a group": HEAD + "group some = L0H1, L1H[0,3]\nrun swept on corrupt:\n    zero each some @each[1, last]\n",
    "a group with its own positions": HEAD + "group some = L0H1 @each, L1H0 @each\nrun swept on corrupt:\n    zero some\n",
    "places of Python": ON + "zero each {spots} @last\n",
    "neurons one by one of a list": ON + "zero each L0N[1,5], embed[3], L1H2.z[4]\n",
    "named positions": HEAD + 'mark two = 2:4\nrun swept on corrupt:\n    zero L*.resid @each[two, last, " store", all]\n',
    "a part of the positions": ON + "zero L1.mlp @each(2:5)\n",
    "positions from the end": ON + "zero L1.mlp @each(-3:)\n",
    "the tokens of a text": HEAD + 'mark place = " the store"\nrun swept on corrupt:\n'
                            "    patch L1.resid @each(place) from clean\n",
    "parts between words": ON + 'zero L1.attn @each(split(" and"))\n',
    "amounts": ON + "scale L0H1 by each [0, 0.5, -2]\n",
    "amounts of Python": ON + "scale L1.mlp by each {scales}\n",
    "places, positions and amounts": ON + "scale each L0:2.attn @each[3, last] by each [0, -1]\n",
    "two lines": ON + "zero each L0H[0,1]\n    zero each L1H[2,3] @each[1, last]\n",
    "a variable": HEAD + "sweep c in [0, 2, -4]\nrun swept on corrupt:\n    steer L0.resid by c * clean.L0.resid @last\n",
    "a variable in a let": HEAD + "sweep c in [1, 3]\nlet v = c * clean.L1.resid\nrun swept on corrupt:\n"
                           "    steer L1.resid by v\n",
    "variables as layers, positions and options":
        HEAD + "sweep l in 0:3\nsweep p in [2, -1]\nsweep w in [1, 3]\nrun swept on corrupt:\n"
               "    patch L[l].mlp @p from clean window=w\n",
    "a variable of texts": HEAD + 'sweep p in ["last", "2:4"]\nrun swept on corrupt:\n    zero L0.resid @p\n',
    "variables of Python": HEAD +
        "sweep c in {scales}\nsweep l in {layers}\nrun swept on corrupt:\n    scale L[l].mlp by c\n",
    "a group with a variable": HEAD + "sweep l in 0:2\ngroup g = L[l].mlp, L[l].attn\nrun swept on corrupt:\n    zero g\n",
    "windows": ON + "patch each L*.mlp @each[2, last] from clean window=3\n",
    "edges of heads": ON + "cut each L*H* @[1,2] -> @last\n",
    "keys": ON + "cut L0 @each(0:4) -> @last renorm=false\n",
    "queries": ON + "cut L1H2 @0 -> @each[1, 3, last]\n",
    "keys and queries": ON + "cut each L0:2 @each[0, 1] -> @each[5, last]\n",
    "heads of a list cut": ON + "cut each L0H1 @1, L2H3 @1 -> @last\n",
    "paths": ON + "patch each L0:2H* -> L3.q from clean\n",
    "means": ON + "ablate each L*H* @each[3, last] with mean over clean per=pos\n",
    "resampled with a seed": ON + "ablate each L*H0 with resample over clean seed=3\n",
    "noise with a seed": ON + "noise each L*.resid @each(0:3) by 0.5 seed=4 samples=2\n",
    "noise of a variable": HEAD + "sweep c in [1, 2]\nrun swept on corrupt:\n    noise embed by c * sigma\n",
    "frozen": ON + "freeze each L*.pattern to clean\n    zero L0.mlp\n",
    "set, clamped and projected": ON + "set each L0:2N3 @last to 3\n    clamp each L2N[4,5] max=0.1\n"
                                  "    project_out each L*.resid along clean.L0.resid @last\n",
    "a run on a swept run": HEAD + "run low on corrupt:\n    zero each L0H*\nrun swept on low:\n    zero each L*H[1,2]\n",
    "a run that takes from a swept run":
        HEAD + "sweep c in [1, 2]\nrun low on clean:\n    scale L0.mlp by c\n    lens L*.resid\nrun other on clean:\n"
               "    zero each L*.mlp\nrun swept on corrupt:\n    patch each L1:3.resid @last from low\n"
               "    scale L0.attn by c\n",
    "a run without a name": HEAD + "run on clean:\n    zero L0.mlp\nrun on corrupt:\n    zero each L*.attn\n",
    "lines outside of runs":
        f'prompt "{CORRUPT}"\nanswer " Mary" vs " John"\nmetric logit_diff\nzero each L*H*.v\nshow grid\n',
    "compared with a run": HEAD + "metric kl(low)\nrun low on corrupt:\n    zero L0.mlp\nrun swept on low:\n"
                           "    zero each L*.attn\nexpect max(swept.logit_diff) < 99\n",
    "lines outside that take from a run":
        f'prompt "{CORRUPT}"\nanswer " Mary" vs " John"\nmetric logit_diff\nrun low on main:\n    zero L0.mlp\n'
        "patch each L*.resid @each(0:3) from low\ngenerate 2\n",
    "lines outside beside a run without a name":
        f'prompt "{CORRUPT}"\nanswer " Mary" vs " John"\nmetric logit_diff\nrun on main:\n    zero each L*.mlp\n'
        "zero each L*.attn\n",
    "saved on the way": ON + "zero each L*.attn @each[1, 2]\n    save L1.resid @each as end\n    lens L*.resid @each\n",
}
READINGS = {
    "scores of heads": ("swept.induction", HEAD + "run swept on corrupt:\n    score each L*H* with induction\n"),
    "scores of a list": ("swept.current", HEAD + "run swept on corrupt:\n    score L0H1, L2H3 with current\n"),
    "a lens": ("swept.lens", HEAD + "run swept on corrupt:\n    lens L*.resid @each\n    score L*H* with induction\n"),
    "a lens of everything": ("swept.lens", HEAD + "run swept on corrupt:\n    lens\n"),
    "the answer in a lens": ("swept.lens_logit_diff", HEAD + "run swept on corrupt:\n    lens L*.mlp @each[2, last]\n"),
    "a sweep of scores": ("swept.induction", HEAD + "run swept on corrupt:\n    zero each L0H[0,1]\n"
                          "    score L*H* with induction\n"),
    "attribution": ("swept.attribute", HEAD + "run swept on corrupt:\n    attribute L*.resid @each with patch from clean\n"),
    "attribution that was checked": ("corrupt.attribute", HEAD.replace('prompt clean = "' + CLEAN + '"\n', "")
                                     + "attribute L*H*, embed with grad check=3 seed=1\n"),
}


@cache
def lab() -> Any:
    return hl.load("lab")


@cache
def tiny(family: str) -> tuple[Any, dict[str, Any]]:
    return hl.load(build(family), tokenizer=tokenizer()), Oracle(family).given


def ran(model: Any, text: str, values: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HooklabWarning)
        return model.run(text, values=values)


def cells(scores: Any, most: int = 4) -> list[tuple[int, ...]]:
    """Some cells of scores, from the first to the last."""
    every = list(product(*map(range, scores.shape)))
    return sorted({every[i] for i in np.linspace(0, len(every) - 1, most).astype(int)})


def at(scores: Any, index: tuple[int, ...]) -> dict[str, Any]:
    return {axis: scores.coords[axis][i] for axis, i in zip(scores.axes, index, strict=True)}


def single(run: Any, key: str) -> float:
    """The one number of a run that is not swept."""
    name, _, metric = key.partition(".")
    if metric in run.metrics.get(name, {}):
        return run.metrics[name][metric]
    assert run.scores[key].axes == ()
    return float(run.scores[key].values)


def plain(text: str) -> None:
    """What every narrowed text is: canonical, and without a sweep."""
    assert str(parse(text)) == text
    unquoted = re.sub(r'"[^"]*"', "", text)
    assert not re.search(r"\b(each|sweep|show|expect)\b", unquoted), text


def same_alone(model: Any, text: str, values: dict[str, Any], key: str, *, coords: bool, most: int = 4) -> None:
    """Some cells of a sweep, run alone, have the sweep's numbers."""
    whole = ran(model, text, values)
    scores = whole.scores[key]
    assert scores.axes and scores.values.size > 1
    for index in cells(scores, most):
        alone = narrow(text, key.partition(".")[0], at(scores, index), scores.coords if coords else None)
        plain(alone)
        assert single(ran(model, alone, values), key) == pytest.approx(float(scores.values[index]), abs=1e-4), alone


@pytest.mark.parametrize("form", FORMS)
def test_a_cell_alone_has_the_number_of_the_sweep(form: str) -> None:
    run = "hooked_2" if "a name" in form else "hooked" if "outside" in form else "swept"
    used = {name: value for name, value in VALUES.items() if f"{{{name}}}" in FORMS[form]}
    same_alone(lab(), FORMS[form], used, f"{run}.logit_diff", coords=form in NEED_COORDS)


NEED_COORDS = {"positions from the end", "parts between words", "the tokens of a text"}


@pytest.mark.parametrize("form", READINGS)
def test_a_reading_alone_has_the_number_of_the_grid(form: str) -> None:
    key, text = READINGS[form]
    same_alone(lab(), text, {}, key, coords=False)


@pytest.mark.parametrize("line", ["zero each enc.F[3,5,7] @each[1, last]", "scale each enc.F3, L0.mlp by 2",
                                  "ablate each enc.F0:3 @2 with zero"])
def test_features_of_a_dictionary_are_narrowed(line: str) -> None:
    model, values = tiny("llama")
    enc, dec = draws(32, 40, seed=31), draws(40, 32, seed=33)
    known = {"clean": values["clean"], "right": values["right"], "wrong": values["wrong"],
             "dictionary": Dictionary(enc, draws(40, seed=32).abs() + 6, dec, draws(32, seed=34))}
    text = ("prompt {clean}\nanswer {right} vs {wrong}\nmetric logit_diff\nsae enc = {dictionary} at L0.resid_post\n"
            f"run swept on main:\n    {line}\n")
    same_alone(model, text, known, "swept.logit_diff", coords=False, most=3)


SWEPT = [case for case in CASES if "each" in case.text or "sweep " in case.text]
REFUSED = {"vectors of Python in turn": "number of a value", "a sweep over Python's vectors": "number of a value",
           "noise of size zero in turn": "random numbers"}


@pytest.mark.parametrize("family", [family for family in WORDS if family in ("gpt2", "llama")])
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in SWEPT])
def test_every_case_of_the_language_narrows(family: str, case: Any) -> None:
    if family not in case.families:
        pytest.skip("not a case of this family")
    model, values = tiny(family)
    known = {name: value for name, value in values.items() if f"{{{name}}}" in case.text}
    whole = ran(model, case.text, known)
    found = {key: scores for key, scores in whole.scores.items() if set(scores.axes) - {"batch", "rank"}}
    for key, scores in found.items():
        for index in cells(scores, 3):
            name = key.partition(".")[0]
            if case.name in REFUSED:
                with pytest.raises(RecordError, match=REFUSED[case.name]):
                    narrow(case.text, name, at(scores, index), scores.coords)
                continue
            alone = narrow(case.text, name, at(scores, index), scores.coords)
            plain(alone)
            again = ran(model, alone, known)
            if "rank" in scores.axes:
                assert again.scores[key].values[index[-1]] == pytest.approx(scores.values[index], abs=1e-4)
            else:
                assert single(again, key) == pytest.approx(float(scores.values[index]), abs=1e-4), alone


# Positions that differ between examples and prompts ------------------------------------------------------------------------

PAIRS = ('prompt clean = ["{}", "{}"]\nprompt corrupt = ["{}", "{}"]\n'
         'answer " Mary" vs " John"\nmetric logit_diff\nmark place = " the store"\nrun swept on corrupt:\n    ').format(
    CLEAN, "When the store was open, Mary and John gave a drink to", CORRUPT,
    "When Mary left the store, Mary and John gave a drink to")


@pytest.mark.parametrize("line", ["zero L1.resid @each(place)", "patch each L*.resid @each(place) from clean",
                                  "patch each L*.resid @each(place.last) from clean", "zero each L*.attn @each(last)",
                                  "zero each L0:2.mlp @each[place, last]"])
def test_positions_that_differ_between_examples_are_told_by_their_order(line: str) -> None:
    same_alone(lab(), PAIRS + line, {}, "swept.logit_diff", coords=True)


@pytest.mark.parametrize("line", ["zero L1.resid @each(place)", "patch L1.resid @each(place) from clean"])
def test_positions_that_differ_are_refused_without_the_labels_of_the_axis(line: str) -> None:
    label = ran(lab(), PAIRS + line, {}).scores["swept.logit_diff"].coords["pos"][0]
    assert ":" not in label
    with pytest.raises(RecordError, match=r"other examples or prompts.*coords=scores.coords"):
        narrow(PAIRS + line, "swept", {"pos": label})


def test_scattered_positions_of_another_prompt_are_refused() -> None:
    text = ON + 'patch L1.resid @each(" Mary"[*] | last) from clean'
    with pytest.raises(RecordError, match="cannot be written alone"):
        narrow(text, "swept", {"pos": "1: Mary"}, {"pos": ("1: Mary", "14: to")})


# What is kept --------------------------------------------------------------------------------------------------------------

def test_only_what_the_cell_needs_is_kept() -> None:
    text = narrow(HEAD + "sweep c in [1, 2]\nseed 7\nlet unused = gone.L0.mlp\ngroup some = L0H1, L1H1\n"
                  "run low on clean:\n    zero L0.mlp\n    score L*H* with current\n"
                  "run gone on clean:\n    zero L*.mlp @each\n"
                  "run swept on corrupt:\n    patch each some @each from low\n    steer L0.resid by c\nshow grid\n",
                  "swept", {"c": 2, "site": "L1H1.result", "pos": "3: John"})
    assert text == (HEAD + "let c = 2\nseed 7\ngroup some = L0H1, L1H1\nrun low on clean:\n    zero L0.mlp_out\n"
                    "run swept on corrupt:\n    patch L1H1.result @3 from low\n    steer L0.resid_post by c")


def test_a_spec_is_taken_as_well_as_its_text() -> None:
    text = FORMS["heads"]
    assert narrow(parse(text), "swept", {"layer": 1, "head": 2}) == narrow(text, "swept", {"layer": 1, "head": 2})


def test_a_token_is_also_found_by_its_number() -> None:
    cell = {"layer": 1, "pos": 3}
    assert narrow(FORMS["layers and positions"], "swept", cell).endswith("patch L1.resid_post @3 from clean")
    assert narrow(FORMS["layers and positions"], "swept", cell, {"pos": ("2: a", "3: John")}).endswith("@3 from clean")


def test_a_prompt_that_nothing_reads_has_no_cell() -> None:
    text = HEAD.replace("prompt corrupt", "prompt other") + "run low on other:\n    zero L0.mlp\n"
    with pytest.raises(RecordError, match="There is no run clean"):
        narrow(text, "clean", {})


def test_a_line_that_draws_and_does_not_change_keeps_its_draws() -> None:
    same_alone(lab(), ON + "noise embed by 0.5 * sigma\n    zero each L*H*\n", {}, "swept.logit_diff", coords=False)


@pytest.mark.parametrize("text", [
    ON + "noise each L*.resid by 1\n", ON + "ablate each L*H* with resample over clean\n",
    HEAD + "run low on corrupt:\n    noise embed by 1\nrun swept on corrupt:\n    noise embed by 1\n    zero each L*.mlp\n"])
def test_a_line_that_would_draw_other_numbers_is_refused(text: str) -> None:
    cell = {"layer": 1, "head": 0} if "L*H*" in text else {"layer": 1}
    with pytest.raises(RecordError, match="seed=0"):
        narrow(text, "swept", cell)


# What is refused -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("form", "run", "cell", "said"), [
    ("heads", "swpt", {"layer": 0, "head": 0}, 'no run swpt.*Did you mean "swept"'),
    ("heads", "swept", {"layr": 0, "head": 0}, 'no axis layr: its axes are layer, head. Did you mean "layer"'),
    ("heads", "swept", {"layer": 0}, "says nothing about head"),
    ("heads", "swept", {"layer": -1, "head": 0}, "layer has no -1"),
    ("heads", "swept", {"layer": "L0", "head": 0}, "layer has no 'L0'"),
    ("heads", "swept", {"layer": True, "head": 0}, "layer has no True"),
    ("some heads of some layers", "swept", {"layer": 1, "head": 1}, "layer has no 1"),
    ("ranges", "swept", {"layer": 3, "head": 1}, "layer has no 3"),
    ("layers and positions", "swept", {"layer": 1, "pos": "Mary"}, "it is no token"),
    ("a list of places", "swept", {"site": "L1H1.result"}, "site has no 'L1H1.result'"),
    ("a list of places", "swept", {"site": "L0H1\nzero L1.mlp"}, "site has no"),
    ("a group", "swept", {"site": "L1H2.result", "pos": "last"}, "site has no"),
    ("named positions", "swept", {"pos": "too"}, 'pos has no \'too\'; it has .*Did you mean "two"'),
    ("amounts", "swept", {"value": 0.6}, "value has no 0.6; it has 0, 0.5, -2"),
    ("a variable", "swept", {"c": 3}, "c has no 3; it has 0, 2, -4"),
    ("amounts of Python", "swept", {"value": 1}, "number of a value"),
    ("places, positions and amounts", "swept", {"layer": 0, "pos": "3", "value": 0, "rank": 0}, "no axis rank"),
])
def test_a_cell_that_the_sweep_does_not_have_is_refused(form: str, run: str, cell: dict[str, Any], said: str) -> None:
    with pytest.raises(RecordError, match=f"(?s){said}"):
        narrow(FORMS[form], run, cell)


def test_with_the_labels_of_the_axes_every_label_is_checked() -> None:
    coords = {"layer": (0, 1, 2, 3), "pos": ("0: When", "1: Mary")}
    with pytest.raises(RecordError, match=r'layer has no 9; it has 0, 1, 2, 3'):
        narrow(FORMS["layers and positions"], "swept", {"layer": 9, "pos": "1: Mary"}, coords)
    with pytest.raises(RecordError, match=r'pos has no .*Did you mean "1: Mary"'):
        narrow(FORMS["layers and positions"], "swept", {"layer": 1, "pos": "1: mary"}, coords)


def test_a_text_that_cannot_be_read_is_an_error_of_the_text() -> None:
    with pytest.raises(SpecError, match="ablat"):
        narrow('prompt "a"\nablat L0H1', "hooked", {})


# hl.sweep ------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("asked", [
    {"sites": "L*.resid_pre", "positions": "each"}, {"sites": "L*H*", "mode": "noise"},
    {"sites": ["L*.attn_out", "L*.mlp_out"], "positions": "last"}, {"sites": "L0:2H*", "to": "L3H1.q"},
    {"sites": "L*.mlp_out", "positions": "each[1, last]", "window": 3},
], ids=["the stream", "heads", "a list", "paths", "windows"])
def test_the_cells_of_hl_sweep_narrow(asked: dict[str, Any]) -> None:
    scores = hl.sweep(lab(), CLEAN, CORRUPT, answer=" Mary", wrong=" John", **asked)
    for index in cells(scores):
        alone = narrow(scores.spec, "swept", at(scores, index), scores.coords)
        plain(alone)
        assert lab().run(alone).metrics["swept"]["logit_diff"] == pytest.approx(float(scores.raw.values[index]), abs=1e-4)


def test_the_metric_of_a_sweep_stays_between_its_braces() -> None:
    from hooklab.metrics import AtLast

    def gap(logits: Any) -> Any:
        return logits.amax(-1) - logits.mean(-1)

    scores = hl.sweep(lab(), CLEAN, sites="L*H*", metric=gap, method="zero")
    alone = narrow(scores.spec, "swept", {"layer": 2, "head": 1})
    assert "metric m = {m}" in alone
    run = lab().run(alone, values={"m": AtLast(gap)})
    change = run.metrics["swept"]["m"] - run.metrics["clean"]["m"]
    assert change == pytest.approx(float(scores.sel(layer=2, head=1).values), abs=1e-4)
