import { t } from '../i18n';
import { Icon } from './icon';

/** A file as an address that holds it whole. */
export function dataUrl(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error ?? new Error(file.name));
    reader.readAsDataURL(file);
  });
}

/** Pictures of a message, small. */
export function Pictures({ of, onRemove }: { of: string[]; onRemove?: (index: number) => void }) {
  if (of.length === 0) return null;
  return (
    <ul class="pictures">
      {of.map((url, i) => (
        <li key={i}>
          <img src={url} alt={t('picture', { number: i + 1 })} />
          {onRemove && (
            <button type="button" class="round small" onClick={() => onRemove(i)} aria-label={t('remove-picture', { number: i + 1 })}>
              <Icon name="close" />
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}
