import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type GraphFacts, type GraphNode, Network, fromSlider, neighbour, toSlider } from "../src/graph/data";
import { pen } from "../src/graph/paint";
import { curve, plan } from "../src/graph/place";
import { weight } from "../src/graph/table";
import graph from "../src/views/graph";
import { type Drawn, type FakeModel, fakeCanvas, fakeModel, settled } from "./fake";

const HOSTILE = "<img src=x onerror=boom()>";
const node = (name: string, more: Partial<GraphNode> = {}): GraphNode => ({
  name,
  says: name,
  label: name,
  kind: "other",
  layer: null,
  index: null,
  pos: null,
  removed: false,
  ...more,
});
//  embed ─2→ L0H1 ─-1→ L1H2(k) ─0.5→ logits, embed ─0.25→ L1H2, L0H1 ─?→ logits, hostile alone
const NODES = [
  node("embed", { kind: "embed" }),
  node("L0H1", { kind: "head", layer: 0, index: 1 }),
  node("L1H2", { kind: "head", layer: 1, index: 2 }),
  node("logits", { kind: "logits" }),
  node(HOSTILE),
];
const EDGES = {
  start: [0, 1, 2, 0, 1],
  stop: [1, 2, 3, 2, 3],
  inlet: [0, 2, 0, 1, 0],
  weight: [2, -1, 0.5, 0.25, Number.NaN],
};
const X = [1, 1, 2, 1, 0];
const Y = [-1, 0, 1, 2, 0];
const FACTS = {
  title: "circuit",
  axes: [
    { name: "node", keys: NODES.map(({ name }) => name), labels: NODES.map(({ name }) => name) },
    { name: "layer", keys: [0, 1], labels: ["0", "1"] },
    { name: "head", keys: [1, 2], labels: ["1", "2"] },
  ],
  nodes: NODES,
  inlets: ["", "q", "k", "v"],
  unit: "logits",
  note: "",
  left_out: "",
  pinned: [] as string[],
  rows: [
    { y: 0, label: "layer 0" },
    { y: 1, label: "layer 1" },
  ],
  tokens: [] as string[],
  measured: true,
} satisfies Partial<GraphFacts>;

const opened = (facts: Record<string, unknown> = {}, traits: Record<string, unknown> = {}): FakeModel =>
  fakeModel(
    { ...FACTS, ...facts },
    {
      start: { data: new Int32Array(EDGES.start), shape: [5] },
      stop: { data: new Int32Array(EDGES.stop), shape: [5] },
      inlet: { data: new Uint8Array(EDGES.inlet), shape: [5] },
      weight: { data: new Float32Array(EDGES.weight), shape: [5] },
      x: { data: new Float32Array(X), shape: [5] },
      y: { data: new Float32Array(Y), shape: [5] },
    },
    { options: { threshold: 0.4, isolated: "dim", layout: "up", part: "all" }, ...traits },
  );
const network = new Network(NODES, EDGES.start, EDGES.stop, EDGES.inlet, EDGES.weight, X, Y);

let end: AbortController;
let el: HTMLElement;
let drawn: Drawn;
const shown = async (model: FakeModel): Promise<void> => {
  graph.render({ model, el, signal: end.signal });
  await settled();
};
const text = (selector: string): string => el.querySelector(selector)?.textContent ?? "";
const field = (): HTMLElement => el.querySelector(".hl-graph-field")!;
const press = (key: string): void =>
  void field().dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const at = (i: number): Element => el.querySelector(`[data-node='${i}']`)!;
const say = (): string => text(".hl-say");
const cells = (): string[][] =>
  [...el.querySelectorAll(".hl-edges tbody tr")]
    .map((row) => [...row.querySelectorAll("td")].map((cell) => cell.textContent ?? ""))
    .filter((row) => row.length === 3);

beforeEach(() => {
  vi.useFakeTimers();
  drawn = fakeCanvas();
  end = new AbortController();
  el = document.createElement("div");
  document.body.append(el);
});
afterEach(() => {
  end.abort();
  vi.useRealTimers();
  document.body.replaceChildren();
});

describe("the edges of a graph", () => {
  it("are those at least as strong as the threshold; at zero those of unknown weight too", () => {
    expect([0, 0.25, 0.26, 1, 2, 2.1].map((t) => network.above(t))).toEqual([5, 4, 3, 2, 1, 0]);
    expect(network.shown(0.3, new Set([1, 2]))).toEqual([1]);
    expect(network.most).toBe(2);
  });

  it("lie on a slider whose lower part is drawn out, both ways", () => {
    expect([0, 2, 9].map((t) => toSlider(t, 2))).toEqual([0, 1000, 1000]);
    expect(fromSlider(toSlider(0.016, 2), 2)).toBeCloseTo(0.016);
    expect(toSlider(0.25, 2)).toBe(500);
  });

  it("are walked by arrow keys: along a layer, and along the strongest edge", () => {
    const all = new Set([0, 1, 2, 3]);
    expect(neighbour(network, 0, "ArrowUp", all)).toBe(1);
    expect(neighbour(network, 2, "ArrowDown", all)).toBe(1);
    expect(neighbour(network, 2, "ArrowDown", new Set([3]))).toBe(0);
    expect(neighbour(network, 3, "ArrowUp", all)).toBe(3);
    expect([neighbour(network, 1, "ArrowLeft", all), neighbour(network, 4, "ArrowRight", all)]).toEqual([
      4, 1,
    ]);
  });

  it("are told apart by more than colour", () => {
    expect(pen(-1, 2)).toEqual({ colour: "#2c7bb6", dash: [6, 4], share: 0.5 });
    expect(pen(1, 2).dash).toEqual([]);
    expect(pen(Number.NaN, 2).dash).toEqual([1.5, 3]);
    expect(pen(Number.POSITIVE_INFINITY, 2).share).toBe(1);
  });

  it("run from a node's upper edge to the lower edge of a later one, keys and values apart", () => {
    const laid = plan(network, FACTS.rows, [], 600, true);
    const [x0, y0, , , , , x3, y3] = curve(laid, 0, 1, 0) as number[];
    expect([x0, x3]).toEqual([laid.spots[0]!.x, laid.spots[1]!.x]);
    expect(y0).toBe(laid.spots[0]!.y - 11);
    expect(y3).toBe(laid.spots[1]!.y + 11);
    const [q, k, v] = [1, 2, 3].map((inlet) => curve(laid, 1, 2, inlet)[6]!);
    expect(q! < k! && k! < v!).toBe(true);
    const right = plan(network, FACTS.rows, [], 600, false);
    expect(right.spots[0]!.x).toBeLessThan(right.spots[1]!.x);
  });

  it("say their weight with all digits that travel", () => {
    expect([0.4, -1.5, 1e-9, Number.NaN].map((w) => weight(Math.fround(w)))).toEqual([
      "0.4",
      "−1.5",
      "1e−9",
      "not measured",
    ]);
  });
});

describe("the view", () => {
  it("counts what it shows, and lists it", async () => {
    await shown(opened());
    expect(text(".hl-counts")).toBe("3 of 5 edges, 4 of 5 nodes");
    expect(cells()).toEqual([
      ["embed", "L0H1", "2"],
      ["L0H1", "L1H2.k", "−1"],
      ["L1H2", "logits", "0.5"],
    ]);
    expect(drawn.filter(([name]) => name === "bezierCurveTo").length).toBe(3);
    expect(el.querySelector("[data-ready='1']")).not.toBeNull();
    expect(el.querySelector("img")).toBeNull();
    expect(at(4).textContent).toContain(HOSTILE);
    expect(at(4).classList.contains("hl-alone")).toBe(true);
  });

  it("follows the slider at once and tells the kernel when it rests", async () => {
    const model = opened();
    await shown(model);
    const slider = el.querySelector<HTMLInputElement>("input[type=range]")!;
    slider.value = String(toSlider(0.9, 2));
    slider.dispatchEvent(new Event("input"));
    expect(text(".hl-counts")).toBe("2 of 5 edges, 3 of 5 nodes");
    expect((model.get("options") as { threshold: number }).threshold).toBe(0.4);
    vi.advanceTimersByTime(300);
    expect((model.get("options") as { threshold: number }).threshold).toBeCloseTo(0.9, 2);
  });

  it("takes an exact threshold, and one from Python", async () => {
    const model = opened();
    await shown(model);
    const exact = el.querySelector<HTMLInputElement>("input[type=number]")!;
    exact.value = "2";
    exact.dispatchEvent(new Event("change"));
    expect(text(".hl-counts")).toBe("1 of 5 edges, 2 of 5 nodes");
    vi.advanceTimersByTime(300);
    model.set("options", { threshold: 0, isolated: "hide", layout: "right", part: "all" });
    expect(text(".hl-counts")).toBe("5 of 5 edges, 4 of 5 nodes");
    expect(exact.value).toBe("0");
    expect(el.querySelector(".hl-nodes.hl-hide")).not.toBeNull();
  });

  it("shows a node's edges under the pointer, and all again after it", async () => {
    await shown(opened());
    at(2).dispatchEvent(new Event("pointerover", { bubbles: true }));
    expect(cells()).toEqual([
      ["L0H1", "L1H2.k", "−1"],
      ["L1H2", "logits", "0.5"],
    ]);
    expect(say()).toBe("L1H2: edges 1 in, strongest from L0H1 −1 · 1 out, strongest to logits 0.5");
    expect([1, 2, 3].every((i) => at(i).classList.contains("hl-near"))).toBe(true);
    expect(at(0).classList.contains("hl-near")).toBe(false);
    el.querySelector(".hl-graph-sheet")!.dispatchEvent(new Event("pointerleave"));
    expect(cells().length).toBe(3);
    expect(say()).toBe("");
  });

  it("chooses a node with its layer and head, and what others chose", async () => {
    const model = opened();
    await shown(model);
    at(2).dispatchEvent(new MouseEvent("click", { bubbles: true }));
    expect(model.get("selection")).toEqual({ node: "L1H2", layer: 1, head: 2 });
    at(0).dispatchEvent(new MouseEvent("click", { bubbles: true }));
    expect(model.get("selection")).toEqual({ node: "embed" });
    model.set("selection", { layer: 0, head: 1 });
    expect(at(1).classList.contains("hl-chosen")).toBe(true);
  });

  it("pins by Shift-click, by key and by button, and shows the pinned part", async () => {
    const model = opened();
    await shown(model);
    at(1).dispatchEvent(new MouseEvent("click", { bubbles: true, shiftKey: true }));
    at(2).dispatchEvent(new MouseEvent("click", { bubbles: true }));
    press("p");
    expect(model.sent.map((one) => [one.ask, one.with])).toEqual([
      ["pin", { nodes: ["L0H1"] }],
      ["pin", { nodes: ["L0H1", "L1H2"] }],
    ]);
    model.set("options", { ...(model.get("options") as object), part: "pinned" });
    expect(cells()).toEqual([["L0H1", "L1H2.k", "−1"]]);
    [...el.querySelectorAll("button")].find((one) => one.textContent === "Clear pins")!.click();
    expect(model.sent.at(-1)!.with).toEqual({ nodes: [] });
    expect(text(".hl-counts")).toBe("3 of 5 edges, 4 of 5 nodes");
  });

  it("has the pins that Python set", async () => {
    await shown(opened({ pinned: ["L1H2"] }));
    expect(at(2).classList.contains("hl-pinned")).toBe(true);
  });

  it("is walked by keys: up along the strongest edge, Enter chooses, Escape clears", async () => {
    const model = opened();
    await shown(model);
    press("ArrowUp");
    expect(say()).toContain("embed: ");
    press("ArrowUp");
    press("ArrowUp");
    expect(say()).toContain("L1H2: ");
    press("Enter");
    expect(model.get("selection")).toEqual({ node: "L1H2", layer: 1, head: 2 });
    press("ArrowUp");
    press("ArrowUp");
    expect(say()).toContain("nothing further that way");
    press("Escape");
    expect(model.get("selection")).toEqual({});
    expect(say()).toBe("");
  });

  it("of paths that were not measured has no threshold, and says what the lines are", async () => {
    await shown(opened({ measured: false }, { options: { threshold: 0 } }));
    expect(el.querySelector("input[type=range]")).toBeNull();
    expect(text(".hl-legend")).toContain("not measured");
  });

  it("says when edges were left out", async () => {
    await shown(opened({ left_out: "Of 9 edges the 5 strongest are drawn" }));
    expect(el.textContent).toContain("Of 9 edges the 5 strongest are drawn");
  });

  it("that is gone listens no more", async () => {
    const model = opened();
    await shown(model);
    end.abort();
    expect(model.listeners).toBe(0);
  });
});
