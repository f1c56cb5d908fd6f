// Small pictures of all heads into one image, and colours on another scale.
import { type Scale, code, value } from "../core/codes";
import { weights } from "../core/pool";

const GROUND = 0x1e808080; // what is masked in a small picture: a faint grey, so that its square can be seen

/** Colours [256 rgba] for codes that were made on one scale and are shown on another. */
export function recoloured(colours: Uint8Array, made: Scale, shown: Scale): Uint8Array {
  if (made.high === shown.high && made.low === shown.low) return colours;
  const found = colours.slice();
  for (let at = 4; at < 256; at++) {
    const to = code(value(at, made), shown);
    found.set(colours.subarray(4 * to, 4 * to + 4), 4 * at);
  }
  return found;
}

/** The look-up table of small pictures: that of the large one, on a ground. */
export function grounded(table: Uint32Array): Uint32Array {
  const found = table.slice();
  found[0] = GROUND;
  return found;
}

/**
 * Paint one small picture [side side] into `pixels` of an image `across` wide, `size` pixels large at (left, top); where
 * it has fewer pixels than cells, each is the strongest of its cells.
 */
export function stamp(
  pixels: Uint32Array,
  across: number,
  place: { left: number; top: number; size: number },
  codes: Uint8Array,
  side: number,
  first: Uint8Array | null,
  table: Uint32Array,
  weight: Int16Array,
): void {
  const { left, top, size } = place;
  const edge = (i: number) => Math.floor((i * side) / size);
  for (let y = 0; y < size; y++) {
    const row = edge(y);
    const low = Math.max(row + 1, edge(y + 1));
    for (let x = 0; x < size; x++) {
      const column = edge(x);
      const right = Math.max(column + 1, edge(x + 1));
      let best = 0;
      let most = -2;
      for (let r = row; r < low; r++)
        for (let c = column; c < right; c++) {
          const now = c === 0 && first ? first[r]! : codes[r * side + c]!;
          const weighs = weight[now]!;
          if (weighs > most) [most, best] = [weighs, now];
        }
      pixels[(top + y) * across + left + x] = table[best]!;
    }
  }
}

export { weights };
