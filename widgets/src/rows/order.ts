// Rows in the order of a column, and those of them that hold what is searched for.

export type Sortable = string | number | null;

const missing = (value: Sortable): boolean => value === null || value === "" || Number.isNaN(value);

/** Rows in the order of a value; what has none stands last, and equal ones as they stood. */
export function ordered<T>(rows: readonly T[], of: (row: T) => Sortable, down: boolean): T[] {
  return rows
    .map((row, i) => ({ row, i, value: of(row) }))
    .sort((a, b) => {
      const [none, neither] = [missing(a.value), missing(b.value)];
      if (none || neither) return Number(none) - Number(neither) || a.i - b.i;
      const order =
        typeof a.value === "number" && typeof b.value === "number"
          ? a.value - b.value
          : String(a.value).localeCompare(String(b.value), undefined, { numeric: true });
      return (down ? -order : order) || a.i - b.i;
    })
    .map(({ row }) => row);
}

/** A test whether a text holds every word of a search, in any order and in capitals or not. */
export function searching(search: string): (text: string) => boolean {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return (text) => {
    const low = text.toLowerCase();
    return words.every((word) => low.includes(word));
  };
}
