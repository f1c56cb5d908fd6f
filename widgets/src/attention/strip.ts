// The tokens in a row: for one of them, where it looks (marked below) and who looks at it (marked above).
import { dom } from "../core/dom";

export interface Listener {
  hovered(token: number | null): void;
  chosen(token: number | null): void;
}

const STEPS = 24; // shades; smaller changes are not painted
const FAINT = 0.1; // the root of a hundredth: below it, nothing is shaded

export class Strip {
  readonly element: HTMLElement;
  private tokens: HTMLElement[] = [];
  private below = new Int8Array(0);
  private above = new Int8Array(0);
  private marked: number[] = [];
  private cursor: number | null = null;
  private under: number | null = null;

  constructor(
    private readonly listener: Listener,
    signal: AbortSignal,
  ) {
    this.element = dom("div", {
      class: "hl-attn-strip",
      tabindex: 0,
      role: "application",
      "aria-roledescription": "tokens",
      "aria-label": "tokens: arrow keys move, Enter keeps one, Escape lets go",
    });
    const on = <E extends Event>(name: string, heard: (event: E) => void) =>
      this.element.addEventListener(name, heard as EventListener, { signal });
    on<PointerEvent>("pointermove", (event) => this.point(this.at(event.target)));
    on("pointerleave", () => this.point(null));
    on<MouseEvent>("click", (event) => {
      const token = this.at(event.target);
      if (token !== null) this.listener.chosen(token);
    });
    on<KeyboardEvent>("keydown", (event) => this.key(event));
    on("blur", () => this.point(null));
  }

  show(pieces: string[]): void {
    this.tokens = pieces.map((piece, at) =>
      dom("span", { class: "hl-attn-token", "data-at": at, title: `${at}` }, dom("bdi", {}, piece || "∅")),
    );
    this.below = new Int8Array(pieces.length);
    this.above = new Int8Array(pieces.length);
    this.marked = [];
    this.cursor = this.under = null;
    this.element.replaceChildren(...this.tokens);
  }

  /** Mark tokens, and shade all by what is looked at and by who looks, 0 to 1 each (below zero: less than before). */
  shade(marked: number[], below: ArrayLike<number> | null, above: ArrayLike<number> | null): void {
    for (const at of this.marked) this.tokens[at]?.classList.remove("hl-attn-here");
    this.marked = marked;
    for (const at of marked) this.tokens[at]?.classList.add("hl-attn-here");
    this.layer(this.below, below, "below");
    this.layer(this.above, above, "above");
  }

  /** Which token stays chosen. */
  choose(token: number | null): void {
    this.element.querySelector(".hl-attn-kept")?.classList.remove("hl-attn-kept");
    if (token !== null) this.tokens[token]?.classList.add("hl-attn-kept");
    this.cursor = null;
  }

  private layer(now: Int8Array, wanted: ArrayLike<number> | null, name: string): void {
    for (let at = 0; at < now.length; at++) {
      const share = wanted?.[at] || 0;
      const step = Math.abs(share) < FAINT ? 0 : Math.round(Math.max(-1, Math.min(1, share)) * STEPS);
      if (step === now[at]) continue;
      const { classList, style } = this.tokens[at]!;
      if (!step !== !now[at]) classList.toggle(`hl-attn-${name}`, step !== 0);
      now[at] = step;
      style.setProperty(`--${name}`, String(Math.abs(step) / STEPS));
      classList.toggle("hl-attn-less", this.below[at]! < 0 || this.above[at]! < 0);
    }
  }

  private at(target: EventTarget | null): number | null {
    const token = (target as HTMLElement | null)?.closest?.<HTMLElement>(".hl-attn-token");
    return token ? Number(token.dataset.at) : null;
  }

  private point(token: number | null): void {
    if (token === this.under) return;
    this.under = token;
    this.listener.hovered(token);
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.tokens.length) return;
    const last = this.tokens.length - 1;
    const kept = this.tokens.findIndex((token) => token.classList.contains("hl-attn-kept"));
    const from = this.cursor ?? (kept >= 0 ? kept : null);
    const places: Record<string, number> = {
      ArrowLeft: from === null ? last : from - 1,
      ArrowRight: from === null ? 0 : from + 1,
      Home: 0,
      End: last,
    };
    if (event.key in places) {
      this.cursor = Math.max(0, Math.min(last, places[event.key]!));
      this.tokens[this.cursor]!.scrollIntoView?.({ block: "nearest" });
      this.point(this.cursor);
    } else if (event.key === "Enter" || event.key === " ") {
      if (from !== null) this.listener.chosen(from);
    } else if (event.key === "Escape") this.listener.chosen(null);
    else return;
    event.preventDefault();
  }
}
