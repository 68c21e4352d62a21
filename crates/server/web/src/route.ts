import { signal } from '@preact/signals';

export const PAGES = ['chat', 'playground', 'models', 'training', 'settings'] as const;
export type Page = (typeof PAGES)[number];

const read = (): Page => PAGES.find((page) => `#/${page}` === location.hash) ?? 'chat';

/** The page that the address names: `#/models`. */
export const page = signal<Page>(read());

addEventListener('hashchange', () => {
  page.value = read();
});

export const address = (to: Page): string => `#/${to}`;

export function go(to: Page): void {
  location.hash = address(to);
}
