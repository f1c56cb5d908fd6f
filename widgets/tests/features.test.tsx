import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type FeatureFacts, listed } from "../src/features/data";
import { tint } from "../src/features/page";
import features from "../src/views/features";
import { type FakeModel, fakeCanvas, fakeModel, packed, settled } from "./fake";

const HOSTILE = "<img src=x onerror=boom()>";
const KEYS = [10, 11, 20, 101];
const FACTS = {
  title: "neurons",
  axes: [{ name: "neuron", keys: KEYS, labels: KEYS.map(String) }],
  word: "neuron",
  name: "L2.mlp_post",
  note: "9 tokens of 2 texts",
  window: 8,
  logits: { normed: "through the norm", plain: "write × unembedding" },
} satisfies Partial<FeatureFacts>;

const opened = (traits: Record<string, unknown> = {}): FakeModel =>
  fakeModel(
    FACTS,
    {
      high: { data: new Float32Array([1, 5, Number.NaN, 3]), shape: [4] },
      density: { data: new Float32Array([0.5, 0.25, 0.75, 0]), shape: [4] },
      norms: { data: new Float32Array([1, 2, 3, 4]), shape: [4] },
    },
    { options: { logits: "normed" }, ...traits },
  );

/** What is told about a feature: two contexts and one example. */
function told(key: number) {
  const { blob, table } = packed({
    values: { data: new Float32Array([0, 2, -4, 1.5, 0.5]), shape: [5] },
    counts: { data: new Int32Array([7, 0, 2]), shape: [3] },
    edges: { data: new Float32Array([-1, 0, 1, 2]), shape: [4] },
  });
  const reply = {
    key,
    zero: 0.5,
    density: 0.25,
    odd: 0,
    low: -1,
    high: 2,
    norm: 1.25,
    contexts: [
      { text: 0, pos: 4, start: 3, pieces: ["a", HOSTILE] },
      { text: 1, pos: 1, start: 1, pieces: [" b", " c"] },
    ],
    ranges: [{ low: 0, high: 2, contexts: [{ text: 1, pos: 0, start: 0, pieces: ["d"] }] }],
    logits: {
      normed: { up: [["·Mary", 2]], down: [[HOSTILE, -1]] },
      plain: { up: [["·John", 4]], down: [["·he", -3]] },
    },
    arrays: table,
  };
  return { reply, blob };
}

/** The kernel's answer about a feature. */
function answer(model: FakeModel, key: number): void {
  const { reply, blob } = told(key);
  model.answer(model.sent.filter((one) => one.with.key === key).at(-1)!, reply, [blob]);
}

let end: AbortController;
let el: HTMLElement;
const shown = async (model: FakeModel): Promise<void> => {
  features.render({ model, el, signal: end.signal });
  await settled();
};
const texts = (selector: string): (string | null)[] =>
  [...el.querySelectorAll(selector)].map((one) => one.textContent);
const press = (selector: string, key: string): void =>
  void el
    .querySelector(selector)!
    .dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));

beforeEach(() => {
  fakeCanvas();
  end = new AbortController();
  el = document.createElement("div");
  document.body.append(el);
});
afterEach(() => {
  end.abort();
  document.body.replaceChildren();
});

describe("the list", () => {
  it("is in the order asked for, with what is no number last, and an exact number first", () => {
    const columns = { maximum: [1, 5, Number.NaN, 3], density: [0.5, 0.25, 0.75, 0], norm: [1, 2, 3, 4] };
    expect(listed(KEYS, columns, "maximum", "").map((i) => KEYS[i])).toEqual([11, 101, 10, 20]);
    expect(listed(KEYS, columns, "number", "").map((i) => KEYS[i])).toEqual([10, 11, 20, 101]);
    expect(listed(KEYS, columns, "maximum", "10").map((i) => KEYS[i])).toEqual([10, 101]);
    expect(listed(KEYS, columns, "density", "3")).toEqual([]);
  });

  it("of thousands puts only those in sight into the page", async () => {
    const keys = Array.from({ length: 5000 }, (_, i) => i);
    const many = new Float32Array(5000).map((_, i) => 5000 - i);
    const facts = { ...FACTS, axes: [{ name: "neuron", keys, labels: keys.map(String) }] };
    const data = { data: many, shape: [5000] };
    await shown(
      fakeModel(facts, { high: data, density: data, norms: data }, { options: { logits: "normed" } }),
    );
    expect(el.querySelectorAll("[role=option]").length).toBeLessThan(60);
    expect(texts("[role=option] b")[0]).toBe("0");
    expect(el.textContent).toContain("5000 in all");
  });
});

describe("the page", () => {
  it("asks for the strongest feature and shows it", async () => {
    const model = opened();
    await shown(model);
    expect(model.sent.map((one) => [one.ask, one.with])).toEqual([["feature", { key: 11 }]]);
    answer(model, 11);
    await settled();
    expect(el.querySelector("[data-ready='1']")).not.toBeNull();
    expect(texts(".hl-numbers")[0]).toBe(
      "neuron 11 · above 0 at 25 % of the tokens · exactly 0 at 50 % · maximum 2 · minimum −1 · norm of what it writes 1.25",
    );
    expect(texts(".hl-contexts .hl-peak")).toEqual([HOSTILE, " b", "d"]);
    expect(texts(".hl-value")).toEqual(["2", "−4", "0.500"]);
    expect(el.querySelector("img")).toBeNull();
    expect(texts(".hl-moved th")).toEqual(["·Mary", HOSTILE]);
  });

  it("has a bar for each bin, as high as the logarithm of its count", async () => {
    const model = opened();
    await shown(model);
    answer(model, 11);
    await settled();
    const heights = [...el.querySelectorAll(".hl-count")].map((one) => Number(one.getAttribute("height")));
    expect(heights[0]).toBeCloseTo(58);
    expect(heights[1]).toBe(0);
    expect(heights[2]! / heights[0]!).toBeCloseTo(Math.log(3) / Math.log(8));
  });

  it("colours by the strongest activation of all contexts: orange above zero, blue below", async () => {
    expect(tint(4, 4)).toContain("230 97 1 / 0.620");
    expect(tint(-2, 4)).toContain("44 123 182 / 0.310");
    expect([tint(0, 4), tint(Number.NaN, 4), tint(0, 0)]).toEqual([undefined, undefined, undefined]);
  });

  it("follows the selection, and a late answer does not replace what was chosen after it", async () => {
    const model = opened();
    await shown(model);
    answer(model, 11);
    await settled();
    model.set("selection", { neuron: 20 });
    model.set("selection", { neuron: 101 });
    answer(model, 101);
    await settled();
    answer(model, 20);
    await settled();
    expect(texts(".hl-numbers b")).toEqual(["neuron 101"]);
    expect(el.querySelector("[aria-selected=true] b")!.textContent).toBe("101");
  });

  it("asks once for what it has seen", async () => {
    const model = opened();
    await shown(model);
    answer(model, 11);
    await settled();
    model.set("selection", { neuron: 10 });
    answer(model, 10);
    await settled();
    model.set("selection", { neuron: 11 });
    await settled();
    expect(model.sent.length).toBe(2);
    expect(texts(".hl-numbers b")).toEqual(["neuron 11"]);
  });

  it("says what the kernel says when it refuses, and asks again the next time", async () => {
    const model = opened();
    await shown(model);
    model.emit("msg:custom", { id: model.sent[0]!.id, error: "no such neuron" });
    await settled();
    expect(el.querySelector(".hl-wrong")!.textContent).toBe("no such neuron");
    model.set("selection", { neuron: 11 });
    await settled();
    expect(model.sent.length).toBe(2);
  });

  it("without a kernel is that of the feature that travels with the view, whatever was chosen", async () => {
    const { reply, blob } = told(11);
    const model = fakeModel(
      { ...FACTS, first: reply },
      {
        high: { data: new Float32Array([1, 5, Number.NaN, 3]), shape: [4] },
        density: { data: new Float32Array([0.5, 0.25, 0.75, 0]), shape: [4] },
        norms: { data: new Float32Array([1, 2, 3, 4]), shape: [4] },
        first: {
          data: new Uint8Array(blob.buffer, blob.byteOffset, blob.byteLength),
          shape: [blob.byteLength],
        },
      },
      { options: { logits: "normed" }, selection: { neuron: 20 } },
    );
    await shown(model);
    model.emit("msg:custom", { id: model.sent[0]!.id, error: "there is no kernel" });
    await settled();
    expect(texts(".hl-numbers b")).toEqual(["neuron 11"]);
    expect(el.querySelector(".hl-wrong")!.textContent).toContain("neuron 11, which travels with the view");
  });

  it("shows the logits of the chosen kind", async () => {
    const model = opened({ options: { logits: "plain" } });
    await shown(model);
    answer(model, 11);
    await settled();
    expect(texts(".hl-moved th")).toEqual(["·John", "·he"]);
    model.set("options", { logits: "normed" });
    await settled();
    expect(texts(".hl-moved th")).toEqual(["·Mary", HOSTILE]);
  });
});

describe("the keyboard", () => {
  it("goes through the list", async () => {
    const model = opened();
    await shown(model);
    press("[role=listbox]", "ArrowDown");
    expect(model.get("selection")).toEqual({ neuron: 101 });
    press("[role=listbox]", "End");
    expect(model.get("selection")).toEqual({ neuron: 20 });
    await settled();
    press("[role=listbox]", "Escape");
    expect(model.get("selection")).toEqual({});
  });

  it("reads tokens one after another and opens a context", async () => {
    const model = opened();
    await shown(model);
    answer(model, 11);
    await settled();
    const said = () => el.querySelector(".hl-say")!.textContent;
    press(".hl-contexts", "ArrowDown");
    expect(said()).toBe(`‘${HOSTILE}’ · text 0, position 4: activation 2`);
    await settled();
    press(".hl-contexts", "ArrowLeft");
    expect(said()).toBe("‘a’ · text 0, position 3: activation 0");
    await settled();
    press(".hl-contexts", "Enter");
    await settled();
    expect(el.querySelectorAll(".hl-open").length).toBe(1);
  });
});

it("a view that is gone listens no more", async () => {
  const model = opened();
  await shown(model);
  end.abort();
  expect(model.listeners).toBe(0);
  answer(model, 11);
  await settled();
  expect(el.querySelector(".hl-numbers")).toBeNull();
});
