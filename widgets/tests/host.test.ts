import { describe, expect, it, vi } from "vitest";
import { asker } from "../src/core/ask";
import type { Model } from "../src/core/model";
import { CUT, LACKING, pageModel } from "../src/page/host";
import { followed, link } from "../src/page/linked";
import { fakeModel } from "./fake";

// What Python's zlib makes of the bytes 7 8, and of none.
const [SEVEN_EIGHT, NOTHING] = ["eJxj5wAAABgAEA==", "eJwDAAAAAAE="];
type State = Parameters<typeof pageModel>[0];

const state = (more: Partial<State> = {}): State => ({
  kind: "probe",
  traits: { facts: {}, selection: { layer: 1 }, options: {}, _spec: "zero L1" },
  blob: "",
  answers: [
    { ask: "row", with: { row: 1, side: "a" }, reply: { n: 2 }, buffers: [SEVEN_EIGHT, NOTHING] },
    { ask: "row", with: { row: 2 }, error: "no row <b>" },
    { ask: "broken", with: {}, reply: 1, buffers: ["AAAA"] },
  ],
  left_out: 0,
  group: 0,
  shared: [],
  ...more,
});
const blob = new DataView(new ArrayBuffer(0));
const ask = (model: Model) => asker(model, new AbortController().signal);

describe("a model on a page", () => {
  it("answers what the page carries, whatever the order of the names", async () => {
    const { reply, buffers } = await ask(pageModel(state(), blob))("row", { side: "a", row: 1 });
    expect([reply, buffers.map((one) => [...one])]).toEqual([{ n: 2 }, [[7, 8], []]]);
  });

  it("says so when it carries no answer, an error, or one that cannot be read", async () => {
    const model = pageModel(state(), blob);
    await expect(ask(model)("row", { row: 3 })).rejects.toThrow(LACKING);
    await expect(ask(model)("row", { row: 2 })).rejects.toThrow("no row <b>");
    await expect(ask(model)("broken")).rejects.toThrow();
    await expect(ask(pageModel(state({ left_out: 4 }), blob))("row", { row: 3 })).rejects.toThrow(CUT);
  });

  it("tells of changes, and only of changes", () => {
    const model = pageModel(state(), blob);
    const heard = vi.fn();
    model.on("change:selection", heard);
    model.set("selection", { layer: 1 });
    expect(heard).not.toHaveBeenCalled();
    model.set("selection", { layer: 2 });
    expect([heard.mock.calls.length, model.get("selection")]).toEqual([1, { layer: 2 }]);
    model.off("change:selection", heard);
    model.set("selection", {});
    expect(heard).toHaveBeenCalledTimes(1);
    model.save_changes();
  });

  it("takes away spec text that no longer is the selection's", () => {
    const model = pageModel(state(), blob);
    const heard = vi.fn();
    model.on("change:_spec", heard);
    model.set("options", { a: 1 });
    expect([heard.mock.calls.length, model.get("_spec")]).toEqual([0, "zero L1"]);
    model.set("selection", { layer: 2 });
    expect([heard.mock.calls.length, model.get("_spec")]).toEqual([1, ""]);
  });
});

describe("linked views on a page", () => {
  const member = (axes: Record<string, number[]>, shared = Object.keys(axes)) => ({
    model: fakeModel({
      axes: Object.entries(axes).map(([name, keys]) => ({ name, keys, labels: keys.map(String) })),
    }),
    shared,
  });

  it("choose what both have and keep what is their own", () => {
    const a = member({ layer: [0, 1, 9], head: [0, 1] });
    const b = member({ layer: [0, 1], pos: [0, 1] });
    const c = member({ layer: [0, 1], head: [0, 1] }, ["head"]);
    b.model.set("selection", { pos: 1 });
    link([a, b, c]);
    a.model.set("selection", { layer: 1, head: 0 });
    expect([b.model.get("selection"), c.model.get("selection")]).toEqual([{ pos: 1, layer: 1 }, { head: 0 }]);
    a.model.set("selection", { layer: 9, head: 0 });
    expect(b.model.get("selection")).toEqual({ pos: 1 });
    a.model.set("selection", {});
    expect([b.model.get("selection"), c.model.get("selection")]).toEqual([{ pos: 1 }, {}]);
  });

  it("do not tell each other for ever", () => {
    const all = [member({ layer: [0, 1] }), member({ layer: [0, 1] }), member({ layer: [0, 1] })];
    link(all);
    const heard = vi.fn();
    for (const { model } of all) model.on("change:selection", heard);
    all[1]!.model.set("selection", { layer: 1 });
    expect(heard).toHaveBeenCalledTimes(3);
    expect(followed(all[0]!, all[1]!)).toEqual({ layer: 1 });
  });
});
