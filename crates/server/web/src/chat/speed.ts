import { isRecord, kept } from '../kept';
import type { Turn } from './tree';

/** Tokens per second that each model wrote in its last answer on this server, by name. */
export const speeds = kept<Record<string, number>>(
  'speeds',
  {},
  (value): value is Record<string, number> =>
    isRecord(value) && Object.values(value).every((speed) => typeof speed === 'number'),
);

/** Tokens per second of an answer, without the wait for its first; `null` if too few were written to tell. */
export function speedOf(turn: Turn): number | null {
  const count = turn.usage?.completion ?? turn.tokens?.length ?? 0;
  const { rest } = turn.timing ?? { rest: 0 };
  return count >= 5 && rest > 0 ? ((count - 1) * 1000) / rest : null;
}

/** Remembers how fast a model was. */
export function measured(model: string, turn: Turn): void {
  const speed = speedOf(turn);
  if (speed !== null) speeds.value = { ...speeds.value, [model]: speed };
}
