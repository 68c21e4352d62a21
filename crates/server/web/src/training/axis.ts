/** How values become places: an axis from `low` to `high`, on which `place` is 0 at the low end and 1 at the high one. */
export interface Axis {
  low: number;
  high: number;
  ticks: number[];
  place: (value: number) => number;
}

/** A round number near `value`: 1, 2 or 5 times a power of ten. */
function round(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  const part = value / power;
  return (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10) * power;
}

/** An axis that holds the values, with about `count` ticks at round numbers. */
export function linear(values: number[], count: number): Axis {
  const [from, to] = extent(values);
  const gap = round((to - from) / count);
  const low = Math.floor(from / gap + 1e-9) * gap;
  const high = Math.ceil(to / gap - 1e-9) * gap;
  const ticks = Array.from({ length: Math.round((high - low) / gap) + 1 }, (_, i) => low + i * gap);
  return { low, high, ticks, place: (value) => (value - low) / (high - low) };
}

/** A logarithmic axis that holds the positive values. */
export function logarithmic(values: number[], count: number): Axis {
  const positive = values.filter((value) => value > 0);
  if (positive.length === 0) return linear(values, count);
  const [from, to] = extent(positive);
  const [low, high] = [Math.max(from, to * 1e-12), to];
  const place = (value: number) => Math.log(Math.max(value, low) / low) / Math.log(high / low);
  const decades: number[] = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    decades.push(...[1, 2, 5].map((part) => part * 10 ** power));
  }
  const inside = decades.filter((tick) => tick >= low && tick <= high);
  const whole = inside.filter((tick) => Math.abs(Math.log10(tick) % 1) < 1e-9);
  const ticks = inside.length > count * 2 ? whole : inside;
  return { low, high, ticks: ticks.length >= 2 ? ticks : [low, high], place };
}

/** The lowest and the highest finite value, kept apart. */
function extent(values: number[]): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return [0, 1];
  if (low === high) return low === 0 ? [0, 1] : [low - Math.abs(low) / 2, high + Math.abs(low) / 2];
  return [low, high];
}
