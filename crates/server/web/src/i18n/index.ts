import { language } from '../settings';
import { en } from './en';
import { zhHant } from './zh-Hant';

export type Word = keyof typeof en;

/** The words in the chosen language; `{name}` in them is replaced by a value. */
export function t(word: Word, values: Record<string, string | number> = {}): string {
  const text: string = (language.value === 'en' ? en : zhHant)[word];
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

/** A number as the language writes it. */
export const number = (value: number, digits = 0): string =>
  value.toLocaleString(language.value, { maximumFractionDigits: digits, minimumFractionDigits: 0 });

/** Bytes in the unit that leaves the fewest digits. */
export function bytes(value: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${number(value, value < 10 && unit > 0 ? 1 : 0)} ${units[unit]}`;
}

/** A day, or a time if it is today's. `seconds` since 1970. */
export function moment(seconds: number): string {
  const date = new Date(seconds * 1000);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday
    ? date.toLocaleTimeString(language.value, { hour: '2-digit', minute: '2-digit' })
    : date.toLocaleDateString(language.value, { year: 'numeric', month: 'short', day: 'numeric' });
}
