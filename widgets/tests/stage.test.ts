import { beforeEach, describe, expect, it, vi } from "vitest";
import { type Scene, type Stage, view } from "../src/core/stage";
import { type FakeModel, fakeModel, settled } from "./fake";

const HOSTILE = "<img src=x onerror=boom()></script>";
let host: HTMLElement;
let stage: Stage;

beforeEach(() => {
  document.body.replaceChildren();
  host = document.body.appendChild(document.createElement("div"));
});

function raise(model: FakeModel, scene: (given: Stage) => Scene, signal?: AbortSignal): () => void {
  return view("probe", (given) => {
    stage = given;
    return scene(given);
  }).render({ model, el: host, signal });
}

const root = () => host.querySelector<HTMLElement>(".hooklab-view")!;
const told = () => host.querySelector<HTMLElement>(".hl-tell")!;
const numbers = (first: number) => ({ values: { data: new Float32Array([first, 2]), shape: [2] } });

describe("a view", () => {
  it("is a named region that says when it is painted", async () => {
    raise(fakeModel({ title: HOSTILE }), () => ({ draw() {} }));
    await settled();
    expect([root().dataset.view, root().dataset.ready, root().getAttribute("aria-label")]).toEqual([
      "probe",
      "1",
      HOSTILE,
    ]);
    expect([root().tagName, host.querySelector("img"), host.querySelector(".hl-title")!.textContent]).toEqual(
      ["SECTION", null, HOSTILE],
    );
  });

  it("is named by what it is when it has no title, and by its new title", async () => {
    const model = fakeModel();
    raise(model, () => ({ draw() {} }));
    expect(root().getAttribute("aria-label")).toBe("Probe()");
    model.set("facts", { ...(model.get("facts") as object), title: "new" });
    expect(root().getAttribute("aria-label")).toBe("new");
  });

  it("is not painted while it still waits", async () => {
    let go: () => void = () => undefined;
    raise(fakeModel(), () => ({ draw: () => new Promise<void>((done) => (go = done)) }));
    await settled();
    expect(root().dataset.ready).toBeUndefined();
    go();
    await settled();
    expect(root().dataset.ready).toBe("1");
  });

  it("draws once for several changes at once", async () => {
    const draw = vi.fn();
    const model = fakeModel({}, numbers(1));
    raise(model, () => ({ draw }));
    await settled();
    model.set("facts", { ...(model.get("facts") as object) });
    model.set("blob", model.get("blob"));
    model.set("options", { a: 1 });
    expect(draw).toHaveBeenCalledTimes(1);
    await settled();
    expect(draw).toHaveBeenCalledTimes(2);
  });

  it("does not finish a drawing that was overtaken", async () => {
    const waiting: (() => void)[] = [];
    const selected = vi.fn();
    const model = fakeModel();
    raise(model, () => ({ draw: () => new Promise<void>((done) => waiting.push(done)), selected }));
    model.set("blob", new DataView(new ArrayBuffer(0)));
    await settled();
    expect(waiting.length).toBe(2);
    waiting[0]!();
    await settled();
    expect([root().dataset.ready, selected.mock.calls.length]).toEqual([undefined, 0]);
    waiting[1]!();
    await settled();
    expect([root().dataset.ready, selected.mock.calls.length]).toEqual(["1", 1]);
  });

  it("shows its selection after drawing and whenever it changes, but not before it has drawn", async () => {
    let go: () => void = () => undefined;
    const selected = vi.fn();
    const model = fakeModel();
    raise(model, () => ({ draw: () => new Promise<void>((done) => (go = done)), selected }));
    model.set("selection", { layer: 1 });
    expect(selected).not.toHaveBeenCalled();
    go();
    await settled();
    expect(selected).toHaveBeenCalledTimes(1);
    model.set("selection", { layer: 2 });
    expect(selected).toHaveBeenCalledTimes(2);
  });

  it("answers a change of options itself where it can", async () => {
    const [draw, optioned] = [vi.fn(), vi.fn()];
    const model = fakeModel();
    raise(model, () => ({ draw, optioned }));
    await settled();
    model.set("options", { mode: "b" });
    await settled();
    expect([draw.mock.calls.length, optioned.mock.calls.length]).toEqual([1, 1]);
  });

  it("draws again for an option when the last drawing failed", async () => {
    const draw = vi.fn().mockRejectedValueOnce(new Error("first"));
    const model = fakeModel();
    raise(model, () => ({ draw, optioned: vi.fn() }));
    await settled();
    expect(told().textContent).toBe("first");
    model.set("options", { mode: "b" });
    await settled();
    expect([draw.mock.calls.length, told().hidden, root().dataset.ready]).toEqual([2, true, "1"]);
  });
});

describe("what goes wrong is shown as text", () => {
  const fail = () => {
    throw new Error(HOSTILE);
  };
  const scenes: Record<string, () => Scene> = {
    building: fail,
    drawing: () => ({ draw: fail }),
    "drawing later": () => ({ draw: () => Promise.reject(new Error(HOSTILE)) }),
    selecting: () => ({ draw() {}, selected: fail }),
    "selecting later": () => ({ draw() {}, selected: () => Promise.reject(new Error(HOSTILE)) }),
  };

  it.each(Object.keys(scenes))("in %s", async (name) => {
    raise(fakeModel(), scenes[name]!);
    await settled();
    expect([told().hidden, told().textContent, told().className]).toEqual([
      false,
      HOSTILE,
      "hl-tell hl-wrong",
    ]);
    expect(host.querySelector("img")).toBeNull();
  });

  it("in a change of the selection or the options", async () => {
    const model = fakeModel();
    let broken = false;
    const maybe = () => {
      if (broken) fail();
    };
    raise(model, () => ({ draw() {}, selected: maybe, optioned: maybe }));
    await settled();
    broken = true;
    model.set("selection", { layer: 1 });
    await settled();
    expect(told().textContent).toBe(HOSTILE);
    stage.tell(null);
    model.set("options", { mode: "b" });
    await settled();
    expect([told().hidden, told().textContent]).toEqual([false, HOSTILE]);
  });

  it("when the kernel refuses a choice", async () => {
    const model = fakeModel();
    raise(model, () => ({ draw() {} }));
    await settled();
    model.emit("msg:custom", { refused: "there is no layer 9" });
    expect([told().hidden, told().textContent]).toEqual([false, "there is no layer 9"]);
    stage.select({ layer: 1 });
    expect(told().hidden).toBe(true);
  });

  it("when the data are cut short", async () => {
    const model = fakeModel({}, numbers(1));
    model.traits.blob = new DataView(new ArrayBuffer(4));
    raise(model, (given) => ({ draw: () => void given.arrays() }));
    await settled();
    expect(told().textContent).toContain("shorter");
  });
});

describe("choosing", () => {
  it("adds to the selection, leaves out what is null, and tells the kernel", async () => {
    const model = fakeModel({}, {}, { selection: { layer: 1, head: 2 } });
    raise(model, () => ({ draw() {} }));
    stage.select({ head: null, pos: 3 });
    expect([model.get("selection"), stage.selection(), model.saved]).toEqual([
      { layer: 1, pos: 3 },
      { layer: 1, pos: 3 },
      1,
    ]);
    stage.select(null);
    expect(model.get("selection")).toEqual({});
    stage.select({ layer: 0 });
    expect(model.get("selection")).toEqual({ layer: 0 });
  });

  it("never changes the object that the notebook holds", () => {
    const held = { layer: 1 };
    const model = fakeModel({}, {}, { selection: held, options: Object.freeze({ mode: "a" }) });
    raise(model, () => ({ draw() {} }));
    stage.select({ layer: 2 });
    stage.option("mode", "b");
    expect([held, model.get("options")]).toEqual([{ layer: 1 }, { mode: "b" }]);
  });

  it("works where the traits were never set", () => {
    const model = fakeModel();
    model.traits.selection = model.traits.options = undefined;
    raise(model, () => ({ draw() {} }));
    stage.select({ layer: 1 });
    expect([stage.selection(), stage.options()]).toEqual([{ layer: 1 }, {}]);
  });
});

describe("the spec line", () => {
  const line = () => host.querySelector<HTMLElement>(".hl-spec")!;
  const button = () => line().querySelector("button")!;

  it("stands there when there is spec text, as text", () => {
    const model = fakeModel();
    raise(model, () => ({ draw() {} }));
    expect(line().hidden).toBe(true);
    model.set("_spec", `zero L1H2 # ${HOSTILE}`);
    expect([line().hidden, line().querySelector("pre")!.textContent]).toEqual([
      false,
      `zero L1H2 # ${HOSTILE}`,
    ]);
    model.set("_spec", "");
    expect(line().hidden).toBe(true);
  });

  it("is copied, and says so until it changes", async () => {
    const copied = vi.fn().mockResolvedValue(undefined);
    vi.stubGlobal("navigator", { clipboard: { writeText: copied } });
    const model = fakeModel({}, {}, { _spec: "zero L1H2" });
    raise(model, () => ({ draw() {} }));
    button().click();
    await settled();
    expect([copied.mock.calls, button().textContent]).toEqual([[["zero L1H2"]], "Copied"]);
    model.set("_spec", "zero L3H4");
    expect(button().textContent).toBe("Copy spec");
    vi.unstubAllGlobals();
  });

  it("is selected where nothing may be copied", async () => {
    vi.stubGlobal("navigator", {});
    raise(fakeModel({}, {}, { _spec: "zero L1H2" }), () => ({ draw() {} }));
    button().click();
    await settled();
    expect(button().textContent).toContain("Ctrl+C");
    vi.unstubAllGlobals();
  });
});

describe("the arrays of a view", () => {
  it("are unpacked once until they change", () => {
    const model = fakeModel({}, numbers(1));
    raise(model, () => ({ draw() {} }));
    const first = stage.arrays();
    expect(stage.arrays()).toBe(first);
    model.set("blob", fakeModel({}, numbers(7)).get("blob"));
    expect([...stage.arrays().values!.data]).toEqual([7, 2]);
  });
});

describe("keys and the end of a view", () => {
  it("keeps what is typed in it from the notebook, but not its commands", () => {
    raise(fakeModel(), () => ({ draw() {} }));
    const heard = vi.fn();
    document.body.addEventListener("keydown", heard);
    for (const more of [{}, { ctrlKey: true }, { metaKey: true }])
      root().dispatchEvent(new KeyboardEvent("keydown", { key: "a", bubbles: true, ...more }));
    expect(heard).toHaveBeenCalledTimes(2);
    document.body.removeEventListener("keydown", heard);
  });

  it.each(["its own end", "the notebook's signal"])("leaves nothing behind after %s", async (way) => {
    const model = fakeModel();
    const draw = vi.fn();
    const end = new AbortController();
    const close = raise(model, () => ({ draw }), end.signal);
    await settled();
    expect(model.listeners).toBeGreaterThan(3);
    model.set("blob", new DataView(new ArrayBuffer(0)));
    if (way === "its own end") close();
    else end.abort();
    await settled();
    expect([model.listeners, draw.mock.calls.length, stage.signal.aborted]).toEqual([0, 1, true]);
    if (way === "its own end") expect(root()).toBeNull();
  });

  it("speaks one line", () => {
    raise(fakeModel(), () => ({ draw() {} }));
    stage.say(HOSTILE);
    expect([host.querySelector("output")!.textContent, host.querySelector("img")]).toEqual([HOSTILE, null]);
  });
});

describe("two views of one widget", () => {
  it("choose together, and one may go", async () => {
    const model = fakeModel();
    const seen = [vi.fn(), vi.fn()];
    const close = raise(model, () => ({ draw() {}, selected: seen[0] }));
    const first = stage;
    raise(model, () => ({ draw() {}, selected: seen[1] }));
    await settled();
    first.select({ layer: 1 });
    expect(stage.selection()).toEqual({ layer: 1 });
    close();
    stage.select({ layer: 2 });
    await settled();
    expect(seen.map((one) => one.mock.calls.length)).toEqual([2, 3]);
  });
});
