// All heads as small pictures on one canvas: point at one to see it large, choose one to keep it.
import { lookup } from "../core/codes";
import { dom } from "../core/dom";
import { short } from "../core/parts";
import type { HeadName } from "./facts";
import { grounded, recoloured, stamp, weights } from "./paint";
import { type Thumbs, ending, highest } from "./store";

export interface Listener {
  hovered(head: number | null): void;
  chosen(head: number | null): void;
}

export interface Look {
  thumbs: Thumbs;
  /** [256 rgba] of the scale that the codes were made on. */
  colours: Uint8Array;
  without: boolean;
  each: boolean;
  /** What the numbers are. */
  what: string;
}

const [SMALLEST, LARGEST] = [8, 72];
const NAME = 15;
const SIDE = 40; // the names of layers
const TALLEST = 470;

/** A head in words, for whoever cannot see its picture. */
export function words({ layer, head, name }: HeadName, look: Look, at: number): string {
  const place = [layer === null ? "" : `layer ${layer}`, head === null ? "" : `head ${head}`].filter(Boolean);
  const most = look.thumbs.peaks[2 * at + Number(look.without)]!;
  return `${place.join(" · ") || name} · ${look.what}, strongest ${short(most, 2)}`;
}

export class Heads {
  readonly element: HTMLElement;
  readonly canvas = dom("canvas", { class: "hl-canvas", "aria-hidden": "true" });
  private readonly field = dom("div", { class: "hl-attn-field" });
  private readonly names = dom("div", { "aria-hidden": "true" });
  /** The pictures once more, without colours: what a screen reader finds and names. */
  private readonly spoken = dom("div");
  private readonly frame = dom("div", { class: "hl-cursor", hidden: true });
  private readonly locked = dom("div", { class: "hl-locked", hidden: true });
  private readonly identity = `hl-heads-${Math.random().toString(36).slice(2)}`;
  private heads: HeadName[] = [];
  private gridded = true;
  private look: Look | null = null;
  private columns = 1;
  private cell = LARGEST;
  private gap = 3;
  private cursor: number | null = null;
  private mark: number | null = null;
  private laid = -1;

  constructor(
    private readonly listener: Listener,
    private readonly signal: AbortSignal,
  ) {
    this.field.append(this.canvas, this.names, this.spoken, this.frame, this.locked);
    this.element = dom(
      "div",
      {
        class: "hl-attn-heads",
        tabindex: 0,
        role: "listbox",
        "aria-label": "heads: arrow keys move, Enter keeps one, Escape lets go",
      },
      this.field,
    );
    this.listen();
  }

  show(heads: HeadName[], gridded: boolean, look: Look): void {
    this.heads = heads;
    this.gridded = gridded;
    this.look = look;
    this.element.hidden = heads.length < 2;
    this.layout();
  }

  choose(head: number | null): void {
    this.mark = head;
    this.place(this.locked, head);
    for (const [at, one] of [...this.spoken.children].entries())
      one.setAttribute("aria-selected", String(at === head));
  }

  /** The corner of a head's picture, in pixels from the canvas' own. */
  corner(head: number): { left: number; top: number; size: number } {
    return {
      left: this.left + (head % this.columns) * (this.cell + this.gap),
      top: this.top + Math.floor(head / this.columns) * (this.cell + this.line),
      size: this.cell,
    };
  }

  private get left(): number {
    return this.gridded ? SIDE : 0;
  }

  private get top(): number {
    return NAME;
  }

  /** What lies between two rows: a gap, or the names of the heads below. */
  private get line(): number {
    return this.gridded ? this.gap : NAME + 2;
  }

  private at(event: PointerEvent): number | null {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - this.left) / (this.cell + this.gap));
    const row = Math.floor((event.clientY - box.top - this.top) / (this.cell + this.line));
    const head = row * this.columns + column;
    return column >= 0 && column < this.columns && row >= 0 && head < this.heads.length ? head : null;
  }

  private listen(): void {
    const { signal } = this;
    this.canvas.addEventListener("pointermove", (event) => this.point(this.at(event)), { signal });
    this.canvas.addEventListener("pointerleave", () => this.point(null), { signal });
    this.canvas.addEventListener("click", (event) => this.listener.chosen(this.at(event as PointerEvent)), {
      signal,
    });
    this.element.addEventListener("keydown", (event) => this.key(event), { signal });
    this.element.addEventListener("blur", () => this.point(null), { signal });
    const watch = new ResizeObserver(() => {
      if (this.element.clientWidth !== this.laid) this.layout();
    });
    watch.observe(this.element);
    signal.addEventListener("abort", () => watch.disconnect(), { once: true });
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const steps: Record<string, number> = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -this.columns,
      ArrowDown: this.columns,
      Home: -this.heads.length,
      End: this.heads.length,
    };
    const last = this.heads.length - 1;
    const from = this.cursor ?? this.mark;
    if (event.key in steps) {
      const to = from === null ? 0 : from + steps[event.key]!;
      const far = event.key === "Home" || event.key === "End";
      this.point(far ? Math.max(0, Math.min(last, to)) : to < 0 || to > last ? from : to);
      if (this.cursor !== null) this.frame.scrollIntoView?.({ block: "nearest", inline: "nearest" });
    } else if (event.key === "Enter" || event.key === " ") {
      if (from !== null) this.listener.chosen(from);
    } else if (event.key === "Escape") this.listener.chosen(null);
    else return;
    event.preventDefault();
  }

  private point(head: number | null): void {
    if (head === this.cursor) return;
    this.cursor = head;
    this.place(this.frame, head);
    if (head === null) this.element.removeAttribute("aria-activedescendant");
    else this.element.setAttribute("aria-activedescendant", `${this.identity}-${head}`);
    this.listener.hovered(head);
  }

  private place(what: HTMLElement, head: number | null): void {
    what.hidden = head === null;
    if (head === null) return;
    const { left, top, size } = this.corner(head);
    what.style.transform = `translate(${left}px, ${top}px)`;
    what.style.width = what.style.height = `${size}px`;
  }

  private layout(): void {
    if (!this.look) return;
    this.laid = this.element.clientWidth;
    const room = (this.laid || 400) - this.left - 8;
    const layers = new Set(this.heads.map((head) => head.layer)).size;
    if (this.gridded) this.columns = Math.ceil(this.heads.length / Math.max(1, layers));
    else this.columns = Math.max(1, Math.min(this.heads.length, Math.floor(room / (LARGEST + this.gap))));
    // A lone layer wraps: it has no column that a head of another layer would stand in.
    const lone = this.gridded && layers === 1 && room / this.columns < LARGEST / 2;
    if (lone) this.columns = Math.max(1, Math.floor(room / (LARGEST / 2 + this.gap)));
    const rows = Math.ceil(this.heads.length / this.columns);
    this.gap = room / this.columns < 18 ? 2 : 3;
    const high = Math.floor((TALLEST - this.top) / rows) - this.line;
    const wide = Math.floor(room / this.columns) - this.gap;
    this.cell = Math.max(SMALLEST, Math.min(LARGEST, wide, Math.max(high, 24)));
    const width = this.left + this.columns * (this.cell + this.gap);
    const height = this.top + rows * (this.cell + this.line);
    this.field.style.width = `${width}px`;
    this.field.style.height = `${height}px`;
    this.label(lone);
    this.speak();
    this.paint(width, height);
    this.place(this.locked, this.mark);
    this.place(this.frame, this.cursor);
  }

  private label(lone: boolean): void {
    const found: HTMLElement[] = [];
    const name = (text: string, left: number, top: number, kind: string) => {
      const made = dom("span", { class: `hl-name ${kind}` }, text);
      made.style.left = `${left}px`;
      made.style.top = `${top}px`;
      found.push(made);
    };
    if (this.gridded && !lone) {
      const step = this.cell >= 20 ? 1 : this.cell >= 14 ? 2 : 4;
      for (let column = 0; column < this.columns; column += step)
        name(
          String(this.heads[column]?.head ?? ""),
          this.left + column * (this.cell + this.gap) + this.cell / 2,
          0,
          "hl-attn-top",
        );
      for (
        let head = 0;
        head < this.heads.length;
        head += this.columns * (this.cell >= 14 ? 1 : this.cell >= 10 ? 2 : 4)
      ) {
        const { layer } = this.heads[head]!;
        if (layer !== null)
          name(`L${layer}`, SIDE - 6, this.corner(head).top + this.cell / 2, "hl-attn-side");
      }
      name("head", SIDE - 6, 7, "hl-attn-side hl-quiet");
    } else
      for (const [at, head] of this.heads.entries()) {
        const { left, top } = this.corner(at);
        if (this.cell >= 34 || at % this.columns === 0)
          name(lone ? `H${head.head}` : head.name, left + this.cell / 2, top - NAME, "hl-attn-top");
      }
    this.names.replaceChildren(...found);
  }

  private speak(): void {
    const options = this.heads.map((head, at) => {
      const one = dom("div", {
        class: "hl-attn-spoken",
        role: "option",
        id: `${this.identity}-${at}`,
        "aria-selected": String(at === this.mark),
        "aria-label": words(head, this.look!, at),
        onclick: () => this.listener.chosen(at),
      });
      this.place(one, at);
      return one;
    });
    this.spoken.replaceChildren(...options);
  }

  private paint(width: number, height: number): void {
    const { thumbs, colours, without, each } = this.look!;
    const scale = Math.min(2, globalThis.devicePixelRatio || 1);
    Object.assign(this.canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
    const context = this.canvas.getContext("2d");
    if (!context) return;
    const image = new ImageData(this.canvas.width, this.canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    const table = (head: number | null) =>
      grounded(
        lookup(recoloured(colours, thumbs.scale, ending(thumbs.scale, highest(thumbs, head, without)))),
      );
    const common = each ? null : table(null);
    const weight = weights(thumbs.scale.kind === "diverging" ? 130 : 4);
    const { side } = thumbs;
    for (let head = 0; head < this.heads.length; head++) {
      const { left, top, size } = this.corner(head);
      const place = {
        left: Math.round(left * scale),
        top: Math.round(top * scale),
        size: Math.round(size * scale),
      };
      stamp(
        pixels,
        this.canvas.width,
        place,
        thumbs.codes.subarray(head * side * side, (head + 1) * side * side),
        side,
        without ? thumbs.first.subarray(head * side, (head + 1) * side) : null,
        common ?? table(head),
        weight,
      );
    }
    context.putImageData(image, 0, 0);
  }
}
