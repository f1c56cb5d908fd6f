// The part of a heat map that is looked at, counted in cells.
export interface Window {
  top: number;
  left: number;
  rows: number;
  columns: number;
}

const FEWEST = 4;
const clip = (x: number, low: number, high: number): number => Math.max(low, Math.min(high, x));

export const whole = (rows: number, columns: number): Window => ({
  top: 0,
  left: 0,
  rows: Math.max(1, rows),
  columns: Math.max(1, columns),
});

/** Nearer (factor below 1) or farther, keeping a cell where it is. */
export function zoomed(
  window: Window,
  factor: number,
  around: { row: number; column: number } | null,
  rows: number,
  columns: number,
): Window {
  const wide = clip(window.columns * factor, Math.min(FEWEST, columns), columns);
  const high = clip(window.rows * factor, Math.min(FEWEST, rows), rows);
  const column = around ? around.column + 0.5 : window.left + window.columns / 2;
  const row = around ? around.row + 0.5 : window.top + window.rows / 2;
  return {
    rows: high,
    columns: wide,
    left: clip(column - ((column - window.left) / window.columns) * wide, 0, columns - wide),
    top: clip(row - ((row - window.top) / window.rows) * high, 0, rows - high),
  };
}

/** Moved so that a cell is inside. */
export function moved(
  window: Window,
  cell: { row: number; column: number },
  rows: number,
  columns: number,
): Window {
  return {
    ...window,
    top: clip(clip(window.top, cell.row + 1 - window.rows, cell.row), 0, rows - window.rows),
    left: clip(clip(window.left, cell.column + 1 - window.columns, cell.column), 0, columns - window.columns),
  };
}

/** Moved by so many cells, as far as there are any. */
export function dragged(window: Window, down: number, right: number, rows: number, columns: number): Window {
  return {
    ...window,
    top: clip(window.top - down, 0, rows - window.rows),
    left: clip(window.left - right, 0, columns - window.columns),
  };
}

export const same = (a: Window, b: Window): boolean =>
  a.top === b.top && a.left === b.left && a.rows === b.rows && a.columns === b.columns;
