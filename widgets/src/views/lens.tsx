// A logit lens: tokens that each layer would predict next, by layer and position; one of them followed through the layers.
import { type JSX, render } from "preact";
import { type NumberArray, arrays } from "../core/arrays";
import { type Scale, code, css } from "../core/codes";
import { dom } from "../core/dom";
import { number } from "../core/format";
import type { Facts, Key } from "../core/model";
import { colourBar } from "../core/pane";
import { choice, scaleBar } from "../core/parts";
import { view } from "../core/stage";
import { type Candidate, Likely } from "../text/likely";
import { Popup } from "../text/popup";
import { type Line, Track } from "../text/track";

type Mode = "probability" | "rank" | "entropy";
type Block = Record<string, NumberArray>;
type Sent = { arrays: Facts["arrays"]; tokens: Record<string, string> };
type Standing = { prob: number; rank: number };

interface LensFacts extends Facts {
  across: number;
  first: number;
  k: number;
  modes: Mode[];
  tokens: Record<string, string>;
  target: string;
  scales: Record<Mode, Scale>;
}

/** A cell: which layer, and which position of all. */
interface Cell {
  layer: number;
  pos: number;
}

const ROWS = 24;
const PATIENCE = 90_000;

export default view<LensFacts>("lens", (stage) => {
  const facts = () => stage.facts();
  const layers = () => facts().axes[0]!;
  const positions = () => facts().axes[1]!;
  let blocks = new Map<number, Block>();
  let pinned = new Map<string, Block>();
  let lines = new Map<string, Line>();
  let texts: Record<string, string> = {};
  let first = 0;
  let focus: Cell = { layer: 0, pos: 0 };
  let turns = 0;
  const table = dom("div", { class: "hl-lens" });
  const pages = dom("div", { class: "hl-pages" });
  const scale = dom("div");
  const detail = dom("div");
  stage.body.append(table, pages, scale, detail);
  const popup = new Popup(stage.root, stage.signal);

  const mode = () => String(stage.options().mode ?? "probability") as Mode;
  const token = () => Number(stage.options().token ?? -1);
  const pin = (id: number): void => stage.option("token", id);
  const size = () => positions().keys.length;
  const last = () => Math.min(size(), first + facts().across);
  const text = (id: number): string => texts[id] ?? `#${id}`;
  const block = () => blocks.get(first)!;
  const across = (one: Block): number => one.ids!.shape[1]!;
  const place = (one: Block, { layer, pos }: Cell): number => layer * across(one) + pos - first;

  /** The layers that are drawn, the last on top; thinned ones keep the last. */
  const every = (): number => {
    const count = layers().keys.length;
    return Math.max(1, Math.floor(Number(stage.options().every ?? 0)) || Math.ceil(count / ROWS));
  };
  const drawn = (): number[] => {
    const found: number[] = [];
    for (let i = layers().keys.length - 1; i >= 0; i -= every()) found.push(i);
    const kept = chosen()?.layer ?? found[0]!;
    return found.includes(kept) ? found : [...found, kept].sort((a, b) => b - a);
  };

  // What a cell says ------------------------------------------------------------------------------------------------

  const target = ({ pos }: Cell): number => block().target!.data[pos - first]!;
  /** The token whose rank is shown: the pinned one, or the target. */
  const followed = (cell: Cell): number => (token() >= 0 ? token() : target(cell));
  /** Probability and rank of a token, as far as they are here. */
  const standing = (cell: Cell, id = followed(cell)): Standing => {
    const found = id >= 0 && likeliest(cell).find((one) => one.id === id);
    if (found) return found;
    const here = id === target(cell) ? block() : pinned.get(`${id} ${first}`);
    const i = place(block(), cell);
    return { prob: here?.prob?.data[i] ?? Number.NaN, rank: here?.rank?.data[i] ?? -1 };
  };
  const entropy = (cell: Cell): number => block().entropy!.data[place(block(), cell)]!;
  const likeliest = (cell: Cell): Candidate[] => {
    const one = block();
    const k = one.ids!.shape[2]!;
    const start = place(one, cell) * k;
    return Array.from({ length: k }, (_, rank) => {
      const id = one.ids!.data[start + rank]!;
      return {
        id,
        rank,
        text: text(id),
        prob: one.probs!.data[start + rank]!,
        mark: id === target(cell) ? mark() : undefined,
      };
    });
  };
  const mark = (): string => (facts().target === "the token that came next" ? "came" : "target");
  const shaded = (cell: Cell): number => {
    if (mode() === "entropy") return entropy(cell);
    if (mode() === "rank") {
      const { rank } = standing(cell);
      return rank < 0 ? Number.NaN : Math.log10(1 + rank);
    }
    return block().probs!.data[place(block(), cell) * block().ids!.shape[2]!]!;
  };
  const described = (cell: Cell): string => {
    const [best] = likeliest(cell);
    const where = `layer ${layers().keys[cell.layer]} · ${positions().keys[cell.pos]} ‘${positions().labels[cell.pos]}’`;
    const id = followed(cell);
    const { prob, rank } = standing(cell);
    const how = rank < 0 ? `is not among the first ${facts().k}` : `rank ${rank}, ${number(prob)}`;
    const other = id >= 0 && id !== best!.id ? ` · ‘${text(id)}’ ${how}` : "";
    const bits = Number.isNaN(entropy(cell)) ? "" : ` · entropy ${number(entropy(cell))} nats`;
    return `${where}: ‘${best!.text}’ ${number(best!.prob)}${other}${bits}`;
  };

  // The table -------------------------------------------------------------------------------------------------------

  const tint = (): Uint8Array =>
    stage.arrays()[mode() === "rank" ? "tint.fall" : "tint.up"]!.data as Uint8Array;

  function CellView({ cell }: { cell: Cell }): JSX.Element {
    const value = shaded(cell);
    const [best] = likeliest(cell);
    const said =
      mode() === "rank" ? (Number.isNaN(value) ? "–" : String(Math.round(10 ** value - 1))) : best!.text;
    const here = cell.layer === focus.layer && cell.pos === focus.pos;
    const kept = chosen();
    return (
      <td
        class={`hl-guess${token() >= 0 && best!.id === token() ? " hl-pin" : ""}`}
        data-layer={cell.layer}
        data-pos={cell.pos}
        tabIndex={here ? 0 : -1}
        aria-current={kept?.layer === cell.layer && kept.pos === cell.pos ? "true" : undefined}
        style={{
          background: Number.isNaN(value) ? undefined : css(tint(), code(value, facts().scales[mode()])),
        }}
      >
        <bdi>{said}</bdi>
      </td>
    );
  }

  function Table(): JSX.Element {
    const columns = Array.from({ length: last() - first }, (_, n) => first + n);
    return (
      <table aria-label="logit lens: arrow keys move, Enter chooses, Escape clears">
        <thead>
          <tr>
            <th scope="col" class="hl-side">
              layer
            </th>
            {columns.map((pos) => (
              <th key={pos} scope="col" title={positions().labels[pos]}>
                {typeof positions().keys[pos] === "number" && (
                  <span class="hl-quiet">{positions().keys[pos] as number}</span>
                )}
                {String(positions().keys[pos]) !== positions().labels[pos] && (
                  <bdi>{positions().labels[pos]}</bdi>
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {drawn().map((layer) => (
            <tr key={layer}>
              <th scope="row" class="hl-side">
                {layers().labels[layer]}
              </th>
              {columns.map((pos) => (
                <CellView key={pos} cell={{ layer, pos }} />
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    );
  }

  const paint = (): void => {
    if (!drawn().includes(focus.layer)) focus = { ...focus, layer: drawn()[0]! };
    if (focus.pos < first || focus.pos >= last()) focus = { ...focus, pos: first };
    render(<Table />, table);
    const step = facts().across;
    const hidden = layers().keys.length - drawn().length;
    render(
      <>
        {size() > step && (
          <>
            <button
              type="button"
              class="hl-button"
              disabled={first === 0}
              onClick={() => void turn(first - step)}
            >
              Earlier
            </button>
            <label>
              positions
              <input
                type="number"
                min={0}
                max={size() - 1}
                value={first}
                onChange={(event) => void turn(Number(event.currentTarget.value))}
              />
              – {last() - 1} of {size()}
            </label>
            <button
              type="button"
              class="hl-button"
              disabled={last() === size()}
              onClick={() => void turn(first + step)}
            >
              Later
            </button>
          </>
        )}
        {hidden > 0 && (
          <span>
            every {every()} layers: {hidden} of {layers().keys.length} are left out
          </span>
        )}
      </>,
      pages,
    );
    bar();
  };
  const bar = (): void => {
    const one = facts().scales[mode()];
    const followed = token() >= 0 ? `‘${text(token())}’` : facts().target;
    if (mode() !== "rank") {
      const unit = mode() === "entropy" ? "entropy, in nats" : "probability of the likeliest token";
      scale.replaceChildren(scaleBar(tint(), one, unit));
      return;
    }
    const ticks = [0, 10, 100, 1000, 10000, 100000].filter((rank) => Math.log10(1 + rank) <= one.high);
    scale.replaceChildren(
      colourBar(
        tint(),
        ticks.map((rank) => ({ at: Math.log10(1 + rank) / one.high, text: number(rank) })),
        `rank of ${followed}`,
      ),
    );
  };

  // What is not here yet --------------------------------------------------------------------------------------------

  const said = (error: unknown): string => (error instanceof Error ? error.message : String(error));
  /** Ask, waiting aloud; null where no answer came, which is said. */
  const ask = async (name: string, given: Record<string, unknown>): Promise<Block | null> => {
    const mine = ++turns;
    const slow = setTimeout(() => mine === turns && stage.tell("Waiting for the kernel …"), 300);
    try {
      const { reply, buffers } = await stage.ask<Sent>(name, given, PATIENCE);
      stage.tell(null);
      texts = { ...texts, ...reply.tokens };
      return arrays(buffers[0], reply.arrays);
    } catch (error) {
      stage.tell(said(error), true);
      return null;
    } finally {
      clearTimeout(slow);
    }
  };
  const turn = async (to: number): Promise<void> => {
    const step = facts().across;
    const start = Math.floor(Math.max(0, Math.min(size() - 1, to || 0)) / step) * step;
    popup.hide();
    if (!blocks.has(start)) {
      const found = await ask("columns", { first: start });
      if (!found) return;
      blocks.set(start, found);
    }
    first = start;
    await fill();
    paint();
  };
  /** Numbers of the shown columns that the mode needs. */
  const fill = async (): Promise<void> => {
    const key = `${token()} ${first}`;
    if (mode() === "rank" && token() >= 0 && !pinned.has(key)) {
      const found = await ask("token", { token: token(), first });
      if (found) pinned.set(key, found);
    }
    const missing = Number.isNaN(block().entropy!.data[0]) && mode() !== "probability";
    if (missing && more() && (mode() === "entropy" || token() < 0)) {
      const found = await ask("more", { first });
      if (found) blocks.set(first, { ...block(), ...found });
    }
  };
  /** Whether there is a model to ask for other numbers than those sent. */
  const more = () => facts().modes.includes("entropy");

  // The chosen cell -------------------------------------------------------------------------------------------------

  const chosen = (): Cell | null => {
    const { layer, pos } = stage.selection();
    const found = { layer: layers().keys.indexOf(layer!), pos: positions().keys.indexOf(pos!) };
    return found.layer >= 0 && found.pos >= 0 ? found : null;
  };
  const choose = (cell: Cell): void =>
    stage.select({ layer: layers().keys[cell.layer]!, pos: positions().keys[cell.pos]! });

  /** A token through the layers at a position: from what is here, else from the kernel. */
  const line = async (id: number, pos: number): Promise<Line> => {
    const each = layers().keys.map((_, layer) => standing({ layer, pos }, id));
    let found: Line = { prob: each.map(({ prob }) => prob), rank: each.map(({ rank }) => rank), why: "" };
    if (!found.rank.some((rank) => rank < 0) || !more()) return found;
    try {
      const { reply } = await stage.ask<{ prob: (number | string)[]; rank: number[]; text: string }>(
        "track",
        { token: id, pos: positions().keys[pos]! },
        PATIENCE,
      );
      found = { prob: reply.prob.map(Number), rank: reply.rank, why: "" };
      texts[id] ??= reply.text;
      lines.set(`${id} ${pos}`, found);
    } catch (error) {
      found.why = said(error);
    }
    return found;
  };

  function Chosen({ cell, id, line }: { cell: Cell; id: number; line?: Line }): JSX.Element {
    const rows = likeliest(cell);
    for (const one of new Set([followed(cell), target(cell)]))
      if (one >= 0 && !rows.some((row) => row.id === one)) {
        const known =
          line && one === id
            ? { prob: line.prob[cell.layer]!, rank: line.rank[cell.layer]! }
            : standing(cell, one);
        rows.push({ id: one, text: text(one), ...known, mark: one === target(cell) ? mark() : undefined });
      }
    const bits = entropy(cell);
    return (
      <div class="hl-follow">
        <div>
          <Likely
            caption={`${heading(cell)}${Number.isNaN(bits) ? "" : ` · entropy ${number(bits)} nats`}`}
            rows={rows}
            pick={(one) => pin(one.id === token() ? -1 : one.id)}
            picked={token()}
          />
        </div>
        {line && (
          <Track
            name={text(id)}
            keys={layers().keys}
            at={cell.layer}
            kept={facts().k}
            pinned={id === token()}
            {...line}
          />
        )}
      </div>
    );
  }
  const heading = ({ layer, pos }: Cell): string =>
    `layer ${layers().keys[layer]}, after ${positions().keys[pos]} ‘${positions().labels[pos]}’`;

  let following = 0;
  const follow = async (): Promise<void> => {
    const mine = ++following;
    const cell = chosen();
    if (!cell || cell.pos < first || cell.pos >= last()) {
      render(null, detail);
      return;
    }
    const pinnedOrTarget = followed(cell);
    const id = pinnedOrTarget >= 0 ? pinnedOrTarget : likeliest(cell)[0]!.id;
    let found = lines.get(`${id} ${cell.pos}`);
    if (!found) render(<Chosen cell={cell} id={id} />, detail);
    found ??= await line(id, cell.pos);
    if (mine === following && !stage.signal.aborted)
      render(<Chosen cell={cell} id={id} line={found} />, detail);
  };

  // Pointer and keys ------------------------------------------------------------------------------------------------

  const element = ({ layer, pos }: Cell): HTMLElement | null =>
    table.querySelector(`[data-layer="${layer}"][data-pos="${pos}"]`);
  const placed = (event: Event): Cell | null => {
    const found = (event.target as Element).closest?.<HTMLElement>("[data-layer]");
    return found ? { layer: Number(found.dataset.layer), pos: Number(found.dataset.pos) } : null;
  };
  const resting = (): string => {
    const cell = chosen();
    return cell && cell.pos >= first && cell.pos < last() ? described(cell) : "";
  };
  const peek = (cell: Cell | null): void => {
    const at = cell && element(cell);
    stage.say(cell ? described(cell) : resting());
    if (cell && at)
      popup.show(
        at,
        <div class="hl-about">
          <Likely caption={heading(cell)} rows={likeliest(cell)} />
        </div>,
      );
    else popup.hide();
  };
  const aim = (cell: Cell): void => {
    element(focus)?.setAttribute("tabindex", "-1");
    focus = cell;
    element(cell)?.setAttribute("tabindex", "0");
  };
  const go = async (cell: Cell): Promise<void> => {
    const pos = Math.max(0, Math.min(size() - 1, cell.pos));
    if (pos < first || pos >= last()) await turn(pos);
    if (pos < first || pos >= last()) return;
    aim({ ...cell, pos });
    element(focus)?.focus();
    element(focus)?.scrollIntoView?.({ block: "nearest", inline: "nearest" });
  };
  const on = <K extends keyof HTMLElementEventMap>(
    event: K,
    heard: (event: HTMLElementEventMap[K]) => void,
  ) => table.addEventListener(event, heard, { signal: stage.signal });
  on("pointerover", (event) => peek(placed(event)));
  on("pointerleave", () => peek(null));
  on("focusin", (event) => peek(placed(event)));
  on("focusout", () => popup.hide());
  on("click", (event) => {
    const cell = placed(event);
    const now = chosen();
    if (!cell) return;
    aim(cell);
    if (now?.layer === cell.layer && now.pos === cell.pos) stage.select({ layer: null, pos: null });
    else choose(cell);
  });
  on("keydown", (event) => {
    const cell = placed(event);
    if (!cell) return;
    const rows = drawn();
    const row = rows.indexOf(cell.layer);
    const beside = (by: number): Cell => ({
      ...cell,
      layer: rows[Math.max(0, Math.min(rows.length - 1, row + by))]!,
    });
    const moves: Record<string, () => void> = {
      ArrowRight: () => void go({ ...cell, pos: cell.pos + 1 }),
      ArrowLeft: () => void go({ ...cell, pos: cell.pos - 1 }),
      ArrowDown: () => void go(beside(1)),
      ArrowUp: () => void go(beside(-1)),
      Home: () => void go({ ...cell, pos: first }),
      End: () => void go({ ...cell, pos: last() - 1 }),
      Enter: () => choose(cell),
      " ": () => choose(cell),
      Escape: () => {
        popup.hide();
        stage.select({ layer: null, pos: null });
      },
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    move();
  });
  stage.signal.addEventListener("abort", () => {
    for (const one of [table, pages, detail]) render(null, one);
  });

  const tools = (): void => {
    const { modes } = facts();
    const steps = [1, 2, 3, 4, 6, 8].filter((step) => step < layers().keys.length);
    const release = dom("button", {
      class: "hl-button",
      type: "button",
      title: "Follow no token",
      onclick: () => pin(-1),
    });
    release.append("unpin ", dom("bdi", { class: "hl-piece" }, text(token())));
    const list = [
      choice("shade", modes, mode(), (one) => stage.option("mode", one)),
      ...(layers().keys.length > 6
        ? [
            choice("every n-th layer", steps.map(String), String(every()), (one) =>
              stage.option("every", Number(one)),
            ),
          ]
        : []),
      ...(token() >= 0 ? [release] : []),
    ];
    const held = stage.tools.contains(document.activeElement)
      ? [...stage.tools.querySelectorAll("select")].indexOf(document.activeElement as HTMLSelectElement)
      : -1;
    stage.tools.replaceChildren(...list);
    if (held >= 0) stage.tools.querySelectorAll("select")[held]?.focus();
  };
  const here = (pos: Key | undefined): number => {
    const at = pos === undefined ? -1 : positions().keys.indexOf(pos);
    return at < 0 ? facts().first : at;
  };
  return {
    async draw() {
      const sent = stage.arrays();
      first = facts().first;
      blocks = new Map([[first, sent]]);
      pinned = new Map();
      lines = new Map();
      texts = { ...facts().tokens };
      focus = { layer: layers().keys.length - 1, pos: first };
      tools();
      await turn(here(stage.selection().pos));
    },
    async optioned() {
      await fill();
      tools();
      paint();
      await follow();
    },
    async selected() {
      const cell = chosen();
      if (cell && (cell.pos < first || cell.pos >= last())) await turn(cell.pos);
      if (cell && !element(cell)) paint();
      if (cell && element(cell)) aim(cell);
      for (const one of table.querySelectorAll('[aria-selected="true"]'))
        one.setAttribute("aria-selected", "false");
      if (cell) element(cell)?.setAttribute("aria-current", "true");
      stage.say(resting());
      await follow();
    },
  };
});
