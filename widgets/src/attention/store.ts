// The data of the view: what came along, what was asked for since, and the most recent of what is large.
import { square } from "../core/arrays";
import { MASKED, type Scale } from "../core/codes";
import type { Stage } from "../core/stage";
import { type AttentionFacts, type MapName, type ThumbsFacts, keyOf } from "./facts";
import { Recent } from "./recent";

export interface Thumbs extends ThumbsFacts {
  /** [head side side] */
  codes: Uint8Array;
  /** [head side]: the leftmost column without the first token. */
  first: Uint8Array;
  /** [head 2]: the value furthest from zero, with and without the first token. */
  peaks: Float32Array;
}

/** One head, cell by cell; of very many tokens, block by block. */
export interface Head {
  codes: Uint8Array;
  side: number;
  block: number;
}

const HEADS = 16;
const PARTS = 64;
const ROWS = 2 ** 14; // numbers in one answer of exact rows, as in pattern_maps.py

const floats = (bytes: Uint8Array): Float32Array =>
  new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);

export class Store {
  private readonly thumbnails = new Map<string, Thumbs>();
  private readonly heads = new Recent<Head>(HEADS);
  private readonly parts = new Recent<Float32Array>(PARTS);
  private readonly lacking = new Set<string>();
  private readonly asked = new Map<string, Promise<unknown>>();

  constructor(private readonly stage: Stage<AttentionFacts>) {}

  /** Take what came along, and forget all else. */
  open(): void {
    const { map, thumbs, opened } = this.stage.facts();
    const { thumbs: codes, first, peaks, head } = this.stage.arrays();
    for (const one of [this.thumbnails, this.heads, this.parts, this.lacking, this.asked]) one.clear();
    this.thumbnails.set(keyOf(map), {
      ...thumbs,
      codes: codes!.data as Uint8Array,
      first: first!.data as Uint8Array,
      peaks: peaks!.data as Float32Array,
    });
    this.heads.set(`${keyOf(map)} ${opened.at}`, this.whole(map, head!.data as Uint8Array, opened));
  }

  tokens(map: MapName): string[] {
    return this.stage.facts().prompts[map.prompt]!.pieces;
  }

  thumbsNow(map: MapName): Thumbs | undefined {
    return this.thumbnails.get(keyOf(map));
  }

  thumbs(map: MapName): Promise<Thumbs> {
    const found = this.thumbsNow(map);
    if (found) return Promise.resolve(found);
    return this.once(`thumbs ${keyOf(map)}`, async () => {
      const { reply, buffers } = await this.stage.ask<ThumbsFacts>("thumbs", { ...map });
      const [codes, first, peaks] = buffers as [Uint8Array, Uint8Array, Uint8Array];
      const thumbs = { ...reply, codes, first, peaks: floats(peaks) };
      this.thumbnails.set(keyOf(map), thumbs);
      return thumbs;
    });
  }

  /** A head as far as it is here: whole small pictures are heads themselves. */
  headNow(map: MapName, head: number): Head | undefined {
    const thumbs = this.thumbsNow(map);
    if (thumbs?.block === 1) {
      const size = thumbs.side ** 2;
      return { codes: thumbs.codes.subarray(head * size, (head + 1) * size), side: thumbs.side, block: 1 };
    }
    return this.heads.get(`${keyOf(map)} ${head}`);
  }

  head(map: MapName, head: number): Promise<Head> {
    const found = this.headNow(map, head);
    if (found) return Promise.resolve(found);
    return this.once(`head ${keyOf(map)} ${head}`, async () => {
      const { reply, buffers } = await this.stage.ask<{ block: number; causal: boolean }>("head", {
        ...map,
        head,
      });
      const whole = this.whole(map, buffers[0]!, reply);
      this.heads.set(`${keyOf(map)} ${head}`, whole);
      return whole;
    });
  }

  /** The exact numbers of a row, if they are here. */
  rowNow(map: MapName, head: number, row: number): Float32Array | undefined {
    const n = this.tokens(map).length;
    const rows = Math.max(1, Math.min(n, Math.floor(ROWS / n)));
    const part = this.parts.get(`${keyOf(map)} ${head} ${Math.floor(row / rows)}`);
    const at = (row % rows) * n;
    return part?.subarray(at, at + n);
  }

  /** Fetch the exact numbers around a row; false where nobody has them. */
  async row(map: MapName, head: number, row: number): Promise<boolean> {
    const n = this.tokens(map).length;
    const part = Math.floor(row / Math.max(1, Math.min(n, Math.floor(ROWS / n))));
    return this.fetched(`${keyOf(map)} ${head} ${part}`, "rows", { ...map, head, part });
  }

  columnNow(map: MapName, head: number, key: number): Float32Array | undefined {
    const n = this.tokens(map).length;
    const whole = n * n <= ROWS ? this.parts.get(`${keyOf(map)} ${head} 0`) : undefined;
    if (whole) return whole.filter((_, at) => at % n === key);
    return this.parts.get(`${keyOf(map)} ${head} column ${key}`);
  }

  /** Fetch how much every token looks at one; false where nobody has it. */
  async column(map: MapName, head: number, key: number): Promise<boolean> {
    if (this.tokens(map).length ** 2 <= ROWS) return this.row(map, head, 0);
    return this.fetched(`${keyOf(map)} ${head} column ${key}`, "column", { ...map, head, key });
  }

  private async fetched(name: string, ask: string, given: Record<string, unknown>): Promise<boolean> {
    if (this.parts.get(name)) return true;
    if (this.lacking.has(name)) return false;
    try {
      await this.once(name, async () => {
        const { buffers } = await this.stage.ask(ask, given);
        this.parts.set(name, floats(buffers[0]!));
      });
      return true;
    } catch {
      this.lacking.add(name); // a page without a kernel has colours only; it is not asked again
      return false;
    }
  }

  private whole(map: MapName, codes: Uint8Array, facts: { block: number; causal: boolean }): Head {
    const side = Math.ceil(this.tokens(map).length / facts.block);
    return { codes: facts.causal ? square(codes, side) : codes, side, block: facts.block };
  }

  /** One question at a time for the same thing. */
  private once<T>(name: string, ask: () => Promise<T>): Promise<T> {
    const under = this.asked.get(name) as Promise<T> | undefined;
    if (under) return under;
    const now = ask().finally(() => this.asked.delete(name));
    this.asked.set(name, now);
    return now;
  }
}

/** The largest number of the colours: of all heads or of one, with the first token or without it. */
export function highest(thumbs: Thumbs, head: number | null, without: boolean): number {
  const { peaks, scale } = thumbs;
  if (head === null && !without) return scale.high;
  if (head !== null) return peaks[2 * head + Number(without)] || scale.high;
  let most = 0;
  for (let at = 1; at < peaks.length; at += 2) most = Math.max(most, peaks[at]!);
  return most || scale.high;
}

/** A scale that ends at another number. */
export function ending(scale: Scale, high: number): Scale {
  return { ...scale, high, low: scale.kind === "diverging" ? -high : scale.low };
}

/** Codes without the first token: its column is masked. */
export function withoutFirst(codes: Uint8Array, side: number): Uint8Array {
  const found = codes.slice();
  for (let row = 0; row < found.length; row += side) found[row] = MASKED;
  return found;
}
