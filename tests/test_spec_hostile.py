"""Texts made to break the reader: strange characters, depth, length, numbers, ranges that must not be counted out."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fuzz import cells, fault, verdict
from hooklab.problems import SpecError
from hooklab.spec import ast
from hooklab.spec.completer import complete
from hooklab.spec.parser import parse

ROOT = Path(__file__).parent.parent
P = 'prompt "a"\n'
N = 10_000
HOSTILE = {
    # characters
    "halves of characters": (P + "zero \ud800L9H9 \udfff", "refused"), "a half in quotes": ('prompt "\ud800"', "accepted"),
    "a half in Python": (P + "steer L0.resid by {'\ud800'}", "refused"), "NUL": (P + "zero\x00L9H9", "refused"),
    "NUL in quotes": ('prompt "\x00"', "accepted"), "NUL in Python": (P + "steer L0.resid by {\x00}", "refused"),
    "a line separator": (P + "zero\u2028L9H9", "refused"), "one in quotes": ('prompt "\u2028\x85\x0b\x0c"', "accepted"),
    "one in Python": (P + "steer L0.resid by {'\u2028'}", "accepted"), "a form feed": (P + "zero L9H9\x0c\nlens", "refused"),
    "a byte order mark": ("\ufeff" + P + "zero L9H9", "accepted"), "two of them": ("\ufeff\ufeff" + P, "refused"),
    "carriage returns": ('prompt "a"\r\nzero L9H9\r\nrun b on main:\r\n    zero L1H1\r\n', "accepted"),
    "only carriage returns": ('prompt "a"\rzero L9H9\r', "refused"),
    "tabs": (P + "run b on main:\n\tzero\tL0H0", "accepted"),
    "tabs and blanks": (P + "run b on main:\n\tzero L0H0\n        zero L0H1", "accepted"),
    "a no-break space": (P + "zero\u00a0L9H9", "refused"), "a direction mark": (P + "zero \u202eL9H9", "refused"),
    "wide letters": (P + "zero Ｌ９Ｈ９", "refused"), "an accent": (P + "let é = 1", "refused"),
    # length
    "one line of a megabyte": (P + "zero " + "x" * 10**6, "refused"), "a text of a megabyte": (f'prompt "{"x" * 10**6}"',
                                                                                               "accepted"),
    "an open text of a megabyte": ('prompt "' + "x" * 10**6, "refused"),
    "a comment of a megabyte": (P + "#" * 10**6, "accepted"),
    "Python of a megabyte": (P + "steer L0.resid by {" + "x" * 10**6 + "}", "refused"),
    "a megabyte of blanks": (P + "zero" + " " * 10**6 + "L9H9", "accepted"),
    "three megabytes": (P + "#" * 3 * 10**6, "refused"),
    "a megabyte of signs": (P + "@" * 10**6, "refused"), "a megabyte of quotes": ("prompt " + '"" ' * 330_000, "refused"),
    f"{N} lines": (P + "zero L9H9\n" * N, "accepted"), f"{N} lines that cannot be read": (P + "zeroo L9H9\n" * N, "refused"),
    f"{N} different mistakes": (P + "".join(f"zer{i} L9H9\n" for i in range(N)), "refused"),
    f"{N} unknown names": (P + "zero nope\n" * N, "refused"), "one name often": (P + "let a = 1\n" * 8000, "refused"),
    # depth
    "parentheses": (P + "steer L0.resid by " + "(" * N + "1" + ")" * N, "accepted"),
    "brackets": (P + "zero L" + "[" * N + "1" + "]" * N, "refused"),
    "braces": (P + "steer L0.resid by " + "{" * N + "1" + "}" * N, "refused"),
    "lists": ("prompt " + "[" * N + '"a"' + "]" * N, "refused"), "only closing": (")" * N, "refused"),
    "open ones of all kinds": ("([{" * N, "refused"),
    "lists of positions": (P + "lens @" + "[" * N + "0" + "]" * N, "refused"),
    "calls": (P + "let a = " + "unit(" * N + "1" + ")" * N, "refused"), "minus": (P + "let a = " + "-" * N + "1", "refused"),
    "minus and blanks": (P + "let a = " + "- " * N + "1", "refused"), "a sum": (P + "let a = " + "1+" * N + "1", "refused"),
    "Python in parentheses": (P + "let a = {" + "(" * 9000 + "1" + ")" * 9000 + "}", "refused"),
    "a union": (P + "lens @(" + "0|" * N + "0)", "refused"), "edges": (P + "lens @last" + ".first" * N, "refused"),
    "a staircase": (P + "run b on main:\n" + "".join(" " * i + "lens\n" for i in range(1, 500)), "refused"),
    "runs in runs": (P + "".join("    " * i + "run b on main:\n" for i in range(300)), "refused"),
    # chains, which a careless reader walks once for every path
    "values of values": (P + "let v0 = 1\n" + "".join(f"let v{i} = v{i - 1} + v{i - 1}\n" for i in range(1, 1000))
                         + "steer L0.resid by v999", "accepted"),
    "groups of groups": (P + "group g0 = L1H1\n" + "".join(f"group g{i} = g{i - 1}, g{i - 1}\n" for i in range(1, 1000))
                         + "zero g999", "accepted"),
    "marks of marks": (P + "mark m0 = 3\n" + "".join(f"mark m{i} = (m{i - 1} | m{i - 1})\n" for i in range(1, 1000)),
                       "accepted"),
    "runs on runs": (P + "run r0 on main: lens\n" + "".join(f"run r{i} on r{i - 1}: lens\n" for i in range(1, 1000)),
                     "accepted"),
    "runs in a circle": (P + "run a on b: lens\nrun b on a: lens", "refused"),
    # numbers
    "1e999": (P + "let a = 1e999", "refused"), "1e-999": (P + "let a = 1e-999", "accepted"),
    "5000 digits": (P + "let a = 1" + "0" * 5000, "refused"), "5000 decimals": (P + "let a = 0." + "1" * 5000, "accepted"),
    "an exponent of 5000 digits": (P + "let a = 1e" + "9" * 5000, "refused"),
    "a layer of 5000 digits": (P + "zero L" + "9" * 5000,
                                                                                                         "refused"),
    "a position of 5000 digits": (P + "lens @" + "9" * 5000, "refused"), "an option of 5000 digits": (
        P + "generate 5 seed=" + "9" * 5000, "refused"), "a version of 5000 digits": ("hookspec " + "9" * 5000, "refused"),
    # ranges
    "a power as an end": (P + "sweep l in 0:10**12", "refused"),
    "a sweep without end": (P + "sweep l in 0:1000000000000", "refused"),
    "a sweep of one, far away": (P + "sweep l in 999999999999999998:999999999999999999", "accepted"),
    "layers": (P + "zero L0:1000000000000.resid", "accepted"), "heads": (P + "zero L0H0:1000000000000", "accepted"),
    "dimensions": (P + "save L0.resid[0:1000000000000]", "accepted"), "positions": (P + "lens @0:1000000000000", "accepted"),
    "steps": (P + "generate 5\nzero L0.resid steps=0:1000000000000", "accepted"),
    "a window": (P + "zero each L*.resid window=999999999999", "accepted"),
    "tokens": ("prompt a = repeat_random(999999999999)",
                                                                                        "accepted"),
    "five sweeps": (P + "".join(f"sweep s{i} in 0:100000\n" for i in range(5)) + "scale L[s0,s1,s2].resid by s3 * s4",
                    "accepted"),
    # many of one thing
    "holes": (P + "".join(f"let a{i} = {{x{i}}}\n" for i in range(1000)), "accepted"),
    "open holes": ("{\n" * 100_000, "refused"),
    "options": (P + "generate 5 " + "seed=1 " * 5000, "refused"),
    "places": (P + "zero " + ",".join(f"L{i}H0" for i in range(3000)),
                                                                             "accepted"),
    "indices": (P + "zero L[" + ",".join(map(str, range(5000))) + "].resid", "accepted"),
    "prompts": ("prompt [" + ",".join(['"a"'] * 5000) + "]\nlens", "accepted"),
    "backslashes": ('prompt "' + "\\" * 10**5, "refused"), "escapes": ('prompt "' + "\\u12" * N + '"', "accepted"),
}


@pytest.mark.parametrize("name", [name for name, (_, expected) in HOSTILE.items() if expected == "accepted"])
def test_a_hostile_text_is_read_and_survives(name):
    assert verdict(HOSTILE[name][0]) == "accepted"


@pytest.mark.parametrize("name", [name for name, (_, expected) in HOSTILE.items() if expected == "refused"])
def test_a_hostile_text_is_refused_in_a_short_report_that_can_be_printed(name):
    text = HOSTILE[name][0]
    with pytest.raises(SpecError) as error:
        parse(text)
    lines = text.split("\n")
    assert 0 < len(error.value.problems) <= 200
    assert [fault(problem, lines) for problem in error.value.problems if fault(problem, lines)] == []
    assert len(str(error.value).encode("utf-8")) < 6000


@pytest.mark.parametrize("name", HOSTILE)
def test_completion_in_a_hostile_text_says_something_or_nothing(name):
    text = HOSTILE[name][0][:300_000]
    chosen = random.Random(1)
    for cursor in (0, len(text), *(chosen.randrange(len(text) + 1) for _ in range(2))):
        found = complete(text, cursor)
        assert 0 <= found.start <= cursor


SMALL = """
import json, resource, sys
from benchmarks.fuzz import verdict
from tests.test_spec_hostile import HOSTILE
verdict("lens")
resource.setrlimit(resource.RLIMIT_AS, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + (1 << 30),) * 2)
print(json.dumps({name: verdict(HOSTILE[name][0]) for name in sys.argv[1:]}))
"""
RANGES = ["a power as an end", "a sweep without end", "a sweep of one, far away", "layers", "heads", "dimensions",
          "positions", "steps", "a window", "tokens", "five sweeps", "5000 digits", "a text of a megabyte",
          "Python of a megabyte"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit on memory is one of Linux")
def test_hostile_texts_are_read_in_little_memory():
    """A range that is counted out needs terabytes; this process may take one gigabyte."""
    command = [sys.executable, "-c", SMALL, *RANGES]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == {name: HOSTILE[name][1] for name in RANGES}


# JSON ---------------------------------------------------------------------------------------------------------------------

DOCS = [parse(text).to_json() for text in cells("valid.txt")]
LONG, DEEP = 10**5000, json.loads("[" * 900 + "]" * 900)
JUNK = [None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**30, LONG, -LONG, -0.0, 5e-324, "", "x", "*", "0:3",
        "a\n", "\ud800",
        "\x00", "$l", "L9", "each", " ", '"', "}\nzero a", "x" * 3000, [], {}, [[]], [None], {"kind": None}, {"kind": []},
        {"kind": "num"}, {"kind": "num", "value": "1"}, {1: 2}, {None: 3}, (1, 2), {1}, b"x", object(), DEEP,
        {"kind": "py", "source": "x" * 30_000}, {"kind": "str", "value": "\ud83d"},
        {"kind": "range", "text": "0:1000000000000"}]


def _paths(data: object, way: tuple = ()) -> list[tuple]:
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) and len(way) < 30 else ()
    return [*([way] if way else []), *(path for key, value in inner for path in _paths(value, (*way, key)))]


def _broken(chosen: random.Random) -> dict:
    data = json.loads(json.dumps(chosen.choice(DOCS)))
    for _ in range(chosen.choice((1, 1, 2))):
        *way, last = chosen.choice(_paths(data))
        parent = data
        for key in way:
            parent = parent[key]
        change = chosen.randrange(3)
        if change == 0:
            del parent[last]
        elif change == 1 and isinstance(parent[last], dict):
            parent[last][chosen.choice(["kind", "opts", "at", "x", "value", "id", "layer", "span"])] = chosen.choice(JUNK)
        else:
            parent[last] = chosen.choice(JUNK)
        if not data:
            break
    return data


@pytest.mark.parametrize("seed", range(10))
def test_broken_json_is_refused_with_a_path_or_is_a_spec(seed):
    chosen = random.Random(seed)
    refused = 0
    for _ in range(150):
        try:
            spec = ast.Spec.from_json(_broken(chosen))
        except SpecError as error:
            refused += 1
            assert all(p.message.startswith(("body", "hookspec", "a spec ", "'", "a ")) for p in error.problems), error
            assert str(error).encode("utf-8") and len(str(error)) < 6000
        else:
            assert ast.Spec.from_json(spec.to_json()) == parse(str(spec)) == spec
    assert refused > 75
