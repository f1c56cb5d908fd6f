"""Pieces of HTML: numbers and text in, escaped fragments out. The records draw themselves with these.

No script and nothing fetched, so a saved notebook keeps its pictures. A heat cell is a colour laid over the page's own
background: orange above zero, blue below, stronger further from zero. That reads on light and on dark pages and under
the common kinds of colour blindness; the number itself stands in the cell. A page may set its own colours in
`--hooklab-positive` and `--hooklab-negative` (three numbers from 0 to 255).

>>> table(["run", "prob"], [["clean", 0.5]])
'<table class="hl-table"><thead><tr><th scope="col" class="hl-text">run</th>...<td>0.500</td></tr></tbody></table>'
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

STRONGEST = 0.55
"""How opaque the strongest cell is: the page's own ink stays readable on it."""
MOST_ROWS, MOST_COLUMNS = 64, 40
WIDE = 120
"""Characters across a table from which on the names of its columns stand upright."""
KEPT = "\n\t\u00a0\u200c\u200d"
"""Line ends, tabs, the hard space, and the joiners that Persian words and many emoji need."""
POSITIVE, NEGATIVE = "230 97 1", "44 123 182"
_TEXT = ' class="hl-text"'

STYLE = f"""<style>
.hooklab {{ color: var(--jp-content-font-color1, var(--vscode-editor-foreground, inherit)); overflow-x: auto;
  font: 13px/1.45 var(--jp-content-font-family, system-ui, sans-serif); }}
.hooklab table.hl-table {{ border-collapse: collapse; margin: 4px 0 8px; width: auto; font-size: 12px; }}
.hooklab table.hl-table tbody tr:nth-child(n) {{ background: none; }}
.hooklab table.hl-table caption {{ text-align: left; font-weight: 600; padding: 2px 0; caption-side: top;
  white-space: nowrap; }}
.hooklab table.hl-table td, .hooklab table.hl-table th {{ border: 1px solid
  var(--jp-border-color2, rgb(128 128 128 / .25)); padding: 2px 6px; text-align: right; white-space: pre;
  font-variant-numeric: tabular-nums; max-width: none; vertical-align: middle; }}
.hooklab table.hl-table th {{ font-weight: 500; }}
.hooklab table.hl-table th[scope=row], .hooklab table.hl-table .hl-text {{ text-align: left; }}
.hooklab table.hl-table.hl-tall thead > tr > * {{ vertical-align: bottom; }}
.hooklab table.hl-table.hl-tall thead th {{ text-align: center; padding: 6px 2px; }}
.hooklab table.hl-table.hl-tall tbody td {{ min-width: 2em; }}
.hooklab .hl-tall thead span {{ writing-mode: vertical-rl; transform: rotate(180deg); }}
.hooklab table.hl-table td.hl-text {{ white-space: pre-wrap; }}
.hooklab .hl-pos {{ background: rgb(var(--hooklab-positive, {POSITIVE}) / var(--a, .3)); }}
.hooklab .hl-neg {{ background: rgb(var(--hooklab-negative, {NEGATIVE}) / var(--a, .3)); }}
.hooklab .hl-nan {{ background: repeating-linear-gradient(45deg, transparent 0 4px, rgb(128 128 128 / .4) 4px 6px); }}
.hooklab .hl-scale {{ display: inline-block; width: 120px; height: 10px; margin: 0 6px; vertical-align: middle;
  background: linear-gradient(90deg, rgb(var(--hooklab-negative, {NEGATIVE}) / {STRONGEST}), transparent,
  rgb(var(--hooklab-positive, {POSITIVE}) / {STRONGEST})); border: 1px solid rgb(128 128 128 / .4); }}
.hooklab .hl-scale.hl-up {{ background: linear-gradient(90deg, transparent,
  rgb(var(--hooklab-positive, {POSITIVE}) / {STRONGEST})); }}
.hooklab .hl-key {{ font-size: 12px; margin: 0 0 10px; }}
.hooklab .hl-track {{ position: relative; width: 220px; height: 12px; }}
.hooklab .hl-bar {{ position: absolute; top: 0; bottom: 0; min-width: 1px; --a: {STRONGEST}; }}
.hooklab .hl-strip {{ white-space: pre-wrap; font-family: var(--jp-code-font-family, ui-monospace, monospace);
  line-height: 1.9; }}
.hooklab .hl-strip span {{ border: 1px solid rgb(128 128 128 / .35); border-radius: 3px; padding: 1px 2px; margin: 1px; }}
.hooklab .hl-quiet {{ opacity: .75; }}
.hooklab h4 {{ margin: 8px 0 2px; font-size: 13px; }}
.hooklab pre {{ white-space: pre-wrap; margin: 4px 0; background: none; color: inherit; }}
</style>"""


def printable(text: Any) -> str:
    """Text with everything that would not show, or would act on its surroundings, written as its escape.

    >>> print(printable("a\\x1b[31m b"))
    a\\x1b[31m b
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def safe(text: Any) -> str:
    """Text for a page: escaped; what unprintable characters a line needs are kept, the others become their escapes.

    >>> safe("<b>&"), safe("one\\ntwo")
    ('&lt;b&gt;&amp;', 'one\\ntwo')
    """
    return escape("".join(c if c in KEPT else printable(c) for c in str(text)))


def number(value: Any, digits: int = 3) -> str:
    """A number in few characters; whole numbers in full, text as it is.

    >>> number(0.123456), number(-0.0), number(12345), number(float("-inf")), number(1234567.0), number("a")
    ('0.123', '0', '12345', '-inf', '1.23e+06', 'a')
    """
    if isinstance(value, (bool, str)) or value is None:
        return str(value)
    if isinstance(value, int):
        return str(value)
    value = float(value) + 0.0  # no minus before zero
    return f"{value:.{digits}g}"


def shorten(size: int, most: int) -> list[int | None]:
    """The indices to show of `size` things when there is room for `most`; None stands for the gap.

    >>> shorten(3, 5), shorten(9, 4)
    ([0, 1, 2], [0, 1, None, 7, 8])
    """
    if size <= most:
        return list(range(size))
    first, last = (most + 1) // 2, most // 2
    return [*range(first), None, *range(size - last, size)]


def block(*parts: str) -> str:
    """Fragments as one piece that brings its style along."""
    return f'{STYLE}<div class="hooklab">{"".join(parts)}</div>'


def heading(text: str) -> str:
    """A small heading."""
    return f"<h4>{safe(text)}</h4>"


def note(text: str) -> str:
    """A quiet line."""
    return f'<p class="hl-quiet">{safe(text)}</p>'


def folded(summary: str, text: str) -> str:
    """Text behind a line that opens it."""
    return f"<details><summary>{safe(summary)}</summary><pre>{safe(text)}</pre></details>"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """A table: the first entry of each row names it, numbers are rounded (their exact value is the tooltip)."""
    rows = list(rows)
    texts = {i for i in range(len(header)) if not i or any(isinstance(row[i], str) for row in rows)}
    head = "".join(f'<th scope="col"{_TEXT if i in texts else ""}>{safe(name)}</th>' for i, name in enumerate(header))
    body = "".join(f'<tr><th scope="row">{safe(row[0])}</th>{"".join(map(_entry, row[1:]))}</tr>' for row in rows)
    return _table(f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>", caption)


def heat(values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], *, caption: str = "",
         unit: str = "", axes: tuple[str, str] = ("", ""), labels: Sequence[Sequence[Any]] | None = None,
         limit: float | None = None, key: str | None = None) -> str:
    """A grid [rows columns] of coloured cells, with its scale; a large one is shortened, which a note says.

    `labels` are shown in the cells instead of their numbers; `limit` is the value of the strongest colour, the largest
    finite one unless given; `key` stands for the scale.
    """
    limit = largest(values) if limit is None else limit
    down, across = shorten(len(rows), MOST_ROWS), shorten(len(columns), MOST_COLUMNS)
    digits = decimals(values, limit)
    shown = {(i, j): safe(steady(values[i][j], digits) if labels is None else labels[i][j])
             for i in down for j in across if i is not None and j is not None}
    wide = [max([len(columns[j]), *(len(shown[i, j]) for i in down if i is not None)]) for j in across if j is not None]
    tall = len(columns) > 1 and sum(wide) + 2 * len(wide) > WIDE
    names = ["…" if j is None else safe(columns[j]) for j in across]
    head = "".join(f'<th scope="col">{f"<span>{name}</span>" if tall else name}</th>' for name in names)
    lines = []
    for i in down:
        cells = "".join("<td>…</td>" if i is None or j is None else
                        _cell(values[i][j], limit, f"{axes[0]} {rows[i]} · {axes[1]} {columns[j]}", unit, shown[i, j])
                        for j in across)
        lines.append(f'<tr><th scope="row">{"…" if i is None else safe(rows[i])}</th>{cells}</tr>')
    corner = safe(" \\ ".join(axes)) if any(axes) else ""
    grid = _table(f"<thead><tr><td{_TEXT}>{corner}</td>{head}</tr></thead><tbody>{''.join(lines)}</tbody>", caption, tall)
    return (grid + (scale(limit, unit, below(values)) if key is None else key)
            + _shortened((len(rows), MOST_ROWS, axes[0] or "rows"), (len(columns), MOST_COLUMNS, axes[1] or "columns")))


def bars(labels: Sequence[str], values: Sequence[float], *, caption: str = "", unit: str = "", axis: str = "",
         limit: float | None = None) -> str:
    """One bar per value; from the left when none is negative, else from the middle."""
    limit = largest([values]) if limit is None else limit
    both = any(v < 0 for v in values)
    lines = []
    for i in shorten(len(values), MOST_ROWS):
        if i is None:
            lines.append('<tr><th scope="row">…</th><td></td><td></td></tr>')
            continue
        lines.append(f'<tr><th scope="row">{safe(labels[i])}</th><td>{_bar(values[i], limit, both)}</td>'
                     f'<td title="{values[i]!r}">{number(values[i])}</td></tr>')
    head = f'<thead><tr><th scope="col"{_TEXT}>{safe(axis)}</th><td></td><th scope="col">{safe(unit)}</th></tr></thead>'
    return (_table(f"{head}<tbody>{''.join(lines)}</tbody>", caption)
            + _shortened((len(values), MOST_ROWS, axis or "rows")))


def strip(pieces: Sequence[str], values: Sequence[float] | None = None, *, unit: str = "",
          limit: float | None = None) -> str:
    """Tokens in a row, coloured by a value each where values are given."""
    limit = largest([values]) if values is not None and limit is None else limit or 0.0
    spans = []
    for i, piece in enumerate(pieces):
        kind, value = ("", "") if values is None else (shade(values[i], limit), f" · {values[i]:.6g} {unit}")
        spans.append(f'<span {kind} title="{safe(f"{i}{value}".rstrip())}">{safe(piece) or "&nbsp;"}</span>')
    key = scale(limit, unit, below([values])) if values is not None else ""
    return f'<div class="hl-strip">{"".join(spans)}</div>{key}'


def scale(limit: float, unit: str = "", both: bool = True) -> str:
    """The key to the colours; from zero where nothing is below it."""
    kind, says = ("hl-scale", "blue below zero, orange above") if both else ("hl-scale hl-up", "orange above zero")
    return (f'<div class="hl-quiet hl-key">{number(-limit if both else 0)}<span class="{kind}" role="img" '
            f'aria-label="{says}"></span>{number(limit)} {safe(unit)}</div>')


def decimals(values: Iterable[Iterable[float]], limit: float) -> int | None:
    """Digits after the point for a table of numbers, so that its columns line up; None where they are whole numbers, or
    too large or too small to be written so.

    >>> decimals([[0.5, -7.25]], 7.25), decimals([[0.02]], 0.02), decimals([[3.0]], 3.0), decimals([[1e9]], 1e9)
    (2, 4, None, None)
    """
    if not 1e-3 <= limit < 1e5 or all(float(v).is_integer() for row in values for v in row if math.isfinite(v)):
        return None
    return max(2 - math.floor(math.log10(limit)), 0 if limit >= 1000 else 1 if limit >= 100 else 2)


def steady(value: float, digits: int | None) -> str:
    """A number with a fixed count of decimals; zero and what is not finite as they are.

    >>> steady(7.5, 2), steady(-0.001, 2), steady(0.0, 2), steady(float("nan"), 2), steady(0.25, None)
    ('7.50', '0.00', '0', 'nan', '0.25')
    """
    if digits is None or not value or not math.isfinite(value):
        return number(value)
    return f"{round(value, digits) + 0.0:.{digits}f}"


def below(values: Iterable[Iterable[float]]) -> bool:
    """Whether any number is below zero."""
    return any(v < 0 for row in values for v in row)


def shade(value: float, limit: float) -> str:
    """The attributes that colour an element by a value, 0 being uncoloured.

    >>> shade(-1.0, 2.0), shade(0.0, 2.0), shade(float("nan"), 2.0)
    ('class="hl-neg" style="--a:0.275"', '', 'class="hl-nan"')
    """
    if math.isnan(value):
        return 'class="hl-nan"'
    share = 1.0 if math.isinf(value) else min(1.0, abs(value) / limit) if limit else 0.0
    if not share:
        return ""
    return f'class="hl-{"neg" if value < 0 else "pos"}" style="--a:{share * STRONGEST:.3g}"'


def largest(values: Iterable[Iterable[float]]) -> float:
    """The largest finite magnitude; 0 when there is none."""
    return max((abs(float(v)) for row in values for v in row if math.isfinite(v)), default=0.0)


def _entry(value: Any) -> str:
    if isinstance(value, str):
        return f'<td class="hl-text">{safe(value)}</td>'
    exact = f' title="{value!r}"' if isinstance(value, float) and number(value) != repr(value) else ""
    text = "" if value is None else number(value)
    if isinstance(value, float) and math.isfinite(value) and "e" not in text and not value.is_integer():
        text = f"{value:#.3g}".rstrip(".")  # columns line up when zeros at the end are kept
    return f"<td{exact}>{text}</td>"


def _cell(value: float, limit: float, place: str, unit: str, shown: str) -> str:
    value = float(value)
    tip = safe(f"{place}: {value:.9g} {unit}".rstrip())
    return f'<td {shade(value, limit)} title="{tip}">{shown}</td>'


def _bar(value: float, limit: float, both: bool) -> str:
    if not math.isfinite(value) or not limit:
        return ""
    room = 50 if both else 100
    width = room * min(1.0, abs(value) / limit)
    left = 0 if not both else 50 - width if value < 0 else 50
    kind = "hl-neg" if value < 0 else "hl-pos"
    return (f'<div class="hl-track"><div class="hl-bar {kind}" style="left:{left:.4g}%;width:{width:.4g}%">'
            "</div></div>")


def _table(inside: str, caption: str, tall: bool = False) -> str:
    title = f"<caption>{safe(caption)}</caption>" if caption else ""
    return f'<table class="hl-table{" hl-tall" if tall else ""}">{title}{inside}</table>'


def _shortened(*parts: tuple[int, int, str]) -> str:
    cut = [f"{most} of {size} along {axis}" for size, most, axis in parts if size > most]
    return note(f"Shortened: {' and '.join(cut)}; `.values` has them all.") if cut else ""
