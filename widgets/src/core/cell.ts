// The chosen cell of a sweep: a button that runs it, and what the run measured.
import { dom } from "./dom";
import { number } from "./format";
import type { Selection } from "./model";
import type { Stage } from "./stage";

interface Measured {
  run: string;
  metrics: [string, number | string, number | string | null][];
  next: [string, number][];
}

const PATIENCE = 600_000;
const read = (given: number | string): string =>
  typeof given === "number" ? number(given, 4) : given.replace("-inf", "−∞").replace("inf", "∞");

export class CellRunner {
  readonly element: HTMLElement;
  private readonly button: HTMLButtonElement;
  private readonly answer = dom("div", { class: "hl-answer", "aria-live": "polite" });
  private chosen: Selection | null = null;
  private turn = 0;

  constructor(
    private readonly stage: Pick<Stage, "ask">,
    what = "cell",
  ) {
    this.button = dom(
      "button",
      { class: "hl-button", type: "button", onclick: () => void this.run() },
      `Run this ${what}`,
    );
    this.element = dom("div", { class: "hl-cell", hidden: true }, this.button, this.answer);
  }

  /** A cell was chosen, or none; what an earlier one gave is taken away. */
  choose(cell: Selection | null): void {
    const same = JSON.stringify(cell) === JSON.stringify(this.chosen);
    this.chosen = cell;
    this.element.hidden = !cell;
    if (same) return;
    this.turn++;
    this.button.disabled = false;
    this.answer.replaceChildren();
  }

  private async run(): Promise<void> {
    if (!this.chosen || this.button.disabled) return;
    const turn = ++this.turn;
    this.button.disabled = true;
    this.answer.replaceChildren(dom("span", { class: "hl-quiet" }, "Running…"));
    const shown = await this.stage
      .ask<Measured>("run", this.chosen, PATIENCE)
      .then(({ reply }) => tables(reply))
      .catch((error: Error) => [dom("p", { class: "hl-tell hl-wrong", role: "alert" }, error.message)]);
    if (turn !== this.turn) return;
    this.button.disabled = false;
    this.answer.replaceChildren(...shown);
  }
}

function tables({ run, metrics, next }: Measured): HTMLElement[] {
  const swept = metrics.some(([, , before]) => before !== null);
  const found = [
    table(
      [run, "now", ...(swept ? ["in the sweep"] : [])],
      metrics.map(([name, now, before]) => [
        name,
        read(now),
        ...(swept ? [before === null ? "" : read(before)] : []),
      ]),
    ),
  ];
  if (next.length)
    found.push(
      table(
        ["next token", "probability"],
        next.map(([text, chance]) => [text, read(chance)]),
      ),
    );
  return found;
}

/** A small table; its first column names the rows. */
export function table(head: string[], rows: string[][]): HTMLElement {
  const cells = (row: string[]) =>
    row.map((text, i) => (i ? dom("td", {}, text) : dom("th", { scope: "row" }, dom("bdi", {}, text))));
  return dom(
    "table",
    { class: "hl-numbers" },
    dom("thead", {}, dom("tr", {}, ...head.map((name) => dom("th", { scope: "col" }, dom("bdi", {}, name))))),
    dom("tbody", {}, ...rows.map((row) => dom("tr", {}, ...cells(row)))),
  );
}
