import { effect } from '@preact/signals';
import { isFlag, isText, kept, oneOf } from './kept';

export type Language = 'en' | 'zh-Hant';
export type Theme = 'auto' | 'dark' | 'light';

/** What the browser's languages suggest. */
const preferred: Language = navigator.languages.some((tag) => /^zh\b/i.test(tag)) &&
  !navigator.languages[0]?.startsWith('en')
  ? 'zh-Hant'
  : 'en';

export const language = kept<Language>('language', preferred, oneOf('en', 'zh-Hant'));
export const theme = kept<Theme>('theme', 'auto', oneOf('auto', 'dark', 'light'));
/** Sent as `Authorization: Bearer`, to this page's own server only. */
export const apiKey = kept<string>('api-key', '', isText);
/** Whether answers are asked for with their tokens' probabilities, and shown with them. */
export const showsProbabilities = kept<boolean>('probabilities', false, isFlag);

effect(() => {
  document.documentElement.lang = language.value;
});
effect(() => {
  document.documentElement.dataset['theme'] = theme.value;
});
