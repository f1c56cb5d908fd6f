// A token through the layers: its probability as a line, its rank written at each point.
import type { JSX } from "preact";
import { number } from "../core/format";
import type { Key } from "../core/model";

/** Its numbers, layer by layer; rank -1 where they are not known, and why. */
export interface Line {
  prob: number[];
  rank: number[];
  why: string;
}

interface Given extends Line {
  name: string;
  keys: Key[];
  /** The layer that is looked at. */
  at: number;
  pinned: boolean;
  /** How many of the likeliest are known where a rank is not. */
  kept: number;
}

const HEIGHT = 150;
const TOP = 22;
const BOTTOM = 38;
const LEFT = 34;

/** Points that follow each other without a gap, as lines. */
export function stretches(values: number[]): number[][] {
  const found: number[][] = [];
  for (const [i, value] of values.entries()) {
    if (!Number.isFinite(value)) continue;
    const last = found.at(-1);
    if (last && last.at(-1) === i - 1) last.push(i);
    else found.push([i]);
  }
  return found;
}

export function Track({ name, keys, at, prob, rank, why, pinned, kept }: Given): JSX.Element {
  const step = Math.max(16, Math.min(46, 440 / Math.max(1, keys.length - 1)));
  const width = LEFT + step * (keys.length - 1) + 24;
  const x = (i: number): number => LEFT + i * step + 6;
  const y = (value: number): number => TOP + (1 - value) * (HEIGHT - TOP - BOTTOM);
  const label = Math.ceil(30 / step);
  const written = (i: number): boolean => (keys.length - 1 - i) % label === 0;
  const unknown = rank.filter((one) => one < 0).length;
  const says = keys.map(
    (key, i) => `layer ${key}: ${number(prob[i]!)}, rank ${rank[i]! < 0 ? "unknown" : rank[i]}`,
  );
  return (
    <figure class="hl-track-figure">
      <figcaption>
        <bdi class="hl-piece">{name}</bdi>{" "}
        <span class="hl-quiet">through the layers{pinned ? "" : "; choose a token to follow that one"}</span>
      </figcaption>
      <svg
        width={width}
        height={HEIGHT}
        viewBox={`0 0 ${width} ${HEIGHT}`}
        role="img"
        aria-label={says.join("; ")}
      >
        {[0, 0.5, 1].map((one) => (
          <g key={one}>
            <line class="hl-axis" x1={LEFT} x2={width - 10} y1={y(one)} y2={y(one)} />
            <text class="hl-quiet" x={LEFT - 6} y={y(one) + 4} text-anchor="end">
              {one}
            </text>
          </g>
        ))}
        <line class="hl-at" x1={x(at)} x2={x(at)} y1={TOP - 12} y2={HEIGHT - BOTTOM} />
        {stretches(prob).map((part) => (
          <polyline
            key={part[0]}
            class="hl-path"
            points={part.map((i) => `${x(i)},${y(prob[i]!)}`).join(" ")}
          />
        ))}
        {keys.map((key, i) => (
          <g key={String(key)}>
            {Number.isFinite(prob[i]) && (
              <circle class="hl-dot" cx={x(i)} cy={y(prob[i]!)} r={i === at ? 4.5 : 3}>
                <title>{says[i]}</title>
              </circle>
            )}
            {written(i) && (
              <>
                <text class="hl-quiet" x={x(i)} y={HEIGHT - BOTTOM + 15} text-anchor="middle">
                  {String(key)}
                </text>
                <text x={x(i)} y={HEIGHT - BOTTOM + 30} text-anchor="middle">
                  {rank[i]! < 0 ? `≥${kept}` : compact(rank[i]!)}
                </text>
              </>
            )}
          </g>
        ))}
        <text class="hl-quiet" x={LEFT - 6} y={HEIGHT - BOTTOM + 15} text-anchor="end">
          layer
        </text>
        <text x={LEFT - 6} y={HEIGHT - BOTTOM + 30} text-anchor="end">
          rank
        </text>
      </svg>
      {unknown > 0 && (
        <p class="hl-quiet">
          Not among the first {kept} at {unknown} of {keys.length} layers. {why}
        </p>
      )}
    </figure>
  );
}

/** 12345 as 12k. */
export const compact = (rank: number): string =>
  rank < 10_000 ? String(rank) : `${Math.round(rank / 1000)}k`;
