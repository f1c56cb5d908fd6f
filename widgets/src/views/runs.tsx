// A list of runs: search, sort, choose one to look into, choose another to compare it with.
import { type JSX, render } from "preact";
import { GONE, type Reply } from "../core/ask";
import { number } from "../core/format";
import type { Facts } from "../core/model";
import { view } from "../core/stage";
import { dark, turning } from "../core/theme";
import { ordered, searching } from "../rows/order";
import { Grid, Head, Pairs, keyed, searchBox, walking } from "../rows/parts";

type Value = number | "nan" | "inf" | "-inf" | null;

interface Row {
  key: string;
  name: string;
  stored: string;
  time: number | null;
  model: string;
  fingerprint: string;
  line: string;
  size: number;
  error: string;
  metrics: Value[];
  memory: boolean;
}

interface RunsFacts extends Facts {
  rows: Row[];
  metrics: string[];
  note: string;
}

interface Detail {
  spec: string;
  about: [string, string][];
  metrics: [string, Value][];
  error: string;
  eager: boolean;
  size: number;
}

interface Pictures {
  texts: [string, string, string][];
  /** A run, and its likeliest next tokens. */
  next: string[][];
  kept: [string, string, string][];
  claims: [string, string, Value, Value][];
  images: string[];
  more: string;
}

interface Comparison {
  metrics: [string, Value, Value, Value][];
  lines: [string, string][];
  around: string[];
}

interface Column {
  name: string;
  of(row: Row): string | number | null;
  shown?(row: Row): string;
}

const MOST = 300;
const FIXED: Column[] = [
  { name: "run", of: (row) => row.name },
  { name: "stored (UTC)", of: (row) => row.time, shown: (row) => row.stored },
  {
    name: "model",
    of: (row) => `${row.model} ${row.fingerprint}`.trim(),
    shown: (row) => [row.model.split("/").at(-1), row.fingerprint.slice(0, 6)].filter(Boolean).join(" · "),
  },
  { name: "spec", of: (row) => row.line },
  { name: "size", of: (row) => row.size, shown: (row) => size(row.size) },
];

export const numeric = (value: Value): number | null =>
  value === null ? null : value === "inf" ? Infinity : value === "-inf" ? -Infinity : Number(value);
const cell = (value: Value): string => (value === null ? "" : number(numeric(value)!, 4));

/** Bytes in words. */
export function size(count: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let value = count;
  let at = 0;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at++;
  }
  return at ? `${value.toFixed(1)} ${units[at]}` : `${count} B`;
}

/** Rows that hold every word of a search, in the order of a column; what has no value stands last. */
export function arranged(rows: Row[], search: string, column: Column, down: boolean): Row[] {
  const holds = searching(search);
  const found = rows.filter(({ name, model, fingerprint, line, stored, error }) =>
    holds([name, model, fingerprint, line, stored, error].join(" ")),
  );
  return ordered(found, column.of, down);
}

export default view<RunsFacts>("runs", (stage) => {
  let search = "";
  let sorted = 1;
  let down = true;
  let focus: string | null = null;
  let asked = 0;
  let addresses: string[] = [];
  let night = false;
  let redraw: (() => void) | null = null;
  turning(stage.root, stage.signal, () => redraw?.());
  const table = document.createElement("div");
  const below = document.createElement("div");
  table.className = "hl-runs";
  below.className = "hl-run-detail";
  stage.body.append(table, below);

  const columns = (): Column[] => [
    ...FIXED,
    ...stage.facts().metrics.map((name, i) => ({
      name,
      of: (row: Row) => numeric(row.metrics[i]!),
      shown: (row: Row) => cell(row.metrics[i]!),
    })),
  ];
  const listed = (): Row[] => arranged(stage.facts().rows, search, columns()[sorted] ?? FIXED[1]!, down);
  const row = (key: unknown): Row | undefined => stage.facts().rows.find((one) => one.key === key);
  const chosen = () => row(stage.selection().run);
  const against = () => row(stage.selection().against);
  const choose = (key: string | null): void => {
    focus = key ?? focus;
    stage.select(
      key === null
        ? null
        : {
            run: key,
            against: stage.selection().against === key ? null : (stage.selection().against ?? null),
          },
    );
  };

  // The table ------------------------------------------------------------------------------------------------------

  const sort = (column: number): void => {
    down = column === sorted ? !down : column > 0 && column !== 3;
    sorted = column;
    list();
  };

  function Line({ one, tab }: { one: Row; tab: boolean }): JSX.Element {
    const here = chosen()?.key === one.key;
    const other = against()?.key === one.key;
    return (
      <tr
        data-key={one.key}
        tabIndex={tab ? 0 : -1}
        aria-selected={here}
        class={`${here ? "hl-here" : ""}${other ? " hl-other" : ""}`}
      >
        {columns()
          .slice(0, one.error ? 2 : undefined)
          .map((column, i) => (
            <td
              key={column.name}
              class={typeof column.of(one) === "number" && i !== 1 ? "hl-number" : undefined}
              title={i > 1 ? String(column.of(one) ?? "") : undefined}
            >
              {i === 0 && (here ? "● " : other ? "○ " : "")}
              <bdi>{column.shown ? column.shown(one) : column.of(one)}</bdi>
              {i === 0 && one.memory && <span class="hl-quiet"> in memory</span>}
            </td>
          ))}
        {one.error && (
          <td class="hl-broken" colSpan={columns().length - 2}>
            <span aria-hidden="true">⚠ </span>
            <bdi>{one.error}</bdi>
          </td>
        )}
      </tr>
    );
  }

  function List(): JSX.Element {
    const rows = listed();
    const total = stage.facts().rows.length;
    const seen = rows.slice(0, MOST);
    const tab = seen.some(({ key }) => key === focus) ? focus : seen[0]?.key;
    return (
      <>
        <div class="hl-scroll">
          <table aria-label="runs: arrow keys move, Enter chooses, C compares, Escape clears">
            <thead>
              <Head
                names={columns().map(({ name }) => name)}
                numeric={columns().map((_, i) => i >= 4)}
                sorted={sorted}
                down={down}
                pick={sort}
              />
            </thead>
            <tbody>
              {seen.map((one) => (
                <Line key={one.key} one={one} tab={one.key === tab} />
              ))}
            </tbody>
          </table>
        </div>
        <p class="hl-quiet" role="status">
          {total === 0 ? "There are no runs here yet." : `${rows.length} of ${total} runs`}
          {rows.length > MOST && `; the first ${MOST} are drawn: search for the others`}
          {stage.facts().note && ` · ${stage.facts().note}`}
        </p>
      </>
    );
  }
  const list = (): void => render(<List />, table);

  // What is chosen -------------------------------------------------------------------------------------------------

  const grid = (head: string[], rows: (string | Value)[][], kind = ""): JSX.Element => (
    <Grid head={head} rows={rows} cell={cell} kind={kind} />
  );

  function Against({ one }: { one: Row }): JSX.Element {
    return (
      <label>
        compare with{" "}
        <select
          onChange={(event) => stage.select({ against: event.currentTarget.value || null })}
          value={against()?.key ?? ""}
        >
          <option value="">nothing</option>
          {listed()
            .filter(({ key, error }) => key !== one.key && !error)
            .slice(0, MOST)
            .map(({ key, name }) => (
              <option key={key} value={key}>
                {name}
              </option>
            ))}
        </select>
      </label>
    );
  }

  function Compared({ one, other, found }: { one: Row; other: Row; found: Comparison }): JSX.Element {
    const same = found.lines.every(([sign]) => sign === " ");
    return (
      <section>
        <h5>
          <bdi>{one.name}</bdi> against <bdi>{other.name}</bdi>
        </h5>
        {found.metrics.length ? (
          grid(["metric", other.name, one.name, "difference"], found.metrics)
        ) : (
          <p class="hl-quiet">Neither has metrics.</p>
        )}
        {same ? (
          <p class="hl-quiet">Their specs are the same.</p>
        ) : (
          <pre class="hl-spec-text">
            {found.lines.map(([sign, text], i) => (
              <span key={i} class={sign === "+" ? "hl-plus" : sign === "-" ? "hl-minus" : undefined}>
                {`${sign} ${text}\n`}
              </span>
            ))}
          </pre>
        )}
        {found.around.map((what) => (
          <p key={what} class="hl-quiet">
            made with another {what}
          </p>
        ))}
      </section>
    );
  }

  interface Shown {
    detail: Detail;
    compared: Comparison | null;
    pictures: Pictures | "asked" | "waiting" | string | null;
  }

  function Chosen({ one, other, found }: { one: Row; other: Row | undefined; found: Shown }): JSX.Element {
    const { detail, compared, pictures } = found;
    return (
      <>
        <div class="hl-run-head">
          <h5>
            <bdi>{one.name}</bdi>
          </h5>
          <Against one={one} />
        </div>
        {detail.error && (
          <p class="hl-tell hl-wrong">
            <bdi>{detail.error}</bdi>
          </p>
        )}
        {other && compared && <Compared one={one} other={other} found={compared} />}
        {!compared && detail.metrics.length > 0 && grid(["metric", "value"], detail.metrics)}
        {detail.spec && (
          <details>
            <summary>spec</summary>
            <pre class="hl-spec-text">{detail.spec}</pre>
          </details>
        )}
        {detail.about.length > 0 && (
          <details>
            <summary>where it comes from</summary>
            <Pairs rows={detail.about} />
          </details>
        )}
        {pictures === "waiting" && (
          <button type="button" class="hl-button" onClick={() => void look(one, detail, compared)}>
            Read it ({size(detail.size)}) and show its pictures
          </button>
        )}
        {pictures === "asked" && <p class="hl-quiet">reading…</p>}
        {typeof pictures === "string" && !["waiting", "asked"].includes(pictures) && (
          <p class="hl-tell hl-wrong">{pictures}</p>
        )}
        {pictures && typeof pictures === "object" && <Drawn found={pictures} />}
      </>
    );
  }

  function Drawn({ found }: { found: Pictures }): JSX.Element {
    return (
      <>
        {found.claims.length > 0 && grid(["claim", "", "left", "right"], found.claims)}
        {found.texts.length > 0 && grid(["text", "prompt", "written on"], found.texts)}
        {found.next.length > 0 &&
          grid(["next token", ...found.next[0]!.slice(1).map(() => "")], found.next, "hl-unbroken")}
        <div class={night ? "hl-pictures hl-night" : "hl-pictures"}>
          {found.images.map((name, i) => (
            <figure key={name}>
              <figcaption>
                <bdi>{name}</bdi>
              </figcaption>
              <img src={addresses[i]} alt={`the scores ${name}`} />
            </figure>
          ))}
        </div>
        {found.kept.length > 0 && (
          <details>
            <summary>{found.kept.length} saved activations</summary>
            {grid(["name", "axes", "shape"], found.kept)}
          </details>
        )}
        {found.more && <p class="hl-quiet">{found.more}</p>}
      </>
    );
  }

  const free = (): void => {
    for (const one of addresses) URL.revokeObjectURL(one);
    addresses = [];
  };
  const put = (one: Row, found: Shown): void =>
    render(<Chosen one={one} other={against()} found={found} />, below);

  /** The pictures in the inks of the page; in dark ones, on white, where nobody has light ones. */
  async function inked(run: string): Promise<Reply<Pictures>> {
    night = dark(stage.root);
    const ask = (given: object) => stage.ask<Pictures>("pictures", { run, ...given }, 60_000);
    if (!night) return ask({});
    return ask({ dark: true }).catch((error) => {
      if (said(error) === GONE) throw error;
      night = false;
      return ask({});
    });
  }

  async function look(one: Row, detail: Detail, compared: Comparison | null): Promise<void> {
    const mine = ++asked;
    put(one, { detail, compared, pictures: "asked" });
    try {
      const { reply, buffers } = await inked(one.key);
      if (mine !== asked) return;
      free();
      addresses = buffers.map((data) =>
        URL.createObjectURL(new Blob([data as BlobPart], { type: "image/png" })),
      );
      put(one, { detail, compared, pictures: reply });
      redraw = () => void look(one, detail, compared);
    } catch (error) {
      if (mine === asked) put(one, { detail, compared, pictures: said(error) });
    }
  }

  async function show(): Promise<void> {
    const mine = ++asked;
    redraw = null;
    const [one, other] = [chosen(), against()];
    if (!one) {
      free();
      render(null, below);
      stage.say("");
      return;
    }
    stage.say(`${one.name}${other ? ` against ${other.name}` : ""}`);
    try {
      const { reply: detail } = await stage.ask<Detail>("detail", { run: one.key });
      const compared =
        other && !one.error && !other.error
          ? (await stage.ask<Comparison>("compare", { run: one.key, against: other.key })).reply
          : null;
      if (mine !== asked) return;
      stage.tell(null);
      put(one, { detail, compared, pictures: detail.error ? null : "waiting" });
      if (detail.eager) await look(one, detail, compared);
    } catch (error) {
      if (mine === asked) stage.tell(said(error), true);
    }
  }

  // Pointer and keys -----------------------------------------------------------------------------------------------

  const compare = (key: string): void => {
    if (chosen() && chosen()!.key !== key) stage.select({ against: against()?.key === key ? null : key });
  };
  table.addEventListener(
    "click",
    (event) => {
      const key = keyed(event);
      if (key === null) return;
      if (event.shiftKey) compare(key);
      else choose(chosen()?.key === key ? null : key);
    },
    { signal: stage.signal },
  );
  walking(table, {
    signal: stage.signal,
    keys: () =>
      listed()
        .slice(0, MOST)
        .map(({ key }) => key),
    go: (key) => {
      focus = key;
      list();
    },
    acts: {
      Enter: (key, event) => (event.shiftKey ? compare(key) : choose(key)),
      " ": choose,
      c: compare,
      Escape: () => choose(null),
    },
  });

  const box = searchBox("runs", (said) => {
    search = said;
    list();
  });
  const again = document.createElement("button");
  again.type = "button";
  again.className = "hl-button";
  again.textContent = "Refresh";
  again.addEventListener("click", async () => {
    try {
      const { reply } = await stage.ask<{ count: number }>("refresh", {}, 60_000);
      stage.say(`${reply.count} runs`);
    } catch (error) {
      stage.tell(said(error), true);
    }
  });
  stage.tools.append(box, again);
  stage.signal.addEventListener("abort", () => {
    free();
    render(null, table);
    render(null, below);
  });
  return {
    draw: list,
    selected() {
      list();
      void show();
    },
  };
});

const said = (error: unknown): string => (error instanceof Error ? error.message : String(error));
