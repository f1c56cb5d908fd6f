// The head that is shown, in words and numbers: exact ones where they are known, else those that its colours stand for.
import { type Scale, value } from "../core/codes";
import { number } from "../core/format";
import type { Cell } from "../core/pane";
import { type AttentionFacts, type MapName, quoted } from "./facts";
import { furthest, listing } from "./listing";
import type { Head, Store } from "./store";

/** A token that looks, one that is looked at, or both. */
export interface Focus {
  query: number | null;
  key: number | null;
}

/** Numbers of all tokens. */
export interface Values {
  values: ArrayLike<number>;
  exact: boolean;
}

const SAID = 3;
const LISTED = 8;
const FAINT = 0.005; // a share of the largest number below which nothing is said of a weight

export class Reading {
  readonly pieces: string[];
  private readonly decoded: Float32Array;
  private readonly name: string;
  private readonly unit: string;

  constructor(
    private readonly store: Store,
    facts: AttentionFacts,
    private readonly map: MapName,
    private readonly shown: number,
    private readonly head: Head,
    private readonly scale: Scale,
  ) {
    this.pieces = store.tokens(map);
    this.decoded = Float32Array.from({ length: 256 }, (_, code) => value(code, scale));
    this.name = facts.heads[shown]!.name;
    this.unit = facts.units[map.mode] ?? "";
  }

  /** Where a token looks. */
  row(query: number): Values {
    const exact = this.store.rowNow(this.map, this.shown, query);
    if (exact) return { values: exact, exact: true };
    const { side, block } = this.head;
    return this.seen(Math.floor(query / block) * side, 1);
  }

  /** Who looks at a token. */
  column(key: number): Values {
    const exact = this.store.columnNow(this.map, this.shown, key);
    if (exact) return { values: exact, exact: true };
    const { side, block } = this.head;
    return this.seen(Math.floor(key / block), side);
  }

  /** Numbers along a line of the map; tokens of one block have the same. */
  private seen(from: number, step: number): Values {
    const { codes, block } = this.head;
    const values = Float32Array.from(
      this.pieces,
      (_, at) => this.decoded[codes[from + step * Math.floor(at / block)]!]!,
    );
    return { values, exact: false };
  }

  /** The tokens of a cell, of a block the first ones. */
  tokens(cell: Cell): { query: number; key: number } {
    return { query: cell.row * this.head.block, key: cell.column * this.head.block };
  }

  /** A cell in words. */
  describe(cell: Cell): string {
    const { codes, side, block } = this.head;
    const { query, key } = this.tokens(cell);
    const code = codes[cell.row * side + cell.column]!;
    if (block > 1) {
      const most = code ? `at most ≈ ${number(this.decoded[code]!, 2)}` : "later";
      return `queries ${this.stretch(query)}, keys ${this.stretch(key)}: ${most}`;
    }
    if (code === 0) return `${this.quoted(key)} comes after ${this.quoted(query)}`;
    const exact = this.store.rowNow(this.map, this.shown, query)?.[key];
    const says = exact === undefined ? `≈ ${number(this.decoded[code]!, 2)}` : number(exact, 4);
    return `${this.quoted(query)} looks at ${this.quoted(key)}: ${says}`;
  }

  /** What is under the pointer, in one line. */
  sentence({ query, key }: Focus): string {
    const row = query === null ? null : this.row(query).values;
    const parts: string[] = [];
    if (row && key !== null && query !== key)
      parts.push(
        `${this.quoted(query!)} looks at ${this.quoted(key)}: ${number(row[key]!, 3)}; most at ${this.most(row)}`,
      );
    else {
      if (row) parts.push(`${this.quoted(query!)} looks at ${this.most(row)}`);
      if (key !== null)
        parts.push(
          `${row ? "is" : `${this.quoted(key)} is`} looked at by ${this.most(this.column(key).values)}`,
        );
    }
    return `${this.name}: ${parts.join(" · ")}`;
  }

  /** The strongest weights of a focus; without one, of the head. */
  tables(focus: Focus | null, without: boolean): HTMLElement[] {
    const found: HTMLElement[] = [];
    const table = (caption: string, { values, exact }: Values) =>
      found.push(
        listing(
          `${this.name}: ${caption}`,
          ["token", this.unit],
          furthest(values, LISTED).map((at) => ({ names: [this.quoted(at)], value: values[at]! })),
          exact,
        ),
      );
    if (focus?.query != null) table(`${this.quoted(focus.query)} looks at`, this.row(focus.query));
    if (focus?.key != null) table(`${this.quoted(focus.key)} is looked at by`, this.column(focus.key));
    return found.length ? found : [this.strongest(without)];
  }

  /** The strongest cells of the head, as far as its colours tell. */
  private strongest(without: boolean): HTMLElement {
    const { codes, side, block } = this.head;
    const values = Float32Array.from(codes, (code, at) =>
      without && at % side === 0 ? 0 : this.decoded[code]!,
    );
    const called = (at: number) => (block === 1 ? this.quoted(at) : this.stretch(at * block));
    const entries = furthest(values, LISTED).map((at) => ({
      names: [called(Math.floor(at / side)), called(at % side)],
      value: values[at]!,
    }));
    return listing(`${this.name}: strongest`, ["token", "looks at", this.unit], entries, false);
  }

  private most(values: ArrayLike<number>): string {
    const least = FAINT * this.scale.high;
    const strong = furthest(values, SAID).filter((at, i) => !i || Math.abs(values[at]!) > least);
    return strong.map((at) => `${this.quoted(at)} ${number(values[at]!, 2)}`).join(", ") || "nothing";
  }

  private quoted(at: number): string {
    return quoted(this.pieces, at);
  }

  private stretch(at: number): string {
    return `${at}–${Math.min(this.pieces.length, at + this.head.block) - 1}`;
  }
}
