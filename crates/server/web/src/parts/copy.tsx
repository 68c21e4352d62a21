import { useState } from 'preact/hooks';
import { t } from '../i18n';
import { Icon } from './icon';
import { say } from './announce';

/** Copies a text. */
export function CopyButton({ text }: { text: string }) {
  const [isDone, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      return;
    }
    say(t('copied'));
    setDone(true);
    setTimeout(() => setDone(false), 1600);
  };
  return (
    <button type="button" class="quiet small" onClick={() => void copy()} aria-label={t('copy')} title={t('copy')}>
      <Icon name={isDone ? 'check' : 'copy'} />
    </button>
  );
}
