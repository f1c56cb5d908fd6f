// Whether the page is dark, as its ink says, and when that changes.

/** Whether the letters of an element are light. */
export function dark(element: HTMLElement): boolean {
  const [red = 0, green = 0, blue = 0] = (getComputedStyle(element).color.match(/[\d.]+/g) ?? []).map(Number);
  return 0.3 * red + 0.6 * green + 0.1 * blue > 128;
}

/** Call when the page turns dark or light. */
export function turning(element: HTMLElement, signal: AbortSignal, turned: (dark: boolean) => void): void {
  let before = dark(element);
  const look = (): void => {
    const now = dark(element);
    if (now === before) return;
    before = now;
    turned(now);
  };
  const watch = new MutationObserver(look); // a notebook says its theme in attributes of the page
  for (const one of [document.documentElement, document.body]) watch.observe(one, { attributes: true });
  const system = globalThis.matchMedia?.("(prefers-color-scheme: dark)");
  system?.addEventListener?.("change", look, { signal });
  signal.addEventListener("abort", () => watch.disconnect(), { once: true });
}
