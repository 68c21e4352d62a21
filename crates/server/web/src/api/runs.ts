import { getJson } from './http';

/** A training run. `modified_at` in seconds since 1970. */
export interface Run {
  name: string;
  bytes: number;
  modified_at: number;
  finished: boolean;
}

/** Whole lines of `metrics.jsonl` from byte `from` on; the next ones begin at `next`. */
export interface Piece {
  from: number;
  next: number;
  lines: string;
}

export const runs = (): Promise<{ enabled: boolean; runs: Run[] }> => getJson('/api/runs');

export const metrics = (name: string, from: number, signal: AbortSignal): Promise<Piece> =>
  getJson(`/api/runs/${encodeURIComponent(name)}/metrics?from=${from}`, signal);
