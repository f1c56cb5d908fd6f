// Questions to the kernel over the widget's own messages, answered in any order, given up when nobody is there.
import { bytes } from "./arrays";
import { type Model, listen } from "./model";

export interface Reply<T> {
  reply: T;
  buffers: Uint8Array[];
}

export type Ask = <T>(name: string, given?: Record<string, unknown>, patience?: number) => Promise<Reply<T>>;

export const GONE = "The kernel does not answer. If it was restarted, run the cell again.";
const PATIENCE = 20_000;

type Waiting = { settle: (reply: Reply<unknown>) => void; fail: (error: Error) => void };
type Heard = { id?: string; reply?: unknown; error?: string };

/** A way to ask, for as long as the view lives; what it left open then is never settled. Every view of a widget hears all answers and picks its own. */
export function asker(model: Model, signal: AbortSignal): Ask {
  const waiting = new Map<string, Waiting>();
  const me = Math.random().toString(36).slice(2);
  let asked = 0;
  listen(
    model,
    "msg:custom",
    (content: Heard, buffers: unknown[] = []) => {
      const one = content?.id === undefined ? undefined : waiting.get(content.id);
      if (!one) return;
      waiting.delete(content.id!);
      if (content.error !== undefined) one.fail(new Error(content.error));
      else one.settle({ reply: content.reply, buffers: (buffers ?? []).map(bytes) });
    },
    signal,
  );
  return <T>(name: string, given: Record<string, unknown> = {}, patience = PATIENCE) =>
    new Promise<Reply<T>>((settle, fail) => {
      if (signal.aborted) return; // the view is gone, and nobody waits for this
      const id = `${me}-${++asked}`;
      const timer = setTimeout(() => end(() => fail(new Error(GONE))), patience);
      const end = (then: () => void) => {
        clearTimeout(timer);
        waiting.delete(id);
        signal.removeEventListener("abort", leave);
        then();
      };
      const leave = () => end(() => undefined);
      signal.addEventListener("abort", leave, { once: true });
      waiting.set(id, {
        settle: (reply) => end(() => settle(reply as Reply<T>)),
        fail: (error) => end(() => fail(error)),
      });
      try {
        model.send({ ask: name, id, with: given });
      } catch {
        end(() => fail(new Error(GONE))); // the notebook's own words ("Cannot send") do not say what to do
      }
    });
}
