// The controls above the view; they are made once and then follow the options, so that the keyboard keeps its place.
import { dom } from "../core/dom";
import type { AxisFacts, Key } from "../core/model";
import { picker } from "../core/parts";
import type { Stage } from "../core/stage";
import type { AttentionFacts } from "./facts";

interface Control {
  label: HTMLElement;
  /** The key that holds now. */
  now(): Key | undefined;
  axis: AxisFacts;
  hidden?(): boolean;
}

const named = (name: string, keys: Key[], labels = keys.map(String)): AxisFacts => ({ name, keys, labels });

export function tools(stage: Stage<AttentionFacts>, listed: boolean, list: () => boolean): { sync(): void } {
  const { prompts, modes } = stage.facts();
  const controls: Control[] = [];
  const add = (
    axis: AxisFacts,
    now: () => Key | undefined,
    pick: (key: Key) => void,
    hidden?: () => boolean,
  ) => controls.push({ label: picker(axis, now(), pick), now, axis, hidden });
  const option = (name: string, says: string, keys: Key[], hidden?: () => boolean, labels?: string[]) =>
    add(
      named(says, keys, labels),
      () => stage.options()[name] ?? keys[0],
      (key) => stage.option(name, key),
      hidden,
    );
  const keys = prompts.map((prompt) => prompt.key);
  const labels = prompts.map((prompt) => prompt.label);
  if (prompts.length > 1)
    add(
      named("prompt", keys, labels),
      () => stage.selection().prompt ?? keys[0],
      (key) => {
        const width = prompts[keys.indexOf(key)]!.pieces.length;
        const { pos, key_pos: looked } = stage.selection();
        const keeps = (at: Key | undefined) => (at !== undefined && Number(at) < width ? at : null);
        stage.select({ prompt: key, pos: keeps(pos), key_pos: keeps(looked) });
      },
    );
  if (modes.length > 1) option("mode", "mode", modes);
  if (prompts.length > 1)
    option("against", "minus", keys, () => stage.options().mode !== "difference", labels);
  option("direction", "tokens", ["both", "looks at", "looked at by"]);
  option("first_token", "first token", ["shown", "left out"]);
  option("scale", "colours of", ["all heads", "each head"]);
  const button = dom(
    "button",
    { class: "hl-button", type: "button", "aria-pressed": String(listed) },
    "Table",
  );
  button.addEventListener("click", () => button.setAttribute("aria-pressed", String(list())));
  stage.tools.replaceChildren(...controls.map(({ label }) => label), button);
  const sync = () => {
    for (const { label, now, axis, hidden } of controls) {
      label.hidden = hidden?.() ?? false;
      const choices = label.querySelector("select")!;
      choices.selectedIndex = axis.keys.indexOf(now()!);
    }
  };
  sync();
  return { sync };
}
