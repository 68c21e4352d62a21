import type { Signal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { t } from '../i18n';
import { can, models } from '../models';
import { short } from './model_picker';

/** A choice among the models that can do something. */
export function ModelField({ value, what }: { value: Signal<string>; what: string }) {
  const found = (models.value ?? []).filter(({ name }) => what === 'any' || can(name, what));
  const isThere = found.some(({ name }) => name === value.value);
  const first = found[0]?.name ?? '';
  useEffect(() => {
    if (!isThere) value.value = first;
  }, [isThere, first]);
  return (
    <label class="narrow">
      {t('model')}
      <select value={value.value} onChange={(event) => (value.value = event.currentTarget.value)}>
        {found.map(({ name }) => (
          <option key={name} value={name}>
            {short(name)}
          </option>
        ))}
      </select>
    </label>
  );
}
