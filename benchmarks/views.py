"""What a view of attention costs: bytes, first paint, frames while pointing, a saved notebook; CircuitsVis beside it.

    python benchmarks/views.py [--quick] [--peer 64,256] [--limit 900]

Ours runs in headless Chromium without a graphics card, on a page with the built module and a kernel that answers from
this process. CircuitsVis is slow at many tokens: `--peer` says at which to run it (one layer of 12 heads each; its results
are kept from one run to the next), `--limit` after how many seconds to give up. Targets stand beside the measurements;
nothing fails here. Results go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks" / "results"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
LAYERS, HEADS = 12, 12
MOVES = 200
PAGE = """<!doctype html><meta charset="utf-8"><style>:root{color-scheme:light}</style><body><script type="module">
window.start = async ({traits, blob, module, css}) => {
  document.head.appendChild(document.createElement("style")).textContent = css;
  const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const state = {...traits, blob: bytes(blob)}, heard = {};
  const model = {get: (name) => state[name], set(name, value) { state[name] = value; model.emit("change:" + name); },
    save_changes() {}, on(name, f) { (heard[name] ??= new Set()).add(f); }, off(name, f) { heard[name]?.delete(f); },
    emit(name, ...given) { for (const f of [...(heard[name] ?? [])]) f(...given); },
    async send({ask, id, with: given}) {
      const {reply, buffers} = await window.answer(ask, given);
      model.emit("msg:custom", {id, reply}, buffers.map(bytes)); }};
  const address = URL.createObjectURL(new Blob([module], {type: "text/javascript"}));
  const el = document.body.appendChild(document.createElement("div"));
  const {default: view} = await import(address);
  const frame = () => new Promise(requestAnimationFrame);
  await frame();
  const from = performance.now();
  view.render({model, el});
  while (!el.querySelector("[data-ready]")) await frame();
  await frame();
  window.model = model;
  return performance.now() - from; };
window.head = async (layer, head) => {
  const from = performance.now(), name = "L" + layer + "H" + head;
  model.set("selection", {layer, head});
  while (document.querySelector(".hl-attn-title").firstChild.textContent !== name)
    await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - from; };
window.frames = () => { const found = []; let last = 0, on = true;
  const each = (now) => { if (last) found.push(now - last); last = now; if (on) requestAnimationFrame(each); };
  requestAnimationFrame(each);
  window.ended = () => { on = false; return found; }; };
</script>"""


def patterns(heads: tuple[int, ...], tokens: int) -> np.ndarray:
    """Random causal patterns with a sink and a spike in each row, float16."""
    rng = np.random.default_rng(0)
    found = np.empty((*heads, tokens, tokens), np.float16)
    for index in np.ndindex(*heads):
        raw = rng.random((tokens, tokens), dtype=np.float32) ** 16
        raw[np.arange(tokens), rng.integers(0, np.arange(tokens) + 1)] += tokens / 16
        raw[:, 0] += tokens / 32
        raw *= np.tri(tokens, dtype=np.float32)
        found[index] = raw / raw.sum(-1, keepdims=True)
    return found


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        path = "/usr/bin/chromium" if Path("/usr/bin/chromium").exists() else None
        chromium = driver.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


def worked(page: Any) -> Callable[[], float]:
    """A clock of the processor seconds that the page's main thread has worked."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def read() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    return read


def ours(chromium: Any, tokens: int, rounds: int) -> dict[str, float]:
    """Everything about one view of 144 heads."""
    import hooklab as hl

    given = patterns((LAYERS, HEADS), tokens)
    hl.view.attention(given[:1, :1])  # what a first view sets up is not what a view costs
    views, made = [], []
    for _ in range(rounds):
        begun = time.process_time()
        views.append(hl.view.attention(given, tokens=[f" w{i}" for i in range(tokens)]))
        made.append(time.process_time() - begun)
        for old in views[:-1]:
            old.close()
    view = views[-1]
    del given
    _, (head,) = view.answer("head", {"prompt": 0, "mode": "pattern", "against": 0, "head": 30})
    found = {"python": statistics.median(made),
             "open": len(json.dumps(view.facts).encode()) + len(view.blob), "head": len(head),
             "saved": len(notebook(view)), **shown(chromium, view, rounds)}
    view.close()
    return found


def shown(chromium: Any, view: Any, rounds: int) -> dict[str, float]:
    """The view in a browser: opened several times, then switched from head to head and pointed at."""
    from hooklab.views.assets import asset

    def answer(name: str, asked: dict[str, Any]) -> dict[str, Any]:
        reply, buffers = view.answer(name, asked)
        return {"reply": reply, "buffers": [base64.b64encode(one).decode() for one in buffers]}

    given = {"traits": {"facts": view.facts, "selection": {}, "options": view.options, "_spec": ""},
             "blob": base64.b64encode(view.blob).decode(), "module": asset("attention.js"), "css": asset("attention.css")}
    firsts, works = [], []
    context = chromium.new_context(viewport={"width": 1100, "height": 1000})
    context.expose_function("answer", answer)
    for _ in range(rounds):
        page = context.new_page()
        page.set_content(PAGE)
        page.wait_for_function("typeof window.start === 'function'")
        clock = worked(page)
        before = clock()
        firsts.append(page.evaluate("start", given))
        works.append(clock() - before)
    switches = [page.evaluate("([l, h]) => head(l, h)", [layer, 5]) for layer in range(1, 9)]
    before = clock()
    frames = pointed(page, ".hl-pane canvas") + pointed(page, ".hl-attn-strip")
    moved = (clock() - before) / (2 * MOVES)
    context.close()
    return {"first": statistics.median(firsts), "cpu": statistics.median(works), "switch": statistics.median(switches),
            "move": moved, "p50": float(np.quantile(frames, 0.5)), "p95": float(np.quantile(frames, 0.95))}


def pointed(page: Any, where: str) -> list[float]:
    """Milliseconds from frame to frame while the pointer moves over something."""
    box = page.locator(where).first.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.wait_for_timeout(300)
    page.evaluate("frames()")
    for i in range(MOVES):
        part = (i % 50) / 50
        page.mouse.move(box["x"] + box["width"] * (0.05 + 0.9 * part), box["y"] + box["height"] * (0.1 + 0.8 * (i / MOVES)))
    found: list[float] = page.evaluate("ended()")
    return found


def notebook(view: Any) -> str:
    """A notebook with one cell that shows the view, saved with the state of its widgets."""
    from ipywidgets import Widget

    state = {key: one for key, one in Widget.get_manager_state(widgets=[view])["state"].items() if key == view.model_id}
    data, _ = view._repr_mimebundle_()
    cell = {"cell_type": "code", "execution_count": 1, "id": "a", "metadata": {}, "source": "view",
            "outputs": [{"output_type": "execute_result", "execution_count": 1, "metadata": {}, "data": data}]}
    widgets = {"application/vnd.jupyter.widget-state+json": {"version_major": 2, "version_minor": 0, "state": state}}
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {"widgets": widgets}, "cells": [cell]})


def peer(chromium: Any, tokens: int, limit: float) -> dict[str, Any]:
    """CircuitsVis with one layer of 12 heads: seconds until every map is painted, or that it was given up."""
    from circuitsvis.attention import attention_heads

    given = patterns((HEADS,), tokens).astype(np.float32)
    begun = time.process_time()
    source = attention_heads(given, [f" w{i}" for i in range(tokens)]).local_src
    made = time.process_time() - begun
    bundle = len((Path(sys.modules["circuitsvis"].__file__ or "").parent / "dist" / "cdn" / "iife.js").read_text())
    found: dict[str, Any] = {"python": made, "open": len(source), "data": len(source) - bundle, "gave_up": 0}
    page = chromium.new_page(viewport={"width": 1100, "height": 1000})
    page.set_default_timeout(limit * 1000)
    clock = worked(page)
    with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file:
        file.write(f'<!doctype html><meta charset="utf-8">{source}')
        file.flush()
        try:
            begun = time.perf_counter()
            page.goto(Path(file.name).as_uri())
            page.wait_for_function(f"document.querySelectorAll('canvas').length > {HEADS}")
            page.evaluate("new Promise((f) => requestAnimationFrame(() => requestAnimationFrame(f)))")
            found |= {"first": (time.perf_counter() - begun) * 1000, "cpu": clock()}
        except Exception as error:  # a timeout of the driver, of several kinds
            print(f"CircuitsVis at {tokens} tokens: {type(error).__name__}", file=sys.stderr)
            found["gave_up"] = limit
    return found


# Results -------------------------------------------------------------------------------------------------------------


def size(count: float) -> str:
    """Bytes in words."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def report(rows: dict[str, dict[str, Any]], where: str) -> str:
    """The tables."""
    marks = {True: "met", False: "**missed**"}
    lines = ["# Views", "", "Generated by `python benchmarks/views.py`; do not edit. "
             f"{where}. Random causal patterns, float16.", "", "## Attention, 12 layers × 12 heads", "",
             "| | tokens | measured | target | |", "|---|---|---|---|---|"]
    for tokens in (256, 1024):
        if row := rows.get(f"ours {tokens}"):
            them = rows.get(f"peer {tokens}")
            times = them and LAYERS * them["data"] / row["open"]
            lines += [
                f"| processor time of Python, to a view that can be shown | {tokens} | {row['python']:.2f} s | "
                + (f"≤ 1 s | {marks[row['python'] <= 1]} |" if tokens == 1024 else "| |"),
                f"| sent when it opens, besides the module | {tokens} | {size(row['open'])} | | |",
                *([f"| CircuitsVis' data of the same 144 heads, over that | {tokens} | {times:.0f} × | ≥ 30 × | "
                   f"{marks[times >= 30]} |"] if times else []),
                f"| sent for a further head | {tokens} | {size(row['head'])} | | |",
                f"| from data to first paint | {tokens} | {row['first']:.0f} ms | "
                + (f"< 300 ms | {marks[row['first'] < 300]} |" if tokens == 256 else "| |"),
                f"| processor time of the page until then, unpacking included | {tokens} | {1000 * row['cpu']:.0f} ms | | |",
                f"| another head, asked for and painted | {tokens} | {row['switch']:.0f} ms | | |",
                f"| processor time of the page for each move | {tokens} | {1000 * row['move']:.1f} ms | < 16.7 ms | "
                f"{marks[row['move'] < 0.0167]} |",
                f"| frame while pointing, median | {tokens} | {row['p50']:.1f} ms | 16.7 ms | {marks[row['p50'] <= 17.5]} |",
                f"| frame while pointing, 95 % | {tokens} | {row['p95']:.1f} ms | 16.7 ms | {marks[row['p95'] <= 17.5]} |",
                f"| a notebook saved with the view's state | {tokens} | {size(row['saved'])} | | |"]
    lines += ["", "## CircuitsVis, 1 layer of 12 heads", "",
              "| tokens | processor time of Python | page | of that, data | first paint | processor time of the page |",
              "|---|---|---|---|---|---|"]
    for name, row in sorted(rows.items(), key=lambda item: int(item[0].split()[1])):
        if name.startswith("peer"):
            first = f"gave up after {row['gave_up']:.0f} s" if row["gave_up"] else f"{row['first'] / 1000:.1f} s"
            work = "" if row["gave_up"] else f"{row['cpu']:.1f} s"
            cells = [name.split()[1], f"{row['python']:.1f} s", size(row["open"]), size(row["data"]), first, work]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Pointing is over the map of one head and over its tokens, 200 moves each. The page of "
                      "CircuitsVis is what a saved notebook holds of it, once for each layer.", ""])


def write(name: str, text: str) -> None:
    """Write a result file atomically."""
    RESULTS.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=RESULTS, delete=False) as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(RESULTS / name)


def main() -> None:
    """Measure, and write benchmarks/results/views.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="256 tokens only; nothing is written")
    parser.add_argument("--peer", default="", help="numbers of tokens at which CircuitsVis is measured, as in 64,256")
    parser.add_argument("--limit", type=float, default=900, help="seconds after which CircuitsVis is given up")
    args = parser.parse_args()
    kept = RESULTS / "views.json"
    rows: dict[str, dict[str, Any]] = json.loads(kept.read_text())["rows"] if kept.exists() else {}
    with browser() as chromium:
        where = (f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, Chromium "
                 f"{chromium.version.split('.')[0]} without a graphics card, anywidget {version('anywidget')}, CircuitsVis "
                 f"{version('circuitsvis')}; load of the machine at the start {os.getloadavg()[0]:.1f}")
        for tokens in (256,) if args.quick else (256, 1024):
            rows[f"ours {tokens}"] = ours(chromium, tokens, 1 if args.quick else 5)
            print(tokens, rows[f"ours {tokens}"], file=sys.stderr, flush=True)
        for tokens in map(int, filter(None, args.peer.split(","))):
            rows[f"peer {tokens}"] = peer(chromium, tokens, args.limit)
            print(tokens, rows[f"peer {tokens}"], file=sys.stderr, flush=True)
            write("views.json", json.dumps({"where": where, "rows": rows}, indent=1) + "\n")
    if not args.quick:
        write("views.json", json.dumps({"where": where, "rows": rows}, indent=1) + "\n")
        write("views.md", report(rows, where))
    print(report(rows, where))


if __name__ == "__main__":
    main()
