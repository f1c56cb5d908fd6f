// Small controls that several views use.
import { type Scale, share } from "./codes";
import { dom } from "./dom";
import { number } from "./format";
import type { AxisFacts, Key } from "./model";
import { colourBar } from "./pane";

/** A drop-down of an axis' entries. */
export function picker(axis: AxisFacts, chosen: Key | undefined, pick: (key: Key) => void): HTMLElement {
  const list = dom("select", {});
  for (const [i, label] of axis.labels.entries())
    list.append(dom("option", { value: i, selected: axis.keys[i] === chosen }, label));
  list.addEventListener("change", () => pick(axis.keys[list.selectedIndex]!));
  return dom("label", {}, axis.name, list);
}

/** A drop-down of named choices. */
export function choice(
  name: string,
  choices: string[],
  chosen: string,
  pick: (one: string) => void,
): HTMLElement {
  const list = dom("select", {});
  for (const one of choices) list.append(dom("option", { value: one, selected: one === chosen }, one));
  list.addEventListener("change", () => pick(list.value));
  return dom("label", {}, name, list);
}

const TICKS: Record<Scale["kind"], number[]> = {
  probability: [0, 0.1, 0.4, 1],
  linear: [0, 0.5, 1],
  diverging: [0, 0.5, 1],
};

/** A number without zeros that say nothing: `0.1`, not `0.100`. */
export const short = (value: number, digits = 3): string =>
  number(value, digits)
    .replace(/(\.\d*?)0+(?=e|$)/, "$1")
    .replace(/\.(?=e|$)/, "");

/** The bar of a scale, with numbers where they belong; where numbers go beyond its ends, these say so. */
export function scaleBar(colours: Uint8Array, scale: Scale, unit: string, beyond = false): HTMLElement {
  const { low, high } = scale;
  const values = TICKS[scale.kind].map((part) => low + part * (high - low));
  const sign = (at: number) =>
    !beyond ? "" : at === 1 ? "≥ " : at === 0 && scale.kind === "diverging" ? "≤ " : "";
  const ticks = values
    .map((one) => share(one, scale))
    .map((at, i) => ({ at, text: sign(at) + short(values[i]!) }));
  return colourBar(colours, ticks, unit);
}
