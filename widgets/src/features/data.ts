// What the kernel says about features: the list at open, one feature when it is asked for.
import { type NumberArray, arrays } from "../core/arrays";
import type { Reply } from "../core/ask";
import type { Facts } from "../core/model";

export interface FeatureFacts extends Facts {
  word: string;
  name: string;
  note: string;
  texts: number;
  window: number;
  /** Kinds of logits -> what they are. */
  logits: Record<string, string>;
  /** The feature to open with; its arrays lie in the array `first`. */
  first?: Told;
}

export interface Context {
  text: number;
  pos: number;
  start: number;
  pieces: string[];
  values: ArrayLike<number>;
}

export interface Range {
  low: number;
  high: number;
  contexts: Context[];
}

export type Moved = [token: string, by: number][];

export interface Feature {
  key: number;
  zero: number;
  density: number;
  odd: number;
  low: number;
  high: number;
  norm: number;
  contexts: Context[];
  ranges: Range[];
  logits: Record<string, { up: Moved; down: Moved }>;
  counts: ArrayLike<number>;
  edges: ArrayLike<number>;
  /** The strongest activation of any window, which is the strongest colour of all of them. */
  most: number;
}

export type Told = Omit<Feature, "counts" | "edges" | "most"> & { arrays: Facts["arrays"] };

/** An answer put together: every context gets its part of the activations. */
export function feature({ reply, buffers }: Reply<Told>): Feature {
  const { values, counts, edges } = arrays(buffers[0], reply.arrays) as Record<string, NumberArray>;
  let at = 0;
  let most = 0;
  const filled = (contexts: Context[]): Context[] =>
    contexts.map((one) => {
      const part = values!.data.subarray(at, at + one.pieces.length);
      at += one.pieces.length;
      for (const value of part) if (Number.isFinite(value)) most = Math.max(most, Math.abs(value));
      return { ...one, values: part };
    });
  const contexts = filled(reply.contexts);
  const ranges = reply.ranges.map((range) => ({ ...range, contexts: filled(range.contexts) }));
  return { ...reply, contexts, ranges, counts: counts!.data, edges: edges!.data, most };
}

export const ORDERS = ["maximum", "density", "norm", "number"] as const;
export type Order = (typeof ORDERS)[number];

/** Which features are listed, as indices: those whose number begins as what was typed, in an order. */
export function listed(
  keys: number[],
  columns: Record<string, ArrayLike<number>>,
  order: Order,
  typed: string,
): number[] {
  const wanted = typed.trim();
  const found = [...keys.keys()].filter((i) => String(keys[i]).startsWith(wanted));
  const exact = (i: number) => Number(String(keys[i]) === wanted);
  const by = (i: number): number => {
    const value = order === "number" ? -keys[i]! : columns[order]![i]!;
    return Number.isNaN(value) ? Number.NEGATIVE_INFINITY : value;
  };
  return found.sort((a, b) => exact(b) - exact(a) || by(b) - by(a) || a - b);
}
