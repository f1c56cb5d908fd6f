// What lists of rows are made of: headings that sort, tables of what is chosen, and the keys that walk through rows.
import type { JSX } from "preact";

/** The headings of a list; a click sorts by one, again the other way round. */
export function Head(given: {
  names: string[];
  /** Which columns hold numbers, and so end in line. */
  numeric: boolean[];
  sorted: number;
  down: boolean;
  pick: (column: number) => void;
}): JSX.Element {
  const { names, numeric, sorted, down, pick } = given;
  return (
    <tr>
      {names.map((name, i) => (
        <th
          key={name}
          scope="col"
          class={numeric[i] ? "hl-number" : undefined}
          aria-sort={i !== sorted ? "none" : down ? "descending" : "ascending"}
        >
          <button type="button" onClick={() => pick(i)}>
            <bdi>{name}</bdi>
            <span aria-hidden="true">{i === sorted ? (down ? " ▼" : " ▲") : ""}</span>
          </button>
        </th>
      ))}
    </tr>
  );
}

/** Names and what they stand for. */
export const Pairs = ({ rows }: { rows: [string, string][] }): JSX.Element => (
  <table class="hl-plain">
    <tbody>
      {rows.map(([name, value]) => (
        <tr key={name}>
          <th scope="row">{name}</th>
          <td>
            <bdi>{value}</bdi>
          </td>
        </tr>
      ))}
    </tbody>
  </table>
);

/** A table; `cell` writes what is no text. */
export function Grid<T>(given: {
  head: string[];
  rows: (string | T)[][];
  cell: (value: T) => string;
  kind?: string;
}): JSX.Element {
  const { head, rows, cell, kind = "" } = given;
  return (
    <div class="hl-scroll">
      <table class={`hl-plain ${kind}`}>
        <thead>
          <tr>
            {head.map((name, i) => (
              <th
                key={`${name}${i}`}
                scope="col"
                class={
                  rows.length && rows.every((row) => typeof row[i] !== "string") ? "hl-number" : undefined
                }
              >
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((one, i) => (
            <tr key={i}>
              {one.map((value, j) => (
                <td key={j} class={typeof value === "number" ? "hl-number" : undefined}>
                  <bdi>{typeof value === "string" ? value : cell(value)}</bdi>
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** The key of the row that an event is in. */
export const keyed = (event: Event): string | null =>
  (event.target as Element).closest?.<HTMLElement>("tr[data-key]")?.dataset.key ?? null;

interface Walk {
  signal: AbortSignal;
  /** The keys of the rows that are drawn, in order. */
  keys(): string[];
  /** Put the cursor on a row. */
  go(key: string): void;
  /** Further keys, each with what it does to the row under the cursor. */
  acts: Record<string, (key: string, event: KeyboardEvent) => void>;
}

/** Arrow keys, Home and End walk through the rows of a table; other keys do what they are said to. */
export function walking(table: HTMLElement, { signal, keys, go, acts }: Walk): void {
  table.addEventListener(
    "keydown",
    (event) => {
      const key = keyed(event);
      if (key === null || !(event.target as Element).matches("tr")) return;
      const rows = keys();
      const at = rows.indexOf(key);
      const to: Record<string, number> = {
        ArrowDown: at + 1,
        ArrowUp: at - 1,
        Home: 0,
        End: rows.length - 1,
      };
      const step = to[event.key];
      const act = acts[event.key];
      if (step === undefined && !act) return;
      event.preventDefault();
      if (step === undefined) return act!(key, event);
      go(rows[Math.max(0, Math.min(rows.length - 1, step))]!);
      table.querySelector<HTMLElement>(`tr[tabindex="0"]`)?.focus();
    },
    { signal },
  );
}

/** A box to search in. */
export function searchBox(what: string, changed: (search: string) => void): HTMLInputElement {
  const box = document.createElement("input");
  box.type = "search";
  box.placeholder = "search";
  box.setAttribute("aria-label", `search the ${what}`);
  box.addEventListener("input", () => changed(box.value));
  return box;
}
