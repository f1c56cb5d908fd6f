// Numbers in few characters.

/** A number with so many significant digits; whole numbers in full; a real minus sign. */
export function number(value: number, digits = 3): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text =
    Number.isInteger(value) && size < 1e6
      ? String(size)
      : size >= 1e6 || size < 1e-4
        ? size
            .toExponential(digits - 1)
            .replace("e+", "e")
            .replace("e-", "e−")
        : size.toPrecision(Math.max(digits, Math.ceil(Math.log10(size + 1))));
  return value < 0 ? `−${text}` : text;
}

/** Which of many labels to write, so that neighbours keep a distance: every one, every second, every fifth … */
export function every(count: number, room: number, needed: number): number {
  for (const step of [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000])
    if ((room / count) * step >= needed) return step;
  return count;
}
