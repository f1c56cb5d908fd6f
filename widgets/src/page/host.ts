// Runs views on a page without a kernel: their traits from the page, their questions answered from what it carries.
import type { Model } from "../core/model";
import { type Member, link } from "./linked";

interface Answer {
  ask: string;
  with: Record<string, unknown>;
  reply?: unknown;
  error?: string;
  buffers?: string[];
}

interface State {
  kind: string;
  traits: Record<string, unknown>;
  blob: string;
  answers: Answer[];
  /** How many answers did not fit on the page. */
  left_out: number;
  /** Views of one group choose together, as far as they share axes. */
  group: number;
  shared: string[];
}

type Question = { ask: string; id: string; with: Record<string, unknown> };
type Heard = (...given: unknown[]) => void;
type Module = { render(given: { model: Model; el: HTMLElement; signal: AbortSignal }): unknown };

export const LACKING = "This page holds no answer to that: it has no kernel.";
export const CUT =
  "This page does not hold that part: all of it would have been too large. It has no kernel.";

/** Bytes out of deflated base64. */
async function unpacked(text: string): Promise<DataView> {
  const raw = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new DataView(await new Response(stream).arrayBuffer());
}

const same = (a: unknown, b: unknown): boolean => stable(a) === stable(b);
const stable = (value: unknown): string =>
  JSON.stringify(value, (_, one) =>
    one && typeof one === "object" && !Array.isArray(one)
      ? Object.fromEntries(Object.entries(one).sort())
      : one,
  );

/** A model that lives on the page. */
export function pageModel(state: State, blob: DataView): Model {
  const traits: Record<string, unknown> = { ...state.traits, blob };
  const heard = new Map<string, Set<Heard>>();
  const emit = (event: string, ...given: unknown[]) => {
    for (const one of [...(heard.get(event) ?? [])]) one(...given);
  };
  const answer = async ({ ask, id, with: given }: Question) => {
    try {
      const found = state.answers.find((one) => one.ask === ask && same(one.with, given));
      if (!found) throw new Error(state.left_out ? CUT : LACKING);
      if (found.error !== undefined) throw new Error(found.error);
      emit("msg:custom", { id, reply: found.reply }, await Promise.all((found.buffers ?? []).map(unpacked)));
    } catch (error) {
      emit("msg:custom", { id, error: error instanceof Error ? error.message : String(error) }, []);
    }
  };
  return {
    get: (name) => traits[name],
    set(name, value) {
      if (same(traits[name], value)) return;
      traits[name] = value;
      if (name === "selection") {
        traits._spec = ""; // only a kernel spells a selection
        emit("change:_spec");
      }
      emit(`change:${name}`);
    },
    save_changes: () => undefined,
    send: (content) => void answer(content as Question),
    on(event, one) {
      if (!heard.has(event)) heard.set(event, new Set());
      heard.get(event)!.add(one as Heard);
    },
    off(event, one) {
      if (event && one) heard.get(event)?.delete(one as Heard);
    },
  };
}

/** A view in its place; what stood there without script goes only when the view stands. */
async function raise(state: State, script: Promise<{ default: Module }>, place: HTMLElement): Promise<Model> {
  const { default: module } = await script;
  const model = pageModel(state, await unpacked(state.blob));
  const before = [...place.childNodes];
  const el = place.appendChild(document.createElement("div"));
  try {
    module.render({ model, el, signal: new AbortController().signal });
  } catch (error) {
    el.remove();
    throw error;
  }
  for (const one of before) one.remove();
  return model;
}

export async function start(): Promise<void> {
  const text = document.getElementById("hooklab-state")?.textContent;
  if (!text) return;
  const { scripts, views } = JSON.parse(text) as { scripts: Record<string, string>; views: State[] };
  const modules = Object.fromEntries(
    Object.entries(scripts).map(([kind, script]) => {
      const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
      return [kind, import(/* @vite-ignore */ address) as Promise<{ default: Module }>];
    }),
  );
  const groups = new Map<number, Member[]>();
  for (const [number, state] of views.entries()) {
    const place = document.querySelector<HTMLElement>(`[data-place="${number}"]`);
    if (!place) continue;
    try {
      const model = await raise(state, modules[state.kind]!, place);
      const group = groups.get(state.group) ?? [];
      groups.set(state.group, [...group, { model, shared: state.shared }]);
    } catch (error) {
      console.error(error); // the form without script stays
    }
  }
  for (const members of groups.values()) link(members);
}

if (typeof document !== "undefined") void start();
