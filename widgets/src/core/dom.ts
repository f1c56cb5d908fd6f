// Elements with attributes and children; text is always text.
type Child = Node | string | null | undefined;
type Attributes = Record<string, string | number | boolean | undefined | ((event: never) => void)>;

/** An element: `dom("button", { class: "hl-button", onclick: f }, "Text")`. */
export function dom<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (typeof value === "function") found.addEventListener(name.slice(2), value as unknown as EventListener);
    else found.setAttribute(name, value === true ? "" : String(value));
  }
  found.append(...children.filter((child): child is Node | string => child !== null && child !== undefined));
  return found;
}

/** Text kept from turning around what stands beside it, whatever script it is in. */
export const piece = (text: string, kind = "hl-piece"): HTMLElement => dom("bdi", { class: kind }, text);
