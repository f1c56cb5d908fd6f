// More cells than pixels: each pixel shows the strongest of its cells, so that no spike is lost.
import type { Window } from "./window";

/** How much a code asks to be seen: by its distance from `middle`, the code of zero; odd codes before all others. */
export function weights(middle: number): Int16Array {
  return Int16Array.from({ length: 256 }, (_, code) =>
    code === 0 ? -1 : code < 4 ? 300 - code : Math.abs(code - middle),
  );
}

/** Where each of `pixels` begins and ends among cells; each has one cell at least. */
function edges(from: number, count: number, pixels: number, most: number): Int32Array {
  const found = new Int32Array(2 * pixels);
  for (let i = 0; i < pixels; i++) {
    const start = Math.min(most - 1, Math.max(0, Math.floor(from + (i / pixels) * count)));
    found[2 * i] = start;
    found[2 * i + 1] = Math.min(most, Math.max(start + 1, Math.floor(from + ((i + 1) / pixels) * count)));
  }
  return found;
}

/**
 * Codes of a window in `width` × `height` pixels. The strongest lies furthest from `middle`, the code of zero; odd codes
 * (not a number, infinite) win over all others.
 */
export function pooled(
  codes: Uint8Array,
  across: number,
  window: Window,
  width: number,
  height: number,
  middle: number,
): { codes: Uint8Array; width: number; height: number } {
  const weight = weights(middle);
  const found = new Uint8Array(width * height);
  const columns = edges(window.left, window.columns, width, across);
  const rows = edges(window.top, window.rows, height, codes.length / across);
  for (let y = 0; y < height; y++) {
    const [top, low] = [rows[2 * y]!, rows[2 * y + 1]!];
    if (y && top === rows[2 * y - 2] && low === rows[2 * y - 1]) {
      found.copyWithin(y * width, (y - 1) * width, y * width);
      continue;
    }
    for (let x = 0; x < width; x++) {
      const right = columns[2 * x + 1]!;
      let best = 0;
      let most = -1;
      for (let row = top; row < low; row++)
        for (let at = row * across + columns[2 * x]!, end = row * across + right; at < end; at++) {
          const now = weight[codes[at]!]!;
          if (now > most) [most, best] = [now, codes[at]!];
        }
      found[y * width + x] = best;
    }
  }
  return { codes: found, width, height };
}

/** The strongest cell of a block, which is the one that a pixel shows. */
export function strongest(
  codes: Uint8Array,
  across: number,
  block: { top: number; left: number; bottom: number; right: number },
  middle: number,
): { row: number; column: number } {
  const weight = weights(middle);
  let [best, most] = [{ row: block.top, column: block.left }, -2];
  for (let row = block.top; row < block.bottom; row++)
    for (let column = block.left; column < block.right; column++) {
      const now = weight[codes[row * across + column]!]!;
      if (now > most) [most, best] = [now, { row, column }];
    }
  return best;
}

/** The codes of some rows and columns. */
export function cut(
  codes: Uint8Array,
  across: number,
  top: number,
  left: number,
  rows: number,
  columns: number,
): Uint8Array {
  const found = new Uint8Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const start = (top + row) * across + left;
    found.set(codes.subarray(start, start + columns), row * columns);
  }
  return found;
}
