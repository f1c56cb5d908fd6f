import { describe, expect, it } from "vitest";
import { dragged, moved, same, whole, zoomed } from "../src/core/window";

describe("the part that is looked at", () => {
  it("keeps the cell under the pointer where it is when it comes nearer", () => {
    const from = whole(100, 200);
    const cell = { row: 30, column: 150 };
    const to = zoomed(from, 0.5, cell, 100, 200);
    expect([to.rows, to.columns]).toEqual([50, 100]);
    const share = (w: typeof from) => [(30.5 - w.top) / w.rows, (150.5 - w.left) / w.columns];
    expect(share(to)[0]).toBeCloseTo(share(from)[0]!);
    expect(share(to)[1]).toBeCloseTo(share(from)[1]!);
  });

  it("never leaves the map and never shows fewer than four cells, or all there are", () => {
    let window = whole(100, 3);
    for (let i = 0; i < 40; i++) window = zoomed(window, 0.7, { row: 99, column: 2 }, 100, 3);
    expect(window).toMatchObject({ left: 0, rows: 4, columns: 3 });
    expect(window.top + 4 > 99 && window.top + 4 <= 100).toBe(true);
    for (let i = 0; i < 40; i++) window = zoomed(window, 1.4, { row: 99, column: 2 }, 100, 3);
    expect(same(window, whole(100, 3))).toBe(true);
  });

  it("moves just so far that a cell is in sight", () => {
    const window = { top: 10, left: 10, rows: 5, columns: 5 };
    expect(moved(window, { row: 12, column: 12 }, 100, 100)).toEqual(window);
    expect(moved(window, { row: 15, column: 9 }, 100, 100)).toEqual({ ...window, top: 11, left: 9 });
    expect(moved(window, { row: 99, column: 0 }, 100, 100)).toEqual({ ...window, top: 95, left: 0 });
  });

  it("is dragged as far as there are cells", () => {
    const window = { top: 10, left: 10, rows: 5, columns: 5 };
    expect(dragged(window, 3, -2, 100, 100)).toEqual({ ...window, top: 7, left: 12 });
    expect(dragged(window, 30, -200, 100, 100)).toEqual({ ...window, top: 0, left: 95 });
  });
});
