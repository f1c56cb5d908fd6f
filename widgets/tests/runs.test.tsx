// The list of runs: order, search, choice, comparison, and what is broken.
import { afterEach, beforeEach, expect, test } from "vitest";
import runs, { arranged, numeric, size } from "../src/views/runs";
import { type FakeModel, type Question, fakeModel, settled } from "./fake";

const HOSTILE = "<img src=x onerror=bad()>";
const row = (key: string, more: Record<string, unknown> = {}) => ({
  key,
  name: key,
  stored: "",
  time: 0,
  model: "lab",
  fingerprint: "abcdef123",
  line: "prompt",
  size: 10,
  error: "",
  metrics: [null],
  memory: false,
  ...more,
});
const ROWS = [
  row("ten", { time: 10, metrics: [0.5], line: "prompt clean" }),
  row("two", { time: 2, metrics: [0.75], error: "" }),
  row(HOSTILE, { time: 5, metrics: ["nan"], error: "was cut short" }),
];
const DETAIL = {
  spec: 'prompt "a"',
  about: [["folder", "/x"]],
  metrics: [["main.prob", 0.5]],
  error: "",
  eager: false,
  size: 99,
};

function opened(traits: Record<string, unknown> = {}, rows: unknown[] = ROWS): FakeModel {
  const keys = (rows as { key: string }[]).map(({ key }) => key);
  return fakeModel(
    {
      kind: "runs",
      rows,
      metrics: ["main.prob"],
      note: "",
      axes: ["run", "against"].map((name) => ({ name, keys, labels: keys })),
    },
    {},
    traits,
  );
}

let end: () => void;
let el: HTMLElement;
const shown = async (model: FakeModel): Promise<HTMLElement> => {
  el = document.createElement("div");
  document.body.append(el);
  end = runs.render({ model, el });
  await settled();
  return el.querySelector<HTMLElement>(".hooklab-view")!;
};
const lines = (): HTMLElement[] => [...el.querySelectorAll<HTMLElement>("tr[data-key]")];
const keys = (): (string | undefined)[] => lines().map((one) => one.dataset.key);
const asked = (model: FakeModel, name: string): Question => model.sent.findLast(({ ask }) => ask === name)!;
const press = async (key: string): Promise<void> => {
  document.activeElement!.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  await settled();
};

beforeEach(() => document.body.replaceChildren());
afterEach(() => end?.());

test("the newest stands first, and a broken run stands there with its error", async () => {
  await shown(opened());
  expect(keys()).toEqual(["ten", HOSTILE, "two"]);
  expect(lines()[1]!.querySelector(".hl-broken")!.textContent).toBe("⚠ was cut short");
  expect(el.querySelector("img")).toBeNull();
});

test("a heading sorts by its column, again the other way round, and says so", async () => {
  await shown(opened());
  const head = () =>
    [...el.querySelectorAll<HTMLElement>("thead th")].find((one) =>
      one.textContent?.startsWith("main.prob"),
    )!;
  head().querySelector("button")!.click();
  await settled();
  expect(keys()).toEqual(["two", "ten", HOSTILE]);
  expect(head().getAttribute("aria-sort")).toBe("descending");
  head().querySelector("button")!.click();
  await settled();
  expect(keys()).toEqual(["ten", "two", HOSTILE]); // what is no number stays last
  expect(head().getAttribute("aria-sort")).toBe("ascending");
});

test("every word of a search must be there", async () => {
  await shown(opened());
  const box = el.querySelector<HTMLInputElement>("input[type=search]")!;
  box.value = "LAB clean";
  box.dispatchEvent(new Event("input"));
  await settled();
  expect(keys()).toEqual(["ten"]);
  expect(el.textContent).toContain("1 of 3 runs");
});

test("a click chooses a run and asks for what is known of it; its pictures are asked for by a button", async () => {
  const model = opened();
  await shown(model);
  lines()[0]!.click();
  await settled();
  expect(model.get("selection")).toEqual({ run: "ten" });
  model.answer(asked(model, "detail"), DETAIL);
  await settled();
  expect(el.querySelector("details pre")!.textContent).toBe('prompt "a"');
  const button = [...el.querySelectorAll<HTMLButtonElement>(".hl-run-detail button")].at(-1)!;
  expect(button.textContent).toContain("99 B");
  button.click();
  await settled();
  model.answer(
    asked(model, "pictures"),
    {
      texts: [["main", "a", HOSTILE]],
      next: [],
      kept: [],
      claims: [],
      images: ["hooked.prob"],
      more: "2 more: x",
    },
    [new Uint8Array([137, 80])],
  );
  await settled();
  expect(el.querySelector<HTMLImageElement>("figure img")!.src).toMatch(/^blob:/);
  expect(el.querySelectorAll("img")).toHaveLength(1);
  expect(el.textContent).toContain(HOSTILE);
  expect(el.textContent).toContain("2 more: x");
});

test("pictures are in the inks of the page, and again when it turns dark", async () => {
  const model = opened();
  await shown(model);
  lines()[0]!.click();
  await settled();
  model.answer(asked(model, "detail"), { ...DETAIL, eager: true });
  await settled();
  const reply = { texts: [], next: [], kept: [], claims: [], images: ["hooked.prob"], more: "" };
  expect(asked(model, "pictures").with).toEqual({ run: "ten" });
  model.answer(asked(model, "pictures"), reply, [new Uint8Array([137, 80])]);
  await settled();
  expect(el.querySelector(".hl-night")).toBeNull();
  el.querySelector<HTMLElement>(".hooklab-view")!.style.color = "rgb(240, 240, 240)";
  document.body.dataset.theme = "dark";
  await new Promise((then) => setTimeout(then));
  expect(asked(model, "pictures").with).toEqual({ run: "ten", dark: true });
  model.emit("msg:custom", { id: asked(model, "pictures").id, error: "not on this page" }, []);
  await settled();
  expect(asked(model, "pictures").with).toEqual({ run: "ten" });
  document.body.dataset.theme = "";
  model.answer(asked(model, "pictures"), reply, [new Uint8Array([137, 80])]);
  await settled();
  expect(el.querySelectorAll("figure img")).toHaveLength(1);
});

test("keys move, choose, compare and clear", async () => {
  const model = opened();
  await shown(model);
  expect(lines().filter((one) => one.tabIndex === 0)).toHaveLength(1);
  lines()[0]!.focus();
  await press("Enter");
  await press("End");
  expect(document.activeElement).toBe(lines()[2]);
  await press("c");
  expect(model.get("selection")).toEqual({ run: "ten", against: "two" });
  await press("Escape");
  expect(model.get("selection")).toEqual({});
});

test("two runs are shown with the difference of their metrics and the lines of their specs", async () => {
  const model = opened({ selection: { run: "ten", against: "two" } });
  await shown(model);
  model.answer(asked(model, "detail"), DETAIL);
  await settled();
  expect(asked(model, "compare").with).toEqual({ run: "ten", against: "two" });
  model.answer(asked(model, "compare"), {
    metrics: [["main.prob", 0.75, 0.5, -0.25]],
    lines: [
      [" ", "prompt"],
      ["-", "zero L1"],
      ["+", "zero L0"],
    ],
    around: ["seed (0 → 1)"],
  });
  await settled();
  const cells = [...el.querySelectorAll(".hl-run-detail section td")].map((one) => one.textContent);
  expect(cells).toEqual(["main.prob", "0.7500", "0.5000", "−0.2500"]);
  expect(el.querySelector(".hl-plus")!.textContent).toBe("+ zero L0\n");
  expect(el.querySelector(".hl-minus")!.textContent).toBe("- zero L1\n");
  expect(el.textContent).toContain("made with another seed (0 → 1)");
});

test("an answer that comes after another choice is not shown", async () => {
  const model = opened({ selection: { run: "ten" } });
  await shown(model);
  const late = asked(model, "detail");
  model.set("selection", { run: "two" });
  await settled();
  model.answer(late, { ...DETAIL, spec: "late" });
  await settled();
  expect(el.textContent).not.toContain("late");
});

test("refresh asks the kernel to look again", async () => {
  const model = opened();
  await shown(model);
  el.querySelector<HTMLButtonElement>(".hl-tools button")!.click();
  expect(asked(model, "refresh").with).toEqual({});
});

test("an empty list says so", async () => {
  await shown(opened({}, []));
  expect(el.textContent).toContain("There are no runs here yet.");
});

test("a list of hundreds draws the first and says how to find the others", async () => {
  await shown(
    opened(
      {},
      Array.from({ length: 400 }, (_, i) => row(`r${i}`)),
    ),
  );
  expect(lines()).toHaveLength(300);
  expect(el.textContent).toContain("search for the others");
});

test("numbers sort as numbers, also within names", () => {
  const rows = ["run 10", "run 9"].map((name) => row(name) as never);
  const sorted = arranged(rows, "", { name: "run", of: ({ name }) => name }, false) as { key: string }[];
  expect(sorted.map(({ key }) => key)).toEqual(["run 9", "run 10"]);
  expect([numeric("inf"), numeric(null), numeric(2)]).toEqual([Infinity, null, 2]);
  expect([size(5), size(2048)]).toEqual(["5 B", "2.0 KB"]);
});

test("a list that is gone listens to nothing", async () => {
  const model = opened();
  await shown(model);
  end();
  expect(model.listeners).toBe(0);
});
