import { t, type Word } from '../i18n';
import { Dialog } from './dialog';

const isMac = /Mac|iPhone|iPad/.test(navigator.userAgent);
const control = isMac ? '⌘' : 'Ctrl';

const KEYS: [string[], Word][] = [
  [['Enter'], 'key-send'],
  [['Shift', 'Enter'], 'key-newline'],
  [['Esc'], 'key-stop'],
  [[control, 'Shift', 'O'], 'key-new'],
  [[control, 'Shift', 'F'], 'key-search'],
  [['Alt', 'M'], 'key-focus'],
  [['Alt', '↑'], 'key-edit'],
  [[control, '/'], 'key-help'],
];

export const Shortcuts = ({ onClose }: { onClose: () => void }) => (
  <Dialog title={t('shortcuts')} onClose={onClose}>
    <dl class="keys">
      {KEYS.map(([keys, word]) => (
        <div key={word}>
          <dt>
            {keys.map((key) => (
              <kbd key={key}>{key}</kbd>
            ))}
          </dt>
          <dd>{t(word)}</dd>
        </div>
      ))}
    </dl>
  </Dialog>
);
