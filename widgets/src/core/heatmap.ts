// A heat map on its stage: what the views of grids, heads, neurons and the residual stream have in common.
import { CellRunner } from "./cell";
import { type Scale, codes } from "./codes";
import { dom } from "./dom";
import { number } from "./format";
import type { AxisFacts, Facts, Key } from "./model";
import type { Line } from "./names";
import { type Cell, Pane, WIDEST } from "./pane";
import { scaleBar, short } from "./parts";
import { Ranking } from "./ranking";
import type { Scene, Stage } from "./stage";

export interface MapScene extends Scene {
  selected(): void;
  /** More is known of the chosen cell: say it. */
  again(): void;
}

/** One map, as it is to be drawn now. */
export interface Layer {
  rows: AxisFacts;
  columns: AxisFacts;
  /** [rows columns] */
  values: Float32Array;
  colours: Uint8Array;
  scale: Scale;
  value: string;
  unit: string;
  note?: string;
  /** Whether numbers go beyond the ends of the scale. */
  beyond?: boolean;
  above?: Line[];
  /** What choosing a cell means; null leaves an axis out. */
  select(cell: Cell): Record<string, Key | null>;
  /** The chosen cell; -1 where a row or a column is not chosen. */
  chosen(): Cell;
  /** Further lines on a cell. */
  more?(cell: Cell): string[];
}

export interface Options {
  /** How many of the strongest are listed. */
  strongest: number;
  /** Whether a chosen cell can be run. */
  runs: boolean;
}

/** An axis' entry in words: `layer 3`, `pos 5 ‘Mary’`. */
export function named(axis: AxisFacts, i: number): string {
  const [key, label] = [axis.keys[i], axis.labels[i]!];
  const counted = typeof key === "number" && String(key) !== label;
  return counted ? `${axis.name} ${key} ‘${label}’` : `${axis.name} ${label}`;
}

/** Decimals for numbers in cells, so that all fit and line up: two or three digits of the largest. */
export function decimals(scale: Scale): number | null {
  const most = Math.max(Math.abs(scale.low), Math.abs(scale.high));
  return most >= 1e4 || most < 1e-3
    ? null
    : Math.max(most <= 1 ? 2 : most < 100 ? 1 : 0, 1 - Math.floor(Math.log10(most)));
}

/** A number in a cell. */
export function inside(value: number, digits: number | null): string {
  if (digits === null || !Number.isFinite(value)) return number(value, 1);
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? "0" : value < 0 ? `−${text}` : text;
}

export function heatmap<F extends Facts>(
  stage: Stage<F>,
  layer: () => Layer,
  options: () => Options,
  tools: () => HTMLElement[],
): MapScene {
  let now: Layer;
  let shown = "";
  const value = ({ row, column }: Cell): number => now.values[row * now.columns.keys.length + column]!;
  const words = (cell: Cell): string[] => [
    `${named(now.rows, cell.row)} · ${named(now.columns, cell.column)}`,
    `${now.value} ${short(value(cell), 6)} ${now.unit}`.trim(),
    ...(now.more?.(cell) ?? []),
  ];
  const speak = (cell: Cell): string => words(cell).join(" · ");
  const none = (): Record<string, Key | null> =>
    Object.fromEntries(Object.keys(now.select({ row: 0, column: 0 })).map((name) => [name, null]));

  const pane = new Pane(
    {
      label:
        "heat map: arrow keys move, Enter chooses, Escape clears, plus and minus zoom, 0 shows the whole",
      describe: (cell) => words(cell).join("\n"),
      hovered: (cell) => stage.say(cell ? speak(cell) : chosen()),
      chosen: (cell) => stage.select(cell ? now.select(cell) : none()),
    },
    stage.signal,
  );
  const ranking = new Ranking((cell) => stage.select(now.select(cell)));
  const runner = new CellRunner(stage);
  const bar = dom("div", {});
  const note = dom("p", { class: "hl-tell", hidden: true });
  const left = dom("div", { class: "hl-main" }, pane.element, bar);
  stage.body.append(dom("div", { class: "hl-beside" }, left, ranking.element), note);
  stage.root.querySelector(".hl-foot")?.append(runner.element);

  const chosen = (): string => {
    const cell = now.chosen();
    return cell.row >= 0 && cell.column >= 0 ? speak(cell) : "";
  };
  const fresh = (next: Layer): boolean =>
    next.values.byteOffset !== now.values.byteOffset || next.values.length !== now.values.length;
  const paint = (): void => {
    now = layer();
    const { rows, columns, scale } = now;
    const digits = decimals(scale);
    pane.show({
      rows,
      columns,
      codes: codes(now.values, scale),
      colours: now.colours,
      middle: scale.kind === "diverging" ? 130 : 4,
      text: (cell) => inside(value(cell), digits),
      above: now.above,
    });
    const { strongest } = options();
    ranking.element.hidden = !strongest;
    left.style.maxWidth = strongest ? `${Math.max(380, WIDEST * columns.keys.length + 180)}px` : "";
    if (strongest) ranking.show(now.values, rows, columns, now.value || "value", strongest);
  };
  return {
    again: () => stage.say(chosen()),
    draw() {
      paint();
      shown = "";
      renewed(stage.tools, tools());
      bar.replaceChildren(scaleBar(now.colours, now.scale, now.unit || now.value, now.beyond));
      note.hidden = !now.note;
      note.textContent = now.note ?? "";
    },
    selected() {
      const key = JSON.stringify(stage.selection());
      if (key === shown) return;
      if (shown && fresh(layer())) paint(); // another map was chosen above it
      shown = key;
      const cell = now.chosen();
      const one = cell.row >= 0 && cell.column >= 0;
      pane.choose(cell.row < 0 && cell.column < 0 ? null : cell);
      ranking.choose(one ? cell : null);
      runner.choose(one && options().runs ? stage.selection() : null);
      stage.say(chosen());
    },
  };
}

/** Controls anew; the one that is being used keeps the focus. */
function renewed(place: HTMLElement, controls: HTMLElement[]): void {
  const all = () => [...place.querySelectorAll<HTMLElement>("select, input, button")];
  const at = all().indexOf(document.activeElement as HTMLElement);
  place.replaceChildren(...controls);
  if (at >= 0) all()[at]?.focus();
}
