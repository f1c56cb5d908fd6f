// Stand-ins for what a notebook and a browser give a view: a widget's model, a kernel that answers, a canvas.
import { vi } from "vitest";
import type { Facts, Model } from "../src/core/model";

type Heard = (...given: unknown[]) => void;
type Bits = { kind: string; shape: number[]; at: number };
type Typed = Uint8Array | Uint16Array | Int32Array | Float32Array;

export interface Question {
  ask: string;
  id: string;
  with: Record<string, unknown>;
}

/** A model that remembers what was set, saved and sent. */
export class FakeModel implements Model {
  readonly sent: Question[] = [];
  saved = 0;
  private readonly heard = new Map<string, Set<Heard>>();

  constructor(readonly traits: Record<string, unknown>) {}

  get(name: string): unknown {
    return this.traits[name];
  }

  set(name: string, value: unknown): void {
    this.traits[name] = value;
    this.emit(`change:${name}`);
  }

  save_changes(): void {
    this.saved += 1;
  }

  send(content: unknown): void {
    this.sent.push(content as Question);
  }

  on(event: string, heard: (...given: never[]) => void): void {
    this.heard.set(event, (this.heard.get(event) ?? new Set()).add(heard as Heard));
  }

  off(event?: string | null, heard?: ((...given: never[]) => void) | null): void {
    if (event && heard) this.heard.get(event)?.delete(heard as Heard);
  }

  /** As if the kernel had set a trait or sent a message. */
  emit(event: string, ...given: unknown[]): void {
    for (const one of [...(this.heard.get(event) ?? [])]) one(...given);
  }

  /** The kernel's answer to a question. */
  answer(question: Question, reply: unknown, buffers: unknown[] = []): void {
    this.emit("msg:custom", { id: question.id, reply }, buffers);
  }

  /** How many listen. */
  get listeners(): number {
    return [...this.heard.values()].reduce((sum, some) => sum + some.size, 0);
  }
}

const KINDS: [new (...given: never[]) => Typed, string][] = [
  [Uint8Array, "u8"],
  [Uint16Array, "u16"],
  [Int32Array, "i32"],
  [Float32Array, "f32"],
];

/** Arrays as the kernel packs them: the bytes, at an odd place of a larger buffer, and the table. */
export function packed(arrays: Record<string, { data: Typed; shape: number[]; kind?: string }>): {
  blob: DataView;
  table: Record<string, Bits>;
} {
  const table: Record<string, Bits> = {};
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const [name, { data, shape, kind }] of Object.entries(arrays)) {
    const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    table[name] = { kind: kind ?? KINDS.find(([type]) => data instanceof type)![1], shape, at };
    parts.push(raw, new Uint8Array((8 - (raw.length % 8)) % 8));
    at += raw.length + ((8 - (raw.length % 8)) % 8);
  }
  const whole = new Uint8Array(at + 3);
  let place = 3;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return { blob: new DataView(whole.buffer, 3), table };
}

/** A model with facts and arrays, as a view opens it. */
export function fakeModel(
  facts: Partial<Facts> & Record<string, unknown> = {},
  arrays: Parameters<typeof packed>[0] = {},
  traits: Record<string, unknown> = {},
): FakeModel {
  const { blob, table } = packed(arrays);
  const all = { kind: "probe", title: "", summary: "Probe()", axes: [], ...facts, arrays: table };
  return new FakeModel({ facts: all, blob, selection: {}, options: {}, _spec: "", ...traits });
}

/** What was drawn on a canvas: the name and the values of every call. */
export type Drawn = [string, unknown[]][];

/** Give canvases a context that notes what it is asked, which happy-dom lacks. */
export function fakeCanvas(): Drawn {
  const drawn: Drawn = [];
  const context = new Proxy(
    {},
    {
      get: (kept: Record<string, unknown>, name: string) =>
        name in kept ? kept[name] : (...given: unknown[]) => void drawn.push([name, given]),
      set: (kept: Record<string, unknown>, name: string, value) => {
        kept[name] = value;
        return true;
      },
    },
  );
  vi.spyOn(HTMLCanvasElement.prototype, "getContext").mockReturnValue(context as never);
  if (!("ImageData" in globalThis)) {
    class Pixels {
      data: Uint8ClampedArray;
      constructor(
        readonly width: number,
        readonly height: number,
      ) {
        this.data = new Uint8ClampedArray(4 * width * height);
      }
    }
    vi.stubGlobal("ImageData", Pixels);
  }
  if (!("ResizeObserver" in globalThis))
    vi.stubGlobal(
      "ResizeObserver",
      class {
        observe(): void {}
        disconnect(): void {}
      },
    );
  return drawn;
}

/** Let everything that waits for nothing but a turn have its turn. */
export async function settled(): Promise<void> {
  for (let i = 0; i < 10; i++) await Promise.resolve();
}
