// The edges of a node, or the strongest of all, as a table with exact weights.
import { dom } from "../core/dom";
import { number } from "../core/format";
import type { Network } from "./data";

const MOST = 40;

/** The name of an edge's end, with the inlet. */
export function target(network: Network, edge: number, inlets: string[]): string {
  const name = network.nodes[network.stop[edge]!]!.says;
  const inlet = inlets[network.inlet[edge]!];
  return inlet ? `${name}.${inlet}` : name;
}

/** A weight with as many digits as it travels with. */
export function weight(value: number): string {
  if (Number.isNaN(value)) return "not measured";
  if (!Number.isFinite(value)) return number(value);
  return String(Number(value.toPrecision(6))).replaceAll("-", "−");
}

function part(network: Network, title: string, edges: number[], inlets: string[]): HTMLElement {
  const rows = edges
    .slice(0, MOST)
    .map((i) =>
      dom(
        "tr",
        {},
        dom("td", {}, dom("bdi", {}, network.nodes[network.start[i]!]!.says)),
        dom("td", {}, dom("bdi", {}, target(network, i, inlets))),
        dom("td", { class: network.weight[i]! < 0 ? "hl-below" : undefined }, weight(network.weight[i]!)),
      ),
    );
  if (edges.length > MOST)
    rows.push(
      dom("tr", {}, dom("td", { colspan: 3, class: "hl-quiet" }, `${edges.length - MOST} weaker ones`)),
    );
  const head = dom("tr", {}, dom("th", { colspan: 3, scope: "rowgroup" }, `${title}: ${edges.length}`));
  return dom("tbody", {}, head, ...rows);
}

export interface Told {
  caption: string;
  parts: { title: string; edges: number[] }[];
}

export function table(
  network: Network,
  { caption, parts }: Told,
  inlets: string[],
  unit: string,
): HTMLElement {
  const head = ["from", "to", unit || "weight"].map((name) => dom("th", { scope: "col" }, name));
  return dom(
    "table",
    { class: "hl-edges" },
    dom("caption", {}, caption),
    dom("thead", {}, dom("tr", {}, ...head)),
    ...parts.map(({ title, edges }) => part(network, title, edges, inlets)),
  );
}
