import { beforeEach, describe, expect, it, vi } from "vitest";
import { furthest } from "../src/attention/listing";
import { recoloured, stamp, weights } from "../src/attention/paint";
import { Recent } from "../src/attention/recent";
import { ending, highest, withoutFirst } from "../src/attention/store";
import view from "../src/views/attention";
import { type FakeModel, fakeCanvas, fakeModel, settled } from "./fake";

const PIECES = ["<b>", "When", "·Mary", "to"];
const SCALE = { kind: "probability", low: 0, high: 1 };

const code = (p: number): number => 4 + Math.round(251 * Math.sqrt(p));

/** Patterns [head 4 4]: the first looks back by one, the others at their own token, with a little on the first. */
function weightsOf(head: number): number[][] {
  return PIECES.map((_, query) =>
    PIECES.map((_, key) => {
      const at = head === 0 ? Math.max(0, query - 1) : query;
      if (key > query) return 0;
      if (query === 0) return 1;
      return key === at ? 0.75 : key === 0 ? 0.25 : 0;
    }),
  );
}

function codesOf(head: number): number[] {
  return weightsOf(head).flatMap((row, query) => row.map((p, key) => (key > query ? 0 : code(p))));
}

/** A view of 2 layers × 2 heads; whole small pictures, unless their cells are blocks of tokens. */
function opened(facts: Record<string, unknown> = {}, traits: Record<string, unknown> = {}): FakeModel {
  const heads = [0, 1, 2, 3];
  return fakeModel(
    {
      kind: "attention",
      prompts: [
        { key: "clean", label: "clean", pieces: PIECES },
        { key: "corrupt", label: "corrupt", pieces: PIECES },
        { key: "short", label: "short", pieces: PIECES.slice(0, 2) },
      ],
      axes: [
        { name: "prompt", keys: ["clean", "corrupt", "short"], labels: ["clean", "corrupt", "short"] },
        { name: "layer", keys: [5, 7], labels: ["5", "7"] },
        { name: "head", keys: [0, 1], labels: ["0", "1"] },
        { name: "pos", keys: [0, 1, 2, 3], labels: PIECES },
        { name: "key_pos", keys: [0, 1, 2, 3], labels: PIECES },
      ],
      heads: heads.map((i) => ({ layer: i < 2 ? 5 : 7, head: i % 2, name: `L${i < 2 ? 5 : 7}H${i % 2}` })),
      gridded: true,
      modes: ["pattern", "difference"],
      units: { pattern: "attention", difference: "attention" },
      map: { prompt: 0, mode: "pattern", against: 0 },
      thumbs: { side: 4, block: 1, causal: true, scale: SCALE },
      opened: { at: 0, block: 1, causal: true },
      ...facts,
    },
    {
      thumbs: { data: Uint8Array.from(heads.flatMap(codesOf)), shape: [4, 4, 4] },
      first: { data: new Uint8Array(16), shape: [4, 4] },
      peaks: { data: Float32Array.from(heads.flatMap(() => [1, 0.75])), shape: [4, 2] },
      head: { data: Uint8Array.from(codesOf(0).filter((one) => one)), shape: [10] },
      sequential: { data: new Uint8Array(1024).fill(9), shape: [256, 4] },
      diverging: { data: new Uint8Array(1024).fill(7), shape: [256, 4] },
    },
    { options: { mode: "pattern", against: "corrupt" }, ...traits },
  );
}

async function shown(model: FakeModel): Promise<HTMLElement> {
  const el = document.createElement("div");
  document.body.replaceChildren(el);
  view.render({ model, el });
  await settled();
  return el;
}

const said = (el: HTMLElement): string =>
  el.querySelector(".hl-say")!.textContent!.replace(/[\u2068\u2069]/g, "");
const token = (el: HTMLElement, at: number): HTMLElement =>
  el.querySelector<HTMLElement>(`.hl-attn-token[data-at="${at}"]`)!;
const heads = (el: HTMLElement): HTMLElement => el.querySelector<HTMLElement>(".hl-attn-heads")!;
const title = (el: HTMLElement): string => el.querySelector(".hl-attn-title")!.firstChild!.textContent!;
const press = (to: HTMLElement, key: string) =>
  to.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const point = (to: HTMLElement) => to.dispatchEvent(new PointerEvent("pointermove", { bubbles: true }));
const select = (el: HTMLElement, name: string): HTMLSelectElement =>
  [...el.querySelectorAll("label")]
    .find((one) => one.firstChild!.textContent === name)!
    .querySelector("select")!;

beforeEach(() => {
  fakeCanvas();
  vi.useFakeTimers({
    toFake: ["setTimeout", "clearTimeout", "requestAnimationFrame", "cancelAnimationFrame"],
  });
});

const frames = async () => {
  vi.advanceTimersByTime(20);
  await settled();
};

describe("the view", () => {
  it("stands at once with what came along, asks nothing, and shows the first head and all tokens", async () => {
    const model = opened();
    const el = await shown(model);
    expect(el.querySelector("[data-ready]")).not.toBeNull();
    expect(model.sent).toEqual([]);
    expect(title(el)).toBe("L5H0");
    expect([...el.querySelectorAll(".hl-attn-token")].map((one) => one.textContent)).toEqual(PIECES);
    expect(el.querySelector("b")).toBeNull();
  });

  it("keeps a head by keyboard, and lets go of it with Escape", async () => {
    const model = opened();
    const el = await shown(model);
    for (const key of ["ArrowRight", "ArrowDown", "ArrowRight", "Enter"]) press(heads(el), key);
    await settled();
    expect(model.get("selection")).toEqual({ layer: 7, head: 1 });
    expect(model.saved).toBe(1);
    expect(title(el)).toBe("L7H1");
    press(heads(el), "Escape");
    expect(model.get("selection")).toEqual({});
  });

  it("names every small picture, the one under the cursor and the one that is kept", async () => {
    const model = opened();
    const el = await shown(model);
    const options = () => [...heads(el).querySelectorAll("[role=option]")];
    expect(heads(el).getAttribute("role")).toBe("listbox");
    expect(options().map((one) => one.getAttribute("aria-label"))).toEqual([
      "layer 5 · head 0 · attention, strongest 1",
      "layer 5 · head 1 · attention, strongest 1",
      "layer 7 · head 0 · attention, strongest 1",
      "layer 7 · head 1 · attention, strongest 1",
    ]);
    for (const key of ["ArrowRight", "ArrowDown"]) press(heads(el), key);
    expect(heads(el).getAttribute("aria-activedescendant")).toBe(options()[2]!.id);
    press(heads(el), "Enter");
    await settled();
    expect(options().map((one) => one.getAttribute("aria-selected"))).toEqual([
      "false",
      "false",
      "true",
      "false",
    ]);
    (options()[1] as HTMLElement).click(); // as a screen reader does
    expect(model.get("selection")).toEqual({ layer: 5, head: 1 });
    heads(el).dispatchEvent(new FocusEvent("blur"));
    expect(heads(el).hasAttribute("aria-activedescendant")).toBe(false);
  });

  it("names small pictures by what their numbers are", async () => {
    const model = opened();
    const el = await shown(model);
    const first = () => heads(el).querySelector("[role=option]")!.getAttribute("aria-label");
    model.set("options", { ...(model.get("options") as object), first_token: "left out" });
    await settled();
    expect(first()).toBe("layer 5 · head 0 · attention, strongest 0.75");
  });

  it("says where a token looks and who looks at it, and shades both", async () => {
    const el = await shown(opened());
    point(token(el, 2));
    await frames();
    expect(said(el)).toBe(
      "L5H0: 2 ‘·Mary’ looks at 1 ‘When’ 0.75, 0 ‘<b>’ 0.25 · is looked at by 3 ‘to’ 0.75",
    );
    expect(Number(token(el, 1).style.getPropertyValue("--below"))).toBeCloseTo(Math.sqrt(0.75), 1);
    expect(Number(token(el, 3).style.getPropertyValue("--above"))).toBeCloseTo(Math.sqrt(0.75), 1);
    expect(token(el, 3).classList.contains("hl-attn-below")).toBe(false);
  });

  it("shows one direction alone when asked to", async () => {
    const model = opened();
    const el = await shown(model);
    select(el, "tokens").value = "2";
    select(el, "tokens").dispatchEvent(new Event("change"));
    expect(model.get("options")).toMatchObject({ direction: "looked at by" });
    point(token(el, 2));
    await frames();
    expect(said(el)).toBe("L5H0: 2 ‘·Mary’ is looked at by 3 ‘to’ 0.75");
  });

  it("keeps a token with the head that it is looked at in, the same again lets go", async () => {
    const model = opened();
    const el = await shown(model);
    token(el, 2).click();
    expect(model.get("selection")).toEqual({ layer: 5, head: 0, pos: 2 });
    expect(token(el, 2).classList.contains("hl-attn-kept")).toBe(true);
    token(el, 2).click();
    expect(model.get("selection")).toEqual({ layer: 5, head: 0 });
  });

  it("walks through tokens by keyboard", async () => {
    const model = opened();
    const el = await shown(model);
    const strip = el.querySelector<HTMLElement>(".hl-attn-strip")!;
    for (const key of ["ArrowLeft", "ArrowLeft"]) press(strip, key);
    await frames();
    expect(said(el)).toContain("2 ‘·Mary’ looks at");
    press(strip, "Enter");
    expect(model.get("selection")).toMatchObject({ pos: 2 });
    press(strip, "Escape");
    expect(model.get("selection")).not.toHaveProperty("pos");
  });

  it("follows a selection that is made elsewhere", async () => {
    const model = opened();
    const el = await shown(model);
    model.set("selection", { layer: 7, head: 0, pos: 3, key_pos: 3 });
    await settled();
    expect(title(el)).toBe("L7H0");
    expect(said(el)).toContain("3 ‘to’");
  });

  it("lists in a table on demand, and fetches the exact numbers for it", async () => {
    const model = opened({}, { selection: { layer: 5, head: 0, pos: 1 } });
    const el = await shown(model);
    el.querySelector<HTMLButtonElement>("button[aria-pressed]")!.click();
    const cells = () =>
      [...el.querySelectorAll("table")].map((table) => table.querySelector("tbody")!.textContent);
    expect(cells()[0]).toMatch(/≈ 0\.75/);
    vi.advanceTimersByTime(150);
    await settled();
    const question = model.sent.at(-1)!;
    expect(question).toMatchObject({ ask: "rows", with: { prompt: 0, mode: "pattern", head: 0, part: 0 } });
    model.answer(question, { rows: 4 }, [new DataView(Float32Array.from(weightsOf(0).flat()).buffer)]);
    await settled();
    expect(cells()[0]).toMatch(/0\.7500/);
    expect(cells()[0]).not.toMatch(/≈/);
  });
});

describe("heads that are not here yet", () => {
  const pooled = () =>
    opened({
      thumbs: { side: 4, block: 2, causal: true, scale: SCALE },
    });

  it("are asked for after a while on them, once, and the answer of one that was left is not shown", async () => {
    const model = pooled();
    const el = await shown(model);
    press(heads(el), "ArrowRight");
    press(heads(el), "ArrowRight");
    expect(model.sent).toEqual([]);
    vi.advanceTimersByTime(120);
    await settled();
    expect(model.sent.map((one) => one.with.head)).toEqual([1]);
    press(heads(el), "ArrowLeft"); // back to the one that is shown
    model.answer(model.sent[0]!, { block: 1, causal: true }, [
      Uint8Array.from(codesOf(1).filter((one) => one)),
    ]);
    await settled();
    expect(title(el)).toBe("L5H0");
    press(heads(el), "ArrowRight");
    await settled();
    expect(title(el)).toBe("L5H1");
    expect(model.sent.length).toBe(1);
  });

  it("are replaced by their small pictures where nobody has them, which is said", async () => {
    const model = pooled();
    const el = await shown(model);
    model.set("selection", { layer: 7, head: 0 });
    await settled();
    model.emit("msg:custom", { id: model.sent[0]!.id, error: "No kernel." }, []);
    await settled();
    expect(title(el)).toBe("L7H0");
    expect(el.querySelector(".hl-attn-note")!.textContent).toContain(
      "No kernel. Its small picture is shown.",
    );
  });
});

describe("prompts and modes", () => {
  it("asks for the small pictures of another mode once, and names what is taken away", async () => {
    const model = opened();
    const el = await shown(model);
    expect(select(el, "minus").closest("label")!.hidden).toBe(true);
    model.set("options", { mode: "difference", against: "corrupt" });
    await settled();
    expect(model.sent.map((one) => [one.ask, one.with])).toEqual([
      ["thumbs", { prompt: 0, mode: "difference", against: 1 }],
    ]);
    model.answer(
      model.sent[0]!,
      { side: 4, block: 1, causal: true, scale: { kind: "diverging", low: -0.5, high: 0.5 } },
      [new Uint8Array(64).fill(130), new Uint8Array(16), new Uint8Array(32)],
    );
    await settled();
    expect(el.querySelector(".hl-unit")!.textContent).toBe("attention, clean − corrupt");
    expect(select(el, "minus").closest("label")!.hidden).toBe(false);
  });

  it("says why two prompts cannot be compared, and shows the pattern", async () => {
    const model = opened();
    const el = await shown(model);
    model.set("options", { mode: "difference", against: "short" });
    await settled();
    expect(model.sent).toEqual([]);
    expect(el.querySelector(".hl-attn-note")!.textContent).toContain("clean has 4 tokens and short has 2");
  });

  it("lets go of a token that another prompt does not have", async () => {
    const model = opened({}, { selection: { pos: 3, key_pos: 1 } });
    const el = await shown(model);
    select(el, "prompt").value = "2";
    select(el, "prompt").dispatchEvent(new Event("change"));
    expect(model.get("selection")).toEqual({ prompt: "short", key_pos: 1 });
  });
});

describe("a view that is gone", () => {
  it("listens to nothing and asks for nothing", async () => {
    const model = opened({ thumbs: { side: 4, block: 2, causal: true, scale: SCALE } });
    const el = document.createElement("div");
    const leave = view.render({ model, el });
    await settled();
    press(heads(el), "ArrowRight");
    press(heads(el), "ArrowRight");
    leave();
    vi.advanceTimersByTime(500);
    await settled();
    expect(model.sent).toEqual([]);
    expect(model.listeners).toBe(0);
    expect(el.childElementCount).toBe(0);
  });
});

describe("its parts", () => {
  it("a small picture of fewer pixels than cells shows the strongest of each", () => {
    const codes = new Uint8Array(16).fill(4);
    codes[5] = 200; // row 1, column 1
    const table = Uint32Array.from({ length: 256 }, (_, i) => i);
    const pixels = new Uint32Array(4);
    stamp(pixels, 2, { left: 0, top: 0, size: 2 }, codes, 4, null, table, weights(4));
    expect([...pixels]).toEqual([200, 4, 4, 4]);
    stamp(pixels, 2, { left: 0, top: 0, size: 2 }, codes, 4, Uint8Array.of(250, 4, 4, 4), table, weights(4));
    expect(pixels[0]).toBe(250);
  });

  it("colours on a scale that ends earlier reach their end earlier", () => {
    const colours = Uint8Array.from({ length: 1024 }, (_, i) => (i % 4 ? 0 : i / 4));
    const found = recoloured(
      colours,
      { kind: "linear", low: 0, high: 1 },
      { kind: "linear", low: 0, high: 0.5 },
    );
    const at = (one: number) => found[4 * one];
    expect([at(4), at(4 + 63), at(4 + 126), at(255), at(1)]).toEqual([4, 4 + 126, 255, 255, 1]);
  });

  it("the furthest from zero come first, nothing and what is no number not at all", () => {
    expect(furthest([0, -3, 2, Number.NaN, 5, 0.1], 3)).toEqual([4, 1, 2]);
    expect(furthest([0, 0], 3)).toEqual([]);
  });

  it("keeps what was used last", () => {
    const kept = new Recent<number>(2);
    kept.set("a", 1);
    kept.set("b", 2);
    kept.get("a");
    kept.set("c", 3);
    expect([kept.get("a"), kept.get("b"), kept.get("c"), kept.size]).toEqual([1, undefined, 3, 2]);
  });

  it("a scale without the first token ends at the largest of the rest", () => {
    const thumbs = { peaks: Float32Array.of(1, 0.25, 0.5, 0.5), scale: SCALE } as never;
    expect(highest(thumbs, null, false)).toBe(1);
    expect(highest(thumbs, null, true)).toBe(0.5);
    expect([highest(thumbs, 0, true), highest(thumbs, 1, false)]).toEqual([0.25, 0.5]);
    expect(ending({ kind: "diverging", low: -1, high: 1 }, 0.5)).toEqual({
      kind: "diverging",
      low: -0.5,
      high: 0.5,
    });
    expect([...withoutFirst(Uint8Array.of(9, 8, 7, 6), 2)]).toEqual([0, 8, 0, 6]);
  });
});
