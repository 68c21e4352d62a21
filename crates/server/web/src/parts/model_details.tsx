import { details } from '../models';
import { number, t } from '../i18n';
import { Dialog } from './dialog';
import { short } from './model_picker';

/** What a value of a model's own table looks like; long lists are counted. */
const shown = (value: unknown): string =>
  typeof value === 'number'
    ? number(value, 6)
    : Array.isArray(value)
      ? `[${value.slice(0, 4).join(', ')}${value.length > 4 ? `, … (${value.length})` : ''}]`
      : String(value);

/** All that a model says of itself. */
export function ModelDetails({ name, onClose }: { name: string; onClose: () => void }) {
  const of = details.value[name];
  const texts = [
    [t('template-of-chat'), of?.template], [t('system-prompt'), of?.system], [t('sampling'), of?.parameters], [t('licence'), of?.license],
  ] as const;
  return (
    <Dialog title={short(name)} onClose={onClose} wide>
      {!of && <p class="empty">{t('unknown')}</p>}
      {of?.capabilities && (
        <p>
          {t('capabilities')}:{' '}
          {of.capabilities.map((each) => (
            <span key={each} class="badge">
              {each}
            </span>
          ))}
        </p>
      )}
      <dl class="facts-table">
        {Object.entries(of?.model_info ?? {})
          .filter(([, value]) => value !== null)
          .map(([key, value]) => (
            <div key={key}>
              <dt>{key}</dt>
              <dd>{shown(value)}</dd>
            </div>
          ))}
      </dl>
      {texts.map(
        ([title, text]) =>
          text && (
            <details key={title} class="call">
              <summary>{title}</summary>
              <pre tabIndex={0}>{text}</pre>
            </details>
          ),
      )}
    </Dialog>
  );
}
