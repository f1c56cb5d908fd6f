// The logit lens: its table, what it asks for, how a token is followed.
import { afterEach, beforeEach, expect, test } from "vitest";
import { compact, stretches } from "../src/text/track";
import lens from "../src/views/lens";
import { type FakeModel, fakeModel, packed, settled } from "./fake";

const NONE = Number.NaN;
const HOSTILE = "<img src=x onerror=bad()>";
const tint = { data: new Uint8Array(1024).map((_, i) => (i % 4 === 3 ? i >> 2 : 100)), shape: [256, 4] };

/** Columns of two layers, two ranks; ids 1 and 2, of which 2 leads in the last layer. */
const columns = (count: number) => ({
  ids: {
    data: Int32Array.from(
      { length: 4 * count },
      (_, i) => [1, 3, 2, 1][Math.floor(i / (2 * count)) * 2 + (i % 2)]!,
    ),
    shape: [2, count, 2],
  },
  probs: {
    data: Float32Array.from({ length: 4 * count }, (_, i) => (i % 2 ? 0.25 : 0.5)),
    shape: [2, count, 2],
  },
  entropy: { data: new Float32Array(2 * count).fill(1.5), shape: [2, count] },
  target: { data: new Int32Array(count).fill(1), shape: [count] },
  prob: { data: new Float32Array(2 * count).fill(0.1), shape: [2, count] },
  rank: { data: new Int32Array(2 * count).fill(9), shape: [2, count] },
});

function opened(
  facts: Record<string, unknown> = {},
  traits: Record<string, unknown> = {},
  arrays: Record<string, unknown> = {},
  count = 2,
): FakeModel {
  const positions = Array.from({ length: (facts.size as number) ?? count }, (_, i) => i);
  return fakeModel(
    {
      kind: "lens",
      axes: [
        { name: "layer", keys: [4, 7], labels: ["4", "7"] },
        { name: "pos", keys: positions, labels: positions.map((i) => `w${i}`) },
      ],
      across: 2,
      first: 0,
      k: 2,
      modes: ["probability", "rank", "entropy"],
      tokens: { 1: "one", 2: HOSTILE, 3: "three" },
      target: "the token that came next",
      scales: {
        probability: { kind: "probability", low: 0, high: 1 },
        rank: { kind: "linear", low: 0, high: 3 },
        entropy: { kind: "linear", low: 0, high: 3 },
      },
      ...facts,
    },
    { ...columns(count), "tint.up": tint, "tint.fall": tint, ...arrays } as Parameters<typeof packed>[0],
    { options: { mode: "probability", every: 0, token: -1 }, ...traits },
  );
}

let end: () => void;
let el: HTMLElement;
const shown = async (model: FakeModel): Promise<HTMLElement> => {
  el = document.createElement("div");
  document.body.append(el);
  end = lens.render({ model, el });
  await settled();
  return el;
};
const all = (kind: string): HTMLElement[] => [...el.querySelectorAll<HTMLElement>(kind)];
const cell = (layer: number, pos: number): HTMLElement =>
  el.querySelector<HTMLElement>(`td[data-layer="${layer}"][data-pos="${pos}"]`)!;
const said = (): string => el.querySelector(".hl-say")!.textContent!;
const press = (one: HTMLElement, key: string): void => {
  one.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
};

beforeEach(() => {
  end = () => undefined;
});
afterEach(() => {
  end();
  el?.remove();
});

test("the table has the last layer on top, and says what its rows and columns are", async () => {
  await shown(opened());
  expect(all("tbody th").map((one) => one.textContent)).toEqual(["7", "4"]);
  expect(all("thead th").map((one) => one.textContent)).toEqual(["layer", "0w0", "1w1"]);
  expect(all("th").every((one) => ["row", "col"].includes(one.getAttribute("scope")!))).toBe(true);
  expect(cell(1, 0).textContent).toBe(HOSTILE);
  expect(all("img")).toEqual([]);
});

test("arrows move through the cells, Enter chooses by key, Escape clears", async () => {
  const model = opened();
  await shown(model);
  expect(all("td[tabindex='0']")).toEqual([cell(1, 0)]);
  press(cell(1, 0), "ArrowDown");
  await settled();
  press(cell(0, 0), "ArrowRight");
  await settled();
  expect(document.activeElement).toBe(cell(0, 1));
  expect(said()).toBe("layer 4 · 1 ‘w1’: ‘one’ 0.500 · entropy 1.50 nats");
  press(cell(0, 1), "Enter");
  expect(model.get("selection")).toEqual({ layer: 4, pos: 1 });
  await settled();
  expect(cell(0, 1).getAttribute("aria-current")).toBe("true");
  press(cell(0, 1), "Escape");
  expect(model.get("selection")).toEqual({});
});

test("in rank mode a cell says the rank of the target", async () => {
  await shown(opened({}, { options: { mode: "rank", every: 0, token: -1 } }));
  expect(cell(0, 0).textContent).toBe("0");
  expect(cell(1, 0).textContent).toBe("1");
  expect(el.textContent).toContain("rank of the token that came next");
});

test("the target is followed through the layers, its points at its probabilities", async () => {
  await shown(opened({}, { selection: { layer: 7, pos: 0 } }));
  const points = all("circle").map((one) => Number(one.getAttribute("cy")));
  expect(points[0]).toBeLessThan(points[1]!);
  expect(el.querySelector("svg")!.getAttribute("aria-label")).toBe(
    "layer 4: 0.500, rank 0; layer 7: 0.250, rank 1",
  );
});

test("a token of the cell can be pinned; what is not here is asked for", async () => {
  const model = opened({}, { selection: { layer: 4, pos: 1 } });
  await shown(model);
  const three = all(".hl-follow button").find((one) => one.textContent === "three")!;
  three.click();
  await settled();
  expect((model.get("options") as { token: number }).token).toBe(3);
  const question = model.sent.at(-1)!;
  expect([question.ask, question.with]).toEqual(["track", { token: 3, pos: 1 }]);
  model.answer(question, { prob: [0.25, 0.03], rank: [1, 77], text: "three" });
  await settled();
  expect(el.querySelector("svg")!.getAttribute("aria-label")).toContain("layer 7: 0.0300, rank 77");
  all(".hl-tools button")[0]!.click();
  expect((model.get("options") as { token: number }).token).toBe(-1);
});

test("where nobody can say, the chart has a gap and a reason", async () => {
  const model = opened(
    { modes: ["probability", "rank"] },
    { selection: { layer: 4, pos: 1 }, options: { token: 3 } },
  );
  await shown(model);
  expect(model.sent).toEqual([]);
  expect(el.textContent).toContain("Not among the first 2 at 1 of 2 layers");
  expect(all("circle").length).toBe(1);
});

test("a kernel that refuses leaves the chart with what is known, and its words", async () => {
  const model = opened({}, { selection: { layer: 4, pos: 1 }, options: { token: 3 } });
  await shown(model);
  model.emit("msg:custom", { id: model.sent.at(-1)!.id, error: "the model is busy" });
  await settled();
  expect(el.querySelector("figure")!.textContent).toContain("the model is busy");
});

test("ranks of a pinned token come for the columns that are shown", async () => {
  const model = opened({}, { options: { mode: "rank", every: 0, token: 8 } });
  await shown(model);
  const question = model.sent.at(-1)!;
  expect([question.ask, question.with]).toEqual(["token", { token: 8, first: 0 }]);
  const { blob, table } = packed({
    prob: { data: new Float32Array(4).fill(0.01), shape: [2, 2] },
    rank: { data: new Int32Array([30, 31, 32, 33]), shape: [2, 2] },
  });
  model.answer(question, { arrays: table, tokens: { 8: HOSTILE } }, [blob]);
  await settled();
  expect(cell(0, 1).textContent).toBe("31");
  expect(cell(1, 0).textContent).toBe("32");
  expect(all("img")).toEqual([]);
});

test("entropy that was not sent is asked for", async () => {
  const none = { entropy: { data: new Float32Array(4).fill(NONE), shape: [2, 2] } };
  const model = opened({}, { options: { mode: "entropy" } }, none);
  await shown(model);
  const question = model.sent.at(-1)!;
  expect(question.ask).toBe("more");
  const { blob, table } = packed({
    entropy: { data: new Float32Array([0.5, 1, 1.5, 2]), shape: [2, 2] },
    prob: { data: new Float32Array(4), shape: [2, 2] },
    rank: { data: new Int32Array(4), shape: [2, 2] },
  });
  model.answer(question, { arrays: table }, [blob]);
  await settled();
  press(cell(1, 0), "Enter");
  await settled();
  expect(said()).toContain("entropy 1.50 nats");
});

test("further columns are asked for once, and a choice out of sight turns to its columns", async () => {
  const model = opened({ size: 5 });
  await shown(model);
  expect(el.querySelector(".hl-pages")!.textContent).toContain("of 5");
  model.set("selection", { layer: 7, pos: 4 });
  await settled();
  const question = model.sent.at(-1)!;
  expect([question.ask, question.with]).toEqual(["columns", { first: 4 }]);
  const { blob, table } = packed(columns(1));
  model.answer(question, { arrays: table, tokens: { 9: "nine" } }, [blob]);
  await settled();
  expect(cell(1, 4).getAttribute("aria-current")).toBe("true");
  const before = model.sent.length;
  all(".hl-pages button")[0]!.click();
  await settled();
  model.answer(model.sent.at(-1)!, { arrays: packed(columns(2)).table, tokens: {} }, [
    packed(columns(2)).blob,
  ]);
  await settled();
  all(".hl-pages button")[1]!.click();
  await settled();
  expect(model.sent.length).toBe(before + 1);
});

test("many layers are thinned, the last stays, and the view says how many are left out", async () => {
  const layers = Array.from({ length: 30 }, (_, i) => i);
  const big = {
    ids: { data: new Int32Array(60).fill(1), shape: [30, 1, 2] },
    probs: { data: new Float32Array(60).fill(0.5), shape: [30, 1, 2] },
    entropy: { data: new Float32Array(30), shape: [30, 1] },
    target: { data: new Int32Array(1).fill(-1), shape: [1] },
    prob: { data: new Float32Array(30).fill(NONE), shape: [30, 1] },
    rank: { data: new Int32Array(30).fill(-1), shape: [30, 1] },
  };
  const axes = [
    { name: "layer", keys: layers, labels: layers.map(String) },
    { name: "pos", keys: [0], labels: ["w"] },
  ];
  const model = opened({ axes, size: 1 }, {}, big, 1);
  await shown(model);
  expect(all("tbody tr").length).toBe(15);
  expect(all("tbody th")[0]!.textContent).toBe("29");
  expect(el.textContent).toContain("every 2 layers: 15 of 30 are left out");
  model.set("selection", { layer: 4, pos: 0 });
  await settled();
  expect(all("tbody th").map((one) => one.textContent)).toContain("4");
  expect(all("td[tabindex='0']").length).toBe(1);
});

test("lines stop where numbers are missing; large ranks are written short", () => {
  expect(stretches([0.1, 0.2, NONE, 0.3])).toEqual([[0, 1], [3]]);
  expect([compact(7), compact(9999), compact(123456)]).toEqual(["7", "9999", "123k"]);
});

test("a closed view listens to nothing any more", async () => {
  const model = opened();
  await shown(model);
  end();
  expect(model.listeners).toBe(0);
});
