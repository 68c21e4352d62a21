import { useSignal } from '@preact/signals';
import { choose } from '../chat/answer';
import { current, draft } from '../chat/conversations';
import { deletePreset, presets, savePreset } from '../chat/presets';
import { NUMBERS, type Sampling } from '../chat/sampling';
import { t } from '../i18n';
import { Icon } from './icon';

/** What the model is asked with: how to behave, how to draw its words. */
export function Options({ onClose }: { onClose: () => void }) {
  const { system, sampling } = current.value ?? draft.value;
  return (
    <aside class="options" aria-label={t('answer-options')}>
      <header>
        <h2>{t('answer-options')}</h2>
        <button type="button" class="quiet small" onClick={onClose} aria-label={t('hide-options')} title={t('hide-options')}>
          <Icon name="close" />
        </button>
      </header>
      <SystemPrompt text={system} />
      <SamplingFields sampling={sampling} />
    </aside>
  );
}

function SystemPrompt({ text }: { text: string }) {
  const name = useSignal('');
  const chosen = presets.value.find((preset) => preset.text === text)?.name ?? '';
  return (
    <section>
      <label>
        {t('system-prompt')}
        <textarea
          rows={4}
          placeholder={t('system-placeholder')}
          value={text}
          onInput={(event) => choose({ system: event.currentTarget.value })}
        />
      </label>
      {presets.value.length > 0 && (
        <label>
          {t('preset')}
          <select
            value={chosen}
            onChange={(event) => {
              const wanted = event.currentTarget.value;
              choose({ system: presets.value.find((preset) => preset.name === wanted)?.text ?? '' });
            }}
          >
            <option value="">{t('no-preset')}</option>
            {presets.value.map((preset) => (
              <option key={preset.name} value={preset.name}>
                {preset.name}
              </option>
            ))}
          </select>
        </label>
      )}
      {chosen !== '' && (
        <button type="button" class="link" onClick={() => deletePreset(chosen)}>
          {t('delete-preset')}
        </button>
      )}
      {chosen === '' && text.trim() !== '' && (
        <form
          class="inline"
          onSubmit={(event) => {
            event.preventDefault();
            if (name.value.trim() !== '') savePreset(name.value.trim(), text);
            name.value = '';
          }}
        >
          <input
            aria-label={t('preset-name')}
            placeholder={t('preset-name')}
            value={name.value}
            onInput={(event) => (name.value = event.currentTarget.value)}
          />
          <button type="submit" disabled={name.value.trim() === ''}>
            {t('save-preset')}
          </button>
        </form>
      )}
    </section>
  );
}

function SamplingFields({ sampling }: { sampling: Sampling }) {
  const set = (change: Partial<Record<keyof Sampling, number | string[] | undefined>>) => {
    const next = Object.entries({ ...sampling, ...change }).filter(([, value]) => value !== undefined);
    choose({ sampling: Object.fromEntries(next) as Sampling });
  };
  return (
    <section>
      <h3>{t('sampling')}</h3>
      <div class="fields">
        {NUMBERS.map(({ name, min, max, step, usual }) => (
          <label key={name}>
            <span>{t(name)}</span>
            <input
              type="number"
              inputMode="decimal"
              min={min}
              max={max}
              step={step}
              placeholder={usual}
              value={sampling[name] ?? ''}
              onChange={(event) => {
                const field = event.currentTarget;
                const value = field.valueAsNumber;
                if (field.value === '') set({ [name]: undefined });
                else if (field.reportValidity()) set({ [name]: value });
              }}
            />
          </label>
        ))}
      </div>
      <label>
        {t('stop-sequences')}
        <textarea
          rows={2}
          value={(sampling.stop ?? []).join('\n')}
          onChange={(event) => {
            const texts = event.currentTarget.value.split('\n').filter((text) => text !== '').slice(0, 4);
            set({ stop: texts.length > 0 ? texts : undefined });
          }}
        />
      </label>
      <button type="button" class="link" disabled={Object.keys(sampling).length === 0} onClick={() => choose({ sampling: {} })}>
        {t('reset')}
      </button>
    </section>
  );
}
