// What linked views tell each other where there is no kernel; the twin of `follow` in hooklab/views/base.py.
import type { Facts, Key, Model, Selection } from "../core/model";

export interface Member {
  model: Model;
  /** The axis words that it tells, and hears of. */
  shared: string[];
}

const chosen = (model: Model): Selection => (model.get("selection") ?? {}) as Selection;
const keys = (model: Model, name: string): Key[] =>
  ((model.get("facts") as Facts).axes ?? []).find((axis) => axis.name === name)?.keys ?? [];

/** What a view chooses after another chose; its own axes stay as they are. */
export function followed(own: Member, other: Member): Selection {
  const both = own.shared.filter((name) => other.shared.includes(name));
  const found = Object.fromEntries(
    Object.entries(chosen(own.model)).filter(([name]) => !both.includes(name)),
  );
  for (const name of both) {
    const key = chosen(other.model)[name];
    if (key !== undefined && keys(own.model, name).includes(key)) found[name] = key;
  }
  return found;
}

/** Let views choose together; what one chooses because of another is told to nobody. */
export function link(members: Member[]): void {
  let telling = false;
  for (const other of members)
    other.model.on("change:selection", () => {
      if (telling) return;
      telling = true;
      try {
        for (const own of members) if (own !== other) own.model.set("selection", followed(own, other));
      } finally {
        telling = false;
      }
    });
}
