import { describe, expect, it } from "vitest";
import { type Scale, code, codes, css, even, image, ink, lookup, share, value } from "../src/core/codes";
import { fakeCanvas } from "./fake";

// kind, low, high, value -> code, counted by hand; tests/test_views_core.py has the same rows.
const CODES: [Scale["kind"], number, number, number, number][] = [
  ["linear", 0, 1, 0, 4],
  ["linear", 0, 1, 1, 255],
  ["linear", 0, 1, 0.5, 130],
  ["linear", 0, 251, 0.5, 4],
  ["linear", 0, 251, 1.5, 6],
  ["linear", 0, 251, 2.5, 6],
  ["linear", -1, 3, -9, 4],
  ["linear", -1, 3, 9, 255],
  ["linear", 0, 0, 0, 4],
  ["probability", 0, 1, 0.25, 130],
  ["probability", 0, 1, 1e-6, 4],
  ["probability", 0, 1, 4e-6, 5],
  ["diverging", -2, 2, 0, 130],
  ["diverging", -2, 2, 2, 255],
  ["diverging", -2, 2, -2, 5],
  ["diverging", -125, 125, 0.5, 130],
  ["diverging", -125, 125, 1.5, 132],
  ["diverging", -125, 125, -0.5, 130],
  ["diverging", -125, 125, -1.5, 128],
  ["diverging", 0, 0, 0.5, 192],
  ["linear", 0, 1, Number.NaN, 1],
  ["diverging", -1, 1, Number.POSITIVE_INFINITY, 2],
  ["probability", 0, 1, Number.NEGATIVE_INFINITY, 3],
];

describe("a code", () => {
  it.each(CODES)("on a %s scale from %d to %d, %d has the code %d", (kind, low, high, number, expected) => {
    expect(code(number, { kind, low, high })).toBe(expected);
    expect([...codes([number], { kind, low, high })]).toEqual([expected]);
  });

  it.each(["linear", "probability", "diverging"] as const)(
    "comes back from its value on a %s scale",
    (kind) => {
      const scale: Scale = { kind, low: kind === "probability" ? 0 : -3, high: 3 };
      for (let one = kind === "diverging" ? 5 : 4; one < 256; one++)
        expect(code(value(one, scale), scale)).toBe(one);
      expect(value(0, scale)).toBeNaN();
      expect(value(1, scale)).toBeNaN();
      expect([value(2, scale), value(3, scale)]).toEqual([
        Number.POSITIVE_INFINITY,
        Number.NEGATIVE_INFINITY,
      ]);
    },
  );

  it("goes to the even neighbour from the middle, as numpy's does", () => {
    expect([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5].map((x) => even(x) + 0)).toEqual([-2, -2, 0, 0, 2, 2]);
    expect([-0.7, -0.3, 0.3, 0.7].map((x) => even(x) + 0)).toEqual([-1, 0, 0, 1]);
  });

  it("has its place on the bar", () => {
    expect(share(0, { kind: "diverging", low: -2, high: 2 })).toBe(0.5);
    expect(share(0.25, { kind: "probability", low: 0, high: 1 })).toBeCloseTo(0.5, 2);
    expect(share(9, { kind: "linear", low: 0, high: 3 })).toBe(1);
  });
});

describe("colours", () => {
  const table = new Uint8Array(1024);
  table.set([10, 20, 30, 255], 4 * 7);
  table.set([250, 250, 250, 255], 4 * 8);

  it("become one number a code, red first in memory", () => {
    const bytes = new Uint8Array(lookup(table).buffer);
    expect([...bytes.subarray(28, 32)]).toEqual([10, 20, 30, 255]);
    expect(lookup(table)[7]).toBeGreaterThan(0);
  });

  it("can be written in a style sheet", () => {
    expect(css(table, 7)).toBe("rgb(10 20 30 / 1)");
    expect(css(table, 9)).toBe("rgb(0 0 0 / 0)");
  });

  it("carry ink that reads on them", () => {
    expect([ink(table, 7), ink(table, 8), ink(table, 9)]).toEqual(["#fff", "#000", "inherit"]);
  });

  it("paint one pixel a cell", () => {
    fakeCanvas();
    const found = image(new Uint8Array([7, 8, 9]), 3, 1, lookup(table));
    expect([...found.data]).toEqual([10, 20, 30, 255, 250, 250, 250, 255, 0, 0, 0, 0]);
  });
});
