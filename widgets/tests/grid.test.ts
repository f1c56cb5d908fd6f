import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { decimals, inside } from "../src/core/heatmap";
import { furthest } from "../src/core/ranking";
import grid from "../src/views/grid";
import heads from "../src/views/heads";
import residual from "../src/views/residual";
import { type FakeModel, fakeCanvas, fakeModel, settled } from "./fake";

const HOSTILE = "<img src=x onerror=boom()>";
const SCALE = { kind: "diverging", low: -4, high: 4 };
const AXES = [
  { name: "rank", keys: [0, 1], labels: ["0", "1"] },
  { name: "layer", keys: [5, 7], labels: ["5", "7"] },
  { name: "pos", keys: [0, 1, 2], labels: ["When", HOSTILE, "·to"] },
];
const FACTS = {
  title: "effects",
  axes: AXES,
  rows: "layer",
  columns: "pos",
  others: ["rank"],
  scale: SCALE,
  unit: "logits",
  value: "effect",
  level: 0.95,
  most: 4,
  note: "",
  texts: [],
  above: [],
  strongest: 3,
  runs: true,
  asked: false,
};
const VALUES = [1, -2, 0.25, 0.5, Number.NaN, 4, 9, 8, 7, 6, 5, -4];
const COLOURS = { data: new Uint8Array(1024).fill(200), shape: [256, 4] };

let host: HTMLElement;
let end: AbortController;

beforeEach(() => {
  fakeCanvas();
  vi.stubGlobal("requestAnimationFrame", (then: () => void) => {
    then();
    return 0;
  });
  host = document.createElement("div");
  document.body.replaceChildren(host);
  end = new AbortController();
});
afterEach(() => end.abort());

const numbers = (values: number[]) => ({ data: Float32Array.from(values), shape: [values.length] });

async function open(
  facts: Record<string, unknown> = {},
  more: Record<string, { data: Float32Array | Int32Array; shape: number[] }> = {},
  traits: Record<string, unknown> = {},
  view = grid,
): Promise<FakeModel> {
  const model = fakeModel(
    { ...FACTS, ...facts },
    { values: numbers(VALUES), colours: COLOURS, ...more },
    traits,
  );
  view.render({ model, el: host, signal: end.signal });
  await settled();
  return model;
}

const find = <E extends HTMLElement>(query: string) => host.querySelector<E>(query)!;
const said = () => find(".hl-say").textContent;
const press = (...keys: string[]) => {
  for (const key of keys)
    find(".hl-pane").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
};

describe("a grid", () => {
  it("says labels and the exact number of a cell", async () => {
    await open();
    press("ArrowDown", "ArrowRight", "ArrowRight");
    expect(said()).toBe("layer 5 · pos 2 ‘·to’ · effect 0.25 logits");
    expect(find(".hooklab-view").dataset.ready).toBe("1");
  });

  it("says what is no number as such", async () => {
    await open();
    press("ArrowDown", "ArrowDown", "ArrowRight");
    expect(said()).toContain("effect nan logits");
  });

  it("says the interval, the p-value, the control and the text of a cell", async () => {
    await open(
      { texts: ["yes", "no"] },
      {
        low: numbers(VALUES.map((x) => x - 1)),
        high: numbers(VALUES.map((x) => x + 2)),
        p: numbers(VALUES.map(() => 0.03)),
        control: numbers(VALUES.map(() => 0.125)),
        label: { data: Int32Array.from(VALUES.map((_, i) => i % 2)), shape: [12] },
      },
    );
    press("ArrowDown", "ArrowRight");
    expect(said()).toMatch(/reads ‘no’ · 95 % from −3 to 0 · p 0\.03 · control 0\.125$/);
  });

  it("selects the keys of a cell, and Escape lets go of these alone", async () => {
    const model = await open({}, {}, { selection: { rank: 1 } });
    press("ArrowDown", "ArrowDown", "ArrowRight", "Enter");
    expect(model.get("selection")).toEqual({ rank: 1, layer: 7, pos: 1 });
    press("Escape");
    expect(model.get("selection")).toEqual({ rank: 1 });
  });

  it("shows the map that is chosen above it", async () => {
    const model = await open();
    const list = find<HTMLSelectElement>(".hl-tools select");
    list.selectedIndex = 1;
    list.dispatchEvent(new Event("change"));
    await settled();
    expect(model.get("selection")).toEqual({ rank: 1 });
    press("ArrowDown");
    expect(said()).toContain("effect 9 logits");
  });

  it("follows a selection from elsewhere", async () => {
    const model = await open();
    model.set("selection", { layer: 7, pos: 2 });
    await settled();
    expect(said()).toBe("layer 7 · pos 2 ‘·to’ · effect 4 logits");
    expect(find(".hl-locked").hidden).toBe(false);
  });

  it("asks for the rest of what is known of a chosen cell when that was too much to send", async () => {
    const model = await open({ asked: true });
    model.set("selection", { layer: 7, pos: 2 });
    await settled();
    expect(model.sent.at(-1)).toMatchObject({ ask: "cell", with: { layer: 7, pos: 2 } });
    model.answer(model.sent.at(-1)!, { p: 0.5, label: "x" });
    await settled();
    expect(said()).toContain("p 0.5 · reads ‘x’");
  });

  it("ends its colours where the limit says, and says that numbers go beyond", async () => {
    const model = await open();
    const field = find<HTMLInputElement>(".hl-limit");
    field.value = "2";
    field.dispatchEvent(new Event("change"));
    await settled();
    expect(model.get("options")).toEqual({ limit: 2 });
    expect([...host.querySelectorAll(".hl-ticks span")].map((one) => one.textContent)).toEqual([
      "≤ −2",
      "0",
      "≥ 2",
    ]);
  });

  it("shows text as text", async () => {
    await open({ title: HOSTILE, note: HOSTILE });
    press("ArrowDown", "ArrowRight");
    expect(host.querySelector("img")).toBeNull();
    expect(find(".hl-tip").textContent).toContain(HOSTILE);
  });
});

describe("running a cell", () => {
  const button = () => find<HTMLButtonElement>(".hl-cell button");
  const cell = { layer: 7, pos: 2 };

  it("is offered for a chosen cell, and only where there is a model", async () => {
    const model = await open();
    expect(find(".hl-cell").hidden).toBe(true);
    model.set("selection", cell);
    await settled();
    expect(find(".hl-cell").hidden).toBe(false);
    host.replaceChildren();
    const other = await open({ runs: false });
    other.set("selection", cell);
    await settled();
    expect(find(".hl-cell").hidden).toBe(true);
  });

  it("shows metrics beside those of the sweep, and the likeliest tokens", async () => {
    const model = await open({}, {}, { selection: cell });
    button().click();
    expect(button().disabled).toBe(true);
    const question = model.sent.at(-1)!;
    expect(question).toMatchObject({ ask: "run", with: cell });
    model.answer(question, {
      run: "patched",
      metrics: [
        ["diff", 1.5, 1.25],
        ["loss", "nan", null],
      ],
      next: [[HOSTILE, 0.75]],
    });
    await settled();
    expect([...host.querySelectorAll(".hl-answer td")].map((one) => one.textContent)).toEqual([
      "1.500",
      "1.250",
      "nan",
      "",
      "0.7500",
    ]);
    expect(host.querySelector("img")).toBeNull();
    expect(button().disabled).toBe(false);
  });

  it("says why it could not be", async () => {
    const model = await open({}, {}, { selection: cell });
    button().click();
    model.emit("msg:custom", { id: model.sent.at(-1)!.id, error: "The model is busy" }, []);
    await settled();
    expect(find(".hl-answer [role=alert]").textContent).toBe("The model is busy");
    expect(button().disabled).toBe(false);
  });

  it("drops an answer that comes when another cell is chosen", async () => {
    const model = await open({}, {}, { selection: cell });
    button().click();
    const question = model.sent.at(-1)!;
    model.set("selection", { layer: 5, pos: 0 });
    await settled();
    model.answer(question, { run: "patched", metrics: [["diff", 1, null]], next: [] });
    await settled();
    expect(find(".hl-answer").textContent).toBe("");
  });
});

describe("the list of the strongest", () => {
  const rows = () =>
    [...host.querySelectorAll(".hl-ranking tbody tr")].map((row) =>
      [...row.children].map((one) => one.textContent),
    );
  const sort = (name: string) =>
    [...host.querySelectorAll<HTMLElement>(".hl-sort")]
      .find((one) => one.textContent!.startsWith(name))!
      .click();

  it("names them by their labels, furthest from zero first, and counts all", async () => {
    await open({}, {}, {}, heads);
    expect(rows()).toEqual([
      ["7", "·to", "4"],
      ["5", HOSTILE, "−2"],
      ["5", "When", "1"],
    ]);
    expect(find(".hl-ranking caption").textContent).toBe("strongest 3 of 6");
    expect(find(".hooklab-view").dataset.view).toBe("heads");
  });

  it("is sorted by its columns, both ways, and says so", async () => {
    await open({}, {}, {}, heads);
    sort("layer");
    expect(rows().map(([layer]) => layer)).toEqual(["5", "5", "7"]);
    sort("layer");
    expect(rows().map(([layer]) => layer)).toEqual(["7", "5", "5"]);
    expect(find(".hl-ranking th").getAttribute("aria-sort")).toBe("descending");
    expect(document.activeElement!.textContent).toContain("layer");
  });

  it("chooses a cell by a row, and marks the row of a chosen cell", async () => {
    const model = await open({}, {}, {}, heads);
    find<HTMLButtonElement>(".hl-ranking tbody button").click();
    await settled();
    expect(model.get("selection")).toEqual({ layer: 7, pos: 2 });
    expect(model.saved).toBe(1);
    expect(find(".hl-ranking tr[aria-selected=true]").textContent).toContain("·to");
  });

  it("takes the furthest from zero, the first of equals first, and nothing that is no number", () => {
    expect(furthest([1, Number.NaN, -3, 3, Number.NEGATIVE_INFINITY, 0], 3)).toEqual([4, 2, 3]);
    expect(furthest([1, 2], 5)).toEqual([1, 0]);
    expect(furthest([1, 2], 0)).toEqual([]);
  });
});

describe("numbers in cells", () => {
  it("have decimals by the largest", () => {
    const ends = (high: number) => decimals({ kind: "diverging", low: -high, high });
    expect([0.05, 0.9, 5, 13, 400, 1e6].map(ends)).toEqual([3, 2, 1, 1, 0, null]);
    expect(inside(-0.04, 1)).toBe("0");
    expect(inside(-2.345, 1)).toBe("−2.3");
    expect(inside(Number.POSITIVE_INFINITY, 1)).toBe("∞");
  });
});

describe("the residual stream", () => {
  const site = (keys: string[]) => ({ name: "site", keys, labels: keys });
  const facts = {
    axes: [site(["embed", "L0.attn_out", "L0.resid_pre"]), AXES[1]!, AXES[2]!],
    maps: [
      {
        name: "norm",
        value: "length",
        unit: "",
        note: "",
        scale: { kind: "linear", low: 0, high: 9 },
        rows: site(["L0.resid_pre"]),
        layers: [0],
      },
      {
        name: "writes",
        value: "length of the write",
        unit: "",
        note: "rest",
        scale: { kind: "linear", low: 0, high: 9 },
        rows: site(["embed", "L0.attn_out"]),
        layers: [null, 0],
      },
    ],
  };
  const arrays = {
    norm: numbers([1, 2, 3]),
    "norm.colours": COLOURS,
    writes: numbers([4, 5, 6, 7, 8, 9]),
    "writes.colours": COLOURS,
  };

  it("shows the map that is asked for, and what choosing a row means", async () => {
    const model = fakeModel({ title: "stream", ...facts }, arrays, { options: { show: "norm" } });
    residual.render({ model, el: host, signal: end.signal });
    await settled();
    press("ArrowDown");
    expect(said()).toBe("site L0.resid_pre · pos 0 ‘When’ · length 1");
    const list = find<HTMLSelectElement>("select");
    list.value = "writes";
    list.dispatchEvent(new Event("change"));
    await settled();
    press("ArrowDown", "ArrowDown", "Enter");
    expect(model.get("selection")).toEqual({ site: "L0.attn_out", layer: 0, pos: 0 });
    expect(said()).toContain("length of the write 7");
    press("ArrowUp", "Enter");
    expect(model.get("selection")).toEqual({ site: "embed", pos: 0 });
  });

  it("marks the first row of a layer that was chosen elsewhere", async () => {
    const model = fakeModel({ title: "stream", ...facts }, arrays, { options: { show: "writes" } });
    residual.render({ model, el: host, signal: end.signal });
    await settled();
    model.set("selection", { layer: 0 });
    await settled();
    expect(find(".hl-locked").hidden).toBe(false);
    press("ArrowRight");
    expect(said()).toContain("site L0.attn_out");
  });
});
