import { signal } from '@preact/signals';
import * as api from './api/models';

/** The models on this machine; `null` until they are known. */
export const models = signal<api.Installed[] | null>(null);
/** What each says of itself, as far as it was asked. */
export const details = signal<Record<string, api.Details>>({});
/** The names of those in memory, with their contexts. */
export const inMemory = signal<api.Loaded[]>([]);
/** Why the models are not known. */
export const problem = signal<unknown>(null);

/** Asks for the models again, and for what each says of itself. */
export async function refresh(): Promise<void> {
  try {
    const found = await api.installed();
    models.value = found;
    problem.value = null;
    const known = await Promise.all(found.map(async ({ name }) => [name, await api.show(name).catch(() => null)] as const));
    details.value = Object.fromEntries(known.filter(([, detail]) => detail !== null)) as Record<string, api.Details>;
  } catch (error) {
    models.value ??= [];
    problem.value = error;
  }
  await refreshMemory();
}

/** Asks which models are in memory. */
export async function refreshMemory(): Promise<void> {
  inMemory.value = await api.loaded().catch(() => []);
}

/** Whether a model can do something: `completion`, `embedding`, `vision`, `insert`, `thinking`, `tools`. */
export function can(model: string, what: string): boolean {
  const capabilities = details.value[model]?.capabilities;
  return capabilities ? capabilities.includes(what) : what === 'completion';
}

/** Tokens of a model's context: as it is loaded, or as it was made. */
export function contextOf(model: string): number | null {
  const loaded = inMemory.value.find(({ name }) => name === model)?.context_length;
  return loaded ?? api.contextOf(details.value[model]);
}

/** The name of a licence: the first words of its text, if the whole text is there. */
export function licenceOf(model: string): string {
  const text = details.value[model]?.license?.trim() ?? '';
  return (text.split('\n').find((line) => line.trim() !== '') ?? '').trim().slice(0, 60);
}
