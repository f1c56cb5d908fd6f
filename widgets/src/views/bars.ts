// Numbers of one axis as bars, with whiskers where there are intervals.
import type { NumberArray } from "../core/arrays";
import { CellRunner } from "../core/cell";
import { dom } from "../core/dom";
import { number } from "../core/format";
import { more } from "../core/grid";
import { named } from "../core/heatmap";
import type { AxisFacts, Facts } from "../core/model";
import { choice, short } from "../core/parts";
import { textWidth } from "../core/names";
import { furthest } from "../core/ranking";
import { type Stage, view } from "../core/stage";
import { type Tick, apart } from "../core/ticks";

export interface BarFacts extends Facts {
  axis: string;
  unit: string;
  value: string;
  level: number;
  note: string;
  texts: string[];
  orders: string[];
  runs: boolean;
}

const MOST_AT_ONCE = 1000;
const SHOWN = 40;

/** Which bars are shown, in their order: the strongest of them, put as asked. */
export function ordered(values: ArrayLike<number>, order: string, most: number): number[] {
  const found = furthest(values, most);
  if (found.length < most)
    for (let i = 0; i < values.length && found.length < most; i++)
      if (Number.isNaN(values[i]!)) found.push(i);
  const last = (i: number, way: number) => (Number.isNaN(values[i]!) ? -Infinity : way * values[i]!);
  if (order === "strongest") return found;
  if (order === "largest") return found.sort((a, b) => last(b, 1) - last(a, 1) || a - b);
  if (order === "smallest") return found.sort((a, b) => last(b, -1) - last(a, -1) || a - b);
  return found.sort((a, b) => a - b);
}

/** The ends of the scale of bars and whiskers: zero is always in it. */
export function extent(arrays: Record<string, NumberArray>, shown: number[]): [number, number] {
  let [low, high] = [0, 0];
  for (const name of ["values", "low", "high"])
    for (const i of shown) {
      const one = arrays[name]?.data[i];
      if (one === undefined || !Number.isFinite(one)) continue;
      low = Math.min(low, one);
      high = Math.max(high, one);
    }
  return low === high ? [0, 1] : [low, high];
}

/** The numbers along the scale, the most wanted first: zero, which has a line, then the end further from it. */
export function numbers([low, high]: [number, number]): Tick[] {
  const wanted = -low > high ? [0, low, high] : [0, high, low];
  return [...new Set(wanted)].map((x) => ({ at: (x - low) / (high - low), text: short(x) }));
}

export default view<BarFacts>("bars", (stage) => {
  let arrays: Record<string, NumberArray>;
  let rows: HTMLElement[] = [];
  let shown: number[] = [];
  const list = dom("div", { class: "hl-bars", role: "listbox", tabindex: 0 });
  const note = dom("p", { class: "hl-tell", hidden: true });
  const axisLine = dom("div", { class: "hl-bar-axis", "aria-hidden": "true" });
  const unitLine = dom("div", { class: "hl-bar-unit", "aria-hidden": "true" });
  let ends: [number, number] = [0, 1];
  const runner = new CellRunner(stage, "bar");
  stage.body.append(list, axisLine, unitLine, note);
  stage.root.querySelector(".hl-foot")?.append(runner.element);
  let cursor = -1;

  const axis = (): AxisFacts => stage.facts().axes[0]!;
  const chosen = (): number => axis().keys.indexOf(stage.selection()[stage.facts().axis]!);
  const texts = (i: number): string => (stage.facts().texts[i] ? `  ${stage.facts().texts[i]}` : "");
  const words = (i: number): string => {
    const { value, unit } = stage.facts();
    const { texts: read } = stage.facts();
    return [
      named(axis(), i),
      `${value} ${short(arrays.values!.data[i]!, 6)} ${unit}`.trim(),
      ...(read.length ? [`reads ‘${read[i]}’`] : []),
      ...more(arrays, stage.facts(), i),
    ].join(" · ");
  };
  const pick = (i: number | null) =>
    stage.select({ [stage.facts().axis]: i === null ? null : axis().keys[i]! });
  const go = (to: number) => {
    cursor = Math.max(0, Math.min(shown.length - 1, to));
    for (const [at, row] of rows.entries()) row.classList.toggle("hl-at", at === cursor);
    list.setAttribute("aria-activedescendant", rows[cursor]?.id ?? "");
    rows[cursor]?.scrollIntoView?.({ block: "nearest" });
    stage.say(words(shown[cursor]!));
  };
  list.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const from = cursor < 0 ? Math.max(0, shown.indexOf(chosen())) : cursor;
    const step = cursor < 0 ? 0 : 1;
    const places: Record<string, number> = {
      ArrowDown: from + step,
      ArrowUp: from - step,
      PageDown: from + 10,
      PageUp: from - 10,
      Home: 0,
      End: shown.length - 1,
    };
    const to = places[event.key];
    if (to !== undefined) go(to);
    else if ((event.key === "Enter" || event.key === " ") && cursor >= 0) pick(shown[cursor]!);
    else if (event.key === "Escape") pick(null);
    else return;
    event.preventDefault();
  });

  const row = (i: number, at: number, [low, high]: [number, number]): HTMLElement => {
    const value = arrays.values!.data[i]!;
    const place = (x: number) => `${(100 * (Math.max(low, Math.min(high, x)) - low)) / (high - low)}%`;
    const track = dom("div", { class: "hl-track" });
    const add = (kind: string, from: number, to: number) => {
      const part = dom("div", { class: kind });
      part.style.left = place(from);
      part.style.width = `calc(${place(to)} - ${place(from)})`;
      track.append(part);
    };
    if (!Number.isNaN(value))
      add(value < 0 ? "hl-fill hl-below" : "hl-fill hl-above", Math.min(0, value), Math.max(0, value));
    const [from, to] = [arrays.low?.data[i], arrays.high?.data[i]];
    if (from !== undefined && to !== undefined && !Number.isNaN(from)) add("hl-whisker", from, to);
    const zero = dom("div", { class: "hl-zero" });
    zero.style.left = place(0);
    track.append(zero);
    const one = dom(
      "div",
      {
        class: "hl-bar-row",
        role: "option",
        id: `${identity}-${at}`,
        "aria-selected": "false",
        "aria-label": words(i),
        onclick: () => pick(i === chosen() ? null : i),
        onpointerenter: () => stage.say(words(i)),
      },
      dom("bdi", { class: "hl-bar-name", title: axis().labels[i]! }, axis().labels[i]! + texts(i)),
      track,
      dom("span", { class: "hl-bar-value" }, Number.isNaN(value) ? "× nan" : number(value, 3)),
    );
    return one;
  };
  list.addEventListener("pointerleave", () => stage.say(chosen() < 0 ? "" : words(chosen())));
  const identity = `hl-bars-${Math.random().toString(36).slice(2)}`;

  const scale = (): void => {
    const room = axisLine.clientWidth || 400;
    const found = apart(numbers(ends), room).map(({ at, text }) => {
      const tick = dom("span", {}, text);
      tick.style.left = `${100 * at}%`;
      return tick;
    });
    axisLine.replaceChildren(...found);
  };
  const watch = new ResizeObserver(scale);
  watch.observe(axisLine);
  stage.signal.addEventListener("abort", () => watch.disconnect(), { once: true });
  const mark = (): void => {
    const at = shown.indexOf(chosen());
    for (const [i, one] of rows.entries()) one.setAttribute("aria-selected", String(i === at));
    runner.choose(chosen() >= 0 && stage.facts().runs ? stage.selection() : null);
    stage.say(chosen() < 0 ? "" : words(chosen()));
  };
  return {
    draw() {
      arrays = stage.arrays();
      const { unit, note: text } = stage.facts();
      const values = arrays.values!.data;
      const most = Math.min(Number(stage.options().most) || SHOWN, MOST_AT_ONCE);
      shown = ordered(values, String(stage.options().order), Math.min(most, values.length));
      ends = extent(arrays, shown);
      rows = shown.map((i, at) => row(i, at, ends));
      cursor = -1;
      list.setAttribute(
        "aria-label",
        `bars of ${axis().name}: arrow keys move, Enter chooses, Escape clears`,
      );
      list.replaceChildren(...rows);
      const names = Math.min(
        220,
        Math.max(24, ...shown.map((i) => 6 + 1.1 * textWidth(axis().labels[i]! + texts(i)))),
      );
      stage.body.style.setProperty("--hl-names", `min(${Math.ceil(names)}px, 50%)`);
      unitLine.textContent = unit;
      scale();
      stage.tools.replaceChildren(
        choice("order", stage.facts().orders, String(stage.options().order), (one) =>
          stage.option("order", one),
        ),
        ...(values.length > Math.min(SHOWN, shown.length) || shown.length > SHOWN
          ? [count(stage, shown.length)]
          : []),
      );
      const left = values.length - shown.length;
      note.hidden = !left && !text;
      note.textContent = [
        left ? `The strongest ${shown.length} of ${values.length.toLocaleString("en")} are shown.` : "",
        text,
      ]
        .filter(Boolean)
        .join(" ");
    },
    selected: mark,
  };
});

/** How many bars to show. */
function count(stage: Stage<BarFacts>, now: number): HTMLElement {
  const field = dom("input", { type: "number", min: 1, max: MOST_AT_ONCE, class: "hl-limit", value: now });
  field.addEventListener("change", () =>
    stage.option("most", Math.max(1, Math.min(MOST_AT_ONCE, Math.round(Number(field.value)) || SHOWN))),
  );
  return dom("label", {}, "show", field);
}
