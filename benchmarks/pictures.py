"""Pictures of the views for the documentation: each on the model `lab`, in JupyterLab, light and dark.

    python benchmarks/pictures.py [attention lens …] [--into docs/views]

Writes NAME.png and NAME-dark.png. It drives a real notebook with what the tests drive theirs (`tests/browser.py`), so it
needs JupyterLab, playwright, pillow and a Chromium; nothing is fetched.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import CHROMIUM, Notebook, chromium, expect, serve  # noqa: E402

MARGIN = 12
PAGE = {"width": 1280, "height": 1300}
ALONE = """.jp-InputArea, .jp-OutputPrompt, .jp-Toolbar, .jp-Notebook-footer, .jp-Collapser, .jp-OutputArea-promptOverlay
    { visibility: hidden !important; } .jp-Cell, .jp-Cell::after { outline: none !important; border: none !important;
    box-shadow: none !important; }"""
"""Leaves nothing of the notebook beside a view."""
SETUP = '''
import numpy as np, hooklab as hl
model = hl.load("lab")
clean = "When Mary and John went to the store, John gave a drink to"
corrupt = "When Mary and John went to the store, Mary gave a drink to"
prompts = f"""prompt clean = "{clean}"
prompt corrupt = "{corrupt}"
answer " Mary" vs " John"
metric logit_diff
"""
patched = model.run(prompts + "run patched on corrupt:\\n    patch each L*.resid_pre @each from clean")
zeroed = model.run(prompts + "run zeroed on clean:\\n    zero each L*H* @last")
active = np.stack([one[0].numpy() for one in model.capture(clean, "L*.mlp_post", at="last").values()])
edges = hl.analysis.edges(model, clean, corrupt, answer=" Mary", wrong=" John")
layers = model.run(prompts + "run zeroed on clean:\\n    zero each L*.mlp_out @last")
table = hl.analysis.nodes(model, clean, answer=" Mary", wrong=" John", kinds=("tokens", "heads", "neurons", "mlps"))
rows = [{"text": text, "names": kind} for text, kind in ((clean, "two"), (corrupt, "two"), ("Mary went to the store", "one"),
                                                        ("The store was closed", "none"))]
hl.extract(model, rows, ["L2.resid_post", "L3.pattern"], "acts", metadata=["text", "names"])
'''
VIEWS: dict[str, tuple[str, str]] = {
    "attention": ("hl.view.attention(model, clean)", "layer=4, head=0, pos=-1"),
    "heads": ('hl.view.heads(zeroed, title="what zeroing a head leaves of the logit difference", strongest=6)',
              "layer=1, head=3"),
    "neurons": ('hl.view.neurons(active, title="neurons at the last token")', "layer=2, neuron=17"),
    "tokens": ("hl.view.tokens(model, clean)", "pos=9"),
    "lens": ("hl.view.lens(model, clean)", "layer=3, pos=14"),
    "residual": ("hl.view.residual(model, clean, direction=(' Mary', ' John'))", "site='L4.attn_out', pos=14"),
    "grid": ('hl.view.grid(hl.Scores(np.random.default_rng(0).normal(size=(5, 8)), ("layer", "head"), name="effect"))',
             "layer=2, head=4"),
    "sweep": ("hl.view.sweep(patched)", "layer=1, pos=10"),
    "bars": ("hl.view.sweep(layers)", "layer=0"),
    "graph": ("hl.view.graph(edges, threshold=0.25)", ""),
    "features": ("hl.view.features(model, 'L2.mlp_post', [clean, corrupt, 'Mary went to the store because she was happy.'], "
                 "features=range(24))", "neuron=17"),
    "generation": ("hl.view.generation(model, 'Mary went to the store because', 'zero L2.mlp @new', max_new_tokens=8)",
                   "sample='edited', step=2"),
    "nodes": ("hl.view.nodes(table, model=model, prompt=clean)", "node='L4H0 @14'"),
    "store": ("hl.view.store('acts', model=model)", "example='2'"),
    "runs": ('hl.view.runs({"patched": patched, "zeroed": zeroed, "layers": layers})', "run='zeroed'"),
}
"""Name -> the code that makes the view, and what is chosen in it."""


def clip(notebook: Notebook, cell: int) -> dict[str, float]:
    """The part of the page that a view fills, with a margin."""
    box = notebook.cell(cell).locator(".hooklab-view").evaluate("""root => {
        const whole = root.getBoundingClientRect(), boxes = [];
        const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), range = document.createRange();
        while (walk.nextNode()) { range.selectNodeContents(walk.currentNode); boxes.push(...range.getClientRects()); }
        for (const one of root.querySelectorAll('canvas, svg, img, input, select, button, td'))
            boxes.push(one.getBoundingClientRect());
        const seen = boxes.filter((box) => box.width && box.height);
        return [whole.left, whole.top, Math.max(...seen.map((box) => Math.min(box.right, whole.right))),
                Math.max(...seen.map((box) => Math.min(box.bottom, whole.bottom)))]; }""")
    left, top, right, bottom = box
    return {"x": left - MARGIN, "y": top - MARGIN, "width": right - left + 2 * MARGIN, "height": bottom - top + 2 * MARGIN}


def take(notebook: Notebook, cell: int, name: str, into: Path) -> None:
    """Both pictures of one view."""
    expect(notebook.cell(cell).locator(".hooklab-view")).to_have_attribute("data-ready", "1")
    chosen = VIEWS[name][1]
    if said := notebook.python(f"_ = {name}.select({chosen})"):
        raise SystemExit(f"{name}: {said}")
    expect(notebook.cell(cell).locator(".hooklab-view")).not_to_contain_text("reading…")
    notebook.page.wait_for_timeout(1000)
    for dark in (False, True):
        notebook.theme(dark=dark)
        notebook.cell(cell).locator(".hooklab-view").evaluate("view => view.scrollIntoView({block: 'center'})")
        notebook.page.mouse.move(1, 1)
        notebook.page.wait_for_timeout(600)
        taken = Image.open(BytesIO(notebook.page.screenshot(clip=clip(notebook, cell))))
        taken.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            into / f"{name}{'-dark' if dark else ''}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("views", nargs="*", choices=[[], *VIEWS], help="which; all of them unless given")
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "views")
    given = parser.parse_args()
    if not CHROMIUM:
        raise SystemExit("there is no Chromium on this machine")
    given.into.mkdir(parents=True, exist_ok=True)
    names = given.views or list(VIEWS)
    cells = [SETUP, *(f"{name} = {VIEWS[name][0]}\n{name}" for name in names)]
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as server, chromium() as browser, \
            server.open(browser, cells, viewport=PAGE, device_scale_factor=1.5) as notebook:
        notebook.command("application:toggle-left-area")
        notebook.run(0)
        notebook.page.add_style_tag(content=ALONE)
        for cell, name in enumerate(names, 1):
            notebook.run(cell)
            take(notebook, cell, name, given.into)
            print(given.into / f"{name}.png")


if __name__ == "__main__":
    main()
