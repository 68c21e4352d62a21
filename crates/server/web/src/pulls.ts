import { signal } from '@preact/signals';
import { pull, type PullStep } from './api/models';
import { t } from './i18n';
import { refresh } from './models';
import { say } from './parts/announce';

/** A model that is being fetched, or could not be. */
export interface Pull {
  name: string;
  step: PullStep | null;
  error: unknown;
  isDone: boolean;
  stop: () => void;
}

/** The models that are being fetched, in the order of asking. They go on while other pages are shown. */
export const pulls = signal<Pull[]>([]);

/** What of a layer is here, from 0 to 1; `null` while its size is not known. */
export const progress = ({ step }: Pull): number | null =>
  step?.total ? Math.min(1, (step.completed ?? 0) / step.total) : null;

function change(name: string, change: Partial<Pull>): void {
  pulls.value = pulls.value.map((other) => (other.name === name ? { ...other, ...change } : other));
}

export const dismiss = (name: string): void => {
  pulls.value = pulls.value.filter((other) => other.name !== name);
};

/** Fetches a model, unless that is under way. */
export async function fetchModel(name: string): Promise<void> {
  if (pulls.value.some((other) => other.name === name && !other.isDone && other.error === null)) return;
  dismiss(name);
  const abort = new AbortController();
  pulls.value = [...pulls.value, { name, step: null, error: null, isDone: false, stop: () => abort.abort() }];
  say(t('fetching', { name }));
  try {
    for await (const step of pull(name, abort.signal)) change(name, { step });
    change(name, { isDone: true });
    say(t('fetched', { name }));
    await refresh();
  } catch (error) {
    if (abort.signal.aborted) {
      dismiss(name);
      say(t('fetch-cancelled', { name }));
    } else {
      change(name, { error });
    }
  }
}
