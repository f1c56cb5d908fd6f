import { describe, expect, it } from "vitest";
import { cut, pooled, strongest, weights } from "../src/core/pool";

const MIDDLE = 130;
const whole = (rows: number, columns: number) => ({ top: 0, left: 0, rows, columns });

/** The same, cell by cell, as slowly as can be. */
function slowly(
  codes: Uint8Array,
  across: number,
  window: ReturnType<typeof whole>,
  width: number,
  height: number,
) {
  const down = codes.length / across;
  const found: number[] = [];
  const rank = (code: number) => (code === 0 ? -1 : code < 4 ? 1000 - code : Math.abs(code - MIDDLE));
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      let best = 0;
      for (let row = 0; row < down; row++)
        for (let column = 0; column < across; column++) {
          const top = Math.floor(window.top + (y / height) * window.rows);
          const left = Math.floor(window.left + (x / width) * window.columns);
          const low = Math.max(top + 1, Math.floor(window.top + ((y + 1) / height) * window.rows));
          const right = Math.max(left + 1, Math.floor(window.left + ((x + 1) / width) * window.columns));
          const inside = row >= top && row < low && column >= left && column < right;
          const code = codes[row * across + column]!;
          if (inside && rank(code) > rank(best)) best = code;
        }
      found.push(best);
    }
  return found;
}

describe("pooling", () => {
  const random = (() => {
    let seed = 7;
    return () => {
      seed = (seed * 48271) % 2147483647;
      return seed / 2147483647;
    };
  })();
  const codes = Uint8Array.from({ length: 24 * 50 }, () => 100 + Math.floor(random() * 60));

  it("shows a lone spike wherever it is", () => {
    for (const at of [0, 49, 50, 617, 1199]) {
      const flat = new Uint8Array(24 * 50).fill(MIDDLE);
      flat[at] = 250;
      expect(
        [...pooled(flat, 50, whole(24, 50), 10, 6, MIDDLE).codes].filter((one) => one === 250),
      ).toHaveLength(1);
    }
  });

  it("agrees with counting cell by cell, also for a part of the map", () => {
    for (const window of [whole(24, 50), { top: 3.4, left: 7.9, rows: 15.2, columns: 31.7 }])
      for (const [width, height] of [
        [10, 6],
        [7, 24],
        [13, 40],
      ] as const)
        expect([...pooled(codes, 50, window, width, height, MIDDLE).codes]).toEqual(
          slowly(codes, 50, window, width, height),
        );
  });

  it("keeps what is far below zero as well as what is far above", () => {
    const [low, high] = [20, 200];
    expect(pooled(Uint8Array.of(MIDDLE, low, 140, high), 4, whole(1, 4), 2, 1, MIDDLE).codes).toEqual(
      Uint8Array.of(low, high),
    );
  });

  it("puts what is no number before all others, and masked cells last", () => {
    const weight = weights(MIDDLE);
    expect(weight[1]! > weight[2]! && weight[2]! > weight[3]! && weight[3]! > weight[255]!).toBe(true);
    expect(weight[0]! < weight[MIDDLE]!).toBe(true);
    expect(pooled(Uint8Array.of(0, 0, 0, MIDDLE), 4, whole(1, 4), 2, 1, MIDDLE).codes).toEqual(
      Uint8Array.of(0, MIDDLE),
    );
  });

  it("names the cell that a pixel shows", () => {
    const map = new Uint8Array(40).fill(MIDDLE);
    map[2 * 10 + 7] = 5;
    expect(strongest(map, 10, { top: 1, left: 5, bottom: 4, right: 9 }, MIDDLE)).toEqual({
      row: 2,
      column: 7,
    });
    expect(strongest(map, 10, { top: 0, left: 0, bottom: 1, right: 2 }, MIDDLE)).toEqual({
      row: 0,
      column: 0,
    });
  });

  it("cuts rows and columns out", () => {
    expect([
      ...cut(
        Uint8Array.from({ length: 12 }, (_, i) => i),
        4,
        1,
        2,
        2,
        2,
      ),
    ]).toEqual([6, 7, 10, 11]);
  });
});
