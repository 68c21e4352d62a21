import { signal } from '@preact/signals';

/** What screen readers are told. */
const words = signal('');

/** Tells screen readers something, without moving the focus. */
export function say(text: string): void {
  // The same words again are told again only if they differ from what stands there.
  words.value = words.value === text ? `${text}\u00a0` : text;
}

/** Where the words stand; once in the page. */
export const Announcements = () => (
  <div class="unseen" role="status" aria-live="polite" aria-atomic="true">
    {words.value}
  </div>
);
