import { effect, signal, type Signal } from '@preact/signals';

/** A signal whose value this browser keeps under `rhetor.NAME`; what is kept and not accepted is forgotten. */
export function kept<T>(name: string, initial: T, accepts: (value: unknown) => value is T): Signal<T> {
  const key = `rhetor.${name}`;
  const value = signal<T>(initial);
  try {
    const text = localStorage.getItem(key);
    const stored: unknown = text === null ? undefined : JSON.parse(text);
    if (accepts(stored)) value.value = stored;
  } catch {
    // A browser that keeps nothing still shows the page.
  }
  effect(() => {
    const text = JSON.stringify(value.value);
    try {
      localStorage.setItem(key, text);
    } catch {
      // The same.
    }
  });
  return value;
}

/** One of the given words. */
export function oneOf<const T extends string>(...words: T[]): (value: unknown) => value is T {
  return (value): value is T => (words as unknown[]).includes(value);
}

export const isText = (value: unknown): value is string => typeof value === 'string';
export const isFlag = (value: unknown): value is boolean => typeof value === 'boolean';
export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
