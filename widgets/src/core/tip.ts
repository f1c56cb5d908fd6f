// Where a tip stands: beside its cell, never on it, never outside of its pane.
export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

const GAP = 8;
const clip = (x: number, low: number, high: number): number => Math.max(low, Math.min(high, x));

/** The corner of a tip: below or above its cell, else right or left of it; where nothing fits, as near as it can be. */
export function beside(
  cell: Box,
  tip: { width: number; height: number },
  room: Box,
): { left: number; top: number } {
  const right = room.left + room.width - tip.width;
  const bottom = room.top + room.height - tip.height;
  const left = clip(cell.left + cell.width / 2 - tip.width / 2, room.left, Math.max(room.left, right));
  const top = clip(cell.top + cell.height / 2 - tip.height / 2, room.top, Math.max(room.top, bottom));
  const below = { left, top: cell.top + cell.height + GAP };
  const above = { left, top: cell.top - tip.height - GAP };
  const after = { left: cell.left + cell.width + GAP, top };
  const before = { left: cell.left - tip.width - GAP, top };
  const upper = cell.top + cell.height / 2 < room.top + room.height / 2;
  for (const place of [...(upper ? [below, above] : [above, below]), after, before])
    if (place.left >= room.left && place.left <= right && place.top >= room.top && place.top <= bottom)
      return place;
  return { left, top: clip(upper ? below.top : above.top, room.top, Math.max(room.top, bottom)) };
}
