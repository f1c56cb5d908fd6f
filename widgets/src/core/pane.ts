// A heat map that can be read by pointer and by keyboard: cells on a canvas, labels around it.
import { MINUS, NAN, PLUS, css, image, ink, lookup } from "./codes";
import { dom } from "./dom";
import { every } from "./format";
import type { AxisFacts } from "./model";
import { LINE, type Line, measured, placed, planned, textWidth, widest } from "./names";
import { cut, pooled, strongest } from "./pool";
import { beside } from "./tip";
import { type Window, dragged, moved, same, whole, zoomed } from "./window";

export interface Cell {
  row: number;
  column: number;
}

export interface Sheet {
  rows: AxisFacts;
  columns: AxisFacts;
  /** One code a cell, row by row. */
  codes: Uint8Array;
  /** [256 rgba] */
  colours: Uint8Array;
  /** The code of zero, from which strength is counted where cells are smaller than pixels; 4 unless given. */
  middle?: number;
  /** Cells as wide as high. */
  square?: boolean;
  /** What is written in a cell when there is room. */
  text?: (cell: Cell) => string;
  /** Lines over the columns in place of their labels, such as the tokens of two prompts. */
  above?: Line[];
}

export interface Reader {
  label: string;
  /** What stands in the tip and is spoken. */
  describe(cell: Cell): string;
  hovered?(cell: Cell | null): void;
  chosen?(cell: Cell | null): void;
}

const TALLEST = 560;
export const WIDEST = 72; // of a cell
const HIGHEST = 30;
const NARROWEST = 44; // the least room for the names of rows
const GAPS = 14; // cells from this size on stand apart by a hair
const SEEN = 6; // the frame around a cell is never smaller
const GLYPHS: Record<number, string> = { [NAN]: "×", [PLUS]: "+∞", [MINUS]: "−∞" };

export class Pane {
  readonly element: HTMLElement;
  readonly canvas: HTMLCanvasElement;
  private readonly rowNames = dom("div", { class: "hl-rows", "aria-hidden": "true" });
  private readonly columnNames = dom("div", { class: "hl-over", "aria-hidden": "true" });
  private readonly field = dom("div", { class: "hl-field" });
  private readonly rowBand = dom("div", { class: "hl-band" });
  private readonly columnBand = dom("div", { class: "hl-band" });
  private readonly frame = dom("div", { class: "hl-cursor" });
  private readonly locked = dom("div", { class: "hl-locked" });
  private readonly tip = dom("div", { class: "hl-tip", "aria-hidden": "true" });
  private readonly corner = dom("div", { class: "hl-corner", "aria-hidden": "true" });
  private readonly note = dom("span", { class: "hl-quiet" });
  private readonly zooms: HTMLElement;
  private readonly scratch = dom("canvas");
  private sheet: Sheet | null = null;
  private colours: Uint32Array = new Uint32Array(256);
  private laid = 0;
  private window: Window = { top: 0, left: 0, rows: 1, columns: 1 };
  private cursor: Cell | null = null;
  private mark: Cell | null = null;
  private size = { width: 0, height: 0 };
  private due = 0;

  constructor(
    private readonly reader: Reader,
    private readonly signal: AbortSignal,
  ) {
    this.canvas = dom("canvas", { class: "hl-canvas", "aria-hidden": "true" });
    this.field.append(this.canvas, this.rowBand, this.columnBand, this.frame, this.locked, this.tip);
    this.element = dom(
      "div",
      {
        class: "hl-pane",
        tabindex: 0,
        role: "application",
        "aria-roledescription": "heat map",
        "aria-label": reader.label,
      },
      this.corner,
      this.columnNames,
      this.rowNames,
      this.field,
    );
    this.zooms = dom("div", { class: "hl-zooms", "aria-hidden": "true", hidden: true }, this.note);
    // The keys do the same, so the buttons are no stops of their own.
    for (const [text, says, act] of [
      ["−", "Farther (key −)", () => this.zoom(1.25, this.mark)],
      ["+", "Nearer (key +)", () => this.zoom(0.8, this.mark)],
      ["whole", "The whole map (key 0)", () => this.reset()],
    ] as const)
      this.zooms.append(
        dom("button", { class: "hl-button", type: "button", tabindex: -1, title: says, onclick: act }, text),
      );
    this.element.append(this.zooms);
    this.hide();
    this.listen();
  }

  /** Draw other data; the part that is looked at and the cursor stay where they fit. */
  show(sheet: Sheet): void {
    const fits =
      this.sheet?.rows.keys.length === sheet.rows.keys.length &&
      this.sheet.columns.keys.length === sheet.columns.keys.length;
    this.sheet = sheet;
    if (!fits) {
      this.window = whole(sheet.rows.keys.length, sheet.columns.keys.length);
      this.cursor = null;
      this.hide();
    }
    this.colours = lookup(sheet.colours);
    this.layout();
    if (this.cursor) this.point(this.cursor, true);
  }

  /** Mark the chosen cell; a row or a column alone is marked as a band by leaving the other at -1. */
  choose(cell: Cell | null): void {
    this.mark = cell;
    this.place(this.locked, cell);
  }

  /** Say again what is at the cursor, because more is known of it now. */
  again(): void {
    if (this.cursor) this.point(this.cursor, true);
  }

  /** The cell at a place on the page, of several in one pixel the one that it shows; null outside. */
  at(x: number, y: number): Cell | null {
    const box = this.canvas.getBoundingClientRect();
    const { left, top, rows, columns } = this.window;
    if (!this.sheet || x < box.left || x >= box.right || y < box.top || y >= box.bottom) return null;
    const [wide, high] = [columns / box.width, rows / box.height];
    const column = Math.floor(left + (x - box.left) * wide);
    const row = Math.floor(top + (y - box.top) * high);
    if (!this.has({ row, column })) return null;
    if (wide <= 1 && high <= 1) return { row, column };
    const across = this.sheet.columns.keys.length;
    const block = {
      top: row,
      left: column,
      bottom: Math.min(this.sheet.rows.keys.length, Math.max(row + 1, Math.floor(row + high))),
      right: Math.min(across, Math.max(column + 1, Math.floor(column + wide))),
    };
    return strongest(this.sheet.codes, across, block, this.sheet.middle ?? 4);
  }

  /** The middle of a cell, in pixels of the page from the canvas' corner: for tests and for tips. */
  middle(cell: Cell): { x: number; y: number } {
    const box = this.box(cell);
    return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
  }

  private has(cell: Cell): boolean {
    const sheet = this.sheet;
    return (
      !!sheet &&
      cell.row >= 0 &&
      cell.column >= 0 &&
      cell.row < sheet.rows.keys.length &&
      cell.column < sheet.columns.keys.length
    );
  }

  private listen(): void {
    const { element, canvas, signal } = this;
    const on = <E extends Event>(to: EventTarget, name: string, heard: (event: E) => void, more = {}) =>
      to.addEventListener(name, heard as EventListener, { signal, ...more });
    let held: { x: number; y: number; window: Window; moved: boolean } | null = null;
    on<PointerEvent>(canvas, "pointermove", (event) => {
      if (held && this.zoomedIn && Math.hypot(event.clientX - held.x, event.clientY - held.y) > 4)
        held.moved = true;
      if (held?.moved) return this.drag(held, event);
      this.point(this.at(event.clientX, event.clientY));
    });
    on(canvas, "pointerleave", () => this.point(null));
    on<PointerEvent>(canvas, "pointerdown", (event) => {
      held = { x: event.clientX, y: event.clientY, window: this.window, moved: false };
    });
    on<PointerEvent>(globalThis, "pointerup", (event) => {
      const chosen =
        held && !held.moved && event.composedPath()[0] === canvas
          ? this.at(event.clientX, event.clientY)
          : null;
      held = null;
      if (chosen) this.reader.chosen?.(chosen);
    });
    on(canvas, "dblclick", () => this.reset());
    on<WheelEvent>(
      canvas,
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return; // a plain wheel scrolls the page
        event.preventDefault();
        this.zoom(event.deltaY < 0 ? 0.8 : 1.25, this.at(event.clientX, event.clientY));
      },
      { passive: false },
    );
    on<KeyboardEvent>(element, "keydown", (event) => this.key(event));
    on(element, "blur", () => this.point(null));
    const watch = new ResizeObserver(() => {
      if (this.element.clientWidth !== this.laid) this.layout();
    });
    watch.observe(element);
    signal.addEventListener("abort", () => watch.disconnect(), { once: true });
  }

  private key(event: KeyboardEvent): void {
    if (!this.sheet || event.ctrlKey || event.metaKey || event.altKey) return;
    const { row, column } = this.cursor ?? this.mark ?? { row: 0, column: 0 };
    const [lastRow, lastColumn] = [this.sheet.rows.keys.length - 1, this.sheet.columns.keys.length - 1];
    const started = this.cursor !== null || this.mark !== null;
    const step = started ? 1 : 0;
    const places: Record<string, Cell> = {
      ArrowUp: { row: row - step, column },
      ArrowDown: { row: row + step, column },
      ArrowLeft: { row, column: column - step },
      ArrowRight: { row, column: column + step },
      PageUp: { row: row - 10, column },
      PageDown: { row: row + 10, column },
      Home: { row, column: 0 },
      End: { row, column: lastColumn },
    };
    const acts: Record<string, () => void> = {
      Enter: () => this.cursor && this.reader.chosen?.(this.cursor),
      " ": () => this.cursor && this.reader.chosen?.(this.cursor),
      Escape: () => this.reader.chosen?.(null),
      "+": () => this.zoom(0.8, this.cursor),
      "=": () => this.zoom(0.8, this.cursor),
      "-": () => this.zoom(1.25, this.cursor),
      "0": () => this.reset(),
    };
    const to = places[event.key];
    if (!to && !acts[event.key]) return;
    event.preventDefault();
    acts[event.key]?.();
    if (!to) return;
    const clip = (x: number, most: number) => Math.max(0, Math.min(most, x));
    const cell = { row: clip(to.row, lastRow), column: clip(to.column, lastColumn) };
    this.look(moved(this.window, cell, lastRow + 1, lastColumn + 1));
    this.point(cell);
  }

  private drag(held: { x: number; y: number; window: Window }, event: PointerEvent): void {
    const { rows, columns } = held.window;
    const right = ((event.clientX - held.x) / this.size.width) * columns;
    const down = ((event.clientY - held.y) / this.size.height) * rows;
    this.look(
      dragged(held.window, down, right, this.sheet!.rows.keys.length, this.sheet!.columns.keys.length),
    );
  }

  private get zoomedIn(): boolean {
    const sheet = this.sheet;
    return !!sheet && !same(this.window, whole(sheet.rows.keys.length, sheet.columns.keys.length));
  }

  private reset(): void {
    if (this.sheet) this.look(whole(this.sheet.rows.keys.length, this.sheet.columns.keys.length));
  }

  private zoom(factor: number, around: Cell | null): void {
    if (this.sheet)
      this.look(
        zoomed(this.window, factor, around, this.sheet.rows.keys.length, this.sheet.columns.keys.length),
      );
  }

  private look(window: Window): void {
    this.window = window;
    if (this.due) return;
    this.due = requestAnimationFrame(() => {
      this.due = 0;
      this.paint();
      this.names();
      this.place(this.locked, this.mark);
      if (this.cursor) this.point(this.cursor, true);
    });
  }

  /** Put the pointer or the cursor on a cell; again, where it already is, when what is drawn there changed. */
  private point(cell: Cell | null, again = false): void {
    if (!again && cell?.row === this.cursor?.row && cell?.column === this.cursor?.column) return;
    this.cursor = cell;
    this.place(this.frame, cell);
    this.place(this.rowBand, cell && { row: cell.row, column: -1 });
    this.place(this.columnBand, cell && { row: -1, column: cell.column });
    this.tip.hidden = !cell || this.frame.hidden;
    if (cell && !this.tip.hidden) {
      this.tip.textContent = this.reader.describe(cell);
      const tip = { width: this.tip.offsetWidth + 1, height: this.tip.offsetHeight + 1 };
      const { left, top } = beside(this.box(cell), tip, {
        left: -this.field.offsetLeft,
        top: -this.field.offsetTop,
        width: this.element.clientWidth,
        height: this.element.clientHeight,
      });
      this.tip.style.left = `${left}px`;
      this.tip.style.top = `${top}px`;
    }
    this.reader.hovered?.(cell);
  }

  private hide(): void {
    for (const one of [this.frame, this.rowBand, this.columnBand, this.locked, this.tip]) one.hidden = true;
  }

  private box(cell: Cell): { left: number; top: number; width: number; height: number } {
    const width = this.size.width / this.window.columns;
    const height = this.size.height / this.window.rows;
    return {
      left: cell.column < 0 ? 0 : (cell.column - this.window.left) * width,
      top: cell.row < 0 ? 0 : (cell.row - this.window.top) * height,
      width: cell.column < 0 ? this.size.width : width,
      height: cell.row < 0 ? this.size.height : height,
    };
  }

  private place(what: HTMLElement, cell: Cell | null): void {
    const box = cell && this.box(cell);
    what.hidden =
      !box ||
      box.left + box.width <= 0.5 ||
      box.top + box.height <= 0.5 ||
      box.left >= this.size.width ||
      box.top >= this.size.height;
    if (!box) return;
    const [width, height] = [Math.max(SEEN, box.width), Math.max(SEEN, box.height)];
    what.style.transform = `translate(${box.left + (box.width - width) / 2}px, ${box.top + (box.height - height) / 2}px)`;
    what.style.width = `${width}px`;
    what.style.height = `${height}px`;
  }

  private layout(): void {
    if (!this.sheet) return;
    const { rows, columns, square, above } = this.sheet;
    this.laid = this.element.clientWidth;
    const whole = this.laid || 640;
    const name = `${rows.name} \\ ${columns.name}`;
    const lines = (above ?? []).map((line) => textWidth(line.name));
    const names = widest(rows.labels, every(rows.labels.length, TALLEST, LINE));
    const gutter = Math.min(Math.max(NARROWEST, names, textWidth(name), ...lines) + 14, 170, 0.4 * whole);
    const room = Math.max(80, whole - gutter - 8);
    const [n, m] = [Math.max(1, rows.keys.length), Math.max(1, columns.keys.length)];
    const side = Math.min(WIDEST, room / m);
    const width = square ? Math.min(HIGHEST * m, room, TALLEST) : side * m;
    const height = square
      ? (width / m) * n
      : Math.min(TALLEST, Math.max(n * Math.min(HIGHEST, Math.max(18, side)), 18));
    this.size = { width: Math.max(1, Math.round(width)), height: Math.max(1, Math.round(height)) };
    this.element.style.setProperty("--hl-gutter", `${Math.round(gutter)}px`);
    this.element.style.setProperty("--hl-width", `${this.size.width}px`);
    this.element.style.setProperty("--hl-height", `${this.size.height}px`);
    this.paint();
    this.names();
    this.place(this.locked, this.mark);
  }

  private paint(): void {
    const sheet = this.sheet;
    if (!sheet) return;
    const scale = Math.min(2, globalThis.devicePixelRatio || 1);
    const width = Math.max(1, Math.round(this.size.width * scale));
    const height = Math.max(1, Math.round(this.size.height * scale));
    if (this.canvas.width !== width || this.canvas.height !== height)
      Object.assign(this.canvas, { width, height });
    const { rows, columns } = this.window;
    const small = columns > width || rows > height;
    this.hint(Math.ceil(columns / width) * Math.ceil(rows / height), small);
    const context = this.canvas.getContext("2d");
    if (!context || !sheet.codes.length) return;
    context.clearRect(0, 0, width, height);
    if (small) {
      const across = sheet.columns.keys.length;
      const found = pooled(sheet.codes, across, this.window, width, height, sheet.middle ?? 4);
      context.putImageData(image(found.codes, width, height, this.colours), 0, 0);
      return;
    }
    this.cells(context, width, height);
    this.gaps(context, scale);
    this.write(context, scale);
  }

  /** Say that cells are smaller than pixels, and offer to come nearer where that helps. */
  private hint(each: number, small: boolean): void {
    this.zooms.hidden = !small && !this.zoomedIn && this.size.width / this.window.columns >= 8;
    this.note.textContent = small
      ? `Each pixel is the strongest of up to ${each} cells: zoom in to see them all.`
      : "";
  }

  /** The cells in sight, as large as they are. */
  private cells(context: CanvasRenderingContext2D, width: number, height: number): void {
    const { codes, rows, columns } = this.sheet!;
    const { left, top } = this.window;
    const [row, column] = [Math.floor(top), Math.floor(left)];
    const high = Math.min(rows.keys.length, Math.ceil(top + this.window.rows)) - row;
    const wide = Math.min(columns.keys.length, Math.ceil(left + this.window.columns)) - column;
    Object.assign(this.scratch, { width: wide, height: high });
    const part = cut(codes, columns.keys.length, row, column, high, wide);
    this.scratch.getContext("2d")?.putImageData(image(part, wide, high, this.colours), 0, 0);
    context.imageSmoothingEnabled = false;
    const { rows: n, columns: m } = this.window;
    context.drawImage(this.scratch, left - column, top - row, m, n, 0, 0, width, height);
  }

  /** A hair of the page between large cells. */
  private gaps(context: CanvasRenderingContext2D, scale: number): void {
    const { left, top, rows, columns } = this.window;
    const [wide, high] = [this.size.width / columns, this.size.height / rows];
    if (Math.min(wide, high) < GAPS) return;
    const [width, height] = [this.canvas.width, this.canvas.height];
    for (let column = Math.ceil(left); column < left + columns; column++)
      if (column > left) context.clearRect(Math.round((column - left) * wide * scale), 0, 1, height);
    for (let row = Math.ceil(top); row < top + rows; row++)
      if (row > top) context.clearRect(0, Math.round((row - top) * high * scale), width, 1);
  }

  /** Numbers into cells that have room for them; what is no number into all but the smallest. */
  private write(context: CanvasRenderingContext2D, scale: number): void {
    const { sheet, window } = this;
    const [width, height] = [this.size.width / window.columns, this.size.height / window.rows];
    if (!sheet || Math.min(width, height) < 8) return;
    const numbers = width >= 26 && height >= 15 ? sheet.text : undefined;
    const tall = Math.min(11, height - 1, width * 0.7);
    context.font = `${tall * scale}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const last = (start: number, count: number, most: number) => Math.min(most, Math.ceil(start + count));
    const across = sheet.columns.keys.length;
    for (let row = Math.floor(window.top); row < last(window.top, window.rows, sheet.rows.keys.length); row++)
      for (
        let column = Math.floor(window.left);
        column < last(window.left, window.columns, across);
        column++
      ) {
        const code = sheet.codes[row * across + column]!;
        const text = GLYPHS[code] ?? (code ? numbers?.({ row, column }) : "");
        if (!text || measured(context, text) > (width - 3) * scale) continue;
        const { x, y } = this.middle({ row, column });
        context.fillStyle = ink(sheet.colours, code);
        context.fillText(text, x * scale, y * scale);
      }
  }

  private names(): void {
    if (!this.sheet) return;
    const { rows, columns, above } = this.sheet;
    const { left, top, rows: n, columns: m } = this.window;
    const lines: Line[] = above?.length ? above : [{ name: "", labels: columns.labels }];
    const plan = planned(
      columns,
      lines.map((line) => line.labels),
      m,
      this.size.width,
    );
    this.columnNames.replaceChildren(
      ...lines.map(({ labels, odd }) => {
        const names = placed(labels, left, m, this.size.width, plan.step, "left", {
          odd,
          flat: !plan.upright,
        });
        const line = dom("div", { class: plan.upright ? "hl-columns hl-upright" : "hl-columns" }, ...names);
        line.style.height = `${plan.height}px`;
        return line;
      }),
    );
    const step = every(n, this.size.height, LINE);
    this.rowNames.replaceChildren(...placed(rows.labels, top, n, this.size.height, step, "top"));
    this.corner.replaceChildren(
      ...lines.map(({ name }, i) => {
        const both = i === lines.length - 1 ? `${rows.name} \\ ${columns.name}` : "";
        const part = dom("div", {}, dom("bdi", {}, name), dom("span", {}, both));
        part.style.height = `${plan.height}px`;
        return part;
      }),
    );
  }
}

/** The bar that says which colour is which number. */
export function colourBar(
  colours: Uint8Array,
  ticks: { at: number; text: string }[],
  unit: string,
): HTMLElement {
  const steps = Array.from({ length: 33 }, (_, i) => css(colours, 4 + Math.round((i / 32) * 251)));
  const strip = dom("div", { class: "hl-strip-bar" });
  strip.style.background = `linear-gradient(90deg, ${steps.join(", ")})`;
  strip.style.backgroundOrigin = "border-box"; // else the other end shows under the border
  const marks = ticks.map(({ at, text }) => {
    const tick = dom("span", {}, text);
    tick.style.left = `${at * 100}%`;
    return tick;
  });
  return dom(
    "div",
    {
      class: "hl-bar",
      role: "img",
      "aria-label": `colours from ${ticks[0]?.text} to ${ticks.at(-1)?.text} ${unit}`,
    },
    strip,
    dom("div", { class: "hl-ticks", "aria-hidden": "true" }, ...marks),
    dom("div", { class: "hl-unit", "aria-hidden": "true" }, unit),
  );
}
