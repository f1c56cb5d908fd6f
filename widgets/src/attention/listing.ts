// The strongest weights as tables, for reading and for whoever cannot see colours.
import { dom } from "../core/dom";
import { number } from "../core/format";

export interface Entry {
  names: string[];
  value: number;
}

/** The furthest from zero of some numbers, with their places. */
export function furthest(values: ArrayLike<number>, count: number): number[] {
  const found: number[] = [];
  const size = (at: number): number => Math.abs(values[at]!) || 0;
  for (let at = 0; at < values.length; at++) {
    if (!size(at) || (found.length === count && size(at) <= size(found[count - 1]!))) continue;
    let place = found.length;
    while (place && size(found[place - 1]!) < size(at)) place--;
    found.splice(place, 0, at);
    if (found.length > count) found.pop();
  }
  return found;
}

/** A table of places and numbers. */
export function listing(caption: string, columns: string[], entries: Entry[], exact: boolean): HTMLElement {
  const head = dom("tr", {}, ...columns.map((name) => dom("th", { scope: "col" }, name)));
  const rows = entries.map(({ names, value }) =>
    dom(
      "tr",
      {},
      ...names.map((name, i) => dom(i ? "td" : "th", i ? {} : { scope: "row" }, dom("bdi", {}, name))),
      dom("td", {}, exact ? number(value, 4) : `≈ ${number(value, 2)}`),
    ),
  );
  if (!rows.length) rows.push(dom("tr", {}, dom("td", { colspan: columns.length }, "nothing")));
  return dom(
    "table",
    { class: "hl-attn-table" },
    dom("caption", {}, caption),
    dom("thead", {}, head),
    dom("tbody", {}, ...rows),
  );
}
