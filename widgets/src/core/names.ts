// The names along a heat map: how wide they are, which of them are written, and whether they lie or stand.
import { dom } from "./dom";
import { every } from "./format";
import type { AxisFacts } from "./model";

/** A further line of names over the columns, such as the tokens of another prompt. */
export interface Line {
  name: string;
  labels: string[];
  /** Which of them differ from the other lines. */
  odd?: boolean[];
}

export const LINE = 15;
const FONT = "11px system-ui, sans-serif";
const TALL = 96;
let pen: CanvasRenderingContext2D | null | undefined;

/** How wide a text is, in pixels. */
export function textWidth(text: string): number {
  pen ??= document.createElement("canvas").getContext("2d");
  if (pen) pen.font = FONT;
  return measured(pen, text);
}

/** How wide a text would be drawn; roughly, where nothing can measure it. */
export const measured = (context: CanvasRenderingContext2D | null, text: string): number =>
  context?.measureText?.(text)?.width ?? 6.3 * text.length;

/** The widest of some names; of very many, of those that could be written. */
export function widest(labels: string[], step = 1): number {
  let most = 0;
  for (let i = 0; i < labels.length; i += step)
    if (labels[i]!.length * 12 > most) most = Math.max(most, textWidth(labels[i]!));
  return most;
}

const counted = (axis: AxisFacts): boolean =>
  typeof axis.keys[0] === "number" && axis.labels.every((label) => label.length < 7 && !Number.isNaN(+label));

export interface Plan {
  upright: boolean;
  step: number;
  height: number;
}

/** How to write names over columns: side by side where they fit, upright where they do not, thinned where too many. */
export function planned(axis: AxisFacts, lines: string[][], count: number, room: number): Plan {
  const across = room / count;
  const upright = every(count, room, LINE);
  const wide = Math.max(...lines.map((labels) => widest(labels, upright)), 1);
  if (wide + 8 <= across) return { upright: false, step: 1, height: 20 };
  if (upright > 1 && counted(axis))
    return { upright: false, step: every(count, room, wide + 12), height: 20 };
  return { upright: true, step: upright, height: Math.min(TALL, wide + 4) + 8 };
}

/** Names at their places along one side, those that are in sight. */
export function placed(
  labels: string[],
  from: number,
  count: number,
  room: number,
  step: number,
  side: "left" | "top",
  { odd, flat = false }: { odd?: boolean[]; flat?: boolean } = {},
): HTMLElement[] {
  const found: HTMLElement[] = [];
  const first = Math.ceil((Math.ceil(from - 0.5) || 0) / step) * step;
  let end = -Infinity;
  for (let i = Math.max(0, first); i < Math.min(labels.length, from + count - 0.5 + 1e-9); i += step) {
    const half = flat ? textWidth(labels[i]!) / 2 : 7;
    const at = Math.max(half, Math.min(room - half, ((i + 0.5 - from) / count) * room)); // within the side
    if (at - half < end - 2) continue; // the one before was moved inwards, and stands here
    end = at + half;
    const kind = odd ? (odd[i] ? " hl-odd" : " hl-quiet") : "";
    const name = dom("bdi", { class: `hl-name${kind}`, title: labels[i] }, labels[i]!);
    name.style[side] = `${at}px`;
    found.push(name);
  }
  return found;
}
