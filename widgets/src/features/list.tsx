// The list of features: thousands of them, of which only those in sight are in the page.
import { useEffect, useRef, useState } from "preact/hooks";
import { number } from "../core/format";
import { ORDERS, type Order, listed } from "./data";

const ROW = 24;
const SPARE = 6;

export interface Listing {
  word: string;
  keys: number[];
  columns: Record<"maximum" | "density" | "norm", ArrayLike<number>>;
  chosen: number;
  choose: (key: number) => void;
}

const share = (value: number): string => `${number(value * 100, 3)} %`;

export function List({ word, keys, columns, chosen, choose }: Listing) {
  const [order, setOrder] = useState<Order>("maximum");
  const [typed, setTyped] = useState("");
  const [top, setTop] = useState(0);
  const [high, setHigh] = useState(360);
  const box = useRef<HTMLDivElement>(null);
  const shown = listed(keys, columns, order, typed);
  const at = shown.findIndex((i) => keys[i] === chosen);
  const first = Math.max(0, Math.floor(top / ROW) - SPARE);
  const last = Math.min(shown.length, Math.ceil((top + high) / ROW) + SPARE);

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    setHigh(element.clientHeight || 360);
    if (at < 0) element.scrollTop = 0;
    else if (at * ROW < element.scrollTop) element.scrollTop = at * ROW;
    else if ((at + 1) * ROW > element.scrollTop + element.clientHeight - ROW)
      element.scrollTop = (at + 2) * ROW - element.clientHeight; // the names of the columns stay on top
  }, [chosen, order, typed]);

  const go = (to: number) => {
    const i = shown[Math.max(0, Math.min(shown.length - 1, to))];
    if (i !== undefined) choose(keys[i]!);
  };
  const steps: Record<string, () => number> = {
    ArrowDown: () => at + 1,
    ArrowUp: () => at - 1,
    PageDown: () => at + 10,
    PageUp: () => at - 10,
    Home: () => 0,
    End: () => shown.length - 1,
  };
  const key = (event: KeyboardEvent) => {
    const step = steps[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go(step());
  };
  const rows = shown.slice(first, last).map((i, n) => (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the list around it takes the keys
    // biome-ignore lint/a11y/useFocusableInteractive: the list is the one tab stop
    <div
      key={keys[i]}
      id={`f${keys[i]}`}
      role="option"
      class="hl-feature"
      aria-selected={keys[i] === chosen}
      style={{ top: `${(first + n) * ROW}px` }}
      onClick={() => choose(keys[i]!)}
      aria-label={`${word} ${keys[i]}, maximum ${number(columns.maximum[i]!)}, density ${share(columns.density[i]!)}`}
    >
      <b>{keys[i]}</b>
      <span>{number(columns.maximum[i]!)}</span>
      <span>{share(columns.density[i]!)}</span>
      <span>{number(columns.norm[i]!)}</span>
    </div>
  ));
  return (
    <div class="hl-features">
      <div class="hl-tools">
        <label>
          {word}
          <input
            type="search"
            inputMode="numeric"
            size={7}
            placeholder="number"
            value={typed}
            onInput={(event) => setTyped(event.currentTarget.value)}
            onKeyDown={(event) => event.key === "Enter" && go(0)}
          />
        </label>
        <label>
          by
          <select value={order} onChange={(event) => setOrder(event.currentTarget.value as Order)}>
            {ORDERS.map((one) => (
              <option key={one}>{one}</option>
            ))}
          </select>
        </label>
      </div>
      <div
        class="hl-feature-list"
        ref={box}
        tabIndex={0}
        role="listbox"
        aria-label={`${word}s: arrow keys choose`}
        onKeyDown={key}
        onScroll={(event) => setTop(event.currentTarget.scrollTop)}
      >
        <div class="hl-feature hl-feature-head" aria-hidden="true">
          <b>{word}</b>
          <span>maximum</span>
          <span>density</span>
          <span>norm</span>
        </div>
        <div style={{ height: `${shown.length * ROW}px` }}>{rows}</div>
      </div>
      <div class="hl-quiet">
        {shown.length === keys.length ? `${keys.length} in all` : `${shown.length} of ${keys.length}`}
      </div>
    </div>
  );
}
