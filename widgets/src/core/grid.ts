// Numbers of two axes or more: two of them make the map, the others choose which.
import type { NumberArray } from "./arrays";
import type { Scale } from "./codes";
import { dom } from "./dom";
import { number } from "./format";
import { type Layer, heatmap } from "./heatmap";
import type { AxisFacts, Facts } from "./model";
import type { Line } from "./names";
import type { Cell } from "./pane";
import { picker, short } from "./parts";
import { type Scene, type Stage, view } from "./stage";

export interface GridFacts extends Facts {
  rows: string;
  columns: string;
  /** The other axes, in the order of the array, before rows and columns. */
  others: string[];
  scale: Scale;
  unit: string;
  value: string;
  level: number;
  /** The largest finite number there is, without its sign. */
  most: number;
  note: string;
  /** Different texts of cells; `label` says which one a cell has. */
  texts: string[];
  above: Line[];
  strongest: number;
  runs: boolean;
  /** Whether bounds and texts of a cell are asked for, being too many to be here. */
  asked: boolean;
}

type Arrays = Record<string, NumberArray>;

/** A scale that ends where it was asked to; 0 leaves it as it is. */
export function limited(scale: Scale, limit: number): Scale {
  if (!(limit > 0)) return scale;
  return { ...scale, low: scale.kind === "diverging" ? -limit : 0, high: limit };
}

/** What else is known of a cell, in lines. */
export function more(arrays: Arrays, facts: Pick<GridFacts, "level" | "texts">, at: number): string[] {
  const { low, high, p, control, label } = arrays;
  const one = (array: NumberArray, digits = 4) => short(array.data[at]!, digits);
  const found: string[] = [];
  if (label) found.push(`reads ‘${facts.texts[label.data[at]!]}’`);
  if (low && high && !Number.isNaN(low.data[at]!))
    found.push(`${Math.round(100 * facts.level)} % from ${one(low)} to ${one(high)}`);
  if (p && !Number.isNaN(p.data[at]!)) found.push(`p ${one(p, 2)}`);
  if (control) found.push(`control ${one(control)}`);
  return found;
}

export function gridScene(stage: Stage<GridFacts>): Scene {
  let arrays: Arrays;
  /** What was told of cells, where it is too much to be here. */
  const asked = new Map<number, string[]>();
  const axis = (name: string): AxisFacts => stage.facts().axes.find((one) => one.name === name)!;
  const place = (one: AxisFacts): number => one.keys.indexOf(stage.selection()[one.name]!);

  /** Where the chosen map starts in the array. */
  const start = (size: number): number =>
    stage
      .facts()
      .others.map(axis)
      .reduce((sum, one) => sum * one.keys.length + Math.max(0, place(one)), 0) * size;

  const layer = (): Layer => {
    const facts = stage.facts();
    const [rows, columns] = [axis(facts.rows), axis(facts.columns)];
    const size = rows.keys.length * columns.keys.length;
    const from = start(size);
    return {
      ...facts,
      rows,
      columns,
      values: (arrays.values!.data as Float32Array).subarray(from, from + size),
      colours: arrays.colours!.data as Uint8Array,
      scale: limited(facts.scale, Number(stage.options().limit ?? 0)),
      beyond: Number(stage.options().limit ?? 0) > 0 && Number(stage.options().limit) < facts.most,
      select: (cell: Cell) => ({
        [rows.name]: rows.keys[cell.row]!,
        [columns.name]: columns.keys[cell.column]!,
      }),
      chosen: () => ({ row: place(rows), column: place(columns) }),
      more({ row, column }) {
        const at = from + row * columns.keys.length + column;
        return facts.asked ? (asked.get(at) ?? []) : more(arrays, facts, at);
      },
    };
  };

  const tools = (): HTMLElement[] => {
    const { others } = stage.facts();
    const pickers = others.map((name) =>
      picker(axis(name), stage.selection()[name], (key) => stage.select({ [name]: key })),
    );
    return [...pickers, limitField(stage)];
  };
  const scene = heatmap(stage, layer, () => stage.facts(), tools);
  /** Ask for the rest of what is known of the chosen cell. */
  const inquire = async (): Promise<void> => {
    const now = layer();
    const { row, column } = now.chosen();
    if (row < 0 || column < 0) return;
    const asking = JSON.stringify(stage.selection());
    const at = start(now.values.length) + row * now.columns.keys.length + column;
    const { reply } = await stage.ask<Record<string, number | string>>("cell", stage.selection());
    const text = Object.entries(reply).map(([name, found]) =>
      name === "label"
        ? `reads ‘${found}’`
        : `${name} ${typeof found === "number" ? short(found, 4) : found}`,
    );
    asked.set(at, text);
    if (JSON.stringify(stage.selection()) === asking) scene.again();
  };
  return {
    ...scene,
    draw() {
      arrays = stage.arrays();
      asked.clear();
      return scene.draw();
    },
    selected() {
      scene.selected();
      if (stage.facts().asked) inquire().catch((error: Error) => stage.tell(error.message, true));
    },
  };
}

/** The number at the end of the colours. */
function limitField(stage: Stage<GridFacts>): HTMLElement {
  const now = Number(stage.options().limit ?? 0);
  const field = dom("input", {
    type: "number",
    min: 0,
    step: "any",
    class: "hl-limit",
    placeholder: number(stage.facts().most),
    title: "the number at the end of the colours; empty for the largest there is",
    value: now > 0 ? now : undefined,
  });
  field.addEventListener("change", () => stage.option("limit", Math.max(0, Number(field.value) || 0)));
  return dom("label", {}, "colour limit", field);
}

export const gridView = (kind: string) => view<GridFacts>(kind, gridScene);
