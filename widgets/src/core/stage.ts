// The stage of a view: its frame on the page, its traits, its questions; every view is built on one.
import { type NumberArray, arrays } from "./arrays";
import { type Ask, asker } from "./ask";
import { dom } from "./dom";
import { type Facts, type Model, type Options, type Selection, listen } from "./model";

export interface Stage<F extends Facts = Facts> {
  readonly root: HTMLElement;
  readonly tools: HTMLElement;
  readonly body: HTMLElement;
  readonly signal: AbortSignal;
  readonly ask: Ask;
  facts(): F;
  arrays(): Record<string, NumberArray>;
  selection(): Selection;
  /** Choose: keys that are null are left out, an empty answer clears everything. */
  select(change: Record<string, Selection[string] | null> | null): void;
  options(): Options;
  option(name: string, value: Options[string]): void;
  /** What is under the pointer or the cursor, spoken and shown in one line. */
  say(text: string): void;
  /** A line about the view as a whole: that it waits, or what went wrong; null takes it away. */
  tell(text: string | null, wrong?: boolean): void;
}

export interface Scene {
  /** The data changed: draw everything. */
  draw(): void | Promise<void>;
  /** The selection changed. */
  selected?(): void | Promise<void>;
  /** An option changed; the view is drawn anew where this is missing. */
  optioned?(): void | Promise<void>;
}

interface Given {
  model: Model;
  el: HTMLElement;
  signal?: AbortSignal;
}

/** A view as a notebook wants it. */
export function view<F extends Facts>(kind: string, build: (stage: Stage<F>) => Scene) {
  return {
    render({ model, el, signal }: Given): () => void {
      const end = new AbortController();
      signal?.addEventListener("abort", () => end.abort(), { once: true });
      const stage = raise<F>(kind, model, end.signal);
      el.append(stage.root);
      try {
        play(stage, build(stage), model);
      } catch (error) {
        stage.tell(said(error), true);
      }
      return () => {
        end.abort();
        stage.root.remove();
      };
    },
  };
}

const said = (error: unknown): string => (error instanceof Error ? error.message : String(error));

function raise<F extends Facts>(kind: string, model: Model, signal: AbortSignal): Stage<F> {
  const title = dom("h4", { class: "hl-title" });
  const tools = dom("div", { class: "hl-tools" });
  const body = dom("div", { class: "hl-body" });
  const told = dom("p", { class: "hl-tell", role: "status", hidden: true });
  const line = dom("output", { class: "hl-say" });
  const spec = specLine(model, signal);
  const head = dom("div", { class: "hl-head" }, title, tools);
  const foot = dom("div", { class: "hl-foot" }, line, spec);
  const root = dom(
    "section",
    { class: "hooklab-view", "data-view": kind, "data-testid": "hooklab-view" },
    head,
    body,
    told,
    foot,
  );
  const selection = () => (model.get("selection") ?? {}) as Selection;
  const name = () => {
    const { title: text = "", summary } = (model.get("facts") ?? {}) as Partial<F>;
    title.textContent = text;
    root.setAttribute("aria-label", text || summary || kind);
  };
  name();
  listen(model, "change:facts", name, signal);
  return {
    root,
    tools,
    body,
    signal,
    ask: asker(model, signal),
    facts: () => model.get("facts") as F,
    arrays: unpacking(model),
    selection,
    select(change) {
      const next: Record<string, Selection[string] | null> = change ? { ...selection(), ...change } : {};
      model.set("selection", Object.fromEntries(Object.entries(next).filter(([, key]) => key !== null)));
      model.save_changes();
    },
    options: () => (model.get("options") ?? {}) as Options,
    option(name, value) {
      model.set("options", { ...(model.get("options") as Options), [name]: value });
      model.save_changes();
    },
    say(text) {
      if (line.textContent !== text) line.textContent = text;
    },
    tell(text, wrong = false) {
      told.hidden = text === null;
      told.textContent = text ?? "";
      told.classList.toggle("hl-wrong", wrong);
    },
  };
}

/** The arrays of a model, unpacked once for each time that they change. */
function unpacking(model: Model): () => Record<string, NumberArray> {
  let last: unknown[] = [];
  let found: Record<string, NumberArray> = {};
  return () => {
    const blob = model.get("blob");
    const table = (model.get("facts") as Facts).arrays;
    if (last[0] !== blob || last[1] !== table) found = arrays(blob, table);
    last = [blob, table];
    return found;
  };
}

/** The selection as spec text, with a button that copies it. */
function specLine(model: Model, signal: AbortSignal): HTMLElement {
  const text = dom("pre", { class: "hl-spec-text", tabindex: 0, "aria-label": "the selection as spec text" });
  const copy = dom(
    "button",
    { class: "hl-button", type: "button", title: "Copy as lines for a %%hook cell" },
    "Copy spec",
  );
  const folded = dom("summary", {}, "as spec text");
  const line = dom("details", { class: "hl-spec" }, folded, text, copy);
  const show = () => {
    const spec = String(model.get("_spec") ?? "");
    line.hidden = !spec;
    text.textContent = spec;
    copy.textContent = "Copy spec";
  };
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent ?? "");
      copy.textContent = "Copied";
    } catch {
      getSelection()?.selectAllChildren(text);
      copy.textContent = "Selected: copy it with Ctrl+C";
    }
  });
  listen(model, "change:_spec", show, signal);
  show();
  return line;
}

/** Draw now and after every change; several changes at once are drawn once, and what is overtaken is not finished. */
function play<F extends Facts>(stage: Stage<F>, scene: Scene, model: Model): void {
  let due = false;
  let drawing = 0;
  let drawn = false;
  let refused = false;
  const wrong = (error: unknown): void => stage.tell(said(error), true);
  const draw = async () => {
    due = drawn = false;
    if (stage.signal.aborted) return;
    const mine = ++drawing;
    const overtaken = () => mine !== drawing || stage.signal.aborted;
    stage.root.removeAttribute("data-ready");
    try {
      stage.tell(null);
      await scene.draw();
      if (overtaken()) return;
      drawn = true;
      const rest = scene.selected?.();
      stage.root.setAttribute("data-ready", "1");
      await rest;
    } catch (error) {
      if (!overtaken()) wrong(error);
    }
  };
  const soon = () => {
    if (due) return;
    due = true;
    queueMicrotask(() => void draw());
  };
  const play = async (part: () => void | Promise<void>) => {
    try {
      await part();
    } catch (error) {
      wrong(error);
    }
  };
  // While nothing is drawn, or it is being drawn, a drawing is what answers a change.
  const optioned = () => (drawn && scene.optioned ? void play(() => scene.optioned!()) : soon());
  const selected = () => {
    if (refused) stage.tell(null);
    refused = false;
    if (drawn) void play(() => scene.selected?.());
  };
  listen(model, "change:facts", soon, stage.signal);
  listen(model, "change:blob", soon, stage.signal);
  listen(model, "change:options", optioned, stage.signal);
  listen(model, "change:selection", selected, stage.signal);
  listen(
    model,
    "msg:custom",
    (content: { refused?: string }) => {
      if (!content?.refused) return;
      refused = true;
      stage.tell(content.refused, true);
    },
    stage.signal,
  );
  // Notebooks take arrows and letters for themselves; what is typed in a view stays in it.
  stage.root.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
  void draw();
}
