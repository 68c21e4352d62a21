import { isRecord, kept } from '../kept';

/** System prompts that are kept under a name. */
export interface Preset {
  name: string;
  text: string;
}

const isPreset = (value: unknown): value is Preset =>
  isRecord(value) && typeof value['name'] === 'string' && typeof value['text'] === 'string';

export const presets = kept<Preset[]>(
  'presets',
  [],
  (value): value is Preset[] => Array.isArray(value) && value.every(isPreset),
);

/** Keeps a text under a name, in the place of another of that name. */
export function savePreset(name: string, text: string): void {
  const others = presets.value.filter((preset) => preset.name !== name);
  presets.value = [...others, { name, text }].sort((a, b) => a.name.localeCompare(b.name));
}

export function deletePreset(name: string): void {
  presets.value = presets.value.filter((preset) => preset.name !== name);
}
