// Running text, each token on the tint of its number; the number, and what was expected next, beside what is pointed at.
import { Fragment, type JSX, render } from "preact";
import { type Scale, code, css } from "../core/codes";
import { dom } from "../core/dom";
import { number } from "../core/format";
import type { AxisFacts, Facts, Key } from "../core/model";
import { picker, scaleBar } from "../core/parts";
import { view } from "../core/stage";
import { type Candidate, Likely } from "../text/likely";
import { Popup } from "../text/popup";

interface Row {
  label: string;
  /** The pieces say nothing of the spaces between them. */
  apart: boolean;
  pieces: string[];
  special: number[];
}

interface NumberSet {
  name: string;
  unit: string;
  scale: Scale;
  tint: string;
}

interface TokensFacts extends Facts {
  rows: Row[];
  /** The axis of the sets of numbers; empty where there is one set, or none. */
  which: string;
  sets: NumberSet[];
  tokens: Record<string, string>;
  ahead: boolean;
  note: string;
  /** Tokens that are drawn at once. */
  most: number;
}

/** A token: its row, its place there, and its place among all. */
interface Place {
  row: number;
  at: number;
  i: number;
}

export default view<TokensFacts>("tokens", (stage) => {
  const facts = () => stage.facts();
  let starts: number[] = [];
  let total = 0;
  let focus = 0;
  let page = 0;
  const flow = dom("div", { class: "hl-flow" });
  const pages = dom("div", { class: "hl-pages" });
  const scale = dom("div");
  const detail = dom("div");
  stage.body.append(flow, pages, scale, detail);
  const popup = new Popup(stage.root, stage.signal);

  const axis = (name: string): AxisFacts | undefined => facts().axes.find((one) => one.name === name);
  const several = () => facts().rows.length > 1;
  const place = (i: number): Place => {
    let row = 0;
    while (row + 1 < starts.length && starts[row + 1]! <= i) row++;
    return { row, at: i - starts[row]!, i };
  };
  const set = (): number => {
    const which = axis(facts().which);
    return which ? Math.max(0, which.keys.indexOf(stage.selection()[which.name] ?? which.keys[0]!)) : 0;
  };
  const value = (i: number, n = set()): number => stage.arrays().values!.data[n * total + i]!;
  const text = ({ row, at }: Place): string => facts().rows[row]!.pieces[at]!.replaceAll("\n", "");
  const position = ({ at }: Place): string => String(several() ? at : axis("pos")!.keys[at]);
  const measure = (i: number, n: number): string => {
    const { name, unit } = facts().sets[n]!;
    return `${name} ${exact(value(i, n))}${unit && unit !== name ? ` ${unit}` : ""}`;
  };
  const describe = (i: number): string => {
    const one = place(i);
    const row = several() ? `${axis("batch")!.labels[one.row]} · ` : "";
    const came = facts().ahead && stage.arrays().rank!.data[i]! >= 0 ? ` · ${next(i)}` : "";
    const own = facts().sets.length ? `: ${measure(i, set())}` : "";
    return `${row}${position(one)} ‘${text(one)}’${own}${came}`;
  };
  const next = (i: number): string =>
    `next came rank ${stage.arrays().rank!.data[i]}, probability ${number(stage.arrays().prob!.data[i]!)}`;
  const chosen = (): number => {
    const { pos, batch } = stage.selection();
    const row = several() ? axis("batch")!.keys.indexOf(batch!) : 0;
    const at = several() ? Number(pos ?? -1) : axis("pos")!.keys.indexOf(pos!);
    return row >= 0 && at >= 0 && at < facts().rows[row]!.pieces.length ? starts[row]! + at : -1;
  };
  const choose = (i: number): void => {
    const { row, at } = place(i);
    const keys: Record<string, Key> = several()
      ? { batch: axis("batch")!.keys[row]!, pos: at }
      : { pos: axis("pos")!.keys[at]! };
    stage.select(keys);
  };
  const clear = (): void => stage.select(several() ? { pos: null, batch: null } : { pos: null });
  const element = (i: number): HTMLElement | null => flow.querySelector(`[data-i="${i}"]`);

  // What was expected next ------------------------------------------------------------------------------------------

  const candidates = (i: number): Candidate[] => {
    const { ids, probs, prob, rank } = stage.arrays();
    const across = ids!.shape[1]!;
    const came = rank!.data[i]!;
    const { row, at } = place(i);
    const mark = at + 1 < facts().rows[row]!.pieces.length ? "came" : undefined;
    const found = Array.from(ids!.data.subarray(i * across, (i + 1) * across), (id, n) => ({
      id,
      rank: n,
      text: facts().tokens[id] ?? `#${id}`,
      prob: probs!.data[i * across + n]!,
      mark: n === came ? mark : undefined,
    })).filter(({ id }) => id >= 0);
    if (mark && (came < 0 || came >= across))
      found.push({ id: -1, rank: came, text: text(place(i + 1)), prob: prob!.data[i]!, mark });
    return found;
  };

  function About({ i }: { i: number }): JSX.Element {
    const one = place(i);
    const each =
      facts().which === "value" ? facts().sets.map((_, n) => n) : facts().sets.length ? [set()] : [];
    return (
      <div class="hl-about">
        <div>
          <p>
            <span class="hl-quiet">
              {several() && <bdi>{axis("batch")!.labels[one.row]} · </bdi>}
              {position(one)}
            </span>{" "}
            <bdi class="hl-piece">{text(one)}</bdi>
          </p>
          {each.map((n) => (
            <p key={n} class={each.length > 1 && n === set() ? "hl-now" : undefined}>
              {measure(i, n)}
            </p>
          ))}
        </div>
        {facts().ahead && <Likely caption="expected next" rows={candidates(i)} />}
      </div>
    );
  }

  const peek = (i: number): void => {
    const at = i >= 0 ? element(i) : null;
    const kept = chosen();
    stage.say(i >= 0 ? describe(i) : kept >= 0 ? describe(kept) : "");
    if (at) popup.show(at, <About i={i} />);
    else popup.hide();
  };

  // The text ----------------------------------------------------------------------------------------------------------

  function Token({ i, piece, special }: { i: number; piece: string; special: boolean }): JSX.Element {
    const one = facts().sets[set()];
    const style = one
      ? {
          "--hl-tint": css(stage.arrays()[`tint.${one.tint}`]!.data as Uint8Array, code(value(i), one.scale)),
        }
      : undefined;
    const nan = one && Number.isNaN(value(i));
    return (
      <span
        role="option"
        data-i={i}
        class={`hl-tok${special ? " hl-special" : ""}${nan ? " hl-none" : ""}`}
        tabIndex={i === focus ? 0 : -1}
        aria-selected={i === chosen()}
        style={style}
      >
        <bdi>{piece}</bdi>
      </span>
    );
  }

  function Text({ row }: { row: number }): JSX.Element | null {
    const one = facts().rows[row]!;
    const first = starts[row]!;
    const from = Math.max(0, page * facts().most - first);
    const to = Math.min(one.pieces.length, (page + 1) * facts().most - first);
    const special = new Set(one.special);
    if (to <= from) return null;
    return (
      <section class="hl-prompt">
        {several() && (
          <h5>
            <bdi>{axis("batch")!.labels[row]}</bdi>
          </h5>
        )}
        <div
          class="hl-running"
          role="listbox"
          aria-orientation="horizontal"
          aria-label={named(row)}
          dir="auto"
        >
          {from > 0 && <span class="hl-quiet">… </span>}
          {one.pieces.slice(from, to).map((piece, n) => (
            <Fragment key={from + n}>
              {one.apart && n > 0 && " "}
              <Token i={first + from + n} piece={piece} special={special.has(from + n)} />
            </Fragment>
          ))}
          {to < one.pieces.length && <span class="hl-quiet"> …</span>}
        </div>
      </section>
    );
  }

  const named = (row: number): string =>
    `${several() ? `${axis("batch")!.labels[row]}: ` : ""}tokens; arrow keys move, Enter chooses, Escape clears`;

  const turn = (to: number): void => {
    page = Math.max(0, Math.min(Math.ceil(total / facts().most) - 1, to));
    if (Math.floor(focus / facts().most) !== page) focus = page * facts().most;
    popup.hide();
    paint();
  };
  const paint = (): void => {
    const { rows, note } = facts();
    render(
      <>
        {rows.map((_, row) => (
          <Text key={row} row={row} />
        ))}
        {note && <p class="hl-quiet">{note}</p>}
      </>,
      flow,
    );
    const last = Math.min(total, (page + 1) * facts().most);
    render(
      total > facts().most ? (
        <>
          <button type="button" class="hl-button" disabled={!page} onClick={() => turn(page - 1)}>
            Earlier
          </button>
          <span>
            tokens {page * facts().most}–{last - 1} of {total}
          </span>
          <button type="button" class="hl-button" disabled={last === total} onClick={() => turn(page + 1)}>
            Later
          </button>
        </>
      ) : null,
      pages,
    );
  };
  const mark = (): void => {
    const here = chosen();
    for (const one of flow.querySelectorAll('[aria-selected="true"]'))
      one.setAttribute("aria-selected", "false");
    if (here >= 0) element(here)?.setAttribute("aria-selected", "true");
    render(here >= 0 ? <About i={here} /> : null, detail);
    stage.say(here >= 0 ? describe(here) : "");
  };
  const aim = (i: number): void => {
    element(focus)?.setAttribute("tabindex", "-1");
    focus = i;
    element(i)?.setAttribute("tabindex", "0");
  };

  // Pointer and keys ----------------------------------------------------------------------------------------------------

  const on = <K extends keyof HTMLElementEventMap>(
    event: K,
    heard: (event: HTMLElementEventMap[K]) => void,
  ) => flow.addEventListener(event, heard, { signal: stage.signal });
  const placed = (event: Event): number => {
    const found = (event.target as Element).closest?.<HTMLElement>("[data-i]");
    return found ? Number(found.dataset.i) : -1;
  };
  const go = (i: number): void => {
    const to = Math.max(0, Math.min(total - 1, i));
    if (Math.floor(to / facts().most) !== page) {
      focus = to;
      turn(Math.floor(to / facts().most));
    }
    aim(to);
    element(to)?.focus();
  };
  /** The token on the line above or below, nearest across. */
  const line = (i: number, by: 1 | -1): number => {
    const from = element(i)?.getClientRects()[0];
    if (!from) return i;
    let best = i;
    let near = Number.POSITIVE_INFINITY;
    let top: number | null = null;
    for (let n = i + by; n >= 0 && n < total; n += by) {
      const box = element(n)?.getClientRects()[0];
      if (!box) break;
      if (Math.abs(box.top - from.top) < 4) continue;
      top ??= box.top;
      if (Math.abs(box.top - top) > 4) break;
      const far = Math.abs(box.left + box.width / 2 - from.left - from.width / 2);
      if (far < near) [best, near] = [n, far];
    }
    return best;
  };
  on("pointerover", (event) => peek(placed(event)));
  on("pointerleave", () => peek(-1));
  on("focusin", (event) => peek(placed(event)));
  on("focusout", () => popup.hide());
  on("click", (event) => {
    const i = placed(event);
    if (i < 0) return;
    aim(i);
    if (i === chosen()) clear();
    else choose(i);
  });
  on("keydown", (event) => {
    const i = placed(event);
    if (i < 0) return;
    const { row } = place(i);
    const moves: Record<string, () => void> = {
      ArrowRight: () => go(i + 1),
      ArrowLeft: () => go(i - 1),
      ArrowDown: () => go(line(i, 1)),
      ArrowUp: () => go(line(i, -1)),
      Home: () => go(starts[row]!),
      End: () => go((starts[row + 1] ?? total) - 1),
      Enter: () => choose(i),
      " ": () => choose(i),
      Escape: () => {
        popup.hide();
        clear();
      },
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    move();
  });
  stage.signal.addEventListener("abort", () => {
    for (const one of [flow, pages, detail]) render(null, one);
  });

  const tools = (): void => {
    const which = axis(facts().which);
    stage.tools.replaceChildren(
      ...(which
        ? [picker(which, stage.selection()[which.name], (key) => stage.select({ [which.name]: key }))]
        : []),
    );
    const one = facts().sets[set()];
    const named =
      one && [one.name, one.unit].filter((part, n) => part && (!n || part !== one.name)).join(" · ");
    scale.replaceChildren(
      ...(one ? [scaleBar(stage.arrays()[`tint.${one.tint}`]!.data as Uint8Array, one.scale, named!)] : []),
    );
  };
  let shown = -1;
  return {
    draw() {
      starts = [];
      total = 0;
      for (const { pieces } of facts().rows) {
        starts.push(total);
        total += pieces.length;
      }
      if (focus >= total) focus = 0;
      page = Math.min(page, Math.ceil(total / facts().most) - 1);
      shown = set();
      tools();
      paint();
    },
    selected() {
      const here = chosen();
      if (set() !== shown) {
        shown = set();
        tools();
        paint();
      }
      if (here >= 0) {
        if (Math.floor(here / facts().most) !== page) {
          focus = here;
          turn(Math.floor(here / facts().most));
        }
        aim(here);
      }
      mark();
    },
  };
});

/** A number with six significant digits, and no zeros after the last of them. */
const exact = (one: number): string =>
  number(one, 6)
    .replace(/(\.\d*?)0+(?=$|e)/, "$1")
    .replace(/\.(?=$|e)/, "");
