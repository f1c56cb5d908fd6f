import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { GONE, asker } from "../src/core/ask";
import { fakeModel, settled } from "./fake";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("a question", () => {
  it("is answered with its own reply and bytes, in any order", async () => {
    const model = fakeModel();
    const ask = asker(model, new AbortController().signal);
    const [first, second] = [ask("row", { row: 1 }), ask<number>("row", { row: 2 })];
    expect(model.sent.map((one) => [one.ask, one.with])).toEqual([
      ["row", { row: 1 }],
      ["row", { row: 2 }],
    ]);
    model.answer(model.sent[1]!, 22, [new DataView(new Uint8Array([9, 8]).buffer, 1)]);
    model.answer(model.sent[0]!, 11);
    const { reply, buffers } = await second;
    expect([reply, [...buffers[0]!]]).toEqual([22, [8]]);
    expect(await first).toEqual({ reply: 11, buffers: [] });
  });

  it("fails with the kernel's words", async () => {
    const model = fakeModel();
    const asked = asker(model, new AbortController().signal)("row");
    model.emit("msg:custom", { id: model.sent[0]!.id, error: "no row <b>" });
    await expect(asked).rejects.toThrow("no row <b>");
  });

  it("is given up when nobody answers, and an answer that comes later does no harm", async () => {
    const model = fakeModel();
    const asked = asker(model, new AbortController().signal)("row", {}, 500);
    const failed = expect(asked).rejects.toThrow(GONE);
    await vi.advanceTimersByTimeAsync(499);
    await vi.advanceTimersByTimeAsync(2);
    await failed;
    model.answer(model.sent[0]!, 1);
  });

  it("is not given up before its time", async () => {
    const model = fakeModel();
    let over = false;
    const asked = asker(model, new AbortController().signal)("row", {}, 500).finally(() => (over = true));
    await vi.advanceTimersByTimeAsync(499);
    expect(over).toBe(false);
    model.answer(model.sent[0]!, 1);
    await asked;
    expect(vi.getTimerCount()).toBe(0);
  });

  it("of a view that is gone is never settled, and leaves no timer and no listener", async () => {
    const model = fakeModel();
    const end = new AbortController();
    const ask = asker(model, end.signal);
    const settledBy = vi.fn();
    ask("row").then(settledBy, settledBy);
    end.abort();
    model.answer(model.sent[0]!, 1);
    ask("row").then(settledBy, settledBy);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(settledBy).not.toHaveBeenCalled();
    expect([vi.getTimerCount(), model.listeners, model.sent.length]).toEqual([0, 0, 1]);
  });

  it("of one view of a widget is not answered to the other", async () => {
    const model = fakeModel();
    const [a, b] = [0, 1].map(() => asker(model, new AbortController().signal));
    const [one, two] = [a!<string>("x"), b!<string>("x")];
    expect(model.sent[0]!.id).not.toBe(model.sent[1]!.id);
    model.answer(model.sent[0]!, "for a");
    model.answer(model.sent[1]!, "for b");
    expect([(await one).reply, (await two).reply]).toEqual(["for a", "for b"]);
  });

  it("that cannot be sent fails at once", async () => {
    const model = fakeModel();
    model.send = () => {
      throw new Error("no comm");
    };
    await expect(asker(model, new AbortController().signal)("row")).rejects.toThrow(
      "The kernel does not answer",
    );
    expect(vi.getTimerCount()).toBe(0);
  });

  it("lets messages pass that are not for it", async () => {
    const model = fakeModel();
    const asked = asker(model, new AbortController().signal)("row");
    for (const odd of [undefined, null, {}, { id: "other", reply: 1 }, { refused: "x" }])
      model.emit("msg:custom", odd);
    model.answer(model.sent[0]!, 3);
    expect((await asked).reply).toBe(3);
    await settled();
  });
});
