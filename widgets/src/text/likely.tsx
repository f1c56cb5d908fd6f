// A table of likely tokens: rank, text, probability; and the token that came, wherever it stands.
import type { JSX } from "preact";
import { number } from "../core/format";

export interface Candidate {
  id: number;
  rank: number;
  text: string;
  prob: number;
  /** What is said beside it. */
  mark?: string;
}

interface Given {
  caption: string;
  rows: Candidate[];
  /** Makes each token a button. */
  pick?: (one: Candidate) => void;
  picked?: number;
}

export function Likely({ caption, rows, pick, picked }: Given): JSX.Element {
  return (
    <table class="hl-among">
      <caption>{caption}</caption>
      <thead>
        <tr>
          <th scope="col">rank</th>
          <th scope="col">token</th>
          <th scope="col" colSpan={2}>
            probability
          </th>
        </tr>
      </thead>
      <tbody>
        {rows.map((one) => (
          <tr key={`${one.rank} ${one.id}`} class={one.mark ? "hl-taken" : undefined}>
            <td>{one.rank < 0 ? "–" : one.rank}</td>
            <th scope="row">
              {pick ? (
                <button
                  type="button"
                  class="hl-button"
                  aria-pressed={one.id === picked}
                  onClick={() => pick(one)}
                >
                  <bdi class="hl-piece">{one.text}</bdi>
                </button>
              ) : (
                <bdi class="hl-piece">{one.text}</bdi>
              )}
              {one.mark && <span class="hl-quiet"> ← {one.mark}</span>}
            </th>
            <td class="hl-track">
              <span style={{ width: `${100 * Math.max(0, Math.min(1, one.prob || 0))}%` }} />
            </td>
            <td>{Number.isNaN(one.prob) ? "–" : number(one.prob)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
