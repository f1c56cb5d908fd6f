// One feature: how often and how strongly it is active, where, and what it writes.
import { useState } from "preact/hooks";
import { number } from "../core/format";
import type { Context, Feature, Moved } from "./data";

export type Say = (text: string) => void;

const percent = (share: number): string => `${number(share * 100, 3)} %`;
const STRONGEST = 0.62;

/** The tint of an activation: orange above zero, blue below, as strong as its share of the strongest. */
export function tint(value: number, most: number): string | undefined {
  if (Number.isNaN(value)) return undefined;
  const share = most ? Math.min(1, Math.abs(value) / most) : 0;
  if (share < 0.004) return undefined;
  return `rgb(${value < 0 ? "44 123 182" : "230 97 1"} / ${(share * STRONGEST).toFixed(3)})`;
}

/** Counts of activations other than zero, by bins; heights grow with the logarithm so that rare ones are seen. */
export function Histogram({ feature, say }: { feature: Feature; say: Say }) {
  const counts = Array.from(feature.counts);
  const most = Math.log1p(Math.max(...counts, 1));
  const width = 100 / counts.length;
  const zero = (0 - feature.edges[0]!) / (feature.edges[counts.length]! - feature.edges[0]!);
  const told = (i: number) =>
    `${number(feature.edges[i]!)} to ${number(feature.edges[i + 1]!)}: ${counts[i]} tokens`;
  return (
    <figure class="hl-histogram">
      <svg
        viewBox="0 0 100 60"
        preserveAspectRatio="none"
        role="img"
        aria-label={`histogram of activations from ${number(feature.low)} to ${number(feature.high)}`}
      >
        {zero > 0.002 && <line x1={zero * 100} x2={zero * 100} y1="0" y2="60" class="hl-zero" />}
        {counts.map((count, i) => {
          const high = (Math.log1p(count) / most) * 58;
          return (
            <g key={i} onPointerEnter={() => say(told(i))} onPointerLeave={() => say("")}>
              <rect x={i * width} y="0" width={width} height="60" fill="transparent" />
              <rect
                x={i * width + width * 0.06}
                y={60 - high}
                width={width * 0.88}
                height={high}
                class="hl-count"
              />
            </g>
          );
        })}
      </svg>
      <figcaption>
        <span>{number(feature.edges[0]!)}</span>
        <span>activation, heights logarithmic, highest {Math.max(...counts, 0)} tokens</span>
        <span>{number(feature.edges[counts.length]!)}</span>
      </figcaption>
    </figure>
  );
}

interface Row {
  context: Context;
  most: number;
  around: number;
  cursor: number | null;
  open: boolean;
  say: Say;
  toggle: () => void;
}

export const told = (context: Context, i: number): string =>
  `‘${context.pieces[i]}’ · text ${context.text}, position ${context.start + i}: activation ${number(context.values[i]!, 6)}`;

/** A context on one line around its strongest token; open, all that is kept of it. */
function Line({ context, most, around, cursor, open, say, toggle }: Row) {
  const middle = context.pos - context.start;
  const [first, last] = open
    ? [0, context.pieces.length]
    : [Math.max(0, middle - around), middle + around + 1];
  const piece = (i: number) => (
    <bdi
      key={i}
      class={`hl-around${i === middle ? " hl-peak" : ""}${i === cursor ? " hl-at" : ""}`}
      style={{ background: tint(context.values[i]!, most) }}
      onPointerEnter={() => say(told(context, i))}
    >
      {context.pieces[i]}
    </bdi>
  );
  const span = (from: number, to: number) =>
    Array.from({ length: Math.max(0, Math.min(to, context.pieces.length) - from) }, (_, n) =>
      piece(from + n),
    );
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the list around it takes the keys
    <li class={open ? "hl-context hl-open" : "hl-context"} onClick={toggle} onPointerLeave={() => say("")}>
      <span class="hl-value">{number(context.values[middle]!)}</span>
      <span class="hl-before">
        <span>{span(first, middle)}</span>
      </span>
      {piece(middle)}
      <span class="hl-after">{span(middle + 1, last)}</span>
      <span class="hl-where">{context.text}</span>
    </li>
  );
}

interface Lines {
  name: string;
  contexts: Context[];
  most: number;
  around: number;
  say: Say;
}

/** Contexts under each other: arrow keys move from token to token, Enter opens a context. */
export function Contexts({ name, contexts, most, around, say }: Lines) {
  const [at, setAt] = useState<{ row: number; i: number } | null>(null);
  const [open, setOpen] = useState<Record<number, boolean>>({});
  const toggle = (row: number) => setOpen({ ...open, [row]: !open[row] });
  const bounds = (row: number): [number, number] => {
    const { pos, start, pieces } = contexts[row]!;
    return open[row]
      ? [0, pieces.length - 1]
      : [Math.max(0, pos - start - around), Math.min(pieces.length - 1, pos - start + around)];
  };
  const go = (row: number, i?: number) => {
    const to = Math.max(0, Math.min(contexts.length - 1, row));
    const [low, high] = bounds(to);
    const middle = contexts[to]!.pos - contexts[to]!.start;
    const next = { row: to, i: Math.max(low, Math.min(high, i ?? middle)) };
    setAt(next);
    say(told(contexts[to]!, next.i));
  };
  const key = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !contexts.length) return;
    const { row, i } = at ?? { row: -1, i: 0 };
    const acts: Record<string, () => void> = {
      ArrowDown: () => go(row + 1),
      ArrowUp: () => go(row - 1),
      ArrowLeft: () => (row < 0 ? go(0) : go(row, i - 1)),
      ArrowRight: () => (row < 0 ? go(0) : go(row, i + 1)),
      Home: () => go(0),
      End: () => go(contexts.length - 1),
      Enter: () => row >= 0 && toggle(row),
      " ": () => row >= 0 && toggle(row),
      Escape: () => setAt(null),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]!();
  };
  return (
    <ol
      class="hl-contexts"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: arrow keys go from token to token
      tabIndex={0}
      aria-label={`${name}: arrow keys go from token to token, Enter opens a context`}
      onKeyDown={key}
      onBlur={() => setAt(null)}
    >
      {contexts.map((context, row) => (
        <Line
          key={row}
          context={context}
          most={most}
          around={around}
          cursor={at?.row === row ? at.i : null}
          open={!!open[row]}
          say={say}
          toggle={() => toggle(row)}
        />
      ))}
    </ol>
  );
}

/** Tokens with bars, strongest first. */
function Bars({ name, moved, most }: { name: string; moved: Moved; most: number }) {
  return (
    <table class="hl-moved">
      <caption>{name}</caption>
      <tbody>
        {moved.map(([token, by], i) => (
          <tr key={i}>
            <th scope="row">
              <bdi class="hl-piece">{token}</bdi>
            </th>
            <td aria-hidden="true">
              <i
                style={{
                  width: `${most ? (Math.abs(by) / most) * 100 : 0}%`,
                  background: by < 0 ? "rgb(44 123 182 / .75)" : "rgb(230 97 1 / .75)",
                }}
              />
            </td>
            <td>{number(by)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** The tokens that a feature raises and lowers. */
export function Logits({ up, down }: { up: Moved; down: Moved }) {
  const most = Math.max(...[...up, ...down].map(([, by]) => Math.abs(by)), 0);
  return (
    <div class="hl-logits">
      <Bars name="raises" moved={up} most={most} />
      <Bars name="lowers" moved={down} most={most} />
    </div>
  );
}

/** The numbers of a feature in one line. */
export function Numbers({ word, feature }: { word: string; feature: Feature }) {
  const odd = feature.odd ? ` · not finite, left out: ${feature.odd} tokens` : "";
  return (
    <p class="hl-numbers">
      <b>
        {word} {feature.key}
      </b>
      {` · above 0 at ${percent(feature.density)} of the tokens · exactly 0 at ${percent(feature.zero)} · maximum ${number(feature.high)}`}
      {feature.low < 0 ? ` · minimum ${number(feature.low)}` : ""}
      {Number.isFinite(Number(feature.norm))
        ? ` · norm of what it writes ${number(Number(feature.norm))}`
        : ""}
      {odd}
    </p>
  );
}
