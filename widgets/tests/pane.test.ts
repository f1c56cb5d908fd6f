import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { codes, ink } from "../src/core/codes";
import { placed, planned } from "../src/core/names";
import { type Cell, Pane, type Sheet } from "../src/core/pane";
import { beside } from "../src/core/tip";
import { type Drawn, fakeCanvas } from "./fake";

const axis = (name: string, count: number, label = (i: number) => String(i)) => ({
  name,
  keys: Array.from({ length: count }, (_, i) => i),
  labels: Array.from({ length: count }, (_, i) => label(i)),
});
const SCALE = { kind: "diverging", low: -1, high: 1 } as const;

let drawn: Drawn;
let end: AbortController;
let hovered: (Cell | null)[];
let chosen: (Cell | null)[];

beforeEach(() => {
  drawn = fakeCanvas();
  end = new AbortController();
  [hovered, chosen] = [[], []];
  vi.stubGlobal("requestAnimationFrame", (then: () => void) => {
    then();
    return 0;
  });
});
afterEach(() => end.abort());

function sheet(rows: number, columns: number, values?: number[], more: Partial<Sheet> = {}): Sheet {
  const numbers = values ?? Array.from({ length: rows * columns }, (_, i) => Math.sin(i));
  return {
    rows: axis("layer", rows),
    columns: axis("head", columns),
    codes: codes(numbers, SCALE),
    colours: new Uint8Array(1024).fill(255),
    middle: 130,
    ...more,
  };
}

function pane(given: Sheet): Pane {
  const made = new Pane(
    {
      label: "a map",
      describe: ({ row, column }) => `${row},${column}`,
      hovered: (cell) => hovered.push(cell),
      chosen: (cell) => chosen.push(cell),
    },
    end.signal,
  );
  document.body.replaceChildren(made.element);
  made.show(given);
  const { width, height } = size(made);
  made.canvas.getBoundingClientRect = () => new DOMRect(100, 50, width, height);
  return made;
}

const size = ({ element }: Pane) => ({
  width: Number.parseFloat(element.style.getPropertyValue("--hl-width")),
  height: Number.parseFloat(element.style.getPropertyValue("--hl-height")),
});
const press = (made: Pane, ...keys: string[]) => {
  for (const key of keys) made.element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
};
const tip = (made: Pane) => made.element.querySelector<HTMLElement>(".hl-tip")!;

describe("a pane", () => {
  it("is one stop of the tab key, with a name and its keys", () => {
    const made = pane(sheet(3, 4));
    expect(made.element.tabIndex).toBe(0);
    expect(made.element.getAttribute("aria-label")).toBe("a map");
    expect([...made.element.querySelectorAll("button")].every((one) => one.tabIndex === -1)).toBe(true);
  });

  it("starts at the first cell and moves by arrows, to the ends, and not beyond", () => {
    const made = pane(sheet(30, 40));
    press(made, "ArrowRight");
    expect(hovered.at(-1)).toEqual({ row: 0, column: 0 });
    press(made, "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowLeft");
    expect(hovered.at(-1)).toEqual({ row: 1, column: 0 });
    press(made, "End", "PageDown");
    expect(hovered.at(-1)).toEqual({ row: 11, column: 39 });
    press(made, "PageDown", "PageDown", "PageDown", "Home");
    expect(hovered.at(-1)).toEqual({ row: 29, column: 0 });
  });

  it("chooses with Enter and with Space, and clears with Escape", () => {
    const made = pane(sheet(3, 4));
    press(made, "Enter");
    expect(chosen).toEqual([]);
    press(made, "ArrowDown", "ArrowDown", "Enter", " ", "Escape");
    expect(chosen).toEqual([{ row: 1, column: 0 }, { row: 1, column: 0 }, null]);
  });

  it("starts from the chosen cell", () => {
    const made = pane(sheet(3, 4));
    made.choose({ row: 2, column: 1 });
    press(made, "ArrowRight");
    expect(hovered.at(-1)).toEqual({ row: 2, column: 2 });
  });

  it("leaves keys with Ctrl to the notebook", () => {
    const made = pane(sheet(3, 4));
    made.element.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", ctrlKey: true }));
    expect(hovered).toEqual([]);
  });

  it("finds the cell under a place on the page, and the place of a cell", () => {
    const made = pane(sheet(3, 4));
    for (const cell of [
      { row: 0, column: 0 },
      { row: 2, column: 3 },
      { row: 1, column: 2 },
    ]) {
      const { x, y } = made.middle(cell);
      expect(made.at(100 + x, 50 + y)).toEqual(cell);
    }
    expect(made.at(99, 60)).toBeNull();
    expect(made.at(100 + size(made).width, 60)).toBeNull();
  });

  it("comes nearer with plus, goes farther with minus, and shows the whole with 0", () => {
    const made = pane(sheet(30, 40));
    press(made, "ArrowDown", "+", "+", "+");
    const near = made.middle({ row: 1, column: 1 }).x - made.middle({ row: 1, column: 0 }).x;
    press(made, "-");
    const middle = made.middle({ row: 1, column: 1 }).x - made.middle({ row: 1, column: 0 }).x;
    press(made, "0");
    const far = made.middle({ row: 1, column: 1 }).x - made.middle({ row: 1, column: 0 }).x;
    expect(near).toBeGreaterThan(middle);
    expect(middle).toBeGreaterThan(far);
    expect(far).toBeCloseTo(size(made).width / 40);
  });

  it("moves what is looked at along with the cursor", () => {
    const made = pane(sheet(30, 40));
    press(made, "ArrowDown", "+", "+", "+", "+", "+", "+", "End");
    const { x } = made.middle({ row: 0, column: 39 });
    expect(x).toBeGreaterThan(0);
    expect(x).toBeLessThan(size(made).width);
  });

  it("says that cells are smaller than pixels, and shows the strongest of each pixel", () => {
    const values = new Array(5 * 4000).fill(0);
    values[2 * 4000 + 1777] = -1;
    const made = pane(sheet(5, 4000, values));
    expect(made.element.querySelector(".hl-zooms")!.textContent).toContain("the strongest of up to");
    const { x, y } = made.middle({ row: 2, column: 1777 });
    expect(made.at(100 + Math.floor(x) + 0.5, 50 + y)).toEqual({ row: 2, column: 1777 });
    expect(drawn.some(([name]) => name === "drawImage")).toBe(false);
  });

  it("writes numbers where there is room, and what is no number as a sign", () => {
    pane(
      sheet(2, 2, [0.5, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY], {
        text: () => "0.5",
      }),
    );
    expect(drawn.filter(([name]) => name === "fillText").map(([, given]) => given[0])).toEqual([
      "0.5",
      "×",
      "+∞",
      "−∞",
    ]);
  });

  it("writes nothing into cells that are masked", () => {
    pane(sheet(1, 2, [0.5, 0.5], { codes: Uint8Array.of(0, 200), text: () => "0.5" }));
    expect(drawn.filter(([name]) => name === "fillText")).toHaveLength(1);
  });

  it("keeps the part that is looked at when other numbers of the same size come", () => {
    const made = pane(sheet(30, 40));
    press(made, "ArrowDown", "+", "+");
    const before = made.middle({ row: 5, column: 5 });
    made.show(sheet(30, 40));
    expect(made.middle({ row: 5, column: 5 })).toEqual(before);
    made.show(sheet(30, 41));
    expect(made.middle({ row: 0, column: 0 }).x).toBeCloseTo(size(made).width / 82);
    expect(tip(made).hidden).toBe(true);
  });

  it("shows text as text", () => {
    const hostile = "<img src=x onerror=boom()>";
    const made = pane(sheet(2, 2, undefined, { rows: axis("layer", 2, () => hostile) }));
    expect(made.element.querySelector("img")).toBeNull();
    expect(made.element.querySelector(".hl-rows bdi")!.textContent).toBe(hostile);
    expect(made.element.querySelector(".hl-rows bdi")!.getAttribute("title")).toBe(hostile);
  });

  it("puts lines of names over the columns, and marks where they differ", () => {
    const above = [
      { name: "clean", labels: ["a", "b"], odd: [false, true] },
      { name: "corrupt", labels: ["a", "c"], odd: [false, true] },
    ];
    const made = pane(sheet(2, 2, undefined, { above }));
    const lines = [...made.element.querySelectorAll(".hl-columns")];
    expect(lines.map((line) => line.textContent)).toEqual(["ab", "ac"]);
    expect([...made.element.querySelectorAll(".hl-odd")].map((one) => one.textContent)).toEqual(["b", "c"]);
    expect(made.element.querySelector(".hl-corner")!.textContent).toContain("corrupt");
  });

  it("is quiet once it is gone", () => {
    const made = pane(sheet(3, 4));
    end.abort();
    press(made, "ArrowDown", "Enter");
    expect([...hovered, ...chosen]).toEqual([]);
  });
});

describe("names along a map", () => {
  it("are thinned, so that four thousand of them keep their distance", () => {
    const made = pane(sheet(2, 4096, undefined, { columns: axis("pos", 4096, (i) => `token${i}`) }));
    const at = [...made.element.querySelectorAll<HTMLElement>(".hl-columns bdi")].map((one) =>
      Number.parseFloat(one.style.left),
    );
    expect(at.length).toBeGreaterThan(5);
    // The outermost ones are moved inwards, so as not to stand out.
    expect(Math.min(...at.slice(2).map((x, i) => x - at[i + 1]!))).toBeGreaterThanOrEqual(15);
  });

  it("lie where there is room, stand where there is not, and lie thinned where they are only numbers", () => {
    expect(planned(axis("head", 12), [axis("head", 12).labels], 12, 600)).toMatchObject({
      upright: false,
      step: 1,
    });
    const words = axis("pos", 40, (i) => `word${i}`);
    expect(planned(words, [words.labels], 40, 600)).toMatchObject({ upright: true, step: 1 });
    const neurons = axis("neuron", 3072);
    const plan = planned(neurons, [neurons.labels], 3072, 600);
    expect(plan.upright).toBe(false);
    expect((600 / 3072) * plan.step).toBeGreaterThan(4 * 6);
  });
});

describe("a tip", () => {
  const room = { left: -60, top: -20, width: 500, height: 200 };

  it("never covers its cell and never leaves its pane, wherever the cell is", () => {
    for (let x = 0; x <= 410; x += 10)
      for (let y = 0; y <= 150; y += 10) {
        const cell = { left: x, top: y, width: 30, height: 30 };
        const { left, top } = beside(cell, { width: 160, height: 50 }, room);
        expect(left >= -60 && left + 160 <= 440 && top >= -20 && top + 50 <= 180).toBe(true);
        const apart = left >= x + 30 || left + 160 <= x || top >= y + 30 || top + 50 <= y;
        expect(apart).toBe(true);
      }
  });

  it("stands beside its cell where the pane is flat", () => {
    const flat = { left: -60, top: -20, width: 500, height: 60 };
    const { left, top } = beside(
      { left: 0, top: 0, width: 70, height: 30 },
      { width: 160, height: 40 },
      flat,
    );
    expect(left).toBeGreaterThanOrEqual(70);
    expect(top).toBeGreaterThanOrEqual(-20);
  });
});

describe("names along a side", () => {
  it("leave out the one that stands where the first was moved to", () => {
    const labels = Array.from({ length: 80 }, (_, i) => `t${i}`);
    const found = placed(labels, 0, 80, 240, 5, "top"); // 15 px apart, the first moved from 1.5 to 7
    expect(found.slice(0, 3).map((one) => one.textContent)).toEqual(["t0", "t10", "t15"]);
    expect(found[0]!.style.top).toBe("7px");
    expect(placed(labels, 0, 80, 320, 5, "top")[1]!.textContent).toBe("t5"); // 20 px apart: room for all
  });
});

describe("ink", () => {
  it("is black on light cells and white on dark ones, whatever the theme", () => {
    const colours = Uint8Array.of(5, 48, 97, 255, 247, 247, 247, 255);
    expect([ink(colours, 0), ink(colours, 1)]).toEqual(["#fff", "#000"]);
  });
});
