import { useSignal, type Signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';

/** Something that is asked for: whether it is under way, and what went wrong. */
export interface Doing {
  isBusy: Signal<boolean>;
  error: Signal<unknown>;
  /** Begins; whatever was under way before is ended. */
  begin: (work: (signal: AbortSignal) => Promise<void>) => Promise<void>;
  stop: () => void;
}

/** One thing at a time; it ends with the part of the page that began it. */
export function useDoing(): Doing {
  const isBusy = useSignal(false);
  const error = useSignal<unknown>(null);
  const abort = useRef<AbortController | null>(null);
  const stop = () => abort.current?.abort();
  useEffect(() => stop, []);
  const begin = async (work: (signal: AbortSignal) => Promise<void>) => {
    stop();
    const mine = new AbortController();
    abort.current = mine;
    isBusy.value = true;
    error.value = null;
    try {
      await work(mine.signal);
    } catch (caught) {
      if (!mine.signal.aborted) error.value = caught;
    }
    if (abort.current === mine) isBusy.value = false;
  };
  return { isBusy, error, begin, stop };
}
