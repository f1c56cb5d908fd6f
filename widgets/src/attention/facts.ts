// What the kernel tells of a view of patterns; the twin of hooklab/views/patterns.py.
import type { Scale } from "../core/codes";
import type { Facts, Key } from "../core/model";

/** Which map of each head: of a prompt, in a mode, and for a difference the prompt that is taken away. */
export interface MapName {
  prompt: number;
  mode: string;
  against: number;
}

export interface HeadName {
  layer: number | null;
  head: number | null;
  name: string;
}

export interface ThumbsFacts {
  side: number;
  block: number;
  causal: boolean;
  scale: Scale;
}

export interface AttentionFacts extends Facts {
  prompts: { key: Key; label: string; pieces: string[] }[];
  heads: HeadName[];
  /** Whether the heads fill a table of layers by heads. */
  gridded: boolean;
  modes: string[];
  units: Record<string, string>;
  /** The map whose arrays came along, and which of its heads is whole. */
  map: MapName;
  thumbs: ThumbsFacts;
  opened: { at: number; block: number; causal: boolean };
}

export const keyOf = (map: MapName): string => `${map.prompt} ${map.mode} ${map.against}`;

/** A token in a sentence; the marks around it keep its script from turning what stands beside it. */
export const quoted = (pieces: string[], at: number): string =>
  pieces[at] === String(at) ? pieces[at] : `${at} ‘\u2068${pieces[at]}\u2069’`;
