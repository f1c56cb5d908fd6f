// Tables of rows: order by number and by size, search, narrowing, choice, and what a chosen row tells.
import { afterEach, beforeEach, expect, test } from "vitest";
import { ordered, searching } from "../src/rows/order";
import table from "../src/views/table";
import { type FakeModel, type Question, fakeModel, settled } from "./fake";

const HOSTILE = "<img src=x onerror=bad()>";
const KEYS = ["L0H1 @2", "L1H0 @4", HOSTILE, "L2.mlp @4"];
const SCORES = [0.5, -2, Number.NaN, 1];
const KINDS = [0, 0, 1, 1];

function opened(traits: Record<string, unknown> = {}, facts: Record<string, unknown> = {}): FakeModel {
  return fakeModel(
    {
      kind: "table",
      word: "node",
      columns: [
        { name: "node", numeric: false, at: 0 },
        { name: "token", numeric: false, at: 1 },
        { name: "effect", numeric: true, at: 0 },
      ],
      texts: [KEYS, ["the", HOSTILE, "a", "b"]],
      picks: [{ name: "kind", labels: ["heads", "mlps"] }],
      sorted: 2,
      down: true,
      signed: true,
      total: 9,
      note: "the 4 strongest",
      axes: [{ name: "node", keys: KEYS, labels: KEYS }],
      ...facts,
    },
    {
      numbers: { data: new Float32Array(SCORES), shape: [1, 4] },
      picks: { data: new Int32Array(KINDS), shape: [1, 4] },
    },
    { options: { order: "value" }, ...traits },
  );
}

let end: () => void;
let el: HTMLElement;
const shown = async (model: FakeModel): Promise<HTMLElement> => {
  el = document.createElement("div");
  document.body.append(el);
  end = table.render({ model, el });
  await settled();
  return el.querySelector<HTMLElement>(".hooklab-view")!;
};
const lines = (): HTMLElement[] => [...el.querySelectorAll<HTMLElement>("tr[data-key]")];
const keys = (): (string | undefined)[] => lines().map((one) => one.dataset.key);
const asked = (model: FakeModel): Question => model.sent.findLast(({ ask }) => ask === "detail")!;
const press = async (key: string): Promise<void> => {
  document.activeElement!.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  await settled();
};
const heading = (name: string): HTMLButtonElement =>
  [...el.querySelectorAll<HTMLButtonElement>("thead button")].find((one) =>
    one.textContent!.startsWith(name),
  )!;

beforeEach(() => document.body.replaceChildren());
afterEach(() => end?.());

test("what has no value stands last, whichever way round, and equal ones as they stood", () => {
  const of = (one: (string | number | null)[]) => one[1]!;
  const rows = [
    ["a", Number.NaN],
    ["b", 1],
    ["c", 2],
    ["d", 1],
    ["e", ""],
  ];
  expect(ordered(rows, of, true).map(([name]) => name)).toEqual(["c", "b", "d", "a", "e"]);
  expect(ordered(rows, of, false).map(([name]) => name)).toEqual(["b", "d", "c", "a", "e"]);
  expect(ordered(["x10", "x9"], (one) => one, false)).toEqual(["x9", "x10"]);
});

test("a search wants every word, wherever it stands", () => {
  expect(searching("mlp  L2")("l2.MLP @4")).toBe(true);
  expect(searching("mlp L1")("L2.mlp")).toBe(false);
  expect(searching("")("x")).toBe(true);
});

test("rows are sorted by their numbers, or by the size of these, and hostile text is text", async () => {
  const model = opened();
  await shown(model);
  expect(keys()).toEqual(["L2.mlp @4", "L0H1 @2", "L1H0 @4", HOSTILE]);
  expect(el.querySelector("img")).toBeNull();
  expect(el.querySelector('[role="status"]')!.textContent).toContain("4 of 9 nodes · the 4 strongest");
  const size = [...el.querySelectorAll<HTMLButtonElement>(".hl-tools button")].find(
    (one) => one.textContent === "by size",
  )!;
  expect(size.getAttribute("aria-pressed")).toBe("false");
  size.click();
  await settled();
  expect((model.get("options") as { order: string }).order).toBe("size");
  expect(keys()).toEqual(["L1H0 @4", "L2.mlp @4", "L0H1 @2", HOSTILE]);
});

test("a heading sorts by its column and says so", async () => {
  await shown(opened());
  heading("effect").click();
  await settled();
  expect(keys()).toEqual(["L1H0 @4", "L0H1 @2", "L2.mlp @4", HOSTILE]);
  heading("token").click();
  await settled();
  expect(heading("token").closest("th")!.getAttribute("aria-sort")).toBe("ascending");
  expect(keys()[1]).toBe(HOSTILE);
});

test("rows are narrowed by what they are, and by a search", async () => {
  await shown(opened());
  const kind = el.querySelector<HTMLSelectElement>(".hl-tools select")!;
  kind.value = "mlps";
  kind.dispatchEvent(new Event("change"));
  await settled();
  expect(keys()).toEqual(["L2.mlp @4", HOSTILE]);
  const box = el.querySelector<HTMLInputElement>("input[type=search]")!;
  box.value = "MLP";
  box.dispatchEvent(new Event("input"));
  await settled();
  expect(keys()).toEqual(["L2.mlp @4"]);
});

test("a click chooses a row and gives up what belonged to another; again it clears", async () => {
  const model = opened({ selection: { layer: 3 } });
  await shown(model);
  lines()[1]!.click();
  await settled();
  expect(model.get("selection")).toEqual({ node: "L0H1 @2" });
  expect(lines()[1]!.getAttribute("aria-selected")).toBe("true");
  lines()[1]!.click();
  await settled();
  expect(model.get("selection")).toEqual({});
});

test("keys walk, choose and clear", async () => {
  const model = opened();
  await shown(model);
  lines()[0]!.focus();
  await press("ArrowDown");
  await press("Enter");
  expect(model.get("selection")).toEqual({ node: "L0H1 @2" });
  await press("End");
  expect((document.activeElement as HTMLElement).dataset.key).toBe(HOSTILE);
  await press("Escape");
  expect(model.get("selection")).toEqual({});
});

test("a chosen row is looked into, and an answer that comes too late is not shown", async () => {
  const model = opened();
  await shown(model);
  model.set("selection", { node: "L0H1 @2" });
  await settled();
  const late = asked(model);
  expect(late.with).toEqual({ key: "L0H1 @2" });
  model.set("selection", { node: "L2.mlp @4" });
  await settled();
  const reply = (text: string) => ({
    about: [["kind", text]],
    tables: [{ title: "speaks", head: ["for", ""], rows: [[HOSTILE, 0.25]] }],
    note: "",
  });
  model.answer(asked(model), reply("mlps"));
  model.answer(late, reply("heads"));
  await settled();
  const detail = el.querySelector(".hl-run-detail")!;
  expect(detail.textContent).toContain("mlps");
  expect(detail.textContent).not.toContain("heads");
  expect(detail.textContent).toContain("0.2500");
  expect(detail.querySelector("img")).toBeNull();
  expect(el.querySelector("output")!.textContent).toBe("node L2.mlp @4 · token b · effect 1");
});

test("a row that is chosen is drawn however far down it stands, and more are drawn when asked for", async () => {
  const many = [...Array(500).keys()].map((i) => `L0N${i}`);
  const model = opened(
    { selection: { node: "L0N499" } },
    {
      columns: [{ name: "node", numeric: false, at: 0 }],
      texts: [many],
      picks: [],
      sorted: -1,
      axes: [{ name: "node", keys: many, labels: many }],
    },
  );
  await shown(model);
  expect(lines().length).toBe(201);
  expect(lines().at(-1)!.dataset.key).toBe("L0N499");
  const more = [...el.querySelectorAll("button")].find((one) => one.textContent!.startsWith("Show"))!;
  expect(more.textContent).toBe("Show 200 more");
  more.click();
  await settled();
  expect(lines().length).toBe(401);
});

test("an empty table says so", async () => {
  await shown(opened({}, { texts: [[], []], axes: [{ name: "node", keys: [], labels: [] }], total: 0 }));
  expect(el.querySelector('[role="status"]')!.textContent).toContain("There are no nodes here.");
});
