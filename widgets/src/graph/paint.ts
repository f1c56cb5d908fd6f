// Edges on a canvas: as wide as they are strong, orange above zero, blue and dashed below, grey dots where not known.
import type { Network } from "./data";
import { type Plan, curve } from "./place";

export const COLOURS = { positive: "#e66101", negative: "#2c7bb6", unknown: "#8a8a8a" };
const STEPS = 8;

interface Pen {
  colour: string;
  dash: number[];
  share: number;
}

export function pen(weight: number, most: number): Pen {
  if (Number.isNaN(weight)) return { colour: COLOURS.unknown, dash: [1.5, 3], share: 0.25 };
  const share = most && Number.isFinite(weight) ? Math.abs(weight) / most : 1;
  const step = Math.ceil(Math.min(1, share) * STEPS) / STEPS;
  return weight < 0
    ? { colour: COLOURS.negative, dash: [6, 4], share: step }
    : { colour: COLOURS.positive, dash: [], share: step };
}

/** Size a canvas for a plan, and clear it. */
export function ready(canvas: HTMLCanvasElement, { width, height }: Plan): CanvasRenderingContext2D | null {
  const scale = Math.min(2, globalThis.devicePixelRatio || 1, Math.sqrt(2 ** 24 / (width * height || 1)));
  Object.assign(canvas, {
    width: Math.max(1, Math.round(width * scale)),
    height: Math.max(1, Math.round(height * scale)),
  });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context?.scale(scale, scale);
  return context;
}

const SLICE = 1000; // edges drawn before the page gets a turn
const MANY = 2000; // from here on weak edges are hairlines, and dashes are left to what is looked at
const TOGETHER = 100;

type Curve = [number, number, number, number, number, number, number, number];

function stroke(context: CanvasRenderingContext2D, network: Network, laid: Plan, edges: number[]): void {
  for (const [n, i] of edges.entries()) {
    if (n % TOGETHER === 0) {
      if (n) context.stroke();
      context.beginPath();
    }
    const [x0, y0, x1, y1, x2, y2, x3, y3] = curve(
      laid,
      network.start[i]!,
      network.stop[i]!,
      network.inlet[i]!,
    ) as Curve;
    context.moveTo(x0, y0);
    context.bezierCurveTo(x1, y1, x2, y2, x3, y3);
  }
  context.stroke();
}

/** Some edges, the strongest first, each under what is drawn already; those of one kind and strength share strokes. */
function slice(
  context: CanvasRenderingContext2D,
  network: Network,
  laid: Plan,
  edges: number[],
  of: number,
): void {
  const strokes = new Map<string, { one: Pen; some: number[] }>();
  for (const i of edges) {
    const one = pen(network.weight[i]!, network.most);
    const key = `${one.colour} ${one.share}`;
    const found = strokes.get(key) ?? { one, some: [] };
    found.some.push(i);
    strokes.set(key, found);
  }
  const faint = of > MANY ? 0.25 : of > 400 ? 0.5 : 1;
  context.globalCompositeOperation = "destination-over";
  for (const { one, some } of strokes.values()) {
    context.strokeStyle = one.colour;
    context.setLineDash(of > MANY ? [] : one.dash);
    context.lineWidth = of > MANY && one.share <= 0.25 ? 1 : 0.8 + 3.6 * one.share;
    context.globalAlpha = (0.4 + 0.55 * one.share) * Math.max(faint, one.share);
    stroke(context, network, laid, some);
  }
}

export type Paint = (network: Network, laid: Plan, edges: number[]) => void;

/** A way to draw edges (the strongest first) on a canvas; what was begun before is left off. */
export function painter(canvas: HTMLCanvasElement, signal: AbortSignal): Paint {
  let turn = 0;
  signal.addEventListener("abort", () => cancelAnimationFrame(turn), { once: true });
  return (network, laid, edges) => {
    cancelAnimationFrame(turn);
    const context = ready(canvas, laid);
    if (!context) return;
    const from = (first: number): void => {
      slice(context, network, laid, edges.slice(first, first + SLICE), edges.length);
      if (first + SLICE < edges.length) turn = requestAnimationFrame(() => from(first + SLICE));
    };
    from(0);
  };
}
