import type { Point } from './metrics';

/**
 * An exponential mean of the values, `weight` from 0 (none) to below 1, without the pull towards 0 at the beginning.
 *
 * Source: Adam, arXiv:1412.6980, section 3 (the correction of the bias). What is not finite is passed over.
 */
export function smooth(points: Point[], weight: number): Point[] {
  if (weight <= 0) return points;
  let [mean, power] = [0, 1];
  return points.map(({ step, value }) => {
    if (!Number.isFinite(value)) return { step, value };
    mean = weight * mean + (1 - weight) * value;
    power *= weight;
    return { step, value: mean / (1 - power) };
  });
}

/** At most about `most` points: of each group the first, the lowest and the highest, so that no peak is lost. */
export function thin(points: Point[], most: number): Point[] {
  if (points.length <= most) return points;
  const size = Math.ceil(points.length / Math.max(1, Math.floor(most / 3)));
  const out: Point[] = [];
  for (let start = 0; start < points.length; start += size) {
    const group = points.slice(start, start + size);
    const low = group.reduce((a, b) => (b.value < a.value ? b : a));
    const high = group.reduce((a, b) => (b.value > a.value ? b : a));
    out.push(...[...new Set([group[0] as Point, low, high])].sort((a, b) => a.step - b.step));
  }
  const last = points.at(-1) as Point;
  return out.at(-1) === last ? out : [...out, last];
}
