import { describe, expect, it } from "vitest";
import { every, number } from "../src/core/format";

describe("a number", () => {
  it.each([
    [0, "0"],
    [-0, "0"],
    [1, "1"],
    [-42, "−42"],
    [999999, "999999"],
    [1e6, "1.00e6"],
    [0.5, "0.500"],
    [0.123456, "0.123"],
    [-0.00012345, "−0.000123"],
    [0.00001234, "1.23e−5"],
    [123456.7, "123457"],
    [99999.6, "99999.6"],
    [1234567.8, "1.23e6"],
    [Number.NaN, "nan"],
    [Number.POSITIVE_INFINITY, "∞"],
    [Number.NEGATIVE_INFINITY, "−∞"],
    [5e-324, "4.94e−324"],
  ])("%d is written %s", (given, text) => expect(number(given)).toBe(text));

  it("has as many digits as asked for", () => {
    expect([number(0.128535, 6), number(2 / 3, 2), number(1e7, 2)]).toEqual(["0.128535", "0.67", "1.0e7"]);
  });
});

describe("labels", () => {
  it("are left out evenly until they have room", () => {
    expect([every(10, 200, 15), every(20, 200, 15), every(100, 200, 15), every(5000, 10, 15)]).toEqual([
      1, 2, 10, 5000,
    ]);
    expect(every(10, 0, 15)).toBe(10);
  });
});
