// A graph as the kernel sends it, and what follows from a threshold: which edges are shown, and where they lead.
import type { NumberArray } from "../core/arrays";
import type { Facts } from "../core/model";

export interface GraphNode {
  name: string;
  /** The name, safe to be shown. */
  says: string;
  label: string;
  kind: string;
  layer: number | null;
  index: number | null;
  pos: number | null;
  removed: boolean;
}

export interface GraphFacts extends Facts {
  nodes: GraphNode[];
  inlets: string[];
  unit: string;
  note: string;
  left_out: string;
  pinned: string[];
  rows: { y: number; label: string }[];
  tokens: string[];
  /** Whether any edge has a weight. */
  measured: boolean;
}

/** Edges come with the strongest first, those of unknown weight last. */
export class Network {
  readonly size: number;
  /** The largest finite |weight|. */
  readonly most: number;
  private readonly into: number[][];
  private readonly out: number[][];

  constructor(
    readonly nodes: GraphNode[],
    readonly start: ArrayLike<number>,
    readonly stop: ArrayLike<number>,
    readonly inlet: ArrayLike<number>,
    readonly weight: ArrayLike<number>,
    readonly x: ArrayLike<number>,
    readonly y: ArrayLike<number>,
  ) {
    this.size = weight.length;
    this.into = nodes.map(() => []);
    this.out = nodes.map(() => []);
    let most = 0;
    for (let i = 0; i < this.size; i++) {
      this.out[start[i]!]!.push(i);
      this.into[stop[i]!]!.push(i);
      if (Number.isFinite(weight[i]!)) most = Math.max(most, Math.abs(weight[i]!));
    }
    this.most = most;
  }

  static of(facts: GraphFacts, found: Record<string, NumberArray>): Network {
    const data = (name: string) => found[name]!.data;
    return new Network(
      facts.nodes,
      data("start"),
      data("stop"),
      data("inlet"),
      data("weight"),
      data("x"),
      data("y"),
    );
  }

  /** How many edges are at least so strong: the first ones. At 0 and below all are. */
  above(threshold: number): number {
    if (threshold <= 0) return this.size;
    const least = Math.fround(threshold); // as weights travel, so that an edge of exactly this weight stays
    let [low, high] = [0, this.size];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (Math.abs(this.weight[middle]!) >= least) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The edges that are shown, the strongest first. */
  shown(threshold: number, only: Set<number> | null): number[] {
    const found: number[] = [];
    const count = this.above(threshold);
    for (let i = 0; i < count; i++)
      if (!only || (only.has(this.start[i]!) && only.has(this.stop[i]!))) found.push(i);
    return found;
  }

  /** The shown edges into a node and out of it. */
  around(node: number, shown: Set<number>): { into: number[]; out: number[] } {
    const kept = (edges: number[]) => edges.filter((i) => shown.has(i));
    return { into: kept(this.into[node]!), out: kept(this.out[node]!) };
  }
}

const CURVE = 3;
const STEPS = 1000;

/** Where on the slider a threshold lies: most edges are weak, so the lower part is drawn out. */
export const toSlider = (threshold: number, most: number): number =>
  most ? Math.round(STEPS * Math.min(1, Math.max(0, threshold) / most) ** (1 / CURVE)) : 0;
export const fromSlider = (step: number, most: number): number => most * (step / STEPS) ** CURVE;

/** The node that an arrow key leads to; the same one where there is none. */
export function neighbour(network: Network, from: number, key: string, shown: Set<number>): number {
  if (key === "ArrowUp" || key === "ArrowDown") {
    const { into, out } = network.around(from, shown);
    const edge = (key === "ArrowUp" ? out : into)[0];
    return edge === undefined ? from : key === "ArrowUp" ? network.stop[edge]! : network.start[edge]!;
  }
  const row = network.nodes
    .map((_, i) => i)
    .filter((i) => Math.abs(network.y[i]! - network.y[from]!) < 1e-6)
    .sort((a, b) => network.x[a]! - network.x[b]!);
  const at = row.indexOf(from);
  return row[Math.max(0, Math.min(row.length - 1, at + (key === "ArrowRight" ? 1 : -1)))]!;
}
