// Rows of things with names and numbers, such as the nodes of a pass or the examples of a store: search, narrow, sort,
// choose one and look into it.
import { type JSX, render } from "preact";
import { dom } from "../core/dom";
import { number } from "../core/format";
import type { Facts } from "../core/model";
import { choice } from "../core/parts";
import { view } from "../core/stage";
import { ordered, searching } from "../rows/order";
import { Grid, Head, Pairs, keyed, searchBox, walking } from "../rows/parts";

interface Column {
  name: string;
  numeric: boolean;
  /** Which of the texts, or of the rows of numbers, it is. */
  at: number;
}

interface TableFacts extends Facts {
  /** The axis word that names a row. */
  word: string;
  columns: Column[];
  /** [column row] */
  texts: string[][];
  /** What rows can be narrowed by; `picks` has the number of the label of each row, [pick row]. */
  picks: { name: string; labels: string[] }[];
  sorted: number;
  down: boolean;
  /** Whether numbers can be sorted by their size. */
  signed: boolean;
  /** How many rows there would be. */
  total: number;
  note: string;
}

interface Detail {
  about: [string, string][];
  tables: { title: string; head: string[]; rows: (string | number | null)[][] }[];
  note: string;
}

const STEP = 200;
const ANY = "any";

export default view<TableFacts>("table", (stage) => {
  let search = "";
  let sorted = -1;
  let down = true;
  let most = STEP;
  let focus: string | null = null;
  let asked = 0;
  const narrowed = new Map<string, string>();
  const table = dom("div", { class: "hl-runs" });
  const below = dom("div", { class: "hl-run-detail" });
  stage.body.append(table, below);

  const axis = () => stage.facts().axes.find(({ name }) => name === stage.facts().word)!;
  const count = () => axis().keys.length;
  const keyOf = (row: number): string => String(axis().keys[row]);
  const rowOf = (key: string): number => axis().keys.findIndex((one) => String(one) === key);
  const chosen = (): number => {
    const key = stage.selection()[stage.facts().word];
    return key === undefined ? -1 : rowOf(String(key));
  };
  const value = (column: Column, row: number): string | number =>
    column.numeric
      ? Number(stage.arrays().numbers!.data[column.at * count() + row])
      : stage.facts().texts[column.at]![row]!;
  const written = (one: string | number | null): string =>
    typeof one === "string" ? one : one === null || Number.isNaN(one) ? "" : number(one, 4);
  const bySize = (): boolean => stage.facts().signed && stage.options().order === "size";

  function listed(): number[] {
    const { columns, texts, picks } = stage.facts();
    const holds = searching(search);
    const numbers = stage.arrays().picks?.data;
    const wanted = picks.map(({ name, labels }) => labels.indexOf(narrowed.get(name) ?? ANY));
    const found = [...Array(count()).keys()].filter(
      (row) =>
        wanted.every((label, i) => label < 0 || numbers![i * count() + row] === label) &&
        holds(texts.map((column) => column[row]).join(" ")),
    );
    const column = columns[sorted];
    if (!column) return found;
    return ordered(
      found,
      (row) => {
        const one = value(column, row);
        return typeof one === "number" && bySize() ? Math.abs(one) : one;
      },
      down,
    );
  }

  const choose = (key: string | null): void => {
    focus = key ?? focus;
    stage.select(key === null ? null : { ...CLEARED(), [stage.facts().word]: axis().keys[rowOf(key)]! });
  };
  /** Everything that was chosen with another row is given up with it. */
  const CLEARED = () => Object.fromEntries(Object.keys(stage.selection()).map((name) => [name, null]));

  const told = (row: number): string =>
    stage
      .facts()
      .columns.map((column, i) => {
        const text = written(value(column, row));
        return i ? text && `${column.name} ${text}` : `${column.name} ${text}`;
      })
      .filter(Boolean)
      .join(" · ");

  // The list -------------------------------------------------------------------------------------------------------

  function Line({ row, tab }: { row: number; tab: boolean }): JSX.Element {
    const here = chosen() === row;
    return (
      <tr
        data-key={keyOf(row)}
        tabIndex={tab ? 0 : -1}
        aria-selected={here}
        class={here ? "hl-here" : undefined}
      >
        {stage.facts().columns.map((column, i) => {
          const one = value(column, row);
          return (
            <td key={column.name} class={column.numeric ? "hl-number" : undefined} title={String(one)}>
              {i === 0 && here ? "● " : ""}
              <bdi>{written(one)}</bdi>
            </td>
          );
        })}
      </tr>
    );
  }

  function List(): JSX.Element {
    const { columns, total, note, word } = stage.facts();
    const rows = listed();
    const seen = rows.slice(0, most);
    const here = chosen();
    if (here >= 0 && !seen.includes(here) && rows.includes(here)) seen.push(here);
    const tab = seen.some((row) => keyOf(row) === focus) ? focus : seen.length ? keyOf(seen[0]!) : null;
    const left = rows.length - seen.length;
    return (
      <>
        <div class="hl-scroll">
          <table aria-label={`${word}s: arrow keys move, Enter chooses, Escape clears`}>
            <thead>
              <Head
                names={columns.map(({ name }) => name)}
                numeric={columns.map(({ numeric }) => numeric)}
                sorted={sorted}
                down={down}
                pick={sort}
              />
            </thead>
            <tbody>
              {seen.map((row) => (
                <Line key={keyOf(row)} row={row} tab={keyOf(row) === tab} />
              ))}
            </tbody>
          </table>
        </div>
        <p class="hl-quiet" role="status">
          {count() === 0 ? `There are no ${word}s here.` : `${rows.length} of ${total} ${word}s`}
          {note && ` · ${note}`}
        </p>
        {left > 0 && (
          <button
            type="button"
            class="hl-button"
            onClick={() => {
              most += STEP;
              list();
            }}
          >
            {`Show ${Math.min(STEP, left)} more`}
          </button>
        )}
      </>
    );
  }
  const list = (): void => render(<List />, table);
  const sort = (column: number): void => {
    const { numeric } = stage.facts().columns[column]!;
    down = column === sorted ? !down : numeric;
    sorted = column;
    list();
  };

  // What is chosen -------------------------------------------------------------------------------------------------

  async function show(): Promise<void> {
    const mine = ++asked;
    const row = chosen();
    if (row < 0) {
      render(null, below);
      stage.say("");
      return;
    }
    stage.say(told(row));
    try {
      const { reply } = await stage.ask<Detail>("detail", { key: axis().keys[row]! }, 60_000);
      if (mine !== asked) return;
      stage.tell(null);
      render(<Chosen name={keyOf(row)} found={reply} />, below);
    } catch (error) {
      if (mine !== asked) return;
      render(null, below);
      stage.tell(error instanceof Error ? error.message : String(error), true);
    }
  }

  const Chosen = ({ name, found }: { name: string; found: Detail }): JSX.Element => (
    <>
      <div class="hl-run-head">
        <h5>
          <bdi>{axis().labels[rowOf(name)]}</bdi>
        </h5>
      </div>
      {found.about.length > 0 && <Pairs rows={found.about} />}
      {found.tables.map(({ title, head, rows }) => (
        <details key={title} open>
          <summary>{title}</summary>
          <Grid head={head} rows={rows} cell={written} />
        </details>
      ))}
      {found.note && <p class="hl-quiet">{found.note}</p>}
    </>
  );

  // Pointer, keys and tools ----------------------------------------------------------------------------------------

  const on = <K extends keyof HTMLElementEventMap>(name: K, heard: (event: HTMLElementEventMap[K]) => void) =>
    table.addEventListener(name, heard, { signal: stage.signal });
  on("click", (event) => {
    const key = keyed(event);
    if (key !== null) choose(rowOf(key) === chosen() ? null : key);
  });
  const look = (event: Event): void => {
    const key = keyed(event);
    if (key !== null) stage.say(told(rowOf(key)));
  };
  on("mouseover", look);
  on("focusin", look);
  on("mouseleave", () => stage.say(chosen() < 0 ? "" : told(chosen())));
  walking(table, {
    signal: stage.signal,
    keys: () => [...table.querySelectorAll<HTMLElement>("tr[data-key]")].map((one) => one.dataset.key!),
    go: (key) => {
      focus = key;
      list();
    },
    acts: { Enter: choose, " ": choose, Escape: () => choose(null) },
  });

  const size = dom(
    "button",
    {
      class: "hl-button",
      type: "button",
      title: "Sort numbers by how far they are from zero",
      onclick: () => stage.option("order", bySize() ? "value" : "size"),
    },
    "by size",
  );
  function tools(): void {
    const { picks, signed, word } = stage.facts();
    const box = searchBox(`${word}s`, (said) => {
      search = said;
      list();
    });
    box.value = search;
    const narrow = picks.map(({ name, labels }) =>
      choice(name, [ANY, ...labels], narrowed.get(name) ?? ANY, (one) => {
        narrowed.set(name, one);
        list();
      }),
    );
    stage.tools.replaceChildren(box, ...narrow, ...(signed ? [size] : []));
  }

  stage.signal.addEventListener("abort", () => {
    render(null, table);
    render(null, below);
  });
  return {
    draw() {
      if (sorted < 0) ({ sorted, down } = stage.facts());
      tools();
      size.setAttribute("aria-pressed", String(bySize()));
      list();
    },
    selected() {
      list();
      void show();
    },
    optioned() {
      size.setAttribute("aria-pressed", String(bySize()));
      list();
    },
  };
});
