// From places and layers to pixels.
import type { Network } from "./data";

export interface Spot {
  x: number;
  y: number;
  width: number;
}

export interface Plan {
  width: number;
  height: number;
  spots: Spot[];
  /** Where layers and positions are named. */
  names: { x: number; y: number; text: string; side: "row" | "column" }[];
  upward: boolean;
}

export const HIGH = 22;
const LETTER = 6.6;
const GUTTER = 58;
const EDGE = 14;
const RIGHT = 40; // room for curves that swing out
const BELOW = 22;

const clip = (x: number, low: number, high: number): number => Math.max(low, Math.min(high, x));

/** Everything's place in a drawing of some width. */
export function plan(
  network: Network,
  rows: { y: number; label: string }[],
  tokens: string[],
  room: number,
  upward: boolean,
): Plan {
  const widths = network.nodes.map(({ label }) => Math.max(30, label.length * LETTER + 12));
  const widest = Math.max(...widths, 30);
  const places = Math.max(...Array.from(network.x), 0) + 1;
  const low = Math.min(...Array.from(network.y));
  const levels = Math.max(...Array.from(network.y)) - low;
  const columns = network.nodes.some(({ pos }) => pos !== null);
  const head = columns ? BELOW : 0;
  if (upward) {
    const across = clip((room - GUTTER - EDGE - RIGHT) / places, widest + 8, Math.max(96, widest + 24));
    const up = clip(520 / (levels || 1), 52, 92);
    const width = GUTTER + EDGE + RIGHT + places * across;
    const height = levels * up + HIGH + 2 * EDGE + head;
    const at = (x: number, y: number) => ({
      x: GUTTER + EDGE + (x + 0.5) * across,
      y: height - head - EDGE - HIGH / 2 - (y - low) * up,
    });
    return {
      width,
      height,
      upward,
      spots: network.nodes.map((_, i) => ({ ...at(network.x[i]!, network.y[i]!), width: widths[i]! })),
      names: [
        ...rows.map((row) => ({ x: 4, y: at(0, row.y).y, text: row.label, side: "row" as const })),
        ...heads(network, tokens).map(({ x, text }) => ({
          x: at(x, 0).x,
          y: height - 8,
          text,
          side: "column" as const,
        })),
      ],
    };
  }
  const across = clip((room - 2 * EDGE - widest) / (levels || 1), widest * 0.5 + 40, 150);
  const down = HIGH + 10;
  const left = columns ? 84 : EDGE;
  const width = left + levels * across + widest + 2 * EDGE;
  const height = places * down + RIGHT + EDGE + BELOW;
  const at = (x: number, y: number) => ({
    x: left + widest / 2 + EDGE / 2 + (y - low) * across,
    y: BELOW + EDGE + (x + 0.5) * down,
  });
  return {
    width,
    height,
    upward,
    spots: network.nodes.map((_, i) => ({ ...at(network.x[i]!, network.y[i]!), width: widths[i]! })),
    names: [
      ...rows.map((row) => ({ x: at(0, row.y).x, y: 14, text: row.label, side: "column" as const })),
      ...heads(network, tokens).map(({ x, text }) => ({
        x: 4,
        y: at(x, 0).y,
        text,
        side: "row" as const,
      })),
    ],
  };
}

/** The middle of every position's columns, and its name. */
function heads(network: Network, tokens: string[]): { x: number; text: string }[] {
  const at = new Map<number, number[]>();
  for (const [i, { pos }] of network.nodes.entries())
    if (pos !== null) at.set(pos, [...(at.get(pos) ?? []), network.x[i]!]);
  return [...at].map(([pos, xs]) => ({
    x: (Math.min(...xs) + Math.max(...xs)) / 2,
    text: tokens[pos] === undefined ? `pos ${pos}` : `${pos} ${tokens[pos]}`,
  }));
}

const ROUND = 5; // pixels that a curve past nodes of its own column swings out, for each layer
const OUT = 46; // at most

/** How far a curve between two nodes of one column swings out, so that it does not hide behind those between. */
function swing(from: number, to: number, across: number): number {
  const far = Math.abs(to - from);
  return across < 1 && far > 100 ? Math.min(OUT, 14 + (far / 50) * ROUND) : 0;
}

/** A curve from a node to a later one: [x0 y0 x1 y1 x2 y2 x3 y3]. Queries, keys and values enter apart. */
export function curve({ spots, upward }: Plan, from: number, to: number, inlet: number): number[] {
  const [a, b] = [spots[from]!, spots[to]!];
  if (upward) {
    const apart = inlet ? (inlet - 2) * Math.min(9, b.width / 4) : 0;
    const [y0, y1] = [a.y - HIGH / 2, b.y + HIGH / 2];
    const bend = Math.max((y0 - y1) * 0.5, 16);
    const out = swing(a.y, b.y, Math.abs(a.x - b.x)) * 1.4;
    return [a.x, y0, a.x + out, y0 - bend, b.x + apart + out, y1 + bend, b.x + apart, y1];
  }
  const [x0, x1] = [a.x + a.width / 2, b.x - b.width / 2];
  const bend = Math.max((x1 - x0) * 0.5, 20);
  const y1 = b.y + (inlet ? (inlet - 2) * 6 : 0);
  const out = swing(a.x, b.x, Math.abs(a.y - b.y));
  return [x0, a.y, x0 + bend, a.y + out, x1 - bend, y1 + out, x1, y1];
}
