// @vitest-environment jsdom
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { bytes, t } from '../src/i18n';
import { en } from '../src/i18n/en';
import { zhHant } from '../src/i18n/zh-Hant';
import { language } from '../src/settings';

const values = (text: string) => [...text.matchAll(/\{\w+\}/g)].map(([value]) => value).sort();

/** Every source file of the page but the dictionaries. */
const sources = readdirSync('src', { recursive: true, encoding: 'utf8' })
  .filter((file) => /\.tsx?$/.test(file) && !/i18n.(en|zh)/.test(file))
  .map((file) => readFileSync(`src/${file}`, 'utf8'))
  .join('\n');

describe('the dictionaries', () => {
  it('have the same keys in the same order', () => {
    expect(Object.keys(zhHant)).toEqual(Object.keys(en));
  });
  it.each(Object.keys(en) as (keyof typeof en)[])('say "%s" with the same values, and not in nothing', (key) => {
    expect(values(zhHant[key])).toEqual(values(en[key]));
    expect(zhHant[key].trim()).not.toBe('');
  });
  it('say nothing that the page does not', () => {
    const families = /^(theme-|run-)/;
    const unused = Object.keys(en).filter((key) => !sources.includes(`'${key}'`) && !sources.includes(`"${key}"`) && !families.test(key));
    // Numbers of sampling and names of pages are looked up by their own names.
    expect(unused.filter((key) => !new RegExp(`\\b${key}\\b`).test(sources))).toEqual([]);
  });
});

describe('the page', () => {
  it('speaks the chosen language', () => {
    language.value = 'zh-Hant';
    expect(t('version-of', { index: 1, count: 3 })).toBe('第 1 個版本，共 3 個');
    language.value = 'en';
    expect(t('version-of', { index: 1, count: 3 })).toBe('Version 1 of 3');
  });
  it('writes bytes in units', () => {
    expect([bytes(999), bytes(1500), bytes(93_100_000)]).toEqual(['999 B', '1.5 kB', '93 MB']);
  });
});
