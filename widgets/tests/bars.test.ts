import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { apart } from "../src/core/ticks";
import bars, { extent, numbers as along, ordered } from "../src/views/bars";
import { type FakeModel, fakeCanvas, fakeModel, settled } from "./fake";

const HOSTILE = "<img src=x onerror=boom()>";
const VALUES = [0.5, -3, Number.NaN, 2, -0.25];
const FACTS = {
  title: "attribution",
  axes: [{ name: "neuron", keys: [10, 11, 12, 13, 14], labels: ["10", "11", HOSTILE, "13", "14"] }],
  axis: "neuron",
  unit: "logits",
  value: "score",
  level: 0.95,
  note: "",
  texts: [],
  orders: ["as given", "strongest", "largest", "smallest"],
  runs: false,
};
const numbers = (values: number[]) => ({ data: Float32Array.from(values), shape: [values.length] });

let host: HTMLElement;
let end: AbortController;

beforeEach(() => {
  fakeCanvas();
  host = document.createElement("div");
  document.body.replaceChildren(host);
  end = new AbortController();
});
afterEach(() => end.abort());

async function open(options: Record<string, unknown> = {}, facts = {}, more = {}): Promise<FakeModel> {
  const model = fakeModel(
    { ...FACTS, ...facts },
    { values: numbers(VALUES), ...more },
    { options: { order: "as given", most: 40, ...options } },
  );
  bars.render({ model, el: host, signal: end.signal });
  await settled();
  return model;
}

const find = <E extends HTMLElement>(query: string) => host.querySelector<E>(query)!;
const names = () => [...host.querySelectorAll(".hl-bar-name")].map((one) => one.textContent);
const press = (...keys: string[]) => {
  for (const key of keys)
    find(".hl-bars").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
};

describe("bars", () => {
  it("stand in the order that is asked for, what is no number last", () => {
    expect(ordered(VALUES, "as given", 5)).toEqual([0, 1, 2, 3, 4]);
    expect(ordered(VALUES, "strongest", 5)).toEqual([1, 3, 0, 4, 2]);
    expect(ordered(VALUES, "largest", 5)).toEqual([3, 0, 4, 1, 2]);
    expect(ordered(VALUES, "smallest", 5)).toEqual([1, 4, 0, 3, 2]);
  });

  it("are the strongest where not all are shown", async () => {
    expect(ordered(VALUES, "as given", 3)).toEqual([0, 1, 3]);
    await open({ most: 2 });
    expect(names()).toEqual(["11", "13"]);
    expect(host.textContent).toContain("The strongest 2 of 5 are shown.");
    expect(find(".hl-limit")).not.toBeNull();
  });

  it("share a scale that has zero and all whiskers in it", () => {
    const arrays = {
      values: numbers([1, 2]),
      low: numbers([-1, 1]),
      high: numbers([3, Number.POSITIVE_INFINITY]),
    };
    expect(extent(arrays, [0, 1])).toEqual([-1, 3]);
    expect(extent({ values: numbers([0]) }, [0])).toEqual([0, 1]);
  });

  it("leave out the number of an end that would touch zero's", async () => {
    const wide = (text: string) => 6 * text.length;
    const texts = (ends: [number, number], room: number) =>
      apart(along(ends), room, wide)
        .map((one) => one.text)
        .sort();
    expect(texts([-0.02, 10], 400)).toEqual(["0", "10"]);
    expect(texts([-10, 0.02], 400)).toEqual(["0", "−10"]);
    expect(texts([-5, 10], 400)).toEqual(["0", "10", "−5"].sort());
    expect(texts([-5, 10], 40)).toEqual(["0", "10"]);
    expect(texts([-5, 10], 20)).toEqual(["0"]);
    expect(texts([0, 1], 400)).toEqual(["0", "1"]);
    await open({}, {}, { values: numbers([-0.02, 10, 4, 3, 1]) });
    expect([...host.querySelectorAll(".hl-bar-axis span")].map((one) => one.textContent)).toEqual([
      "0",
      "10",
    ]);
    expect(find(".hl-bar-unit").textContent).toBe("logits");
  });

  it("are as long as their numbers", async () => {
    await open(
      {},
      {},
      { low: numbers([0, -4, Number.NaN, 1, -1]), high: numbers([1, -2, Number.NaN, 4, 0]) },
    );
    const fill = (row: number) =>
      host.querySelectorAll(".hl-track")[row]!.querySelector<HTMLElement>(".hl-fill")!.style;
    expect(fill(3).left).toBe("50%"); // the scale runs from -4 to 4
    expect(fill(3).width).toContain("75%");
    expect(fill(1).left).toBe("12.5%");
    expect(host.querySelectorAll(".hl-whisker")).toHaveLength(4);
    expect(host.querySelectorAll(".hl-bar-value")[2]!.textContent).toBe("× nan");
  });

  it("are chosen by a click and by keys, and let go again", async () => {
    const model = await open();
    host.querySelectorAll<HTMLElement>(".hl-bar-row")[3]!.click();
    expect(model.get("selection")).toEqual({ neuron: 13 });
    expect(find("[aria-selected=true]").textContent).toContain("13");
    press("Escape");
    expect(model.get("selection")).toEqual({});
    press("ArrowDown", "ArrowDown", "Enter");
    expect(model.get("selection")).toEqual({ neuron: 11 });
    expect(find(".hl-say").textContent).toBe("neuron 11 · score −3 logits");
    press("End", " ");
    expect(model.get("selection")).toEqual({ neuron: 14 });
  });

  it("are one stop of the tab key and tell where the cursor is", async () => {
    await open();
    press("Home");
    const id = find(".hl-bars").getAttribute("aria-activedescendant")!;
    expect(document.getElementById(id)!.getAttribute("aria-label")).toBe("neuron 10 · score 0.5 logits");
    expect(
      [...host.querySelectorAll(".hl-bar-row")].every((one) => one.getAttribute("tabindex") === null),
    ).toBe(true);
  });

  it("change with their options", async () => {
    const model = await open();
    const list = find<HTMLSelectElement>("select");
    list.value = "largest";
    list.dispatchEvent(new Event("change"));
    await settled();
    expect(model.get("options")).toMatchObject({ order: "largest" });
    expect(names()[0]).toBe("13");
  });

  it("show text as text", async () => {
    await open({}, { title: HOSTILE, note: HOSTILE, texts: ["a", "b", HOSTILE, "d", "e"] });
    expect(host.querySelector("img")).toBeNull();
    expect(names()[2]).toContain(HOSTILE);
  });
});
