import { useSignal } from '@preact/signals';
import { conversations, removeAll } from '../chat/conversations';
import { t } from '../i18n';
import { refresh } from '../models';
import { Confirm } from '../parts/dialog';
import { apiKey, language, theme, type Language, type Theme } from '../settings';

/** What this browser keeps of its user's choices. */
export function SettingsView() {
  const showsKey = useSignal(false);
  const asks = useSignal(false);
  return (
    <div class="sheet settings">
      <h1>{t('settings')}</h1>
      <section class="card">
        <label>
          {t('language')}
          <select value={language.value} onChange={(event) => (language.value = event.currentTarget.value as Language)}>
            <option value="en" lang="en">
              English
            </option>
            <option value="zh-Hant" lang="zh-Hant">
              繁體中文
            </option>
          </select>
        </label>
        <fieldset>
          <legend>{t('theme')}</legend>
          <div class="choices">
            {(['auto', 'light', 'dark'] satisfies Theme[]).map((name) => (
              <label key={name}>
                <input type="radio" name="theme" checked={theme.value === name} onChange={() => (theme.value = name)} />
                <span>{t(`theme-${name}`)}</span>
              </label>
            ))}
          </div>
        </fieldset>
      </section>
      <section class="card">
        <label>
          {t('api-key')}
          <input
            {...(showsKey.value ? { type: 'text' } : { type: 'password' })}
            autocomplete="off"
            spellcheck={false}
            aria-describedby="key-hint"
            value={apiKey.value}
            onChange={(event) => {
              apiKey.value = event.currentTarget.value.trim();
              void refresh();
            }}
          />
        </label>
        <label class="check">
          <input type="checkbox" checked={showsKey.value} onChange={(event) => (showsKey.value = event.currentTarget.checked)} />
          {t('show-key')}
        </label>
        <p id="key-hint" class="aside">
          {t('api-key-hint')}
        </p>
      </section>
      <section class="card">
        <h2>{t('privacy')}</h2>
        <p>{t('privacy-text')}</p>
        <button type="button" class="danger" disabled={!conversations.value?.length} onClick={() => (asks.value = true)}>
          {t('clear-all')}
        </button>
      </section>
      {asks.value && (
        <Confirm
          title={t('clear-all-question')}
          text={t('cannot-be-undone')}
          verb={t('delete')}
          onYes={() => void removeAll()}
          onClose={() => (asks.value = false)}
        />
      )}
    </div>
  );
}
