// Codes and colours: one byte a cell, and what it stands for. The twin of hooklab/views/wire.py.
export const MASKED = 0;
export const NAN = 1;
export const PLUS = 2;
export const MINUS = 3;
const FIRST = 4;
const ZERO = 130;
const STEPS = 251;
const HALF = 125;

export interface Scale {
  kind: "probability" | "linear" | "diverging";
  low: number;
  high: number;
}

const clip = (x: number, low: number, high: number): number => (x < low ? low : x > high ? high : x);

/** Halves go to the even neighbour, as in numpy, so that both sides paint the same. */
export function even(x: number): number {
  const low = Math.floor(x);
  const rest = x - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

/** The code of a number. */
export function code(value: number, scale: Scale): number {
  if (Number.isNaN(value)) return NAN;
  if (value === Number.POSITIVE_INFINITY) return PLUS;
  if (value === Number.NEGATIVE_INFINITY) return MINUS;
  if (scale.kind === "diverging") return ZERO + even(HALF * clip(value / (scale.high || 1), -1, 1));
  const share = clip((value - scale.low) / (scale.high - scale.low || 1), 0, 1);
  return FIRST + even(STEPS * (scale.kind === "probability" ? Math.sqrt(share) : share));
}

/** Where a number lies on the scale's bar, 0 to 1. */
export function share(value: number, scale: Scale): number {
  const at = code(value, scale);
  return scale.kind === "diverging" ? (at - ZERO + HALF) / (2 * HALF) : (at - FIRST) / STEPS;
}

/** The number that a code stands for; nan where it is masked. */
export function value(at: number, scale: Scale): number {
  if (at <= NAN) return Number.NaN;
  if (at <= MINUS) return at === PLUS ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY;
  if (scale.kind === "diverging") return ((at - ZERO) / HALF) * scale.high;
  const found = (at - FIRST) / STEPS;
  return scale.low + (scale.kind === "probability" ? found * found : found) * (scale.high - scale.low);
}

/** Codes of many numbers. */
export function codes(values: ArrayLike<number>, scale: Scale): Uint8Array {
  const found = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) found[i] = code(values[i]!, scale);
  return found;
}

/** Colours [256 rgba] as one number a code, ready for a canvas. */
export function lookup(colours: Uint8Array): Uint32Array {
  const found = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const [r, g, b, a] = colours.subarray(4 * i, 4 * i + 4) as unknown as [number, number, number, number];
    found[i] = ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;
  }
  return found;
}

/** One colour of a table, for style sheets. */
export function css(colours: Uint8Array, at: number): string {
  return `rgb(${colours[4 * at]} ${colours[4 * at + 1]} ${colours[4 * at + 2]} / ${(colours[4 * at + 3] ?? 0) / 255})`;
}

/** Ink that reads on a colour: black on light, white on dark. */
export function ink(colours: Uint8Array, at: number): string {
  if (!colours[4 * at + 3]) return "inherit";
  const linear = (c: number) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = [0, 1, 2].map((i) => linear((colours[4 * at + i] ?? 0) / 255)) as [
    number,
    number,
    number,
  ];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

/** Codes as an image, one pixel a cell. */
export function image(codes: Uint8Array, width: number, height: number, colours: Uint32Array): ImageData {
  const found = new ImageData(width, height);
  const pixels = new Uint32Array(found.data.buffer);
  for (let i = 0; i < codes.length; i++) pixels[i] = colours[codes[i]!]!;
  return found;
}
