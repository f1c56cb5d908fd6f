// One popup for a whole view: it stands beside what is pointed at, and its content swaps.
import { type ComponentChild, render } from "preact";
import { dom } from "../core/dom";

export class Popup {
  readonly element = dom("div", { class: "hl-tip hl-popup", popover: "manual", hidden: true });
  private beside: Element | null = null;

  constructor(root: HTMLElement, signal: AbortSignal) {
    root.append(this.element);
    signal.addEventListener("abort", () => render(null, this.element));
    window.addEventListener("scroll", () => this.place(), { signal, capture: true, passive: true });
  }

  /** Show something below or above an element, whole. */
  show(beside: Element, content: ComponentChild): void {
    this.beside = beside;
    render(content, this.element);
    this.element.hidden = false;
    this.element.showPopover?.();
    this.place();
  }

  hide(): void {
    if (!this.beside) return;
    this.beside = null;
    this.element.hidden = true;
    if (this.element.isConnected) this.element.hidePopover?.();
  }

  private place(): void {
    if (!this.beside) return;
    // Text that runs over a line end has a box on each line.
    const box = this.beside.getClientRects?.()[0] ?? this.beside.getBoundingClientRect();
    const own = this.element.getBoundingClientRect();
    const below = box.bottom + 6 + own.height <= innerHeight || box.top < own.height + 6;
    this.element.style.left = `${Math.max(4, Math.min(box.left, innerWidth - own.width - 8))}px`;
    this.element.style.top = `${below ? box.bottom + 6 : box.top - own.height - 6}px`;
  }
}
