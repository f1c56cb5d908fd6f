// Nodes as SVG over the edges.
import type { Network } from "./data";
import { HIGH, type Plan } from "./place";

const SPACE = "http://www.w3.org/2000/svg";

/** An SVG element with attributes. */
export function mark<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | number> = {},
  ...children: (Node | string)[]
): SVGElementTagNameMap[K] {
  const found = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, String(value));
  found.append(...children);
  return found;
}

export interface Marks {
  drawing: SVGSVGElement;
  nodes: SVGGElement[];
}

/** All nodes and the names of rows and columns. */
export function marks(network: Network, plan: Plan): Marks {
  const drawing = mark("svg", {
    width: plan.width,
    height: plan.height,
    viewBox: `0 0 ${plan.width} ${plan.height}`,
    class: "hl-nodes",
    "aria-hidden": "true",
  });
  for (const { x, y, text, side } of plan.names)
    drawing.append(
      mark(
        "text",
        {
          x,
          y: side === "row" ? y + 4 : y,
          class: "hl-row-name",
          "text-anchor": side === "row" ? "start" : "middle",
        },
        text.length > 16 ? `${text.slice(0, 15)}…` : text,
      ),
    );
  const nodes = network.nodes.map((node, i) => {
    const { x, y, width } = plan.spots[i]!;
    const box = { x: x - width / 2, y: y - HIGH / 2, width, height: HIGH, rx: 6 };
    const group = mark(
      "g",
      { class: node.removed ? "hl-node hl-removed" : "hl-node", "data-node": i, "data-kind": node.kind },
      mark("title", {}, node.says),
      mark("rect", box),
      mark("text", { x, y: y + 4, "text-anchor": "middle" }, node.label),
      mark("circle", { cx: x + width / 2 - 2, cy: y - HIGH / 2 + 2, r: 4, class: "hl-pin" }),
    );
    drawing.append(group);
    return group;
  });
  return { drawing, nodes };
}
