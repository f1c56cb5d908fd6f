// Features of a dictionary, neurons or directions: a list, and what is known of the chosen one.
import { render } from "preact";
import { number } from "../core/format";
import { view } from "../core/stage";
import { type Feature, type FeatureFacts, type Told, feature } from "../features/data";
import { List } from "../features/list";
import { Contexts, Histogram, Logits, Numbers } from "../features/page";

const AROUND = [4, 8, 12, 24];
const KEPT = 64;
const PATIENCE = 500; // milliseconds that the first picture waits for the kernel

export default view<FeatureFacts>("features", (stage) => {
  let shown: Feature | null = null;
  /** The feature that travels with the view: without a kernel there is no other. */
  let carried: Feature | null = null;
  let chosen = 0;
  let around = 8;
  const known = new Map<number, Promise<Feature>>();
  let columns: Record<"maximum" | "density" | "norm", ArrayLike<number>>;
  let wanted = 0;

  const keys = () => stage.facts().axes[0]!.keys as number[];
  const strongest = (): number => {
    let best = 0;
    for (let i = 1; i < keys().length; i++) if (columns.maximum[i]! > columns.maximum[best]!) best = i;
    return keys()[best]!;
  };
  const say = (text: string) => stage.say(text);

  /** Fetch what is shown; an answer that comes after another choice is kept, and not shown. */
  const look = async (): Promise<void> => {
    const key = (stage.selection()[stage.facts().word] as number | undefined) ?? strongest();
    const ticket = ++wanted;
    const show = (one: Feature | null, wrong?: string): void => {
      if (ticket !== wanted || stage.signal.aborted) return;
      shown = one;
      stage.tell(wrong ?? null, wrong !== undefined);
      paint();
    };
    chosen = key;
    paint();
    const waiting = setTimeout(() => ticket === wanted && stage.tell("waiting for the kernel …"), 300);
    try {
      show(await fetched(key));
    } catch (error) {
      const words = error instanceof Error ? error.message : String(error);
      show(
        carried,
        carried
          ? `${words} Shown is ${stage.facts().word} ${carried.key}, which travels with the view.`
          : words,
      );
    } finally {
      clearTimeout(waiting);
    }
  };

  /** A feature, asked for once; the last ones are kept. */
  const fetched = (key: number): Promise<Feature> => {
    const found = known.get(key) ?? stage.ask<Told>("feature", { key }).then(feature);
    known.delete(key);
    known.set(key, found);
    found.catch(() => known.delete(key));
    if (known.size > KEPT) known.delete(known.keys().next().value!);
    return found;
  };

  const Page = () => {
    const one = shown;
    const { word, logits } = stage.facts();
    if (!one) return <div class="hl-page" />;
    const kinds = Object.keys(logits);
    const kind = kinds.includes(String(stage.options().logits)) ? String(stage.options().logits) : kinds[0];
    const lines = { most: one.most, around, say };
    return (
      <div class="hl-page">
        <Numbers word={word} feature={one} />
        <Histogram feature={one} say={say} />
        <div class="hl-head">
          <h5>Strongest contexts</h5>
          <label class="hl-quiet">
            tokens on either side{" "}
            <select value={around} onChange={(event) => setAround(Number(event.currentTarget.value))}>
              {AROUND.filter((n) => n < stage.facts().window)
                .concat(stage.facts().window)
                .map((n) => (
                  <option key={n}>{n}</option>
                ))}
            </select>
          </label>
        </div>
        {one.contexts.length ? (
          <Contexts key={`top ${one.key}`} name="strongest contexts" contexts={one.contexts} {...lines} />
        ) : (
          <p class="hl-quiet">Never active in these texts.</p>
        )}
        {one.ranges.some(({ contexts }) => contexts.length) && (
          <details>
            <summary>Examples from every part of the range</summary>
            {one.ranges.map(({ low, high, contexts }, i) => (
              <section key={`${one.key} ${i}`}>
                <h6>
                  {number(low)} to {number(high)}
                  {contexts.length ? "" : ": none"}
                </h6>
                {contexts.length > 0 && (
                  <Contexts name={`activations up to ${number(high)}`} contexts={contexts} {...lines} />
                )}
              </section>
            ))}
          </details>
        )}
        {kind && (
          <>
            <div class="hl-head">
              <h5>Logits per unit of activation</h5>
              <label class="hl-quiet">
                <select
                  value={kind}
                  aria-label="logits"
                  onChange={(event) => stage.option("logits", event.currentTarget.value)}
                >
                  {kinds.map((name) => (
                    <option key={name} value={name}>
                      {logits[name]}
                    </option>
                  ))}
                </select>
              </label>
            </div>
            <Logits {...one.logits[kind]!} />
          </>
        )}
      </div>
    );
  };

  const Whole = () => (
    <div class="hl-dashboard">
      <List
        word={stage.facts().word}
        keys={keys()}
        columns={columns}
        chosen={chosen}
        choose={(key) => stage.select({ [stage.facts().word]: key })}
      />
      <Page />
    </div>
  );
  const setAround = (tokens: number) => {
    around = tokens;
    paint();
  };
  const paint = () => render(<Whole key={stage.facts().summary} />, stage.body);
  stage.signal.addEventListener("abort", () => render(null, stage.body), { once: true });
  stage.body.addEventListener("keydown", (event) => {
    if (event.key === "Escape") stage.select(null);
  });

  return {
    async draw() {
      const { high, density, norms, first: data } = stage.arrays();
      columns = { maximum: high!.data, density: density!.data, norm: norms!.data };
      known.clear();
      const { first } = stage.facts();
      carried = first && data ? feature({ reply: first, buffers: [data.data as Uint8Array] }) : null;
      if (carried) known.set(carried.key, Promise.resolve(carried));
      around = Math.min(8, stage.facts().window);
      stage.tools.textContent = stage.facts().note;
      await Promise.race([look(), new Promise((go) => setTimeout(go, PATIENCE))]);
    },
    selected: () => void look(),
    optioned: paint,
  };
});
