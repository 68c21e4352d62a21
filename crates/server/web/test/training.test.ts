// @vitest-environment jsdom
import { describe, expect, it } from 'vitest';
import { linear, logarithmic } from '../src/training/axis';
import { nearest } from '../src/training/chart';
import { best, EMPTY, grown } from '../src/training/metrics';
import { smooth, thin } from '../src/training/smooth';

const line = (step: number, loss: number | null, kind = 'step') =>
  JSON.stringify({ kind, step, loss, learning_rate: step / 100, n_tokens: 200, seconds: 0.5 }) + '\n';

describe('curves', () => {
  it('grow by further lines, and pass over what is no line', () => {
    const first = grown(EMPTY, line(1, 3) + line(2, 2) + line(2, 2.5, 'validation') + '{"kind":"st');
    const all = grown(first, line(3, null));
    expect(all.training.map(({ step, value }) => [step, value])).toEqual([[1, 3], [2, 2], [3, NaN]]);
    expect(all.validation).toEqual([{ step: 2, value: 2.5 }]);
    expect(all.rate.at(-1)).toEqual({ step: 3, value: 0.03 });
    expect(all.speed).toBe(400);
    expect(first.training).toHaveLength(2);
  });
  it('forget the steps that a resumed run makes again', () => {
    const curves = grown(grown(EMPTY, [1, 2, 3, 4].map((step) => line(step, 5)).join('')), line(3, 1));
    expect(curves.training.map(({ step, value }) => [step, value])).toEqual([[1, 5], [2, 5], [3, 1]]);
  });
  it('know their best value', () => {
    expect(best([{ step: 1, value: 2 }, { step: 2, value: 1 }, { step: 3, value: NaN }])).toEqual({ step: 2, value: 1 });
    expect(best([])).toBe(null);
  });
  it('are smoothed without a pull at the beginning, and gaps stay gaps', () => {
    const values = smooth([1, 1, NaN, 1].map((value, step) => ({ step, value })), 0.9).map(({ value }) => value);
    expect(values[0]).toBeCloseTo(1);
    expect(values[2]).toBeNaN();
    expect(values[3]).toBeCloseTo(1);
  });
  it('are thinned without losing a peak or an end', () => {
    const points = Array.from({ length: 10_000 }, (_, step) => ({ step, value: step === 5001 ? 99 : step % 7 }));
    const few = thin(points, 300);
    expect(few.length).toBeLessThan(320);
    expect(few.map(({ value }) => value)).toContain(99);
    expect([few[0]?.step, few.at(-1)?.step]).toEqual([0, 9999]);
  });
  it('have a nearest point', () => {
    const points = [1, 5, 9].map((step) => ({ step, value: 0 }));
    expect([0, 2, 4, 8, 100].map((step) => nearest(points, step)?.step)).toEqual([1, 1, 5, 9, 9]);
    expect(nearest([], 3)).toBe(undefined);
  });
});

describe('axes', () => {
  it('hold their values between round numbers', () => {
    const axis = linear([1.37, 4.41, NaN], 5);
    expect([axis.low, axis.high]).toEqual([1, 4.5]);
    expect(axis.place(axis.low)).toBe(0);
    expect(axis.place(axis.high)).toBe(1);
  });
  it('stand for one value and for none, too', () => {
    for (const values of [[], [0], [2], [NaN]]) {
      const { low, high, ticks } = linear(values, 4);
      expect(high).toBeGreaterThan(low);
      expect(ticks.every(Number.isFinite)).toBe(true);
    }
  });
  it('may be logarithmic', () => {
    const axis = logarithmic([0.01, 1], 5);
    expect(axis.place(0.1)).toBeCloseTo(0.5);
    expect(axis.ticks).toContain(0.1);
    const none = logarithmic([0, -1], 4);
    expect(none.high).toBeGreaterThan(none.low);
  });
});
