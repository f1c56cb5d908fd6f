// The numbers along a scale: those that can be written without touching each other.
import { textWidth } from "./names";

export interface Tick {
  /** How far along, from 0 to 1. */
  at: number;
  text: string;
}

const GAP = 8;

/** Of some ticks, the most wanted first, those whose texts keep a distance on a line of so many pixels. */
export function apart(ticks: Tick[], room: number, wide: (text: string) => number = textWidth): Tick[] {
  const kept: Tick[] = [];
  for (const one of ticks) {
    const free = kept.every(
      (other) => Math.abs(one.at - other.at) * room >= (wide(one.text) + wide(other.text)) / 2 + GAP,
    );
    if (free) kept.push(one);
  }
  return kept;
}
