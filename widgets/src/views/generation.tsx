// Continuations side by side: each new token coloured by its probability, the edits at work marked, what else was likely.
import { Fragment, type JSX, render } from "preact";
import type { NumberArray } from "../core/arrays";
import { type Scale, code, css, ink } from "../core/codes";
import { number } from "../core/format";
import type { Facts } from "../core/model";
import { choice, scaleBar } from "../core/parts";
import { type Stage, view } from "../core/stage";
import { Likely } from "../text/likely";

interface Edit {
  line: string;
  steps: number[];
}

interface Column {
  prompt: string;
  pieces: string[];
  /** Whether it is known what its tokens were chosen among. */
  known: boolean;
  stopped: string;
  most: number;
  /** The first step that differs from the first text of the same prompt. */
  apart: number | null;
  edits: Edit[];
}

interface GenerationFacts extends Facts {
  columns: Column[];
  tokens: Record<string, string>;
  scales: Record<"probability" | "entropy", Scale>;
  writing: boolean;
  playable: boolean;
  note: string;
}

/** A token by its column and step. */
interface Place {
  column: number;
  step: number;
}

const MOST = 3000;
const ENDED: Record<string, string> = { eos: "ended itself", length: "full length", stop: "stopped" };

export default view<GenerationFacts>("generation", (stage) => {
  const facts = () => stage.facts();
  let focus: Place = { column: 0, step: 0 };
  const told = document.createElement("div");
  const texts = document.createElement("div");
  const among = document.createElement("div");
  const scales = document.createElement("div");
  const tip = document.createElement("div");
  tip.className = "hl-tip hl-among-tip";
  tip.setAttribute("popover", "manual");
  tip.hidden = true;
  stage.body.append(texts, scales, told, among);
  stage.root.append(tip);
  const beside = tools(stage);

  const start = (column: number): number =>
    facts()
      .columns.slice(0, column)
      .reduce((sum, one) => sum + one.pieces.length, 0);
  const values = (name: string): NumberArray => stage.arrays()[name]!;
  const label = (column: number): string => facts().axes[0]!.labels[column]!;
  const step = ({ column, step: at }: Place) => {
    const i = start(column) + at;
    const across = values("ids").shape[1]!;
    const ids = Array.from(values("ids").data.subarray(i * across, (i + 1) * across));
    const chances = Array.from(values("chances").data.subarray(i * across, (i + 1) * across));
    return {
      id: values("id").data[i]!,
      chance: values("chance").data[i]!,
      rank: values("rank").data[i]!,
      entropy: values("entropy").data[i]!,
      likeliest: ids.map((id, rank) => ({ id, chance: chances[rank]! })).filter(({ id }) => id >= 0),
    };
  };
  const acting = ({ column, step: at }: Place): string[] =>
    facts()
      .columns[column]!.edits.filter(({ steps }) => steps.includes(at))
      .map(({ line }) => line);
  const shown = (place: Place): string =>
    facts().columns[place.column]!.pieces[place.step]!.replaceAll(" ", "·");
  const described = (place: Place): string => {
    const { chance, rank, entropy } = step(place);
    const known = Number.isNaN(chance) && rank < 0 ? [] : [`probability ${number(chance)}`, `rank ${rank}`];
    const edits = acting(place);
    return [
      `${label(place.column)} · step ${place.step} ‘${shown(place)}’`,
      [...known, ...(known.length ? [`entropy ${number(entropy)} nats`] : [])].join(", "),
      edits.length ? `under ${edits.join("; ")}` : "",
    ]
      .filter(Boolean)
      .join(": ");
  };
  const chosen = (): Place | null => {
    const [samples, steps] = facts().axes;
    const { sample, step: at } = stage.selection();
    const place = { column: samples!.keys.indexOf(sample!), step: steps!.keys.indexOf(at!) };
    return place.column >= 0 && place.step >= 0 && place.step < facts().columns[place.column]!.pieces.length
      ? place
      : null;
  };
  const choose = (place: Place | null): void =>
    stage.select(place && { sample: facts().axes[0]!.keys[place.column]!, step: place.step });
  const element = ({ column, step: at }: Place): HTMLElement | null =>
    texts.querySelector(`[data-column="${column}"][data-step="${at}"]`);
  const placed = (event: Event): Place | null => {
    const found = (event.target as Element).closest?.<HTMLElement>("[data-step]");
    return found ? { column: Number(found.dataset.column), step: Number(found.dataset.step) } : null;
  };

  // The table of what was likely -----------------------------------------------------------------------------------

  function Among({ place }: { place: Place }): JSX.Element {
    const { id, chance, rank, entropy, likeliest } = step(place);
    const name = (one: number) => facts().tokens[String(one)] ?? `#${one}`;
    const rows = likeliest.map((one, at) => ({ ...one, rank: at }));
    if (rank >= rows.length) rows.push({ id, chance, rank });
    if (!likeliest.length) return <p class="hl-quiet">What it was chosen among is not known.</p>;
    const candidates = rows.map((one) => ({
      id: one.id,
      rank: one.rank,
      text: name(one.id),
      prob: one.chance,
      mark: one.id === id ? "taken" : undefined,
    }));
    return <Likely caption={`step ${place.step}: entropy ${number(entropy)} nats`} rows={candidates} />;
  }

  const hide = (): void => {
    tip.hidden = true;
    if (tip.isConnected) tip.hidePopover?.();
  };
  const peek = (place: Place | null): void => {
    const at = place && element(place);
    stage.say(place ? described(place) : chosen() ? described(chosen()!) : "");
    if (!at || !facts().columns[place.column]!.known) {
      hide();
      return;
    }
    render(<Among place={place} />, tip);
    tip.hidden = false;
    tip.showPopover?.();
    const [box, own] = [at.getBoundingClientRect(), tip.getBoundingClientRect()];
    const below = box.bottom + 6 + own.height <= window.innerHeight || box.top < own.height + 6;
    tip.style.left = `${Math.max(4, Math.min(box.left, window.innerWidth - own.width - 8))}px`;
    tip.style.top = `${below ? box.bottom + 6 : box.top - own.height - 6}px`;
  };

  // The texts ------------------------------------------------------------------------------------------------------

  const colour = (i: number): Record<string, string> => {
    const by = String(stage.options().colour ?? "probability") as "probability" | "entropy" | "none";
    if (by === "none" || values("rank").data[i]! < 0) return {};
    const table = values("colours").data as Uint8Array;
    const at = code(values(by === "entropy" ? "entropy" : "chance").data[i]!, facts().scales[by]);
    return { background: css(table, at), color: ink(table, at) };
  };

  function Token({ place, first, marked }: { place: Place; first: number; marked: boolean }): JSX.Element {
    const { column, step: at } = place;
    const one = facts().columns[column]!;
    const edited = acting(place).length > 0;
    const locked = chosen();
    const here = locked?.column === column && locked.step === at;
    const text = one.pieces[at]!;
    const body = text.trimStart();
    return (
      <>
        {one.apart === at && (
          <span class="hl-apart" title="From here on it differs from the first text." aria-hidden="true">
            ≠
          </span>
        )}
        {text.slice(0, text.length - body.length)}
        {marked && (
          <span class="hl-acting" title={acting(place).join("\n")} aria-hidden="true">
            ✎
          </span>
        )}
        <span
          role="option"
          id={`${stage.root.id}-${column}-${at}`}
          class={`hl-token${edited ? " hl-edited" : ""}`}
          data-column={column}
          data-step={at}
          tabIndex={focus.column === column && focus.step === at ? 0 : -1}
          aria-selected={here}
          aria-label={described(place)}
          style={colour(first + at)}
        >
          <bdi>{body || "·"}</bdi>
        </span>
      </>
    );
  }

  function Text({ column }: { column: number }): JSX.Element {
    const one = facts().columns[column]!;
    const first = start(column);
    const cut = Math.max(0, one.pieces.length - MOST);
    const edited = one.pieces.map((_, at) => acting({ column, step: at }).join("\n"));
    const count = `${one.pieces.length} ${one.pieces.length === 1 ? "token" : "tokens"}`;
    return (
      <section class="hl-text">
        <h5>
          <bdi>{label(column)}</bdi>{" "}
          <span class="hl-quiet">
            {count}
            {one.stopped ? ` · ${ENDED[one.stopped] ?? one.stopped}` : one.pieces.length ? " …" : ""}
            {one.apart !== null && ` · differs from step ${one.apart} on`}
          </span>
        </h5>
        <p class="hl-written">
          <bdi class="hl-quiet">{one.prompt}</bdi>
          <span
            role="listbox"
            tabIndex={-1}
            aria-label={`${label(column)}: tokens written on`}
            aria-orientation="horizontal"
          >
            {one.pieces.slice(0, MOST).map((_, at) => (
              <Token
                key={at}
                place={{ column, step: at }}
                first={first}
                marked={edited[at] !== "" && edited[at] !== edited[at - 1]}
              />
            ))}
          </span>
        </p>
        {cut > 0 && <p class="hl-quiet">{cut} more tokens are not drawn.</p>}
        {one.edits.map(({ line, steps }) => (
          <p key={line} class="hl-edit">
            <span class="hl-acting" aria-hidden="true">
              ✎
            </span>
            <code>{line}</code> <span class="hl-quiet">steps {stretches(steps)}</span>
          </p>
        ))}
      </section>
    );
  }

  const paint = (): void => {
    const counts = facts().columns.map(({ pieces }) => pieces.length);
    if (focus.column >= counts.length || focus.step >= counts[focus.column]!)
      focus = { column: Math.max(0, counts.findIndex(Boolean)), step: 0 };
    render(
      <div class="hl-texts">
        {facts().columns.map((_, column) => (
          <Text key={column} column={column} />
        ))}
      </div>,
      texts,
    );
    const { note } = facts();
    render(note ? <p class="hl-quiet">{note}</p> : null, told);
    detail();
  };
  const detail = (): void => {
    const place = chosen();
    render(
      place && facts().columns[place.column]!.known ? (
        <Fragment>
          <p class="hl-quiet">
            <bdi>{label(place.column)}</bdi>
            {acting(place).map((line) => (
              <Fragment key={line}>
                {" · ✎ "}
                <code>{line}</code>
              </Fragment>
            ))}
          </p>
          <Among place={place} />
        </Fragment>
      ) : null,
      among,
    );
  };

  // Pointer and keys -----------------------------------------------------------------------------------------------

  const on = <K extends keyof HTMLElementEventMap>(
    event: K,
    heard: (event: HTMLElementEventMap[K]) => void,
  ) => texts.addEventListener(event, heard, { signal: stage.signal });
  const go = (place: Place): void => {
    focus = place;
    paint();
    element(place)?.focus();
    peek(place);
  };
  on("pointerover", (event) => peek(placed(event)));
  on("pointerleave", () => peek(null));
  on("focusin", (event) => peek(placed(event)));
  on("focusout", hide);
  on("click", (event) => {
    const place = placed(event);
    const now = chosen();
    if (!place) return;
    focus = place;
    choose(now?.column === place.column && now.step === place.step ? null : place);
  });
  on("keydown", (event) => {
    const place = placed(event);
    if (!place) return;
    const counts = facts().columns.map(({ pieces }) => Math.min(MOST, pieces.length));
    const last = counts[place.column]! - 1;
    const beside = (by: number): Place => {
      for (let column = place.column + by; column >= 0 && column < counts.length; column += by)
        if (counts[column]) return { column, step: Math.min(place.step, counts[column]! - 1) };
      return place;
    };
    const moves: Record<string, () => void> = {
      ArrowRight: () => go({ ...place, step: Math.min(last, place.step + 1) }),
      ArrowLeft: () => go({ ...place, step: Math.max(0, place.step - 1) }),
      ArrowDown: () => go(beside(1)),
      ArrowUp: () => go(beside(-1)),
      Home: () => go({ ...place, step: 0 }),
      End: () => go({ ...place, step: last }),
      Enter: () => choose(place),
      " ": () => choose(place),
      Escape: () => {
        hide();
        stage.select(null);
      },
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    move();
  });

  stage.signal.addEventListener("abort", () => {
    for (const one of [texts, among, told, tip]) render(null, one);
  });
  stage.root.id ||= `hl-generation-${Math.random().toString(36).slice(2)}`;
  return {
    draw() {
      beside();
      const by = String(stage.options().colour ?? "probability");
      const known = facts().columns.some((one) => one.known);
      const table = values("colours").data as Uint8Array;
      scales.replaceChildren(
        ...(known && by !== "none"
          ? [
              scaleBar(
                table,
                facts().scales[by as "probability" | "entropy"],
                by === "entropy" ? "entropy of the step, in nats" : "probability of the token",
              ),
            ]
          : []),
      );
      paint();
    },
    selected() {
      const place = chosen();
      if (place) focus = place;
      paint();
      stage.say(place ? described(place) : "");
    },
  };
});

/**
 * What stands beside the title: the colouring, and a button that writes, or ends the writing. The elements stay the same
 * while a text grows, so that a click that takes longer than a token still hits.
 */
function tools(stage: Stage<GenerationFacts>): () => void {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "hl-button";
  button.addEventListener("click", async () => {
    try {
      await stage.ask(stage.facts().writing ? "stop" : "play");
    } catch (error) {
      stage.tell(error instanceof Error ? error.message : String(error), true);
    }
  });
  const colour = document.createElement("span");
  stage.tools.append(colour, button);
  let shown = "";
  return () => {
    const { columns, playable, writing } = stage.facts();
    button.hidden = !playable;
    const text = writing ? "Stop" : columns.some(({ pieces }) => pieces.length) ? "Write again" : "Write";
    if (button.textContent !== text) button.textContent = text;
    const now = String(stage.options().colour ?? "probability");
    colour.hidden = !columns.some(({ known }) => known);
    if (shown !== now)
      colour.replaceChildren(
        choice("colour", ["probability", "entropy", "none"], now, (one) => stage.option("colour", one)),
      );
    shown = now;
  };
}

/** Numbers in few characters: 0–2, 5. */
export function stretches(steps: number[]): string {
  const found: [number, number][] = [];
  for (const step of steps) {
    const last = found.at(-1);
    if (last && last[1] === step - 1) last[1] = step;
    else found.push([step, step]);
  }
  return found.map(([a, b]) => (b > a ? `${a}–${b}` : String(a))).join(", ") || "none";
}
