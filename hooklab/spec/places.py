"""Checks of places: sites, features, groups, positions and the numbers in them."""

from __future__ import annotations

import re
from typing import Any

from ..errors import nearest
from ..positions import marks_in
from ..positions import select as s
from ..sites import LAYER_SITES, MODEL_SITES, SITES
from . import ast
from .checker import Checker, listed
from .misnamed import instead, misnamed, unit
from .names import BASELINE, EDITS, IMPLICIT
from .othernames import OTHER_WORDS
from .tree import ALIASES
from .verbs import VERBS

HEADS = tuple(name for name in LAYER_SITES if {"head", "kv_head"} & set(SITES[name].axes))
NEURONS = tuple(name for name in LAYER_SITES if "d_mlp" in SITES[name].axes)
STREAMS = tuple(name for name in SITES if SITES[name].axes[-1] == "d_model")
ATTENTION = (None, "pattern", "scores")
EDIT_VERBS = tuple(kind.verb for kind in EDITS)
BARE_LAYER = ("cut", "show", "group")  # verbs for which a layer alone is its attention
ROLES = ("amount", "source", "let", "metric", "claim")  # a site as a value, not as the place of a verb


def target(c: Checker, found: ast.Target, verb: str) -> None:
    """Check where a verb acts."""
    for where in (*found.sites, *found.excluding):
        place(c, where, verb)
    if found.to is not None:
        _end(c, found, verb)


def _end(c: Checker, found: ast.Target, verb: str) -> None:
    """What stands after `->`: positions for cut, a site for other edits."""
    to = found.to
    if isinstance(to, ast.At | ast.AtEach):
        position(c, to)
        if verb != "cut":
            c.say("value", f"{verb} has no attention edges", "positions after -> belong to cut: cut L5:9 @subject -> @last",
                  to)
        return
    place(c, to, verb if verb != "cut" else "zero")
    if verb == "cut":
        c.say("value", "cut removes edges between positions", "write cut L5:9 @subject -> @last", to)
    elif verb not in EDIT_VERBS:
        c.say("value", f"{verb} takes no path", "a path is for edits: patch L5H1 -> L9H9.q from corrupt", to)


def place(c: Checker, where: Any, verb: str) -> None:
    """Check one place of a target."""
    if isinstance(where, ast.Site):
        site(c, where, verb)
    elif isinstance(where, ast.Feature):
        feature(c, where, verb)
    elif isinstance(where, ast.Ref):
        _ref(c, where, verb)
    if where.at is not None:
        position(c, where.at)


def site(c: Checker, found: ast.Site, verb: str) -> None:
    """Check that a site exists somewhere, and suits the verb."""
    if found.run in MODEL_SITES:
        c.say("value", f"{found.run} belongs to the whole model, not to a layer", f"write {found.run}", found)
        return
    if misnamed(c, found, _address(c, found)):
        return
    if found.run is not None and verb in EDIT_VERBS:
        c.say("value", "a run edits its own activations, not those of another", f"leave out {found.run}. and write the line "
              f"below run on {found.run}:", found)
    elif found.run is not None:
        c.source(found.run, found, earlier=verb not in ("metric", "let"))
    for index, word in ((found.layer, "layer"), (found.head, "head"), (found.neuron, "neuron"), (found.dims, "dimension")):
        if index is not None:
            _index(c, index, word, found)
    if found.comp is None:
        _bare(c, found, verb)
    elif found.comp not in SITES:
        _unknown_part(c, found, verb)
    else:
        _suits(c, found, verb)


def _bare(c: Checker, found: ast.Site, verb: str) -> None:
    """A layer without a part: cut and show take its attention, others must be told."""
    if found.layer is None:
        c.say("value", "this names no site", "write L5.resid, say", found)
    elif found.head is None and found.neuron is None and verb not in BARE_LAYER:
        text = _address(c, found)
        c.say("value", f"{text} is a whole layer: say which part",
              f"write {text}H*" if verb == "score"
              else f"write {text}.resid, {text}.mlp, {text}.attn, or {text}H1 for a head",
              found)
    elif found.neuron is not None and verb in ("cut", "score"):
        c.say("value", f"{verb} is about attention, and a neuron has none", f"write {VERBS[verb].example}", found)


def _address(c: Checker, found: ast.Site) -> str:
    """A site as written, without its position."""
    return c.text(found, f"L{found.layer}").split("@")[0].strip()


def _unknown_part(c: Checker, found: ast.Site, verb: str) -> None:
    comp = str(found.comp)
    if found.layer is None and verb in ROLES:
        c.say("name", f'no site "{comp}"', f"Python goes between braces: {{{_address(c, found)}}}", found, comp)
        return
    known = HEADS if found.head is not None else NEURONS if found.neuron is not None else (
        (*LAYER_SITES, *ALIASES) if found.layer is not None else (*SITES, *ALIASES))
    if number := unit(found, _address(c, found)):
        _say_part(c, "name", f'no part "{comp}" of a layer', f"write {number}", found)
        return
    plain = comp.lower().removeprefix("hook_")
    meant = plain if plain in known else OTHER_WORDS.get(plain) or nearest(comp[:40].lower(), known)
    if meant in known:
        hint = f"did you mean {meant}?"
    else:
        hint = f"there are {listed(known, 30)}"
    what = "head" if found.head is not None else "neuron" if found.neuron is not None else "layer"
    message = f'no part "{comp}" of a {what}' if found.layer is not None else f'no site "{comp}"'
    _say_part(c, "name", message, hint, found)


def _say_part(c: Checker, kind: str, message: str, hint: str, found: ast.Site) -> None:
    """Note a problem under the part of a site: the word after its last dot."""
    text = c.text(found, "").split("@")[0]
    words = [match[1] for match in re.finditer(r"\.\s*([^\W\d]\w*)", text)]
    at = None
    if words and found.span is not None:
        column = found.span.column + text.rindex(words[-1])
        at = ast.At(s.All(), span=ast.Span(found.span.line, column, found.span.line, column + len(words[-1])))
    c.say(kind, message, hint, at or found)


def _suits(c: Checker, found: ast.Site, verb: str) -> None:
    comp, text = str(found.comp), _address(c, found)
    axes = SITES[comp].axes
    if comp in MODEL_SITES:
        if found.layer is not None:
            _say_part(c, "value", f"{comp} belongs to the whole model, not to a layer", f"write {comp}", found)
        return
    if found.layer is None:
        run = f"{found.run}." if found.run else ""
        every = f"write {run}L5.{comp} for one, {run}L*.{comp} for all"
        _say_part(c, "value", f"{comp} is a site of every layer: say which", every, found)
    elif found.head is not None and comp not in HEADS:
        hint = "what a head adds to the stream is L9H6.result; " if comp == "attn_out" else ""
        _say_part(c, "value", f"{comp} has no heads", f"{hint}sites with heads are {', '.join(HEADS)}", found)
    elif found.neuron is not None and comp not in NEURONS:
        _say_part(c, "value", f"{comp} has no neurons", f"sites with neurons are {', '.join(NEURONS)}", found)
    elif verb == "cut" and comp not in ATTENTION:
        _say_part(c, "value", f"{comp} has no attention edges to cut", "name layers or heads: cut L5:9 @subject -> @last",
                  found)
    elif verb == "score" and comp not in HEADS:
        _say_part(c, "value", f"{comp} has no heads to score", "write score each L*H* with induction", found)
    elif verb == "lens" and axes[-1] != "d_model":
        _say_part(c, "value", f"the unembedding cannot read {comp}",
                  f"it reads {', '.join(STREAMS[:4])} …: lens {text.split('.')[0]}"
                  ".resid_post", found)


def feature(c: Checker, found: ast.Feature, verb: str) -> None:
    """Check that the dictionary of a feature is attached."""
    if found.run is not None:
        c.source(found.run, found)
    if found.sae not in c.names.saes:
        known = list(c.names.saes)
        close = nearest(found.sae[:40], known[:200])
        c.say("name", f'there is no dictionary of features "{found.sae}"', f"did you mean {close}?" if close else
              f"attach one: sae {found.sae} = {{my_sae}} at L8.resid_pre", found, found.sae)
    _index(c, found.feature, "feature", found)


def _ref(c: Checker, found: ast.Ref, verb: str) -> None:
    """A bare word as a place: a group, or in `show` anything that has a name."""
    name, names = found.group, c.names
    if name in names.groups:
        if verb == "group" and names.groups[name] >= c.index:
            c.say("name", f'the group "{name}" is not yet defined here', "a group is made of groups above it", found, name)
        elif verb not in BARE_LAYER:
            _bare_members(c, found, verb)
        return
    if verb == "show" and (names.what(name) or name in (BASELINE, IMPLICIT)):
        return
    what = names.what(name)
    name = name.removeprefix("hook_") if name.removeprefix("hook_") in LAYER_SITES else name
    if name in LAYER_SITES or name in ALIASES:
        c.say("name", f"{name} is a site of every layer: say which", f"write L5.{name} for one, L*.{name} for all", found)
    elif name in names.saes:
        c.say("name", f'"{name}" is a dictionary of features, not a place', f"write {name}.F12", found, name)
    elif what:
        c.say("name", f'"{name}" is {what}, not a place', f"a place is L5.resid or L9H6; {verb} acts on {_own(name, what)}",
              found, name)
    elif match := re.fullmatch(r"l(\d+)(?:[._]?h(\d+))?", name):
        c.say("name", f'no place "{name}"', f"write L{match[1]}H{match[2]}" if match[2] else f"write L{match[1]}.resid",
              found,
              name)
    else:
        known = [*names.groups, *MODEL_SITES, *(names.runs if verb == "show" else ())]
        hint = instead(name) or c.meant(name, known, "a place is L5.resid, L9H6 or a group: group movers = L9H9, L9H6")
        c.say("name", f'no place "{name}"', hint, found, name)


def _own(name: str, what: str) -> str:
    return f"places of {name} below run on {name}:" if what in ("a prompt", "a run") else "places"


def _bare_members(c: Checker, found: ast.Ref, verb: str) -> None:
    """A group of whole layers suits only the verbs that take their attention."""
    group = c.spec.body[c.names.groups[found.group]]
    assert isinstance(group, ast.Group)
    for member in group.target.sites[:100]:
        if isinstance(member, ast.Site) and member.comp is None and member.head is None and member.neuron is None:
            c.say("value", f'"{found.group}" names a whole layer: say which part',
                  "write group … = L5.resid, or L5H* for its heads",
                  found)
            return


# Numbers and positions ---------------------------------------------------------------------------------------------


def _index(c: Checker, index: ast.Index, word: str, node: Any) -> None:
    for item in index if isinstance(index, tuple) else (index,):
        if isinstance(item, int) or item == "*":
            continue
        if item.startswith("$"):
            _variable(c, item[1:], word, node)
        else:
            message = slice_problem(item, word)
            if message:
                c.say("value", message, "a range is START:STOP:STEP, its stop left out: 0:6 is 0 to 5", node, item)


def _variable(c: Checker, name: str, word: str, node: Any) -> None:
    if name not in c.names.sweeps:
        what = c.names.what(name)
        c.say("name", f'"{name}" is {what}, not a sweep variable' if what else f'there is no sweep variable "{name}"',
              c.meant(name, c.names.sweeps, f"declare it: sweep {name} in 0:12"), node, name)


def slice_problem(text: str, word: str) -> str:
    """Why a slice names nothing; empty when it may name something.

    >>> slice_problem("6:2", "layer")
    'the range 6:2 names no layer'
    """
    try:
        start, stop, step = ([int(part) if part else None for part in text.split(":")] + [None, None])[:3]
    except ValueError:
        return f"{text!r} is no {word} index"
    if step is not None and step < 1:
        return f"a range of {word}s goes up, in steps of 1 or more"
    if (start is not None and stop is not None and (start < 0) == (stop < 0) and start >= stop) or stop == 0:
        return f"the range {text} names no {word}"
    return ""


def position(c: Checker, at: ast.At | ast.AtEach) -> None:
    """Check the names in positions, and that they can name any."""
    if at.pos is not None:
        selector(c, at.pos, at)


def selector(c: Checker, pos: s.Selector, node: Any) -> None:
    """Check a selector that stands at a node."""
    names = c.names
    for name in sorted(marks_in(pos)):
        if name in names.sweeps:
            continue
        if name in names.marks:
            if isinstance(c.statement, ast.Mark) and names.marks[name] >= c.index:
                c.say("name", f'the mark "{name}" is not yet defined here', "a mark is made of marks above it", node, name,
                      "=")
            continue
        known = [*names.marks, *s.RESERVED]
        what = names.what(name)
        c.say("name", f'"{name}" is {what}, not a position' if what else f'no position "{name}"',
              c.meant(name, known, f'write @"{name}" for a token, or declare mark {name} = "…"'), node, name,
              "=" if isinstance(node, ast.Mark) else "@")
    if isinstance(pos, s.Slice):
        text = f"{'' if pos.start is None else pos.start}:{'' if pos.stop is None else pos.stop}"
        message = slice_problem(text, "position") if pos.step is None else ""
        if message:
            c.say("value", message, "the end is left out: 0:6 is 0 to 5", node)
