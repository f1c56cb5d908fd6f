"""Every view in a real JupyterLab: it paints its numbers, is read by pointer and by keyboard, and reaches the kernel.

`ROWS` is the table: one row per view says how it is made, what it shows, what a click, keys and the kernel do to it. Each
row goes through every test; a new view is a new row. Colours are worked out here, from the numbers in the kernel and
matplotlib's own maps. The browser is the system's Chromium; where it is missing, the tests are skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from ast import literal_eval
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")

from browser import CHROMIUM, PATIENCE, STATE, Notebook, expect, serve_marimo, until, watched

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason="there is no Chromium on this machine")

SETUP = '''
import comm, ipywidgets, json, matplotlib, numpy as np, torch, hooklab as hl
model = hl.load("lab")
clean = "When Mary and John went to the store, John gave a drink to"
corrupt = "When Mary and John went to the store, Mary gave a drink to"
table = hl.analysis.nodes(model, clean, answer=" Mary", wrong=" John", kinds="heads")
with hl.data.Writer("acts", {"L0.resid_post": ("pos", "d_model")}, model="lab") as writer:
    for name, split in (("first", "test"), ("second", "train"), ("third", "test")):
        writer.add(name, {"L0.resid_post": torch.ones(2, 4)}, [5, 6], {"split": split, "text": "Mary and John"})
    for name in ("<script>alert(1)</script>", "</script>"):
        writer.add(name, {"L0.resid_post": torch.ones(2, 4)}, [5, 6], {"split": "bad", "odd": name})
acts = hl.open_store("acts")
swept = model.run(f"""prompt clean = "{clean}"
prompt corrupt = "{corrupt}"
answer " Mary" vs " John"
metric logit_diff
run patched on corrupt:
    patch each L*.resid_post @each from clean""")
planted = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
stream = hl.Scores(np.abs(planted), ("site", "pos"), name="norm",
                   coords={"site": [f"L{i}.resid_post" for i in range(4)], "pos": [f"{i}: t{i}" for i in range(6)]})
bad = ["<script>alert(1)</script>", "</script>", "javascript:alert(1)", "\\x1b[31mred\\x1b[0m", "x" * 10_000, "\\ud800",
       "\\x00", "<img src=x onerror=alert(1)>"]
hostile = hl.Scores(np.arange(16.0).reshape(2, 8), ("layer", "pos"), name=bad[0], coords={"pos": bad})
'''


@dataclass(frozen=True)
class Row:
    """A view and what to expect of it.

    Attributes:
        name: The function of `hl.view`; in the kernel the view has this name.
        code: Makes it.
        words: Texts that stand in it.
        click: What to click: a CSS selector, or how far into the first canvas, as shares of its width and height.
        chosen: What is chosen then.
        sign: Where the page shows what is chosen, and what stands there.
        focus: What takes the keys.
        keys: What to press; then Enter.
        kept: What Enter has chosen, with or without more.
        hostile: Makes it of `bad`, texts that try to be more than text.
        numbers: The numbers on its map, [rows columns], as the kernel has them; nan where nothing is painted.
        colours: The map that they are painted with.
        share: Where a number `x` stands on that map, from 0 to 1, given all of them as `a`.
    """

    name: str
    code: str
    words: tuple[str, ...]
    click: str | tuple[float, float]
    chosen: dict
    sign: tuple[str, str]
    focus: str
    keys: tuple[str, ...]
    kept: dict
    hostile: str
    numbers: str = ""
    colours: str = "RdBu_r"
    share: str = "0.5 + 0.5 * x / np.nanmax(abs(a))"

    @property
    def kind(self) -> str:
        return {"sweep": "grid", "nodes": "table", "store": "table"}.get(self.name, self.name)


RIGHT, DOWN = "ArrowRight", "ArrowDown"
SAY, PANE = "output.hl-say", ".hl-pane"
INSIDE = (RIGHT, RIGHT, DOWN)
"""The first key goes to the first cell."""
LINEAR = "x / a.max()"
ROWS = [
    Row("grid", 'hl.view.grid(hl.Scores(planted, ("layer", "head"), name="effect"))', ("effect", "layer \\ head"),
        (0.75, 0.6), {"layer": 2, "head": 4}, (SAY, "layer 2 · head 4 · effect"), PANE, INSIDE, {"layer": 1, "head": 1},
        "hl.view.grid(hostile)", numbers="planted"),
    Row("attention", "hl.view.attention(model, clean)", ("·Mary", "L4", "attention"),
        (0.3, 0.4), {"layer": 1, "head": 1}, (".hl-attn-title", "L1H1"), ".hl-attn-heads", INSIDE, {"layer": 1, "head": 1},
        "hl.view.attention(np.tril(np.ones((2, 3, 8, 8))) / 8, tokens=bad, title=bad[0])",
        numbers="np.where(np.tri(15), model.capture(clean, 'L0.pattern')['L0.pattern'][0, 0].numpy(), np.nan)",
        colours="viridis", share="np.sqrt(x)"),
    Row("tokens", "hl.view.tokens(model, clean)", (" Mary", "log-probability · nats"),
        ".hl-tok >> nth=3", {"pos": 3}, (SAY, "3 ‘ and’: log-probability"), ".hl-tok[tabindex='0']",
        ("Home", RIGHT, RIGHT), {"pos": 2},
        "hl.view.tokens(bad, np.arange(8.0), title=bad[0])"),
    Row("heads", 'hl.view.heads(planted, title="copying")', ("copying", "strongest 12 of 24"),
        (0.75, 0.6), {"layer": 2, "head": 4}, (SAY, "layer 2 · head 4"), PANE, INSIDE, {"layer": 1, "head": 1},
        "hl.view.heads(planted, title=bad[0])", numbers="planted"),
    Row("neurons", "hl.view.neurons(np.abs(planted))", ("layer \\ neuron", "strongest 12 of 24"),
        (0.75, 0.6), {"layer": 2, "neuron": 4}, (SAY, "layer 2 · neuron 4"), PANE, INSIDE, {"layer": 1, "neuron": 1},
        "hl.view.neurons(np.abs(planted), title=bad[0])", numbers="abs(planted)"),
    Row("residual", "hl.view.residual(stream)", ("site \\ pos", "L3.resid_post"),
        (0.75, 0.6), {"layer": 2, "pos": 4, "site": "L2.resid_post"}, (SAY, "site L2.resid_post · pos 4"), PANE, INSIDE,
        {"layer": 1, "pos": 1, "site": "L1.resid_post"},
        'hl.view.residual(hl.Scores(np.ones((2, 8)), ("site", "pos"), coords={"pos": bad, "site": ["L0.resid_post", '
        '"L1.resid_post"]}), title=bad[0])', numbers="abs(planted)", colours="viridis", share=LINEAR),
    Row("lens", "hl.view.lens(model, clean)", ("logit lens", "·Mary"),
        "td[data-layer='2'][data-pos='3']", {"layer": 2, "pos": 3}, (SAY, "layer 2 · 3 ‘·and’"), "td[tabindex='0']",
        ("Home", RIGHT, RIGHT), {"pos": 2},
        'hl.view.lens(hl.Scores(np.ones((2, 8)) / 2, ("layer", "pos"), labels=np.array([bad, bad], dtype=object), '
        'coords={"pos": bad}), title=bad[0])'),
    Row("sweep", "hl.view.sweep(swept)", ("layer \\ pos", "·Mary", "clean", "corrupt"),
        (0.3, 0.5), {"layer": 2, "pos": 4}, (SAY, "layer 2 · pos 4"), PANE, INSIDE, {"layer": 1, "pos": 1},
        "hl.view.sweep(hostile)", numbers='next(iter(swept.scores.values())).values'),
    Row("bars", 'hl.view.bars(hl.Scores(np.array([0.5, -2.0, 1.0]), ("layer",), name="effect"))', ("effect", "0.500", "−2"),
        ".hl-bar-row >> nth=1", {"layer": 1}, (SAY, "layer 1 · effect −2"), ".hl-bars", (DOWN, DOWN), {"layer": 1},
        'hl.view.bars(hl.Scores(np.arange(8.0), ("pos",), name=bad[0], coords={"pos": bad}))'),
    Row("graph", "hl.view.graph([('embed', 'L0H1.v', 0.5), ('L0H1', 'L1H2.k', -0.2), ('L1H2', 'logits', 1.5)])",
        ("embed", "logits", "3 of 3 edges, 4 of 4 nodes"),
        ".hl-node >> nth=1", {"node": "L1H2", "layer": 1, "head": 2}, (SAY, "L1H2: edges 1 in"), ".hl-graph-field",
        (RIGHT, DOWN), {}, "hl.view.graph([(one, 'end', 1.0) for one in bad], title=bad[0])"),
    Row("features", "hl.view.features(model, 'L2.mlp_post', [clean], features=[3, 17])",
        ("neurons of L2.mlp_post", "Strongest contexts", "Logits per unit of activation"),
        ".hl-feature[role=option] >> nth=1", {"layer": 2, "neuron": 3}, (".hl-feature[aria-selected=true] b", "3"),
        ".hl-feature-list", (DOWN,), {"layer": 2, "neuron": 3},
        "hl.view.features(model, 'L2.mlp_post', [''.join(bad[:4] + bad[6:])], features=[3], title=bad[0])"),
    Row("generation", "hl.view.generation(model, 'Mary went to the store because', 'zero L2.mlp @new', max_new_tokens=6)",
        ("plain", "edited", "zero L2.mlp_out @new", " she"),
        ".hl-token >> nth=2", {"sample": "plain", "step": 2}, (SAY, "plain · step 2"), ".hl-token[tabindex='0']",
        ("Home", RIGHT, RIGHT), {"step": 2},
        "hl.view.generation(model, ''.join(bad[:4] + bad[6:]), max_new_tokens=2, title=bad[0])"),
    Row("nodes", "hl.view.nodes(table, model=model, prompt=clean)", ("logit_diff = ", "direct effect", "nodes"),
        "tbody tr[data-key='L4H0 @14']", {"node": "L4H0 @14", "layer": 4, "head": 0, "pos": 14},
        (SAY, "node L4H0 @14 · token ·to"), "tbody tr[tabindex='0']", (DOWN,), {},
        "hl.view.nodes(hl.analysis.node_table.Nodes((hl.analysis.node_table.Kind('heads', 'L{layer}H{unit}'),), "
        "np.array([[0, 0, n, n, -1] for n in range(8)]), {'effect': np.arange(8.0)}, tuple(bad), bad[0]))"),
    Row("store", "hl.view.store(acts.where(split={'test', 'train'}))", ("second", "3 of 3 examples", "split"),
        "tbody tr >> nth=1", {"example": "second"}, (SAY, "example second"), "tbody tr[tabindex='0']", ("Home", DOWN),
        {"example": "second"}, "hl.view.store(acts, title=bad[0])"),
    Row("runs", 'hl.view.runs({"first": swept, "second": hl.Run("metric prob", metrics={"main": {"prob": 0.5}})})',
        ("first", "second", "0.5000", "2 of 2 runs"),
        "tbody tr >> nth=1", {"run": "second"}, ("tr[aria-selected=true]", "second"), "tbody tr[tabindex='0']", (DOWN,),
        {"run": "second"},
        'hl.view.runs({bad[i]: hl.Run(f"metric prob  # {bad[0]}", metrics={bad[0]: {bad[1]: 0.5}}) for i in (0, 1, 2, 3)}, '
        'title=bad[0])'),
]
COUNTS = "print(len(ipywidgets.widgets.widget._instances), len(comm.get_comm_manager().comms))"
EACH = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
MAPS = pytest.mark.parametrize("row", [row for row in ROWS if row.numbers], ids=[row.name for row in ROWS if row.numbers])


class Shown:
    """A view on the page and in the kernel."""

    def __init__(self, notebook: Notebook, cell: int, name: str):
        self.notebook, self.page, self.number, self.name = notebook, notebook.page, cell, name
        self.cell = notebook.cell(cell)
        self.root = self.cell.locator(".hooklab-view")

    def run(self):
        """Run its cell and wait until it is painted."""
        self.notebook.run(self.number)
        expect(self.root, "\n".join(self.cell.locator(".jp-OutputArea-child").all_inner_texts())).to_have_count(1)
        expect(self.root).to_have_attribute("data-ready", "1")
        return self

    def python(self, code):
        return self.notebook.python(code)

    def choose(self, selection):
        self.python(f"{self.name}.selection = {selection!r}")

    def selection(self):
        return literal_eval(self.python(f"print(dict({self.name}.selection))"))

    def chose(self, selection):
        """Wait until the kernel has this selection, with or without more."""
        until(lambda: selection.items() <= self.selection().items(), f"{self.name} to choose {selection} in the kernel")

    def shows(self, sign):
        place, text = sign
        expect(self.root.locator(place).first).to_contain_text(text)

    def point(self, target, act="click"):
        """Click, or only point at, something by its selector, or a place on the first canvas."""
        if isinstance(target, str):
            return getattr(self.root.locator(target).first, act)()
        canvas = self.root.locator("canvas.hl-canvas").first
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        return getattr(canvas, act)(position={"x": target[0] * box["width"], "y": target[1] * box["height"]})

    def pixels(self, rows, columns):
        """The colour of each cell, near its corner, where no number is written: [rows columns] of rgba."""
        return self.root.locator(".hl-pane canvas.hl-canvas").evaluate("""(canvas, [rows, columns]) => {
            const context = canvas.getContext('2d'), many = (n) => [...Array(n).keys()];
            const at = (share, size) => Math.round(share * size);
            return many(rows).map((r) => many(columns).map((c) => [...context.getImageData(
                at((c + 0.15) / columns, canvas.width), at((r + 0.14) / rows, canvas.height), 1, 1).data]));
        }""", [rows, columns])


@pytest.fixture(scope="module")
def notebook(jupyter, chromium):
    """A notebook with a cell for every view, and one for its hostile form."""
    cells = [SETUP, *(f"{row.name} = {row.code}\n{row.name}" for row in ROWS),
             *(f"bad_{row.name} = {row.hostile}\nbad_{row.name}" for row in ROWS)]
    with jupyter.open(chromium, cells, name="views") as notebook:
        assert "Traceback" not in "".join(notebook.run(0))
        yield notebook


@pytest.fixture(scope="module")
def show(notebook):
    """A view of the table, shown when it is first asked for."""
    shown = {}

    def get(name):
        if name not in shown:
            names = [row.name for row in ROWS] + [f"bad_{row.name}" for row in ROWS]
            shown[name] = Shown(notebook, 1 + names.index(name), name).run()
        return shown[name]

    return get


def colours_of(view, row, share=""):
    """What a map should look like, worked out in the kernel from its numbers: None where nothing is painted."""
    code = f"""a = np.asarray({row.numbers}, dtype="float64"); x = a
painted = matplotlib.colormaps["{row.colours}"](np.clip(np.nan_to_num({share or row.share}), 0, 1), bytes=True)[..., :3]
print(json.dumps([[None if np.isnan(a[i, j]) else painted[i, j].tolist() for j in range(a.shape[1])]
                  for i in range(a.shape[0])]))"""
    return json.loads(view.python(code))


def same_colours(found, expected):
    """Whether colours agree to a step of the table, 1/250 of its length."""
    return all(pixel[3] == 0 if want is None else
               pixel[3] == 255 and max(abs(a - b) for a, b in zip(pixel, want, strict=False)) <= 6
               for line, wanted in zip(found, expected, strict=True) for pixel, want in zip(line, wanted, strict=True))


@EACH
def test_a_view_says_what_it_is(row, show):
    view = show(row.name)
    expect(view.root).to_have_attribute("data-view", row.kind)
    for word in row.words:
        expect(view.root).to_contain_text(word)
    if view.root.locator("canvas.hl-canvas").count():
        assert view.root.locator("canvas.hl-canvas").first.evaluate(
            "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte)")


@MAPS
def test_every_cell_of_a_map_has_the_colour_of_its_number(row, show):
    view = show(row.name)
    expected = colours_of(view, row)
    assert len({str(pixel) for line in expected for pixel in line}) > 2
    found = view.pixels(len(expected), len(expected[0]))
    assert same_colours(found, expected)


def test_another_head_is_painted_when_it_is_chosen(show):
    view, row = show("attention"), next(row for row in ROWS if row.name == "attention")
    view.choose({"layer": 3, "head": 2})
    view.shows((".hl-attn-title", "L3H2"))
    other = row.numbers.replace("L0", "L3").replace("[0, 0]", "[0, 2]")
    assert other != row.numbers
    expected = colours_of(view, Row(**{**vars(row), "numbers": other}))
    assert same_colours(view.pixels(15, 15), expected)
    assert not same_colours(view.pixels(15, 15), colours_of(view, row))
    view.choose({})


def test_an_option_set_in_python_repaints(show):
    view, row = show("grid"), ROWS[0]
    before = view.pixels(4, 6)
    view.python("grid.options = {**grid.options, 'limit': 10.0}")
    expect(view.root).to_have_attribute("data-ready", "1")
    expected = colours_of(view, row, "0.5 + 0.5 * x / 10")
    assert same_colours(view.pixels(4, 6), expected)
    assert view.pixels(4, 6) != before
    view.python("grid.options = {**grid.options, 'limit': 0.0}")
    assert view.pixels(4, 6) == before


@EACH
def test_a_click_reaches_python(row, show):
    view = show(row.name)
    view.choose({})
    view.point(row.click)
    view.shows(row.sign)
    assert literal_eval(view.notebook.below(f"print(dict({row.name}.selection))")) == row.chosen


@EACH
def test_what_python_chooses_shows(row, show):
    view = show(row.name)
    view.choose({})
    view.python(f"{row.name}.select(**{row.chosen!r})")
    view.shows(row.sign)


@pytest.mark.parametrize("row", [row for row in ROWS if row.sign[0] == SAY], ids=lambda row: row.name)
def test_what_lies_under_the_pointer_is_spoken(row, show):
    view = show(row.name)
    view.choose({})
    view.page.mouse.move(1, 1)
    view.point(row.click, "hover")
    view.shows(row.sign)
    assert view.root.locator(SAY).evaluate("line => line.tagName") == "OUTPUT"
    assert view.selection() == {}


@EACH
def test_keys_choose_and_clear_and_do_not_reach_the_notebook(row, show):
    view = show(row.name)
    view.choose({})
    view.page.mouse.move(1, 1)
    state = f"""() => {{ const {{mode, activeCellIndex, widgets}} = window.jupyterapp.shell.currentWidget.content;
        const source = widgets[{view.number}].model.sharedModel.getSource();
        return [mode, activeCellIndex, source, widgets.map((cell) => cell.model.type)]; }}"""
    view.root.locator(row.focus).first.focus()
    before = view.page.evaluate(state)
    for key in (*row.keys, "Enter"):
        view.page.keyboard.press(key)
    assert view.page.evaluate(state) == before
    view.chose(row.kept)
    assert view.selection()
    view.root.locator(row.focus).first.focus()
    before = view.page.evaluate(state)
    for key in ("a", "b", "x", "d", "d", "m", "y", "Escape"):
        view.page.keyboard.press(key)
    assert view.page.evaluate(state) == before
    until(lambda: view.selection() == {}, "Escape to clear the selection")


def test_a_choice_in_one_view_is_a_choice_in_others_of_the_run(show):
    heads, grid = show("heads"), show("grid")
    heads.python("hl.view.link(heads, grid); heads.selection = {}; grid.selection = {}")
    heads.point((0.75, 0.6))
    grid.shows((SAY, "layer 2 · head 4 · effect"))
    grid.chose({"layer": 2, "head": 4})


@EACH
def test_running_a_cell_again_leaves_no_orphan_and_closing_frees_the_view(row, show):
    view = show(row.name)
    before = view.python(COUNTS)
    view.run()
    assert view.python(COUNTS) == before
    view.python(f"{row.name}.close()")
    closed = view.python(COUNTS)
    assert all(int(a) < int(b) for a, b in zip(closed.split(), before.split(), strict=True))
    expect(view.root).to_have_count(0)
    view.run()
    assert view.python(COUNTS) == before


@EACH
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_view_is_accessible_in_both_themes(row, dark, show):
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe is not installed")
    view = show(row.name)
    view.notebook.theme(dark=dark)
    view.python(f"{row.name}.selection = {row.chosen!r}")
    view.shows(row.sign)
    view.root.scroll_into_view_if_needed()
    view.page.evaluate(f"() => {{ if (!window.axe) {{ {axe.AXE_SCRIPT} }} }}")
    found = view.root.evaluate("async (root) => (await axe.run(root, {resultTypes: ['violations']})).violations")
    bad = [(fault["id"], fault["help"], [node["html"][:160] + str(node["any"][:1])[:400] for node in fault["nodes"][:4]])
           for fault in found if fault["impact"] in ("serious", "critical")]
    assert bad == []


def test_ink_follows_the_theme(show):
    view, ink = show("grid"), {}
    for dark in (True, False):
        view.notebook.theme(dark=dark)
        ink[dark] = view.root.locator(".hl-name").first.evaluate(
            "name => getComputedStyle(name).color.match(/[\\d.]+/g).slice(0, 3).map(Number)")
    assert sum(ink[True]) > sum(ink[False]) + 200


@EACH
def test_text_that_tries_to_act_is_shown_as_text(row, show):
    view = show(f"bad_{row.name}")
    expect(view.root).to_contain_text("<script>alert(1)</script>")
    text = view.root.evaluate("root => root.textContent")
    assert not {"\x1b", "\x00", "\ud800"} & set(text)
    assert "x" * 1000 not in text
    assert view.root.locator("script, img[onerror], a[href^='javascript']").count() == 0
    assert view.notebook.watch.dialogs == []


def test_a_kernel_that_is_gone_is_said_to_be(jupyter, chromium):
    view = 'import hooklab as hl\nruns = hl.view.runs({"first": hl.Run("metric prob")})\nruns'
    with jupyter.open(chromium, [view], name="gone") as notebook:
        shown = Shown(notebook, 0, "runs").run()
        notebook.without_kernel()
        shown.root.get_by_role("button", name="Refresh").click()
        expect(shown.root.locator(".hl-tell.hl-wrong")).to_contain_text("kernel", timeout=30_000)
        expect(shown.root).to_contain_text("first")
        assert notebook.watch.errors == []


@pytest.fixture(scope="module")
def saved(notebook, show):
    """The notebook as it was saved, with every view and the state of the widgets."""
    for row in ROWS:
        show(row.name)
        show(f"bad_{row.name}")
    return notebook.save()


def test_a_saved_notebook_shows_its_views_without_their_kernel(saved, notebook, jupyter, chromium):
    models = saved.metadata.widgets[STATE].state.values()
    assert sum(model["model_module"] == "anywidget" for model in models) >= 2 * len(ROWS)
    with jupyter.open(chromium, notebook.file, name="again") as again:
        views = [Shown(again, n, row.name) for n, row in enumerate(ROWS, 1)]
        for view in views:
            # Lab leaves the outputs of cells that are far off the screen for later; a reader scrolls.
            view.cell.scroll_into_view_if_needed()
            expect(view.root, view.cell.inner_text()[:500]).to_have_attribute("data-ready", "1", timeout=PATIENCE)
        again.without_kernel()
        for view, row in zip(views, ROWS, strict=True):
            view.cell.scroll_into_view_if_needed()
            expect(view.root).to_have_attribute("data-ready", "1")
            for word in row.words:
                expect(view.root).to_contain_text(word)
        assert again.watch.errors == []
        assert again.watch.outside == []
        assert again.watch.dialogs == []


STATIC_FIRST = [f"--NbConvertBase.display_data_priority={kind}" for kind in ("text/html", "image/png", "text/plain")]


@pytest.mark.parametrize("options", [[], STATIC_FIRST], ids=["saved without state", "saved with state"])
def test_a_converted_notebook_shows_the_static_form_of_every_view(options, saved, jupyter, chromium):
    """Lab keeps the state of widgets when told to; with it, nbconvert fetches scripts unless told to take HTML first."""
    file = jupyter.folder / f"converted{len(options)}.ipynb"
    metadata = {key: one for key, one in saved.metadata.items() if options or key != "widgets"}
    nbformat.write(nbformat.from_dict({**saved, "metadata": metadata}), file)
    done = subprocess.run([sys.executable, "-m", "nbconvert", "--to", "html", *options, str(file)], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    with watched(chromium, "file:") as (page, watch):
        page.goto(file.with_suffix(".html").as_uri(), wait_until="domcontentloaded")
        for n, row in enumerate([*ROWS, *ROWS], 1):
            output = page.locator(".jp-Cell").nth(n).locator(".jp-OutputArea-output")
            assert output.locator("script").count() == 0, row.name
            assert output.locator(".hooklab table, .hooklab img, .hooklab svg, .hooklab span").count() > 0, row.name
        assert watch.dialogs == []


SMALL = ("import numpy as np\nimport hooklab as hl",
         'grid = {wrap}(hl.view.grid(hl.Scores(np.eye(4, 6), ("layer", "head"), name="effect")))\ngrid',
         'tokens = {wrap}(hl.view.tokens(["The", " cat", " sat"], [0.0, 2.0, -1.0]))\ntokens')


def test_views_work_in_notebook_7(jupyter, chromium):
    pytest.importorskip("notebook", reason="Notebook 7 is not installed")
    with jupyter.open(chromium, [cell.format(wrap="") for cell in SMALL], name="seven", app="notebooks") as notebook:
        notebook.run(0)
        grid, tokens = Shown(notebook, 1, "grid").run(), Shown(notebook, 2, "tokens").run()
        grid.point((0.75, 0.6))
        grid.chose({"layer": 2, "head": 4})
        tokens.point(".hl-tok >> nth=1")
        tokens.chose({"pos": 1})
        # Notebook 7 has errors of its own when it opens; those of a view come from the module that its widget made.
        assert [error for error in notebook.watch.errors if "blob:" in error] == []
        assert notebook.watch.outside == []


def test_views_work_in_marimo(tmp_path, chromium):
    # Asked without importing it: after nnsight every object has a `save`, which classes of marimo trip over.
    if find_spec("marimo") is None:
        pytest.skip("marimo is not installed")
    cells = [*(cell.format(wrap="mo.ui.anywidget") for cell in SMALL),
             "grid.value, tokens.value\nmo.md(f'CHOSEN {grid.widget.selection} {tokens.widget.selection}')"]
    with serve_marimo(tmp_path, cells) as address, \
            watched(chromium, address.split("/?")[0], address.split("/?")[0].replace("http", "ws")) as (page, watch):
        page.goto(address)
        grid, tokens = (page.locator(f".hooklab-view[data-view={name}]") for name in ("grid", "tokens"))
        expect(page.get_by_text("CHOSEN {} {}")).to_be_visible(timeout=PATIENCE)
        expect(grid).to_have_attribute("data-ready", "1")
        box = grid.locator("canvas.hl-canvas").bounding_box()
        grid.locator("canvas.hl-canvas").click(position={"x": 0.75 * box["width"], "y": 0.6 * box["height"]})
        expect(page.get_by_text("CHOSEN {'layer': 2, 'head': 4} {}")).to_be_visible()
        tokens.locator(".hl-tok").nth(1).click()
        expect(page.get_by_text("CHOSEN {'layer': 2, 'head': 4} {'pos': 1}")).to_be_visible()
        assert watch.errors == []
        assert watch.dialogs == []


def test_nothing_failed_on_the_page_and_nothing_was_fetched(notebook, show):
    show("grid")
    assert notebook.watch.errors == []
    assert notebook.watch.outside == []
    assert notebook.watch.dialogs == []
