// Arrays out of the block of bytes that the kernel sent; see hooklab/views/wire.py for its layout.
export type Numbers = Uint8Array | Uint16Array | Int32Array | Float32Array;

export interface NumberArray<T extends Numbers = Numbers> {
  data: T;
  shape: number[];
}

type Entry = { kind: string; shape: number[]; at: number };

const SIZES: Record<string, number> = { u8: 1, u16: 2, i32: 4, f16: 2, f32: 4 };

export const count = (shape: number[]): number => shape.reduce((a, b) => a * b, 1);

/** Bytes as the host gives them (a DataView, a buffer, an array) as one copy that starts at 0, as typed arrays need. */
export function bytes(given: unknown): Uint8Array {
  if (given instanceof ArrayBuffer) return new Uint8Array(given);
  if (ArrayBuffer.isView(given))
    return new Uint8Array(given.buffer, given.byteOffset, given.byteLength).slice();
  return new Uint8Array(0);
}

/** One typed array out of a block. */
export function numbers(block: Uint8Array, kind: string, at: number, length: number): Numbers {
  const size = SIZES[kind];
  if (!size) throw new Error(`numbers of kind ${kind} cannot be read`);
  if (at + size * length > block.byteLength) throw new Error("the data are shorter than they should be");
  const part = block.slice(at, at + size * length).buffer;
  if (kind === "u8") return new Uint8Array(part);
  if (kind === "u16") return new Uint16Array(part);
  if (kind === "i32") return new Int32Array(part);
  if (kind === "f32") return new Float32Array(part);
  return Float32Array.from(new Uint16Array(part), half);
}

/** All arrays of a block by name. */
export function arrays(given: unknown, table: Record<string, Entry>): Record<string, NumberArray> {
  const block = bytes(given);
  return Object.fromEntries(
    Object.entries(table).map(([name, { kind, shape, at }]) => [
      name,
      { data: numbers(block, kind, at, count(shape)), shape },
    ]),
  );
}

/** The number behind 16 bits; written out because not every browser has Float16Array. */
export function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const rest = bits & 1023;
  if (exponent === 0) return sign * 2 ** -24 * rest;
  if (exponent === 31) return rest ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * 2 ** (exponent - 15) * (1 + rest / 1024);
}

/** A lower triangle, row by row, as a square; what lies above is masked (0). */
export function square(triangle: Uint8Array, n: number): Uint8Array {
  const found = new Uint8Array(n * n);
  for (let row = 0, at = 0; row < n; at += ++row) found.set(triangle.subarray(at, at + row + 1), row * n);
  return found;
}
