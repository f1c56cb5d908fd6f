// The view of generated text: what is drawn, what is said, how it is reached by keys.
import { afterEach, beforeEach, expect, test } from "vitest";
import generation, { stretches } from "../src/views/generation";
import { type FakeModel, fakeModel, settled } from "./fake";

const NONE = Number.NaN;
const HOSTILE = "<img src=x onerror=bad()>";

function opened(facts: Record<string, unknown> = {}, traits: Record<string, unknown> = {}): FakeModel {
  const column = (pieces: string[], more: Record<string, unknown>) => ({
    prompt: "Mary went",
    pieces,
    known: true,
    stopped: "eos",
    most: 4,
    apart: null,
    edits: [],
    ...more,
  });
  return fakeModel(
    {
      kind: "generation",
      axes: [
        { name: "sample", keys: ["plain", "edited"], labels: ["plain", "edited"] },
        { name: "step", keys: [0, 1, 2], labels: ["0", "1", "2"] },
      ],
      columns: [
        column([" she", " was"], {}),
        column([" she", " sad", HOSTILE], { apart: 1, edits: [{ line: "zero L2 @new", steps: [1, 2] }] }),
      ],
      tokens: { 1: "·she", 2: "·was", 3: "·sad", 4: HOSTILE },
      scales: {
        probability: { kind: "probability", low: 0, high: 1 },
        entropy: { kind: "linear", low: 0, high: 2 },
      },
      writing: false,
      playable: true,
      note: "",
      ...facts,
    },
    {
      chance: { data: new Float32Array([0.9, 0.5, 0.9, 0.2, NONE]), shape: [5] },
      entropy: { data: new Float32Array([0.1, 0.7, 0.1, 1.5, NONE]), shape: [5] },
      rank: { data: new Int32Array([0, 0, 0, 4, 2]), shape: [5] },
      id: { data: new Int32Array([1, 2, 1, 3, 4]), shape: [5] },
      ids: { data: new Int32Array([1, 2, 2, 3, 1, 2, 2, 1, 4, -1]), shape: [5, 2] },
      chances: {
        data: new Float32Array([0.9, 0.05, 0.5, 0.2, 0.9, 0.05, 0.5, 0.3, NONE, NONE]),
        shape: [5, 2],
      },
      colours: { data: new Uint8Array(1024).fill(200), shape: [256, 4] },
    },
    traits,
  );
}

let end: () => void;
let el: HTMLElement;
const shown = async (model: FakeModel): Promise<HTMLElement> => {
  el = document.createElement("div");
  document.body.append(el);
  end = generation.render({ model, el });
  await settled();
  return el.querySelector<HTMLElement>(".hooklab-view")!;
};
const tokens = (): HTMLElement[] => [...el.querySelectorAll<HTMLElement>("[role=option]")];
const press = async (key: string): Promise<void> => {
  (document.activeElement ?? tokens()[0]!).dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true }),
  );
  await settled();
};

beforeEach(() => {
  document.body.replaceChildren();
});
afterEach(() => end?.());

test("texts stand side by side, token by token, and are ready", async () => {
  const root = await shown(opened());
  expect(root.dataset.ready).toBe("1");
  expect(tokens().map((one) => one.textContent)).toEqual(["she", "was", "she", "sad", HOSTILE]);
  expect([...el.querySelectorAll("h5 bdi")].map((one) => one.textContent)).toEqual(["plain", "edited"]);
  expect(el.querySelector("img")).toBeNull();
});

test("steps under an edit are underlined, and the first of them has a sign", async () => {
  await shown(opened());
  expect(tokens().map((one) => one.classList.contains("hl-edited"))).toEqual([
    false,
    false,
    false,
    true,
    true,
  ]);
  expect(el.querySelectorAll(".hl-written .hl-acting")).toHaveLength(1);
  expect(el.querySelector(".hl-edit code")!.textContent).toBe("zero L2 @new");
});

test("the first difference is marked before its token", async () => {
  await shown(opened());
  const marks = [...el.querySelectorAll(".hl-apart")];
  expect(marks).toHaveLength(1);
  expect(tokens()[2]!.compareDocumentPosition(marks[0]!) & Node.DOCUMENT_POSITION_FOLLOWING).toBeTruthy();
  expect(tokens()[3]!.compareDocumentPosition(marks[0]!) & Node.DOCUMENT_POSITION_PRECEDING).toBeTruthy();
});

test("a click chooses a token and shows what it was chosen among, the taken one with its rank", async () => {
  const model = opened();
  await shown(model);
  tokens()[3]!.click();
  await settled();
  expect(model.get("selection")).toEqual({ sample: "edited", step: 1 });
  const rows = [...el.querySelectorAll(".hl-among tbody tr")].map((row) => row.textContent);
  expect(rows).toEqual(["0·was0.500", "1·she0.300", "4·sad ← taken0.200"]);
  tokens()[3]!.click();
  expect(model.get("selection")).toEqual({});
});

test("one token is a tab stop; arrows, Home and End move it, Enter chooses, Escape clears", async () => {
  const model = opened();
  await shown(model);
  expect(tokens().filter((one) => one.tabIndex === 0)).toHaveLength(1);
  tokens()[0]!.focus();
  await press("ArrowRight");
  expect(document.activeElement).toBe(tokens()[1]);
  await press("ArrowDown");
  expect(document.activeElement).toBe(tokens()[3]);
  await press("End");
  expect(document.activeElement).toBe(tokens()[4]);
  await press("Home");
  await press("Enter");
  expect(model.get("selection")).toEqual({ sample: "edited", step: 0 });
  expect(tokens().filter((one) => one.tabIndex === 0)).toEqual([tokens()[2]]);
  await press("Escape");
  expect(model.get("selection")).toEqual({});
});

test("what is focused is said, with probability, rank and the edits at work", async () => {
  const root = await shown(opened());
  tokens()[3]!.focus();
  await settled();
  expect(root.querySelector(".hl-say")!.textContent).toBe(
    "edited · step 1 ‘·sad’: probability 0.200, rank 4, entropy 1.50 nats: under zero L2 @new",
  );
  expect(root.querySelector<HTMLElement>(".hl-among-tip")!.hidden).toBe(false);
});

test("a number that is none is said to be none", async () => {
  await shown(opened());
  expect(tokens()[4]!.getAttribute("aria-label")).toContain("probability nan");
});

test("the button asks the kernel to write, and to stop while it does", async () => {
  const model = opened();
  const root = await shown(model);
  const button = () => root.querySelector<HTMLButtonElement>(".hl-tools button")!;
  expect(button().textContent).toBe("Write again");
  const first = button();
  button().click();
  expect(model.sent.at(-1)!.ask).toBe("play");
  model.set("facts", { ...(model.get("facts") as object), writing: true });
  await settled();
  expect(button().textContent).toBe("Stop");
  expect(button()).toBe(first); // a click that began before the drawing ends on the same button
  button().click();
  expect(model.sent.at(-1)!.ask).toBe("stop");
});

test("a text that grew is drawn anew and keeps its chosen step", async () => {
  const model = opened({}, { selection: { sample: "plain", step: 1 } });
  await shown(model);
  const facts = model.get("facts") as { columns: { pieces: string[] }[] };
  model.set("facts", { ...facts, columns: [facts.columns[0], { ...facts.columns[1], pieces: [" she"] }] });
  await settled();
  expect(tokens().map((one) => one.textContent)).toEqual(["she", "was", "she"]);
  expect(tokens()[1]!.getAttribute("aria-selected")).toBe("true");
});

test("without logits tokens have no colour, and the note says why", async () => {
  const base = opened().get("facts") as { columns: object[] };
  await shown(opened({ columns: base.columns.map((one) => ({ ...one, known: false })), note: "no logits" }));
  expect(el.textContent).toContain("no logits");
  expect(el.querySelector<HTMLElement>(".hl-tools > span")!.hidden).toBe(true);
});

test("a view that is gone listens to nothing", async () => {
  const model = opened();
  await shown(model);
  end();
  expect(model.listeners).toBe(0);
  expect(el.children).toHaveLength(0);
});

test("step numbers are written in few characters", () => {
  expect(stretches([0, 1, 2, 5, 7, 8])).toBe("0–2, 5, 7–8");
  expect(stretches([])).toBe("none");
});
