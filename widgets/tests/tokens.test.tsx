// Coloured text: what is drawn, what is said, how it is reached by keys.
import { afterEach, beforeEach, expect, test } from "vitest";
import tokens from "../src/views/tokens";
import { type FakeModel, fakeModel, settled } from "./fake";

const NONE = Number.NaN;
const HOSTILE = "<img src=x onerror=bad()>";
const tint = { data: new Uint8Array(1024).map((_, i) => (i % 4 === 3 ? i >> 2 : 100)), shape: [256, 4] };
const set = (name: string, unit: string) => ({
  name,
  unit,
  tint: "up",
  scale: { kind: "linear", low: 0, high: 10 },
});

function one(
  pieces: string[],
  values: number[][],
  facts: Record<string, unknown> = {},
  more = {},
): FakeModel {
  const total = pieces.length;
  const axes = [{ name: "pos", keys: pieces.map((_, i) => i), labels: pieces }];
  const names = ["effect", "loss"];
  const which = { name: "value", keys: names, labels: names };
  return fakeModel(
    {
      kind: "tokens",
      axes: values.length > 1 ? [which, ...axes] : axes,
      rows: [{ label: "", pieces, special: [0], apart: false }],
      which: values.length > 1 ? "value" : "",
      sets: values.map((_, i) => set(names[i]!, i ? "" : "nats")),
      tokens: { 5: "·went", 6: HOSTILE },
      ahead: false,
      note: "",
      most: 20,
      ...facts,
    },
    {
      values: { data: new Float32Array(values.flat()), shape: [values.length, total] },
      "tint.up": tint,
      "tint.down": tint,
      "tint.both": tint,
      ...more,
    },
  );
}

let end: () => void;
let el: HTMLElement;
const shown = async (model: FakeModel): Promise<HTMLElement> => {
  el = document.createElement("div");
  document.body.append(el);
  end = tokens.render({ model, el });
  await settled();
  return el;
};
const all = (kind: string): HTMLElement[] => [...el.querySelectorAll<HTMLElement>(kind)];
const token = (i: number): HTMLElement => el.querySelector<HTMLElement>(`[data-i="${i}"]`)!;
const tinted = (i: number): string => token(i).style.getPropertyValue("--hl-tint");
const said = (): string => el.querySelector(".hl-say")!.textContent!;
const press = (i: number, key: string): void => {
  token(i).dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
};

beforeEach(() => {
  end = () => undefined;
});
afterEach(() => {
  end();
  el?.remove();
});

test("every token is drawn with the tint of its number, and a number that is none has its own sign", async () => {
  await shown(one(["<bos>", " Mary", "↵\n"], [[0, 10, NONE]]));
  expect(all(".hl-tok").map((each) => each.textContent)).toEqual(["<bos>", " Mary", "↵\n"]);
  expect(tinted(1)).toBe("rgb(100 100 100 / 1)");
  expect(token(2).classList.contains("hl-none")).toBe(true);
  expect(token(0).classList.contains("hl-special")).toBe(true);
  expect(el.querySelector(".hooklab-view")!.getAttribute("data-ready")).toBe("1");
});

test("hostile text is text", async () => {
  await shown(one([HOSTILE, "</script>"], [[1, 2]]));
  expect(all("img, script")).toEqual([]);
  expect(token(0).textContent).toBe(HOSTILE);
  press(0, "Enter");
  await settled();
  expect(all("img")).toEqual([]);
});

test("there is one tab stop; arrows move by token, and speak its number", async () => {
  await shown(one(["a", "b", "c"], [[1, 2.5, 3]]));
  const stops = () => all(".hl-tok").filter((each) => each.tabIndex === 0);
  expect(stops()).toEqual([token(0)]);
  press(0, "ArrowRight");
  expect(document.activeElement).toBe(token(1));
  expect(stops()).toEqual([token(1)]);
  expect(said()).toBe("1 ‘b’: effect 2.5 nats");
  press(1, "End");
  expect(document.activeElement).toBe(token(2));
  press(2, "ArrowRight");
  expect(document.activeElement).toBe(token(2));
  press(2, "Home");
  expect(document.activeElement).toBe(token(0));
});

test("Enter chooses, a second click and Escape clear", async () => {
  const model = one(["a", "b", "c"], [[1, 2, 3]]);
  await shown(model);
  press(1, "Enter");
  expect(model.get("selection")).toEqual({ pos: 1 });
  await settled();
  expect(token(1).getAttribute("aria-selected")).toBe("true");
  press(1, "Escape");
  expect(model.get("selection")).toEqual({});
  token(2).click();
  expect(model.get("selection")).toEqual({ pos: 2 });
  token(2).click();
  expect(model.get("selection")).toEqual({});
});

test("several numbers are chosen above the text, and stay chosen when a token is cleared", async () => {
  const model = one(
    ["a", "b"],
    [
      [0, 10],
      [10, 0],
    ],
  );
  await shown(model);
  const strong = tinted(1);
  const list = el.querySelector("select")!;
  list.selectedIndex = 1;
  list.dispatchEvent(new Event("change"));
  await settled();
  expect(model.get("selection")).toEqual({ value: "loss" });
  expect(tinted(0)).toBe(strong);
  press(0, "Enter");
  press(0, "Escape");
  expect(model.get("selection")).toEqual({ value: "loss" });
  press(1, "Enter");
  await settled();
  expect(el.querySelector(".hl-body .hl-about")!.textContent).toContain("effect 10 nats");
});

const AHEAD = {
  ids: { data: new Int32Array([5, 6, 6, 5, 5, 6]), shape: [3, 2] },
  probs: { data: new Float32Array([0.7, 0.2, 0.5, 0.4, 0.9, 0.1]), shape: [3, 2] },
  prob: { data: new Float32Array([0.2, 0.01, NONE]), shape: [3] },
  rank: { data: new Int32Array([1, 40, -1]), shape: [3] },
};

test("what was expected next is a table in which the token that came is marked, wherever it stands", async () => {
  await shown(one(["a", "b", "c"], [[1, 2, 3]], { ahead: true }, AHEAD));
  const rows = () => all(".hl-body .hl-among tbody tr");
  press(0, "Enter");
  await settled();
  expect(rows().map((row) => row.classList.contains("hl-taken"))).toEqual([false, true]);
  expect(rows()[1]!.textContent).toContain("0.200");
  press(1, "Enter");
  await settled();
  expect(rows()[2]!.textContent).toContain("40");
  expect(rows()[2]!.textContent).toContain("c ← came");
  press(2, "Enter");
  await settled();
  expect(rows().some((row) => row.classList.contains("hl-taken"))).toBe(false);
  expect(all(".hl-among th[scope=row]").length).toBeGreaterThan(0);
});

test("one popup follows what is pointed at", async () => {
  await shown(one(["a", "b"], [[1, 2]]));
  for (const i of [0, 1]) token(i).dispatchEvent(new Event("pointerover", { bubbles: true }));
  expect(all(".hl-popup").length).toBe(1);
  expect(el.querySelector<HTMLElement>(".hl-popup")!.hidden).toBe(false);
  expect(el.querySelector(".hl-popup")!.textContent).toContain("effect 2 nats");
  el.querySelector(".hl-flow")!.dispatchEvent(new Event("pointerleave"));
  expect(el.querySelector<HTMLElement>(".hl-popup")!.hidden).toBe(true);
});

test("rows of several prompts are chosen by row and position", async () => {
  const model = fakeModel(
    {
      kind: "tokens",
      axes: [
        { name: "batch", keys: [0, 1], labels: ["first", HOSTILE] },
        { name: "pos", keys: [0, 1], labels: ["0", "1"] },
      ],
      rows: [
        { label: "", pieces: ["a", "b"], special: [], apart: false },
        { label: "", pieces: ["c"], special: [], apart: true },
      ],
      which: "",
      sets: [],
      tokens: {},
      ahead: false,
      note: "nothing",
      most: 20,
    },
    { values: { data: new Float32Array(0), shape: [0, 3] } },
  );
  await shown(model);
  expect(all("[role=listbox]").length).toBe(2);
  expect(all("img").length).toBe(0);
  expect(el.textContent).toContain("nothing");
  press(2, "Enter");
  expect(model.get("selection")).toEqual({ batch: 1, pos: 0 });
  await settled();
  expect(said()).toContain(HOSTILE);
});

test("a very long text is drawn part by part", async () => {
  const count = 30;
  const model = one(Array(count).fill("t"), [Array(count).fill(1)]);
  await shown(model);
  expect(all(".hl-tok").length).toBe(20);
  expect(el.querySelector(".hl-pages")!.textContent).toContain(`tokens 0–19 of ${count}`);
  all(".hl-pages button")[1]!.click();
  expect(all(".hl-tok").length).toBe(10);
  expect(all(".hl-tok").filter((each) => each.tabIndex === 0).length).toBe(1);
  model.set("selection", { pos: 3 });
  await settled();
  expect(token(3).getAttribute("aria-selected")).toBe("true");
});

test("a closed view listens to nothing any more", async () => {
  const model = one(["a"], [[1]]);
  await shown(model);
  end();
  expect(model.listeners).toBe(0);
});
