/** One value of a curve at a step. */
export interface Point {
  step: number;
  value: number;
}

/** What a run wrote down so far, in the order of the steps. */
export interface Curves {
  training: Point[];
  validation: Point[];
  rate: Point[];
  /** Tokens per second of the last steps. */
  speed: number | null;
}

export const EMPTY: Curves = { training: [], validation: [], rate: [], speed: null };

interface Line {
  kind: string;
  step: number;
  loss: number | null;
  learning_rate?: number;
  n_tokens?: number;
  seconds?: number;
}

/** How many of the last steps the speed is measured over. */
const RECENT = 20;

/** Points before a step: a run that was resumed makes later ones again. */
const before = (points: Point[], step: number): Point[] =>
  (points.at(-1)?.step ?? 0) < step ? points : points.filter((point) => point.step < step);

/** The curves with what further lines of `metrics.jsonl` say; a line that is no JSON was cut off by a crash. */
export function grown(curves: Curves, text: string): Curves {
  const lines = text.split('\n').flatMap((line): Line[] => {
    if (line.trim() === '') return [];
    try {
      return [JSON.parse(line) as Line];
    } catch {
      return [];
    }
  });
  if (lines.length === 0) return curves;
  let { training, validation, rate } = curves;
  [training, validation, rate] = [[...training], [...validation], [...rate]];
  for (const { kind, step, loss, learning_rate } of lines) {
    // A loss that is not finite is written as null, and drawn as a gap.
    const value = loss ?? NaN;
    if (kind === 'validation') {
      validation = before(validation, step);
      validation.push({ step, value });
    } else if (kind === 'step') {
      training = before(training, step);
      rate = before(rate, step);
      training.push({ step, value });
      if (learning_rate !== undefined) rate.push({ step, value: learning_rate });
    }
  }
  const recent = lines.filter((line) => line.kind === 'step' && (line.seconds ?? 0) > 0).slice(-RECENT);
  const seconds = recent.reduce((sum, line) => sum + (line.seconds ?? 0), 0);
  const tokens = recent.reduce((sum, line) => sum + (line.n_tokens ?? 0), 0);
  return { training, validation, rate, speed: seconds > 0 ? tokens / seconds : curves.speed };
}

/** The lowest value. */
export function best(points: Point[]): Point | null {
  return points.reduce<Point | null>((low, point) => (low === null || point.value < low.value ? point : low), null);
}
