import { isRecord } from '../kept';

/** How answers are drawn; what is absent is the server's choice. */
export interface Sampling {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  repeat_penalty?: number;
  max_tokens?: number;
  seed?: number;
  stop?: string[];
}

export type NumberName = Exclude<keyof Sampling, 'stop'>;

/** The numbers: their ranges and steps. */
export const NUMBERS: { name: NumberName; min: number; max: number; step: number; usual: string }[] = [
  { name: 'temperature', min: 0, max: 2, step: 0.05, usual: '1' },
  { name: 'top_p', min: 0, max: 1, step: 0.01, usual: '1' },
  { name: 'top_k', min: 0, max: 1000, step: 1, usual: '0' },
  { name: 'min_p', min: 0, max: 1, step: 0.01, usual: '0' },
  { name: 'repeat_penalty', min: 0.5, max: 2, step: 0.05, usual: '1' },
  { name: 'max_tokens', min: 1, max: 1_000_000, step: 1, usual: '∞' },
  { name: 'seed', min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, usual: '?' },
];

/** What of an unknown value is a way of sampling. */
export function samplingOf(value: unknown): Sampling {
  if (!isRecord(value)) return {};
  const out: Sampling = {};
  for (const { name, min, max } of NUMBERS) {
    const number = value[name];
    if (typeof number === 'number' && number >= min && number <= max) out[name] = number;
  }
  const stop = value['stop'];
  if (Array.isArray(stop)) {
    const texts = stop.filter((text): text is string => typeof text === 'string' && text !== '').slice(0, 4);
    if (texts.length > 0) out.stop = texts;
  }
  return out;
}
