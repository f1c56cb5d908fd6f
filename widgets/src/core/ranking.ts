// The strongest cells as a table that can be sorted; a row chooses its cell.
import { dom } from "./dom";
import { number } from "./format";
import type { AxisFacts } from "./model";
import type { Cell } from "./pane";

/** The places of the `most` numbers furthest from zero, strongest first; what is not a number is left out. */
export function furthest(values: ArrayLike<number>, most: number): number[] {
  if (most <= 0) return [];
  const found: number[] = []; // kept in order; what is weaker than its last is passed over
  const size = (i: number) => Math.abs(values[i]!);
  for (let i = 0; i < values.length; i++) {
    if (Number.isNaN(values[i]!)) continue;
    if (found.length === most && size(i) <= size(found[most - 1]!)) continue;
    let at = found.length;
    while (at > 0 && size(found[at - 1]!) < size(i)) at--;
    found.splice(at, 0, i);
    if (found.length > most) found.pop();
  }
  return found;
}

interface Ranked {
  cell: Cell;
  value: number;
}

type Column = "row" | "column" | "value";

export class Ranking {
  readonly element = dom("div", { class: "hl-ranking" });
  private ranked: Ranked[] = [];
  private sorted: { by: Column; down: boolean } = { by: "value", down: true };
  private chosen: Cell | null = null;
  private about!: { rows: AxisFacts; columns: AxisFacts; value: string; of: number };

  constructor(private readonly pick: (cell: Cell) => void) {}

  show(values: ArrayLike<number>, rows: AxisFacts, columns: AxisFacts, value: string, most: number): void {
    const across = columns.keys.length;
    this.about = { rows, columns, value, of: values.length };
    this.ranked = furthest(values, most).map((at) => ({
      cell: { row: Math.floor(at / across), column: at % across },
      value: values[at]!,
    }));
    this.draw();
  }

  choose(cell: Cell | null): void {
    this.chosen = cell;
    for (const row of this.element.querySelectorAll<HTMLElement>("tbody tr"))
      row.setAttribute("aria-selected", String(this.is(this.ranked[Number(row.dataset.rank)]!.cell)));
  }

  private is(cell: Cell): boolean {
    return cell.row === this.chosen?.row && cell.column === this.chosen.column;
  }

  private draw(): void {
    const { rows, columns, value, of } = this.about;
    const { by, down } = this.sorted;
    const key = ({ cell, value: size }: Ranked) => (by === "value" ? Math.abs(size) : cell[by]);
    const order = this.ranked
      .map((_, i) => i)
      .sort((a, b) => (key(this.ranked[a]!) - key(this.ranked[b]!)) * (down ? -1 : 1) || a - b);
    const head = (name: string, column: Column) => {
      const on = by === column;
      const button = dom(
        "button",
        { type: "button", class: "hl-sort", onclick: () => this.sort(column) },
        name,
        dom("span", { "aria-hidden": "true" }, on ? (down ? " ▾" : " ▴") : ""),
      );
      return dom(
        "th",
        { scope: "col", "aria-sort": on ? (down ? "descending" : "ascending") : "none" },
        button,
      );
    };
    const body = order.map((rank) => {
      const { cell, value: size } = this.ranked[rank]!;
      const go = dom(
        "button",
        { type: "button", class: "hl-pick", onclick: () => this.pick(cell) },
        dom("bdi", { title: rows.labels[cell.row]! }, rows.labels[cell.row]!),
      );
      return dom(
        "tr",
        { "data-rank": rank, "aria-selected": String(this.is(cell)), onclick: () => this.pick(cell) },
        dom("th", { scope: "row" }, go),
        dom("td", {}, dom("bdi", { title: columns.labels[cell.column]! }, columns.labels[cell.column]!)),
        dom("td", { title: number(size, 9) }, number(size, 3)),
      );
    });
    for (const button of body.map((row) => row.querySelector("button")!))
      button.addEventListener("click", (event) => event.stopPropagation()); // the row chooses too: once is enough
    this.element.hidden = !body.length;
    this.element.replaceChildren(
      dom(
        "table",
        { class: "hl-numbers" },
        dom("caption", {}, `strongest ${body.length} of ${of.toLocaleString("en")}`),
        dom(
          "thead",
          {},
          dom("tr", {}, head(rows.name, "row"), head(columns.name, "column"), head(value, "value")),
        ),
        dom("tbody", {}, ...body),
      ),
    );
  }

  private sort(by: Column): void {
    const again = this.sorted.by === by;
    this.sorted = { by, down: again ? !this.sorted.down : by === "value" };
    this.draw();
    this.element.querySelectorAll<HTMLElement>(".hl-sort")[["row", "column", "value"].indexOf(by)]?.focus();
  }
}
