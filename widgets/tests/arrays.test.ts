import { describe, expect, it } from "vitest";
import { arrays, bytes, count, half, numbers, square } from "../src/core/arrays";
import { packed } from "./fake";

describe("arrays", () => {
  it("of every kind come out of a block that starts at an odd place", () => {
    const f16 = new Uint16Array([0x3e00, 0xb400, 0x7e00, 0x7c00, 0xfc00, 0x0001, 0x8000]);
    const { blob, table } = packed({
      a: { data: new Uint8Array([1, 255]), shape: [1, 2] },
      b: { data: new Uint16Array([1, 65535, 7]), shape: [3] },
      c: { data: new Int32Array([-5]), shape: [1] },
      d: { data: f16, shape: [7], kind: "f16" },
      e: { data: new Float32Array([1.25, Number.POSITIVE_INFINITY, Number.NaN]), shape: [3, 1] },
      f: { data: new Float32Array(0), shape: [0, 3] },
      g: { data: new Float32Array([2.5]), shape: [] },
    });
    const found = arrays(blob, table);
    expect([...found.a!.data]).toEqual([1, 255]);
    expect([...found.b!.data]).toEqual([1, 65535, 7]);
    expect([...found.c!.data]).toEqual([-5]);
    const { POSITIVE_INFINITY: most, NEGATIVE_INFINITY: least, NaN: none } = Number;
    expect([...found.d!.data]).toEqual([1.5, -0.25, none, most, least, 2 ** -24, -0]);
    expect([...found.e!.data]).toEqual([1.25, most, none]);
    expect([found.e!.shape, found.f!.data.length, [...found.g!.data]]).toEqual([[3, 1], 0, [2.5]]);
  });

  it("are refused when they are cut short or of an unknown kind", () => {
    expect(() => numbers(new Uint8Array(7), "f32", 0, 2)).toThrow("shorter");
    expect(() => numbers(new Uint8Array(8), "f64", 0, 1)).toThrow("f64");
    expect(() => arrays(new DataView(new ArrayBuffer(4)), { a: { kind: "u8", shape: [5], at: 0 } })).toThrow(
      "shorter",
    );
  });

  it("are copies, so that the host may use its buffer again", () => {
    const given = new Uint8Array([1, 2, 3]);
    const copy = bytes(new DataView(given.buffer, 1));
    given[1] = 9;
    expect([...copy]).toEqual([2, 3]);
    expect(bytes(null).length + bytes("x").length).toBe(0);
    expect([...bytes(given.buffer)]).toEqual([1, 9, 3]);
  });

  it("count one entry when they have no axis", () => {
    expect([count([]), count([2, 3]), count([4, 0])]).toEqual([1, 6, 0]);
  });
});

describe("half numbers", () => {
  it.each([
    [0x3c00, 1],
    [0xc000, -2],
    [0x7bff, 65504],
    [0x0400, 2 ** -14],
    [0x03ff, 2 ** -24 * 1023],
    [0x3555, 0.333251953125],
  ])("%d is %d", (bits, number) => expect(half(bits)).toBe(number));
});

describe("a triangle", () => {
  it("fills the lower half of a square and leaves the rest masked", () => {
    expect([...square(new Uint8Array([1, 2, 3, 4, 5, 6]), 3)]).toEqual([1, 0, 0, 2, 3, 0, 4, 5, 6]);
    expect([...square(new Uint8Array([7]), 1)]).toEqual([7]);
  });
});
