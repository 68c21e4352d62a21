import { useSignal, type Signal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { metrics, runs, type Run } from '../api/runs';
import { EMPTY, grown, type Curves } from './metrics';

/** Milliseconds between two questions for further steps. */
const STEPS = 1000;

/** Milliseconds between two questions for the list of runs. */
const LIST = 3000;

/** What is known of the runs: the list, whether there is a folder for them, what went wrong. */
export interface Known {
  runs: Run[] | null;
  enabled: boolean;
  error: unknown;
}

/** Asks for something again and again while the page is shown; `ask` tells whether to ask again at once. */
function useAsking(ask: (signal: AbortSignal) => Promise<boolean>, gap: number, of: unknown) {
  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const turn = async () => {
      const isMore = document.hidden ? false : await ask(abort.signal);
      if (!abort.signal.aborted) timer = setTimeout(() => void turn(), isMore ? 0 : gap);
    };
    void turn();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [of]);
}

/** The list of runs, as it is now. */
export function useRuns(): Signal<Known> {
  const known = useSignal<Known>({ runs: null, enabled: true, error: null });
  useAsking(
    async () => {
      try {
        known.value = { ...(await runs()), error: null };
      } catch (error) {
        known.value = { ...known.value, error };
      }
      return false;
    },
    LIST,
    null,
  );
  return known;
}

/** The curves of a run, as far as they are written. */
export function useCurves(name: string): Signal<Curves | null> {
  const curves = useSignal<Curves | null>(null);
  const next = useSignal(0);
  useAsking(
    async (signal) => {
      try {
        const piece = await metrics(name, next.value, signal);
        const known = piece.from === next.value ? (curves.value ?? EMPTY) : EMPTY;
        if (piece.lines !== '' || curves.value === null) curves.value = grown(known, piece.lines);
        next.value = piece.next;
        return piece.lines !== '' && piece.lines.length > 500_000;
      } catch {
        // The list of runs tells when the server is gone.
        return false;
      }
    },
    STEPS,
    name,
  );
  return curves;
}
