// Attention: every head small, one large; for each token, where it looks and who looks at it.
import { type AttentionFacts, type HeadName, type MapName, keyOf } from "../attention/facts";
import { Heads } from "../attention/heads";
import { recoloured } from "../attention/paint";
import { type Focus, Reading } from "../attention/reading";
import { type Head, Store, ending, highest, withoutFirst } from "../attention/store";
import { Strip } from "../attention/strip";
import { tools } from "../attention/tools";
import { dom } from "../core/dom";
import type { AxisFacts } from "../core/model";
import { Pane } from "../core/pane";
import { scaleBar } from "../core/parts";
import { type Stage, view } from "../core/stage";

const PATIENCE = 100; // ms on a head or a token before it is asked for

class Attention {
  private readonly store: Store;
  private readonly heads: Heads;
  private readonly pane: Pane;
  private readonly strip: Strip;
  private readonly title = dom("h5", { class: "hl-attn-title" });
  private readonly under = dom("div");
  private readonly note = dom("p", { class: "hl-attn-note hl-quiet", hidden: true });
  private readonly tables = dom("div", { class: "hl-attn-tables", hidden: true });
  private controls: { sync(): void } = { sync: () => undefined };
  private map: MapName = { prompt: 0, mode: "pattern", against: 0 };
  private shown = 0;
  private head: Head | null = null;
  private reading: Reading | null = null;
  private high = 1;
  private problem = "";
  private hover: Focus | null = null;
  private loading = 0;
  private showing = 0;
  private frame = 0;
  private soon: ReturnType<typeof setTimeout> | undefined;
  private later: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly stage: Stage<AttentionFacts>) {
    const { signal } = stage;
    this.store = new Store(stage);
    this.heads = new Heads(
      { hovered: (head) => this.preview(head), chosen: (head) => this.keep(head) },
      signal,
    );
    this.pane = new Pane(
      {
        label: "one head: arrow keys move, Enter keeps a cell, Escape lets go, plus and minus zoom",
        describe: (cell) => this.reading!.describe(cell),
        hovered: (cell) => this.point(cell && this.directed(this.reading!.tokens(cell))),
        chosen: (cell) => this.choose(cell && this.reading!.tokens(cell)),
      },
      signal,
    );
    this.strip = new Strip(
      {
        hovered: (token) => this.point(token === null ? null : this.directed({ query: token, key: token })),
        chosen: (token) => this.choose(token === null ? null : { query: token, key: null }),
      },
      signal,
    );
    signal.addEventListener("abort", () => this.end(), { once: true });
    const large = dom("div", { class: "hl-attn-large" }, this.title, this.pane.element, this.under);
    const maps = dom("div", { class: "hl-attn-maps" }, this.heads.element, large);
    stage.body.append(maps, this.note, this.strip.element, this.tables);
  }

  async draw(): Promise<void> {
    this.store.open();
    this.strip.show([]);
    this.controls = tools(this.stage, !this.tables.hidden, () => {
      this.tables.hidden = !this.tables.hidden;
      this.update();
      return !this.tables.hidden;
    });
    await this.load();
  }

  async selected(): Promise<void> {
    this.controls.sync();
    if (keyOf(this.wanted()) !== keyOf(this.map)) await this.load();
    const kept = this.kept();
    if (kept !== null && kept !== this.shown) await this.large(kept);
    this.mark();
  }

  async optioned(): Promise<void> {
    this.controls.sync();
    if (keyOf(this.wanted()) !== keyOf(this.map)) await this.load();
    else {
      this.tell();
      this.paint();
    }
    this.mark();
  }

  private end(): void {
    clearTimeout(this.soon);
    clearTimeout(this.later);
    cancelAnimationFrame(this.frame);
  }

  // Which map and which head -----------------------------------------------------------------------------------------

  private wanted(): MapName {
    const { prompts } = this.stage.facts();
    const { mode = "pattern", against } = this.stage.options();
    const place = (key: unknown) =>
      Math.max(
        0,
        prompts.findIndex((one) => one.key === key),
      );
    const prompt = place(this.stage.selection().prompt);
    if (mode !== "difference") return { prompt, mode: String(mode), against: 0 };
    const other = place(against);
    const alike = prompts[prompt]!.pieces.length === prompts[other]!.pieces.length;
    if (prompt === other || !alike) return { prompt, mode: "pattern", against: 0 };
    return { prompt, mode, against: other };
  }

  /** Why the difference that was asked for is not what is shown. */
  private instead(): string {
    const { prompts } = this.stage.facts();
    const { mode, against } = this.stage.options();
    if (mode !== "difference" || this.map.mode === "difference") return "";
    const one = prompts[this.map.prompt]!;
    const other = prompts.find(({ key }) => key === against) ?? prompts[0]!;
    const why =
      one === other
        ? `${one.label} is compared with itself: choose another prompt.`
        : `${one.label} has ${one.pieces.length} tokens and ${other.label} has ${other.pieces.length}: they cannot be compared position by position.`;
    return `${why} The pattern is shown.`;
  }

  private async load(): Promise<void> {
    const mine = ++this.loading;
    const next = this.wanted();
    await this.store.thumbs(next);
    if (mine !== this.loading || this.stage.signal.aborted) return;
    const other = next.prompt !== this.map.prompt || !this.strip.element.childElementCount;
    this.map = next;
    if (other) this.strip.show(this.store.tokens(next));
    this.hover = null;
    await this.large(this.kept() ?? Math.min(this.shown, this.stage.facts().heads.length - 1));
  }

  /** The head that is chosen. */
  private kept(): number | null {
    const { layer = null, head = null } = this.stage.selection();
    if (layer === null && head === null) return null;
    const found = this.stage.facts().heads.findIndex((one) => one.layer === layer && one.head === head);
    return found < 0 ? null : found;
  }

  private keep(at: number | null): void {
    const again = at === null || at === this.kept();
    this.stage.select(this.naming(again ? null : this.stage.facts().heads[at]!));
  }

  /** What a selection says of a head. */
  private naming(head: HeadName | null): Record<string, number | null> {
    const axes = this.stage.facts().axes.map((axis) => axis.name);
    const both = { layer: head?.layer ?? null, head: head?.head ?? null };
    return Object.fromEntries(Object.entries(both).filter(([name]) => axes.includes(name)));
  }

  private preview(at: number | null): void {
    clearTimeout(this.soon);
    const head = at ?? this.kept() ?? this.shown;
    this.showing++; // whatever is on its way is not wanted any more
    if (head === this.shown) return;
    if (this.store.headNow(this.map, head)) void this.large(head);
    else this.soon = setTimeout(() => void this.large(head), PATIENCE);
  }

  /** Show a head large; where it is nowhere to be had, its small picture. */
  private async large(at: number): Promise<void> {
    const mine = ++this.showing;
    const { map, store } = this;
    let problem = "";
    let found = store.headNow(map, at);
    if (!found) {
      try {
        found = await store.head(map, at);
      } catch (error) {
        problem = `${error instanceof Error ? error.message : error} Its small picture is shown.`;
        const { codes, side, block } = store.thumbsNow(map)!;
        found = { codes: codes.subarray(at * side * side, (at + 1) * side * side), side, block };
      }
    }
    if (mine !== this.showing || this.stage.signal.aborted) return;
    this.shown = at;
    this.head = found;
    this.problem = problem;
    this.tell();
    this.paint();
    this.mark();
  }

  // Drawing ----------------------------------------------------------------------------------------------------------

  private tell(): void {
    const block = this.head?.block ?? 1;
    const many = `${this.store.tokens(this.map).length} tokens: each cell is the largest of ${block} × ${block}. Point at a token for its exact numbers.`;
    this.note.textContent = [this.instead(), this.problem || (block > 1 ? many : "")]
      .filter(Boolean)
      .join(" ");
    this.note.hidden = !this.note.textContent;
  }

  private paint(): void {
    const { head, stage } = this;
    if (!head) return;
    const facts = stage.facts();
    const thumbs = this.store.thumbsNow(this.map)!;
    const each = stage.options().scale === "each head";
    const { without } = this;
    const { sequential, diverging } = stage.arrays();
    const signed = thumbs.scale.kind === "diverging";
    const colours = (signed ? diverging : sequential)!.data as Uint8Array;
    this.high = highest(thumbs, each ? this.shown : null, without);
    this.reading = new Reading(this.store, facts, this.map, this.shown, head, thumbs.scale);
    const scale = ending(thumbs.scale, this.high);
    const what = this.map.mode === "difference" ? "difference of attention" : facts.units[this.map.mode]!;
    this.heads.show(facts.heads, facts.gridded, { thumbs, colours, without, each, what });
    const axis = this.axis(head);
    this.pane.show({
      rows: axis,
      columns: { ...axis, name: "key" },
      codes: without && head.block === 1 ? withoutFirst(head.codes, head.side) : head.codes,
      colours: recoloured(colours, thumbs.scale, scale),
      middle: signed ? 130 : 4,
      square: true,
    });
    const { label } = facts.prompts[this.map.prompt]!;
    const minus =
      this.map.mode === "difference" ? `, ${label} − ${facts.prompts[this.map.against]!.label}` : "";
    this.under.replaceChildren(scaleBar(colours, scale, (facts.units[this.map.mode] ?? "") + minus));
  }

  private get without(): boolean {
    return this.stage.options().first_token === "left out";
  }

  private axis({ side, block }: Head): AxisFacts {
    const pieces = this.store.tokens(this.map);
    const keys = Array.from({ length: side }, (_, i) => i * block);
    const last = pieces.length - 1;
    const labels = block === 1 ? pieces : keys.map((at) => `${at}–${Math.min(last, at + block - 1)}`);
    return { name: "query", keys, labels };
  }

  /** Put the marks of what is chosen where they belong. */
  private mark(): void {
    const { pos, key_pos: key } = this.stage.selection();
    const kept = this.kept();
    const block = this.head?.block ?? 1;
    const at = (one: unknown) => (one === undefined ? -1 : Math.floor(Number(one) / block));
    this.heads.choose(kept);
    this.pane.choose(pos === undefined && key === undefined ? null : { row: at(pos), column: at(key) });
    this.strip.choose(pos === undefined ? null : Number(pos));
    const { heads } = this.stage.facts();
    const state = kept === this.shown ? "kept" : kept === null ? "click to keep" : "preview";
    this.title.replaceChildren(
      heads[this.shown]!.name,
      dom("span", { class: "hl-quiet" }, heads.length < 2 ? "" : state),
    );
    this.update();
  }

  // Tokens -----------------------------------------------------------------------------------------------------------

  /** A focus in the direction that is shown. */
  private directed({ query, key }: Focus): Focus {
    const { direction } = this.stage.options();
    return {
      query: direction === "looked at by" ? null : query,
      key: direction === "looks at" ? null : key,
    };
  }

  private chosen(): Focus | null {
    const { pos, key_pos: key } = this.stage.selection();
    if (pos === undefined && key === undefined) return null;
    const query = pos === undefined ? null : Number(pos);
    return this.directed({ query, key: key === undefined ? query : Number(key) });
  }

  /** Keep tokens, and the head that they are looked at in; the same again lets go. */
  private choose(focus: Focus | null): void {
    const { pos = null, key_pos: key = null } = this.stage.selection();
    if (!focus || (focus.query === pos && focus.key === key)) {
      this.stage.select({ pos: null, key_pos: null });
      return;
    }
    const head = this.naming(this.stage.facts().heads[this.shown]!);
    this.stage.select({ ...head, pos: focus.query, key_pos: focus.key });
  }

  private point(focus: Focus | null): void {
    this.hover = focus;
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.update();
    });
  }

  /** Shade the strip, speak, list. */
  private update(): void {
    const { reading } = this;
    if (!reading || this.stage.signal.aborted) return;
    const focus = this.hover ?? this.chosen();
    const [query, key] = [focus?.query ?? null, focus?.key ?? null];
    this.strip.shade(
      [query, key].filter((one) => one !== null),
      query === null ? null : this.shares(reading.row(query).values),
      key === null ? null : this.shares(reading.column(key).values),
    );
    this.stage.say(focus ? reading.sentence(focus) : this.stage.facts().heads[this.shown]!.name);
    if (!this.tables.hidden) this.tables.replaceChildren(...reading.tables(focus, this.without));
    clearTimeout(this.later);
    if (focus) this.later = setTimeout(() => void this.fetch(focus), PATIENCE);
  }

  /** How strongly to shade each token, −1 to 1. */
  private shares(values: ArrayLike<number>): Float32Array {
    return Float32Array.from(
      values,
      (one) => Math.sign(one) * Math.sqrt(Math.min(1, Math.abs(one) / this.high)) || 0,
    );
  }

  /** Ask for the exact numbers of a focus, where they are missing. */
  private async fetch({ query, key }: Focus): Promise<void> {
    const { map, shown, store } = this;
    const lists = this.head!.block > 1 || !this.tables.hidden;
    const found = await Promise.all([
      query !== null && !store.rowNow(map, shown, query) && store.row(map, shown, query),
      key !== null && lists && !store.columnNow(map, shown, key) && store.column(map, shown, key),
    ]);
    if (!found.some(Boolean) || keyOf(map) !== keyOf(this.map) || shown !== this.shown) return;
    this.pane.again();
    this.update();
  }
}

export default view<AttentionFacts>("attention", (stage) => {
  const scene = new Attention(stage);
  return {
    draw: () => scene.draw(),
    selected: () => scene.selected(),
    optioned: () => scene.optioned(),
  };
});
